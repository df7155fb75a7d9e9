"""Linux's direct map on a machine with several NUMA nodes: zones, watermarks, zonelists, a kswapd for each node."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from kmemexp.sim import nodes
from kmemexp.sim.arenas import linux_mm
from kmemexp.sim.arenas.buddy import index
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import contents, state, zones
from kmemexp.sim.maps import DIRECT
from kmemexp.sim.slots import ATTR_ATOMIC, ATTR_LOW, PAGE
from kmemexp.sim.tables import gauge
from tests.sim import naive_nodes as naive
from tests.sim.event_log import events
from tests.sim.test_linux_pages import ANON, FILE, booted, free, kernel, measure, owner, play, programs

RAM = 8192
SMALL = {"by_node": 1, "domains": 2, "dma_mib": 4, "dma32_mib": 8}  # zones of 1024, 1024, 2048 and 4096 pages
GIB = 1 << 18  # pages


def two_nodes(cpus=2, **params):
    return booted(ram=RAM, cpus=cpus, **SMALL, **params)


def test_zones_and_marks_of_the_kernel_that_has_shown_them():
    """/proc/zoneinfo of a 6.18 with one node of 24 GiB and vm.min_free_kbytes = 67584: managed, protection, marks."""
    managed = (3840, 772808, 5394266)
    whole = sum(managed)
    marks = [index.watermarks(pages, 67584, whole)[1:] for pages in managed]
    assert marks == [(10, 13, 16), (2115, 2887, 3659), (14769, 20163, 25557)]
    edges = (0, 3840, 3840 + 772808, whole)
    found = [zones.Zone(edges[i], edges[i + 1], 0, i) for i in range(3)]
    assert zones.reserves(found) == [24090, 21071, 0]


def test_watermarks_of_the_reference_on_two_nodes():
    """T9 and T10 of linux_today.md: each zone has its share; T10's Normal is that of the last node."""
    assert index.watermarks(4194304, 67584, 3840 + 772915 + 4194304)[1:] == (14255, 18449, 22643)
    for first, last, kib, want, pcp in (
        (32_768_000, 33_000_000, 90112, (11176, 44206, 77236), (1381, 129023)),
        (131_000_000, 131_700_000, 129855, (16226, 147926, 279626), (2311, 257226)),
    ):
        whole = 3840 + 772915 + first + last
        assert index.min_free_with_huge_pages(whole, 4) == kib
        marks = index.watermarks(last, kib, whole)
        assert marks[1:] == pytest.approx(want, rel=3e-3)  # the table's pages are rounded
        assert index.pcp_limits(last, 32 if kib == 90112 else 64, marks.low) == pytest.approx(pcp, rel=3e-3)


def test_zones_lie_by_address_and_node():
    found = zones.divided(512 * GIB, 2, 4096, 4 * GIB)
    assert [(zone.node, zone.kind, zone.pages) for zone in found] == [
        (0, state.DMA, 4096),
        (0, state.DMA32, 4 * GIB - 4096),
        (0, state.NORMAL, 252 * GIB),
        (1, state.NORMAL, 256 * GIB),
    ]
    # Two nodes below 4 GiB: the second has ZONE_DMA32, too.
    kinds = [(zone.node, zone.kind) for zone in zones.divided(4 * GIB, 2, 4096, 4 * GIB)]
    assert kinds == [(0, state.DMA), (0, state.DMA32), (1, state.DMA32)]
    with pytest.raises(ValueError, match="4 nodes share 2048 pages"):
        nodes.span_pages(2048, 4)


