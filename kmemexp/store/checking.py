"""Checking a results folder file by file, and taking out what is damaged.

`check` reads every byte. `repair` takes files that are damaged out of what counts and moves them, and manifests that
cannot be read, to `_quarantine/`; the rows are missing from then on, until a plan that has them is run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import obstore
import pyarrow as pa
from obstore.store import ObjectStore

from kmemexp.errors import StoreError
from kmemexp.store import files, manifest, tidy
from kmemexp.store.files import DamageError, LaneFiles
from kmemexp.store.history import History
from kmemexp.store.manifest import Change
from kmemexp.store.writers import Watch


class Damage(NamedTuple):
    """A file that is not as it should be."""

    path: str
    wrong: str
    file_id: str | None  # of the files that cannot count with it; None: no row depends on it alone
    rows: int


def check_manifests(objects: ObjectStore) -> tuple[History, list[Damage]]:
    """Read every manifest that can be read; returns what counts by these, and what is wrong with the others."""
    history, found = History(objects), []
    there = set(tidy.listed(objects, manifest.FOLDER))
    for number in history.wholes():
        path = manifest.whole_path(number)
        try:
            manifest.decode_whole(path, bytes(obstore.get(objects, path).bytes()))
        except DamageError as error:
            found.append(_of_manifest(error, path))
    history.begin(there)
    last = max((n for path in there if (n := manifest.number_in(path)) is not None), default=-1)
    for number in range(history.next, last + 1):
        path = manifest.path_of(number)
        if path not in there:
            found.append(Damage(path, "is gone, but there is one of a higher number", None, 0))
            history.skip(number)
            continue
        try:
            history.take(number, bytes(obstore.get(objects, path).bytes()), after_loss=bool(found))
        except DamageError as error:
            found.append(_of_manifest(error, path))
            history.skip(number)
    return history, found


def check_files(objects: ObjectStore, stored: Sequence[tuple[str, LaneFiles, str]]) -> list[Damage]:
    """Read files that count: (path, files, table). Returns those that are damaged, in order."""

    def look(one: tuple[str, LaneFiles, str]) -> Damage | None:
        path, whose, table = one
        try:
            files.load(objects, whose, table)
        except FileNotFoundError:
            return Damage(path, "is gone, but the manifest counts it", whose.id, whose.lanes)
        except (DamageError, pa.ArrowException) as error:
            return Damage(path, _reason(str(error), path), whose.id, whose.lanes)
        return None

    return [damage for damage in files.in_parallel(look, stored) if damage]


def take_out(objects: ObjectStore, history: History, damages: Sequence[Damage], run: str) -> bool:
    """Let damaged files no longer count, and move them to `_quarantine/`. False if another committer came between."""
    bad = sorted({damage.file_id for damage in damages if damage.file_id})
    manifests = [d.path for d in damages if d.file_id is None and d.path.startswith(manifest.FOLDER)]
    if bad and not history.append(Change([], bad), run):
        return False
    tidy.quarantine(objects, manifests)
    for file_id in bad:
        places = [files.path_of(table, file_id) for table in files.FOLDERS]
        tidy.quarantine(objects, [*places, *(f"{files.STAGING}/{path}" for path in places)])
    if manifests:
        history.write_whole(now=True)
    return True


def _of_manifest(error: Exception, path: str) -> Damage:
    return Damage(path, _reason(str(error), path), None, 0)


def _reason(text: str, path: str) -> str:
    return text.removeprefix(f"{path} ").removeprefix("is damaged: ")


class Repaired(NamedTuple):
    """What a repair has found and taken out."""

    damages: list[Damage]
    rows: dict[str, set[int]]  # that are missing now: replicas by cell key
    manifests: bool  # whether manifests were among what was damaged: then further rows may be missing


def examine(root: str) -> tuple[History, list[Damage]]:
    """Read all of a results folder: its manifests and every file that counts. Raises StoreError where there is none."""
    with files.explained(root, "read"):
        try:
            objects = files.connect(root, create=False)
        except FileNotFoundError:
            raise StoreError(f"{root}: there is no such folder; nothing to check") from None
        history, damages = check_manifests(objects)
        if not history.next:
            raise StoreError(f"{root}: there is no manifest in it; it is not a results folder of kmemexp")
        return history, damages + check_files(objects, sorted(history.ledger.paths(), key=lambda one: one[0]))


def repair(root: str, run: str = "") -> Repaired:
    """Take out what is damaged. Raises StoreError where somebody else may be writing, or nothing can be written."""
    while True:
        history, damages = examine(root)
        with files.explained(root):
            objects = files.connect(root)
            if damages and (others := tidy.living(objects, Watch())):
                raise StoreError(
                    f"{root}: {others[0]} may be writing to it. Wait for it, stop it, or, if you know that it is dead, "
                    "delete its record; then repair again."
                )
            rows: dict[str, set[int]] = {}
            for file_id in {damage.file_id for damage in damages if damage.file_id}:
                for key, replicas in history.ledger.files[file_id].cells.items():
                    rows.setdefault(key, set()).update(replicas)
            manifests = any(damage.file_id is None for damage in damages)
            if not damages or take_out(objects, history, damages, run):
                return Repaired(damages, rows, manifests)
