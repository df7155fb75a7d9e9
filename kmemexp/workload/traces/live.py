"""Table of live objects: open addressing with linear probing, and deletion that leaves no tombstones behind."""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import entry, kernel, ref

SMALLEST = 1 << 12
FULLEST = 0.5  # load above which the table is doubled


class Table(NamedTuple):
    """Live objects by key; a key is an address or a number > 0, 0 marks an empty place."""

    key: np.ndarray  # int64[places], places a power of two
    item: np.ndarray  # int64[places, fields], what is known of the object
    used: np.ndarray  # int64[1]


def table(fields: int, places: int = SMALLEST) -> Table:
    """Return an empty table whose objects have so many fields."""
    return Table(np.zeros(places, np.int64), np.zeros((places, fields), np.int64), np.zeros(1, np.int64))


def with_room(t: Table, more: int) -> Table:
    """Return this table, or a larger copy if `more` further objects would fill it too much."""
    places = len(t.key)
    while t.used[0] + more > FULLEST * places:
        places *= 2
    if places == len(t.key):
        return t
    larger = table(t.item.shape[1], places)
    _refill(t, larger)
    return larger


@entry
def _refill(source: Table, target: Table) -> None:
    """Enter every object of one table into another."""
    source, target = ref(source), ref(target)
    for i in range(len(source.key)):
        if source.key[i] != 0:
            j = place(target, source.key[i])
            put(target, j, source.key[i])
            _copy(source, i, target, j)


@kernel
def _copy(source: Table, i: int, target: Table, j: int) -> None:
    """Copy the fields of an object."""
    for f in range(source.item.shape[1]):
        target.item[j, f] = source.item[i, f]


@kernel
def home(key: int, mask: int) -> int:
    """Place where a key wants to be. The product of 31 and 29 bits stays within an int64."""
    return ((((key >> 3) ^ (key >> 34)) & 0x7FFFFFFF) * 0x1E3779B1 >> 20) & mask


@kernel
def place(t: Table, key: int) -> int:
    """Place of a key, or the empty place where it belongs."""
    mask = len(t.key) - 1
    i = home(key, mask)
    while t.key[i] not in (0, key):
        i = (i + 1) & mask
    return i


@kernel
def put(t: Table, i: int, key: int) -> None:
    """Enter a key at the empty place that `place` gave."""
    t.key[i] = key
    t.used[0] += 1


@kernel
def remove(t: Table, i: int) -> None:
    """Empty place i and move up what was pushed past it."""
    mask = len(t.key) - 1
    t.used[0] -= 1
    j = i
    while True:
        t.key[i] = 0
        while True:
            j = (j + 1) & mask
            if t.key[j] == 0:
                return
            wanted = home(t.key[j], mask)
            # Stay if the wanted place lies cyclically in (i, j].
            if (j - wanted) & mask < (j - i) & mask:
                continue
            break
        t.key[i] = t.key[j]
        _copy(t, j, t, i)
        i = j
