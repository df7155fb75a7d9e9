"""FreeBSD's UMA of today: sys/vm/uma_core.c, uma_int.h and kern/kern_malloc.c, kern_mbuf.c of FreeBSD 14/15.

A zone keeps free items in buckets. Each CPU has three, entered in a critical section only: items are taken from and put
into the alloc bucket (last in, first out), the free bucket changes places with it when it is full or empty, the cross
bucket holds items of other NUMA domains. Behind them is a list of full buckets per zone and domain, then the keg: slabs
by domain, with a bitmap of free items, the lowest first; partly free slabs before free ones before new ones. Buckets
and off-page slab headers are items of zones of their own, whose pages count. Items are first touched: a slab belongs to
the domain of the CPU that needed it. With two domains a full cross bucket goes whole to the other domain's list, with
more it is sorted item by item. Every 20 s the working set of each list is estimated; what a list has not needed for 15
minutes shrinks by a quarter; a request to reclaim trims lists to their working sets or drains them.

malloc(9) has zones of 16 … 65536 bytes (up to a page on machines of 128 MiB or less) and takes larger blocks from the
map. An item with a limit becomes uma_zone_set_max(): its items are counted, and its buckets made small enough; who may
wait sleeps there, and as long as anybody does, frees pass the buckets by. Network buffers: up to 256 bytes an mbuf, up
to 2 KiB a cluster; just 4, 9 or 16 KiB a jumbo cluster, as drivers ask for them (m_getjcl()), whose larger ones are
physically contiguous pages; any other length a chain (m_getm2()), of clusters of a page as long as more than 2 KiB are
missing, and of plain ones once there was none of those. An mbuf with its cluster, in one request (m_getcl()), is the
Packet zone's (`packets`): caches of its own before the mbufs' keg; a packet that lies idle keeps its cluster.

Items of kernel stacks (Traits.flags) are those of kstack_cache, a zone without slabs: four pages each, behind a guard
page of the arena (ATTR_STACK). It keeps at most max(128, 4 * CPUs); what is more is unmapped at once.

uma_kmem_limit is soft: when pages are added to what is above it already, the reclaim thread is woken; at most once a
second it drains lists and CPUs' buckets.

Slabs of a NOFREE zone never go back (in a direct map they are pages of their own sort). In an SMR zone (Traits.flags)
what is freed goes to the CPU's free bucket, a full one behind all others of the list, and is handed out from there: so
memory rests for a while, and as many more items are held.

A zone's buckets grow by one entry when its zone-domain lock was found held. A step cannot see that, so a trip counts as
contended when somebody else took the lock between the step that asked for it and the one that got it.

An option that the kernel does not have: another order of a keg's partly free slabs (`slab_order`).

Left out: readers of SMR zones that have not passed when a bucket's turn comes; that clusters of packets that are taken
apart may go onto their zone's list (where the CPU's buckets have no room they go to their slabs); the mbufs of a chain,
and one as its end; that kstack_cache takes no keg's lock; reserves; sleeping for KVA (the request fails); no buckets
while pages are short; layouts of 32-bit machines (those of LP64 are used); round-robin
zones. Bucket zones are simpler than others: empty buckets lie on a stack per CPU, as many as its alloc and free bucket
would hold, whatever their domain, and go straight to slabs. A new bucket is taken after the full one is put away, the
kernel does it before. DRAIN_CPU gives what CPUs' buckets hold straight to the slabs, from the CPU that it runs on;
emptied buckets stay there.
"""

