"""Manifests: `_manifest/<8 digits>.json` says which files count. Each adds and removes files, in order.

Format (one JSON object): `schema` is the stamp of layout and columns, `run` the id of the run, `remove` a list of ids
of files, `add` a list of objects with `id`, `status`, `rows` (lanes), `cells` (pairs: replicas, and the keys of the
cells that have these, as one text), `files` (size and SHA-256 by table) and `layout` (which columns of their cells are
in them, `labels.py`); `previous` is the SHA-256 of the manifest before, `digest` that of all the text before it.
Manifests of earlier versions have no `files`, `layout`, `previous` and `digest`, and those of layout 1 `cells` as
replicas by cell key, which takes ten times as long to read.

`_manifest/<8 digits>.whole.json` says in the same form, with `removed` besides, what counts after the manifest of that
number: whoever reads begins with the last sound one of them, and needs no manifest up to its number.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kmemexp.errors import StoreError
from kmemexp.store.files import DamageError, LaneFiles, Sum, first_line
from kmemexp.store.packed import Packed
from kmemexp.store.schema import DONE, FAILED, LAYOUT, STAMP

FOLDER = "_manifest"
_NAME = re.compile(rf"{FOLDER}/(\d{{8}})\.json")
_WHOLE = re.compile(rf"{FOLDER}/(\d{{8}})\.whole\.json")


class Change(NamedTuple):
    """What a manifest says."""

    add: list[LaneFiles]
    remove: list[str]  # ids


class Whole(NamedTuple):
    """What counts after a manifest."""

    files: list[LaneFiles]
    removed: list[str]  # ids of files that have counted and may not be deleted yet
    last: str  # SHA-256 of the manifest of that number; "" where it was lost


def path_of(number: int) -> str:
    """Where the manifest of this number stands."""
    return f"{FOLDER}/{number:08}.json"


def whole_path(number: int) -> str:
    """Where it stands what counts after the manifest of this number."""
    return f"{FOLDER}/{number:08}.whole.json"


def number_in(path: str) -> int | None:
    """Find the number in a manifest's path; None for files that are not manifests."""
    match = _NAME.fullmatch(path)
    return int(match[1]) if match else None


def whole_number(path: str) -> int | None:
    """Find the number in the path of a file that says what counts; None for other files."""
    match = _WHOLE.fullmatch(path)
    return int(match[1]) if match else None


def digest(text: bytes) -> str:
    """SHA-256 of a manifest, by which the next one names it."""
    return hashlib.sha256(text).hexdigest()


def encode(change: Change, run: str, previous: str) -> bytes:
    """Write a manifest: the same change, the same bytes."""
    add = [_encoded(f) for f in change.add]
    return _sealed({"schema": STAMP, "run": run, "remove": change.remove, "add": add, "previous": previous})


def encode_whole(whole: Whole) -> bytes:
    """Write down what counts."""
    add = [_encoded(f) for f in whole.files]
    return _sealed({"schema": STAMP, "add": add, "removed": whole.removed, "previous": whole.last})


def decode(path: str, text: bytes, previous: str) -> Change:
    """Read the manifest `path`; `previous`: digest of the one before, "" where that is unknown.

    Raises DamageError for one that is damaged or does not follow, StoreError for one of another layout.
    """
    try:
        record = _opened(text)
        if previous and (before := record.get("previous")) not in (None, "", previous):
            raise ValueError(f"it follows a manifest {before[:8]}, and {previous[:8]} stands before it")
        return Change(_decoded(record["add"]), list(map(str, record["remove"])))
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def decode_whole(path: str, text: bytes) -> Whole:
    """Read what counts. Raises as `decode` does."""
    try:
        record = _opened(text)
        return Whole(_decoded(record["add"]), list(map(str, record["removed"])), record["previous"])
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> DamageError:
    return DamageError(f"{path} is damaged: {type(error).__name__}: {first_line(error)}")


def _encoded(f: LaneFiles) -> dict[str, Any]:
    told = {"id": f.id, "status": f.status, "rows": f.lanes, "cells": Packed.of(f.cells).told, "files": f.sums}
    return told | ({"layout": f.layout} if f.layout else {})


def _decoded(entries: Iterable[Mapping[str, Any]]) -> list[LaneFiles]:
    found = []
    for f in entries:
        sums = {table: Sum(int(size), str(sha)) for table, (size, sha) in f.get("files", {}).items()}
        told = f["cells"]
        cells = Packed.of(told) if isinstance(told, dict) else Packed(told)  # layout 1 has a mapping
        if f["status"] not in (DONE, FAILED):
            raise ValueError(f"{f['status']!r} is no status")
        one = LaneFiles(str(f["id"]), str(f["status"]), cells, sums, str(f.get("layout", "")))
        if one.lanes != f["rows"]:
            raise ValueError(f"{one.id} has {f['rows']} rows, and {one.lanes} are named")
        found.append(one)
    return found


def _sealed(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()[:-1]
    return text + f',"digest":"{digest(text)}"}}'.encode()


def _opened(text: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(text)
    layout = _layout_of(record["schema"])
    said = record.get("digest")
    if said is None and layout > 1:
        raise ValueError("it has no digest")
    if said is not None and said != digest(text[: text.rfind(b',"digest":')]):
        raise ValueError("its text is not what was written (SHA-256)")
    return record


def _layout_of(stamp: str) -> int:
    """Take in any columns (`rows.conforming`), but no later layout."""
    layout = stamp.partition("-")[0]
    if not layout.isdecimal() or int(layout) > LAYOUT:
        raise StoreError(
            f"the folder is laid out as a later version of kmemexp does it ({stamp}; this one writes {STAMP}). "
            "Use that version, or give another store.root."
        )
    return int(layout)
