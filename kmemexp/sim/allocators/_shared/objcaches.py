"""DragonFly's objcaches before a slab allocator, whichever it is: sizes, magazines, depots (sys/kern/kern_objcache.c).

A `State` here is that of the allocator: `depot`, `pair`, `magazine`, `round` and `made` as its docstring has them,
`mbufs`, and Params with `generation`. Caches are numbered as the items are, then come those of mbufs, of clusters,
and of mbufs with clusters (`objcache_packets`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Array, Bytes, Registers
from kmemexp.sim.allocators._shared.slab_lists import members
from kmemexp.sim.asking import go_on, hand_out, let_go, sleep_on
from kmemexp.sim.items import Item
from kmemexp.sim.network import MCLBYTES, MSIZE
from kmemexp.sim.slots import DONE, FAILED, ITEM_MBUF, ITEM_PACKET
from kmemexp.sim.tables import flag, regs
from kmemexp.sim.widths import wide

DEPOT_LOCK = 1 << regs.LOCK_SHIFT

CAPACITIES = (5, 256)  # INITIAL_MAG_CAPACITY of generations 0 and 1
COMPUTED = 2
HALVED = 3
INITIAL_MAG_CAPACITY = 64
LEAST_HALVED = 16
MOST_EMPTIES = 1000
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

BACK_END = -1  # what a step here answers where the slab allocator must go on

# regs.PHASE. Lower ones are those of the slab allocator.
DEPOT = 16  # under the depot's lock
BEGIN_SLAB = 17  # the slab allocator's first step, of an alloc or, perhaps on another CPU, of a free
RESTORE = 18  # under the depot's lock: the slab allocator had no object


class Sizing(NamedTuple):
    """How a cache begins."""

    capacity: int  # rounds of a magazine
    unallocated: int  # objects that may be made; UNLIMITED: any number
    empties: int  # empty magazines in the depot


def capacity_align(capacity: int) -> int:
    """Rounds of a magazine that has room for `capacity` at least and fills its cache lines."""
    nbytes = MAGAZINE_HEADER + capacity * POINTER
    return ((nbytes + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE - MAGAZINE_HEADER) // POINTER


def sizing(generation: int, limit: int, nom_cache: int, cpus: int, rounds: int = 0) -> Sizing:
    """How objcache_create() sizes a cache of up to `limit` objects (0: any number), for magazines of `rounds`."""
    if generation == COMPUTED:
        nom = nom_cache or limit // 2
        nom = (min(nom, limit) if limit else nom) or INITIAL_MAG_CAPACITY * 2
        capacity = capacity_align(nom // (cpus + 1) // 2 + 1)
        capacity = max(min(capacity, capacity_align(CAPACITY_MAX)), capacity_align(CAPACITY_MIN))
        return Sizing(capacity, cpus * capacity * 2 + limit if limit else UNLIMITED, max(nom // capacity + 1, 2))
    if generation == HALVED:
        return _halved(limit, cpus, rounds or INITIAL_MAG_CAPACITY)
    capacity = rounds or CAPACITIES[generation]
    if generation == 1 and limit:
        limit = max(limit, capacity * cpus * 3)
    return Sizing(capacity, limit or UNLIMITED, 0)


def _halved(limit: int, cpus: int, capacity: int) -> Sizing:
    """The rule of 2010: smaller magazines where there would not be eight for each CPU, then a higher limit."""
    if not limit:
        return Sizing(capacity, UNLIMITED, 2)
    while 8 * capacity * cpus > limit and capacity > LEAST_HALVED:
        capacity //= 2
    limit = max(limit, 8 * capacity * cpus)
    return Sizing(capacity, limit, min(max((limit - 2 * cpus * capacity) // capacity // 2, 2), MOST_EMPTIES))


def cached_kinds(items: Sequence[Item], nmbufs: int, nmbclusters: int) -> list[Item]:
    """List what has a cache: the items; mbufs, clusters, and mbufs with clusters, where they have limits."""
    if not nmbufs or not nmbclusters:
        return [*items]
    return [*items, Item(MSIZE, 0, nmbufs), Item(MCLBYTES, 0, nmbclusters), Item(MSIZE, 0, nmbclusters)]


def tables(
    kinds: Sequence[Item], chunks: Sequence[int], sizings: Sequence[Sizing], cpus: int, spare: int, names: Any
) -> list[Array]:
    """State.depot, pair, magazine, round and made of caches that are empty. `spare`: room for magazines made later.

    `names`: type of an integer that names an object.
    """
    depot = np.full((max(len(kinds), 1), DEPOT_COLUMNS), NIL, np.int64)
    depot[:, MAGAZINES] = 0
    empties = np.zeros(len(depot), np.int64)
    for z, (item, chunk, size) in enumerate(zip(kinds, chunks, sizings, strict=True)):
        depot[z, :4] = item.size, chunk, size.capacity, size.unallocated
        empties[z] = size.empties
        depot[z, MAGAZINES] = 2 * cpus + size.empties
    magazine, rounds = _magazines(depot, spare, names)
    first = np.cumsum(depot[:, MAGAZINES]) - depot[:, MAGAZINES]
    pair = first[:, None] + np.arange(2 * cpus) if kinds else np.full((1, 2 * cpus), NIL)
    for z in np.flatnonzero(empties).tolist():  # a list, the last one first
        begin = int(first[z]) + 2 * cpus
        magazine[begin : begin + empties[z], NEXT] = np.arange(begin - 1, begin + empties[z] - 1)
        magazine[begin, NEXT] = NIL
        depot[z, EMPTY] = begin + empties[z] - 1
    made = np.array([depot[:, MAGAZINES].sum()])
    return [depot, pair.reshape(-1, cpus, 2).astype(names), magazine, rounds, made]


def _magazines(depot: Array, spare: int, names: Any) -> tuple[Array, Array]:
    """Magazines in the order of the items, with room for `spare` more of 5 rounds, and their rounds."""
    capacity = np.repeat(depot[:, CAPACITY], depot[:, MAGAZINES])
    count = len(capacity)
    magazine = demand.empty((count + spare, MAGAZINE_COLUMNS), names)
    magazine[:count, START] = np.cumsum(capacity) - capacity
    magazine[:count, ROUNDS] = 0
    magazine[:count, NEXT] = NIL
    return magazine, demand.empty(int(capacity.sum()) + spare * CAPACITIES[0], names)


@kernel
def cache_of(st: Any, item: int, size: Bytes) -> int:
    """Return the number of the cache that serves a request; NIL: the slab allocator by itself."""
    if item >= 0:
        return item
    if item == ITEM_MBUF and st.mbufs != NIL and size <= MCLBYTES:
        return st.mbufs + (1 if size > MSIZE else 0)
    if item == ITEM_PACKET and st.mbufs != NIL:
        return st.mbufs + 2
    return NIL


@kernel
def _other_than(st: Any, z: int, cpu: int, rounds: int) -> bool:
    """Whether the loaded magazine has other than `rounds`. If only the previous one has, the two change places."""
    loaded, previous = st.pair[z, cpu, LOADED], st.pair[z, cpu, PREVIOUS]
    if st.magazine[loaded, ROUNDS] != rounds:
        return True
    if st.magazine[previous, ROUNDS] == rounds:
        return False
    st.pair[z, cpu, LOADED], st.pair[z, cpu, PREVIOUS] = previous, loaded
    return True


@kernel
def filled(st: Any, z: int, cpu: int) -> bool:
    """Whether the loaded magazine has an object, now or once it has changed places with the previous one."""
    return _other_than(st, z, cpu, 0)


@kernel
def has_room(st: Any, z: int, cpu: int) -> bool:
    """Whether the loaded magazine has room, likewise."""
    return _other_than(st, z, cpu, st.depot[z, CAPACITY])


@kernel
def get(st: Any, z: int, cpu: int) -> Address:
    """Take the top round of the loaded magazine, which has one."""
    magazine = wide(st.pair[z, cpu, LOADED])
    st.magazine[magazine, ROUNDS] -= 1
    return wide(st.round[st.magazine[magazine, START] + st.magazine[magazine, ROUNDS]]) << UNIT_SHIFT


@kernel
def put(st: Any, z: int, cpu: int, addr: Address) -> None:
    """Put the object on the loaded magazine, which has room."""
    magazine = wide(st.pair[z, cpu, LOADED])
    st.round[st.magazine[magazine, START] + st.magazine[magazine, ROUNDS]] = addr >> UNIT_SHIFT
    st.magazine[magazine, ROUNDS] += 1


@kernel
def put_back(st: Any, reg: Registers, i: int, z: int) -> int:
    """End a free with `put`: those who sleep for an object on this CPU look again. Those on others do not (2005)."""
    put(st, z, reg[i, regs.CPU], reg[i, regs.ADDR])
    let_go(reg, i, z, regs.WAKE_OWN)
    return DONE


@kernel
def alloc_step(st: Any, reg: Registers, i: int, z: int) -> int:
    """Go on with an allocation that found the CPU's magazines empty. Returns an answer, or BACK_END."""
    phase = reg[i, regs.PHASE]
    if phase == 0:
        return go_on(reg, i, DEPOT, DEPOT_LOCK | z)
    if phase == DEPOT:
        cpu = reg[i, regs.CPU]
        if filled(st, z, cpu) or _exchange(st, z, cpu, FULL, EMPTY):
            return hand_out(reg, i, get(st, z, cpu), st.depot[z, CHUNK])
        if not _may_make(st, reg, i, z):
            return FAILED if reg[i, regs.FLAGS] & flag.NOWAIT else sleep_on(reg, i, DEPOT, DEPOT_LOCK | z, z, 0)
        st.depot[z, UNALLOCATED] -= 1
        return go_on(reg, i, BEGIN_SLAB, 0)
    if phase == RESTORE:
        st.depot[z, UNALLOCATED] += 1
        let_go(reg, i, z, regs.WAKE_ALL)
        return FAILED
    if phase == BEGIN_SLAB:
        reg[i, regs.PHASE] = 0
    return BACK_END


