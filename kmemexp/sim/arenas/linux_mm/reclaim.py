"""Reclaim of page cache: kswapd, and requests that must do it by themselves (Linux 6.18, mm/vmscan.c).

A round of priority p looks at the oldest 2**-p of a node's list (get_scan_count), and asks the shrinkers: how often at
which priority is noted, the driver shrinks between two operations. Clean pages that are looked at are freed, dirty ones
put to the list's head. Each node has a kswapd, which runs on the last CPU of its own; while it runs, it looks at
`kswapd_batch` pages whenever a CPU allocates a block. A request goes through all nodes in each of its rounds
(shrink_zones). With swap space both lists are looked at, by vm.swappiness, anonymous pages alone where page cache and
what is free are no more than the high watermarks (file_is_tiny). Left out: the active lists, workingset detection and
the costs that it weighs lists by, memory cgroups; that swapped pages are wanted again; that a node is given up after 16
rounds of its kswapd in vain.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.buddy.pcp import is_above
from kmemexp.sim.arenas.linux_mm import state, writeback
from kmemexp.sim.arenas.linux_mm.owners import by_age, drop, forget_empty, list_of, pages_of, row_of
from kmemexp.sim.arenas.linux_mm.state import State
from kmemexp.sim.arenas.linux_mm.zones import free_on, high_on
from kmemexp.sim.slots import PAGE_SHIFT

MIB_SHIFT = 20
WHOLE = 200  # MAX_SWAPPINESS


@outlined
def shrink_list(st: State, node: int, look: int, enough: int, cpu: int) -> tuple[int, int]:
    """Look at a node's oldest blocks of files, `look` pages of them, until there are enough; free what is clean.

    Returns the pages freed, and those looked at.
    """
    got, seen, which = 0, 0, by_age(st, node)
    while seen < look and got < enough:
        page = st.buddy.lists[which, z.TAIL]
        if page < 0:
            break
        who = st.owner[row_of(st, page)] - 1
        if st.owners[who, state.IS_DIRTY]:
            z.pull(st.buddy, state.ANY_ZONE, which, page)
            z.push(st.buddy, state.ANY_ZONE, which, page, False)
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
def swap_out(st: State, node: int, look: int, cpu: int) -> int:
    """Move a node's oldest blocks of anonymous pages to the swap space, if there is room. Returns their pages."""
    got = 0
    while got < look:
        page = st.buddy.lists[list_of(st, state.ANON_PAGES, node), z.TAIL]
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
def scan_count(st: State, node: int, sort: int, priority: int) -> int:
    """get_scan_count: pages of a node's list that a round looks at."""
    files, room = st.nodes[node, state.HELD + state.FILE_PAGES], swap_room(st)
    scan = st.nodes[node, state.HELD + sort] >> priority
    if room <= 0:
        return scan if sort == state.FILE_PAGES else 0
    if files + free_on(st, node) <= high_on(st, node, 0):
        return scan if sort == state.ANON_PAGES else 0
    share = st.p.swappiness if sort == state.ANON_PAGES else WHOLE - st.p.swappiness
    return scan * share // WHOLE


@outlined
def by_request(st: State, cpu: int) -> int:
    """try_to_free_pages: rounds, each more urgent than the last, until there are enough pages. Returns their number."""
    got, own = 0, st.node_of[cpu]
    for priority in range(state.DEF_PRIORITY, -1, -1):
        before = -1
        for i in range(len(st.zones)):
            if st.zonelist[own, i] < 0:
                break
            node = st.zones[st.zonelist[own, i], state.NODE]
            if node != before:
                st.nodes[node, state.ROUNDS + priority] += 1
                got += shrink_node(st, node, priority, cpu)
            before = node
        if got >= state.SWAP_CLUSTER_MAX:
            break
    if got < state.SWAP_CLUSTER_MAX and st.meters[state.DIRTY]:
        st.meters[state.WRITE_WAITS] += 1
        writeback.write(st, writeback.WAITED_FOR)
        for node in range(len(st.nodes)):
            every = st.nodes[node, state.HELD + state.FILE_PAGES]
            got += shrink_list(st, node, every, state.SWAP_CLUSTER_MAX, cpu)[0]
    st.meters[state.BY_REQUEST] += got
    return got


@outlined
def shrink_node(st: State, node: int, priority: int, cpu: int) -> int:
    """What a round of a request takes from a node. Returns the pages."""
    scan = scan_count(st, node, state.FILE_PAGES, priority)
    anon = scan_count(st, node, state.ANON_PAGES, priority)
    if priority < state.DEF_PRIORITY:
        scan, anon = min(scan, state.SWAP_CLUSTER_MAX), min(anon, state.SWAP_CLUSTER_MAX)
    got = shrink_list(st, node, scan, scan, cpu)[0]
    if anon:
        got += swap_out(st, node, anon, cpu)
    return got