def test_a_node_asks_itself_then_the_next_ones():
    """find_next_best_node: by distance, the next by number first, and of nodes alike the one least often second."""
    even = [[10 if a == b else 20 for b in range(4)] for a in range(4)]
    assert zones.fallback_order(even) == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    pairs = [[10, 12, 20, 20], [12, 10, 20, 20], [20, 20, 10, 12], [20, 20, 12, 10]]
    assert zones.fallback_order(pairs) == [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    st = two_nodes()
    assert st.zonelist[:2].tolist() == [[2, 1, 0, 3], [3, 2, 1, 0]]


@given(hs.integers(1, 6), hs.integers(6, 40), hs.sampled_from((0, 1024, 4096)), hs.sampled_from((4096, 9216)))
def test_zones_marks_and_lists_are_those_of_the_naive_twin(count, chunks, dma, dma32):
    pages = chunks * 1024 + 77
    want = naive.zones_of(pages, count, dma, dma32)
    found = zones.divided(pages, count, dma, dma32)
    keys = [(zone.node, naive.RANK[zone.kind]) for zone in found]
    assert {key: (zone.first, zone.end) for key, zone in zip(keys, found, strict=True)} == {
        key: (own[0], own[-1] + 1) for key, own in want.items()
    }
    least = index.min_free_with_huge_pages(pages, len(found))
    assert least // 4 == naive.min_free_pages(want)
    for key, zone, reserve in zip(keys, found, zones.reserves(found), strict=True):
        assert index.watermarks(zone.pages, least, pages)[1:] == naive.marks_of(want, *key, least // 4)
        assert reserve == naive.reserve_of(want, *key)
    even = [[10 if a == b else 20 for b in range(count)] for a in range(count)]
    lists = zones.zone_lists(found, zones.fallback_order(even))
    assert [[keys[i] for i in row] for row in lists] == [naive.asked_in_turn(want, n, count) for n in range(count)]


def test_pages_come_from_the_own_node_until_that_is_low_and_each_goes_home():
    st = two_nodes(kswapd_batch=0, pcp=0)
    assert kernel(st, cpu=0) == 2048
    assert kernel(st, cpu=1) == 4096
    own = [kernel(st, cpu=1) for _ in range(4500)]
    where = [page // 4096 for page in own]
    turn = where.index(0)
    assert 4096 - turn == pytest.approx(st.zones[3, state.LOW], abs=2)
    assert own[turn] == 2049  # the highest zone of the other node
    assert st.nodes[:, state.MISSES].tolist() == [where.count(0), 0]
    assert st.nodes[:, state.FOREIGN].tolist() == [0, where.count(0)]
    for page in own:
        free(st, page * PAGE, 0)
    linux_mm.check(st, DIRECT)
    assert measure(st)[gauge.FREE] == (RAM - 2) * PAGE


def test_low_zones_are_spared_by_their_reserve():
    """ZONE_DMA keeps 1/256 of what is above it on its node; all above min goes to whoever may not reclaim."""
    st = two_nodes(kswapd_batch=0, pcp=0)
    while kernel(st, cpu=0) >= 0:
        pass
    left = st.buddy.maps[:, z.FREE]
    assert left.tolist() == (st.zones[:, state.MIN] + st.zones[:, state.RESERVE]).tolist()
    assert st.zones[:, state.RESERVE].tolist() == [3072 // 256, 2048 // 256, 0, 0]
    assert st.buddy.maps[:, z.WMARK_HIGH].tolist() == (st.zones[:, state.HIGH] + st.zones[:, state.RESERVE]).tolist()
    while kernel(st, cpu=1, extra=ATTR_ATOMIC) >= 0:
        pass
    least = st.zones[:, state.MIN]
    mark = least - least // 2
    assert left.tolist() == (mark - mark // 4 + st.zones[:, state.RESERVE]).tolist()
    linux_mm.check(st, DIRECT)


@pytest.mark.parametrize("pressure", [0, 1])
def test_requests_for_low_memory_have_zone_dma_alone_without_its_reserve(pressure):
    st = two_nodes(kswapd_batch=0, pcp=0, pressure=pressure)
    assert st.zonelist[2:].tolist() == [[0, -1, -1, -1]] * 2
    pages = []
    while (page := kernel(st, cpu=1, extra=ATTR_LOW)) >= 0:
        pages.append(page)
    assert max(pages) < 1024
    assert len(pages) == 1024 - (st.zones[0, state.MIN] if pressure else 0)
    assert st.nodes[0, state.MISSES] == len(pages)
    assert st.nodes[:, state.RUNNING].tolist() == [0, 0]  # other zones of the node are above their marks
    assert kernel(st, cpu=0) >= 2048
    linux_mm.check(st, DIRECT)


def test_each_node_has_a_kswapd_that_reclaims_its_own_pages():
    st = two_nodes(skip_busy=0)
    for _ in range(40):
        owner(st, 64, FILE, cpu=1)
    assert st.meters[state.BY_KSWAPD] == 0
    while not st.nodes[:, state.RUNNING].any():
        owner(st, 8, ANON, cpu=1)
    assert st.nodes[:, state.RUNNING].tolist() == [0, 1]
    assert st.buddy.maps[:, z.RECLAIMING].tolist() == [0, 0, 0, 1]
    before = st.nodes[:, state.HELD + FILE].copy()
    for _ in range(30):
        owner(st, 8, ANON, cpu=1)
    assert st.nodes[1, state.HELD + FILE] < before[1]
    assert st.nodes[0, state.HELD + FILE] >= before[0]
    assert st.meters[state.BY_KSWAPD] > 0
    linux_mm.check(st, DIRECT)


@pytest.mark.parametrize("skip", [0, 1])
def test_a_node_whose_kswapd_runs_is_passed_by_at_first(skip):
    st = two_nodes(skip_busy=skip, kswapd_batch=0)
    st.nodes[1, state.RUNNING] = 1
    assert kernel(st, cpu=1) // 4096 == 1 - skip
    st.nodes[0, state.RUNNING] = 1
    assert kernel(st, cpu=1) // 4096 == 1


def test_a_request_turns_to_dma32_before_it_breaks_a_pageblock_and_breaks_it_before_it_goes_away():
    """NOFRAGMENT, which a node without ZONE_DMA32 does not have."""
    st = two_nodes(pcp=0)
    for cpu, pages in ((0, 2048), (1, 4096)):
        for _ in range(pages - 511):  # of the last pageblock the first page is taken
            owner(st, 1, ANON, cpu=cpu)
    assert st.buddy.maps[:, z.FREE].tolist() == [1024, 1024, 511, 511]
    assert 1024 <= kernel(st, cpu=0) < 2048
    assert kernel(st, cpu=1) >= 4096
    for _ in range(1200):  # none of node 0 has a whole pageblock then
        owner(st, 1, ANON, cpu=0)
    before = st.buddy.maps[[0, 2]][:, [z.CLAIMS, z.STEALS]].sum()
    assert max(kernel(st, cpu=0) for _ in range(700)) < 4096
    assert st.buddy.maps[[0, 2]][:, [z.CLAIMS, z.STEALS]].sum() > before
    linux_mm.check(st, DIRECT)


def test_the_kernels_own_zones_give_their_last_page():
    st = two_nodes(pressure=0)
    pages = []
    while (page := kernel(st, cpu=1)) >= 0:
        pages.append(page)
    assert sorted(pages) == list(range(RAM))
    assert [page // 4096 for page in pages] == [1] * 4096 + [0] * 4096
    for page in pages:
        free(st, page * PAGE, page % 2)
    big = kernel(st, 2000, cpu=0)
    assert 2048 <= big < 4096
    linux_mm.check(st, DIRECT)
    bins = np.zeros(8)
    linux_mm.map_paint(st, DIRECT, bins)
    assert bins.sum() == pytest.approx(2000 / 1024)


def test_a_census_like_buddyinfo():
    st = two_nodes(pcp=0)
    for _ in range(5):
        kernel(st, cpu=1)
    info = zones.buddyinfo(st)
    assert [(node, kind) for node, kind, _ in info] == [(0, 0), (0, 1), (0, 2), (1, 2)]
    assert [sum(n << o for o, n in enumerate(blocks)) for *_, blocks in info] == st.buddy.maps[:, z.FREE].tolist()
    seen = measure(st)
    by_order = seen[gauge.FREE_BLOCKS : gauge.PAGEBLOCKS].reshape(3, -1).sum(axis=0)
    assert by_order.tolist() == np.sum([blocks for *_, blocks in info], axis=0).tolist()


def test_one_zone_stays_one_unless_asked():
    for params in ({"domains": 1}, {"domains": 2, "by_node": 0}):
        st = booted(ram=RAM, **params)
        assert (len(st.zones), len(st.nodes), st.zonelist.tolist()) == (1, 1, [[0], [0]])
        assert linux_mm.node_bytes(st.p, RAM * PAGE) == 0
    st = booted(ram=RAM, **SMALL | {"domains": 1, "by_node": 2})
    assert len(zones.buddyinfo(st)) == 3
    assert linux_mm.node_bytes(two_nodes().p, RAM * PAGE) == 4096 * PAGE
    with pytest.raises(ValueError, match="4 MiB"):
        booted(ram=RAM, **SMALL | {"dma_mib": 3})
    with pytest.raises(ValueError, match="a node without a CPU"):
        booted(ram=RAM, cpus=1, **SMALL)


NEARLY_FULL = [("spread", sort, pages, 0, cpu, 12) for cpu in (0, 1) for sort, pages in ((ANON, 40), (FILE, 270))]


@settings(max_examples=20)
@given(program=programs, batch=hs.sampled_from((0, 32)), skip=hs.booleans())
def test_same_as_the_naive_twin(program, batch, skip):
    st = two_nodes(kswapd_batch=batch, skip_busy=int(skip))
    twin = naive.NaiveNodes(RAM, 2, 2, 1024, 2048, batch, skip)
    play(st, twin, NEARLY_FULL + program)
    assert st.nodes[:, state.HITS].tolist() == twin.hits
    assert st.nodes[:, state.MISSES].tolist() == twin.misses
    assert st.nodes[:, state.FOREIGN].tolist() == twin.foreign
    assert st.meters[state.STALLS] == twin.stalls
    assert st.meters[state.BY_KSWAPD] == twin.by_kswapd
    assert st.meters[state.BY_REQUEST] == twin.by_request
    assert linux_mm.take_rounds(st) == twin.rounds
    assert not np.any(linux_mm.take_rounds(st))
    assert linux_mm.census(st)["claims"] == sum(zone.claims for zone in twin.zones.values())
    assert linux_mm.census(st)["steals"] == sum(zone.steals for zone in twin.zones.values())
    linux_mm.check(st, DIRECT)


@settings(max_examples=10)
@given(program=programs)
def test_no_page_is_lost_on_any_node(program):
    st = two_nodes(compaction=1, dirty_percent=40, swap_mib=1)
    play(st, None, program)
    linux_mm.check(st, DIRECT)
    for node, (first, end) in enumerate(((0, 4096), (4096, RAM))):
        own = range(int(st.nodes[node, state.FIRST_ZONE]), int(st.nodes[node, state.END_ZONE]))
        used = sum(pages for pages in (int(st.buddy.maps[zone, z.USED]) for zone in own))
        on_lists = sum(int(st.buddy.maps[zone, z.FREE]) for zone in own)
        on_cpus = sum(int(st.buddy.pcp[zone * 2 + cpu, 0]) for zone in own for cpu in range(2))
        assert used + on_lists + on_cpus == end - first
        held = sum(n for blocks in contents.owned(st).values() for p, n in blocks.items() if first <= p < end)
        assert held == st.nodes[node, state.HELD : state.HELD + 3].sum()


def test_each_zone_has_a_lock_and_cpus_of_different_nodes_do_not_wait_for_each_other():
    """zone->lock, with a clock: 16 pages are a block that no CPU has on its lists. Requests are 200 ns apart."""
    near = ["malloc 65536 a", "malloc 65536 b cpu1", "malloc 65536 c", "malloc 65536 d cpu1"]
    far = ["malloc 65536 a", "malloc 65536 b cpu1", "malloc 65536 c", "free a cpu1", "malloc 65536 d"]
    two = ["design=linux_6_18", "machine.domains=2"]
    one = [*two, "+maps.params.linux_mm.by_node=0"]
    told = events({
        name: {"overrides": overrides, "requests": requests, "apart": 200}
        for name, overrides, requests in (("one", one, near), ("two", two, near), ("far", two, far))
    })  # fmt: skip
    words = {name: [word for request in found for word in request] for name, found in told.items()}
    assert "waits" in words["one"]
    assert "waits" not in words["two"]
    assert words["two"].count("lock direct_map") == len(near)
    assert "waits" in words["far"], "a block goes back under the lock of the zone that it is from"


def test_zones_with_locks_cover_the_direct_map_and_one_zone_has_none():
    st = two_nodes()
    ranges, first = linux_mm.lock_zones(st)
    assert ranges == [
        (0, 1024 * PAGE),
        (1024 * PAGE, 2048 * PAGE),
        (2048 * PAGE, 4096 * PAGE),
        (4096 * PAGE, RAM * PAGE),
    ]
    assert first == [2, 3]
    assert linux_mm.lock_zones(booted(ram=RAM)) == ([], [])
