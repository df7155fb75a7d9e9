"""Who else wants pages of the direct map, and in what pieces: faults, readahead, the kernel's single pages.

A file is read from its start to its end with the readahead windows of Linux 6.18 (mm/readahead.c): 4 pages, then twice
as many up to 32, for a device of 128 KiB of readahead and reads of a page at a time. Where its filesystem has large
folios, those of the first window are single pages; log2 of their size rises by two with each window up to that of the
window, which ends at a multiple of it (page_cache_async_ra, page_cache_ra_order). Anonymous memory is faulted in page
by page, or as huge pages where there is one at hand (GFP_TRANSHUGE_LIGHT). The kernel's own blocks, of pipes and socket
buffers, fall back to single pages.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.arenas._shared.powers import log2
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import gate, state
from kmemexp.sim.arenas.linux_mm.owners import complete, end, hold, new_owner
from kmemexp.sim.arenas.linux_mm.state import State
from kmemexp.sim.arenas.linux_mm.writeback import balance, new_file
from kmemexp.sim.slots import ATTR_FILE, ATTR_PAGEABLE, ATTR_SORT, NO_SPACE, WHO_SHIFT

FIRST_WINDOW = 4  # pages: get_init_ra_size
LAST_WINDOW = 32  # VM_READAHEAD_PAGES
ORDER_STEP = 2


@kernel
def window_after(at: int, window: int, order: int) -> int:
    """Pages of the readahead window at page `at` of a file: page_cache_async_ra, whose last window is given."""
    size = min(4 * window if window < LAST_WINDOW // 16 else 2 * window, LAST_WINDOW)
    end = (at + size) >> order << order
    return end - at if end > at else size


@kernel
def sort_of(attr: int) -> int:
    """What an owner is, by the attribute of its request."""
    if attr & ATTR_FILE:
        return state.FILE_PAGES
    return state.ANON_PAGES if attr & ATTR_SORT == ATTR_PAGEABLE else state.KERNEL_PAGES


@outlined
def spread(st: State, pages: int, attr: int, cpu: int) -> int:
    """Give a new owner so many pages. Returns its handle or NO_SPACE."""
    sort, largest = sort_of(attr), attr >> WHO_SHIFT
    who = new_owner(st, sort)
    if sort == state.FILE_PAGES and st.p.dirty_percent:
        new_file(st, who)
    at, window, order = 0, FIRST_WINDOW, 0
    while at < pages:
        stop = pages
        if sort == state.FILE_PAGES:
            if at > 0:
                order += ORDER_STEP
                window = window_after(at, window, order)
            order = min(largest, order, log2(window))
            stop = min(pages, at + window)
        else:
            order = largest
        at = _up_to(st, who, at, stop, order, gate.class_of(attr), cpu)
        if at < 0:
            end(st, who, cpu)
            return NO_SPACE
    if st.owners[who, state.IS_DIRTY]:
        balance(st)
    return complete(st, who)


@outlined
def _up_to(st: State, who: int, at: int, stop: int, most: int, klass: int, cpu: int) -> int:
    """Give an owner its pages `at` … stop-1 in blocks of 2**most at most. Returns `stop`; -1: too few."""
    kind = z.UNMOVABLE
    if st.owners[who, state.SORT] != state.KERNEL_PAGES and st.buddy.p.migrate:
        kind = z.MOVABLE
    while at < stop:
        order = most
        while order > 0 and (at & ((1 << order) - 1) or at + (1 << order) > stop):
            order -= 1
        page = gate.get(st, order, kind, klass if order == 0 else gate.TRY, cpu)
        if page >= 0:
            hold(st, who, page, order)
            at += 1 << order
        elif order == 0:
            return -1
        else:
            most = 0
    return at