@outlined
def wake_all(st: State, order: int, cpu: int) -> None:
    """wake_all_kswapds, for a request of that order."""
    own = st.node_of[cpu]
    wake(st, own, order)
    for node in range(len(st.nodes)):
        if node != own:
            wake(st, node, order)


@kernel
def wake(st: State, node: int, order: int) -> None:
    """wakeup_kswapd, for a request of that order: of a node that is not balanced for it, or boosted."""
    st.nodes[node, state.WOKEN_FOR] = max(st.nodes[node, state.WOKEN_FOR], order)
    if not st.nodes[node, state.RUNNING] and (is_boosted(st, node) or not is_balanced(st, node, order)):
        set_running(st, node, 1)
        st.nodes[node, state.PRIORITY] = state.DEF_PRIORITY
        st.nodes[node, state.LEFT] = st.nodes[node, state.LEFT_ANON] = 0


@kernel
def set_running(st: State, node: int, running: int) -> None:
    """Note that a node's kswapd is at work, or no longer; its zones' per-CPU lists are short meanwhile."""
    st.nodes[node, state.RUNNING] = running
    for zone in range(st.nodes[node, state.FIRST_ZONE], st.nodes[node, state.END_ZONE]):
        st.buddy.maps[zone, z.RECLAIMING] = running


@kernel
def is_boosted(st: State, node: int) -> bool:
    """pgdat_watermark_boosted."""
    for zone in range(st.nodes[node, state.FIRST_ZONE], st.nodes[node, state.END_ZONE]):
        if st.buddy.maps[zone, z.BOOST]:
            return True
    return False


@kernel
def is_balanced(st: State, node: int, order: int) -> bool:
    """pgdat_balanced: any zone of the node will do."""
    for zone in range(st.nodes[node, state.FIRST_ZONE], st.nodes[node, state.END_ZONE]):
        mark = st.zones[zone, state.HIGH] + st.zones[zone, state.RESERVE] + st.buddy.maps[zone, z.BOOST]
        if is_above(st.buddy, zone, order, mark):
            return True
    return False


@outlined
def kswapd(st: State, node: int) -> int:
    """balance_pgdat: go on for `kswapd_batch` pages. Returns the order of blocks to be made when all is well, or 0."""
    left = st.p.kswapd_batch
    while left > 0:
        if is_balanced(st, node, 0):
            return _sleep(st, node)
        if st.nodes[node, state.LEFT] == 0 and st.nodes[node, state.LEFT_ANON] == 0 and not _begin(st, node):
            set_running(st, node, 0)
            return 0
        at = state.LEFT if st.nodes[node, state.LEFT] else state.LEFT_ANON
        want, cpu = min(left, st.nodes[node, at]), st.nodes[node, state.LAST_CPU]
        if at == state.LEFT:
            got, seen = shrink_list(st, node, want, want, cpu)
        else:
            got = seen = swap_out(st, node, want, cpu)
        st.meters[state.BY_KSWAPD] += got
        st.nodes[node, at] = max(st.nodes[node, at] - seen, 0) if seen else 0
        left -= seen
    return 0


@kernel
def _begin(st: State, node: int) -> bool:
    """Begin a round: the last one's priority, if that has looked at enough pages, else a more urgent one. False: none.

    Rounds that have nothing to look at are passed at once; after the most urgent one kswapd gives up.
    """
    while st.nodes[node, state.PRIORITY] >= 1:
        priority = st.nodes[node, state.PRIORITY]
        st.nodes[node, state.LEFT] = scan_count(st, node, state.FILE_PAGES, priority)
        st.nodes[node, state.LEFT_ANON] = scan_count(st, node, state.ANON_PAGES, priority)
        scan = st.nodes[node, state.LEFT] + st.nodes[node, state.LEFT_ANON]
        st.nodes[node, state.ROUNDS + priority] += 1
        if scan < high_on(st, node, state.SWAP_CLUSTER_MAX):
            st.nodes[node, state.PRIORITY] -= 1
        if scan:
            return True
    return False


@kernel
def _sleep(st: State, node: int) -> int:
    """Go to sleep; boosts are over, and call for whole pageblocks. Returns the order that was wanted."""
    set_running(st, node, 0)
    order = st.nodes[node, state.WOKEN_FOR]
    st.nodes[node, state.WOKEN_FOR] = 0
    for zone in range(st.nodes[node, state.FIRST_ZONE], st.nodes[node, state.END_ZONE]):
        if st.buddy.maps[zone, z.BOOST] > 0:
            st.buddy.maps[zone, z.BOOST] = 0
            order = st.buddy.p.pageblock_order
    return order
