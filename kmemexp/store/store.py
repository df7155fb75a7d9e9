"""The results folder: which parts count, and how that changes without ever showing half a change.

    data/ _series/ _latency/ _snapshots/   committed parts: metrics, series, latency, snapshots
    _manifest/<8 digits>.json    the truth: each adds and removes parts, in order
    _staging/                    parts that workers have written and nobody has committed, or that are on the move
    _run.json, tables/_*         provenance and tables of the last run

A worker stages a part under a name of its own. The committer then (1) puts the next manifest, which fails if
somebody else took the number, (2) deletes what the manifest removes, (3) moves what it adds out of staging. Between
(1) and (3) a reader that goes by the manifest sees the new state, and one that lists data/ sees the old one or some
rows missing, never a row twice or one that does not count. Opening for writing finishes (2) and (3) for whoever was
killed there.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.compute as pc
from obstore.exceptions import AlreadyExistsError, BaseError
from pyarrow import csv

from kmemexp.errors import StoreError
from kmemexp.store import files as parts
from kmemexp.store.files import FOLDERS, STAGING, Part
from kmemexp.store.schema import DONE, FAILED, SCHEMAS, STAMP

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "_manifest"
STALE = timedelta(hours=24)
"""Staged parts that no manifest names belong to a living run for at most this long."""

Row = tuple[str, int]  # (cell key, replica): the identity of a result


class _Change(NamedTuple):
    add: list[Part]
    remove: list[str]  # ids
    rewritten: list[str]  # ids among `add` that were staged here, by this committer


class Store:
    """A results folder, for reading or (`write=True`) for one committer; several committers do each other no harm.

    `root` is a path or a URI that obstore knows. Raises StoreError where the folder is missing (reading), cannot be
    written, is not a results folder, was written with other columns, or is damaged. `uri` is the same folder in a form
    that holds in other processes too.
    """

    def __init__(self, root: str, *, write: bool = False) -> None:
        self.root = str(root)
        self.uri = parts.absolute(self.root)
        self._next = 0
        self._parts: dict[str, Part] = {}
        self._owner: dict[str, dict[int, str]] = {}  # part id by cell key and replica
        try:
            self._objects = parts.connect(self.root, create=write)
            if write:
                self._roll_forward()
            else:
                self.refresh()
        except (OSError, BaseError) as error:
            if not write and isinstance(error, FileNotFoundError):
                raise self._empty() from None
            raise StoreError(
                f"cannot {'write to' if write else 'read'} the results folder {self.root}: {parts.first_line(error)}. "
                "Check store.root and its permissions."
            ) from error
        if not write and not self._next:
            raise self._empty()

    # What is there

    def refresh(self) -> None:
        """Take in the manifests that have appeared since."""
        names = sorted(
            path
            for path in self._list(f"{MANIFEST}/")
            if re.fullmatch(r"\d{8}\.json", path.removeprefix(f"{MANIFEST}/")) and _number(path) >= self._next
        )
        texts = parts.in_parallel(lambda name: bytes(obstore.get(self._objects, name).bytes()), names)
        for name, text in zip(names, texts, strict=True):
            self._apply(*self._parse(name, text))
            self._next = _number(name) + 1

    def done(self) -> dict[Row, str]:
        """Status (schema.DONE or FAILED) of every row that is committed."""
        return {
            (key, replica): self._parts[part_id].status
            for key, owners in self._owner.items()
            for replica, part_id in owners.items()
        }

    def counts(self) -> dict[str, int]:
        """Count the committed rows by status."""
        counts = {DONE: 0, FAILED: 0}
        for part in self._parts.values():
            counts[part.status] += part.lanes
        return counts

    def read(self, table: str = "metrics") -> pa.Table:
        """All committed rows of "metrics", "series", "latency" or "snapshots", sorted by cell key and replica."""
        while True:
            wanted = [part.id for part in self._parts.values() if table in part.tables]
            try:
                found = parts.in_parallel(lambda part_id: parts.load(self._objects, part_id, table), wanted)
            except FileNotFoundError as error:
                before = self._next
                self.refresh()
                if self._next == before:  # no other committer has replaced it
                    raise self._lost(str(error)) from error
            else:
                return _sorted(pa.concat_tables([SCHEMAS[table].empty_table(), *found]))

    # Changes

    def commit(self, new: Iterable[Part], run: str = "") -> list[Part]:
        """Make staged parts count. Returns what was added: rows that are done already are left out.

        A row that has failed before is replaced, whether it is done now or has failed again.
        """
        new = list(new)
        while True:
            change = self._resolve(new)
            if not change.add or self._append(change, run):
                break
            parts.delete(self._objects, self._files(change.rewritten))
        rejected = {part.id for part in new} - {part.id for part in change.add}
        parts.delete(self._objects, self._files(rejected))
        self._settle(change)
        return change.add

    def adopt(self, other: "Store", rows: Iterable[Row], axes: Mapping[str, str]) -> int:
        """Copy those of `rows` that another results folder has done and this one has not. Returns how many.

        `axes` gives the axis values (JSON) that a cell has in this sweep, by cell key.
        """
        theirs = other.done()
        cells: dict[str, list[int]] = {}
        for key, replica in rows:
            if theirs.get((key, replica)) == DONE and not self._is_done(key, replica):
                cells.setdefault(key, []).append(replica)
        if not cells:
            return 0
        part = Part(parts.new_id(_digest(cells), 0), DONE, cells)
        for table in part.tables:
            found = _only(other.read(table), cells)
            if table == "metrics":
                column = found.schema.get_field_index("axes")
                here = pa.array([axes[key] for key in found["cell_key"].to_pylist()], pa.string())
                found = found.set_column(column, SCHEMAS[table].field("axes"), here)
            parts.stage(self._objects, part.id, table, found)
        return sum(added.lanes for added in self.commit([part]))

    def compact(self, run: str = "") -> int:
        """Merge all parts of a status into one, sorted by (cell_key, replica). Returns the number of parts removed.

        Holds one table in memory at a time; the series take about 9 KiB per lane of 96 samples.
        """
        while True:
            change = self._merge()
            if not change.add or self._append(change, run):
                break
            parts.delete(self._objects, self._files(change.rewritten))
        self._settle(change)
        return len(change.remove)

    def export(self, folder: str) -> list[str]:
        """Write metrics, series and latency as one Parquet and one CSV file each. Returns the names of the files."""
        target = parts.connect(folder)
        names = []
        for table in ("metrics", "series", "latency"):
            rows = self.read(table)
            for suffix, data in ((".parquet", parts.parquet_bytes(rows)), (".csv", _csv_bytes(rows))):
                obstore.put(target, table + suffix, data)
                names.append(table + suffix)
        return names

    # Files beside the parts

    def write_text(self, name: str, text: str) -> None:
        """Put a text file, replacing it: `_run.json`, `tables/_comparison.md`."""
        obstore.put(self._objects, _beside(name), text.encode())

    def read_text(self, name: str) -> str | None:
        """Read such a file; None if there is none."""
        try:
            return bytes(obstore.get(self._objects, name).bytes()).decode()
        except FileNotFoundError:
            return None

    def write_table(self, name: str, table: "pd.DataFrame | pa.Table") -> None:
        """Put a table as `<name>.parquet` and `<name>.csv`; `name` is like `tables/_comparison`."""
        arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
        obstore.put(self._objects, _beside(name) + ".parquet", parts.parquet_bytes(arrow))
        obstore.put(self._objects, _beside(name) + ".csv", _csv_bytes(arrow))

    # The protocol

    def _resolve(self, new: list[Part]) -> _Change:
        add, rewritten = [], []
        coming: dict[str, set[int]] = {}
        for part in new:
            fresh = {key: [r for r in replicas if not self._is_done(key, r)] for key, replicas in part.cells.items()}
            fresh = {key: replicas for key, replicas in fresh.items() if replicas}
            for key, replicas in fresh.items():
                coming.setdefault(key, set()).update(replicas)
            if fresh == part.cells:
                add.append(part)
            elif fresh:
                add.append(self._rewrite([part.id], part.status, fresh))
                rewritten.append(add[-1].id)
        replaced = {
            owner for key, replicas in coming.items() for r in replicas if (owner := self._owner.get(key, {}).get(r))
        }
        for part_id in sorted(replaced):
            rest = {
                key: left
                for key, replicas in self._parts[part_id].cells.items()
                if (left := [r for r in replicas if r not in coming.get(key, ())])
            }
            if rest:
                add.append(self._rewrite([part_id], FAILED, rest))
                rewritten.append(add[-1].id)
        return _Change(add, sorted(replaced), rewritten)

    def _merge(self) -> _Change:
        add, remove = [], []
        for status in (DONE, FAILED):
            old = [part for part in self._parts.values() if part.status == status]
            if len(old) > 1:
                cells: dict[str, list[int]] = {}
                for part in old:
                    for key, replicas in part.cells.items():
                        cells.setdefault(key, []).extend(replicas)
                cells = {key: sorted(cells[key]) for key in sorted(cells)}
                add.append(self._rewrite([part.id for part in old], status, cells))
                remove += [part.id for part in old]
        return _Change(add, remove, [part.id for part in add])

    def _rewrite(self, old: list[str], status: str, cells: Mapping[str, list[int]]) -> Part:
        """Stage a new part with those rows of the old ones that `cells` names, sorted."""
        part = Part(parts.new_id(_digest(cells), 0), status, dict(cells))
        for table in part.tables:
            rows = pa.concat_tables(parts.in_parallel(lambda i, t=table: parts.load(self._objects, i, t), old))
            parts.stage(self._objects, part.id, table, _sorted(_only(rows, cells)))
        return part

    def _append(self, change: _Change, run: str) -> bool:
        """Put the next manifest. False, and what others have committed is taken in, if the number was taken."""
        record = {
            "schema": STAMP,
            "run": run,
            "remove": change.remove,
            "add": [{"id": p.id, "status": p.status, "rows": p.lanes, "cells": p.cells} for p in change.add],
        }
        text = json.dumps(record, separators=(",", ":"))
        try:
            obstore.put(self._objects, f"{MANIFEST}/{self._next:08}.json", text.encode(), mode="create")
        except AlreadyExistsError:
            self.refresh()
            return False
        self._apply(change.add, change.remove)
        self._next += 1
        return True

    def _settle(self, change: _Change) -> None:
        parts.delete(self._objects, self._files(change.remove))
        parts.publish(self._objects, [parts.path_of(t, part.id) for part in change.add for t in part.tables])

    def _roll_forward(self) -> None:
        """Finish the commits of killed runs and clear what they left."""
        # Files first, manifests second: a file that counts by now is then never taken for an orphan.
        staged = {path.removeprefix(f"{STAGING}/"): when for path, when in self._list(f"{STAGING}/").items()}
        placed = [path for folder in FOLDERS.values() for path in self._list(f"{folder}/")]
        self.refresh()
        if placed and not self._next:
            raise StoreError(
                f"{self.root} holds {placed[0]} but no {MANIFEST}/: it is not a results folder of kmemexp. "
                "Give another store.root."
            )
        counts = {parts.path_of(table, part.id) for part in self._parts.values() for table in part.tables}
        orphans = [path for path in placed if path not in counts and parts.id_in(path)]
        dead = datetime.now(UTC) - STALE
        orphans += [f"{STAGING}/{path}" for path, when in staged.items() if path not in counts and when < dead]
        parts.delete(self._objects, orphans)
        parts.publish(self._objects, [path for path in staged if path in counts])
        missing = counts.difference(staged, placed)
        if lost := [path for path in sorted(missing) if not self._has(path)]:
            raise self._lost(lost[0])

    def _apply(self, add: Iterable[Part], remove: Iterable[str]) -> None:
        for part_id in remove:
            part = self._parts.pop(part_id)
            for key, replicas in part.cells.items():
                for replica in replicas:
                    del self._owner[key][replica]
        for part in add:
            self._parts[part.id] = part
            for key, replicas in part.cells.items():
                self._owner.setdefault(key, {}).update(dict.fromkeys(replicas, part.id))

    def _parse(self, name: str, text: bytes) -> tuple[list[Part], list[str]]:
        try:
            record = json.loads(text)
            self._check_stamp(record["schema"])
            add = [Part(p["id"], p["status"], p["cells"]) for p in record["add"]]
            remove = [part_id for part_id in record["remove"] if self._parts[part_id]]
        except StoreError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{self.root}/{name} is damaged ({type(error).__name__}: {parts.first_line(error)}). If it is the last "
                "one, delete it: its rows are simulated again. Otherwise give another store.root."
            ) from error
        return add, remove

    def _check_stamp(self, stamp: str) -> None:
        if stamp != STAMP:
            raise StoreError(
                f"{self.root} holds results of another version of kmemexp (columns {stamp}, this version writes "
                f"{STAMP}). Give another store.root, delete the folder, or use the version that wrote it."
            )

    # Helpers

    def _is_done(self, key: str, replica: int) -> bool:
        owner = self._owner.get(key, {}).get(replica)
        return owner is not None and self._parts[owner].status == DONE

    def _files(self, ids: Iterable[str]) -> list[str]:
        """Every path at which files of these parts may be."""
        places = [parts.path_of(table, part_id) for part_id in ids for table in FOLDERS]
        return places + [f"{STAGING}/{path}" for path in places]

    def _list(self, prefix: str) -> dict[str, datetime]:
        """Modification time by path."""
        return {meta["path"]: meta["last_modified"] for chunk in obstore.list(self._objects, prefix) for meta in chunk}

    def _has(self, path: str) -> bool:
        for place in (f"{STAGING}/{path}", path):
            try:
                obstore.head(self._objects, place)
            except FileNotFoundError:
                continue
            return True
        return False

    def _empty(self) -> StoreError:
        return StoreError(f"no results in {self.root}: run the sweep first, or give the folder of another one.")

    def _lost(self, path: str) -> StoreError:
        return StoreError(
            f"{self.root}/{path} is gone, but the manifest counts it. Put it back, or delete the whole folder and run "
            "the sweep again."
        )


def _digest(cells: Mapping[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(cells.items())).encode()).hexdigest()[:20]


def _number(path: str) -> int:
    return int(path[-13:-5])


def _codes(table: pa.Table) -> tuple[np.ndarray, dict[str, int]]:
    """One integer per row that sorts like (cell_key, replica), and the rank of each cell key in it."""
    keys = pc.dictionary_encode(table["cell_key"].combine_chunks())
    order = pc.sort_indices(keys.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    codes = rank[keys.indices.to_numpy()] << 32 | table["replica"].to_numpy()
    return codes, dict(zip(keys.dictionary.to_pylist(), rank.tolist(), strict=True))


def _sorted(table: pa.Table) -> pa.Table:
    """By cell key and replica; the samples of a lane keep their order."""
    codes, _ = _codes(table)
    return table if np.all(codes[:-1] <= codes[1:]) else table.take(np.argsort(codes, kind="stable"))


def _only(table: pa.Table, cells: Mapping[str, list[int]]) -> pa.Table:
    """Rows of the lanes that `cells` names."""
    codes, rank = _codes(table)
    wanted = [rank[key] << 32 | replica for key, replicas in cells.items() if key in rank for replica in replicas]
    return table.filter(np.isin(codes, wanted))


def _csv_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    csv.write_csv(table, buffer)
    return buffer.getvalue()


def _beside(name: str) -> str:
    if not name.rpartition("/")[2].startswith("_"):
        raise ValueError(f"{name}: files beside the parts begin with an underscore, or pd.read_parquet reads them")
    return name
