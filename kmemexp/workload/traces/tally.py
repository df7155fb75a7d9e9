"""Counting a trace: one compiled pass over its rows."""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import entry, kernel, ref
from kmemexp.workload.traces import live, rounding
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.live import Table
from kmemexp.workload.traces.track import Rows

# Total, live and peak are kept of these: objects, and bytes requested and as each allocator would round them.
MEASURES = ("n", "req", "alloc", "pow2", "uma", "dfly")
MEASURE_COUNT, MEASURE_REQ, MEASURE_ALLOC, MEASURE_POW2, MEASURE_UMA, MEASURE_DFLY = range(6)

# Columns of Tally.caches.
CACHE_FIELDS = (
    "allocs", "frees", "lost_frees", "bytes_req", "bytes_alloc", "live", "live_bytes", "peak_live", "ping_pong",
    "nowait", "lifetime_ns", "largest_req",
)  # fmt: skip
(CACHE_ALLOCS, CACHE_FREES, CACHE_LOST, CACHE_REQ, CACHE_ALLOC, CACHE_LIVE, CACHE_LIVE_BYTES, CACHE_PEAK,
 CACHE_PINGPONG, CACHE_NOWAIT, CACHE_LIFETIME, CACHE_LARGEST) = range(len(CACHE_FIELDS))  # fmt: skip

# Scalars in Tally.sums.
SUM_FIRST, SUM_LAST, SUM_NOWAIT, SUM_PINGPONG, SUM_PAGES, SUM_PAGES_PEAK, SUM_FAILED_BYTES = range(7)
SUM_KVA_BYTES, SUM_KVA_LIVE, SUM_KVA_PEAK, SUM_KVA_LIFETIME = range(7, 11)
SUMS = 11

# Fields of a live object in Tally.objects.
OBJECT_REQ, OBJECT_ALLOC, OBJECT_CACHE, OBJECT_TIME, OBJECT_CPU = range(5)
OBJECT_FIELDS = 5

BUCKETS = 20
VECTORS = 1024  # interrupts are counted by number; higher ones count as the last
LOGS = 64  # log2 classes of lifetimes in ns
MAX_CPUS = 4096


class Tally(NamedTuple):
    """What is counted, and what of the past the counting needs."""

    sums: np.ndarray  # int64[SUMS]
    ops: np.ndarray  # int64[ops, contexts]
    events: np.ndarray  # int64[events]
    total: np.ndarray  # int64[len(MEASURES)], of all allocations
    live: np.ndarray  # int64[len(MEASURES)]
    peak: np.ndarray  # int64[len(MEASURES)]
    caches: np.ndarray  # int64[caches, len(CACHE_FIELDS)]
    lifetimes: np.ndarray  # int64[LOGS], freed objects by log2 of their lifetime in ns
    sizes: np.ndarray  # int64[BUCKETS], allocations by 4.4BSD bucket index
    bucket_free: np.ndarray  # int64[BUCKETS], free chunks of each bucket
    vectors: np.ndarray  # int64[events, VECTORS], interrupts entered
    handler_ns: np.ndarray  # int64[events], time between entry and exit
    entered: np.ndarray  # int64[MAX_CPUS, events], time of the last entry; -1: none
    cpus: np.ndarray  # bool[MAX_CPUS], CPUs seen


def nothing() -> Tally:
    """Return a tally of nothing."""
    events, measures = len(sc.EVENTS), len(MEASURES)
    tally = Tally(
        sums=_zeros(SUMS),
        ops=_zeros(len(sc.OPS), len(sc.CONTEXTS)),
        events=_zeros(events),
        total=_zeros(measures),
        live=_zeros(measures),
        peak=_zeros(measures),
        caches=_zeros(0, len(CACHE_FIELDS)),
        lifetimes=_zeros(LOGS),
        sizes=_zeros(BUCKETS),
        bucket_free=_zeros(BUCKETS),
        vectors=_zeros(events, VECTORS),
        handler_ns=_zeros(events),
        entered=np.full((MAX_CPUS, events), -1),
        cpus=np.zeros(MAX_CPUS, np.bool_),
    )
    tally.sums[SUM_FIRST] = tally.sums[SUM_LAST] = -1
    return tally


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int64)


