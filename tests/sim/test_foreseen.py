"""Placement that knows the future: by hand, and against what it promises of random programs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from kmemexp.sim.arenas import foreseen
from kmemexp.sim.arenas.foreseen.state import GREEDY, LONGEST_FIRST
from kmemexp.sim.slots import NO_SPACE, PAGE
from tests.sim.in_pages import InPages

IN_PAGES = InPages(foreseen)
alloc, free = IN_PAGES.alloc, IN_PAGES.free
SUPERPAGE = 8  # pages
PAGES = 64


def arena(plan, pages=PAGES, rehearsed=None, **params):
    params = {"plan": plan, "requests": 500, "superpage_bytes": SUPERPAGE * PAGE} | params
    state = foreseen.init(foreseen.Params(**params), kva_bytes=pages * PAGE, cpus=1, maps=2)
    if rehearsed is not None:
        foreseen.foresee(state, rehearsed)
    return state


def play(state, program):
    """Play (name, pages) that is taken, or (name, 0) that goes back; returns where each was put."""
    at, size, found = {}, {}, []
    for name, pages in program:
        if pages:
            at[name], size[name] = alloc(state, pages), pages
            found.append(at[name])
        elif at[name] >= 0:
            free(state, at.pop(name), size[name])
        foreseen.check(state, 0)
    return found


def twice(plan, program, **params):
    first = arena(plan, **params)
    before = play(first, program)
    again = arena(plan, rehearsed=first, **params)
    return before, play(again, program), again


# b and c stay, a goes, then d. First fit lets b begin beside a.
MIXED = [("a", 4), ("b", 6), ("c", 2), ("d", 2), ("a", 0), ("d", 0)]


@pytest.mark.parametrize(
    ("plan", "places"),
    [
        (GREEDY, [0, 8, 14, 4]),  # b leaves a's superpage alone; c goes to b's, d to a's, which are in use
        (LONGEST_FIRST, [6, 0, 10, 12]),  # b chooses first, then a, then c, which lives as long, then d
    ],
)
def test_what_dies_together_lies_together(plan, places):
    before, after, state = twice(plan, MIXED)
    assert before == [0, 4, 10, 12]  # first fit
    assert after == places
    assert foreseen.differs(state) == ""


def test_a_program_that_is_not_the_rehearsed_one_is_told():
    first = arena(GREEDY)
    play(first, MIXED)
    other = arena(GREEDY, rehearsed=first)
    play(other, [("a", 4), ("b", 5)])
    assert foreseen.differs(other) == (
        f"request 1: {5 * PAGE} bytes of map 0 after 1 map calls, where its rehearsal had asked for {6 * PAGE} bytes "
        "of map 0 after 1 map calls; nothing is foreseen"
    )


def test_room_that_the_rehearsal_had_and_longest_first_has_not_is_told():
    program = [
        ("a", 4),
        ("b", 1),
        ("a", 0),
        ("c", 4),
        ("b", 0),
        ("d", 4),
    ]
    before, after, state = twice(LONGEST_FIRST, program, pages=8)
    assert min(before) >= 0
    assert after[-1] == NO_SPACE
    assert "request 3" in foreseen.differs(state)
    assert "found room in one of them only" in foreseen.differs(state)


def test_more_requests_than_can_be_written_down_are_refused():
    first = arena(GREEDY, requests=2)
    play(first, MIXED)
    with pytest.raises(ValueError, match="requests=2: the rehearsal has more"):
        arena(GREEDY, requests=2, rehearsed=first)


@pytest.mark.parametrize(
    ("params", "message"),
    [({"plan": 2}, "plan is 2"), ({"superpage_bytes": 5000}, "superpage_bytes, requests are 5000")],
)
def test_impossible_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        arena(**({"plan": 0} | params))


STEP = hs.tuples(hs.integers(1, 9), hs.integers(0, 99))


@settings(max_examples=60)
@given(
    hs.sampled_from([GREEDY, LONGEST_FIRST]), hs.lists(hs.tuples(hs.integers(1, 9), hs.integers(0, 99)), max_size=40)
)
def test_every_request_of_the_rehearsal_has_a_place_of_its_own(plan, steps):
    program, live = [], []
    for n, (pages, which) in enumerate(steps):
        program.append((n, pages))
        live.append(n)
        if which % 3 < 2:
            program.append((live.pop(which % len(live)), 0))
    before, after, state = twice(plan, program, pages=512)
    assert all(place >= 0 for place in before)
    assert len(before) == len(after)  # that no two overlap, `check` and the holes say at each step
    assert foreseen.differs(state) == ""
    held = {name: pages for name, pages in program if pages}
    gone = {name for name, pages in program if not pages}
    assert foreseen.used(state, 0) == PAGE * sum(pages for name, pages in held.items() if name not in gone)
    assert np.asarray(after).max(initial=0) < 512
