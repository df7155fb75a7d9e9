"""What DragonFly's slab allocator of 2003 (`dfly_slab.py`) gives back to the map: FreeZones, oversize blocks."""

from typing import Any

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators._shared import dfly_zones
from kmemexp.sim.allocators._shared.dfly_zones import unmap_oversize, unmap_zone
from kmemexp.sim.slots import DONE, PAGE_SHIFT
from kmemexp.sim.tables import flag, regs
from kmemexp.sim.widths import wide

UNMAP_IN_FREE = 5  # regs.CALL


@kernel
def pop_free_zone(st: Any, cpu: int) -> int:
    """Take the head of FreeZones, which there is."""
    zone = st.cpu[cpu, dfly_zones.FREE_ZONES]
    st.cpu[cpu, dfly_zones.FREE_ZONES] = st.zone[zone, dfly_zones.NEXT]
    st.cpu[cpu, dfly_zones.FREE_ZONES_COUNT] -= 1
    return zone


@kernel
def release_zone(st: Any, reg: Registers, i: int, phase: int) -> int:
    """Unmap the head of FreeZones."""
    return unmap_zone(st, reg, i, phase, pop_free_zone(st, reg[i, regs.CPU]))


@kernel
def release_older(st: Any, reg: Registers, i: int) -> int:
    """Unmap the zone behind the head of FreeZones, which has just been put there: free() of 27 August 2003.

    The head itself where no zone may be kept.
    """
    cpu = reg[i, regs.CPU]
    head = st.cpu[cpu, dfly_zones.FREE_ZONES]
    zone = wide(st.zone[head, dfly_zones.NEXT])
    reg[i, regs.CALL] = UNMAP_IN_FREE
    if zone == dfly_zones.NIL:
        return release_zone(st, reg, i, dfly_zones.RELEASING)
    st.zone[head, dfly_zones.NEXT] = st.zone[zone, dfly_zones.NEXT]
    st.cpu[cpu, dfly_zones.FREE_ZONES_COUNT] -= 1
    return unmap_zone(st, reg, i, dfly_zones.RELEASING, zone)


@kernel
def free_oversize(st: Any, reg: Registers, i: int) -> int:
    """Unmap an oversize block, or put it on FreeOvZones where the caller must not block on the map."""
    page = reg[i, regs.ADDR] >> PAGE_SHIFT
    queues = (0, flag.HARD, flag.SOFT | flag.HARD)[st.p.queue_oversize]
    if reg[i, regs.FLAGS] & queues == 0:
        reg[i, regs.CALL] = dfly_zones.UNMAP_BLOCK
        return unmap_oversize(st, reg, i, dfly_zones.OVERSIZE, page)
    dfly_zones.put_off(st, reg[i, regs.CPU], page)
    return DONE
