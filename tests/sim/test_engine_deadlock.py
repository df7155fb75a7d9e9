"""Deadlocks: where theory says that there can be none, that there must be, and how often (D1, D2)."""

from collections import Counter

import numpy as np
import pytest

from kmemexp.boot import wiring
from kmemexp.lane import witness
from kmemexp.sim.engine.machine import E_DEADLOCK, E_TIME
from kmemexp.sim.engine.tables import glob, seen
from kmemexp.sim.slots import ATTR_WIRED
from kmemexp.sim.tables import tally
from kmemexp.validate.bench import bench
from kmemexp.validate.machines import FOREVER, MEAN, NOTHING, exponential, get, interrupted, opposite, takers

CASES = [(4, 3), (2, 2), (3, 4), (5, 2)]
PAUSES = ["work", "sleep"]


@pytest.mark.parametrize("verb", PAUSES)
@pytest.mark.parametrize(("tasks", "units"), CASES)
def test_a_pool_of_one_more_than_the_tasks_can_hold_short_of_enough_never_deadlocks(tasks, units, verb) -> None:
    for seed in range(25):
        machine = takers(tasks, units, tasks * (units - 1) + 1, verb, seed=seed)
        assert machine.run(400 * MEAN * (units + 1)) == E_TIME
        assert machine.count(seen.SLEPT) > 0
        assert machine.world.counters[tally.FREES] > 100 * units
        assert machine.world.counters[tally.FAILURES] == 0


@pytest.mark.parametrize("verb", PAUSES)
@pytest.mark.parametrize(("tasks", "units"), CASES)
def test_a_pool_of_one_unit_less_deadlocks_with_all_tasks_one_unit_short(tasks, units, verb) -> None:
    for seed in range(25):
        machine = takers(tasks, units, tasks * (units - 1), verb, seed=seed)
        assert machine.run(10**9) == E_DEADLOCK
        assert machine.count(glob.FREE) == 0
        counters = machine.world.counters
        assert counters[tally.ALLOCS] - counters[tally.FREES] == tasks * (units - 1)
        members = witness.members(machine.wired)
        assert {row["context"] for row in members} == {f"task {i}" for i in range(tasks)}
        assert {row["waits_for"] for row in members} == {"memory"}


def test_where_deadlocks_are_broken_each_costs_one_request_and_the_tasks_go_on() -> None:
    machine = takers(4, 3, 8, "work", seed=1, on_deadlock="continue")
    assert machine.run(20_000 * MEAN) == E_TIME
    assert machine.count(seen.DEADLOCKS) > 20
    assert machine.count(seen.PAGE_FAILURES) == machine.world.counters[tally.FAILURES] == machine.count(seen.DEADLOCKS)
    assert machine.world.counters[tally.FREES] > 4 * 3 * 1000


def test_memory_that_an_interrupt_frees_is_worth_waiting_for() -> None:
    w = wiring.Wiring(memory=NOTHING | {"free": 1})
    w.source("task", "task", [get(), get(), FOREVER])
    w.source("irq", "device", [{"free": "mine"}], law="periodic", period_ns=10**12, phase_ns=MEAN)
    machine = bench(w, kinds={"unit": (0, ATTR_WIRED)})
    assert machine.run(10**9) == E_TIME
    assert machine.world.counters[tally.ALLOCS] == 2


def test_an_interrupt_that_sleeps_on_a_borrowed_stack_does_not_take_the_big_lock_with_it_unseen() -> None:
    """In FreeBSD 4 the switch gives back all of the process's big lock: the page daemon runs, and everybody goes on.

    Here the daemon waits behind an interrupt that spins for the lock of the stack that sleeps until the daemon has run.
    """
    w = wiring.Wiring(cpus=2, model="spl", big_lock=True, memory=NOTHING | {"user": 100, "free": 1}, daemon="daemon")
    w.source("task", "task", [get("nowait"), {"work": 1_000_000}, FOREVER])
    w.source("sleeper", "soft", [get()], law="periodic", period_ns=10**12, phase_ns=100_000, klass="softnet")
    w.source("spinner", "soft", [{"work": 100}], route="each", klass="softnet")
    w.source("raiser", "task", [{"sleep": 50_000}, {"raise": "spinner"}, FOREVER], route=1)
    w.source("daemon", "task", [{"rest": None}, {"work": 20_000}, {"reclaim": None}], route=1)
    machine = bench(w, kinds={"unit": (0, ATTR_WIRED)})
    machine.run(10**9)
    assert machine.count(seen.DEADLOCKS) > 0 or machine.world.counters[tally.ALLOCS] == 2


