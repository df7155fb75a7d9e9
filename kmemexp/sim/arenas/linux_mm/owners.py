"""Those who share the direct map with the kernel's allocators: processes, files, the kernel's single pages.

An owner has blocks of pages anywhere, and a handle that is no address. Pages of files lie on one list by age, from
which `reclaim` takes the oldest; there is no second list and no referenced bit, and what is on the list is clean. An
owner whose last page has been reclaimed is gone; its handle then means nothing. `st` is the State of `linux_mm`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import int64
from kmemexp.sim.arenas import buddy
from kmemexp.sim.arenas.buddy import pcp as buddy_pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.buddy.contig import HELD_SHIFT
from kmemexp.sim.arenas.linux_mm import state
from kmemexp.sim.arenas.linux_mm.state import State
from kmemexp.sim.slots import ATTR_PAGEABLE, ATTR_WIRED

HANDLE = 1 << 62
AGE_SHIFT = 32
AGES = 1 << 29


@kernel
def row_of(st: State, page: int) -> int:
    """Row of a page in the arrays."""
    return page + st.buddy.maps[state.ZONE, z.SHIFT]


@kernel
def by_age(st: State) -> int:
    """Number of the list of files' blocks, youngest first."""
    return len(st.buddy.lists) - 1


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
    return who


@kernel
def complete(st: State, who: int) -> int:
    """Return the handle of an owner that has all its pages, some of which may be gone already."""
    handle = handle_of(st, who)
    st.owners[who, state.PAGES] -= 1
    if st.owners[who, state.PAGES] == 0:
        forget(st, who)
    return handle


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
        buddy.paint_tags(st.buddy, state.ZONE, page, pages, z.MOVABLE_PAGE)
    zone = state.ZONE
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
    if sort == state.FILE_PAGES:
        z.push(st.buddy, zone, by_age(st), page, False)


@outlined
def drop(st: State, page: int, cpu: int) -> int:
    """Free a block of an owner. Returns its pages."""
    row, pages = row_of(st, page), pages_of(st, page)
    who = int64(st.owner[row]) - 1
    sort = st.owners[who, state.SORT]
    if sort == state.FILE_PAGES:
        z.pull(st.buddy, state.ZONE, by_age(st), page)
    after, before = int64(st.mate[row, z.NEXT]), int64(st.mate[row, z.PREV])
    if before < 0:
        st.owners[who, state.FIRST] = after
    else:
        st.mate[row_of(st, before), z.NEXT] = after
    if after >= 0:
        st.mate[row_of(st, after), z.PREV] = before
    st.owner[row] = 0
    st.buddy.held[row] = 0
    if sort != state.KERNEL_PAGES:
        buddy.paint_tags(st.buddy, state.ZONE, page, pages, 0)
    st.buddy.maps[state.ZONE, z.USED] -= pages
    st.buddy.maps[state.ZONE, z.FOLIOS] -= 1
    st.owners[who, state.PAGES] -= pages
    st.meters[state.PAGES_OF + sort] -= pages
    give(st, page, buddy.order_for(pages), cpu)
    return pages


@kernel
def give(st: State, page: int, order: int, cpu: int) -> None:
    """free_frozen_pages: a block to the CPU's lists, or to the zone."""
    if buddy_pcp.holds(st.buddy, order):
        buddy_pcp.give(st.buddy, state.ZONE, cpu, page, order)
    else:
        z.free_pages(st.buddy, state.ZONE, page, order, False)


@outlined
def end(st: State, who: int, cpu: int) -> None:
    """Free all that an owner has, and its row."""
    while st.owners[who, state.FIRST] >= 0:
        drop(st, st.owners[who, state.FIRST], cpu)
    forget(st, who)
