"""Placement against theory, through the arenas' own code: worst cases exactly, loss systems by their exact chains.

Sources of the figures: Robson 1971, 1974 and 1977; Knuth, The Art of Computer Programming 1, section 2.5; Kaufman and
Roberts 1981. The tables of small worst cases and chains were computed apart, by other programs.
"""

import functools

import numpy as np
import pytest

from kmemexp.sim.arenas import sequential, vm_map
from kmemexp.sim.slots import PAGE
from kmemexp.validate import chains
from kmemexp.validate.chains import POLICIES, erlang_b, every_sequence, kaufman_roberts, loss, saturated
from kmemexp.validate.churn import Churn, birth_death, births_and_deaths, bound
from kmemexp.validate.placement import Arena, best_fit_killer, first_fit, fit, layout, robson_adversary

chain = functools.cache(chains.chain)  # several tests look at the same one


def heap(policy: str, cells: int) -> Arena:
    """An arena by the name of its policy; `vm_map` is FreeBSD's first fit."""
    return first_fit(cells) if policy == "vm_map" else fit(POLICIES[policy], cells)


# F1, F2: Robson's lower bound, which holds for any allocator that does not move.


@pytest.mark.parametrize("policy", ["vm_map", "FF", "BF", "NF"])
@pytest.mark.parametrize(("live", "largest", "high"), [(16, 2, 23), (64, 8, 153), (256, 16, 753), (1024, 64, 4033)])
def test_robsons_adversary_drives_every_policy_to_the_bound(policy, live, largest, high):
    assert robson_adversary(heap(policy, 6 * live), live, largest) == high


@pytest.mark.parametrize(("live", "largest", "high"), [(16, 2, 24), (64, 8, 160), (256, 16, 768), (1024, 64, 4096)])
@pytest.mark.parametrize("policy", ["vm_map", "FF"])
def test_natural_alignment_costs_the_rest_of_the_bound(policy, live, largest, high):
    assert robson_adversary(heap(policy, 6 * live), live, largest, aligned=True) == high


@pytest.mark.parametrize(("live", "largest", "high"), [(20, 8, 41), (100, 16, 289)])
def test_where_the_sizes_do_not_divide_a_few_cells_are_lost(live, largest, high):
    assert robson_adversary(first_fit(10 * live), live, largest) == high


