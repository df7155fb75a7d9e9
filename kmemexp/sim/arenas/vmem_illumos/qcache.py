"""Quantum caches of kmem_va: slabs of one size cut into ranges of 1 … qcache_max pages, a kmem cache for each.

A slab hands out what was freed last; a new one goes from its high end down. Allocations come from the partial slab that
is used most, by kmem.c's weight, of equals the lowest. Slabs are all of one size, so a cell of that size in the KVA
holds the beginning of one at most; `tree` finds the first slab of a cache by cells. `st` is the State of
`arenas.vmem_illumos`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Bytes, Shares, Words, int64
from kmemexp.sim.arenas._shared import segments as g
from kmemexp.sim.arenas._shared.measuring import count_hole, erase
from kmemexp.sim.arenas._shared.powers import log2
from kmemexp.sim.arenas.vmem_illumos.alloc import INSTANT_FIT, KMEM_VA, SLAB, SLAB_FREE, arena, take_kmem_va, xfree
from kmemexp.sim.arenas.vmem_illumos.state import State
from kmemexp.sim.slots import NO_ENTRY, NO_SPACE, PAGE, PAGE_SHIFT

# Columns of State.slab.
FIRST = 0  # page + 1; 0: no slab begins in this cell
CHUNK = 1  # pages of a range
REFCNT = 2
FREE_CHUNK = 3  # first free range, page + 1; 0: none
SLAB_COLUMNS = 4

# State.link, at the first page of a range: 0 it is in use, LAST it is the last free one, else next page + 1 + LAST.
LAST = 1


@kernel
def binshift(chunks: int) -> int:
    """cache_binshift of a cache with that many ranges a slab."""
    return log2(chunks >> 4) + 2 if chunks >= 16 else 1


@kernel
def weight(refcnt: int, chunks: int, binshift: int) -> int:
    """Rank of a slab, the lowest first (kmem_partial_slab_cmp); 0: it is not partial."""
    if refcnt == 0 or refcnt == chunks:
        return 0
    if refcnt <= binshift or chunks - refcnt <= binshift:
        return -refcnt
    return -(binshift + (refcnt >> binshift))


@kernel
def next_free(st: State, page: int) -> int:
    """Free range behind the one at a page, as page + 1; 0: none."""
    return int64(st.link[page]) - LAST


@kernel
def rank(st: State, cell: int) -> None:
    """Enter a slab's weight in the tree of its cache."""
    first = st.slab[cell, CHUNK] - 1
    node = cell + (st.tree.shape[1] >> 1)
    chunks = st.slab_pages // st.slab[cell, CHUNK]
    st.tree[first, node] = weight(st.slab[cell, REFCNT], chunks, binshift(chunks))
    while node > 1:
        node >>= 1
        st.tree[first, node] = min(st.tree[first, 2 * node], st.tree[first, 2 * node + 1])


@kernel
def first_partial(st: State, first: int) -> int:
    """Cell of the first partial slab of cache `first`, or -1."""
    if st.tree[first, 1] == 0:
        return -1
    node, leaves = 1, st.tree.shape[1] >> 1
    while node < leaves:
        node *= 2
        if st.tree[first, node] != st.tree[first, node >> 1]:
            node += 1
    return node - leaves


@outlined
def take_chunk(st: State, nbytes: Bytes) -> int:
    """Allocate a range of a cached size. Returns the address or NO_SPACE."""
    pages = nbytes >> PAGE_SHIFT
    cell = first_partial(st, pages - 1)
    if cell < 0:
        base = take_kmem_va(st, st.slab_pages * PAGE, PAGE, INSTANT_FIT, SLAB)
        if base < 0:
            return NO_SPACE
        cell = new_slab(st, base >> PAGE_SHIFT, pages)
    page = st.slab[cell, FREE_CHUNK] - 1
    st.slab[cell, FREE_CHUNK] = next_free(st, page)
    st.link[page] = 0
    st.slab[cell, REFCNT] += 1
    st.arena[arena(st, KMEM_VA), SLAB_FREE] -= nbytes
    rank(st, cell)
    return page << PAGE_SHIFT


