"""The zone of Linux 6.12's page allocator: free lists by order and mobility, splitting, merging, falling back.

What happens under the zone's lock (mm/page_alloc.c). `st` is the State of `sim.arenas.buddy`, `m` the zone (one per
map), a page is its number in the KVA. A free block is on the list of its pageblock's type; blocks of several pageblocks
have one type throughout. Fields of a page lie in row page + SHIFT of the map.

With `plain`, a textbook binary buddy: no lists but a tree over the pages, each of whose nodes says which orders have a
free block below it, so that the lowest block of the smallest sufficient order is found in one descent.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import MapNo, int64
from kmemexp.sim.arenas.buddy.state import State

# Migrate types.
UNMOVABLE = 0
MOVABLE = 1
RECLAIMABLE = 2
TYPES = 3
HIGHATOMIC = 3  # reserved for requests for several pages that cannot wait; CPUs have no lists of it
LIST_TYPES = 4

# What a page's tag says; 0 elsewhere.
MOVABLE_PAGE = 1  # in use, and may be migrated
FREE_BLOCK = 0x20  # FREE_BLOCK + order: begins a free block
PCP_BLOCK = 0x40  # PCP_BLOCK + order: begins a block on a CPU's list

# Columns of `maps`.
BASE = 0  # first page
TOP = 1  # page after the last
SHIFT = 2  # row of a page's fields, less the page
BLOCKS = 3  # place of the pageblock of page 0 in `blocks`
TREE = 4  # plain: place of the tree, whose root is node 1
LEAVES = 5  # plain: leaves of the tree, a power of two
FREE = 6  # pages on the zone's lists
USED = 7  # pages in use
HIGH = 8  # page after the highest ever in use
AREAS = 9  # ranges in use
WALKED = 10  # blocks passed by searches for more than one block
WMARK_HIGH = 11  # high watermark, pages
BELOW_HIGH = 12  # 1: the zone has been found below it (ZONE_BELOW_HIGH)
CLAIMS = 13  # pageblocks taken over from another type
STEALS = 14  # pages taken from a block that keeps its type
DRAINS = 15  # times that all CPUs' lists were emptied for a request that had failed
MOVED = 16  # blocks taken from the zone's lists or put on them
FOLIOS = 17  # ranges in use that are no areas: pages of those who share the zone with the kernel
BOOST = 18  # pages by which all watermarks are raised (watermark_boost)
BOOST_MAX = 19  # 0: they are never raised
RECLAIMING = 20  # 1: kswapd is at work (ZONE_RECLAIM_ACTIVE)
RESERVED = 21  # pages of pageblocks that are reserved (nr_reserved_highatomic)
RESERVED_FREE = 22  # free pages of theirs, on the zone's lists (nr_free_highatomic)
RESERVES = 23  # times that a pageblock was
MAP_COLUMNS = 24

# Columns of a list and of a link.
HEAD = 0
TAIL = 1
COUNT = 2
LIST_COLUMNS = 3
NEXT = 0
PREV = 1

# How far a refill has come in finding pages (enum rmqueue_mode).
NORMAL = 0
STEAL = 1


@kernel
def tag_of(st: State, map_no: MapNo, page: int) -> int:
    """Tag of a page; 0 outside the map."""
    if page < st.maps[map_no, BASE] or page >= st.maps[map_no, TOP]:
        return 0
    return int64(st.tag[page + st.maps[map_no, SHIFT]])


@kernel
def type_of(st: State, map_no: MapNo, page: int) -> int:
    """Migrate type of a page's pageblock."""
    return int64(st.blocks[st.maps[map_no, BLOCKS] + (page >> st.p.pageblock_order)])


@kernel
def set_type(st: State, map_no: MapNo, page: int, order: int, kind: int) -> None:
    """Give the pageblocks of a block, of one pageblock at least, a migrate type."""
    first = st.maps[map_no, BLOCKS] + (page >> st.p.pageblock_order)
    for b in range(first, first + (1 << (order - st.p.pageblock_order))):
        st.blocks[b] = kind


