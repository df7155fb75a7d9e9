"""Lanes on the machine with a clock: latencies, determinism, rows for what fails, explanations."""

import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import kmemexp
from kmemexp.actions import explain
from kmemexp.boot import timed
from kmemexp.errors import ConfigError
from kmemexp.lane import latency, model, witness
from kmemexp.lane import simulate as lane
from kmemexp.lane.timed import advance, limit_ns
from kmemexp.metrics import INDEX, LATENCIES, LEAST_SAMPLES, NAMES, QUANTILES, TIMED
from kmemexp.sim import probes as a
from kmemexp.sim.engine import contexts as cx
from kmemexp.sim.engine import machine as mc
from kmemexp.workload.build import build

SMALL = ("workload=server2003", "workload.scale=0.02", "cost=opteron2003", "sample.points=4", "sample.snapshots=1")


def cell(*overrides: str) -> dict:
    (plan,) = kmemexp.plan([*SMALL, *overrides])
    return json.loads(plan.cells["config"].iloc[0])


def simulate(*overrides: str, replicas: tuple[int, ...] = (0,)) -> list[model.Lane]:
    return lane.simulate_lanes(cell(*overrides), replicas)


def metric(result: model.Lane, name: str) -> float:
    return float(result.metrics[INDEX[name]])


# Histograms.


@given(st.integers(0, 2**47))
def test_a_bucket_holds_its_durations_and_is_at_most_a_32nd_wide(ns: int) -> None:
    lower, upper = a.bucket_bounds()
    b = a.bucket_of(ns)
    assert lower[b] <= ns < upper[b]
    assert upper[b] - lower[b] <= max(1, lower[b] / 32)


def test_buckets_are_in_order_and_small_durations_are_exact() -> None:
    lower, upper = a.bucket_bounds()
    assert (upper[:-1] == lower[1:]).all()
    assert [latency.MIDDLE[a.bucket_of(ns)] for ns in range(64)] == list(range(64))


def test_a_quantile_without_enough_samples_is_not_given() -> None:
    hist = np.zeros(a.BUCKETS, np.int64)
    hist[a.bucket_of(10)] = 298
    assert math.isnan(latency.quantile(hist, 0.99, LEAST_SAMPLES["p99"]))
    hist[a.bucket_of(50)] = 1
    assert latency.quantile(hist, 0.99, LEAST_SAMPLES["p99"]) == 10
    assert latency.quantile(hist, 1.0, LEAST_SAMPLES["max"]) == 50
    assert math.isnan(latency.quantile(hist, 0.999, LEAST_SAMPLES["p999"]))


def test_the_least_samples_bound_their_quantile_with_95_percent() -> None:
    for q, n in LEAST_SAMPLES.items():
        if 0.5 < QUANTILES[q] < 1:
            assert 1 - QUANTILES[q] ** n >= 0.95 > 1 - QUANTILES[q] ** (n - 1)


# Lanes.


def test_a_lane_is_the_same_whatever_it_runs_beside_and_a_replica_is_another() -> None:
    alone = simulate("design=dragonfly_slab", replicas=(1,))[0]
    beside = simulate("design=dragonfly_slab", replicas=(0, 1))
    np.testing.assert_array_equal(alone.metrics, beside[1].metrics)
    np.testing.assert_array_equal(alone.series, beside[1].series)
    assert alone.latency == beside[1].latency
    assert not np.array_equal(alone.metrics, beside[0].metrics, equal_nan=True)


def test_every_design_meets_the_same_interrupts() -> None:
    rows = [{r[0]: r[1] for r in simulate(f"design={d}")[0].latency} for d in ("freebsd4", "dragonfly_slab")]
    for source in ("clock", "statclock", "disk", "serial"):
        counts = [row[f"irq_{source}_start"] for row in rows]
        assert abs(counts[0] - counts[1]) <= 2  # the runs end within a few interrupts of each other


def test_metrics_without_a_clock_are_nan_and_with_one_they_are_not() -> None:
    plain = simulate("cost=none")[0]
    clocked = simulate("design=dragonfly_slab")[0]
    names = [m.name for m in TIMED if m.group != "latency"]
    assert all(math.isnan(metric(plain, name)) for name in names)
    missing = {name for name in names if math.isnan(metric(clocked, name))}
    assert missing == {"free_pages_min_count"}  # memory is not limited here
    assert all(not math.isnan(metric(clocked, f"{n}_max_ns")) for n in LATENCIES if n != "lock_wait")
    assert set(NAMES) >= set(names)


