"""Finishing what killed writers have begun, and clearing what they have left.

Nothing is deleted that a manifest might still name. What a manifest has removed is deleted; a file in its place that
no manifest has ever named is moved to `_quarantine/`; a staged file is its writer's until that writer is known to be
dead.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import LocalStore, ObjectStore

from kmemexp.store import files, manifest, writers
from kmemexp.store.files import FOLDERS, QUARANTINE, STAGING
from kmemexp.store.ledger import Ledger

if TYPE_CHECKING:
    from obstore import ObjectMeta


def listed(objects: ObjectStore, prefix: str) -> Iterator[str]:
    """Paths of the files in a folder."""
    return (meta["path"] for meta in _metas(objects, prefix))


def _metas(objects: ObjectStore, prefix: str) -> "Iterator[ObjectMeta]":
    return (meta for chunk in obstore.list(objects, f"{prefix}/") for meta in chunk)


class Found:
    """What lies in a folder: to be taken before its manifests are read, or a file that counts by then looks stray."""

    def __init__(self, objects: ObjectStore) -> None:
        self.staged = {path.removeprefix(f"{STAGING}/") for path in listed(objects, STAGING)}
        self.placed = [path for folder in FOLDERS.values() for path in listed(objects, folder)]


def roll_forward(objects: ObjectStore, found: Found, ledger: Ledger) -> list[str]:
    """Move and delete what the manifests say. Returns paths that were moved to `_quarantine/`."""
    wanted = {path for path, _, _ in ledger.paths()}
    stray = [path for path in found.placed if path not in wanted and files.id_in(path)]
    removed = [path for path in stray if files.id_in(path) in ledger.removed]
    unknown = sorted(set(stray).difference(removed))
    files.delete(objects, removed)
    quarantine(objects, unknown)
    files.publish(objects, [path for path in found.staged if path in wanted])
    return unknown


def settled(objects: ObjectStore, ledger: Ledger) -> bool:
    """Whether just those files stand in their places that count, each of its size, and none is staged by anybody."""
    if any(True for folder in (STAGING, writers.FOLDER) for _ in listed(objects, folder)):
        return False
    sizes = {meta["path"]: meta["size"] for folder in FOLDERS.values() for meta in _metas(objects, folder)}
    wanted = {path: stored.sums.get(table) for path, stored, table in ledger.paths()}
    return sizes.keys() == wanted.keys() and all(one is None or one.size == sizes[p] for p, one in wanted.items())


def quarantine(objects: ObjectStore, paths: Iterable[str]) -> None:
    """Move files where nothing reads them and nothing is lost."""
    for path in paths:
        target, number = f"{QUARANTINE}/{path}", 0
        while _is_there(objects, target):
            number += 1
            target = f"{QUARANTINE}/{path}.{number}"
        files.move(objects, path, target)


def clear(objects: ObjectStore, ledger: Ledger, refresh: Callable[[], None], watch: writers.Watch) -> None:
    """Delete what dead writers have staged and no manifest names, and their records."""
    # Files first, records second: whose file is seen has put its record before. Manifests last: a dead writer has put
    # all of its own by now.
    staged = [(path, files.id_in(path)) for path in listed(objects, STAGING)]
    records = {writer: path for path in listed(objects, writers.FOLDER) if (writer := writers.in_path(path))}
    texts = {writer: files.read_text(objects, path) for writer, path in records.items()}
    alive = {writer for writer, text in texts.items() if text is not None and not watch.is_dead(writer, text)}
    refresh()
    counting = {f"{STAGING}/{path}" for path, _, _ in ledger.paths()}
    files.delete(objects, [p for p, file_id in staged if p not in counting and file_id and _is_dead(file_id, alive)])
    files.delete(objects, [path for writer, path in records.items() if writer not in alive])
    if not alive and isinstance(objects, LocalStore) and objects.prefix:
        _clear_halves(Path(objects.prefix))


def living(objects: ObjectStore, watch: writers.Watch) -> list[str]:
    """Describe the writers that may be alive."""
    return [f"{writers.describe(text)} ({path})" for path, text in _living(objects, watch)]


def progress(objects: ObjectStore, watch: writers.Watch) -> dict[str, dict[str, Any]]:
    """Tell how far each writer has come that may be alive, by its description."""
    return {writers.describe(text): writers.progress(text) for _, text in _living(objects, watch)}


def _living(objects: ObjectStore, watch: writers.Watch) -> Iterator[tuple[str, str]]:
    for path in listed(objects, writers.FOLDER):
        writer, text = writers.in_path(path), files.read_text(objects, path)
        if writer and text is not None and not watch.is_dead(writer, text):
            yield path, text


def _is_dead(file_id: str, alive: set[str]) -> bool:
    """Whether nobody can commit these files any more: their writer's record is gone, or known to be of a dead one."""
    writer = files.writer_in(file_id)
    return writer is not None and writer not in alive


def _clear_halves(root: Path) -> None:
    """Delete files that a killed process was about to write: on a disk they are written beside their place."""
    for folder in (STAGING, manifest.FOLDER, writers.FOLDER):
        for path in (root / folder).rglob("*.*#*"):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_there(objects: ObjectStore, path: str) -> bool:
    try:
        obstore.head(objects, path)
    except FileNotFoundError:
        return False
    return True
