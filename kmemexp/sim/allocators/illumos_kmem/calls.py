"""What the operations of `allocators/illumos_kmem` have in common: locks, and calls of kmem by kmem.

A hashed slab needs a kmem_slab_t and a bufctl for each buffer, a free may need a magazine, and these are buffers of
caches as well. So an operation has a stack of calls. A call is a frame in a register: the cache, where its caller goes
on, and the buffer to be freed or, while a slab is being made, its colour (+ 1). Three frames are enough, as neither
magazines nor slab headers nor bufctls come from hashed caches. `phases` says which bits hold what.
"""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.illumos_kmem import phases
from kmemexp.sim.allocators.illumos_kmem.slabs import K_CHUNK, K_MOVES, NIL, WORD_SHIFT, noted
from kmemexp.sim.allocators.illumos_kmem.state import State
from kmemexp.sim.allocators.illumos_kmem.task import T_LOCK
from kmemexp.sim.slots import AGAIN, DONE, FAILED
from kmemexp.sim.tables import regs

# Classes of locks.
CPU_LOCK = 0
DEPOT_LOCK = 1
CACHE_LOCK = 2


@kernel
def hand_out(st: State, reg: Registers, i: int, k: int, b: int) -> int:
    """Give buffer `b` to the caller."""
    if st.cache[k, K_MOVES]:
        st.word[noted(st, k, b)] = reg[i, regs.OBJECT]
    reg[i, regs.ADDR] = b << WORD_SHIFT
    reg[i, regs.GRANTED] = st.cache[k, K_CHUNK]
    return DONE


@kernel
def to_cpu(reg: Registers, i: int, phase: int) -> int:
    """Go on under the CPU's lock."""
    reg[i, regs.PHASE] = (reg[i, regs.PHASE] & ~phases.PHASE_MASK) | phase
    reg[i, regs.LOCK] = cpu_lock(reg[i, regs.CPU])
    return AGAIN


@kernel
def to_depot(reg: Registers, i: int, phase: int, k: int) -> int:
    """Go on under the lock of a cache's depot."""
    reg[i, regs.PHASE] = (reg[i, regs.PHASE] & ~phases.PHASE_MASK) | phase
    reg[i, regs.LOCK] = depot_lock(k)
    return AGAIN


@kernel
def to_cache(reg: Registers, i: int, phase: int, k: int) -> int:
    """Go on under the lock of a cache's slabs."""
    reg[i, regs.PHASE] = (reg[i, regs.PHASE] & ~phases.PHASE_MASK) | phase
    reg[i, regs.LOCK] = cache_lock(k)
    return AGAIN


@kernel
def cpu_lock(cpu: int) -> int:
    return (CPU_LOCK << regs.LOCK_SHIFT) | cpu


@kernel
def depot_lock(k: int) -> int:
    return (DEPOT_LOCK << regs.LOCK_SHIFT) | k


@kernel
def cache_lock(k: int) -> int:
    return (CACHE_LOCK << regs.LOCK_SHIFT) | k


@kernel
def _frame(depth: int) -> int:
    """Register of a frame."""
    if depth == 0:
        return regs.X
    return regs.Y if depth == 1 else regs.TARGET


@kernel
def _top(reg: Registers, i: int) -> int:
    return reg[i, _frame((reg[i, regs.PHASE] >> phases.DEPTH_SHIFT) - 1)]


@kernel
def call(reg: Registers, i: int, k: int, b: int, back: int) -> None:
    """Begin a call that concerns buffer `b` of cache `k`; its caller will go on in phase `back`."""
    reg[i, _frame(reg[i, regs.PHASE] >> phases.DEPTH_SHIFT)] = (
        ((b + 1) << phases.BUFFER_SHIFT) | (k << phases.CACHE_SHIFT) | back
    )
    reg[i, regs.PHASE] += 1 << phases.DEPTH_SHIFT


@kernel
def cache(reg: Registers, i: int) -> int:
    """Cache of the innermost call."""
    return (_top(reg, i) >> phases.CACHE_SHIFT) & phases.CACHE_MASK


@kernel
def buffer(reg: Registers, i: int) -> int:
    return (_top(reg, i) >> phases.BUFFER_SHIFT) - 1


@kernel
def note(reg: Registers, i: int, b: int) -> None:
    """Keep something in the frame in place of the buffer."""
    top = _frame((reg[i, regs.PHASE] >> phases.DEPTH_SHIFT) - 1)
    reg[i, top] = (reg[i, top] & ((1 << phases.BUFFER_SHIFT) - 1)) | ((b + 1) << phases.BUFFER_SHIFT)


@kernel
def finish(st: State, reg: Registers, i: int, b: int) -> int:
    """End the innermost call with a result. Returns the answer to give."""
    k, back = cache(reg, i), _top(reg, i) & phases.RETURN_MASK
    reg[i, regs.PHASE] -= 1 << phases.DEPTH_SHIFT
    if back == phases.FREED:
        return DONE
    if back == phases.HANDED_OUT:
        return FAILED if b == NIL else hand_out(st, reg, i, k, b)
    reg[i, regs.BASE] = b
    to_cpu(reg, i, back)
    if back >= phases.FIRST_TASK:
        reg[i, regs.LOCK] = st.task[T_LOCK]
    return AGAIN
