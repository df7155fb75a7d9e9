"""A command that has nothing left to do, answered without planning it again.

What a sweep asks for follows from the command line, the configuration files and the program; what is left to do, from
the results folder. When a run has ended with every row done, it is noted in the user's cache what all of these were and
what was shown. The same command shows that again for as long as no file of theirs has changed: name, size, inode, and
the times of modification and of the last change of each, in the results folder too. Otherwise it is run.

Nothing is noted of what cannot be seen so: object stores, settings of Hydra itself, recordings that are not shipped,
values that come from the environment or from chance, replicas whose number results decide.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kmemexp.errors import InputError

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

FORM = 1  # of notes
FLAGS = ("-m", "--multirun", "--verbose", "--quiet")
HIDDEN = ("hydra.", "hydra/", "${", "shuffle(")
"""Words of an override that make it depend on what is not looked at."""
ELSEWHERE = (b"oc.env", b"${now", b"searchpath", b"shuffle(")
"""The same of a configuration file."""
MOST_FILES = 100_000  # of a folder that is looked at
DEEPEST = 24  # folder within folder: a link may lead back
NOTES = 200  # that are kept
TICK_SECONDS = 0.02
"""A file that is written twice within one tick of its file system's clock has the same times afterwards."""


class _Command(NamedTuple):
    """A command line, as this process was started with it."""

    note: Path  # where it is noted what became of it
    folders: list[Path]  # what a plan is made from
    inputs: str  # digest of what was there when the process began


_started: list[_Command] = []


def told(arguments: Sequence[str]) -> bool:
    """Print again what this command line has printed, if nothing has changed since. Returns whether it was printed."""
    _started.clear()
    found: list[Any] = []
    with contextlib.suppress(OSError, RuntimeError, ValueError, KeyError, TypeError):
        if (folders := _folders(arguments)) is None:
            return False
        command = _Command(_place(arguments), folders, _inputs(folders))
        _started.append(command)
        found = _unchanged(command)
    if not found:
        return False
    from kmemexp.report import closing  # noqa: PLC0415 - most commands have something to do, or are no runs
    from kmemexp.report.shown import from_data  # noqa: PLC0415

    for words, shown in found:
        closing.say(closing.Closing(*words), from_data(shown))
    return True


def note(plans: "Sequence[Plan]") -> None:
    """Note that the plans of this process's command are done, where it can be seen whether that stays so."""
    with contextlib.suppress(OSError, RuntimeError, ValueError, InputError):
        if _started and all(map(_can_be_seen, plans)):
            _note(_started.pop(), plans)


def _note(command: _Command, plans: "Sequence[Plan]") -> None:
    from kmemexp.report import closing, ending  # noqa: PLC0415 - as above

    time.sleep(TICK_SECONDS)
    sweeps, roots = [], {}
    for plan in plans:
        roots[plan.root] = _tree(Path(plan.root))
        if (shown := ending.standing(plan)) is None:
            return
        sweeps.append([closing.of(plan), shown._asdict()])
    if _depend(command.folders) or _inputs(command.folders) != command.inputs:
        return
    if any(_tree(Path(root)) != digest for root, digest in roots.items()):
        return
    text = json.dumps({"inputs": command.inputs, "roots": roots, "sweeps": sweeps})
    folder = command.note.parent
    folder.mkdir(parents=True, exist_ok=True)
    temporary = command.note.with_suffix(f".{os.getpid()}")
    temporary.write_text(f"{_digest(text)}\n{text}", "utf-8")
    temporary.replace(command.note)
    notes = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for old in notes[:-NOTES]:
        old.unlink(missing_ok=True)


def _unchanged(command: _Command) -> list[Any]:
    """What was noted of a command, [] if something has changed. Raises ValueError or KeyError for what is no note."""
    if not command.note.exists():
        return []
    sealed, _, text = command.note.read_text("utf-8").partition("\n")
    record: dict[str, Any] = json.loads(text) if sealed == _digest(text) else {"inputs": ""}
    if record["inputs"] != command.inputs:
        return []
    same = all(_tree(Path(root)) == digest for root, digest in record["roots"].items())
    return list(record["sweeps"]) if same else []


def _can_be_seen(plan: "Plan") -> bool:
    """Whether all that a plan depends on is in files that are looked at."""
    if "://" in plan.root or plan.reps:
        return False
    import numpy as np  # noqa: PLC0415 - `told` does without

    from kmemexp.planning.texts import Texts  # noqa: PLC0415
    from kmemexp.workload.traces import library  # noqa: PLC0415

    texts = plan.columns["config"]
    if not isinstance(texts, Texts):
        return False
    loads = [json.loads(text)["workload"] for text in texts.distinct(["workload"], np.ones(len(texts), bool))]
    return all(load["source"] != "trace" or load["trace"] in library.names() for load in loads)


def _folders(arguments: Sequence[str]) -> list[Path] | None:
    """Folders of all files that a plan is made from; None where the command line says that there may be others."""
    package = Path(__file__).resolve().parents[1]
    places = (package, package / "conf", package.parent / "conf", package.parent / "hydra_plugins" / "kmemexp_sweeper")
    found = [place for place in places if place.is_dir()]
    words = iter(arguments)
    for word in words:
        name, _, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(Path(value or next(words, "")).expanduser().absolute())
        elif (word.startswith("-") and word not in FLAGS) or any(sign in word for sign in HIDDEN):
            return None
    return found


def _place(arguments: Sequence[str]) -> Path:
    """Where it is noted what became of a command line that is given here."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    said = [FORM, list(arguments), str(Path.cwd()), str(Path.home()), sys.prefix, __file__]
    return home / "kmemexp" / "again" / f"{_digest(json.dumps(said))[:32]}.json"


def _inputs(folders: Sequence[Path]) -> str:
    """Digest of the files that plans are made from, and of what is installed beside them."""
    packages = [Path(path).stat() for path in sys.path if path.endswith("-packages") and Path(path).is_dir()]
    installed = [(one.st_mtime_ns, one.st_ino) for one in packages]
    settings = sorted((k, v) for k, v in os.environ.items() if k.startswith(("HYDRA_", "KMEMEXP_", "NUMBA_DISABLE")))
    return _digest(json.dumps([sys.version, installed, settings, [_tree(folder) for folder in folders]]))


def _depend(folders: Sequence[Path]) -> bool:
    """Whether a configuration file says something that is not in files."""
    found = (path for folder in folders for path in folder.rglob("*.yaml"))
    return any(sign in text for path in found for text in [path.read_bytes()] for sign in ELSEWHERE)


def _tree(folder: Path) -> str:
    """Digest of what is in a folder, by its files' names, times, sizes and inodes. Raises OSError, ValueError."""
    found = sorted(_files(str(folder), ""))
    return _digest(json.dumps(found))


def _files(folder: str, below: str, depth: int = 0) -> Iterator[tuple[str, int, int, int, int]]:
    if depth > DEEPEST:
        raise ValueError(f"{folder}: too deep to be looked at")
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count > MOST_FILES:
                raise ValueError(f"{folder}: too many files to be looked at")
            name = f"{below}/{entry.name}"
            if entry.is_dir():
                if entry.name != "__pycache__":
                    yield from _files(entry.path, name, depth + 1)
            else:
                one = entry.stat()
                yield name, one.st_mtime_ns, one.st_ctime_ns, one.st_size, one.st_ino


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
