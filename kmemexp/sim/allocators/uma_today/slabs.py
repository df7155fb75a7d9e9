"""Slabs, buckets and the lists of full buckets of `allocators/uma_today`: what its steps do, without their order.

A zone is a row of `zone`; its keg has the same number. A bucket is named by its address / 8, and its 16-byte header
and its items lie in `word` where they would lie in memory: word b is the next bucket of a list + 1 (or a note of who
holds it), word b + 1 its count and its entries << 16, words b + 2 … its items' addresses / 8.
"""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Address, Registers
from kmemexp.sim.allocators._shared.slab_lists import enter, gained, leave, push
from kmemexp.sim.allocators._shared.uma_requests import NIL, S_ZONE
from kmemexp.sim.allocators.uma_today.state import State
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.sim.widths import wide

# Columns of State.zone.
Z_SIZE = 0  # bytes of an item
Z_ITEMS = 1  # per slab
Z_PAGES = 2  # per slab
Z_HEADER = 3  # zone of the off-page headers; NIL: headers are inside
Z_MAP = 4  # map that slabs come from
Z_BUCKET = 5  # entries that a bucket is filled to (uz_bucket_size)
Z_BUCKET_MIN = 6
Z_BUCKET_MAX = 7  # grows up to this
Z_CACHE_MAX = 8  # full buckets are kept while a domain has fewer items in them (uz_bucket_max)
Z_MAX = 9  # items that may be out of the keg (uz_max_items); 0: any number
Z_USED = 10  # items out of the keg, or about to be (uz_items)
Z_ENTRIES = 11  # of a bucket zone: entries of its buckets
Z_SLEEPERS = 12  # who sleep at the limit
Z_SMR = 13  # 1: UMA_ZONE_SMR
Z_NOFREE = 14  # 1: UMA_ZONE_NOFREE
Z_STACK = 15  # 1: kernel stacks, which the keg does not keep
Z_KEG = 16  # zone whose keg it has: its own number, or the primary zone of a secondary one
Z_COLUMNS = 17

# Columns of State.cache, three each: bucket, count, entries. A bucket zone has a stack of empty buckets instead.
ALLOC = 0  # where items are taken from, and put first
FREE = 3
CROSS = 6  # items of other domains
COUNT = 1
ENTRIES = 2
TOP = 0  # of a stack
HALF = 2  # a stack that is empty gets so many, one that holds more than twice as many gives back down to this
C_COLUMNS = 9

# Columns of State.dom: a zone and its keg in one domain.
D_LIST = 0  # first full bucket
D_COUNT = 1  # items in full buckets (uzd_nitems)
D_IMAX = 2
D_IMIN = 3
D_BIMIN = 4
D_WSS = 5
D_LIMIN = 6
D_TIMIN = 7
D_CROSS = 8  # bucket that cross-domain frees are sorted into, with more than two domains
D_TAKES = 9  # times that the zone-domain lock was taken
D_PART = 10  # first page of the first slab that is partly free
D_FREE = 11  # the same of wholly free ones
D_FREE_SLABS = 12
D_PAGES = 13
D_LAST = 14  # last full bucket, of a zone with SMR
D_COLUMNS = 15

# Columns of State.slab beside S_ZONE: for each page that, S_DOMAIN and S_FIRST, for the first page of a slab the rest.
S_DOMAIN = 1
S_FIRST = 2  # first page of the slab
S_COUNT = 3  # free items; of a large malloc: pages
S_NEXT = 4
S_PREV = 5
S_HEADER = 6  # address / 16 of the off-page header
S_COLUMNS = 8
LISTED = (S_NEXT, S_PREV, S_COUNT)  # what a sorted list goes by
HEADER_SHIFT = 4

WORD_SHIFT = 3
ENTRIES_SHIFT = 16
COUNT_MASK = (1 << ENTRIES_SHIFT) - 1
SET_WORDS = 16  # 32-bit words of a slab's bitmap


@kernel
def count_pages(st: State, pages: int) -> None:
    """uma_total_inc(), uma_total_dec(): beyond the limit before pages are added, the reclaim thread is woken."""
    if pages > 0 and 0 < st.p.kmem_limit < st.total[0] << PAGE_SHIFT:
        st.total[1] = 1
    st.total[0] += pages


