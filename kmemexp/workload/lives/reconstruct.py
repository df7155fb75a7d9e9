"""What an import adds to a recording: deaths and births that left no event, marked, and how much of it is a guess."""

from typing import Any, NamedTuple

import numpy as np

from kmemexp.workload.lives import hindsight, history, law, prologue, proofs
from kmemexp.workload.lives.added import filled, together
from kmemexp.workload.lives.before import Reconciled, beginning, counted, ended
from kmemexp.workload.lives.history import Events
from kmemexp.workload.lives.known import Known, know
from kmemexp.workload.lives.slabs import Slabs
from kmemexp.workload.lives.snapshots import Snapshots
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.track import Rows


def deaths(known: Known, after: np.ndarray | None = None) -> law.Deaths:
    """Find deaths that left no event: the proven ones, and those that the law of their site says.

    `after`: a map of slab pages after the recording; what it has no slab for is dead by then.
    """
    events, lives = known.events, known.lives
    if not len(lives.born):
        return law.deaths(*(np.zeros(0, np.int64),) * 3, np.zeros(0, np.bool_), 0)
    by_event = proofs.dead_by(events.op, events.time_ns, known.slab, known.frame, events.pages, known.order)
    proof = by_event[lives.born]
    reused = lives.end == history.REUSED
    proof[reused] = np.minimum(proof[reused], events.time_ns[lives.died[reused]])
    if after is not None:
        window = history.window(events)
        gone = np.flatnonzero((lives.born < window.end) & (known.slab[lives.born] >= 0) & (lives.died < 0))
        slab = known.slab[lives.born[gone]]
        base = hindsight.base_of(known.frame[lives.born[gone]], known.order[slab])
        gone = gone[~hindsight.is_slab(after, base, known.order[slab])]
        proof[gone] = np.minimum(proof[gone], events.time_ns[window.end - 1])
    seen = lives.end == history.SEEN
    site = events.site[lives.born].astype(np.int64) + 1
    key = (known.slab[lives.born].astype(np.int64) + 1) << 32 | site
    _, group = np.unique(key, return_inverse=True)
    born = events.time_ns[lives.born]
    return law.deaths(group.reshape(-1), born, np.maximum(proof, born), seen, int(events.time_ns.max()))


def death_rows(known: Known, found: law.Deaths, said: Reconciled | None) -> Rows:
    """Rows of deaths: on the CPU of the birth, or on that which used the address again."""
    put = ended(known, found, np.ones(len(found.life), np.bool_))
    bits = np.where(found.dies, sc.STREAM_LAW, 0)
    parts = [(put, bits, found.chance)]
    if said:
        proven = found.chance >= 1
        bits |= np.where(proven | np.isin(found.life, said.ended.life), sc.STREAM_RECONCILED, 0)
        more = said.ended.of(~np.isin(said.ended.life, found.life))
        parts.append((more, np.full(len(more.life), sc.STREAM_RECONCILED), np.zeros(len(more.life), np.float32)))
    lives = known.lives
    made = []
    for each, streams, chance in parts:
        born = lives.born[each.life]
        made.append(
            filled(
                time_ns=each.time_ns, cpu=each.cpu, op=np.full(len(born), sc.IMPUTED_FREE),
                object_id=known.events.object_id[born], cache=known.events.cache[born],
                site=known.events.site[born], streams=streams, chance=chance,
            )
        )  # fmt: skip
    return together(made)


class Births(NamedTuple):
    """Births that left no event but whose free did, one row each."""

    free: np.ndarray  # int64, number of the event of the free
    size: np.ndarray  # int32, bytes requested
    granted: np.ndarray  # int32


def births(known: Known, new_frees: np.ndarray, bytes_of: np.ndarray) -> Births:
    """Find births right before frees that match nothing: the address had an event of that cache before.

    `new_frees`: events of frees of what was not there before, which were born unseen too. `bytes_of`: by slab cache,
    bytes requested and granted (int32[caches, 2]).
    """
    again = proofs.seen_before(known.events.op, known.events.address, known.slab)
    again[new_frees] = True
    rows = np.flatnonzero((known.events.op == sc.UNMATCHED_FREE) & again & (known.slab >= 0))
    return Births(rows, bytes_of[known.slab[rows], 0], bytes_of[known.slab[rows], 1])


def birth_rows(known: Known, found: Births, first_id: int, caches: np.ndarray) -> Rows:
    """Rows of such births and their frees, in pairs, numbered from `first_id` on. `caches`: by slab cache."""
    keep = found.size > 0
    events, free = known.events, found.free[keep]
    ids = first_id + np.arange(len(free))
    two = np.repeat(free, 2)
    return filled(
        time_ns=events.time_ns[two],
        cpu=events.cpu[two],
        op=np.tile([sc.ADDED_ALLOC, sc.ADDED_FREE], len(free)),
        object_id=np.repeat(ids, 2),
        requested=np.repeat(found.size[keep], 2),
        allocated=np.repeat(found.granted[keep], 2),
        cache=caches[known.slab[two]],
        kmalloc=prologue.kmalloc_sets(known)[known.slab[two]],
        streams=np.full(len(two), sc.STREAM_LAW | sc.STREAM_RECONCILED),
        chance=np.ones(len(two)),
    )


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


