"""What a sweep may change of `vmem_illumos`, and the arrays that it works on."""

from typing import NamedTuple

import numpy as np

from kmemexp.sim.arenas.vmem_illumos import alloc as v
from kmemexp.sim.arenas.vmem_illumos import layout

INSTANT_FIT, BEST_FIT, FIRST_FIT, NEXT_FIT = v.INSTANT_FIT, v.BEST_FIT, v.FIRST_FIT, v.NEXT_FIT


class Params(NamedTuple):
    """What a sweep may change; the defaults are the real constants."""

    strategy: int = INSTANT_FIT  # 0 instant, 1 best, 2 first, 3 next fit
    qcache_max: int = 8  # pages
    populators: int = 3  # arenas that bring tags: heap, vmem_metadata, vmem_seg, and others elsewhere
    tag_bytes: int = layout.TAG_BYTES


class State(NamedTuple):
    """Maps, kmem_va, and the tags of all."""

    p: Params
    seg: np.ndarray  # int64[rows, SEGMENT_COLUMNS]
    lists: np.ndarray  # int64[arenas, LISTS], heads of the free lists
    arena: np.ndarray  # int64[maps + EXTRA_ARENAS, ARENA_COLUMNS]
    table: np.ndarray  # int32[pages], row of the tag of the range in use that begins there
    supply: np.ndarray  # int64[…]
    slab_pages: int
    slab: np.ndarray  # int64[cells, SLAB_COLUMNS]
    link: np.ndarray  # int32[pages], free ranges of slabs
    tree: np.ndarray  # int8[caches, 2 * leaves], weights of slabs
