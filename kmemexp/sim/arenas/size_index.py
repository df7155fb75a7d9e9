"""Best fit on an index by size, so that neither taking nor giving back grows with the number of holes. A study.

A request takes the low end of the smallest hole where it fits, of equal ones the lowest, as OpenBSD's uaddr_bestfit
does (sys/uvm/uvm_addr.c; there one tree by free space, then address, and one by address). Here the index has a bin for
each size up to EXACT pages, above that one for each power of two, a bit for each bin that is not empty (Masmano et al.,
TLSF, ECRTS 2004), and in each bin a treap by size, then address (Seidel and Aragon, Algorithmica 1996; the priority is
a hash of the address, so that a hole needs no more than its two links). Neighbours are found by boundary tags (Knuth,
The Art of Computer Programming 1, 2.5), here a row number for the first and the last page of each hole.

A request with an alignment tries the holes from the smallest large enough upwards. After `looks` of them it takes the
smallest hole that has room for any offset, if there is one, and goes on looking otherwise.

What a search passes (`map_walked`) are nodes of treaps; the bitmap is not counted. Any range that is allocated may be
freed.

Left out: memory for the index and the tags; sleeping for a hole.
"""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import entry, kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, MapNo, Shares, Table, Words
from kmemexp.sim.arenas._shared import hole_list
from kmemexp.sim.arenas._shared.hole_list import census, map_free_bytes, map_walked, used
from kmemexp.sim.arenas._shared.measuring import count_hole, erase
from kmemexp.sim.arenas._shared.powers import log2, lowest_bit, round_up
from kmemexp.sim.checks import insist
from kmemexp.sim.map_calls import KMEM_ALLOC, KMEM_FREE
from kmemexp.sim.slots import NO_SPACE, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import gauge

__all__ = ["census", "map_free_bytes", "map_walked", "used"]

CALLS = (KMEM_ALLOC, KMEM_FREE)

NONE = 0  # no row
EXACT = 64  # pages; larger holes share a bin with all of their power of two
WORD = 32  # bins to a word of the bitmap
BINS = 4 * WORD

# Columns of State.hole. A row that is not in use is empty: START == END.
START = 0
END = 1
LEFT = 2  # links the free rows too
RIGHT = 3
MAP = 4
HOLE_COLUMNS = 5

# State.supply.
FREE_ROW = 0
FRESH_ROW = 1


class Params(NamedTuple):
    """What a sweep may change."""

    looks: int = 16  # ASSUMPTION: holes tried for an alignment before one with room for any offset is taken


class State(NamedTuple):
    """Maps, their holes, and the index."""

    p: Params
    hole: Table  # int64[rows, HOLE_COLUMNS]
    root: Table  # int64[maps, BINS]: the row at the top of each bin's treap
    bits: Table  # int64[maps, BINS / WORD]: bins that are not empty
    maps: Table  # int64[maps, MAP_COLUMNS], of `hole_list`
    tag: Words  # int64[pages]: the row of the hole that begins or ends with this page; stale where none does
    supply: Words  # int64[2]


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), one hole; the others empty until `add_map`. ValueError: no looks."""
    if params.looks < 1:
        raise ValueError(f"looks is {params.looks}; it must be 1 or more")
    pages = kva_bytes >> PAGE_SHIFT
    st = State(
        params,
        hole=demand.zeros((pages // 2 + 2 * maps + 2, HOLE_COLUMNS)),
        root=np.zeros((maps, BINS), np.int64),
        bits=np.zeros((maps, BINS // WORD), np.int64),
        maps=np.zeros((maps, hole_list.MAP_COLUMNS), np.int64),
        tag=demand.zeros(pages),
        supply=np.array([NONE, NONE + 1], np.int64),
    )
    add_map(st, 0, 0, kva_bytes)
    return st


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if st.maps[map_no, hole_list.TOP] > st.maps[map_no, hole_list.BASE]:
        raise ValueError(f"map {map_no} is in use")
    st.maps[map_no, [hole_list.BASE, hole_list.TOP, hole_list.HIGH, hole_list.FREE]] = base, base + nbytes, base, nbytes
    entry(enter)(st, map_no, base, base + nbytes)


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Take `nbytes` of map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    align = max(align, 1)
    h = best(st, map_no, nbytes, align)
    if h == NONE:
        return NO_SPACE
    start, end = st.hole[h, START], st.hole[h, END]
    addr = round_up(start, align)
    drop(st, map_no, h)
    if start < addr:
        enter(st, map_no, start, addr)
    if addr + nbytes < end:
        enter(st, map_no, addr + nbytes, end)
    st.maps[map_no, hole_list.FREE] -= nbytes
    st.maps[map_no, hole_list.HIGH] = max(st.maps[map_no, hole_list.HIGH], addr + nbytes)
    return addr


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Give [addr, addr + nbytes) back to map `map_no`: any range that is allocated. Returns 0."""
    start, end = addr, addr + nbytes
    if start > st.maps[map_no, hole_list.BASE]:
        below = st.tag[(start >> PAGE_SHIFT) - 1]
        if st.hole[below, END] == start and st.hole[below, MAP] == map_no:
            start = st.hole[below, START]
            drop(st, map_no, below)
    if end < st.maps[map_no, hole_list.TOP]:
        above = st.tag[end >> PAGE_SHIFT]
        if above != NONE and st.hole[above, START] == end and st.hole[above, MAP] == map_no:
            end = st.hole[above, END]
            drop(st, map_no, above)
    enter(st, map_no, start, end)
    st.maps[map_no, hole_list.FREE] += nbytes
    return 0


