"""What it costs to run an interrupt thread, by model; and who waits for the big lock, on the CPU or off it."""

import pytest
from sim.test_engine_queues import assert_books_balance

from kmemexp.boot import wiring
from kmemexp.lane.latency import MIDDLE
from kmemexp.sim.engine.tables import cpu
from kmemexp.validate.bench import Bench, bench

SWITCH, PREEMPT, INTERRUPT = 1_500, 150, 1_000  # ns
COST = {"switch_ns": SWITCH, "preempt_ns": PREEMPT, "interrupt_ns": INTERRUPT}
WORK, HANDLER, ONCE = 100_000, 5_000, 10**12
FOREVER = {"sleep": 10**15}


def run(w: wiring.Wiring, until: int = 10**9) -> Bench:
    machine = bench(w)
    machine.run(until)
    assert_books_balance(machine)
    return machine


def device(w: wiring.Wiring, name: str, at: int, work: int = HANDLER, route: int = 0) -> None:
    w.source(name, "device", [{"work": work}], law="periodic", period_ns=ONCE, phase_ns=at, route=route)


WAYS = [("spl", "borrow", 0), ("ithread", "borrow", 0), ("ithread", "preempt", PREEMPT), ("ithread", "switch", SWITCH)]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("model", "dispatch", "ns"), WAYS)
def test_a_dispatch_costs_a_way_there_and_a_way_back(model, dispatch, ns, nested) -> None:
    w = wiring.Wiring(model=model, dispatch=dispatch, nested=nested, cost=COST)
    w.source("task", "task", [{"work": WORK}, FOREVER])
    device(w, "net", 10_000)
    machine = run(w)
    assert machine.cpu_time()[0, cpu.TIME_THREAD] == ns + INTERRUPT + HANDLER
    assert machine.cpu_time()[0, cpu.TIME_MAIN] == WORK + ns
    assert machine.mean("irq_net_start") == pytest.approx(ns, rel=0.02)


@pytest.mark.parametrize(("model", "dispatch", "ns"), WAYS)
def test_an_idle_cpu_pays_the_way_there_alone(model, dispatch, ns) -> None:
    w = wiring.Wiring(model=model, dispatch=dispatch, cost=COST)
    device(w, "net", 10_000)
    times = run(w).cpu_time()[0]
    assert (times[cpu.TIME_THREAD], times[cpu.TIME_MAIN]) == (ns + INTERRUPT + HANDLER, 0)


@pytest.mark.parametrize(("model", "dispatch", "ns"), WAYS)
def test_from_one_interrupt_thread_to_the_next_there_is_no_way_back_between(model, dispatch, ns) -> None:
    w = wiring.Wiring(model=model, dispatch=dispatch, nested=False, cost=COST)
    w.source("task", "task", [{"work": WORK}, FOREVER])
    w.source("disk", "device", [{"work": HANDLER}], law="periodic", period_ns=ONCE, phase_ns=10_000, klass="net")
    w.source("net", "device", [{"work": HANDLER}], law="periodic", period_ns=ONCE, phase_ns=12_000, klass="net")
    times = run(w).cpu_time()[0]
    back = 2 if model == "spl" else 1
    assert times[cpu.TIME_MAIN] == WORK + ns * min(back, 1)
    assert times[cpu.TIME_THREAD] == 2 * (ns + INTERRUPT + HANDLER)


def test_fast_interrupts_are_never_dispatched() -> None:
    w = wiring.Wiring(dispatch="switch", cost=COST)
    w.source("task", "task", [{"work": WORK}, FOREVER])
    w.source("clock", "fast", [{"work": HANDLER}], law="periodic", period_ns=ONCE, phase_ns=10_000)
    times = run(w).cpu_time()[0]
    assert (times[cpu.TIME_MAIN], times[cpu.TIME_FAST]) == (WORK, INTERRUPT + HANDLER)


def held_elsewhere(big_wait: str, programs: dict[str, list]) -> wiring.Wiring:
    """CPU 0 has the big lock for 50 us from the beginning; tasks run on CPU 1."""
    w = wiring.Wiring(cpus=2, big_lock=True, big_wait=big_wait, dispatch="preempt", cost=COST)
    w.source("holder", "task", [{"lock": "big"}, {"work": 50_000}, {"unlock": "big"}, FOREVER], route=0)
    for name, program in programs.items():
        w.source(name, "task", [*program, FOREVER], route=1)
    return w


