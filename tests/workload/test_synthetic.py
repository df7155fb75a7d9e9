import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_fakes import allocs, check_conservation, kind, lifetimes_ns, load, pairs, same

from kmemexp.sim.tables import flag
from kmemexp.workload import stream as form
from kmemexp.workload.build import build, estimate
from kmemexp.workload.check import check

LIFETIMES = st.sampled_from(
    [
        {"law": "exponential", "mean_s": 0.2},
        {"law": "fixed", "seconds": 0.25},
        {"law": "fixed", "seconds": 1e-12},
        {"law": "hyperexponential", "means_s": [1e-6, 5.0], "weights": [1, 1]},
        {"law": "lognormal", "median_s": 0.1, "sigma": 3.0},
        {"law": "permanent"},
    ]
)
KINDS = st.builds(
    kind,
    rate_hz=st.floats(0.0, 200.0),
    start=st.integers(0, 20),
    lifetime=LIFETIMES,
    nowait=st.floats(0.0, 1.0),
    soft=st.floats(0.0, 1.0),
    remote=st.floats(0.0, 1.0),
)
MIXED = load(
    {
        "a": kind(start=30, nowait=0.4, soft=0.2, remote=0.3),
        "b": kind(rate_hz=50.0, size={"law": "uniform", "low_bytes": 1, "high_bytes": 4096}),
        "c": kind(rate_hz=10.0, lifetime={"law": "permanent"}),
    }
)


def lane(workload, *, cpus=2, seed=0, replica=0):
    return build(workload, cpus=cpus, seed=seed, replicas=[replica]).streams[0]


@settings(max_examples=60)
@given(
    kinds=st.dictionaries(st.text("abc", min_size=1), KINDS, min_size=1, max_size=4),
    cpus=st.integers(1, 5),
    replicas=st.lists(st.integers(0, 50), max_size=4),
)
def test_every_free_has_its_allocation_and_slots_are_exclusive(kinds, cpus, replicas):
    workload = load(kinds)
    check(workload)
    made = build(workload, cpus=cpus, seed=1, replicas=replicas)
    assert len(made.streams) == len(replicas)
    for stream in made.streams:
        check_conservation(stream)
        assert stream.length == 0 or stream.time_ns[-1] < 2e9
        assert np.all((stream.cpu >= 0) & (stream.cpu < cpus))


@settings(max_examples=20)
@given(replicas=st.lists(st.integers(0, 1000), min_size=1, max_size=5))
def test_a_lane_is_the_same_alone_and_in_any_batch(replicas):
    batch = build(MIXED, cpus=2, seed=3, replicas=replicas).streams
    assert all(same(stream, lane(MIXED, seed=3, replica=r)) for stream, r in zip(batch, replicas, strict=True))


def test_replicas_and_seeds_differ():
    first = lane(MIXED)
    assert not np.array_equal(first.time_ns, lane(MIXED, replica=1).time_ns)
    assert not np.array_equal(first.time_ns, lane(MIXED, seed=1).time_ns)


@pytest.mark.parametrize("cpus", [1, 3, 64])
def test_only_the_cpus_depend_on_the_number_of_cpus(cpus):
    assert same(lane(MIXED, cpus=2), lane(MIXED, cpus=cpus), but=("cpu",))


def test_the_order_in_which_kinds_are_written_does_not_matter():
    turned = MIXED | {"kinds": dict(reversed(MIXED["kinds"].items()))}
    assert same(lane(MIXED), lane(turned))
    assert build(turned, cpus=2, seed=0, replicas=[]).kinds.names == ("a", "b", "c")


def test_columns_have_the_agreed_types():
    stream = lane(MIXED)
    types = {name: column.dtype.name for name, column in stream._asdict().items() if name != "slots"}
    assert types == {
        "time_ns": "int64", "op": "uint8", "kind": "int16", "slot": "int32", "size": "int32", "cpu": "int16",
        "flags": "uint8",
    }  # fmt: skip


def test_the_slot_freed_last_is_used_first():
    stream = lane(load({"object": kind(rate_hz=2000.0)}))
    spare, used = [], 0
    for op, slot in zip(stream.op, stream.slot, strict=True):
        if op == form.OP_FREE:
            spare.append(slot)
        elif spare:
            assert slot == spare.pop()
        else:
            assert slot == used
            used += 1
    assert stream.slots == used


