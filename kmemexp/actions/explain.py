"""`action=explain`: one lane again, with a log of its events; the circle of its deadlock and what led there."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.text import Text

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.boot.clock import is_timed
from kmemexp.boot.timed import Timed
from kmemexp.errors import ConfigError, StoreError
from kmemexp.lane import timed, witness
from kmemexp.lane.replica import prepare
from kmemexp.planning.plan import Plan
from kmemexp.report.results import load
from kmemexp.sim.engine.tables import glob
from kmemexp.values import visible

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

LOG_ROWS = 4096  # events kept
SHOWN = 60


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Simulate one lane of each plan again, with a log, and say how its deadlock came about."""
    for plan in plans:
        explain_lane(plan, Console())
    return COMPLETE


def explain_lane(plan: Plan, console: Console) -> None:
    """Print the deadlock of one lane of a plan, or the end of its run. Raises ConfigError."""
    stored = _stored(plan)
    cell = _cell(plan, stored)
    number = plan.replica if plan.replica is not None else _replica(cell["cell_key"], stored)
    config = json.loads(cell["config"])
    if not is_timed(config):
        raise ConfigError(
            "action=explain: this cell runs without a clock (cost=none), so nothing waits and deadlocks in it"
        )
    (replica,) = prepare(config, (number,))
    t = timed.run_out(timed.booted(replica, log_rows=LOG_ROWS), replica)
    show(t, console, f"cell {cell['cell_key'][:8]}, replica {number}: {_axes(cell)}")


def show(t: Timed, console: Console, title: str) -> None:
    """Print what happened to a lane that has ended."""
    console.print(Text(visible(title), style="bold"))
    if panic := timed.panic(t):
        console.print(Text(f'the historic kernel would have panicked: "{panic}"'), highlight=False)
    members = witness.members(t.wired)
    if members:
        console.print(
            f"deadlock at {members[0]['at_ns']:,} ns; each waits for the next, the last for the first:", highlight=False
        )
        for line in _circle(members):
            console.print(Text(visible(line)), highlight=False, soft_wrap=True)
    else:
        console.print(f"no deadlock; the run ended at {int(t.wired.m[glob.NOW]):,} ns", highlight=False)
    console.print(f"the last {SHOWN} events:", highlight=False)
    for line in witness.timeline(t.wired, SHOWN):
        console.print(Text(visible(line)), highlight=False, soft_wrap=True)


def _circle(members: list[dict[str, object]]) -> list[str]:
    """One line per member of the circle."""
    return [
        f"  {row['context']} on CPU {row['cpu']}, {row['state']}, {row['doing']}: "
        + (f"holds {row['holds']} since {row['holds_since_ns']:,} ns, " if row["holds"] else "")
        + f"waits for {row['waits_for']}"
        + (f" since {row['since_ns']:,} ns" if row["since_ns"] is not None else "")
        for row in members
    ]


def _stored(plan: Plan) -> pd.DataFrame:
    """Rows of the results folder with a deadlock; none where there is no folder yet."""
    try:
        metrics = load(plan.root).metrics
    except StoreError:
        return pd.DataFrame({"cell_key": [], "replica": []})
    return metrics[metrics["deadlock"] != ""]


def _cell(plan: Plan, stored: pd.DataFrame) -> pd.Series:
    """The cell asked for; else the first one that had a deadlock, else the only one."""
    cells = plan.cells
    if plan.cell:
        found = cells[cells["cell_key"].str.startswith(plan.cell)]
    else:
        found = cells[cells["cell_key"].isin(stored["cell_key"])].head(1)
        found = cells if found.empty else found
    if len(found) != 1:
        what = f"cell={plan.cell}: {len(found)} cells of this plan begin so" if plan.cell else "cell: is not given"
        raise ConfigError(
            f"{what}; there are {', '.join(k[:8] for k in cells['cell_key'].head(12))} (action=plan lists them)"
        )
    return found.iloc[0]


def _replica(key: str, stored: pd.DataFrame) -> int:
    rows = stored[stored["cell_key"] == key]
    return int(rows["replica"].iloc[0]) if len(rows) else 0


def _axes(cell: pd.Series) -> str:
    return ", ".join(f"{k}={v}" for k, v in json.loads(cell["axes"]).items())
