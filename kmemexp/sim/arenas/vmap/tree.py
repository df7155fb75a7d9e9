"""The free ranges of Linux's vmap: a red-black tree by address, each node with the largest size below it.

lib/rbtree.c and mm/vmalloc.c of Linux 6.12. The tree is balanced exactly as the real one, because a search with an
alignment depends on its shape: such a search looks for more than it needs, and a smaller range that would do is found
only if it lies on the way. `st` is the State of `sim.arenas.vmap`; node 0 is no node, black and empty.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Bytes, MapNo, int64
from kmemexp.sim.arenas.vmap.state import State
from kmemexp.sim.slots import PAGE, PAGE_SHIFT

# Columns of a node; START and END in bytes.
START = 0
END = 1
PARENT = 2
LEFT = 3
RIGHT = 4
LARGEST = 5  # size of the largest range at or below
RED = 6
NODE_COLUMNS = 7

# Columns of `maps`.
BASE = 0  # bytes
TOP = 1
ROW = 2  # row of the map's first page
ROOT = 3  # of the tree of free ranges
HOLES = 4  # nodes of that tree
AREAS = 5  # areas in use, lazily freed or pooled
LIVE = 6  # bytes in use, with guard pages
HIGH = 7  # end of the highest area ever
LAZY = 8  # pages lazily freed
LAZY_LOW = 9  # lowest start and highest end of what is lazily freed
LAZY_TOP = 10
POOLED = 11  # pages in pools
POOL_HITS = 12
FLUSHES = 13  # TLB flushes
FULL_FLUSHES = 14  # those of more pages than are flushed one by one
OVERFLOWS = 15  # requests that failed at first, so that all was drained
MOVED = 16  # ranges taken from the tree or put into it
MAP_COLUMNS = 17

# Columns of `area`, at the row of a range's first page.
KIND = 0  # A_*
PAGES = 1  # of an area; of a free range: its node
OWNER = 2  # 1 + the node whose pool it belongs to; 0: none
ATTR = 3
LINK = 4  # 1 + row of the next area of a pool or a chain; 0: the last
AREA_COLUMNS = 5

AREA_FREE = 1  # in the tree
AREA_LIVE = 2
AREA_LAZY = 3
AREA_POOLED = 4
AREA_DECAYED = 5  # out of its pool, on the way to the tree

# The supply of nodes (struct vmap_area, shared by all maps).
FREE_NODE = 0
FRESH_NODE = 1
PEAK = 2  # most objects ever in use: areas and free ranges
NEXT_ROW = 3
SUPPLY_COLUMNS = 4


@kernel
def row_of(st: State, map_no: MapNo, addr: Address) -> int:
    """Row of the page at an address."""
    return st.maps[map_no, ROW] + (addr - st.maps[map_no, BASE]) // PAGE


@kernel
def extent(st: State, map_no: MapNo, addr: Address) -> int:
    """Bytes of the area or free range that begins at an address."""
    row = row_of(st, map_no, addr)
    value = int64(st.area[row, PAGES])
    if st.area[row, KIND] == AREA_FREE:
        return st.node[value, END] - addr
    return value << PAGE_SHIFT


@kernel
def align_up(addr: Address, align: int) -> int:
    """Return the least multiple of `align` from `addr` on."""
    if align & (align - 1) == 0:
        return (addr + align - 1) & -align
    return (addr + align - 1) // align * align


@kernel
def update(st: State, n: int) -> None:
    """Recompute a node's LARGEST from its children's."""
    t = st.node
    t[n, LARGEST] = max(t[n, END] - t[n, START], t[t[n, LEFT], LARGEST], t[t[n, RIGHT], LARGEST])


@kernel
def propagate(st: State, n: int) -> None:
    """The same from a node up to the root."""
    while n:
        update(st, n)
        n = st.node[n, PARENT]


@kernel
def replace(st: State, map_no: MapNo, old: int, new: int) -> None:
    """Put `new` in the place of `old` below the latter's parent."""
    t, parent = st.node, st.node[old, PARENT]
    if parent == 0:
        st.maps[map_no, ROOT] = new
    elif t[parent, LEFT] == old:
        t[parent, LEFT] = new
    else:
        t[parent, RIGHT] = new
    if new:
        t[new, PARENT] = parent


