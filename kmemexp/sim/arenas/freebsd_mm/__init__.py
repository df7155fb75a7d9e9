"""Kernel memory of FreeBSD 15 on amd64: two levels of vmem arenas, a direct map, and the physical pages behind both.

sys/vm/{vm_kern,vm_phys,vm_reserv,vm_page}.c, 2018 to 2025. KVA: kernel_map, from which kernel_arena imports superpages;
from that the arena of each domain does, for kmem_malloc() (ATTR_WIRED requests); what is not wired (kva_alloc()) comes
from kernel_arena itself, submaps (ATTR_SINGLE) from kernel_map: so wired memory and other KVA never share a superpage
(`arenas.vmem`, levels = 2). Domains import a superpage at a time, on machines of several 256 MiB. Kernel stacks
(ATTR_STACK: four pages, before which comes a guard page) have an arena, and an object for their pages, of their own.

Map `DIRECT` is the direct map: one-page slabs and page tables are pages of it, without KVA. Free pages lie in queues by
domain, pool and order, before them CPUs' caches (`phys`); pages of NOFREE slabs are cut from superpages of their own.
Pages of kernel memory come from reservations of whole superpages (`reserve`). A request of several pages in the direct
map is physically contiguous: of the smallest block of the first pool that is large enough. One of KVA is so with
ATTR_CONTIG (kmem_alloc_contig()): of one reservation, else of such a block.

Left out: free lists below 4 GiB and the lazily initialised pool; other domains' pages when those of the own one are
out; that each domain has a lock of its own; classes of request (the driver with a clock has them, `engine/memory.py`)
and user pages, which would lie between; that the page cache imports only down to the reserve; vm_page_alloc_contig()'s
search across blocks and its reclaim; arenas for executable memory.
"""

from itertools import pairwise

import numpy as np

from kmemexp.jit import entry, kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, MapNo, Registers, Shares, Words, int64
from kmemexp.sim.allocators.uma_today import keg
from kmemexp.sim.arenas import vmem
from kmemexp.sim.arenas._shared.measuring import count_hole, paint
from kmemexp.sim.arenas.freebsd_mm import phys, reserve
from kmemexp.sim.arenas.freebsd_mm import state as s
from kmemexp.sim.arenas.freebsd_mm.state import Params, Phys, State
from kmemexp.sim.asking import sort_alone
from kmemexp.sim.checks import insist
from kmemexp.sim.map_calls import KSTACK
from kmemexp.sim.maps import DIRECT, KERNEL
from kmemexp.sim.slots import (
    ATTR_CONTIG,
    ATTR_NOFREE,
    ATTR_SORT,
    ATTR_STACK,
    ATTR_WIRED,
    NO_ENTRY,
    NO_SPACE,
    PAGE,
    PAGE_SHIFT,
)
from kmemexp.sim.tables import gauge

CALLS = (KSTACK, vmem.KMEM_UNBACK)  # of what goes straight to the map: stacks of designs that do not cache them
CPU_LOCK = "critical"  # in which a CPU's cache of free pages is
FROM_ARENA = ("clean_map",)  # what boot takes by kva_alloc()

