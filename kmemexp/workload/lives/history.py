"""Events of slab objects and pages as an import meets them, and the lives that they show."""

from typing import Any, NamedTuple

import numpy as np

from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.track import Rows

OPEN, SEEN, REUSED = range(3)
"""How a life ends: not in the recording, by a free, or by an allocation at its address (its free left no event)."""

_KEPT = np.isin(
    np.arange(len(sc.OPS)),
    (sc.ALLOC, sc.FREE, sc.LOST_FREE, sc.UNMATCHED_FREE, sc.PAGE_ALLOC, sc.PAGE_FREE, sc.MARK),
)
_TYPES: tuple[type[np.signedinteger[Any]], ...] = (
    np.int64, np.int16, np.int8, np.int8, np.int32, np.int32, np.int32, np.int16, np.int8, np.int32, np.int64, np.int64,
    np.int32,
)  # fmt: skip
_NOTHING = 16  # ZERO_SIZE_PTR


class Events(NamedTuple):
    """Columns of events in file order; fields as in track.Rows. -1: does not apply, or is not known."""

    time_ns: np.ndarray  # int64
    cpu: np.ndarray  # int16
    context: np.ndarray  # int8
    op: np.ndarray  # int8
    object_id: np.ndarray  # int32
    requested: np.ndarray  # int32
    allocated: np.ndarray  # int32
    cache: np.ndarray  # int16
    kmalloc: np.ndarray  # int8
    site: np.ndarray  # int32
    page: np.ndarray  # int64, of pages the frame number
    address: np.ndarray  # int64, of 63 bits
    pages: np.ndarray  # int32; of marks which one it is


class Window(NamedTuple):
    """The events between two snapshots: numbers of the first and of the one after the last."""

    first: int
    end: int


def window(events: Events) -> Window:
    """Find what lies between the recorder's marks; without marks, all of it.

    The counts after are read after the mark, and frees by RCU go on: what is seen until the reading is over counts too.
    """
    before, after, read = (
        np.flatnonzero((events.op == sc.MARK) & (events.pages == which))
        for which in (sc.SNAP_BEFORE, sc.SNAP_AFTER, sc.SNAP_READ)
    )
    after = after[after > (before[0] if len(before) else -1)]
    end = int(after[-1]) if len(after) else len(events.op)
    read = read[read > end]
    return Window(int(before[0]) if len(before) else 0, int(read[0]) if len(read) else end)


def cut(events: Events) -> list[str]:
    """Say where one of the recorder's two marks is missing: then part of what the counts tell is not in the events."""
    begun = bool(np.any((events.op == sc.MARK) & (events.pages == sc.SNAP_BEFORE)))
    ended = window(events).end < len(events.op)
    told = []
    if ended and not begun:
        told.append("the recorder's mark of the beginning is missing: what was done between the counts before and the "
                    "first event is not known")  # fmt: skip
    if begun and not ended:
        told.append("the recorder's mark of the end is missing: what was done between the last event and the counts "
                    "after is not known")  # fmt: skip
    return told


class Gathering:
    """Collects the events of an import, batch by batch."""

    def __init__(self) -> None:
        self._parts: list[Events] = []

    def add(self, rows: Rows) -> None:
        """Keep what is needed of a batch."""
        keep = _KEPT[rows.op] & ~((rows.op == sc.UNMATCHED_FREE) & (rows.address == _NOTHING))
        rows = rows._replace(pages=np.where(rows.op == sc.MARK, rows.vector, rows.pages))
        columns = (getattr(rows, name)[keep] for name in Events._fields)
        clipped = (np.minimum(c, np.iinfo(t).max).astype(t) for c, t in zip(columns, _TYPES, strict=True))
        self._parts.append(Events(*clipped))

    def events(self) -> Events:
        """Return all of them; the parts are given up."""
        columns = [np.concatenate([part[i] for part in self._parts]) for i in range(len(Events._fields))]
        self._parts = []
        return Events(*columns)


class Lives(NamedTuple):
    """One row for each object that the recording saw born, in the order of birth."""

    object_id: np.ndarray  # int32
    born: np.ndarray  # int64, number of the event
    died: np.ndarray  # int64, number of the event of its death; -1 for open lives
    end: np.ndarray  # int8, OPEN, SEEN, REUSED


def lives(events: Events) -> Lives:
    """Find the lives in the events."""
    born = np.flatnonzero(events.op == sc.ALLOC)
    ids = events.object_id[born]
    row_of = np.full(int(ids.max(initial=-1)) + 2, -1, np.int64)
    row_of[ids] = np.arange(len(ids))
    died = np.full(len(born), -1, np.int64)
    end = np.zeros(len(born), np.int8)
    for op, how in ((sc.FREE, SEEN), (sc.LOST_FREE, REUSED)):
        found = np.flatnonzero(events.op == op)
        rows = row_of[events.object_id[found]]
        died[rows] = found
        end[rows] = how
    return Lives(ids, born, died, end)
