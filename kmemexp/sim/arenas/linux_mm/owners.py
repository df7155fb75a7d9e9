"""Those who share the direct map with the kernel's allocators: processes, files, the kernel's single pages.

An owner has blocks of pages anywhere, and a handle that is no address. Pages of files lie on one list by age for each
node, from which `reclaim` takes the oldest; there is no second list and no referenced bit. Anonymous pages lie on
another one, if there is swap space. A file is dirty or clean as a whole (`writeback`). An owner whose last page has
been reclaimed is gone; its handle then means nothing. `st` is the State of `linux_mm`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import int64
from kmemexp.sim.arenas import buddy
from kmemexp.sim.arenas.buddy import pcp as buddy_pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.buddy.contig import HELD_SHIFT
from kmemexp.sim.arenas.linux_mm import state
from kmemexp.sim.arenas.linux_mm.state import State
from kmemexp.sim.arenas.linux_mm.zones import zone_of
from kmemexp.sim.slots import ATTR_PAGEABLE, ATTR_WIRED

HANDLE = 1 << 62
AGE_SHIFT = 32
AGES = 1 << 29


@kernel
def row_of(st: State, page: int) -> int:
    """Row of a page in the arrays."""
    return page + st.buddy.maps[state.ANY_ZONE, z.SHIFT]


@kernel
def by_age(st: State, node: int) -> int:
    """Number of the list of files' blocks on a node, youngest first."""
    return len(st.buddy.lists) - 1 - state.LISTS_BY_AGE * node


@kernel
def list_of(st: State, sort: int, node: int) -> int:
    """Number of a node's list by age of a sort of pages; -1: they are on none."""
    if sort == state.FILE_PAGES:
        return by_age(st, node)
    return by_age(st, node) - 1 if sort == state.ANON_PAGES and st.p.swap_mib else -1


@kernel
def pages_of(st: State, page: int) -> int:
    """Pages of the block in use that begins with a page."""
    return int64(st.buddy.held[row_of(st, page)]) >> HELD_SHIFT


@outlined
def new_owner(st: State, sort: int) -> int:
    """Return the row of a new owner, for which `complete` must be called."""
    who = st.meters[state.OLD_OWNER] - 1
    if who >= 0:
        st.meters[state.OLD_OWNER] = st.owners[who, state.OLDER]
    else:
        who = st.meters[state.NEW_OWNER]
        st.meters[state.NEW_OWNER] += 1
    st.owners[who, state.PAGES] = 1  # so that it is not forgotten before it is complete
    st.owners[who, state.FIRST] = -1
    st.owners[who, state.SORT] = sort
    st.owners[who, state.IS_DIRTY] = st.owners[who, state.SWAPPED] = 0
    return who


@kernel
def complete(st: State, who: int) -> int:
    """Return the handle of an owner that has all its pages, some of which may be gone already."""
    handle = handle_of(st, who)
    st.owners[who, state.PAGES] -= 1
    forget_empty(st, who)
    return handle


@kernel
def forget_empty(st: State, who: int) -> None:
    """Let a row be used again if its owner has no page left, in memory or elsewhere."""
    if st.owners[who, state.PAGES] == 0 and st.owners[who, state.SWAPPED] == 0:
        forget(st, who)


@kernel
def forget(st: State, who: int) -> None:
    """Let a row be used again."""
    st.owners[who, state.AGE] = (st.owners[who, state.AGE] + 1) % AGES
    st.owners[who, state.OLDER] = st.meters[state.OLD_OWNER]
    st.meters[state.OLD_OWNER] = who + 1


@kernel
def handle_of(st: State, who: int) -> int:
    """What stands for an owner's address."""
    return HANDLE | st.owners[who, state.AGE] << AGE_SHIFT | who


@kernel
def owner_of(st: State, handle: int) -> int:
    """Row of a handle's owner; -1: it is gone."""
    who = handle & ((1 << AGE_SHIFT) - 1)
    return who if handle_of(st, who) == handle else -1


