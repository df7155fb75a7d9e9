"""SLUB: random programs against the naive allocator, over a map that fragments and fills up."""

import types
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h
from naive_slub import Cache, NaiveSlub

from kmemexp import testing
from kmemexp.sim import slots as s
from kmemexp.sim.allocators import slub
from kmemexp.sim.allocators._shared.slab_order import FULLEST, LOWEST
from kmemexp.sim.allocators.slub import slabs as u
from kmemexp.sim.tables import flag

KIB, MIB = 1 << 10, 1 << 20
CPUS = 4
MANY = len(testing.ITEMS)
OPTIONS = {
    "plain": {},
    "small lists": {"min_partial": 1},
    "no CPU lists": {"cpu_partial": 0, "min_partial": 2},
    "nodes": {"domains": 2, "min_partial": 1},
    "four nodes": {"domains": 4, "min_partial": 1, "defrag_ratio": 700},
    "sheaves": {"sheaves": 1},
    "sheaves for those that ask": {"sheaves": 2, "min_partial": 1},
    "sheaves, no slabs of CPUs": {"sheaves": 1, "cpu_slabs": 0, "domains": 2, "min_partial": 1},
    "sheaves, small lists": {"sheaves": 1, "min_partial": 1},
    "by address": {"slab_order": LOWEST, "min_partial": 1},
    "fullest first": {"slab_order": FULLEST, "min_partial": 2},
    "fullest first, no CPU lists": {"slab_order": FULLEST, "cpu_partial": 0, "min_partial": 2},
    "fullest first, sheaves and nodes": {"slab_order": FULLEST, "sheaves": 1, "domains": 2, "min_partial": 1},
    "vectors": {"memcg": 1},
    "vectors, nodes": {"memcg": 1, "domains": 2, "min_partial": 1},
    "vectors, no CPU lists": {"memcg": 1, "cpu_partial": 0, "min_partial": 1},
    "vectors in spare room, sheaves, no slabs of CPUs": {"memcg": 2, "sheaves": 1, "cpu_slabs": 0, "min_partial": 1},
    "vectors, fullest first": {"memcg": 1, "slab_order": FULLEST, "min_partial": 1},
    "larger sheaves and nodes": {"sheaves": 1, "sheaf_capacity": 20, "domains": 2, "min_partial": 1},
}
sizes = h.one_of(
    h.sampled_from([4096, 8192, 2048, 1000]),  # few objects to a slab: slabs fill up and empty often
    h.sampled_from([4096, 8192]),
    h.sampled_from([0, 1, 8, 64, 65, 96, 97, 128, 129, 192, 193, 256, 257, 8192, 8193, 20000, 70000, 5 * MIB]),
    h.integers(1, 9000),
)
steps = h.tuples(
    h.sampled_from(["alloc", "alloc", "alloc", "free", "free", "free_run", "shrink"]),
    sizes,
    h.one_of(h.just(s.ITEM_MALLOC), h.just(s.ITEM_MBUF), h.integers(0, MANY - 1)),
    h.integers(1, 70),  # how many
    h.integers(0, CPUS - 1),
    h.sampled_from([0, 0, flag.NOWAIT]),
    h.integers(0, 10**6),  # which object
)
programs = h.lists(steps, min_size=5, max_size=40)


class LogMap(testing.Map):
    """A first-fit map that notes what it is asked."""

    def __init__(self, nbytes: int) -> None:
        super().__init__(nbytes)
        self.log: list[tuple[str, int, int]] = []

    def take(self, nbytes: int, align: int) -> int:
        base = super().take(nbytes, align)
        self.log.append(("take", base, nbytes))
        return base

    def give(self, base: int, nbytes: int) -> None:
        super().give(base, nbytes)
        self.log.append(("give", base, nbytes))


