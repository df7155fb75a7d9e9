"""A comparison on the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmemexp.report import labels, screen, told
from kmemexp.report.shown import Block, Cell, Row, Section, Shown
from kmemexp.values import visible

STYLES = {"better": "green", "worse": "red", "equivalent": "dim", "inconclusive": "dim"}
PLAIN_WIDTH = 80  # columns, where the output is not a terminal
PADDING = 2  # between two columns
SCREEN = 30  # lines of a table that is shown with the answer


def make_console(output: str = "text") -> Console:
    """Console on stdout, of 80 columns at least where the output goes into a file; silent unless `output` is "text"."""
    console = Console(quiet=output != "text")
    return console if console.is_terminal else Console(width=max(console.width, PLAIN_WIDTH), quiet=console.quiet)


def show(shown: Shown, console: Console, *, tables: str = "all") -> Shown:
    """Print a comparison. Returns it with what was printed: on a console that looks the same, that is printed again.

    `tables`: "answer" for one screen, with the table where it is short; "all" for every table and all remarks.
    """
    if console.legacy_windows:  # has no codes for colours
        _print(shown, console, tables)
    if console.quiet or console.legacy_windows:
        return shown
    marks = (console.size.width, console.color_system, console.is_terminal, console.no_color, console.encoding)
    look = " ".join(map(str, (tables, *marks)))
    if shown.look != look:
        with console.capture() as capture:
            _print(shown, console, tables)
        shown = shown._replace(look=look, text=capture.get())
    console.file.write(shown.text)
    console.file.flush()
    return shown


def _print(shown: Shown, console: Console, tables: str) -> None:
    """Print the title, the answer, and the tables with their remarks where they are short or asked for."""
    found = told.from_data(shown.answer)
    console.print(Text(visible(f"\n{shown.title}"), style="bold"))
    console.print(Text(visible(found.question)))
    every = tables == "all"
    if every or _length(shown.blocks, console.width) <= SCREEN:
        _tables(shown, console)
    if every:
        for remark in shown.remarks:
            console.print(Text(visible(remark), style="dim"))
    for line, style in screen.lines(found, console.width):
        console.print(Text(visible(line), style=style), highlight=False)


def _tables(shown: Shown, console: Console) -> None:
    """Print the blocks, each split into as many tables as the width demands, and what their labels mean."""
    for block in shown.blocks:
        for chosen in columns_that_fit(block, console.width):
            console.print(_table(block, chosen))
            console.print()
    for label, name, text in labels.legend(row.metric for b in shown.blocks for s in b.sections for row in s.rows):
        console.print(Text(visible(f"{label}: {name}{f', {text}' if text else ''}"), style="dim"))


def _length(blocks: Sequence[Block], width: int) -> int:
    """Lines that the tables take."""
    return sum(
        (4 + sum(1 + sum(1 + any(c and c.change for c in row.cells) for row in s.rows) for s in block.sections))
        * len(columns_that_fit(block, width))
        for block in blocks
    )


def columns_that_fit(block: Block, width: int) -> list[list[int]]:
    """Split the variants into tables that fit the width; each repeats the baseline, which is the first variant."""
    rows = [row for section in block.sections for row in section.rows]
    heads = max((len(_label(row)) for row in rows), default=0), max((len(row.unit) for row in rows), default=0)
    wide = [
        max([*map(len, name.splitlines()), *(len(line) for row in rows for line in _lines(row.cells[i]))]) + PADDING
        for i, name in enumerate(block.variants)
    ]
    repeated = [0] if block.variants and block.variants[0].endswith("(baseline)") else []
    left = width - sum(heads) - 3 * PADDING
    tables: list[list[int]] = [[]]
    for i in range(len(block.variants)):
        if len(tables[-1]) > len(repeated) and sum(wide[j] for j in tables[-1]) + wide[i] > left:
            tables.append(list(repeated))
        tables[-1].append(i)
    return tables


def _table(block: Block, chosen: list[int]) -> Table:
    table = Table(
        title=Text(visible(block.title), style="bold"), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False
    )
    table.add_column("metric")
    table.add_column("")
    for i in chosen:
        table.add_column(Text(visible(block.variants[i])), justify="right")
    for section in block.sections:
        _add_section(table, section, chosen)
    return table


def _add_section(table: Table, section: Section, chosen: list[int]) -> None:
    table.add_section()
    if section.title:
        table.add_row(Text(visible(section.title), style="bold cyan"))
    for row in section.rows:
        table.add_row(Text(visible(_label(row))), Text(visible(row.unit)), *(_cell(row.cells[i]) for i in chosen))


def _label(row: Row) -> str:
    return labels.short(row.metric)


def _cell(cell: Cell | None) -> Text:
    if cell is None:
        return Text("-")
    value, *change = _lines(cell) or ["-"]
    text = Text(value, style="bold" if cell.best else "")
    for line in change:
        text.append("\n").append(line, style=f"not bold {STYLES.get(cell.verdict, '')}".strip())
    return text


def _lines(cell: Cell | None) -> list[str]:
    return [line for line in (cell.value, cell.change) if line] if cell else []
