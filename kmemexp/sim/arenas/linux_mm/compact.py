"""Compaction of the direct map: movable pages go up, so that blocks become free below (Linux 6.18, mm/compaction.c).

One scanner looks for pages to move from where the last run stopped, pageblock by pageblock, another for free room in
movable pageblocks from the zone's end; where they meet, a run is over. A run that a request makes before it reclaims
(async) looks only into pageblocks of the request's type, and only at stretches of the size wanted in which nothing
stays; a later one, or kcompactd's (sync), moves whatever can be moved. Pages of owners can be moved, but for those of
the kernel. Left out: skip hints, the fragmentation index as a condition, proactive compaction by a score, capture of
the block by the request that made it, contention.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import int64
from kmemexp.sim.arenas import buddy
from kmemexp.sim.arenas.buddy import pcp as buddy_pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import state
from kmemexp.sim.arenas.linux_mm.owners import join, list_of, pages_of, row_of
from kmemexp.sim.arenas.linux_mm.state import State

MAX_DEFER_SHIFT = 6  # COMPACT_MAX_DEFER_SHIFT


@kernel
def run_deferred(st: State, zone: int, order: int) -> bool:
    """compaction_deferred: whether a run is to be left out, since one for this order has failed lately."""
    if st.zones[zone, state.DEFER_SHIFT] == 0 or order < st.zones[zone, state.DEFER_ORDER]:
        return False
    st.zones[zone, state.CONSIDERED] += 1
    return st.zones[zone, state.CONSIDERED] < 1 << st.zones[zone, state.DEFER_SHIFT]


@outlined
def compact(st: State, zone: int, order: int, kind: int, sync: int) -> None:
    """compact_zone: run until there is a block of this order above the min watermark, or the scanners meet."""
    size = 1 << st.buddy.p.pageblock_order
    base, top = st.buddy.maps[zone, z.BASE], st.buddy.maps[zone, z.TOP]
    first = (base + size - 1) & -size
    at = max(first, (base + st.zones[zone, state.SCANNER]) & -size)
    st.zones[zone, state.TARGET] = ((top & -size) - size) & -size
    st.zones[zone, state.TARGET_AT] = 0
    st.meters[state.COMPACTIONS] += 1
    done = is_done(st, zone, order)
    while not done and at < st.zones[zone, state.TARGET]:
        if sync or z.type_of(st.buddy, zone, at) == kind:
            done = clear(st, zone, at, order, sync)
        at += size
    st.zones[zone, state.SCANNER] = at - base
    if done:
        st.meters[state.GOT_BLOCK] += 1
        if order >= st.zones[zone, state.DEFER_ORDER]:
            st.zones[zone, state.DEFER_SHIFT] = st.zones[zone, state.CONSIDERED] = 0
        return
    st.zones[zone, state.SCANNER] = 0
    if sync:
        shift = st.zones[zone, state.DEFER_SHIFT]
        st.zones[zone, state.DEFER_ORDER] = min(order, st.zones[zone, state.DEFER_ORDER]) if shift else order
        st.zones[zone, state.DEFER_SHIFT] = min(shift + 1, MAX_DEFER_SHIFT)
        st.zones[zone, state.CONSIDERED] = 0


@kernel
def is_done(st: State, zone: int, order: int) -> bool:
    """compact_finished."""
    return buddy_pcp.is_above(st.buddy, zone, order, st.zones[zone, state.MIN] + st.zones[zone, state.RESERVE])


@outlined
def clear(st: State, zone: int, block: int, order: int, sync: int) -> bool:
    """Move what can be moved out of a pageblock, stretch by stretch. Returns whether there is a block as wanted."""
    step = 1 << min(order, st.buddy.p.pageblock_order)
    at, end = block, block + (1 << st.buddy.p.pageblock_order)
    while at < end:
        stop = at + step
        if sync or nothing_stays(st, zone, at, stop):
            while at < stop:
                pages = unit_of(st, zone, at)
                if is_movable(st, at) and at + pages <= end and not move_up(st, zone, at, pages):
                    return False
                at += pages
            if is_done(st, zone, order):
                return True
        at = max(stop, at)
    return False


@kernel
def unit_of(st: State, zone: int, page: int) -> int:
    """Pages of the block, free or in use, that begins here; 1 in the middle of one."""
    tag = z.tag_of(st.buddy, zone, page)
    if tag & (z.FREE_BLOCK | z.PCP_BLOCK):
        return 1 << (tag & (z.FREE_BLOCK - 1))
    return max(pages_of(st, page), 1)


@kernel
def is_movable(st: State, page: int) -> bool:
    """Whether a block in use that may be moved begins here."""
    who = int64(st.owner[row_of(st, page)]) - 1
    return who >= 0 and st.owners[who, state.SORT] != state.KERNEL_PAGES


@kernel
def nothing_stays(st: State, zone: int, at: int, stop: int) -> bool:
    """Whether all pages of a stretch are free or may be moved, and it is not free already."""
    used = 0
    while at < stop:
        if z.tag_of(st.buddy, zone, at) & z.FREE_BLOCK == 0:
            if not is_movable(st, at):
                return False
            used += 1
        at += unit_of(st, zone, at)
    return used > 0


@outlined
def move_up(st: State, zone: int, page: int, pages: int) -> bool:
    """Move an owner's block to free room above it. False: there is none."""
    order = buddy.order_for(pages)
    room = find_room(st, zone, page, order)
    if room < 0:
        return False
    old, new = row_of(st, page), row_of(st, room)
    st.buddy.held[new], st.owner[new] = st.buddy.held[old], st.owner[old]
    buddy.paint_tags(st.buddy, zone, room, pages, z.MOVABLE_PAGE)
    above, below = int64(st.mate[old, z.NEXT]), int64(st.mate[old, z.PREV])
    st.mate[new, z.NEXT], st.mate[new, z.PREV] = above, below
    who = int64(st.owner[old]) - 1
    join(st, who, below, above, room, room)
    which = list_of(st, st.owners[who, state.SORT], st.zones[zone, state.NODE])
    if which >= 0:
        take_place(st, zone, which, page, room)
    st.buddy.held[old] = st.owner[old] = 0
    buddy.paint_tags(st.buddy, zone, page, pages, 0)
    st.buddy.maps[zone, z.HIGH] = max(st.buddy.maps[zone, z.HIGH], room + pages)
    st.meters[state.MIGRATED] += pages
    z.free_pages(st.buddy, zone, page, order, False)
    return True


