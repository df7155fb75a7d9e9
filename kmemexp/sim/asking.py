"""What an allocator's step says to the driver, spelled out once; what an arena says that has nothing special to say.

What a kernel here returns is the answer that the step gives, unless its docstring says otherwise.
"""

from kmemexp.jit import kernel
from kmemexp.sim.slots import (
    AGAIN,
    ATTR_NOFREE,
    ATTR_SORT,
    ATTR_WIRED,
    DONE,
    EACH_FREE,
    F_NOWAIT,
    FAILED,
    MAP_ALLOC,
    MAP_FREE,
    NO_ENTRY,
    NO_SPACE,
    P_ENTRIES,
    R_ADDR,
    R_ALIGN,
    R_ATTR,
    R_BASE,
    R_BYTES,
    R_FLAGS,
    R_GRANTED,
    R_LOCK,
    R_MAP,
    R_PANIC,
    R_PHASE,
)


@kernel
def hand_out(reg, i, addr, granted):
    """End an allocation with a chunk of `granted` bytes."""
    reg[i, R_ADDR] = addr
    reg[i, R_GRANTED] = granted
    return DONE


@kernel
def go_on(reg, i, phase, lock):
    """Go on in `phase` under another lock (R_LOCK)."""
    reg[i, R_PHASE] = phase
    reg[i, R_LOCK] = lock
    return AGAIN


@kernel
def refused(reg, i, panic):
    """Fail because a map has refused: without space the kernel dies of `panic`, if the request may wait."""
    if not out_of_entries(reg, i) and reg[i, R_BASE] == NO_SPACE and reg[i, R_FLAGS] & F_NOWAIT == 0:
        reg[i, R_PANIC] = panic
    return FAILED


@kernel
def out_of_entries(reg, i):
    """Return whether the map had no entry left. If so, note the panic: any kernel dies of it."""
    if reg[i, R_BASE] != NO_ENTRY:
        return False
    reg[i, R_PANIC] = P_ENTRIES
    return True


@kernel
def ask_wired(reg, i, phase, m, nbytes, align):
    """Ask map `m` for wired memory; the operation goes on in `phase`."""
    reg[i, R_PHASE] = phase
    reg[i, R_MAP] = m
    reg[i, R_BYTES] = nbytes
    reg[i, R_ALIGN] = align
    reg[i, R_ATTR] = ATTR_WIRED
    return MAP_ALLOC


@kernel
def ask_kept(reg, i, phase, m, nbytes, align):
    """Ask as `ask_wired` does, for memory that will never be given back."""
    ask_wired(reg, i, phase, m, nbytes, align)
    reg[i, R_ATTR] = ATTR_WIRED | ATTR_NOFREE
    return MAP_ALLOC


@kernel
def ask_unmap(reg, i, phase, m, base, nbytes):
    """Ask map `m` to take memory back; the operation goes on in `phase`."""
    reg[i, R_PHASE] = phase
    reg[i, R_MAP] = m
    reg[i, R_BASE] = base
    reg[i, R_BYTES] = nbytes
    return MAP_FREE


@kernel
def every_free_flushes(st, m):
    """`map_flushes` of an arena that flushes the TLB at every free."""
    return EACH_FREE


@kernel
def sort_alone(attr, server, reg, i):
    """`map_attr` of an arena to which all who ask are alike."""
    return attr & ATTR_SORT
