"""Arrays as large as an address space, of which only what is touched takes memory.

A part of a simulated machine often has a row for each page, or for each place where a chunk may begin. On a machine of
128 TiB of KVA such an array is larger than any memory, but a load touches little of it. The operating system's page
tables are then the two-level table: `zeros` and `empty` ask it for address space only (MAP_NORESERVE), which costs an
access nothing. Smaller ones lie in huge pages, whole ones: a load touches them here and there, and each look into a
table of pages of 4 KiB costs as much as a miss. Where it touches a few words of each page of the simulated memory,
zeroing huge pages costs more than that: such arrays are `scattered`. What is smaller than `SMALL` is NumPy's own.
"""

import ctypes
import math
import mmap
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from kmemexp.sim.aliases import Array

NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)  # in Python from 3.13 on
SMALL = 1 << 22  # bytes
LARGE = 1 << 30  # bytes; the arrays of machines of 2003 are smaller
NARROW = 34  # bits of KVA, 16 GiB, in which all names have 31
HUGE_PAGE = 1 << 21
MOST_KVA = 1 << 43  # that an allocator covers: its tables are about as large, and pages are named by 31 bits


def zeros(shape: int | Sequence[int], dtype: Any = np.int64) -> Array:
    """Return an array of zeros. MemoryError: there is no address space for it."""
    nbytes = _bytes(shape, dtype)
    return np.zeros(shape, dtype) if nbytes < SMALL else _mapped(nbytes, shape, dtype)


def scattered(shape: int | Sequence[int], dtype: Any = np.int64) -> Array:
    """Return an array of zeros of which a load touches a small part of each huge page, if any."""
    nbytes = _bytes(shape, dtype)
    return np.zeros(shape, dtype) if nbytes < SMALL else _mapped(nbytes, shape, dtype, huge=False)


def empty(shape: int | Sequence[int], dtype: Any = np.int64) -> Array:
    """Return an array of which all is written before it is read (zeros too, so that two states can be compared)."""
    nbytes = _bytes(shape, dtype)
    return np.zeros(shape, dtype) if nbytes < SMALL else _mapped(nbytes, shape, dtype)


def names(count: int) -> Any:
    """Type of the elements of an array that holds numbers below `count`, and -1: as narrow as can be."""
    return np.int32 if count <= 1 << 31 else np.int64


def check_kva(kva_bytes: int) -> None:
    """Raise ValueError for more address space than an allocator's tables can cover."""
    if kva_bytes > MOST_KVA:
        raise ValueError(f"kva_bytes = {kva_bytes}: an allocator covers {MOST_KVA >> 40} TiB at most")


def _bytes(shape: int | Sequence[int], dtype: Any) -> int:
    return math.prod([shape] if isinstance(shape, int) else shape) * np.dtype(dtype).itemsize


def _mapped(nbytes: int, shape: int | Sequence[int], dtype: Any, *, huge: bool = True) -> Array:
    """Map pages of zeros that nothing is set aside for. The array keeps the mapping."""
    try:
        pages = mmap.mmap(-1, nbytes + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(f"{nbytes / 2**30:.0f} GiB of address space for the state of a part: {error}") from error
    # A huge page would be there whole for one word of what is as large as an address space.
    advice = getattr(mmap, "MADV_HUGEPAGE" if huge and nbytes < LARGE else "MADV_NOHUGEPAGE", None)
    if advice is not None:
        pages.madvise(advice)
    start = -np.frombuffer(pages, np.uint8).ctypes.data % HUGE_PAGE
    return np.frombuffer(pages, dtype, nbytes // np.dtype(dtype).itemsize, start).reshape(shape)


def give_back() -> None:
    """Give the operating system what the C library keeps of arrays that are gone (glibc; others keep less)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
