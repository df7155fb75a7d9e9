"""Allocations of `allocators/uma_today` beyond the fast path: one function for each phase.

The registers are described in `phases`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Registers
from kmemexp.sim.allocators._shared.oversize import enter_large
from kmemexp.sim.allocators._shared.packed_phase import PHASE_MASK
from kmemexp.sim.allocators._shared.uma_requests import NIL, add_cluster, note_next, open_chain, zone_of
from kmemexp.sim.allocators.uma_today import phases, slabs
from kmemexp.sim.allocators.uma_today.frees import begin_free, free_step
from kmemexp.sim.allocators.uma_today.moves import (
    JUMBO_PAGE,
    PACKET,
    bucket_zone,
    empty_bucket,
    enter_list,
    grow,
    grow_further,
    is_chain,
    keg_of,
    own_domain,
    put_away,
    refill,
    then,
    to_flush,
    to_keg,
    to_list,
    to_refill,
    to_section,
    wanted,
)
from kmemexp.sim.allocators.uma_today.packets import attach, fini_step, init_bucket, init_one, mark, uninit
from kmemexp.sim.allocators.uma_today.slabs import (
    bucket_add,
    bucket_count,
    bucket_entries,
    cache_load,
    cache_pop,
    cache_unload,
    list_fetch,
    list_put,
    new_bucket,
    slab_take,
    stack_pop,
    stack_push,
)
from kmemexp.sim.allocators.uma_today.state import State
from kmemexp.sim.asking import ask_wired, hand_out, sleep_on
from kmemexp.sim.slots import DONE, FAILED, ITEM_MBUF, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import flag, regs
from kmemexp.sim.widths import wide


@outlined
def go(st: State, reg: Registers, i: int, freeing: int) -> int:
    """Play one step that the fast path could not. Returns its answer."""
    phase = reg[i, regs.PHASE] & PHASE_MASK
    if phase == phases.SLAB or phase == phases.UNHEADER or phase == phases.HEADER or phase == phases.HEADER_PAGE:
        answer = grow_further(st, reg, i, phase)
        phase = reg[i, regs.PHASE] & PHASE_MASK
        if answer != DONE:
            return answer
    if phases.puts_away(phase):
        return fini_step(st, reg, i, phase) if phase >= phases.FINI else put_away(st, reg, i, phase)
    if phase == phases.UNINIT:
        return uninit(st, reg, i)
    if phase == phases.REFILL:
        return refill(st, reg, i)
    if phase == phases.SLEPT:
        st.zone[wanted(st, reg, i), slabs.Z_SLEEPERS] -= 1
        return _take(st, reg, i)
    if phase == phases.LARGE:
        reg[i, regs.BARE] = 1
        return DONE if freeing else _enter_large(st, reg, i)
    if phase == phases.BEGIN:
        reg[i, regs.X] = NIL
        return begin_free(st, reg, i) if freeing else _begin_alloc(st, reg, i)
    if phase >= phases.FREE_PIECES:
        return free_step(st, reg, i, phase)
    return _alloc_step(st, reg, i, phase)


@kernel
def _enter_large(st: State, reg: Registers, i: int) -> int:
    answer = enter_large(st, reg, i, slabs.S_COUNT)
    if answer == DONE:
        slabs.count_pages(st, reg[i, regs.BYTES] >> PAGE_SHIFT)
    return answer


@kernel
def _alloc_step(st: State, reg: Registers, i: int, phase: int) -> int:
    if phase == phases.PIECES:
        return _pieces(st, reg, i)
    if phase == phases.MISS:
        return _miss(st, reg, i)
    if phase == phases.FETCH:
        return _fetch(st, reg, i)
    if phase == phases.TAKE:
        return _take(st, reg, i)
    if phase == phases.IMPORT:
        return _import(st, reg, i)
    if phase == phases.SINGLE:
        return _single(st, reg, i)
    if phase == phases.ONE:
        return _one(st, reg, i)
    if phase == phases.LOAD:
        return _load(st, reg, i)
    return _put_back(st, reg, i)


@kernel
def _begin_alloc(st: State, reg: Registers, i: int) -> int:
    reg[i, regs.GRANTED] = 0
    if wanted(st, reg, i) == NIL:
        reg[i, regs.BARE] = 1
        return ask_wired(reg, i, phases.LARGE, st.map, (reg[i, regs.SIZE] + PAGE - 1) & -PAGE, PAGE)
    return _pieces(st, reg, i)


@outlined
def _pieces(st: State, reg: Registers, i: int) -> int:
    """Pop as many items as the request needs; on a miss put the empty alloc bucket on the stack: cache_alloc()."""
    z, cpu = wanted(st, reg, i), reg[i, regs.CPU]
    addr = cache_pop(st, z, cpu)
    while addr != NIL:
        nested = reg[i, regs.PHASE] & phases.NESTED
        if _got(st, reg, i, z, addr):
            return DONE
        if nested and not reg[i, regs.PHASE] & phases.NESTED:
            return to_section(reg, i, phases.LOAD)
        z = wanted(st, reg, i)
        addr = cache_pop(st, z, cpu)
    b = cache_unload(st, z, cpu, slabs.ALLOC)
    if b != NIL:
        k = bucket_zone(st, bucket_entries(st, b))
        if stack_push(st, k, cpu, b):
            then(reg, i, phases.MISS)
            return to_flush(st, reg, i, k)
    return _miss(st, reg, i)


@kernel
def _got(st: State, reg: Registers, i: int, z: int, addr: Address) -> bool:
    """Hand an item out, or add it to the chain, or to a packet. True: that was all."""
    if reg[i, regs.PHASE] & phases.NESTED:
        return attach(st, reg, i, addr)
    if is_chain(reg[i, regs.ITEM], reg[i, regs.SIZE]):
        return add_cluster(st, reg, i, addr, st.zone[z, slabs.Z_SIZE])
    hand_out(reg, i, addr, st.zone[z, slabs.Z_SIZE])
    return True


@kernel
def _miss(st: State, reg: Registers, i: int) -> int:
    """Look for a full bucket. The kernel, too, looks at the count without the lock."""
    z, d = wanted(st, reg, i), own_domain(st, reg, i)
    if st.dom[z, d, slabs.D_COUNT] > 0:
        return to_list(st, reg, i, phases.FETCH, z, d)
    return _take(st, reg, i)


@kernel
def _fetch(st: State, reg: Registers, i: int) -> int:
    z, d = wanted(st, reg, i), own_domain(st, reg, i)
    enter_list(st, reg, i, z, d)
    b = list_fetch(st, z, d, False)
    reg[i, regs.Y] = b
    return to_section(reg, i, phases.LOAD if b != NIL else phases.TAKE)


@outlined
def _take(st: State, reg: Registers, i: int) -> int:
    """Take an empty bucket to fill, up to the zone's limit: zone_alloc_bucket(). Word b of it: how many items."""
    z, d, cpu = wanted(st, reg, i), own_domain(st, reg, i), reg[i, regs.CPU]
    entries = st.zone[z, slabs.Z_BUCKET]
    n = entries
    if st.zone[z, slabs.Z_MAX] > 0:
        n = min(n, st.zone[z, slabs.Z_MAX] - st.zone[z, slabs.Z_USED])
    if n > 0:
        k = bucket_zone(st, entries)
        b = stack_pop(st, k, cpu)
        if b == NIL and reg[i, regs.X] != phases.REFUSED:
            return to_refill(st, reg, i, k, d, phases.TAKE)
        reg[i, regs.X] = NIL
        if b != NIL:
            st.zone[z, slabs.Z_USED] += n
            st.word[b] = n
            new_bucket(st, z, k, b)
            reg[i, regs.Y] = b
            return to_keg(st, reg, i, phases.IMPORT, z, d)
    return _one(st, reg, i)


