"""The lazy buddy system: classes, pools, the rules of the slack, what goes back, agreement with a naive twin."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h
from naive_bsd import uncompiled
from naive_lazy_buddy import NaiveLazyBuddy
from naive_space import UpwardMap
from twins import play_sized, sized_program

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import lazy_buddy as lb
from kmemexp.sim.tables import panics, regs
from kmemexp.testing import check_allocator
from kmemexp.validate.hand import Hand

KVA = 1 << 22


def fresh(kva: int = KVA, **params: int) -> lb.State:
    return lb.init(lb.Params(**params), kva_bytes=kva, cpus=1, map_number=3, items=(), bases=())


def hand(limit: int = KVA, **params: int) -> Hand:
    return Hand(lb, fresh(**params), limit=limit)


def free_blocks(m: Hand, size: int, sort: str = "small") -> tuple[int, int]:
    """Locally and globally free blocks of a size."""
    census = lb.census(m.state)
    return census[f"{sort}_local_{size}"], census[f"{sort}_global_{size}"]


# fmt: off
TABLE = [  # requests from, to, block, pool
    (0, 16, 16, 4096), (17, 32, 32, 4096), (33, 64, 64, 4096), (65, 128, 128, 4096), (129, 256, 256, 4096),
    (257, 512, 512, 16384), (513, 1024, 1024, 16384), (1025, 2048, 2048, 16384), (2049, 4096, 4096, 16384),
]
# fmt: on


@pytest.mark.parametrize(("low", "high", "block", "pool"), TABLE)
def test_every_request_is_rounded_to_a_power_of_two_in_its_pool(low, high, block, pool):
    for size in (low, low + 1, high - 1, high):
        m = hand()
        assert m.alloc(size) == 0
        assert m.granted == block
        assert m.map_log == [("alloc", 0, pool)]


@pytest.mark.parametrize(("size", "pages"), [(4097, 2), (8192, 2), (8193, 3), (100000, 25)])
def test_a_request_beyond_the_pools_is_whole_pages_and_goes_back(size, pages):
    m = hand()
    addr = m.alloc(size)
    assert m.granted == pages * s.PAGE
    assert lb.census(m.state)["pages"] == pages
    m.free(addr, size=size)
    assert m.reg[0, regs.MAP] == 3
    assert m.map_log == [("alloc", 0, pages * s.PAGE), ("free", 0, pages * s.PAGE)]
    assert lb.census(m.state)["pages"] == 0


def test_a_split_hands_out_the_lower_half_and_leaves_the_upper_locally_free():
    m = hand()
    assert [m.alloc(256) for _ in range(4)] == [0, 256, 512, 768]
    assert free_blocks(m, 1024) == (1, 0)
    assert free_blocks(m, 2048) == (1, 0)


def test_freed_blocks_are_put_off_while_more_are_in_use_and_merged_in_pairs_after_that():
    m = hand(keep_pools=1)
    live = [m.alloc(256) for _ in range(16)]  # all of a pool: A = 16, L = 0, D = 16
    seen = []
    for addr in live:
        m.free(addr, size=256)
        seen.append(free_blocks(m, 256))
    assert seen[:8] == [(k, 0) for k in range(1, 9)]  # lazy: D = 14 … 0
    # Accelerated: the one that is freed, the ninth, and the one freed last before it, the eighth. They are no buddies
    # (2048 and 1792); then the tenth, and the seventh: both meet their buddies.
    assert seen[8:10] == [(7, 2), (6, 0)]
    assert seen[-1] == (0, 0)
    assert free_blocks(m, 4096) == (0, 1)


def nine_of_sixteen_freed() -> tuple[Hand, list[int]]:
    """Slack D = 0: all further frees are accelerated. Returns the blocks too."""
    m = hand()
    live = [m.alloc(256) for _ in range(16)]
    for addr in live[:9]:
        m.free(addr, size=256)
    assert free_blocks(m, 256) == (7, 2)
    return m, live


def test_in_the_reclaiming_state_only_the_block_itself_becomes_globally_free():
    m, _ = nine_of_sixteen_freed()
    again = [m.alloc(256) for _ in range(8)]  # seven that were locally free, and one that was globally: D = 15
    assert free_blocks(m, 256) == (0, 1)
    for addr in again[:7]:
        m.free(addr, size=256)
    assert free_blocks(m, 256) == (7, 1)  # D = 1
    m.free(again[7], size=256)
    assert free_blocks(m, 256) == (7, 2)


def test_a_request_takes_a_locally_free_block_before_a_globally_free_one():
    m, live = nine_of_sixteen_freed()
    assert m.alloc(256) == live[6]  # the last one that is locally free: the eighth is globally free
    assert free_blocks(m, 256) == (6, 2)


def test_a_pool_goes_back_when_all_of_it_is_free():
    m = hand()
    live = [m.alloc(100) for _ in range(32)]
    for addr in live:
        m.free(addr, size=100)
    assert m.map_log == [("alloc", 0, 4096), ("free", 0, 4096)]
    assert lb.census(m.state)["pages"] == 0


def test_pools_that_are_kept_are_used_again():
    m = hand(keep_pools=1)
    m.free(m.alloc(100), size=100)
    assert lb.census(m.state)["pages"] == 1
    assert m.alloc(16) == 0
    assert m.map_log == [("alloc", 0, 4096)]


def test_larger_requests_may_have_pools():
    m = hand(max_request=16384)
    m.alloc(8000)
    assert m.granted == 8192
    assert m.map_log == [("alloc", 0, 16384)]


@pytest.mark.parametrize("most", [255, 16385])
def test_a_largest_request_that_no_pool_serves_is_refused(most):
    with pytest.raises(ValueError, match="max_request"):
        fresh(max_request=most)


def test_more_kva_than_tables_cover_is_refused():
    with pytest.raises(ValueError, match="8 TiB"):
        fresh(1 << 44)


@pytest.mark.parametrize("size", [100, 9000])
def test_a_full_map_fails_and_without_map_entries_the_kernel_panics(size):
    m = hand(limit=0)
    assert m.alloc(size) == -1
    assert m.reg[0, regs.PANIC] == panics.NONE
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, regs.SIZE] = size
    assert lb.alloc(m.state, reg, 0) == s.MAP_ALLOC
    reg[0, regs.BASE] = s.NO_ENTRY
    assert lb.alloc(m.state, reg, 0) == s.FAILED
    assert reg[0, regs.PANIC] == panics.ENTRIES


PROGRAM = sized_program(16, 64, 256, 257, 1024)


@settings(max_examples=120)
@given(PROGRAM, h.sampled_from([1 << 16, 1 << 20]), h.sampled_from([0, 1, 3]), h.sampled_from([0, 1]))
def test_same_addresses_and_map_steps_as_the_naive_twin_and_nothing_lost(program, limit, keep, frees):
    m, space = hand(limit, keep_pools=keep), UpwardMap(limit)
    model = NaiveLazyBuddy(space.take, space.give, keep=keep)
    live = play_sized(m, model, program, frees)

    assert m.map_log == space.log
    for pools, sort in ((model.small, "small"), (model.large, "large")):
        for size in pools.local:
            assert free_blocks(m, size, sort) == (len(pools.local[size]), len(pools.glob[size]))
            if size != pools.pool:
                c = next(c for c in range(lb.CLASSES) if lb.class_bytes(c) == size and (c > 8) == (sort == "large"))
                assert m.state.klass[c, lb.SLACK] == pools.slack(size)
    granted = {addr: max(16, 1 << max(n - 1, 0).bit_length()) for addr, n in live.items()}
    granted = {a: g if live[a] <= 4096 else -(-live[a] // s.PAGE) * s.PAGE for a, g in granted.items()}
    assert all(a + granted[a] <= b for a, b in pairwise(sorted(live)))
    assert all(a % min(granted[a], s.PAGE) == 0 for a in live)
    census = lb.census(m.state)
    assert census["pages"] * s.PAGE == sum(n if step == "alloc" else -n for step, _, n in m.map_log)
    assert census["pages"] * s.PAGE == census["local_bytes"] + census["global_bytes"] + sum(granted.values())
    for addr, n in live.items():
        m.free(addr, size=n)
    census = lb.census(m.state)
    assert census["local_bytes"] == 0
    assert census["small_pools"] <= keep
    assert census["large_pools"] <= keep
    assert census["pages"] * s.PAGE == census["global_bytes"]


def test_it_agrees_with_the_twin_over_a_map_that_reuses_holes():
    check_allocator("lazy_buddy", naive=NaiveLazyBuddy, operations=800, seeds=(3,))


def test_compiled_and_python_kernels_agree():
    rng = np.random.default_rng(1)
    program = [(int(v), int(n)) for v, n in zip(rng.integers(0, 3, 400), rng.integers(0, 3000, 400), strict=True)]
    states = []
    for module in (lb, uncompiled(lb)):
        m, space = Hand(module, fresh(), limit=KVA), UpwardMap(KVA)
        play_sized(m, NaiveLazyBuddy(space.take, space.give), program)
        states.append(m.state)
    assert lb.census(states[0]) == lb.census(states[1])
    assert np.array_equal(states[0].klass, states[1].klass)
