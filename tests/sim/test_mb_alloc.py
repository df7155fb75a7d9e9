"""mb_alloc: the table of the reference, each rule by itself, agreement with a naive model."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h
from naive_bsd import uncompiled
from naive_magazines import CLUSTER, MBUF, NaiveMbAlloc
from twins import play_bursts

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import mb_alloc
from kmemexp.sim.allocators._shared import mbufs
from kmemexp.sim.allocators.mb_alloc import containers
from kmemexp.sim.tables import flag, panics, regs
from kmemexp.validate.hand import Hand

KVA = 1 << 22
NOWAIT = flag.NOWAIT
OWN_LOCK, GENERAL_LOCK = 0, mb_alloc.GENERAL_LOCK


def fresh(*, cpus: int = 1, **params: int) -> mb_alloc.State:
    return mb_alloc.init(mb_alloc.Params(**params), kva_bytes=KVA, cpus=cpus, map_number=4, items=(), bases=())


def hand(limit: int = KVA, *, cpus: int = 1, **params: int) -> Hand:
    return Hand(mb_alloc, fresh(cpus=cpus, **params), limit=limit)


def started(*, cpus: int = 1, **params: int) -> Hand:
    """An allocator whose CPUs all have the buckets that they begin with, and nothing alive."""
    m = hand(cpus=cpus, **params)
    for cpu in range(cpus):
        m.free(m.alloc(1, cpu=cpu), cpu=cpu)
    return m


def bare(limit: int = KVA, **how: int) -> Hand:
    """An allocator whose CPUs begin with nothing."""
    m = hand(limit, **how)
    m.state.booted[:] = 100
    return m


def take(m: Hand, count: int, size: int = 256, **how: int) -> list[int]:
    return [m.alloc(size, **how) for _ in range(count)]


def buckets(state: mb_alloc.State, c: int, k: int) -> list[tuple[int, list[int]]]:
    """A container's buckets in order: address and free buffers, the next one first."""
    found, b = [], int(state.box[c, k, containers.HEAD])
    while b != mbufs.NIL:
        free, piece = [], int(state.bucket[b, containers.TOP])
        for _ in range(int(state.bucket[b, containers.FREE])):
            free.append(piece * 256)
            piece = int(state.link[piece])
        assert state.bucket[b, containers.OWNER] == c
        found.append((b * s.PAGE, free))
        b = int(state.bucket[b, containers.NEXT])
    return found


def counted(m: Hand, *names: str) -> list[int]:
    counts = mb_alloc.census(m.state)
    return [counts[name] for name in names]


# E1: constants.


@pytest.mark.parametrize(
    ("version", "bucket", "boot", "free"),
    [(0, (1, 1), (4, 16), (64, 32)), (1, (2, 4), (2, 8), (64, 64))],
)
def test_each_cpu_begins_with_its_buckets_at_its_first_allocation(version, bucket, boot, free):
    m = hand(cpus=2, version=version)
    m.alloc(1, cpu=1, flags=NOWAIT)
    taken = [nbytes for _, _, nbytes in m.map_log]
    assert taken == [bucket[0] * s.PAGE] * boot[0] + [bucket[1] * s.PAGE] * boot[1]
    assert counted(m, "mbufs", "clusters") == list(free)
    assert counted(m, "free_mbufs", "free_clusters") == [free[0] - 1, free[1]]
    m.alloc(2048, cpu=1)
    assert m.answers == [s.DONE]
    m.alloc(1, cpu=0)
    assert counted(m, "mbufs", "clusters") == [2 * n for n in free]


