"""Placement in worst cases and under random loads, by the arenas' own code: F1 to F10 and F15.

What is expected comes from closed forms, and from `layouts.py`, a model of placement written apart.
"""

from collections.abc import Iterator

import numpy as np

from kmemexp.sim.aliases import Words
from kmemexp.sim.arenas import sequential, vm_map
from kmemexp.sim.slots import PAGE
from kmemexp.validate import chains, layouts
from kmemexp.validate.chains import POLICIES
from kmemexp.validate.check import Check
from kmemexp.validate.churn import Churn, birth_death, births_and_deaths, bound
from kmemexp.validate.placement import Arena, best_fit_killer, first_fit, fit, robson_adversary
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting

ROBSON = "Robson, JACM 21 (1974)"
KNUTH = "Knuth, TAOCP 1, 2.5"
SMALL = ((1, 2), (1, 3), (2, 3), (1, 2, 3), (1, 2, 4), (1, 3, 4), (1, 2, 3, 4))
WORST_12 = {  # sizes 1 and 2, live cells 2 to 9, by the solver of the safety game and searches written apart
    "FF": (2, 4, 6, 7, 9, 11, 12, 14), "BF": (2, 4, 6, 7, 9, 11, 13, 14),
    "NF": (2, 4, 6, 7, 9, 11, 13, 15), "aligned": (2, 4, 6, 8, 8, 10, 12, 14),
}  # fmt: skip
LAYOUTS_12 = {"FF": (5, 15, 46, 129, 394, 1301, 3749), "BF": (5, 15, 46, 131, 644, 3103, 15662)}


def _heap(policy: str, cells: int) -> Arena:
    return first_fit(cells) if policy == "vm_map" else fit(POLICIES[policy], cells)


def _wrong(arena: Arena) -> str:
    """What an arena's own check says of it, and whether it counts the bytes that are allocated."""
    try:
        arena.module.check(arena.state, 0)
    except AssertionError as error:
        return str(error)
    used = arena.module.used(arena.state, 0)
    return "" if used == arena.live_cells * PAGE else f"{used} bytes are said to be used"


def robson(s: Setting) -> Iterator[Row]:
    """F1: the adversary drives every policy to the bound that holds for any allocator that does not move."""
    of = Wanted("F1", ROBSON, "A")
    for policy in ("vm_map", "FF", "BF", "NF"):
        for _ in range(round(s.long(2, 6))):
            doublings, times = s.whole(1, 6), 2 * s.whole(1, 4)
            largest = 1 << doublings
            live = largest * times
            wanted = live * (doublings + 2) // 2 - largest + 1
            arena = _heap(policy, 8 * live)
            high = robson_adversary(arena, live, largest)
            yield of.exact(f"{policy}: adversary of {live} live cells, sizes 1 … {largest}: high water", wanted, high)
            yield of.holds(f"{policy}: the same: its lists are whole, its bytes add up", not _wrong(arena))
    for live, largest, wanted in ((20, 8, 41), (100, 16, 289)):
        high = robson_adversary(first_fit(10 * live), live, largest)
        yield of.exact(f"vm_map: {live} live cells do not divide by {largest}: high water", wanted, high)


