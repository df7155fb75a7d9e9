"""zalloc: the worked example, every zone of the 2003 kernel, interrupt zones, and agreement with a naive model."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h
from naive_bsd import NaiveZone, uncompiled
from naive_space import BumpMap
from twins import chain, emptied, panics_without_map_entries

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import zalloc
from kmemexp.sim.items import Item
from kmemexp.sim.tables import panics, regs
from kmemexp.validate.hand import Hand

KVA = 1 << 24
BASE = 0x800000  # where the KVA of interrupt zones begins in these tests


def reserved(item: Item) -> int:
    """Bytes that boot sets aside for an interrupt zone: round_page(zsize * nentries)."""
    return -(-(-(-item.size // 32) * 32) * item.limit // s.PAGE) * s.PAGE


def fresh(*items: Item, **params: int) -> zalloc.State:
    bases, base = [], BASE
    for item in items:
        bases.append(base if item.limit else -1)
        base += reserved(item)
    return zalloc.init(zalloc.Params(**params), kva_bytes=KVA, cpus=1, map_number=2, items=items, bases=bases)


def hand(*items: Item, limit: int = BASE, **params: int) -> Hand:
    return Hand(zalloc, fresh(*items, **params), limit=limit)


def counts(m: Hand, zone: int = 0) -> tuple[int, int, int]:
    """Free items, pages and items of a zone."""
    return tuple(int(m.state.zone[zone, c]) for c in (zalloc.FREE, zalloc.PAGES, zalloc.TOTAL))


def free_list(state: zalloc.State, zone: int) -> list[int]:
    return chain(state.link, state.zone[zone, zalloc.HEAD], zalloc.END, 32)


def test_tcpcb_worked_example():
    m = hand(Item(548, 1, 8232))
    got = [(m.alloc(548) - BASE, counts(m)) for _ in range(8)]
    assert [offset for offset, _ in got] == [3456, 7488, 6912, 6336, 5760, 5184, 4608, 11520]
    assert [got[k][1] for k in (0, 1, 6, 7)] == [(6, 1, 7), (12, 2, 14), (7, 2, 14), (13, 3, 21)]
    assert m.granted == 576
    assert m.map_log == [("wire", BASE + page * s.PAGE, s.PAGE) for page in range(3)]


# fmt: off
ZONES = [  # name, sizeof, zsize, entries of an interrupt zone, growth pages, zfreemin, items of the first growth
    ("PROC", 412, 416, 0, 5, 9, 49), ("VMSPACE", 192, 192, 0, 3, 21, 64), ("VNODE", 168, 192, 0, 5, 21, 106),
    ("PIPE", 160, 160, 0, 4, 25, 102), ("socket", 180, 192, 8232, 1, 21, 21), ("tcpcb", 548, 576, 8232, 1, 7, 7),
    ("udpcb", 176, 192, 8232, 1, 21, 21), ("unpcb", 144, 160, 0, 1, 25, 25), ("syncache", 136, 160, 15359, 1, 25, 25),
    ("KNOTE", 64, 64, 0, 1, 64, 64), ("NAMEI", 1024, 1024, 0, 2, 4, 8), ("SWAPMETA", 144, 160, 5000, 1, 25, 25),
]
# fmt: on


@pytest.mark.parametrize(("name", "size", "rounded", "limit", "growth", "freemin", "items"), ZONES)
def test_zones_of_the_2003_kernel(name, size, rounded, limit, growth, freemin, items):
    m = hand(Item(size, growth, limit))
    start = BASE if limit else 0
    assert m.alloc(size) == start + (items - 1) * rounded
    assert m.granted == rounded
    assert m.state.zone[0, zalloc.FREEMIN] == freemin
    assert counts(m) == (items - 1, growth, items)
    if items - 1 > freemin:
        assert m.alloc(size) == start + (items - 2) * rounded
    while m.state.zone[0, zalloc.FREE] > freemin:
        m.alloc(size)
    assert counts(m) == (freemin if items - 1 > freemin else items - 1, growth, items)
    m.alloc(size)
    assert counts(m)[1] == 2 * growth


def test_an_ordinary_zone_asks_for_wired_pages():
    state, reg = fresh(Item(192, 3, 0)), np.zeros((1, regs.COLUMNS), np.int64)
    assert zalloc.alloc(state, reg, 0) == s.MAP_ALLOC
    kept = s.ATTR_WIRED | s.ATTR_NOFREE
    assert reg[0, [regs.MAP, regs.BYTES, regs.ALIGN, regs.ATTR]].tolist() == [2, 3 * s.PAGE, s.PAGE, kept]


def test_last_freed_is_first_reused_and_nothing_goes_back():
    m = hand(Item(64, 1, 0))
    mine = [m.alloc(64) for _ in range(200)]
    pages = counts(m)[1]
    for addr in mine:
        m.free(addr)
    assert counts(m)[1] == pages
    assert [m.alloc(64) for _ in range(3)] == mine[:-4:-1]
    assert {step[0] for step in m.map_log} == {"alloc"}


def test_a_zone_grows_while_a_page_of_items_is_still_free():
    m = hand(Item(64, 1, 0))
    first = m.alloc(64)
    m.free(first)
    assert counts(m) == (64, 1, 64)
    assert m.alloc(64) == first + s.PAGE
    assert counts(m) == (127, 2, 128)


def test_zones_do_not_share_pages():
    m = hand(Item(64, 1, 0), Item(64, 1, 0))
    assert {m.alloc(64, item=z) // s.PAGE for z in (0, 1, 0, 1)} == {0, 1, 2, 3}


def test_an_interrupt_zone_ends_at_the_kva_set_aside_for_it():
    item = Item(548, 1, 10)  # 5760 bytes: two pages, which hold 14 items
    m = hand(item)
    got = [m.alloc(548) for _ in range(14)]
    assert len(set(got)) == 14
    assert min(got) == BASE
    assert max(got) + 576 <= BASE + reserved(item)
    assert m.alloc(548) == -1
    assert m.reg[0, regs.PANIC] == panics.NONE
    m.free(got[3])
    assert m.alloc(548) == got[3]
    assert counts(m) == (0, 2, 14)


def test_an_interrupt_zone_grows_page_by_page_and_takes_what_it_gets():
    state, reg = fresh(Item(1024, 3, 64)), np.zeros((1, regs.COLUMNS), np.int64)
    assert zalloc.alloc(state, reg, 0) == s.WIRE
    assert reg[0, [regs.BASE, regs.BYTES]].tolist() == [BASE, s.PAGE]
    assert zalloc.alloc(state, reg, 0) == s.WIRE
    assert reg[0, regs.BASE] == BASE + s.PAGE
    reg[0, regs.BASE] = s.NO_SPACE  # no physical page
    assert zalloc.alloc(state, reg, 0) == s.DONE
    assert reg[0, regs.ADDR] == BASE + 3 * 1024
    assert state.zone[0, [zalloc.FREE, zalloc.PAGES, zalloc.TOTAL]].tolist() == [3, 1, 4]


def test_a_zone_that_cannot_grow_hands_out_what_is_left_then_nothing():
    m = hand(Item(1024, 1, 0), limit=s.PAGE)
    assert [m.alloc(1024) for _ in range(5)] == [3072, 2048, 1024, 0, -1]
    assert m.reg[0, regs.PANIC] == panics.NONE
    m.free(2048)
    assert m.alloc(1024) == 2048


def test_without_map_entries_the_kernel_panics():
    panics_without_map_entries(zalloc, fresh(Item(64, 1, 0)))


def test_growth_is_raised_until_it_holds_an_item():
    m = hand(Item(9000, 1, 0))
    assert m.alloc(9000) == 0
    assert m.map_log == [("alloc", 0, 3 * s.PAGE)]
    assert m.state.zone[0, zalloc.FREEMIN] == 1


def test_spare_items_are_a_parameter():
    m = hand(Item(1024, 1, 0), freemin=0)
    for _ in range(4):
        m.alloc(1024)
    assert counts(m) == (0, 1, 4)


def test_more_kva_than_tables_cover_is_refused():
    with pytest.raises(ValueError, match="8 TiB"):
        zalloc.init(zalloc.Params(), kva_bytes=1 << 44, cpus=1, map_number=0, items=(), bases=())


ITEMS = h.lists(
    h.builds(Item, size=h.integers(8, 6000), growth=h.integers(0, 5), limit=h.one_of(h.just(0), h.integers(1, 60))),
    min_size=1,
    max_size=4,
)
PROGRAM = h.lists(h.tuples(h.integers(0, 2), h.integers(0, 10000)), max_size=150)


def play(m: Hand, zones: list[NaiveZone], program: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Run a program on both, one free to two allocations; returns the live (zone, address) pairs."""
    live: list[tuple[int, int]] = []
    for verb, number in program:
        if verb == 0 and live:
            z, addr = live.pop(number % len(live))
            m.free(addr, item=z)
            zones[z].free(addr)
        else:
            z = number % len(zones)
            addr = zones[z].alloc()
            assert m.alloc(1, item=z) == (-1 if addr is None else addr)
            if addr is not None:
                assert m.granted == zones[z].size
                live.append((z, addr))
    return live