@pytest.mark.parametrize(("alpha", "beta", "chance"), [(1, 1, 0.5), (9, 1, 0.1), (1, 9, 0.9)])
@pytest.mark.parametrize(
    ("spec", "cpus", "verb"),
    [
        ("sleep", 2, "sleep"),
        ("sleep", 1, "sleep"),
        ("spin", 2, "work"),
        ("adaptive", 2, "work"),
        ("sleep+inherit", 2, "work"),
    ],
)
def test_locks_in_opposite_order_deadlock_as_often_as_the_race_is_lost(spec, cpus, verb, alpha, beta, chance) -> None:
    machine, many = opposite(spec, alpha, beta, cpus=cpus, verb=verb), 4000
    fresh = machine.m.copy()
    ends = Counter()
    for number in range(many):
        machine.m[:] = fresh
        machine.m[glob.SEED] = number
        code = machine.run(10**12)
        ends[code] += 1
        assert machine.count(seen.DEADLOCKS) == (code == E_DEADLOCK)
        # Where it went well both orders have been seen, and the warning is there.
        assert machine.count(seen.REVERSALS) == (code != E_DEADLOCK)
    assert set(ends) == {E_DEADLOCK, E_TIME}
    share = ends[E_DEADLOCK] / many
    assert share == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / many))


@pytest.mark.parametrize(
    ("spec", "cpus", "verb", "state"),
    [("sleep", 2, "sleep", "blocked"), ("sleep", 1, "sleep", "blocked"), ("spin", 2, "work", "spinning")],
)
def test_the_witness_names_the_two_tasks_and_the_two_locks(spec, cpus, verb, state) -> None:
    machine = opposite(spec, 1, 9, cpus=cpus, verb=verb)
    assert machine.run(10**12) == E_DEADLOCK
    members = {row["context"]: row for row in witness.members(machine.wired)}
    assert machine.count(seen.WITNESS) == len(members) == 2
    one, other = members["T1"], members["T2"]
    assert (one["holds"], one["waits_for"], one["cpu"], one["state"]) == ("A", "B (T2)", 0, state)
    assert (other["holds"], other["waits_for"], other["cpu"], other["state"]) == ("B", "A (T1)", cpus - 1, state)
    assert max(one["since_ns"], other["since_ns"]) == one["at_ns"] == machine.count(seen.DEADLOCK_AT)
    assert machine.count(glob.NOW) == one["at_ns"]


def test_after_a_deadlock_between_programs_is_broken_the_other_one_gets_its_lock() -> None:
    machine = opposite("sleep", 1, 9, on_deadlock="continue")
    assert machine.run(10**11) == E_TIME
    assert machine.count(seen.DEADLOCKS) > 0
    assert machine.count(seen.WAITING) == 0


def test_a_lock_goes_to_who_spins_for_it_not_to_a_sleeper_that_is_kept_from_its_cpu_by_the_spinning() -> None:
    w = wiring.Wiring(cpus=2, on_deadlock="continue")
    w.lock("L", "adaptive")
    taken = [{"lock": "L"}, {"unlock": "L"}]
    w.source("holder", "task", [{"lock": "L"}, {"sleep": 100}, {"work": 100}, {"unlock": "L"}, FOREVER], route=1)
    w.source("waiter", "task", [{"sleep": 50}, *taken, FOREVER])
    w.source("irq", "device", taken, law="periodic", period_ns=10**12, phase_ns=150)
    machine = bench(w)
    machine.run(10**6)
    assert machine.count(seen.DEADLOCKS) == 0
    assert machine.count(seen.WAITING) == 0


