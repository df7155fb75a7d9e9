"""What an import adds to a recording: deaths and births that left no event, marked, and how much of it is a guess."""

from typing import Any, NamedTuple

import numpy as np

from kmemexp.workload.lives import history, law, proofs
from kmemexp.workload.lives.history import Events, Lives
from kmemexp.workload.lives.slabs import Slabs
from kmemexp.workload.lives.snapshots import Snapshots
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces import track
from kmemexp.workload.traces.track import Rows


class Known(NamedTuple):
    """A recording's events, and what is known of each."""

    events: Events
    caches: list[str]
    slabs: Slabs
    slab: np.ndarray  # int32 by event, number in `slabs`; -1: none, or not known
    order: np.ndarray  # int8 by slab cache, pages of a slab as a power of two; 0 where it is not known
    lives: Lives
    frame: np.ndarray  # int64 by event, page frame of the object or of the pages


def know(events: Events, caches: list[str], slabs: Slabs, orders: dict[str, int]) -> Known:
    """Find lives, slab caches and frames of a recording's events."""
    found = history.lives(events)
    slab = slabs.of_events(events, caches)
    ended = found.end != history.OPEN
    slab[found.died[ended]] = slab[found.born[ended]]
    is_page = (events.op == sc.PAGE_ALLOC) | (events.op == sc.PAGE_FREE)
    is_object = ~is_page & (events.op != sc.MARK)
    if is_object.any():
        slab = np.where(is_object, proofs.owners(slab, np.where(is_object, events.page, 0), events.op), -1)
    order = np.array([orders.get(name, 0) for name in slabs.names], np.int8)
    base = proofs.first_frame(events.page[events.op == sc.ALLOC], events.page[events.op == sc.PAGE_ALLOC])
    return Known(events, caches, slabs, slab, order, found, np.where(is_page, events.page, events.page - base))


def deaths(known: Known) -> law.Deaths:
    """Find deaths that left no event: the proven ones, and those that the law of their site says."""
    events, lives = known.events, known.lives
    if not len(lives.born):
        return law.deaths(*(np.zeros(0, np.int64),) * 3, np.zeros(0, np.bool_), 0)
    by_event = proofs.dead_by(events.op, events.time_ns, known.slab, known.frame, events.pages, known.order)
    proof = by_event[lives.born]
    reused = lives.end == history.REUSED
    proof[reused] = np.minimum(proof[reused], events.time_ns[lives.died[reused]])
    seen = lives.end == history.SEEN
    site = events.site[lives.born].astype(np.int64) + 1
    key = (known.slab[lives.born].astype(np.int64) + 1) << 32 | site
    _, group = np.unique(key, return_inverse=True)
    born = events.time_ns[lives.born]
    return law.deaths(group.reshape(-1), born, np.maximum(proof, born), seen, int(events.time_ns.max()))


def death_rows(known: Known, found: law.Deaths) -> Rows:
    """Rows of deaths: on the CPU of the birth, or on that which used the address again."""
    events, lives = known.events, known.lives
    born, died = lives.born[found.life], lives.died[found.life]
    both = sc.STREAM_LAW
    return _rows(
        time_ns=found.time_ns,
        cpu=np.where(died >= 0, events.cpu[died], events.cpu[born]),
        op=np.full(len(born), sc.IMPUTED_FREE),
        object_id=events.object_id[born],
        cache=events.cache[born],
        site=events.site[born],
        streams=np.where(found.dies, both, 0),
        chance=found.chance,
    )


class Births(NamedTuple):
    """Births that left no event but whose free did, one row each."""

    free: np.ndarray  # int64, number of the event of the free
    size: np.ndarray  # int32, bytes requested
    granted: np.ndarray  # int32


def births(known: Known, also: np.ndarray) -> Births:
    """Find births right before frees that match nothing: the address had an event of that cache before, or `also`."""
    events = known.events
    unmatched = events.op == sc.UNMATCHED_FREE
    again = proofs.seen_before(events.op, events.address, known.slab)
    rows = np.flatnonzero(unmatched & (again | also) & (known.slab >= 0))
    sizes = sizes_of(known)
    return Births(rows, sizes[known.slab[rows], 0], sizes[known.slab[rows], 1])


def sizes_of(known: Known) -> np.ndarray:
    """Bytes usually requested from each slab cache, and bytes granted (int32[slabs, 2]); 0 where nothing shows them."""
    found = np.zeros((len(known.slabs.names), 2), np.int32)
    born = known.lives.born[known.slab[known.lives.born] >= 0]
    slab, first = np.unique(known.slab[born], return_index=True)
    found[slab, 0] = known.events.requested[born[first]]
    found[slab, 1] = known.events.allocated[born[first]]
    return found


def birth_rows(known: Known, found: Births, first_id: int) -> Rows:
    """Rows of such births and their frees, in pairs, numbered from `first_id` on."""
    keep = found.size > 0
    events, free = known.events, found.free[keep]
    caches = cache_of(known)
    ids = first_id + np.arange(len(free))
    two = np.repeat(free, 2)
    return _rows(
        time_ns=events.time_ns[two],
        cpu=events.cpu[two],
        op=np.tile([sc.ADDED_ALLOC, sc.ADDED_FREE], len(free)),
        object_id=np.repeat(ids, 2),
        requested=np.repeat(found.size[keep], 2),
        allocated=np.repeat(found.granted[keep], 2),
        cache=caches[known.slab[two]],
        streams=np.full(len(two), sc.STREAM_LAW),
        chance=np.ones(len(two)),
    )


