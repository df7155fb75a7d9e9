"""Reading trace text: one compiled pass over a block of bytes, for the line forms of ftrace, trace-cmd and perf.

All three print `… [cpu] (flags) seconds: (group:)event: fields`, with other spacing; fields are `key=value`. A line
that is none of these, or one of our events with a field missing, is counted and its number kept.
"""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import entry, kernel, ref
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces import tokens as tk
from kmemexp.workload.traces.tokens import Text

MAX_CPUS = 4096
MAX_NAMES = 4096
NAME_BYTES = 64
KEPT = 8  # line numbers kept of each kind of damage

# Indices into Scan.counts.
SEEN_LINES = 0
SEEN_ROWS = 1  # lines of our events
SEEN_OTHER = 2  # lines of other tracepoints
SEEN_REMARK = 3  # comments, headers, blank lines, stack traces
SEEN_BAD = 4  # lines that could not be read
SEEN_GAPS = 5  # lost-events markers
SEEN_LOST = 6  # events lost by these, as far as they say a number
SEEN_WIDTH = 7  # digits of an unprefixed pointer in this trace
SEEN_NAMES = 8  # cache names seen
SEEN_FULL = 9  # 1: more than MAX_NAMES
SEEN = 10  # how many there are

# Keys of the fields that are read, by number; `va_start:` is how alloc_vmap_area prints it.
KEYS = ("ptr", "name", "bytes_req", "bytes_alloc", "gfp_flags", "va_start", "size", "failed", "irq", "vec", "vector")
PTR, NAME, REQ, ALLOC, GFP, VA_START, SIZE, FAILED, IRQ, VEC, VECTOR = range(len(KEYS))
KEY_TEXT, KEY_LENGTH = tk.words(KEYS)
EVENT_TEXT, EVENT_LENGTH = tk.words(sc.EVENT_NAMES)
MARK_TEXT, MARK_LENGTH = tk.words(("cpus=", "[LOST ", "EVENTS DROPPED]", "PERF_RECORD_LOST"))
CPUS, LOST_MARK, DROPPED_MARK, PERF_LOST = range(4)
# Keys that a line must have, as bits, by schema.DO_*.
_NEEDS = ((PTR, REQ, ALLOC, GFP), (PTR,), (VA_START, SIZE, FAILED), (VA_START,), (VECTOR,), (VECTOR,))
NEEDS = np.array([sum(1 << key for key in keys) for keys in _NEEDS])

DOES = np.array([e.does for e in sc.EVENTS])
INTERRUPT = np.array([e.context for e in sc.EVENTS])

# Cache of an event that names none: kmalloc's, an unnamed one, or (frees) not known.
DEFAULT_CACHE = np.array([-1 if e.does != sc.DO_ALLOC else int(e.name[:7] != sc.KMALLOC) for e in sc.EVENTS])


class Lines(NamedTuple):
    """Columns of the lines of a block that hold one of our events."""

    time_ns: np.ndarray  # int64
    cpu: np.ndarray  # int16
    context: np.ndarray  # int8
    event: np.ndarray  # int8, index into schema.EVENTS
    address: np.ndarray  # int64, 63 bits
    requested: np.ndarray  # int64; KVA: size
    allocated: np.ndarray  # int64; KVA: 1 where the allocation failed
    cache: np.ndarray  # int16; -1 = not named
    nowait: np.ndarray  # bool
    vector: np.ndarray  # int32


class Scan(NamedTuple):
    """What is carried from block to block."""

    counts: np.ndarray  # int64[SEEN]
    bad: np.ndarray  # int64[KEPT], first line numbers that could not be read
    gaps: np.ndarray  # int64[KEPT], first line numbers of lost-events markers
    hard: np.ndarray  # int32[MAX_CPUS], hard interrupts entered and not left
    soft: np.ndarray  # int32[MAX_CPUS], the same of soft interrupts
    names: np.ndarray  # uint8[MAX_NAMES, NAME_BYTES]
    lengths: np.ndarray  # int32[MAX_NAMES]
    name_table: np.ndarray  # int16[4 * MAX_NAMES], hash table of the names: number + 1


def scanner() -> Scan:
    """State for a new file; the cache names of schema.KMALLOC and schema.UNNAMED are entered."""
    st = Scan(
        np.zeros(SEEN, np.int64),
        np.zeros(KEPT, np.int64),
        np.zeros(KEPT, np.int64),
        np.zeros(MAX_CPUS, np.int32),
        np.zeros(MAX_CPUS, np.int32),
        np.zeros((MAX_NAMES, NAME_BYTES), np.uint8),
        np.zeros(MAX_NAMES, np.int32),
        np.zeros(4 * MAX_NAMES, np.int16),
    )
    for number, name in enumerate((sc.KMALLOC, sc.UNNAMED)):
        st.names[number, : len(name)] = np.frombuffer(name.encode(), np.uint8)
        st.lengths[number] = len(name)
    st.counts[SEEN_NAMES] = 2
    return st