@kernel
def slab_take(st: State, z: int, d: int) -> int:
    """Take the lowest item of the first partly free slab, else of the first free one. Returns the address or NIL."""
    page = st.dom[z, d, D_PART]
    if page == NIL:
        page = st.dom[z, d, D_FREE]
        if page == NIL:
            return NIL
        st.dom[z, d, D_FREE] = st.slab[page, S_NEXT]
        st.dom[z, d, D_FREE_SLABS] -= 1
        push(st.slab, LISTED, page, NIL)
        st.dom[z, d, D_PART] = page
    k = 0
    while st.bits[page, k] == 0:
        k += 1
    bits = wide(st.bits[page, k])
    low = bits & -bits
    st.bits[page, k] = bits ^ low
    st.slab[page, S_COUNT] -= 1
    if st.slab[page, S_COUNT] == 0:
        st.dom[z, d, D_PART] = leave(st.slab, LISTED, page, st.dom[z, d, D_PART])
    return (page << PAGE_SHIFT) + (32 * k + _bit_number(low)) * st.zone[z, Z_SIZE]


@kernel
def slab_give(st: State, reg: Registers, i: int, addr: Address) -> None:
    """Give an item back to its slab: slab_free_item()."""
    page = wide(st.slab[addr >> PAGE_SHIFT, S_FIRST])
    z = wide(st.slab[page, S_ZONE]) - 1
    d = wide(st.slab[page, S_DOMAIN])
    count = wide(st.slab[page, S_COUNT]) + 1
    st.slab[page, S_COUNT] = count
    if count == st.zone[z, Z_ITEMS]:
        if count > 1:
            st.dom[z, d, D_PART] = leave(st.slab, LISTED, page, st.dom[z, d, D_PART])
        st.slab[page, S_NEXT] = st.dom[z, d, D_FREE]
        st.dom[z, d, D_FREE] = page
        st.dom[z, d, D_FREE_SLABS] += 1
    elif count == 1:
        st.dom[z, d, D_PART] = enter(reg, i, st.slab, LISTED, st.p.slab_order, page, st.dom[z, d, D_PART])
    else:
        st.dom[z, d, D_PART] = gained(reg, i, st.slab, LISTED, st.p.slab_order, page, st.dom[z, d, D_PART])
    index = (addr - (page << PAGE_SHIFT)) // st.zone[z, Z_SIZE]
    st.bits[page, index >> 5] = wide(st.bits[page, index >> 5]) | (1 << (index & 31))


@kernel
def slab_add(st: State, reg: Registers, i: int, z: int, d: int, base: Address, header: int) -> None:
    """Enter a new slab at `base`, all of it free, among the partly free ones."""
    page = base >> PAGE_SHIFT
    for p in range(page, page + st.zone[z, Z_PAGES]):
        st.slab[p, S_ZONE] = z + 1
        st.slab[p, S_DOMAIN] = d
        st.slab[p, S_FIRST] = page
    items = st.zone[z, Z_ITEMS]
    for k in range(SET_WORDS):
        left = min(max(items - 32 * k, 0), 32)
        st.bits[page, k] = (1 << left) - 1
    st.slab[page, S_COUNT] = items
    st.slab[page, S_HEADER] = header >> HEADER_SHIFT
    st.dom[z, d, D_PAGES] += st.zone[z, Z_PAGES]
    if not st.zone[z, Z_STACK]:
        count_pages(st, st.zone[z, Z_PAGES])
    st.dom[z, d, D_PART] = enter(reg, i, st.slab, LISTED, st.p.slab_order, page, st.dom[z, d, D_PART])


@kernel
def slab_forget(st: State, z: int, page: int) -> None:
    """Forget a slab whose pages go back."""
    for p in range(page, page + st.zone[z, Z_PAGES]):
        st.slab[p, S_ZONE] = 0
    if not st.zone[z, Z_STACK]:
        count_pages(st, -st.zone[z, Z_PAGES])


@kernel
def _bit_number(low: int) -> int:
    """Return the number of the only bit that is set in a word of 32."""
    n = 16 if low & 0xFFFF0000 else 0
    n += 8 if low & 0xFF00FF00 else 0
    n += 4 if low & 0xF0F0F0F0 else 0
    n += 2 if low & 0xCCCCCCCC else 0
    return n + (1 if low & 0xAAAAAAAA else 0)


