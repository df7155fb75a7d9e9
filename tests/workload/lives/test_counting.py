"""SLUB's counts: the worked examples of the rules."""

import numpy as np
import pytest

from kmemexp.workload.lives import counting


def cache(ops, cps, min_partial, *, sheaf=0, old=(), cpus=2):
    """A cache with old slabs (free slots, CPU whose slab it is or -1)."""
    free, cpu = (np.array(column) for column in zip(*old, strict=True)) if old else (np.zeros(0), np.zeros(0))
    start = counting.Old(free.astype(np.int32), cpu.astype(np.int16))
    return counting.slubs(start, 64, cpus, (ops, cps, min_partial, sheaf))


def play(st, *operations):
    """Operations as (op, item) on CPU 0, or (op, item, cpu)."""
    op, item, cpu = (np.array(c, np.int64) for c in zip(*((*o, 0)[:3] for o in operations), strict=True))
    counting.replay(st, op.astype(np.int8), item, cpu.astype(np.int16), np.zeros(64, np.int32))
    return st.counts[counting.SLABS], counting.active(st)


def allocs(n):
    return [(counting.ALLOC, i) for i in range(n)]


def frees(*items):
    return [(counting.FREE, i) for i in items]


def old_frees(*slabs):
    return [(counting.FREE_OLD, s) for s in slabs]


@pytest.mark.parametrize(
    ("min_partial", "freed", "slabs", "active"), [(0, range(12), 2, 8), (5, range(12), 4, 8), (0, (0, 4, 8), 4, 14)]
)
def test_empty_slabs_go_when_a_stack_is_full(min_partial, freed, slabs, active):
    st = cache(4, 2, min_partial)
    assert play(st, *allocs(16), *frees(*freed)) == (slabs, active)
    assert st.counts[counting.PEAK] == 4


@pytest.mark.parametrize(("n", "slabs"), [(2, 2), (3, 3)])
def test_free_slots_of_old_slabs_come_first(n, slabs):
    assert play(cache(4, 2, 5, old=((2, -1), (0, -1))), *allocs(n))[0] == slabs


@pytest.mark.parametrize(("old", "slabs"), [(((7, -1), (7, -1)), 3), (((7, 0), (7, 1)), 2)])
def test_a_cpu_takes_more_from_the_list_than_it_needs(old, slabs):
    assert play(cache(8, 2, 5, old=old), (counting.ALLOC, 0, 0), (counting.ALLOC, 1, 1))[0] == slabs


@pytest.mark.parametrize(("min_partial", "slabs"), [(0, 1), (5, 2)])
def test_an_empty_slab_on_the_list_goes_if_there_are_enough(min_partial, slabs):
    assert play(cache(4, 2, min_partial, old=((2, -1), (1, -1))), *old_frees(0, 0)) == (slabs, 3)


def test_sheaves_hold_what_was_freed():
    assert play(cache(4, 2, 5, sheaf=4), *allocs(1)) == (1, 4)
    assert play(cache(4, 2, 5, sheaf=4), *allocs(5)) == (2, 8)
    assert play(cache(4, 2, 5, sheaf=4), *allocs(5), *frees(*range(5))) == (2, 8)
