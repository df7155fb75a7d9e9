"""What was there before a recording: which slabs are old, and which of their slots were free.

From a bitmap of slab pages before, else from page events, else from the counts before and the order in which slabs are
first used. A slab whose pages no event showed to be taken was there. SLUB takes a new slab only when its lists are
empty, so a slab that is used before one that is certainly old is old too. A free of an address that had no event shows
an old object, a birth at one a free slot.
"""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import entry, ref
from kmemexp.workload.lives.snapshots import Cache, Count
from kmemexp.workload.traces import live
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.live import Table

# Columns of the slabs that events touch.
_CACHE, _FIRST, _OLD, _FREE, _CLOSED, _CPU, _NEW = range(7)
COLUMNS = 7
NEVER = np.iinfo(np.int64).max


class Touched(NamedTuple):
    """Slabs that events touch, in the order of first use."""

    base: np.ndarray  # int64, page frame
    rows: np.ndarray  # int64[n, COLUMNS]
    slab_of: np.ndarray  # int32 by event: row of the slab of a free that is the first event of its address; -1: not so
    paged: bool  # there are page events, and _NEW says which slabs they show to be taken


class Start(NamedTuple):
    """Slabs of one cache at the start: those that events touch, then the others."""

    touched: np.ndarray  # int64, rows of Touched; the slabs after these are not touched
    free: np.ndarray  # int32 by slab
    cpu: np.ndarray  # int16 by slab, CPU whose slab it is; -1: none's


