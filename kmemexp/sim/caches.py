"""What an allocator says of its caches: a census as slabtop(1) shows it, whatever a design calls them."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Array, Table, Words
from kmemexp.sim.slots import PAGE, PAGE_SHIFT
from kmemexp.sim.tables import obj


class Cache(NamedTuple):
    """What an allocator holds for objects of one sort. It serves zones by their number, other requests by size."""

    name: str  # "": that of the zone
    items: tuple[int, ...] = ()  # regs.ITEM of its requests; (): whatever has its size
    object_bytes: int = 0  # granted; 0: any size that no other cache has
    slabs: int = 0  # 0 where there are none: pages are handed out by themselves
    pages: int = 0


KIND_SHIFT = 40  # of a group's key: kind << KIND_SHIFT | bytes granted
NO_GROUP = -1
SCATTER = 5  # by which key's bits are folded into a place
MOST_SLABS = 1 << 22  # in a range of addresses that is looked at slab by slab
Live = Callable[[], Table]
"""Gives an allocator's live objects, int64[objects, obj.COLUMNS]: few need them."""
LARGE = "large"
"""Name of the cache that stands for blocks of whole pages."""


def large(pages: int, items: tuple[int, ...] = ()) -> Cache:
    """Make the row of what no cache serves, `pages` in all."""
    return Cache(LARGE, items, pages=int(pages))


def rows(
    names: Sequence[str], items: Iterable[tuple[int, ...]], sizes: Iterable[int], slabs: Iterable[int],
    pages: Iterable[int],
) -> list[Cache]:  # fmt: skip
    """Make rows of columns, without those that hold nothing."""
    found = map(Cache, names, items, map(int, sizes), map(int, slabs), map(int, pages))
    return [row for row in found if row.pages]


def by_zone(sizes: Iterable[int], slabs: Iterable[int], pages: Iterable[int]) -> list[Cache]:
    """Make rows of zones, in the order of their numbers."""
    known = list(sizes)
    return rows([""] * len(known), ((z,) for z in range(len(known))), known, slabs, pages)


def by_slab(live: Live, shift: int, is_slab: Array, name: str) -> list[Cache]:
    """Make rows of live objects that lie in aligned slabs of 1 << `shift` bytes, by size.

    `is_slab` (bool[n]) says of each such place whether a slab is there, which holds objects of one size; others hold
    blocks of pages. A slab without a live object is not among the rows.
    """
    rows_of = live()
    granted, slab = rows_of[:, obj.GRANTED], rows_of[:, obj.ADDR] >> shift
    small = is_slab[slab]
    first, last = int(slab.min(initial=0)), int(slab.max(initial=0))
    if last - first < MOST_SLABS:
        held = np.zeros(last - first + 1, np.int64)
        held[slab[small] - first] = granted[small]
        held = held[held > 0]
    else:
        held = granted[small][np.unique(slab[small], return_index=True)[1]]
    sizes, count = np.unique(held, return_counts=True)
    pages = count << shift - PAGE_SHIFT
    found = rows([f"{name}-{size}" for size in sizes.tolist()], [()] * len(sizes), sizes, count, pages)
    return [*found, large(int((granted[~small] + PAGE - 1 >> PAGE_SHIFT).sum()))]


@kernel
def group_live(objects: Table, key: Words, sums: Table) -> bool:
    """Sum up the live objects by kind and bytes granted: objects, bytes asked for, bytes granted (int64[n, 3]).

    `key` (int64[n], n a power of two) begins as NO_GROUP. Returns False where there are more groups than fit well.
    """
    mask = len(key) - 1
    groups = 0
    for row in range(len(objects)):
        if objects[row, obj.ADDR] < 0:
            continue
        wanted = objects[row, obj.KIND] << KIND_SHIFT | objects[row, obj.GRANTED]
        place = (wanted ^ wanted >> KIND_SHIFT << SCATTER ^ wanted >> SCATTER) & mask
        while key[place] != wanted and key[place] != NO_GROUP:
            place = (place + 1) & mask
        if key[place] == NO_GROUP:
            groups += 1
            if 2 * groups > len(key):
                return False
            key[place] = wanted
        sums[place, 0] += 1
        sums[place, 1] += objects[row, obj.SIZE]
        sums[place, 2] += objects[row, obj.GRANTED]
    return True
