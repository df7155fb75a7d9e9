"""What a sweep may change of `slub`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Cube, Table, Words
from kmemexp.sim.allocators.slub import layout


class Params(NamedTuple):
    """What a sweep may change."""

    sheaves: int = 0  # 1: for all caches (7.0); 2: for those that ask for them (6.18)
    cpu_slabs: int = 1  # 0: CPUs have sheaves, but no slabs (7.1)
    sheaf_capacity: int = 0  # objects in a sheaf at least; 0: by the rule alone
    max_order: int = layout.SLUB_MAX_ORDER  # slub_max_order, up to 6
    min_objects: int = 0  # slub_min_objects; 0: by the number of CPUs
    cpu_partial: int = 1  # 0: CPUs have no partial lists (no CONFIG_SLUB_CPU_PARTIAL)
    min_partial: int = 0  # slabs that a node's list keeps; 0: by the size of objects
    defrag_ratio: int = 1000  # remote_node_defrag_ratio: how often other nodes are asked, of 1024
    freelist_random: int = 0  # seed of the order of objects in new slabs (CONFIG_SLAB_FREELIST_RANDOM); 0: by address
    slab_order: int = 0  # which slab of a node's list is taken first: 0 as above, 1 the lowest, 2 the fullest
    shrink: int = 0  # 1: kmem_cache_shrink() of all caches when memory is short
    merge: int = 0  # 1: caches alike are one (CONFIG_SLAB_MERGE_DEFAULT); recorded ones have been merged
    kmalloc_sets: int = 0  # sets of kmalloc() caches; 0: as many as the load's roles name
    domains: int = 0  # NUMA nodes; 0: 1
    node_bytes: int = 0  # of the direct map on each; 0: a slab belongs to the node of the CPU that asked for its pages
    memcg: int = 0  # vectors of memory cgroups: 1 from kmalloc() caches, 2 in a slab's spare room if it has any (7.1)


class State(NamedTuple):
    """Caches 0 to 12 are kmalloc()'s, then come those of its other sets, then the items'. See `slabs` for columns."""

    p: Params
    map: int
    cpus: int
    nodes: int
    cache_of: Words  # int16[1025], kmalloc() cache by size in units of 8 bytes; of size 0: NIL
    item_cache: Words  # int64[items], cache of each
    cache: Table  # int64[caches, K_COLUMNS]
    cpu: Cube  # int64[caches, cpus, C_COLUMNS]
    node: Cube  # int64[caches, nodes, NODE_COLUMNS]
    slab: Table  # int32[pages, S_COLUMNS]
    link: Words  # int16[…], by `linked`: of a free object the next free one, in units of 8 bytes from its slab
    word: Words  # int32[kva_bytes / 8], what sheaves hold; int32[1] without sheaves
    order: Table  # int16[caches, objects], permutations of the objects of a slab; int16[1, 1] if by address
    node_of: Words  # int64[cpus]
    first_cpu: Words  # int64[nodes], a CPU of each node
    promote: Words  # int64[33], shrinking: slabs by number of free objects
    defrag: Words  # int64[1], times that other nodes might have been asked
    large: Words  # int64[1], pages of large kmalloc()s
    vector: Words  # int64[pages], 1 + word of the vector of the slab that begins with a page; int64[1] without memcg