@pytest.mark.parametrize("big_wait", ["spin", "queue"])
def test_who_waits_for_the_big_lock_spins_or_lets_others_run(big_wait) -> None:
    wants = [{"lock": "big"}, {"work": 10_000}, {"unlock": "big"}]
    machine = run(held_elsewhere(big_wait, {"wants": wants, "does not": [{"work": 30_000}]}))
    times = machine.cpu_time()[1]
    assert machine.lock("big")["wait_ns"] == 50_000
    if big_wait == "spin":
        assert (times[cpu.TIME_SPIN], times[cpu.TIME_MAIN]) == (50_000, 40_000)
    else:
        assert (times[cpu.TIME_SPIN], times[cpu.TIME_MAIN]) == (0, 40_000 + PREEMPT)


@pytest.mark.parametrize(("big_wait", "started"), [("spin", 10_000), ("queue", 100_000)])
def test_an_interrupt_thread_that_cannot_have_the_big_lock_does_not_preempt(big_wait, started) -> None:
    w = held_elsewhere(big_wait, {"works": [{"work": WORK}]})
    device(w, "net", 10_000, route=1)
    machine = run(w)
    times = machine.cpu_time()[1]
    assert machine.mean("irq_net_start") == pytest.approx(started - 10_000 + PREEMPT, rel=0.02)
    assert times[cpu.TIME_SPIN] == (40_000 if big_wait == "spin" else 0)
    assert times[cpu.TIME_MAIN] == WORK + (PREEMPT if big_wait == "spin" else 0)


def test_the_queue_for_the_big_lock_is_first_come_first_served() -> None:
    w = wiring.Wiring(cpus=4, big_lock=True, big_wait="queue", cost=COST, log_rows=1 << 8)
    for number in range(4):
        program = [{"work": 1 + number}, {"lock": "big"}, {"work": 10_000}, {"unlock": "big"}, FOREVER]
        w.source(f"task{number}", "task", program, route=number)
    machine = run(w)
    assert machine.lock("big")["taken"] == 4
    # each begins to wait at 1 + number and is granted when the one before ends, whose switch comes on top
    assert machine.lock("big")["wait_ns"] == sum(n * 10_000 + max(n - 1, 0) * PREEMPT - n for n in range(1, 4))


MS = 1_000_000


def two_tasks(slice_ns: int, first: list, second: list, **more) -> tuple[int, int]:
    """When each of two tasks on a CPU is done, ms."""
    w = wiring.Wiring(slice_ns=slice_ns, log_rows=1 << 8, **more)
    w.lock("section", "critical")
    for name, program in (("first", first), ("second", second)):
        w.source(name, "task", program, law="periodic", period_ns=ONCE, phase_ns=0)
    machine = run(w, 10**10)
    done = [machine.histogram(f"irq_{name}_done").nonzero()[0][0] for name in ("first", "second")]
    return tuple(round(float(MIDDLE[bucket]) / MS) for bucket in done)


@pytest.mark.parametrize(
    ("slice_ns", "ends"), [(0, (25, 50)), (10 * MS, (45, 50)), (3 * MS, (49, 50)), (30 * MS, (25, 50))]
)
def test_threads_of_one_priority_take_turns(slice_ns, ends) -> None:
    whole, parts = [{"work": 25 * MS}], [{"work": 5 * MS}] * 5
    for first in (whole, parts):
        for second in (whole, parts):
            assert two_tasks(slice_ns, first, second) == pytest.approx(ends, abs=1)


def test_a_turn_that_is_over_in_a_critical_section_ends_with_that() -> None:
    critical = [{"lock": "section"}, {"work": 25 * MS}, {"unlock": "section"}, {"work": 1}]
    assert two_tasks(10 * MS, critical, [{"work": 25 * MS}]) == pytest.approx((35, 50), abs=1)


def test_a_change_of_turns_is_a_switch() -> None:
    w = wiring.Wiring(slice_ns=10 * MS, cost=COST)
    for name in ("first", "second"):
        w.source(name, "task", [{"work": 25 * MS}], law="periodic", period_ns=ONCE, phase_ns=0)
    assert run(w, 10**10).cpu_time()[0, cpu.TIME_MAIN] == 2 * (25 * MS + INTERRUPT) + 4 * SWITCH
