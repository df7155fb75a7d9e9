"""The arena of regions: its rules by example, first fit as a special case, random programs against a naive twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from kmemexp.sim import slots
from kmemexp.sim.arenas import regions, sequential
from kmemexp.sim.arenas.regions import placing as g
from kmemexp.sim.arenas.regions import requesters, state
from kmemexp.sim.probes import SERVER_MAP
from kmemexp.sim.slots import (
    ATTR_NOFREE,
    ATTR_PAGEABLE,
    ATTR_SINGLE,
    ATTR_WIRED,
    ITEM_MALLOC,
    ITEM_MBUF,
    NO_SPACE,
    PAGE,
    WHO_COUNT,
    WHO_SHIFT,
)
from kmemexp.sim.tables import gauge, regs
from tests.sim import naive_regions as naive
from tests.sim.in_pages import InPages

UNIT = 16  # pages of a region
IN_PAGES = InPages(regions)
free, measure = IN_PAGES.free, IN_PAGES.measure


def arena(pages, maps=1, unit=UNIT, **params):
    return regions.init(
        regions.Params(region_bytes=unit * PAGE, **params), kva_bytes=pages * PAGE, cpus=1, maps=maps
    )  # fmt: skip


def alloc(st, pages=1, align=1, attr=ATTR_WIRED, m=0, who=0):
    """First page, or a negative answer."""
    return IN_PAGES.alloc(st, pages, align, attr | who << WHO_SHIFT, m)


def holes(st, m=0):
    return [(a // PAGE, b // PAGE) for a, b in regions.holes(st, m)]


# The rules, one by one.


def test_a_small_request_stays_inside_a_region_though_a_lower_hole_spans_two():
    st = arena(48)
    assert [alloc(st, 6) for _ in range(3)] == [0, 6, 16]
    assert holes(st) == [(12, 16), (22, 48)]
    free(st, 16, 6)
    assert holes(st) == [(12, 48)]
    assert alloc(st, 6) == 16
    assert alloc(st, 4) == 12


def test_the_fullest_region_with_room_comes_first_and_of_equals_the_lowest():
    for choice, want in ((state.LOWEST, 0), (state.FULLEST, 16)):
        st = arena(64, choice=choice)
        for _ in range(8):
            alloc(st, 8)
        free(st, 0, 8)
        free(st, 16, 2)
        free(st, 32, 2)
        assert alloc(st, 2) == want


@pytest.mark.parametrize("choice", [state.LOWEST, state.FULLEST])
def test_an_alignment_that_a_region_with_room_cannot_meet_sends_the_request_to_the_next(choice):
    st = arena(64, choice=choice)
    for _ in range(6):
        alloc(st, 8)
    free(st, 1, 5)  # the fullest and lowest with four pages in a row: 1 … 6
    free(st, 18, 6)
    assert alloc(st, 4, align=4) == 20
    assert alloc(st, 4) == 1


def test_what_is_never_freed_has_regions_of_its_own():
    st = arena(64, segregate=state.NEVER_FREED)
    kept = ATTR_WIRED | ATTR_NOFREE
    assert [alloc(st), alloc(st, attr=kept), alloc(st, attr=ATTR_SINGLE), alloc(st)] == [0, 16, 17, 1]
    assert regions.regions(st, 0) == [g.SHORT, g.LONG, g.NONE, g.NONE]


def test_three_classes_by_use():
    st = arena(64, segregate=state.BY_USE)
    attrs = (ATTR_WIRED, ATTR_PAGEABLE, ATTR_WIRED | ATTR_NOFREE, ATTR_WIRED, ATTR_PAGEABLE)
    assert [alloc(st, attr=a) for a in attrs] == [0, 16, 32, 1, 17]
    assert regions.regions(st, 0) == [g.WIRED, g.SHORT, g.LONG, g.NONE]


def test_two_ended_the_short_lived_come_from_the_top():
    st = arena(72, segregate=state.BY_USE, two_ended=1)
    assert [alloc(st, attr=a) for a in (ATTR_WIRED, ATTR_PAGEABLE, ATTR_PAGEABLE)] == [0, 64, 65]
    assert alloc(st, 8, attr=ATTR_PAGEABLE) == 48  # the last region is half as long and has no room
    assert alloc(st, 10, attr=ATTR_WIRED) == 1  # large: lowest place
    assert alloc(st, 10, attr=ATTR_PAGEABLE) == 38  # large: high end of the highest place that has room
    assert regions.regions(st, 0) == [g.MIXED, g.NONE, g.MIXED, g.SHORT, g.SHORT]


def test_without_a_free_region_a_request_falls_back_to_the_fullest_of_the_others_which_keeps_its_class():
    st = arena(32, segregate=state.BY_USE)
    for _ in range(6):
        alloc(st, attr=ATTR_WIRED)
    alloc(st, attr=ATTR_PAGEABLE)
    assert alloc(st, attr=ATTR_WIRED | ATTR_NOFREE) == 6
    assert regions.regions(st, 0) == [g.WIRED, g.SHORT]


def test_a_large_request_spans_regions_and_what_it_touches_is_mixed_until_it_is_wholly_free():
    st = arena(64)
    alloc(st, 4)
    assert alloc(st, 30) == 4
    assert regions.regions(st, 0) == [g.MIXED, g.MIXED, g.MIXED, g.NONE]
    assert alloc(st, 2) == 48  # a free region before a mixed one
    free(st, 4, 30)
    assert regions.regions(st, 0) == [g.MIXED, g.NONE, g.NONE, g.LONG]
    free(st, 0, 4)
    assert regions.regions(st, 0) == [g.NONE, g.NONE, g.NONE, g.LONG]


def test_a_large_request_finds_a_hole_between_others_of_a_region():
    st = arena(32)
    assert [alloc(st, 8) for _ in range(4)] == [0, 8, 16, 24]
    for page, pages in ((0, 1), (3, 9), (14, 2)):
        free(st, page, pages)
    assert alloc(st, 9) == 3


def test_a_small_request_that_fits_only_across_regions_does_not_fail():
    st = arena(32)
    for _ in range(4):
        alloc(st, 8)
    free(st, 12, 8)
    assert alloc(st, 8) == 12
    assert regions.regions(st, 0) == [g.MIXED, g.MIXED]
    assert alloc(st) == NO_SPACE


def test_part_of_a_range_or_several_neighbours_may_be_freed():
    st = arena(64)
    for size in (3, 5, 20, 4):
        alloc(st, size)
    free(st, 2, 10)
    regions.check(st, 0)
    free(st, 0, 2)
    free(st, 12, 16)
    regions.check(st, 0)


def test_each_map_has_regions_of_its_own_from_its_base():
    st = arena(128, maps=2)
    base = alloc(st, 40, attr=ATTR_SINGLE)
    below, above = base, alloc(st, 9)
    regions.add_map(st, 1, base * PAGE, 40 * PAGE)
    assert len(regions.regions(st, 1)) == 3
    assert [alloc(st, 8, m=1) for _ in range(5)] == [base, base + 8, base + 16, base + 24, base + 32]
    free(st, base + 32, 8, m=1)
    free(st, above, 9)
    assert holes(st) == [(40, 128)]
    assert holes(st, 1) == [(base + 32, base + 40)]
    assert below == 0
    for m in (0, 1):
        regions.check(st, m)
    with pytest.raises(ValueError, match="in use"):
        regions.add_map(st, 1, 0, PAGE)


@pytest.mark.parametrize(
    "params",
    [{"region_bytes": 3 * PAGE}, {"region_bytes": PAGE}, {"segregate": 4}, {"choice": 2}, {"two_ended": 2},
     {"patience": -1}, {"lifetime_bytes": -1}],
)  # fmt: skip
def test_impossible_parameters_are_refused_by_name(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        regions.init(regions.Params(**params), kva_bytes=64 * PAGE, cpus=1, maps=1)


def test_what_a_search_passes_is_charged():
    st = arena(64)
    for _ in range(8):
        alloc(st, 8)
    for page, pages in ((1, 2), (4, 2), (9, 1), (17, 2), (20, 3)):
        free(st, page, pages)
    before = int(regions.map_walked(st, 0))
    assert alloc(st, 3) == 20
    assert regions.map_walked(st, 0) - before == 2  # the first region, by its bound, and a hole of the second
    before = int(regions.map_walked(st, 0))
    assert alloc(st, 3) == NO_SPACE
    assert regions.map_walked(st, 0) - before >= 4 + 4  # all regions, then the holes at their ends


# What is learned of requesters.

QUICK, SLOW = 1, 2


def learning(pages=256, **params):
    return arena(pages, segregate=state.BY_LIFETIME, **params)


def class_where(st, page):
    return regions.regions(st, 0)[page // UNIT]


def test_a_requester_that_frees_at_once_is_short_lived_and_one_that_frees_late_is_not():
    st = learning(lifetime_bytes=20 * PAGE)
    for _ in range(5):
        slow = alloc(st, 2, who=SLOW)
        for _ in range(20):
            free(st, alloc(st, 2, who=QUICK), 2)
        free(st, slow, 2)
    assert class_where(st, alloc(st, who=QUICK)) == g.SHORT
    assert class_where(st, alloc(st, who=SLOW)) == g.LONG


def test_a_requester_without_a_free_is_long_lived_when_patience_ends():
    st = learning(patience=10, lifetime_bytes=200 * PAGE)
    pages = [alloc(st, who=SLOW) for _ in range(11)]
    assert [class_where(st, p) for p in pages] == [g.SHORT] * 10 + [g.LONG]


def test_what_a_requester_keeps_teaches_too():
    """Most of its ranges die young; the ones that stay are what a map is fragmented by."""
    st = learning(patience=1000, lifetime_bytes=64 * PAGE)
    kept = alloc(st, 2, who=SLOW)
    free(st, alloc(st, who=SLOW))
    assert class_where(st, kept) == g.SHORT
    for _ in range(60):
        free(st, alloc(st, 2, who=QUICK), 2)
    assert class_where(st, alloc(st, who=SLOW)) == g.LONG
    assert class_where(st, alloc(st, who=QUICK)) == g.SHORT


@pytest.mark.parametrize(("between", "want"), [(2, g.SHORT), (3, g.LONG)])
def test_long_lived_begins_at_the_lifetime_itself(between, want):
    st = learning(lifetime_bytes=4 * PAGE)
    alloc(st, who=SLOW)
    alloc(st, between, who=QUICK)
    assert class_where(st, alloc(st, who=SLOW)) == want


def test_a_requester_is_forgiven_when_its_old_ranges_are_gone_and_the_new_ones_die_young():
    st = learning(lifetime_bytes=32 * PAGE)
    old = alloc(st, 2, who=SLOW)
    for _ in range(200):
        free(st, alloc(st, 2, who=QUICK), 2)
    free(st, old, 2)
    assert class_where(st, alloc(st, who=SLOW)) == g.LONG
    for _ in range(60):
        free(st, alloc(st, who=SLOW))
    free(st, 0)
    assert class_where(st, alloc(st, who=SLOW)) == g.SHORT


def test_submaps_are_long_lived_without_being_learned():
    st = learning(two_ended=1)
    assert alloc(st, 40, attr=ATTR_SINGLE) == 0
    assert alloc(st, 40, attr=ATTR_PAGEABLE, who=QUICK) == 216


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 4095, 4096, 4097, (1 << 40) - 1])
def test_logarithm(n):
    have = requesters.logarithm(n)
    assert have == naive.log(n)
    assert have / 4096 == pytest.approx(np.log2(n), abs=0.087)


def test_requesters_are_told_apart():
    reg = np.zeros((1, regs.COLUMNS), np.int64)

    def who(server, item, size=0, nbytes=PAGE, attr=ATTR_WIRED):
        reg[0, [regs.ITEM, regs.SIZE, regs.BYTES]] = item, size, nbytes
        told = int(regions.map_attr(reg, 0, attr, server))
        assert told & 0xFF == attr
        return told >> WHO_SHIFT

    zones = [who(server, z) for server in range(3) for z in range(200)]
    malloc = [who(server, ITEM_MALLOC, 1 << k) for server in range(3) for k in range(31)]
    mbufs = [who(server, ITEM_MBUF) for server in range(3)]
    direct = [who(SERVER_MAP, 7, nbytes=PAGE << k, attr=a) for a in range(3) for k in range(20)]
    numbers = zones + malloc + mbufs + direct
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) >= 0
    assert max(numbers) < WHO_COUNT
    assert who(0, ITEM_MALLOC, 100) == who(0, ITEM_MALLOC, 127) != who(0, ITEM_MALLOC, 128)
    assert who(0, 5, attr=ATTR_WIRED | ATTR_NOFREE) == who(0, 5)


# Random programs.

ATTRS = (ATTR_SINGLE, ATTR_WIRED, ATTR_PAGEABLE, ATTR_WIRED | ATTR_NOFREE)
OPS = hs.lists(
    hs.one_of(
        hs.tuples(hs.just("alloc"), hs.sampled_from([1, 1, 1, 2, 2, 3, 4, 5, 8, 9, 13, 24]),
                  hs.sampled_from([1, 1, 1, 2, 3, 4, 8]), hs.sampled_from(ATTRS), hs.integers(0, 3)),
        hs.tuples(hs.just("free"), hs.integers(0, 1000), hs.integers(0, 1000), hs.booleans()),
    ),
    min_size=40,
    max_size=120,
)  # fmt: skip


def play(st, other, ops):
    """Play a program on two arenas; `other(op)` answers an allocation and follows a free."""
    live = []  # (page, pages), neighbours perhaps of one request
    for op in ops:
        if op[0] == "alloc":
            _, size, align, attr, who = op
            page = alloc(st, size, align, attr, who=who)
            assert page == other(op, None)
            if page >= 0:
                live.append((page, size))
        elif live:
            page, size = live.pop(op[1] % len(live))
            if not op[3]:  # a part only
                first = op[2] % size
                last = first + 1 + op[1] % (size - first)
                live += [(a, b - a) for a, b in ((page, page + first), (page + last, page + size)) if a < b]
                page, size = page + first, last - first
            free(st, page, size)
            other(op, (page, size))
        regions.check(st, 0)
    return live


@given(
    ops=OPS,
    pages=hs.integers(1, 150),
    unit=hs.sampled_from([2, 4, 16, 64, 256]),
    segregate=hs.integers(0, 3),
    choice=hs.integers(0, 1),
    two_ended=hs.integers(0, 1),
    lifetime=hs.integers(0, 60),
    patience=hs.integers(0, 8),
)
@settings(max_examples=200)
def test_random_programs_equal_the_naive_twin(ops, pages, unit, segregate, choice, two_ended, lifetime, patience):
    params = {"segregate": segregate, "two_ended": two_ended, "patience": patience}
    st = arena(pages, unit=unit, choice=choice, lifetime_bytes=lifetime * PAGE, **params)
    twin = naive.Regions(
        pages, unit, segregate, choice == 1, two_ended == 1, max(lifetime or pages // 8, 1), patience
    )  # fmt: skip

    def follow(op, gone):
        if gone:
            twin.free(*gone)
            return None
        _, size, align, attr, who = op
        sort = attr & slots.ATTR_SORT
        page = twin.alloc(size, align, single=sort == ATTR_SINGLE, pageable=sort == ATTR_PAGEABLE,
                          nofree=bool(attr & ATTR_NOFREE), who=who)  # fmt: skip
        assert regions.regions(st, 0) == twin.klass
        return page

    live = play(st, follow, ops)
    assert holes(st) == twin.holes()
    assert regions.regions(st, 0) == twin.klass
    totals, bins = measure(st), np.zeros(7)
    sizes = [b - a for a, b in twin.holes()]
    assert totals[gauge.FREE] == sum(sizes) * PAGE == regions.map_free_bytes(st, 0)
    assert totals[gauge.LARGEST] == max(sizes, default=0) * PAGE
    assert totals[gauge.HOLES] == len(sizes)
    assert totals[gauge.HIST : gauge.CLAIMS].sum() == totals[gauge.FREE]
    regions.map_paint(st, 0, bins)
    assert bins.mean() * pages == pytest.approx(pages - sum(sizes))
    for page, size in live:
        free(st, page, size)
    regions.check(st, 0)
    assert holes(st) == [(0, pages)]
    assert regions.census(st)["free_regions"] == len(twin.klass)


@given(ops=OPS, pages=hs.integers(1, 200))
@settings(max_examples=100)
def test_one_region_as_large_as_the_map_is_first_fit(ops, pages):
    st = arena(pages, unit=256)
    other = sequential.init(sequential.Params(), kva_bytes=pages * PAGE, cpus=1, maps=1)

    def follow(op, gone):
        if gone:
            assert sequential.map_free(other, 0, gone[0] * PAGE, gone[1] * PAGE, 0) == 0
            return None
        addr = sequential.map_alloc(other, 0, op[1] * PAGE, op[2] * PAGE, op[3], 0)
        return addr // PAGE if addr >= 0 else addr

    play(st, follow, ops)
    assert regions.holes(st, 0) == sequential.holes(other, 0)
    mine, its = measure(st), np.zeros(gauge.COLUMNS, np.int64)
    sequential.map_measure(other, 0, its)
    mine[gauge.WALKED] = its[gauge.WALKED] = 0
    assert mine.tolist() == its.tolist()
