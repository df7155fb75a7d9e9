"""Powers of two, and rounding to multiples."""

from kmemexp.jit import kernel


@kernel
def log2(n: int) -> int:
    """Number of the highest bit of n > 0."""
    k = 0
    for step in (32, 16, 8, 4, 2, 1):
        if n >> step:
            n >>= step
            k += step
    return k


@kernel
def lowest_bit(bits: int) -> int:
    """Number of the lowest bit that is set; there is one."""
    return log2(bits & -bits)


@kernel
def round_up(n: int, unit: int) -> int:
    """Lowest multiple of `unit` that is not below `n`."""
    if unit & (unit - 1) == 0:
        return (n + unit - 1) & -unit
    return (n + unit - 1) // unit * unit
