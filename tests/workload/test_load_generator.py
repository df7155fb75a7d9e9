"""The load generator against theory: arrivals 1000/s with lifetimes of mean 0.2 s are an M/G/∞ system."""

import numpy as np
import pytest
from scipy import stats
from workload_fakes import allocs, kind, live_at, load

from kmemexp.workload.build import build

RATE, MEAN = 1000.0, 0.2
EXPONENTIAL = {"law": "exponential", "mean_s": MEAN}
LAWS = [
    EXPONENTIAL,
    {"law": "fixed", "seconds": MEAN},
    {"law": "hyperexponential", "means_s": [0.1, 1.1], "weights": [0.9, 0.1]},
    {"law": "lognormal", "median_s": MEAN * np.exp(-0.5), "sigma": 1.0},
]


def streams(lifetime, seconds, replicas):
    size = {"law": "uniform", "low_bytes": 1, "high_bytes": 191}
    workload = load({"object": kind(rate_hz=RATE, lifetime=lifetime, size=size)}, duration_s=float(seconds))
    return build(workload, cpus=2, seed=5, replicas=range(replicas)).streams


def snapshots(lifetime, seconds, warm_up_s, every_s):
    """Live objects of one long run, far enough apart to be nearly independent."""
    (stream,) = streams(lifetime, seconds, 1)
    return live_at(stream, np.arange(warm_up_s * 1e9, seconds * 1e9, every_s * 1e9).astype(np.int64))


def test_live_count_is_poisson():
    live = snapshots(EXPONENTIAL, 2000, warm_up_s=2, every_s=1)
    n = len(live)
    assert live.mean() == pytest.approx(200, abs=4 * np.sqrt(200 / n))
    assert live.var() == pytest.approx(200, rel=4 * np.sqrt(2 / n))
    tail = 1.714754e-2
    assert np.mean(live > 230) == pytest.approx(tail, abs=4 * np.sqrt(tail / n))
    edges = stats.poisson(200).ppf(np.linspace(0, 1, 21)[1:-1])
    observed = np.bincount(np.searchsorted(edges, live), minlength=20)
    expected = np.diff(np.concatenate([[0], stats.poisson(200).cdf(edges), [1]])) * n
    assert stats.chisquare(observed, expected).pvalue > 0.01


@pytest.mark.parametrize("lifetime", LAWS, ids=lambda law: law["law"])
def test_live_count_depends_on_the_mean_lifetime_alone(lifetime):
    live = snapshots(lifetime, 1000, warm_up_s=20, every_s=4)
    assert live.mean() == pytest.approx(200, abs=4 * np.sqrt(200 / len(live)))
    assert live.var() == pytest.approx(200, rel=4.5 * np.sqrt(2 / len(live)))


def test_live_bytes_are_compound_poisson():
    ends = []
    for stream in streams(EXPONENTIAL, 2.0, 1500):
        at = np.arange(stream.length)
        last = np.full(stream.slots, -1)
        np.maximum.at(last, stream.slot, at)
        held = last[last >= 0]
        ends.append(stream.size[held].sum())  # frees carry size 0
    ends = np.array(ends)
    assert ends.mean() == pytest.approx(19200, abs=4 * 1565.63 / np.sqrt(len(ends)))
    assert ends.var() == pytest.approx(2451200, rel=4 * np.sqrt(2 / len(ends)))


def test_warm_up_follows_the_exponential_curve():
    times = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    live = np.array([live_at(s, (times * 1e9).astype(np.int64)) for s in streams(EXPONENTIAL, 1.0, 1000)])
    expected = 200 * (1 - np.exp(-times / MEAN))
    assert np.all(np.abs(live.mean(axis=0) - expected) < 4 * np.sqrt(expected / len(live)))


def test_arrivals_are_a_poisson_process():
    (stream,) = streams(EXPONENTIAL, 100, 1)
    gaps = np.diff(stream.time_ns[allocs(stream)]) / 1e9
    assert stats.kstest(gaps, stats.expon(scale=1 / RATE).cdf).pvalue > 0.01
