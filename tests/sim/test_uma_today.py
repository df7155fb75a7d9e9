"""UMA of today: tables of its layouts and buckets, its paths one by one, and random programs against a naive twin."""

import functools
from itertools import pairwise

import numpy as np
import pytest
import uma_programs as programs
from hypothesis import given, settings
from hypothesis import strategies as h
from naive_uma_today import NaiveUma
from uma_programs import KVA, balance

from kmemexp.sim import items
from kmemexp.sim import slots as s
from kmemexp.sim.allocators import uma_today as uma
from kmemexp.sim.allocators._shared.slab_order import FULLEST, LOWEST
from kmemexp.sim.allocators.uma_today import keg as uma_keg
from kmemexp.sim.allocators.uma_today import slabs as u
from kmemexp.sim.allocators.uma_today import upkeep_steps as tending
from kmemexp.sim.allocators.uma_today.moves import (
    CLUSTER,
    FIRST_ITEM,
    FIRST_MALLOC,
    JUMBO_9,
    JUMBO_16,
    JUMBO_PAGE,
    MBUF,
)
from kmemexp.sim.items import Item, Traits
from kmemexp.sim.tables import panics, regs
from kmemexp.validate.hand import Hand

PAGE = s.PAGE
STACK = Item(12288, 0, 0, Traits(flags=items.KSTACK))

# fmt: off
LAYOUTS = [  # bytes, header, pages, items, efficiency in per cent (LP64, aligned to 8)
    (8, "in", 1, 501, 97.85), (16, "in", 1, 252, 98.44), (32, "in", 1, 126, 98.44), (48, "in", 1, 84, 98.44),
    (64, "in", 1, 63, 98.44), (96, "in", 1, 42, 98.44), (128, "in", 1, 31, 96.88), (160, "in", 1, 25, 97.66),
    (192, "in", 1, 21, 98.44), (200, "in", 1, 20, 97.66), (256, "in", 1, 15, 93.75), (272, "in", 1, 14, 92.97),
    (320, "in", 1, 12, 93.75), (384, "in", 1, 10, 93.75), (400, "in", 1, 10, 97.66), (480, "in", 1, 8, 93.75),
    (512, "off", 1, 8, 98.08), (576, "in", 1, 7, 98.44), (600, "in", 2, 13, 95.21), (680, "off", 1, 6, 97.70),
    (768, "in", 1, 5, 93.75), (800, "in", 1, 5, 97.66), (816, "off", 1, 5, 97.70), (1024, "off", 1, 4, 98.08),
    (1280, "in", 1, 3, 93.75), (1360, "off", 1, 3, 97.70), (1368, "in", 4, 11, 91.85), (1536, "in", 2, 5, 93.75),
    (2048, "off", 1, 2, 98.08), (2100, "in", 5, 9, 92.46), (2304, "in", 3, 5, 93.75), (3000, "in", 3, 4, 97.66),
    (3072, "off", 3, 4, 99.35), (4096, "off", 1, 1, 98.08), (5000, "in", 4, 3, 91.55), (6144, "off", 3, 2, 99.35),
    (8192, "off", 2, 1, 99.03), (9216, "in", 5, 2, 90.00), (12288, "off", 3, 1, 99.35), (16384, "off", 4, 1, 99.51),
]
# fmt: on


@pytest.mark.parametrize(("nbytes", "header", "pages", "items", "efficiency"), LAYOUTS)
def test_slab_layouts(nbytes, header, pages, items, efficiency):
    layout = uma_keg.keg_layout(nbytes)
    assert ("off" if layout.header else "in", layout.pages, layout.items) == (header, pages, items)
    assert 100 * layout.efficiency == pytest.approx(efficiency, abs=0.005)


def test_contiguous_jumbo_frames_waste_a_quarter():
    layout = uma_keg.keg_layout(9216, contiguous=True)
    assert (layout.pages, layout.items, layout.header, layout.efficiency) == (3, 1, 0, 0.75)


def test_with_single_page_slabs_2100_bytes_waste_half():
    layout = uma_keg.keg_layout(2100, multipage=False)
    assert (layout.pages, layout.items) == (1, 1)
    assert layout.efficiency == pytest.approx(0.51, abs=0.01)


def test_off_page_headers_are_small_up_to_256_items():
    assert {uma_keg.keg_layout(n).header for n, *_ in LAYOUTS} == {0, 80}
    assert uma_keg._with_header(8, 8, PAGE, off_page=True) == uma_keg.Keg(8, 512, 1, 112)


