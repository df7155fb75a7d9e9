"""The slab consolidator of `allocators/illumos_kmem`, and what it shares with the rest of the upkeep.

All upkeep is the work of one thread, kmem_taskq, one cache after the other; State.task holds its variables. Callbacks
that move objects are a second thread's work in the kernel, which begins while the first one still scans: here all moves
of a scan are queued, then carried out. The owner of an object that refuses is taken to have answered LATER; that of a
buffer in a magazine, which has no owner, DONT_KNOW.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.illumos_kmem import phases, slabs, task
from kmemexp.sim.allocators.illumos_kmem.calls import cache_lock, call, to_cache, to_cpu, to_depot
from kmemexp.sim.allocators.illumos_kmem.magazines import depot_reapable
from kmemexp.sim.allocators.illumos_kmem.slab_steps import destroy
from kmemexp.sim.allocators.illumos_kmem.slabs import (
    dead_push,
    move_no,
    move_yes,
    noted,
    slab_base,
    slab_before,
    slab_end,
    slab_give,
    slab_partial,
    slab_take,
)
from kmemexp.sim.allocators.illumos_kmem.state import State
from kmemexp.sim.slots import AGAIN, MOVE
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

KMEM_VOID_FRACTION = 8

# What lies in a kmem_move_t.
M_NEXT = 0
M_FROM = 1
M_TO = 2
M_SLAB = 3


@kernel
def above_threshold(nfree: int, total: int, numer: int, denom: int) -> bool:
    """Whether more than numer/denom of a cache's buffers are free: kmem_cache_frag_threshold()."""
    return nfree * denom > total * numer


@kernel
def reclaimable(refcnt: int, chunks: int, nomove: int, numer: int, desperate: int) -> bool:
    """Whether a partial slab is worth emptying: kmem_slab_is_reclaimable()."""
    if desperate:
        return refcnt < chunks
    if nomove:
        return False
    if refcnt == 1:
        return chunks > 1
    return refcnt * KMEM_VOID_FRACTION < chunks * numer


@kernel
def adjusted(numer: int, found: int, sought: int) -> int:
    """Threshold after 12 scans; `found` may be negative, which the kernel takes for a huge number."""
    if found == sought:
        return max(numer - 1, 1)
    if found >= 0 and 2 * found < sought:
        return min(numer + 1, KMEM_VOID_FRACTION - 1)
    return numer


@kernel
def go_next(reg: Registers, i: int) -> int:
    reg[i, regs.PHASE] = phases.NEXT
    reg[i, regs.LOCK] = -1
    return AGAIN


@kernel
def free_then(st: State, reg: Registers, i: int, k: int, b: int, then: int) -> int:
    """Free a buffer of a cache of kmem's own, then go on under the lock T_LOCK."""
    call(reg, i, k, b, then)
    return to_cpu(reg, i, phases.F_CPU)


@kernel
def destroy_then(st: State, reg: Registers, i: int, k: int, page: int, then: int) -> int:
    """Destroy a slab, then go on under its cache's lock."""
    st.task[task.T_LOCK] = cache_lock(k)
    call(reg, i, k, slabs.NIL, then)
    return destroy(st, reg, i, k, page)


@outlined
def consolidate(st: State, reg: Registers, i: int, phase: int) -> int:
    if phase == phases.SCAN:
        return _scan(st, reg, i)
    if phase == phases.DEFRAG:
        return _defrag(st, reg, i)
    if phase == phases.QUEUE:
        return _queue(st, reg, i)
    if phase == phases.CHECK:
        return _check(st, reg, i)
    if phase == phases.ABORT:
        return _scanned(st, reg, i, -1)
    if phase == phases.MOVES:
        return _next_move(st, reg, i)
    if phase == phases.MOVED:
        return _moved(st, reg, i)
    return _bury(st, reg, i)


