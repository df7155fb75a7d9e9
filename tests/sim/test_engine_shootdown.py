"""TLB shootdowns: what they cost who asks, what they cost who is asked, and when those are late."""

import pytest
from sim.test_engine_queues import assert_books_balance

from kmemexp.boot import wiring
from kmemexp.lane import witness
from kmemexp.sim.engine.machine import E_DEADLOCK
from kmemexp.sim.engine.tables import cpu, seen
from kmemexp.sim.slots import ATTR_WIRED, PAGE
from kmemexp.validate.bench import Bench, bench

ASK, FURTHER, EACH_PAGE, ANSWER, INTERRUPT = 5_000, 1_000, 100, 300, 700  # ns
COST = {"shootdown_ns": ASK, "shootdown_cpu_ns": FURTHER, "shootdown_page_ns": EACH_PAGE,
        "shootdown_answer_ns": ANSWER, "interrupt_ns": INTERRUPT}  # fmt: skip
WORK, ONCE = 1_000_000, 10**12


def unmap(pages: int = 1) -> list[dict]:
    """Map some pages and unmap them again, which shoots them down."""
    return [{"alloc": {"kind": "unit", "bytes": pages * PAGE, "flags": "wait", "queue": "mine"}}, {"free": "mine"}]


def machine_of(w: wiring.Wiring, until: int = 10**9) -> Bench:
    machine = bench(w, kinds={"unit": (0, ATTR_WIRED)})
    machine.run(until)
    assert_books_balance(machine)
    return machine


def once(w: wiring.Wiring, name: str, mode: str, program: list[dict], at: int, route: int) -> None:
    w.source(name, mode, program, law="periodic", period_ns=ONCE, phase_ns=at, route=route)


@pytest.mark.parametrize("pages", [1, 7])
@pytest.mark.parametrize("cpus", [2, 8, 64, 256])
def test_who_asks_pays_by_the_cpus_asked_and_each_of_these_loses_an_answer(cpus: int, pages: int) -> None:
    w = wiring.Wiring(cpus=cpus, cost=COST)
    once(w, "asks", "device", unmap(pages), 10_000, 0)
    for number in range(1, cpus, 2):  # every other CPU has work, the others are idle
        once(w, f"works{number}", "task", [{"work": WORK}], 0, number)
    machine = machine_of(w)
    times = machine.cpu_time()
    assert times[0, cpu.TIME_THREAD] == INTERRUPT + ASK + FURTHER * (cpus - 2) + EACH_PAGE * pages
    assert (times[1::2, cpu.TIME_MAIN] == INTERRUPT + WORK).all()  # its own, and …
    assert (times[1::2, cpu.TIME_FAST] == INTERRUPT + ANSWER).all()  # … what it lost
    assert (times[2::2, cpu.TIME_FAST] == 0).all()
    assert machine.count(seen.SHOOTDOWNS) == 1


def test_a_list_of_invalidations_is_one_question_and_one_answer_of_each_cpu() -> None:
    """DragonFly's pmap_remove() of a zone of 32 pages, against one page, and against 32 lists of one page."""
    spent = {}
    for pages, lists in ((1, 1), (32, 1), (1, 32)):
        w = wiring.Wiring(cpus=4, cost=COST)
        once(w, "asks", "task", unmap(pages) * lists, 10_000, 0)
        for number in range(1, 4):
            once(w, f"works{number}", "task", [{"work": WORK}], 0, number)
        machine = machine_of(w)
        times = machine.cpu_time()
        assert machine.count(seen.SHOOTDOWNS) == lists
        assert (times[1:, cpu.TIME_FAST] == lists * (INTERRUPT + ANSWER)).all()
        spent[pages, lists] = int(times[0, cpu.TIME_MAIN]) - INTERRUPT
    question = ASK + 2 * FURTHER
    assert spent[1, 1] == question + EACH_PAGE
    assert spent[32, 1] == spent[1, 1] + 31 * EACH_PAGE
    assert spent[1, 32] == 32 * spent[1, 1]


def test_one_cpu_shoots_nothing_down() -> None:
    w = wiring.Wiring(cpus=1, cost=COST)
    once(w, "asks", "device", unmap(), 0, 0)
    machine = machine_of(w)
    assert machine.count(seen.SHOOTDOWNS) == 0
    assert machine.cpu_time()[0, cpu.TIME_THREAD] == INTERRUPT


def asked_in(section: str, mode: str) -> Bench:
    """CPU 1 holds a section from 0 to 50 us, CPU 0 shoots a page down at 10 us."""
    w = wiring.Wiring(cpus=2, cost=COST)
    w.lock("section", section)
    program = [{"lock": "section"}, {"work": 50_000}, {"unlock": "section"}, {"work": 10_000}]
    once(w, "works", mode, program, 0, 1)
    once(w, "asks", "device", unmap(), 10_000, 0)
    return machine_of(w)


