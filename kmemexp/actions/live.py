"""`action=live`: the tables of what is committed so far, while a run goes on elsewhere; writes nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from kmemexp.actions import status
from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.planning.plan import Plan
from kmemexp.report import closing, terminal
from kmemexp.store import store

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Show how much of each plan is done, and its comparison so far. Raises StoreError where there is nothing."""
    from kmemexp.report import tables  # noqa: PLC0415 - brings pandas

    code = COMPLETE
    for plan in plans:
        console = terminal.make_console(plan.output)
        code = max(code, status.show(plan, console))
        if told := closing.too_many(plan):
            console.print(Text(told), soft_wrap=True)
            continue
        made = tables.make(plan, store.with_results(plan.root))
        if made is None:
            console.print(Text(f"{plan.name}: none of its rows is in {plan.root} yet."), soft_wrap=True)
        else:
            terminal.show(made.first(tables.SHOWN), console, tables=plan.tables)
    return code
