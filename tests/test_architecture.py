"""Which room may import which: arrows run one way, down, and no two modules import each other in a circle.

An import counts wherever it stands: inside a function, and under TYPE_CHECKING too.
"""

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kmemexp"
LEAVES = {"errors", "values", "metrics", "jit", "reach"}
"""What every room may import, but for `sim`, which may import `jit` alone."""

# From top to bottom: a room may import what is named here, the leaves, and itself. What is named stands further down.
MAY_IMPORT = {
    "__main__": {"command_line", "actions"},
    "command_line": {"cli", "config"},
    "cli": {"claims", "actions", "planning"},
    "claims": {"actions", "report", "planning", "config"},
    "actions": {"validate", "report", "sweep", "planning", "store", "lane", "boot", "workload", "sim"},
    "validate": {"predict", "report", "planning", "store", "lane", "boot", "testing", "parts", "workload", "sim"},
    "api": {"report", "sweep", "planning"},
    "trace": {"predict", "workload"},
    "predict": {"planning", "boot", "workload", "sim"},
    "report": {"planning", "store", "parts", "sim"},
    "sweep": {"planning", "store", "parts"},  # `lane` by name: a plan tells runners "kmemexp.lane:simulate_lanes"
    "planning": {"config", "parts", "workload"},
    "lane": {"boot", "parts", "workload", "sim"},
    "config": {"boot", "parts", "workload", "sim"},
    "boot": {"parts", "workload", "sim"},
    "testing": {"parts", "sim"},
    "parts": {"sim"},
    "workload": {"sim"},
    "store": set(),
    "sim": set(),
    "metrics": set(),
    "values": set(),
    "jit": set(),
    "errors": set(),
    "reach": set(),
}
LOOSE = 10
"""Files that may lie in kmemexp/ itself."""


def name_of(path: Path) -> str:
    """Dotted name of the module in a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(module: str) -> set[str]:
    """Modules that a module imports, anywhere in its text: of kmemexp in full, of others the top-level name."""
    path = MODULES[module]
    here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = ".".join([*here[: len(here) - node.level + 1], node.module or ""]) if node.level else node.module
            below = {f"{source.rstrip('.')}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else source for name in below}
    return {name if name in MODULES else name.partition(".")[0] for name in found} - {module}


@functools.cache
def all_imports() -> dict[str, set[str]]:
    """What each module imports."""
    return {module: imported(module) for module in MODULES}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def crossings() -> list[tuple[str, str]]:
    """Imports from one room into another, as (importer, imported); the package itself only hands out `api`."""
    return [
        (module, name)
        for module, names in all_imports().items()
        for name in names
        if name in MODULES and room_of(module) != room_of(name) and room_of(module) and room_of(name)
    ]


def test_every_file_is_in_a_room_that_is_known() -> None:
    assert {room_of(module) for module in MODULES} - {"", "data"} == set(MAY_IMPORT)


def test_rooms_import_downwards_only() -> None:
    order = list(MAY_IMPORT)
    up = [(a, b) for a, below in MAY_IMPORT.items() for b in below if order.index(b) <= order.index(a)]
    assert not up, f"the table itself points up: {up}"


def test_a_room_imports_only_what_it_may() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, name in crossings()
        if room_of(name) not in MAY_IMPORT[room_of(module)] | LEAVES
    ]
    assert not wrong, "\n".join(wrong)


def test_the_leaves_import_nothing_but_errors_and_reach() -> None:
    wrong = [
        f"{m} imports {n}" for m, n in crossings() if room_of(m) in LEAVES and room_of(n) not in ("errors", "reach")
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle() -> None:
    assert circles(all_imports()) == []


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found = []

    def visit(a: str) -> None:
        number[a] = low[a] = len(number)
        path.append(a)
        for b in graph[a] & graph.keys():
            if b not in number:
                visit(b)
            if b in path:
                low[a] = min(low[a], low[b])
        if low[a] == number[a]:
            circle = path[path.index(a) :]
            del path[path.index(a) :]
            if len(circle) > 1:
                found.append(circle)

    for module in graph:
        if module not in number:
            visit(module)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [["b", "c"]]


def test_few_files_lie_loose() -> None:
    loose = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(loose) <= LOOSE, loose


ROOMS = sorted(
    path.parent.relative_to(PACKAGE).as_posix()
    for path in [*PACKAGE.glob("*/__init__.py"), *(PACKAGE / "sim").glob("*/__init__.py")]
    if path.parent.name != "data"
)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_lives_there_and_what_it_may_import(room: str) -> None:
    said = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
    assert said, f"kmemexp/{room}/__init__.py has no docstring"
    assert "May import" in said, f"kmemexp/{room}/__init__.py does not say what the room may import"


def test_the_table_in_the_documentation_says_the_same() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `kmemexp/(\w+)(?:\.py|/)` \|[^|]*\| ([^|]*) \|$", text, re.MULTILINE)
    told = {room: set(re.findall(r"\w+", may.replace("lane (by name)", ""))) & MAY_IMPORT.keys() for room, may in rows}
    assert told == {
        room: MAY_IMPORT[room] for room in MAY_IMPORT.keys() - LEAVES - {"__main__", "command_line", "cli", "sim"}
    }


# Within sim.


def test_sim_imports_numpy_numba_the_standard_library_and_itself() -> None:
    allowed = {"numpy", "numba"} | set(sys.stdlib_module_names)
    wrong = [
        f"{module} imports {name}"
        for module, names in all_imports().items()
        if room_of(module) == "sim"
        for name in names
        if not (name.startswith("kmemexp.sim") or name == "kmemexp.jit" or name in allowed)
    ]
    assert not wrong, "\n".join(wrong)


BELOW_SIM = {"engine": set(), "allocators": set(), "arenas": {"allocators"}, "": set()}
"""Folders of sim, and which others each may import beside sim's own files: an arena may take its tags from a zone
allocator and then needs that allocator's arithmetic."""


def folder_of(module: str) -> str:
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[2] in BELOW_SIM else ""


def test_drivers_know_no_allocator_and_no_arena() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, names in all_imports().items()
        if room_of(module) == "sim"
        for name in names
        if name in MODULES and folder_of(name) not in {"", folder_of(module)} | BELOW_SIM[folder_of(module)]
    ]
    assert not wrong, "\n".join(wrong)
