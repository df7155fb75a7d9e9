"""What kinds of lock do while their holder sleeps, runs elsewhere or recurses."""

import pytest

from kmemexp.boot import wiring
from kmemexp.validate.bench import Bench, bench

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


US, ONCE = 1_000, 10**12
FOREVER = {"sleep": 10**15}


def held(lock: str, *inside: dict) -> list[dict]:
    return [{"lock": lock}, *inside, {"unlock": lock}]


def work(us: float) -> dict:
    return {"work": round(us * US)}


def sleep(us: float) -> dict:
    return {"sleep": round(us * US)}


@pytest.mark.parametrize("spec", ["adaptive", "adaptive+fifo"])
def test_who_spins_for_a_lock_sleeps_as_soon_as_its_owner_does(spec) -> None:
    w = wiring.Wiring(cpus=2)
    w.lock("L", spec)
    w.source("holder", "task", [*held("L", work(50), sleep(5_100)), FOREVER])
    w.source("spinner", "task", [*held("L", work(1)), FOREVER], route=1)
    machine = bench(w)
    machine.run(10**8)
    assert machine.cpu_time()[1, 5] == 50 * US
    assert machine.lock("L")["wait_ns"] == 5_150 * US


def test_who_spins_sleeps_too_when_the_owner_is_preempted_by_a_thread_but_not_by_a_fast_interrupt() -> None:
    spun = []
    for mode in ("device", "fast"):
        w = wiring.Wiring(cpus=2)
        w.lock("L", "adaptive")
        w.source("holder", "task", [*held("L", work(100)), FOREVER])
        w.source("spinner", "task", [*held("L", work(1)), FOREVER], route=1)
        w.source("irq", mode, [work(900)], law="periodic", period_ns=ONCE, phase_ns=50 * US)
        machine = bench(w)
        machine.run(10**8)
        assert machine.lock("L")["wait_ns"] == 1_000 * US
        spun.append(int(machine.cpu_time()[1, 5]))
    assert spun == [50 * US, 1_000 * US]


@pytest.mark.parametrize("how", ["fifo", "barging"])
def test_a_priority_that_is_lent_along_a_chain_moves_its_links_forward_in_their_queues(how) -> None:
    """`high` wants B of `second`, which waits for A behind `first`; and `first` would keep A for long."""
    w = wiring.Wiring(cpus=4)
    for name in "AB":
        w.lock(name, f"sleep+inherit+{how}")
    w.source("holder", "task", [*held("A", work(100)), FOREVER], route=0)
    w.source("first", "task", [work(10), *held("A", work(700)), FOREVER], priority=12, route=1)
    w.source("second", "task", [work(1), *held("B", work(19), *held("A", work(100)), work(20)), FOREVER], priority=11,
             route=2)  # fmt: skip
    high = held("B", work(1))
    w.source("high", "device", high, law="periodic", period_ns=ONCE, phase_ns=30 * US, route=3)
    machine = bench(w)
    machine.run(10**8)
    assert machine.lock("B")["wait_ns"] == (100 + 100 + 20 - 30) * US
    assert machine.lock("A")["wait_ns"] == (100 - 20) * US + (100 + 100 - 10) * US


SWITCH = 10 * US


def convoy(spec: str) -> Bench:
    """Four tasks on CPUs of their own that want a lock for half of their time."""
    w = wiring.Wiring(cpus=4, cost={"switch_ns": SWITCH})
    w.lock("L", spec)
    for number in range(4):
        w.source(f"task{number}", "task", [*held("L", work(1)), work(1)], route=number)
    machine = bench(w)
    machine.run(10_000 * US)
    return machine


def test_a_strict_hand_over_to_sleepers_makes_a_convoy_and_barging_does_not() -> None:
    strict, barging, all_woken = (convoy(spec).lock("L")["taken"] for spec in ("sleep+fifo", "sleep+barging", "sleep"))
    assert strict == pytest.approx(10_000 / (10 + 1), rel=0.01)  # a switch with every hold
    assert min(barging, all_woken) > 4 * strict
    assert convoy("sleep+wakeall").lock("L")["taken"] == all_woken


@pytest.mark.parametrize(("spec", "switches"), [("sleep+barging", 2), ("sleep", 3)])
def test_lockmgr_wakes_all_who_sleep_and_all_but_one_sleep_again(spec, switches) -> None:
    w = wiring.Wiring(cpus=3, cost={"switch_ns": SWITCH})
    w.lock("L", spec)
    w.source("holder", "task", [*held("L", work(20)), FOREVER], route=0)
    for number in (1, 2):
        w.source(f"sleeper{number}", "task", [work(1), *held("L", work(30)), FOREVER], route=number)
    machine = bench(w)
    machine.run(10**8)
    # both are woken at 20 where all are; one has it from 30 to 60, the other, woken (again) then, from 70 on
    assert machine.lock("L")["wait_ns"] == (30 - 1 + 70 - 1) * US
    assert machine.cpu_time()[1:, 1].sum() == 2 * (1 + 30) * US + switches * SWITCH


@pytest.mark.parametrize("spec", ["spin", "sleep+fifo", "adaptive+fifo", "token"])
def test_a_lock_that_is_handed_over_is_fair(spec) -> None:
    """Each of five that want it all the time has it as often as the others, and never waits for more than four."""
    w = wiring.Wiring(cpus=5)
    w.lock("L", spec)
    for number in range(5):
        w.source(f"task{number}", "task", [*held("L", work(7))], route=number)
    machine = bench(w)
    machine.run(35 * 100 * US + 1)
    lock = machine.lock("L")
    assert lock["taken"] == 501
    waits = machine.histogram("wait_L")
    assert waits.sum() == lock["waited"]
    assert lock["wait_ns"] == pytest.approx(28 * US * lock["waited"], rel=0.03)


def test_who_comes_while_the_woken_one_is_being_switched_to_has_the_lock_first() -> None:
    w = wiring.Wiring(cpus=3, cost={"switch_ns": SWITCH})
    w.lock("L", "sleep")
    w.source("holder", "task", [*held("L", work(20)), FOREVER], route=0)
    w.source("sleeper", "task", [work(1), *held("L", work(5)), FOREVER], route=1)
    w.source("barger", "task", [work(25), *held("L", work(30)), FOREVER], route=2)
    machine = bench(w)
    machine.run(10**8)
    # the sleeper is woken at 20, tries at 30 in vain, is woken again at 55 and has it at 65
    assert machine.lock("L")["waited"] == 1
    assert machine.lock("L")["wait_ns"] == (65 - 1) * US
