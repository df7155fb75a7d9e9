"""The metrics of a lane: names with units, what is better, what each means. A row here is a column of the results."""

from typing import NamedTuple


class Metric(NamedTuple):
    """A column of the results."""

    name: str
    better: str  # "less", "more" or "" (neither)
    group: str
    text: str


METRICS = (
    Metric(
        "map_external_frag_ratio",
        "less",
        "map",
        "1 - largest free run / free KVA over all maps that serve requests, at the end",
    ),
    Metric("map_external_frag_mean_ratio", "less", "map", "the same, mean over the samples"),
    Metric("map_free_bytes", "more", "map", "free KVA at the end, in maps that serve requests"),
    Metric("map_largest_run_bytes", "more", "map", "largest free run in any of these maps at the end"),
    Metric("map_largest_run_min_bytes", "more", "map", "smallest value of the largest run over the samples"),
    Metric("map_holes_count", "less", "map", "holes in these maps at the end"),
    Metric("map_holes_max_count", "less", "map", "largest number of holes over the samples"),
    Metric("map_entries_max_count", "less", "map", "largest number of map entries over the samples"),
    Metric("map_high_water_bytes", "less", "map", "sum of the maps' highest address ever used"),
    Metric("map_unusable_16k_ratio", "less", "map", "share of free KVA in holes too small for 16 KiB, at the end"),
    Metric("map_unusable_128k_ratio", "less", "map", "the same for 128 KiB"),
    Metric("map_unusable_1m_ratio", "less", "map", "the same for 1 MiB"),
    Metric("map_unusable_4m_ratio", "less", "map", "the same for 4 MiB (a superpage of the i386)"),
    Metric(
        "malloc_headroom_min_bytes",
        "more",
        "map",
        "least free KVA in the map that malloc allocates from, over the samples",
    ),
    Metric("malloc_largest_run_min_bytes", "more", "map", "least largest run in that map, over the samples"),
    Metric(
        "failed_fragmented_count",
        "less",
        "map",
        "requests to a map that failed although it had enough free KVA in total",
    ),
    Metric("failed_exhausted_count", "less", "map", "requests to a map that failed for want of free KVA"),
    Metric("alloc_failures_count", "less", "safety", "operations that got no memory"),
    Metric("nowait_failures_count", "less", "safety", "those among them that could not have slept"),
    Metric("panics_count", "less", "safety", "failures at which the historic kernel panicked (which: column panic)"),
    Metric(
        "internal_frag_ratio", "less", "object", "1 - requested / granted bytes of live objects, mean over the samples"
    ),
    Metric(
        "total_frag_ratio", "less", "object", "1 - requested live / held bytes at the end (Bonwick 1994, section 5.2)"
    ),
    Metric("total_frag_mean_ratio", "less", "object", "1 - mean requested live / mean held over the samples"),
    Metric("total_frag_peak_ratio", "less", "object", "1 - peak requested live / peak held"),
    Metric("held_peak_bytes", "less", "object", "memory held by the object allocators at its peak"),
    Metric("held_mean_bytes", "less", "object", "the same, mean over the samples"),
    Metric("held_end_bytes", "less", "object", "the same at the end"),
    Metric("requested_peak_bytes", "", "object", "requested bytes of live objects at their peak"),
    Metric("granted_total_bytes", "less", "object", "sum of granted bytes over all allocations"),
    Metric("requested_total_bytes", "", "object", "sum of requested bytes over all allocations that succeeded"),
    Metric("map_operations_count", "less", "cost", "map allocations and frees"),
    Metric("map_walked_count", "less", "cost", "map entries passed by the policy's linear searches"),
    Metric("steps_count", "less", "cost", "allocator steps"),
    Metric("ipis_count", "less", "cost", "messages to another CPU"),
    Metric("operations_count", "", "cost", "operations simulated"),
)
NAMES = tuple(m.name for m in METRICS)
INDEX = {name: i for i, name in enumerate(NAMES)}

SERIES = (
    "time_ns", "operations_count", "requested_bytes", "granted_bytes", "held_bytes",
    "map_free_bytes", "map_largest_run_bytes", "map_holes_count", "map_entries_count",
    "malloc_free_bytes", "malloc_largest_run_bytes", "failures_count",
)  # fmt: skip
"""Columns of the sampled series, all int64."""

PANICS = ("", "kmem_map too small", "kernel_map ran out of space", "kernel resources exhausted")
"""Panic messages by code (sim.slots.P_*)."""
