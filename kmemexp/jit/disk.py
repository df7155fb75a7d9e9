"""Where compiled code is kept: a folder for each set of sources, and the digest that names it."""

import contextlib
import functools
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numba

from kmemexp import reach

FLAGS = ("NUMBA_BOUNDSCHECK", "NUMBA_OPT", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_DEBUGINFO")


def cache_root() -> Path:
    """Folder of the compiled code: NUMBA_CACHE_DIR, else kmemexp's folder in the user's cache, else a temporary one."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kmemexp"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written, as in some containers
        return _temporary_root()
    return folder if os.access(folder, os.W_OK) else _temporary_root()


@functools.cache
def _temporary_root() -> Path:
    """Folder in the system's temporary one that nobody else can write: what it holds is executed."""
    folder = Path(tempfile.gettempdir()) / f"kmemexp-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="kmemexp-"))


def digest(modules: Iterable[str]) -> str:
    """Return the digest of the sources of these modules and of all that they import, with the flags.

    What they import from other packages than their own and kmemexp counts by Numba's and Python's versions only.
    """
    return _digest(tuple(sorted(set(modules))))


@functools.cache
def _digest(modules: tuple[str, ...]) -> str:
    total = hashlib.sha256()
    total.update(numba.__version__.encode() + sys.version.encode())
    total.update("".join(f"{f}={os.environ.get(f)};" for f in FLAGS).encode())
    for name in sorted(reach.closure(modules)):
        total.update(name.encode() + reach.source(name))
    return total.hexdigest()[:16]


def forgive(index: Any) -> None:
    """Let an index of compiled code be read as empty where it names types that are not here.

    A kernel that a user's part has used is cached with that part's State among its types, and then cannot be looked up
    where the part is not loaded. Whoever compiles it next writes the index anew.
    """
    load = index._load_index

    def load_index() -> dict[Any, Any]:
        try:
            found: dict[Any, Any] = load()
        except (ImportError, AttributeError):
            return {}
        return found

    index._load_index = load_index


@contextlib.contextmanager
def turn(index: Any, key: Any) -> Iterator[None]:
    """Inside, this process is the only one that compiles what index file `index` should have under `key`.

    A function is locked before what it calls, so no two processes wait for each other. Where files cannot be locked
    (no POSIX, a folder that cannot be written), both compile.
    """
    path = Path(f"{index._index_path}.lock")
    if path in _turns or key in index._load_index():
        yield
        return
    with contextlib.ExitStack() as held:
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # noqa: PLC0415 - POSIX has it

            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            held.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
        _turns.add(path)
        held.callback(_turns.discard, path)
        yield


_turns: set[Path] = set()
"""Locks that this process holds: Numba compiles in one thread at a time."""
