"""Sequential fit: a resource map of System V and 4.xBSD (rmalloc(), rmfree(): sys/kern/subr_rmap.c, 1982 to 1993).

The holes of a map stand in one list by address; what is allocated is not recorded, so a free names its size. A request
takes the low end of the first hole that is large enough (`policy` 0, the real one), of the smallest (1), of the first
one above the last allocation (2), or of the largest (3): the policies of Knuth, The Art of Computer Programming 1, 2.5,
and of Shore 1975 and Bays 1977. Ties go to the lowest address. A free merges with both neighbours at once.

Left out: that the kernel's table of holes is of fixed size, and what does not fit in is lost ("rmap overflow");
sleeping for a hole.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import slots
from kmemexp.sim.arenas.vm_map import size_class
from kmemexp.sim.slots import NO_SPACE, PAGE

FIRST_FIT, BEST_FIT, NEXT_FIT, WORST_FIT = range(4)

# Columns of State.hole. Row `m` is the header of map `m`; it closes the circular list.
START = 0
END = 1
PREV = 2
NEXT = 3  # links the free rows too
HOLE_COLUMNS = 4

# Columns of State.maps.
BASE = 0
TOP = 1
FREE = 2  # bytes
HIGH = 3  # highest end ever allocated
WALKED = 4  # holes that searches passed
HOLES = 5
ROVER = 6  # next fit: end of the last allocation
MAP_COLUMNS = 7

# State.supply.
FREE_ROW = 0  # first row given back; -1: none
FRESH_ROW = 1  # first row never used


class Params(NamedTuple):
    """What a sweep may change."""

    policy: int = FIRST_FIT
    tail_last: int = 0  # 1: the hole at the map's end only when no other fits, as in a heap that grows upwards


class State(NamedTuple):
    """Maps and their holes."""

    p: Params
    hole: np.ndarray  # int64[rows, HOLE_COLUMNS]
    maps: np.ndarray  # int64[maps, MAP_COLUMNS]
    supply: np.ndarray  # int64[2]


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), one hole; the others empty until `add_map`. ValueError: unknown policy."""
    if params.policy not in range(4):
        raise ValueError(f"policy is {params.policy}; it must be 0 (first), 1 (best), 2 (next) or 3 (worst fit)")
    # Every second page can be a hole; a submap's range is one more.
    st = State(
        params,
        hole=np.zeros((kva_bytes // PAGE // 2 + 2 * maps + 1, HOLE_COLUMNS), np.int64),
        maps=np.zeros((maps, MAP_COLUMNS), np.int64),
        supply=np.array([-1, maps], np.int64),
    )
    st.hole[:maps, PREV] = st.hole[:maps, NEXT] = np.arange(maps)
    add_map(st, 0, 0, kva_bytes)
    return st


def add_map(st: State, m: int, base: int, nbytes: int) -> None:
    """Give map `m`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if st.maps[m, TOP] > st.maps[m, BASE]:
        raise ValueError(f"map {m} is in use")
    st.maps[m, [BASE, TOP, HIGH, ROVER]] = base, base + nbytes, base, base
    insert(st, m, m, base, base + nbytes)


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
    return cut(st, m, h, nbytes, align)


@kernel
def map_free(st, m, addr, nbytes, cpu):
    """Give [addr, addr + nbytes) back to map `m`: any range that is allocated. Returns 0."""
    below = m
    passed = 0
    while st.hole[below, NEXT] != m and st.hole[st.hole[below, NEXT], START] < addr:
        below = st.hole[below, NEXT]
        passed += 1
    st.maps[m, WALKED] += passed
    above = st.hole[below, NEXT]
    stop = addr + nbytes
    joins_below = below != m and st.hole[below, END] == addr
    joins_above = above != m and st.hole[above, START] == stop
    if joins_below and joins_above:
        st.hole[below, END] = st.hole[above, END]
        drop(st, m, above)
    elif joins_below:
        st.hole[below, END] = stop
    elif joins_above:
        st.hole[above, START] = addr
    else:
        insert(st, m, below, addr, stop)
        return 0
    st.maps[m, FREE] += nbytes
    return 0


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


@kernel
def cut(st, m, h, nbytes, align):
    """Take a request out of a hole. Returns its address."""
    addr = placed(st, h, nbytes, max(align, 1))
    start, end = st.hole[h, START], st.hole[h, END]
    if addr == start and addr + nbytes == end:
        drop(st, m, h)
    elif addr == start:
        st.hole[h, START] = addr + nbytes
    else:
        st.hole[h, END] = addr
        if addr + nbytes < end:
            insert(st, m, h, addr + nbytes, end)
            st.maps[m, FREE] -= end - addr - nbytes  # insert() has counted what was free before
    st.maps[m, FREE] -= nbytes
    st.maps[m, HIGH] = max(st.maps[m, HIGH], addr + nbytes)
    st.maps[m, ROVER] = addr + nbytes
    return addr


@kernel
def insert(st, m, below, start, end):
    """Enter a hole behind row `below`."""
    s = st.supply
    h = s[FREE_ROW]
    if h >= 0:
        s[FREE_ROW] = st.hole[h, NEXT]
    else:
        h = s[FRESH_ROW]
        s[FRESH_ROW] += 1
    above = st.hole[below, NEXT]
    st.hole[h, START], st.hole[h, END], st.hole[h, PREV], st.hole[h, NEXT] = start, end, below, above
    st.hole[below, NEXT] = st.hole[above, PREV] = h
    st.maps[m, HOLES] += 1
    st.maps[m, FREE] += end - start


@kernel
def drop(st, m, h):
    """Take a hole out of the list; its bytes stay as they are counted."""
    below, above = st.hole[h, PREV], st.hole[h, NEXT]
    st.hole[below, NEXT], st.hole[above, PREV] = above, below
    st.hole[h, NEXT] = st.supply[FREE_ROW]
    st.supply[FREE_ROW] = h
    st.maps[m, HOLES] -= 1


@outlined
def map_measure(st, m, out):
    """Write the state of map `m` into `out` (int64[M_COUNT]). An entry is a hole."""
    out[:] = 0
    h = st.hole[m, NEXT]
    while h != m:
        nbytes = st.hole[h, END] - st.hole[h, START]
        out[slots.M_LARGEST] = max(out[slots.M_LARGEST], nbytes)
        out[slots.M_HIST + size_class(nbytes)] += nbytes
        h = st.hole[h, NEXT]
    out[slots.M_FREE] = st.maps[m, FREE]
    out[slots.M_HOLES] = out[slots.M_ENTRIES] = st.maps[m, HOLES]
    out[slots.M_HIGH] = st.maps[m, HIGH] - st.maps[m, BASE]
    out[slots.M_WALKED] = st.maps[m, WALKED]


@outlined
def map_paint(st, m, bins):
    """Write the occupied share of each of len(bins) equal stretches of map `m` (float64, 0 … 1)."""
    bins[:] = 0.0
    base, top = st.maps[m, BASE], st.maps[m, TOP]
    if top == base:
        return
    bins[:] = 1.0
    scale = len(bins) / (top - base)
    h = st.hole[m, NEXT]
    while h != m:
        low, high = (st.hole[h, START] - base) * scale, (st.hole[h, END] - base) * scale
        for b in range(int(low), min(int(high), len(bins) - 1) + 1):
            bins[b] = max(0.0, bins[b] - (min(high, b + 1.0) - max(low, float(b))))
        h = st.hole[h, NEXT]


@kernel
def map_walked(st, m):
    """Holes that searches of map `m` have passed."""
    return st.maps[m, WALKED]


@kernel
def map_free_bytes(st, m):
    """Free bytes of map `m`, without a walk."""
    return st.maps[m, FREE]


def census(st: State) -> dict[str, int]:
    """Totals over all maps."""
    return {name: int(st.maps[:, column].sum()) for name, column in
            (("holes", HOLES), ("free_bytes", FREE), ("walked", WALKED))}  # fmt: skip


def used(st: State, m: int) -> int:
    """Bytes of map `m` that are allocated."""
    return int(st.maps[m, TOP] - st.maps[m, BASE] - st.maps[m, FREE])


def holes(st: State, m: int) -> list[tuple[int, int]]:
    """(start, end) of the holes of map `m` by address."""
    found, h = [], int(st.hole[m, NEXT])
    while h != m:
        found.append((int(st.hole[h, START]), int(st.hole[h, END])))
        h = int(st.hole[h, NEXT])
    return found


def check(st: State, m: int) -> None:
    """Assert what must hold of map `m` (slow, for tests)."""
    found = holes(st, m)
    edges = [int(st.maps[m, BASE]), *(x for h in found for x in h), int(st.maps[m, TOP])]
    assert edges == sorted(edges), "holes out of order, overlapping or out of bounds"
    assert all(start < end for start, end in found), "empty hole"
    assert all(a[1] < b[0] for a, b in pairwise(found)), "neighbours that are not merged"
    assert sum(end - start for start, end in found) == st.maps[m, FREE], "free bytes miscounted"
    assert len(found) == st.maps[m, HOLES], "holes miscounted"
