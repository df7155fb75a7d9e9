"""What an experiment reports: on the terminal, and as CSV, Markdown, SVG and PNG in `<store.root>/_experiments/`."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmemexp.values import markdown as escaped

if TYPE_CHECKING:
    from kmemexp.claims.judging import Report

NAME = "_experiments"
LOCAL = Path("results")  # where reports go if the results are at a URI
STYLES = {"holds": "green", "fails": "red", "holds in part": "yellow"}
SHOWN = ("claim", "verdict", "where", "evidence")
PNG_SCALE = 2
LARGE_CHART, LARGE_TABLE = 300_000, 20_000  # bytes


def home(root: str) -> Path:
    """Folder of all reports, beside a sweep's results folder `root`."""
    return (LOCAL.absolute() if "://" in root else Path(root).parent) / NAME


def show(title: str, report: "Report", console: Console) -> None:
    """Print the title, the verdicts and the summary."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in SHOWN:
        table.add_column(name, overflow="fold")
    for verdict in report.verdicts:
        cells = [Text(str(getattr(verdict, name))) for name in SHOWN]
        cells[1].stylize(STYLES.get(verdict.verdict, "dim"))
        table.add_row(*cells)
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)
    console.print(Text(report.summary))
    console.print()


def write(folder: Path, title: str, report: "Report") -> None:
    """Write a report in place of an earlier one."""
    forget(folder)
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = pd.DataFrame(report.verdicts, columns=list(report.verdicts[0]._fields) if report.verdicts else SHOWN)
    verdicts.to_csv(folder / "verdicts.csv", index=False)
    text = f"# {title}\n\n{report.summary}\n\n{markdown(verdicts[list(SHOWN)])}"
    (folder / "verdicts.md").write_text(text, "utf-8")
    for name, table in report.tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
        (folder / f"{name}.md").write_text(markdown(table), "utf-8")
    for name, chart in report.charts.items():
        chart.save(folder / f"{name}.svg")
        chart.save(folder / f"{name}.png", scale_factor=PNG_SCALE)


def forget(folder: Path) -> None:
    """Take an earlier report away, so that it does not stand for a run that had no verdict."""
    for path in folder.glob("*"):
        if path.suffix in (".csv", ".md", ".svg", ".png"):
            path.unlink()


def publish(folder: Path, to: Path) -> None:
    """Copy a report's charts and its short tables to another folder, each named after the experiment.

    A chart of very many marks goes there as PNG, which is shorter.
    """
    to.mkdir(parents=True, exist_ok=True)
    charts = [p if p.stat().st_size <= LARGE_CHART else p.with_suffix(".png") for p in sorted(folder.glob("*.svg"))]
    tables = [p for p in sorted(folder.glob("*.md")) if p.stat().st_size <= LARGE_TABLE]
    for path in [*charts, *tables]:
        shutil.copyfile(path, to / f"{folder.name}_{path.name}")


def gather(folder: Path, names: Sequence[str]) -> int:
    """Write one table of the verdicts of all experiments that have been run. Returns how many there are."""
    found = [
        pd.read_csv(path).assign(experiment=name) for name in names if (path := folder / name / "verdicts.csv").exists()
    ]
    if not found:
        return 0
    table = pd.concat(found, ignore_index=True)
    table = table[["experiment", *(column for column in table.columns if column != "experiment")]]
    table.to_csv(folder / "verdicts.csv", index=False)
    (folder / "verdicts.md").write_text(markdown(table[["experiment", *SHOWN]]), "utf-8")
    return len(table)


def markdown(table: pd.DataFrame) -> str:
    """Write a table as Markdown, numbers to the right, four digits of what is not whole."""
    right = [pd.api.types.is_numeric_dtype(table[name]) for name in table.columns]
    rows = [[escaped(str(name)) for name in table.columns], ["---:" if r else "---" for r in right]]
    rows += [[_text(value) for value in row] for row in table.itertuples(index=False, name=None)]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _text(value: Any) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "-"
        return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1e4 else f"{value:.4g}"
    return "-" if value is None or value is pd.NA else escaped(str(value))
