"""Counting a trace: one compiled pass over its rows."""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import entry, kernel
from kmemexp.workload.traces import live, rounding
from kmemexp.workload.traces import schema as sc

# Live and peak are kept of these five: objects, and bytes requested and as each allocator would round them.
MEASURES = ("n", "req", "alloc", "pow2", "uma", "dfly")
M_COUNT, M_REQ, M_ALLOC, M_POW2, M_UMA, M_DFLY = range(6)

# Columns of Tally.caches.
CACHE_FIELDS = (
    "allocs", "frees", "lost_frees", "bytes_req", "bytes_alloc", "live", "live_bytes", "peak_live", "ping_pong",
    "nowait", "lifetime_ns", "largest_req",
)  # fmt: skip
(K_ALLOCS, K_FREES, K_LOST, K_REQ, K_ALLOC, K_LIVE, K_LIVE_BYTES, K_PEAK, K_PINGPONG, K_NOWAIT, K_LIFETIME,
 K_LARGEST) = range(len(CACHE_FIELDS))  # fmt: skip

# Scalars in Tally.sums.
S_FIRST, S_LAST, S_NOWAIT, S_PINGPONG, S_PAGES, S_PAGES_PEAK, S_FAILED_BYTES = range(7)
S_KVA_BYTES, S_KVA_LIVE, S_KVA_PEAK, S_KVA_LIFETIME = range(7, 11)
SUMS = 11

# Fields of a live object in Tally.objects.
O_REQ, O_ALLOC, O_CACHE, O_TIME, O_CPU = range(5)
O_FIELDS = 5

BUCKETS = 20
VECTORS = 1024  # interrupts are counted by number; higher ones count as the last
LOGS = 64  # log2 classes of lifetimes in ns
MAX_CPUS = 4096


class Tally(NamedTuple):
    """What is counted, and what of the past the counting needs."""

    sums: np.ndarray  # int64[SUMS]
    ops: np.ndarray  # int64[ops, contexts]
    events: np.ndarray  # int64[events]
    total: np.ndarray  # int64[6], bytes of all allocations by MEASURES
    live: np.ndarray  # int64[6]
    peak: np.ndarray  # int64[6]
    caches: np.ndarray  # int64[caches, len(CACHE_FIELDS)]
    lifetimes: np.ndarray  # int64[LOGS], freed objects by log2 of their lifetime in ns
    sizes: np.ndarray  # int64[BUCKETS], allocations by 4.4BSD bucket index
    bucket_free: np.ndarray  # int64[BUCKETS], free chunks of each bucket
    vectors: np.ndarray  # int64[events, VECTORS], interrupts entered
    handler_ns: np.ndarray  # int64[events], time between entry and exit
    entered: np.ndarray  # int64[MAX_CPUS, events], time of the last entry; -1: none
    cpus: np.ndarray  # bool[MAX_CPUS], CPUs seen


def tally() -> Tally:
    """Return a tally of nothing."""
    events = len(sc.EVENTS)
    shapes = (
        SUMS, (len(sc.OPS), len(sc.CONTEXTS)), events, len(MEASURES), len(MEASURES), len(MEASURES),
        (0, len(CACHE_FIELDS)), LOGS, BUCKETS, BUCKETS, (events, VECTORS), events, (MAX_CPUS, events),
    )  # fmt: skip
    t = Tally(*(np.zeros(shape, np.int64) for shape in shapes), np.zeros(MAX_CPUS, np.bool_))
    t.sums[S_FIRST] = t.sums[S_LAST] = -1
    t.entered[:] = -1
    return t


def with_caches(t: Tally, count: int) -> Tally:
    """Return the tally with room for so many caches."""
    more = np.zeros((count - len(t.caches), len(CACHE_FIELDS)), np.int64)
    return t._replace(caches=np.concatenate([t.caches, more])) if len(more) else t


@entry
def count(rows, t, objects, areas):
    """Add rows (track.Rows) to a tally; `objects` and `areas` (live.Table of O_FIELDS) hold what is live."""
    if t.sums[S_FIRST] < 0 and len(rows.op) > 0:
        t.sums[S_FIRST] = t.sums[S_LAST] = rows.time_ns[0]
    for i in range(len(rows.op)):
        op = rows.op[i]
        t.cpus[rows.cpu[i]] = True
        t.sums[S_LAST] = rows.time_ns[i]
        t.ops[op, rows.context[i]] += 1
        if rows.event[i] >= 0:
            t.events[rows.event[i]] += 1
        if op in (sc.ALLOC, sc.ZERO_ALLOC):
            _alloc(rows, i, t, objects)
        elif op in (sc.FREE, sc.LOST_FREE):
            _free(rows, i, t, objects)
        elif op == sc.NULL_ALLOC:
            t.sums[S_FAILED_BYTES] += rows.requested[i]
        elif op == sc.KVA_ALLOC:
            _enter(rows, i, areas)
            t.sums[S_KVA_BYTES] += rows.requested[i]
            t.sums[S_KVA_LIVE] += rows.requested[i]
            t.sums[S_KVA_PEAK] = max(t.sums[S_KVA_PEAK], t.sums[S_KVA_LIVE])
        elif op in (sc.KVA_FREE, sc.KVA_LOST_FREE):
            at = live.place(areas, (rows.object_id[i] + 1) << 3)
            t.sums[S_KVA_LIVE] -= areas.item[at, O_REQ]
            t.sums[S_KVA_LIFETIME] += (rows.time_ns[i] - areas.item[at, O_TIME]) * (op == sc.KVA_FREE)
            live.remove(areas, at)
        elif op in (sc.IRQ_ENTER, sc.IRQ_EXIT):
            _interrupt(rows, i, t)


