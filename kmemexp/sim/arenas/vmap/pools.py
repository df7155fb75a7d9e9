"""The pools of Linux's vmap nodes, and the drain of lazily freed areas (mm/vmalloc.c of Linux 6.12).

A node has a list for each number of pages; lists of areas are linked through their rows of `area`. `st` is the State of
`sim.arenas.vmap`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import MapNo, Table, int64
from kmemexp.sim.arenas.vmap import tree as t
from kmemexp.sim.arenas.vmap.state import State
from kmemexp.sim.slots import PAGE, PAGE_SHIFT

POOL_SIZES = 256  # MAX_VA_SIZE_PAGES: pools for 1 … 256 pages
FLUSH_CEILING = 33  # x86: more pages are flushed all at once

# Columns of a pool and of a chain (1 + row; 0: none).
HEAD = 0
TAIL = 1
LENGTH = 2
DECAYED = 2  # of `chains`: head and tail of what a node's pools have given up


@kernel
def pool_of(st: State, map_no: MapNo, node: int, pages: int) -> int:
    """Row of a node's pool for areas of that many pages."""
    return (map_no * st.p.nodes + node) * POOL_SIZES + pages - 1


@kernel
def take_pooled(st: State, map_no: MapNo, node: int, pages: int, align: int) -> int:
    """node_pool_del_va: the first area of the pool; one that is not aligned goes to its end instead. -1: none."""
    if pages > POOL_SIZES:
        return -1
    pool = pool_of(st, map_no, node, pages)
    row = st.pools[pool, HEAD] - 1
    if row < 0:
        return -1
    addr = st.maps[map_no, t.BASE] + ((row - st.maps[map_no, t.ROW]) << PAGE_SHIFT)
    unlink_first(st, pool)
    if t.align_up(addr, align) != addr:
        append(st, st.pools, pool, HEAD, row)
        return -1
    st.pools[pool, LENGTH] -= 1
    st.pooled[map_no * st.p.nodes + node] -= 1
    st.maps[map_no, t.POOLED] -= pages
    st.maps[map_no, t.POOL_HITS] += 1
    return addr


@kernel
def unlink_first(st: State, pool: int) -> None:
    """Take the first area off a pool's list."""
    st.pools[pool, HEAD] = st.area[st.pools[pool, HEAD] - 1, t.LINK]
    if st.pools[pool, HEAD] == 0:
        st.pools[pool, TAIL] = 0


@kernel
def append(st: State, lists: Table, which: int, head: int, row: int) -> None:
    """Put an area at the end of a list, whose head and tail are two columns of a row of `lists`."""
    st.area[row, t.LINK] = 0
    last = lists[which, head + 1]
    if last:
        st.area[last - 1, t.LINK] = row + 1
    else:
        lists[which, head] = row + 1
    lists[which, head + 1] = row + 1


@outlined
def drain(st: State, map_no: MapNo, full: int) -> None:
    """__purge_vmap_area_lazy: lazily freed areas to their pools or the tree. `full`: all pools to the tree as well."""
    low, top = decay(st, map_no, full)
    low, top = min(low, st.maps[map_no, t.LAZY_LOW]), max(top, st.maps[map_no, t.LAZY_TOP])
    gather(st, map_no, low, top)
    for node in range(st.p.nodes):
        reclaim_decayed(st, map_no, st.chains[node, DECAYED])
    if st.maps[map_no, t.LAZY]:
        st.maps[map_no, t.FLUSHES] += 1
        if st.maps[map_no, t.LAZY_TOP] - st.maps[map_no, t.LAZY_LOW] > FLUSH_CEILING * PAGE:
            st.maps[map_no, t.FULL_FLUSHES] += 1
        for node in range(st.p.nodes):
            purge(st, map_no, node, st.chains[node, HEAD], full)
    st.maps[map_no, t.LAZY] = 0
    st.maps[map_no, t.LAZY_LOW], st.maps[map_no, t.LAZY_TOP] = st.maps[map_no, t.TOP], st.maps[map_no, t.BASE]