HELD_SHIFT = 4
STACK_BYTES = (vmem.stacks.STACK_PAGES - 1) << PAGE_SHIFT
CACHE_SHARE = 1000  # a pool's page cache has at most a thousandth of its domain's pages


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError for impossible parameters."""
    p = params._replace(cpus=params.cpus or cpus, domains=params.domains or 1)
    if not 1 <= p.domains <= p.cpus:
        raise ValueError(f"domains is {p.domains}: each needs a CPU, and there are {p.cpus}")
    shared = {name: getattr(p, name) for name in vmem.Params._fields if name in Params._fields}
    kva = vmem.init(vmem.Params(**shared, levels=2, direct=1), kva_bytes=kva_bytes, cpus=cpus, maps=maps)
    st = State(p, kva, _phys(p, kva_bytes))
    _free_all(st.phys)
    return st


def _phys(p: Params, kva_bytes: int) -> Phys:
    """Make the tables of physical memory, none of which is free yet."""
    pages, kva_pages = p.ram_bytes >> PAGE_SHIFT, kva_bytes >> PAGE_SHIFT
    superpages = (kva_pages >> s.LEVEL_0) + 1
    rows = -(-pages >> phys.LARGEST) + pages
    names = demand.names(max(pages, kva_pages) + 1)
    domain = np.zeros((p.domains, s.DOMAIN_COLUMNS), np.int64)
    for d, row in enumerate(domain):
        row[[s.FIRST, s.END]] = pages * d // p.domains, pages * (d + 1) // p.domains
        limit = int(row[s.END] - row[s.FIRST]) // CACHE_SHARE
        entries, kept = keg.set_max(limit, p.cpus) if p.page_cache else (0, 0)
        row[[s.ENTRIES, s.BUCKETS]] = entries, kept // entries if entries else 0
    entries, buckets = (int(domain[:, column].max(initial=1)) for column in (s.ENTRIES, s.BUCKETS))
    lists = np.full((p.domains, s.POOLS, s.ORDERS, 3), phys.NONE, np.int64)
    lists[:, :, :, s.COUNT] = 0
    return Phys(
        p,
        order=demand.zeros(rows, np.int8),
        pool=demand.zeros(pages, np.int8),
        link=demand.zeros((rows, 2), names),
        lists=lists,
        domain=domain,
        held=demand.zeros(pages, names),
        stack=np.zeros((p.cpus, s.POOLS, 2, max(entries, 1)), np.int32),
        filled=np.zeros((p.cpus, s.POOLS, 2), np.int64),
        full=np.zeros((p.domains, s.POOLS, max(buckets, 1), max(entries, 1)), np.int32),
        fulls=np.zeros((p.domains, s.POOLS), np.int64),
        block=demand.zeros(2 * superpages, names),
        filling=demand.zeros(2 * superpages, np.int16),
        queue=demand.zeros((2 * superpages, 2), names),
        frame=demand.zeros(2 * superpages << s.LEVEL_0, names),
        base=np.zeros(4, np.int64),
    )


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if map_no != DIRECT:
        vmem.add_map(st.kva, map_no, base, nbytes)
        return
    if nbytes != st.p.ram_bytes:
        raise ValueError(f"the direct map has {nbytes} bytes, and memory ram_bytes = {st.p.ram_bytes}")
    st.phys.base[0] = base >> PAGE_SHIFT


def _free_all(st: Phys) -> None:
    """Free all pages as boot does, in blocks as large as can be, the lowest first."""
    for d in range(len(st.domain)):
        page, end = st.domain[d, [s.FIRST, s.END]].tolist()
        size = 1 << phys.LARGEST
        largest = np.arange(-(-page // size) * size, end - size + 1, size)
        if page == (largest[0] if len(largest) else -1):
            _free_largest(st, d, largest)
            page = int(largest[-1]) + size
        while page < end:
            order = min((page & -page).bit_length() - 1 if page else phys.LARGEST, (end - page).bit_length() - 1)
            entry(phys.free_pages)(st, s.POOL_DEFAULT, page, min(order, phys.LARGEST))
            page += 1 << min(order, phys.LARGEST)


def _free_largest(st: Phys, d: int, pages: np.ndarray) -> None:
    """Free many blocks of the largest order at once, the lowest first on their list, which is empty."""
    at = pages >> phys.LARGEST
    st.order[at] = s.ORDERS
    st.link[at[:-1], phys.NEXT], st.link[at[1:], phys.PREV] = pages[1:] + 1, pages[:-1] + 1
    st.lists[d, s.POOL_DEFAULT, phys.LARGEST] = pages[0], pages[-1], len(pages)
    st.domain[d, s.FREE] += len(pages) << phys.LARGEST


@kernel
def map_attr(reg: Registers, i: int, attr: int, server: int) -> int:
    """The sort of range, whether it is given back, whether it is a stack, and whether its pages lie in a row."""
    return sort_alone(reg, i, attr, server) | attr & (ATTR_NOFREE | ATTR_STACK | ATTR_CONTIG)


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Allocate `nbytes` of map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    if map_no == DIRECT:
        return pages_alloc(st, nbytes >> PAGE_SHIFT, align >> PAGE_SHIFT, attr, cpu)
    d = cpu * st.p.domains // st.p.cpus
    if map_no == KERNEL and attr & ATTR_STACK and nbytes == STACK_BYTES:
        return stack_alloc(st, d, cpu)
    addr = vmem.map_alloc(st.kva, map_no, nbytes, align, attr & ATTR_SORT, cpu)
    if addr >= 0 and map_no == KERNEL and attr & ATTR_SORT == ATTR_WIRED:
        page, n = addr >> PAGE_SHIFT, nbytes >> PAGE_SHIFT
        in_row = attr & ATTR_CONTIG and n > 1
        if not (reserve.back_in_row(st.phys, page, n, d) if in_row else reserve.back(st.phys, page, n, d, cpu)):
            vmem.map_free(st.kva, map_no, addr, nbytes, cpu)
            return NO_SPACE
    return addr


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Free what `map_alloc` returned, whole. Returns 0, or NO_ENTRY for what is no such range."""
    if map_no == DIRECT:
        return pages_free(st, addr >> PAGE_SHIFT, cpu)
    if map_no == KERNEL and vmem.in_stacks(st.kva, addr - PAGE):
        return stack_free(st, addr, nbytes, cpu)
    if map_no == KERNEL and st.phys.frame[addr >> PAGE_SHIFT]:
        reserve.unback(st.phys, addr >> PAGE_SHIFT, nbytes >> PAGE_SHIFT, cpu)
    return vmem.map_free(st.kva, map_no, addr, nbytes, cpu)


