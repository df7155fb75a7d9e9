"""Worked numbers of the statistics for few replicas."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from kmemexp.report import population, small_samples


def test_sign_test_and_mcnemar():
    assert small_samples.sign_p(6, 0) == 2**-5
    assert small_samples.sign_p([8, 3, 0], [1, 3, 0]) == pytest.approx([20 / 512, 1.0, 1.0])
    assert small_samples.sign_p(2, 0) == 0.5


def test_fisher_s_exact_test():
    assert small_samples.fisher_p(2, 2, 0, 2) == pytest.approx(1 / 3)
    assert small_samples.fisher_p(6, 6, 0, 6) == pytest.approx(2 / math.comb(12, 6))
    assert small_samples.fisher_p(3, 4, 1, 4) == pytest.approx(34 / 70)  # the lady tasting tea, both sides


def test_a_share_that_is_excluded():
    assert small_samples.at_most_p(0, 59, 0.05) == pytest.approx(0.95**59)
    assert small_samples.at_most_p([1], [3], 0.5) == pytest.approx([0.5])


def test_what_so_many_replicas_can_tell():
    assert np.isnan(small_samples.least_share(5, 0.05))
    assert small_samples.least_share(6, 0.05) == pytest.approx(0.8 ** (1 / 6))  # all six must differ
    assert np.isnan(small_samples.least_share(6, 0.05 / 2))


def test_runs_that_share_seeds_are_no_more_than_the_seeds():
    """No event in 360 runs under 18 conditions on 20 seeds: at most 16 %, not 1 %."""
    hits, runs, low, high = small_samples.clustered_share(np.zeros((20, 18)))
    assert (hits, runs, low) == (0, 360, 0.0)
    assert high == pytest.approx(0.161, abs=1e-3)
    independent = np.zeros((20, 18))
    independent.flat[::20] = 1
    assert small_samples.clustered_share(independent)[3] < 0.11
    same = np.zeros((20, 18))
    same[0] = 1
    assert small_samples.clustered_share(same)[3] > 0.24
    assert small_samples.clustered_share(np.full((2, 2), np.nan))[:2] == (0, 0)


def test_bootstrap_t_leaves_out_what_is_missing_and_refuses_very_few():
    x = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.9, 1.3, 2, 3.1, 5])
    padded = np.array([[*x, np.nan], [np.nan, *x[::-1]], [*x[:4], *[np.nan] * 7], [1.0] * 11])
    below, above = small_samples.bootstrap_t(padded, 0.05)
    alone = small_samples.bootstrap_t(x, 0.05)
    assert (below[0], above[0]) == pytest.approx((alone[0][0], alone[1][0]))
    assert np.isnan(below[2:]).all()
    assert below[0] > 2 * above[0]  # the tail lies above, so the mean may lie far above
    assert below[1] == pytest.approx(below[0], rel=0.1)  # other resamples of the same values


SOURCE = {"law": "periodic", "phase_ns": 0, "program": [{"work": 100}]}


def cell(source="trace", copies=1, cost="none", sources=None):
    load = {"source": source, "copies": copies, "shift_s": 1.0, "kinds": {"x": {"rate_hz": 5}}}
    return json.dumps({
        "workload": load, "cost": {"name": cost}, "interrupts": {"sources": sources or {}}, "memory": {},
    })  # fmt: skip


def test_what_is_the_same_in_every_replica():
    drawn = {"law": "poisson", "program": []}
    late = {"law": "periodic", "program": []}
    noisy = {"law": "none", "program": [{"work": {"law": "exponential", "ns": 5}}]}
    cells = [
        cell(), cell(copies=2), cell("synthetic"), cell(cost="x"), cell(cost="x", sources={"a": SOURCE}),
        cell().replace('"copies"', '"stream": "auto", "copies"'),
        *(cell(cost="x", sources={"a": SOURCE, "b": other}) for other in (drawn, late, noisy)), "{}",
    ]  # fmt: skip
    assert population.fixed(cells).tolist() == [True, False, False, True, True, False, False, False, False, False]


def test_the_population_is_named():
    frame = pd.DataFrame({"workload": ["a", "b", "c", "d"], "config": [
        cell(), cell(copies=2), cell("synthetic"), cell(cost="x", sources={"i": {"law": "poisson"}})]})  # fmt: skip
    one, synthetic, window = population.notes(frame)
    assert one.startswith("a: deterministic: one window of one recording")
    assert "runs of this load" in synthetic
    assert window.startswith("d: one window of one recording; replicas differ in the arrivals of interrupts only")
