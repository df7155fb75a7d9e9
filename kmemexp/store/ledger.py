"""What counts in a results folder, in memory: which files, and which of them a row is in."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from kmemexp.store.files import DamageError, LaneFiles, path_of
from kmemexp.store.manifest import Change
from kmemexp.store.schema import DONE, FAILED

Row = tuple[str, int]  # (cell key, replica): the identity of a result


class Ledger:
    """The files that count, and the owner of each row. Some 250 bytes a cell, once `index` has been called."""

    def __init__(self) -> None:
        self.files: dict[str, LaneFiles] = {}  # by id
        self.removed: set[str] = set()  # ids that have counted
        self._where: dict[str, LaneFiles | tuple[LaneFiles, ...]] | None = None  # by cell key

    def apply(self, change: Change) -> None:
        """Let the files count that a manifest adds, and no longer those that it removes.

        Raises ValueError, and changes nothing, where that cannot be: it removes what does not count, or adds a row
        that another file has, if this ledger has an index.
        """
        self._check(change)
        for file_id in change.remove:
            old = self.files.pop(file_id)
            self.removed.add(file_id)
            for key in old.cells if self._where is not None else ():
                rest = tuple(f for f in self._files_of(key) if f is not old)
                self._put(key, rest)
        for new in change.add:
            self.files[new.id] = new
            if self._where is not None:
                self._place(new)

    def index(self) -> None:
        """Find where each row is, and keep that up from now on; a reader of whole tables does without.

        Raises DamageError where two files have the same row.
        """
        if self._where is not None:
            return
        self._where = {}
        try:
            for stored in self.files.values():
                self._check_rows(stored, ())
                self._place(stored)
        except ValueError as error:
            self._where = None
            raise DamageError(f"{path_of('metrics', stored.id)} cannot count: {error}") from error

    def knows_none(self, keys: Collection[str]) -> bool:
        """Whether no row of any of these cells is there."""
        return self._rows.keys().isdisjoint(keys)

    def owner(self, key: str, replica: int) -> LaneFiles | None:
        """Find the file that has a row."""
        return next((f for f in self._files_of(key) if replica in f.cells[key]), None)

    def status(self, key: str, replica: int) -> str | None:
        """DONE, FAILED or None for a row that is not there."""
        found = self.owner(key, replica)
        return found.status if found else None

    def is_done(self, key: str, replica: int) -> bool:
        """Whether a row is there and has not failed."""
        return self.status(key, replica) == DONE

    def done(self) -> dict[Row, str]:
        """Status of every row."""
        return {
            (key, replica): stored.status
            for stored in self.files.values()
            for key, replicas in stored.cells.items()
            for replica in replicas
        }

    def missing(self, wanted: Iterable[tuple[str, int]], enough: Collection[str]) -> list[tuple[int, ...]]:
        """Of so many replicas of each cell, give those that are not there with a status that is `enough`."""
        known: dict[tuple[int, ...], tuple[int, ...]] = {}  # most cells share one
        found = []
        for key, count in wanted:
            left: Sequence[int] = range(count)
            for stored in self._files_of(key):
                if stored.status in enough:
                    left = _without(left, stored.cells[key])
            each = tuple(left)
            found.append(known.setdefault(each, each))
        return found

    def counts_of(self, wanted: Iterable[tuple[str, int]]) -> Counter[str]:
        """Count those that are there of so many replicas of each cell, by status."""
        counts: Counter[str] = Counter()
        for key, count in wanted:
            for stored in self._files_of(key):
                there = stored.cells[key]
                counts[stored.status] += len(there) if max(there) < count else sum([r < count for r in there])
        return counts

    def counts(self) -> dict[str, int]:
        """Rows by status."""
        counts = {DONE: 0, FAILED: 0}
        for stored in self.files.values():
            counts[stored.status] += stored.lanes
        return counts

    def paths(self) -> Iterator[tuple[str, LaneFiles, str]]:
        """Yield every file that counts: its path, whose it is, and its table."""
        for stored in self.files.values():
            for table in stored.tables:
                yield path_of(table, stored.id), stored, table

    @property
    def _rows(self) -> dict[str, LaneFiles | tuple[LaneFiles, ...]]:
        self.index()
        assert self._where is not None  # noqa: S101 - for the type checker
        return self._where

    def _check(self, change: Change) -> None:
        removed = set(change.remove)
        if unknown := removed.difference(self.files):
            raise ValueError(f"it removes {min(unknown)}, which does not count")
        added: set[str] = set()
        for new in change.add:
            if new.id in self.files or new.id in added:
                raise ValueError(f"it adds {new.id}, which counts already")
            added.add(new.id)
            if self._where is not None:
                self._check_rows(new, removed)

    def _check_rows(self, new: LaneFiles, removed: Collection[str]) -> None:
        if self.knows_none(new.cells):
            return
        for key, replicas in new.cells.items():
            for old in self._files_of(key):
                if old.id not in removed and not set(replicas).isdisjoint(old.cells[key]):
                    raise ValueError(f"it adds rows of cell {key[:8]} that {old.id} has")

    def _place(self, new: LaneFiles) -> None:
        if self.knows_none(new.cells):
            self._rows.update(dict.fromkeys(new.cells, new))
            return
        for key in new.cells:
            self._put(key, (*self._files_of(key), new))

    def _files_of(self, key: str) -> tuple[LaneFiles, ...]:
        found = self._rows.get(key, ())
        return (found,) if isinstance(found, LaneFiles) else found

    def _put(self, key: str, found: tuple[LaneFiles, ...]) -> None:
        if not found:
            del self._rows[key]
        else:
            self._rows[key] = found[0] if len(found) == 1 else found


def _without(left: Sequence[int], there: Sequence[int]) -> Sequence[int]:
    """Of ascending replicas, those that are not there."""
    return () if tuple(left) == tuple(there) else [replica for replica in left if replica not in there]
