"""Linux 6.12's numbers about a zone: fragmentation indices, watermarks, sizes of the per-CPU page lists.

Sources: mm/vmstat.c, mm/page_alloc.c. Plain Python on plain integers; `free[o]` is the number of free blocks of 2**o
pages. Divisions are those of the kernel: towards zero.
"""

from collections.abc import Sequence
from math import isqrt
from typing import NamedTuple

PCP_BATCH_SCALE_MAX = 5  # a batch grows to at most batch << 5
HIGH_FRACTION = 8  # MIN_PERCPU_PAGELIST_HIGH_FRACTION: per-CPU lists hold at most this part of a zone
WATERMARK_SCALE = 10  # of 10000
WATERMARK_BOOST = 15000  # of 10000
PAGE_KIB = 4
PAGEBLOCK_PAGES = 512
MIGRATE_PCPTYPES = 3


class Watermarks(NamedTuple):
    """A zone's watermarks."""

    min_free_kib: int
    minimum: int  # pages
    low: int
    high: int


def fragmentation_index(free: Sequence[int], order: int) -> int:
    """Why an allocation of 2**order pages would fail: towards 0 of too little memory, towards 1000 of fragmentation.

    -1000 where it would not fail; 0 where nothing at all is free; may go below 0 where little is free.
    """
    blocks = sum(free)
    if not blocks:
        return 0
    if _suitable(free, order):
        return -1000
    return 1000 - (1000 + _pages(free) * 1000 // (1 << order)) // blocks


def unusable_index(free: Sequence[int], order: int) -> int:
    """Thousandths of the free pages that an allocation of 2**order pages cannot use; 1000 if none is free."""
    pages = _pages(free)
    return (pages - (_suitable(free, order) << order)) * 1000 // pages if pages else 1000


def extfrag(free: Sequence[int], order: int) -> int:
    """Share of the free pages in per cent, as compaction scores a zone; 0 if none is free."""
    pages = _pages(free)
    return (pages - (_suitable(free, order) << order)) * 100 // pages if pages else 0


def watermarks(pages: int, min_free_kib: int = 0, whole: int = 0) -> Watermarks:
    """Watermarks of a zone of that many pages (init_per_zone_wmark_min, __setup_per_zone_wmarks).

    `min_free_kib`: vm.min_free_kbytes; 0: by the rule, for a machine without transparent huge pages. `whole`: pages of
    the machine; 0: the zone is all of it.
    """
    min_free_kib = min_free_kib or min(max(isqrt(16 * pages * PAGE_KIB), 128), 262144)
    minimum = min_free_kib // PAGE_KIB * pages // (whole or pages)
    gap = max(minimum // 4, pages * WATERMARK_SCALE // 10000)
    return Watermarks(min_free_kib, minimum, minimum + gap, minimum + 2 * gap)


def min_free_with_huge_pages(pages: int, zones: int) -> int:
    """vm.min_free_kbytes where transparent huge pages are on (set_recommended_min_free_kbytes), by its rule else.

    `pages`: of low memory in all, `zones`: how many it is in; pageblocks have 512 pages.
    """
    least = min(PAGEBLOCK_PAGES * zones * (2 + MIGRATE_PCPTYPES * MIGRATE_PCPTYPES), pages // 20)
    return max(watermarks(pages).min_free_kib, least * PAGE_KIB)


def most_boost(pages: int, high: int) -> int:
    """Pages that watermarks are raised by at most after a fallback (boost_watermark); 0: never, in a small zone."""
    if pages < PAGEBLOCK_PAGES * 4:
        return 0
    return max(PAGEBLOCK_PAGES, high * WATERMARK_BOOST // 10000)


def pcp_batch(pages: int) -> int:
    """Pages that a CPU's lists take from a zone of that many pages at once (zone_batchsize)."""
    batch = max(min(pages >> 10, 256) // 4, 1)
    batch += batch // 2
    return max((1 << batch.bit_length() - 1) - 1, 1)


def pcp_high(pages: int, cpus: int, min_free_kib: int = 0) -> tuple[int, int]:
    """Least and greatest limit, between which the kernel tunes it, of the pages on a CPU's lists (zone_highsize)."""
    return pcp_limits(pages, cpus, watermarks(pages, min_free_kib).low)


def pcp_limits(pages: int, cpus: int, low: int) -> tuple[int, int]:
    """The same of a zone with that low watermark, and that many CPUs on its node."""
    least = 4 * pcp_batch(pages)
    return max(low // cpus, least), max(pages // HIGH_FRACTION // cpus, least)


def _pages(free: Sequence[int]) -> int:
    return sum(n << o for o, n in enumerate(free))


def _suitable(free: Sequence[int], order: int) -> int:
    """Blocks of 2**order pages that the free blocks of this size and above amount to."""
    return sum(n << (o - order) for o, n in enumerate(free) if o >= order)
