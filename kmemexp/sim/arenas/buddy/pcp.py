"""Per-CPU page lists of Linux 6.12: what lies between a request and the zone (mm/page_alloc.c).

A CPU has a list for each order 0 … 3 and type, and two for pageblocks (huge pages); freed blocks go to the head of the
list of their pageblock's type, whatever they were asked for. `high`, up to which a CPU keeps pages, is tuned between
two bounds by how the CPU allocates and frees; so are the sizes of refills and returns. The last-level cache's share of
a CPU is taken to be larger than three batches (PCPF_FREE_HIGH_BATCH), as on all machines of the last decade.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.arenas.buddy.index import PCP_BATCH_SCALE_MAX
from kmemexp.sim.arenas.buddy.zone import (
    BELOW_HIGH,
    FREE,
    HEAD,
    MOVABLE,
    NORMAL,
    PCP_BLOCK,
    SHIFT,
    TAIL,
    TYPES,
    WMARK_HIGH,
    free_block,
    pull,
    push,
    rmqueue,
    type_of,
    zone_list,
)

COSTLY_ORDER = 3  # PAGE_ALLOC_COSTLY_ORDER: the largest small order that the lists hold
SMALL_LISTS = TYPES * (COSTLY_ORDER + 1)
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
def holds(st, order):
    """pcp_allowed_order: whether the CPUs' lists hold blocks of this order."""
    return st.p.pcp != 0 and (order <= COSTLY_ORDER or order == st.p.pageblock_order)


@kernel
def row_of(st, m, cpu):
    """Row of a CPU of a map."""
    return m * st.p.cpus + cpu


@kernel
def index_of(order, kind):
    """order_to_pindex: which of a CPU's lists."""
    if order > COSTLY_ORDER:
        return SMALL_LISTS + (1 if kind == MOVABLE else 0)
    return order * TYPES + kind


@kernel
def order_of(st, index):
    """pindex_to_order: order of the blocks on one of a CPU's lists."""
    return st.p.pageblock_order if index >= SMALL_LISTS else index // TYPES


@kernel
def pcp_list(st, row, index):
    """Number of a CPU's list; the zones' lists come first."""
    return len(st.maps) * TYPES * (st.p.max_order + 1) + row * LISTS + index


@kernel
def clamp(x, low, high):
    """Return x within bounds."""
    return min(max(x, low), high)


@kernel
def get(st, m, cpu, order, kind, nofragment):
    """rmqueue_pcplist: a block from the CPU's list, which is refilled if empty. Returns the page or -1."""
    row = row_of(st, m, cpu)
    st.pcp[row, FREE_COUNT] >>= 1
    which = pcp_list(st, row, index_of(order, kind))
    if st.lists[which, HEAD] < 0:
        refill(st, m, row, which, order, kind, nofragment)
    page = st.lists[which, HEAD]
    if page >= 0:
        pull(st, m, which, page)
        st.tag[page + st.maps[m, SHIFT]] = 0
        st.pcp[row, COUNT] -= 1 << order
    return page


@outlined
def refill(st, m, row, which, order, kind, nofragment):
    """rmqueue_bulk: take blocks from the zone, in the order in which it gives them."""
    mode = NORMAL
    for _ in range(wanted(st, m, row, order)):
        page, mode = rmqueue(st, m, order, kind, nofragment, mode)
        if page < 0:
            break
        st.tag[page + st.maps[m, SHIFT]] = PCP_BLOCK + order
        push(st, m, which, page, True)
        st.pcp[row, COUNT] += 1 << order


@kernel
def wanted(st, m, row, order):
    """nr_pcp_alloc: blocks of a refill. Refills of single pages double while nothing is freed, and raise the limit."""
    c = st.pcp
    base = c[row, BATCH]
    high = c[row, LIMIT] = clamp(c[row, LIMIT], c[row, LIMIT_MIN], c[row, LIMIT_MAX])
    if high < base:
        return 1
    batch = base
    if order == 0:
        batch = base << c[row, ALLOC_FACTOR]
    if c[row, LIMIT_MIN] != c[row, LIMIT_MAX] and st.maps[m, BELOW_HIGH] == 0:
        high = c[row, LIMIT] = min(high + batch, c[row, LIMIT_MAX])
    if order == 0:
        most = max(high - c[row, COUNT] - base, base)
        if batch <= most and c[row, ALLOC_FACTOR] < PCP_BATCH_SCALE_MAX:
            c[row, ALLOC_FACTOR] += 1
        batch = min(batch, most)
    if batch > 1:
        batch = max(batch >> order, 2)
    return batch


