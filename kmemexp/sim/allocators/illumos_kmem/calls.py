"""What the operations of `allocators/illumos_kmem` have in common: locks, and calls of kmem by kmem.

A hashed slab needs a kmem_slab_t and a bufctl for each buffer, a free may need a magazine, and these are buffers of
caches as well. So an operation has a stack of calls. A call is a frame in a register: the cache, where its caller goes
on, and the buffer to be freed or, while a slab is being made, its colour (+ 1). Three frames are enough, as neither
magazines nor slab headers nor bufctls come from hashed caches. `phases` says which bits hold what.
"""

from kmemexp.jit import kernel
from kmemexp.sim.allocators.illumos_kmem.phases import (
    BUFFER_SHIFT,
    CACHE_MASK,
    CACHE_SHIFT,
    DEPTH_SHIFT,
    FIRST_TASK,
    FREED,
    HANDED_OUT,
    PHASE_MASK,
    RETURN_MASK,
)
from kmemexp.sim.allocators.illumos_kmem.slabs import K_CHUNK, K_MOVES, NIL, WORD_SHIFT
from kmemexp.sim.allocators.illumos_kmem.task import T_LOCK
from kmemexp.sim.slots import (
    AGAIN,
    DONE,
    FAILED,
    LOCK_SHIFT,
    R_ADDR,
    R_BASE,
    R_CPU,
    R_GRANTED,
    R_LOCK,
    R_OBJECT,
    R_PHASE,
    R_TARGET,
    R_X,
    R_Y,
)

# Classes of locks.
CPU_LOCK = 0
DEPOT_LOCK = 1
CACHE_LOCK = 2


@kernel
def hand_out(st, reg, i, k, b):
    """Give buffer `b` to whoever asked."""
    if st.cache[k, K_MOVES]:
        st.word[b] = reg[i, R_OBJECT]
    reg[i, R_ADDR] = b << WORD_SHIFT
    reg[i, R_GRANTED] = st.cache[k, K_CHUNK]
    return DONE


@kernel
def to_cpu(reg, i, phase):
    """Go on under the CPU's lock."""
    reg[i, R_PHASE] = (reg[i, R_PHASE] & ~PHASE_MASK) | phase
    reg[i, R_LOCK] = cpu_lock(reg[i, R_CPU])
    return AGAIN


@kernel
def to_depot(reg, i, phase, k):
    """Go on under the lock of a cache's depot."""
    reg[i, R_PHASE] = (reg[i, R_PHASE] & ~PHASE_MASK) | phase
    reg[i, R_LOCK] = depot_lock(k)
    return AGAIN


@kernel
def to_cache(reg, i, phase, k):
    """Go on under the lock of a cache's slabs."""
    reg[i, R_PHASE] = (reg[i, R_PHASE] & ~PHASE_MASK) | phase
    reg[i, R_LOCK] = cache_lock(k)
    return AGAIN


@kernel
def cpu_lock(cpu):
    return (CPU_LOCK << LOCK_SHIFT) | cpu


@kernel
def depot_lock(k):
    return (DEPOT_LOCK << LOCK_SHIFT) | k


@kernel
def cache_lock(k):
    return (CACHE_LOCK << LOCK_SHIFT) | k


@kernel
def _frame(depth):
    """Register of a frame."""
    if depth == 0:
        return R_X
    return R_Y if depth == 1 else R_TARGET


@kernel
def _top(reg, i):
    return reg[i, _frame((reg[i, R_PHASE] >> DEPTH_SHIFT) - 1)]


@kernel
def call(reg, i, k, b, back):
    """Begin a call that concerns buffer `b` of cache `k`; its caller will go on in phase `back`."""
    reg[i, _frame(reg[i, R_PHASE] >> DEPTH_SHIFT)] = ((b + 1) << BUFFER_SHIFT) | (k << CACHE_SHIFT) | back
    reg[i, R_PHASE] += 1 << DEPTH_SHIFT


@kernel
def cache(reg, i):
    """Cache of the innermost call."""
    return (_top(reg, i) >> CACHE_SHIFT) & CACHE_MASK


@kernel
def buffer(reg, i):
    return (_top(reg, i) >> BUFFER_SHIFT) - 1


@kernel
def note(reg, i, b):
    """Keep something in the frame in place of the buffer."""
    top = _frame((reg[i, R_PHASE] >> DEPTH_SHIFT) - 1)
    reg[i, top] = (reg[i, top] & ((1 << BUFFER_SHIFT) - 1)) | ((b + 1) << BUFFER_SHIFT)


@kernel
def finish(st, reg, i, b):
    """End the innermost call with a result. Returns the answer to give."""
    k, back = cache(reg, i), _top(reg, i) & RETURN_MASK
    reg[i, R_PHASE] -= 1 << DEPTH_SHIFT
    if back == FREED:
        return DONE
    if back == HANDED_OUT:
        return FAILED if b == NIL else hand_out(st, reg, i, k, b)
    reg[i, R_BASE] = b
    to_cpu(reg, i, back)
    if back >= FIRST_TASK:
        reg[i, R_LOCK] = st.task[T_LOCK]
    return AGAIN
