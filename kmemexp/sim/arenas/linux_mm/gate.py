"""Who gets pages of the direct map when they run short: watermarks, reclaim, compaction (Linux 6.18, mm/page_alloc.c).

A request takes pages above the low watermark first without spoiling pageblocks, then with; then it wakes kswapd and may
go down to a mark of its class. What may wait has pages moved where it wants more than one, reclaims by itself, and
empties the CPUs' lists after a reclaim that has found something (__alloc_pages_direct_reclaim). What may not wait and
wants several pages has pageblocks kept for it (`highatomic`). Left out: reserves for real-time tasks, zones and nodes,
the OOM killer: a request that finds nothing to reclaim fails; the driver asks the shrinkers before it is made again.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.arenas.buddy import pcp as buddy_pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import highatomic, reclaim, state, writeback
from kmemexp.sim.arenas.linux_mm.compact import compact, run_deferred
from kmemexp.sim.arenas.linux_mm.state import State
from kmemexp.sim.slots import ATTR_ATOMIC, ATTR_TRY

# Classes of requests.
NORMAL = 0  # GFP_KERNEL and alike: may wait, down to the min watermark
ATOMIC = 1  # may not, down to three eighths of it
TRY = 2  # SLUB's first try, huge pages: down to min, and nothing is done for it

COSTLY_ORDER = buddy_pcp.COSTLY_ORDER


@kernel
def class_of(attr: int) -> int:
    """Class of a request by its attribute. SLUB's first try for a caller that cannot wait is that caller's own."""
    if attr & ATTR_ATOMIC:
        return ATOMIC
    return TRY if attr & ATTR_TRY else NORMAL


@outlined
def get(st: State, order: int, kind: int, klass: int, cpu: int) -> int:
    """__alloc_pages: a block of migrate type `kind`. Returns its page or -1."""
    if st.buddy.maps[state.ZONE, z.RECLAIMING]:
        background(st)
    if st.meters[state.FLUSHING]:
        writeback.flush(st)
    page = from_lists(st, order, kind, cpu, st.meters[state.LOW], 1)
    if page < 0 and st.buddy.p.migrate:
        page = from_lists(st, order, kind, cpu, st.meters[state.LOW], 0)
    if page < 0:
        page = slowly(st, order, kind, klass, cpu)
    if st.buddy.maps[state.ZONE, z.BOOST]:
        reclaim.wake(st, 0)
    return page


@outlined
def background(st: State) -> None:
    """Let kswapd go on; when it goes to sleep it has blocks made of the size that was wanted (wakeup_kcompactd)."""
    order = reclaim.kswapd(st)
    if order > 0 and st.p.compaction and not is_there(st, order) and not run_deferred(st, order):
        compact(st, order, z.MOVABLE, 1)


@kernel
def is_there(st: State, order: int) -> bool:
    """Whether a block could be had above the min watermark: compaction is over, or not worth while."""
    return buddy_pcp.is_above(st.buddy, state.ZONE, order, st.meters[state.MIN])


@outlined
def from_lists(st: State, order: int, kind: int, cpu: int, mark: int, nofragment: int) -> int:
    """get_page_from_freelist: a block that leaves the zone above a watermark. Returns its page or -1."""
    boosted = mark + st.buddy.maps[state.ZONE, z.BOOST]
    if not buddy_pcp.is_above(st.buddy, state.ZONE, order, boosted):
        return -1
    return buddy_pcp.attempt(st.buddy, state.ZONE, cpu, order, kind, nofragment)


@kernel
def mark_of(st: State, klass: int) -> int:
    """Pages that a request of a class leaves: __zone_watermark_ok."""
    least = st.meters[state.MIN]
    if klass != ATOMIC:
        return least
    least -= least // 2  # ALLOC_MIN_RESERVE
    return least - least // 4  # ALLOC_NON_BLOCK


@outlined
def slowly(st: State, order: int, kind: int, klass: int, cpu: int) -> int:
    """__alloc_pages_slowpath. Returns a page or -1."""
    mark = mark_of(st, klass)
    if klass != TRY:
        reclaim.wake(st, order)
    if klass == ATOMIC and st.p.highatomic and st.buddy.p.migrate:
        return highatomic.urgent(st, order, kind, mark, cpu)
    page = from_lists(st, order, kind, cpu, mark, 0)
    if page >= 0 or klass != NORMAL:
        return page
    if st.p.compaction and order > 0 and (order > COSTLY_ORDER or kind != z.MOVABLE):
        page = compacted(st, order, kind, cpu, 0)
        if page >= 0:
            return page
    st.meters[state.STALLS] += 1
    going = True
    while page < 0 and going:
        got = reclaim.by_request(st, cpu)
        going = got > 0 and order <= COSTLY_ORDER
        if got > 0:
            page = from_lists(st, order, kind, cpu, mark, 0)
        if page < 0 and got > 0:
            page = drained(st, order, kind, cpu, mark)
        if page < 0 and st.p.compaction and order > 0 and not run_deferred(st, order):
            page = compacted(st, order, kind, cpu, 1)
        if page < 0 and not going and order <= COSTLY_ORDER and highatomic.unreserve(st, kind, 1):
            page = from_lists(st, order, kind, cpu, mark, 0)
            going = True
    return page


@outlined
def drained(st: State, order: int, kind: int, cpu: int, mark: int) -> int:
    """Give back what is reserved, but for the last pageblock, and what CPUs' lists hold. Returns a page or -1."""
    moved = highatomic.unreserve(st, kind, 0)
    freed = buddy_pcp.drain_all(st.buddy, state.ZONE)
    st.buddy.maps[state.ZONE, z.DRAINS] += freed > 0
    return from_lists(st, order, kind, cpu, mark, 0) if moved or freed > 0 else -1


@outlined
def compacted(st: State, order: int, kind: int, cpu: int, sync: int) -> int:
    """__alloc_pages_direct_compact. Returns a page or -1."""
    if not buddy_pcp.is_above(st.buddy, state.ZONE, 0, st.meters[state.MIN] + (2 << order)):  # compaction_suitable
        return -1
    compact(st, order, kind, sync)
    return from_lists(st, order, kind, cpu, st.meters[state.MIN], 0)
