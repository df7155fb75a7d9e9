"""Phases of a synthetic load: the arrival rate of each group of kinds as a piecewise-constant function of time."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kmemexp.workload import laws

NANOSECOND = 1e-9
MEMBER: Mapping[str, Any] = {
    "count": 1, "born": (0.0, 0.0), "waits_s": (0.0, 0.0), "dies": (1.0, 1.0), "lingers_s": (0.0, 0.0),
}  # fmt: skip
"""What may be said of a bundle's member besides its kind, and what holds where nothing is."""


class Piece(NamedTuple):
    """A stretch of the run during which all rates are constant."""

    start_s: float
    seconds: float
    level: float  # factor of every rate
    groups: Mapping[str, float]  # further factors, by group of kinds


def length_s(workload: Mapping[str, Any]) -> float:
    """Length of the run: `duration_s`, or each phase once where that is 0."""
    return float(workload["duration_s"] or sum(p["seconds"] for p in workload["phases"]))


def pieces(workload: Mapping[str, Any]) -> list[Piece]:
    """Lay the phases out over the run: in order, then again without those marked `once`, cut at the end of the run."""
    end = length_s(workload)
    repeated = [p for p in workload["phases"] if not p.get("once", False)]
    found: list[Piece] = []
    now = 0.0
    for phase in itertools.chain(workload["phases"], itertools.cycle(repeated)):
        if end - now < NANOSECOND:
            break
        seconds = min(float(phase["seconds"]), end - now)
        found.append(Piece(now, seconds, float(phase["level"]), phase.get("groups", {})))
        now += seconds
    return found


def rate_hz(workload: Mapping[str, Any], kind: Mapping[str, Any], piece: Piece) -> float:
    """Arrival rate of a kind during a piece."""
    rate: float = workload["scale"] * kind["rate_hz"] * piece.level * piece.groups.get(kind.get("group", ""), 1.0)
    return rate


def start_count(workload: Mapping[str, Any], kind: Mapping[str, Any]) -> int:
    """Objects of a kind that the first phase makes besides those that arrive, and that are never freed."""
    count: int = round(workload["scale"] * kind.get("start", 0))
    return count


def expected_operations(workload: Mapping[str, Any]) -> int:
    """Integrate rates and lifetime laws: the expected number of allocations and frees of one lane."""
    parts = pieces(workload)
    total = 0.0
    for kind in workload["kinds"].values():
        rates = [rate_hz(workload, kind, p) for p in parts]
        total += start_count(workload, kind) + _operations(kind["lifetime"], parts, rates, length_s(workload))
    for bundle in workload.get("bundles", {}).values():
        rates = [rate_hz(workload, bundle, p) for p in parts]
        for member in bundle["members"]:
            given = {**MEMBER, **member}
            share, later_s = (sum(given[key]) / 2 for key in ("dies", "lingers_s"))
            end = length_s(workload) - later_s
            total += given["count"] * _operations(bundle["lifetime"], parts, rates, end, share)
    return round(total)


def _operations(
    lifetime: laws.Law, parts: Sequence[Piece], rates: Sequence[float], end: float, share: float = 1.0
) -> float:
    """Integrate the allocations, and the frees before `end` of what lives `share` of a lifetime of this law."""
    total = 0.0
    for piece, rate in zip(parts, rates, strict=True):
        left = [max(end - piece.start_s - passed, 0.0) for passed in (0.0, piece.seconds)]
        ended = [share * laws.ended_time(lifetime, t / share) if share else t for t in left]
        total += rate * (piece.seconds + ended[0] - ended[1])
    return total
