"""Regions of a map and their holes: where a range fits, taking it out, putting it back. In pages.

Each region has a list of its holes by address, cut at the region's ends. A hole is named by its first page; its last
one leads back to it, and every page knows whether it is allocated, so a range that is freed beside a hole needs no
search. A region also has a bound on its largest hole, so that searches pass over regions without room.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import MapNo
from kmemexp.sim.arenas.regions.state import State

# Columns of State.maps.
BASE = 0
TOP = 1
FREE = 2
HIGH = 3  # highest end ever allocated
WALKED = 4  # regions and holes that searches passed
FIRST = 5  # row of the map's first region
COUNT = 6  # its regions
CLOCK = 7  # 1 + pages entered since the beginning
LIMIT = 8  # lifetime that divides short from long, see `requesters`
MAP_COLUMNS = 9

# Columns of State.region.
CLASS = 0
LOW = 1
END = 2
ROOM = 3  # free pages
LARGEST = 4  # bound on its largest hole: no hole is larger
HEAD = 5  # its first hole, or -1
TAIL = 6  # its last hole
REGION_COLUMNS = 8  # one cache line

# Columns of State.hole; a row per page.
BELOW = 0  # hole before this one in the region, or -1
ABOVE = 1
STOP = 2  # first page behind the hole
START = 3  # in the row of its last page: the hole
HOLE_COLUMNS = 4

# Classes of a region. What the classes of requesters stand for depends on Params.segregate.
NONE = 0  # wholly free
LONG = 1
SHORT = 2
WIRED = 3
MIXED = 4  # a large range lies in it
LAST_KEY = (1 << 62) - 1  # above all keys of regions


@kernel
def rounded(page: int, align: int) -> int:
    """Lowest multiple of `align` that is not below `page`."""
    return page if align == 1 else (page + align - 1) // align * align


@outlined
def fit(st: State, map_no: MapNo, r: int, pages: int, align: int) -> int:
    """Lowest hole of region `r` that is large enough, or -1; then the bound on its largest hole is exact."""
    h = st.region[r, HEAD]
    largest = passed = 0
    while h >= 0 and rounded(h, align) + pages > st.hole[h, STOP]:
        largest = max(largest, st.hole[h, STOP] - h)
        passed += 1
        h = st.hole[h, ABOVE]
    if h < 0:
        st.region[r, LARGEST] = largest
    st.maps[map_no, WALKED] += passed
    return h


@outlined
def search(st: State, map_no: MapNo, klass: int, others: int, fullest: int, pages: int, align: int) -> int:
    """Hole for a small range in a region of `klass` (`others`: of any other class), or -1.

    Regions are tried by address or, with `fullest`, those with the most allocated pages first.
    """
    first, stop = st.maps[map_no, FIRST], st.maps[map_no, FIRST] + st.maps[map_no, COUNT]
    tried = -1
    passed = 0
    while True:
        best, best_key = -1, LAST_KEY
        for r in range(first if fullest else max(first, tried + 1), stop):
            if (st.region[r, CLASS] == klass) == others:
                continue
            passed += 1
            if st.region[r, LARGEST] < pages:
                continue
            if not fullest:
                best = best_key = r
                break
            key = emptiness(st, r)
            if tried < key < best_key:
                best, best_key = r, key
        if best < 0:
            break
        h = fit(st, map_no, best, pages, align)
        if h >= 0:
            st.maps[map_no, WALKED] += passed - 1
            return h
        tried = best_key
    st.maps[map_no, WALKED] += passed
    return -1


@outlined
def unclaimed(st: State, map_no: MapNo, top: int, pages: int, align: int) -> int:
    """Lowest (`top`: highest) region that is wholly free, as a hole, if the range fits in it; -1: none."""
    first, count = st.maps[map_no, FIRST], st.maps[map_no, COUNT]
    for k in range(count):
        r = first + (count - 1 - k if top else k)
        if st.region[r, CLASS] == NONE:
            if rounded(st.region[r, LOW], align) + pages <= st.region[r, END]:
                return st.region[r, LOW]
            st.maps[map_no, WALKED] += 1
    return -1


@outlined
def anywhere(st: State, map_no: MapNo, top: int, pages: int, align: int) -> int:
    """Page for a range at the lowest (`top`: highest) place of the map where it fits, across regions; -1: none."""
    found = run = -1  # run: where the hole begins that reaches the end of the region before
    passed = 0
    for r in range(st.maps[map_no, FIRST], st.maps[map_no, FIRST] + st.maps[map_no, COUNT]):
        h = st.region[r, HEAD]
        if h != st.region[r, LOW]:
            run = -1
        # Between the first and the last hole none can be large enough where the bound says so.
        leaps = st.region[r, LARGEST] < pages
        while h >= 0:
            start, stop = run if run >= 0 else h, st.hole[h, STOP]
            passed += 1
            if top and (stop - pages) // align * align >= start:
                found = (stop - pages) // align * align
            elif not top and rounded(start, align) + pages <= stop:
                st.maps[map_no, WALKED] += passed - 1
                return rounded(start, align)
            run = start if stop == st.region[r, END] else -1
            h = st.region[r, TAIL] if leaps and h != st.region[r, TAIL] else st.hole[h, ABOVE]
    st.maps[map_no, WALKED] += passed
    return found


@outlined
def take_run(st: State, map_no: MapNo, page: int, pages: int) -> None:
    """Take a range that may span regions; the class of those it touches is MIXED."""
    r = region_of(st, map_no, page)
    stop = page + pages
    while page < stop:
        end = min(stop, st.region[r, END])
        h = st.region[r, TAIL]
        if h > page:
            h = st.region[r, HEAD]
            while st.hole[h, STOP] <= page:
                h = st.hole[h, ABOVE]
        cut(st, r, h, page, end)
        st.region[r, CLASS] = MIXED
        page, r = end, r + 1


@kernel
def region_of(st: State, map_no: MapNo, page: int) -> int:
    """Row of the region that a page lies in."""
    return st.maps[map_no, FIRST] + ((page - st.maps[map_no, BASE]) >> st.shift)


@kernel
def cut(st: State, r: int, h: int, page: int, end: int) -> None:
    """Take [page, end) out of hole `h` of region `r`."""
    stop = st.hole[h, STOP]
    above = st.hole[h, ABOVE]
    below = st.hole[h, BELOW] if page == h else h
    if page > h:
        close(st, h, page)
    if end < stop:
        close(st, end, stop)
        link(st, r, below, end)
        link(st, r, end, above)
    else:
        link(st, r, below, above)
    st.region[r, ROOM] -= end - page


@kernel
def put(st: State, map_no: MapNo, r: int, page: int, end: int) -> None:
    """Make [page, end), which lies in region `r` and is marked as free, a hole or part of one."""
    region, hole = st.region, st.hole
    joins_below = page > region[r, LOW] and st.stamp[page - 1] == -map_no
    joins_above = end < region[r, END] and st.stamp[end] == -map_no
    stop = hole[end, STOP] if joins_above else end
    if joins_below:
        start = hole[page - 1, START]
        if joins_above:
            link(st, r, start, hole[end, ABOVE])
    else:
        start = page
        below = hole[end, BELOW] if joins_above else hole_below(st, map_no, r, page)
        above = hole[end, ABOVE] if joins_above else (region[r, HEAD] if below < 0 else hole[below, ABOVE])
        link(st, r, below, start)
        link(st, r, start, above)
    close(st, start, stop)
    region[r, ROOM] += end - page
    region[r, LARGEST] = max(region[r, LARGEST], stop - start)
    if region[r, ROOM] == region[r, END] - region[r, LOW]:
        region[r, CLASS] = NONE


@kernel
def hole_below(st: State, map_no: MapNo, r: int, page: int) -> int:
    """Last hole of region `r` that begins below a page, or -1."""
    h = st.region[r, TAIL]
    passed = 0
    while h > page:
        h = st.hole[h, BELOW]
        passed += 1
    st.maps[map_no, WALKED] += passed
    return h


@kernel
def close(st: State, h: int, stop: int) -> None:
    """Say where a hole ends."""
    st.hole[h, STOP] = stop
    st.hole[stop - 1, START] = h


@kernel
def link(st: State, r: int, below: int, above: int) -> None:
    """Make two holes of a region neighbours in its list; -1: the list's end."""
    if below >= 0:
        st.hole[below, ABOVE] = above
    else:
        st.region[r, HEAD] = above
    if above >= 0:
        st.hole[above, BELOW] = below
    else:
        st.region[r, TAIL] = below


@kernel
def emptiness(st: State, r: int) -> int:
    """Key that orders regions by allocated pages, most first, then by address."""
    taken = st.region[r, END] - st.region[r, LOW] - st.region[r, ROOM]
    return (((1 << 30) - taken) << 32) | r
