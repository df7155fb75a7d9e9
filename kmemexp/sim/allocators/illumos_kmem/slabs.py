"""Slabs, magazines and depot of `allocators/illumos_kmem`: what its steps do, without their order.

A cache is a row of `cache`, a slab the row of `slab` of its first page. Buffers are named by their address / 8, and
`word` is what lies there in memory: of a free buffer the next one of its slab, of a buffer that its owner has the
number of that object, of a magazine its link and rounds, of a hashed cache's buffer, one word on, its bufctl.

Partial slabs of a cache are ordered by weight, then by the address of their kmem_slab_t. The kernel keeps them in an
AVL tree; here it is a treap, whose priorities are a hash of the page, which yields the same order. `tree` holds its
links: slots 2p and 2p + 1 for the lower and the higher subtree of the slab at page p, then a root for each cache.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators.illumos_kmem.layout import SLAB_BYTES
from kmemexp.sim.allocators.illumos_kmem.state import State
from kmemexp.sim.slots import PAGE, PAGE_SHIFT
from kmemexp.sim.widths import wide

NIL = -1
WORD_SHIFT = 3
PAGE_WORDS = PAGE >> WORD_SHIFT
HEADER_WORD = (PAGE - SLAB_BYTES) >> WORD_SHIFT  # of a slab that describes itself

# What `word` says of a buffer; below OUT: free, FREE_LINK - the next free one.
OUT = -1  # not in its slab, and no owner has it
FREE_LINK = -3

# The caches of kmem itself; magazine caches come first, in the order of MAGTYPES.
SLAB_CACHE = 9
BUFCTL_CACHE = 10
MOVE_CACHE = 11
FIRST_ALLOC = 12  # then those of kmem_alloc(), then those of the items

# Columns of State.cache.
K_CHUNK = 0
K_SLAB = 1  # bytes of a slab
K_HASHED = 2
K_ALIGN = 3
K_MAXCOLOR = 4
K_COLOR = 5
K_CHUNKS = 6  # cache_maxchunks
K_BINSHIFT = 7
K_MOVES = 8  # it has a move callback
K_MAGTYPE = 9
K_PARTIAL = 10  # partial slabs
K_COMPLETE = 11
K_BUFTOTAL = 12
K_BUFSLAB = 13  # free in slabs
K_PAGES = 14
K_MASK = 15  # of the hash table
K_TAKES = 16  # times that the depot lock was taken
K_LAST = 17  # CPU that last asked the depot for a magazine
K_CONTENTION = 18
K_CONTENTION_PREV = 19
K_FULL = 20  # a list of the depot: first magazine, number, least number in this interval, how many may be reaped
K_EMPTY = 24
TOTAL = 1
MIN = 2
LIMIT = 3
K_GROW = 28  # the next magazine type is due
K_PENDING = 29  # moves that are pending
K_DEAD = 30  # first slab that waits for them
K_NUMER = 31  # kmd_reclaim_numer
K_TRIES = 32
K_SOUGHT = 33
K_FOUND = 34
K_YES = 35
K_NO = 36  # slabs that became NOMOVE
K_LATER = 37
K_DONT_KNOW = 38
K_FREED = 39  # slabs freed by a move
K_PLANE = 40  # where in `word` its buffers are, and log2 of the words of each (_shared/planes.py)
K_SHIFT = 41
K_COLUMNS = 42

# Columns of State.slab. Of a page of a larger slab only the first counts; of an oversize block only the pages.
S_FIRST = 0  # first page of the slab
S_REFCNT = 1
S_CHUNKS = 2
S_HEAD = 3  # first free buffer
S_COLOR = 4
S_HEADER = 5  # address / 8 of its kmem_slab_t
S_WEIGHT = 6  # by which it is in the tree
S_STUCK = 7  # buffer that could not be moved
S_LATER = 8
S_FLAGS = 9
S_NEXT = 10  # of the slabs that wait for moves
S_PAGES = 11
S_COLUMNS = 12
NOMOVE = 1
MOVE_PENDING = 2

# Columns of State.cc, struct kmem_cpu_cache.
LOADED = 0
ROUNDS = 1  # -1: there is no magazine
PLOADED = 2
PROUNDS = 3
MAGSIZE = 4
C_COLUMNS = 5


@kernel
def cache_of(st: State, b: int) -> int:
    """Cache of the buffer `b`; NIL: an oversize block."""
    return wide(st.page_cache[b >> (PAGE_SHIFT - WORD_SHIFT)]) - 1


@kernel
def slab_of(st: State, b: int) -> int:
    """First page of the slab of buffer `b`."""
    return wide(st.slab[b >> (PAGE_SHIFT - WORD_SHIFT), S_FIRST])


@kernel
def partial_weight(refcnt: int, chunks: int, binshift: int, bonus: int) -> int:
    """Rank of a partial slab, the lowest first; `bonus`: cache_maxchunks of a slab that is NOMOVE, else 0."""
    if refcnt <= binshift or chunks - refcnt <= binshift:
        return -refcnt - bonus
    return -(binshift + (refcnt >> binshift)) - bonus


@kernel
def _weight(st: State, k: int, page: int) -> int:
    bonus = st.cache[k, K_CHUNKS] if st.slab[page, S_FLAGS] & NOMOVE else 0
    return partial_weight(wide(st.slab[page, S_REFCNT]), wide(st.slab[page, S_CHUNKS]), st.cache[k, K_BINSHIFT], bonus)


@kernel
def _priority(page: int) -> int:
    h = (page * 0x9E3779B1) & 0xFFFFFFF
    h = ((h ^ (h >> 15)) * 0x85EBCA6B) & 0xFFFFFFF
    return h ^ (h >> 13)


@kernel
def _before(st: State, a: int, b: int) -> bool:
    if st.slab[a, S_WEIGHT] != st.slab[b, S_WEIGHT]:
        return st.slab[a, S_WEIGHT] < st.slab[b, S_WEIGHT]
    return st.slab[a, S_HEADER] < st.slab[b, S_HEADER]


@kernel
def _root(st: State, k: int) -> int:
    return 2 * len(st.slab) + k


@kernel
def _insert(st: State, k: int, page: int) -> None:
    """Put a slab among the partial ones: down to where its priority wins, the subtree there is split by it."""
    st.slab[page, S_WEIGHT] = _weight(st, k, page)
    slot = _root(st, k)
    at = wide(st.tree[slot])
    while at != NIL and _priority(at) >= _priority(page):
        slot = 2 * at + _before(st, at, page)
        at = wide(st.tree[slot])
    st.tree[slot] = page
    low, high = 2 * page, 2 * page + 1
    while at != NIL:
        if _before(st, at, page):
            st.tree[low] = at
            low = 2 * at + 1
            at = wide(st.tree[low])
        else:
            st.tree[high] = at
            high = 2 * at
            at = wide(st.tree[high])
    st.tree[low] = NIL
    st.tree[high] = NIL
    st.cache[k, K_PARTIAL] += 1


@kernel
def _remove(st: State, k: int, page: int) -> None:
    """Take a slab out of the partial ones: its subtrees are merged."""
    slot = _root(st, k)
    at = wide(st.tree[slot])
    while at != page:
        slot = 2 * at + _before(st, at, page)
        at = wide(st.tree[slot])
    low, high = wide(st.tree[2 * page]), wide(st.tree[2 * page + 1])
    while low != NIL and high != NIL:
        if _priority(low) >= _priority(high):
            st.tree[slot] = low
            slot = 2 * low + 1
            low = wide(st.tree[slot])
        else:
            st.tree[slot] = high
            slot = 2 * high
            high = wide(st.tree[slot])
    st.tree[slot] = high if low == NIL else low
    st.cache[k, K_PARTIAL] -= 1


@kernel
def slab_end(st: State, k: int, side: int) -> int:
    """First (0) or last (1) partial slab of a cache; NIL: it has none."""
    page = NIL
    at = wide(st.tree[_root(st, k)])
    while at != NIL:
        page = at
        at = wide(st.tree[2 * at + side])
    return page


@kernel
def slab_before(st: State, k: int, page: int) -> int:
    """Return the partial slab before one of them; NIL: that is the first."""
    before = NIL
    at = wide(st.tree[_root(st, k)])
    while at != NIL:
        if _before(st, at, page):
            before = at
            at = wide(st.tree[2 * at + 1])
        else:
            at = wide(st.tree[2 * at])
    return before


@outlined
def slab_begin(st: State, k: int, page: int, colour: int) -> None:
    """Enter a new slab, as yet without buffers."""
    pages = st.cache[k, K_SLAB] >> PAGE_SHIFT
    for p in range(page, page + pages):
        st.page_cache[p] = k + 1
        st.slab[p, S_FIRST] = page
    header = 0 if st.cache[k, K_HASHED] else SLAB_BYTES
    st.slab[page, S_REFCNT] = 0
    st.slab[page, S_CHUNKS] = (st.cache[k, K_SLAB] - header - colour) // st.cache[k, K_CHUNK]
    st.slab[page, S_HEAD] = NIL
    st.slab[page, S_COLOR] = colour
    st.slab[page, S_HEADER] = page * PAGE_WORDS + HEADER_WORD
    st.slab[page, S_STUCK] = NIL
    st.slab[page, S_LATER] = 0
    st.slab[page, S_FLAGS] = 0
    st.cache[k, K_PAGES] += pages


@kernel
def slab_base(st: State, page: int) -> int:
    """First buffer of a slab."""
    return page * PAGE_WORDS + (wide(st.slab[page, S_COLOR]) >> WORD_SHIFT)


@kernel
def slab_next(st: State, k: int, page: int) -> int:
    """Return the buffer that a new slab gets next, upwards; NIL: it has all."""
    chunk, head = st.cache[k, K_CHUNK] >> WORD_SHIFT, wide(st.slab[page, S_HEAD])
    b = slab_base(st, page) if head == NIL else head + chunk
    return NIL if b == slab_base(st, page) + wide(st.slab[page, S_CHUNKS]) * chunk else b


@kernel
def noted(st: State, k: int, b: int) -> int:
    """Place in `word` of what is noted of a buffer of cache `k`; of magazines and moves it is their own first."""
    return st.cache[k, K_PLANE] + (b >> st.cache[k, K_SHIFT])


@kernel
def slab_add(st: State, k: int, page: int, b: int) -> None:
    """Put a buffer before the free ones of its slab."""
    st.word[noted(st, k, b)] = FREE_LINK - wide(st.slab[page, S_HEAD])
    st.slab[page, S_HEAD] = b


@kernel
def slab_enter(st: State, k: int, page: int) -> None:
    """Count the buffers of a slab that is complete."""
    st.cache[k, K_BUFTOTAL] += st.slab[page, S_CHUNKS]
    st.cache[k, K_BUFSLAB] += st.slab[page, S_CHUNKS]


@kernel
def free_pop(st: State, k: int, page: int) -> int:
    """Take the first free buffer of a slab off its list."""
    b = wide(st.slab[page, S_HEAD])
    st.slab[page, S_HEAD] = FREE_LINK - wide(st.word[noted(st, k, b)])
    return b


@outlined
def slab_take(st: State, k: int, page: int) -> int:
    """Allocate a buffer of a slab, which is new or the first partial one: kmem_slab_alloc_impl()."""
    b = free_pop(st, k, page)
    st.word[noted(st, k, b)] = OUT
    st.cache[k, K_BUFSLAB] -= 1
    new = st.slab[page, S_REFCNT] == 0
    st.slab[page, S_REFCNT] += 1
    if st.slab[page, S_HEAD] == NIL:
        if not new:
            _remove(st, k, page)
            st.slab[page, S_LATER] = 0
            st.slab[page, S_FLAGS] = wide(st.slab[page, S_FLAGS]) & ~NOMOVE
            st.slab[page, S_STUCK] = NIL
        st.cache[k, K_COMPLETE] += 1
    elif new:
        _insert(st, k, page)
    else:
        st.slab[page, S_WEIGHT] = _weight(st, k, page)  # it stays the first
    return b


@outlined
def slab_give(st: State, k: int, b: int) -> int:
    """Free a buffer to its slab: kmem_slab_free(). Returns the slab if it is to be destroyed now, else NIL."""
    page = slab_of(st, b)
    if st.slab[page, S_STUCK] == b:
        move_yes(st, k, page, b)
    full = st.slab[page, S_HEAD] == NIL
    slab_add(st, k, page, b)
    st.cache[k, K_BUFSLAB] += 1
    st.slab[page, S_REFCNT] -= 1
    if st.slab[page, S_REFCNT] == 0:
        if full:
            st.cache[k, K_COMPLETE] -= 1
        else:
            _remove(st, k, page)
        st.cache[k, K_BUFTOTAL] -= st.slab[page, S_CHUNKS]
        st.cache[k, K_BUFSLAB] -= st.slab[page, S_CHUNKS]
        return _dead(st, k, page)
    if full:
        st.cache[k, K_COMPLETE] -= 1
        _insert(st, k, page)
    elif st.slab[page, S_WEIGHT] != _weight(st, k, page):
        _remove(st, k, page)
        _insert(st, k, page)
    return NIL


@kernel
def _dead(st: State, k: int, page: int) -> int:
    """Keep an empty slab while moves are pending; one that is being scanned is left to the scan."""
    if st.slab[page, S_FLAGS] & MOVE_PENDING:
        return NIL
    if st.cache[k, K_PENDING] == 0:
        return page
    dead_push(st, k, page)
    return NIL


@kernel
def dead_push(st: State, k: int, page: int) -> None:
    """Let a slab wait for the end of all moves of its cache."""
    st.slab[page, S_NEXT] = st.cache[k, K_DEAD]
    st.cache[k, K_DEAD] = page


@kernel
def slab_forget(st: State, k: int, page: int) -> None:
    """Forget a slab whose pages go back."""
    pages = st.cache[k, K_SLAB] >> PAGE_SHIFT
    for p in range(page, page + pages):
        st.page_cache[p] = 0
    st.cache[k, K_PAGES] -= pages


@kernel
def slab_partial(st: State, page: int) -> bool:
    """Whether some, but not all of a slab's buffers are allocated."""
    return st.slab[page, S_REFCNT] > 0 and st.slab[page, S_REFCNT] < st.slab[page, S_CHUNKS]


@outlined
def move_yes(st: State, k: int, page: int, b: int) -> None:
    """The buffer that could not be moved is gone: kmem_slab_move_yes()."""
    if not slab_partial(st, page):
        return
    if not st.slab[page, S_FLAGS] & NOMOVE:
        st.slab[page, S_LATER] = 0
        st.slab[page, S_STUCK] = NIL
    elif st.slab[page, S_STUCK] == b:
        _remove(st, k, page)
        st.slab[page, S_FLAGS] = wide(st.slab[page, S_FLAGS]) & ~NOMOVE
        st.slab[page, S_STUCK] = NIL
        _insert(st, k, page)


@outlined
def move_no(st: State, k: int, page: int, b: int) -> None:
    """A buffer cannot be moved: its slab goes before all others, to fill up: kmem_slab_move_no()."""
    if not slab_partial(st, page):
        return
    _remove(st, k, page)
    st.slab[page, S_LATER] = 0
    st.slab[page, S_FLAGS] = wide(st.slab[page, S_FLAGS]) | NOMOVE
    st.slab[page, S_STUCK] = b
    _insert(st, k, page)
    st.cache[k, K_NO] += 1
