"""C8: type stability is needed in only a few places (proc, the net PCBs), and per-CPU freelists can serve those.

Question: whose memory hits another type when a reader still reads a freed object, and what do protections cost?

Method: every kind of object with readers that hold no reference (conf/stability/readers: that they exist is sourced,
how often and how long is assumed), on the slab allocator, under no protection, a zone (zalloc), per-CPU freelists, a
grace period and a count of references; paired on the same load and references. A read after the free is a *type
violation* if it finds an object of another kind, part of one, a recycled page or none: what type stability prevents.
It is a *wrong object* if it finds another object of the kind and the reader compares no generation count: that, type
stability does not prevent. A kind needs type stability here if its type violations are above one per million
references (lower end of the interval, corrected for the number of kinds and loads), and not if they are below. That
measure is thinned by readers that are quick and harmless, so the violations of a day are given beside it. Intervals: t
over replicas; where nothing was hit, the exact binomial bound on the stale reads, taken as independent. Violations per
million do not depend on a lone reader's rate and grow with its hold time: `type_stability_hold` says where they cross
one per million.
"""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import altair as alt
import numpy as np
import pandas as pd

from kmemexp import compare
from kmemexp.claims.judging import Report, Verdict, change, pick, spread, unseen
from kmemexp.claims.protocol import Protocol
from kmemexp.report import families, small_samples, stats
from kmemexp.report.charts import colours
from kmemexp.report.layout import number
from kmemexp.report.results import Results

CLAIM = "C8"
SWEEPS = ("type_stability", "type_stability_hold", "type_stability_cost")
FULL = {
    "type_stability": ["sweep.reps.max=32"],
    "type_stability_hold": ["sweep.reps.max=16", "stability.hold_ratio=0.01,0.03,0.1,0.3,1,3,10,30,100"],
    "type_stability_cost": ["sweep.reps.max=16", "workload.window_s=4"],
}
LIMIT = 1.0  # per million references
NAMED = ("proc", "tcpcb", "udpcb", "unpcb", "task_struct", "TCP", "UDP")
"""The kinds that the mails name, and what the recorded kernel calls them."""
PINNED = "held_after_peak_bytes"
LATENCIES = ("alloc_main_p99_ns", "alloc_main_p999_ns", "free_main_p99_ns")
CPU_TIME = "main_ratio"
PROTOCOL = Protocol(
    judged=LATENCIES[:1],
    family="violations: intervals corrected for the number of kinds and loads; latency: one family of the kinds",
    replicas={"type_stability": 8, "type_stability_hold": 3, "type_stability_cost": 6},
    confirm={
        "type_stability": (
            f"sweep.zip=[{{workload: [{', '.join(['mail_peak'] * 12 + ['trace'] * 2)}], stability.kind: [proc, "
            "vmspace, tcpcb, udpcb, unpcb, socket, syncache, vnode, ffs_inode, file, pipe, knote, task_struct, filp]}]",
            'sweep.axes={workload.path: ["{recording}"]}',
            "sweep.when={workload.window_s: \"workload == 'trace'\", workload.path: \"workload == 'trace'\"}",
        ),
        "type_stability_hold": ("workload=mail_peak",),
        "type_stability_cost": ("workload=trace", "workload.path={recording}", "stability.kind=task_struct,filp"),
    },
)
MIB, DAY_S = 1 << 20, 86_400
CONDITIONS = "mail2003_bare; readers' rates and hold times are assumed"


def analyse(results: Mapping[str, Results]) -> Report:
    """Say which kinds need type stability, what serves them, and at what price."""
    found = results["type_stability"]
    table = outcomes(found)
    memory = compare(_done(found.metrics), {"stability": "none"}, [PINNED])
    memory = memory.rename(columns={"stability": "protection"})
    cost = compare(_done(results["type_stability_cost"].metrics), {"stability": "none"}, [*LATENCIES, CPU_TIME],
                   judged=PROTOCOL.judged)  # fmt: skip
    hold = crossings(results["type_stability_hold"])
    verdicts = []
    for load, rows in table.groupby("workload", observed=True):
        verdicts += [*needed(load, rows), shares(load, rows), served(load, rows, memory), graced(load, rows)]
    verdicts += [_pinned(memory), *_priced(cost), _sensitive(hold)]
    tables = {"outcomes": table, "memory": _memory_table(memory), "hold": hold, "cost": cost}
    charts = {"violations": _heatmap(table), "memory": _bars(memory)}
    return Report(_summary(table, verdicts), verdicts, tables, charts)


