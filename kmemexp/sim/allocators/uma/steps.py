"""Allocations of `allocators/uma` beyond the fast path, and what comes in which phase.

The registers are described in `phases`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Registers
from kmemexp.sim.allocators._shared.packed_phase import PHASE_MASK, field
from kmemexp.sim.allocators._shared.uma_requests import NIL, add_cluster, note_next, open_chain
from kmemexp.sim.allocators.uma import phases, slabs
from kmemexp.sim.allocators.uma.frees import begin_free, free_step
from kmemexp.sim.allocators.uma.layout import BUCKET_MAX, BUCKET_SIZE, UMA_03
from kmemexp.sim.allocators.uma.moves import (
    bucket_put_back,
    bucket_zone,
    grow,
    internal,
    may_grow,
    may_sleep,
    new_slab,
    note_refusal,
    to_cpu,
    to_free_bucket,
    to_internal,
    to_single,
    to_sleep,
    to_zone,
    wanted,
)
from kmemexp.sim.allocators.uma.packets import attach, init_bucket, init_one, inited, mark
from kmemexp.sim.allocators.uma.slabs import (
    bucket_add,
    bucket_count,
    cache_pop,
    fold_allocs,
    keg_of,
    list_pop,
    list_push,
    slab_give,
    slab_take,
    zone_at,
)
from kmemexp.sim.allocators.uma.state import State
from kmemexp.sim.asking import hand_out
from kmemexp.sim.network import MCLBYTES
from kmemexp.sim.slots import DONE, FAILED, ITEM_PACKET, PAGE_SHIFT
from kmemexp.sim.tables import panics, regs
from kmemexp.sim.widths import wide


@outlined
def go(st: State, reg: Registers, i: int, freeing: int) -> int:
    """Play one step that the fast path could not. Returns its answer."""
    phase = reg[i, regs.PHASE] & PHASE_MASK
    if phase == phases.BEGIN:
        reg[i, regs.X] = NIL
        reg[i, regs.Y] = NIL
        return begin_free(st, reg, i) if freeing else _begin_alloc(st, reg, i)
    if phase == phases.INITED:
        return inited(st, reg, i)
    if phase == phases.LARGE or phase == phases.LARGE_UNHEADER:
        return _large_mapped(st, reg, i) if phase == phases.LARGE else _large_gone(st, reg, i, freeing)
    freeing = freeing or reg[i, regs.PHASE] & phases.GIVING_UP != 0
    z = zone_at(st, reg[i, regs.ADDR]) if freeing else wanted(st, reg, i)
    if phase == phases.INTERNAL or phase == phases.INTERNAL_PAGE:
        return internal(st, reg, i, z, freeing, phase)
    if phase == phases.FREE_BUCKET:
        bucket_put_back(st, reg, i)
        return to_zone(reg, i, field(reg, i, phases.BACK_SHIFT), z)
    if phase >= phases.FREE_RETRY:
        return free_step(st, reg, i, z, phase)
    if phase == phases.RETRY:
        return _pieces(st, reg, i, z)
    if phase == phases.MISS:
        return _miss(st, reg, i, z)
    if phase == phases.UNHEADER:
        slab_give(st, reg, i, reg[i, regs.Y])
        reg[i, regs.Y] = NIL
        return to_zone(reg, i, field(reg, i, phases.BACK_SHIFT), z)
    if phase == phases.SLAB:
        if not new_slab(st, reg, i, keg_of(z)):
            return to_zone(reg, i, phases.UNHEADER, st.zone[keg_of(z), slabs.Z_HEADER])
        phase = field(reg, i, phases.BACK_SHIFT)
    return _fill(st, reg, i, z) if phase == phases.FILL else _single(st, reg, i, z)


@kernel
def _begin_alloc(st: State, reg: Registers, i: int) -> int:
    reg[i, regs.GRANTED] = 0
    z = wanted(st, reg, i)
    if z == NIL:
        return to_internal(reg, i, slabs.SLABS, phases.LARGE)
    return _pieces(st, reg, i, z)


@outlined
def _pieces(st: State, reg: Registers, i: int, z: int) -> int:
    """Take as many items from the CPU's buckets as the request needs."""
    if reg[i, regs.PANIC] != panics.NONE:
        return _give_up(st, reg, i)
    nested = reg[i, regs.PHASE] & phases.NESTED
    addr = cache_pop(st, z, reg[i, regs.CPU])
    while addr != NIL:
        if _got(st, reg, i, z, addr):
            return DONE
        if nested and not reg[i, regs.PHASE] & phases.NESTED:
            return to_zone(reg, i, phases.INITED, slabs.PACKET)
        addr = cache_pop(st, z, reg[i, regs.CPU])
    return to_zone(reg, i, phases.MISS, z)


