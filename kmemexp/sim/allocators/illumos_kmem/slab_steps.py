"""Steps of `allocators/illumos_kmem` that take from a slab, make one or give one back: one function for each phase."""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.illumos_kmem import phases, slabs
from kmemexp.sim.allocators.illumos_kmem.calls import buffer, cache, call, finish, note, to_cache, to_cpu
from kmemexp.sim.allocators.illumos_kmem.magazine_steps import alloc_cpu, alloc_missed, free_missed
from kmemexp.sim.allocators.illumos_kmem.magazines import cpu_pop, cpu_push
from kmemexp.sim.allocators.illumos_kmem.slabs import (
    free_pop,
    noted,
    slab_add,
    slab_begin,
    slab_end,
    slab_enter,
    slab_forget,
    slab_next,
    slab_take,
)
from kmemexp.sim.allocators.illumos_kmem.state import State
from kmemexp.sim.asking import ask_unmap, ask_wired
from kmemexp.sim.slots import ATTR_METADATA, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide


@kernel
def alloc_slab(st: State, reg: Registers, i: int) -> int:
    """Take a buffer of the first partial slab, or ask for a new slab: kmem_slab_alloc()."""
    k = cache(reg, i)
    page = slab_end(st, k, 0)
    if page != slabs.NIL:
        return finish(st, reg, i, slab_take(st, k, page))
    colour = st.cache[k, slabs.K_COLOR] + st.cache[k, slabs.K_ALIGN]
    if colour > st.cache[k, slabs.K_MAXCOLOR]:
        colour = 0
    st.cache[k, slabs.K_COLOR] = colour
    note(reg, i, colour)
    if st.cache[k, slabs.K_HASHED]:
        to_cpu(reg, i, phases.A_MAPPED)
    else:
        to_cache(reg, i, phases.A_MAPPED, k)
    answer = ask_wired(reg, i, reg[i, regs.PHASE], st.map, st.cache[k, slabs.K_SLAB], PAGE)
    if k < slabs.FIRST_ALLOC:
        reg[i, regs.ATTR] |= ATTR_METADATA
    return answer


@kernel
def alloc_mapped(st: State, reg: Registers, i: int) -> int:
    """Lay the new slab out: kmem_slab_create()."""
    if reg[i, regs.BASE] < 0:
        return finish(st, reg, i, slabs.NIL)
    k, page = cache(reg, i), reg[i, regs.BASE] >> PAGE_SHIFT
    slab_begin(st, k, page, buffer(reg, i))
    if st.cache[k, slabs.K_HASHED]:
        reg[i, regs.GRANTED] = page
        call(reg, i, slabs.SLAB_CACHE, slabs.NIL, phases.A_HEADER)
        return alloc_cpu(st, reg, i)
    b = slab_next(st, k, page)
    while b != slabs.NIL:
        slab_add(st, k, page, b)
        b = slab_next(st, k, page)
    reg[i, regs.WORK] += wide(st.slab[page, slabs.S_CHUNKS]) - 1
    slab_enter(st, k, page)
    return finish(st, reg, i, slab_take(st, k, page))


@kernel
def alloc_header(st: State, reg: Registers, i: int) -> int:
    page = reg[i, regs.GRANTED]
    if reg[i, regs.BASE] == slabs.NIL:
        return unmap(st, reg, i, cache(reg, i), page)
    st.slab[page, slabs.S_HEADER] = reg[i, regs.BASE]
    return _add_bufctls(st, reg, i, page)


@kernel
def alloc_bufctl(st: State, reg: Registers, i: int) -> int:
    page = reg[i, regs.GRANTED]
    if reg[i, regs.BASE] == slabs.NIL:
        return drop_bufctls(st, reg, i)
    _add_bufctl(st, cache(reg, i), page, reg[i, regs.BASE])
    return _add_bufctls(st, reg, i, page)


@kernel
def _add_bufctl(st: State, k: int, page: int, bufctl: int) -> None:
    b = slab_next(st, k, page)
    slab_add(st, k, page, b)
    st.word[noted(st, k, b) + 1] = bufctl


@kernel
def _add_bufctls(st: State, reg: Registers, i: int, page: int) -> int:
    """Give the buffers of a hashed slab their bufctls, as far as the CPU's magazines last."""
    k, cpu = cache(reg, i), reg[i, regs.CPU]
    while slab_next(st, k, page) != slabs.NIL:
        bufctl = cpu_pop(st, slabs.BUFCTL_CACHE, cpu)
        if bufctl == slabs.NIL:
            call(reg, i, slabs.BUFCTL_CACHE, slabs.NIL, phases.A_BUFCTL)
            return alloc_missed(st, reg, i, slabs.BUFCTL_CACHE)
        _add_bufctl(st, k, page, bufctl)
        reg[i, regs.WORK] += 1
    return to_cache(reg, i, phases.A_ENTER, k)


@kernel
def destroy(st: State, reg: Registers, i: int, k: int, page: int) -> int:
    """Begin to give back what a slab is made of; ends the innermost call."""
    if not st.cache[k, slabs.K_HASHED]:
        return unmap(st, reg, i, k, page)
    reg[i, regs.GRANTED] = page
    return to_cpu(reg, i, phases.UNMAKE_BUFCTL)


@kernel
def drop_bufctls(st: State, reg: Registers, i: int) -> int:
    """Free a slab's bufctls, then its kmem_slab_t, as far as the CPU's magazines have room."""
    k, page, cpu = cache(reg, i), reg[i, regs.GRANTED], reg[i, regs.CPU]
    while st.slab[page, slabs.S_HEAD] != slabs.NIL:
        bufctl = wide(st.word[noted(st, k, free_pop(st, k, page)) + 1])
        if not cpu_push(st, slabs.BUFCTL_CACHE, cpu, bufctl):
            call(reg, i, slabs.BUFCTL_CACHE, bufctl, phases.UNMAKE_BUFCTL)
            return free_missed(st, reg, i, slabs.BUFCTL_CACHE)
        reg[i, regs.WORK] += 1
    header = wide(st.slab[page, slabs.S_HEADER])
    if not cpu_push(st, slabs.SLAB_CACHE, cpu, header):
        call(reg, i, slabs.SLAB_CACHE, header, phases.UNMAKE_SLAB)
        return free_missed(st, reg, i, slabs.SLAB_CACHE)
    return unmap(st, reg, i, k, page)


@kernel
def unmap(st: State, reg: Registers, i: int, k: int, page: int) -> int:
    """Give a slab's pages back to the map."""
    slab_forget(st, k, page)
    phase = (reg[i, regs.PHASE] & ~phases.PHASE_MASK) | phases.UNMAKE_MAPPED
    return ask_unmap(reg, i, phase, st.map, page << PAGE_SHIFT, st.cache[k, slabs.K_SLAB])
