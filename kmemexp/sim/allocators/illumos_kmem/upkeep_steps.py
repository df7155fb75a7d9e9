"""Upkeep of `allocators/illumos_kmem`: kmem_update() of every 15 seconds, kmem_reap(), larger magazines.

What comes while kmem_taskq works waits for its turn; a reap that comes during a reap, or too soon, is dropped.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.illumos_kmem import phases, slabs, task
from kmemexp.sim.allocators.illumos_kmem.calls import cpu_lock, depot_lock, to_cache, to_depot
from kmemexp.sim.allocators.illumos_kmem.consolidator import consolidate, destroy_then, free_then, go_next
from kmemexp.sim.allocators.illumos_kmem.layout import KMEM_HASH_INITIAL
from kmemexp.sim.allocators.illumos_kmem.magazines import depot_reapable, depot_take, depot_update, depot_zero
from kmemexp.sim.allocators.illumos_kmem.slabs import cache_of, slab_give
from kmemexp.sim.allocators.illumos_kmem.state import State
from kmemexp.sim.allocators.illumos_kmem.steps import go_on
from kmemexp.sim.slots import AGAIN, DONE, TEND_REAP, TEND_TICK
from kmemexp.sim.tables import flag, regs
from kmemexp.sim.widths import wide

INT_MAX = 0x7FFFFFFF


@kernel
def rescaled(buffers: int, mask: int) -> int:
    """Mask of a hash table after an update: kmem_hash_rescale()."""
    if not (buffers > mask << 1 or (buffers < mask >> 1 and mask > KMEM_HASH_INITIAL)):
        return mask
    size = KMEM_HASH_INITIAL
    while size << 1 <= (3 * buffers + 4) >> 1:
        size <<= 1
    return mask if (mask + 1) >> 1 <= size <= (mask + 1) << 1 else size - 1


@outlined
def upkeep(st: State, reg: Registers, i: int) -> int:
    """Play one step. Returns its answer."""
    phase = reg[i, regs.PHASE] & phases.PHASE_MASK
    if phase == phases.BEGIN:
        return _begin(st, reg, i)
    if phase < phases.FIRST_TASK:
        return go_on(st, reg, i, phase)
    if phase >= phases.SCAN:
        return consolidate(st, reg, i, phase)
    if phase == phases.NEXT:
        return _next_cache(st, reg, i)
    if phase == phases.UPDATE:
        return _update(st, reg, i)
    if phase >= phases.REAP:
        return _reap_step(st, reg, i, phase)
    return _purge_step(st, reg, i, phase)


@kernel
def _begin(st: State, reg: Registers, i: int) -> int:
    why = reg[i, regs.SIZE]
    if st.task[task.T_BUSY]:
        # A reap does not go unheard while caches are updated, but it does while caches are reaped.
        if why == TEND_TICK or st.task[task.T_KIND] == TEND_TICK:
            st.task[task.T_WANTED + why] = 1
        return DONE
    reg[i, regs.FLAGS] |= flag.NOWAIT
    st.task[task.T_BUSY] = 1
    st.task[task.T_WANTED + why] = 1
    return _next_task(st, reg, i)


@kernel
def _next_task(st: State, reg: Registers, i: int) -> int:
    if st.task[task.T_WANTED + TEND_TICK]:
        st.task[task.T_WANTED + TEND_TICK] = 0
        st.task[task.T_WAIT] = max(st.task[task.T_WAIT] - 1, 0)
        st.task[task.T_KIND] = TEND_TICK
        st.task[task.T_K] = 0
        return to_depot(reg, i, phases.UPDATE, 0)
    reap = st.task[task.T_WANTED + TEND_REAP] and st.task[task.T_WAIT] == 0
    st.task[task.T_WANTED + TEND_REAP] = 0
    if not reap:
        st.task[task.T_BUSY] = 0
        return DONE
    st.task[task.T_KIND] = TEND_REAP
    st.task[task.T_K] = -1
    return go_next(reg, i)


@kernel
def _update(st: State, reg: Registers, i: int) -> int:
    """Update a cache's working set, see whether its magazines are to grow, rescale its hash: kmem_cache_update()."""
    k = st.task[task.T_K]
    depot_update(st, k)
    st.cache[k, slabs.K_TAKES] += 1
    if st.cache[k, slabs.K_HASHED]:
        st.cache[k, slabs.K_MASK] = rescaled(st.cache[k, slabs.K_BUFTOTAL], st.cache[k, slabs.K_MASK])
    contended = st.cache[k, slabs.K_CONTENTION] - st.cache[k, slabs.K_CONTENTION_PREV] > st.p.depot_contention
    grows = st.p.magazines and st.cache[k, slabs.K_CHUNK] < st.maxbuf[st.cache[k, slabs.K_MAGTYPE]]
    st.cache[k, slabs.K_GROW] = contended and grows
    st.cache[k, slabs.K_CONTENTION_PREV] = st.cache[k, slabs.K_CONTENTION]
    st.task[task.T_K] = k + 1
    if k + 1 < len(st.cache):
        return to_depot(reg, i, phases.UPDATE, k + 1)
    st.task[task.T_K] = -1
    return go_next(reg, i)


