"""In which order partly free slabs are used: what the slab allocators' parameter `slab_order` chooses.

Their own order is that of history: a slab goes to one end of a list when its first object is freed, and stays there.
A list may be sorted instead, so that objects gather in few slabs and others become wholly free: by address, or fullest
first, with the lowest address first among equals. No kernel modelled here sorts by address; illumos keeps the full,
the partly and the wholly free slabs of a cache apart, and takes the fullest of the partly free ones.

Objects are taken from the head alone, which stays the head; a slab into which one is freed moves further on. A list is
threaded through a table with a row for each slab, in order of address.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Columns, Registers, Table, int64
from kmemexp.sim.tables import regs

OWN = 0  # the allocator's own order
LOWEST = 1  # by address
FULLEST = 2  # by the number of free objects
NIL = -1


@kernel
def goes_first(order: int, a: int, room_a: int, b: int, room_b: int) -> bool:
    """Whether slab `a` with `room_a` free objects is used before slab `b`."""
    if order == LOWEST or room_a == room_b:
        return a < b
    return room_a < room_b


@outlined
def insert(
    reg: Registers, i: int, table: Table, columns: Columns, order: int, slab: int, before: int, after: int
) -> int:
    """Link a slab into a sorted list between two neighbours, NIL at an end, or further on. Returns the one before it.

    `columns` of the table: next slab, previous slab, free objects. Whom it passes is work.
    """
    following, preceding, room = columns
    while after != NIL and goes_first(order, after, table[after, room], slab, table[slab, room]):
        before = after
        after = int64(table[after, following])
        reg[i, regs.WORK] += 1
    table[slab, preceding] = before
    table[slab, following] = after
    if before != NIL:
        table[before, following] = slab
    if after != NIL:
        table[after, preceding] = slab
    return before


def check_order(order: int) -> None:
    """Raise ValueError for an order that there is not."""
    if order not in (OWN, LOWEST, FULLEST):
        raise ValueError(f"slab_order is {order}; 0 is the allocator's own, 1 by address, 2 fullest first")
