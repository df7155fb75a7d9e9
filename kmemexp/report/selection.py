"""Choosing the best design with a guarantee: Kim and Nelson's sequential procedure, and OCBA.

Kim and Nelson (2001) drop designs one by one as replicas come in. What is left at the end is the best design, or within
`delta` of it, with the chance asked for; that holds for normal data, and with common random numbers too. OCBA (Chen et
al. 2000) says instead how a fixed number of further replicas is best shared out; it guarantees nothing.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from kmemexp import metrics as known
from kmemexp.errors import ConfigError
from kmemexp.report import comparison
from kmemexp.report.stats import Floats


class Left(NamedTuple):
    """What a selection has come to."""

    designs: NDArray[np.bool_]  # [designs]: not dropped
    replicas: int  # after which it was decided, or that there are


def kn_constants(designs: int, first: int, error: float = 0.05) -> tuple[float, float]:
    """Return eta and h^2 of Kim and Nelson for so many designs, first-stage replicas and chance of error."""
    eta = 0.5 * ((2 * error / (designs - 1)) ** (-2 / (first - 1)) - 1)
    return eta, 2 * eta * (first - 1)


def kim_nelson(x: ArrayLike, delta: float, first: int, error: float = 0.05) -> Left:
    """Choose the least of the means of `x` [designs, replicas], whose columns share their random numbers.

    `delta` is the least difference worth telling, `first` the replicas of the first stage. Stops where one is left.
    """
    x = np.asarray(x, dtype=np.float64)
    designs, replicas = x.shape
    left = np.full(designs, True)
    if designs == 1 or replicas < first:
        return Left(left, replicas)
    _, h2 = kn_constants(designs, first, error)
    differ = x[:, None, :] - x[None, :, :]
    variance = differ[:, :, :first].var(axis=2, ddof=1)
    sums = differ.cumsum(axis=2)
    for r in range(first, replicas + 1):
        width = np.maximum(0.0, delta / (2 * r) * (h2 * variance / delta**2 - r))
        beaten = sums[:, :, r - 1] / r > width
        np.fill_diagonal(beaten, val=False)
        left &= ~(beaten & left[None, :]).any(axis=1)
        if left.sum() <= 1:
            return Left(left, r)
    return Left(left, replicas)


def ocba(mean: ArrayLike, sd: ArrayLike, total: float) -> Floats:
    """Share `total` replicas out among designs, to make it most likely that the least mean is known to be the least."""
    mean, sd = np.asarray(mean, dtype=np.float64), np.asarray(sd, dtype=np.float64)
    best = int(np.argmin(mean))
    others = np.arange(len(mean)) != best
    with np.errstate(divide="ignore"):
        weight = np.where(others, (sd / (mean - mean[best])) ** 2, 0.0)
    weight[best] = sd[best] * np.sqrt(((weight[others] / sd[others]) ** 2).sum())
    return np.asarray(total * weight / weight.sum(), dtype=np.float64)


def select(df: pd.DataFrame, metric: str, delta: float, first: int = 10, ci: float = 0.95) -> pd.DataFrame:
    """Choose the best variant under each condition of a table of results.

    Returns a row per cell with its axes, `cell_key`, `mean`, `left` (not dropped), `open` (others are left beside it,
    so that more replicas are needed) and `replicas`, those after which it was decided. References that know the future
    are not chosen. Replicas that failed in any variant are left out. Raises ConfigError for a metric without a
    direction.
    """
    better = comparison.metric_of(metric).better if metric in known.INDEX else ""
    if not better:
        raise ConfigError(f"select: metric {metric} has no direction; choose one of which less or more is better")
    cells = comparison.arrange(df)
    x = cells.matrix(df[metric])
    condition = comparison.number_groups(cells.keys, cells.condition)
    left, replicas = ~cells.foresees, np.zeros(len(x), np.int64)
    for number in range(int(condition.max(initial=-1)) + 1):
        rows = np.flatnonzero((condition == number) & ~cells.foresees)
        whole = ~np.isnan(x[rows]).any(axis=0)
        found = kim_nelson((1 if better == "less" else -1) * x[rows][:, whole], delta, first, 1 - ci)
        left[rows], replicas[rows] = found.designs, found.replicas
    several = np.bincount(condition, weights=left)[condition] > 1
    with np.errstate(invalid="ignore"):
        mean = np.nanmean(x, axis=1) if x.size else np.zeros(0)
    return cells.keys.assign(cell_key=cells.named, mean=mean, left=left, open=several & left, replicas=replicas)
