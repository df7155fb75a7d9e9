"""Zones of `slab_by_need`: chunks in them, lists of them, which one is used next and how large new ones are."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Bytes, Registers
from kmemexp.sim.allocators._shared import dfly_slab_layout, dfly_zones
from kmemexp.sim.allocators._shared.dfly_zones import chunk_at, fresh_chunk, lay_out
from kmemexp.sim.allocators._shared.slab_lists import leave, push
from kmemexp.sim.allocators.dfly_slab import RECIPROCAL, RECIPROCAL_SHIFT
from kmemexp.sim.allocators.slab_by_need import state as u
from kmemexp.sim.allocators.slab_by_need.state import State
from kmemexp.sim.slots import PAGE, PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

LISTED = (dfly_zones.NEXT, dfly_zones.PREV, dfly_zones.N_FREE)
NZONES = dfly_slab_layout.NZONES


@kernel
def list_of(st: State, klass: int, item: int) -> int:
    """List that serves a class for an item: one of zones whose chunks stay, or of those whose chunks may move."""
    moves = st.p.movable == 2 or (st.p.movable == 1 and item >= 0)
    return klass + NZONES * moves


@kernel
def level_for(st: State, cpu: int, which: int) -> int:
    """Level of the next zone of a list, by its live bytes; it stays as it is between the two thresholds."""
    live, level = wide(st.dense[cpu, which, u.LIVE]), wide(st.dense[cpu, which, u.CHOSEN])
    klass = which % NZONES
    while level < st.bounds[klass, 1] and live >= st.p.grow * (PAGE << (level + 1)):
        level += 1
    while level > st.bounds[klass, 0] and live < st.p.shrink * (PAGE << level):
        level -= 1
    st.dense[cpu, which, u.CHOSEN] = level
    return level


@kernel
def zone_bytes(st: State, zone: int) -> int:
    return PAGE << wide(st.zone[zone, u.LEVEL])


@kernel
def begin_zone(st: State, reg: Registers, i: int, zone: int, level: int, which: int) -> int:
    """Serve a request from a new or reused zone, and put that on the list."""
    cpu = reg[i, regs.CPU]
    answer = lay_out(st, reg, i, zone, level * NZONES + which % NZONES)
    pages = 1 << level
    st.zone[zone, u.FIRST_FREE_PAGE] = pages
    st.zone[zone, u.LIST] = which
    st.zone[zone, u.LEVEL] = level
    for page in range(zone, zone + pages):
        st.page_head[page] = dfly_zones.NIL
    enter(st, zone, cpu, which)
    _given(st, zone, cpu, which, reg[i, regs.ADDR], reg[i, regs.OBJECT])
    return answer


@kernel
def take(st: State, zone: int, cpu: int, owner: int) -> int:
    """Address of a chunk from a zone of the CPU that has one, for object `owner`. A full zone leaves its list."""
    which = wide(st.zone[zone, u.LIST])
    st.zone[zone, dfly_zones.N_FREE] -= 1
    if st.zone[zone, dfly_zones.N_FREE] == 0:
        unlink(st, zone, cpu, which)
    addr = _chunk(st, zone)
    _given(st, zone, cpu, which, addr, owner)
    return addr


@kernel
def _given(st: State, zone: int, cpu: int, which: int, addr: Address, owner: int) -> None:
    """Account for a chunk that is handed out, and note whose it is if it may move."""
    shape = wide(st.zone[zone, dfly_zones.KLASS])
    st.dense[cpu, which, u.LIVE] += st.klass[shape, dfly_slab_layout.CHUNK]
    if which >= NZONES:
        st.word[zone * st.page_words + index_of(st, zone, addr)] = owner + 1


@kernel
def _chunk(st: State, zone: int) -> int:
    """Take the chunk that was freed last in the lowest page, or one that was never used."""
    shape = wide(st.zone[zone, dfly_zones.KLASS])
    pages = 1 << wide(st.zone[zone, u.LEVEL])
    page = wide(st.zone[zone, u.FIRST_FREE_PAGE])
    while page < pages:
        index = wide(st.page_head[zone + page])
        if index != dfly_zones.NIL:
            st.page_head[zone + page] = -2 - wide(st.word[zone * st.page_words + index])
            st.zone[zone, u.FIRST_FREE_PAGE] = page
            return chunk_at(st, zone, shape, index)
        page += 1
    st.zone[zone, u.FIRST_FREE_PAGE] = pages
    return fresh_chunk(st, zone, shape)


@kernel
def index_of(st: State, zone: int, addr: Address) -> int:
    """Number of a chunk in its zone."""
    shape = wide(st.zone[zone, dfly_zones.KLASS])
    inside = addr - (zone << PAGE_SHIFT) - st.klass[shape, dfly_slab_layout.OFFSET]
    return (inside * st.klass[shape, RECIPROCAL]) >> RECIPROCAL_SHIFT


@kernel
def put(st: State, zone: int, cpu: int, addr: Address) -> None:
    """Give a chunk back to its zone, which is the CPU's."""
    index, page = index_of(st, zone, addr), addr >> PAGE_SHIFT
    st.word[zone * st.page_words + index] = -2 - wide(st.page_head[page])
    st.page_head[page] = index
    st.zone[zone, u.FIRST_FREE_PAGE] = min(st.zone[zone, u.FIRST_FREE_PAGE], page - zone)
    st.zone[zone, dfly_zones.N_FREE] += 1
    shape = wide(st.zone[zone, dfly_zones.KLASS])
    st.dense[cpu, st.zone[zone, u.LIST], u.LIVE] -= st.klass[shape, dfly_slab_layout.CHUNK]


