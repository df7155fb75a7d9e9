"""How much of a plan is done, and how facts about a plan are shown: shared by `plan` and `status`."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmemexp.errors import StoreError
from kmemexp.planning.plan import Plan
from kmemexp.values import visible


def standing(plan: Plan) -> tuple[dict[str, int], str]:
    """Rows of the plan by status, and what is wrong with the results folder where it cannot be read."""
    counts, note = {"done": 0, "failed": 0}, ""
    if "://" in plan.root or Path(plan.root).exists():
        from kmemexp.store import store  # noqa: PLC0415 - slow to import, and most plans have no results yet

        try:
            there = store.Store(plan.root)
        except StoreError as error:
            return counts | {"missing": plan.lanes}, str(error)
        if plan.reps and any(there.counts().values()):
            from kmemexp.report import replication  # noqa: PLC0415 - with it comes pandas

            replication.grow(plan)
        for key in plan.columns["cell_key"]:
            for replica in range(plan.count_of(key)):
                if row_status := there.status(key, replica):
                    counts[row_status] += 1
        if others := sum(there.counts().values()) - sum(counts.values()):
            note = f"{others} rows in the folder are of other plans, or of an earlier version of the model"
    return counts | {"missing": plan.lanes - sum(counts.values())}, note


def show_facts(console: Console, plan: Plan, facts: Mapping[str, str], note: str = "") -> None:
    """Print a plan's name, description and the facts in two columns, its notes and this one last; or all as JSON."""
    notes = [text for text in (*plan.notes, note) if text]
    if plan.output == "json":
        record = {"sweep": plan.name, "description": plan.description, "facts": dict(facts), "notes": notes}
        print(json.dumps(record, ensure_ascii=False))  # noqa: T201
    console.print(Text.assemble((visible(plan.name), "bold"), f"  {visible(plan.description)}"), highlight=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for name, text in [*facts.items(), *(("note", text) for text in notes)]:
        grid.add_row(Text(visible(name)), Text(visible(text)))
    console.print(grid)
