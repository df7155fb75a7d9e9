"""illumos' heap and kmem_va: the reference's tables, supply of tags, and random programs against a naive twin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hs

from kmemexp.sim.arenas import vmem_illumos as vmem
from kmemexp.sim.arenas._shared import segments as g
from kmemexp.sim.arenas.vmem_illumos import alloc as v
from kmemexp.sim.arenas.vmem_illumos import layout
from kmemexp.sim.arenas.vmem_illumos import qcache as q
from kmemexp.sim.slots import (
    ATTR_METADATA,
    ATTR_OVERSIZE,
    ATTR_PAGEABLE,
    ATTR_SINGLE,
    ATTR_WIRED,
    NO_ENTRY,
    NO_SPACE,
    PAGE,
)
from kmemexp.sim.tables import gauge
from tests.sim import naive_vmem as naive
from tests.sim import vmem_programs
from tests.sim.in_pages import InPages

INSTANT, BEST, FIRST, NEXT = vmem.INSTANT_FIT, vmem.BEST_FIT, vmem.FIRST_FIT, vmem.NEXT_FIT
STRATEGIES = {INSTANT: naive.INSTANT, BEST: naive.BEST, FIRST: naive.FIRST, NEXT: naive.NEXT}
IN_PAGES = InPages(vmem, ATTR_PAGEABLE)
alloc, free, measure = IN_PAGES.alloc, IN_PAGES.free, IN_PAGES.measure


def heap(pages, maps=1, **params):
    return vmem.init(vmem.Params(**params), kva_bytes=pages * PAGE, cpus=1, maps=maps)


def wired(st, pages=1, align=1):
    return alloc(st, pages, align, ATTR_WIRED)


def vacant(st, a=0):
    """(start, end) of the free segments, in pages."""
    return [(s // PAGE, e // PAGE) for s, e, kind, _ in g.segments(st, a) if kind == g.FREE]


def comb(sizes, **params):
    """A heap with these holes and nothing else free, the last of them freed last; and where they are."""
    st = heap(sum(sizes) + len(sizes), **params)
    at = []
    for n in sizes:
        at.append(alloc(st, n))
        assert alloc(st, 1) == at[-1] + n
    for page, n in zip(at, sizes, strict=True):
        free(st, page, n)
    return st, at


# Tables of the reference.


@pytest.mark.parametrize(
    ("nbytes", "own", "first"),
    [(1000, 9, 10), (1500, 10, 11), (5000, 12, 13), (700, 9, 10), (1024, 10, 10), (1, 0, 0), (2, 1, 1), (3, 1, 2)],
)
def test_free_list_of_a_size(nbytes, own, first):
    assert layout.free_list(nbytes) == own
    assert layout.instant_list(nbytes) == first


def test_hash():
    assert layout.hash_index(0x12345000, 4, 12, 15) == 12


@pytest.mark.parametrize(
    ("segments", "old", "new"),
    [
        (0, 16, 16),
        (100, 16, 128),
        (100, 64, 64),  # 128 is twice 64 at most
        (100, 256, 256),  # … or half of 256
        (100, 512, 128),
        (64, 16, 64),
        (85, 16, 128),
        (1000, 16, 1024),
        (10000, 16, 8192),
        (1, 64, 16),
    ],
)
def test_hash_size(segments, old, new):
    assert layout.hash_size(segments, old) == new


@pytest.mark.parametrize(("most", "pages"), [(1, 4), (2, 8), (3, 16), (4, 16), (5, 16), (8, 32), (16, 64)])
def test_slab_of_a_quantum_cache(most, pages):
    assert layout.qcache_slab_bytes(most * PAGE) == pages * PAGE
    assert heap(256, qcache_max=most).slab_pages == pages


def test_no_slab_is_below_64_bytes():
    assert layout.qcache_slab_bytes(8) == 64


PACKING = [(1, 32, 0), (2, 16, 0), (3, 10, 6.25), (4, 8, 0), (5, 6, 6.25), (6, 5, 6.25), (7, 4, 12.5), (8, 4, 0)]


@pytest.mark.parametrize(("pages", "objects", "waste"), PACKING)
def test_packing_of_quantum_caches(pages, objects, waste):
    st = heap(128)
    taken = [wired(st, pages) for _ in range(objects)]
    assert vmem.census(st)["slabs"] == 1
    assert taken == [(objects - 1 - i) * pages for i in range(objects)]  # from the high end down
    assert vmem.used(st, 0) == 32 * PAGE
    assert (32 - objects * pages) / 32 * 100 == waste
    vmem.check(st, 0)
    assert wired(st, pages) == 32 + (objects - 1) * pages
    assert vmem.census(st)["slabs"] == 2


def test_the_papers_slab_of_16_pages_holds_five_ranges_of_three():
    st = heap(64, qcache_max=5)
    for _ in range(5):
        wired(st, 3)
    assert vmem.census(st)["slab_free_bytes"] == 0
    assert [(s // PAGE, e // PAGE) for s, e, attr in vmem.ranges(st, 0) if attr == vmem.TAIL] == [(15, 16)]


@pytest.mark.parametrize(("populators", "batch"), [(3, (73, 1)), (4, (73, 1)), (5, (146, 2))])
def test_batch_of_a_populate(populators, batch):
    assert layout.populate_batch(populators) == batch
    assert heap(64, populators=populators).supply[[v.BATCH, v.BATCH_PAGES]].tolist() == list(batch)


def test_constants():
    assert (layout.MINFREE, layout.POPULATE_RESERVE, layout.SEG_INITIAL, layout.TAG_BYTES) == (16, 12, 200, 56)
    assert (layout.HASH_INITIAL, layout.NQCACHE_MAX, layout.INITIAL, g.LISTS) == (16, 16, 10, 64)


def test_erratum_of_the_paper():
    assert layout.constrained(100, 500, 20, 64, 8, low=200, high=300) == 200
    assert layout.constrained(100, 500, 20, 64, 8, low=201, high=300) == 264
    assert 262 % 64 == 6


@pytest.mark.parametrize(
    ("request_", "addr"),
    [
        ({"start": 100, "end": 500, "size": 20, "align": 1}, 100),
        ({"start": 100, "end": 500, "size": 20, "align": 64}, 128),
        ({"start": 100, "end": 500, "size": 20, "align": 1, "nocross": 64}, 100),
        ({"start": 110, "end": 500, "size": 20, "align": 1, "nocross": 64}, 128),
        ({"start": 110, "end": 500, "size": 20, "align": 16, "phase": 8, "nocross": 64}, 136),
        ({"start": 100, "end": 119, "size": 20, "align": 1}, -1),
        ({"start": 100, "end": 120, "size": 20, "align": 1}, 100),
        ({"start": 100, "end": 500, "size": 20, "align": 64, "phase": 8, "low": 210, "high": 280}, -1),
        ({"start": 100, "end": 500, "size": 20, "align": 64, "phase": 8, "low": 210, "high": 284}, 264),
    ],
)
def test_constraints(request_, addr):
    assert layout.constrained(**request_) == addr


@given(
    start=hs.integers(0, 300),
    length=hs.integers(1, 300),
    size=hs.integers(1, 40),
    align=hs.sampled_from((1, 2, 8, 32)),
    phase=hs.integers(0, 31),
    cross=hs.sampled_from((0, 64, 128)),
)
def test_constraints_hold_and_the_lowest_address_is_taken(start, length, size, align, phase, cross):
    phase %= align
    if cross and -(-(phase + size) // align) * align > cross:
        return  # overconstrained: a panic
    fits = [
        a
        for a in range(start, start + length - size + 1)
        if a % align == phase and not (cross and a // cross != (a + size - 1) // cross)
    ]
    got = layout.constrained(start, start + length, size, align, phase, cross)
    if phase == 0 or not cross:
        assert got == min(fits, default=-1)
    else:
        assert got == -1 or got % align == phase


# r -> weight of the reference for 62 buffers and binshift 4; then of quantum caches of 1 and 8 pages.
WEIGHTS = [(3, -3), (4, -4), (10, -4), (16, -5), (20, -5), (40, -6), (57, -7), (58, -58), (61, -61)]
OWN_WEIGHTS = [(0, 32, 0), (32, 32, 0), (31, 32, -31), (29, 32, -29), (28, 32, -6), (4, 32, -3), (1, 4, -1), (3, 4, -3)]


@pytest.mark.parametrize(("refcnt", "weight"), WEIGHTS)
def test_weight_of_a_partial_slab(refcnt, weight):
    assert q.weight(refcnt, 62, 4) == weight


@pytest.mark.parametrize(("refcnt", "chunks", "weight"), OWN_WEIGHTS)
def test_weight_of_a_quantum_cache_s_slab(refcnt, chunks, weight):
    assert q.weight(refcnt, chunks, q.binshift(chunks)) == weight


@pytest.mark.parametrize(("chunks", "shift"), [(64, 4), (32, 3), (16, 2), (10, 1), (4, 1), (1023, 7), (512, 7)])
def test_binshift(chunks, shift):
    assert q.binshift(chunks) == shift


# Fits.


def test_instant_fit_takes_the_first_list_that_is_surely_large_enough():
    st, at = comb((1000, 1500, 5000))
    assert alloc(st, 700) == at[1]
    assert (at[1] + 700, at[1] + 1500) in vacant(st)


def test_best_fit_looks_at_the_list_below():
    st, at = comb((1000, 1500, 5000), strategy=BEST)
    assert alloc(st, 700) == at[0]


@pytest.mark.parametrize("strategy", [INSTANT, BEST, FIRST])
def test_a_power_of_two_fits_on_its_own_list(strategy):
    st, at = comb((1000, 1500, 5000), strategy=strategy)
    assert alloc(st, 1024) == at[1]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_list_below_is_the_last_resort(strategy):
    st, at = comb((1000,), strategy=strategy)
    assert alloc(st, 700) == at[0]
    assert alloc(st, 700) == NO_SPACE
    vmem.check(st, 0)


def test_instant_fit_is_last_in_first_out():
    st, at = comb((20, 30, 17))
    assert alloc(st, 16) == at[2]
    assert alloc(st, 16) == at[1]


def test_best_and_first_fit_on_one_list():
    st, at = comb((30, 20, 25), strategy=BEST)
    assert alloc(st, 18) == at[1]
    st, at = comb((30, 20, 25), strategy=FIRST)
    assert alloc(st, 18) == at[2]


def test_best_fit_stops_at_an_exact_one():
    st, _ = comb((20, 20, 30, 18, 25), strategy=BEST)
    before = vmem.map_walked(st, 0)
    alloc(st, 18)
    assert vmem.map_walked(st, 0) - before == 1


def test_what_stays_on_its_list_keeps_its_place():
    st, at = comb((60, 40))
    assert alloc(st, 1) == at[1]  # 40 -> 39
    free(st, at[1])
    assert g.free_list(st, 0, 17)[0] == st.lists[0, 17]
    st, at = comb((40, 60))
    assert [alloc(st, 8), alloc(st, 8)] == [at[1], at[1] + 8]  # 60 -> 52 -> 44, on the head all the time
    assert alloc(st, 16) == at[1] + 16  # 28 is left and goes to the list below
    assert alloc(st, 32) == at[0]


def test_alignment_takes_the_first_segment_that_can():
    st = heap(64)
    assert alloc(st, 1) == 0
    assert alloc(st, 4, align=8) == 8
    # Above the request first, then below: the lower one is first on their list if they share one.
    assert vacant(st) == [(1, 8), (12, 64)]
    assert alloc(st, 2, align=3) == 3


def test_next_fit_goes_round():
    st = heap(8, strategy=NEXT)
    assert [alloc(st, 2) for _ in range(3)] == [0, 2, 4]
    free(st, 0, 2)
    assert [alloc(st, 1) for _ in range(3)] == [6, 7, 0]
    free(st, 2, 2)
    assert [alloc(st, 1), alloc(st, 2)] == [1, 2]


def test_the_rotor_keeps_segments_apart_until_somebody_needs_them():
    st = heap(8, strategy=NEXT)
    IN_PAGES.keeps_segments_apart(st, vacant)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frees_merge_back_to_one_segment(order, strategy):
    st = heap(64, strategy=strategy)
    at = [alloc(st, 16) for _ in range(4)]
    for i in order:
        free(st, at[i], 16)
        vmem.check(st, 0)
    assert measure(st)[gauge.LARGEST] == 64 * PAGE
    if strategy != NEXT:
        assert vacant(st) == [(0, 64)]


def test_a_free_of_the_wrong_size_or_address_is_refused():
    st = heap(256)
    page, range_, large = alloc(st, 4), wired(st, 2), wired(st, 9)
    for where, pages in ((page, 3), (page + 1, 4), (range_, 1), (range_ - 2, 2), (range_ + 1, 1), (large, 10)):
        assert vmem.map_free(st, 0, where * PAGE, pages * PAGE, 0) == NO_ENTRY
    vmem.check(st, 0)
    free(st, page, 4)
    free(st, range_, 2)
    free(st, large, 9)
    assert vacant(st) == [(0, 256)]
    assert vmem.map_free(st, 0, range_ * PAGE, 2 * PAGE, 0) == NO_ENTRY


# kmem_va.


def test_kmem_va_imports_as_much_as_is_asked_for_and_gives_whole_spans_back():
    st = heap(256)
    assert wired(st, 9) == 0
    assert wired(st, 20) == 9
    assert vmem.census(st)["kmem_va_bytes"] == 29 * PAGE
    free(st, 0, 9)
    assert vmem.census(st)["kmem_va_bytes"] == 20 * PAGE
    free(st, 9, 20)
    assert vacant(st) == [(0, 256)]
    vmem.check(st, 0)


def test_spans_of_kmem_va_do_not_merge():
    st = heap(256)
    assert [wired(st, 9), wired(st, 9)] == [0, 9]
    free(st, 0, 9)
    assert vacant(st) == [(0, 9), (18, 256)]
    vmem.check(st, 0)


def test_an_aligned_request_imports_what_alignment_may_cost_and_the_rest_is_used():
    st = heap(256)
    assert alloc(st, 1) == 0
    assert wired(st, 9, align=4) == 4
    assert vmem.census(st)["kmem_va_bytes"] == 12 * PAGE  # [1, 13)
    assert vmem.map_free_bytes(st, 0) == (256 - 10) * PAGE
    free(st, 4, 9)
    assert vmem.census(st)["kmem_va_bytes"] == 0


def test_a_small_aligned_request_passes_the_caches_by():
    st = heap(256)
    assert wired(st, 2, align=2) == 0
    assert vmem.census(st)["slabs"] == 0
    free(st, 0, 2)
    assert vmem.census(st)["kmem_va_bytes"] == 0


def test_a_slab_goes_back_with_its_last_range():
    st = heap(256)
    taken = [wired(st, 4) for _ in range(9)]
    assert vmem.census(st)["slabs"] == 2
    free(st, taken[8], 4)
    assert (vmem.census(st)["slabs"], vmem.census(st)["kmem_va_bytes"]) == (1, 32 * PAGE)
    for page in taken[:8]:
        free(st, page, 4)
    assert vacant(st) == [(0, 256)]


def test_the_most_used_slab_is_allocated_from():
    st = heap(256)
    taken = [wired(st, 8) for _ in range(12)]  # three slabs of four
    free(st, taken[0], 8)
    for page in taken[4:7]:
        free(st, page, 8)
    free(st, taken[8], 8)
    free(st, taken[9], 8)
    assert wired(st, 8) == taken[0]  # 3 of 4
    assert wired(st, 8) == taken[9]  # 2 of 4, last freed first
    assert wired(st, 8) == taken[8]
    assert wired(st, 8) == taken[6]


def test_of_equally_used_slabs_the_lowest_is_first():
    st = heap(512)
    taken = [wired(st) for _ in range(96)]
    for slab in (2, 1, 0):  # 18, 19 and 20 of 32 are in use
        for page in taken[32 * slab : 32 * slab + 12 + slab]:
            free(st, page)
    assert [q.weight(n, 32, 3) for n in (20, 19, 18)] == [-5, -5, -5]
    assert wired(st) == taken[11]


def test_only_wired_memory_comes_from_kmem_va():
    st = heap(256, maps=2)
    assert [alloc(st, 1, attr=ATTR_SINGLE), alloc(st, 1, attr=ATTR_PAGEABLE)] == [0, 1]
    vmem.add_map(st, 1, alloc(st, 64, attr=ATTR_SINGLE) * PAGE, 64 * PAGE)
    assert alloc(st, 1, attr=ATTR_WIRED, m=1) == 2
    assert vmem.census(st)["kmem_va_bytes"] == 0
    vmem.check(st, 0)
    vmem.check(st, 1)


def test_without_quantum_caches_all_sizes_are_segments():
    st = heap(256, qcache_max=0)
    assert [wired(st), wired(st, 3)] == [0, 1]
    assert vmem.census(st)["slabs"] == 0
    free(st, 1, 3)
    free(st, 0)
    assert vacant(st) == [(0, 256)]


# kmem_metadata, and oversize blocks on LP64.


def test_metadata_is_imported_32_pages_at_a_time_and_lies_apart():
    st = heap(512, metadata=1)
    taken = [alloc(st, attr=ATTR_WIRED | ATTR_METADATA) for _ in range(32)]
    assert taken == list(range(32))
    assert vmem.census(st)["kmem_metadata_bytes"] == 32 * PAGE
    assert wired(st) == 95  # of a slab behind 32 pages of vmem_metadata
    assert alloc(st, attr=ATTR_WIRED | ATTR_METADATA) == 96
    assert vmem.census(st)["kmem_metadata_bytes"] == 64 * PAGE
    for page in taken[1:]:
        free(st, page)
    assert vmem.census(st)["kmem_metadata_bytes"] == 64 * PAGE
    free(st, taken[0])
    assert vmem.census(st)["kmem_metadata_bytes"] == 32 * PAGE
    vmem.check(st, 0)


def test_an_oversize_block_has_an_unmapped_page_behind_it_and_next_fit_does_not_come_back_soon():
    st = heap(100, firewall=1)
    blocks = [alloc(st, 40, attr=ATTR_WIRED | ATTR_OVERSIZE)]
    free(st, blocks[0], 40)
    blocks.append(alloc(st, 40, attr=ATTR_WIRED | ATTR_OVERSIZE))
    assert blocks == [0, 41]
    assert vmem.map_free_bytes(st, 0) == (100 - 41) * PAGE
    assert st.arena[v.KMEM_OVERSIZE + 1, g.TAGS] == st.arena[v.KMEM_FIREWALL_VA + 1, g.TAGS] == 2
    for pages in (39, 41):
        assert vmem.map_free(st, 0, 41 * PAGE, pages * PAGE, 0) == NO_ENTRY
    free(st, 41, 40)
    assert vmem.map_free_bytes(st, 0) == 100 * PAGE
    vmem.check(st, 0)


def test_without_places_of_their_own_metadata_and_oversize_blocks_are_wired_memory():
    st, plain = heap(256), heap(256)
    for special in (ATTR_METADATA, ATTR_OVERSIZE):
        for pages in (1, 9, 3):
            assert alloc(st, pages, attr=ATTR_WIRED | special) == wired(plain, pages)
    assert vmem.census(st) == vmem.census(plain)


# Tags.


def hands(st):
    return st.arena[:, g.HAND].tolist()


def test_boot_takes_tags_of_the_kernel_image():
    st = heap(256)
    assert hands(st) == [14, 0, 0, 16, 16, 0, 0, 0, 0]
    assert vmem.census(st)["tags_global"] == 200 - 3 * 16
    assert measure(st)[gauge.ENTRY_BYTES] == 0


@pytest.mark.parametrize(
    ("pages", "align", "tags"),
    [(64, 1, 0), (10, 1, 1), (48, 16, 1), (10, 16, 2)],
    ids=["exact", "left", "right", "middle"],
)
def test_tags_of_an_allocation(pages, align, tags):
    st = heap(65)
    assert alloc(st, 1) == 0
    before = measure(st)[gauge.ENTRIES]
    alloc(st, pages, align)
    # The last case but one ends where the segment does.
    assert measure(st)[gauge.ENTRIES] - before == tags + (pages == 48)


def test_a_span_costs_two_tags_and_a_wired_range_two_more():
    st = heap(256)
    before = measure(st)[gauge.ENTRIES]
    wired(st, 9)
    # One tag for the left end of the heap's segment, span and segment of kmem_va, and both of kmem_default's.
    assert measure(st)[gauge.ENTRIES] - before == 1 + 2 + 2
    assert st.arena[v.KMEM_DEFAULT + 1, g.TAGS] == 2


def test_a_populate_brings_a_page_of_tags_and_restocks():
    st = heap(1024)
    while vmem.census(st)["populates"] == 0:
        alloc(st)
    counts = vmem.census(st)
    assert counts["tag_pages"] == 1
    assert hands(st)[0] == 15  # 16, and one was used
    # vmem_metadata has 32 pages of the heap (2 tags) and gave one of them (1), vmem_seg imported it (2).
    assert hands(st)[3:5] == [13, 14]
    assert [(e - s) // PAGE for s, e, attr in vmem.ranges(st, 0) if attr == ATTR_WIRED] == [32]
    assert measure(st)[gauge.ENTRY_BYTES] == PAGE
    vmem.check(st, 0)


def test_a_page_of_tags_is_for_good_and_32_come_of_one_import():
    st = heap(8192)
    taken = [alloc(st) for _ in range(2500)]
    pages = vmem.census(st)["tag_pages"]
    assert pages > 32
    imports = [(s, e) for s, e, attr in vmem.ranges(st, 0) if attr == ATTR_WIRED]
    assert len(imports) == -(-pages // 32)
    for page in taken:
        free(st, page)
    assert vmem.census(st)["tag_pages"] == pages
    vmem.check(st, 0)


def test_no_tags_no_space():
    st = heap(160)
    while (page := alloc(st)) >= 0:
        pass
    assert page == NO_SPACE
    assert vmem.census(st)["populate_fails"] >= 1
    assert vmem.map_free_bytes(st, 0) > 0
    vmem.check(st, 0)


def test_many_maps_have_tags_of_boot_pages():
    st = heap(1024, maps=8, populators=10)
    for m in range(1, 8):
        vmem.add_map(st, m, alloc(st, 16, attr=ATTR_SINGLE) * PAGE, 16 * PAGE)
        assert alloc(st, 16, m=m) >= 0
        vmem.check(st, m)
    assert alloc(st, 1, m=7) == NO_SPACE
    with pytest.raises(ValueError, match="in use"):
        vmem.add_map(st, 1, 0, PAGE)


@pytest.mark.parametrize(
    "params",
    [{"strategy": 4}, {"qcache_max": 17}, {"qcache_max": -1}, {"populators": 2}, {"tag_bytes": 0}, {"firewall": 2}],
)
def test_impossible_parameters_are_refused(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        heap(64, **params)


# Against the naive twin.

sizes = hs.one_of(hs.integers(1, 4), hs.integers(1, 9), hs.integers(7, 70))
aligns = hs.sampled_from((1, 1, 1, 1, 2, 4, 8, 3))
special = (ATTR_WIRED | ATTR_METADATA, ATTR_WIRED | ATTR_OVERSIZE)
attrs = hs.sampled_from((ATTR_SINGLE, ATTR_WIRED, ATTR_WIRED, ATTR_WIRED, ATTR_PAGEABLE, *special))
programs = vmem_programs.programs(hs.sampled_from((0, 0, 1, 2)), sizes, aligns, attrs)
kinds = hs.fixed_dictionaries(
    {
        "strategy": hs.sampled_from(list(STRATEGIES)),
        "cached": hs.sampled_from((8, 8, 5, 0)),
        "populators": hs.sampled_from((3, 5, 8)),
        "apart": hs.booleans(),
    }
)


class Pair(vmem_programs.Pair):
    """The heap and its twin."""

    def __init__(self, strategy, cached, populators, pages=500, apart=False):
        places = {"metadata": int(apart), "firewall": int(apart)}
        st = heap(pages, 3, strategy=strategy, qcache_max=cached, populators=populators, **places)
        super().__init__(IN_PAGES, st, naive.Illumos(pages, (), STRATEGIES[strategy], cached, populators, apart))

    def check(self):
        counts, twin = vmem.census(self.st), self.twin
        assert (counts["tags_global"], counts["tag_pages"]) == (twin.spare, twin.pages)
        assert counts["populate_fails"] == twin.fails
        arenas = (*twin.maps, twin.kmem_va, twin.default, twin.metadata, twin.seg, twin.kmem_metadata)
        assert hands(self.st) == [a.hand for a in (*arenas, twin.msb, twin.oversize, twin.firewall)]
        for m in range(3):
            self.check_map(m, twin.walked(m))

    def measure(self, bins):
        for m in range(3):
            out = self.check_measures(m, bins, self.twin.maps[m].high)
            assert out[gauge.ENTRIES] == self.twin.entries(m)
            assert out[gauge.ENTRY_BYTES] == (self.twin.pages * PAGE if m == 0 else 0)


@vmem_programs.quick
@given(kind=kinds, program=programs, bins=hs.integers(1, 100))
def test_same_as_the_naive_vmem_step_by_step(kind, program, bins):
    pair = Pair(**kind)
    pair.play_step_by_step(program, bins)
    assert vmem.census(pair.st)["kmem_va_bytes"] == 0 or kind["strategy"] == NEXT
    assert vmem.census(pair.st)["kmem_metadata_bytes"] == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_as_the_naive_vmem_over_a_long_run(strategy):
    pair = Pair(strategy, 8, 3, pages=1500)
    pair.play_long(np.random.default_rng(strategy))
    pair.check()
    pair.measure(50)


def test_painting_a_map_of_no_size():
    assert IN_PAGES.painted(heap(4, maps=2), 1, 3) == [0, 0, 0]
