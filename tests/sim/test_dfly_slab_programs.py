"""DragonFly slab: random programs against the naive allocator, and the compiled kernels against their source."""

import types

import dfly_programs
import numpy as np
import pytest
from dfly_programs import KIB, MIB, fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_slab import NaiveSlab

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import dfly_slab as slab
from kmemexp.sim.allocators._shared import dfly_zones, slab_order
from kmemexp.sim.tables import flag
from kmemexp.validate.hand import Hand

CPUS = 4
sizes = st.one_of(
    st.sampled_from([8191, 12000, 16383]),  # few chunks to a zone: zones fill up and empty often
    st.sampled_from([8191, 12000, 16383]),
    st.sampled_from([0, 1, 8, 129, 4095, 4096, 8191, 8192, 8193, 16383, 16384, 50000]),
    st.integers(0, 17000),
    st.integers(5000, 16383),
)
steps = st.tuples(
    st.sampled_from(["alloc", "alloc", "alloc", "free", "free", "free", "free_run", "free_run", "reap"]),
    sizes,
    st.integers(1, 32),  # how many
    st.integers(0, CPUS - 1),
    st.sampled_from([0, 0, flag.NOWAIT, flag.SOFT, flag.HARD | flag.NOWAIT]),
    st.integers(0, 10**6),  # which object
)


class Pair(dfly_programs.Pair):
    """The allocator and the naive one."""

    def __init__(self, zone_bytes: int, cpus: int, limit: int, module=slab, *, order: int = 0, reap: int = 0) -> None:
        state = fresh(slab, zone_bytes, cpus=cpus, slab_order=order, reap=reap)
        super().__init__(Hand(module, state, limit=limit), NaiveSlab(zone_bytes, cpus, limit=limit, order=order))
        self.reaps = reap

    def free(self, which: int, cpu: int, flags: int) -> None:
        addr, _ = self.live.pop(which % len(self.live))
        before = self.naive.ipis
        self.naive.free(addr, cpu, interrupt=bool(flags & (flag.SOFT | flag.HARD)))
        self.hand.free(addr, cpu=cpu, flags=flags)
        assert self.hand.answers.count(s.IPI) == self.naive.ipis - before

    def check(self) -> None:
        held = slab.census(self.hand.state)
        self.check_memory(held)
        assert held["idle_zones"] == sum(map(len, self.naive.idle))
        listed = [zone for lists in self.naive.lists for zones in lists.values() for zone in zones]
        assert held["free_chunks"] == sum(zone.free_count() for zone in listed)
        assert held["fresh_chunks"] == sum(len(zone.fresh) for zone in listed)

    def play(self, program: list, cpus: int) -> None:
        for verb, nbytes, count, cpu, flags, which in program:
            if verb == "alloc":
                for _ in range(count):
                    self.alloc(nbytes, cpu % cpus, flags)
            if verb == "reap":
                self.hand.tend(s.TEND_REAP, cpu=cpu % cpus)
                self.hand.tend(s.TEND_TICK)
                if self.reaps:
                    self.naive.reap()
            for k in range(min(count, len(self.live)) if verb.startswith("free") else 0):
                self.free(which if verb == "free_run" else which * (k + 1), cpu % cpus, flags)
            self.check()

    def drain(self, cpus: int) -> None:
        while self.live:
            self.free(len(self.live) // 2, len(self.live) % cpus, 0)
        for cpu in range(cpus):
            self.alloc(1, cpu, 0)
        while self.live:
            self.free(0, 0, 0)
        self.check()


def plain_python() -> types.SimpleNamespace:
    """The module's kernels as plain functions that call each other, not the compiled ones."""
    names = vars(slab).copy()
    for name, kernel in vars(slab).items():
        if hasattr(kernel, "py_func"):
            own = kernel.py_func.__module__ == slab.__name__
            names[name] = types.FunctionType(kernel.py_func.__code__, names) if own else kernel.py_func
    return types.SimpleNamespace(**names)


programs = st.lists(steps, min_size=5, max_size=60)


@pytest.mark.parametrize("order", [slab_order.OWN, slab_order.LOWEST, slab_order.FULLEST])
@settings(max_examples=120)
@given(
    programs,
    st.sampled_from([32 * KIB, 64 * KIB, 128 * KIB]),
    st.integers(1, CPUS),
    st.sampled_from([2, 60]),
    st.integers(0, 1),
)
def test_random_programs_go_as_in_the_naive_allocator(order, program, zone_bytes, cpus, limit_mib, reap):
    pair = Pair(zone_bytes, cpus, limit_mib * MIB, order=order, reap=reap)
    pair.play(program, cpus)
    pair.drain(cpus)
    held = slab.census(pair.hand.state)
    assert (held["live_bytes"], held["oversize_pages"], held["queued_pages"]) == (0, 0, 0)
    assert (pair.hand.state.cpu[:, dfly_zones.FREE_ZONES_COUNT] <= 3).all()


@settings(max_examples=10)
@given(programs, st.integers(1, CPUS), st.integers(0, 2))
def test_the_compiled_code_does_what_the_python_source_says(program, cpus, order):
    module = plain_python()
    options = {"order": order, "reap": 1}
    compiled, plain = Pair(32 * KIB, cpus, 4 * MIB, **options), Pair(32 * KIB, cpus, 4 * MIB, module, **options)
    for pair in (compiled, plain):
        pair.play(program, cpus)
    for a, b in zip(compiled.hand.state, plain.hand.state, strict=True):
        assert np.array_equal(a, b)
