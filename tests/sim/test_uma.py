"""UMA of 2002 to 2006: tables of its layouts and buckets, worked examples, its paths, and programs against a twin."""

import functools
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import uma_programs as programs
from hypothesis import given, settings
from hypothesis import strategies as h
from naive_uma import NaiveUma
from uma_programs import KVA, balance

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import uma
from kmemexp.sim.allocators._shared.packed_phase import PHASE_MASK
from kmemexp.sim.allocators._shared.slab_order import FULLEST, LOWEST
from kmemexp.sim.allocators.uma import layout as lay
from kmemexp.sim.allocators.uma import moves, phases
from kmemexp.sim.allocators.uma import slabs as u
from kmemexp.sim.allocators.uma import upkeep_steps as tending
from kmemexp.sim.items import Item
from kmemexp.sim.tables import flag, panics, regs
from kmemexp.validate.hand import Hand

PAGE = s.PAGE
I386 = lay.slab_header(lay.UMA_03)
LP64 = lay.slab_header(lay.UMA_03, 8)
KEGS = lay.slab_header(lay.UMA_06)

# fmt: off
LAYOUTS = [  # bytes, rounded, items, pages, place of the header, bytes lost; on LP64: items, header
    (4, 16, 239, 1, 3832, 272, "238 in"), (16, 16, 239, 1, 3832, 272, "238 in"), (20, 20, 193, 1, 3876, 236, "161 in"),
    (32, 32, 123, 1, 3948, 160, "122 in"), (36, 36, 110, 1, 3960, 136, "98 in"), (48, 48, 83, 1, 3988, 112, "82 in"),
    (64, 64, 62, 1, 4008, 128, "62 in"), (80, 80, 50, 1, 4020, 96, "49 in"), (96, 96, 41, 1, 4028, 160, "41 in"),
    (100, 100, 40, 1, 4032, 96, "38 in"), (128, 128, 31, 1, 4040, 128, "31 in"), (160, 160, 25, 1, 4044, 96, "25 in"),
    (180, 180, 22, 1, 4048, 136, "21 in"), (200, 200, 20, 1, 4052, 96, "20 in"), (208, 208, 19, 1, 4052, 144, "19 in"),
    (240, 240, 16, 1, 4056, 256, "16 in"), (256, 256, 15, 1, 4056, 256, "15 in"), (268, 268, 15, 1, 4056, 76, "14 in"),
    (320, 320, 12, 1, 4060, 256, "12 in"), (384, 384, 10, 1, 4060, 256, "10 in"), (400, 400, 10, 1, 4060, 96, "10 in"),
    (412, 412, 9, 1, 4060, 388, "9 in"), (448, 448, 9, 1, 4060, 64, "9 in"), (452, 452, 9, 1, None, 28, "8 in"),
    (500, 500, 8, 1, 4064, 96, "8 in"), (512, 512, 8, 1, None, 0, "8 OFF"), (524, 524, 7, 1, 4064, 428, "7 in"),
    (576, 576, 7, 1, 4064, 64, "7 in"), (600, 600, 6, 1, 4064, 496, "6 in"), (640, 640, 6, 1, 4064, 256, "6 in"),
    (680, 680, 6, 1, None, 16, "6 OFF"), (700, 700, 5, 1, 4064, 596, "5 in"), (768, 768, 5, 1, 4064, 256, "5 in"),
    (800, 800, 5, 1, 4064, 96, "5 in"), (816, 816, 5, 1, None, 16, "5 OFF"), (1000, 1000, 4, 1, 4068, 96, "4 in"),
    (1024, 1024, 4, 1, None, 0, "4 OFF"), (1300, 1300, 3, 1, 4068, 196, "3 in"), (1360, 1360, 3, 1, None, 16, "3 OFF"),
    (2000, 2000, 2, 1, 4068, 96, "2 in"), (2034, 2036, 2, 1, None, 24, "2 OFF"), (2048, 2048, 2, 1, None, 0, "2 OFF"),
    (2049, 2052, 1, 1, 4068, 2044, "1 in"), (3000, 3000, 1, 1, 4068, 1096, "1 in"),
    (4000, 4000, 1, 1, 4068, 96, "1 in"), (4072, 4072, 1, 1, None, 24, "1 OFF"), (4096, 4096, 1, 1, None, 0, "1 OFF"),
    (9216, 9216, 1, 3, None, 3072, "1 OFF"), (16384, 16384, 1, 4, None, 0, "1 OFF"),
]
KEG_LAYOUTS = [(16, 203, "in"), (32, 113, "in"), (64, 59, "in"), (128, 30, "in"), (256, 15, "in"), (512, 8, "OFF"),
               (1024, 4, "OFF"), (2048, 2, "OFF")]
# fmt: on


def place(layout: lay.Layout) -> str:
    return "OFF" if layout.offset < 0 else "in"


@pytest.mark.parametrize(("nbytes", "size", "items", "pages", "offset", "lost", "lp64"), LAYOUTS)
def test_slab_layouts(nbytes, size, items, pages, offset, lost, lp64):
    layout = lay.slab_layout(nbytes, 4, I386)
    assert layout == lay.Layout(size, items, pages, -1 if offset is None else offset)
    assert layout.lost == lost
    layout = lay.slab_layout(nbytes, 8, LP64)
    assert f"{layout.items} {place(layout)}" == lp64


