"""One way to read a trace, text or Parquet: batches of numeric rows, with the names and the damage seen on the way."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kmemexp.errors import TraceError
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.workload.traces import lines as ln
from kmemexp.workload.traces import live, meta, recognise, source, text, track, warnings
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.lines import Scan
from kmemexp.workload.traces.naming import Naming
from kmemexp.workload.traces.track import Rows

Progress = Callable[[int], None]
COLUMNS = dict(zip(sc.SCHEMA.names, Rows._fields, strict=True))  # column -> field of Rows; offset -> address
BATCH = 1 << 18  # rows of a batch from Parquet


class Reader:
    """A trace that is read once, in batches.

    `batches()` yields Rows in file order; `names` (caches), `sites` (call sites), both by number, and `report` grow
    with it and are complete at its end. Rows that an import added come last (`added=True`), or not at all. `only`
    names the fields of Rows that are wanted: others may be filled with -1. Raises TraceError where the file is not a
    trace.
    """

    def __init__(
        self,
        path: Path,
        progress: Progress | None = None,
        only: Collection[str] = Rows._fields,
        *,
        added: bool = False,
    ) -> None:
        self.path, self.progress, self.only, self.added = path, progress, only, added
        self.names: list[str] = []
        self.sites: list[str] = []
        self.report = meta.Report(source=path.name)
        self._what = ""  # what the text is, if it is no trace

    def batches(self) -> Iterator[Rows]:
        """Yield the rows."""
        return self._from_parquet() if source.is_parquet(self.path) else self._from_text()

    def _from_text(self) -> Iterator[Rows]:
        naming = Naming()
        self.names, self.sites = naming.names, naming.sites
        begun = False
        for rows, scan, truncated in self._tracked(self.progress):
            if not begun and scan.counts[ln.SEEN_UNNAMED] and scan.counts[ln.SEEN_NAMED_FREES]:
                for other, names, _ in self._tracked(None):
                    naming.learn(other, names.names)
            begun = True
            named = naming.named(rows, scan.names, scan.sites)
            self._note(scan, truncated, naming.unnamed)
            if len(rows.op):
                yield named
        if not self.report.events:
            self._refuse()

    def _tracked(self, progress: Progress | None) -> Iterator[tuple[Rows, Scan, bool]]:
        """Yield the rows of each block, with what the scanner has seen so far, and whether the last line was cut."""
        scan, past = ln.scanner(), track.nothing()
        objects, areas = live.table(track.FIELDS), live.table(track.FIELDS)
        for data, end, truncated in source.text_blocks(self.path, progress=progress):
            if not self.report.format:
                self.report.format = source.text_format(data[: source.SNIFF])
                self._what = recognise.text(data[: source.SNIFF])
            scan.counts[ln.SEEN_HTML] = self.report.format == source.HTML
            lines = ln.columns(data.count(b"\n", 0, end))
            count = text.scan(np.frombuffer(data, np.uint8), end, lines, scan)
            self._check(scan)
            objects, areas = live.with_room(objects, count), live.with_room(areas, count)
            rows = track.rows(2 * count)
            n = track.track(lines, count, objects, areas, past, rows)
            yield Rows(*(column[:n] for column in rows)), scan, truncated

    def _check(self, scan: Scan) -> None:
        counts = scan.counts
        if counts[ln.SEEN_FULL]:
            raise TraceError(f"{self.path}: line {counts[ln.SEEN_LINES]}: more than {ln.MAX_NAMES} cache names")
        if line := int(counts[ln.SEEN_BACK]):
            before, after = (counts[i] / 1e9 for i in (ln.SEEN_BACK_FROM, ln.SEEN_BACK_TO))
            raise TraceError(
                f"{self.path}: line {line}: time runs back from {before:.6f} to {after:.6f} s: these are two "
                f"recordings, or not in order; split the file (`head -n {line - 1}` gives the first) and import each"
            )

    def _refuse(self) -> None:
        if self._what:
            raise TraceError(f"{self.path}: this is {self._what}")
        report = self.report
        said = "".join(f"; {text}" for text in report.warnings)
        raise TraceError(
            f"{self.path}: line {report.lines}: the end is reached without any known event "
            f"({report.bad_lines} lines unreadable, {report.other_events} of other tracepoints{said}); "
            f"known are {', '.join(sc.EVENT_NAMES)}"
        )

    def _note(self, scan: Scan, truncated: bool, unnamed: int) -> None:
        counts, report = scan.counts, self.report
        report.truncated = truncated
        report.lines = int(counts[ln.SEEN_LINES]) + truncated
        report.events = int(counts[ln.SEEN_ROWS])
        report.other_events = int(counts[ln.SEEN_OTHER])
        report.bad_lines = int(counts[ln.SEEN_BAD]) + truncated
        report.first_bad_lines = [int(i) for i in scan.bad if i]
        if truncated and len(report.first_bad_lines) < ln.KEPT:
            report.first_bad_lines.append(report.lines)
        report.lost_markers = int(counts[ln.SEEN_GAPS])
        report.lost_events = int(counts[ln.SEEN_LOST] + counts[ln.SEEN_OVERWRITTEN])
        report.first_lost_lines = [int(i) for i in scan.gaps if i]
        report.warnings = warnings.of(scan, unnamed)

    def _from_parquet(self) -> Iterator[Rows]:
        file, stored = meta.open_parquet(self.path)
        self.report = meta.Report(**stored["report"])
        numbers: dict[str, int] = {}
        sites: dict[str, int] = {}
        groups = file.num_row_groups if self.added else stored.get("recorded_groups", file.num_row_groups)
        there = set(file.schema_arrow.names)
        for group in range(groups):
            try:
                table = file.read_row_group(group, [c for c, f in COLUMNS.items() if f in self.only and c in there])
                rows = _rows(table, numbers, sites)
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise TraceError(f"{self.path}: row group {group} is damaged: {error}") from None
            self.names, self.sites = list(numbers), list(sites)
            for start in range(0, len(table), BATCH):
                yield Rows(*(column[start : start + BATCH] for column in rows))
            if self.progress:
                self.progress(self.path.stat().st_size * (group + 1) // groups)


def to_arrow(rows: Rows, names: Sequence[str], sites: Sequence[str]) -> pa.Table:
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
        words(rows.kmalloc, sc.KMALLOC_TYPES),
        words(rows.site, sites),
        plain(rows.streams),
        pa.array(rows.chance, mask=rows.streams == -1),
        plain(_offset(rows)),
    ]
    return pa.Table.from_arrays(columns, schema=sc.SCHEMA)


def _rows(table: pa.Table, numbers: dict[str, int], sites: dict[str, int]) -> Rows:
    """Return a row group as numbers; caches and sites are numbered in order of appearance over the whole file."""
    found = set(table.column_names)
    for column, known in (("cache", numbers), ("site", sites)):
        for word in _dictionary(table[column]).dictionary.to_pylist() if column in found else ():
            known.setdefault(word, len(known))
    words: Mapping[str, Sequence[str]] = {
        "context": sc.CONTEXTS, "op": sc.OPS, "event": sc.EVENT_NAMES, "cache": list(numbers),
        "kmalloc": sc.KMALLOC_TYPES, "site": list(sites),
    }  # fmt: skip
    columns = {}
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
    if len(cpu) and not 0 <= cpu.min() <= cpu.max() < ln.MAX_CPUS:
        raise ValueError(f"a CPU number is outside of 0 … {ln.MAX_CPUS - 1}")
    known = (columns["address"] >= 0) & (columns["page"] != -1)
    columns["address"] = np.where(known, _address(columns["page"], columns["address"]), -1)
    return Rows(**columns)


def _offset(rows: Rows) -> np.ndarray:
    """Where in its page an address lies; -1 where the page is not that of the address."""
    offset = rows.address & (1 << PAGE_SHIFT) - 1
    found: np.ndarray = np.where(_address(rows.page, offset) == rows.address, offset, -1).astype(np.int16)
    return found


def _address(page: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Address, of 63 bits, of what lies at an offset of a page."""
    address: np.ndarray = (page << PAGE_SHIFT | offset) & (1 << 63) - 1
    return address


def _dictionary(column: "pa.ChunkedArray[Any]") -> Any:
    """Return a column of words as one pyarrow.DictionaryArray, which the stubs do not know."""
    return column.combine_chunks()


def _codes(column: "pa.ChunkedArray[Any]", words: Sequence[str]) -> np.ndarray:
    """Return the numbers of a dictionary column's words; -1 for null."""
    array = _dictionary(column)
    place = {word: number for number, word in enumerate(words)}
    order = np.array([place[word] for word in array.dictionary.to_pylist()] + [-1])
    codes: np.ndarray = order[array.indices.fill_null(len(order) - 1).to_numpy(zero_copy_only=False)]
    return codes
