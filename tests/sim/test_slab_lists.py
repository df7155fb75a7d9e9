"""Lists of slabs beside a Python list: slabs come, go, and gain free objects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h

from kmemexp.sim.allocators._shared.slab_lists import enter, gained, leave, members, push, unlink
from kmemexp.sim.allocators._shared.slab_order import FULLEST, LOWEST, NIL, OWN
from kmemexp.sim.tables import regs

NEXT, PREV, ROOM = COLUMNS = 2, 0, 1
MANY = 12

slabs = h.integers(0, MANY - 1)


def rank(table: np.ndarray, order: int, slab: int) -> tuple[int, int]:
    return (table[slab, ROOM] if order == FULLEST else 0, slab)


@settings(max_examples=100, deadline=None)
@given(
    h.lists(h.tuples(h.sampled_from(["come or go", "gain"]), slabs), max_size=50),
    h.sampled_from([OWN, LOWEST, FULLEST]),
)
def test_a_list_holds_what_was_entered_in_its_order(program, order):
    table, reg = np.full((MANY, 3), NIL, np.int32), np.zeros((1, regs.COLUMNS), np.int64)
    first, listed = NIL, []
    for what, slab in program:
        if what == "come or go" and slab in listed:
            first = leave(table, COLUMNS, slab, first)
            listed.remove(slab)
        elif what == "come or go":
            first = enter(reg, 0, table, COLUMNS, order, slab, first)
            listed.insert(0, slab)
        elif slab in listed:
            table[slab, ROOM] += 1
            first = gained(reg, 0, table, COLUMNS, order, slab, first)
        if order != OWN:
            listed.sort(key=lambda a: rank(table, order, a))
        assert members(np.array([first]), table[:, NEXT]) == listed
        assert [table[slab, PREV] for slab in listed] == [NIL, *listed][: len(listed)]


@pytest.mark.parametrize(("slab", "neighbours"), [(0, (1, NIL)), (1, (2, 0)), (2, (NIL, 1))])
def test_a_slab_that_leaves_names_its_neighbours(slab, neighbours):
    table = np.full((MANY, 3), NIL, np.int32)
    for k in range(3):
        push(table, COLUMNS, k, k - 1)  # 2, 1, 0
    assert unlink(table, COLUMNS, slab) == neighbours


def test_members_of_several_lists():
    assert members(np.array([2, NIL, 0]), np.array([NIL, 4, 1, NIL, NIL])) == [2, 1, 4, 0]
