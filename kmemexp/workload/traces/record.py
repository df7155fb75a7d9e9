"""Recording on Linux: a tracing instance of our own, its text streamed to a file, everything undone at the end."""

import contextlib
import functools
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import zstandard

from kmemexp.errors import TraceError
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.capturing import nothing

ROOTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
INSTANCE = "kmemexp"
BUFFER_KB = 65536  # per CPU
REQUIRED = ("kmalloc", "kfree", "kmem_cache_alloc", "kmem_cache_free")
NO_MOVABLE_PAGES = "!(gfp_flags & 0x8)"  # those are user memory and the page cache, never slabs
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CHUNK = 1 << 20
POLL_S = 0.1

Snapshot = Callable[[str, Callable[[], object]], list[str]]
"""Takes the kernel's counts "before" or "after", calling the second argument as soon as slabinfo has been read."""


@dataclass
class Recording:
    """What a recording gave."""

    bytes_text: int = 0
    lost_events: int = 0  # overruns and drops of all CPUs, as the kernel counts them
    missing: list[str] = field(default_factory=list)  # events that this kernel does not have
    interrupted: bool = False
    no_snapshot: list[str] = field(default_factory=list)  # counts of the kernel that could not be read


def tracefs() -> Path:
    """Return the root of tracefs. Raises TraceError saying what is missing."""
    if sys.platform != "linux":
        raise TraceError(f"recording needs Linux (this is {sys.platform}); record there, then import the file here")
    for root in ROOTS:
        with contextlib.suppress(OSError):
            if (root / "events").is_dir():
                return root
    if os.geteuid() != 0:
        raise TraceError(f"recording needs root: tracefs ({ROOTS[0]}) cannot be read by user {os.geteuid()}; use sudo")
    raise TraceError(f"tracefs is not mounted; `mount -t tracefs tracefs {ROOTS[0]}` (needs CONFIG_TRACING)")


def record(
    seconds: float,
    out: Path,
    *,
    root: Path | None = None,
    buffer_kb: int = BUFFER_KB,
    snapshot: Snapshot | None = None,
) -> Recording:
    """Record the traces' events for so long into `out`: text, compressed if the name ends in .gz or .zst.

    Uses an instance of its own (`instances/kmemexp`), so other tracing goes on undisturbed; it is removed whatever
    happens, also on SIGINT, SIGTERM and SIGHUP, which end the recording early. `root` is the root of tracefs.
    `snapshot` is called with "before" and "after", next to marks in the trace, and returns what it could not take. The
    kernel goes on freeing by RCU behind the mark, so the recording ends when slabinfo has been read.
    Raises TraceError where recording is not possible, naming what is missing.
    """
    root = root or tracefs()
    events, missing = _events(root)
    result = Recording(missing=missing)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with _signals() as stopped, _instance(root) as instance:
            _set_up(instance, events, buffer_kb)
            result.no_snapshot = snapshot("before", nothing) if snapshot else []
            after = functools.partial(snapshot, "after") if snapshot else None
            with _writer(partial, out.suffix) as write:
                result.bytes_text = _stream(instance, seconds, write, stopped, after)
            result.lost_events = _lost(instance)
            result.interrupted = bool(stopped)
        partial.replace(out)
    except OSError as error:
        raise TraceError(f"recording failed: {error}") from None
    finally:
        with contextlib.suppress(OSError):  # its folder may not even exist
            partial.unlink()
    return result


def _events(root: Path) -> tuple[list[Path], list[str]]:
    """Return the `enable` files (relative to an instance) of our events, and the events that are not there."""
    found, missing = [], []
    for event in sc.EVENTS:
        if event.does == sc.DO_MARK:
            continue
        enable = Path("events") / event.group / event.name / "enable"
        if (root / enable).exists():
            found.append(enable)
        else:
            missing.append(event.name)
    lacking = [name for name in REQUIRED if name in missing]
    if lacking:
        raise TraceError(
            f"{root}: this kernel has no event {', '.join('kmem:' + n for n in lacking)} (CONFIG_TRACING?)"
        )
    optional = [name for name in missing if not name.endswith("_node")]  # those ended with Linux 6.0
    return found, optional


