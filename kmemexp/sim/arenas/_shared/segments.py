"""Segments of a vmem arena by boundary tags: what FreeBSD's subr_vmem.c and illumos' vmem.c have in common.

After Bonwick and Adams, "Magazines and Vmem", USENIX 2001. Each segment of an arena, free or in use, has a tag; so has
each span that was added to the arena or imported, and stands before its segments. Tags are in one list, in which the
segments of a span follow each other by address and spans in the order in which they came. Free segments are on the free
list of their size class too, last freed first. A range in use is found by its address: the kernels hash it, here
`table` holds the row of the tag for each page where one begins.

A tag is a row of `seg`. Row `a` closes the circular list of arena `a`; it stands for the end of the list (FreeBSD) or
for vm_seg0 (illumos). The row that is `len(arena)` higher is its rotor (vm_cursor, vm_rotor). `st` is the State of
`arenas.vmem` or `arenas.vmem_illumos`. Each arena has tags in hand (HAND); where they come from is the module's own.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, MapNo, Shares, Words, int64
from kmemexp.sim.arenas._shared.measuring import count_hole, erase
from kmemexp.sim.arenas._shared.powers import round_up
from kmemexp.sim.checks import insist
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.sim.tables import gauge

# Columns of State.seg.
START = 0  # bytes
END = 1
PREV = 2  # in the list of all tags
NEXT = 3
LESS = 4  # before it on its free list; 0: it is the first
MORE = 5  # behind it; links the rows that are no tag, too
KIND = 6
NOTE = 7  # free: its list; in use: ATTR_* and what the module adds
SEGMENT_COLUMNS = 8

HEAD, SPAN, FREE, BUSY, ROTOR = range(5)
CACHED = 8  # NOTE: in use for the arena, but in a cache of free ranges

# Columns of State.arena.
BASE = 0  # of the map, bytes
TOP = 1
FREE_BYTES = 2  # in free segments
HIGH = 3  # highest end ever in use
WALKED = 4  # tags that searches passed
BITS = 5  # free lists that are not empty
SHIFT = 6  # row of `table` = page + SHIFT
TAGS = 7  # tags in the list
HAND = 8  # tags in hand
OWN = 9  # the module's
ARENA_COLUMNS = 12
LISTS = 64

# State.supply.
FREE_ROW = 0  # first row given back; 0: none
FRESH_ROW = 1  # first row never used
FRESH_PAGE = 2  # first row of the table that no arena has yet
SUPPLY = 3  # first that is the module's

LEVELS = 3  # maps lie in maps: kernel_map, clean_map, buffer_map


def arrays(kva_bytes: int, arenas: int, levels: int, supply: int) -> dict[str, Array]:
    """Arrays of a State: room for `arenas` that cover the KVA `levels` times, and `supply` numbers of the module's own.

    Neither segments nor spans can outnumber the pages they cover. Rows are zeroed, so memory is found for them as they
    come into use.
    """
    pages = kva_bytes >> PAGE_SHIFT
    found: dict[str, Array] = {
        "seg": demand.zeros((2 * levels * pages + 4 * arenas, SEGMENT_COLUMNS)),
        "lists": np.zeros((arenas, LISTS), np.int64),
        "arena": np.zeros((arenas, ARENA_COLUMNS), np.int64),
        "table": demand.zeros(levels * pages, demand.names(2 * levels * pages + 4 * arenas)),
        "supply": np.zeros(SUPPLY + supply, np.int64),
    }
    heads = np.arange(arenas)
    seg = found["seg"]
    seg[heads, PREV] = seg[heads, NEXT] = heads + arenas
    seg[heads + arenas, PREV] = seg[heads + arenas, NEXT] = heads
    seg[heads + arenas, KIND] = ROTOR
    found["supply"][FRESH_ROW] = 2 * arenas
    return found


def bound(st: Any, a: int, base: int, nbytes: int) -> None:
    """Say which range arena `a` is about, and make room for it in the table. ValueError: it has one, or no room."""
    pages = nbytes >> PAGE_SHIFT
    if st.arena[a, TOP]:
        raise ValueError(f"map {a} is in use")
    first = int(st.supply[FRESH_PAGE])
    if first + pages > len(st.table):
        raise ValueError(f"map {a}: maps may lie in each other {LEVELS} deep")
    st.arena[a, [BASE, TOP, HIGH]] = base, base + nbytes, base
    st.arena[a, SHIFT] = first - (base >> PAGE_SHIFT)
    st.supply[FRESH_PAGE] += pages


def add_span(st: Any, a: int, k: int) -> None:
    """Give arena `a` its whole range as one span, which goes on free list `k`; plain Python, for boot. Takes 2 tags."""
    base, top = st.arena[a, [BASE, TOP]].tolist()
    span = int(st.supply[FRESH_ROW])
    st.supply[FRESH_ROW] += 2
    last = int(st.seg[a, PREV])
    st.seg[span] = base, top, last, span + 1, 0, 0, SPAN, 0
    st.seg[span + 1] = base, top, span, a, 0, 0, FREE, k
    st.seg[last, NEXT], st.seg[a, PREV] = span, span + 1
    st.lists[a, k] = span + 1
    st.arena[a, BITS] = 1 << k
    st.arena[a, FREE_BYTES] = top - base
    st.arena[a, TAGS] += 2
    st.arena[a, HAND] -= 2


@kernel
def size(st: Any, row: int) -> int:
    """Bytes of a segment."""
    return st.seg[row, END] - st.seg[row, START]


@kernel
def fit(st: Any, row: int, nbytes: Bytes, align: int) -> int:
    """Lowest address at which a request fits into a segment, or -1."""
    addr = round_up(st.seg[row, START], align)
    return addr if addr + nbytes <= st.seg[row, END] else -1


@kernel
def has_room(st: Any, row: int, nbytes: Bytes, align: int) -> bool:
    """Whether a tag is a free segment that a request fits into."""
    return st.seg[row, KIND] == FREE and fit(st, row, nbytes, align) >= 0


@kernel
def insert(st: Any, a: int, below: int, kind: int, start: int, end: int) -> int:
    """Make a tag behind `below`, of those in hand. Returns its row."""
    supply = st.supply
    row = supply[FREE_ROW]
    if row:
        supply[FREE_ROW] = st.seg[row, MORE]
    else:
        row = supply[FRESH_ROW]
        supply[FRESH_ROW] += 1
    st.seg[row, START], st.seg[row, END], st.seg[row, KIND], st.seg[row, NOTE] = start, end, kind, 0
    link(st, below, row)
    st.arena[a, TAGS] += 1
    st.arena[a, HAND] -= 1
    return row


@kernel
def remove(st: Any, a: int, row: int) -> None:
    """Take a tag, which is on no free list, out of the list; it is in hand again."""
    unlink(st, row)
    st.seg[row, MORE] = st.supply[FREE_ROW]
    st.supply[FREE_ROW] = row
    st.arena[a, TAGS] -= 1
    st.arena[a, HAND] += 1


@kernel
def link(st: Any, below: int, row: int) -> None:
    """Put a row behind `below`."""
    above = st.seg[below, NEXT]
    st.seg[row, PREV], st.seg[row, NEXT] = below, above
    st.seg[below, NEXT] = st.seg[above, PREV] = row


@kernel
def unlink(st: Any, row: int) -> None:
    """Take a row out of the list of all tags."""
    below, above = st.seg[row, PREV], st.seg[row, NEXT]
    st.seg[below, NEXT], st.seg[above, PREV] = above, below


@kernel
def push(st: Any, a: int, row: int, k: int) -> None:
    """Put a segment on the head of free list `k`."""
    first = st.lists[a, k]
    st.seg[row, KIND], st.seg[row, NOTE] = FREE, k
    st.seg[row, LESS], st.seg[row, MORE] = 0, first
    if first:
        st.seg[first, LESS] = row
    st.lists[a, k] = row
    st.arena[a, BITS] |= 1 << k
    st.arena[a, FREE_BYTES] += size(st, row)


@kernel
def pull(st: Any, a: int, row: int) -> None:
    """Take a segment off the free list that it is on."""
    k, less, more = st.seg[row, NOTE], st.seg[row, LESS], st.seg[row, MORE]
    if less:
        st.seg[less, MORE] = more
    else:
        st.lists[a, k] = more
        if more == 0:
            st.arena[a, BITS] &= ~(1 << k)
    if more:
        st.seg[more, LESS] = less
    st.arena[a, FREE_BYTES] -= size(st, row)


@kernel
def occupy(st: Any, a: int, row: int, note: int) -> None:
    """Enter a segment, which is on no free list, as in use."""
    st.seg[row, KIND], st.seg[row, NOTE] = BUSY, note
    st.table[(st.seg[row, START] >> PAGE_SHIFT) + st.arena[a, SHIFT]] = row
    st.arena[a, HIGH] = max(st.arena[a, HIGH], st.seg[row, END])


@kernel
def in_use(st: Any, a: int, addr: Address) -> int:
    """Tag of the range in use that begins at `addr`, or 0."""
    return int64(st.table[(addr >> PAGE_SHIFT) + st.arena[a, SHIFT]])


@kernel
def merge(st: Any, a: int, row: int) -> int:
    """Take a segment in use out of use, with its free neighbours in it, on no free list. Returns its tag."""
    st.table[(st.seg[row, START] >> PAGE_SHIFT) + st.arena[a, SHIFT]] = 0
    above = st.seg[row, NEXT]
    if st.seg[above, KIND] == FREE:
        pull(st, a, above)
        st.seg[row, END] = st.seg[above, END]
        remove(st, a, above)
    below = st.seg[row, PREV]
    if st.seg[below, KIND] == FREE:
        pull(st, a, below)
        st.seg[row, START] = st.seg[below, START]
        remove(st, a, below)
    return row


@kernel
def is_vacant(st: Any, row: int) -> bool:
    """Whether nobody has a segment: it is free, or cached."""
    return st.seg[row, KIND] == FREE or (st.seg[row, KIND] == BUSY and st.seg[row, NOTE] == CACHED)


@kernel
def fits_after_rotor(st: Any, a: int, nbytes: Bytes, align: int) -> int:
    """First free segment from the rotor on, round the list, that a request fits into; the rotor's row: none does."""
    rotor = a + len(st.arena)
    row = st.seg[rotor, NEXT]
    passed = 0
    while row != rotor and not has_room(st, row, nbytes, align):
        passed += row != a
        row = st.seg[row, NEXT]
    st.arena[a, WALKED] += passed
    return row


