"""`action=plan`: what a run would do and cost; starts nothing and writes nothing."""

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmemexp.actions.exit_codes import COMPLETE
from kmemexp.actions.standing import show_facts, standing
from kmemexp.metrics import NAMES, SERIES
from kmemexp.planning.plan import Plan
from kmemexp.sim.slots import PAGE
from kmemexp.sweep.batches import RATE_OPS, work
from kmemexp.values import size_text, visible

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

ROWS_SHOWN = 10
WORKER_BYTES = 450 << 20  # of a process that has loaded its compiled code, measured
OPERATION_BYTES = 54  # a row of a stream (22) and of the table of objects (32)
OWNED_BYTES = 30  # for each page of a memory that the load fills, measured: tag, links, owner, the owners themselves
ROW_BYTES = 600  # a row of metrics in Parquet, without the numbers
MAPS = 4  # maps with snapshots, about
SHRUNK = 0.4  # size of series and snapshots in Parquet against plain arrays, about


def act(plans: Sequence[Plan], loader: "ConfigLoader | None" = None) -> int:
    """Say of each plan what a run would do and cost."""
    for plan in plans:
        console = Console(quiet=plan.output != "text")
        counts, note = standing(plan)
        axes = {f"axis {name}": ", ".join(values) for name, values in _axes(plan).items()}
        show_facts(console, plan, _facts(plan, counts) | axes, note)
        cells = len(plan.columns["cell_key"])
        console.print(f"first {min(ROWS_SHOWN, cells)} of {cells} cells", style="bold", highlight=False)
        console.print(_first_rows(plan))
    return COMPLETE


def _facts(plan: Plan, counts: dict[str, int]) -> dict[str, str]:
    """What a run would do and cost. `counts`: rows by status."""
    cells = len(plan.columns["cell_key"])
    todo = counts["missing"] + (counts["failed"] if plan.retry_failed else 0)
    pairs = zip(plan.columns["est_ops"], plan.columns["timed"], strict=True)
    cpu_s = float(sum(work(ops, timed=timed) for ops, timed in pairs)) * plan.lanes / cells / RATE_OPS
    cpus = _cpus(plan)
    left_s = cpu_s * todo / plan.lanes
    return {
        "cells": f"{cells} ({plan.excluded} excluded, {plan.collapsed} equal to another)",
        "replicas": _replicas(plan),
        "standing": ", ".join(f"{count} {status}" for status, count in counts.items()),
        "operations": f"{sum(plan.columns['est_ops']) * plan.lanes / cells:.3g} estimated",
        "CPU time": f"{_duration(cpu_s)}, of which {_duration(left_s)} to do (at {RATE_OPS:.0e} operations/s, "
        f"a sixth of that with a clock)",
        "wall time": f"{_duration(left_s / cpus)} on {cpus} CPUs ({plan.cluster['runner']}, {plan.cluster['address']})",
        "memory": f"about {size_text(_lane_bytes(plan) >> 20 << 20)} for a worker and its largest lane, "
        "and up to as much again as the load's objects take (a tenth where addresses have 64 bits)",
        "results": f"about {size_text(_result_bytes(plan))} in {plan.root}",
        "baseline": ", ".join(f"{k}={v}" for k, v in plan.baseline.items()) or "none",
        "metrics": ", ".join(plan.metrics),
    }


def _replicas(plan: Plan) -> str:
    """How many replicas there are, or will be."""
    if not plan.reps:
        return f"{plan.replicas} each, {plan.lanes} in all"
    goal = ", ".join(f"{name} {width}" for name, width in (plan.reps["target"] or plan.reps["select"]).items())
    return f"{plan.lanes} in all to begin with; {plan.reps['min']} to {plan.replicas} each, as needed for {goal}"


def _axes(plan: Plan) -> dict[str, list[str]]:
    """Values of each axis, as text, in their order."""
    found: dict[str, dict[str, None]] = {}
    for text in dict.fromkeys(plan.columns["axes"]):
        for name, value in json.loads(text).items():
            if name in plan.fixed:
                continue
            found.setdefault(name, {})[_value(name, value)] = None
    return {name: list(values) for name, values in found.items()}


def _value(name: str, value: Any) -> str:
    return size_text(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)


def _first_rows(plan: Plan) -> Table:
    """Show the first cells: beginning of the key, then the values of the axes that vary."""
    varying = {name for name, values in _axes(plan).items() if len(values) > 1}
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for key, text in zip(plan.columns["cell_key"][:ROWS_SHOWN], plan.columns["axes"][:ROWS_SHOWN], strict=True):
        shown = []
        for name, value in json.loads(text).items():
            if name in varying or name == "design":
                label = "" if name in ("design", "workload") else f"{name.rpartition('.')[2]} "
                shown.append(label + _value(name, value))
        table.add_row(key[:8], Text(visible(", ".join(shown))))
    return table


def _cpus(plan: Plan) -> int:
    """CPUs that a run would use, as far as can be known without a cluster."""
    if plan.cluster["runner"] == "serial":
        return 1
    return plan.cluster["num_cpus"] or os.cpu_count() or 1


def _lane_bytes(plan: Plan) -> int:
    """Rough host memory of a worker with the lane that takes most: code, operations, a tag for each page of RAM.

    Where a load fills the memory each page has links and an owner as well (kmemexp/sim/arenas/linux_mm/). Tables of
    chunks come on top as the load touches them (kmemexp/sim/demand.py): at most a byte for a byte.
    """
    full = (OWNED_BYTES if '"fill"' in text and '"linux_mm"' in text else 1 for text in plan.columns["config"])
    tags = (ram // PAGE * each for ram, each in zip(plan.columns["ram_bytes"], full, strict=True))
    lanes = (OPERATION_BYTES * ops + more for ops, more in zip(plan.columns["est_ops"], tags, strict=True))
    return int(WORKER_BYTES + max(lanes))


def _result_bytes(plan: Plan) -> int:
    """Rough size of all results of the plan."""
    sample = json.loads(plan.columns["config"][0])["sample"]
    row = ROW_BYTES + 8 * len(NAMES)
    series = sample["points"] * len(SERIES) * 8 * SHRUNK
    pictures = sample["snapshots"] * MAPS * sample["bins"] * SHRUNK
    return int(plan.lanes * (row + series + pictures))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
