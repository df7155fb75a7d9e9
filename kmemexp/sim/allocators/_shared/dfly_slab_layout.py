"""How DragonFly's slab allocator lays out its zones: sys/kern/kern_slaballoc.c as of 25 October 2003 (81f5fc99).

Plain Python, for boot.
"""

import numpy as np

from kmemexp.sim.aliases import Array

ZALLOC_ZONE_LIMIT = 16384  # upper bound of ZoneLimit
ZALLOC_MIN_ZONE_SIZE = 32768
ZALLOC_MAX_ZONE_SIZE = 131072
NZONES = 72  # chunk classes
MIN_CHUNK_SIZE = 8
MIN_CHUNK_SHIFT = 3

# Columns of the table of classes: zoneindex().
CHUNK = 0  # bytes of a chunk
OFFSET = 1  # where the first chunk begins in the zone
N_MAX = 2  # chunks in a zone


def zone_size(bytes_limit: int) -> int:
    """Bytes of a zone on a machine with this much memory or KVA, whichever is less.

    The kernel compares bytes with kilobytes, on purpose: a zone comes to a 1024th of the memory at most.
    """
    size = ZALLOC_MIN_ZONE_SIZE
    while size < ZALLOC_MAX_ZONE_SIZE and size * 2 < bytes_limit // 1024:
        size *= 2
    return size


def zone_index(nbytes: int) -> tuple[int, int]:
    """Class and chunk size for a request of 1 … 16383 bytes."""
    step, first = MIN_CHUNK_SIZE, 1
    while nbytes >= step * 16:
        step, first = step * 2, first - 8
    chunk = -(-nbytes // step) * step
    return chunk // step - first, chunk


def chosen_zone_size(zone_bytes: int, bytes_limit: int) -> int:
    """Bytes of a zone: `zone_bytes`, or by the rule where that is 0. ValueError: no size that a zone may have."""
    chosen = zone_bytes or zone_size(bytes_limit)
    if chosen & (chosen - 1) or not ZALLOC_MIN_ZONE_SIZE <= chosen <= ZALLOC_MAX_ZONE_SIZE:
        raise ValueError(f"zone_bytes is {chosen}; it must be 0 or a power of two from 32768 to 131072")
    return chosen


def class_sizes() -> tuple[Array, Array]:
    """Bytes of a chunk of each class, int64[72], and the step in which sizes grow there."""
    chunk, step = np.zeros(NZONES, np.int64), np.zeros(NZONES, np.int64)
    for nbytes in range(1, ZALLOC_ZONE_LIMIT, MIN_CHUNK_SIZE):
        klass, size = zone_index(nbytes)
        chunk[klass], step[klass] = size, max((1 << nbytes.bit_length()) // 16, MIN_CHUNK_SIZE)
    return chunk, step


def class_table(zone_bytes: int, header_bytes: int, chunk: Array, align: Array | int) -> Array:
    """Build the table of classes, int64[72, 3]: chunks of a power of two are aligned to their size, others to `align`.

    `header_bytes`: of a zone (sizeof(SLZone)).
    """
    to = np.where(chunk & (chunk - 1), align, chunk)
    offset = -(-header_bytes // to) * to
    return np.stack([chunk, offset, (zone_bytes - offset) // chunk], axis=1)


def class_by_units(chunk: Array) -> Array:
    """Class by request size in units of 8 bytes, rounded up: uint8[2049]."""
    return np.searchsorted(chunk, np.arange(ZALLOC_ZONE_LIMIT // MIN_CHUNK_SIZE + 1) * MIN_CHUNK_SIZE).astype(np.uint8)
