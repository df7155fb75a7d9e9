"""Allocations and frees in `allocators/slub` beyond the current slab, step by step.

regs.PHASE holds where such a call stands (the lower bits) and what it is for (the upper). A call returns a word of 0 or
more (an allocation), NIL (an allocation without memory) or FINISHED (a free), or else it waits for the driver:
`answer_of` says which answer to give, and the call is made again with the same arguments. It uses regs.X and regs.Y.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.slub import slabs
from kmemexp.sim.allocators.slub.slabs import (
    add_partial,
    cpu_has_enough,
    cpu_pop,
    cpu_push,
    forget_slab,
    link_in,
    lock,
    make_current,
    may_move,
    move_on,
    new_slab,
    node_for,
    push_cpu_partial,
    refill_cpu,
    remove_partial,
    superfluous,
    take_partial,
    unfreeze,
)
from kmemexp.sim.allocators.slub.state import State
from kmemexp.sim.allocators.slub.vectors import free_vector, get_vector, vector_cache, wants_vector
from kmemexp.sim.asking import ask_wired
from kmemexp.sim.slots import AGAIN, ATTR_TRY, MAP_ALLOC, MAP_FREE, PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

# Where a call stands.
BEGIN = 0
A_NODE = 1  # under the list lock of the regs.Y-th node to be asked
A_MAP = 2  # pages of order regs.Y have been asked for
A_DEACTIVATE = (
    3  # under the list lock of the slab regs.Y >> 1, which goes to the head or tail (regs.Y & 1); regs.X is to be used
)
A_DROPPED = 4  # a slab that was in the way has been given back; regs.X is to be used; regs.Y: more to be given back
F_LIST = 5  # under the list lock of the object's slab
F_FLUSH = (
    6  # under the list lock of slab regs.X, first of those to be put on node lists; regs.Y: those to be given back
)
F_DROPPED = 7  # a slab has been given back; regs.Y: more
A_VECTOR = 8  # pages of order regs.Y have been asked for, for the vector of slab regs.X, which is to be used
STAND_BITS = 4
STAND_MASK = (1 << STAND_BITS) - 1

FINISHED = 0
WAITS = -2  # minus the answer

COSTLY_ORDER = 3  # PAGE_ALLOC_COSTLY_ORDER
PAGEBLOCK_ORDER = 9
ZONE_CALL = 3  # regs.CALL

SPREAD = 389  # odd: remote nodes are refused at evenly spread times
CYCLES = 1024


@kernel
def answer_of(result: int) -> int:
    """Answer to the driver of a call that waits."""
    return WAITS - result


@kernel
def stand(reg: Registers, i: int, where: int) -> None:
    """Note where the call stands."""
    reg[i, regs.PHASE] = reg[i, regs.PHASE] & ~STAND_MASK | where


@kernel
def _locked(st: State, reg: Registers, i: int, where: int, k: int, n: int) -> int:
    """Go on under a list lock."""
    stand(reg, i, where)
    lock(st, reg, i, slabs.LIST_LOCK, k, n)
    return WAITS - AGAIN


@outlined
def slab_alloc(st: State, reg: Registers, i: int, k: int) -> int:
    """Take an object of cache `k` for this CPU: ___slab_alloc()."""
    where = reg[i, regs.PHASE] & STAND_MASK
    cpu = reg[i, regs.CPU]
    if where == BEGIN:
        word = cpu_pop(st, k, cpu)
        if word == slabs.NIL:
            word = refill_cpu(st, k, cpu)
        if word == slabs.NIL:
            return _ask_nodes(st, reg, i, k, 0)
        return word
    if where == A_NODE:
        slab = take_partial(st, k, cpu, (st.node_of[cpu] + reg[i, regs.Y]) % st.nodes)
        if slab == slabs.NIL:
            return _ask_nodes(st, reg, i, k, reg[i, regs.Y] + 1)
        reg[i, regs.X] = slab
    elif where == A_MAP:
        if reg[i, regs.BASE] < 0:
            return _refused(st, reg, i, k)
        order = reg[i, regs.Y]
        reg[i, regs.X] = reg[i, regs.BASE] >> PAGE_SHIFT
        if order != st.cache[k, slabs.K_ORDER]:
            st.cache[k, slabs.K_FALLBACKS] += 1
        new_slab(st, reg, i, k, reg[i, regs.X], order, node_for(st, reg[i, regs.X], cpu))
        if wants_vector(st, k, reg[i, regs.X]) and not get_vector(st, reg[i, regs.X], cpu):
            return _ask_vector(st, reg, i, vector_cache(st, reg[i, regs.X]), slabs.K_ORDER)
    elif where == A_VECTOR:
        kv = vector_cache(st, reg[i, regs.X])
        if reg[i, regs.BASE] >= 0:
            _fill_vector(st, reg, i, kv, cpu)
        elif reg[i, regs.Y] > st.cache[kv, slabs.K_MIN_ORDER]:
            return _ask_vector(st, reg, i, kv, slabs.K_MIN_ORDER)
    elif where == A_DROPPED and reg[i, regs.Y] != slabs.NIL:
        return drop_next(st, reg, i, A_DROPPED)
    elif where == A_DEACTIVATE:
        add_partial(st, reg, i, k, reg[i, regs.Y] >> 1, reg[i, regs.Y] & 1)
    return _use(st, reg, i, k, cpu)


@kernel
def _ask_nodes(st: State, reg: Registers, i: int, k: int, hop: int) -> int:
    """Go to the partial list of the hop-th node from the CPU's own on, or of a later one, else ask for pages."""
    own = st.node_of[reg[i, regs.CPU]]
    if hop == 0 and st.node[k, own, slabs.NODE_PARTIAL] > 0:
        reg[i, regs.Y] = 0
        return _locked(st, reg, i, A_NODE, k, own)
    if hop > 1 or (st.nodes > 1 and _may_ask_others(st)):
        for j in range(max(hop, 1), st.nodes):
            n = (own + j) % st.nodes
            if st.node[k, n, slabs.NODE_PARTIAL] > st.cache[k, slabs.K_MIN_PARTIAL]:
                reg[i, regs.Y] = j
                return _locked(st, reg, i, A_NODE, k, n)
    return _ask_pages(st, reg, i, k, st.cache[k, slabs.K_ORDER], A_MAP)


