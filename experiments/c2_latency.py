"""C2: with interrupts as threads, they can block on kernel_map; the only price is interrupt latency.

Question: are there no deadlocks, and what is the price, in latency and in anything else?

Method: `dragonfly_2003aug25` (unified, threads) against `freebsd4` (split, handlers on the interrupted stack), with
handlers that allocate from the map, by interrupt rate and CPUs, on the same arrivals. Judged apart: that nothing
deadlocks or sleeps where it must not (none in n replicas is not never: it holds where Wilson's bound, clustered by
seed, is below 5 %, which takes 74 seeds: these are of the sweep `deadlock`); that no interrupt is lost and no request
refused that is not with the split design (so, too, by pairs of replicas); and that the mainline's allocations get no
slower: where they are equivalent, or at least not worse by the margin (one Holm family of all rates and CPUs). The
time until a device's handler is done is a figure; what price is too high the claim does not say. `dragonfly_2003oct`
is in the chart; its allocator differs too.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from kmemexp import compare
from kmemexp.claims.judging import (
    Report,
    Verdict,
    change,
    cpus_text,
    never,
    only_with,
    pick,
    scenarios,
    side_by_side,
    unseen,
)
from kmemexp.claims.protocol import Protocol
from kmemexp.report import charts
from kmemexp.report.layout import factor
from kmemexp.report.results import Results

CLAIM = "C2"
SWEEPS = ("latency", "deadlock", "history")
FULL = {
    "latency": ["sweep.reps.max=64", "machine.cpus=1,2,4,8,16", "workload.window_s=10"],
    "deadlock": ["sweep.reps.max=200", "interrupts.rate_hz=100,300,1000,3000,10000", "machine.cpus=1,2,4,8"],
}
SPLIT, THREADS = "freebsd4", "dragonfly_2003aug25"
SAFETY = ("deadlocks_count", "would_sleep_count", "panics_count")
PRICE = ("irq_device_start_p99_ns", "irq_device_done_p50_ns", "irq_device_done_p99_ns", "irq_soft_done_p99_ns")
SLOWER = "alloc_main_p99_ns"
LOSSES = ("lost_interrupts_count", "alloc_failures_count")
SCENARIOS = ("interrupted_holder_fixed", "sleeping_holder_fixed")
US = 1e3
PROTOCOL = Protocol(
    judged=(SLOWER,),
    family="one family: latency of the mainline's allocations at all rates and CPUs; safety and losses are a statement "
    "each",
    replicas={"latency": 8, "deadlock": 74, "history": 1},
    confirm={
        "latency": ("workload=trace", "workload.path={recording}"),
        "deadlock": ("workload=trace", "workload.path={recording}"),
    },
)


def analyse(results: Mapping[str, Results]) -> Report:
    """Compare safety, latency and the rest."""
    runs = results["latency"].metrics
    many = results["deadlock"].metrics
    many = many[~many["clock_allocates"].fillna(False).astype(bool)]
    table = compare(runs, {"design": SPLIT}, [*SAFETY, *PRICE, SLOWER, *LOSSES], judged=PRICE)
    pair = runs[runs["design"].astype(str).isin([SPLIT, THREADS])]
    slower_table = compare(pair, {"design": SPLIT}, [SLOWER], judged=PROTOCOL.judged)
    conditions = list(table[["rate_hz", "cpus"]].drop_duplicates().itertuples(index=False))
    safe = [_safety([runs, many]), *_scenarios(results["history"].metrics)]
    prices = [_price(table, rate, cpus) for rate, cpus in conditions]
    others = [_losses([runs, many]), *(_slower(slower_table, rate, cpus) for rate, cpus in conditions)]
    done = table[(table["metric"] == "irq_device_done_p99_ns") & (table["design"].astype(str) == THREADS)]
    dear = int((done["verdict"] == "worse").sum())
    more = [v for v in others if v.verdict == "fails"]
    fate = "the machine was not always safe" if safe[0].verdict == "fails" else "nothing deadlocked"
    summary = (
        f"With threads that block on kernel_map {fate}. The time until a device interrupt is done (p99) is "
        f"{factor(done['ratio'].min())} to {factor(done['ratio'].max())} that of the split design, longer under {dear} "
        f"of {len(prices)} conditions; of {len(others)} statements that it is the only price {len(more)} fail."
    )
    shown = table[["rate_hz", "cpus", "design", "metric", "n", "mean", "low", "high", "diff", "ratio", "verdict"]]
    prices_shown = shown[shown["metric"].isin([*PRICE, SLOWER, *LOSSES])]
    return Report(summary, [*safe, *prices, *others], {"latency": prices_shown}, {"latency": _chart(table)})


def _safety(sweeps: Sequence[pd.DataFrame]) -> Verdict:
    """Judge all replicas with threads together: they are one machine's kinds of load, and an event is an event."""
    runs = pd.concat(
        [m[(m["design"].astype(str) == THREADS) & (m["status"] == "done")] for m in sweeps], ignore_index=True
    )
    if runs.empty:
        raise LookupError(f"no replica of {THREADS} in the sweeps")
    word, text, share = never((runs[list(SAFETY)] > 0).join(runs[["seed", "replica"]]))
    return Verdict(
        CLAIM, word, "recorded load, all rates and CPUs: no deadlock, no forbidden sleep, no panic", text,
        unit="share of replicas", question="threads may block on kernel_map: no deadlock, forbidden sleep or panic",
        **share,
    )  # fmt: skip


