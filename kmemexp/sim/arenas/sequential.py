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
from kmemexp.sim.arenas._shared.hole_list import (
    BASE,
    END,
    HOLES,
    NEXT,
    PREV,
    ROVER,
    START,
    TOP,
    WALKED,
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
from kmemexp.sim.slots import NO_SPACE

__all__ = ["State", "add_map", "census", "check", "holes", "map_free", "map_free_bytes", "map_measure", "map_paint",
           "map_walked", "used"]  # fmt: skip

FIRST_FIT, BEST_FIT, NEXT_FIT, WORST_FIT = range(4)


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
def map_alloc(st, m, nbytes, align, attr, cpu):
    """Take `nbytes` of map `m` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    if st.p.policy == FIRST_FIT:
        h = first_fit(st, m, nbytes, align, st.maps[m, BASE])
    elif st.p.policy == NEXT_FIT:
        h = first_fit(st, m, nbytes, align, st.maps[m, ROVER])
        if h == m and st.maps[m, ROVER] > st.maps[m, BASE]:
            h = first_fit(st, m, nbytes, align, st.maps[m, BASE])
    else:
        h = extreme_fit(st, m, nbytes, align)
    if h == m and st.p.tail_last:
        h = tail(st, m, nbytes, align)
    if h == m:
        return NO_SPACE
    addr = placed(st, h, nbytes, max(align, 1))
    cut(st, m, h, addr, nbytes)
    st.maps[m, ROVER] = addr + nbytes
    return addr


@kernel
def placed(st, h, nbytes, align):
    """Address of a request at the low end of hole `h`, or -1."""
    addr = (st.hole[h, START] + align - 1) // align * align
    return addr if addr + nbytes <= st.hole[h, END] else -1


@kernel
def is_tail(st, m, h):
    """Whether a hole is the one at the map's end, and to be used last."""
    return st.p.tail_last and st.hole[h, END] == st.maps[m, TOP]


@kernel
def first_fit(st, m, nbytes, align, above):
    """First hole that begins at `above` or higher and is large enough; m: none."""
    align = max(align, 1)
    h = st.hole[m, NEXT]
    passed = 0
    while h != m:
        if st.hole[h, START] >= above:
            if placed(st, h, nbytes, align) >= 0 and not is_tail(st, m, h):
                break
            passed += 1
        h = st.hole[h, NEXT]
    st.maps[m, WALKED] += passed
    return h


@kernel
def extreme_fit(st, m, nbytes, align):
    """Smallest (best fit) or largest (worst fit) of the holes that are large enough; m: none."""
    align = max(align, 1)
    found, size = m, 0
    h = st.hole[m, NEXT]
    while h != m:
        have = st.hole[h, END] - st.hole[h, START]
        better = found == m or (have < size if st.p.policy == BEST_FIT else have > size)
        if better and placed(st, h, nbytes, align) >= 0 and not is_tail(st, m, h):
            found, size = h, have
        h = st.hole[h, NEXT]
    st.maps[m, WALKED] += st.maps[m, HOLES]
    return found


@kernel
def tail(st, m, nbytes, align):
    """The hole at the map's end, if it is large enough; m: it is not."""
    h = st.hole[m, PREV]
    if h != m and st.hole[h, END] == st.maps[m, TOP] and placed(st, h, nbytes, max(align, 1)) >= 0:
        return h
    return m
