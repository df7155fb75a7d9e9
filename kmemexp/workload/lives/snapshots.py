"""The kernel's own counts before and after a recording: PREFIX.before.NAME and PREFIX.after.NAME.

`slabinfo` (/proc/slabinfo) is what everything rests on; `sysfs` (counts of /sys/kernel/slab, a line per cache) is exact
where slabinfo estimates; `kpf` (one byte per page frame: 0 no slab, 1 slab, 2 head, 3 tail of a larger one) says which
slabs are old and which are gone. PREFIX.const has each cache's constants, PREFIX.aliases which caches were merged. The
others (buddyinfo, pagetypeinfo, vmallocinfo, meminfo, zoneinfo) are kept as they are, for comparison. An imported
recording has them all in its metadata (`packed`).
"""

import base64
import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from kmemexp.errors import TraceError

OTHERS = ("buddyinfo", "pagetypeinfo", "vmallocinfo", "meminfo", "zoneinfo")
WHEN = ("before", "after")
NAMES = ("const", "aliases", *(f"{when}.{kind}" for when in WHEN for kind in ("slabinfo", "sysfs", "kpf", *OTHERS)))
STORED = "kmemexp.snapshots"
"""Key of the JSON in an imported recording's metadata: each file by its name, compressed."""
Read = Callable[[str], bytes]
"""Gives the content of one of NAMES; empty where there is none."""
MOST_PARTIAL = 10_000  # partial slabs, above which slabinfo estimates its counts (L18 mm/slub.c 4369)
_SUFFIXES = (".zst", ".gz", ".txt", ".perf-script", ".ftrace", ".parquet", ".log", ".trace")


class Cache(NamedTuple):
    """Constants of a cache. Linux 6.18, mm/slub.c; line numbers as of 6.18.35."""

    size: int  # bytes of an object, with what belongs to it
    per_slab: int
    order: int
    min_partial: int
    cpu_slabs: int  # slabs on a CPU's partial list (cpu_partial_slabs)
    sheaf: int  # capacity of a sheaf; 0: none


class Count(NamedTuple):
    """Counts of a cache."""

    active: int  # slots less the free ones on node lists
    slots: int
    slabs: int
    exact: bool  # by sysfs: slabinfo alone estimates where there are many partial slabs


class Snapshot(NamedTuple):
    """The counts at one time."""

    counts: dict[str, Count]
    bitmap: np.ndarray | None  # uint8 by page frame
    others: dict[str, str]  # text by name


class Snapshots(NamedTuple):
    """Before and after a recording."""

    prefix: str
    caches: dict[str, Cache]
    before: Snapshot
    after: Snapshot | None


def prefix_of(path: Path) -> Path:
    """Return a trace's path without the suffixes that traces have."""
    while path.suffix in _SUFFIXES:
        path = path.with_suffix("")
    return path


def find(path: Path, prefix: str = "") -> Snapshots | None:
    """Read the snapshots of a prefix, or those beside a trace or in it. None where there are none.

    Raises TraceError where those of the prefix are not there.
    """
    base = Path(prefix) if prefix else prefix_of(path)
    read: Read = functools.partial(_at, base)
    if not read("before.slabinfo"):
        if prefix:
            raise TraceError(f"{base}.before.slabinfo: there is no such snapshot")
        read = functools.partial(_of, _stored(path))
    before, after = (_snapshot(read, when, f"{base}.{when}.slabinfo") for when in WHEN)
    if before is None:
        return None
    constants = read("const")
    caches = _from_slabinfo(read("before.slabinfo"))
    if constants:
        caches |= _from_constants(constants)
    return Snapshots(base.name, caches, before, after)


def packed(path: Path, prefix: str = "") -> dict[str, str]:
    """Metadata of a Parquet file that holds the snapshots of a prefix, or those beside a trace."""
    base = Path(prefix) if prefix else prefix_of(path)
    found = {name: content for name in NAMES if (content := _at(base, name))}
    texts = {name: base64.b64encode(zstandard.compress(content, 19)).decode() for name, content in found.items()}
    return {STORED: json.dumps(texts)}


def _stored(path: Path) -> dict[str, bytes]:
    """Snapshots in the metadata of an imported recording; none where there are none, or it is a text."""
    try:
        texts = json.loads((pq.read_metadata(path).metadata or {}).get(STORED.encode(), b"{}"))
        return {str(name): zstandard.decompress(base64.b64decode(text)) for name, text in texts.items()}
    except (OSError, ValueError, pa.ArrowException, zstandard.ZstdError):
        return {}