def cache_of(known: Known) -> np.ndarray:
    """Cache (its number in the recording) of each slab cache: all of kmalloc's are one."""
    number = {name: i for i, name in enumerate(known.caches)}
    return np.array([number.get(name, number.get(sc.KMALLOC, -1)) for name in known.slabs.names], np.int16)


def _rows(**columns: np.ndarray) -> Rows:
    """Rows with these columns; the others are null."""
    n = len(columns["time_ns"])
    given = {"context": np.zeros(n), "nowait": np.zeros(n), **columns}
    filled = {name: given.get(name, np.full(n, -1)) for name in Rows._fields}
    return Rows(*(c.astype(t) for c, t in zip(filled.values(), track.ROW_TYPES, strict=True)))


def together(parts: list[Rows]) -> Rows:
    """Put added rows in the order of time; what comes first in `parts` is first among equals."""
    joined = Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    order = np.argsort(joined.time_ns, kind="stable")
    return Rows(*(column[order] for column in joined))


def summary(known: Known, found: law.Deaths, added: np.ndarray) -> list[dict[str, Any]]:
    """What of each slab cache was seen, and what is inferred; `added`: births by slab cache (int64)."""
    events, lives = known.events, known.lives
    count = len(known.slabs.names)
    slab = known.slab[lives.born]
    proven, likely = found.chance >= 1, (found.chance < 1) & found.dies
    over = np.zeros(len(lives.born), np.bool_)
    over[found.life[found.dies]] = True
    is_open = (lives.end == history.OPEN) & ~over
    maybe = np.zeros(len(lives.born))
    maybe[found.life[found.chance < 1]] = found.chance[found.chance < 1]
    live = is_open & (slab >= 0)
    size = events.allocated[lives.born].astype(np.int64)

    def by_slab(rows: np.ndarray) -> np.ndarray:
        return np.bincount(slab[rows][slab[rows] >= 0], minlength=count)

    unmatched = known.slab[(events.op == sc.UNMATCHED_FREE) & (known.slab >= 0)]
    columns = {
        "births": by_slab(np.ones(len(slab), np.bool_)),
        "deaths_seen": by_slab(lives.end == history.SEEN),
        "deaths_proven": by_slab(found.life[proven]),
        "deaths_by_law": by_slab(found.life[likely]),
        "unmatched_frees": np.bincount(unmatched, minlength=count),
        "births_added": added,
        "live_at_end": by_slab(is_open),
        "live_bytes": np.bincount(slab[live], size[live], count).astype(np.int64),
        "guessed_bytes": np.bincount(slab[live], (size * np.minimum(maybe, 1 - maybe))[live], count),
    }
    likely_rows = found.life[likely & (slab[found.life] >= 0)]
    columns["guessed_bytes"] = columns["guessed_bytes"] + np.bincount(
        slab[likely_rows], (size * (1 - maybe))[likely_rows], count
    )
    rows: list[dict[str, Any]] = [
        {"cache": name, **{k: int(v[i]) for k, v in columns.items()}}
        for i, name in enumerate(known.slabs.names)
        if columns["births"][i] or columns["unmatched_frees"][i]
    ]
    for row in rows:
        whole = max(row["live_bytes"], row["guessed_bytes"], 1)
        row["guessed_share"] = round(row["guessed_bytes"] / whole, 4)
    return sorted(rows, key=lambda row: -row["births"])


class Inferred(NamedTuple):
    """What an import adds."""

    rows: Rows
    summary: dict[str, Any]
    warnings: list[str]


def reconstruct(events: Events, caches: list[str], next_id: int, snapshots: Snapshots | None) -> Inferred:
    """Infer what a recording does not show. `next_id`: number of the first object that is added."""
    sizes = snapshots.caches if snapshots else {}
    slabs = Slabs(sizes)
    known = know(events, caches, slabs, {name: cache.order for name, cache in sizes.items()})
    found = deaths(known)
    unseen = births(known, np.zeros(len(events.op), np.bool_))
    rows = [death_rows(known, found), birth_rows(known, unseen, next_id)]
    added = np.bincount(known.slab[unseen.free], minlength=len(slabs.names))
    per_cache = summary(known, found, added)
    total = {key: sum(row[key] for row in per_cache) for key in TOTALS}
    share = round(total["guessed_bytes"] / max(total["live_bytes"], total["guessed_bytes"], 1), 4)
    return Inferred(
        together(rows),
        {"streams": ["law"], "start": False, "guessed_share": share, **total, "caches": per_cache},
        _warnings(share),
    )


TOTALS = (
    "births", "deaths_seen", "deaths_proven", "deaths_by_law", "unmatched_frees", "births_added", "live_at_end",
    "live_bytes", "guessed_bytes",
)  # fmt: skip
LARGE_SHARE = 0.05


def _warnings(share: float) -> list[str]:
    if share <= LARGE_SHARE:
        return []
    return [
        f"{share:.0%} of the bytes that live at the end are a guess: frees by bulk or RCU leave no event; compare "
        "workload.stream=recorded with law, and believe only what both say"
    ]
