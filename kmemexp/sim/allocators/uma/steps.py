"""Allocations of `allocators/uma` beyond the fast path, and what comes in which phase.

The registers are described in `phases`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators._shared.packed_phase import PHASE_MASK, field
from kmemexp.sim.allocators._shared.uma_requests import NIL, add_cluster, note_next, open_chain, zone_of
from kmemexp.sim.allocators.uma.frees import begin_free, free_step
from kmemexp.sim.allocators.uma.layout import BUCKET_MAX, BUCKET_SIZE, UMA_03
from kmemexp.sim.allocators.uma.moves import (
    bucket_put_back,
    bucket_zone,
    grow,
    internal,
    may_grow,
    new_slab,
    note_refusal,
    to_cpu,
    to_free_bucket,
    to_internal,
    to_single,
    to_zone,
    wanted,
)
from kmemexp.sim.allocators.uma.phases import (
    BACK_SHIFT,
    BEGIN,
    FILL,
    FILLING,
    FREE_BUCKET,
    FREE_RETRY,
    GIVING_UP,
    INTERNAL,
    INTERNAL_PAGE,
    LARGE,
    LARGE_UNHEADER,
    MISS,
    RETRY,
    SINGLE,
    SLAB,
    UNHEADER,
)
from kmemexp.sim.allocators.uma.slabs import (
    ALLOC,
    B_ENTRIES,
    CLUSTER,
    S_COUNT,
    S_HEADER,
    S_MAP,
    SLABS,
    Z_ALLOCS,
    Z_COUNT,
    Z_EMPTY,
    Z_FILLS,
    Z_HEADER,
    Z_READY,
    Z_SIZE,
    bucket_add,
    bucket_count,
    cache_pop,
    fold_allocs,
    list_pop,
    list_push,
    slab_give,
    slab_take,
)
from kmemexp.sim.asking import hand_out
from kmemexp.sim.sizing import MCLBYTES
from kmemexp.sim.slots import (
    DONE,
    FAILED,
    P_NONE,
    PAGE_SHIFT,
    R_ADDR,
    R_BASE,
    R_BYTES,
    R_CPU,
    R_GRANTED,
    R_MAP,
    R_PANIC,
    R_PHASE,
    R_SIZE,
    R_WORK,
    R_X,
    R_Y,
)
from kmemexp.sim.widths import wide


@outlined
def go(st, reg, i, freeing):
    """Play one step that the fast path could not. Returns its answer."""
    phase = reg[i, R_PHASE] & PHASE_MASK
    if phase == BEGIN:
        reg[i, R_X] = NIL
        reg[i, R_Y] = NIL
        return begin_free(st, reg, i) if freeing else _begin_alloc(st, reg, i)
    if phase >= LARGE:
        return _large_mapped(st, reg, i) if phase == LARGE else _large_gone(st, reg, i, freeing)
    freeing = freeing or reg[i, R_PHASE] & GIVING_UP != 0
    z = zone_of(st, reg[i, R_ADDR]) if freeing else wanted(st, reg, i)
    if phase == INTERNAL or phase == INTERNAL_PAGE:
        return internal(st, reg, i, z, freeing, phase)
    if phase == FREE_BUCKET:
        bucket_put_back(st, reg, i)
        return to_zone(reg, i, field(reg, i, BACK_SHIFT), z)
    if phase >= FREE_RETRY:
        return free_step(st, reg, i, z, phase)
    if phase == RETRY:
        return _pieces(st, reg, i, z)
    if phase == MISS:
        return _miss(st, reg, i, z)
    if phase == UNHEADER:
        slab_give(st, reg, i, reg[i, R_Y])
        reg[i, R_Y] = NIL
        return to_zone(reg, i, field(reg, i, BACK_SHIFT), z)
    if phase == SLAB:
        if not new_slab(st, reg, i, z):
            return to_zone(reg, i, UNHEADER, st.zone[z, Z_HEADER])
        phase = field(reg, i, BACK_SHIFT)
    return _fill(st, reg, i, z) if phase == FILL else _single(st, reg, i, z)


@kernel
def _begin_alloc(st, reg, i):
    reg[i, R_GRANTED] = 0
    z = wanted(st, reg, i)
    if z == NIL:
        return to_internal(reg, i, SLABS, LARGE)
    return _pieces(st, reg, i, z)


@outlined
def _pieces(st, reg, i, z):
    """Take as many items from the CPU's buckets as the request needs."""
    if reg[i, R_PANIC] != P_NONE:
        return _give_up(st, reg, i)
    addr = cache_pop(st, z, reg[i, R_CPU])
    while addr != NIL:
        if _got(st, reg, i, z, addr):
            return DONE
        addr = cache_pop(st, z, reg[i, R_CPU])
    return to_zone(reg, i, MISS, z)


