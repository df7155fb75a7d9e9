"""`action=status`: how much of each plan is done; exit code 2 with failed rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE, FAILED
from kmemexp.actions.standing import show_facts, standing
from kmemexp.planning.plan import Plan

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Say how much of each plan is done."""
    return max(_show(plan) for plan in plans)


def _show(plan: Plan) -> int:
    counts, note = standing(plan)
    show_facts(Console(), plan, {"results": plan.root} | {name: str(count) for name, count in counts.items()}, note)
    return FAILED if counts["failed"] else COMPLETE