@kernel
def _scan(st: State, reg: Registers, i: int) -> int:
    """Begin to empty a slab if the cache is fragmented, or reap it if that would show it to be: kmem_cache_scan()."""
    k = st.task[task.T_K]
    if st.cache[k, slabs.K_COMPLETE] + st.cache[k, slabs.K_PARTIAL] < st.p.frag_minslabs:
        st.cache[k, slabs.K_NUMER] = 1
        return go_next(reg, i)
    nfree, total = st.cache[k, slabs.K_BUFSLAB], st.cache[k, slabs.K_BUFTOTAL]
    if st.cache[k, slabs.K_PARTIAL] > 1 and above_threshold(nfree, total, st.p.frag_numer, st.p.frag_denom):
        return _begin_scan(st, reg, i, False)
    st.cache[k, slabs.K_NUMER] = 1
    reap = min(depot_reapable(st, k, slabs.K_FULL), st.cache[k, slabs.K_FULL + slabs.TOTAL])
    nfree += reap * st.rounds[st.cache[k, slabs.K_MAGTYPE]]
    if not above_threshold(nfree, total, st.p.frag_numer, st.p.frag_denom):
        return go_next(reg, i)
    st.task[task.T_AFTER] = phases.NEXT
    return to_depot(reg, i, phases.REAP, k)


@kernel
def _defrag(st: State, reg: Registers, i: int) -> int:
    """Empty whatever partial slab can be: kmem_cache_defrag()."""
    return _begin_scan(st, reg, i, True) if st.cache[st.task[task.T_K], slabs.K_PARTIAL] > 1 else go_next(reg, i)


@kernel
def _begin_scan(st: State, reg: Registers, i: int, desperate: int) -> int:
    st.task[task.T_DESPERATE] = desperate
    st.task[task.T_SLAB] = slab_end(st, st.task[task.T_K], 1)
    st.task[task.T_SCANNED] = st.task[task.T_SLABS] = 0
    st.task[task.T_INDEX] = st.task[task.T_HEAD] = st.task[task.T_TAIL] = slabs.NIL
    return _scan_on(st, reg, i)


@kernel
def _worth_moving(st: State, k: int, page: int) -> bool:
    nomove = wide(st.slab[page, slabs.S_FLAGS]) & slabs.NOMOVE
    refcnt, chunks = wide(st.slab[page, slabs.S_REFCNT]), wide(st.slab[page, slabs.S_CHUNKS])
    return reclaimable(refcnt, chunks, nomove, st.cache[k, slabs.K_NUMER], st.task[task.T_DESPERATE])


@outlined
def _scan_on(st: State, reg: Registers, i: int) -> int:
    """Find the next allocated buffer of a slab that is worth emptying, from the last one on: kmem_move_buffers()."""
    k, first = st.task[task.T_K], slab_end(st, st.task[task.T_K], 0)
    while st.task[task.T_SLAB] != slabs.NIL and st.task[task.T_SLAB] != first:
        page = st.task[task.T_SLAB]
        if st.task[task.T_INDEX] == slabs.NIL:
            enough = st.task[task.T_SCANNED] >= st.p.scan_range or st.task[task.T_SLABS] >= st.p.reclaim_slabs
            if enough and not st.task[task.T_DESPERATE]:
                break
            if _worth_moving(st, k, page):
                st.task[task.T_SLABS] += 1
                st.task[task.T_INDEX] = st.task[task.T_SEEN] = 0
        if st.task[task.T_INDEX] != slabs.NIL and _next_buffer(st, page):
            call(reg, i, slabs.MOVE_CACHE, slabs.NIL, phases.QUEUE)
            st.task[task.T_LOCK] = cache_lock(k)
            return to_cpu(reg, i, phases.A_CPU)
        st.task[task.T_INDEX] = slabs.NIL
        st.task[task.T_SCANNED] += 1
        st.task[task.T_SLAB] = slab_before(st, k, page)
    return _scanned(st, reg, i, st.task[task.T_SLABS])