def test_a_closed_load_says_how_much_gets_done() -> None:
    more = ["workload=kernel_loop", "workload.scale=0.2", "interrupts/sources=none", "design=dragonfly_slab",
            "machine.ram_bytes=1GiB", "machine.kva_bytes=1GiB"]  # fmt: skip
    rates = [metric(simulate(*more, f"machine.cpus={n}")[0], "throughput_hz") for n in (1, 4)]
    assert 2 < rates[1] / rates[0] <= 4.1


def test_a_closed_load_is_refused_without_a_clock() -> None:
    with pytest.raises(ConfigError, match="a closed load needs a clock"):
        kmemexp.plan(["workload=kernel_loop", "cost=none"])


def test_rates_of_devices_follow_interrupts_rate_hz_and_clocks_do_not() -> None:
    few, many = (
        {r[0]: r[1] for r in simulate(f"interrupts.rate_hz={hz}", "design=dragonfly_slab")[0].latency}
        for hz in (500, 2000)
    )
    assert 3.5 < many["irq_net_start"] / few["irq_net_start"] < 4.5
    assert many["irq_clock_start"] == pytest.approx(few["irq_clock_start"], abs=4)


def test_memory_that_runs_short_is_paged_out_and_never_below_the_interrupt_reserve() -> None:
    result = simulate("design=dragonfly_slab", "memory=era2003", "memory.user_ratio=0.93", "memory.fault_hz=200")[0]
    assert metric(result, "paged_out_count") > 0
    assert metric(result, "free_pages_min_count") >= 0
    assert metric(result, "deadlocks_count") == 0


def test_interrupts_of_a_recording_use_the_cpus_as_long_as_they_did_and_change_no_operation() -> None:
    words = ("workload=filetree", "workload.copies=1", "workload.window_s=0.2", "cost=zero", "interrupts/sources=none",
             "design=dragonfly_slab", "sample.points=2")  # fmt: skip
    (with_them,) = kmemexp.plan([*words, "workload.interrupts=true"])
    config = json.loads(with_them.cells["config"].iloc[0])
    load = build(config["workload"], cpus=2, seed=0, replicas=(0,))
    t = timed.boot(config, load.kinds, load.streams[0], 0, handlers=load.handlers[0])
    t = advance(t, limit_ns(config, load.streams[0]))
    spent = t.wired.table("cpus")[:, cx.C_TIME : cx.C_TIME + cx.T_COUNT].sum(axis=0)
    assert spent[cx.T_SOFT] + spent[cx.T_THREAD] == load.handlers[0].ns.sum() > 0
    assert int(t.wired.m[mc.G_LEFT]) == 0
    without = kmemexp.simulate(words).metrics.iloc[0]
    assert int(t.world.counters[a.A_OPS]) == without["operations_count"] == load.streams[0].length
    assert int(t.world.counters[a.A_ALLOCS]) > 0


# Explanations.


def test_a_deadlock_is_explained_by_its_members_and_the_events_before_it() -> None:
    config = json.loads(kmemexp.plan(["scenario=interrupted_holder"])[0].cells["config"].iloc[0])
    load = build(config["workload"], cpus=1, seed=0, replicas=(0,))
    t = timed.boot(config, load.kinds, load.streams[0], 0, log_rows=256)
    t = advance(t, limit_ns(config, load.streams[0]))
    first, second = witness.members(t.wired)
    assert (first["context"], first["state"], first["waits_for"]) == ("net", "blocked", "kernel_map (mainline)")
    assert (second["context"], second["holds"]) == ("mainline", "kernel_map")
    assert second["holds_since_ns"] <= first["since_ns"] == int(t.wired.m[mc.N_DEADLOCK_AT])
    lines = list(witness.timeline(t.wired, 6))
    assert lines[-1].endswith("closes the circle: DEADLOCK")
    assert any("net                  asks for kernel_map, which it holds itself" in line for line in lines)


def test_explain_prints_the_lane_of_a_plan() -> None:
    console = Console(record=True, width=150, file=io.StringIO())
    (plan,) = kmemexp.plan(["scenario=interrupted_holder", "store.root=memory://explain"])
    explain.explain_lane(plan, console)
    text = console.export_text()
    assert "deadlock at" in text
    assert "net on CPU 0, blocked" in text
    (two,) = kmemexp.plan(["scenario=interrupted_holder,sleeping_holder", "store.root=memory://explain"])
    with pytest.raises(ConfigError, match="cell: is not given; there are"):
        explain.explain_lane(two, console)
    (plain,) = kmemexp.plan(["store.root=memory://explain"])
    with pytest.raises(ConfigError, match="runs without a clock"):
        explain.explain_lane(plain, console)