@kernel
def _may_ask_others(st: State) -> bool:
    """Whether other nodes are asked this time; a counter stands for the kernel's clock."""
    st.defrag[0] += 1
    return st.p.defrag_ratio > 0 and (st.defrag[0] * SPREAD) % CYCLES <= st.p.defrag_ratio


@kernel
def _ask_vector(st: State, reg: Registers, i: int, kv: int, order: int) -> int:
    """Ask for pages of the order in that column, for a slab of vectors."""
    return _ask_pages(st, reg, i, kv, st.cache[kv, order], A_VECTOR)


@outlined
def _fill_vector(st: State, reg: Registers, i: int, kv: int, cpu: int) -> None:
    """Give the slab that waits its vector of a new slab. Another operation may have got this CPU one meanwhile."""
    page = reg[i, regs.BASE] >> PAGE_SHIFT
    if reg[i, regs.Y] != st.cache[kv, slabs.K_ORDER]:
        st.cache[kv, slabs.K_FALLBACKS] += 1
    new_slab(st, reg, i, kv, page, reg[i, regs.Y], node_for(st, page, cpu))
    if st.cpu[kv, cpu, slabs.C_SLAB] == slabs.NIL:
        make_current(st, kv, cpu, page)
    else:
        add_partial(st, reg, i, kv, page, 0)
    get_vector(st, reg[i, regs.X], cpu)


@kernel
def _ask_pages(st: State, reg: Registers, i: int, k: int, order: int, where: int) -> int:
    reg[i, regs.Y] = order
    nbytes = 1 << (order + PAGE_SHIFT)
    by_size(reg, i, 1 << order)
    ask_wired(reg, i, reg[i, regs.PHASE] & ~STAND_MASK | where, st.map, nbytes, nbytes)
    reg[i, regs.ATTR] |= st.cache[k, slabs.K_ASKS]
    if order > st.cache[k, slabs.K_MIN_ORDER]:
        reg[i, regs.ATTR] |= ATTR_TRY
    return WAITS - MAP_ALLOC


@kernel
def by_size(reg: Registers, i: int, pages: int) -> None:
    """Small blocks, and those of a huge page, come from and go to the CPU's lists: pcp_allowed_order()."""
    if pages > 1 << COSTLY_ORDER and pages != 1 << PAGEBLOCK_ORDER:
        reg[i, regs.CALL] = ZONE_CALL


