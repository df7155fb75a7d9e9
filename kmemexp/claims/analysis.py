"""Letting an experiment look at its results, and saying what is missing where it cannot judge."""

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from kmemexp.claims.judging import VERDICTS, Report
from kmemexp.errors import InputError, wants_traceback
from kmemexp.report.results import planned
from kmemexp.values import visible

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

HINT = "(HYDRA_FULL_ERROR=1 shows where)"


def analysed(name: str, module: ModuleType, plans: "Mapping[str, Plan]") -> Report | None:
    """Let an experiment look at its results; None, after a message, where it cannot say anything."""
    try:
        report: Report = module.analyse({sweep: planned(plan) for sweep, plan in plans.items()})
        if wrong := [v.verdict for v in report.verdicts if v.verdict not in VERDICTS]:
            raise ValueError(f"verdict {wrong[0]!r} is not one of {', '.join(VERDICTS)}")
    except Exception as error:  # an analysis may stumble in any way over what is not there
        if wants_traceback():
            raise
        text = str(error) if isinstance(error, InputError | LookupError) else f"{type(error).__name__}: {error} {HINT}"
        complain("\n  ".join([f"experiment {name}: no verdict: {text}", *_gaps(plans)]))
        return None
    return report


def _gaps(plans: "Mapping[str, Plan]") -> list[str]:
    """Say which sweeps lack something, and what went wrong there."""
    found = []
    for sweep, plan in plans.items():
        lanes = plan.lanes
        try:
            metrics = planned(plan).metrics
        except InputError:
            found.append(f"sweep {sweep}: none of its {lanes} replicas has been simulated")
            continue
        failed = metrics[metrics["status"] == "failed"]
        if len(failed):
            first = failed.iloc[0]
            where = f"such as {first['design']} on {first['workload']}: {first['error']}"
            found.append(f"sweep {sweep}: {len(failed)} of {lanes} replicas failed, {where}")
        if len(metrics) < lanes:
            found.append(f"sweep {sweep}: {lanes - len(metrics)} of {lanes} replicas have not been simulated")
    return found


def complain(text: str) -> None:
    """Print a message on stderr."""
    print(visible(text), file=sys.stderr)  # noqa: T201
