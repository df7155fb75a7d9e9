"""Upkeep of `allocators/uma`: the timeout of every 20 seconds, and reclaiming when memory is short.

R_ITEM: how many zones have been seen to; R_GRANTED: the zone; R_X: the bucket being given back; R_Y: a CPU, or the
first page of the slab to unmap next.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators.uma.layout import UMA_03, UMA_06
from kmemexp.sim.allocators.uma.moves import BEGIN, FREE_BUCKET, PHASE_MASK, bucket_put_back, to_free_bucket, to_zone
from kmemexp.sim.allocators.uma.slabs import (
    ALLOC,
    FIRST_CACHED,
    FIRST_ITEM,
    FREE,
    NIL,
    S_HEADER,
    S_MAP,
    S_NEXT,
    Z_ALLOCS,
    Z_BEFORE,
    Z_EMPTY,
    Z_FREE,
    Z_HEADER,
    Z_ITEMS,
    Z_PAGES,
    Z_READY,
    Z_WORKING,
    bucket_drain,
    fold_allocs,
    idle_take,
    list_pop,
    slab_give,
    wide,
)
from kmemexp.sim.slots import (
    AGAIN,
    DONE,
    MAP_FREE,
    PAGE_SHIFT,
    R_BASE,
    R_BYTES,
    R_GRANTED,
    R_ITEM,
    R_LOCK,
    R_MAP,
    R_PHASE,
    R_SIZE,
    R_X,
    R_Y,
    T_REAP,
)

# Phases beyond those of allocations and frees, with their locks: c a CPU's, z the zone's, o that of the headers' zone.
TICK = 32  # z
CPU_BUCKETS = 33  # c: empty a CPU's buckets
LISTS = 34  # z: empty the lists of buckets
DRAIN = 35  # z: take out the free slabs
HEADER = 36  # o: give the next one's header back
UNMAP = 37  # then its pages

ALL = 1 << 40


@outlined
def upkeep(st, reg, i):
    """Play one step. Returns its answer."""
    phase = reg[i, R_PHASE] & PHASE_MASK
    if phase == BEGIN:
        return _begin(st, reg, i)
    z = reg[i, R_GRANTED]
    if phase == TICK:
        _working_set(st, z)
        return _next(st, reg, i)
    if phase == CPU_BUCKETS:
        return _empty_cpu(st, reg, i, z)
    if phase == LISTS:
        return _empty_lists(st, reg, i, z)
    if phase == FREE_BUCKET:
        bucket_put_back(st, reg, i)
        return to_zone(reg, i, LISTS, z)
    if phase == DRAIN:
        return _drain(st, reg, i, z)
    if phase == HEADER:
        slab_give(st, reg, i, wide(st.slab[reg[i, R_Y], S_HEADER]) << st.shift)
        return _unmap(st, reg, i, z)
    return _next_slab(st, reg, i, z)


@kernel
def _begin(st, reg, i):
    """See whether buckets may be had: bucket_enable(). From late 2003 on that is all that a tick does."""
    reaping = reg[i, R_SIZE] == T_REAP
    st.low[0] = reaping and st.p.bucketdisable != 0
    if not reaping and st.p.generation >= UMA_03:
        return DONE
    reg[i, R_ITEM] = 0
    return _zone(st, reg, i)


@kernel
def _next(st, reg, i):
    reg[i, R_ITEM] += 1
    return _zone(st, reg, i)


@outlined
def _zone(st, reg, i):
    """Begin with the next zone: the newest first, and after a reclaim UMA's own ones, the oldest first, once more."""
    zones = len(st.zone)
    n = reg[i, R_ITEM]
    reaping = reg[i, R_SIZE] == T_REAP
    if n == zones + (FIRST_CACHED if reaping else 0):
        return DONE
    z = zones - 1 - n if n < zones else n - zones
    reg[i, R_GRANTED] = z
    if not reaping:
        return to_zone(reg, i, TICK, z)
    if z >= FIRST_ITEM and st.p.nofree:
        reg[i, R_ITEM] = zones - FIRST_ITEM
        reg[i, R_GRANTED] = z = FIRST_ITEM - 1
    if z >= FIRST_CACHED and st.p.generation < UMA_03:
        return _to_cpu(reg, i, 0)
    return to_zone(reg, i, LISTS if z >= FIRST_CACHED and st.p.generation >= UMA_06 else DRAIN, z)


@kernel
def _to_cpu(reg, i, cpu):
    reg[i, R_Y] = cpu
    reg[i, R_PHASE] = CPU_BUCKETS
    reg[i, R_LOCK] = cpu  # of class 0
    return AGAIN


@kernel
def _working_set(st, z):
    """Count the allocations since the last tick: zone_timeout()."""
    for cpu in range(st.cache.shape[1]):
        fold_allocs(st, z, cpu)
    st.zone[z, Z_WORKING] = st.zone[z, Z_ALLOCS] - st.zone[z, Z_BEFORE]
    st.zone[z, Z_BEFORE] = st.zone[z, Z_ALLOCS]


@outlined
def _empty_cpu(st, reg, i, z):
    """Give the items of a CPU's buckets back; it keeps the buckets: the beginning of cache_drain()."""
    cpu = reg[i, R_Y]
    for at in range(ALLOC, FREE + 1):
        b = st.cache[z, cpu, at]
        if b != NIL:
            bucket_drain(st, reg, i, b)
    if cpu + 1 < st.cache.shape[1]:
        return _to_cpu(reg, i, cpu + 1)
    return to_zone(reg, i, LISTS, z)


@outlined
def _empty_lists(st, reg, i, z):
    """Give the items of the next bucket of the zone's lists back, then the bucket: the rest of it."""
    b = list_pop(st, z, Z_READY)
    if b == NIL:
        b = list_pop(st, z, Z_EMPTY)
        if b == NIL:
            return _drain(st, reg, i, z)
    bucket_drain(st, reg, i, b)
    reg[i, R_X] = b
    return to_free_bucket(st, reg, i, LISTS)


@kernel
def spare_slabs(free, working, items):
    """Count the slabs of `items` items beyond a working set, of `free` items in slabs."""
    return (free - working) // items if free >= working else 0


@outlined
def _drain(st, reg, i, z):
    """Take the free slabs out that can be spared, early on as many as the working set does not need: zone_drain()."""
    if st.p.generation >= UMA_03:
        reg[i, R_Y] = idle_take(st, z, ALL, True)
    else:
        spare = spare_slabs(st.zone[z, Z_FREE], st.zone[z, Z_WORKING], st.zone[z, Z_ITEMS])
        reg[i, R_Y] = idle_take(st, z, ALL if st.p.eager_release else spare, False)
    return _next_slab(st, reg, i, z)


@kernel
def _next_slab(st, reg, i, z):
    if reg[i, R_Y] == NIL:
        return _next(st, reg, i)
    if st.zone[z, Z_HEADER] != NIL:
        return to_zone(reg, i, HEADER, st.zone[z, Z_HEADER])
    return _unmap(st, reg, i, z)


@kernel
def _unmap(st, reg, i, z):
    page = reg[i, R_Y]
    reg[i, R_Y] = wide(st.slab[page, S_NEXT])
    reg[i, R_PHASE] = UNMAP
    reg[i, R_LOCK] = -1
    reg[i, R_MAP] = st.slab[page, S_MAP]
    reg[i, R_BASE] = page << PAGE_SHIFT
    reg[i, R_BYTES] = st.zone[z, Z_PAGES] << PAGE_SHIFT
    return MAP_FREE
