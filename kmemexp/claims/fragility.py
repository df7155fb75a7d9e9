"""Verdicts that rest on a cost: each claim again with costs halved, and doubled.

All costs that no source gives together (`experiment.costs=true`), or each cost by itself (`+sweep=sensitivity`).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from kmemexp.config.files import conf_dir
from kmemexp.errors import ConfigError

if TYPE_CHECKING:
    from kmemexp.claims.judging import Report
    from kmemexp.planning.plan import Plan

FACTORS = {"half": 0.5, "double": 2.0}
ASSUMED = re.compile(r"^(\w+):\s*([\d.]+)\s*#.*\bASSUMPTION\b", re.MULTILINE)
NO_CLOCK = ("none", "zero")


class Scale(NamedTuple):
    """Costs that are moved together."""

    key: str  # one cost; "": all that are assumptions
    factor: str

    @property
    def label(self) -> str:
        return f"{self.factor} {self.key or 'costs'}"

    @property
    def slug(self) -> str:
        return f"{self.factor}_{self.key}" if self.key else f"{self.factor}_costs"


def scales(asked: str, plans: Iterable["Plan"]) -> Sequence[Scale]:
    """Scales at which a claim is judged besides its own. `asked`: one of request.COSTS. Raises ConfigError."""
    if asked == "each":
        keys = dict.fromkeys(key for plan in plans for key in _costs(plan))
        return [Scale(key, factor) for key in keys for factor in FACTORS]
    return [Scale("", factor) for factor in FACTORS] if asked else []


def assumed(cost: str) -> dict[str, float]:
    """Costs that a file of conf/cost/ marks as assumptions. Raises ConfigError where there are none."""
    path = conf_dir() / "cost" / f"{cost}.yaml"
    found = {key: float(value) for key, value in ASSUMED.findall(path.read_text("utf-8"))} if path.exists() else {}
    if not found:
        raise ConfigError(f"experiment.costs: {path} marks no cost as an ASSUMPTION")
    return found


def overrides(plan: "Plan", scale: Scale) -> list[str]:
    """Overrides that scale costs of a plan; none for one without a clock, or without this cost. Raises ConfigError."""
    costs = _costs(plan)
    keys = [scale.key] if scale.key else assumed(_name(plan)) if costs else []
    scaled = {key: costs[key] * FACTORS[scale.factor] for key in keys if key in costs}
    named = [f"sweep.name={plan.name}_{scale.slug}"] if scaled else []
    return [*(f"cost.{key}={value:g}" for key, value in scaled.items()), *named]


def _name(plan: "Plan") -> str:
    """Name of the costs of a plan, "" without a clock. Raises ConfigError where there are several."""
    names = {json.loads(text)["cost"]["name"] for text in plan.columns["config"]} - set(NO_CLOCK)
    if len(names) > 1:
        raise ConfigError(
            f"experiment.costs: sweep {plan.name} has several costs, {', '.join(sorted(names))}; name one"
        )
    return names.pop() if names else ""


def _costs(plan: "Plan") -> dict[str, float]:
    """What operations cost in a plan, ns; empty without a clock. Raises ConfigError where that differs by cell."""
    if not _name(plan):
        return {}
    found = [json.loads(text)["cost"] for text in plan.columns["config"]]
    costs = next(cost for cost in found if cost["name"] not in NO_CLOCK)
    for key, value in costs.items():
        if any(cost.get(key, value) != value for cost in found if cost["name"] == costs["name"]):
            raise ConfigError(f"experiment.costs: cost.{key} is an axis of sweep {plan.name}; give it one value")
    return {key: float(value) for key, value in costs.items() if key.endswith("_ns") and value > 0}


def ranges(cost: str) -> dict[str, Any]:
    """Range of each cost, [least, most] in ns, as a file of conf/cost/ has it; empty where there is no such file."""
    path = conf_dir() / "cost" / f"{cost}.yaml"
    return dict(yaml.safe_load(path.read_text("utf-8")).get("ranges", {})) if path.exists() else {}


def marked(report: "Report", others: Mapping[Scale, "Report"], plans: Iterable["Plan"] = ()) -> "Report":
    """Mark each verdict that another scale of costs turns into another one, and say which costs turn any."""
    words = {scale: {(v.claim, v.where): v.verdict for v in other.verdicts} for scale, other in others.items()}
    verdicts = []
    turning: list[Scale] = []
    for verdict in report.verdicts:
        key = (verdict.claim, verdict.where)
        flips = {scale: w[key] for scale, w in words.items() if w.get(key, verdict.verdict) != verdict.verdict}
        turning += flips
        note = "; ".join(f"{scale.label}: {word}" for scale, word in flips.items())
        verdicts.append(verdict._replace(note=f"fragile, {note}") if flips else verdict)
    fragile = sum(bool(v.note) for v in verdicts)
    each = any(scale.key for scale in others)
    what = f"one of {len(others) // 2} costs is" if each else "the assumed costs are"
    line = f" {fragile} of {len(verdicts)} verdicts change if {what} halved or doubled."
    if each and turning:
        line += f" What turns one: {', '.join(_told(scale, plans) for scale in others if scale in turning)}."
    return report._replace(verdicts=verdicts, summary=report.summary + line)


def _told(scale: Scale, plans: Iterable["Plan"]) -> str:
    """A scale in words, and whether such a cost is within the range that its sources leave."""
    for plan in plans:
        value = _costs(plan).get(scale.key)
        if value is None or scale.key not in (known := ranges(_name(plan))):
            continue
        least, most = known[scale.key]
        moved = value * FACTORS[scale.factor]
        within = "within" if least <= moved <= most else "outside"
        return f"{scale.label} ({moved:g} ns, {within} the range of {least:g} to {most:g})"
    return scale.label