@kernel
def rotate(st: State, map_no: MapNo, n: int, side: int) -> None:
    """Let a node sink to `side`; its child on the other side takes its place."""
    t = st.node
    other = LEFT + RIGHT - side
    up = t[n, other]
    inner = t[up, side]
    replace(st, map_no, n, up)
    t[n, other] = inner
    if inner:
        t[inner, PARENT] = n
    t[up, side] = n
    t[n, PARENT] = up
    update(st, n)
    update(st, up)


@outlined
def attach(st: State, map_no: MapNo, n: int, parent: int, side: int) -> None:
    """Insert a node as a leaf, and balance."""
    t = st.node
    t[n, LEFT] = t[n, RIGHT] = 0
    t[n, PARENT], t[n, RED] = parent, 1
    if parent == 0:
        st.maps[map_no, ROOT] = n
    else:
        t[parent, side] = n
    propagate(st, n)
    while t[t[n, PARENT], RED]:
        parent = t[n, PARENT]
        above = t[parent, PARENT]
        side = LEFT if t[above, LEFT] == parent else RIGHT
        other = LEFT + RIGHT - side
        uncle = t[above, other]
        if t[uncle, RED]:
            t[uncle, RED] = t[parent, RED] = 0
            t[above, RED] = 1
            n = above
            continue
        if n == t[parent, other]:
            rotate(st, map_no, parent, side)
            n, parent = parent, n
        t[parent, RED], t[above, RED] = 0, 1
        rotate(st, map_no, above, other)
    t[st.maps[map_no, ROOT], RED] = 0


@outlined
def detach(st: State, map_no: MapNo, n: int) -> None:
    """Remove a node, and balance. A node with two children gives its place to the next one by address."""
    t = st.node
    left, right = t[n, LEFT], t[n, RIGHT]
    if left == 0 or right == 0:
        child, parent, was_red = left + right, t[n, PARENT], t[n, RED]
        replace(st, map_no, n, child)
    else:
        heir = right
        while t[heir, LEFT]:
            heir = t[heir, LEFT]
        child, parent, was_red = t[heir, RIGHT], t[heir, PARENT], t[heir, RED]
        if parent == n:
            parent = heir
        else:
            replace(st, map_no, heir, child)
            t[heir, RIGHT] = right
            t[right, PARENT] = heir
        t[heir, LEFT] = left
        t[left, PARENT] = heir
        t[heir, RED] = t[n, RED]
        replace(st, map_no, n, heir)
    propagate(st, parent)
    if not was_red:
        rebalance(st, map_no, child, parent)


@outlined
def rebalance(st: State, map_no: MapNo, n: int, parent: int) -> None:
    """Restore the equal number of black nodes on all ways: below `parent`, that by `n` (0: a leaf) has one too few."""
    t = st.node
    while parent and not t[n, RED]:
        side = LEFT if t[parent, LEFT] == n else RIGHT
        other = LEFT + RIGHT - side
        sibling = t[parent, other]
        if t[sibling, RED]:
            t[sibling, RED], t[parent, RED] = 0, 1
            rotate(st, map_no, parent, side)
            sibling = t[parent, other]
        if not t[t[sibling, LEFT], RED] and not t[t[sibling, RIGHT], RED]:
            t[sibling, RED] = 1
            n = parent
            parent = t[n, PARENT]
            continue
        if not t[t[sibling, other], RED]:
            t[t[sibling, side], RED], t[sibling, RED] = 0, 1
            rotate(st, map_no, sibling, other)
            sibling = t[parent, other]
        t[sibling, RED], t[parent, RED], t[t[sibling, other], RED] = t[parent, RED], 0, 0
        rotate(st, map_no, parent, side)
        return
    t[n, RED] = 0


@kernel
def new_node(st: State) -> int:
    """Return a node of the supply."""
    n = st.supply[FREE_NODE]
    if n:
        st.supply[FREE_NODE] = st.node[n, LEFT]
    else:
        n = st.supply[FRESH_NODE]
        st.supply[FRESH_NODE] += 1
    return n


