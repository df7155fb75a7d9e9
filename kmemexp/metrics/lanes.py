"""Metrics that every lane has: maps, memory, failures, costs, and how long objects are kept."""

from kmemexp.metrics.model import Metric
from kmemexp.metrics.spaces import REQUEST_TEXTS

LANES = (
    Metric(
        "map_external_frag_ratio",
        "less",
        "map",
        "1 - largest free run / free KVA over kernel_map, kmem_map and mb_map, at the end (physical pages of a direct "
        "map are no KVA: direct_map_* has them)",
    ),
    Metric(
        "map_external_frag_mean_ratio",
        "less",
        "map",
        "1 - largest free run / free KVA over the maps, mean over the samples; high without a hole where there is a "
        "kmem_map beside kernel_map: between such kernels compare kernel_map_* and *_fits_*",
    ),
    Metric("map_free_bytes", "more", "map", "free KVA at the end, in the maps"),
    Metric("map_largest_run_bytes", "more", "map", "largest free run in any of the maps at the end"),
    Metric("map_largest_run_min_bytes", "more", "map", "smallest value of the largest run over the samples"),
    Metric("map_holes_count", "less", "map", "holes in the maps at the end"),
    Metric("map_holes_max_count", "less", "map", "largest number of holes over the samples"),
    Metric("map_entries_max_count", "less", "map", "largest number of map entries over the samples"),
    Metric("map_high_water_bytes", "less", "map", "sum of the maps' highest address ever used"),
    Metric("map_unusable_16k_ratio", "less", "map", "share of free KVA in holes too small for 16 KiB, at the end"),
    Metric("map_unusable_128k_ratio", "less", "map", "share of free KVA in holes too small for 128 KiB, at the end"),
    Metric("map_unusable_1m_ratio", "less", "map", "share of free KVA in holes too small for 1 MiB, at the end"),
    Metric(
        "map_unusable_4m_ratio",
        "less",
        "map",
        "share of free KVA in holes too small for 4 MiB (a superpage of the i386), at the end",
    ),
    Metric(
        "map_unusable_1m_mean_ratio",
        "less",
        "map",
        "share of free KVA in holes too small for 1 MiB, mean over the samples",
    ),
    *(
        Metric(
            f"map_frag_index_{size}_ratio",
            "less",
            "map",
            f"fragmentation index of a request of {text} at the end: -1 it fits, towards 0 for lack of KVA, towards 1 "
            "for lack of a run (Linux mm/vmstat.c)",
        )
        for size, text in REQUEST_TEXTS.items()
    ),
    Metric(
        "map_superpages_min_count",
        "more",
        "map",
        "least number of wholly free, aligned superpages (4 MiB on the i386, 2 MiB elsewhere) in the maps, over the "
        "samples",
    ),
    Metric(
        "map_superpages_mean_count",
        "more",
        "map",
        "wholly free, aligned superpages (4 MiB on the i386, 2 MiB elsewhere) in the maps, mean over the samples",
    ),
    Metric(
        "map_superpages_bound_mean_count",
        "",
        "map",
        "the compaction bound of map_superpages_mean_count: free KVA of each map in whole superpages, mean over the "
        "samples. No placement of what is allocated leaves more",
    ),
    Metric(
        "map_superpages_open_mean_count",
        "more",
        "map",
        "free superpages that may be taken without breaking what soft submaps guarantee to others, mean over the "
        "samples; without soft submaps all",
    ),
    Metric(
        "malloc_headroom_min_bytes",
        "more",
        "map",
        "least free KVA in the map that malloc allocates from, over the samples",
    ),
    Metric(
        "malloc_largest_run_min_bytes",
        "more",
        "map",
        "least largest free run in the map that malloc allocates from, over the samples",
    ),
    Metric(
        "failed_fragmented_count",
        "less",
        "map",
        "requests to a map that failed although it had enough free KVA in total",
    ),
    Metric("failed_exhausted_count", "less", "map", "requests to a map that failed for lack of free KVA"),
    Metric("alloc_failures_count", "less", "safety", "operations that got no memory"),
    Metric("nowait_failures_count", "less", "safety", "operations that got no memory and could not have slept"),
    Metric(
        "object_waits_count",
        "less",
        "safety",
        "operations that slept at a limit until something was freed; without a clock would have, and went without",
    ),
    Metric("panics_count", "less", "safety", "failures at which the historic kernel panicked (which: column panic)"),
    Metric(
        "internal_frag_ratio", "less", "object", "1 - requested / granted bytes of live objects, mean over the samples"
    ),
    Metric(
        "total_frag_ratio", "less", "object", "1 - requested live / held bytes at the end (Bonwick 1994, section 5.2)"
    ),
    Metric("total_frag_mean_ratio", "less", "object", "1 - mean requested live / mean held over the samples"),
    Metric("total_frag_peak_ratio", "less", "object", "1 - peak requested live / peak held"),
    Metric(
        "heap_mean_excess_ratio",
        "less",
        "object",
        "held / requested live - 1, mean over the samples (Johnstone and Wilson's measure 1)",
    ),
    Metric("heap_live_peak_excess_ratio", "less", "object", "held / requested live - 1 when most is live (measure 2)"),
    Metric(
        "heap_heap_peak_excess_ratio",
        "less",
        "object",
        "held / requested live - 1 when most is held, the first time (measure 3)",
    ),
    Metric("heap_peaks_excess_ratio", "less", "object", "peak held / peak requested live - 1 (measure 4)"),
    Metric("held_peak_bytes", "less", "object", "memory held by the object allocators at its peak"),
    Metric("held_mean_bytes", "less", "object", "memory held by the object allocators, mean over the samples"),
    Metric("held_end_bytes", "less", "object", "memory held by the object allocators at the end"),
    Metric(
        "held_after_peak_bytes",
        "less",
        "object",
        "least memory held by the object allocators over the samples from its peak on",
    ),
    Metric("requested_peak_bytes", "", "object", "requested bytes of live objects at their peak"),
    Metric("granted_total_bytes", "less", "object", "sum of granted bytes over all allocations"),
    Metric("requested_total_bytes", "", "object", "sum of requested bytes over all allocations that succeeded"),
    Metric("map_operations_count", "less", "cost", "map allocations and frees"),
    Metric("moves_count", "less", "cost", "objects moved to empty their slabs"),
    Metric("moved_bytes", "less", "cost", "bytes of objects moved"),
    Metric("map_walked_count", "less", "cost", "map entries passed by the policy's linear searches"),
    Metric("steps_count", "less", "cost", "allocator steps"),
    Metric("ipis_count", "less", "cost", "messages to another CPU"),
    Metric("operations_count", "", "cost", "operations simulated"),
)

STALE = (
    Metric("references_count", "", "stability", "references that readers took to objects of the watched kind"),
    Metric("stale_reads_count", "less", "stability", "references through which a reader read after the free"),
    Metric("stale_same_object_count", "", "stability", "stale reads that found the object as it was"),
    Metric("stale_same_type_count", "", "stability", "stale reads that found another object of the same kind"),
    Metric(
        "stale_wrong_object_count",
        "less",
        "stability",
        "stale reads that found another object of the same kind and whose reader compares no generation count",
    ),
    Metric("stale_other_type_count", "less", "stability", "stale reads that found another kind's object, or a page"),
    Metric("stale_unmapped_count", "less", "stability", "stale reads that found no page"),
    Metric(
        "violations_per_million",
        "less",
        "stability",
        "stale reads that found a wrong object, another kind or no page, per million references",
    ),
)
"""What readers of freed objects found (conf/stability/), without a clock; NaN where no kind is watched."""
