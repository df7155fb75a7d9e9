"""What a simulation plays of a trace: kinds, one stream of operations, and the interrupts, all from one reading."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kmemexp.errors import TraceError
from kmemexp.sim.items import Traits
from kmemexp.sim.tables import flag
from kmemexp.workload.stream import KVA_WIRED, MALLOC, OP_ALLOC, OP_FREE, ZONE, Handlers, Kinds, Stream
from kmemexp.workload.traces import choosing, interrupts, meta, source
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.choosing import AS_RECORDED, Choice, Played
from kmemexp.workload.traces.interrupts import CONTEXT_FLAGS, Interrupts
from kmemexp.workload.traces.placing import assign_slots
from kmemexp.workload.traces.reading import Reader
from kmemexp.workload.traces.track import Rows

KVA_NAME = "vmap"  # kind of the KVA operations themselves: vmalloc areas and thread stacks, both wired
SETS = len(sc.KMALLOC_TYPES)
# By schema.OPS.
_IS_PLAYED = np.isin(sc.OPS, sc.PLAYED)
_IS_ADDED = np.arange(len(sc.OPS)) >= sc.IMPUTED_FREE
_IS_ALLOC = np.isin(sc.OPS, ("alloc", "kva_alloc", "added_alloc", "old_alloc"))
_IS_KVA = np.isin(sc.OPS, [name for name in sc.OPS if name.startswith("kva")])
_IS_INTERRUPT = np.isin(sc.OPS, ("irq_enter", "irq_exit"))


@dataclass(frozen=True)
class Recording:
    """A trace as it is played. The arrays are shared: do not change them."""

    kinds: Kinds
    stream: Stream
    interrupts: Interrupts
    origin_ns: int  # when the stream begins, on the trace's own clock

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return _bytes(self.stream.arrays) + _bytes(self.interrupts)

    @functools.cached_property
    def handlers(self) -> Handlers:
        """The interrupts, on the clock of the stream."""
        return interrupts.handlers(self.interrupts, self.origin_ns)


@dataclass(frozen=True)
class Material:
    """A trace as it was read: what was recorded, and what its import added. The arrays are shared."""

    rows: Played  # as recorded, in file order
    added: Played  # in the order of time
    caches: Sequence[str]
    interrupts: Interrupts
    window_ns: tuple[int, int]  # between the snapshots, if there were any

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return _bytes(self.rows) + _bytes(self.added) + _bytes(self.interrupts)

    @property
    def guessed(self) -> bool:
        """Whether replicas may differ in when objects died."""
        return bool(np.any((self.added.chance > 0) & (self.added.chance < 1)))

    def play(self, choice: Choice = AS_RECORDED, draw: np.random.Generator | None = None) -> Recording:
        """Make one of the streams of this recording; `draw` makes it one of many that are as likely."""
        columns = choosing.choose(self.rows, self.added, choice, self.window_ns, draw)
        table, stream = _kinds_and_stream(columns, list(self.caches))
        return Recording(table, stream, self.interrupts, int(columns.time_ns[0]))


def _bytes(arrays: Iterable[np.ndarray]) -> int:
    return sum(a.nbytes for a in arrays)


def read(path: Path) -> Material:
    """Read a trace, text or imported. Raises TraceError, also where it holds nothing to play."""
    reader = Reader(path, only=Played._fields, added=True)
    recorded = [name for name in Played._fields if name not in choosing.OF_ADDED]
    played, added, entries = [], [], []
    for rows in reader.batches():
        played.append(_select(rows, _IS_PLAYED, recorded))
        added.append(_select(rows, _IS_ADDED, Played._fields))
        entries.append(_select(rows, _IS_INTERRUPT, Interrupts._fields))
    if not any(len(part[0]) for part in played):
        raise TraceError(f"{path}: holds no allocation")
    columns = list(map(np.concatenate, zip(*played, strict=True)))
    nothing = [np.broadcast_to(np.int8(-1), len(columns[0]))] * len(choosing.OF_ADDED)
    inferred = Played(*map(np.concatenate, zip(*added, strict=True)))
    around = Interrupts(*map(np.concatenate, zip(*entries, strict=True)))
    told = meta.open_parquet(path)[1].get("inferred", {}) if source.is_parquet(path) else {}
    first, last = told.get("window_ns", (0, np.iinfo(np.int64).max))
    return Material(Played(*columns, *nothing), inferred, reader.names, around, (first, last))


def _select(rows: Rows, wanted: np.ndarray, fields: Sequence[str]) -> list[np.ndarray]:
    """Some columns of the rows whose operation is wanted."""
    keep = wanted[rows.op]
    return [getattr(rows, field)[keep] for field in fields]


def _kinds_and_stream(rows: Played, caches: list[str]) -> tuple[Kinds, Stream]:
    is_alloc = _IS_ALLOC[rows.op]
    label = np.where(_IS_KVA[rows.op], len(caches), rows.cache).astype(np.int64) * SETS
    label += np.where((label == caches_of_kmalloc(caches)) & (rows.kmalloc > 0), rows.kmalloc, 0)
    table, number = _kinds(label[is_alloc], rows.requested[is_alloc], rows.allocated[is_alloc], caches)
    kind_of = np.full(int(rows.object_id.max()) + 1, -1, np.int16)
    kind_of[rows.object_id[is_alloc]] = number[label[is_alloc]]
    n = len(rows.op)
    slot = np.empty(n, np.int32)
    used = assign_slots(is_alloc, rows.object_id, np.empty(len(kind_of), np.int32), np.empty(n, np.int32), slot)
    return table, Stream(
        time_ns=np.maximum.accumulate(rows.time_ns - rows.time_ns[0]),
        op=np.where(is_alloc, OP_ALLOC, OP_FREE).astype(np.uint8),
        kind=kind_of[rows.object_id],
        slot=slot,
        size=np.where(is_alloc, rows.requested, 0).astype(np.int32),
        cpu=rows.cpu.astype(np.int16),
        flags=CONTEXT_FLAGS[rows.context] | rows.nowait.astype(np.uint8) * np.uint8(flag.NOWAIT),
        slots=used,
    )


def caches_of_kmalloc(caches: Sequence[str]) -> int:
    """Label of what kmalloc's usual caches serve; -1: nothing here."""
    return caches.index(sc.KMALLOC) * SETS if sc.KMALLOC in caches else -1