def cache_names(st: Scan) -> list[str]:
    """Cache names seen so far, by number."""
    known = range(st.counts[SEEN_NAMES])
    return [bytes(st.names[i, : st.lengths[i]]).decode("utf-8", "backslashreplace") for i in known]


def columns(n: int) -> Lines:
    """Room for n lines."""
    kinds = (np.int64, np.int16, np.int8, np.int8, np.int64, np.int64, np.int64, np.int16, np.bool_, np.int32)
    return Lines(*(np.empty(n, k) for k in kinds))


@entry
def scan(text: Text, end: int, lines: Lines, st: Scan) -> int:
    """Read text[:end] (uint8, whole lines) into `lines`. Returns the number of rows."""
    lines, st = ref(lines), ref(st)
    rows = 0
    at = 0
    while at < end:
        stop = at
        while text[stop] != tk.NEWLINE:
            stop += 1
        st.counts[SEEN_LINES] += 1
        last = stop
        while last > at and text[last - 1] <= tk.SPACE:
            last -= 1
        rows += _line(text, at, last, lines, rows, st)
        at = stop + 1
    st.counts[SEEN_ROWS] += rows
    return rows


@kernel
def _line(text: Text, at: int, end: int, lines: Lines, row: int, st: Scan) -> int:
    """Read one line into row `row`. Returns 1 if it holds one of our events."""
    start = tk.skip(text, at, end)
    if start == end or text[start] == tk.HASH or _marked(text, start, end, CPUS):
        st.counts[SEEN_REMARK] += 1
        return 0
    cpu, context, time_ns, at_event = _head(text, start, end)
    if at_event < 0:
        return _odd_line(text, at, start, end, st)
    stop = tk.token(text, at_event, end)
    name = at_event
    for i in range(at_event, stop - 1):
        if text[i] == tk.COLON:
            name = i + 1
    event = tk.which(text, name, stop - 1, EVENT_TEXT, EVENT_LENGTH)
    if event < 0:
        if _marked(text, name, end, PERF_LOST):
            return _gap(text, stop, end, cpu, st)
        if text[stop - 1] != tk.COLON:
            return _bad(st)
        st.counts[SEEN_OTHER] += 1
        return 0
    if text[stop - 1] != tk.COLON or not _fields(text, stop, end, event, lines, row, st):
        return _bad(st)
    lines.time_ns[row] = time_ns
    lines.cpu[row] = cpu
    lines.event[row] = event
    lines.context[row] = _context(event, cpu, context, st)
    return 1


@kernel
def _head(text: Text, at: int, end: int) -> tuple[int, int, int, int]:
    """Read `… [cpu] (flags) seconds: (period)`. Returns (cpu, context or -1, ns, where the event begins or -1)."""
    for i in range(at, end):
        if text[i] != tk.BRACKET:
            continue
        cpu, j = tk.decimal(text, i + 1, end)
        if j == i + 1 or j >= end or text[j] != tk.CLOSE or cpu >= MAX_CPUS:
            continue
        j = tk.skip(text, j + 1, end)
        context = -1
        if j < end and not tk.is_digit(text[j]):
            stop = tk.token(text, j, end)
            if stop - j < 3:
                continue
            context = tk.flag(text[j + 2])
            j = tk.skip(text, stop, end)
        time_ns, j = tk.seconds(text, j, end)
        if j < 0:
            continue
        j = tk.skip(text, j, end)
        _, stop = tk.decimal(text, j, end)
        if stop > j and stop < end and text[stop] == tk.SPACE:  # perf's sample period
            j = tk.skip(text, stop, end)
        if j < end:
            return cpu, context, time_ns, j
    return 0, 0, 0, -1


@kernel
def _context(event: int, cpu: int, flagged: int, st: Scan) -> int:
    """Context of a line: from its flags, else from the interrupts entered on its CPU."""
    depth = st.hard if INTERRUPT[event] == sc.HARDIRQ else st.soft
    if DOES[event] == sc.DO_ENTER:
        depth[cpu] += 1
    context = sc.HARDIRQ if st.hard[cpu] > 0 else sc.SOFTIRQ if st.soft[cpu] > 0 else sc.TASK
    if DOES[event] == sc.DO_EXIT:
        context = max(context, INTERRUPT[event])
        depth[cpu] = max(depth[cpu] - 1, 0)
    return context if flagged < 0 else flagged


