"""C7: malloc and zalloc can be converted entirely to slab.

Question: what does the slab allocator of October 2003 cost and gain against buckets and zones: memory, throughput,
contention?

Method: `mail2003_bare` (all of both on slab) against `dragonfly_2003aug25` on the same operations. Memory (held at its
peak, requested but not used) on recorded and synthetic load, by KVA; throughput, waits for locks and memory in a
closed loop from 1 CPU to many, under the big lock of 2003 and without it. Every operation of every load is served by
the slab design, so that it *can* be converted is shown where no allocation fails; whether it should is judged measure
by measure: it holds where the slab allocator is better or equivalent, and fails where it is worse (failures, memory
and throughput under all conditions are one Holm family). "Served entirely" holds where failures with slabs only are
excluded above 5 % of the replicas, clustered by seed, and fails where they are above. The designs also differ in how
map entries are supplied (reservation), which came with the slab allocator.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from kmemexp import compare
from kmemexp.claims.judging import (
    Report,
    Verdict,
    change,
    conditions,
    cpus_text,
    in_replicas,
    only_with,
    pick,
    side_by_side,
    unseen,
    without_gaps,
)
from kmemexp.claims.protocol import LONG_RUN, LONGER_RUN, OTHER_LOADS, Protocol
from kmemexp.report import charts
from kmemexp.report.families import one_family
from kmemexp.report.layout import factor
from kmemexp.report.results import Results

CLAIM = "C7"
SWEEPS = ("scaling", "fragmentation")
DEFAULT = {
    "scaling": ["design=dragonfly_2003aug25,mail2003_bare", "machine.cpus=1,4,16,64"],
    "fragmentation": LONG_RUN,
}
FULL = {"scaling": ["sweep.reps.max=16", "machine.cpus=1,2,4,8,16,32,64,128,256"], "fragmentation": LONGER_RUN}
BEFORE, SLAB = "dragonfly_2003aug25", "mail2003_bare"
PROTOCOL = Protocol(
    judged=("alloc_failures_count", "held_peak_bytes", "throughput_hz"),
    family="one family: failures, memory and throughput on all loads, KVA sizes, CPUs and locks",
    replicas={"scaling": 6, "fragmentation": 12},
    confirm={"fragmentation": OTHER_LOADS},
)
WORDS = {
    "alloc_failures_count": ("failures", "", 1.0),
    "held_peak_bytes": ("memory held", "MiB", 2.0**20),
    "total_frag_mean_ratio": ("held but not requested", "points", 0.01),
    "internal_frag_ratio": ("waste inside objects", "points", 0.01),
    "throughput_hz": ("throughput", "million/s", 1e6),
    "lock_wait_ratio": ("lock waits", "points", 0.01),
    "contended_ratio": ("locks contended", "points", 0.01),
    "alloc_main_p50_ns": ("allocation p50", "µs", 1e3),
    "alloc_main_p99_ns": ("allocation p99", "µs", 1e3),
}
"""Metrics: what they are called, unit, and how much of the metric one unit is."""
MEMORY = ("alloc_failures_count", "held_peak_bytes", "total_frag_mean_ratio", "internal_frag_ratio")
SPEED = ("throughput_hz", "lock_wait_ratio", "alloc_main_p50_ns", "alloc_main_p99_ns")


def analyse(results: Mapping[str, Results]) -> Report:
    """Compare memory by load and KVA, and speed by CPUs."""
    compared = [
        _compared(results["fragmentation"], MEMORY),
        _compared(results["scaling"], (*SPEED, "contended_ratio", "held_peak_bytes")),
    ]
    memory, speed = one_family(compared, PROTOCOL.judged)
    apart = [rows.assign(condition=where) for where, rows in conditions(memory)]
    both = [rows for rows in apart if set(rows["design"].astype(str)) == {BEFORE, SLAB}]
    memory = pd.concat(both, ignore_index=True)
    verdicts = [_entirely(results)]
    verdicts += [
        _verdict(part, MEMORY, "held_peak_bytes", where)
        for where, part in memory.groupby("condition", observed=True, sort=False)
    ]
    for cpus, lock in speed[["cpus", "big_lock"]].drop_duplicates().itertuples(index=False, name=None):
        where = f"kernel_loop, {cpus_text(cpus)}, {'big lock' if lock else 'no big lock'}"
        for main in ("throughput_hz", "held_peak_bytes"):
            shown = SPEED if main == "throughput_hz" else (main,)
            verdicts.append(_verdict(speed, shown, main, where, cpus=cpus, big_lock=lock))
    charts_ = {"throughput": _lines(speed), "memory": _memory(memory)}
    return Report(_summary(verdicts), verdicts, {"memory": _shown(memory), "speed": _shown(speed)}, charts_)


def _entirely(results: Mapping[str, Results]) -> Verdict:
    """Judge that the conversion is possible: nothing fails with slabs that did not fail with buckets and zones."""
    every = [without_gaps(found.metrics) for found in results.values()]
    pairs = [side_by_side(m, SLAB, BEFORE, m["alloc_failures_count"] > 0) for m in every]
    word, text, share = only_with(pd.concat(pairs), SLAB, BEFORE)
    return Verdict(
        CLAIM, word, "served entirely: all loads, KVA and CPUs of both sweeps", f"an allocation failed {text}",
        unit="share of replicas", question="served entirely: no failures with slabs only", **share,
    )  # fmt: skip


def _compared(results: Results, metrics: tuple[str, ...]) -> pd.DataFrame:
    rows = without_gaps(results.metrics)
    rows = rows[rows["design"].astype(str).isin([BEFORE, SLAB])]
    return compare(rows, {"design": BEFORE}, list(metrics))


def _verdict(table: pd.DataFrame, shown: tuple[str, ...], main: str, where: str, **condition: object) -> Verdict:
    """Judge one measure; the others are shown beside it. An allocation that fails decides where there is one."""
    rows = {metric: pick(table, metric, design=SLAB, **condition) for metric in shown}
    word = {"better": "holds", "equivalent": "holds", "worse": "fails"}.get(str(rows[main]["verdict"]), "inconclusive")
    failures = rows.get("alloc_failures_count")
    if failures is not None and failures["verdict"] == "worse":
        word = "fails"
    elif failures is not None and failures["verdict"] == "better" and word == "fails":
        word = "holds in part"
    elif failures is not None and word == "holds" and failures["occurs"] > 0 and not failures["not_worse"]:
        word = "inconclusive"
    name, unit, scale = WORDS[main]
    texts = [_text(rows[metric], metric) for metric in sorted(shown, key=lambda metric: metric != main)]
    row = rows[main]
    return Verdict(
        CLAIM, word, f"{name}: {where}", f"{'; '.join(texts)} (paired, n = {row['pairs']}, 95 %)",
        row["diff"] / scale, row["diff_low"] / scale, row["diff_high"] / scale, unit,
        question=_question(main, where), condition=where, **(unseen(row, scale) or _unseen_failures(failures)),
    )  # fmt: skip


def _unseen_failures(row: pd.Series | None) -> dict[str, Any]:
    return {} if row is None else unseen(row)


def _question(main: str, where: str) -> str:
    """What a verdict answers; the closed loop, whose CPUs keep zones of their own, apart from the loads."""
    if main == "throughput_hz":
        return f"throughput, {where.rpartition(', ')[2]}"
    return f"memory held, {'closed loop' if where.startswith('kernel_loop') else 'loads'}"


def _text(row: pd.Series, metric: str) -> str:
    name, unit, scale = WORDS[metric]
    ratio = "" if metric.endswith("_ratio") else factor(row["ratio"])
    if metric == "alloc_failures_count":
        ratio = f"any in {in_replicas(row)} replicas"
    return " ".join(part for part in (name, change(row, unit, scale), ratio and f"({ratio})") if part)


def _summary(verdicts: list[Verdict]) -> str:
    """Count the verdicts measure by measure."""
    texts = []
    for measure in dict.fromkeys(v.where.partition(":")[0] for v in verdicts):
        words = [v.verdict for v in verdicts if v.where.startswith(f"{measure}:")]
        counts = ", ".join(f"{word} under {words.count(word)}" for word in dict.fromkeys(words))
        texts.append(f"{measure}: {counts} of {len(words)} conditions")
    return f"Slabs in place of buckets and zones. {'; '.join(texts)}."


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    names = ("condition", "cpus", "big_lock", "design", "metric", "n", "mean", "low", "high", "diff",
             "diff_low", "diff_high", "ratio", "p_holm", "verdict")  # fmt: skip
    return table[[name for name in names if name in table.columns]]


def _lines(speed: pd.DataFrame) -> object:
    rows = speed[speed["metric"] == "throughput_hz"].copy()
    rows[["mean", "low", "high"]] /= 1e6
    rows["lock"] = rows["big_lock"].map({True: "with the big lock", False: "without the big lock"}).astype(str)
    return charts.lines(
        rows, x=charts.Axis("cpus", "CPUs", log=True), colour="design", span=("low", "high"), facet="lock", dots=True,
        y=charts.Axis("mean", "throughput, million operations per second"),
    )  # fmt: skip


def _memory(memory: pd.DataFrame) -> object:
    rows = memory[memory["metric"] == "held_peak_bytes"].copy()
    rows[["mean", "low", "high"]] /= 2**20
    rows["condition"] = [where.partition(", ")[2] for where in rows["condition"]]
    return charts.intervals(
        rows, y="condition", x=charts.Axis("mean", "memory held at its peak, MiB"), colour="design", facet="workload"
    )  # fmt: skip
