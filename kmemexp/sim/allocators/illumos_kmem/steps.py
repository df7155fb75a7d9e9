"""Allocations and frees of `allocators/illumos_kmem` beyond the fast path: which step is which function's."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Bytes, Registers
from kmemexp.sim.allocators._shared.oversize import enter_large, give_large
from kmemexp.sim.allocators.illumos_kmem import phases
from kmemexp.sim.allocators.illumos_kmem.calls import buffer, cache, call, finish
from kmemexp.sim.allocators.illumos_kmem.magazine_steps import (
    alloc_cpu,
    alloc_depot,
    alloc_missed,
    free_cpu,
    free_depot,
    free_give,
    free_magazine,
    free_missed,
)
from kmemexp.sim.allocators.illumos_kmem.slab_steps import (
    alloc_bufctl,
    alloc_header,
    alloc_mapped,
    alloc_slab,
    destroy,
    drop_bufctls,
    unmap,
)
from kmemexp.sim.allocators.illumos_kmem.slabs import (
    NIL,
    S_PAGES,
    WORD_SHIFT,
    cache_of,
    slab_enter,
    slab_give,
    slab_take,
)
from kmemexp.sim.allocators.illumos_kmem.state import State
from kmemexp.sim.asking import ask_wired
from kmemexp.sim.slots import ATTR_OVERSIZE, DONE, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import flag, regs
from kmemexp.sim.widths import wide


@outlined
def go(st: State, reg: Registers, i: int, freeing: int) -> int:
    """Play one step that the fast path could not. Returns its answer."""
    phase = reg[i, regs.PHASE] & phases.PHASE_MASK
    if phase == phases.BEGIN:
        return _begin_free(st, reg, i) if freeing else _begin_alloc(st, reg, i)
    if phase == phases.LARGE:
        return DONE if freeing else enter_large(st, reg, i, S_PAGES)
    return go_on(st, reg, i, phase)


@outlined
def go_on(st: State, reg: Registers, i: int, phase: int) -> int:
    """Play one step of the innermost call."""
    if phase <= phases.A_ENTER:
        return _alloc_step(st, reg, i, phase)
    if phase <= phases.F_SLAB:
        return _free_step(st, reg, i, phase)
    if phase == phases.UNMAKE_BUFCTL:
        return drop_bufctls(st, reg, i)
    if phase == phases.UNMAKE_SLAB:
        return unmap(st, reg, i, cache(reg, i), reg[i, regs.GRANTED])
    return finish(st, reg, i, NIL)


@kernel
def _alloc_step(st: State, reg: Registers, i: int, phase: int) -> int:
    if phase == phases.A_CPU:
        return alloc_cpu(st, reg, i)
    if phase == phases.A_DEPOT:
        return alloc_depot(st, reg, i)
    if phase == phases.A_SLAB:
        return alloc_slab(st, reg, i)
    if phase == phases.A_MAPPED:
        return alloc_mapped(st, reg, i)
    if phase == phases.A_HEADER:
        return alloc_header(st, reg, i)
    if phase == phases.A_BUFCTL:
        return alloc_bufctl(st, reg, i)
    slab_enter(st, cache(reg, i), reg[i, regs.GRANTED])
    return finish(st, reg, i, slab_take(st, cache(reg, i), reg[i, regs.GRANTED]))


@kernel
def _free_step(st: State, reg: Registers, i: int, phase: int) -> int:
    if phase == phases.F_CPU:
        return free_cpu(st, reg, i)
    if phase == phases.F_DEPOT:
        return free_depot(st, reg, i)
    if phase == phases.F_MAGAZINE:
        return free_magazine(st, reg, i)
    if phase == phases.F_GIVE:
        return free_give(st, reg, i)
    page = slab_give(st, cache(reg, i), buffer(reg, i))
    return finish(st, reg, i, NIL) if page == NIL else destroy(st, reg, i, cache(reg, i), page)


@kernel
def wanted(st: State, item: int, size: Bytes) -> int:
    """Cache that a request is served from; NIL: it is oversize."""
    if item >= 0:
        return st.first_item + item
    if size <= PAGE:
        return wide(st.small_cache[(size + 7) >> 3])
    return wide(st.big_cache[(size + PAGE - 1) >> PAGE_SHIFT]) if size <= st.max_cached else NIL


@kernel
def _begin_alloc(st: State, reg: Registers, i: int) -> int:
    k = wanted(st, reg[i, regs.ITEM], reg[i, regs.SIZE])
    if k == NIL:
        answer = ask_wired(reg, i, phases.LARGE, st.map, (reg[i, regs.SIZE] + PAGE - 1) & -PAGE, PAGE)
        reg[i, regs.ATTR] |= ATTR_OVERSIZE
        return answer
    call(reg, i, k, NIL, phases.HANDED_OUT)
    return alloc_missed(st, reg, i, k)


@kernel
def _begin_free(st: State, reg: Registers, i: int) -> int:
    b = reg[i, regs.ADDR] >> WORD_SHIFT
    k = cache_of(st, b)
    if k == NIL:
        return give_large(st, reg, i, phases.LARGE, S_PAGES)
    reg[i, regs.FLAGS] |= flag.NOWAIT  # of a magazine, should one be needed
    call(reg, i, k, b, phases.FREED)
    return free_missed(st, reg, i, k)
