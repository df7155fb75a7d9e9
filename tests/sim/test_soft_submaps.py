"""Soft submaps by hand, and against submaps that are carved out: they never refuse what those serve."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from kmemexp.sim.arenas import sequential, soft_submaps
from kmemexp.sim.maps import BUFFER, CLEAN, EXEC, KERNEL, MAP_NAMES, MB, PAGER
from kmemexp.sim.slots import ATTR_SINGLE, NO_SPACE, PAGE
from kmemexp.sim.tables import gauge
from tests.sim.in_pages import InPages

IN_PAGES = InPages(soft_submaps)
alloc, free = IN_PAGES.alloc, IN_PAGES.free
SLOT = 32  # pages


def arena(module, pages, carved, **params):
    """Map with submaps, (map, pages, map that it lies in), taken and added as boot does."""
    state = module.init(module.Params(**params), kva_bytes=pages * PAGE, cpus=1, maps=len(MAP_NAMES))
    for m, size, parent in carved:
        base = module.map_alloc(state, parent, size * PAGE, PAGE, ATTR_SINGLE, 0)
        module.add_map(state, m, base, size * PAGE)
    return state


def soft(slots, carved, **params):
    return arena(soft_submaps, slots * SLOT, carved, **params)


def check(state):
    for m in range(len(MAP_NAMES)):
        soft_submaps.check(state, m)


def counts(state):
    found = soft_submaps.census(state)
    return found["free_slots"], found["promised_slots"]


# Pages that each consumer asks for, always the same; None: of any size, and without a guarantee.
ASKS = {BUFFER: 4, PAGER: 32, EXEC: 17, MB: 1, KERNEL: None}
STEP = hs.tuples(hs.sampled_from([*ASKS, KERNEL]), hs.integers(0, 2), hs.integers(1, 80), hs.integers(0, 999))
SIZES = hs.tuples(*[hs.integers(1, 4)] * 2, hs.integers(1, 5), hs.integers(1, 40))


@settings(max_examples=60)
@given(SIZES, hs.integers(0, 6), hs.lists(STEP, max_size=120), hs.integers(0, 1))
def test_what_a_carved_out_map_serves_its_guarantee_serves(sizes, spare, program, near):
    """Live requests are the same in both: what only one of them serves is given back at once."""
    buffers, pagers, execs, mbufs = sizes
    clean = buffers * 20 + pagers * SLOT
    carved = [(CLEAN, clean, KERNEL), (BUFFER, buffers * 20, CLEAN), (PAGER, pagers * SLOT, CLEAN),
              (EXEC, execs * 19, KERNEL), (MB, mbufs, KERNEL)]  # fmt: skip
    slots = 16 + spare
    mine = arena(soft_submaps, slots * SLOT, carved, near=near, superpage_bytes=4 * SLOT * PAGE)
    twin = arena(sequential, slots * SLOT, carved)
    live = {m: [] for m in ASKS}
    for m, frees, any_size, which in program:
        if frees == 0 and live[m]:
            here, there, pages = live[m].pop(which % len(live[m]))
            free(mine, here, pages, m)
            sequential.map_free(twin, m, there * PAGE, pages * PAGE, 0)
        else:
            pages = ASKS[m] or any_size
            here = alloc(mine, pages, m=m)
            there = sequential.map_alloc(twin, m, pages * PAGE, PAGE, 0, 0)
            assert here >= 0 or there < 0 or m == KERNEL, f"{MAP_NAMES[m]} refused"
            if here >= 0 and there >= 0:
                live[m].append((here, there // PAGE, pages))
            elif here >= 0:
                free(mine, here, pages, m)
            elif there >= 0:
                sequential.map_free(twin, m, there, pages * PAGE, 0)
        check(mine)
    taken = sorted((here, here + pages) for held in live.values() for here, _, pages in held)
    assert all(a[1] <= b[0] for a, b in pairwise(taken))
    for m, held in live.items():
        for here, _, pages in held:
            free(mine, here, pages, m)
    assert soft_submaps.holes(mine, KERNEL) == [(0, slots * SLOT * PAGE)]
    check(mine)


def test_boot_takes_nothing_but_promises_it():
    state = soft(8, [(CLEAN, 80, KERNEL), (BUFFER, 48, CLEAN), (PAGER, 32, CLEAN), (EXEC, 38, KERNEL)])
    assert soft_submaps.holes(state, KERNEL) == [(0, 8 * SLOT * PAGE)]
    # Two slots for the 48 pages of buffers, one for the pager, two for the two requests of exec (17 pages each).
    assert counts(state) == (8, 5)
    totals = IN_PAGES.measure(state)
    assert (totals[gauge.KEPT], totals[gauge.PROMISED]) == (8 * SLOT * PAGE, 5 * SLOT * PAGE)
    check(state)


def test_what_is_general_leaves_the_slots_that_are_promised():
    state = soft(4, [(PAGER, 3 * SLOT, KERNEL)])
    assert alloc(state, 8) == 0
    assert alloc(state, SLOT) == NO_SPACE
    assert alloc(state, SLOT - 8) == 8  # what is left of the slot that is broken anyway
    assert [alloc(state, SLOT, m=PAGER) for _ in range(4)] == [96, 64, 32, NO_SPACE]
    free(state, 0, 1)
    assert alloc(state, 1) == 0
    check(state)


def test_a_superpage_goes_to_who_asks_as_long_as_other_slots_keep_the_promise():
    """Holes of a slot between what is held keep a guarantee: as a submap it would lie in what is whole."""
    state = soft(10, [(BUFFER, 2 * SLOT, KERNEL)])
    held = [alloc(state, SLOT) for _ in range(4)]
    for page in held[::2]:
        free(state, page, SLOT)
    assert counts(state) == (8, 2)
    assert alloc(state, 6 * SLOT) == 4 * SLOT
    assert alloc(state, SLOT) == NO_SPACE
    assert sorted(alloc(state, SLOT, m=BUFFER) for _ in range(2)) == held[::2]
    check(state)


def test_pieces_share_a_slot_and_an_empty_one_goes_back():
    state = soft(4, [(BUFFER, SLOT, KERNEL)])
    pages = [alloc(state, 4, m=BUFFER) for _ in range(8)]
    assert pages == [96 + 4 * k for k in range(8)]
    assert alloc(state, 4, m=BUFFER) == NO_SPACE
    free(state, pages[3], 4, BUFFER)
    free(state, pages[4], 4, BUFFER)
    assert alloc(state, 8, m=BUFFER) == pages[3]
    free(state, pages[3], 8, BUFFER)
    for page in (*pages[:3], *pages[5:]):
        free(state, page, 4, BUFFER)
    assert counts(state) == (4, 1)
    check(state)


def test_a_limit_beyond_the_guarantee_is_served_where_no_other_promise_needs_the_slot():
    state = soft(4, [(BUFFER, SLOT, KERNEL), (PAGER, SLOT, KERNEL)], limit_percent=300)
    assert [alloc(state, SLOT, m=BUFFER) for _ in range(4)] == [96, 64, 32, NO_SPACE]
    assert alloc(state, SLOT, m=PAGER) == 0


def test_what_is_lent_for_good_is_lacking_when_its_owner_asks():
    state = soft(4, [(PAGER, 4 * SLOT, KERNEL)], lend_percent=50)
    assert [alloc(state, SLOT) for _ in range(3)] == [0, 32, NO_SPACE]
    assert [alloc(state, SLOT, m=PAGER) for _ in range(3)] == [96, 64, NO_SPACE]


def test_a_request_larger_than_a_slot_counts_all_slots_that_it_breaks():
    state = soft(8, [(BUFFER, 3 * SLOT, KERNEL)])
    page = alloc(state, SLOT + 1, m=BUFFER)
    assert page == 0
    assert counts(state) == (6, 1)
    free(state, page, SLOT + 1, BUFFER)
    assert counts(state) == (8, 3)
    assert alloc(state, 4 * SLOT, m=BUFFER) == NO_SPACE


def test_alignment_inside_a_slot():
    state = soft(4, [(BUFFER, 2 * SLOT, KERNEL)])
    assert alloc(state, 1, m=BUFFER) == 96
    assert alloc(state, 8, 8, m=BUFFER) == 104
    assert alloc(state, 16, 16, m=BUFFER) == 112
    assert alloc(state, 8, 16, m=BUFFER) == 64
    check(state)


@pytest.mark.parametrize(
    ("held", "far", "near"),
    [
        (4, 7, 1),  # of two superpages of four slots the lower one is in use: the slot beside what is held
        (4 * SLOT, 7, 7),  # what is free begins with a superpage: both ends would open one
        (5 * SLOT, 7, 7),  # the hole lies in a superpage that is in use
    ],
)
def test_a_slot_lies_where_it_opens_no_superpage(held, far, near):
    for how, want in ((0, far), (1, near)):
        state = soft(8, [(BUFFER, SLOT, KERNEL)], near=how, superpage_bytes=4 * SLOT * PAGE)
        alloc(state, held)
        assert alloc(state, 4, m=BUFFER) == want * SLOT
        check(state)


def test_zones_that_set_kva_aside_keep_a_guarantee():
    state = soft(8, [], zones_percent=25)
    assert soft_submaps.set_aside(state, "kernel image", 5 * PAGE) == 5 * PAGE
    assert soft_submaps.set_aside(state, "PV ENTRY", 100 * PAGE) == 25 * PAGE
    assert counts(state) == (8, 3)  # 75 pages
    assert alloc(state, 5 * SLOT) == 0
    assert alloc(state, SLOT) == NO_SPACE
    check(state)
    with pytest.raises(ValueError, match="640 KiB more"):
        soft_submaps.set_aside(state, "SWAPMETA", 200 * PAGE)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"slot_bytes": 96 << 10}, "slot_bytes"),
        ({"limit_percent": 99}, "limit_percent"),
        ({"looks": 0}, "looks"),
        ({"near": 2}, "near"),
        ({"zones_percent": 0}, "zones_percent"),
        ({"superpage_bytes": 192 << 10}, "superpage_bytes"),
    ],
)
def test_impossible_parameters(params, named):
    with pytest.raises(ValueError, match=named):
        soft(4, [], **params)


def test_guarantees_that_are_more_than_there_is():
    with pytest.raises(ValueError, match="128 KiB more"):
        arena(soft_submaps, SLOT + 16, [(BUFFER, SLOT + 1, KERNEL)])
