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

from kmemexp.jit import kernel, outlined
from kmemexp.sim import slots
from kmemexp.sim.arenas._shared.measuring import count_hole, paint
from kmemexp.sim.arenas.buddy import index as buddy_index
from kmemexp.sim.arenas.buddy import pcp as buddy_pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.buddy.contents import walk
from kmemexp.sim.arenas.buddy.contig import ATTRIBUTE, EXACT, HELD_SHIFT, block_pages, contiguous
from kmemexp.sim.arenas.buddy.state import Params, State
from kmemexp.sim.slots import ATTR_PAGEABLE, NO_SPACE, PAGE_SHIFT

__all__ = ["check", "free_blocks"]

LEVELS = 3  # maps lie in maps: kernel_map, kmem_map, mb_map
MOST_ORDER = 18


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError for impossible orders."""
    st = empty(params, kva_bytes=kva_bytes, cpus=cpus, maps=maps)
    add_map(st, 0, 0, kva_bytes)
    return st


def empty(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Return a state with room for maps, all of them still empty."""
    p = _resolved(params, cpus)
    rows = LEVELS * (kva_bytes >> PAGE_SHIFT)
    lists = maps * z.TYPES * (p.max_order + 1) + maps * p.cpus * buddy_pcp.LISTS
    st = State(
        p,
        tag=np.zeros(rows, np.int8),
        held=np.zeros(rows, np.int32),
        link=np.zeros((rows, 2), np.int32),
        blocks=np.zeros((rows >> p.pageblock_order) + 2 * maps, np.int8),
        lists=np.full((lists, z.LIST_COLUMNS), -1, np.int64),
        tree=np.zeros(4 * rows + 4 * maps if p.plain else 1, np.int32),
        maps=np.zeros((maps, z.MAP_COLUMNS), np.int64),
        pcp=np.zeros((maps * p.cpus, buddy_pcp.PCP_COLUMNS), np.int64),
        next=np.zeros(3, np.int64),
    )
    st.lists[:, z.COUNT] = 0
    return st


def add_map(st: State, m: int, base: int, nbytes: int) -> None:
    """Give map `m`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if st.maps[m, z.TOP]:
        raise ValueError(f"map {m} is in use")
    first, pages = base >> PAGE_SHIFT, nbytes >> PAGE_SHIFT
    row, block, node = st.next.tolist()
    if row + pages > len(st.tag):
        raise ValueError(f"map {m}: maps may lie in each other {LEVELS} deep")
    zone, order = st.maps[m], st.p.pageblock_order
    zone[[z.BASE, z.TOP, z.HIGH]] = first, first + pages, first
    zone[[z.SHIFT, z.BLOCKS, z.TREE]] = row - first, block - (first >> order), node
    span = (first + pages - 1 >> order) - (first >> order) + 1
    st.blocks[block : block + span] = z.MOVABLE if st.p.migrate else z.UNMOVABLE
    zone[z.LEAVES] = 1 << max(pages - 1, 0).bit_length()
    st.next[:] += pages, span, 2 * zone[z.LEAVES]
    zone[z.WMARK_HIGH] = buddy_index.watermarks(pages).high
    cpus = st.pcp[m * st.p.cpus : (m + 1) * st.p.cpus]
    cpus[:, buddy_pcp.BATCH] = buddy_index.pcp_batch(pages)
    cpus[:, [buddy_pcp.LIMIT_MIN, buddy_pcp.LIMIT_MAX]] = buddy_index.pcp_high(pages, st.p.cpus)
    _free_all(st, m)


@kernel
def map_alloc(st, m, nbytes, align, attr, cpu):
    """Allocate `nbytes` of map `m` at a multiple of `align`, a power of two. Returns the address or NO_SPACE."""
    return allocate(st, m, nbytes >> PAGE_SHIFT, max(align, 1) >> PAGE_SHIFT, attr, cpu)


@kernel
def map_free(st, m, addr, nbytes, cpu):
    """Free what `map_alloc` returned, whole. Returns 0."""
    release(st, m, addr >> PAGE_SHIFT, cpu)
    return 0


@outlined
def map_measure(st, m, out):
    """Write the state of map `m` into `out` (int64[M_COUNT]).

    A hole is a largest free block, with what lies on CPUs' lists counted as free; whole neighbours of the largest
    order are one hole. These are the requests that can be met after the CPUs' lists have been emptied.
    """
    out[:] = 0
    page, top = st.maps[m, z.BASE], st.maps[m, z.TOP]
    while page < top:
        end = page
        while end < top and st.held[end + st.maps[m, z.SHIFT]] == 0:
            end += block_pages(st, end + st.maps[m, z.SHIFT])
        measure_run(st, page, end, out)
        page = end
        if page < top:
            page += np.int64(st.held[page + st.maps[m, z.SHIFT]]) >> HELD_SHIFT
    out[slots.M_ENTRIES] = st.maps[m, z.AREAS]
    out[slots.M_HIGH] = (st.maps[m, z.HIGH] - st.maps[m, z.BASE]) << PAGE_SHIFT
    out[slots.M_WALKED] = st.maps[m, z.WALKED]


@kernel
def measure_run(st, page, end, out):
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
        count_hole(out, pages << PAGE_SHIFT)


@outlined
def map_paint(st, m, bins):
    """Write the occupied share of each of len(bins) equal stretches of map `m` (float64, 0 … 1)."""
    bins[:] = 0.0
    base, top = st.maps[m, z.BASE], st.maps[m, z.TOP]
    page = base
    while page < top:
        row = page + st.maps[m, z.SHIFT]
        pages = np.int64(st.held[row]) >> HELD_SHIFT
        if pages == 0:
            page += block_pages(st, row)
            continue
        paint(bins, base, top, page, page + pages)
        page += pages


@kernel
def map_walked(st, m):
    """Blocks that searches for more than the largest block have passed; other requests search nothing linearly."""
    return st.maps[m, z.WALKED]


@kernel
def map_free_bytes(st, m):
    """Free bytes of map `m`, those on CPUs' lists included."""
    return (st.maps[m, z.TOP] - st.maps[m, z.BASE] - st.maps[m, z.USED]) << PAGE_SHIFT


