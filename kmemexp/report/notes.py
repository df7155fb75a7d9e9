"""The notes below a comparison: how to read it, and what went wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kmemexp.metrics import LEAST_ROOM
from kmemexp.report import bounds, population, stats
from kmemexp.report.families import COMPARED, REFERENCE
from kmemexp.report.layout import TIMES, axis_value, labels

LINES = 5  # of panics, or of errors


def notes(
    table: pd.DataFrame, metrics: pd.DataFrame, axes: Sequence[str], baseline: Mapping[str, object], ci: float
) -> list[str]:
    """Write the notes on a comparison `table` of the rows `metrics`, whose cells differ in `axes`; no baseline: {}."""
    return [
        *_reading(table, baseline, ci),
        *population.notes(metrics),
        *_machine(metrics),
        *_pairing(table),
        *_rare_events(table, ci),
        *_bounded(table),
        *_references(table),
        *_deadlocks(metrics, list(axes), ci),
        *_saturated(metrics, list(axes), ci),
        *_panics(metrics, list(axes), ci),
        *_lower_bounds(metrics),
        *_short_tails(table, metrics),
        *_failures(metrics),
    ]


def _reading(table: pd.DataFrame, baseline: Mapping[str, object], ci: float) -> list[str]:
    sizes = sorted(set(table["n"]) - {0})
    n = f"n = {sizes[0]}" if len(sizes) == 1 else f"n = {sizes[0]} to {sizes[-1]}" if sizes else "n = 0"
    lines = [
        f"Mean and {ci:.0%} interval over the replicas ({n}): t, or a studentised bootstrap of what is skewed (with "
        "5 replicas at least); none where all replicas are alike. ↓ less is better, ↑ more is better."
    ]
    if sizes[:1] == [1] and not (table["test"] == "fact").all():
        lines.append("n=1: a single replica has no interval.")
    if baseline:
        name = ", ".join(str(v) if k == "design" else f"{k}={v}" for k, v in baseline.items())
        lines += [
            f"Second line: paired difference from {name} on the same replicas with its {ci:.0%} interval, "
            f"{TIMES} ratio of the means; of rare events the difference in the share of replicas that had any.",
            f"✓ better, ✗ worse, = equivalent within the metric's margin: all comparisons of this table are one family "
            f"of {int(table['family'].max())} (Holm, {ci:.0%}). ?: inconclusive; ≥: what would have been seen with a "
            "chance of 80 %, without it nothing could have been seen. Bold: best mean.",
        ]
    return lines


def _machine(metrics: pd.DataFrame) -> list[str]:
    words = []
    for column, text in (("cpus", "{} CPUs"), ("ram_bytes", "RAM {}"), ("kva_bytes", "KVA {}")):
        values = sorted(metrics[column].unique())
        shown = [axis_value(column, v) for v in (values if len(values) <= 4 else values[:: len(values) - 1])]
        words.append(text.format((", " if len(values) <= 4 else " to ").join(shown)))
    return ["Machine: " + "; ".join(words) + "."]


def _pairing(table: pd.DataFrame) -> list[str]:
    lost = table[table["pairing"] < 1]
    if lost.empty:
        return []
    names = ", ".join(lost["metric"].astype(str).drop_duplicates().head(3))
    return [
        f"Pairing widened the interval in {len(lost)} of {table['pairing'].count()} comparisons (column pairing < 1; "
        f"{names}): there the results do not move together from replica to replica."
    ]


def _rare_events(table: pd.DataFrame, ci: float) -> list[str]:
    never = table[(table["occurs"] == 0) & (table["n"] > 0)]
    lines = []
    if ((table["occurs"] > 0) & (table["occurs"] < 1)).any():
        lines = ["in 3/6: it happened in 3 of 6 replicas."]
    if never.empty:
        return lines
    n = never["n"].min()
    return [
        *lines,
        f"A count of 0 in all of {n} replicas: the chance in a run may still be up to {stats.wilson(0, n, ci)[1]:.0%} "
        f"(Wilson, {ci:.0%}).",
    ]


def _bounded(table: pd.DataFrame) -> list[str]:
    """How much of what is possible the designs have reached, and where there is nothing to judge."""
    known = table[table["room"].notna() & (table["role"] == COMPARED)]
    lines = []
    for metric, rows in known.groupby(known["metric"].astype(str)):
        reached = rows["gap_closed"]
        if reached.notna().any():
            lines.append(
                f"{metric}: of the distance from the baseline to each one's compaction bound, {reached.min():.0%} to "
                f"{reached.max():.0%} is covered (columns bound, gap_closed)."
            )
        if few := int(bounds.no_room(rows).sum()):
            lines.append(
                f"{metric}: no verdict in {few} of {len(rows)} comparisons, whose bound lies less than "
                f"{LEAST_ROOM:.0%} above the baseline."
            )
    return lines


def _references(table: pd.DataFrame) -> list[str]:
    """Which rows are of no design, and how far these come."""
    rows = table[table["role"] == REFERENCE]
    if rows.empty:
        return []
    reached = rows.loc[rows["gap_closed"].notna(), "gap_closed"]
    far = (
        f" They cover {reached.min():.0%} to {reached.max():.0%} of the distance to the bound." if len(reached) else ""
    )
    return [f"{_named(rows)}: references that know the future, and no designs; they are given no verdict.{far}"]


def _named(rows: pd.DataFrame) -> str:
    column = "policy" if "policy" in rows.columns else "design"
    return ", ".join(rows[column].astype(str).drop_duplicates())


def _panics(metrics: pd.DataFrame, axes: list[str], ci: float) -> list[str]:
    found = _occurrences(metrics, axes, "panic", ci)
    lines = [f'Panic "{panic}": {where}' for panic, where in found[:LINES]]
    return lines + _more(len(found), "cells with panics")


def _deadlocks(metrics: pd.DataFrame, axes: list[str], ci: float) -> list[str]:
    """Where there were deadlocks, how often, and the circle of one of them."""
    if "deadlock" not in metrics.columns or not (metrics["deadlock"] != "").any():
        return []
    first = metrics["deadlock"].where(metrics["deadlock"] == "", "x")
    found = _occurrences(metrics.assign(_any=first), axes, "_any", ci)
    lines = [f"Deadlock: {where}" for _, where in found[:LINES]] + _more(len(found), "cells with deadlocks")
    commonest = metrics.loc[metrics["deadlock"] != "", "deadlock"].mode().iloc[0]
    cell = metrics.loc[metrics["deadlock"] == commonest].iloc[0]
    return [
        *lines,
        f"For example: {commonest}.",
        f"How it came about: the same command with action=explain cell={str(cell['cell_key'])[:8]} "
        f"replica={cell['replica']}",
    ]


def _saturated(metrics: pd.DataFrame, axes: list[str], ci: float) -> list[str]:
    """Where the load was more than the machine can do."""
    over = metrics["saturated_count"].eq(1) if "saturated_count" in metrics.columns else pd.Series(dtype=bool)
    if not over.any():
        return []
    found = _occurrences(metrics.assign(_any=over.map({True: "x", False: ""})), axes, "_any", ci)
    return [
        *(f"Saturated: {where}" for _, where in found[:LINES]),
        *_more(len(found), "saturated cells"),
        "In a saturated cell what was unfinished counts: waits so far are in the ratios, quantiles that it could "
        "change are not given (-), and a maximum is the longest so far.",
    ]


def _lower_bounds(metrics: pd.DataFrame) -> list[str]:
    """Which designs would hold more with a clock: buckets of today's UMA grow where CPUs contend for a zone's lists."""
    if not {"config", "cost", "cpus", "design"} <= set(metrics.columns):
        return []
    uma = metrics["config"].astype(str).str.contains('"uma_today"', regex=False)
    found = metrics.loc[uma & (metrics["cost"] == "none") & (metrics["cpus"] > 1), "design"].astype(str).unique()
    if not len(found):
        return []
    return [
        f"Lower bound: {', '.join(sorted(found))}: memory held, since without a clock nobody contends for a zone's "
        "lists, and its buckets stay as small as they begin."
    ]


def _occurrences(metrics: pd.DataFrame, axes: list[str], column: str, ci: float) -> list[tuple[str, str]]:
    """Texts of a column, and for each cell that has one, where that is and in how many of its replicas."""
    done = metrics[metrics["status"] == "done"]
    place = done.groupby(axes, observed=True, dropna=False, sort=False).ngroup()
    size: dict[Any, int] = place.value_counts().to_dict()
    hit = done[done[column] != ""].assign(_place=place)
    names: dict[Any, str] = dict(
        zip(place.drop_duplicates(), labels(done.loc[place.drop_duplicates().index], axes, ", "), strict=True)
    )
    found = []
    for (text, number), rows in hit.groupby([column, "_place"], sort=False):
        low, high = stats.wilson(len(rows), size[number], ci)
        share = f"in {len(rows)} of {size[number]} replicas ({low:.0%} to {high:.0%}, Wilson)."
        found.append((str(text), f"{names[number]}: {share}"))
    return found


def _short_tails(table: pd.DataFrame, metrics: pd.DataFrame) -> list[str]:
    """Quantiles that are left out because there were too few samples to bound them."""
    short = table[(table["n"] == 0) & (table["failed"] == 0) & table["metric"].astype(str).str.match(r".*_p\d+_ns$")]
    if short.empty:
        return []
    names = ", ".join(short["metric"].astype(str).drop_duplicates().head(3))
    return [
        f"-: too few samples for that quantile ({names}): p99 needs 299, p99.9 2995; it is not estimated. Nor is one "
        "that what was unfinished at the end could change."
    ]


def _failures(metrics: pd.DataFrame) -> list[str]:
    failed = metrics[metrics["status"] != "done"]
    if failed.empty:
        return []
    lines = [f"Failed: {len(failed)} of {len(metrics)} replicas, left out of the means:"]
    groups = list(failed.groupby("error", sort=False))
    for error, rows in groups[:LINES]:
        where = rows[["design", "workload"]].astype(str).drop_duplicates().agg(" on ".join, axis=1)
        lines.append(f"  {len(rows)} {TIMES} {error} ({', '.join(where[:3])}{', …' if len(where) > 3 else ''})")
    return lines + _more(len(groups), "different errors")


def _more(count: int, what: str) -> list[str]:
    return [f"  … and {count - LINES} more {what}"] if count > LINES else []
