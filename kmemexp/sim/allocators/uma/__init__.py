"""UMA, FreeBSD's zone allocator, in its first years: sys/vm/uma_core.c and uma_int.h of FreeBSD 5 and 6, 2002 to 2006.

A zone keeps free items in buckets, arrays of pointers. Each CPU has two for each zone: items are taken from the end of
the alloc bucket and put at the end of the free one; they change places when that helps. Behind them the zone has a list
of buckets with items and one of empty buckets, and behind those slabs: pages cut into items of one size, partly free
slabs before free ones before new ones, items last in, first out. A CPU that finds no bucket with items fills one from
slabs, an empty one of the zone's list or a new one; each time that happens, buckets are filled a little more. Buckets
and off-page slab headers are items of zones of UMA's own, which no CPU caches and whose pages count here, too.

`Params.generation`: 0, as imported in 2002: buckets of 125, a mutex for each zone and CPU, pages from kernel_map or,
while that is locked, kmem_map; what a zone allocated since the last tick is its working set, and a reclaim empties all
buckets, the CPUs' included, and gives back free slabs beyond that. 1, middle of 2003, the UMA of the DragonFly mail
thread: one mutex for each CPU, pages from the map that malloc has. 2, late 2003: buckets of 16 to 128, no working sets,
a reclaim gives back all wholly free slabs and no bucket. 3, 2004 to 2006: kegs, a critical section instead of the CPUs'
mutexes (from 29 April 2005), a reclaim empties the zones' lists, not the CPUs' buckets; items cost 4 bytes in a header.

malloc(9) has zones of 16 … 4096 bytes and takes larger blocks from the map (uma_large_malloc()). An item with a limit
becomes uma_zone_set_max(), which early on rounds down: below a slab there is no limit then. mbufs, as since May 2004
(mbuma): up to 256 bytes an mbuf, up to 2 KiB a cluster, more a chain of clusters as in `mbuf.py`; an mbuf with its
cluster in one request (m_getcl()) is the Packet zone's (`packets`).

A request that may wait dies where kmem_map has no room ("kmem_map too small"). A step that needs a zone's lists runs
under the zone's lock; the CPU's, which the kernel of 2002 to 2004 goes on holding, is given back, and the CPU's buckets
are looked at again, as from 2005 on. LOCKS fits generations 1 and 2. It is coarser than generation 0, and a design of
2005 sets objects.locks.uma to "critical" (with a generation from 2 on: earlier reclaims take the CPUs' mutexes).

Options that no kernel had: another order of partly free slabs (`slab_order`; wholly free ones are still used last in,
first out); `eager_release`: where an item that goes to its slab, not into a bucket, leaves it wholly free, the slab
goes back to the map at once, and a reclaim takes all such slabs. UMA's own zones wait for a reclaim.

Left out: Giant around page allocation; that early versions wake nobody who sleeps at a limit (they name the wrong
address); pages of boot; hash tables and their growth; zones with KVA of their own (uma_zone_set_obj()) or of
UMA_ZONE_VM; constructors, but for that of packets. Simpler than it was: a
bucket is listed when it has been filled (generations 0 and 1 list it before); a header whose slab is refused goes back
(until 2004 it was lost); a zone of headers may be asked for one while it grows (in 2003 that failed); a reclaim of
generations 0 and 1 holds one CPU's mutex at a time, not all, and a tick counts allocations without them. The free pages
are not known here: new buckets are refused from a reclaim to the next tick, if `Params.bucketdisable` says so.
"""

from collections.abc import Sequence

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Registers
from kmemexp.sim.allocators._shared.slab_order import check_order
from kmemexp.sim.allocators._shared.uma_requests import CLUSTER_SHIFT, MALLOC_UNIT, NIL, S_ZONE, zone_names, zone_of_one
from kmemexp.sim.allocators.uma import layout as lay
from kmemexp.sim.allocators.uma import slabs as u
from kmemexp.sim.allocators.uma.moves import zone_wanted
from kmemexp.sim.allocators.uma.phases import BEGIN
from kmemexp.sim.allocators.uma.slabs import bucket_add, cache_pop, cache_push, has_room, zone_at
from kmemexp.sim.allocators.uma.state import Params, State
from kmemexp.sim.allocators.uma.steps import go
from kmemexp.sim.allocators.uma.upkeep_steps import upkeep
from kmemexp.sim.asking import hand_out
from kmemexp.sim.caches import Cache, Live, large, rows
from kmemexp.sim.items import Item
from kmemexp.sim.map_calls import KMEM_FREE_5, KMEM_MALLOC_5
from kmemexp.sim.network import MCLBYTES, MSIZE, PACKET
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, ITEM_MALLOC, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import obj, regs

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)
JOINS_PACKETS = 1  # ITEM_PACKET is the Packet zone's
LOCKS = ("adaptive+inherit/cpu", "adaptive+inherit/own")  # the CPUs' caches; a zone's lists, slabs and buckets
CALLS = (KMEM_MALLOC_5, KMEM_FREE_5)  # UMA drops its locks before it asks a map
TICK_NS = 20_000_000_000  # UMA_WORKING_TIME, UMA_TIMEOUT
MIN_ALIGN = 4  # UMA_ALIGN_PTR of the i386

