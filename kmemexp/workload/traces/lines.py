"""What is read of the lines of a text, and what the reading carries from block to block."""

from typing import NamedTuple

import numpy as np

from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces import words
from kmemexp.workload.traces.words import Words

MAX_CPUS = 4096
MAX_NAMES = 4096
MAX_SITES = 1 << 15
KEPT = 8  # line numbers kept of each kind of damage

# Indices into Scan.counts.
SEEN_LINES = 0
SEEN_ROWS = 1  # lines of our events
SEEN_OTHER = 2  # lines of other tracepoints and tracers
SEEN_REMARK = 3  # comments, headers, blank lines, stack traces
SEEN_BAD = 4  # lines that could not be read
SEEN_GAPS = 5  # lost-events markers
SEEN_LOST = 6  # events lost by these, as far as they say a number
SEEN_WIDTH = 7  # digits of an unprefixed pointer in this trace
SEEN_FULL = 8  # 1: more than MAX_NAMES
SEEN_HIDDEN = 9  # pointers that the kernel hid
SEEN_NUMERIC = 10  # allocations whose GFP flags are a number
SEEN_GFP = 11  # layout of these numbers, gfp.UNKNOWN …
SEEN_TICKS = 12  # times without a point
SEEN_NO_CPU = 13  # lines without a CPU
SEEN_UNNAMED = 14  # kmem_cache_alloc without a name
SEEN_NAMED = 15  # kmem_cache_alloc with one
SEEN_NAMED_FREES = 16  # kmem_cache_free with one
SEEN_LATEST = 17  # latest time, ns
SEEN_BACK = 18  # line at which time first runs back by more than BACK_NS
SEEN_BACK_FROM = 19  # time before it
SEEN_BACK_TO = 20  # and its own
SEEN_OVERWRITTEN = 21  # events that the header says were overwritten
SEEN_HTML = 22  # 1: a page that holds a trace, whose other lines are no damage
SEEN_MARKER = 23  # hash of the task that marked the end, until it is seen that the counts have been read
SEEN = 24  # how many there are

BACK_NS = 1_000_000_000  # clocks of CPUs differ by less


class Lines(NamedTuple):
    """Columns of the lines of a block that hold one of our events."""

    time_ns: np.ndarray  # int64
    cpu: np.ndarray  # int16
    context: np.ndarray  # int8
    event: np.ndarray  # int8, index into schema.EVENTS
    address: np.ndarray  # int64, 63 bits; pages: the page frame number
    requested: np.ndarray  # int64; KVA: size
    allocated: np.ndarray  # int64; KVA: 1 where the allocation failed; pages: the order
    cache: np.ndarray  # int16; -1 = not named
    gfp: np.ndarray  # int8, bits of gfp.py
    site: np.ndarray  # int32, number of the call site; -1 = not told
    vector: np.ndarray  # int32; of a free SNAP_READ or 0


class Scan(NamedTuple):
    """What is carried from block to block."""

    counts: np.ndarray  # int64[SEEN]
    bad: np.ndarray  # int64[KEPT], first line numbers that could not be read
    gaps: np.ndarray  # int64[KEPT], first line numbers of lost-events markers
    hard: np.ndarray  # int32[MAX_CPUS], hard interrupts entered and not left
    soft: np.ndarray  # int32[MAX_CPUS], the same of soft interrupts
    names: Words  # of caches
    sites: Words  # that allocate


def scanner(*, html: bool = False) -> Scan:
    """State for a new file; the cache names of schema.KMALLOC and schema.UNNAMED are entered."""
    st = Scan(
        np.zeros(SEEN, np.int64),
        np.zeros(KEPT, np.int64),
        np.zeros(KEPT, np.int64),
        np.zeros(MAX_CPUS, np.int32),
        np.zeros(MAX_CPUS, np.int32),
        words.words(MAX_NAMES),
        words.words(MAX_SITES),
    )
    words.reserve(st.names, (sc.KMALLOC, sc.UNNAMED))
    st.counts[SEEN_HTML] = html
    return st


def columns(n: int) -> Lines:
    """Room for n lines."""
    kinds = (
        np.int64, np.int16, np.int8, np.int8, np.int64, np.int64, np.int64, np.int16, np.int8, np.int32, np.int32
    )  # fmt: skip
    return Lines(*(np.empty(n, k) for k in kinds))
