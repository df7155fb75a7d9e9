"""Reading trace text: one compiled pass over a block of bytes, for the line forms of ftrace, trace-cmd and perf.

All print `… [cpu] (flags) seconds: (group:)event: fields`, with other spacing and more or less of it (`head.py`);
fields are `key=value` (`fields.py`). A line that is none of these, or one of our events with a field missing, is
counted and its number kept.
"""

import numpy as np

from kmemexp.jit import entry, kernel, ref
from kmemexp.workload.traces import fields, head
from kmemexp.workload.traces import lines as ln
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces import tokens as tk
from kmemexp.workload.traces.lines import Lines, Scan
from kmemexp.workload.traces.tokens import Text

EVENT_TEXT, EVENT_LENGTH = tk.words(sc.EVENT_NAMES)
INTERRUPT = np.array([e.context for e in sc.EVENTS])
MARKS = (
    "cpus=", "[LOST ", "EVENTS DROPPED]", "PERF_RECORD_LOST", "PERF_RECORD_", "CPU ", "version =", "<stack", "<user",
    "=>", "<-", "snap_before", "snap_after", "=release_task", "=seq_release",
)  # fmt: skip
MARK_TEXT, MARK_LENGTH = tk.words(MARKS)
(CPUS, LOST_MARK, DROPPED_MARK, PERF_LOST, PERF_RECORD, CPU_MARK, VERSION_MARK, STACK, USER_STACK, FRAME, CALLED,
 BEFORE, AFTER, REAPED, CLOSED) = range(len(MARKS))  # fmt: skip
WRITTEN_TEXT, WRITTEN_LENGTH = tk.words(("entries-in-buffer/entries-written:",))


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
        st.counts[ln.SEEN_LINES] += 1
        rows += _line(text, at, _last(text, at, stop), lines, rows, st)
        at = stop + 1
    st.counts[ln.SEEN_ROWS] += rows
    return rows


@kernel
def _last(text: Text, at: int, end: int) -> int:
    """End of a line without blanks, a carriage return, and the backslashes of JavaScript after its text."""
    while end > at and text[end - 1] <= tk.SPACE:
        end -= 1
    if end - at > 2 and text[end - 1] == tk.BACKSLASH and text[end - 2] == tk.N and text[end - 3] == tk.BACKSLASH:
        return end - 3
    return end


@kernel
def _line(text: Text, at: int, end: int, lines: Lines, row: int, st: Scan) -> int:
    """Read one line into row `row`. Returns 1 if it holds one of our events."""
    start = tk.skip(text, at, end)
    if end - start >= 3 and text[start] == 0xEF and text[start + 1] == 0xBB and text[start + 2] == 0xBF:
        start = tk.skip(text, start + 3, end)  # byte order mark
    if start == end or text[start] == tk.HASH:
        return _comment(text, start, end, st)
    cpu, context, time_ns, at_event = head.read(text, start, end, st)
    if at_event < 0:
        return _odd_line(text, at, start, end, st)
    stop = tk.token(text, at_event, end)
    name = at_event
    for i in range(at_event, stop - 1):
        if text[i] == tk.COLON:
            name = i + 1
    event = tk.which(text, name, stop - 1, EVENT_TEXT, EVENT_LENGTH)
    if event < 0 or text[stop - 1] != tk.COLON:
        return _other(text, name, stop, end, cpu, st)
    if fields.DOES[event] == sc.DO_MARK:
        lines.vector[row] = _snapshot(text, stop, end)
        if lines.vector[row] == 0:
            st.counts[ln.SEEN_OTHER] += 1
            return 0
        st.counts[ln.SEEN_MARKER] = _task(text, start, end) if lines.vector[row] == sc.SNAP_AFTER else 0
    elif not fields.read(text, stop, end, event, lines, row, st):
        return _bad(st)
    elif st.counts[ln.SEEN_MARKER] != 0 and fields.DOES[event] == sc.DO_FREE and _is_read(text, start, stop, end, st):
        lines.vector[row] = sc.SNAP_READ
        st.counts[ln.SEEN_MARKER] = 0
    lines.time_ns[row] = time_ns
    lines.cpu[row] = cpu
    lines.event[row] = event
    lines.context[row] = _context(event, cpu, context, st)
    _note_time(time_ns, st)
    return 1


