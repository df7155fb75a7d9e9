"""objcache: the vectors of the reference, each rule by itself, random programs against the naive one."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_bsd import uncompiled
from naive_magazines import NaiveObjcache
from naive_slab import NaiveSlab
from twins import play_bursts

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import dfly_slab, objcache
from kmemexp.sim.allocators._shared import objcaches
from kmemexp.sim.items import Item
from kmemexp.sim.tables import flag, panics, regs
from kmemexp.validate.hand import Hand

MIB = 1 << 20
ZONE = 32 << 10
UNLIMITED = objcaches.UNLIMITED
CAP = 5  # rounds of a magazine of generation 0
SIZE = 4000  # its chunks are 4096 bytes, seven to a zone


def fresh(*items: Item, cpus: int = 1, **params: int) -> objcache.State:
    params = {"zone_bytes": ZONE} | params
    bases = [-1] * len(items)
    return objcache.init(
        objcache.Params(**params), kva_bytes=64 * MIB, cpus=cpus, map_number=5, items=items, bases=bases
    )


def hand(*items: Item, cpus: int = 1, limit: int = 64 * MIB, **params: int) -> Hand:
    return Hand(objcache, fresh(*(items or (Item(SIZE, 1, 0),)), cpus=cpus, **params), limit=limit)


def small(*, cpus: int = 1, **params: int) -> Hand:
    """A cache whose magazines have the least capacity, 6, and with 2 of them in the depot."""
    return hand(cpus=cpus, nom_cache=8, **params)


def take(h: Hand, count: int, size: int = SIZE, **how: int) -> list[int]:
    return [h.alloc(size, **how) for _ in range(count)]


def free_all(h: Hand, addrs: list[int], **how: int) -> None:
    for addr in addrs:
        h.free(addr, **how)


def counted(h: Hand, *names: str) -> list[int]:
    counts = objcache.census(h.state)
    return [counts[name] for name in names]


def magazine(state: objcache.State, m: int) -> list[int]:
    start, rounds = (int(state.magazine[m, c]) for c in (objcaches.START, objcaches.ROUNDS))
    return (state.round[start : start + rounds].astype(np.int64) * 8).tolist()


def pair(state: objcache.State, z: int, cpu: int) -> list[list[int]]:
    return [magazine(state, m) for m in state.pair[z, cpu].tolist()]


def depot(state: objcache.State, z: int, which: int) -> list[list[int]]:
    """Magazines of a list of the depot, the first one first."""
    found, m = [], int(state.depot[z, which])
    while m != objcaches.NIL:
        found.append(magazine(state, m))
        m = int(state.magazine[m, objcaches.NEXT])
    return found


# Sizes.


@pytest.mark.parametrize(("wanted", "capacity"), [(4, 6), (8, 14), (16, 22), (4096, 4102)])
def test_a_magazine_fills_its_cache_lines(wanted, capacity):
    assert objcaches.capacity_align(wanted) == capacity


@pytest.mark.parametrize(
    ("limit", "nom", "cpus", "sizing"),
    [
        (0, 0, 1, (38, UNLIMITED, 4)),
        (0, 0, 8, (14, UNLIMITED, 10)),
        (0, 0, 64, (6, UNLIMITED, 22)),
        (8192, 0, 4, (414, 11504, 10)),
        (100, 50, 2, (14, 156, 4)),
    ],
)
def test_capacity_limit_and_depot_follow_from_limit_nominal_cache_and_cpus(limit, nom, cpus, sizing):
    assert objcaches.sizing(2, limit, nom, cpus) == sizing
    state = fresh(Item(SIZE, 1, limit), cpus=cpus, nom_cache=nom)
    columns = [objcaches.CAPACITY, objcaches.UNALLOCATED]
    assert state.depot[0, columns].tolist() == list(sizing[:2])
    assert depot(state, 0, objcaches.EMPTY) == [[]] * sizing[2]
    assert depot(state, 0, objcaches.FULL) == []
    assert objcache.census(state)["magazines"] == 2 * cpus + sizing[2]


@pytest.mark.parametrize(("limit", "nom", "cpus", "capacity"), [(10, 0, 1, 6), (10**6, 0, 1, 4102), (10, 99, 1, 6)])
def test_capacity_is_clipped_and_the_nominal_cache_is_at_most_the_limit(limit, nom, cpus, capacity):
    assert objcaches.sizing(2, limit, nom, cpus).capacity == capacity


@pytest.mark.parametrize(
    ("generation", "limit", "cpus", "sizing"),
    [
        (0, 0, 4, (5, UNLIMITED, 0)),
        (0, 7, 4, (5, 7, 0)),
        (1, 0, 4, (256, UNLIMITED, 0)),
        (1, 100, 4, (256, 3072, 0)),
        (1, 5000, 4, (256, 5000, 0)),
        (3, 13312, 8, (64, 13312, 96)),
        (3, 6656, 8, (64, 6656, 44)),
        (3, 1000, 8, (16, 1024, 24)),
        (3, 1000, 4, (16, 1000, 27)),
        (3, 0, 8, (64, UNLIMITED, 2)),
    ],
)
def test_magazines_of_2005_and_2010_have_a_fixed_capacity(generation, limit, cpus, sizing):
    assert objcaches.sizing(generation, limit, 0, cpus) == sizing


def test_the_limit_is_the_item_s_or_a_parameter():
    state = fresh(Item(64, 1, 0), Item(64, 1, 50), cluster_limit=1000)
    columns = state.depot[:, objcaches.UNALLOCATED] - 2 * state.depot[:, objcaches.CAPACITY]
    assert columns.tolist() == [1000, 50]


def test_mbufs_and_clusters_have_caches_with_the_limits_of_the_machine():
    h = hand(generation=1, nmbufs=18432, nmbclusters=4608, cpus=4)
    assert h.state.depot[:, objcaches.UNALLOCATED].tolist() == [UNLIMITED, 18432, 4608, 4608]
    assert h.state.depot[1:, objcaches.SIZE].tolist() == [256, 2048, 256]
    addrs = [h.alloc(size, item=s.ITEM_MBUF) for size in (100, 256, 257, 2048)]
    assert h.state.depot[1:, objcaches.UNALLOCATED].tolist() == [18430, 4606, 4608]
    h.free(addrs[0], item=s.ITEM_MBUF, size=100)
    h.free(addrs[2], item=s.ITEM_MBUF, size=257)
    assert [len(magazine) for z in (1, 2) for magazine in pair(h.state, z, 0)] == [1, 0, 1, 0]
    h.alloc(2049, item=s.ITEM_MBUF)  # malloc's
    assert h.state.depot[1:, objcaches.UNALLOCATED].tolist() == [18430, 4606, 4608]


def test_a_cpu_of_june_2005_that_is_empty_goes_to_malloc_for_each_cluster_and_keeps_512_of_those_that_come_back():
    """512 MiB, 4 CPUs: clusters in other CPUs' magazines are out of reach, so one CPU can be sure of 4608 - 3 * 512."""
    h = hand(generation=1, nmbufs=9216, nmbclusters=4608, cpus=4)
    quick = []
    addrs = []
    for _ in range(1000):
        addrs.append(h.alloc(2048, item=s.ITEM_MBUF))
        quick.append(h.answers == [s.DONE])
    assert not any(quick)
    assert h.state.depot[2, objcaches.UNALLOCATED] == 3608
    for addr in addrs:
        h.free(addr, item=s.ITEM_MBUF, size=2048)
    assert h.state.depot[2, objcaches.UNALLOCATED] == 3608 + 488
    quick = []
    for _ in range(513):
        h.alloc(2048, item=s.ITEM_MBUF)
        quick.append(h.answers == [s.DONE])
    assert quick == 512 * [True] + [False]


