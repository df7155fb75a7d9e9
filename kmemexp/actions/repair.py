"""`action=repair`: take out what is damaged in a results folder, and simulate just these rows again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from kmemexp.actions import check
from kmemexp.actions.exit_codes import COMPLETE, FAILED, SIGNALLED
from kmemexp.planning.plan import Plan
from kmemexp.store import checking
from kmemexp.store.checking import Repaired
from kmemexp.sweep.execute import execute

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Repair the results of each plan. Raises StoreError where there are none."""
    worst = COMPLETE
    for plan in plans:
        code = _repair(plan, Console())
        if code not in (COMPLETE, FAILED):
            return code
        worst = max(worst, code)
    return worst


def _repair(plan: Plan, console: Console) -> int:
    found = checking.repair(plan.root)
    if not found.damages:
        console.print(Text(f"{plan.name}: nothing is damaged in {plan.root}"), soft_wrap=True)
        return COMPLETE
    check.show(plan.root, found.damages, console)
    mine = set(plan.columns["cell_key"])
    rows = {(key, r) for key, replicas in found.rows.items() if key in mine for r in replicas if r < plan.replicas}
    outcome = execute(plan, progress=None if plan.progress else False, only=None if found.manifests else rows)
    console.print(Text(_said(plan, found, len(rows), outcome.done)), soft_wrap=True)
    if outcome.interrupted:
        return SIGNALLED + outcome.signal
    return FAILED if outcome.failed else COMPLETE


def _said(plan: Plan, found: Repaired, rows: int, done: int) -> str:
    others = sum(map(len, found.rows.values())) - rows
    text = (
        f"{plan.name}: {len(found.damages)} damaged files are in {plan.root}/_quarantine/; {done} rows simulated again."
    )
    if others:
        text += (
            f" {others} rows of other plans, or of an earlier version of the model, were in these files too: run those "
            "plans again, where you need them."
        )
    return text
