"""kmalloc_obj: the vectors of the reference, each rule by itself, random programs against the naive one."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_dfly_2020 import NaiveDfly2020
from naive_kmalloc_obj import NaiveKmallocObj
from naive_space import UpwardMap

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import kmalloc_obj as obj
from kmemexp.sim.allocators.kmalloc_obj.slabs import N_FULL
from kmemexp.sim.items import Item
from kmemexp.sim.tables import flag, panics, regs
from kmemexp.validate.hand import Hand

MIB = 1 << 20
SLAB = 128 << 10
ITEMS = (Item(4096, 1, 0), Item(16000, 1, 0), Item(40, 1, 0), Item(140_000, 1, 0))
SMALL = 2  # its objects are 64 bytes
LARGE = 3  # too large for slabs
N = 31  # objects of 4096 bytes in a slab
AT = 640  # where the first of them lies


def hand(*, items=ITEMS, cpus: int = 1, limit: int = 64 * MIB, **params: int) -> Hand:
    params = {"zone_bytes": SLAB} | params
    state = obj.init(obj.Params(**params), kva_bytes=64 * MIB, cpus=cpus, map_number=5, items=items, bases=[-1] * 4)
    return Hand(obj, state, limit=limit)


def objects(h: Hand, count: int, item: int = 0, **how: int) -> list[int]:
    return [h.alloc(ITEMS[item].size, item=item, **how) for _ in range(count)]


def free_all(h: Hand, addrs: list[int], item: int = 0, **how: int) -> None:
    for addr in addrs:
        h.free(addr, item=item, **how)


def held(h: Hand, *names: str) -> list[int]:
    counts = obj.census(h.state)
    return [counts[name] for name in names]


def slab_of(addr: int) -> int:
    return addr // SLAB


def slabs(addrs: list[int]) -> list[int]:
    return list(dict.fromkeys(a // SLAB for a in addrs))


# Layout.


@pytest.mark.parametrize(
    ("size", "count"), [(64, 1815), (128, 961), (256, 495), (512, 251), (1024, 126), (2048, 63), (4096, 31)]
)
def test_objects_in_a_slab(size, count):
    assert obj.slab_layout(size)[:2] == (size, count)


def test_a_slab_holds_its_header_its_ring_and_its_objects():
    for size in range(1, 131072 + 256):
        rounded, count, offset = obj.slab_layout(size)
        assert size <= rounded < size + 64
        assert (rounded % 64, offset % 64) == (0, 0)
        assert 352 + 8 * count <= offset < 352 + 8 * count + 64
        assert count == 0 or offset + rounded * count <= SLAB
        assert count >= 0


@pytest.mark.parametrize(("size", "rounded", "count", "first"), [(4096, 4096, 31, 640), (40, 64, 1815, 14912)])
def test_a_new_slab_hands_its_objects_out_in_ascending_order(size, rounded, count, first):
    h = hand(items=(Item(size, 1, 0),))
    addrs = [h.alloc(size) for _ in range(count + 1)]
    assert h.granted == rounded
    assert addrs[:-1] == [first + rounded * k for k in range(count)]
    assert addrs[-1] == SLAB + first
    assert h.map_log == [("alloc", 0, SLAB), ("alloc", SLAB, SLAB)]


def test_each_type_has_slabs_of_its_own():
    h = hand()
    assert [slab_of(objects(h, 1, item)[0]) for item in (0, 1, 2, 0, 1, 2)] == [0, 1, 2, 0, 1, 2]


# Alloc and free at a CPU.


def test_objects_are_used_again_first_in_first_out_after_those_never_used():
    h = hand()
    addrs = objects(h, 5)
    free_all(h, [addrs[3], addrs[0], addrs[4]])
    rest = objects(h, N - 5)
    assert rest == [AT + 4096 * k for k in range(5, N)]
    assert objects(h, 3) == [addrs[3], addrs[0], addrs[4]]


def test_a_free_is_one_step_on_any_cpu_and_sends_no_message():
    h = hand(cpus=2)
    addrs = objects(h, N)
    for cpu, flags in ((0, 0), (1, 0), (1, flag.SOFT), (1, flag.HARD)):
        h.free(addrs.pop(), cpu=cpu, flags=flags)
        assert h.answers == [s.DONE]
    assert held(h, "objects", "free_objects") == [N - 4, 4]


def test_an_alloc_from_the_active_or_the_alternate_slab_is_one_step():
    h = hand()
    first, second = objects(h, N), objects(h, N)
    h.free(first[7])
    h.free(second[9])
    assert objects(h, 1) == [second[9]]
    assert h.answers == [s.DONE]
    assert objects(h, 1) == [first[7]]
    assert h.answers == [s.DONE]
    h.free(second[9])
    h.free(first[8])
    assert objects(h, 2) == [first[8], second[9]]  # they have changed places


def test_cpus_do_not_share_slabs_of_their_own():
    h = hand(cpus=3)
    assert slabs([objects(h, 1, cpu=cpu)[0] for cpu in (0, 1, 2, 0)]) == [0, 1, 2]


# Refilling.


def test_a_refill_takes_the_types_lock_then_none_then_the_types_lock():
    h = hand()
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, regs.ITEM] = 1
    reg[0, regs.SIZE] = 16000
    seen = []
    for _ in range(4):
        reg[0, regs.LOCK] = -1
        seen.append((obj.alloc(h.state, reg, 0), int(reg[0, regs.LOCK])))
        reg[0, regs.BASE] = 0
    lock = 1 << regs.LOCK_SHIFT | 1
    assert seen == [(s.AGAIN, lock), (s.AGAIN, 0), (s.MAP_ALLOC, -1), (s.AGAIN, lock)]
    assert [reg[0, regs.MAP], reg[0, regs.BYTES], reg[0, regs.ALIGN], reg[0, regs.ATTR]] == [
        5,
        SLAB,
        SLAB,
        s.ATTR_WIRED,
    ]
    assert reg[0, regs.WORK] == 8
    assert obj.alloc(h.state, reg, 0) == s.DONE
    assert obj.lock_count(h.state, 1) == len(ITEMS)


def test_empty_slabs_that_have_got_objects_back_serve_before_a_new_one():
    h = hand()
    groups = [objects(h, N) for _ in range(5)]  # 0, 1 and 2 are on the empty list
    h.free(groups[1][4])
    assert objects(h, 1) == [groups[1][4]]
    assert h.answers == [s.AGAIN, s.DONE]
    assert len(h.map_log) == 5


def test_partial_slabs_serve_before_full_ones():
    h = hand()
    groups = [objects(h, N) for _ in range(5)]
    free_all(h, groups[0])
    h.free(groups[1][4])
    assert objects(h, 1) == [groups[1][4]]
    assert slabs(objects(h, N)) == [0]
    assert len(h.map_log) == 5


def test_at_most_sixteen_empty_slabs_are_looked_at():
    h = hand()
    groups = [objects(h, N) for _ in range(19)]  # 0 … 16 are on the empty list
    h.free(groups[16][0])
    assert slabs(objects(h, N)) == [19]
    assert objects(h, 1) == [groups[16][0]]  # now it comes first
    assert len(h.map_log) == 20


def test_of_the_empty_slabs_that_have_got_objects_back_the_one_found_last_comes_first():
    h = hand()
    groups = [objects(h, N) for _ in range(6)]
    h.free(groups[0][0])
    h.free(groups[2][0])
    assert objects(h, 2) == [groups[2][0], groups[0][0]]


def test_a_slab_of_the_cpus_cache_serves_before_a_new_one():
    h = hand(full_slabs=0)
    addrs = objects(h, 4 * N)
    free_all(h, addrs)
    for _ in range(8):
        h.tend()
    assert held(h, "slabs", "cached_slabs") == [4, 2]
    new = objects(h, 1, item=1)  # another type
    assert h.answers == [s.AGAIN, s.AGAIN, s.AGAIN, s.DONE]
    assert slab_of(new[0]) < 4
    assert held(h, "slabs", "cached_slabs") == [4, 1]


# The poller.


def retiring(h: Hand, ticks: int) -> list[int]:
    """Slabs in the CPUs' caches after each of some ticks."""
    counts = []
    for _ in range(ticks):
        h.tend()
        counts += held(h, "cached_slabs")
    return counts


