"""Sheaves, the layer that Linux has put before SLUB's slabs since 6.18, in `allocators/slub`.

A sheaf is an array of objects. Each CPU has a main one and perhaps a spare one, each node's barn full and empty ones.
A sheaf lies in memory of a kmalloc() cache, and in `State.word` at the place of that memory: its link in a barn, its
size, its objects. regs.TARGET and regs.GRANTED hold what an operation has taken out of everybody's sight: a sheaf, and
a chain of objects on their way to slabs, linked through `State.word`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.slub import slabs, steps
from kmemexp.sim.allocators.slub.slabs import cpu_pop, lock
from kmemexp.sim.allocators.slub.state import State
from kmemexp.sim.allocators.slub.steps import answer_of, slab_alloc, slab_free, stand, take_current
from kmemexp.sim.slots import AGAIN, DONE, FAILED
from kmemexp.sim.tables import flag, regs
from kmemexp.sim.widths import wide

MAX_FULL_SHEAVES = 10
BATCH_MAX = 32  # objects of the main sheaf that are flushed at once

# Words of a sheaf.
H_NEXT = 0
H_SIZE = 1
H_OBJECTS = 4

# What an operation is about, in regs.PHASE above where its call to the slab layer stands.
START = 0  # the operation begins
LOOK = 1  # look at the CPU's sheaves (again)
BARN = 2  # the same under the barn's lock
MAIN = 3  # get memory for the CPU's first main sheaf
PUT = 4  # put an empty sheaf into the barn, under its lock
SHEAF = 5  # get memory for a sheaf
FILL = 6  # take objects for a sheaf from slabs
INSTALL = 7  # give the CPU the sheaf, under the barn's lock
UNDO = 8  # an allocation: give the objects of a sheaf that cannot be filled back to slabs
UNSHEAF = 9  # and the sheaf
FLUSH = 10  # a free: give the objects of the spare sheaf to slabs
FLUSH_MORE = 11  # the same of the main sheaf, which has more than this batch
FLUSH_LAST = 12
SLAB = 13  # take the object itself from a slab, or give it back to one
LEFT = 14  # give what a full sheaf has left of the CPU's slab back to the node

ALL_SHEAVES, ASKED_SHEAVES = 1, 2  # Params.sheaves


@kernel
def about(reg: Registers, i: int, what: int) -> None:
    """Go on with something else; the slab layer has not begun with it."""
    reg[i, regs.PHASE] = what << steps.STAND_BITS | steps.BEGIN


@kernel
def taken_sheaf(reg: Registers, i: int) -> int:
    """Sheaf that the operation has; NIL: none."""
    return reg[i, regs.TARGET] - 1


@kernel
def taken_chain(reg: Registers, i: int) -> int:
    """First object of the operation's chain; NIL: none."""
    return reg[i, regs.GRANTED] - 1


@kernel
def take(reg: Registers, i: int, sheaf: int, chain: int) -> None:
    """Note what the operation has."""
    reg[i, regs.TARGET] = sheaf + 1
    reg[i, regs.GRANTED] = chain + 1


@kernel
def has_sheaves(st: State, k: int) -> bool:
    """Whether a cache has sheaves."""
    return st.p.sheaves != 0 and st.cache[k, slabs.K_SHEAF] > 0


@kernel
def sheaf_pop(st: State, k: int, cpu: int) -> int:
    """Take the last object of a CPU's main sheaf; NIL: it is empty, or there is none yet."""
    main = st.cpu[k, cpu, slabs.C_MAIN]
    if main == slabs.NIL or st.word[main + H_SIZE] == 0:
        return slabs.NIL
    st.word[main + H_SIZE] -= 1
    return wide(st.word[main + H_OBJECTS + st.word[main + H_SIZE]])


@kernel
def sheaf_push(st: State, k: int, cpu: int, word: int) -> bool:
    """Put an object into a CPU's main sheaf. False: it is full, or there is none yet."""
    main = st.cpu[k, cpu, slabs.C_MAIN]
    if main == slabs.NIL or st.word[main + H_SIZE] == st.cache[k, slabs.K_SHEAF]:
        return False
    st.word[main + H_OBJECTS + st.word[main + H_SIZE]] = word
    st.word[main + H_SIZE] += 1
    return True


