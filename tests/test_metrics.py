"""What each metric states about itself: what is better, which difference matters, how its values scatter."""

import pytest

from kmemexp import metrics
from kmemexp.metrics import INDEX, METRICS, PLAIN, RARE, SKEWED_LAW


def of(name: str) -> metrics.Metric:
    return METRICS[INDEX[name]]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_every_metric_states_a_margin_that_suits_its_law(metric: metrics.Metric) -> None:
    assert metric.margin.size > 0
    assert metric.law in (PLAIN, SKEWED_LAW, RARE)
    assert (metric.margin.kind == "share") == (metric.law == RARE)
    assert metric.margin.kind in ("absolute", "relative", "share")


@pytest.mark.parametrize(
    ("name", "law", "margin"),
    [
        ("held_peak_bytes", PLAIN, (0.01, "relative")),
        ("map_external_frag_mean_ratio", PLAIN, (0.005, "absolute")),
        ("alloc_failures_count", RARE, (0.05, "share")),
        ("failed_fragmented_count", RARE, (0.05, "share")),
        ("saturated_count", RARE, (0.05, "share")),
        ("alloc_main_p50_ns", SKEWED_LAW, (0.05, "relative")),
        ("irq_device_done_p99_ns", SKEWED_LAW, (0.1, "relative")),
        ("lock_wait_ratio", SKEWED_LAW, (0.005, "absolute")),
        ("violations_per_million", SKEWED_LAW, (0.1, "absolute")),
    ],
)
def test_margins_and_laws(name: str, law: str, margin: tuple) -> None:
    assert (of(name).law, tuple(of(name).margin)) == (law, margin)


def test_what_is_named_as_skewed_exists() -> None:
    assert set(metrics.SKEWED) <= set(metrics.NAMES)
    assert set(metrics.MARGINS) <= set(metrics.NAMES)
    assert set(metrics.ALSO_RARE) <= set(metrics.NAMES)
