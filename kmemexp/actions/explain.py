"""`action=explain`: one lane again, with a log of its events; the circle of its deadlock and what led there."""

import json
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.text import Text

from kmemexp.boot import timed
from kmemexp.errors import ConfigError, StoreError
from kmemexp.lane import timed as timed_lane
from kmemexp.lane import witness
from kmemexp.metrics import PANICS
from kmemexp.sim import probes as a
from kmemexp.sim.engine import machine as mc
from kmemexp.workload import stability
from kmemexp.workload.build import build

if TYPE_CHECKING:
    from kmemexp.plan.plan import Plan

LOG_ROWS = 4096  # events kept
SHOWN = 60


def explain_lane(plan: "Plan", console: Console) -> None:
    """Print the deadlock of one lane of a plan, or the end of its run. Raises ConfigError."""
    stored = _stored(plan)
    cell = _cell(plan, stored)
    replica = plan.replica if plan.replica is not None else _replica(cell["cell_key"], stored)
    config = json.loads(cell["config"])
    if not timed.is_timed(config):
        raise ConfigError(
            "action=explain: this cell runs without a clock (cost=none), so nothing waits and deadlocks in it"
        )
    config = stability.routed(config)
    load = build(config["workload"], cpus=config["machine"]["cpus"], seed=config["seed"], replicas=(replica,))
    load = stability.protect(load, config, (replica,), reads=False)
    handlers = load.handlers[0] if load.handlers else None
    t = timed.boot(config, load.kinds, load.streams[0], replica, handlers=handlers, log_rows=LOG_ROWS)
    t = timed_lane.advance(t, timed_lane.limit_ns(config, load.streams[0]))
    show(t, console, f"cell {cell['cell_key'][:8]}, replica {replica}: {_axes(cell)}")


def show(t: timed.Timed, console: Console, title: str) -> None:
    """Print what happened to a lane that has ended."""
    m = t.wired.m
    console.print(Text(title, style="bold"))
    panic = PANICS[t.world.counters[a.A_PANIC] or m[mc.N_PANIC]]
    if panic:
        console.print(Text(f'the historic kernel would have panicked: "{panic}"'), highlight=False)
    members = witness.members(t.wired)
    if members:
        console.print(
            f"deadlock at {members[0]['at_ns']:,} ns; each waits for the next, the last for the first:", highlight=False
        )
        for line in _circle(members):
            console.print(Text(line), highlight=False, soft_wrap=True)
    else:
        console.print(f"no deadlock; the run ended at {int(m[mc.G_NOW]):,} ns", highlight=False)
    console.print(f"the last {SHOWN} events:", highlight=False)
    for line in witness.timeline(t.wired, SHOWN):
        console.print(Text(line), highlight=False, soft_wrap=True)


def _circle(members: list[dict[str, object]]) -> list[str]:
    """One line per member of the circle."""
    return [
        f"  {row['context']} on CPU {row['cpu']}, {row['state']}, {row['doing']}: "
        + (f"holds {row['holds']} since {row['holds_since_ns']:,} ns, " if row["holds"] else "")
        + f"waits for {row['waits_for']}"
        + (f" since {row['since_ns']:,} ns" if row["since_ns"] is not None else "")
        for row in members
    ]


def _stored(plan: "Plan") -> pd.DataFrame:
    """Rows of the results folder with a deadlock; none where there is no folder yet."""
    from kmemexp.report.results import load  # noqa: PLC0415 - only where there are results

    try:
        metrics = load(plan.root).metrics
    except StoreError:
        return pd.DataFrame({"cell_key": [], "replica": []})
    return metrics[metrics["deadlock"] != ""]


def _cell(plan: "Plan", stored: pd.DataFrame) -> pd.Series:
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
