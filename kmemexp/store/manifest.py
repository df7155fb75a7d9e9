"""Manifests: `_manifest/<8 digits>.json` says which files count. Each adds and removes files, in order.

Format (one JSON object): `schema` is the stamp of layout and columns, `run` the id of the run, `remove` a list of ids
of files, `add` a list of objects with `id`, `status`, `rows` (lanes) and `cells` (replicas by cell key).
"""

import json
import re
from collections.abc import Container
from typing import NamedTuple

from kmemexp.errors import StoreError
from kmemexp.store.files import LaneFiles, first_line
from kmemexp.store.schema import STAMP

FOLDER = "_manifest"
_NAME = re.compile(rf"{FOLDER}/(\d{{8}})\.json")


class Change(NamedTuple):
    """What a manifest says."""

    add: list[LaneFiles]
    remove: list[str]  # ids


def path_of(number: int) -> str:
    """Where the manifest of this number stands."""
    return f"{FOLDER}/{number:08}.json"


def number_in(path: str) -> int | None:
    """Find the number in a manifest's path; None for files that are not manifests."""
    match = _NAME.fullmatch(path)
    return int(match[1]) if match else None


def encode(change: Change, run: str) -> bytes:
    """Write a manifest: the same change, the same bytes."""
    record = {
        "schema": STAMP,
        "run": run,
        "remove": change.remove,
        "add": [{"id": f.id, "status": f.status, "rows": f.lanes, "cells": f.cells} for f in change.add],
    }
    return json.dumps(record, separators=(",", ":")).encode()


def decode(root: str, path: str, text: bytes, counting: Container[str]) -> Change:
    """Read the manifest `path` of the results folder `root`; `counting` are the ids that it may remove.

    Raises StoreError for a damaged manifest and for one of other columns.
    """
    try:
        record = json.loads(text)
        _check_stamp(root, record["schema"])
        add = [LaneFiles(f["id"], f["status"], f["cells"]) for f in record["add"]]
        remove = list(record["remove"])
        if unknown := [file_id for file_id in remove if file_id not in counting]:
            raise KeyError(unknown[0])
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{root}/{path} is damaged ({type(error).__name__}: {first_line(error)}). If it is the last "
            "one, delete it: its rows are simulated again. Otherwise give another store.root."
        ) from error
    return Change(add, remove)


def _check_stamp(root: str, stamp: str) -> None:
    if stamp != STAMP:
        raise StoreError(
            f"{root} holds results of another version of kmemexp (columns {stamp}, this version writes "
            f"{STAMP}). Give another store.root, delete the folder, or use the version that wrote it."
        )