@outlined
def _one(st: State, reg: Registers, i: int) -> int:
    """Ask for a single item: zone_alloc_item(). At the limit sleep, if that may be: zone_alloc_limit_hard()."""
    z, d = wanted(st, reg, i), own_domain(st, reg, i)
    if st.zone[z, slabs.Z_MAX] > 0 and st.zone[z, slabs.Z_USED] >= st.zone[z, slabs.Z_MAX]:
        if reg[i, regs.FLAGS] & flag.NOWAIT:
            return _give_up(st, reg, i)
        st.zone[z, slabs.Z_SLEEPERS] += 1
        to_section(reg, i, phases.SLEPT)
        return sleep_on(reg, i, reg[i, regs.PHASE], 0, z, 0)
    st.zone[z, slabs.Z_USED] += 1
    return to_keg(st, reg, i, phases.SINGLE, z, d)


@kernel
def _import(st: State, reg: Registers, i: int) -> int:
    """Fill the bucket from slabs: zone_import()."""
    z, d, b = wanted(st, reg, i), own_domain(st, reg, i), reg[i, regs.Y]
    keg = keg_of(st, z)
    n = wide(st.word[b])
    have = bucket_count(st, b)
    while have < n:
        addr = slab_take(st, keg, d)
        if addr == NIL:
            if reg[i, regs.X] != phases.REFUSED:
                return grow(st, reg, i, keg, d, phases.IMPORT)
            break
        mark(st, z, addr)
        have = bucket_add(st, b, addr)
        reg[i, regs.WORK] += 1
    reg[i, regs.X] = NIL
    st.zone[z, slabs.Z_USED] -= n - have
    if have == 0:
        then(reg, i, phases.ONE)
        reg[i, regs.BASE] = b
        return to_section(reg, i, phases.DISPOSE)
    if z == PACKET:
        return init_bucket(st, reg, i, b)
    st.word[b] = 1  # new, for LOAD
    return to_section(reg, i, phases.LOAD)