def test_the_poller_retires_four_slabs_at_a_time_beyond_four_and_not_in_the_tick_that_finds_them():
    h = hand(items=ITEMS[:1])
    free_all(h, objects(h, 16 * N))  # two stay with the CPU, 14 are on the empty list
    assert retiring(h, 5) == [0, 4, 8, 10, 10]
    assert held(h, "slabs", "free_objects", "pages") == [16, 6 * N, 16 * 32]


@pytest.mark.parametrize(
    ("params", "want"), [({"full_slabs": 1}, [0, 4, 8, 12, 13]), ({"retired_slabs": 9}, [0, 9, 10, 10, 10])]
)
def test_the_pollers_limits_are_parameters(params, want):
    h = hand(items=ITEMS[:1], **params)
    free_all(h, objects(h, 16 * N))
    assert retiring(h, 5) == want


def test_a_slab_with_a_live_object_stays():
    h = hand(items=ITEMS[:1], full_slabs=0)
    groups = [objects(h, N) for _ in range(6)]
    free_all(h, [a for group in groups for a in group[1:]])
    assert retiring(h, 4) == [0] * 4
    assert held(h, "slabs", "objects") == [6, 6]


def test_a_partial_slab_that_becomes_wholly_free_is_not_noticed():
    h = hand(items=ITEMS[:1], full_slabs=0)
    groups = [objects(h, N) for _ in range(6)]
    free_all(h, [group[0] for group in groups])
    h.tend()
    free_all(h, [a for group in groups for a in group[1:]])
    assert retiring(h, 4) == [0] * 4
    assert held(h, "slabs", "objects") == [6, 0]


