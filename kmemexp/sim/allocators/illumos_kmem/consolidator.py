"""The slab consolidator of `allocators/illumos_kmem`, and what it shares with the rest of the upkeep.

All upkeep is the work of one thread, kmem_taskq, one cache after the other; State.task holds its variables. Callbacks
that move objects are a second thread's work in the kernel, which begins while the first one still scans: here all moves
of a scan are queued, then carried out. The owner of an object that refuses is taken to have answered LATER; that of a
buffer in a magazine, which has no owner, DONT_KNOW.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators.illumos_kmem.calls import cache_lock, call, to_cache, to_cpu, to_depot
from kmemexp.sim.allocators.illumos_kmem.magazines import depot_reapable
from kmemexp.sim.allocators.illumos_kmem.phases import (
    A_CPU,
    ABORT,
    CHECK,
    DEAD,
    DEFRAG,
    F_CPU,
    MOVED,
    MOVES,
    NEXT,
    QUEUE,
    REAP,
    SCAN,
)
from kmemexp.sim.allocators.illumos_kmem.slab_steps import destroy
from kmemexp.sim.allocators.illumos_kmem.slabs import (
    K_BUFSLAB,
    K_BUFTOTAL,
    K_CHUNK,
    K_COMPLETE,
    K_DEAD,
    K_DONT_KNOW,
    K_FOUND,
    K_FREED,
    K_FULL,
    K_LATER,
    K_MAGTYPE,
    K_NUMER,
    K_PARTIAL,
    K_PENDING,
    K_SOUGHT,
    K_TRIES,
    K_YES,
    MOVE_CACHE,
    MOVE_PENDING,
    NIL,
    NOMOVE,
    OUT,
    S_CHUNKS,
    S_FLAGS,
    S_LATER,
    S_NEXT,
    S_REFCNT,
    S_STUCK,
    TOTAL,
    WORD_SHIFT,
    dead_push,
    move_no,
    move_yes,
    slab_base,
    slab_before,
    slab_end,
    slab_give,
    slab_partial,
    slab_take,
)
from kmemexp.sim.allocators.illumos_kmem.task import (
    T_AFTER,
    T_DESPERATE,
    T_FAILED,
    T_HEAD,
    T_INDEX,
    T_K,
    T_LOCK,
    T_MOVE,
    T_NOMOVE,
    T_REFCNT,
    T_SCANNED,
    T_SEEN,
    T_SLAB,
    T_SLABS,
    T_TAIL,
)
from kmemexp.sim.slots import AGAIN, MOVE, R_ADDR, R_BASE, R_LOCK, R_OBJECT, R_PHASE
from kmemexp.sim.widths import wide

KMEM_VOID_FRACTION = 8

# What lies in a kmem_move_t.
M_NEXT = 0
M_FROM = 1
M_TO = 2
M_SLAB = 3


@kernel
def above_threshold(nfree, total, numer, denom):
    """Whether more than numer/denom of a cache's buffers are free: kmem_cache_frag_threshold()."""
    return nfree * denom > total * numer


@kernel
def reclaimable(refcnt, chunks, nomove, numer, desperate):
    """Whether a partial slab is worth emptying: kmem_slab_is_reclaimable()."""
    if desperate:
        return refcnt < chunks
    if nomove:
        return False
    if refcnt == 1:
        return chunks > 1
    return refcnt * KMEM_VOID_FRACTION < chunks * numer


@kernel
def adjusted(numer, found, sought):
    """Threshold after 12 scans; `found` may be negative, which the kernel takes for a huge number."""
    if found == sought:
        return max(numer - 1, 1)
    if found >= 0 and 2 * found < sought:
        return min(numer + 1, KMEM_VOID_FRACTION - 1)
    return numer


@kernel
def go_next(reg, i):
    reg[i, R_PHASE] = NEXT
    reg[i, R_LOCK] = -1
    return AGAIN


@kernel
def free_then(st, reg, i, k, b, then):
    """Free a buffer of a cache of kmem's own, then go on under the lock T_LOCK."""
    call(reg, i, k, b, then)
    return to_cpu(reg, i, F_CPU)


@kernel
def destroy_then(st, reg, i, k, page, then):
    """Destroy a slab, then go on under its cache's lock."""
    st.task[T_LOCK] = cache_lock(k)
    call(reg, i, k, NIL, then)
    return destroy(st, reg, i, k, page)


@outlined
def consolidate(st, reg, i, phase):
    if phase == SCAN:
        return _scan(st, reg, i)
    if phase == DEFRAG:
        return _defrag(st, reg, i)
    if phase == QUEUE:
        return _queue(st, reg, i)
    if phase == CHECK:
        return _check(st, reg, i)
    if phase == ABORT:
        return _scanned(st, reg, i, -1)
    if phase == MOVES:
        return _next_move(st, reg, i)
    if phase == MOVED:
        return _moved(st, reg, i)
    return _bury(st, reg, i)


