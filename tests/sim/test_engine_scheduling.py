"""The engine as a scheduler: response-time analysis (Q3), blocking under lock protocols (Q4).

Responses and who ran when are read off the event log, exactly: programs take a spin lock for no time wherever the log
is to have a line. One unit of the textbook's tables is 1 us.
"""

import numpy as np
import pytest
from sim.test_engine_queues import assert_books_balance

from kmemexp.boot import wiring
from kmemexp.lane.latency import LOWER
from kmemexp.sim.engine.tables import seen
from kmemexp.validate.bench import bench
from kmemexp.validate.checks.queues import PERIODS, SECTIONS
from kmemexp.validate.periodic import (
    MARK,
    NEVER_AGAIN,
    PROTOCOLS,
    UNIT,
    analysis,
    blocking,
    bounds,
    inversion,
    periodic,
    responses,
    with_locks,
)

# Q3. Tasks are (C, T) from the highest priority to the lowest.

SMALL, TIGHT = ((3, 7), (3, 12), (5, 20)), ((1, 4), (2, 6), (3, 13))
IRQS = ((5, 100), (8, 250), (20, 1000), (50, 2000), (200, 5000))
FOUR = ((10, 60), (15, 90), (20, 210), (40, 500))
Q3 = {  # name: tasks, B, J, R
    "small": (SMALL, (0, 0, 0), (0, 0, 0), (3, 6, 20)),
    "small, blocked": (SMALL, (2, 2, 0), (0, 0, 0), (5, 11, 20)),
    "small, jitter": (SMALL, (0, 0, 0), (1, 0, 0), (4, 6, 20)),
    "tight": (TIGHT, (0, 0, 0), (0, 0, 0), (1, 3, 10)),
    "four, blocked": (FOUR, (25, 25, 25, 0), (0,) * 4, (35, 50, 80, 110)),
    "irqs": (IRQS, (12, 12, 12, 30, 0), (0,) * 5, (17, 25, 45, 118, 306)),
    "irqs, jitter": (IRQS, (12, 12, 12, 30, 0), (0, 10, 20, 30, 40), (17, 35, 65, 148, 346)),
}


@pytest.mark.parametrize("row", Q3)
def test_the_critical_instant_gives_the_response_of_the_analysis(row) -> None:
    tasks, blocked, jitter, expected = Q3[row]
    for i, r in enumerate(expected):
        machine = periodic(tasks, blocked[i], jitter=jitter)
        assert_books_balance(machine)
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

NAMES = list(SECTIONS)


def undisturbed(machine):
    """Nothing was lost, and the books balance."""
    assert machine.count(seen.LOST) == machine.count(seen.DEADLOCKS) == 0
    assert_books_balance(machine)
    return machine


BOUNDS = {"inheritance": (15, 24, 15, 0), "ceiling": (9, 15, 15, 0), "critical": (15, 15, 15, 0)}


def test_bounds_of_the_protocols() -> None:
    assert {protocol: tuple(bounds(SECTIONS, protocol)) for protocol in PROTOCOLS} == BOUNDS


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_blocking_stays_below_the_bound_of_the_protocol(protocol) -> None:
    rng = np.random.default_rng(8)
    worst = np.zeros(len(NAMES), int)
    for _ in range(20):
        phases = {name: int(rng.integers(PERIODS[name])) for name in NAMES}
        machine = undisturbed(with_locks(SECTIONS, PERIODS, protocol, phases, gap=1, units=30_000))
        worst = np.maximum(worst, blocking(machine, SECTIONS, gap=1))
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
    machine = undisturbed(with_locks(SECTIONS, PERIODS, protocol, dict.fromkeys(order, 0)))
    worst = dict(zip(NAMES, blocking(machine, SECTIONS), strict=True))
    assert {name: worst[name] for name in expected} == expected


def response_of_high(spec, order, hog) -> float:
    """Response of a task of high priority whose lock one of low priority has, with a CPU hog between them."""
    machine = inversion(spec, order, hog)
    assert_books_balance(machine)
    return float(responses(machine)["high"][0])


@pytest.mark.parametrize("order", [("low", "high", "hog"), ("low", "hog", "high")])
@pytest.mark.parametrize("hog", [10, 100, 1000])
def test_without_inheritance_a_hog_blocks_for_as_long_as_it_likes(order, hog) -> None:
    assert response_of_high("sleep", order, hog) == 2 + 9 + hog


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
    assert response_of_high(spec, order, hog) == 2 + 9


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
