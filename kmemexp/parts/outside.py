"""Allocators and arenas from outside the package: `allocators/NAME.py` and `arenas/NAME.py` beside a user's own yaml.

A part found in a folder of Hydra's search path is copied into the cache of compiled code under the digest of its text,
and that folder joins the package `kmemexp.sim.allocators` or `kmemexp.sim.arenas`: from then on it is a part like any
other, in every process. A cell carries the digests of such parts, so another text under the same name is another cell;
the results folder keeps the text (`_plugins/`), which is where workers on other machines find it.
"""

import functools
import hashlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from kmemexp.errors import ConfigError

ROOMS = ("allocators", "arenas")
DIGITS = 32
_known: dict[tuple[str, str], tuple[str, str]] = {}  # (room, name): digest, and the file that it came from


def discover(folders: Iterable[str | Path]) -> None:
    """Take in the parts of these folders of configuration files. ConfigError where a name is in use."""
    for folder in folders:
        for room in ROOMS:
            for path in sorted(Path(folder, room).glob("*.py")):
                if not path.name.startswith("_"):
                    add(room, path)


def add(room: str, path: Path) -> str:
    """Take in one part from a file; returns its name. ConfigError where the name is in use."""
    name = path.stem
    if not name.isidentifier():
        raise ConfigError(f"{path}: a part is named like its file, so {name!r} must be an identifier")
    text = path.read_text("utf-8")
    _join(room, name, digest_of(text), str(path), lambda: text)
    return name


def load(room: str, name: str) -> ModuleType:
    """Import a part from outside. ConfigError names its file and what is wrong with it."""
    from kmemexp.parts.contract import problems  # noqa: PLC0415 - brings Numba

    try:
        module = importlib.import_module(f"kmemexp.sim.{room}.{name}")
    except Exception as error:
        raise ConfigError(f"{origin(room, name)}: {type(error).__name__}: {error}") from error
    if wrong := list(problems(module, room)):
        raise ConfigError(f"{origin(room, name)}: {'; '.join(wrong)}")
    return module


def code_of(room: str, names: Iterable[str]) -> dict[str, str]:
    """Digests of those among these parts that are not built in."""
    return {name: _known[room, name][0] for name in sorted(set(names)) if (room, name) in _known}


def parts_in(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Room, name and digest of the parts from outside that a cell uses."""
    for node, room in (("objects", "allocators"), ("maps", "arenas")):
        for name, digest in config.get(node, {}).get("code", {}).items():
            yield room, name, digest


def provide(config: Mapping[str, Any], read: Callable[[str], str | None] = lambda path: None) -> None:
    """Make a cell's parts from outside importable here. `read`: a file of the results folder, None if it is not there.

    Raises ConfigError where a part's text is nowhere to be found.
    """
    for room, name, digest in parts_in(config):
        if _known.get((room, name), ("",))[0] != digest:
            place = stored(room, name, digest)
            _join(room, name, digest, place, functools.partial(read, place))


def texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Texts of a cell's parts from outside, by their place in a results folder."""
    return {
        stored(room, name, digest): _copy(room, name, digest).read_text("utf-8")
        for room, name, digest in parts_in(config)
    }


def stored(room: str, name: str, digest: str) -> str:
    """Place of a part's text in a results folder."""
    return f"_plugins/{room}/_{name}-{digest}.py"


def digest_of(text: str) -> str:
    """Digest of a part's text."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def origin(room: str, name: str) -> str:
    """File that a part was taken from; "" for one that is built in."""
    return _known.get((room, name), ("", ""))[1]


def _join(room: str, name: str, digest: str, source: str, text: Callable[[], str | None]) -> None:
    """Copy a part's text into the cache, unless it is there, and let the package find it."""
    package = importlib.import_module(f"kmemexp.sim.{room}")
    had = _known.get((room, name))
    if had and had[0] == digest:
        return
    if had:
        raise ConfigError(
            f"{source}: {room[:-1]} {name} has been taken from {had[1]} already, with another text; after a change of "
            "the file, start a new process"
        )
    home = Path(package.__path__[0])
    if (home / f"{name}.py").exists() or (home / name).is_dir():
        raise ConfigError(f"{source}: there is a built-in {room[:-1]} called {name}; choose another name")
    copy = _copy(room, name, digest)
    if not copy.exists():
        content = text()
        if content is None:
            raise ConfigError(f"{room[:-1]} {name}: its text is not in the results folder, as {source}")
        if digest_of(content) != digest:  # it is executed: nothing else than what the cell names
            raise ConfigError(f"{room[:-1]} {name}: {source} is not the text that the cell was planned with")
        _write(copy, content)
    package.__path__.append(str(copy.parent))
    importlib.invalidate_caches()
    _known[room, name] = digest, source


def _copy(room: str, name: str, digest: str) -> Path:
    from kmemexp.jit.disk import cache_root  # noqa: PLC0415 - brings Numba, which a plan without such parts does without

    return cache_root() / "plugins" / digest / room / f"{name}.py"


def _write(path: Path, text: str) -> None:
    """Write a file whole: other processes may write the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)
