"""Integers of tables narrower than 64 bits."""

import numpy as np

from kmemexp.jit import kernel


@kernel
def wide(n):
    """Widen a number read from an array of 32-bit or smaller ones, before arithmetic that could leave their range."""
    return np.int64(n)