@kernel
def _got(st: State, reg: Registers, i: int, z: int, addr: Address) -> bool:
    """Hand an item out, or add it to the chain, or to a packet. True: that was all."""
    if reg[i, regs.PHASE] & phases.NESTED:
        return attach(st, reg, i, addr)
    if z == slabs.CLUSTER and reg[i, regs.SIZE] > MCLBYTES:
        if reg[i, regs.GRANTED] > 0:
            reg[i, regs.WORK] += 1
        return add_cluster(st, reg, i, addr, MCLBYTES)
    hand_out(reg, i, addr, st.zone[z, slabs.Z_SIZE])
    return True


@kernel
def _further(st: State, reg: Registers, i: int, z: int, addr: Address) -> int:
    """Go on with an item: end, or get the next one of a chain or the next cluster of a bucket of packets."""
    nested = reg[i, regs.PHASE] & phases.NESTED
    if _got(st, reg, i, z, addr):
        return DONE
    if nested and not reg[i, regs.PHASE] & phases.NESTED:
        return to_zone(reg, i, phases.INITED, slabs.PACKET)
    return to_cpu(reg, i, phases.RETRY)


@outlined
def _miss(st: State, reg: Registers, i: int, z: int) -> int:
    """Give the CPU a bucket from the zone's list; without one, look for one to fill: uma_zalloc_arg()."""
    cpu = reg[i, regs.CPU]
    addr = cache_pop(st, z, cpu)  # somebody else of this CPU has been here
    if addr == NIL:
        fold_allocs(st, z, cpu)
        empty = st.cache[z, cpu, slabs.ALLOC]
        if empty != NIL:
            list_push(st, z, slabs.Z_EMPTY, empty)
        st.cache[z, cpu, slabs.ALLOC] = list_pop(st, z, slabs.Z_READY)
        addr = cache_pop(st, z, cpu)
    if addr != NIL:
        return _further(st, reg, i, z, addr)
    if st.zone[z, slabs.Z_COUNT] < (BUCKET_MAX if st.p.generation >= UMA_03 else BUCKET_SIZE):
        st.zone[z, slabs.Z_COUNT] += 1
    reg[i, regs.X] = list_pop(st, z, slabs.Z_EMPTY)
    if reg[i, regs.X] == NIL:
        if st.low[0]:
            return to_single(reg, i, z)
        return to_internal(reg, i, bucket_zone(st, st.zone[z, slabs.Z_COUNT]), phases.FILL)
    if st.p.generation >= UMA_03:
        return _fill(st, reg, i, z)
    return to_zone(reg, i, phases.FILL, z)


