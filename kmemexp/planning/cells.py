"""The table of cells: what Hydra composes, with the values of scalar axes put in, checked and written as JSON.

Hydra composes at most once per combination of config groups (some 100 ms each); values of other keys are put into
plain dicts.
Each distinct form of each node of a cell is checked and written as JSON once, and a cell's canonical JSON is these
pieces joined: a plan of 20 000 cells takes about a second.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig, Node, OmegaConf

from kmemexp import values
from kmemexp.config import checks
from kmemexp.config.cell import KEY_BEFORE, NODES, Digest, canonical, key_after, model_with
from kmemexp.config.design import parts_of
from kmemexp.errors import ConfigError, InputError
from kmemexp.planning import axes, effect, said
from kmemexp.planning.axes import Grid
from kmemexp.planning.composing import Composer, plain
from kmemexp.planning.pieces import Pieces, check_together, combinations
from kmemexp.planning.predicates import Mask
from kmemexp.planning.texts import Texts
from kmemexp.values import visible

Columns = dict[str, Sequence[Any]]
"""A table of cells, by the name of the column; pandas would take longer to import than the planning takes."""


class Combo(NamedTuple):
    """One combination of config groups, composed."""

    nodes: dict[str, Any]  # plain, by node of the cell
    choices: Mapping[str, str]  # option by group
    source: DictConfig | None  # the composed configuration where a value refers to another one


class Combos:
    """Composed configurations by the cells' choices of config groups."""

    def __init__(self, composer: Composer, fixed: list[str], groups: list[str], base: DictConfig) -> None:
        self.groups = groups
        self._composer, self._fixed = composer, fixed
        self._base = self._read(base)
        self._known: dict[tuple[tuple[str, str], ...], Combo] = {}

    def of(self, grid: Grid, cell: int) -> Combo:
        """Return the combination of one cell, composed if it is new."""
        choice = grid.assignment(cell, self.groups)
        key = tuple(choice.items())
        if key not in self._known:
            self._known[key] = self._joined(choice) or self._composed(choice)
        return self._known[key]

    def _composed(self, choice: Mapping[str, str]) -> Combo:
        if all(self._base.choices.get(group) == option for group, option in choice.items()):
            return self._base
        key = tuple(choice.items())
        if key not in self._known:
            pins = [f"{group}={option}" for group, option in choice.items()]
            self._known[key] = self._read(self._composer.compose([*self._fixed, *pins]))
        return self._known[key]

    def _joined(self, choice: Mapping[str, str]) -> Combo | None:
        """Put a combination together from others, where an option changes its own node and nothing else does.

        With d designs and w workloads Hydra then composes d + w times instead of d * w. None where it might matter.
        """
        alone = {g: o for g, o in choice.items() if g in NODES and self._composer.stands_alone(g, o)}
        if not alone or len(choice) == 1:
            return None
        whole = self._composed({g: o for g, o in choice.items() if g not in alone})
        if whole.source is not None or any(whole.nodes[g] != self._base.nodes[g] for g in alone):
            return None
        nodes, choices = dict(whole.nodes), dict(whole.choices)
        for group, option in alone.items():
            single = self._composed({group: option})
            if single.source is not None or any(single.nodes[n] != self._base.nodes[n] for n in NODES if n != group):
                return None
            nodes[group], choices[group] = single.nodes[group], option
        return Combo(nodes, choices, None)

    def elsewhere(self, grid: Grid) -> axes.Lookup:
        """Lookup of a key that is no axis of these cells: the option of a group, or a value of the configuration."""
        first, number = grid.classes(self.groups)

        def look(key: str, cells: axes.Numbers) -> list[Any]:
            asked, which = np.unique(number[cells], return_inverse=True)
            found = [_look(self.of(grid, int(first[n])), key) for n in asked]
            return [found[i] for i in which]

        return look

    def is_group(self, key: str) -> bool:
        """Whether a key chooses a file."""
        return bool(self._composer.options(key))

    @staticmethod
    def _read(composed: DictConfig) -> Combo:
        raw = {node: _raw(composed, node) for node in NODES}
        text = json.dumps(raw)
        whole = not any(sign in text for sign in ("${", "???")) and None not in raw.values()
        nodes = raw if whole else plain(composed, NODES)
        return Combo(nodes, composed.hydra.runtime.choices, composed if "${" in text else None)


class Table(NamedTuple):
    """The distinct cells of a grid."""

    columns: Columns
    equal: int  # combinations that were equal to another one
    parts: set[str]  # allocators and arenas of all cells
    idle: set[str]  # axes of several values that all give the same cells
    members: list[str]  # each value of an axis as a JSON object of one member