from collections.abc import Sequence

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Registers
from kmemexp.sim.allocators._shared.slab_order import check_order
from kmemexp.sim.allocators._shared.uma_requests import CLUSTER_SHIFT, MALLOC_UNIT_SHIFT, NIL, zone_names
from kmemexp.sim.allocators.uma_today import keg
from kmemexp.sim.allocators.uma_today import slabs as u
from kmemexp.sim.allocators.uma_today.moves import (
    CLUSTER,
    FIRST_ITEM,
    FIRST_MALLOC,
    JUMBO_PAGE,
    MBUF,
    MSHIFT,
    PACKET,
    domain_at,
    is_chain,
    zone_at,
    zone_wanted,
)
from kmemexp.sim.allocators.uma_today.packets import drains
from kmemexp.sim.allocators.uma_today.phases import BEGIN
from kmemexp.sim.allocators.uma_today.slabs import cache_pop, cache_push
from kmemexp.sim.allocators.uma_today.state import Params, State
from kmemexp.sim.allocators.uma_today.steps import go
from kmemexp.sim.allocators.uma_today.upkeep_steps import upkeep
from kmemexp.sim.asking import hand_out
from kmemexp.sim.caches import Cache, Live, large, rows
from kmemexp.sim.items import KSTACK, NOFREE, SMR, Item
from kmemexp.sim.map_calls import KMEM_BACK, KMEM_UNBACK, PCP_PAGES
from kmemexp.sim.map_calls import KSTACK as STACK_CALL
from kmemexp.sim.network import JUMBO, MCLBYTES, MSIZE
from kmemexp.sim.network import PACKET as PACKET_BYTES
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, ITEM_MALLOC, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import obj, regs

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)
JOINS_PACKETS = 1  # ITEM_PACKET is the Packet zone's
# A CPU's buckets; full buckets of a zone and domain; slabs of a keg and domain; sorting of cross-domain frees.
LOCKS = ("critical", "adaptive+inherit/own", "adaptive+inherit/own", "adaptive+inherit/own")
# The last: pages of a direct map (moves.IN_DIRECT_MAP), kernel stacks.
CALLS = (KMEM_BACK, KMEM_UNBACK, "space pages enter", PCP_PAGES, STACK_CALL)
TICK_NS = 20_000_000_000  # UMA_TIMEOUT
WATCH_NS = 1_000_000_000  # uma_reclaim_worker() pauses so long

