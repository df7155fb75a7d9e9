"""Zones of DragonFly's slab allocator of 2020, and the lists they are on. See `allocators/dfly_slab_2020`."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators._shared import dfly_zones
from kmemexp.sim.allocators._shared.dfly_slab_layout import CHUNK, MIN_CHUNK_SHIFT, N_MAX, NZONES
from kmemexp.sim.allocators._shared.dfly_zones import (
    FREE_ZONES,
    FREE_ZONES_COUNT,
    KLASS,
    N_FREE,
    NEXT,
    NIL,
    PREV,
    fresh_chunk,
    lay_out,
)
from kmemexp.sim.allocators._shared.slab_lists import push, unlink
from kmemexp.sim.allocators._shared.slab_order import FULLEST, insert
from kmemexp.sim.allocators.dfly_slab_2020.state import State
from kmemexp.sim.asking import hand_out
from kmemexp.sim.slots import DONE
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

# Further columns of State.zone. Chunks are named by the place where they begin in their zone, in units of 8 bytes.
LOCAL_HEAD = dfly_zones.ZONE_COLUMNS  # freed chunks (z_LChunks)
LOCAL_TAIL = LOCAL_HEAD + 1
REMOTE_HEAD = LOCAL_HEAD + 2  # chunks freed on other CPUs (z_RChunks)
REMOTE_TAIL = LOCAL_HEAD + 3
REMOTE = LOCAL_HEAD + 4  # how many they are
SIGNAL = LOCAL_HEAD + 5  # 1: the CPU that frees the first of them must send an IPI (z_RSignal)
IN_FLIGHT = LOCAL_HEAD + 6  # such IPIs under way (z_RCount)
ZONE_COLUMNS = LOCAL_HEAD + 7
LINKS = (NEXT, PREV)
LISTED = (PREV, NEXT, N_FREE)  # what a sorted list goes by: zones are taken from the tail

# Further columns of State.cpu. FREE_ZONES is the newest of the wholly free zones.
FREE_ZONES_LAST = dfly_zones.CPU_COLUMNS  # the oldest
FREE_OVER_LAST = FREE_ZONES_LAST + 1  # of FreeOvZones
CPU_COLUMNS = FREE_ZONES_LAST + 2


@kernel
def take(st: State, reg: Registers, i: int, zone: int, klass: int) -> int:
    """Hand out a chunk of a zone that has one."""
    if is_last(st, zone) and st.zone[zone, REMOTE] > 0:
        st.zone[zone, N_FREE] = 0
        reg[i, regs.WORK] = _gather(st, zone)
        st.zone[zone, SIGNAL] = 0
        _gained(st, reg, i, zone, klass)
        return hand_out(reg, i, _pop(st, zone, klass), st.klass[klass, CHUNK])
    return hand_out(reg, i, take_local(st, zone, reg[i, regs.CPU], klass), st.klass[klass, CHUNK])


@kernel
def is_last(st: State, zone: int) -> bool:
    """Whether a zone has a single chunk, without those freed on other CPUs."""
    return st.zone[zone, N_FREE] == 1


@kernel
def take_local(st: State, zone: int, cpu: int, klass: int) -> int:
    """Take a chunk of a zone; with the last one it leaves its list, as there is nothing to take over."""
    if is_last(st, zone):
        st.zone[zone, SIGNAL] = 1
        _unlink(st, zone, cpu, klass)
    st.zone[zone, N_FREE] -= 1
    return _pop(st, zone, klass)


@kernel
def _pop(st: State, zone: int, klass: int) -> int:
    """Address of the chunk freed last, else of one never used."""
    unit = wide(st.zone[zone, LOCAL_HEAD])
    if unit == NIL:
        return fresh_chunk(st, zone, klass)
    st.zone[zone, LOCAL_HEAD] = st.link[zone, unit]
    return (zone << st.zone_shift) + (unit << MIN_CHUNK_SHIFT)


@kernel
def put(st: State, reg: Registers, i: int, zone: int, unit: int) -> None:
    """Give a chunk back to its zone, on the CPU that owns the zone."""
    klass = _put(st, zone, unit)
    if st.zone[zone, N_FREE] == 1:
        _push(st, reg, i, zone, klass)
    else:
        _gained(st, reg, i, zone, klass)
    _retire(st, zone, reg[i, regs.CPU], klass)


@kernel
def put_unsorted(st: State, zone: int, cpu: int, unit: int) -> None:
    """Do what `put` does, where lists have their own order."""
    klass = _put(st, zone, unit)
    if st.zone[zone, N_FREE] == 1:
        _push_first(st, zone, cpu, klass)
    _retire(st, zone, cpu, klass)


@kernel
def _put(st: State, zone: int, unit: int) -> int:
    """Push a chunk on its zone. Returns the zone's class."""
    _push_chunk(st, zone, unit, LOCAL_HEAD, LOCAL_TAIL)
    st.zone[zone, N_FREE] += 1
    return wide(st.zone[zone, KLASS])


