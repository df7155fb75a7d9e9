"""Proofs of death: by when an object must be gone, because its memory is seen to be something else.

A page frame that shows an object of another cache, a large request, or an event of the page allocator holds no object
of the cache that it held before (L18: a slab is given back only when it is empty).
"""

import numpy as np

from kmemexp.jit import entry, kernel, ref
from kmemexp.workload.traces import live
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.live import Table

NEVER = np.iinfo(np.int64).max
NO_CACHE = -1  # a frame that is no slab's, or whose cache is not known
DIRECT_MAP = 0xFFFF888000000000 >> 12  # page of frame 0 without address randomisation (x86-64)
_REGION = 1 << 18  # pages of 1 GiB, in which the direct map is moved

# Fields of a frame, read backwards.
_OWNER, _NEXT, _CHANGE = range(3)
_MOST_FRAMES = 1 << 10


def first_frame(pages: np.ndarray, frames: np.ndarray) -> int:
    """Find the page of frame 0: where most pages of objects are frames that the page allocator gave, or slabs.

    `pages`: of objects; `frames`: numbers of frames. Without these the usual place is returned.
    """
    if not len(frames) or not len(pages):
        return DIRECT_MAP
    used, given = np.unique(pages), np.unique(frames)
    lowest = int(used[0]) // _REGION * _REGION
    places = [DIRECT_MAP, *(lowest - i * _REGION for i in range(64))]
    return max(places, key=lambda place: int(np.isin(used - place, given, assume_unique=True).sum()))


def owners(events_slab: np.ndarray, page: np.ndarray, op: np.ndarray) -> np.ndarray:
    """Resolve unmatched frees that name no cache: the cache that last owned the page, else the one that owns it next.

    Returns `events_slab` (int32 by event) completed; -1 where no event shows an owner.
    """
    found = events_slab.copy()
    unknown = (op == sc.UNMATCHED_FREE) & (found < 0)
    if unknown.any():
        for step in (1, -1):
            table = live.with_room(live.table(1), len(np.unique(page)))
            _owners(found, page, unknown, table, step)
    return found


@entry
def _owners(slab: np.ndarray, page: np.ndarray, unknown: np.ndarray, table: Table, step: int) -> None:
    """Go through the events in one direction and give unknown ones the owner of their page."""
    table = ref(table)
    n = len(slab)
    i = 0 if step > 0 else n - 1
    while 0 <= i < n:
        at = live.place(table, page[i] + 1)
        if slab[i] >= 0:
            if table.key[at] == 0:
                live.put(table, at, page[i] + 1)
            table.item[at, 0] = slab[i]
        elif unknown[i] and table.key[at] != 0:
            slab[i] = table.item[at, 0]
        i += step


def dead_by(
    op: np.ndarray, time_ns: np.ndarray, slab: np.ndarray, frame: np.ndarray, frames: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """Find for each birth the time by which its memory was something else (int64 by event; NEVER).

    By event: `slab` (-1: no slab's), `frame` and how many `frames` it touches. By slab cache: `order` of its slabs.
    """
    pages = frames[(op == sc.PAGE_ALLOC) | (op == sc.PAGE_FREE) | (slab < 0)]
    table = live.with_room(live.table(3), len(np.unique(frame)) + int(np.minimum(pages, _MOST_FRAMES).sum()))
    found = np.full(len(op), NEVER)
    if len(op):
        _dead_by(op, time_ns, slab, frame, frames, order, table, found)
    return found


@entry
def _dead_by(
    op: np.ndarray, time_ns: np.ndarray, slab: np.ndarray, frame: np.ndarray, frames: np.ndarray, order: np.ndarray,
    table: Table, found: np.ndarray,
) -> None:  # fmt: skip
    """Go backwards through the events."""
    table = ref(table)
    for j in range(len(op)):
        i = len(op) - 1 - j
        if op[i] in (sc.PAGE_ALLOC, sc.PAGE_FREE):
            for f in range(frame[i], frame[i] + min(frames[i], _MOST_FRAMES)):
                _shows(table, f, NO_CACHE, time_ns[i], True)
            continue
        if op[i] in (sc.MARK, sc.LOST_FREE):
            continue  # a lost free is entered at the time of the birth that shows it
        count = 1 << order[slab[i]] if slab[i] >= 0 else min(frames[i], _MOST_FRAMES)
        base = frame[i] & ~(count - 1) if slab[i] >= 0 else frame[i]
        if op[i] == sc.ALLOC:
            first = NEVER
            for f in range(base, base + count):
                first = min(first, _foreign(table, f, slab[i]))
            found[i] = first
        if slab[i] >= 0:
            _shows(table, frame[i], slab[i], time_ns[i], False)
        elif op[i] == sc.ALLOC:
            for f in range(base, base + count):
                _shows(table, f, NO_CACHE, time_ns[i], True)


@kernel
def _foreign(table: Table, frame: int, slab: int) -> int:
    """Time of the next event that shows a frame as another cache's."""
    at = live.place(table, frame + 1)
    if table.key[at] == 0:
        return NEVER
    same = table.item[at, _OWNER] == slab and slab != NO_CACHE
    return int(table.item[at, _CHANGE] if same else table.item[at, _NEXT])


@kernel
def _shows(table: Table, frame: int, owner: int, time_ns: int, always: bool) -> None:
    """Enter an event that shows a frame's owner; `always`: it proves the end of what was there, whoever comes next."""
    at = live.place(table, frame + 1)
    if table.key[at] == 0:
        if table.used[0] + 1 > live.FULLEST * len(table.key):
            return  # more frames than there can be: what is left out proves nothing
        live.put(table, at, frame + 1)
        table.item[at, _OWNER] = owner
        table.item[at, _CHANGE] = NEVER
    elif always or table.item[at, _OWNER] != owner:
        table.item[at, _CHANGE] = table.item[at, _NEXT]
        table.item[at, _OWNER] = owner
    table.item[at, _NEXT] = time_ns


def seen_before(op: np.ndarray, address: np.ndarray, slab: np.ndarray) -> np.ndarray:
    """Find unmatched frees of an address that had an event of that cache before: a birth in between left none."""
    table = live.with_room(live.table(1), len(np.unique(address)))
    found = np.zeros(len(op), np.bool_)
    if len(op):
        _seen_before(op, address, slab, table, found)
    return found


@entry
def _seen_before(op: np.ndarray, address: np.ndarray, slab: np.ndarray, table: Table, found: np.ndarray) -> None:
    """Go forwards through the events of objects."""
    table = ref(table)
    for i in range(len(op)):
        if op[i] >= sc.PAGE_ALLOC or slab[i] < 0:
            continue
        at = live.place(table, address[i])
        if table.key[at] == 0:
            live.put(table, at, address[i])
        elif op[i] == sc.UNMATCHED_FREE and table.item[at, 0] == slab[i]:
            found[i] = True
        table.item[at, 0] = slab[i]
