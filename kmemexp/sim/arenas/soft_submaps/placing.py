"""Ranges of kernel_map, and how many free slots they leave."""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Address, Bytes
from kmemexp.sim.arenas._shared import hole_index
from kmemexp.sim.arenas._shared.hole_index import END, NONE, START
from kmemexp.sim.arenas._shared.powers import round_up
from kmemexp.sim.arenas.soft_submaps.state import FREE_SLOTS, State
from kmemexp.sim.maps import KERNEL
from kmemexp.sim.slots import NO_SPACE, PAGE_SHIFT


@kernel
def pages_of(st: State) -> int:
    """Pages of a slot."""
    return st.p.slot_bytes >> PAGE_SHIFT


@kernel
def slots_in(st: State, start: Address, end: Address) -> int:
    """Slots that lie in [start, end) whole."""
    return max((end >> st.slot_shift) - ((start + st.p.slot_bytes - 1) >> st.slot_shift), 0)


@kernel
def broken(st: State, h: int, addr: Address, nbytes: Bytes) -> int:
    """Free slots that are lost when [addr, addr + nbytes) of hole `h` is taken."""
    start, end = st.hole[h, START], st.hole[h, END]
    return slots_in(st, start, end) - slots_in(st, start, addr) - slots_in(st, addr + nbytes, end)


@kernel
def spot(st: State, h: int, nbytes: Bytes, align: int, spare: int) -> int:
    """Address in hole `h` where a request breaks `spare` free slots at most, at its low end or its high one; or -1."""
    low, high = round_up(st.hole[h, START], align), (st.hole[h, END] - nbytes) // align * align
    if low + nbytes > st.hole[h, END]:
        return -1
    if broken(st, h, low, nbytes) <= spare:
        return low
    return high if broken(st, h, high, nbytes) <= spare else -1


@kernel
def place(st: State, nbytes: Bytes, align: int, spare: int) -> int:
    """Take `nbytes` of kernel_map where that breaks `spare` free slots at most. Returns the address or NO_SPACE."""
    h = hole_index.best(st, KERNEL, nbytes, align)
    if h == NONE:
        return NO_SPACE
    addr = spot(st, h, nbytes, align, spare)
    if addr < 0:
        h = hole_index.at_least(st, KERNEL, nbytes)
    looks = 0
    while addr < 0:
        if h == NONE or looks == st.p.looks:
            return NO_SPACE
        addr = spot(st, h, nbytes, align, spare)
        if addr < 0:
            h, looks = hole_index.following(st, KERNEL, h), looks + 1
    return take(st, h, addr, nbytes)


@kernel
def take(st: State, h: int, addr: Address, nbytes: Bytes) -> int:
    """Take [addr, addr + nbytes) out of hole `h` of kernel_map. Returns the address."""
    st.total[FREE_SLOTS] -= broken(st, h, addr, nbytes)
    hole_index.cut(st, KERNEL, h, addr, nbytes)
    return addr


@kernel
def give(st: State, addr: Address, nbytes: Bytes) -> None:
    """Give [addr, addr + nbytes) back to kernel_map."""
    h = hole_index.give(st, KERNEL, addr, nbytes)
    st.total[FREE_SLOTS] += broken(st, h, addr, nbytes)
