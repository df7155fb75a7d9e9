"""The results folder: which files count, and how that changes without ever showing half a change.

    data/ _series/ …              committed files: metrics, series, latency, snapshots, caches (files.FOLDERS)
    _manifest/<8 digits>.json    the truth: each adds and removes files, in order
    _staging/                    files that workers have written and no manifest names, or that are on the move
    _writers/                    who writes here now
    _quarantine/                 what was damaged, or stood here without a manifest that names it
    _run.json, tables/_*         provenance and tables of the last run, and what these tables were made of
    _axes.parquet                axes that cells have in the plan that used them last
    _columns.json                axes that the files have columns of

A worker stages files under an id of their own. The committer then (1) puts the next manifest, which fails if another
committer took the number, (2) deletes what the manifest removes, (3) moves what it adds out of staging. Between
(1) and (3) a reader that goes by the manifest sees the new state, and one that lists data/ sees the old one or some
rows missing, never a row twice or one that does not count. Opening for writing finishes (2) and (3) for a committer
that was killed there.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import obstore
import pyarrow as pa
import pyarrow.compute as pc

from kmemexp.errors import StoreError
from kmemexp.store import checking, files, labels, manifest, merging, remote, tidy
from kmemexp.store import rows as in_table
from kmemexp.store.beside import COLUMNS, Beside
from kmemexp.store.checking import Damage
from kmemexp.store.files import DamageError, LaneFiles
from kmemexp.store.history import History
from kmemexp.store.layout import Layout, layout_of
from kmemexp.store.ledger import Ledger, Row
from kmemexp.store.manifest import Change
from kmemexp.store.schema import DONE, ENCODED, FAILED, SCHEMAS, schema_of
from kmemexp.store.writers import Watch, Writer

AXES_ONLY = ("cell_key", "replica", "axes")
__all__ = ["Committed", "Row", "Store", "with_results"]


class Committed(NamedTuple):
    """What came of a commit."""

    added: list[LaneFiles]
    lost: list[LaneFiles]  # files that are not there any more, or not whole: their rows must be simulated again


class Store(Beside):
    """A results folder, for reading or (`write=True`) for one committer; several committers do each other no harm.

    `root` is a path or a URI that obstore knows. Raises StoreError where the folder is missing (reading), cannot be
    written, is not a results folder, was laid out by a later version, or is damaged. `uri` is the same folder in a form
    that holds in other processes too. `strays`: files that opening it has moved to `_quarantine/`.
    """

    def __init__(self, root: str, *, write: bool = False) -> None:
        self.root = remote.bare(str(root))
        self.uri = files.absolute(str(root))
        self.strays: list[str] = []
        self._watch = Watch()
        try:
            with files.explained(self.root, "write to" if write else "read"):
                self._objects = files.connect(self.uri, create=write)
                self._history = History(self._objects, rows=write)
                self._writer = Writer(self._objects)
                if write:
                    self._open_for_writing()
                else:
                    self.refresh()
        except FileNotFoundError:
            raise self._empty() from None
        if not write and not self._history.next:
            raise self._empty()

    def close(self) -> None:
        """End writing: what is staged in this store's name from now on is nobody's."""
        self._writer.leave()

    # What is there

    def refresh(self) -> None:
        """Take in the manifests that have appeared since."""
        with self._explaining():
            self._history.refresh()

    def done(self) -> dict[Row, str]:
        """Status (schema.DONE or FAILED) of every row that is committed."""
        return self._ledger.done()

    def status(self, key: str, replica: int) -> str | None:
        """Status of one row; None where it is not there."""
        with self._explaining():
            return self._ledger.status(key, replica)

    def counts(self) -> dict[str, int]:
        """Count the committed rows by status."""
        return self._ledger.counts()

    def counts_of(self, wanted: Iterable[tuple[str, int]]) -> Counter[str]:
        """Count those that are there of so many replicas of each cell, by status."""
        with self._explaining():
            return self._ledger.counts_of(wanted)

    def missing(self, wanted: Iterable[tuple[str, int]], enough: Collection[str]) -> list[tuple[int, ...]]:
        """Of so many replicas of each cell, give those that are not there with a status that is `enough`."""
        with self._explaining():
            return self._ledger.missing(wanted, enough)

    def read(
        self, table: str = "metrics", columns: Collection[str] | None = None, *, ordered: bool = True,
        encoded: bool = False, latest_axes: bool = True,
    ) -> pa.Table:  # fmt: skip
        """All committed rows of a table, "metrics" or another of `SCHEMAS`, sorted by cell key and replica.

        `columns`: only these, "cell_key" and "replica" among them. Not `ordered`: as they lie in the files, sooner.
        `encoded`: with texts as dictionaries, which hold each once. Not `latest_axes`: with the axes, as plain texts,
        that each row was written with, which `known_axes` may know better. Raises DamageError, where a row is there
        twice too.
        """
        names = [name for name in ENCODED if latest_axes or name != "axes"]
        while True:
            wanted = [stored for stored in self._ledger.files.values() if table in stored.tables]
            before = self._history.next
            try:
                with self._explaining(), files.explained(self.root, "read"):
                    found = files.load_all(self._objects, wanted, table, columns, encoded=encoded)
                    whole = pa.concat_tables([schema_of(table, columns, encoded=encoded).empty_table(), *found])
                    with in_table.fitting(self.root):
                        whole = in_table.encoded(whole, names) if encoded else whole
                    if table != "metrics" or in_table.has_twice(whole):
                        self._ledger.index()  # which says what file has a row that another has
            except (FileNotFoundError, DamageError) as error:
                self.refresh()
                if self._history.next == before:  # no other committer has replaced it
                    raise error if isinstance(error, DamageError) else self._lost(str(error)) from error
            else:
                with in_table.fitting(self.root):
                    whole = in_table.in_order(whole) if ordered else whole
                known = self.known_axes() if latest_axes and "axes" in whole.column_names else None
                return whole if known is None else in_table.with_known_axes(whole, known)

    def settled(self) -> bool:
        """Whether every file that counts is in its place, and nobody has left anything to be finished or cleared."""
        return tidy.settled(self._objects, self._ledger)

    def check(self) -> list[Damage]:
        """Read every byte of what counts. Returns what is damaged; raises nothing for it."""
        return checking.check_files(self._objects, sorted(self._ledger.paths(), key=lambda one: one[0]))

    # Changes

    @property
    def writer(self) -> str:
        """Id of this store as a writer, in whose name files may be staged."""
        self.beat()
        return self._writer.id

    def beat(self, progress: Mapping[str, Any] | None = None) -> None:
        """Say that this store lives. To be called every few seconds while something is staged in its name."""
        with files.explained(self.root):
            self._writer.beat(progress)

    def drivers(self) -> dict[str, dict[str, Any]]:
        """Who may be writing here now, described, and how far each has come (`sweep.progress.Quiet.state`)."""
        return tidy.progress(self._objects, self._watch)

    def clear(self) -> None:
        """Delete what dead writers have left. Writers elsewhere must be watched a while to be known as dead."""
        with files.explained(self.root):
            tidy.clear(self._objects, self._ledger, self.refresh, self._watch)

    def commit(self, staged: Iterable[LaneFiles], run: str = "") -> Committed:
        """Make staged files count, but for rows that are done already, and files that are not whole.

        A row that has failed before is replaced, whether it is done now or has failed again.
        """
        staged = list(staged)
        mine = {new.id for new in staged}
        with files.explained(self.root), self._explaining():
            while True:
                whole = files.in_parallel(self._is_whole, staged)
                lost = [new for new, one in zip(staged, whole, strict=True) if not one]
                try:
                    change = self._resolve([new for new in staged if new not in lost])
                except (FileNotFoundError, DamageError):
                    if all(map(self._is_whole, staged)):
                        raise  # it is not one of those
                    continue
                if not change.add or self._history.append(change, run):
                    break
                self._delete(new.id for new in change.add if new.id not in mine)
            self._delete(mine - {new.id for new in change.add})
            self._settle(change)
            self._history.write_whole()
        return Committed(change.add, lost)

    def take_axes(self, axes: Mapping[str, str], layout: Layout) -> Layout:
        """Let cells (by key) have these axis values (JSON) from now on, in files too; `layout`: what axes these are.

        Files that have other columns are written anew. Returns the layout of the folder.
        """
        before = self.layout()
        now = (before or layout_of(self._own_axes())).joined(layout)
        changed = self.note_axes(axes)
        if before is None or now.mark != before.mark:
            self.write_text(COLUMNS, now.text)
        stored = list(self._ledger.files.values())
        with self._explaining():
            stale = [one for one in stored if one.layout != now.mark or self._differs(one, axes, changed)]
            for status in (DONE, FAILED):
                for group in merging.packed([one for one in stale if one.status == status]):
                    if group:
                        self._merge(status, group, "")
        return now

    def adopt(self, other: "Store", rows: Iterable[Row], axes: Mapping[str, str]) -> int:
        """Copy those of `rows` that another results folder has done and this one has not. Returns how many.

        `axes` gives the axis values (JSON) that a cell has in this sweep, by cell key.
        """
        lanes: dict[str, list[int]] = {}
        for key, replica in rows:
            if other.status(key, replica) == DONE and not self._ledger.is_done(key, replica):
                lanes.setdefault(key, []).append(replica)
        if not lanes:
            return 0
        tables = {table: in_table.of_lanes(other.read(table), lanes) for table in SCHEMAS}
        tables["metrics"] = in_table.with_axes(tables["metrics"], axes)
        with files.explained(self.root):
            copy = self._staged(DONE, lanes, tables.__getitem__)
        return sum(added.lanes for added in self.commit([copy]).added)

    def compact(self, run: str = "") -> int:
        """Merge the files of a status into few, sorted by (cell_key, replica).

        Returns how many were merged, counted in one table; 0 where there was nothing to merge. Holds one table of
        `merging.MOST_LANES` rows in memory at a time.
        """
        with self._explaining():
            merged = sum(self._merge(status, group, run) for status, group in merging.groups(self._ledger))
            self._history.write_whole(now=True)
        return merged

    def merge_small(self, run: str = "") -> int:
        """Merge small files where there are many, as a sweep goes on."""
        with self._explaining():
            return sum(self._merge(status, group, run) for status, group in merging.due(self._ledger))

    def export(self, folder: str) -> list[str]:
        """Write metrics, series and latency as one Parquet and one CSV file each. Returns the names of the files."""
        target = files.connect(folder)
        names = []
        for table in ("metrics", "series", "latency"):
            rows = self.read(table)
            for suffix, data in ((".parquet", files.parquet_bytes(rows)), (".csv", in_table.csv_bytes(rows))):
                with files.explained(folder):
                    obstore.put(target, table + suffix, data)
                names.append(table + suffix)
        return names

    def counting(self, table: str = "metrics") -> list[str]:
        """Paths of the committed files of a table, sorted."""
        return sorted(path for path, _, of in self._ledger.paths() if of == table)

    # The protocol

    @property
    def _ledger(self) -> Ledger:
        return self._history.ledger

    def _open_for_writing(self) -> None:
        found = tidy.Found(self._objects)
        self.refresh()
        if found.placed and not self._history.next:
            raise StoreError(
                f"{self.root} holds {found.placed[0]} but no {manifest.FOLDER}/: it is no results folder of kmemexp, "
                "or has lost its manifests. Nothing was changed. Give another store.root, or put them back."
            )
        self.strays = tidy.roll_forward(self._objects, found, self._ledger)
        wanted = {path for path, _, _ in self._ledger.paths()}
        missing = wanted.difference(found.staged, found.placed)
        if lost := [path for path in sorted(missing) if files.size_of(self._objects, path) is None]:
            raise self._lost(lost[0])
        self.clear()

    def _resolve(self, staged: Sequence[LaneFiles]) -> Change:
        """Make the change that adds what is not done yet and replaces what has failed."""
        add = []
        coming: dict[str, set[int]] = {}
        for new in staged:
            if self._ledger.knows_none(new.cells) and coming.keys().isdisjoint(new.cells):
                coming.update({key: set(replicas) for key, replicas in new.cells.items()})
                add.append(new)
                continue
            fresh = {key: [r for r in rs if not self._is_taken(key, r, coming)] for key, rs in new.cells.items()}
            fresh = {key: replicas for key, replicas in fresh.items() if replicas}
            for key, replicas in fresh.items():
                coming.setdefault(key, set()).update(replicas)
            if fresh == {key: list(replicas) for key, replicas in new.cells.items()}:
                add.append(new)
            elif fresh:
                add.append(self._rewrite([new], new.status, fresh))
        owners = (self._ledger.owner(key, r) for key, replicas in coming.items() for r in replicas)
        replaced = {owner.id: owner for owner in owners if owner}
        for _, old in sorted(replaced.items()):
            rest = {
                key: left
                for key, replicas in old.cells.items()
                if (left := [r for r in replicas if r not in coming.get(key, ())])
            }
            if rest:
                add.append(self._rewrite([old], FAILED, rest))
        return Change(add, sorted(replaced))

    def _is_taken(self, key: str, replica: int, coming: Mapping[str, set[int]]) -> bool:
        return replica in coming.get(key, ()) or self._ledger.is_done(key, replica)

    def _merge(self, status: str, group: Sequence[LaneFiles], run: str) -> int:
        """Put one file per table in the place of some. 0 if another committer has changed one of them meanwhile."""
        with files.explained(self.root):
            merged = self._rewrite(group, status, merging.lanes_of(group))
            change = Change([merged], [stored.id for stored in group])
            while not self._history.append(change, run):
                if any(stored.id not in self._ledger.files for stored in group):
                    self._delete([merged.id])
                    return 0
            self._settle(change)
        return len(group)

    def _rewrite(self, old: Sequence[LaneFiles], status: str, lanes: Mapping[str, list[int]]) -> LaneFiles:
        """Stage new files with those rows of the old ones that `lanes` names, sorted."""

        def rows_of(table: str) -> pa.Table:
            those = [each for each in old if table in each.tables]
            found = pa.concat_tables([SCHEMAS[table].empty_table(), *files.load_all(self._objects, those, table)])
            return in_table.in_order(in_table.of_lanes(found, lanes))

        return self._staged(status, lanes, rows_of)

    def _staged(self, status: str, lanes: Mapping[str, list[int]], rows_of: Callable[[str], pa.Table]) -> LaneFiles:
        """Stage files with the rows that `rows_of` gives for a table."""
        named = hashlib.sha256(json.dumps(sorted(lanes.items())).encode()).hexdigest()[:20]
        new = LaneFiles(files.new_id(named, 0, self.writer), status, dict(lanes))
        layout, known = self.layout() or Layout(), self.known_axes()
        metrics = rows_of("metrics")
        metrics = metrics if known is None else in_table.with_known_axes(metrics, known)
        of_cells = labels.cells_of(metrics, layout)
        sums = {}
        for table in files.tables_of(status):
            rows = metrics if table == "metrics" else rows_of(table)
            sums[table] = files.stage(self._objects, new.id, table, labels.labelled(rows, of_cells, table, layout))
        return new._replace(sums=sums, layout=layout.mark)

    def _settle(self, change: Change) -> None:
        """Move and delete files as a manifest says."""
        self._delete(change.remove)
        files.publish(self._objects, [files.path_of(table, new.id) for new in change.add for table in new.tables])

    # Helpers

    def _own_axes(self) -> list[str]:
        """Axes of all rows, by the rows and by the plans that used them last."""
        if not any(self._ledger.counts().values()):
            return []
        return [str(text) for text in pc.unique(self.read("metrics", AXES_ONLY)["axes"]).to_pylist() if text]

    def _differs(self, stored: LaneFiles, axes: Mapping[str, str], changed: Collection[str]) -> bool:
        """Whether some cell that is in a file had other axes when it was written; only `changed` ones may have had."""
        if not changed or not any(key in changed for key in stored.cells):
            return False
        rows = files.load(self._objects, stored, "metrics").select(["cell_key", "axes"])
        pairs = zip(rows["cell_key"].to_pylist(), rows["axes"].to_pylist(), strict=True)
        return any(axes.get(str(key), text) != text for key, text in pairs)

    def _is_whole(self, new: LaneFiles) -> bool:
        return files.is_whole(self._objects, new)

    def _delete(self, ids: Iterable[str]) -> None:
        """Delete the files of these ids, wherever they are."""
        places = [files.path_of(table, file_id) for file_id in ids for table in files.FOLDERS]
        files.delete(self._objects, places + [f"{files.STAGING}/{path}" for path in places])

    def _empty(self) -> StoreError:
        return StoreError(f"no results in {self.root}: run the sweep first, or give the folder of another one.")


def with_results(root: str) -> Store:
    """Open a results folder for reading. Raises StoreError if there are no results in it."""
    store = Store(root)
    if not any(store.counts().values()):
        raise StoreError(
            f"no results in {store.root} yet: run the sweep first, such as `python -m kmemexp +sweep=fragmentation`, "
            "or give the folder of another one."
        )
    return store