@kernel
def _next_cache(st: State, reg: Registers, i: int) -> int:
    """Find the next cache that has something to do."""
    k = st.task[task.T_K] + 1
    while k < len(st.cache):
        st.task[task.T_K] = k
        if st.task[task.T_KIND] == TEND_REAP:
            if (
                depot_reapable(st, k, slabs.K_FULL) > 0
                or depot_reapable(st, k, slabs.K_EMPTY) > 0
                or st.cache[k, slabs.K_MOVES]
            ):
                st.task[task.T_AFTER] = phases.DEFRAG
                return to_depot(reg, i, phases.REAP, k)
        elif st.cache[k, slabs.K_GROW]:
            st.task[task.T_CPU] = 0
            reg[i, regs.PHASE] = phases.PURGE
            reg[i, regs.LOCK] = cpu_lock(0)
            return AGAIN
        elif st.cache[k, slabs.K_MOVES]:
            return to_cache(reg, i, phases.SCAN, k)
        k += 1
    if st.task[task.T_KIND] == TEND_REAP:
        st.task[task.T_WAIT] = st.p.reap_wait
    return _next_task(st, reg, i)


@kernel
def _purge_step(st: State, reg: Registers, i: int, phase: int) -> int:
    """Destroy all magazines of a cache, then let it have larger ones: kmem_cache_magazine_resize()."""
    k, cpu = st.task[task.T_K], st.task[task.T_CPU]
    if phase == phases.PURGE:
        st.task[task.T_MAG], st.task[task.T_ROUNDS] = st.cc[k, cpu, slabs.LOADED], st.cc[k, cpu, slabs.ROUNDS]
        st.task[task.T_MAG2], st.task[task.T_ROUNDS2] = st.cc[k, cpu, slabs.PLOADED], st.cc[k, cpu, slabs.PROUNDS]
        st.cc[k, cpu, slabs.LOADED] = st.cc[k, cpu, slabs.PLOADED] = slabs.NIL
        st.cc[k, cpu, slabs.ROUNDS] = st.cc[k, cpu, slabs.PROUNDS] = -1
        st.cc[k, cpu, slabs.MAGSIZE] = 0
        if st.task[task.T_MAG] != slabs.NIL:
            return _unload(st, reg, i, phases.PURGE_PREVIOUS)
    if phase == phases.PURGE_PREVIOUS and st.task[task.T_MAG2] != slabs.NIL:
        st.task[task.T_MAG], st.task[task.T_ROUNDS] = st.task[task.T_MAG2], st.task[task.T_ROUNDS2]
        return _unload(st, reg, i, phases.PURGE_NEXT)
    if phase == phases.RESIZE:
        st.cache[k, slabs.K_TAKES] += 1
        st.cache[k, slabs.K_MAGTYPE] += 1
        st.cache[k, slabs.K_CONTENTION_PREV] = st.cache[k, slabs.K_CONTENTION] + INT_MAX  # not again at the next update
        st.cache[k, slabs.K_GROW] = 0
        cpu = -1
    if phase == phases.ENABLE:
        st.cc[k, cpu, slabs.MAGSIZE] = st.rounds[st.cache[k, slabs.K_MAGTYPE]]
    cpu += 1
    purging = phase < phases.RESIZE
    st.task[task.T_CPU] = cpu
    if cpu < st.cpus:
        reg[i, regs.PHASE] = phases.PURGE if purging else phases.ENABLE
        reg[i, regs.LOCK] = cpu_lock(cpu)
        return AGAIN
    if purging:
        st.task[task.T_AFTER] = phases.RESIZE
        return to_depot(reg, i, phases.REAP, k)
    return to_cache(reg, i, phases.SCAN, k) if st.cache[k, slabs.K_MOVES] else go_next(reg, i)


