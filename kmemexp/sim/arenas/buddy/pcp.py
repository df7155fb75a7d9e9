"""Per-CPU page lists of Linux 6.12: what lies between a request and the zone (mm/page_alloc.c).

A CPU has a list for each order 0 … 3 and type, and two for pageblocks (huge pages); freed blocks go to the head of the
list of their pageblock's type, whatever they were asked for. `high`, up to which a CPU keeps pages, is tuned between
two bounds by how the CPU allocates and frees; so are the sizes of refills and returns. The last-level cache's share of
a CPU is taken to be larger than three batches (PCPF_FREE_HIGH_BATCH), as on all machines of the last decade.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import MapNo
from kmemexp.sim.arenas.buddy import zone
from kmemexp.sim.arenas.buddy.index import PCP_BATCH_SCALE_MAX
from kmemexp.sim.arenas.buddy.state import State
from kmemexp.sim.arenas.buddy.zone import free_block, pull, push, rmqueue, type_of, zone_list

COSTLY_ORDER = 3  # PAGE_ALLOC_COSTLY_ORDER: the largest small order that the lists hold
SMALL_LISTS = zone.TYPES * (COSTLY_ORDER + 1)
LISTS = SMALL_LISTS + 2  # and pageblocks: unmovable or reclaimable, movable

# Columns of `pcp`.
COUNT = 0  # pages on the lists
LIMIT = 1  # pcp->high
LIMIT_MIN = 2
LIMIT_MAX = 3
BATCH = 4
ALLOC_FACTOR = 5  # refills in a row, without a free: log2 of their growth
FREE_COUNT = 6  # pages freed lately
WAS_ORDER = 7  # 1: what was freed last was larger than a page (PCPF_PREV_FREE_HIGH_ORDER)
PCP_COLUMNS = 8


@kernel
def holds(st: State, order: int) -> bool:
    """pcp_allowed_order: whether the CPUs' lists hold blocks of this order."""
    return st.p.pcp != 0 and (order <= COSTLY_ORDER or order == st.p.pageblock_order)


@kernel
def row_of(st: State, map_no: MapNo, cpu: int) -> int:
    """Row of a CPU of a map."""
    return map_no * st.p.cpus + cpu


@kernel
def index_of(order: int, kind: int) -> int:
    """order_to_pindex: which of a CPU's lists."""
    if kind == zone.HIGHATOMIC:
        kind = zone.MOVABLE
    if order > COSTLY_ORDER:
        return SMALL_LISTS + (1 if kind == zone.MOVABLE else 0)
    return order * zone.TYPES + kind


@kernel
def order_of(st: State, index: int) -> int:
    """pindex_to_order: order of the blocks on one of a CPU's lists."""
    return st.p.pageblock_order if index >= SMALL_LISTS else index // zone.TYPES


@kernel
def pcp_list(st: State, row: int, index: int) -> int:
    """Number of a CPU's list; the zones' lists come first."""
    return len(st.maps) * zone.LIST_TYPES * (st.p.max_order + 1) + row * LISTS + index


@kernel
def clamp(x: int, low: int, high: int) -> int:
    """Return x within bounds."""
    return min(max(x, low), high)


@kernel
def get(st: State, map_no: MapNo, cpu: int, order: int, kind: int, nofragment: int) -> int:
    """rmqueue_pcplist: a block from the CPU's list, which is refilled if empty. Returns the page or -1."""
    row = row_of(st, map_no, cpu)
    st.pcp[row, FREE_COUNT] >>= 1
    which = pcp_list(st, row, index_of(order, kind))
    if st.lists[which, zone.HEAD] < 0:
        refill(st, map_no, row, which, order, kind, nofragment)
    page = st.lists[which, zone.HEAD]
    if page >= 0:
        pull(st, map_no, which, page)
        st.tag[page + st.maps[map_no, zone.SHIFT]] = 0
        st.pcp[row, COUNT] -= 1 << order
    return page


@outlined
def refill(st: State, map_no: MapNo, row: int, which: int, order: int, kind: int, nofragment: int) -> None:
    """rmqueue_bulk: take blocks from the zone, in the order in which it gives them."""
    mode = zone.NORMAL
    for _ in range(wanted(st, map_no, row, order)):
        page, mode = rmqueue(st, map_no, order, kind, nofragment, mode)
        if page < 0:
            break
        st.tag[page + st.maps[map_no, zone.SHIFT]] = zone.PCP_BLOCK + order
        push(st, map_no, which, page, True)
        st.pcp[row, COUNT] += 1 << order


