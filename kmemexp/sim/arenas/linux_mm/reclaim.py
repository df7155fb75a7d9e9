"""Reclaim of page cache: kswapd, and requests that must do it by themselves (Linux 6.18, mm/vmscan.c).

A round of priority p looks at the oldest 2**-p of the list (get_scan_count), and asks the shrinkers: how often at which
priority is noted, the driver shrinks between two operations. Everything on the list is clean, so all that is looked at
is freed. kswapd runs on the last CPU; while it runs, it reclaims `kswapd_batch` pages whenever another CPU allocates a
block. Without swap anonymous pages stay. Left out: the active list and workingset detection, memory cgroups, dirty
pages, throttling.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import state
from kmemexp.sim.arenas.linux_mm.owners import by_age, drop, forget, row_of
from kmemexp.sim.arenas.linux_mm.state import State


@outlined
def shrink_list(st: State, want: int, cpu: int) -> int:
    """Free the oldest blocks of files, of `want` pages together at least if there are so many. Returns their pages."""
    got = 0
    while got < want:
        page = st.buddy.lists[by_age(st), z.TAIL]
        if page < 0:
            break
        who = st.owner[row_of(st, page)] - 1
        got += drop(st, page, cpu)
        if st.owners[who, state.PAGES] == 0:
            forget(st, who)
    return got


@outlined
def by_request(st: State, cpu: int) -> int:
    """try_to_free_pages: rounds, each more urgent than the last, until there are enough pages. Returns their number."""
    got = 0
    for priority in range(state.DEF_PRIORITY, -1, -1):
        st.meters[state.ROUNDS + priority] += 1
        scan = st.meters[state.PAGES_OF + state.FILE_PAGES] >> priority
        if priority < state.DEF_PRIORITY:
            scan = min(scan, state.SWAP_CLUSTER_MAX)
        got += shrink_list(st, scan, cpu)
        if got >= state.SWAP_CLUSTER_MAX:
            break
    st.meters[state.BY_REQUEST] += got
    return got


@kernel
def wake(st: State, order: int) -> None:
    """wakeup_kswapd, for a request of that order."""
    st.meters[state.WOKEN_FOR] = max(st.meters[state.WOKEN_FOR], order)
    if not st.buddy.maps[state.ZONE, z.RECLAIMING]:
        st.buddy.maps[state.ZONE, z.RECLAIMING] = 1
        st.meters[state.PRIORITY] = state.DEF_PRIORITY
        st.meters[state.LEFT] = 0


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
        if st.meters[state.LEFT] == 0 and not _begin(st):
            st.buddy.maps[state.ZONE, z.RECLAIMING] = 0
            return 0
        got = shrink_list(st, min(left, st.meters[state.LEFT]), st.buddy.p.cpus - 1)
        st.meters[state.BY_KSWAPD] += got
        st.meters[state.LEFT] = max(st.meters[state.LEFT] - got, 0) if got else 0
        left -= got
    return 0


@kernel
def _begin(st: State) -> bool:
    """Begin a round: the last one's priority, if that has looked at enough pages, else a more urgent one. False: none.

    Rounds that have nothing to look at are passed at once; after the most urgent one kswapd gives up.
    """
    while st.meters[state.PRIORITY] >= 1:
        priority = st.meters[state.PRIORITY]
        scan = st.meters[state.PAGES_OF + state.FILE_PAGES] >> priority
        st.meters[state.ROUNDS + priority] += 1
        st.meters[state.LEFT] = scan
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
