"""`action=report`: write the tables and the report again from what is stored."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kmemexp.actions import witnesses
from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.planning.plan import Plan
from kmemexp.report import ending
from kmemexp.store import store

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Print and write the comparison of each plan's results. Raises StoreError where there are none."""
    for plan in plans:
        store.Store(plan.root)
        ending.finish(plan, anew=True, witnesses=witnesses.of)
    return COMPLETE
