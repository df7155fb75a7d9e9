"""The engine as a queue: Pollaczek-Khinchine (Q1), with exact sums from the engine's own integrals (Q11)."""

import pytest
from sim.timed_machine import bench

from kmemexp import wiring

SERVICE = 10_000  # ns


@pytest.mark.parametrize(
    ("law", "shape", "c2", "rho", "seconds", "tolerance"),
    [("fixed", 0, 0.0, 0.5, 20, 0.02), ("erlang", 4, 0.25, 0.8, 60, 0.02), ("exponential", 0, 1.0, 0.8, 90, 0.03)],
)
def test_waits_of_one_handler_follow_pollaczek_khinchine(law, shape, c2, rho, seconds, tolerance) -> None:
    w = wiring.Wiring(depth=4096, seed=1)
    work = {"work": {"law": law, "ns": SERVICE, "shape": shape}}
    w.source("irq", "device", [work], law="poisson", rate_hz=rho * 1e9 / SERVICE)
    machine = bench(w)
    machine.run(seconds * 10**9)
    wait = machine.count("N_SOJOURN") / machine.count("N_DONE") / SERVICE - 1
    assert wait == pytest.approx(rho * (1 + c2) / (2 * (1 - rho)), rel=tolerance)
    assert machine.count("N_LOST") == 0
