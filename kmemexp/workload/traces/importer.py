"""Writing a trace as Parquet: row groups as they are read, a temporary name until the file is complete."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kmemexp.errors import TraceError
from kmemexp.workload.lives.history import Gathering
from kmemexp.workload.lives.reconstruct import reconstruct
from kmemexp.workload.lives.snapshots import Snapshots, find, packed
from kmemexp.workload.traces import meta, reading, source
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.meta import Report
from kmemexp.workload.traces.reading import Progress, Reader
from kmemexp.workload.traces.track import Rows

IMPORTER = "kmemexp.workload.traces 3"
COMPACT_DROPS = (
    "requested_bytes, allocated_bytes and cache on frees (look them up by object_id), page, pages and offset, "
    "cache of unmatched frees, call sites"
)
_DELTA = dict.fromkeys(("time_ns", "object_id", "page"), "DELTA_BINARY_PACKED")
_WORDS = [f.name for f in sc.SCHEMA if f.name not in (*_DELTA, "nowait", "chance")]
_GROUP, _COMPACT_GROUP = 1 << 20, 1 << 22  # rows of a row group


class _Summary:
    """What `describe` tells without reading rows."""

    def __init__(self) -> None:
        self.ops = np.zeros(len(sc.OPS), np.int64)
        self.cpus: set[int] = set()
        self.first: int | None = None
        self.last = 0
        self.next_id = 0

    def add(self, rows: Rows) -> None:
        if self.first is None:
            self.first = int(rows.time_ns[0])
        self.last = max(int(rows.time_ns.max()), self.last)
        self.ops += np.bincount(rows.op, minlength=len(sc.OPS))
        self.cpus.update(np.unique(rows.cpu).tolist())
        self.next_id = max(int(rows.object_id.max()) + 1, self.next_id)

    def as_dict(self) -> dict[str, Any]:
        return {
            "seconds": (self.last - (self.first or 0)) / 1e9,
            "cpus": len(self.cpus),
            "ops": {name: int(n) for name, n in zip(sc.OPS, self.ops, strict=True) if n},
        }


class Options(NamedTuple):
    """How a trace is imported."""

    compact: bool = False  # leave out what can be looked up (COMPACT_DROPS), and compress hard
    as_recorded: bool = False  # add no deaths and births that left no event
    snapshots: str = ""  # prefix of the snapshots' files; empty: those that lie beside the trace, if any do


def import_trace(
    path: Path, out: Path, *, compact: bool = False, options: Options | None = None, progress: Progress | None = None
) -> Report:
    """Read a trace (text, or Parquet to be made compact) and write it to `out`. Returns what was read.

    After the rows of the recording stand those that are inferred from it (`lives.reconstruct`), unless not wanted.
    `stats` and `library.load` give the same for compact files. `out` appears only when it is complete. Raises
    TraceError where the file is no trace, holds no allocation, or `out` cannot be written.
    """
    options = options or Options(compact=compact)
    if source.is_parquet(path):
        if not options.compact:
            raise TraceError(f"{path}: imported already (--compact makes it smaller)")
        return _compacted(path, out, progress)
    reader = Reader(path, progress)
    snapshots = find_snapshots(path, options)
    summary = _Summary()
    history = None if options.as_recorded else Gathering()
    with _file(out, compact=options.compact) as write:
        for rows in _grouped(reader, _COMPACT_GROUP if options.compact else _GROUP):
            summary.add(rows)
            if history:
                history.add(rows)
            write.rows(rows, reader)
        if not summary.ops[sc.ALLOC] + summary.ops[sc.KVA_ALLOC]:
            raise TraceError(f"{path}: holds no allocation{''.join(f'; {text}' for text in reader.report.warnings)}")
        extra: dict[str, Any] = {"summary": summary.as_dict(), "recorded_groups": write.groups}
        if history:
            found = reconstruct(history.events(), reader.names, summary.next_id, snapshots)
            reader.report.warnings += found.warnings
            write.rows(found.rows, reader)
            extra["inferred"] = found.summary
        kept = {} if options.compact or not snapshots else packed(path, options.snapshots)
        write.end(reader.report, extra, kept)
    return reader.report


def _compacted(path: Path, out: Path, progress: Progress | None) -> Report:
    """Write an imported trace again, in compact form."""
    reader = Reader(path, progress, added=True)
    stored = meta.open_parquet(path)[1]
    added = []
    with _file(out, compact=True) as write:
        for rows in _grouped(reader, _COMPACT_GROUP):
            write.rows(_of(rows, rows.op < sc.IMPUTED_FREE), reader)
            added.append(_of(rows, rows.op >= sc.IMPUTED_FREE))
        groups = write.groups
        write.rows(_joined(added), reader)
        kept: dict[str, Any] = {key: stored[key] for key in ("summary", "inferred") if key in stored}
        write.end(reader.report, {**kept, "recorded_groups": groups})
    return reader.report


class _Writer:
    """An open Parquet file of rows."""

    def __init__(self, file: pq.ParquetWriter, *, compact: bool) -> None:
        self.file, self.compact = file, compact
        self.groups = 0

    def rows(self, rows: Rows, reader: Reader) -> None:
        """Write rows as one row group; none if there are none."""
        if len(rows.op):
            table = reading.to_arrow(_compact(rows) if self.compact else rows, reader.names, reader.sites)
            self.file.write_table(table, row_group_size=len(table))
            self.groups += 1

    def end(self, report: Report, extra: dict[str, Any], kept: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write what the file says of itself, and metadata that is kept in it as it is."""
        about = {"importer": IMPORTER, "compact": COMPACT_DROPS if self.compact else "", **extra}
        self.file.add_key_value_metadata(meta.to_text(report, about) | dict(kept))


