"""What the object counts after a recording say: how many more births and deaths there were than can be seen.

Each cache is replayed on SLUB's counts from its start. Where the snapshot after counts more active objects than the
replay, that many births left no event; where it counts fewer, that many open lives are over: first those that the law
of their site says, then the oldest. Slab counts of the snapshot after are not used.
"""

import itertools
from typing import NamedTuple

import numpy as np

from kmemexp.workload.lives import counting
from kmemexp.workload.lives.hindsight import Start
from kmemexp.workload.lives.history import Window
from kmemexp.workload.lives.snapshots import MOST_PARTIAL, Cache, Count

ROUNDS = 4


class Lived(NamedTuple):
    """What is known of objects when the counts are looked at; event numbers are of history.Events."""

    clock: np.ndarray  # int64 by event, ns, not decreasing
    cpu: np.ndarray  # int16 by event
    slab: np.ndarray  # int32 by life, its cache
    born: np.ndarray  # int64 by life, event
    died: np.ndarray  # int64 by life, event of a death that was seen; -1: none was
    old_free: np.ndarray  # int64, events that free an object from before
    old_cache: np.ndarray  # int32 by these, its cache
    old_slab: np.ndarray  # int32 by these, its slab in the cache's Start


class Ended(NamedTuple):
    """Deaths that left no event."""

    life: np.ndarray  # int64
    time_ns: np.ndarray  # int64
    cpu: np.ndarray  # int16

    def of(self, which: np.ndarray) -> "Ended":
        """Select some."""
        return Ended(*(column[which] for column in self))


class Operations(NamedTuple):
    """Operations, in the order of their keys."""

    key: np.ndarray  # int64: 2 * event + 1; what is inferred stands between two events
    op: np.ndarray  # int8, counting.ALLOC …
    item: np.ndarray  # int64
    cpu: np.ndarray  # int16

    def of(self, which: "np.ndarray | slice") -> "Operations":
        """Select some."""
        return Operations(*(column[which] for column in self))


def _joined(parts: "list[Operations]") -> Operations:
    return Operations(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def in_order(parts: "list[Operations]") -> Operations:
    """Put operations of one cache together in the order of their keys; what comes first is first among equals."""
    whole = _joined(parts)
    return whole.of(np.argsort(whole.key, kind="stable"))


def _some(op: int, key: np.ndarray, item: np.ndarray, cpu: np.ndarray) -> Operations:
    return Operations(key, np.full(len(key), op, np.int8), item.astype(np.int64), cpu.astype(np.int16))


def deaths(lived: Lived, ended: Ended) -> Operations:
    """Put deaths between the events, never before the birth."""
    key = 2 * np.searchsorted(lived.clock, ended.time_ns, side="right").astype(np.int64)
    return _some(counting.FREE, np.maximum(key, 2 * lived.born[ended.life] + 2), ended.life, ended.cpu)


def operations(lived: Lived, window: Window, ended: Ended, caches: int) -> list[Operations]:
    """Put births, deaths and frees of older objects of each cache in the order of time."""
    inside = (lived.born >= window.first) & (lived.born < window.end) & (lived.slab >= 0)
    births = np.flatnonzero(inside)
    frees = np.flatnonzero(inside & (lived.died >= 0) & (lived.died < window.end))
    gone = ended.of(inside[ended.life])
    parts = [
        _some(counting.ALLOC, 2 * lived.born[births] + 1, births, lived.cpu[lived.born[births]]),
        _some(counting.FREE, 2 * lived.died[frees] + 1, frees, lived.cpu[lived.died[frees]]),
        deaths(lived, gone),
        _some(counting.FREE_OLD, 2 * lived.old_free + 1, lived.old_slab, lived.cpu[lived.old_free]),
    ]
    whole = _joined(parts)
    cache = np.concatenate([lived.slab[births], lived.slab[frees], lived.slab[gone.life], lived.old_cache])
    order = np.lexsort((whole.key, cache))
    ends = np.searchsorted(cache[order], np.arange(caches + 1))
    return [whole.of(order[a:b]) for a, b in itertools.pairwise(ends)]


class Counted(NamedTuple):
    """What SLUB's counts say of a cache at the end."""

    slabs: int
    active: int
    partial: int


def count(done: Operations, start: Start, cache: Cache, cpus: int, items: int) -> Counted:
    """Replay one cache from its start."""
    rules = (cache.per_slab, max(cache.cpu_slabs, 1), cache.min_partial, cache.sheaf)
    room = int(np.count_nonzero(done.op == counting.ALLOC)) + 2 * cpus * max(cache.sheaf, 1) + 16
    st = counting.slubs(counting.Old(start.free, start.cpu), room, cpus, rules)
    counting.replay(st, done.op, done.item, done.cpu, np.zeros(items, np.int32))
    slabs, partial = (int(st.counts[i]) for i in (counting.SLABS, counting.ON_LIST))
    return Counted(slabs, counting.active(st), partial)


class Said(NamedTuple):
    """What the counts after say of a cache."""

    births: int  # that left no event
    ended: np.ndarray  # int64, places in the candidates of open lives that are over
    result: Counted


def reconcile(
    done: Operations,
    start: Start,
    cache: Cache,
    after: Count,
    open_lives: Ended,
    lived: Lived,
    window: Window,
    cpus: np.ndarray,
) -> Said:
    """Find how many births and deaths a cache lacks. `open_lives`: with the time of their end, should they be over.

    `cpus`: those that events show, in order.
    """
    items, room = len(lived.born), int(cpus[-1]) + 1
    births, over = 0, 0
    found = count(done, start, cache, room, items)
    for _ in range(ROUNDS):
        if found.partial > MOST_PARTIAL and not after.exact:
            break
        lacking = after.active - found.active
        if abs(lacking) <= cache.per_slab:
            break
        if lacking > 0:
            births += lacking
        elif over == len(open_lives.life):
            break
        else:
            over = min(over - lacking, len(open_lives.life))
        more = [done, deaths(lived, open_lives.of(np.arange(over))), unseen_births(births, window, cpus, items)]
        found = count(in_order(more), start, cache, room, items + births)
    return Said(births, np.arange(over), found)


def unseen_births(births: int, window: Window, cpus: np.ndarray, first: int) -> Operations:
    """Spread births evenly over the window, CPUs that events show (`cpus`) in turn; they are alive at the end."""
    n = np.arange(births)
    key = 2 * (window.first + ((n + 0.5) * (window.end - window.first) / max(births, 1)).astype(np.int64))
    return _some(counting.ALLOC, key, first + n, cpus[n % len(cpus)])
