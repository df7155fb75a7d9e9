"""One way to read a trace, text or Parquet: batches of numeric rows, with the names and the damage seen on the way."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kmemexp.errors import TraceError
from kmemexp.workload.traces import live, meta, source, text, track
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.track import Rows

Progress = Callable[[int], None]
COLUMNS = dict(zip(sc.SCHEMA.names, Rows._fields, strict=True))  # column -> field of Rows
BATCH = 1 << 18  # rows of a batch from Parquet


class Reader:
    """A trace that is read once, in batches.

    `batches()` yields Rows in file order; `names` (cache names by number) and `report` grow with it and are complete
    at its end. `only` names the fields of Rows that are wanted: others may be filled with -1. Raises TraceError where
    the file is not a trace.
    """

    def __init__(self, path: Path, progress: Progress | None = None, only: Collection[str] = Rows._fields) -> None:
        self.path, self.progress, self.only = path, progress, only
        self.names: list[str] = []
        self.report = meta.Report(source=path.name)

    def batches(self) -> Iterator[Rows]:
        """Yield the rows."""
        return self._from_parquet() if source.is_parquet(self.path) else self._from_text()

    def _from_text(self) -> Iterator[Rows]:
        scan = text.scanner()
        objects, areas = live.table(track.FIELDS), live.table(track.FIELDS)
        next_id = 0
        for data, end, truncated in source.text_blocks(self.path, progress=self.progress):
            self.report.format = self.report.format or source.text_format(data[: source.SNIFF])
            lines = text.columns(data.count(b"\n", 0, end))
            count = text.scan(np.frombuffer(data, np.uint8), end, lines, scan)
            objects, areas = live.with_room(objects, count), live.with_room(areas, count)
            rows = track.rows(2 * count)
            n, next_id = track.track(lines, count, objects, areas, next_id, rows)
            self._note(scan, truncated)
            if n:
                yield Rows(*(column[:n] for column in rows))
        if not self.report.events:
            raise TraceError(
                f"{self.path}: line {self.report.lines}: the end is reached without any known event "
                f"({self.report.bad_lines} lines unreadable, {self.report.other_events} of other tracepoints); "
                f"known are {', '.join(sc.EVENT_NAMES)}"
            )

    def _note(self, scan: text.Scan, truncated: bool) -> None:
        counts, report = scan.counts, self.report
        self.names = text.cache_names(scan)
        if counts[text.SEEN_FULL]:
            raise TraceError(f"{self.path}: line {counts[text.SEEN_LINES]}: more than {text.MAX_NAMES} cache names")
        report.truncated = truncated
        report.lines = int(counts[text.SEEN_LINES]) + truncated
        report.events = int(counts[text.SEEN_ROWS])
        report.other_events = int(counts[text.SEEN_OTHER])
        report.bad_lines = int(counts[text.SEEN_BAD]) + truncated
        report.first_bad_lines = [int(i) for i in scan.bad if i]
        if truncated and len(report.first_bad_lines) < text.KEPT:
            report.first_bad_lines.append(report.lines)
        report.lost_markers, report.lost_events = int(counts[text.SEEN_GAPS]), int(counts[text.SEEN_LOST])
        report.first_lost_lines = [int(i) for i in scan.gaps if i]

    def _from_parquet(self) -> Iterator[Rows]:
        file, stored = meta.open_parquet(self.path)
        self.report = meta.Report(**stored["report"])
        numbers: dict[str, int] = {}
        for group in range(file.num_row_groups):
            try:
                table = file.read_row_group(group, [c for c, f in COLUMNS.items() if f in self.only])
                rows = _rows(table, numbers)
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise TraceError(f"{self.path}: row group {group} is damaged: {error}") from None
            self.names = list(numbers)
            for start in range(0, len(table), BATCH):
                yield Rows(*(column[start : start + BATCH] for column in rows))
            if self.progress:
                self.progress(self.path.stat().st_size * (group + 1) // file.num_row_groups)


def to_arrow(rows: Rows, names: Sequence[str]) -> pa.Table:
    """Return rows as a table of schema.SCHEMA."""

    def plain(values: np.ndarray) -> "pa.Array[Any]":
        found: pa.Array[Any] = pa.array(values, mask=values == -1)
        return found

    def words(values: np.ndarray, dictionary: Sequence[str]) -> "pa.Array[Any]":
        return pa.DictionaryArray.from_arrays(plain(values), pa.array(dictionary, pa.string()))

    allocation = (rows.op == sc.ALLOC) | (rows.op == sc.NULL_ALLOC) | (rows.op == sc.ZERO_ALLOC)
    columns = [
        pa.array(rows.time_ns),
        pa.array(rows.cpu),
        words(rows.context, sc.CONTEXTS),
        words(rows.op, sc.OPS),
        words(rows.event, sc.EVENT_NAMES),
        plain(rows.object_id),
        plain(rows.requested),
        plain(rows.allocated),
        words(rows.cache, names),
        pa.array(rows.nowait, mask=~allocation),
        plain(rows.page),
        plain(rows.pages),
        plain(rows.vector),
    ]
    return pa.Table.from_arrays(columns, schema=sc.SCHEMA)


def _rows(table: pa.Table, numbers: dict[str, int]) -> Rows:
    """Return a row group as numbers; cache names are numbered in order of appearance over the whole file."""
    found = set(table.column_names)
    if "cache" in found:
        for name in _dictionary(table["cache"]).dictionary.to_pylist():
            numbers.setdefault(name, len(numbers))
    words: Mapping[str, Sequence[str]] = {
        "context": sc.CONTEXTS, "op": sc.OPS, "event": sc.EVENT_NAMES, "cache": list(numbers)
    }  # fmt: skip
    columns: dict[str, np.ndarray] = {}
    for (name, field), kind in zip(COLUMNS.items(), track.ROW_TYPES, strict=True):
        if name not in found:
            columns[field] = np.broadcast_to(kind(-1), len(table))
        elif name in words:
            columns[field] = _codes(table[name], words[name]).astype(kind)
        else:
            values = table[name].combine_chunks()
            if values.null_count:
                values = values.fill_null(False if kind is np.bool_ else -1)
            columns[field] = values.to_numpy(zero_copy_only=False).astype(kind, copy=False)
    cpu = columns["cpu"]
    if len(cpu) and not 0 <= cpu.min() <= cpu.max() < text.MAX_CPUS:
        raise ValueError(f"a CPU number is outside of 0 … {text.MAX_CPUS - 1}")
    return Rows(**columns)


def _dictionary(column: "pa.ChunkedArray[Any]") -> Any:
    """Return a column of words as one pyarrow.DictionaryArray, which the stubs do not know."""
    return column.combine_chunks()


def _codes(column: "pa.ChunkedArray[Any]", words: Sequence[str]) -> np.ndarray:
    """Return the numbers of a dictionary column's words; -1 for null."""
    array = _dictionary(column)
    order = np.array([words.index(word) for word in array.dictionary.to_pylist()] + [-1])
    codes: np.ndarray = order[array.indices.fill_null(len(order) - 1).to_numpy(zero_copy_only=False)]
    return codes
