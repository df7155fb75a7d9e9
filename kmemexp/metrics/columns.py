"""Columns of the tables that are no metrics, units, and messages."""

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
    "moment": "when the caches were counted: at a snapshot, or at the peak of memory held (a sample within 5 % of it)",
    "allocator": "which of the design's allocators",
    "cache": "name of a cache: objects of one sort; (in no cache): free slabs, magazines, headers and the like",
    "object_bytes": "bytes granted for each of its objects; 0 where they differ",
    "objects_count": "its live objects",
    "slabs_count": "its slabs, as the allocator counts them, empty ones too; 0 where there are none",
    "pages_count": "pages of these slabs",
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
    "malloc limit exceeded",
)
"""Panic messages by code (sim.slots.P_*)."""


def unit(column: str) -> str:
    """Unit of a column, by the end of its name; "" where it says none."""
    return next((of for suffix, of in UNITS.items() if column.endswith(suffix)), "")
