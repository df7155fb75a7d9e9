"""`action=validate`: plan, which checks every cell, and run nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.planning.plan import Plan

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Say that the plans are sound: planning has checked every cell."""
    for plan in plans:
        most = " at most" if plan.reps else ""
        text = f"{plan.name}: {len(plan.columns['cell_key'])} cells x {plan.replicas} replicas{most}, nothing wrong"
        Console().print(text, highlight=False)
    return COMPLETE
