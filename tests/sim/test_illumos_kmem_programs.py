"""illumos kmem: random programs against the naive allocator, and the conformance suite with steps interleaved."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_kmem import NaiveKmem

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import illumos_kmem as kmem
from kmemexp.sim.allocators.illumos_kmem import slabs as u
from kmemexp.sim.items import Item
from kmemexp.testing import check_allocator
from kmemexp.validate.hand import Hand

MIB = 1 << 20
CPUS = 3
ITEMS = (200, 1500, 700)
sizes = st.one_of(
    st.sampled_from([640, 1344, 2688, 4096]),  # few buffers to a slab: slabs fill up and empty often
    st.sampled_from([1, 8, 200, 640, 1153, 2048, 5000, 8193, 16384, 131072, 131073]),
    st.integers(1, 5000),
)
# What, size or item, how many, CPU, which object, divisor: objects whose number it divides refuse to move.
steps = st.tuples(
    st.sampled_from(["alloc", "alloc", "zone", "zone", "free", "free", "free_run", "tick", "reap"]),
    sizes,
    st.integers(1, 60),
    st.integers(0, CPUS - 1),
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 3, 10**9, 10**9]),
)
programs = st.lists(steps, min_size=5, max_size=40)
settings_of = st.fixed_dictionaries(
    {
        "movable": st.sampled_from([0, 1, 2]),
        "contention": st.sampled_from([0, 2]),
        "depot_contention": st.sampled_from([0, 3]),
        "frag_minslabs": st.sampled_from([1, 4]),
        "scan_range": st.sampled_from([2, 12]),
        "reclaim_slabs": st.sampled_from([1, 3]),
        "frag_denom": st.sampled_from([8, 50]),
        "reap_wait": st.sampled_from([0, 1]),
        "magazines": st.sampled_from([0, 1, 1]),
        "max_cached": st.sampled_from([4096, 20000, 131072]),
    }
)


class Pair:
    """The allocator and the naive one side by side; live objects by number."""

    def __init__(self, cpus: int, limit: int, params: dict) -> None:
        items = [Item(size, 1, 0) for size in ITEMS]
        given = {"kva_bytes": 64 * MIB, "cpus": cpus, "map_number": 0, "items": items, "bases": [-1] * len(items)}
        self.hand = Hand(kmem, kmem.init(kmem.Params(**params), **given), limit=limit)
        self.naive = NaiveKmem(list(ITEMS), cpus, limit=limit, **params)
        self.cpus = cpus
        self.live: dict[int, tuple[int, int]] = {}  # address, granted
        self.made = self.moves = 0

    def level(self) -> None:
        self.hand.next = self.naive.map.next = self.naive.map.top()  # so that addresses are used again

    def alloc(self, nbytes: int, cpu: int, item: int) -> None:
        self.level()
        self.made += 1
        want = self.naive.malloc(nbytes, cpu, self.made, item)
        addr = self.hand.alloc(nbytes, item=item, cpu=cpu, obj=self.made)
        assert (addr, self.hand.granted if addr != -1 else 0) == want
        if addr != -1:
            self.live[self.made] = want

    def free(self, which: int, cpu: int) -> None:
        self.level()
        addr, _ = self.live.pop(list(self.live)[which % len(self.live)])
        self.naive.mfree(addr, cpu)
        self.hand.free(addr, cpu=cpu)

    def tend(self, why: int, cpu: int, refuses: int) -> None:
        self.level()
        self.hand.may_move = self.naive.may_move = lambda obj: obj % refuses != 0
        (self.naive.reap if why == s.TEND_REAP else self.naive.tick)(cpu)
        self.hand.tend(why, cpu=cpu)
        assert self.hand.moves == self.naive.moved
        for obj, _, to in self.naive.moved[self.moves :]:
            self.live[obj] = to, self.live[obj][1]
        self.moves = len(self.naive.moved)

    def check(self) -> None:
        assert self.hand.map_log == self.naive.map.log
        held = kmem.census(self.hand.state)
        caches = self.naive.caches[u.FIRST_ALLOC :]
        assert held["pages"] * s.PAGE == sum(self.naive.map.held.values())
        assert held["slab_buffers"] == sum(cache.free_in_slabs() for cache in caches)
        assert held["partial_slabs"] == sum(len(cache.partial()) for cache in caches)
        assert held["full_magazines"] == sum(len(cache.full.magazines) for cache in self.naive.caches)
        assert held["empty_magazines"] == sum(len(cache.empty.magazines) for cache in self.naive.caches)
        assert held["hash_bytes"] == sum(8 * (cache.mask + 1) for cache in caches if cache.hashed)
        counted = [held[name] for name in ("moves_done", "moves_later", "moves_unknown")]
        assert counted == [self.naive.done, self.naive.later, self.naive.unknown]
        placed = sorted(self.live.values())
        assert all(a + size <= b for (a, size), (b, _) in pairwise(placed))
        total = sum(cache.total() - cache.free_in_slabs() for cache in caches)
        cached = held["cpu_buffers"] + held["depot_buffers"]
        assert total == len(self.live) - len(self.naive.oversize) + cached

    def play(self, program: list) -> None:
        for verb, nbytes, count, any_cpu, which, refuses in program:
            cpu = any_cpu % self.cpus
            if verb in ("alloc", "zone"):
                item = which % len(ITEMS) if verb == "zone" else s.ITEM_MALLOC
                for _ in range(count):
                    self.alloc(ITEMS[item] if verb == "zone" else nbytes, cpu, item)
            elif verb in ("tick", "reap"):
                self.tend(s.TEND_REAP if verb == "reap" else s.TEND_TICK, cpu, refuses)
            else:
                for k in range(min(count, len(self.live))):
                    self.free(which if verb == "free_run" else which * (k + 1), (cpu + k // 8) % self.cpus)
            self.check()

    def drain(self) -> None:
        while self.live:
            self.free(len(self.live) // 2, len(self.live) % self.cpus)
        for _ in range(4):
            self.tend(s.TEND_TICK, 0, 10**9)
            self.tend(s.TEND_REAP, 0, 10**9)
        self.check()


@settings(max_examples=250)
@given(programs, st.integers(1, CPUS), st.sampled_from([1, 60]), settings_of)
def test_random_programs_go_as_in_the_naive_allocator(program, cpus, limit_mib, params):
    pair = Pair(cpus, limit_mib * MIB, params)
    pair.play(program)
    pair.drain()
    held = kmem.census(pair.hand.state)
    # What is left is in the CPUs' magazines.
    assert held["large_pages"] == held["depot_buffers"] == 0
    left = pair.naive.caches[u.FIRST_ALLOC :]
    assert held["cpu_buffers"] == sum(cache.total() - cache.free_in_slabs() for cache in left)


@pytest.mark.parametrize(
    "params",
    [
        {"movable": 2, "frag_minslabs": 3, "contention": 2, "depot_contention": 0, "reap_wait": 0},
        {"movable": 2, "frag_minslabs": 2, "frag_denom": 100, "magazines": 0},
    ],
)
def test_steps_may_be_interleaved(params):
    check_allocator(kmem, params=params, seeds=range(2), kva_bytes=8 * MIB)