def table(grid: Grid, combos: Combos, given: Sequence[str] = ()) -> Table:
    """Make the columns of the distinct cells of a grid. Raises ConfigError for what is impossible in a cell.

    `given`: keys that the command line fixes, which stand among the axes. So does an axis that a restriction leaves
    in no cell: what reads the sweep's tables asks for its column.
    """
    if not grid.count:
        raise ConfigError("the sweep has no cells: every combination is excluded")
    given = [*given, *(key for key, codes in grid.codes.items() if np.all(codes < 0))]
    first, combo = grid.classes(combos.groups)
    found = [combos.of(grid, int(cell)) for cell in first]
    pieces = {node: _pieces(node, grid, combos, (found, combo)) for node in NODES}
    check_together(pieces)
    texts = Texts({node: (piece.texts, piece.number) for node, piece in pieces.items()})
    first_of: dict[str, int] = {}
    for place, key in enumerate(_keys(texts, pieces)):
        first_of.setdefault(key, place)
    keys, places, count = list(first_of), list(first_of.values()), len(texts)
    del first_of
    written, members = said.axes(grid, _fixed(given, combos, (found, combo), pieces))
    rows = {"axes": written, **_facts(pieces)}
    idle: set[str] = set()
    if len(keys) < count:
        idle = effect.idle_axes(grid, list(_keys(texts, pieces)))
        texts = texts.chosen(places)
        rows = {name: [column[place] for place in places] for name, column in rows.items()}
    parts = set().union(*(parts_of(*pair) for pair in combinations(pieces, "maps", "objects")))
    return Table({"cell_key": keys, "config": texts, **rows}, count - len(keys), parts, idle, members)


def joined(parts: Sequence[Columns]) -> tuple[Columns, int]:
    """Put the tables of several grids into one; returns also how many cells were in more than one of them."""
    if len(parts) == 1:
        return parts[0], 0
    texts = [text for part in parts if isinstance(text := part["config"], Texts)]
    others = [name for name in parts[0] if name != "config"]
    every = {name: [value for part in parts for value in part[name]] for name in others}
    first: dict[str, int] = {}
    for place, key in enumerate(every["cell_key"]):
        first.setdefault(key, place)
    places = list(first.values())
    distinct: Columns = {name: [column[place] for place in places] for name, column in every.items()}
    distinct["config"] = Texts.joined(texts).chosen(places)
    return distinct, len(every["cell_key"]) - len(first)


def _pieces(node: str, grid: Grid, combos: Combos, composed: tuple[Sequence[Combo], axes.Numbers]) -> Pieces:
    """Check and write each distinct form of one node. `composed`: the combinations, and which one a cell has."""
    found, combo = composed
    refers = any(c.source is not None for c in found)
    scalars = [key for key in grid.codes if key not in combos.groups]
    keys = [key for key in scalars if refers or key.partition(".")[0] == node]
    first, number = grid.classes(keys, combo)
    involved = {*keys, *combos.groups}
    forms = []
    for i, cell in enumerate(first.tolist()):
        assigned = grid.assignment(cell, keys)
        origin = found[combo[cell]]
        try:
            forms.append(_printable(node, checks.check_node(node, _patched(origin, node, assigned))))
        except InputError as error:
            where = ", ".join(f"{k}={v}" for k, v in grid.assignment(cell, list(grid.codes)).items() if k in involved)
            raise type(error)(f"{error}\n(in cells with {where})" if where else str(error)) from error
        if node == "objects":
            _forget_unused(grid, keys, forms[-1], number == i)
    return Pieces(forms, [canonical(form) for form in forms], number)


