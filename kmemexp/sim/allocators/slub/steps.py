"""Allocations and frees in `allocators/slub` beyond the current slab, step by step, whoever they are for.

R_PHASE holds where such a call stands (the lower bits) and what it is for (the upper). A call returns a word of 0 or
more (an allocation), NIL (an allocation without memory) or FINISHED (a free), or else it waits for the driver:
`answer_of` says which answer to give, and the call is made again with the same arguments. It uses R_X and R_Y.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators.slub.slabs import (
    C_PARTIAL,
    C_SLAB,
    K_CPU_SLABS,
    K_FALLBACKS,
    K_MIN_ORDER,
    K_MIN_PARTIAL,
    K_ORDER,
    LIST_LOCK,
    N_PARTIAL,
    NIL,
    PAGE_WORD_SHIFT,
    S_CACHE,
    S_FIRST,
    S_FREE,
    S_FROZEN,
    S_INUSE,
    S_LISTED,
    S_NEXT,
    S_NODE,
    S_SLABS,
    add_partial,
    cpu_pop,
    cpu_push,
    forget_slab,
    lock,
    make_current,
    may_move,
    move_on,
    new_slab,
    push_cpu_partial,
    refill_cpu,
    remove_partial,
    superfluous,
    take_partial,
    unfreeze,
)
from kmemexp.sim.asking import ask_wired
from kmemexp.sim.slots import AGAIN, MAP_ALLOC, MAP_FREE, PAGE_SHIFT, R_BASE, R_BYTES, R_CPU, R_MAP, R_PHASE, R_X, R_Y
from kmemexp.sim.widths import wide

# Where a call stands.
BEGIN = 0
A_NODE = 1  # under the list lock of the R_Y-th node to be asked
A_MAP = 2  # pages of order R_Y have been asked for
A_DEACTIVATE = (
    3  # under the list lock of the slab R_Y >> 1, which goes to the head or tail (R_Y & 1); R_X is to be used
)
A_DROPPED = 4  # a slab that was in the way has been given back; R_X is to be used
F_LIST = 5  # under the list lock of the object's slab
F_FLUSH = 6  # under the list lock of slab R_X, first of those to be put on node lists; R_Y: those to be given back
F_DROPPED = 7  # a slab has been given back; R_Y: more
STAND_BITS = 4
STAND_MASK = (1 << STAND_BITS) - 1

FINISHED = 0
WAITS = -2  # minus the answer

SPREAD = 389  # odd: remote nodes are refused at evenly spread times
CYCLES = 1024


@kernel
def answer_of(result):
    """Answer to the driver of a call that waits."""
    return WAITS - result


@kernel
def stand(reg, i, where):
    """Note where the call stands."""
    reg[i, R_PHASE] = reg[i, R_PHASE] & ~STAND_MASK | where


@kernel
def _locked(st, reg, i, where, k, n):
    """Go on under a list lock."""
    stand(reg, i, where)
    lock(st, reg, i, LIST_LOCK, k, n)
    return WAITS - AGAIN


@outlined
def slab_alloc(st, reg, i, k):
    """Take an object of cache `k` for this CPU: ___slab_alloc()."""
    where = reg[i, R_PHASE] & STAND_MASK
    c = reg[i, R_CPU]
    if where == BEGIN:
        word = cpu_pop(st, k, c)
        if word == NIL:
            word = refill_cpu(st, k, c)
        if word == NIL:
            return _ask_nodes(st, reg, i, k, 0)
        return word
    if where == A_NODE:
        slab = take_partial(st, k, c, (st.node_of[c] + reg[i, R_Y]) % st.nodes)
        if slab == NIL:
            return _ask_nodes(st, reg, i, k, reg[i, R_Y] + 1)
        reg[i, R_X] = slab
    elif where == A_MAP:
        if reg[i, R_BASE] < 0:
            return _refused(st, reg, i, k)
        order = reg[i, R_Y]
        reg[i, R_X] = reg[i, R_BASE] >> PAGE_SHIFT
        if order != st.cache[k, K_ORDER]:
            st.cache[k, K_FALLBACKS] += 1
        new_slab(st, reg, i, k, reg[i, R_X], order, st.node_of[c])
    elif where == A_DEACTIVATE:
        add_partial(st, reg, i, k, reg[i, R_Y] >> 1, reg[i, R_Y] & 1)
    return _use(st, reg, i, k, c)


@kernel
def _ask_nodes(st, reg, i, k, hop):
    """Go to the partial list of the hop-th node from the CPU's own on, or of a later one, else ask for pages."""
    own = st.node_of[reg[i, R_CPU]]
    if hop == 0 and st.node[k, own, N_PARTIAL] > 0:
        reg[i, R_Y] = 0
        return _locked(st, reg, i, A_NODE, k, own)
    if hop > 1 or (st.nodes > 1 and _may_ask_others(st)):
        for j in range(max(hop, 1), st.nodes):
            n = (own + j) % st.nodes
            if st.node[k, n, N_PARTIAL] > st.cache[k, K_MIN_PARTIAL]:
                reg[i, R_Y] = j
                return _locked(st, reg, i, A_NODE, k, n)
    return _ask_pages(st, reg, i, st.cache[k, K_ORDER])


