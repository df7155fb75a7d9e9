"""Linux's vmalloc space as an arena: the reference's rules, and random programs against a naive twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from kmemexp.sim.arenas import vmap
from kmemexp.sim.slots import ATTR_PAGEABLE, ATTR_SINGLE, ATTR_WIRED, NO_SPACE, PAGE
from kmemexp.sim.tables import gauge
from tests.sim.in_pages import InPages
from tests.sim.naive_vmap import NaiveVmap
from tests.sim.twins import run

BARE = vmap.Params(guard=0, nodes=1)
POOLS = vmap.Params(guard=0)
IN_PAGES = InPages(vmap)
measure = IN_PAGES.measure


def space(pages, params=BARE, cpus=1, maps=1):
    return vmap.init(params, kva_bytes=pages * PAGE, cpus=cpus, maps=maps)


def alloc(st, pages=1, align=1, attr=ATTR_WIRED, m=0, cpu=0):
    """First page of the area, or a negative answer."""
    addr = vmap.map_alloc(st, m, pages * PAGE, align * PAGE if align > 1 else 1, attr, cpu)
    return addr // PAGE if addr >= 0 else addr


def free(st, page, m=0, cpu=0):
    assert vmap.map_free(st, m, page * PAGE, PAGE, cpu) == 0


def free_ranges(st, m=0):
    return [(a // PAGE, b // PAGE) for a, b in vmap._in_order(st, m)]


# The rules of the reference.


@pytest.mark.parametrize(
    ("cpus", "mib"), [(1, 32), (2, 64), (4, 96), (8, 128), (16, 160), (64, 224), (128, 256), (256, 288)]
)
def test_lazy_max_grows_with_the_bits_of_the_number_of_cpus(cpus, mib):
    assert vmap.lazy_max_pages(cpus) * PAGE == mib << 20
    assert vmap.lazy_max_pages(cpus) % 8192 == 0
    assert space(8, vmap.Params(), cpus=cpus).p.lazy_max_pages == mib << 8


@pytest.mark.parametrize(("cpus", "nodes"), [(1, 1), (2, 2), (64, 64), (128, 128), (256, 128)])
def test_nodes_are_as_many_as_cpus_up_to_128(cpus, nodes):
    assert vmap.nodes_for(cpus) == nodes
    assert space(8, vmap.Params(), cpus=cpus).p.nodes == nodes


def test_the_lowest_range_that_is_large_enough_is_taken():
    st = space(64, BARE._replace(lazy_max_pages=-1))
    assert [alloc(st, n) for n in (2, 4, 1, 8, 3)] == [0, 2, 6, 7, 15]
    for page in (0, 6, 2):
        free(st, page)
    assert free_ranges(st) == [(0, 7), (18, 64)]
    assert [alloc(st, 3), alloc(st, 8), alloc(st, 4)] == [0, 18, 3]
    assert free_ranges(st) == [(26, 64)]
    vmap.check(st, 0)


def test_a_guard_page_follows_each_area():
    st = space(16, vmap.Params(nodes=1))
    assert [alloc(st, 1), alloc(st, 3), alloc(st, 8)] == [0, 2, 6]
    assert vmap.used(st, 0) == 15 * PAGE
    assert vmap.ranges(st, 0)[1] == (2 * PAGE, 6 * PAGE, ATTR_WIRED)
    # A page alone is not enough.
    assert alloc(st, 1) == NO_SPACE


def test_submaps_have_no_guard_page_and_go_straight_back():
    st = space(16, vmap.Params(), cpus=2)
    assert alloc(st, 16, attr=ATTR_SINGLE) == 0
    free(st, 0)
    assert free_ranges(st) == [(0, 16)]
    assert vmap.census(st)["lazy_pages"] == 0


@pytest.mark.parametrize(
    ("first", "pages", "left"),
    [
        (0, 8, []),  # all of the range
        (0, 3, [(3, 8)]),  # its left edge
        (4, 4, [(0, 4)]),  # its right edge
        (4, 2, [(0, 4), (6, 8)]),  # its middle
    ],
)
def test_a_range_is_split_in_four_ways(first, pages, left):
    st = space(64, maps=2)
    vmap.add_map(st, 1, 0, 8 * PAGE)
    if first:
        assert alloc(st, 1, m=1) == 0
    # At a multiple of 4, 1 … 7 is too short for what a search wants, but it is the root: it is looked at anyway.
    assert alloc(st, pages, max(first, 1), m=1) == first
    if first:
        free(st, 0, m=1)
        vmap.drain(st, 1, 1)
    assert free_ranges(st, 1) == left
    vmap.check(st, 1)


def test_an_aligned_request_passes_by_ranges_that_do_not_lie_on_its_way():
    st = space(4096, BARE._replace(lazy_max_pages=-1))
    assert alloc(st, 8, 8) == 0
    pages = [alloc(st, 8) for _ in range(20)]
    for page in pages[::2]:
        free(st, page)
    # Holes of 8 pages at 8, 24 … 152: each would do. But a search wants 16 pages (size + align - 1 bytes), and on its
    # way to where they are it tries only what it meets. The tree's root, which is the fourth hole, it meets first.
    assert alloc(st, 8, 8) == 56
    assert alloc(st, 8) == 8


def test_a_request_for_the_whole_map_is_not_lengthened():
    st = space(64)
    assert alloc(st, 64, 64) == 0


# Lazy freeing.


def test_freed_memory_is_not_used_again_before_a_drain():
    st = space(64, BARE._replace(lazy_max_pages=8))
    assert [alloc(st, 4) for _ in range(4)] == [0, 4, 8, 12]
    free(st, 0)
    free(st, 4)
    assert (vmap.census(st)["lazy_pages"], vmap.census(st)["tlb_flushes"]) == (8, 0)
    assert alloc(st) == 16
    assert vmap.map_free_bytes(st, 0) == (64 - 9) * PAGE
    free(st, 12)
    counts = vmap.census(st)
    assert (counts["lazy_pages"], counts["tlb_flushes"], counts["tlb_full_flushes"]) == (0, 1, 0)
    assert alloc(st, 8) == 0


def test_a_flush_of_more_than_33_pages_is_a_full_one():
    st = space(256, BARE._replace(lazy_max_pages=16))
    for n in (1, 33, 1, 32):
        alloc(st, n)
    free(st, 0)
    free(st, 34)
    vmap.drain(st, 0, 0)
    assert (vmap.census(st)["tlb_flushes"], vmap.census(st)["tlb_full_flushes"]) == (1, 1)
    free(st, 35)
    counts = vmap.census(st)
    assert (counts["tlb_flushes"], counts["tlb_full_flushes"]) == (2, 1)


def test_a_failed_request_drains_once_and_tries_again():
    st = space(16, POOLS, cpus=2)
    pages = [alloc(st, 4, cpu=i % 2) for i in range(4)]
    for page in pages:
        free(st, page)
    assert alloc(st, 16) == 0
    counts = vmap.census(st)
    assert (counts["overflows"], counts["tlb_flushes"], counts["pooled_pages"]) == (1, 1, 0)
    assert alloc(st) == NO_SPACE
    assert vmap.census(st)["overflows"] == 2
    # There was nothing to flush.
    assert vmap.census(st)["tlb_flushes"] == 1


def test_submaps_taken_at_boot_and_their_maps():
    st = space(64, POOLS, cpus=2, maps=3)
    assert alloc(st, 32, attr=ATTR_SINGLE) == 0
    vmap.add_map(st, 1, 0, 32 * PAGE)
    assert alloc(st, 8, attr=ATTR_SINGLE, m=1) == 0
    vmap.add_map(st, 2, 0, 8 * PAGE)
    assert [alloc(st, 2, m=m) for m in (0, 1, 2)] == [32, 8, 0]
    for m in range(3):
        vmap.check(st, m)
    with pytest.raises(ValueError, match="in use"):
        vmap.add_map(st, 1, 0, PAGE)
    with pytest.raises(ValueError, match="deep"):
        vmap.add_map(space(8, maps=5), 1, 0, 17 * PAGE)


def test_a_map_that_was_not_added_has_no_space():
    st = space(8, maps=2)
    assert alloc(st, m=1) == NO_SPACE
    assert measure(st, 1)[gauge.FREE] == 0
    bins = np.ones(3)
    vmap.map_paint(st, 1, bins)
    assert bins.tolist() == [0, 0, 0]


@pytest.mark.parametrize("nodes", [-1, 129])
def test_impossible_nodes_are_refused(nodes):
    with pytest.raises(ValueError, match="nodes"):
        space(8, vmap.Params(nodes=nodes))


# Pools.


@pytest.fixture
def pooled():
    """Two nodes; six areas of 2 pages at 0, 2, … 10, freed and drained: CPU 0's at 0, 4, 8, CPU 1's at 2, 6, 10."""
    st = space(1024, POOLS, cpus=2)
    assert [alloc(st, 2, cpu=i % 2) for i in range(6)] == [0, 2, 4, 6, 8, 10]
    for page in (4, 2, 0, 10, 6, 8):
        free(st, page, cpu=0)
    vmap.drain(st, 0, 0)
    return st


def test_a_drain_returns_areas_to_the_pools_of_the_cpus_that_asked(pooled):
    assert vmap.pool(pooled, 0, 0, 2) == [8 * PAGE, 4 * PAGE, 0]
    assert vmap.pool(pooled, 0, 1, 2) == [10 * PAGE, 6 * PAGE, 2 * PAGE]
    # Only of this size, and last in first out.
    assert alloc(pooled, 1, cpu=1) == 12
    assert [alloc(pooled, 2, cpu=1), alloc(pooled, 2, cpu=3)] == [10, 6]
    assert vmap.census(pooled)["pool_hits"] == 2
    vmap.check(pooled, 0)


def test_an_area_that_is_not_aligned_goes_to_the_end_of_its_pool(pooled):
    assert alloc(pooled, 2, align=16) == 16
    assert vmap.pool(pooled, 0, 0, 2) == [4 * PAGE, 0, 8 * PAGE]
    assert alloc(pooled, 2, align=4) == 4


def test_pools_of_less_than_four_decay_wholly(pooled):
    vmap.drain(pooled, 0, 0)
    assert vmap.census(pooled)["pooled_pages"] == 0
    assert free_ranges(pooled) == [(0, 1024)]


@pytest.mark.parametrize(("count", "left"), [(1, 0), (2, 0), (3, 0), (4, 3), (7, 6), (8, 6), (100, 75)])
def test_pools_decay_by_a_quarter(count, left):
    st = space(2048, POOLS, cpus=2)
    pages = [alloc(st, 2) for _ in range(count)]
    for page in pages:
        free(st, page)
    vmap.drain(st, 0, 0)
    vmap.drain(st, 0, 0)
    # From the head: the highest go.
    assert vmap.pool(st, 0, 0, 2) == [2 * i * PAGE for i in reversed(range(left))]
    vmap.check(st, 0)


@pytest.mark.parametrize(("pages", "pooled_pages"), [(255, 255), (256, 256), (257, 0)])
def test_areas_up_to_a_mebibyte_are_pooled(pages, pooled_pages):
    st = space(1024, POOLS, cpus=2)
    free(st, alloc(st, pages))
    vmap.drain(st, 0, 0)
    assert vmap.census(st)["pooled_pages"] == pooled_pages


def test_one_cpu_has_no_pools():
    st = space(1024, vmap.Params(), cpus=1)
    free(st, alloc(st, 4))
    vmap.drain(st, 0, 0)
    assert vmap.census(st)["pooled_pages"] == 0
    assert free_ranges(st) == [(0, 1024)]


# Against the naive twin.

SIZES = (1, 1, 2, 2, 3, 4, 4, 8, 8, 16, 30, 300)
requests = hs.tuples(
    hs.just("alloc"),
    hs.sampled_from(SIZES),
    hs.sampled_from((1, 1, 1, 2, 4, 8, 32, 3)),
    hs.sampled_from((ATTR_WIRED, ATTR_PAGEABLE, ATTR_WIRED, ATTR_SINGLE)),
    hs.integers(0, 4),
    hs.integers(1, 12),
)
frees = hs.tuples(hs.just("free"), hs.integers(0, 999), hs.integers(1, 12))
drains = hs.tuples(hs.just("drain"), hs.booleans(), hs.just(1))
programs = hs.lists(requests | requests | frees | frees | drains, max_size=80)
shapes = hs.tuples(
    hs.sampled_from((1, 2, 5)),
    hs.integers(0, 1),
    hs.sampled_from((-1, 10, 40, 300)),
    hs.sampled_from(((0, 300), (7, 900), (64, 2000))),
)
quick = settings(max_examples=120)


def twins(shape):
    """One map over part of the KVA, compiled and naive; it is map 1, which lies in map 0."""
    cpus, guard, lazy, (base, pages) = shape
    params = vmap.Params(guard=guard, lazy_max_pages=lazy)
    st = space(base + pages, params, cpus=cpus, maps=2)
    if base:
        assert alloc(st, base, attr=ATTR_SINGLE) == 0
    assert alloc(st, pages, attr=ATTR_SINGLE) == base
    vmap.add_map(st, 1, base * PAGE, pages * PAGE)
    return st, NaiveVmap(base, base + pages, cpus, guard, lazy_max=lazy)


def play(st, naive, program, step_by_step):
    def take(pages, align, attr, cpu):
        got = alloc(st, pages, align, attr, m=1, cpu=cpu)
        assert got == naive.alloc(pages, align, attr == ATTR_SINGLE, cpu, attr)
        assert got < 0 or got % align == 0

    def give(pick):
        if naive.live:
            area = naive.live[sorted(naive.live)[pick % len(naive.live)]]
            free(st, area.start, m=1)
            naive.release(area.start, area.attr == ATTR_SINGLE)

    def flush(full):
        vmap.drain(st, 1, int(full))
        naive.drain(full=full)

    steps = {"alloc": take, "free": give, "drain": flush}
    run(program, steps, lambda: assert_equal(st, naive), step_by_step=step_by_step)
    vmap.check(st, 1)


def assert_equal(st, naive):
    counts = vmap.census(st)
    areas = [naive.live[p] for p in sorted(naive.live)]
    assert vmap.ranges(st, 1) == [(a.start * PAGE, a.end * PAGE, a.attr) for a in areas]
    assert free_ranges(st, 1) == naive.free_ranges()
    assert counts["lazy_pages"] == sum(a.pages for node in naive.lazy for a in node)
    assert counts["pooled_pages"] == sum(a.pages for pools in naive.pools for p in pools.values() for a in p)
    assert (counts["pool_hits"], counts["tlb_flushes"], counts["overflows"]) == (
        naive.hits,
        naive.flushes,
        naive.overflows,
    )
    for node, pools in enumerate(naive.pools):
        for pages in {*SIZES, *(s + 1 for s in SIZES)} - {300, 301}:
            assert vmap.pool(st, 1, node, pages) == [a.start * PAGE for a in pools[pages]]


def lived(shape, program, *, step_by_step=False):
    """Both after a program."""
    st, naive = twins(shape)
    play(st, naive, program, step_by_step=step_by_step)
    return st, naive


def drain(st, naive):
    """Free all that lives and drain: one free range is left."""
    for start in sorted(naive.live):
        free(st, start, m=1)
    vmap.drain(st, 1, 1)
    assert free_ranges(st, 1) == [(naive.base, naive.top)]
    assert vmap.used(st, 1) == 0
    assert measure(st, 1)[gauge.ENTRIES] == 1
    vmap.check(st, 1)


@quick
@given(shape=shapes, program=programs)
def test_same_as_the_naive_space(shape, program):
    drain(*lived(shape, program, step_by_step=True))


@pytest.mark.parametrize("cpus", [1, 3])
@pytest.mark.parametrize("lazy", [20, 400])
def test_same_as_the_naive_space_over_a_long_run(cpus, lazy):
    rng = np.random.default_rng(cpus + lazy)
    st, naive = twins((cpus, 1, lazy, (16, 3000)))
    program = []
    for i in range(1200):
        if rng.random() < 0.5 + 0.3 * np.sin(i / 90):
            align = int(rng.choice((1, 1, 1, 4, 16)))
            program.append(("alloc", int(rng.choice(SIZES[:10])), align, ATTR_WIRED, int(rng.integers(cpus)), 2))
        else:
            program.append(("free", int(rng.integers(1000)), 2))
    play(st, naive, program, step_by_step=False)
    drain(st, naive)
    assert naive.flushes


@quick
@given(shape=shapes, program=programs)
def test_live_areas_never_overlap(shape, program):
    st, naive = lived(shape, program)
    pages = [p for a in naive.live.values() for p in range(a.start, a.end)]
    assert len(pages) == len(set(pages))
    assert vmap.used(st, 1) == len(pages) * PAGE
    assert vmap.map_free_bytes(st, 1) == (naive.top - naive.base - len(pages)) * PAGE


@quick
@given(shape=shapes, program=programs, bins=hs.integers(1, 100))
def test_measure_and_paint_agree_with_a_bitmap(shape, program, bins):
    st, naive = lived(shape, program)
    pages = np.zeros(naive.top - naive.base, bool)
    for a in naive.live.values():
        pages[a.start - naive.base : a.end - naive.base] = True
    runs = [len(r) for r in "".join(" #"[int(p)] for p in pages).split("#") if r]
    out = IN_PAGES.check_holes(st, 1, runs)
    assert out[gauge.FREE] == (~pages).sum() * PAGE
    assert out[gauge.WALKED] == vmap.map_walked(st, 1) == 0
    assert out[gauge.ENTRY_BYTES] == 0
    assert measure(st, 0)[gauge.ENTRY_BYTES] >= PAGE
    # What is measured is what a drain leaves.
    vmap.drain(st, 1, 1)
    assert [(b - a) for a, b in free_ranges(st, 1)] == runs
    IN_PAGES.check_painted(st, 1, pages, bins)


def test_high_water_and_memory_of_areas_stay_when_memory_goes():
    st = space(1024)
    pages = [alloc(st) for _ in range(200)]
    for page in pages:
        free(st, page)
    vmap.drain(st, 0, 1)
    out = measure(st)
    assert out[gauge.HIGH] == 200 * PAGE
    # 200 areas and a free range, 56 to a page.
    assert out[gauge.ENTRY_BYTES] == 4 * PAGE
    free(st, 0)
    assert vmap.used(st, 0) == 0