BUCKET_SIZES = [(2, 4096), (4, 3072), (8, 2048), (16, 1024), (30, 512), (62, 256), (126, 128), (254, 64)]


@pytest.mark.parametrize(("entries", "most"), BUCKET_SIZES)
def test_bucket_sizes(entries, most):
    assert uma_keg.bucket_select(most) == entries
    assert uma_keg.bucket_select(most + 1) < entries
    at_least_32 = entries > 16  # these are powers of two with the header
    assert uma_keg.bucket_bytes(entries) & (uma_keg.bucket_bytes(entries) - 1) == 0 or not at_least_32


@pytest.mark.parametrize(
    ("least", "most", "entries"),
    [(1, 64, 254), (65, 128, 126), (129, 256, 62), (257, 512, 30), (513, 1024, 16), (1025, 2048, 8), (2049, 3072, 4),
     (3073, 4096, 2), (4097, 8192, 1), (100000, 100000, 1)],
)  # fmt: skip
def test_default_entries_by_item_size(least, most, entries):
    assert {uma_keg.bucket_select(n) for n in (least, (least + most) // 2, most)} == {entries}


@pytest.mark.parametrize(
    ("limit", "cpus", "entries", "cached"), [(1000, 8, 31, 504), (25600, 4, 254, 23568), (20, 8, 1, 4), (10, 8, 0, 10)]
)
def test_a_limit_shrinks_caches(limit, cpus, entries, cached):
    assert uma_keg.set_max(limit, cpus) == (entries, cached)
    state = fresh(Item(64, 0, limit), cpus=cpus)
    row = state.zone[FIRST_ITEM]
    assert (row[u.Z_BUCKET], row[u.Z_BUCKET_MAX], row[u.Z_CACHE_MAX]) == (entries, entries, cached)


def test_first_touch_domains_count_in_the_limit():
    assert uma_keg.set_max(1000, 8, 2) == (1000 // 26 // 2, 1000 - 26 * 19)


fresh = functools.partial(programs.fresh, uma, map_number=2)


def hand(*items: Item, cpus: int = 1, limit: int = KVA, **params: int) -> Hand:
    return Hand(uma, fresh(*items, cpus=cpus, **params), limit=limit)


@pytest.mark.parametrize(
    ("size", "granted"),
    [(0, 16), (1, 16), (16, 16), (17, 32), (129, 256), (257, 384), (385, 512), (513, 1024), (1025, 2048), (4096, 4096),
     (4097, 8192), (16385, 32768), (65536, 65536), (65537, 17 * PAGE)],
)  # fmt: skip
def test_malloc_rounds_to_its_zones_and_beyond_them_to_pages(size, granted):
    m = hand()
    assert m.alloc(size, item=s.ITEM_MALLOC) >= 0
    assert m.granted == granted


def test_machines_of_128_mib_have_no_zones_above_a_page():
    m = hand(ram_bytes=128 << 20)
    m.alloc(4097, item=s.ITEM_MALLOC)
    assert m.map_log == [("alloc", 0, 2 * PAGE)]
    m = hand(ram_bytes=(128 << 20) + PAGE)
    m.alloc(4097, item=s.ITEM_MALLOC)
    assert m.map_log != [("alloc", 0, 2 * PAGE)]


def test_large_malloc_comes_from_the_map_and_goes_back_at_once():
    m = hand()
    addr = m.alloc(70000, item=s.ITEM_MALLOC)
    assert uma.census(m.state)["large_pages"] == 18
    m.free(addr, item=s.ITEM_MALLOC, size=70000)
    assert m.map_log == [("alloc", addr, 18 * PAGE), ("free", addr, 18 * PAGE)]
    assert uma.census(m.state)["pages"] == 0


def test_the_fast_path_is_one_step():
    m = hand(Item(256, 0, 0))
    addr = m.alloc(256)
    m.free(addr)
    assert m.answers == [s.DONE]
    assert m.alloc(256) == addr
    assert m.answers == [s.DONE]


def test_a_bucket_is_filled_from_the_lowest_item_up_and_emptied_from_the_end():
    m = hand(Item(1024, 0, 0))  # 16 entries, 4 items a slab
    got = [m.alloc(1024) for _ in range(16)]
    slabs = list(dict.fromkeys(a // PAGE for a in got[::-1]))  # in the order in which they were made
    assert got[::-1] == [page * PAGE + k * 1024 for page in slabs for k in range(4)]


def test_the_lowest_free_item_of_a_slab_is_taken_first():
    m = hand(Item(600, 0, 7))  # a limit of 7 items on one CPU: buckets of one
    state, reg = m.state, m.reg
    assert state.zone[FIRST_ITEM, u.Z_BUCKET] == 1
    got = [m.alloc(600) for _ in range(7)]
    assert [a - got[0] for a in got] == [600 * k for k in range(7)]
    assert m.alloc(600) == -1  # at the limit
    for a in (got[5], got[1], got[3]):
        u.slab_give(state, reg, 0, a)
    assert [int(u.slab_take(state, FIRST_ITEM, 0)) for _ in range(3)] == [got[1], got[3], got[5]]


def test_partly_free_slabs_come_before_free_ones_and_these_before_new_ones():
    state, reg = fresh(Item(1024, 0, 0)), np.zeros((1, regs.COLUMNS), np.int64)
    z = FIRST_ITEM
    for page in range(3):
        u.slab_add(state, reg, 0, z, 0, page * PAGE, 0)
    got = [int(u.slab_take(state, z, 0)) for _ in range(12)]
    assert u.slab_take(state, z, 0) == u.NIL
    for a in got[:4]:
        u.slab_give(state, reg, 0, a)  # page 2 is free
    u.slab_give(state, reg, 0, got[5])
    assert int(u.slab_take(state, z, 0)) == got[5]
    assert int(u.slab_take(state, z, 0)) == got[0]


@programs.ORDERS
def test_the_order_of_partly_free_slabs(order, pages, passed):
    """Of three full slabs of four items, slab 0 gets two free items, slab 2 one and slab 1 three."""
    state, z = fresh(Item(1024, 0, 0), slab_order=order), FIRST_ITEM
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    for page in range(3):
        u.slab_add(state, reg, 0, z, 0, page * PAGE, 0)
    for _ in range(12):
        u.slab_take(state, z, 0)
    reg[:] = 0
    for page, item in ((0, 3), (0, 2), (2, 0), (1, 3), (1, 2), (1, 1)):
        u.slab_give(state, reg, 0, page * PAGE + item * 1024)
    assert reg[0, regs.WORK] == passed
    assert [int(u.slab_take(state, z, 0)) // PAGE for _ in range(6)] == pages


def test_frees_go_to_the_alloc_bucket_first_then_the_free_bucket_then_the_list():
    m = hand(Item(2048, 0, 0))  # 8 entries
    got = [m.alloc(2048) for _ in range(40)]
    for n, addr in enumerate(got):
        m.free(addr)
        counts = m.state.cache[FIRST_ITEM, 0, [u.ALLOC + u.COUNT, u.FREE + u.COUNT]]
        assert counts.sum() + m.state.dom[FIRST_ITEM, 0, u.D_COUNT] == n + 1
    assert m.state.dom[FIRST_ITEM, 0, u.D_COUNT] == 24
    pages = len(m.map_log)
    again = [m.alloc(2048) for _ in range(40)]
    assert sorted(again) == sorted(got)
    assert again[0] == got[-1]
    assert len(m.map_log) == pages


def test_headers_off_the_page_are_items_of_their_own_zone():
    m = hand(Item(4096, 0, 0))  # one item a slab, off page
    m.alloc(4096)
    census = uma.census(m.state)
    assert census["header_pages"] == 1
    assert census["bucket_pages"] == 3  # 254 buckets of two entries, 126 to a page
    assert census["pages"] == balance(m) == 6


def test_single_pages_come_from_the_direct_map_and_larger_slabs_need_kva():
    state = fresh(Item(256, 0, 0), Item(600, 0, 0), small_alloc=1, direct_map=7)
    assert state.zone[[FIRST_ITEM, FIRST_ITEM + 1], u.Z_MAP].tolist() == [7, 2]
    state = fresh(Item(256, 0, 0), Item(600, 0, 0), small_alloc=1, direct_map=7, map_number=7)
    assert state.zone[[FIRST_ITEM, FIRST_ITEM + 1], u.Z_MAP].tolist() == [7, 0]
    state = fresh(Item(256, 0, 0), Item(600, 0, 0), small_alloc=0, direct_map=7)
    assert set(state.zone[:, u.Z_MAP]) == {2}


def test_a_slab_is_asked_for_wired_under_its_kegs_lock():
    state, reg = fresh(Item(600, 0, 0)), np.zeros((1, regs.COLUMNS), np.int64)
    answers = []
    while s.MAP_ALLOC not in answers or reg[0, regs.BYTES] != 2 * PAGE:
        answers.append(int(uma.alloc(state, reg, 0)))
        if answers[-1] == s.MAP_ALLOC and reg[0, regs.BYTES] == PAGE:
            reg[0, regs.BASE] = 0
    assert reg[0, [regs.MAP, regs.ATTR]].tolist() == [2, s.ATTR_WIRED]
    assert reg[0, regs.LOCK] == 2 << regs.LOCK_SHIFT | FIRST_ITEM


def test_mbufs_clusters_and_chains():
    m = hand()
    small = m.alloc(100, item=s.ITEM_MBUF)
    assert (small % 256, m.granted) == (0, 256)
    assert m.alloc(257, item=s.ITEM_MBUF) % 2048 == 0
    assert m.granted == 2048
    chain = m.alloc(5000, item=s.ITEM_MBUF)  # a cluster of a page, and a plain one
    assert m.granted == PAGE + 2048
    before = _in_hand(m, CLUSTER), _in_hand(m, JUMBO_PAGE)
    m.free(chain, item=s.ITEM_MBUF, size=5000)
    assert (_in_hand(m, CLUSTER), _in_hand(m, JUMBO_PAGE)) == (before[0] + 1, before[1] + 1)
    assert m.state.zone[MBUF, u.Z_BUCKET] == 254


def _in_hand(m: Hand, z: int) -> int:
    """Items in the buckets of the first CPU."""
    return int(m.state.cache[z, 0, [u.ALLOC + u.COUNT, u.FREE + u.COUNT]].sum())


@pytest.mark.parametrize(("size", "z", "pages"), [(4096, JUMBO_PAGE, 1), (9216, JUMBO_9, 3), (16384, JUMBO_16, 4)])
def test_a_jumbo_cluster_is_one_item_of_contiguous_pages(size, z, pages):
    m = hand(nmbjumbop=50, nmbjumbo9=50, nmbjumbo16=50)
    assert m.alloc(size, item=s.ITEM_MBUF) >= 0
    assert m.granted == size
    assert m.state.zone[z, [u.Z_ITEMS, u.Z_PAGES, u.Z_MAX]].tolist() == [1, pages, 50]
    state, reg = fresh(), np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, [regs.ITEM, regs.SIZE]] = s.ITEM_MBUF, size
    while uma.alloc(state, reg, 0) != s.MAP_ALLOC or reg[0, regs.BYTES] != pages * PAGE:
        reg[0, regs.BASE] = 0
    assert reg[0, regs.ATTR] == s.ATTR_WIRED | (s.ATTR_CONTIG if pages > 1 else 0)


def test_a_chain_without_clusters_of_a_page_goes_on_with_plain_ones():
    m = hand(nmbjumbop=2)
    assert m.alloc(4 * PAGE + 1, item=s.ITEM_MBUF) >= 0
    assert m.granted == 2 * PAGE + 5 * 2048
    assert m.state.zone[[JUMBO_PAGE, CLUSTER], u.Z_USED].tolist()[0] == 2


def test_kernel_stacks_are_cached_up_to_a_limit_and_unmapped_beyond_it():
    """Four CPUs: buckets of 128 / 8 / 2 = 8 stacks, and at most 128 - 8 * 8 = 64 in full ones."""
    m = hand(STACK, cpus=4)
    assert m.state.zone[FIRST_ITEM, [u.Z_BUCKET, u.Z_CACHE_MAX, u.Z_STACK]].tolist() == [8, 64, 1]
    stacks = [m.alloc(12288) for _ in range(200)]
    assert m.granted == 4 * PAGE
    assert {nbytes for _, at, nbytes in m.map_log if at in stacks} == {4 * PAGE}
    assert uma.census(m.state)["cached_items"] == 0
    for addr in stacks:
        m.free(addr)
    census = uma.census(m.state)
    assert (census["cached_items"], census["listed_items"], census["slab_items"]) == (16, 56, 0)  # fewer than 64
    freed = [nbytes for verb, _, nbytes in m.map_log if verb == "free"]
    assert freed == [4 * PAGE] * (200 - 72)
    assert census["pages"] == balance(m)


def test_a_chain_that_cannot_be_completed_gives_its_clusters_back():
    m = hand(nmbclusters=10, nmbjumbop=1)
    one = m.alloc(PAGE, item=s.ITEM_MBUF)
    assert one >= 0  # so that there are no others of a page
    assert m.alloc(12 * 2048, item=s.ITEM_MBUF) == -1
    chain = m.alloc(10 * 2048, item=s.ITEM_MBUF)
    assert chain >= 0
    assert m.alloc(2048, item=s.ITEM_MBUF) == -1
    m.free(chain, item=s.ITEM_MBUF, size=10 * 2048)
    assert m.alloc(10 * 2048, item=s.ITEM_MBUF) >= 0


def test_without_room_the_request_fails_and_the_header_goes_back():
    m = hand(Item(4096, 0, 0), limit=5 * PAGE)  # buckets, headers, one slab
    first = m.alloc(4096)
    assert first == 4 * PAGE
    assert m.alloc(4096) == -1
    assert m.reg[0, regs.PANIC] == panics.NONE
    m.free(first)
    assert m.alloc(4096) == first
    census = uma.census(m.state)
    assert census["slab_items"] == census["cached_items"] == 0


def test_without_a_bucket_a_free_goes_straight_to_the_slab():
    m = hand(Item(64, 0, 0), cpus=2, limit=7 * PAGE)  # 8 buckets of 2 KiB for the first CPU, headers, two slabs
    got = []
    while (addr := m.alloc(64)) != -1:
        got.append(addr)
    assert len(got) == 2 * 63
    for addr in got[:5]:
        m.free(addr, cpu=1)
    assert not m.state.cache[FIRST_ITEM, 1, [u.ALLOC + u.COUNT, u.FREE + u.COUNT]].any()
    assert uma.census(m.state)["slab_items"] == 5
    assert sorted(m.alloc(64, cpu=1) for _ in range(5)) == sorted(got[:5])


def test_what_an_smr_zone_gets_back_rests_until_its_bucket_s_turn_comes():
    m, usual = (hand(Item(2048, 0, 0, Traits(flags=flags))) for flags in (items.SMR, 0))
    got, other = ([one.alloc(2048) for _ in range(24)] for one in (m, usual))
    for rests, reused in zip(got[:8], other[:8], strict=True):
        m.free(rests)
        usual.free(reused)
    assert m.alloc(2048) not in got
    assert usual.alloc(2048) == other[7]
    m = hand(Item(2048, 0, 0, Traits(flags=items.SMR)))
    got = [m.alloc(2048) for _ in range(24)]
    for addr in got:
        m.free(addr)
    assert [m.alloc(2048) for _ in range(16)] == [*got[7::-1], *got[15:7:-1]]  # buckets in the order of their frees


def test_slabs_of_a_nofree_zone_never_go_back():
    m, usual = (hand(Item(2048, 0, 0, Traits(flags=flags)), reap=2) for flags in (items.NOFREE, 0))
    for one in (m, usual):
        for addr in [one.alloc(2048) for _ in range(40)]:
            one.free(addr)
        one.tend(s.TEND_REAP)
    assert [one.state.dom[FIRST_ITEM, 0, u.D_PAGES] for one in (m, usual)] == [20, 0]
    asked = hand(Item(2048, 0, 0, Traits(flags=items.NOFREE)))
    asked.alloc(2048)
    assert asked.reg[0, regs.ATTR] & s.ATTR_NOFREE


def test_items_of_another_domain_go_whole_to_its_list_on_two_domains():
    m = hand(Item(2048, 0, 0), cpus=2, domains=2)
    got = [m.alloc(2048, cpu=0) for _ in range(9)]
    for addr in got:
        m.free(addr, cpu=1)
    assert m.state.cache[FIRST_ITEM, 1, u.CROSS + u.COUNT] == 1
    assert m.state.dom[FIRST_ITEM, :, u.D_COUNT].tolist() == [8, 0]
    assert m.state.cache[FIRST_ITEM, 1, u.ALLOC + u.COUNT] == 0


def test_items_of_other_domains_are_sorted_on_more_domains():
    m = hand(Item(2048, 0, 0), cpus=3, domains=3)
    got = [m.alloc(2048, cpu=cpu) for cpu in (0, 1) * 20]
    for addr in got[:33]:
        m.free(addr, cpu=2)
    # 32 items went through full cross buckets of 8; each domain got 16, which is two buckets.
    assert m.state.dom[FIRST_ITEM, :, u.D_COUNT].tolist() == [16, 16, 0]
    assert m.state.cache[FIRST_ITEM, 2, u.CROSS + u.COUNT] == 1
    while (b := int(m.state.dom[FIRST_ITEM, 0, u.D_LIST])) != u.NIL:
        items = {int(u.item_at(m.state, b, k)) for k in range(int(u.bucket_count(m.state, b)))}
        assert items <= set(got[::2])
        u.list_fetch(m.state, FIRST_ITEM, 0, False)


def test_slabs_belong_to_the_domain_of_the_cpu_that_needed_them():
    m = hand(Item(256, 0, 0), cpus=4, domains=2)
    pages = {cpu: m.alloc(256, cpu=cpu) // PAGE for cpu in range(4)}
    assert [int(m.state.slab[pages[cpu], u.S_DOMAIN]) for cpu in range(4)] == [0, 0, 1, 1]


def test_working_set_worked_example():
    m = hand(Item(64, 0, 0))
    row = m.state.dom[FIRST_ITEM, 0]
    row[[u.D_IMAX, u.D_BIMIN, u.D_IMIN, u.D_COUNT]] = 100, 20, 20, 60
    m.tend()
    names = [u.D_WSS, u.D_LIMIN, u.D_TIMIN, u.D_IMAX, u.D_IMIN, u.D_BIMIN]
    assert row[names].tolist() == [80, 0, 0, 80, 60, 60]
    m.tend()
    assert row[names].tolist() == [60, 0, 1, 70, 60, 60]


def test_a_list_that_was_idle_for_15_minutes_shrinks_by_a_quarter_of_its_minimum():
    m = hand(Item(2048, 0, 0))
    got = [m.alloc(2048) for _ in range(416)]
    for addr in got:
        m.free(addr)
    row = m.state.dom[FIRST_ITEM, 0]
    assert row[u.D_COUNT] == 400
    ticks = 0
    while row[u.D_COUNT] == 400:
        limin = int(row[u.D_LIMIN])
        m.tend()
        ticks += 1
    assert row[u.D_TIMIN] > 45
    assert ticks > 45
    assert 0 < 400 - row[u.D_COUNT] <= (int(limin) + 400) // 4
    assert ("free", got[0] // PAGE * PAGE, PAGE) in m.map_log or any(verb == "free" for verb, *_ in m.map_log)
    assert uma.census(m.state)["pages"] == balance(m)


@pytest.mark.parametrize("reap", [0, 1, tending.DRAIN_CPU])
def test_reclaiming_trims_to_the_working_set_or_drains(reap):
    m = hand(Item(2048, 0, 0), reap=reap)
    for addr in [m.alloc(2048) for _ in range(416)]:
        m.free(addr)
    for _ in range(4):
        m.tend(s.TEND_TICK)
    m.tend(s.TEND_REAP)
    row = m.state.dom[FIRST_ITEM, 0]
    if reap:
        assert row[u.D_COUNT] == 0
    else:
        assert 0 < row[u.D_WSS] <= row[u.D_COUNT] < row[u.D_WSS] + 8 < 400
    cached = m.state.cache[FIRST_ITEM, 0, [u.ALLOC + u.COUNT, u.FREE + u.COUNT]].sum()
    assert cached == (0 if reap == tending.DRAIN_CPU else 16)
    assert uma.census(m.state)["pages"] == balance(m)


def test_only_what_is_added_above_the_soft_limit_wakes_the_reclaim_thread():
    """10 MiB, of which 9.9 are there: when a MiB more comes it is not yet above it, when the next pages come it is."""
    m = hand(kmem_limit=10 << 20, ram_bytes=1 << 30)
    assert uma.watch_ns(m.state.p) == 1_000_000_000
    m.alloc((10 << 20) - 25 * PAGE, item=s.ITEM_MALLOC)
    m.alloc(1 << 20, item=s.ITEM_MALLOC)
    assert m.state.total.tolist() == [(11 << 20) // PAGE - 25, 0]
    last = m.alloc(70000, item=s.ITEM_MALLOC)
    assert m.state.total[1] == 1
    held = [m.alloc(2048, item=s.ITEM_MALLOC) for _ in range(40)]
    for addr in held:
        m.free(addr, item=s.ITEM_MALLOC)
    m.free(last, item=s.ITEM_MALLOC)
    assert uma.census(m.state)["cached_items"] > 0
    m.tend(s.TEND_WATCH)
    census = uma.census(m.state)
    assert (census["cached_items"], census["slab_items"], m.state.total[1]) == (0, 0, 0)
    assert census["pages"] == m.state.total[0]
    before = len(m.map_log)
    m.tend(s.TEND_WATCH)  # nobody has woken it
    assert len(m.map_log) == before


def test_memory_that_is_no_more_than_the_limit_needs_no_thread():
    assert uma.watch_ns(uma.Params(kmem_limit=1 << 30, ram_bytes=1 << 30)) == 0
    assert uma.watch_ns(uma.Params(ram_bytes=1 << 30)) == 0


def test_repeated_trims_shrink_the_working_set():
    m = hand(Item(2048, 0, 0), reap=0)
    for addr in [m.alloc(2048) for _ in range(416)]:
        m.free(addr)
    counts = []
    for _ in range(8):
        m.tend(s.TEND_REAP)
        counts.append(int(m.state.dom[FIRST_ITEM, 0, u.D_COUNT]))
    assert all(a >= b for a, b in pairwise(counts))
    assert counts[-1] < counts[0]


def test_lock_counts():
    state = fresh(Item(64, 0, 0), cpus=4, domains=2)
    zones = FIRST_ITEM + 1
    assert [uma.lock_count(state, k) for k in range(len(uma.LOCKS))] == [1, 2 * zones, 2 * zones, zones]


def test_bad_machines_are_refused():
    with pytest.raises(ValueError, match="domains"):
        fresh(cpus=2, domains=3)
    with pytest.raises(ValueError, match="8 TiB"):
        fresh(kva=(1 << 43) + PAGE)


ITEMS = [Item(4096, 0, 0), Item(1368, 0, 40), Item(8, 0, 0), Item(3000, 0, 9), Item(700, 0, 300), STACK]
STEPS = programs.steps(ITEMS)


class Pair(programs.Pair):
    """The allocator and its twin."""

    def __init__(self, cpus: int, domains: int, limit: int, reap: int, module: object = uma, *, order: int = 0) -> None:
        given = {"domains": domains, "nmbufs": 400, "nmbclusters": 120, "nmbjumbop": 30, "reap": reap}
        given["slab_order"] = order
        hand = Hand(module, fresh(*ITEMS, cpus=cpus, **given), limit=limit)
        naive = NaiveUma(ITEMS, cpus=cpus, domains=domains, mbufs=400, clusters=120, jumbo=30, limit=limit, order=order)
        super().__init__(hand, naive, ITEMS, cpus, reap)

    def alloc(self, kind: int, size: int, cpu: int, wait: bool) -> None:
        """Allocate on both; whether the caller may wait makes no difference."""
        want = self.naive.alloc(kind, size, cpu)
        addr = self.hand.alloc(size, item=kind, cpu=cpu)
        assert (addr, self.hand.granted if addr >= 0 else 0) == want
        self.got(addr, kind, size)

    def piece_bytes(self, piece: int, share: int) -> int:
        slab = self.naive.slab_at.get(piece // PAGE)
        return slab.keg.layout.size if slab else share

    def check(self) -> None:
        assert self.hand.map_log == self.naive.map.log
        census = uma.census(self.hand.state)
        assert census["pages"] == self.naive.pages() == balance(self.hand)
        zones = self.naive.everything()[::-1]
        full = [[one.items for one in zone.full] for zone in zones]
        assert self.hand.state.dom[FIRST_MALLOC:, :, u.D_COUNT].tolist() == full
        for name, column in (("wss", u.D_WSS), ("limin", u.D_LIMIN), ("imax", u.D_IMAX), ("bimin", u.D_BIMIN)):
            estimate = [[getattr(one, name) for one in zone.full] for zone in zones]
            assert self.hand.state.dom[FIRST_MALLOC:, :, column].tolist() == estimate
        assert self.hand.state.zone[FIRST_MALLOC:, u.Z_USED].tolist() == [zone.used for zone in zones]
        self.check_spans()


@settings(max_examples=150)
@given(
    STEPS, h.sampled_from([(1, 1), (3, 1), (4, 2), (6, 3)]), h.sampled_from([1 << 19, 3 << 20, KVA]), h.integers(0, 2)
)
def test_random_programs_go_as_in_the_twin(program, machine, limit, reap):
    pair = Pair(*machine, limit, reap)
    pair.play(program)


@settings(max_examples=80)
@given(STEPS, h.sampled_from([(1, 1), (4, 2)]), h.integers(0, 2), h.sampled_from([LOWEST, FULLEST]))
def test_sorted_kegs_go_as_in_the_twin(program, machine, reap, order):
    Pair(*machine, 3 << 20, reap, order=order).play(program)


@settings(max_examples=40)
@given(STEPS, h.sampled_from([(1, 1), (4, 2), (6, 3)]))
def test_nothing_is_lost(program, machine):
    pair = Pair(*machine, KVA, tending.DRAIN_CPU)
    pair.play(program)
    pair.free_all()
    for _ in range(2):  # buckets emptied in the second pass lie on the first CPU's stack
        pair.play([("reap", 0, 0, 0, 0)])
    assert set(uma.census(pair.hand.state).values()) == {0}


@pytest.mark.parametrize(("cpus", "domains"), [(1, 1), (2, 1), (4, 2), (6, 3)])
def test_operations_may_be_interleaved_step_by_step(cpus, domains):
    state = fresh(*ITEMS, cpus=cpus, domains=domains, nmbclusters=150, reap=tending.DRAIN_CPU)
    limits = [uma.lock_count(state, k) for k in range(len(uma.LOCKS))]
    crowd = programs.Crowd(uma, state, ITEMS, cpus=cpus, limits=limits)
    crowd.mill(25000, swell=5000)
    crowd.disperse()
    crowd.see_to_it(s.TEND_REAP, s.TEND_REAP)
    assert crowd.pages == 0
    assert set(uma.census(crowd.state).values()) == {0}
    assert not crowd.state.zone[:, u.Z_USED].any()


def _tread(state: uma.State, reg: np.ndarray, i: int, count: int) -> None:
    """Free items until the step that asks for the zone-domain lock."""
    for _ in range(count):
        assert uma.free(state, reg, i) == s.AGAIN


def test_buckets_grow_when_somebody_else_took_the_lock_meanwhile():
    for growth in (0, 1):
        m = hand(Item(2048, 0, 0), cpus=2, bucket_growth=growth)
        for cpu in (0, 1):
            for addr in [m.alloc(2048, cpu=cpu) for _ in range(24)][:16]:
                m.free(addr, cpu=cpu)
        left = [a for a in range(0, m.next, 2048) if _is_live(m, a)]
        reg = np.zeros((2, regs.COLUMNS), np.int64)
        for i in (0, 1):
            reg[i, regs.CPU], reg[i, regs.ADDR] = i, left[i]
            _tread(m.state, reg, i, 1)
            assert reg[i, regs.LOCK] == 1 << regs.LOCK_SHIFT | FIRST_ITEM
        for i in (0, 1):
            while uma.free(m.state, reg, i) != s.DONE:
                pass
        assert m.state.zone[FIRST_ITEM, u.Z_BUCKET] == 8 + growth


def _is_live(m: Hand, addr: int) -> bool:
    """Whether an address is an item of the first zone that is in no bucket and no slab."""
    st = m.state
    page = addr // PAGE
    if st.slab[page, u.S_ZONE] - 1 != FIRST_ITEM or st.bits[page, 0] >> (addr % PAGE // 2048) & 1:
        return False
    buckets = [(int(b), int(n)) for b, n in st.cache[FIRST_ITEM][:, [0, 1]]]
    buckets += [(int(b), int(n)) for b, n in st.cache[FIRST_ITEM][:, [3, 4]]]
    b = int(st.dom[FIRST_ITEM, 0, u.D_LIST])
    while b != u.NIL:
        buckets.append((b, int(u.bucket_count(st, b))))
        b = int(st.word[b]) - 1
    held = {int(u.item_at(st, b, k)) for b, n in buckets if b != u.NIL for k in range(n)}
    return addr not in held


def test_one_driver_without_interleaving_never_sees_contention():
    m = hand(Item(2048, 0, 0), cpus=2)
    for _ in range(3):
        for addr in [m.alloc(2048, cpu=k % 2) for k in range(100)]:
            m.free(addr, cpu=1)
    assert m.state.zone[FIRST_ITEM, u.Z_BUCKET] == 8
