"""Writing a trace as Parquet: row groups as they are read, a temporary name until the file is complete."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kmemexp.errors import TraceError
from kmemexp.workload.traces import meta, reading, source
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.meta import Report
from kmemexp.workload.traces.reading import Progress, Reader
from kmemexp.workload.traces.track import Rows

IMPORTER = "kmemexp.workload.traces 2"
COMPACT_DROPS = (
    "requested_bytes, allocated_bytes and cache on frees (look them up by object_id), page and pages, "
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
        self.first = self.last = 0

    def add(self, rows: Rows) -> None:
        if not self.ops.any():
            self.first = int(rows.time_ns[0])
        self.last = int(rows.time_ns[-1])
        self.ops += np.bincount(rows.op, minlength=len(sc.OPS))
        self.cpus.update(np.unique(rows.cpu).tolist())

    def as_dict(self) -> dict[str, Any]:
        return {
            "seconds": (self.last - self.first) / 1e9,
            "cpus": len(self.cpus),
            "ops": {name: int(n) for name, n in zip(sc.OPS, self.ops, strict=True) if n},
        }


def import_trace(path: Path, out: Path, *, compact: bool = False, progress: Progress | None = None) -> Report:
    """Read a trace (text, or Parquet to be made compact) and write it to `out`. Returns what was read.

    `compact` leaves out what can be looked up (COMPACT_DROPS) and compresses hard; `stats` and `library.load` give
    the same for both forms. `out` appears only when it is complete. Raises TraceError where the file is no trace or
    `out` cannot be written.
    """
    if source.is_parquet(path) and not compact:
        raise TraceError(f"{path}: imported already (--compact makes it smaller)")
    reader = Reader(path, progress)
    summary = _Summary()
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
            for rows in _grouped(reader, _COMPACT_GROUP if compact else _GROUP):
                summary.add(rows)
                table = reading.to_arrow(_compact(rows) if compact else rows, reader.names, reader.sites)
                writer.write_table(table, row_group_size=len(table))
            if not summary.ops[sc.ALLOC] + summary.ops[sc.KVA_ALLOC]:
                raise TraceError(
                    f"{path}: holds no allocation{''.join(f'; {text}' for text in reader.report.warnings)}"
                )
            extra = {"importer": IMPORTER, "summary": summary.as_dict(), "compact": COMPACT_DROPS if compact else ""}
            writer.add_key_value_metadata(meta.to_text(reader.report, extra))
        partial.replace(out)
    except (OSError, pa.ArrowException) as error:
        raise TraceError(f"{out}: cannot be written: {error}") from None
    finally:
        with contextlib.suppress(OSError):  # its folder may not even exist
            partial.unlink()
    return reader.report


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


def _compact(rows: Rows) -> Rows:
    """Set to null what an object's allocation tells already, and where the object lay."""
    frees = np.isin(rows.op, (sc.FREE, sc.LOST_FREE, sc.UNMATCHED_FREE, sc.KVA_FREE, sc.KVA_LOST_FREE))
    nothing = np.full(len(rows.op), -1)
    return rows._replace(
        site=np.full(len(rows.op), -1, np.int32),
        requested=np.where(frees, -1, rows.requested),
        allocated=np.where(frees, -1, rows.allocated),
        cache=np.where(frees, -1, rows.cache).astype(np.int16),
        page=nothing,
        pages=nothing.astype(np.int32),
    )