@outlined
def stack_alloc(st: State, d: int, cpu: int) -> int:
    """vm_thread_stack_create(): a kernel stack behind its guard page. Returns the stack's address or NO_SPACE."""
    guard = vmem.stacks.stack_alloc(st.kva, d)
    if guard < 0:
        return NO_SPACE
    if not reserve.back(st.phys, stack_index(st.phys, guard), vmem.stacks.STACK_PAGES - 1, d, cpu):
        vmem.map_free(st.kva, KERNEL, guard, STACK_BYTES + PAGE, cpu)
        return NO_SPACE
    return guard + PAGE


@outlined
def stack_free(st: State, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """vm_thread_stack_dispose(). Returns 0, or NO_ENTRY for what is no whole stack."""
    if nbytes != STACK_BYTES:
        return NO_ENTRY
    reserve.unback(st.phys, stack_index(st.phys, addr - PAGE), vmem.stacks.STACK_PAGES - 1, cpu)
    return vmem.map_free(st.kva, KERNEL, addr - PAGE, STACK_BYTES + PAGE, cpu)


@kernel
def stack_index(st: Phys, guard: Address) -> int:
    """vm_kstack_pindex(): stacks follow each other in kstack_object, without their guard pages.

    Its reservations and frames are the second half of their tables.
    """
    number = (guard >> PAGE_SHIFT) // vmem.stacks.STACK_PAGES
    return (len(st.frame) >> 1) + number * (vmem.stacks.STACK_PAGES - 1)


@outlined
def pages_alloc(st: State, n: int, align: int, attr: int, cpu: int) -> int:
    """Pages of the direct map: vm_page_alloc_noobj(), or several in a row. Returns the address or NO_SPACE."""
    ph, d = st.phys, cpu * st.p.domains // st.p.cpus
    order = 0
    while 1 << order < max(n, align):
        order += 1
    if order >= s.ORDERS:
        return NO_SPACE
    page = phys.NONE
    if n == 1 and attr & ATTR_NOFREE:
        page = phys.alloc_nofree(ph, d)
    if page == phys.NONE and order == 0:
        page = phys.alloc_page(ph, d, s.POOL_DIRECT, cpu)
    while page == phys.NONE:
        page = phys.alloc_pages(ph, d, s.POOL_DIRECT, order)
        if page == phys.NONE and not reserve.break_one(ph, d) and not phys.drain(ph, d):
            return NO_SPACE
    phys.enqueue(ph, d, s.POOL_DIRECT, page + n, (1 << order) - n)
    ph.held[page] = n << HELD_SHIFT | attr
    ph.base[1] += 1
    ph.base[2] = max(ph.base[2], page + n)
    return (page + ph.base[0]) << PAGE_SHIFT


@outlined
def pages_free(st: State, at: int, cpu: int) -> int:
    """Give pages of the direct map back. Returns 0."""
    ph, page = st.phys, at - st.phys.base[0]
    held = int64(ph.held[page])
    ph.held[page] = 0
    ph.base[1] -= 1
    n = held >> HELD_SHIFT
    if n == 1 and held & ATTR_NOFREE:
        phys.free_nofree(ph, page)
    elif n == 1:
        phys.free_page(ph, page, cpu)
    else:
        for k in range(n):
            phys.free_pages(ph, s.POOL_DIRECT, page + k, 0)
    return 0


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]).

    In the direct map a hole is a free block; neighbours of the largest order are one. What caches have, and what is
    reserved or cut for NOFREE slabs, is free, each page a hole, where nobody uses it.
    """
    if map_no != DIRECT:
        vmem.map_measure(st.kva, map_no, out)
        return
    out[:] = 0
    ph, base = st.phys, st.phys.base[0]
    single = free_pages_count(st)
    for d in range(st.p.domains):
        page, end = ph.domain[d, s.FIRST], ph.domain[d, s.END]
        run = 0
        while page < end:
            order = phys.order_of(ph, page)
            if order == phys.LARGEST:
                run += 1 << order
            elif run:
                count_hole(out, run << PAGE_SHIFT, (page + base) << PAGE_SHIFT)
                run = 0
            if order >= 0:
                single -= 1 << order
                page += 1 << order
                if order < phys.LARGEST:
                    count_hole(out, PAGE << order, (page + base) << PAGE_SHIFT)
            else:
                page += 1
        count_hole(out, run << PAGE_SHIFT, (end + base) << PAGE_SHIFT)
    for _ in range(single):
        count_hole(out, PAGE, PAGE)
    out[gauge.ENTRIES] = ph.base[1]
    out[gauge.HIGH] = ph.base[2] << PAGE_SHIFT


@kernel
def free_pages_count(st: State) -> int:
    """Pages of the direct map that nobody uses."""
    free = 0
    for d in range(st.p.domains):
        free += st.phys.domain[d, s.FREE] + st.phys.domain[d, s.CACHED] + st.phys.domain[d, s.IDLE]
    return free


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    if map_no != DIRECT:
        vmem.map_paint(st.kva, map_no, bins)
        return
    bins[:] = 0.0
    ph, page = st.phys, 0
    top = len(ph.pool)
    while page < top:
        order = phys.order_of(ph, page)
        if order >= 0:
            page += 1 << order
        else:
            paint(bins, 0, top, page, page + 1)
            page += 1


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """Tags that searches of map `map_no` have passed; free pages are not searched."""
    return 0 if map_no == DIRECT else vmem.map_walked(st.kva, map_no)


@kernel
def map_moved(st: State, map_no: MapNo) -> int:
    """Blocks that have gone from or to the queues, under vm_domain_free_lock; other maps are always locked."""
    return st.phys.base[3] if map_no == DIRECT else 0


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Bytes of map `map_no` that are not in use."""
    if map_no == DIRECT:
        return free_pages_count(st) << PAGE_SHIFT
    return vmem.map_free_bytes(st.kva, map_no)


