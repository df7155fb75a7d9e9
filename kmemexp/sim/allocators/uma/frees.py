"""Frees of `allocators/uma` beyond the fast path. The registers are described in `phases`."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators._shared.uma_requests import NIL, next_piece, note_next, zone_of
from kmemexp.sim.allocators.uma import phases, slabs
from kmemexp.sim.allocators.uma.moves import bucket_zone, to_cpu, to_internal, to_zone
from kmemexp.sim.allocators.uma.packets import bare, strip
from kmemexp.sim.allocators.uma.slabs import cache_push, idle_take, keg_of, list_pop, list_push, slab_give, zone_at
from kmemexp.sim.allocators.uma.state import State
from kmemexp.sim.asking import ask_unmap
from kmemexp.sim.slots import DONE, FAILED, MAP_FREE, PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide


@kernel
def begin_free(st: State, reg: Registers, i: int) -> int:
    if zone_of(st, reg[i, regs.ADDR]) != NIL:
        note_next(st, reg, i, slabs.CLUSTER)
        return free_pieces(st, reg, i)
    page = reg[i, regs.ADDR] >> PAGE_SHIFT
    pages = wide(st.slab[page, slabs.S_COUNT])
    st.slab[page, slabs.S_COUNT] = 0
    st.large[0] -= pages
    reg[i, regs.Y] = wide(st.slab[page, slabs.S_HEADER]) << st.shift
    to_zone(reg, i, phases.LARGE_UNHEADER, slabs.SLABS)
    return ask_unmap(reg, i, reg[i, regs.PHASE], st.slab[page, slabs.S_MAP], reg[i, regs.ADDR], pages << PAGE_SHIFT)


@kernel
def _end(reg: Registers, i: int) -> int:
    return FAILED if reg[i, regs.PHASE] & phases.GIVING_UP else DONE


@outlined
def free_pieces(st: State, reg: Registers, i: int) -> int:
    """Put items into the CPU's buckets; those of a full zone go straight to their slabs: uma_zfree_arg()."""
    while True:
        z = zone_at(st, reg[i, regs.ADDR])
        if st.zone[z, slabs.Z_FULL]:
            return to_zone(reg, i, phases.FREE_ITEM, z)
        if not cache_push(st, z, reg[i, regs.CPU], reg[i, regs.ADDR]):
            return to_zone(reg, i, phases.FREE_MISS, z)
        if not next_piece(st, reg, i, slabs.CLUSTER):
            return _end(reg, i)


@kernel
def free_step(st: State, reg: Registers, i: int, z: int, phase: int) -> int:
    if phase == phases.FREE_RETRY:
        return free_pieces(st, reg, i)
    if phase == phases.FREE_MISS:
        return _free_miss(st, reg, i, z)
    if phase == phases.ADD_BUCKET:
        list_push(st, z, slabs.Z_EMPTY, reg[i, regs.X])
        reg[i, regs.X] = NIL
        return to_cpu(reg, i, phases.FREE_RETRY)
    if phase == phases.DROP_HEADER:
        slab_give(st, reg, i, wide(st.slab[reg[i, regs.BASE] >> PAGE_SHIFT, slabs.S_HEADER]) << st.shift)
        return _unmap(reg, i)
    if phase == phases.FINI:
        strip(st, reg, i, reg[i, regs.ADDR])
        return to_zone(reg, i, phases.FREE_ITEM, slabs.PACKET)
    if phase == phases.FREE_ITEM:
        if z == slabs.PACKET and not bare(st, reg[i, regs.CPU], reg[i, regs.ADDR]):
            return to_zone(reg, i, phases.FINI, slabs.CLUSTER)
        if z == slabs.PACKET:
            st.ext[reg[i, regs.ADDR] >> slabs.MSHIFT] = slabs.NO_PACKET
        slab_give(st, reg, i, reg[i, regs.ADDR])
        if st.p.eager_release and _may_go(st, keg_of(z), reg[i, regs.ADDR] >> PAGE_SHIFT):
            return _drop(st, reg, i, keg_of(z))
    return to_cpu(reg, i, phases.FREE_RETRY) if next_piece(st, reg, i, slabs.CLUSTER) else _end(reg, i)


@kernel
def _may_go(st: State, z: int, page: int) -> bool:
    """Whether a slab is wholly free and of no zone that keeps its pages."""
    return st.slab[page, slabs.S_COUNT] == st.zone[z, slabs.Z_ITEMS] and not (st.p.nofree and z >= slabs.FIRST_ITEM)


@outlined
def _drop(st: State, reg: Registers, i: int, z: int) -> int:
    """Give the slab that has just become free back, its off-page header first."""
    page = idle_take(st, z, 1, False)
    reg[i, regs.MAP] = st.slab[page, slabs.S_MAP]
    reg[i, regs.BASE] = page << PAGE_SHIFT
    reg[i, regs.BYTES] = st.zone[z, slabs.Z_PAGES] << PAGE_SHIFT
    if st.zone[z, slabs.Z_HEADER] != NIL:
        return to_zone(reg, i, phases.DROP_HEADER, st.zone[z, slabs.Z_HEADER])
    return _unmap(reg, i)


@kernel
def _unmap(reg: Registers, i: int) -> int:
    to_cpu(reg, i, phases.DROPPED)
    return MAP_FREE


@kernel
def _free_miss(st: State, reg: Registers, i: int, z: int) -> int:
    """Put the full free bucket on the zone's list and take an empty one; without one, allocate it."""
    cpu, addr = reg[i, regs.CPU], reg[i, regs.ADDR]
    done = cache_push(st, z, cpu, addr)  # somebody else of this CPU has been here
    if not done:
        full = st.cache[z, cpu, slabs.FREE]
        if full != NIL:
            list_push(st, z, slabs.Z_READY, full)
        st.cache[z, cpu, slabs.FREE] = list_pop(st, z, slabs.Z_EMPTY)
        done = cache_push(st, z, cpu, addr)
    if done:
        return to_cpu(reg, i, phases.FREE_RETRY) if next_piece(st, reg, i, slabs.CLUSTER) else _end(reg, i)
    if st.low[0]:
        return to_zone(reg, i, phases.FREE_ITEM, z)
    return to_internal(reg, i, bucket_zone(st, st.zone[z, slabs.Z_COUNT]), phases.ADD_BUCKET)
