"""Random loads on an arena, compiled: a template that is bound to an arena like a driver."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from kmemexp import jit
from kmemexp.jit import template
from kmemexp.sim.aliases import Shares, Table, Words
from kmemexp.sim.slots import ATTR_PAGEABLE, ATTR_SINGLE, PAGE, map_alloc, map_free, map_measure
from kmemexp.sim.tables import gauge

NOTED = 4  # sums: looks, holes below the tail, allocations that left a remainder, times that address 0 was free


@template
def replace(st: Any, blocks: Table, sizes: Words, victims: Words, every: int, totals: Words, sums: Words) -> int:
    """Free a block and allocate another one, for each of `sizes`; look at the map every so many times.

    `blocks`: int64[n, 2], address (-1: none yet) and size in pages. Returns 0, or -1 where the arena was too small.
    """
    at_zero = False
    for k in range(len(sizes)):
        v = victims[k]
        look = every > 0 and k % every == 0
        if blocks[v, 0] >= 0:
            map_free(st, 0, blocks[v, 0] * PAGE, blocks[v, 1] * PAGE, 0)
            at_zero = at_zero and blocks[v, 0] != 0
        if look:
            map_measure(st, 0, totals)
        before = totals[gauge.HOLES]
        addr = map_alloc(st, 0, sizes[k] * PAGE, PAGE, ATTR_SINGLE, 0)
        if addr < 0:
            return -1
        blocks[v, 0], blocks[v, 1] = addr // PAGE, sizes[k]
        at_zero = at_zero or addr == 0
        if look:
            map_measure(st, 0, totals)
            sums[0] += 1
            sums[1] += totals[gauge.HOLES] - 1
            sums[2] += totals[gauge.HOLES] >= before
            sums[3] += not at_zero
    return 0


@template
def birth_death(
    st: Any, arrives: Words, which: Words, gaps: Shares, addrs: Words, slots: Words, busy: Shares, live: int
) -> int:
    """One page per object, M/M/infinity: `arrives[k]` or the `which[k]`-th live one leaves, after `gaps[k]`.

    `busy[j]`: time that the j-th page was allocated. `addrs`: pages of live objects; `slots`: whether a page is.
    `live`: how many there are when it begins. Returns how many there are at the end.
    """
    for k in range(len(arrives)):
        for j in range(len(busy)):
            if slots[j]:
                busy[j] += gaps[k]
        if arrives[k]:
            page = map_alloc(st, 0, PAGE, PAGE, ATTR_SINGLE, 0) // PAGE
            addrs[live] = page
            slots[page] = 1
            live += 1
        else:
            at = which[k]
            map_free(st, 0, addrs[at] * PAGE, PAGE, 0)
            slots[addrs[at]] = 0
            live -= 1
            addrs[at] = addrs[live]
    return live


@template
def exchange(st: Any, addrs: Words, which: Words, cpus: Words, gives: int) -> int:
    """Free, or allocate, movable pages one by one: number `which[k]` of `addrs` by CPU `cpus[k]`. Returns 0, or -1."""
    for k in range(len(which)):
        at = which[k]
        if gives:
            map_free(st, 0, addrs[at], PAGE, cpus[k])
            addrs[at] = -1
        else:
            addrs[at] = map_alloc(st, 0, PAGE, PAGE, ATTR_PAGEABLE, cpus[k])
            if addrs[at] < 0:
                return -1
    return 0


def births_and_deaths(rng: np.random.Generator, load: float, events: int) -> tuple[Words, Words, Shares]:
    """Draw what `birth_death` plays: arrivals at rate `load`, each of which stays for a mean of 1. From nothing on."""
    arrives, which = np.zeros(events, np.int8), np.zeros(events, np.int64)
    gaps, draws = rng.exponential(1, events), rng.random((2, events))
    live = 0
    for k in range(events):
        gaps[k] /= load + live
        arrives[k] = draws[0, k] * (load + live) < load
        if arrives[k]:
            live += 1
        else:
            which[k] = int(draws[1, k] * live)
            live -= 1
    return arrives, which, gaps


@functools.cache
def bound(function: Callable[..., int], module: ModuleType) -> Callable[..., int]:
    """One of these, for one arena."""
    names = [name for name in ("map_alloc", "map_free", "map_measure") if name in function.__code__.co_names]
    return jit.bind(function, {name: getattr(module, name) for name in names}, module.__name__)


class Churn:
    """A fixed number of live blocks of random sizes, one of which is replaced again and again."""

    def __init__(self, module: ModuleType, blocks: int, pages: int, **params: int) -> None:
        self.state = module.init(module.Params(**params), kva_bytes=pages * PAGE, cpus=1, maps=1)
        self.blocks = np.full((blocks, 2), -1, np.int64)
        self.run = bound(replace, module)
        self.totals = np.zeros(gauge.COLUMNS, np.int64)

    def play(self, sizes: Words, victims: Words, every: int = 0) -> Shares:
        """Replace a block for each size. Returns means of what was noted, float64[3]."""
        sums = np.zeros(NOTED, np.int64)
        if self.run(self.state, self.blocks, sizes, victims, every, self.totals, sums) != 0:
            raise RuntimeError("too small an arena")
        means: Shares = sums[1:] / max(sums[0], 1)
        return means