# Get and put.


def test_an_object_that_was_put_back_is_got_again_in_one_step():
    h = hand()
    a, b = take(h, 2)
    free_all(h, [a, b])
    assert h.answers == [s.DONE]
    assert take(h, 2) == [b, a]
    assert h.answers == [s.DONE]
    assert h.granted == 4096


def test_a_miss_takes_the_depot_s_lock_then_a_new_object_of_the_slab_allocator():
    h = hand(Item(SIZE, 1, 0), Item(SIZE, 1, 0))
    h.alloc(SIZE, item=1)
    assert h.answers == [s.AGAIN, s.AGAIN, s.MAP_ALLOC, s.DONE]
    back = Hand(dfly_slab, fresh(Item(SIZE, 1, 0)).back)
    assert take(h, 20, item=0) == take(back, 21)[1:]
    assert h.map_log == back.map_log
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, [regs.ITEM, regs.SIZE]] = 1, SIZE
    assert objcache.alloc(h.state, reg, 0) == s.AGAIN
    assert reg[0, regs.LOCK] == objcaches.DEPOT_LOCK | 1
    assert objcache.lock_count(h.state, 1) == 2
    assert objcache.alloc(h.state, reg, 0) == s.AGAIN
    assert reg[0, regs.LOCK] == 0


