"""Which differences do not matter, and how a metric's values scatter."""

from kmemexp.metrics.model import PLAIN, RARE, SKEWED_LAW, Margin, Metric
from kmemexp.metrics.timed import LATENCIES

HALF_A_POINT = Margin(0.005)
PER_CENT = Margin(0.01, "relative")
MARGINS = {
    "violations_per_million": Margin(0.1),
    **{f"{name}_p50_ns": Margin(0.05, "relative") for name in LATENCIES},
}
"""Margins that do not follow from the unit."""

BY_UNIT = {"_ratio": HALF_A_POINT, "_ns": Margin(0.1, "relative")}
"""Margins by unit: 10 % of a tail of latency, which a histogram gives within 1.6 %; one per cent of anything else."""

OCCURS = Margin(0.05, "share")
"""Of a rare event: 5 points of the share of replicas in which it happens at all."""

SKEWED = (
    "map_walked_count", "moves_count", "moved_bytes", "ipis_count", "spin_ratio", "lock_wait_ratio", "contended_ratio",
    "preemptions_count", "shootdowns_count", "memory_waits_count", "paged_out_count", "unfinished_count",
    "reclaim_stalls_count", "list_drains_count", "compactions_count", "migrated_pages_count",
    "reclaimed_by_requests_count",
)  # fmt: skip
"""Sums of what comes in bursts. Latencies and what stale reads find are skewed as well."""


ALSO_RARE = ("saturated_count",)
"""Yes or no in each replica, beside what the group `safety` counts and requests that failed."""


def stated(metric: Metric) -> Metric:
    """Give the metric with its margin and its law."""
    name = metric.name
    if metric.group == "safety" or name.startswith("failed_") or name in ALSO_RARE:
        return metric._replace(margin=OCCURS, law=RARE)
    unit = next((margin for suffix, margin in BY_UNIT.items() if name.endswith(suffix)), PER_CENT)
    skewed = metric.group in ("latency", "stability") or name in SKEWED
    return metric._replace(margin=MARGINS.get(name, unit), law=SKEWED_LAW if skewed else PLAIN)