@contextlib.contextmanager
def _file(out: Path, *, compact: bool) -> Iterator[_Writer]:
    """Open the file under another name, which it loses when it is complete."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with pq.ParquetWriter(
            partial,
            sc.SCHEMA,
            compression="zstd",
            compression_level=22 if compact else 3,
            use_dictionary=_WORDS,  # type: ignore[arg-type]  # a list of columns does; the stubs say bool
            column_encoding=_DELTA,
            data_page_size=1 << 24 if compact else None,
            write_statistics=not compact,
        ) as writer:
            yield _Writer(writer, compact=compact)
        partial.replace(out)
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"{out}: cannot be written: {error}") from None
    finally:
        with contextlib.suppress(OSError):  # its folder may not even exist
            partial.unlink()


def find_snapshots(path: Path, options: Options) -> Snapshots | None:
    """Read the snapshots that belong to a trace: those asked for, else those whose names begin as the trace's does."""
    return None if options.as_recorded else find(path, options.snapshots)


def _grouped(reader: Reader, size: int) -> Iterator[Rows]:
    """Join batches until they make a row group."""
    held: list[Rows] = []
    for rows in reader.batches():
        held.append(rows)
        if sum(len(r.op) for r in held) >= size:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(parts: list[Rows]) -> Rows:
    return parts[0] if len(parts) == 1 else Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _of(rows: Rows, which: np.ndarray) -> Rows:
    return Rows(*(column[which] for column in rows))


def _compact(rows: Rows) -> Rows:
    """Set to null what an object's allocation tells already, and where the object lay."""
    frees = np.isin(rows.op, (sc.FREE, sc.LOST_FREE, sc.UNMATCHED_FREE, sc.KVA_FREE, sc.KVA_LOST_FREE))
    nothing = np.full(len(rows.op), -1)
    return rows._replace(
        site=np.where(rows.op < sc.IMPUTED_FREE, -1, rows.site).astype(np.int32),
        requested=np.where(frees, -1, rows.requested),
        allocated=np.where(frees, -1, rows.allocated),
        cache=np.where(frees, -1, rows.cache).astype(np.int16),
        page=nothing,
        address=nothing,
        pages=nothing.astype(np.int32),
    )
