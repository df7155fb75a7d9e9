"""C3: fast interrupts (clock, perhaps serial) do not allocate, so they are safe.

Question: are fast interrupts safe while they do not allocate, and what if one does, or frees?

Method: the sweep `deadlock` with the clock's handler as it is and with one that allocates, at the same rate and load,
by design and CPUs. A replica is unsafe if a fast interrupt or a message wanted a lock that may sleep in it, or if
there was a forbidden sleep, a deadlock or a panic; the figure is their share, with Wilson's interval, clustered by
seed where conditions are put together. That a clock which does not allocate is safe holds where the upper bound is
below 5 %, and fails with the first unsafe replica. The scenarios `oversize_fast` and `free_unmaps` show a fast
interrupt and a message that free, as DragonFly had them until October and September 2003, and as they were fixed.
The clock of `freebsd4` was no fast interrupt: splhigh holds it off. `freebsd4_unified` is left out: it deadlocks
without the clock's help (C1).
"""

from collections.abc import Mapping

import pandas as pd

from kmemexp.claims.judging import Report, Verdict, cpus_text, never, scenarios
from kmemexp.claims.protocol import Protocol
from kmemexp.report import charts, stats
from kmemexp.report.results import Results

CLAIM = "C3"
SWEEPS = ("deadlock", "history")
FULL = {"deadlock": ["sweep.reps.max=200", "interrupts.rate_hz=100,300,1000,3000,10000", "machine.cpus=1,2,4,8"]}
DESIGNS = ("freebsd4", "dragonfly_2003aug25", "dragonfly_2003oct")
SIGNS = ("blockable_locks_count", "would_sleep_count", "deadlocks_count", "panics_count")
PROTOCOL = Protocol(
    judged=SIGNS,
    family="one statement: no sign of danger in any run with a clock that does not allocate; the rest is description",
    replicas={"deadlock": 74, "history": 1},
    confirm={"deadlock": ("workload=trace", "workload.path={recording}")},
)
FREES = {
    "oversize_fast": "a fast interrupt frees an oversize block",
    "free_unmaps": "free, in a message, unmaps a zone",
}


def analyse(results: Mapping[str, Results]) -> Report:
    """Count what a fast interrupt did with and without an allocation."""
    metrics = results["deadlock"].metrics
    metrics = metrics[metrics["design"].astype(str).isin(DESIGNS) & (metrics["status"] == "done")]
    allocates = metrics["clock_allocates"].fillna(False).astype(bool)
    table = _shares(metrics.assign(allocates=allocates))
    as_is, allocating = _as_is(metrics[~allocates]), _allocating(table[table["allocates"]])
    unsafe = sum(v.effect > 0 for v in allocating)
    summary = (
        f"A clock that does not allocate was {'not always safe' if as_is.verdict == 'fails' else 'never unsafe'}; one "
        f"that does was unsafe, in some replicas at least, under {unsafe} of {len(allocating)} conditions."
    )
    verdicts = [as_is, *allocating, *_frees(results["history"].metrics)]
    return Report(summary, verdicts, {"fast": table}, {"fast": _chart(table)})


def _shares(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row per design, rate, CPUs and kind of clock: shares of the replicas, with Wilson's interval for any sign."""
    seen = (metrics[list(SIGNS)] > 0).assign(unsafe=(metrics[list(SIGNS)] > 0).any(axis=1))
    keys = [metrics["design"].astype(str), *(metrics[axis] for axis in ("rate_hz", "cpus", "allocates"))]
    groups = seen.groupby(keys, sort=False)
    table = groups.mean().assign(n=groups.size(), hits=groups["unsafe"].sum()).reset_index()
    low, high = stats.wilson(table["hits"], table["n"])
    return table.assign(unsafe_low=low, unsafe_high=high)


def _as_is(metrics: pd.DataFrame) -> Verdict:
    """Judge a clock that does not allocate: an unsafe replica of any design contradicts the claim."""
    if metrics.empty:
        raise LookupError("no replica with a clock that does not allocate in the sweep deadlock")
    word, text, share = never((metrics[list(SIGNS)] > 0).join(metrics[["seed", "replica"]]))
    return Verdict(
        CLAIM, word,
        f"recorded load, a clock that does not allocate: {', '.join(DESIGNS)}, all rates and CPUs",
        f"unsafe {text}", unit="share of replicas", question="a clock that does not allocate is safe", **share,
    )  # fmt: skip


def _allocating(table: pd.DataFrame) -> list[Verdict]:
    """Give the figures of a clock that allocates: not what the claim says, but why it says it."""
    return [
        Verdict(
            CLAIM, "observed",
            f"recorded load, a clock that allocates: {row.design}, {row.rate_hz:,} interrupts/s, {cpus_text(row.cpus)}",
            f"unsafe in {row.hits} of {row.n} replicas ({row.unsafe_low:.0%} to {row.unsafe_high:.0%}, Wilson, 95 %); "
            f"would have slept in {row.would_sleep_count:.0%}, deadlock in {row.deadlocks_count:.0%}",
            row.unsafe, row.unsafe_low, row.unsafe_high, "share of replicas",
            question="a clock that allocates: unsafe replicas", condition=f"{row.design}, {cpus_text(row.cpus)}",
        )
        for row in table.itertuples()
    ]  # fmt: skip


def _frees(metrics: pd.DataFrame) -> list[Verdict]:
    """Give the figures of fast interrupts and messages that free: one run each, of one draw of the arrivals."""
    rows = scenarios(metrics)["blockable_locks_count"]
    return [
        Verdict(
            CLAIM, "observed", f"scenario {name}: {text}",
            f"locks that may sleep wanted there: {rows[name]:,.0f}; mended: {rows[f'{name}_fixed']:,.0f}",
            float(rows[name]), unit="locks", question=text,
        )
        for name, text in FREES.items()
    ]  # fmt: skip


def _chart(table: pd.DataFrame) -> object:
    rates = table.loc[table["allocates"], "rate_hz"].unique()
    rows = table[table["rate_hz"].isin(rates)].sort_values(["rate_hz", "cpus", "allocates"])
    clock = rows["allocates"].map({True: "allocates", False: "does not"})
    rows = rows.assign(condition=[f"{cpus_text(n)}, clock {text}" for n, text in zip(rows["cpus"], clock, strict=True)])
    if len(rates) > 1:
        rows["condition"] = rows["rate_hz"].map("{:,}/s, ".format) + rows["condition"]
    return charts.intervals(
        rows, y="condition", span=("unsafe_low", "unsafe_high"), colour="design",
        x=charts.Axis("unsafe", "share of replicas that are unsafe (Wilson's 95 % interval)"),
    )  # fmt: skip
