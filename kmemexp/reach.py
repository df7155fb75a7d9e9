"""Which modules of the package a module reaches by its imports, and what these say: read from sources, not imported.

Compiled code is kept, and results are known, by the sources that they come from.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import os
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

PACKAGE = "kmemexp"


def closure(modules: Iterable[str]) -> set[str]:
    """Find these modules and all that they import of their own packages and of kmemexp."""
    found: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(imports(name))
    return found


@functools.cache
def source(module: str) -> bytes:
    """Text of a module; nothing where it is not Python's."""
    path = _path(module)
    return path.read_bytes() if path else b""


@functools.cache
def imports(module: str) -> tuple[str, ...]:
    """Modules of the same top-level package, or of kmemexp, that a module imports."""
    tops = {_top(module), PACKAGE} - {"numba", "numpy"}
    names: set[str] = set()
    for origin, asked in _facts(module)[1]:
        if not asked:
            names.add(origin)
        elif _top(origin) in tops:
            names.update(_from(origin, asked))
    return tuple(n for n in sorted(names) if _top(n) in tops and n != module and find(n))


@functools.cache
def find(module: str) -> ModuleSpec | None:
    """Find a module without importing the packages around it, which may be in the midst of being imported."""
    name, *leaves = module.split(".")
    spec = importlib.util.find_spec(name)
    for leaf in leaves:
        loaded = sys.modules.get(name)  # its path may have grown: parts from outside
        places = getattr(loaded, "__path__", None) or (spec.submodule_search_locations if spec else None)
        if not places:
            return None
        name = f"{name}.{leaf}"
        spec = PathFinder.find_spec(name, places)
    return spec


def forget() -> None:
    """Look anew: a package's path has grown, or a source has changed."""
    for cached in (source, imports, find, _facts, meaning):
        cached.cache_clear()


@functools.cache
def meaning(module: str) -> str:
    """Digest of what a module's source says, comments, docstrings and empty lines left out."""
    return str(_facts(module)[0])


@functools.cache
def _facts(module: str) -> tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    """The digest of a module, and what it imports: (module, names that are imported from it, if any)."""
    path = _path(module)
    if path is None:
        return "", ()
    state = path.stat()
    mark = [state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino]
    known = _known().get(str(path))
    if known is None or known[0] != mark:
        text = path.read_text("utf-8")
        tree = ast.parse(text)
        known = _known()[str(path)] = [mark, hashlib.sha256(stripped(text, tree)).hexdigest()[:32], _imported(tree)]
        _changed.append(str(path))
    return known[1], tuple((origin, tuple(names)) for origin, names in known[2])


def stripped(text: str, tree: ast.Module) -> bytes:
    """Text of a module without what does nothing: comments, docstrings, empty lines, blanks at the ends of lines."""
    lines: list[str] = text.splitlines()
    for row, column in sorted(_comments(text), reverse=True):
        lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for one in node.body:
                if (
                    isinstance(one, ast.Expr)
                    and isinstance(one.value, ast.Constant)
                    and isinstance(one.value.value, str)
                ):
                    lines[one.lineno - 1 : one.end_lineno] = [""] * ((one.end_lineno or one.lineno) - one.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip()).encode()


def _comments(text: str) -> Iterator[tuple[int, int]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start


def _imported(tree: ast.Module) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module, [alias.name for alias in node.names]))
    return found


def _from(module: str, names: Iterable[str]) -> Iterator[str]:
    """Modules that `from module import names` brings: of a package only those of its modules that are named."""
    spec = find(module)
    for name in names:
        inner = f"{module}.{name}"
        is_package = spec is not None and spec.submodule_search_locations is not None
        yield inner if is_package and find(inner) else module


def _path(module: str) -> Path | None:
    spec = find(module)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _top(module: str) -> str:
    return module.partition(".")[0]


# Reading a hundred sources takes a second, so what was found in them is kept, by their time, size and inode.

_changed: list[str] = []


@functools.cache
def _known() -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        found: dict[str, Any] = json.loads(_file().read_text("utf-8"))
        return found
    return {}


def keep() -> None:
    """Keep what was found in sources for the next process."""
    if not _changed:
        return
    _changed.clear()
    with contextlib.suppress(OSError, RuntimeError):  # no home, or one that cannot be written
        path = _file()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(_those_there(_known())), "utf-8")
        temporary.replace(path)


def _those_there(known: Mapping[str, Any]) -> dict[str, Any]:
    return {path: facts for path, facts in known.items() if Path(path).exists()}


def _file() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / PACKAGE / f"sources-{sys.version_info[0]}.{sys.version_info[1]}-1.json"