MALLOC_SIZES = (16, 32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)  # kmemzones
SMALL_MACHINE = 32768 * PAGE  # up to this much memory malloc(9) has no zones above a page
NO_LIMIT = 1 << 62
CLUSTERS = ("packet", "mbuf", "mbuf_cluster", "mbuf_jumbo_page", "mbuf_jumbo_9k", "mbuf_jumbo_16k")
STACK = keg.Keg(4 * PAGE, 1, 4, 0)  # kstack_pages
STACKS_CACHED = 128  # kstack_cache_size, or four for each CPU


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Make the zones, all empty. `bases` does not matter. Raises ValueError for bad parameters, or beyond 8 TiB.

    Where everything is to grow in the direct map, slabs of several pages need KVA all the same: that of map 0.
    """
    check_order(params.slab_order)
    domains = params.domains or 1
    if not 1 <= domains <= cpus:
        raise ValueError(f"domains is {domains}: each needs a CPU, and there are {cpus}")
    demand.check_kva(kva_bytes)
    small = params.direct_map if params.small_alloc and params.direct_map else map_number
    large = 0 if params.small_alloc and map_number == params.direct_map else map_number
    zone, half = _zones(params, cpus, domains, small, large, items)
    cache = np.zeros((len(zone), cpus, u.C_COLUMNS), np.int64)
    cache[:, :, [u.ALLOC, u.FREE, u.CROSS]] = NIL
    cache[:FIRST_MALLOC, :, u.FREE :] = 0
    cache[:FIRST_MALLOC, :, u.HALF] = half[:, None]
    dom = np.zeros((len(zone), domains, u.D_COLUMNS), np.int64)
    dom[:, :, [u.D_LIST, u.D_LAST, u.D_CROSS, u.D_PART, u.D_FREE]] = NIL
    units = np.arange((MALLOC_SIZES[-1] >> MALLOC_UNIT_SHIFT) + 1) << MALLOC_UNIT_SHIFT
    pages = -(-kva_bytes // PAGE)
    names = demand.names(pages << (PAGE_SHIFT - u.WORD_SHIFT))
    return State(
        p=params,
        map=large,
        domains=domains,
        malloc_max=PAGE if 0 < params.ram_bytes <= SMALL_MACHINE else MALLOC_SIZES[-1],
        zone=zone,
        cache=cache,
        dom=dom,
        slab=demand.zeros((pages, u.S_COLUMNS), names),
        bits=demand.zeros((pages, u.SET_WORDS), np.uint32),
        word=demand.scattered(pages << (PAGE_SHIFT - u.WORD_SHIFT), names),
        ext=demand.zeros(pages << (PAGE_SHIFT - MSHIFT), demand.names(pages << (PAGE_SHIFT - CLUSTER_SHIFT))),
        chain=demand.zeros(pages << (PAGE_SHIFT - CLUSTER_SHIFT), demand.names(pages << (PAGE_SHIFT - CLUSTER_SHIFT))),
        size_zone=(FIRST_MALLOC + np.searchsorted(MALLOC_SIZES, units)).astype(np.int16),
        domain_of=np.arange(cpus, dtype=np.int64) * domains // cpus,
        large=np.zeros(1, np.int64),
        total=np.zeros(2, np.int64),
    )


def _zones(
    params: Params, cpus: int, domains: int, small: int, large: int, items: Sequence[Item]
) -> tuple[Array, Array]:
    """Build State.zone; and, of slab headers and buckets, how many a CPU's stack gets at once."""
    kinds = [(size, 8, 0, True) for size in keg.HEADER_SIZES]
    kinds += [(keg.bucket_bytes(entries), 8, 0, False) for entries, _ in keg.BUCKETS]
    kinds += [(size, 8, 0, False) for size in MALLOC_SIZES]
    kinds += [(MSIZE, MSIZE, 0, False), (MSIZE, MSIZE, params.nmbufs, False), (MCLBYTES, 8, params.nmbclusters, False)]
    limits = params.nmbjumbop, params.nmbjumbo9, params.nmbjumbo16
    kinds += [(size, 8, limit, False) for size, limit in zip(JUMBO, limits, strict=True)]
    kinds += [(item.size, 8, item.limit, False) for item in items]
    flags = [0] * (len(kinds) - len(items)) + [item.traits.flags for item in items]
    zone = np.zeros((len(kinds), u.Z_COLUMNS), np.int64)
    for z, (size, align, limit, internal) in enumerate(kinds):
        in_row = JUMBO_PAGE <= z < FIRST_ITEM
        layout = keg.keg_layout(size, align, internal=internal, contiguous=in_row, multipage=bool(params.multipage))
        header = keg.HEADER_SIZES.index(layout.header) if layout.header else NIL
        home = small if layout.pages == 1 else large
        entries = keg.BUCKET_MAX if z in (PACKET, MBUF) else keg.bucket_select(size)
        least, most, cached = entries, keg.BUCKET_MAX, NO_LIMIT
        if limit:
            entries, cached = keg.set_max(limit, cpus, domains)
            least, most = min(least, entries), entries
        stack = bool(flags[z] & KSTACK)
        if stack:
            layout, header, home = STACK, NIL, large
            entries, cached = keg.set_max(max(STACKS_CACHED, 4 * cpus), cpus, domains)
            least = most = entries
        row = (layout.size, layout.items, layout.pages, header, home, entries, least, most, cached, limit, 0, 0, 0)
        zone[z] = (*row, bool(flags[z] & SMR), bool(flags[z] & NOFREE), stack, z)
    bucket_zones = slice(len(keg.HEADER_SIZES), FIRST_MALLOC)
    zone[PACKET, [u.Z_SIZE, u.Z_KEG]] = PACKET_BYTES, MBUF
    zone[bucket_zones, u.Z_ENTRIES] = [entries for entries, _ in keg.BUCKETS]
    return zone, zone[:FIRST_MALLOC, u.Z_BUCKET].copy()


def watch_ns(params: Params) -> int:
    """Ns between two looks of the reclaim thread; 0: as much as there is of memory is below its limit."""
    return WATCH_NS if 0 < params.kmem_limit < params.ram_bytes else 0


def needs_kva(item: Item) -> bool:
    """Whether slabs of an item have several pages, so that they do not lie in a direct map."""
    stack = bool(item.traits.flags & KSTACK)
    return stack or keg.keg_layout(item.size, contiguous=item.size in JUMBO).pages > 1


