"""mbufs and clusters: pages, order, chains, a full mb_map, and agreement with a naive model.

What holds for mb_alloc too is tested here for both.
"""

from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h
from naive_bsd import NaiveMbufs, uncompiled
from twins import chain

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import mb_alloc, mbuf
from kmemexp.sim.tables import panics, regs
from kmemexp.validate.hand import Hand

KVA = 1 << 22


def fresh(module: ModuleType = mbuf, **params: int) -> Any:
    return module.init(module.Params(**params), kva_bytes=KVA, cpus=1, map_number=4, items=(), bases=())


def hand(limit: int = KVA, **params: int) -> Hand:
    return Hand(mbuf, fresh(**params), limit=limit)


def free_list(state: mbuf.State, sort: int) -> list[int]:
    return chain(state.link, state.pool[sort, mbuf.HEAD], mbuf.NIL, 256)


def test_a_page_is_16_mbufs_highest_first():
    m = hand()
    m.next = 0x3000
    assert [m.alloc(256) for _ in range(16)] == [0x3000 + 256 * k for k in reversed(range(16))]
    assert m.map_log == [("alloc", 0x3000, s.PAGE)]
    m.alloc(1)
    assert len(m.map_log) == 2


def test_a_page_is_2_clusters_highest_first():
    m = hand()
    assert [m.alloc(2048), m.alloc(257), m.alloc(1500)] == [2048, 0, 6144]
    assert m.granted == 2048


BOTH = pytest.mark.parametrize("module", [mbuf, mb_alloc])


@BOTH
@pytest.mark.parametrize(
    ("size", "granted"), [(0, 256), (1, 256), (256, 256), (257, 2048), (2048, 2048), (2049, 4096), (9000, 10240)]
)
def test_granted_bytes(module, size, granted):
    m = Hand(module, fresh(module), limit=KVA)
    m.alloc(size)
    assert m.granted == granted


@BOTH
def test_the_map_is_asked_for_wired_pages(module):
    state, reg = fresh(module), np.zeros((1, regs.COLUMNS), np.int64)
    assert module.alloc(state, reg, 0) == s.MAP_ALLOC
    kept, pages = s.ATTR_KMEM | s.ATTR_NOFREE, {mbuf: 1, mb_alloc: 2}[module]
    assert reg[0, [regs.MAP, regs.BYTES, regs.ALIGN, regs.ATTR]].tolist() == [4, pages * s.PAGE, s.PAGE, kept]


def test_pages_stay_with_their_sort():
    m = hand()
    for addr in [m.alloc(256) for _ in range(64)]:
        m.free(addr)
    m.alloc(2048)
    assert mbuf.census(m.state) == {
        "pages": 5, "mbufs": 64, "free_mbufs": 64, "clusters": 2, "free_clusters": 1, "map_full": 0,
    }  # fmt: skip


def test_last_freed_is_first_reused():
    m = hand()
    a, b = m.alloc(100), m.alloc(100)
    m.free(b)
    m.free(a)
    assert [m.alloc(100), m.alloc(100)] == [a, b]


def test_a_long_request_is_a_chain_and_comes_back_whole():
    m = hand()
    first = m.alloc(5000)
    assert first == 2048
    assert mbuf.census(m.state)["free_clusters"] == 1
    m.free(first)
    # The chain was 2048, 0, 6144, pushed in that order.
    assert free_list(m.state, mbuf.CLUSTER) == [6144, 0, 2048, 4096]


def test_a_full_map_fails_without_panic_and_is_not_asked_again():
    m = hand(limit=s.PAGE)
    got = [m.alloc(2048) for _ in range(3)]
    assert got == [2048, 0, -1]
    assert m.reg[0, regs.PANIC] == panics.NONE
    assert m.answers == [s.MAP_ALLOC, s.SLEEP, s.FAILED]
    assert m.alloc(100) == -1
    assert m.answers == [s.SLEEP, s.FAILED]
    m.free(2048)
    assert m.alloc(2048) == 2048