@kernel
def _may_ask_others(st):
    """Whether other nodes are asked this time; a counter stands for the kernel's clock."""
    st.defrag[0] += 1
    return st.p.defrag_ratio > 0 and (st.defrag[0] * SPREAD) % CYCLES <= st.p.defrag_ratio


@kernel
def _ask_pages(st, reg, i, order):
    reg[i, R_Y] = order
    nbytes = 1 << (order + PAGE_SHIFT)
    ask_wired(reg, i, reg[i, R_PHASE] & ~STAND_MASK | A_MAP, st.map, nbytes, nbytes)
    return WAITS - MAP_ALLOC


@kernel
def _refused(st, reg, i, k):
    """There is no block of that order: be content with the smallest that holds an object."""
    if reg[i, R_Y] > st.cache[k, K_MIN_ORDER]:
        return _ask_pages(st, reg, i, st.cache[k, K_MIN_ORDER])
    return NIL


@kernel
def _use(st, reg, i, k, c):
    """Make slab R_X current. Another operation may have got this CPU one meanwhile: that one must go first."""
    if st.cpu[k, c, C_SLAB] != NIL:
        waits = deactivate(st, reg, i, k, c)
        if waits != FINISHED:
            return waits
    make_current(st, k, c, reg[i, R_X])
    return cpu_pop(st, k, c)


@kernel
def deactivate(st, reg, i, k, c):
    """Send a CPU's current slab to its node, or back to the map; FINISHED if it is full. Goes on with A_*."""
    tail = 0 if st.slab[st.cpu[k, c, C_SLAB], S_FREE] == NIL else 1
    slab = unfreeze(st, k, c)
    if superfluous(st, k, slab):
        return _give_back(st, reg, i, k, slab, A_DROPPED)
    if st.slab[slab, S_FREE] == NIL:
        return FINISHED
    reg[i, R_Y] = slab << 1 | tail
    return _locked(st, reg, i, A_DEACTIVATE, k, wide(st.slab[slab, S_NODE]))


@kernel
def _give_back(st, reg, i, k, slab, where):
    stand(reg, i, where)
    reg[i, R_MAP] = st.map
    reg[i, R_BASE] = slab << PAGE_SHIFT
    reg[i, R_BYTES] = 1 << (forget_slab(st, k, slab) + PAGE_SHIFT)
    return WAITS - MAP_FREE