@kernel
def unload(st: State, sheaf: int, most: int) -> int:
    """Take the last objects of a sheaf, `most` at most. Returns them as a chain, last first."""
    first = last = slabs.NIL
    size = wide(st.word[sheaf + H_SIZE])
    for j in range(min(size, most)):
        word = wide(st.word[sheaf + H_OBJECTS + size - 1 - j])
        if first == slabs.NIL:
            first = word
        else:
            st.word[last] = word
        last = word
    if last != slabs.NIL:
        st.word[last] = slabs.NIL
    st.word[sheaf + H_SIZE] = max(size - most, 0)
    return first


@kernel
def barn_put(st: State, k: int, n: int, sheaf: int, at: int) -> None:
    """Put a sheaf first in one of a barn's lists: NODE_FULL or NODE_EMPTY, followed by its count."""
    st.word[sheaf + H_NEXT] = st.node[k, n, at]
    st.node[k, n, at] = sheaf
    st.node[k, n, at + 1] += 1


@kernel
def barn_get(st: State, k: int, n: int, at: int) -> int:
    """Take the first sheaf of one of a barn's lists."""
    sheaf = st.node[k, n, at]
    st.node[k, n, at] = st.word[sheaf + H_NEXT]
    st.node[k, n, at + 1] -= 1
    return sheaf


@kernel
def swap(st: State, k: int, cpu: int) -> None:
    """Main and spare sheaf change places."""
    main = st.cpu[k, cpu, slabs.C_MAIN]
    st.cpu[k, cpu, slabs.C_MAIN] = st.cpu[k, cpu, slabs.C_SPARE]
    st.cpu[k, cpu, slabs.C_SPARE] = main


@kernel
def under_barn_lock(st: State, reg: Registers, i: int, k: int, what: int) -> int:
    """Go on under the lock of the barn of this CPU's node."""
    about(reg, i, what)
    lock(st, reg, i, slabs.BARN_LOCK, k, st.node_of[reg[i, regs.CPU]])
    return AGAIN


@kernel
def under_none(st: State, reg: Registers, i: int, what: int) -> int:
    """Go on without a lock."""
    about(reg, i, what)
    lock(st, reg, i, 0, 0, 0)
    return AGAIN


@kernel
def sheaf_memory(st: State, reg: Registers, i: int, k: int) -> int:
    """Take memory for an empty sheaf, from the slabs of a kmalloc() cache. Returns a word, NIL, or waits."""
    word = slab_alloc(st, reg, i, st.cache[k, slabs.K_SHEAF_CACHE])
    if word >= 0:
        st.word[word + H_SIZE] = 0
    return word


@kernel
def hand_out(st: State, reg: Registers, i: int, k: int, word: int) -> int:
    """An allocation is done."""
    reg[i, regs.ADDR] = word << slabs.WORD_SHIFT
    reg[i, regs.GRANTED] = st.cache[k, slabs.K_SIZE]
    return DONE


@kernel
def _popped(st: State, reg: Registers, i: int, k: int) -> int:
    return hand_out(st, reg, i, k, sheaf_pop(st, k, reg[i, regs.CPU]))


@outlined
def sheaf_alloc(st: State, reg: Registers, i: int, k: int) -> int:
    """Play one step of an allocation that the main sheaf could not serve. Returns its answer."""
    what = reg[i, regs.PHASE] >> steps.STAND_BITS
    if what == START:
        take(reg, i, slabs.NIL, slabs.NIL)
    if what <= BARN:
        return _look(st, reg, i, k, what == BARN)
    if what == MAIN:
        return _first_main(st, reg, i, k)
    if what == PUT:
        barn_put(st, k, st.node_of[reg[i, regs.CPU]], taken_sheaf(reg, i), slabs.NODE_EMPTY)
        return under_none(st, reg, i, LOOK)
    if what == SHEAF:
        return _get_sheaf(st, reg, i, k)
    if what == FILL:
        return _fill(st, reg, i, k)
    if what == LEFT:
        return _give_left(st, reg, i, k)
    if what == INSTALL:
        return _install(st, reg, i, k, True)
    if what == UNDO or what == UNSHEAF:
        return _undo(st, reg, i, k)
    return _from_slab(st, reg, i, k)


