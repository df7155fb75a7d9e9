"""The metrics of a lane: names with units, what is better, what each means. A row here is a column of the results.

Each metric states its *margin*, the difference that does not matter, and its *law*, how its values scatter from replica
to replica. Both follow from the unit (`stated`) unless MARGINS or SKEWED name the metric. They are judgements of what a
kernel engineer would act on; a sweep or an experiment may set margins of its own.
"""

from typing import NamedTuple

RARE, SKEWED_LAW, PLAIN = "rare", "skewed", "plain"


class Margin(NamedTuple):
    """A difference up to which two designs are equivalent."""

    size: float
    kind: str = "absolute"  # in the metric's unit | "relative": of the baseline's mean | "share": of the replicas


class Metric(NamedTuple):
    """A column of the results."""

    name: str
    better: str  # "less", "more" or "" (neither)
    group: str
    text: str
    margin: Margin = Margin(0.0)
    law: str = PLAIN  # PLAIN: t intervals hold | SKEWED_LAW: they do not | RARE: often none in any replica


SPACES = {
    "kernel_map": "kernel_map (vmalloc space, the heap)",
    "kmem_map": "kmem_map",
    "mb_map": "mb_map",
    "direct_map": "the direct map, whose runs are of physical pages",
}
"""Maps that serve any purpose, each of which has figures of its own; NaN in a kernel that has no such map."""

MOBILITIES = ("unmovable", "movable", "reclaimable")
"""Types of pageblocks, by number."""

PAGE_OWNERS = {"user_memory": "user memory", "page_cache": "page cache", "kernel_pages": "the kernel's single pages"}
"""Who shares the direct map's pages with the kernel's allocators."""

REQUEST_TEXTS = {"16k": "16 KiB", "128k": "128 KiB", "1m": "1 MiB", "4m": "4 MiB"}
"""Requests that may fit or not, by their names in metrics."""

ASKED = {"malloc": "to malloc", "kva": "for KVA"}
"""Who asks for what fits or not, by their names in metrics; each is served by one space."""

