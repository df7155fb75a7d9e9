"""Holes of a map in an index by size: best fit whose cost does not grow with the number of holes.

The index has a bin for each size up to EXACT pages, above that one for each power of two, a bit for each bin that is
not empty (Masmano et al., TLSF, ECRTS 2004), and in each bin a treap by size, then address (Seidel and Aragon,
Algorithmica 1996; the priority is a hash of the address, and needs no word). A hole knows its parent and its
neighbours in the order of its bin, as FreeBSD's map entries were in a tree and in a list (vm_map.h, 5.0 to 12), and
a bin its first hole, as Linux' cached red-black trees do (rb_leftmost, include/linux/rbtree.h): so the best hole is
found, and any hole leaves, without a descent. Neighbours in the map are found by boundary tags (Knuth, The Art of
Computer Programming 1, 2.5), here a row number for the first and the last page of each hole. `st` is a State with the
fields of `fields`.

What is counted as walked are the nodes that are gone on to, as the entry list counts those that it goes on to: the
first that is looked at, a root or a bin's first hole, comes with the call, as `first_free` and the hint do there.
"""

from typing import Any

import numpy as np

from kmemexp.jit import entry, kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, MapNo, Shares, Words
from kmemexp.sim.arenas._shared import hole_list
from kmemexp.sim.arenas._shared.measuring import count_hole, erase
from kmemexp.sim.arenas._shared.powers import log2, lowest_bit, round_up
from kmemexp.sim.checks import insist
from kmemexp.sim.slots import PAGE, PAGE_SHIFT
from kmemexp.sim.tables import gauge

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
PARENT = 5
BEFORE = 6  # its neighbours in the order of its bin
BEHIND = 7
HOLE_COLUMNS = 8

# State.supply.
FREE_ROW = 0
FRESH_ROW = 1


