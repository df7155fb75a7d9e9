"""What only a clock can tell: latencies, waits, and the counters of the machine."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kmemexp.boot import layout
from kmemexp.boot.timed import Timed
from kmemexp.lane.unfinished import KINDS, open_at_end, saturated, settle, waited_ns
from kmemexp.metrics import LATENCIES, LEAST_SAMPLES, QUANTILES
from kmemexp.sim import probes as a
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.tables import cpu, ctx, glob, seen, src
from kmemexp.sim.tables import tally

LOWER, UPPER = a.bucket_bounds()
MIDDLE = np.where(np.isinf(UPPER), LOWER, np.floor((np.ceil(LOWER) + np.ceil(UPPER) - 1) / 2))  # of the whole numbers

NOTHING: Mapping[str, np.ndarray] = {}
COUNTERS = {
    "deadlocks_count": seen.DEADLOCKS,
    "would_sleep_count": seen.WOULD_SLEEP,
    "self_locks_count": seen.SELF,
    "lock_reversals_count": seen.REVERSALS,
    "blockable_locks_count": seen.BLOCKABLE,
    "page_failures_count": seen.PAGE_FAILURES,
    "lost_interrupts_count": seen.LOST,
    "simulated_ns": seen.ENDED_AT,
    "locks_count": seen.LOCKS,
    "interrupts_count": seen.INTERRUPTS,
    "preemptions_count": seen.PREEMPTIONS,
    "shootdowns_count": seen.SHOOTDOWNS,
    "forwarded_count": seen.FORWARDED,
    "memory_waits_count": seen.SLEPT,
    "paged_out_count": seen.DAEMON_PAGES,
    "handed_frees_count": seen.HANDED,
    "unfinished_count": glob.LEFT,
    "stalled_cpus_count": glob.STALLS,
}
"""Metrics that a counter of the machine with a clock holds at the end."""


def quantile(hist: np.ndarray, q: float, least: int, unfinished: np.ndarray | None = None) -> float:
    """Quantile of a histogram, ns, within half a bucket (1.6 %); NaN for fewer samples than `least`.

    `unfinished`: histogram of the least that what has not ended can come to. Where that, ending at once or never, could
    move the quantile by more than a bucket, it is NaN. The maximum is that of all so far.
    """
    n = int(hist.sum())
    if n < least:
        return math.nan
    both = hist if unfinished is None else hist + unfinished
    total = int(both.sum())
    rank = min(max(math.ceil(q * total), 1), total)
    low = int(np.searchsorted(np.cumsum(both), rank))
    if q == 1 or total == n:
        return float(MIDDLE[low])
    high = int(np.searchsorted(np.cumsum(hist), rank))  # len(hist): among those that never end
    return float(MIDDLE[high]) if rank <= n and high - low <= 1 else math.nan


def histograms(wired: layout.Wired) -> dict[str, np.ndarray]:
    """Histogram of everything that has one: operations by context, waits by class of lock, interrupts by source."""
    table, names = wired.table("hist"), wired.names
    found = {f"alloc_{kind}": table[a.HIST_ALLOC + k] for k, kind in enumerate(KINDS)}
    found |= {f"free_{kind}": table[a.HIST_FREE + k] for k, kind in enumerate(KINDS)}
    found |= {f"wait_{lock}": table[a.HIST_WAIT + i] for i, lock in enumerate(names.lock_classes)}
    base = a.HIST_WAIT + len(names.lock_classes)
    for i, source in enumerate(names.sources):
        found[f"irq_{source}_start"], found[f"irq_{source}_done"] = table[base + 2 * i], table[base + 2 * i + 1]
    return found


def latency_rows(wired: layout.Wired, unfinished: Mapping[str, np.ndarray] = NOTHING) -> tuple[tuple[Any, ...], ...]:
    """Rows of the table of latencies: what, count, mean, quantiles (NaN where the samples do not carry them).

    Count and mean are of what has ended; `unfinished`: unfinished.open_at_end().
    """
    rows = []
    for name, hist in histograms(wired).items():
        if n := int(hist.sum()):
            tails = [quantile(hist, v, LEAST_SAMPLES[q], unfinished.get(name)) for q, v in QUANTILES.items()]
            rows.append((name, n, float((hist * MIDDLE).sum() / n), *tails))
    return tuple(rows)


def metrics(t: Timed) -> dict[str, float]:
    """What only a clock can tell, by the names of kmemexp.metrics.TIMED, and the panics of the machine with a clock."""
    m, world = t.wired.m, t.world
    settle(t)
    values: dict[str, float] = {name: m[counter] for name, counter in COUNTERS.items()}
    values |= _shares(t)
    values["free_pages_min_count"] = m[glob.LEAST_FREE] if m[glob.LIMITED] else math.nan
    values["panics_count"] = world.counters[tally.PANICS] + m[seen.PANICS]
    values["saturated_count"] = saturated(t)
    still = _latencies(t.wired, open_at_end(t))
    for name, hist in _latencies(t.wired, histograms(t.wired)).items():
        for q, v in QUANTILES.items():
            values[f"{name}_{q}_ns"] = quantile(hist, v, LEAST_SAMPLES[q], still[name])
    return values


def spent_ns(wired: layout.Wired) -> np.ndarray:
    """What the CPUs together spent their time on, ns: int64[6], by cpu.TIME_IDLE … cpu.TIME_SPIN."""
    spent: np.ndarray = wired.table("cpus")[:, cpu.TIME : cpu.TIME + cpu.TIME_SPIN + 1].sum(axis=0)
    return spent


def _shares(t: Timed) -> dict[str, float]:
    """Throughput, and shares of the CPU time and of the locks taken."""
    m, spent = t.wired.m, spent_ns(t.wired)
    ended, total = int(m[seen.ENDED_AT]), max(int(spent.sum()), 1)
    return {
        "throughput_hz": int(t.world.counters[tally.OPS]) / ended * 1e9 if ended else math.nan,
        "main_ratio": spent[cpu.TIME_MAIN] / total,
        "interrupt_ratio": spent[[cpu.TIME_SOFT, cpu.TIME_THREAD, cpu.TIME_FAST]].sum() / total,
        "spin_ratio": spent[cpu.TIME_SPIN] / total,
        "lock_wait_ratio": waited_ns(t) / total,
        "contended_ratio": m[seen.CONTENDED] / max(int(m[seen.LOCKS]), 1),
    }


def _latencies(wired: layout.Wired, hist: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Histograms by the names of metrics.LATENCIES, all sources of a mode together, from those by single names."""
    names = wired.names
    first = wired.table("sources")[:, src.FIRST]
    modes = [{mc.SOFT: "soft", mc.THREAD: "device", mc.FAST: "fast"}.get(int(wired.m[x + ctx.KIND])) for x in first]
    of = {"lock_wait": [f"wait_{lock}" for lock in names.lock_classes], "ipi_done": ["irq_ipi_done"]}
    for verb in ("alloc", "free"):
        of[f"{verb}_main"], of[f"{verb}_irq"] = [f"{verb}_main"], [f"{verb}_{kind}" for kind in KINDS[1:]]
    for mode in ("soft", "device", "fast"):
        sources = [name for name, its in zip(names.sources, modes, strict=True) if its == mode and name != "ipi"]
        for end in ("start", "done"):
            of[f"irq_{mode}_{end}"] = [f"irq_{name}_{end}" for name in sources]
    none = np.zeros(a.BUCKETS, np.int64)
    return {name: sum((hist.get(single, none) for single in of[name]), none) for name in LATENCIES}
