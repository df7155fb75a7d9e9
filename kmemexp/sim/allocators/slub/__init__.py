"""Linux's SLUB: mm/slub.c and mm/slab_common.c of Linux 6.12; sheaves as in 6.18 to 7.1 (2025 to 2026) as options.

A cache has slabs, blocks of 2**order pages that are nothing but objects; its free ones are linked. A CPU allocates from
its current slab without a lock, by one compare-and-exchange. When that is used up the CPU takes what others have freed
into it meanwhile, else the next slab of its own partial list, else several slabs of its node's partial list under the
list lock, else of another node's, else new pages: a block of the preferred order or, if there is none, of the smallest
that holds an object. An object is freed into its slab, whichever CPU has that. A slab that was full goes to the freeing
CPU's partial list; when that has enough slabs all move to the tails of their nodes' lists. An empty slab on a node's
list goes back to the map, unless the list is short. Nothing else ever gives memory back: no reaper, no moving.

malloc and mbufs are kmalloc(): 13 sizes up to 8 KiB, then blocks of pages up to 4 MiB; requests that are accounted,
reclaimable, for DMA, or of a set of buckets have caches of their own. Each zone is a cache of its own, with the stride
that a recording tells or its size, alignment and flags give; caches alike may be merged. Slabs and blocks are asked of
the map by size and alignment alike, as a buddy allocator gives them.

Sheaves stand before all that: arrays of objects, a main and perhaps a spare one per CPU, full and empty ones in a barn
per cache and node. They are filled from slabs at once, and flushed at once when the barn is full. Memory for them comes
from the slabs of kmalloc() caches.

NUMA: CPU c belongs to node c * domains // cpus, and a slab to the node that its pages lie on, or, where the pages know
no nodes, to that of the CPU that needed it. Other nodes are asked
in order from the own on. The kernel refuses that at random (1001 of 1024 times it may) by its clock; here a counter,
spread evenly, does. Frees of other nodes' objects pass by the sheaves.

6.18 has sheaves for caches that ask for them, of just that capacity, and an empty main sheaf goes to the barn. 7.0 has
them for all, an empty main sheaf becomes the spare one, and what is asked for is the least. In 7.1 CPUs have no slabs:
what a sheaf has not taken of a slab goes back to the node's list, at the head, and callers that may not wait fill
sheaves too.

With `memcg` slabs of accounted caches have a vector each (`vectors`). A recording has these vectors as requests, so
there it stays off.

Left out: random copies of kmalloc() caches; charges of single requests to caches that are not accounted; debugging;
what constructors do; requests for a certain node; the emergency reserves; rcu_free sheaves, prefilled ones, bulk calls;
the grace period after which slabs that are typesafe by RCU are given back. In 7.1 sheaves' own memory still comes from
a CPU's slab. A CPU gets its first main sheaf of a cache when it first needs it, not at boot. Memory for sheaves passes
by the sheaves of its kmalloc() cache. A sheaf that is flushed goes object by object, last first: a bulk free, which
takes the objects of a slab together, leaves slabs and lists the same. An interrupted operation on sheaves does not
hinder another one on its CPU. A slab on its way to a CPU is frozen when it gets there. kmem_cache_shrink() of all
caches, an option, is one task that sees to all CPUs.

An option that the kernel does not have: nodes' lists in another order (`slab_order`); CPUs' slabs and partial lists
stay as they are. Fullest first, any free into a listed slab takes the list lock, since the slab may move.
"""

