"""Slabs, buckets and CPUs' caches of `allocators/uma`: what its steps do, without their order.

A bucket is named by its address in pointers, and lies in `word` where it would lie in memory: word b is the next bucket
of a list + 1, word b + 1 its count, word b + 2 its entries, words b + 3 … its items' addresses in pointers.
"""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Address, Registers
from kmemexp.sim.allocators._shared.slab_lists import enter, gained, leave, push
from kmemexp.sim.allocators._shared.uma_requests import NIL, S_ZONE, zone_of
from kmemexp.sim.allocators.uma.layout import BUCKET_WORDS, UMA_03
from kmemexp.sim.allocators.uma.state import State
from kmemexp.sim.asking import let_go
from kmemexp.sim.slots import PAGE, PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

# Zones.
SLABS = 0  # off-page headers
COUNTED_SLABS = 1  # off-page headers with reference counts
FIRST_BUCKET = 2
FIRST_CACHED = 6  # UMA's own zones end here: no CPU caches items of theirs
FIRST_MALLOC = 6
PACKET = 15  # secondary to MBUF, after which a reclaim comes to it
MBUF = 16
CLUSTER = 17
FIRST_ITEM = 18

# State.ext of an mbuf, above these: the number of the cluster that it has, + 2.
MSHIFT = 8  # log2 of an mbuf's bytes
NO_PACKET = 0
BARE_PACKET = 1  # one without a cluster: it is made or taken apart

# Columns of State.zone (struct uma_zone).
Z_SIZE = 0  # bytes of an item (uz_rsize)
Z_ITEMS = 1  # per slab (uz_ipers)
Z_PAGES = 2  # per slab (uz_ppera)
Z_HEADER = 3  # zone of the off-page headers; NIL: headers are in the page
Z_MAX = 4  # pages at which the zone is full (uz_maxpages); 0: never
Z_COUNT = 5  # items that a bucket is filled to (uz_count); of a bucket zone: its buckets' entries
Z_FILLS = 6  # buckets being filled (uz_fills)
Z_GROWING = 7  # slabs being made for a bucket zone (uz_recurse)
Z_FULL = 8  # the limit was hit (UMA_ZFLAG_FULL)
Z_FREE = 9  # items free in slabs (uz_free)
Z_HELD = 10  # pages held (uz_pages)
Z_PART = 11  # first page of the first slab that is partly free
Z_IDLE = 12  # the same of the wholly free ones (uz_free_slab)
Z_READY = 13  # first bucket with items (uz_full_bucket)
Z_EMPTY = 14  # first bucket without (uz_free_bucket)
Z_ALLOCS = 15
Z_BEFORE = 16  # allocations until the last tick (uz_oallocs)
Z_WORKING = 17  # working set (uz_wssize)
Z_COLUMNS = 18

# Columns of State.cache (struct uma_cache).
ALLOC = 0  # bucket that items are taken from
FREE = 1  # bucket that items are put into
ALLOCS = 2
C_COLUMNS = 3

# Columns of State.slab beside S_ZONE, in the row of a slab's first page.
S_COUNT = 1  # free items; of a large malloc: pages
S_FIRST = 2  # number of the first free item
S_NEXT = 3  # on the zone's list
S_PREV = 4  # of a partly free one
S_HEADER = 5  # off-page header: its address in pointers
S_MAP = 6  # map that the pages come from
S_COLUMNS = 8
LISTED = (S_NEXT, S_PREV, S_COUNT)  # what a sorted list goes by

# Words of a bucket.
B_NEXT = 0
B_COUNT = 1
B_ENTRIES = 2


@kernel
def keg_of(z: int) -> int:
    """Zone whose slabs a zone's items come from, and whose lock it has."""
    return MBUF if z == PACKET else z


@kernel
def zone_at(st: State, addr: Address) -> int:
    """Zone of the item at an address, which of an mbuf may be that of packets; NIL: a large malloc."""
    z = zone_of(st, addr)
    return PACKET if z == MBUF and st.ext[addr >> MSHIFT] != NO_PACKET else z


