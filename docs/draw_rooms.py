"""Draw docs/rooms.svg: the rooms of kmemexp and who imports whom, read from the imports themselves.

    python docs/draw_rooms.py

Where a room stands in the picture, and its caption, is written below; the arrows are not. An arrow that follows from
others is left out, and so are the leaves, which every room may import. A dashed arrow is a room that another one names
in a string ("kmemexp.lane:simulate_lanes") and does not import.
"""

import ast
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "rooms.svg"
LEAVES = ("errors", "values", "metrics", "jit", "reach")
SAME = {"__main__": "cli", "command_line": "cli"}
"""Rooms that share a box."""


class Box(NamedTuple):
    """A room in the picture."""

    row: int
    column: int
    caption: str
    step: str = ""  # of the story in docs/architecture.md
    title: str = ""  # where it is not the room's name


BOXES = {
    "cli": Box(0, 1, "command line: which action, or claims", "1", "__main__, cli"),
    "claims": Box(1, 1, "experiments: run, judge, write"),
    "actions": Box(2, 1, "one verb each: run, plan, explain …", "4"),
    "api": Box(2, 2, "what a notebook uses"),
    "validate": Box(3, 0, "is the simulator right?"),
    "sweep": Box(3, 1, "batches, runners, workers", "5"),
    "report": Box(4, 2, "frames, comparison, charts", "11"),
    "planning": Box(5, 1, "overrides → a table of cells", "2"),
    "store": Box(5, 2, "files and manifests", "10"),
    "lane": Box(6, 0, "simulates a replica, samples it", "6"),
    "config": Box(6, 1, "schema, checks, a cell's key", "3"),
    "testing": Box(7, 0, "conformance of a part"),
    "boot": Box(7, 1, "a cell → a machine that has booted", "8"),
    "trace": Box(2, 0, "python -m kmemexp.trace"),
    "predict": Box(4, 0, "a real kernel's slabs"),
    "parts": Box(8, 0, "allocators, arenas by name"),
    "workload": Box(8, 2, "laws and recordings → a stream", "7"),
    "sim": Box(9, 1, "drivers, engine, allocators, arenas", "9"),
}
WIDTH, HEIGHT, PITCH_X, PITCH_Y, MARGIN = 246, 52, 292, 92, 14

STYLE = """
    .box { fill: #f6f8fa; stroke: #8c959f; stroke-width: 1.2 }
    .story { fill: #ddf4ff; stroke: #0969da }
    .name { font: 600 15px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2328 }
    .caption { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #59636e }
    .arrow { fill: none; stroke: #59636e; stroke-width: 1.4 }
    .tip { fill: #59636e }
    .named { stroke-dasharray: 5 4 }
    .badge { fill: #0969da }
    .step { font: 600 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #ffffff }
"""
DARK = """
      .box { fill: #161b22; stroke: #6e7681 }
      .story { fill: #0c2d4d; stroke: #4493f8 }
      .name { fill: #f0f6fc }
      .caption { fill: #b1bac4 }
      .arrow { stroke: #9198a1 }
      .tip { fill: #9198a1 }
      .badge { fill: #1f6feb }
"""


def arrows() -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Pairs of rooms: (imports that do not follow from others, rooms named in strings)."""
    imports: dict[str, set[str]] = {room: set() for room in BOXES}
    named: set[tuple[str, str]] = set()
    for path in sorted((ROOT / "kmemexp").rglob("*.py")):
        room = _room(path.relative_to(ROOT / "kmemexp").with_suffix("").parts[0])
        if room in (*LEAVES, "__init__", "data"):
            continue
        tree = ast.parse(path.read_text())
        imports[room] |= {_room(name) for name in _imported(tree)} & BOXES.keys() - {room}
        named |= {(room, _room(name)) for name in _named(tree)}
    reach = _reach(imports)
    direct = {
        (room, below)
        for room, names in imports.items()
        for below in names
        if not any(below in reach[other] for other in names - {below})
    }
    for above, below in sorted(direct | named):
        if BOXES[below].row <= BOXES[above].row:
            raise ValueError(f"{above} imports {below}, which does not stand below it")
    return direct, named - direct


def _room(name: str) -> str:
    return SAME.get(name, name)


def _imported(tree: ast.AST) -> Iterable[str]:
    """Names of the rooms that a module imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("kmemexp."))
        elif isinstance(node, ast.ImportFrom) and node.module == "kmemexp":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kmemexp."):
            yield node.module.split(".")[1]


