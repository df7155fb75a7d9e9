"""`action=check`: read every byte of a results folder; exit code 2 where something is damaged."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmemexp.actions.exit_codes import COMPLETE, FAILED
from kmemexp.planning.plan import Plan
from kmemexp.store import checking
from kmemexp.store.checking import Damage
from kmemexp.values import visible

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Check the results of each plan. Raises StoreError where there are none."""
    return max([_check(plan, Console()) for plan in plans])


def show(root: str, damages: Sequence[Damage], console: Console) -> None:
    """Print what is damaged."""
    table = Table(title=Text(f"damaged in {root}"), title_justify="left")
    for name in ("file", "what is wrong", "rows"):
        table.add_column(name, overflow="fold")
    for damage in damages:
        table.add_row(Text(visible(damage.path)), Text(visible(damage.wrong)), str(damage.rows or ""))
    console.print(table)


def _check(plan: Plan, console: Console) -> int:
    history, damages = checking.examine(plan.root)
    counts = history.ledger.counts()
    files = sum(1 for _ in history.ledger.paths())
    if damages:
        show(plan.root, damages, console)
        console.print(Text("Run the same command with action=repair: it simulates these rows again."), soft_wrap=True)
    wrong = f"{len(damages)} damaged" if damages else "nothing wrong"
    text = f"{plan.name}: {sum(counts.values()):,} rows in {files:,} files, {history.next:,} manifests: {wrong}"
    console.print(Text(text), soft_wrap=True)
    return FAILED if damages else COMPLETE
