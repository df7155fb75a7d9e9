"""illumos kmem, Solaris' object allocator: usr/src/uts/common/os/kmem.c, sys/kmem_impl.h (illumos-gate 03ba8404, 2020).

A cache hands out buffers of one size. Each CPU has two magazines of free buffers, the loaded and the previous one,
and only its own lock between it and them. Behind them the cache's depot exchanges full magazines for empty ones; what
of these was not needed for an interval of 15 s may be reaped when memory is short. Behind the depot are slabs: partial
ones are ordered by use, the fullest first; an empty one goes back to the map at once. Slabs of small buffers (below
512 bytes) are a page with a header at its end; those of larger ones are described by a kmem_slab_t and bufctls, which
are, like magazines, buffers of caches of kmem's own: their pages count, and kmem calls itself to get them. The first
buffer of each new slab lies a colour further. A new slab's buffers are handed out downwards from the highest, and then
what was freed last. Where the depot is contended, magazines grow at the next update.

The consolidator moves objects out of the least used slabs of a cache that is fragmented, or, when memory is short, out
of all partial ones. That needs a move callback, which few caches have: Params.movable says which. The owner of an
object that must not move answers LATER, thrice is NO. A buffer in a magazine has no owner: nobody knows it, it stays.

malloc and mbufs are kmem_alloc(): 46 size classes up to 128 KiB, above that pages straight from the map. An arena that
has places of their own for them is told what is metadata (pages of the caches that hold magazines and describe slabs,
buffers, moves) and what is an oversize block. Each zone is a
cache with 8-byte alignment. A step cannot see whether it waited for a lock: a trip to the depot counts as contended
when somebody else took the depot's lock between the step that asked for it and the one that got it. Without a clock
nothing ever is. Params.contention = 2 instead counts each trip that follows one of another CPU, which is far more than
the kernel does. The spacing of reaps, 15 s, is counted in ticks.

Left out: constructors, and reclaim callbacks; prefilled magazines (KMC_PREFILL), move notifications; debugging; hash
tables (their size is reported, but not held, and looking up costs nothing); the kmem_cache_t and kmem_defrag_t;
sleeping for memory (a request that the map refuses fails). The depot is used under its own lock alone, the kernel holds
the CPU's as well. A magazine that comes too late, as the cache has larger ones meanwhile, goes straight to its slab. A
request for no bytes, for which the kernel returns NULL, is one for a byte.
"""

from collections.abc import Sequence

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Registers
from kmemexp.sim.allocators._shared import planes
from kmemexp.sim.allocators.illumos_kmem import layout
from kmemexp.sim.allocators.illumos_kmem import slabs as u
from kmemexp.sim.allocators.illumos_kmem.calls import hand_out
from kmemexp.sim.allocators.illumos_kmem.magazines import cpu_pop, cpu_push
from kmemexp.sim.allocators.illumos_kmem.phases import BEGIN
from kmemexp.sim.allocators.illumos_kmem.slabs import cache_of
from kmemexp.sim.allocators.illumos_kmem.state import Params, State
from kmemexp.sim.allocators.illumos_kmem.steps import go, wanted
from kmemexp.sim.allocators.illumos_kmem.task import T_COLUMNS
from kmemexp.sim.allocators.illumos_kmem.upkeep_steps import upkeep
from kmemexp.sim.caches import Cache, Live, large, rows
from kmemexp.sim.items import Item
from kmemexp.sim.map_calls import SEGKMEM_FREE, SEGKMEM_XALLOC
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, ITEM_MALLOC, ITEM_MBUF, PAGE
from kmemexp.sim.tables import obj, regs

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)
# cc_lock (one for all caches of a CPU: only other CPUs could tell them apart, and these never take it but to resize),
# cache_depot_lock, cache_lock.
LOCKS = ("adaptive+inherit/cpu", "adaptive+inherit/own", "adaptive+inherit/own")
CALLS = (SEGKMEM_XALLOC, SEGKMEM_FREE)
TICK_NS = 15_000_000_000  # kmem_reap_interval

