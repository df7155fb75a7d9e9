"""Per-CPU freelists: each rule by itself, the zones of the 2003 kernel, agreement with a naive model."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h
from naive_bsd import uncompiled
from naive_magazines import NaiveFreelists
from naive_space import BumpMap
from twins import emptied, panics_without_map_entries

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import percpu_freelist as lists
from kmemexp.sim.items import Item
from kmemexp.sim.tables import flag, panics, regs
from kmemexp.validate.hand import Hand

KVA = 1 << 24
PAGE = s.PAGE


def fresh(*items: Item, cpus: int = 1, **params: int) -> lists.State:
    bases = [-1] * len(items)
    return lists.init(lists.Params(**params), kva_bytes=KVA, cpus=cpus, map_number=2, items=items, bases=bases)


def hand(*items: Item, cpus: int = 1, limit_bytes: int = KVA, **params: int) -> Hand:
    return Hand(lists, fresh(*items, cpus=cpus, **params), limit=limit_bytes)


def free_list(state: lists.State, z: int, which: int) -> list[int]:
    found, item = [], int(state.list[z, which, lists.HEAD])
    for _ in range(int(state.list[z, which, lists.COUNT])):
        found.append(item * 32)
        item = int(state.link[item])
    return found


def take(m: Hand, count: int, **how: int) -> list[int]:
    return [m.alloc(1, **how) for _ in range(count)]


def free_all(m: Hand, addrs: list[int], **how: int) -> None:
    for addr in addrs:
        m.free(addr, **how)


# fmt: off
ZONES = [  # name, sizeof, rounded, growth pages, items of a growth: the sizes as in the table of zalloc's zones
    ("PROC", 412, 416, 5, 49), ("VMSPACE", 192, 192, 3, 64), ("VNODE", 168, 192, 5, 106), ("PIPE", 160, 160, 4, 102),
    ("socket", 180, 192, 1, 21), ("tcpcb", 548, 576, 1, 7), ("udpcb", 176, 192, 1, 21), ("unpcb", 144, 160, 1, 25),
    ("syncache", 136, 160, 1, 25), ("KNOTE", 64, 64, 1, 64), ("NAMEI", 1024, 1024, 2, 8),
    ("SWAPMETA", 144, 160, 1, 25),
]
# fmt: on


@pytest.mark.parametrize(("name", "size", "rounded", "growth", "items"), ZONES)
def test_zones_of_the_2003_kernel(name, size, rounded, growth, items):
    m = hand(Item(size, growth, 8232))
    assert take(m, items) == [n * rounded for n in reversed(range(items))]
    assert m.granted == rounded
    assert m.map_log == [("alloc", 0, growth * PAGE)]
    m.alloc(size)
    assert len(m.map_log) == 2
    census = lists.census(m.state)
    assert census["tail_bytes"] == 2 * (growth * PAGE - items * rounded)
    assert (census["pages"], census["items"], census["free_items"]) == (2 * growth, 2 * items, items - 1)


def test_an_empty_list_asks_its_map_for_wired_pages():
    state, reg = fresh(Item(192, 3, 0)), np.zeros((1, regs.COLUMNS), np.int64)
    assert lists.alloc(state, reg, 0) == s.MAP_ALLOC
    kept = s.ATTR_WIRED | s.ATTR_NOFREE
    assert reg[0, [regs.MAP, regs.BYTES, regs.ALIGN, regs.ATTR]].tolist() == [2, 3 * PAGE, PAGE, kept]


def test_an_item_larger_than_its_growth_raises_it():
    m = hand(Item(9000, 0, 0))
    assert m.alloc(9000) == 0
    assert m.map_log == [("alloc", 0, 3 * PAGE)]


def test_interrupt_zones_grow_on_demand_and_reserve_no_kva():
    assert not hasattr(lists, "kva_reserved")
    m = hand(Item(1024, 1, 4))
    assert len(set(take(m, 40, flags=flag.HARD | flag.NOWAIT))) == 40


def test_last_freed_is_first_reused_in_one_step():
    m = hand(Item(64, 1, 0))
    mine = take(m, 200)
    free_all(m, mine)
    assert m.answers == [s.DONE]
    assert take(m, 3) == mine[:-4:-1]
    assert m.answers == [s.DONE]


def test_the_list_is_used_up_before_it_grows():
    m = hand(Item(1024, 1, 0))
    assert take(m, 4) == [3072, 2048, 1024, 0]
    m.free(1024)
    assert m.alloc(1) == 1024
    assert len(m.map_log) == 1


def test_a_free_goes_to_the_list_of_the_cpu_that_frees():
    m = hand(Item(1024, 1, 0), cpus=2)
    addr = m.alloc(1, cpu=0)
    m.free(addr, cpu=1)
    assert m.answers == [s.DONE]
    assert free_list(m.state, 0, 1) == [addr]
    assert m.alloc(1, cpu=1) == addr
    assert m.alloc(1, cpu=0) == addr - 1024


def test_without_a_shared_list_a_cpu_that_only_frees_keeps_all():
    m = hand(Item(1024, 1, 0), cpus=2)
    for _ in range(50):
        free_all(m, take(m, 4, cpu=0), cpu=1)
    assert lists.census(m.state)["pages"] == 50
    assert len(free_list(m.state, 0, 1)) == 200


def test_with_a_shared_list_items_come_back():
    m = hand(Item(1024, 1, 0), cpus=2, limit=8)
    for _ in range(50):
        free_all(m, take(m, 4, cpu=0), cpu=1)
    assert lists.census(m.state)["pages"] <= 4


def test_a_full_list_gives_the_half_that_was_freed_last():
    m = hand(Item(1024, 1, 0), limit=4)
    addrs = take(m, 5)
    free_all(m, [m.alloc(1) for _ in range(3)])  # the rest of the second page
    assert free_list(m.state, 0, 0)[-1] == m.map_log[-1][1] + 2048
    m.free(addrs[0])
    before = free_list(m.state, 0, 0)
    assert len(before) == 4
    m.free(addrs[1])
    assert m.answers == [s.AGAIN, s.DONE]
    assert m.reg[0, regs.LOCK] == lists.SHARED_LOCK
    assert m.reg[0, regs.WORK] == 2
    assert free_list(m.state, 0, 1) == before[:2]
    assert free_list(m.state, 0, 0) == [addrs[1], *before[2:]]


def test_an_empty_list_takes_half_the_limit_from_the_shared_one():
    m = hand(Item(1024, 1, 0), cpus=2, limit=4)
    free_all(m, take(m, 12))
    shared = free_list(m.state, 0, 2)
    assert len(shared) == 8
    assert m.alloc(1, cpu=1) == shared[0]
    assert m.answers == [s.AGAIN, s.DONE]
    assert free_list(m.state, 0, 1) == shared[1:2]
    assert free_list(m.state, 0, 2) == shared[2:]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_small_limits_move_one_item(limit):
    m = hand(Item(1024, 1, 0), cpus=2, limit=limit)
    free_all(m, take(m, limit + 1))
    assert lists.census(m.state)["shared_items"] >= 1
    m.alloc(1, cpu=1)
    assert free_list(m.state, 0, 1) == []


def test_what_was_freed_while_a_step_waited_for_the_lock_is_used():
    state, reg = fresh(Item(1024, 1, 0), limit=4), np.zeros((2, regs.COLUMNS), np.int64)
    assert lists.alloc(state, reg, 0) == s.AGAIN
    reg[1, regs.ADDR] = 5 * PAGE
    assert lists.free(state, reg, 1) == s.DONE
    assert lists.alloc(state, reg, 0) == s.DONE
    assert reg[0, regs.ADDR] == 5 * PAGE


def test_items_do_not_share_pages():
    m = hand(Item(64, 1, 0), Item(64, 1, 0))
    for z in (0, 1):
        free_all(m, take(m, 64, item=z), item=z)
    pages = [{a // PAGE for a in take(m, 128, item=z)} for z in (0, 1)]
    assert not pages[0] & pages[1]


def test_a_full_map_fails_without_panic_unless_something_was_freed_meanwhile():
    m = hand(Item(1024, 1, 0), cpus=2, limit_bytes=PAGE)
    assert take(m, 5) == [3072, 2048, 1024, 0, -1]
    assert m.reg[0, regs.PANIC] == panics.NONE
    m.free(1024, cpu=1)
    assert m.alloc(1, cpu=0) == -1  # it is on the other CPU's list
    state, reg = m.state, np.zeros((2, regs.COLUMNS), np.int64)
    assert lists.alloc(state, reg, 0) == s.MAP_ALLOC
    reg[0, regs.BASE] = s.NO_SPACE
    reg[1, regs.ADDR] = 2048
    assert lists.free(state, reg, 1) == s.DONE
    assert lists.alloc(state, reg, 0) == s.DONE
    assert reg[0, regs.ADDR] == 2048


def test_without_map_entries_the_kernel_panics():
    panics_without_map_entries(lists, fresh(Item(64, 1, 0)))


@pytest.mark.parametrize(("kva", "limit", "text"), [(1 << 44, 0, "8 TiB"), (KVA, -1, "limit")])
def test_bad_parameters_are_refused(kva, limit, text):
    with pytest.raises(ValueError, match=text):
        lists.init(lists.Params(limit), kva_bytes=kva, cpus=1, map_number=0, items=(), bases=())


ITEMS = h.lists(
    h.builds(Item, size=h.integers(8, 6000), growth=h.integers(0, 5), limit=h.sampled_from([0, 40])),
    min_size=1,
    max_size=4,
)
PROGRAM = h.lists(h.tuples(h.integers(0, 4), h.integers(0, 10000), h.integers(0, 2)), min_size=20, max_size=250)


def play(m: Hand, models: list[NaiveFreelists], program: list[tuple], cpus: int) -> list[tuple[int, int]]:
    """Run a program on both, two frees to three allocations; returns the live (item, address) pairs."""
    live: list[tuple[int, int]] = []
    for verb, number, which in program:
        cpu = which % cpus
        if verb < 2 and live:
            z, addr = live.pop(number % len(live))
            m.free(addr, item=z, cpu=cpu)
            models[z].free(addr, cpu)
        else:
            z = number % len(models)
            addr = models[z].alloc(cpu)
            assert m.alloc(1, item=z, cpu=cpu) == (-1 if addr is None else addr)
            if addr is not None:
                assert m.granted == models[z].size
                live.append((z, addr))
    return live


def naive(items: list[Item], cpus: int, limit: int, limit_bytes: int) -> list[NaiveFreelists]:
    pages = BumpMap(limit_bytes)
    return [NaiveFreelists(pages, item.size, item.growth, cpus, limit) for item in items]


@settings(max_examples=200)
@given(ITEMS, PROGRAM, h.integers(1, 3), h.sampled_from([0, 0, 1, 2, 5, 16]), h.sampled_from([1 << 16, KVA]))
def test_same_addresses_as_the_naive_model_and_nothing_lost(items, program, cpus, limit, limit_bytes):
    m = hand(*items, cpus=cpus, limit=limit, limit_bytes=limit_bytes)
    models = naive(items, cpus, limit, limit_bytes)
    live = play(m, models, program, cpus)

    spans = sorted((a, a + models[z].size) for z, a in live)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert all(a % 32 == 0 for _, a in live)
    for z, model in enumerate(models):
        for c in range(cpus + 1):
            assert free_list(m.state, z, c) == model.lists[c][::-1]
    census = lists.census(m.state)
    assert census["pages"] * PAGE == m.next == sum(model.pages for model in models) * PAGE
    assert census["items"] == census["free_items"] + len(live)
    in_use = sum(models[z].size for z, _ in live)
    assert census["pages"] * PAGE == census["free_bytes"] + in_use + census["tail_bytes"]
    emptied(m, live, lists)


def test_compiled_and_python_kernels_agree():
    rng = np.random.default_rng(2)
    items = [Item(548, 1, 90), Item(64, 2, 0), Item(5000, 0, 0)]
    program = list(zip(*(rng.integers(0, n, 400).tolist() for n in (5, 10000, 3)), strict=True))
    states = []
    for module in (lists, uncompiled(lists)):
        m = Hand(module, fresh(*items, cpus=3, limit=6), limit=KVA)
        play(m, naive(items, 3, 6, KVA), program, 3)
        states.append(m.state)
    assert np.array_equal(states[0].zone, states[1].zone)
    assert np.array_equal(states[0].list, states[1].list)
    assert all(free_list(states[0], z, c) == free_list(states[1], z, c) for z in range(3) for c in range(4))