METRICS = (
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
SPACE = (
    *(
        Metric(f"{space}_{name}", better, "space", text.format(of))
        for space, of in SPACES.items()
        for name, better, text in (
            ("external_frag_mean_ratio", "less", "1 - largest free run / free bytes of {}, mean over the samples"),
            ("free_min_bytes", "more", "least free bytes in {}, over the samples"),
            ("largest_run_min_bytes", "more", "least largest free run in {}, over the samples"),
        )
    ),
    *(
        Metric(
            f"direct_map_unusable_{size}_ratio",
            "less",
            "space",
            f"share of the free physical pages in blocks too small for {text}, at the end (Linux' extfrag)",
        )
        for size, text in REQUEST_TEXTS.items()
    ),
    Metric(
        "block_claims_count", "less", "space", "pageblocks of the direct map taken over for pages of another mobility"
    ),
    Metric("block_steals_count", "less", "space", "pages taken from pageblocks of another mobility, which keep it"),
    Metric(
        "pageblocks_stuck_count", "less", "space", "pageblocks that hold what cannot be moved, at the end: no huge page"
    ),
    Metric("pageblocks_mixed_count", "less", "space", "pageblocks among these whose type is movable"),
    *(
        Metric(f"pageblocks_{kind}_count", "", "space", f"{kind} pageblocks at the end (/proc/pagetypeinfo)")
        for kind in MOBILITIES
    ),
    *(
        Metric(
            f"free_{kind}_order{order}_count",
            "",
            "space",
            f"free blocks of {1 << order} pages for {kind} pages at the end (/proc/pagetypeinfo)",
        )
        for kind in MOBILITIES
        for order in range(11)
    ),
    *(
        Metric(f"{owner}_bytes", "", "space", f"{text} at the end, where it shares the direct map's pages")
        for owner, text in PAGE_OWNERS.items()
    ),
    Metric("reclaimed_by_kswapd_count", "less", "space", "pages of page cache that kswapd freed"),
    Metric("reclaimed_by_requests_count", "less", "space", "pages of page cache that requests freed by themselves"),
    Metric("reclaim_stalls_count", "less", "space", "requests that had to reclaim by themselves (allocstall)"),
    Metric("list_drains_count", "less", "space", "times that all CPUs' page lists were emptied for a request"),
    Metric("shrunk_objects_count", "", "space", "objects that shrinkers freed"),
    Metric("compactions_count", "less", "space", "runs of compaction"),
    Metric("compactions_met_count", "", "space", "runs after which there was a block of the size wanted"),
    Metric("migrated_pages_count", "less", "space", "pages that compaction moved"),
    *(
        Metric(
            f"{asked}_fits_{size}_min_bytes",
            "more",
            "space",
            f"least free bytes in holes that a request of {text} {of} fits into, over the samples, in the space that "
            "serves it in this design: what compares across designs",
        )
        for asked, of in ASKED.items()
        for size, text in REQUEST_TEXTS.items()
    ),
    Metric(
        "malloc_external_frag_mean_ratio",
        "less",
        "space",
        "1 - largest free run / free bytes of the space that serves malloc in this design, mean over the samples",
    ),
    *(
        Metric(
            f"{asked}_unusable_1m_mean_ratio",
            "less",
            "space",
            f"share of the free bytes in holes too small for 1 MiB, in the space that serves requests {of} in this "
            "design, mean over the samples",
        )
        for asked, of in ASKED.items()
    ),
)
"""What each space has for itself, and what requests can still get; NaN where a kernel has no such space."""

LATENCIES = {
    "alloc_main": "an allocation by the mainline, from the call to the return",
    "alloc_irq": "an allocation in an interrupt",
    "free_main": "a free by the mainline",
    "free_irq": "a free in an interrupt",
    "irq_fast_start": "a fast interrupt, from its raising to its handler's first instruction",
    "irq_fast_done": "a fast interrupt, from its raising to its handler's end",
    "irq_device_start": "a device interrupt, to its handler's first instruction",
    "irq_device_done": "a device interrupt, to its handler's end",
    "irq_soft_start": "a soft interrupt, to its handler's first instruction",
    "irq_soft_done": "a soft interrupt, to its handler's end",
    "ipi_done": "a message to another CPU, from its arrival to the end of its work",
    "lock_wait": "a wait for a lock (of those that waited)",
}
"""What has a distribution, and what it is the time of. Each has the columns QUANTILES."""

QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
LEAST_SAMPLES = {"p50": 6, "p99": 299, "p999": 2995, "max": 1}
"""Samples below which a quantile has no 95 % upper bound among them (1 - q^n >= 0.95); it is not reported then."""

TIMED = (
    Metric("deadlocks_count", "less", "safety", "circles in the wait-for graph"),
    Metric(
        "stalled_cpus_count",
        "less",
        "safety",
        "CPUs that for 100 ms spun, or did nothing but interrupts, with work to do",
    ),
    Metric("would_sleep_count", "less", "safety", "attempts to sleep in an interrupt that must not"),
    Metric("self_locks_count", "less", "safety", "locks requested by their own holder, or a handler on its stack"),
    Metric("lock_reversals_count", "less", "safety", "pairs of locks that were taken in both orders"),
    Metric(
        "blockable_locks_count", "less", "safety", "locks that may sleep, requested in a fast interrupt or a message"
    ),
    Metric("page_failures_count", "less", "safety", "requests refused for lack of physical pages"),
    Metric("lost_interrupts_count", "less", "safety", "interrupts that found too many waiting for their handler"),
    Metric("simulated_ns", "", "cost", "simulated time until the last operation was over"),
    Metric("throughput_hz", "more", "cost", "operations per simulated second"),
    Metric("main_ratio", "", "cost", "share of the CPU time spent in operations of the mainline"),
    Metric("interrupt_ratio", "", "cost", "share spent in interrupts of all kinds"),
    Metric("spin_ratio", "less", "cost", "share spent spinning for locks"),
    Metric(
        "lock_wait_ratio",
        "less",
        "cost",
        "time waited for locks, spinning or asleep, per CPU time, by those too who still wait at the end",
    ),
    Metric("contended_ratio", "less", "cost", "share of the locks taken that had to be waited for"),
    Metric("locks_count", "less", "cost", "locks taken"),
    Metric("interrupts_count", "", "cost", "interrupts raised"),
    Metric("preemptions_count", "less", "cost", "times that a running context was preempted"),
    Metric("shootdowns_count", "less", "cost", "TLB shootdowns"),
    Metric("forwarded_count", "", "cost", "interrupts delivered on the CPU that held the big lock"),
    Metric("memory_waits_count", "less", "cost", "requests that slept for memory"),
    Metric("paged_out_count", "less", "cost", "pages that the page daemon freed"),
    Metric("free_pages_min_count", "more", "cost", "least number of free pages"),
    Metric("handed_frees_count", "", "cost", "frees that came before their object's allocation had ended"),
    Metric("unfinished_count", "less", "cost", "operations that were not done when the simulation ended"),
    Metric(
        "saturated_count",
        "less",
        "cost",
        "1 where the machine did not keep up: operations left at the time limit, or done later than 1.05 times their "
        "load's length and 10 ms, or over 1 % of the interrupts lost",
    ),
    *(
        Metric(f"{name}_{q}_ns", "less", "latency", f"{text}: {'the longest' if q == 'max' else f'{v:.1%} quantile'}")
        for name, text in LATENCIES.items()
        for q, v in QUANTILES.items()
    ),
)
"""What only the driver with a clock can say; NaN without one."""

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

HALF_A_POINT = Margin(0.005)
PER_CENT = Margin(0.01, "relative")
MARGINS = {
    "violations_per_million": Margin(0.1),
    **{f"{name}_p50_ns": Margin(0.05, "relative") for name in LATENCIES},
}
"""Margins that do not follow from the unit."""

BY_UNIT = {"_ratio": HALF_A_POINT, "_ns": Margin(0.1, "relative")}
"""Margins by unit: 10 % of a tail of latency, which a histogram gives within 1.6 %; one per cent of anything else."""

OCCURS = Margin(0.05, "share")
"""Of a rare event: 5 points of the share of replicas in which it happens at all."""

SKEWED = (
    "map_walked_count", "moves_count", "moved_bytes", "ipis_count", "spin_ratio", "lock_wait_ratio", "contended_ratio",
    "preemptions_count", "shootdowns_count", "memory_waits_count", "paged_out_count", "unfinished_count",
    "reclaim_stalls_count", "list_drains_count", "compactions_count", "migrated_pages_count",
    "reclaimed_by_requests_count",
)  # fmt: skip
"""Sums of what comes in bursts. Latencies and what stale reads find are skewed as well."""


ALSO_RARE = ("saturated_count",)
"""Yes or no in each replica, beside what the group `safety` counts and requests that failed."""


def stated(metric: Metric) -> Metric:
    """Give the metric with its margin and its law."""
    name = metric.name
    if metric.group == "safety" or name.startswith("failed_") or name in ALSO_RARE:
        return metric._replace(margin=OCCURS, law=RARE)
    unit = next((margin for suffix, margin in BY_UNIT.items() if name.endswith(suffix)), PER_CENT)
    skewed = metric.group in ("latency", "stability") or name in SKEWED
    return metric._replace(margin=MARGINS.get(name, unit), law=SKEWED_LAW if skewed else PLAIN)


BOUNDS = {"map_superpages_mean_count": "map_superpages_bound_mean_count"}
"""Metrics with a bound that follows from the run itself, and the metric that has it."""
LEAST_ROOM = 0.05
"""Share of the baseline's value that the bound must lie above it, for a difference to be judged at all."""

METRICS = tuple(map(stated, (*METRICS, *SPACE, *STALE, *TIMED)))
NAMES = tuple(m.name for m in METRICS)
INDEX = {name: i for i, name in enumerate(NAMES)}

SERIES_TEXTS = {
    "time_ns": "simulated time of the sample; without a clock, the time in the load",
    "operations_count": "operations so far",
    "requested_bytes": "requested bytes of live objects",
    "granted_bytes": "granted bytes of live objects",
    "held_bytes": "memory held by the object allocators",
    "map_free_bytes": "free KVA in kernel_map, kmem_map, mb_map and the direct map",
    "map_largest_run_bytes": "largest free run in any of these maps",
    "map_holes_count": "holes in these maps",
    "map_entries_count": "map entries in use",
    "malloc_free_bytes": "free KVA in the map that malloc allocates from",
    "malloc_largest_run_bytes": "largest free run in that map",
    "failures_count": "operations so far that got no memory",
    "map_superpages_count": "wholly free, aligned superpages (4 MiB on the i386, 2 MiB elsewhere) in the maps",
    "moves_count": "objects moved so far to empty their slabs",
}
SERIES = tuple(SERIES_TEXTS)
"""Columns of the sampled series, all int64."""

OTHER_TEXTS = {
    "cell_key": "identity of the cell: a digest of its configuration and of the sources that simulate it",
    "replica": "number of the replica, from 0; replicas of one number see the same load in all designs",
    "seed": "of the random numbers",
    "status": "done or failed",
    "error": "why a row has failed",
    "panic": "the message with which the historic kernel would have panicked",
    "deadlock": "who waited for whom in the first deadlock",
    "design": "the kernel memory system",
    "workload": "the load",
    "cpus": "CPUs of the simulated machine",
    "ram_bytes": "physical memory of the simulated machine",
    "kva_bytes": "kernel virtual address space",
    "axes": "values of the axes of the plan, as JSON by configuration key",
    "config": "the whole configuration of the cell, as JSON",
    "sample": "number of the sample, from 0",
    "what": "what the distribution is of: an operation, a source of interrupts, a lock",
    "count": "samples of the distribution",
    "mean_ns": "their mean",
    "p50_ns": "their median",
    "p99_ns": "their 99 % quantile",
    "p999_ns": "their 99.9 % quantile",
    "max_ns": "the longest",
    "map": "which map",
    "occupancy": "share of each stretch of the map that is occupied, from 0 (free) to 255; equal stretches",
}
"""What the columns of the tables hold that are neither metrics nor series."""

UNITS = {"_bytes": "B", "_ns": "ns", "_s": "s", "_hz": "1/s", "_ratio": "1", "_count": "count", "_per_million": "1e-6"}
"""Units by the end of a column's name."""

PANICS = (
    "",
    "kmem_map too small",
    "kernel_map ran out of space",
    "kernel resources exhausted",
    "lockmgr: locking against myself",
    "sleep in an interrupt",
    "sleep in an interrupt without a process",  # curproc is NULL in the idle loop
    "kernel_map needed while it is locked",
)
"""Panic messages by code (sim.slots.P_*)."""


def unit(column: str) -> str:
    """Unit of a column, by the end of its name; "" where it says none."""
    return next((of for suffix, of in UNITS.items() if column.endswith(suffix)), "")


def described(column: str) -> str:
    """Say what a column holds; "" where it is none of ours."""
    if column in INDEX:
        return METRICS[INDEX[column]].text
    return SERIES_TEXTS.get(column) or OTHER_TEXTS.get(column, "")
