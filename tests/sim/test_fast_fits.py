"""The Cartesian tree of free blocks: better fit, its shape, what it takes from the map, agreement with a naive twin."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h
from naive_bsd import uncompiled
from naive_fast_fits import NaiveFastFits, inorder
from naive_space import UpwardMap
from twins import play_sized, sized_program

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import fast_fits as ff
from kmemexp.sim.tables import panics, regs
from kmemexp.validate.hand import Hand

KVA = 1 << 22


def fresh(kva: int = KVA, **params: int) -> ff.State:
    return ff.init(ff.Params(**params), kva_bytes=kva, cpus=1, map_number=3, items=(), bases=())


def hand(limit: int = KVA, **params: int) -> Hand:
    return Hand(ff, fresh(**params), limit=limit)


def tree(state: ff.State, row: int | None = None) -> list[tuple[int, int, int]]:
    """(address, bytes, depth) of the free blocks, from left to right."""
    found = []

    def walk(x: int, depth: int) -> None:
        if x:
            left, right, start, size = (int(n) for n in state.node[4 * x : 4 * x + 4])
            walk(left, depth + 1)
            found.append((start * 8, size * 8, depth))
            walk(right, depth + 1)

    walk(int(state.node[ff.LEFT]), 0)
    return found


def holes(m: Hand, sizes: list[int]) -> list[int]:
    """Make free blocks of these sizes in this order, kept apart by live ones; returns their addresses."""
    pairs = [(m.alloc(size), m.alloc(8)) for size in sizes]
    rest = int(ff.census(m.state)["longest_bytes"])
    assert m.alloc(rest) >= 0
    for (addr, _), size in zip(pairs, sizes, strict=True):
        m.free(addr, size=size)
    return [addr for addr, _ in pairs]


@pytest.mark.parametrize(("size", "granted"), [(0, 8), (1, 8), (8, 8), (9, 16), (100, 104), (4096, 4096), (5000, 5000)])
def test_a_request_is_rounded_up_to_eight_bytes(size, granted):
    m = hand()
    assert m.alloc(size) >= 0
    assert m.granted == granted


def test_the_first_request_takes_a_page_of_headers_and_its_own_pages():
    m = hand()
    assert m.alloc(5000) == s.PAGE
    assert m.map_log == [("alloc", 0, s.PAGE), ("alloc", s.PAGE, 2 * s.PAGE)]
    assert m.reg[0, regs.MAP] == 3
    assert ff.census(m.state)["pages"] == 3


# fmt: off
FITS = [  # sizes of the holes by address, request, which hole it takes
    ([64, 128, 96], 96, 2),      # under the longest are 64 and 96: only 96 fits
    ([96, 128, 104], 96, 0),     # both fit: the shorter
    ([104, 128, 96], 96, 2),
    ([96, 128, 96], 96, 0),      # equal: the left
    ([64, 128, 72], 96, 1),      # neither child fits
    ([200, 64, 104, 80], 72, 3), # 200, then 104 to its right, whose children are 64 and 80
    ([200, 104, 80, 72], 72, 3), # a chain to the right, down to where no child fits
]
# fmt: on


@pytest.mark.parametrize(("sizes", "request_bytes", "which"), FITS)
def test_the_descent_chooses_the_better_fitting_child(sizes, request_bytes, which):
    m = hand()
    addrs = holes(m, sizes)
    assert m.alloc(request_bytes) == addrs[which]


def test_better_fit_is_not_best_fit():
    m = hand()
    addrs = holes(m, [96, 104, 160, 128, 72])
    # Left of the longest stands 104 with 96 below it, right of it 128 with 72: the descent goes by 104 to 96.
    assert m.alloc(72) == addrs[0]


def test_a_block_is_split_at_its_low_end_and_the_rest_sinks():
    m = hand()
    addrs = holes(m, [96, 128, 104])
    assert m.alloc(112) == addrs[1]
    assert [(a, n) for a, n, _ in tree(m.state)] == [(addrs[0], 96), (addrs[1] + 112, 16), (addrs[2], 104)]
    assert [depth for *_, depth in tree(m.state)] == [1, 2, 0]


def test_a_free_merges_with_both_neighbours():
    m = hand()
    a, b, c = (m.alloc(40) for _ in range(3))
    rest = 4096 - 120
    m.free(a, size=40)
    m.free(c, size=40)
    assert sorted(n for _, n, _ in tree(m.state)) == [40, 40 + rest]
    m.free(b, size=40)
    assert tree(m.state) == [(a, 4096, 0)]


def test_pages_stay_when_all_is_free():
    m = hand()
    live = [m.alloc(300) for _ in range(100)]
    held = ff.census(m.state)["pages"]
    for addr in live:
        m.free(addr, size=300)
    census = ff.census(m.state)
    assert census["pages"] == held
    assert census["free_bytes"] == (held - census["header_pages"]) * s.PAGE
    assert census["free_blocks"] == 1


def test_whole_free_pages_go_back_where_the_kernel_gives_them_back():
    m = hand(release=1)
    a, b, c = m.alloc(5000), m.alloc(8000), m.alloc(3000)
    assert (a, b, c) == (4096, 9096, 17096)
    m.free(b, size=8000)
    assert m.map_log[-1] == ("free", 12288, 4096)
    m.free(a, size=5000)
    assert m.map_log[-1] == ("free", 4096, 8192)
    assert tree(m.state) == [(16384, 712, 0), (20096, 384, 1)]
    assert ff.census(m.state)["pages"] == 2


def test_headers_are_taken_a_page_of_256_at_a_time():
    m = hand()
    live = [m.alloc(16) for _ in range(1000)]
    for addr in live[::2]:
        m.free(addr, size=16)
    census = ff.census(m.state)
    assert census["free_blocks"] in (500, 501)
    assert census["header_pages"] == 2


def test_a_full_map_fails_the_request_and_loses_nothing():
    m = hand(limit=2 * s.PAGE)
    addr = m.alloc(4000)
    assert m.alloc(4000) == -1
    assert m.reg[0, regs.PANIC] == panics.NONE
    m.free(addr, size=4000)
    assert m.alloc(4096) == addr
    assert ff.census(m.state)["lost_bytes"] == 0


def test_without_map_entries_the_kernel_panics():
    state, reg = fresh(), np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, regs.SIZE] = 100
    assert ff.alloc(state, reg, 0) == s.MAP_ALLOC
    reg[0, regs.BASE] = s.NO_ENTRY
    assert ff.alloc(state, reg, 0) == s.FAILED
    assert reg[0, regs.PANIC] == panics.ENTRIES


def test_a_block_without_a_header_is_counted_as_lost():
    m = hand(limit=3 * s.PAGE)
    live = [m.alloc(8) for _ in range(1024)]
    for addr in live[::2]:
        m.free(addr, size=8)
    census = ff.census(m.state)
    assert census["free_blocks"] == 256
    assert census["lost_bytes"] == 256 * 8


def test_more_kva_than_tables_cover_is_refused():
    with pytest.raises(ValueError, match="8 TiB"):
        fresh(1 << 44)


PROGRAM = sized_program(8, 16, 40, 64, 96)


@settings(max_examples=160)
@given(PROGRAM, h.sampled_from([1 << 16, 1 << 20]), h.sampled_from([0, 1]))
def test_same_addresses_and_tree_as_the_naive_twin_and_nothing_lost(program, limit, release):
    m, given_back = hand(limit, release=release), []
    model = NaiveFastFits(UpwardMap(limit).take, lambda base, n: given_back.append(("free", base, n)), release=release)
    live = play_sized(m, model, program)

    blocks = tree(m.state)
    assert blocks == [(b.start, b.size, depth) for b, depth in inorder(model.root)]
    assert all(a + n < b for (a, n, _), (b, _, _) in pairwise(blocks))
    census = ff.census(m.state)
    assert [step for step in m.map_log if step[0] == "free"] == given_back
    assert census["pages"] == model.pages
    assert census["pages"] * s.PAGE == sum(n if step == "alloc" else -n for step, _, n in m.map_log)
    used = sum(max(-(-n // 8), 1) * 8 for n in live.values())
    assert census["free_bytes"] + used == (census["pages"] - census["header_pages"]) * s.PAGE
    assert census["free_bytes"] == sum(n for _, n, _ in blocks)
    for addr, n in live.items():
        m.free(addr, size=n)
    census = ff.census(m.state)
    assert census["free_bytes"] + census["lost_bytes"] == (census["pages"] - census["header_pages"]) * s.PAGE


def test_compiled_and_python_kernels_agree():
    rng = np.random.default_rng(1)
    program = [(int(v), int(n)) for v, n in zip(rng.integers(0, 3, 400), rng.integers(0, 3000, 400), strict=True)]
    states = []
    for module in (ff, uncompiled(ff)):
        m = Hand(module, fresh(), limit=KVA)
        play_sized(m, NaiveFastFits(UpwardMap(KVA).take), program)
        states.append(m.state)
    assert tree(states[0]) == tree(states[1])
    assert ff.census(states[0]) == ff.census(states[1])
