"""Sorted lists of slabs: where a slab is linked, what the walk costs, and that their allocators lose nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h

from kmemexp import testing
from kmemexp.sim.allocators._shared.slab_order import FULLEST, LOWEST, NIL, insert
from kmemexp.sim.tables import regs

NEXT, PREV, ROOM = COLUMNS = 2, 0, 1
MANY = 12


@settings(max_examples=200)
@given(h.lists(h.tuples(h.integers(0, MANY - 1), h.integers(1, 5)), max_size=60), h.sampled_from([LOWEST, FULLEST]))
def test_a_list_stays_sorted_while_slabs_come_and_gain_free_objects(program, order):
    table, reg = np.full((MANY, 3), NIL, np.int32), np.zeros((1, regs.COLUMNS), np.int64)
    head, listed = NIL, []
    for slab, gain in program:
        before, after = NIL, head
        at = 0
        if slab in listed:
            at = listed.index(slab)
            before, after = table[slab, PREV], table[slab, NEXT]
            if after != NIL:
                table[after, PREV] = before
            if before == NIL:
                head = after
            else:
                table[before, NEXT] = after
            listed.remove(slab)
        table[slab, ROOM] += gain
        reg[0, regs.WORK] = 0
        if insert(reg, 0, table, COLUMNS, order, slab, int(before), int(after)) == NIL:
            head = slab
        listed.append(slab)
        listed.sort(key=lambda a: (table[a, ROOM] * (order == FULLEST), a))
        assert _followed(table, int(head)) == listed
        assert reg[0, regs.WORK] == listed.index(slab) - at


def _followed(table: np.ndarray, head: int) -> list[int]:
    """Members of the list, which is followed both ways."""
    found, before = [], NIL
    while head != NIL:
        assert table[head, PREV] == before
        found.append(head)
        before, head = head, int(table[head, NEXT])
    return found


@pytest.mark.parametrize("order", [LOWEST, FULLEST])
@pytest.mark.parametrize(
    ("allocator", "params"),
    [
        ("dfly_slab", {"reap": 1, "release_threshold": 0, "free_unmaps": 1}),
        ("dfly_slab_2020", {"reap": 1}),
        ("uma", {"eager_release": 1, "bucketdisable": 1, "generation": 2}),
        ("uma", {"eager_release": 1, "nofree": 1, "generation": 0}),
        ("uma_today", {"reap": 2}),
    ],
)
def test_interleaved_operations_lose_nothing(allocator, params, order):
    testing.check_allocator(
        allocator, params=params | {"slab_order": order}, kva_bytes=2 << 20, operations=800, seeds=(3,)
    )
