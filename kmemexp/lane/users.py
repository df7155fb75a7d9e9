"""Who uses a map where: how much of each of its stretches live objects take, by the class that serves them.

What a map has given away and no live object takes is an allocator's (free chunks in slabs and buckets, headers), or was
taken by boot.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kmemexp.boot.machine import Machine
from kmemexp.sim.maps import DIRECT, MAP_NAMES
from kmemexp.sim.slots import SERVED
from kmemexp.sim.tables import obj
from kmemexp.workload.stream import CLASS_NAMES, KVA_WIRED, OP_ALLOC, Stream

PART = 1 << 16  # objects that are looked at in one go
USERS = (*SERVED, "mapped", "wired")
"""malloc, zones, mbufs; what is mapped for its own sake, and what of that is wired."""


def user_of(klass: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number of the user (USERS) by class of kinds."""
    by_class = np.minimum(np.arange(len(CLASS_NAMES)), USERS.index("mapped"))
    by_class[KVA_WIRED] = USERS.index("wired")
    numbers: NDArray[np.int64] = by_class[klass]
    return numbers


def pictures(machine: Machine, bins: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Give names `map:user` with pictures, uint8[bins]: the share of each stretch that live objects take, of 255.

    Without a picture are users that a map does not have, and machines with a direct map, where an address is no KVA.
    """
    if DIRECT in machine.maps:
        return
    user = user_of(machine.klass)
    for m, base, nbytes in zip(machine.maps, machine.map_bases, machine.map_bytes, strict=True):
        spread = Shares(bins)
        for objects in _in_parts(machine.world.objects):
            begin, end = objects[:, obj.ADDR], objects[:, obj.ADDR] + objects[:, obj.GRANTED]
            inside = (begin >= 0) & (begin >= base) & (end <= base + nbytes)
            scale = bins / nbytes
            mine = user[objects[inside, obj.KIND]]
            spread.add(mine, (begin[inside] - base) * scale, (end[inside] - base) * scale)
        for name, row in zip(USERS, spread.rows(), strict=True):
            if row.any():
                yield f"{MAP_NAMES[m]}:{name}", np.round(np.minimum(row, 1.0) * 255).astype(np.uint8)


def _in_parts(objects: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Give the rows in pieces: what is made of them takes more memory than they do."""
    return (objects[at : at + PART] for at in range(0, len(objects), PART))


def enter_kinds(machine: Machine, stream: Stream, begin: int, end: int) -> None:
    """Enter the kinds of what operations begin … end-1 allocated, as the driver with a clock does by itself."""
    born = np.flatnonzero(stream.op[begin:end] == OP_ALLOC) + begin
    machine.world.objects[stream.slot[born], obj.KIND] = stream.kind[born]


class Shares:
    """What each user takes of each of `bins` stretches of length 1, of ranges that come one after the other."""

    def __init__(self, bins: int) -> None:
        self._bins = bins
        shape = len(USERS) * (bins + 1)
        self._ends = np.zeros((2, shape))  # what ranges take of the stretches that they begin and end in
        self._whole = np.zeros(shape, np.int64)  # where those that they cover begin (+) and end (-)

    def add(self, user: NDArray[np.int64], begin: NDArray[np.floating], end: NDArray[np.floating]) -> None:
        """Spread ranges over the stretches."""
        first, last = begin.astype(np.int64), np.minimum(end.astype(np.int64), self._bins - 1)
        row = user * (self._bins + 1)
        same = first == last
        np.add.at(self._ends[0], row + first, np.where(same, end - begin, first + 1 - begin))
        np.add.at(self._ends[1], (row + last)[~same], (end - last)[~same])
        np.add.at(self._whole, (row + first + 1)[~same], 1)
        np.add.at(self._whole, (row + last)[~same], -1)

    def rows(self) -> NDArray[np.float64]:
        """Give them, float64[len(USERS), bins]."""
        shape = len(USERS), self._bins + 1
        covered = self._whole.astype(np.float64).reshape(shape).cumsum(axis=1)
        spread: NDArray[np.float64] = (self._ends[0] + self._ends[1]).reshape(shape) + covered
        return spread[:, : self._bins]
