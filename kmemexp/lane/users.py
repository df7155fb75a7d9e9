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
    objects = machine.world.objects
    live = objects[objects[:, obj.ADDR] >= 0]
    begin, end = live[:, obj.ADDR], live[:, obj.ADDR] + live[:, obj.GRANTED]
    user = user_of(machine.klass)[live[:, obj.KIND]]
    for m, base, nbytes in zip(machine.maps, machine.map_bases, machine.map_bytes, strict=True):
        inside = (begin >= base) & (end <= base + nbytes)
        scale = bins / nbytes
        taken = shares(user[inside], (begin[inside] - base) * scale, (end[inside] - base) * scale, bins)
        for name, row in zip(USERS, taken, strict=True):
            if row.any():
                yield f"{MAP_NAMES[m]}:{name}", np.round(np.minimum(row, 1.0) * 255).astype(np.uint8)


def enter_kinds(machine: Machine, stream: Stream, begin: int, end: int) -> None:
    """Enter the kinds of what operations begin … end-1 allocated, as the driver with a clock does by itself."""
    born = np.flatnonzero(stream.op[begin:end] == OP_ALLOC) + begin
    machine.world.objects[stream.slot[born], obj.KIND] = stream.kind[born]


def shares(
    user: NDArray[np.int64], begin: NDArray[np.float64], end: NDArray[np.float64], bins: int
) -> NDArray[np.float64]:
    """Spread ranges over stretches of length 1: float64[len(USERS), bins], what each user takes of each."""
    first, last = begin.astype(np.int64), np.minimum(end.astype(np.int64), bins - 1)
    row, size = user * (bins + 1), len(USERS) * (bins + 1)
    same = first == last
    total = np.bincount(row + first, np.where(same, end - begin, first + 1 - begin), size)
    total += np.bincount((row + last)[~same], (end - last)[~same], size)
    whole = np.bincount((row + first + 1)[~same], minlength=size) - np.bincount((row + last)[~same], minlength=size)
    parts, covered = (x.astype(np.float64).reshape(len(USERS), bins + 1) for x in (total, whole))
    spread: NDArray[np.float64] = parts + covered.cumsum(axis=1)
    return spread[:, :bins]
