"""How DragonFly's slab allocator lays out its zones: sys/kern/kern_slaballoc.c as of 25 October 2003 (81f5fc99).

Plain Python, for boot.
"""

import numpy as np

ZALLOC_ZONE_LIMIT = 16384  # upper bound of ZoneLimit
ZALLOC_MIN_ZONE_SIZE = 32768
ZALLOC_MAX_ZONE_SIZE = 131072
NZONES = 72  # chunk classes
MIN_CHUNK_SIZE = 8
MIN_CHUNK_SHIFT = 3
ZONE_HEADER = 176  # sizeof(SLZone) on the i386 since 28 August 2003
RECIPROCAL_SHIFT = 32  # exact for every offset in a zone

# Columns of State.klass: the table of zoneindex().
CHUNK = 0  # bytes of a chunk
OFFSET = 1  # where the first chunk begins in the zone
N_MAX = 2  # chunks in a zone
RECIPROCAL = 3  # of the chunk's size: spares free() a division


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


def layout(zone_bytes: int, header_bytes: int = ZONE_HEADER) -> np.ndarray:
    """Build the table of classes, int64[72, 4].

    Chunks of a power of two are aligned to their size, others to 8 bytes.
    """
    chunk = np.zeros(NZONES, np.int64)
    for nbytes in range(1, ZALLOC_ZONE_LIMIT, MIN_CHUNK_SIZE):
        klass, size = zone_index(nbytes)
        chunk[klass] = size
    align = np.where(chunk & (chunk - 1), MIN_CHUNK_SIZE, chunk)
    offset = -(-header_bytes // align) * align
    return np.stack([chunk, offset, (zone_bytes - offset) // chunk, (1 << RECIPROCAL_SHIFT) // chunk + 1], axis=1)
