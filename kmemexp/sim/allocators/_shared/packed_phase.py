"""regs.PHASE with more than a phase in it: where an operation stands, and above that what it comes back to.

An operation with detours (it fills a bucket, which needs a slab, which needs a header) would need a stack. None of them
nests twice in itself, so a field of six bits for each kind of detour does. Who packs them says at the top of the module
which field begins at which bit.
"""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Registers
from kmemexp.sim.slots import AGAIN
from kmemexp.sim.tables import regs

PHASE_MASK = 63  # phases, and other fields
FIELD_BITS = 6


@kernel
def set_phase(reg: Registers, i: int, phase: int) -> None:
    """Enter a phase; the fields above it stay."""
    reg[i, regs.PHASE] = (reg[i, regs.PHASE] & ~PHASE_MASK) | phase


@kernel
def go_to(reg: Registers, i: int, phase: int, lock: int) -> int:
    """Go on in `phase` under a lock; the fields above it stay. Returns the answer to give."""
    set_phase(reg, i, phase)
    reg[i, regs.LOCK] = lock
    return AGAIN


@kernel
def field(reg: Registers, i: int, shift: int) -> int:
    """Read the field that begins at bit `shift`."""
    return (reg[i, regs.PHASE] >> shift) & PHASE_MASK


@kernel
def set_field(reg: Registers, i: int, shift: int, n: int) -> None:
    """Write the field that begins at bit `shift`."""
    reg[i, regs.PHASE] = (reg[i, regs.PHASE] & ~(PHASE_MASK << shift)) | (n << shift)
