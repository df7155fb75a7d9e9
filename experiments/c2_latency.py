"""C2: with interrupts as threads, they can block on kernel_map; the only price is interrupt latency.

Question: are there no deadlocks, and what is the price, in latency and in anything else?

Method: `dragonfly_2003aug25` (unified, threads) against `freebsd4` (split, handlers on the interrupted stack), with
handlers that allocate from the map, by interrupt rate and CPUs, on the same arrivals. Judged apart: that nothing
deadlocks or sleeps where it must not (none in n replicas is not never: it holds where Wilson's bound, clustered by
seed, is below 5 %), and whether anything else gets worse: interrupts lost, latency of the mainline's allocations,
failures. It does not where each is equivalent, or at least not worse by its margin (one Holm family of all three,
rates and CPUs). The time until a device's handler is done is a figure; what price is too high the claim does not say.
`dragonfly_2003oct` is in the chart; its allocator differs too.
"""

from collections.abc import Mapping

import pandas as pd

from kmemexp import compare
from kmemexp.claims.judging import Report, Verdict, change, cpus_text, never, pick
from kmemexp.claims.protocol import Protocol
from kmemexp.report import charts
from kmemexp.report.layout import factor
from kmemexp.report.results import Results

CLAIM = "C2"
SWEEPS = ("latency", "history")
FULL = {"latency": ["sweep.reps.max=64", "machine.cpus=1,2,4,8,16", "workload.window_s=10"]}
SPLIT, THREADS = "freebsd4", "dragonfly_2003aug25"
SAFETY = ("deadlocks_count", "would_sleep_count", "panics_count")
PRICE = ("irq_device_start_p99_ns", "irq_device_done_p50_ns", "irq_device_done_p99_ns", "irq_soft_done_p99_ns")
OTHER = ("alloc_main_p99_ns", "lost_interrupts_count", "alloc_failures_count")
SCENARIOS = ("interrupted_holder_fixed", "sleeping_holder_fixed")
US = 1e3
PROTOCOL = Protocol(
    judged=OTHER,
    family="one family: what else may get worse, at all rates and CPUs; that nothing deadlocks is judged apart",
    replicas={"latency": 8, "history": 1},
    confirm={"latency": ("workload=trace", "workload.path={recording}")},
)


def analyse(results: Mapping[str, Results]) -> Report:
    """Compare safety, latency and the rest."""
    runs = results["latency"].metrics
    table = compare(runs, {"design": SPLIT}, [*SAFETY, *PRICE, *OTHER], judged=PRICE)
    pair = runs[runs["design"].astype(str).isin([SPLIT, THREADS])]
    others_table = compare(pair, {"design": SPLIT}, list(OTHER), judged=PROTOCOL.judged)
    conditions = list(table[["rate_hz", "cpus"]].drop_duplicates().itertuples(index=False))
    safe = [_safety(results["latency"].metrics), *_scenarios(results["history"].metrics)]
    prices = [_price(table, rate, cpus) for rate, cpus in conditions]
    others = [_other(others_table, rate, cpus) for rate, cpus in conditions]
    done = table[(table["metric"] == "irq_device_done_p99_ns") & (table["design"].astype(str) == THREADS)]
    dear = int((done["verdict"] == "worse").sum())
    more = [v for v in others if v.verdict == "fails"]
    fate = "the machine was not always safe" if safe[0].verdict == "fails" else "nothing deadlocked"
    summary = (
        f"With threads that block on kernel_map {fate}. The time until a device interrupt is done (p99) is "
        f"{factor(done['ratio'].min())} to {factor(done['ratio'].max())} that of the split design, longer under {dear} "
        f"of {len(prices)} conditions; the latency of interrupts was not the only price under {len(more)} of "
        f"{len(others)}."
    )
    shown = table[["rate_hz", "cpus", "design", "metric", "n", "mean", "low", "high", "diff", "ratio", "verdict"]]
    prices_shown = shown[shown["metric"].isin([*PRICE, *OTHER])]
    return Report(summary, [*safe, *prices, *others], {"latency": prices_shown}, {"latency": _chart(table)})


