"""C5: overall there is less fragmentation in the long run.

Question: without kmem_map, is the free KVA in fewer pieces, and do the object allocators waste less, over a long run
with phases, and does the difference grow from day to day?

Method: the sweep `fragmentation`. Pairs that differ in kmem_map only (FreeBSD 4 and its unified twin, FreeBSD 5's UMA
and its twin) say what removing the map does; `mail2003_bare` against `freebsd4` says what the mail's whole plan does.
All pairs see the same operations. Map fragmentation is looked at in the space that serves malloc (kmem_map, or
kernel_map where there is none) and in kernel_map, which serves requests for KVA, each by two measures, means over the
samples: external (1 - largest run / free) and the share of free bytes in holes below 1 MiB. Free bytes of separate
spaces are never added up; each space has its verdict: it holds where one of its measures is better and the other not
worse by a tenth of a point. Object
fragmentation is total fragmentation as Bonwick 1994 defines it (1 - requested / held, bytes over the samples), and
Johnstone and Wilson's four measures beside it. In the long run: the means of the seventh compressed day less the
second's, in malloc's space and of objects. All pairs, conditions, measures and growths are one Holm family. Where one
of a pair refuses more than one allocation in a thousand and the other does not, what is left of the load differs; such
a pair is reported, not judged ("refusals"). What a request of 1 MiB can still get is shown beside it: that is room
(C4) as well as fragmentation.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from kmemexp import compare
from kmemexp.claims.judging import Report, Verdict, cpus_text, over, spread, together, unseen, without_gaps
from kmemexp.claims.protocol import LONG_RUN, LONGER_RUN, OTHER_LOADS, Protocol
from kmemexp.metrics import Margin
from kmemexp.report import charts, stats
from kmemexp.report.families import one_family
from kmemexp.report.results import Results

CLAIM = "C5"
SWEEPS = ("fragmentation",)
DEFAULT = {"fragmentation": LONG_RUN}
FULL = {"fragmentation": LONGER_RUN}
PAIRS = (
    ("dragonfly_2003aug25", "freebsd4", "kmem_map removed from FreeBSD 4"),
    ("freebsd5_uma_unified", "freebsd5_uma", "kmem_map removed from FreeBSD 5 (UMA)"),
    ("mail2003_bare", "freebsd4", "no kmem_map and slab for all, against FreeBSD 4"),
)
EXTERNAL, SMALL = "malloc_external_frag_mean_ratio", "malloc_unusable_1m_mean_ratio"
KVA_EXTERNAL, KVA_SMALL = "kernel_map_external_frag_mean_ratio", "kva_unusable_1m_mean_ratio"
MAPS = (EXTERNAL, SMALL, KVA_EXTERNAL, KVA_SMALL)
OBJECT, HELD = "total_frag_mean_ratio", "held_peak_bytes"
HEAP = ("heap_mean_excess_ratio", "heap_live_peak_excess_ratio", "heap_heap_peak_excess_ratio",
        "heap_peaks_excess_ratio")  # fmt: skip
REFUSED = "alloc_failures_count"
SPACES = {"malloc's space": "malloc_fits_1m_min_bytes", "kernel_map": "kva_fits_1m_min_bytes"}
OBJECTS = "objects"
LOOKED_AT = {"malloc's space": (EXTERNAL, SMALL), "kernel_map": (KVA_EXTERNAL, KVA_SMALL), OBJECTS: (OBJECT,)}
METRICS = (*MAPS, *SPACES.values(), OBJECT, HELD, *HEAP, REFUSED)
TOLERATED = 1e-3  # refused allocations up to which two runs count as the same load
SHORT = {"holds": "less", "fails": "more", "holds in part": "mixed", "observed": "not judged"}
MIB = 1 << 20
WEEKS = ("server_days", "mail_days")  # loads of a week of days, of which a sweep has one
DAY_S, BEFORE_S, DAYS = 480.0, 80.0, 7  # conf/workload/server_days.yaml
EARLY, LATE = 2, 7
GROWS = {"map": EXTERNAL, "object": OBJECT}
PROTOCOL = Protocol(
    judged=(*MAPS, OBJECT),
    family="one family: five measures of three pairs on all loads, KVA sizes and CPUs, and growth over the week of two",
    margins=dict.fromkeys((*MAPS, OBJECT), Margin(1e-3)),  # a tenth of a point: what is less does not matter
    replicas={"fragmentation": 12},
    confirm={"fragmentation": OTHER_LOADS},
)


def analyse(results: Mapping[str, Results]) -> Report:
    """Judge each pair on each load and KVA, then the growth over the days."""
    found = results["fragmentation"]
    plain = without_gaps(found.metrics)
    plain = plain[plain["cost"] == "none"].drop(columns="cost") if "cost" in plain else plain
    days = daily(found.series, plain)
    compared = [*(_compared(plain, *pair) for pair in PAIRS), *(_grown(days, *pair) for pair in PAIRS)]
    whole = one_family([table for table in compared if len(table)], PROTOCOL.judged)
    tables, growth = whole[: len(PAIRS)], whole[len(PAIRS) :]
    judged = pd.concat([_judged(table) for table in tables], ignore_index=True)
    verdicts = [*_maps(judged), *_objects(judged), *_growth(growth)]
    return Report(
        _summary(judged),
        verdicts,
        {"pairs": _shown(pd.concat(tables, ignore_index=True)), "johnstone_wilson": _heaps(plain)},
        {
            "pairs": _pairs_chart(judged),
            **({"days": _days_chart(days), "maps": _maps_chart(found)} if len(days) else {}),
        },
    )


def _compared(metrics: pd.DataFrame, variant: str, base: str, words: str) -> pd.DataFrame:
    """Compare a pair: a row per load, KVA, CPUs, design and metric, with `refused`, the greater share of the two."""
    both = metrics[metrics["design"].astype(str).isin([variant, base])]
    table = compare(both, {"design": base}, list(METRICS), margins=PROTOCOL.margins)
    table["cpus"] = table["cpus"] if "cpus" in table else int(both["cpus"].iloc[0])
    shares = (both[REFUSED] / both["operations_count"]).groupby(
        [both["workload"].astype(str), both["kva_bytes"], both["cpus"], both["design"].astype(str)]
    ).mean().groupby(level=[0, 1, 2]).max()  # fmt: skip
    keys = zip(table["workload"].astype(str), table["kva_bytes"], table["cpus"], strict=True)
    return table.assign(against=base, pair=words, refused=[float(shares[key]) for key in keys])


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """One row per condition and sort of fragmentation: the word on the claim, and the paired difference in points."""
    rows = []
    variant = table[table["verdict"] != "baseline"]
    for key, group in variant.groupby(["pair", "workload", "cpus", "kva_bytes"], observed=True, sort=False):
        by = group.set_index("metric")
        fair = by["refused"].iloc[0] < TOLERATED
        for what, measures in LOOKED_AT.items():
            found = together(*(by.loc[m] for m in measures)) if fair else "observed"
            note = (_beside(by, what) if what in SPACES else "") + ("" if fair else ", refusals")
            seen = max((100 * unseen(by.loc[m]).get("seen", np.nan) for m in measures), default=np.nan)
            rows.append([*key, str(by["design"].iloc[0]), what, found, *_points(by.loc[measures[0]]), note, seen])
    columns = ["pair", "workload", "cpus", "kva_bytes", "design", "what", "word", "diff", "low", "high", "note", "seen"]
    return pd.DataFrame(rows, columns=columns)


def _points(row: pd.Series) -> list[float]:
    return [float(row[name]) * 100 for name in ("diff", "diff_low", "diff_high")]


def _beside(by: pd.DataFrame, what: str) -> str:
    """The other measure of a space, and what 1 MiB can still get there."""
    fits = SPACES[what]
    small = spread(*_points(by.loc[LOOKED_AT[what][1]]))
    return f", holes {small}, 1 MiB fits into {by.loc[fits, 'diff'] / MIB:+.1f} MiB"


def _maps(judged: pd.DataFrame) -> Iterator[Verdict]:
    """One verdict per pair, load and number of CPUs on each space, over the sizes of KVA."""
    rows = judged[judged["what"].isin(SPACES)]
    for (pair, load, cpus, what), group in rows.groupby(
        ["pair", "workload", "cpus", "what"], observed=True, sort=False
    ):
        yield _together(
            group, f"{pair}; {load}, {cpus_text(cpus)}: {what}", "external fragmentation, points",
            question=f"{what}, {pair}", condition=f"{load}, {cpus_text(cpus)}",
        )  # fmt: skip


def _objects(judged: pd.DataFrame) -> Iterator[Verdict]:
    """One verdict per pair and number of CPUs on objects, over loads and sizes of KVA."""
    rows = judged[judged["what"] == OBJECTS]
    for (pair, cpus), group in rows.groupby(["pair", "cpus"], observed=True, sort=False):
        yield _together(
            group, f"{pair}; {cpus_text(cpus)}: objects", "total fragmentation, points", load=True,
            question=f"objects, {pair}", condition=cpus_text(cpus),
        )  # fmt: skip


def _together(rows: pd.DataFrame, where: str, what: str, *, load: bool = False, **said: str) -> Verdict:
    """Put rows under several conditions into one verdict that lists them. `said`: question and condition."""
    texts = [
        f"{f'{r.workload} ' if load else ''}{r.kva_bytes / MIB:.0f} MiB {spread(r.diff, r.low, r.high)} "
        f"({SHORT.get(r.word, r.word)}{r.note})"
        for r in rows.itertuples()
    ]
    told = rows[rows["word"] != "observed"] if (rows["word"] != "observed").any() else rows
    largest = told.loc[told["diff"].abs().fillna(-1).idxmax()]
    return Verdict(
        CLAIM, over(rows["word"]), where, f"{what}: {'; '.join(texts)} (paired, 95 %)", largest["diff"],
        largest["low"], largest["high"], "points", seen=float(rows["seen"].max()), **said,
    )  # fmt: skip


def daily(series: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Means of each day of a week, one row per cell, replica and day: `map` (external, of malloc's space), `object`."""
    rows = series[series["workload"].astype(str).isin(WEEKS)]
    rows = rows.assign(
        day=np.minimum((rows["time_ns"] / 1e9 - BEFORE_S) // DAY_S + 1, DAYS).astype(int),
        map=1 - rows["malloc_largest_run_bytes"] / rows["malloc_free_bytes"],
    )
    grouped = rows[rows["day"] >= 1].groupby(["cell_key", "replica", "day"], observed=True)
    sums = grouped[["requested_bytes", "held_bytes"]].sum()
    frame = pd.DataFrame({"map": grouped["map"].mean(), "object": 1 - sums["requested_bytes"] / sums["held_bytes"]})
    columns = ["cell_key", "design", "kva_bytes", "cpus"]
    cells = metrics[columns].drop_duplicates("cell_key").astype({"design": str})
    return frame.reset_index().merge(cells, on="cell_key")


def _grown(days: pd.DataFrame, variant: str, base: str, words: str) -> pd.DataFrame:
    """Compare a pair by how much fragmentation grows from the second day to the seventh; empty without these days."""
    keys = ["design", "kva_bytes", "cpus", "replica"]
    both = days[days["design"].isin([variant, base])]
    wide = both.pivot_table(index=keys, columns="day", values=["map", "object"])
    if not {EARLY, LATE} <= set(both["day"]) or both["design"].nunique() < len({variant, base}):
        return pd.DataFrame()
    growth = {metric: wide[what][LATE] - wide[what][EARLY] for what, metric in GROWS.items()}
    frame = pd.DataFrame(growth).reset_index()
    found = compare(frame, {"design": base}, list(growth), by=["kva_bytes", "cpus"], margins=PROTOCOL.margins)
    return found.assign(pair=words)


def _growth(tables: Sequence[pd.DataFrame]) -> Iterator[Verdict]:
    """Say whether fragmentation grows from the second day to the seventh, and in which of a pair more."""
    for table in tables:
        rows = table[table["role"] == "compared"]
        for (cpus, what), group in (
            ((cpus, what), rows[(rows["cpus"] == cpus) & (rows["metric"] == metric)])
            for cpus in sorted(rows["cpus"].unique())
            for what, metric in GROWS.items()
        ):
            texts = group.assign(
                word=[together(row) for _, row in group.iterrows()],
                seen=[100 * unseen(row).get("seen", np.nan) for _, row in group.iterrows()],
                note=[f", by itself {spread(*own, scale=0.01)}" for own in group[["mean", "low", "high"]].to_numpy()],
                **{name: group[f"diff_{name}" if name != "diff" else name] * 100 for name in ("diff", "low", "high")},
            )
            where = (
                f"{group['pair'].iloc[0]}; a week of days, {cpus_text(cpus)}: growth of {what} fragmentation, "
                f"day {EARLY} to {LATE}"
            )
            yield _together(
                texts, where, "more growth than with kmem_map, points", question=f"growth of {what} fragmentation",
                condition=f"{group['pair'].iloc[0]}, {cpus_text(cpus)}",
            )  # fmt: skip


def _summary(judged: pd.DataFrame) -> str:
    texts = []
    for (pair, what), rows in judged.groupby(["pair", "what"], sort=False):
        fair = rows[rows["word"] != "observed"]
        less, more = int((fair["word"] == "holds").sum()), int((fair["word"] == "fails").sum())
        texts.append(f"{pair}: {what} less fragmented in {less}, more in {more} of {len(fair)} conditions judged")
    each = len(judged) // len(LOOKED_AT) // len(PAIRS)
    return f"{'; '.join(texts)} ({each} conditions each; the others refuse requests)."


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    figures = ["n", "mean", "diff", "diff_low", "diff_high", "p_holm", "verdict"]
    return table[["pair", "workload", "cpus", "kva_bytes", "design", "metric", *figures]]


def _heaps(metrics: pd.DataFrame) -> pd.DataFrame:
    """Johnstone and Wilson's measures of each design and load at the largest KVA, in per cent."""
    largest = metrics[metrics["kva_bytes"] == metrics["kva_bytes"].max()]
    means = largest.groupby(["workload", "cpus", "design"], observed=True)[list(HEAP)].mean() * 100
    return means.round(1).set_axis([f"#{i} %" for i in (1, 2, 3, 4)], axis=1).reset_index()


def _days_chart(days: pd.DataFrame) -> object:
    rows = (
        days.groupby(["design", "kva_bytes", "cpus", "day"], observed=True)["map"]
        .agg(["mean", "std", "count"])
        .reset_index()
    )
    half = stats.half_width(rows["std"].to_numpy(), rows["count"].to_numpy(), 0.95) * 100
    rows = rows.assign(mean=rows["mean"] * 100, low=rows["mean"] * 100 - half, high=rows["mean"] * 100 + half)
    rows["condition"] = [
        f"KVA {kva / MIB:.0f} MiB, {cpus_text(cpus)}" for kva, cpus in zip(rows["kva_bytes"], rows["cpus"], strict=True)
    ]
    return charts.lines(
        rows[["design", "day", "mean", "low", "high", "condition"]], x=charts.Axis("day", "day"),
        y=charts.Axis("mean", "external fragmentation of malloc's space, %"), colour="design", span=("low", "high"),
        facet="condition", dots=True,
    )  # fmt: skip


def _pairs_chart(judged: pd.DataFrame) -> object:
    rows = judged[judged["what"].isin(SPACES)].copy()
    rows["condition"] = [
        f"{r.what}: {r.workload}, {r.kva_bytes / MIB:.0f} MiB, {cpus_text(r.cpus)}" for r in rows.itertuples()
    ]
    return charts.intervals(
        rows.sort_values(["what", "workload", "cpus", "kva_bytes"])[["condition", "diff", "low", "high", "design"]],
        y="condition", x=charts.Axis("diff", "external fragmentation, points more than with kmem_map"),
        colour="design", zero=True,
    )  # fmt: skip


def _maps_chart(found: Results) -> object:
    """kernel_map over the week, at the middle KVA."""
    metrics = found.metrics
    kva = sorted(metrics["kva_bytes"].unique())[len(metrics["kva_bytes"].unique()) // 2]
    cells = metrics[
        metrics["workload"].astype(str).isin(WEEKS) & (metrics["kva_bytes"] == kva)
        & (metrics["cpus"] == metrics["cpus"].min())
        & metrics["design"].astype(str).isin(["freebsd4", "dragonfly_2003aug25"])
    ]["cell_key"]  # fmt: skip
    rows = found.snapshots
    rows = rows[rows["cell_key"].isin(cells) & (rows["replica"] == 0) & (rows["map"].astype(str) == "kernel_map")]
    return charts.occupancy(rows, span_bytes=int(kva))
