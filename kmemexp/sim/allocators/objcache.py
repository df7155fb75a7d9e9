"""DragonFly's objcache: sys/kern/kern_objcache.c (Jeffrey Hsu, 8a268428, 7 June 2005; aabd5ce8, February 2010).

Magazines, as in Sun's allocator, before the slab allocator (`dfly_slab.py`): each CPU has two for each kind of object,
the loaded and the previous one, and only a critical section between it and them. When both are empty, an allocation
gets a full one of the depot in exchange, else a new object of the slab allocator; when both are full, a free gets an
empty one of the depot, else the object goes back to the slab allocator, perhaps by IPI to the CPU that owns its zone.
The depot has a spinlock (a token in 2005). Beyond its limit a cache makes no more objects: who may wait sleeps until
one is put back on its own CPU, or comes back to the depot. Nothing is trimmed.

Which kinds have a cache: mbufs (nmbufs) and clusters (nmbclusters) from June 2005 on, and the zones that a design gives
to this allocator, which in 2005 are none. The rest is malloc(9), and goes straight to the slab allocator.

Params.generation says when. 1, from 8 June 2005: magazines of 256 and none in the depot to begin with, so none ever,
and each CPU keeps up to 512 objects; a limit is raised to three magazines for each CPU. 3, February 2010: magazines of
64, or as many rounds as a cache asks for, halved down to 16 where the limit has not eight for each CPU; then the limit
is raised to that, and the depot gets half of what remains as empty magazines. 2, the default, 2020: a magazine's
capacity follows from nom_cache, the limit and the CPUs, and the depot begins with as many empty magazines as nom_cache
fills, and one (`objcache_2020.py` has the slab allocator of that time). 0, 7 June 2005: magazines of 5, and a free that
finds no empty one makes one, unless the objects exceed the limit by a magazine; requests that may not wait pass the
limit. The limit of a kind is Item.limit, else Params.cluster_limit; 0 is none.

An mbuf with its cluster in one request (m_getcl()) has a cache of its own, before those (`_shared.objcache_packets`).
What the caches ask for is of the size of the item, whatever the request's. Left out: that mbufs with and
without a packet header have caches of their own (three are here of five); that the free of a packet that leaves the CPU
for its cluster's owner goes on there with the mbuf; the 8 bytes of a cluster's metadata; a request for more than a
cluster, which is malloc's; memory of magazines and caches, made at boot but for generation 0, where malloc gives it;
constructors; objcache_reclaimlist(), by which a waiting request for an mbuf would empty a magazine of another cache,
and where none gets: objcache_get() refuses only who may not wait, for others sleep here at the limit, and the kernel
panics where malloc has no KVA (kmem_slab_alloc() without M_NULLOK); in generation 0, the timer that makes magazines
larger where CPUs contend. The depot's spinlock is taken inside the critical section; here that ends before, so a step
looks at the CPU's magazines once more.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from kmemexp.jit import kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Cube, Registers, Table, Words
from kmemexp.sim.allocators import dfly_slab
from kmemexp.sim.allocators._shared import objcache_packets as packets
from kmemexp.sim.allocators._shared import objcaches
from kmemexp.sim.allocators._shared.dfly_slab_layout import CHUNK as CLASS_CHUNK
from kmemexp.sim.allocators._shared.dfly_slab_layout import MIN_CHUNK_SIZE
from kmemexp.sim.allocators._shared.objcaches import (
    BACK_END,
    BEGIN_SLAB,
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
from kmemexp.sim.allocators.dfly_slab import alloc as slab_alloc
from kmemexp.sim.allocators.dfly_slab import fast_alloc as slab_fast_alloc
from kmemexp.sim.allocators.dfly_slab import fast_free as slab_fast_free
from kmemexp.sim.allocators.dfly_slab import free as slab_free
from kmemexp.sim.asking import hand_out
from kmemexp.sim.caches import Cache, Live
from kmemexp.sim.items import Item
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, IPI, ITEM_PACKET, PAGE
from kmemexp.sim.tables import obj, regs

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)
LIMITS_TYPES = 1  # of malloc
JOINS_PACKETS = 1  # ITEM_PACKET has a cache
LOCKS = ("critical", "critical+spin/own")  # magazines and slabs; a depot
CALLS = dfly_slab.CALLS


class Params(NamedTuple):
    """What a sweep may change. The last seven are the slab allocator's."""

    generation: int = objcaches.COMPUTED  # 0: 7 June 2005; 1: from 8 June 2005; 3: February 2010; 2: capacity computed
    cluster_limit: int = 0  # objects of an item without a limit of its own; 0: any number
    nom_cache: int = 0  # objects to cache; 0: half the limit, or 128
    nmbufs: int = 0  # limit of the cache of mbufs; 0, or no limit of clusters: mbufs have no cache
    nmbclusters: int = 0  # limit of the cache of clusters
    zone_bytes: int = 0
    ram_bytes: int = 0
    release_threshold: int = 2
    header_bytes: int = dfly_slab.ZONE_HEADER
    slide: int = 20
    malloc_types: int = 0
    malloc_type_bytes: int = 0


