"""Two-ended fit against a naive twin, and by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmemexp.sim.arenas import sequential, two_ended
from kmemexp.sim.slots import ATTR_NOFREE, ATTR_PAGEABLE, ATTR_SINGLE, ATTR_WIRED, NO_SPACE, PAGE

PAGES = 64
ATTRS = (ATTR_SINGLE, ATTR_WIRED, ATTR_PAGEABLE, ATTR_WIRED | ATTR_NOFREE, ATTR_PAGEABLE | ATTR_NOFREE)


def arena(**params):
    return two_ended.init(two_ended.Params(**params), kva_bytes=PAGES * PAGE, cpus=1, maps=2)


def take(state, pages, align=1, attr=ATTR_WIRED):
    addr = two_ended.map_alloc(state, 0, pages * PAGE, align * PAGE, attr, 0)
    return addr if addr < 0 else addr // PAGE


def give(state, page, pages):
    assert two_ended.map_free(state, 0, page * PAGE, pages * PAGE, 0) == 0


class Naive:
    """A set of free pages; every place is tried."""

    def __init__(self, apart, fit):
        self.apart, self.fit, self.free = apart, fit, set(range(PAGES))

    def runs(self):
        found = []
        for page in sorted(self.free):
            if found and found[-1][1] == page:
                found[-1][1] = page + 1
            else:
                found.append([page, page + 1])
        return found

    def take(self, pages, align, attr):
        kept = attr & ATTR_NOFREE and attr & 3 == ATTR_PAGEABLE
        top = (
            attr & 3 != ATTR_SINGLE and not kept and {0: False, 1: align == 1, 2: attr & 3 == ATTR_PAGEABLE}[self.apart]
        )
        places = []
        for low, high in self.runs():
            fitting = [p for p in range(low, high - pages + 1) if p % align == 0]
            if fitting:
                places.append(
                    (high - low if self.fit else 0, -low if top else low, max(fitting) if top else min(fitting))
                )
        if not places:
            return NO_SPACE
        page = min(places)[2]
        self.free -= set(range(page, page + pages))
        return page


ALIGNMENTS = st.sampled_from([1, 2, 4, 8])
STEP = st.tuples(st.integers(1, 9), ALIGNMENTS, st.sampled_from(ATTRS), st.booleans(), st.integers(0, 99))


@settings(max_examples=150)
@given(st.integers(0, 2), st.integers(0, 1), st.lists(STEP, max_size=60))
def test_the_same_pages_as_a_naive_twin(apart, fit, program):
    state, naive, live = arena(apart=apart, fit=fit), Naive(apart, fit), []
    for pages, align, attr, frees, which in program:
        if frees and live:
            page, length = live.pop(which % len(live))
            give(state, page, length)
            naive.free |= set(range(page, page + length))
        else:
            page = take(state, pages, align, attr)
            assert page == naive.take(pages, align, attr)
            if page >= 0:
                live.append((page, pages))
        two_ended.check(state, 0)
        assert two_ended.map_free_bytes(state, 0) == len(naive.free) * PAGE
    for page, length in live:
        give(state, page, length)
    assert two_ended.holes(state, 0) == [(0, PAGES * PAGE)]


@settings(max_examples=60)
@given(st.integers(0, 1), st.lists(STEP, max_size=40))
def test_with_nothing_apart_it_is_sequential_fit(fit, program):
    state = arena(apart=two_ended.TOGETHER, fit=fit)
    other = sequential.init(sequential.Params(policy=fit), kva_bytes=PAGES * PAGE, cpus=1, maps=2)
    live = []
    for pages, align, attr, frees, which in program:
        if frees and live:
            page, length = live.pop(which % len(live))
            give(state, page, length)
            sequential.map_free(other, 0, page * PAGE, length * PAGE, 0)
            continue
        page = take(state, pages, align, attr)
        there = sequential.map_alloc(other, 0, pages * PAGE, align * PAGE, attr, 0)
        assert page == (there // PAGE if there >= 0 else there)
        if page >= 0:
            live.append((page, pages))


def test_aligned_blocks_leave_no_slivers_among_themselves():
    state = arena(apart=two_ended.BY_ALIGNMENT)
    blocks = [take(state, 8, 8) for _ in range(3)]
    odd = [take(state, 3) for _ in range(2)]
    assert (blocks, odd) == ([0, 8, 16], [61, 58])
    give(state, blocks[1], 8)
    assert take(state, 8, 8) == 8


def test_first_fit_mixes_them_and_pays_for_alignment():
    state = arena(apart=two_ended.TOGETHER)
    assert [take(state, 8, 8), take(state, 3), take(state, 8, 8)] == [0, 8, 16]
    assert len(two_ended.holes(state, 0)) == 2


def test_what_somebody_maps_for_himself_comes_from_the_top_unless_it_was_set_aside_at_boot():
    state = arena(apart=two_ended.BY_USE)
    kept = ATTR_PAGEABLE | ATTR_NOFREE
    assert [take(state, 2, attr=a) for a in (ATTR_WIRED, ATTR_PAGEABLE, ATTR_SINGLE, kept)] == [0, 62, 2, 4]


def test_a_map_without_a_hole_refuses():
    state = arena()
    assert take(state, PAGES, 8) == 0
    assert take(state, 1) == NO_SPACE


@pytest.mark.parametrize("params", [{"apart": 3}, {"fit": 2}])
def test_unknown_parameters_are_refused(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        arena(**params)
