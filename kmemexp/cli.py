"""From overrides to an exit code: which action, or which claims."""

import os
import sys
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader

from kmemexp.actions.run import ACTIONS, WRONG, run_all, show_designs
from kmemexp.errors import InputError
from kmemexp.plan.plan import plan_from


def main(overrides: Sequence[str], *, loader: ConfigLoader | None = None) -> int:
    """Plan what the overrides ask for and do the action on each plan. Returns the exit code."""
    try:
        if any(text.lstrip("+~").startswith(("experiment=", "experiment.")) for text in overrides):
            from kmemexp.claims import command  # noqa: PLC0415 - brings the reports, which action=plan does without

            return command.main(overrides, loader=loader)
        plans = plan_from(overrides, loader=loader)
        if plans[0].action == "designs":
            return show_designs(loader)
        if plans[0].action == "run":
            return run_all(plans)
        return max(ACTIONS[plan.action](plan) for plan in plans)
    except InputError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return WRONG
