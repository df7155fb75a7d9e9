"""The end of a sweep: its tables on the terminal, and as Parquet, CSV and Markdown in the results folder."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from kmemexp.report import kept, terminal
from kmemexp.store.store import Store, with_results

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

NAME = "tables/_comparison"


def finish(plan: "Plan", console: Console | None = None, *, anew: bool = False) -> None:
    """Compare the plan's cells with its baseline, print the tables and write them to `tables/_comparison.*`.

    Tables that stand there and are made of just this are not made again (`kept.py`), unless asked for `anew`. Rows of
    other plans in the same folder are left out. Raises StoreError if the folder holds no results.
    """
    console = console or terminal.make_console()
    there = with_results(plan.root)
    made_of = kept.made_of(plan, there)
    if not anew and (shown := kept.stored(there, made_of)):
        terminal.show(shown, console)
    elif not _make(plan, there, made_of, console):
        console.print(Text(f"{plan.name}: none of its {len(plan.columns['cell_key'])} cells is in {plan.root} yet."))
        return
    for note in plan.notes:
        console.print(Text(f"Note: {note}."))
    console.print(Text(f"Full table: {plan.root}/{NAME}.parquet, .csv, .md", style="dim"), soft_wrap=True)


def _make(plan: "Plan", there: Store, made_of: str, console: Console) -> bool:
    """Make the tables, print and write them. False where there are no rows."""
    from kmemexp.report import tables  # noqa: PLC0415 - with it comes pandas, which a rerun does without

    made = tables.make(plan, there)
    if made is None:
        return False
    written = made.first(tables.WRITTEN)
    shown = terminal.show(made.first(tables.SHOWN), console)
    store = Store(plan.root, write=True)
    kept.forget(store)
    marks = store.write_table(NAME, made.table)
    marks |= store.write_text(f"{NAME}.md", tables.markdown(plan.name, written.blocks, written.remarks))
    if made_of and kept.made_of(plan, there) == made_of:  # else something changed while it was read
        kept.keep(store, shown, made_of, marks)
    return True
