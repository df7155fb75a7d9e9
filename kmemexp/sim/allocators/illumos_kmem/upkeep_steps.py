"""Upkeep of `allocators/illumos_kmem`: kmem_update() of every 15 seconds, kmem_reap(), larger magazines.

What comes while kmem_taskq works waits for its turn; a reap that comes during a reap, or too soon, is dropped.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators.illumos_kmem.calls import cpu_lock, depot_lock, to_cache, to_depot
from kmemexp.sim.allocators.illumos_kmem.consolidator import consolidate, destroy_then, free_then, go_next
from kmemexp.sim.allocators.illumos_kmem.layout import KMEM_HASH_INITIAL
from kmemexp.sim.allocators.illumos_kmem.magazines import depot_reapable, depot_take, depot_update, depot_zero
from kmemexp.sim.allocators.illumos_kmem.phases import (
    BEGIN,
    DEFRAG,
    ENABLE,
    FIRST_TASK,
    NEXT,
    PHASE_MASK,
    PURGE,
    PURGE_NEXT,
    PURGE_PREVIOUS,
    REAP,
    REAP_EMPTY,
    REAP_FULL,
    RESIZE,
    SCAN,
    UNLOAD,
    UPDATE,
)
from kmemexp.sim.allocators.illumos_kmem.slabs import (
    K_BUFTOTAL,
    K_CHUNK,
    K_CONTENTION,
    K_CONTENTION_PREV,
    K_EMPTY,
    K_FULL,
    K_GROW,
    K_HASHED,
    K_MAGTYPE,
    K_MASK,
    K_MOVES,
    K_TAKES,
    LOADED,
    MAGSIZE,
    NIL,
    PLOADED,
    PROUNDS,
    ROUNDS,
    cache_of,
    slab_give,
)
from kmemexp.sim.allocators.illumos_kmem.steps import go_on
from kmemexp.sim.allocators.illumos_kmem.task import (
    T_AFTER,
    T_AT,
    T_BUSY,
    T_CPU,
    T_K,
    T_KIND,
    T_LEFT,
    T_LOCK,
    T_MAG,
    T_MAG2,
    T_ROUNDS,
    T_ROUNDS2,
    T_THEN,
    T_WAIT,
    T_WANTED,
)
from kmemexp.sim.slots import AGAIN, DONE, F_NOWAIT, R_FLAGS, R_LOCK, R_PHASE, R_SIZE, R_WORK, T_REAP, T_TICK
from kmemexp.sim.widths import wide

INT_MAX = 0x7FFFFFFF


@kernel
def rescaled(buffers, mask):
    """Mask of a hash table after an update: kmem_hash_rescale()."""
    if not (buffers > mask << 1 or (buffers < mask >> 1 and mask > KMEM_HASH_INITIAL)):
        return mask
    size = KMEM_HASH_INITIAL
    while size << 1 <= (3 * buffers + 4) >> 1:
        size <<= 1
    return mask if (mask + 1) >> 1 <= size <= (mask + 1) << 1 else size - 1


@outlined
def upkeep(st, reg, i):
    """Play one step. Returns its answer."""
    phase = reg[i, R_PHASE] & PHASE_MASK
    if phase == BEGIN:
        return _begin(st, reg, i)
    if phase < FIRST_TASK:
        return go_on(st, reg, i, phase)
    if phase >= SCAN:
        return consolidate(st, reg, i, phase)
    if phase == NEXT:
        return _next_cache(st, reg, i)
    if phase == UPDATE:
        return _update(st, reg, i)
    if phase >= REAP:
        return _reap_step(st, reg, i, phase)
    return _purge_step(st, reg, i, phase)


@kernel
def _begin(st, reg, i):
    why = reg[i, R_SIZE]
    if st.task[T_BUSY]:
        # A reap does not go unheard while caches are updated, but it does while caches are reaped.
        if why == T_TICK or st.task[T_KIND] == T_TICK:
            st.task[T_WANTED + why] = 1
        return DONE
    reg[i, R_FLAGS] |= F_NOWAIT
    st.task[T_BUSY] = 1
    st.task[T_WANTED + why] = 1
    return _next_task(st, reg, i)


@kernel
def _next_task(st, reg, i):
    if st.task[T_WANTED + T_TICK]:
        st.task[T_WANTED + T_TICK] = 0
        st.task[T_WAIT] = max(st.task[T_WAIT] - 1, 0)
        st.task[T_KIND] = T_TICK
        st.task[T_K] = 0
        return to_depot(reg, i, UPDATE, 0)
    reap = st.task[T_WANTED + T_REAP] and st.task[T_WAIT] == 0
    st.task[T_WANTED + T_REAP] = 0
    if not reap:
        st.task[T_BUSY] = 0
        return DONE
    st.task[T_KIND] = T_REAP
    st.task[T_K] = -1
    return go_next(reg, i)


@kernel
def _update(st, reg, i):
    """Update a cache's working set, see whether its magazines are to grow, rescale its hash: kmem_cache_update()."""
    k = st.task[T_K]
    depot_update(st, k)
    st.cache[k, K_TAKES] += 1
    if st.cache[k, K_HASHED]:
        st.cache[k, K_MASK] = rescaled(st.cache[k, K_BUFTOTAL], st.cache[k, K_MASK])
    contended = st.cache[k, K_CONTENTION] - st.cache[k, K_CONTENTION_PREV] > st.p.depot_contention
    grows = st.p.magazines and st.cache[k, K_CHUNK] < st.maxbuf[st.cache[k, K_MAGTYPE]]
    st.cache[k, K_GROW] = contended and grows
    st.cache[k, K_CONTENTION_PREV] = st.cache[k, K_CONTENTION]
    st.task[T_K] = k + 1
    if k + 1 < len(st.cache):
        return to_depot(reg, i, UPDATE, k + 1)
    st.task[T_K] = -1
    return go_next(reg, i)


