"""The answer of a sweep on one screen: what each design is better and worse at, what matters most, what went wrong."""

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kmemexp.report import layout
from kmemexp.report.comparison import Layout, number_groups
from kmemexp.report.families import REFERENCE
from kmemexp.report.layout import Compared
from kmemexp.report.told import EFFECTS, STEPS, WORDS, Answer, Effect, Spark, Tally

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

NAMED = 6  # designs in a line


def answer(plan: "Plan", table: pd.DataFrame, cells: Layout, frame: pd.DataFrame, series: pd.DataFrame) -> Answer:
    """Sum up a comparison `table` of the rows `frame`; `series`: samples of the same cells (cell_key, time, …)."""
    names = layout.labels(cells.keys, cells.variant, " ") or [""]
    by_key = dict(zip(cells.named, names, strict=True))
    designs = table["cell_key"].astype(str).map(by_key)
    number = number_groups(table, cells.condition)
    base = designs[(table["verdict"] == "baseline").to_numpy()]
    apart = {*base, *designs[(table["role"] == REFERENCE).to_numpy()]}
    others = [name for name in dict.fromkeys(designs) if name not in apart] if len(base) else []
    tallies = [_tally(name, table[(designs == name).to_numpy()]) for name in others]
    return Answer(
        question=plan.description or plan.name,
        baseline=", ".join(dict.fromkeys(base)),
        conditions=int(number.max(initial=-1)) + 1,
        metrics=list(dict.fromkeys(table.loc[table["verdict"].isin(WORDS).to_numpy(), "metric"].astype(str))),
        loads=_loads(table, number),
        tallies=tallies,
        sparks=_sparks(cells, series, by_key),
        trouble=_trouble(frame, by_key),
    )


def _loads(table: pd.DataFrame, number: np.ndarray) -> dict[str, int]:
    if "workload" not in table.columns:
        return {}
    rows = pd.DataFrame({"workload": table["workload"].astype(str).to_numpy(), "number": number})
    return {str(k): int(v) for k, v in rows.groupby("workload", sort=False)["number"].nunique().items()}


def _tally(design: str, rows: pd.DataFrame) -> Tally:
    verdicts = rows["verdict"].astype(str)
    counts = {word: int((verdicts == word).sum()) for word in WORDS}
    effects = []
    for metric, those in rows.groupby(rows["metric"].astype(str), sort=False):
        if found := _effect(str(metric), those):
            effects.append(found)
    effects.sort(key=lambda pair: -pair[0])
    return Tally(design, counts, [effect for _, effect in effects[:EFFECTS]])


def _effect(metric: str, rows: pd.DataFrame) -> tuple[float, Effect] | None:
    """One metric of a design, and how much it matters: the bound nearest to nothing, in margins, of the median row."""
    verdicts = rows["verdict"].astype(str)
    count = {word: int((verdicts == word).sum()) for word in ("better", "worse")}
    word = max(count, key=lambda name: count[name])
    if not count[word]:
        return None
    told = rows[(verdicts == word).to_numpy()]
    size = [_size(row, margin) for row, margin in zip(layout.compared(told), told["margin"], strict=True)]
    middle = int(np.argsort(size, kind="stable")[(len(size) - 1) // 2])
    row = layout.compared(told)[middle]
    unit = layout.unit_of(metric, max(abs(row.mean), abs(row.diff)))
    scaled = row.scaled(unit.scale)
    text = layout.difference(scaled)
    effect = Effect(
        metric,
        word,
        unit.name,
        scaled.diff,
        scaled.diff_low,
        scaled.diff_high,
        row.ratio,
        text,
        layout.factor(row.ratio),
        count[word],
        len(rows),
    )
    return size[middle] * count[word] / len(rows), effect


def _size(row: Compared, margin: float) -> float:
    low, high = (row.share_low, row.share_high) if row.of_shares else (row.diff_low, row.diff_high)
    if not (math.isfinite(low) or math.isfinite(high)):
        low = high = row.diff
    nearest = 0.0 if low < 0 < high else min(abs(low), abs(high))
    return nearest / margin if margin > 0 and math.isfinite(margin) else 0.0


def _trouble(frame: pd.DataFrame, by_key: dict[str, str]) -> list[str]:
    """Deadlocks, panics, cells that were too much for their machine, and failed rows, by design."""
    done = frame["status"] == "done"
    nothing = pd.Series(0.0, frame.index)
    found = {
        "deadlocks": done & (frame["deadlock"] != ""),
        "panics": done & (frame["panic"] != "") & (frame["deadlock"] == ""),
        "saturated": done & frame.get("saturated_count", nothing).eq(1),
        "failed": ~done,
    }
    design = frame["cell_key"].astype(str).map(by_key)
    runs = design.value_counts().to_dict()
    lines = []
    for what, where in found.items():
        hits = design[where.to_numpy(bool)].value_counts(sort=False).to_dict()
        lines += (
            [f"{what}: " + ", ".join(f"{name} in {n} of {runs[name]} runs" for name, n in hits.items())] if hits else []
        )
    if none := [what for what, where in found.items() if not where.any()]:
        lines.append(f"none of {len(frame)} runs: {', '.join(none)}")
    return lines


def _sparks(cells: Layout, series: pd.DataFrame, by_key: dict[str, str]) -> list[Spark]:
    """Largest piece that malloc could get over the run, in the first condition of each load, mean of the replicas.

    Not external fragmentation over all maps: with a kmem_map that is large for want of one space, not for holes.
    """
    if series.empty or len(set(by_key.values())) > EFFECTS * 4:
        return []
    where = pd.Series(layout.labels(cells.keys, cells.condition, ", "))
    load = cells.keys["workload"].astype(str) if "workload" in cells.keys else where
    chosen = dict.fromkeys(where.groupby(load.to_numpy(), sort=False).first())
    of_key = {key: name for key, name in zip(cells.named, where, strict=True) if name in chosen}
    rows = series[series["cell_key"].isin(list(of_key)).to_numpy()]
    run = rows["malloc_largest_run_bytes"].to_numpy(float)
    step = rows["sample"] * STEPS // (rows["sample"].max() + 1)
    table = pd.DataFrame({"key": rows["cell_key"].astype(str), "step": step, "run": run})
    courses: dict[str, list[float]] = {}
    for key, _, value in (
        table.groupby(["key", "step"], as_index=False)["run"].mean().itertuples(index=False, name=None)
    ):
        courses.setdefault(key, []).append(float(value))
    order, places = list(dict.fromkeys(by_key.values())), list(chosen)
    found = [Spark(of_key[key], by_key[key], values) for key, values in courses.items()]
    return sorted(found, key=lambda one: (places.index(one.where), order.index(one.design)))
