"""The one Parquet schema of imported traces: events, operations, columns and their meaning."""

from typing import NamedTuple

import pyarrow as pa

from kmemexp.sim.items import KMALLOC_SETS

VERSION = 3
READ = (1, 2, 3)  # versions that are read

# What a tracepoint does to memory.
DO_ALLOC = 0
DO_FREE = 1
DO_KVA_ALLOC = 2
DO_KVA_FREE = 3
DO_ENTER = 4
DO_EXIT = 5
DO_PAGE_ALLOC = 6
DO_PAGE_FREE = 7
DO_MARK = 8

SNAP_BEFORE, SNAP_AFTER = 1, 2  # marks of the recorder around its snapshots: `snap_before`, `snap_after`
SNAP_READ = 3  # no line of its own: by then the counts after had been read (text.py)

# Contexts, as ftrace's third flag tells them.
TASK = 0
SOFTIRQ = 1
HARDIRQ = 2
NMI = 3
CONTEXTS = ("task", "softirq", "hardirq", "nmi")


class Event(NamedTuple):
    """A tracepoint that is read."""

    group: str
    name: str
    does: int
    context: int  # interrupt entry and exit: the context entered or left


EVENTS = (
    Event("kmem", "kmalloc", DO_ALLOC, TASK),
    Event("kmem", "kfree", DO_FREE, TASK),
    Event("kmem", "kmem_cache_alloc", DO_ALLOC, TASK),
    Event("kmem", "kmem_cache_free", DO_FREE, TASK),
    Event("kmem", "kmalloc_node", DO_ALLOC, TASK),  # until Linux 6.0
    Event("kmem", "kmem_cache_alloc_node", DO_ALLOC, TASK),  # until Linux 6.0
    Event("vmalloc", "alloc_vmap_area", DO_KVA_ALLOC, TASK),
    Event("vmalloc", "free_vmap_area_noflush", DO_KVA_FREE, TASK),
    Event("irq", "irq_handler_entry", DO_ENTER, HARDIRQ),
    Event("irq", "irq_handler_exit", DO_EXIT, HARDIRQ),
    Event("irq", "softirq_entry", DO_ENTER, SOFTIRQ),
    Event("irq", "softirq_exit", DO_EXIT, SOFTIRQ),
    Event("irq_vectors", "local_timer_entry", DO_ENTER, HARDIRQ),
    Event("irq_vectors", "local_timer_exit", DO_EXIT, HARDIRQ),
    Event("kmem", "mm_page_alloc", DO_PAGE_ALLOC, TASK),
    Event("kmem", "mm_page_free", DO_PAGE_FREE, TASK),
    Event("ftrace", "tracing_mark_write", DO_MARK, TASK),
    Event("ftrace", "print", DO_MARK, TASK),  # the same, as trace-cmd and perf call it
)
EVENT_NAMES = tuple(e.name for e in EVENTS)

# What a row is. One line of text makes one row, an allocation of a live pointer makes a *_lost_free before it, and the
# free that shows the counts to be read makes a mark behind it.
ALLOC = 0
FREE = 1
LOST_FREE = 2  # the object's free was not traced (bulk free): seen when its address is allocated again
NULL_FREE = 3  # kfree(NULL)
UNMATCHED_FREE = 4  # allocated before the trace began
NULL_ALLOC = 5  # an allocation that failed
ZERO_ALLOC = 6  # kmalloc(0): the pointer to nothing, which is never live
KVA_ALLOC = 7
KVA_FREE = 8
KVA_LOST_FREE = 9
KVA_UNMATCHED_FREE = 10
KVA_FAILED = 11
IRQ_ENTER = 12
IRQ_EXIT = 13
PAGE_ALLOC = 14  # pages that the page allocator gave; not an object
PAGE_FREE = 15
MARK = 16  # `vector`: SNAP_BEFORE, SNAP_AFTER or SNAP_READ
# What the import adds, in row groups of their own after all others (reconstruct.py). These are no events.
IMPUTED_FREE = 17  # a death that left no event; it takes the place of the object's lost_free, if there is one
ADDED_ALLOC = 18  # a birth that left no event
ADDED_FREE = 19  # the end of such an object
OLD_ALLOC = 20  # what was there before the recording
OLD_FREE = 21
OPS = (
    "alloc", "free", "lost_free", "null_free", "unmatched_free", "null_alloc", "zero_alloc",
    "kva_alloc", "kva_free", "kva_lost_free", "kva_unmatched_free", "kva_failed", "irq_enter", "irq_exit",
    "page_alloc", "page_free", "mark", "imputed_free", "added_alloc", "added_free", "old_alloc", "old_free",
)  # fmt: skip
"""Names of the operations by code: what stands in the column `op`."""

PLAYED = ("alloc", "free", "lost_free", "kva_alloc", "kva_free", "kva_lost_free")
"""Operations that a simulation plays."""

STREAMS = ("recorded", "law", "reconciled")
"""Streams of one recording: as recorded; with the deaths that can be proven or that a law says; with the object counts
of a snapshot after it as well."""
STREAM_LAW, STREAM_RECONCILED, STREAM_START = 1, 2, 4
"""Bits of the column `streams`: what an added row belongs to; the last: to a replay that begins with old objects."""

KMALLOC_TYPES = KMALLOC_SETS
"""Which of kmalloc's caches an allocation came from, besides its size (`slabs.py`)."""

KMALLOC = "kmalloc"  # cache name of what kmalloc serves; always cache 0
UNNAMED = "(unnamed)"  # cache of a kmem_cache_alloc line without a name (until Linux 6.0); always cache 1
UNNAMED_CACHE = 1

_WORD = pa.dictionary(pa.int8(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("time_ns", pa.int64(), nullable=False),  # the trace's own clock
        pa.field("cpu", pa.int16(), nullable=False),
        pa.field("context", _WORD, nullable=False),  # CONTEXTS
        pa.field("op", _WORD, nullable=False),  # OPS
        pa.field("event", _WORD),  # tracepoint; null on *_lost_free
        pa.field("object_id", pa.int64()),  # objects and KVA areas in order of allocation; null where nothing matched
        pa.field("requested_bytes", pa.int64()),  # of the object; null where unknown
        pa.field("allocated_bytes", pa.int64()),
        pa.field("cache", pa.dictionary(pa.int16(), pa.string())),  # "kmalloc" or the slab cache
        pa.field("nowait", pa.bool_()),  # allocations: GFP_ATOMIC or GFP_NOWAIT
        pa.field("page", pa.int64()),  # first 4 KiB page of the address (address >> 12)
        pa.field("pages", pa.int32()),  # 4 KiB pages that the object or area touches
        pa.field("vector", pa.int32()),  # interrupts: irq or vector number, softirq number; marks: SNAP_*
        pa.field("kmalloc", _WORD),  # KMALLOC_TYPES; null where it is not kmalloc's
        pa.field("site", pa.dictionary(pa.int32(), pa.string())),  # allocations: the call site
        pa.field("streams", pa.int8()),  # added rows: STREAM_*; null on what was recorded
        pa.field("chance", pa.float32()),  # added rows: how likely it is; null on what was recorded
        pa.field("offset", pa.int16()),  # bytes from the beginning of `page` to the address
    ]
)
"""One row per line of text, in file order. Compact files leave columns null (see importer.COMPACT_DROPS). Version 1 has
none of the last five columns, version 2 lacks the last."""

META = "kmemexp.trace"  # key of the JSON in the file's metadata
