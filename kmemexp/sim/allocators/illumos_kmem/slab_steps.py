"""Steps of `allocators/illumos_kmem` that take from a slab, make one or give one back: one function for each phase."""

from kmemexp.jit import kernel
from kmemexp.sim.allocators.illumos_kmem.calls import buffer, cache, call, finish, note, to_cache, to_cpu
from kmemexp.sim.allocators.illumos_kmem.magazine_steps import alloc_cpu, alloc_missed, free_missed
from kmemexp.sim.allocators.illumos_kmem.magazines import cpu_pop, cpu_push
from kmemexp.sim.allocators.illumos_kmem.phases import (
    A_BUFCTL,
    A_ENTER,
    A_HEADER,
    A_MAPPED,
    D_BUFCTL,
    D_MAPPED,
    D_SLAB,
    PHASE_MASK,
)
from kmemexp.sim.allocators.illumos_kmem.slabs import (
    BUFCTL_CACHE,
    K_ALIGN,
    K_COLOR,
    K_HASHED,
    K_MAXCOLOR,
    K_SLAB,
    NIL,
    S_CHUNKS,
    S_HEAD,
    S_HEADER,
    SLAB_CACHE,
    free_pop,
    slab_add,
    slab_begin,
    slab_end,
    slab_enter,
    slab_forget,
    slab_next,
    slab_take,
)
from kmemexp.sim.asking import ask_unmap, ask_wired
from kmemexp.sim.slots import PAGE, PAGE_SHIFT, R_BASE, R_CPU, R_GRANTED, R_PHASE, R_WORK
from kmemexp.sim.widths import wide


@kernel
def alloc_slab(st, reg, i):
    """Take a buffer of the first partial slab, or ask for a new slab: kmem_slab_alloc()."""
    k = cache(reg, i)
    page = slab_end(st, k, 0)
    if page != NIL:
        return finish(st, reg, i, slab_take(st, k, page))
    colour = st.cache[k, K_COLOR] + st.cache[k, K_ALIGN]
    if colour > st.cache[k, K_MAXCOLOR]:
        colour = 0
    st.cache[k, K_COLOR] = colour
    note(reg, i, colour)
    if st.cache[k, K_HASHED]:
        to_cpu(reg, i, A_MAPPED)
    else:
        to_cache(reg, i, A_MAPPED, k)
    return ask_wired(reg, i, reg[i, R_PHASE], st.map, st.cache[k, K_SLAB], PAGE)


@kernel
def alloc_mapped(st, reg, i):
    """Lay the new slab out: kmem_slab_create()."""
    if reg[i, R_BASE] < 0:
        return finish(st, reg, i, NIL)
    k, page = cache(reg, i), reg[i, R_BASE] >> PAGE_SHIFT
    slab_begin(st, k, page, buffer(reg, i))
    if st.cache[k, K_HASHED]:
        reg[i, R_GRANTED] = page
        call(reg, i, SLAB_CACHE, NIL, A_HEADER)
        return alloc_cpu(st, reg, i)
    b = slab_next(st, k, page)
    while b != NIL:
        slab_add(st, page, b)
        b = slab_next(st, k, page)
    reg[i, R_WORK] += wide(st.slab[page, S_CHUNKS]) - 1
    slab_enter(st, k, page)
    return finish(st, reg, i, slab_take(st, k, page))


@kernel
def alloc_header(st, reg, i):
    page = reg[i, R_GRANTED]
    if reg[i, R_BASE] == NIL:
        return unmap(st, reg, i, cache(reg, i), page)
    st.slab[page, S_HEADER] = reg[i, R_BASE]
    return _add_bufctls(st, reg, i, page)


@kernel
def alloc_bufctl(st, reg, i):
    page = reg[i, R_GRANTED]
    if reg[i, R_BASE] == NIL:
        return drop_bufctls(st, reg, i)
    _add_bufctl(st, cache(reg, i), page, reg[i, R_BASE])
    return _add_bufctls(st, reg, i, page)


@kernel
def _add_bufctl(st, k, page, bufctl):
    b = slab_next(st, k, page)
    slab_add(st, page, b)
    st.word[b + 1] = bufctl


@kernel
def _add_bufctls(st, reg, i, page):
    """Give the buffers of a hashed slab their bufctls, as far as the CPU's magazines last."""
    k, cpu = cache(reg, i), reg[i, R_CPU]
    while slab_next(st, k, page) != NIL:
        bufctl = cpu_pop(st, BUFCTL_CACHE, cpu)
        if bufctl == NIL:
            call(reg, i, BUFCTL_CACHE, NIL, A_BUFCTL)
            return alloc_missed(st, reg, i, BUFCTL_CACHE)
        _add_bufctl(st, k, page, bufctl)
        reg[i, R_WORK] += 1
    return to_cache(reg, i, A_ENTER, k)


@kernel
def destroy(st, reg, i, k, page):
    """Begin to give back what a slab is made of; ends the innermost call."""
    if not st.cache[k, K_HASHED]:
        return unmap(st, reg, i, k, page)
    reg[i, R_GRANTED] = page
    return to_cpu(reg, i, D_BUFCTL)


@kernel
def drop_bufctls(st, reg, i):
    """Free a slab's bufctls, then its kmem_slab_t, as far as the CPU's magazines have room."""
    page, cpu = reg[i, R_GRANTED], reg[i, R_CPU]
    while st.slab[page, S_HEAD] != NIL:
        bufctl = wide(st.word[free_pop(st, page) + 1])
        if not cpu_push(st, BUFCTL_CACHE, cpu, bufctl):
            call(reg, i, BUFCTL_CACHE, bufctl, D_BUFCTL)
            return free_missed(st, reg, i, BUFCTL_CACHE)
        reg[i, R_WORK] += 1
    header = wide(st.slab[page, S_HEADER])
    if not cpu_push(st, SLAB_CACHE, cpu, header):
        call(reg, i, SLAB_CACHE, header, D_SLAB)
        return free_missed(st, reg, i, SLAB_CACHE)
    return unmap(st, reg, i, cache(reg, i), page)


@kernel
def unmap(st, reg, i, k, page):
    """Give a slab's pages back to the map."""
    slab_forget(st, k, page)
    phase = (reg[i, R_PHASE] & ~PHASE_MASK) | D_MAPPED
    return ask_unmap(reg, i, phase, st.map, page << PAGE_SHIFT, st.cache[k, K_SLAB])