def test_the_previous_magazine_serves_when_the_loaded_one_is_empty_or_full():
    h = small()
    addrs = take(h, 12)
    free_all(h, addrs)  # six on each magazine
    assert pair(h.state, 0, 0) == [addrs[6:], addrs[:6]]
    assert take(h, 12) == addrs[::-1]
    assert h.answers == [s.DONE]
    assert counted(h, "full_magazines", "cached_objects") == [0, 0]


def test_a_full_pair_gives_its_previous_magazine_for_an_empty_one():
    h = small()
    addrs = take(h, 13)
    free_all(h, addrs)
    assert h.answers == [s.AGAIN, s.DONE]
    assert depot(h.state, 0, objcaches.FULL) == [addrs[:6]]
    assert pair(h.state, 0, 0) == [addrs[12:], addrs[6:12]]
    assert counted(h, "empty_magazines", "full_magazines", "cached_objects") == [1, 1, 13]


def test_an_empty_pair_gets_a_full_magazine_of_the_depot():
    h = small(cpus=2)
    addrs = take(h, 18)
    free_all(h, addrs)
    assert depot(h.state, 0, objcaches.FULL) == [addrs[:6]]
    assert h.alloc(SIZE, cpu=1) == addrs[5]
    assert h.answers == [s.AGAIN, s.DONE]
    assert pair(h.state, 0, 1) == [addrs[:5], []]
    assert counted(h, "empty_magazines", "full_magazines") == [2, 0]


def test_the_depot_s_full_magazines_are_last_in_first_out():
    h = small(cpus=2)
    addrs = take(h, 24)
    free_all(h, addrs)
    assert depot(h.state, 0, objcaches.FULL) == [addrs[6:12], addrs[:6]]
    assert take(h, 12, cpu=1) == addrs[6:12][::-1] + addrs[:6][::-1]


def test_without_an_empty_magazine_the_object_goes_back_to_the_slab_allocator():
    h = small()
    addrs = take(h, 40)
    free_all(h, addrs[:24])
    assert counted(h, "empty_magazines", "cached_objects") == [0, 24]
    h.free(addrs[24])
    assert h.answers == [s.AGAIN, s.AGAIN, s.DONE]
    assert counted(h, "cached_objects", "back_live_bytes", "live_bytes") == [24, 39 * 4096, 15 * 4096]


def test_a_free_on_another_cpu_stays_in_that_cpu_s_magazine():
    h = hand(cpus=2)
    addr = h.alloc(SIZE, cpu=0)
    h.free(addr, cpu=1)
    assert h.answers == [s.DONE]
    assert h.alloc(SIZE, cpu=1) == addr