from collections.abc import Sequence

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Registers
from kmemexp.sim.allocators._shared import planes
from kmemexp.sim.allocators._shared.oversize import enter_large, give_large
from kmemexp.sim.allocators._shared.slab_order import check_order
from kmemexp.sim.allocators.slub import layout
from kmemexp.sim.allocators.slub import slabs as u
from kmemexp.sim.allocators.slub.counting import caches, census
from kmemexp.sim.allocators.slub.sheaf_frees import sheaf_free, to_slab
from kmemexp.sim.allocators.slub.sheaves import (
    ALL_SHEAVES,
    ASKED_SHEAVES,
    SLAB,
    about,
    hand_out,
    has_sheaves,
    sheaf_alloc,
    sheaf_pop,
    sheaf_push,
)
from kmemexp.sim.allocators.slub.shrink import PROMOTE_MAX, shrink
from kmemexp.sim.allocators.slub.slabs import cpu_pop, cpu_push, pop_refilled, push_full, slab_push
from kmemexp.sim.allocators.slub.state import Params, State
from kmemexp.sim.allocators.slub.steps import STAND_BITS, answer_of, by_size, slab_alloc
from kmemexp.sim.allocators.slub.vectors import FROM_KMALLOC, FROM_SPARE_ROOM
from kmemexp.sim.asking import ask_wired
from kmemexp.sim.items import ACCOUNT, DMA, KMALLOC_SETS, RECLAIM, Item, Traits
from kmemexp.sim.map_calls import PCP_PAGES, ZONE_PAGES
from kmemexp.sim.slots import (
    ATTR_LOW,
    ATTR_RECLAIM,
    CLASS_MALLOC,
    CLASS_MBUF,
    CLASS_ZONE,
    DONE,
    FAILED,
    ITEM_MBUF,
    PAGE,
    PAGE_SHIFT,
    TEND_REAP,
)
from kmemexp.sim.tables import obj, regs
from kmemexp.sim.widths import wide

__all__ = ["Params", "State", "caches", "census"]
SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)
# A CPU's slabs under local_lock_irqsave(), but for the fast path; list_lock and the barn's lock, per cache and node.
TYPED_MALLOC = True  # it tells sets of kmalloc() caches apart
LOCKS = ("irqoff", "irqoff+spin/own", "irqoff+spin/own")
CALLS = (PCP_PAGES, PCP_PAGES, PCP_PAGES, ZONE_PAGES)

KMALLOC_MAX = PAGE << layout.MAX_PAGE_ORDER
ZERO_SIZE_PTR = -16  # what kmalloc(0) returns; 16 in the kernel, where no object can be
MOST_MAX_ORDER = 6  # links count to 32767 in units of 8 bytes

SHEAVES = (0, ALL_SHEAVES, ASKED_SHEAVES)
# What the caches of a set of kmalloc() caches are created with, and what a cache asks of its pages.
SET_FLAGS = {"accounted": ACCOUNT, "reclaimable": RECLAIM, "dma": DMA, "msg_msg": ACCOUNT}
ASKS = {RECLAIM: ATTR_RECLAIM, DMA: ATTR_LOW}

