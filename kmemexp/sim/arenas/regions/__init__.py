"""Regions: policies for a map that act before it is fragmented, as parameters of one arena. A study: no kernel has it.

The map is cut into regions of `region_bytes` from its base up (the last may be shorter), and each region belongs to a
class of requests. A request of up to half a region goes, in this order,

1. into a region of its class: of those that have a hole for it the lowest (`choice` 0) or the one with the most
   allocated bytes (1; of equals the lowest);
2. into a wholly free region, which is of its class from then on: the lowest;
3. into a region of any other class, that with the most allocated bytes first;

and there to the low end of the lowest hole that is large enough inside the region. A larger one takes the lowest place
of the map where it fits, across regions, and those it touches are *mixed*, a class to which no request belongs. So does
a small one that fits only across regions: a request fails where no hole of the map is large enough. A region that is
wholly free again has no class. The classes are, by `segregate`,

0  one for all;
1  what is never freed (ATTR_NOFREE, and submaps), and the rest (SHORT);
2  what is never freed, wired memory of object allocators, and what is mapped for its own sake (SHORT);
3  long and short-lived requesters, as learned from what they did before (`requesters`); submaps are long-lived.

With `two_ended` SHORT takes the highest wholly free region, and as a large request the high end of the highest place
of the map, so that the middle stays whole.

Where the ideas come from: regions by class, Linux's page blocks, which are apart by mobility (mm/page_alloc.c); a
region for what is never freed, FreeBSD 2024 (commit a8693e89e3e4); fullest first, the order of illumos's partial slabs;
lifetimes learned by who allocates, on a clock of bytes, Barrett and Zorn, PLDI 1993. On the i386 a region that is
free is one that a superpage could map.

Any range of pages that are allocated may be freed: part of a request or several neighbours.

Left out: memory for the marks on pages, regions and requesters; what the learning costs in time; sleeping for a hole.
"""

from itertools import pairwise

import numpy as np

from kmemexp.jit import entry, kernel, outlined
from kmemexp.sim import demand, slots
from kmemexp.sim.aliases import Address, Bytes, MapNo, Shares, Words
from kmemexp.sim.arenas._shared.measuring import count_hole, erase
from kmemexp.sim.arenas.regions import placing as g
from kmemexp.sim.arenas.regions import requesters as r
from kmemexp.sim.arenas.regions.state import BY_LIFETIME, FULLEST, Params, State
from kmemexp.sim.asking import every_free_flushes
from kmemexp.sim.checks import insist
from kmemexp.sim.map_calls import KMEM_ALLOC, KMEM_FREE
from kmemexp.sim.slots import NO_SPACE, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import gauge

CALLS = (KMEM_ALLOC, KMEM_FREE)
SHARE = 8  # ASSUMPTION: without lifetime_bytes, long-lived is what outlives the entry of an eighth of the map

map_attr = r.map_attr
map_flushes = every_free_flushes


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError for impossible parameters."""
    _validate(params)
    pages, unit = kva_bytes >> PAGE_SHIFT, params.region_bytes >> PAGE_SHIFT
    st = State(
        params,
        shift=unit.bit_length() - 1,
        maps=np.zeros((maps, g.MAP_COLUMNS), np.int64),
        region=demand.zeros((maps * (pages // unit + 2), g.REGION_COLUMNS)),
        hole=demand.zeros((pages, g.HOLE_COLUMNS)),
        stamp=demand.zeros(pages),
        who=np.zeros((maps * slots.WHO_COUNT, r.WHO_COLUMNS), np.int64),
    )
    add_map(st, 0, 0, kva_bytes)
    return st


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if st.maps[map_no, g.TOP] > st.maps[map_no, g.BASE]:
        raise ValueError(f"map {map_no} is in use")
    base, pages, unit = base >> PAGE_SHIFT, nbytes >> PAGE_SHIFT, 1 << st.shift
    first, count = int(st.maps[:, g.COUNT].sum()), -(-pages // unit)
    limit = st.p.lifetime_bytes >> PAGE_SHIFT or pages // SHARE
    st.maps[map_no] = base, base + pages, pages, base, 0, first, count, 1, entry(r.logarithm)(max(limit, 1))
    low = base + unit * np.arange(count)
    end = np.minimum(low + unit, base + pages)
    rows = st.region[first : first + count]
    rows[:, g.LOW] = rows[:, g.HEAD] = rows[:, g.TAIL] = low
    rows[:, g.END], rows[:, g.ROOM], rows[:, g.LARGEST] = end, end - low, end - low
    st.hole[low, g.BELOW] = st.hole[low, g.ABOVE] = -1
    st.hole[low, g.STOP], st.hole[end - 1, g.START] = end, low
    st.stamp[base : base + pages] = -map_no


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Enter `nbytes` in map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    pages, unit = nbytes >> PAGE_SHIFT, max((align + PAGE - 1) >> PAGE_SHIFT, 1)
    klass = r.class_of(st, map_no, attr)
    top = st.p.two_ended and klass == g.SHORT
    page = -1
    if 2 * pages <= 1 << st.shift:
        page = small(st, map_no, klass, top, pages, unit)
    if page < 0:
        page = g.anywhere(st, map_no, top, pages, unit)
        if page < 0:
            return NO_SPACE
        g.take_run(st, map_no, page, pages)
    r.enter(st, map_no, attr, page, pages)
    st.maps[map_no, g.FREE] -= pages
    st.maps[map_no, g.HIGH] = max(st.maps[map_no, g.HIGH], page + pages)
    return page << PAGE_SHIFT


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Remove [addr, addr + nbytes), all of it allocated, from map `map_no`. Returns 0."""
    page, end = addr >> PAGE_SHIFT, (addr + nbytes) >> PAGE_SHIFT
    st.maps[map_no, g.FREE] += end - page
    r.leave(st, map_no, page, end)
    row = g.region_of(st, map_no, page)
    while page < end:
        stop = min(end, st.region[row, g.END])
        g.put(st, map_no, row, page, stop)
        page, row = stop, row + 1
    return 0


