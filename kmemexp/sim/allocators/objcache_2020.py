"""DragonFly's objcache of July 2020 (sys/kern/kern_objcache.c, f875a8ee) before the slab allocator of that time.

What an objcache is, `objcache.py` says; the slab allocator is `dfly_slab_2020.py`, whose upkeep is this one's. A
magazine's capacity follows from the cache's nominal size, its limit and the CPUs; the depot begins with as many empty
magazines as that size fills, and one, and its spinlock is taken in the critical section of the miss.

Left out: nominal sizes that a cache passes itself: half the limit is assumed, as objcache_create() does without one;
clusters of a page (jumbo), which are malloc's here as all that is larger than a cluster; mbufs of 512 bytes, the size
on x86-64, where a load asks for 256; and what `objcache.py` leaves out.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from kmemexp.jit import kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Cube, Registers, Table, Words
from kmemexp.sim.allocators import dfly_slab_2020
from kmemexp.sim.allocators._shared import objcache_packets as packets
from kmemexp.sim.allocators._shared import objcaches
from kmemexp.sim.allocators._shared.dfly_slab_layout import CHUNK as CLASS_CHUNK
from kmemexp.sim.allocators._shared.dfly_slab_layout import MIN_CHUNK_SIZE
from kmemexp.sim.allocators._shared.objcaches import (
    BACK_END,
    CHUNK,
    NIL,
    SIZE,
    alloc_step,
    allocated,
    cache_of,
    filled,
    free_step,
    get,
    has_room,
    put,
    put_back,
)
from kmemexp.sim.allocators.dfly_slab_2020 import alloc as slab_alloc
from kmemexp.sim.allocators.dfly_slab_2020 import fast_alloc as slab_fast_alloc
from kmemexp.sim.allocators.dfly_slab_2020 import fast_free as slab_fast_free
from kmemexp.sim.allocators.dfly_slab_2020 import free as slab_free
from kmemexp.sim.allocators.dfly_slab_2020 import tend as slab_tend
from kmemexp.sim.allocators.dfly_slab_2020.state import ZONE_HEADER
from kmemexp.sim.asking import hand_out
from kmemexp.sim.caches import Cache, Live
from kmemexp.sim.items import Item
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, ITEM_PACKET, PAGE
from kmemexp.sim.tables import obj, regs

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)
LIMITS_TYPES = 1  # of malloc
JOINS_PACKETS = 1  # ITEM_PACKET has a cache
LOCKS = ("critical", "critical+spin/own")  # magazines and slabs; a depot
CALLS = dfly_slab_2020.CALLS
TICK_NS = dfly_slab_2020.TICK_NS


class Params(NamedTuple):
    """What a sweep may change. The last seven are the slab allocator's."""

    cluster_limit: int = 0  # objects of an item without a limit of its own; 0: any number
    nom_cache: int = 0  # objects to cache; 0: half the limit, or 128
    nmbufs: int = 0  # limit of the cache of mbufs; 0, or no limit of clusters: mbufs have no cache
    nmbclusters: int = 0  # limit of the cache of clusters
    zone_bytes: int = 0
    ram_bytes: int = 0
    release_threshold: int = -1
    header_bytes: int = ZONE_HEADER
    slide: int = 20
    malloc_types: int = 0
    malloc_type_bytes: int = 0


class _Rule(NamedTuple):
    generation: int = objcaches.COMPUTED