def _done(metrics: pd.DataFrame) -> pd.DataFrame:
    return metrics[metrics["status"] == "done"]


# Tables.


def outcomes(found: Results) -> pd.DataFrame:
    """One row per load, kind and protection: references, stale reads, and both sorts of violation with intervals."""
    metrics = _done(found.metrics)
    seconds = found.series.groupby("cell_key")["time_ns"].max() / 1e9
    ci = 1 - 0.05 / max(len(metrics[["workload", "kind"]].drop_duplicates()), 1)
    rows = []
    for (load, kind, protection), cell in metrics.groupby(["workload", "kind", "stability"], observed=True):
        references, stale = cell["references_count"].to_numpy(), cell["stale_reads_count"].to_numpy()
        typed = (cell["stale_other_type_count"] + cell["stale_unmapped_count"]).to_numpy()
        wrong = cell["stale_wrong_object_count"].to_numpy()
        mean, low, high, seen = rate(typed, references, stale, ci)
        sets = json.loads(cell["config"].iloc[0])["stability"]["oversample"]
        days = seconds.get(cell["cell_key"].iloc[0], np.nan) / DAY_S * sets
        rows.append({
            "workload": str(load), "kind": str(kind), "protection": str(protection), "n": len(cell),
            "references": references.mean() / sets, "stale_per_million": 1e6 * stale.sum() / references.sum(),
            "type_per_million": mean, "type_low": low, "type_high": high, "type_seen": seen,
            "wrong_per_million": rate(wrong, references, stale).mean,
            "type_per_run": typed.mean() / sets, "type_per_day": typed.mean() / days,
            "wrong_per_day": wrong.mean() / days,
        })  # fmt: skip
    return pd.DataFrame(rows)


class Rate(NamedTuple):
    """Hits per million references, with their interval, and the least difference that could have been seen."""

    mean: float
    low: float
    high: float
    seen: float


def rate(hits: np.ndarray, references: np.ndarray, stale: np.ndarray, ci: float = 0.95) -> Rate:
    """Hits per million references, by replicas; where nothing is hit by the exact bound on the stale reads."""
    if not hits.sum():
        per_stale = 1.0 if not stale.sum() else 1 - ((1 - ci) / 2) ** (1 / stale.sum())
        bound = float(1e6 * per_stale * stale.sum() / references.sum())
        return Rate(0.0, 0.0, bound, bound)
    x = 1e6 * hits / references
    found = stats.mean_interval(x, ci)
    error = found.sd / np.sqrt(found.n)
    t = stats.t_quantile(found.n, ci)
    below, above = (np.fmax(side, t) for side in small_samples.bootstrap_t(x, 1 - ci, mean=True))
    low, high = found.mean - above * error, found.mean + below * error
    seen = families.least(found.n, error, 1 - ci)
    return Rate(float(found.mean), max(float(low[0]), 0.0), float(high[0]), float(seen))


def crossings(found: Results) -> pd.DataFrame:
    """One row per kind: type violations by hold ratio, and the ratio at which they pass one per million."""
    rows = []
    for kind, of_kind in _done(found.metrics).groupby("kind", observed=True):
        row: dict[str, object] = {"kind": str(kind)}
        ratios, values = [], []
        for ratio, cell in of_kind.groupby("hold_ratio", observed=True):
            typed = (cell["stale_other_type_count"] + cell["stale_unmapped_count"]).sum()
            values.append(float(1e6 * typed / cell["references_count"].sum()))
            ratios.append(float(ratio))
            row[f"at_{ratio:g}"] = values[-1]
        readers = json.loads(of_kind["config"].iloc[0])["stability"]["readers"][str(kind)]
        row["longest_hold_s"] = max(reader["hold_s"] for reader in readers)
        row["crosses_at"] = crossing(ratios, values)
        rows.append(row)
    return pd.DataFrame(rows)


