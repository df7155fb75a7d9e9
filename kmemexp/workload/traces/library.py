"""Traces as workloads: the shipped ones by name, others by path, each as one stream of operations."""

import functools
import hashlib
from importlib import resources
from pathlib import Path

import numpy as np

from kmemexp.errors import TraceError
from kmemexp.sim import slots
from kmemexp.workload.stream import OP_ALLOC, OP_FREE, ZONE, Handlers, Kinds, Stream
from kmemexp.workload.traces import schema as sc

_FOLDER = resources.files("kmemexp.data.traces")
_USED = ("time_ns", "cpu", "context", "op", "object_id", "requested", "cache", "nowait")
_PLAYED = ("alloc", "free", "lost_free", "kva_alloc", "kva_free", "kva_lost_free")
_IS_PLAYED, _IS_ALLOC, _IS_KVA = (
    np.isin(sc.OPS, names) for names in (_PLAYED, ("alloc", "kva_alloc"), [n for n in sc.OPS if n.startswith("kva")])
)  # by schema.OPS
_CONTEXT_FLAGS = np.array([0, slots.F_SOFT, slots.F_HARD, slots.F_HARD], np.uint8)  # by schema.CONTEXTS


def names() -> list[str]:
    """Return the names of the shipped traces."""
    return sorted(f.name.removesuffix(".parquet") for f in _FOLDER.iterdir() if f.name.endswith(".parquet"))


def path_of(name: str) -> Path:
    """Return the file of a shipped trace, or of a path. Raises TraceError, listing what there is."""
    if name in names():
        return Path(str(_FOLDER / f"{name}.parquet"))
    path = Path(name)
    if not path.is_file():
        raise TraceError(f"trace '{name}': neither a shipped trace ({', '.join(names())}) nor a file")
    return path


