"""The metrics of a lane: names with units, what is better, what each means. A row here is a column of the results.

Each metric states its *margin*, the difference that does not matter, and its *law*, how its values scatter from replica
to replica. Both follow from the unit (`stated`) unless MARGINS or SKEWED name the metric. They are judgements of what a
kernel engineer would act on; a sweep or an experiment may set margins of its own.
May import nothing of kmemexp: every room may import it.
"""

from kmemexp.metrics.columns import OTHER_TEXTS, PANICS, SERIES, SERIES_TEXTS, UNITS, unit
from kmemexp.metrics.lanes import LANES, STALE
from kmemexp.metrics.margins import ALSO_RARE, MARGINS, OCCURS, PER_CENT, SKEWED, stated
from kmemexp.metrics.model import PLAIN, RARE, SKEWED_LAW, Margin, Metric
from kmemexp.metrics.spaces import MOBILITIES, NODES, PAGE_OWNERS, SPACE, SPACES
from kmemexp.metrics.timed import LATENCIES, LEAST_SAMPLES, QUANTILES, TIMED

__all__ = [
    "ALSO_RARE",
    "BOUNDS",
    "INDEX",
    "LANES",
    "LATENCIES",
    "LEAST_ROOM",
    "LEAST_SAMPLES",
    "MARGINS",
    "METRICS",
    "MOBILITIES",
    "NAMES",
    "NODES",
    "OCCURS",
    "OTHER_TEXTS",
    "PAGE_OWNERS",
    "PANICS",
    "PER_CENT",
    "PLAIN",
    "QUANTILES",
    "RARE",
    "SERIES",
    "SERIES_TEXTS",
    "SKEWED",
    "SKEWED_LAW",
    "SPACE",
    "SPACES",
    "STALE",
    "TIMED",
    "UNITS",
    "Margin",
    "Metric",
    "described",
    "stated",
    "unit",
]

BOUNDS = {"map_superpages_mean_count": "map_superpages_bound_mean_count"}
"""Metrics with a bound that follows from the run itself, and the metric that has it."""
LEAST_ROOM = 0.05
"""Share of the baseline's value that the bound must lie above it, for a difference to be judged at all."""

METRICS = tuple(map(stated, (*LANES, *SPACE, *STALE, *TIMED)))
NAMES = tuple(m.name for m in METRICS)
INDEX = {name: i for i, name in enumerate(NAMES)}


def described(column: str) -> str:
    """Say what a column holds; "" where it is none of ours."""
    if column in INDEX:
        return METRICS[INDEX[column]].text
    return SERIES_TEXTS.get(column) or OTHER_TEXTS.get(column, "")
