"""Frees into sheaves (see `sheaves.py`): one function for each thing that a free may be about."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators.slub.sheaves import (
    BARN,
    BATCH_MAX,
    FLUSH,
    FLUSH_LAST,
    FLUSH_MORE,
    H_SIZE,
    INSTALL,
    LOOK,
    MAIN,
    MAX_FULL_SHEAVES,
    PUT,
    SHEAF,
    SLAB,
    START,
    about,
    barn_get,
    barn_put,
    free_chain,
    install_first,
    sheaf_memory,
    sheaf_push,
    swap,
    take,
    taken_sheaf,
    under_barn_lock,
    under_none,
    unload,
)
from kmemexp.sim.allocators.slub.slabs import (
    C_MAIN,
    C_SPARE,
    K_SHEAF,
    N_EMPTIES,
    N_EMPTY,
    N_FULL,
    N_FULLS,
    NIL,
    WORD_SHIFT,
)
from kmemexp.sim.allocators.slub.steps import FINISHED, STAND_BITS, answer_of, slab_free
from kmemexp.sim.slots import DONE, F_NOWAIT, R_ADDR, R_CPU, R_FLAGS, R_GRANTED, R_PHASE


@outlined
def sheaf_free(st, reg, i, k):
    """Play one step of a free that the main sheaf could not take. `k`: cache of the object. Returns its answer."""
    what = reg[i, R_PHASE] >> STAND_BITS
    if what == START:
        reg[i, R_GRANTED] = 0
    if what <= BARN:
        return _look_for_room(st, reg, i, k, what == BARN)
    if what == MAIN or what == SHEAF:
        return _get_room(st, reg, i, k)
    if what == PUT:
        barn_put(st, k, st.node_of[reg[i, R_CPU]], taken_sheaf(reg, i), N_EMPTY)
        return under_none(st, reg, i, LOOK)
    if what == INSTALL:
        return _install_empty(st, reg, i, k, True)
    return _flush(st, reg, i, k)


@kernel
def to_slab(st, reg, i):
    """Give the object itself to its slab. Returns the free's answer."""
    waits = slab_free(st, reg, i, reg[i, R_ADDR] >> WORD_SHIFT)
    return DONE if waits == FINISHED else answer_of(waits)


@kernel
def _pushed(st, reg, i, k):
    sheaf_push(st, k, reg[i, R_CPU], reg[i, R_ADDR] >> WORD_SHIFT)
    return DONE


@kernel
def _look_for_room(st, reg, i, k, locked):
    """Find room in the CPU's sheaves or an empty sheaf in the barn, else see what to do: free_to_pcs()."""
    c = reg[i, R_CPU]
    n = st.node_of[c]
    main, spare = st.cpu[k, c, C_MAIN], st.cpu[k, c, C_SPARE]
    if main == NIL:
        about(reg, i, MAIN)
        return _get_room(st, reg, i, k)
    if st.word[main + H_SIZE] < st.cache[k, K_SHEAF]:
        return _pushed(st, reg, i, k)
    if spare != NIL and st.word[spare + H_SIZE] < st.cache[k, K_SHEAF]:
        swap(st, k, c)
        return _pushed(st, reg, i, k)
    crowded = spare != NIL and st.node[k, n, N_FULLS] >= MAX_FULL_SHEAVES
    if not crowded and st.node[k, n, N_EMPTIES] > 0:
        if not locked:
            return under_barn_lock(st, reg, i, k, BARN)
        st.cpu[k, c, C_MAIN] = barn_get(st, k, n, N_EMPTY)
        if spare == NIL:
            st.cpu[k, c, C_SPARE] = main
        else:
            barn_put(st, k, n, main, N_FULL)
        return _pushed(st, reg, i, k)
    if crowded:
        st.cpu[k, c, C_SPARE] = NIL
        take(reg, i, spare, unload(st, spare, st.cache[k, K_SHEAF]))
    if locked:
        return under_none(st, reg, i, FLUSH if crowded else SHEAF)
    about(reg, i, FLUSH if crowded else SHEAF)
    if crowded:
        return _flush(st, reg, i, k)
    return _get_room(st, reg, i, k)


@outlined
def _get_room(st, reg, i, k):
    """Get memory for another sheaf; without it, flush the main one, or have the slab take the object."""
    first = reg[i, R_PHASE] >> STAND_BITS == MAIN
    reg[i, R_FLAGS] |= F_NOWAIT
    word = sheaf_memory(st, reg, i, k)
    if word < NIL:
        return answer_of(word)
    if first:
        if word != NIL:
            return install_first(st, reg, i, k, word)
        about(reg, i, SLAB)
        return to_slab(st, reg, i)
    if word == NIL:
        _take_batch(st, reg, i, k)
        return _flush(st, reg, i, k)
    take(reg, i, word, NIL)
    return _install_empty(st, reg, i, k, False)


@kernel
def _take_batch(st, reg, i, k):
    """Take a batch of objects out of the main sheaf: sheaf_flush_main()."""
    main = st.cpu[k, reg[i, R_CPU], C_MAIN]
    take(reg, i, NIL, unload(st, main, BATCH_MAX))
    about(reg, i, FLUSH_MORE if st.word[main + H_SIZE] > 0 else FLUSH_LAST)


@outlined
def _flush(st, reg, i, k):
    """Give the taken chain to slabs, and more of the main sheaf, then go on with the object."""
    while True:
        waits = free_chain(st, reg, i)
        if waits != FINISHED:
            return answer_of(waits)
        what = reg[i, R_PHASE] >> STAND_BITS
        if what == FLUSH:
            return _install_empty(st, reg, i, k, False)
        if what == FLUSH_LAST:
            break
        _take_batch(st, reg, i, k)
    if st.word[st.cpu[k, reg[i, R_CPU], C_MAIN] + H_SIZE] == st.cache[k, K_SHEAF]:
        return under_none(st, reg, i, LOOK)
    return _pushed(st, reg, i, k)


@kernel
def _install_empty(st, reg, i, k, locked):
    """Give the CPU the taken, empty sheaf, and put the object into the main one: __pcs_install_empty_sheaf()."""
    c = reg[i, R_CPU]
    n = st.node_of[c]
    main, spare, sheaf = st.cpu[k, c, C_MAIN], st.cpu[k, c, C_SPARE], taken_sheaf(reg, i)
    capacity = st.cache[k, K_SHEAF]
    if spare == NIL:
        st.cpu[k, c, C_SPARE] = main
        st.cpu[k, c, C_MAIN] = sheaf
    elif not locked:
        return under_barn_lock(st, reg, i, k, INSTALL)
    elif st.word[main + H_SIZE] < capacity:
        barn_put(st, k, n, sheaf, N_EMPTY)
    elif st.word[spare + H_SIZE] < capacity:
        swap(st, k, c)
        barn_put(st, k, n, sheaf, N_EMPTY)
    else:
        barn_put(st, k, n, main, N_FULL)
        st.cpu[k, c, C_MAIN] = sheaf
    return _pushed(st, reg, i, k)
