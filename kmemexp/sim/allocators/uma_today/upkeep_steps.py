"""Upkeep of `allocators/uma_today`: the timeout of every 20 seconds, and reclaiming when memory is short.

regs.ITEM: zone; regs.ADDR: domain; regs.GRANTED: pass; regs.X: the items that a list may keep, then the slab to unmap
next, or a CPU; regs.Y: whether the list gave anything.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators._shared.packed_phase import PHASE_MASK
from kmemexp.sim.allocators._shared.uma_requests import NIL
from kmemexp.sim.allocators.uma_today import phases, slabs
from kmemexp.sim.allocators.uma_today.moves import (
    FIRST_BUCKET,
    FIRST_MALLOC,
    PACKET,
    domain_at,
    empty_bucket,
    flush_stack,
    keg_of,
    put_away,
    to_cross,
    to_keg,
    to_list,
    to_section,
    unmap_slab,
)
from kmemexp.sim.allocators.uma_today.packets import fini_step
from kmemexp.sim.allocators.uma_today.slabs import (
    bucket_count,
    cache_unload,
    list_fetch,
    slab_give,
    update_working_set,
)
from kmemexp.sim.allocators.uma_today.state import State
from kmemexp.sim.slots import DONE, TEND_TICK, TEND_WATCH
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

# What may be asked for (Params.reap).
DRAIN = 1
DRAIN_CPU = 2


@outlined
def upkeep(st: State, reg: Registers, i: int) -> int:
    """Play one step. Returns its answer."""
    phase = reg[i, regs.PHASE] & PHASE_MASK
    if phases.puts_away(phase):
        return fini_step(st, reg, i, phase) if phase >= phases.FINI else put_away(st, reg, i, phase)
    if phase == phases.BEGIN:
        if reg[i, regs.SIZE] == TEND_WATCH and not st.total[1]:
            return DONE
        reg[i, regs.GRANTED] = 0
        reg[i, regs.ITEM] = len(st.zone) - 1
        reg[i, regs.ADDR] = 0
    if phase == phases.CROSS_BUCKET:
        return _cross_bucket(st, reg, i)
    if phase == phases.TRIM:
        return _trim(st, reg, i)
    if phase == phases.MORE:
        return to_list(st, reg, i, phases.NEXT_BUCKET, reg[i, regs.ITEM], reg[i, regs.ADDR])
    if phase == phases.NEXT_BUCKET:
        st.dom[reg[i, regs.ITEM], reg[i, regs.ADDR], slabs.D_TAKES] += 1
        return _next_bucket(st, reg, i)
    if phase == phases.KEG:
        return _keg(st, reg, i)
    if phase == phases.UNMAP:
        return _unmap(st, reg, i)
    if phase == phases.FREE_HEADER:
        slab_give(st, reg, i, wide(st.slab[reg[i, regs.X], slabs.S_HEADER]) << slabs.HEADER_SHIFT)
        return _unmap_slab(st, reg, i)
    if phase == phases.CPUS:
        return _empty_cpus(st, reg, i)
    if phase == phases.STACKS:
        return _empty_stacks(st, reg, i)
    return _zone(st, reg, i)


@kernel
def _reaping(reg: Registers, i: int) -> bool:
    return reg[i, regs.SIZE] != TEND_TICK


@kernel
def _how(st: State, reg: Registers, i: int) -> int:
    """What is asked for: the reclaim thread drains all, uma_reclaim_worker()."""
    return DRAIN_CPU if reg[i, regs.SIZE] == TEND_WATCH else st.p.reap


@kernel
def _end(st: State, reg: Registers, i: int) -> int:
    if reg[i, regs.SIZE] == TEND_WATCH:
        st.total[1] = 0
    return DONE


@outlined
def _zone(st: State, reg: Registers, i: int) -> int:
    """Begin with the next zone, the newest first; UMA's own zones have slabs only, and only a reclaim looks at them."""
    z, d = reg[i, regs.ITEM], reg[i, regs.ADDR]
    if z < (0 if _reaping(reg, i) else FIRST_MALLOC):
        if not _reaping(reg, i) or _how(st, reg, i) != DRAIN_CPU or reg[i, regs.GRANTED] > 0:
            return _end(st, reg, i)
        for k in range(FIRST_MALLOC, len(st.zone)):
            st.zone[k, slabs.Z_BUCKET] = (st.zone[k, slabs.Z_BUCKET] + st.zone[k, slabs.Z_BUCKET_MIN]) // 2
        reg[i, regs.GRANTED] = 1
        reg[i, regs.ITEM] = len(st.zone) - 1
        reg[i, regs.X] = 0
        return to_section(reg, i, phases.CPUS)
    if z < FIRST_MALLOC:
        return to_keg(st, reg, i, phases.KEG, z, d)
    if st.dom[z, d, slabs.D_CROSS] != NIL:
        return to_cross(reg, i, phases.CROSS_BUCKET, z)
    return to_list(st, reg, i, phases.TRIM, z, d)


@kernel
def _next(st: State, reg: Registers, i: int) -> int:
    """Go to the next domain, or the next zone."""
    reg[i, regs.ADDR] += 1
    if reg[i, regs.ADDR] == st.domains:
        reg[i, regs.ADDR] = 0
        reg[i, regs.ITEM] -= 1
        if reg[i, regs.ITEM] == PACKET and st.zone[PACKET, slabs.Z_USED] == 0:
            for d in range(st.domains):  # it has nothing: no step is needed
                update_working_set(st, PACKET, d)
            reg[i, regs.ITEM] -= 1
    return _zone(st, reg, i)