def _safety(metrics: pd.DataFrame) -> Verdict:
    """Judge all replicas with threads together: they are one machine's kinds of load, and an event is an event."""
    runs = metrics[(metrics["design"].astype(str) == THREADS) & (metrics["status"] == "done")]
    if runs.empty:
        raise LookupError(f"no replica of {THREADS} in the sweep latency")
    word, text, share = never((runs[list(SAFETY)] > 0).join(runs[["seed", "replica"]]))
    return Verdict(
        CLAIM, word, "recorded load, all rates and CPUs: no deadlock, no forbidden sleep, no panic", text, *share,
        "share of replicas",
    )  # fmt: skip


def _scenarios(metrics: pd.DataFrame) -> list[Verdict]:
    """Judge the troubles of the unified map that threads are said to have cured."""
    rows = metrics[metrics["status"] == "done"].set_index("scenario")
    return [
        Verdict(
            CLAIM, "fails" if rows.loc[name, list(SAFETY)].sum() else "holds", f"scenario {name}",
            f"deadlocks, forbidden sleeps, panics: {', '.join(f'{rows.loc[name, m]:.0f}' for m in SAFETY)}; "
            f"longest device interrupt {rows.loc[name, 'irq_device_done_max_ns'] / US:,.1f} µs",
            rows.loc[name, "irq_device_done_max_ns"] / US, unit="µs",
        )
        for name in SCENARIOS
    ]  # fmt: skip


def _price(table: pd.DataFrame, rate: int, cpus: int) -> Verdict:
    """Give the figure of one condition."""
    done = pick(table, "irq_device_done_p99_ns", design=THREADS, rate_hz=rate, cpus=cpus)
    start = pick(table, "irq_device_start_p99_ns", design=THREADS, rate_hz=rate, cpus=cpus)
    return Verdict(
        CLAIM, "observed", f"price in latency: recorded load, {rate:,} interrupts/s, {cpus_text(cpus)}",
        f"device done p99 {change(done, 'µs', US)} ({factor(done['ratio'])}), start p99 {change(start, 'µs', US)} "
        f"(paired, n = {done['pairs']}, 95 %)",
        done["ratio"], done["ratio_low"], done["ratio_high"], "ratio of p99",
    )  # fmt: skip


def _other(table: pd.DataFrame, rate: int, cpus: int) -> Verdict:
    """Judge whether latency of interrupts is the only price."""
    rows = {m: pick(table, m, design=THREADS, rate_hz=rate, cpus=cpus) for m in OTHER}
    worse = [m for m, row in rows.items() if row["verdict"] == "worse"]
    safe = all(row["not_worse"] for row in rows.values())
    alloc = rows["alloc_main_p99_ns"]
    return Verdict(
        CLAIM, "fails" if worse else "holds" if safe else "inconclusive",
        f"the only price: recorded load, {rate:,} interrupts/s, {cpus_text(cpus)}",
        f"mainline allocation p99 {change(alloc, 'µs', US)} ({factor(alloc['ratio'])}), interrupts lost "
        f"{change(rows['lost_interrupts_count'])}, failures {change(rows['alloc_failures_count'])} (paired, 95 %; "
        f"{', '.join(worse) or 'none'} worse after Holm)",
        alloc["diff"] / US, alloc["diff_low"] / US, alloc["diff_high"] / US, "µs",
    )  # fmt: skip


def _chart(table: pd.DataFrame) -> object:
    rows = table[table["metric"] == "irq_device_done_p99_ns"].copy()
    rows[["mean", "low", "high"]] /= US
    rows["low"] = rows["low"].clip(lower=rows["mean"] / 10)  # a logarithmic axis has no room for less than nothing
    pairs = zip(rows["rate_hz"], rows["cpus"], strict=True)
    rows["condition"] = [f"{rate:,}/s, {cpus_text(cpus)}" for rate, cpus in pairs]
    return charts.intervals(
        rows.sort_values(["rate_hz", "cpus"]), y="condition", colour="design",
        x=charts.Axis("mean", "device interrupt until its handler is done, p99, µs (mean of replicas, 95 % interval)",
                      log=True),
    )  # fmt: skip
