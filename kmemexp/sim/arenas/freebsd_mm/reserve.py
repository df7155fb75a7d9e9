"""Pages of kernel_object: reservations of superpages, broken when pages run out (sys/vm/vm_reserv.c, vm_page.c).

kernel_object is large, so the first page in a superpage of a domain's KVA takes an order-9 block, from which all
others in it come without the free lists. A reservation without a page left goes back whole; one that is partly filled
lies in a queue of its domain, the one that was touched last at its end. `kva` is a page of the KVA.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import int64
from kmemexp.sim.arenas.freebsd_mm import phys
from kmemexp.sim.arenas.freebsd_mm import state as s
from kmemexp.sim.arenas.freebsd_mm.state import Phys

NONE = phys.NONE


@outlined
def back(st: Phys, kva: int, n: int, d: int, cpu: int) -> bool:
    """kmem_back_domain(): give `n` pages of KVA memory of domain `d`. False: there is too little, and none has any."""
    for i in range(n):
        page = _page(st, kva + i, d, cpu)
        if page == NONE:
            unback(st, kva, i, cpu)
            return False
        st.frame[kva + i] = page + 1
        st.base[2] = max(st.base[2], page + 1)
    return True


@outlined
def back_in_row(st: Phys, kva: int, n: int, d: int) -> bool:
    """vm_page_alloc_contig_domain(): the same with contiguous pages: of one reservation, or cut from a free block."""
    page = NONE
    if kva >> s.LEVEL_0 == (kva + n - 1) >> s.LEVEL_0:
        page = _reserved(st, kva, d)
    whole = page != NONE
    order = 0
    while 1 << order < n:
        order += 1
    while page == NONE:
        page = phys.alloc_pages(st, d, s.POOL_DEFAULT, order)
        if page == NONE and not break_one(st, d) and not phys.drain(st, d):
            return False
    for i in range(1, n):
        if whole:
            _reserved(st, kva + i, d)
    if not whole:
        phys.enqueue(st, d, s.POOL_DEFAULT, page + n, (1 << order) - n)
    for i in range(n):
        st.frame[kva + i] = page + i + 1
        if not whole:
            st.pool[page + i] = s.POOL_DEFAULT
    st.base[2] = max(st.base[2], page + n)
    return True


@outlined
def unback(st: Phys, kva: int, n: int, cpu: int) -> None:
    """_kmem_unback(): free the pages of a range of KVA."""
    for at in range(kva, kva + n):
        page = int64(st.frame[at]) - 1
        st.frame[at] = 0
        r = at >> s.LEVEL_0
        first = int64(st.block[r]) - 1
        if first != NONE and page >> s.LEVEL_0 == first >> s.LEVEL_0:
            _depopulate(st, r, first)
        else:
            phys.free_page(st, page, cpu)


@kernel
def _page(st: Phys, kva: int, d: int, cpu: int) -> int:
    """A page for one of KVA: of its reservation, of the cache, of the lists, or of a reservation that is broken."""
    page = _reserved(st, kva, d)
    if page == NONE:
        page = phys.alloc_page(st, d, s.POOL_DEFAULT, cpu)
    while page == NONE:
        if not break_one(st, d) and not phys.drain(st, d):
            return NONE
        page = phys.alloc_pages(st, d, s.POOL_DEFAULT, 0)
    return page


@kernel
def _reserved(st: Phys, kva: int, d: int) -> int:
    """vm_reserv_alloc_page(). NONE: there is no reservation, and no block for one."""
    if not st.p.reservations:
        return NONE
    r = kva >> s.LEVEL_0
    if st.block[r] == 0:
        if _has_frames(st, r):  # it was broken, and some of its pages are in use
            return NONE
        first = phys.alloc_pages(st, d, s.POOL_DEFAULT, s.LEVEL_0)
        if first == NONE:
            return NONE
        st.block[r], st.filling[r] = first + 1, 0
        st.domain[d, s.IDLE] += s.UNIT
    first = int64(st.block[r]) - 1
    st.filling[r] += 1
    at = phys.domain_of(st, first)
    st.domain[at, s.IDLE] -= 1
    _requeue(st, at, r)
    return first + (kva & (s.UNIT - 1))


@kernel
def _has_frames(st: Phys, r: int) -> bool:
    """Whether any page of a superpage of KVA has memory."""
    found = False
    for kva in range(r << s.LEVEL_0, (r + 1) << s.LEVEL_0):
        found = found or st.frame[kva] != 0
    return found


@kernel
def _depopulate(st: Phys, r: int, first: int) -> None:
    """vm_reserv_depopulate(): one page less."""
    d = phys.domain_of(st, first)
    st.filling[r] -= 1
    st.domain[d, s.IDLE] += 1
    _requeue(st, d, r)
    if st.filling[r] == 0:
        _unqueue(st, d, r)
        st.block[r] = 0
        st.domain[d, s.IDLE] -= s.UNIT
        phys.free_pages(st, s.POOL_DEFAULT, first, s.LEVEL_0)


@kernel
def _requeue(st: Phys, d: int, r: int) -> None:
    """Put a reservation at the end of the queue of the partly filled, if it is one."""
    _unqueue(st, d, r)
    if st.filling[r] == s.UNIT:
        return
    last = st.domain[d, s.LAST]
    st.queue[r, 0], st.queue[r, 1] = 0, last
    if last:
        st.queue[last - 1, 0] = r + 1
    else:
        st.domain[d, s.PART] = r + 1
    st.domain[d, s.LAST] = r + 1


@kernel
def _unqueue(st: Phys, d: int, r: int) -> None:
    """Take a reservation out of the queue, if it is in it."""
    after, before = int64(st.queue[r, 0]), int64(st.queue[r, 1])
    if before:
        st.queue[before - 1, 0] = after
    elif st.domain[d, s.PART] == r + 1:
        st.domain[d, s.PART] = after
    else:
        return
    if after:
        st.queue[after - 1, 1] = before
    else:
        st.domain[d, s.LAST] = before
    st.queue[r, 0] = st.queue[r, 1] = 0


@outlined
def break_one(st: Phys, d: int) -> bool:
    """vm_reserv_reclaim_inactive(): break the reservation that was touched least recently. False: there is none."""
    r = st.domain[d, s.PART] - 1
    if r == NONE:
        return False
    _unqueue(st, d, r)
    first = int64(st.block[r]) - 1
    st.block[r] = 0
    st.domain[d, s.BROKEN] += 1
    for i in range(s.UNIT):
        if st.frame[(r << s.LEVEL_0) + i] == 0:
            st.domain[d, s.IDLE] -= 1
            phys.free_pages(st, s.POOL_DEFAULT, first + i, 0)
        else:
            st.pool[first + i] = s.POOL_DEFAULT
    return True
