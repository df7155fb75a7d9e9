"""Tables as data frames: an axis of the plan is a column of its own, and columns say what they mean.

`frame.attrs` of all of them holds `axes` (configuration key by column), `units` and `meanings` (by column). pandas
keeps it through selections; `axes_of` finds the axes without it too.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kmemexp.metrics import NAMES, described, unit
from kmemexp.store import columns
from kmemexp.store.rows import places, sorting

GROUPS = (
    "design", "maps", "objects", "interrupts", "stability", "policy", "machine", "cost", "memory", "workload",
    "scenario", "sources",
)  # fmt: skip
"""Columns that are axes wherever they stand: configuration groups."""
NAMED = ("design", "workload")
TEXTS = ("error", "panic", "deadlock")
LONG = ("axes", "config")
"""Columns of texts that are kept once for all rows that have them: categories of the frame."""
Configs = Callable[[], pa.Table]
Numbers = NDArray[np.int64]


class Said(dict[str, Any]):
    """What `attrs` holds: never changed, so that pandas, which copies `attrs` at every step, need not copy it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Said":
        return self


class Cells:
    """The cells of a results table: one row for each, with a typed column for each axis."""

    def __init__(
        self, metrics: pa.Table, order: Mapping[str, list[str]] | None = None, configs: Configs | None = None
    ) -> None:
        """Take them from `metrics`; `order`: of designs and workloads, instead of the alphabet's.

        `configs` gives "cell_key" and "config" where `metrics` has no configurations and they are needed.
        """
        self.number, first_rows = numbered(metrics["cell_key"])
        known = metrics.select(["cell_key", *NAMED, *list(columns.MACHINE)[:3], "axes"]).take(first_rows)
        texts: Any = decoded(known.select(["axes"]))["axes"].combine_chunks()
        axes = columns.Axes(texts.fill_null("{}"))
        self.keys = {name: key for key, name in columns.named(axes.keys).items()}
        self.order = order or {}

        def own() -> list[str | None]:
            if configs is None:
                return metrics["config"].take(first_rows).to_pylist()
            table = configs()
            place = places(known["cell_key"], decoded(table.select(["cell_key"]))["cell_key"].combine_chunks())
            return table["config"].take(place).to_pylist()

        found = expand(axes, len(known), own, self.keys)
        named = {name: categorical(known[name].combine_chunks(), self.order.get(name)) for name in NAMED}
        rest = [name for name in ("cpus", "ram_bytes", "kva_bytes") if name not in found.columns]
        first = decoded(known.select(["cell_key", *rest])).to_pandas()
        frame = first[["cell_key"]].assign(**named).join(found[[name for name in found if name not in NAMED]])
        self.frame = frame.join(first[rest].astype("int64"))

    def sorted(self, replica: Numbers) -> Numbers:
        """Order of the rows that it was made of, whose replicas these are: by load, design, axes and replica."""
        keys = [key for name in (*reversed(NAMED), *self.axes) for key in _sort_keys(self.frame[name])]
        order = np.lexsort(keys[::-1])  # cells that are alike stay in the order of their keys
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return np.asarray(np.argsort(rank[self.number] << 32 | replica.astype(np.int64), kind="stable"), np.int64)

    @property
    def axes(self) -> list[str]:
        """Columns that are axes, beside design and workload."""
        return [name for name in self.keys if name not in NAMED]

    def beside(self, table: pa.Table, number: Numbers | None = None) -> pd.DataFrame:
        """Give the rows of a table (with `cell_key`) with the columns of their cells, in front of its own.

        `number`: which cell each row is of, where that is known.
        """
        mine = [name for name in self.frame.columns[1:] if name in table.column_names]
        rows = decoded(table.drop_columns(mine), but=LONG).to_pandas()
        place = pd.Index(self.frame["cell_key"]).get_indexer(rows["cell_key"]) if number is None else number
        own = self.frame.drop(columns="cell_key").take(place).set_axis(rows.index)
        return said(pd.concat([rows[["cell_key"]], own, rows.drop(columns="cell_key")], axis=1), self.keys)


def numbered(keys: "pa.ChunkedArray[Any]") -> tuple[Numbers, Numbers]:
    """Number the cells of rows in the order of their keys; returns each row's, and the first row of each cell."""
    encoded: Any = pc.dictionary_encode(keys.combine_chunks())
    place = np.asarray(encoded.indices).astype(np.int64)
    used = np.flatnonzero(np.bincount(place, minlength=len(encoded.dictionary)))
    rank = np.empty(len(encoded.dictionary), np.int64)
    rank[used[sorting(encoded.dictionary.take(used))]] = np.arange(len(used))
    number = rank[place]
    first = np.empty(len(used), np.int64)
    first[number[::-1]] = np.arange(len(number))[::-1]
    return number, first