@kernel
def _next_buffer(st: State, page: int) -> bool:
    """Find the next allocated buffer of the slab, which is not to be destroyed meanwhile. False: there is none."""
    while (
        st.task[task.T_INDEX] < st.slab[page, slabs.S_CHUNKS] and st.task[task.T_SEEN] < st.slab[page, slabs.S_REFCNT]
    ):
        if st.word[noted(st, st.task[task.T_K], _source(st))] >= slabs.OUT:
            flags = wide(st.slab[page, slabs.S_FLAGS])
            st.slab[page, slabs.S_FLAGS] = flags | slabs.MOVE_PENDING
            st.task[task.T_NOMOVE] = flags & slabs.NOMOVE
            st.task[task.T_REFCNT] = st.slab[page, slabs.S_REFCNT]
            st.task[task.T_SEEN] += 1
            return True
        st.task[task.T_INDEX] += 1
    return False


@kernel
def _source(st: State) -> int:
    """Buffer number T_INDEX of the slab that is being scanned."""
    return slab_base(st, st.task[task.T_SLAB]) + st.task[task.T_INDEX] * (
        st.cache[st.task[task.T_K], slabs.K_CHUNK] >> slabs.WORD_SHIFT
    )


@kernel
def _queue(st: State, reg: Registers, i: int) -> int:
    """Allocate the buffer's destination from the first slab and queue the move: kmem_move_begin()."""
    k, move = st.task[task.T_K], reg[i, regs.BASE]
    st.task[task.T_FAILED] = move == slabs.NIL
    if move == slabs.NIL:
        return _check(st, reg, i)
    if st.cache[k, slabs.K_PARTIAL] <= 1:  # no need any more
        return free_then(st, reg, i, slabs.MOVE_CACHE, move, phases.CHECK)
    st.word[move + M_NEXT] = slabs.NIL
    st.word[move + M_FROM] = _source(st)
    st.word[move + M_TO] = slab_take(st, k, slab_end(st, k, 0))
    st.word[move + M_SLAB] = st.task[task.T_SLAB]
    if st.task[task.T_HEAD] == slabs.NIL:
        st.task[task.T_HEAD] = move
    else:
        st.word[st.task[task.T_TAIL] + M_NEXT] = move
    st.task[task.T_TAIL] = move
    st.cache[k, slabs.K_PENDING] += 1
    return _check(st, reg, i)


@kernel
def _check(st: State, reg: Registers, i: int) -> int:
    """Go on with the slab if it is as it was before its lock was given up."""
    k, page = st.task[task.T_K], st.task[task.T_SLAB]
    flags = wide(st.slab[page, slabs.S_FLAGS]) & ~slabs.MOVE_PENDING
    st.slab[page, slabs.S_FLAGS] = flags
    if st.slab[page, slabs.S_REFCNT] == 0:
        if st.cache[k, slabs.K_PENDING] == 0:
            return destroy_then(st, reg, i, k, page, phases.ABORT)
        dead_push(st, k, page)
        return _scanned(st, reg, i, -1)
    if (
        st.task[task.T_FAILED]
        or st.slab[page, slabs.S_REFCNT] != st.task[task.T_REFCNT]
        or flags & slabs.NOMOVE != st.task[task.T_NOMOVE]
    ):
        return _scanned(st, reg, i, -1)
    if page == slab_end(st, k, 0):
        return _scanned(st, reg, i, st.task[task.T_SLABS])
    st.task[task.T_INDEX] += 1
    return _scan_on(st, reg, i)


@kernel
def _scanned(st: State, reg: Registers, i: int, found: int) -> int:
    """End a scan: every 12 of them the threshold is adjusted. Then the moves begin."""
    k = st.task[task.T_K]
    if not st.task[task.T_DESPERATE]:
        st.cache[k, slabs.K_SOUGHT] += st.p.reclaim_slabs
        st.cache[k, slabs.K_FOUND] += found
        st.cache[k, slabs.K_TRIES] += 1
        if st.cache[k, slabs.K_TRIES] >= st.p.scan_range:
            st.cache[k, slabs.K_NUMER] = adjusted(
                st.cache[k, slabs.K_NUMER], st.cache[k, slabs.K_FOUND], st.cache[k, slabs.K_SOUGHT]
            )
            st.cache[k, slabs.K_TRIES] = st.cache[k, slabs.K_SOUGHT] = st.cache[k, slabs.K_FOUND] = 0
    return to_cache(reg, i, phases.MOVES, k)


