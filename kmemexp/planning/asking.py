"""From what a notebook asks for to overrides: `simulate("dragonfly_2003oct", workload="pgbench", cpus=4)`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any

from kmemexp.config.cell import NODES
from kmemexp.config.problems import SHORT
from kmemexp.config.schema import Config
from kmemexp.errors import ConfigError
from kmemexp.values import close

GROUPS = (*(node for node in NODES if node != "seed"), "scenario", "sweep", "cluster")
OF_WORKLOADS = ("copies", "duration_s", "path", "scale", "shift_s", "start", "stream", "window_s")
"""Keys that loads have and the schema does not name."""


def overrides(asked: str | Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Write overrides: `asked` is a design, several with commas between, or overrides; `settings` are added.

    A setting is a group (`workload="pgbench"`), the last word of a key that no other key has (`cpus=4`), or a whole key
    with `__` for dots (`interrupts__rate_hz=1000`); a list is swept over. Raises ConfigError for one that is unknown.
    """
    given = ([f"design={asked}"] if asked else []) if isinstance(asked, str) else list(asked)
    return given + [_override(name, value) for name, value in settings.items()]


def _override(name: str, value: Any) -> str:
    key = _key(name)
    added = "+" if key in ("sweep", "scenario") else ""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return f"{added}{key}={','.join(map(_text, value)) if several else _text(value)}"


def _key(name: str) -> str:
    if name in GROUPS:
        return name
    if "__" in name:
        return name.replace("__", ".")
    known = _names()
    if name not in known:
        near = close(name, [*GROUPS, *known])
        raise ConfigError(f"{name}: unknown setting{near}; a key may be written whole, with __ for its dots")
    if len(known[name]) > 1:
        written = " or ".join(key.replace(".", "__") for key in known[name])
        raise ConfigError(f"{name}: there are several keys of this name; write {written}")
    return known[name][0]


@cache
def _names() -> dict[str, list[str]]:
    """Keys by their last word."""
    found: dict[str, list[str]] = {name: [key] for name, key in SHORT.items()}
    for node in fields(Config):
        made = node.default_factory() if node.default_factory is not MISSING else node.default
        keys = [f"{node.name}.{leaf.name}" for leaf in fields(made)] if is_dataclass(made) else [node.name]
        for key in keys:
            if key.partition(".")[0] in NODES or "." not in key:
                found.setdefault(key.rpartition(".")[2], []).append(key)
    for name in OF_WORKLOADS:
        found.setdefault(name, []).append(f"workload.{name}")
    return found


def _text(value: Any) -> str:
    """Write a value in the grammar of Hydra's command line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    return str(value)