def with_caches(tally: Tally, count: int) -> Tally:
    """Return the tally with room for so many caches."""
    more = np.zeros((count - len(tally.caches), len(CACHE_FIELDS)), np.int64)
    return tally._replace(caches=np.concatenate([tally.caches, more])) if len(more) else tally


@entry
def count(rows: Rows, tally: Tally, objects: Table, areas: Table) -> None:
    """Add rows (track.Rows) to a tally; `objects` and `areas` (live.Table of OBJECT_FIELDS) hold what is live."""
    rows, tally, objects, areas = ref(rows), ref(tally), ref(objects), ref(areas)
    for i in range(len(rows.op)):
        op = rows.op[i]
        tally.ops[op, rows.context[i]] += 1
        if op >= sc.PAGE_ALLOC:
            continue  # no event of an object, of KVA or of an interrupt
        tally.cpus[rows.cpu[i]] = True
        if tally.sums[SUM_FIRST] < 0:
            tally.sums[SUM_FIRST] = rows.time_ns[i]
        tally.sums[SUM_LAST] = max(rows.time_ns[i], tally.sums[SUM_LAST])
        if rows.event[i] >= 0:
            tally.events[rows.event[i]] += 1
        if op in (sc.ALLOC, sc.ZERO_ALLOC):
            _alloc(rows, i, tally, objects)
        elif op in (sc.FREE, sc.LOST_FREE):
            _free(rows, i, tally, objects)
        elif op == sc.NULL_ALLOC:
            tally.sums[SUM_FAILED_BYTES] += rows.requested[i]
        elif op == sc.KVA_ALLOC:
            _enter(rows, i, areas)
            tally.sums[SUM_KVA_BYTES] += rows.requested[i]
            tally.sums[SUM_KVA_LIVE] += rows.requested[i]
            tally.sums[SUM_KVA_PEAK] = max(tally.sums[SUM_KVA_PEAK], tally.sums[SUM_KVA_LIVE])
        elif op in (sc.KVA_FREE, sc.KVA_LOST_FREE):
            at = live.place(areas, (rows.object_id[i] + 1) << 3)
            tally.sums[SUM_KVA_LIVE] -= areas.item[at, OBJECT_REQ]
            tally.sums[SUM_KVA_LIFETIME] += (rows.time_ns[i] - areas.item[at, OBJECT_TIME]) * (op == sc.KVA_FREE)
            live.remove(areas, at)
        elif op in (sc.IRQ_ENTER, sc.IRQ_EXIT):
            _interrupt(rows, i, tally)


@kernel
def _alloc(rows: Rows, i: int, tally: Tally, objects: Table) -> None:
    """Count an allocation; one of no bytes (ZERO_ALLOC) counts but is never live."""
    size = rows.requested[i]
    cache = rows.cache[i]
    tally.total[MEASURE_COUNT] += 1
    tally.total[MEASURE_REQ] += size
    tally.total[MEASURE_ALLOC] += rows.allocated[i]
    tally.total[MEASURE_POW2] += rounding.buckets(size)
    tally.total[MEASURE_UMA] += rounding.uma(size)
    tally.total[MEASURE_DFLY] += rounding.slab(size)
    tally.sums[SUM_NOWAIT] += rows.nowait[i]
    k = tally.caches[cache]
    k[CACHE_ALLOCS] += 1
    k[CACHE_REQ] += size
    k[CACHE_ALLOC] += rows.allocated[i]
    k[CACHE_NOWAIT] += rows.nowait[i]
    k[CACHE_LARGEST] = max(k[CACHE_LARGEST], size)
    tally.sizes[_bucket(size)] += 1
    if rows.op[i] == sc.ALLOC:
        _enter(rows, i, objects)
        _live(size, rows.allocated[i], 1, tally)
        k[CACHE_LIVE] += 1
        k[CACHE_LIVE_BYTES] += size
        k[CACHE_PEAK] = max(k[CACHE_PEAK], k[CACHE_LIVE])
        _bucket_alloc(size, tally)


