"""Wholly free zones of `slab_by_need`: each CPU keeps some on a list, of all sizes, for its classes or the map."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators._shared import dfly_zones
from kmemexp.sim.allocators._shared.dfly_zones import unmap_oversize
from kmemexp.sim.allocators.slab_by_need import state as u
from kmemexp.sim.allocators.slab_by_need.state import State
from kmemexp.sim.allocators.slab_by_need.zones import enter_pages, held_around, hold, zone_bytes
from kmemexp.sim.asking import ask_unmap
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide


@outlined
def pop(st: State, reg: Registers, i: int, cpu: int, level: int) -> int:
    """Take a wholly free zone of a level off the CPU's list, with `drain` the fullest superpage's, or NIL."""
    best = before_best = before = dfly_zones.NIL
    zone = st.cpu[cpu, dfly_zones.FREE_ZONES]
    while zone != dfly_zones.NIL:
        if st.zone[zone, u.LEVEL] == level and (
            best == dfly_zones.NIL or held_around(st, zone) > held_around(st, best)
        ):
            best, before_best = zone, before
            if not st.p.drain:
                break
        before = zone
        zone = wide(st.zone[zone, dfly_zones.NEXT])
        reg[i, regs.WORK] += 1
    if best != dfly_zones.NIL:
        _take_out(st, cpu, best, before_best)
    return best


@outlined
def release(st: State, reg: Registers, i: int, phase: int, cpu: int) -> int:
    """Unmap a zone of the CPU's list, which has one: its head, or with `drain` that of the emptiest superpage."""
    best, before_best = st.cpu[cpu, dfly_zones.FREE_ZONES], dfly_zones.NIL
    if st.p.drain:
        before, zone = best, wide(st.zone[best, dfly_zones.NEXT])
        while zone != dfly_zones.NIL:
            if held_around(st, zone) < held_around(st, best):
                best, before_best = zone, before
            before, zone = zone, wide(st.zone[zone, dfly_zones.NEXT])
            reg[i, regs.WORK] += 1
    _take_out(st, cpu, best, before_best)
    st.zone[best, dfly_zones.OWNER] = 0
    nbytes = zone_bytes(st, best)
    enter_pages(st, best, wide(st.zone[best, u.LEVEL]), 0)
    hold(st, best << PAGE_SHIFT, nbytes, -1)
    return ask_unmap(reg, i, phase, st.map_number, best << PAGE_SHIFT, nbytes)


@kernel
def _take_out(st: State, cpu: int, zone: int, before: int) -> None:
    """Take a zone off the CPU's list, on which it stands behind `before`, NIL: at the head."""
    if before == dfly_zones.NIL:
        st.cpu[cpu, dfly_zones.FREE_ZONES] = st.zone[zone, dfly_zones.NEXT]
    else:
        st.zone[before, dfly_zones.NEXT] = st.zone[zone, dfly_zones.NEXT]
    st.cpu[cpu, dfly_zones.FREE_ZONES_COUNT] -= 1 << wide(st.zone[zone, u.LEVEL])


@kernel
def unmap_block(st: State, reg: Registers, i: int, phase: int, page: int) -> int:
    """Unmap an oversize block."""
    hold(st, page << PAGE_SHIFT, wide(st.over[page, dfly_zones.OVER_PAGES]) << PAGE_SHIFT, -1)
    return unmap_oversize(st, reg, i, phase, page)
