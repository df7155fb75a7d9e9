"""What a sweep may change of `vmem`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Array, Cube, Table, Words

BEST_FIT, FIRST_FIT, NEXT_FIT = range(3)


class Params(NamedTuple):
    """What a sweep may change; the defaults are those of a machine with superpages and no direct map."""

    strategy: int = BEST_FIT  # 0 best, 1 first, 2 next fit
    import_bytes: int = 2 << 20  # KVA_QUANTUM; 0: all of map 0 at once
    qcache_max: int = 0  # pages, map 0
    submap_qcache_max: int = 0  # pages, the other maps
    qcache_bucket: int = 0  # ranges in a CPU's cache of a size; 0: UMA's, 2 of one page and 1 of more
    tag_bytes: int = 56  # sizeof(struct vmem_btag), LP64; 28 on i386
    direct: int = 0  # 1: pages of tags come from the direct map (amd64, arm64 …)
    cpus: int = 0  # 0: the machine's
    levels: int = 1  # 2: kernel memory comes from an arena for each domain, which imports from that of map 0
    domains: int = 0  # 0: the machine's
    join_spans: int = 1  # 0: a span tag stands before what is imported though it continues the last span, as earlier


class State(NamedTuple):
    """Maps, kernel_map itself, and the tags of all."""

    p: Params
    seg: Table  # int64[rows, SEGMENT_COLUMNS]
    lists: Table  # int64[arenas, LISTS], heads of the free lists
    arena: Table  # int64[…, ARENA_COLUMNS]: those of the maps, with two levels of the domains, at last kernel_map
    maps: int
    table: Words  # int32[pages], row of the tag of the range in use that begins there
    supply: Array  # int64[…]
    bucket: Array  # int64[maps, cpus, sizes, ranges], quantum caches
    filled: Cube  # int64[maps, cpus, sizes], ranges in them
