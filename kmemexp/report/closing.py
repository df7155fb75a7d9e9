"""The last words of a sweep: what is printed of its tables, and where they are. Needs no tables, and no store."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.text import Text

from kmemexp.report import terminal
from kmemexp.report.shown import MOST_CELLS, Shown

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

NAME = "tables/_comparison"
REPORT = "_report.html"


class Closing(NamedTuple):
    """What the last words depend on, as a plan has it, beside what is shown."""

    name: str
    root: str
    output: str
    tables: str
    report: bool
    notes: Sequence[str]


def too_many(plan: "Plan") -> str:
    """Say that a plan has more cells than tables and a report are made of, and how to read them; "" otherwise."""
    count = len(plan.columns["cell_key"])
    return "" if count <= MOST_CELLS else (
        f"{plan.name}: a plan of {count:,} cells. Tables and a report are made of at most {MOST_CELLS:,}; "
        f'kmemexp.load("{plan.root}", metrics=["held_peak_bytes"]) reads these.'
    )  # fmt: skip


def of(plan: "Plan") -> Closing:
    """What a plan says of it."""
    return Closing(plan.name, plan.root, plan.output, plan.tables, plan.report, tuple(plan.notes))


def say(closing: Closing, shown: Shown, console: Console | None = None) -> None:
    """Print what is shown, and the last words."""
    console = console or terminal.make_console(closing.output)
    terminal.show(shown, console, tables=closing.tables)
    end(closing, shown, console)


def end(closing: Closing, shown: Shown, console: Console) -> None:
    """Print the last words."""
    if closing.output == "json":
        print(json.dumps(_data(closing, shown), ensure_ascii=False))  # noqa: T201
    for note in closing.notes:
        console.print(Text(f"Note: {note}."))
    if closing.report:
        console.print(Text(f"Report: {closing.root}/{REPORT}"), soft_wrap=True)
    console.print(Text(f"Full table: {closing.root}/{NAME}.parquet, .csv, .md", style="dim"), soft_wrap=True)
    if closing.tables != "all":
        console.print(Text("On the screen: the same command with --verbose.", style="dim"))


def _data(closing: Closing, shown: Shown) -> dict[str, object]:
    """What `output=json` prints of a sweep."""
    files = {kind: f"{closing.root}/{NAME}.{kind}" for kind in ("parquet", "csv", "md")}
    files |= {"report": f"{closing.root}/{REPORT}"} if closing.report else {}
    return {"sweep": closing.name, "title": shown.title, **shown.answer, "remarks": shown.remarks, "files": files}