@kernel
def _note_time(time_ns: int, st: Scan) -> None:
    """Note where time runs back by more than the clocks of CPUs differ."""
    if time_ns < st.counts[ln.SEEN_LATEST] - ln.BACK_NS and st.counts[ln.SEEN_BACK] == 0:
        st.counts[ln.SEEN_BACK] = st.counts[ln.SEEN_LINES]
        st.counts[ln.SEEN_BACK_FROM] = st.counts[ln.SEEN_LATEST]
        st.counts[ln.SEEN_BACK_TO] = time_ns
    st.counts[ln.SEEN_LATEST] = max(time_ns, st.counts[ln.SEEN_LATEST])


@kernel
def _comment(text: Text, at: int, end: int, st: Scan) -> int:
    """Count a comment; ftrace's says how many events the buffers held, and how many there had been."""
    st.counts[ln.SEEN_REMARK] += 1
    at = tk.skip(text, at + 1, end)
    stop = tk.token(text, at, end)
    if tk.which(text, at, stop, WRITTEN_TEXT, WRITTEN_LENGTH) == 0:
        held, slash = tk.decimal(text, tk.skip(text, stop, end), end)
        written, _ = tk.decimal(text, slash + 1, end)
        st.counts[ln.SEEN_OVERWRITTEN] += max(written - held, 0)
    return 0


@kernel
def _snapshot(text: Text, at: int, end: int) -> int:
    """Which of the recorder's marks a text is: schema.SNAP_BEFORE, schema.SNAP_AFTER, or 0 for none."""
    for i in range(at, end):
        if _marked(text, i, end, BEFORE):
            return sc.SNAP_BEFORE
        if _marked(text, i, end, AFTER):
            return sc.SNAP_AFTER
    return 0


@kernel
def _task(text: Text, at: int, end: int) -> int:
    """Hash of what stands before the CPU: name and number of a task. Never 0."""
    hashed = 2166136261  # FNV-1a, 32 bits
    for i in range(at, tk.find(text, at, end, tk.BRACKET)):
        hashed = ((text[i] ^ np.int64(hashed)) * 16777619) & 0xFFFFFFFF
    return hashed + 1


@kernel
def _is_read(text: Text, start: int, at: int, end: int, st: Scan) -> bool:
    """Whether the task that set the mark has buried the one that read for it, or closes what it read itself.

    Linux: /proc/slabinfo is a seq file, whose last close comes to seq_release(); waiting for a child to release_task().
    """
    if _task(text, start, end) != st.counts[ln.SEEN_MARKER]:
        return False
    for i in range(at, end):  # noqa: SIM110 - a generator does not compile
        if _marked(text, i, end, REAPED) or _marked(text, i, end, CLOSED):
            return True
    return False


@kernel
def _other(text: Text, name: int, stop: int, end: int, cpu: int, st: Scan) -> int:
    """Count a line with a time that is none of our events: other tracepoints and tracers, stacks, losses, damage."""
    after = tk.skip(text, stop, end)
    if _marked(text, name, end, PERF_LOST):
        return _gap(text, stop, end, cpu, st)
    if _marked(text, name, end, PERF_RECORD) or _marked(text, name, end, STACK) or _marked(text, name, end, USER_STACK):
        st.counts[ln.SEEN_REMARK] += 1
    elif text[stop - 1] == tk.COLON or _marked(text, after, end, CALLED):
        st.counts[ln.SEEN_OTHER] += 1
    else:
        return _bad(st)
    return 0


