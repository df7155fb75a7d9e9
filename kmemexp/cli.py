"""From overrides to an exit code: which action, or which claims."""

import sys
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader

from kmemexp.actions.exit_codes import WRONG
from kmemexp.actions.finding import find
from kmemexp.claims import request
from kmemexp.errors import InputError, wants_traceback
from kmemexp.planning.plan import plan_from
from kmemexp.values import visible


def main(overrides: Sequence[str], *, loader: ConfigLoader | None = None) -> int:
    """Plan what the overrides ask for and do the action on each plan. Returns the exit code."""
    try:
        if any(request.is_own(text) for text in overrides):
            from kmemexp.claims import command  # noqa: PLC0415 - brings the reports, which action=plan does without

            return command.main(overrides, loader=loader)
        plans = plan_from(overrides, loader=loader)
        return find(plans[0].action)(plans, loader)
    except InputError as error:
        if wants_traceback():
            raise
        print(visible(f"error: {error}"), file=sys.stderr)  # noqa: T201
        return WRONG