def robson_aligned(s: Setting) -> Iterator[Row]:
    """F2: natural alignment costs the rest of the bound."""
    of = Wanted("F2", ROBSON, "A")
    for policy in ("vm_map", "FF"):
        for _ in range(round(s.long(2, 6))):
            doublings, times = s.whole(1, 6), 2 * s.whole(1, 3)
            live = times << doublings
            high = robson_adversary(_heap(policy, 8 * live), live, 1 << doublings, aligned=True)
            what = f"{policy}, aligned: adversary of {live} live cells, sizes 1 … {1 << doublings}: high water"
            yield of.exact(what, live * (doublings + 2) // 2, high)


def killer(s: Setting) -> Iterator[Row]:
    """F3: the sequence that ruins best fit and next fit, and leaves first fit small."""
    of = Wanted("F3", "Robson, Computer J. 20 (1977)", "A")
    for policy in ("BF", "NF"):
        m, rounds = s.whole(7, 30), s.whole(10, 50)
        arena = _heap(policy, 2 * (rounds + 2) * m)
        best_fit_killer(arena, m, rounds)
        got = (arena.high, arena.peak, arena.live_cells)
        what = f"{policy}: sizes to {m}, {rounds} rounds: high water, peak live, live at the end"
        yield of.all_equal(what, ((rounds + 2) * (m - 2), rounds + 4 * m - 10, rounds + m - 2), got)
    for policy, high in (("vm_map", 91), ("BF", 196)):
        arena = _heap(policy, 400)
        best_fit_killer(arena, 16, 12)
        yield of.exact(f"{policy}: sizes to 16, 12 rounds: high water", high, arena.high)


def worst_cases(s: Setting) -> Iterator[Row]:
    """F4, F5: every sequence of requests; worst high water and number of layouts, against a model written apart."""
    of = Wanted("F4", "search by a model written apart", "A")
    above = Wanted("F5", f"{KNUTH}, ex. 36", "A")
    for policy in ("vm_map", "vm_map, aligned", "FF", "BF", "NF", "aligned"):
        model = {"vm_map": "FF", "vm_map, aligned": "aligned"}.get(policy, policy)
        for sizes in s.some(SMALL, 2):
            limit = s.whole(3, 5)
            found = chains.every_sequence(policy, sizes, limit)
            told = layouts.search(model, sizes, limit)
            what = f"{policy}: sizes {', '.join(map(str, sizes))}, {limit} live cells, all sequences"
            yield of.all_equal(f"{what}: worst high water, layouts", told[:2], found[:2])
        limit = {"brief": 5, "quick": 7, "full": 9}[s.level]
        found = chains.every_sequence(policy, (1, 2), limit, states=2_000_000 if limit > 7 else 150_000)
        table = model
        yield of.exact(f"{policy}: sizes 1, 2, {limit} live cells: worst high water", WORST_12[table][limit - 2],
                       found.worst)  # fmt: skip
        if table in LAYOUTS_12 and limit < 9:
            yield of.exact(f"{policy}: the same: layouts", LAYOUTS_12[table][limit - 2], found.states)
        game = (3 * limit - 1) // 2
        yield above.holds(f"{policy}: not better than the best allocator that does not move ({game})",
                          found.worst >= game)  # fmt: skip


LAWS = ("uniform", "exponential", "powers of two")


def _sizes(law: str, mean: int, rng: np.random.Generator, n: int) -> Words:
    drawn: Words
    if law == "uniform":
        drawn = rng.integers(1, 2 * mean, n)
    elif law == "exponential":
        drawn = np.ceil(rng.exponential(mean, n)).astype(np.int64)
    else:
        drawn = 1 << rng.integers(0, max(mean.bit_length(), 2), n)
    return drawn


def fifty_percent(s: Setting) -> Iterator[Row]:
    """F6: the rule in its exact form for N blocks: holes = (p N - 1 + h0) / 2."""
    of = Wanted("F6", f"{KNUTH}; exact form for N blocks", "B")
    blocks, rng = 500, s.rng
    for policy in ("vm_map", *s.some(("FF", "BF"), 1)):
        for law in s.some(LAWS, 1):
            mean = s.whole(20, 200)
            pages = 3 * blocks * mean + 8000
            churn = (
                Churn(vm_map, blocks, pages, entry_limit=2 * pages) if policy == "vm_map"
                else Churn(sequential, blocks, pages, policy=POLICIES[policy], tail_last=1)
            )  # fmt: skip
            churn.play(_sizes(law, mean, rng, blocks), np.arange(blocks))
            warm, steps = 30_000, round(s.long(8_000, 40_000))
            churn.play(_sizes(law, mean, rng, warm), rng.integers(0, blocks, warm))
            rule = []
            for _ in range(25):
                holes, split, lowest = churn.play(_sizes(law, mean, rng, steps), rng.integers(0, blocks, steps), 4)
                rule.append(holes / ((split * blocks - 1 + lowest) / 2))
            yield of.estimate(f"{policy}: {blocks} blocks, {law} of mean {mean}: holes by the rule", 1.0, rule,
                              tolerance=0.1)  # fmt: skip
    churn = Churn(vm_map, blocks, 8 * blocks, entry_limit=8 * blocks)
    churn.play(np.full(blocks, 7), np.arange(blocks))
    churn.play(np.full(5000, 7), rng.integers(0, blocks, 5000))
    holes, *_ = churn.play(np.full(2000, 7), rng.integers(0, blocks, 2000), 1)
    yield Wanted("F6", KNUTH, "A").exact("vm_map: blocks of one size leave no hole but that of the one freed", 0, holes,
                                         within=1e-12)  # fmt: skip


def loss_chains(s: Setting) -> Iterator[Row]:
    """F8, F9: a small arena under Poisson load as the exact chain of its own layouts, with rates drawn anew."""
    of = Wanted("F8", "exact chain of a model written apart", "A")
    cells, sizes = 8, s.one(((1, 2, 4), (1, 2, 3), (1, 3, 4)))
    load = {size: s.uniform(0.2, 2.0) / size for size in sizes}
    for policy in ("vm_map", "FF", "BF", "WF"):
        got = chains.loss(chains.chain(policy, sizes, cells), load, cells)
        told = chains.loss(layouts.search("FF" if policy == "vm_map" else policy, sizes, cells, cells), load, cells)
        rates = ", ".join(f"{size}: {rate:.3g}" for size, rate in load.items())
        yield of.all_equal(f"{policy}: {cells} cells, load {{{rates}}}: use, holes, losses",
                           np.hstack(told), np.hstack(got), within=1e-9)  # fmt: skip
    table = Wanted("F8", "exact chain, tabulated", "A")
    published = {"vm_map": (0.410261, 1.361256, 0.033777, 0.129446, 0.425240, 0.039194, 0.132141),
                 "BF": (0.413236, 1.315476, 0.036456, 0.125182, 0.407289, 0.030391, 0.109812),
                 "WF": (0.404241, 1.476040, 0.029504, 0.134264, 0.468040, 0.052691, 0.184674)}  # fmt: skip
    fixed = {1: 1.0, 2: 1.0, 4: 0.25}
    for policy, told_by in published.items():
        got = chains.loss(chains.chain(policy, tuple(fixed), 8), fixed, 8)
        figures = [got.util, got.holes, *got.blocked, *got.fragmented[1:]]
        yield table.all_equal(f"{policy}: 8 cells, load {{1: 1, 2: 1, 4: 0.25}}", told_by, figures, within=1.1e-6)


def saturated_chains(s: Setting) -> Iterator[Row]:
    """F10: a queue that is never empty."""
    of = Wanted("F10", "exact chain of a model written apart", "A")
    cells, sizes = s.whole(7, 9), s.one(((1, 2, 3), (2, 3), (1, 2, 4), (1, 3)))
    weights = s.rng.integers(1, 5, len(sizes))
    law = dict(zip(sizes, (weights / weights.sum()).tolist(), strict=True))
    for policy in ("vm_map", "BF", "WF"):
        got = chains.saturated(chains.chain(policy, sizes, cells), law, cells)
        told = chains.saturated(
            layouts.search("FF" if policy == "vm_map" else policy, sizes, cells, cells), law, cells
        )  # fmt: skip
        shares = ", ".join(f"{size}: {share:.3g}" for size, share in law.items())
        yield of.all_equal(f"{policy}: {cells} cells, sizes {{{shares}}}: use, blocks, holes", told, got, within=1e-8)
    got = chains.saturated(chains.chain("vm_map", (1, 2, 3), 8), {1: 1 / 3, 2: 1 / 3, 3: 1 / 3}, 8)
    of = Wanted("F10", "exact chain, tabulated", "A")
    yield of.all_equal("vm_map: 8 cells, sizes 1, 2, 3 alike", (0.831023, 3.324091, 1.014226), got, within=1.1e-6)


def lowest_first(s: Setting) -> Iterator[Row]:
    """F15: one size at the lowest address first: the j-th page is busy with a (B(j-1, a) - B(j, a))."""
    of = Wanted("F15", "Erlang B of an ordered hunt", "B")
    load, events = s.uniform(5, 15), round(s.long(250_000, 1_500_000))
    arrives, which, gaps = births_and_deaths(s.rng, load, events)
    state = vm_map.init(vm_map.Params(entry_limit=1000), kva_bytes=200 * PAGE, cpus=1, maps=1)
    addrs, slots, run = np.zeros(200, np.int64), np.zeros(200, np.int8), bound(birth_death, vm_map)
    shares, size, live = [], events // 26, 0
    for k in range(26):
        busy, part = np.zeros(40), slice(k * size, (k + 1) * size)
        live = run(state, arrives[part], which[part], gaps[part], addrs, slots, busy, live)
        shares.append(busy / gaps[part].sum())
    for j in sorted({1, round(load / 2), round(load), round(load + 3)}):
        expected = load * (chains.erlang_b(j - 1, load) - chains.erlang_b(j, load))
        yield of.estimate(f"vm_map: load {load:g}: page {j} busy", expected, [share[j - 1] for share in shares[1:]],
                          tolerance=0.25)  # fmt: skip


CHECKS = (
    Check("F1", robson, 4),
    Check("F2", robson_aligned, 3),
    Check("F3", killer),
    Check("F4", worst_cases, 6),
    Check("F6", fifty_percent, 6),
    Check("F8", loss_chains, 4),
    Check("F10", saturated_chains, 4),
    Check("F15", lowest_first, 2),
)