@kernel
def slab_take(st: State, z: int) -> int:
    """Take an item of the first partly free slab, else of the first free one. Returns the address or NIL."""
    page = st.zone[z, Z_PART]
    if page == NIL:
        page = st.zone[z, Z_IDLE]
        if page == NIL:
            return NIL
        st.zone[z, Z_IDLE] = st.slab[page, S_NEXT]
        _put_first(st, z, Z_PART, page)
    k = wide(st.slab[page, S_FIRST])
    st.slab[page, S_FIRST] = st.freelist[page, k]
    st.slab[page, S_COUNT] -= 1
    st.zone[z, Z_FREE] -= 1
    if st.slab[page, S_COUNT] == 0:
        st.zone[z, Z_PART] = leave(st.slab, LISTED, page, st.zone[z, Z_PART])
    return (page << PAGE_SHIFT) + k * st.zone[z, Z_SIZE]


@kernel
def slab_give(st: State, reg: Registers, i: int, addr: Address) -> None:
    """Give an item back to its slab: the end of uma_zfree_internal()."""
    page = addr >> PAGE_SHIFT
    z = zone_of(st, addr)
    count = wide(st.slab[page, S_COUNT]) + 1
    st.slab[page, S_COUNT] = count
    if count == st.zone[z, Z_ITEMS]:
        if count > 1:
            st.zone[z, Z_PART] = leave(st.slab, LISTED, page, st.zone[z, Z_PART])
        _put_first(st, z, Z_IDLE, page)
    elif count == 1:
        st.zone[z, Z_PART] = enter(reg, i, st.slab, LISTED, st.p.slab_order, page, st.zone[z, Z_PART])
    else:
        st.zone[z, Z_PART] = gained(reg, i, st.slab, LISTED, st.p.slab_order, page, st.zone[z, Z_PART])
    k = (addr & (PAGE - 1)) // st.zone[z, Z_SIZE]
    st.freelist[page, k] = st.slab[page, S_FIRST]
    st.slab[page, S_FIRST] = k
    st.zone[z, Z_FREE] += 1
    if st.zone[z, Z_FULL]:
        if st.zone[z, Z_HELD] < st.zone[z, Z_MAX]:
            st.zone[z, Z_FULL] = 0
        let_go(reg, i, z, 1)


@kernel
def slab_add(st: State, reg: Registers, i: int, z: int, base: Address, header: int, m: int) -> None:
    """Enter a new slab from map `m` among the partly free ones. `header`: address of an off-page one or NIL."""
    page = base >> PAGE_SHIFT
    items = st.zone[z, Z_ITEMS]
    for k in range(items):
        st.freelist[page, k] = k + 1
    reg[i, regs.WORK] += items
    st.slab[page, S_ZONE] = z + 1
    st.slab[page, S_COUNT] = items
    st.slab[page, S_FIRST] = 0
    st.slab[page, S_HEADER] = header >> st.shift
    st.slab[page, S_MAP] = m
    st.zone[z, Z_HELD] += st.zone[z, Z_PAGES]
    st.zone[z, Z_FREE] += items
    st.zone[z, Z_PART] = enter(reg, i, st.slab, LISTED, st.p.slab_order, page, st.zone[z, Z_PART])


@kernel
def _put_first(st: State, z: int, column: int, page: int) -> None:
    """Put a slab at the head of a list."""
    push(st.slab, LISTED, page, st.zone[z, column])
    st.zone[z, column] = page


