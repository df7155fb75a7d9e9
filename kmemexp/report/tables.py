"""The tables at the end of a sweep: on the terminal, and as Parquet, CSV and Markdown in the results folder."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from kmemexp.report import comparison, layout, terminal
from kmemexp.report.layout import Block, Cell
from kmemexp.report.notes import notes
from kmemexp.report.results import planned
from kmemexp.store.store import Store

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

NAME = "tables/_comparison"
CI = 0.95
SHOWN = 12  # conditions (a workload on a machine) on the terminal
WRITTEN = 200  # conditions in the Markdown file
VARIANTS = 12  # designs (or settings of one) in a table for reading
METRICS = (
    "map_external_frag_mean_ratio",
    "map_largest_run_min_bytes",
    "map_holes_max_count",
    "malloc_headroom_min_bytes",
    "failed_fragmented_count",
    "alloc_failures_count",
    "panics_count",
    "internal_frag_ratio",
    "total_frag_mean_ratio",
    "held_peak_bytes",
    "map_walked_count",
)
"""What is shown where the plan names no metrics."""


def finish(plan: "Plan", console: Console | None = None) -> None:
    """Compare the plan's cells with its baseline, print the tables and write them to `tables/_comparison.*`.

    Rows of other plans in the same folder are left out. Raises StoreError if the folder holds no results.
    """
    console = console or terminal.make_console()
    frame = planned(plan).ordered(plan.cells)
    if frame.empty:
        console.print(Text(f"{plan.name}: none of its {len(plan.cells)} cells is in {plan.root} yet."))
        return
    baseline, remarks = _present_baseline(frame, plan.baseline)
    cells = comparison.arrange(frame, compared=list(baseline))
    table = comparison.compare(frame, baseline, list(plan.metrics) or list(METRICS), ci=CI)
    axes = cells.condition + cells.variant
    remarks += notes(table, frame, axes, baseline, CI)
    if missing := len(plan.cells) * plan.replicas - len(frame):
        remarks.append(f"Not simulated yet: {missing} replicas; the same command continues.")

    flat = layout.one_variant_each(table, cells.condition, cells.variant)
    chosen, left_out = (table, []) if flat else _first(table, cells, SHOWN)
    console.print(Text(f"\n{plan.name}: {_summary(frame)}", style="bold"))
    terminal.show(_blocks(chosen, cells, flat), remarks + left_out, console)

    chosen, left_out = (table, []) if flat else _first(table, cells, WRITTEN)
    store = Store(plan.root, write=True)
    store.write_table(NAME, table)
    store.write_text(
        f"{NAME}.md",
        markdown(plan.name, _blocks(chosen, cells, flat), remarks + left_out),
    )
    console.print(Text(f"Full table: {plan.root}/{NAME}.parquet, .csv, .md", style="dim"), soft_wrap=True)


def _blocks(table: pd.DataFrame, cells: comparison.Layout, flat: bool) -> list[Block]:
    if flat:
        return layout.across(table, cells.condition)
    return layout.lay_out(table, cells.condition, cells.variant)


def markdown(title: str, blocks: Sequence[Block], remarks: Iterable[str]) -> str:
    """Write the blocks as Markdown: one table per workload and condition."""
    lines = [f"# {title}"]
    for block in blocks:
        lines += ["", f"## {block.title}"] if block.title else []
        heads = [name.replace("\n", "<br>") for name in block.variants]
        for section in block.sections:
            lines += ["", f"### {section.title}"] if section.title else []
            lines += ["", _md_row(["metric", "", *heads]), "|---|---|" + "---:|" * len(heads)]
            lines += [_md_row([row.metric, row.unit, *map(_md_cell, row.cells)]) for row in section.rows]
    return "\n".join([*lines, "", *(f"- {remark.strip()}" for remark in remarks), ""])


def _md_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _md_cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    value = f"**{cell.value}**" if cell.best else cell.value
    return f"{value}<br>{cell.change}" if cell.change else value


def _present_baseline(frame: pd.DataFrame, baseline: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the baseline, or none and a remark where no cell has its values."""
    if not baseline:
        return {}, ["There is no baseline: means only."]
    found = pd.Series(True, index=frame.index)
    for name, value in baseline.items():
        found &= comparison.matches(frame[name], value) if name in frame.columns else False
    if found.any():
        return dict(baseline), []
    name = ", ".join(f"{k}={v}" for k, v in baseline.items())
    return {}, [f"The baseline ({name}) is not among these cells: means only."]


def _first(table: pd.DataFrame, cells: comparison.Layout, conditions: int) -> tuple[pd.DataFrame, list[str]]:
    """Return as much of the table as can be read at a glance, and a remark on what is left out."""
    number = comparison.number_groups(table, cells.condition)
    variants = table.groupby([number, "metric"], observed=True).cumcount()
    most, widest = int(number.max()) + 1, int(variants.max()) + 1
    remark = []
    if most > conditions or widest > VARIANTS:
        remark = [
            f"Shown: {min(most, conditions)} of {most} conditions, {min(widest, VARIANTS)} of {widest} designs and "
            "settings; all are in _comparison.parquet."
        ]
    return table[(number < conditions) & (variants < VARIANTS).to_numpy()], remark


def _summary(frame: pd.DataFrame) -> str:
    cells = frame["cell_key"].nunique()
    return f"{cells} cell{'s' if cells > 1 else ''}, {len(frame)} replicas in all"
