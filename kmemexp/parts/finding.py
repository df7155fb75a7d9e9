"""Finding a part by its name, and what a plan must know of it, read from its source.

A plan imports no part: that would bring Numba. So `serves`, `sets_aside` and `parameters` look at what a module
defines, or imports by name, at its top level.
"""

import ast
import functools
import importlib
import importlib.util
import pkgutil
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from kmemexp.errors import ConfigError
from kmemexp.sim.slots import SERVED


def part(package: ModuleType, name: str) -> ModuleType:
    """Import a part by name; ConfigError lists what there is."""
    known = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    if name not in known:
        raise ConfigError(f"{package.__name__}: no part is called {name!r}; there are {', '.join(known)}")
    return importlib.import_module(f"{package.__name__}.{name}")


def parts(room: str) -> tuple[str, ...]:
    """Names of the strategy modules in kmemexp/sim/`room`, found without importing them."""
    package = importlib.import_module(f"kmemexp.sim.{room}")
    names = (m.name for m in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in names if name != "absent" and not name.startswith("_")))


def serves(allocator: str) -> list[str]:
    """List what an allocator can serve, of SERVED. ConfigError if it does not say."""
    found = _definition(f"kmemexp.sim.allocators.{allocator}", "SERVES")
    if not isinstance(found, ast.Assign):
        raise ConfigError(f"allocator {allocator}: its module has no constant SERVES, which says what it can serve")
    nodes = list(ast.walk(found.value))
    names = {n.id for n in nodes if isinstance(n, ast.Name)} | {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    return [word for word in SERVED if {f"CLASS_{word.upper()}", f"C_{word.upper()}"} & names]  # C_: version 0.1


def sets_aside(allocator: str) -> bool:
    """Tell whether an allocator serves interrupt zones from KVA that it sets aside at boot."""
    return _definition(f"kmemexp.sim.allocators.{allocator}", "kva_reserved") is not None


def joins_packets(allocator: str) -> bool:
    """Tell whether an allocator serves an mbuf and its cluster in one request."""
    return _definition(f"kmemexp.sim.allocators.{allocator}", "JOINS_PACKETS") is not None


def shares_pages(arena: str) -> bool:
    """Tell whether an arena shares physical pages with user memory and page cache."""
    return _definition(f"kmemexp.sim.arenas.{arena}", "SHARES_PAGES") is not None


def foresees(arena: str) -> bool:
    """Tell whether an arena places by what is to come, and needs a rehearsal of the lane for it."""
    return _definition(f"kmemexp.sim.arenas.{arena}", "foresee") is not None


def knows_nodes(arena: str) -> bool:
    """Tell whether an arena shares physical pages out among NUMA nodes."""
    return _definition(f"kmemexp.sim.arenas.{arena}", "node_bytes") is not None


def parameters(room: str, name: str) -> tuple[str, ...]:
    """Names of the parameters of a part of kmemexp/sim/`room`. ConfigError if it does not say."""
    found = _definition(f"kmemexp.sim.{room}.{name}", "Params")
    if not isinstance(found, ast.ClassDef):
        raise ConfigError(f"{room[:-1]} {name}: its module has no class Params, which says what can be set")
    fields = (node.target for node in found.body if isinstance(node, ast.AnnAssign))
    return tuple(field.id for field in fields if isinstance(field, ast.Name))


@functools.cache
def _definition(module: str, name: str) -> ast.stmt | None:
    """What defines a name at a module's top level, there or where it imports it from; None if nothing does."""
    for node in _source(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition(node.module, alias.name)
    return None


@functools.cache
def _source(module: str) -> ast.Module:
    """Read a module of the package; the packages around it are not imported, as `importlib.util.find_spec` would."""
    name, *leaves = module.split(".")
    places = importlib.import_module(name).__path__
    spec = None
    for leaf in leaves:
        name = f"{name}.{leaf}"
        spec = PathFinder.find_spec(name, places)
        loaded = sys.modules.get(name)  # its path may have grown: parts from outside
        grown = getattr(loaded, "__path__", None)
        places = grown or (spec and spec.submodule_search_locations) or []
    return parsed(Path(str(spec.origin if spec else module)))


def parsed(path: Path) -> ast.Module:
    """Parse a file of Python. Raises ConfigError where it is none."""
    try:
        return ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{path}: line {getattr(error, 'lineno', '?')}: is not Python ({error})") from error