MOVABLE_ITEMS = 1  # Params.movable
MOVABLE_ALL = 2


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Make the caches, all empty. `bases` does not matter, nor do growth and limit of items.

    Raises ValueError beyond 8 TiB of KVA, or for a max_cached below 4096.
    """
    demand.check_kva(kva_bytes)
    if params.max_cached < layout.KMEM_MAXBUF:
        raise ValueError(f"max_cached is {params.max_cached}: kmem_alloc() has caches up to 4096 bytes at least")
    sizes = layout.alloc_sizes(params.max_cached)
    first_item = u.FIRST_ALLOC + len(sizes)
    cache = _caches(params, sizes, items)
    # Magazines and moves lie in `word` as they are; of a buffer one thing is noted, of a hashed cache's the bufctl too.
    noted = [u.SLAB_CACHE, u.BUFCTL_CACHE, *range(u.FIRST_ALLOC, len(cache))]
    others = cache[noted]
    others[:, u.K_SHIFT] = [planes.shift_of(n, 1 + hashed) for n, hashed in others[:, [u.K_CHUNK, u.K_HASHED]].tolist()]
    others[:, u.K_PLANE] = [planes.plane(kva_bytes, shift) for shift in others[:, u.K_SHIFT].tolist()]
    cache[noted] = others
    cc = np.full((len(cache), cpus, u.C_COLUMNS), u.NIL, np.int64)
    rounds = np.array([magtype.rounds for magtype in layout.MAGTYPES], np.int64)
    cc[:, :, u.MAGSIZE] = rounds[cache[:, u.K_MAGTYPE], None] if params.magazines else 0
    pages = -(-kva_bytes // PAGE)
    names = demand.names(pages * u.PAGE_WORDS + PAGE)  # and what marks a word: OUT, FREE_LINK
    tree = demand.zeros(
        2 * pages + len(cache), demand.names(2 * pages)
    )  # a slab's links are written before they are read
    tree[2 * pages :] = u.NIL
    units = np.arange(layout.KMEM_MAXBUF // 8 + 1) * 8
    return State(
        p=params,
        map=map_number,
        cpus=cpus,
        first_item=first_item,
        max_cached=sizes[-1],
        small_cache=(u.FIRST_ALLOC + np.searchsorted(sizes, units)).astype(np.int16),
        big_cache=(u.FIRST_ALLOC + np.searchsorted(sizes, np.arange(sizes[-1] // PAGE + 1) * PAGE)).astype(np.int16),
        rounds=rounds,
        maxbuf=np.array([magtype.maxbuf for magtype in layout.MAGTYPES], np.int64),
        cache=cache,
        cc=cc,
        page_cache=demand.zeros(pages, np.int16),
        slab=demand.zeros((pages, u.S_COLUMNS), names),
        tree=tree,
        word=demand.scattered(planes.elements(kva_bytes), names),
        task=np.zeros(T_COLUMNS, np.int64),
        large=np.zeros(1, np.int64),
    )


def _caches(params: Params, sizes: Sequence[int], items: Sequence[Item]) -> Array:
    """Build State.cache."""
    own = [(layout.magazine_bytes(magtype.rounds), magtype.align) for magtype in layout.MAGTYPES]
    own += [(size, 8) for size in (layout.SLAB_BYTES, layout.BUFCTL_BYTES, layout.MOVE_BYTES)]
    plans = [layout.cache_layout(size, align, nohash=True) for size, align in own]
    plans += [layout.cache_layout(size, layout.alloc_align(size)) for size in sizes]
    plans += [layout.cache_layout(item.size) for item in items]
    cache = np.zeros((len(plans), u.K_COLUMNS), np.int64)
    cache[:, [u.K_FULL, u.K_EMPTY, u.K_DEAD, u.K_LAST]] = u.NIL
    cache[:, u.K_NUMER] = 1
    first = {0: len(plans), MOVABLE_ITEMS: len(own) + len(sizes), MOVABLE_ALL: len(own)}[params.movable]
    for k, (row, plan) in enumerate(zip(cache, plans, strict=True)):
        row[[u.K_CHUNK, u.K_SLAB, u.K_HASHED, u.K_ALIGN]] = plan.chunk, plan.slab, plan.hashed, plan.align
        row[[u.K_MAXCOLOR, u.K_CHUNKS, u.K_BINSHIFT]] = plan.maxcolor, plan.maxchunks, plan.binshift
        row[u.K_MAGTYPE] = layout.first_magtype(plan.chunk)
        row[u.K_MASK] = layout.KMEM_HASH_INITIAL - 1 if plan.hashed else 0
        row[u.K_MOVES] = k >= first and plan.chunk * 2 <= plan.slab
    return cache


def unlocked_from(st: State) -> int:
    """Bytes from which on kmem_alloc() asks the map at once."""
    return st.max_cached + 1


def lock_count(st: State, klass: int) -> int:
    """Count the locks of a class of LOCKS."""
    return len(st.cache) if klass else st.cpus


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Pop from one of the CPU's magazines: kmem_cache_alloc(). The rest is in `steps`."""
    if reg[i, regs.PHASE] == BEGIN:
        k = wanted(st, reg[i, regs.ITEM], reg[i, regs.SIZE])
        if k != u.NIL:
            b = cpu_pop(st, k, reg[i, regs.CPU])
            if b != u.NIL:
                return hand_out(st, reg, i, k, b)
    return go(st, reg, i, False)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Push into one of the CPU's magazines: kmem_cache_free()."""
    if reg[i, regs.PHASE] == BEGIN:
        b = reg[i, regs.ADDR] >> u.WORD_SHIFT
        k = cache_of(st, b)
        if k != u.NIL:
            if st.cache[k, u.K_MOVES]:
                st.word[u.noted(st, k, b)] = u.OUT
            if cpu_push(st, k, reg[i, regs.CPU], b):
                return DONE
    return go(st, reg, i, True)


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Pop from one of the CPU's magazines. A buffer that may move would have to be told whose it is."""
    k = wanted(st, item, size)
    if k == u.NIL or st.cache[k, u.K_MOVES]:
        return obj.ABSENT, 0
    b = cpu_pop(st, k, cpu)
    return (obj.ABSENT, 0) if b == u.NIL else (b << u.WORD_SHIFT, st.cache[k, u.K_CHUNK])


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Push into one of the CPU's magazines, likewise."""
    b = addr >> u.WORD_SHIFT
    k = cache_of(st, b)
    return k != u.NIL and not st.cache[k, u.K_MOVES] and cpu_push(st, k, cpu, b)


