"""C1: kmem_map exists to avoid deadlock between interrupts that allocate and the mainline.

Question: does the status quo deadlock if kmem_map is removed and nothing else is changed, and only then?

Method: `freebsd4` (split) against `freebsd4_unified` (kmem_map simply removed), both with handlers on the interrupted
stack, by interrupt rate and CPUs, on the same arrivals. A replica ends with its first deadlock, so the figure is the
share of replicas that have one, with Wilson's interval. The claim holds where the design without kmem_map deadlocks
more often (exact sign test on the same replicas, one Holm family of all rates and CPUs) and the other one never did,
in part where both do, and fails where kmem_map makes it worse. 74 replicas show a share of 14 % against none with a
chance of 80 %. The scenario `interrupted_holder` shows it on the smallest machine, and `pageout_circle` a circle that
has nothing to do with kmem_map. The clock does not allocate here (that is C3).
"""

from collections.abc import Mapping

import pandas as pd

from kmemexp import compare
from kmemexp.claims.judging import Report, Verdict, cpus_text, pick, scenarios, unseen
from kmemexp.claims.protocol import Protocol
from kmemexp.report import charts
from kmemexp.report.results import Results

CLAIM = "C1"
SWEEPS = ("deadlock", "history")
FULL = {"deadlock": ["sweep.reps.max=200", "interrupts.rate_hz=100,300,1000,3000,10000", "machine.cpus=1,2,4,8"]}
SPLIT, REMOVED, THREADS = "freebsd4", "freebsd4_unified", "dragonfly_2003aug25"
DEADLOCKS = "deadlocks_count"
PROTOCOL = Protocol(
    judged=(DEADLOCKS,),
    family="one family: deadlocks of FreeBSD 4 without kmem_map against those with it, at all rates and CPUs",
    replicas={"deadlock": 74, "history": 1},
    confirm={"deadlock": ("workload=trace", "workload.path={recording}")},
)


def analyse(results: Mapping[str, Results]) -> Report:
    """Count who deadlocks, by interrupt rate and CPUs."""
    quiet = results["deadlock"].metrics
    quiet = quiet[~quiet["clock_allocates"].fillna(False).astype(bool)]
    table = _shares(quiet)
    pair = _shares(quiet[quiet["design"].astype(str).isin([SPLIT, REMOVED])])  # the family: what the claim is about
    verdicts = [_verdict(pair, rate, cpus) for rate, cpus in _conditions(pair)]
    verdicts += _smallest(results["history"].metrics)
    held = [v for v in verdicts if v.verdict == "holds"]
    broken = [v for v in verdicts if v.verdict == "fails"]
    example = quiet.loc[quiet["design"].astype(str).eq(REMOVED) & (quiet["deadlock"] != ""), "deadlock"].mode()
    summary = (
        f"With handlers on the interrupted stack and kmem_map removed, nothing else changed, there are deadlocks that "
        f"the split design has not, under {len(held)} of the {len(verdicts) - 1} conditions judged; kmem_map did not "
        f"help under {len(broken)}."
    )
    if len(example):
        summary += f" The commonest circle: {example.iloc[0]}."
    return Report(summary, verdicts, {"deadlocks": table}, {"deadlocks": _chart(table)})


def _shares(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row per rate, CPUs and design: share of replicas with a deadlock (Wilson), and the paired difference."""
    found = compare(metrics, {"design": SPLIT}, [DEADLOCKS], judged=PROTOCOL.judged)
    columns = ["design", "n", "occurs", "occurs_low", "occurs_high", "share_diff", "share_low", "share_high",
               "test", "detectable", "verdict"]  # fmt: skip
    return found[["rate_hz", "cpus", *columns, "metric"]]


def _conditions(table: pd.DataFrame) -> list[tuple[int, int]]:
    return list(table[["rate_hz", "cpus"]].drop_duplicates().sort_values(["rate_hz", "cpus"]).itertuples(index=False))


def _verdict(table: pd.DataFrame, rate: int, cpus: int) -> Verdict:
    """Say what removing kmem_map did under one condition."""
    split = pick(table, DEADLOCKS, design=SPLIT, rate_hz=rate, cpus=cpus)
    removed = pick(table, DEADLOCKS, design=REMOVED, rate_hz=rate, cpus=cpus)
    word = {"worse": "holds in part" if split["occurs"] > 0 else "holds", "better": "fails"}.get(
        removed["verdict"], removed["verdict"]
    )
    return Verdict(
        CLAIM, word, f"recorded load, {rate:,} interrupts/s, {cpus_text(cpus)}; kmem_map removed from FreeBSD 4",
        f"deadlock in {_share(removed)} without kmem_map, {_share(split)} with it (Wilson, 95 %)",
        removed["occurs"], removed["occurs_low"], removed["occurs_high"], "share of replicas",
        question="kmem_map removed and nothing else: deadlocks, and none with it",
        condition=f"{rate:,}/s, {cpus_text(cpus)}", **unseen(removed),
    )  # fmt: skip


def _share(row: pd.Series) -> str:
    hits = round(row["occurs"] * row["n"])
    return f"{hits} of {row['n']} replicas ({row['occurs_low']:.0%} to {row['occurs_high']:.0%})"


def _smallest(metrics: pd.DataFrame) -> list[Verdict]:
    """Say what the scenarios on the smallest machine show: one run each, fully determined."""
    ended = scenarios(metrics)[DEADLOCKS]
    removed, split, threads, circle = (
        int(ended[name])
        for name in ("interrupted_holder", "interrupted_holder_kmem_map", "interrupted_holder_fixed", "pageout_circle")
    )
    word = "holds" if removed and not split else "fails" if split else "inconclusive"
    return [
        Verdict(
            CLAIM, word, "scenario interrupted_holder: one handler, one mainline that takes kernel_map",
            f"deadlocks: {removed} without kmem_map, {split} with it, {threads} without it with interrupts as threads",
            removed - split, unit="deadlocks", question="the same on the smallest machine",
        ),
        Verdict(
            CLAIM, "observed", "scenario pageout_circle: unified, threads, a sleeper for memory holds kernel_map",
            f"deadlocks: {circle}; that circle goes through the disk, and threads do not open it",
            circle, unit="deadlocks", question="a circle through the disk, interrupts as threads",
        ),
    ]  # fmt: skip


def _chart(table: pd.DataFrame) -> object:
    rows = table[table["design"].astype(str).isin([SPLIT, REMOVED, THREADS])]
    rows = rows.assign(
        condition=[f"{rate:,}/s, {cpus_text(cpus)}" for rate, cpus in zip(rows["rate_hz"], rows["cpus"], strict=True)]
    )
    return charts.intervals(
        rows.sort_values(["rate_hz", "cpus"]), y="condition", span=("occurs_low", "occurs_high"), colour="design",
        x=charts.Axis("occurs", "share of replicas that deadlock (Wilson's 95 % interval)"),
    )  # fmt: skip
