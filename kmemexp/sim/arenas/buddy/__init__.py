"""Linux's page allocator as an arena: mm/page_alloc.c of Linux 6.12.117; with `plain`, a textbook binary buddy.

Free lists by order and mobility, upper halves of what is split on the lists'
heads, merging, claiming and stealing of pageblocks (`zone`), per-CPU lists (`pcp`). A request is
served by the block that is large enough for its size and its alignment; what is not a power of two of pages gives the
rest back page by page and is freed page by page (alloc_pages_exact). What is larger than the largest block takes the
lowest range of wholly free largest blocks (alloc_contig_range, `contig`); a submap, where there is no such
range, the lowest range of free pages, since submaps often fill their map exactly. Wired memory and submaps are
unmovable, pageable memory is movable; nothing asks for reclaimable memory. A request that fails has all CPUs' lists
emptied and is tried once more (__alloc_pages_direct_reclaim). Each map is a zone of its own; its whole range is free at
the start, lowest block first on the lists, all pageblocks movable. Links and types of pages lie in struct page, which
every system has in some form: no memory is charged for them.

With `plain`: the lowest block of the smallest sufficient order, no CPUs' lists, no types, and the lists' order means
nothing. (With `max_order` = 10, SVr4's page allocation had this shape.)

Callers free exactly what they have allocated. Alignment is a power of two.

Left out: zones and NUMA nodes, highatomic and CMA pageblocks, isolation (free ranges are searched in steps of the
largest block), watermarks as limits (a zone gives its last page; they only steer the CPUs' lists) and their boost,
compaction, reclaim, the periodic decay of CPUs' lists (decay_pcp_high), page_group_by_mobility_disabled on machines of
less than 12 MiB, shuffling, races for locks.
"""

import numpy as np

from kmemexp.jit import entry, kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, MapNo, Shares, Words, int64
from kmemexp.sim.arenas._shared.measuring import count_hole, paint
from kmemexp.sim.arenas.buddy import index as buddy_index
from kmemexp.sim.arenas.buddy import pcp as buddy_pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.buddy.contents import check, free_blocks, walk
from kmemexp.sim.arenas.buddy.contig import ATTRIBUTE, EXACT, HELD_SHIFT, block_pages, contiguous
from kmemexp.sim.arenas.buddy.state import Params, State
from kmemexp.sim.map_calls import PCP_PAGES
from kmemexp.sim.slots import ATTR_PAGEABLE, NO_SPACE, PAGE_SHIFT
from kmemexp.sim.tables import gauge

__all__ = ["check", "free_blocks"]

CALLS = (PCP_PAGES, PCP_PAGES)
CPU_LOCK = "spin"  # per_cpu_pages.lock: interrupts come through

