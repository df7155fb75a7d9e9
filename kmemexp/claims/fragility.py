"""Verdicts that rest on an assumed cost: each claim again with every cost that no source gives halved, and doubled."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kmemexp.config.files import conf_dir
from kmemexp.errors import ConfigError

if TYPE_CHECKING:
    from kmemexp.claims.judging import Report
    from kmemexp.planning.plan import Plan

FACTORS = {"half": 0.5, "double": 2.0}
ASSUMED = re.compile(r"^(\w+):\s*([\d.]+)\s*#.*\bASSUMPTION\b", re.MULTILINE)


def assumed(cost: str) -> dict[str, float]:
    """Costs that a file of conf/cost/ marks as assumptions. Raises ConfigError where there are none."""
    path = conf_dir() / "cost" / f"{cost}.yaml"
    found = {key: float(value) for key, value in ASSUMED.findall(path.read_text("utf-8"))} if path.exists() else {}
    if not found:
        raise ConfigError(f"experiment.costs: {path} marks no cost as an ASSUMPTION")
    return found


def overrides(plan: "Plan", factor: str) -> list[str]:
    """Overrides that scale the assumed costs of a plan; none for one without a clock. Raises ConfigError."""
    names = {json.loads(text)["cost"]["name"] for text in plan.columns["config"]} - {"none", "zero"}
    if not names:
        return []
    if len(names) > 1:
        raise ConfigError(
            f"experiment.costs: sweep {plan.name} has several costs, {', '.join(sorted(names))}; name one"
        )
    scaled = {key: value * FACTORS[factor] for key, value in assumed(names.pop()).items()}
    return [*(f"cost.{key}={value:g}" for key, value in scaled.items()), f"sweep.name={plan.name}_{factor}_costs"]


def marked(report: "Report", others: Mapping[str, "Report"]) -> "Report":
    """Mark each verdict that another scale of the assumed costs turns into another one."""
    words = {factor: {(v.claim, v.where): v.verdict for v in other.verdicts} for factor, other in others.items()}
    verdicts = []
    for verdict in report.verdicts:
        key = (verdict.claim, verdict.where)
        flips = [
            f"{factor} costs: {w[key]}" for factor, w in words.items() if w.get(key, verdict.verdict) != verdict.verdict
        ]
        verdicts.append(verdict._replace(note=f"fragile, {'; '.join(flips)}") if flips else verdict)
    fragile = sum(bool(v.note) for v in verdicts)
    line = f" {fragile} of {len(verdicts)} verdicts change if the assumed costs are halved or doubled."
    return report._replace(verdicts=verdicts, summary=report.summary + line)


def scales(asked: bool) -> Sequence[str]:
    """Scales at which a claim is judged besides its own."""
    return tuple(FACTORS) if asked else ()