@pytest.mark.parametrize(("nbytes", "items", "header"), KEG_LAYOUTS)
def test_items_of_kegs_cost_four_bytes_in_a_header(nbytes, items, header):
    layout = lay.slab_layout(nbytes, 4, KEGS)
    assert (layout.items, place(layout)) == (items, header)
    if header == "in":
        assert layout.offset == PAGE - 28 - 4 * items


def test_reference_counts_cost_eight_bytes():
    assert lay.slab_header(lay.UMA_06, counted=True)[:2] == (32, 8)
    layout = lay.slab_layout(2048, 4, lay.slab_header(lay.UMA_06, counted=True))
    assert (layout.items, place(layout)) == (2, "OFF")


@pytest.mark.parametrize("nbytes", [4069, 4070, 4071])
def test_just_below_a_page_no_item_fits_beside_a_header(nbytes):
    assert lay.items_beside_header(4072, I386) == 0
    assert lay.slab_layout(nbytes, 4, I386) == lay.Layout(4072, 1, 1, -1)
    assert lay.items_beside_header(4068, I386) == 1


def test_an_item_of_half_a_page_and_a_byte_wastes_half():
    assert lay.slab_layout(2049, 4, I386).lost == pytest.approx(PAGE / 2, abs=4)


@pytest.mark.parametrize(
    ("entries", "nbytes", "items"), [(16, 76, 52), (32, 140, 28), (64, 268, 15), (128, 524, 7), (125, 512, 7)]
)
def test_bucket_zones_have_their_headers_in_the_page(entries, nbytes, items):
    assert lay.bucket_bytes(entries) == nbytes
    layout = lay.slab_layout(nbytes, 4, I386, internal=True)
    assert (layout.items, place(layout)) == (items, "in")


