"""Frees that wait for a grace period in Linux: each by itself (call_rcu), or in batches of a CPU (kfree_rcu).

kfree_rcu(): mm/slab_common.c of Linux 6.18, kernel/rcu/tree.c of 6.12. A CPU collects pointers of all kinds; they go
5 s after the first, or a tick after there are as many as a page holds, then wait for a grace period. A cache that asks
for sheaves collects in one of these instead, which goes when it is full. Left out: linked lists where there is no page,
the two batches under way at most, shrinkers, barriers. A recording shows such frees at their own times, so these stay.

ASSUMPTION: grace periods of a busy machine are 20 ms long, one after the other, and a tick is 4 ms (HZ=250).
"""

import functools
from collections.abc import Callable

import numpy as np

from kmemexp.sim.items import CALL_RCU, KFREE_RCU, Traits
from kmemexp.workload.stream import OP_FREE, Kinds, Load, Stream, stream_of

NS = 1_000_000_000
GRACE_NS = 20_000_000
TICK_NS = 4_000_000
DRAIN_NS = 5 * NS  # KFREE_DRAIN_JIFFIES
BLOCK = 507  # pointers in a page: KVFREE_BULK_MAX_ENTR


def delayed(load: Load) -> Load:
    """Let the frees of kinds that wait for a grace period come later, in all streams of a load."""
    kinds = load.kinds
    if kinds.recorded or not any(traits.free for traits in kinds.traits):
        return load
    return load._replace(streams=tuple(_delayed(stream, kinds) for stream in load.streams))


def _delayed(stream: Stream, kinds: Kinds) -> Stream:
    """Frees after the end of the stream are left out; an object that is freed later has a slot of its own."""
    traits = [kinds.traits_of(k) for k in range(len(kinds.names))]
    frees = np.flatnonzero((stream.op == OP_FREE) & np.array([t.free != 0 for t in traits])[stream.kind])
    if not len(frees):
        return stream
    at = stream.time_ns.copy()
    for select, batches in _ways(traits):
        chosen = frees[select[stream.kind[frees]]]
        for cpu in np.unique(stream.cpu[chosen]).tolist():
            mine = chosen[stream.cpu[chosen] == cpu]
            at[mine] = batches(stream.time_ns[mine])
    slot = stream.slot.copy()
    slot[frees] = slot[_births(stream, frees)] = stream.slots + np.arange(len(frees))
    moved = stream._replace(time_ns=at, slot=slot)
    order = np.argsort(at, kind="stable")
    order = order[: np.searchsorted(at[order], stream.time_ns[-1], side="right")]
    return stream_of((column[order] for column in moved.arrays), stream.slots + len(frees))


Batches = Callable[[np.ndarray], np.ndarray]


def _ways(traits: list[Traits]) -> list[tuple[np.ndarray, Batches]]:
    """Which kinds (bool by kind) are freed how: times of frees on one CPU, in order, to times when they happen."""
    free = np.array([t.free for t in traits])
    sheaf = np.array([t.sheaf for t in traits])
    sheaves = np.flatnonzero((free == KFREE_RCU) & (sheaf > 0)).tolist()
    return [
        (free == CALL_RCU, after_grace),
        ((free == KFREE_RCU) & (sheaf == 0), drained),
        *((np.arange(len(traits)) == k, functools.partial(filled, capacity=int(sheaf[k]))) for k in sheaves),
    ]


def after_grace(times_ns: np.ndarray) -> np.ndarray:
    """When a grace period that begins after these times has ended."""
    ends: np.ndarray = (times_ns // GRACE_NS + 2) * GRACE_NS
    return ends


def drained(times_ns: np.ndarray) -> np.ndarray:
    """When objects are freed that one CPU passes to kfree_rcu() at these times, in order."""
    done = np.empty(len(times_ns), np.int64)
    first = 0
    while first < len(times_ns):
        drain = int(times_ns[first]) + DRAIN_NS
        if first + BLOCK <= len(times_ns):
            drain = min(drain, int(times_ns[first + BLOCK - 1]) + TICK_NS)
        end = int(np.searchsorted(times_ns, drain, side="right"))
        done[first:end] = drain
        first = end
    return after_grace(done)


def filled(times_ns: np.ndarray, capacity: int) -> np.ndarray:
    """When objects are freed that one CPU collects in sheaves of `capacity`; what fills none is not freed."""
    last = np.arange(len(times_ns)) // capacity * capacity + capacity - 1
    never = np.iinfo(np.int64).max // 2
    return np.where(last < len(times_ns), after_grace(times_ns[np.minimum(last, len(times_ns) - 1)]), never)


def _births(stream: Stream, frees: np.ndarray) -> np.ndarray:
    """Row of the allocation that each of these frees ends."""
    rows = np.flatnonzero(stream.op <= OP_FREE)
    order = rows[np.argsort(stream.slot[rows], kind="stable")]
    place = np.empty(stream.length, np.int64)
    place[order] = np.arange(len(order))
    births: np.ndarray = order[place[frees] - 1]
    return births