@kernel
def small(st: State, map_no: MapNo, klass: int, top: int, pages: int, unit: int) -> int:
    """Take a range inside a region. Returns its page or -1."""
    hole = g.search(st, map_no, klass, False, st.p.choice == FULLEST, pages, unit)
    if hole < 0:
        hole = g.unclaimed(st, map_no, top, pages, unit)
        if hole < 0:
            hole = g.search(st, map_no, klass, True, True, pages, unit)
            if hole < 0:
                return -1
    row = g.region_of(st, map_no, hole)
    if st.region[row, g.CLASS] == g.NONE:
        st.region[row, g.CLASS] = klass
    page = g.rounded(hole, unit)
    g.cut(st, row, hole, page, page + pages)
    return page


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]). An entry is a hole."""
    out[:] = 0
    first, stop = st.maps[map_no, g.FIRST], st.maps[map_no, g.FIRST] + st.maps[map_no, g.COUNT]
    run, end = 0, 0  # pages of the hole that reaches the end of what has been seen
    for row in range(first, stop):
        hole = st.region[row, g.HEAD]
        if hole != st.region[row, g.LOW]:
            count_hole(out, run << PAGE_SHIFT, end << PAGE_SHIFT)
            run = 0
        while hole >= 0:
            end = st.hole[hole, g.STOP]
            run += end - hole
            if st.hole[hole, g.STOP] < st.region[row, g.END]:
                count_hole(out, run << PAGE_SHIFT, end << PAGE_SHIFT)
                run = 0
            hole = st.hole[hole, g.ABOVE]
    count_hole(out, run << PAGE_SHIFT, end << PAGE_SHIFT)
    out[gauge.ENTRIES] = out[gauge.HOLES]
    out[gauge.HIGH] = (st.maps[map_no, g.HIGH] - st.maps[map_no, g.BASE]) << PAGE_SHIFT
    out[gauge.WALKED] = st.maps[map_no, g.WALKED]


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    base, top = st.maps[map_no, g.BASE], st.maps[map_no, g.TOP]
    bins[:] = 1.0 if top > base else 0.0
    for row in range(st.maps[map_no, g.FIRST], st.maps[map_no, g.FIRST] + st.maps[map_no, g.COUNT]):
        hole = st.region[row, g.HEAD]
        while hole >= 0:
            erase(bins, base, top, hole, st.hole[hole, g.STOP])
            hole = st.hole[hole, g.ABOVE]


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """Regions and holes that searches of map `map_no` have passed."""
    return st.maps[map_no, g.WALKED]


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Free bytes of map `map_no`, without a walk."""
    return st.maps[map_no, g.FREE] << PAGE_SHIFT


def census(st: State) -> dict[str, int]:
    """Totals over all maps; regions by class."""
    rows = st.region[: st.maps[:, g.COUNT].sum(), g.CLASS]
    names = {"free_regions": g.NONE, "long_regions": g.LONG, "short_regions": g.SHORT, "wired_regions": g.WIRED,
             "mixed_regions": g.MIXED}  # fmt: skip
    return {
        "holes": sum(len(holes(st, map_no)) for map_no in range(len(st.maps))),
        "free_bytes": int(st.maps[:, g.FREE].sum()) << PAGE_SHIFT,
        "walked": int(st.maps[:, g.WALKED].sum()),
        **{name: int((rows == klass).sum()) for name, klass in names.items()},
    }


