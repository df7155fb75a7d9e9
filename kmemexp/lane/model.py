"""What one replica of a cell gives, and how often it is looked at."""

from typing import Any, NamedTuple

import numpy as np

from kmemexp.metrics import INDEX, METRICS


class Lane(NamedTuple):
    """What one replica of a cell gives."""

    replica: int
    metrics: np.ndarray  # float64[len(METRICS)]
    panic: str  # what the historic kernel would have printed first, or ""
    series: np.ndarray  # int64[points, len(SERIES)]
    snapshots: list[tuple[int, str, np.ndarray]]  # simulated ns, map or map:user, uint8[bins] occupied share
    latency: tuple[tuple[Any, ...], ...] = ()  # rows of the table of latencies, with a clock
    deadlock: str = ""  # the members of the first deadlock, in words
    caches: tuple[tuple[Any, ...], ...] = ()  # rows of the table of caches (`lane.caches`), of the first replica


class Sampling(NamedTuple):
    """How often a lane is looked at."""

    points: int
    snapshots: int
    bins: int


def metrics_row(values: dict[str, float]) -> np.ndarray:
    """Put metrics in their order, float64[len(METRICS)]; a metric without a value is NaN."""
    row = np.full(len(METRICS), np.nan)
    for name, value in values.items():
        row[INDEX[name]] = value
    return row
