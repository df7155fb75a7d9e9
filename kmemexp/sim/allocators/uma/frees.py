"""Frees of `allocators/uma` beyond the fast path. The registers are described in `phases`."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators._shared.uma_requests import NIL, next_piece, note_next, zone_of
from kmemexp.sim.allocators.uma.moves import bucket_zone, to_cpu, to_internal, to_zone
from kmemexp.sim.allocators.uma.phases import (
    ADD_BUCKET,
    DROP_HEADER,
    DROPPED,
    FREE_ITEM,
    FREE_MISS,
    FREE_RETRY,
    GIVING_UP,
    LARGE_UNHEADER,
)
from kmemexp.sim.allocators.uma.slabs import (
    CLUSTER,
    FIRST_ITEM,
    FREE,
    S_COUNT,
    S_HEADER,
    S_MAP,
    SLABS,
    Z_COUNT,
    Z_EMPTY,
    Z_FULL,
    Z_HEADER,
    Z_ITEMS,
    Z_PAGES,
    Z_READY,
    cache_push,
    idle_take,
    list_pop,
    list_push,
    slab_give,
)
from kmemexp.sim.asking import ask_unmap
from kmemexp.sim.slots import (
    DONE,
    FAILED,
    MAP_FREE,
    PAGE_SHIFT,
    R_ADDR,
    R_BASE,
    R_BYTES,
    R_CPU,
    R_MAP,
    R_PHASE,
    R_X,
    R_Y,
)
from kmemexp.sim.widths import wide


@kernel
def begin_free(st, reg, i):
    if zone_of(st, reg[i, R_ADDR]) != NIL:
        note_next(st, reg, i, CLUSTER)
        return free_pieces(st, reg, i)
    page = reg[i, R_ADDR] >> PAGE_SHIFT
    pages = wide(st.slab[page, S_COUNT])
    st.slab[page, S_COUNT] = 0
    st.large[0] -= pages
    reg[i, R_Y] = wide(st.slab[page, S_HEADER]) << st.shift
    to_zone(reg, i, LARGE_UNHEADER, SLABS)
    return ask_unmap(reg, i, reg[i, R_PHASE], st.slab[page, S_MAP], reg[i, R_ADDR], pages << PAGE_SHIFT)


@kernel
def _end(reg, i):
    return FAILED if reg[i, R_PHASE] & GIVING_UP else DONE


@outlined
def free_pieces(st, reg, i):
    """Put items into the CPU's buckets; those of a full zone go straight to their slabs: uma_zfree_arg()."""
    while True:
        z = zone_of(st, reg[i, R_ADDR])
        if st.zone[z, Z_FULL]:
            return to_zone(reg, i, FREE_ITEM, z)
        if not cache_push(st, z, reg[i, R_CPU], reg[i, R_ADDR]):
            return to_zone(reg, i, FREE_MISS, z)
        if not next_piece(st, reg, i, CLUSTER):
            return _end(reg, i)


@kernel
def free_step(st, reg, i, z, phase):
    if phase == FREE_RETRY:
        return free_pieces(st, reg, i)
    if phase == FREE_MISS:
        return _free_miss(st, reg, i, z)
    if phase == ADD_BUCKET:
        list_push(st, z, Z_EMPTY, reg[i, R_X])
        reg[i, R_X] = NIL
        return to_cpu(reg, i, FREE_RETRY)
    if phase == DROP_HEADER:
        slab_give(st, reg, i, wide(st.slab[reg[i, R_BASE] >> PAGE_SHIFT, S_HEADER]) << st.shift)
        return _unmap(reg, i)
    if phase == FREE_ITEM:
        slab_give(st, reg, i, reg[i, R_ADDR])
        if st.p.eager_release and _may_go(st, z, reg[i, R_ADDR] >> PAGE_SHIFT):
            return _drop(st, reg, i, z)
    return to_cpu(reg, i, FREE_RETRY) if next_piece(st, reg, i, CLUSTER) else _end(reg, i)


@kernel
def _may_go(st, z, page):
    """Whether a slab is wholly free and of no zone that keeps its pages."""
    return st.slab[page, S_COUNT] == st.zone[z, Z_ITEMS] and not (st.p.nofree and z >= FIRST_ITEM)


@outlined
def _drop(st, reg, i, z):
    """Give the slab that has just become free back, its off-page header first."""
    page = idle_take(st, z, 1, False)
    reg[i, R_MAP] = st.slab[page, S_MAP]
    reg[i, R_BASE] = page << PAGE_SHIFT
    reg[i, R_BYTES] = st.zone[z, Z_PAGES] << PAGE_SHIFT
    if st.zone[z, Z_HEADER] != NIL:
        return to_zone(reg, i, DROP_HEADER, st.zone[z, Z_HEADER])
    return _unmap(reg, i)


@kernel
def _unmap(reg, i):
    to_cpu(reg, i, DROPPED)
    return MAP_FREE


@kernel
def _free_miss(st, reg, i, z):
    """Put the full free bucket on the zone's list and take an empty one; without one, allocate it."""
    cpu, addr = reg[i, R_CPU], reg[i, R_ADDR]
    done = cache_push(st, z, cpu, addr)  # somebody else of this CPU has been here
    if not done:
        full = st.cache[z, cpu, FREE]
        if full != NIL:
            list_push(st, z, Z_READY, full)
        st.cache[z, cpu, FREE] = list_pop(st, z, Z_EMPTY)
        done = cache_push(st, z, cpu, addr)
    if done:
        return to_cpu(reg, i, FREE_RETRY) if next_piece(st, reg, i, CLUSTER) else _end(reg, i)
    if st.low[0]:
        return to_zone(reg, i, FREE_ITEM, z)
    return to_internal(reg, i, bucket_zone(st, st.zone[z, Z_COUNT]), ADD_BUCKET)
