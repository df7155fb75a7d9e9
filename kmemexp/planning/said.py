"""What a plan says of each cell: the values of its axes, and of what the command line has fixed, as JSON."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kmemexp.config.cell import NODES, canonical
from kmemexp.planning.axes import Grid, Numbers, Options

Column = tuple[Sequence[str], Numbers]
"""Texts of a member of the JSON, and which of them each cell has; "" for a cell that has none."""


def keys(fixed: Iterable[str], groups: Options) -> list[str]:
    """Choose those keys that the command line fixes which say what is simulated: groups, and keys of a cell's nodes."""
    return [key for key in fixed if re.split("[./]", key)[0] in NODES or (key == "scenario" and groups(key))]


def column(key: str, values: Sequence[Any], number: Numbers) -> Column:
    """Write one member; values that are no single one are left out."""
    texts = ["" if value is None or isinstance(value, Mapping | list) else canonical(value) for value in values]
    return [f"{json.dumps(key)}:{text}" if text else "" for text in texts], number


def look(form: Any, key: str) -> Any:
    """Value of a key in one form of its node; None where it is not there."""
    for word in key.split(".")[1:]:
        if not isinstance(form, Mapping) or word not in form:
            return None
        form = form[word]
    return form


def axes(grid: Grid, fixed: Mapping[str, Column]) -> tuple[list[str], list[str]]:
    """Write for each cell its values of the `fixed` keys, and of the grid's other axes, sorted by key.

    Returns these texts, and each member that occurs in them as a text of its own.
    """
    columns = dict(fixed)
    for key, codes in grid.codes.items():
        texts = ["", *(f"{json.dumps(key)}:{canonical(value)}" for value in grid.choices[key])]
        if key not in fixed:
            columns[key] = (texts, codes + 1)
    if not columns:
        return ["{}"] * grid.count, []
    members = [f"{{{text}}}" for texts, _ in columns.values() for text in dict.fromkeys(texts) if text]
    values = [map(columns[key][0].__getitem__, columns[key][1].tolist()) for key in sorted(columns)]
    return ["{" + ",".join(filter(None, row)) + "}" for row in zip(*values, strict=True)], members