def fields(kva_bytes: int, maps: int) -> dict[str, Array]:
    """Arrays of a State without a hole: map 0 to be given [0, kva_bytes) by `add_map`, like all others.

    hole: int64[rows, HOLE_COLUMNS]; root: int64[maps, BINS], the row at the top of each bin's treap; first:
    int64[maps, BINS], that of its first hole; bits: int64[maps, BINS / WORD], bins that are not empty; maps:
    int64[maps, MAP_COLUMNS] of `hole_list`; tag: int64[pages], the row of the hole that begins or ends with this page,
    stale where none does; supply: int64[2].
    """
    pages = kva_bytes >> PAGE_SHIFT
    return {
        "hole": demand.zeros((pages // 2 + 2 * maps + 2, HOLE_COLUMNS)),
        "root": np.zeros((maps, BINS), np.int64),
        "first": np.zeros((maps, BINS), np.int64),
        "bits": np.zeros((maps, BINS // WORD), np.int64),
        "maps": np.zeros((maps, hole_list.MAP_COLUMNS), np.int64),
        "tag": demand.zeros(pages),
        "supply": np.array([NONE, NONE + 1], np.int64),
    }


def add_map(st: Any, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if st.maps[map_no, hole_list.TOP] > st.maps[map_no, hole_list.BASE]:
        raise ValueError(f"map {map_no} is in use")
    st.maps[map_no, [hole_list.BASE, hole_list.TOP, hole_list.HIGH, hole_list.FREE]] = base, base + nbytes, base, nbytes
    entry(enter)(st, map_no, base, base + nbytes)


@kernel
def cut(st: Any, map_no: MapNo, h: int, addr: Address, nbytes: Bytes) -> None:
    """Take [addr, addr + nbytes) out of hole `h`."""
    start, end = st.hole[h, START], st.hole[h, END]
    drop(st, map_no, h)
    if start < addr:
        enter(st, map_no, start, addr)
    if addr + nbytes < end:
        enter(st, map_no, addr + nbytes, end)
    st.maps[map_no, hole_list.FREE] -= nbytes
    st.maps[map_no, hole_list.HIGH] = max(st.maps[map_no, hole_list.HIGH], addr + nbytes)


@kernel
def give(st: Any, map_no: MapNo, addr: Address, nbytes: Bytes) -> int:
    """Give [addr, addr + nbytes) back: any range that is allocated. Returns the hole that it is in now."""
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
    st.maps[map_no, hole_list.FREE] += nbytes
    return enter(st, map_no, start, end)


@kernel
def best(st: Any, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """The smallest hole where a request fits, or, after so many looks, one that has room for any offset; NONE."""
    h, looks = at_least(st, map_no, nbytes), 0
    while h != NONE and round_up(st.hole[h, START], align) + nbytes > st.hole[h, END]:
        looks += 1
        if looks == st.p.looks:
            roomy = at_least(st, map_no, nbytes + align - PAGE)
            if roomy != NONE:
                return roomy
        h = following(st, map_no, h)
    return h


@kernel
def at_least(st: Any, map_no: MapNo, size: Bytes) -> int:
    """First hole, by size and then address, of `size` bytes or more; NONE."""
    b = bin_of(size)
    found, h, passed = st.first[map_no, b], st.root[map_no, b], 0
    if found != NONE and before(st, found, size, 0):
        found = NONE
        while h != NONE:
            passed += 1
            if before(st, h, size, 0):
                h = st.hole[h, RIGHT]
            else:
                found, h = h, st.hole[h, LEFT]
    if found == NONE:
        passed += st.root[map_no, b] != NONE
        b = filled(st, map_no, b + 1)
        found = st.first[map_no, b] if b < BINS else NONE
    st.maps[map_no, hole_list.WALKED] += passed
    return found


@kernel
def following(st: Any, map_no: MapNo, h: int) -> int:
    """Hole behind `h` by size and then address; NONE."""
    found = st.hole[h, BEHIND]
    if found == NONE:
        b = filled(st, map_no, bin_of(st.hole[h, END] - st.hole[h, START]) + 1)
        found = st.first[map_no, b] if b < BINS else NONE
    st.maps[map_no, hole_list.WALKED] += found != NONE
    return found


@kernel
def filled(st: Any, map_no: MapNo, b: int) -> int:
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
def before(st: Any, h: int, size: Bytes, start: Address) -> bool:
    """Whether hole `h` comes before one of `size` bytes at `start`."""
    have = st.hole[h, END] - st.hole[h, START]
    return have < size or (have == size and st.hole[h, START] < start)


@kernel
def priority(start: Address) -> int:
    """Where a hole that begins at `start` stands in its treap: the higher, the nearer to the root (Knuth's hash)."""
    return ((start >> PAGE_SHIFT) & 0x3FFFFFFF) * 2654435761 & 0xFFFFFFFF


@kernel
def point(st: Any, map_no: MapNo, b: int, parent: int, side: int, h: int) -> None:
    """Make `h` the child of `parent` on `side`, or the root of bin `b` where there is no parent."""
    if parent == NONE:
        st.root[map_no, b] = h
    else:
        st.hole[parent, side] = h
    if h != NONE:
        st.hole[h, PARENT] = parent


@kernel
def string(st: Any, map_no: MapNo, b: int, h: int, behind: int) -> None:
    """Make `behind` follow `h` in the order of bin `b`; NONE: its end, on either side."""
    if h == NONE:
        st.first[map_no, b] = behind
    else:
        st.hole[h, BEHIND] = behind
    if behind != NONE:
        st.hole[behind, BEFORE] = h


@outlined
def enter(st: Any, map_no: MapNo, start: Address, end: Address) -> int:
    """Enter the hole [start, end); the free bytes are the caller's to count. Returns its row."""
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
    nearest_before = nearest_behind = NONE
    while h != NONE and priority(st.hole[h, START]) > rank:
        parent, side = h, LEFT
        if before(st, h, size, start):
            nearest_before, side = h, RIGHT
        else:
            nearest_behind = h
        h = st.hole[h, side]
        passed += 1
    point(st, map_no, b, parent, side, row)
    st.bits[map_no, b // WORD] |= 1 << (b % WORD)
    low, low_side, high, high_side = row, LEFT, row, RIGHT  # where what lies below and above the new hole is hung
    while h != NONE:
        passed += 1
        if before(st, h, size, start):
            point(st, map_no, b, low, low_side, h)
            nearest_before = h
            low, low_side, h = h, RIGHT, st.hole[h, RIGHT]
        else:
            point(st, map_no, b, high, high_side, h)
            nearest_behind = h
            high, high_side, h = h, LEFT, st.hole[h, LEFT]
    st.hole[low, low_side] = st.hole[high, high_side] = NONE
    string(st, map_no, b, nearest_before, row)
    string(st, map_no, b, row, nearest_behind)
    st.maps[map_no, hole_list.WALKED] += max(passed - 1, 0)
    return row


@outlined
def drop(st: Any, map_no: MapNo, row: int) -> None:
    """Take a hole out of the index; its bytes stay as they are counted."""
    b, passed = bin_of(st.hole[row, END] - st.hole[row, START]), 0
    parent = st.hole[row, PARENT]
    side = RIGHT if parent != NONE and st.hole[parent, RIGHT] == row else LEFT
    low, high = st.hole[row, LEFT], st.hole[row, RIGHT]
    string(st, map_no, b, st.hole[row, BEFORE], st.hole[row, BEHIND])
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
def map_measure(st: Any, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]). An entry is a hole."""
    out[:] = 0
    for h in range(NONE + 1, st.supply[FRESH_ROW]):
        if st.hole[h, MAP] == map_no:
            count_hole(out, st.hole[h, END] - st.hole[h, START], st.hole[h, END])
    out[gauge.ENTRIES] = st.maps[map_no, hole_list.HOLES]
    out[gauge.HIGH] = st.maps[map_no, hole_list.HIGH] - st.maps[map_no, hole_list.BASE]
    out[gauge.WALKED] = st.maps[map_no, hole_list.WALKED]


@outlined
def map_paint(st: Any, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    base, top = st.maps[map_no, hole_list.BASE], st.maps[map_no, hole_list.TOP]
    bins[:] = 1.0 if top > base else 0.0
    for h in range(NONE + 1, st.supply[FRESH_ROW]):
        if st.hole[h, MAP] == map_no and st.hole[h, START] < st.hole[h, END]:
            erase(bins, base, top, st.hole[h, START], st.hole[h, END])


def holes(st: Any, map_no: int) -> list[tuple[int, int]]:
    """(start, end) of the holes of map `map_no` by address."""
    rows = st.hole[: int(st.supply[FRESH_ROW])]
    mine = rows[(rows[:, MAP] == map_no) & (rows[:, START] < rows[:, END])]
    return sorted((int(start), int(end)) for start, end in mine[:, [START, END]])


def check(st: Any, map_no: int) -> None:
    """Assert what must hold of map `map_no` (slow, for tests)."""
    found = holes(st, map_no)
    hole_list.check_holes(st.maps, map_no, found)
    indexed, its_bin = [], entry(bin_of)
    for b in range(BINS):
        rows = _in_order(st, int(st.root[map_no, b]))
        keys = [(end - start, start) for start, end in rows]
        insist(keys == sorted(keys), "a bin out of order")
        insist(all(its_bin(size) == b for size, _ in keys), "a hole in another's bin")
        insist(_strung(st, int(st.first[map_no, b])) == rows, "a bin's list that is not in its order")
        insist(bool(rows) == bool(st.bits[map_no, b // WORD] >> (b % WORD) & 1), "a bit that tells a lie")
        indexed += rows
    insist(sorted(indexed) == found, "holes that are not in the index")
    for start, end in found:
        for page in (start >> PAGE_SHIFT, (end >> PAGE_SHIFT) - 1):
            insist(st.hole[st.tag[page], [START, END]].tolist() == [start, end], "a tag that tells a lie")


def _strung(st: Any, row: int) -> list[tuple[int, int]]:
    """(start, end) of the holes from a bin's first one on, each behind the one before."""
    rows, last = [], NONE
    while row != NONE:
        insist(st.hole[row, BEFORE] == last, "a hole that is not behind the one before it")
        rows.append((int(st.hole[row, START]), int(st.hole[row, END])))
        last, row = row, int(st.hole[row, BEHIND])
    return rows


def _in_order(st: Any, root: int) -> list[tuple[int, int]]:
    """(start, end) of a treap's holes in its order; asserts that it is a heap by priority."""
    row, rank = st.hole[root], entry(priority)
    if root == NONE:
        return []
    for child in (int(row[LEFT]), int(row[RIGHT])):
        insist(child == NONE or rank(st.hole[child, START]) <= rank(row[START]), "a treap that is no heap")
        insist(child == NONE or st.hole[child, PARENT] == root, "a child that has another parent")
    here = (int(row[START]), int(row[END]))
    return [*_in_order(st, int(row[LEFT])), here, *_in_order(st, int(row[RIGHT]))]
