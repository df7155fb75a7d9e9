"""Steps of `allocators/illumos_kmem` at a CPU's magazines and at the depot: one function for each phase."""

from kmemexp.jit import kernel
from kmemexp.sim.allocators.illumos_kmem.calls import buffer, cache, call, finish, to_cache, to_cpu, to_depot
from kmemexp.sim.allocators.illumos_kmem.magazines import cpu_pop, cpu_push, cpu_reload, depot_give, depot_take
from kmemexp.sim.allocators.illumos_kmem.phases import (
    A_CPU,
    A_DEPOT,
    A_SLAB,
    F_CPU,
    F_DEPOT,
    F_GIVE,
    F_MAGAZINE,
    F_SLAB,
)
from kmemexp.sim.allocators.illumos_kmem.slabs import (
    K_CONTENTION,
    K_EMPTY,
    K_FULL,
    K_LAST,
    K_MAGTYPE,
    K_TAKES,
    MAGSIZE,
    NIL,
    PLOADED,
    cache_of,
)
from kmemexp.sim.slots import R_BASE, R_CPU

# When the depot counts as contended (Params.contention).
C_WAITED = 1  # somebody else took its lock between asking for it and getting it
C_OTHER_CPU = 2  # another CPU came before


@kernel
def alloc_cpu(st, reg, i):
    k = cache(reg, i)
    b = cpu_pop(st, k, reg[i, R_CPU])
    return alloc_missed(st, reg, i, k) if b == NIL else finish(st, reg, i, b)


@kernel
def alloc_missed(st, reg, i, k):
    """Both magazines are empty."""
    return _missed(st, reg, i, k, A_DEPOT, A_SLAB)


@kernel
def _missed(st, reg, i, k, depot, slab):
    """Go on in one of two phases: at the depot or, where the CPU is to have no magazines, at the slabs."""
    if st.cc[k, reg[i, R_CPU], MAGSIZE] == 0:
        return to_cache(reg, i, slab, k)
    reg[i, R_BASE] = st.cache[k, K_TAKES]
    return to_depot(reg, i, depot, k)


@kernel
def _enter_depot(st, reg, i, k):
    """Count the taking of a depot's lock, and whether it was contended."""
    cpu = reg[i, R_CPU]
    if st.p.contention == C_WAITED:
        st.cache[k, K_CONTENTION] += st.cache[k, K_TAKES] != reg[i, R_BASE]
    elif st.p.contention == C_OTHER_CPU:
        st.cache[k, K_CONTENTION] += st.cache[k, K_LAST] != cpu and st.cache[k, K_LAST] != NIL
    st.cache[k, K_LAST] = cpu
    st.cache[k, K_TAKES] += 1


@kernel
def alloc_depot(st, reg, i):
    """Take a full magazine for the previous one, which is empty."""
    k, cpu = cache(reg, i), reg[i, R_CPU]
    _enter_depot(st, reg, i, k)
    b = cpu_pop(st, k, cpu)
    if b == NIL and st.cc[k, cpu, MAGSIZE] > 0:
        mag = depot_take(st, k, K_FULL)
        if mag != NIL:
            if st.cc[k, cpu, PLOADED] != NIL:
                depot_give(st, k, K_EMPTY, st.cc[k, cpu, PLOADED])
            cpu_reload(st, k, cpu, mag, st.cc[k, cpu, MAGSIZE])
            b = cpu_pop(st, k, cpu)
    return to_cache(reg, i, A_SLAB, k) if b == NIL else finish(st, reg, i, b)


@kernel
def free_cpu(st, reg, i):
    k = cache(reg, i)
    if cpu_push(st, k, reg[i, R_CPU], buffer(reg, i)):
        return finish(st, reg, i, NIL)
    return free_missed(st, reg, i, k)


@kernel
def free_missed(st, reg, i, k):
    """Both magazines are full."""
    return _missed(st, reg, i, k, F_DEPOT, F_SLAB)


@kernel
def free_depot(st, reg, i):
    _enter_depot(st, reg, i, cache(reg, i))
    return _exchange(st, reg, i)


@kernel
def _exchange(st, reg, i):
    """Take an empty magazine for the previous one, which is full, or allocate one: kmem_cpucache_magazine_alloc()."""
    k, cpu, b = cache(reg, i), reg[i, R_CPU], buffer(reg, i)
    if cpu_push(st, k, cpu, b):
        return finish(st, reg, i, NIL)
    if st.cc[k, cpu, MAGSIZE] == 0:
        return to_cache(reg, i, F_SLAB, k)
    mag = depot_take(st, k, K_EMPTY)
    if mag == NIL:
        call(reg, i, st.cache[k, K_MAGTYPE], NIL, F_MAGAZINE)
        return to_cpu(reg, i, A_CPU)
    if st.cc[k, cpu, PLOADED] != NIL:
        depot_give(st, k, K_FULL, st.cc[k, cpu, PLOADED])
    cpu_reload(st, k, cpu, mag, 0)
    cpu_push(st, k, cpu, b)
    return finish(st, reg, i, NIL)


@kernel
def free_magazine(st, reg, i):
    k = cache(reg, i)
    return to_cache(reg, i, F_SLAB, k) if reg[i, R_BASE] == NIL else to_depot(reg, i, F_GIVE, k)


@kernel
def free_give(st, reg, i):
    """Put the new magazine into the depot and try again, unless the cache has larger ones meanwhile, or none."""
    k, mag = cache(reg, i), reg[i, R_BASE]
    if st.cc[k, reg[i, R_CPU], MAGSIZE] != st.rounds[cache_of(st, mag)]:
        call(reg, i, cache_of(st, mag), mag, F_CPU)
        return to_cache(reg, i, F_SLAB, cache_of(st, mag))
    st.cache[k, K_TAKES] += 1
    depot_give(st, k, K_EMPTY, mag)
    return _exchange(st, reg, i)