@kernel
def wanted(st: State, map_no: MapNo, row: int, order: int) -> int:
    """nr_pcp_alloc: blocks of a refill. Refills of single pages double while nothing is freed, and raise the limit."""
    pcp = st.pcp
    base = pcp[row, BATCH]
    high = pcp[row, LIMIT] = clamp(pcp[row, LIMIT], pcp[row, LIMIT_MIN], pcp[row, LIMIT_MAX])
    if high < base:
        return 1
    batch = base
    if order == 0:
        batch = base << pcp[row, ALLOC_FACTOR]
    if pcp[row, LIMIT_MIN] != pcp[row, LIMIT_MAX] and st.maps[map_no, zone.BELOW_HIGH] == 0:
        high = pcp[row, LIMIT] = min(high + batch, pcp[row, LIMIT_MAX])
    if order == 0:
        most = max(high - pcp[row, COUNT] - base, base)
        if batch <= most and pcp[row, ALLOC_FACTOR] < PCP_BATCH_SCALE_MAX:
            pcp[row, ALLOC_FACTOR] += 1
        batch = min(batch, most)
    if batch > 1:
        batch = max(batch >> order, 2)
    return batch


@kernel
def give(st: State, map_no: MapNo, cpu: int, page: int, order: int) -> None:
    """free_unref_page: a block to the head of the CPU's list; what is above the limit goes back to the zone."""
    row = row_of(st, map_no, cpu)
    pcp = st.pcp
    index = index_of(order, type_of(st, map_no, page))
    pcp[row, ALLOC_FACTOR] >>= 1
    st.tag[page + st.maps[map_no, zone.SHIFT]] = zone.PCP_BLOCK + order
    push(st, map_no, pcp_list(st, row, index), page, False)
    pcp[row, COUNT] += 1 << order
    batch = pcp[row, BATCH]
    free_high = 0
    if 0 < order <= COSTLY_ORDER:
        many = batch + (pcp[row, LIMIT_MIN] // 2 if st.p.late_flush else 0)
        if pcp[row, FREE_COUNT] >= many and pcp[row, WAS_ORDER] and pcp[row, COUNT] >= batch:
            free_high = 1
        pcp[row, WAS_ORDER] = 1
    else:
        pcp[row, WAS_ORDER] = 0
    if pcp[row, FREE_COUNT] < batch << PCP_BATCH_SCALE_MAX:
        pcp[row, FREE_COUNT] += 1 << order
    high = limit(st, map_no, row, free_high)
    if pcp[row, COUNT] >= high:
        give_back(st, map_no, row, surplus(st, row, high, free_high), index)
        # zone_watermark_ok for one page
        free = st.maps[map_no, zone.FREE] - st.maps[map_no, zone.RESERVED_FREE]
        if free > st.maps[map_no, zone.WMARK_HIGH] + st.maps[map_no, zone.BOOST]:
            st.maps[map_no, zone.BELOW_HIGH] = 0


@kernel
def limit(st: State, map_no: MapNo, row: int, free_high: int) -> int:
    """nr_pcp_high: pages from which on some go back; tunes the CPU's limit."""
    pcp = st.pcp
    batch, low = pcp[row, BATCH], pcp[row, LIMIT_MIN]
    high = pcp[row, LIMIT] = clamp(pcp[row, LIMIT], low, pcp[row, LIMIT_MAX])
    if high == 0:
        return 0
    if free_high:
        pcp[row, LIMIT] = max(high - (batch << PCP_BATCH_SCALE_MAX), low)
        return 0
    if st.maps[map_no, zone.RECLAIMING]:
        pcp[row, LIMIT] = max(high - max(pcp[row, FREE_COUNT], batch), low)
        return min(batch << 2, pcp[row, LIMIT])
    if low == pcp[row, LIMIT_MAX]:
        return high
    if st.maps[map_no, zone.BELOW_HIGH]:
        pcp[row, LIMIT] = max(high - max(pcp[row, FREE_COUNT], batch), low)
        return max(pcp[row, COUNT], low)
    if pcp[row, COUNT] >= high:
        need = pcp[row, FREE_COUNT] + batch
        if high < need:
            pcp[row, LIMIT] = clamp(need, low, pcp[row, LIMIT_MAX])
    return high


@kernel
def surplus(st: State, row: int, high: int, free_high: int) -> int:
    """nr_pcp_free: pages to give back; at least a batch stays."""
    pcp = st.pcp
    batch = pcp[row, BATCH]
    if free_high:
        return min(pcp[row, COUNT], batch << PCP_BATCH_SCALE_MAX)
    if high < batch:
        return 1
    return min(max(pcp[row, FREE_COUNT], batch), high - batch)


@outlined
def give_back(st: State, map_no: MapNo, row: int, count: int, index: int) -> None:
    """free_pcppages_bulk: pages to the zone, the longest on their lists first, list after list from `index` on."""
    count = min(st.pcp[row, COUNT], count)
    while count > 0:
        which = pcp_list(st, row, index)
        order = order_of(st, index)
        while count > 0 and st.lists[which, zone.TAIL] >= 0:
            page = st.lists[which, zone.TAIL]
            pull(st, map_no, which, page)
            st.tag[page + st.maps[map_no, zone.SHIFT]] = 0
            count -= 1 << order
            st.pcp[row, COUNT] -= 1 << order
            free_block(st, map_no, page, order, False)
        index += 1
        if index == LISTS:
            index = 0


@outlined
def drain_all(st: State, map_no: MapNo) -> int:
    """drain_all_pages: empty the lists of all CPUs. Returns the number of pages."""
    before = st.maps[map_no, zone.FREE]
    for cpu in range(st.p.cpus):
        row = row_of(st, map_no, cpu)
        while st.pcp[row, COUNT] > 0:
            give_back(st, map_no, row, st.pcp[row, BATCH] << PCP_BATCH_SCALE_MAX, 0)
    return st.maps[map_no, zone.FREE] - before


@outlined
def get_pages(st: State, map_no: MapNo, cpu: int, order: int, kind: int) -> int:
    """get_page_from_freelist: first without spoiling pageblocks, then with. Returns the page or -1."""
    for nofragment in range(1, -1, -1):
        page = attempt(st, map_no, cpu, order, kind, nofragment)
        if page >= 0 or st.p.migrate == 0:
            return page
    return -1


@outlined
def attempt(st: State, map_no: MapNo, cpu: int, order: int, kind: int, nofragment: int) -> int:
    """One pass over the zone: note whether it is below its high watermark; the CPU's list, then the zone itself."""
    note_below(st, map_no, order)
    page = -1
    if holds(st, order):
        page = get(st, map_no, cpu, order, kind, nofragment)
    if page < 0:
        page, _ = rmqueue(st, map_no, order, kind, nofragment, zone.NORMAL)
    return page


@kernel
def note_below(st: State, map_no: MapNo, order: int) -> None:
    """Note whether a zone is below its high watermark."""
    if holds(st, 0) and st.maps[map_no, zone.BELOW_HIGH] == 0 and not is_above_high(st, map_no, order):
        st.maps[map_no, zone.BELOW_HIGH] = 1


@kernel
def is_above_high(st: State, map_no: MapNo, order: int) -> bool:
    """zone_watermark_fast for the high watermark: enough would be left, and a block of this size is there."""
    high = st.maps[map_no, zone.WMARK_HIGH] + st.maps[map_no, zone.BOOST]
    return is_above(st, map_no, order, high)


@kernel
def is_above(st: State, map_no: MapNo, order: int, mark: int) -> bool:
    """__zone_watermark_ok: whether a block of this order is there and would leave more than `mark` pages.

    What is reserved for requests that cannot wait does not count.
    """
    return leaves(st, map_no, order, mark + st.maps[map_no, zone.RESERVED_FREE], zone.TYPES)


@kernel
def leaves(st: State, map_no: MapNo, order: int, mark: int, kinds: int) -> bool:
    """Whether a block of this order is there, of one of the first types, and would leave more than `mark` pages."""
    if st.maps[map_no, zone.FREE] - (1 << order) + 1 <= mark:
        return False
    if order == 0:
        return True
    for found in range(order, st.p.max_order + 1):
        for kind in range(kinds):
            if st.lists[zone_list(st, map_no, found, kind), zone.HEAD] >= 0:
                return True
    return False
