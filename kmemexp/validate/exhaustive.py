"""All sequences of requests to a small arena, by breadth-first search through the arena's own compiled code.

A template, bound to an arena like a driver: the whole search runs compiled. States are the arena's own arrays, copied
in and out by `save` and `load`; two states are equal where the layouts are, and the rover of next fit.
"""

import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from kmemexp import jit
from kmemexp.jit import kernel, template
from kmemexp.sim.aliases import Table, Words, int64
from kmemexp.sim.slots import ATTR_SINGLE, PAGE, map_alloc, map_free

CELLS = 24  # base 5 to the 24th fits into 63 bits
LARGEST = 4


class Search(NamedTuple):
    """Memory of a search."""

    queue: Table  # int32[states, width], saved arenas
    cells: Table  # int8[states, CELLS], size of the block that begins in a cell
    key: Words  # int64[slots], hash table: layout
    rover: Words  # int64[slots]
    number: Words  # int32[slots], of the state
    edges: Table  # int32[edges, 3]: state, what (place among the sizes; number of sizes: a free), state after it
    sizes: Words  # int64[sizes]


def save(st: Any, row: Words) -> None:
    """Copy an arena's arrays into a row."""
    raise NotImplementedError


def load(st: Any, row: Words) -> None:
    """Copy them back."""
    raise NotImplementedError


def rover_of(st: Any) -> int:
    """What decides placement besides the layout; 0: nothing."""
    raise NotImplementedError


@template
def explore(st: Any, search: Search, limit: int, aligned: bool) -> tuple[int, int, int]:
    """Play everything with at most `limit` live cells.

    Returns worst high water, states and edges; requests that found no room have none. Worst is -1: no memory left.
    """
    save(st, search.queue[0])
    entered(search, 0, rover_of(st))
    states, at, worst, edges = 1, 0, 0, 0
    while at < states:
        live = 0
        for cell in range(CELLS):
            live += search.cells[at, cell]
        for k in range(len(search.sizes) + CELLS):
            load(st, search.queue[at])
            if states == len(search.queue) or edges == len(search.edges):
                return -1, states, edges
            for cell in range(CELLS):
                search.cells[states, cell] = search.cells[at, cell]
            if k < len(search.sizes):
                size = search.sizes[k]
                if live + size > limit:
                    continue
                addr = map_alloc(st, 0, size * PAGE, (size if aligned else 1) * PAGE, ATTR_SINGLE, 0)
                if addr < 0:
                    continue
                addr //= PAGE
                worst = max(worst, addr + size)
                search.cells[states, addr] = size
            else:
                cell = k - len(search.sizes)
                size = int64(search.cells[at, cell])
                if size == 0:
                    continue
                map_free(st, 0, cell * PAGE, size * PAGE, 0)
                search.cells[states, cell] = 0
            found = entered(search, states, rover_of(st))
            if found == states:
                save(st, search.queue[states])
                states += 1
            search.edges[edges, 0], search.edges[edges, 1] = at, min(k, len(search.sizes))
            search.edges[edges, 2] = found
            edges += 1
        at += 1
    return worst, states, edges


@kernel
def entered(search: Search, i: int, rover: int) -> int:
    """Number of the state with the layout of state `i`: an earlier one, or i, which is then entered."""
    key = np.int64(0)
    for cell in range(CELLS):
        key = key * (LARGEST + 1) + search.cells[i, cell]
    slots = len(search.key)
    at = ((key ^ (rover * 7919)) * 2654435761 >> 11) % slots
    while search.key[at] >= 0:
        if search.key[at] == key and search.rover[at] == rover:
            return int(search.number[at])
        at = (at + 1) % slots
    search.key[at], search.rover[at], search.number[at] = key, rover, i
    return i


@functools.cache
def bound(module: ModuleType, copies: ModuleType) -> Callable[..., tuple[int, int, int]]:
    """The search for one arena; `copies` has its save, load and rover_of."""
    parts = {name: getattr(module, name) for name in ("map_alloc", "map_free")}
    parts |= {name: getattr(copies, name) for name in ("save", "load", "rover_of")}
    return jit.bind(explore, parts, f"{module.__name__},{copies.__name__}")


class Found(NamedTuple):
    """What a search has found."""

    worst: int  # high water
    states: int
    cells: Table  # int8[states, CELLS]
    edges: Table  # int32[edges, 3]


def search(
    module: ModuleType, copies: ModuleType, sizes: Sequence[int], limit: int, *, cells: int = CELLS,
    aligned: bool = False, states: int = 150_000, **params: int,
) -> Found:  # fmt: skip
    """Play all sequences of requests with at most `limit` live cells in an arena of `cells`."""
    st = module.init(module.Params(**params), kva_bytes=cells * PAGE, cpus=1, maps=1)
    slots = 4 * states
    memory = Search(
        np.zeros((states, copies.WIDTH), np.int32),
        np.zeros((states, CELLS), np.int8),
        np.full(slots, -1, np.int64),
        np.zeros(slots, np.int64),
        np.zeros(slots, np.int32),
        np.zeros((10 * states, 3), np.int32),
        np.array(sizes, np.int64),
    )
    worst, found, edges = bound(module, copies)(st, memory, limit, aligned)
    if worst < 0:
        raise RuntimeError(f"more than {states} states")
    return Found(int(worst), int(found), memory.cells[:found], memory.edges[:edges])
