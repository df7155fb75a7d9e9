"""Upkeep of `allocators/uma_today`: the timeout of every 20 seconds, and reclaiming when memory is short.

R_ITEM: zone; R_ADDR: domain; R_GRANTED: pass; R_X: the items that a list may keep, then the slab to unmap next, or a
CPU; R_Y: whether the list gave anything.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators._shared.packed_phase import PHASE_MASK
from kmemexp.sim.allocators._shared.uma_requests import NIL
from kmemexp.sim.allocators.uma_today.moves import (
    FIRST_BUCKET,
    FIRST_MALLOC,
    domain_at,
    empty_bucket,
    flush_stack,
    put_away,
    to_cross,
    to_keg,
    to_list,
    to_section,
)
from kmemexp.sim.allocators.uma_today.phases import (
    BEGIN,
    CPUS,
    CROSS_BUCKET,
    FLUSH,
    FREE_HEADER,
    KEG,
    MORE,
    NEXT_BUCKET,
    RELEASE,
    STACKS,
    TRIM,
    UNMAP,
    ZONE,
)
from kmemexp.sim.allocators.uma_today.slabs import (
    ALLOC,
    COUNT,
    D_COUNT,
    D_CROSS,
    D_FREE,
    D_FREE_SLABS,
    D_LIMIN,
    D_LIST,
    D_PAGES,
    D_TAKES,
    D_TIMIN,
    D_WSS,
    FREE,
    HEADER_SHIFT,
    S_HEADER,
    S_NEXT,
    TOP,
    WORD_SHIFT,
    Z_BUCKET,
    Z_BUCKET_MIN,
    Z_HEADER,
    Z_MAP,
    Z_PAGES,
    bucket_count,
    cache_unload,
    list_fetch,
    slab_forget,
    slab_give,
    update_working_set,
)
from kmemexp.sim.asking import ask_unmap
from kmemexp.sim.slots import DONE, PAGE_SHIFT, R_ADDR, R_GRANTED, R_ITEM, R_LOCK, R_PHASE, R_SIZE, R_X, R_Y, T_REAP
from kmemexp.sim.widths import wide

# What may be asked for (Params.reap).
DRAIN = 1
DRAIN_CPU = 2


@outlined
def upkeep(st, reg, i):
    """Play one step. Returns its answer."""
    phase = reg[i, R_PHASE] & PHASE_MASK
    if phase >= RELEASE and phase <= FLUSH:
        return put_away(st, reg, i, phase)
    if phase == BEGIN:
        reg[i, R_GRANTED] = 0
        reg[i, R_ITEM] = len(st.zone) - 1
        reg[i, R_ADDR] = 0
    if phase == CROSS_BUCKET:
        return _cross_bucket(st, reg, i)
    if phase == TRIM:
        return _trim(st, reg, i)
    if phase == MORE:
        return to_list(st, reg, i, NEXT_BUCKET, reg[i, R_ITEM], reg[i, R_ADDR])
    if phase == NEXT_BUCKET:
        st.dom[reg[i, R_ITEM], reg[i, R_ADDR], D_TAKES] += 1
        return _next_bucket(st, reg, i)
    if phase == KEG:
        return _keg(st, reg, i)
    if phase == UNMAP:
        return _unmap(st, reg, i)
    if phase == FREE_HEADER:
        slab_give(st, reg, i, wide(st.slab[reg[i, R_X], S_HEADER]) << HEADER_SHIFT)
        return _unmap_slab(st, reg, i)
    if phase == CPUS:
        return _empty_cpus(st, reg, i)
    if phase == STACKS:
        return _empty_stacks(st, reg, i)
    return _zone(st, reg, i)


@kernel
def _reaping(reg, i):
    return reg[i, R_SIZE] == T_REAP


@outlined
def _zone(st, reg, i):
    """Begin with the next zone, the newest first; UMA's own zones have slabs only, and only a reclaim looks at them."""
    z, d = reg[i, R_ITEM], reg[i, R_ADDR]
    if z < (0 if _reaping(reg, i) else FIRST_MALLOC):
        if not _reaping(reg, i) or st.p.reap != DRAIN_CPU or reg[i, R_GRANTED] > 0:
            return DONE
        for k in range(FIRST_MALLOC, len(st.zone)):
            st.zone[k, Z_BUCKET] = (st.zone[k, Z_BUCKET] + st.zone[k, Z_BUCKET_MIN]) // 2
        reg[i, R_GRANTED] = 1
        reg[i, R_ITEM] = len(st.zone) - 1
        reg[i, R_X] = 0
        return to_section(reg, i, CPUS)
    if z < FIRST_MALLOC:
        return to_keg(st, reg, i, KEG, z, d)
    if st.dom[z, d, D_CROSS] != NIL:
        return to_cross(reg, i, CROSS_BUCKET, z)
    return to_list(st, reg, i, TRIM, z, d)


@kernel
def _next(st, reg, i):
    """Go to the next domain, or the next zone."""
    reg[i, R_ADDR] += 1
    if reg[i, R_ADDR] == st.domains:
        reg[i, R_ADDR] = 0
        reg[i, R_ITEM] -= 1
    return _zone(st, reg, i)


