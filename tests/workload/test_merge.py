"""The compiled merge against one in plain Python."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kmemexp.workload import merge

HORIZON = 60


def expected(lane, low):
    """Operations of a lane of (start, life) pairs; the object's row stands in `size` and `kind`."""
    events = [(start, 1, start, low + i) for i, (start, _) in enumerate(lane)]
    events += [(start + life, 0, start, low + i) for i, (start, life) in enumerate(lane) if start + life < HORIZON]
    spare, slot, used, rows = [], {}, 0, []
    for time, is_alloc, _, i in sorted(events):
        if is_alloc:
            slot[i] = spare.pop() if spare else used
            used += slot[i] == used
        else:
            spare.append(slot[i])
        rows.append(
            (time, 1 - is_alloc, i, slot[i], i + 1 if is_alloc else 0, i if is_alloc else -i, 2 if is_alloc else 4)
        )
    return rows, used


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, HORIZON - 1), st.integers(1, 50)), max_size=30), min_size=1, max_size=4)
)
def test_interleave_agrees_with_a_sort_in_python(lanes):
    first = np.cumsum([0] + [len(lane) for lane in lanes])
    start = np.array([s for lane in lanes for s, _ in lane], np.int64)
    life = np.array([x for lane in lanes for _, x in lane], np.int64)
    row = np.arange(len(start))
    objects = merge.Objects(
        start_ns=start, end_ns=start + life, kind=row.astype(np.int16), size=(row + 1).astype(np.int32),
        cpu=row.astype(np.int16), free_cpu=(-row).astype(np.int16), flags=np.full(len(row), 2, np.uint8),
        free_flags=np.full(len(row), 4, np.uint8),
    )  # fmt: skip
    streams = merge.operations(objects, first, HORIZON)
    assert len(streams) == len(lanes)
    for stream, lane, low in zip(streams, lanes, first, strict=False):
        rows, used = expected(lane, low)
        assert list(zip(*(column.tolist() for column in stream[:-1]), strict=True)) == rows
        assert stream.slots == used


def test_times_of_a_century_are_sorted():
    century = 3_155_760_000 * 10**9
    start = np.random.default_rng(0).integers(0, century, 5000)
    one = np.ones(len(start), np.int16)
    objects = merge.Objects(start, np.full(len(start), century), one, one.astype(np.int32), one, one,
                            one.astype(np.uint8), one.astype(np.uint8))  # fmt: skip
    (stream,) = merge.operations(objects, np.array([0, len(start)]), century)
    assert np.array_equal(stream.time_ns, np.sort(start))
    assert stream.slot.tolist() == list(range(len(start)))
