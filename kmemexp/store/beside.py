"""Files of a results folder that lie beside its tables, and what is said where one of its files is damaged."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import obstore
import pyarrow as pa
import pyarrow.compute as pc
from obstore.store import ObjectStore

from kmemexp.store import files, tidy
from kmemexp.store import rows as in_table
from kmemexp.store.files import DamageError
from kmemexp.store.layout import Layout, read_layout

if TYPE_CHECKING:
    import pandas as pd
    from obstore import ObjectMeta

AXES = "_axes.parquet"
COLUMNS = "_columns.json"


class Beside:
    """The part of a store that knows nothing of manifests."""

    root: str
    _objects: ObjectStore

    def write_text(self, name: str, text: str) -> dict[str, str]:
        """Put a text file, replacing it: `_run.json`, `tables/_comparison.md`. Returns its mark, see `marks`."""
        return self._put(name, text.encode())

    def read_text(self, name: str) -> str | None:
        """Read such a file; None if there is none. Raises DamageError where it is no text."""
        with files.explained(self.root, "read"), self._explaining():
            try:
                return files.read_text(self._objects, name)
            except UnicodeDecodeError as error:
                raise DamageError(f"{name} is damaged: {error}") from error

    def remove_text(self, name: str) -> None:
        """Remove such a file; one that is not there is no error."""
        files.delete(self._objects, [_beside(name)])

    def set_aside(self, name: str) -> None:
        """Move such a file to `_quarantine/`."""
        tidy.quarantine(self._objects, [_beside(name)])

    def write_table(self, name: str, table: "pd.DataFrame | pa.Table") -> dict[str, str]:
        """Put a table as `<name>.parquet` and `<name>.csv`, and return their marks.

        `name` is like `tables/_comparison`.
        """
        arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
        parquet = self._put(f"{name}.parquet", files.parquet_bytes(arrow))
        return parquet | self._put(f"{name}.csv", in_table.csv_bytes(arrow))

    def note_axes(self, axes: Mapping[str, str]) -> set[str]:
        """Let cells (by key) have these axis values (JSON) from now on, whichever plan they were simulated for.

        Returns the keys of the cells that had others, or of which nothing was known.
        """
        mine = pa.table({
            "cell_key": pa.array(axes.keys(), pa.string()), "axes": pa.array(axes.values(), pa.string()),
            "latest": pa.array([True] * len(axes)),
        })  # fmt: skip
        before = self.known_axes()
        if before is not None:
            if len(before) >= len(mine) and before.slice(0, len(mine)).equals(mine):
                return set()
            others = pc.invert(pc.is_in(before["cell_key"], mine["cell_key"].combine_chunks()))
            rest = before.filter(others)
            mine = pa.concat_tables([mine, rest.set_column(2, "latest", pa.array([False] * len(rest), pa.bool_()))])
        self._put(AXES, files.parquet_bytes(mine))
        known = {} if before is None else dict(zip(*(before[c].to_pylist() for c in ("cell_key", "axes")), strict=True))
        return {key for key, text in axes.items() if known.get(key) != text}

    def layout(self) -> Layout | None:
        """Axes that the files of this folder have columns of; None where it is not known. Raises DamageError."""
        text = self.read_text(COLUMNS)
        try:
            return read_layout(text) if text else None
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"{COLUMNS} is damaged: {error}") from error

    def known_axes(self) -> pa.Table | None:
        """Axes that cells have in the plans that used them last; None where no plan has.

        Columns: cell_key, axes (JSON), latest (whether it is a cell of the last plan that found rows in the folder).
        """
        with files.explained(self.root, "read"), self._explaining():
            return files.read_parquet(self._objects, AXES)

    def marks(self, folder: str) -> dict[str, str]:
        """Marks of the files in a folder ("data", "tables"), by path: a file that is written again has another mark.

        A mark is the store's e-tag: on a disk it is made of inode, time of modification and size. Left out are files
        for which the store gives none.
        """
        return {meta["path"]: tag for meta in self._metas(f"{folder}/") if (tag := meta["e_tag"])}

    def mark(self, name: str) -> str:
        """Mark of one such file; "" where it is not there or has none."""
        try:
            return obstore.head(self._objects, _beside(name))["e_tag"] or ""
        except FileNotFoundError:
            return ""

    def _put(self, name: str, data: bytes) -> dict[str, str]:
        with files.explained(self.root):
            tag = obstore.put(self._objects, _beside(name), data)["e_tag"]
        return {name: tag} if tag else {}

    def _metas(self, prefix: str) -> "Iterator[ObjectMeta]":
        return (meta for chunk in obstore.list(self._objects, prefix) for meta in chunk)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say of damage which folder it is in, and what to run."""
        try:
            yield
        except DamageError as error:
            raise error if str(error).startswith(self.root) else self._damaged(str(error)) from error

    def _damaged(self, what: str) -> DamageError:
        return DamageError(
            f"{self.root}/{what}. Nothing was changed. Run the same command with action=repair: it moves what is "
            f"damaged to {files.QUARANTINE}/ and simulates these rows again (action=check tells all that is wrong)."
        )

    def _lost(self, path: str) -> DamageError:
        return self._damaged(f"{path} is gone, but the manifest counts it")


def _beside(name: str) -> str:
    if not name.rpartition("/")[2].startswith("_"):
        raise ValueError(f"{name}: files beside the tables begin with an underscore, or pd.read_parquet reads them")
    return name