@kernel
def _context(event: int, cpu: int, flagged: int, st: Scan) -> int:
    """Context of a line: from its flags, else from the interrupts entered on its CPU."""
    depth = st.hard if INTERRUPT[event] == sc.HARDIRQ else st.soft
    if fields.DOES[event] == sc.DO_ENTER:
        depth[cpu] += 1
    context = sc.HARDIRQ if st.hard[cpu] > 0 else sc.SOFTIRQ if st.soft[cpu] > 0 else sc.TASK
    if fields.DOES[event] == sc.DO_EXIT:
        context = max(context, INTERRUPT[event])
        depth[cpu] = max(depth[cpu] - 1, 0)
    return context if flagged < 0 else flagged


@kernel
def _odd_line(text: Text, at: int, start: int, end: int, st: Scan) -> int:
    """Count a line without a time: a lost-events marker, a header, part of a stack trace, a call graph, or damage."""
    for i in range(start, end):
        if _marked(text, i, end, LOST_MARK) or _marked(text, i, end, DROPPED_MARK):
            cpu = tk.decimal(text, tk.find(text, start, end, tk.COLON) + 1, end)[0]
            return _gap(text, tk.find(text, start, end, tk.BRACKET), end, min(cpu, ln.MAX_CPUS - 1), st)
    if _is_remark(text, at, start, end, st):
        st.counts[ln.SEEN_REMARK] += 1
        return 0
    _, stop = tk.decimal(text, start, end)
    if stop > start and stop < end and text[stop] == tk.CLOSE_PAREN:  # ` 1)   0.5 us    |  f();`
        st.counts[ln.SEEN_OTHER] += 1
        return 0
    return _bad(st)


@kernel
def _is_remark(text: Text, at: int, start: int, end: int, st: Scan) -> bool:
    """Whether a line without a time is one that programs print around events."""
    if st.counts[ln.SEEN_HTML] or _marked(text, start, end, FRAME):
        return True
    if text[at] == tk.TAB and (tk.digit(text[start]) >= 0 or text[start] in (tk.BRACKET, tk.PAREN)):
        return True  # a call chain of perf
    if _marked(text, start, end, CPU_MARK):  # CPU 2 is empty
        return tk.is_digit(text[start + MARK_LENGTH[CPU_MARK]]) if end > start + MARK_LENGTH[CPU_MARK] else False
    return (
        _marked(text, start, end, CPUS)
        or _marked(text, start, end, VERSION_MARK)
        or _marked(text, start, end, PERF_RECORD)
        or text[start] == tk.EQUALS
    )


@kernel
def _gap(text: Text, at: int, end: int, cpu: int, st: Scan) -> int:
    """Count a lost-events marker; the number lost is the first one from `at`. What the CPU was in is not known now."""
    while at < end and not tk.is_digit(text[at]):
        at += 1
    if st.counts[ln.SEEN_GAPS] < ln.KEPT:
        st.gaps[st.counts[ln.SEEN_GAPS]] = st.counts[ln.SEEN_LINES]
    st.counts[ln.SEEN_GAPS] += 1
    st.counts[ln.SEEN_LOST] += tk.decimal(text, at, end)[0]
    st.hard[cpu] = st.soft[cpu] = 0
    return 0


@kernel
def _bad(st: Scan) -> int:
    """Count a line that cannot be read."""
    if st.counts[ln.SEEN_BAD] < ln.KEPT:
        st.bad[st.counts[ln.SEEN_BAD]] = st.counts[ln.SEEN_LINES]
    st.counts[ln.SEEN_BAD] += 1
    return 0


@kernel
def _marked(text: Text, at: int, end: int, mark: int) -> bool:
    """Whether text[at:end] begins with one of the marks."""
    stop: int = at + MARK_LENGTH[mark]
    return stop <= end and tk.same(text, at, stop, MARK_TEXT[mark])
