"""What varies in a sweep: axes from a sweep file and from the command line, and the table of their combinations.

A sweep file says (the values of `axes` and `zip` are lists, or text in the grammar of Hydra's command line):

    axes:    {design: "freebsd4,dragonfly_2003oct", machine.cpus: "range(1,5)", interrupts.rate_hz: "log(100,10000,3)"}
    zip:     [{machine.ram_bytes: [64MiB, 128MiB], machine.kva_bytes: [256MiB, 512MiB]}]  # go together, row by row
    when:    {machine.cpus: "design == 'dragonfly_2003oct'"}  # elsewhere the axis does not exist and its cells collapse
    exclude: ["design == 'freebsd4' and machine.cpus > 2"]
    sample:  {method: sobol, n: 64, space: {workload.scale: "log(0.1, 10)"}}  # rows drawn from a space (sampling.py)
    union:   [{axes: {machine.cpus: [1, 2]}}, {axes: {seed: [1, 2]}}]  # several grids; what stands above is in each

The command line beats the file, key by key: a key given there leaves the file's axis or zip block.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, ValueType
from hydra.errors import HydraException
from numpy.typing import NDArray

from kmemexp.config import renamed
from kmemexp.config.scales import log_points, written_out
from kmemexp.config.typed import type_checked
from kmemexp.errors import ConfigError
from kmemexp.planning.predicates import Mask, Objects, Predicate
from kmemexp.planning.sampling import sample
from kmemexp.values import known as known_word

MOST_CELLS = 5_000_000  # before predicates; about 1 GB of tables
OF_A_GRID = ("axes", "zip", "when", "exclude", "sample")
NOT_AXES = ("sweep", "cluster", "size", "output", "tables", "report")  # they say how to run, not what

Options = Callable[[str], Sequence[str]]
"""Names in a config group; empty for anything that is not a group."""
Numbers = NDArray[np.int64]
Lookup = Callable[[str, Numbers], list[Any]]
"""Effective values of a key in these cells."""
Block = dict[str, list[Any]]
"""Keys whose values go together row by row; a plain axis has one key."""


class CommandLine(NamedTuple):
    """Overrides, sorted by what they do."""

    hydra: list[str]  # hydra.* settings
    sweeps: list[str]  # one override per sweep to run, such as "+sweep=smoke"; empty: none
    fixed: dict[str, str]  # overrides that hold for every cell, by key
    swept: Block  # values of each key with several
    patterns: dict[str, str]  # swept keys whose values a glob() has chosen, with its text


def read_overrides(texts: Sequence[str], options: Callable[[list[str]], Options]) -> CommandLine:
    """Sort command-line overrides; `options` makes the lookup of groups from the hydra.* ones. Raises ConfigError."""
    overrides = [_parse(written_out(text)) for text in texts]
    hydra = [o for o in overrides if o.is_hydra_override()]
    if swept := [o for o in hydra if o.is_sweep_override()]:
        raise ConfigError(f"{swept[0].input_line}: settings of Hydra itself cannot be swept")
    groups = options([str(o.input_line) for o in hydra])
    line = CommandLine([str(o.input_line) for o in hydra], [], {}, {}, {})
    for o in overrides:
        key = o.key_or_group
        if o.is_hydra_override():
            continue
        line.fixed.pop(key, None)
        line.swept.pop(key, None)
        line.patterns.pop(key, None)
        if key == "sweep" and not o.is_delete():
            line.sweeps[:] = [f"{o.get_key_element()}={name}" for name in _values(o, groups)]
        elif o.is_sweep_override():
            line.swept[key] = axis_values(key, _values(o, groups), groups)
            if o.value_type == ValueType.GLOB_CHOICE_SWEEP:
                line.patterns[key] = str(o.input_line)
        else:
            if isinstance(o.value(), dict | list) and (known := groups(key)):
                raise ConfigError(f"{o.input_line}: {key} is a group; choose a file{_known(known)}")
            line.fixed[key] = _fixed(o)
    return line


def _fixed(override: Override) -> str:
    """Text of an override that holds for every cell, with today's name of the option that it chooses."""
    line, value = str(override.input_line), override.value()
    new = renamed.current(override.key_or_group, value) if isinstance(value, str) else value
    return line if new == value else line.rpartition("=")[0] + f"={new}"


