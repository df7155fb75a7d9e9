"""Where a range is placed: first fit in the rehearsal, then where it keeps superpages in use for the least longer."""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Address, Bytes, MapNo
from kmemexp.sim.arenas._shared import hole_list
from kmemexp.sim.arenas._shared.powers import round_up
from kmemexp.sim.arenas.foreseen.state import NOW, State
from kmemexp.sim.slots import NO_SPACE

PLACES = 3  # tried in a hole: its low end, its first superpage border, its high end


@kernel
def first_fit(st: State, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """Address of the lowest hole where a request fits, at its low end; NO_SPACE. Nothing is taken yet."""
    h = st.hole[map_no, hole_list.NEXT]
    while h != map_no:
        addr = round_up(st.hole[h, hole_list.START], align)
        if addr + nbytes <= st.hole[h, hole_list.END]:
            return addr
        st.maps[map_no, hole_list.WALKED] += 1
        h = st.hole[h, hole_list.NEXT]
    return NO_SPACE


@kernel
def cheapest(st: State, map_no: MapNo, nbytes: Bytes, align: int, dies: int) -> int:
    """Address that adds least to the time that superpages are in use, for a range that goes back at `dies`."""
    found, least, slack, size = NO_SPACE, 0, 0, 0
    h = st.hole[map_no, hole_list.NEXT]
    while h != map_no:
        start, end = st.hole[h, hole_list.START], st.hole[h, hole_list.END]
        for place in range(PLACES):
            addr = place_in(start, end, nbytes, align, st.shift, place)
            if addr >= 0:
                more, spare = added(st, addr, nbytes, dies), left(st, addr, nbytes, dies)
                better = more < least or (more == least and (spare < slack or (spare == slack and end - start < size)))
                if found < 0 or better:
                    found, least, slack, size = addr, more, spare, end - start
        st.maps[map_no, hole_list.WALKED] += 1
        h = st.hole[h, hole_list.NEXT]
    return found


@kernel
def place_in(start: Address, end: Address, nbytes: Bytes, align: int, shift: int, place: int) -> int:
    """Address of a request at one of the places of the hole [start, end); negative: it has no room there."""
    if place == 0:
        addr = round_up(start, align)
    elif place == 1:
        addr = round_up(round_up(start, 1 << shift), align)
    else:
        addr = (end - nbytes) // align * align
    return addr if start <= addr and addr + nbytes <= end else -1


@kernel
def added(st: State, addr: Address, nbytes: Bytes, dies: int) -> int:
    """Map calls by which the superpages of a range stay in use longer than they would without it."""
    more = 0
    for superpage in range(addr >> st.shift, ((addr + nbytes - 1) >> st.shift) + 1):
        more += max(dies - max(st.busy[superpage], st.clock[NOW]), 0)
    return more


@kernel
def left(st: State, addr: Address, nbytes: Bytes, dies: int) -> int:
    """Map calls by which the superpages of a range stay in use longer than it does."""
    spare = 0
    for superpage in range(addr >> st.shift, ((addr + nbytes - 1) >> st.shift) + 1):
        spare += max(st.busy[superpage] - dies, 0)
    return spare


@kernel
def taken_at(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, dies: int) -> bool:
    """Take [addr, addr + nbytes), which goes back at `dies` as far as is known. False: it is not free."""
    h = st.hole[map_no, hole_list.NEXT]
    while h != map_no and st.hole[h, hole_list.END] < addr + nbytes:
        h = st.hole[h, hole_list.NEXT]
    if h == map_no or st.hole[h, hole_list.START] > addr:
        return False
    hole_list.cut(st, map_no, h, addr, nbytes)  # type: ignore[arg-type]  # a State with more fields
    for superpage in range(addr >> st.shift, ((addr + nbytes - 1) >> st.shift) + 1):
        st.busy[superpage] = max(st.busy[superpage], dies)
    return True
