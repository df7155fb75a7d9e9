"""Laws of caches and slabs, through the allocators' own code: survivors that pin slabs, trips to the depot.

After a spike of full slabs of k objects of which each survives with probability q, 1 - (1-q)^k of the slabs stay. A CPU
that allocates and frees by the toss of a coin goes to the depot once in M (M + 2) operations, with two magazines of M
rounds (Bonwick and Adams 2001, section 3, have the design; the law is a random walk's).
"""

import importlib

import numpy as np
import pytest

from kmemexp.sim import slots as s
from kmemexp.sim.items import Item
from kmemexp.validate.checks.caches import SIZES
from kmemexp.validate.hand import Hand
from kmemexp.validate.walk import trips_of_a_walk

KEPT = {  # (q, k): share of the slabs
    (0.1, 4): 0.343900, (0.1, 8): 0.569533, (0.1, 16): 0.814698, (0.1, 32): 0.965663, (0.1, 64): 0.998821,
    (0.01, 16): 0.148542, (0.01, 64): 0.474404, (0.01, 512): 0.994176, (0.001, 512): 0.400858,
}  # fmt: skip


def hand(name: str, items: tuple = (), **params: int) -> Hand:
    module = importlib.import_module(f"kmemexp.sim.allocators.{name}")
    bases = [-1] * len(items)
    state = module.init(module.Params(**params), kva_bytes=1 << 28, cpus=2, map_number=0, items=items, bases=bases)
    return Hand(module, state)


@pytest.mark.parametrize(("q", "k"), KEPT)
def test_survivors_pin_their_slabs(q, k):
    assert 1 - (1 - q) ** k == pytest.approx(KEPT[q, k], abs=6e-7)
    slabs = 12000 // k + 400 if k < 512 else 60
    m = hand("slub", cpu_partial=0)
    rng = np.random.default_rng(k)
    addrs = [m.alloc(SIZES[k], item=s.ITEM_MALLOC) for _ in range(slabs * k)]
    pages = m.module.census(m.state)["pages"]
    for addr in addrs:
        if rng.random() >= q:
            m.free(addr, item=s.ITEM_MALLOC, size=SIZES[k])
    left = m.module.census(m.state)["pages"] / pages
    spare = 12 / slabs  # a CPU's own slab and those that a node keeps (min_partial)
    error = 4 * np.sqrt(KEPT[q, k] * (1 - KEPT[q, k]) / slabs)
    assert KEPT[q, k] - error <= left <= KEPT[q, k] + error + spare


def test_a_type_stable_zone_keeps_everything():
    m = hand("zalloc", (Item(256, 1, 0),))
    addrs = [m.alloc(256, item=0) for _ in range(1600)]
    pages = m.module.census(m.state)["pages"]
    for addr in addrs:
        m.free(addr, item=0)
    assert m.module.census(m.state)["pages"] == pages


@pytest.mark.parametrize(("size", "rounds"), [(256, 7), (512, 3), (48, 15)])
def test_a_pair_of_magazines_goes_to_the_depot_once_in_m_times_m_plus_2(size, rounds):
    trips = trips_of_a_walk(size, 6_000_000, np.random.default_rng(rounds))
    assert 1 / trips.mean() == pytest.approx(rounds * (rounds + 2), rel=0.03)
