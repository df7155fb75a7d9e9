"""Reclaim of page cache: kswapd, and requests that must do it by themselves (Linux 6.18, mm/vmscan.c).

A round of priority p looks at the oldest 2**-p of the list (get_scan_count), and asks the shrinkers: how often at which
priority is noted, the driver shrinks between two operations. Clean pages that are looked at are freed, dirty ones put
to the list's head. kswapd runs on the last CPU; while it runs, it looks at `kswapd_batch` pages whenever another CPU
allocates a block. With swap space both lists are looked at, by vm.swappiness, anonymous pages alone where page cache
and what is free are no more than the high watermark (file_is_tiny). Left out: the active lists, workingset detection
and the costs that it weighs lists by, memory cgroups; that swapped pages are wanted again.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import state, writeback
from kmemexp.sim.arenas.linux_mm.owners import by_age, drop, forget_empty, list_of, pages_of, row_of
from kmemexp.sim.arenas.linux_mm.state import State
from kmemexp.sim.slots import PAGE_SHIFT

MIB_SHIFT = 20
WHOLE = 200  # MAX_SWAPPINESS


@outlined
def shrink_list(st: State, look: int, enough: int, cpu: int) -> tuple[int, int]:
    """Look at the oldest blocks of files, `look` pages of them, until there are enough; free what is clean.

    Returns the pages freed, and those looked at.
    """
    got, seen, which = 0, 0, by_age(st)
    while seen < look and got < enough:
        page = st.buddy.lists[which, z.TAIL]
        if page < 0:
            break
        who = st.owner[row_of(st, page)] - 1
        if st.owners[who, state.IS_DIRTY]:
            z.pull(st.buddy, state.ZONE, which, page)
            z.push(st.buddy, state.ZONE, which, page, False)
            seen += pages_of(st, page)
            continue
        pages = drop(st, page, cpu)
        got += pages
        seen += pages
        forget_empty(st, who)
    if seen > got == 0:
        st.meters[state.FLUSHING] = 1  # wakeup_flusher_threads
    return got, seen


@outlined
def swap_out(st: State, look: int, cpu: int) -> int:
    """Move the oldest blocks of anonymous pages to the swap space, if there is room. Returns their pages."""
    got = 0
    while got < look:
        page = st.buddy.lists[list_of(st, state.ANON_PAGES), z.TAIL]
        if page < 0 or pages_of(st, page) > swap_room(st):
            break
        who = st.owner[row_of(st, page)] - 1
        pages = drop(st, page, cpu)
        st.owners[who, state.SWAPPED] += pages
        st.meters[state.SWAP_USED] += pages
        st.meters[state.SWAPPED_OUT] += pages
        got += pages
    return got


@kernel
def swap_room(st: State) -> int:
    """Pages of the swap space that nobody has."""
    return (st.p.swap_mib << (MIB_SHIFT - PAGE_SHIFT)) - st.meters[state.SWAP_USED]


@kernel
def scan_count(st: State, sort: int, priority: int) -> int:
    """get_scan_count: pages of a list that a round looks at."""
    files, room = st.meters[state.PAGES_OF + state.FILE_PAGES], swap_room(st)
    scan = st.meters[state.PAGES_OF + sort] >> priority
    if room <= 0:
        return scan if sort == state.FILE_PAGES else 0
    if files + st.buddy.maps[state.ZONE, z.FREE] <= st.meters[state.HIGH]:
        return scan if sort == state.ANON_PAGES else 0
    share = st.p.swappiness if sort == state.ANON_PAGES else WHOLE - st.p.swappiness
    return scan * share // WHOLE


@outlined
def by_request(st: State, cpu: int) -> int:
    """try_to_free_pages: rounds, each more urgent than the last, until there are enough pages. Returns their number."""
    got = 0
    for priority in range(state.DEF_PRIORITY, -1, -1):
        st.meters[state.ROUNDS + priority] += 1
        scan, anon = scan_count(st, state.FILE_PAGES, priority), scan_count(st, state.ANON_PAGES, priority)
        if priority < state.DEF_PRIORITY:
            scan, anon = min(scan, state.SWAP_CLUSTER_MAX), min(anon, state.SWAP_CLUSTER_MAX)
        got += shrink_list(st, scan, scan, cpu)[0]
        if anon:
            got += swap_out(st, anon, cpu)
        if got >= state.SWAP_CLUSTER_MAX:
            break
    if got < state.SWAP_CLUSTER_MAX and st.meters[state.DIRTY]:
        st.meters[state.WRITE_WAITS] += 1
        writeback.write(st, writeback.WAITED_FOR)
        every = st.meters[state.PAGES_OF + state.FILE_PAGES]
        got += shrink_list(st, every, state.SWAP_CLUSTER_MAX, cpu)[0]
    st.meters[state.BY_REQUEST] += got
    return got


@kernel
def wake(st: State, order: int) -> None:
    """wakeup_kswapd, for a request of that order."""
    st.meters[state.WOKEN_FOR] = max(st.meters[state.WOKEN_FOR], order)
    if not st.buddy.maps[state.ZONE, z.RECLAIMING]:
        st.buddy.maps[state.ZONE, z.RECLAIMING] = 1
        st.meters[state.PRIORITY] = state.DEF_PRIORITY
        st.meters[state.LEFT] = st.meters[state.LEFT_ANON] = 0


@kernel
def is_balanced(st: State) -> bool:
    """pgdat_balanced, for single pages."""
    free = st.buddy.maps[state.ZONE, z.FREE] - st.buddy.maps[state.ZONE, z.RESERVED_FREE]
    return free > st.meters[state.HIGH] + st.buddy.maps[state.ZONE, z.BOOST]


@outlined
def kswapd(st: State) -> int:
    """balance_pgdat: go on for `kswapd_batch` pages. Returns the order of blocks to be made when all is well, or 0."""
    left = st.p.kswapd_batch
    while left > 0:
        if is_balanced(st):
            return _sleep(st)
        if st.meters[state.LEFT] == 0 and st.meters[state.LEFT_ANON] == 0 and not _begin(st):
            st.buddy.maps[state.ZONE, z.RECLAIMING] = 0
            return 0
        at = state.LEFT if st.meters[state.LEFT] else state.LEFT_ANON
        want, cpu = min(left, st.meters[at]), st.buddy.p.cpus - 1
        if at == state.LEFT:
            got, seen = shrink_list(st, want, want, cpu)
        else:
            got = seen = swap_out(st, want, cpu)
        st.meters[state.BY_KSWAPD] += got
        st.meters[at] = max(st.meters[at] - seen, 0) if seen else 0
        left -= seen
    return 0


@kernel
def _begin(st: State) -> bool:
    """Begin a round: the last one's priority, if that has looked at enough pages, else a more urgent one. False: none.

    Rounds that have nothing to look at are passed at once; after the most urgent one kswapd gives up.
    """
    while st.meters[state.PRIORITY] >= 1:
        priority = st.meters[state.PRIORITY]
        st.meters[state.LEFT] = scan_count(st, state.FILE_PAGES, priority)
        st.meters[state.LEFT_ANON] = scan_count(st, state.ANON_PAGES, priority)
        scan = st.meters[state.LEFT] + st.meters[state.LEFT_ANON]
        st.meters[state.ROUNDS + priority] += 1
        if scan < max(st.meters[state.HIGH], state.SWAP_CLUSTER_MAX):
            st.meters[state.PRIORITY] -= 1
        if scan:
            return True
    return False


@kernel
def _sleep(st: State) -> int:
    """Go to sleep; a boost is over, and calls for whole pageblocks. Returns the order that was wanted."""
    st.buddy.maps[state.ZONE, z.RECLAIMING] = 0
    order = st.meters[state.WOKEN_FOR]
    st.meters[state.WOKEN_FOR] = 0
    if st.buddy.maps[state.ZONE, z.BOOST] > 0:
        st.buddy.maps[state.ZONE, z.BOOST] = 0
        return st.buddy.p.pageblock_order
    return order