def crossing(ratios: list[float], values: list[float]) -> float:
    """Ratio at which values pass LIMIT: 0 above it everywhere, inf below it everywhere.

    By a line through their logarithms, or half-way where nothing was hit below.
    """
    if values[0] > LIMIT:
        return 0.0
    for (r, v), (r2, v2) in zip(
        zip(ratios, values, strict=True), zip(ratios[1:], values[1:], strict=True), strict=False
    ):
        if v2 > LIMIT:
            share = 0.5 if v <= 0 else np.log(LIMIT / v) / np.log(v2 / v)
            return float(r * (r2 / r) ** share)
    return float("inf")


# Verdicts.


def needed(load: str, rows: pd.DataFrame) -> Iterator[Verdict]:
    """Judge kind by kind whether type stability is needed where the mails say so, and nowhere else."""
    bare = rows[rows["protection"] == "none"]
    for row in bare.sort_values("type_per_million", ascending=False, kind="stable").itertuples():
        need, safe = row.type_low > LIMIT, row.type_high < LIMIT
        named = row.kind in NAMED
        word = "holds" if (need if named else safe) else "fails" if (safe if named else need) else "inconclusive"
        yield Verdict(
            CLAIM, word, f"in few places: {load}, {row.kind}, nothing protected; {CONDITIONS}",
            f"{'named by the mails' if named else 'not named'}: type violations per million references "
            f"{spread(row.type_per_million, row.type_low, row.type_high, sign=False)}, a day {row.type_per_day:.2g}",
            row.type_per_million, row.type_low, row.type_high, "per million", condition=row.kind,
            question=f"{load}: needed (above {LIMIT:g} per million references) for proc and PCBs alone",
            seen=row.type_seen if word == "inconclusive" else np.nan,
        )  # fmt: skip


def shares(load: str, rows: pd.DataFrame) -> Verdict:
    """Say which kinds most of a day's violations come from."""
    bare = rows[rows["protection"] == "none"].sort_values("type_per_run", ascending=False)
    total, named = bare["type_per_run"].sum(), bare.loc[bare["kind"].isin(NAMED), "type_per_run"].sum()
    share = named / total if total else np.nan
    most = ", ".join(f"{r.kind} {number(r.type_per_day, 2)}" for r in bare.head(4).itertuples())
    word = "observed" if not total else "holds" if share > 0.9 else "holds in part" if share > 0.5 else "fails"
    return Verdict(
        CLAIM, word, f"{load}, share of proc and PCBs in all type violations, nothing protected; {CONDITIONS}",
        f"{share:.0%} of them; type violations in a day of this load: {most}", share, unit="share of type violations",
        question="these are most of all type violations: proc and the PCBs", condition=load,
    )  # fmt: skip


def served(load: str, rows: pd.DataFrame, memory: pd.DataFrame) -> Verdict:
    """Judge whether per-CPU freelists serve the kinds that the mails name."""
    of = {p: rows[(rows["protection"] == p) & rows["kind"].isin(NAMED)].set_index("kind") for p in ("none", "percpu")}
    typed = of["percpu"]["type_per_million"].sum()
    wrong = of["percpu"].index[of["percpu"]["wrong_per_million"] > LIMIT]
    word = "fails" if typed else "holds in part" if len(wrong) else "holds"
    held = [pick(memory, PINNED, workload=load, kind=k, protection="percpu")["diff"] for k in of["percpu"].index]
    texts = [
        f"{k} {number(of['none']['wrong_per_million'][k], 2)} → {number(of['percpu']['wrong_per_million'][k], 2)}"
        for k in wrong
    ]
    return Verdict(
        CLAIM, word, f"{load}, per-CPU freelists for {', '.join(of['percpu'].index)}; {CONDITIONS}",
        f"type violations per million {number(of['none']['type_per_million'].sum(), 2)} → {number(typed, 2)} (sum); "
        f"wrong objects above {LIMIT:g} per million remain for: {', '.join(texts) or 'none'}; memory held after the "
        f"peak {sum(held) / MIB:+.2f} MiB for all of them, one at a time",
        sum(held) / MIB, unit="MiB", question="per-CPU freelists serve the kinds that the mails name; memory held more",
        condition=load,
    )  # fmt: skip