MALLOC_SIZES = tuple(16 << k for k in range(9))  # kmemzones


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Make the zones, all empty. `bases` does not matter.

    Raises ValueError for a generation, pointer or order that there is not, and beyond 8 TiB of KVA.
    """
    if not lay.UMA_02 <= params.generation <= lay.UMA_06:
        raise ValueError(f"generation is {params.generation}; there are 0 … {lay.UMA_06}")
    if params.pointer_bytes not in (4, 8):
        raise ValueError(f"pointer_bytes is {params.pointer_bytes}; it must be 4 or 8")
    check_order(params.slab_order)
    demand.check_kva(kva_bytes)
    zone = _zones(params, items)
    cache = np.zeros((len(zone), cpus, u.C_COLUMNS), np.int64)
    cache[:, :, [u.ALLOC, u.FREE]] = NIL
    units = np.arange(PAGE // MALLOC_UNIT + 1) * MALLOC_UNIT
    pages = -(-kva_bytes // PAGE)
    names = demand.names(pages * PAGE // params.pointer_bytes)
    return State(
        p=params,
        map=map_number,
        shift=params.pointer_bytes.bit_length() - 1,
        zone=zone,
        cache=cache,
        slab=demand.zeros((pages, u.S_COLUMNS), names),
        freelist=demand.zeros((pages, 256), np.uint8),
        word=demand.scattered(pages * PAGE // params.pointer_bytes, names),
        ext=demand.zeros(pages << (PAGE_SHIFT - u.MSHIFT), np.int32),
        chain=demand.zeros(pages << (PAGE_SHIFT - CLUSTER_SHIFT), np.int32),
        size_zone=(u.FIRST_MALLOC + np.searchsorted(MALLOC_SIZES, units)).astype(np.int16),
        large=np.zeros(1, np.int64),
        low=np.zeros(1, np.int64),
    )


def _zones(params: Params, items: Sequence[Item]) -> Array:
    """Build State.zone, each zone without slabs."""
    g, pointer = params.generation, params.pointer_bytes
    align = params.align or pointer
    plain = lay.slab_header(g, pointer, head=params.header_bytes)
    counted = lay.slab_header(g, pointer, counted=g >= lay.UMA_06, head=params.header_bytes)
    entries = lay.BUCKET_SIZES if g >= lay.UMA_03 else (lay.BUCKET_SIZE,) * len(lay.BUCKET_SIZES)
    own = [lay.header_bytes(g, plain), lay.header_bytes(g, counted), *(lay.bucket_bytes(n, pointer) for n in entries)]
    kinds = [(size, align, 0) for size in MALLOC_SIZES]
    kinds += [(MSIZE, MSIZE, 0), (MSIZE, MSIZE, 0), (MCLBYTES, align, params.nmbclusters)]
    kinds += [(item.size, align, item.limit) for item in items]
    zone = np.zeros((len(own) + len(kinds), u.Z_COLUMNS), np.int64)
    zone[:, [u.Z_PART, u.Z_IDLE, u.Z_READY, u.Z_EMPTY, u.Z_HEADER]] = NIL
    for z, size in enumerate(own):
        zone[z, : u.Z_HEADER] = lay.slab_layout(size, pointer, plain, internal=True)[: u.Z_HEADER]
    zone[u.FIRST_BUCKET : u.FIRST_CACHED, u.Z_COUNT] = entries
    for z, (size, to, limit) in enumerate(kinds, len(own)):
        layout = lay.slab_layout(size, to, counted if z == u.CLUSTER else plain)
        zone[z, : u.Z_HEADER] = layout[: u.Z_HEADER]
        if layout.offset < 0:
            zone[z, u.Z_HEADER] = u.COUNTED_SLABS if z == u.CLUSTER and g >= lay.UMA_06 else u.SLABS
        zone[z, u.Z_COUNT] = lay.first_count(layout.items, g, largest=z in (u.PACKET, u.MBUF) and g >= lay.UMA_06)
        zone[z, u.Z_MAX] = lay.max_pages(limit, layout, g)
    zone[u.PACKET, u.Z_SIZE] = PACKET
    return zone


def unlocked_from(st: State) -> int:
    """Bytes from which on malloc() asks the map at once: uma_large_malloc() (KMEM_ZMAX is a page)."""
    return PAGE + 1


def lock_count(st: State, klass: int) -> int:
    """Count the locks of the zones."""
    return len(st.zone)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Take an item from the CPU's buckets: uma_zalloc_arg(). The rest is in `steps`."""
    if reg[i, regs.PHASE] == BEGIN:
        addr, granted = fast_alloc(st, reg[i, regs.ITEM], reg[i, regs.SIZE], reg[i, regs.CPU], reg[i, regs.FLAGS])
        if addr != obj.ABSENT:
            return hand_out(reg, i, addr, granted)
    return go(st, reg, i, False)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Put the item into the CPU's buckets: uma_zfree_arg()."""
    if reg[i, regs.PHASE] == BEGIN:
        z = _caching_zone(st, reg[i, regs.ADDR])
        if z != NIL and cache_push(st, z, reg[i, regs.CPU], reg[i, regs.ADDR]):
            return DONE
    return go(st, reg, i, True)


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take an item from the CPU's buckets."""
    z = zone_wanted(st, item, size)
    if z == NIL or (z == u.CLUSTER and size > MCLBYTES):
        return obj.ABSENT, 0
    addr = cache_pop(st, z, cpu)
    return (obj.ABSENT, 0) if addr == NIL else (addr, st.zone[z, u.Z_SIZE])


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Put the item into the CPU's free bucket, if that has room."""
    z = _caching_zone(st, addr)
    if z == NIL:
        return False
    b = st.cache[z, cpu, u.FREE]
    if not has_room(st, z, b):
        return False
    bucket_add(st, b, addr)
    return True