def known_of(events: Events, caches: list[str], snapshots: Snapshots | None) -> Known:
    """Find what is known of a recording's events; the caches of a snapshot are numbered first."""
    sizes = snapshots.caches if snapshots else {}
    slabs = Slabs(sizes)
    for name in snapshots.before.counts if snapshots else ():
        slabs.number(name)
    maps = [s.bitmap for s in (snapshots.before, snapshots.after) if s and s.bitmap is not None] if snapshots else []
    frames = np.concatenate([np.flatnonzero(bitmap) for bitmap in maps]) if maps else None
    return know(events, caches, slabs, {name: cache.order for name, cache in sizes.items()}, frames)


def reconstruct(events: Events, caches: list[str], next_id: int, snapshots: Snapshots | None) -> Inferred:
    """Infer what a recording does not show. `next_id`: number of the first object that is added.

    `caches` gets the names of caches of which only a snapshot tells.
    """
    known = known_of(events, caches, snapshots)
    sizes, slabs = (snapshots.caches if snapshots else {}), known.slabs
    after = snapshots.after.bitmap if snapshots and snapshots.after and not known.hashed else None
    found = deaths(known, after)
    start = beginning(known, snapshots, after) if snapshots and len(events.op) and not known.hashed else None
    said = counted(known, start, found, snapshots) if start and snapshots and snapshots.after else None
    number = prologue.cache_numbers(known)
    bytes_of = prologue.sizes(known, sizes)
    unseen = births(known, start.new_frees if start else np.zeros(0, np.int64), bytes_of)
    rows = [death_rows(known, found, said), birth_rows(known, unseen, next_id, number)]
    next_id += len(unseen.free)
    if said and start:
        rows.append(prologue.unseen_births(known, start, said, next_id, number, bytes_of))
        next_id += sum(said.births.values())
    old = prologue.old_rows(known, start, sizes, next_id, number, bytes_of) if start else None
    added = np.bincount(known.slab[unseen.free], minlength=len(slabs.names))
    per_cache = summary(known, found, added)
    _with_counts(per_cache, said)
    total = {key: sum(row.get(key, 0) for row in per_cache) for key in TOTALS}
    share = round(total["guessed_bytes"] / max(total["live_bytes"], total["guessed_bytes"], 1), 4)
    about: dict[str, Any] = {"streams": ["law", "reconciled"] if said else ["law"], "start": old is not None}
    if start and old:
        clock = start.lived.clock
        about["window_ns"] = [int(clock[start.window.first]), int(clock[start.window.end - 1])]
        at_start = old.op[old.time_ns < about["window_ns"][0]]
        about["old_objects"] = int(np.sum(at_start == sc.OLD_ALLOC) - np.sum(at_start == sc.OLD_FREE))
        rows.insert(0, old)
    whole = together(rows)
    about["added"] = {name: int(n) for name, n in zip(sc.OPS, np.bincount(whole.op, minlength=len(sc.OPS)), strict=True)
                      if n}  # fmt: skip
    return Inferred(
        whole, {**about, "guessed_share": share, **total, "caches": per_cache}, _warnings(share, known.hashed)
    )


def _with_counts(per_cache: list[dict[str, Any]], said: Reconciled | None) -> None:
    """Enter by cache what the counts after said."""
    known = {cache["cache"]: cache for cache in per_cache}
    for row in said.rows if said else ():
        if row.cache not in known and row.births_added:
            known[row.cache] = {"cache": row.cache, **dict.fromkeys(TOTALS, 0), "guessed_share": 0.0}
            per_cache.append(known[row.cache])
        if cache := known.get(row.cache):
            cache["births_by_counts"], cache["deaths_by_counts"] = row.births_added, row.deaths_added


TOTALS = (
    "births", "deaths_seen", "deaths_proven", "deaths_by_law", "unmatched_frees", "births_added", "births_by_counts",
    "deaths_by_counts", "live_at_end", "live_bytes", "guessed_bytes",
)  # fmt: skip
LARGE_SHARE = 0.05


HASHED = (
    "pointers are hashed: only the reuse of an address proves a death, and snapshots cannot be used; record with real "
    "ones (`echo 0 > options/hash-ptr` in tracefs, or boot with no_hash_pointers)"
)


def _warnings(share: float, hashed: bool) -> list[str]:
    found = [HASHED] if hashed else []
    if share <= LARGE_SHARE:
        return found
    return [
        *found,
        f"{share:.0%} of the bytes that live at the end are a guess: frees by bulk or RCU leave no event; compare "
        "workload.stream=recorded with law, and believe only what both say",
    ]
