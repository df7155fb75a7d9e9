"""Who gets pages of the direct map when they run short: watermarks, reclaim, compaction (Linux 6.18, mm/page_alloc.c).

A request goes through the zones in the order of its node's list. It takes pages above the low watermark first without
spoiling pageblocks, which it gives up before it leaves its node, then with; then it wakes all kswapds and may go down
to a mark of its class. On a machine with several nodes those whose kswapd runs are passed by at first. What may wait
has pages moved where it wants more than one, reclaims by itself, and empties the CPUs' lists after a reclaim that has
found something (__alloc_pages_direct_reclaim). What may not wait and wants several pages has pageblocks kept for it
(`highatomic`). Requests for low memory have ZONE_DMA alone, without its reserve; reclaim for them looks at all pages of
a node as ever. Left out: reserves for real-time tasks, requests for a certain node or for ZONE_DMA32, the OOM killer: a
request that finds nothing to reclaim fails; the driver asks the shrinkers before it is made again.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import int64
from kmemexp.sim.arenas.buddy import pcp as buddy_pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import highatomic, reclaim, state, writeback
from kmemexp.sim.arenas.linux_mm.compact import compact, run_deferred
from kmemexp.sim.arenas.linux_mm.state import State
from kmemexp.sim.slots import ATTR_ATOMIC, ATTR_LOW, ATTR_TRY

# Classes of requests.
NORMAL = 0  # GFP_KERNEL and alike: may wait, down to the min watermark
ATOMIC = 1  # may not, down to three eighths of it
TRY = 2  # SLUB's first try, huge pages: down to min, and nothing is done for it
FAST = 3  # all of them at first: above the low watermark
ANY = 4  # where the kernel is alone: no mark counts
SORT = 7  # mask of the above
LOW_ONLY = 8  # a further bit: from ZONE_DMA, where there is one (GFP_DMA)

COSTLY_ORDER = buddy_pcp.COSTLY_ORDER


@kernel
def class_of(attr: int) -> int:
    """Class of a request by its attribute. SLUB's first try for a caller that cannot wait is that caller's own."""
    low = LOW_ONLY if attr & ATTR_LOW else 0
    if attr & ATTR_ATOMIC:
        return ATOMIC | low
    return (TRY if attr & ATTR_TRY else NORMAL) | low


@outlined
def get(st: State, order: int, kind: int, klass: int, cpu: int) -> int:
    """__alloc_pages: a block of migrate type `kind`. Returns its page or -1."""
    for node in range(len(st.nodes)):
        if st.nodes[node, state.RUNNING]:
            background(st, node)
    if st.meters[state.FLUSHING]:
        writeback.flush(st)
    page = from_lists(st, order, kind, cpu, FAST | klass & LOW_ONLY, keeps_apart(st, list_for(st, cpu, klass)))
    if page < 0:
        page = slowly(st, order, kind, klass, cpu)
    for node in range(len(st.nodes)):
        if reclaim.is_boosted(st, node):
            reclaim.wake(st, node, 0)
    return page


@outlined
def background(st: State, node: int) -> None:
    """Let kswapd go on; when it goes to sleep it has blocks made of the size that was wanted (wakeup_kcompactd)."""
    order = reclaim.kswapd(st, node)
    if order == 0 or st.p.compaction == 0:
        return
    for zone in range(st.nodes[node, state.FIRST_ZONE], st.nodes[node, state.END_ZONE]):
        if not is_there(st, zone, order) and not run_deferred(st, zone, order):
            compact(st, zone, order, z.MOVABLE, 1)


@kernel
def is_there(st: State, zone: int, order: int) -> bool:
    """Whether a block could be had above the min watermark: compaction is over, or not worth while."""
    return buddy_pcp.is_above(st.buddy, zone, order, mark_of(st, zone, NORMAL))


@kernel
def list_for(st: State, cpu: int, klass: int) -> int:
    """Row of the zones that a request may have, in the order in which it asks them."""
    return st.node_of[cpu] + (len(st.nodes) if klass & LOW_ONLY else 0)


@kernel
def keeps_apart(st: State, asked: int) -> int:
    """alloc_flags_nofragment: whether pageblocks are spared at first: of zones, where ZONE_DMA32 can help out."""
    zone = st.zonelist[asked, 0]
    if zone < 0 or st.buddy.p.migrate == 0:
        return 0
    if len(st.zones) == 1:
        return 1
    if zone == 0 or st.zones[zone, state.KIND] != state.NORMAL:
        return 0
    below = zone - 1
    return int64(
        st.zones[below, state.KIND] == state.DMA32 and st.zones[below, state.NODE] == st.zones[zone, state.NODE]
    )


@outlined
def from_lists(st: State, order: int, kind: int, cpu: int, klass: int, nofragment: int) -> int:
    """get_page_from_freelist: a block that leaves its zone above the mark of a class. Returns its page or -1."""
    if len(st.zones) == 1 and klass & SORT == FAST:
        return from_only(st, order, kind, cpu, nofragment)
    asked, own = list_for(st, cpu, klass), st.node_of[cpu]
    skip = len(st.nodes) > 1 and st.p.skip_busy and klass & SORT != ANY
    while True:
        skipped, i = False, 0
        while i < len(st.zones) and st.zonelist[asked, i] >= 0:
            zone = st.zonelist[asked, i]
            node = st.zones[zone, state.NODE]
            if nofragment and node != own:  # locality is worth more than whole pageblocks
                nofragment, skipped, i = 0, False, 0
                continue
            i += 1
            if skip and st.nodes[node, state.RUNNING]:
                skipped = True
                continue
            page = take(st, zone, order, kind, cpu, klass, nofragment)
            if page >= 0:
                count(st, own, node)
                return page
        if skip and skipped:
            skip = False
        elif nofragment:
            nofragment = 0
        else:
            return -1


@kernel
def from_only(st: State, order: int, kind: int, cpu: int, nofragment: int) -> int:
    """The same of the only zone, for all requests at first: the commonest case. Returns its page or -1."""
    while True:
        mark = st.zones[0, state.LOW] + st.buddy.maps[0, z.BOOST]
        page = -1
        if buddy_pcp.is_above(st.buddy, 0, order, mark):
            page = buddy_pcp.attempt(st.buddy, 0, cpu, order, kind, nofragment)
        if page >= 0 or nofragment == 0:
            return page
        nofragment = 0


@outlined
def take(st: State, zone: int, order: int, kind: int, cpu: int, klass: int, nofragment: int) -> int:
    """Take a block of a zone, if that leaves it above the mark of a class. Returns its page or -1."""
    if klass & SORT == ANY:
        return buddy_pcp.attempt(st.buddy, zone, cpu, order, kind, nofragment)
    mark = mark_of(st, zone, klass)
    if klass & SORT == ATOMIC and st.p.highatomic and st.buddy.p.migrate:
        return highatomic.urgent(st, zone, order, kind, mark, cpu)
    if not buddy_pcp.is_above(st.buddy, zone, order, mark + st.buddy.maps[zone, z.BOOST]):
        return -1
    return buddy_pcp.attempt(st.buddy, zone, cpu, order, kind, nofragment)


@kernel
def count(st: State, own: int, node: int) -> None:
    """zone_statistics."""
    if node == own:
        st.nodes[node, state.HITS] += 1
    else:
        st.nodes[node, state.MISSES] += 1
        st.nodes[own, state.FOREIGN] += 1


@kernel
def mark_of(st: State, zone: int, klass: int) -> int:
    """Pages that a request of a class leaves in a zone: __zone_watermark_ok."""
    reserve = 0 if klass & LOW_ONLY else st.zones[zone, state.RESERVE]
    if klass & SORT == FAST:
        return st.zones[zone, state.LOW] + reserve
    least = st.zones[zone, state.MIN]
    if klass & SORT == ATOMIC:
        least -= least // 2  # ALLOC_MIN_RESERVE
        least -= least // 4  # ALLOC_NON_BLOCK
    return least + reserve


@outlined
def slowly(st: State, order: int, kind: int, klass: int, cpu: int) -> int:
    """__alloc_pages_slowpath. Returns a page or -1."""
    if klass & SORT != TRY:
        reclaim.wake_all(st, order, cpu)
    page = from_lists(st, order, kind, cpu, klass, 0)
    if page >= 0 or klass & SORT != NORMAL:
        return page
    if st.p.compaction and order > 0 and (order > COSTLY_ORDER or kind != z.MOVABLE):
        page = compacted(st, order, kind, klass, cpu, 0)
        if page >= 0:
            return page
    st.meters[state.STALLS] += 1
    going = True
    while page < 0 and going:
        got = reclaim.by_request(st, cpu)
        going = got > 0 and order <= COSTLY_ORDER
        if got > 0:
            page = from_lists(st, order, kind, cpu, klass, 0)
        if page < 0 and got > 0:
            page = drained(st, order, kind, klass, cpu)
        if page < 0 and st.p.compaction and order > 0:
            page = compacted(st, order, kind, klass, cpu, 1)
        if page < 0 and not going and order <= COSTLY_ORDER and highatomic.unreserve(st, st.node_of[cpu], kind, 1):
            page = from_lists(st, order, kind, cpu, klass, 0)
            going = True
    return page


@outlined
def drained(st: State, order: int, kind: int, klass: int, cpu: int) -> int:
    """Give back what is reserved, but for the last pageblock, and what CPUs' lists hold. Returns a page or -1."""
    moved = highatomic.unreserve(st, st.node_of[cpu], kind, 0)
    freed = drain_all(st)
    return from_lists(st, order, kind, cpu, klass, 0) if moved or freed > 0 else -1


