"""Who writes to a results folder: `_writers/<id>.json`, and how it is known that a writer is dead.

Staged files are named after their writer, and are its own as long as it may live. A clock is never asked: on the
writer's own machine its process is there or not; elsewhere a writer is dead when its record, which it puts anew every
`BEAT_SECONDS`, has not changed for `LEASE_SECONDS` of the reader's watching.
"""

import contextlib
import json
import os
import platform
import re
import time
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import obstore
from obstore.store import ObjectStore

FOLDER = "_writers"
BEAT_SECONDS = 10.0
LEASE_SECONDS = 600.0
_NAME = re.compile(rf"{FOLDER}/([0-9a-f]{{12}})\.json")


class Writer:
    """A process as a writer of one folder. It has an id, and a record in the folder from its first file on."""

    def __init__(self, objects: ObjectStore) -> None:
        self.id = uuid.uuid4().hex[:12]
        self._objects = objects
        self._beats = 0
        self._last = -BEAT_SECONDS

    def beat(self, progress: Mapping[str, Any] | None = None) -> None:
        """Say that this writer lives, and how far it has come, where that is due."""
        if time.monotonic() - self._last >= BEAT_SECONDS:
            self._last = time.monotonic()
            self._beats += 1
            record = me() | {"beats": self._beats, "progress": progress}
            obstore.put(self._objects, path_of(self.id), json.dumps(record).encode())

    def leave(self) -> None:
        """Take the record away: what is staged in this writer's name from now on is nobody's."""
        if self._beats:
            self._beats = 0
            with contextlib.suppress(FileNotFoundError):
                obstore.delete(self._objects, path_of(self.id))


class Watch:
    """Watches writers that run elsewhere."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, float]] = {}  # text of the record, and since when it has not changed

    def is_dead(self, writer: str, text: str) -> bool:
        """Whether the writer of this record is known to be dead."""
        try:
            record = json.loads(text)
            if is_here(record):
                return not is_running(record)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # a record that cannot be read is watched like one from elsewhere
        before, since = self._seen.get(writer, ("", 0.0))
        if before != text:
            self._seen[writer] = text, time.monotonic()
            return False
        return time.monotonic() - since >= LEASE_SECONDS


def path_of(writer: str) -> str:
    """Where the record of a writer stands."""
    return f"{FOLDER}/{writer}.json"


def in_path(path: str) -> str | None:
    """Find the writer in the path of a record."""
    match = _NAME.fullmatch(path)
    return match[1] if match else None


def me() -> dict[str, Any]:
    """Say which process this is, of all processes of all machines."""
    return _machine() | {"pid": os.getpid(), "born": _born(os.getpid())}


def is_here(record: Mapping[str, Any]) -> bool:
    """Whether a writer is, or was, a process that would be seen here."""
    return all(record[name] == value for name, value in _machine().items())


def is_running(record: Mapping[str, Any]) -> bool:
    """Whether that process of this machine is there, and not another one of the same number."""
    return bool(record["born"]) and _born(record["pid"]) == record["born"]


def describe(text: str) -> str:
    """Name a writer to the user."""
    try:
        record = json.loads(text)
        return f"process {int(record['pid'])} on {record['host']}"
    except (ValueError, KeyError, TypeError):
        return "an unknown process"


def progress(text: str) -> dict[str, Any]:
    """How far a writer has come, as it has said; {} where it has not."""
    try:
        return dict(json.loads(text).get("progress") or {})
    except (ValueError, TypeError, AttributeError):
        return {}


@cache
def _machine() -> dict[str, Any]:
    """Which machine, since which start, and which processes are seen on it (containers see their own)."""
    return {
        "host": platform.node(),
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "pids": _link("/proc/self/ns/pid"),
    }


def _born(pid: int) -> str:
    """When a process began, in its machine's own count; "" where there is none."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if fields:
        return "" if fields[0] in "ZX" else fields[19]
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)  # a system without /proc
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "?"
    return "?"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
