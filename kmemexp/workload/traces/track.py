"""From addresses to objects: which free belongs to which allocation, and what the trace did not see.

The rules are those of the traces' README: events in file order; address 0 is nothing; a free of an address that is
not live was allocated before the trace; an allocation of a live address first frees the old object.
"""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import entry, kernel, ref
from kmemexp.workload.traces import gfp, live
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.fields import DOES
from kmemexp.workload.traces.lines import Lines
from kmemexp.workload.traces.live import Table

ZERO_SIZE = 16  # ZERO_SIZE_PTR: what kmalloc(0) returns
PAGE_SHIFT = 12

# Fields of a live object.
ID = 0
REQUESTED = 1
ALLOCATED = 2
CACHE = 3
FIELDS = 4

# What is carried along besides live objects.
NEXT_ID = 0  # of the next object
NOTHING = 1  # pointer that allocations of no bytes got, if it is hashed
PAST = 2


class Rows(NamedTuple):
    """Columns of schema.SCHEMA as numbers; -1 stands for null."""

    time_ns: np.ndarray  # int64
    cpu: np.ndarray  # int16
    context: np.ndarray  # int8
    op: np.ndarray  # int8
    event: np.ndarray  # int8
    object_id: np.ndarray  # int64
    requested: np.ndarray  # int64
    allocated: np.ndarray  # int64
    cache: np.ndarray  # int16
    nowait: np.ndarray  # bool
    page: np.ndarray  # int64
    pages: np.ndarray  # int32
    vector: np.ndarray  # int32
    kmalloc: np.ndarray  # int8, bits of gfp.py until reading.Reader makes schema.KMALLOC_TYPES of them
    site: np.ndarray  # int32
    streams: np.ndarray  # int8
    chance: np.ndarray  # float32
    address: np.ndarray  # int64, of 63 bits; in Parquet it is `offset`, where in its page it is


ROW_TYPES = (
    np.int64, np.int16, np.int8, np.int8, np.int8, np.int64, np.int64, np.int64, np.int16, np.bool_, np.int64,
    np.int32, np.int32, np.int8, np.int32, np.int8, np.float32, np.int64,
)  # fmt: skip


def rows(n: int) -> Rows:
    """Room for n rows."""
    return Rows(*(np.empty(n, t) for t in ROW_TYPES))


def nothing() -> np.ndarray:
    """Return what is carried along at the beginning of a recording."""
    return np.zeros(PAST, np.int64)


@entry
def track(lines: Lines, count: int, objects: Table, areas: Table, past: np.ndarray, out: Rows) -> int:
    """Turn `count` lines into rows of `out` (room for 2 * count). Returns the rows written.

    `past` is carried along (int64[PAST], from `nothing`).
    """
    lines, objects, areas, out = ref(lines), ref(objects), ref(areas), ref(out)
    n = 0
    for i in range(count):
        does = DOES[lines.event[i]]
        key = lines.address[i]
        is_kva = does in (sc.DO_KVA_ALLOC, sc.DO_KVA_FREE)
        table = areas if is_kva else objects
        if does == sc.DO_ALLOC and lines.requested[i] == 0 and lines.allocated[i] == 0 and key != 0:
            past[NOTHING] = key  # where pointers are hashed, the pointer to nothing is one of them
        is_nothing = key == 0 or (key == past[NOTHING] and key != ZERO_SIZE)
        if (does == sc.DO_ALLOC and not is_nothing and key != ZERO_SIZE) or (
            does == sc.DO_KVA_ALLOC and lines.allocated[i] == 0
        ):
            n = _alloc(lines, i, table, past[NEXT_ID], is_kva, out, n)
            past[NEXT_ID] += 1
        elif (does == sc.DO_FREE and not is_nothing) or does == sc.DO_KVA_FREE:
            n = _free(lines, i, table, is_kva, out, n)
        else:
            _without_object(lines, i, does, key, out, n)
            n += 1
    return n


@kernel
def _without_object(lines: Lines, i: int, does: int, key: int, out: Rows, n: int) -> None:
    """Write the row of a line that touches no object."""
    _common(lines, i, out, n)
    out.op[n] = _plain(does, key)
    if does in (sc.DO_ALLOC, sc.DO_KVA_ALLOC):
        out.requested[n] = lines.requested[i]
        out.cache[n] = lines.cache[i]
        out.nowait[n] = (lines.gfp[i] & gfp.NOWAIT) != 0
        out.allocated[n] = lines.allocated[i] if does == sc.DO_ALLOC else -1
        out.site[n] = lines.site[i]
        out.kmalloc[n] = lines.gfp[i] if does == sc.DO_ALLOC and lines.cache[i] == 0 else -1
    elif does in (sc.DO_PAGE_ALLOC, sc.DO_PAGE_FREE):
        out.page[n] = key
        out.pages[n] = 1 << min(lines.allocated[i], 30)
    elif does != sc.DO_FREE:
        out.vector[n] = lines.vector[i]


