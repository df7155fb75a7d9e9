"""What a request costs in the size classes of three allocators, by their published tables."""

from kmemexp.jit import kernel

PAGE = 4096
BUCKET_LIMIT = 8192  # 4.4BSD: MAXALLOCSAVE, requests above it take whole pages (kern_malloc.c, FreeBSD 4)
UMA_LIMIT = 4096  # FreeBSD: largest malloc zone (kern_malloc.c, 2003 and later)
SLAB_LIMIT = 16384  # DragonFly: ZALLOC_ZONE_LIMIT (kern_slaballoc.c, October 2003)
SMALLEST = 16  # MINBUCKET 4, and UMA's smallest malloc zone


@kernel
def pages(size: int) -> int:
    """Bytes of the whole pages that a request needs."""
    return (size + PAGE - 1) & ~(PAGE - 1)


@kernel
def power_of_two(size: int, limit: int) -> int:
    """Next power of two from SMALLEST up to limit, then whole pages."""
    if size > limit:
        return pages(size)
    granted = SMALLEST
    while granted < size:
        granted *= 2
    return granted


@kernel
def buckets(size: int) -> int:
    """4.4BSD buckets: 16 bytes … 8 KiB by powers of two, then pages."""
    return power_of_two(size, BUCKET_LIMIT)


@kernel
def uma(size: int) -> int:
    """UMA's malloc zones: 16 bytes … 4 KiB by powers of two, then pages."""
    return power_of_two(size, UMA_LIMIT)


@kernel
def slab(size: int) -> int:
    """DragonFly's slab of 2003: eight chunk sizes per power of two below 16 KiB; page multiples take pages."""
    if size >= SLAB_LIMIT or size & (PAGE - 1) == 0:
        return pages(size)
    step = 8
    while size >= step * 16:
        step *= 2
    return (size + step - 1) & ~(step - 1)
