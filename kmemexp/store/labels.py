"""The columns of a row's cell in the files themselves: what a reader that knows nothing of kmemexp needs no join for.

Every file of a results folder has, beside its own columns, the design, the load, the machine and a column for each
axis. Which these are is `layout.Layout`, the same for all files of a folder. This program does not read them: it takes
a cell's axes from the plan that used it last (`Beside.note_axes`), and writes files anew whose columns are others.
"""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kmemexp.metrics import INDEX, METRICS, described, unit
from kmemexp.store import columns
from kmemexp.store.layout import Layout, kind_of
from kmemexp.store.schema import SCHEMAS

MACHINE = ("design", "workload", "cpus", "ram_bytes", "kva_bytes")
TYPES: dict[str, pa.DataType] = {"int": pa.int64(), "bool": pa.bool_(), "float": pa.float64(), "text": pa.string()}


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
        found[name] = pa.array(values, TYPES[layout.kinds[key]])
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
