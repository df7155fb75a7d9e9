"""Lanes on the machine with a clock: what is measured, determinism, interrupts, memory that runs short."""

import json
import math

import numpy as np
import pytest

from kmemexp import api
from kmemexp.errors import ConfigError
from kmemexp.lane import latency, model, runaway, simulate_lanes
from kmemexp.lane.replica import prepare
from kmemexp.lane.timed import booted, run_out
from kmemexp.metrics import INDEX, LATENCIES, NAMES, TIMED
from kmemexp.sim.engine.tables import cpu, glob
from kmemexp.sim.tables import tally

SMALL = ("workload=server2003", "workload.scale=0.02", "cost=opteron2003", "sample.points=4", "sample.snapshots=1")


def cell(*overrides: str) -> dict:
    (plan,) = api.plan([*SMALL, *overrides])
    return json.loads(plan.cells["config"].iloc[0])


def simulate(*overrides: str, replicas: tuple[int, ...] = (0,)) -> list[model.Lane]:
    return simulate_lanes(cell(*overrides), replicas)


def metric(result: model.Lane, name: str) -> float:
    return float(result.metrics[INDEX[name]])


def test_a_lane_is_the_same_whatever_it_runs_beside_and_a_replica_is_another() -> None:
    alone = simulate("design=mail2003_bare", replicas=(1,))[0]
    beside = simulate("design=mail2003_bare", replicas=(0, 1))
    np.testing.assert_array_equal(alone.metrics, beside[1].metrics)
    np.testing.assert_array_equal(alone.series, beside[1].series)
    assert alone.latency == beside[1].latency
    assert not np.array_equal(alone.metrics, beside[0].metrics, equal_nan=True)


def test_every_design_meets_the_same_interrupts() -> None:
    rows = [{r[0]: r[1] for r in simulate(f"design={d}")[0].latency} for d in ("freebsd4", "mail2003_bare")]
    for source in ("clock", "statclock", "disk", "serial"):
        counts = [row[f"irq_{source}_start"] for row in rows]
        assert abs(counts[0] - counts[1]) <= 2  # the runs end within a few interrupts of each other


def test_metrics_without_a_clock_are_nan_and_with_one_they_are_not() -> None:
    plain = simulate("cost=none")[0]
    clocked = simulate("design=mail2003_bare")[0]
    names = [m.name for m in TIMED if m.group != "latency"]
    assert all(math.isnan(metric(plain, name)) for name in names)
    missing = {name for name in names if math.isnan(metric(clocked, name))}
    assert missing == {"free_pages_min_count"}  # memory is not limited here
    assert all(not math.isnan(metric(clocked, f"{n}_max_ns")) for n in LATENCIES if n != "lock_wait")
    assert set(NAMES) >= set(names)


def test_a_closed_load_says_how_much_gets_done() -> None:
    more = ["workload=kernel_loop", "workload.scale=0.2", "interrupts/sources=none", "design=mail2003_bare",
            "machine.ram_bytes=1GiB", "machine.kva_bytes=1GiB"]  # fmt: skip
    rates = [metric(simulate(*more, f"machine.cpus={n}")[0], "throughput_hz") for n in (1, 4)]
    assert 2 < rates[1] / rates[0] <= 4.1


def test_an_operation_that_takes_too_many_steps_ends_the_lane() -> None:
    config = cell("design=mail2003_bare")
    (plain,), (same,) = (simulate_lanes(c, [0]) for c in (config, config | {"limits": {"steps_per_operation": 200}}))
    np.testing.assert_array_equal(plain.metrics, same.metrics)
    says = r"(operation \d+ .*|an operation of an .*) took more than limits.steps_per_operation=1 steps"
    with pytest.raises(runaway.RunawayError, match=says):
        simulate_lanes(config | {"limits": {"steps_per_operation": 1}}, [0])


def test_a_closed_load_is_refused_without_a_clock() -> None:
    with pytest.raises(ConfigError, match="a closed load needs a clock"):
        api.plan(["workload=kernel_loop", "cost=none"])


def test_rates_of_devices_follow_interrupts_rate_hz_and_clocks_do_not() -> None:
    few, many = (
        {r[0]: r[1] for r in simulate(f"interrupts.rate_hz={hz}", "design=mail2003_bare")[0].latency}
        for hz in (500, 2000)
    )
    assert 3.5 < many["irq_net_start"] / few["irq_net_start"] < 4.5
    assert many["irq_clock_start"] == pytest.approx(few["irq_clock_start"], abs=4)


def test_memory_that_runs_short_is_paged_out_and_never_below_the_interrupt_reserve() -> None:
    result = simulate("design=mail2003_bare", "memory=era2003", "memory.user_ratio=0.93", "memory.fault_hz=200")[0]
    assert metric(result, "paged_out_count") > 0
    assert metric(result, "free_pages_min_count") >= 0
    assert metric(result, "deadlocks_count") == 0


def test_interrupts_of_a_recording_use_the_cpus_as_long_as_they_did_and_change_no_operation() -> None:
    words = ("workload=filetree", "workload.copies=1", "workload.window_s=0.2", "cost=zero", "interrupts/sources=none",
             "design=mail2003_bare", "sample.points=2")  # fmt: skip
    (with_them,) = api.plan([*words, "workload.interrupts=true"])
    config = json.loads(with_them.cells["config"].iloc[0])
    (replica,) = prepare(config, (0,))
    t = run_out(booted(replica), replica)
    spent = latency.spent_ns(t.wired)
    assert replica.handlers is not None
    assert spent[cpu.TIME_SOFT] + spent[cpu.TIME_THREAD] == replica.handlers.ns.sum() > 0
    assert int(t.wired.m[glob.LEFT]) == 0
    without = api.simulate(words).metrics.iloc[0]
    assert int(t.world.counters[tally.OPS]) == without["operations_count"] == replica.stream.length
    assert int(t.world.counters[tally.ALLOCS]) > 0


def test_objects_that_move_between_cpus_cost_and_a_switch_turns_that_off() -> None:
    words = ("design=mail2003_bare", "interrupts/sources=none", "cost.move_near_ns=5000", "cost.move_far_ns=5000")
    for cpus in (1, 2):
        on, off = (
            simulate(*words, f"machine.cpus={cpus}", f"cost.object_lines={word}")[0] for word in ("true", "false")
        )
        busy = [metric(lane, "main_ratio") * metric(lane, "simulated_ns") for lane in (on, off)]
        assert (busy[0] > busy[1]) == (cpus == 2)
        if cpus == 1:
            np.testing.assert_array_equal(on.metrics, off.metrics)


def test_who_may_wait_at_a_malloc_types_limit_waits_until_something_of_the_type_is_freed() -> None:
    """FreeBSD 4: names (M_VFSCACHE) of 64 and 128 bytes, with a limit that the load passes."""
    usual, held = (
        simulate("design=freebsd4", "interrupts/sources=none", f"objects.params.buckets.malloc_type_bytes={limit}")[0]
        for limit in (0, 4096)
    )
    assert (metric(usual, "object_waits_count"), metric(usual, "alloc_failures_count")) == (0, 0)
    assert metric(held, "object_waits_count") > 0
