"""Rows of result tables: their order, the choice among them, the axes that they have in another plan."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

if TYPE_CHECKING:
    from numpy.typing import NDArray


def in_order(table: pa.Table) -> pa.Table:
    """Sort by cell key and replica; the samples of a lane keep their order."""
    codes, _ = _codes(table)
    return table if np.all(codes[:-1] <= codes[1:]) else table.take(np.argsort(codes, kind="stable"))


def of_lanes(table: pa.Table, lanes: Mapping[str, Sequence[int]]) -> pa.Table:
    """Rows of these lanes: replicas by cell key."""
    codes, rank = _codes(table)
    wanted = [rank[key] << 32 | replica for key, replicas in lanes.items() if key in rank for replica in replicas]
    return table.filter(pa.array(np.isin(codes, wanted)))


def of_cells(table: pa.Table, cell_keys: Sequence[str], replicas: int) -> pa.Table:
    """Rows of the first `replicas` replicas of these cells."""
    here = pc.is_in(table["cell_key"], pa.array(cell_keys, pa.string()))
    return table.filter(pc.and_(here, pc.less(table["replica"], pa.scalar(replicas, pa.int32()))))


def with_axes(metrics: pa.Table, axes: Mapping[str, str]) -> pa.Table:
    """`metrics` with the axis values (JSON, by cell key) that its cells have in the plan at hand.

    A cell may have been simulated for another plan, whose axes differ.
    """
    keys = metrics["cell_key"].combine_chunks()
    place = pc.index_in(keys, pa.array(list(axes), pa.string()))
    column = pa.array(list(axes.values()), pa.string()).take(place)
    return metrics.set_column(metrics.schema.get_field_index("axes"), metrics.schema.field("axes"), column)


def csv_bytes(table: pa.Table) -> bytes:
    """Encode a table as CSV."""
    buffer = io.BytesIO()
    csv.write_csv(table, buffer)
    return buffer.getvalue()


def _codes(table: pa.Table) -> "tuple[NDArray[np.int64], dict[str, int]]":
    """One integer per row that sorts like (cell_key, replica), and the rank of each cell key in it."""
    keys = cast("pa.DictionaryArray[Any, Any]", pc.dictionary_encode(table["cell_key"].combine_chunks()))
    order = pc.sort_indices(keys.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    codes = rank[keys.indices.to_numpy()] << 32 | table["replica"].to_numpy()
    return codes, dict(zip(map(str, keys.dictionary.to_pylist()), rank.tolist(), strict=True))
