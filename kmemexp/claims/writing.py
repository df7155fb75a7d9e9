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
    from kmemexp.claims.protocol import Stage

NAME = "_experiments"
CONFIRMED = "_confirmed"  # folder of confirmations, beside the explorations
LOCAL = Path("results")  # where reports go if the results are at a URI
STYLES = {"holds": "green", "fails": "red", "holds in part": "yellow"}
SHOWN = ("claim", "verdict", "where", "evidence")
PNG_SCALE = 2
LARGE_CHART, LARGE_TABLE = 300_000, 30_000  # bytes


def home(root: str) -> Path:
    """Folder of all reports, beside a sweep's results folder `root`."""
    return (LOCAL.absolute() if "://" in root else Path(root).parent) / NAME


def show(title: str, report: "Report", stage: "Stage", console: Console) -> None:
    """Print the title, the verdicts, the summary and the protocol."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in SHOWN:
        table.add_column(name, overflow="fold")
    for verdict in report.verdicts:
        texts = verdict._asdict() | {"verdict": _noted(verdict.verdict, verdict.note)}
        cells = [Text(str(texts[name])) for name in SHOWN]
        cells[1].stylize(STYLES.get(verdict.verdict, "dim"))
        table.add_row(*cells)
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)
    console.print(Text(report.summary))
    console.print(Text(stage.note, style="dim"))
    console.print()


def _noted(verdict: str, note: str) -> str:
    return f"{verdict} ({note})" if note else verdict


def write(folder: Path, title: str, report: "Report", stage: "Stage") -> None:
    """Write a report in place of an earlier one."""
    forget(folder)
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = pd.DataFrame(report.verdicts, columns=list(report.verdicts[0]._fields) if report.verdicts else SHOWN)
    verdicts = verdicts.assign(stage=stage.name, protocol=stage.digest)
    verdicts.to_csv(folder / "verdicts.csv", index=False)
    text = f"# {title}\n\n{report.summary}\n\n{stage.note}\n\n{markdown(_shown(verdicts))}"
    (folder / "verdicts.md").write_text(text, "utf-8")
    for name, table in report.tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
        (folder / f"{name}.md").write_text(markdown(table), "utf-8")
    for name, chart in report.charts.items():
        chart.save(folder / f"{name}.svg")
        chart.save(folder / f"{name}.png", scale_factor=PNG_SCALE)


def _shown(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Columns of the verdicts for reading."""
    notes = verdicts["note"].astype(object).fillna("") if "note" in verdicts else [""] * len(verdicts)
    words = [_noted(word, note) for word, note in zip(verdicts["verdict"], notes, strict=True)]
    return verdicts.assign(verdict=words)[list(SHOWN)]


def forget(folder: Path) -> None:
    """Take an earlier report away, so that it does not stand for a run that had no verdict."""
    for path in folder.glob("*"):
        if path.suffix in (".csv", ".md", ".svg", ".png"):
            path.unlink()


def publish(folder: Path, to: Path) -> None:
    """Copy a report's charts, short tables and verdicts to another folder, each named after the experiment.

    A chart of very many marks goes there as PNG, which is shorter. What was published of it before is taken away.
    """
    to.mkdir(parents=True, exist_ok=True)
    for old in to.glob(f"{folder.name}_*"):
        old.unlink()
    charts = [p if p.stat().st_size <= LARGE_CHART else p.with_suffix(".png") for p in sorted(folder.glob("*.svg"))]
    tables = [p for p in sorted(folder.glob("*.md")) if p.stat().st_size <= LARGE_TABLE]
    for path in [*charts, *tables, folder / "verdicts.csv"]:
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
    shown = _shown(table).assign(experiment=table["experiment"], stage=table.get("stage", "explored"))
    (folder / "verdicts.md").write_text(markdown(shown[["experiment", *SHOWN, "stage"]]), "utf-8")
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
