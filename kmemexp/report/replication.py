"""How many replicas each cell gets where a sweep asks for intervals as narrow as it says (`sweep.reps.target`).

Cells that replay the same stream are a block and get the same number, so that they stay paired. A block begins with
`reps.min` replicas; at each of the planned looks but the last its scatter says how many are needed, and it grows to
that, up to `reps.max`. What is decided depends on nothing but the first replicas up to the look: a run that was stopped
decides as it would have. `reps.looks=2` is the two-stage rule: a pilot, and the rest at once.

Looking at the scatter before deciding makes intervals a little too narrow. With ten replicas in the pilot they cover 93
to 95 times in a hundred; computed at SPENT they cover 95 at least (tests/report/test_replication.py).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from kmemexp.report import comparison, families, selection
from kmemexp.report.evidence import ALIKE, SIGN
from kmemexp.report.results import planned
from kmemexp.report.screen import many
from kmemexp.store.store import with_results

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

CI = 0.95
SPENT = 0.97
"""Level at which a replicated sweep's intervals and verdicts are computed, to hold at CI."""


class Decided(NamedTuple):
    """What has been decided so far."""

    counts: dict[str, int]  # replicas by cell key
    open: int  # blocks that are not as narrow as asked for, and may grow no more


def grow(plan: "Plan") -> bool:
    """Look at what a plan has and give its cells the replicas that they need: whether there are more to simulate."""
    if not plan.reps.get("target") and not plan.reps.get("select"):
        return False
    before = dict(plan.counts)
    plan.counts = decided(plan).counts
    return bool(plan.counts != before)


def decided(plan: "Plan") -> Decided:
    """Decide for every block by what is in the results folder."""
    reps = plan.reps
    blocks = _blocks(plan)
    start = min(reps["min"], reps["max"])
    sizes = dict.fromkeys(blocks, start)
    frame = planned(plan, with_results(plan.root)).metrics
    rows = frame.groupby("cell_key", observed=True)["replica"].max().to_dict()
    waiting: dict[str, int] = {}
    growing = list(blocks)
    for _ in range(reps["looks"] - 1 if reps.get("target") else reps["max"]):
        ready = [b for b in growing if all(rows.get(key, -1) >= sizes[b] - 1 for key in blocks[b])]
        needed = _needed(plan, frame, {b: (blocks[b], sizes[b]) for b in ready})
        growing = [b for b in ready if needed[b] > sizes[b]]
        waiting = {b: needed[b] for b in growing}
        for block in _affordable(growing, sizes, waiting, blocks, reps):
            sizes[block] = min(waiting[block], reps["max"])
        growing = [b for b in growing if sizes[b] < reps["max"] and sizes[b] >= waiting[b]]
        if not growing:
            break
    short = sum(sizes[b] < n for b, n in waiting.items())
    return Decided({key: sizes[b] for b, keys in blocks.items() for key in keys}, short)


def _blocks(plan: "Plan") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for block, key in zip(plan.columns["stream_key"], plan.columns["cell_key"], strict=True):
        found.setdefault(block, []).append(key)
    return found


def _affordable(
    growing: Sequence[str], sizes: Mapping[str, int], wanted: Mapping[str, int], blocks: Mapping[str, list[str]],
    reps: Mapping[str, Any],
) -> list[str]:  # fmt: skip
    """Blocks, in the order of the plan, that may grow within the budget of replicas in all."""
    budget = reps["budget"]["replicas"]
    if budget is None:
        return list(growing)
    spent = sum(sizes[b] * len(keys) for b, keys in blocks.items())
    allowed = []
    for block in growing:
        cost = (min(wanted[block], reps["max"]) - sizes[block]) * len(blocks[block])
        if spent + cost <= budget:
            spent += cost
            allowed.append(block)
    return allowed


def _needed(plan: "Plan", frame: pd.DataFrame, blocks: Mapping[str, tuple[list[str], int]]) -> dict[str, int]:
    """Replicas that each block needs, judged by as many as it has. `blocks`: its cells and that number."""
    found = {}
    for size in sorted({n for _, n in blocks.values()}):
        mine = {b: keys for b, (keys, n) in blocks.items() if n == size}
        of_cell = {key: b for b, keys in mine.items() for key in keys}
        rows = frame[frame["cell_key"].isin(of_cell) & (frame["replica"] < size)]
        need = _selected(plan, rows, size) if plan.reps.get("select") else _narrow(plan, rows, size)
        for block, keys in mine.items():
            found[block] = max((need.get(key, size) for key in keys), default=size)
    return found


