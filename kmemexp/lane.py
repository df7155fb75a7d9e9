"""Run one lane: play a stream in chunks between samples, look at the maps at each sample, sum up the metrics."""

import functools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np

from kmemexp import fragmentation as frag
from kmemexp import jit, plugins, timed, timed_lane
from kmemexp.compose import DIRECT, KERNEL, MAP_NAMES, Machine, allocator_names, boot, design
from kmemexp.duties import Duties, reap
from kmemexp.metrics import INDEX, METRICS, PANICS, SERIES
from kmemexp.sim import probes as a
from kmemexp.sim import slots as s
from kmemexp.sim import stale
from kmemexp.workload import stability
from kmemexp.workload.build import build
from kmemexp.workload.stream import Kinds, Load, Stream, Watched, columns

CHUNK = 100_000  # operations between two returns to Python
REQUESTS = {"16k": 16 << 10, "128k": 128 << 10, "1m": 1 << 20, "4m": 4 << 20}  # bytes, by their names in metrics
SUPERPAGE = 1024  # pages, i386


class Lane(NamedTuple):
    """What one replica of a cell gives."""

    replica: int
    metrics: np.ndarray  # float64[len(METRICS)]
    panic: str  # what the historic kernel would have printed first, or ""
    series: np.ndarray  # int64[points, len(SERIES)]
    snapshots: list[tuple[int, str, np.ndarray]]  # simulated ns, map, uint8[bins] occupied share
    latency: tuple[tuple, ...] = ()  # rows of the table of latencies, with a clock
    deadlock: str = ""  # the members of the first deadlock, in words


class Sampling(NamedTuple):
    """How often a lane is looked at."""

    points: int
    snapshots: int
    bins: int


def run(machine: Machine, stream: Stream, sampling: Sampling, replica: int, policy: Mapping | None = None) -> Lane:
    """Play a whole stream on a machine that has just booted. `policy`: that node of the configuration."""
    span = int(stream.time_ns[-1]) if stream.count else 0
    times, painted = sample_times(span, sampling)
    ends = np.searchsorted(stream.time_ns, times, side="right")
    ends[-1] = stream.count
    series = np.zeros((sampling.points, len(SERIES)), np.int64)
    measured = np.zeros((sampling.points, len(machine.maps), s.M_COUNT), np.int64)
    snapshots: list[tuple[int, str, np.ndarray]] = []
    at, upkeep = 0, Duties(machine, stream, policy)
    for point, (time_ns, end) in enumerate(zip(times, ends.tolist(), strict=True)):
        at = _play(machine, stream, at, end, time_ns, upkeep)
        measured[point] = look(machine, sampling.bins if point in painted else 0, time_ns, snapshots)
        series[point] = sample(machine, measured[point], time_ns)
    return Lane(
        replica,
        metrics_row(memory_metrics(machine, series, measured)),
        PANICS[machine.world.counters[a.A_PANIC]],
        series,
        snapshots,
    )


def sample_times(span: int, sampling: Sampling) -> tuple[list[int], set[int]]:
    """Times of the samples, and which of them are painted."""
    times = np.linspace(0, span, sampling.points + 1)[1:].astype(np.int64).tolist()
    return times, set(np.linspace(0, sampling.points - 1, sampling.snapshots).round().astype(int).tolist())


def _play(machine: Machine, stream: Stream, at: int, end: int, until_ns: int, upkeep: Duties) -> int:
    """Play operations `at` … end-1, which end by `until_ns`, with the duties that fall among them. Returns `end`."""
    while True:
        stop, due = upkeep.next(end, until_ns)
        while at < stop:
            goal = min(stop, at + CHUNK)
            at += machine.replay(machine.world, *columns(stream), at, goal)
            if at < goal:  # a map had no room
                reap(machine)
        if not due:
            return at
        for duty in due:
            upkeep.do(duty)


def look(machine: Machine, bins: int, time_ns: int, snapshots: list) -> np.ndarray:
    """Totals of every map that serves requests, int64[maps, M_COUNT]; with `bins`, their occupancy as well."""
    totals = np.zeros((len(machine.maps), s.M_COUNT), np.int64)
    for row, m in zip(totals, machine.maps, strict=True):
        shares = np.zeros(bins)
        machine.observe(machine.world.arena, m, row, shares)
        if bins:
            snapshots.append((time_ns, MAP_NAMES[m], np.round(shares * 255).astype(np.uint8)))
    return totals