@kernel
def decay(st: State, map_no: MapNo, full: int) -> tuple[int, int]:
    """decay_va_pool_node of all nodes: mark what the pools give up. Returns its lowest start and highest end."""
    low, top = st.maps[map_no, t.TOP], st.maps[map_no, t.BASE]
    for node in range(st.p.nodes):
        if st.pooled[map_no * st.p.nodes + node] == 0:
            continue
        for pages in range(1, POOL_SIZES + 1):
            pool = pool_of(st, map_no, node, pages)
            count = st.pools[pool, LENGTH]
            if not full and count >= 4:
                count >>= 2
            for _ in range(count):
                row = st.pools[pool, HEAD] - 1
                unlink_first(st, pool)
                st.area[row, t.KIND] = t.AREA_DECAYED
                addr = st.maps[map_no, t.BASE] + ((row - st.maps[map_no, t.ROW]) << PAGE_SHIFT)
                low, top = min(low, addr), max(top, addr + (pages << PAGE_SHIFT))
            st.pools[pool, LENGTH] -= count
            st.pooled[map_no * st.p.nodes + node] -= count
            st.maps[map_no, t.POOLED] -= count * pages
    return low, top


@kernel
def gather(st: State, map_no: MapNo, low: int, top: int) -> None:
    """Put lazily freed and decayed areas on their nodes' chains, in address order: a walk over a stretch of the map."""
    st.chains[:] = 0
    addr = low
    while addr < top:
        row = t.row_of(st, map_no, addr)
        kind = st.area[row, t.KIND]
        if kind == t.AREA_LAZY or kind == t.AREA_DECAYED:
            node = max(int64(st.area[row, t.OWNER]) - 1, 0)
            append(st, st.chains, node, HEAD if kind == t.AREA_LAZY else DECAYED, row)
        addr += t.extent(st, map_no, addr)


@kernel
def reclaim_decayed(st: State, map_no: MapNo, link: int) -> None:
    """Give decayed areas of one node to the tree; neighbours have been merged with each other before."""
    start = end = -1
    while link:
        row = link - 1
        addr = st.maps[map_no, t.BASE] + ((row - st.maps[map_no, t.ROW]) << PAGE_SHIFT)
        if addr != end:
            if end >= 0:
                t.merge_or_add(st, map_no, start, end)
            start = addr
        end = addr + (int64(st.area[row, t.PAGES]) << PAGE_SHIFT)
        st.maps[map_no, t.AREAS] -= 1
        link = int64(st.area[row, t.LINK])
    if end >= 0:
        t.merge_or_add(st, map_no, start, end)


@kernel
def purge(st: State, map_no: MapNo, node: int, link: int, full: int) -> None:
    """purge_vmap_node: to the heads of the pools, lowest address first; what is left to the tree, highest first."""
    rest = 0
    while link:
        row = link - 1
        link = int64(st.area[row, t.LINK])
        pages = int64(st.area[row, t.PAGES])
        if st.area[row, t.OWNER] == 0 or full or pages > POOL_SIZES:
            st.area[row, t.LINK] = rest
            rest = row + 1
            continue
        pool = pool_of(st, map_no, node, pages)
        st.area[row, t.KIND] = t.AREA_POOLED
        st.area[row, t.LINK] = st.pools[pool, HEAD]
        st.pools[pool, HEAD] = row + 1
        if st.pools[pool, TAIL] == 0:
            st.pools[pool, TAIL] = row + 1
        st.pools[pool, LENGTH] += 1
        st.pooled[map_no * st.p.nodes + node] += 1
        st.maps[map_no, t.POOLED] += pages
    while rest:
        row = rest - 1
        rest = int64(st.area[row, t.LINK])
        addr = st.maps[map_no, t.BASE] + ((row - st.maps[map_no, t.ROW]) << PAGE_SHIFT)
        st.maps[map_no, t.AREAS] -= 1
        t.merge_or_add(st, map_no, addr, addr + (int64(st.area[row, t.PAGES]) << PAGE_SHIFT))
