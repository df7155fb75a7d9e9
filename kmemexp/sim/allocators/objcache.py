"""DragonFly's objcache: sys/kern/kern_objcache.c (Jeffrey Hsu, 8a268428, 7 June 2005; f875a8ee, July 2020).

Magazines, as in Sun's allocator, before the slab allocator (`dfly_slab.py`): each CPU has two for each kind of item,
the loaded and the previous one, and only a critical section between it and them. When both are empty, an allocation
gets a full one of the depot in exchange, else a new object of the slab allocator; when both are full, a free gets an
empty one of the depot, else the object goes back to the slab allocator, perhaps by IPI to the CPU that owns its zone.
The depot has a spinlock. Beyond its limit a cache makes no more objects. Nothing is trimmed.

Params.generation says when. 2, the default, 2020: a magazine's capacity follows from nom_cache, the limit and the CPUs,
and the depot begins with as many empty magazines as nom_cache fills, and one. 1, from 8 June 2005: magazines of 256 and
none in the depot to begin with, so none ever, and each CPU keeps up to 512 objects (read off a file that still has
tokens, of November 2006 at the latest; that of 8 June itself was not seen). 0, 7 June 2005: magazines of 5, and a free
that finds no empty one makes one, unless the objects exceed the limit by a magazine; requests that may not wait pass
the limit. The limit of a kind is Item.limit, else Params.cluster_limit; 0 is none.

Malloc and mbufs go straight to the slab allocator, as does what the caches ask for: in the size of the item, whatever
the request's. Left out: memory of magazines and caches, made at boot but for generation 0, where malloc gives it;
sleeping until an object is put back (a request beyond the limit fails); constructors; objcache_reclaimlist(), which few
callers have; in generation 0, the timer that makes magazines larger where CPUs contend. The depot's spinlock is taken
inside the critical section; here that ends before, so a step looks at the CPU's magazines once more.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Cube, Registers, Table, Words
from kmemexp.sim.allocators import dfly_slab
from kmemexp.sim.allocators._shared.dfly_slab_layout import CHUNK as CLASS_CHUNK
from kmemexp.sim.allocators._shared.dfly_slab_layout import MIN_CHUNK_SIZE
from kmemexp.sim.allocators._shared.slab_lists import members
from kmemexp.sim.allocators.dfly_slab import alloc as slab_alloc
from kmemexp.sim.allocators.dfly_slab import fast_alloc as slab_fast_alloc
from kmemexp.sim.allocators.dfly_slab import fast_free as slab_fast_free
from kmemexp.sim.allocators.dfly_slab import free as slab_free
from kmemexp.sim.asking import go_on, hand_out
from kmemexp.sim.items import Item
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, FAILED, IPI, PAGE
from kmemexp.sim.tables import flag, obj, regs
from kmemexp.sim.widths import wide

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)
LOCKS = ("critical", "critical+spin/own")  # magazines and slabs; a depot
CALLS = dfly_slab.CALLS
DEPOT_LOCK = 1 << regs.LOCK_SHIFT

CAPACITIES = (5, 256)  # INITIAL_MAG_CAPACITY of generations 0 and 1
COMPUTED = 2
INITIAL_MAG_CAPACITY = 64
MAGAZINE_HEADER = 16  # of a magazine on LP64; pointers follow, up to the end of a cache line
CACHE_LINE = 64
POINTER = 8
CAPACITY_MIN = 4
CAPACITY_MAX = 4096
UNLIMITED = 1 << 60
UNIT_SHIFT = 3  # objects are named by their address in units of 8 bytes
NIL = -1

# Columns of State.depot.
SIZE = 0  # bytes of an object
CHUNK = 1  # bytes that the slab allocator gives for it
CAPACITY = 2  # rounds of a magazine
UNALLOCATED = 3  # objects that may still be made
FULL = 4  # first of the full magazines
EMPTY = 5
MAGAZINES = 6
DEPOT_COLUMNS = 7

# Columns of State.magazine.
START = 0  # place of its first round in State.round
ROUNDS = 1
NEXT = 2  # in the depot
MAGAZINE_COLUMNS = 3

LOADED = 0  # places in State.pair
PREVIOUS = 1

# regs.PHASE. Lower ones are those of the slab allocator.
DEPOT = 16  # under the depot's lock
BEGIN_SLAB = 17  # the slab allocator's first step, of an alloc or, perhaps on another CPU, of a free
RESTORE = 18  # under the depot's lock: the slab allocator had no object


class Params(NamedTuple):
    """What a sweep may change. The last five are the slab allocator's."""

    generation: int = COMPUTED  # 0: 7 June 2005; 1: from 8 June 2005; 2: capacity computed
    cluster_limit: int = 0  # objects of an item without a limit of its own; 0: any number
    nom_cache: int = 0  # objects to cache; 0: half the limit, or 128
    zone_bytes: int = 0
    ram_bytes: int = 0
    release_threshold: int = 2
    header_bytes: int = dfly_slab.ZONE_HEADER
    slide: int = 20


