"""Arrow schemas of the result tables. One row here is one column on disk."""

import hashlib
from collections.abc import Collection

import pyarrow as pa

from kmemexp.metrics import NAMES, SERIES

LAYOUT = 2
"""Version of the results folder: where its files stand and what its manifests hold. Earlier ones are read."""

DONE = "done"
FAILED = "failed"

_COLUMNS: dict[str, list[tuple[str, pa.DataType]]] = {
    "metrics": [
        ("cell_key", pa.string()),
        ("replica", pa.int32()),
        ("seed", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("design", pa.string()),
        ("workload", pa.string()),
        ("cpus", pa.int32()),
        ("ram_bytes", pa.int64()),
        ("kva_bytes", pa.int64()),
        ("axes", pa.string()),
        ("config", pa.string()),
        ("panic", pa.string()),
        ("deadlock", pa.string()),
        *((name, pa.float64()) for name in NAMES),
    ],
    "series": [
        ("cell_key", pa.string()),
        ("replica", pa.int32()),
        ("sample", pa.int32()),
        *((name, pa.int64()) for name in SERIES),
    ],
    "latency": [
        ("cell_key", pa.string()),
        ("replica", pa.int32()),
        ("what", pa.string()),
        ("count", pa.int64()),
        ("mean_ns", pa.float64()),
        ("p50_ns", pa.float64()),
        ("p99_ns", pa.float64()),
        ("p999_ns", pa.float64()),
        ("max_ns", pa.float64()),
    ],
    "snapshots": [
        ("cell_key", pa.string()),
        ("replica", pa.int32()),
        ("time_ns", pa.int64()),
        ("map", pa.string()),
        ("occupancy", pa.list_(pa.uint8())),
    ],
    "caches": [
        ("cell_key", pa.string()),
        ("replica", pa.int32()),
        ("time_ns", pa.int64()),
        ("moment", pa.string()),
        ("allocator", pa.string()),
        ("cache", pa.string()),
        ("object_bytes", pa.int64()),
        ("objects_count", pa.int64()),
        ("slabs_count", pa.int64()),
        ("pages_count", pa.int64()),
        ("requested_bytes", pa.int64()),
        ("granted_bytes", pa.int64()),
    ],
}


def _stamp() -> str:
    text = str(LAYOUT) + repr([(table, name, str(kind)) for table, cols in _COLUMNS.items() for name, kind in cols])
    return f"{LAYOUT}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


STAMP = _stamp()
"""Names the layout and every column: folders of another stamp cannot be continued."""

SCHEMAS: dict[str, pa.Schema] = {
    table: pa.schema(columns, metadata={b"kmemexp.schema": STAMP.encode()}) for table, columns in _COLUMNS.items()
}
"""Schema of each table: "metrics", "series", "latency", "snapshots", "caches"."""


ENCODED = ("cell_key", "design", "workload", "axes", "config")
"""Texts that rows have in common: a configuration of some 10 KiB is that of all replicas of a cell."""

IN_FILES = ("design", "workload", "config")
"""Those of them that rows of one file have in common as a rule."""


def schema_of(table: str, columns: Collection[str] | None = None, *, encoded: bool = False) -> pa.Schema:
    """Schema of a table, or of some of its columns, in its order; `encoded`: the texts IN_FILES as dictionaries."""
    whole = SCHEMAS[table]
    fields = [field for field in whole if columns is None or field.name in columns]
    if encoded:
        kind = pa.dictionary(pa.int32(), pa.string())
        fields = [field.with_type(kind) if field.name in IN_FILES else field for field in fields]
    return pa.schema(fields).with_metadata(whole.metadata)
