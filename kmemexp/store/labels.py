"""The columns of a row's cell in the files themselves: what a reader that knows nothing of kmemexp needs no join for.

Every file of a results folder has, beside its own columns, the design, the load, the machine and a column for each
axis. Which these are is `Layout`, the same for all files of a folder. This program does not read them: it takes a
cell's axes from the plan that used it last (`Beside.note_axes`), and writes files anew whose columns are others.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from kmemexp.metrics import INDEX, METRICS, described, unit
from kmemexp.store import columns
from kmemexp.store.schema import SCHEMAS

MACHINE = ("design", "workload", "cpus", "ram_bytes", "kva_bytes")
KINDS: dict[str, pa.DataType] = {"int": pa.int64(), "bool": pa.bool_(), "float": pa.float64(), "text": pa.string()}


class Layout(NamedTuple):
    """The axes of a results folder: kind of value (one of KINDS) by configuration key."""

    kinds: Mapping[str, str] = {}

    @property
    def mark(self) -> str:
        """Digest by which files say which layout they have."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]

    @property
    def text(self) -> str:
        """The same as JSON."""
        return json.dumps({"axes": dict(sorted(self.kinds.items()))})

    def joined(self, other: "Layout") -> "Layout":
        """Axes of both; a key whose values are of two kinds has the wider one."""
        keys = self.kinds.keys() | other.kinds.keys()
        return Layout({key: _wider(self.kinds.get(key), other.kinds.get(key)) for key in keys})


def layout_of(axes: Iterable[str]) -> Layout:
    """Read the axes, and the kinds of their values, from texts such as ``{"design":"freebsd4","machine.cpus":2}``."""
    found: dict[str, str] = {}
    for text in set(axes):
        for key, value in json.loads(text or "{}").items():
            if value is not None:
                found[key] = _wider(found.get(key), kind_of(value))
    return Layout(found)


def read_layout(text: str) -> Layout:
    """Read `Layout.text`. Raises ValueError, KeyError or TypeError where it is none."""
    return Layout({str(key): str(kind) for key, kind in json.loads(text)["axes"].items() if KINDS[kind]})


def kind_of(value: Any) -> str:
    """Tell the kind of a value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and abs(value) < 2**63:
        return "int"
    return "float" if isinstance(value, int | float) else "text"


def _wider(one: str | None, other: str | None) -> str:
    if one == other or other is None or one is None:
        return one or other or "text"
    return "float" if {one, other} == {"int", "float"} else "text"


def cells_of(metrics: pa.Table, layout: Layout) -> pa.Table:
    """One row per cell of a table of metrics: cell_key, what MACHINE names, and the columns of the layout."""
    keys = metrics["cell_key"].combine_chunks()
    first: Any = pc.index_in(pc.unique(keys), keys)
    taken = metrics.select(["cell_key", *MACHINE, "axes", "config"]).take(first)
    cells = [json.loads(text or "{}") for text in taken["axes"].to_pylist()]
    configs: list[Any] = [None] * len(cells)
    found: dict[str, Any] = {name: taken[name] for name in ("cell_key", *MACHINE)}
    for key, name in columns.named(layout.kinds).items():
        if name in found:
            continue
        values = []
        for i, cell in enumerate(cells):
            value = cell.get(key)
            if value is None:
                if configs[i] is None:
                    configs[i] = json.loads(taken["config"][i].as_py() or "{}")
                value = columns.value(configs[i], key)
            values.append(_as(value, layout.kinds[key]))
        found[name] = pa.array(values, KINDS[layout.kinds[key]])
    return pa.table(found)


def labelled(rows: pa.Table, cells: pa.Table, table: str, layout: Layout) -> pa.Table:
    """Give the rows of a table ("metrics", "series" …) with the columns of their cells, each with what it means."""
    place = pc.index_in(rows["cell_key"].combine_chunks(), cells["cell_key"].combine_chunks())
    more = [name for name in cells.column_names if name not in rows.column_names]
    keys = columns.MACHINE | {name: key for key, name in columns.named(layout.kinds).items()}
    own = [*rows.schema, *(cells.schema.field(name) for name in more)]
    fields = [field_of(field, keys.get(field.name, "")) for field in own]
    arrays: list[Any] = [*rows.columns, *(cells[name].combine_chunks().take(place) for name in more)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields).with_metadata(SCHEMAS[table].metadata))


def field_of(field: "pa.Field[Any]", key: str) -> "pa.Field[Any]":
    """Give a field with its unit, what it means, which is better, and of an axis its configuration key."""
    told = {"unit": unit(field.name), "meaning": described(field.name), "key": key}
    if field.name in INDEX:
        told["better"] = METRICS[INDEX[field.name]].better
    return field.with_metadata({name: text for name, text in told.items() if text})


def _as(value: Any, kind: str) -> Any:
    """Write a value as one of its column's kind; null where it cannot be."""
    if value is None or kind_of(value) == kind:
        return value
    if kind == "float":
        return float(value) if isinstance(value, int | float) else None
    return (value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))) if kind == "text" else None