@outlined
def drain_all(st: State) -> int:
    """drain_all_pages, of all zones. Returns the pages."""
    freed = 0
    for zone in range(len(st.zones)):
        freed += buddy_pcp.drain_all(st.buddy, zone)
    st.buddy.maps[state.ANY_ZONE, z.DRAINS] += freed > 0
    return freed


@outlined
def compacted(st: State, order: int, kind: int, klass: int, cpu: int, sync: int) -> int:
    """__alloc_pages_direct_compact: zone after zone, until one has a block as wanted. Returns a page or -1."""
    asked, page = list_for(st, cpu, klass), -1
    for i in range(len(st.zones)):
        zone = st.zonelist[asked, i]
        if zone < 0 or page >= 0:
            break
        if sync and run_deferred(st, zone, order):
            continue
        room = mark_of(st, zone, klass) + (2 << order)  # compaction_suitable
        if buddy_pcp.is_above(st.buddy, zone, 0, room):
            compact(st, zone, order, kind, sync)
            page = take(st, zone, order, kind, cpu, klass, 0)
            if page >= 0:
                count(st, st.node_of[cpu], st.zones[zone, state.NODE])
    return page


@outlined
def alone(st: State, order: int, kind: int, klass: int, cpu: int) -> int:
    """A block of zones that are the kernel's alone, which give their last page. Returns its page or -1."""
    whatever = ANY | klass & LOW_ONLY
    page = from_lists(st, order, kind, cpu, whatever, keeps_apart(st, list_for(st, cpu, klass)))
    if page < 0 and st.buddy.p.pcp and drain_all(st) > 0:
        page = from_lists(st, order, kind, cpu, whatever, 0)
    return page
