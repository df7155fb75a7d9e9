"""Statistics of replicated, paired simulation experiments.

The functions are vectorised: the replicas lie on the last axis, every axis before it is a group of its own, and NaN
marks a replica that is missing (a failed lane). Two designs are compared on the same replicas, because both saw the
same random numbers there (Law, Simulation Modeling and Analysis, chapter 11: common random numbers, the paired t
interval). `ci` is the confidence level, between 0 and 1.

One replica has no interval (NaN); replicas that do not differ at all have an interval of width 0 and no p value (NaN),
since no distribution stands behind them. What may be concluded from those is in `evidence.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
ROUNDING = 4 * np.finfo(np.float64).eps  # relative; scatter below it is only the rounding of a subtraction


class Mean(NamedTuple):
    """Means over replicas, one element for each group."""

    n: NDArray[np.int64]
    mean: Floats
    sd: Floats
    low: Floats
    high: Floats


class Paired(NamedTuple):
    """Differences `a - b` and ratios `mean(a) / mean(b)` over common replicas, one element for each group."""

    n: NDArray[np.int64]
    diff: Floats
    low: Floats
    high: Floats
    sd: Floats
    p: Floats
    ratio: Floats
    ratio_low: Floats
    ratio_high: Floats


def t_quantile(n: ArrayLike, ci: float) -> Floats:
    """Two-sided Student t quantile for samples of size `n`; NaN for n < 2."""
    # The ufunc behind scipy.stats.t.ppf, at a fifth of its import time.
    from scipy.special import stdtrit  # noqa: PLC0415

    sizes, where = np.unique(np.asarray(n, dtype=np.float64), return_inverse=True)
    quantiles: Floats = np.where(sizes >= 2, stdtrit(np.maximum(sizes - 1, 1), (1 + ci) / 2), np.nan)
    return quantiles[where].reshape(np.shape(n))


def t_p_value(t: ArrayLike, n: ArrayLike) -> Floats:
    """Two-sided p value of Student's t with n - 1 degrees of freedom."""
    from scipy.special import stdtr  # noqa: PLC0415

    df = np.asarray(n, dtype=np.float64) - 1
    return np.asarray(2 * stdtr(np.where(df >= 1, df, np.nan), -np.abs(t)), dtype=np.float64)


def t_tail(t: ArrayLike, n: ArrayLike) -> Floats:
    """Chance that Student's t with n - 1 degrees of freedom is above `t`."""
    from scipy.special import stdtr  # noqa: PLC0415

    df = np.asarray(n, dtype=np.float64) - 1
    return np.asarray(stdtr(np.where(df >= 1, df, np.nan), -np.asarray(t)), dtype=np.float64)


def _moments(x: Floats) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Count, mean, standard deviation and centred values (0 where missing) along the last axis."""
    if x.shape[-1] == 0:
        x = np.full((*x.shape[:-1], 1), np.nan)
    present = ~np.isnan(x)
    n = present.sum(axis=-1)
    # Sums are taken from the first value on, so that equal values have exactly that mean and exactly no variance.
    origin = np.take_along_axis(x, present.argmax(axis=-1)[..., None], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = np.where(present, x - origin, 0.0)
        offset = shifted.sum(axis=-1) / n
        centred = np.where(present, shifted - offset[..., None], 0.0)
        sd = np.where(n >= 2, np.sqrt((centred**2).sum(axis=-1) / (n - 1)), np.nan)
    return n, origin[..., 0] + offset, sd, centred


def mean_interval(x: ArrayLike, ci: float = 0.95) -> Mean:
    """Mean of `x` (..., replicas) with Student's t interval."""
    n, mean, sd, _ = _moments(np.asarray(x, dtype=np.float64))
    half = half_width(sd, n, ci)
    return Mean(*_plain(n, mean, sd, mean - half, mean + half))


def half_width(sd: ArrayLike, n: ArrayLike, ci: float) -> Floats:
    """Half-width of the t interval of a mean; NaN for n < 2."""
    with np.errstate(invalid="ignore", divide="ignore"):
        half: Floats = t_quantile(n, ci) * np.asarray(sd) / np.sqrt(n)
    return half


def paired_difference(a: ArrayLike, b: ArrayLike, ci: float = 0.95) -> Paired:
    """Difference and ratio of the means of `a` against the baseline `b` (both (..., replicas)) on common replicas.

    The difference has the paired t interval and its p value; the ratio of means has Fieller's interval (Fieller 1954),
    which is NaN where the baseline's mean is not clearly away from 0, since it has no finite bounds there.
    """
    a, b = _common(a, b)
    scale = np.maximum(np.nanmax(np.abs(a), axis=-1, initial=0.0), np.nanmax(np.abs(b), axis=-1, initial=0.0))
    n, diff, sd, _ = _moments(a - b)
    sd = np.where(sd <= ROUNDING * scale, 0.0, sd)
    half = half_width(sd, n, ci)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(sd > 0, diff / (sd / np.sqrt(n)), np.nan)
    return Paired(*_plain(n, diff, diff - half, diff + half, sd, t_p_value(t, n), *_fieller(a, b, scale, ci)))


