"""Steps of `allocators/illumos_kmem` at a CPU's magazines and at the depot: one function for each phase."""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.illumos_kmem import phases, slabs
from kmemexp.sim.allocators.illumos_kmem.calls import buffer, cache, call, finish, to_cache, to_cpu, to_depot
from kmemexp.sim.allocators.illumos_kmem.magazines import cpu_pop, cpu_push, cpu_reload, depot_give, depot_take
from kmemexp.sim.allocators.illumos_kmem.slabs import cache_of
from kmemexp.sim.allocators.illumos_kmem.state import State
from kmemexp.sim.tables import regs

# When the depot counts as contended (Params.contention).
DEPOT_WAITED = 1  # somebody else took its lock between asking for it and getting it
DEPOT_OTHER_CPU = 2  # another CPU came before


@kernel
def alloc_cpu(st: State, reg: Registers, i: int) -> int:
    k = cache(reg, i)
    b = cpu_pop(st, k, reg[i, regs.CPU])
    return alloc_missed(st, reg, i, k) if b == slabs.NIL else finish(st, reg, i, b)


@kernel
def alloc_missed(st: State, reg: Registers, i: int, k: int) -> int:
    """Both magazines are empty."""
    return _missed(st, reg, i, k, phases.A_DEPOT, phases.A_SLAB)


@kernel
def _missed(st: State, reg: Registers, i: int, k: int, depot: int, slab: int) -> int:
    """Go on in one of two phases: at the depot or, where the CPU is to have no magazines, at the slabs."""
    if st.cc[k, reg[i, regs.CPU], slabs.MAGSIZE] == 0:
        return to_cache(reg, i, slab, k)
    reg[i, regs.BASE] = st.cache[k, slabs.K_TAKES]
    return to_depot(reg, i, depot, k)


@kernel
def _enter_depot(st: State, reg: Registers, i: int, k: int) -> None:
    """Count the taking of a depot's lock, and whether it was contended."""
    cpu = reg[i, regs.CPU]
    if st.p.contention == DEPOT_WAITED:
        st.cache[k, slabs.K_CONTENTION] += st.cache[k, slabs.K_TAKES] != reg[i, regs.BASE]
    elif st.p.contention == DEPOT_OTHER_CPU:
        st.cache[k, slabs.K_CONTENTION] += st.cache[k, slabs.K_LAST] != cpu and st.cache[k, slabs.K_LAST] != slabs.NIL
    st.cache[k, slabs.K_LAST] = cpu
    st.cache[k, slabs.K_TAKES] += 1


@kernel
def alloc_depot(st: State, reg: Registers, i: int) -> int:
    """Take a full magazine for the previous one, which is empty."""
    k, cpu = cache(reg, i), reg[i, regs.CPU]
    _enter_depot(st, reg, i, k)
    b = cpu_pop(st, k, cpu)
    if b == slabs.NIL and st.cc[k, cpu, slabs.MAGSIZE] > 0:
        mag = depot_take(st, k, slabs.K_FULL)
        if mag != slabs.NIL:
            if st.cc[k, cpu, slabs.PLOADED] != slabs.NIL:
                depot_give(st, k, slabs.K_EMPTY, st.cc[k, cpu, slabs.PLOADED])
            cpu_reload(st, k, cpu, mag, st.cc[k, cpu, slabs.MAGSIZE])
            b = cpu_pop(st, k, cpu)
    return to_cache(reg, i, phases.A_SLAB, k) if b == slabs.NIL else finish(st, reg, i, b)


@kernel
def free_cpu(st: State, reg: Registers, i: int) -> int:
    k = cache(reg, i)
    if cpu_push(st, k, reg[i, regs.CPU], buffer(reg, i)):
        return finish(st, reg, i, slabs.NIL)
    return free_missed(st, reg, i, k)


@kernel
def free_missed(st: State, reg: Registers, i: int, k: int) -> int:
    """Both magazines are full."""
    return _missed(st, reg, i, k, phases.F_DEPOT, phases.F_SLAB)


@kernel
def free_depot(st: State, reg: Registers, i: int) -> int:
    _enter_depot(st, reg, i, cache(reg, i))
    return _exchange(st, reg, i)


@kernel
def _exchange(st: State, reg: Registers, i: int) -> int:
    """Take an empty magazine for the previous one, which is full, or allocate one: kmem_cpucache_magazine_alloc()."""
    k, cpu, b = cache(reg, i), reg[i, regs.CPU], buffer(reg, i)
    if cpu_push(st, k, cpu, b):
        return finish(st, reg, i, slabs.NIL)
    if st.cc[k, cpu, slabs.MAGSIZE] == 0:
        return to_cache(reg, i, phases.F_SLAB, k)
    mag = depot_take(st, k, slabs.K_EMPTY)
    if mag == slabs.NIL:
        call(reg, i, st.cache[k, slabs.K_MAGTYPE], slabs.NIL, phases.F_MAGAZINE)
        return to_cpu(reg, i, phases.A_CPU)
    if st.cc[k, cpu, slabs.PLOADED] != slabs.NIL:
        depot_give(st, k, slabs.K_FULL, st.cc[k, cpu, slabs.PLOADED])
    cpu_reload(st, k, cpu, mag, 0)
    cpu_push(st, k, cpu, b)
    return finish(st, reg, i, slabs.NIL)


@kernel
def free_magazine(st: State, reg: Registers, i: int) -> int:
    k = cache(reg, i)
    return to_cache(reg, i, phases.F_SLAB, k) if reg[i, regs.BASE] == slabs.NIL else to_depot(reg, i, phases.F_GIVE, k)


@kernel
def free_give(st: State, reg: Registers, i: int) -> int:
    """Put the new magazine into the depot and try again, unless the cache has larger ones meanwhile, or none."""
    k, mag = cache(reg, i), reg[i, regs.BASE]
    if st.cc[k, reg[i, regs.CPU], slabs.MAGSIZE] != st.rounds[cache_of(st, mag)]:
        call(reg, i, cache_of(st, mag), mag, phases.F_CPU)
        return to_cache(reg, i, phases.F_SLAB, cache_of(st, mag))
    st.cache[k, slabs.K_TAKES] += 1
    depot_give(st, k, slabs.K_EMPTY, mag)
    return _exchange(st, reg, i)
