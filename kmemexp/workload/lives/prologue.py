"""Rows of what was there before a recording, and of births that only the counts after it tell of.

Old objects are born at the start, slab by slab as they lay, each slab full at first; then the slots go that were free.
So every design begins with the same objects, grouped as they were, and as full as the evidence says.
"""

from collections.abc import Mapping

import numpy as np

from kmemexp.workload.lives.added import filled
from kmemexp.workload.lives.before import Beginning, Reconciled
from kmemexp.workload.lives.known import Known
from kmemexp.workload.lives.slabs import set_of
from kmemexp.workload.lives.snapshots import Cache
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.track import Rows


def cache_numbers(known: Known) -> np.ndarray:
    """Number, in the recording, of each slab cache's cache (int16): all of kmalloc's are one, new names are added."""
    number = {name: i for i, name in enumerate(known.caches)}
    found = []
    for name in known.slabs.names:
        cache = sc.KMALLOC if set_of(name) >= 0 else name
        if cache not in number:
            number[cache] = len(known.caches)
            known.caches.append(cache)
        found.append(number[cache])
    return np.array(found, np.int16)


def kmalloc_sets(known: Known) -> np.ndarray:
    """Set of kmalloc's that each slab cache is in (int8): schema.KMALLOC_TYPES; -1: in none."""
    return np.array([set_of(name) for name in known.slabs.names], np.int8)


def sizes(known: Known, caches: Mapping[str, Cache]) -> np.ndarray:
    """Bytes requested and granted by slab cache (int32[caches, 2]): as its first birth shows, else an object's."""
    found = np.array([[caches[n].size if n in caches else 0] * 2 for n in known.slabs.names], np.int32).reshape(-1, 2)
    born = known.lives.born[known.slab[known.lives.born] >= 0]
    slab, first = np.unique(known.slab[born], return_index=True)
    found[slab, 0] = known.events.requested[born[first]]
    found[slab, 1] = known.events.allocated[born[first]]
    return found


def unseen_births(
    known: Known, start: Beginning, said: Reconciled, first_id: int, number: np.ndarray, bytes_of: np.ndarray
) -> Rows:
    """Rows of births that the counts after tell of: evenly over the window, CPUs that events show in turn."""
    count = np.array([said.births.get(i, 0) for i in range(len(known.slabs.names))])
    slab = np.repeat(np.arange(len(count)), count)
    n = np.concatenate([np.arange(c) for c in count]) if len(count) else np.zeros(0, np.int64)
    window = start.window
    at = window.first + ((n + 0.5) * (window.end - window.first) / np.maximum(count[slab], 1)).astype(np.int64)
    cpus = np.unique(known.events.cpu)
    return filled(
        time_ns=start.lived.clock[np.minimum(at, window.end - 1)],
        cpu=cpus[n % len(cpus)],
        op=np.full(len(slab), sc.ADDED_ALLOC),
        object_id=first_id + np.arange(len(slab)),
        requested=bytes_of[slab, 0],
        allocated=bytes_of[slab, 1],
        cache=number[slab],
        kmalloc=kmalloc_sets(known)[slab],
        streams=np.full(len(slab), sc.STREAM_RECONCILED),
        chance=np.zeros(len(slab)),
    )


def old_rows(
    known: Known, start: Beginning, caches: Mapping[str, Cache], first_id: int, number: np.ndarray, bytes_of: np.ndarray
) -> Rows:
    """Rows of old objects and of their frees."""
    cpus = np.unique(known.events.cpu)
    which = np.array([cache for cache in start.starts if bytes_of[cache, 0] > 0], np.int64)
    counts = np.array([len(start.starts[c].free) for c in which.tolist()], np.int64)
    per_slab = np.array([caches[known.slabs.names[c]].per_slab for c in which.tolist()], np.int64)
    cache = np.repeat(which, counts)
    ops = np.repeat(per_slab, counts)
    free = np.concatenate([start.starts[c].free for c in which.tolist()]).astype(np.int64)
    own = np.concatenate([start.starts[c].cpu for c in which.tolist()])
    cpu = np.where(own >= 0, own, cpus[np.arange(len(cache)) % len(cpus)])
    base = first_id + np.cumsum(ops) - ops
    slabs = np.repeat(np.arange(len(cache)), ops)
    holes = np.repeat(np.arange(len(cache)), free)
    hole = base[holes] + np.arange(len(holes)) - np.repeat(np.cumsum(free) - free, free)
    first_slab = np.full(len(known.slabs.names), -1, np.int64)
    first_slab[which] = np.cumsum(counts) - counts
    lived = start.lived
    mine = first_slab[lived.old_cache] >= 0
    freed_slab = (first_slab[lived.old_cache] + lived.old_slab)[mine]
    event, turn = lived.old_free[mine], _turns(freed_slab)
    fits = turn < (ops - free)[freed_slab]
    event, freed_slab, turn = event[fits], freed_slab[fits], turn[fits]
    begin = int(lived.clock[start.window.first]) - 1
    slab = np.concatenate([slabs, holes, freed_slab])
    return filled(
        time_ns=np.concatenate([np.full(len(slabs) + len(holes), begin), known.events.time_ns[event]]),
        cpu=np.concatenate([cpu[slabs], cpu[holes], known.events.cpu[event]]),
        op=np.repeat([sc.OLD_ALLOC, sc.OLD_FREE], [len(slabs), len(holes) + len(event)]),
        object_id=np.concatenate(
            [first_id + np.arange(len(slabs)), hole, (base + free)[freed_slab] + turn]
        ),
        requested=bytes_of[cache[slab], 0],
        allocated=bytes_of[cache[slab], 1],
        cache=number[cache[slab]],
        kmalloc=kmalloc_sets(known)[cache[slab]],
        streams=np.full(len(slab), sc.STREAM_START),
        chance=np.ones(len(slab)),
    )  # fmt: skip


def _turns(groups: np.ndarray) -> np.ndarray:
    """How many equal values stand before each."""
    order = np.argsort(groups, kind="stable")
    ranked = groups[order]
    first = np.searchsorted(ranked, ranked, side="left")
    turns = np.empty(len(groups), np.int64)
    turns[order] = np.arange(len(groups)) - first
    return turns
