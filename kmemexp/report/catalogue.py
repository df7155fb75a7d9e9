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
from kmemexp.planning import cells
from kmemexp.sim.slots import SERVED

SHOWN = ("design", "maps", "objects", "interrupts")
LEFT_OUT = re.compile(r"^(?:.*?)Left out(?: of [^:]*)?: *(.*?)(?=\n\n|\Z)", re.DOTALL | re.MULTILINE)


class Part(NamedTuple):
    """What a part's docstring says."""

    models: str  # its first sentence or two: which code, of when
    leaves_out: str


def table(loader: ConfigLoader) -> pd.DataFrame:
    """One row per design on the search path of `loader`.

    Columns: design, title, about, layout, arena, entries, malloc, zone, mbuf, kinds, interrupts, and by part
    `models` and `leaves_out` (dicts). Raises ConfigError for a design that does not compose.
    """
    composer = cells.Composer(loader)
    rows = []
    for name in composer.options("design"):
        composed = composer.compose([f"design={name}"])
        outside.discover(s["path"] for s in composed.hydra.runtime.config_sources if s["schema"] == "file")
        rows.append(_row(name, cells.plain(composed, SHOWN), composed.hydra.runtime.choices))
    return pd.DataFrame(rows)


def part(room: str, name: str) -> Part:
    """Read a part's docstring: kmemexp/sim/<room>/<name>.py, or a user's own file. ConfigError where there is none."""
    found = importlib.util.find_spec(f"kmemexp.sim.{room}.{name}")
    if found is None:
        raise ConfigError(f"there is no kmemexp/sim/{room}/{name}.py")
    text = ast.get_docstring(parsed(Path(str(found.origin)))) or ""
    first = re.sub(r"\s+", " ", text.partition("\n\n")[0]).strip()
    left_out = LEFT_OUT.search(text)
    return Part(first, re.sub(r"\s+", " ", left_out[1]).strip() if left_out else "")


def show(frame: pd.DataFrame, console: Console) -> None:
    """Print the designs, then their parts."""
    for row in frame.to_dict("records"):
        console.print(f"[bold]{row['design']}[/]  {row['title']}", highlight=False)
        kinds = [f"{kind} {name}" for kind, name in row["kinds"].items()]
        lines = [
            row["about"],
            f"maps {row['layout']}, {row['arena']}; malloc {row['malloc']}, zones {row['zone']}, mbufs {row['mbuf']}"
            f"{''.join(f', {kind}' for kind in kinds)}; interrupts {row['interrupts']}",
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
