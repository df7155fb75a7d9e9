"""Integers of tables narrower than 64 bits."""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import int64


@kernel
def wide(n: int) -> int:
    """Widen a number read from an array of 32-bit or smaller ones, before arithmetic that could leave their range."""
    return int64(n)
