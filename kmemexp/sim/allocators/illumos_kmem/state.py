"""What a sweep may change of `illumos_kmem`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Cube, Table, Words
from kmemexp.sim.allocators.illumos_kmem import layout


class Params(NamedTuple):
    """What a sweep may change."""

    movable: int = 0  # caches with a move callback: 0 none, 1 those of the items, 2 those of kmem_alloc() too
    magazines: int = 1  # 0: slabs only, as in the allocator of 1994
    contention: int = 1  # a trip to the depot is contended: 0 never, 1 if others took its lock meanwhile, 2 see above
    depot_contention: int = 3  # contended trips in 15 s that do not yet make magazines grow
    max_cached: int = layout.KMEM_BIG_MAXBUF  # largest kmem_alloc() from a cache; 32768 on 32-bit machines
    frag_minslabs: int = 101  # the consolidator leaves caches with fewer slabs alone
    frag_numer: int = 1  # a cache is fragmented if more than numer/denom of its buffers are free in slabs
    frag_denom: int = 8
    reclaim_slabs: int = 1  # slabs emptied at each update
    scan_range: int = 12  # slabs looked at for that; also scans until the threshold is adjusted
    disbelief: int = 3  # LATER so often counts as NO
    reap_wait: int = 1  # ticks after a reap before another one


class State(NamedTuple):
    """Caches 0 to 8 hold magazines, 9 to 11 describe slabs, buffers and moves; then kmem_alloc()'s, the items'."""

    p: Params
    map: int
    cpus: int
    first_item: int  # cache of the first item
    max_cached: int  # largest size that kmem_alloc() has a cache for
    small_cache: Words  # int16[513], cache by size in units of 8 bytes
    big_cache: Words  # int16[33], by size in pages
    rounds: Words  # int64[9], of the magazines in each magazine cache
    maxbuf: Words  # int64[9], caches of smaller chunks may go on to the next type
    cache: Table  # int64[caches, K_COLUMNS]
    cc: Cube  # int64[caches, cpus, C_COLUMNS]
    page_cache: Words  # int16[pages], cache + 1 that a page belongs to
    slab: Table  # int32[pages, S_COLUMNS]
    tree: Words  # int32[2 * pages + caches]
    word: Words  # int32[…], by `slabs.noted`
    task: Words  # int64[T_COLUMNS]
    large: Words  # int64[1], pages of oversize blocks
