"""Which columns the files of a results folder have of their cells. Needs no Arrow: plans and workers import it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

KINDS = ("int", "bool", "float", "text")


class Layout(NamedTuple):
    """The axes of a results folder: kind of value (one of KINDS) by configuration key."""

    kinds: Mapping[str, str] = {}

    @property
    def mark(self) -> str:
        """Digest by which files say which layout they have."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]

    @property
    def text(self) -> str:
        """The same as JSON."""
        return json.dumps({"axes": dict(sorted(self.kinds.items()))})

    def joined(self, other: "Layout") -> "Layout":
        """Axes of both; a key whose values are of two kinds has the wider one."""
        keys = self.kinds.keys() | other.kinds.keys()
        return Layout({key: _wider(self.kinds.get(key), other.kinds.get(key)) for key in keys})


def layout_of(axes: Iterable[str]) -> Layout:
    """Read the axes, and the kinds of their values, from texts such as ``{"design":"freebsd4","machine.cpus":2}``."""
    found: dict[str, str] = {}
    for text in set(axes):
        for key, value in json.loads(text or "{}").items():
            if value is not None:
                found[key] = _wider(found.get(key), kind_of(value))
    return Layout(found)


def read_layout(text: str) -> Layout:
    """Read `Layout.text`. Raises ValueError, KeyError or TypeError where it is none."""
    kinds = {str(key): str(kind) for key, kind in json.loads(text)["axes"].items()}
    if unknown := sorted(set(kinds.values()) - set(KINDS)):
        raise ValueError(f"{unknown[0]} is no kind of value")
    return Layout(kinds)


def kind_of(value: Any) -> str:
    """Tell the kind of a value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and abs(value) < 2**63:
        return "int"
    return "float" if isinstance(value, int | float) else "text"


def _wider(one: str | None, other: str | None) -> str:
    if one == other or other is None or one is None:
        return one or other or "text"
    return "float" if {one, other} == {"int", "float"} else "text"
