"""Frees that wait for a grace period: when they come, and that nothing else changes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as h

from kmemexp.sim.items import CALL_RCU, KFREE_RCU, Traits
from kmemexp.workload import rcu
from kmemexp.workload import stream as form

MS = 1_000_000


def test_a_free_by_itself_waits_for_a_whole_grace_period():
    assert rcu.after_grace(np.array([0, 1, 19, 20, 21]) * MS).tolist() == [40 * MS] * 3 + [60 * MS] * 2


def test_a_batch_goes_five_seconds_after_its_first_or_a_tick_after_a_page_is_full():
    slow = np.array([0, 1000, 4999, 5001, 9000]) * MS
    assert rcu.drained(slow).tolist() == [5040 * MS] * 3 + [10_040 * MS] * 2
    fast = np.arange(1200) * MS  # the 507th at 506 ms, so at 510 ms 511 of them go
    at = rcu.drained(fast)
    assert np.unique(at, return_counts=True)[1].tolist() == [511, 511, 178]
    assert at[[0, 511]].tolist() == [540 * MS, 1060 * MS]


def test_a_sheaf_goes_when_it_is_full():
    at = rcu.filled(np.arange(70) * MS, 32)
    assert at[0] == at[31] == 60 * MS
    assert at[32] == at[63] == 100 * MS
    assert at[64] > 10**17


def load(times: list[int], ends: list[int], kinds: list[int], traits: list[Traits]) -> form.Load:
    n = len(times)
    none = np.zeros(len(traits), np.int32)
    time_ns, op = np.array([*times, *ends]), np.repeat([form.OP_ALLOC, form.OP_FREE], n)
    order = np.lexsort((np.tile(np.arange(n), 2), op, time_ns))
    slot, kind = np.tile(np.arange(n), 2), np.tile(kinds, 2)
    columns = (time_ns, op.astype(np.uint8), kind.astype(np.int16), slot.astype(np.int32), 64 * (op == form.OP_ALLOC),
               slot % 2, np.zeros(2 * n, np.uint8))  # fmt: skip
    stream = form.stream_of((column[order] for column in columns), n)
    names = tuple(f"k{i}" for i in range(len(traits)))
    return form.Load(form.Kinds(names, none.astype(np.int8), none, none, none, tuple(traits)), (stream,))


WAYS = [Traits(), Traits(free=CALL_RCU), Traits(free=KFREE_RCU), Traits(free=KFREE_RCU, sheaf=3)]
objects = h.lists(h.tuples(h.integers(0, 30_000), h.integers(1, 9000), h.integers(0, 3)), min_size=1, max_size=60)


@given(objects)
def test_births_stay_and_each_object_dies_once_after_its_birth_and_not_too_early(drawn):
    times, lives, kinds = zip(*drawn, strict=True)
    given_ns = [t * MS for t in times]
    before = load(given_ns, [(t + d) * MS for t, d in zip(times, lives, strict=True)], list(kinds), WAYS)
    after = rcu.delayed(before).streams[0]
    stream = before.streams[0]
    assert (np.diff(after.time_ns) >= 0).all()
    assert after.time_ns[-1] <= stream.time_ns[-1]
    births = [s.time_ns[s.op == form.OP_ALLOC].tolist() for s in (stream, after)]
    assert births[0] == births[1]
    live: dict[int, int] = {}
    for op, kind, slot, time_ns in zip(
        *(c.tolist() for c in (after.op, after.kind, after.slot, after.time_ns)), strict=True
    ):
        if op == form.OP_ALLOC:
            assert slot not in live
            live[slot] = time_ns
        else:
            assert time_ns > live.pop(slot)
            assert not kind or time_ns % rcu.GRACE_NS == 0
    assert after.slots >= len(drawn)


def test_recorded_frees_and_those_at_once_stay_where_they_are():
    same = load([0, 5], [7, 9], [0, 0], WAYS)
    assert rcu.delayed(same).streams[0].time_ns.tolist() == same.streams[0].time_ns.tolist()
    recorded = load([0, 5], [7, 9], [1, 2], WAYS)
    recorded = recorded._replace(kinds=recorded.kinds._replace(recorded=True))
    assert rcu.delayed(recorded) is recorded