BEGIN = 0  # phases of a large kmalloc() or kfree()
LARGE_ASKED = 15


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Make the caches, all empty. `bases` does not matter, nor do growth and limit of items.

    Raises ValueError for an item beyond 4 MiB, for parameters out of range, and beyond 8 TiB of KVA.
    """
    nodes = max(params.domains, 1)
    _check(params, kva_bytes, cpus, nodes)
    sets = max(params.kmalloc_sets, 1)
    own = layout.merged(items) if params.merge else list(range(len(items)))
    kept = sorted(set(own))
    flags = [SET_FLAGS.get(name, 0) for name in KMALLOC_SETS[:sets]]
    kmalloc = [Item(size, 0, 0, Traits(flags=bits)) for bits in flags for size in layout.KMALLOC_SIZES]
    cache = _caches(params, cpus, [*kmalloc, *(items[j] for j in kept)])
    cache[:, u.K_SHIFT] = [planes.shift_of(size) for size in cache[:, u.K_SIZE].tolist()]
    cache[:, u.K_PLANE] = [planes.plane(kva_bytes, shift) for shift in cache[:, u.K_SHIFT].tolist()]
    cpu = np.full((len(cache), cpus, u.C_COLUMNS), u.NIL, np.int64)
    node = np.full((len(cache), nodes, u.NODE_COLUMNS), u.NIL, np.int64)
    node[:, :, [u.NODE_PARTIAL, u.NODE_FULLS, u.NODE_EMPTIES]] = 0
    pages = -(-kva_bytes // PAGE)
    units = np.arange(layout.KMALLOC_SIZES[-1] // 8 + 1) * 8
    cache_of = np.searchsorted(layout.KMALLOC_SIZES, units).astype(np.int16)
    cache_of[0] = u.NIL
    node_of = np.arange(cpus, dtype=np.int64) * nodes // cpus
    return State(
        p=params,
        map=map_number,
        cpus=cpus,
        nodes=nodes,
        cache_of=cache_of,
        item_cache=len(layout.KMALLOC_SIZES) * sets + np.searchsorted(kept, own).astype(np.int64),
        cache=cache,
        cpu=cpu,
        node=node,
        slab=demand.zeros((pages, u.S_COLUMNS), np.int32),
        link=demand.scattered(planes.elements(kva_bytes), np.int16),  # a link is written before it is read
        word=demand.scattered(
            pages << u.PAGE_WORD_SHIFT if params.sheaves else 1, demand.names(pages << u.PAGE_WORD_SHIFT)
        ),  # so is this
        order=_permutations(params, cache),
        node_of=node_of,
        first_cpu=np.searchsorted(node_of, np.arange(nodes)),
        promote=np.full(PROMOTE_MAX + 1, u.NIL, np.int64),
        defrag=np.zeros(1, np.int64),
        large=np.zeros(1, np.int64),
        vector=demand.zeros(pages if params.memcg else 1),
    )


def _check(params: Params, kva_bytes: int, cpus: int, nodes: int) -> None:
    """Raise ValueError for what the arrays cannot hold."""
    if params.sheaves not in SHEAVES:
        raise ValueError(f"sheaves is {params.sheaves}; 0 is none, 1 for all caches, 2 for those that ask for them")
    if not params.cpu_slabs and params.sheaves != ALL_SHEAVES:
        raise ValueError("cpu_slabs=0: a CPU without slabs needs sheaves for all caches (sheaves=1)")
    if params.memcg not in (0, FROM_KMALLOC, FROM_SPARE_ROOM):
        raise ValueError(f"memcg is {params.memcg}; 0 is no vectors, 1 from kmalloc(), 2 in spare room first")
    if not 0 <= params.max_order <= MOST_MAX_ORDER:
        raise ValueError(f"max_order is {params.max_order}; it must be from 0 to {MOST_MAX_ORDER}")
    demand.check_kva(kva_bytes)
    check_order(params.slab_order)
    if nodes > cpus:
        raise ValueError(f"domains is {nodes}, but there are {cpus} CPUs: a node without a CPU is not modelled")
    if params.sheaves and layout.sheaf_bytes(params.sheaf_capacity) > layout.KMALLOC_SIZES[-1]:
        raise ValueError(f"sheaf_capacity is {params.sheaf_capacity}; a sheaf must fit into 8192 bytes (1020 objects)")


def _caches(params: Params, cpus: int, items: Sequence[Item]) -> Array:
    """Build State.cache."""
    cache = np.zeros((len(items), u.K_COLUMNS), np.int64)
    listed = bool(params.cpu_partial and params.cpu_slabs)
    for row, item in zip(cache, items, strict=True):
        size = layout.stride(item.size, item.traits)
        plan = layout.layout(size, cpus, max_order=params.max_order, least=params.min_objects, cpu_partial=listed)
        row[[u.K_SIZE, u.K_ORDER, u.K_OBJECTS, u.K_MIN_ORDER]] = size, plan.order, plan.objects, plan.min_order
        row[[u.K_CPU_SLABS, u.K_MIN_PARTIAL]] = plan.cpu_slabs, params.min_partial or plan.min_partial
        row[u.K_ASKS] = sum(attr for flag, attr in ASKS.items() if item.traits.flags & flag)
        if item.traits.flags & ACCOUNT and not (params.memcg == FROM_SPARE_ROOM and layout.has_padding(item)):
            row[u.K_CHARGED] = params.memcg
            if 8 * plan.objects > layout.KMALLOC_SIZES[-1] and params.memcg:
                raise ValueError(
                    f"memcg = {params.memcg}: a slab of {plan.objects} objects has a vector beyond 8192 bytes"
                )
        row[u.K_SHEAF] = item.traits.sheaf
        if params.sheaves != ASKED_SHEAVES:
            row[u.K_SHEAF] = max(layout.sheaf_capacity(size, params.sheaf_capacity), item.traits.sheaf)
        row[u.K_SHEAF_CACHE] = np.searchsorted(layout.KMALLOC_SIZES, layout.sheaf_bytes(int(row[u.K_SHEAF])))
    return cache


def _permutations(params: Params, cache: Array) -> Array:
    """Build State.order: of each cache a permutation that depends on the seed and the cache's number."""
    if not params.freelist_random:
        return np.zeros((1, 1), np.int16)
    objects = cache[:, u.K_OBJECTS]
    order = np.zeros((len(cache), objects.max()), np.int16)
    for k, (row, n) in enumerate(zip(order, objects.tolist(), strict=True)):
        row[:n] = np.random.default_rng((params.freelist_random, k)).permutation(n)
    return order


