"""What every cache of a design holds at an instant: slabs and pages as its allocator counts them, and its live objects.

Rows are those of the table of caches (`store.schema`) without the columns of their cell. All pages that the allocators
hold are in some row: what is no cache's (free slabs, magazines, headers, buckets of pages) has one of its own, REST.
With a clock, that row also has what operations in progress have taken or given back.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kmemexp.boot.machine import Machine
from kmemexp.jit import entry
from kmemexp.sim.caches import KIND_SHIFT, NO_GROUP, Cache, group_live
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.sim.tables import obj, tally
from kmemexp.workload.stream import ZONE

SNAPSHOT, PEAK = "snapshot", "peak"
REST = "(in no cache)"
NOTICED = 1.05
"""A sample is taken for the peak if this factor more is held than at the one before that was."""

GROUPS = 1 << 12  # of live objects by kind and size, at first
Row = tuple[Any, ...]


class Seen(NamedTuple):
    """Live objects of the allocators, and their caches, at an instant: what rows are made of, perhaps later."""

    time_ns: int
    held_bytes: int
    kind: NDArray[np.int64]  # of each group of live objects
    granted: NDArray[np.int64]  # bytes granted for each object of the group
    sums: NDArray[np.int64]  # int64[groups, 3], its objects, bytes asked for, bytes granted
    caches: list[list[Cache] | None]  # by place; None: the allocator does not say


class Census:
    """Takes the caches of a lane at its samples."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._peak: tuple[Machine, Seen] | None = None

    def take(self, machine: Machine, time_ns: int, *, snapshot: bool) -> None:
        """Look at a sample: always for the peak, and for a row of each cache where it is a snapshot."""
        held = int(machine.world.counters[tally.HELD])
        higher = held > NOTICED * self._peak[1].held_bytes if self._peak else held > 0
        if snapshot or higher:
            now = seen(machine, time_ns)
            if snapshot:
                self._rows += rows(machine, now, SNAPSHOT)
            if higher:
                self._peak = machine, now

    def rows(self) -> tuple[Row, ...]:
        """All rows: those of snapshots, then those of the peak."""
        return (*self._rows, *(rows(*self._peak, PEAK) if self._peak else ()))


def seen(machine: Machine, time_ns: int) -> Seen:
    """Look at the allocators; the table of objects must know the kinds of live ones (`users.enter_kinds`)."""
    world = machine.world
    key, sums = _groups(world.objects)
    states = (world.state_a, world.state_b, world.state_c)
    caches: list[list[Cache] | None] = []
    for place, module in enumerate(machine.allocators.values()):
        say = getattr(module, "caches", None)
        caches.append(say(states[place], functools.partial(_live, machine, place)) if say else None)
    granted = key & (1 << KIND_SHIFT) - 1
    return Seen(time_ns, int(world.counters[tally.HELD]), key >> KIND_SHIFT, granted, sums, caches)


def _live(machine: Machine, place: int) -> NDArray[np.int64]:
    """Rows of the live objects of one allocator."""
    objects = machine.world.objects
    mine = (objects[:, obj.ADDR] >= 0) & (machine.world.server[objects[:, obj.KIND]] == place)
    live: NDArray[np.int64] = objects[mine]
    return live


def _groups(objects: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys and sums of the live objects, grouped, in the order of the keys."""
    room = GROUPS
    while True:
        key, sums = np.full(room, NO_GROUP, np.int64), np.zeros((room, 3), np.int64)
        if entry(group_live)(objects, key, sums):
            there = np.flatnonzero(key != NO_GROUP)
            order = there[np.argsort(key[there])]
            return key[order], sums[order]
        room *= 4


def rows(machine: Machine, now: Seen, moment: str) -> Iterator[Row]:
    """Give a row for each cache that holds something, and one for the rest."""
    pages = 0
    for place, name in enumerate(machine.allocators):
        mine = machine.world.server[now.kind] == place
        item, granted = machine.world.item[now.kind[mine]], now.granted[mine]
        caches = now.caches[place]
        known = _of_objects(item, granted) if caches is None else caches
        for cache, sums in zip(known, _sums(item, granted, now.sums[mine], known), strict=True):
            if not (sums[0] or cache.pages):
                continue
            pages += cache.pages
            said = (None, None) if caches is None else (cache.slabs, cache.pages)
            told = cache.name or _zone(machine, place, cache.items)
            yield (now.time_ns, moment, name, told, cache.object_bytes, sums[0], *said, *sums[1:])
    yield (now.time_ns, moment, "", REST, 0, 0, 0, (now.held_bytes >> PAGE_SHIFT) - pages, 0, 0)


def _zone(machine: Machine, place: int, items: Sequence[int]) -> str:
    """Name the zone that the first of some items is."""
    zones = np.flatnonzero((machine.world.server == place) & (machine.klass == ZONE))
    return machine.kinds[int(zones[machine.world.item[zones] == items[0]][0])] if items else ""


def _of_objects(item: NDArray[np.int64], granted: NDArray[np.int64]) -> list[Cache]:
    """Make caches for an allocator that does not say which it has: one for each zone, and one for each other size."""
    found = [Cache("", (z,)) for z in np.unique(item[item >= 0]).tolist()]
    return found + [Cache(f"{size} bytes", (), size) for size in np.unique(granted[item < 0]).tolist()]


def _sums(
    item: NDArray[np.int64], granted: NDArray[np.int64], sums: NDArray[np.int64], caches: Sequence[Cache]
) -> list[list[int]]:
    """Sum up the groups of live objects of each cache: objects, bytes asked for, bytes granted."""
    found = np.zeros((len(caches), 3), np.int64)
    for number in np.unique(item).tolist():
        mine = item == number
        np.add.at(found, _choose(caches, number, granted[mine]), sums[mine])
    rows: list[list[int]] = found.tolist()
    return rows


def _choose(caches: Sequence[Cache], item: int, granted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the cache of objects of one regs.ITEM by what was granted for each.

    A zone has one cache; others go by size. What has no cache's size is a large block, or a chain of the largest there.
    """
    own = [i for i, cache in enumerate(caches) if item in cache.items]
    if item >= 0 and own:
        return np.full(len(granted), own[0], np.int64)
    able = sorted((caches[i].object_bytes, i) for i in own or _any(caches))
    able = able or sorted((cache.object_bytes, i) for i, cache in enumerate(caches))
    sizes, numbers = (np.array(column, np.int64) for column in zip(*able, strict=True))
    at = np.searchsorted(sizes, granted)
    fits = sizes[np.minimum(at, len(sizes) - 1)] == granted
    other = numbers[0] if sizes[0] == 0 else numbers[-1]
    chosen: NDArray[np.int64] = np.where(fits, numbers[np.minimum(at, len(sizes) - 1)], other)
    return chosen


def _any(caches: Sequence[Cache]) -> list[int]:
    return [i for i, cache in enumerate(caches) if not cache.items]