@kernel
def _fields(text: Text, at: int, end: int, event: int, lines: Lines, row: int, st: Scan) -> bool:
    """Read the fields of one of our events. Returns False if one is missing or cut off."""
    does = DOES[event]
    has = 0
    lines.address[row] = lines.requested[row] = lines.allocated[row] = lines.vector[row] = 0
    lines.nowait[row] = False
    lines.cache[row] = DEFAULT_CACHE[event]
    while True:
        at = tk.skip(text, at, end)
        if at >= end:
            break
        stop = tk.token(text, at, end)
        value = tk.key_end(text, at, stop)  # where the value begins
        key = tk.which(text, at, value - 1, KEY_TEXT, KEY_LENGTH) if value > at else -1
        at = stop
        if key < 0 or (value >= stop and key not in (PTR, VA_START)):
            continue
        ok = True
        if key == PTR:
            lines.address[row], at = _pointer(text, value, end, st)
            ok = at >= 0
        elif key == VA_START:
            value = tk.skip(text, value, end)
            at = tk.token(text, value, end)
            lines.address[row], ok = tk.address(text, value, at, does == sc.DO_KVA_FREE)
        elif key == GFP:
            lines.nowait[row] = tk.cannot_sleep(text, value, stop)
        elif key == NAME:
            if does <= sc.DO_FREE:
                lines.cache[row] = _cache(text, value, stop, st)
        else:
            figure, ok = tk.number(text, value, stop)
            if key in (REQ, SIZE):
                lines.requested[row] = figure
            elif key in (ALLOC, FAILED):
                lines.allocated[row] = figure
            else:
                lines.vector[row] = figure
                key = VECTOR
        if not ok:
            return False
        has |= 1 << key
    return bool(has & NEEDS[does] == NEEDS[does])


@kernel
def _pointer(text: Text, at: int, end: int, st: Scan) -> tuple[int, int]:
    """Read a pointer: hex with or without 0x, or (nil)/(null), which may be padded. Returns (address, end or -1)."""
    at = tk.skip(text, at, end)
    stop = tk.token(text, at, end)
    if stop > at and text[at] == tk.PAREN:
        return 0, stop if text[stop - 1] == tk.CLOSE_PAREN else -1
    value, ok = tk.address(text, at, stop, True)
    if not ok:
        return 0, -1
    if stop - at < 2 or text[at + 1] != tk.X:
        # The kernel prints unprefixed pointers in their full width: a shorter one at the end of a line was cut off.
        if st.counts[SEEN_WIDTH] == 0:
            st.counts[SEEN_WIDTH] = stop - at
        elif stop - at < st.counts[SEEN_WIDTH] and st.counts[SEEN_WIDTH] in (8, 16):
            return 0, -1
    return value, stop


@kernel
def _hash(text: Text, at: int, end: int) -> int:
    """FNV-1a of text[at:end], 32 bits."""
    hashed = 2166136261
    for i in range(at, end):
        hashed = ((text[i] ^ np.int64(hashed)) * 16777619) & 0xFFFFFFFF
    return hashed


@kernel
def _cache(text: Text, at: int, end: int, st: Scan) -> int:
    """Look a cache name up, entering it when new. Returns its number."""
    end = min(end, at + NAME_BYTES)
    mask = len(st.name_table) - 1
    place = _hash(text, at, end) & mask
    while st.name_table[place] > 0:
        known: int = st.name_table[place] - 1
        if st.lengths[known] == end - at and tk.same(text, at, end, st.names[known]):
            return known
        place = (place + 1) & mask
    new: int = st.counts[SEEN_NAMES]
    if new == MAX_NAMES:
        st.counts[SEEN_FULL] = 1
        return 1
    st.name_table[place] = new + 1
    st.lengths[new] = end - at
    for i in range(at, end):
        st.names[new, i - at] = text[i]
    st.counts[SEEN_NAMES] = new + 1
    return new


@kernel
def _odd_line(text: Text, at: int, start: int, end: int, st: Scan) -> int:
    """Count a line without `[cpu] seconds:`: a lost-events marker, part of a stack trace, or damage."""
    for i in range(start, end):
        if _marked(text, i, end, LOST_MARK) or _marked(text, i, end, DROPPED_MARK):
            cpu = tk.decimal(text, tk.find(text, start, end, tk.COLON) + 1, end)[0]
            return _gap(text, tk.find(text, start, end, tk.BRACKET), end, min(cpu, MAX_CPUS - 1), st)
    stack = text[start] == tk.EQUALS or (text[at] == tk.TAB and tk.digit(text[start]) >= 0)
    if not stack:
        return _bad(st)
    st.counts[SEEN_REMARK] += 1
    return 0


@kernel
def _gap(text: Text, at: int, end: int, cpu: int, st: Scan) -> int:
    """Count a lost-events marker; the number lost is the first one from `at`. What the CPU was in is not known now."""
    while at < end and not tk.is_digit(text[at]):
        at += 1
    if st.counts[SEEN_GAPS] < KEPT:
        st.gaps[st.counts[SEEN_GAPS]] = st.counts[SEEN_LINES]
    st.counts[SEEN_GAPS] += 1
    st.counts[SEEN_LOST] += tk.decimal(text, at, end)[0]
    st.hard[cpu] = st.soft[cpu] = 0
    return 0


@kernel
def _bad(st: Scan) -> int:
    """Count a line that cannot be read."""
    if st.counts[SEEN_BAD] < KEPT:
        st.bad[st.counts[SEEN_BAD]] = st.counts[SEEN_LINES]
    st.counts[SEEN_BAD] += 1
    return 0


@kernel
def _marked(text: Text, at: int, end: int, mark: int) -> bool:
    """Whether text[at:end] begins with one of the marks."""
    stop: int = at + MARK_LENGTH[mark]
    return stop <= end and tk.same(text, at, stop, MARK_TEXT[mark])
