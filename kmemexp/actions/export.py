"""`action=export`: write all results for other programs: a folder of tables, or one CSV, SQLite or DuckDB file."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.planning.plan import Plan
from kmemexp.store import files, remote, store

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Write each plan's results to `_export` in its results folder. Raises StoreError where there are none."""
    for plan in plans:
        folder = remote.below(plan.root, "_export")
        names = store.Store(plan.root).export(folder) if plan.export == "folder" else [_one_file(plan, folder)]
        Console().print(f"{plan.name}: {', '.join(names)} in {remote.bare(folder)}", highlight=False)
    return COMPLETE


def _one_file(plan: Plan, folder: str) -> str:
    """Write all results as one file, here first: a database cannot be written into an object store."""
    from kmemexp.report import exporting  # noqa: PLC0415 - brings pandas
    from kmemexp.report.results import load  # noqa: PLC0415

    name = f"{plan.name}{exporting.ENDINGS[plan.export]}"
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / name
        exporting.write(load(plan.root), made, plan.export)
        with files.explained(folder):
            obstore.put(files.connect(folder), name, made)
    return name
