"""What a file is that is no trace: named, with what to do, so that nobody has to guess."""

import re

_RECORD = "record one with `python -m kmemexp.trace record`"
_SNAPSHOT = (
    "a snapshot, not a trace: give it beside one, as PREFIX.before.{0} or PREFIX.after.{0} with --snapshots PREFIX"
)

BINARIES = {
    b"\x17\x08\x44tracing": "a binary trace.dat: turn it into text with `trace-cmd report -i {name} > trace.txt`",
    b"PERFILE2": "a binary perf.data: turn it into text with `perf script -i {name} > trace.txt`",
    b"PERFFILE": "a binary perf.data: turn it into text with `perf script -i {name} > trace.txt`",
    b"\xfd7zXZ": "compressed with xz: `xz -d` it first (gzip and zstd are read as they are)",
    b"BZh": "compressed with bzip2: `bunzip2` it first (gzip and zstd are read as they are)",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"\xc1\x1f\xfc\xc1": "a CTF trace, as LTTng writes it, which is not read: " + _RECORD,
    b"SQLite format 3": "an SQLite database: import the trace that it was made of",
}
"""By the first bytes."""

_PERF = "the events are in perf.data: `perf script` prints them"

TEXTS = (
    (rb"^slabinfo - version", "/proc/slabinfo: " + _SNAPSHOT.format("slabinfo")),
    (rb"^ *Active / Total Objects", "output of slabtop, a snapshot, not a trace: " + _RECORD),
    (rb"^ITEM +SIZE +LIMIT", "output of FreeBSD's `vmstat -z`, counts without events: " + _RECORD + " on Linux"),
    (rb"^ *Type +InUse +MemUse", "output of FreeBSD's `vmstat -m`, counts without events: " + _RECORD + " on Linux"),
    (rb"^Attaching \d+ probe", "output of bpftrace: print the tracepoints with ftrace, trace-cmd or perf instead"),
    (rb"^@\w*\[", "a map that bpftrace printed: print the tracepoints with ftrace, trace-cmd or perf instead"),
    (rb"^unreferenced object 0x", "a report of kmemleak, not a trace: " + _RECORD),
    (rb"^CPU +ID +FUNCTION:NAME", "output of DTrace, which is not read: " + _RECORD + " on Linux"),
    (rb"^(<\d+>)?\[ *\d+\.\d+\] ", "a kernel log (dmesg), not a trace: " + _RECORD),
    (rb"^MemTotal:", "/proc/meminfo: " + _SNAPSHOT.format("meminfo")),
    (rb"^Page block order:", "/proc/pagetypeinfo: " + _SNAPSHOT.format("pagetypeinfo")),
    (rb"^Node \d+, zone +\w+\n +per-node stats", "/proc/zoneinfo: " + _SNAPSHOT.format("zoneinfo")),
    (rb"^Node \d+, zone", "/proc/buddyinfo: " + _SNAPSHOT.format("buddyinfo")),
    (rb"^0x[0-9a-f]+-0x[0-9a-f]+ +\d+ ", "/proc/vmallocinfo: " + _SNAPSHOT.format("vmallocinfo")),
    (rb"^ *\d+\.\d+ .*kmem:\w+\(", "output of `perf trace`, which is not read: use `perf record` and `perf script`"),
    (rb"^SUMMARY \(SLAB allocator\)", "output of `perf kmem stat`: " + _PERF),
    (rb"^# To display the perf\.data header info", "a report of perf: " + _PERF),
    (rb'^\{ *"(traceEvents|systemTraceEvents)"', "a trace as JSON, which is not read: `traceconv systrace` makes text"),
    (rb"^execve\(|^\d+ +execve\(", "output of strace, which sees system calls only: " + _RECORD),
    (rb"^[\w/.-]+[/:]?\[?\w*\]?;.* \d+$", "folded stacks, whose events are gone: " + _RECORD),
)  # fmt: skip
"""By a line that begins so near the beginning of the text."""

_HTML = re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE)


def binary(begin: bytes, name: str) -> str:
    """Say what a file with these first bytes is; empty for none that is known."""
    for magic, text in BINARIES.items():
        if begin.startswith(magic):
            return text.format(name=name)
    return ""


def binary_data(begin: bytes) -> str:
    """Say what binary data without a known magic may be."""
    if begin.startswith(b"\x0a"):
        return "binary data, perhaps a Perfetto trace (`traceconv systrace FILE trace.txt` turns one into text)"
    if begin.startswith(b"\x7fELF"):
        return "binary data, an ELF file, not the text of a trace"
    return "binary data, not the text of a trace"


def text(beginning: bytes) -> str:
    """Say what a text without any known event is; empty if that is not known."""
    for pattern, what in TEXTS:
        if re.search(pattern, beginning, re.MULTILINE):
            return what
    return ""


def is_html(beginning: bytes) -> bool:
    """Whether this is a page, as systrace and Perfetto write with the text of a trace inside."""
    return _HTML.match(beginning.removeprefix(b"\xef\xbb\xbf")) is not None