def census(st: State) -> dict[str, int]:
    """The counts of the arenas; pages by where they are; reservations, and those broken; free blocks by order."""
    ph = st.phys
    counts = {
        "free_pages": ph.domain[:, s.FREE].sum(),
        "cached_pages": ph.domain[:, s.CACHED].sum(),
        "idle_pages": ph.domain[:, s.IDLE].sum(),
        "nofree_pages_left": ph.domain[:, s.NOFREE_LEFT].sum(),
        "broken": ph.domain[:, s.BROKEN].sum(),
        "direct_ranges": ph.base[1],
    }
    counts |= {f"free_order_{k}": ph.lists[:, :, k, s.COUNT].sum() for k in range(s.ORDERS)}
    return vmem.census(st.kva) | {name: int(n) for name, n in counts.items()}


def used(st: State, map_no: int) -> int:
    """Bytes of map `map_no` that are in use (by a submap, perhaps)."""
    return sum(end - start for start, end, _ in ranges(st, map_no))


def ranges(st: State, map_no: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of what is in use in map `map_no`, in address order; in the direct map, of KVA too."""
    if map_no != DIRECT:
        return vmem.ranges(st.kva, map_no)
    ph, base = st.phys, int(st.phys.base[0])
    held = [
        (page, page + (int(ph.held[page]) >> HELD_SHIFT), int(ph.held[page]) & ATTR_SORT)
        for page in np.flatnonzero(ph.held).tolist()
    ]
    behind = [(page - 1, page, ATTR_WIRED) for page in ph.frame[np.flatnonzero(ph.frame)].tolist()]
    return sorted((base + a << PAGE_SHIFT, base + b << PAGE_SHIFT, attr) for a, b, attr in [*held, *behind])


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no` (slow, for tests)."""
    if map_no != DIRECT:
        vmem.check(st.kva, map_no)
        return
    ph = st.phys
    taken = ranges(st, map_no)
    insist(all(a[1] <= b[0] for a, b in pairwise(taken)), "a page is used twice")
    insist(used(st, map_no) + entry(map_free_bytes)(st, map_no) == st.p.ram_bytes, "pages lost")
    own = len(ph.order) - len(ph.pool)
    rows = np.flatnonzero(ph.order)
    blocks = np.where(rows < own, rows << phys.LARGEST, rows - own)
    order = np.argsort(blocks)
    blocks, sizes = blocks[order], 1 << (ph.order[rows[order]].astype(np.int64) - 1)
    insist(sizes.sum() == ph.domain[:, s.FREE].sum(), "free pages miscounted")
    insist(bool((blocks % sizes == 0).all()), "a block that is not aligned")
    insist(bool((blocks[1:] >= blocks[:-1] + sizes[:-1]).all()), "blocks overlap")
