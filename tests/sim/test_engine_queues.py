"""The engine as a queue: Pollaczek-Khinchine (Q1), Cobham (Q2), the machine repairman (Q5), masked sections (Q6).

With each, the books that every run must balance (Q11). Runs are so long that four standard errors (of 20 batch means)
are less than the tolerance, a few per cent: laws of service and orders of priority differ by more. Seeds are fixed.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from kmemexp.boot import sources, wiring
from kmemexp.errors import ConfigError
from kmemexp.lane.latency import LOWER, quantile
from kmemexp.sim.engine.tables import cpu, glob, seen
from kmemexp.validate import machines
from kmemexp.validate.bench import Bench, bench
from kmemexp.validate.checks.queues import MASKED
from kmemexp.validate.machines import HOLD, SERVICE, UNIT, books

SECOND = 10**9


def assert_books_balance(machine: Bench) -> None:
    """Little's law for interrupts and for waits, and that each CPU's time went somewhere: exact, at any instant."""
    for what, one, other in books(machine):
        assert one == other, what


def settle(machine: Bench, step: int) -> None:
    """Go on until no interrupt is in the system."""
    while machine.count(seen.INSIDE):
        machine.run(machine.count(glob.NOW) + step)


def queue(law: str, shape: int, rho: float, million: float, seed: int = 1) -> Bench:
    """One handler that so many million interrupts have called, at Poisson times."""
    machine = machines.served(law, shape, rho, seed=seed)
    machine.run(round(million * 1e6 * SERVICE / rho))
    settle(machine, SERVICE)
    assert machine.count(seen.LOST) == 0
    assert_books_balance(machine)
    return machine


Q1 = {  # law, shape, c2: million interrupts by load
    ("fixed", 0, 0.0): {0.3: 0.2, 0.5: 0.2, 0.8: 0.7, 0.9: 2, 0.95: 5},
    ("erlang", 4, 0.25): {0.3: 0.3, 0.5: 0.3, 0.8: 0.8, 0.9: 2.3},
    ("exponential", 0, 1.0): {0.3: 0.3, 0.5: 0.3, 0.8: 1.2, 0.9: 3},
    ("hyperexponential", 4, 4.0): {0.3: 0.7, 0.5: 0.7, 0.8: 2},
}


@pytest.mark.parametrize(
    ("name", "shape", "c2", "rho", "million"), [(*law, rho, n) for law, loads in Q1.items() for rho, n in loads.items()]
)
def test_waits_of_one_handler_follow_pollaczek_khinchine(name, shape, c2, rho, million) -> None:
    machine = queue(name, shape, rho, million)
    done = machine.count(seen.DONE)
    wait = machine.count(seen.SOJOURN) / done / SERVICE - 1
    assert wait == pytest.approx(rho * (1 + c2) / (2 * (1 - rho)), rel=0.05)
    started = machine.histogram("irq_irq_start")
    assert started[0] / started.sum() == pytest.approx(1 - rho, rel=0.04)  # Poisson arrivals see an idle CPU so often
    assert machine.count(seen.AREA) == machine.count(seen.SOJOURN)
    idle, busy = machine.cpu_time()[0, [cpu.TIME_IDLE, cpu.TIME_THREAD]]
    assert busy / (idle + busy) == pytest.approx(rho, rel=0.02)
    if name == "fixed":
        assert busy == done * SERVICE


def test_sojourns_in_m_m_1_are_exponential() -> None:
    hist = queue("exponential", 0, 0.8, 1.5, seed=2).histogram("irq_irq_done")
    for q, expected in {0.5: 3.465736, 0.9: 11.512925, 0.99: 23.025851}.items():
        assert quantile(hist, q, 1) / SERVICE == pytest.approx(expected, rel=2 / 64 + 0.04)


def test_waits_in_m_d_1_have_the_law_of_erlang_and_crommelin() -> None:
    hist = queue("fixed", 0, 0.8, 1.5, seed=2).histogram("irq_irq_start")
    below = dict(zip(LOWER, np.cumsum(hist) - hist, strict=True))
    expected = {0.5: 0.298365, 1: 0.445108, 2: 0.634520, 3: 0.762100, 5: 0.899503, 8: 0.972406}
    assert hist[0] / hist.sum() == pytest.approx(0.2, abs=0.006)
    for t, p in expected.items():
        assert below[t * SERVICE] / hist.sum() == pytest.approx(p, abs=0.01)


LOADS = ((2, 0.1), (1, 0.2), (0.6, 0.5))  # arrivals per unit, mean service in units, of three classes


def classes(law: str, preemptive: bool, million: float, *, order: tuple[int, ...] = (0, 1, 2), many: int = 3) -> Bench:
    """Run the first so many classes; `order`: from the one of highest priority to the lowest."""
    machine = machines.classes(LOADS, law, preemptive, seed=3, order=order, many=many)
    machine.run(round(million * 1e6 / sum(rate for rate, _ in LOADS) * UNIT))
    assert machine.count(seen.LOST) == 0
    assert_books_balance(machine)
    return machine


def residual(law: str, many: int = 3) -> float:
    return machines.residual(LOADS, law, many)


def weighted_wait(machine: Bench) -> float:
    """Sum of load x mean wait, in units: rho W0 / (1 - rho) whatever the order (Kleinrock's conservation law)."""
    return sum(rate * mean * machine.mean(f"irq_c{k}_start") for k, (rate, mean) in enumerate(LOADS)) / UNIT


@pytest.mark.parametrize(("law", "million"), [("exponential", 2), ("fixed", 0.7)])
def test_non_preemptive_priorities_wait_as_cobham_says(law, million) -> None:
    machine = classes(law, False, million)
    sigma = [0, *itertools.accumulate(rate * mean for rate, mean in LOADS)]
    for k in range(3):
        wait = machine.mean(f"irq_c{k}_start") / UNIT
        assert wait == pytest.approx(residual(law) / ((1 - sigma[k]) * (1 - sigma[k + 1])), rel=0.05)
    assert weighted_wait(machine) == pytest.approx(0.7 * residual(law) / 0.3, rel=0.05)


@pytest.mark.parametrize(("law", "million"), [("exponential", 1.5), ("fixed", 0.5)])
def test_the_opposite_order_of_priorities_has_the_same_weighted_wait(law, million) -> None:
    machine = classes(law, False, million, order=(2, 1, 0))
    assert weighted_wait(machine) == pytest.approx(0.7 * residual(law) / 0.3, rel=0.05)


@pytest.mark.parametrize("law", ["exponential", "fixed"])
def test_preemptive_priorities_do_not_notice_lower_ones(law) -> None:
    """Exact sums: what the k-th class adds to the sojourns of those above, whose arrivals and waits stay the same."""
    runs = [classes(law, True, 1, many=many) for many in (1, 2, 3)]
    for k in range(3):
        same = [run.histogram(f"irq_c{k}_done") for run in runs[k:]]
        assert all((hist == same[0]).all() for hist in same)
    sums = np.diff([(0, 0), *((run.count(seen.SOJOURN), run.count(seen.DONE)) for run in runs)], axis=0)
    sigma = [0, *itertools.accumulate(rate * mean for rate, mean in LOADS)]
    for k, (_, mean) in enumerate(LOADS):
        above, with_own = 1 - sigma[k], 1 - sigma[k + 1]
        expected = mean / above + residual(law, k + 1) / (above * with_own)
        assert sums[k, 0] / sums[k, 1] / UNIT == pytest.approx(expected, rel=0.04)


def interrupt_over_thread(*, critical: bool, million: float) -> Bench:
    """An interrupt of 2 us every 10 us over work of 25 us every 50 us, both Poisson."""
    w = wiring.Wiring(depth=1 << 14, seed=4)
    w.lock("section", "critical")
    parts = (("irq", "fast", "fixed", 2_000, 10_000), ("work", "task", "exponential", 25_000, 50_000))
    for name, mode, law, service, each in parts:
        program = [{"work": {"law": law, "ns": service}}]
        if critical:
            program = [{"lock": "section"}, *program, {"unlock": "section"}]
        w.source(name, mode, program, law="poisson", rate_hz=1e9 / each)
    machine = bench(w)
    machine.run(round(million * 1e6 / 0.12 * 1000))
    assert machine.count(seen.LOST) == 0
    assert_books_balance(machine)
    return machine


def test_interrupts_preempt_thread_work() -> None:
    machine = interrupt_over_thread(critical=False, million=1.5)
    done = {name: machine.histogram(f"irq_{name}_done").sum() for name in ("irq", "work")}
    assert machine.mean("irq_irq_done") == pytest.approx(2250, rel=0.016 + 0.004)
    assert machine.mean("irq_work_done") == pytest.approx(84167, rel=0.04)
    together = (done["irq"] * 2250 + done["work"] * 84167) / machine.count(seen.DONE)
    assert machine.count(seen.SOJOURN) / machine.count(seen.DONE) == pytest.approx(together, rel=0.03)


def test_interrupts_wait_for_critical_thread_work() -> None:
    machine = interrupt_over_thread(critical=True, million=3)
    assert machine.mean("irq_irq_start") == pytest.approx(15_875, rel=0.05)
    assert machine.mean("irq_work_start") == pytest.approx(52_917, rel=0.05)


@pytest.mark.parametrize("spec", ["critical", "splhigh"])
@pytest.mark.parametrize(("law", "residual"), MASKED.items())
@pytest.mark.parametrize("pause", [0, 30_000])
def test_an_interrupt_waits_for_the_rest_of_the_section_that_it_finds(law, residual, spec, pause) -> None:
    machine = machines.section(law, spec, pause, seed=5)
    machine.run(16 * SECOND if pause else 8 * SECOND)
    closed = 10_000 / (10_000 + pause)
    assert machine.count(seen.SOJOURN) / machine.count(seen.DONE) == pytest.approx(closed * residual * 10_000, rel=0.02)
    assert machine.cpu_time()[0, cpu.TIME_IDLE] == 0
    assert_books_balance(machine)


@pytest.mark.parametrize("spec", ["none", "splnet"])
def test_an_interrupt_does_not_wait_for_a_section_that_does_not_mask_it(spec) -> None:
    w = wiring.Wiring(depth=1024, seed=5, model="spl")
    w.lock("section", spec)
    w.source("background", "task", [{"lock": "section"}, {"work": 10_000}, {"unlock": "section"}])
    w.source("irq", "device", law="poisson", rate_hz=1e5, klass="net")
    machine = bench(w)
    machine.run(SECOND)
    assert machine.count(seen.DONE) > 90_000
    assert machine.count(seen.SOJOURN) == 0
    assert_books_balance(machine)


def test_what_has_arrivals_cannot_sleep_by_the_same_timer() -> None:
    asleep = {"mode": "device", "law": "periodic", "period_ns": 4 * SERVICE, "program": [{"sleep": SERVICE}]}
    with pytest.raises(ConfigError, match=r"what has arrivals .* has no timer to sleep by"):
        sources.check({"sleeps": asleep})


def repairman(cpus: int, think: int, lock: str, cycles: float, hold: Mapping | None = None) -> Bench:
    """CPUs think for Z and then need a lock for S = HOLD, on average; about so many cycles."""
    machine = machines.repairman(cpus, think, lock, seed=9, hold=hold)
    machine.run(round(cycles * max((1 + think) / cpus, 1) * HOLD))
    assert_books_balance(machine)
    assert machine.cpu_time()[:, cpu.TIME_MAIN].sum() == machine.lock("shared")["held_ns"]
    return machine


def throughput_and_residence(machine: Bench) -> tuple[float, float]:
    """X and R of the lock, in S."""
    lock = machine.lock("shared")
    return lock["taken"] / machine.count(glob.NOW) * HOLD, lock["wait_ns"] / lock["taken"] / HOLD + 1


Q5 = {  # (Z, N): X, R; S = 1
    (9, 2): (0.198020, 1.1), (9, 4): (0.386191, 1.357558), (9, 8): (0.710842, 2.254261), (9, 10): (0.832037, 3.018700),
    (9, 16): (0.988948, 7.178816), (9, 32): (1.0, 23.0), (4, 2): (0.384615, 1.2), (4, 4): (0.689320, 1.802817),
    (4, 8): (0.969580, 4.250996), (4, 16): (0.999996, 12.000060), (19, 4): (0.198365, 1.164847),
    (19, 8): (0.390707, 1.475727), (19, 16): (0.735510, 2.753618), (19, 32): (0.998225, 13.056917),
}  # fmt: skip


@pytest.mark.parametrize(("think", "cpus"), Q5)
def test_a_contended_lock_is_a_machine_repairman(think, cpus) -> None:
    machine = repairman(cpus, think, "sleep", 0.3e6 if cpus > 10 else 0.15e6)
    assert throughput_and_residence(machine) == pytest.approx(Q5[think, cpus], rel=0.02)


def test_without_costs_it_does_not_matter_how_one_waits() -> None:
    waits = {lock: repairman(8, 9, lock, 1e5) for lock in ("sleep+fifo", "spin", "adaptive+fifo", "sleep+inherit+fifo")}
    assert all(machine.lock("shared") == waits["sleep+fifo"].lock("shared") for machine in waits.values())
    assert waits["spin"].cpu_time()[:, cpu.TIME_SPIN].sum() == waits["spin"].count(seen.WAIT_NS)
    assert waits["sleep+fifo"].cpu_time()[:, cpu.TIME_SPIN].sum() == 0


@pytest.mark.parametrize(
    ("law", "shape", "cpus", "million", "expected"),
    [
        ("fixed", 0, 4, 0.15, (0.39206, 1.1988)),
        ("fixed", 0, 16, 0.15, (0.99896, 7.0114)),
        ("hyperexponential", 4, 4, 0.6, (0.37520, 1.6510)),
        ("uniform", 0, 8, 0.15, None),
        ("two_point", 0, 8, 0.15, None),
    ],
)
def test_other_laws_of_holding_keep_within_the_bounds(law, shape, cpus, million, expected) -> None:
    hold = {"law": law, "shape": shape}
    x, r = throughput_and_residence(repairman(cpus, 9, "sleep", million * 1e6, hold))
    assert x <= min(cpus / 10, 1) * 1.01
    assert r >= max(1, cpus - 9) * 0.99
    assert x == pytest.approx(cpus / (r + 9), rel=0.02)  # Little's law for the whole cycle
    if expected:
        assert (x, r) == pytest.approx(expected, rel=0.02)
