"""What a zone of Linux's page allocator holds, read by plain Python, and what must hold of it (slow, for tests)."""

from typing import Any

from kmemexp.jit import entry
from kmemexp.sim.arenas.buddy import pcp as buddy_pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.buddy.contig import HELD_SHIFT
from kmemexp.sim.checks import insist


def free_blocks(st: Any, map_no: int) -> list[int]:
    """Number of free blocks of each order in map `map_no`, as `index` wants them (/proc/buddyinfo)."""
    orders = st.p.max_order + 1
    first, count = map_no * z.LIST_TYPES * orders, z.LIST_TYPES * orders
    return st.lists[first : first + count, z.COUNT].reshape(z.LIST_TYPES, orders).sum(axis=0).tolist()


def walk(st: Any, map_no: int) -> list[tuple[int, int, int]]:
    """(first page, `held`, tag) of each range in use and each block, in address order."""
    found, page = [], int(st.maps[map_no, z.BASE])
    while page < st.maps[map_no, z.TOP]:
        row = page + int(st.maps[map_no, z.SHIFT])
        held, tag = int(st.held[row]), int(st.tag[row])
        found.append((page, held, tag))
        page += held >> HELD_SHIFT if held else 1 << (tag & z.FREE_BLOCK - 1)
    return found


def check(st: Any, map_no: int) -> None:
    """Assert what must hold of map `map_no` (slow, for tests)."""
    found, zone = list(walk(st, map_no)), st.maps[map_no]
    insist(sum(held >> HELD_SHIFT for _, held, _ in found) == zone[z.USED], "pages in use miscounted")
    areas = zone[z.AREAS] + zone[z.FOLIOS]
    insist(sum(held > 0 for _, held, _ in found) == areas, "ranges miscounted")
    free = {page: tag - z.FREE_BLOCK for page, held, tag in found if not held and tag & z.FREE_BLOCK}
    cpu = {page: tag - z.PCP_BLOCK for page, held, tag in found if not held and tag & z.PCP_BLOCK}
    insist(len(free) + len(cpu) + areas == len(found), "a page is neither free nor in use")
    insist(sum(1 << o for o in free.values()) == zone[z.FREE], "free pages miscounted")
    # A pageblock that was reserved does not merge with its neighbours, not even when it is so no longer.
    merging = st.p.pageblock_order if zone[z.RESERVES] else st.p.max_order
    for page, order in free.items():
        insist(page % (1 << order) == 0, "block not aligned")
        insist(order >= merging or free.get(page ^ 1 << order) != order, "buddies not merged")
    insist(
        free_blocks(st, map_no) == [list(free.values()).count(o) for o in range(st.p.max_order + 1)],
        "blocks miscounted",
    )
    if st.p.plain:
        return
    reserved = 0
    for kind in range(z.LIST_TYPES):
        for order in range(st.p.max_order + 1):
            pages = _listed(st, map_no, entry(z.zone_list)(st, map_no, order, kind))
            insist(all(free[p] == order for p in pages), "block on a list of another order")
            insist(all(entry(z.type_of)(st, map_no, p) == kind for p in pages), "block on a list of another type")
            reserved += len(pages) << order if kind == z.HIGHATOMIC else 0
    insist(reserved == zone[z.RESERVED_FREE], "reserved pages miscounted")
    of = entry(buddy_pcp.order_of)
    for row in range(map_no * st.p.cpus, (map_no + 1) * st.p.cpus):
        on = [
            (p, i) for i in range(buddy_pcp.LISTS) for p in _listed(st, map_no, entry(buddy_pcp.pcp_list)(st, row, i))
        ]
        insist(all(cpu.pop(p) == of(st, i) for p, i in on), "block on a CPU's list of another order")
        insist(sum(1 << of(st, i) for _, i in on) == st.pcp[row, buddy_pcp.COUNT], "CPU's pages miscounted")
    insist(not cpu, "blocks on no CPU's list")


def _listed(st: Any, map_no: int, which: int) -> list[int]:
    """Pages on a list, from its head; asserts that its links and its length are right."""
    pages: list[int] = []
    page = int(st.lists[which, z.HEAD])
    while page >= 0:
        row = entry(z.link_row)(st, map_no, page)
        insist(st.link[row, z.PREV] == (pages[-1] if pages else -1), "broken link")
        pages.append(page)
        page = int(st.link[row, z.NEXT])
    insist(st.lists[which, z.TAIL] == (pages[-1] if pages else -1), "wrong tail")
    insist(st.lists[which, z.COUNT] == len(pages), "list miscounted")
    return pages
