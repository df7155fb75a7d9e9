"""What a sweep may change of `uma_today`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Cube, Table, Words


class Params(NamedTuple):
    """What a sweep may change."""

    ram_bytes: int = 0  # physical memory; 0: more than 128 MiB
    domains: int = 0  # NUMA domains; CPU c is in domain c * domains // cpus; 0: one
    nmbufs: int = 0  # uma_zone_set_max() of mbufs; 0: none
    nmbclusters: int = 0  # the same of clusters
    nmbjumbop: int = 0  # of jumbo clusters of a page
    nmbjumbo9: int = 0  # of 9 KiB
    nmbjumbo16: int = 0  # of 16 KiB
    small_alloc: int = 0  # 1: slabs of one page come from the direct map (amd64, arm64 …), 0: all from the map (i386)
    direct_map: int = 0  # number of that map
    multipage: int = 1  # vm.debug.uma_multipage_slabs
    bucket_growth: int = 1  # 1: contention makes a zone's buckets larger
    slab_order: int = 0  # which partly free slab is used first: 0 the last listed, 1 the lowest, 2 the fullest
    reap: int = 0  # what short memory asks for: 0 TRIM (the page daemon), 1 DRAIN, 2 DRAIN_CPU (the kmem limit)
    trim_after: int = 45  # ticks after which a list trims itself (15 minutes)
    kmem_limit: int = 0  # bytes above which the reclaim thread is woken (uma_kmem_limit); 0: none


class State(NamedTuple):
    """Zones 0 and 1 hold slab headers, 2 to 9 buckets, then come malloc(9)'s, packets, mbufs, clusters, the items."""

    p: Params
    map: int  # map of what has more than one page, and of large malloc()
    domains: int
    malloc_max: int  # largest size that a zone serves
    zone: Table  # int64[zones, Z_COLUMNS]
    cache: Cube  # int64[zones, cpus, C_COLUMNS]
    dom: Cube  # int64[zones, domains, D_COLUMNS]
    slab: Table  # int32[pages, S_COLUMNS]
    bits: Table  # uint32[pages, SET_WORDS], free items of the slab that begins in the page
    word: Words  # int32[kva_bytes / 8], contents of buckets at their addresses
    ext: Words  # int32[kva_bytes / 256], the cluster that an mbuf has as a packet (`moves.NO_PACKET` ...)
    chain: Words  # int32[kva_bytes / 2048], where a cluster in a chain begins: the next one + 1
    size_zone: Words  # int16[4097], zone by size of a malloc() in units of 16 bytes
    domain_of: Words  # int64[cpus]
    large: Words  # int64[1], pages of large malloc()s
    total: Words  # int64[2], pages that count against the limit; 1: they were above it
