"""What an allocator's step says to the driver, spelled out once; what an arena says that has nothing special to say."""

from kmemexp.jit import kernel
from kmemexp.sim.slots import (
    ATTR_NOFREE,
    ATTR_SORT,
    ATTR_WIRED,
    EACH_FREE,
    MAP_ALLOC,
    MAP_FREE,
    R_ALIGN,
    R_ATTR,
    R_BASE,
    R_BYTES,
    R_MAP,
    R_PHASE,
)


@kernel
def ask_wired(reg, i, phase, m, nbytes, align):
    """Ask map `m` for wired memory; the operation goes on in `phase`. Returns the answer to give."""
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
    """Ask map `m` to take memory back; the operation goes on in `phase`. Returns the answer to give."""
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