@kernel
def _push_chunk(st: State, zone: int, unit: int, head: int, tail: int) -> None:
    """Put a chunk at the head of one of its zone's two lists."""
    if st.zone[zone, head] == NIL:
        st.zone[zone, tail] = unit
    st.link[zone, unit] = st.zone[zone, head]
    st.zone[zone, head] = unit


@kernel
def tells(st: State, zone: int) -> bool:
    """Whether the owner must be told of a chunk that is given back on another CPU."""
    return st.zone[zone, REMOTE_HEAD] == NIL and st.zone[zone, SIGNAL] != 0


@kernel
def put_remote(st: State, zone: int, unit: int) -> None:
    """Give a chunk back on another CPU."""
    _push_chunk(st, zone, unit, REMOTE_HEAD, REMOTE_TAIL)
    st.zone[zone, REMOTE] += 1


@kernel
def signalled(st: State, reg: Registers, i: int, zone: int) -> int:
    """Take over what others have freed, on the owner's CPU: kfree_remote()."""
    cpu = reg[i, regs.CPU]
    klass = wide(st.zone[zone, KLASS])
    st.zone[zone, IN_FLIGHT] -= 1
    if st.zone[zone, REMOTE] > 0:
        st.zone[zone, SIGNAL] = 0
        listed = st.zone[zone, N_FREE] > 0
        reg[i, regs.WORK] = _gather(st, zone)
        if listed:
            _gained(st, reg, i, zone, klass)
        else:
            _push(st, reg, i, zone, klass)
    _retire(st, zone, cpu, klass)
    return DONE


@kernel
def _gather(st: State, zone: int) -> int:
    """Put the chunks freed elsewhere behind the others: clean_zone_rchunks(). Returns how many; there are some."""
    head = st.zone[zone, REMOTE_HEAD]
    if st.zone[zone, LOCAL_HEAD] == NIL:
        st.zone[zone, LOCAL_HEAD] = head
    else:
        st.link[zone, wide(st.zone[zone, LOCAL_TAIL])] = head
    st.zone[zone, LOCAL_TAIL] = st.zone[zone, REMOTE_TAIL]
    chunks = wide(st.zone[zone, REMOTE])
    st.zone[zone, N_FREE] += chunks
    st.zone[zone, REMOTE_HEAD] = NIL
    st.zone[zone, REMOTE] = 0
    return chunks


@outlined
def sweep(st: State, reg: Registers, i: int) -> None:
    """Go through the zones of a CPU: slab_cleanup(). The zones and chunks looked at are work."""
    cpu = reg[i, regs.CPU]
    for klass in range(NZONES):
        zone = wide(st.zone_first[cpu, klass])
        while zone != NIL:
            after = wide(st.zone[zone, NEXT])
            reg[i, regs.WORK] += 1
            if st.zone[zone, REMOTE] > 0:
                reg[i, regs.WORK] += _gather(st, zone)
                _gained(st, reg, i, zone, klass)
            _retire(st, zone, cpu, klass)
            zone = after