class Pair:
    """The allocator and the naive one side by side. The bench checks overlap, alignment and ownership of chunks."""

    def __init__(self, options: dict, kva_bytes: int, module=slub) -> None:
        self.bench = testing.Bench(module, cpus=CPUS, kva_bytes=kva_bytes, params={"shrink": 1, **options})
        self.bench.map, own = LogMap(kva_bytes), LogMap(kva_bytes)
        rest = {k: v for k, v in options.items() if k != "domains"}
        self.naive = NaiveSlub(own.take, own.give, CPUS, testing.ITEMS, nodes=options.get("domains", 1), **rest)
        self.own, self.count = own, 0

    def play(self, verb: str, obj: int, cpu: int, size: int = 0, item: int = 0, flags: int = 0) -> None:
        task = testing.Task(0, verb, obj, cpu)
        self.bench.begin(task, size, item, flags)
        while not self.bench.step(task):
            pass

    def alloc(self, size: int, item: int, cpu: int, flags: int) -> None:
        self.count += 1
        if item >= 0:
            size = testing.ITEMS[item].size
        want = self.naive.alloc(size, item, cpu, flags)
        self.play("alloc", self.count, cpu, size, item, flags)
        assert self.bench.live.get(self.count, (-1,))[0] == want

    def free(self, which: int, cpu: int) -> None:
        obj = list(self.bench.live)[which % len(self.bench.live)]
        addr, _, item, _ = self.bench.live[obj]
        self.naive.free(addr, item, cpu, 0)
        self.play("free", obj, cpu)

    def shrink(self, cpu: int) -> None:
        self.naive.shrink()
        self.play("tend", 0, cpu, size=s.TEND_REAP)

    def check(self) -> None:
        assert self.bench.map.log == self.own.log
        self.bench.check()
        naive = self.naive.caches
        assert slub.census(self.bench.state) == census(self.naive)
        for cache in naive:
            assert [[x.base for x in slabs] for slabs in cache.node] == node_lists(self.bench.state, cache)

    def run(self, program: list) -> None:
        for verb, size, item, many, cpu, flags, which in program:
            if verb == "alloc":
                for _ in range(many):
                    self.alloc(size, item, cpu, flags)
            elif verb == "shrink":
                self.shrink(cpu)
            else:
                for k in range(min(many, len(self.bench.live))):
                    self.free(which if verb == "free_run" else which * (k + 1), cpu)
            self.check()

    def drain(self) -> None:
        while self.bench.live:
            self.free(len(self.bench.live) // 2, len(self.bench.live) % CPUS)
        self.check()


def node_lists(st: slub.State, cache: Cache) -> list[list[int]]:
    """Addresses of the slabs on each node's list, which is followed both ways."""
    lists = []
    for row in st.node[cache.number].tolist():
        found, slab, before = [], row[u.NODE_HEAD], u.NIL
        while slab != u.NIL:
            assert st.slab[slab, u.S_PREV] == before
            found.append(slab * s.PAGE)
            slab, before = int(st.slab[slab, u.S_NEXT]), slab
        assert (row[u.NODE_TAIL], row[u.NODE_PARTIAL]) == (before, len(found))
        lists.append(found)
    return lists


def census(naive: NaiveSlub) -> dict[str, int]:
    slabs = set(naive.slabs.values())
    total: Counter = Counter()
    for cache in naive.caches:
        total["current_slabs"] += sum(slab is not None for slab in cache.current)
        total["cpu_partial_slabs"] += sum(map(len, cache.partial))
        total["node_partial_slabs"] += sum(map(len, cache.node))
        sheaves = [x for x in cache.main + cache.spare if x] + [x for n in cache.full + cache.vacant for x in n]
        total["sheaves"] += len(sheaves)
        total["sheaf_objects"] += sum(len(x.objects) for x in sheaves)
        total["free_objects"] += sum(map(len, cache.freelist))
    large = sum(naive.large.values()) // s.PAGE
    return {
        "pages": sum(slab.nbytes for slab in slabs) // s.PAGE + large,
        "large_pages": large,
        "slabs": len(slabs),
        "current_slabs": total["current_slabs"],
        "cpu_partial_slabs": total["cpu_partial_slabs"],
        "node_partial_slabs": total["node_partial_slabs"],
        "free_objects": sum(len(slab.free) for slab in slabs) + total["free_objects"],
        "sheaf_objects": total["sheaf_objects"],
        "sheaves": total["sheaves"],
        "fallbacks": naive.fallbacks,
        "vectors": sum(slab.vector >= 0 for slab in slabs),
    }


def plain_python() -> types.SimpleNamespace:
    """The module with its three kernels uncompiled."""
    names = vars(slub).copy()
    names.update({name: getattr(names[name], "py_func", names[name]) for name in ("alloc", "free", "tend")})
    return types.SimpleNamespace(**names)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@settings(max_examples=40)
@given(programs, h.sampled_from([200 * KIB, MIB, 24 * MIB]))
def test_random_programs_go_as_in_the_naive_allocator(options, program, kva_bytes):
    pair = Pair(options, kva_bytes)
    pair.run(program)
    pair.drain()
    pair.shrink(0)
    pair.check()
    held = slub.census(pair.bench.state)
    if not options.get("sheaves"):
        assert held["pages"] == 0
    assert held["large_pages"] == 0


def test_long_programs_go_as_in_the_naive_allocator():
    """Two kinds of object at a time, in tides: full barns, full lists, and a map that has no more."""
    rng = np.random.default_rng(7)
    for options in OPTIONS.values():
        pair = Pair(options, 3 * MIB)
        for tide in range(12):
            kinds = [(int(rng.choice([60, 1000, 4096, 8192])), s.ITEM_MALLOC), (0, int(rng.integers(MANY)))]
            for _ in range(150):
                cpu = int(rng.integers(CPUS))
                if tide % 3 == 0 or (tide % 3 == 1 and rng.random() < 0.5) or not pair.bench.live:
                    for _ in range(int(rng.integers(1, 12))):
                        pair.alloc(*kinds[int(rng.integers(2))], cpu, 0)
                else:
                    for _ in range(min(int(rng.integers(1, 12)), len(pair.bench.live))):
                        pair.free(int(rng.integers(1 << 20)), cpu)
            pair.check()
        pair.drain()


@settings(max_examples=5)
@given(programs, h.sampled_from(["small lists", "fullest first", "larger sheaves and nodes"]))
def test_the_compiled_fast_path_does_what_its_source_says(program, name):
    pairs = [Pair(OPTIONS[name], 4 * MIB, module) for module in (slub, plain_python())]
    for pair in pairs:
        pair.run(program)
    one, other = (pair.bench.state for pair in pairs)
    for array in ("cache", "cpu", "node", "slab"):
        assert np.array_equal(getattr(one, array), getattr(other, array))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shrink", [0, 1])
def test_interleaved_operations_lose_nothing(options, shrink):
    testing.check_allocator("slub", params={**options, "shrink": shrink}, kva_bytes=2 * MIB, operations=400, seeds=(3,))