@outlined
def slab_free(st, reg, i, word):
    """Give an object back on this CPU: do_slab_free()."""
    where = reg[i, R_PHASE] & STAND_MASK
    if where == F_FLUSH:
        return _flush(st, reg, i)
    if where == F_DROPPED:
        return drop_next(st, reg, i)
    slab = wide(st.slab[word >> PAGE_WORD_SHIFT, S_FIRST])
    k, c = wide(st.slab[slab, S_CACHE]) - 1, reg[i, R_CPU]
    if where == BEGIN and st.cpu[k, c, C_SLAB] == slab:
        cpu_push(st, k, c, slab, word)
        return FINISHED
    return _free_elsewhere(st, reg, i, k, slab, word, where == F_LIST)


@kernel
def _free_elsewhere(st, reg, i, k, slab, word, locked):
    """Free an object of a slab that is not this CPU's current one: __slab_free()."""
    prior, frozen = wide(st.slab[slab, S_FREE]), st.slab[slab, S_FROZEN]
    emptied = st.slab[slab, S_INUSE] == 1
    listless = st.cache[k, K_CPU_SLABS] == 0
    needs = not frozen and (emptied or prior == NIL or may_move(st, slab)) and (prior != NIL or listless)
    if needs and not locked:
        return _locked(st, reg, i, F_LIST, k, wide(st.slab[slab, S_NODE]))
    st.link[word] = prior
    st.slab[slab, S_FREE] = word - (slab << PAGE_WORD_SHIFT)
    st.slab[slab, S_INUSE] -= 1
    if not frozen and prior == NIL and not listless:
        return _keep(st, reg, i, k, slab)
    if not needs or (prior != NIL and not st.slab[slab, S_LISTED]):
        return FINISHED
    if superfluous(st, k, slab):
        if prior != NIL:
            remove_partial(st, k, slab)
        reg[i, R_Y] = NIL
        return _give_back(st, reg, i, k, slab, F_DROPPED)
    if prior == NIL:
        add_partial(st, reg, i, k, slab, 1)
    elif may_move(st, slab):
        move_on(st, reg, i, k, slab)
    return FINISHED


@kernel
def _keep(st, reg, i, k, slab):
    """Put a slab that was full on this CPU's partial list; a list that has enough goes to the nodes before."""
    c = reg[i, R_CPU]
    listed = st.cpu[k, c, C_PARTIAL]
    enough = listed != NIL and st.slab[listed, S_SLABS] >= st.cache[k, K_CPU_SLABS]
    if enough:
        st.cpu[k, c, C_PARTIAL] = NIL
    push_cpu_partial(st, k, c, slab)
    return flush_list(st, reg, i, k, listed) if enough else FINISHED


@kernel
def flush_list(st, reg, i, k, slab):
    """Begin to move slabs, linked from `slab` on, to the lists of their nodes: __put_partials(). Goes on with F_*."""
    reg[i, R_X] = slab
    reg[i, R_Y] = NIL
    return _locked(st, reg, i, F_FLUSH, k, wide(st.slab[slab, S_NODE]))


@kernel
def _flush(st, reg, i):
    """Move slabs of one node to the tail of its list, but for empty ones if it has enough."""
    slab = reg[i, R_X]
    k, n = wide(st.slab[slab, S_CACHE]) - 1, wide(st.slab[slab, S_NODE])
    while slab != NIL and st.slab[slab, S_NODE] == n:
        after = wide(st.slab[slab, S_NEXT])
        if superfluous(st, k, slab):
            st.slab[slab, S_NEXT] = reg[i, R_Y]
            reg[i, R_Y] = slab
        else:
            add_partial(st, reg, i, k, slab, 1)
        slab = after
    reg[i, R_X] = slab
    if slab != NIL:
        return _locked(st, reg, i, F_FLUSH, k, wide(st.slab[slab, S_NODE]))
    return drop_next(st, reg, i)


@kernel
def drop_next(st, reg, i):
    """Give the next of the empty slabs R_Y back to the map."""
    slab = reg[i, R_Y]
    if slab == NIL:
        return FINISHED
    reg[i, R_Y] = st.slab[slab, S_NEXT]
    return _give_back(st, reg, i, wide(st.slab[slab, S_CACHE]) - 1, slab, F_DROPPED)