def decoded(table: pa.Table, but: Collection[str] = ()) -> pa.Table:
    """Give a table with its encoded texts as plain ones, but for some columns."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and field.name not in but:
            column = table[field.name].cast(field.type.value_type)
            table = table.set_column(place, field.with_type(field.type.value_type), column)
    return table


def metrics_frame(
    table: pa.Table, order: Mapping[str, list[str]] | None = None, configs: Configs | None = None
) -> pd.DataFrame:
    """Make `Results.metrics` of the table of this name; `order` and `configs` as for `Cells`.

    With `configs` it has no texts of axes either: each would be there once, and the columns say the same.
    """
    cells = Cells(table, order, configs)
    numbers = [name for name in NAMES if name in table.column_names]
    place = cells.sorted(table["replica"].to_numpy())
    rest = table.drop_columns([*numbers, *(["axes"] if configs else [])]).combine_chunks().take(place)
    for name in TEXTS:
        texts: Any = rest[name]
        rest = rest.set_column(rest.schema.get_field_index(name), name, pc.fill_null(texts, ""))
    frame = cells.beside(rest, cells.number[place])
    block = np.empty((len(numbers), len(frame)))  # written once: most of the time goes into touching memory
    for row, name in zip(block, numbers, strict=True):
        np.take(table[name].to_numpy(), place, out=row)
    last = [name for name in ("axes", "config") if name in frame.columns]
    values = pd.DataFrame(block.T, columns=pd.Index(numbers, dtype=frame.columns.dtype), copy=False)
    return said(pd.concat([frame.drop(columns=last), values, frame[last]], axis=1), cells.keys)


def said(frame: pd.DataFrame, keys: Mapping[str, str]) -> pd.DataFrame:
    """Let a frame say what its columns are. `keys`: configuration key by column, of the axes."""
    known = {name: key for name, key in keys.items() if name in frame.columns}
    frame.attrs = {
        "axes": Said(known),
        "units": Said({str(name): of for name in frame.columns if (of := unit(str(name)))}),
        "meanings": Said({str(name): text for name in frame.columns if (text := meaning(str(name), known))}),
    }
    return frame


def meaning(column: str, keys: Mapping[str, str]) -> str:
    """Say what a column holds; "" where that is not known."""
    return f"axis {keys[column]}" if column in keys else described(column)


def axes_of(frame: pd.DataFrame) -> dict[str, str]:
    """Columns of a frame that are axes, with their configuration keys, in the order of the columns.

    Of a table that does not say it (it was joined from several, or is the user's own), those with a usual name, and in
    a comparison (which has a column `metric`) those of the machine.
    """
    known = dict(frame.attrs.get("axes", {}))
    if not known and "axes" in frame.columns:
        known = {name: key for key, name in columns.named(columns.keys_of(frame["axes"].dropna().unique())).items()}
    usual = {} if known else _usual() | (columns.MACHINE if "metric" in frame.columns else {})
    found = {}
    for column in map(str, frame.columns):
        if column in known:
            found[column] = known[column]
        elif "." in column or column in GROUPS:
            found[column] = column
        elif column in usual:
            found[column] = usual[column]
    return found


@cache
def _usual() -> dict[str, str]:
    return {columns.short(key): key for key in columns.USUAL}


def expand(
    axes: columns.Axes, count: int, configs: Callable[[], Iterable[str | None]], keys: Mapping[str, str]
) -> pd.DataFrame:
    """One column per axis, from what `count` cells say of their axes, or where they lack it their configurations.

    `keys`: configuration key by column; `configs`: configurations (JSON). Integers stay integers (Int64 where a cell
    has no such key), texts become categories, and lists are kept as JSON.
    """
    data = {}
    for name, key in keys.items():
        values = axes.values(key)
        if isinstance(values, pa.Array):
            if not values.null_count:
                texts = pa.types.is_string(values.type)
                data[name] = pd.Series(categorical(values) if texts else values.to_numpy(zero_copy_only=False))
                continue
            values = values.to_pylist()
        lacking = [value is None for value in values]
        data[name] = typed(_filled(values, lacking, key, configs()) if True in lacking else values)
    return pd.DataFrame(data, index=range(count))


def _filled(values: list[Any], lacking: list[bool], key: str, configs: Iterable[str | None]) -> list[Any]:
    look = cache(lambda text: columns.value(json.loads(text or "{}"), key))
    return [look(config) if lacks else v for v, lacks, config in zip(values, lacking, configs, strict=True)]


def categorical(texts: "pa.Array[Any]", order: list[str] | None = None) -> pd.Categorical:
    """Make categories of texts, in the order of the alphabet, or those of `order`."""
    encoded: Any = pc.dictionary_encode(texts)
    place = sorting(encoded.dictionary)
    rank = np.empty(len(place) + 1, np.int64)
    rank[place], rank[-1] = np.arange(len(place)), -1
    codes = rank[np.asarray(encoded.indices.fill_null(-1))]
    found = pd.Categorical.from_codes(codes, pd.Index(encoded.dictionary.take(place).to_pylist(), dtype="str"))
    return found if order is None else found.set_categories(order)


def _sort_keys(column: pd.Series) -> list[NDArray[Any]]:
    """What a column is sorted by: numbers, or what is missing last and numbers."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes = column.cat.codes.to_numpy()
        return [np.where(codes < 0, len(column.cat.categories), codes)]
    if isinstance(column.dtype, np.dtype):
        return [column.to_numpy()]
    return [column.isna().to_numpy(), column.to_numpy(np.int64, na_value=0)]


def typed(values: list[Any]) -> pd.Series:
    """Make a column of the type that its values have."""
    kinds = {type(value) for value in values if value is not None}
    complete = None not in values
    if kinds == {bool}:
        return pd.Series(values, dtype="bool" if complete else "boolean")
    if kinds == {int} and all(v is None or abs(v) < 2**63 for v in values):
        return pd.Series(values, dtype="int64" if complete else "Int64")
    if kinds and kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    texts = [v if v is None or isinstance(v, str) else json.dumps(v, separators=(",", ":")) for v in values]
    return pd.Series(texts, dtype="str").astype("category")
