"""FreeBSD's vmem arena: the reference's vectors, supply of tags, and random programs against a naive twin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hs

from kmemexp.sim.arenas import vmem
from kmemexp.sim.arenas._shared import segments as g
from kmemexp.sim.arenas.vmem import alloc as v
from kmemexp.sim.slots import ATTR_PAGEABLE, ATTR_SINGLE, ATTR_WIRED, NO_ENTRY, NO_SPACE, PAGE
from kmemexp.sim.tables import gauge
from tests.sim import naive_vmem as naive
from tests.sim import vmem_programs
from tests.sim.in_pages import InPages

WHOLE = vmem.Params(import_bytes=0, direct=1)
UNIT = 512  # pages of a superpage
STRATEGIES = {vmem.BEST_FIT: naive.BEST, vmem.FIRST_FIT: naive.FIRST, vmem.NEXT_FIT: naive.NEXT}
IN_PAGES = InPages(vmem)
alloc, free, measure = IN_PAGES.alloc, IN_PAGES.free, IN_PAGES.measure


def arena(pages, params=WHOLE, cpus=1, maps=1):
    return vmem.init(params, kva_bytes=pages * PAGE, cpus=cpus, maps=maps)


def pages_of(ranges):
    return [(start // PAGE, end // PAGE) for start, end, _ in ranges]


def vacant(st, m=0):
    """(start, end) of the free segments, in pages."""
    return [(a // PAGE, b // PAGE) for a, b, kind, _ in g.segments(st, m) if kind == g.FREE]


# F1 and F2.


@pytest.mark.parametrize(
    ("pages", "k"),
    [
        *[(1, 0), (2, 1), (30, 29), (31, 30), (32, 31), (33, 31), (63, 31), (64, 32), (127, 32), (128, 33), (255, 33)],
        (1000, 35),
    ],
)
def test_free_list_of_a_size(pages, k):
    assert v.size_list(pages) == k
    assert naive.order(pages) == k


def test_every_size_is_on_its_list_at_boot_as_later():
    for pages in range(1, 300):
        st = arena(pages)
        assert g.free_list(st, 0, naive.order(pages)) != []
        vmem.check(st, 0)


def test_simulated_trace():
    st = arena(64)
    assert [alloc(st, n) for n in (3, 5, 2, 4)] == [0, 3, 8, 10]
    free(st, 3, 5)
    assert alloc(st, 4) == 3
    assert vacant(st) == [(7, 8), (14, 64)]
    free(st, 0, 3)
    # A first fit of 40 looks at no list below 32: it falls back to best fit on list 31. So does the twin.
    first = st._replace(p=st.p._replace(strategy=vmem.FIRST_FIT))
    assert alloc(first, 40) == 14
    assert vacant(first) == [(0, 3), (7, 8), (54, 64)]
    vmem.check(first, 0)


def comb(st, sizes):
    """Holes of these sizes, apart; the last of them is freed last and so first on its list."""
    at = [(alloc(st, n), alloc(st, 1))[0] for n in sizes]
    for page, n in zip(at, sizes, strict=True):
        free(st, page, n)
    return at


def test_best_fit_is_best_to_the_granularity_of_lists():
    st = arena(1000)
    at = comb(st, (40, 36, 33))
    assert [st.seg[r, g.START] // PAGE for r in g.free_list(st, 0, 31)] == at[::-1]
    # The 33 is first on the list and too small, the 36 would be the best, but one of 35 takes it as the next one.
    before = vmem.map_walked(st, 0)
    assert alloc(st, 35) == at[1]
    assert vmem.map_walked(st, 0) == before + 1
    assert alloc(st, 33) == at[2]


def test_best_fit_takes_the_first_that_is_large_enough():
    st = arena(1000)
    at = comb(st, (33, 36, 40))
    assert alloc(st, 33) == at[2]


def test_first_fit_begins_where_every_segment_is_large_enough():
    st = arena(1000, WHOLE._replace(strategy=vmem.FIRST_FIT))
    at = comb(st, (100, 40))
    assert alloc(st, 33) == at[0]
    assert alloc(st, 32) == at[1]


def test_next_fit_goes_round():
    st = arena(8, WHOLE._replace(strategy=vmem.NEXT_FIT))
    assert [alloc(st, 2) for _ in range(3)] == [0, 2, 4]
    free(st, 0, 2)
    assert alloc(st, 1) == 6
    assert alloc(st, 1) == 7
    assert alloc(st, 1) == 0
    free(st, 2, 2)
    assert alloc(st, 1) == 1
    assert alloc(st, 2) == 2


def test_the_cursor_keeps_segments_apart_until_somebody_needs_them():
    st = arena(8, WHOLE._replace(strategy=vmem.NEXT_FIT))
    IN_PAGES.keeps_segments_apart(st, vacant)


def test_a_split_takes_the_low_end_and_the_rest_is_first_on_its_list():
    st = arena(200)
    assert comb(st, (50, 40)) == [0, 51]
    assert alloc(st, 2) == 51
    assert alloc(st, 45) == 0
    assert [st.seg[r, g.START] // PAGE for r in g.free_list(st, 0, 31)] == [53]
    assert [st.seg[r, g.START] // PAGE for r in g.free_list(st, 0, 4)] == [45]


def test_alignment_leaves_a_segment_below():
    st = arena(64)
    assert alloc(st, 1) == 0
    assert alloc(st, 4, align=8) == 8
    assert vacant(st) == [(1, 8), (12, 64)]
    assert alloc(st, 7) == 1


def test_alignment_need_not_be_a_power_of_two():
    st = arena(64)
    assert alloc(st, 1) == 0
    assert alloc(st, 2, align=3) == 3


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frees_merge_back_to_one_segment(order, strategy):
    st = arena(64, WHOLE._replace(strategy=strategy))
    at = [alloc(st, 16) for _ in range(4)]
    for i in order:
        free(st, at[i], 16)
        vmem.check(st, 0)
    assert measure(st)[gauge.LARGEST] == 64 * PAGE
    assert measure(st)[gauge.HOLES] == 1
    if strategy != vmem.NEXT_FIT:
        assert vacant(st) == [(0, 64)]


def test_unknown_and_half_ranges_are_refused():
    st = arena(64)
    assert alloc(st, 4) == 0
    assert vmem.map_free(st, 0, PAGE, PAGE, 0) == NO_ENTRY
    assert vmem.map_free(st, 0, 0, PAGE, 0) == NO_ENTRY
    free(st, 0, 4)
    assert vmem.map_free(st, 0, 0, 4 * PAGE, 0) == NO_ENTRY
    vmem.check(st, 0)


# Imports from kernel_map.


def imported(pages, cpus=1, maps=1, **params):
    return arena(pages, vmem.Params(direct=1, **params), cpus=cpus, maps=maps)


def test_kernel_map_is_imported_a_superpage_at_a_time():
    st = imported(4 * UNIT)
    assert alloc(st, 3) == 0
    assert vmem.census(st)["imported_bytes"] == UNIT * PAGE
    # What the arena has and what it can still import are two holes.
    assert measure(st)[gauge.HOLES] == 2
    assert alloc(st, UNIT) == 3  # the second span continues the first
    assert vmem.census(st)["imports"] == 2
    assert vacant(st) == [(UNIT + 3, 2 * UNIT)]
    vmem.check(st, 0)


def test_imports_are_never_given_back():
    st = imported(4 * UNIT)
    free(st, alloc(st, 2 * UNIT), 2 * UNIT)
    assert vacant(st) == [(0, 2 * UNIT)]
    assert alloc(st, 3 * UNIT) == NO_SPACE  # only 2 more units are in kernel_map, and 3 are needed at once
    assert vmem.map_free_bytes(st, 0) == 4 * UNIT * PAGE


@pytest.mark.parametrize(("unit", "imported_pages"), [(2 << 20, 512), (1 << 20, 256), (16 * PAGE, 16)])
def test_import_quantum(unit, imported_pages):
    st = imported(2048, import_bytes=unit)
    alloc(st, 1)
    assert vmem.census(st)["imported_bytes"] == imported_pages * PAGE


@pytest.mark.parametrize(("align", "pages"), [(1, 16), (2, 16), (8, 32), (16, 48)])
def test_an_aligned_request_imports_twice_the_alignment_more(align, pages):
    st = imported(256, import_bytes=16 * PAGE)
    alloc(st, 4, align=align)
    assert vmem.census(st)["imported_bytes"] == pages * PAGE


def test_submaps_lie_beside_the_arena_and_imports_are_aligned_around_them():
    st = imported(8 * UNIT)
    assert alloc(st, 2 * UNIT) == 0
    assert alloc(st, 10, attr=ATTR_SINGLE) == 2 * UNIT
    assert alloc(st, 1) == 3 * UNIT
    assert alloc(st, 5, attr=ATTR_SINGLE) == 2 * UNIT + 10  # first fit, below the last import
    assert pages_of(vmem.ranges(st, 0)) == [
        (0, 2 * UNIT),
        (2 * UNIT, 2 * UNIT + 10),
        (2 * UNIT + 10, 2 * UNIT + 15),
        (3 * UNIT, 3 * UNIT + 1),
    ]
    vmem.check(st, 0)
    free(st, 2 * UNIT, 10)
    assert alloc(st, 4, align=4, attr=ATTR_SINGLE) == 2 * UNIT
    vmem.check(st, 0)


def test_a_span_that_continues_nothing_has_a_tag():
    st = imported(8 * UNIT)
    alloc(st, UNIT)
    alloc(st, 1, attr=ATTR_SINGLE)
    alloc(st, UNIT)
    assert measure(st)[gauge.ENTRIES] == 4  # two spans and two ranges in use
    joined = imported(8 * UNIT)
    alloc(joined, UNIT)
    alloc(joined, UNIT)
    assert measure(joined)[gauge.ENTRIES] == 3


def test_the_end_of_kernel_map_that_is_no_whole_unit_is_for_submaps_only():
    st = imported(UNIT + 100)
    assert alloc(st, UNIT) == 0
    assert alloc(st, 1) == NO_SPACE
    assert vmem.map_free_bytes(st, 0) == 100 * PAGE
    assert alloc(st, 100, attr=ATTR_SINGLE) == UNIT
    vmem.check(st, 0)


def test_a_submap_is_one_span_and_imports_nothing():
    st = imported(4 * UNIT, maps=3)
    base = alloc(st, 64, attr=ATTR_SINGLE)
    vmem.add_map(st, 1, base * PAGE, 64 * PAGE)
    assert [alloc(st, 32, m=1, attr=ATTR_SINGLE), alloc(st, 32, m=1)] == [base, base + 32]
    assert alloc(st, 1, m=1) == NO_SPACE
    assert alloc(st, 1, m=2) == NO_SPACE
    assert measure(st, 2)[gauge.FREE] == 0
    for m in range(3):
        vmem.check(st, m)
    with pytest.raises(ValueError, match="in use"):
        vmem.add_map(st, 1, 0, PAGE)


# Tags.


def test_four_tags_are_in_hand_before_an_allocation_and_32_after_a_free():
    st = arena(400)
    assert vmem.census(st)["tags"] == vmem.census(st)["tags_in_hand"] == 2
    alloc(st)
    assert (vmem.census(st)["tags"], vmem.census(st)["tags_in_hand"]) == (3, 3)
    alloc(st)
    assert (vmem.census(st)["tags"], vmem.census(st)["tags_in_hand"]) == (4, 3)
    for _ in range(98):
        alloc(st)
    for page in range(0, 100, 2):  # holes need no tags, nor do they give any back
        free(st, page)
    assert vmem.census(st)["tags_in_hand"] == 3
    for page in range(1, 99, 2):
        free(st, page)
    assert vmem.census(st)["tags_in_hand"] == 32
    vmem.check(st, 0)


def test_a_slab_has_72_tags_and_the_reserve_is_8_a_cpu():
    assert arena(64).supply[v.PER_PAGE] == 72
    assert arena(64, cpus=8).supply[v.RESERVE] == 64


def test_pages_of_tags_come_out_of_the_arena():
    st = arena(4 * UNIT, vmem.Params())
    taken = [alloc(st) for _ in range(200)]
    pages = vmem.census(st)["zone_pages"] - 1
    assert pages > 0
    assert len(vmem.ranges(st, 0)) == 200 + pages
    held = sorted(set(range(200 + pages)) - set(taken))
    assert len(held) == pages
    assert measure(st)[gauge.ENTRY_BYTES] == (pages + 1) * PAGE
    for page in taken:
        free(st, page)
    assert pages_of(vmem.ranges(st, 0)) == [(p, p + 1) for p in held]
    vmem.check(st, 0)


def test_pages_of_tags_in_the_direct_map_take_no_kva():
    st = imported(4 * UNIT)
    for page in range(200):
        assert alloc(st) == page
    assert vmem.census(st)["zone_pages"] > 1
    vmem.check(st, 0)


def test_tags_run_out_only_when_there_is_no_kva_for_their_pages():
    st = arena(1024, vmem.Params(import_bytes=0), maps=2)
    vmem.add_map(st, 1, 0, 512 * PAGE)
    assert alloc(st, 512) == 0
    while alloc(st) >= 0:
        pass
    # The zone keeps its reserve for the arena of map 0 and can have no page: the submap gets no tags.
    while (page := alloc(st, m=1)) >= 0:
        last = page
    assert page == NO_SPACE
    assert vmem.map_free_bytes(st, 1) > 0
    assert vmem.census(st)["no_tags"] > 0
    vmem.check(st, 1)
    free(st, last, m=1)  # a free takes none
    free(st, pages_of(vmem.ranges(st, 0))[1][0])
    assert alloc(st, m=1) >= 0
    vmem.check(st, 0)
    vmem.check(st, 1)


def test_each_tag_brings_a_page_until_the_reserve_of_many_cpus_is_full():
    st = arena(2048, vmem.Params(import_bytes=0), cpus=64)
    for pages in range(2, 8):
        alloc(st)
        assert vmem.census(st)["zone_pages"] == pages
    for _ in range(20):
        alloc(st)
    counts = vmem.census(st)
    assert 8 * 64 <= counts["zone_free"] <= 8 * 64 + 72
    assert counts["zone_pages"] == 8
    vmem.check(st, 0)


# Quantum caches.


def test_kernel_arena_has_no_quantum_cache():
    st = imported(4 * UNIT)
    page = alloc(st)
    free(st, page)
    assert vmem.census(st)["cached_bytes"] == 0


def test_a_bucket_is_filled_by_xallocs_and_is_last_in_first_out():
    st = imported(4 * UNIT, qcache_max=4, qcache_bucket=3, cpus=2)
    assert [alloc(st, 2) for _ in range(4)] == [4, 2, 0, 10]
    assert alloc(st, 2, cpu=1) == 16
    assert vmem.map_free_bytes(st, 0) == (4 * UNIT - 10) * PAGE
    free(st, 2, 2, cpu=1)
    assert alloc(st, 2, cpu=1) == 2
    vmem.check(st, 0)
    assert vmem.used(st, 0) == 10 * PAGE


def test_the_default_bucket_is_uma_s():
    st = imported(4 * UNIT, qcache_max=3)
    assert st.supply[v.LIMIT : v.LIMIT + 3].tolist() == [2, 1, 1]
    assert st.bucket.shape[2:] == (3, 2)


def test_at_most_16_sizes_are_cached():
    st = imported(4 * UNIT, qcache_max=20)
    free(st, alloc(st, 16), 16)
    assert vmem.census(st)["cached_bytes"] == 16 * PAGE
    free(st, alloc(st, 17), 17)
    assert vmem.census(st)["cached_bytes"] == 16 * PAGE


def test_a_full_bucket_frees_to_the_arena():
    st = imported(4 * UNIT, qcache_max=1, qcache_bucket=2)
    taken = [alloc(st) for _ in range(6)]
    for page in taken:
        free(st, page)
    assert vmem.census(st)["cached_bytes"] == 2 * PAGE
    vmem.check(st, 0)


def test_caches_are_emptied_when_the_arena_has_no_room():
    st = arena(16, WHOLE._replace(qcache_max=2, qcache_bucket=4), cpus=2)
    taken = [alloc(st, 2, cpu=cpu) for cpu in (0, 1)]
    assert vmem.census(st)["cached_bytes"] == 12 * PAGE
    assert measure(st)[gauge.FREE] == 12 * PAGE
    for page in taken:
        free(st, page, 2)
    assert alloc(st, 10) >= 0
    assert vmem.census(st)["cached_bytes"] == 0
    vmem.check(st, 0)


def test_an_aligned_request_passes_the_cache_by():
    st = arena(64, WHOLE._replace(qcache_max=2, qcache_bucket=4))
    page = alloc(st, 2, align=4)
    free(st, page, 2)
    assert vmem.census(st)["cached_bytes"] == 0


def test_only_submaps_have_a_cache_if_it_is_said_so():
    st = imported(4 * UNIT, maps=2, submap_qcache_max=8)
    vmem.add_map(st, 1, alloc(st, 64, attr=ATTR_SINGLE) * PAGE, 64 * PAGE)
    free(st, alloc(st))
    free(st, alloc(st, m=1), m=1)
    assert vmem.census(st)["cached_bytes"] == 2 * PAGE
    vmem.check(st, 0)
    vmem.check(st, 1)


@pytest.mark.parametrize(
    "params",
    [
        vmem.Params(strategy=3),
        vmem.Params(import_bytes=5000),
        vmem.Params(tag_bytes=0),
        vmem.Params(qcache_max=-1),
    ],
)
def test_impossible_parameters_are_refused(params):
    with pytest.raises(ValueError, match=r"strategy|import_bytes|tag_bytes|qcache_max"):
        arena(64, params)


# Against the naive twin.

CPUS = 2

sizes = hs.one_of(hs.integers(1, 6), hs.integers(1, 6), hs.integers(7, 70))
aligns = hs.sampled_from((1, 1, 1, 2, 4, 8, 3))
attrs = hs.sampled_from((ATTR_SINGLE, ATTR_WIRED, ATTR_WIRED, ATTR_PAGEABLE))
programs = vmem_programs.programs(hs.integers(0, 2), sizes, aligns, attrs, CPUS)
kinds = hs.fixed_dictionaries(
    {
        "strategy": hs.sampled_from(list(STRATEGIES)),
        "unit": hs.sampled_from((0, 16, 32)),
        "cached": hs.sampled_from(((0, 0), (0, 0), (3, 0), (2, 4))),
        "direct": hs.booleans(),
    }
)


class Pair(vmem_programs.Pair):
    """The arena and its twin; what is below the submaps is taken beside them or by the arena."""

    def __init__(self, strategy, unit, cached, direct, pages=400):
        params = vmem.Params(strategy, unit * PAGE, *cached, qcache_bucket=2, direct=int(direct))
        twin = naive.FreeBsd(pages, (), STRATEGIES[strategy], unit, CPUS, cached, 2, direct)
        super().__init__(IN_PAGES, arena(pages, params, cpus=CPUS, maps=3), twin)

    def check(self):
        counts, twin = vmem.census(self.st), self.twin
        assert (counts["zone_free"], counts["zone_pages"]) == (twin.zone, twin.zone_pages)
        assert (counts["imports"], counts["no_tags"]) == (twin.imports, twin.no_tags)
        for m, a in enumerate(twin.arenas):
            self.check_map(m, a.walked)
            assert (self.st.arena[m, g.TAGS], self.st.arena[m, g.HAND]) == (a.in_list, a.hand)

    def measure(self, bins):
        for m, a in enumerate(self.twin.arenas):
            self.check_measures(m, bins, max(a.high, self.twin.high if m == 0 else 0))


@vmem_programs.quick
@given(kind=kinds, program=programs, bins=hs.integers(1, 100))
def test_same_as_the_naive_vmem_step_by_step(kind, program, bins):
    pair = Pair(**kind)
    pair.play_step_by_step(program, bins)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_as_the_naive_vmem_over_a_long_run(strategy):
    pair = Pair(strategy, 32, (2, 2), direct=False, pages=900)
    pair.play_long(np.random.default_rng(strategy), cpus=CPUS)
    pair.check()
    pair.measure(50)


def test_painting_a_map_of_no_size():
    assert IN_PAGES.painted(arena(4, maps=2), 1, 3) == [0, 0, 0]