class State(NamedTuple):
    """Caches are numbered as the items are; then come those of mbufs, clusters, mbufs with clusters."""

    p: Params
    back: dfly_slab.State
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

    `bases` does not matter. Raises ValueError for a generation that is none, bad zone_bytes, or beyond 8 TiB of KVA.
    """
    if not 0 <= params.generation <= objcaches.HALVED:
        raise ValueError(f"generation is {params.generation}; it must be 0, 1, 2 or 3")
    demand.check_kva(kva_bytes)
    shared = {name: getattr(params, name) for name in dfly_slab.Params._fields if name in Params._fields}
    given: dict[str, Any] = {"kva_bytes": kva_bytes, "cpus": cpus, "map_number": map_number, "items": (), "bases": ()}
    back = dfly_slab.init(dfly_slab.Params(**shared), **given)
    kinds = objcaches.cached_kinds(items, params.nmbufs, params.nmbclusters)
    chunks = [chunk_bytes(back, item.size) for item in kinds]
    mbufs = len(items) if len(kinds) > len(items) else NIL
    if mbufs != NIL:
        chunks[-1] += chunks[-2]
    sizings = [
        objcaches.sizing(
            params.generation, item.limit or params.cluster_limit, params.nom_cache, cpus, item.traits.sheaf
        )
        for item in kinds
    ]
    if mbufs != NIL:
        given_rounds = packets.rounds(params.generation)
        sizings[-1] = objcaches.sizing(params.generation, params.nmbclusters, params.nom_cache, cpus, given_rounds)
    spare = kva_bytes // (objcaches.CAPACITIES[0] * min(chunks)) if params.generation == 0 and kinds else 0
    return State(
        params,
        back,
        mbufs,
        demand.zeros(kva_bytes >> packets.MSHIFT, demand.names(kva_bytes >> packets.MSHIFT)),
        *objcaches.tables(kinds, chunks, sizings, cpus, spare, demand.names(kva_bytes >> objcaches.UNIT_SHIFT)),
    )


def chunk_bytes(back: dfly_slab.State, size: int) -> int:
    """Bytes that the slab allocator gives for a request."""
    if size >= back.zone_limit or size % PAGE == 0:
        return -(-size // PAGE) * PAGE
    return int(back.klass[back.class_of[-(-size // MIN_CHUNK_SIZE)], CLASS_CHUNK])


def lock_count(st: State, klass: int) -> int:
    """Return the number of locks of class 1: one per depot."""
    return len(st.depot)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Play one step of an objcache_get(), or of a malloc."""
    z = cache_of(st, reg[i, regs.ITEM], reg[i, regs.SIZE])
    if z < 0:
        return slab_alloc(st.back, reg, i)
    if reg[i, regs.PHASE] == 0 and filled(st, z, reg[i, regs.CPU]):
        return hand_out(reg, i, get(st, z, reg[i, regs.CPU]), st.depot[z, CHUNK])
    return _alloc_missed(st, reg, i, z)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Play one step of an objcache_put(), or of a free."""
    z = cache_of(st, reg[i, regs.ITEM], reg[i, regs.SIZE])
    if z >= 0 and reg[i, regs.PHASE] == 0 and has_room(st, z, reg[i, regs.CPU]):
        return put_back(st, reg, i, z)
    return _free_missed(st, reg, i, z) if z >= 0 else slab_free(st.back, reg, i)


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take an object of the CPU's magazines, or what the slab allocator has at hand for a malloc."""
    z = cache_of(st, item, size)
    if z < 0:
        return slab_fast_alloc(st.back, item, size, cpu, flags)
    return (get(st, z, cpu), st.depot[z, CHUNK]) if filled(st, z, cpu) else (obj.ABSENT, 0)


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Put the object into the CPU's magazines, or what malloc gave back to the slab allocator."""
    z = cache_of(st, item, size)
    if z < 0:
        return slab_fast_free(st.back, item, addr, size, cpu, flags)
    if not has_room(st, z, cpu):
        return False
    put(st, z, cpu, addr)
    return True


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
    if answer == BACK_END:
        answer = slab_free(st.back, reg, i)
        if answer == IPI:
            reg[i, regs.PHASE] = BEGIN_SLAB  # on the CPU that owns the zone its free begins anew
    return answer


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
    if answer == BACK_END:
        answer = slab_free(st.back, reg, i)
        if answer == IPI:
            reg[i, regs.PHASE] = BEGIN_SLAB
        answer = packets.free_answered(reg, i, answer)
    return answer


def caches(st: State, live: Live) -> list[Cache]:
    """What each size of the slab allocator's chunks holds: objcaches have no slabs of their own."""
    return dfly_slab.caches(st.back, live)


def census(st: State) -> dict[str, int]:
    """Count what the caches and the slab allocator hold (`objcaches.count`)."""
    return objcaches.count(st, dfly_slab.census(st.back))
