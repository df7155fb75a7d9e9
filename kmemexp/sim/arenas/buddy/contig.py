"""Ranges of more than the largest block, out of a zone of Linux's page allocator (alloc_contig_range, Linux 6.12).

What fills them is not moved away here: they must be free. `st` is the State of `sim.arenas.buddy`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import MapNo, int64
from kmemexp.sim.arenas.buddy import pcp as buddy_pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.buddy.state import State
from kmemexp.sim.slots import ATTR_SINGLE

# What `held` says of the first page of a range in use: pages << HELD_SHIFT | EXACT | ATTR_*.
ATTRIBUTE = 3
EXACT = 4  # its block was split: it goes back page by page
HELD_SHIFT = 3


@outlined
def contiguous(st: State, map_no: MapNo, pages: int, align: int, attr: int) -> int:
    """Take more than the largest block. Returns the first page or -1."""
    if st.p.pcp:
        buddy_pcp.drain_all(st, map_no)
    page = lowest_blocks(st, map_no, pages, align)
    if page < 0 and attr == ATTR_SINGLE:
        page = lowest_run(st, map_no, pages, align)
    if page >= 0:
        cut_out(st, map_no, page, page + pages)
    return page


@kernel
def lowest_blocks(st: State, map_no: MapNo, pages: int, align: int) -> int:
    """Find the lowest range of free largest blocks, at a multiple of `align` pages. Returns its page or -1."""
    largest = st.p.max_order
    step = max(1 << largest, align)
    count = (pages + (1 << largest) - 1) >> largest
    page = (st.maps[map_no, z.BASE] + step - 1) & -step
    while page + (count << largest) <= st.maps[map_no, z.TOP]:
        found = 0
        while found < count and z.tag_of(st, map_no, page + (found << largest)) == z.FREE_BLOCK + largest:
            found += 1
        if found == count:
            return page
        st.maps[map_no, z.WALKED] += found + 1
        page = (page + ((found + 1) << largest) + step - 1) & -step
    return -1


@kernel
def lowest_run(st: State, map_no: MapNo, pages: int, align: int) -> int:
    """Find the lowest range of free pages, at a multiple of `align` pages; nothing lies on CPUs' lists. -1: none."""
    step = max(align, 1)
    at, top, shift = st.maps[map_no, z.BASE], st.maps[map_no, z.TOP], st.maps[map_no, z.SHIFT]
    page = (at + step - 1) & -step
    while page + pages <= top:
        if at >= page + pages:
            return page
        held = int64(st.held[at + shift]) >> HELD_SHIFT
        if held:
            at += held
            page = (at + step - 1) & -step
        else:
            at += block_pages(st, at + shift)
        st.maps[map_no, z.WALKED] += 1
    return -1


@kernel
def block_pages(st: State, row: int) -> int:
    """Pages of the block that begins in this row, free or on a CPU's list."""
    return 1 << (int64(st.tag[row]) & (z.FREE_BLOCK - 1))


@kernel
def cut_out(st: State, map_no: MapNo, start: int, end: int) -> None:
    """Take a range of free pages out of its blocks; what these have before and behind it goes back page by page."""
    at, order = start, 0
    while z.tag_of(st, map_no, at) & z.FREE_BLOCK == 0:
        order += 1
        at = start >> order << order
    while at < end:
        order = z.tag_of(st, map_no, at) - z.FREE_BLOCK
        above = at + (1 << order)
        z.take(st, map_no, at, order, z.type_of(st, map_no, at))
        if st.p.migrate and order == st.p.max_order:
            z.set_type(st, map_no, at, order, z.MOVABLE)
        for page in range(at, min(start, above)):
            z.free_pages(st, map_no, page, 0, True)
        for page in range(max(end, at), above):
            z.free_pages(st, map_no, page, 0, True)
        at = above
