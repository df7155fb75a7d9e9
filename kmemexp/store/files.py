"""The immutable Parquet files of a results folder, and how they move from `_staging/` to their place.

Some lanes (rows of one status) are stored together in files of the same id, one file per table. Folders other than
data/ begin with an underscore, so that a dataset reader pointed at the results folder sees the metrics table and
nothing else.
"""

import contextlib
import functools
import hashlib
import io
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from kmemexp.errors import StoreError
from kmemexp.store import remote
from kmemexp.store import rows as in_table
from kmemexp.store.packed import Packed
from kmemexp.store.schema import DONE, IN_FILES, SCHEMAS, schema_of

FOLDERS = {name: f"_{name}" if name != "metrics" else "data" for name in SCHEMAS}
"""Where the files of each table stand."""
FIRST = ("metrics", "series", "latency", "snapshots")
"""Tables of files of earlier versions that do not say which they have."""
STAGING = "_staging"
QUARANTINE = "_quarantine"
ROW_GROUP = 131_072  # rows
THREADS = 16  # requests in flight: an object store answers in tens of milliseconds

A = TypeVar("A")
B = TypeVar("B")
_FILE = re.compile(r"(?:_staging/)?(?:data|_series|_latency|_snapshots|_caches)/part-([0-9a-f-]+)\.parquet")


class DamageError(StoreError):
    """A file of a results folder is not what was written."""


class Sum(NamedTuple):
    """What a file's bytes are checked by."""

    size: int  # bytes
    sha256: str


class LaneFiles(NamedTuple):
    """The files of some lanes of one status: one for each table, all of the same id."""

    id: str
    status: str  # schema.DONE or schema.FAILED
    cells: Mapping[str, Sequence[int]]  # replicas by cell key
    sums: Mapping[str, Sum] = {}  # by table; earlier versions wrote none
    layout: str = ""  # which columns its cells have in them (`layout.Layout.mark`); earlier versions wrote none

    @property
    def lanes(self) -> int:
        """Number of rows in the metrics table."""
        return self.cells.lanes if isinstance(self.cells, Packed) else sum(map(len, self.cells.values()))

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables that there is a file of: a failed lane has metrics only, and earlier versions wrote fewer."""
        return tuple(self.sums) or (FIRST if self.status == DONE else ("metrics",))


def tables_of(status: str) -> tuple[str, ...]:
    """Tables that new files of a status have."""
    return tuple(FOLDERS) if status == DONE else ("metrics",)


def connect(root: str, *, create: bool = True) -> ObjectStore:
    """Connect to the store behind a path or a URI (s3://, gs://, az://, memory://…). A path is created on demand.

    Raises StoreError for a URI of unknown kind and, unless `create`, FileNotFoundError for a path that is not there.
    """
    local = _local_path(root)
    if local is None:
        return remote.connect(root)
    if not create and not local.is_dir():
        raise FileNotFoundError(local)
    return LocalStore(local, mkdir=True)


def absolute(root: str) -> str:
    """Name the same folder so that the working directory does not matter."""
    local = _local_path(root)
    return root if local is None else str(local)


def _local_path(root: str) -> Path | None:
    if root.startswith("file://"):
        return Path(unquote(urlsplit(root).path))
    return None if "://" in root else Path(root).expanduser().absolute()


def first_line(error: Exception) -> str:
    """Cut an error's text to what it says, without the debug output that follows."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def new_id(digest: str, attempt: int, writer: str) -> str:
    """Make an id for new files, different from all others; `writer`: whose files they are (`store.writers`)."""
    return f"{digest}-{attempt}-{writer}-{uuid.uuid4().hex[:12]}"


def verdict_id(digest: str, attempt: int, writer: str) -> str:
    """Make the id under which a worker that must die says why."""
    return f"{digest}-{attempt}-{writer}-dead"


def writer_in(file_id: str) -> str | None:
    """Find whose files these are; None for those of earlier versions, which did not say."""
    parts = file_id.split("-")
    return parts[2] if len(parts) == 4 else None


def path_of(table: str, file_id: str) -> str:
    """Where the file of a table stands once it is committed."""
    return f"{FOLDERS[table]}/part-{file_id}.parquet"


def id_in(path: str) -> str | None:
    """Find the id in a file's path; None for files that are not ours."""
    match = _FILE.fullmatch(path)
    return match[1] if match else None


def in_parallel(function: Callable[[A], B], items: Iterable[A], most: int = THREADS) -> list[B]:
    """Call `function` on every item, at most so many at a time. Returns the results in order."""
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(most, len(items))) as pool:
        return list(pool.map(function, items))


def parquet_bytes(table: pa.Table) -> bytes:
    """Encode a table as a Parquet file: the same table, the same bytes."""
    buffer = io.BytesIO()
    texts = [column.name for column in table.schema if pa.types.is_string(column.type)]  # numbers rarely repeat
    pq.write_table(
        table, buffer, compression="zstd", row_group_size=ROW_GROUP,
        use_dictionary=texts,  # type: ignore[arg-type]  # the stubs know only True and False, not names of columns
    )  # fmt: skip
    return buffer.getvalue()


