"""How today's UMA lays out slabs and sizes buckets: sys/vm/uma_core.c and uma_int.h (FreeBSD 14/15), on LP64.

Plain Python, for boot. A slab is one or more pages cut into items of one size, with its header inside (24 bytes and a
bitmap) or off the page. Since 2019 a keg looks for a slab of several pages when one page wastes more than a tenth.
"""

from typing import NamedTuple

from kmemexp.sim.slots import PAGE

MIN_ITEM = 8  # UMA_SMALLEST_UNIT
MAX_ITEMS = 512  # SLAB_MAX_SETSIZE: items of a slab
SLAB_HEADER = 24  # struct uma_slab without its bitmap
HEADER_SIZES = (80, 112)  # off-page headers: for up to 256 items, and for up to 512
SMALL_SET = 256
MAX_WASTE = 10  # UMA_MAX_WASTE, per cent
FIXED_SHIFT = 31  # efficiencies are fixed-point numbers

BUCKET_HEADER = 16  # struct uma_bucket without its items
BUCKETS = ((2, 4096), (4, 3072), (8, 2048), (16, 1024), (30, 512), (62, 256), (126, 128), (254, 64))
BUCKET_MAX = BUCKETS[-1][0]


class Keg(NamedTuple):
    """Layout of a keg's slabs."""

    size: int  # bytes of an item, rounded (uk_rsize)
    items: int  # per slab (uk_ipers)
    pages: int  # per slab (uk_ppera)
    header: int  # bytes of the off-page header; 0: the header is inside

    @property
    def efficiency(self) -> float:
        """Share of a slab's memory, off-page header included, that items cover."""
        return self.items * self.size / (self.pages * PAGE + self.header)


def keg_layout(
    nbytes: int, align: int = 8, *, internal: bool = False, contiguous: bool = False, multipage: bool = True
) -> Keg:
    """Lay out slabs for items of `nbytes` aligned to `align`, a power of two (in the kernel: of the same name).

    `internal`: UMA's own zones, whose header must be inside. `contiguous` (UMA_ZONE_CONTIG) and not `multipage`
    (vm.debug.uma_multipage_slabs = 0): the least slab that holds an item, whatever it wastes.
    """
    size = _round_up(max(nbytes, MIN_ITEM), align)
    least = fixed(100 - MAX_WASTE, 100)
    best, best_efficiency = Keg(size, 0, 0, 0), 0
    step = (_round_up(nbytes, PAGE) + size - nbytes) // max(PAGE, size)
    while True:
        slab = step * PAGE if size <= PAGE else _round_up(size * (step - 1) + nbytes, PAGE)
        for off_page in (False, True):
            if off_page and internal and best.items:
                continue
            one = _with_header(nbytes, size, slab + PAGE * (off_page and internal), off_page and not internal)
            efficiency = fixed(one.items * size, one.pages * PAGE + one.header)
            if efficiency > best_efficiency:
                best, best_efficiency = one, efficiency
                if efficiency >= least:
                    return best
        if contiguous or not multipage or slab >= MAX_ITEMS * size:
            return best
        step += 1


def _with_header(nbytes: int, size: int, slab: int, off_page: bool) -> Keg:
    """Lay out a slab of `slab` bytes: the last item needs no padding behind it."""
    padding = size - nbytes
    if off_page:
        items = min((slab + padding) // size, MAX_ITEMS)
        return Keg(size, items, slab // PAGE, HEADER_SIZES[items > SMALL_SET])
    items = max(min((slab + padding - slab_header(1)) // size, MAX_ITEMS), 0)
    while items and items * size - padding + slab_header(items) > slab:
        items -= 1
    return Keg(size, items, slab // PAGE, 0)


def slab_header(items: int) -> int:
    """Bytes of a header inside the slab: a bit for each item, in words of 64."""
    return SLAB_HEADER + 8 * -(-items // 64)


def fixed(part: int, whole: int) -> int:
    """Return a share as the fixed-point number that keg_layout() compares."""
    return (part << FIXED_SHIFT) // whole


def bucket_bytes(entries: int) -> int:
    """Bytes of a bucket with room for `entries` pointers."""
    return BUCKET_HEADER + 8 * entries


def bucket_select(nbytes: int) -> int:
    """Entries of the buckets that a zone of items of `nbytes` begins with (in the kernel: of the same name)."""
    if nbytes > BUCKETS[0][1]:
        return max(BUCKETS[0][1] * BUCKETS[0][0] // nbytes, 1)
    return max(entries for entries, most in BUCKETS if nbytes <= most)


def set_max(limit: int, cpus: int, domains: int = 1) -> tuple[int, int]:
    """Entries of a bucket, and items that the cache of full buckets stays below, in a zone of at most `limit` items.

    uma_zone_set_maxcache(): two buckets a CPU, a third one and one a domain for frees that cross domains.
    """
    buckets = 2 * cpus + (cpus + domains if domains > 1 else 0)
    entries = min(limit // buckets // 2, BUCKET_MAX) or int(limit >= buckets)
    return entries, limit - buckets * entries


def _round_up(n: int, unit: int) -> int:
    return -(-n // unit) * unit
