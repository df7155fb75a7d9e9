"""What a sweep may change of `linux_mm`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Table, Words
from kmemexp.sim.arenas import buddy, vmap

ANY_ZONE = 0  # where it does not matter: rows and links of pages are the same in all zones

# Places in `meters`: what shares the direct map with the kernel, and what reclaim does, on all nodes together.
PAGES_OF = 0  # PAGES_OF + sort of an owner: pages
NEW_OWNER = 3  # owners ever made
OLD_OWNER = 4  # head of the owners that may be used again, and 1; 0: none
BY_KSWAPD = 5  # pages reclaimed so far
BY_REQUEST = 6
STALLS = 7  # requests that had to reclaim by themselves
COMPACTIONS = 8  # runs of the compactor
GOT_BLOCK = 9  # runs after which there was a block of the size wanted
MIGRATED = 10  # pages moved
DIRTY = 11  # pages of files that are not written yet
DIRTY_OLD = 12  # owner of the oldest of them, and 1; 0: none
DIRTY_NEW = 13  # of the youngest
FILES_MADE = 14  # files so far
FLUSHING = 15  # 1: the flusher is at work
FLUSHED = 16  # pages that it may write at once
WRITTEN = 17  # pages written back so far
WRITE_WAITS = 18  # requests and writers that have waited for that
SWAP_USED = 19  # pages of the swap space
SWAPPED_OUT = 20  # pages that have gone there so far
METERS = 21

# Columns of `zones`. Its rows are the zones by address, which are the buddy's maps.
NODE = 0
KIND = 1  # DMA, DMA32 or NORMAL
MIN = 2  # watermarks in pages
LOW = 3
HIGH = 4
RESERVE = 5  # pages kept from requests that could do with a higher zone (lowmem_reserve)
SCANNER = 6  # page at which the next run of compaction begins to look for what can be moved, less the zone's first
TARGET = 7  # pageblock in which a run looks for room: its page; it goes down
TARGET_AT = 8  # how far it has come in that
CONSIDERED = 9  # requests that have gone without a run since one has failed
DEFER_SHIFT = 10  # log2 of how many must
DEFER_ORDER = 11  # smallest order for which one has failed
ZONE_COLUMNS = 12

DMA, DMA32, NORMAL = range(3)

# Columns of `nodes`.
FIRST_ZONE = 0
END_ZONE = 1  # zone after its last one
LAST_CPU = 2  # where its kswapd runs
RUNNING = 3  # 1: it does
PRIORITY = 4  # of its round (12 … 1)
LEFT = 5  # pages that are left of it
LEFT_ANON = 6  # the same of anonymous ones
WOKEN_FOR = 7  # largest order that it was woken for
HELD = 8  # HELD + sort of an owner: pages that lie here
HITS = 11  # blocks taken here by requests that wanted this node first (numa_hit)
MISSES = 12  # blocks taken here by requests that wanted another one (numa_miss)
FOREIGN = 13  # blocks that requests wanted here and got elsewhere (numa_foreign)
ROUNDS = 14  # ROUNDS + priority: rounds of reclaim here, in which shrinkers are asked as well (shrink_node)
NODE_COLUMNS = 27

DEF_PRIORITY = 12  # of the first round
SWAP_CLUSTER_MAX = 32  # pages that a request reclaims

# Columns of `owners`.
PAGES = 0
FIRST = 1  # first of its blocks, or -1
AGE = 2  # how often the row has been used before
SORT = 3  # ANON_PAGES, FILE_PAGES or KERNEL_PAGES
OLDER = 4  # next row that may be used again, and 1
IS_DIRTY = 5  # 1 + pages that are not written yet; 0: it is clean
DIRTY_NEXT = 6  # next younger one of these, and 1
DIRTY_PREV = 7
SWAPPED = 8  # pages of its that are in the swap space
OWNER_COLUMNS = 9

ANON_PAGES, FILE_PAGES, KERNEL_PAGES = range(3)
LISTS_BY_AGE = 2  # of a node


class Params(NamedTuple):
    """What a sweep may change: the fields of both, and of what watches over the direct map."""

    max_order: int = 10
    pageblock_order: int = 9
    pcp: int = 1
    migrate: int = 1
    plain: int = 0
    cpus: int = 0
    min_free_kib: int = 0
    late_flush: int = 0  # 1: blocks of several pages stay on a CPU's list until more have been freed (since Linux 6.16)
    guard: int = 1
    nodes: int = 0
    lazy_max_pages: int = 0
    pressure: int = 0  # 1: others share the direct map with the kernel; 0: as the load has it
    zones: int = 3  # of low memory, by which vm.min_free_kbytes is computed where they are one here
    kswapd_batch: int = 32  # pages that kswapd reclaims while a CPU allocates a block
    compaction: int = 1  # 0: no pages are moved (CONFIG_COMPACTION)
    swap_mib: int = 0  # swap space; 0: none, and anonymous pages stay where they are
    swappiness: int = 60  # vm.swappiness, of 200
    dirty_percent: int = 0  # of the files, those that are written and not read
    dirty_background_percent: int = 10  # vm.dirty_background_ratio: dirty pages from which on the flusher writes
    dirty_limit_percent: int = 20  # vm.dirty_ratio: from which on writers wait
    flush_batch: int = 16  # pages that the flusher writes while a CPU allocates a block
    highatomic: int = 1  # 0: no pageblocks are kept for requests for several pages that cannot wait
    domains: int = 0  # NUMA nodes, among which pages and CPUs are shared out evenly; 0: the machine's
    by_node: int = 1  # 0: all pages are one zone; 1: zones by address and node where there are several nodes; 2: always
    dma_mib: int = 16  # where ZONE_DMA ends; 0: there is none
    dma32_mib: int = 4096  # where ZONE_DMA32 ends
    skip_busy: int = 1  # 1: nodes whose kswapd runs are passed by at first (since Linux 6.18)


class State(NamedTuple):
    """The states of both, and who else has pages of the direct map."""

    p: Params
    vmap: vmap.State
    buddy: buddy.State
    owner: Words  # int32[rows], 1 + owner of the block that begins with a page; rows are the buddy's
    mate: Table  # int32[rows, 2], blocks of the same owner after it and before it, by their pages
    owners: Table  # int64[rows, OWNER_COLUMNS]
    meters: Words  # int64[METERS]
    zones: Table  # int64[zones, ZONE_COLUMNS]
    nodes: Table  # int64[nodes, NODE_COLUMNS]
    zonelist: Table  # int64[2 * nodes, zones], zones in the order in which a node's CPUs ask them, then for low memory
    node_of: Words  # int64[cpus]