@kernel
def _next_cache(st, reg, i):
    """Find the next cache that has something to do."""
    k = st.task[T_K] + 1
    while k < len(st.cache):
        st.task[T_K] = k
        if st.task[T_KIND] == T_REAP:
            if depot_reapable(st, k, K_FULL) > 0 or depot_reapable(st, k, K_EMPTY) > 0 or st.cache[k, K_MOVES]:
                st.task[T_AFTER] = DEFRAG
                return to_depot(reg, i, REAP, k)
        elif st.cache[k, K_GROW]:
            st.task[T_CPU] = 0
            reg[i, R_PHASE] = PURGE
            reg[i, R_LOCK] = cpu_lock(0)
            return AGAIN
        elif st.cache[k, K_MOVES]:
            return to_cache(reg, i, SCAN, k)
        k += 1
    if st.task[T_KIND] == T_REAP:
        st.task[T_WAIT] = st.p.reap_wait
    return _next_task(st, reg, i)


@kernel
def _purge_step(st, reg, i, phase):
    """Destroy all magazines of a cache, then let it have larger ones: kmem_cache_magazine_resize()."""
    k, cpu = st.task[T_K], st.task[T_CPU]
    if phase == PURGE:
        st.task[T_MAG], st.task[T_ROUNDS] = st.cc[k, cpu, LOADED], st.cc[k, cpu, ROUNDS]
        st.task[T_MAG2], st.task[T_ROUNDS2] = st.cc[k, cpu, PLOADED], st.cc[k, cpu, PROUNDS]
        st.cc[k, cpu, LOADED] = st.cc[k, cpu, PLOADED] = NIL
        st.cc[k, cpu, ROUNDS] = st.cc[k, cpu, PROUNDS] = -1
        st.cc[k, cpu, MAGSIZE] = 0
        if st.task[T_MAG] != NIL:
            return _unload(st, reg, i, PURGE_PREVIOUS)
    if phase == PURGE_PREVIOUS and st.task[T_MAG2] != NIL:
        st.task[T_MAG], st.task[T_ROUNDS] = st.task[T_MAG2], st.task[T_ROUNDS2]
        return _unload(st, reg, i, PURGE_NEXT)
    if phase == RESIZE:
        st.cache[k, K_TAKES] += 1
        st.cache[k, K_MAGTYPE] += 1
        st.cache[k, K_CONTENTION_PREV] = st.cache[k, K_CONTENTION] + INT_MAX  # not again at the next update
        st.cache[k, K_GROW] = 0
        cpu = -1
    if phase == ENABLE:
        st.cc[k, cpu, MAGSIZE] = st.rounds[st.cache[k, K_MAGTYPE]]
    cpu += 1
    purging = phase < RESIZE
    st.task[T_CPU] = cpu
    if cpu < st.cpus:
        reg[i, R_PHASE] = PURGE if purging else ENABLE
        reg[i, R_LOCK] = cpu_lock(cpu)
        return AGAIN
    if purging:
        st.task[T_AFTER] = RESIZE
        return to_depot(reg, i, REAP, k)
    return to_cache(reg, i, SCAN, k) if st.cache[k, K_MOVES] else go_next(reg, i)


