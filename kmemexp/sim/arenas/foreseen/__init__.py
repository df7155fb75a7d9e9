"""Placement that knows when each range will be given back. A reference, and no design: no kernel can have it.

It says how much placement alone could win: less than the compaction bound, which no placement reaches, and more than
anything that has to guess. What it knows comes from a rehearsal: the lane is simulated twice. The first time ranges are
placed by first fit, and of each request is written down when it came and when the last part of its range went back, on
a clock of map calls. The second time (`foresee`) the same requests come in the same order, and are placed, by `plan`:

0  greedily (the policy `clairvoyant`): where it adds least to the time that superpages are in use, as far as that is
   known; of equal places that in the smallest hole, then the lowest. Tried are both ends of each hole, and its first
   superpage border.
1  longest-lived first (`offline_longest`), whenever they come: each where it is free for all of its time, as low as
   can be. That needs the whole future at once. What boot takes lives longest and comes first.

Whether the second run asks for the same as the first is checked at each request (map, bytes, alignment, what came
before, whether there was room). It does not where allocators choose by addresses, or where a map has no room; then what
is known is worth nothing, and the lane fails (`differs`). With a clock, time that the map takes changes what comes
next, so such cells are refused.

Any range that is allocated may be freed. Left out: memory for the tables; sleeping for a hole; superpages of submaps
begin at multiples of their size, not at the submap's start.
"""

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, MapNo
from kmemexp.sim.arenas._shared import hole_list
from kmemexp.sim.arenas._shared.hole_list import (
    census,
    check,
    holes,
    map_free_bytes,
    map_measure,
    map_paint,
    map_walked,
    one_hole,
    used,
)
from kmemexp.sim.arenas._shared.powers import round_up
from kmemexp.sim.arenas.foreseen.placing import cheapest, first_fit, taken_at
from kmemexp.sim.arenas.foreseen.rehearsal import differs, foresee
from kmemexp.sim.arenas.foreseen.state import (
    ADDR,
    ALIGN,
    BORN,
    BYTES,
    CLOCK_COLUMNS,
    DIES,
    DIFFERS,
    GREEDY,
    HEARD_COLUMNS,
    KNOWN,
    LONGEST_FIRST,
    MAP,
    NOW,
    REQUESTS,
    Params,
    State,
)
from kmemexp.sim.map_calls import KMEM_ALLOC, KMEM_FREE
from kmemexp.sim.slots import NO_SPACE, PAGE_SHIFT

__all__ = ["Params", "State", "census", "check", "differs", "foresee", "holes", "map_free_bytes", "map_measure",
           "map_paint", "map_walked", "used"]  # fmt: skip

CALLS = (KMEM_ALLOC, KMEM_FREE)
I386_SUPERPAGE = 4 << 20


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), one hole; the others empty until `add_map`. ValueError: impossible parameters."""
    superpage = params.superpage_bytes or I386_SUPERPAGE
    if params.plan not in (GREEDY, LONGEST_FIRST):
        raise ValueError(f"plan is {params.plan}; it must be 0 (greedy) or 1 (longest-lived first)")
    if superpage & (superpage - 1) or params.requests < 1:
        raise ValueError(f"superpage_bytes, requests are {superpage}, {params.requests}; a power of two, 1 or more")
    plain = one_hole(params, kva_bytes, maps)
    return State(
        params,
        plain.hole,
        plain.maps,
        plain.supply,
        heard=demand.zeros((params.requests, HEARD_COLUMNS)),
        known=demand.zeros((params.requests, HEARD_COLUMNS)),
        owner=demand.zeros(kva_bytes >> PAGE_SHIFT),
        home=np.zeros(maps, np.int64),
        busy=demand.zeros(-(-kva_bytes // superpage)),
        clock=np.zeros(CLOCK_COLUMNS, np.int64),
        shift=superpage.bit_length() - 1,
    )


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    hole_list.add_map(st, map_no, base, nbytes)  # type: ignore[arg-type]  # a State with more fields
    st.home[map_no] = st.owner[base >> PAGE_SHIFT]


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Take `nbytes` of map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    align = max(align, 1)
    n = st.clock[REQUESTS]
    if n == st.p.requests:
        st.clock[DIFFERS] = st.clock[DIFFERS] or n + 1
        return NO_SPACE
    st.clock[REQUESTS] = n + 1
    known = n < st.clock[KNOWN] and st.clock[DIFFERS] == 0
    addr = foreseen(st, map_no, nbytes, align, n) if known else first_fit(st, map_no, nbytes, align)
    if addr >= 0 and not taken_at(st, map_no, addr, nbytes, st.known[n, DIES] if known else 0):
        st.clock[DIFFERS], addr = n + 1, NO_SPACE
    write_down(st, map_no, nbytes, align, n, addr)
    st.clock[NOW] += 1
    return addr


@kernel
def foreseen(st: State, map_no: MapNo, nbytes: Bytes, align: int, n: int) -> int:
    """Place request `n` by what the rehearsal has told of it; NO_SPACE, and it differs, where it is another one."""
    same = st.known[n, BYTES] == nbytes and st.known[n, ALIGN] == align and st.known[n, MAP] == map_no
    if not same or st.known[n, BORN] != st.clock[NOW]:
        st.clock[DIFFERS] = n + 1
        return first_fit(st, map_no, nbytes, align)
    if st.p.plan == LONGEST_FIRST:
        addr = st.known[n, ADDR]
    else:
        addr = cheapest(st, map_no, nbytes, align, st.known[n, DIES])
    if (addr >= 0) != (st.known[n, DIES] > 0):
        st.clock[DIFFERS] = n + 1
    return addr


@kernel
def write_down(st: State, map_no: MapNo, nbytes: Bytes, align: int, n: int, addr: Address) -> None:
    """Write down request `n`, and that it has the pages at `addr` now."""
    st.heard[n, BYTES], st.heard[n, ALIGN], st.heard[n, MAP] = nbytes, align, map_no
    st.heard[n, BORN], st.heard[n, DIES], st.heard[n, ADDR] = st.clock[NOW], 0, addr
    if addr >= 0:
        for page in range(addr >> PAGE_SHIFT, (addr + nbytes) >> PAGE_SHIFT):
            st.owner[page] = n + 1


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Give [addr, addr + nbytes) back to map `map_no`: any range that is allocated. Returns 0."""
    st.clock[NOW] += 1
    for page in range(addr >> PAGE_SHIFT, round_up(addr + nbytes, 1 << PAGE_SHIFT) >> PAGE_SHIFT):
        st.heard[st.owner[page] - 1, DIES] = st.clock[NOW]
    hole_list.map_free(st, map_no, addr, nbytes, cpu)  # type: ignore[arg-type]  # a State with more fields
    return 0