@kernel
def _cross_bucket(st: State, reg: Registers, i: int) -> int:
    z, d = reg[i, regs.ITEM], reg[i, regs.ADDR]
    b = st.dom[z, d, slabs.D_CROSS]
    if b == NIL:
        return to_section(reg, i, phases.ZONE)
    st.dom[z, d, slabs.D_CROSS] = NIL
    return empty_bucket(st, reg, i, b, phases.ZONE)


@kernel
def _trim(st: State, reg: Registers, i: int) -> int:
    """Say what a list may keep: bucket_cache_reclaim_domain()."""
    z, d = reg[i, regs.ITEM], reg[i, regs.ADDR]
    st.dom[z, d, slabs.D_TAKES] += 1
    update_working_set(st, z, d)
    reg[i, regs.Y] = 0
    if _reaping(reg, i):
        if d == 0 and st.zone[z, slabs.Z_BUCKET] > st.zone[z, slabs.Z_BUCKET_MIN]:
            st.zone[z, slabs.Z_BUCKET] -= 1
        reg[i, regs.X] = 0 if _how(st, reg, i) >= DRAIN else st.dom[z, d, slabs.D_WSS]
    elif st.dom[z, d, slabs.D_TIMIN] > st.p.trim_after:
        reg[i, regs.X] = st.dom[z, d, slabs.D_COUNT] - st.dom[z, d, slabs.D_LIMIN] // 4
    else:
        return _next(st, reg, i)
    return _next_bucket(st, reg, i)


@kernel
def _next_bucket(st: State, reg: Registers, i: int) -> int:
    z, d = reg[i, regs.ITEM], reg[i, regs.ADDR]
    b = st.dom[z, d, slabs.D_LIST]
    if b != NIL and st.dom[z, d, slabs.D_COUNT] >= reg[i, regs.X] + bucket_count(st, b):
        reg[i, regs.Y] = 1
        return empty_bucket(st, reg, i, list_fetch(st, z, d, True), phases.MORE)
    if _reaping(reg, i) or reg[i, regs.Y]:
        return to_keg(st, reg, i, phases.KEG, z, d)
    return _next(st, reg, i)


@kernel
def _keg(st: State, reg: Registers, i: int) -> int:
    """Take all wholly free slabs out of a keg: keg_drain_domain()."""
    z, d = keg_of(st, reg[i, regs.ITEM]), reg[i, regs.ADDR]
    if st.zone[z, slabs.Z_NOFREE]:
        return _next(st, reg, i)
    reg[i, regs.X] = st.dom[z, d, slabs.D_FREE]
    st.dom[z, d, slabs.D_PAGES] -= st.dom[z, d, slabs.D_FREE_SLABS] * st.zone[z, slabs.Z_PAGES]
    st.dom[z, d, slabs.D_FREE_SLABS] = 0
    st.dom[z, d, slabs.D_FREE] = NIL
    return _unmap(st, reg, i)


@kernel
def _unmap(st: State, reg: Registers, i: int) -> int:
    page = reg[i, regs.X]
    if page == NIL:
        return _next(st, reg, i)
    header = st.zone[keg_of(st, reg[i, regs.ITEM]), slabs.Z_HEADER]
    if header != NIL:
        at = wide(st.slab[page, slabs.S_HEADER]) << slabs.HEADER_SHIFT
        return to_keg(st, reg, i, phases.FREE_HEADER, header, domain_at(st, at))
    return _unmap_slab(st, reg, i)


@kernel
def _unmap_slab(st: State, reg: Registers, i: int) -> int:
    z, page = keg_of(st, reg[i, regs.ITEM]), reg[i, regs.X]
    reg[i, regs.X] = wide(st.slab[page, slabs.S_NEXT])
    return unmap_slab(st, reg, i, phases.UNMAP, z, page)


@kernel
def _empty_cpus(st: State, reg: Registers, i: int) -> int:
    """Empty the next bucket that a CPU has; regs.X counts CPUs. Then the stacks."""
    cpus = st.cache.shape[1]
    while reg[i, regs.X] < cpus:
        while reg[i, regs.ITEM] >= FIRST_MALLOC:
            for at in range(slabs.ALLOC, slabs.ALLOC + 3 * slabs.FREE, slabs.FREE):
                b = cache_unload(st, reg[i, regs.ITEM], reg[i, regs.X], at)
                if b != NIL:
                    return empty_bucket(st, reg, i, b, phases.CPUS)
            reg[i, regs.ITEM] -= 1
        reg[i, regs.X] += 1
        reg[i, regs.ITEM] = len(st.zone) - 1
    reg[i, regs.X] = 0
    reg[i, regs.ITEM] = FIRST_BUCKET
    return _empty_stacks(st, reg, i)


@outlined
def _empty_stacks(st: State, reg: Registers, i: int) -> int:
    """Empty the next stack that a CPU has, then begin the second pass."""
    cpus = st.cache.shape[1]
    if reg[i, regs.PHASE] & PHASE_MASK == phases.STACKS:
        flush_stack(st, reg, i, reg[i, regs.ITEM], reg[i, regs.X], 0)
    while reg[i, regs.X] < cpus:
        while reg[i, regs.ITEM] < FIRST_MALLOC:
            k = reg[i, regs.ITEM]
            if st.cache[k, reg[i, regs.X], slabs.COUNT] > 0:
                top = st.cache[k, reg[i, regs.X], slabs.TOP] << slabs.WORD_SHIFT
                return to_keg(st, reg, i, phases.STACKS, k, domain_at(st, top))
            reg[i, regs.ITEM] += 1
        reg[i, regs.X] += 1
        reg[i, regs.ITEM] = FIRST_BUCKET
    reg[i, regs.ITEM] = len(st.zone) - 1
    reg[i, regs.ADDR] = 0
    return _zone(st, reg, i)
