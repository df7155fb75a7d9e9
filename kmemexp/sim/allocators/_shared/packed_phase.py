"""R_PHASE with more than a phase in it: where an operation stands, and above that what it comes back to.

An operation with detours (it fills a bucket, which needs a slab, which needs a header) would need a stack. None of them
nests twice in itself, so a field of six bits for each kind of detour does. Who packs them says at the top of the module
which field begins at which bit.
"""

from kmemexp.jit import kernel
from kmemexp.sim.slots import AGAIN, R_LOCK, R_PHASE

PHASE_MASK = 63  # phases, and other fields
FIELD_BITS = 6


@kernel
def set_phase(reg, i, phase):
    """Enter a phase; the fields above it stay."""
    reg[i, R_PHASE] = (reg[i, R_PHASE] & ~PHASE_MASK) | phase


@kernel
def go_to(reg, i, phase, lock):
    """Go on in `phase` under a lock; the fields above it stay. Returns the answer to give."""
    set_phase(reg, i, phase)
    reg[i, R_LOCK] = lock
    return AGAIN


@kernel
def field(reg, i, shift):
    """Read the field that begins at bit `shift`."""
    return (reg[i, R_PHASE] >> shift) & PHASE_MASK


@kernel
def set_field(reg, i, shift, n):
    """Write the field that begins at bit `shift`."""
    reg[i, R_PHASE] = (reg[i, R_PHASE] & ~(PHASE_MASK << shift)) | (n << shift)
