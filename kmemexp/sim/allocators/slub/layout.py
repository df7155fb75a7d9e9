"""What SLUB decides when a cache is made: kmalloc() sizes, strides, merging, slab orders, list lengths, sheaves."""

from collections.abc import Sequence
from typing import NamedTuple

from kmemexp.sim import items
from kmemexp.sim.items import Item, Traits
from kmemexp.sim.slots import PAGE, PAGE_SHIFT

KMALLOC_SIZES = (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)
KMALLOC_NAMES = ("kmalloc", "kmalloc-cg", "kmalloc-rcl", "dma-kmalloc", "msg_msg", "memdup_user")
"""What the caches of each of `items.KMALLOC_SETS` are called, before their size."""
MAX_PAGE_ORDER = 10  # 4 MiB: the largest block of pages, and the largest kmalloc()
SLUB_MAX_ORDER = 3
MAX_OBJS_PER_SLAB = 32767
LEAST_PARTIAL, MOST_PARTIAL = 5, 10
SHEAF_HEADER = 32  # sizeof(struct slab_sheaf)
CACHE_LINE = 64
WORD = 8
NEVER_MERGED = items.RCU | items.CTOR | items.UNMERGED
MERGED_ALIKE = items.RECLAIM | items.ACCOUNT


class Layout(NamedTuple):
    """A cache's figures."""

    size: int  # bytes of an object
    order: int  # of its slabs: 2**order pages
    objects: int  # in a slab
    min_order: int  # of a slab when there is no block of the preferred order
    cpu_slabs: int  # slabs on a CPU's partial list at which it is flushed
    min_partial: int  # slabs on a node's partial list beyond which empty ones are given back


def get_order(nbytes: int) -> int:
    """Order of the smallest block of pages that holds `nbytes`, 1 or more."""
    return ((nbytes - 1) >> PAGE_SHIFT).bit_length()


def kmalloc_size(nbytes: int) -> int:
    """Bytes that kmalloc() hands out for a request of 1 byte to 4 MiB; above 8192, a block of pages."""
    if nbytes > KMALLOC_SIZES[-1]:
        return PAGE << get_order(nbytes)
    return next(size for size in KMALLOC_SIZES if size >= nbytes)


def cache_size(nbytes: int) -> int:
    """Bytes of an object of a cache made for `nbytes` without an alignment of its own."""
    return max(_up(nbytes, WORD), WORD)


def alignment(nbytes: int, traits: Traits) -> int:
    """Alignment of a cache's objects: calculate_alignment() of mm/slab_common.c."""
    align = max(traits.align, WORD)
    if traits.flags & items.HWALIGN:
        line = CACHE_LINE
        while nbytes <= line // 2:
            line //= 2
        align = max(align, line)
    return _up(align, WORD)


def stride(nbytes: int, traits: Traits) -> int:
    """Bytes from one object to the next: what a recording said, else calculate_sizes() of mm/slub.c.

    A free object's link stands behind it where there is a constructor, or where readers may still look at it. A cache
    that is typesafe by RCU may give the link a place inside (`struct kmem_cache_args`); then its size says so already.
    """
    if traits.stride:
        return traits.stride
    size = cache_size(nbytes)
    if traits.flags & (items.CTOR | items.RCU):
        size += WORD
    return _up(size, alignment(nbytes, traits))


def has_padding(item: Item) -> bool:
    """Whether a cache that is merged with none has room for a word in each object (SLAB_OBJ_EXT_IN_OBJ of 7.1)."""
    traits = item.traits
    needed = cache_size(item.size) + (WORD if traits.flags & (items.CTOR | items.RCU) else 0)
    return bool(traits.flags & NEVER_MERGED) and stride(item.size, traits) - needed >= WORD