def used(st: State, map_no: int) -> int:
    """Bytes of map `map_no` that are allocated (to a submap, perhaps)."""
    base, top, free = st.maps[map_no, [g.BASE, g.TOP, g.FREE]].tolist()
    return (top - base - free) << PAGE_SHIFT


def holes(st: State, map_no: int) -> list[tuple[int, int]]:
    """(start, end) of the holes of map `map_no` by address, in bytes."""
    found: list[tuple[int, int]] = []
    for part in (p for row in _rows(st, map_no) for p in _parts(st, row)):
        start, end = (n << PAGE_SHIFT for n in part)
        found.append((found.pop()[0], end) if found and found[-1][1] == start else (start, end))
    return found


def regions(st: State, map_no: int) -> list[int]:
    """Classes of the regions of map `map_no` by address."""
    return st.region[_rows(st, map_no), g.CLASS].tolist()


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no` (slow, for tests)."""
    base, top, free = st.maps[map_no, [g.BASE, g.TOP, g.FREE]].tolist()
    vacant = np.zeros(len(st.stamp), bool)
    for row in _rows(st, map_no):
        klass, low, end, room, largest = st.region[row, : g.HEAD].tolist()
        parts = _parts(st, row)
        edges = [low, *(x for part in parts for x in part), end]
        insist(edges == sorted(edges), "holes out of order, overlapping or out of bounds")
        insist(all(a[1] < b[0] for a, b in pairwise(parts)), "neighbours that are not merged")
        insist(all(start < stop == st.hole[start, g.STOP] for start, stop in parts), "empty hole")
        insist(all(st.hole[stop - 1, g.START] == start for start, stop in parts), "a hole's last page leads elsewhere")
        insist(sum(stop - start for start, stop in parts) == room, "free pages of a region miscounted")
        insist(max((stop - start for start, stop in parts), default=0) <= largest, "a hole above the bound")
        insist((klass == g.NONE) == (room == end - low), "a class without a range, or a range without a class")
        insist(parts == [] or parts[-1][0] == st.region[row, g.TAIL], "wrong tail")
        for start, stop in parts:
            vacant[start:stop] = True
    insist(vacant.sum() == free, "free pages miscounted")
    insist(((st.stamp[base:top] == -map_no) == vacant[base:top]).all(), "marks differ from holes")
    _check_requesters(st)


def _check_requesters(st: State) -> None:
    """What is kept of the live pages of map 0 is what their marks say, where no submap has marks of its own there."""
    if st.p.segregate != BY_LIFETIME or (st.maps[1:, g.COUNT] > 0).any():
        return
    born, who = np.divmod(st.stamp[st.stamp > 0], slots.WHO_COUNT)
    rows, sums = st.who[: slots.WHO_COUNT], np.zeros(slots.WHO_COUNT, np.int64)
    insist((np.bincount(who, minlength=slots.WHO_COUNT) == rows[:, r.LIVE]).all(), "live pages miscounted")
    np.add.at(sums, who, born)
    insist((sums == rows[:, r.BORN]).all(), "births miscounted")


def _rows(st: State, map_no: int) -> range:
    first, count = st.maps[map_no, [g.FIRST, g.COUNT]].tolist()
    return range(first, first + count)


def _parts(st: State, row: int) -> list[tuple[int, int]]:
    """Holes of a region, cut at its ends, in pages."""
    found, hole = [], int(st.region[row, g.HEAD])
    while hole >= 0:
        found.append((hole, int(st.hole[hole, g.STOP])))
        hole = int(st.hole[hole, g.ABOVE])
    return found


def _validate(p: Params) -> None:
    """ValueError for what is impossible."""
    if p.region_bytes < 2 * PAGE or p.region_bytes & (p.region_bytes - 1):
        raise ValueError(f"region_bytes = {p.region_bytes}: must be a power of two of {2 * PAGE} at least")
    for name, most in (("segregate", BY_LIFETIME), ("choice", FULLEST), ("two_ended", 1)):
        if not 0 <= getattr(p, name) <= most:
            raise ValueError(f"{name} = {getattr(p, name)}: must lie in 0 … {most}")
    for name in ("lifetime_bytes", "patience"):
        if getattr(p, name) < 0:
            raise ValueError(f"{name} = {getattr(p, name)}: must not be negative")