@kernel
def _scan(st, reg, i):
    """Begin to empty a slab if the cache is fragmented, or reap it if that would show it to be: kmem_cache_scan()."""
    k = st.task[T_K]
    if st.cache[k, K_COMPLETE] + st.cache[k, K_PARTIAL] < st.p.frag_minslabs:
        st.cache[k, K_NUMER] = 1
        return go_next(reg, i)
    nfree, total = st.cache[k, K_BUFSLAB], st.cache[k, K_BUFTOTAL]
    if st.cache[k, K_PARTIAL] > 1 and above_threshold(nfree, total, st.p.frag_numer, st.p.frag_denom):
        return _begin_scan(st, reg, i, False)
    st.cache[k, K_NUMER] = 1
    reap = min(depot_reapable(st, k, K_FULL), st.cache[k, K_FULL + TOTAL])
    nfree += reap * st.rounds[st.cache[k, K_MAGTYPE]]
    if not above_threshold(nfree, total, st.p.frag_numer, st.p.frag_denom):
        return go_next(reg, i)
    st.task[T_AFTER] = NEXT
    return to_depot(reg, i, REAP, k)


@kernel
def _defrag(st, reg, i):
    """Empty whatever partial slab can be: kmem_cache_defrag()."""
    return _begin_scan(st, reg, i, True) if st.cache[st.task[T_K], K_PARTIAL] > 1 else go_next(reg, i)


@kernel
def _begin_scan(st, reg, i, desperate):
    st.task[T_DESPERATE] = desperate
    st.task[T_SLAB] = slab_end(st, st.task[T_K], 1)
    st.task[T_SCANNED] = st.task[T_SLABS] = 0
    st.task[T_INDEX] = st.task[T_HEAD] = st.task[T_TAIL] = NIL
    return _scan_on(st, reg, i)


@kernel
def _worth_moving(st, k, page):
    nomove = wide(st.slab[page, S_FLAGS]) & NOMOVE
    refcnt, chunks = wide(st.slab[page, S_REFCNT]), wide(st.slab[page, S_CHUNKS])
    return reclaimable(refcnt, chunks, nomove, st.cache[k, K_NUMER], st.task[T_DESPERATE])


@outlined
def _scan_on(st, reg, i):
    """Find the next allocated buffer of a slab that is worth emptying, from the last one on: kmem_move_buffers()."""
    k, first = st.task[T_K], slab_end(st, st.task[T_K], 0)
    while st.task[T_SLAB] != NIL and st.task[T_SLAB] != first:
        page = st.task[T_SLAB]
        if st.task[T_INDEX] == NIL:
            enough = st.task[T_SCANNED] >= st.p.scan_range or st.task[T_SLABS] >= st.p.reclaim_slabs
            if enough and not st.task[T_DESPERATE]:
                break
            if _worth_moving(st, k, page):
                st.task[T_SLABS] += 1
                st.task[T_INDEX] = st.task[T_SEEN] = 0
        if st.task[T_INDEX] != NIL and _next_buffer(st, page):
            call(reg, i, MOVE_CACHE, NIL, QUEUE)
            st.task[T_LOCK] = cache_lock(k)
            return to_cpu(reg, i, A_CPU)
        st.task[T_INDEX] = NIL
        st.task[T_SCANNED] += 1
        st.task[T_SLAB] = slab_before(st, k, page)
    return _scanned(st, reg, i, st.task[T_SLABS])


@kernel
def _next_buffer(st, page):
    """Find the next allocated buffer of the slab, which is not to be destroyed meanwhile. False: there is none."""
    while st.task[T_INDEX] < st.slab[page, S_CHUNKS] and st.task[T_SEEN] < st.slab[page, S_REFCNT]:
        if st.word[_source(st)] >= OUT:
            flags = wide(st.slab[page, S_FLAGS])
            st.slab[page, S_FLAGS] = flags | MOVE_PENDING
            st.task[T_NOMOVE] = flags & NOMOVE
            st.task[T_REFCNT] = st.slab[page, S_REFCNT]
            st.task[T_SEEN] += 1
            return True
        st.task[T_INDEX] += 1
    return False


@kernel
def _source(st):
    """Buffer number T_INDEX of the slab that is being scanned."""
    return slab_base(st, st.task[T_SLAB]) + st.task[T_INDEX] * (st.cache[st.task[T_K], K_CHUNK] >> WORD_SHIFT)


@kernel
def _queue(st, reg, i):
    """Allocate the buffer's destination from the first slab and queue the move: kmem_move_begin()."""
    k, move = st.task[T_K], reg[i, R_BASE]
    st.task[T_FAILED] = move == NIL
    if move == NIL:
        return _check(st, reg, i)
    if st.cache[k, K_PARTIAL] <= 1:  # no need any more
        return free_then(st, reg, i, MOVE_CACHE, move, CHECK)
    st.word[move + M_NEXT] = NIL
    st.word[move + M_FROM] = _source(st)
    st.word[move + M_TO] = slab_take(st, k, slab_end(st, k, 0))
    st.word[move + M_SLAB] = st.task[T_SLAB]
    if st.task[T_HEAD] == NIL:
        st.task[T_HEAD] = move
    else:
        st.word[st.task[T_TAIL] + M_NEXT] = move
    st.task[T_TAIL] = move
    st.cache[k, K_PENDING] += 1
    return _check(st, reg, i)