def _of(stored: dict[str, bytes], name: str) -> bytes:
    return stored.get(name, b"")


def files(path: Path) -> list[Path]:
    """List the snapshots that lie beside a trace."""
    base = prefix_of(path)
    return [found for name in NAMES if (found := _path(base, name))]


def _path(base: Path, name: str) -> Path | None:
    for suffix in ("", ".zst"):
        path = base.with_name(f"{base.name}.{name}{suffix}")
        if path.is_file():
            return path
    return None


def _at(base: Path, name: str) -> bytes:
    """Return a file's content; empty where there is none."""
    path = _path(base, name)
    if path is None:
        return b""
    try:
        content = path.read_bytes()
        return zstandard.ZstdDecompressor().stream_reader(content).read() if path.suffix == ".zst" else content
    except (OSError, zstandard.ZstdError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from None


def _snapshot(read: Read, when: str, where: str) -> Snapshot | None:
    text = read(f"{when}.slabinfo")
    if not text:
        return None
    counts = {}
    for name, fields in _slabinfo(text, where):
        counts[name] = Count(fields[0], fields[1], fields[12], exact=False)
    for name, known in _sysfs(read(f"{when}.sysfs")):
        counts[name] = _exact(counts.get(name), known)
    bitmap = read(f"{when}.kpf")
    others = {name: read(f"{when}.{name}").decode("utf-8", "replace") for name in OTHERS}
    return Snapshot(
        counts, np.frombuffer(bitmap, np.uint8) if bitmap else None, {name: t for name, t in others.items() if t}
    )


def _exact(count: Count | None, known: dict[str, int]) -> Count:
    """Mend a count of slabinfo by sysfs' where it is an estimate.

    Otherwise slabinfo's stand: it is read at once, next to the mark; sysfs takes a read per cache and figure, further
    away, and what these allocate is counted with the rest (kmalloc-96: up to 22 slabs).
    """
    free = known["total_objects"] - known["objects"]
    if count is None:
        return Count(known["objects"], known["total_objects"], known["slabs"], exact=True)
    if known.get("partial", 0) > MOST_PARTIAL:
        count = count._replace(active=max(count.slots - free, 0))
    return count._replace(exact=True)


def _slabinfo(text: bytes, where: str) -> Iterator[tuple[str, list[int]]]:
    """Yield each cache's name and its numbers; columns that are words are 0."""
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith(("slabinfo", "#")):
            continue
        name, *fields = line.split()
        values = [int(f) if f.isdigit() else 0 for f in fields]
        if len(values) < 15 or fields[5] != ":":
            raise TraceError(f"{where}: line {number}: not a line of /proc/slabinfo")
        yield name, [*values[:5], *values[5:]]


def _sysfs(text: bytes) -> Iterator[tuple[str, dict[str, int]]]:
    for line in text.decode("utf-8", "replace").splitlines():
        name, *fields = line.split()
        found = (re.match(r"(\w+)=(\d+)", field) for field in fields)
        known = {m[1]: int(m[2]) for m in found if m}
        if {"objects", "total_objects", "slabs"} <= known.keys():
            yield name, known


def _from_slabinfo(text: bytes) -> dict[str, Cache]:
    """Derive the constants by the rules of Linux 6.18 from sizes alone."""
    found = {}
    for name, fields in _slabinfo(text, "slabinfo"):
        size, per_slab, pages = fields[2:5]
        cpu_objects = 6 if size >= 4096 else 24 if size >= 1024 else 52 if size >= 256 else 120
        cpu_slabs = -(-2 * cpu_objects // max(per_slab, 1))
        sheaf = 32 if name in ("maple_node", "vm_area_struct") else 0
        min_partial = min(max((max(size, 1).bit_length() - 1) // 2, 5), 10)
        found[name] = Cache(size, per_slab, max(pages, 1).bit_length() - 1, min_partial, cpu_slabs, sheaf)
    return found


def _from_constants(text: bytes) -> dict[str, Cache]:
    found = {}
    for line in text.decode("utf-8", "replace").splitlines():
        name, *fields = line.split()
        _, size, per_slab, order, min_partial, cpu_objects, sheaf = (int(f) for f in fields[:7])
        cpu_slabs = -(-2 * cpu_objects // max(per_slab, 1))
        found[name] = Cache(size, per_slab, order, min_partial, cpu_slabs, sheaf)
    return found
