"""Evacuation in `slab_by_need`: chunks that may move leave zones that are nearly empty, a few at each tick.

Of the zones that are sparse, and whose chunks find room in other zones of their list, that of the emptiest superpage
is emptied first. The owner of an object may refuse (it is being freed); then nothing more is moved in this tick. A move
is charged as work: the zones that are looked at, and an item for each 16 bytes that are copied, which with the 16 ns of
conf/cost/opteron2003.yaml is 1 GB/s (ASSUMPTION: a copy that misses the cache). It needs no shootdown; that comes with
the unmapping of a zone, in which it is charged.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators._shared import dfly_slab_layout, dfly_zones
from kmemexp.sim.allocators._shared.dfly_zones import chunk_at
from kmemexp.sim.allocators.slab_by_need import state as u
from kmemexp.sim.allocators.slab_by_need.idle import release
from kmemexp.sim.allocators.slab_by_need.state import State
from kmemexp.sim.allocators.slab_by_need.zones import NZONES, held_around, put, relist, take
from kmemexp.sim.asking import go_on
from kmemexp.sim.slots import DONE, MOVE, PAGE_SHIFT, TEND_REAP
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

COPIED = 16  # bytes that cost as much as an item

# regs.PHASE, beyond those of dfly_zones.
SEEKING = dfly_zones.OVERSIZE + 1  # a zone to empty, or the next of its chunks, is looked for
MOVED = dfly_zones.OVERSIZE + 2  # the owner has answered
RELEASE = dfly_zones.OVERSIZE + 3  # what each CPU has beyond regs.X pages of wholly free zones goes back


@outlined
def tend_step(st: State, reg: Registers, i: int) -> int:
    """Play one step of the upkeep: at a tick the evacuation, when memory or a superpage is short all idle zones."""
    phase = reg[i, regs.PHASE]
    if phase == 0:
        if reg[i, regs.SIZE] == TEND_REAP:
            return _release_all(reg, i, 0)
        if st.p.moves == 0:
            return _release_all(reg, i, 0) if _opened(st) else DONE
        st.task[u.VICTIM], st.task[u.LEFT] = dfly_zones.NIL, st.p.moves
        return go_on(reg, i, SEEKING, 0)
    reg[i, regs.LOCK] = 0
    if phase == RELEASE:
        return _release_more(st, reg, i)
    if phase == MOVED:
        _end_move(st, reg, i)
    return _next_move(st, reg, i)


@kernel
def _opened(st: State) -> bool:
    """Whether this tick is to release all wholly free zones; asked once a tick."""
    st.task[u.SINCE] += 1
    if st.task[u.OPENED] == 0 or st.task[u.SINCE] < st.p.trim_ticks:
        return False
    st.task[u.OPENED] = st.task[u.SINCE] = 0
    return True


@kernel
def _kept(st: State) -> int:
    """Pages of wholly free zones that a CPU may keep at the end of this tick."""
    return 0 if _opened(st) else st.p.release_threshold


@kernel
def _release_all(reg: Registers, i: int, kept: int) -> int:
    """Begin to give wholly free zones back, one CPU after the other."""
    reg[i, regs.CPU] = 0
    reg[i, regs.X] = kept
    return go_on(reg, i, RELEASE, 0)


@kernel
def _release_more(st: State, reg: Registers, i: int) -> int:
    """Give a zone of the CPU back, or go on to the next one."""
    cpu = reg[i, regs.CPU]
    if st.cpu[cpu, dfly_zones.FREE_ZONES_COUNT] > reg[i, regs.X]:
        return release(st, reg, i, RELEASE, cpu)
    if cpu + 1 == len(st.cpu):
        return DONE
    reg[i, regs.CPU] += 1
    return go_on(reg, i, RELEASE, 0)


@kernel
def _next_move(st: State, reg: Registers, i: int) -> int:
    """Ask for the next move of this tick; when it is over, give back what the moves have emptied."""
    if st.task[u.LEFT] == 0:
        return _release_all(reg, i, _kept(st))
    victim = st.task[u.VICTIM]
    if victim == dfly_zones.NIL or not _sparse(st, victim) or not _find_chunk(st, reg, i):
        st.task[u.VICTIM] = victim = _find_victim(st, reg, i)
        st.task[u.CHUNK_AT] = 0
        if victim == dfly_zones.NIL:
            return _release_all(reg, i, _kept(st))
        _find_chunk(st, reg, i)
    return _move(st, reg, i, victim)


@kernel
def _sparse(st: State, zone: int) -> bool:
    """Whether a zone has chunks that may move, and so few of them that it is worth emptying."""
    if st.zone[zone, dfly_zones.OWNER] == 0 or st.zone[zone, u.LIST] < NZONES:
        return False
    most = st.klass[st.zone[zone, dfly_zones.KLASS], dfly_slab_layout.N_MAX]
    live = most - wide(st.zone[zone, dfly_zones.N_FREE])
    return live > 0 and live * 100 <= most * st.p.sparse_percent


@outlined
def _find_victim(st: State, reg: Registers, i: int) -> int:
    """Find the sparse zone of the emptiest superpage whose chunks have room elsewhere; NIL: there is none."""
    best = dfly_zones.NIL
    for cpu in range(len(st.cpu)):
        for which in range(NZONES, u.LISTS * NZONES):
            room, zone = 0, wide(st.zone_ary[cpu, which])
            while zone != dfly_zones.NIL:
                room += wide(st.zone[zone, dfly_zones.N_FREE])
                zone = wide(st.zone[zone, dfly_zones.NEXT])
                reg[i, regs.WORK] += 1
            zone = wide(st.zone_ary[cpu, which])
            while zone != dfly_zones.NIL:
                most = st.klass[st.zone[zone, dfly_zones.KLASS], dfly_slab_layout.N_MAX]
                if (
                    _sparse(st, zone)
                    and room - wide(st.zone[zone, dfly_zones.N_FREE]) >= most - wide(st.zone[zone, dfly_zones.N_FREE])
                    and (best == dfly_zones.NIL or held_around(st, zone) < held_around(st, best))
                ):
                    best = zone
                zone = wide(st.zone[zone, dfly_zones.NEXT])
    return best


@kernel
def _find_chunk(st: State, reg: Registers, i: int) -> bool:
    """Find the victim's next chunk that is handed out. False: there is none."""
    victim, at = st.task[u.VICTIM], st.task[u.CHUNK_AT]
    most = st.klass[st.zone[victim, dfly_zones.KLASS], dfly_slab_layout.N_MAX]
    while at < most and st.word[victim * st.page_words + at] <= 0:
        at += 1
    st.task[u.CHUNK_AT] = at
    return at < most