def _plain(*values: ArrayLike) -> list[Any]:
    """Numbers in place of arrays without a dimension."""
    return [np.asarray(value)[()] for value in values]


def _common(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    """Both arrays with NaN wherever one of them has it."""
    a, b = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    missing = np.isnan(a) | np.isnan(b)
    return np.where(missing, np.nan, a), np.where(missing, np.nan, b)


def _fieller(a: Floats, b: Floats, scale: Floats, ci: float) -> tuple[Floats, Floats, Floats]:
    """Ratio of means with Fieller's interval.

    Written in the deviation d = a - ratio * b, whose mean is 0: the bounds are ratio + x for the two roots x of
    (mean_b^2 - g_bb) x^2 + 2 g_db x - g_dd = 0, with g = t^2 / n * covariance. That never subtracts large numbers.
    """
    n, mean_a, _, _ = _moments(a)
    _, mean_b, _, centred_b = _moments(b)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(mean_b != 0, mean_a / mean_b, np.nan)
        _, _, sd, centred = _moments(a - ratio[..., None] * b)
        centred = np.where((sd <= ROUNDING * scale)[..., None], 0.0, centred)
        factor = t_quantile(n, ci) ** 2 / n / (n - 1)
        g_dd, g_db, g_bb = (factor * (x * y).sum(axis=-1) for x, y in
                            ((centred, centred), (centred, centred_b), (centred_b, centred_b)))  # fmt: skip
        lead = mean_b**2 - g_bb
        root = np.sqrt(g_db**2 + lead * g_dd)
        low, high = (np.where(lead > 0, ratio + (-g_db + sign * root) / lead, np.nan) for sign in (-1, 1))
    return ratio, low, high


def variance_ratio(a: ArrayLike, b: ArrayLike) -> Floats:
    """How much the common random numbers helped: (var a + var b) / var(a - b) over the replicas.

    The ratio is the factor by which pairing saves replicas. Below 1 it loses: the designs did not see the same random
    numbers, or react to them in opposite ways. NaN where var(a - b) is 0 or n < 2.
    """
    a, b = _common(a, b)
    _, _, sd_a, _ = _moments(a)
    _, _, sd_b, _ = _moments(b)
    _, _, sd_d, _ = _moments(a - b)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.where(sd_d > 0, (sd_a**2 + sd_b**2) / sd_d**2, np.nan)[()]
    return ratio


def wilson(hits: ArrayLike, n: ArrayLike, ci: float = 0.95) -> tuple[Floats, Floats]:
    """Interval of a proportion, sound for rare events too (Wilson 1927): 0 hits of 8 are at most 32 %."""
    from scipy.special import ndtri  # noqa: PLC0415

    hits, n = np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = ndtri((1 + ci) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / n
        centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = np.where(hits == 0, 0.0, centre - half), np.where(hits == n, 1.0, centre + half)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def holm(p: ArrayLike) -> Floats:
    """P values of one family, adjusted by Holm's step-down method (1979): controls the chance of any false claim.

    NaN stays NaN and does not count as a comparison.
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    present = np.flatnonzero(~np.isnan(p))
    order = present[np.argsort(p[present], kind="stable")]
    steps = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1.0)
    return adjusted


def bootstrap_interval(
    *samples: ArrayLike,
    statistic: Callable[..., Any] | None = None,
    ci: float = 0.95,
    method: str = "BCa",
    resamples: int = 9999,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval (Efron 1987) over whole replicas, for statistics or data that a t interval does not suit.

    `samples` is one sample, or several of equal length that belong together replica by replica; a replica with a NaN in
    any of them is left out. `statistic` is a function of (samples..., axis=), by default the mean of one sample or the
    mean difference of two. `method` is "BCa", "percentile" or "basic". Returns (low, high): NaN for fewer than 2
    replicas, and of width 0 where all replicas agree.
    """
    from scipy.stats import bootstrap  # noqa: PLC0415

    table = np.array([np.asarray(s, dtype=np.float64) for s in samples])
    table = table[:, ~np.isnan(table).any(axis=0)]
    estimate: Callable[..., Any] = statistic or (_mean if len(table) == 1 else _mean_difference)
    if table.shape[1] < 2:
        return np.nan, np.nan
    if estimate is _mean_difference:
        table, estimate = table[:1] - table[1:], _mean
    if not np.ptp(table, axis=1).any():
        value = float(estimate(*table, axis=-1))
        return value, value
    found = bootstrap(
        tuple(table), estimate, paired=True, confidence_level=ci, n_resamples=resamples, method=method, rng=seed
    ).confidence_interval
    return float(found.low), float(found.high)


def _mean(x: Floats, axis: int = -1) -> Any:
    return np.mean(x, axis=axis)


def _mean_difference(a: Floats, b: Floats, axis: int = -1) -> Any:
    return np.mean(a, axis=axis) - np.mean(b, axis=axis)