def _losses(sweeps: Sequence[pd.DataFrame]) -> Verdict:
    """Judge whether interrupts are lost, or requests refused, with threads only."""
    pairs = [side_by_side(m, THREADS, SPLIT, (m[list(LOSSES)] > 0).any(axis=1)) for m in sweeps]
    word, text, share = only_with(pd.concat(pairs), THREADS, SPLIT)
    return Verdict(
        CLAIM, word, "the only price: no interrupt lost and no request refused that is not without threads",
        f"lost or refused {text}", unit="share of replicas", question="nothing lost or refused with threads only",
        **share,
    )  # fmt: skip


def _scenarios(metrics: pd.DataFrame) -> list[Verdict]:
    """Judge the troubles of the unified map that threads are said to have cured."""
    rows = scenarios(metrics)
    return [
        Verdict(
            CLAIM, "fails" if rows.loc[name, list(SAFETY)].sum() else "holds", f"scenario {name}",
            f"deadlocks, forbidden sleeps, panics: {', '.join(f'{rows.loc[name, m]:.0f}' for m in SAFETY)}; "
            f"longest device interrupt {rows.loc[name, 'irq_device_done_max_ns'] / US:,.1f} µs",
            rows.loc[name, "irq_device_done_max_ns"] / US, unit="µs at most", condition=name.removesuffix("_fixed"),
            question="scenarios of the trouble, mended by threads: safe; longest device interrupt",
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
        done["ratio"], done["ratio_low"], done["ratio_high"], "times", condition=f"{rate:,}/s, {cpus_text(cpus)}",
        question="the price: a device interrupt, raised to done, p99 against the split design",
    )  # fmt: skip


def _slower(table: pd.DataFrame, rate: int, cpus: int) -> Verdict:
    """Judge whether the mainline waits too."""
    row = pick(table, SLOWER, design=THREADS, rate_hz=rate, cpus=cpus)
    return Verdict(
        CLAIM, "fails" if row["verdict"] == "worse" else "holds" if row["not_worse"] else "inconclusive",
        f"the only price: recorded load, {rate:,} interrupts/s, {cpus_text(cpus)}",
        f"mainline allocation p99 {change(row, 'µs', US)} ({factor(row['ratio'])}; paired, n = {row['pairs']}, 95 %)",
        row["diff"] / US, row["diff_low"] / US, row["diff_high"] / US, "µs",
        question="no other price: the mainline's allocations, p99, not slower by 10 %",
        condition=f"{rate:,}/s, {cpus_text(cpus)}", **unseen(row, US),
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
