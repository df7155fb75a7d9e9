"""Allocations and frees of `allocators/illumos_kmem` beyond the fast path: which step is which function's."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators._shared.oversize import enter_large, give_large
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
from kmemexp.sim.allocators.illumos_kmem.phases import (
    A_BUFCTL,
    A_CPU,
    A_DEPOT,
    A_ENTER,
    A_HEADER,
    A_MAPPED,
    A_SLAB,
    BEGIN,
    D_BUFCTL,
    D_SLAB,
    F_CPU,
    F_DEPOT,
    F_GIVE,
    F_MAGAZINE,
    F_SLAB,
    FREED,
    HANDED_OUT,
    LARGE,
    PHASE_MASK,
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
from kmemexp.sim.asking import ask_wired
from kmemexp.sim.slots import DONE, F_NOWAIT, PAGE, PAGE_SHIFT, R_ADDR, R_FLAGS, R_GRANTED, R_ITEM, R_PHASE, R_SIZE
from kmemexp.sim.widths import wide


@outlined
def go(st, reg, i, freeing):
    """Play one step that the fast path could not. Returns its answer."""
    phase = reg[i, R_PHASE] & PHASE_MASK
    if phase == BEGIN:
        return _begin_free(st, reg, i) if freeing else _begin_alloc(st, reg, i)
    if phase == LARGE:
        return DONE if freeing else enter_large(st, reg, i, S_PAGES)
    return go_on(st, reg, i, phase)


@outlined
def go_on(st, reg, i, phase):
    """Play one step of the innermost call."""
    if phase <= A_ENTER:
        return _alloc_step(st, reg, i, phase)
    if phase <= F_SLAB:
        return _free_step(st, reg, i, phase)
    if phase == D_BUFCTL:
        return drop_bufctls(st, reg, i)
    if phase == D_SLAB:
        return unmap(st, reg, i, cache(reg, i), reg[i, R_GRANTED])
    return finish(st, reg, i, NIL)


@kernel
def _alloc_step(st, reg, i, phase):
    if phase == A_CPU:
        return alloc_cpu(st, reg, i)
    if phase == A_DEPOT:
        return alloc_depot(st, reg, i)
    if phase == A_SLAB:
        return alloc_slab(st, reg, i)
    if phase == A_MAPPED:
        return alloc_mapped(st, reg, i)
    if phase == A_HEADER:
        return alloc_header(st, reg, i)
    if phase == A_BUFCTL:
        return alloc_bufctl(st, reg, i)
    slab_enter(st, cache(reg, i), reg[i, R_GRANTED])
    return finish(st, reg, i, slab_take(st, cache(reg, i), reg[i, R_GRANTED]))


@kernel
def _free_step(st, reg, i, phase):
    if phase == F_CPU:
        return free_cpu(st, reg, i)
    if phase == F_DEPOT:
        return free_depot(st, reg, i)
    if phase == F_MAGAZINE:
        return free_magazine(st, reg, i)
    if phase == F_GIVE:
        return free_give(st, reg, i)
    page = slab_give(st, cache(reg, i), buffer(reg, i))
    return finish(st, reg, i, NIL) if page == NIL else destroy(st, reg, i, cache(reg, i), page)


@kernel
def wanted(st, reg, i):
    """Cache that a request is served from; NIL: it is oversize."""
    item, size = reg[i, R_ITEM], reg[i, R_SIZE]
    if item >= 0:
        return st.first_item + item
    if size <= PAGE:
        return wide(st.small_cache[(size + 7) >> 3])
    return wide(st.big_cache[(size + PAGE - 1) >> PAGE_SHIFT]) if size <= st.max_cached else NIL


@kernel
def _begin_alloc(st, reg, i):
    k = wanted(st, reg, i)
    if k == NIL:
        return ask_wired(reg, i, LARGE, st.map, (reg[i, R_SIZE] + PAGE - 1) & -PAGE, PAGE)
    call(reg, i, k, NIL, HANDED_OUT)
    return alloc_missed(st, reg, i, k)


@kernel
def _begin_free(st, reg, i):
    b = reg[i, R_ADDR] >> WORD_SHIFT
    k = cache_of(st, b)
    if k == NIL:
        return give_large(st, reg, i, LARGE, S_PAGES)
    reg[i, R_FLAGS] |= F_NOWAIT  # of a magazine, should one be needed
    call(reg, i, k, b, FREED)
    return free_missed(st, reg, i, k)