def _narrow(plan: "Plan", rows: pd.DataFrame, size: int) -> dict[str, int]:
    """Replicas by cell key, for the half-widths asked for."""
    baseline = plan.baseline if comparison.has(rows, plan.baseline) else None
    table = comparison.compare(rows, baseline, list(plan.reps["target"]), ci=CI)
    need: dict[str, int] = {}
    for _, row in table.iterrows():
        key = str(row["cell_key"])
        wanted = needed(row, plan.reps["target"][str(row["metric"])], size)
        if wanted > size:
            wanted += plan.reps["ahead"]
        need[key] = max(need.get(key, size), wanted)
    return need


def needed(row: pd.Series, target: str | float, size: int) -> int:
    """Replicas after which the interval in a row of a comparison is as narrow as `target`, from `size` of them.

    A number is a half-width in the metric's unit (of a rare event a share of replicas); "2%" is relative to the mean,
    and as Law and Kelton correct it: g / (1 + g) of the mean that is estimated. The difference from the baseline counts
    where there is one.
    """
    if row["test"] == SIGN:
        half = (row["share_high"] - row["share_low"]) / 2
    elif row["role"] == families.COMPARED:
        half = (row["diff_high"] - row["diff_low"]) / 2
    else:
        half = (row["high"] - row["low"]) / 2
    aim = half_width(target, float(row["mean"]))
    if not math.isfinite(half):
        return max(size, ALIKE)  # all alike: no interval, however many
    return int(enough(half, aim, size)) if aim > 0 else 2 * size


def enough(half: ArrayLike, aim: ArrayLike, size: ArrayLike) -> NDArray[np.int64]:
    """Replicas after which a half-width is expected to be `aim`, from what it is after `size`; never fewer."""
    half, aim, size = np.asarray(half), np.asarray(aim), np.asarray(size)
    return np.where(half <= aim, size, np.ceil(size * (half / aim) ** 2)).astype(np.int64)


def half_width(target: str | float, mean: float) -> float:
    """Half-width that a target asks for, in the metric's unit."""
    if isinstance(target, str):
        share = float(target.strip().rstrip("%")) / 100
        return share / (1 + share) * abs(mean)
    return float(target)


def _selected(plan: "Plan", rows: pd.DataFrame, size: int) -> dict[str, int]:
    """Replicas by cell key, for the selection of the best design: one step more where it is open."""
    select = plan.reps["select"]
    found = selection.select(rows, select["metric"], select["delta"], first=plan.reps["min"], ci=CI)
    step = max(plan.reps["ahead"], 1)
    return dict.fromkeys(found.loc[found["open"], "cell_key"].astype(str), size + step)


def notes(plan: "Plan", table: pd.DataFrame) -> list[str]:
    """Say how the numbers of replicas came about, below the table of a sweep."""
    if plan.reps.get("select"):
        return _selection_notes(plan)
    if not plan.reps.get("target"):
        return []
    asked = ", ".join(f"{name} {target}" for name, target in plan.reps["target"].items())
    now = decided(plan)
    line = (
        f"Replicated until half-widths are as asked for ({asked}), by {plan.reps['looks']} planned looks; intervals "
        f"and verdicts are computed at {SPENT:.0%}, to hold at {CI:.0%} all the same."
    )
    names = table["metric"].isin(plan.reps["target"])
    wide = int(_too_wide(table[names], plan.reps["target"]).sum())
    ends = f"{wide} of {int(names.sum())} are wider yet" if wide else "all are"
    return [line, f"As narrow as asked for: {ends}" + (f"; {now.open} blocks reached the budget." if now.open else ".")]


def _selection_notes(plan: "Plan") -> list[str]:
    """Say what was selected under each condition, and where it is open yet."""
    metric, delta = plan.reps["select"]["metric"], plan.reps["select"]["delta"]
    frame = planned(plan, with_results(plan.root)).metrics
    found = selection.select(frame, metric, delta, first=plan.reps["min"], ci=CI)
    names = dict(zip(frame["cell_key"], frame["design"].astype(str), strict=True))
    best = [names[key] for key in found.loc[found["left"] & ~found["open"], "cell_key"]]
    count = {name: best.count(name) for name in dict.fromkeys(best)}
    told = ", ".join(f"{name} under {many(n)}" for name, n in count.items()) or "nowhere"
    line = (
        f"Selected by {metric}, the best or within {delta:g} of it with a chance of {CI:.0%} under each condition (Kim "
        f"and Nelson): {told}."
    )
    undecided = int(found["open"].sum())
    return [line, *([f"Open: {undecided} cells are left beside others; more replicas decide."] if undecided else [])]


def _too_wide(table: pd.DataFrame, target: Mapping[str, str | float]) -> NDArray[np.bool_]:
    size = int(table["n"].max()) if len(table) else 0
    wide = [needed(row, target[str(row["metric"])], size) > size for _, row in table.iterrows()]
    return np.array(wide, bool)
