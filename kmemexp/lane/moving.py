"""Moving what is mapped for one user alone out of nearly empty superpages: remapping, where nobody holds the address.

A policy names the kinds (`policy.movable`) and how many ranges may move each `move_s` seconds (`moves`). A superpage of
kernel_map is cleared where nothing else is in it and at most a quarter is in use (ASSUMPTION), the emptiest first: each
of its ranges gets other KVA, and its own goes back. A range stays where the arena would put it into the same superpage
or into one that is wholly free.

ASSUMPTION: pipe buffers and u-areas can be mapped elsewhere between two operations (of a process that sleeps). Without
a clock that takes nothing (`moves_count` tells how many there were); with one, `lane/remapping.py` does it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmemexp.boot.machine import Machine
from kmemexp.lane import users
from kmemexp.lane.surveying import picture
from kmemexp.sim.maps import KERNEL
from kmemexp.sim.slots import PAGE, PAGE_SHIFT
from kmemexp.sim.tables import flag, obj, tally
from kmemexp.workload.stream import OP_ALLOC, OP_FREE, Stream

SPARSE = 4  # at most one page in so many of a superpage that is cleared is in use
KEPT = (tally.MAP_OPS, tally.STEPS)
"""Counters that a move counts in as other operations do."""


def look(machine: Machine, kinds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
    """Rows of objects of these kinds; pages in use of each superpage; those to be cleared, the emptiest first."""
    objects, pages = machine.world.objects, machine.superpage_bytes >> PAGE_SHIFT
    size = machine.map_bytes[machine.maps.index(KERNEL)] >> PAGE_SHIFT
    shares = picture(machine, KERNEL, size)
    live = (objects[:, obj.ADDR] >= 0) & np.isin(objects[:, obj.KIND], kinds)
    rows = np.flatnonzero(live)
    first, last = pages_of(objects, rows)
    edges = np.bincount(first, minlength=size + 1) - np.bincount(last, minlength=size + 1)
    movable = edges.cumsum()[:size] > 0
    whole = size // pages * pages
    used, theirs = (x[:whole].reshape(-1, pages).sum(axis=1) for x in (shares > 0, movable))
    sparse = np.flatnonzero((used == theirs) & (used > 0) & (used * SPARSE <= pages))
    return rows, used, sparse[np.argsort(used[sparse], kind="stable")].tolist()


def pages_of(objects: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First page of objects, and the page behind their last."""
    first = objects[rows, obj.ADDR] >> PAGE_SHIFT
    return first, first + (objects[rows, obj.SIZE] + PAGE - 1 >> PAGE_SHIFT)


def lie_in(objects: NDArray[np.int64], rows: NDArray[np.int64], superpage: int, pages: int) -> NDArray[np.bool_]:
    """Which of these objects lie in a superpage of so many pages, at least in part."""
    first, last = pages_of(objects, rows)
    return (first < (superpage + 1) * pages) & (last > superpage * pages)


def is_better(objects: NDArray[np.int64], row: int, superpage: int, used: NDArray[np.int64], pages: int) -> bool:
    """Whether a range lies outside a superpage, and in none that was wholly free."""
    first, last = pages_of(objects, np.array([row]))
    places = np.arange(first[0] // pages, (last[0] - 1) // pages + 1)
    return superpage not in places and bool((used[places] > 0).all())


class Mover:
    """Moves ranges of a lane. Its machine's table of objects has a row more than the stream has slots."""

    def __init__(self, machine: Machine, stream: Stream, policy: Mapping[str, Any]) -> None:
        self._machine, self._stream, self._budget = machine, stream, int(policy["moves"])
        self._kinds = np.flatnonzero([name in policy["movable"] for name in machine.kinds])
        self._pages = machine.superpage_bytes >> PAGE_SHIFT
        self._entered = 0  # operations whose kinds are in the table of objects

    def run(self, at: int) -> int:
        """Clear superpages before operation `at`, as far as the budget goes. Returns the ranges moved."""
        users.enter_kinds(self._machine, self._stream, self._entered, at)
        self._entered = at
        rows, used, sparse = look(self._machine, self._kinds)
        left = self._budget
        for superpage in sparse:
            mine = rows[lie_in(self._machine.world.objects, rows, superpage, self._pages)]
            if len(mine) <= left:
                moved = self._clear(mine, superpage, used)
                left -= moved
                if moved < len(mine):
                    break
        return self._budget - left

    def _clear(self, rows: NDArray[np.int64], superpage: int, used: NDArray[np.int64]) -> int:
        """Move objects out of a superpage until one finds no better place. Returns how many were moved."""
        for moved, row in enumerate(rows.tolist()):
            if not self._move(row, superpage, used):
                return moved
        return len(rows)

    def _move(self, row: int, superpage: int, used: NDArray[np.int64]) -> bool:
        """Give an object another range, if one can be had that opens no superpage."""
        objects, counters = self._machine.world.objects, self._machine.world.counters
        spare = np.array([len(objects) - 1])
        before = counters.copy()
        self._play(OP_ALLOC, row)
        better = bool(objects[spare[0], obj.ADDR] >= 0)
        if better:
            better = is_better(objects, int(spare[0]), superpage, used, self._pages)
        if better:
            objects[[row, spare[0]], obj.ADDR] = objects[[spare[0], row], obj.ADDR]
            before[tally.MOVES] += 1
            before[tally.MOVED] += objects[row, obj.SIZE]
        self._play(OP_FREE, row)
        before[list(KEPT)] = counters[list(KEPT)]
        counters[:] = before
        return better

    def _play(self, op: int, row: int) -> None:
        """Take or give back what an object takes, in the spare row of the table."""
        machine, objects = self._machine, self._machine.world.objects
        one = (
            np.array([op], np.uint8),
            objects[[row], obj.KIND].astype(np.int16),
            np.array([len(objects) - 1], np.int32),
            objects[[row], obj.SIZE].astype(np.int32),
            np.array([machine.cpus - 1], np.int16),
            np.array([flag.NOWAIT], np.uint8),
        )
        machine.replay(machine.world, *one, 0, 1)
