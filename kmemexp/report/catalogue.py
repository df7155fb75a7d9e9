"""What designs there are: what each is, the parts it is made of, the code that they model, what they leave out.

A part's own docstring says the last two; it is read without importing the part.
"""

import ast
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from hydra.core.config_loader import ConfigLoader
from rich.console import Console
from rich.padding import Padding

from kmemexp.errors import ConfigError
from kmemexp.parts import outside
from kmemexp.parts.finding import parsed
from kmemexp.planning.composing import Composer, plain
from kmemexp.sim.slots import SERVED
from kmemexp.values import size_text

SHOWN = ("design", "maps", "objects", "interrupts")
LEFT_OUT = re.compile(r"Left out(?: of [^:]*)?: *(.*?)(?=\n\n|\Z)", re.DOTALL)
SENTENCE = re.compile(r"[^.]*\b(?:is|are) left out\b[^.]*(?:\.\w[^.]*)*\.")  # a dot within a word ends none


class Part(NamedTuple):
    """What a part's docstring says."""

    models: str  # its first sentence or two: which code, of when
    leaves_out: str


class Served(NamedTuple):
    """Who serves a kind of object in a design."""

    kind: str
    klass: str
    allocator: str  # "": the map itself
    map: str
    limit: int  # objects, or bytes of what a map or malloc serves; 0: none but the map's size
    own_kva: bool  # a range set aside for this kind alone
    held: bool = True  # to the limit: of malloc's, a kind that is one type


def table(loader: ConfigLoader) -> pd.DataFrame:
    """One row per design on the search path of `loader`.

    Columns: design, title, about, layout, arena, entries, malloc, zone, mbuf, kinds, interrupts, and by part
    `models` and `leaves_out` (dicts). Raises ConfigError for a design that does not compose.
    """
    composer = Composer(loader)
    rows = []
    for name in composer.options("design"):
        composed = composer.compose([f"design={name}"])
        outside.discover(s["path"] for s in composed.hydra.runtime.config_sources if s["schema"] == "file")
        rows.append(_row(name, plain(composed, SHOWN), composed.hydra.runtime.choices))
    return pd.DataFrame(rows)


def part(room: str, name: str) -> Part:
    """Read a part's docstring: kmemexp/sim/<room>/<name>.py, or a user's own file. ConfigError where there is none."""
    found = importlib.util.find_spec(f"kmemexp.sim.{room}.{name}")
    if found is None:
        raise ConfigError(f"there is no kmemexp/sim/{room}/{name}.py")
    text = ast.get_docstring(parsed(Path(str(found.origin)))) or ""
    return Part(_line(text.partition("\n\n")[0]), _left_out(text))


def _left_out(text: str) -> str:
    """All that a docstring says is left out: what follows these words in any paragraph, and sentences that end so."""
    lists = [_line(found) for found in LEFT_OUT.findall(text)]
    rest = _line(LEFT_OUT.sub("", text))
    return " ".join([*lists, *(_line(found) for found in SENTENCE.findall(rest))])


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def show(frame: pd.DataFrame, console: Console, served: Mapping[str, list[Served] | str] | None = None) -> None:
    """Print the designs, then their parts. `served`: who serves which kind in a design, or why that cannot be said."""
    for row in frame.to_dict("records"):
        console.print(f"[bold]{row['design']}[/]  {row['title']}", highlight=False)
        kinds = [f"{kind} {name}" for kind, name in row["kinds"].items()]
        lines = [
            row["about"],
            f"maps {row['layout']}, {row['arena']}; malloc {row['malloc']}, zones {row['zone']}, mbufs {row['mbuf']}"
            f"{''.join(f', {kind}' for kind in kinds)}; interrupts {row['interrupts']}",
            *_kinds((served or {}).get(row["design"], [])),
        ]
        console.print(Padding("\n".join(filter(None, lines)), (0, 0, 1, 4)), highlight=False)
    console.print("[bold]Parts: the code that they model, and what they leave out[/]\n")
    parts: dict[str, tuple[str, str]] = {}
    for row in frame.to_dict("records"):
        parts |= {name: (text, row["leaves_out"][name]) for name, text in row["models"].items()}
    for name, (models, leaves_out) in sorted(parts.items()):
        console.print(f"[bold]{name}[/]", highlight=False)
        text = f"{models}\nLeft out: {leaves_out or 'its docstring does not say.'}"
        console.print(Padding(text, (0, 0, 1, 4)), highlight=False)


def _kinds(served: list[Served] | str) -> list[str]:
    """Kinds by who serves them, in which map and up to which limit; kinds alike share a line."""
    if isinstance(served, str):
        return [f"not on this machine: {served}"]
    alike: dict[str, list[str]] = {}
    for row in served:
        limit = ""
        if row.limit and row.klass == "malloc":
            who = "the type" if row.held else "types, here not told apart,"
            limit = f", {who} up to {size_text(row.limit)}"
        elif row.limit:
            limit = f", up to {row.limit:,}" if row.klass in ("zone", "mbuf") else f", up to {size_text(row.limit)}"
        where = f"{row.allocator or 'the map itself'}, {row.map}{limit}{', KVA of its own' if row.own_kva else ''}"
        alike.setdefault(where, []).append(row.kind)
    return [f"{', '.join(kinds)}: {where}" for where, kinds in alike.items()]


def _row(name: str, nodes: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, Any]:
    design, maps, objects = nodes["design"], nodes["maps"], nodes["objects"]
    served = {key: objects[key] for key in SERVED}
    parts = {used: part("allocators", used) for used in dict.fromkeys([*served.values(), *objects["kinds"].values()])}
    parts[maps["arena"]] = part("arenas", maps["arena"])
    return {
        "design": name,
        "title": design["title"],
        "about": design["about"],
        **{key: maps[key] for key in ("layout", "arena", "entries")},
        **served,
        "kinds": objects["kinds"],
        "interrupts": choices["interrupts"],
        "models": {used: found.models for used, found in parts.items()},
        "leaves_out": {used: found.leaves_out for used, found in parts.items()},
    }
