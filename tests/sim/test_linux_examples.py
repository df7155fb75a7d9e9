"""Worked examples of Linux's page lists and of its fallback (T5 to T8, T12 and T14 of linux_today.md)."""

import numpy as np
import pytest

from kmemexp.jit import entry
from kmemexp.sim import slots as s
from kmemexp.sim.allocators import slub
from kmemexp.sim.allocators.slub import slabs as u
from kmemexp.sim.arenas import buddy
from kmemexp.sim.arenas.buddy import pcp
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.items import Item
from kmemexp.sim.slots import ATTR_PAGEABLE, ATTR_WIRED, PAGE
from kmemexp.sim.tables import regs
from tests.sim.in_pages import InPages

IN_PAGES = InPages(buddy)
alloc, free = IN_PAGES.alloc, IN_PAGES.free
HIGH_MIN, HIGH_MAX = 1464, 122656


def one_cpu(**params: int) -> buddy.State:
    """A zone with the bounds of the examples: batches of 63 pages."""
    st = buddy.init(buddy.Params(**params), kva_bytes=(1 << 18) * PAGE, cpus=1, maps=1)
    assert st.pcp[0, pcp.BATCH] == 63
    st.pcp[0, [pcp.LIMIT_MIN, pcp.LIMIT_MAX]] = HIGH_MIN, HIGH_MAX
    return st


def frees(st: buddy.State, order: int, count: int) -> dict[int, tuple[int, int]]:
    """Free so many blocks: {number of the free: (pages that went back to the zone, limit after it)}."""
    first, found = alloc(st, 16 << 10), {}  # no CPU's list has had them
    for n in range(1, count + 1):
        before = int(st.pcp[0, pcp.COUNT])
        entry(pcp.give)(st, 0, 0, first + ((n - 1) << order), order)
        if back := before + (1 << order) - int(st.pcp[0, pcp.COUNT]):
            found[n] = back, int(st.pcp[0, pcp.LIMIT])
    return found


def test_refills_of_a_cpu_that_only_allocates_pages():
    """T5."""
    st, found = one_cpu(), []
    for n in range(1, 5987):
        before = int(st.pcp[0, pcp.COUNT])
        alloc(st)
        if (got := int(st.pcp[0, pcp.COUNT]) + 1 - before) > 0:
            found.append((n, got, int(st.pcp[0, pcp.LIMIT])))
    assert [n for n, *_ in found] == [1, 64, 190, 442, 946, 1954, 3970, 5986]
    assert [got for _, got, _ in found] == [63, 126, 252, 504, 1008, 2016, 2016, 2016]
    assert [high for *_, high in found] == [1527, 1653, 1905, 2409, 3417, 5433, 7449, 9465]


def test_what_goes_back_of_a_cpu_that_only_frees_pages():
    """T6."""
    found = frees(one_cpu(), 0, 7000)
    assert found[1464] == (1401, 1527)
    assert found[2928] == (1464, 2079)
    later = [(n, back) for n, (back, _) in found.items() if n > 2928]
    assert [back for _, back in later] == [2016] * len(later)
    assert np.diff([n for n, _ in later]).tolist() == [2016] * (len(later) - 1)


@pytest.mark.parametrize(("late", "first", "pages"), [(0, 9, 72), (1, 101, 808)])
def test_what_goes_back_of_a_cpu_that_only_frees_blocks_of_eight(late, first, pages):
    """T7, of 6.12 and of 6.18: all of them, then each eighth time eight."""
    found = frees(one_cpu(late_flush=late), 3, first + 30)
    assert list(found) == [first, first + 8, first + 16, first + 24]
    assert [back for back, _ in found.values()] == [pages, 64, 64, 64]


@pytest.mark.parametrize("high_max", [HIGH_MAX, HIGH_MIN])
def test_lists_shrink_while_kswapd_runs(high_max):
    """T8; where the bounds leave nothing to tune as well, for nr_pcp_high looks at that after it."""
    st = one_cpu()
    st.pcp[0, pcp.LIMIT_MAX] = high_max
    first = alloc(st, 16 << 10)
    for n in range(1400):
        entry(pcp.give)(st, 0, 0, first + n, 0)
    count = int(st.pcp[0, pcp.COUNT])
    st.maps[0, z.RECLAIMING], st.pcp[0, pcp.FREE_COUNT] = 1, 0
    n = 1400
    while count >= 252:
        entry(pcp.give)(st, 0, 0, first + n, 0)
        assert st.pcp[0, pcp.COUNT] == count + 1 - 63
        count, n = int(st.pcp[0, pcp.COUNT]), n + 1
    entry(pcp.give)(st, 0, 0, first + n, 0)
    assert st.pcp[0, pcp.COUNT] == count + 1


def test_a_slab_of_the_least_order_where_the_first_try_fails():
    """T12: objects of 600 bytes, on two CPUs."""
    items = [Item(600, 1, 0)]
    st = slub.init(slub.Params(), kva_bytes=64 << 20, cpus=2, map_number=3, items=items, bases=[-1])
    k, reg = len(st.cache) - 1, np.zeros((1, regs.COLUMNS), np.int64)
    assert st.cache[k, [u.K_ORDER, u.K_OBJECTS, u.K_MIN_ORDER]].tolist() == [1, 13, 0]
    reg[0, regs.SIZE] = 600
    for nbytes, attr in ((2 * PAGE, ATTR_WIRED | s.ATTR_TRY), (PAGE, ATTR_WIRED)):
        assert slub.alloc(st, reg, 0) == s.MAP_ALLOC
        assert reg[0, [regs.BYTES, regs.ATTR]].tolist() == [nbytes, attr]
        reg[0, regs.BASE] = s.NO_SPACE if nbytes > PAGE else 5 * PAGE
    assert slub.alloc(st, reg, 0) == s.DONE
    assert st.slab[5, u.S_OBJECTS] == 6
    assert st.cache[k, u.K_FALLBACKS] == 1


@pytest.mark.parametrize(("freed", "page", "claims", "steals"), [(128, 700, 0, 1), (256, 0, 1, 0)])
def test_a_block_is_claimed_where_half_of_its_pageblock_is_free_else_a_page_is_stolen(freed, page, claims, steals):
    """T14, of 6.12.117 and 6.18: 128 and 256 free pages of a movable pageblock, and a page of another one."""
    st = buddy.init(buddy.Params(pcp=0, max_order=9), kva_bytes=1024 * PAGE, cpus=1, maps=1)
    assert [alloc(st, attr=ATTR_PAGEABLE) for _ in range(1024)] == list(range(1024))
    for one in (*range(freed), 700):
        free(st, one)
    assert buddy.free_blocks(st, 0)[freed.bit_length() - 1] == 1
    assert alloc(st, attr=ATTR_WIRED) == page
    assert (st.maps[0, z.CLAIMS], st.maps[0, z.STEALS]) == (claims, steals)
    assert st.blocks[:2].tolist() == [z.UNMOVABLE if claims else z.MOVABLE, z.MOVABLE]
