"""Linux's page allocator as an arena: the reference's tables, and random programs against naive twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from kmemexp.sim.arenas import buddy
from kmemexp.sim.arenas.buddy import index as buddy_index
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.slots import ATTR_PAGEABLE, ATTR_SINGLE, ATTR_WIRED, NO_SPACE, PAGE
from kmemexp.sim.tables import gauge
from tests.sim.in_pages import InPages
from tests.sim.naive_buddy import NaiveZone, PlainBuddy
from tests.sim.twins import run

LINUX = buddy.Params()
BARE = buddy.Params(pcp=0)
PLAIN = buddy.Params(plain=1)
MIB = 1 << 20
IN_PAGES = InPages(buddy)
alloc, free, measure = IN_PAGES.alloc, IN_PAGES.free, IN_PAGES.measure


def zone(pages, params=LINUX, cpus=1, maps=1):
    return buddy.init(params, kva_bytes=pages * PAGE, cpus=cpus, maps=maps)


# Indices, watermarks and sizes of CPUs' lists.

INDICES = [
    # free blocks by order; fragmentation and unusable index for orders 3, 4 and 9, extfrag for 9
    ([1024], (875, 1000), (937, 1000), (998, 1000, 100)),
    ([0] * 8 + [4], (-1000, 0), (-1000, 0), (250, 1000, 100)),
    ([1] * 9, (-1000, 13), (-1000, 29), (778, 1000, 100)),
    ([100, 50, 25, 10, 0, 0, 0, 0, 0, 4], (-1000, 123), (-1000, 156), (-1000, 156, 15)),
    ([10], (775, 1000), (838, 1000), (899, 1000, 100)),
    ([512, 0, 0, 0, 0, 0, 0, 0, 0, 1], (-1000, 500), (-1000, 500), (-1000, 500, 50)),
    ([0] * 8 + [1], (-1000, 0), (-1000, 0), (-500, 1000, 100)),
    ([], (0, 1000), (0, 1000), (0, 1000, 0)),
]


@pytest.mark.parametrize(("blocks", "three", "four", "nine"), INDICES)
def test_fragmentation_indices(blocks, three, four, nine):
    for order, expected in ((3, three), (4, four), (9, nine[:2])):
        assert buddy_index.fragmentation_index(blocks, order) == expected[0]
        assert buddy_index.unusable_index(blocks, order) == expected[1]
    assert buddy_index.extfrag(blocks, 9) == nine[2]


BUDDYINFO = [
    ({0: 100}, (740, 928, 989), (1000, 1000, 1000), (100, 100, 100)),
    ({0: 4, 1: 2, 3: 1}, (-1000, 715, 853), (500, 1000, 1000), (50, 100, 100)),
    ({0: 1000, 1: 500, 2: 250}, (-1000, 893, 997), (666, 1000, 1000), (66, 100, 100)),
    ({3: 64}, (-1000, 485, 969), (0, 1000, 1000), (0, 100, 100)),
    ({0: 10, 9: 2}, (-1000, -1000, -1000), (9, 9, 9), (0, 0, 0)),
]


@pytest.mark.parametrize(("counts", "index", "unusable", "score"), BUDDYINFO)
def test_indices_of_buddyinfo_snapshots(counts, index, unusable, score):
    blocks = [counts.get(o, 0) for o in range(11)]
    assert tuple(buddy_index.fragmentation_index(blocks, o) for o in (2, 4, 9)) == index
    assert tuple(buddy_index.unusable_index(blocks, o) for o in (2, 4, 9)) == unusable
    assert tuple(buddy_index.extfrag(blocks, o) for o in (2, 4, 9)) == score


ZONES = [
    (1, 4096, (1024, 1286, 1548), 63, (643, 16384), (252, 512)),
    (4, 8192, (2048, 3096, 4144), 63, (1548, 65536), (252, 2048)),
    (16, 16384, (4096, 8290, 12484), 63, (4145, 262144), (252, 8192)),
    (64, 32768, (8192, 24969, 41746), 63, (12484, 1048576), (390, 32768)),
]


@pytest.mark.parametrize(("gib", "min_free", "marks", "batch", "two", "many"), ZONES)
def test_watermarks_and_sizes_of_cpu_lists(gib, min_free, marks, batch, two, many):
    pages = gib << 18
    assert buddy_index.watermarks(pages) == (min_free, *marks)
    assert buddy_index.pcp_batch(pages) == batch
    assert buddy_index.pcp_high(pages, 2) == two
    assert buddy_index.pcp_high(pages, 64) == many


@pytest.mark.parametrize(("pages", "batch"), [(32768, 7), (65536, 15), (131072, 31), (1024, 1), (16, 1)])
def test_batch_of_smaller_zones(pages, batch):
    assert buddy_index.pcp_batch(pages) == batch


@pytest.mark.parametrize(("pages", "kib"), [(4, 128), (1 << 26, 65536), (1 << 32, 262144)])
def test_min_free_is_bounded(pages, kib):
    assert buddy_index.watermarks(pages).min_free_kib == kib


# Free lists.


def test_upper_halves_are_split_off_and_the_lowest_pages_handed_out():
    st = zone(1024, BARE)
    assert alloc(st) == 0
    assert buddy.free_blocks(st, 0) == [1] * 10 + [0]
    assert alloc(st) == 1
    assert alloc(st, 2) == 2
    assert alloc(st, 4) == 4
    assert buddy.free_blocks(st, 0) == [0, 0, 0, *[1] * 7, 0]


def test_freed_pages_are_handed_out_last_in_first_out():
    st = zone(1024, BARE)
    pages = [alloc(st) for _ in range(8)]
    for page in (1, 5, 3):
        free(st, pages[page])
    assert [alloc(st) for _ in range(3)] == [3, 5, 1]


def test_a_block_that_may_soon_merge_goes_to_the_tail():
    st = zone(1024, BARE)
    assert [alloc(st) for _ in range(8)] == list(range(8))
    free(st, 6)
    free(st, 0)
    assert [alloc(st), alloc(st)] == [0, 6]
    # With the pair 2, 3 free, the free of page 1 would make four pages of 0 … 3.
    free(st, 2)
    free(st, 3)
    free(st, 6)
    free(st, 0)
    assert [alloc(st), alloc(st)] == [6, 0]


def test_everything_merges_back():
    st = zone(4096, BARE)
    rng = np.random.default_rng(0)
    live = []
    while (page := alloc(st, pages := int(rng.integers(1, 40)))) >= 0:
        live.append((page, pages))
    for i in rng.permutation(len(live)):
        free(st, *live[i])
    assert buddy.free_blocks(st, 0) == [0] * 10 + [4]
    buddy.check(st, 0)


def test_first_blocks_come_in_address_order():
    st = zone(4 * 1024, BARE)
    assert [alloc(st, 1024) for _ in range(5)] == [0, 1024, 2048, 3072, NO_SPACE]


@pytest.mark.parametrize(
    ("pages", "align", "first", "blocks"),
    [
        (3, 1, 0, [1, 0, 1]),  # of 4 pages, 1 goes back
        (5, 1, 0, [1, 1, 0, 1]),  # of 8 pages, 3 go back
        (1, 8, 0, [1, 1, 1, 1]),  # alignment asks for 8 pages
        (6, 16, 0, [0, 1, 0, 1, 1]),
        (8, 1, 0, [0, 0, 0, 1]),
    ],
)
def test_what_is_not_a_power_of_two_gives_the_rest_back(pages, align, first, blocks):
    st = zone(1024, BARE)
    assert alloc(st, pages, align) == first
    assert buddy.free_blocks(st, 0)[: len(blocks)] == blocks
    assert buddy.used(st, 0) == pages * PAGE
    free(st, first, pages)
    assert buddy.free_blocks(st, 0) == [0] * 10 + [1]
    buddy.check(st, 0)


def test_alignment_that_is_no_power_of_two_is_refused():
    assert buddy.map_alloc(zone(64), 0, PAGE, 3 * PAGE, ATTR_WIRED, 0) == NO_SPACE


@pytest.mark.parametrize("params", [LINUX, BARE, PLAIN])
def test_more_than_the_largest_block_takes_the_lowest_free_range(params):
    st = zone(8 * 1024, params)
    assert alloc(st, 1024, attr=ATTR_SINGLE) == 0
    assert alloc(st, 1500, attr=ATTR_SINGLE) == 1024
    assert alloc(st, 2048, attr=ATTR_SINGLE) == 3 * 1024
    free(st, 1024, 1500)
    assert alloc(st, 2100, attr=ATTR_SINGLE) == 5 * 1024
    assert alloc(st, 2049) == NO_SPACE
    assert alloc(st, 2048, align=2048, attr=ATTR_SINGLE) == NO_SPACE
    assert alloc(st, 2048, attr=ATTR_SINGLE) == 1024
    assert buddy.used(st, 0) == (1024 + 2048 + 2048 + 2100) * PAGE
    assert buddy.map_walked(st, 0) > 0
    buddy.check(st, 0)


@pytest.mark.parametrize("params", [LINUX, BARE, PLAIN])
def test_submaps_may_fill_their_map_exactly(params):
    st = zone(4096, params, maps=2)
    buddy.add_map(st, 1, 16 * PAGE, 3000 * PAGE)
    # One largest block lies in the map, at 1024.
    assert alloc(st, 1500, m=1) == NO_SPACE
    assert alloc(st, 1500, attr=ATTR_SINGLE, m=1) == 16
    assert alloc(st, 1501, attr=ATTR_SINGLE, m=1) == NO_SPACE
    assert alloc(st, 1500, align=4, attr=ATTR_SINGLE, m=1) == 1516
    assert buddy.map_free_bytes(st, 1) == 0
    buddy.check(st, 1)
    free(st, 16, 1500, m=1)
    assert alloc(st, 1300, align=256, attr=ATTR_SINGLE, m=1) == NO_SPACE
    assert alloc(st, 1200, align=256, attr=ATTR_SINGLE, m=1) == 256
    assert alloc(st, 60, align=4, m=1) == 64
    buddy.check(st, 1)


def test_a_map_whose_ends_are_not_aligned_loses_nothing():
    st = zone(16 * 1024, maps=3)
    assert alloc(st, 5000, attr=ATTR_SINGLE) == 0
    buddy.add_map(st, 1, 0, 5000 * PAGE)
    assert alloc(st, 7, attr=ATTR_PAGEABLE, m=1) == 4992
    buddy.add_map(st, 2, 4992 * PAGE, 7 * PAGE)
    assert buddy.free_blocks(st, 2)[:4] == [1, 1, 1, 0]
    # No pageblock lies wholly in it that could be claimed: its blocks are stolen.
    assert alloc(st, 4, m=2) == 4992
    assert alloc(st, 2, m=2) == 4996
    assert alloc(st, 1, m=2) == 4998
    assert alloc(st, 1, m=2) == NO_SPACE
    assert buddy.census(st)["claims"] == 0
    for m in range(3):
        buddy.check(st, m)
    free(st, 4996, 2, m=2)
    assert buddy.map_free_bytes(st, 2) == 2 * PAGE


def test_a_map_in_use_is_not_redefined():
    st = zone(64, maps=2)
    with pytest.raises(ValueError, match="in use"):
        buddy.add_map(st, 0, 0, PAGE)


def test_maps_lie_in_each_other_three_deep_and_no_deeper():
    st = zone(64, maps=4)
    for m in (1, 2):
        buddy.add_map(st, m, 0, 64 * PAGE)
    with pytest.raises(ValueError, match="deep"):
        buddy.add_map(st, 3, 0, 64 * PAGE)


@pytest.mark.parametrize("params", [buddy.Params(max_order=19), buddy.Params(pageblock_order=-1)])
def test_impossible_orders_are_refused(params):
    with pytest.raises(ValueError, match="order"):
        zone(64, params)


def test_a_map_that_was_not_added_has_no_space():
    st = zone(64, maps=2)
    assert alloc(st, m=1) == NO_SPACE
    assert alloc(st, 2000, m=1) == NO_SPACE
    assert measure(st, 1)[gauge.FREE] == 0
    bins = np.ones(3)
    buddy.map_paint(st, 1, bins)
    assert bins.tolist() == [0, 0, 0]


# Mobility.


def types(st, m=0):
    return [int(z.type_of(st, m, p)) for p in range(0, int(st.maps[m, z.TOP]), 1 << st.p.pageblock_order)]


def test_unmovable_memory_takes_over_a_whole_largest_block():
    st = zone(4096, BARE)
    assert alloc(st) == 0
    # Order 10 from the other type's list, both of its pageblocks; movable memory goes elsewhere.
    assert types(st) == [z.UNMOVABLE] * 2 + [z.MOVABLE] * 6
    assert alloc(st, attr=ATTR_PAGEABLE) == 1024
    assert alloc(st) == 1
    assert buddy.census(st)["claims"] == 1


def test_movable_memory_claims_a_block_that_is_half_free():
    st = zone(1024, BARE._replace(max_order=9))
    assert alloc(st) == 0
    assert alloc(st, 512, attr=ATTR_PAGEABLE) == 512
    # Free in the unmovable block: 1, 2, … 256 pages. Movable memory claims it, as half of it is free.
    assert alloc(st, attr=ATTR_PAGEABLE) == 1
    assert types(st) == [z.MOVABLE, z.MOVABLE]


def test_movable_memory_pollutes_a_block_that_is_mostly_unmovable():
    st = zone(1024, BARE._replace(max_order=9))
    assert alloc(st, 256) == 0
    assert alloc(st, 128) == 256
    assert alloc(st, 512, attr=ATTR_PAGEABLE) == 512
    # 128 pages of the unmovable block are free: less than half of it; the smallest block is split, it stays unmovable.
    assert alloc(st, attr=ATTR_PAGEABLE) == 384
    assert types(st) == [z.UNMOVABLE, z.MOVABLE]
    assert buddy.census(st)["steals"] == 1
    free(st, 384)
    assert alloc(st) == 384


def test_unmovable_memory_claims_a_block_that_is_half_free_or_unmovable():
    st = zone(512, BARE._replace(max_order=9))
    assert alloc(st, 256, attr=ATTR_PAGEABLE) == 0
    assert alloc(st) == 256
    assert types(st) == [z.UNMOVABLE]
    # One page less, and the page is stolen.
    st = zone(512, BARE._replace(max_order=9))
    assert alloc(st, 256, attr=ATTR_PAGEABLE) == 0
    assert alloc(st, attr=ATTR_PAGEABLE) == 256
    assert alloc(st) == 257
    assert types(st) == [z.MOVABLE]
    # What was stolen counts as alike: the next page tips the scale.
    free(st, 256)
    assert alloc(st, 256) == NO_SPACE
    assert alloc(st, 128) == 384
    assert types(st) == [z.UNMOVABLE]


def test_without_grouping_there_is_one_type():
    st = zone(2048, BARE._replace(migrate=0))
    assert [alloc(st), alloc(st, attr=ATTR_PAGEABLE), alloc(st)] == [0, 1, 2]
    assert set(types(st)) == {z.UNMOVABLE}
    counts = buddy.census(st)
    assert (counts["claims"], counts["steals"]) == (0, 0)


def test_grouping_keeps_unmovable_memory_together():
    poisoned = {}
    for migrate in (0, 1):
        st = zone(64 * 512, BARE._replace(migrate=migrate))
        rng = np.random.default_rng(3)
        for _ in range(40 * 512):
            alloc(st, attr=ATTR_WIRED if rng.random() < 0.05 else ATTR_PAGEABLE)
        poisoned[migrate] = len({a // (512 * PAGE) for a, _, attr in buddy.ranges(st, 0) if attr == ATTR_WIRED})
    assert poisoned[0] == 40
    assert poisoned[1] <= 4  # 1024 pages fill two


# CPUs' lists.


def test_a_refill_brings_a_batch_in_address_order():
    st = zone(1 << 18, cpus=2)
    assert alloc(st) == 0
    assert buddy.census(st)["cpu_pages"] == 62
    assert [alloc(st) for _ in range(3)] == [1, 2, 3]
    # The other CPU has its own.
    assert alloc(st, cpu=1) == 63
    buddy.check(st, 0)


def test_refills_grow_while_nothing_is_freed():
    st = zone(1 << 18)
    held = []
    for _ in range(5):
        alloc(st)
        held.append(buddy.census(st)["cpu_pages"] + 1)
        while buddy.census(st)["cpu_pages"]:
            alloc(st)
    assert held == [63, 126, 252, 504, 1008]


def test_freed_pages_stay_on_the_cpu_that_freed_them():
    st = zone(1 << 18, cpus=2)
    page = alloc(st)
    free(st, page, cpu=1)
    assert alloc(st, cpu=1) == page
    assert buddy.used(st, 0) == PAGE


def test_a_cpu_gives_back_what_is_above_its_limit():
    st = zone(32768)
    _, top = buddy_index.pcp_high(32768, 1)
    pages = [alloc(st) for _ in range(20000)]
    for page in pages:
        free(st, page)
        assert buddy.census(st)["cpu_pages"] <= top
    buddy.check(st, 0)


def test_a_failed_request_empties_all_cpus_lists():
    st = zone(64, cpus=2)
    pages = [alloc(st) for _ in range(64)]
    assert alloc(st) == NO_SPACE
    for page in pages:
        free(st, page, cpu=page % 2)
    assert buddy.census(st)["cpu_pages"] > 0
    assert alloc(st, 64) == 0
    assert buddy.census(st)["cpu_pages"] == 0
    assert buddy.census(st)["drains"] == 1


def test_large_orders_pass_the_cpus_lists_by():
    st = zone(1 << 16)
    page = alloc(st, 16)
    free(st, page, 16)
    assert buddy.census(st)["cpu_pages"] == 0


# The textbook buddy.


WORST = [
    ((1, 2), (2, 4, 6, 8, 8, 10, 12, 14)),
    ((1, 2, 4), (2, 4, 8, 8, 12, 16, 16)),
]


@pytest.mark.parametrize(("sizes", "expected"), WORST)
def test_worst_high_water_over_all_programs(sizes, expected):
    params = PLAIN._replace(max_order=max(sizes).bit_length() - 1)
    assert [worst(n, sizes, params) for n in range(2, 2 + len(expected))] == list(expected)


def worst(n, sizes, params):
    """Highest page that any sequence of allocations and frees can reach while at most n pages live: all states."""
    start = zone(24, params)
    seen, todo, high = {frozenset()}, [(frozenset(), start)], 0
    while todo:
        live, st = todo.pop()
        held = sum(size for _, size in live)
        steps = [(size, None) for size in sizes if held + size <= n] + [(size, page) for page, size in live]
        for size, freed in steps:
            if freed is not None and live - {(freed, size)} in seen:
                continue
            nxt = st._replace(**{f: getattr(st, f).copy() for f in ("tag", "held", "lists", "tree", "maps")})
            if freed is None:
                page = alloc(nxt, size)
                after = live | {(page, size)}
                high = max(high, page + size)
            else:
                free(nxt, freed, size)
                after = live - {(freed, size)}
            if after not in seen:
                seen.add(after)
                todo.append((after, nxt))
    return high


def test_plain_takes_the_lowest_of_the_smallest_blocks():
    st = zone(64, PLAIN)
    assert [alloc(st, n) for n in (1, 4, 1, 8, 2)] == [0, 4, 1, 8, 2]
    free(st, 4, 4)
    free(st, 0)
    free(st, 1)
    # Free: 0-1 and 4-7, then 16-31 and 32-63.
    assert alloc(st, 4) == 4
    assert alloc(st, 4) == 16
    assert alloc(st) == 0
    buddy.check(st, 0)


# Against the naive twins.

requests = hs.tuples(
    hs.just("alloc"),
    hs.sampled_from((1, 1, 1, 1, 2, 2, 3, 4, 5, 8, 16, 33, 70)),
    hs.sampled_from((1, 1, 1, 2, 8)),
    hs.sampled_from((ATTR_WIRED, ATTR_WIRED, ATTR_PAGEABLE, ATTR_PAGEABLE, ATTR_SINGLE)),
    hs.integers(0, 1),
    hs.integers(1, 12),
)
frees = hs.tuples(hs.just("free"), hs.integers(0, 999), hs.integers(0, 1), hs.integers(1, 12))
programs = hs.lists(requests | frees, max_size=80)
shapes = hs.tuples(
    hs.sampled_from((2, 3, 4, 6, 10)),
    hs.sampled_from((1, 3, 9)),
    hs.booleans(),
    hs.booleans(),
    hs.sampled_from(((0, 200), (8, 700), (5, 333), (1024, 4096))),
)
quick = settings(max_examples=120)


def twins(shape, plain=False):
    """One map over part of the KVA, compiled and naive."""
    max_order, block, pcp, migrate, (base, pages) = shape
    params = buddy.Params(max_order, block, int(pcp), int(migrate), int(plain))
    st = buddy.empty(params, kva_bytes=(base + pages) * PAGE, cpus=2, maps=2)
    buddy.add_map(st, 1, base * PAGE, pages * PAGE)
    if plain:
        return st, PlainBuddy(base, base + pages, max_order)
    return st, NaiveZone(base, base + pages, max_order, block, pcp, migrate, cpus=2)


def play(st, naive, program, step_by_step):
    plain = isinstance(naive, PlainBuddy)

    def take(pages, align, attr, cpu):
        got = alloc(st, pages, align, attr, m=1, cpu=cpu)
        if plain:
            assert got == naive.alloc(pages, align, submap=attr == ATTR_SINGLE)
        else:
            assert got == naive.alloc(pages, align, attr == ATTR_PAGEABLE, cpu, attr)

    def give(pick, cpu):
        if naive.live:
            page = sorted(naive.live)[pick % len(naive.live)]
            size = naive.live[page]
            free(st, page, size if plain else size[0], m=1, cpu=cpu)
            naive.release(*((page,) if plain else (page, cpu)))

    run(program, {"alloc": take, "free": give}, lambda: assert_equal(st, naive), step_by_step=step_by_step)
    buddy.check(st, 1)


def assert_equal(st, naive):
    counts = buddy.census(st)
    if isinstance(naive, PlainBuddy):
        assert [(a // PAGE, (b - a) // PAGE) for a, b, _ in buddy.ranges(st, 1)] == sorted(naive.live.items())
        orders = list(naive.blocks().values())
        assert buddy.free_blocks(st, 1) == [orders.count(o) for o in range(naive.max_order + 1)]
        return
    assert buddy.ranges(st, 1) == [(p * PAGE, (p + n) * PAGE, a) for p, (n, _, a) in sorted(naive.live.items())]
    orders = list(naive.orders.values())
    assert buddy.free_blocks(st, 1) == [orders.count(o) for o in range(naive.max_order + 1)]
    assert counts["cpu_pages"] == sum(c.count for c in naive.cpus)
    assert (counts["claims"], counts["steals"], counts["drains"]) == (naive.claims, naive.steals, naive.drains)
    assert counts["used_pages"] + counts["free_pages"] + counts["cpu_pages"] == naive.top - naive.base


def drain(st, naive):
    """Free all that lives and make all merge: the free blocks are the largest possible again."""
    for page, size in sorted(naive.live.items()):
        free(st, page, size if isinstance(size, int) else size[0], m=1)
    buddy.buddy_pcp.drain_all(st, 1)
    fresh = buddy.empty(st.p, kva_bytes=int(st.maps[1, z.TOP]) * PAGE, cpus=2, maps=2)
    pages = st.maps[1, [z.BASE, z.TOP]].tolist()
    buddy.add_map(fresh, 1, pages[0] * PAGE, (pages[1] - pages[0]) * PAGE)
    assert buddy.free_blocks(st, 1) == buddy.free_blocks(fresh, 1)
    assert buddy.used(st, 1) == 0
    buddy.check(st, 1)


@quick
@given(shape=shapes, program=programs)
def test_same_as_the_naive_zone(shape, program):
    st, naive = twins(shape)
    play(st, naive, program, step_by_step=True)
    drain(st, naive)


@pytest.mark.parametrize("pcp", [False, True])
@pytest.mark.parametrize("max_order", [4, 10])
def test_same_as_the_naive_zone_over_a_long_run(max_order, pcp):
    rng = np.random.default_rng(max_order)
    st, naive = twins((max_order, 9, pcp, True, (1000, 6000 if max_order > 4 else 900)))
    program = []
    for i in range(800):
        # The load swells and ebbs, so that the zone runs full, falls back and drains.
        if rng.random() < 0.5 + 0.4 * np.sin(i / 60):
            attr = int(rng.choice((ATTR_WIRED, ATTR_PAGEABLE, ATTR_PAGEABLE)))
            size = int(rng.choice((1, 1, 1, 2, 4, 3, 8, 40)))
            program.append(("alloc", size, 1, attr, int(rng.integers(2)), int(rng.integers(1, 40))))
        else:
            program.append(("free", int(rng.integers(1000)), int(rng.integers(2)), int(rng.integers(1, 40))))
    play(st, naive, program, step_by_step=False)
    assert naive.claims
    drain(st, naive)


@quick
@given(shape=shapes, program=programs)
def test_plain_is_the_textbook_buddy(shape, program):
    max_order, block, _, _, (base, pages) = shape
    st, naive = twins((max_order, block, False, False, (base, min(pages, 400))), plain=True)
    play(st, naive, program, step_by_step=False)
    drain(st, naive)


@quick
@given(shape=shapes, program=programs, bins=hs.integers(1, 100))
def test_measure_and_paint_agree_with_a_bitmap(shape, program, bins):
    st, naive = twins(shape)
    play(st, naive, program, step_by_step=False)
    base, top, largest = naive.base, naive.top, 1 << naive.max_order
    pages = np.zeros(top - base, bool)
    for first, (n, _, _) in naive.live.items():
        pages[first - base : first - base + n] = True
    bare = PlainBuddy(base, top, naive.max_order)
    bare.live = {first: n for first, (n, _, _) in naive.live.items()}
    holes = []
    for page, order in sorted(bare.blocks().items()):
        if holes and order == naive.max_order and holes[-1][2] and holes[-1][0] + holes[-1][1] == page:
            holes[-1][1] += largest
        else:
            holes.append([page, 1 << order, order == naive.max_order])
    sizes = [n for _, n, _ in holes]
    out = IN_PAGES.check_holes(st, 1, sizes)
    assert out[gauge.FREE] == (~pages).sum() * PAGE
    assert out[gauge.ENTRIES] == len(naive.live)
    IN_PAGES.check_painted(st, 1, pages, bins)


def test_high_water_stays_when_memory_goes():
    st = zone(64)
    page = alloc(st, 8)
    free(st, page, 8)
    assert measure(st)[gauge.HIGH] == 8 * PAGE
    free(st, page, 8)
    assert buddy.used(st, 0) == 0


def test_a_reserve_that_is_set_moves_the_watermarks_and_the_limits_of_the_cpus_lists():
    """linux_today.md T9: one zone of its own, min_free_kbytes 67584."""
    marks = buddy_index.watermarks(4194304, 67584)
    assert (marks.minimum, marks.low, marks.high) == (16896, 21120, 25344)
    assert buddy_index.pcp_high(4194304, 2, 67584) == (10560, 262144)
    assert buddy_index.watermarks(4194304).min_free_kib == 16384
