"""The node of a recorded load in a cell's configuration: which file it is, what is played of it, what it lacks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kmemexp.errors import TraceError
from kmemexp.workload.traces import library
from kmemexp.workload.traces.choosing import AS_RECORDED

FILE_S_NAME = "trace"  # a load of this name is named after its file


def node(workload: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a checked workload: the file's place and digest, its name, what the recording lacks.

    A cell is known by what its trace holds: another recording under the same name is another cell. What is as recorded
    is left out, so that cells from before there was a choice keep their keys. Raises TraceError where the recording
    does not have what is asked for.
    """
    found = dict(workload)
    path = found.pop("path", None)
    if path is not None:
        found["trace"] = path
        if found["name"] == FILE_S_NAME:
            found["name"] = _name_of(path)
    name = found["trace"]
    about = library.describe(name)
    if found.get("stream") == "auto":
        found["stream"] = "law" if "law" in about["streams"] else AS_RECORDED.stream
    _check(found, about)
    for key in AS_RECORDED._fields:
        if found.get(key) == getattr(AS_RECORDED, key):
            del found[key]
    if about["warnings"]:
        found["warnings"] = about["warnings"]
    place = name if name in library.names() else str(library.path_of(name).resolve())
    return {**found, "trace": place, "digest": library.digest(name)}


def _name_of(path: str) -> str:
    """Return a file's name without the suffixes that traces have."""
    from kmemexp.workload.lives.snapshots import prefix_of  # noqa: PLC0415 - names need no snapshots

    return path if path in library.names() else prefix_of(Path(path)).name


def _check(workload: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    stream = workload.get("stream", AS_RECORDED.stream)
    if stream not in about["streams"]:
        needed = {"law": "import it again, from its text", "reconciled": "import it with snapshots from after it"}
        raise TraceError(
            f"workload.stream={stream}: {workload['trace']} has {', '.join(about['streams'])} only: {needed[stream]}"
        )
    if workload.get("start", AS_RECORDED.start) == "recorded" and not about["start"]:
        raise TraceError(
            f"workload.start=recorded: {workload['trace']} does not tell what was there before: import it with "
            "snapshots (`python -m kmemexp.trace import --help`)"
        )