def merged(caches: Sequence[Item]) -> list[int]:
    """Which cache each of these is merged into, the oldest that fits: find_mergeable() of mm/slab_common.c."""
    into: list[int] = []
    for k, new in enumerate(caches):
        fitting = (j for j in range(k) if into[j] == j and _fits(new, caches[j]))
        into.append(next(fitting, k) if _may_merge(new) else k)
    return into


def _may_merge(item: Item) -> bool:
    return not item.traits.flags & NEVER_MERGED and not item.traits.sheaf


def _fits(new: Item, old: Item) -> bool:
    """Whether a new cache may be one with an old one."""
    size, align = stride(old.size, old.traits), alignment(new.size, new.traits)
    needed = _up(cache_size(new.size), align)
    alike = not (new.traits.flags ^ old.traits.flags) & MERGED_ALIKE
    return _may_merge(old) and alike and 0 <= size - needed < WORD and size % align == 0


def _up(nbytes: int, align: int) -> int:
    return -(-nbytes // align) * align


def min_objects(cpus: int) -> int:
    """Objects that a slab should hold at least, so that the list lock is seldom taken: by CPUs present."""
    return 4 * (cpus.bit_length() + 1)


def calculate_order(size: int, cpus: int, *, max_order: int = SLUB_MAX_ORDER, least: int = 0) -> int:
    """Order of the slabs of objects of `size` bytes; `least` objects instead of the rule (slub_min_objects).

    The smallest order from that of the fewest objects on whose tail is at most 1/16 of the slab, else 1/8, 1/4, 1/2.
    Raises ValueError beyond 4 MiB.
    """
    fewest = min(least or min_objects(cpus), max((PAGE << max_order) // size, 1))
    lowest = get_order(fewest * size)
    if (PAGE << lowest) // size > MAX_OBJS_PER_SLAB:
        return get_order(size * MAX_OBJS_PER_SLAB) - 1
    for fraction in (16, 8, 4, 2):
        for order in range(lowest, max_order + 1):
            if (PAGE << order) % size <= (PAGE << order) // fraction:
                return order
    if (order := get_order(size)) > MAX_PAGE_ORDER:
        raise ValueError(f"an object of {size} bytes is larger than the largest block of pages (4 MiB)")
    return order


def cpu_partial_slabs(size: int, objects: int) -> int:
    """Slabs that a CPU's partial list may have: half full, they hold as many objects as the kernel wants there."""
    wanted = 6 if size >= 4096 else 24 if size >= 1024 else 52 if size >= 256 else 120
    return -(-2 * wanted // objects)


def min_partial(size: int) -> int:
    """Slabs that a node's partial list keeps even if they are empty."""
    return min(max((size.bit_length() - 1) // 2, LEAST_PARTIAL), MOST_PARTIAL)


def taken_from_node(cpu_slabs: int) -> int:
    """Slabs that an allocation takes from a node's list at most: its own, and some for the CPU's partial list."""
    return 1 + (cpu_slabs // 2 + 1 if cpu_slabs else 0)


def sheaf_capacity(size: int, requested: int = 0) -> int:
    """Objects in a sheaf of a cache, or `requested` if that is more; rounded up until a kmalloc() bucket is full."""
    capacity = max(4 if size >= 4096 else 12 if size >= 1024 else 26 if size >= 256 else 60, requested)
    return (kmalloc_size(SHEAF_HEADER + 8 * capacity) - SHEAF_HEADER) // 8


def sheaf_bytes(capacity: int) -> int:
    """Bytes of a sheaf."""
    return SHEAF_HEADER + 8 * capacity


def layout(
    size: int, cpus: int, *, max_order: int = SLUB_MAX_ORDER, least: int = 0, cpu_partial: bool = True
) -> Layout:
    """All of a cache's figures. Raises ValueError as `calculate_order` does."""
    order = calculate_order(size, cpus, max_order=max_order, least=least)
    objects = (PAGE << order) // size
    slabs = cpu_partial_slabs(size, objects) if cpu_partial else 0
    return Layout(size, order, objects, get_order(size), slabs, min_partial(size))
