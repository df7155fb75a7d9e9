"""What a sweep may change of `uma`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Cube, Table, Words
from kmemexp.sim.allocators.uma import layout as lay


class Params(NamedTuple):
    """What a sweep may change."""

    generation: int = lay.UMAI_03  # 0: 2002, 1: middle of 2003, 2: late 2003, 3: 2004 to 2006
    pointer_bytes: int = 4  # 4: i386, 8: LP64
    header_bytes: int = 0  # of struct uma_slab before its indices; 0: 24 with pointers of 4 bytes, 48 with 8
    align: int = 0  # bytes that items are aligned to; 0: a pointer (UMA_ALIGN_PTR)
    nmbclusters: int = 0  # uma_zone_set_max() of clusters; 0: none
    nofree: int = 0  # 1: typed zones never give pages back (UMA_ZONE_NOFREE)
    eager_release: int = 0  # 1: a slab that becomes wholly free goes back at once, working sets do not matter
    slab_order: int = 0  # which partly free slab is used first: 0 the last listed, 1 the lowest, 2 the fullest
    bucketdisable: int = 0  # 1: no new buckets from a reclaim to the next tick (fewer free pages than v_free_min)
    kmem_map: int = 0  # generation 0: map to grow in while kernel_map, its usual one, is locked; 0: one map for all


class State(NamedTuple):
    """Zones 0 and 1 hold slab headers, 2 to 5 buckets, then those of malloc(9), packets, mbufs, clusters, items."""

    p: Params
    map: int  # map to grow in
    shift: int  # log2 of a pointer's bytes
    zone: Table  # int64[zones, Z_COLUMNS]
    cache: Cube  # int64[zones, cpus, C_COLUMNS]
    slab: Table  # int32[pages, S_COLUMNS]
    freelist: Table  # uint8[pages, 256], of a free item: the next free one of its slab (us_freelist)
    word: Words  # int32[kva_bytes / pointer], buckets at their addresses
    ext: Words  # int32[kva_bytes / 256], the cluster that an mbuf has as a packet (`slabs.NO_PACKET` ...)
    chain: Words  # int32[kva_bytes / 2048], of a cluster in a chain: the next one + 1
    size_zone: Words  # int16[257], zone by size of a malloc() in units of 16 bytes
    large: Words  # int64[1], pages of large malloc()s
    low: Words  # int64[1], 1: no new buckets (bucketdisable)