def test_a_chain_that_cannot_be_finished_is_given_up():
    m = hand(limit=2 * s.PAGE)
    assert m.alloc(5 * 2048) == -1
    assert mbuf.census(m.state)["free_clusters"] == 4
    assert m.alloc(4 * 2048) >= 0


def test_without_map_entries_the_kernel_panics():
    state, reg = fresh(), np.zeros((1, regs.COLUMNS), np.int64)
    mbuf.alloc(state, reg, 0)
    reg[0, regs.BASE] = s.NO_ENTRY
    assert mbuf.alloc(state, reg, 0) == s.FAILED
    assert reg[0, regs.PANIC] == panics.ENTRIES
    assert mbuf.census(state)["map_full"] == 0


def test_limits_keep_each_sort_to_its_share():
    m = hand(nmbufs=16, nmbclusters=2)
    assert sum(m.alloc(256) >= 0 for _ in range(20)) == 16
    assert sum(m.alloc(2048) >= 0 for _ in range(5)) == 2
    assert mbuf.census(m.state)["map_full"] == 0


def test_more_kva_than_tables_cover_is_refused():
    with pytest.raises(ValueError, match="8 TiB"):
        mbuf.init(mbuf.Params(), kva_bytes=1 << 44, cpus=1, map_number=0, items=(), bases=())


PROGRAM = h.lists(
    h.tuples(h.integers(0, 2), h.one_of(h.sampled_from([0, 100, 256, 1500, 2048]), h.integers(0, 9000))), max_size=150
)


def play(m: Hand, model: NaiveMbufs, program: list[tuple[int, int]]) -> list[int]:
    """Run a program on both, one free to two allocations; returns the live addresses."""
    live: list[int] = []
    for verb, number in program:
        if verb == 0 and live:
            addr = live.pop(number % len(live))
            m.free(addr)
            model.free(addr)
        else:
            addr = model.alloc(number)
            assert m.alloc(number) == (-1 if addr is None else addr)
            if addr is not None:
                piece, got = model.live[addr]
                assert m.granted == piece * len(got)
                live.append(addr)
    return live


@settings(max_examples=80)
@given(PROGRAM, h.sampled_from([1 << 14, 1 << 16, KVA]))
def test_same_addresses_as_the_naive_model_and_nothing_lost(program, limit):
    m, model = hand(limit=limit), NaiveMbufs(limit)
    live = play(m, model, program)

    pieces = sorted((a, a + size) for size, got in model.live.values() for a in got)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(pieces))
    assert all(begin % (end - begin) == 0 for begin, end in pieces)
    assert free_list(m.state, mbuf.MBUF) == model.lists[256][::-1]
    assert free_list(m.state, mbuf.CLUSTER) == model.lists[2048][::-1]
    census = mbuf.census(m.state)
    assert census["map_full"] == model.full
    idle = 256 * census["free_mbufs"] + 2048 * census["free_clusters"]
    assert census["pages"] * s.PAGE == idle + sum(end - begin for begin, end in pieces) == m.next

    for addr in live:
        m.free(addr)
    census = mbuf.census(m.state)
    assert census["free_mbufs"] == census["mbufs"]
    assert census["free_clusters"] == census["clusters"]


def test_compiled_and_python_kernels_agree():
    rng = np.random.default_rng(3)
    program = list(zip(rng.integers(0, 3, 400).tolist(), rng.integers(0, 7000, 400).tolist(), strict=True))
    states = []
    for module in (mbuf, uncompiled(mbuf)):
        m = Hand(module, fresh(), limit=1 << 19)
        play(m, NaiveMbufs(1 << 19), program)
        states.append(m.state)
    assert np.array_equal(states[0].pool, states[1].pool)
    assert np.array_equal(states[0].sort, states[1].sort)
    assert [free_list(states[0], k) for k in (0, 1)] == [free_list(states[1], k) for k in (0, 1)]
