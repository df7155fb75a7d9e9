"""Names of columns: an axis of a plan becomes a column with a plain name, in files and in data frames alike."""

import io
import json
import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as json_lines

from kmemexp.metrics import NAMES, SERIES

MACHINE = {"cpus": "machine.cpus", "ram_bytes": "machine.ram_bytes", "kva_bytes": "machine.kva_bytes", "seed": "seed"}
"""Columns that every row has, and the keys that they are."""

USUAL = (
    "machine.threads", "machine.domains", "interrupts.rate_hz", "interrupts.clock_allocates", "workload.copies",
    "workload.duration_s", "workload.path", "workload.scale", "workload.shift_s", "workload.start", "workload.stream",
    "workload.window_s",
)  # fmt: skip
"""Keys that are known by their column's name alone, in a table that does not say what its axes are."""

HOLDERS = ("kinds", "params", "sources")
"""Words of a key that say nothing which the next one does not."""

RESERVED = {
    *NAMES, *SERIES, "cell_key", "replica", "status", "error", "axes", "config", "panic", "deadlock", "sample",
    "what", "count", "mean_ns", "p50_ns", "p99_ns", "p999_ns", "max_ns", "map", "occupancy", "moment", "allocator",
    "cache", "object_bytes", "objects_count", "slabs_count", "pages_count", "metric", "n", "failed", "mean", "low",
    "high", "verdict", "test", "role", "best", "better", "family", "margin", "error_kind",
}  # fmt: skip

AT_ONCE = 1 << 20  # texts: joined ones have at most 2 GiB
PLAIN = (pa.int64(), pa.float64(), pa.bool_(), pa.string())


def short(key: str) -> str:
    """Name the column of a configuration key: `machine.kva_bytes` is kva_bytes.

    >>> [short(key) for key in ("design", "interrupts/sources", "objects.params.dfly_slab.release_threshold")]
    ['design', 'sources', 'dfly_slab_release_threshold']
    """
    words = re.findall(r"[A-Za-z0-9_]+", key)
    if not words:
        return "axis"
    last = [word for word in words[1:-1] if word not in HOLDERS] + words[-1:]
    name = "_".join(last)
    if name in MACHINE and MACHINE[name] != key:
        name = "_".join(words)
    if name in RESERVED or keyword.iskeyword(name) or not name.isidentifier():
        name = "_".join(words) if len(words) > 1 else f"{name}_"
    return name if name.isidentifier() else f"axis_{name}"


def named(keys: Iterable[str]) -> dict[str, str]:
    """Name the column of each key; those that would have the same name get a long one."""
    names = {key: short(key) for key in sorted(set(keys))}
    taken = list(names.values())
    return {
        key: name if taken.count(name) == 1 else "_".join(re.findall(r"[A-Za-z0-9_]+", key))
        for key, name in names.items()
    }


def value(config: Mapping[str, Any], key: str) -> Any:
    """Look a key up in a cell's configuration, a group by the name of what was chosen; None where it says nothing."""
    found: Any = config
    for word in key.split("."):
        if not isinstance(found, Mapping) or word not in found:
            return None
        found = found[word]
    if isinstance(found, Mapping) and "." not in key:
        found = found.get("name")
    return None if isinstance(found, Mapping) else found


class Axes:
    """Texts of the axes of cells, such as ``{"design":"freebsd4","machine.cpus":2}``, decoded.

    `keys`: all that are in them, sorted. Raises ValueError for a text that is none.
    """

    def __init__(self, texts: "pa.Array[Any]") -> None:
        self._table = _told_by(texts)
        self._cells: list[dict[str, Any]] = []
        if self._table is None:
            distinct: Any = pc.dictionary_encode(texts)
            each = parsed(distinct.dictionary.to_pylist())
            if not all(isinstance(cell, dict) for cell in each):
                raise ValueError("a text of axes is no mapping")
            self._cells = [each[code] for code in distinct.indices.to_pylist()]
        names = self._table.column_names if self._table is not None else {key for cell in self._cells for key in cell}
        self.keys: list[str] = sorted(names)

    def values(self, key: str) -> "pa.Array[Any] | list[Any]":
        """Give what each text says of a key, null or None where it says nothing; an Array has numbers or strings."""
        if self._table is None:
            return [cell.get(key) for cell in self._cells]
        if key in self._table.column_names:
            return self._table[key].combine_chunks()
        return [None] * len(self._table)


def _told_by(texts: "pa.Array[Any]") -> "pa.Table | None":
    """Decode texts of axes into a column for each key, seven times as fast as one by one.

    None where each text must be looked at by itself: for lists, numbers beyond 64 bits, values of different kinds
    under one key, and texts that Arrow takes for instants.
    """
    lists = [texts.slice(at, AT_ONCE) for at in range(0, len(texts), AT_ONCE)]
    lines: list[Any] = [pc.binary_join(pa.ListArray.from_arrays([0, len(each)], each), "\n") for each in lists]
    try:
        found = json_lines.read_json(io.BytesIO(b"\n".join(each[0].as_buffer() for each in lines)))
    except pa.ArrowInvalid:
        return None
    plain = len(found) == len(texts) and all(field.type in PLAIN for field in found.schema)
    return found if plain and not any(map(_is_huge, found.columns)) else None


def _is_huge(column: "pa.ChunkedArray[Any]") -> bool:
    """Whether there are numbers that may have been integers of more than 64 bits."""
    most: Any = pc.max(pc.abs(column)).as_py() if pa.types.is_floating(column.type) else None
    return most is not None and not most < 2**63


def keys_of(axes: Iterable[str]) -> list[str]:
    """Keys in texts of axes, such as ``{"design":"freebsd4","machine.cpus":2}``, sorted."""
    return sorted({key for cell in parsed(set(axes)) for key in cell})


def parsed(axes: Iterable[str]) -> list[dict[str, Any]]:
    """Decode texts of axes, all at once: one by one takes five times as long. Raises ValueError."""
    texts = [text or "{}" for text in axes]
    found: list[dict[str, Any]] = json.loads(f"[{','.join(texts)}]")
    if len(found) != len(texts):
        raise ValueError("a text of axes is no mapping")
    return found