def stage(objects: ObjectStore, file_id: str, table: str, rows: pa.Table) -> Sum:
    """Write the file of one table where no reader looks yet. Returns what it is checked by."""
    data = parquet_bytes(rows)
    obstore.put(objects, f"{STAGING}/{path_of(table, file_id)}", data)
    return sum_of(data)


def sum_of(data: bytes | memoryview) -> Sum:
    """Size and digest of a file's bytes."""
    return Sum(len(data), hashlib.sha256(data).hexdigest())


@contextlib.contextmanager
def explained(root: str, what: str = "write to") -> Iterator[None]:
    """Turn what the storage raises into a StoreError that names the folder; a missing file stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, BaseError) as error:
        raise StoreError(
            f"cannot {what} the results folder {remote.bare(root)}: {remote.reason(error)}. Check store.root, its "
            "permissions and the room that is left; what has been committed stays, and the same command goes on."
        ) from error


def read_text(objects: ObjectStore, name: str) -> str | None:
    """Read a text file of a results folder; None if there is none."""
    try:
        return bytes(obstore.get(objects, name).bytes()).decode()
    except FileNotFoundError:
        return None


def publish(objects: ObjectStore, paths: Iterable[str]) -> None:
    """Move staged files (paths without the staging folder) to their place; those already moved are left alone."""
    in_parallel(functools.partial(_publish, objects), paths)


def _publish(objects: ObjectStore, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        obstore.rename(objects, f"{STAGING}/{path}", path)


def delete(objects: ObjectStore, paths: Iterable[str]) -> None:
    """Delete files; those that are gone already are no error."""
    in_parallel(functools.partial(_delete, objects), paths)


def _delete(objects: ObjectStore, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        obstore.delete(objects, path)


def read_parquet(objects: ObjectStore, name: str) -> pa.Table | None:
    """Read a table that lies beside the others; None if there is none. Raises DamageError."""
    try:
        data = obstore.get(objects, name).bytes()
    except FileNotFoundError:
        return None
    try:
        return pq.ParquetFile(pa.BufferReader(memoryview(data))).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamageError(f"{name} is damaged: {first_line(error)}") from error


def move(objects: ObjectStore, path: str, target: str) -> None:
    """Move a file; one that is gone already is no error."""
    with contextlib.suppress(FileNotFoundError):
        obstore.rename(objects, path, target)


def load(
    objects: ObjectStore,
    stored: LaneFiles,
    table: str,
    columns: Collection[str] | None = None,
    *,
    encoded: bool = False,
) -> pa.Table:
    """Read the file of one table, or some columns of it, staged or in its place; all of its bytes are checked.

    `encoded`: texts as dictionaries (`schema.schema_of`). Raises FileNotFoundError where it is in neither place,
    DamageError where it is not what was written.
    """
    path = path_of(table, stored.id)
    data = fetch(objects, path)
    wrong = difference(data, stored.sums.get(table))
    if wrong:
        raise DamageError(f"{path} is damaged: {wrong}")
    try:
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(IN_FILES) if encoded else None)
        there = set(file.schema_arrow.names)
        wanted = schema_of(table, columns, encoded=encoded)
        mine = [name for name in wanted.names if name in there]  # the rest are labels
        found = in_table.conforming(file.read(mine, use_threads=False), wanted)  # files are small
        if table not in stored.sums:
            in_table.check_lanes(found, stored.cells, whole=table == "metrics")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamageError(f"{path} is damaged: {first_line(error)}") from error
    return found


def load_all(
    objects: ObjectStore, stored: Sequence[LaneFiles], table: str, columns: Collection[str] | None = None, *,
    encoded: bool = False,
) -> list[pa.Table]:  # fmt: skip
    """Read the files of one table, as `load` does, several at a time."""
    # On a disk, more threads than CPUs gain nothing, and each takes memory of its own.
    most = min(THREADS, os.cpu_count() or 1) if isinstance(objects, LocalStore) else THREADS
    return in_parallel(lambda each: load(objects, each, table, columns, encoded=encoded), stored, most)


def fetch(objects: ObjectStore, path: str) -> memoryview:
    """Bytes of a file, staged or in its place. Raises FileNotFoundError where it is in neither."""
    for place in (path, f"{STAGING}/{path}", path):  # a move between the first two looks is seen by the third
        with contextlib.suppress(FileNotFoundError):
            return memoryview(obstore.get(objects, place).bytes())
    raise FileNotFoundError(path)


def size_of(objects: ObjectStore, path: str) -> int | None:
    """Bytes of a file, staged or in its place; None where it is in neither."""
    for place in (f"{STAGING}/{path}", path):
        with contextlib.suppress(FileNotFoundError):
            return int(obstore.head(objects, place)["size"])
    return None


def is_whole(objects: ObjectStore, stored: LaneFiles) -> bool:
    """Whether the file of each table is there, staged or in its place, and has its size."""
    for table in stored.tables:
        size, wanted = size_of(objects, path_of(table, stored.id)), stored.sums.get(table)
        if size is None or (wanted is not None and wanted.size != size):
            return False
    return True


def difference(data: memoryview, wanted: Sum | None) -> str:
    """Say how bytes differ from what was written, or ""."""
    if wanted is None:
        return ""
    if len(data) != wanted.size:
        return f"it has {len(data):,} bytes, and {wanted.size:,} were written"
    return "" if sum_of(data) == wanted else "its bytes are not those that were written (SHA-256)"