def test_off_page_headers():
    assert lay.header_bytes(lay.UMA_03, I386) == 34
    layout = lay.slab_layout(34, 4, I386, internal=True)
    assert (layout.size, layout.items) == (36, 110)
    # With kegs: as many indices as the smallest item has that leaves a tenth free.
    most = max(PAGE // n for n in range(16, 4000) if PAGE - 28 - 4068 // (n + 4) * (n + 4) > 409)
    assert lay.header_bytes(lay.UMA_06, KEGS) == 28 + 4 * most


BUCKETS = [(n, 16 if n <= 16 else 32 if n <= 32 else 64 if n <= 64 else 128) for n in range(1, 129)]


@pytest.mark.parametrize(("count", "entries"), BUCKETS)
def test_bucket_by_count(count, entries):
    state = fresh(generation=lay.UMA_03)
    assert state.zone[moves.bucket_zone(state, count), u.Z_COUNT] == entries


@pytest.mark.parametrize("generation", range(4))
def test_first_count_is_what_a_slab_holds_up_to_the_largest_bucket(generation):
    most = 125 if generation < 2 else 128
    assert [lay.first_count(n, generation) for n in (1, 15, 124, 126, 239)] == [1, 15, 124, min(126, most), most]
    assert lay.first_count(15, generation, largest=True) == most


LIMITS = [(256, 100, 3, 7), (256, 100, 2, 7), (256, 100, 0, 6), (2048, 1024, 3, 512), (9000, 10, 2, 30)]


@pytest.mark.parametrize(("size", "limit", "generation", "pages"), LIMITS)
def test_limits_are_pages_rounded_up_since_late_2003(size, limit, generation, pages):
    layout = lay.slab_layout(size, 4, I386)
    assert lay.max_pages(limit, layout, generation) == pages
    state = fresh(Item(size, 0, limit), generation=generation)
    assert state.zone[u.FIRST_ITEM, u.Z_MAX] == pages


@pytest.mark.parametrize(("free", "working", "slabs"), [(100, 40, 4), (100, 90, 0), (30, 40, 0)])
def test_spare_slabs_beyond_the_working_set(free, working, slabs):
    assert tending.spare_slabs(free, working, 15) == slabs


fresh = functools.partial(programs.fresh, uma, map_number=1)


class Watched(Hand):
    """A hand that notes under which lock and in which phase each step goes on."""

    def __init__(self, state: uma.State, **more: int) -> None:
        self.steps: list[tuple[int, int, int]] = []  # answer, lock of the next step, its phase
        verbs = {"alloc": uma.alloc, "free": uma.free, "tend": uma.tend}
        super().__init__(SimpleNamespace(**{name: self._noted(verb) for name, verb in verbs.items()}), state, **more)

    def _noted(self, verb: Callable) -> Callable:
        def step(state: uma.State, reg: np.ndarray, i: int) -> int:
            reg[i, regs.LOCK], reg[i, regs.WORK] = -1, 0
            answer = int(verb(state, reg, i))
            self.steps.append((answer, int(reg[i, regs.LOCK]), int(reg[i, regs.PHASE]) & PHASE_MASK))
            return answer

        return step

    def trips(self) -> int:
        """How often the zone's lock was taken because a CPU's buckets did not do."""
        return sum(answer == s.AGAIN and phase in (phases.MISS, phases.FREE_MISS) for answer, _, phase in self.steps)


def hand(*items: Item, cpus: int = 1, limit: int = KVA, **params: int) -> Watched:
    return Watched(fresh(*items, cpus=cpus, **params), limit=limit)


def zone_lock(z: int) -> int:
    return moves.ZONE_LOCK << regs.LOCK_SHIFT | z


def counts(m: Hand, z: int = u.FIRST_ITEM, cpu: int = 0) -> list[tuple[int, int] | None]:
    """Count and entries of a CPU's alloc and free bucket."""
    pair = m.state.cache[z, cpu, [u.ALLOC, u.FREE]].tolist()
    return [None if b == u.NIL else tuple(m.state.word[[b + u.B_COUNT, b + u.B_ENTRIES]].tolist()) for b in pair]


MALLOCS = [(0, 16), (1, 16), (16, 16), (17, 32), (129, 256), (4096, 4096), (4097, 8192), (8193, 12288)]


@pytest.mark.parametrize(("size", "granted"), MALLOCS)
@pytest.mark.parametrize("generation", range(4))
def test_malloc_rounds_to_its_zones_and_above_a_page_to_pages(size, granted, generation):
    m = hand(generation=generation)
    assert m.alloc(size, item=s.ITEM_MALLOC) >= 0
    assert m.granted == granted


def test_large_malloc_has_an_off_page_header_and_goes_back_at_once():
    m = hand()
    addr = m.alloc(20000, item=s.ITEM_MALLOC)
    assert m.map_log == [("alloc", 0, PAGE), ("alloc", PAGE, 5 * PAGE)]
    assert addr == PAGE
    assert {"pages": 6, "large_pages": 5, "header_pages": 1}.items() <= uma.census(m.state).items()
    m.free(addr, item=s.ITEM_MALLOC, size=20000)
    assert m.map_log[2:] == [("free", PAGE, 5 * PAGE)]
    assert m.answers == [s.MAP_FREE, s.DONE]
    m.tend(s.TEND_REAP)
    assert uma.census(m.state)["pages"] == 0


def page_order(items: list[int]) -> list[tuple[int, int]]:
    """Addresses of 256-byte items as (slab, item), slabs numbered from 1 in the order that they were made."""
    pages = sorted({addr // PAGE for addr in items})
    return [(pages.index(addr // PAGE) + 1, addr % PAGE // 256) for addr in items]


def test_worked_example_of_late_2003():
    m = hand(Item(256, 0, 0), generation=lay.UMA_03)
    got = [m.alloc(256) for _ in range(34)]
    want = [(2, 0), *((1, k) for k in range(14, -1, -1)), (3, 1), (3, 0), *((2, k) for k in range(14, 0, -1))]
    assert page_order(got)[:32] == want
    assert m.trips() == 6
    row = m.state.zone[u.FIRST_ITEM]
    assert (row[u.Z_COUNT], row[u.Z_HELD]) == (18, 4)
    assert counts(m) == [(14, 16), None]
    assert m.state.zone[u.FIRST_BUCKET : u.FIRST_CACHED, u.Z_HELD].tolist() == [1, 0, 0, 0]
    for addr in got:
        m.free(addr)
    assert m.trips() == 8
    assert m.state.zone[u.FIRST_BUCKET : u.FIRST_CACHED, u.Z_HELD].tolist() == [1, 1, 0, 0]
    assert counts(m) == [(32, 32), (16, 16)]
    assert row[[u.Z_READY, u.Z_EMPTY, u.Z_IDLE]].tolist() == [u.NIL] * 3
    m.tend(s.TEND_REAP)
    assert row[u.Z_HELD] == 4
    assert not any(verb == "free" for verb, *_ in m.map_log)


def test_a_stream_that_began_with_a_small_bucket_keeps_it():
    m = hand(Item(256, 0, 0), generation=lay.UMA_03)
    while m.state.zone[u.FIRST_ITEM, u.Z_COUNT] < 128 or counts(m)[0][0] > 0:
        m.alloc(256)
    before = m.trips()
    for _ in range(12800):
        m.alloc(256)
    assert m.trips() - before == 1600
    assert counts(m)[0] == (0, 16)


@pytest.mark.parametrize("generation", range(4))
def test_the_fast_path_is_one_step(generation):
    m = hand(Item(256, 0, 0), generation=generation)
    addr = m.alloc(256)
    m.free(addr)
    assert m.alloc(256) >= 0
    assert m.answers == [s.DONE]
    m.free(addr)
    assert m.answers == [s.DONE]


@pytest.mark.parametrize("generation", range(4))
def test_a_miss_takes_the_zones_lock_the_bucket_zones_and_the_cpus_again(generation):
    m = hand(Item(256, 0, 0), generation=generation)
    m.alloc(256)
    locks = [lock for answer, lock, _ in m.steps if answer == s.AGAIN]
    z, k = zone_lock(u.FIRST_ITEM), zone_lock(u.FIRST_BUCKET)
    assert locks == [z, k, z, -1, z]
    assert m.answers.count(s.MAP_ALLOC) == 3


def test_before_late_2003_a_fill_of_an_old_bucket_takes_the_zones_lock_anew():
    for generation, times in ((1, 3), (2, 2)):
        m = hand(Item(4096, 0, 0), generation=generation)
        while m.state.zone[u.FIRST_ITEM, u.Z_COUNT] < 4 or counts(m)[0][0] > 0:
            m.alloc(4096)
        m.steps.clear()
        m.alloc(4096)
        assert m.state.zone[u.FIRST_ITEM, u.Z_READY] == u.NIL
        own = [lock for answer, lock, phase in m.steps if lock == zone_lock(u.FIRST_ITEM) and phase != phases.SLAB]
        assert len(own) == times


@pytest.mark.parametrize("generation", range(4))
def test_lock_counts(generation):
    state = fresh(Item(64, 0, 0), cpus=4, generation=generation)
    assert uma.lock_count(state, 1) == u.FIRST_ITEM + 1


def test_buckets_of_125_fill_to_the_count_and_take_frees_up_to_it():
    m = hand(Item(256, 0, 0), generation=lay.UMAI_03)
    got = [m.alloc(256) for _ in range(34)]
    # 16, then 17 items in the same bucket, which has room for 125, then 18.
    assert counts(m) == [(17, 125), None]
    assert m.state.zone[u.FIRST_ITEM, u.Z_COUNT] == 18
    for addr in got:
        m.free(addr)
    assert counts(m) == [(18, 125), (15, 125)]
    assert uma.census(m.state)["listed_items"] == 18


def test_a_full_bucket_that_came_by_the_exchange_goes_to_the_zones_list():
    m = hand(Item(256, 0, 0), cpus=2, generation=lay.UMA_03)
    for addr in [m.alloc(256) for _ in range(34)]:
        m.free(addr)
    got = [m.alloc(256) for _ in range(20)]
    other = m.alloc(256, cpu=1)
    (first, first_of), (second, second_of) = counts(m)
    assert second == second_of > first
    m.free(got.pop())
    assert counts(m) == [(second, second_of), (first + 1, first_of)]  # exchanged
    while counts(m)[1][0] < first_of:
        m.free(got.pop() if got else other)
    listed = uma.census(m.state)["listed_items"]
    m.free(got.pop() if got else other)
    assert counts(m)[0] == (first_of, first_of)
    assert counts(m)[1][0] == 1
    assert uma.census(m.state)["listed_items"] == listed + second


def test_items_freed_stay_on_the_cpu_that_frees():
    m = hand(Item(512, 0, 0), cpus=2)
    addr = m.alloc(512, cpu=0)
    m.free(addr, cpu=1)
    assert counts(m, cpu=1)[1] == (1, 125)


def test_the_free_bucket_is_used_when_the_alloc_bucket_is_empty():
    m = hand(Item(512, 0, 0))
    got = [m.alloc(512) for _ in range(9)]
    m.free(got[3])
    m.free(got[5])
    assert [m.alloc(512), m.alloc(512)] == [got[5], got[3]]
    assert m.answers == [s.DONE]


def test_without_an_alloc_bucket_the_free_bucket_is_not_looked_at():
    m = hand(Item(512, 0, 0), cpus=2)
    addr = m.alloc(512, cpu=0)
    m.free(addr, cpu=1)
    assert m.alloc(512, cpu=1) != addr


def test_off_page_headers_take_pages():
    m = hand(Item(2048, 0, 0))
    for _ in range(2 * 110 + 1):
        m.alloc(2048)
    slabs = m.state.zone[u.FIRST_ITEM, u.Z_HELD]
    assert uma.census(m.state)["header_pages"] == -(-slabs // 110) == 2


@pytest.mark.parametrize("generation", range(4))
def test_a_zone_at_its_limit_fails_and_bypasses_its_caches_until_pages_go_back(generation):
    m = hand(Item(2048, 0, 8), generation=generation)
    got = [m.alloc(2048) for _ in range(8)]
    assert -1 not in got
    assert m.alloc(2048) == -1
    assert m.reg[0, regs.PANIC] == panics.NONE
    m.free(got[0])
    assert uma.census(m.state)["slab_items"] == 1
    assert m.steps[-2][1] == zone_lock(u.FIRST_ITEM)
    assert m.state.zone[u.FIRST_ITEM, u.Z_FULL] == 1
    assert m.alloc(2048) == got[0]
    for addr in got:
        m.free(addr)
    assert m.state.zone[u.FIRST_ITEM, u.Z_FULL] == 1
    m.tend(s.TEND_REAP)
    assert m.state.zone[u.FIRST_ITEM, u.Z_HELD] == 0
    first, _ = m.alloc(2048), m.alloc(2048)
    m.free(first)
    assert m.state.zone[u.FIRST_ITEM, u.Z_FULL] == 1  # a free goes past the caches once more, and ends it
    m.tend(s.TEND_REAP)


def test_an_early_limit_below_a_slab_is_none():
    m = hand(Item(256, 0, 10), generation=lay.UMA_02)
    assert all(m.alloc(256) >= 0 for _ in range(40))


@pytest.mark.parametrize("flags", [0, flag.NOWAIT])
@pytest.mark.parametrize("generation", range(4))
@pytest.mark.parametrize("size", [64, 2048, 9000])
def test_without_room_in_the_map_what_may_wait_panics(flags, generation, size):
    m = hand(generation=generation, limit=5 * PAGE)
    while m.alloc(size, item=s.ITEM_MALLOC, flags=flags) >= 0:
        pass
    assert m.reg[0, regs.PANIC] == (panics.NONE if flags else panics.KMEM_MAP)
    held = uma.census(m.state)
    assert held["pages"] == balance(m)
    assert not m.state.zone[:, [u.Z_FILLS, u.Z_GROWING]].any()


def test_a_bucket_that_has_got_something_is_enough():
    m = hand(Item(1024, 0, 0), generation=lay.UMAI_03, limit=4 * PAGE)  # bucket, header, two slabs
    got = [m.alloc(1024) for _ in range(8)]
    assert len(set(got)) == 8
    assert -1 not in got


def test_kernel_map_is_used_unless_it_is_locked():
    asked = []
    for locked in (0, 1):
        state = fresh(map_number=1, generation=lay.UMA_02, kmem_map=1)
        reg = np.zeros((1, regs.COLUMNS), np.int64)
        reg[0, [regs.ITEM, regs.SIZE, regs.LOCKED]] = s.ITEM_MALLOC, 9000, locked
        while uma.alloc(state, reg, 0) != s.MAP_ALLOC:
            pass
        asked.append(int(reg[0, regs.MAP]))
        assert reg[0, regs.BYTES] == PAGE
        reg[0, regs.BASE] = 0
        assert uma.alloc(state, reg, 0) == s.MAP_ALLOC
        reg[0, regs.BASE] = PAGE
        assert uma.alloc(state, reg, 0) == s.DONE
        reg[0, regs.PHASE] = 0
        assert uma.free(state, reg, 0) == s.MAP_FREE
        asked.append(int(reg[0, regs.MAP]))
    assert asked == [0, 0, 1, 1]


def test_in_kernel_map_a_refusal_is_no_panic():
    m = hand(generation=lay.UMA_02, kmem_map=1, limit=PAGE)
    assert m.alloc(9000, item=s.ITEM_MALLOC) == -1
    assert m.reg[0, regs.PANIC] == panics.NONE


def test_later_generations_stay_in_their_map():
    m = hand(generation=lay.UMAI_03, kmem_map=5, map_number=3)
    m.alloc(9000, item=s.ITEM_MALLOC)
    assert m.reg[0, regs.MAP] == 3


@pytest.mark.parametrize("flags", [0, flag.NOWAIT])
def test_without_map_entries_the_kernel_panics(flags):
    state = fresh()
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, [regs.ITEM, regs.SIZE, regs.FLAGS]] = s.ITEM_MALLOC, 100, flags
    answer = s.AGAIN
    while answer not in (s.DONE, s.FAILED):
        answer = int(uma.alloc(state, reg, 0))
        reg[0, regs.BASE] = s.NO_ENTRY
    assert (answer, reg[0, regs.PANIC]) == (s.FAILED, panics.ENTRIES)


def test_mbufs_and_clusters():
    m = hand(generation=lay.UMA_06, nmbclusters=6)
    assert m.state.zone[u.MBUF, [u.Z_ITEMS, u.Z_COUNT]].tolist() == [15, 128]
    assert m.state.zone[u.CLUSTER, [u.Z_ITEMS, u.Z_MAX, u.Z_HEADER]].tolist() == [2, 3, u.COUNTED_SLABS]
    assert m.alloc(256, item=s.ITEM_MBUF) % 256 == 0
    assert m.granted == 256
    first = m.alloc(2048, item=s.ITEM_MBUF)
    assert m.granted == 2048
    chain = m.alloc(9000, item=s.ITEM_MBUF)
    assert m.granted == 5 * 2048
    assert m.alloc(257, item=s.ITEM_MBUF) == -1
    m.free(chain, item=s.ITEM_MBUF)
    assert m.alloc(12000, item=s.ITEM_MBUF) == -1
    m.free(first, item=s.ITEM_MBUF)
    held = uma.census(m.state)
    assert held["slab_items"] + held["cached_items"] + held["listed_items"] == made(m.state) - 1  # an mbuf is alive


def made(state: uma.State) -> int:
    """Items that the slabs of cached zones consist of."""
    rows = state.zone[u.FIRST_CACHED :]
    return int((rows[:, u.Z_HELD] // rows[:, u.Z_PAGES] * rows[:, u.Z_ITEMS]).sum())


@pytest.mark.parametrize("generation", [0, 1])
def test_the_working_set_is_what_was_allocated_since_the_last_tick(generation):
    m = hand(Item(256, 0, 0), cpus=2, generation=generation)
    for k in range(50):
        m.free(m.alloc(256, cpu=k % 2))
    m.tend()
    assert m.state.zone[u.FIRST_ITEM, u.Z_WORKING] == 50
    m.alloc(256)
    m.tend()
    assert m.state.zone[u.FIRST_ITEM, u.Z_WORKING] == 1
    m.tend()
    assert m.state.zone[u.FIRST_ITEM, u.Z_WORKING] == 0


@pytest.mark.parametrize(("working", "slabs"), [(40, 4), (90, 0), (101, 0)])
@pytest.mark.parametrize("generation", [0, 1])
def test_an_early_reclaim_empties_all_buckets_and_spares_the_working_set(working, slabs, generation):
    m = hand(Item(256, 0, 0), cpus=2, generation=generation)
    got = [m.alloc(256, cpu=k % 2) for k in range(105)]
    while m.state.zone[u.FIRST_ITEM, u.Z_HELD] < 7:
        got.append(m.alloc(256))
    got.sort()
    for k, addr in enumerate(got):
        if k >= 5:
            m.free(addr, cpu=k % 2)
    m.state.zone[u.FIRST_ITEM, u.Z_WORKING] = working + 15 * (m.state.zone[u.FIRST_ITEM, u.Z_HELD] - 7)
    before = m.state.zone[u.FIRST_ITEM, u.Z_HELD]
    m.tend(s.TEND_REAP)
    assert before - m.state.zone[u.FIRST_ITEM, u.Z_HELD] == slabs
    assert [pair[0] for pair in counts(m, cpu=0) + counts(m, cpu=1) if pair] == [0, 0, 0, 0]
    assert m.state.zone[u.FIRST_ITEM, [u.Z_READY, u.Z_EMPTY]].tolist() == [u.NIL, u.NIL]
    assert uma.census(m.state)["pages"] == balance(m)


def test_an_early_reclaim_takes_each_cpus_lock():
    m = hand(Item(256, 0, 0), cpus=3)
    m.tend(s.TEND_REAP)
    locks = [lock for answer, lock, _ in m.steps if answer == s.AGAIN]
    assert locks[:4] == [0, 1, 2, zone_lock(u.FIRST_ITEM)]


def test_reclaims_since_2004_empty_the_zones_lists_but_not_the_cpus_buckets():
    held = {}
    for generation in (2, 3):
        m = hand(Item(2048, 0, 0), generation=generation)
        for addr in [m.alloc(2048) for _ in range(400)]:
            m.free(addr)
        cached = uma.census(m.state)["cached_items"]
        listed = uma.census(m.state)["listed_items"]
        assert listed > 0
        m.tend(s.TEND_REAP)
        after = uma.census(m.state)
        assert after["cached_items"] == cached
        assert after["listed_items"] == (listed if generation == 2 else 0)
        assert after["pages"] == balance(m)
        held[generation] = after["pages"]
    assert held[3] < held[2]


def test_ticks_of_later_generations_have_nothing_to_do():
    for generation in (2, 3):
        m = hand(generation=generation)
        m.tend()
        assert m.answers == [s.DONE]


def test_slabs_go_back_first_one_first_until_late_2003_then_backwards():
    for generation in range(4):
        m = hand(Item(9000, 0, 0), generation=generation, bucketdisable=1)
        m.tend(s.TEND_REAP)  # no buckets: items go straight to slabs
        got = [m.alloc(9000) for _ in range(4)]
        for addr in got:
            m.free(addr)
        m.tend(s.TEND_REAP)
        gone = [base for verb, base, nbytes in m.map_log if verb == "free" and nbytes == 3 * PAGE]
        assert gone == (got[::-1] if generation < 2 else got)


@pytest.mark.parametrize("generation", range(4))
def test_without_new_buckets_items_go_straight_to_slabs(generation):
    m = hand(Item(256, 0, 0), generation=generation, bucketdisable=1)
    m.tend(s.TEND_REAP)
    got = [m.alloc(256) for _ in range(20)]
    assert page_order(got) == [*((1, k) for k in range(15)), *((2, k) for k in range(5))]
    m.free(got[3])
    assert uma.census(m.state)["bucket_pages"] == uma.census(m.state)["cached_items"] == 0
    assert m.alloc(256) == got[3]
    m.tend(s.TEND_TICK)
    m.alloc(256)
    assert uma.census(m.state)["bucket_pages"] == 1


@pytest.mark.parametrize("generation", range(4))
def test_typed_zones_may_be_kept(generation):
    m = hand(Item(9000, 0, 0), generation=generation, bucketdisable=1, nofree=1)
    m.tend(s.TEND_REAP)
    m.free(m.alloc(9000))
    m.free(m.alloc(2048, item=s.ITEM_MALLOC))
    m.tend(s.TEND_REAP)
    held = m.state.zone[:, u.Z_HELD]
    assert (held[u.FIRST_ITEM], held[u.FIRST_MALLOC : u.MBUF].sum()) == (3, 0)


@pytest.mark.parametrize("nofree", [0, 1])
def test_what_a_kept_zone_takes_from_the_map_is_marked_so(nofree):
    m = hand(Item(9000, 0, 0), nofree=nofree)
    asked = {}
    for item, size in ((0, 9000), (s.ITEM_MALLOC, 2048), (s.ITEM_MALLOC, 9000)):
        reg = np.zeros((1, regs.COLUMNS), np.int64)
        reg[0, regs.ITEM], reg[0, regs.SIZE] = item, size
        answer = s.AGAIN
        while answer not in (s.DONE, s.FAILED):
            answer = int(uma.alloc(m.state, reg, 0))
            if answer == s.MAP_ALLOC:
                asked.setdefault((item, size), []).append(int(reg[0, regs.ATTR]))
                reg[0, regs.BASE], m.next = m.next, m.next + int(reg[0, regs.BYTES])
    kept = s.ATTR_KMEM | s.ATTR_NOFREE
    of_zone = asked.pop((0, 9000))
    assert of_zone.count(kept) == (len(of_zone) - 2 if nofree else 0)  # the others: a bucket, a header
    assert all(attr == s.ATTR_KMEM for attrs in asked.values() for attr in attrs)


def test_at_most_as_many_fills_as_cpus_at_once():
    state = fresh(Item(9000, 0, 0), cpus=1)
    reg = np.zeros((2, regs.COLUMNS), np.int64)
    reg[:, regs.SIZE] = 9000
    log = []
    for i in (0, 1):
        answer = s.AGAIN
        while not (answer == s.MAP_ALLOC and reg[i, regs.BYTES] == 3 * PAGE):
            answer = int(uma.alloc(state, reg, i))
            if answer == s.MAP_ALLOC and reg[i, regs.BYTES] == PAGE:
                log.append(PAGE * len(log))
                reg[i, regs.BASE] = log[-1]
    assert state.zone[u.FIRST_ITEM, u.Z_FILLS] == 1
    back = (reg[:, regs.PHASE] >> phases.BACK_SHIFT) & PHASE_MASK
    assert back.tolist() == [phases.FILL, phases.SINGLE]


@programs.ORDERS
def test_the_order_of_partly_free_slabs(order, pages, passed):
    """Of three full slabs of five items, slab 0 gets two free items, slab 2 one and slab 1 three."""
    state, z = fresh(Item(700, 0, 0), slab_order=order), u.FIRST_ITEM
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    for page in range(3):
        u.slab_add(state, reg, 0, z, page * PAGE, u.NIL, 0)
    assert sorted(u.slab_take(state, z) for _ in range(15))[-1] == 2 * PAGE + 2800
    reg[:] = 0
    for page, item in ((0, 3), (0, 4), (2, 0), (1, 4), (1, 2), (1, 1)):
        u.slab_give(state, reg, 0, page * PAGE + item * 700)
    assert reg[0, regs.WORK] == passed
    assert [u.slab_take(state, z) // PAGE for _ in range(6)] == pages
    assert u.slab_take(state, z) == u.NIL


def test_bad_machines_are_refused():
    with pytest.raises(ValueError, match="generation"):
        fresh(generation=4)
    with pytest.raises(ValueError, match="pointer"):
        fresh(pointer_bytes=16)
    with pytest.raises(ValueError, match="slab_order"):
        fresh(slab_order=3)
    with pytest.raises(ValueError, match="8 TiB"):
        fresh(kva=(1 << 43) + PAGE)


@pytest.mark.parametrize("generation", range(4))
def test_on_lp64_headers_and_buckets_are_larger(generation):
    m = hand(Item(20, 0, 0), generation=generation, pointer_bytes=8)
    got = sorted(m.alloc(20) for _ in range(300))
    assert {addr % PAGE % 24 for addr in got} == {0}
    assert m.state.zone[u.FIRST_BUCKET, u.Z_SIZE] == 8 * (3 + (125 if generation < 2 else 16))
    items = 161 if generation < 3 else (PAGE - 56) // 32
    assert m.state.zone[u.FIRST_ITEM, u.Z_ITEMS] == items


ITEMS = [Item(4096, 0, 0), Item(1360, 0, 40), Item(16, 0, 0), Item(3000, 0, 9), Item(700, 0, 300), Item(9000, 0, 12)]
STEPS = programs.steps(ITEMS)


class Pair(programs.Pair):
    """The allocator and its twin."""

    def __init__(
        self, cpus: int, limit: int, generation: int, disable: bool, *, order: int = 0, eager: bool = False
    ) -> None:
        given = {"nmbclusters": 120, "generation": generation, "bucketdisable": int(disable)}
        given |= {"slab_order": order, "eager_release": int(eager)}
        twin = {"cpus": cpus, "clusters": 120, "limit": limit, "disable": disable, "order": order, "eager": eager}
        hand = Hand(uma, fresh(*ITEMS, cpus=cpus, **given), limit=limit)
        super().__init__(hand, NaiveUma(ITEMS, generation, **twin), ITEMS, cpus)

    def alloc(self, kind: int, size: int, cpu: int, wait: bool) -> None:
        want = self.naive.alloc(kind, size, cpu, wait)
        addr = self.hand.alloc(size, item=kind, cpu=cpu, flags=0 if wait else flag.NOWAIT)
        panicked = addr < 0 and self.hand.reg[0, regs.PANIC] == panics.KMEM_MAP
        assert (addr, self.hand.granted if addr >= 0 else 0, panicked) == want
        self.got(addr, kind, size)

    def check(self) -> None:
        assert self.hand.map_log == self.naive.map.log
        held = uma.census(self.hand.state)
        assert held["pages"] == self.naive.pages() == balance(self.hand)
        zones = self.naive.cached()
        rows = self.hand.state.zone[u.FIRST_CACHED :]
        wanted = [[zone.count, zone.pages, zone.free, zone.full] for zone in zones]
        assert rows[:, [u.Z_COUNT, u.Z_HELD, u.Z_FREE, u.Z_FULL]].tolist() == wanted
        cached = [bucket for zone in zones for bucket in [*zone.first, *zone.second] if bucket]
        assert held["cached_items"] == sum(len(bucket.items) for bucket in cached)
        assert held["listed_items"] == sum(len(bucket.items) for zone in zones for bucket in zone.ready)
        assert held["idle_slabs"] == sum(
            len(zone.idle) for zone in [*self.naive.own(), *zones] if zone is not self.naive.packet
        )
        self.check_spans(align=4)

    def piece_bytes(self, piece: int, share: int) -> int:
        return 256 if piece in self.naive.packets else share


@settings(max_examples=300)
@given(STEPS, h.sampled_from([1, 2, 4]), h.sampled_from([1 << 19, 3 << 20, KVA]), h.integers(0, 3), h.booleans())
def test_random_programs_go_as_in_the_twin(program, cpus, limit, generation, disable):
    Pair(cpus, limit, generation, disable).play(program)


@settings(max_examples=150)
@given(STEPS, h.sampled_from([1, 2]), h.integers(0, 3), h.booleans(), h.sampled_from([LOWEST, FULLEST]), h.booleans())
def test_sorted_or_eager_zones_go_as_in_the_twin(program, cpus, generation, disable, order, eager):
    Pair(cpus, 3 << 20, generation, disable, order=order, eager=eager).play(program)


@pytest.mark.parametrize(("nofree", "generation"), [(0, 0), (0, 3), (1, 1)])
@pytest.mark.parametrize("size", [3000, 9000])
def test_an_eager_zone_gives_a_slab_back_with_the_last_item_that_goes_to_it(size, nofree, generation):
    """While pages are short no bucket is to be had, and items go straight to their slabs."""
    got = []
    for eager in (0, 1):
        given = {"nofree": nofree, "generation": generation, "eager_release": eager}
        m = hand(Item(size, 0, 0), bucketdisable=1, **given)
        m.tend(s.TEND_REAP)
        addrs = [m.alloc(size) for _ in range(3)]
        for addr in addrs:
            m.free(addr)
        gone = [step for step in m.map_log if step[0] == "free"]
        assert all(step == ("free", addr, -(-size // PAGE) * PAGE) for step, addr in zip(gone, addrs, strict=False))
        got.append(len(gone))
        assert uma.census(m.state)["pages"] == balance(m)
    assert got == [0, 0 if nofree else 3]


@settings(max_examples=40)
@given(STEPS, h.sampled_from([1, 4]), h.sampled_from([0, 1]))
def test_nothing_is_lost(program, cpus, generation):
    pair = Pair(cpus, KVA, generation, False)
    pair.play(program)
    pair.free_all()
    pair.play([("tick", 0, 0, 0, 0), ("tick", 0, 0, 0, 0), ("reap", 0, 0, 0, 0)])
    pair.play([("reap", 0, 0, 0, 0)])  # clusters of packets are freed after their own zone has been seen to
    # The CPUs keep their buckets, now empty.
    left = uma.census(pair.hand.state)
    assert left["pages"] == left["bucket_pages"]
    assert left["cached_items"] == left["listed_items"] == left["slab_items"] == 0


@pytest.mark.parametrize("generation", range(4))
@pytest.mark.parametrize("cpus", [1, 4])
def test_operations_may_be_interleaved_step_by_step(cpus, generation):
    state = fresh(*ITEMS, cpus=cpus, nmbclusters=150, generation=generation)
    limits = [cpus, uma.lock_count(state, 1)]
    crowd = programs.Crowd(uma, state, ITEMS, cpus=cpus, limits=limits, flags=(0, flag.NOWAIT))
    crowd.mill(12000, swell=3000)
    crowd.disperse()
    crowd.see_to_it(s.TEND_TICK, s.TEND_TICK, s.TEND_REAP, s.TEND_REAP)
    left = uma.census(crowd.state)
    assert left["pages"] == crowd.pages
    assert not crowd.state.zone[:, [u.Z_FILLS, u.Z_GROWING]].any()
    assert not crowd.state.chain.any()
    if generation < 2:
        assert left["pages"] == left["bucket_pages"]
    idle = int((crowd.state.ext > u.BARE_PACKET).sum())  # clusters of packets
    assert made(crowd.state) == left["slab_items"] + left["cached_items"] + left["listed_items"] + idle
