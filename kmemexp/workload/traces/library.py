"""Traces as workloads: the shipped ones by name, others by path."""

import functools
import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kmemexp.errors import TraceError
from kmemexp.workload.stream import OP_ALLOC
from kmemexp.workload.traces import schema as sc

if TYPE_CHECKING:
    from kmemexp.workload.traces.playing import Recording

_FOLDER = resources.files("kmemexp.data.traces")


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


def describe(name: str) -> dict[str, Any]:
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
            "ops": sum(ops.get(op, 0) for op in sc.PLAYED),
            "cpus": summary["cpus"],
            "seconds": summary["seconds"],
        }
    stream = load(name).stream
    return {
        "allocs": int(np.count_nonzero(stream.op == OP_ALLOC)),
        "ops": stream.length,
        "cpus": len(np.unique(stream.cpu)),
        "seconds": float(stream.time_ns[-1]) / 1e9,
    }


def load(name: str) -> "Recording":
    """Return a trace as it is played: a shipped name, or the path of an imported trace or of text.

    Time begins at 0 and never runs back. Frees that the trace did not see stand just before the re-allocation of
    the address; frees of what was allocated before the trace and null pointers are left out. The last two traces
    loaded are kept; do not change the arrays. Raises TraceError.
    """
    path = path_of(name)
    stat = path.stat()
    return _load(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2)
def _load(path: Path, _changed: int, _size: int) -> "Recording":
    from kmemexp.workload.traces import playing  # noqa: PLC0415 - describe() needs no Numba

    return playing.read(path)