@kernel
def _unload(st: State, reg: Registers, i: int, then: int) -> int:
    """Destroy a magazine, which is nobody's any more, then go on: kmem_magazine_destroy()."""
    st.task[task.T_AT] = 0
    st.task[task.T_THEN] = then
    return to_cache(reg, i, phases.UNLOAD, st.task[task.T_K])


@kernel
def _reap_step(st: State, reg: Registers, i: int, phase: int) -> int:
    """Destroy what has fallen out of the depot's working set: kmem_depot_ws_reap()."""
    k = st.task[task.T_K]
    if phase == phases.UNLOAD:
        return _free_rounds(st, reg, i, k)
    st.cache[k, slabs.K_TAKES] += 1
    if phase == phases.REAP:
        if st.task[task.T_AFTER] == phases.RESIZE:
            depot_zero(st, k)
        st.task[task.T_LEFT] = depot_reapable(st, k, slabs.K_FULL)
    if phase != phases.REAP_EMPTY:
        if st.task[task.T_LEFT] > 0 and st.cache[k, slabs.K_FULL] != slabs.NIL:
            st.task[task.T_LEFT] -= 1
            st.task[task.T_MAG] = depot_take(st, k, slabs.K_FULL)
            st.task[task.T_ROUNDS] = st.rounds[st.cache[k, slabs.K_MAGTYPE]]
            return _unload(st, reg, i, phases.REAP_FULL)
        st.task[task.T_LEFT] = depot_reapable(st, k, slabs.K_EMPTY)
    if st.task[task.T_LEFT] > 0 and st.cache[k, slabs.K_EMPTY] != slabs.NIL:
        st.task[task.T_LEFT] -= 1
        st.task[task.T_MAG] = depot_take(st, k, slabs.K_EMPTY)
        return _free_magazine(st, reg, i, phases.REAP_EMPTY)
    after = st.task[task.T_AFTER]
    if after == phases.RESIZE:
        return to_depot(reg, i, phases.RESIZE, k)
    return (
        to_cache(reg, i, phases.DEFRAG, k) if after == phases.DEFRAG and st.cache[k, slabs.K_MOVES] else go_next(reg, i)
    )


@kernel
def _free_rounds(st: State, reg: Registers, i: int, k: int) -> int:
    """Free a magazine's rounds to their slabs, then the magazine."""
    mag = st.task[task.T_MAG]
    while st.task[task.T_AT] < st.task[task.T_ROUNDS]:
        st.task[task.T_AT] += 1
        reg[i, regs.WORK] += 1
        page = slab_give(st, k, wide(st.word[mag + st.task[task.T_AT]]))
        if page != slabs.NIL:
            return destroy_then(st, reg, i, k, page, phases.UNLOAD)
    return _free_magazine(st, reg, i, st.task[task.T_THEN])


@kernel
def _free_magazine(st: State, reg: Registers, i: int, then: int) -> int:
    purging = then == phases.PURGE_PREVIOUS or then == phases.PURGE_NEXT
    st.task[task.T_LOCK] = cpu_lock(st.task[task.T_CPU]) if purging else depot_lock(st.task[task.T_K])
    return free_then(st, reg, i, cache_of(st, st.task[task.T_MAG]), st.task[task.T_MAG], then)
