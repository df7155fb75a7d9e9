"""How far a design has come towards what is possible, where a metric has a bound that no design can pass."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kmemexp.metrics import BOUNDS, LEAST_ROOM
from kmemexp.report.stats import Floats


class Room(NamedTuple):
    """What bounds say of cells, each float64[cells]; NaN where the metric has none, or there is no baseline."""

    bound: Floats  # mean over the replicas
    room: Floats  # how far it lies above the baseline's mean, as a share of that
    gap_closed: Floats  # difference from the baseline, as a share of the bound's


def bound_of(name: str, frame: pd.DataFrame) -> pd.Series | None:
    """Values of a metric's bound in a table of results, which may be older than the bound."""
    return frame[BOUNDS[name]] if BOUNDS.get(name) in frame.columns else None


def weigh(x: Floats, reference: Floats, bound: Floats) -> Room:
    """Compare values with their baseline's and with their own bound; all float64[cells, replicas]."""
    both = ~(np.isnan(x) | np.isnan(reference) | np.isnan(bound))
    n = both.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mine, base, most = (np.where(both, values, 0.0).sum(axis=1) / n for values in (x, reference, bound))
        alone = np.nansum(bound, axis=1) / (~np.isnan(bound)).sum(axis=1)
        room = np.where(most > base, (most - base) / base, np.where(n > 0, 0.0, np.nan))
        closed = np.where(most > base, (mine - base) / (most - base), np.nan)
    return Room(alone, room, closed)


def no_room(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows of a comparison that are not judged: what they could differ by at most is nothing to speak of."""
    if "room" not in table.columns:
        return np.zeros(len(table), bool)
    found: NDArray[np.bool_] = table["room"].to_numpy(np.float64) < LEAST_ROOM
    return found