def test_an_object_of_another_cpu_s_slab_goes_home_by_message():
    h = small(cpus=2)
    addrs = take(h, 31, cpu=0)
    for addr in addrs[:24]:
        h.free(addr, cpu=1)
    assert s.IPI not in h.answers
    before = counted(h, "back_live_bytes")[0]
    h.free(addrs[24], cpu=1, flags=flag.SOFT)
    assert h.answers == [s.AGAIN, s.AGAIN, s.IPI, s.DONE]
    assert counted(h, "cached_objects", "back_live_bytes") == [24, before - 4096]
    assert pair(h.state, 0, 0) == [[], []]  # the message does not put it on CPU 0's magazine


def test_a_large_item_s_pages_are_unmapped_or_queued_by_the_slab_allocator():
    h = Hand(objcache, fresh(Item(3 * s.PAGE, 1, 0), nom_cache=8), limit=64 * MIB)
    addrs = take(h, 30, 3 * s.PAGE)
    assert h.granted == 3 * s.PAGE
    free_all(h, addrs[:24])
    assert counted(h, "cached_bytes") == [24 * 3 * s.PAGE]
    h.free(addrs[24])
    assert h.map_log[-1] == ("free", addrs[24], 3 * s.PAGE)
    h.free(addrs[25], flags=flag.SOFT)
    assert counted(h, "back_queued_pages") == [3]
    assert take(h, 24, 3 * s.PAGE) == addrs[:24][::-1]


def test_malloc_and_mbufs_go_straight_to_the_slab_allocator():
    h, back = hand(), Hand(dfly_slab, fresh().back)
    for item in (s.ITEM_MALLOC, s.ITEM_MBUF):
        for size in (1, 100, 256, 2048, 8192, 20000):
            addr = h.alloc(size, item=item)
            assert addr == back.alloc(size)
            assert h.granted == back.granted
            h.free(addr, item=item)
            back.free(addr)
            assert h.answers == back.answers
    assert h.map_log == back.map_log
    assert counted(h, "cached_objects") == [0]


def test_a_cache_asks_for_its_item_s_size_whatever_is_requested():
    h = hand(Item(500, 1, 0))
    addr = h.alloc(20)
    assert (h.granted, h.reg[0, regs.SIZE]) == (512, 20)
    h.free(addr)
    assert h.alloc(500) == addr
    assert h.granted == 512


def test_beyond_the_limit_there_are_no_more_objects():
    h = hand(Item(SIZE, 1, 10))
    addrs = take(h, 10 + 2 * 6)
    assert h.alloc(SIZE) == -1
    assert h.answers == [s.AGAIN, s.SLEEP, s.FAILED]
    assert h.reg[0, regs.PANIC] == panics.NONE
    h.free(addrs[3])
    assert h.alloc(SIZE) == addrs[3]


def test_objects_that_went_back_may_be_made_again():
    h = hand(Item(SIZE, 1, 10), nom_cache=8)
    addrs = take(h, 22)
    free_all(h, addrs)
    assert counted(h, "cached_objects") == [22]
    assert len(set(take(h, 22))) == 22
    assert h.alloc(SIZE) == -1


def test_an_object_that_the_slab_allocator_had_not_counts_as_not_made():
    h = hand(Item(SIZE, 1, 10), limit=0)
    for _ in range(50):
        assert h.alloc(SIZE) == -1
    assert h.reg[0, regs.PANIC] == panics.KERNEL_MAP
    assert h.answers[-3:] == [s.MAP_ALLOC, s.AGAIN, s.FAILED]
    assert h.alloc(SIZE, flags=flag.NOWAIT) == -1
    h.limit = MIB
    assert min(take(h, 22)) >= 0


