"""What a sweep may change of `vmem_illumos`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Array, Table, Words
from kmemexp.sim.arenas.vmem_illumos import layout

INSTANT_FIT, BEST_FIT, FIRST_FIT, NEXT_FIT = range(4)


class Params(NamedTuple):
    """What a sweep may change; the defaults are the real constants."""

    strategy: int = INSTANT_FIT  # 0 instant, 1 best, 2 first, 3 next fit
    qcache_max: int = 8  # pages
    populators: int = 3  # arenas that bring tags: heap, vmem_metadata, vmem_seg; on x86 hat_memload too
    metadata: int = 0  # 1: pages of the allocator's own caches come from kmem_msb and kmem_metadata, as in the kernel
    firewall: int = 0  # 1: oversize blocks are placed by next fit with an unmapped page behind each, as on LP64
    tag_bytes: int = layout.TAG_BYTES


class State(NamedTuple):
    """Maps, kmem_va, and the tags of all."""

    p: Params
    seg: Table  # int64[rows, SEGMENT_COLUMNS]
    lists: Table  # int64[arenas, LISTS], heads of the free lists
    arena: Table  # int64[maps + EXTRA_ARENAS, ARENA_COLUMNS]
    table: Words  # int32[pages], row of the tag of the range in use that begins there
    supply: Array  # int64[…]
    slab_pages: int
    slab: Table  # int64[cells, SLAB_COLUMNS]
    link: Words  # int32[pages], free ranges of slabs
    tree: Table  # int8[caches, 2 * leaves], weights of slabs
