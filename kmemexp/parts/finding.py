"""Finding a part by its name, and what can be told of it without importing it."""

import ast
import functools
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType

from kmemexp.errors import ConfigError


def part(package: ModuleType, name: str) -> ModuleType:
    """Import a part by name; ConfigError lists what there is."""
    known = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    if name not in known:
        raise ConfigError(f"{package.__name__}: no part is called {name!r}; there are {', '.join(known)}")
    return importlib.import_module(f"{package.__name__}.{name}")


SERVED = ("malloc", "zone", "mbuf")


def parts(room: str) -> tuple[str, ...]:
    """Names of the strategy modules in kmemexp/sim/`room`, found without importing them."""
    package = importlib.import_module(f"kmemexp.sim.{room}")
    names = (m.name for m in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in names if name != "absent" and not name.startswith("_")))


def sets_aside(allocator: str) -> bool:
    """Tell whether an allocator sets KVA aside at boot."""
    return any(isinstance(node, ast.FunctionDef) and node.name == "kva_reserved" for node in _source(allocator).body)


def serves(allocator: str) -> list[str]:
    """List what an allocator can serve, of SERVED."""
    for node in _source(allocator).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "SERVES":
            names = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
            return [place for place in SERVED if f"C_{place.upper()}" in names]
    raise ConfigError(f"allocator {allocator}: its module has no constant SERVES, which says what it can serve")


@functools.cache
def _source(allocator: str) -> ast.Module:
    """Read an allocator's source: importing it brings Numba, which a plan does without."""
    spec = importlib.util.find_spec(f"kmemexp.sim.allocators.{allocator}")
    return ast.parse(Path(str(spec.origin)).read_text("utf-8"))