def grids(sweep: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Split a sweep file into the grids of its `union`, each with what stands outside; itself if it has none.

    Returns where each stands, for messages. Raises ConfigError.
    """
    if not sweep["union"]:
        return [("sweep", sweep)]
    parts: list[tuple[str, Mapping[str, Any]]] = []
    for i, part in enumerate(sweep["union"]):
        where = f"sweep.union[{i}]"
        if not isinstance(part, Mapping) or not part:
            raise ConfigError(f"{where}: must be a mapping of {', '.join(OF_A_GRID)}")
        for name in part:
            known_word(where, "key", name, OF_A_GRID)
        if twice := sorted(flat(sweep["axes"]).keys() & flat(part.get("axes", {})).keys()):
            raise ConfigError(f"{where}.axes.{twice[0]}: stands outside of the union too")
        joined: dict[str, Any] = {"axes": {**flat(sweep["axes"]), **flat(part.get("axes", {}))}}
        joined["when"] = {**flat(sweep["when"]), **flat(part.get("when", {}))}
        joined |= {name: [*sweep[name], *part.get(name, [])] for name in ("zip", "exclude")}
        joined["sample"] = part.get("sample") or sweep["sample"]
        parts.append((where, joined))
    return parts


def read_file(sweep: Mapping[str, Any], groups: Options, at: str = "sweep") -> list[Block]:
    """Blocks of a grid's `axes`, `zip` and `sample`; `at` is where it stands. Raises ConfigError."""
    blocks = [{key: values} for key, values in _file_values(f"{at}.axes", sweep["axes"], groups).items()]
    if drawn := sweep.get("sample"):
        rows = sample(f"{at}.sample", drawn, flat(drawn.get("space") or {}))
        blocks.append({key: axis_values(key, values, groups) for key, values in rows.items()})
    for i, entry in enumerate(sweep["zip"]):
        where = f"{at}.zip[{i}]"
        if not isinstance(entry, Mapping) or not entry:
            raise ConfigError(f"{where}: must be a mapping of keys to lists")
        block = _file_values(where, entry, groups)
        if len({len(values) for values in block.values()}) > 1:
            lengths = ", ".join(f"{key} has {len(values)}" for key, values in block.items())
            raise ConfigError(f"{where}: its lists must be equally long, but {lengths}")
        blocks.append(block)
    keys = [key for block in blocks for key in block]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(f"{at}: {twice} stands in more than one axis or zip block")
    return blocks


def merge(blocks: Sequence[Block], line: CommandLine) -> list[Block]:
    """Blocks of the file as the command line changes them: what it fixes goes, what it sweeps is replaced or added."""
    merged = []
    rest = dict(line.swept)
    for block in blocks:
        if len(block) == 1 and (key := next(iter(block))) in rest:
            merged.append({key: rest.pop(key)})
        elif left := {k: v for k, v in block.items() if k not in line.fixed and k not in line.swept}:
            merged.append(left)
    return merged + [{key: values} for key, values in rest.items()]


def axis_values(key: str, values: Sequence[Any], groups: Options) -> list[Any]:
    """Check the values of an axis: options of a group, or what the schema allows. Raises ConfigError."""
    if not values:
        raise ConfigError(f"{key}: no value to sweep over{_known(groups(key))}")
    if key in NOT_AXES or key.partition(".")[0] in NOT_AXES:
        raise ConfigError(f"{key}: says how to run, not what; it cannot be swept")
    if known := groups(key):
        names = [renamed.current(key, str(value)) for value in values]
        if wrong := next((name for name in names if name not in known), None):
            near = difflib.get_close_matches(wrong, known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"{key}={wrong}: no such option{hint}{_known(known)}")
        return names
    return type_checked(key, values)


class Grid:
    """All combinations of blocks, as numbers of values: codes[key][cell], -1 where the axis does not exist."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        """Combine blocks of different keys. Raises ConfigError where there are too many cells to hold."""
        lengths = [len(next(iter(block.values()))) for block in blocks]
        self.count = math.prod(lengths)
        if self.count > MOST_CELLS:
            sizes = " x ".join(map(str, lengths))
            raise ConfigError(f"sweep: {sizes} = {self.count} combinations; at most {MOST_CELLS} can be planned")
        self.choices: dict[str, list[Any]] = {key: values for block in blocks for key, values in block.items()}
        self.codes: dict[str, Numbers] = {}
        numbers = np.unravel_index(np.arange(self.count), lengths) if blocks else ()
        for block, number in zip(blocks, numbers, strict=True):
            self.codes.update({key: number.astype(np.int64) for key in block})

    def column(self, key: str, elsewhere: Lookup) -> Objects:
        """object[count]: effective value of a key in each cell; `elsewhere(key, cells)` gives it where no axis does."""
        column = np.empty(self.count, object)
        codes = self.codes.get(key, np.full(self.count, -1))
        column[:] = _objects([None, *self.choices.get(key, [])])[codes + 1]
        missing = np.flatnonzero(codes < 0)
        if len(missing):
            column[missing] = _objects(elsewhere(key, missing))
        return column

    def limit(self, key: str, mask: Mask) -> None:
        """Let the axis exist only where `mask` holds."""
        self.codes[key] = np.where(mask, self.codes[key], -1)

    def keep(self, mask: Mask) -> None:
        """Drop the cells where `mask` does not hold."""
        self.codes = {key: codes[mask] for key, codes in self.codes.items()}
        self.count = int(mask.sum())

    def assignment(self, cell: int, keys: Sequence[str]) -> dict[str, Any]:
        """Values of those of the keys that are axes of this cell."""
        return {key: self.choices[key][code] for key in keys if (code := int(self.codes[key][cell])) >= 0}

    def classes(self, keys: Sequence[str], start: Numbers | None = None) -> tuple[Numbers, Numbers]:
        """Tell apart the combinations of these keys within `start`: returns a cell of each, and each cell's number."""
        number = np.zeros(self.count, np.int64) if start is None else start
        for key in keys:
            number = np.unique(number * (len(self.choices[key]) + 1) + self.codes[key] + 1, return_inverse=True)[1]
        _, first, number = np.unique(number, return_index=True, return_inverse=True)
        return first, number


def predicates(sweep: Mapping[str, Any], keys: Sequence[str]) -> tuple[dict[str, Predicate], list[Predicate]]:
    """Parse `when` and `exclude` of a sweep file; `keys` are its axes and the command line's. Raises ConfigError."""
    when = {}
    for key, text in flat(sweep["when"]).items():
        if key not in keys:
            raise ConfigError(f"sweep.when: {key} is not an axis of this sweep; axes are {', '.join(keys) or 'none'}")
        when[key] = Predicate(text, f"sweep.when.{key}")
    return when, [Predicate(text, f"sweep.exclude[{i}]") for i, text in enumerate(sweep["exclude"])]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a nested mapping: `sweep.axes.machine.cpus=[1,2]` on the command line nests."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def _file_values(where: str, entries: Mapping[str, Any], groups: Options) -> Block:
    block = {}
    for key, given in flat(entries).items():
        if isinstance(given, str) and (points := log_points(key, given)):
            given = points  # noqa: PLW2901
        elif isinstance(given, str):
            override = _parse(f"{key}={given}", f"{where}: ")
            given = _values(override, groups) if override.is_sweep_override() else [override.value()]  # noqa: PLW2901
        block[key] = axis_values(key, given if isinstance(given, list) else [given], groups)
    return block


def _parse(text: str, where: str = "") -> Override:
    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except HydraException as error:
        raise ConfigError(f"{where}{text}: {error}") from error


def _values(override: Override, groups: Options) -> list[Any]:
    """Values of an override, taken once: shuffle() gives another order each time it is asked."""
    line = override.input_line
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{line}: has no separate values, which only samplers do without; use a list, range() or choice()"
        )
    if override.package is not None or override.is_delete():
        raise ConfigError(f"{line}: cannot be swept")
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        glob = cast(Glob, override.value())  # so its type says, which Hydra's annotation of `value` leaves out
        return list(glob.filter(list(groups(override.key_or_group))))
    return [Override._convert_value(value) for value in override.sweep_iterator()]


def _objects(values: Sequence[Any]) -> Objects:
    return np.fromiter(values, object, len(values))  # np.array would make a table of a list of lists


def _known(names: Sequence[str]) -> str:
    return f"; there are {', '.join(names)}" if names else ""