class State(NamedTuple):
    """Caches are numbered as the items are."""

    p: Params
    back: dfly_slab.State
    depot: Table  # int64[items, DEPOT_COLUMNS]
    pair: Cube  # int32[items, cpus, 2], magazines LOADED, PREVIOUS
    magazine: Table  # int32[magazines, MAGAZINE_COLUMNS]
    round: Array  # int32, objects in the magazines
    made: Words  # int64[1], magazines made


class Sizing(NamedTuple):
    """How a cache begins."""

    capacity: int  # rounds of a magazine
    unallocated: int  # objects that may be made; UNLIMITED: any number
    empties: int  # empty magazines in the depot


def capacity_align(capacity: int) -> int:
    """Rounds of a magazine that has room for `capacity` at least and fills its cache lines."""
    nbytes = MAGAZINE_HEADER + capacity * POINTER
    return ((nbytes + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE - MAGAZINE_HEADER) // POINTER


def sizing(generation: int, limit: int, nom_cache: int, cpus: int) -> Sizing:
    """How objcache_create() sizes a cache of up to `limit` objects (0: any number)."""
    if generation == COMPUTED:
        nom = nom_cache or limit // 2
        nom = (min(nom, limit) if limit else nom) or INITIAL_MAG_CAPACITY * 2
        capacity = capacity_align(nom // (cpus + 1) // 2 + 1)
        capacity = max(min(capacity, capacity_align(CAPACITY_MAX)), capacity_align(CAPACITY_MIN))
        return Sizing(capacity, cpus * capacity * 2 + limit if limit else UNLIMITED, max(nom // capacity + 1, 2))
    capacity = CAPACITIES[generation]
    if generation == 1 and limit:
        limit = max(limit, capacity * cpus * 3)
    return Sizing(capacity, limit or UNLIMITED, 0)


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return caches of which all magazines are empty, before a slab allocator without any zone.

    `bases` does not matter. Raises ValueError for a generation that is none, bad zone_bytes, or beyond 8 TiB of KVA.
    """
    if not 0 <= params.generation <= COMPUTED:
        raise ValueError(f"generation is {params.generation}; it must be 0, 1 or 2")
    demand.check_kva(kva_bytes)
    shared = {name: getattr(params, name) for name in dfly_slab.Params._fields if name in Params._fields}
    given: dict[str, Any] = {"kva_bytes": kva_bytes, "cpus": cpus, "map_number": map_number, "items": (), "bases": ()}
    back = dfly_slab.init(dfly_slab.Params(**shared), **given)
    depot = np.full((max(len(items), 1), DEPOT_COLUMNS), NIL, np.int64)
    depot[:, MAGAZINES] = 0
    empties = np.zeros(len(depot), np.int64)
    for z, item in enumerate(items):
        size = sizing(params.generation, item.limit or params.cluster_limit, params.nom_cache, cpus)
        depot[z, :4] = item.size, chunk_bytes(back, item.size), size.capacity, size.unallocated
        empties[z] = size.empties
        depot[z, MAGAZINES] = 2 * cpus + size.empties
    spare = kva_bytes // (CAPACITIES[0] * int(depot[:, CHUNK].min())) if params.generation == 0 and items else 0
    names = demand.names(kva_bytes >> UNIT_SHIFT)
    magazine, rounds = _magazines(depot, spare, names)
    first = np.cumsum(depot[:, MAGAZINES]) - depot[:, MAGAZINES]
    pair = first[:, None] + np.arange(2 * cpus) if items else np.full((1, 2 * cpus), NIL)
    for z in np.flatnonzero(empties).tolist():  # a list, the last one first
        begin = int(first[z]) + 2 * cpus
        magazine[begin : begin + empties[z], NEXT] = np.arange(begin - 1, begin + empties[z] - 1)
        magazine[begin, NEXT] = NIL
        depot[z, EMPTY] = begin + empties[z] - 1
    made = np.array([depot[:, MAGAZINES].sum()])
    return State(params, back, depot, pair.reshape(-1, cpus, 2).astype(names), magazine, rounds, made)


def _magazines(depot: Array, spare: int, names: Any) -> tuple[Array, Array]:
    """Magazines in the order of the items, with room for `spare` more of 5 rounds, and their rounds."""
    capacity = np.repeat(depot[:, CAPACITY], depot[:, MAGAZINES])
    count = len(capacity)
    magazine = demand.empty((count + spare, MAGAZINE_COLUMNS), names)
    magazine[:count, START] = np.cumsum(capacity) - capacity
    magazine[:count, ROUNDS] = 0
    magazine[:count, NEXT] = NIL
    return magazine, demand.empty(int(capacity.sum()) + spare * CAPACITIES[0], names)


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
    z = reg[i, regs.ITEM]
    if z < 0:
        return slab_alloc(st.back, reg, i)
    if reg[i, regs.PHASE] == 0 and _filled(st, z, reg[i, regs.CPU]):
        return hand_out(reg, i, _get(st, z, reg[i, regs.CPU]), st.depot[z, CHUNK])
    return _alloc_missed(st, reg, i, z)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Play one step of an objcache_put(), or of a free."""
    z = reg[i, regs.ITEM]
    if z < 0:
        return slab_free(st.back, reg, i)
    if reg[i, regs.PHASE] == 0 and _has_room(st, z, reg[i, regs.CPU]):
        _put(st, z, reg[i, regs.CPU], reg[i, regs.ADDR])
        return DONE
    return _free_missed(st, reg, i, z)


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take an object of the CPU's magazines, or what the slab allocator has at hand for a malloc."""
    if item < 0:
        return slab_fast_alloc(st.back, item, size, cpu, flags)
    return (_get(st, item, cpu), st.depot[item, CHUNK]) if _filled(st, item, cpu) else (obj.ABSENT, 0)


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Put the object into the CPU's magazines, or what malloc gave back to the slab allocator."""
    if item < 0:
        return slab_fast_free(st.back, item, addr, size, cpu, flags)
    if not _has_room(st, item, cpu):
        return False
    _put(st, item, cpu, addr)
    return True


@kernel
def _other_than(st: State, z: int, cpu: int, rounds: int) -> bool:
    """Whether the loaded magazine has other than `rounds`. If only the previous one has, the two change places."""
    loaded, previous = st.pair[z, cpu, LOADED], st.pair[z, cpu, PREVIOUS]
    if st.magazine[loaded, ROUNDS] != rounds:
        return True
    if st.magazine[previous, ROUNDS] == rounds:
        return False
    st.pair[z, cpu, LOADED], st.pair[z, cpu, PREVIOUS] = previous, loaded
    return True


@kernel
def _filled(st: State, z: int, cpu: int) -> bool:
    """Whether the loaded magazine has an object, now or once it has changed places with the previous one."""
    return _other_than(st, z, cpu, 0)


@kernel
def _has_room(st: State, z: int, cpu: int) -> bool:
    """Whether the loaded magazine has room, likewise."""
    return _other_than(st, z, cpu, st.depot[z, CAPACITY])


@kernel
def _get(st: State, z: int, cpu: int) -> Address:
    """Take the top round of the loaded magazine, which has one."""
    magazine = wide(st.pair[z, cpu, LOADED])
    st.magazine[magazine, ROUNDS] -= 1
    return wide(st.round[st.magazine[magazine, START] + st.magazine[magazine, ROUNDS]]) << UNIT_SHIFT


@kernel
def _put(st: State, z: int, cpu: int, addr: Address) -> None:
    """Put the object on the loaded magazine, which has room."""
    magazine = wide(st.pair[z, cpu, LOADED])
    st.round[st.magazine[magazine, START] + st.magazine[magazine, ROUNDS]] = addr >> UNIT_SHIFT
    st.magazine[magazine, ROUNDS] += 1


@outlined
def _alloc_missed(st: State, reg: Registers, i: int, z: int) -> int:
    """Go on with an allocation that found the CPU's magazines empty."""
    phase = reg[i, regs.PHASE]
    if phase == 0:
        return go_on(reg, i, DEPOT, DEPOT_LOCK | z)
    if phase == DEPOT:
        cpu = reg[i, regs.CPU]
        if _filled(st, z, cpu) or _exchange(st, z, cpu, FULL, EMPTY):
            return hand_out(reg, i, _get(st, z, cpu), st.depot[z, CHUNK])
        if not _may_make(st, reg, i, z):
            return FAILED
        st.depot[z, UNALLOCATED] -= 1
        return go_on(reg, i, BEGIN_SLAB, 0)
    if phase == RESTORE:
        st.depot[z, UNALLOCATED] += 1
        return FAILED
    if phase == BEGIN_SLAB:
        reg[i, regs.PHASE] = 0
    size = reg[i, regs.SIZE]
    reg[i, regs.SIZE] = st.depot[z, SIZE]
    answer = slab_alloc(st.back, reg, i)
    reg[i, regs.SIZE] = size
    return go_on(reg, i, RESTORE, DEPOT_LOCK | z) if answer == FAILED else answer


@outlined
def _free_missed(st: State, reg: Registers, i: int, z: int) -> int:
    """Go on with a free that found the CPU's magazines full."""
    phase = reg[i, regs.PHASE]
    if phase == 0:
        return go_on(reg, i, DEPOT, DEPOT_LOCK | z)
    if phase == DEPOT:
        cpu = reg[i, regs.CPU]
        if _has_room(st, z, cpu) or (_make_empty(st, z) and _exchange(st, z, cpu, EMPTY, FULL)):
            _put(st, z, cpu, reg[i, regs.ADDR])
            return DONE
        st.depot[z, UNALLOCATED] += 1
        return go_on(reg, i, BEGIN_SLAB, 0)
    if phase == BEGIN_SLAB:
        reg[i, regs.PHASE] = 0
    answer = slab_free(st.back, reg, i)
    if answer == IPI:
        reg[i, regs.PHASE] = BEGIN_SLAB
    return answer


@kernel
def _exchange(st: State, z: int, cpu: int, wanted: int, given: int) -> bool:
    """Get a magazine of one of the depot's lists for the previous one. False: there is none."""
    magazine = st.depot[z, wanted]
    if magazine == NIL:
        return False
    previous = wide(st.pair[z, cpu, PREVIOUS])
    st.depot[z, wanted] = st.magazine[magazine, NEXT]
    st.magazine[previous, NEXT] = st.depot[z, given]
    st.depot[z, given] = previous
    st.pair[z, cpu, PREVIOUS] = st.pair[z, cpu, LOADED]
    st.pair[z, cpu, LOADED] = magazine
    return True


@kernel
def _may_make(st: State, reg: Registers, i: int, z: int) -> bool:
    """Whether the limit allows another object."""
    if st.p.generation == 0 and reg[i, regs.FLAGS] & flag.NOWAIT:
        return True
    return st.depot[z, UNALLOCATED] > 0


@kernel
def _make_empty(st: State, z: int) -> bool:
    """See to it, in generation 0, that the depot has an empty magazine. False: it has none."""
    if st.depot[z, EMPTY] != NIL:
        return True
    magazine = st.made[0]
    if st.p.generation != 0 or st.depot[z, UNALLOCATED] <= -CAPACITIES[0] or magazine == len(st.magazine):
        return False
    st.magazine[magazine, START] = magazine * CAPACITIES[0]
    st.magazine[magazine, ROUNDS] = 0
    st.magazine[magazine, NEXT] = NIL
    st.made[0] += 1
    st.depot[z, MAGAZINES] += 1
    st.depot[z, EMPTY] = magazine
    return True


def census(st: State) -> dict[str, int]:
    """Count what the allocator holds.

    `magazines`, among them `full_magazines` and `empty_magazines` of the depots; `cached_objects` in magazines;
    `live_bytes`: handed out, by caches and slabs; `pages`: all that is mapped, by the slab allocator; then what that
    counts, objects in magazines as live ones, with `back_` before its name.
    """
    back = dfly_slab.census(st.back)
    after = st.magazine[:, NEXT]
    full = [members(st.depot[z : z + 1, FULL], after) for z in range(len(st.depot))]
    loaded = np.where(st.pair >= 0, st.magazine[st.pair, ROUNDS], 0).sum(axis=(1, 2)) if st.made[0] else 0
    cached = loaded + np.array([st.magazine[magazine, ROUNDS].sum() for magazine in full], np.int64)
    counts = {
        "magazines": st.made[0],
        "full_magazines": sum(map(len, full)),
        "empty_magazines": len(members(st.depot[:, EMPTY], after)),
        "cached_objects": cached.sum(),
        "cached_bytes": (cached * st.depot[:, CHUNK]).sum(),
        "live_bytes": back["live_bytes"] - (cached * st.depot[:, CHUNK]).sum(),
        "pages": back["pages"],
    }
    return {name: int(count) for name, count in counts.items()} | {f"back_{name}": n for name, n in back.items()}