@kernel
def tend(st: State, reg: Registers, i: int) -> int:
    """Update working sets, let magazines grow, empty a slab (kmem_update()); reap (kmem_reap())."""
    return upkeep(st, reg, i)


def caches(st: State, live: Live) -> list[Cache]:
    """What each cache holds, without those of kmem's own."""
    cache = st.cache[u.FIRST_ALLOC :]
    sizes, sized = cache[:, u.K_CHUNK], st.first_item - u.FIRST_ALLOC
    names = [f"kmem_alloc_{size}" for size in sizes[:sized].tolist()] + [""] * (len(cache) - sized)
    served = [(ITEM_MALLOC, ITEM_MBUF)] * sized + [(z,) for z in range(len(cache) - sized)]
    slabs = cache[:, [u.K_PARTIAL, u.K_COMPLETE]].sum(axis=1)
    return [*rows(names, served, sizes, slabs, cache[:, u.K_PAGES]), large(st.large[0])]


def census(st: State) -> dict[str, int]:
    """Count what the allocator holds.

    `pages`: all that it holds, among them `large_pages` of oversize blocks and `own_pages` of kmem's own caches. Of the
    other caches: `slab_buffers` free in slabs, `cpu_buffers` in CPUs' magazines, `depot_buffers` in full ones; `slabs`,
    `partial_slabs`. Of all: magazines in the depots, `full_magazines` and `empty_magazines`; times that a depot was
    found contended; `hash_bytes`. Moves: `moves_done`, `moves_later`, `moves_unknown`, `nomove_slabs` so often marked,
    `moved_slabs` freed by them.
    """
    others = st.cache[u.FIRST_ALLOC :]
    rounds = st.rounds[others[:, u.K_MAGTYPE]]
    cc = st.cc[u.FIRST_ALLOC :]
    hashed = st.cache[:, u.K_HASHED] == 1
    counts = {
        "pages": st.cache[:, u.K_PAGES].sum() + st.large[0],
        "large_pages": st.large[0],
        "own_pages": st.cache[: u.FIRST_ALLOC, u.K_PAGES].sum(),
        "slab_buffers": others[:, u.K_BUFSLAB].sum(),
        "cpu_buffers": np.maximum(cc[:, :, u.ROUNDS], 0).sum() + np.maximum(cc[:, :, u.PROUNDS], 0).sum(),
        "depot_buffers": (others[:, u.K_FULL + u.TOTAL] * rounds).sum(),
        "slabs": others[:, [u.K_PARTIAL, u.K_COMPLETE]].sum(),
        "partial_slabs": others[:, u.K_PARTIAL].sum(),
        "full_magazines": st.cache[:, u.K_FULL + u.TOTAL].sum(),
        "empty_magazines": st.cache[:, u.K_EMPTY + u.TOTAL].sum(),
        "contentions": st.cache[:, u.K_CONTENTION].sum(),
        "hash_bytes": 8 * (st.cache[hashed, u.K_MASK] + 1).sum(),
        "moves_done": st.cache[:, u.K_YES].sum(),
        "moves_later": st.cache[:, u.K_LATER].sum(),
        "moves_unknown": st.cache[:, u.K_DONT_KNOW].sum(),
        "nomove_slabs": st.cache[:, u.K_NO].sum(),
        "moved_slabs": st.cache[:, u.K_FREED].sum(),
    }
    return {name: int(count) for name, count in counts.items()}