@kernel
def _caching_zone(st: State, addr: Address) -> int:
    """Zone of a single item that is freed, unless the zone is full, so that the item goes to its slab."""
    z = u.PACKET if zone_at(st, addr) == u.PACKET else zone_of_one(st, addr, u.CLUSTER)
    return NIL if z == NIL or st.zone[z, u.Z_FULL] else z


@kernel
def tend(st: State, reg: Registers, i: int) -> int:
    """Estimate the working sets (uma_timeout()); give back what can be spared (uma_reclaim())."""
    return upkeep(st, reg, i)


def caches(st: State, live: Live) -> list[Cache]:
    """What each zone holds, without UMA's own zones of headers and buckets."""
    zone = st.zone[u.FIRST_CACHED :]
    names, served = zone_names(MALLOC_SIZES, len(zone), ("packet", "mbuf", "mbuf_cluster"))
    held = zone[:, u.Z_HELD]
    found = rows(names, served, zone[:, u.Z_SIZE], held // zone[:, u.Z_PAGES], held)
    return [*found, large(st.large[0], (ITEM_MALLOC,))]


def census(st: State) -> dict[str, int]:
    """Count what the allocator holds.

    `pages`: all that it holds, among them `large_pages` of large malloc()s, `bucket_pages`, and `header_pages` of
    off-page slab headers; of other zones `slab_items`: free items in slabs, `cached_items` in CPUs' buckets,
    `listed_items` in the zones' ones; `idle_slabs`: wholly free ones of all zones.
    """
    zones = slice(u.FIRST_CACHED, None)
    held = st.zone[:, u.Z_HELD]
    cached = [b for b in st.cache[zones, :, [u.ALLOC, u.FREE]].ravel().tolist() if b != NIL]
    used = st.slab[st.slab[:, S_ZONE] > 0]
    counts = {
        "pages": held.sum() + st.large[0],
        "large_pages": st.large[0],
        "bucket_pages": held[u.FIRST_BUCKET : u.FIRST_CACHED].sum(),
        "header_pages": held[: u.FIRST_BUCKET].sum(),
        "slab_items": st.zone[zones, u.Z_FREE].sum(),
        "cached_items": st.word[np.array(cached, np.int64) + u.B_COUNT].sum(),
        "listed_items": st.word[np.array(_listed(st), np.int64) + u.B_COUNT].sum(),
        "idle_slabs": (used[:, u.S_COUNT] == st.zone[used[:, S_ZONE] - 1, u.Z_ITEMS]).sum(),
    }
    return {name: int(count) for name, count in counts.items()}


def _listed(st: State) -> list[int]:
    """Buckets with items on the zones' lists."""
    found = []
    for first in st.zone[:, u.Z_READY].tolist():
        at = first
        while at != NIL:
            found.append(at)
            at = int(st.word[at + u.B_NEXT]) - 1
    return found