def _kinds(label: np.ndarray, size: np.ndarray, granted: np.ndarray, caches: list[str]) -> tuple[Kinds, np.ndarray]:
    """Return the kinds, in order of their names, and the kind of each label; labels are `SETS` for each cache.

    A kind is a cache, or one of kmalloc's sets of caches; vmalloc areas and stacks come last. Of a cache's objects the
    largest counts: merged caches have objects of several sizes.
    """
    kmalloc, kva = caches_of_kmalloc(caches), len(caches) * SETS
    names = {found: _name(found, kmalloc, kva, caches) for found in np.unique(label).tolist()}
    used = sorted(names, key=lambda found: (found == kva, names[found]))
    number = np.full(kva + SETS, -1, np.int16)
    number[used] = np.arange(len(used))
    order = np.argsort(label, kind="stable")
    starts, ends = (np.searchsorted(label[order], used, side=side) for side in ("left", "right"))
    rows = [order[a:b] for a, b in zip(starts, ends, strict=True)]
    typed = [found != kva and not 0 <= found - kmalloc < SETS for found in used]
    usual = [size[r].max() if one else np.median(size[r]) for r, one in zip(rows, typed, strict=True)]
    none = np.zeros(len(used), np.int32)
    return Kinds(
        names=tuple(names[found] for found in used),
        klass=np.array([ZONE if one else KVA_WIRED if n == kva else MALLOC for n, one in zip(used, typed, strict=True)],
                       np.int8),
        size=np.array(usual).astype(np.int32),
        growth=none,
        limit=none,
        traits=tuple(Traits(int(granted[r].max()) * one) for r, one in zip(rows, typed, strict=True)),
        recorded=True,
    ), number  # fmt: skip


def _name(label: int, kmalloc: int, kva: int, caches: Sequence[str]) -> str:
    if label == kva:
        return KVA_NAME
    if kmalloc < label < kmalloc + SETS:
        return f"{sc.KMALLOC} {sc.KMALLOC_TYPES[label - kmalloc]}"
    return caches[label // SETS]