@pytest.mark.parametrize("policy", ["FF", "BF", "NF"])
@pytest.mark.parametrize("largest", [2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("times", [2, 4, 6, 8, 10])
def test_the_bound_is_met_wherever_the_live_cells_are_a_multiple_of_twice_the_largest(policy, largest, times):
    live = largest * times
    doublings = largest.bit_length() - 1
    want = live * (doublings + 2) // 2 - largest + 1
    assert robson_adversary(heap(policy, 8 * live), live, largest) == want


# F3: the sequence that ruins best fit.


@pytest.mark.parametrize("policy", ["BF", "NF"])
@pytest.mark.parametrize(("m", "rounds", "high", "peak"), [(8, 20, 132, 42), (16, 50, 728, 104), (32, 100, 3060, 218)])
def test_robsons_sequence_ruins_best_fit_and_next_fit(policy, m, rounds, high, peak):
    arena = heap(policy, 2 * high)
    best_fit_killer(arena, m, rounds)
    assert (arena.high, arena.peak) == (high, peak) == ((rounds + 2) * (m - 2), rounds + 4 * m - 10)
    assert arena.live_cells == rounds + m - 2
    blocks = layout(arena)
    assert blocks[-1].sum() == (rounds + 1) * (m - 2)
    assert sorted(blocks[:, 1].tolist()) == [1] * rounds + [m - 2]


def test_the_same_sequence_leaves_first_fit_small():
    small, large = heap("vm_map", 400), heap("BF", 400)
    best_fit_killer(small, 16, 12)
    best_fit_killer(large, 16, 12)
    assert (small.high, large.high) == (91, 196)


# F4, F5: all sequences of requests.

WORST = [
    ((1, 2), range(2, 10), {
        "opt": (2, 4, 5, 7, 8, 10, 11, 13), "FF": (2, 4, 6, 7, 9, 11, 12, 14), "BF": (2, 4, 6, 7, 9, 11, 13, 14),
        "NF": (2, 4, 6, 7, 9, 11, 13, 15), "aligned": (2, 4, 6, 8, 8, 10, 12, 14)}),
    ((1, 2, 3), range(2, 9), {
        "opt": (2, 4, 6, 7, 9, 11, 13), "FF": (2, 4, 6, 8, 10, 13, 15), "BF": (2, 4, 6, 8, 10, 13, 16),
        "NF": (2, 4, 6, 8, 10, 13, 16)}),
    ((1, 2, 4), range(2, 9), {
        "opt": (2, 4, 5, 7, 9, 12, 13), "FF": (2, 4, 6, 8, 10, 13, 16), "BF": (2, 4, 6, 8, 11, 13, 17),
        "NF": (2, 4, 6, 8, 11, 13, 17), "aligned": (2, 4, 6, 8, 12, 12, 16)}),
    ((1, 2, 3, 4), range(2, 8), {
        "opt": (2, 4, 6, 8, 9, 12), "FF": (2, 4, 6, 8, 10, 13), "BF": (2, 4, 6, 8, 11, 14),
        "NF": (2, 4, 6, 8, 11, 14)}),
]  # fmt: skip
LAYOUTS = {
    ((1, 2), "FF"): (5, 15, 46, 129, 394, 1301, 3749),
    ((1, 2), "BF"): (5, 15, 46, 131, 644, 3103, 15662),
    ((1, 2, 3), "FF"): (5, 16, 56, 178, 611, 2360, 8157),
}
CASES = [
    pytest.param(sizes, limit, policy, worst, table["opt"][i], id=f"{sizes}-{limit}-{policy}")
    for sizes, limits, table in WORST
    for policy, column in table.items()
    if policy != "opt"
    for i, (limit, worst) in enumerate(zip(limits, column, strict=True))
]


@pytest.mark.parametrize(("sizes", "limit", "policy", "worst", "best"), CASES)
def test_worst_high_water_over_all_sequences(sizes, limit, policy, worst, best):
    states = 1_500_000 if policy == "NF" and limit > 7 else 150_000
    found = every_sequence(policy, sizes, limit, states=states)
    assert found.worst == worst >= best
    if (sizes, policy) in LAYOUTS and limit < 9:
        assert found.states == LAYOUTS[sizes, policy][limit - 2]
    if policy == "FF":
        assert every_sequence("vm_map", sizes, limit)[:2] == found[:2]
    if sizes == (1, 2):
        assert best == (3 * limit - 1) // 2


# F8 to F10: loss systems and the saturated queue, as exact Markov chains over the arena's layouts.


@pytest.mark.parametrize(("cells", "sizes"), [(8, (1, 2, 4)), (8, (1, 2, 3)), (12, (1, 2, 4)), (12, (1, 2, 3, 4))])
def test_vm_map_makes_the_same_chain_as_first_fit(cells, sizes):
    assert (chain("vm_map", sizes, cells).edges == chain("FF", sizes, cells).edges).all()


LOSS = [
    (8, {1: 1.0, 2: 1.0, 4: 0.25}, 1117, {
        "FF": (0.410261, 1.361256, 0.033777, 0.129446, 0.425240, 0.039194, 0.132141),
        "BF": (0.413236, 1.315476, 0.036456, 0.125182, 0.407289, 0.030391, 0.109812),
        "WF": (0.404241, 1.476040, 0.029504, 0.134264, 0.468040, 0.052691, 0.184674)}),
    (12, {1: 2.0, 2: 1.0, 4: 0.5}, 41641, {
        "FF": (0.437107, 1.738356, 0.014976, 0.074466, 0.287917, 0.031034, 0.135469),
        "BF": (0.441477, 1.644415, 0.017517, 0.071848, 0.261775, 0.023211, 0.101536),
        "WF": (0.422452, 2.105629, 0.009415, 0.078861, 0.377014, 0.048938, 0.250445)}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "load", "layouts", "policy", "want"),
    [(c, load, n, p, w) for c, load, n, table in LOSS for p, w in table.items()],
)
def test_loss_and_fragmentation_of_a_small_arena_under_poisson_load(cells, load, layouts, policy, want):
    found = chain(policy, tuple(load), cells)
    got = loss(found, load, cells)
    assert found.states <= layouts
    figures = [got.util, got.holes, *got.blocked, *got.fragmented[1:]]
    assert np.round(figures, 6) == pytest.approx(want, abs=1.1e-6)


@pytest.mark.parametrize(
    ("cells", "load", "want"),
    [
        (8, {1: 1.0, 2: 1.0, 4: 0.25}, (0.425837, 0.050408, 0.113597, 0.315698)),
        (12, {1: 2.0, 2: 1.0, 4: 0.5}, (0.453806, 0.028310, 0.066596, 0.182256)),
        (64, {1: 8.0, 2: 4.0, 4: 2.0, 8: 1.0, 16: 0.5}, (0.581788, 0.007583, 0.015762, 0.034036, 0.079120, 0.209191)),
        (1024, {1: 100, 2: 50, 4: 25, 16: 10, 64: 3}, (0.634765, 0.000082, 0.000165, 0.000336, 0.001483, 0.008883)),
    ],
)
def test_kaufman_roberts(cells, load, want):
    util, blocked = kaufman_roberts(cells, load)
    assert [util, *blocked] == pytest.approx(want, abs=6e-7)


@pytest.mark.parametrize(("cells", "load"), [(8, {1: 1.0, 2: 1.0, 4: 0.25}), (12, {1: 2.0, 2: 1.0, 4: 0.5})])
def test_a_map_that_serves_single_pages_loses_what_kaufman_and_roberts_say(cells, load):
    """Requests cut into pages: only the number of free cells matters, whatever is where."""
    arena = first_fit(cells)
    states, weight, fits = [()], [], []
    todo = [(0,) * len(load)]
    states = {todo[0]: 0}
    for state in todo:
        pages = [arena.alloc(1) for _ in range(int(np.dot(state, list(load))))]
        room = [_fits_in_pages(arena, z) for z in load]
        for addr in pages:
            arena.free(addr)
        fits.append(room)
        weight.append(
            np.prod([a**n / float(np.prod(range(1, n + 1))) for a, n in zip(load.values(), state, strict=True)])
        )
        for k, ok in enumerate(room):
            after = (*state[:k], state[k] + 1, *state[k + 1 :])
            if ok and after not in states:
                states[after] = len(todo)
                todo.append(after)
    pi = np.array(weight) / sum(weight)  # product form: every state is reached, and detailed balance holds
    _, want = kaufman_roberts(cells, load)
    assert (1 - pi @ np.array(fits)).tolist() == pytest.approx(want, abs=1e-12)


def _fits_in_pages(arena: Arena, cells: int) -> bool:
    got = [arena.alloc(1) for _ in range(cells)]
    for addr in got:
        if addr >= 0:
            arena.free(addr)
    return -1 not in got


SATURATED = [
    (8, {1: 1 / 3, 2: 1 / 3, 3: 1 / 3}, {"FF": (0.831023, 3.324091, 1.014226), "BF": (0.832655, 3.330621, 0.998578),
                                         "WF": (0.830296, 3.321185, 1.021810)}),
    (10, {1: 0.5, 2: 0.25, 4: 0.25}, {"FF": (0.802340, 4.011702, 1.221812), "BF": (0.807149, 4.035745, 1.181188),
                                      "WF": (0.800397, 4.001984, 1.243099)}),
    (12, {2: 0.5, 3: 0.5}, {"FF": (0.853318, 4.095924, 1.301143)}),
    (12, {1: 0.25, 2: 0.25, 3: 0.25, 4: 0.25}, {"BF": (0.816156, 3.917548, 1.342083)}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "law", "policy", "want"),
    [(c, law, p, w) for c, law, table in SATURATED for p, w in table.items()],
)
def test_a_saturated_arena(cells, law, policy, want):
    """A queue that is never empty; its head waits until it fits. A state is a layout and which size is at the head."""
    got = saturated(chain(policy, tuple(law), cells), law, cells)
    assert np.round(got, 6) == pytest.approx(want, abs=1.1e-6)


# F6: Knuth's fifty-percent rule in its exact form for n blocks: holes = (p n - 1 + h0) / 2, where p is the share of
# allocations that leave a remainder and h0 the share of the time in which the lowest piece is free.

BLOCKS = 1000
LAWS = {
    "1..1000": (lambda rng, n: rng.integers(1, 1001, n), (0.4906, 0.9820), (0.4289, 0.8588)),
    "1..10": (lambda rng, n: rng.integers(1, 11, n), (0.1995, 0.4003), (0.1022, 0.2057)),
    "1..4": (lambda rng, n: rng.integers(1, 5, n), (0.0931, 0.1877), (0.0496, 0.1004)),
    "exponential": (
        lambda rng, n: np.ceil(rng.exponential(100, n)).astype(np.int64),
        (0.4453, 0.8912),
        (0.3065, 0.6136),
    ),
    "2^0..2^7": (lambda rng, n: 1 << rng.integers(0, 8, n), (0.1052, 0.2108), (0.0548, 0.1103)),
    "all 7": (lambda rng, n: np.full(n, 7), (0.0, 0.0010), (0.0, 0.0010)),
}


@pytest.mark.parametrize(
    ("law", "policy"), [*((law, policy) for law in LAWS for policy in ("FF", "BF")), ("1..1000", "vm_map")]
)
def test_the_fifty_percent_rule(law, policy):
    draw, first, best = LAWS[law]
    rng = np.random.default_rng(11)
    pages = 2 * int(draw(rng, BLOCKS).sum()) + 4000
    churn = (
        Churn(vm_map, BLOCKS, pages, entry_limit=2 * pages) if policy == "vm_map"
        else Churn(sequential, BLOCKS, pages, policy=POLICIES[policy], tail_last=1)
    )  # fmt: skip
    churn.play(draw(rng, BLOCKS), np.arange(BLOCKS))
    churn.play(draw(rng, 60_000), rng.integers(0, BLOCKS, 60_000))
    steps, every = (300_000, 8) if first[0] > 0.4 else (800_000, 1)
    holes_, split, lowest_free = churn.play(draw(rng, steps), rng.integers(0, BLOCKS, steps), every)
    assert holes_ == pytest.approx((split * BLOCKS - 1 + lowest_free) / 2, rel=0.01, abs=0.2)
    want_holes, want_split = first if policy != "BF" else best
    assert (holes_ / BLOCKS, split) == (pytest.approx(want_holes, abs=0.006), pytest.approx(want_split, abs=0.012))


# F15: objects of one size at the lowest address, M/M/infinity: page j is busy with a (B(j-1, a) - B(j, a)).


def test_the_lowest_address_first_fills_as_erlangs_formula_says():
    load, events = 10.0, 1_500_000
    arrives, which, gaps = births_and_deaths(np.random.default_rng(3), load, events)
    state = vm_map.init(vm_map.Params(entry_limit=1000), kva_bytes=100 * PAGE, cpus=1, maps=1)
    busy = np.zeros(30)
    run = bound(birth_death, vm_map)
    run(state, arrives, which, gaps, np.zeros(100, np.int64), np.zeros(100, np.int8), busy, 0)
    got = busy / gaps.sum()
    want = {1: 0.909091, 5: 0.827110, 10: 0.586256, 15: 0.203222, 20: 0.018760, 25: 0.000439}
    for j, share in want.items():
        assert load * (erlang_b(j - 1, load) - erlang_b(j, load)) == pytest.approx(share, abs=6e-7)
        assert got[j - 1] == pytest.approx(share, abs=0.004)
