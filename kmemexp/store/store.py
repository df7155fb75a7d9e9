"""The results folder: which files count, and how that changes without ever showing half a change.

    data/ _series/ _latency/ _snapshots/   committed files: metrics, series, latency, snapshots
    _manifest/<8 digits>.json    the truth: each adds and removes files, in order
    _staging/                    files that workers have written and no manifest names, or that are on the move
    _run.json, tables/_*         provenance and tables of the last run, and what these tables were made of

A worker stages files under an id of their own. The committer then (1) puts the next manifest, which fails if another
committer took the number, (2) deletes what the manifest removes, (3) moves what it adds out of staging. Between
(1) and (3) a reader that goes by the manifest sees the new state, and one that lists data/ sees the old one or some
rows missing, never a row twice or one that does not count. Opening for writing finishes (2) and (3) for a committer
that was killed there.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError

from kmemexp.errors import StoreError
from kmemexp.store import files, manifest
from kmemexp.store import rows as in_table
from kmemexp.store.files import FOLDERS, STAGING, LaneFiles
from kmemexp.store.manifest import Change
from kmemexp.store.schema import DONE, FAILED, SCHEMAS

if TYPE_CHECKING:
    import pandas as pd
    from obstore import ObjectMeta

STALE = timedelta(hours=24)
"""Staged files that no manifest names belong to a living run for at most this long."""

Row = tuple[str, int]  # (cell key, replica): the identity of a result


class Store:
    """A results folder, for reading or (`write=True`) for one committer; several committers do each other no harm.

    `root` is a path or a URI that obstore knows. Raises StoreError where the folder is missing (reading), cannot be
    written, is not a results folder, was written with other columns, or is damaged. `uri` is the same folder in a form
    that holds in other processes too.
    """

    def __init__(self, root: str, *, write: bool = False) -> None:
        self.root = str(root)
        self.uri = files.absolute(self.root)
        self._next = 0  # number of the next manifest
        self._counting: dict[str, LaneFiles] = {}  # by id
        self._owner: dict[str, dict[int, str]] = {}  # id of the files by cell key and replica
        try:
            self._objects = files.connect(self.root, create=write)
            if write:
                self._roll_forward()
            else:
                self.refresh()
        except (OSError, BaseError) as error:
            if not write and isinstance(error, FileNotFoundError):
                raise self._empty() from None
            raise StoreError(
                f"cannot {'write to' if write else 'read'} the results folder {self.root}: {files.first_line(error)}. "
                "Check store.root and its permissions."
            ) from error
        if not write and not self._next:
            raise self._empty()

    # What is there

    def refresh(self) -> None:
        """Take in the manifests that have appeared since."""
        numbers = {path: manifest.number_in(path) for path in self._list(f"{manifest.FOLDER}/")}
        new = sorted((n, path) for path, n in numbers.items() if n is not None and n >= self._next)
        texts = files.in_parallel(lambda found: bytes(obstore.get(self._objects, found[1]).bytes()), new)
        for (number, path), text in zip(new, texts, strict=True):
            self._apply(manifest.decode(self.root, path, text, self._counting))
            self._next = number + 1

    def done(self) -> dict[Row, str]:
        """Status (schema.DONE or FAILED) of every row that is committed."""
        return {
            (key, replica): self._counting[owner].status
            for key, owners in self._owner.items()
            for replica, owner in owners.items()
        }

    def counts(self) -> dict[str, int]:
        """Count the committed rows by status."""
        counts = {DONE: 0, FAILED: 0}
        for stored in self._counting.values():
            counts[stored.status] += stored.lanes
        return counts

    def read(self, table: str = "metrics") -> pa.Table:
        """All committed rows of "metrics", "series", "latency" or "snapshots", sorted by cell key and replica."""
        while True:
            wanted = [stored.id for stored in self._counting.values() if table in stored.tables]
            try:
                found = self._load(wanted, table)
            except FileNotFoundError as error:
                before = self._next
                self.refresh()
                if self._next == before:  # no other committer has replaced it
                    raise self._lost(str(error)) from error
            else:
                return in_table.in_order(pa.concat_tables([SCHEMAS[table].empty_table(), *found]))

    # Changes

    def commit(self, staged: Iterable[LaneFiles], run: str = "") -> list[LaneFiles]:
        """Make staged files count. Returns what was added: rows that are done already are left out.

        A row that has failed before is replaced, whether it is done now or has failed again.
        """
        staged = list(staged)
        mine = {new.id for new in staged}
        while True:
            change = self._resolve(staged)
            if not change.add or self._append(change, run):
                break
            self._delete(new.id for new in change.add if new.id not in mine)
        self._delete(mine - {new.id for new in change.add})
        self._settle(change)
        return change.add

    def adopt(self, other: "Store", rows: Iterable[Row], axes: Mapping[str, str]) -> int:
        """Copy those of `rows` that another results folder has done and this one has not. Returns how many.

        `axes` gives the axis values (JSON) that a cell has in this sweep, by cell key.
        """
        theirs = other.done()
        lanes: dict[str, list[int]] = {}
        for key, replica in rows:
            if theirs.get((key, replica)) == DONE and not self._is_done(key, replica):
                lanes.setdefault(key, []).append(replica)
        if not lanes:
            return 0
        copy = _new_files(DONE, lanes)
        for table in copy.tables:
            found = in_table.of_lanes(other.read(table), lanes)
            files.stage(self._objects, copy.id, table, in_table.with_axes(found, axes) if table == "metrics" else found)
        return sum(added.lanes for added in self.commit([copy]))

    def compact(self, run: str = "") -> int:
        """Merge the files of a status into one per table, sorted by (cell_key, replica).

        Returns how many there were before, counted in one table; 0 where there was nothing to merge. Holds one table in
        memory at a time; the series take about 9 KiB per lane of 96 samples.
        """
        while True:
            change = self._merge()
            if not change.add or self._append(change, run):
                break
            self._delete(merged.id for merged in change.add)
        self._settle(change)
        return len(change.remove)

    def export(self, folder: str) -> list[str]:
        """Write metrics, series and latency as one Parquet and one CSV file each. Returns the names of the files."""
        target = files.connect(folder)
        names = []
        for table in ("metrics", "series", "latency"):
            rows = self.read(table)
            for suffix, data in ((".parquet", files.parquet_bytes(rows)), (".csv", in_table.csv_bytes(rows))):
                obstore.put(target, table + suffix, data)
                names.append(table + suffix)
        return names

    # Files beside the tables

    def write_text(self, name: str, text: str) -> dict[str, str]:
        """Put a text file, replacing it: `_run.json`, `tables/_comparison.md`. Returns its mark, see `marks`."""
        return self._put(name, text.encode())

    def read_text(self, name: str) -> str | None:
        """Read such a file; None if there is none."""
        return files.read_text(self._objects, name)

    def remove_text(self, name: str) -> None:
        """Remove such a file; one that is not there is no error."""
        files.delete(self._objects, [_beside(name)])

    def write_table(self, name: str, table: "pd.DataFrame | pa.Table") -> dict[str, str]:
        """Put a table as `<name>.parquet` and `<name>.csv`, and return their marks.

        `name` is like `tables/_comparison`.
        """
        arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
        parquet = self._put(f"{name}.parquet", files.parquet_bytes(arrow))
        return parquet | self._put(f"{name}.csv", in_table.csv_bytes(arrow))

    def marks(self, folder: str) -> dict[str, str]:
        """Marks of the files in a folder ("data", "tables"), by path: a file that is written again has another mark.

        A mark is the store's e-tag: on a disk it is made of inode, time of modification and size. Left out are files
        for which the store gives none.
        """
        return {meta["path"]: tag for meta in self._metas(f"{folder}/") if (tag := meta["e_tag"])}

    def counting(self, table: str = "metrics") -> list[str]:
        """Paths of the committed files of a table, sorted."""
        return sorted(files.path_of(table, stored.id) for stored in self._counting.values() if table in stored.tables)

    # The protocol

    def _resolve(self, staged: Sequence[LaneFiles]) -> Change:
        """Make the change that adds what is not done yet and replaces what has failed."""
        add = []
        coming: dict[str, set[int]] = {}
        for new in staged:
            fresh = {key: [r for r in replicas if not self._is_done(key, r)] for key, replicas in new.cells.items()}
            fresh = {key: replicas for key, replicas in fresh.items() if replicas}
            for key, replicas in fresh.items():
                coming.setdefault(key, set()).update(replicas)
            if fresh == new.cells:
                add.append(new)
            elif fresh:
                add.append(self._rewrite([new.id], new.status, fresh))
        replaced = {
            owner for key, replicas in coming.items() for r in replicas if (owner := self._owner.get(key, {}).get(r))
        }
        for file_id in sorted(replaced):
            rest = {
                key: left
                for key, replicas in self._counting[file_id].cells.items()
                if (left := [r for r in replicas if r not in coming.get(key, ())])
            }
            if rest:
                add.append(self._rewrite([file_id], FAILED, rest))
        return Change(add, sorted(replaced))

    def _merge(self) -> Change:
        """Make the change that puts one file per table in the place of all files of a status."""
        change = Change([], [])
        for status in (DONE, FAILED):
            old = [stored for stored in self._counting.values() if stored.status == status]
            if len(old) > 1:
                lanes: dict[str, list[int]] = {}
                for stored in old:
                    for key, replicas in stored.cells.items():
                        lanes.setdefault(key, []).extend(replicas)
                lanes = {key: sorted(lanes[key]) for key in sorted(lanes)}
                change.add.append(self._rewrite([stored.id for stored in old], status, lanes))
                change.remove.extend(stored.id for stored in old)
        return change

    def _rewrite(self, old: Sequence[str], status: str, lanes: Mapping[str, list[int]]) -> LaneFiles:
        """Stage new files with those rows of the old ones that `lanes` names, sorted."""
        new = _new_files(status, lanes)
        for table in new.tables:
            rows = in_table.of_lanes(pa.concat_tables(self._load(old, table)), lanes)
            files.stage(self._objects, new.id, table, in_table.in_order(rows))
        return new

    def _append(self, change: Change, run: str) -> bool:
        """Put the next manifest. False, and what others have committed is taken in, if the number was taken."""
        text = manifest.encode(change, run)
        try:
            obstore.put(self._objects, manifest.path_of(self._next), text, mode="create")
        except AlreadyExistsError:
            self.refresh()
            return False
        self._apply(change)
        self._next += 1
        return True

    def _settle(self, change: Change) -> None:
        """Move and delete files as a manifest says."""
        self._delete(change.remove)
        files.publish(self._objects, [files.path_of(table, new.id) for new in change.add for table in new.tables])

    def _roll_forward(self) -> None:
        """Finish the commits of killed runs and clear what they left."""
        # Files first, manifests second: a file that counts by now is then never taken for an orphan.
        staged = {path.removeprefix(f"{STAGING}/"): when for path, when in self._list(f"{STAGING}/").items()}
        placed = [path for folder in FOLDERS.values() for path in self._list(f"{folder}/")]
        self.refresh()
        if placed and not self._next:
            raise StoreError(
                f"{self.root} holds {placed[0]} but no {manifest.FOLDER}/: it is not a results folder of kmemexp. "
                "Give another store.root."
            )
        wanted = {files.path_of(table, stored.id) for stored in self._counting.values() for table in stored.tables}
        orphans = [path for path in placed if path not in wanted and files.id_in(path)]
        dead = datetime.now(UTC) - STALE
        orphans += [f"{STAGING}/{path}" for path, when in staged.items() if path not in wanted and when < dead]
        files.delete(self._objects, orphans)
        files.publish(self._objects, [path for path in staged if path in wanted])
        missing = wanted.difference(staged, placed)
        if lost := [path for path in sorted(missing) if not self._has(path)]:
            raise self._lost(lost[0])

    def _apply(self, change: Change) -> None:
        """Let the files count that a manifest adds, and no longer those that it removes."""
        for file_id in change.remove:
            for key, replicas in self._counting.pop(file_id).cells.items():
                for replica in replicas:
                    del self._owner[key][replica]
        for new in change.add:
            self._counting[new.id] = new
            for key, replicas in new.cells.items():
                self._owner.setdefault(key, {}).update(dict.fromkeys(replicas, new.id))

    # Helpers

    def _is_done(self, key: str, replica: int) -> bool:
        owner = self._owner.get(key, {}).get(replica)
        return owner is not None and self._counting[owner].status == DONE

    def _load(self, ids: Sequence[str], table: str) -> list[pa.Table]:
        return files.in_parallel(lambda file_id: files.load(self._objects, file_id, table), ids)

    def _delete(self, ids: Iterable[str]) -> None:
        """Delete the files of these ids, wherever they are."""
        places = [files.path_of(table, file_id) for file_id in ids for table in FOLDERS]
        files.delete(self._objects, places + [f"{STAGING}/{path}" for path in places])

    def _put(self, name: str, data: bytes) -> dict[str, str]:
        tag = obstore.put(self._objects, _beside(name), data)["e_tag"]
        return {name: tag} if tag else {}

    def _list(self, prefix: str) -> dict[str, datetime]:
        """Modification time by path."""
        return {meta["path"]: meta["last_modified"] for meta in self._metas(prefix)}

    def _metas(self, prefix: str) -> "Iterator[ObjectMeta]":
        return (meta for chunk in obstore.list(self._objects, prefix) for meta in chunk)

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


def with_results(root: str) -> Store:
    """Open a results folder for reading. Raises StoreError if there are no results in it."""
    store = Store(root)
    if not any(store.counts().values()):
        raise StoreError(
            f"no results in {store.root} yet: run the sweep first, such as `python -m kmemexp +sweep=fragmentation`, "
            "or give the folder of another one."
        )
    return store


def _new_files(status: str, lanes: Mapping[str, list[int]]) -> LaneFiles:
    """Name files for these lanes, whose id begins with a digest of what they hold."""
    digest = hashlib.sha256(json.dumps(sorted(lanes.items())).encode()).hexdigest()[:20]
    return LaneFiles(files.new_id(digest, 0), status, dict(lanes))


def _beside(name: str) -> str:
    if not name.rpartition("/")[2].startswith("_"):
        raise ValueError(f"{name}: files beside the tables begin with an underscore, or pd.read_parquet reads them")
    return name