@kernel
def _plain(does: int, key: int) -> int:
    """Operation of a line that touches no object."""
    if does == sc.DO_FREE:
        return sc.NULL_FREE
    if does == sc.DO_ALLOC:
        return sc.NULL_ALLOC if key == 0 else sc.ZERO_ALLOC
    if does == sc.DO_KVA_ALLOC:
        return sc.KVA_FAILED
    if does in (sc.DO_ENTER, sc.DO_EXIT):
        return sc.IRQ_ENTER if does == sc.DO_ENTER else sc.IRQ_EXIT
    if does == sc.DO_MARK:
        return sc.MARK
    return sc.PAGE_ALLOC if does == sc.DO_PAGE_ALLOC else sc.PAGE_FREE


@kernel
def _alloc(lines: Lines, i: int, table: Table, number: int, is_kva: bool, out: Rows, n: int) -> int:
    """Enter an object, after the free of what lived at its address. Returns the next row."""
    key = lines.address[i]
    at = live.place(table, key)
    if table.key[at] == key:
        _common(lines, i, out, n)
        out.op[n] = sc.KVA_LOST_FREE if is_kva else sc.LOST_FREE
        out.event[n] = -1
        _object(table, at, key, out, n)
        n += 1
    else:
        live.put(table, at, key)
    item = table.item[at]
    item[ID] = number
    item[REQUESTED] = lines.requested[i]
    item[ALLOCATED] = lines.requested[i] if is_kva else lines.allocated[i]
    item[CACHE] = lines.cache[i]
    _common(lines, i, out, n)
    out.op[n] = sc.KVA_ALLOC if is_kva else sc.ALLOC
    out.nowait[n] = (lines.gfp[i] & gfp.NOWAIT) != 0
    out.site[n] = lines.site[i]
    if not is_kva and lines.cache[i] == 0:
        out.kmalloc[n] = lines.gfp[i]
    _object(table, at, key, out, n)
    return n + 1


@kernel
def _free(lines: Lines, i: int, table: Table, is_kva: bool, out: Rows, n: int) -> int:
    """Remove an object, or note that it is not known. Returns the next row."""
    key = lines.address[i]
    _common(lines, i, out, n)
    at = live.place(table, key)
    if table.key[at] == key:
        out.op[n] = sc.KVA_FREE if is_kva else sc.FREE
        _object(table, at, key, out, n)
        if out.cache[n] == sc.UNNAMED_CACHE and lines.cache[i] > sc.UNNAMED_CACHE:
            out.cache[n] = lines.cache[i]  # kernels that name the cache on the free only
        live.remove(table, at)
    else:
        out.op[n] = sc.KVA_UNMATCHED_FREE if is_kva else sc.UNMATCHED_FREE
        out.cache[n] = lines.cache[i]
        out.page[n] = _page(key)
    if lines.vector[i] != sc.SNAP_READ:
        return n + 1
    _common(lines, i, out, n + 1)
    out.op[n + 1] = sc.MARK
    out.event[n + 1] = out.address[n + 1] = -1
    out.vector[n + 1] = sc.SNAP_READ
    return n + 2


@kernel
def _common(lines: Lines, i: int, out: Rows, n: int) -> None:
    """Fill in what every row has, and null for the rest."""
    out.time_ns[n] = lines.time_ns[i]
    out.cpu[n] = lines.cpu[i]
    out.context[n] = lines.context[i]
    out.event[n] = lines.event[i]
    out.object_id[n] = out.requested[n] = out.allocated[n] = out.page[n] = -1
    out.cache[n] = out.pages[n] = out.vector[n] = out.kmalloc[n] = out.site[n] = out.streams[n] = -1
    out.chance[n] = -1.0
    out.nowait[n] = False
    out.address[n] = lines.address[i]


@kernel
def _object(table: Table, at: int, key: int, out: Rows, n: int) -> None:
    """Fill in what is known of a live object."""
    item = table.item[at]
    out.object_id[n] = item[ID]
    out.requested[n] = item[REQUESTED]
    out.allocated[n] = item[ALLOCATED]
    out.cache[n] = item[CACHE]
    out.page[n] = _page(key)
    last = (key & 4095) + max(item[ALLOCATED], 1) - 1
    out.pages[n] = (last >> PAGE_SHIFT) + 1


@kernel
def _page(key: int) -> int:
    """Page number of an address of 63 bits: the top bit of a canonical address equals the one below it."""
    return (key >> PAGE_SHIFT) | ((key >> 62) & 1) << 51