def test_what_interrupts_did_meanwhile_is_seen_under_the_depot_s_lock():
    h = small()
    state = h.state
    addrs = take(h, 13)
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, regs.SIZE] = SIZE
    assert objcache.alloc(state, reg, 0) == s.AGAIN
    h.free(addrs[0])
    assert objcache.alloc(state, reg, 0) == s.DONE
    assert reg[0, regs.ADDR] == addrs[0]
    free_all(h, addrs[:12])
    reg[0, [regs.ADDR, regs.PHASE]] = addrs[12], 0
    assert objcache.free(state, reg, 0) == s.AGAIN
    h.alloc(SIZE)
    assert objcache.free(state, reg, 0) == s.DONE
    assert depot(state, 0, objcaches.FULL) == []


# The versions of 2005.


def test_a_free_of_7_june_2005_makes_a_magazine_when_there_is_none():
    h = hand(generation=0)
    addrs = take(h, 100)
    free_all(h, addrs)
    assert counted(h, "cached_objects", "magazines", "full_magazines") == [100, 20, 18]
    assert h.answers == [s.DONE]
    assert take(h, 100) == addrs[::-1]
    assert counted(h, "empty_magazines") == [18]
    free_all(h, addrs)
    assert counted(h, "magazines") == [20]


def test_the_limit_of_7_june_2005_binds_requests_that_may_wait_only():
    h = hand(Item(SIZE, 1, 3), generation=0)
    take(h, 3)
    assert h.alloc(SIZE) == -1
    beyond = take(h, 30, flags=flag.NOWAIT)
    assert min(beyond) >= 0
    free_all(h, beyond)  # ten on the CPU; without a magazine the rest goes back, until there are 7
    assert counted(h, "cached_objects", "magazines", "full_magazines") == [10, 2, 0]
    assert counted(h, "back_live_bytes") == [13 * 4096]


def test_a_cpu_of_2006_keeps_two_magazines_and_the_depot_stays_empty():
    h = hand(Item(64, 1, 0), generation=1)
    addrs = take(h, 600, 64)
    free_all(h, addrs)
    assert counted(h, "cached_objects", "magazines", "full_magazines", "empty_magazines") == [512, 2, 0, 0]


@pytest.mark.parametrize(
    ("kva", "params", "text"),
    [(MIB, {"generation": 4}, "generation"), (1 << 44, {}, "8 TiB"), (MIB, {"zone_bytes": 5}, "zone_bytes")],
)
def test_bad_parameters_are_refused(kva, params, text):
    with pytest.raises(ValueError, match=text):
        objcache.init(objcache.Params(**params), kva_bytes=kva, cpus=1, map_number=0, items=(), bases=())


# Random programs.

SIZES = [4000, 40, 12288, 16000, 8191]
STEP = st.tuples(
    st.sampled_from(["alloc", "alloc", "free", "free_run"]),
    st.integers(-1, len(SIZES) - 1),  # item
    st.integers(1, 40),  # how many
    st.integers(0, 3),  # CPU
    st.sampled_from([0, 0, flag.NOWAIT, flag.SOFT, flag.HARD | flag.NOWAIT]),
    st.integers(0, 10**6),  # which object
)


