"""What a sweep may change of `linux_mm`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Table, Words
from kmemexp.sim.arenas import buddy, vmap

ZONE = 0  # the buddy has this one map

# Places in `meters`: the direct map's watermarks in pages, then what shares it with the kernel, then what reclaim does.
MIN = 0
LOW = 1
HIGH = 2
ANON = 3  # ANON + sort of an owner: pages
PAGES_OF = 3
NEW_OWNER = 6  # owners ever made
OLD_OWNER = 7  # head of the owners that may be used again, and 1; 0: none
PRIORITY = 8  # of kswapd's round (12 … 1)
LEFT = 9  # pages that are left of it
WANTED = 10  # pages of a round, from which on the next one is not more urgent
BY_KSWAPD = 11  # pages reclaimed so far
BY_REQUEST = 12
STALLS = 13  # requests that had to reclaim by themselves
WOKEN_FOR = 14  # largest order that kswapd was woken for
COMPACTIONS = 15  # runs of the compactor
GOT_BLOCK = 16  # runs after which there was a block of the size wanted
MIGRATED = 17  # pages moved
SCANNER = 18  # page at which the next run begins to look for what can be moved, less the zone's first
TARGET = 19  # pageblock in which a run looks for room: its page; it goes down
TARGET_AT = 20  # how far it has come in that
CONSIDERED = 21  # requests that have gone without a run since one has failed
DEFER_SHIFT = 22  # log2 of how many must
DEFER_ORDER = 23  # smallest order for which one has failed
DIRTY = 24  # pages of files that are not written yet
DIRTY_OLD = 25  # owner of the oldest of them, and 1; 0: none
DIRTY_NEW = 26  # of the youngest
FILES_MADE = 27  # files so far
FLUSHING = 28  # 1: the flusher is at work
FLUSHED = 29  # pages that it may write at once
WRITTEN = 30  # pages written back so far
WRITE_WAITS = 31  # requests and writers that have waited for that
SWAP_USED = 32  # pages of the swap space
SWAPPED_OUT = 33  # pages that have gone there so far
LEFT_ANON = 34  # anonymous pages that are left of kswapd's round
ROUNDS = 35  # ROUNDS + priority: rounds of reclaim, in which shrinkers are asked as well
METERS = 48

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


class Params(NamedTuple):
    """What a sweep may change: the fields of both, and of what watches over the direct map."""

    max_order: int = 10
    pageblock_order: int = 9
    pcp: int = 1
    migrate: int = 1
    plain: int = 0
    cpus: int = 0
    min_free_kib: int = 0
    guard: int = 1
    nodes: int = 0
    lazy_max_pages: int = 0
    pressure: int = 0  # 1: others share the direct map with the kernel; 0: as the load has it
    zones: int = 3  # of low memory, by which vm.min_free_kbytes is computed, though they are one here
    kswapd_batch: int = 32  # pages that kswapd reclaims while a CPU allocates a block
    compaction: int = 1  # 0: no pages are moved (CONFIG_COMPACTION)
    swap_mib: int = 0  # swap space; 0: none, and anonymous pages stay where they are
    swappiness: int = 60  # vm.swappiness, of 200
    dirty_percent: int = 0  # of the files, those that are written and not read
    dirty_background_percent: int = 10  # vm.dirty_background_ratio: dirty pages from which on the flusher writes
    dirty_limit_percent: int = 20  # vm.dirty_ratio: from which on writers wait
    flush_batch: int = 16  # pages that the flusher writes while a CPU allocates a block
    highatomic: int = 1  # 0: no pageblocks are kept for requests for several pages that cannot wait


class State(NamedTuple):
    """The states of both, and who else has pages of the direct map."""

    p: Params
    vmap: vmap.State
    buddy: buddy.State
    owner: Words  # int32[rows], 1 + owner of the block that begins with a page; rows are the buddy's
    mate: Table  # int32[rows, 2], blocks of the same owner after it and before it, by their pages
    owners: Table  # int64[rows, OWNER_COLUMNS]
    meters: Words  # int64[METERS]