def touched(
    op: np.ndarray, cpu: np.ndarray, slab: np.ndarray, address: np.ndarray, frame: np.ndarray, order: np.ndarray
) -> Touched:
    """Find the slabs that events touch, by event and (order) by cache; only events of slab caches count."""
    events = np.isin(op, (sc.ALLOC, sc.FREE, sc.UNMATCHED_FREE)) & (slab >= 0)
    base = np.where(events, base_of(frame, order[np.maximum(slab, 0)]), 0)
    slabs = live.with_room(live.table(1), len(np.unique(base)) + 1)
    seen = live.with_room(live.table(1), len(np.unique(address)) + 1)
    rows = np.zeros((int(slabs.key.size // 2) + 1, COLUMNS), np.int64)
    bases = np.zeros(len(rows), np.int64)
    of = np.full(len(op), -1, np.int32)
    cpus = int(cpu.max(initial=0)) + 1
    current = np.full((cpus, len(order)), -1, np.int64)
    n = _touched(op, cpu, slab, address, base, events, slabs, seen, current, rows, bases, of)
    bases, rows, taken = bases[:n], rows[:n], np.flatnonzero(op == sc.PAGE_ALLOC)
    rows[:, _NEW] = _first_seen(frame[taken], taken, bases) < rows[:, _FIRST]
    return Touched(bases, rows, of, len(taken) > 0)


def _first_seen(frames: np.ndarray, event: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """First event (they are in order) of each wanted frame; for one that has none a number above all."""
    frames, first = np.unique(np.append(frames, -1), return_index=True)
    at = np.minimum(np.searchsorted(frames, wanted), len(frames) - 1)
    return np.where(frames[at] == wanted, np.append(event, NEVER)[first[at]], NEVER)


@entry
def _touched(
    op: np.ndarray, cpu: np.ndarray, slab: np.ndarray, address: np.ndarray, base: np.ndarray, events: np.ndarray,
    slabs: Table, seen: Table, current: np.ndarray, rows: np.ndarray, bases: np.ndarray, of: np.ndarray,
) -> int:  # fmt: skip
    """Go forwards through the events. Returns the number of slabs."""
    slabs, seen = ref(slabs), ref(seen)
    n = 0
    for i in range(len(op)):
        if not events[i]:
            continue
        at = live.place(slabs, base[i] + 1)
        if slabs.key[at] == 0:
            live.put(slabs, at, base[i] + 1)
            slabs.item[at, 0] = n
            rows[n, _CACHE] = slab[i]
            rows[n, _FIRST] = i
            rows[n, _CPU] = -1
            bases[n] = base[i]
            n += 1
        r = slabs.item[at, 0]
        mine = rows[r, _CACHE] == slab[i]
        place = live.place(seen, address[i])
        if seen.key[place] == 0:
            live.put(seen, place, address[i])
            if mine and op[i] == sc.ALLOC:
                rows[r, _FREE] += 1
            elif mine:
                rows[r, _OLD] += 1
                of[i] = r
        if op[i] == sc.ALLOC:
            before = current[cpu[i], slab[i]]
            if before < 0 and mine:
                rows[r, _CPU] = cpu[i]  # the first slab that this CPU uses
            elif before >= 0 and before != r:
                rows[before, _CLOSED] = 1
            current[cpu[i], slab[i]] = r
    return n


def start(found: Touched, which: int, cache: Cache, count: Count, bitmaps: tuple[np.ndarray | None, ...]) -> Start:
    """Find the slabs of a cache (its number is `which`) at the start. `bitmaps`: of slab pages before and after."""
    mine = np.flatnonzero(found.rows[:, _CACHE] == which)
    rows = found.rows[mine]
    before, after = bitmaps
    free = np.minimum(rows[:, _FREE], cache.per_slab)
    if before is not None:
        order = np.int8(cache.order)
        old = is_slab(before, found.base[mine], order) & (rows[:, _NEW] == 0)
        if after is not None:
            gone = ~is_slab(after, found.base[mine], order)
            free = np.where(gone, np.maximum(cache.per_slab - rows[:, _OLD], 0), free)
    elif found.paged:
        old = rows[:, _NEW] == 0
        old &= np.cumsum(old) <= count.slabs
    else:
        old, free = _guessed(rows, free, cache, count)
    mine, free, cpu = mine[old], free[old], rows[old, _CPU]
    untouched = max(count.slabs - len(mine), 0)
    left = max(count.slots - count.active - int(free.sum()), 0)
    others = _spread(min(left, untouched * max(cache.per_slab - 1, 0)), untouched)
    return Start(
        mine,
        np.concatenate([free, others]).astype(np.int32),
        np.concatenate([np.where(free > 0, cpu, -1), np.full(untouched, -1)]).astype(np.int16),
    )


def is_slab(bitmap: np.ndarray, base: np.ndarray, order: "np.ndarray | np.int8") -> np.ndarray:
    """Whether slabs of these orders lie at these frames: 1 for a single page, 2 for the head of a larger one."""
    inside = (base >= 0) & (base < len(bitmap))
    wanted: np.ndarray = inside & (bitmap[np.where(inside, base, 0)] == np.where(order, 2, 1))
    return wanted


def base_of(frame: np.ndarray, order: np.ndarray) -> np.ndarray:
    """First frame of the slab of this order that a frame is in."""
    base: np.ndarray = frame & -(1 << order.astype(np.int64))
    return base


def _guessed(rows: np.ndarray, free: np.ndarray, cache: Cache, count: Count) -> tuple[np.ndarray, np.ndarray]:
    """Tell old slabs from new ones without a bitmap. Returns which are old, and their free slots."""
    used, old_objects = rows[:, _FREE], rows[:, _OLD]
    closed = (rows[:, _CLOSED] > 0) & (cache.sheaf == 0)
    old = (old_objects > 0) | ((used > 0) & (used < cache.per_slab) & closed)
    lasting = np.flatnonzero(old & (used > 0))
    if len(lasting) and cache.sheaf == 0:
        old[: lasting[-1]] = True
    slabs_left = count.slabs - int(old.sum())
    slots_left = count.slots - count.active - int(free[old].sum())
    for row in np.flatnonzero(~old):
        own = rows[row, _CPU] >= 0  # free slots of CPU slabs count as active, so the snapshot does not tell them
        if slabs_left <= 0 or (slots_left <= 0 and not own):
            continue
        old[row] = True
        if not own:
            free[row] = min(free[row], slots_left)
        slabs_left, slots_left = slabs_left - 1, slots_left - free[row]
    old &= np.cumsum(old) <= count.slabs
    most = count.slots - count.active + int(2 * cache.per_slab * (1 + cache.cpu_slabs / 2))
    room = np.maximum(most - (np.cumsum(np.where(old, free, 0)) - free), 0)
    return old, np.where(old, np.minimum(free, room), free)


def _spread(slots: int, slabs: int) -> np.ndarray:
    """Spread free slots evenly over slabs."""
    if slabs == 0:
        return np.zeros(0, np.int64)
    return slots // slabs + (np.arange(slabs) < slots % slabs)
