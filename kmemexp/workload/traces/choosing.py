"""Which of a recording's streams is played: as recorded, with inferred deaths and births, from an old start."""

from typing import NamedTuple

import numpy as np

from kmemexp.workload.traces import schema as sc

STARTS = ("empty", "recorded")


class Choice(NamedTuple):
    """A stream of a recording."""

    stream: str = "recorded"  # schema.STREAMS
    start: str = "empty"  # STARTS: with the objects that were there before, or without

    @property
    def bit(self) -> int:
        """Bit of the stream in the column `streams`; 0: nothing is added."""
        return {"law": sc.STREAM_LAW, "reconciled": sc.STREAM_RECONCILED}.get(self.stream, 0)


AS_RECORDED = Choice()
OF_ADDED = ("site", "streams", "chance")
"""Fields that only added rows have."""


class Played(NamedTuple):
    """Rows of operations that are played; fields as in track.Rows."""

    time_ns: np.ndarray
    cpu: np.ndarray
    context: np.ndarray
    op: np.ndarray
    object_id: np.ndarray
    requested: np.ndarray
    allocated: np.ndarray
    cache: np.ndarray
    kmalloc: np.ndarray
    nowait: np.ndarray
    site: np.ndarray  # this and what follows: of added rows
    streams: np.ndarray
    chance: np.ndarray

    def rows(self, which: np.ndarray) -> "Played":
        """Select rows."""
        return Played(*(column[which] for column in self))


def choose(
    rows: Played, added: Played, choice: Choice, window_ns: tuple[int, int], draw: np.random.Generator | None
) -> Played:
    """Put the rows of a stream together, in the order in which they are played.

    `rows` as recorded, `added` what the import added. What begins with old objects is the window between the
    snapshots: objects that were born before it are old ones there. With `draw` the deaths that are only likely are
    drawn anew: which of a call site's open lives are over, and when. A proven death takes the place of the lost free
    that shows it.
    """
    if choice == AS_RECORDED:
        return rows
    if choice.start == "recorded":
        rows, added = _between(rows, added, window_ns)
    is_old = (added.op == sc.OLD_ALLOC) | (added.op == sc.OLD_FREE)
    wanted = np.where(is_old, choice.start == "recorded", (added.streams & choice.bit) != 0)
    time_ns = added.time_ns
    if choice.bit:
        born_ns, end_ns = _births(rows, added), int(rows.time_ns.max())
        if draw is not None:
            wanted, time_ns = _drawn(added, wanted, born_ns, end_ns, choice, draw)
    chosen = added._replace(time_ns=time_ns).rows(wanted)
    replaced = chosen.object_id[chosen.op == sc.IMPUTED_FREE]
    gone = (rows.op == sc.LOST_FREE) & np.isin(rows.object_id, replaced)
    return _merged(rows.rows(~gone), chosen)


def _between(rows: Played, added: Played, window_ns: tuple[int, int]) -> tuple[Played, Played]:
    """Keep what happens in the window to objects that are born in it, and the old ones."""
    first, last = window_ns
    is_birth = (rows.op == sc.ALLOC) | (rows.op == sc.KVA_ALLOC)
    known = np.zeros(int(max(rows.object_id.max(initial=0), added.object_id.max(initial=0))) + 1, np.bool_)
    known[rows.object_id[is_birth & (rows.time_ns >= first)]] = True
    known[added.object_id[(added.op == sc.ADDED_ALLOC) & (added.time_ns >= first)]] = True
    known[added.object_id[added.op == sc.OLD_ALLOC]] = True
    kept = [part.rows(known[part.object_id] & (part.time_ns <= last)) for part in (rows, added)]
    return kept[0], kept[1]


def _births(rows: Played, added: Played) -> np.ndarray:
    """Time of birth of each added death's object (int64 by added row)."""
    is_birth = (rows.op == sc.ALLOC) | (rows.op == sc.KVA_ALLOC)
    ids = np.concatenate([rows.object_id[is_birth], added.object_id])
    found = np.zeros(int(ids.max(initial=0)) + 1, np.int64)
    found[rows.object_id[is_birth]] = rows.time_ns[is_birth]
    births: np.ndarray = found[added.object_id]
    return births


def _drawn(
    added: Played, wanted: np.ndarray, born_ns: np.ndarray, end_ns: int, choice: Choice, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw likely deaths anew: which of a call site's there are (law only), and when, as its proven ones."""
    from kmemexp.workload.lives.law import drawn  # noqa: PLC0415 - what is played as recorded needs no law

    wanted, time_ns = wanted.copy(), added.time_ns.copy()
    deaths = np.flatnonzero(added.op == sc.IMPUTED_FREE)
    key = (added.cache[deaths].astype(np.int64) + 1) << 32 | (added.site[deaths] + 1)
    order = np.lexsort((born_ns[deaths], key))
    deaths, key = deaths[order], key[order]
    for group in np.split(deaths, np.flatnonzero(np.diff(key)) + 1):
        likely = group[added.chance[group] < 1]
        proven = group[added.chance[group] >= 1]
        if not len(likely) or not len(proven):
            continue
        if choice.stream == "law":
            wanted[likely] = drawn(added.chance[likely].astype(np.float64), draw.random())
        spans = (time_ns - born_ns)[proven]
        time_ns[likely] = np.minimum(born_ns[likely] + draw.choice(spans, len(likely)), end_ns)
    return wanted, time_ns


def _merged(rows: Played, chosen: Played) -> Played:
    """Merge added rows into recorded ones by time; what is added stands behind what was recorded at the same time.

    An object's death never comes before its birth, wherever clocks of CPUs differ.
    """
    clock = np.maximum.accumulate(rows.time_ns)
    place = np.searchsorted(clock, chosen.time_ns, side="right")
    is_birth = (rows.op == sc.ALLOC) | (rows.op == sc.KVA_ALLOC)
    ids = rows.object_id[is_birth]
    born = np.zeros(int(max(ids.max(initial=0), chosen.object_id.max(initial=0))) + 1, np.int64)
    born[ids] = np.flatnonzero(is_birth) + 1
    place = np.maximum(place, born[chosen.object_id])
    place[chosen.op == sc.OLD_ALLOC] = 0
    order = np.argsort(place, kind="stable")
    chosen, place = chosen.rows(order), place[order]
    at = np.empty(len(rows.op) + len(chosen.op), np.int64)
    at[place + np.arange(len(place))] = len(rows.op) + np.arange(len(place))
    kept = np.ones(len(at), np.bool_)
    kept[place + np.arange(len(place))] = False
    at[kept] = np.arange(len(rows.op))
    joined = Played(*(np.concatenate(columns) for columns in zip(rows, chosen, strict=True)))
    return joined.rows(at)
