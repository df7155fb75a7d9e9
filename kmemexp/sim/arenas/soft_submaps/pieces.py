"""What a consumer has: its slots, the pieces that its requests take of them, and what it is still promised."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Bytes, MapNo
from kmemexp.sim.arenas._shared import hole_index
from kmemexp.sim.arenas._shared.hole_index import END, NONE, START
from kmemexp.sim.arenas._shared.powers import lowest_bit
from kmemexp.sim.arenas.soft_submaps.placing import give, pages_of, place, take
from kmemexp.sim.arenas.soft_submaps.state import (
    FREE_PAGES,
    FREE_SLOTS,
    GUARANTEE,
    LIMIT,
    LISTS,
    MOST_PAGES,
    NEXT,
    OWNER,
    PREV,
    PROMISED,
    RUN,
    RUN_PAGES,
    SLOTS,
    USED_PAGES,
    WHOLE,
    State,
)
from kmemexp.sim.maps import KERNEL
from kmemexp.sim.slots import NO_SPACE, PAGE_SHIFT


@kernel
def have(st: State, map_no: MapNo) -> int:
    """Slots that a consumer has, with those of its larger requests."""
    pages = pages_of(st)
    return st.quota[map_no, SLOTS] + (st.quota[map_no, RUN_PAGES] + pages - 1) // pages


@kernel
def count(st: State, map_no: MapNo, slots: int, run_pages: int) -> None:
    """Count slots and pages of large requests that a consumer takes (or gives back); its promise changes with them."""
    before = max(st.quota[map_no, GUARANTEE] - have(st, map_no), 0)
    st.quota[map_no, SLOTS] += slots
    st.quota[map_no, RUN_PAGES] += run_pages
    st.total[PROMISED] += max(st.quota[map_no, GUARANTEE] - have(st, map_no), 0) - before


@kernel
def spare_for(st: State, map_no: MapNo, slots: int) -> int:
    """Free slots beyond what is promised to others, for a consumer that asks for so many; -1: it is at its limit."""
    owned = have(st, map_no)
    if owned + slots > st.quota[map_no, LIMIT]:
        return -1
    own = min(slots, max(st.quota[map_no, GUARANTEE] - owned, 0))
    if own == slots:
        return st.total[FREE_SLOTS]  # it is its own
    return st.total[FREE_SLOTS] - (st.total[PROMISED] - own) * (WHOLE - st.p.lend_percent) // WHOLE


@outlined
def take_run(st: State, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """Serve a consumer's request that is larger than a slot. Returns the address or NO_SPACE."""
    slots = (nbytes + st.p.slot_bytes - 1) >> st.slot_shift
    spare = spare_for(st, map_no, slots)
    addr = place(st, nbytes, max(align, st.p.slot_bytes), spare)
    if addr < 0:
        addr = place(st, nbytes, align, spare)
    if addr >= 0:
        count(st, map_no, 0, nbytes >> PAGE_SHIFT)
    return addr


@outlined
def take_piece(st: State, map_no: MapNo, pages: int, align: int) -> int:
    """Serve a consumer's request of a slot at most. Returns the address or NO_SPACE."""
    if align > st.p.slot_bytes:
        return take_run(st, map_no, pages << PAGE_SHIFT, align)
    at, s, step = -1, -1, max(align >> PAGE_SHIFT, 1)
    enough = st.quota[map_no, LISTS] >> pages << pages
    if enough:
        s = st.head[map_no, lowest_bit(enough)] - 1
        at = first_run(st.slot[s, FREE_PAGES], pages, step)
    if at < 0:
        s, at = new_slot(st, map_no), 0
        if s < 0:
            return NO_SPACE
    st.slot[s, FREE_PAGES] &= ~(((1 << pages) - 1) << at)
    st.quota[map_no, USED_PAGES] += pages
    relist(st, map_no, s)
    return (s << st.slot_shift) + (at << PAGE_SHIFT)


@outlined
def give_piece(st: State, map_no: MapNo, s: int, at: int, pages: int) -> None:
    """Give pages of a slot back, and the slot to kernel_map when all of it is free."""
    st.slot[s, FREE_PAGES] |= ((1 << pages) - 1) << at
    st.quota[map_no, USED_PAGES] -= pages
    if st.slot[s, FREE_PAGES] != (1 << pages_of(st)) - 1:
        relist(st, map_no, s)
        return
    unlist(st, map_no, s)
    st.slot[s, OWNER] = KERNEL
    count(st, map_no, -1, 0)
    give(st, s << st.slot_shift, st.p.slot_bytes)


@kernel
def new_slot(st: State, map_no: MapNo) -> int:
    """Take a whole slot for a consumer; it is on no list yet. Returns it or -1."""
    if spare_for(st, map_no, 1) < 1:
        return -1
    h = hole_index.best(st, KERNEL, st.p.slot_bytes, st.p.slot_bytes)
    if h == NONE:
        return -1
    s = slot_in(st, h)
    take(st, h, s << st.slot_shift, st.p.slot_bytes)
    count(st, map_no, 1, 0)
    st.slot[s, FREE_PAGES], st.slot[s, OWNER], st.slot[s, RUN] = (1 << pages_of(st)) - 1, map_no, 0
    return s


@kernel
def slot_in(st: State, h: int) -> int:
    """The slot to take of a hole that has one: its highest, or with `near` its lowest where only that opens none."""
    start, end = st.hole[h, START], st.hole[h, END]
    low, high = (start + st.p.slot_bytes - 1) >> st.slot_shift, (end >> st.slot_shift) - 1
    if st.p.near and opens(st, start, end, high) and not opens(st, start, end, low):
        return low
    return high


@kernel
def opens(st: State, start: Address, end: Address, s: int) -> bool:
    """Whether a slot of a hole [start, end) lies in a superpage that is wholly free."""
    superpage = (s << st.slot_shift) // st.p.superpage_bytes * st.p.superpage_bytes
    return start <= superpage and superpage + st.p.superpage_bytes <= end


@kernel
def first_run(free: int, pages: int, step: int) -> int:
    """Where the first run of so many free pages begins, at a multiple of `step`; -1: there is none."""
    wanted, at = (1 << pages) - 1, 0
    while at + pages <= MOST_PAGES:
        if free >> at & wanted == wanted:
            return at
        at += step
    return -1


@kernel
def longest_run(free: int) -> int:
    """Pages of the longest run of free pages."""
    n = 0
    while free:
        free &= free >> 1
        n += 1
    return n


@kernel
def relist(st: State, map_no: MapNo, s: int) -> None:
    """Put a slot whose pages have changed on the list of its longest free run; a full one is on none."""
    run = longest_run(st.slot[s, FREE_PAGES])
    if run == st.slot[s, RUN]:
        return
    unlist(st, map_no, s)
    st.slot[s, RUN] = run
    if run > 0:
        above = st.head[map_no, run]
        st.slot[s, NEXT], st.slot[s, PREV] = above, 0
        if above:
            st.slot[above - 1, PREV] = s + 1
        st.head[map_no, run] = s + 1
        st.quota[map_no, LISTS] |= 1 << run


@kernel
def unlist(st: State, map_no: MapNo, s: int) -> None:
    """Take a slot off its list, if it is on one."""
    run = st.slot[s, RUN]
    if run == 0:
        return
    above, below = st.slot[s, NEXT], st.slot[s, PREV]
    if above:
        st.slot[above - 1, PREV] = below
    if below:
        st.slot[below - 1, NEXT] = above
    else:
        st.head[map_no, run] = above
        if above == 0:
            st.quota[map_no, LISTS] &= ~(1 << run)
    st.slot[s, RUN] = 0