@kernel
def _look(st: State, reg: Registers, i: int, k: int, locked: int) -> int:
    """Find an object in the CPU's sheaves or a full sheaf in the barn, else see what to fill: alloc_from_pcs()."""
    reg[i, regs.BARE] = 1  # local_trylock() leaves interrupts on
    cpu = reg[i, regs.CPU]
    n = st.node_of[cpu]
    main, spare = st.cpu[k, cpu, slabs.C_MAIN], st.cpu[k, cpu, slabs.C_SPARE]
    if main == slabs.NIL:
        about(reg, i, MAIN)
        return _first_main(st, reg, i, k)
    if st.word[main + H_SIZE] == 0 and spare != slabs.NIL and st.word[spare + H_SIZE] > 0:
        swap(st, k, cpu)
    word = sheaf_pop(st, k, cpu)
    if word != slabs.NIL:
        return hand_out(st, reg, i, k, word)
    waits = reg[i, regs.FLAGS] & flag.NOWAIT == 0 or not st.p.cpu_slabs
    if not locked and (
        st.node[k, n, slabs.NODE_FULLS] > 0 or (waits and spare == slabs.NIL and st.node[k, n, slabs.NODE_EMPTIES] > 0)
    ):
        return under_barn_lock(st, reg, i, k, BARN)
    if st.node[k, n, slabs.NODE_FULLS] > 0:
        st.cpu[k, cpu, slabs.C_MAIN] = barn_get(st, k, n, slabs.NODE_FULL)
        barn_put(st, k, n, main, slabs.NODE_EMPTY)
        return _popped(st, reg, i, k)
    what = FILL
    if not waits:
        what = SLAB
    elif spare != slabs.NIL:
        st.cpu[k, cpu, slabs.C_SPARE] = slabs.NIL
        take(reg, i, spare, slabs.NIL)
    elif st.node[k, n, slabs.NODE_EMPTIES] > 0:
        take(reg, i, barn_get(st, k, n, slabs.NODE_EMPTY), slabs.NIL)
    else:
        what = SHEAF
    if locked:
        return under_none(st, reg, i, what)
    about(reg, i, what)
    if what == FILL:
        return _fill(st, reg, i, k)
    if what == SHEAF:
        return _get_sheaf(st, reg, i, k)
    return _from_slab(st, reg, i, k)


@outlined
def _first_main(st: State, reg: Registers, i: int, k: int) -> int:
    """Get the CPU its main sheaf. The kernel does that when it makes the cache."""
    word = sheaf_memory(st, reg, i, k)
    return _without_sheaf(st, reg, i, k, word) if word <= slabs.NIL else install_first(st, reg, i, k, word)


@kernel
def _without_sheaf(st: State, reg: Registers, i: int, k: int, word: int) -> int:
    """There is no memory for a sheaf (NIL): a slab serves. Or the request for it waits."""
    if word < slabs.NIL:
        return answer_of(word)
    about(reg, i, SLAB)
    return _from_slab(st, reg, i, k)


@kernel
def install_first(st: State, reg: Registers, i: int, k: int, sheaf: int) -> int:
    """Give the CPU a new empty sheaf, then look again."""
    cpu = reg[i, regs.CPU]
    if st.cpu[k, cpu, slabs.C_MAIN] == slabs.NIL:
        st.cpu[k, cpu, slabs.C_MAIN] = sheaf
    elif st.cpu[k, cpu, slabs.C_SPARE] == slabs.NIL:
        st.cpu[k, cpu, slabs.C_SPARE] = sheaf
    else:
        take(reg, i, sheaf, slabs.NIL)
        return under_barn_lock(st, reg, i, k, PUT)
    return under_none(st, reg, i, LOOK)


@outlined
def _get_sheaf(st: State, reg: Registers, i: int, k: int) -> int:
    word = sheaf_memory(st, reg, i, k)
    if word <= slabs.NIL:
        return _without_sheaf(st, reg, i, k, word)
    take(reg, i, word, slabs.NIL)
    about(reg, i, FILL)
    return _fill(st, reg, i, k)