@kernel
def _alloc(rows, i, t, objects):
    """Count an allocation; one of no bytes (ZERO_ALLOC) counts but is never live."""
    size = rows.requested[i]
    cache = rows.cache[i]
    t.total[M_COUNT] += 1
    t.total[M_REQ] += size
    t.total[M_ALLOC] += rows.allocated[i]
    t.total[M_POW2] += rounding.buckets(size)
    t.total[M_UMA] += rounding.uma(size)
    t.total[M_DFLY] += rounding.slab(size)
    t.sums[S_NOWAIT] += rows.nowait[i]
    k = t.caches[cache]
    k[K_ALLOCS] += 1
    k[K_REQ] += size
    k[K_ALLOC] += rows.allocated[i]
    k[K_NOWAIT] += rows.nowait[i]
    k[K_LARGEST] = max(k[K_LARGEST], size)
    t.sizes[_bucket(size)] += 1
    if rows.op[i] == sc.ALLOC:
        _enter(rows, i, objects)
        _live(size, rows.allocated[i], 1, t)
        k[K_LIVE] += 1
        k[K_LIVE_BYTES] += size
        k[K_PEAK] = max(k[K_PEAK], k[K_LIVE])
        _bucket_alloc(size, t)


@kernel
def _free(rows, i, t, objects):
    """Count a free, seen or lost; only one that was seen tells a lifetime and a CPU."""
    at = live.place(objects, (rows.object_id[i] + 1) << 3)
    item = objects.item[at]
    size = item[O_REQ]
    k = t.caches[item[O_CACHE]]
    if rows.op[i] == sc.FREE:
        lifetime = rows.time_ns[i] - item[O_TIME]
        t.lifetimes[_log2(lifetime)] += 1
        k[K_FREES] += 1
        k[K_LIFETIME] += lifetime
        if item[O_CPU] != rows.cpu[i]:
            k[K_PINGPONG] += 1
            t.sums[S_PINGPONG] += 1
    else:
        k[K_LOST] += 1
    k[K_LIVE] -= 1
    k[K_LIVE_BYTES] -= size
    _live(size, item[O_ALLOC], -1, t)
    _bucket_free(size, t)
    live.remove(objects, at)


@kernel
def _enter(rows, i, table):
    """Enter the object or area of row i."""
    key = (rows.object_id[i] + 1) << 3
    at = live.place(table, key)
    live.put(table, at, key)
    item = table.item[at]
    item[O_REQ] = rows.requested[i]
    item[O_ALLOC] = rows.allocated[i]
    item[O_CACHE] = rows.cache[i]
    item[O_TIME] = rows.time_ns[i]
    item[O_CPU] = rows.cpu[i]


@kernel
def _live(size, allocated, sign, t):
    """Add an object to what is live, or take it away."""
    t.live[M_COUNT] += sign
    t.live[M_REQ] += sign * size
    t.live[M_ALLOC] += sign * allocated
    t.live[M_POW2] += sign * rounding.buckets(size)
    t.live[M_UMA] += sign * rounding.uma(size)
    t.live[M_DFLY] += sign * rounding.slab(size)
    if sign > 0:
        for m in range(len(t.live)):
            t.peak[m] = max(t.peak[m], t.live[m])


@kernel
def _bucket(size):
    """4.4BSD bucket index: 4 (16 bytes) … 13 (8 KiB); larger requests by their power of two, up to 19."""
    index = 4
    while (1 << index) < size and index < BUCKETS - 1:
        index += 1
    return index


@kernel
def _bucket_alloc(size, t):
    """Pages of 4.4BSD buckets that never give a small page back: an empty bucket takes a page (8 KiB: two)."""
    if size > rounding.BUCKET_LIMIT:
        t.sums[S_PAGES] += rounding.pages(size) // rounding.PAGE
    else:
        index = _bucket(size)
        if t.bucket_free[index] == 0:
            t.sums[S_PAGES] += max(1, (1 << index) // rounding.PAGE)
            t.bucket_free[index] = max(1, rounding.PAGE >> index)
        t.bucket_free[index] -= 1
    t.sums[S_PAGES_PEAK] = max(t.sums[S_PAGES_PEAK], t.sums[S_PAGES])


@kernel
def _bucket_free(size, t):
    if size > rounding.BUCKET_LIMIT:
        t.sums[S_PAGES] -= rounding.pages(size) // rounding.PAGE
    else:
        t.bucket_free[_bucket(size)] += 1


@kernel
def _interrupt(rows, i, t):
    """Count an interrupt, and the time from its entry to its exit on the same CPU."""
    e = rows.event[i]
    cpu = rows.cpu[i]
    if rows.op[i] == sc.IRQ_ENTER:
        t.vectors[e, min(rows.vector[i], VECTORS - 1)] += 1
        t.entered[cpu, e] = rows.time_ns[i]
    elif t.entered[cpu, e - 1] >= 0:  # every exit stands behind its entry in schema.EVENTS
        t.handler_ns[e - 1] += rows.time_ns[i] - t.entered[cpu, e - 1]
        t.entered[cpu, e - 1] = -1


@kernel
def _log2(value):
    """Floor of the binary logarithm; 0 for anything below 2."""
    k = 0
    while value > 1:
        value >>= 1
        k += 1
    return k