def two_types(**params: int) -> Hand:
    """Of the first type eight slabs are empty and then free, of the second two."""
    h = hand(items=ITEMS[:2], full_slabs=0, **params)
    free_all(h, objects(h, 10 * N))
    free_all(h, objects(h, 4 * 8, item=1), item=1)
    return h


def test_the_poller_sees_to_one_type_in_a_second_and_stays_with_it_while_it_has_slabs_to_retire():
    # Found: those of the first, then of the second type. Retired: four and four of the first, then the second's.
    assert retiring(two_types(), 6) == [0, 0, 4, 8, 10, 10]


def test_a_higher_frequency_polls_more_types_in_a_tick():
    assert retiring(two_types(poll_frequency=2), 4) == [0, 8, 10, 10]
    assert retiring(two_types(poll_frequency=3), 4) == [0, 10, 10, 10]


def test_a_type_that_keeps_more_than_it_may_is_polled_once_more():
    h = hand(items=ITEMS[:2])
    free_all(h, objects(h, 7 * N))  # five on the list: one to retire, four remain, so the end is not reached
    free_all(h, objects(h, 7 * 8, item=1), item=1)
    assert retiring(h, 5) == [0, 1, 1, 1, 2]


def test_retired_slabs_go_to_the_cpu_that_began_them_and_what_has_no_room_is_unmapped():
    h = hand(items=ITEMS[:1], cpus=2, full_slabs=0, cached_slabs=3)
    theirs = [objects(h, 7 * N, cpu=cpu) for cpu in (0, 1)]
    for addrs in theirs:
        free_all(h, addrs, cpu=1)
    for _ in range(6):
        h.tend()
    assert held(h, "slabs", "cached_slabs", "pages") == [10, 6, 320]
    gone = [base for verb, base, _ in h.map_log if verb == "free"]
    assert len(gone) == 4
    assert {step[2] for step in h.map_log if step[0] == "free"} == {SLAB}
    mapped = len(h.map_log)
    for cpu in (0, 1):
        again = slabs(objects(h, 5 * N, cpu=cpu))
        assert set(again) <= set(slabs(theirs[cpu])) - {base // SLAB for base in gone}
    assert len(h.map_log) == mapped


def test_short_memory_gives_nothing_back():
    h = hand(items=ITEMS[:1], full_slabs=0)
    free_all(h, objects(h, 9 * N))
    for _ in range(3):
        h.tend(s.TEND_REAP)
        assert h.answers == [s.DONE]
    assert held(h, "cached_slabs") == [0]


# What is not for slabs of one type.


@pytest.mark.parametrize("item", [s.ITEM_MALLOC, s.ITEM_MBUF, LARGE])
def test_other_requests_are_served_by_the_slab_allocator(item):
    h = hand()
    size = ITEMS[LARGE].size if item == LARGE else 256
    addr = h.alloc(size, item=item)
    granted = {256: 256, 140_000: 143_360}[size]
    assert h.granted == granted
    assert held(h, "slabs", "back_live_bytes", "live_bytes") == [0, granted, granted]
    assert h.map_log == [("alloc", 0, SLAB if size == 256 else granted)]
    h.free(addr, item=item)
    assert held(h, "live_bytes") == [0]
    assert held(h, "pages") == [32 if size == 256 else 0]


@pytest.mark.parametrize("item", [s.ITEM_MALLOC, s.ITEM_MBUF])
def test_their_frees_on_another_cpu_go_by_message_where_the_slab_allocator_sends_one(item):
    h = hand(cpus=2)
    addrs = [h.alloc(16383, item=item) for _ in range(7)]
    h.free(addrs[0], item=item, cpu=1)
    assert h.answers == [s.IPI, s.DONE]
    assert h.alloc(16383, item=item) == addrs[0]


def test_every_tenth_tick_takes_over_what_other_cpus_have_freed():
    h = hand(cpus=2)
    addrs = [h.alloc(16383, item=s.ITEM_MALLOC) for _ in range(3)]
    for addr in addrs[:2]:
        h.free(addr, item=s.ITEM_MALLOC, cpu=1)
        for _ in range(9):
            h.tend()
            assert held(h, "back_remote_chunks") == [1]
        h.tend()
        assert held(h, "back_remote_chunks") == [0]


def test_without_types_there_is_the_slab_allocator_alone():
    h = hand(items=(), release_threshold=0)
    assert h.state.back.p.release_threshold == 0
    h.alloc(100, item=s.ITEM_MALLOC)
    for _ in range(10):
        h.tend()
    assert held(h, "slabs", "back_zones") == [0, 1]


# No memory; several at once.


@pytest.mark.parametrize("flags", [0, flag.NOWAIT])
def test_without_kva_for_a_slab_the_kernel_panics_whatever_the_flags(flags):
    h = hand(limit=0)
    assert h.alloc(4096, flags=flags) == -1
    assert h.reg[0, regs.PANIC] == panics.KERNEL_MAP
    h.limit = SLAB
    assert h.alloc(4096, flags=flags) == AT
    assert held(h, "slabs") == [1]


@pytest.mark.parametrize(("base", "panic"), [(s.NO_ENTRY, panics.ENTRIES), (s.NO_PAGES, panics.NONE)])
def test_without_map_entries_the_kernel_panics_without_pages_the_request_fails(base, panic):
    h = hand()
    h.reg[0, regs.SIZE] = 4096
    for want in (s.AGAIN, s.AGAIN, s.MAP_ALLOC):
        assert obj.alloc(h.state, h.reg, 0) == want
    h.reg[0, regs.BASE] = base
    assert obj.alloc(h.state, h.reg, 0) == s.FAILED
    assert h.reg[0, regs.PANIC] == panic


def test_two_operations_of_a_cpu_may_wait_for_slabs_at_once():
    h = hand()
    reg = np.zeros((2, regs.COLUMNS), np.int64)
    reg[:, regs.SIZE] = 4096
    for want in (s.AGAIN, s.AGAIN, s.MAP_ALLOC):
        assert [obj.alloc(h.state, reg, i) for i in (0, 1)] == [want] * 2
    reg[:, regs.BASE] = 3 * SLAB, SLAB
    for want in (s.AGAIN, s.DONE):
        assert [obj.alloc(h.state, reg, i) for i in (0, 1)] == [want] * 2
    assert reg[:, regs.ADDR].tolist() == [3 * SLAB + AT, SLAB + AT]
    assert slabs(objects(h, 2 * N - 2)) == [1, 3]
    assert h.map_log == []


# Random programs.

CPUS = 3
KINDS = (Item(30_000, 1, 0), Item(12_000, 1, 0), Item(4096, 1, 0))  # 4, 10 and 31 to a slab
MALLOCS = (8191, 16383, 4096, 12288, 300, 0)
steps = st.tuples(
    st.sampled_from(["alloc", "alloc", "alloc", "free", "free", "free_run", "free_run", "tick"]),
    st.sampled_from([0, 0, 0, 1, 1, 2, -1]),  # type; -1: malloc
    st.integers(1, 60),  # how many
    st.integers(0, CPUS - 1),
    st.integers(0, 10**6),  # which
)


class Pair:
    """The allocator and the naive one side by side, over maps of their own."""

    def __init__(self, cpus: int, limit: int, full: int, cached: int, polls: int) -> None:
        self.hand = hand(
            items=KINDS, cpus=cpus, limit=limit, full_slabs=full, cached_slabs=cached, poll_frequency=polls,
            release_threshold=2,
        )  # fmt: skip
        self.polls, self.space = polls, UpwardMap(limit)
        sizes = [item.size for item in KINDS]
        self.naive = NaiveKmallocObj(sizes, cpus, self.space, full=full, retired=4, cached=cached)
        self.back = NaiveDfly2020(SLAB, cpus, threshold=2, space=self.space)
        self.live: list[tuple[int, int, int]] = []  # address, item, granted

    def alloc(self, item: int, cpu: int, which: int) -> None:
        self.hand.next = self.space.next = self.space.top()
        size = KINDS[item].size if item >= 0 else MALLOCS[which % len(MALLOCS)]
        want = self.naive.alloc(item, cpu) if item >= 0 else self.back.malloc(size, cpu)[0]
        addr = self.hand.alloc(size, item=item, cpu=cpu)
        assert addr == want
        if addr != -1:
            self.live.append((addr, item, self.hand.granted))

    def free(self, which: int, cpu: int) -> None:
        addr, item, _ = self.live.pop(which % len(self.live))
        if item >= 0:
            self.naive.free(addr)
        else:
            self.back.free(addr, cpu)
        self.hand.free(addr, item=item, cpu=cpu)
        assert self.hand.answers.count(s.IPI) == len(self.back.messages)
        while self.back.messages:
            self.back.deliver(0)

    def tick(self) -> None:
        self.naive.tick(self.polls)
        if self.naive.ticks % 10 == 0:
            self.back.cleanup()
        self.hand.tend()

    def check(self) -> None:
        assert self.hand.map_log == self.space.log
        objects, zones = self.naive.counts(), self.back.counts()
        want = objects | {f"back_{name}": n for name, n in zones.items()}
        want |= {name: objects[name] + zones[name] for name in ("live_bytes", "pages")}
        assert obj.census(self.hand.state) == want
        assert want["pages"] * s.PAGE == sum(self.space.held.values())
        assert want["live_bytes"] == sum(granted for _, _, granted in self.live)
        placed = sorted((addr, granted) for addr, _, granted in self.live if addr >= 0)
        assert all(a + size <= b for (a, size), (b, _) in pairwise(placed))
        assert all(addr % 64 == 0 for addr, item, _ in self.live if item >= 0)

    def play(self, program: list, cpus: int) -> None:
        for verb, item, count, cpu, which in program:
            if verb == "tick":
                for _ in range(count % 4 + 1):
                    self.tick()
            elif verb == "alloc":
                for k in range(count):
                    self.alloc(item, (cpu + k // 40) % cpus, which)
            else:
                for k in range(min(count, len(self.live))):
                    self.free(which if verb == "free_run" else which * (k + 1), (cpu + k % 2) % cpus)
            self.check()

    def drain(self, cpus: int) -> None:
        while self.live:
            self.free(len(self.live) // 2, len(self.live) % cpus)
        for _ in range(120):
            self.tick()
        self.check()


@settings(max_examples=150)
@given(
    st.lists(steps, min_size=10, max_size=50),
    st.integers(1, CPUS),
    st.sampled_from([3, 60]),
    st.sampled_from([0, 1, 4]),
    st.sampled_from([0, 2, 128]),
    st.sampled_from([1, 1, 3]),
)
def test_random_programs_go_as_in_the_naive_allocator(program, cpus, limit_mib, full, cached, polls):
    pair = Pair(cpus, limit_mib * MIB, full, cached, polls)
    pair.play(program, cpus)
    pair.drain(cpus)
    assert held(pair.hand, "live_bytes", "objects") == [0, 0]
    assert (pair.hand.state.type[:, N_FULL] <= full).all()
