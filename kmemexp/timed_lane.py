"""Run one lane on the machine with a clock, sample it, and sum up what only a clock can tell."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kmemexp import timed, wiring, witness
from kmemexp.compose import KERNEL
from kmemexp.duties import largest_run
from kmemexp.metrics import LATENCIES, LEAST_SAMPLES, PANICS, QUANTILES, SERIES
from kmemexp.sim import contexts as cx
from kmemexp.sim import machine as mc
from kmemexp.sim import probes as a
from kmemexp.sim.machine import E_CHUNK, E_DEADLOCK, E_DONE, E_DRY, E_GROW
from kmemexp.sim.slots import M_COUNT
from kmemexp.workload import phases
from kmemexp.workload.stream import Handlers, Kinds, Stream

if TYPE_CHECKING:
    from kmemexp.lane import Lane, Sampling

CHUNK = 100_000  # events between two returns to Python
OVERTIME = 4  # a lane ends after so many times its stream's length, even if operations are left
SLACK_NS = 1_000_000_000  # and this much
ENDED = (E_DEADLOCK, E_DONE, E_DRY)
LOWER, UPPER = a.bucket_bounds()
MIDDLE = np.where(np.isinf(UPPER), LOWER, np.floor((np.ceil(LOWER) + np.ceil(UPPER) - 1) / 2))  # of the whole numbers


def run(
    config: Mapping, kinds: Kinds, stream: Stream, sampling: "Sampling", replica: int, handlers: Handlers | None = None
) -> "Lane":
    """Play a whole stream on a timed machine that has just booted. Raises ConfigError."""
    from kmemexp import lane  # noqa: PLC0415 - the two drivers share the sampling

    t = timed.boot(config, kinds, stream, replica, handlers=handlers)
    span = span_ns(config, stream)
    times, painted = lane.sample_times(span, sampling)
    series = np.zeros((sampling.points, len(SERIES)), np.int64)
    measured = np.zeros((sampling.points, len(t.base.maps), M_COUNT), np.int64)
    snapshots: list[tuple[int, str, np.ndarray]] = []
    for point, time_ns in enumerate(times):
        last = point == sampling.points - 1
        if t.wired.m[mc.G_EXIT] not in ENDED:
            t = _watched(t, config["policy"], limit_ns(config, stream) if last else time_ns)
        machine = t.base._replace(world=t.world)
        measured[point] = lane.look(machine, sampling.bins if point in painted else 0, time_ns, snapshots)
        series[point] = lane.sample(machine, measured[point], time_ns)
    values = lane.memory_metrics(t.base._replace(world=t.world), series, measured) | metrics(t)
    panic = t.world.counters[a.A_PANIC] or t.wired.m[mc.N_PANIC]
    return lane.Lane(replica, lane.metrics_row(values), PANICS[panic], series, snapshots, latency_rows(t.wired),
                     witness.summary(t.wired))  # fmt: skip


def _watched(t: timed.Timed, policy: Mapping, until: int) -> timed.Timed:
    """Simulate until a time, and at each multiple of the policy's `watch_s` look whether kernel_map has a long run."""
    if every := round(policy.get("watch_s", 0) * 1e9):
        for time_ns in range((int(t.wired.m[mc.G_NOW]) // every + 1) * every, until + 1, every):
            t = advance(t, time_ns)
            if t.wired.m[mc.G_EXIT] in ENDED:
                return t
            t.wired.m[mc.G_SHORT] = largest_run(t.base._replace(world=t.world)) < policy["floor_bytes"]
    return advance(t, until)


def span_ns(config: Mapping, stream: Stream) -> int:
    """Length of a stream, ns."""
    if "pause_ns" in config["workload"]:
        return closed_span(stream, config["machine"]["cpus"])
    last = int(stream.time_ns[-1]) if stream.count else 0
    if config["workload"]["source"] == "synthetic":
        return max(last, round(phases.length_s(config["workload"]) * 1e9))
    return last


def limit_ns(config: Mapping, stream: Stream) -> int:
    """Time at which a lane ends even if operations are left."""
    span = span_ns(config, stream)
    return OVERTIME * span + SLACK_NS if stream.count else span


def closed_span(stream: Stream, cpus: int) -> int:
    """Length of a closed load if no operation took any time: of the CPU that pauses most."""
    return int(max(stream.time_ns[stream.cpu == c].sum() for c in range(cpus)))


def advance(t: timed.Timed, until: int) -> timed.Timed:
    """Simulate until a time (ns), a deadlock or the end of the stream, making room where there is none."""
    while True:
        code = t.run(t.world, t.wired.m, t.stream, until, CHUNK)
        if code == E_GROW:
            t = timed.enlarge(t)
        elif code != E_CHUNK:
            return t


def warm(config: Mapping, kinds: Kinds) -> None:
    """Compile the engine for a cell's design, or load it."""
    none = np.zeros(0, np.int32)
    empty = Stream(none.astype(np.int64), none.astype(np.uint8), none.astype(np.int16), none, none,
                   none.astype(np.int16), none.astype(np.uint8), 0)  # fmt: skip
    t = timed.boot(config, kinds, empty, 0)
    t.run(t.world, t.wired.m, t.stream, 0, 1)
    t.base.observe(t.world.arena, KERNEL, np.zeros(M_COUNT, np.int64), np.zeros(0))


def quantile(hist: np.ndarray, q: float, least: int) -> float:
    """Quantile of a histogram, ns, within half a bucket (1.6 %); NaN for fewer samples than `least`."""
    n = int(hist.sum())
    if n < least:
        return math.nan
    rank = min(max(math.ceil(q * n), 1), n)
    return float(MIDDLE[np.searchsorted(np.cumsum(hist), rank)])


def histograms(wired: wiring.Wired) -> dict[str, np.ndarray]:
    """Histogram of everything that has one: operations by context, waits by class of lock, interrupts by source."""
    table, names = wired.table("hist"), wired.names
    kinds = ("main", "soft", "device", "fast")
    found = {f"alloc_{kind}": table[a.H_ALLOC + k] for k, kind in enumerate(kinds)}
    found |= {f"free_{kind}": table[a.H_FREE + k] for k, kind in enumerate(kinds)}
    found |= {f"wait_{lock}": table[a.H_WAIT + i] for i, lock in enumerate(names.lock_classes)}
    base = a.H_WAIT + len(names.lock_classes)
    for i, source in enumerate(names.sources):
        found[f"irq_{source}_start"], found[f"irq_{source}_done"] = table[base + 2 * i], table[base + 2 * i + 1]
    return found


def latency_rows(wired: wiring.Wired) -> tuple[tuple, ...]:
    """Rows of the table of latencies: what, count, mean, quantiles (NaN where the samples do not carry them)."""
    rows = []
    for name, hist in histograms(wired).items():
        if n := int(hist.sum()):
            tails = [quantile(hist, v, LEAST_SAMPLES[q]) for q, v in QUANTILES.items()]
            rows.append((name, n, float((hist * MIDDLE).sum() / n), *tails))
    return tuple(rows)


def metrics(t: timed.Timed) -> dict[str, float]:
    """What only a clock can tell, by the names of kmemexp.metrics.TIMED."""
    m, wired = t.wired.m, t.wired
    ended = int(m[mc.N_ENDED_AT])
    spent = wired.table("cpus")[:, cx.C_TIME : cx.C_TIME + 6].sum(axis=0)
    total = max(int(spent.sum()), 1)
    done = int(t.world.counters[a.A_OPS])
    values: dict[str, float] = {
        "deadlocks_count": m[mc.N_DEADLOCKS],
        "would_sleep_count": m[mc.N_WOULD_SLEEP],
        "self_locks_count": m[mc.N_SELF],
        "lock_reversals_count": m[mc.N_REVERSALS],
        "blockable_locks_count": m[mc.N_BLOCKABLE],
        "page_failures_count": m[mc.N_PAGE_FAILURES],
        "lost_interrupts_count": m[mc.N_LOST],
        "simulated_ns": ended,
        "throughput_hz": done / ended * 1e9 if ended else math.nan,
        "main_ratio": spent[cx.T_MAIN] / total,
        "interrupt_ratio": spent[[cx.T_SOFT, cx.T_THREAD, cx.T_FAST]].sum() / total,
        "spin_ratio": spent[cx.T_SPIN] / total,
        "lock_wait_ratio": m[mc.N_WAIT_NS] / total,
        "contended_ratio": m[mc.N_CONTENDED] / max(int(m[mc.N_LOCKS]), 1),
        "locks_count": m[mc.N_LOCKS],
        "interrupts_count": m[mc.N_INTERRUPTS],
        "preemptions_count": m[mc.N_PREEMPTIONS],
        "shootdowns_count": m[mc.N_SHOOTDOWNS],
        "forwarded_count": m[mc.N_FORWARDED],
        "memory_waits_count": m[mc.N_SLEPT],
        "paged_out_count": m[mc.N_DAEMON_PAGES],
        "free_pages_min_count": m[mc.G_LEAST_FREE] if m[mc.G_LIMITED] else math.nan,
        "handed_frees_count": m[mc.N_HANDED],
        "unfinished_count": m[mc.G_LEFT],
    }
    values["panics_count"] = t.world.counters[a.A_PANICS] + m[mc.N_PANICS]
    for name, hist in _latencies(wired).items():
        for q, v in QUANTILES.items():
            values[f"{name}_{q}_ns"] = quantile(hist, v, LEAST_SAMPLES[q])
    return values


def _latencies(wired: wiring.Wired) -> dict[str, np.ndarray]:
    """Histograms by the names of metrics.LATENCIES: all sources of a mode together."""
    hist, names = wired.table("hist"), wired.names
    found = {name: np.zeros(a.BUCKETS, np.int64) for name in LATENCIES}
    for verb, row in (("alloc", a.H_ALLOC), ("free", a.H_FREE)):
        found[f"{verb}_main"] += hist[row]
        found[f"{verb}_irq"] += hist[row + 1 : row + 4].sum(axis=0)
    found["lock_wait"] += hist[a.H_WAIT : a.H_WAIT + len(names.lock_classes)].sum(axis=0)
    base = a.H_WAIT + len(names.lock_classes)
    first = wired.table("sources")[:, 5]  # interrupts.S_FIRST
    for i, name in enumerate(names.sources):
        mode = {cx.SOFT: "soft", cx.THREAD: "device", cx.FAST: "fast"}.get(int(wired.m[first[i] + cx.X_KIND]))
        if name == "ipi":
            found["ipi_done"] += hist[base + 2 * i + 1]
        elif mode:
            found[f"irq_{mode}_start"] += hist[base + 2 * i]
            found[f"irq_{mode}_done"] += hist[base + 2 * i + 1]
    return found