@kernel
def _refused(st: State, reg: Registers, i: int, k: int) -> int:
    """There is no block of that order: be content with the smallest that holds an object."""
    if reg[i, regs.Y] > st.cache[k, slabs.K_MIN_ORDER]:
        return _ask_pages(st, reg, i, k, st.cache[k, slabs.K_MIN_ORDER], A_MAP)
    return slabs.NIL


@kernel
def _use(st: State, reg: Registers, i: int, k: int, cpu: int) -> int:
    """Make slab regs.X current. Another operation may have got this CPU one meanwhile: that one must go first."""
    if st.cpu[k, cpu, slabs.C_SLAB] != slabs.NIL:
        waits = deactivate(st, reg, i, k, cpu)
        if waits != FINISHED:
            return waits
    make_current(st, k, cpu, reg[i, regs.X])
    return cpu_pop(st, k, cpu)


@kernel
def deactivate(st: State, reg: Registers, i: int, k: int, cpu: int) -> int:
    """Send a CPU's current slab to its node, or back to the map; FINISHED if it is full. Goes on with A_*."""
    tail = 0 if st.slab[st.cpu[k, cpu, slabs.C_SLAB], slabs.S_FREE] == slabs.NIL else 1
    slab = unfreeze(st, k, cpu)
    if superfluous(st, k, slab):
        reg[i, regs.Y] = slabs.NIL
        return _give_back(st, reg, i, k, slab, A_DROPPED)
    if st.slab[slab, slabs.S_FREE] == slabs.NIL:
        return FINISHED
    reg[i, regs.Y] = slab << 1 | tail
    return _locked(st, reg, i, A_DEACTIVATE, k, wide(st.slab[slab, slabs.S_NODE]))


@kernel
def _give_back(st: State, reg: Registers, i: int, k: int, slab: int, where: int) -> int:
    """Give a slab's pages back to the map, after its vector; first those of what that leaves empty.

    Then it is one of those that come next, regs.Y.
    """
    stand(reg, i, where)
    if st.cache[k, slabs.K_CHARGED] and st.vector[slab]:
        first = free_vector(st, reg, i, slab, reg[i, regs.CPU])
        if first != slabs.NIL:
            last = first
            while st.slab[last, slabs.S_NEXT] != slabs.NIL:
                last = wide(st.slab[last, slabs.S_NEXT])
            st.slab[last, slabs.S_NEXT] = slab
            st.slab[slab, slabs.S_NEXT] = reg[i, regs.Y]
            reg[i, regs.Y] = st.slab[first, slabs.S_NEXT]
            slab, k = first, wide(st.slab[first, slabs.S_CACHE]) - 1
    reg[i, regs.MAP] = st.map
    reg[i, regs.BASE] = slab << PAGE_SHIFT
    order = forget_slab(st, k, slab)
    by_size(reg, i, 1 << order)
    reg[i, regs.BYTES] = 1 << (order + PAGE_SHIFT)
    return WAITS - MAP_FREE


@outlined
def slab_free(st: State, reg: Registers, i: int, word: int) -> int:
    """Give an object back on this CPU: do_slab_free()."""
    where = reg[i, regs.PHASE] & STAND_MASK
    if where == F_FLUSH:
        return _flush(st, reg, i)
    if where == F_DROPPED:
        return drop_next(st, reg, i, F_DROPPED)
    slab = wide(st.slab[word >> slabs.PAGE_WORD_SHIFT, slabs.S_FIRST])
    k, cpu = wide(st.slab[slab, slabs.S_CACHE]) - 1, reg[i, regs.CPU]
    if where == BEGIN and st.cpu[k, cpu, slabs.C_SLAB] == slab:
        cpu_push(st, k, cpu, slab, word)
        return FINISHED
    return _free_elsewhere(st, reg, i, k, slab, word, where == F_LIST)


