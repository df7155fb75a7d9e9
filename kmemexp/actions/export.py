"""`action=export`: write all results as one Parquet and one CSV file per table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.planning.plan import Plan
from kmemexp.store import remote, store

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Write each plan's results to `_export` in its results folder. Raises StoreError where there are none."""
    for plan in plans:
        folder = remote.below(plan.root, "_export")
        names = store.Store(plan.root).export(folder)
        Console().print(f"{plan.name}: {', '.join(names)} in {remote.bare(folder)}", highlight=False)
    return COMPLETE
