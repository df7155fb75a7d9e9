"""Upkeep of `allocators/uma`: the timeout of every 20 seconds, and reclaiming when memory is short.

regs.ITEM: how many zones have been seen to; regs.GRANTED: the zone; regs.X: the bucket being given back; regs.Y: a
CPU, or the first page of the slab to unmap next.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators._shared.packed_phase import PHASE_MASK
from kmemexp.sim.allocators._shared.uma_requests import NIL
from kmemexp.sim.allocators.uma import phases, slabs
from kmemexp.sim.allocators.uma.layout import UMA_03, UMA_06
from kmemexp.sim.allocators.uma.moves import bucket_put_back, to_free_bucket, to_zone
from kmemexp.sim.allocators.uma.packets import bucket_drain
from kmemexp.sim.allocators.uma.slabs import fold_allocs, idle_take, keg_of, list_pop, slab_give
from kmemexp.sim.allocators.uma.state import State
from kmemexp.sim.asking import ask_unmap, go_on
from kmemexp.sim.slots import DONE, PAGE_SHIFT, TEND_REAP
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

ALL = 1 << 40


@outlined
def upkeep(st: State, reg: Registers, i: int) -> int:
    """Play one step. Returns its answer."""
    phase = reg[i, regs.PHASE] & PHASE_MASK
    if phase == phases.BEGIN:
        return _begin(st, reg, i)
    z = reg[i, regs.GRANTED]
    if phase == phases.TICK:
        _working_set(st, z)
        return _next(st, reg, i)
    if phase == phases.CPU_BUCKETS:
        return _empty_cpu(st, reg, i, z)
    if phase == phases.LISTS:
        return _empty_lists(st, reg, i, z)
    if phase == phases.FREE_BUCKET:
        bucket_put_back(st, reg, i)
        return to_zone(reg, i, phases.LISTS, z)
    z = keg_of(z)
    if phase == phases.DRAIN:
        return _drain(st, reg, i, z)
    if phase == phases.HEADER:
        slab_give(st, reg, i, wide(st.slab[reg[i, regs.Y], slabs.S_HEADER]) << st.shift)
        return _unmap(st, reg, i, z)
    return _next_slab(st, reg, i, z)


@kernel
def _begin(st: State, reg: Registers, i: int) -> int:
    """See whether buckets may be had: bucket_enable(). From late 2003 on that is all that a tick does."""
    reaping = reg[i, regs.SIZE] == TEND_REAP
    st.low[0] = reaping and st.p.bucketdisable != 0
    if not reaping and st.p.generation >= UMA_03:
        return DONE
    reg[i, regs.ITEM] = 0
    return _zone(st, reg, i)


@kernel
def _next(st: State, reg: Registers, i: int) -> int:
    reg[i, regs.ITEM] += 1
    if reg[i, regs.ITEM] == len(st.zone) - 1 - slabs.PACKET and _is_unused(st, slabs.PACKET):
        reg[i, regs.ITEM] += 1
    return _zone(st, reg, i)


@kernel
def _is_unused(st: State, z: int) -> bool:
    """Whether a zone has no bucket anywhere."""
    for cpu in range(st.cache.shape[1]):
        if st.cache[z, cpu, slabs.ALLOC] != NIL or st.cache[z, cpu, slabs.FREE] != NIL:
            return False
    return st.zone[z, slabs.Z_READY] == NIL and st.zone[z, slabs.Z_EMPTY] == NIL


@outlined
def _zone(st: State, reg: Registers, i: int) -> int:
    """Begin with the next zone: the newest first, and after a reclaim UMA's own ones, the oldest first, once more."""
    zones = len(st.zone)
    n = reg[i, regs.ITEM]
    reaping = reg[i, regs.SIZE] == TEND_REAP
    if n == zones + (slabs.FIRST_CACHED if reaping else 0):
        return DONE
    z = zones - 1 - n if n < zones else n - zones
    reg[i, regs.GRANTED] = z
    if not reaping:
        return to_zone(reg, i, phases.TICK, z)
    if z >= slabs.FIRST_ITEM and st.p.nofree:
        reg[i, regs.ITEM] = zones - slabs.FIRST_ITEM
        reg[i, regs.GRANTED] = z = slabs.FIRST_ITEM - 1
    if z >= slabs.FIRST_CACHED and st.p.generation < UMA_03:
        return _to_cpu(reg, i, 0)
    return to_zone(reg, i, phases.LISTS if z >= slabs.FIRST_CACHED and st.p.generation >= UMA_06 else phases.DRAIN, z)


