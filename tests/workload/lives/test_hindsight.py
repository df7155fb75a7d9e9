"""The start of a recording by hindsight, and what counts after it say: the worked examples of the rules."""

import numpy as np
import pytest

from kmemexp.workload.lives import before, counting, hindsight, reconcile
from kmemexp.workload.lives.history import Window
from kmemexp.workload.lives.reconcile import Ended, Lived, Operations
from kmemexp.workload.lives.snapshots import Cache, Count
from kmemexp.workload.traces import schema as sc

A, F = sc.ALLOC, sc.UNMATCHED_FREE
P, Q, R = 10, 11, 12  # page frames


def touched(*events, order=0):
    """Events as (op, frame, slot) on CPU 0, or (op, frame, slot, cpu)."""
    op, frame, slot, cpu = (np.array(c, np.int64) for c in zip(*((*e, 0)[:4] for e in events), strict=True))
    slab = np.zeros(len(op), np.int32)
    return hindsight.touched(
        op.astype(np.int8), cpu.astype(np.int16), slab, frame * 4096 + slot * 64 + 64, frame, np.array([order], np.int8)
    )


def cache(per_slab=4, sheaf=0):
    return Cache(1024, per_slab, 0, 5, 2, sheaf)


def test_a_slab_that_was_used_up_held_what_was_never_seen():
    found = touched((A, P, 0), (A, P, 2), (A, Q, 0), (F, P, 1))
    start = hindsight.start(found, 0, cache(), Count(5, 8, 2, exact=False), (None, None))
    assert found.base[start.touched].tolist() == [P, Q]
    assert start.free.tolist() == [2, 1]  # P: a and c were free, b and d were not; of three free slots one is left in Q
    assert start.cpu.tolist() == [0, -1]
    assert found.slab_of.tolist() == [-1, -1, -1, 0]
    op = np.array([counting.ALLOC, counting.ALLOC, counting.ALLOC, counting.FREE_OLD], np.int8)
    done = Operations(np.arange(4), op, np.array([0, 1, 2, 0]), np.zeros(4, np.int16))
    assert reconcile.count(done, start, cache(), 1, 3).slabs == 2


def test_slabs_that_nobody_touched_share_the_free_slots_that_are_left():
    found = touched((F, P, 0))
    start = hindsight.start(found, 0, cache(), Count(9, 12, 3, exact=False), (None, None))
    assert start.free.tolist() == [0, 2, 1]


def test_a_new_slab_is_not_taken_for_an_old_one():
    found = touched((A, P, 0), (A, P, 1), (A, P, 2), (A, P, 3), (A, Q, 0))
    start = hindsight.start(found, 0, cache(), Count(0, 0, 0, exact=False), (None, None))
    assert start.free.tolist() == []


def test_a_map_of_slab_pages_says_which_are_old():
    found = touched((A, P, 0), (F, Q, 0), (A, R, 0))
    first, after = np.zeros(20, np.uint8), np.zeros(20, np.uint8)
    first[[P, R]], after[P] = 1, 1
    count = Count(6, 8, 2, exact=True)
    alone = hindsight.start(found, 0, cache(), count, (first, None))
    assert found.base[alone.touched].tolist() == [P, R]
    assert alone.free.tolist() == [1, 1]
    both = hindsight.start(found, 0, cache(), count, (first, after))
    assert both.free.tolist() == [1, 4]  # R is gone: nothing was in it


def test_page_events_say_which_slabs_are_new():
    events = (sc.PAGE_ALLOC, Q, 0), (A, Q, 0), (A, P, 0), (F, R, 1), (sc.PAGE_ALLOC, P, 0), (A, R, 2)
    count = Count(5, 8, 2, exact=True)
    found, without = touched(*events), touched(*(e for e in events if e[0] != sc.PAGE_ALLOC))
    told = hindsight.start(found, 0, cache(sheaf=4), count, (None, None))
    assert found.base[told.touched].tolist() == [P, R]  # P was taken anew after its first use: it was there
    assert told.free.tolist() == [1, 1]
    guess = hindsight.start(without, 0, cache(sheaf=4), count, (None, None))
    assert without.base[guess.touched].tolist() == [Q, R]
    few = hindsight.start(found, 0, cache(), Count(1, 4, 1, exact=True), (None, None))
    assert found.base[few.touched].tolist() == [P]  # no more than there were


def lived(n):
    """Lives of one cache, born at each of the first events of a hundred."""
    nothing = np.zeros(0, np.int64)
    born = np.arange(n)
    return Lived(
        np.arange(100) * 1000, np.zeros(100, np.int16), np.zeros(n, np.int32), born, np.full(n, -1), nothing, nothing,
        nothing,
    )  # fmt: skip


@pytest.mark.parametrize(("active", "births", "deaths"), [(60, 0, 20), (90, 0, 0), (140, 60, 0)])
def test_counts_after_say_what_is_lacking(active, births, deaths):
    """Five slabs full of sixteen: active 80."""
    known, window = lived(80), Window(0, 100)
    no_death = Ended(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int16))
    (done,) = reconcile.operations(known, window, no_death, 1)
    start = hindsight.Start(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int16))
    still = Ended(np.arange(80), np.full(80, 99_000), np.zeros(80, np.int16))
    after = Count(active, 0, 0, exact=True)
    said = reconcile.reconcile(done, start, cache(16), after, still, known, window, np.arange(1))
    assert said.births == births
    assert abs(said.result.active - active) <= 16
    assert len(said.ended) >= deaths
    assert bool(len(said.ended)) == bool(deaths)


def test_births_that_left_no_event_are_on_cpus_that_have_events():
    put = reconcile.unseen_births(5, Window(10, 60), np.array([0, 7], np.int16), 30)
    assert put.cpu.tolist() == [0, 7, 0, 7, 0]
    assert put.key.tolist() == [30, 50, 70, 90, 110]
    assert put.item.tolist() == [30, 31, 32, 33, 34]


@pytest.mark.parametrize(("active", "slabs"), [(95, 10), (101, 11), (121, 13)])
def test_counting_alone_adds_slabs_for_what_does_not_fit(active, slabs):
    assert before.plain(Count(80, 100, 10, exact=True), Count(active, 0, 0, exact=True), 10) == slabs


def test_deaths_stand_between_events_and_behind_their_births():
    known = lived(10)
    put = reconcile.deaths(known, Ended(np.array([3, 9]), np.array([5000, 0]), np.zeros(2, np.int16)))
    assert put.key.tolist() == [12, 20]
    assert isinstance(put, Operations)