@kernel
def link_row(st: State, map_no: MapNo, page: int) -> int:
    """Row of a page's links. Those of pages that begin a pageblock are together: all that a free map has."""
    if page & ((1 << st.p.pageblock_order) - 1) == 0:
        return st.maps[map_no, BLOCKS] + (page >> st.p.pageblock_order)
    return len(st.blocks) + page + st.maps[map_no, SHIFT]


@kernel
def zone_list(st: State, map_no: MapNo, order: int, kind: int) -> int:
    """Number of a free list."""
    return (map_no * LIST_TYPES + kind) * (st.p.max_order + 1) + order


@kernel
def push(st: State, map_no: MapNo, which: int, page: int, tail: int) -> None:
    """Put a block on a list, at its head or its tail."""
    row = link_row(st, map_no, page)
    other = st.lists[which, TAIL if tail else HEAD]
    if tail:
        st.link[row, PREV], st.link[row, NEXT] = other, -1
        st.lists[which, TAIL] = page
    else:
        st.link[row, NEXT], st.link[row, PREV] = other, -1
        st.lists[which, HEAD] = page
    if other < 0:
        st.lists[which, HEAD] = st.lists[which, TAIL] = page
    else:
        st.link[link_row(st, map_no, other), NEXT if tail else PREV] = page
    st.lists[which, COUNT] += 1


@kernel
def pull(st: State, map_no: MapNo, which: int, page: int) -> None:
    """Take a block off a list."""
    row = link_row(st, map_no, page)
    above, below = int64(st.link[row, NEXT]), int64(st.link[row, PREV])
    if below < 0:
        st.lists[which, HEAD] = above
    else:
        st.link[link_row(st, map_no, below), NEXT] = above
    if above < 0:
        st.lists[which, TAIL] = below
    else:
        st.link[link_row(st, map_no, above), PREV] = below
    st.lists[which, COUNT] -= 1


@kernel
def mark(st: State, map_no: MapNo, page: int, orders: int) -> None:
    """Plain: say in the tree which order is free at this page (a bit), or none (0)."""
    root = st.maps[map_no, TREE]
    node = st.maps[map_no, LEAVES] + page - st.maps[map_no, BASE]
    st.tree[root + node] = orders
    while node > 1:
        node >>= 1
        found = st.tree[root + 2 * node] | st.tree[root + 2 * node + 1]
        if st.tree[root + node] == found:
            break
        st.tree[root + node] = found


@kernel
def put(st: State, map_no: MapNo, page: int, order: int, kind: int, tail: int) -> None:
    """Add a free block."""
    st.tag[page + st.maps[map_no, SHIFT]] = FREE_BLOCK + order
    st.maps[map_no, FREE] += 1 << order
    if kind == HIGHATOMIC:
        st.maps[map_no, RESERVED_FREE] += 1 << order
    if st.p.plain:
        st.lists[zone_list(st, map_no, order, kind), COUNT] += 1
        mark(st, map_no, page, 1 << order)
    else:
        push(st, map_no, zone_list(st, map_no, order, kind), page, tail)


@kernel
def take(st: State, map_no: MapNo, page: int, order: int, kind: int) -> None:
    """Remove a free block, which lies on the lists of `kind`."""
    st.tag[page + st.maps[map_no, SHIFT]] = 0
    st.maps[map_no, FREE] -= 1 << order
    if kind == HIGHATOMIC:
        st.maps[map_no, RESERVED_FREE] -= 1 << order
    if st.p.plain:
        st.lists[zone_list(st, map_no, order, kind), COUNT] -= 1
        mark(st, map_no, page, 0)
    else:
        pull(st, map_no, zone_list(st, map_no, order, kind), page)


