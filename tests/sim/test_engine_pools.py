"""The engine as a loss system: pools of pages and of KVA, reserves, finite sources, full rings (Q7-Q10).

Requests that cannot wait are lost when the pool is empty: how many, follows from Erlang, Engset and birth-death chains.
Expected numbers: closed forms, tabulated in the project's validation suite. Each is met within four standard errors, by
batch means, and the run is long enough for these to be small.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from kmemexp.boot import timed, wiring
from kmemexp.lane.timed import advance
from kmemexp.sim.engine.tables import seen
from kmemexp.sim.maps import EXEC
from kmemexp.sim.maps import PAGER as PAGER_MAP
from kmemexp.sim.tables import obj, tally
from kmemexp.validate.bench import bench
from kmemexp.validate.chains import erlang_b
from kmemexp.validate.pools import (
    BATCHES,
    INTERRUPT,
    LAWS,
    MAIN,
    SCALE,
    Losses,
    batches,
    config,
    congestion,
    engset,
    finite_sources,
    full_ring,
    load,
    play,
    reserved,
    unit,
)


def agrees(values: Sequence[float], expected: float, tolerance: float, weights: Sequence[float] | None = None) -> None:
    """Compare the (weighted) mean of batches with what is expected; `tolerance` is what 4 standard errors may be."""
    values = np.asarray(values, float)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    mean = np.average(values, weights=weights)
    error = np.sqrt(np.sum((weights * (values - mean)) ** 2) / (1 - 1 / len(values))) / weights.sum()
    assert 4 * error < tolerance * expected
    assert mean == pytest.approx(expected, abs=4 * error), error


def test_closed_forms_are_those_of_the_tables() -> None:
    assert [erlang_b(*at) for at in ((10, 5), (64, 50))] == pytest.approx([0.018385, 0.008439], abs=6e-7)
    assert engset(16, 4, 0.25) == pytest.approx((0.250689, 0.224470), abs=6e-7)
    assert reserved(20, 12, 3, 2) == pytest.approx((0.100247, 2.009402e-3), abs=6e-7)
    assert reserved(20, 12, 3, 0) == pytest.approx((0.045593, 0.045593), abs=6e-7)
    assert full_ring(1.5, 4) == pytest.approx(0.383886, abs=6e-7)


def lost(losses: Losses, level: int, expected: float, tolerance: float) -> None:
    asked, refused = batches(losses.asked[level]), batches(losses.refused[level])
    agrees(refused / asked, expected, tolerance, weights=asked)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("units", "offered", "loss"), [(1, 1, 0.5), (5, 3, 0.110054), (10, 5, 0.018385)])
def test_a_pool_loses_what_erlang_says_whatever_the_law_of_the_holding_times(units, offered, loss, law) -> None:
    lost(play({"unit": unit(offered, LAWS[law])}, 5e5, pages=units), MAIN, loss, 0.12)


@pytest.mark.parametrize(
    ("units", "offered", "loss", "tolerance"),
    [(2, 1, 0.2, 0.08), (10, 8, 0.121661, 0.08), (16, 10, 0.022302, 0.16), (32, 20, 0.003380, 0.4),
     (64, 50, 0.008439, 0.4)],
)  # fmt: skip
def test_larger_pools_lose_less_as_erlang_says(units, offered, loss, tolerance) -> None:
    interrupts = {"unit": unit(offered, level=INTERRUPT)}
    lost(play(interrupts, 2e5, pages=units), INTERRUPT, loss, tolerance)


@pytest.mark.parametrize(("units", "offered", "mean"), [(10, 5, 4.908077), (64, 50, 49.578029)])
def test_pages_in_use_are_what_is_offered_less_what_is_lost(units, offered, mean) -> None:
    losses = play({"unit": unit(offered)}, 4e5, pages=units, per_batch=400)
    agrees(batches(losses.in_use) / 400, mean, 0.03)


@pytest.mark.parametrize(
    ("reserve", "main", "interrupt"),
    [(0, 0.045593, 0.045593), (1, 0.072556, 9.463832e-3), (2, 0.100247, 2.009402e-3), (4, 0.169954, 9.774362e-5)],
)
def test_a_reserve_shifts_losses_from_interrupts_to_the_mainline(reserve, main, interrupt) -> None:
    kinds = {"main": unit(12), "interrupt": unit(3, level=INTERRUPT)}
    losses = play(kinds, 1.5e6 if reserve == 4 else 5e5, pages=20, reserve=reserve)
    lost(losses, MAIN, main, 0.1)
    lost(losses, INTERRUPT, interrupt, 1.3 if reserve == 4 else 0.45)


def test_a_reserve_of_a_large_pool() -> None:
    losses = play({"main": unit(50), "interrupt": unit(5, level=INTERRUPT)}, 4e5, pages=64, reserve=1)
    lost(losses, MAIN, 0.035480, 0.25)
    lost(losses, INTERRUPT, 2.571044e-3, 0.65)


@pytest.mark.parametrize(
    ("sizes", "loads", "losses", "tolerance"),
    [((10, 10), (5, 5), (0.018385, 0.018385), 0.2), ((5, 15), (4, 6), (0.199067, 0.000892), 0.65),
     ((16, 4), (12, 3), (0.060413, 0.206107), 0.1)],
)  # fmt: skip
def test_each_of_two_maps_loses_what_it_would_alone(sizes, loads, losses, tolerance) -> None:
    kinds = {"main": unit(loads[0], klass="exec"), "interrupt": unit(loads[1], level=INTERRUPT, klass="pager")}
    found = play(kinds, 3e5, maps={EXEC: sizes[0], PAGER_MAP: sizes[1]})
    lost(found, MAIN, losses[0], tolerance)
    lost(found, INTERRUPT, losses[1], tolerance)


def test_one_map_for_both_loses_ten_times_less_than_two_halves() -> None:
    kinds = {"main": unit(5, klass="exec"), "interrupt": unit(5, level=INTERRUPT, klass="exec")}
    found = play(kinds, 6e5, maps={EXEC: 20})
    lost(found, MAIN, 0.001869, 0.5)
    lost(found, INTERRUPT, 0.001869, 0.5)


@pytest.mark.parametrize(
    ("sources", "units", "rate", "time", "call"),
    [(10, 3, 0.2, 0.166667, 0.136808), (8, 4, 0.5, 0.187166, 0.134100), (16, 4, 0.25, 0.250689, 0.224470),
     (32, 8, 0.25, 0.154058, 0.140374), (64, 16, 0.2, 0.028261, 0.025327)],
)  # fmt: skip
def test_requests_of_finite_sources_find_the_pool_empty_less_often_than_it_is(sources, units, rate, time, call) -> None:
    machine = finite_sources(sources, units, rate, seed=3)
    asked, refused, looks, empty = congestion(machine, int(1e6 / (sources * (1 + rate) + 5) / SCALE * 1e9 / 20))
    agrees(refused / asked, call, 0.2, weights=asked)
    agrees(empty / looks, time, 0.2, weights=looks)
    assert refused.sum() / asked.sum() < empty.sum() / looks.sum()


@pytest.mark.parametrize(
    ("rho", "room", "loss"), [(0.8, 5, 0.088819), (0.9, 10, 0.050814), (1.0, 7, 0.125), (1.5, 4, 0.383886)]
)
def test_a_ring_of_interrupts_that_is_full_loses_those_that_come(rho, room, loss) -> None:
    w = wiring.Wiring(depth=room - 1, seed=4)
    work = {"work": {"law": "exponential", "ns": 10_000}}
    w.source("irq", "device", [work], law="poisson", rate_hz=rho * 1e5)
    machine = bench(w)
    rows = []
    for batch in range(BATCHES + 1):
        machine.run((batch + 1) * 250_000_000)
        rows.append([machine.count(seen.INTERRUPTS), machine.count(seen.LOST)])
    came, none = np.diff(rows, axis=0).T
    agrees(none / came, loss, 0.1, weights=came)


def test_live_objects_are_poisson_and_live_bytes_compound_poisson_in_the_machine() -> None:
    size = {"law": "uniform", "low_bytes": 1, "high_bytes": 191}
    kind = {"class": "malloc", "size": size, "rate_hz": 1000.0, "lifetime": {"law": "exponential", "mean_s": 0.2}}
    made = load({"object": kind}, 600.0, 5)
    t = timed.boot(config(), made.kinds, made.streams[0], 0)
    t = advance(t, 2_000_000_000)
    live, held = [], []
    for second in range(2, 600):
        t = advance(t, second * 1_000_000_000)
        objects, counters = t.world.objects, t.world.counters
        there = objects[:, obj.ADDR] >= 0
        live.append(int(there.sum()))
        held.append(int(objects[there, obj.SIZE].sum()))
        assert live[-1] == counters[tally.ALLOCS] - counters[tally.FREES]
        assert held[-1] == counters[tally.REQUESTED]
    n = len(live)
    assert np.mean(live) == pytest.approx(200, abs=4 * np.sqrt(200 / n))
    assert np.var(live) == pytest.approx(200, rel=4 * np.sqrt(2 / n))
    assert np.mean(np.array(live) > 230) == pytest.approx(1.714754e-2, abs=4 * np.sqrt(1.714754e-2 / n))
    assert np.mean(held) == pytest.approx(19200, abs=4 * 1565.63 / np.sqrt(n))
    assert np.std(held) == pytest.approx(1565.63, rel=4 * np.sqrt(0.5 / n))