@kernel
def relist(st: State, zone: int, cpu: int) -> None:
    """Put a zone that has got a chunk back on its list, or on FreeZones if it is wholly free."""
    which, shape = wide(st.zone[zone, u.LIST]), wide(st.zone[zone, dfly_zones.KLASS])
    if st.zone[zone, dfly_zones.N_FREE] == 1:
        enter(st, zone, cpu, which)
    if st.zone[zone, dfly_zones.N_FREE] != st.klass[shape, dfly_slab_layout.N_MAX]:
        return
    alone = st.zone_ary[cpu, which] == zone and st.zone[zone, dfly_zones.NEXT] == dfly_zones.NIL
    if not (alone and st.p.keep_last):
        unlink(st, zone, cpu, which)
        st.zone[zone, dfly_zones.NEXT] = st.cpu[cpu, dfly_zones.FREE_ZONES]
        st.cpu[cpu, dfly_zones.FREE_ZONES] = zone
        st.cpu[cpu, dfly_zones.FREE_ZONES_COUNT] += 1 << wide(st.zone[zone, u.LEVEL])


@kernel
def held_around(st: State, zone: int) -> int:
    """Bytes that the allocator holds in the superpage of a zone."""
    return wide(st.held[(zone << PAGE_SHIFT) >> st.superpage_shift])


@kernel
def enter(st: State, zone: int, cpu: int, which: int) -> None:
    """Put a zone at the head of its list; with `drain` behind a head that lies in a fuller superpage."""
    head = wide(st.zone_ary[cpu, which])
    if st.p.drain and head != dfly_zones.NIL and held_around(st, head) > held_around(st, zone):
        push(st.zone, LISTED, zone, wide(st.zone[head, dfly_zones.NEXT]))
        st.zone[head, dfly_zones.NEXT] = zone
        st.zone[zone, dfly_zones.PREV] = head
    else:
        push(st.zone, LISTED, zone, head)
        st.zone_ary[cpu, which] = zone


@kernel
def unlink(st: State, zone: int, cpu: int, which: int) -> None:
    """Take a zone off its list."""
    st.zone_ary[cpu, which] = leave(st.zone, LISTED, zone, wide(st.zone_ary[cpu, which]))


@outlined
def choose(st: State, reg: Registers, i: int, cpu: int, which: int) -> int:
    """Bring the zone that lies in the fullest superpage to the head, of the first `look` of a list that has some."""
    best = zone = wide(st.zone_ary[cpu, which])
    looked = 1
    while looked < st.p.look and zone != dfly_zones.NIL:
        if held_around(st, zone) > held_around(st, best):
            best = zone
        zone = wide(st.zone[zone, dfly_zones.NEXT])
        looked += 1
        reg[i, regs.WORK] += 1
    if best != st.zone_ary[cpu, which]:
        unlink(st, best, cpu, which)
        push(st.zone, LISTED, best, wide(st.zone_ary[cpu, which]))
        st.zone_ary[cpu, which] = best
    return best


@kernel
def opens(st: State, addr: Address, nbytes: Bytes) -> bool:
    """Whether a range begins or ends in a superpage that the allocator holds less of than `trim_percent`."""
    least = (st.p.trim_percent << st.superpage_shift) // 100
    return held_around(st, addr >> PAGE_SHIFT) < least or held_around(st, (addr + nbytes - 1) >> PAGE_SHIFT) < least


@kernel
def hold(st: State, addr: Address, nbytes: Bytes, sign: int) -> None:
    """Account for a zone or block that is mapped (+1) or unmapped (-1), in each superpage that it touches."""
    end = addr + nbytes
    while addr < end:
        number = addr >> st.superpage_shift
        border = min((number + 1) << st.superpage_shift, end)
        st.held[number] += sign * (border - addr)
        addr = border


@kernel
def enter_pages(st: State, zone: int, level: int, name: int) -> None:
    """Name the zone of its pages: 1 + zone, or 0 when it goes."""
    for page in range(zone, zone + (1 << level)):
        st.zone_of[page] = name