@kernel
def _free(rows: Rows, i: int, tally: Tally, objects: Table) -> None:
    """Count a free, seen or lost; only one that was seen tells a lifetime and a CPU."""
    at = live.place(objects, (rows.object_id[i] + 1) << 3)
    item = objects.item[at]
    size = item[OBJECT_REQ]
    k = tally.caches[item[OBJECT_CACHE]]
    if rows.op[i] == sc.FREE:
        lifetime = rows.time_ns[i] - item[OBJECT_TIME]
        tally.lifetimes[_log2(lifetime)] += 1
        k[CACHE_FREES] += 1
        k[CACHE_LIFETIME] += lifetime
        if item[OBJECT_CPU] != rows.cpu[i]:
            k[CACHE_PINGPONG] += 1
            tally.sums[SUM_PINGPONG] += 1
    else:
        k[CACHE_LOST] += 1
    k[CACHE_LIVE] -= 1
    k[CACHE_LIVE_BYTES] -= size
    _live(size, item[OBJECT_ALLOC], -1, tally)
    _bucket_free(size, tally)
    live.remove(objects, at)


@kernel
def _enter(rows: Rows, i: int, table: Table) -> None:
    """Enter the object or area of row i."""
    key = (rows.object_id[i] + 1) << 3
    at = live.place(table, key)
    live.put(table, at, key)
    item = table.item[at]
    item[OBJECT_REQ] = rows.requested[i]
    item[OBJECT_ALLOC] = rows.allocated[i]
    item[OBJECT_CACHE] = rows.cache[i]
    item[OBJECT_TIME] = rows.time_ns[i]
    item[OBJECT_CPU] = rows.cpu[i]


@kernel
def _live(size: int, allocated: int, sign: int, tally: Tally) -> None:
    """Add an object to what is live, or take it away."""
    tally.live[MEASURE_COUNT] += sign
    tally.live[MEASURE_REQ] += sign * size
    tally.live[MEASURE_ALLOC] += sign * allocated
    tally.live[MEASURE_POW2] += sign * rounding.buckets(size)
    tally.live[MEASURE_UMA] += sign * rounding.uma(size)
    tally.live[MEASURE_DFLY] += sign * rounding.slab(size)
    if sign > 0:
        for m in range(len(tally.live)):
            tally.peak[m] = max(tally.peak[m], tally.live[m])


@kernel
def _bucket(size: int) -> int:
    """4.4BSD bucket index: 4 (16 bytes) … 13 (8 KiB); larger requests by their power of two, up to 19."""
    index = 4
    while (1 << index) < size and index < BUCKETS - 1:
        index += 1
    return index


@kernel
def _bucket_alloc(size: int, tally: Tally) -> None:
    """Pages of 4.4BSD buckets that never give a small page back: an empty bucket takes a page (8 KiB: two)."""
    if size > rounding.BUCKET_LIMIT:
        tally.sums[SUM_PAGES] += rounding.pages(size) // rounding.PAGE
    else:
        index = _bucket(size)
        if tally.bucket_free[index] == 0:
            tally.sums[SUM_PAGES] += max(1, (1 << index) // rounding.PAGE)
            tally.bucket_free[index] = max(1, rounding.PAGE >> index)
        tally.bucket_free[index] -= 1
    tally.sums[SUM_PAGES_PEAK] = max(tally.sums[SUM_PAGES_PEAK], tally.sums[SUM_PAGES])


@kernel
def _bucket_free(size: int, tally: Tally) -> None:
    """Put a small chunk back on its bucket's list; larger ones give their pages back."""
    if size > rounding.BUCKET_LIMIT:
        tally.sums[SUM_PAGES] -= rounding.pages(size) // rounding.PAGE
    else:
        tally.bucket_free[_bucket(size)] += 1


@kernel
def _interrupt(rows: Rows, i: int, tally: Tally) -> None:
    """Count an interrupt, and the time from its entry to its exit on the same CPU."""
    e = rows.event[i]
    cpu = rows.cpu[i]
    if rows.op[i] == sc.IRQ_ENTER:
        tally.vectors[e, min(rows.vector[i], VECTORS - 1)] += 1
        tally.entered[cpu, e] = rows.time_ns[i]
    elif tally.entered[cpu, e - 1] >= 0:  # every exit stands behind its entry in schema.EVENTS
        tally.handler_ns[e - 1] += rows.time_ns[i] - tally.entered[cpu, e - 1]
        tally.entered[cpu, e - 1] = -1


@kernel
def _log2(value: int) -> int:
    """Floor of the binary logarithm; 0 for anything below 2."""
    power = 0
    while value > 1:
        value >>= 1
        power += 1
    return power