@kernel
def item_at(st: State, b: int, n: int) -> int:
    """Address of item `n` of a bucket."""
    return wide(st.word[b + 2 + n]) << WORD_SHIFT


@kernel
def bucket_count(st: State, b: int) -> int:
    """Items in a bucket that no CPU has loaded."""
    return wide(st.word[b + 1]) & COUNT_MASK


@kernel
def bucket_entries(st: State, b: int) -> int:
    """Items that a bucket has room for."""
    return wide(st.word[b + 1]) >> ENTRIES_SHIFT


@kernel
def new_bucket(st: State, z: int, k: int, b: int) -> None:
    """Make a bucket of bucket zone `k` one for zone `z`, without items."""
    st.word[b + 1] = min(st.zone[k, Z_ENTRIES], st.zone[z, Z_BUCKET_MAX]) << ENTRIES_SHIFT


@kernel
def bucket_add(st: State, b: int, addr: Address) -> int:
    """Put an item into a bucket that no CPU has loaded, and that has room."""
    n = bucket_count(st, b)
    st.word[b + 2 + n] = addr >> WORD_SHIFT
    st.word[b + 1] = wide(st.word[b + 1]) + 1
    return n + 1


@kernel
def cache_load(st: State, z: int, cpu: int, at: int, b: int) -> None:
    """Give a CPU a bucket in one of its three places, which is empty."""
    st.cache[z, cpu, at] = b
    st.cache[z, cpu, at + COUNT] = bucket_count(st, b)
    st.cache[z, cpu, at + ENTRIES] = bucket_entries(st, b)


@kernel
def cache_unload(st: State, z: int, cpu: int, at: int) -> int:
    """Take a CPU's bucket from it. Returns it or NIL; its word b is 0."""
    b = st.cache[z, cpu, at]
    if b != NIL:
        st.word[b] = 0
        st.word[b + 1] = st.cache[z, cpu, at + ENTRIES] << ENTRIES_SHIFT | st.cache[z, cpu, at + COUNT]
        st.cache[z, cpu, at] = NIL
        st.cache[z, cpu, at + COUNT] = 0
        st.cache[z, cpu, at + ENTRIES] = 0
    return b


@kernel
def cache_swap(st: State, z: int, cpu: int) -> None:
    """Exchange a CPU's alloc and free bucket."""
    for k in range(FREE):
        other = st.cache[z, cpu, FREE + k]
        st.cache[z, cpu, FREE + k] = st.cache[z, cpu, ALLOC + k]
        st.cache[z, cpu, ALLOC + k] = other


@kernel
def cache_pop(st: State, z: int, cpu: int) -> int:
    """Take the item that came last into a CPU's alloc bucket, else into its free bucket. Returns address or NIL.

    With SMR what is freed is not reused before its bucket has been full, and others of the list before it.
    """
    n = st.cache[z, cpu, ALLOC + COUNT]
    if n == 0:
        n = st.cache[z, cpu, FREE + COUNT]
        if n == 0 or st.zone[z, Z_SMR]:
            return NIL
        cache_swap(st, z, cpu)
    st.cache[z, cpu, ALLOC + COUNT] = n - 1
    return item_at(st, st.cache[z, cpu, ALLOC], n - 1)


@kernel
def cache_push(st: State, z: int, cpu: int, addr: Address, cross: int) -> bool:
    """Put an item into a CPU's alloc bucket, else its free bucket; of another domain: its cross bucket. False: full."""
    at = ALLOC
    if cross:
        at = CROSS
    elif st.zone[z, Z_SMR]:
        at = FREE
    elif (
        st.cache[z, cpu, ALLOC + COUNT] == st.cache[z, cpu, ALLOC + ENTRIES]
        and st.cache[z, cpu, FREE + COUNT] < st.cache[z, cpu, FREE + ENTRIES]
    ):
        cache_swap(st, z, cpu)
    n = st.cache[z, cpu, at + COUNT]
    if n == st.cache[z, cpu, at + ENTRIES]:
        return False
    st.word[st.cache[z, cpu, at] + 2 + n] = addr >> WORD_SHIFT
    st.cache[z, cpu, at + COUNT] = n + 1
    return True


@kernel
def stack_push(st: State, k: int, cpu: int, b: int) -> bool:
    """Put an empty bucket on a CPU's stack of bucket zone `k`. True: the stack holds too many now."""
    st.word[b] = st.cache[k, cpu, TOP] + 1
    st.cache[k, cpu, TOP] = b
    st.cache[k, cpu, COUNT] += 1
    return st.cache[k, cpu, COUNT] > 2 * st.cache[k, cpu, HALF]