@outlined
def _fill(st: State, reg: Registers, i: int, z: int) -> int:
    """Fill the bucket in hand from slabs and put it on the zone's list: uma_zalloc_bucket()."""
    b = reg[i, regs.X]
    if not reg[i, regs.PHASE] & phases.FILLING:
        if st.zone[z, slabs.Z_FILLS] >= st.cache.shape[1]:
            return to_free_bucket(st, reg, i, phases.SINGLE)
        st.zone[z, slabs.Z_FILLS] += 1
        reg[i, regs.PHASE] |= phases.FILLING
    most = min(wide(st.word[b + slabs.B_ENTRIES]), st.zone[z, slabs.Z_COUNT])
    while bucket_count(st, b) < most:
        addr = slab_take(st, keg_of(z))
        if addr == NIL:
            if not may_grow(st, reg, i, keg_of(z)):
                if bucket_count(st, b) == 0 and may_sleep(st, reg, i, keg_of(z)):
                    return to_sleep(reg, i, phases.FILL, z)
                break
            return grow(st, reg, i, keg_of(z), phases.FILL)
        mark(st, z, addr)
        bucket_add(st, b, addr)
        reg[i, regs.WORK] += 1
    if z == slabs.PACKET and bucket_count(st, b) > 0:
        return init_bucket(st, reg, i, b)
    st.zone[z, slabs.Z_FILLS] -= 1
    reg[i, regs.PHASE] &= ~phases.FILLING
    if bucket_count(st, b) == 0:
        return to_free_bucket(st, reg, i, phases.SINGLE)
    list_push(st, z, slabs.Z_READY, b)
    reg[i, regs.X] = NIL
    return to_cpu(reg, i, phases.RETRY)


@outlined
def _single(st: State, reg: Registers, i: int, z: int) -> int:
    """Take one item from a slab: uma_zalloc_internal()."""
    if reg[i, regs.PANIC] != panics.NONE:
        return _give_up(st, reg, i)
    keg = keg_of(z)
    addr = slab_take(st, keg)
    if addr == NIL:
        if may_grow(st, reg, i, keg):
            return grow(st, reg, i, keg, phases.SINGLE)
        return to_sleep(reg, i, phases.SINGLE, z) if may_sleep(st, reg, i, keg) else _give_up(st, reg, i)
    st.zone[z, slabs.Z_ALLOCS] += 1
    if z == slabs.PACKET:
        mark(st, z, addr)
        return init_one(reg, i, addr)
    return _further(st, reg, i, z, addr)


@kernel
def _large_mapped(st: State, reg: Registers, i: int) -> int:
    """Note the pages of a large malloc: uma_large_malloc()."""
    base = reg[i, regs.BASE]
    if base < 0:
        note_refusal(st, reg, i, False)
        return to_zone(reg, i, phases.LARGE_UNHEADER, slabs.SLABS)
    page = base >> PAGE_SHIFT
    pages = reg[i, regs.BYTES] >> PAGE_SHIFT
    st.slab[page, slabs.S_COUNT] = pages
    st.slab[page, slabs.S_HEADER] = reg[i, regs.Y] >> st.shift
    st.slab[page, slabs.S_MAP] = reg[i, regs.MAP]
    st.large[0] += pages
    return hand_out(reg, i, base, reg[i, regs.BYTES])


@kernel
def _large_gone(st: State, reg: Registers, i: int, freeing: int) -> int:
    """Give the header of a large malloc back after its pages: uma_large_free()."""
    slab_give(st, reg, i, reg[i, regs.Y])
    return DONE if freeing else FAILED


@outlined
def _give_up(st: State, reg: Registers, i: int) -> int:
    """Fail, and free what a chain has got already; packets without a cluster go back."""
    if reg[i, regs.PHASE] & phases.NESTED:
        reg[i, regs.PHASE] &= ~phases.NESTED
        return to_zone(reg, i, phases.INITED, slabs.PACKET)
    if reg[i, regs.ITEM] == ITEM_PACKET or reg[i, regs.GRANTED] == 0:
        return FAILED
    open_chain(st, reg, i)
    reg[i, regs.PHASE] |= phases.GIVING_UP
    note_next(st, reg, i, slabs.CLUSTER)
    return to_cpu(reg, i, phases.FREE_RETRY)