@kernel
def measure_map(st: Any, map_no: MapNo, out: Words) -> None:
    """Write what `map_measure` says of the arena of map `map_no` alone. An entry is a tag."""
    out[:] = 0
    measure(st, map_no, out)
    out[gauge.ENTRIES] = st.arena[map_no, TAGS]
    out[gauge.HIGH] = st.arena[map_no, HIGH] - st.arena[map_no, BASE]
    out[gauge.WALKED] = st.arena[map_no, WALKED]


@kernel
def measure(st: Any, a: int, out: Words) -> None:
    """Add the holes of an arena: vacant segments of a span side by side, as if caches were empty and the rotor gone."""
    hole, end = 0, 0
    row = st.seg[a, NEXT]
    while row != a:
        if is_vacant(st, row):
            hole += size(st, row)
            end = st.seg[row, END]
        elif st.seg[row, KIND] != ROTOR:
            count_hole(out, hole, end)
            hole = 0
        row = st.seg[row, NEXT]
    count_hole(out, hole, end)


@kernel
def paint_map(st: Any, map_no: MapNo, bins: Shares) -> None:
    """Write what `map_paint` says of the arena of map `map_no` alone."""
    has_range = st.arena[map_no, TOP] > st.arena[map_no, BASE]
    bins[:] = 1.0 if has_range else 0.0
    if has_range:
        erase_vacant(st, map_no, map_no, bins)


