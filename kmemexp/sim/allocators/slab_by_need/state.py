"""What a sweep may change of `slab_by_need`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Cube, Table, Words
from kmemexp.sim.allocators._shared import dfly_zones
from kmemexp.sim.allocators.dfly_slab import ZONE_HEADER

LEVELS = 6  # sizes of zones: 4 KiB << level
LISTS = 2  # of a class and CPU: zones of chunks that stay where they are, zones of chunks that may move

# Columns of State.zone beyond those of dfly_zones. KLASS is level * NZONES + class here: a row of State.klass.
FIRST_FREE_PAGE = dfly_zones.ZONE_COLUMNS  # no lower page has a freed chunk
LIST = dfly_zones.ZONE_COLUMNS + 1  # class, or NZONES + class where chunks may move
LEVEL = dfly_zones.ZONE_COLUMNS + 2
ZONE_COLUMNS = dfly_zones.ZONE_COLUMNS + 3

# Columns of State.dense.
LIVE = 0  # bytes of chunks that are handed out
CHOSEN = 1  # level of the zones that are made now
DENSE_COLUMNS = 2

# Words of State.task: what the evacuation has in hand, what it has done, and what the next tick is for.
VICTIM = 0  # zone that is being emptied, NIL: none
CHUNK_AT = 1  # which of its chunks is looked at next
LEFT = 2  # moves that are left of this tick's budget
SOURCE = 3  # address that an object is moved from
TARGET = 4  # address that it is moved to
DONE = 5  # objects moved
REFUSED = 6  # moves that an owner has refused
EMPTIED = 7  # zones that moves have emptied
OPENED = 8  # 1: a superpage that it held little of has got a zone or block since idle zones went back for that
SINCE = 9  # ticks since then
TASK_WORDS = 10


class Params(NamedTuple):
    """What a sweep may change. Sizes are those of 2003 where DragonFly has them, else ours."""

    least_bytes: int = 4096  # of a zone where a class is sparse; a power of two from 4096
    most_bytes: int = 131072  # of a zone where it is dense; a power of two up to 131072
    grow: int = 8  # a class goes on to zones of twice the size when it has so many of them in live bytes
    shrink: int = 3  # and goes back when it has fewer than so many of those that it has
    limit_bytes: int = 8192  # ZoneLimit: requests of this size or more go to the map
    release_threshold: int = 32  # pages of wholly free zones that a CPU may keep; two zones of 64 KiB in 2003
    keep_last: int = 0  # 1: the only zone of a class stays with it when it is wholly free, as in the real kernel
    header_bytes: int = ZONE_HEADER  # sizeof(SLZone)
    slide: int = 20  # ZALLOC_SLAB_SLIDE
    drain: int = 0  # 1: zones of fuller superpages are used first, and those of emptier ones go back first
    look: int = 8  # zones of a list that are looked at for that
    trim_percent: int = 0  # of a superpage: if it holds less of one that it maps in, a tick releases all idle zones
    trim_ticks: int = 30  # ASSUMPTION: between two of these; kmem_reap_interval of illumos is 15 s
    movable: int = 0  # whose chunks may move: 0 nobody's, 1 those of zones (caches with a callback), 2 all
    moves: int = 0  # objects that are moved in a tick at most; 0: no evacuation
    sparse_percent: int = 25  # a zone is worth emptying when at most so much of it is handed out
    superpage_bytes: int = 0  # 0: the machine's; where none says what that is, the i386's 4 MiB


class State(NamedTuple):
    """A zone is named by its first page, chunks are numbered within their zone: chunk n of z has word[512 * z + n]."""

    p: Params
    map_number: int
    zone_shift: int  # log2 of a page
    zone_limit: int
    page_words: int  # words of a page
    superpage_shift: int

    class_of: Words  # uint8[2049], class by request size in units of 8 bytes, rounded up
    klass: Table  # int64[6 * 72, 4], by level and class
    bounds: Table  # int64[72, 2], least and most level of a class
    zone: Table  # int32[pages, 10]
    zone_of: Words  # int32[pages], 1 + zone of a page; 0: none
    page_head: Words  # int16[pages], first freed chunk of the page
    word: Words  # int32[512 * pages], of a chunk: -2 - next freed one; 1 + object of one that may move; else stale
    zone_ary: Table  # int32[cpus, 144], first zone with free chunks
    dense: Cube  # int64[cpus, 144, 2]
    cpu: Table  # int64[cpus, 4]
    over: Table  # int32[pages, 2]
    held: Words  # int64[superpages], bytes of zones and blocks
    task: Words  # int64[10]