def test_at_equal_times_frees_come_first():
    stream = lane(load({"object": kind(rate_hz=20000.0, lifetime={"law": "fixed", "seconds": 1e-12})}, duration_s=0.01))
    assert np.all(lifetimes_ns(stream) == 1)  # the shortest life there is
    tied = np.diff(stream.time_ns) == 0
    assert not np.any(tied & (stream.op[:-1] == form.OP_ALLOC) & (stream.op[1:] == form.OP_FREE))


def test_lifetimes_and_sizes_reach_the_stream():
    size = {"law": "uniform", "low_bytes": 100, "high_bytes": 200}
    fixed = {"law": "fixed", "seconds": 0.25}
    stream = lane(load({"object": kind(rate_hz=5000.0, size=size, lifetime=fixed)}))
    assert np.all(lifetimes_ns(stream) == 250_000_000)
    assert stream.size[allocs(stream)].mean() == pytest.approx(150, abs=4 * 29.15 / np.sqrt(10_000))


def test_phases_change_the_rate():
    phases = [
        {"name": "boot", "seconds": 10.0, "level": 0.5, "once": True},
        {"name": "spike", "seconds": 20.0, "level": 1.0, "groups": {"hot": 4.0}},
        {"name": "night", "seconds": 10.0, "level": 0.0},
    ]
    kinds = {"cold": kind(), "hot": kind(group="hot")}
    stream = lane(load(kinds, phases=phases, duration_s=85.0))
    edges = np.array([0, 10, 30, 40, 60, 70, 85]) * 10**9  # boot, spike, night, spike, night, most of a spike
    for number, spike in ((0, 100), (1, 400)):
        times = stream.time_ns[allocs(stream) & (stream.kind == number)]
        counts, _ = np.histogram(times, edges)
        expected = np.array([50 * 10, spike * 20, 0, spike * 20, 0, spike * 15])
        assert np.all(np.abs(counts - expected) <= 4 * np.sqrt(expected))


def test_the_phases_once_are_the_whole_run_where_no_duration_is_given():
    phases = [{"name": "a", "seconds": 1.0, "level": 1.0}, {"name": "b", "seconds": 2.0, "level": 1.0}]
    assert 2.9e9 < lane(load(phases=phases, duration_s=0.0)).time_ns[-1] < 3e9


def test_start_objects_come_in_the_first_phase_and_stay():
    phases = [{"name": "boot", "seconds": 0.5, "level": 0.0}, {"name": "run", "seconds": 1.5, "level": 0.0}]
    stream = lane(load({"object": kind(start=300)}, phases=phases, scale=2.0))
    assert stream.length == stream.slots == 600
    assert np.all(stream.op == form.OP_ALLOC)
    assert stream.time_ns[-1] < 0.5e9


def test_scale_multiplies_rates():
    assert lane(load(scale=50.0)).length == pytest.approx(50 * estimate(load()), rel=0.05)


def test_contexts_and_cpus_have_the_shares_told():
    kinds = {"object": kind(rate_hz=50_000.0, nowait=0.4, soft=0.3, remote=0.2)}
    stream = lane(load(kinds), cpus=4)
    alloc = allocs(stream)
    assert np.mean(stream.flags[alloc] & flag.NOWAIT > 0) == pytest.approx(0.4, abs=0.01)
    assert np.mean(stream.flags[alloc] & flag.SOFT > 0) == pytest.approx(0.3, abs=0.01)
    # What is in a soft interrupt is among what cannot sleep.
    assert not np.any(stream.flags[alloc] == flag.SOFT)
    assert np.mean(stream.flags[~alloc] == flag.SOFT) == pytest.approx(0.3, abs=0.01)
    free, born = pairs(stream)
    assert np.mean(stream.cpu[free] != stream.cpu[born]) == pytest.approx(0.2, abs=0.01)
    distance = (stream.cpu[free].astype(int) - stream.cpu[born]) % 4
    assert np.bincount(distance)[1:] / len(free) == pytest.approx([0.2 / 3] * 3, abs=0.01)
    assert np.bincount(stream.cpu[alloc]) / alloc.sum() == pytest.approx([0.25] * 4, abs=0.01)


def test_kinds_table():
    kinds = {
        "tcpcb": kind(**{"class": "zone", "size": {"law": "fixed", "bytes": 548}, "growth": 1, "limit": 8232}),
        "uarea": kind(**{"class": "kva_wired", "size": {"law": "fixed", "bytes": 12288}}),
    }
    table = build(load(kinds), cpus=1, seed=0, replicas=[]).kinds
    assert table.names == ("tcpcb", "uarea")
    assert table.klass.tolist() == [form.ZONE, form.KVA_WIRED]
    assert table.size.tolist() == [548, 12288]
    assert table.growth.tolist() == [1, 0]
    assert table.limit.tolist() == [8232, 0]


