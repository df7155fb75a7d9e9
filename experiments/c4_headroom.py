"""C4: without kmem_map the whole kernel_map is there for malloc, zalloc and slab: fewer failures.

Question: at the same total KVA, does malloc have more room without kmem_map, and do fewer allocations fail?

Method: pairs of designs that differ in their maps only (without a clock, interrupts make no difference): `freebsd4`
and `dragonfly_2003aug25`; where the sweep has them, `freebsd5_uma` and `freebsd5_uma_unified`. Paired on the same
operations, by load and KVA. The claim has a ground (more room: the least headroom of the map that malloc allocates
from) and a consequence (fewer failures). Where an allocation failed with either design the consequence alone decides,
since what is refused takes no room. Where none failed, there was no failure to avoid: the claim then holds in part if
there is more room, and fails if there is less. A kernel stops at its first panic, and the simulated one goes on: where
every replica panics with both designs the counts are told and not judged. Failures and room of both pairs, under all
conditions, are one Holm family. Beside them: requests that failed by cause (fragmented: enough free KVA, no run;
exhausted), panics, and the least largest run.
"""

from collections.abc import Mapping

import pandas as pd

from kmemexp import compare
from kmemexp.claims.judging import Report, Verdict, change, conditions, in_replicas, pick, unseen, without_gaps
from kmemexp.claims.protocol import LONG_RUN, LONGER_RUN, OTHER_LOADS, Protocol
from kmemexp.report import charts
from kmemexp.report.families import one_family
from kmemexp.report.results import Results

CLAIM = "C4"
SWEEPS = ("fragmentation",)
DEFAULT = {"fragmentation": LONG_RUN}
FULL = {"fragmentation": LONGER_RUN}
PAIRS = {
    "dragonfly_2003aug25": ("freebsd4", "kmem_map removed from FreeBSD 4"),
    "freebsd5_uma_unified": ("freebsd5_uma", "kmem_map removed from FreeBSD 5 (UMA)"),
}
FAILURES, ROOM = "alloc_failures_count", "malloc_headroom_min_bytes"
PANICS = "panics_count"
CAUSES = ("failed_fragmented_count", "failed_exhausted_count", PANICS)
RUN = "malloc_largest_run_min_bytes"
MIB = 1 << 20
PROTOCOL = Protocol(
    judged=(FAILURES, ROOM),
    family="one family: failures and headroom of both pairs, on all loads, KVA sizes and CPUs",
    replicas={"fragmentation": 12},
    confirm={"fragmentation": OTHER_LOADS},
)


def analyse(results: Mapping[str, Results]) -> Report:
    """Compare each split design with its unified twin."""
    metrics = without_gaps(results["fragmentation"].metrics)
    present = set(metrics["design"].astype(str))
    least = metrics.groupby("cell_key")[PANICS].min()
    doomed = set(least.index[least > 0])
    verdicts, tables = [], []
    pairs: list[pd.DataFrame] = []
    names: list[tuple[str, str, str]] = []
    for unified, (split, words) in PAIRS.items():
        if {unified, split} <= present:
            rows = metrics[metrics["design"].astype(str).isin([unified, split])]
            pairs.append(compare(rows, {"design": split}, [FAILURES, ROOM, RUN, *CAUSES]))
            names.append((unified, split, words))
    if pairs:
        for (unified, split, words), table in zip(names, one_family(pairs, PROTOCOL.judged), strict=True):
            for where, found in conditions(table):
                tables.append(found.assign(against=split, condition=where))
                if len(set(found["design"])) == len({unified, split}):
                    none_lives = set(found["cell_key"]) <= doomed
                    verdicts.append(_verdict(found, unified, split, where, words, none_lives=none_lives))
    if not verdicts:
        raise LookupError(f"none of the pairs {', '.join(f'{b}/{a}' for a, (b, _) in PAIRS.items())} is in the sweep")
    table = pd.concat(tables, ignore_index=True)
    count = pd.Series([v.verdict for v in verdicts]).value_counts()
    summary = (
        f"Of {len(verdicts)} conditions, fewer failures in {count.get('holds', 0)}, more room and no failure to avoid "
        f"in {count.get('holds in part', 0)}, worse in {count.get('fails', 0)}, equivalent in "
        f"{count.get('equivalent', 0)}, inconclusive in {count.get('inconclusive', 0)}; in "
        f"{count.get('observed', 0)} every replica panics with and without."
    )
    figures = ["n", "mean", "diff", "diff_low", "diff_high", "p_holm", "verdict"]
    shown = table[["against", "condition", "design", "metric", *figures]]
    return Report(summary, verdicts, {"headroom": shown}, {"headroom": _chart(table)})


def _verdict(
    table: pd.DataFrame, unified: str, split: str, where: str, words: str, *, none_lives: bool
) -> Verdict:  # fmt: skip
    """Judge one pair under one condition, whose rows `table` holds; `none_lives`: every replica of both panics."""
    rows = {metric: pick(table, metric, design=unified) for metric in (FAILURES, ROOM, RUN, *CAUSES)}
    room, failures, before = rows[ROOM], rows[FAILURES], pick(table, FAILURES, design=split)
    fragmented, exhausted, panics = (change(rows[m]) for m in CAUSES)
    any_failed = failures["occurs"] + before["occurs"] > 0
    return Verdict(
        CLAIM, "observed" if none_lives else judged(failures["verdict"], room["verdict"], any_failed=any_failed),
        f"{where}, {words}",
        f"failures {change(failures)} (any in {in_replicas(before)} replicas with kmem_map, {in_replicas(failures)} "
        f"without; requests to a map: fragmented {fragmented}, exhausted {exhausted}; panics {panics}), headroom "
        f"{change(room, 'MiB', MIB)}, largest run {change(rows[RUN], 'MiB', MIB)} (paired, n = {room['pairs']}, 95 %)",
        *(_failures(failures) if any_failed else _room(room)), condition=where,
        question=f"{words}: {'fewer failures' if any_failed else 'more room, where nothing failed'}",
        **(unseen(failures) if any_failed else unseen(room, MIB)),
    )  # fmt: skip


def _failures(row: pd.Series) -> tuple[float, float, float, str]:
    """The effect: of what is rare by shares of replicas with any, else by counts."""
    if row["test"] == "sign":
        return row["share_diff"], row["share_low"], row["share_high"], "share of replicas with any"
    return row["diff"], row["diff_low"], row["diff_high"], "failures"


def _room(row: pd.Series) -> tuple[float, float, float, str]:
    return row["diff"] / MIB, row["diff_low"] / MIB, row["diff_high"] / MIB, "MiB"


def judged(failures: str, room: str, *, any_failed: bool) -> str:
    """Judge by the consequence where there is one, else by its ground."""
    decides = failures if any_failed else room
    good = "holds" if any_failed else "holds in part"
    return {"better": good, "worse": "fails"}.get(decides, decides)


def _chart(table: pd.DataFrame) -> object:
    rows = table[table["metric"] == ROOM].copy()
    rows[["mean", "low", "high"]] /= MIB
    rows["condition"] = [where.partition(", ")[2] for where in rows["condition"]]
    return charts.intervals(
        rows, y="condition", x=charts.Axis("mean", "least headroom of malloc, MiB"), colour="design", facet="workload"
    )  # fmt: skip
