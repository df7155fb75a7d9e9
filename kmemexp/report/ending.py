"""The end of a sweep: its answer on the terminal, its tables and its report in the results folder."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from kmemexp.report import closing, kept, terminal
from kmemexp.report.closing import NAME, REPORT
from kmemexp.report.shown import Shown
from kmemexp.store.schema import DONE
from kmemexp.store.store import Store, with_results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from kmemexp.planning.plan import Plan
    from kmemexp.report.html.witness import Witness

    Witnesses = Callable[[Plan, pd.DataFrame], Sequence[Witness]]


def finish(
    plan: "Plan", console: Console | None = None, *, anew: bool = False, witnesses: "Witnesses | None" = None
) -> None:
    """Compare the plan's cells with its baseline, print the answer and write `tables/_comparison.*` and the report.

    Tables that stand there and are made of just this are not made again (`kept.py`), unless asked for `anew`. Rows of
    other plans in the same folder are left out. `witnesses` simulates deadlocked lanes again for the report. Raises
    StoreError if the folder holds no results.
    """
    console = console or terminal.make_console(plan.output)
    there = with_results(plan.root)
    if told := closing.too_many(plan):
        console.print(Text(told), soft_wrap=True)
        return
    made_of = kept.made_of(plan, there)
    shown = None if anew else kept.stored(there, made_of, REPORT if plan.report else "")
    if shown:
        closing.say(closing.of(plan), shown, console)
    elif shown := _make(plan, there, made_of, console, witnesses):
        closing.end(closing.of(plan), shown, console)
    else:
        console.print(Text(f"{plan.name}: none of its {len(plan.columns['cell_key'])} cells is in {plan.root} yet."))


def standing(plan: "Plan") -> Shown | None:
    """What `finish` shows of a plan as it stands; None where a row is not done, or there is anything to be done."""
    there = with_results(plan.root)
    wanted = [(key, plan.count_of(key)) for key in plan.columns["cell_key"]]
    if there.counts_of(wanted) != {DONE: plan.lanes} or not there.settled():
        return None
    return kept.stored(there, kept.made_of(plan, there), REPORT if plan.report else "")


def _make(plan: "Plan", there: Store, made_of: str, console: Console, witnesses: "Witnesses | None") -> Shown | None:
    """Make the tables, print and write them. None where there are no rows."""
    from kmemexp.report import tables  # noqa: PLC0415 - with it comes pandas, which a rerun does without

    made = tables.make(plan, there)
    if made is None:
        return None
    written = made.first(tables.WRITTEN)
    shown = terminal.show(made.first(tables.SHOWN), console, tables=plan.tables)
    store = Store(plan.root, write=True)
    kept.forget(store)
    marks = store.write_table(NAME, made.table)
    marks |= store.write_text(f"{NAME}.md", tables.markdown(plan.name, written.blocks, written.remarks))
    if plan.report:
        from kmemexp.report.html import page  # noqa: PLC0415 - with it come Altair and vl-convert

        html = page.render(plan, made, witnesses(plan, made.frame) if witnesses else ())
        marks |= store.write_text(REPORT, html)
    if made_of and kept.made_of(plan, there) == made_of:  # else something changed while it was read
        kept.keep(store, shown, made_of, marks)
    return shown