@pytest.mark.parametrize(("version", "size", "each"), [(0, 256, 16), (0, 2048, 2), (1, 256, 32), (1, 2048, 8)])
def test_buffers_of_a_bucket_highest_first(version, size, each):
    m = bare(version=version)
    m.next = 0x3000
    assert take(m, each, size) == [0x3000 + size * n for n in reversed(range(each))]
    assert m.map_log == [("alloc", 0x3000, size * each)]
    m.alloc(size)
    assert len(m.map_log) == 2


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(("size", "high"), [(256, 512), (2048, 128)])
def test_a_free_beyond_the_high_mark_makes_a_bucket_general(version, size, high):
    m = bare(version=version)
    each = {(0, 256): 16, (0, 2048): 2, (1, 256): 32, (1, 2048): 8}[version, size]
    k = mbufs.MBUF if size == 256 else mbufs.CLUSTER
    live = take(m, high + each, size)
    for addr in live[:high]:
        m.free(addr)
    assert counted(m, "general_mbufs", "general_clusters") == [0, 0]
    m.free(live[high])  # of a bucket without a free buffer: it goes by itself
    assert m.answers == [s.AGAIN, s.DONE]
    assert m.reg[0, regs.LOCK] == GENERAL_LOCK
    assert m.state.box[0, k, containers.COUNT] == high
    assert m.state.box[1, k, containers.COUNT] == 1


def test_513th_free_mbuf_moves_a_whole_bucket():
    m = bare()
    live = take(m, 17 * 32)
    first = live.pop(32 * 16)
    m.free(first)  # the last bucket has a free buffer, so the head of the container goes
    for addr in live[:511]:
        m.free(addr)
    assert m.state.box[0, mbufs.MBUF, containers.COUNT] == 512
    head = buckets(m.state, 0, mbufs.MBUF)[0]
    assert len(head[1]) == 31
    m.free(live[511])  # the same bucket's last buffer
    assert counted(m, "general_mbufs", "free_mbufs") == [32, 513]
    assert m.state.box[0, mbufs.MBUF, containers.COUNT] == 513 - 32
    assert [b for b, _ in buckets(m.state, 1, mbufs.MBUF)] == [head[0]]


@pytest.mark.parametrize(
    ("maxusers", "nmbufs", "nmbclusters"), [(32, 6144, 3072), (128, 18432, 9216), (384, 51200, 25600)]
)
def test_limits_of_the_kernel(maxusers, nmbufs, nmbclusters):
    assert mb_alloc.limits(maxusers) == (nmbufs, nmbclusters)


# E2, E3: allocation.


def test_the_fast_path_is_one_step_under_the_cpu_s_own_lock():
    m = started(cpus=2)
    addr = m.alloc(100, cpu=1)
    assert m.answers == [s.DONE]
    m.free(addr, cpu=1)
    assert m.answers == [s.DONE]


def test_last_freed_is_first_reused_within_a_bucket():
    m = started()
    a, b = m.alloc(100), m.alloc(100)
    m.free(b)
    m.free(a)
    assert take(m, 2) == [a, b]


def test_an_emptied_bucket_comes_back_at_the_head():
    m = started()
    live = take(m, 40)  # one bucket whole, eight of another
    m.free(live[3])
    assert m.alloc(1) == live[3]
    assert m.alloc(1) == live[39] - 256


def test_an_empty_cpu_gets_the_first_general_bucket_whole():
    m = bare(cpus=2, nmbufs=32 * 17)
    live = take(m, 17 * 32)
    for addr in live:
        m.free(addr)
    general = buckets(m.state, 2, mbufs.MBUF)
    assert sum(len(free) for _, free in general) == 32
    assert m.alloc(1, cpu=1) == general[0][1][0]
    assert m.answers == [s.AGAIN, s.DONE]
    assert buckets(m.state, 1, mbufs.MBUF) == [(general[0][0], general[0][1][1:])]
    assert buckets(m.state, 2, mbufs.MBUF) == general[1:]


def test_the_sorts_have_buckets_of_their_own():
    m = started()
    clusters = m.map_log[2][1]
    assert m.alloc(256, cpu=0) < clusters <= m.alloc(2048, cpu=0)


def test_a_long_request_is_a_chain_and_comes_back_whole():
    m = started()
    free = counted(m, "free_clusters")[0]
    first = m.alloc(5000)
    assert counted(m, "free_clusters") == [free - 3]
    m.free(first)
    assert counted(m, "free_clusters") == [free]
    assert m.alloc(2048) == first - 2 * 2048  # the chain's last cluster was freed last