@kernel
def _next_move(st: State, reg: Registers, i: int) -> int:
    """Ask the owner to move the next object, if it still makes sense: kmem_move_buffer()."""
    k, move = st.task[task.T_K], st.task[task.T_HEAD]
    if move == slabs.NIL:
        return go_next(reg, i)
    source, to, page = wide(st.word[move + M_FROM]), wide(st.word[move + M_TO]), wide(st.word[move + M_SLAB])
    obj = wide(st.word[noted(st, k, source)])
    if not _worth_moving(st, k, page) or obj < slabs.OUT:
        return _end_move(st, reg, i, to)
    if obj == slabs.OUT:  # in a magazine: the owner does not know it
        st.cache[k, slabs.K_DONT_KNOW] += 1
        return _end_move(st, reg, i, to)
    st.word[noted(st, k, to)] = obj
    reg[i, regs.OBJECT] = obj
    reg[i, regs.ADDR] = source << slabs.WORD_SHIFT
    reg[i, regs.BASE] = to << slabs.WORD_SHIFT
    to_cache(reg, i, phases.MOVED, k)
    return MOVE


@kernel
def _moved(st: State, reg: Registers, i: int) -> int:
    """Free the buffer that is not in use now. Thrice LATER counts as NO."""
    k, move = st.task[task.T_K], st.task[task.T_HEAD]
    source, to, page = wide(st.word[move + M_FROM]), wide(st.word[move + M_TO]), wide(st.word[move + M_SLAB])
    if reg[i, regs.BASE] >= 0:
        st.cache[k, slabs.K_YES] += 1
        end = _end_move(st, reg, i, source)
        if st.slab[page, slabs.S_REFCNT] == 0:
            st.cache[k, slabs.K_FREED] += 1
        move_yes(st, k, page, source)
        return end
    st.cache[k, slabs.K_LATER] += 1
    if slab_partial(st, page):
        st.slab[page, slabs.S_LATER] += 1
        if st.slab[page, slabs.S_LATER] >= st.p.disbelief:
            move_no(st, k, page, source)
        elif not st.slab[page, slabs.S_FLAGS] & slabs.NOMOVE:
            st.slab[page, slabs.S_STUCK] = source
    return _end_move(st, reg, i, to)


@kernel
def _end_move(st: State, reg: Registers, i: int, b: int) -> int:
    """Free buffer `b` to its slab and end the move: kmem_move_end()."""
    k, move = st.task[task.T_K], st.task[task.T_HEAD]
    slab_give(st, k, b)  # no slab is destroyed while moves are pending
    st.task[task.T_HEAD] = wide(st.word[move + M_NEXT])
    st.task[task.T_MOVE] = move
    st.cache[k, slabs.K_PENDING] -= 1
    return to_cache(reg, i, phases.DEAD, k)


@kernel
def _bury(st: State, reg: Registers, i: int) -> int:
    """After the last move destroy the slabs that have waited for it, then free the kmem_move_t."""
    k, page = st.task[task.T_K], st.cache[st.task[task.T_K], slabs.K_DEAD]
    if st.cache[k, slabs.K_PENDING] == 0 and page != slabs.NIL:
        st.cache[k, slabs.K_DEAD] = wide(st.slab[page, slabs.S_NEXT])
        return destroy_then(st, reg, i, k, page, phases.DEAD)
    st.task[task.T_LOCK] = cache_lock(k)
    return free_then(st, reg, i, slabs.MOVE_CACHE, st.task[task.T_MOVE], phases.MOVES)