def _named(tree: ast.AST) -> Iterable[str]:
    """Rooms that a module names as "kmemexp.room:function"."""
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and (found := re.fullmatch(r"kmemexp\.(\w+)[\w.]*:\w+", text)):
            yield found[1]


def _reach(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Rooms that a room reaches over one import or several."""
    reach = {room: set(names) for room, names in graph.items()}
    for _ in graph:
        for names in reach.values():
            names.update(*(reach[name] for name in set(names)))
    return reach


def svg() -> str:
    """The picture."""
    direct, named = arrows()
    everything = sorted(direct | named)
    lines = [_arrow(above, below, everything, (above, below) in named) for above, below in everything]
    boxes = [_box(room, box) for room, box in BOXES.items()]
    width = 2 * MARGIN + 2 * PITCH_X + WIDTH
    height = 2 * MARGIN + max(box.row for box in BOXES.values()) * PITCH_Y + HEIGHT
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'role="img" aria-label="The rooms of kmemexp; arrows point to what a room imports">',
        f"  <style>{STYLE}    @media (prefers-color-scheme: dark) {{{DARK}    }}\n  </style>",
        *lines,
        *boxes,
        "</svg>\n",
    ])  # fmt: skip


def _box(room: str, box: Box) -> str:
    x, y = _corner(box)
    middle = x + WIDTH // 2
    badge = (
        f'<circle class="badge" cx="{x}" cy="{y + HEIGHT // 2}" r="11"/>'
        f'<text class="step" x="{x}" y="{y + HEIGHT // 2 + 4}" text-anchor="middle">{box.step}</text>'
    )
    return (
        f'  <g><rect class="box{" story" if box.step else ""}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" '
        f'rx="8"/><text class="name" x="{middle}" y="{y + 22}" text-anchor="middle">{escape(box.title or room)}</text>'
        f'<text class="caption" x="{middle}" y="{y + 41}" text-anchor="middle">{escape(box.caption)}</text>'
        f"{badge if box.step else ''}</g>"
    )


def _corner(box: Box) -> tuple[int, int]:
    return MARGIN + box.column * PITCH_X, MARGIN + box.row * PITCH_Y


def _port(room: str, other: str, peers: list[str]) -> int:
    """Where along a box's edge the arrow to or from `other` stands: spread out in the order of what they join."""
    peers = sorted(peers, key=lambda peer: (BOXES[peer].column, BOXES[peer].row))
    left, _ = _corner(BOXES[room])
    return left + WIDTH * (peers.index(other) + 1) // (len(peers) + 1)


def _arrow(above: str, below: str, everything: list[tuple[str, str]], by_name: bool) -> str:
    """A curve from the lower edge of a box, or from its side where it leads past other rows, to the top of another."""
    near = [b for a, b in everything if a == above and not _sideways(a, b)]
    x1 = _port(below, above, [a for a, b in everything if b == below])
    y1 = _corner(BOXES[below])[1] - 1
    left, top = _corner(BOXES[above])
    if _sideways(above, below):
        right = BOXES[below].column > BOXES[above].column
        x0, y0 = left + WIDTH * right, top + HEIGHT * 2 // 3
        curve = f"M{x0},{y0} C{x1},{y0} {x1},{y0 + 20} {x1},{y1 - 7}"
    else:
        x0, y0 = _port(above, below, near), top + HEIGHT
        bend = (y1 - y0) * 3 // 4
        curve = f"M{x0},{y0} C{x0},{y0 + bend} {x1},{y1 - bend} {x1},{y1 - 7}"
    tip = f'<path class="tip" d="M{x1},{y1} l-5,-9 h10 z"/>'
    return f'  <path class="arrow{" named" if by_name else ""}" d="{curve}"/>{tip}'


def _sideways(above: str, below: str) -> bool:
    return BOXES[below].row > BOXES[above].row + 1 and BOXES[below].column != BOXES[above].column


if __name__ == "__main__":
    TARGET.write_text(svg())