@kernel
def order_for(pages):
    """get_order: the smallest order of at least that many pages."""
    order = 0
    while 1 << order < pages:
        order += 1
    return order


@outlined
def allocate(st, m, pages, align, attr, cpu):
    """map_alloc in pages."""
    if align & (align - 1):
        return NO_SPACE
    order = order_for(max(pages, align))
    kind = z.MOVABLE if attr == ATTR_PAGEABLE and st.p.migrate else z.UNMOVABLE
    block = 1 << order
    if order > st.p.max_order:
        page = contiguous(st, m, pages, align, attr)
        block = pages
    else:
        page = buddy_pcp.get_pages(st, m, cpu, order, kind)
        if page < 0 and st.p.pcp and buddy_pcp.drain_all(st, m) > 0:
            st.maps[m, z.DRAINS] += 1
            page = buddy_pcp.attempt(st, m, cpu, order, kind, 0)
    if page < 0:
        return NO_SPACE
    for rest in range(page + pages, page + block):
        z.free_pages(st, m, rest, 0, True)
    exact = EXACT if block != pages or order > st.p.max_order else 0
    st.held[page + st.maps[m, z.SHIFT]] = pages << HELD_SHIFT | exact | attr
    if attr == ATTR_PAGEABLE:
        paint_tags(st, m, page, pages, z.MOVABLE_PAGE)
    st.maps[m, z.USED] += pages
    st.maps[m, z.AREAS] += 1
    st.maps[m, z.HIGH] = max(st.maps[m, z.HIGH], page + pages)
    return page << PAGE_SHIFT


@kernel
def paint_tags(st, m, page, pages, tag):
    """Tag every page of a range."""
    for row in range(page + st.maps[m, z.SHIFT], page + pages + st.maps[m, z.SHIFT]):
        st.tag[row] = tag


@outlined
def release(st, m, page, cpu):
    """map_free in pages."""
    row = page + st.maps[m, z.SHIFT]
    held = np.int64(st.held[row])
    pages = held >> HELD_SHIFT
    if pages == 0:
        return
    st.held[row] = 0
    if held & ATTRIBUTE == ATTR_PAGEABLE:
        paint_tags(st, m, page, pages, 0)
    st.maps[m, z.USED] -= pages
    st.maps[m, z.AREAS] -= 1
    order = 0 if held & EXACT else order_for(pages)
    for at in range(page, page + pages, 1 << order):
        if buddy_pcp.holds(st, order):
            buddy_pcp.give(st, m, cpu, at, order)
        else:
            z.free_pages(st, m, at, order, False)


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


def used(st: State, m: int) -> int:
    """Bytes of map `m` that are allocated (to a submap, perhaps)."""
    return int(st.maps[m, z.USED]) << PAGE_SHIFT


def ranges(st: State, m: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of what is allocated in map `m`, in address order."""
    return [
        (page << PAGE_SHIFT, page + (held >> HELD_SHIFT) << PAGE_SHIFT, held & ATTRIBUTE)
        for page, held, _ in walk(st, m)
        if held
    ]


def _free_all(st: State, m: int) -> None:
    """Free the whole of a map as boot does: largest aligned blocks, in address order, each to the tail of its list."""
    zone, largest = st.maps[m], st.p.max_order
    base, top = zone[[z.BASE, z.TOP]].tolist()
    kind = z.MOVABLE if st.p.migrate else z.UNMOVABLE
    edge = -(-base // (1 << largest)) << largest
    middle = range(edge, max(edge, top >> largest << largest), 1 << largest)
    page = base
    while page < top:
        if middle and page == middle.start:
            _free_largest(st, m, np.arange(middle.start, middle.stop, middle.step), kind)
            page = middle.stop
            continue
        order = min((page & -page).bit_length() - 1 if page else largest, (top - page).bit_length() - 1, largest)
        z.put(st, m, page, order, kind, True)
        page += 1 << order


def _free_largest(st: State, m: int, pages: np.ndarray, kind: int) -> None:
    """`put` of many blocks of the largest order on their empty list."""
    zone, order = st.maps[m], st.p.max_order
    rows = pages + zone[z.SHIFT]
    st.tag[rows] = z.FREE_BLOCK + order
    zone[z.FREE] += len(pages) << order
    which = z.zone_list(st, m, order, kind)
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
    st.link[rows[:-1], z.NEXT], st.link[rows[1:], z.PREV] = pages[1:], pages[:-1]
    st.link[rows[-1], z.NEXT] = st.link[rows[0], z.PREV] = -1


def _resolved(p: Params, cpus: int) -> Params:
    """Fill in what is 0 and what follows from `plain`."""
    if not 0 <= p.max_order <= MOST_ORDER or not p.pageblock_order >= 0:
        raise ValueError(
            f"max_order = {p.max_order}, pageblock_order = {p.pageblock_order}: must lie in 0 … {MOST_ORDER}"
        )
    p = p._replace(cpus=p.cpus or cpus, pageblock_order=min(p.pageblock_order, p.max_order))
    return p._replace(pcp=0, migrate=0) if p.plain else p