def lock_count(st: State, klass: int) -> int:
    """Count the locks of a class of LOCKS."""
    return len(st.cache) * st.nodes if klass else 1


@kernel
def _cache_for(st: State, item: int, size: Bytes) -> int:
    """Cache that serves a request; NIL for none: kmalloc(0), or more than 8 KiB."""
    if item >= 0:
        return st.item_cache[item]
    units = (size + 7) >> u.WORD_SHIFT
    k = wide(st.cache_of[units]) if units < len(st.cache_of) else u.NIL
    return k if item >= ITEM_MBUF or k == u.NIL else k + (ITEM_MBUF - item) * len(layout.KMALLOC_SIZES)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Pop from the current slab's freelist, or from the main sheaf: slab_alloc_node(). The rest is in `steps`."""
    k = _cache_for(st, reg[i, regs.ITEM], reg[i, regs.SIZE])
    if k != u.NIL and reg[i, regs.PHASE] == BEGIN:
        word = _pop(st, k, reg[i, regs.CPU])
        if word != u.NIL:
            reg[i, regs.BARE] = 1
            return hand_out(st, reg, i, k, word)
    return _alloc_slowly(st, reg, i, k)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Push on a slab's freelist, where that changes no list, or into the main sheaf: slab_free()."""
    if reg[i, regs.PHASE] == BEGIN and _push(st, reg[i, regs.ADDR], reg[i, regs.CPU]):
        reg[i, regs.BARE] = 1
        return DONE
    return _free_slowly(st, reg, i)


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Pop from the current slab's freelist, which may be refilled, or from the main sheaf."""
    k = _cache_for(st, item, size)
    word = u.NIL
    if k != u.NIL:
        word = _pop(st, k, cpu)
        if word == u.NIL and not has_sheaves(st, k):
            word = pop_refilled(st, k, cpu)
    return (obj.ABSENT, 0) if word == u.NIL else (word << u.WORD_SHIFT, st.cache[k, u.K_SIZE])


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Push on a slab's freelist, where that changes no list but the CPU's own, or into the main sheaf."""
    if addr < 0:
        return False
    if _push(st, addr, cpu):
        return True
    slab, k = wide(st.slab[addr >> PAGE_SHIFT, u.S_FIRST]), wide(st.slab[addr >> PAGE_SHIFT, u.S_CACHE]) - 1
    return k >= 0 and not has_sheaves(st, k) and push_full(st, k, cpu, slab, addr >> u.WORD_SHIFT)


@kernel
def _pop(st: State, k: int, cpu: int) -> int:
    """Take the object of cache `k` that is at hand. NIL: there is none, and nothing has been done."""
    return sheaf_pop(st, k, cpu) if has_sheaves(st, k) else cpu_pop(st, k, cpu)


@kernel
def _push(st: State, addr: Address, cpu: int) -> bool:
    """Free an object where that is one step. False: it is not, and nothing has been done."""
    if addr < 0:
        return False
    word, page = addr >> u.WORD_SHIFT, addr >> PAGE_SHIFT
    k = wide(st.slab[page, u.S_CACHE]) - 1
    if k < 0:
        return False
    slab = wide(st.slab[page, u.S_FIRST])
    if has_sheaves(st, k):
        return st.slab[slab, u.S_NODE] == st.node_of[cpu] and sheaf_push(st, k, cpu, word)
    if st.cpu[k, cpu, u.C_SLAB] == slab:
        cpu_push(st, k, cpu, slab, word)
        return True
    return slab_push(st, slab, word)


@kernel
def tend(st: State, reg: Registers, i: int) -> int:
    """Shrink all caches if that is wanted; Linux does not by itself."""
    if reg[i, regs.SIZE] != TEND_REAP or not st.p.shrink:
        return DONE
    return shrink(st, reg, i)


@outlined
def _alloc_slowly(st: State, reg: Registers, i: int, k: int) -> int:
    """Play one step of an allocation that the fast path could not serve."""
    if k == u.NIL:
        return _large(st, reg, i)
    if has_sheaves(st, k):
        return sheaf_alloc(st, reg, i, k)
    word = slab_alloc(st, reg, i, k)
    if word >= 0:
        return hand_out(st, reg, i, k, word)
    return FAILED if word == u.NIL else answer_of(word)


@kernel
def _large(st: State, reg: Registers, i: int) -> int:
    """kmalloc() of a block of pages, or of nothing."""
    reg[i, regs.BARE] = 1
    size = reg[i, regs.SIZE]
    if size == 0:
        reg[i, regs.ADDR] = ZERO_SIZE_PTR
        reg[i, regs.GRANTED] = 0
        return DONE
    if reg[i, regs.PHASE] == BEGIN:
        order = 0
        while size > PAGE << order:
            order += 1
        if size > KMALLOC_MAX:
            return FAILED
        by_size(reg, i, 1 << order)
        return ask_wired(reg, i, LARGE_ASKED, st.map, PAGE << order, PAGE << order)
    answer = enter_large(st, reg, i, u.S_ORDER)
    if answer == DONE:
        st.slab[reg[i, regs.ADDR] >> PAGE_SHIFT, u.S_CACHE] = u.LARGE
    return answer


@outlined
def _free_slowly(st: State, reg: Registers, i: int) -> int:
    """Play one step of a free that the fast path could not do."""
    if reg[i, regs.ADDR] < 0 or reg[i, regs.PHASE] == LARGE_ASKED:
        reg[i, regs.BARE] = 1
        return DONE
    page = reg[i, regs.ADDR] >> PAGE_SHIFT
    k = wide(st.slab[page, u.S_CACHE]) - 1
    if reg[i, regs.PHASE] == BEGIN:
        if k < 0:
            st.slab[page, u.S_CACHE] = 0
            reg[i, regs.BARE] = 1
            by_size(reg, i, wide(st.slab[page, u.S_ORDER]))
            return give_large(st, reg, i, LARGE_ASKED, u.S_ORDER)
        if not has_sheaves(st, k) or st.slab[wide(st.slab[page, u.S_FIRST]), u.S_NODE] != st.node_of[reg[i, regs.CPU]]:
            about(reg, i, SLAB)
    if reg[i, regs.PHASE] >> STAND_BITS == SLAB:
        return to_slab(st, reg, i)
    return sheaf_free(st, reg, i, k)