@kernel
def allocated(reg: Registers, i: int, z: int, answer: int) -> int:
    """What the slab allocator's answer comes to: without an object, the depot may make another one again."""
    return go_on(reg, i, RESTORE, DEPOT_LOCK | z) if answer == FAILED else answer


@kernel
def free_step(st: Any, reg: Registers, i: int, z: int) -> int:
    """Go on with a free that found the CPU's magazines full. Returns an answer, or BACK_END."""
    phase = reg[i, regs.PHASE]
    if phase == 0:
        return go_on(reg, i, DEPOT, DEPOT_LOCK | z)
    if phase == DEPOT:
        cpu = reg[i, regs.CPU]
        if has_room(st, z, cpu):
            return put_back(st, reg, i, z)
        let_go(reg, i, z, regs.WAKE_ALL)
        if _make_empty(st, z) and _exchange(st, z, cpu, EMPTY, FULL):
            put(st, z, cpu, reg[i, regs.ADDR])
            return DONE
        st.depot[z, UNALLOCATED] += 1
        return go_on(reg, i, BEGIN_SLAB, 0)
    if phase == BEGIN_SLAB:
        reg[i, regs.PHASE] = 0
    return BACK_END


@kernel
def _exchange(st: Any, z: int, cpu: int, wanted: int, given: int) -> bool:
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
def _may_make(st: Any, reg: Registers, i: int, z: int) -> bool:
    """Whether the limit allows another object."""
    if st.p.generation == 0 and reg[i, regs.FLAGS] & (flag.NOWAIT | flag.WAITED) == flag.NOWAIT:
        return True
    return st.depot[z, UNALLOCATED] > 0


@kernel
def _make_empty(st: Any, z: int) -> bool:
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


def count(st: Any, back: dict[str, int]) -> dict[str, int]:
    """Count what the caches hold; `back`: what the slab allocator counts, objects in magazines as live ones.

    `magazines`, among them `full_magazines` and `empty_magazines` of the depots; `cached_objects` in magazines;
    `live_bytes`: handed out, by caches and slabs; `pages`: all that is mapped, by the slab allocator; then what that
    counts, with `back_` before its name.
    """
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
    return {name: int(number) for name, number in counts.items()} | {f"back_{name}": n for name, n in back.items()}
