"""Who uses a map where: how much of each of its stretches live objects take, by the class that serves them.

What a map has given away and no live object takes is an allocator's (free chunks in slabs and buckets, headers), or was
taken by boot.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmemexp.boot.machine import Machine
from kmemexp.jit import entry
from kmemexp.sim.maps import DIRECT, MAP_NAMES
from kmemexp.sim.slots import SERVED
from kmemexp.sim.spreading import spread
from kmemexp.sim.tables import obj
from kmemexp.workload.stream import CLASS_NAMES, KVA_WIRED, OP_ALLOC, Stream

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
    maps = np.array([machine.map_bases, machine.map_bytes], np.int64).T.copy()
    used = shares(machine.world.objects, user_of(machine.klass), maps, bins)
    for m, rows in zip(machine.maps, used, strict=True):
        for name, row in zip(USERS, rows, strict=True):
            if row.any():
                yield f"{MAP_NAMES[m]}:{name}", np.round(np.minimum(row, 1.0) * 255).astype(np.uint8)


def shares(objects: NDArray[np.int64], user: NDArray[np.int64], maps: NDArray[np.int64], bins: int) -> NDArray[Any]:
    """What live objects of each user take of each of `bins` stretches of maps, float64[maps, len(USERS), bins].

    `user`: of each kind; `maps`: int64[maps, 2], base and bytes of each.
    """
    shape = len(maps), len(USERS), bins + 1
    ends, whole = np.zeros((2, math.prod(shape))), np.zeros(math.prod(shape), np.int64)
    entry(spread)(objects, user, len(USERS), maps, bins, ends, whole)
    covered = whole.astype(np.float64).reshape(shape).cumsum(axis=2)
    found: NDArray[np.float64] = (ends[0] + ends[1]).reshape(shape) + covered
    return found[:, :, :bins]


def enter_kinds(machine: Machine, stream: Stream, begin: int, end: int) -> None:
    """Enter the kinds of what operations begin … end-1 allocated, as the driver with a clock does by itself."""
    born = np.flatnonzero(stream.op[begin:end] == OP_ALLOC) + begin
    machine.world.objects[stream.slot[born], obj.KIND] = stream.kind[born]
