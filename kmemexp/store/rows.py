"""Rows of result tables: their order, the choice among them, the axes that they have in another plan."""

import contextlib
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from kmemexp.errors import StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORD = 8  # bytes


def in_order(table: pa.Table) -> pa.Table:
    """Sort by cell key and replica; the samples of a lane keep their order."""
    codes = _codes(table)[0]
    return table if np.all(codes[:-1] <= codes[1:]) else table.take(np.argsort(codes, kind="stable"))


def conforming(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with the columns of `schema`: those that an earlier version did not have are null, others are dropped.

    Raises ValueError (ArrowInvalid) where a column cannot be what it should be.
    """
    if table.schema.equals(schema):
        return table.replace_schema_metadata(schema.metadata)
    if missing := {"cell_key", "replica"}.difference(table.column_names):
        raise ValueError(f"it has no column {min(missing)}")
    return pa.Table.from_arrays([_as(table, field) for field in schema], schema=schema)


def _as(table: pa.Table, field: "pa.Field[Any]") -> Any:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table[field.name]
    if pa.types.is_dictionary(field.type) and not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column.cast(pa.string()))
    return column if column.type == field.type else column.cast(field.type)


@contextlib.contextmanager
def fitting(root: str) -> Iterator[None]:
    """Say of texts that one column cannot hold (Arrow's have 2 GiB) how to do without them: StoreError."""
    try:
        yield
    except (pa.ArrowCapacityError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"the rows of {root} have more text than fits into a column, 2 GiB: each cell has a configuration of some "
            'KiB. Read without them: kmemexp.load(folder, metrics=["held_peak_bytes"]), or pd.read_parquet(folder, '
            f"columns=[…]). ({str(error).splitlines()[0]})"
        ) from error


def encoded(table: pa.Table, names: Collection[str]) -> pa.Table:
    """`table` with these columns of texts as dictionaries, each with one for all rows."""
    for place, field in enumerate(table.schema):
        if field.name in names and not pa.types.is_dictionary(field.type):
            column = cast("pa.DictionaryArray[Any, Any]", pc.dictionary_encode(table[field.name].combine_chunks()))
            table = table.set_column(place, field.with_type(column.type), column)
    return table.unify_dictionaries()


def has_twice(table: pa.Table) -> bool:
    """Whether there are two rows of one lane."""
    keys = _encoded(table)
    codes = np.sort(keys.indices.to_numpy().astype(np.int64) << 32 | table["replica"].to_numpy())
    return bool(np.any(codes[1:] == codes[:-1]))


def check_lanes(table: pa.Table, lanes: Mapping[str, Sequence[int]], *, whole: bool) -> None:
    """Raise ValueError where a table has rows of other lanes, or (`whole`) not just one row of each."""
    found = list(zip(table["cell_key"].to_pylist(), table["replica"].to_pylist(), strict=True))
    wanted = {(key, replica) for key, replicas in lanes.items() for replica in replicas}
    if not wanted.issuperset(found) or (whole and len(found) != len(wanted)):
        raise ValueError("its rows are not those that the manifest names")


def of_lanes(table: pa.Table, lanes: Mapping[str, Sequence[int]]) -> pa.Table:
    """Rows of these lanes: replicas by cell key."""
    codes, keys = _codes(table)
    rank = {key: place for place, key in enumerate(keys.to_pylist())}
    wanted = [rank[key] << 32 | replica for key, replicas in lanes.items() if key in rank for replica in replicas]
    return table.filter(pa.array(np.isin(codes, wanted)))


def of_cells(table: pa.Table, cell_keys: Sequence[str], replicas: int) -> pa.Table:
    """Rows of the first `replicas` replicas of these cells."""
    here = places(table["cell_key"], pa.array(cell_keys, pa.string())).is_valid()
    return table.filter(pc.and_(here, pc.less(table["replica"], pa.scalar(replicas, pa.int32()))))


def with_axes(metrics: pa.Table, axes: Mapping[str, str]) -> pa.Table:
    """`metrics` with the axis values (JSON, by cell key) that its cells have in the plan at hand.

    A cell may have been simulated for another plan, whose axes differ.
    """
    place = places(metrics["cell_key"], pa.array(list(axes), pa.string()))
    return _put_axes(metrics, pa.array(list(axes.values()), pa.string()), place)


def with_known_axes(metrics: pa.Table, known: pa.Table, place: "pa.Array[Any] | None" = None) -> pa.Table:
    """`metrics` with the axes that `known` (cell_key, axes) has for its cells; others keep theirs.

    `place`: of each row's cell in `known`, where that has been found out.
    """
    place = places(metrics["cell_key"], known["cell_key"].combine_chunks()) if place is None else place
    texts = known["axes"].combine_chunks()
    if not place.null_count:
        return _put_axes(metrics, texts, place)
    column = pc.coalesce(texts.take(place), metrics["axes"].cast(pa.string()).combine_chunks())
    return _put_axes(metrics, column, None)


def _put_axes(metrics: pa.Table, texts: "pa.Array[Any]", place: "pa.Array[Any] | None") -> pa.Table:
    """Let rows have the texts at these places, encoded where their own are."""
    field = metrics.schema.field("axes")
    if pa.types.is_dictionary(field.type):
        found = cast("pa.DictionaryArray[Any, Any]", pc.dictionary_encode(texts))
        column: Any = found if place is None else found.take(place)
    else:
        column = texts if place is None else texts.take(place)
    return metrics.set_column(metrics.schema.get_field_index("axes"), field, column)


def places(column: "pa.ChunkedArray[Any]", keys: "pa.Array[Any]") -> "pa.Array[Any]":
    """Place of each text among `keys`, null where it is none of them; the column may be encoded."""
    texts: Any = column.combine_chunks()
    encoded = pa.types.is_dictionary(column.type)
    found: pa.Array[Any] = pc.index_in(texts.dictionary if encoded else texts, keys)
    return found.take(texts.indices) if encoded else found


def csv_bytes(table: pa.Table) -> bytes:
    """Encode a table as CSV."""
    buffer = io.BytesIO()
    csv.write_csv(table, buffer)
    return buffer.getvalue()


def sorting(texts: "pa.Array[Any]") -> "NDArray[np.int64]":
    """Places of texts in their order, as `pc.sort_indices` gives them; cell keys, all of one length, much sooner."""
    if len(texts) and not texts.null_count and pa.types.is_string(texts.type):
        _, offsets, data = texts.buffers()
        ends = np.frombuffer(offsets, np.int32)[texts.offset :][: len(texts) + 1]  # type: ignore[call-overload]
        widths = np.diff(ends)
        if (widths == widths[0]).all() and widths[0] >= 2 * WORD:
            letters = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].reshape(len(texts), -1)  # type: ignore[call-overload]
            words = [np.ascontiguousarray(letters[:, at : at + WORD]).view(">u8").ravel() for at in (0, WORD)]
            first, second = (word.astype(np.uint64) for word in words)
            order = np.argsort(first)
            alike = np.flatnonzero(first[order[1:]] == first[order[:-1]])  # few: these are 32 bits of a digest
            alike = np.union1d(alike, alike + 1)
            some = order[alike]
            some = some[np.lexsort((second[some], first[some]))]
            if not np.any((first[some[1:]] == first[some[:-1]]) & (second[some[1:]] == second[some[:-1]])):
                order[alike] = some
                return order
    return np.asarray(pc.sort_indices(texts)).astype(np.int64)


def _codes(table: pa.Table) -> "tuple[NDArray[np.int64], pa.Array[Any]]":
    """One integer per row that sorts like (cell_key, replica), and the cell keys by their rank in it."""
    keys = _encoded(table)
    order = sorting(keys.dictionary)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[keys.indices.to_numpy()] << 32 | table["replica"].to_numpy(), keys.dictionary.take(order)


def _encoded(table: pa.Table) -> "pa.DictionaryArray[Any, Any]":
    return cast("pa.DictionaryArray[Any, Any]", pc.dictionary_encode(table["cell_key"].combine_chunks()))