def digest(name: str) -> str:
    """Return a digest of a trace's file, 32 hexadecimal digits: what tells one recording from another."""
    path = path_of(name)
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=64)
def _digest(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def describe(name: str) -> dict:
    """Return {"allocs", "ops", "cpus": counts, "seconds": float} of a trace as `load` gives it.

    Cheap for shipped and imported traces, which carry it in their metadata; text must be read.
    """
    from kmemexp.workload.traces import meta, source  # noqa: PLC0415 - names() needs none of it

    path = path_of(name)
    if source.is_parquet(path):
        summary = meta.open_parquet(path)[1]["summary"]
        ops = summary["ops"]
        return {
            "allocs": ops.get("alloc", 0) + ops.get("kva_alloc", 0),
            "ops": sum(ops.get(op, 0) for op in _PLAYED),
            "cpus": summary["cpus"],
            "seconds": summary["seconds"],
        }
    stream = load(name)[1]
    return {
        "allocs": int(np.count_nonzero(stream.op == OP_ALLOC)),
        "ops": stream.count,
        "cpus": len(np.unique(stream.cpu)),
        "seconds": float(stream.time_ns[-1]) / 1e9,
    }


def load(name: str) -> tuple[Kinds, Stream]:
    """Return the kinds and the whole stream of a trace: a shipped name, or the path of an imported trace or of text.

    Time begins at 0 and never runs back. Frees that the trace did not see stand just before the re-allocation of
    the address; frees of what was allocated before the trace, null pointers and interrupts are left out. The last
    two traces loaded are kept; do not change the arrays. Raises TraceError.
    """
    path = path_of(name)
    stat = path.stat()
    return _load(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2)
def _load(path: Path, _changed: int, _size: int) -> tuple[Kinds, Stream]:
    from kmemexp.workload.traces.reading import Reader  # noqa: PLC0415 - describe() needs no Numba

    reader = Reader(path, only=_USED)
    parts = [_played(rows) for rows in reader.batches()]
    columns = {c: np.concatenate([p[c] for p in parts]) for c in _USED}
    if not len(columns["op"]):
        raise TraceError(f"{path}: holds no allocation")
    return _kinds_and_stream(columns, reader.names)


@functools.lru_cache(maxsize=2)
def handlers(name: str) -> Handlers:
    """Return the interrupts of a trace: pairs of entry and exit on a CPU, on the clock of `load`.

    A handler that interrupts another one of its context ends first; what has no entry or no exit is left out.
    """
    from kmemexp.workload.traces.reading import Reader  # noqa: PLC0415

    reader = Reader(path_of(name), only=_USED)
    parts = [{c: getattr(rows, c) for c in ("time_ns", "cpu", "context", "op")} for rows in reader.batches()]
    time, cpu, context, op = (np.concatenate([p[c] for p in parts]) for c in ("time_ns", "cpu", "context", "op"))
    origin = time[_IS_PLAYED[op]][0]
    irq = np.flatnonzero(np.isin(op, [sc.IRQ_ENTER, sc.IRQ_EXIT]))
    begun: dict[tuple[int, int], list[int]] = {}
    found = []
    columns = (time[irq] - origin, cpu[irq], context[irq], op[irq] == sc.IRQ_ENTER)
    for at, c, kind, enters in zip(*(column.tolist() for column in columns), strict=True):
        stack = begun.setdefault((c, kind), [])
        if enters:
            stack.append(at)
        elif stack and (start := stack.pop()) >= 0:
            found.append((start, c, kind, max(at - start, 1)))
    rows = np.array(sorted(found), np.int64).reshape(-1, 4)
    flags = _CONTEXT_FLAGS[rows[:, 2]]
    return Handlers(rows[:, 0], rows[:, 1].astype(np.int16), flags, rows[:, 3].astype(np.int32))


def _played(rows) -> dict[str, np.ndarray]:
    """Return the rows that a simulation plays."""
    keep = _IS_PLAYED[rows.op]
    return {c: getattr(rows, c)[keep] for c in _USED}


def _kinds_and_stream(columns: dict[str, np.ndarray], caches: list[str]) -> tuple[Kinds, Stream]:
    from kmemexp.workload.traces.placing import assign_slots  # noqa: PLC0415

    op, ids = columns["op"], columns["object_id"]
    is_alloc = _IS_ALLOC[op]
    cache = np.where(_IS_KVA[op], len(caches), columns["cache"])
    kinds, number = _kinds(cache[is_alloc], columns["requested"][is_alloc], caches)
    kind_of = np.full(int(ids.max()) + 1, -1, np.int16)
    kind_of[ids[is_alloc]] = number[cache[is_alloc]]
    slot = np.empty(len(op), np.int32)
    count = assign_slots(is_alloc, ids, np.empty(len(kind_of), np.int32), np.empty(len(op), np.int32), slot)
    time = np.maximum.accumulate(columns["time_ns"] - columns["time_ns"][0])
    return kinds, Stream(
        time_ns=time,
        op=np.where(is_alloc, OP_ALLOC, OP_FREE).astype(np.uint8),
        kind=kind_of[ids],
        slot=slot,
        size=np.where(is_alloc, columns["requested"], 0).astype(np.int32),
        cpu=columns["cpu"].astype(np.int16),
        flags=_CONTEXT_FLAGS[columns["context"]] | columns["nowait"].astype(np.uint8) * np.uint8(slots.F_NOWAIT),
        slots=count,
    )


def _kinds(cache: np.ndarray, size: np.ndarray, caches: list[str]) -> tuple[Kinds, np.ndarray]:
    """Return the kinds, in order of their names, and the kind of each cache number; the number after is KVA."""
    from kmemexp.workload.traces import kinds as table  # noqa: PLC0415

    all_names = [*caches, table.KVA_NAME]
    used = sorted(np.unique(cache).tolist(), key=lambda c: (c == len(caches), all_names[c]))
    number = np.full(len(all_names), -1, np.int16)
    number[used] = np.arange(len(used))
    roles = [table.KVA_ROLE if c == len(caches) else table.role(all_names[c]) for c in used]
    order = np.argsort(cache, kind="stable")
    ends = np.searchsorted(cache[order], used, side="right")
    starts = np.searchsorted(cache[order], used, side="left")
    sizes = [size[order[a:b]] for a, b in zip(starts, ends, strict=True)]
    usual = [s.max() if r.klass == ZONE else np.median(s) for s, r in zip(sizes, roles, strict=True)]
    return Kinds(
        names=tuple(all_names[c] for c in used),
        klass=np.array([r.klass for r in roles], np.int8),
        size=np.array(usual).astype(np.int32),
        growth=np.array([r.growth for r in roles], np.int32),
        limit=np.zeros(len(used), np.int32),
    ), number