def test_a_nowait_request_fails_when_nothing_is_left_and_does_not_call_the_map_full():
    m = bare(cpus=2, nmbufs=32)
    assert min(take(m, 32, flags=NOWAIT)) == 0
    assert m.alloc(1, flags=NOWAIT) == -1
    assert m.answers == [s.AGAIN, s.FAILED]
    assert counted(m, "mbufs_full") == [0]
    assert m.reg[0, regs.PANIC] == panics.NONE
    assert not m.state.box[:, :, containers.STARVED].any()


def test_a_request_that_may_wait_calls_the_map_full_for_ever():
    m = bare(limit=4 * s.PAGE)
    take(m, 64)
    assert m.alloc(1) == -1
    assert counted(m, "mbufs_full", "clusters_full") == [1, 0]
    m.limit = KVA
    assert m.alloc(1) == -1
    assert s.MAP_ALLOC not in m.answers
    assert m.alloc(2048) >= 0


def test_a_nowait_request_asks_a_full_looking_map_again():
    m = bare(limit=2 * s.PAGE, nmbufs=64)
    take(m, 32)
    assert take(m, 9, flags=NOWAIT) == [-1] * 9
    assert m.answers == [s.AGAIN, s.MAP_ALLOC, s.FAILED]
    m.limit = KVA
    assert m.alloc(1, flags=NOWAIT) >= 0


def test_a_waiting_request_steals_a_buffer_whose_bucket_stays():
    m = bare(cpus=3, nmbufs=32)
    m.free(m.alloc(1, cpu=1), cpu=1)
    stolen = m.alloc(1, cpu=0)
    assert stolen >= 0
    assert m.state.bucket[0, containers.OWNER] == 1
    # General lock, then CPU 0's own container, which is marked, then CPU 1's.
    assert m.answers == [s.AGAIN] * 3 + [s.DONE]
    assert m.state.box[:, mbufs.MBUF, containers.STARVED].tolist() == [1, 0, 0, 0]
    m.free(stolen, cpu=0)
    assert counted(m, "free_mbufs", "general_mbufs") == [32, 0]


def test_a_free_to_a_starved_cpu_makes_its_bucket_general():
    m = bare(cpus=2, nmbufs=32)
    live = take(m, 32)
    assert m.alloc(1, cpu=1) == -1
    assert m.state.box[:2, mbufs.MBUF, containers.STARVED].tolist() == [1, 1]
    m.free(live[0])
    assert counted(m, "general_mbufs") == [1]
    assert m.state.box[:2, mbufs.MBUF, containers.STARVED].tolist() == [0, 1]
    m.free(live[1])  # of a bucket that is general now
    assert m.answers == [s.AGAIN, s.DONE]
    assert counted(m, "general_mbufs") == [2]