@kernel
def _unload(st, reg, i, then):
    """Destroy a magazine, which is nobody's any more, then go on: kmem_magazine_destroy()."""
    st.task[T_AT] = 0
    st.task[T_THEN] = then
    return to_cache(reg, i, UNLOAD, st.task[T_K])


@kernel
def _reap_step(st, reg, i, phase):
    """Destroy what has fallen out of the depot's working set: kmem_depot_ws_reap()."""
    k = st.task[T_K]
    if phase == UNLOAD:
        return _free_rounds(st, reg, i, k)
    st.cache[k, K_TAKES] += 1
    if phase == REAP:
        if st.task[T_AFTER] == RESIZE:
            depot_zero(st, k)
        st.task[T_LEFT] = depot_reapable(st, k, K_FULL)
    if phase != REAP_EMPTY:
        if st.task[T_LEFT] > 0 and st.cache[k, K_FULL] != NIL:
            st.task[T_LEFT] -= 1
            st.task[T_MAG] = depot_take(st, k, K_FULL)
            st.task[T_ROUNDS] = st.rounds[st.cache[k, K_MAGTYPE]]
            return _unload(st, reg, i, REAP_FULL)
        st.task[T_LEFT] = depot_reapable(st, k, K_EMPTY)
    if st.task[T_LEFT] > 0 and st.cache[k, K_EMPTY] != NIL:
        st.task[T_LEFT] -= 1
        st.task[T_MAG] = depot_take(st, k, K_EMPTY)
        return _free_magazine(st, reg, i, REAP_EMPTY)
    after = st.task[T_AFTER]
    if after == RESIZE:
        return to_depot(reg, i, RESIZE, k)
    return to_cache(reg, i, DEFRAG, k) if after == DEFRAG and st.cache[k, K_MOVES] else go_next(reg, i)


@kernel
def _free_rounds(st, reg, i, k):
    """Free a magazine's rounds to their slabs, then the magazine."""
    mag = st.task[T_MAG]
    while st.task[T_AT] < st.task[T_ROUNDS]:
        st.task[T_AT] += 1
        reg[i, R_WORK] += 1
        page = slab_give(st, k, wide(st.word[mag + st.task[T_AT]]))
        if page != NIL:
            return destroy_then(st, reg, i, k, page, UNLOAD)
    return _free_magazine(st, reg, i, st.task[T_THEN])


@kernel
def _free_magazine(st, reg, i, then):
    purging = then == PURGE_PREVIOUS or then == PURGE_NEXT
    st.task[T_LOCK] = cpu_lock(st.task[T_CPU]) if purging else depot_lock(st.task[T_K])
    return free_then(st, reg, i, cache_of(st, st.task[T_MAG]), st.task[T_MAG], then)
