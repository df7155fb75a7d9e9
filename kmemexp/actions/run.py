"""`action=run`: simulate what is missing of each sweep, one after the other, then show the comparison."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kmemexp.actions import again
from kmemexp.actions.exit_codes import COMPLETE, FAILED, SIGNALLED
from kmemexp.planning.plan import Plan
from kmemexp.report import ending
from kmemexp.sweep import in_turn

if TYPE_CHECKING:
    import pandas as pd
    from hydra.core.config_loader import ConfigLoader

    from kmemexp.report.html.witness import Witness


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Simulate what is missing, then print and write the comparison of each sweep."""
    code = run(plans, lambda plan, _: ending.finish(plan, witnesses=_witnesses))
    if code == COMPLETE:
        again.note(plans)
    return code


def _witnesses(plan: Plan, frame: "pd.DataFrame") -> "Sequence[Witness]":
    from kmemexp.actions import witnesses  # noqa: PLC0415 - a rerun does without

    return witnesses.of(plan, frame)


def _grow(plan: Plan) -> bool:
    from kmemexp.report import replication  # noqa: PLC0415 - with it comes pandas, which a rerun does without

    return replication.grow(plan)


def run(plans: Sequence[Plan], finish: Callable[[Plan, int], object]) -> int:
    """Run one sweep after the other and `finish` each, given its failed rows; Ctrl-C ends them all.

    Returns the worst exit code.
    """
    worst = COMPLETE
    for plan, outcome in in_turn.run(plans, _grow):
        if outcome.interrupted:
            return SIGNALLED + outcome.signal
        finish(plan, outcome.failed)
        worst = max(worst, FAILED if outcome.failed else COMPLETE)
    return worst