def graced(load: str, rows: pd.DataFrame) -> Verdict:
    """Say what a grace period leaves: the readers that sleep."""
    table = rows.set_index(["kind", "protection"])
    wide, typed = (table[column].unstack() for column in ("stale_per_million", "type_per_million"))  # noqa: PD010
    left = (wide["grace"] / wide["none"]).fillna(0.0)
    hit = typed.index[typed["grace"] > 0]
    kept = left[left > 0.1].sort_values(ascending=False)
    return Verdict(
        CLAIM, "observed", f"{load}, memory freed after a grace period of 20 to 40 ms; {CONDITIONS}",
        f"stale reads fall below a tenth for {int((left <= 0.1).sum())} of {len(left)} kinds; left: "
        f"{', '.join(f'{k} {v:.0%}' for k, v in kept.items()) or 'none'} (readers that sleep longer); type violations "
        f"remain for {', '.join(hit) or 'none'}",
        float(left.max()), unit="share of the stale reads", condition=load,
        question="a grace period of 20 to 40 ms: stale reads left of the worst kind",
    )  # fmt: skip


def _pinned(memory: pd.DataFrame) -> Verdict:
    rows = memory[(memory["protection"].astype(str) != "none")]
    worst = rows.loc[rows["diff"].idxmax()]
    by = rows.groupby(rows["protection"].astype(str))["diff"].sum() / MIB
    return Verdict(
        CLAIM, "observed", f"memory held after the peak against no protection; {CONDITIONS}",
        f"most: {worst['kind']} by {worst['protection']} on {worst['workload']}, {change(worst, 'MiB', MIB)}; all "
        f"kinds one at a time: {', '.join(f'{p} {v:+.2f} MiB' for p, v in by.items())} (paired, 95 %)",
        worst["diff"] / MIB, worst["diff_low"] / MIB, worst["diff_high"] / MIB, "MiB",
        question="memory that a protection holds after the peak, the most",
        condition=f"{worst['kind']} by {worst['protection']}, {worst['workload']}",
    )  # fmt: skip


def _priced(cost: pd.DataFrame) -> list[Verdict]:
    """Say what per-CPU freelists do to latencies, and every protection to the CPU time, by kind."""
    verdicts = []
    for kind in dict.fromkeys(cost["kind"].astype(str)):
        rows = {m: pick(cost, m, stability="percpu", kind=kind) for m in LATENCIES}
        text = ", ".join(f"{m.removesuffix('_ns')} {change(r, 'ns')}" for m, r in rows.items())
        busy = {p: pick(cost, CPU_TIME, stability=p, kind=kind) for p in ("percpu", "zone", "grace")}
        time = ", ".join(f"{p} {100 * (r['ratio'] - 1):+.2f} %" for p, r in busy.items())
        first = rows[LATENCIES[0]]
        word = {"better": "holds", "equivalent": "holds", "worse": "fails"}.get(str(first["verdict"]), "inconclusive")
        verdicts.append(Verdict(
            CLAIM, word, f"latency: recorded load, {kind} on per-CPU freelists, costs of opteron2003",
            f"against no protection: {text} (paired, n = {first['pairs']}, 95 %); CPU time of all operations: {time}",
            first["diff"], first["diff_low"], first["diff_high"], "ns", condition=kind,
            question="per-CPU freelists: allocations, p99, not slower by 10 %", **unseen(first),
        ))  # fmt: skip
    return verdicts


