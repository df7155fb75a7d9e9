"""The operations of an arena with addresses and sizes in pages."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from kmemexp.sim.slots import ATTR_WIRED, PAGE
from kmemexp.sim.tables import gauge


class InPages:
    """One arena's operations; `attr` is what is asked for where nothing else is said."""

    def __init__(self, module: ModuleType, attr: int = ATTR_WIRED) -> None:
        self.module, self.attr = module, attr

    def alloc(self, st: Any, pages: int = 1, align: int = 1, attr: int | None = None, m: int = 0, cpu: int = 0) -> int:
        """First page, or a negative answer."""
        wanted = self.attr if attr is None else attr
        addr = self.module.map_alloc(st, m, pages * PAGE, align * PAGE, wanted, cpu)
        assert addr < 0 or addr % (align * PAGE) == 0
        return addr // PAGE if addr >= 0 else addr

    def free(self, st: Any, page: int, pages: int = 1, m: int = 0, cpu: int = 0) -> None:
        assert self.module.map_free(st, m, page * PAGE, pages * PAGE, cpu) == 0

    def measure(self, st: Any, m: int = 0) -> np.ndarray:
        out = np.zeros(gauge.COLUMNS, np.int64)
        self.module.map_measure(st, m, out)
        return out

    def painted(self, st: Any, m: int, count: int) -> list[float]:
        """Shares of a map in use, in so many bins."""
        bins = np.ones(count)
        self.module.map_paint(st, m, bins)
        return bins.tolist()

    def keeps_segments_apart(self, st: Any, vacant: Callable[[Any], list[tuple[int, int]]]) -> None:
        """Play the two halves of eight pages: an arena whose search goes round merges what is free when it must."""
        assert [self.alloc(st, 4), self.alloc(st, 4)] == [0, 4]
        self.free(st, 0, 4)
        assert self.alloc(st, 2) == 0
        self.free(st, 0, 2)
        assert vacant(st) == [(0, 2), (2, 4)]
        assert self.measure(st)[gauge.LARGEST] == 4 * PAGE
        self.module.check(st, 0)
        assert self.alloc(st, 4) == 0
        self.module.check(st, 0)

    def check_holes(self, st: Any, m: int, holes: list[int]) -> np.ndarray:
        """Hold what is measured against the pages of a map's holes; returns the measures."""
        out = self.measure(st, m)
        assert out[gauge.FREE] == self.module.map_free_bytes(st, m) == sum(holes) * PAGE
        assert out[gauge.LARGEST] == max(holes, default=0) * PAGE
        assert out[gauge.HOLES] == len(holes)
        classes = np.zeros(gauge.CLASSES, np.int64)
        for n in holes:
            classes[n.bit_length() - 1] += n * PAGE
        assert out[gauge.HIST : gauge.CLAIMS].tolist() == classes.tolist()
        return out

    def check_painted(self, st: Any, m: int, taken: np.ndarray, bins: int) -> None:
        """Hold what is painted in so many bins against a map of the pages that are taken."""
        painted = np.full(bins, 7.0)
        self.module.map_paint(st, m, painted)
        exact = np.repeat(taken, bins).reshape(bins, len(taken)).mean(axis=1)
        np.testing.assert_allclose(painted, exact, atol=1e-9)
        assert painted.max() <= 1
