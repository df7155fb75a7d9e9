"""Arenas as the literature on placement sees them: cells instead of pages, one map without a bound."""

from types import ModuleType

import numpy as np

from kmemexp import jit
from kmemexp.sim.aliases import Table
from kmemexp.sim.arenas import sequential, vm_map
from kmemexp.sim.slots import ATTR_SINGLE, PAGE


class Arena:
    """One map of an arena; addresses and sizes in cells (pages)."""

    def __init__(self, module: ModuleType, cells: int, **params: int) -> None:
        self.module, self.cells = module, cells
        self.state = module.init(module.Params(**params), kva_bytes=cells * PAGE, cpus=1, maps=1)
        self._alloc, self._free = jit.entry(module.map_alloc), jit.entry(module.map_free)
        self.live: dict[int, int] = {}
        self.high = self.live_cells = self.peak = 0

    def alloc(self, size: int, align: int = 1) -> int:
        """Address, or -1."""
        addr = int(self._alloc(self.state, 0, size * PAGE, align * PAGE, ATTR_SINGLE, 0))
        if addr < 0:
            return -1
        addr //= PAGE
        self.live[addr] = size
        self.high = max(self.high, addr + size)
        self.live_cells += size
        self.peak = max(self.peak, self.live_cells)
        return addr

    def free(self, addr: int) -> None:
        size = self.live.pop(addr)
        self.live_cells -= size
        if self._free(self.state, 0, addr * PAGE, size * PAGE, 0) != 0:
            raise RuntimeError(f"{self.module.__name__}: the block at {addr} could not be freed")


def first_fit(cells: int) -> Arena:
    """FreeBSD's vm_map: the first fit of this project's kernels."""
    return Arena(vm_map, cells, entry_limit=cells)


def fit(policy: int, cells: int) -> Arena:
    """Sequential fit in a heap that grows upwards."""
    return Arena(sequential, cells, policy=policy, tail_last=1)


def robson_adversary(arena: Arena, live: int, largest: int, *, aligned: bool = False) -> int:
    """Robson's adversary against any allocator that does not move: sizes 1, 2, 4 … largest. Returns the high water.

    Robson, JACM 18 (1971) and 21 (1974).
    """
    f = 0
    for _ in range(live):
        arena.alloc(1)
    for i in range(1, largest.bit_length()):
        step = 1 << i

        def occupies(block: tuple[int, int], offset: int, step: int = step) -> bool:
            return (offset - block[0]) % step < block[1]

        def score(offset: int, step: int = step) -> int:
            return sum(step - b[1] for b in arena.live.items() if occupies(b, offset))

        f = max((f, f + step // 2), key=score)
        for block in list(arena.live.items()):
            if not occupies(block, f):
                arena.free(block[0])
        for _ in range((live - arena.live_cells) // step):
            arena.alloc(step, step if aligned else 1)
    return arena.high


def best_fit_killer(arena: Arena, m: int, rounds: int) -> None:
    """Robson's sequence against best fit, 1977: after round k a block of m-2 and k holes of m-3 before blocks of 1."""
    head = -1
    units: list[int] = []
    for k in range(rounds):
        a, b = arena.alloc(m - 2), arena.alloc(m - 2)
        if k == 0:
            head = a
            a, b = b, arena.alloc(m - 2)
        last = units.pop() if units else head
        arena.free(last)
        arena.free(a)
        x, y, z = arena.alloc(m), arena.alloc(m - 5), arena.alloc(1)
        arena.free(b)
        arena.free(x)
        fresh = [z]
        walk = [*units[::-1], head] if k else []
        for u in walk:
            p, q = arena.alloc(m - 2), arena.alloc(2)
            arena.free(u)
            arena.free(p)
            x, y2, z2 = arena.alloc(m), arena.alloc(m - 5), arena.alloc(1)
            for gone in (x, q, y):
                arena.free(gone)
            y = y2
            fresh.append(z2)
        arena.free(y)
        head = arena.alloc(m - 2)
        units = fresh[::-1]


def layout(arena: Arena) -> Table:
    """Allocated ranges, int64[blocks, 2], by address."""
    return np.array(sorted(arena.live.items()), np.int64).reshape(-1, 2)