def _printable(key: str, value: Any) -> Any:
    """Return a node whose texts can be shown as they are. Raises ConfigError for control characters."""
    if isinstance(value, str) and visible(value) != value:
        raise ConfigError(f"{key}: {visible(value)[:60]!r} has a control character in it; texts are shown on terminals")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _printable(key, str(name))
            _printable(f"{key}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            _printable(key, inner)
    return value


def _patched(origin: Combo, node: str, assigned: Mapping[str, Any]) -> Any:
    """Put the values of scalar axes into a node of a combination."""
    if origin.source is not None:
        composed = copy.deepcopy(origin.source)
        for key, value in assigned.items():
            OmegaConf.update(composed, key, value, force_add=True)
        return plain(composed, [node])[node]
    if list(assigned) == [node]:
        return assigned[node]
    tree = {node: copy.deepcopy(origin.nodes[node])}
    for key, value in assigned.items():
        *path, last = re.findall(r"[^.\[\]]+", key)
        place: Any = tree
        try:
            for word in path:
                place = place[int(word)] if isinstance(place, list) else place.setdefault(word, {})
            place[int(last) if isinstance(place, list) else last] = value
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise ConfigError(f"{key}: there is no such key") from error
    return tree[node]


def _forget_unused(grid: Grid, keys: Sequence[str], objects: Mapping[str, Any], cells: Mask) -> None:
    """Take an axis out of cells in which the allocator that it is a parameter of serves nothing."""
    for key in keys:
        if key.startswith("objects.params.") and key.split(".")[2] not in objects["params"]:
            grid.limit(key, ~cells)


def _keys(texts: Texts, pieces: Mapping[str, Pieces]) -> Iterator[str]:
    """Key of each cell; what cells begin with in common is digested once."""
    begun = cache(lambda head: Digest(KEY_BEFORE + head))
    ends = cache(key_after)
    for (head, tail), model in zip(texts.halves("seed"), _models(pieces), strict=True):
        yield begun(head).of(tail + ends(model))


def _models(pieces: Mapping[str, Pieces]) -> list[str]:
    """Digests of the sources that simulate each cell."""
    chosen = [pieces[node] for node in ("objects", "maps", "cost")]
    model = cache(lambda *forms: model_with(*(piece.forms[i] for piece, i in zip(chosen, forms, strict=True))))
    return list(map(model, *(piece.number.tolist() for piece in chosen)))


def _fixed(
    given: Sequence[str], combos: Combos, composed: tuple[Sequence[Combo], axes.Numbers], pieces: Mapping[str, Pieces]
) -> dict[str, said.Column]:
    """Write what the cells have of the keys that the command line fixes."""
    found, combo = composed
    columns = {}
    for key in given:
        if combos.is_group(key):
            columns[key] = said.column(key, [c.choices.get(key) for c in found], combo)
        else:
            piece = pieces[key.partition(".")[0]]
            columns[key] = said.column(key, [said.look(form, key) for form in piece.forms], piece.number)
    return columns


def _facts(pieces: Mapping[str, Pieces]) -> Columns:
    """Columns that say in plain what a cell is."""
    from kmemexp.workload.build import estimate  # noqa: PLC0415 (with it comes what reads traces)

    machine, workload, seed, cost = (pieces[node] for node in ("machine", "workload", "seed", "cost"))
    cpus = np.array([form["cpus"] for form in machine.forms], np.int64)[machine.number]
    streams = zip(workload.number.tolist(), cpus.tolist(), seed.number.tolist(), strict=True)
    begun = cache(lambda w, n: Digest(f"{workload.texts[w]}/{n}/"))
    stream_key = cache(lambda w, n, s: begun(w, n).of(seed.texts[s]))
    sizes = {k: np.array([f[k] for f in machine.forms], np.int64)[machine.number] for k in ("ram_bytes", "kva_bytes")}
    closed = np.array(["pause_ns" in form for form in workload.forms])[workload.number]
    ops = np.array([estimate(form) for form in workload.forms], np.int64)[workload.number]
    return {
        "design": _names(pieces["design"]),
        "workload": _names(workload),
        "cpus": _shared(cpus),
        **{key: _shared(size) for key, size in sizes.items()},
        "stream_key": [stream_key(*stream) for stream in streams],
        "est_ops": _shared(ops * np.where(closed, cpus, 1)),
        "timed": [cost.forms[i]["name"] != "none" for i in cost.number.tolist()],
    }


def _shared(numbers: axes.Numbers) -> list[int]:
    """Integers as a list, in which equal ones are one object."""
    one = cache(lambda number: number)
    return list(map(one, numbers.tolist()))


def _names(piece: Pieces) -> list[str]:
    return [piece.forms[i]["name"] for i in piece.number.tolist()]


def _look(combo: Combo, key: str) -> Any:
    """Find a key's value outside the axes, for predicates. Raises ConfigError."""
    if "." not in key and key in combo.choices:
        return combo.choices[key]
    value: Any = combo.nodes
    for word in key.split("."):
        if not isinstance(value, Mapping) or word not in value:
            if key.startswith(("workload.", "objects.params.")):
                return None  # other workloads and allocators have it
            raise ConfigError(f"{key}: unknown key in a predicate of the sweep")
        value = value[word]
    if isinstance(value, Mapping | list):
        raise ConfigError(f"{key}: is not a single value; a predicate cannot look at it")
    return values.byte_count(key, value) if key.endswith("_bytes") and isinstance(value, str) else value


def _raw(composed: DictConfig, key: str) -> Any:
    """Give a node as it is written, references and all; None where it is not there."""
    node = composed._get_node(key, validate_access=False)
    if OmegaConf.is_config(node):
        return OmegaConf.to_container(node)
    return node._value() if isinstance(node, Node) else None
