"""`action=compact`: merge the many small files of a results folder."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.planning.plan import Plan
from kmemexp.store import store

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Merge the files of each plan's results. Raises StoreError where there are none."""
    for plan in plans:
        store.Store(plan.root)  # must exist: opening it for writing would make it
        with contextlib.closing(store.Store(plan.root, write=True)) as writing:
            removed = writing.compact()
        Console().print(f"{plan.name}: {removed} files merged in {plan.root}", highlight=False)
    return COMPLETE