@kernel
def stack_pop(st: State, k: int, cpu: int) -> int:
    """Take a bucket from a CPU's stack. Returns it or NIL."""
    b = st.cache[k, cpu, TOP]
    if b != NIL:
        st.cache[k, cpu, TOP] = wide(st.word[b]) - 1
        st.cache[k, cpu, COUNT] -= 1
        st.word[b] = 0
    return b


@kernel
def list_put(st: State, z: int, d: int, b: int, working: int) -> bool:
    """Put a bucket before the full ones of a domain, with SMR behind them: zone_put_bucket(). False: there are enough.

    `working`: its items count for the working set; otherwise the bounds of the estimate are shifted.
    """
    count = bucket_count(st, b)
    total = st.dom[z, d, D_COUNT] + count
    if total >= st.zone[z, Z_CACHE_MAX]:
        return False
    st.dom[z, d, D_COUNT] = total
    if not working:
        st.dom[z, d, D_IMAX] += count
        st.dom[z, d, D_IMIN] += count
        st.dom[z, d, D_BIMIN] += count
        st.dom[z, d, D_LIMIN] += count
    elif st.dom[z, d, D_IMAX] < total:
        st.dom[z, d, D_WSS] = max(st.dom[z, d, D_WSS], st.dom[z, d, D_IMAX] - st.dom[z, d, D_BIMIN])
        st.dom[z, d, D_IMAX] = st.dom[z, d, D_BIMIN] = total
    if st.zone[z, Z_SMR] and st.dom[z, d, D_LIST] != NIL:
        st.word[b] = 0
        st.word[st.dom[z, d, D_LAST]] = b + 1
    else:
        st.word[b] = st.dom[z, d, D_LIST] + 1
        st.dom[z, d, D_LIST] = b
    st.dom[z, d, D_LAST] = b
    return True


@kernel
def list_fetch(st: State, z: int, d: int, reclaim: int) -> int:
    """Take the first full bucket of a domain, for a CPU or to give its items back: zone_fetch_bucket()."""
    b = st.dom[z, d, D_LIST]
    if b == NIL:
        return NIL
    st.dom[z, d, D_LIST] = wide(st.word[b]) - 1
    st.word[b] = 0
    count = bucket_count(st, b)
    st.dom[z, d, D_COUNT] -= count
    if not reclaim:
        st.dom[z, d, D_BIMIN] = min(st.dom[z, d, D_BIMIN], st.dom[z, d, D_COUNT])
        st.dom[z, d, D_IMIN] = min(st.dom[z, d, D_IMIN], st.dom[z, d, D_BIMIN])
        return b
    batch = min(st.dom[z, d, D_BIMIN], count)
    st.dom[z, d, D_IMAX] -= batch
    st.dom[z, d, D_BIMIN] -= batch
    st.dom[z, d, D_IMIN] -= min(st.dom[z, d, D_IMIN], count)
    if st.dom[z, d, D_LIMIN] >= count:
        st.dom[z, d, D_LIMIN] -= count
    else:
        st.dom[z, d, D_LIMIN] = st.dom[z, d, D_TIMIN] = 0
    return b


@kernel
def update_working_set(st: State, z: int, d: int) -> None:
    """End an interval of the working-set estimate: zone_domain_update_wss()."""
    count = st.dom[z, d, D_COUNT]
    wss = max(st.dom[z, d, D_WSS] * 3 // 4, st.dom[z, d, D_IMAX] - st.dom[z, d, D_BIMIN])
    spare = st.dom[z, d, D_IMIN] - wss
    if spare < 0:
        st.dom[z, d, D_LIMIN] = st.dom[z, d, D_TIMIN] = 0
    else:
        longest = st.dom[z, d, D_LIMIN]
        st.dom[z, d, D_LIMIN] = spare if longest >= spare else (spare + 255 * longest) // 256
        st.dom[z, d, D_TIMIN] += 1
    st.dom[z, d, D_WSS] = wss
    st.dom[z, d, D_IMAX] -= (st.dom[z, d, D_IMAX] - count + 1) // 2
    st.dom[z, d, D_IMIN] = st.dom[z, d, D_BIMIN] = count
