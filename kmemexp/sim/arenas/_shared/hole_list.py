"""The holes of a map in one list by address: entering, merging and cutting them, and what is to be told of them.

What is allocated is not recorded: a free names its size, and any range that is allocated may be freed. Which hole a
request takes is the arena's own, `arenas/sequential` or `arenas/two_ended`.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import slots
from kmemexp.sim.arenas._shared.measuring import erase, size_class
from kmemexp.sim.slots import PAGE

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


class State(NamedTuple):
    """Maps and their holes."""

    p: Any  # the arena's Params
    hole: np.ndarray  # int64[rows, HOLE_COLUMNS]
    maps: np.ndarray  # int64[maps, MAP_COLUMNS]
    supply: np.ndarray  # int64[2]


def one_hole(params: Any, kva_bytes: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), one hole; the others empty until `add_map`."""
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
def cut(st, m, h, addr, nbytes):
    """Take [addr, addr + nbytes) out of hole `h`."""
    start, end, stop = st.hole[h, START], st.hole[h, END], addr + nbytes
    if addr == start and stop == end:
        drop(st, m, h)
    elif addr == start:
        st.hole[h, START] = stop
    else:
        st.hole[h, END] = addr
        if stop < end:
            insert(st, m, h, stop, end)
            st.maps[m, FREE] -= end - stop  # insert() has counted what was free before
    st.maps[m, FREE] -= nbytes
    st.maps[m, HIGH] = max(st.maps[m, HIGH], stop)


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
    base, top = st.maps[m, BASE], st.maps[m, TOP]
    bins[:] = 1.0 if top > base else 0.0
    if top == base:
        return
    h = st.hole[m, NEXT]
    while h != m:
        erase(bins, base, top, st.hole[h, START], st.hole[h, END])
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