@kernel
def _check(st, reg, i):
    """Go on with the slab if it is as it was before its lock was given up."""
    k, page = st.task[T_K], st.task[T_SLAB]
    flags = wide(st.slab[page, S_FLAGS]) & ~MOVE_PENDING
    st.slab[page, S_FLAGS] = flags
    if st.slab[page, S_REFCNT] == 0:
        if st.cache[k, K_PENDING] == 0:
            return destroy_then(st, reg, i, k, page, ABORT)
        dead_push(st, k, page)
        return _scanned(st, reg, i, -1)
    if st.task[T_FAILED] or st.slab[page, S_REFCNT] != st.task[T_REFCNT] or flags & NOMOVE != st.task[T_NOMOVE]:
        return _scanned(st, reg, i, -1)
    if page == slab_end(st, k, 0):
        return _scanned(st, reg, i, st.task[T_SLABS])
    st.task[T_INDEX] += 1
    return _scan_on(st, reg, i)


@kernel
def _scanned(st, reg, i, found):
    """End a scan: every 12 of them the threshold is adjusted. Then the moves begin."""
    k = st.task[T_K]
    if not st.task[T_DESPERATE]:
        st.cache[k, K_SOUGHT] += st.p.reclaim_slabs
        st.cache[k, K_FOUND] += found
        st.cache[k, K_TRIES] += 1
        if st.cache[k, K_TRIES] >= st.p.scan_range:
            st.cache[k, K_NUMER] = adjusted(st.cache[k, K_NUMER], st.cache[k, K_FOUND], st.cache[k, K_SOUGHT])
            st.cache[k, K_TRIES] = st.cache[k, K_SOUGHT] = st.cache[k, K_FOUND] = 0
    return to_cache(reg, i, MOVES, k)


@kernel
def _next_move(st, reg, i):
    """Ask the owner to move the next object, if it still makes sense: kmem_move_buffer()."""
    k, move = st.task[T_K], st.task[T_HEAD]
    if move == NIL:
        return go_next(reg, i)
    source, to, page = wide(st.word[move + M_FROM]), wide(st.word[move + M_TO]), wide(st.word[move + M_SLAB])
    obj = wide(st.word[source])
    if not _worth_moving(st, k, page) or obj < OUT:
        return _end_move(st, reg, i, to)
    if obj == OUT:  # in a magazine: the owner does not know it
        st.cache[k, K_DONT_KNOW] += 1
        return _end_move(st, reg, i, to)
    st.word[to] = obj
    reg[i, R_OBJECT] = obj
    reg[i, R_ADDR] = source << WORD_SHIFT
    reg[i, R_BASE] = to << WORD_SHIFT
    to_cache(reg, i, MOVED, k)
    return MOVE


@kernel
def _moved(st, reg, i):
    """Free the buffer that is not in use now. Thrice LATER counts as NO."""
    k, move = st.task[T_K], st.task[T_HEAD]
    source, to, page = wide(st.word[move + M_FROM]), wide(st.word[move + M_TO]), wide(st.word[move + M_SLAB])
    if reg[i, R_BASE] >= 0:
        st.cache[k, K_YES] += 1
        end = _end_move(st, reg, i, source)
        if st.slab[page, S_REFCNT] == 0:
            st.cache[k, K_FREED] += 1
        move_yes(st, k, page, source)
        return end
    st.cache[k, K_LATER] += 1
    if slab_partial(st, page):
        st.slab[page, S_LATER] += 1
        if st.slab[page, S_LATER] >= st.p.disbelief:
            move_no(st, k, page, source)
        elif not st.slab[page, S_FLAGS] & NOMOVE:
            st.slab[page, S_STUCK] = source
    return _end_move(st, reg, i, to)


@kernel
def _end_move(st, reg, i, b):
    """Free buffer `b` to its slab and end the move: kmem_move_end()."""
    k, move = st.task[T_K], st.task[T_HEAD]
    slab_give(st, k, b)  # no slab is destroyed while moves are pending
    st.task[T_HEAD] = wide(st.word[move + M_NEXT])
    st.task[T_MOVE] = move
    st.cache[k, K_PENDING] -= 1
    return to_cache(reg, i, DEAD, k)


@kernel
def _bury(st, reg, i):
    """After the last move destroy the slabs that have waited for it, then free the kmem_move_t."""
    k, page = st.task[T_K], st.cache[st.task[T_K], K_DEAD]
    if st.cache[k, K_PENDING] == 0 and page != NIL:
        st.cache[k, K_DEAD] = wide(st.slab[page, S_NEXT])
        return destroy_then(st, reg, i, k, page, DEAD)
    st.task[T_LOCK] = cache_lock(k)
    return free_then(st, reg, i, MOVE_CACHE, st.task[T_MOVE], MOVES)
