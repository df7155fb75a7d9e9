"""C8: where the claim holds and where it does not, on made-up counts."""

import json
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from made_up import MIB, noise, results, words

from kmemexp.claims import finding
from kmemexp.claims.judging import Report

c8 = finding.load("c8_type_stability")
KINDS = ("proc", "tcpcb", "pipe")
PROTECTIONS = ("none", "zone", "percpu", "grace", "refcount")
MILLION = 1_000_000


def report(
    typed: Mapping[str, int], wrong: Mapping[str, int] | None = None, hold: Callable[[str, float], float] | None = None
) -> Report:
    """Analyse sweeps in which kinds have so many type violations without protection, and wrong objects with percpu."""
    wrong = wrong or {}

    def outcome(axes: Mapping, replica: int) -> dict:
        kind, protection = axes["stability.kind"], axes["stability"]
        seen = typed.get(kind, 0) if protection in ("none", "grace") else 0
        return {
            "config": json.dumps({"stability": {"oversample": 10}}),
            "references_count": 10 * MILLION, "stale_reads_count": 0 if protection == "refcount" else 1000,
            "stale_other_type_count": 10 * seen + (round(noise(axes, replica)) if seen else 0),
            "stale_wrong_object_count": 10 * wrong.get(kind, 0) if protection in ("zone", "percpu") else 0,
            "held_after_peak_bytes": 20 * MIB + (MIB if protection in ("zone", "percpu") else 0) + noise(axes, replica),
        }  # fmt: skip

    def held(axes: Mapping, replica: int) -> dict:
        readers = {axes["stability.kind"]: [{"hold_s": 0.002}, {"hold_s": 0.5}]}
        found = hold(axes["stability.kind"], axes["stability.hold_ratio"]) if hold else 0.0
        return {
            "config": json.dumps({"stability": {"readers": readers}}), "references_count": 100 * MILLION,
            "stale_other_type_count": round(100 * found),
        }  # fmt: skip

    def late(axes: Mapping, replica: int) -> dict:
        slower = 500.0 if axes["stability"] == "percpu" and axes["stability.kind"] == "filp" else 0.0
        return {metric: 1000.0 + slower + noise(axes, replica) for metric in c8.LATENCIES}

    kinds = [{"workload": "made_up", "stability": p, "stability.kind": k} for k in KINDS for p in PROTECTIONS]
    ratios = [{"stability.kind": k, "stability.hold_ratio": r} for k in KINDS for r in (0.1, 1, 10)]
    costs = [{"stability": p, "stability.kind": k} for k in ("TCP", "filp") for p in PROTECTIONS]
    return c8.analyse({
        "type_stability": results(kinds, 4, outcome),
        "type_stability_hold": results(ratios, 2, held),
        "type_stability_cost": results(costs, 6, late),
    })  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "holds", "fails"),
    [
        ({"proc": 30, "tcpcb": 9}, {"proc", "tcpcb", "pipe"}, set()),
        ({"proc": 30, "pipe": 9}, {"proc"}, {"tcpcb", "pipe"}),
        ({"tcpcb": 1}, {"pipe"}, {"proc"}),
    ],
)
def test_each_kind_is_judged_by_whether_it_is_hit_and_named(typed: dict, holds: set, fails: set) -> None:
    found = [v for v in report(typed).verdicts if v.where.startswith("in few places")]
    assert {v.condition for v in found} == set(KINDS)
    assert {v.condition for v in found if v.verdict == "holds"} == holds
    assert {v.condition for v in found if v.verdict == "fails"} == fails
    assert all(v.seen > 0 for v in found if v.verdict == "inconclusive")


def test_shares_of_a_day_are_judged_whatever_the_references() -> None:
    found = report({"proc": 30, "pipe": 10})
    (verdict,) = [v for v in found.verdicts if "share of proc" in v.where]
    assert (verdict.verdict, verdict.effect) == ("holds in part", pytest.approx(0.75, abs=0.02))


def test_freelists_serve_a_kind_unless_its_readers_take_the_wrong_object() -> None:
    assert words(report({"proc": 30}), "made_up, per-CPU") == ["holds"]
    found = report({"proc": 30}, wrong={"proc": 50})
    (verdict,) = [v for v in found.verdicts if v.where.startswith("made_up, per-CPU")]
    assert verdict.verdict == "holds in part"
    assert "proc 0 → 50.00" in verdict.evidence
    assert verdict.effect == pytest.approx(2.0, abs=0.01)  # a MiB each for proc and tcpcb


def test_slower_allocations_are_said() -> None:
    found = report({})
    assert words(found, "latency: recorded load, filp") == ["fails"]
    assert words(found, "latency: recorded load, TCP") != ["fails"]


def test_nothing_hit_has_an_upper_bound() -> None:
    found = c8.rate(np.zeros(4), np.full(4, 1e6), np.full(4, 100.0))
    assert (found.mean, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1e6 * (1 - 0.025 ** (1 / 400)) * 400 / 4e6)


def test_a_rate_that_few_replicas_carry_has_a_wide_interval() -> None:
    found = c8.rate(np.array([0, 0, 0, 0, 0, 0, 0, 40]), np.full(8, 1e6), np.full(8, 100.0))
    even = c8.rate(np.array([5, 4, 6, 5, 5, 4, 6, 5]), np.full(8, 1e6), np.full(8, 100.0))
    assert found.mean == even.mean == 5
    assert found.low == 0
    assert found.high > 20
    assert 4 < even.low < 5 < even.high < 6.5


@pytest.mark.parametrize(
    ("values", "at"),
    [([2.0, 3.0], 0.0), ([0.0, 0.5], float("inf")), ([0.01, 0.1, 10.0], 10**0.5), ([0.0, 4.0], 10**-0.5)],
)
def test_the_hold_time_of_one_in_a_million_lies_on_a_line_of_logarithms(values: list, at: float) -> None:
    assert c8.crossing([0.1, 1.0, 10.0][: len(values)], values) == pytest.approx(at)


def test_the_report_has_tables_and_charts() -> None:
    found = report({"proc": 30}, hold=lambda kind, ratio: ratio**2 if kind == "proc" else 0.0)
    assert found.tables["hold"].set_index("kind").loc["proc", "crosses_at"] == pytest.approx(1.0, rel=0.1)
    assert {"violations", "memory"} == set(found.charts)
    for chart in found.charts.values():
        assert chart.to_dict()["data"]
    assert "proc" in found.summary