@kernel
def _retire(st: State, zone: int, cpu: int, klass: int) -> None:
    """Put a zone on FreeZones if it is wholly free, not the only one on its list, and no IPI is on its way to it."""
    if st.zone[zone, N_FREE] < st.klass[klass, N_MAX] or st.zone[zone, IN_FLIGHT] > 0:
        return
    if st.zone[zone, NEXT] == NIL and st.zone[zone, PREV] == NIL:
        return
    _unlink(st, zone, cpu, klass)
    newest = st.cpu[cpu, FREE_ZONES]
    push(st.zone, LINKS, zone, newest)
    if newest == NIL:
        st.cpu[cpu, FREE_ZONES_LAST] = zone
    st.cpu[cpu, FREE_ZONES] = zone
    st.cpu[cpu, FREE_ZONES_COUNT] += 1


@kernel
def off_free_zones(st: State, cpu: int, zone: int) -> None:
    """Take the newest or the oldest zone off FreeZones."""
    before, after = unlink(st.zone, LINKS, zone)
    if before == NIL:
        st.cpu[cpu, FREE_ZONES] = after
    if after == NIL:
        st.cpu[cpu, FREE_ZONES_LAST] = before
    st.cpu[cpu, FREE_ZONES_COUNT] -= 1


@kernel
def _push(st: State, reg: Registers, i: int, zone: int, klass: int) -> None:
    """Put a zone at the head of a class's list, or where a sorted one wants it."""
    cpu = reg[i, regs.CPU]
    if st.p.slab_order:
        _insert(st, reg, i, zone, klass, NIL, wide(st.zone_last[cpu, klass]))
    else:
        _push_first(st, zone, cpu, klass)


@kernel
def _push_first(st: State, zone: int, cpu: int, klass: int) -> None:
    """Put a zone at the head of a class's list."""
    after = wide(st.zone_first[cpu, klass])
    push(st.zone, LINKS, zone, after)
    if after == NIL:
        st.zone_last[cpu, klass] = zone
    st.zone_first[cpu, klass] = zone


@kernel
def _gained(st: State, reg: Registers, i: int, zone: int, klass: int) -> None:
    """Move a listed zone, which has more free chunks than before, if its list is sorted by that."""
    if st.p.slab_order == FULLEST:
        before, after = _unlink(st, zone, reg[i, regs.CPU], klass)
        _insert(st, reg, i, zone, klass, after, before)


@kernel
def _insert(st: State, reg: Registers, i: int, zone: int, klass: int, before: int, after: int) -> None:
    """Put a zone into its class's sorted list, from between two neighbours on."""
    if insert(reg, i, st.zone, LISTED, st.p.slab_order, zone, before, after) == NIL:
        st.zone_last[reg[i, regs.CPU], klass] = zone
    if st.zone[zone, PREV] == NIL:
        st.zone_first[reg[i, regs.CPU], klass] = zone


@kernel
def _unlink(st: State, zone: int, cpu: int, klass: int) -> tuple[int, int]:
    """Take a zone off a class's list. Returns its neighbours."""
    before, after = unlink(st.zone, LINKS, zone)
    if before == NIL:
        st.zone_first[cpu, klass] = after
    if after == NIL:
        st.zone_last[cpu, klass] = before
    return before, after


@kernel
def begin_zone(st: State, reg: Registers, i: int, zone: int, klass: int) -> int:
    """Serve a request from a new or reused zone, and put that on the list."""
    st.zone[zone] = NIL
    answer = lay_out(st, reg, i, zone, klass)
    st.zone[zone, REMOTE] = 0
    st.zone[zone, SIGNAL] = 0
    st.zone[zone, IN_FLIGHT] = 0
    _push(st, reg, i, zone, klass)
    return answer
