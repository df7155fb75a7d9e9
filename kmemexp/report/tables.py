"""The tables at the end of a sweep: what is compared, how much of it is shown, and the same as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from kmemexp.report import comparison, layout, recordings, replication
from kmemexp.report.answer import answer
from kmemexp.report.notes import notes
from kmemexp.report.results import Results, planned
from kmemexp.report.shown import Block, Cell, Shown
from kmemexp.report.told import Answer, as_data
from kmemexp.store.store import Store
from kmemexp.values import markdown as escaped

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

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
SATURATED = "saturated_count"


class Made(NamedTuple):
    """A comparison of a plan's cells, from which as much is laid out as can be read."""

    title: str
    table: pd.DataFrame
    cells: comparison.Layout
    remarks: list[str]
    frame: pd.DataFrame  # rows of metrics, one per cell and replica
    results: Results
    answer: Answer

    def first(self, conditions: int) -> Shown:
        """Lay out the first conditions; a remark says what is left out."""
        condition, variant = self.cells.condition, self.cells.variant
        if layout.one_variant_each(self.table, condition, variant):
            return Shown(self.title, layout.across(self.table, condition), self.remarks, as_data(self.answer))
        chosen, left_out = _first(self.table, self.cells, conditions)
        blocks = layout.lay_out(chosen, condition, variant)
        return Shown(self.title, blocks, self.remarks + left_out, as_data(self.answer))


def make(plan: "Plan", there: Store) -> Made | None:
    """Compare the plan's cells with its baseline; None where the folder has none of them.

    Rows of other plans in the same folder are left out.
    """
    results = planned(plan, there)
    frame = results.ordered(plan.columns)
    if frame.empty:
        return None
    baseline, remarks = _present_baseline(frame, plan.baseline)
    cells = comparison.arrange(frame, compared=list(baseline))
    asked = list(plan.metrics) or list(METRICS)
    marked = SATURATED not in asked and SATURATED in frame.columns and frame[SATURATED].eq(1).any()
    metrics = [*asked, SATURATED] if marked else asked  # which marks the cells, and is not judged
    ci = replication.SPENT if plan.reps.get("target") else CI
    table = comparison.compare(frame, baseline, metrics, ci=ci, judged=asked)
    remarks += notes(table, frame, cells.condition + cells.variant, baseline, ci)
    remarks += recordings.remarks(frame["config"].unique(), frame, metrics, cells.condition + cells.variant)
    remarks += replication.notes(plan, table)
    replication.grow(plan)
    if (missing := plan.lanes - len(frame)) > 0:
        remarks.append(f"Not simulated yet: {missing} replicas; the same command continues.")
    found = answer(plan, table, cells, frame, results.tables.read("series").to_pandas())
    return Made(f"{plan.name}: {_summary(frame)}", table, cells, remarks, frame, results, found)


def markdown(title: str, blocks: Sequence[Block], remarks: Iterable[str]) -> str:
    """Write the blocks as Markdown: one table per workload and condition."""
    lines = [f"# {escaped(title)}"]
    for block in blocks:
        lines += ["", f"## {escaped(block.title)}"] if block.title else []
        heads = ["<br>".join(map(escaped, name.split("\n"))) for name in block.variants]
        for section in block.sections:
            lines += ["", f"### {escaped(section.title)}"] if section.title else []
            lines += ["", _md_row(["metric", "", *heads]), "|---|---|" + "---:|" * len(heads)]
            lines += [
                _md_row([escaped(row.metric), escaped(row.unit), *map(_md_cell, row.cells)]) for row in section.rows
            ]
    return "\n".join([*lines, "", *(f"- {escaped(remark.strip())}" for remark in remarks), ""])


def _md_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md_cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    value = f"**{escaped(cell.value)}**" if cell.best else escaped(cell.value)
    return f"{value}<br>{escaped(cell.change)}" if cell.change else value


def _present_baseline(frame: pd.DataFrame, baseline: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the baseline, or none and a remark where no cell has its values."""
    if not baseline:
        return {}, ["There is no baseline: means only."]
    if comparison.has(frame, baseline):
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