@contextlib.contextmanager
def _instance(root: Path) -> Iterator[Path]:
    """Make our tracing instance, and take it away again."""
    instance = root / "instances" / INSTANCE
    try:
        instance.mkdir()
    except FileExistsError:
        raise TraceError(
            f"{instance} exists: another recording runs, or one was killed; then `rmdir {instance}` and try again"
        ) from None
    except OSError as error:
        user = "" if os.geteuid() == 0 else " (not root: use sudo)"
        raise TraceError(f"{instance}: cannot be made: {error.strerror}{user}") from None
    try:
        yield instance
    finally:
        for name in ("tracing_on", "events/enable"):
            with contextlib.suppress(OSError):
                (instance / name).write_text("0")
        _remove(instance)


def _remove(instance: Path) -> None:
    """Remove the instance; the kernel refuses while something still closes a file in it."""
    for _ in range(20):
        try:
            return instance.rmdir()
        except OSError as error:
            last = error
            time.sleep(POLL_S)
    raise last


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect signals that ask to stop instead of dying of them."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_up(instance: Path, events: list[Path], buffer_kb: int) -> None:
    """Set buffers, real pointers and one clock for all CPUs; then enable the events."""
    (instance / "tracing_on").write_text("0")
    (instance / "buffer_size_kb").write_text(str(buffer_kb))
    for name, value in (("options/hash-ptr", "0"), ("trace_clock", "mono")):
        with contextlib.suppress(OSError):  # not in every kernel; hashed pointers still match one another
            if (instance / name).exists():
                (instance / name).write_text(value)
    for enable in events:
        only = instance / enable.with_name("filter")
        if enable.parent.name == "mm_page_alloc" and only.exists():
            only.write_text(NO_MOVABLE_PAGES)
        (instance / enable).write_text("1")


def _mark(instance: Path, text: str) -> None:
    """Write a mark into the trace."""
    with contextlib.suppress(OSError):  # not in every kernel: then the whole recording lies between the snapshots
        if (instance / "trace_marker").exists():
            (instance / "trace_marker").write_text(text)


def _stream(
    instance: Path,
    seconds: float,
    write: Callable[[bytes], object],
    stopped: list[int],
    after: Callable[[Callable[[], object]], object] | None,
) -> int:
    """Copy trace_pipe until the time is up or a signal came, then what is left in the buffers. Returns the bytes.

    `after` is called at the end of the recording, which goes on until it calls what it is given.
    """
    total = 0
    end_it = functools.partial((instance / "tracing_on").write_text, "0")
    pipe = os.open(instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        (instance / "tracing_on").write_text("1")
        _mark(instance, "snap_before")
        end = time.monotonic() + seconds
        recording = True
        while True:
            if recording and (stopped or time.monotonic() >= end):
                _mark(instance, "snap_after")
                if after:
                    after(end_it)
                end_it()
                recording = False
            try:
                data = os.read(pipe, CHUNK)
            except BlockingIOError:
                data = b""
            if data:
                write(data)
                total += len(data)
            elif not recording:
                return total
            else:
                select.select([], [], [], POLL_S)
    finally:
        os.close(pipe)


@contextlib.contextmanager
def _writer(path: Path, suffix: str) -> Iterator[Callable[[bytes], object]]:
    """Open a file for the text, compressed by the suffix of its final name."""
    with path.open("wb") as raw, contextlib.ExitStack() as stack:
        write: Callable[[bytes], object] = raw.write
        if suffix == ".zst":
            write = stack.enter_context(zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False)).write
        elif suffix == ".gz":
            import gzip  # noqa: PLC0415 - rarely wanted

            write = stack.enter_context(gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1)).write
        yield write


def _lost(instance: Path) -> int:
    """Return the events that the ring buffers overwrote or dropped."""
    lost = 0
    for stats in instance.glob("per_cpu/cpu*/stats"):
        for line in stats.read_text().splitlines():
            key, _, value = line.partition(":")
            if key in ("overrun", "dropped events"):
                lost += int(value)
    return lost