class State(NamedTuple):
    """Caches are numbered as the items are; then come those of mbufs, clusters, mbufs with clusters."""

    p: _Rule
    back: dfly_slab_2020.State
    mbufs: int  # number of the cache of mbufs; NIL: none
    mate: Words  # int32[kva_bytes / 256], cluster of an mbuf that has one (`objcache_packets`)
    depot: Table  # int64[caches, DEPOT_COLUMNS]
    pair: Cube  # int32[caches, cpus, 2], magazines LOADED, PREVIOUS
    magazine: Table  # int32[magazines, MAGAZINE_COLUMNS]
    round: Array  # int32, objects in the magazines
    made: Words  # int64[1], magazines made


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return caches of which all magazines are empty, before a slab allocator without any zone.

    `bases` does not matter. Raises ValueError for bad zone_bytes, or beyond 8 TiB of KVA.
    """
    demand.check_kva(kva_bytes)
    shared = {name: getattr(params, name) for name in dfly_slab_2020.Params._fields if name in Params._fields}
    given: dict[str, Any] = {"kva_bytes": kva_bytes, "cpus": cpus, "map_number": map_number, "items": (), "bases": ()}
    back = dfly_slab_2020.init(dfly_slab_2020.Params(**shared), **given)
    kinds = objcaches.cached_kinds(items, params.nmbufs, params.nmbclusters)
    sizings = [
        objcaches.sizing(objcaches.COMPUTED, item.limit or params.cluster_limit, params.nom_cache, cpus)
        for item in kinds
    ]
    chunks = [chunk_bytes(back, item.size) for item in kinds]
    mbufs = len(items) if len(kinds) > len(items) else NIL
    if mbufs != NIL:
        chunks[-1] += chunks[-2]
    return State(
        _Rule(),
        back,
        mbufs,
        demand.zeros(kva_bytes >> packets.MSHIFT, demand.names(kva_bytes >> packets.MSHIFT)),
        *objcaches.tables(kinds, chunks, sizings, cpus, 0, demand.names(kva_bytes >> objcaches.UNIT_SHIFT)),
    )


def chunk_bytes(back: dfly_slab_2020.State, size: int) -> int:
    """Bytes that the slab allocator gives for a request."""
    if size >= back.zone_limit or (size % PAGE == 0 and size > 2 * PAGE):
        return -(-size // PAGE) * PAGE
    return int(back.klass[back.class_of[-(-size // MIN_CHUNK_SIZE)], CLASS_CHUNK])


def lock_count(st: State, klass: int) -> int:
    """Return the number of locks of class 1: one per depot."""
    return len(st.depot)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Play one step of an objcache_get(), or of a kmalloc."""
    z = cache_of(st, reg[i, regs.ITEM], reg[i, regs.SIZE])
    if z < 0:
        return slab_alloc(st.back, reg, i)
    if reg[i, regs.PHASE] == 0 and filled(st, z, reg[i, regs.CPU]):
        return hand_out(reg, i, get(st, z, reg[i, regs.CPU]), st.depot[z, CHUNK])
    return _alloc_missed(st, reg, i, z)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Play one step of an objcache_put(), or of a kfree."""
    z = cache_of(st, reg[i, regs.ITEM], reg[i, regs.SIZE])
    if z >= 0 and reg[i, regs.PHASE] == 0 and has_room(st, z, reg[i, regs.CPU]):
        return put_back(st, reg, i, z)
    return _free_missed(st, reg, i, z) if z >= 0 else slab_free(st.back, reg, i)


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take an object of the CPU's magazines, or what the slab allocator has at hand for a kmalloc."""
    z = cache_of(st, item, size)
    if z < 0:
        return slab_fast_alloc(st.back, item, size, cpu, flags)
    return (get(st, z, cpu), st.depot[z, CHUNK]) if filled(st, z, cpu) else (obj.ABSENT, 0)


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Put the object into the CPU's magazines, or what kmalloc gave back to the slab allocator."""
    z = cache_of(st, item, size)
    if z < 0:
        return slab_fast_free(st.back, item, addr, size, cpu, flags)
    if not has_room(st, z, cpu):
        return False
    put(st, z, cpu, addr)
    return True


@kernel
def tend(st: State, reg: Registers, i: int) -> int:
    """Play one step of slab_cleanup(); objcaches have no upkeep."""
    return slab_tend(st.back, reg, i)


@outlined
def _alloc_missed(st: State, reg: Registers, i: int, z: int) -> int:
    if reg[i, regs.ITEM] == ITEM_PACKET:
        return _packet_alloc(st, reg, i)
    answer = alloc_step(st, reg, i, z)
    if answer != BACK_END:
        return answer
    size = reg[i, regs.SIZE]
    reg[i, regs.SIZE] = st.depot[z, SIZE]
    answer = slab_alloc(st.back, reg, i)
    reg[i, regs.SIZE] = size
    return allocated(reg, i, z, answer)


@outlined
def _free_missed(st: State, reg: Registers, i: int, z: int) -> int:
    if reg[i, regs.ITEM] == ITEM_PACKET:
        return _packet_free(st, reg, i)
    answer = free_step(st, reg, i, z)
    return slab_free(st.back, reg, i) if answer == BACK_END else answer


@outlined
def _packet_alloc(st: State, reg: Registers, i: int) -> int:
    packets.begin(reg, i)
    answer = packets.alloc_next(st, reg, i)
    if answer != BACK_END:
        return answer
    if reg[i, regs.X] == packets.MBUF:
        return packets.alloc_answered(st, reg, i, slab_free(st.back, reg, i))
    size = reg[i, regs.SIZE]
    reg[i, regs.SIZE] = packets.back_end_size(reg, i)
    answer = slab_alloc(st.back, reg, i)
    reg[i, regs.SIZE] = size
    return packets.alloc_answered(st, reg, i, answer)


@outlined
def _packet_free(st: State, reg: Registers, i: int) -> int:
    packets.begin(reg, i)
    answer = packets.free_next(st, reg, i)
    return packets.free_answered(reg, i, slab_free(st.back, reg, i)) if answer == BACK_END else answer


def caches(st: State, live: Live) -> list[Cache]:
    """What each size of the slab allocator's chunks holds: objcaches have no slabs of their own."""
    return dfly_slab_2020.caches(st.back, live)


def census(st: State) -> dict[str, int]:
    """Count what the caches and the slab allocator hold (`objcaches.count`)."""
    return objcaches.count(st, dfly_slab_2020.census(st.back))
