"""What kinds of lock do while their holder sleeps, runs elsewhere or recurses."""

import pytest
from sim.timed_machine import Bench, bench

from kmemexp.boot import wiring

SLEEP, WORK = 10_000, 100  # ns


def held_by_a_sleeper(kind: str, *, big: bool = False) -> Bench:
    """One task takes the lock and sleeps with it; another, on the other CPU, wants it meanwhile, once in a while."""
    w = wiring.Wiring(cpus=2, big_lock=big)
    w.lock("shared", kind)
    w.source("holder", "task", [{"lock": "shared"}, {"sleep": SLEEP}, {"unlock": "shared"}, {"sleep": SLEEP}], route=0)
    visit = [{"lock": "shared"}, {"work": WORK}, {"unlock": "shared"}]
    w.source("visitor", "device", visit, law="periodic", period_ns=2 * SLEEP, phase_ns=SLEEP // 2, route=1)
    machine = bench(w)
    machine.run(100 * SLEEP - 1)
    return machine


def test_a_token_is_free_while_its_holder_sleeps_and_taken_again_when_it_wakes() -> None:
    machine = held_by_a_sleeper("token")
    assert machine.lock("shared")["wait_ns"] == 0
    assert machine.lock("shared")["taken"] == 50 + 50 + 50  # the holder's, again after each sleep, and the visitor's


def test_a_sleep_lock_is_not() -> None:
    machine = held_by_a_sleeper("sleep")
    assert machine.lock("shared")["waited"] == 50
    assert machine.lock("shared")["wait_ns"] == 50 * SLEEP // 2


def test_the_big_lock_is_dropped_by_a_handler_that_sleeps_for_another_lock() -> None:
    w = wiring.Wiring(cpus=2, big_lock=True)
    w.lock("map", "sleep")
    w.source("holder", "task", [{"lock": "map"}, {"work": SLEEP}, {"unlock": "map"}, {"sleep": SLEEP}], route=0)
    w.source("blocks", "device", [{"lock": "map"}, {"unlock": "map"}], law="periodic", period_ns=2 * SLEEP,
             phase_ns=SLEEP // 2, route=1)  # fmt: skip
    w.source("other", "device", [{"work": WORK}], law="periodic", period_ns=2 * SLEEP, phase_ns=SLEEP // 2 + 1, route=0)
    machine = bench(w)
    machine.run(100 * SLEEP)
    assert machine.lock("map")["waited"] == 50  # "blocks" sleeps half of the time …
    assert machine.lock("big")["wait_ns"] == 0  # … and "other" has the big lock meanwhile
    assert machine.histogram("irq_other_done").sum() == 50


@pytest.mark.parametrize(("owner_runs", "spins"), [(True, True), (False, False)])
def test_an_adaptive_lock_is_spun_for_only_while_its_owner_runs(owner_runs: bool, spins: bool) -> None:
    w = wiring.Wiring(cpus=2)
    w.lock("shared", "adaptive")
    hold = {"work": SLEEP} if owner_runs else {"sleep": SLEEP}
    w.source("holder", "task", [{"lock": "shared"}, hold, {"unlock": "shared"}, {"sleep": SLEEP}], route=0)
    w.source("visitor", "device", [{"lock": "shared"}, {"unlock": "shared"}], law="periodic", period_ns=2 * SLEEP,
             phase_ns=SLEEP // 2, route=1)  # fmt: skip
    machine = bench(w)
    machine.run(100 * SLEEP)
    assert (machine.cpu_time()[1, 5] > 0) == spins
    assert machine.lock("shared")["wait_ns"] == 50 * SLEEP // 2


def test_a_lock_that_moves_between_cpus_costs_more_and_between_sockets_most() -> None:
    def first_hold(cpus: tuple[int, int]) -> int:
        cost = {"lock_ns": 10, "move_near_ns": 100, "move_far_ns": 1000, "socket_cpus": 2}
        w = wiring.Wiring(cpus=4, cost=cost)
        w.lock("shared", "spin")
        for name, cpu, at in (("before", cpus[0], 0), ("after", cpus[1], SLEEP)):
            w.source(name, "device", [{"lock": "shared"}, {"work": 1}, {"unlock": "shared"}], law="periodic",
                     period_ns=10**9, phase_ns=at, route=cpu)  # fmt: skip
        machine = bench(w)
        machine.run(10**6)
        return machine.lock("shared")["held_ns"]

    assert [first_hold(pair) for pair in ((0, 0), (0, 1), (0, 3))] == [22, 122, 1022]


def test_who_is_interrupted_while_it_spins_keeps_its_place_in_the_queue_and_so_do_those_behind_it() -> None:
    w = wiring.Wiring(cpus=3)
    w.lock("shared", "spin")
    for cpu in range(3):
        hold = [{"lock": "shared"}, {"work": SLEEP}, {"unlock": "shared"}]
        w.source(f"task{cpu}", "task", hold, law="periodic", period_ns=10 * SLEEP, phase_ns=cpu, route=cpu)
    w.source(
        "net", "device", [{"work": SLEEP // 4}], law="periodic", period_ns=10 * SLEEP, phase_ns=SLEEP // 2, route=1
    )
    machine = bench(w)
    machine.run(95 * SLEEP)
    assert machine.lock("shared")["taken"] == 30
    assert machine.histogram("irq_net_done").sum() == 10
    assert machine.mean("irq_net_done") == pytest.approx(SLEEP // 4, rel=0.02)
