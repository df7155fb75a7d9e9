"""What has been asked for must change something: a setting that nothing reads is refused, not passed over."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from kmemexp.config import renamed
from kmemexp.config.schema import Config
from kmemexp.errors import ConfigError
from kmemexp.planning.axes import Block, CommandLine, Grid, Numbers, Options, flat
from kmemexp.planning.predicates import Mask, Predicate
from kmemexp.values import byte_count, close, one_of

CLOCKED = ("interrupts", "cost", "memory")
"""Nodes whose keys mean something to a machine with a clock only."""
OF_PARTS = ("objects.params", "objects.locks", "maps.params")
"""Keys after which the name of a part follows."""


def check_known(composed: Iterable[str], line: CommandLine) -> None:
    """Refuse keys that a `+` has added at the top and that nothing reads. Raises ConfigError."""
    known = [f.name for f in fields(Config)]
    for key in composed:
        if key in known or key == "hydra":
            continue
        given = next((text for asked, text in line.fixed.items() if asked.partition(".")[0] == key), key)
        near = close(key, known).replace(
            "did you mean ", "did you mean +" if given.startswith("+") else "did you mean "
        )
        raise ConfigError(f"{given}: unknown key {key}{near}; there are {', '.join(known)}")


def check_predicates(
    predicates: Iterable[Predicate], blocks: Sequence[Block], line: CommandLine, groups: Options
) -> None:
    """Refuse a predicate that compares a key with a value which it never has. Raises ConfigError.

    It may have the values of the sweep file, of the command line, and, where it is a group and no axis, any option.
    """
    for predicate in predicates:
        for key, constant in predicate.equated():
            values = [value for block in blocks for value in block.get(key, [])]
            known = [*values, *line.swept.get(key, [])] or list(groups(key))
            if not known:
                continue
            wanted = byte_count(key, constant) if key.endswith("_bytes") and isinstance(constant, str) else constant
            if wanted not in known and key not in line.fixed:
                shown = ", ".join(map(str, dict.fromkeys(known)))
                raise ConfigError(
                    f"{predicate.where}: {predicate.text!r}: {key} is never {constant!r} in this sweep; it is {shown}"
                )


def check_clock(asked: Collection[str], timed: Sequence[bool]) -> None:
    """Refuse keys that mean nothing without a clock where no cell has one. Raises ConfigError."""
    if any(timed):
        return
    for key in asked:
        node, _, leaf = key.partition(".")
        if leaf and node in CLOCKED and key != "cost.name":
            raise ConfigError(
                f"{key}: has no effect without a clock (cost=none); "
                "choose what operations cost, such as cost=opteron2003"
            )


def check_parts(line: CommandLine, used: Collection[str]) -> None:
    """Refuse a parameter of a part that no cell has; `used`: allocators and arenas of all cells. Raises ConfigError."""
    for key in (*line.fixed, *line.swept):
        for prefix in OF_PARTS:
            part = key.removeprefix(f"{prefix}.").partition(".")[0]
            if key.startswith(f"{prefix}.") and part not in used:
                raise ConfigError(
                    f"{key}: {part} serves nothing in this sweep; its designs have {', '.join(sorted(used))}"
                )


def idle_axes(grid: Grid, cell_keys: Sequence[str]) -> set[str]:
    """Find the axes of which several values give the same cells, and none gives another one."""
    cells = np.unique(np.array(cell_keys), return_inverse=True)[1]
    idle = set()
    for key, codes in grid.codes.items():
        values = np.array(_texts(grid, key), object)
        alike = grid.classes([k for k in grid.codes if k != key])[1]  # cells that differ in this axis only
        varied = _several(alike, np.unique(values, return_inverse=True)[1][codes], codes >= 0)
        if varied.any() and not _several(alike, cells, varied).any():
            idle.add(key)
    return idle


def check_axes(grids: Sequence[Grid], idle: Sequence[Collection[str]]) -> None:
    """Refuse an axis that is idle in each grid that has it. Raises ConfigError."""
    for key in dict.fromkeys(key for keys in idle for key in keys):
        having = [(grid, keys) for grid, keys in zip(grids, idle, strict=True) if key in grid.codes]
        if all(key in keys for _, keys in having):
            shown = ", ".join(sorted({text for grid, _ in having for text in _texts(grid, key)}))
            raise ConfigError(
                f"{key}: has no effect here: all its values ({shown}) give the same cells. "
                "Leave it out, or choose what reads it"
            )


def _texts(grid: Grid, key: str) -> list[str]:
    return [json.dumps(value) for value in grid.choices[key]]


def _several(groups: Numbers, values: Numbers, where: Mask) -> Mask:
    """bool[cells]: those of `where` whose group has several values there."""
    pairs = np.unique(np.stack([groups[where], values[where]]), axis=1)
    counts = np.bincount(pairs[0], minlength=int(groups.max(initial=0)) + 1)
    return where & (counts[groups] > 1)


def baseline(
    wanted: Mapping[str, Any], line: CommandLine, cells: Sequence[Mapping[str, Any]], groups: Options
) -> tuple[dict[str, Any], str]:
    """Return the baseline, and a note where it is another one than the sweep file names.

    The first design is it where none is given, or where the command line has taken the file's out of the plan. Raises
    ConfigError where no cell is as the baseline says. `cells`: their axes, and `design`.
    """
    wanted = {
        key: renamed.current(key, value) if isinstance(value, str) else value for key, value in flat(wanted).items()
    }
    for key, value in wanted.items():
        if known := groups(key):
            one_of(f"sweep.baseline.{key}", value, known)
    if wanted and any(all(cell.get(key) == value for key, value in wanted.items()) for cell in cells):
        return dict(wanted), ""
    designs = list(dict.fromkeys(cell["design"] for cell in cells))
    chosen = {"design": designs[0]} if len(designs) > 1 else {}
    if not wanted:
        return chosen, ""
    shown = ", ".join(f"{key}={value}" for key, value in wanted.items())
    own = any(key == "sweep.baseline" or key.startswith("sweep.baseline.") for key in line.fixed)
    if own or not any(key in line.fixed or key in line.swept for key in wanted):
        has = "; ".join(f"{key}: {', '.join(sorted({str(cell.get(key)) for cell in cells}))}" for key in wanted)
        raise ConfigError(f"sweep.baseline: no cell of the plan has {shown}; it has {has}")
    instead = ", ".join(f"{key}={value}" for key, value in chosen.items()) or "no other one"
    return chosen, f"baseline {shown} is not in this plan: {instead} takes its place"