@pytest.mark.parametrize(("section", "mode", "until"), [
    ("critical", "task", INTERRUPT + 50_000), ("irqoff", "task", INTERRUPT + 50_000),
    ("none", "fast", INTERRUPT + 60_000),
])  # fmt: skip
def test_a_cpu_whose_interrupts_are_off_answers_when_they_are_on_again(section, mode, until) -> None:
    machine = asked_in(section, mode)
    asks = machine.cpu_time()[0]
    assert asks[cpu.TIME_THREAD] == INTERRUPT + ASK + EACH_PAGE
    assert 10_000 + asks[cpu.TIME_THREAD] + asks[cpu.TIME_SPIN] == until + INTERRUPT + ANSWER
    asked = machine.cpu_time()[1]
    assert asked[cpu.TIME_MAIN : cpu.TIME_SPIN].sum() == 60_000 + INTERRUPT + INTERRUPT + ANSWER
    assert machine.count(seen.DEADLOCKS) == 0


@pytest.mark.parametrize(("section", "mode"), [("splhigh", "task"), ("none", "task"), ("none", "device")])
def test_any_other_cpu_answers_at_once(section, mode) -> None:
    machine = asked_in(section, mode)
    assert machine.cpu_time()[0, cpu.TIME_SPIN] == 0
    assert machine.cpu_time()[1, cpu.TIME_FAST] == INTERRUPT + ANSWER


def test_many_frees_that_are_flushed_together_cost_one_shootdown() -> None:
    """What a lazy arena saves: of the CPU that asks one question, of each of the others one answer."""
    spent = []
    for batches in (1, 10):
        w = wiring.Wiring(cpus=8, cost=COST)
        once(w, "asks", "task", [item for _ in range(batches) for item in unmap(10 // batches)], 10_000, 0)
        for number in range(1, 8):
            once(w, f"works{number}", "task", [{"work": WORK}], 0, number)
        times = machine_of(w).cpu_time()
        spent.append((int(times[0, cpu.TIME_MAIN]), times[1:, cpu.TIME_FAST].tolist()))
    asked, answered = ASK + 6 * FURTHER, INTERRUPT + ANSWER
    together = (INTERRUPT + asked + 10 * EACH_PAGE, [answered] * 7)
    apart = (INTERRUPT + 10 * (asked + EACH_PAGE), [10 * answered] * 7)
    assert spent == [together, apart]


def test_two_that_ask_each_other_in_critical_sections_do_not_wait_for_each_other() -> None:
    w = wiring.Wiring(cpus=2, cost=COST)
    w.lock("map", "none")
    w.lock("section", "critical", copies=2)
    for number, at in ((0, 0), (1, ASK // 2)):
        program = [{"lock": "section"}, {"work": 10}, *unmap(), {"unlock": "section"}]
        once(w, f"asks{number}", "task", program, at, number)
    machine = machine_of(w)
    assert machine.count(seen.SHOOTDOWNS) == machine.count(seen.DONE) == 2
    assert machine.cpu_time()[:, cpu.TIME_SPIN].sum() == 0


def test_a_fast_interrupt_that_spins_for_the_lock_of_who_asks_never_answers() -> None:
    w = wiring.Wiring(cpus=2, cost=COST)
    w.lock("L", "spin")
    once(w, "asks", "task", [{"lock": "L"}, {"work": 1000}, *unmap(), {"unlock": "L"}], 0, 0)
    once(w, "spins", "fast", [{"lock": "L"}, {"unlock": "L"}], 500, 1)
    machine = bench(w, kinds={"unit": (0, ATTR_WIRED)})
    assert machine.run(10**9) == E_DEADLOCK
    members = {row["context"]: row["waits_for"] for row in witness.members(machine.wired)}
    assert members == {"asks": "the answer of a CPU to a TLB shootdown (spins)", "spins": "L (asks)"}


def test_a_burst_that_is_preempted_after_a_shootdown_still_takes_its_time() -> None:
    w = wiring.Wiring(cpus=2, cost=COST)
    once(w, "works", "task", [{"work": WORK}], 0, 1)
    once(w, "asks", "device", unmap(), 10_000, 0)
    once(w, "net", "device", [{"work": 4_000}], 20_000, 1)
    times = machine_of(w).cpu_time()[1]
    assert times[cpu.TIME_MAIN] == INTERRUPT + WORK
    assert times[cpu.TIME_THREAD] == INTERRUPT + 4_000
    assert times[cpu.TIME_FAST] == INTERRUPT + ANSWER


def test_who_begins_to_spin_in_a_critical_section_answers_then() -> None:
    """Else the two would wait for each other: one for the answer, the other for the lock."""
    w = wiring.Wiring(cpus=2, cost=COST)
    w.lock("L", "spin")
    w.lock("section", "critical")
    once(w, "asks", "task", [{"lock": "L"}, {"work": 10_000}, *unmap(), {"unlock": "L"}], 0, 0)
    spins = [{"lock": "section"}, {"work": 12_000}, {"lock": "L"}, {"unlock": "L"}, {"unlock": "section"}]
    once(w, "spins", "task", spins, 0, 1)
    machine = machine_of(w)
    assert machine.count(seen.DEADLOCKS) == 0
    assert machine.lock("L")["held_ns"] == 10_000 + ASK + EACH_PAGE
