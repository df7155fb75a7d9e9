"""What an imported trace says of itself: schema version, where it came from, what was read, a summary."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from kmemexp.errors import TraceError
from kmemexp.workload.traces import schema as sc


@dataclass
class Report:
    """Where a trace came from and what was read of it."""

    source: str = ""
    format: str = ""  # "ftrace", "trace-cmd report", "perf script"
    lines: int = 0
    events: int = 0  # lines of the events that are read
    other_events: int = 0  # lines of other tracepoints
    bad_lines: int = 0  # lines that could not be read
    first_bad_lines: list[int] = field(default_factory=list)
    truncated: bool = False  # the last line had no end and was left out (counted in bad_lines)
    lost_markers: int = 0  # lost-events markers
    lost_events: int = 0  # events lost, as far as the markers say
    first_lost_lines: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # what it lacks, and what that means for a simulation


def open_parquet(path: Path) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """Open an imported trace. Returns it with its metadata; raises TraceError for any other file."""
    try:
        file = pq.ParquetFile(path)
        raw = (file.metadata.metadata or {}).get(sc.META.encode())
        meta = json.loads(raw) if raw else {}
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: cannot be read as Parquet: {error}") from None
    version = meta.get("schema_version")
    if version is None:
        raise TraceError(f"{path}: a Parquet file, but not one that `python -m kmemexp.trace import` wrote")
    if version not in sc.READ:
        known = " and ".join(map(str, sc.READ))
        raise TraceError(f"{path}: imported with schema version {version}, this program reads {known}: import it again")
    return file, meta


def to_text(report: Report, extra: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata to write: schema version, provenance and `extra`."""
    meta = {"schema_version": sc.VERSION, "report": asdict(report), **extra}
    return {sc.META: json.dumps(meta, sort_keys=True)}