def test_locks_in_the_same_order_never_deadlock() -> None:
    w = wiring.Wiring(cpus=4, seed=1)
    for name in "ABC":
        w.lock(name, "sleep")
    for cpu in range(4):
        program = [exponential("sleep", 1000)]
        for name in "ABC":
            program += [{"lock": name}, exponential("sleep", 1000)]
        w.source(f"T{cpu}", "task", [*program, *({"unlock": name} for name in "BCA")], route=cpu)
    machine = bench(w)
    assert machine.run(200_000_000) == E_TIME
    assert machine.count(seen.REVERSALS) == machine.count(seen.DEADLOCKS) == 0
    assert machine.count(seen.CONTENDED) > 10_000


@pytest.mark.parametrize(("mode", "model"), [("fast", "ithread"), ("device", "ithread"), ("device", "spl")])
def test_interrupts_deadlock_as_often_as_they_find_the_spin_lock_held(mode, model) -> None:
    machine = interrupted("spin", mode, model=model)
    assert machine.run(60 * 10**9) == E_TIME
    n = machine.count(seen.DONE)
    assert n > 50_000
    chance = 1 / 30_000 / (1 / 30_000 + 1 / 10_000 + 1 / 1e6)  # of a hit at the end of Exp(1 ms) from "not held" on
    share = machine.count(seen.DEADLOCKS) / n
    assert share == pytest.approx(0.25, abs=0.01)
    assert share == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / n))
    held = machine.lock("L")["held_ns"] / machine.count(glob.NOW)  # PASTA: the share of time, whatever the chance
    assert share == pytest.approx(held, abs=4 * np.sqrt(0.25 * 0.75 / n))


@pytest.mark.parametrize("mode", ["fast", "device"])
def test_the_first_such_interrupt_is_caught_with_the_thread_that_it_interrupted(mode) -> None:
    for seed in range(50):
        machine = interrupted("spin", mode, on_deadlock="stop", seed=seed)
        assert machine.run(10**12) == E_DEADLOCK
        members = {row["context"]: row for row in witness.members(machine.wired)}
        assert set(members) == {"irq", "thread"}
        assert members["irq"]["waits_for"] == "L (thread)"
        assert (members["thread"]["holds"], members["thread"]["waits_for"]) == ("L", "its CPU (irq)")
        assert machine.count(seen.INTERRUPTS) == machine.count(seen.DONE) + 1


@pytest.mark.parametrize(
    ("spec", "mode", "model"),
    [("critical+spin", "fast", "ithread"), ("critical+spin", "device", "ithread"), ("splimp+spin", "device", "spl"),
     ("splhigh+spin", "device", "spl"), ("critical+spin", "device", "spl")],
)  # fmt: skip
def test_a_lock_that_keeps_interrupts_out_while_it_is_held_never_deadlocks(spec, mode, model) -> None:
    machine = interrupted(spec, mode, model=model, on_deadlock="stop")
    assert machine.run(20 * 10**9) == E_TIME
    assert machine.count(seen.DEADLOCKS) == machine.count(seen.CONTENDED) == 0
    started = machine.histogram("irq_irq_start")
    assert started[1:].sum() / started.sum() == pytest.approx(0.25, abs=0.02)  # had to wait until the section's end
    assert machine.mean("irq_irq_start") == pytest.approx(2500, rel=0.1)  # a quarter of them, for another Exp(10 us)


def test_an_interrupt_thread_that_may_sleep_waits_for_its_lock_without_a_deadlock() -> None:
    machine = interrupted("sleep", "device", on_deadlock="stop")
    assert machine.run(20 * 10**9) == E_TIME
    assert machine.count(seen.DEADLOCKS) == 0
    assert machine.count(seen.CONTENDED) / machine.count(seen.DONE) == pytest.approx(0.25, abs=0.02)
    assert machine.mean("wait_L") == pytest.approx(10_000, rel=0.05)


def test_a_lock_that_masks_the_wrong_class_does_not_help() -> None:
    machine = interrupted("splbio+spin", "device", model="spl", on_deadlock="stop")
    assert machine.run(10**12) == E_DEADLOCK


