"""How UMA of 2002 to 2006 lays out slabs and sizes buckets and limits: sys/vm/uma_core.c and uma_int.h of FreeBSD 5/6.

Plain Python, for boot. A slab is a page cut into items of one size, or as many pages as one larger item needs. Its
header (struct uma_slab, and an index for each item) lies at the end of the page, or off the page where more than a
tenth would be wasted otherwise. From May 2004 on the cost of an index was taken to be what one index adds to the
structure, which is 4 bytes on the i386 for the sake of padding.
"""

from typing import NamedTuple

from kmemexp.sim.slots import PAGE

# Params.generation.
UMA_02 = 0  # as first imported: a mutex for each zone and CPU, buckets of 125, working sets
UMAI_03 = 1  # middle of 2003: one mutex for each CPU
UMA_03 = 2  # late 2003: buckets of 16 … 128, no working sets
UMA_06 = 3  # kegs, critical sections

MAX_WASTE = PAGE // 10  # UMA_MAX_WASTE
SMALLEST_UNIT = PAGE // 256  # UMA_SMALLEST_UNIT
BUCKET_SIZE = 125  # UMA_BUCKET_SIZE, generations 0 and 1
BUCKET_MAX = 128  # from generation 2 on
BUCKET_SIZES = (16, 32, 64, 128)  # bucket_zones
BUCKET_STEP = 16  # a bucket is taken for a count rounded up to this
BUCKET_WORDS = 3  # words of a bucket before its items: list entry, count, entries
REFCOUNT = 4  # bytes of us_refcnt


class Header(NamedTuple):
    """What a slab's management costs."""

    fixed: int  # bytes of struct uma_slab or uma_slab_refcnt
    item: int  # bytes for each item
    pointer: int  # bytes of a pointer, to which it is aligned


class Layout(NamedTuple):
    """Layout of a zone's slabs."""

    size: int  # bytes of an item, rounded (uz_rsize)
    items: int  # per slab (uz_ipers)
    pages: int  # per slab (uz_ppera)
    offset: int  # of the header in the page (uz_pgoff); -1: off the page

    @property
    def lost(self) -> int:
        """Bytes of the slab's pages that no item covers."""
        return self.pages * PAGE - self.items * self.size


def slab_header(generation: int, pointer: int = 4, *, counted: bool = False, head: int = 0) -> Header:
    """Cost of a slab's header. `counted`: of a zone with reference counts (UMA_ZONE_REFCNT).

    `head`: bytes of the structure before the indices; 0: 24 with pointers of 4 bytes, 48 with 8. From generation 3 on
    (struct uma_slab_head) the structure ends behind one index, padded to a pointer.
    """
    head = head or 6 * pointer
    if generation < UMA_06:
        return Header(head, 1, pointer)
    item = 2 * REFCOUNT if counted else pointer
    return Header(head + item, item, pointer)


def items_beside_header(size: int, header: Header) -> int:
    """How many items fit into a page with their header. 0, of 4069 … 4071 bytes: a kernel with INVARIANTS stops."""
    return (PAGE - header.fixed) // (size + header.item)


def slab_layout(nbytes: int, align: int, header: Header, *, internal: bool = False) -> Layout:
    """Lay out slabs for items of `nbytes` aligned to `align`, a power of two: zone_small_init(), zone_large_init().

    `internal`: UMA's own zones (and those of UMA_ZONE_VM), whose header must be in the page.
    """
    if nbytes + header.item > PAGE - header.fixed:
        return Layout(nbytes, 1, -(-nbytes // PAGE), -1)
    size = _round_up(max(nbytes, SMALLEST_UNIT), align)
    items = items_beside_header(size, header)
    counted = items * size if header.item == 1 else items * (size + header.item) + header.fixed
    if PAGE - counted >= MAX_WASTE and not internal and PAGE // size > items:
        return Layout(size, PAGE // size, 1, -1)
    return Layout(size, items, 1, PAGE - _round_up(header.fixed + items * header.item, header.pointer))


def header_bytes(generation: int, header: Header) -> int:
    """Bytes of an off-page header: room for as many items as an off-page slab may have: uma_startup()."""
    if generation < UMA_06:
        return (PAGE - header.fixed) // MAX_WASTE + 1 + header.fixed
    size = SMALLEST_UNIT
    while items_beside_header(size, header) * (size + header.item) >= PAGE - header.fixed - MAX_WASTE:
        size += 1
    return PAGE // size * header.item + header.fixed


def bucket_bytes(entries: int, pointer: int = 4) -> int:
    """Bytes of a bucket (struct uma_bucket)."""
    return (BUCKET_WORDS + entries) * pointer


def first_count(items: int, generation: int, *, largest: bool = False) -> int:
    """Items that a new zone's buckets are filled to (uz_count). `largest`: UMA_ZONE_MAXBUCKET."""
    most = most_count(generation)
    return most if largest else min(items, most)


def most_count(generation: int) -> int:
    """Items that a bucket is filled to at most."""
    return BUCKET_MAX if generation >= UMA_03 else BUCKET_SIZE


def max_pages(items: int, layout: Layout, generation: int) -> int:
    """Pages that a zone may have for `items` items (uma_zone_set_max()); 0, which an early UMA may find: any number."""
    pages = items * layout.pages if layout.pages > 1 else items // layout.items
    if generation >= UMA_03 and pages * layout.items < items:
        pages += 1
    return pages


def _round_up(n: int, to: int) -> int:
    return -(-n // to) * to