@kernel
def idle_take(st: State, z: int, most: int, reverse: int) -> int:
    """Take up to `most` free slabs out of a zone. Returns the first page; S_NEXT leads on, `reverse`: backwards."""
    page = st.zone[z, Z_IDLE]
    first = NIL if reverse or most == 0 else page
    last = NIL
    while page != NIL and most > 0:
        after = wide(st.slab[page, S_NEXT])
        if reverse:
            st.slab[page, S_NEXT] = first
            first = page
        st.zone[z, Z_HELD] -= st.zone[z, Z_PAGES]
        st.zone[z, Z_FREE] -= st.zone[z, Z_ITEMS]
        st.slab[page, S_ZONE] = 0
        st.slab[page, S_COUNT] = 0
        last = page
        page = after
        most -= 1
    st.zone[z, Z_IDLE] = page
    if last != NIL and not reverse:
        st.slab[last, S_NEXT] = NIL
    return first


@kernel
def bucket_count(st: State, b: int) -> int:
    """Items in a bucket."""
    return wide(st.word[b + B_COUNT])


@kernel
def bucket_room(st: State, z: int, b: int) -> int:
    """Items that a bucket takes from frees: as many as fit; before late 2003 what the zone's are filled to."""
    return wide(st.word[b + B_ENTRIES]) if st.p.generation >= UMA_03 else st.zone[z, Z_COUNT]


@kernel
def bucket_add(st: State, b: int, addr: Address) -> None:
    """Put an item into a bucket that has room."""
    n = bucket_count(st, b)
    st.word[b + BUCKET_WORDS + n] = addr >> st.shift
    st.word[b + B_COUNT] = n + 1


@kernel
def bucket_take(st: State, b: int) -> int:
    """Take the last item of a bucket that has one. Returns its address."""
    n = bucket_count(st, b) - 1
    st.word[b + B_COUNT] = n
    return wide(st.word[b + BUCKET_WORDS + n]) << st.shift


@kernel
def list_push(st: State, z: int, column: int, b: int) -> None:
    """Put a bucket at the head of a zone's list."""
    st.word[b + B_NEXT] = st.zone[z, column] + 1
    st.zone[z, column] = b


@kernel
def list_pop(st: State, z: int, column: int) -> int:
    """Take the first bucket of a zone's list. Returns it or NIL."""
    b = st.zone[z, column]
    if b != NIL:
        st.zone[z, column] = wide(st.word[b + B_NEXT]) - 1
    return b


@kernel
def cache_pop(st: State, z: int, cpu: int) -> int:
    """Take an item from a CPU's alloc bucket, which changes places with the free one when empty. Address or NIL."""
    b = st.cache[z, cpu, ALLOC]
    if b == NIL:
        return NIL
    if bucket_count(st, b) == 0:
        other = st.cache[z, cpu, FREE]
        if other == NIL or bucket_count(st, other) == 0:
            return NIL
        st.cache[z, cpu, ALLOC] = other
        st.cache[z, cpu, FREE] = b
        b = other
    st.cache[z, cpu, ALLOCS] += 1
    return bucket_take(st, b)


@kernel
def has_room(st: State, z: int, b: int) -> bool:
    """Whether a bucket takes an item that is freed; NIL is none."""
    return b != NIL and bucket_count(st, b) < bucket_room(st, z, b)


@kernel
def cache_push(st: State, z: int, cpu: int, addr: Address) -> bool:
    """Put an item into a CPU's free bucket, which changes places with an alloc bucket that holds less. False: full."""
    b = st.cache[z, cpu, FREE]
    if b == NIL:
        return False
    if not has_room(st, z, b):
        other = st.cache[z, cpu, ALLOC]
        if other == NIL or bucket_count(st, other) >= bucket_count(st, b):
            return False
        st.cache[z, cpu, ALLOC] = b
        st.cache[z, cpu, FREE] = other
        b = other
        if not has_room(st, z, b):
            return False
    bucket_add(st, b, addr)
    return True


@kernel
def fold_allocs(st: State, z: int, cpu: int) -> None:
    """Add a CPU's count of allocations to the zone's."""
    st.zone[z, Z_ALLOCS] += st.cache[z, cpu, ALLOCS]
    st.cache[z, cpu, ALLOCS] = 0
