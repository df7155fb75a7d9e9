"""What had begun, or was due, and had not ended when a lane ended: it counts, though nobody knows how long it takes.

Of each operation, interrupt and wait that is open the time so far is known, which is the least that it can come to; of
an operation whose turn has not come, nothing. A quantile that these could change is not given (`latency.quantile`).
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from kmemexp.boot.timed import Timed
from kmemexp.jit import entry
from kmemexp.sim import probes as a
from kmemexp.sim.engine import contexts as cx
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine import programs
from kmemexp.sim.engine.machine import E_TIME
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, seen, src, stage
from kmemexp.sim.ops import ALLOC, FREE

KINDS = ("main", "soft", "device", "fast")
VERBS = {ALLOC: "alloc", FREE: "free"}
LATE_RATIO, LATE_NS = 0.05, 10_000_000
"""By how much a load that is kept up with may end after its last operation is due."""
LOST_RATIO = 0.01
UPPER = a.bucket_bounds()[1]


def settle(t: Timed) -> None:
    """Account each CPU's time up to the end."""
    for c in t.wired.place("cpus", np.arange(t.wired.m[glob.CPUS])).tolist():
        entry(cx.charge)(t.wired.m, c)


def waited_ns(t: Timed) -> int:
    """Time waited for locks, by those who still wait too."""
    m = t.wired.m
    return int(m[seen.WAIT_AREA] + m[seen.WAITING] * (m[glob.NOW] - m[seen.WAIT_AT]))


def saturated(t: Timed) -> bool:
    """Whether the machine could not keep up with an open load, or with its interrupts."""
    m = t.wired.m
    if m[seen.LOST] > LOST_RATIO * m[seen.INTERRUPTS]:
        return True
    if m[glob.CLOSED] or not len(t.stream.time) or m[glob.EXIT] == mc.E_DEADLOCK:
        return False
    if m[glob.LEFT] > 0:
        return bool(m[glob.EXIT] == E_TIME)
    return bool(m[seen.ENDED_AT] > int(t.stream.time.max()) * (1 + LATE_RATIO) + LATE_NS)


def open_at_end(t: Timed) -> dict[str, np.ndarray]:
    """Histograms of the least that what is open can come to, int64[BUCKETS], by the names of `latency.histograms`."""
    found: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(a.BUCKETS, np.int64))
    now = int(t.wired.m[glob.NOW])
    for name, since in (*_operations(t), *_interrupts(t), *_waits(t)):
        found[name][np.searchsorted(UPPER, max(now - since, 0), side="right")] += 1
    for name, number in _backlog(t):
        found[name][0] += number
    return dict(found)


def _operations(t: Timed) -> Iterator[tuple[str, int]]:
    """Operations in progress: name, since when."""
    for row in t.wired.table("contexts").tolist():
        at = row[ctx.STAGE] & (stage.RETRY - 1)
        at = row[ctx.AFTER] if at in (stage.AGAIN, stage.TOKEN) else at
        if row[ctx.STATE] != cx.IDLE and at > stage.NEXT and row[ctx.ROW] >= 0 and row[ctx.FREEING] in VERBS:
            yield f"{VERBS[row[ctx.FREEING]]}_{KINDS[row[ctx.KIND]]}", row[ctx.BEGAN]


def _interrupts(t: Timed) -> Iterator[tuple[str, int]]:
    """Interrupts in the system: name, since when; of those whose handler has not begun, the wait for that too."""
    m, depth = t.wired.m, int(t.wired.m[glob.DEPTH])
    sources = t.wired.table("sources")
    for row in t.wired.table("contexts"):
        if row[ctx.SOURCE] < 0 or row[ctx.STATE] == cx.IDLE:
            continue
        number = (row[ctx.SOURCE] - t.wired.shape["sources"][0]) // src.COLUMNS
        if row[ctx.KIND] == mc.MAIN and sources[number, src.LAW] == programs.NONE:
            continue
        name = f"irq_{t.wired.names.sources[number]}"
        yield f"{name}_done", int(row[ctx.RAISED])
        if row[ctx.STAGE] == stage.START:
            yield f"{name}_start", int(row[ctx.RAISED])
        for raised in m[row[ctx.RING] + (row[ctx.QHEAD] + np.arange(row[ctx.QLEN])) % depth].tolist():
            yield f"{name}_start", raised
            yield f"{name}_done", raised


def _waits(t: Timed) -> Iterator[tuple[str, int]]:
    """Waits for locks: name, since when."""
    for row in t.wired.table("contexts")[:, [ctx.WAIT, ctx.SINCE]].tolist():
        if row[0] >= 0:
            yield f"wait_{t.wired.names.lock_classes[t.wired.m[row[0] + lock.CLASS]]}", row[1]


def _backlog(t: Timed) -> Iterator[tuple[str, int]]:
    """Operations of an open stream that are due and have not begun: name, how many."""
    if t.wired.m[glob.CLOSED]:
        return
    cpus, contexts = t.wired.table("cpus"), t.wired.table("contexts")
    recorded = contexts[contexts[:, ctx.PROG] == cx.RECORDED]
    queues = [(mc.MAIN, *row) for row in cpus[:, [cpu.OP, cpu.END]].tolist()]
    queues += [tuple(row) for row in recorded[:, [ctx.KIND, ctx.PC, ctx.BURST]].tolist()]
    for kind, begin, end in queues:
        rest = t.stream.order[begin:end]
        due = rest[t.stream.time[begin:end] <= t.wired.m[glob.NOW]]
        for op, verb in VERBS.items():
            if number := int((t.stream.op[due] == op).sum()):
                yield f"{verb}_{KINDS[kind]}", number
