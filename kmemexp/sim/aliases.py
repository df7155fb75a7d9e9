"""Names for what kernels take: arrays by shape, numbers by meaning.

Elements are int64 (`Shares`: float64). They are typed Any, so that what is read from an array counts as a plain int.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

Words = np.ndarray[tuple[int], np.dtype[Any]]
"""int64[n]"""
Table = np.ndarray[tuple[int, int], np.dtype[Any]]
"""int64[rows, columns]"""
Cube = np.ndarray[tuple[int, int, int], np.dtype[Any]]
"""int64[n, rows, columns]"""
Shares = np.ndarray[tuple[int], np.dtype[Any]]
"""float64[n], each 0 to 1"""

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]
"""Of any shape."""

Columns = tuple[int, ...]
"""Columns of a table, by their meaning in the function that takes them."""

Memory = Words
"""The memory of the machine with a clock (`m`): rows are named by the places where they begin."""
Registers = Table
"""Registers (`reg`), one row for each operation in progress (`i`)."""

Ctx = int
"""Place of a context (`x`)."""
Cpu = int
"""Place of a CPU (`c`)."""
Lock = int
"""Place of a lock (`l`)."""
MapNo = int
"""Number of a map (kmemexp.sim.maps)."""
Ns = int
"""Nanoseconds of simulated time."""
Bytes = int
Address = int
"""Kernel virtual address, bytes."""

if TYPE_CHECKING:

    def int64(value: Any) -> int:
        """Widen an element of a narrower array, so that what is computed from it does not overflow."""

else:
    int64 = np.int64