def _sensitive(hold: pd.DataFrame) -> Verdict:
    def words(at: float) -> str:
        return "always" if at == 0 else f"{at:.2g}" if np.isfinite(at) else "never"

    texts = [f"{row.kind} {words(row.crosses_at)}" for row in hold.sort_values("crosses_at").itertuples()]
    return Verdict(
        CLAIM,
        "observed",
        f"hold times of all readers multiplied, nothing protected; {CONDITIONS}",
        f"type violations pass {LIMIT:g} per million references at these multiples of the assumed hold times: "
        f"{', '.join(texts)}",
        question="hold times at which a kind passes one per million, in multiples of what is assumed",
        condition=", ".join(texts),
    )


def _summary(table: pd.DataFrame, verdicts: list[Verdict]) -> str:
    bare = table[table["protection"] == "none"].sort_values("type_per_million", ascending=False)
    first = ", ".join(f"{r.kind} ({number(r.type_per_million, 2)})" for r in bare.head(3).itertuples())
    safe = table[table["protection"].isin(["zone", "percpu", "refcount"])]
    words = [v.verdict for v in verdicts if v.where.startswith("in few places")]
    counts = ", ".join(f"{word} for {words.count(word)}" for word in dict.fromkeys(words))
    return (
        f"Without protection the most type violations per million references are those of {first}; zones, per-CPU "
        f"freelists and counts of references leave {number(safe['type_per_million'].sum(), 2)}. All of it rests on "
        f"assumed readers. Needed in few places: {counts} of {len(words)} kinds."
    )


# Shown.


def _memory_table(memory: pd.DataFrame) -> pd.DataFrame:
    rows = memory[["workload", "kind", "protection", "pairs", "diff", "diff_low", "diff_high", "p_holm"]].copy()
    rows[["diff", "diff_low", "diff_high"]] /= MIB
    return rows.rename(columns={c: f"{c}_mib" for c in ("diff", "diff_low", "diff_high")})


def _heatmap(table: pd.DataFrame) -> alt.TopLevelMixin:
    frame = table.assign(
        row=table["workload"] + ": " + table["kind"],
        text=[f"{v:.0f}" if v >= 100 or not v else f"{v:.2g}" for v in table["type_per_million"]],
    )
    order = ["none", "grace", "zone", "percpu", "refcount"]
    base = alt.Chart(frame).encode(
        x=alt.X("protection:N", sort=order, title="protection", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("row:N", sort=list(dict.fromkeys(frame["row"])), title=None, axis=alt.Axis(labelLimit=260)),
    )
    shade = alt.Scale(type="symlog", constant=0.1, scheme="oranges")
    title = ["type violations", "per million references"]
    boxes = base.mark_rect().encode(color=alt.Color("type_per_million:Q", title=title, scale=shade))
    words = base.mark_text(fontSize=11).encode(text="text:N")
    return (
        alt.layer(boxes, words).properties(width=460, height=24 * frame["row"].nunique()).configure(background="white")
    )


def _bars(memory: pd.DataFrame) -> alt.TopLevelMixin:
    rows = _memory_table(memory[memory["protection"].astype(str) != "none"])
    rows = rows.assign(row=rows["workload"].astype(str) + ": " + rows["kind"].astype(str))
    rows = rows.astype({"protection": str, "workload": str, "kind": str})
    place = alt.Y("row:N", sort=list(dict.fromkeys(rows["row"])), title=None, axis=alt.Axis(labelLimit=260))
    scale = colours(dict.fromkeys(rows["protection"]))
    tint = alt.Color("protection:N", title=None, scale=scale, legend=alt.Legend(orient="top"))
    base = alt.Chart(rows).encode(y=place, yOffset="protection:N")
    across = alt.X("diff_mib:Q", title="memory held after the peak, more than without protection, MiB")
    bars = base.mark_bar().encode(x=across, color=tint)
    whiskers = base.mark_rule().encode(x="diff_low_mib:Q", x2="diff_high_mib:Q")
    chart = alt.layer(bars, whiskers).properties(width=560, height=36 * rows["row"].nunique())
    return chart.configure(background="white")