def lock_count(st: State, klass: int) -> int:
    """Count the locks of a class of LOCKS."""
    zones, domains = st.dom.shape[:2]
    return (1, zones * domains, zones * domains, zones)[klass]


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Pop from the CPU's alloc bucket, or from its free bucket: uma_zalloc_arg(). The rest is in `steps`."""
    if reg[i, regs.PHASE] == BEGIN:
        addr, granted = fast_alloc(st, reg[i, regs.ITEM], reg[i, regs.SIZE], reg[i, regs.CPU], reg[i, regs.FLAGS])
        if addr != obj.ABSENT:
            return hand_out(reg, i, addr, granted)
    return go(st, reg, i, False)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Push into the CPU's alloc, free or cross bucket: uma_zfree_arg()."""
    if reg[i, regs.PHASE] == BEGIN and _push(st, reg[i, regs.ADDR], reg[i, regs.CPU]):
        return DONE
    return go(st, reg, i, True)


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Pop from the CPU's alloc bucket, or from its free bucket."""
    z = zone_wanted(st, item, size)
    if z == NIL or is_chain(item, size):
        return obj.ABSENT, 0
    addr = cache_pop(st, z, cpu)
    return (obj.ABSENT, 0) if addr == NIL else (addr, st.zone[z, u.Z_SIZE])


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Push into the CPU's alloc, free or cross bucket."""
    return _push(st, addr, cpu)


@kernel
def _push(st: State, addr: Address, cpu: int) -> bool:
    """Free a single item into the CPU's buckets. False: it is none, or they are full, and nothing has been done."""
    z = zone_at(st, addr)
    if z == NIL or st.zone[z, u.Z_SLEEPERS] or drains(st, addr):
        return False
    if (z == CLUSTER or z == JUMBO_PAGE) and st.chain[addr >> CLUSTER_SHIFT] != 0:
        return False
    cross = st.domains > 1 and domain_at(st, addr) != st.domain_of[cpu]
    return cache_push(st, z, cpu, addr, cross)


@kernel
def tend(st: State, reg: Registers, i: int) -> int:
    """Estimate working sets and trim what was not used for long (uma_timeout()); reclaim (uma_reclaim())."""
    return upkeep(st, reg, i)


def caches(st: State, live: Live) -> list[Cache]:
    """What each zone holds, without UMA's own zones of headers and buckets."""
    zone, held = st.zone[FIRST_MALLOC:], st.dom[FIRST_MALLOC:, :, u.D_PAGES].sum(axis=1)
    names, served = zone_names(MALLOC_SIZES, len(zone), CLUSTERS)
    found = rows(names, served, zone[:, u.Z_SIZE], held // zone[:, u.Z_PAGES], held)
    return [*found, large(st.large[0], (ITEM_MALLOC,))]


def census(st: State) -> dict[str, int]:
    """Count what the allocator holds.

    `pages`: all that it holds, among them `large_pages` of large malloc()s, `bucket_pages`, and `header_pages` of
    off-page slab headers; `slab_items`: free items in slabs of other zones; `cached_items` in CPUs' buckets;
    `listed_items` in full buckets, and cross-domain ones being collected; `free_slabs`: wholly free.
    """
    zones = slice(FIRST_MALLOC, None)
    pages = st.dom[:, :, u.D_PAGES].sum(axis=1)
    crossing = [b for b in st.dom[zones, :, u.D_CROSS].ravel().tolist() if b != NIL]
    counts = {
        "pages": pages.sum() + st.large[0],
        "large_pages": st.large[0],
        "bucket_pages": pages[len(keg.HEADER_SIZES) : FIRST_MALLOC].sum(),
        "header_pages": pages[: len(keg.HEADER_SIZES)].sum(),
        "slab_items": _free_items(st)[zones].sum(),
        "cached_items": st.cache[zones, :, [at + u.COUNT for at in (u.ALLOC, u.FREE, u.CROSS)]].sum(),
        "listed_items": st.dom[zones, :, u.D_COUNT].sum() + sum(int(st.word[b + 1]) & u.COUNT_MASK for b in crossing),
        "free_slabs": st.dom[:, :, u.D_FREE_SLABS].sum(),
    }
    return {name: int(count) for name, count in counts.items()}


def _free_items(st: State) -> Array:
    """Free items in the slabs of each zone: in those on its lists, for a table of all pages may be of terabytes."""
    free = np.zeros(len(st.zone), np.int64)
    for z, heads in enumerate(st.dom[:, :, [u.D_PART, u.D_FREE]].reshape(len(st.zone), -1).tolist()):
        for head in heads:
            page = head
            while page != NIL:
                free[z] += st.slab[page, u.S_COUNT]
                page = int(st.slab[page, u.S_NEXT])
    return free
