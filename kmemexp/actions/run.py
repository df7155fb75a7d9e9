"""What `action=` names: run, plan, status, report, validate, compact, export, explain, designs.

Each takes a plan and returns an exit code.

Exit codes: 0 complete, 1 a mistake in the configuration or the input, 2 finished with failed cells, 130 interrupted.
What only some actions need is imported by them: `action=plan` must answer at once.
"""
# ruff: noqa: PLC0415

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_loader import ConfigLoader
from rich.console import Console
from rich.table import Table

from kmemexp.errors import StoreError
from kmemexp.metrics import NAMES, SERIES
from kmemexp.plan.plan import Plan
from kmemexp.sweep.batches import RATE_OPS, work
from kmemexp.values import size_text

if TYPE_CHECKING:
    from kmemexp.store.store import Store


COMPLETE, WRONG, FAILED, INTERRUPTED = 0, 1, 2, 130
ROWS_SHOWN = 10
ROW_BYTES = 600  # a row of metrics in Parquet, without the numbers
MAPS = 4  # maps with snapshots, about
SHRUNK = 0.4  # size of series and snapshots in Parquet against plain arrays, about


def run_all(plans: Sequence[Plan]) -> int:
    """Run one sweep after the other; what one has simulated the next ones copy. Ctrl-C ends them all."""
    worst, earlier = COMPLETE, []
    for plan in plans:
        code = run(plan, earlier)
        if code == INTERRUPTED:
            return code
        worst = max(worst, code)
        earlier.append(plan.root)
    return worst


def run(plan: Plan, elsewhere: Sequence[str] = (), *, quiet: bool = False) -> int:
    """Simulate what neither this results folder nor those `elsewhere` have, then show the comparison unless quiet."""
    from kmemexp.report import tables
    from kmemexp.sweep.execute import execute

    outcome = execute(plan, progress=None if plan.progress else False, elsewhere=elsewhere)
    if outcome.interrupted:
        return INTERRUPTED
    tables.finish(plan, *([Console(quiet=True)] if quiet else []))
    return FAILED if outcome.failed else COMPLETE


def show_plan(plan: Plan) -> int:
    """Say what a run would do and cost; starts nothing and writes nothing."""
    console = Console()
    standing, note = _standing(plan)
    lanes = len(plan.cells) * plan.replicas
    todo = standing["missing"] + (standing["failed"] if plan.retry_failed else 0)
    pairs = zip(plan.cells["est_ops"].tolist(), plan.cells["timed"].tolist(), strict=True)
    cpu_s = float(sum(work(ops, timed=timed) for ops, timed in pairs)) * plan.replicas / RATE_OPS
    cpus = _cpus(plan)
    left_s = cpu_s * todo / lanes
    facts = {
        "cells": f"{len(plan.cells)} ({plan.excluded} excluded, {plan.collapsed} equal to another)",
        "replicas": f"{plan.replicas} each, {lanes} in all",
        "standing": ", ".join(f"{count} {status}" for status, count in standing.items()),
        "operations": f"{plan.cells['est_ops'].sum() * plan.replicas:.3g} estimated",
        "CPU time": f"{_duration(cpu_s)}, of which {_duration(left_s)} to do (at {RATE_OPS:.0e} operations/s, "
        f"a sixth of that with a clock)",
        "wall time": f"{_duration(left_s / cpus)} on {cpus} CPUs ({plan.cluster['runner']}, {plan.cluster['address']})",
        "results": f"about {size_text(_result_bytes(plan))} in {plan.root}",
        "baseline": ", ".join(f"{k}={v}" for k, v in plan.baseline.items()) or "none",
        "metrics": ", ".join(plan.metrics),
    }
    _facts(console, plan, facts | ({"note": note} if note else {}))
    console.print(_first_rows(plan))
    return COMPLETE


def validate(plan: Plan) -> int:
    """Say that the plan is sound: planning has checked every cell."""
    Console().print(f"{plan.name}: {len(plan.cells)} cells x {plan.replicas} replicas, nothing wrong", highlight=False)
    return COMPLETE


def status(plan: Plan) -> int:
    """Say how much of the plan is done; exit code 2 with failed rows."""
    standing, note = _standing(plan)
    facts = {"results": plan.root} | {name: str(count) for name, count in standing.items()}
    _facts(Console(), plan, facts | ({"note": note} if note else {}))
    return FAILED if standing["failed"] else COMPLETE