LEVELS = 3  # maps lie in maps: kernel_map, kmem_map, mb_map
MOST_ORDER = 18


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError for impossible orders."""
    st = empty(params, kva_bytes=kva_bytes, cpus=cpus, maps=maps)
    add_map(st, 0, 0, kva_bytes)
    return st


def empty(params: Params, *, kva_bytes: int, cpus: int, maps: int, spare_lists: int = 0) -> State:
    """Return a state with room for maps, all of them still empty.

    `spare_lists`: the last ones, for those who share a zone with the kernel.
    """
    p = _resolved(params, cpus)
    rows = LEVELS * (kva_bytes >> PAGE_SHIFT)
    lists = maps * z.LIST_TYPES * (p.max_order + 1) + maps * p.cpus * buddy_pcp.LISTS + spare_lists
    blocks = (rows >> p.pageblock_order) + 2 * maps
    st = State(
        p,
        tag=demand.zeros(rows, np.int8),
        held=demand.zeros(rows, np.int32),
        link=demand.zeros((blocks + rows, 2), np.int32),
        blocks=demand.zeros(blocks, np.int8),
        lists=np.full((lists, z.LIST_COLUMNS), -1, np.int64),
        tree=demand.zeros(4 * rows + 4 * maps if p.plain else 1, np.int32),
        maps=np.zeros((maps, z.MAP_COLUMNS), np.int64),
        pcp=np.zeros((maps * p.cpus, buddy_pcp.PCP_COLUMNS), np.int64),
        next=np.zeros(3, np.int64),
    )
    st.lists[:, z.COUNT] = 0
    return st


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if st.maps[map_no, z.TOP]:
        raise ValueError(f"map {map_no} is in use")
    first, pages = base >> PAGE_SHIFT, nbytes >> PAGE_SHIFT
    row, block, node = st.next.tolist()
    if row + pages > len(st.tag):
        raise ValueError(f"map {map_no}: maps may lie in each other {LEVELS} deep")
    zone, order = st.maps[map_no], st.p.pageblock_order
    zone[[z.BASE, z.TOP, z.HIGH]] = first, first + pages, first
    zone[[z.SHIFT, z.BLOCKS, z.TREE]] = row - first, block - (first >> order), node
    span = (first + pages - 1 >> order) - (first >> order) + 1
    st.blocks[block : block + span] = z.MOVABLE if st.p.migrate else z.UNMOVABLE
    zone[z.LEAVES] = 1 << max(pages - 1, 0).bit_length()
    st.next[:] += pages, span, 2 * zone[z.LEAVES]
    marks = buddy_index.watermarks(pages, st.p.min_free_kib)
    set_limits(st, map_no, marks.high, buddy_index.pcp_limits(pages, st.p.cpus, marks.low))
    _free_all(st, map_no)


def set_limits(st: State, map_no: int, high: int, pcp_bounds: tuple[int, int]) -> None:
    """Set a zone's high watermark, and between what its CPUs' lists are tuned (all in pages)."""
    zone = st.maps[map_no]
    zone[z.WMARK_HIGH] = high
    cpus = st.pcp[map_no * st.p.cpus : (map_no + 1) * st.p.cpus]
    cpus[:, buddy_pcp.BATCH] = buddy_index.pcp_batch(int(zone[z.TOP] - zone[z.BASE]))
    cpus[:, [buddy_pcp.LIMIT_MIN, buddy_pcp.LIMIT_MAX]] = pcp_bounds


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Allocate `nbytes` of map `map_no` at a multiple of `align`, a power of two. Returns the address or NO_SPACE."""
    return allocate(st, map_no, nbytes >> PAGE_SHIFT, max(align, 1) >> PAGE_SHIFT, attr, cpu)


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Free what `map_alloc` returned, whole. Returns 0."""
    release(st, map_no, addr >> PAGE_SHIFT, cpu)
    return 0


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]).

    A hole is a largest free block, with what lies on CPUs' lists counted as free; whole neighbours of the largest
    order are one hole. These are the requests that can be met after the CPUs' lists have been emptied.
    """
    out[:] = 0
    add_measure(st, map_no, st.maps[map_no, z.BASE], out)


@kernel
def add_measure(st: State, map_no: MapNo, start: int, out: Words) -> None:
    """Add the state of a map to what others have written; `start`: first page of all of these."""
    page, top = st.maps[map_no, z.BASE], st.maps[map_no, z.TOP]
    stuck = -1
    while page < top:
        end = page
        while end < top and st.held[end + st.maps[map_no, z.SHIFT]] == 0:
            end += block_pages(st, end + st.maps[map_no, z.SHIFT])
        measure_run(st, page, end, out)
        page = end
        if page < top:
            held = int64(st.held[page + st.maps[map_no, z.SHIFT]])
            end = page + (held >> HELD_SHIFT)
            if held & ATTRIBUTE != ATTR_PAGEABLE:
                stuck = measure_stuck(st, map_no, max(page >> st.p.pageblock_order, stuck + 1), end - 1, out)
            page = end
    out[gauge.ENTRIES] += st.maps[map_no, z.AREAS]
    if st.maps[map_no, z.HIGH] > st.maps[map_no, z.BASE]:
        out[gauge.HIGH] = max(out[gauge.HIGH], (st.maps[map_no, z.HIGH] - start) << PAGE_SHIFT)
    out[gauge.WALKED] += st.maps[map_no, z.WALKED]
    out[gauge.CLAIMS] += st.maps[map_no, z.CLAIMS]
    out[gauge.STEALS] += st.maps[map_no, z.STEALS]
    out[gauge.DRAINS] += st.maps[map_no, z.DRAINS]
    measure_types(st, map_no, out)


@kernel
def measure_stuck(st: State, map_no: MapNo, block: int, last: int, out: Words) -> int:
    """Count pageblocks from `block` to that of page `last`, which hold what cannot be moved. Returns the last one."""
    to = last >> st.p.pageblock_order
    for b in range(block, to + 1):
        out[gauge.STUCK] += 1
        out[gauge.MIXED] += st.blocks[st.maps[map_no, z.BLOCKS] + b] == z.MOVABLE
    return to