@outlined
def _fill(st: State, reg: Registers, i: int, k: int) -> int:
    """Fill the taken sheaf from slabs: refill_sheaf()."""
    sheaf = taken_sheaf(reg, i)
    while st.word[sheaf + H_SIZE] < st.cache[k, slabs.K_SHEAF]:
        word = cpu_pop(st, k, reg[i, regs.CPU]) if reg[i, regs.PHASE] & steps.STAND_MASK == steps.BEGIN else slabs.NIL
        if word == slabs.NIL:
            word = slab_alloc(st, reg, i, k)
        if word == slabs.NIL:
            take(reg, i, sheaf, unload(st, sheaf, st.cache[k, slabs.K_SHEAF]))
            about(reg, i, UNDO)
            return _undo(st, reg, i, k)
        if word < slabs.NIL:
            return answer_of(word)
        st.word[sheaf + H_OBJECTS + st.word[sheaf + H_SIZE]] = word
        st.word[sheaf + H_SIZE] += 1
        reg[i, regs.WORK] += 1
        about(reg, i, FILL)
    if not st.p.cpu_slabs and st.cpu[k, reg[i, regs.CPU], slabs.C_SLAB] != slabs.NIL:
        about(reg, i, LEFT)
        return _give_left(st, reg, i, k)
    return _install(st, reg, i, k, False)


@outlined
def _give_left(st: State, reg: Registers, i: int, k: int) -> int:
    """The slab that a full sheaf was last filled from goes to its node: CPUs have none."""
    waits = take_current(st, reg, i, k, reg[i, regs.CPU])
    if waits != steps.FINISHED:
        return answer_of(waits)
    about(reg, i, FILL)  # a slab that another operation has got meanwhile is that one's to give back
    return _install(st, reg, i, k, False)


@kernel
def _install(st: State, reg: Registers, i: int, k: int, locked: int) -> int:
    """Give the CPU a full sheaf. An empty main sheaf becomes the spare one, or goes to the barn."""
    cpu = reg[i, regs.CPU]
    n = st.node_of[cpu]
    main, spare, sheaf = st.cpu[k, cpu, slabs.C_MAIN], st.cpu[k, cpu, slabs.C_SPARE], taken_sheaf(reg, i)
    empty = st.word[main + H_SIZE] == 0
    if spare == slabs.NIL and not (empty and st.p.sheaves == ASKED_SHEAVES):
        st.cpu[k, cpu, slabs.C_SPARE] = main if empty else sheaf
        if empty:
            st.cpu[k, cpu, slabs.C_MAIN] = sheaf
    elif not locked:
        return under_barn_lock(st, reg, i, k, INSTALL)
    elif empty:
        barn_put(st, k, n, main, slabs.NODE_EMPTY)
        st.cpu[k, cpu, slabs.C_MAIN] = sheaf
    elif st.word[spare + H_SIZE] == 0:
        barn_put(st, k, n, spare, slabs.NODE_EMPTY)
        st.cpu[k, cpu, slabs.C_SPARE] = sheaf
    else:
        barn_put(st, k, n, sheaf, slabs.NODE_FULL)
    return _popped(st, reg, i, k)


@outlined
def _undo(st: State, reg: Registers, i: int, k: int) -> int:
    """A sheaf could not be filled: what it has got goes back to the slabs, and so does its own memory."""
    if reg[i, regs.PHASE] >> steps.STAND_BITS == UNDO:
        waits = free_chain(st, reg, i)
        if waits != steps.FINISHED:
            return answer_of(waits)
        about(reg, i, UNSHEAF)
    waits = slab_free(st, reg, i, taken_sheaf(reg, i))
    if waits != steps.FINISHED:
        return answer_of(waits)
    about(reg, i, SLAB)
    return _from_slab(st, reg, i, k)


@kernel
def _from_slab(st: State, reg: Registers, i: int, k: int) -> int:
    word = slab_alloc(st, reg, i, k)
    if word == slabs.NIL:
        return FAILED
    if word < slabs.NIL:
        return answer_of(word)
    return hand_out(st, reg, i, k, word)


@outlined
def free_chain(st: State, reg: Registers, i: int) -> int:
    """Give the objects of the taken chain to slabs. Returns FINISHED, or waits."""
    while True:
        where = reg[i, regs.PHASE] & steps.STAND_MASK
        if where == steps.F_FLUSH or where == steps.F_DROPPED:  # of an object that the chain is rid of
            waits = slab_free(st, reg, i, 0)
        else:
            word = taken_chain(reg, i)
            if word == slabs.NIL:
                return steps.FINISHED
            after = wide(st.word[word])
            waits = slab_free(st, reg, i, word)
            if waits == steps.FINISHED or reg[i, regs.PHASE] & steps.STAND_MASK != steps.F_LIST:
                take(reg, i, taken_sheaf(reg, i), after)
        if waits != steps.FINISHED:
            return waits
        stand(reg, i, steps.BEGIN)
