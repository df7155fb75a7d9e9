import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_fakes import check_conservation, kind, load, same

from kmemexp.errors import TraceError
from kmemexp.sim.tables import flag
from kmemexp.workload import build as front
from kmemexp.workload.check import check
from kmemexp.workload.traces import library, playing
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.interrupts import Interrupts

# Two handlers, the second of which ends after the window of half a second.
INTERRUPTS = Interrupts(
    time_ns=np.array([2000, 3000, 400_000_000, 600_000_000]), cpu=np.array([0, 0, 1, 1]),
    context=np.array([sc.HARDIRQ, sc.HARDIRQ, sc.SOFTIRQ, sc.SOFTIRQ]),
    op=np.array([sc.IRQ_ENTER, sc.IRQ_EXIT, sc.IRQ_ENTER, sc.IRQ_EXIT]),
)  # fmt: skip


@pytest.fixture(scope="module")
def trace():
    """A two-CPU recording of two seconds."""
    return front.build(load({"object": kind(remote=0.5)}), cpus=2, seed=9, replicas=[0])


@pytest.fixture(scope="module", autouse=True)
def one_trace(trace):
    """A library that holds this one trace."""
    kinds, (stream,) = trace[:2]
    recording = playing.Recording(kinds, stream, INTERRUPTS, origin_ns=1000)

    def path_of(name):
        if name != "one":
            raise TraceError(f"there is no trace {name!r}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "load", lambda name: recording)
        patch.setattr(library, "describe", lambda name: {"ops": stream.length, "cpus": 2, "seconds": 2.0})
        patch.setattr(library, "path_of", path_of)
        yield


def workload(**changes):
    return {
        "name": "test", "source": "trace", "trace": "one", "copies": 2, "shift_s": 0.5, "window_s": 0.0,
    } | changes  # fmt: skip


def build(replicas=(0,), cpus=4, **changes):
    return front.build(workload(**changes), cpus=cpus, seed=0, replicas=replicas).streams


def copy_of(stream, trace, j):
    """The operations of copy j, as a stream of its own."""
    mine = stream.slot // trace.slots == j
    part = stream.rows(mine)
    return part._replace(slot=part.slot - j * trace.slots, slots=trace.slots)


def test_one_copy_is_the_trace_itself(trace):
    streams = build(replicas=[0, 1, 7], copies=1)
    assert len(streams) == 3
    assert all(same(stream, trace.streams[0]) for stream in streams)


@settings(max_examples=20)
@given(copies=st.integers(2, 5), cpus=st.integers(1, 8), replica=st.integers(0, 100))
def test_each_copy_is_the_trace_shifted_in_time_cpu_and_slot(trace, copies, cpus, replica):
    (stream,) = build([replica], cpus, copies=copies)
    original = trace.streams[0]
    assert stream.length == copies * original.length
    assert stream.slots == copies * original.slots
    check_conservation(stream)
    for j in range(copies):
        part = copy_of(stream, original, j)
        assert same(part, original, but=("time_ns", "cpu"))
        shift = part.time_ns - original.time_ns
        assert np.all(shift == shift[0])
        assert 0 <= shift[0] < 0.5e9
        assert j > 0 or shift[0] == 0
        assert np.array_equal(part.cpu, (original.cpu + 2 * j) % cpus)


@pytest.mark.parametrize("window_s", [0.001, 0.4, 1.7, 10.0])
def test_window_keeps_what_happens_before_it(window_s):
    (whole,) = build(copies=3)
    (part,) = build(copies=3, window_s=window_s)
    n = int(np.searchsorted(whole.time_ns, window_s * 1e9))
    assert same(part, whole.rows(slice(n)))


def test_without_shift_the_lower_copy_comes_first(trace):
    (stream,) = build(shift_s=0.0)
    assert np.array_equal(stream.slot // trace.streams[0].slots, np.tile([0, 1], trace.streams[0].length))


@pytest.mark.parametrize(("window_s", "seen"), [(0.0, 4), (0.3, 2)])
def test_each_copy_brings_its_interrupts(window_s, seen):
    made = front.build(workload(shift_s=0.0, interrupts=True, window_s=window_s), cpus=3, seed=0, replicas=[0, 1])
    assert len(made.handlers) == 2
    for handlers in made.handlers:
        assert handlers.time_ns.tolist() == [1000, 1000, 399_999_000, 399_999_000][:seen]
        assert handlers.cpu.tolist() == [0, 2, 1, 0][:seen]  # a copy takes two CPUs: the second one has 2 and 0
        assert handlers.flags.tolist() == [flag.HARD, flag.HARD, flag.SOFT, flag.SOFT][:seen]
        assert handlers.ns.tolist() == [1000, 1000, 200_000_000, 200_000_000][:seen]


def test_lanes_differ_by_replica_and_not_by_batch():
    batch = build(replicas=[4, 9])
    assert same(batch[1], build(replicas=[9])[0])
    assert not np.array_equal(batch[0].time_ns, batch[1].time_ns)


def test_shifts_are_uniform():
    starts = [copy_start(stream) for stream in build(replicas=range(300), window_s=0.6)]
    assert np.mean(starts) == pytest.approx(0.25e9, rel=4 / np.sqrt(12 * 300) * 2)
    assert max(starts) < 0.52e9


def copy_start(stream):
    """When the second copy makes its first allocation."""
    return stream.time_ns[np.argmax(stream.slot >= stream.slots // 2)]


@pytest.mark.parametrize(("copies", "window_s"), [(1, 0.0), (2, 0.0), (3, 1.0)])
def test_estimate_agrees_with_what_is_built(copies, window_s):
    config = workload(copies=copies, window_s=window_s)
    counts = [s.length for s in build(replicas=range(50), copies=copies, window_s=window_s)]
    assert front.estimate(config) == pytest.approx(np.mean(counts), rel=0.1)


def test_a_good_config_passes():
    check(workload())


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"copies": 0}, "workload.copies"),
        ({"copies": 1.5}, "workload.copies"),
        ({"shift_s": -1.0}, "workload.shift_s"),
        ({"window_s": "long"}, "workload.window_s"),
        ({"trace": "two"}, "'two'"),
        ({"trace": ""}, "workload.trace"),
        ({"speed": 2}, "workload.speed"),
    ],
)
def test_mistakes_are_named(changes, key):
    with pytest.raises(ValueError, match=key):
        check(workload(**changes))
