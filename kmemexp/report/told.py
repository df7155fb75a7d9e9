"""The answer of a sweep as data: what one screen says, and what JSON holds."""

import math
from typing import Any, NamedTuple

WORDS = ("better", "worse", "equivalent", "inconclusive")
EFFECTS = 3  # of a design
STEPS = 24  # of a sparkline


class Effect(NamedTuple):
    """What matters about a design: one metric, where its difference has one sign."""

    metric: str
    verdict: str  # better | worse
    unit: str
    diff: float  # in that unit, from the baseline, in the condition of the median effect
    low: float
    high: float
    ratio: float
    text: str  # the difference with its interval
    times: str  # the ratio as text
    agree: int  # conditions with this verdict
    conditions: int


class Tally(NamedTuple):
    """How a design compares with the baseline over all conditions and metrics."""

    design: str
    counts: dict[str, int]  # by verdict
    effects: list[Effect]


class Spark(NamedTuple):
    """A course over the run under one condition: means over the replicas."""

    where: str
    design: str
    values: list[float]


class Answer(NamedTuple):
    """What the one screen says."""

    question: str
    baseline: str
    conditions: int
    metrics: list[str]
    loads: dict[str, int]  # conditions by workload
    tallies: list[Tally]
    sparks: list[Spark]
    trouble: list[str]


def as_data(found: Answer) -> dict[str, Any]:
    """Give the answer as plain lists and dicts, for JSON; numbers that do not exist are None."""
    return {
        **found._asdict(),
        "tallies": [
            t._asdict() | {"effects": [{k: _plain(v) for k, v in e._asdict().items()} for e in t.effects]}
            for t in found.tallies
        ],
        "sparks": [s._asdict() | {"values": [_plain(v) for v in s.values]} for s in found.sparks],
    }  # fmt: skip


def from_data(data: dict[str, Any]) -> Answer:
    """Read what `as_data` gave."""
    tallies = [
        Tally(t["design"], t["counts"], [Effect(**{k: _read(v) for k, v in e.items()}) for e in t["effects"]])
        for t in data["tallies"]
    ]
    sparks = [Spark(s["where"], s["design"], [_read(v) for v in s["values"]]) for s in data["sparks"]]
    return Answer(**(data | {"tallies": tallies, "sparks": sparks}))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(value: Any) -> Any:
    return math.nan if value is None else value