@kernel
def erase_vacant(st: Any, map_no: MapNo, a: int, bins: Shares) -> None:
    """Erase the vacant segments of arena `a` from the picture of map `map_no`."""
    base, top = st.arena[map_no, BASE], st.arena[map_no, TOP]
    row = st.seg[a, NEXT]
    while row != a:
        if is_vacant(st, row):
            erase(bins, base, top, st.seg[row, START], st.seg[row, END])
        row = st.seg[row, NEXT]


def rows(st: Any, a: int) -> list[int]:
    """Rows of the list of arena `a`, the rotor's too."""
    found, row = [], int(st.seg[a, NEXT])
    while row != a:
        found.append(row)
        row = int(st.seg[row, NEXT])
    return found


def segments(st: Any, a: int) -> list[tuple[int, int, int, int]]:
    """(start, end, kind, note) of the segments of arena `a`, free or in use, by address."""
    kinds = st.seg[rows(st, a)] if rows(st, a) else st.seg[:0]
    return sorted(tuple(r[[START, END, KIND, NOTE]].tolist()) for r in kinds if r[KIND] in (FREE, BUSY))


def free_list(st: Any, a: int, k: int) -> list[int]:
    """Rows of a free list, its head first."""
    found, row = [], int(st.lists[a, k])
    while row:
        found.append(row)
        row = int(st.seg[row, MORE])
    return found


