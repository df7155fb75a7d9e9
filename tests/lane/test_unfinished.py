"""What is open at the end of a lane counts: waits, quantiles, saturation; and CPUs that get nowhere."""

import json
import math

import numpy as np
import pytest

from kmemexp import api
from kmemexp.boot.timed import Timed
from kmemexp.lane import latency, unfinished, witness
from kmemexp.lane.replica import prepare
from kmemexp.lane.timed import booted, run_out
from kmemexp.metrics import LEAST_SAMPLES
from kmemexp.sim import probes as a


def of(*counts: tuple[int, int]) -> np.ndarray:
    """A histogram: durations in ns and how many of each."""
    hist = np.zeros(a.BUCKETS, np.int64)
    for ns, n in counts:
        hist[a.bucket_of(ns)] += n
    return hist


@pytest.mark.parametrize(
    ("done", "still", "q", "expected"),
    [
        (((10, 99), (1000, 1)), (), 0.5, 10),
        (((10, 99), (1000, 1)), ((0, 90),), 0.5, 10),  # ranks 95 of 190: 10, whether they end at once or never
        (((10, 99), (1000, 1)), ((0, 120),), 0.5, math.nan),  # more than half may never end
        (((10, 60), (1000, 40)), ((5, 30),), 0.5, math.nan),  # 10 if they end now, 1000 if never
        (((10, 60), (1000, 40)), ((2000, 30),), 0.5, 1008),  # they have taken longer already: within a bucket of 1000
        (((10, 60), (1000, 40)), ((2000, 30),), 1.0, 2016),  # the longest so far
        (((10, 60), (1000, 40)), ((5, 1),), 1.0, 1008),
    ],
)
def test_a_quantile_is_given_where_what_is_open_cannot_change_it(done, still, q, expected) -> None:
    found = latency.quantile(of(*done), q, 6, of(*still))
    assert found == pytest.approx(expected, rel=1 / 32, nan_ok=True)


def test_with_nothing_open_a_quantile_is_what_it_was() -> None:
    hist = of((7, 500), (90, 300), (4000, 100))
    for q, least in LEAST_SAMPLES.items():
        v = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}[q]
        one, other = latency.quantile(hist, v, least), latency.quantile(hist, v, least, of())
        assert one == other or (math.isnan(one) and math.isnan(other))


SMALL = ("workload=server2003", "workload.scale=0.02")


def ended(*overrides: str, load: tuple[str, ...] = SMALL) -> Timed:
    """The machine of a lane when it has ended."""
    (plan,) = api.plan([*load, "design=mail2003_bare", *overrides])
    (replica,) = prepare(json.loads(plan.cells["config"].iloc[0]), (0,))
    return run_out(booted(replica), replica)


def test_a_load_that_is_kept_up_with_is_not_saturated_and_has_its_quantiles() -> None:
    t = ended("cost=opteron2003")
    values = latency.metrics(t)
    assert not values["saturated_count"]
    assert values["unfinished_count"] == values["stalled_cpus_count"] == 0
    assert not math.isnan(values["alloc_main_p99_ns"])
    assert not {name: n for name, n in unfinished.open_at_end(t).items() if name[:4] in ("allo", "free")}


def test_past_the_knee_what_is_unfinished_counts() -> None:
    """Each step takes two seconds: most of the load is never done."""
    t = ended("cost=opteron2003", "cost.alloc_ns=2000000000", "cost.free_ns=2000000000", "interrupts/sources=none")
    values = latency.metrics(t)
    assert values["saturated_count"]
    assert values["unfinished_count"] > 0
    still = unfinished.open_at_end(t)
    assert sum(n.sum() for name, n in still.items() if name[:4] in ("allo", "free")) == values["unfinished_count"]
    assert math.isnan(values["alloc_main_p50_ns"])
    assert values["alloc_main_max_ns"] >= 10**9


def test_interrupts_that_take_all_of_a_cpu_are_a_stall_with_its_witness() -> None:
    storm = "{mode: device, law: periodic, period_ns: 1000000, route: 0, program: [{work: 1000000}]}"
    task = "{mode: task, route: 0, program: [{work: 1000}]}"
    t = ended("cost=opteron2003", "interrupts/sources=none", f"+interrupts.sources.storm={storm}",
              f"+interrupts.sources.task={task}")  # fmt: skip
    values = latency.metrics(t)
    assert values["stalled_cpus_count"] == 1
    assert values["saturated_count"]
    told = witness.summary(t.wired)
    assert told.startswith("no progress: ")
    assert "storm on CPU 0" in told
    assert "task on CPU 0 waits for its CPU" in told


def test_the_more_interrupts_the_longer_they_take_until_the_machine_is_saturated() -> None:
    medians, marks = [], []
    for rate in (5_000, 20_000, 40_000, 80_000):
        words = ("workload=filetree", "workload.copies=1", "workload.window_s=0.2", "interrupts/sources=stress",
                 "cost=opteron2003", f"interrupts.rate_hz={rate}")  # fmt: skip
        values = latency.metrics(ended(*words, load=()))
        medians.append(values["irq_soft_done_p50_ns"])
        marks.append(bool(values["saturated_count"]))
    given = [m for m in medians if not math.isnan(m)]
    assert given == sorted(given)
    assert marks == sorted(marks)
    assert (marks[0], marks[-1]) == (False, True)
    assert not math.isnan(medians[0])
