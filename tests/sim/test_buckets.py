"""malloc(9) buckets: the size table, placement, what is kept for ever, and agreement with a naive model."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h
from naive_bsd import NaiveMalloc, uncompiled

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import buckets
from kmemexp.sim.tables import flag, panics, regs
from kmemexp.validate.hand import Hand

KVA = 1 << 24
SMALL = [16 << k for k in range(10)]


def fresh(kva: int = KVA, **params: int) -> buckets.State:
    return buckets.init(buckets.Params(**params), kva_bytes=kva, cpus=1, map_number=3, items=(), bases=())


def hand(kva: int = KVA, **params: int) -> Hand:
    return Hand(buckets, fresh(kva, **params), limit=kva)


def free_list(state: buckets.State, size: int) -> list[int]:
    found, chunk = [], int(state.bucket[size.bit_length() - 1, buckets.HEAD])
    while chunk != buckets.END:
        found.append(chunk * 16)
        chunk = int(state.link[chunk])
    return found


# fmt: off
TABLE = [  # requests from, to, bucket, pages taken, pieces (sys/param.h, sys/malloc.h)
    (0, 16, 4, 1, 256), (17, 32, 5, 1, 128), (33, 64, 6, 1, 64), (65, 128, 7, 1, 32), (129, 256, 8, 1, 16),
    (257, 512, 9, 1, 8), (513, 1024, 10, 1, 4), (1025, 2048, 11, 1, 2), (2049, 4096, 12, 1, 1), (4097, 8192, 13, 2, 1),
]
# fmt: on


@pytest.mark.parametrize(("low", "high", "index", "pages", "pieces"), TABLE)
def test_every_request_up_to_8_kib_gets_its_bucket(low, high, index, pages, pieces):
    m = hand()
    for size in range(low, high + 1):
        addr = m.alloc(size)
        assert m.granted == 1 << index
        m.free(addr)
    assert m.map_log == [("alloc", 0, pages * s.PAGE)]
    assert m.state.bucket[index, buckets.TOTAL] == pieces
    assert m.state.usage[0] == index << buckets.COUNT_BITS | pieces


# fmt: off
LARGE = [  # request, bucket number, pages
    (8193, 14, 3), (12288, 14, 3), (12289, 14, 4), (16384, 14, 4), (16385, 15, 5), (32769, 16, 9), (65537, 17, 17),
    (131073, 18, 33), (262144, 18, 64), (262145, 19, 65), (1 << 20, 19, 256),
]
# fmt: on


@pytest.mark.parametrize(("size", "index", "pages"), LARGE)
def test_a_large_request_is_whole_pages_and_goes_back_to_the_map(size, index, pages):
    m = hand()
    addr = m.alloc(size)
    assert m.granted == pages * s.PAGE
    assert m.state.usage[addr >> s.PAGE_SHIFT] == index << buckets.COUNT_BITS | pages
    assert buckets.census(m.state)["large_pages"] == pages
    m.free(addr)
    assert m.reg[0, regs.MAP] == 3
    assert m.map_log == [("alloc", addr, pages * s.PAGE), ("free", addr, pages * s.PAGE)]
    assert buckets.census(m.state)["large_pages"] == 0
    assert not m.state.usage.any()


def test_pieces_of_a_page_come_highest_first():
    m = hand()
    m.next = 0x5000
    assert [m.alloc(1024) - 0x5000 for _ in range(4)] == [3072, 2048, 1024, 0]


def test_last_freed_is_first_reused():
    m = hand()
    a, b, c = (m.alloc(100) for _ in range(3))
    for addr in (b, a, c):
        m.free(addr)
    assert [m.alloc(100) for _ in range(3)] == [c, a, b]


def test_fifo_policy_appends_freed_chunks():
    m = hand(fifo=1)
    first = [m.alloc(1024) for _ in range(3)]
    for addr in first:
        m.free(addr)
    lowest = min(first) - 1024
    assert [m.alloc(1024) for _ in range(4)] == [lowest, *first]


def test_a_page_never_leaves_its_bucket():
    m = hand()
    for addr in [m.alloc(64) for _ in range(640)]:
        m.free(addr)
    held = buckets.census(m.state)["bucket_pages"]
    m.alloc(128)
    assert held == 10
    assert buckets.census(m.state)["bucket_pages"] == 11
    assert not [step for step in m.map_log if step[0] == "free"]


def test_the_8_kib_bucket_keeps_its_two_pages():
    m = hand()
    m.free(m.alloc(8192))
    m.alloc(4097)
    assert m.map_log == [("alloc", 0, 8192)]


def test_pages_that_could_be_freed_are_only_counted():
    m = hand()
    chunks = [m.alloc(2048) for _ in range(14)]
    for addr in chunks:
        m.free(addr)
    # 2 chunks to a page, high water 10: the frees that complete a page are the 2nd, 4th …; above 10 free only the 12th
    # (11 free before it) and the 14th.
    census = buckets.census(m.state)
    assert census["couldfree"] == 2
    assert census["bucket_pages"] == 7


def test_a_full_map_fails_a_caller_that_cannot_sleep_and_panics_another():
    m = hand()
    m.limit = 0
    for size in (100, 9000):
        assert m.alloc(size, flags=flag.NOWAIT) == -1
        assert m.reg[0, regs.PANIC] == panics.NONE
        assert m.alloc(size) == -1
        assert m.reg[0, regs.PANIC] == panics.KMEM_MAP


def test_without_map_entries_everybody_panics():
    state, reg = fresh(), np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, regs.SIZE], reg[0, regs.FLAGS] = 100, flag.NOWAIT
    assert buckets.alloc(state, reg, 0) == s.MAP_ALLOC
    reg[0, regs.BASE] = s.NO_ENTRY
    assert buckets.alloc(state, reg, 0) == s.FAILED
    assert reg[0, regs.PANIC] == panics.ENTRIES


def test_the_map_is_asked_for_wired_pages():
    state, reg = fresh(), np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, regs.SIZE] = 5000
    assert buckets.alloc(state, reg, 0) == s.MAP_ALLOC
    kept = s.ATTR_KMEM | s.ATTR_NOFREE
    assert reg[0, [regs.MAP, regs.BYTES, regs.ALIGN, regs.ATTR]].tolist() == [3, 8192, s.PAGE, kept]
    reg[:] = 0
    reg[0, regs.SIZE] = 9000  # will be given back
    assert buckets.alloc(state, reg, 0) == s.MAP_ALLOC
    assert reg[0, regs.ATTR] == s.ATTR_KMEM


@pytest.mark.parametrize("fifo", [0, 1])
def test_chunks_that_were_freed_while_the_map_was_asked_come_after_the_new_ones(fifo):
    m = hand(fifo=fifo)
    old = [m.alloc(2048) for _ in range(2)]
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, regs.SIZE] = 2048
    assert buckets.alloc(m.state, reg, 0) == s.MAP_ALLOC
    m.free(old[0])
    reg[0, regs.BASE] = 0x8000
    assert buckets.alloc(m.state, reg, 0) == s.DONE
    assert reg[0, regs.ADDR] == 0x8800
    m.free(old[1])
    rest = [old[1], 0x8000, old[0]] if not fifo else [0x8000, old[0], old[1]]
    assert free_list(m.state, 2048) == rest


def test_more_kva_than_tables_cover_is_refused():
    with pytest.raises(ValueError, match="8 TiB"):
        fresh(1 << 44)


PROGRAM = h.lists(
    h.tuples(h.booleans(), h.one_of(h.sampled_from([16, 64, 1024, 2048, 8192]), h.integers(0, 20000))), max_size=120
)


def play(m: Hand, model: NaiveMalloc, program: list[tuple[bool, int]]) -> list[int]:
    """Run a program on both; returns the live addresses."""
    live: list[int] = []
    for freeing, number in program:
        if freeing and live:
            addr = live.pop(number % len(live))
            m.free(addr)
            model.free(addr)
        else:
            addr = model.alloc(number)
            assert m.alloc(number, flags=flag.NOWAIT) == (-1 if addr is None else addr)
            if addr is not None:
                assert m.granted == model.live[addr]
                live.append(addr)
    return live


@settings(max_examples=80)
@given(PROGRAM, h.sampled_from([0, 1]), h.sampled_from([1 << 16, 1 << 20]))
def test_same_addresses_as_the_naive_model_and_nothing_lost(program, fifo, limit):
    m, model = hand(limit, fifo=fifo), NaiveMalloc(limit, bool(fifo))
    live = play(m, model, program)

    spans = sorted((a, a + model.live[a]) for a in live)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert all(a % min(model.live[a], s.PAGE) == 0 for a in live)
    census = buckets.census(m.state)
    assert census["couldfree"] == model.could_free
    for size in SMALL:
        pieces = max(s.PAGE // size, 1)
        in_use = sum(model.live[a] == size for a in live)
        assert free_list(m.state, size) == model.lists[size]
        assert census[f"free_{size}"] == len(model.lists[size])
        assert census[f"free_{size}"] + in_use == census[f"total_{size}"]
        assert census[f"total_{size}"] % pieces == 0
    held = (census["bucket_pages"] + census["large_pages"]) * s.PAGE
    assert held == census["free_bytes"] + sum(model.live[a] for a in live)

    for addr in live:
        m.free(addr)
    census = buckets.census(m.state)
    assert census["large_pages"] == census["large_chunks"] == 0
    assert census["free_bytes"] == census["bucket_pages"] * s.PAGE


def test_compiled_and_python_kernels_agree():
    rng = np.random.default_rng(1)
    program = [(bool(f), int(n)) for f, n in zip(rng.random(400) < 0.4, rng.integers(0, 12000, 400), strict=True)]
    states = []
    for module in (buckets, uncompiled(buckets)):
        m = Hand(module, fresh(), limit=KVA)
        play(m, NaiveMalloc(KVA), program)
        states.append(m.state)
    assert buckets.census(states[0]) == buckets.census(states[1])
    assert np.array_equal(states[0].usage, states[1].usage)
