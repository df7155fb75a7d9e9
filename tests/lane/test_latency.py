"""Latencies: histograms and what is read from them, and where a lane's time went."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kmemexp.boot import layout
from kmemexp.lane import latency
from kmemexp.metrics import INDEX, LEAST_SAMPLES, QUANTILES, TIMED
from kmemexp.sim import probes as a
from kmemexp.sim.engine.tables import cpu


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


def test_rows_of_the_table_are_what_happened_at_all() -> None:
    names = layout.Names(("l",), ("l",), ("disk",), ())
    hist = np.zeros((a.HIST_WAIT + 3, a.BUCKETS), np.int64)
    hist[a.HIST_ALLOC, a.bucket_of(20)] = 10
    hist[a.HIST_WAIT + 2, a.bucket_of(40)] = 1
    wired = layout.Wired(hist.ravel(), names, {"hist": (0, *hist.shape)})
    rows = latency.latency_rows(wired)
    assert [row[:3] for row in rows] == [("alloc_main", 10, 20.0), ("irq_disk_done", 1, 40.0)]
    assert rows[0][3] == 20.0
    assert math.isnan(rows[1][3])


def test_the_time_of_all_cpus_is_added_up_by_what_it_was_spent_on() -> None:
    cpus = np.zeros((2, cpu.COLUMNS), np.int64)
    cpus[:, cpu.TIME + cpu.TIME_MAIN], cpus[1, cpu.TIME + cpu.TIME_SPIN] = (3, 4), 5
    wired = layout.Wired(cpus.ravel(), layout.Names((), (), (), ()), {"cpus": (0, *cpus.shape)})
    spent = latency.spent_ns(wired)
    assert (spent[cpu.TIME_MAIN], spent[cpu.TIME_SPIN], spent.sum()) == (7, 5, 12)


def test_every_counter_is_a_metric() -> None:
    assert set(latency.COUNTERS) <= {m.name for m in TIMED} <= set(INDEX)