@kernel
def measure_types(st: State, map_no: MapNo, out: Words) -> None:
    """Count free blocks by type and order, as far as these are Linux's, and pageblocks by type (/proc/pagetypeinfo)."""
    for kind in range(z.TYPES):
        for order in range(min(st.p.max_order + 1, gauge.ORDERS)):
            out[gauge.FREE_BLOCKS + kind * gauge.ORDERS + order] += st.lists[
                z.zone_list(st, map_no, order, kind), z.COUNT
            ]
    if st.maps[map_no, z.TOP] > st.maps[map_no, z.BASE]:
        for b in range(
            st.maps[map_no, z.BASE] >> st.p.pageblock_order,
            ((st.maps[map_no, z.TOP] - 1) >> st.p.pageblock_order) + 1,
        ):
            kind = int64(st.blocks[st.maps[map_no, z.BLOCKS] + b])
            out[gauge.RESERVED_BLOCKS if kind == z.HIGHATOMIC else gauge.PAGEBLOCKS + kind] += 1


@kernel
def measure_run(st: State, page: int, end: int, out: Words) -> None:
    """Count the holes of a range that is free on the whole."""
    largest = st.p.max_order
    while page < end:
        order = 0
        while order < largest and page & (1 << order) == 0 and page + (2 << order) <= end:
            order += 1
        pages = 1 << order
        if order == largest:
            pages = (end - page) >> order << order
        page += pages
        count_hole(out, pages << PAGE_SHIFT, page << PAGE_SHIFT)


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    bins[:] = 0.0
    add_paint(st, map_no, bins, st.maps[map_no, z.BASE], st.maps[map_no, z.TOP])


@kernel
def add_paint(st: State, map_no: MapNo, bins: Shares, base: int, top: int) -> None:
    """Paint a map on a picture of pages [base, top), of which it may be a part."""
    page = st.maps[map_no, z.BASE]
    while page < st.maps[map_no, z.TOP]:
        row = page + st.maps[map_no, z.SHIFT]
        pages = int64(st.held[row]) >> HELD_SHIFT
        if pages == 0:
            page += block_pages(st, row)
            continue
        paint(bins, base, top, page, page + pages)
        page += pages


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """Blocks that searches for more than the largest block have passed; other requests search nothing linearly."""
    return st.maps[map_no, z.WALKED]


@kernel
def map_moved(st: State, map_no: MapNo) -> int:
    """Blocks that have gone from or to the zone's own lists, under zone->lock."""
    return st.maps[map_no, z.MOVED]


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Free bytes of map `map_no`, those on CPUs' lists included."""
    return (st.maps[map_no, z.TOP] - st.maps[map_no, z.BASE] - st.maps[map_no, z.USED]) << PAGE_SHIFT


@kernel
def order_for(pages: int) -> int:
    """get_order: the smallest order of at least that many pages."""
    order = 0
    while 1 << order < pages:
        order += 1
    return order


@outlined
def allocate(st: State, map_no: MapNo, pages: int, align: int, attr: int, cpu: int) -> int:
    """map_alloc in pages."""
    if align & (align - 1):
        return NO_SPACE
    order = order_for(max(pages, align))
    kind = z.MOVABLE if attr == ATTR_PAGEABLE and st.p.migrate else z.UNMOVABLE
    block = 1 << order
    if order > st.p.max_order:
        page = contiguous(st, map_no, pages, align, attr)
        block = 0
    else:
        page = buddy_pcp.get_pages(st, map_no, cpu, order, kind)
        if page < 0 and st.p.pcp and buddy_pcp.drain_all(st, map_no) > 0:
            st.maps[map_no, z.DRAINS] += 1
            page = buddy_pcp.attempt(st, map_no, cpu, order, kind, 0)
    return NO_SPACE if page < 0 else enter(st, map_no, page, pages, block, attr)


@outlined
def enter(st: State, map_no: MapNo, page: int, pages: int, block: int, attr: int) -> int:
    """Keep the first `pages` of a block of so many (0: they are no block) for a request. Returns the address."""
    for rest in range(page + pages, page + block):
        z.free_pages(st, map_no, rest, 0, True)
    exact = EXACT if block != pages else 0
    st.held[page + st.maps[map_no, z.SHIFT]] = pages << HELD_SHIFT | exact | attr
    if attr == ATTR_PAGEABLE:
        paint_tags(st, map_no, page, pages, z.MOVABLE_PAGE)
    st.maps[map_no, z.USED] += pages
    st.maps[map_no, z.AREAS] += 1
    st.maps[map_no, z.HIGH] = max(st.maps[map_no, z.HIGH], page + pages)
    return page << PAGE_SHIFT


@kernel
def paint_tags(st: State, map_no: MapNo, page: int, pages: int, tag: int) -> None:
    """Tag every page of a range."""
    for row in range(page + st.maps[map_no, z.SHIFT], page + pages + st.maps[map_no, z.SHIFT]):
        st.tag[row] = tag


