"""Traces as workloads: the shipped ones by name, others by path."""

import contextlib
import functools
import hashlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kmemexp.errors import TraceError
from kmemexp.workload.traces import schema as sc

if TYPE_CHECKING:
    from kmemexp.workload.traces.choosing import Choice
    from kmemexp.workload.traces.playing import Material, Recording

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
    from kmemexp.workload.traces import source  # noqa: PLC0415

    path = path_of(name)
    if source.is_parquet(path):
        return _digest_of(path)
    from kmemexp.workload.lives import snapshots  # noqa: PLC0415 - only text has snapshots beside it

    parts = [_digest_of(found) for found in (path, *snapshots.files(path))]
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()[:32]


def _digest_of(path: Path) -> str:
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=256)
def _digest(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def describe(name: str) -> dict[str, Any]:
    """Return {"allocs", "ops", "cpus": counts, "seconds": float} of a trace as `load` gives it as recorded.

    Besides "added" (operations that its import added, by kind), "streams" (those that it has), "start" (whether it has
    old objects) and "warnings". Cheap for shipped and
    imported traces, which carry it in their metadata; text is imported first.
    """
    from kmemexp.workload.traces import meta  # noqa: PLC0415 - names() needs none of it

    about = meta.open_parquet(imported(name))[1]
    summary, inferred = about["summary"], about.get("inferred", {})
    ops = summary["ops"]
    return {
        "allocs": ops.get("alloc", 0) + ops.get("kva_alloc", 0),
        "ops": sum(ops.get(op, 0) for op in sc.PLAYED),
        "cpus": summary["cpus"],
        "seconds": summary["seconds"],
        "added": inferred.get("added", {}),
        "streams": [sc.STREAMS[0], *inferred.get("streams", ())],
        "start": inferred.get("start", False),
        "warnings": about["report"].get("warnings", []),
    }


def imported(name: str) -> Path:
    """Return the imported form of a trace: its own file, or for text what was once made of it.

    Text is imported into the user's cache under the digest of what it and the snapshots beside it hold.
    """
    from kmemexp.workload.traces import source  # noqa: PLC0415

    path = path_of(name)
    if source.is_parquet(path):
        return path
    found = cache_folder() / f"{digest(name)}.parquet"
    if not found.exists():
        from kmemexp.workload.traces.importer import import_trace  # noqa: PLC0415 - with it comes Numba

        import_trace(path, found)
    return found


def cache_folder() -> Path:
    """Return the folder of imported traces: in the user's cache, else a temporary one."""
    roots = (os.environ.get("XDG_CACHE_HOME"), "~/.cache", tempfile.gettempdir())
    for root in filter(None, roots):
        folder = Path(root).expanduser() / "kmemexp" / "traces"
        with contextlib.suppress(OSError, RuntimeError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise TraceError("there is no folder that imported traces could be kept in: set XDG_CACHE_HOME to one")


def load(name: str, choice: "Choice | None" = None) -> "Recording":
    """Return a trace as it is played: a shipped name, or the path of an imported trace or of text.

    Time begins at 0 and never runs back. As recorded, which it is unless `choice` says otherwise, frees that the trace
    did not see stand just before the re-allocation of the address; frees of what was allocated before the trace and
    null pointers are left out. The traces last loaded are kept, as far as they fit; do not change the arrays. Raises
    TraceError.
    """
    from kmemexp.workload.traces.choosing import AS_RECORDED  # noqa: PLC0415 - describe() needs no Numba

    choice = choice or AS_RECORDED
    return _RECORDINGS.get((*_identity(name), choice), lambda: material(name).play(choice))


def material(name: str) -> "Material":
    """Return a trace as it was read, with what its import added: what the streams of replicas are made of."""
    from kmemexp.workload.traces import playing  # noqa: PLC0415 - describe() needs no Numba

    return _MATERIAL.get(_identity(name), lambda: playing.read(imported(name)))


def _identity(name: str) -> tuple[Path, int, int]:
    """Return what a trace is known by while this process lasts."""
    path = path_of(name)
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size


T = TypeVar("T", "Recording", "Material")


class _Kept(Generic[T]):
    """What was read last, as much of it as fits: a worker that comes back to a trace need not read it again."""

    def __init__(self, room_bytes: int) -> None:
        self.room_bytes = room_bytes
        self._kept: OrderedDict[Any, T] = OrderedDict()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """Return what is kept under a key, or make it; what was used longest ago makes room."""
        if key not in self._kept:
            self._kept[key] = make()
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(found.nbytes for found in self._kept.values()) > self.room_bytes:
            self._kept.popitem(last=False)
        return self._kept[key]


_RECORDINGS: "_Kept[Recording]" = _Kept(1 << 30)
_MATERIAL: "_Kept[Material]" = _Kept(1 << 28)