@pytest.mark.parametrize(
    "lifetime",
    [
        {"law": "exponential", "mean_s": 0.7},
        {"law": "hyperexponential", "means_s": [0.1, 3.0], "weights": [0.6, 0.4]},
        {"law": "lognormal", "median_s": 0.5, "sigma": 1.5},
        {"law": "fixed", "seconds": 1.4},
        {"law": "permanent"},
    ],
    ids=lambda law: law["law"],
)
def test_estimate_agrees_with_what_is_built(lifetime):
    phases = [{"name": "a", "seconds": 0.5, "level": 3.0}, {"name": "b", "seconds": 0.9, "level": 0.2}]
    workload = load({"object": kind(lifetime=lifetime, start=50)}, phases=phases)
    counts = [s.length for s in build(workload, cpus=1, seed=0, replicas=range(400)).streams]
    assert np.mean(counts) == pytest.approx(estimate(workload), abs=0.6 + 4 * np.std(counts) / 20)


def test_estimating_and_checking_load_no_compiler():
    code = (
        "import sys; from kmemexp.workload.build import estimate; from kmemexp.workload.check import check;"
        f"w = {MIXED!r}; check(w); estimate(w); assert not {{'numba', 'scipy', 'pandas', 'hydra'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Bundles.


def bundle(**changes):
    """A bundle of an `a` and two of `b` that live as long as it does."""
    plain = {
        "rate_hz": 20.0,
        "lifetime": {"law": "exponential", "mean_s": 0.2},
        "members": [{"kind": "a"}, {"kind": "b", "count": 2}],
    }
    return plain | changes


def bundled(*members, kinds=None, **changes):
    """A load of bundles alone."""
    rows = {"a": kind(rate_hz=0.0), "b": kind(rate_hz=0.0)} | (kinds or {})
    changes |= {"members": list(members)} if members else {}
    return load(rows, bundles={"both": bundle(**changes)})


def test_members_of_a_bundle_are_born_and_die_together_on_its_cpus():
    stream = lane(bundled(remote=0.5), cpus=4)
    free, alloc = pairs(stream)
    fates = {}
    for f, a in zip(free, alloc, strict=True):
        fate = (stream.time_ns[a], stream.time_ns[f], stream.cpu[a], stream.cpu[f])
        fates.setdefault(fate, []).append(int(stream.kind[a]))
    assert len(fates) > 15
    assert set(map(tuple, map(sorted, fates.values()))) == {(0, 1, 1)}
    assert len({(a, f) for _, _, a, f in fates}) > 4, "some are freed elsewhere"


def test_a_member_may_come_later_and_go_sooner_or_later_than_its_bundle():
    fixed = {"law": "fixed", "seconds": 0.5}
    members = (
        {"kind": "a", "born": [0.2, 0.2], "waits_s": [0.1, 0.1]},  # 0.2 s after the bundle's birth, 0.3 s long
        {"kind": "b", "dies": [0.0, 0.0], "lingers_s": [0.02, 0.03]},
        {"kind": "c", "lingers_s": [0.25, 0.25]},
    )
    stream = lane(bundled(*members, kinds={"c": kind(rate_hz=0.0)}, lifetime=fixed))
    spans = {
        name: (lifetimes_ns(stream)[stream.kind[pairs(stream)[1]] == k] / 1e9) for k, name in enumerate(("a", "b", "c"))
    }
    assert spans["a"] == pytest.approx(np.full(len(spans["a"]), 0.3))
    assert ((spans["b"] >= 0.02) & (spans["b"] <= 0.03)).all()
    assert spans["c"] == pytest.approx(np.full(len(spans["c"]), 0.75))
    born = {k: stream.time_ns[allocs(stream) & (stream.kind == k)] for k in range(3)}
    assert (born[0] - born[2][: len(born[0])] == 200_000_000).all()


def test_bundles_leave_what_arrives_alone_as_it_was():
    alone = {"a": kind(), "b": kind(rate_hz=7.0)}
    plain, more = lane(load(alone)), lane(load(alone, bundles={"both": bundle()}))
    times = set(more.time_ns.tolist())
    assert set(plain.time_ns.tolist()) < times
    assert more.length > plain.length + 60


def test_the_estimate_counts_bundles():
    workload = bundled({"kind": "a", "count": 3, "dies": [0.5, 0.5], "lingers_s": [0.1, 0.1]}, rate_hz=2000.0)
    check(workload)
    assert lane(workload).length == pytest.approx(estimate(workload), rel=0.03)
