"""Worked numbers, properties and coverage of the statistics."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kmemexp.report import stats

# Law and Kelton's two inventory policies: independent runs, so that pairing loses.
A = np.array([126.97, 124.31, 126.68, 122.66, 127.23])
B = np.array([118.21, 120.22, 122.45, 122.68, 119.40])
PILOT = [1.53, 1.66, 1.24, 2.34, 2.00, 1.69, 2.69, 2.86, 1.70, 2.60]
P = [0.01, 0.04, 0.03, 0.005, 0.2]
WHOLE = st.integers(-(2**40), 2**40).map(float)


def test_mean_interval_of_one_to_five():
    found = stats.mean_interval([1, 2, 3, 4, 5])
    assert found.n == 5
    assert found.mean == 3
    assert found.high - found.mean == pytest.approx(1.9632431614775572, abs=1e-12)
    assert stats.t_quantile(5, 0.95) == pytest.approx(2.7764451051977934, abs=1e-12)


def test_mean_interval_at_90_percent():
    found = stats.mean_interval(PILOT, 0.9)
    assert found.mean == pytest.approx(2.031)
    assert found.sd**2 == pytest.approx(0.309099, abs=1e-6)
    assert found.high - found.mean == pytest.approx(0.322283, abs=1e-6)


def test_t_interval_of_skewed_data():
    found = stats.mean_interval([0.1, 0.2, 0.3, 0.4, 0.6, 0.9, 1.3, 2, 3.1, 5])
    assert (found.low, found.high) == pytest.approx((0.260204, 2.519796), abs=1e-6)


def test_paired_difference():
    found = stats.paired_difference(A, B, 0.9)
    assert found.diff == pytest.approx(4.978)
    assert found.sd**2 / 5 == pytest.approx(2.438274, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((1.649127, 8.306873), abs=1e-6)
    assert found.diff / (found.sd / math.sqrt(5)) == pytest.approx(3.187966, abs=1e-6)
    assert found.p == pytest.approx(0.033281, abs=1e-6)


def test_paired_difference_at_95_percent():
    found = stats.paired_difference([1, 2, 3, 4], [1.1, 2.3, 2.9, 4.4])
    assert found.p == pytest.approx(0.21257296315231972, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((-0.52783, 0.17783), abs=1e-5)


def test_pairing_is_reported_when_it_loses():
    assert stats.variance_ratio(A, B) == pytest.approx(0.636690, abs=1e-6)
    assert stats.variance_ratio(A, A + np.array([0.1, -0.1, 0.2, 0, 0])) > 100


def fieller_by_its_quadratic(a, b, t, covariance):
    """Fieller's bounds from the textbook's quadratic in the ratio, with or without the covariance of the pairs."""
    n = len(a)
    g_ab = t**2 / n * np.cov(a, b)[0, 1] if covariance else 0.0
    lead = b.mean() ** 2 - t**2 / n * b.var(ddof=1)
    middle = a.mean() * b.mean() - g_ab
    root = math.sqrt(middle**2 - lead * (a.mean() ** 2 - t**2 / n * a.var(ddof=1)))
    return (middle - root) / lead, (middle + root) / lead


def test_fieller_interval():
    t = float(stats.t_quantile(5, 0.95))
    # The published bounds treat the samples as independent; for pairs the covariance belongs in.
    assert fieller_by_its_quadratic(B, A, t, covariance=False) == pytest.approx((0.933733, 0.987732), abs=1e-6)
    found = stats.paired_difference(B, A, 0.95)
    assert found.ratio == pytest.approx(0.960357, abs=1e-6)
    paired = fieller_by_its_quadratic(B, A, t, covariance=True)
    assert (found.ratio_low, found.ratio_high) == pytest.approx(paired, abs=1e-12)


def test_fieller_has_no_bounds_where_the_baseline_may_be_zero():
    found = stats.paired_difference([5.0, 6, 7], [-1.0, 2, 0.5])
    assert found.ratio == pytest.approx(12)
    assert np.isnan([found.ratio_low, found.ratio_high]).all()
    assert np.isnan(stats.paired_difference([5.0, 6], [0.0, 0]).ratio)


def test_wilson():
    low, high = stats.wilson([0, 1, 8], [8, 8, 8])
    np.testing.assert_allclose(low, [0, 0.022417, 0.675592], atol=1e-6)
    np.testing.assert_allclose(high, [0.324408, 0.470888, 1], atol=1e-6)
    assert np.isnan(stats.wilson(0, 0)).all()


def test_holm():
    np.testing.assert_allclose(stats.holm(P), [0.04, 0.09, 0.09, 0.025, 0.2])


def test_a_missing_p_value_is_no_comparison():
    np.testing.assert_allclose(stats.holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert stats.holm([]).shape == (0,)


def test_bootstrap_of_the_law_school_correlation():
    lsat = np.array([576, 635, 558, 578, 666, 580, 555, 661, 651, 605, 653, 575, 545, 572, 594.0])
    gpa = np.array([3.39, 3.30, 2.81, 3.03, 3.44, 3.07, 3.00, 3.43, 3.36, 3.13, 3.12, 2.74, 2.76, 2.88, 2.96])

    def correlation(x, y, axis):
        x, y = x - x.mean(axis=axis, keepdims=True), y - y.mean(axis=axis, keepdims=True)
        return (x * y).sum(axis=axis) / np.sqrt((x**2).sum(axis=axis) * (y**2).sum(axis=axis))

    assert correlation(lsat, gpa, 0) == pytest.approx(0.776374, abs=1e-6)
    for method, expected in (("BCa", (0.325, 0.943)), ("percentile", (0.456, 0.961))):
        found = stats.bootstrap_interval(lsat, gpa, statistic=correlation, resamples=20_000, method=method)
        assert found == pytest.approx(expected, abs=0.02)


def test_bootstrap_of_a_mean():
    y = [0.1, 0.2, 0.3, 0.4, 0.6, 0.9, 1.3, 2, 3.1, 5]
    assert stats.bootstrap_interval(y) == pytest.approx((0.69, 2.71), abs=0.05)
    assert stats.bootstrap_interval(y, method="percentile") == pytest.approx((0.57, 2.41), abs=0.05)


def test_bootstrap_of_paired_samples_leaves_out_missing_replicas():
    low, high = stats.bootstrap_interval([*A, np.nan], [*B, 1.0])
    assert (low, high) == stats.bootstrap_interval(A - B)
    assert 0 < low < 4.978 < high


def test_degenerate_bootstraps():
    assert np.isnan(stats.bootstrap_interval([1.0])).all()
    assert stats.bootstrap_interval([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == (1.0, 1.0)


def test_one_replica_has_no_interval():
    mean = stats.mean_interval([7.0])
    assert (mean.n, mean.mean) == (1, 7)
    assert np.isnan([mean.low, mean.high, mean.sd]).all()
    pair = stats.paired_difference([7.0, np.nan], [5.0, 1.0])
    assert (pair.n, pair.diff, pair.ratio) == (1, 2, 1.4)
    assert np.isnan([pair.low, pair.high, pair.p, pair.ratio_low]).all()


def test_replicas_that_agree_have_no_width_and_no_p_value():
    mean = stats.mean_interval([0.1] * 7)
    assert mean.low == mean.mean == mean.high == 0.1
    pair = stats.paired_difference(np.array([0.1, 0.2, 0.3]) + 0.7, [0.1, 0.2, 0.3])  # equal but for rounding
    assert pair.low == pair.high == pytest.approx(0.7)
    assert np.isnan(pair.p)


def test_no_replicas_at_all():
    for x in (np.zeros((3, 0)), np.full((3, 2), np.nan)):
        assert stats.mean_interval(x).n.tolist() == [0, 0, 0]
        assert np.isnan(stats.mean_interval(x).mean).all()
        assert np.isnan(stats.paired_difference(x, x).diff).all()


def test_groups_are_worked_out_one_by_one():
    x = np.random.default_rng(1).normal(5, 1, (4, 3, 6))
    y = x + np.random.default_rng(2).normal(1, 0.1, x.shape)
    x[0, 0, 2] = y[1, 1, 3] = y[2, 2, :5] = np.nan
    whole = stats.paired_difference(x, y)
    for index in np.ndindex(4, 3):
        alone = stats.paired_difference(x[index], y[index])
        for all_groups, one in zip(whole, alone, strict=True):
            np.testing.assert_array_equal(all_groups[index], one)


@given(arrays(float, st.integers(1, 12), elements=WHOLE), WHOLE)
def test_a_shifted_copy_differs_by_the_shift_exactly(x, shift):
    pair = stats.paired_difference(x + shift, x)
    assert pair.diff == shift
    assert len(x) == 1 or pair.low == pair.high == shift
    assert np.isnan(pair.p)


@given(arrays(float, st.integers(2, 12), elements=st.floats(-1e9, 1e9)), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_interval_contains_the_mean_and_grows_with_the_level(x, ci):
    inner, outer = stats.mean_interval(x, ci), stats.mean_interval(x, 0.995)
    assert outer.low <= inner.low <= inner.mean <= inner.high <= outer.high
    slack = 1e-9 * np.abs(x).max()
    assert x.min() - slack <= inner.mean <= x.max() + slack


@given(arrays(float, (2, 6), elements=st.floats(1, 1e6)))
def test_swapping_the_sides_mirrors_the_comparison(x):
    there, back = stats.paired_difference(x[0], x[1]), stats.paired_difference(x[1], x[0])
    np.testing.assert_allclose([there.low, there.high], [-back.high, -back.low])
    np.testing.assert_allclose(there.p, back.p)
    np.testing.assert_allclose(there.ratio * back.ratio, 1)


@given(st.lists(st.floats(0, 1), max_size=20))
def test_the_correction_keeps_the_order_and_only_raises(p):
    p = np.array(p)
    adjusted = stats.holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    assert (adjusted <= np.minimum(p * max(len(p), 1), 1)).all()


@given(st.integers(0, 50), st.integers(0, 50))
def test_wilson_contains_the_share_and_stays_between_0_and_1(hits, misses):
    n = hits + misses
    low, high = stats.wilson(hits, n)
    assert n == 0 or 0 <= low <= hits / n <= high <= 1


def test_coverage_of_the_t_interval():
    runs = np.random.default_rng(20030824).normal(10, 3, (20_000, 6))
    mean = stats.mean_interval(runs)
    assert 0.93 <= ((mean.low <= 10) & (mean.high >= 10)).mean() <= 0.97


def test_coverage_of_the_paired_intervals():
    rng = np.random.default_rng(19)
    load = rng.normal(100, 15, (20_000, 8))  # what both designs see
    a, b = 0.8 * load + rng.normal(0, 2, load.shape), load + rng.normal(0, 2, load.shape)
    pair = stats.paired_difference(a, b)
    assert 0.93 <= ((pair.low <= -20) & (pair.high >= -20)).mean() <= 0.97
    assert 0.93 <= ((pair.ratio_low <= 0.8) & (pair.ratio_high >= 0.8)).mean() <= 0.97
    assert np.median(stats.variance_ratio(a, b)) > 10


def test_p_values_are_uniform_without_a_difference():
    x = np.random.default_rng(5).normal(0, 1, (2, 20_000, 5))
    p = stats.paired_difference(x[0], x[1]).p
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.006)
