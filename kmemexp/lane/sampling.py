"""Looking at a lane: the maps at each sample, a row of the series, the metrics at the end."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from kmemexp.boot.machine import Machine
from kmemexp.lane import fragmentation as frag
from kmemexp.lane.model import Sampling
from kmemexp.metrics import INDEX, METRICS, SERIES
from kmemexp.sim import probes as a
from kmemexp.sim import slots as s
from kmemexp.sim import stale
from kmemexp.sim.maps import MAP_NAMES

REQUESTS = {"16k": 16 << 10, "128k": 128 << 10, "1m": 1 << 20, "4m": 4 << 20}  # bytes, by their names in metrics
SUPERPAGE = 1024  # pages, i386


class Samples(NamedTuple):
    """What was seen of a lane at its samples, and the machine as it was at the last one."""

    machine: Machine
    series: np.ndarray  # int64[points, len(SERIES)]
    measured: np.ndarray  # int64[points, maps, M_COUNT]
    snapshots: list[tuple[int, str, np.ndarray]]  # simulated ns, map, uint8[bins] occupied share


def sampled(
    machine: Machine, span: int, sampling: Sampling, advance: Callable[[Machine, int, bool], Machine]
) -> Samples:
    """Look at a lane of `span` ns at each of its samples; `advance(machine, time_ns, last)` brings it there."""
    times, painted = sample_times(span, sampling)
    series = np.zeros((sampling.points, len(SERIES)), np.int64)
    measured = np.zeros((sampling.points, len(machine.maps), s.M_COUNT), np.int64)
    snapshots: list[tuple[int, str, np.ndarray]] = []
    for point, time_ns in enumerate(times):
        machine = advance(machine, time_ns, point == sampling.points - 1)
        measured[point] = look(machine, sampling.bins if point in painted else 0, time_ns, snapshots)
        series[point] = sample(machine, measured[point], time_ns)
    return Samples(machine, series, measured, snapshots)


def sample_times(span: int, sampling: Sampling) -> tuple[list[int], set[int]]:
    """Times of the samples, and which of them are painted."""
    times = np.linspace(0, span, sampling.points + 1)[1:].astype(np.int64).tolist()
    return times, set(np.linspace(0, sampling.points - 1, sampling.snapshots).round().astype(int).tolist())


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