@kernel
def new_slab(st: State, page: int, pages: int) -> int:
    """Cut a slab into ranges. Returns its cell."""
    cell = page // st.slab_pages
    st.slab[cell, FIRST], st.slab[cell, CHUNK] = page + 1, pages
    st.slab[cell, REFCNT] = st.slab[cell, FREE_CHUNK] = 0
    for n in range(st.slab_pages // pages):
        put(st, cell, page + n * pages)
    return cell


@kernel
def put(st: State, cell: int, page: int) -> None:
    """Put a range before the free ones of its slab."""
    st.link[page] = st.slab[cell, FREE_CHUNK] + LAST
    st.slab[cell, FREE_CHUNK] = page + 1
    st.arena[arena(st, KMEM_VA), SLAB_FREE] += st.slab[cell, CHUNK] * PAGE


@kernel
def cell_of(st: State, page: int) -> int:
    """Cell of the slab that a page lies in, or -1."""
    cell = page // st.slab_pages
    if cell > 0 and (st.slab[cell, FIRST] == 0 or st.slab[cell, FIRST] > page + 1):
        cell -= 1
    first = st.slab[cell, FIRST] - 1
    return cell if 0 <= first <= page < first + st.slab_pages else -1


@outlined
def give_chunk(st: State, addr: Address, nbytes: Bytes) -> int:
    """Free a range of a cached size; a slab that is wholly free goes at once. Returns 0, or NO_ENTRY for no range."""
    page, pages = addr >> PAGE_SHIFT, nbytes >> PAGE_SHIFT
    cell = cell_of(st, page)
    if cell < 0 or st.slab[cell, CHUNK] != pages or st.link[page]:
        return NO_ENTRY
    first = st.slab[cell, FIRST] - 1
    at = page - first
    if at % pages or at // pages >= st.slab_pages // pages:
        return NO_ENTRY
    put(st, cell, page)
    st.slab[cell, REFCNT] -= 1
    rank(st, cell)
    if st.slab[cell, REFCNT] == 0:
        drop_slab(st, cell)
    return 0


@kernel
def drop_slab(st: State, cell: int) -> None:
    """Give a slab back to kmem_va."""
    first, pages = st.slab[cell, FIRST] - 1, st.slab[cell, CHUNK]
    a = arena(st, KMEM_VA)
    for n in range(st.slab_pages // pages):
        st.link[first + n * pages] = 0
    st.arena[a, SLAB_FREE] -= st.slab_pages // pages * pages * PAGE
    st.slab[cell, FIRST] = 0
    xfree(st, a, g.in_use(st, a, first << PAGE_SHIFT))


@kernel
def next_slab(st: State, row: int) -> int:
    """Tag of the next slab in kmem_va behind `row`, or the arena's head."""
    a = arena(st, KMEM_VA)
    row = st.seg[row, g.NEXT]
    while row != a and not (st.seg[row, g.KIND] == g.BUSY and st.seg[row, g.NOTE] == SLAB):
        row = st.seg[row, g.NEXT]
    return row


@kernel
def next_chunk(st: State, row: int, at: int) -> tuple[int, int]:
    """Free range behind one, in the order of slabs: (tag of its slab, its page + 1). Begins from (arena's head, 0)."""
    a = arena(st, KMEM_VA)
    if at:
        at = next_free(st, at - 1)
    while at == 0:
        row = next_slab(st, row)
        if row == a:
            break
        at = st.slab[(st.seg[row, g.START] >> PAGE_SHIFT) // st.slab_pages, FREE_CHUNK]
    return row, at


@kernel
def chunk_bytes(st: State, row: int) -> int:
    """Bytes of each range of the slab with this tag."""
    return st.slab[(st.seg[row, g.START] >> PAGE_SHIFT) // st.slab_pages, CHUNK] * PAGE


@kernel
def measure_chunks(st: State, out: Words) -> None:
    """Add the free ranges in slabs, each a hole of its own: a slab's neighbours never become one."""
    row, at = next_chunk(st, arena(st, KMEM_VA), 0)
    while at:
        nbytes = chunk_bytes(st, row)
        count_hole(out, nbytes, ((at - 1) << PAGE_SHIFT) + nbytes)
        row, at = next_chunk(st, row, at)


@kernel
def erase_chunks(st: State, bins: Shares, base: Address, top: int) -> None:
    """Erase the free ranges in slabs from the picture of [base, top)."""
    row, at = next_chunk(st, arena(st, KMEM_VA), 0)
    while at:
        start = (at - 1) << PAGE_SHIFT
        erase(bins, base, top, start, start + chunk_bytes(st, row))
        row, at = next_chunk(st, row, at)
