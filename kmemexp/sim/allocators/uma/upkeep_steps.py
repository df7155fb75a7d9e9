"""Upkeep of `allocators/uma`: the timeout of every 20 seconds, and reclaiming when memory is short.

R_ITEM: how many zones have been seen to; R_GRANTED: the zone; R_X: the bucket being given back; R_Y: a CPU, or the
first page of the slab to unmap next.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators._shared.packed_phase import PHASE_MASK
from kmemexp.sim.allocators._shared.uma_requests import NIL
from kmemexp.sim.allocators.uma.layout import UMA_03, UMA_06
from kmemexp.sim.allocators.uma.moves import bucket_put_back, to_free_bucket, to_zone
from kmemexp.sim.allocators.uma.phases import BEGIN, CPU_BUCKETS, DRAIN, FREE_BUCKET, HEADER, LISTS, TICK, UNMAP
from kmemexp.sim.allocators.uma.slabs import (
    ALLOC,
    FIRST_CACHED,
    FIRST_ITEM,
    FREE,
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
)
from kmemexp.sim.asking import ask_unmap, go_on
from kmemexp.sim.slots import DONE, PAGE_SHIFT, R_GRANTED, R_ITEM, R_LOCK, R_PHASE, R_SIZE, R_X, R_Y, T_REAP
from kmemexp.sim.widths import wide

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
    return go_on(reg, i, CPU_BUCKETS, cpu)  # a lock of class 0


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
    reg[i, R_LOCK] = -1
    return ask_unmap(reg, i, UNMAP, st.slab[page, S_MAP], page << PAGE_SHIFT, st.zone[z, Z_PAGES] << PAGE_SHIFT)