@kernel
def best(st: State, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """The smallest hole where a request fits, or, after so many looks, one that has room for any offset; NONE."""
    size, above, looks = nbytes, 0, 0
    while True:
        h = at_least(st, map_no, size, above)
        if h == NONE or round_up(st.hole[h, START], align) + nbytes <= st.hole[h, END]:
            return h
        looks += 1
        if looks == st.p.looks:
            roomy = at_least(st, map_no, nbytes + align - PAGE, 0)
            if roomy != NONE:
                return roomy
        size, above = st.hole[h, END] - st.hole[h, START], st.hole[h, START] + 1


@kernel
def at_least(st: State, map_no: MapNo, size: Bytes, above: Address) -> int:
    """First hole, by size and then address, of more than `size` bytes, or of `size` at `above` or higher; NONE."""
    b = bin_of(size)
    found, h, passed = NONE, st.root[map_no, b], 0
    while h != NONE:
        have = st.hole[h, END] - st.hole[h, START]
        passed += 1
        if have > size or (have == size and st.hole[h, START] >= above):
            found, h = h, st.hole[h, LEFT]
        else:
            h = st.hole[h, RIGHT]
    if found == NONE:
        b = filled(st, map_no, b + 1)
        h = st.root[map_no, b] if b < BINS else NONE
        while h != NONE:
            passed += 1
            found, h = h, st.hole[h, LEFT]
    st.maps[map_no, hole_list.WALKED] += passed
    return found


@kernel
def filled(st: State, map_no: MapNo, b: int) -> int:
    """First bin from `b` on that holds something; BINS: none."""
    if b >= BINS:
        return BINS
    word = b // WORD
    rest = st.bits[map_no, word] >> (b % WORD) << (b % WORD)
    while rest == 0:
        word += 1
        if word == BINS // WORD:
            return BINS
        rest = st.bits[map_no, word]
    return word * WORD + lowest_bit(rest)


@kernel
def bin_of(size: Bytes) -> int:
    """Bin of the holes of `size` bytes."""
    pages = size >> PAGE_SHIFT
    return pages - 1 if pages <= EXACT else EXACT - log2(EXACT) + log2(pages)


@kernel
def before(st: State, h: int, size: Bytes, start: Address) -> bool:
    """Whether hole `h` comes before one of `size` bytes at `start`."""
    have = st.hole[h, END] - st.hole[h, START]
    return have < size or (have == size and st.hole[h, START] < start)


@kernel
def priority(start: Address) -> int:
    """Where a hole that begins at `start` stands in its treap: the higher, the nearer to the root (Knuth's hash)."""
    return ((start >> PAGE_SHIFT) & 0x3FFFFFFF) * 2654435761 & 0xFFFFFFFF


@kernel
def point(st: State, map_no: MapNo, b: int, parent: int, side: int, h: int) -> None:
    """Make `h` the child of `parent` on `side`, or the root of bin `b` where there is no parent."""
    if parent == NONE:
        st.root[map_no, b] = h
    else:
        st.hole[parent, side] = h


@outlined
def enter(st: State, map_no: MapNo, start: Address, end: Address) -> None:
    """Enter the hole [start, end); the free bytes are the caller's to count."""
    row = st.supply[FREE_ROW]
    if row != NONE:
        st.supply[FREE_ROW] = st.hole[row, LEFT]
    else:
        row = st.supply[FRESH_ROW]
        st.supply[FRESH_ROW] += 1
    st.hole[row, START], st.hole[row, END], st.hole[row, MAP] = start, end, map_no
    st.tag[start >> PAGE_SHIFT] = st.tag[(end >> PAGE_SHIFT) - 1] = row
    st.maps[map_no, hole_list.HOLES] += 1

    size = end - start
    b = bin_of(size)
    rank, parent, side, h, passed = priority(start), NONE, LEFT, st.root[map_no, b], 0
    while h != NONE and priority(st.hole[h, START]) > rank:
        parent, side = h, RIGHT if before(st, h, size, start) else LEFT
        h = st.hole[h, side]
        passed += 1
    point(st, map_no, b, parent, side, row)
    st.bits[map_no, b // WORD] |= 1 << (b % WORD)
    low, low_side, high, high_side = row, LEFT, row, RIGHT  # where what lies below and above the new hole is hung
    while h != NONE:
        passed += 1
        if before(st, h, size, start):
            st.hole[low, low_side] = h
            low, low_side, h = h, RIGHT, st.hole[h, RIGHT]
        else:
            st.hole[high, high_side] = h
            high, high_side, h = h, LEFT, st.hole[h, LEFT]
    st.hole[low, low_side] = st.hole[high, high_side] = NONE
    st.maps[map_no, hole_list.WALKED] += passed


@outlined
def drop(st: State, map_no: MapNo, row: int) -> None:
    """Take a hole out of the index; its bytes stay as they are counted."""
    start = st.hole[row, START]
    size = st.hole[row, END] - start
    b = bin_of(size)
    parent, side, h, passed = NONE, LEFT, st.root[map_no, b], 0
    while h != row:
        parent, side = h, RIGHT if before(st, h, size, start) else LEFT
        h = st.hole[h, side]
        passed += 1
    low, high = st.hole[row, LEFT], st.hole[row, RIGHT]
    while low != NONE and high != NONE:
        passed += 1
        if priority(st.hole[low, START]) > priority(st.hole[high, START]):
            point(st, map_no, b, parent, side, low)
            parent, side, low = low, RIGHT, st.hole[low, RIGHT]
        else:
            point(st, map_no, b, parent, side, high)
            parent, side, high = high, LEFT, st.hole[high, LEFT]
    point(st, map_no, b, parent, side, low if low != NONE else high)
    if st.root[map_no, b] == NONE:
        st.bits[map_no, b // WORD] &= ~(1 << (b % WORD))
    st.hole[row, START] = st.hole[row, END] = 0
    st.hole[row, LEFT] = st.supply[FREE_ROW]
    st.supply[FREE_ROW] = row
    st.maps[map_no, hole_list.HOLES] -= 1
    st.maps[map_no, hole_list.WALKED] += passed


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]). An entry is a hole."""
    out[:] = 0
    for h in range(NONE + 1, st.supply[FRESH_ROW]):
        if st.hole[h, MAP] == map_no:
            count_hole(out, st.hole[h, END] - st.hole[h, START], st.hole[h, END])
    out[gauge.ENTRIES] = st.maps[map_no, hole_list.HOLES]
    out[gauge.HIGH] = st.maps[map_no, hole_list.HIGH] - st.maps[map_no, hole_list.BASE]
    out[gauge.WALKED] = st.maps[map_no, hole_list.WALKED]


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    base, top = st.maps[map_no, hole_list.BASE], st.maps[map_no, hole_list.TOP]
    bins[:] = 1.0 if top > base else 0.0
    for h in range(NONE + 1, st.supply[FRESH_ROW]):
        if st.hole[h, MAP] == map_no and st.hole[h, START] < st.hole[h, END]:
            erase(bins, base, top, st.hole[h, START], st.hole[h, END])


def holes(st: State, map_no: int) -> list[tuple[int, int]]:
    """(start, end) of the holes of map `map_no` by address."""
    rows = st.hole[: int(st.supply[FRESH_ROW])]
    mine = rows[(rows[:, MAP] == map_no) & (rows[:, START] < rows[:, END])]
    return sorted((int(start), int(end)) for start, end in mine[:, [START, END]])


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no` (slow, for tests)."""
    found = holes(st, map_no)
    hole_list.check_holes(st.maps, map_no, found)
    indexed, its_bin = [], entry(bin_of)
    for b in range(BINS):
        rows = _in_order(st, int(st.root[map_no, b]))
        keys = [(end - start, start) for start, end in rows]
        insist(keys == sorted(keys), "a bin out of order")
        insist(all(its_bin(size) == b for size, _ in keys), "a hole in another's bin")
        insist(bool(rows) == bool(st.bits[map_no, b // WORD] >> (b % WORD) & 1), "a bit that tells a lie")
        indexed += rows
    insist(sorted(indexed) == found, "holes that are not in the index")
    for start, end in found:
        for page in (start >> PAGE_SHIFT, (end >> PAGE_SHIFT) - 1):
            insist(st.hole[st.tag[page], [START, END]].tolist() == [start, end], "a tag that tells a lie")


def _in_order(st: State, root: int) -> list[tuple[int, int]]:
    """(start, end) of a treap's holes in its order; asserts that it is a heap by priority."""
    row, rank = st.hole[root], entry(priority)
    if root == NONE:
        return []
    for child in (int(row[LEFT]), int(row[RIGHT])):
        insist(child == NONE or rank(st.hole[child, START]) <= rank(row[START]), "a treap that is no heap")
    here = (int(row[START]), int(row[END]))
    return [*_in_order(st, int(row[LEFT])), here, *_in_order(st, int(row[RIGHT]))]
