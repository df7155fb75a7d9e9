"""Metrics of single spaces: maps, the direct map's pages, and what requests can still get."""

from kmemexp.metrics.model import Metric

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

NODES = 4
"""NUMA nodes that have figures of their own; a machine with more is refused where the arena tells nodes apart."""

REQUEST_TEXTS = {"16k": "16 KiB", "128k": "128 KiB", "1m": "1 MiB", "4m": "4 MiB"}
"""Requests that may fit or not, by their names in metrics."""

ALONE = {"unmovable": "", "movable": "", "reclaimable": "; 0 where the kernel has one zone to itself"}
BACKED = {"malloc": ". With addresses of 64 bits no more than the RAM that the allocators do not hold", "kva": ""}
ASKED = {"malloc": "to malloc", "kva": "for KVA"}
"""Who asks for what fits or not, by their names in metrics; each is served by one space."""

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
        Metric(
            f"pageblocks_{kind}_count", "", "space", f"{kind} pageblocks at the end (/proc/pagetypeinfo){ALONE[kind]}"
        )
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
    Metric("dirty_page_cache_bytes", "", "space", "page cache that is not written yet, at the end"),
    Metric("swapped_bytes", "less", "space", "user memory in the swap space, at the end"),
    Metric("reclaimed_by_kswapd_count", "less", "space", "pages of page cache, and swapped ones, that kswapd freed"),
    Metric("reclaimed_by_requests_count", "less", "space", "pages, of those, that requests freed by themselves"),
    Metric("written_back_pages_count", "", "space", "dirty pages of page cache that were written"),
    Metric("writeback_waits_count", "less", "space", "requests and writers that waited for pages to be written"),
    Metric("reclaim_stalls_count", "less", "space", "requests that had to reclaim by themselves (allocstall)"),
    Metric("list_drains_count", "less", "space", "times that all CPUs' page lists were emptied for a request"),
    Metric("shrunk_objects_count", "", "space", "objects that shrinkers freed"),
    Metric("compactions_count", "less", "space", "runs of compaction"),
    Metric("compactions_met_count", "", "space", "runs after which there was a block of the size wanted"),
    Metric("migrated_pages_count", "less", "space", "pages that compaction moved"),
    Metric(
        "pageblocks_highatomic_count",
        "",
        "space",
        "pageblocks kept for requests for several pages that cannot wait, at the end (HighAtomic in pagetypeinfo)",
    ),
    Metric("numa_hits_count", "", "space", "blocks of pages taken on the NUMA node of the CPU that asked (numa_hit)"),
    Metric("numa_misses_count", "less", "space", "blocks taken on another NUMA node than the CPU's (numa_miss)"),
    *(
        Metric(f"node{n}_{owner}_bytes", "", "space", f"{text} on NUMA node {n} at the end, where there are several")
        for n in range(NODES)
        for owner, text in PAGE_OWNERS.items()
    ),
    *(
        Metric(
            f"node{n}_free_order{order}_count",
            "",
            "space",
            f"free blocks of {1 << order} pages on NUMA node {n} at the end, where there are several (/proc/buddyinfo)",
        )
        for n in range(NODES)
        for order in range(11)
    ),
    *(
        Metric(
            f"{asked}_fits_{size}_min_bytes",
            "more",
            "space",
            f"least free bytes in holes that a request of {text} {of} fits into, over the samples, in the space that "
            "serves it in this design: what compares across designs. What reclaim or compaction would bring is not in "
            "it: on a full machine (user memory, page cache) it is what is free between the watermarks" + BACKED[asked],
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
