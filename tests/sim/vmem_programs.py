"""An arena of segments beside its naive twin: what the tests of FreeBSD's and of illumos' vmem share."""

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as hs

from kmemexp.sim.arenas._shared import segments as g
from kmemexp.sim.slots import ATTR_SINGLE, PAGE
from kmemexp.sim.tables import gauge
from tests.sim.in_pages import InPages

SUBMAPS = ((20, 84), (84, 99))  # pages of map 0 that maps 1 and 2 manage

quick = settings(max_examples=100)


def programs(maps: Any, sizes: Any, aligns: Any, attrs: Any, cpus: int = 1) -> Any:
    """Programs of steps as `Pair.play` takes them."""
    cpu = hs.integers(0, cpus - 1)
    allocs = hs.tuples(hs.just("alloc"), maps, sizes, aligns, attrs, cpu)
    frees = hs.tuples(hs.just("free"), maps, hs.integers(0, 99), cpu)
    return hs.lists(allocs | allocs | frees, max_size=70)


class Pair:
    """The same maps, compiled and naive; 20 pages below the submaps are taken."""

    def __init__(self, in_pages: InPages, st: Any, twin: Any) -> None:
        self.in_pages, self.module, self.st, self.twin = in_pages, in_pages.module, st, twin
        self.live: list[dict[int, int]] = [{}, {}, {}]  # pages of what is allocated, by map and first page
        for n in (20, *(high - low for low, high in SUBMAPS)):
            self.play(("alloc", 0, n, 1, ATTR_SINGLE, 0))
        for m, (low, high) in enumerate(SUBMAPS, 1):
            del self.live[0][low]
            self.module.add_map(st, m, low * PAGE, (high - low) * PAGE)
            twin.submap(low, high)

    def play(self, step: tuple) -> None:
        """One operation on both."""
        verb, m, *args, cpu = step
        live = self.live[m]
        if verb == "alloc":
            pages, align, attr = args
            got = self.in_pages.alloc(self.st, pages, align, attr, m, cpu)
            assert got == self.twin.alloc(m, pages, align, attr, cpu)
            if got >= 0:
                assert all(got + pages <= page or page + n <= got for page, n in live.items())
                live[got] = pages
        elif live:
            page = sorted(live)[args[0] % len(live)]
            pages = live.pop(page)
            self.in_pages.free(self.st, page, pages, m, cpu)
            self.twin.free(m, page, pages, cpu)

    def check(self) -> None:
        raise NotImplementedError

    def measure(self, bins: int) -> None:
        raise NotImplementedError

    def play_step_by_step(self, program: list[tuple], bins: int) -> None:
        """Play a program, then free all; what is measured is compared in both states."""
        for step in program:
            self.play(step)
            self.check()
        self.measure(bins)
        self.free_all()
        self.check()
        self.measure(bins)

    def free_all(self) -> None:
        for m, live in enumerate(self.live):
            while live:
                self.play(("free", m, 0, 0))

    def play_long(self, rng: np.random.Generator, steps: int = 2500, cpus: int = 1) -> None:
        for _ in range(steps):
            m, cpu, pick, attr = (int(x) for x in rng.integers((3, cpus, 100, 3)))
            if rng.random() < 0.55:
                align = int(rng.choice((1, 1, 1, 1, 4, 3)))
                self.play(("alloc", m, int(rng.choice((1, 2, 3, 5, 40))), align, attr, cpu))
            else:
                self.play(("free", m, pick, cpu))

    def check_map(self, m: int, walked: int) -> None:
        """Hold one map's allocated ranges against the twin's."""
        assert [(s // PAGE, e // PAGE, attr) for s, e, attr in self.module.ranges(self.st, m)] == self.twin.ranges(m)
        assert self.module.map_walked(self.st, m) == walked
        self.module.check(self.st, m)

    def check_measures(self, m: int, bins: int, high: int) -> np.ndarray:
        """Hold what is measured and painted of one map against the twin's holes; returns the measures."""
        st = self.st
        out = self.in_pages.check_holes(st, m, self.twin.holes(m))
        base, size = st.arena[m, g.BASE] // PAGE, self.twin.sizes[m]
        assert out[gauge.HIGH] == (high - base) * PAGE
        pages = np.zeros(size)
        for start, end, _ in self.twin.ranges(m):
            pages[start - base : end - base] = 1
        self.in_pages.check_painted(st, m, pages, bins)
        assert self.module.used(st, m) == pages.sum() * PAGE
        return out
