"""kmem_cache_shrink() of every cache in `allocators/slub`: CPUs are flushed, empty slabs given back, others sorted.

The caches of items come first, then those of kmalloc(), the largest first. regs.ADDR counts what has been done: of each
cache its CPUs, then its nodes.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.slub import slabs, steps
from kmemexp.sim.allocators.slub.sheaves import (
    BATCH_MAX,
    H_SIZE,
    about,
    barn_get,
    free_chain,
    has_sheaves,
    take,
    taken_sheaf,
    under_barn_lock,
    under_none,
    unload,
)
from kmemexp.sim.allocators.slub.slabs import add_partial, lock, remove_partial
from kmemexp.sim.allocators.slub.state import State
from kmemexp.sim.allocators.slub.steps import answer_of, drop_next, flush_list, slab_free, take_current
from kmemexp.sim.slots import AGAIN, DONE
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

PROMOTE_MAX = 32  # slabs with more free objects than this stay where they are

# What is being done, in regs.PHASE above where a call to the slab layer stands.
ENTER = 0  # the next CPU or node
CHAIN = 1  # objects of a sheaf go to slabs
UNSHEAF = 2  # then the sheaf
MAIN = 3  # a CPU's main sheaf is flushed
SLAB = 4  # its current slab
PARTIAL = 5  # its partial list
BARN = 6  # under a barn's lock: take a sheaf
SORT = 7  # under a list lock: sort a node's partial list
DROP = 8  # give empty slabs back


@outlined
def shrink(st: State, reg: Registers, i: int) -> int:
    """Play steps until one must wait for the driver. Returns its answer."""
    if reg[i, regs.PHASE] == 0:
        reg[i, regs.ADDR] = 0
    while True:
        answer = DONE
        what = reg[i, regs.PHASE] >> steps.STAND_BITS
        each = st.cpus + st.nodes
        k, j = len(st.cache) - 1 - reg[i, regs.ADDR] // each, reg[i, regs.ADDR] % each
        if k < 0:
            return DONE
        if what == ENTER:
            answer = _enter_cpu(st, reg, i, k, j) if j < st.cpus else _enter_node(st, reg, i, k, j - st.cpus)
        elif what == CHAIN or what == UNSHEAF or what == MAIN:
            answer = _sheaf(st, reg, i, k, what, j < st.cpus)
        elif what == SLAB:
            answer = _slab(st, reg, i, k, j)
        elif what == PARTIAL:
            answer = _partial(st, reg, i, k, j)
        elif what == BARN:
            return _from_barn(st, reg, i, k, j - st.cpus)
        elif what == SORT:
            _sort(st, reg, i, k, j - st.cpus)
            about(reg, i, DROP)
        else:
            waits = drop_next(st, reg, i, steps.F_DROPPED)
            if waits != steps.FINISHED:
                return answer_of(waits)
            _leave(reg, i)
        if answer != DONE:
            return answer


@kernel
def _leave(reg: Registers, i: int) -> None:
    """Go on to the next CPU or node."""
    reg[i, regs.ADDR] += 1
    about(reg, i, ENTER)


@kernel
def _enter_cpu(st: State, reg: Registers, i: int, k: int, cpu: int) -> int:
    """The kernel has each CPU do this by itself."""
    reg[i, regs.CPU] = cpu
    take(reg, i, slabs.NIL, slabs.NIL)
    about(reg, i, SLAB)
    if has_sheaves(st, k):
        about(reg, i, MAIN)
        spare = st.cpu[k, cpu, slabs.C_SPARE]
        st.cpu[k, cpu, slabs.C_SPARE] = slabs.NIL
        if spare != slabs.NIL:
            take(reg, i, spare, unload(st, spare, st.cache[k, slabs.K_SHEAF]))
            about(reg, i, CHAIN)
    return DONE


@kernel
def _enter_node(st: State, reg: Registers, i: int, k: int, n: int) -> int:
    reg[i, regs.CPU] = st.first_cpu[n]
    if st.node[k, n, slabs.NODE_FULLS] + st.node[k, n, slabs.NODE_EMPTIES] > 0:
        return under_barn_lock(st, reg, i, k, BARN)
    if st.node[k, n, slabs.NODE_PARTIAL] == 0:
        _leave(reg, i)
        return DONE
    about(reg, i, SORT)
    lock(st, reg, i, slabs.LIST_LOCK, k, n)
    return AGAIN


@kernel
def _from_barn(st: State, reg: Registers, i: int, k: int, n: int) -> int:
    """Take a sheaf out of the barn. The kernel takes them all at once."""
    at = slabs.NODE_FULL if st.node[k, n, slabs.NODE_FULLS] > 0 else slabs.NODE_EMPTY
    if st.node[k, n, at + 1] == 0:
        return under_none(st, reg, i, ENTER)
    sheaf = barn_get(st, k, n, at)
    take(reg, i, sheaf, unload(st, sheaf, st.cache[k, slabs.K_SHEAF]))
    return under_none(st, reg, i, CHAIN)


@outlined
def _sheaf(st: State, reg: Registers, i: int, k: int, what: int, of_cpu: int) -> int:
    """Flush the taken chain, then give the sheaf it was in back, or go on with the main sheaf."""
    waits = slab_free(st, reg, i, taken_sheaf(reg, i)) if what == UNSHEAF else free_chain(st, reg, i)
    if waits != steps.FINISHED:
        return answer_of(waits)
    if what == CHAIN:
        about(reg, i, UNSHEAF)
        return DONE
    take(reg, i, slabs.NIL, slabs.NIL)
    if not of_cpu:
        about(reg, i, ENTER)
        return DONE
    main = st.cpu[k, reg[i, regs.CPU], slabs.C_MAIN]
    if main != slabs.NIL and st.word[main + H_SIZE] > 0:
        take(reg, i, slabs.NIL, unload(st, main, BATCH_MAX))
        about(reg, i, MAIN)
    else:
        about(reg, i, SLAB)
    return DONE


@kernel
def _slab(st: State, reg: Registers, i: int, k: int, cpu: int) -> int:
    has_slab = st.cpu[k, cpu, slabs.C_SLAB] != slabs.NIL
    if has_slab or reg[i, regs.PHASE] & steps.STAND_MASK != steps.BEGIN:
        waits = take_current(st, reg, i, k, cpu)
        if waits != steps.FINISHED:
            return answer_of(waits)
    about(reg, i, PARTIAL)
    return DONE


@kernel
def _partial(st: State, reg: Registers, i: int, k: int, cpu: int) -> int:
    if reg[i, regs.PHASE] & steps.STAND_MASK != steps.BEGIN:
        waits = slab_free(st, reg, i, 0)
        if waits != steps.FINISHED:
            return answer_of(waits)
    elif st.cpu[k, cpu, slabs.C_PARTIAL] != slabs.NIL:
        slab = st.cpu[k, cpu, slabs.C_PARTIAL]
        st.cpu[k, cpu, slabs.C_PARTIAL] = slabs.NIL
        return answer_of(flush_list(st, reg, i, k, slab))
    _leave(reg, i)
    return DONE


@outlined
def _sort(st: State, reg: Registers, i: int, k: int, n: int) -> None:
    """Put nearly full slabs first, the fullest first; leave empty ones, linked, in regs.Y: __kmem_cache_do_shrink().

    A list that is sorted by itself stays so.
    """
    reg[i, regs.X] = slabs.NIL
    if st.p.slab_order:
        _leave_out_empty(st, reg, i, k, n)
        return
    for free in range(PROMOTE_MAX + 1):
        st.promote[free] = slabs.NIL
    dropped = rest = last = slabs.NIL
    slab = st.node[k, n, slabs.NODE_HEAD]
    while slab != slabs.NIL:
        after = wide(st.slab[slab, slabs.S_NEXT])
        free = wide(st.slab[slab, slabs.S_OBJECTS]) - st.slab[slab, slabs.S_INUSE]
        if st.slab[slab, slabs.S_INUSE] == 0:
            st.slab[slab, slabs.S_NEXT] = dropped
            dropped = slab
        elif free <= PROMOTE_MAX:
            st.slab[slab, slabs.S_NEXT] = st.promote[free]
            st.promote[free] = slab
        else:
            st.slab[slab, slabs.S_NEXT] = slabs.NIL
            if last == slabs.NIL:
                rest = slab
            else:
                st.slab[last, slabs.S_NEXT] = slab
            last = slab
        slab = after
    st.promote[0] = rest
    st.node[k, n, slabs.NODE_HEAD] = st.node[k, n, slabs.NODE_TAIL] = slabs.NIL
    st.node[k, n, slabs.NODE_PARTIAL] = 0
    for free in range(1, PROMOTE_MAX + 2):
        slab = st.promote[free % (PROMOTE_MAX + 1)]
        while slab != slabs.NIL:
            after = wide(st.slab[slab, slabs.S_NEXT])
            add_partial(st, reg, i, k, slab, 1)
            slab = after
    reg[i, regs.Y] = dropped


@kernel
def _leave_out_empty(st: State, reg: Registers, i: int, k: int, n: int) -> None:
    """Take the empty slabs off a node's list; leave them, linked, in regs.Y."""
    reg[i, regs.Y] = slabs.NIL
    slab = st.node[k, n, slabs.NODE_HEAD]
    while slab != slabs.NIL:
        after = wide(st.slab[slab, slabs.S_NEXT])
        if st.slab[slab, slabs.S_INUSE] == 0:
            remove_partial(st, k, slab)
            st.slab[slab, slabs.S_NEXT] = reg[i, regs.Y]
            reg[i, regs.Y] = slab
        slab = after