@kernel
def _to_cpu(reg: Registers, i: int, cpu: int) -> int:
    reg[i, regs.Y] = cpu
    return go_on(reg, i, phases.CPU_BUCKETS, cpu)  # a lock of class 0


@kernel
def _working_set(st: State, z: int) -> None:
    """Count the allocations since the last tick: zone_timeout()."""
    for cpu in range(st.cache.shape[1]):
        fold_allocs(st, z, cpu)
    st.zone[z, slabs.Z_WORKING] = st.zone[z, slabs.Z_ALLOCS] - st.zone[z, slabs.Z_BEFORE]
    st.zone[z, slabs.Z_BEFORE] = st.zone[z, slabs.Z_ALLOCS]


@outlined
def _empty_cpu(st: State, reg: Registers, i: int, z: int) -> int:
    """Give the items of a CPU's buckets back; it keeps the buckets: the beginning of cache_drain()."""
    cpu = reg[i, regs.Y]
    for at in range(slabs.ALLOC, slabs.FREE + 1):
        b = st.cache[z, cpu, at]
        if b != NIL:
            bucket_drain(st, reg, i, b)
    if cpu + 1 < st.cache.shape[1]:
        return _to_cpu(reg, i, cpu + 1)
    return to_zone(reg, i, phases.LISTS, z)


@outlined
def _empty_lists(st: State, reg: Registers, i: int, z: int) -> int:
    """Give the items of the next bucket of the zone's lists back, then the bucket: the rest of it."""
    b = list_pop(st, z, slabs.Z_READY)
    if b == NIL:
        b = list_pop(st, z, slabs.Z_EMPTY)
        if b == NIL:
            return _drain(st, reg, i, keg_of(z))
    bucket_drain(st, reg, i, b)
    reg[i, regs.X] = b
    return to_free_bucket(st, reg, i, phases.LISTS)


@kernel
def spare_slabs(free: int, working: int, items: int) -> int:
    """Count the slabs of `items` items beyond a working set, of `free` items in slabs."""
    return (free - working) // items if free >= working else 0


@outlined
def _drain(st: State, reg: Registers, i: int, z: int) -> int:
    """Take the free slabs out that can be spared, early on as many as the working set does not need: zone_drain()."""
    if st.p.generation >= UMA_03:
        reg[i, regs.Y] = idle_take(st, z, ALL, True)
    else:
        spare = spare_slabs(st.zone[z, slabs.Z_FREE], st.zone[z, slabs.Z_WORKING], st.zone[z, slabs.Z_ITEMS])
        reg[i, regs.Y] = idle_take(st, z, ALL if st.p.eager_release else spare, False)
    return _next_slab(st, reg, i, z)


@kernel
def _next_slab(st: State, reg: Registers, i: int, z: int) -> int:
    if reg[i, regs.Y] == NIL:
        return _next(st, reg, i)
    if st.zone[z, slabs.Z_HEADER] != NIL:
        return to_zone(reg, i, phases.HEADER, st.zone[z, slabs.Z_HEADER])
    return _unmap(st, reg, i, z)


@kernel
def _unmap(st: State, reg: Registers, i: int, z: int) -> int:
    page = reg[i, regs.Y]
    reg[i, regs.Y] = wide(st.slab[page, slabs.S_NEXT])
    reg[i, regs.LOCK] = -1
    return ask_unmap(
        reg, i, phases.UNMAP, st.slab[page, slabs.S_MAP], page << PAGE_SHIFT, st.zone[z, slabs.Z_PAGES] << PAGE_SHIFT
    )
