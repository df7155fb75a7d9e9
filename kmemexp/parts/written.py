"""What sources say of fields: names, types, defaults and the comments beside them, read as text, without importing."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FIELD = re.compile(r"^    (\w+): ([^=#\n]+?)(?: = (.*?))?(?:  # (.*))?$")
ROOMS = ("allocators", "arenas")


class Field(NamedTuple):
    """A field of a class: texts, as they are written."""

    name: str
    kind: str
    default: str  # "-": none
    text: str


def parameters(room: str, part: str) -> list[Field]:
    """Parameters of an allocator or an arena (`room`: one of ROOMS); none where there is no such part."""
    for module in (f"{part}.state", part):  # a part that is a folder has them in its state.py
        if found := list(fields(source(f"kmemexp.sim.{room}.{module}"), "Params")):
            return found
    return []


def names(room: str) -> list[str]:
    """Parts that a room of the package has."""
    folder = Path(str(importlib.util.find_spec(f"kmemexp.sim.{room}").origin)).parent  # type: ignore[union-attr]  # a room is there
    return sorted(p.stem if p.suffix else p.name for p in folder.iterdir() if not p.name.startswith("_"))


def source(module: str) -> str:
    """Text of a module; "" where there is none."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # the folder that it would be in
        return ""
    return Path(found.origin).read_text("utf-8") if found and found.origin else ""


def fields(text: str, of: str) -> Iterator[Field]:
    """Fields of a class in a source, with the comments beside or above them."""
    text = re.sub(r"= \(\n\s+(.+?)(  # .*)?\n    \)$", r"= \1\2", text, flags=re.MULTILINE)  # on lines of its own
    body = re.search(rf"^class {of}\b.*?:\n(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    above: list[str] = []
    for line in body[1].splitlines() if body else ():
        if line.startswith("    # "):
            above.append(line.strip().removeprefix("# "))
        elif match := FIELD.match(line):
            name, kind, default, said = match.groups()
            factory = re.fullmatch(r"field\(default_factory=(?:lambda: )?(.*)\)", default or "")
            shown = {"dict": "{}", "list": "[]"}.get(factory[1], factory[1]) if factory else default or "-"
            yield Field(name, kind.strip(), shown, " ".join([*above, said or ""]).strip())
            above = []
        else:
            above = []