@kernel
def _cross_bucket(st, reg, i):
    z, d = reg[i, R_ITEM], reg[i, R_ADDR]
    b = st.dom[z, d, D_CROSS]
    if b == NIL:
        return to_section(reg, i, ZONE)
    st.dom[z, d, D_CROSS] = NIL
    return empty_bucket(st, reg, i, b, ZONE)


@kernel
def _trim(st, reg, i):
    """Say what a list may keep: bucket_cache_reclaim_domain()."""
    z, d = reg[i, R_ITEM], reg[i, R_ADDR]
    st.dom[z, d, D_TAKES] += 1
    update_working_set(st, z, d)
    reg[i, R_Y] = 0
    if _reaping(reg, i):
        if d == 0 and st.zone[z, Z_BUCKET] > st.zone[z, Z_BUCKET_MIN]:
            st.zone[z, Z_BUCKET] -= 1
        reg[i, R_X] = 0 if st.p.reap >= DRAIN else st.dom[z, d, D_WSS]
    elif st.dom[z, d, D_TIMIN] > st.p.trim_after:
        reg[i, R_X] = st.dom[z, d, D_COUNT] - st.dom[z, d, D_LIMIN] // 4
    else:
        return _next(st, reg, i)
    return _next_bucket(st, reg, i)


@kernel
def _next_bucket(st, reg, i):
    z, d = reg[i, R_ITEM], reg[i, R_ADDR]
    b = st.dom[z, d, D_LIST]
    if b != NIL and st.dom[z, d, D_COUNT] >= reg[i, R_X] + bucket_count(st, b):
        reg[i, R_Y] = 1
        return empty_bucket(st, reg, i, list_fetch(st, z, d, True), MORE)
    if _reaping(reg, i) or reg[i, R_Y]:
        return to_keg(st, reg, i, KEG, z, d)
    return _next(st, reg, i)


@kernel
def _keg(st, reg, i):
    """Take all wholly free slabs out of a keg: keg_drain_domain()."""
    z, d = reg[i, R_ITEM], reg[i, R_ADDR]
    reg[i, R_X] = st.dom[z, d, D_FREE]
    st.dom[z, d, D_PAGES] -= st.dom[z, d, D_FREE_SLABS] * st.zone[z, Z_PAGES]
    st.dom[z, d, D_FREE_SLABS] = 0
    st.dom[z, d, D_FREE] = NIL
    return _unmap(st, reg, i)


@kernel
def _unmap(st, reg, i):
    page = reg[i, R_X]
    if page == NIL:
        return _next(st, reg, i)
    header = st.zone[reg[i, R_ITEM], Z_HEADER]
    if header != NIL:
        at = wide(st.slab[page, S_HEADER]) << HEADER_SHIFT
        return to_keg(st, reg, i, FREE_HEADER, header, domain_at(st, at))
    return _unmap_slab(st, reg, i)


@kernel
def _unmap_slab(st, reg, i):
    z, page = reg[i, R_ITEM], reg[i, R_X]
    reg[i, R_X] = wide(st.slab[page, S_NEXT])
    slab_forget(st, z, page)
    reg[i, R_LOCK] = 0
    return ask_unmap(reg, i, UNMAP, st.zone[z, Z_MAP], page << PAGE_SHIFT, st.zone[z, Z_PAGES] << PAGE_SHIFT)


@kernel
def _empty_cpus(st, reg, i):
    """Empty the next bucket that a CPU has; R_X counts CPUs. Then the stacks."""
    cpus = st.cache.shape[1]
    while reg[i, R_X] < cpus:
        while reg[i, R_ITEM] >= FIRST_MALLOC:
            for at in range(ALLOC, ALLOC + 3 * FREE, FREE):
                b = cache_unload(st, reg[i, R_ITEM], reg[i, R_X], at)
                if b != NIL:
                    return empty_bucket(st, reg, i, b, CPUS)
            reg[i, R_ITEM] -= 1
        reg[i, R_X] += 1
        reg[i, R_ITEM] = len(st.zone) - 1
    reg[i, R_X] = 0
    reg[i, R_ITEM] = FIRST_BUCKET
    return _empty_stacks(st, reg, i)


@outlined
def _empty_stacks(st, reg, i):
    """Empty the next stack that a CPU has, then begin the second pass."""
    cpus = st.cache.shape[1]
    if reg[i, R_PHASE] & PHASE_MASK == STACKS:
        flush_stack(st, reg, i, reg[i, R_ITEM], reg[i, R_X], 0)
    while reg[i, R_X] < cpus:
        while reg[i, R_ITEM] < FIRST_MALLOC:
            k = reg[i, R_ITEM]
            if st.cache[k, reg[i, R_X], COUNT] > 0:
                top = st.cache[k, reg[i, R_X], TOP] << WORD_SHIFT
                return to_keg(st, reg, i, STACKS, k, domain_at(st, top))
            reg[i, R_ITEM] += 1
        reg[i, R_X] += 1
        reg[i, R_ITEM] = FIRST_BUCKET
    reg[i, R_ITEM] = len(st.zone) - 1
    reg[i, R_ADDR] = 0
    return _zone(st, reg, i)