@kernel
def expand(st: State, map_no: MapNo, page: int, low: int, high: int, kind: int) -> None:
    """Split a block of order `high` that is on no list: upper halves become free, 2**low pages at `page` are left."""
    while high > low:
        high -= 1
        put(st, map_no, page + (1 << high), high, kind, False)


@kernel
def free_block(st: State, map_no: MapNo, page: int, order: int, to_tail: int) -> None:
    """__free_one_page: merge with free buddies, then onto the list of the pageblock's type.

    At the tail, if `to_tail`, or if the buddy of the next order is free, so that this block may soon merge again.
    """
    st.maps[map_no, MOVED] += 1
    kind = type_of(st, map_no, page)
    while order < st.p.max_order:
        buddy = page ^ (1 << order)
        if tag_of(st, map_no, buddy) != FREE_BLOCK + order:
            break
        other = type_of(st, map_no, buddy)
        if other != kind and max(other, kind) == HIGHATOMIC:  # migratetype_is_mergeable
            break
        take(st, map_no, buddy, order, other)
        if other != kind:
            set_type(st, map_no, buddy, order, kind)
        page &= ~(1 << order)
        order += 1
    if order < st.p.max_order - 1 and not to_tail:
        higher = page & ~(1 << order)
        to_tail = tag_of(st, map_no, higher ^ (2 << order)) == FREE_BLOCK + order + 1
    put(st, map_no, page, order, kind, to_tail)


@outlined
def free_pages(st: State, map_no: MapNo, page: int, order: int, to_tail: int) -> None:
    """free_one_page: a block of several pageblocks goes back one pageblock at a time, each to its own type's list."""
    end = page + (1 << order)
    step = min(order, st.p.pageblock_order)
    while page < end:
        free_block(st, map_no, page, step, to_tail)
        page += 1 << step


@kernel
def lowest(st: State, map_no: MapNo, order: int) -> tuple[int, int]:
    """Plain: (page, order) of the lowest block of the smallest sufficient order; the page is -1 where there is none."""
    root = st.maps[map_no, TREE]
    have = st.tree[root + 1] >> order
    if have == 0:
        return -1, order
    while have & 1 == 0:
        have >>= 1
        order += 1
    node, leaves = 1, st.maps[map_no, LEAVES]
    while node < leaves:
        node *= 2
        if (st.tree[root + node] >> order) & 1 == 0:
            node += 1
    return node - leaves + st.maps[map_no, BASE], order


@kernel
def smallest(st: State, map_no: MapNo, order: int, kind: int) -> int:
    """__rmqueue_smallest: from the head of the first list of this type that has a block. Returns the page or -1."""
    if st.p.plain:
        page, found = lowest(st, map_no, order)
        if page >= 0:
            take(st, map_no, page, found, kind)
            expand(st, map_no, page, order, found, kind)
        return page
    for found in range(order, st.p.max_order + 1):
        page = st.lists[zone_list(st, map_no, found, kind), HEAD]
        if page >= 0:
            take(st, map_no, page, found, kind)
            expand(st, map_no, page, order, found, kind)
            return page
    return -1


@kernel
def fallback(kind: int, i: int) -> int:
    """Return the i-th type (0 or 1) to fall back to."""
    if i == 0:
        return UNMOVABLE if kind == RECLAIMABLE else RECLAIMABLE
    return UNMOVABLE if kind == MOVABLE else MOVABLE


@kernel
def fallback_type(st: State, map_no: MapNo, order: int, kind: int) -> int:
    """First other type that has a block of this order, or -1."""
    for i in range(TYPES - 1):
        other = fallback(kind, i)
        if st.lists[zone_list(st, map_no, order, other), HEAD] >= 0:
            return other
    return -1


