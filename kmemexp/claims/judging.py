"""What an analysis hands back, and what analyses use: verdicts with their conditions, figures in words."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from kmemexp.metrics import OCCURS
from kmemexp.report import small_samples
from kmemexp.report.comparison import is_condition, matches
from kmemexp.report.families import combined
from kmemexp.report.frames import axes_of
from kmemexp.report.layout import axis_value, decimals_for, interval, number
from kmemexp.report.small_samples import POWER

if TYPE_CHECKING:
    import altair

VERDICTS = ("holds", "fails", "holds in part", "equivalent", "inconclusive", "observed")
"""The last one where no claim is judged: a figure only."""
WORDS = {"better": "holds", "worse": "fails", "mixed": "holds in part"}
"""What verdicts of `compare` mean for a claim that something is better; the others stay."""
SAID_FIRST = ("workload", "cpus", "ram_bytes", "kva_bytes", "cost")


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
    note: str = ""  # "fragile, …": what else was seen to turn it
    question: str = ""  # what it answers, the same under all conditions: "fewer failures, FreeBSD 4"
    condition: str = ""  # in few words: "filetree, 8 CPUs, 160 MiB"
    seen: float = math.nan  # of what is inconclusive: the least difference that could have been seen (chance of 80 %)
    seen_unit: str = ""  # where it is not `unit`


class Report(NamedTuple):
    """What an experiment hands back."""

    summary: str  # one or two sentences: what came out, with conditions
    verdicts: list[Verdict]
    tables: dict[str, pd.DataFrame] = {}  # noqa: RUF012 - small tables for the story
    charts: dict[str, "altair.TopLevelMixin"] = {}  # noqa: RUF012


def spread(value: float, low: float, high: float, unit: str = "", scale: float = 1.0, *, sign: bool = True) -> str:
    """Write a figure with its interval: "+33.3 ± 1.1 MiB", "+3.1 -0.9 +4.2 MiB". `scale`: what one `unit` is."""
    value, low, high = value / scale, low / scale, high / scale
    places = decimals_for([value], [(high - low) / 2])
    text = f"{number(value, places, sign=sign)} {interval(value, low, high, places)}".strip()
    return f"{text} {unit}".strip()


def change(row: pd.Series, unit: str = "", scale: float = 1.0) -> str:
    """Write the paired difference in a row of `Results.compare`; if inconclusive, with what could have been seen."""
    text = spread(row["diff"], row["diff_low"], row["diff_high"], unit, scale)
    if row.get("verdict") != "inconclusive":
        return text
    if math.isnan(row["detectable"]):
        return f"{text} (so few replicas can show nothing)"
    if row["test"] == "sign":
        return f"{text} (could have seen {row['detectable']:.0%} of replicas)"
    least = row["detectable"] / scale
    return f"{text} (could have seen {number(least, decimals_for([least], [least]))})"


def unseen(row: pd.Series, scale: float = 1.0) -> dict[str, Any]:
    """Fields of a verdict that say what an inconclusive comparison could have seen; none where it is not."""
    if row["verdict"] != "inconclusive":
        return {}
    if row["test"] == "sign":
        return {"seen": float(row["detectable"]), "seen_unit": "share of replicas"}
    return {"seen": float(row["detectable"]) / scale}


def over(words: Iterable[str]) -> str:
    """Put verdicts under several conditions into one; what is only observed does not count.

    What all say; else "holds in part" where it holds, if in part, under some; else "fails" where it fails under some.
    """
    judged = set(words) - {"observed"}
    if len(judged) < 2:
        return judged.pop() if judged else "observed"
    if judged & {"holds", "holds in part"}:
        return "holds in part"
    return "fails" if "fails" in judged else "inconclusive"


def in_replicas(row: pd.Series) -> str:
    """Write in how many replicas a rare event happened at all: "3 of 6"."""
    return f"{round(row['occurs'] * row['n'])} of {round(row['n'])}"


def together(*rows: pd.Series) -> str:
    """Put rows of `compare` on several measures into one verdict on the claim that they are better."""
    found = combined(rows)
    return WORDS.get(found, found)


def never(events: pd.DataFrame) -> tuple[str, str, dict[str, float]]:
    """Judge the claim that something does not happen: the verdict, the figure in words, and the share as fields.

    `events` has bool columns for what must not happen, and `seed` and `replica`: runs of one seed and replica saw the
    same load and are clustered. It holds where the upper bound is below the margin of a rare event, and fails where it
    happened.
    """
    happened = events.drop(columns=["seed", "replica"]).any(axis=1)
    hits, runs, low, high = clustered([events["seed"], events["replica"]], happened)
    if not runs:
        raise LookupError("there are no runs to look for events in")
    word = "fails" if hits else "holds" if high <= OCCURS.size else "inconclusive"
    seeds = len(events[["seed", "replica"]].drop_duplicates())
    text = f"in {hits} of {runs} runs on {seeds} seeds ({low:.1%} to {high:.1%}, Wilson, clustered by seed, 95 %)"
    return word, text, _shares(word, hits / runs, low, high, seeds)


def only_with(pairs: pd.DataFrame, variant: str, base: str) -> tuple[str, str, dict[str, float]]:
    """Judge the claim that nothing happens with `variant` that does not with `base`, pair by pair of replicas.

    `pairs` has bool columns of these names, `seed` and `replica`. It holds where a greater share of pairs in which it
    happened with the variant only than the margin of a rare event is excluded, and fails where a smaller one is.
    """
    if pairs.empty:
        raise LookupError(f"no replica of {variant} and {base} under the same condition")
    alone = pairs[variant] & ~pairs[base]
    hits, runs, low, high = clustered([pairs["seed"], pairs["replica"]], alone)
    word = "holds" if high <= OCCURS.size else "fails" if low > OCCURS.size else "inconclusive"
    seeds = len(pairs[["seed", "replica"]].drop_duplicates())
    other = int((pairs[base] & ~pairs[variant]).sum())
    text = (
        f"in {hits} of {runs} pairs of replicas with it only ({low:.1%} to {high:.1%}, Wilson, clustered by {seeds} "
        f"seeds, 95 %), in {other} without it only, in {int((pairs[base] & pairs[variant]).sum())} with both"
    )
    return word, text, _shares(word, hits / runs, low, high, seeds)


def _shares(word: str, share: float, low: float, high: float, seeds: int) -> dict[str, float]:
    seen = {"seen": 1 - (1 - POWER) ** (1 / seeds)} if word == "inconclusive" else {}
    return {"effect": share, "low": low, "high": high, **seen}


def side_by_side(metrics: pd.DataFrame, variant: str, base: str, event: pd.Series) -> pd.DataFrame:
    """Pairs for `only_with`: a row for each condition and replica that both designs have."""
    rows = metrics.assign(event=event)[metrics["status"] == "done"]
    keys = list(rows.loc[:, "workload":"replica"].columns)
    keys += [] if "seed" in keys else ["seed"]
    sides = [
        rows.loc[rows["design"].astype(str) == design, [*keys, "event"]].rename(columns={"event": design})
        for design in (variant, base)
    ]
    return sides[0].merge(sides[1], on=keys)[["seed", "replica", variant, base]]


def clustered(clusters: Sequence[pd.Series], events: pd.Series) -> tuple[int, int, float, float]:
    """Hits, runs and Wilson's bounds of events whose runs share seeds; `clusters` are columns that tell seeds apart."""
    place = events.groupby([c.to_numpy() for c in clusters]).cumcount().to_numpy()
    keys = pd.MultiIndex.from_arrays([c.to_numpy() for c in clusters])
    wide = pd.Series(events.to_numpy(float), index=[pd.factorize(keys)[0], place]).unstack()  # noqa: PD010
    return small_samples.clustered_share(wide.to_numpy())