@kernel
def _got(st, reg, i, z, addr):
    """Hand an item out, or add it to the chain. True: that was all."""
    if z == CLUSTER and reg[i, R_SIZE] > MCLBYTES:
        if reg[i, R_GRANTED] > 0:
            reg[i, R_WORK] += 1
        return add_cluster(st, reg, i, addr)
    hand_out(reg, i, addr, st.zone[z, Z_SIZE])
    return True


@outlined
def _miss(st, reg, i, z):
    """Give the CPU a bucket from the zone's list; without one, look for one to fill: uma_zalloc_arg()."""
    cpu = reg[i, R_CPU]
    addr = cache_pop(st, z, cpu)  # somebody else of this CPU has been here
    if addr == NIL:
        fold_allocs(st, z, cpu)
        empty = st.cache[z, cpu, ALLOC]
        if empty != NIL:
            list_push(st, z, Z_EMPTY, empty)
        st.cache[z, cpu, ALLOC] = list_pop(st, z, Z_READY)
        addr = cache_pop(st, z, cpu)
    if addr != NIL:
        return DONE if _got(st, reg, i, z, addr) else to_cpu(reg, i, RETRY)
    if st.zone[z, Z_COUNT] < (BUCKET_MAX if st.p.generation >= UMA_03 else BUCKET_SIZE):
        st.zone[z, Z_COUNT] += 1
    reg[i, R_X] = list_pop(st, z, Z_EMPTY)
    if reg[i, R_X] == NIL:
        if st.low[0]:
            return to_single(reg, i, z)
        return to_internal(reg, i, bucket_zone(st, st.zone[z, Z_COUNT]), FILL)
    if st.p.generation >= UMA_03:
        return _fill(st, reg, i, z)
    return to_zone(reg, i, FILL, z)


@outlined
def _fill(st, reg, i, z):
    """Fill the bucket in hand from slabs and put it on the zone's list: uma_zalloc_bucket()."""
    b = reg[i, R_X]
    if not reg[i, R_PHASE] & FILLING:
        if st.zone[z, Z_FILLS] >= st.cache.shape[1]:
            return to_free_bucket(st, reg, i, SINGLE)
        st.zone[z, Z_FILLS] += 1
        reg[i, R_PHASE] |= FILLING
    most = min(wide(st.word[b + B_ENTRIES]), st.zone[z, Z_COUNT])
    while bucket_count(st, b) < most:
        addr = slab_take(st, z)
        if addr == NIL:
            if not may_grow(st, reg, i, z):
                break
            return grow(st, reg, i, z, FILL)
        bucket_add(st, b, addr)
        reg[i, R_WORK] += 1
    st.zone[z, Z_FILLS] -= 1
    reg[i, R_PHASE] &= ~FILLING
    if bucket_count(st, b) == 0:
        return to_free_bucket(st, reg, i, SINGLE)
    list_push(st, z, Z_READY, b)
    reg[i, R_X] = NIL
    return to_cpu(reg, i, RETRY)


@outlined
def _single(st, reg, i, z):
    """Take one item from a slab: uma_zalloc_internal()."""
    if reg[i, R_PANIC] != P_NONE:
        return _give_up(st, reg, i)
    addr = slab_take(st, z)
    if addr == NIL:
        return grow(st, reg, i, z, SINGLE) if may_grow(st, reg, i, z) else _give_up(st, reg, i)
    st.zone[z, Z_ALLOCS] += 1
    return DONE if _got(st, reg, i, z, addr) else to_cpu(reg, i, RETRY)


@kernel
def _large_mapped(st, reg, i):
    """Note the pages of a large malloc: uma_large_malloc()."""
    base = reg[i, R_BASE]
    if base < 0:
        note_refusal(st, reg, i, False)
        return to_zone(reg, i, LARGE_UNHEADER, SLABS)
    page = base >> PAGE_SHIFT
    pages = reg[i, R_BYTES] >> PAGE_SHIFT
    st.slab[page, S_COUNT] = pages
    st.slab[page, S_HEADER] = reg[i, R_Y] >> st.shift
    st.slab[page, S_MAP] = reg[i, R_MAP]
    st.large[0] += pages
    return hand_out(reg, i, base, reg[i, R_BYTES])


@kernel
def _large_gone(st, reg, i, freeing):
    """Give the header of a large malloc back after its pages: uma_large_free()."""
    slab_give(st, reg, i, reg[i, R_Y])
    return DONE if freeing else FAILED


@outlined
def _give_up(st, reg, i):
    """Fail, and free what a chain has got already."""
    if reg[i, R_GRANTED] == 0:
        return FAILED
    open_chain(st, reg, i)
    reg[i, R_PHASE] |= GIVING_UP
    note_next(st, reg, i, CLUSTER)
    return to_cpu(reg, i, FREE_RETRY)
