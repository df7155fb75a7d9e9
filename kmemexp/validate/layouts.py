"""A model of placement written apart from the arenas: layouts as tuples of blocks, every request sequence tried.

What all sequences of requests can lead to, by policy, in plain Python; slow, and meant to be read. `chains.py` and the
check F4 hold the arenas' own code against it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.sim.aliases import Table
from kmemexp.validate.exhaustive import CELLS, Found

Layout = tuple[tuple[int, int], ...]
"""Blocks (address, size) by address."""
UNBOUNDED = 1 << 20


class State(NamedTuple):
    """A layout, and where next fit begins to look (0 with other policies)."""

    blocks: Layout
    rover: int = 0


def holes(blocks: Layout, end: int) -> list[tuple[int, int]]:
    """Free runs (address, size) up to `end`, by address; the last one is the tail, of size 0 where there is none."""
    found, at = [], 0
    for address, size in blocks:
        if address > at:
            found.append((at, address - at))
        at = address + size
    return [*found, (at, end - at)]


def place(policy: str, state: State, size: int, end: int) -> int:
    """Address that the policy chooses for a request, or -1. Where there is no end, the tail comes last."""
    fits = [(a, n) for a, n in holes(state.blocks, end) if n >= size]
    if policy == "aligned":
        starts = [-(-a // size) * size for a, n in holes(state.blocks, end) if -(-a // size) * size + size <= a + n]
        return min(starts, default=-1)
    if not fits:
        return -1
    inner = [hole for hole in fits if hole[0] + hole[1] < UNBOUNDED] or fits
    if policy == "FF":
        return fits[0][0]
    if policy == "BF":
        return min(inner, key=lambda hole: (hole[1], hole[0]))[0]
    if policy == "WF":
        return max(inner, key=lambda hole: (hole[1], -hole[0]))[0]
    if policy == "NF":
        return next((a for a, _ in inner if a >= state.rover), inner[0][0])
    raise ValueError(f"{policy}: no such policy")


def after(policy: str, state: State, sizes: Sequence[int], limit: int, end: int) -> Iterator[tuple[int, int, State]]:
    """What can happen in a state: (place among the sizes, or their number for a free; address; the state after it)."""
    live = sum(size for _, size in state.blocks)
    for k, size in enumerate(sizes):
        if live + size <= limit and (address := place(policy, state, size, end)) >= 0:
            blocks = tuple(sorted((*state.blocks, (address, size))))
            yield k, address, State(blocks, address + size if policy == "NF" else 0)
    for k, (address, _) in enumerate(state.blocks):
        yield len(sizes), address, State(state.blocks[:k] + state.blocks[k + 1 :], state.rover)


def search(policy: str, sizes: Sequence[int], limit: int, cells: int = 0) -> Found:
    """Everything that can be reached with at most `limit` live cells in `cells` (0: as many as are wanted)."""
    end = cells or UNBOUNDED
    first = State(())
    numbers, todo, edges, worst = {first: 0}, [first], [], 0
    for state in todo:
        for what, address, following in after(policy, state, sizes, limit, end):
            if what < len(sizes):
                worst = max(worst, address + sizes[what])
            if following not in numbers:
                numbers[following] = len(todo)
                todo.append(following)
            edges.append((numbers[state], what, numbers[following]))
    return Found(worst, len(todo), _cells(todo), np.array(edges, np.int64))


def _cells(states: Sequence[State]) -> Table:
    table = np.zeros((len(states), CELLS), np.int64)
    for i, state in enumerate(states):
        for address, size in state.blocks:
            table[i, address] = size
    return table
