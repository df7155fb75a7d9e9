"""Sweeps one after the other: what an earlier one has simulated is copied, and Ctrl-C ends them all."""

from types import SimpleNamespace

import pytest

from kmemexp.sweep import execute, in_turn
from kmemexp.sweep.execute import Outcome


def plan(name: str, *, progress: bool = True) -> SimpleNamespace:
    return SimpleNamespace(root=name, reps={}, progress=progress, pool="")


def test_each_looks_into_the_results_of_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fake(plan: SimpleNamespace, *, progress: bool | None, elsewhere: list[str]) -> Outcome:
        seen.append((plan.root, progress, tuple(elsewhere)))
        return Outcome(1, 0, 0, plan.root == "c", 0.1, plan.root)

    monkeypatch.setattr(execute, "execute", fake)
    plans = [plan("a"), plan("b", progress=False), plan("c"), plan("d")]
    assert [outcome.root for _, outcome in in_turn.run(plans)] == ["a", "b", "c"]
    assert seen == [("a", None, ()), ("b", False, ("a",)), ("c", None, ("a", "b"))]