def report(plan: Plan) -> int:
    """Draw the tables again from what is stored."""
    from kmemexp.report import tables

    _store(plan)
    tables.finish(plan)
    return COMPLETE


def compact(plan: Plan) -> int:
    """Merge the many small parts of a results folder."""
    _store(plan)
    removed = _store(plan, write=True).compact()
    Console().print(f"{plan.name}: {removed} parts merged in {plan.root}", highlight=False)
    return COMPLETE


def export(plan: Plan) -> int:
    """Write all results as one Parquet and one CSV file per table."""
    folder = f"{plan.root}/_export"
    names = _store(plan).export(folder)
    Console().print(f"{plan.name}: {', '.join(names)} in {folder}", highlight=False)
    return COMPLETE


def explain(plan: Plan) -> int:
    """Simulate one lane of the plan again, with a log, and say how its deadlock came about."""
    from kmemexp.actions.explain import explain_lane

    explain_lane(plan, Console())
    return COMPLETE


def show_designs(loader: ConfigLoader | None) -> int:
    """Say what designs there are, and of what parts."""
    from kmemexp.plan.plan import open_loader
    from kmemexp.report import catalogue

    with open_loader(loader) as found:
        catalogue.show(catalogue.table(found), Console())
    return COMPLETE


ACTIONS: dict[str, Callable[[Plan], int]] = {
    "run": run, "plan": show_plan, "status": status, "report": report,
    "validate": validate, "compact": compact, "export": export, "explain": explain,
}  # fmt: skip


def _store(plan: Plan, *, write: bool = False) -> "Store":
    from kmemexp.store.store import Store

    return Store(plan.root, write=write)


def _standing(plan: Plan) -> tuple[dict[str, int], str]:
    """Rows of the plan by status, and what is wrong with the results folder where it cannot be read."""
    lanes = len(plan.cells) * plan.replicas
    counts, note = {"done": 0, "failed": 0}, ""
    if "://" in plan.root or Path(plan.root).exists():
        try:
            rows = _store(plan).done()
        except StoreError as error:
            rows, note = {}, str(error)
        keys = set(plan.cells["cell_key"])
        for (key, replica), row_status in rows.items():
            if key in keys and replica < plan.replicas:
                counts[row_status] += 1
    return counts | {"missing": lanes - sum(counts.values())}, note


def _facts(console: Console, plan: Plan, facts: dict[str, str]) -> None:
    console.print(f"[bold]{plan.name}[/]  {plan.description}", highlight=False)
    grid = Table.grid(padding=(0, 2))
    for name, text in facts.items():
        grid.add_row(name, text)
    console.print(grid)


def _first_rows(plan: Plan) -> Table:
    """Show the first cells by their axis values."""
    rows = plan.cells.head(ROWS_SHOWN)
    values = [json.loads(text) for text in rows["axes"]]
    axes = list(dict.fromkeys(key for row in values for key in row))
    title = f"first {len(rows)} of {len(plan.cells)} cells"
    table = Table("cell_key", *axes, "est_ops", title=title, title_justify="left")
    for key, row, operations in zip(rows["cell_key"], values, rows["est_ops"], strict=True):
        shown = [
            size_text(row[axis]) if axis.endswith("_bytes") and axis in row else row.get(axis, "") for axis in axes
        ]
        table.add_row(key[:8], *map(str, shown), str(operations))
    return table


def _cpus(plan: Plan) -> int:
    """CPUs that a run would use, as far as can be known without a cluster."""
    if plan.cluster["runner"] == "serial":
        return 1
    return plan.cluster["num_cpus"] or os.cpu_count() or 1


def _result_bytes(plan: Plan) -> int:
    """Rough size of all results of the plan."""
    sample = json.loads(plan.cells["config"].iloc[0])["sample"]
    row = ROW_BYTES + 8 * len(NAMES)
    series = sample["points"] * len(SERIES) * 8 * SHRUNK
    pictures = sample["snapshots"] * MAPS * sample["bins"] * SHRUNK
    return int(len(plan.cells) * plan.replicas * (row + series + pictures))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
