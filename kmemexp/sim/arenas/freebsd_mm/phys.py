"""Free pages of FreeBSD: queues by domain, pool and order, CPUs' caches, and pages that never come back.

sys/vm/vm_phys.c (vm_phys_alloc_freelist_pages(), vm_phys_alloc_npages(), vm_phys_free_pages()), vm_page.c
(vm_page_zone_import(), vm_page_alloc_nofree_domain()). `st` is the Phys of `arenas.freebsd_mm`, `d` a domain.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import int64
from kmemexp.sim.arenas.freebsd_mm import state as s
from kmemexp.sim.arenas.freebsd_mm.state import Phys

NEXT, PREV = range(2)
NONE = -1
LARGEST = s.ORDERS - 1


@kernel
def place(st: Phys, page: int, order: int) -> int:
    """Row of a free block in `order` and `link`: those of the largest have rows of their own, which lie together."""
    return page >> LARGEST if order == LARGEST else len(st.order) - len(st.pool) + page


@kernel
def order_of(st: Phys, page: int) -> int:
    """Order of the free block that begins at a page; NONE: none does."""
    if page & ((1 << LARGEST) - 1) == 0 and st.order[page >> LARGEST]:
        return LARGEST
    return int64(st.order[place(st, page, 0)]) - 1


@kernel
def domain_of(st: Phys, page: int) -> int:
    """Domain of a page."""
    d = 0
    while page >= st.domain[d, s.END]:
        d += 1
    return d


@kernel
def put(st: Phys, d: int, pool: int, page: int, order: int) -> None:
    """Put a block on the tail of its list."""
    last, at = st.lists[d, pool, order, s.TAIL], place(st, page, order)
    st.order[at], st.pool[page] = order + 1, pool
    st.link[at, NEXT], st.link[at, PREV] = 0, last + 1
    if last == NONE:
        st.lists[d, pool, order, s.HEAD] = page
    else:
        st.link[place(st, last, order), NEXT] = page + 1
    st.lists[d, pool, order, s.TAIL] = page
    st.lists[d, pool, order, s.COUNT] += 1
    st.domain[d, s.FREE] += 1 << order
    st.base[3] += 1


@kernel
def pull(st: Phys, d: int, pool: int, page: int, order: int) -> None:
    """Take a block off its list."""
    at = place(st, page, order)
    after, before = int64(st.link[at, NEXT]) - 1, int64(st.link[at, PREV]) - 1
    if before == NONE:
        st.lists[d, pool, order, s.HEAD] = after
    else:
        st.link[place(st, before, order), NEXT] = after + 1
    if after == NONE:
        st.lists[d, pool, order, s.TAIL] = before
    else:
        st.link[place(st, after, order), PREV] = before + 1
    st.order[at] = 0
    st.lists[d, pool, order, s.COUNT] -= 1
    st.domain[d, s.FREE] -= 1 << order
    st.base[3] += 1


@outlined
def free_pages(st: Phys, pool: int, page: int, order: int) -> None:
    """vm_phys_free_pages(): merge with free buddies of any pool, then to the tail of the list."""
    d = domain_of(st, page)
    while order < LARGEST:
        buddy = page ^ (1 << order)
        outside = buddy < st.domain[d, s.FIRST] or buddy + (1 << order) > st.domain[d, s.END]
        if outside or st.order[place(st, buddy, order)] != order + 1:
            break
        pull(st, d, int64(st.pool[buddy]), buddy, order)
        order += 1
        page &= ~((1 << order) - 1)
    put(st, d, pool, page, order)


@outlined
def alloc_pages(st: Phys, d: int, pool: int, order: int) -> int:
    """vm_phys_alloc_pages(): the smallest block of the pool, else the largest of any, all of which changes its pool.

    Returns the first page or NONE.
    """
    found, of = order, pool
    while found < s.ORDERS and st.lists[d, pool, found, s.HEAD] == NONE:
        found += 1
    if found == s.ORDERS:
        found, of = _largest(st, d)
        if found < order:
            return NONE
    page = st.lists[d, of, found, s.HEAD]
    pull(st, d, of, page, found)
    while found > order:
        found -= 1
        put(st, d, pool, page + (1 << found), found)
    st.pool[page] = pool
    return page


@kernel
def _largest(st: Phys, d: int) -> tuple[int, int]:
    """Order and pool of the largest free block; the order is NONE where there is no block."""
    order = LARGEST
    while order >= 0:
        for pool in range(s.POOLS):
            if st.lists[d, pool, order, s.HEAD] != NONE:
                return order, pool
        order -= 1
    return NONE, 0


@kernel
def enqueue(st: Phys, d: int, pool: int, page: int, n: int) -> None:
    """vm_phys_enq_range(): give back the end of a block that has been cut, smallest pieces first."""
    while n > 0:
        order = 0
        while n & (1 << order) == 0:
            order += 1
        put(st, d, pool, page, order)
        page += 1 << order
        n -= 1 << order


@outlined
def import_bucket(st: Phys, d: int, pool: int, cpu: int, n: int) -> bool:
    """vm_page_zone_import(): fill the CPU's first bucket with `n` pages, or not at all: vm_phys_alloc_npages()."""
    if n < 2 or st.domain[d, s.FREE] < n:
        return False
    got = 0
    while got < n:
        order, of = 0, pool
        while order < s.ORDERS and st.lists[d, pool, order, s.HEAD] == NONE:
            order += 1
        if order == s.ORDERS:
            order, of = _largest(st, d)
        page = st.lists[d, of, order, s.HEAD]
        pull(st, d, of, page, order)
        k = min(n - got, 1 << order)
        for i in range(k):
            # The pages are taken from the top of the bucket.
            st.stack[cpu, pool, 0, got + i] = page + i
            st.pool[page + i] = pool
        got += k
        enqueue(st, d, pool, page + k, (1 << order) - k)
    st.filled[cpu, pool, 0] = n
    st.domain[d, s.CACHED] += n
    return True