def naive(state: zalloc.State, items: list[Item], limit: int) -> list[NaiveZone]:
    pages = BumpMap(limit)
    return [
        NaiveZone(pages, item.size, item.growth, item.limit, int(row[zalloc.BASE]))
        for item, row in zip(items, state.zone, strict=True)
    ]


@settings(max_examples=80)
@given(ITEMS, PROGRAM, h.sampled_from([1 << 16, BASE]))
def test_same_addresses_as_the_naive_model_and_nothing_lost(items, program, limit):
    m = hand(*items, limit=limit)
    zones = naive(m.state, items, limit)
    live = play(m, zones, program)

    spans = sorted((a, a + zones[z].size) for z, a in live)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert all(a % 32 == 0 for _, a in live)
    for z, zone in enumerate(zones):
        assert free_list(m.state, z) == zone.chunks[::-1]
        assert counts(m, z) == (len(zone.chunks), zone.pages, zone.made)
        assert len(zone.chunks) + len(zone.live) == zone.made
    census = zalloc.census(m.state)
    in_use = sum(zones[z].size for z, _ in live)
    assert census["pages"] * s.PAGE == census["free_bytes"] + in_use + census["tail_bytes"]
    emptied(m, live, zalloc)


def test_compiled_and_python_kernels_agree():
    rng = np.random.default_rng(2)
    items = [Item(548, 1, 90), Item(64, 2, 0), Item(5000, 0, 0)]
    program = list(zip(rng.integers(0, 3, 400).tolist(), rng.integers(0, 10000, 400).tolist(), strict=True))
    states = []
    for module in (zalloc, uncompiled(zalloc)):
        m = Hand(module, fresh(*items), limit=BASE)
        play(m, naive(m.state, items, BASE), program)
        states.append(m.state)
    assert np.array_equal(states[0].zone, states[1].zone)
    assert [free_list(states[0], z) for z in range(3)] == [free_list(states[1], z) for z in range(3)]