@outlined
def claim_block(st: State, map_no: MapNo, page: int, found: int, order: int, kind: int, other: int) -> int:
    """try_to_claim_block: take over the pageblock of a free block. Returns a page, or -1 if too little is alike."""
    if found >= st.p.pageblock_order:
        take(st, map_no, page, found, other)
        set_type(st, map_no, page, found, kind)
        expand(st, map_no, page, order, found, kind)
        st.maps[map_no, CLAIMS] += 1
        return page
    size = 1 << st.p.pageblock_order
    st.maps[map_no, BOOST] = min(st.maps[map_no, BOOST] + size, st.maps[map_no, BOOST_MAX])
    start = page & -size
    if start < st.maps[map_no, BASE] or start + size > st.maps[map_no, TOP]:
        return -1
    free, movable = 0, 0
    at = start
    while at < start + size:
        tag = int64(st.tag[at + st.maps[map_no, SHIFT]])
        if tag & FREE_BLOCK:
            free += 1 << (tag - FREE_BLOCK)
            at += 1 << (tag - FREE_BLOCK)
        else:
            movable += tag == MOVABLE_PAGE
            at += 1
    alike = movable
    if kind != MOVABLE:
        alike = size - free - movable if other == MOVABLE else 0
    if free + alike < size // 2:
        return -1
    move_blocks(st, map_no, start, other, kind)
    st.maps[map_no, CLAIMS] += 1
    return smallest(st, map_no, order, kind)


@kernel
def move_blocks(st: State, map_no: MapNo, start: int, old: int, kind: int) -> int:
    """Give a pageblock another type; its free blocks go to the tails of that type's lists, in address order.

    Returns their pages.
    """
    at, moved = start, 0
    while at < start + (1 << st.p.pageblock_order):
        tag = int64(st.tag[at + st.maps[map_no, SHIFT]])
        if tag & FREE_BLOCK:
            order = tag - FREE_BLOCK
            pull(st, map_no, zone_list(st, map_no, order, old), at)
            push(st, map_no, zone_list(st, map_no, order, kind), at, True)
            at += 1 << order
            moved += 1 << order
        else:
            at += 1
    set_type(st, map_no, start, st.p.pageblock_order, kind)
    if kind == HIGHATOMIC:
        st.maps[map_no, RESERVED_FREE] += moved
    elif old == HIGHATOMIC:
        st.maps[map_no, RESERVED_FREE] -= moved
    return moved


@outlined
def claim(st: State, map_no: MapNo, order: int, kind: int, nofragment: int) -> int:
    """__rmqueue_claim: from the largest free block of another type down, one candidate for each order."""
    least = order
    if nofragment:
        least = max(order, st.p.pageblock_order)
    for found in range(st.p.max_order, least - 1, -1):
        if kind == MOVABLE and found < st.p.pageblock_order // 2:
            break
        other = fallback_type(st, map_no, found, kind)
        if other >= 0:
            page = st.lists[zone_list(st, map_no, found, other), HEAD]
            page = claim_block(st, map_no, page, found, order, kind, other)
            if page >= 0:
                return page
    return -1


@outlined
def steal(st: State, map_no: MapNo, order: int, kind: int) -> int:
    """__rmqueue_steal: from the smallest sufficient block of another type, whose pageblock keeps its type."""
    for found in range(order, st.p.max_order + 1):
        other = fallback_type(st, map_no, found, kind)
        if other >= 0:
            page = st.lists[zone_list(st, map_no, found, other), HEAD]
            take(st, map_no, page, found, other)
            expand(st, map_no, page, order, found, other)
            st.maps[map_no, STEALS] += 1
            return page
    return -1


@kernel
def rmqueue(st: State, map_no: MapNo, order: int, kind: int, nofragment: int, mode: int) -> tuple[int, int]:
    """__rmqueue: (page or -1, mode for the next call under the same lock)."""
    st.maps[map_no, MOVED] += 1
    if mode == NORMAL:
        page = smallest(st, map_no, order, kind)
        if page < 0 and st.p.migrate:
            page = claim(st, map_no, order, kind, nofragment)
        if page >= 0:
            return page, NORMAL
    if st.p.migrate and not nofragment:
        page = steal(st, map_no, order, kind)
        if page >= 0:
            return page, STEAL
    return -1, mode