def test_a_handler_that_has_nothing_to_free_is_not_worth_waiting_for() -> None:
    w = wiring.Wiring(cpus=2, memory=NOTHING | {"free": 2})
    for c in range(2):
        w.source(f"task{c}", "task", [get(), {"work": 1000}, get(), {"free": "mine"}, {"free": "mine"}], route=c)
    w.source("irq", "device", [{"free": "other"}], law="periodic", period_ns=10**6)
    machine = bench(w, kinds={"unit": (0, ATTR_WIRED)})
    assert machine.run(10**8) == E_DEADLOCK
    assert machine.count(seen.DEADLOCKS) == 1


def test_an_undone_request_pays_for_no_page_that_it_did_not_get() -> None:
    w = wiring.Wiring(cpus=2, memory=NOTHING, cost={"page_ns": 1000, "shootdown_ns": 1000})
    w.source("asks", "device", [get("nowait")], law="periodic", period_ns=10**6, phase_ns=0)
    machine = bench(w, kinds={"unit": (0, ATTR_WIRED)})
    machine.run(10**8)
    assert machine.count(seen.PAGE_FAILURES) > 90
    assert machine.count(seen.SHOOTDOWNS) == machine.count(seen.SOJOURN) == 0


@pytest.mark.parametrize("on_deadlock", ["stop", "continue"])
def test_a_holder_that_wakes_below_who_spins_for_its_lock_is_a_deadlock(on_deadlock) -> None:
    w = wiring.Wiring(on_deadlock=on_deadlock)
    w.lock("L", "spin")
    w.source("holder", "task", [{"lock": "L"}, {"sleep": 100_000}, {"work": 10}, {"unlock": "L"}, FOREVER])
    w.source("irq", "device", [{"lock": "L"}, {"unlock": "L"}], law="periodic", period_ns=10**12, phase_ns=50_000)
    machine = bench(w)
    assert machine.run(10**9) == (E_DEADLOCK if on_deadlock == "stop" else E_TIME)
    assert machine.count(seen.DEADLOCKS) == 1
    assert machine.count(seen.DEADLOCK_AT) == 100_000
    members = {row["context"]: row["waits_for"] for row in witness.members(machine.wired)}
    assert members == {"irq": "L (holder)", "holder": "its CPU (irq)"}
    if on_deadlock == "continue":
        assert machine.lock("L")["held_ns"] == 100_010
        assert machine.count(seen.DONE) == 1


def test_a_spinner_that_comes_back_above_the_holder_of_its_lock_is_a_deadlock() -> None:
    """Preempted while it spins, it does not see the holder, of its own CPU, wake; nor does anybody when it is back."""
    w = wiring.Wiring()
    w.lock("L", "spin")
    w.source("holder", "task", [{"lock": "L"}, {"sleep": 100_000}, {"work": 10}, {"unlock": "L"}, FOREVER])
    w.source("spins", "device", [{"lock": "L"}, {"unlock": "L"}], law="periodic", period_ns=10**12, phase_ns=50_000,
             priority=20)  # fmt: skip
    w.source("irq", "device", [{"work": 60_000}], law="periodic", period_ns=10**12, phase_ns=80_000)
    machine = bench(w)
    assert machine.run(10**9) == E_DEADLOCK
    assert machine.count(seen.DEADLOCK_AT) == 140_000
    assert len(witness.members(machine.wired)) == 2


def test_a_daemon_that_preempts_who_asks_for_a_page_lets_it_go_on_later() -> None:
    memory = NOTHING | {"user": 60, "free": 12, "minimum": 8, "target": 16, "reserved": 4, "cluster": 4}
    w = wiring.Wiring(model="ithread", nested=True, memory=memory, daemon="daemon")
    w.source("faults", "task", [{"take": 1}], law="periodic", period_ns=50_000, phase_ns=50_000, priority=10)
    w.source("daemon", "task", [{"rest": None}, {"work": 1_000}, {"sleep": 10_000}, {"reclaim": None}], priority=11)
    machine = bench(w, kinds={"unit": (0, ATTR_WIRED)})
    assert machine.run(10**9 + 1_000) == E_TIME
    faults = 10**9 // 50_000
    assert machine.count(glob.USER) - 60 + machine.count(seen.DAEMON_PAGES) == faults
    assert machine.count(glob.USER) + machine.count(glob.FREE) == 72