@kernel
def _single(st: State, reg: Registers, i: int) -> int:
    z, d = wanted(st, reg, i), own_domain(st, reg, i)
    addr = slab_take(st, keg_of(st, z), d)
    if addr == NIL:
        if reg[i, regs.X] != phases.REFUSED:
            return grow(st, reg, i, keg_of(st, z), d, phases.SINGLE)
        reg[i, regs.X] = NIL
        st.zone[z, slabs.Z_USED] -= 1
        return _give_up(st, reg, i)
    reg[i, regs.X] = NIL
    if z == PACKET:
        mark(st, z, addr)
        return init_one(reg, i, addr)
    nested = reg[i, regs.PHASE] & phases.NESTED
    if _got(st, reg, i, z, addr):
        return DONE
    ends = nested and not reg[i, regs.PHASE] & phases.NESTED
    return to_section(reg, i, phases.LOAD if ends else phases.PIECES)


@kernel
def _load(st: State, reg: Registers, i: int) -> int:
    """Give the CPU the bucket, unless it has got one meanwhile."""
    z, d, b, cpu = wanted(st, reg, i), own_domain(st, reg, i), reg[i, regs.Y], reg[i, regs.CPU]
    if st.cache[z, cpu, slabs.ALLOC] != NIL:
        return to_list(st, reg, i, phases.PUT_BACK, z, d)
    if st.word[b] != 0:
        st.dom[z, d, slabs.D_IMAX] += bucket_count(st, b)
    cache_load(st, z, cpu, slabs.ALLOC, b)
    return _pieces(st, reg, i)


@kernel
def _put_back(st: State, reg: Registers, i: int) -> int:
    """Put the bucket on the list and begin again; what was new does not count for the working set."""
    z, d, b = wanted(st, reg, i), own_domain(st, reg, i), reg[i, regs.Y]
    enter_list(st, reg, i, z, d)
    if list_put(st, z, d, b, st.word[b] == 0):
        return to_section(reg, i, phases.PIECES)
    return empty_bucket(st, reg, i, b, phases.PIECES)


@kernel
def _give_up(st: State, reg: Registers, i: int) -> int:
    """Fail, and free what a chain has got already; one without a cluster of a page goes on with plain ones.

    Packets that wait for clusters go back, but for those that have one.
    """
    if reg[i, regs.PHASE] & phases.NESTED:
        reg[i, regs.PHASE] &= ~phases.NESTED
        return to_keg(st, reg, i, phases.UNINIT, PACKET, own_domain(st, reg, i))
    if is_chain(reg[i, regs.ITEM], reg[i, regs.SIZE]) and wanted(st, reg, i) == JUMBO_PAGE:
        reg[i, regs.PHASE] |= phases.SMALL
        return to_section(reg, i, phases.PIECES)
    if reg[i, regs.ITEM] != ITEM_MBUF or reg[i, regs.GRANTED] == 0:
        return FAILED
    open_chain(st, reg, i)
    reg[i, regs.PHASE] = phases.GIVING_UP
    note_next(st, reg, i, zone_of(st, reg[i, regs.ADDR]))
    return to_section(reg, i, phases.FREE_PIECES)
