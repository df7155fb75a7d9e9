"""Hand-written trace lines for the tests, in the forms of the three programs."""

import re

import numpy as np

from kmemexp.workload.traces import lines as ln
from kmemexp.workload.traces import live, text, track
from kmemexp.workload.traces import schema as sc


def ftrace(event, fields, *, time="1.000001", cpu=0, flags="....."):
    return f"task-12    [{cpu:03}] {flags} {time:>12}: {event}: {fields}\n"


def kmalloc(ptr, size=100, *, allocated=128, gfp="GFP_KERNEL", **head):
    fields = f"call_site=f+0x1/0x2 ptr={ptr:016x} bytes_req={size} bytes_alloc={allocated} gfp_flags={gfp} node=-1"
    return ftrace("kmalloc", fields, **head)


def cache_alloc(ptr, name="filp", size=184, *, allocated=192, gfp="GFP_KERNEL", **head):
    fields = (
        f"call_site=f+0x1/0x2 ptr={ptr:016x} name={name} bytes_req={size} bytes_alloc={allocated} gfp_flags={gfp} "
        "node=-1 accounted=false"
    )
    return ftrace("kmem_cache_alloc", fields, **head)


def kfree(ptr, **head):
    return ftrace("kfree", f"call_site=g+0x1/0x2 ptr={ptr:016x}", **head)


def cache_free(ptr, name="filp", **head):
    return ftrace("kmem_cache_free", f"call_site=g+0x1/0x2 ptr={ptr:016x} name={name}", **head)


def as_trace_cmd(line):
    """The same line as `trace-cmd report` prints it: no flags, wide columns, 0x pointers."""
    head, event, fields = re.fullmatch(r"(.*?): (\w+): (.*)\n", line).groups()
    task, cpu, _, time = head.split()
    fields = re.sub(r"ptr=(\w+)", lambda m: f"ptr={int(m[1], 16):#x}", fields)
    return f"{task:>22} {cpu} {time:>14}: {event + ':':<20} {fields}\n"


def as_perf(line):
    """The same line as `perf script` prints it: group:event, (nil) for null."""
    head, event, fields = re.fullmatch(r"(.*?): (\w+): (.*)\n", line).groups()
    _, cpu, _, time = head.split()
    group = next(e.group for e in sc.EVENTS if e.name == event)
    fields = re.sub(r"ptr=(\w+)", lambda m: f"ptr={int(m[1], 16):#x}" if int(m[1], 16) else "ptr=(nil)", fields)
    return f" my task 12 {cpu} {time:>12}: {group + ':' + event:>28}: {fields}\n"


def read(trace):
    """Rows and scanner state of a text, without a file."""
    scan = ln.scanner()
    data = np.frombuffer(trace.encode(), np.uint8)
    lines = ln.columns(trace.count("\n"))
    count = text.scan(data, len(data), lines, scan)
    rows = track.rows(2 * count)
    n = track.track(lines, count, live.table(track.FIELDS), live.table(track.FIELDS), track.nothing(), rows)
    return track.Rows(*(c[:n] for c in rows)), scan


def ops(trace):
    """Names of the operations of a text."""
    return [sc.OPS[op] for op in read(trace)[0].op]
