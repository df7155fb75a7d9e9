"""`action=status`: how much of each plan is done, and who is at it; exit code 2 with failed rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from kmemexp.actions.exit_codes import COMPLETE, FAILED
from kmemexp.actions.standing import show_facts, standing
from kmemexp.errors import StoreError
from kmemexp.planning.plan import Plan

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Say how much of each plan is done. Runs in work elsewhere are not disturbed."""
    return max([show(plan, Console(quiet=plan.output != "text")) for plan in plans])


def show(plan: Plan, console: Console) -> int:
    """Print how much of a plan is done. Returns the exit code."""
    counts, note = standing(plan)
    facts = {"results": plan.root} | {name: f"{count:,}" for name, count in counts.items()}
    drivers = _drivers(plan)
    if drivers:
        facts["running"] = f"{sum(int(state.get('running', 0)) for state in drivers.values()):,}"
    facts |= {f"run by {who}": _said(state) for who, state in drivers.items()}
    show_facts(console, plan, facts, note)
    return FAILED if counts["failed"] else COMPLETE


def _drivers(plan: Plan) -> dict[str, dict[str, Any]]:
    if "://" not in plan.root and not Path(plan.root).exists():
        return {}
    from kmemexp.store import store  # noqa: PLC0415 - slow to import

    try:
        return store.Store(plan.root).drivers()
    except StoreError:
        return {}


def _said(state: Mapping[str, Any]) -> str:
    """Say how far a run has come: its rate, and the time that is left."""
    if not state:
        return "has not said how far it is"
    done, seconds, left = state["done"], state["seconds"], state["left"]
    rate = f", {done / seconds:.3g} rows/s" if done and seconds > 0 else ""
    failed = f", {state['failed']:,} failed" if state["failed"] else ""
    end = f", about {left:.0f} s left" if left and done < state["rows"] else ""
    return f"{done:,} of {state['rows']:,} rows{failed}{rate}{end}"
