"""Sequential fit: a resource map of System V and 4.xBSD (rmalloc(), rmfree(): sys/kern/subr_rmap.c, 1982 to 1993).

The holes of a map stand in one list by address; what is allocated is not recorded, so a free names its size. A request
takes the low end of the first hole that is large enough (`policy` 0, the real one), of the smallest (1), of the first
one above the last allocation (2), or of the largest (3): the policies of Knuth, The Art of Computer Programming 1, 2.5,
and of Shore 1975 and Bays 1977. Ties go to the lowest address. A free merges with both neighbours at once
(`_shared.hole_list`).

Left out: that the kernel's table of holes is of fixed size, and what does not fit in is lost ("rmap overflow");
sleeping for a hole.
"""

from typing import NamedTuple

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Bytes, MapNo
from kmemexp.sim.arenas._shared import hole_list
from kmemexp.sim.arenas._shared.hole_list import (
    State,
    add_map,
    census,
    check,
    cut,
    holes,
    map_free,
    map_free_bytes,
    map_measure,
    map_paint,
    map_walked,
    one_hole,
    used,
)
from kmemexp.sim.map_calls import KMEM_ALLOC, KMEM_FREE
from kmemexp.sim.slots import NO_SPACE

__all__ = ["State", "add_map", "census", "check", "holes", "map_free", "map_free_bytes", "map_measure", "map_paint",
           "map_walked", "used"]  # fmt: skip

FIRST_FIT, BEST_FIT, NEXT_FIT, WORST_FIT = range(4)


CALLS = (KMEM_ALLOC, KMEM_FREE)


class Params(NamedTuple):
    """What a sweep may change."""

    policy: int = FIRST_FIT
    tail_last: int = 0  # 1: the hole at the map's end only when no other fits, as in a heap that grows upwards


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), one hole; the others empty until `add_map`. ValueError: unknown policy."""
    if params.policy not in range(4):
        raise ValueError(f"policy is {params.policy}; it must be 0 (first), 1 (best), 2 (next) or 3 (worst fit)")
    return one_hole(params, kva_bytes, maps)


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Take `nbytes` of map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    if st.p.policy == FIRST_FIT:
        h = first_fit(st, map_no, nbytes, align, st.maps[map_no, hole_list.BASE])
    elif st.p.policy == NEXT_FIT:
        h = first_fit(st, map_no, nbytes, align, st.maps[map_no, hole_list.ROVER])
        if h == map_no and st.maps[map_no, hole_list.ROVER] > st.maps[map_no, hole_list.BASE]:
            h = first_fit(st, map_no, nbytes, align, st.maps[map_no, hole_list.BASE])
    else:
        h = extreme_fit(st, map_no, nbytes, align)
    if h == map_no and st.p.tail_last:
        h = tail(st, map_no, nbytes, align)
    if h == map_no:
        return NO_SPACE
    addr = placed(st, h, nbytes, max(align, 1))
    cut(st, map_no, h, addr, nbytes)
    st.maps[map_no, hole_list.ROVER] = addr + nbytes
    return addr


@kernel
def placed(st: State, h: int, nbytes: Bytes, align: int) -> int:
    """Address of a request at the low end of hole `h`, or -1."""
    addr = (st.hole[h, hole_list.START] + align - 1) // align * align
    return addr if addr + nbytes <= st.hole[h, hole_list.END] else -1


@kernel
def is_tail(st: State, map_no: MapNo, h: int) -> int:
    """Whether a hole is the one at the map's end, and to be used last."""
    return st.p.tail_last and st.hole[h, hole_list.END] == st.maps[map_no, hole_list.TOP]


@kernel
def first_fit(st: State, map_no: MapNo, nbytes: Bytes, align: int, above: int) -> int:
    """First hole that begins at `above` or higher and is large enough; m: none."""
    align = max(align, 1)
    h = st.hole[map_no, hole_list.NEXT]
    passed = 0
    while h != map_no:
        if st.hole[h, hole_list.START] >= above:
            if placed(st, h, nbytes, align) >= 0 and not is_tail(st, map_no, h):
                break
            passed += 1
        h = st.hole[h, hole_list.NEXT]
    st.maps[map_no, hole_list.WALKED] += passed
    return h


@kernel
def extreme_fit(st: State, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """Smallest (best fit) or largest (worst fit) of the holes that are large enough; m: none."""
    align = max(align, 1)
    found, size = map_no, 0
    h = st.hole[map_no, hole_list.NEXT]
    while h != map_no:
        have = st.hole[h, hole_list.END] - st.hole[h, hole_list.START]
        better = found == map_no or (have < size if st.p.policy == BEST_FIT else have > size)
        if better and placed(st, h, nbytes, align) >= 0 and not is_tail(st, map_no, h):
            found, size = h, have
        h = st.hole[h, hole_list.NEXT]
    st.maps[map_no, hole_list.WALKED] += st.maps[map_no, hole_list.HOLES]
    return found


@kernel
def tail(st: State, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """The hole at the map's end, if it is large enough; m: it is not."""
    h = st.hole[map_no, hole_list.PREV]
    if (
        h != map_no
        and st.hole[h, hole_list.END] == st.maps[map_no, hole_list.TOP]
        and placed(st, h, nbytes, max(align, 1)) >= 0
    ):
        return h
    return map_no