@outlined
def release(st: State, map_no: MapNo, page: int, cpu: int) -> None:
    """map_free in pages."""
    row = page + st.maps[map_no, z.SHIFT]
    held = int64(st.held[row])
    pages = held >> HELD_SHIFT
    if pages == 0:
        return
    st.held[row] = 0
    if held & ATTRIBUTE == ATTR_PAGEABLE:
        paint_tags(st, map_no, page, pages, 0)
    st.maps[map_no, z.USED] -= pages
    st.maps[map_no, z.AREAS] -= 1
    order = 0 if held & EXACT else order_for(pages)
    for at in range(page, page + pages, 1 << order):
        if buddy_pcp.holds(st, order):
            buddy_pcp.give(st, map_no, cpu, at, order)
        else:
            z.free_pages(st, map_no, at, order, False)


def census(st: State) -> dict[str, int]:
    """Totals over all maps, in pages and counts."""
    sums = st.maps.sum(axis=0).tolist()
    return {
        "entries": sums[z.AREAS],
        "used_pages": sums[z.USED],
        "free_pages": sums[z.FREE],
        "cpu_pages": int(st.pcp[:, buddy_pcp.COUNT].sum()),
        "claims": sums[z.CLAIMS],
        "steals": sums[z.STEALS],
        "drains": sums[z.DRAINS],
        "walked": sums[z.WALKED],
    }


def used(st: State, map_no: int) -> int:
    """Bytes of map `map_no` that are allocated (to a submap, perhaps)."""
    return int(st.maps[map_no, z.USED]) << PAGE_SHIFT


def ranges(st: State, map_no: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of what is allocated in map `map_no`, in address order."""
    return [
        (page << PAGE_SHIFT, page + (held >> HELD_SHIFT) << PAGE_SHIFT, held & ATTRIBUTE)
        for page, held, _ in walk(st, map_no)
        if held
    ]


def _free_all(st: State, map_no: int) -> None:
    """Free the whole of a map as boot does: largest aligned blocks, in address order, each to the tail of its list."""
    zone, largest = st.maps[map_no], st.p.max_order
    base, top = zone[[z.BASE, z.TOP]].tolist()
    kind = z.MOVABLE if st.p.migrate else z.UNMOVABLE
    edge = -(-base // (1 << largest)) << largest
    middle = range(edge, max(edge, top >> largest << largest), 1 << largest)
    page = base
    while page < top:
        if middle and page == middle.start:
            _free_largest(st, map_no, np.arange(middle.start, middle.stop, middle.step), kind)
            page = middle.stop
            continue
        order = min((page & -page).bit_length() - 1 if page else largest, (top - page).bit_length() - 1, largest)
        entry(z.put)(st, map_no, page, order, kind, True)
        page += 1 << order


def _free_largest(st: State, map_no: int, pages: Array, kind: int) -> None:
    """`put` of many blocks of the largest order on their empty list."""
    zone, order = st.maps[map_no], st.p.max_order
    rows = pages + zone[z.SHIFT]
    st.tag[rows] = z.FREE_BLOCK + order
    zone[z.FREE] += len(pages) << order
    which = entry(z.zone_list)(st, map_no, order, kind)
    st.lists[which, z.COUNT] += len(pages)
    if st.p.plain:
        tree = st.tree[zone[z.TREE] :]
        nodes = zone[z.LEAVES] + pages - zone[z.BASE]
        while len(nodes):
            tree[nodes] |= 1 << order
            nodes = np.unique(nodes >> 1)
            nodes = nodes[nodes > 0]
        return
    st.lists[which, [z.HEAD, z.TAIL]] = pages[0], pages[-1]
    links = zone[z.BLOCKS] + (pages >> st.p.pageblock_order)
    st.link[links[:-1], z.NEXT], st.link[links[1:], z.PREV] = pages[1:], pages[:-1]
    st.link[links[-1], z.NEXT] = st.link[links[0], z.PREV] = -1


def _resolved(p: Params, cpus: int) -> Params:
    """Fill in what is 0 and what follows from `plain`."""
    if not 0 <= p.max_order <= MOST_ORDER or not p.pageblock_order >= 0:
        raise ValueError(
            f"max_order = {p.max_order}, pageblock_order = {p.pageblock_order}: must lie in 0 … {MOST_ORDER}"
        )
    p = p._replace(cpus=p.cpus or cpus, pageblock_order=min(p.pageblock_order, p.max_order))
    return p._replace(pcp=0, migrate=0) if p.plain else p
