"""Which slabs a recorded kernel has at the end: using nothing from after, its object counts, or a map from before."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kmemexp.errors import TraceError
from kmemexp.predict import around
from kmemexp.predict.playing import One, slabs_at_the_end
from kmemexp.workload.lives import before, history, reconcile, reconstruct, snapshots
from kmemexp.workload.lives.before import Beginning, Reconciled
from kmemexp.workload.lives.known import Known
from kmemexp.workload.lives.law import Deaths
from kmemexp.workload.lives.snapshots import Snapshots
from kmemexp.workload.traces import meta, source
from kmemexp.workload.traces.reading import Progress, Reader


class Method(NamedTuple):
    """A way to predict."""

    name: str  # column of the table
    letter: str
    uses: str


LAW = Method("law", "D", "nothing from after")
COUNTS = Method("counts", "F", "object counts of after")
MAP = Method("map", "K", "a map of slab pages from before")
PLAIN = Method("plain", "N", "object counts of after, and no allocator")


class Predicted(NamedTuple):
    """What is predicted of a recording, by cache of its snapshots."""

    names: list[str]
    order: np.ndarray  # int64
    before: np.ndarray  # int64, slabs
    after: np.ndarray
    slabs: dict[Method, np.ndarray]  # at the end
    lives: dict[str, dict[str, int]]  # what of each cache was seen and inferred
    births_by_counts: np.ndarray  # int64
    deaths_by_counts: np.ndarray
    ends: tuple[int, int, int]  # lives that end by a free, by another birth at their address, not at all
    guessed_share: float  # of births: those whose death is a guess
    around: Sequence[str] = ()  # what the snapshots say besides slabs, in sentences


def predict(path: Path, prefix: str = "", progress: Progress | None = None) -> Predicted:
    """Predict the slabs of a recording's kernel: text, with snapshots beside it or at `prefix`, or an import of both.

    Raises TraceError where there is no snapshot from before and after, or no slab can be told from its address.
    """
    if source.is_parquet(path):
        _check_addresses(path)
    taken = snapshots.find(path, prefix)
    if taken is None or taken.after is None:
        raise TraceError(
            f"{path}: there are no counts from before and after in it, beside it or at --snapshots PREFIX: "
            "PREFIX.before.slabinfo and PREFIX.after.slabinfo (`trace record` takes them, `trace import` keeps them)"
        )
    gathering, reader, kva = history.Gathering(), Reader(path, progress), around.Areas()
    for rows in reader.batches():
        gathering.add(rows)
        kva.add(rows)
    known = reconstruct.known_of(gathering.events(), reader.names, taken)
    if known.hashed:
        raise TraceError(f"{path}: {reconstruct.HASHED}")
    if not len(known.lives.born):
        raise TraceError(f"{path}: holds no allocation of a slab object: there is nothing to predict from")
    said = [*history.cut(known.events), *around.lines(taken, kva.more)]
    return predicted(known, taken)._replace(around=said)


def _check_addresses(path: Path) -> None:
    """Raise TraceError where an imported recording does not say at which addresses objects lay."""
    file, about = meta.open_parquet(path)
    lacks = ""
    if about.get("compact"):
        lacks = "was imported in compact form"
    elif "offset" not in file.schema_arrow.names:
        lacks = f"was imported by an earlier version (schema {about['schema_version']})"
    if lacks:
        raise TraceError(
            f"{path}: {lacks}, without the addresses of objects (column `offset`), which a prediction needs: "
            "import the text again, without --compact, or predict from the text"
        )


def predicted(known: Known, taken: Snapshots) -> Predicted:
    """Predict from events and snapshots: the caches of both snapshots, by each method that has what it needs."""
    found = reconstruct.deaths(known)
    unmapped = taken._replace(before=taken.before._replace(bitmap=None))
    start = before.beginning(known, unmapped)
    said = before.counted(known, start, found, taken)
    names = [row.cache for row in said.rows]
    cpus = int(known.events.cpu.max()) + 1

    def played(begun: Beginning, more: Reconciled | None) -> np.ndarray:
        caches = _caches(known, begun, found, taken, names, more)
        slabs = np.array([taken.before.counts[name].slabs for name in names], np.int64)
        alive = [i for i, one in enumerate(caches) if len(one.start.free) or len(one.done.op)]
        slabs[alive] = slabs_at_the_end([caches[i] for i in alive], cpus)
        return slabs

    slabs = {LAW: played(start, None), COUNTS: played(start, said)}
    if taken.before.bitmap is not None:
        slabs[MAP] = played(before.beginning(known, taken), None)
    slabs[PLAIN] = np.array([row.plain for row in said.rows])
    unseen = reconstruct.births(known, start.new_frees, np.zeros((len(known.slabs.names), 2), np.int32))
    added = np.bincount(known.slab[unseen.free], minlength=len(known.slabs.names))
    lives = {row["cache"]: row for row in reconstruct.summary(known, found, added)}
    return Predicted(
        names, np.array([row.order for row in said.rows]), np.array([row.before for row in said.rows]),
        np.array([row.after for row in said.rows]), slabs, lives, np.array([row.births_added for row in said.rows]),
        np.array([row.deaths_added for row in said.rows]), _ends(known), _guessed(known, found),
    )  # fmt: skip


def _caches(
    known: Known, start: Beginning, found: Deaths, taken: Snapshots, names: list[str], said: Reconciled | None
) -> list[One]:
    """What is done to each cache: by the law, or (`said`) by proofs and by what the counts after say."""
    lived, window = start.lived, start.window
    dies = found.dies if said is None else found.chance >= 1
    done = reconcile.operations(lived, window, before.ended(known, found, dies), len(known.slabs.names))
    cpus, items = np.unique(known.events.cpu), len(known.lives.born)
    made = []
    for name in names:
        which = known.slabs.number(name)
        own = done[which]
        if said is not None:
            over = said.ended.of(lived.slab[said.ended.life] == which)
            unseen = reconcile.unseen_births(said.births.get(which, 0), window, cpus, items)
            own = reconcile.in_order([own, reconcile.deaths(lived, over), unseen])
        made.append(One(name, taken.caches[name], start.starts[which], own))
    return made


def _ends(known: Known) -> tuple[int, int, int]:
    counts: list[int] = np.bincount(known.lives.end, minlength=3).tolist()
    return counts[history.SEEN], counts[history.REUSED], counts[history.OPEN]


def _guessed(known: Known, found: Deaths) -> float:
    guessed = np.count_nonzero(known.lives.end == history.REUSED) + np.count_nonzero(
        found.dies & (known.lives.end[found.life] == history.OPEN)
    )
    return float(guessed) / max(len(known.lives.born), 1)


def summary(found: Predicted, method: Method) -> dict[str, Any]:
    """Deviation of slab pages by cache and of the footprint."""
    pages = 1 << found.order
    real = (found.after - found.before) * pages
    off = (found.slabs[method] - found.after) * pages
    after = int((found.after * pages).sum())
    change = int(np.abs(real).sum())
    return {
        "off_pages": int(np.abs(off).sum()), "change_pages": change,
        "ratio": float(np.abs(off).sum() / change) if change else float("nan"),
        "footprint_pages": after + int(off.sum()), "footprint_error": float(off.sum() / after) if after else 0.0,
    }  # fmt: skip
