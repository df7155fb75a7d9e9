"""From overrides to an exit code: which action, or which claims."""

import sys
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader

from kmemexp.actions.exit_codes import WRONG
from kmemexp.actions.finding import find
from kmemexp.claims import request
from kmemexp.errors import InputError, wants_traceback
from kmemexp.planning.composing import Composer, plain
from kmemexp.planning.plan import open_loader, plan_from
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


def with_whole_machine(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """Add what a machine that is chosen beside a sweep has, as the planner takes it: Hydra lets the sweep's file win.

    Raises ConfigError.
    """
    chosen = [text for text in overrides if text.startswith(("machine=", "machine."))]
    if not any(text.startswith("machine=") for text in chosen) or not any("sweep=" in text for text in overrides):
        return list(overrides)
    with open_loader(config_dir=config_dir) as loader:
        machine = plain(Composer(loader).compose(chosen), ["machine"])["machine"]
    return [*overrides, *(f"machine.{key}={value}" for key, value in machine.items() if isinstance(value, int | str))]