@outlined
def hold(st: State, who: int, page: int, order: int) -> None:
    """Give an owner a block that is on no list."""
    row, pages, sort = row_of(st, page), 1 << order, st.owners[who, state.SORT]
    st.buddy.held[row] = pages << HELD_SHIFT | (ATTR_WIRED if sort == state.KERNEL_PAGES else ATTR_PAGEABLE)
    if sort != state.KERNEL_PAGES:
        buddy.paint_tags(st.buddy, state.ANY_ZONE, page, pages, z.MOVABLE_PAGE)
    zone = zone_of(st, page)
    node = st.zones[zone, state.NODE]
    st.buddy.maps[zone, z.USED] += pages
    st.buddy.maps[zone, z.FOLIOS] += 1
    st.buddy.maps[zone, z.HIGH] = max(st.buddy.maps[zone, z.HIGH], page + pages)
    first = st.owners[who, state.FIRST]
    st.owner[row] = who + 1
    st.mate[row, z.NEXT], st.mate[row, z.PREV] = first, -1
    if first >= 0:
        st.mate[row_of(st, first), z.PREV] = page
    st.owners[who, state.FIRST] = page
    st.owners[who, state.PAGES] += pages
    st.meters[state.PAGES_OF + sort] += pages
    st.nodes[node, state.HELD + sort] += pages
    if list_of(st, sort, node) >= 0:
        z.push(st.buddy, zone, list_of(st, sort, node), page, False)
    if st.owners[who, state.IS_DIRTY]:
        st.owners[who, state.IS_DIRTY] += pages
        st.meters[state.DIRTY] += pages


@kernel
def join(st: State, who: int, before: int, after: int, following: int, preceding: int) -> None:
    """Let the block `before` (-1: the owner itself) have `following` behind it, and `after` have `preceding` before."""
    if before < 0:
        st.owners[who, state.FIRST] = following
    else:
        st.mate[row_of(st, before), z.NEXT] = following
    if after >= 0:
        st.mate[row_of(st, after), z.PREV] = preceding


@outlined
def drop(st: State, page: int, cpu: int) -> int:
    """Free a block of an owner. Returns its pages."""
    row, pages = row_of(st, page), pages_of(st, page)
    who = int64(st.owner[row]) - 1
    sort, zone = st.owners[who, state.SORT], zone_of(st, page)
    node = st.zones[zone, state.NODE]
    if list_of(st, sort, node) >= 0:
        z.pull(st.buddy, zone, list_of(st, sort, node), page)
    if st.owners[who, state.IS_DIRTY]:
        st.owners[who, state.IS_DIRTY] -= pages
        st.meters[state.DIRTY] -= pages
    after, before = int64(st.mate[row, z.NEXT]), int64(st.mate[row, z.PREV])
    join(st, who, before, after, after, before)
    st.owner[row] = 0
    st.buddy.held[row] = 0
    if sort != state.KERNEL_PAGES:
        buddy.paint_tags(st.buddy, zone, page, pages, 0)
    st.buddy.maps[zone, z.USED] -= pages
    st.buddy.maps[zone, z.FOLIOS] -= 1
    st.owners[who, state.PAGES] -= pages
    st.meters[state.PAGES_OF + sort] -= pages
    st.nodes[node, state.HELD + sort] -= pages
    give(st, zone, page, buddy.order_for(pages), cpu)
    return pages


@kernel
def give(st: State, zone: int, page: int, order: int, cpu: int) -> None:
    """free_frozen_pages: a block to the CPU's lists, or to the zone."""
    if buddy_pcp.holds(st.buddy, order):
        buddy_pcp.give(st.buddy, zone, cpu, page, order)
    else:
        z.free_pages(st.buddy, zone, page, order, False)


@outlined
def end(st: State, who: int, cpu: int) -> None:
    """Free all that an owner has, and its row."""
    while st.owners[who, state.FIRST] >= 0:
        drop(st, st.owners[who, state.FIRST], cpu)
    if st.owners[who, state.IS_DIRTY]:
        written(st, who)
    st.meters[state.SWAP_USED] -= st.owners[who, state.SWAPPED]
    forget(st, who)


@outlined
def written(st: State, who: int) -> None:
    """Take a file off the list of dirty ones; its pages are clean."""
    after, before = st.owners[who, state.DIRTY_NEXT] - 1, st.owners[who, state.DIRTY_PREV] - 1
    if before < 0:
        st.meters[state.DIRTY_OLD] = after + 1
    else:
        st.owners[before, state.DIRTY_NEXT] = after + 1
    if after < 0:
        st.meters[state.DIRTY_NEW] = before + 1
    else:
        st.owners[after, state.DIRTY_PREV] = before + 1
    st.owners[who, state.IS_DIRTY] = 0