def sample(machine: Machine, totals: np.ndarray, time_ns: int) -> list[int]:
    c = machine.world.counters
    malloc = totals[machine.maps.index(machine.malloc_map)]
    shared = totals[machine.shared]
    return [
        time_ns,
        c[a.A_OPS],
        c[a.A_REQUESTED],
        c[a.A_GRANTED],
        c[a.A_HELD],
        shared[:, s.M_FREE].sum(),
        shared[:, s.M_LARGEST].max(),
        shared[:, s.M_HOLES].sum(),
        totals[:, s.M_ENTRIES].sum(),
        malloc[s.M_FREE],
        malloc[s.M_LARGEST],
        c[a.A_FAILURES],
        superpages(machine),
        c[a.A_MOVES],
    ]


def superpages(machine: Machine) -> int:
    """Wholly free stretches of 4 MiB in the maps that serve any purpose, aligned to each map's start."""
    found, totals = 0, np.zeros(s.M_COUNT, np.int64)
    for m, nbytes, shared in zip(machine.maps, machine.map_bytes, machine.shared, strict=True):
        shares = np.zeros(nbytes // s.PAGE if shared else 0)
        machine.observe(machine.world.arena, m, totals, shares)
        found += frag.whole_stretches(shares, SUPERPAGE)
    return found


def memory_metrics(machine: Machine, series: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """Metrics of the memory itself, which every driver has: from the samples and the counters.

    `measured`: int64[points, maps, M_COUNT], what was measured of the maps at the samples.
    """
    column = {name: series[:, i].astype(float) for i, name in enumerate(SERIES)}
    final = look(machine, 0, 0, [])
    c = machine.world.counters
    free, largest = column["map_free_bytes"], column["map_largest_run_bytes"]
    requested, granted, held = column["requested_bytes"], column["granted_bytes"], column["held_bytes"]
    values = {
        "map_external_frag_ratio": 1 - _ratio(largest[-1], free[-1]),
        "map_external_frag_mean_ratio": np.mean([1 - _ratio(x, y) for x, y in zip(largest, free, strict=True)]),
        "map_free_bytes": free[-1],
        "map_largest_run_bytes": largest[-1],
        "map_largest_run_min_bytes": largest.min(),
        "map_holes_count": column["map_holes_count"][-1],
        "map_holes_max_count": column["map_holes_count"].max(),
        "map_entries_max_count": measured[:, :, s.M_ENTRIES].sum(axis=1).max(),
        "map_superpages_min_count": column["map_superpages_count"].min(),
        "map_superpages_mean_count": column["map_superpages_count"].mean(),
        "map_high_water_bytes": final[:, s.M_HIGH].sum(),
        "malloc_headroom_min_bytes": column["malloc_free_bytes"].min(),
        "malloc_largest_run_min_bytes": column["malloc_largest_run_bytes"].min(),
        "failed_fragmented_count": c[a.A_FRAGMENTED],
        "failed_exhausted_count": c[a.A_EXHAUSTED],
        "alloc_failures_count": c[a.A_FAILURES],
        "nowait_failures_count": c[a.A_NOWAIT_FAILURES],
        "panics_count": c[a.A_PANICS],
        "internal_frag_ratio": 1 - _ratio(requested.sum(), granted.sum()),
        "total_frag_ratio": 1 - _ratio(requested[-1], held[-1]),
        "total_frag_mean_ratio": 1 - _ratio(requested.sum(), held.sum()),
        "heap_mean_excess_ratio": frag.johnstone_wilson(requested, held).mean,
        "heap_live_peak_excess_ratio": frag.excess(c[a.A_HELD_AT_PEAK], c[a.A_REQUESTED_PEAK]),
        "heap_heap_peak_excess_ratio": frag.excess(c[a.A_HELD_PEAK], c[a.A_REQUESTED_AT_PEAK]),
        "heap_peaks_excess_ratio": frag.excess(c[a.A_HELD_PEAK], c[a.A_REQUESTED_PEAK]),
        "total_frag_peak_ratio": 1 - _ratio(c[a.A_REQUESTED_PEAK], c[a.A_HELD_PEAK]),
        "held_peak_bytes": c[a.A_HELD_PEAK],
        "held_mean_bytes": held.mean(),
        "held_end_bytes": c[a.A_HELD],
        "held_after_peak_bytes": held[held.argmax() :].min(),
        "requested_peak_bytes": c[a.A_REQUESTED_PEAK],
        "granted_total_bytes": c[a.A_GRANTED_TOTAL],
        "requested_total_bytes": c[a.A_REQUESTED_TOTAL],
        "map_operations_count": c[a.A_MAP_OPS],
        "map_walked_count": final[:, s.M_WALKED].sum(),
        "steps_count": c[a.A_STEPS],
        "ipis_count": c[a.A_IPIS],
        "moves_count": c[a.A_MOVES],
        "moved_bytes": c[a.A_MOVED],
        "operations_count": c[a.A_OPS],
    }
    for name, nbytes in REQUESTS.items():
        values[f"map_unusable_{name}_ratio"] = float(frag.unusable_ratio(nbytes, final[machine.shared].sum(axis=0)))
        values[f"map_frag_index_{name}_ratio"] = frag.index_of(nbytes, final[machine.shared])
    values["map_unusable_1m_mean_ratio"] = frag.unusable_ratio(
        REQUESTS["1m"], measured[:, machine.shared].sum(axis=1)
    ).mean()
    if len(machine.world.watch):
        values |= stale.census(machine.world.watch)
    return values


def metrics_row(values: Mapping[str, float]) -> np.ndarray:
    """Put metrics in their order, float64[len(METRICS)]; what there is none of is NaN."""
    row = np.full(len(METRICS), np.nan)
    for name, value in values.items():
        row[INDEX[name]] = value
    return row


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0


def simulate_lanes(config: Mapping, replicas: Sequence[int]) -> list[Lane]:
    """Simulate replicas of a cell (its canonical configuration as a plain dict), one lane each. Raises ConfigError."""
    config = stability.routed(config)
    load = _load(json.dumps(config["workload"], sort_keys=True), config["machine"]["cpus"], config["seed"],
                 tuple(replicas))  # fmt: skip
    load = stability.protect(load, config, replicas, reads=not timed.is_timed(config))
    sampling = Sampling(**config["sample"])
    if timed.is_timed(config):
        handlers = load.handlers or (None,) * len(replicas)
        return [
            timed_lane.run(config, load.kinds, stream, sampling, replica, recorded)
            for replica, stream, recorded in zip(replicas, load.streams, handlers, strict=True)
        ]
    lanes = []
    watched = load.watched or (None,) * len(replicas)
    for replica, stream, references in zip(replicas, load.streams, watched, strict=True):
        machine = watching(boot(config, load.kinds, stream.slots), references, config["machine"]["kva_bytes"])
        lanes.append(run(machine, stream, sampling, replica, config["policy"]))
    return lanes


def watching(machine: Machine, references: Watched | None, kva_bytes: int) -> Machine:
    """Give a machine that has just booted the table of what is watched in its stream, if anything is."""
    if references is None:
        return machine
    watch = stale.table(**references._asdict(), kva_bytes=kva_bytes, direct_map=DIRECT)
    return machine._replace(world=machine.world._replace(watch=watch))


@functools.lru_cache(maxsize=2)
def _load(workload: str, cpus: int, seed: int, replicas: tuple[int, ...]) -> Load:
    """Streams of the cells last simulated: the designs of a group of cells see the same ones."""
    return build(json.loads(workload), cpus=cpus, seed=seed, replicas=replicas)


def warm(configs: Iterable[Mapping], note: Callable[[str], None] = lambda text: None) -> None:
    """Compile what the lanes of these cells need, or load it from the disk cache. Raises ConfigError.

    Several drivers that have not been compiled yet are compiled by a process each, as many at once as there are CPUs;
    `note` is told.
    """
    distinct = list({_code(c): c for c in map(stability.routed, configs)}.values())
    cold = [c for c in distinct if not all(jit.is_cached(driver) for driver in _drivers(c))]
    workers = min(len(cold), os.cpu_count() or 1)
    if workers > 1:
        note(f"compiling {len(cold)} of {len(distinct)} designs, {workers} at a time; the next run finds them compiled")
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(warm_one, cold))
    for config in distinct:
        warm_one(config)


def _code(config: Mapping) -> tuple:
    """What decides which compiled code a cell needs."""
    return allocator_names(config["objects"]), config["maps"]["arena"], timed.is_timed(config)


def _drivers(config: Mapping) -> list[Callable]:
    names, arena, is_timed = _code(config)
    code = design(names, arena)
    return [code.replay, code.upkeep, *([timed.driver(names, arena)] if is_timed else [])]


def warm_one(config: Mapping) -> None:
    """Compile what one cell needs, by running it on nothing."""
    plugins.provide(config)
    config = stability.routed(config)
    none = np.zeros(0, np.int32)
    kinds = Kinds((), none.astype(np.int8), none, none, none)
    if timed.is_timed(config):
        timed_lane.warm(config, kinds)
    machine = boot(config, kinds, 0)
    machine.upkeep(machine.world, 0, s.T_TICK)
    machine.observe(machine.world.arena, KERNEL, np.zeros(s.M_COUNT, np.int64), np.zeros(0))
