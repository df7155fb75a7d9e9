"""What an analysis hands back, and what analyses use: verdicts with their conditions, figures in words."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from kmemexp.report.comparison import CONDITIONS, LOAD, matches
from kmemexp.report.layout import axis_value, decimals_for, number

if TYPE_CHECKING:
    import altair

VERDICTS = ("holds", "fails", "holds in part", "no difference shown", "observed")
"""The last one where no claim is judged: a figure only."""
SAID_FIRST = ("workload", "machine.cpus", "machine.ram_bytes", "machine.kva_bytes", "cost")


class Verdict(NamedTuple):
    """What was found about a claim under stated conditions."""

    claim: str  # "C4"
    verdict: str  # one of VERDICTS
    where: str  # conditions in words: "filetree, KVA 192 MiB, kmem_map removed from FreeBSD 4"
    evidence: str  # the figures in words with their uncertainty: "failures -6 ± 2 (paired, 95 %)"
    effect: float = math.nan  # the main figure as numbers
    low: float = math.nan
    high: float = math.nan
    unit: str = ""


class Report(NamedTuple):
    """What an experiment hands back."""

    summary: str  # one or two sentences: what came out, with conditions
    verdicts: list[Verdict]
    tables: dict[str, pd.DataFrame] = {}  # noqa: RUF012 - small tables for the story
    charts: dict[str, "altair.TopLevelMixin"] = {}  # noqa: RUF012


def spread(value: float, low: float, high: float, unit: str = "", scale: float = 1.0, *, sign: bool = True) -> str:
    """Write a figure with the half-width of its interval: "+33.3 ± 1.1 MiB". `scale`: what one `unit` is."""
    value, half = value / scale, (high - low) / 2 / scale
    places = decimals_for([value], [half])
    text = number(value, places, sign=sign)
    text += "" if math.isnan(half) else f" ± {number(half, places)}"
    return f"{text} {unit}".strip()


def change(row: pd.Series, unit: str = "", scale: float = 1.0) -> str:
    """Write the paired difference in a row of `Results.compare`."""
    return spread(row["diff"], row["diff_low"], row["diff_high"], unit, scale)


def in_replicas(row: pd.Series) -> str:
    """Write in how many replicas a rare event happened at all: "3 of 6"."""
    return f"{round(row['occurs'] * row['n'])} of {round(row['n'])}"


def together(*found: str) -> str:
    """Put verdicts of `compare` on several measures into one on the claim that they are better."""
    if "worse" in found:
        return "holds in part" if "better" in found else "fails"
    return "holds" if "better" in found else "no difference shown"


def cpus_text(count: object) -> str:
    """Write a number of CPUs."""
    return f"{count} CPU" if count == 1 else f"{count} CPUs"


def pick(table: pd.DataFrame, metric: str, **axes: object) -> pd.Series:
    """Find the one row of a comparison with these values; dots in an axis are written `__`. LookupError for none."""
    found = (table["metric"] == metric).to_numpy()
    for axis, value in axes.items():
        found = found & matches(table[axis.replace("__", ".")], value)
    if found.sum() != 1:
        wanted = ", ".join(f"{axis.replace('__', '.')}={value}" for axis, value in axes.items())
        raise LookupError(f"{'no' if not found.any() else 'more than one'} row for {metric} with {wanted}")
    return table[found].iloc[0]


def without_gaps(metrics: pd.DataFrame) -> pd.DataFrame:
    """Write "none" where the axis `cost` does not exist: without a clock, as is the default."""
    return metrics.assign(cost=metrics["cost"].astype(object).fillna("none")) if "cost" in metrics else metrics


def conditions(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each condition of a comparison in words, the load first, with its rows.

    What other words say already is left out: "filetree, 8 CPUs, KVA 192 MiB", not that there are 8 copies of the trace.
    """
    axes = table.columns[: table.columns.get_loc("metric")]
    columns = [c for c in axes if c.split(".")[0] in CONDITIONS or c.startswith(LOAD)]
    named = [c for c in columns if c == "workload"]
    for column in sorted(columns, key=lambda c: SAID_FIRST.index(c) if c in SAID_FIRST else len(SAID_FIRST)):
        told_apart = len(table[named].drop_duplicates()) if named else 1
        if len(table[[*named, column]].drop_duplicates()) > told_apart:
            named.append(column)
    for _, rows in table.groupby(columns, observed=True, dropna=False, sort=False):
        first = rows.iloc[0]
        yield ", ".join(_axis_text(c, first[c]) for c in named if not pd.isna(first[c])), rows


def _axis_text(axis: str, value: object) -> str:
    if axis == "workload":
        return str(value)
    if axis == "machine.cpus":
        return cpus_text(value)
    if axis == "cost":
        return "without a clock" if value == "none" else f"with a clock ({value})"
    name = axis.rpartition(".")[2].removesuffix("_bytes")
    return f"{name.upper() if name in ('kva', 'ram') else name} {axis_value(axis, value)}"
