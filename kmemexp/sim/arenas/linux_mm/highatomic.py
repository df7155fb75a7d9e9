"""Pageblocks kept for requests for several pages that cannot wait: MIGRATE_HIGHATOMIC (Linux 6.18, mm/page_alloc.c).

Such a request that has had to go below the low watermark makes the pageblock of its pages one of these
(reserve_highatomic_pageblock), until they are a hundredth of the zone, rounded up to pageblocks; where a hundredth is
less than one there are none. Only such requests take from them, and single pages that cannot wait when all else has
failed. They are given back, all but one of a zone, by a request whose reclaim has found pages and none for it, and all
before a request fails (unreserve_highatomic_pageblock). `st` is the State of `linux_mm`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.arenas.buddy import pcp as buddy_pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm.state import State

SHARE = 100  # at most one of so many pages


@outlined
def urgent(st: State, zone: int, order: int, kind: int, mark: int, cpu: int) -> int:
    """Take a block of a zone for a request that cannot wait, down to a mark. Returns its page or -1."""
    boosted = mark + st.buddy.maps[zone, z.BOOST]
    if not buddy_pcp.leaves(st.buddy, zone, order, boosted, z.LIST_TYPES):
        return -1
    buddy_pcp.note_below(st.buddy, zone, order)
    page = -1
    if buddy_pcp.holds(st.buddy, order):
        page = buddy_pcp.get(st.buddy, zone, cpu, order, kind, 0)
    if page < 0 and order > 0:
        page = _reserved(st, zone, order)
    if page < 0:
        page, _ = z.rmqueue(st.buddy, zone, order, kind, 0, z.NORMAL)
    if page < 0 and order == 0:
        page = _reserved(st, zone, 0)
    if page >= 0 and order > 0:
        reserve(st, zone, page, order)
    return page


@kernel
def _reserved(st: State, zone: int, order: int) -> int:
    """A block of what is reserved, or -1."""
    st.buddy.maps[zone, z.MOVED] += 1
    return z.smallest(st.buddy, zone, order, z.HIGHATOMIC)


@outlined
def reserve(st: State, zone: int, page: int, order: int) -> None:
    """reserve_highatomic_pageblock: keep the pageblock of a block that has just been given out."""
    size = 1 << st.buddy.p.pageblock_order
    base, top = st.buddy.maps[zone, z.BASE], st.buddy.maps[zone, z.TOP]
    share = (top - base) // SHARE
    most = (share + size - 1) & -size
    kind = z.type_of(st.buddy, zone, page)
    if share < size or st.buddy.maps[zone, z.RESERVED] >= most or kind == z.HIGHATOMIC:
        return
    start = page & -size
    if order >= st.buddy.p.pageblock_order:
        z.set_type(st.buddy, zone, page, order, z.HIGHATOMIC)
    elif start >= base and start + size <= top:
        z.move_blocks(st.buddy, zone, start, kind, z.HIGHATOMIC)
    else:
        return
    st.buddy.maps[zone, z.RESERVED] += max(size, 1 << order)
    st.buddy.maps[zone, z.RESERVES] += 1


@outlined
def unreserve(st: State, node: int, kind: int, force: int) -> int:
    """unreserve_highatomic_pageblock: make one an ordinary pageblock of that type. Returns its free pages."""
    for i in range(len(st.zones)):
        zone = st.zonelist[node, i]
        if zone < 0:
            break
        moved = _unreserve_in(st, zone, kind, force)
        if moved > 0:
            return moved
    return 0


@outlined
def _unreserve_in(st: State, zone: int, kind: int, force: int) -> int:
    """Make a pageblock of a zone an ordinary one. Returns its free pages; 0: there was none."""
    size = 1 << st.buddy.p.pageblock_order
    if st.buddy.maps[zone, z.RESERVED] <= (0 if force else size):
        return 0
    for order in range(st.buddy.p.max_order + 1):
        which = z.zone_list(st.buddy, zone, order, z.HIGHATOMIC)
        page = st.buddy.lists[which, z.HEAD]
        if page < 0:
            continue
        gone = max(size, 1 << order)
        st.buddy.maps[zone, z.RESERVED] -= min(gone, st.buddy.maps[zone, z.RESERVED])
        if order < st.buddy.p.pageblock_order:
            return z.move_blocks(st.buddy, zone, page & -size, z.HIGHATOMIC, kind)
        z.pull(st.buddy, zone, which, page)
        z.push(st.buddy, zone, z.zone_list(st.buddy, zone, order, kind), page, True)
        z.set_type(st.buddy, zone, page, order, kind)
        st.buddy.maps[zone, z.RESERVED_FREE] -= gone
        return gone
    return 0
