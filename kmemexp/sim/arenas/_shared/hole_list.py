"""The holes of a map in one list by address: entering, merging and cutting them, and what is to be told of them.

What is allocated is not recorded: a free names its size, and any range that is allocated may be freed. Which hole a
request takes is the arena's own, `arenas/sequential` or `arenas/two_ended`.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from kmemexp.jit import entry, kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, MapNo, Shares, Table, Words
from kmemexp.sim.arenas._shared.measuring import erase, size_class, whole
from kmemexp.sim.checks import insist
from kmemexp.sim.slots import PAGE
from kmemexp.sim.tables import gauge

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
    hole: Table  # int64[rows, HOLE_COLUMNS]
    maps: Table  # int64[maps, MAP_COLUMNS]
    supply: Words  # int64[2]


def one_hole(params: Any, kva_bytes: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), one hole; the others empty until `add_map`."""
    # Every second page can be a hole; a submap's range is one more.
    st = State(
        params,
        hole=demand.zeros((kva_bytes // PAGE // 2 + 2 * maps + 1, HOLE_COLUMNS), np.int64),
        maps=np.zeros((maps, MAP_COLUMNS), np.int64),
        supply=np.array([-1, maps], np.int64),
    )
    st.hole[:maps, PREV] = st.hole[:maps, NEXT] = np.arange(maps)
    add_map(st, 0, 0, kva_bytes)
    return st


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if st.maps[map_no, TOP] > st.maps[map_no, BASE]:
        raise ValueError(f"map {map_no} is in use")
    st.maps[map_no, [BASE, TOP, HIGH, ROVER]] = base, base + nbytes, base, base
    entry(insert)(st, map_no, map_no, base, base + nbytes)


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Give [addr, addr + nbytes) back to map `map_no`: any range that is allocated. Returns 0."""
    below = map_no
    passed = 0
    while st.hole[below, NEXT] != map_no and st.hole[st.hole[below, NEXT], START] < addr:
        below = st.hole[below, NEXT]
        passed += 1
    st.maps[map_no, WALKED] += passed
    above = st.hole[below, NEXT]
    stop = addr + nbytes
    joins_below = below != map_no and st.hole[below, END] == addr
    joins_above = above != map_no and st.hole[above, START] == stop
    if joins_below and joins_above:
        st.hole[below, END] = st.hole[above, END]
        drop(st, map_no, above)
    elif joins_below:
        st.hole[below, END] = stop
    elif joins_above:
        st.hole[above, START] = addr
    else:
        insert(st, map_no, below, addr, stop)
        return 0
    st.maps[map_no, FREE] += nbytes
    return 0


@kernel
def cut(st: State, map_no: MapNo, h: int, addr: Address, nbytes: Bytes) -> None:
    """Take [addr, addr + nbytes) out of hole `h`."""
    start, end, stop = st.hole[h, START], st.hole[h, END], addr + nbytes
    if addr == start and stop == end:
        drop(st, map_no, h)
    elif addr == start:
        st.hole[h, START] = stop
    else:
        st.hole[h, END] = addr
        if stop < end:
            insert(st, map_no, h, stop, end)
            st.maps[map_no, FREE] -= end - stop  # insert() has counted what was free before
    st.maps[map_no, FREE] -= nbytes
    st.maps[map_no, HIGH] = max(st.maps[map_no, HIGH], stop)


@kernel
def insert(st: State, map_no: MapNo, below: int, start: int, end: int) -> None:
    """Enter a hole behind row `below`."""
    supply = st.supply
    h = supply[FREE_ROW]
    if h >= 0:
        supply[FREE_ROW] = st.hole[h, NEXT]
    else:
        h = supply[FRESH_ROW]
        supply[FRESH_ROW] += 1
    above = st.hole[below, NEXT]
    st.hole[h, START], st.hole[h, END], st.hole[h, PREV], st.hole[h, NEXT] = start, end, below, above
    st.hole[below, NEXT] = st.hole[above, PREV] = h
    st.maps[map_no, HOLES] += 1
    st.maps[map_no, FREE] += end - start


@kernel
def drop(st: State, map_no: MapNo, h: int) -> None:
    """Take a hole out of the list; its bytes stay as they are counted."""
    below, above = st.hole[h, PREV], st.hole[h, NEXT]
    st.hole[below, NEXT], st.hole[above, PREV] = above, below
    st.hole[h, NEXT] = st.supply[FREE_ROW]
    st.supply[FREE_ROW] = h
    st.maps[map_no, HOLES] -= 1


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]). An entry is a hole."""
    out[:] = 0
    h = st.hole[map_no, NEXT]
    while h != map_no:
        nbytes = st.hole[h, END] - st.hole[h, START]
        out[gauge.LARGEST] = max(out[gauge.LARGEST], nbytes)
        out[gauge.HIST + size_class(nbytes)] += nbytes
        out[gauge.WHOLE] += whole(nbytes, st.hole[h, END])
        h = st.hole[h, NEXT]
    out[gauge.FREE] = st.maps[map_no, FREE]
    out[gauge.HOLES] = out[gauge.ENTRIES] = st.maps[map_no, HOLES]
    out[gauge.HIGH] = st.maps[map_no, HIGH] - st.maps[map_no, BASE]
    out[gauge.WALKED] = st.maps[map_no, WALKED]


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    base, top = st.maps[map_no, BASE], st.maps[map_no, TOP]
    bins[:] = 1.0 if top > base else 0.0
    if top == base:
        return
    h = st.hole[map_no, NEXT]
    while h != map_no:
        erase(bins, base, top, st.hole[h, START], st.hole[h, END])
        h = st.hole[h, NEXT]


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """Holes that searches of map `map_no` have passed."""
    return st.maps[map_no, WALKED]


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Free bytes of map `map_no`, without a walk."""
    return st.maps[map_no, FREE]


def census(st: State) -> dict[str, int]:
    """Totals over all maps."""
    return {name: int(st.maps[:, column].sum()) for name, column in
            (("holes", HOLES), ("free_bytes", FREE), ("walked", WALKED))}  # fmt: skip


def used(st: State, map_no: int) -> int:
    """Bytes of map `map_no` that are allocated."""
    return int(st.maps[map_no, TOP] - st.maps[map_no, BASE] - st.maps[map_no, FREE])


def holes(st: State, map_no: int) -> list[tuple[int, int]]:
    """(start, end) of the holes of map `map_no` by address."""
    found, h = [], int(st.hole[map_no, NEXT])
    while h != map_no:
        found.append((int(st.hole[h, START]), int(st.hole[h, END])))
        h = int(st.hole[h, NEXT])
    return found


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no` (slow, for tests)."""
    check_holes(st.maps, map_no, holes(st, map_no))


def check_holes(maps: Table, map_no: int, found: list[tuple[int, int]]) -> None:
    """Assert what must hold of the holes of a map, (start, end) by address, and of its counts."""
    edges = [int(maps[map_no, BASE]), *(x for h in found for x in h), int(maps[map_no, TOP])]
    insist(edges == sorted(edges), "holes out of order, overlapping or out of bounds")
    insist(all(start < end for start, end in found), "empty hole")
    insist(all(a[1] < b[0] for a, b in pairwise(found)), "neighbours that are not merged")
    insist(sum(end - start for start, end in found) == maps[map_no, FREE], "free bytes miscounted")
    insist(len(found) == maps[map_no, HOLES], "holes miscounted")
