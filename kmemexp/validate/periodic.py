"""Periodic tasks on the engine: response-time analysis, and blocking under protocols of locking.

Responses and who ran when are read off the event log, exactly: programs take a spin lock for no time wherever the log
is to have a line. One unit of the textbooks' tables is 1 us. Joseph and Pandya 1986; Sha, Rajkumar and Lehoczky 1990.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kmemexp.boot import wiring
from kmemexp.sim.aliases import Shares, Words
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.tables import ctx, glob, lock, seen
from kmemexp.validate.bench import Bench, bench

UNIT = 1_000  # ns
NEVER_AGAIN = 10**15  # ns
HIGHEST = 29  # priority of the first task; the next ones have less by one each
Program = list[Mapping[str, Any]]
MARK: Program = [{"lock": "mark"}, {"unlock": "mark"}]
Task = tuple[int, int]
"""What a task takes and how often it comes, in units."""
Sections = Mapping[str, Sequence[tuple[str, int]]]
"""Of each task, from the highest priority to the lowest: locks and for how long, in the order of its program."""


def logged(machine: Bench, event: int, group: str = "") -> dict[str, Words]:
    """Times of an event (of one lock) in the log, by name of the context. Raises RuntimeError where it has run over."""
    rows = machine.wired.table("log")[: machine.count(glob.LOG)]
    if machine.count(glob.LOG) > len(machine.wired.table("log")):
        raise RuntimeError("the log is too short for this run")
    rows = rows[rows[:, 1] == event]
    if group:
        place = machine.wired.shape["locks"][0] + machine.wired.names.locks.index(group) * lock.COLUMNS
        rows = rows[rows[:, 3] == place]
    number = (rows[:, 2] - machine.wired.shape["contexts"][0]) // ctx.COLUMNS
    return {name: rows[number == i, 0] for i, name in enumerate(machine.wired.names.contexts)}


def responses(machine: Bench) -> dict[str, Shares]:
    """From raise to the mark that ends the program, by source, in units."""
    if machine.count(seen.LOST):
        raise RuntimeError("interrupts were lost")
    raised, marked = logged(machine, mc.LOG_RAISE), logged(machine, mc.LOG_TAKE, "mark")
    return {name: (times - raised[name][: len(times)]) / UNIT for name, times in marked.items() if len(times)}


def analysis(tasks: Sequence[Task], blocked: Sequence[int], jitter: Sequence[int], i: int) -> int:
    """Response of task i by its fixed point."""
    w, before = tasks[i][0], 0
    while w != before:
        before = w
        above = zip(tasks[:i], jitter[:i], strict=True)
        w = tasks[i][0] + blocked[i] + sum(math.ceil((w + j) / t) * c for (c, t), j in above)
    return w + jitter[i]


def periodic(tasks: Sequence[Task], blocking: int, *, jitter: Sequence[int] = (), seed: int | None = None) -> Bench:
    """Run periodic tasks, and below them something that is critical for a time.

    Without a seed from the critical instant: all are raised at once, as late as their jitter lets them, their next
    arrivals come in time, and the section has just begun. With one, phases, jitter and sections are random.
    """
    jitter = jitter or [0] * len(tasks)
    w = wiring.Wiring(cpus=2, log_rows=1 << 18, seed=seed or 0, depth=8)
    w.lock("section", "critical")
    w.lock("mark", "spin")
    longest = max(t for _, t in tasks)
    if blocking:
        section: Program = [{"lock": "section"}, {"work": blocking * UNIT}, {"unlock": "section"}]
        if seed is None:
            w.source("low", "task", section, law="periodic", period_ns=NEVER_AGAIN, phase_ns=0)
        else:
            w.source("low", "task", section, law="poisson", rate_hz=1e9 / (2 * longest * UNIT))
    if seed is None:
        kick = [{"raise": f"T{i}"} for i in range(len(tasks))]
        w.source("kick", "fast", kick, law="periodic", period_ns=NEVER_AGAIN, phase_ns=0, route=1)
    for i, (task, j) in enumerate(zip(tasks, jitter, strict=True)):
        _add(w, i, task, j, random=seed is not None)
    machine = bench(w)
    machine.run(20 * longest * UNIT)
    return machine


def _add(w: wiring.Wiring, i: int, task: Task, jitter: int, *, random: bool) -> None:
    """Add a periodic task; random jitter comes from a handler on another CPU that sleeps before it raises the task."""
    c, t = task
    program: Program = [{"work": c * UNIT}, *MARK]
    if jitter and random:
        w.source(f"clock{i}", "fast", [{"raise": f"late{i}"}], route=1, law="periodic", period_ns=t * UNIT)
        late: Program = [{"sleep": {"law": "uniform", "ns": jitter * UNIT // 2}}, {"raise": f"T{i}"}]
        w.source(f"late{i}", "device", late, route=1)
        w.source(f"T{i}", "device", program, priority=HIGHEST - i)
        return
    phase = -1 if random else (t - jitter) * UNIT
    w.source(f"T{i}", "device", program, priority=HIGHEST - i, law="periodic", period_ns=t * UNIT, phase_ns=phase)


PROTOCOLS = ("inheritance", "ceiling", "critical")


def _spec(protocol: str, sections: Sections, group: str) -> str:
    if protocol == "ceiling":
        highest = min(rank for rank, used in enumerate(sections.values()) if group in dict(used))
        return f"sleep+ceiling={HIGHEST - highest}"
    return {"inheritance": "sleep+inherit", "critical": "critical"}[protocol]


def bounds(sections: Sections, protocol: str) -> list[int]:
    """Longest time for which lower tasks may keep each one waiting.

    Inheritance: the lesser of two sums over the sections of lower tasks on locks that this or a higher task uses: the
    longest one by lock, and the longest one by task. Ceiling: the longest such section; critical: the longest of all.
    """
    names = list(sections)
    found = []
    for rank in range(len(names)):
        used = {group for name in names[: rank + 1] for group, _ in sections[name]}
        lower = {name: [(g, n) for g, n in sections[name] if g in used or protocol == "critical"]
                 for name in names[rank + 1 :]}  # fmt: skip
        every = [part for parts in lower.values() for part in parts]
        by_task = sum(max((n for _, n in parts), default=0) for parts in lower.values())
        by_lock = sum(max(n for g, n in every if g == group) for group in {g for g, _ in every})
        longest = max((n for _, n in every), default=0)
        found.append(min(by_task, by_lock) if protocol == "inheritance" else longest)
    return found


def with_locks(
    sections: Sections, periods: Mapping[str, int], protocol: str, phases: Mapping[str, int], *, gap: int = 0,
    units: int = 60,
) -> Bench:  # fmt: skip
    """Run tasks from their phases on; `gap`: work before each section and after the last. A mark ends each unit."""
    w = wiring.Wiring(log_rows=1 << 17)
    w.lock("mark", "spin")
    for group in sorted({group for used in sections.values() for group, _ in used}):
        w.lock(group, _spec(protocol, sections, group))
    step: Program = [{"work": UNIT}, *MARK]
    for name, phase in phases.items():  # a task that comes first in the list gets the CPU first
        program: Program = []
        for group, length in sections[name]:
            program += [*step * gap, {"lock": group}, *step * length, {"unlock": group}]
        when = {"law": "periodic", "period_ns": periods[name] * UNIT, "phase_ns": phase * UNIT}
        w.source(name, "device", [*program, *step * gap], priority=HIGHEST - list(sections).index(name), **when)
    machine = bench(w)
    machine.run(units * UNIT)
    return machine


def blocking(machine: Bench, sections: Sections, gap: int = 0) -> list[int]:
    """Per task the largest number of units for which lower ones ran while a job of it was in the system."""
    raised, marks = logged(machine, mc.LOG_RAISE), logged(machine, mc.LOG_TAKE, "mark")
    ran = np.full(machine.count(glob.NOW) // UNIT + 1, -1)
    nothing = np.zeros(0, np.int64)
    for rank, name in enumerate(sections):
        ran[marks.get(name, nothing) // UNIT - 1] = rank
    worst = []
    for rank, (name, used) in enumerate(sections.items()):
        gaps = (len(used) + 1) * gap
        length = sum(n for _, n in used) + gaps
        ends = marks.get(name, nothing)[length - 1 :: length]
        jobs = [ran[a // UNIT : e // UNIT] for a, e in zip(raised.get(name, nothing), ends, strict=False)]
        if any((job < 0).any() for job in jobs):
            raise RuntimeError("the CPU idles while there is work")
        worst.append(max((int((job > rank).sum()) for job in jobs), default=0))
    return worst


def inversion(spec: str, order: Sequence[str], hog: int) -> Bench:
    """A task of high priority whose lock one of low priority has, with a CPU hog between them; in order of arrival."""
    w = wiring.Wiring(log_rows=1 << 10)
    w.lock("mark", "spin")
    w.lock("zone", spec)
    programs: dict[str, tuple[int, Program]] = {
        "high": (HIGHEST, [{"lock": "zone"}, {"work": 2 * UNIT}, {"unlock": "zone"}]),
        "hog": (HIGHEST - 1, [{"work": hog * UNIT}]),
        "low": (HIGHEST - 2, [{"lock": "zone"}, {"work": 9 * UNIT}, {"unlock": "zone"}]),
    }
    for name in order:
        priority, program = programs[name]
        when = {"law": "periodic", "period_ns": NEVER_AGAIN, "phase_ns": 0}
        w.source(name, "device", [*program, *MARK], priority=priority, **when)
    machine = bench(w)
    machine.run(10_000 * UNIT)
    return machine
