"""What a sweep may change of `kmalloc_obj`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Cube, Table, Words
from kmemexp.sim.allocators import dfly_slab_2020


class Params(NamedTuple):
    """What a sweep may change, with the values of 2021. Those of the slab allocator have their own names."""

    full_slabs: int = 4  # KMALLOC_MAXFREEMAGS: full slabs that a type may keep
    retired_slabs: int = 4  # kern.kzone_bretire: slabs that a poll may retire
    cached_slabs: int = 128  # kern.kzone_cache: free slabs that a CPU may keep
    poll_frequency: int = 1  # kern.kzone_pollfreq: types polled in a second
    ram_bytes: int = 0  # physical memory; 0: not smaller than the KVA
    zone_bytes: int = 0  # these three as in dfly_slab_2020
    release_threshold: int = -1
    slide: int = 20


class State(NamedTuple):
    """Slabs are numbered by address: slab s lies at s * 128 KiB. Objects are named by their place in it, / 64."""

    p: Params
    map_number: int
    back: dfly_slab_2020.State
    type: Table  # int64[types, TYPE_COLUMNS]
    pair: Cube  # int32[cpus, types, 2], slabs ACTIVE, ALTERNATE
    slab: Table  # int32[slabs, 6]
    ring: Table  # int16[slabs, most objects of a slab], free objects
    cache: Table  # int64[cpus, 3], free slabs
    poller: Words  # int64[3]