class Pair:
    """The allocator and the naive one side by side; live objects as (address, item, granted)."""

    def __init__(self, generation: int, cpus: int, limit: int, limits: list[int], module=objcache) -> None:
        items = [Item(size, 1, n) for size, n in zip(SIZES, limits, strict=True)]
        self.cpus = cpus
        self.hand = Hand(module, fresh(*items, cpus=cpus, generation=generation, nom_cache=12), limit=limit)
        self.back = NaiveSlab(ZONE, cpus, limit=limit)
        sizing = [objcaches.sizing(generation, n, 12, cpus) for n in limits]
        self.naive = NaiveObjcache(self.back, SIZES, cpus, sizing, generation)
        self.live: list[tuple[int, int, int]] = []

    def alloc(self, z: int, cpu: int, flags: int) -> None:
        self.hand.next = self.back.map.next = self.back.map.top()  # so that addresses are used again
        nowait = bool(flags & flag.NOWAIT)
        want = self.back.malloc(100, cpu, nowait=nowait)[0] if z < 0 else self.naive.alloc(z, cpu, nowait=nowait)
        assert self.hand.alloc(100 if z < 0 else SIZES[z], item=z, cpu=cpu, flags=flags) == want
        if want >= 0:
            assert self.hand.granted == (104 if z < 0 else self.naive.granted(z))
            self.live.append((want, z, self.hand.granted))

    def free(self, which: int, cpu: int, flags: int) -> None:
        addr, z, _ = self.live.pop(which % len(self.live))
        ipis, interrupt = self.back.ipis, bool(flags & (flag.SOFT | flag.HARD))
        if z < 0:
            self.back.free(addr, cpu, interrupt=interrupt)
        else:
            self.naive.free(addr, z, cpu, interrupt=interrupt)
        self.hand.free(addr, item=z, cpu=cpu, flags=flags)
        assert self.hand.answers.count(s.IPI) == self.back.ipis - ipis

    def check(self) -> None:
        state, naive = self.hand.state, self.naive
        for z in range(len(SIZES)):
            for cpu in range(self.cpus):
                assert pair(state, z, cpu) == naive.pair[z][cpu]
            assert depot(state, z, objcaches.FULL) == naive.full[z][::-1]
            assert depot(state, z, objcaches.EMPTY) == naive.empty[z][::-1]
        assert self.hand.map_log == self.back.map.log
        counts = objcache.census(state)
        cached = [len(naive.cached(z)) for z in range(len(SIZES))]
        assert counts["pages"] * s.PAGE == sum(self.back.map.held.values())
        assert counts["cached_objects"] == sum(cached)
        assert counts["cached_bytes"] == sum(n * naive.granted(z) for z, n in enumerate(cached))
        assert counts["live_bytes"] == sum(granted for _, _, granted in self.live)
        spans = self.live + [(a, z, naive.granted(z)) for z in range(len(SIZES)) for a in naive.cached(z)]
        assert all(a + size <= b for (a, _, size), (b, _, _) in pairwise(sorted(spans)))
        assert all(a % 8 == 0 for a, _, _ in spans)

    def drain(self) -> None:
        while self.live:
            self.free(len(self.live) // 2, len(self.live) % self.cpus, 0)
        self.check()


@settings(max_examples=250)
@given(
    st.lists(STEP, min_size=6, max_size=60),
    st.integers(0, 2),
    st.integers(1, 4),
    st.sampled_from([MIB, 60 * MIB]),
    st.lists(st.sampled_from([0, 0, 7, 30]), min_size=5, max_size=5),
)
def test_random_programs_go_as_in_the_naive_allocator(program, generation, cpus, limit, limits):
    both = Pair(generation, cpus, limit, limits)
    play_bursts(both, program)
    both.drain()
    counts = objcache.census(both.hand.state)
    assert counts["live_bytes"] == 0
    assert counts["back_live_bytes"] == counts["cached_bytes"]


def test_compiled_and_python_kernels_agree():
    rng = np.random.default_rng(4)
    program = [
        (str(rng.choice(["alloc", "alloc", "free"])), *rng.integers([-1, 1, 0], [5, 30, 3]).tolist(), 0, int(which))
        for which in rng.integers(0, 1000, 60)
    ]
    states = []
    for module in (objcache, uncompiled(objcache)):
        both = Pair(2, 3, 60 * MIB, [0, 30, 0, 7, 0], module)
        play_bursts(both, program)
        states.append(both.hand.state)
    for name in ("depot", "pair"):
        assert np.array_equal(getattr(states[0], name), getattr(states[1], name))
    for a, b in zip(states[0].back, states[1].back, strict=True):
        assert np.array_equal(a, b)
