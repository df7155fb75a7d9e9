"""Frees of `allocators/uma_today` beyond the fast path: one function for each phase.

The registers are described in `phases`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators._shared.oversize import give_large
from kmemexp.sim.allocators._shared.uma_requests import CLUSTER_SHIFT, NIL, next_piece, note_next, zone_of
from kmemexp.sim.allocators.uma_today import phases, slabs
from kmemexp.sim.allocators.uma_today.moves import (
    MSHIFT,
    NO_PACKET,
    PACKET,
    bucket_zone,
    domain_at,
    empty_bucket,
    enter_list,
    to_cross,
    to_list,
    to_refill,
    to_section,
    unstack,
    zone_at,
)
from kmemexp.sim.allocators.uma_today.packets import drain, drains, fini_one, to_slab
from kmemexp.sim.allocators.uma_today.slabs import (
    bucket_add,
    bucket_count,
    bucket_entries,
    cache_load,
    cache_push,
    cache_unload,
    item_at,
    list_put,
    new_bucket,
    slab_give,
    stack_pop,
)
from kmemexp.sim.allocators.uma_today.state import State
from kmemexp.sim.asking import let_go
from kmemexp.sim.slots import DONE, FAILED, PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide


@kernel
def free_step(st: State, reg: Registers, i: int, phase: int) -> int:
    if phase == phases.FREE_PIECES:
        return _free_pieces(st, reg, i, False)
    if phase == phases.PUT:
        return _put(st, reg, i)
    if phase == phases.RELOAD:
        return _free_pieces(st, reg, i, True)
    if phase == phases.FREE_ITEM:
        return _free_item(st, reg, i)
    if phase == phases.SORT:
        return _sort(st, reg, i)
    if phase == phases.SORTED:
        return _sorted(st, reg, i)
    if phase == phases.FINI_ONE:
        return fini_one(st, reg, i)
    if phase >= phases.DRAIN:
        answer = drain(st, reg, i, phase)
        return _free_pieces(st, reg, i, False) if answer == NIL else answer
    return _put_sorted(st, reg, i)


@kernel
def begin_free(st: State, reg: Registers, i: int) -> int:
    if zone_at(st, reg[i, regs.ADDR]) == NIL:
        reg[i, regs.BARE] = 1
        answer = give_large(st, reg, i, phases.LARGE, slabs.S_COUNT)
        slabs.count_pages(st, -(reg[i, regs.BYTES] >> PAGE_SHIFT))
        return answer
    note_next(st, reg, i, zone_of(st, reg[i, regs.ADDR]))
    if drains(st, reg[i, regs.ADDR]):
        return to_section(reg, i, phases.DRAIN)
    return _free_pieces(st, reg, i, False)


@kernel
def next_one(st: State, reg: Registers, i: int) -> bool:
    """Go on to the next cluster of a chain, of whichever size. False: there is none."""
    n = reg[i, regs.GRANTED]
    return n > 0 and next_piece(st, reg, i, zone_of(st, (n - 1) << CLUSTER_SHIFT))


@kernel
def _freed(reg: Registers, i: int) -> int:
    return FAILED if reg[i, regs.PHASE] & phases.GIVING_UP else DONE


@outlined
def _free_pieces(st: State, reg: Registers, i: int, reload: int) -> int:
    """Put items into the CPU's buckets; where these are full, put the full one away: cache_free()."""
    cpu = reg[i, regs.CPU]
    while True:
        addr = reg[i, regs.ADDR]
        z, d = zone_at(st, addr), domain_at(st, addr)
        cross = d != st.domain_of[cpu]
        if reload and not _reload(st, reg, i, z, cross):
            if reg[i, regs.X] != phases.REFUSED:
                k = bucket_zone(st, st.zone[z, slabs.Z_BUCKET])
                return to_refill(st, reg, i, k, st.domain_of[cpu], phases.RELOAD)
            reg[i, regs.X] = NIL
            return to_slab(st, reg, i, z, d)
        reload = False
        if st.zone[z, slabs.Z_SLEEPERS]:
            return to_slab(st, reg, i, z, d)
        if cache_push(st, z, cpu, addr, cross):
            if not next_one(st, reg, i):
                return _freed(reg, i)
            continue
        if st.zone[z, slabs.Z_BUCKET] == 0:
            return to_slab(st, reg, i, z, d)
        b = cache_unload(st, z, cpu, slabs.CROSS if cross else slabs.FREE)
        reg[i, regs.Y] = b
        if b == NIL:
            reload = True
        elif cross and st.domains > 2:
            return to_cross(reg, i, phases.SORT, z)
        else:
            return to_list(st, reg, i, phases.PUT, z, d)


