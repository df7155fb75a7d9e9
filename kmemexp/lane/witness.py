"""Deadlocks in words: who waits for what, since when, and what led there."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kmemexp.boot import layout
from kmemexp.sim.engine import contexts as cx
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.tables import ctx, glob, seen, stage, witness
from kmemexp.sim.engine.waitgraph import STALL

STAGES = {
    stage.START: "entering", stage.NEXT: "running its program", stage.BEGIN: "beginning an operation",
    stage.LOCK: "in an allocator", stage.STEP: "in an allocator", stage.STEPPED: "in an allocator",
    stage.CALL: "in a map", stage.MAP: "in a map", stage.DONE: "ending an operation", stage.AGAIN: "waking up",
    stage.TOKEN: "waking up",
    stage.RELOCK: "waiting for memory", stage.ASLEEP: "waiting for an object",
}  # fmt: skip
EVENTS = {
    mc.LOG_RAISE: "interrupt raised", mc.LOG_RUN: "handler begins", mc.LOG_TAKE: "takes {lock}",
    mc.LOG_RELEASE: "releases {lock}", mc.LOG_WAIT: "spins for {lock}, held by {other}",
    mc.LOG_GRANT: "is given {lock} after {b} ns", mc.LOG_BLOCK: "sleeps for {lock}, held by {other}",
    mc.LOG_OP: "{verb} begins", mc.LOG_DONE: "{ended} after {b} ns", mc.LOG_MEMORY: "sleeps for memory",
    mc.LOG_DEADLOCK: "closes the circle: DEADLOCK", mc.LOG_WOULD_SLEEP: "would sleep, which it must not",
    mc.LOG_SELF: "asks for {lock}, which it holds itself", mc.LOG_ENTER: "enters a section",
    mc.LOG_LEAVE: "leaves a section", mc.LOG_PAGES: "{moves} {a} pages", mc.LOG_SHOOTDOWN: "flushes the TLBs",
    mc.LOG_OBJECT: "sleeps until something is freed",
}  # fmt: skip
SPANS = {
    mc.LOG_TAKE: ("holds", ("waits",)), mc.LOG_GRANT: ("holds", ("waits",)), mc.LOG_RELEASE: ("", ("holds",)),
    mc.LOG_WAIT: ("waits", ("waits",)), mc.LOG_BLOCK: ("waits", ("waits",)), mc.LOG_SELF: ("waits", ()),
}  # fmt: skip
"""What an event begins for its context and its lock, and what it ends."""
STATES = ("idle", "running", "preempted", "ready", "blocked", "spinning")
WAITS = {cx.MEMORY: "memory", cx.HANDLER: "an interrupt", cx.TIMER: "a time", cx.PAGER: "work",
         cx.ANSWER: "the answer of a CPU to a TLB shootdown",
         cx.OBJECT: "an object", cx.OBJECT_FOR: "an object"}  # fmt: skip


def members(wired: layout.Wired, number: int = 0) -> list[dict[str, object]]:
    """Return what each member of a deadlock holds and wants: one dict per context, in the order of the circle."""
    rows = wired.table("witness")[: wired.m[seen.WITNESS]]
    return [
        {
            "context": who(wired, row[witness.CONTEXT]),
            "cpu": _cpu(wired, row[witness.CPU]),
            "state": STATES[row[witness.STATE]],
            "waits_for": _wait(wired, row),
            "since_ns": row[witness.SINCE] if row[witness.STATE] in (cx.BLOCKED, cx.SPINNING) else None,
            "holds": _lock(wired, row[witness.HELD]) if row[witness.HELD] >= 0 else None,
            "holds_since_ns": row[witness.TAKEN] if row[witness.HELD] >= 0 else None,
            "doing": STAGES.get(row[witness.STAGE] & (stage.RETRY - 1), "?"),
            "operation": row[witness.OP] if row[witness.OP] >= 0 else None,
            "at_ns": row[witness.AT],
        }
        for row in rows[rows[:, witness.DEADLOCK] == number].tolist()
    ]


def summary(wired: layout.Wired) -> str:
    """The first deadlock in one line, or else the first CPU without progress; empty if there was neither."""
    if circle := members(wired):
        return "; ".join(_told(m) for m in circle)
    stalled = members(wired, STALL)
    return "no progress: " + "; ".join(_told(m) for m in stalled) if stalled else ""


def _told(m: dict[str, object]) -> str:
    holds = f" holding {m['holds']}" if m["holds"] else ""
    does = f"is {m['state']}" if m["waits_for"] == "nothing" else f"waits for {m['waits_for']}"
    return f"{m['context']} on CPU {m['cpu']}{holds} {does}"


def timeline(wired: layout.Wired, last: int = 40) -> Iterator[str]:
    """The last events before the end of the run, one line each: time, CPU, context, what happened."""
    for time, event, x, a, b in _logged(wired)[-last:]:
        cpu = _cpu(wired, wired.m[x + ctx.CPU])
        yield f"{time:>16,} ns  CPU {cpu:<3} {who(wired, x):<20} {_event(wired, event, a, b)}"


def tracks(wired: layout.Wired) -> list[dict[str, Any]]:
    """Spans in which a context held or waited for a lock, of those in the circle, among the events in the log.

    Each has context, cpu, kind ("holds" | "waits"), lock, begin_ns, end_ns and open: whether it had not ended.
    """
    wanted = {str(m["context"]) for m in members(wired)}
    open_spans: dict[tuple[str, str, str], dict[str, Any]] = {}
    spans = []
    end = 0
    for time, event, x, a, _ in _logged(wired):
        end, name = time, who(wired, x)
        if event not in SPANS or name not in wanted:
            continue
        lock, cpu = _lock(wired, a), _cpu(wired, wired.m[x + ctx.CPU])
        begins, ends = SPANS[event]
        ended = (open_spans.pop((name, kind, lock), None) for kind in ends)
        spans += [span | {"end_ns": time, "open": False} for span in ended if span]
        if begins:
            open_spans[name, begins, lock] = {
                "context": name, "cpu": cpu, "kind": begins, "lock": lock, "begin_ns": time
            }  # fmt: skip
    return spans + [span | {"end_ns": end, "open": True} for span in open_spans.values()]


def _logged(wired: layout.Wired) -> list[list[int]]:
    """Rows of the log in their order."""
    log, count = wired.table("log"), int(wired.m[glob.LOG])
    rows: list[list[int]] = (np.roll(log, -(count % len(log)), axis=0) if count > len(log) else log[:count]).tolist()
    return rows


def who(wired: layout.Wired, x: int) -> str:
    """Name of a context."""
    at, _, width = wired.shape["contexts"]
    return wired.names.contexts[(x - at) // width]


def _event(wired: layout.Wired, event: int, a: int, b: int) -> str:
    values = {
        "a": f"{abs(a):,}",
        "moves": "takes" if a > 0 else "gives back",
        "b": f"{b:,}",
        "verb": "free" if a else "alloc",
        "ended": "FAILED" if a == 1 else "done",
    }
    if event in (mc.LOG_TAKE, mc.LOG_RELEASE, mc.LOG_WAIT, mc.LOG_GRANT, mc.LOG_BLOCK, mc.LOG_SELF):
        values["lock"] = _lock(wired, a)
    if event in (mc.LOG_WAIT, mc.LOG_BLOCK):
        values["other"] = _holder(wired, b)
    return EVENTS[event].format(**values)


def _holder(wired: layout.Wired, place: int) -> str:
    at, rows, width = wired.shape["contexts"]
    if at <= place < at + rows * width:
        return who(wired, place)
    return f"CPU {_cpu(wired, place)}"


def _lock(wired: layout.Wired, place: int) -> str:
    at, _, width = wired.shape["locks"]
    return wired.names.locks[(place - at) // width]


def _cpu(wired: layout.Wired, place: int) -> int:
    at, _, width = wired.shape["cpus"]
    return (place - at) // width


def _wait(wired: layout.Wired, row: list[int]) -> str:
    """What a member waits for, and whom that makes it wait for."""
    other = f" ({who(wired, row[witness.FOR])})" if row[witness.FOR] >= 0 else ""
    if row[witness.STATE] in (cx.PREEMPTED, cx.READY):
        return f"its CPU{other}"
    wait = row[witness.WAIT]
    if wait >= 0:
        return _lock(wired, wait) + other
    return WAITS.get(wait, "nothing") + other
