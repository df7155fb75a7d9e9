"""DragonFly's kmalloc_obj: sys/kern/kern_kmalloc.c, sys/sys/_malloc.h (e9dbfea1, 21 March 2021), x86_64.

A type whose objects have one size has slabs of its own, so that types do not keep each other's memory. A slab is 128
KiB, aligned to that: a header, a ring of pointers to the free objects (first in, first out), the objects. Each CPU
takes objects from its active slab of the type, else from its alternate one, in a critical section only. Any CPU frees
into the ring of the object's slab with two atomic additions, and moves nothing. A CPU whose two slabs have no object
takes the type's spinlock and gets another active slab; its alternate one goes to the end of the type's list of empty
slabs. It gets a partial slab, else a full one (all objects free), else what one of the empty ones has become, of which
it looks at 16; else, without the lock, a slab of its own cache of free ones, else of the map.

Once a second a poller looks at one type: at 16 of its empty slabs, and it retires up to 4 of the full slabs that the
type has beyond 4, if they were full a tick ago (existence locks). It stays with the type until it has got to the end of
the list. That a partial slab has become full goes unnoticed. Retired slabs go to the cache of the CPU that laid them
out, up to 128, beyond that back to the map.

Objects are multiples of 64 bytes. What names no such type (malloc, mbufs), and objects too large for a slab, are served
by `dfly_slab_2020`, whose upkeep is part of every tenth tick.

Left out: limits of types; M_ZERO; the instants between the two additions of a free; the bitmap that finds double frees;
the memory of the per-CPU tables; destroying a type; types without slabs of their own, for each of which the poller
lets a second pass. A slab is mapped as the caller's flags say, the kernel always waits; without KVA it panics, whatever
the flags. The objcaches that mbufs had before the slab allocator are left out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, Registers, Table
from kmemexp.sim.allocators import dfly_slab_2020
from kmemexp.sim.allocators._shared.dfly_zones import UNMAP_BLOCK
from kmemexp.sim.allocators.dfly_slab_2020 import alloc as slab_alloc
from kmemexp.sim.allocators.dfly_slab_2020 import fast_alloc as slab_fast_alloc
from kmemexp.sim.allocators.dfly_slab_2020 import fast_free as slab_fast_free
from kmemexp.sim.allocators.dfly_slab_2020 import free as slab_free
from kmemexp.sim.allocators.dfly_slab_2020 import tend as slab_tend
from kmemexp.sim.allocators.kmalloc_obj.slabs import (
    ACTIVE,
    COUNT,
    FREE,
    FREE_COUNT,
    HELD,
    N_EMPTY,
    N_FULL,
    N_PARTIAL,
    NEXT,
    NIL,
    POLLED,
    SIZE,
    SLAB_SHIFT,
    SLAB_SIZE,
    TICKS,
    TYPE,
    TYPE_COLUMNS,
    UNIT_SHIFT,
    cached_slab,
    hand_out_of,
    lay_out,
    poll,
    put,
    ready_slab,
    rotate,
    rotate_in,
    take,
)
from kmemexp.sim.allocators.kmalloc_obj.state import Params, State
from kmemexp.sim.asking import ask_unmap, ask_wired, go_on, out_of_entries
from kmemexp.sim.caches import Cache, Live, by_zone
from kmemexp.sim.items import Item
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, FAILED, NO_SPACE, PAGE, TEND_TICK
from kmemexp.sim.tables import obj, panics, regs
from kmemexp.sim.widths import wide

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)
LOCKS = ("critical", "critical+spin/own")  # an operation on slabs at hand; a type's lists
CALLS = dfly_slab_2020.CALLS
TICK_NS = 1_000_000_000  # kmalloc_poller_thread()
CLEANUP_TICKS = dfly_slab_2020.TICK_NS // TICK_NS
TYPE_LOCK = 1 << regs.LOCK_SHIFT

HEADER = 352  # of a slab: all that comes before the ring
POINTER = 8  # bytes of an entry of the ring
CACHE_LINE = 1 << UNIT_SHIFT

# regs.PHASE. Lower ones are those of the slab allocator.
ROTATE = 16  # under the type's lock: another slab of the type
NEW_SLAB = 17  # none: one of the CPU's cache, or of the map
MAPPED = 18
ROTATE_IN = 19  # under the type's lock: the new slab, regs.X
POLL = 20  # under the type's lock: upkeep of a type; regs.Y: types that are left to poll in this tick
UNMAP = 21  # retired slabs, from regs.X on, are being unmapped


def slab_layout(size: int) -> tuple[int, int, int]:
    """Bytes of an object, objects in a slab, and where the first one lies, for objects of `size` bytes."""
    size = -(-size // CACHE_LINE) * CACHE_LINE
    count = (SLAB_SIZE - HEADER) // (size + POINTER)
    return size, count, -(-(HEADER + count * POINTER) // CACHE_LINE) * CACHE_LINE


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return an allocator without any slab, a type per item. Limits and `bases` do not matter to it.

    Raises ValueError: bad zone_bytes.
    """
    shared = {name: getattr(params, name) for name in ("ram_bytes", "zone_bytes", "release_threshold", "slide")}
    given: dict[str, Any] = {"kva_bytes": kva_bytes, "cpus": cpus, "map_number": map_number, "items": (), "bases": ()}
    kind = np.full((max(len(items), 1), TYPE_COLUMNS), NIL, np.int64)
    kind[:, :6] = 0
    for row, item in zip(kind, items, strict=False):
        row[:3] = slab_layout(item.size)
    slabs = -(-kva_bytes // SLAB_SIZE)
    return State(
        p=params,
        map_number=map_number,
        back=dfly_slab_2020.init(dfly_slab_2020.Params(**shared), **given),
        type=kind,
        pair=np.full((cpus, len(kind), 2), NIL, np.int32),
        slab=demand.zeros((slabs, 6), np.int32),
        ring=demand.empty((slabs, max(kind[:, COUNT].max(), 1)), np.int16),  # written when a slab is laid out
        cache=np.tile(np.array([NIL, NIL, 0], np.int64), (cpus, 1)),
        poller=np.zeros(3, np.int64),
    )


def lock_count(st: State, klass: int) -> int:
    """Return the number of locks of class 1: one per type."""
    return len(st.type)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Play one step of a kmalloc_obj, or of a kmalloc."""
    z = reg[i, regs.ITEM]
    if z < 0 or st.type[z, COUNT] == 0:
        return slab_alloc(st.back, reg, i)
    if reg[i, regs.PHASE] != 0:
        return _refill(st, reg, i, z)
    slab = ready_slab(st, reg[i, regs.CPU], z)
    return _go_on_locked(reg, i, ROTATE, z) if slab == NIL else hand_out_of(st, reg, i, z, slab)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Play one step of a kfree_obj, or of a kfree."""
    addr = reg[i, regs.ADDR]
    if reg[i, regs.ITEM] < 0 or st.slab[addr >> SLAB_SHIFT, TYPE] == 0:
        return slab_free(st.back, reg, i)
    put(st, addr)
    return DONE


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take an object of the CPU's slabs, or what the slab allocator has at hand for what names no type."""
    if item < 0 or st.type[item, COUNT] == 0:
        return slab_fast_alloc(st.back, item, size, cpu, flags)
    slab = ready_slab(st, cpu, item)
    return (obj.ABSENT, 0) if slab == NIL else (take(st, item, slab), st.type[item, SIZE])


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Put an object into its slab's ring, or what names no type back to the slab allocator."""
    if item < 0 or st.slab[addr >> SLAB_SHIFT, TYPE] == 0:
        return slab_fast_free(st.back, item, addr, size, cpu, flags)
    put(st, addr)
    return True


@kernel
def tend(st: State, reg: Registers, i: int) -> int:
    """Play one step of the poller, or of the slab allocator's upkeep. Short memory changes nothing."""
    phase = reg[i, regs.PHASE]
    if phase == 0:
        if reg[i, regs.SIZE] != TEND_TICK:
            return DONE
        st.poller[TICKS] += 1
        reg[i, regs.Y] = st.p.poll_frequency
        return _next_poll(st, reg, i)
    if phase == POLL:
        reg[i, regs.X] = poll(st, reg, i, st.poller[POLLED])
        return _unmap_next(st, reg, i)
    if phase == UNMAP:
        return _unmap_next(st, reg, i)
    return slab_tend(st.back, reg, i)


@outlined
def _refill(st: State, reg: Registers, i: int, z: int) -> int:
    """Get the CPU a slab with free objects."""
    phase, cpu = reg[i, regs.PHASE], reg[i, regs.CPU]
    if phase == ROTATE:
        if rotate(st, reg, i, z):
            return hand_out_of(st, reg, i, z, wide(st.pair[cpu, z, ACTIVE]))
        return go_on(reg, i, NEW_SLAB, 0)
    if phase == ROTATE_IN:
        rotate_in(st, cpu, z, reg[i, regs.X])
        return hand_out_of(st, reg, i, z, reg[i, regs.X])
    if phase == NEW_SLAB:
        slab = cached_slab(st, cpu)
        if slab == NIL:
            return ask_wired(reg, i, MAPPED, st.map_number, SLAB_SIZE, SLAB_SIZE)
    else:
        base = reg[i, regs.BASE]
        if base < 0:
            return _refused(reg, i, base)
        slab = base >> SLAB_SHIFT
        st.poller[HELD] += 1
    lay_out(st, cpu, z, slab)
    reg[i, regs.WORK] = st.type[z, COUNT]
    reg[i, regs.X] = slab
    return _go_on_locked(reg, i, ROTATE_IN, z)


@kernel
def _refused(reg: Registers, i: int, base: Address) -> int:
    """Fail without KVA or map entries."""
    if not out_of_entries(reg, i) and base == NO_SPACE:
        reg[i, regs.PANIC] = panics.KERNEL_MAP
    return FAILED


@kernel
def _go_on_locked(reg: Registers, i: int, phase: int, z: int) -> int:
    """Go on in `phase` under the lock of type `z`."""
    return go_on(reg, i, phase, TYPE_LOCK | z)


@kernel
def _next_poll(st: State, reg: Registers, i: int) -> int:
    """Poll a type, as often as a tick does it; every tenth tick ends with the slab allocator's cleanup."""
    if reg[i, regs.Y] > 0:
        reg[i, regs.Y] -= 1
        return _go_on_locked(reg, i, POLL, st.poller[POLLED])
    if st.poller[TICKS] % CLEANUP_TICKS != 0:
        return DONE
    reg[i, regs.PHASE] = 0
    return slab_tend(st.back, reg, i)


@kernel
def _unmap_next(st: State, reg: Registers, i: int) -> int:
    """Unmap the first of the retired slabs that no cache had room for."""
    slab = reg[i, regs.X]
    if slab == NIL:
        return _next_poll(st, reg, i)
    reg[i, regs.X] = st.slab[slab, NEXT]
    st.poller[HELD] -= 1
    reg[i, regs.CALL] = UNMAP_BLOCK
    return ask_unmap(reg, i, UNMAP, st.map_number, slab << SLAB_SHIFT, SLAB_SIZE)


def caches(st: State, live: Live) -> list[Cache]:
    """What each type's slabs hold, and each size of the slab allocator's chunks."""
    lists = st.type[:, [N_PARTIAL, N_FULL, N_EMPTY]].sum(axis=1)
    slabs = np.where(st.type[:, COUNT] > 0, lists + (st.pair != NIL).sum(axis=(0, 2)), 0)
    typed = by_zone(st.type[:, SIZE], slabs, slabs * (SLAB_SIZE // PAGE))

    def chunks() -> Table:
        rows = live()
        return rows[st.slab[rows[:, obj.ADDR] >> SLAB_SHIFT, TYPE] == 0]

    return [*typed, *dfly_slab_2020.caches(st.back, chunks)]


def census(st: State) -> dict[str, int]:
    """Count what the allocator holds.

    `slabs`: mapped, among them `cached_slabs` that belong to no type; `objects`: handed out; `free_objects` of types'
    slabs; `live_bytes`: of objects, chunks and blocks handed out; `pages`: all that is mapped, with the slab
    allocator's; then what that counts, with `back_` before its name.
    """
    back = dfly_slab_2020.census(st.back)
    typed = st.slab[st.slab[:, TYPE] != 0].astype(np.int64)
    kind = st.type[typed[:, TYPE] - 1]
    live = kind[:, COUNT] - typed[:, FREE]
    counts = {
        "slabs": st.poller[HELD],
        "cached_slabs": st.cache[:, FREE_COUNT].sum(),
        "objects": live.sum(),
        "free_objects": typed[:, FREE].sum(),
        "live_bytes": (live * kind[:, SIZE]).sum() + back["live_bytes"],
        "pages": st.poller[HELD] * SLAB_SIZE // PAGE + back["pages"],
    }
    return {name: int(count) for name, count in counts.items()} | {f"back_{name}": n for name, n in back.items()}