@kernel
def _free_elsewhere(st: State, reg: Registers, i: int, k: int, slab: int, word: int, locked: int) -> int:
    """Free an object of a slab that is not this CPU's current one: __slab_free()."""
    prior, frozen = wide(st.slab[slab, slabs.S_FREE]), st.slab[slab, slabs.S_FROZEN]
    emptied = st.slab[slab, slabs.S_INUSE] == 1
    listless = st.cache[k, slabs.K_CPU_SLABS] == 0
    needs = not frozen and (emptied or prior == slabs.NIL or may_move(st, slab)) and (prior != slabs.NIL or listless)
    if needs and not locked:
        return _locked(st, reg, i, F_LIST, k, wide(st.slab[slab, slabs.S_NODE]))
    link_in(st, slab, word)
    if not frozen and prior == slabs.NIL and not listless:
        return _keep(st, reg, i, k, slab)
    if not needs or (prior != slabs.NIL and not st.slab[slab, slabs.S_LISTED]):
        return FINISHED
    if superfluous(st, k, slab):
        if prior != slabs.NIL:
            remove_partial(st, k, slab)
        reg[i, regs.Y] = slabs.NIL
        return _give_back(st, reg, i, k, slab, F_DROPPED)
    if prior == slabs.NIL:
        add_partial(st, reg, i, k, slab, 1)
    elif may_move(st, slab):
        move_on(st, reg, i, k, slab)
    return FINISHED


@kernel
def _keep(st: State, reg: Registers, i: int, k: int, slab: int) -> int:
    """Put a slab that was full on this CPU's partial list; a list that has enough goes to the nodes before."""
    cpu = reg[i, regs.CPU]
    listed = st.cpu[k, cpu, slabs.C_PARTIAL]
    enough = cpu_has_enough(st, k, cpu)
    if enough:
        st.cpu[k, cpu, slabs.C_PARTIAL] = slabs.NIL
    push_cpu_partial(st, k, cpu, slab)
    return flush_list(st, reg, i, k, listed) if enough else FINISHED


@kernel
def flush_list(st: State, reg: Registers, i: int, k: int, slab: int) -> int:
    """Begin to move slabs, linked from `slab` on, to the lists of their nodes: __put_partials(). Goes on with F_*."""
    reg[i, regs.X] = slab
    reg[i, regs.Y] = slabs.NIL
    return _locked(st, reg, i, F_FLUSH, k, wide(st.slab[slab, slabs.S_NODE]))


@kernel
def _flush(st: State, reg: Registers, i: int) -> int:
    """Move slabs of one node to the tail of its list, but for empty ones if it has enough."""
    slab = reg[i, regs.X]
    k, n = wide(st.slab[slab, slabs.S_CACHE]) - 1, wide(st.slab[slab, slabs.S_NODE])
    while slab != slabs.NIL and st.slab[slab, slabs.S_NODE] == n:
        after = wide(st.slab[slab, slabs.S_NEXT])
        if superfluous(st, k, slab):
            st.slab[slab, slabs.S_NEXT] = reg[i, regs.Y]
            reg[i, regs.Y] = slab
        else:
            add_partial(st, reg, i, k, slab, 1)
        slab = after
    reg[i, regs.X] = slab
    if slab != slabs.NIL:
        return _locked(st, reg, i, F_FLUSH, k, wide(st.slab[slab, slabs.S_NODE]))
    return drop_next(st, reg, i, F_DROPPED)


@kernel
def take_current(st: State, reg: Registers, i: int, k: int, cpu: int) -> int:
    """Take its slab from a CPU, step after step: FINISHED, or what is waited for."""
    where = reg[i, regs.PHASE] & STAND_MASK
    if where == BEGIN:
        return deactivate(st, reg, i, k, cpu)
    if where == A_DROPPED and reg[i, regs.Y] != slabs.NIL:
        return drop_next(st, reg, i, A_DROPPED)
    if where == A_DEACTIVATE:
        add_partial(st, reg, i, k, reg[i, regs.Y] >> 1, reg[i, regs.Y] & 1)
    return FINISHED


@kernel
def drop_next(st: State, reg: Registers, i: int, where: int) -> int:
    """Give the next of the empty slabs regs.Y back to the map; the call then stands at F_DROPPED or A_DROPPED."""
    slab = reg[i, regs.Y]
    if slab == slabs.NIL:
        return FINISHED
    reg[i, regs.Y] = st.slab[slab, slabs.S_NEXT]
    return _give_back(st, reg, i, wide(st.slab[slab, slabs.S_CACHE]) - 1, slab, where)