def cpus_text(count: object) -> str:
    """Write a number of CPUs."""
    return f"{count} CPU" if count == 1 else f"{count} CPUs"


def pick(table: pd.DataFrame, metric: str, **axes: object) -> pd.Series:
    """Find the one row of a comparison with these values of its axes. LookupError for none."""
    found = (table["metric"] == metric).to_numpy()
    for axis, value in axes.items():
        found = found & matches(table[axis], value)
    if found.sum() != 1:
        wanted = ", ".join(f"{axis}={value}" for axis, value in axes.items())
        raise LookupError(f"{'no' if not found.any() else 'more than one'} row for {metric} with {wanted}")
    return table[found].iloc[0]


def scenarios(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows of the sweep history by scenario: of its first replica, since nothing there is left to chance."""
    done = metrics[(metrics["status"] == "done") & (metrics["replica"] == 0)]
    return done.set_index("scenario")


def without_gaps(metrics: pd.DataFrame) -> pd.DataFrame:
    """Write "none" where the axis `cost` does not exist: without a clock, as is the default."""
    return metrics.assign(cost=metrics["cost"].astype(object).fillna("none")) if "cost" in metrics else metrics


def conditions(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each condition of a comparison in words, the load first, with its rows.

    What other words say already is left out: "filetree, 8 CPUs, KVA 192 MiB", not that there are 8 copies of the trace.
    """
    axes = axes_of(table.loc[:, :"metric"])
    columns = [column for column, key in axes.items() if is_condition(key)]
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
    if axis == "cpus":
        return cpus_text(value)
    if axis == "cost":
        return "without a clock" if value == "none" else f"with a clock ({value})"
    name = axis.rpartition(".")[2].removesuffix("_bytes")
    return f"{name.upper() if name in ('kva', 'ram') else name} {axis_value(axis, value)}"