@outlined
def alloc_page(st: Phys, d: int, pool: int, cpu: int) -> int:
    """One page, from the CPU's cache where there is one. Returns the page or NONE."""
    n = st.domain[d, s.ENTRIES]
    if n == 0:
        return alloc_pages(st, d, pool, 0)
    if st.filled[cpu, pool, 0] == 0:
        if st.filled[cpu, pool, 1] > 0:
            _swap(st, pool, cpu)
        elif st.fulls[d, pool] > 0:
            st.fulls[d, pool] -= 1
            for i in range(n):
                st.stack[cpu, pool, 0, i] = st.full[d, pool, st.fulls[d, pool], i]
            st.filled[cpu, pool, 0] = n
        elif not import_bucket(st, d, pool, cpu, n):
            return alloc_pages(st, d, pool, 0)
    st.filled[cpu, pool, 0] -= 1
    st.domain[d, s.CACHED] -= 1
    return int64(st.stack[cpu, pool, 0, st.filled[cpu, pool, 0]])


@kernel
def _swap(st: Phys, pool: int, cpu: int) -> None:
    """Let the CPU's two buckets change places."""
    for i in range(max(st.filled[cpu, pool, 0], st.filled[cpu, pool, 1])):
        st.stack[cpu, pool, 0, i], st.stack[cpu, pool, 1, i] = st.stack[cpu, pool, 1, i], st.stack[cpu, pool, 0, i]
    st.filled[cpu, pool, 0], st.filled[cpu, pool, 1] = st.filled[cpu, pool, 1], st.filled[cpu, pool, 0]


@outlined
def free_page(st: Phys, page: int, cpu: int) -> None:
    """vm_page_free(): into the cache of a CPU of its domain; a bucket that is one too many goes back page by page."""
    pool, d = int64(st.pool[page]), domain_of(st, page)
    n = st.domain[d, s.ENTRIES]
    if n == 0 or cpu * len(st.domain) // len(st.filled) != d:
        free_pages(st, pool, page, 0)
        return
    if st.filled[cpu, pool, 0] == n:
        _swap(st, pool, cpu)
    if st.filled[cpu, pool, 0] == n:
        if st.fulls[d, pool] < st.domain[d, s.BUCKETS]:
            for i in range(n):
                st.full[d, pool, st.fulls[d, pool], i] = st.stack[cpu, pool, 0, i]
            st.fulls[d, pool] += 1
        else:
            _release(st, d, pool, cpu, n)
        st.filled[cpu, pool, 0] = 0
    st.stack[cpu, pool, 0, st.filled[cpu, pool, 0]] = page
    st.filled[cpu, pool, 0] += 1
    st.domain[d, s.CACHED] += 1


@kernel
def _release(st: Phys, d: int, pool: int, cpu: int, n: int) -> None:
    """vm_page_zone_release()."""
    for i in range(n):
        free_pages(st, pool, int64(st.stack[cpu, pool, 0, i]), 0)
    st.domain[d, s.CACHED] -= n


@outlined
def drain(st: Phys, d: int) -> bool:
    """Give all cached pages of a domain back. False: there were none."""
    if st.domain[d, s.CACHED] == 0:
        return False
    for pool in range(s.POOLS):
        for k in range(st.fulls[d, pool]):
            for i in range(st.domain[d, s.ENTRIES]):
                free_pages(st, pool, int64(st.full[d, pool, k, i]), 0)
        st.fulls[d, pool] = 0
        for cpu in range(len(st.filled)):
            if cpu * len(st.domain) // len(st.filled) == d:
                for b in range(2):
                    for i in range(st.filled[cpu, pool, b]):
                        free_pages(st, pool, int64(st.stack[cpu, pool, b, i]), 0)
                    st.filled[cpu, pool, b] = 0
    st.domain[d, s.CACHED] = 0
    return True


@outlined
def alloc_nofree(st: Phys, d: int) -> int:
    """vm_page_alloc_nofree_domain(): pages of one block one after the other, those that came back first.

    NONE: there is no such block, and an ordinary page must do.
    """
    back = st.domain[d, s.NOFREE_BACK]
    if back:
        st.domain[d, s.NOFREE_BACK] = int64(st.link[place(st, back - 1, 0), NEXT])
        st.domain[d, s.IDLE] -= 1
        return back - 1
    if st.domain[d, s.NOFREE_LEFT] == 0:
        page = alloc_pages(st, d, s.POOL_DEFAULT, s.LEVEL_0)
        if page == NONE:
            return NONE
        st.domain[d, s.NOFREE_AT], st.domain[d, s.NOFREE_LEFT] = page, s.UNIT
        st.domain[d, s.IDLE] += s.UNIT
    st.domain[d, s.IDLE] -= 1
    st.domain[d, s.NOFREE_LEFT] -= 1
    st.domain[d, s.NOFREE_AT] += 1
    return st.domain[d, s.NOFREE_AT] - 1


@kernel
def free_nofree(st: Phys, page: int) -> None:
    """Such a page waits for the next request of its sort."""
    d = domain_of(st, page)
    st.link[place(st, page, 0), NEXT] = st.domain[d, s.NOFREE_BACK]
    st.domain[d, s.NOFREE_BACK] = page + 1
    st.domain[d, s.IDLE] += 1