@kernel
def drop(st: State, map_no: MapNo, n: int) -> None:
    """Remove a free range from the tree."""
    detach(st, map_no, n)
    st.node[n, LEFT], st.supply[FREE_NODE] = st.supply[FREE_NODE], n
    st.maps[map_no, HOLES] -= 1


@kernel
def note(st: State, map_no: MapNo, n: int) -> None:
    """Say at the row of its first page that a free range begins there."""
    row = row_of(st, map_no, st.node[n, START])
    st.area[row, KIND], st.area[row, PAGES] = AREA_FREE, n


@outlined
def merge_or_add(st: State, map_no: MapNo, start: int, end: int) -> None:
    """Give a range back to the tree: merged with the free ranges above and below, or on its own."""
    st.maps[map_no, MOVED] += 1
    t = st.node
    at, parent, side, below, above = st.maps[map_no, ROOT], 0, LEFT, 0, 0
    while at:
        parent = at
        if end <= t[at, START]:
            side, above = LEFT, at
        else:
            side, below = RIGHT, at
        at = t[at, side]
    merged = 0
    if above and t[above, START] == end:
        t[above, START] = start
        merged = above
    if below and t[below, END] == start:
        if merged:
            end = t[above, END]
            drop(st, map_no, above)
        t[below, END] = end
        merged = below
    if merged:
        propagate(st, merged)
        note(st, map_no, merged)
        return
    n = new_node(st)
    t[n, START], t[n, END] = start, end
    attach(st, map_no, n, parent, side)
    note(st, map_no, n)
    st.maps[map_no, HOLES] += 1


@kernel
def fits(st: State, n: int, nbytes: Bytes, align: int, start: int) -> bool:
    """is_within_this_va: whether a free range holds `nbytes`, aligned, from `start` on."""
    return align_up(max(st.node[n, START], start), align) + nbytes <= st.node[n, END]


@outlined
def search(st: State, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """find_vmap_lowest_match: a node that holds `nbytes` at a multiple of `align`, or 0."""
    t = st.node
    start = st.maps[map_no, BASE]
    wanted = nbytes
    if align > PAGE and st.maps[map_no, TOP] - start != nbytes:
        wanted += align - 1
    n = st.maps[map_no, ROOT]
    while n:
        if t[t[n, LEFT], LARGEST] >= wanted and start < t[n, START]:
            n = t[n, LEFT]
            continue
        if fits(st, n, nbytes, align, start):
            return n
        if t[t[n, RIGHT], LARGEST] >= wanted:
            n = t[n, RIGHT]
            continue
        # Back up to the first place from which a right side may do that has not been looked at.
        n = t[n, PARENT]
        while n:
            if fits(st, n, nbytes, align, start):
                return n
            if t[t[n, RIGHT], LARGEST] >= wanted and start <= t[n, START]:
                start = t[n, START] + 1
                n = t[n, RIGHT]
                break
            n = t[n, PARENT]
    return 0


@outlined
def carve(st: State, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """__alloc_vmap_area: take `nbytes` at a multiple of `align` out of the tree. Returns the address or -1."""
    st.maps[map_no, MOVED] += 1
    n = search(st, map_no, nbytes, align)
    if n == 0:
        return -1
    t = st.node
    addr = align_up(t[n, START], align)
    if addr == t[n, START]:
        if addr + nbytes == t[n, END]:
            drop(st, map_no, n)
            return addr
        t[n, START] += nbytes
        note(st, map_no, n)
    elif addr + nbytes == t[n, END]:
        t[n, END] = addr
    else:
        split(st, map_no, n, addr, nbytes)
    propagate(st, n)
    return addr


@kernel
def split(st: State, map_no: MapNo, n: int, addr: Address, nbytes: Bytes) -> None:
    """Take the middle of a free range: the lower part becomes a node of its own, next below."""
    t = st.node
    low = new_node(st)
    t[low, START], t[low, END] = t[n, START], addr
    t[n, START] = addr + nbytes
    propagate(st, n)
    parent, side = n, LEFT
    while t[parent, side]:
        parent, side = t[parent, side], RIGHT
    attach(st, map_no, low, parent, side)
    note(st, map_no, low)
    note(st, map_no, n)
    st.maps[map_no, HOLES] += 1
