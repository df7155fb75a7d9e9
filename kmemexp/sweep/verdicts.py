"""What a worker leaves in the results folder when it must die of a cell: which cell, and why."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import obstore

from kmemexp.store import files
from kmemexp.sweep.batches import Batch, Target


class Verdict(NamedTuple):
    """Lanes that a worker could not go on with."""

    cells: Mapping[str, Sequence[int]]  # replicas by cell key
    error: str


def path_of(target: Target, batch: Batch, attempt: int) -> str:
    """Where the worker of a batch leaves its verdict; it is cleared like any staged file of that writer."""
    return f"{files.STAGING}/data/part-{files.verdict_id(batch.id, attempt, target.writer)}.parquet"


def leave(target: Target, batch: Batch, attempt: int, verdict: Verdict) -> None:
    """Write a verdict down."""
    text = json.dumps({"cells": dict(verdict.cells), "error": verdict.error})
    obstore.put(files.connect(target.root), path_of(target, batch, attempt), text.encode())


def take(target: Target, batch: Batch, attempt: int) -> Verdict | None:
    """Read the verdict on a batch and remove it; None where there is none."""
    with files.explained(target.root):
        objects, path = files.connect(target.root), path_of(target, batch, attempt)
        text = files.read_text(objects, path)
        if text is None:
            return None
        files.delete(objects, [path])
    with contextlib.suppress(ValueError, KeyError):
        record = json.loads(text)
        return Verdict(record["cells"], record["error"])
    return None