@kernel
def give(st, m, cpu, page, order):
    """free_unref_page: a block to the head of the CPU's list; what is above the limit goes back to the zone."""
    row = row_of(st, m, cpu)
    c = st.pcp
    index = index_of(order, type_of(st, m, page))
    c[row, ALLOC_FACTOR] >>= 1
    st.tag[page + st.maps[m, SHIFT]] = PCP_BLOCK + order
    push(st, m, pcp_list(st, row, index), page, False)
    c[row, COUNT] += 1 << order
    batch = c[row, BATCH]
    free_high = 0
    if 0 < order <= COSTLY_ORDER:
        if c[row, FREE_COUNT] >= batch and c[row, WAS_ORDER] and c[row, COUNT] >= batch:
            free_high = 1
        c[row, WAS_ORDER] = 1
    else:
        c[row, WAS_ORDER] = 0
    if c[row, FREE_COUNT] < batch << PCP_BATCH_SCALE_MAX:
        c[row, FREE_COUNT] += 1 << order
    high = limit(st, m, row, free_high)
    if c[row, COUNT] >= high:
        give_back(st, m, row, surplus(st, row, high, free_high), index)
        # zone_watermark_ok for one page
        if st.maps[m, FREE] > st.maps[m, WMARK_HIGH]:
            st.maps[m, BELOW_HIGH] = 0


@kernel
def limit(st, m, row, free_high):
    """nr_pcp_high: pages from which on some go back; tunes the CPU's limit. No reclaim is ever active here."""
    c = st.pcp
    batch, low = c[row, BATCH], c[row, LIMIT_MIN]
    high = c[row, LIMIT] = clamp(c[row, LIMIT], low, c[row, LIMIT_MAX])
    if high == 0:
        return 0
    if free_high:
        c[row, LIMIT] = max(high - (batch << PCP_BATCH_SCALE_MAX), low)
        return 0
    if low == c[row, LIMIT_MAX]:
        return high
    if st.maps[m, BELOW_HIGH]:
        c[row, LIMIT] = max(high - max(c[row, FREE_COUNT], batch), low)
        return max(c[row, COUNT], low)
    if c[row, COUNT] >= high:
        need = c[row, FREE_COUNT] + batch
        if high < need:
            c[row, LIMIT] = clamp(need, low, c[row, LIMIT_MAX])
    return high


@kernel
def surplus(st, row, high, free_high):
    """nr_pcp_free: pages to give back; at least a batch stays."""
    c = st.pcp
    batch = c[row, BATCH]
    if free_high:
        return min(c[row, COUNT], batch << PCP_BATCH_SCALE_MAX)
    if high < batch:
        return 1
    return min(max(c[row, FREE_COUNT], batch), high - batch)


@outlined
def give_back(st, m, row, count, index):
    """free_pcppages_bulk: pages to the zone, the longest on their lists first, list after list from `index` on."""
    count = min(st.pcp[row, COUNT], count)
    while count > 0:
        which = pcp_list(st, row, index)
        order = order_of(st, index)
        while count > 0 and st.lists[which, TAIL] >= 0:
            page = st.lists[which, TAIL]
            pull(st, m, which, page)
            st.tag[page + st.maps[m, SHIFT]] = 0
            count -= 1 << order
            st.pcp[row, COUNT] -= 1 << order
            free_block(st, m, page, order, False)
        index += 1
        if index == LISTS:
            index = 0


@outlined
def drain_all(st, m):
    """drain_all_pages: empty the lists of all CPUs. Returns the number of pages."""
    before = st.maps[m, FREE]
    for cpu in range(st.p.cpus):
        row = row_of(st, m, cpu)
        while st.pcp[row, COUNT] > 0:
            give_back(st, m, row, st.pcp[row, BATCH] << PCP_BATCH_SCALE_MAX, 0)
    return st.maps[m, FREE] - before


@outlined
def get_pages(st, m, cpu, order, kind):
    """get_page_from_freelist: first without spoiling pageblocks, then with. Returns the page or -1."""
    for nofragment in range(1, -1, -1):
        page = attempt(st, m, cpu, order, kind, nofragment)
        if page >= 0 or st.p.migrate == 0:
            return page
    return -1


@outlined
def attempt(st, m, cpu, order, kind, nofragment):
    """One pass over the zone: note whether it is below its high watermark; the CPU's list, then the zone itself."""
    if holds(st, 0) and st.maps[m, BELOW_HIGH] == 0 and not is_above_high(st, m, order):
        st.maps[m, BELOW_HIGH] = 1
    page = -1
    if holds(st, order):
        page = get(st, m, cpu, order, kind, nofragment)
    if page < 0:
        page, _ = rmqueue(st, m, order, kind, nofragment, NORMAL)
    return page


@kernel
def is_above_high(st, m, order):
    """zone_watermark_fast for the high watermark: enough would be left, and a block of this size is there."""
    if st.maps[m, FREE] - (1 << order) + 1 <= st.maps[m, WMARK_HIGH]:
        return False
    if order == 0:
        return True
    for found in range(order, st.p.max_order + 1):
        for kind in range(TYPES):
            if st.lists[zone_list(st, m, found, kind), HEAD] >= 0:
                return True
    return False
