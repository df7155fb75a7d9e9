"""The engine as a scheduler: response-time analysis (Q3), blocking under lock protocols (Q4).

Responses and who ran when are read off the event log, exactly: programs take a spin lock for no time wherever the log
is to have a line. One unit of the textbook's tables is 1 us.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from sim.test_engine_queues import assert_books_balance

from kmemexp.boot import wiring
from kmemexp.lane.latency import LOWER
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.tables import ctx, glob, lock, seen
from kmemexp.validate.bench import Bench, bench

UNIT = 1_000  # ns
NEVER_AGAIN = 10**15  # ns
HIGHEST = 29  # priority of the first task; the next ones have less by one each
MARK = [{"lock": "mark"}, {"unlock": "mark"}]


def logged(machine: Bench, event: int, group: str = "") -> dict[str, np.ndarray]:
    """Times of an event (of one lock) in the log, by name of the context."""
    rows = machine.wired.table("log")[: machine.count(glob.LOG)]
    assert machine.count(glob.LOG) <= len(machine.wired.table("log"))
    rows = rows[rows[:, 1] == event]
    if group:
        place = machine.wired.shape["locks"][0] + machine.wired.names.locks.index(group) * lock.COLUMNS
        rows = rows[rows[:, 3] == place]
    number = (rows[:, 2] - machine.wired.shape["contexts"][0]) // ctx.COLUMNS
    return {name: rows[number == i, 0] for i, name in enumerate(machine.wired.names.contexts)}


def responses(machine: Bench) -> dict[str, np.ndarray]:
    """From raise to the mark that ends the program, by source, in units."""
    assert machine.count(seen.LOST) == 0
    raised, marked = logged(machine, mc.LOG_RAISE), logged(machine, mc.LOG_TAKE, "mark")
    return {name: (times - raised[name][: len(times)]) / UNIT for name, times in marked.items() if len(times)}


# Q3. Tasks are (C, T) from the highest priority to the lowest.

SMALL, TIGHT = ((3, 7), (3, 12), (5, 20)), ((1, 4), (2, 6), (3, 13))
IRQS = ((5, 100), (8, 250), (20, 1000), (50, 2000), (200, 5000))
Q3 = {  # name: tasks, B, J, R
    "small": (SMALL, (0, 0, 0), (0, 0, 0), (3, 6, 20)),
    "small, blocked": (SMALL, (2, 2, 0), (0, 0, 0), (5, 11, 20)),
    "small, jitter": (SMALL, (0, 0, 0), (1, 0, 0), (4, 6, 20)),
    "tight": (TIGHT, (0, 0, 0), (0, 0, 0), (1, 3, 10)),
    "irqs": (IRQS, (12, 12, 12, 30, 0), (0,) * 5, (17, 25, 45, 118, 306)),
    "irqs, jitter": (IRQS, (12, 12, 12, 30, 0), (0, 10, 20, 30, 40), (17, 35, 65, 148, 346)),
}


def analysis(tasks: Sequence, blocked: Sequence[int], jitter: Sequence[int], i: int) -> int:
    """Response of task i by its fixed point."""
    w, before = tasks[i][0], 0
    while w != before:
        before = w
        above = zip(tasks[:i], jitter[:i], strict=True)
        w = tasks[i][0] + blocked[i] + sum(math.ceil((w + j) / t) * c for (c, t), j in above)
    return w + jitter[i]


def periodic(tasks: Sequence, blocking: int, *, jitter: Sequence[int] = (), seed: int | None = None) -> Bench:
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
        section = [{"lock": "section"}, {"work": blocking * UNIT}, {"unlock": "section"}]
        when = {"law": "periodic", "period_ns": NEVER_AGAIN, "phase_ns": 0}
        if seed is not None:
            when = {"law": "poisson", "rate_hz": 1e9 / (2 * longest * UNIT)}
        w.source("low", "task", section, **when)
    if seed is None:
        kick = [{"raise": f"T{i}"} for i in range(len(tasks))]
        w.source("kick", "fast", kick, law="periodic", period_ns=NEVER_AGAIN, phase_ns=0, route=1)
    for i, ((c, t), j) in enumerate(zip(tasks, jitter, strict=True)):
        when = {"law": "periodic", "period_ns": t * UNIT, "phase_ns": (t - j) * UNIT if seed is None else -1}
        own = {"priority": HIGHEST - i}
        if j and seed is not None:  # on another CPU, a clock's handler calls one that sleeps before it raises the task
            w.source(f"clock{i}", "fast", [{"raise": f"late{i}"}], route=1, **when)
            late = [{"sleep": {"law": "uniform", "ns": j * UNIT // 2}}, {"raise": f"T{i}"}]
            w.source(f"late{i}", "device", late, route=1)
            when = {}
        w.source(f"T{i}", "device", [{"work": c * UNIT}, *MARK], **own, **when)
    machine = bench(w)
    machine.run(20 * longest * UNIT)
    assert_books_balance(machine)
    return machine


@pytest.mark.parametrize("row", Q3)
def test_the_critical_instant_gives_the_response_of_the_analysis(row) -> None:
    tasks, blocked, jitter, expected = Q3[row]
    for i, r in enumerate(expected):
        machine = periodic(tasks, blocked[i], jitter=jitter)
        found = responses(machine)[f"T{i}"]
        assert analysis(tasks, blocked, jitter, i) == r
        assert found[0] + jitter[i] == r
        assert found.max() + jitter[i] == r
        top = machine.histogram(f"irq_T{i}_done").nonzero()[0][-1]
        assert LOWER[top] <= (r - jitter[i]) * UNIT < LOWER[top + 1]


@pytest.mark.parametrize("row", Q3)
def test_no_phases_make_a_response_longer_than_the_analysis_says(row) -> None:
    tasks, blocked, jitter, expected = Q3[row]
    for seed in range(10):
        for i, r in enumerate(expected):
            found = responses(periodic(tasks, blocked[i], jitter=jitter, seed=seed))[f"T{i}"]
            assert tasks[i][0] <= found.min()
            assert found.max() <= r - jitter[i]


def test_responses_of_random_tasks_are_those_of_the_analysis() -> None:
    rng = np.random.default_rng(6)
    tried = 0
    while tried < 40:
        tasks = [(int(rng.integers(1, 9)), int(t)) for t in np.sort(rng.integers(10, 90, 4))]
        none = [0] * len(tasks)
        if sum(c / t for c, t in tasks) > 0.9 or any(analysis(tasks, none, none, i) > tasks[i][1] for i in range(4)):
            continue
        tried += 1
        found = responses(periodic(tasks, 0))
        assert [found[f"T{i}"].max() for i in range(4)] == [analysis(tasks, none, none, i) for i in range(4)]


# Q4. Sections of each task, in the order of its program; no task holds two locks.

SECTIONS = {
    "T1": (("zone", 2), ("mbuf", 1)),
    "T2": (("mbuf", 2), ("kmap", 3)),
    "T3": (("zone", 9), ("mbuf", 6)),
    "T4": (("kmap", 15), ("zone", 4)),
}
PERIODS = {"T1": 97, "T2": 131, "T3": 211, "T4": 307}
NAMES = list(SECTIONS)
PROTOCOLS = {
    "inheritance": dict.fromkeys(("zone", "kmap", "mbuf"), "sleep+inherit"),
    "ceiling": {"zone": "sleep+ceiling=29", "kmap": "sleep+ceiling=28", "mbuf": "sleep+ceiling=29"},
    "critical": dict.fromkeys(("zone", "kmap", "mbuf"), "critical"),
}
BOUNDS = {"inheritance": (15, 24, 15, 0), "ceiling": (9, 15, 15, 0), "critical": (15, 15, 15, 0)}


def tasks_with_locks(protocol: str, phases: Mapping[str, int], *, gap: int = 0, units: int = 60) -> Bench:
    """Run tasks from their phases on; `gap`: work before each section and after the last. A mark ends each unit."""
    w = wiring.Wiring(log_rows=1 << 17)
    w.lock("mark", "spin")
    for name, spec in PROTOCOLS[protocol].items():
        w.lock(name, spec)
    step = [{"work": UNIT}, *MARK]
    for name, phase in phases.items():  # a task that comes first in the list gets the CPU first
        program = []
        for group, length in SECTIONS[name]:
            program += [*step * gap, {"lock": group}, *step * length, {"unlock": group}]
        when = {"law": "periodic", "period_ns": PERIODS[name] * UNIT, "phase_ns": phase * UNIT}
        w.source(name, "device", [*program, *step * gap], priority=HIGHEST - NAMES.index(name), **when)
    machine = bench(w)
    machine.run(units * UNIT)
    assert machine.count(seen.LOST) == machine.count(seen.DEADLOCKS) == 0
    assert_books_balance(machine)
    return machine


def blocking(machine: Bench, gap: int = 0) -> list[int]:
    """Per task the largest number of units for which lower ones ran while a job of it was in the system."""
    raised, marks = logged(machine, mc.LOG_RAISE), logged(machine, mc.LOG_TAKE, "mark")
    ran = np.full(machine.count(glob.NOW) // UNIT + 1, -1)
    for rank, name in enumerate(NAMES):
        assert (marks.get(name, np.zeros(1)) % UNIT == 0).all()
        ran[marks.get(name, np.zeros(0, int)) // UNIT - 1] = rank
    worst = []
    for rank, name in enumerate(NAMES):
        length = sum(n for _, n in SECTIONS[name]) + 3 * gap
        ends = marks.get(name, np.zeros(0, int))[length - 1 :: length]
        jobs = [ran[a // UNIT : e // UNIT] for a, e in zip(raised.get(name, ()), ends, strict=False)]
        assert all((job >= 0).all() for job in jobs)  # the CPU never idles while there is work
        worst.append(max((int((job > rank).sum()) for job in jobs), default=0))
    return worst


@pytest.mark.parametrize("protocol", ["inheritance", "ceiling", "critical"])
def test_blocking_stays_below_the_bound_of_the_protocol(protocol) -> None:
    rng = np.random.default_rng(8)
    worst = np.zeros(len(NAMES), int)
    for _ in range(20):
        phases = {name: int(rng.integers(PERIODS[name])) for name in NAMES}
        machine = tasks_with_locks(protocol, phases, gap=1, units=30_000)
        worst = np.maximum(worst, blocking(machine, gap=1))
        assert (machine.count(seen.CONTENDED) > 0) == (protocol == "inheritance")
    assert (worst <= BOUNDS[protocol]).all()
    assert (worst[:3] > 0).all()


@pytest.mark.parametrize(
    ("protocol", "order", "expected"),
    [
        # All arrive at once, each when the one before has just taken its first lock.
        ("ceiling", ("T4", "T3", "T2", "T1"), {"T2": 15, "T3": 15}),
        ("ceiling", ("T3", "T2", "T1"), {"T1": 9, "T2": 9}),
        ("critical", ("T4", "T3", "T2", "T1"), {"T1": 15, "T2": 15, "T3": 15}),
        ("inheritance", ("T4", "T2", "T3"), {"T2": 15, "T3": 15}),
        ("inheritance", ("T4", "T3", "T2", "T1"), {"T1": 11, "T2": 24, "T3": 15}),
    ],
)
def test_the_worst_case_that_the_sections_allow_is_reached(protocol, order, expected) -> None:
    worst = dict(zip(NAMES, blocking(tasks_with_locks(protocol, dict.fromkeys(order, 0))), strict=True))
    assert {name: worst[name] for name in expected} == expected


def inversion(spec: str, order: Sequence[str], hog: int) -> float:
    """Response of a task of high priority whose lock one of low priority has, with a CPU hog between them."""
    w = wiring.Wiring(log_rows=1 << 10)
    w.lock("mark", "spin")
    w.lock("zone", spec)
    programs = {
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
    assert_books_balance(machine)
    return float(responses(machine)["high"][0])


@pytest.mark.parametrize("order", [("low", "high", "hog"), ("low", "hog", "high")])
@pytest.mark.parametrize("hog", [10, 100, 1000])
def test_without_inheritance_a_hog_blocks_for_as_long_as_it_likes(order, hog) -> None:
    assert inversion("sleep", order, hog) == 2 + 9 + hog


@pytest.mark.parametrize(
    ("spec", "order"),
    [
        ("sleep+inherit", ("low", "high", "hog")),
        ("sleep+inherit", ("low", "hog", "high")),
        ("sleep+ceiling=29", ("low", "high", "hog")),
        ("sleep+ceiling=29", ("low", "hog", "high")),
        ("critical", ("low", "hog", "high")),
    ],
)
@pytest.mark.parametrize("hog", [10, 100, 1000])
def test_with_inheritance_or_a_ceiling_a_hog_does_not_block(spec, order, hog) -> None:
    assert inversion(spec, order, hog) == 2 + 9


@pytest.mark.parametrize("spec", ["sleep+fifo", "sleep+fifo+ceiling=29"])
def test_a_ceiling_ends_with_its_section(spec) -> None:
    """A low task gets its lock from another CPU while a middle one runs, which waits for the section and no longer."""
    w = wiring.Wiring(cpus=2, log_rows=1 << 10)
    w.lock("mark", "spin")
    w.lock("zone", spec)
    section = [{"lock": "zone"}, {"work": 5 * UNIT}, {"unlock": "zone"}]
    programs = [
        ("other", 29, 0, 1, [{"lock": "zone"}, {"work": 20 * UNIT}, {"unlock": "zone"}]),
        ("low", 26, 5, 0, [*section, {"work": 900 * UNIT}]),
        ("middle", 28, 10, 0, [{"work": 30 * UNIT}]),
    ]
    for name, priority, at, cpu, program in programs:
        when = {"law": "periodic", "period_ns": NEVER_AGAIN, "phase_ns": at * UNIT}
        w.source(name, "device", [*program, *MARK], priority=priority, route=cpu, **when)
    machine = bench(w)
    machine.run(10_000 * UNIT)
    assert responses(machine)["middle"][0] == (35 if "ceiling" in spec else 30)
