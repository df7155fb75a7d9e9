"""Best fit on an index by size against a naive twin, and by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from kmemexp.sim.arenas import sequential, size_index
from kmemexp.sim.slots import NO_SPACE, PAGE
from tests.sim.in_pages import InPages

IN_PAGES = InPages(size_index)
alloc, free = IN_PAGES.alloc, IN_PAGES.free
PAGES = 400  # beyond what has a bin of its own


def arena(pages=PAGES, maps=2, **params):
    return size_index.init(size_index.Params(**params), kva_bytes=pages * PAGE, cpus=1, maps=maps)


STEP = hs.tuples(hs.integers(1, 90), hs.sampled_from([1, 1, 2, 8, 16]), hs.integers(0, 2), hs.integers(0, 99))


@settings(max_examples=80)
@given(hs.lists(STEP, max_size=80))
def test_the_same_places_as_a_search_of_all_holes(program):
    state = arena(looks=PAGES)
    other = sequential.init(sequential.Params(policy=sequential.BEST_FIT), kva_bytes=PAGES * PAGE, cpus=1, maps=2)
    live = []
    for pages, align, frees, which in program:
        if frees == 0 and live:
            page, length = live.pop(which % len(live))
            first = page + which % length  # any part of what is allocated may be freed
            free(state, first, page + length - first)
            assert sequential.map_free(other, 0, first * PAGE, (page + length - first) * PAGE, 0) == 0
            if first > page:
                live.append((page, first - page))
        else:
            there = sequential.map_alloc(other, 0, pages * PAGE, align * PAGE, 0, 0)
            page = alloc(state, pages, align)
            assert page == (there // PAGE if there >= 0 else there)
            if page >= 0:
                live.append((page, pages))
        size_index.check(state, 0)
    IN_PAGES.check_holes(state, 0, [(end - start) // PAGE for start, end in sequential.holes(other, 0)])
    for page, length in live:
        free(state, page, length)
    assert size_index.holes(state, 0) == [(0, PAGES * PAGE)]


def cut_up(state, odd, count):
    """Fill a map with pairs of ranges and free the odd pages of each pair: `count` holes of `odd` pages."""
    first = [alloc(state, odd + 1) for _ in range(count)]
    for page in first:
        free(state, page, odd)
    return first


def test_a_free_merges_on_both_sides_but_not_with_a_submap_next_to_it():
    state = arena(32)
    assert [alloc(state, 8) for _ in range(4)] == [0, 8, 16, 24]
    size_index.add_map(state, 1, 16 * PAGE, 8 * PAGE)
    free(state, 24, 8)
    free(state, 0, 8)
    free(state, 8, 8)
    assert size_index.holes(state, 0) == [(0, 16 * PAGE), (24 * PAGE, 32 * PAGE)]
    assert size_index.holes(state, 1) == [(16 * PAGE, 24 * PAGE)]
    for m in (0, 1):
        size_index.check(state, m)


def test_after_so_many_looks_an_aligned_request_takes_a_hole_with_room_for_any_offset():
    """Holes of 4 pages at pages 1, 6, 11, 16, …: the first that has 4 pages at a multiple of 4 is that at 16."""
    for looks, want in ((3, 64), (4, 16)):
        state = arena(128, looks=looks)
        alloc(state, 1)
        cut_up(state, 4, 5)
        alloc(state, 38)
        assert size_index.holes(state, 0)[:1] == [(1 * PAGE, 5 * PAGE)]
        assert alloc(state, 4, 4) == want, looks


def test_where_no_hole_has_room_for_any_offset_it_goes_on_looking():
    state = arena(32, looks=1)
    alloc(state, 1)
    cut_up(state, 4, 5)
    alloc(state, 6)
    assert alloc(state, 4, 4) == 16
    assert alloc(state, 4, 4) == NO_SPACE


@pytest.mark.parametrize("count", [100, 10_000])
def test_a_search_passes_some_logarithm_of_the_holes(count):
    """A treap of n nodes is at most about 4.3 ln n deep (Devroye 1986); both operations go down a few times."""
    state = arena(4 * count + 8)
    cut_up(state, 1, count)
    before = size_index.map_walked(state, 0)
    page = alloc(state, 1)
    free(state, page, 1)
    assert size_index.map_walked(state, 0) - before < 4 * 4.3 * 2.303 * len(str(count))


def test_pictures_and_measures():
    state = arena(64)
    first = cut_up(state, 3, 8)
    taken = IN_PAGES.measure(state)
    assert first == [4 * k for k in range(8)]
    IN_PAGES.check_holes(state, 0, [3] * 8 + [32])
    assert taken[-1] >= 0
    assert size_index.census(state)["holes"] == 9


def test_a_look_at_least():
    with pytest.raises(ValueError, match="looks"):
        arena(looks=0)