@kernel
def _move(st: State, reg: Registers, i: int, victim: int) -> int:
    """Give the victim's chunk a place in the fullest superpage of its list, and ask its owner."""
    cpu, which = wide(st.zone[victim, dfly_zones.OWNER]) - 1, wide(st.zone[victim, u.LIST])
    best, zone = dfly_zones.NIL, wide(st.zone_ary[cpu, which])
    while zone != dfly_zones.NIL:
        if zone != victim and (best == dfly_zones.NIL or held_around(st, zone) > held_around(st, best)):
            best = zone
        zone = wide(st.zone[zone, dfly_zones.NEXT])
        reg[i, regs.WORK] += 1
    if best == dfly_zones.NIL:  # others have taken the room meanwhile
        return _release_all(reg, i, _kept(st))
    shape = wide(st.zone[victim, dfly_zones.KLASS])
    owner = wide(st.word[victim * st.page_words + st.task[u.CHUNK_AT]]) - 1
    st.task[u.SOURCE] = chunk_at(st, victim, shape, st.task[u.CHUNK_AT])
    st.task[u.TARGET] = take(st, best, cpu, owner)
    st.task[u.LEFT] -= 1
    reg[i, regs.OBJECT] = owner
    reg[i, regs.ADDR] = st.task[u.SOURCE]
    reg[i, regs.BASE] = st.task[u.TARGET]
    reg[i, regs.WORK] += st.klass[shape, dfly_slab_layout.CHUNK] // COPIED
    reg[i, regs.PHASE] = MOVED
    return MOVE


@kernel
def _end_move(st: State, reg: Registers, i: int) -> None:
    """Give the chunk back that is not in use now. A refusal ends this tick."""
    gone = st.task[u.SOURCE]
    if reg[i, regs.BASE] < 0:
        gone = st.task[u.TARGET]
        st.task[u.REFUSED] += 1
        st.task[u.LEFT] = 0
    else:
        st.task[u.DONE] += 1
    zone = wide(st.zone_of[gone >> PAGE_SHIFT]) - 1
    cpu = wide(st.zone[zone, dfly_zones.OWNER]) - 1
    put(st, zone, cpu, gone)
    shape = wide(st.zone[zone, dfly_zones.KLASS])
    st.task[u.EMPTIED] += (
        zone == st.task[u.VICTIM] and st.zone[zone, dfly_zones.N_FREE] == st.klass[shape, dfly_slab_layout.N_MAX]
    )
    relist(st, zone, cpu)