@kernel
def take_place(st: State, zone: int, which: int, page: int, room: int) -> None:
    """Put one block in another's place on a list by age."""
    old, new = z.link_row(st.buddy, zone, page), z.link_row(st.buddy, zone, room)
    above, below = int64(st.buddy.link[old, z.NEXT]), int64(st.buddy.link[old, z.PREV])
    st.buddy.link[new, z.NEXT], st.buddy.link[new, z.PREV] = above, below
    if below < 0:
        st.buddy.lists[which, z.HEAD] = room
    else:
        st.buddy.link[z.link_row(st.buddy, zone, below), z.NEXT] = room
    if above < 0:
        st.buddy.lists[which, z.TAIL] = room
    else:
        st.buddy.link[z.link_row(st.buddy, zone, above), z.PREV] = room


@outlined
def find_room(st: State, zone: int, page: int, order: int) -> int:
    """isolate_freepages: a free block in the movable pageblocks above `page`, the last ones first. Returns it or -1.

    It is taken off its list; what is too much of it goes back.
    """
    size = 1 << st.buddy.p.pageblock_order
    while st.zones[zone, state.TARGET] > page:
        block, at = st.zones[zone, state.TARGET], st.zones[zone, state.TARGET_AT]
        while at < size and z.type_of(st.buddy, zone, block) == z.MOVABLE:
            tag = z.tag_of(st.buddy, zone, block + at)
            have = tag - z.FREE_BLOCK
            if tag & z.FREE_BLOCK and have >= order:
                z.take(st.buddy, zone, block + at, have, z.MOVABLE)
                z.expand(st.buddy, zone, block + at, order, have, z.MOVABLE)
                st.zones[zone, state.TARGET_AT] = at
                return block + at
            at += unit_of(st, zone, block + at)
        st.zones[zone, state.TARGET] -= size
        st.zones[zone, state.TARGET_AT] = 0
    return -1
