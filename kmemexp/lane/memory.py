"""Metrics of the memory itself, which every lane has: from its samples and the counters of its machine."""

import numpy as np

from kmemexp.boot.machine import Machine
from kmemexp.lane import fragmentation as frag
from kmemexp.lane.sampling import Samples
from kmemexp.lane.surveying import measured
from kmemexp.metrics import MOBILITIES, NODES, PAGE_OWNERS, SERIES, SPACES
from kmemexp.sim import stale
from kmemexp.sim.maps import DIRECT, KERNEL, MAP_NAMES
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.sim.tables import gauge, tally

REQUESTS = {"16k": 16 << 10, "128k": 128 << 10, "1m": 1 << 20, "4m": 4 << 20}  # bytes, by their names in metrics
COUNTERS = {
    "failed_fragmented_count": tally.FRAGMENTED,
    "failed_exhausted_count": tally.EXHAUSTED,
    "alloc_failures_count": tally.FAILURES,
    "nowait_failures_count": tally.NOWAIT_FAILURES,
    "object_waits_count": tally.WAITS,
    "panics_count": tally.PANICS,
    "held_peak_bytes": tally.HELD_PEAK,
    "held_end_bytes": tally.HELD,
    "requested_peak_bytes": tally.REQUESTED_PEAK,
    "granted_total_bytes": tally.GRANTED_TOTAL,
    "requested_total_bytes": tally.REQUESTED_TOTAL,
    "map_operations_count": tally.MAP_OPS,
    "steps_count": tally.STEPS,
    "ipis_count": tally.IPIS,
    "moves_count": tally.MOVES,
    "moved_bytes": tally.MOVED,
    "operations_count": tally.OPS,
}
"""Metrics that a counter of the machine holds at the end."""


def metrics(seen: Samples) -> dict[str, float]:
    """Metrics of a lane that has ended, by name; those of kmemexp.metrics.STALE only where a kind was watched."""
    column = {name: seen.series[:, i].astype(float) for i, name in enumerate(SERIES)}
    final = measured(seen.machine)
    world = seen.machine.world
    values = {name: world.counters[counter] for name, counter in COUNTERS.items()}
    values |= _of_maps(column, seen.measured, final)
    values |= _of_superpages(column["map_superpages_count"], seen)
    values |= _of_holes(seen.measured[:, seen.machine.shared], final[seen.machine.shared])
    values |= _of_spaces(seen.machine, seen.measured, final, column["held_bytes"])
    values |= _of_objects(column, world.counters)
    if len(world.watch):
        values |= stale.census(world.watch)
    return values


def _of_maps(column: dict[str, np.ndarray], measured: np.ndarray, final: np.ndarray) -> dict[str, float]:
    """What became of the KVA. `measured`: int64[points, maps, M_COUNT]; `final`: the same at the end."""
    free, largest = column["map_free_bytes"], column["map_largest_run_bytes"]
    return {
        "map_external_frag_ratio": 1 - _ratio(largest[-1], free[-1]),
        "map_external_frag_mean_ratio": np.mean([1 - _ratio(x, y) for x, y in zip(largest, free, strict=True)]),
        "map_free_bytes": free[-1],
        "map_largest_run_bytes": largest[-1],
        "map_largest_run_min_bytes": largest.min(),
        "map_holes_count": column["map_holes_count"][-1],
        "map_holes_max_count": column["map_holes_count"].max(),
        "map_entries_max_count": measured[:, :, gauge.ENTRIES].sum(axis=1).max(),
        "map_high_water_bytes": final[:, gauge.HIGH].sum(),
        "map_walked_count": final[:, gauge.WALKED].sum(),
        "malloc_headroom_min_bytes": column["malloc_free_bytes"].min(),
        "malloc_largest_run_min_bytes": column["malloc_largest_run_bytes"].min(),
    }


