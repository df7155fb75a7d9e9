"""The engine against closed forms with figures of our own: one server, a finite population, sections, an overload."""

import pytest
from sim.test_engine_queues import assert_books_balance, repairman, throughput_and_residence

from kmemexp.boot import wiring
from kmemexp.lane.latency import quantile
from kmemexp.sim.engine.tables import cpu, seen
from kmemexp.validate.bench import Bench, bench

SECOND = 10**9
SERVICE = 20_000  # ns


@pytest.mark.parametrize(("law", "shape", "c2"), [("uniform", 0, 1 / 3), ("erlang", 2, 1 / 2), ("two_point", 0, 7.29)])
def test_waits_of_one_handler_depend_on_the_scatter_of_its_service(law, shape, c2) -> None:
    """M/G/1 at a load of 0.62, Poisson: rho (1 + c2) / 2 (1 - rho) services of wait; c2 as the law has it."""
    w = wiring.Wiring(depth=1 << 14, seed=11)
    w.source("irq", "device", [{"work": {"law": law, "ns": SERVICE, "shape": shape}}], law="poisson",
             rate_hz=0.62 * SECOND / SERVICE)  # fmt: skip
    machine = bench(w)
    machine.run(round(3e6 * SERVICE / 0.62))
    assert machine.count(seen.LOST) == 0
    assert_books_balance(machine)
    wait = machine.count(seen.SOJOURN) / machine.count(seen.DONE) / SERVICE - 1
    assert wait == pytest.approx(0.62 * (1 + c2) / (2 * 0.38), rel=0.02)


@pytest.mark.parametrize(("cpus", "think"), [(3, 5), (6, 5), (12, 7)])
def test_a_lock_that_few_share_is_a_finite_population(cpus, think) -> None:
    """Mean value analysis: R(n) = 1 + X(n - 1) R(n - 1), X(n) = n / (R(n) + Z), with one place to hold the lock."""
    waiting = 0.0
    for n in range(1, cpus + 1):
        residence = 1 + waiting
        rate = n / (residence + think)
        waiting = rate * residence
    found = throughput_and_residence(repairman(cpus, think, "sleep+fifo", 1e6))
    assert found == pytest.approx((rate, residence), rel=0.01)


def drained(blocks: int, each: bool) -> Bench:
    """A queue of blocks is drained for half of the time, in a critical section for each of them or one for all."""
    w = wiring.Wiring(seed=12)
    w.lock("section", "critical")
    enter, leave = {"lock": "section"}, {"unlock": "section"}
    one = [enter, {"work": 30_000}, leave] if each else [{"work": 30_000}]
    drain = one * blocks if each else [enter, *one * blocks, leave]
    w.source("drain", "task", [*drain, {"work": 30_000 * blocks}])
    w.source("irq", "device", law="poisson", rate_hz=5_000)
    machine = bench(w)
    machine.run(20 * SECOND)
    assert_books_balance(machine)
    return machine


@pytest.mark.parametrize(("each", "blocks"), [(True, 1), (False, 100)])
def test_the_99th_percentile_of_a_drain_is_that_of_its_longest_section(each, blocks) -> None:
    """An interrupt finds a section with a chance of a half, and then waits for a rest that is uniform."""
    starts = drained(100, each).histogram("irq_irq_start")
    assert starts[0] / starts.sum() == pytest.approx(0.5, abs=0.01)
    assert quantile(starts, 0.99, 1) == pytest.approx(0.98 * 30_000 * blocks, rel=0.02 + 1 / 32)


def test_past_its_rate_a_handler_loses_what_it_cannot_do_and_the_mainline_starves() -> None:
    """40 000 interrupts a second of 30 us each: M/M/1 with 33 places at a load of 1.2."""
    w = wiring.Wiring(depth=32, seed=13)
    w.source("irq", "device", [{"work": {"law": "exponential", "ns": 30_000}}], law="poisson", rate_hz=40_000)
    w.source("task", "task", [{"work": 1_000}])
    machine = bench(w)
    machine.run(60 * SECOND)
    assert_books_balance(machine)
    places, load = 33, 1.2
    empty = (1 - load) / (1 - load ** (places + 1))
    lost = empty * load**places
    assert machine.count(seen.LOST) / machine.count(seen.INTERRUPTS) == pytest.approx(lost, rel=0.02)
    assert machine.count(seen.DONE) / 60 == pytest.approx(1e9 / 30_000 * (1 - empty), rel=0.01)
    assert empty / 2 < machine.cpu_time()[0, cpu.TIME_MAIN] / (60 * SECOND) < 2 * empty
    inside = sum(k * load**k for k in range(places + 1)) * empty
    assert machine.mean("irq_irq_done") == pytest.approx(inside / (40_000 * (1 - lost)) * SECOND, rel=0.03)
    assert lost == pytest.approx(0.167, abs=0.001)
