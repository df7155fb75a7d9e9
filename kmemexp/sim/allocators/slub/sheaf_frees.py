"""Frees into sheaves (see `sheaves.py`): one function for each thing that a free may be about."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.slub import sheaves, slabs
from kmemexp.sim.allocators.slub.sheaves import (
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
from kmemexp.sim.allocators.slub.state import State
from kmemexp.sim.allocators.slub.steps import FINISHED, STAND_BITS, answer_of, slab_free
from kmemexp.sim.slots import DONE
from kmemexp.sim.tables import flag, regs


@outlined
def sheaf_free(st: State, reg: Registers, i: int, k: int) -> int:
    """Play one step of a free that the main sheaf could not take. `k`: cache of the object. Returns its answer."""
    what = reg[i, regs.PHASE] >> STAND_BITS
    if what == sheaves.START:
        take(reg, i, slabs.NIL, slabs.NIL)
    if what <= sheaves.BARN:
        return _look_for_room(st, reg, i, k, what == sheaves.BARN)
    if what == sheaves.MAIN or what == sheaves.SHEAF:
        return _get_room(st, reg, i, k)
    if what == sheaves.PUT:
        barn_put(st, k, st.node_of[reg[i, regs.CPU]], taken_sheaf(reg, i), slabs.NODE_EMPTY)
        return under_none(st, reg, i, sheaves.LOOK)
    if what == sheaves.INSTALL:
        return _install_empty(st, reg, i, k, True)
    return _flush(st, reg, i, k)


@kernel
def to_slab(st: State, reg: Registers, i: int) -> int:
    """Give the object itself to its slab. Returns the free's answer."""
    waits = slab_free(st, reg, i, reg[i, regs.ADDR] >> slabs.WORD_SHIFT)
    return DONE if waits == FINISHED else answer_of(waits)


@kernel
def _pushed(st: State, reg: Registers, i: int, k: int) -> int:
    sheaf_push(st, k, reg[i, regs.CPU], reg[i, regs.ADDR] >> slabs.WORD_SHIFT)
    return DONE


@kernel
def _look_for_room(st: State, reg: Registers, i: int, k: int, locked: int) -> int:
    """Find room in the CPU's sheaves or an empty sheaf in the barn, else see what to do: free_to_pcs()."""
    cpu = reg[i, regs.CPU]
    n = st.node_of[cpu]
    main, spare = st.cpu[k, cpu, slabs.C_MAIN], st.cpu[k, cpu, slabs.C_SPARE]
    if main == slabs.NIL:
        about(reg, i, sheaves.MAIN)
        return _get_room(st, reg, i, k)
    if st.word[main + sheaves.H_SIZE] < st.cache[k, slabs.K_SHEAF]:
        return _pushed(st, reg, i, k)
    if spare != slabs.NIL and st.word[spare + sheaves.H_SIZE] < st.cache[k, slabs.K_SHEAF]:
        swap(st, k, cpu)
        return _pushed(st, reg, i, k)
    crowded = spare != slabs.NIL and st.node[k, n, slabs.NODE_FULLS] >= sheaves.MAX_FULL_SHEAVES
    if not crowded and st.node[k, n, slabs.NODE_EMPTIES] > 0:
        if not locked:
            return under_barn_lock(st, reg, i, k, sheaves.BARN)
        st.cpu[k, cpu, slabs.C_MAIN] = barn_get(st, k, n, slabs.NODE_EMPTY)
        if spare == slabs.NIL:
            st.cpu[k, cpu, slabs.C_SPARE] = main
        else:
            barn_put(st, k, n, main, slabs.NODE_FULL)
        return _pushed(st, reg, i, k)
    if crowded:
        st.cpu[k, cpu, slabs.C_SPARE] = slabs.NIL
        take(reg, i, spare, unload(st, spare, st.cache[k, slabs.K_SHEAF]))
    if locked:
        return under_none(st, reg, i, sheaves.FLUSH if crowded else sheaves.SHEAF)
    about(reg, i, sheaves.FLUSH if crowded else sheaves.SHEAF)
    if crowded:
        return _flush(st, reg, i, k)
    return _get_room(st, reg, i, k)


@outlined
def _get_room(st: State, reg: Registers, i: int, k: int) -> int:
    """Get memory for another sheaf; without it, flush the main one, or have the slab take the object."""
    first = reg[i, regs.PHASE] >> STAND_BITS == sheaves.MAIN
    reg[i, regs.FLAGS] |= flag.NOWAIT
    word = sheaf_memory(st, reg, i, k)
    if word < slabs.NIL:
        return answer_of(word)
    if first:
        if word != slabs.NIL:
            return install_first(st, reg, i, k, word)
        about(reg, i, sheaves.SLAB)
        return to_slab(st, reg, i)
    if word == slabs.NIL:
        _take_batch(st, reg, i, k)
        return _flush(st, reg, i, k)
    take(reg, i, word, slabs.NIL)
    return _install_empty(st, reg, i, k, False)


@kernel
def _take_batch(st: State, reg: Registers, i: int, k: int) -> None:
    """Take a batch of objects out of the main sheaf: sheaf_flush_main()."""
    main = st.cpu[k, reg[i, regs.CPU], slabs.C_MAIN]
    take(reg, i, slabs.NIL, unload(st, main, sheaves.BATCH_MAX))
    about(reg, i, sheaves.FLUSH_MORE if st.word[main + sheaves.H_SIZE] > 0 else sheaves.FLUSH_LAST)


@outlined
def _flush(st: State, reg: Registers, i: int, k: int) -> int:
    """Give the taken chain to slabs, and more of the main sheaf, then go on with the object."""
    while True:
        waits = free_chain(st, reg, i)
        if waits != FINISHED:
            return answer_of(waits)
        what = reg[i, regs.PHASE] >> STAND_BITS
        if what == sheaves.FLUSH:
            return _install_empty(st, reg, i, k, False)
        if what == sheaves.FLUSH_LAST:
            break
        _take_batch(st, reg, i, k)
    if st.word[st.cpu[k, reg[i, regs.CPU], slabs.C_MAIN] + sheaves.H_SIZE] == st.cache[k, slabs.K_SHEAF]:
        return under_none(st, reg, i, sheaves.LOOK)
    return _pushed(st, reg, i, k)


@kernel
def _install_empty(st: State, reg: Registers, i: int, k: int, locked: int) -> int:
    """Give the CPU the taken, empty sheaf, and put the object into the main one: __pcs_install_empty_sheaf()."""
    cpu = reg[i, regs.CPU]
    n = st.node_of[cpu]
    main, spare, sheaf = st.cpu[k, cpu, slabs.C_MAIN], st.cpu[k, cpu, slabs.C_SPARE], taken_sheaf(reg, i)
    capacity = st.cache[k, slabs.K_SHEAF]
    if spare == slabs.NIL:
        st.cpu[k, cpu, slabs.C_SPARE] = main
        st.cpu[k, cpu, slabs.C_MAIN] = sheaf
    elif not locked:
        return under_barn_lock(st, reg, i, k, sheaves.INSTALL)
    elif st.word[main + sheaves.H_SIZE] < capacity:
        barn_put(st, k, n, sheaf, slabs.NODE_EMPTY)
    elif st.word[spare + sheaves.H_SIZE] < capacity:
        swap(st, k, cpu)
        barn_put(st, k, n, sheaf, slabs.NODE_EMPTY)
    else:
        barn_put(st, k, n, main, slabs.NODE_FULL)
        st.cpu[k, cpu, slabs.C_MAIN] = sheaf
    return _pushed(st, reg, i, k)
