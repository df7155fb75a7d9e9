"""What one replica of a cell gives, and how often it is looked at."""

from typing import NamedTuple

import numpy as np


class Lane(NamedTuple):
    """What one replica of a cell gives."""

    replica: int
    metrics: np.ndarray  # float64[len(METRICS)]
    panic: str  # what the historic kernel would have printed first, or ""
    series: np.ndarray  # int64[points, len(SERIES)]
    snapshots: list[tuple[int, str, np.ndarray]]  # simulated ns, map, uint8[bins] occupied share
    latency: tuple[tuple, ...] = ()  # rows of the table of latencies, with a clock
    deadlock: str = ""  # the members of the first deadlock, in words


class Sampling(NamedTuple):
    """How often a lane is looked at."""

    points: int
    snapshots: int
    bins: int
