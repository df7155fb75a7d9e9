"""Pages of files that are written, not read (Linux 6.18, mm/page-writeback.c).

A share of the files is born dirty, all of their pages. Above vm.dirty_background_ratio of the memory that could be
dirty (what is free, and all of the page cache: global_dirtyable_memory) the flusher writes, the oldest files first,
`flush_batch` pages whenever a CPU allocates a block; above vm.dirty_ratio a writer waits until half-way between the two
(balance_dirty_pages). Reclaim passes dirty pages by (shrink_folio_list) and wakes the flusher; a request that finds too
little waits for some (reclaim_throttle, VMSCAN_THROTTLE_WRITEBACK). Left out: that pages grow old by the clock
(dirty_expire_centisecs: 30 s), so that on a machine with memory to spare they stay dirty; devices, their bandwidths,
and that what reclaim has passed by goes to the list's tail when it is clean; each node's own limit (node_dirty_ok).
`st` is the State of `linux_mm`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import state
from kmemexp.sim.arenas.linux_mm.owners import written
from kmemexp.sim.arenas.linux_mm.state import State

PERCENT = 100
WAITED_FOR = 1024  # MAX_WRITEBACK_PAGES: pages that a request waits for


@outlined
def new_file(st: State, who: int) -> None:
    """Make a new file dirty, if its turn has come."""
    made, share = st.meters[state.FILES_MADE], st.p.dirty_percent
    st.meters[state.FILES_MADE] += 1
    if made * share // PERCENT == (made + 1) * share // PERCENT:
        return
    last = st.meters[state.DIRTY_NEW]
    st.owners[who, state.IS_DIRTY] = 1
    st.owners[who, state.DIRTY_NEXT], st.owners[who, state.DIRTY_PREV] = 0, last
    if last == 0:
        st.meters[state.DIRTY_OLD] = who + 1
    else:
        st.owners[last - 1, state.DIRTY_NEXT] = who + 1
    st.meters[state.DIRTY_NEW] = who + 1


@kernel
def is_above(st: State, percent: int) -> bool:
    """Whether more than such a share of what could be dirty is."""
    could = st.meters[state.PAGES_OF + state.FILE_PAGES]
    for zone in range(len(st.zones)):
        could += st.buddy.maps[zone, z.FREE]
    return st.meters[state.DIRTY] * PERCENT > could * percent


@outlined
def write(st: State, pages: int) -> int:
    """Write the oldest files, at least so many pages if there are. Returns how many were written."""
    done = 0
    while done < pages and st.meters[state.DIRTY_OLD] > 0:
        done += clean_oldest(st)
    return done


@kernel
def clean_oldest(st: State) -> int:
    """Write the oldest file. Returns its pages."""
    who = st.meters[state.DIRTY_OLD] - 1
    pages = st.owners[who, state.IS_DIRTY] - 1
    written(st, who)
    st.meters[state.DIRTY] -= pages
    st.meters[state.WRITTEN] += pages
    return pages


@outlined
def flush(st: State) -> None:
    """The flusher goes on (wb_over_bg_thresh); a file is clean when all of it has been written."""
    st.meters[state.FLUSHED] += st.p.flush_batch
    while st.meters[state.DIRTY_OLD] > 0:
        pages = st.owners[st.meters[state.DIRTY_OLD] - 1, state.IS_DIRTY] - 1
        if pages > st.meters[state.FLUSHED]:
            return
        st.meters[state.FLUSHED] -= clean_oldest(st)
        if not is_above(st, st.p.dirty_background_percent):
            break
    st.meters[state.FLUSHING] = st.meters[state.FLUSHED] = 0


@outlined
def balance(st: State) -> None:
    """balance_dirty_pages: what a writer does after it has made pages dirty."""
    if is_above(st, st.p.dirty_background_percent):
        st.meters[state.FLUSHING] = 1
    if is_above(st, st.p.dirty_limit_percent):
        st.meters[state.WRITE_WAITS] += 1
        middle = (st.p.dirty_background_percent + st.p.dirty_limit_percent) // 2
        while is_above(st, middle) and st.meters[state.DIRTY_OLD] > 0:
            clean_oldest(st)
