"""Taking the kernel's own counts before and after a recording; `lives.snapshots` says what the files are for.

The counts that everything rests on are read nearest to the recording: last before it, first after it.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zstandard

PROC = Path("/proc")
SLAB = Path("/sys/kernel/slab")
OTHERS = ("buddyinfo", "pagetypeinfo", "vmallocinfo", "meminfo", "zoneinfo")
CONSTANTS = (
    "object_size", "slab_size", "objs_per_slab", "order", "min_partial", "cpu_partial", "sheaf_capacity",
    "reclaim_account", "destroy_by_rcu",
)  # fmt: skip
COUNTS = ("partial", "objects_partial", "cpu_slabs", "slabs_cpu_partial", "objects", "total_objects", "slabs")
# Bits of /proc/kpageflags: include/uapi/linux/kernel-page-flags.h.
_SLAB, _TAIL, _HEAD = 7, 16, 15
_CHUNK = 1 << 23


def nothing() -> None:
    """Do nothing."""


def capture(
    prefix: Path, when: str, counted: Callable[[], object] = nothing, *, proc: Path = PROC, slab: Path = SLAB
) -> list[str]:
    """Write PREFIX.WHEN.NAME for every count that can be read. Returns the names of those that cannot.

    `counted` is called as soon as slabinfo has been read, to which the recording is compared.
    """
    slabinfo = _text(proc / "slabinfo")
    counted()
    found = {"slabinfo": slabinfo, "kpf": _bitmap(proc / "kpageflags"), "sysfs": _sysfs(slab, slabinfo)}
    found |= {name: _text(proc / name) for name in OTHERS}
    if when == "before":
        _write(prefix.with_name(f"{prefix.name}.const"), _constants(slab, slabinfo))
        found["slabinfo"] = _text(proc / "slabinfo")
        _write(prefix.with_name(f"{prefix.name}.aliases"), _aliases(slab))
    for name, content in found.items():
        suffix = ".zst" if name == "kpf" else ""
        _write(prefix.with_name(f"{prefix.name}.{when}.{name}{suffix}"), content)
    return [name for name, content in found.items() if not content]


def _write(path: Path, content: bytes) -> None:
    """Write a file, compressed by its name; none where there is nothing to write."""
    if content:
        path.write_bytes(zstandard.compress(content) if path.suffix == ".zst" else content)


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _names(slabinfo: bytes) -> list[str]:
    lines = slabinfo.decode("utf-8", "replace").splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith(("slabinfo", "#"))]


def _sysfs(slab: Path, slabinfo: bytes) -> bytes:
    """Counts of /sys/kernel/slab, a line per cache."""
    lines = []
    for name in _names(slabinfo):
        values = [(key, _text(slab / name / key).decode().split()) for key in COUNTS]
        if all(value for _, value in values):
            lines.append(" ".join([name, *(f"{key}={','.join(value)}" for key, value in values)]))
    return "".join(f"{line}\n" for line in lines).encode()


def _constants(slab: Path, slabinfo: bytes) -> bytes:
    """What never changes of each cache, a line per cache; what this kernel does not tell is 0."""
    lines = []
    for name in _names(slabinfo):
        values = [_text(slab / name / key).decode().split()[:1] or ["0"] for key in CONSTANTS]
        if values[2] != ["0"]:
            lines.append(" ".join([name, *(value[0] for value in values)]))
    return "".join(f"{line}\n" for line in lines).encode()


def _aliases(slab: Path) -> bytes:
    """Names of caches that were merged, with what they were merged into."""
    found = []
    with contextlib.suppress(OSError):
        found = [f"{path.name} {path.readlink().name}\n" for path in sorted(slab.iterdir()) if path.is_symlink()]
    return "".join(found).encode()


def _bitmap(path: Path) -> bytes:
    """One byte per page frame: 0 no slab, 1 slab of one page, 2 head, 3 tail of a larger one."""
    try:
        return b"".join(_kinds(piece) for piece in _pieces(path))
    except OSError:
        return b""


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_CHUNK):
            yield piece


def _kinds(piece: bytes) -> bytes:
    flags = np.frombuffer(piece[: len(piece) // 8 * 8], np.uint64)
    bits = [((flags >> np.uint64(bit)) & np.uint64(1)).astype(np.uint8) for bit in (_SLAB, _HEAD, _TAIL)]
    kinds: bytes = (bits[0] * (1 + bits[1] + 2 * bits[2])).tobytes()
    return kinds