@kernel
def _reload(st: State, reg: Registers, i: int, z: int, cross: int) -> bool:
    """Give the CPU an empty bucket for what it frees. False: its stack has none."""
    cpu = reg[i, regs.CPU]
    k = bucket_zone(st, st.zone[z, slabs.Z_BUCKET])
    at = slabs.CROSS if cross and st.cache[z, cpu, slabs.CROSS] == NIL else slabs.FREE
    if st.cache[z, cpu, at] != NIL:  # somebody else was faster
        return True
    b = stack_pop(st, k, cpu)
    if b == NIL:
        return False
    reg[i, regs.X] = NIL
    new_bucket(st, z, k, b)
    cache_load(st, z, cpu, at, b)
    return True


@kernel
def _put(st: State, reg: Registers, i: int) -> int:
    """Put a full bucket on the list of its items' domain: zone_free_bucket()."""
    z, d, b = zone_at(st, reg[i, regs.ADDR]), domain_at(st, reg[i, regs.ADDR]), reg[i, regs.Y]
    enter_list(st, reg, i, z, d)
    if list_put(st, z, d, b, True):
        return to_section(reg, i, phases.RELOAD)
    return empty_bucket(st, reg, i, b, phases.RELOAD)


@kernel
def _free_item(st: State, reg: Registers, i: int) -> int:
    """Give a single item back to its slab: zone_free_item()."""
    z = zone_at(st, reg[i, regs.ADDR])
    st.zone[z, slabs.Z_USED] -= 1
    if z == PACKET:
        st.ext[reg[i, regs.ADDR] >> MSHIFT] = NO_PACKET
    else:
        let_go(reg, i, z, 1)
    slab_give(st, reg, i, reg[i, regs.ADDR])
    if st.zone[z, slabs.Z_STACK]:
        reg[i, regs.TARGET] = NIL
        return unstack(st, reg, i)
    return to_section(reg, i, phases.FREE_PIECES) if next_one(st, reg, i) else _freed(reg, i)


@kernel
def _sort(st: State, reg: Registers, i: int) -> int:
    """Sort a cross bucket into those of its items' domains: zone_free_cross(). Full ones hang on word b."""
    b, cpu = reg[i, regs.Y], reg[i, regs.CPU]
    count = bucket_count(st, b)
    while count > 0:
        addr = item_at(st, b, count - 1)
        z, d = zone_at(st, addr), domain_at(st, addr)
        to = st.dom[z, d, slabs.D_CROSS]
        if to == NIL:
            k = bucket_zone(st, st.zone[z, slabs.Z_BUCKET])
            to = stack_pop(st, k, cpu)
            if to == NIL:
                if reg[i, regs.X] != phases.REFUSED:
                    return to_refill(st, reg, i, k, st.domain_of[cpu], phases.SORT)
                break
            new_bucket(st, z, k, to)
            st.dom[z, d, slabs.D_CROSS] = to
        count -= 1
        st.word[b + 1] = wide(st.word[b + 1]) - 1
        reg[i, regs.WORK] += 1
        if bucket_add(st, to, addr) == bucket_entries(st, to):
            st.dom[z, d, slabs.D_CROSS] = NIL
            st.word[to] = st.word[b]
            st.word[b] = to + 1
    reg[i, regs.X] = NIL
    return to_section(reg, i, phases.SORTED)


@kernel
def _sorted(st: State, reg: Registers, i: int) -> int:
    """Put what has become full on the lists, then put the sorted bucket away."""
    b = reg[i, regs.Y]
    full = wide(st.word[b]) - 1
    if full == NIL:
        return empty_bucket(st, reg, i, b, phases.RELOAD)
    addr = item_at(st, full, 0)
    return to_list(st, reg, i, phases.PUT_SORTED, zone_at(st, addr), domain_at(st, addr))


@kernel
def _put_sorted(st: State, reg: Registers, i: int) -> int:
    b = reg[i, regs.Y]
    full = wide(st.word[b]) - 1
    z, d = zone_at(st, item_at(st, full, 0)), domain_at(st, item_at(st, full, 0))
    enter_list(st, reg, i, z, d)
    st.word[b] = st.word[full]
    if list_put(st, z, d, full, True):
        return to_section(reg, i, phases.SORTED)
    return empty_bucket(st, reg, i, full, phases.SORTED)
