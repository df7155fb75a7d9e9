"""The table of checks: on the terminal, as one HTML page, as Parquet."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmemexp.validate.rows import DECIDES, LEFT_OUT, Row, failures
from kmemexp.values import visible

NAME = "_validate"
LOCAL = Path("results")  # where the table goes if the results are at a URI
HEADS = ("check", "what", "source", "expected", "measured", "deviation", "within", "grade", "result")
NUMBERS = {3, 4, 5, 6}
STYLES = {"pass": "green", "FAIL": "bold red", "beside": "dim", LEFT_OUT: "yellow"}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px system-ui, sans-serif; margin: 2rem; color: #1f2328; background: #fff }}
table {{ border-collapse: collapse }} th, td {{ padding: .25rem .6rem; text-align: left; vertical-align: top }}
th {{ border-bottom: 2px solid #8c959f; position: sticky; top: 0; background: #fff }}
tr {{ border-bottom: 1px solid #d0d7de }} td.n {{ text-align: right; font-variant-numeric: tabular-nums }}
.pass {{ color: #1a7f37 }} .FAIL {{ color: #cf222e; font-weight: 700 }} .beside, .left {{ color: #59636e }}
.note {{ color: #59636e; font-size: 12px }}
</style></head><body><h1>{title}</h1><p>{summary}</p>
<table><thead><tr>{heads}</tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def home(root: str) -> Path:
    """Folder of the table, beside a sweep's results folder `root`."""
    return (LOCAL.absolute() if "://" in root else Path(root).parent) / NAME


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """The table as a data frame: the fields of a Row, deviation and result."""
    table = pd.DataFrame(rows, columns=list(Row._fields))
    table.insert(5, "deviation", [row.deviation for row in rows])
    table["passed"] = table["passed"].astype("boolean")
    return table.assign(result=[result(row) for row in rows])


def result(row: Row) -> str:
    """In a word."""
    if row.passed is None:
        return LEFT_OUT if row.note.startswith(LEFT_OUT) else "beside"
    if row.grade not in DECIDES:
        return "beside"
    return "pass" if row.passed else "FAIL"


def summary(rows: Sequence[Row], seed: int, level: str, seconds: float) -> str:
    """In a sentence."""
    words = [result(row) for row in rows]
    counts = ", ".join(f"{words.count(word)} {name}" for word, name in
                       (("pass", "pass"), ("FAIL", "fail"), ("beside", "stand beside"), (LEFT_OUT, LEFT_OUT))
                       if words.count(word))  # fmt: skip
    return f"seed {seed}, level {level}: {len(rows)} rows, {counts}; {seconds:.0f} s"


def show(rows: Sequence[Row], title: str, told: str, console: Console) -> None:
    """Print the table, and below it what fails, and why rows are left out."""
    table = Table(
        title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0
    )
    for k, name in enumerate(HEADS):
        width = {1: 14, 2: 6}.get(k)
        table.add_column(name, justify="right" if k in NUMBERS else "left", overflow="fold", min_width=width,
                         no_wrap=width is None)  # fmt: skip
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in failures(rows):
        text = f"FAIL {row.check}: {row.what}: expected {_number(row.expected)}, measured {_number(row.measured)}"
        console.print(Text(visible(f"{text} {row.note}"), style="red"), soft_wrap=True)
    for row in rows:
        if result(row) == LEFT_OUT:
            why = row.note.removeprefix(f"{LEFT_OUT}: ")
            console.print(Text(visible(f"{LEFT_OUT} {row.check}: {row.what}: {why}"), style=STYLES[LEFT_OUT]))
    console.print(Text(told), soft_wrap=True)


def _cells(row: Row) -> Iterable[Text]:
    word = result(row)
    texts = [row.check, row.what, row.source, *map(_number, (row.expected, row.measured, row.deviation)),
             _number(row.tolerance), row.grade, word]  # fmt: skip
    for k, text in enumerate(texts):
        yield Text(visible(text), style=STYLES[word] if k == len(texts) - 1 else "")


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.5g}"


def write(folder: Path, name: str, rows: Sequence[Row], title: str, told: str) -> list[Path]:
    """Write the table as Parquet and as one page of HTML. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    parquet, page = folder / f"{name}.parquet", folder / f"{name}.html"
    frame(rows).to_parquet(parquet, index=False)
    page.write_text(html(rows, title, told), "utf-8")
    return [parquet, page]


def html(rows: Sequence[Row], title: str, told: str) -> str:
    """Make the page; it needs no other file."""
    heads = "".join(f"<th>{name}</th>" for name in HEADS)
    return PAGE.format(
        title=escape(title), summary=escape(told), heads=heads, rows="\n".join(map(_html_row, rows))
    )  # fmt: skip


def _html_row(row: Row) -> str:
    word = result(row)
    cells = [escape(visible(text.plain)) for text in _cells(row)]
    cells[1] += f' <span class="note">{escape(visible(row.note))}</span>' if row.note else ""
    marked = [f"<td{' class=n' if k in NUMBERS else ''}>{cell}</td>" for k, cell in enumerate(cells[:-1])]
    return f'<tr>{"".join(marked)}<td class="{word}">{word}</td></tr>'