def _of_superpages(free: np.ndarray, seen: Samples) -> dict[str, float]:
    """Free superpages, float64[points], and how they stand to what is free in all and to what is guaranteed."""
    maps = seen.measured[:, seen.machine.shared]
    could_be = (maps[:, :, gauge.FREE] // seen.machine.superpage_bytes).sum(axis=1)
    return {
        "map_superpages_min_count": free.min(),
        "map_superpages_mean_count": free.mean(),
        "map_superpages_bound_mean_count": could_be.mean(),
        "map_superpages_open_mean_count": frag.open_stretches(free, maps, seen.machine.superpage_bytes).mean(),
    }


def _of_holes(measured: np.ndarray, final: np.ndarray) -> dict[str, float]:
    """Which requests the holes of the shared maps are too small for, at the end; for 1 MiB over the samples too."""
    values: dict[str, float] = {}
    for name, nbytes in REQUESTS.items():
        values[f"map_unusable_{name}_ratio"] = float(frag.unusable_ratio(nbytes, final.sum(axis=0)))
        values[f"map_frag_index_{name}_ratio"] = frag.index_of(nbytes, final)
    values["map_unusable_1m_mean_ratio"] = frag.unusable_ratio(REQUESTS["1m"], measured.sum(axis=1)).mean()
    return values


def _of_spaces(machine: Machine, measured: np.ndarray, final: np.ndarray, held: np.ndarray) -> dict[str, float]:
    """What each space has for itself, and what requests can still get where this design would serve them.

    `held`: bytes that the allocators hold, float64[points].
    """
    values: dict[str, float] = {}
    place = {MAP_NAMES[m]: i for i, m in enumerate(machine.maps)}
    for space in place.keys() & SPACES.keys():
        free, largest = measured[:, place[space], gauge.FREE], measured[:, place[space], gauge.LARGEST]
        values[f"{space}_external_frag_mean_ratio"] = _external(measured[:, place[space]])
        values[f"{space}_free_min_bytes"], values[f"{space}_largest_run_min_bytes"] = free.min(), largest.min()
    asked = {"malloc": machine.malloc_map, "kva": KERNEL}
    values["malloc_external_frag_mean_ratio"] = _external(measured[:, machine.maps.index(machine.malloc_map)])
    for who, m in asked.items():
        here = measured[:, machine.maps.index(m)]
        values[f"{who}_unusable_1m_mean_ratio"] = frag.unusable_ratio(REQUESTS["1m"], here).mean()
    for name, nbytes in REQUESTS.items():
        for who, m in asked.items():
            here = measured[:, machine.maps.index(m)]
            fits = frag.fitting_bytes(nbytes, here)
            if who == "malloc" and machine.backed_bytes is not None:
                fits = np.minimum(fits, np.maximum(machine.backed_bytes - held, 0))
            values[f"{who}_fits_{name}_min_bytes"] = fits.min()
        if DIRECT in machine.maps:
            pages = final[machine.maps.index(DIRECT)]
            values[f"direct_map_unusable_{name}_ratio"] = float(frag.unusable_ratio(nbytes, pages))
    if DIRECT in machine.maps:
        values |= _of_pages(machine, final[machine.maps.index(DIRECT)]) | _of_nodes(machine)
    return values


PAGE_COUNTS = {
    "block_claims_count": gauge.CLAIMS,
    "block_steals_count": gauge.STEALS,
    "pageblocks_stuck_count": gauge.STUCK,
    "pageblocks_mixed_count": gauge.MIXED,
}
SHARED_COUNTS = {
    "reclaimed_by_kswapd_count": gauge.BY_KSWAPD,
    "reclaimed_by_requests_count": gauge.BY_REQUEST,
    "reclaim_stalls_count": gauge.STALLS,
    "list_drains_count": gauge.DRAINS,
    "compactions_count": gauge.COMPACTIONS,
    "compactions_met_count": gauge.GOT_BLOCK,
    "migrated_pages_count": gauge.MIGRATED,
    "pageblocks_highatomic_count": gauge.RESERVED_BLOCKS,
    "written_back_pages_count": gauge.WRITTEN,
    "writeback_waits_count": gauge.WRITE_WAITS,
}
"""Where user memory and page cache share the pages."""


def _of_pages(machine: Machine, pages: np.ndarray) -> dict[str, float]:
    """What became of a direct map's pages. `pages`: int64[M_COUNT] at the end; nothing of one without pageblocks."""
    if not pages[gauge.PAGEBLOCKS : gauge.STUCK].any():
        return {}
    values: dict[str, float] = {name: pages[column] for name, column in PAGE_COUNTS.items()}
    for i, kind in enumerate(MOBILITIES):
        values[f"pageblocks_{kind}_count"] = pages[gauge.PAGEBLOCKS + i]
        for order in range(gauge.ORDERS):
            values[f"free_{kind}_order{order}_count"] = pages[gauge.FREE_BLOCKS + i * gauge.ORDERS + order]
    if machine.shares_pages:
        values |= {name: pages[column] for name, column in SHARED_COUNTS.items()}
        values |= {f"{owner}_bytes": pages[gauge.ANON_PAGES + i] << PAGE_SHIFT for i, owner in enumerate(PAGE_OWNERS)}
        values["dirty_page_cache_bytes"] = pages[gauge.DIRTY] << PAGE_SHIFT
        values["swapped_bytes"] = pages[gauge.SWAPPED] << PAGE_SHIFT
        values["shrunk_objects_count"] = machine.world.counters[tally.SHRUNK]
    return values


def _of_nodes(machine: Machine) -> dict[str, float]:
    """What lies on each of the first NUMA nodes; nothing where the arena tells none apart."""
    found = machine.by_node(machine.world.arena) if machine.by_node else {}
    if not found:
        return {}
    values: dict[str, float] = {
        "numa_hits_count": sum(found["hits"]),
        "numa_misses_count": sum(found["misses"]),
    }
    for n, (blocks, held) in enumerate(zip(found["free_blocks"], found["held"], strict=True)):
        if n < NODES:
            values |= {f"node{n}_free_order{order}_count": k for order, k in enumerate(blocks[: gauge.ORDERS])}
            if machine.shares_pages:
                values |= {f"node{n}_{owner}_bytes": held[i] << PAGE_SHIFT for i, owner in enumerate(PAGE_OWNERS)}
    return values


def _external(measured: np.ndarray) -> float:
    """1 - largest free run / free bytes of a map, mean over its samples."""
    free, largest = measured[:, gauge.FREE], measured[:, gauge.LARGEST]
    shares = np.divide(largest, free, out=np.zeros(len(free)), where=free > 0)
    return float(1 - shares.mean())


def _of_objects(column: dict[str, np.ndarray], c: np.ndarray) -> dict[str, float]:
    """What the object allocators hold over what is asked of them."""
    requested, granted, held = column["requested_bytes"], column["granted_bytes"], column["held_bytes"]
    return {
        "internal_frag_ratio": 1 - _ratio(requested.sum(), granted.sum()),
        "total_frag_ratio": 1 - _ratio(requested[-1], held[-1]),
        "total_frag_mean_ratio": 1 - _ratio(requested.sum(), held.sum()),
        "total_frag_peak_ratio": 1 - _ratio(c[tally.REQUESTED_PEAK], c[tally.HELD_PEAK]),
        "heap_mean_excess_ratio": frag.johnstone_wilson(requested, held).mean,
        "heap_live_peak_excess_ratio": frag.excess(c[tally.HELD_AT_PEAK], c[tally.REQUESTED_PEAK]),
        "heap_heap_peak_excess_ratio": frag.excess(c[tally.HELD_PEAK], c[tally.REQUESTED_AT_PEAK]),
        "heap_peaks_excess_ratio": frag.excess(c[tally.HELD_PEAK], c[tally.REQUESTED_PEAK]),
        "held_mean_bytes": held.mean(),
        "held_after_peak_bytes": held[held.argmax() :].min(),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0
