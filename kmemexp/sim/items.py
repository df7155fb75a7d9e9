"""What an allocator is told of the kinds that it serves."""

from typing import NamedTuple


class Item(NamedTuple):
    """One zone (or other typed item) that an allocator serves; its place in the list is regs.ITEM."""

    size: int  # bytes of an object
    growth: int  # pages per growth; 0 counts as 1
    limit: int  # entries of an interrupt zone whose KVA is set aside at boot; 0: grows on demand