def check(
    st: Any,
    a: int,
    *,
    list_of: Callable[[int], int] | None,
    beside: Iterable[int] = (),
    whole_spans: bool = True,
    lent: int = 0,
) -> None:
    """Assert what must hold of the segments of arena `a` (slow, for tests).

    `list_of`: free list of a segment of so many bytes. `beside`: what else begins where, in the table. `whole_spans`:
    the segments of a span end where it does. `lent`: note of ranges in use whose place in the table is another arena's.
    """
    tags = rows(st, a)
    seg = [tuple(st.seg[row].tolist()) for row in tags]
    insist(all(st.seg[st.seg[row, NEXT], PREV] == row for row in [a, *tags]), "broken link")
    insist(sum(supply[KIND] != ROTOR for supply in seg) == st.arena[a, TAGS], "tags miscounted")
    listed = [(row, k) for k in range(LISTS) for row in free_list(st, a, k)]
    free = [(row, supply[NOTE]) for row, supply in zip(tags, seg, strict=True) if supply[KIND] == FREE]
    insist(sorted(listed) == sorted(free), "free lists are wrong")
    insist(sum(1 << k for k in {k for _, k in listed}) == st.arena[a, BITS], "bits of the free lists are wrong")
    found = segments(st, a)
    free_segments = [(end - start, note) for start, end, kind, note in found if kind == FREE]
    insist(sum(nbytes for nbytes, _ in free_segments) == st.arena[a, FREE_BYTES], "free bytes miscounted")
    insist(list_of is None or all(list_of(nbytes) == k for nbytes, k in free_segments), "on the wrong free list")
    insist(all(start < end for start, end, _, _ in found), "empty segment")
    insist(all(one[1] <= other[0] for one, other in pairwise(found)), "segments overlap")
    _check_spans(seg, whole_spans)
    first, stop = ((st.arena[a, [BASE, TOP]] >> PAGE_SHIFT) + st.arena[a, SHIFT]).tolist()
    entered = (np.flatnonzero(st.table[first:stop]) << PAGE_SHIFT) + st.arena[a, BASE]
    busy = [supply[START] for supply in seg if supply[KIND] == BUSY and (not lent or supply[NOTE] != lent)]
    insist(sorted([*busy, *beside]) == entered.tolist(), "table of ranges in use is wrong")


def _check_spans(seg: list[tuple[int, ...]], whole: bool) -> None:
    """Segments fill each span, by address, and no two free ones are neighbours but on either side of the rotor."""
    at, stop, before = 0, 0, HEAD
    for start, end, *_, kind, _ in seg:
        if kind == SPAN:
            insist(at == stop or not whole, "span that is not filled")
            at, stop = start, end
        elif kind != ROTOR:
            insist(start == at, "gap between segments")
            insist((kind, before) != (FREE, FREE), "free neighbours that are not merged")
            at = end
        before = kind
    insist(at == stop or not whole, "span that is not filled")
