"""Statistics for few replicas: exact tests of counts, proportions clustered by seed, intervals of skewed data.

Arrays have replicas on the last axis and NaN where one is missing, as in `stats.py`.
"""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kmemexp.report.stats import Floats, t_quantile, wilson

RESAMPLES = 1999
FEWEST = 5
"""Replicas below which a bootstrap has too few different resamples for an interval."""

OF_DIFFERENCE = 0.65
"""By what the bootstrap's chance of error is multiplied for differences, and by `of_mean` for means, since it covers
too little for so few replicas. So corrected, means of exponential and lognormal data, and differences of two such
samples, are covered 93 to 97 times in a hundred at 6, 10 and 20 replicas (tests/report/test_coverage.py)."""

POWER = 0.8
"""Chance at which a difference counts as one that could have been seen."""

CHUNK = 4_000_000  # bootstrapped means in memory at a time


def sign_p(up: ArrayLike, down: ArrayLike) -> Floats:
    """Exact two-sided p value of the sign test, from how many pairs rise and how many fall; of 0/1 data McNemar's."""
    from scipy.special import bdtr  # noqa: PLC0415

    up, down = np.asarray(up, dtype=np.float64), np.asarray(down, dtype=np.float64)
    return np.asarray(np.minimum(2 * bdtr(np.minimum(up, down), (up + down).astype(np.int64), 0.5), 1.0), np.float64)


def fisher_p(hits_a: int, n_a: int, hits_b: int, n_b: int) -> float:
    """Fisher's exact two-sided p value of two proportions whose replicas are not paired."""
    from scipy.stats import fisher_exact  # noqa: PLC0415

    return float(fisher_exact([[hits_a, n_a - hits_a], [hits_b, n_b - hits_b]]).pvalue)


def at_most_p(hits: ArrayLike, n: ArrayLike, share: float) -> Floats:
    """Exact p value of the hypothesis that an event has at least this share, from its hits in n replicas."""
    from scipy.special import bdtr  # noqa: PLC0415

    return np.asarray(bdtr(np.asarray(hits, np.float64), np.asarray(n, np.int64), share), dtype=np.float64)


def least_share(n: ArrayLike, level: float) -> Floats:
    """Share of replicas that have to differ, all in one direction, for the sign test to tell with a chance of 80 %.

    `level` is the two-sided chance of error. NaN where n replicas cannot tell, whatever comes out.
    """
    from scipy.special import betaincinv  # noqa: PLC0415

    n = np.asarray(n, dtype=np.float64)
    needed = np.ceil(np.log2(2 / level) - 1e-12)
    return np.where(n >= needed, betaincinv(needed, np.maximum(n - needed, 0) + 1, POWER), np.nan)


def clustered_share(events: ArrayLike, ci: float = 0.95) -> tuple[int, int, float, float]:
    """Share of runs with an event, whose runs lie [seeds, conditions]: hits, runs, and Wilson's bounds.

    Runs of one seed saw the same load, so they count as so many independent runs as their scatter from seed to seed
    says (Korn and Graubard 1998); where all seeds agree, as no more than there are seeds.
    """
    from scipy.special import chdtri  # noqa: PLC0415

    x = np.asarray(events, dtype=np.float64)
    x = x[~np.isnan(x).all(axis=1)]
    present = ~np.isnan(x)
    runs, hits = int(present.sum()), int(np.nansum(x))
    if not runs:
        return 0, 0, np.nan, np.nan
    seeds, share = len(x), hits / runs
    excess = np.where(present, x - share, 0.0).sum(axis=1)
    variance = seeds / max(seeds - 1, 1) * float((excess**2).sum()) / runs**2
    if variance > 0 and 0 < share < 1:
        wider = float(t_quantile(np.array(seeds), ci)) / _normal_quantile(ci)
        least = (seeds - 1) / float(chdtri(seeds - 1, 0.8))  # few seeds may scatter less than they might
        n = min(share * (1 - share) / variance / wider**2 / least, runs)
    else:
        n = float(seeds)
    low, high = wilson(share * n, n, ci)
    return hits, runs, float(low), float(high)


def _normal_quantile(ci: float) -> float:
    from scipy.special import ndtri  # noqa: PLC0415

    return float(ndtri((1 + ci) / 2))


def of_mean(n: ArrayLike) -> Floats:
    """By what the bootstrap's chance of error is multiplied for the mean of n replicas; see OF_DIFFERENCE."""
    return np.asarray(1 - 1.3 / np.sqrt(np.maximum(n, FEWEST)), dtype=np.float64)


def bootstrap_t(x: ArrayLike, error: float, *, mean: bool = False) -> tuple[Floats, Floats]:
    """Studentised bootstrap (Hall 1988) of the mean of `x` (groups, replicas): the quantiles below and above.

    The mean lies between mean - above * se and mean + below * se but for a chance of `error`; se is sd / sqrt(n). It is
    corrected for few replicas, as differences are or, by `mean`, as means. All groups are resampled alike, from a fixed
    seed. NaN for fewer than FEWEST replicas, or where they all agree.
    """
    x = np.atleast_2d(np.asarray(x, dtype=np.float64))
    below, above = np.full((2, len(x)), np.nan)
    n = (~np.isnan(x)).sum(axis=1)
    spreads = np.ptp(np.where(np.isnan(x), np.take_along_axis(x, _first(x), axis=1), x), axis=1) if x.size else n
    for size in np.unique(n[(n >= FEWEST) & (spreads > 0)]).tolist():
        rows = np.flatnonzero((n == size) & (spreads > 0))
        corrected = error * float(of_mean(size) if mean else OF_DIFFERENCE)
        step = max(CHUNK // RESAMPLES, 1)
        for part in (rows[i : i + step] for i in range(0, len(rows), step)):
            dense = x[part][~np.isnan(x[part])].reshape(len(part), size)
            below[part], above[part] = _studentised(dense, corrected)
    return below, above


def _first(x: Floats) -> NDArray[np.int64]:
    """Place of each group's first value that is there."""
    return np.asarray((~np.isnan(x)).argmax(axis=1)[:, None], np.int64)


def _studentised(x: Floats, error: float) -> tuple[Floats, Floats]:
    n = x.shape[1]
    drawn = _resamples(n)
    centred = x - x.mean(axis=1, keepdims=True)
    centred /= np.abs(centred).max(axis=1, keepdims=True)
    mean = centred @ drawn
    variance = np.maximum((centred**2) @ drawn - mean**2, 0.0)
    agree = variance <= 1e-12
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(agree, np.sign(mean) * np.inf, mean / np.sqrt(variance / (n - 1)))
    t[np.isnan(t)] = 0.0  # all of the resample lie on the mean
    last = max(round(error / 2 * (RESAMPLES + 1)) - 1, 0)
    t.partition((last, RESAMPLES - 1 - last), axis=1)
    return -t[:, last], t[:, RESAMPLES - 1 - last]


@cache
def _resamples(n: int) -> Floats:
    """Share of each of n replicas in each resample: float64[n, RESAMPLES]."""
    counts = np.random.default_rng(20030824).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return np.ascontiguousarray(counts.T / n)
