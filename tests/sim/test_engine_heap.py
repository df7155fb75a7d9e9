"""The heap of events: the earliest is first, whatever was set in which order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kmemexp.jit import entry
from kmemexp.sim.engine import heap
from kmemexp.sim.engine.tables import ctx, glob

ITEMS = 9
HEAP = glob.COLUMNS
FIRST = HEAP + ITEMS * heap.COLUMNS
SETTINGS = st.tuples(st.integers(0, ITEMS - 1), st.integers(0, 6), st.integers(0, 3))


def made() -> np.ndarray:
    """A machine that has nothing but timers, none of them set."""
    m = np.zeros(FIRST + ITEMS * ctx.COLUMNS, np.int64)
    m[glob.TIMER_HEAP], m[glob.CONTEXTS] = HEAP, ITEMS
    for n in range(ITEMS):
        x, row = FIRST + n * ctx.COLUMNS, HEAP + n * heap.COLUMNS
        m[x + heap.KEY], m[x + heap.POS] = heap.NEVER, n
        m[row + heap.KEY], m[row + heap.ITEM] = heap.NEVER, x
    return m


@given(st.lists(SETTINGS, max_size=40))
def test_the_earliest_is_first_and_every_row_says_what_its_item_says(settings):
    m, keys = made(), [(heap.NEVER, 0)] * ITEMS
    for number, key, tie in settings:
        entry(heap.alarm)(m, FIRST + number * ctx.COLUMNS, key, tie)
        keys[number] = key, tie
        rows = m[HEAP:FIRST].reshape(ITEMS, heap.COLUMNS)
        assert tuple(rows[0, [heap.KEY, heap.TIE]]) == min(keys)
        assert sorted(rows[:, heap.ITEM]) == [FIRST + n * ctx.COLUMNS for n in range(ITEMS)]
        for n, row in enumerate(rows):
            item = row[heap.ITEM]
            assert m[item + heap.POS] == n
            assert (m[item + heap.KEY], m[item + heap.TIE]) == (row[heap.KEY], row[heap.TIE])
            assert (row[heap.KEY], row[heap.TIE]) == keys[(item - FIRST) // ctx.COLUMNS]