def test_a_general_bucket_that_was_robbed_empty_comes_back():
    m = bare(cpus=1, nmbufs=32)
    live = take(m, 32)
    assert m.alloc(1) == -1
    m.free(live[0])
    state, reg = m.state, m.reg
    reg[0] = 0
    reg[0, regs.PHASE] = mb_alloc.LAST_CHANCE
    assert mb_alloc.alloc(state, reg, 0) == s.DONE
    assert reg[0, regs.ADDR] == live[0]
    assert state.bucket[live[0] // s.PAGE & ~1, containers.OWNER] == 1
    for addr in live:
        m.free(addr)
    assert counted(m, "free_mbufs", "general_mbufs") == [32, 32]


def test_without_map_entries_the_kernel_panics():
    state, reg = fresh(), np.zeros((1, regs.COLUMNS), np.int64)
    state.booted[:] = 100
    while mb_alloc.alloc(state, reg, 0) != s.MAP_ALLOC:
        pass
    reg[0, regs.BASE] = s.NO_ENTRY
    assert mb_alloc.alloc(state, reg, 0) == s.FAILED
    assert reg[0, regs.PANIC] == panics.ENTRIES
    assert mb_alloc.census(state)["mbufs_full"] == 0


def test_a_map_too_small_for_boot_serves_what_it_can():
    m = hand(limit=3 * s.PAGE)
    assert sum(a >= 0 for a in take(m, 64, flags=NOWAIT)) == 32
    assert [nbytes for _, _, nbytes in m.map_log] == [2 * s.PAGE]


def test_limits_keep_each_sort_to_its_share():
    m = hand(nmbufs=40, nmbclusters=17)
    assert sum(a >= 0 for a in take(m, 60, flags=NOWAIT)) == 32
    assert sum(a >= 0 for a in take(m, 30, 2048, flags=NOWAIT)) == 16


@pytest.mark.parametrize("flags", [0, NOWAIT])
def test_a_chain_that_cannot_be_finished_is_given_up(flags):
    m = bare(cpus=2, nmbclusters=16)
    m.free(m.alloc(2048, cpu=1), cpu=1)
    got = 16 if flags == 0 else 8  # one that may wait robs CPU 1, too
    assert m.alloc((got + 9) * 2048, flags=flags) == -1
    free = counted(m, "clusters", "free_clusters")
    assert free == [16, 16]
    assert m.alloc(got * 2048, flags=flags) >= 0


# E4: free.


def test_a_free_goes_to_the_container_of_the_owner_under_its_lock():
    m = started(cpus=3)
    addr = m.alloc(1, cpu=2)
    m.free(addr, cpu=0)
    assert m.answers == [s.AGAIN, s.DONE]
    assert m.reg[0, regs.LOCK] == OWN_LOCK + 2
    assert m.alloc(1, cpu=2) == addr


def test_an_owner_that_changes_before_the_lock_is_had_is_looked_up_again():
    m = started(cpus=3)
    addr = m.alloc(1, cpu=2)
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, regs.ADDR] = addr
    assert mb_alloc.free(m.state, reg, 0) == s.AGAIN
    first = int(m.state.bucket[addr // s.PAGE, containers.FIRST])
    m.state.box[2, mbufs.MBUF, containers.HEAD] = m.state.bucket[first, containers.NEXT]
    m.state.bucket[first, [containers.OWNER, containers.NEXT]] = 1, m.state.box[1, mbufs.MBUF, containers.HEAD]
    m.state.box[1, mbufs.MBUF, containers.HEAD] = first
    assert mb_alloc.free(m.state, reg, 0) == s.AGAIN
    assert reg[0, regs.LOCK] == 1
    assert mb_alloc.free(m.state, reg, 0) == s.DONE
    assert buckets(m.state, 1, mbufs.MBUF)[0][1][0] == addr


def test_pages_are_never_given_back():
    m = started(cpus=2)
    live = [m.alloc(size, cpu=n % 2) for n, size in enumerate([100, 3000, 2048] * 200)]
    pages = counted(m, "pages")
    for addr in live:
        m.free(addr)
    assert counted(m, "pages") == pages
    assert {step[0] for step in m.map_log} == {"alloc"}


@pytest.mark.parametrize(("version", "kva", "text"), [(2, KVA, "version"), (1, 1 << 44, "8 TiB")])
def test_bad_parameters_are_refused(version, kva, text):
    with pytest.raises(ValueError, match=text):
        mb_alloc.init(mb_alloc.Params(version), kva_bytes=kva, cpus=1, map_number=0, items=(), bases=())


# Random programs.

STEP = h.tuples(
    h.sampled_from(["alloc", "alloc", "free", "free_run"]),
    h.one_of(h.sampled_from([0, 100, 256, 1500, 2048, 5000]), h.integers(0, 9000)),
    h.integers(1, 40),
    h.integers(0, 3),
    h.sampled_from([0, 0, NOWAIT]),
    h.integers(0, 10**6),
)


class Pair:
    """The allocator and the naive one side by side."""

    def __init__(self, version: int, cpus: int, limit: int, room: int, high: int, module=mb_alloc) -> None:
        params = {
            "version": version,
            "nmbufs": 4 * room,
            "nmbclusters": room,
            "mbuf_hiwm": 4 * high,
            "clust_hiwm": high,
        }
        self.cpus = cpus
        self.hand = Hand(module, fresh(cpus=cpus, **params), limit=limit)
        self.naive = NaiveMbAlloc(
            version, cpus, limit, room={MBUF: 4 * room, CLUSTER: room}, high={MBUF: 4 * high, CLUSTER: high}
        )
        self.live: list[int] = []

    def alloc(self, size: int, cpu: int, flags: int) -> None:
        want = self.naive.alloc(size, cpu, wait=not flags & NOWAIT)
        assert self.hand.alloc(size, cpu=cpu, flags=flags) == (-1 if want is None else want)
        if want is not None:
            assert self.hand.granted == sum(MBUF if size <= MBUF else CLUSTER for _ in self.naive.live[want])
            self.live.append(want)

    def free(self, which: int, cpu: int, _flags: int) -> None:
        addr = self.live.pop(which % len(self.live))
        one, owner = len(self.naive.live[addr]) == 1, self.naive.owner(addr)
        self.naive.free(addr)
        self.hand.free(addr, cpu=cpu)
        if one and owner != cpu:
            assert self.hand.answers[0] == s.AGAIN

    def check(self) -> None:
        state, naive = self.hand.state, self.naive
        for k, size in enumerate((MBUF, CLUSTER)):
            for c in range(self.cpus + 1):
                want = [(b.pages[0] * s.PAGE, b.free[::-1]) for b in naive.box[c][size][::-1]]
                assert buckets(state, c, k) == want
                assert state.box[c, k, containers.COUNT] == naive.count(c, size)
        counts = mb_alloc.census(state)
        assert counts["pages"] * s.PAGE == self.hand.next == naive.map.next
        assert [counts["mbufs_full"], counts["clusters_full"]] == list(naive.full.values())
        pieces = [(a, MBUF if naive.bucket_of[a // s.PAGE].size == MBUF else CLUSTER) for a in self.pieces()]
        idle = 256 * counts["free_mbufs"] + 2048 * counts["free_clusters"]
        assert counts["pages"] * s.PAGE == idle + sum(size for _, size in pieces)
        assert all(a + size <= b for (a, size), (b, _) in pairwise(sorted(pieces)))
        assert all(a % size == 0 for a, size in pieces)

    def pieces(self) -> list[int]:
        return [a for chain in self.naive.live.values() for a in chain]


@settings(max_examples=250)
@given(
    h.lists(STEP, min_size=6, max_size=50),
    h.integers(0, 1),
    h.integers(1, 4),
    h.sampled_from([1 << 17, 1 << 19, KVA]),
    h.sampled_from([24, 100, 2000]),
    h.sampled_from([4, 20, 128]),
)
def test_same_addresses_as_the_naive_model_and_nothing_lost(program, version, cpus, limit, room, high):
    pair = Pair(version, cpus, limit, room, high)
    play_bursts(pair, program)
    while pair.live:
        pair.free(len(pair.live) // 2, len(pair.live) % cpus, 0)
    pair.check()
    counts = mb_alloc.census(pair.hand.state)
    assert (counts["free_mbufs"], counts["free_clusters"]) == (counts["mbufs"], counts["clusters"])


def test_compiled_and_python_kernels_agree():
    rng = np.random.default_rng(3)
    verbs, sizes = ["alloc", "alloc", "free", "free_run"], [0, 256, 1500, 2048, 5000]
    program = [
        (
            str(rng.choice(verbs)),
            int(rng.choice(sizes)),
            *rng.integers(1, 20, 2).tolist(),
            int(rng.choice([0, NOWAIT])),
            7,
        )
        for _ in range(40)
    ]
    states = []
    for module in (mb_alloc, uncompiled(mb_alloc)):
        pair = Pair(1, 3, 1 << 19, 100, 20, module)
        play_bursts(pair, program)
        states.append(pair.hand.state)
    for column in ("sort", "box", "booted", "bucket"):
        assert np.array_equal(getattr(states[0], column), getattr(states[1], column))
