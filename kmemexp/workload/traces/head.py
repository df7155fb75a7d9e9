"""What stands before the event in a line: task, CPU, flags, time, of ftrace, trace-cmd, perf and Perfetto."""

from kmemexp.jit import kernel
from kmemexp.workload.traces import lines as ln
from kmemexp.workload.traces import tokens as tk
from kmemexp.workload.traces.lines import Scan
from kmemexp.workload.traces.tokens import Text


@kernel
def read(text: Text, at: int, end: int, st: Scan) -> tuple[int, int, int, int]:
    """Read `… [cpu] (flags) seconds: (period)`. Returns (cpu, context or -1, ns, where the event begins or -1)."""
    for i in range(at, end):
        if text[i] != tk.BRACKET:
            continue
        cpu, j = tk.decimal(text, i + 1, end)
        if j == i + 1 or j >= end or text[j] != tk.CLOSE or cpu >= ln.MAX_CPUS:
            continue
        j = tk.skip(text, j + 1, end)
        context = -1
        if j < end and not tk.is_digit(text[j]):
            stop = tk.token(text, j, end)
            if stop - j < 3:
                continue
            context = tk.flag(text[j + 2])
            j = tk.skip(text, stop, end)
        time_ns, j = _time(text, j, end, st)
        if j < 0:
            continue
        j = _before_event(text, j, end)
        if j < end:
            return cpu, context, time_ns, j
    return _without_brackets(text, at, end, st)


@kernel
def _time(text: Text, at: int, end: int, st: Scan) -> tuple[int, int]:
    """Read a time, of a clock or of a counter. Returns (ns, end or -1)."""
    time_ns, stop = tk.seconds(text, at, end)
    if stop < 0:
        time_ns, stop, counter = tk.ticks(text, at, end)
        if stop >= 0:
            st.counts[ln.SEEN_TICKS] += counter
    return time_ns, stop


@kernel
def _before_event(text: Text, at: int, end: int) -> int:
    """Pass over what some programs put between time and event: perf's sample period, trace-cmd's difference."""
    at = tk.skip(text, at, end)
    _, stop = tk.decimal(text, at, end)
    if stop > at and stop < end and text[stop] == tk.SPACE:
        return tk.skip(text, stop, end)
    if end - at > 2 and text[at] == tk.PAREN and text[at + 1] == tk.PLUS:
        return tk.skip(text, tk.find(text, at, end, tk.CLOSE_PAREN) + 1, end)
    return at


@kernel
def _without_brackets(text: Text, at: int, end: int, st: Scan) -> tuple[int, int, int, int]:
    """Read `… 0d.h1 seconds:` of latency layouts, or a line without a CPU. Returns what `read` returns."""
    before, before_end = at, at
    while at < end:
        stop = tk.token(text, at, end)
        time_ns, after = tk.seconds(text, at, stop)
        if after < 0 and tk.is_digit(text[at]):
            time_ns, after, counter = tk.ticks(text, at, min(end, stop + 4))
            if counter:
                after = -1
        if after >= 0 and before_end > before:
            event = _before_event(text, after, end)
            if event < end:
                cpu, flags = tk.decimal(text, before, before_end)
                if flags > before and before_end - flags in (4, 5, 6, 7) and cpu < ln.MAX_CPUS:
                    return cpu, tk.flag(text[flags + 2]), time_ns, event
                st.counts[ln.SEEN_NO_CPU] += 1
                return 0, -1, time_ns, event
        before, before_end = at, stop
        at = tk.skip(text, stop, end)
    return 0, -1, 0, -1
