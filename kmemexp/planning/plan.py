"""From overrides to plans: what a command line and a sweep file ask for, and the settings under which it runs."""

import contextlib
import gc
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from kmemexp.config import checks, files, reading, schema
from kmemexp.config.cell import NODES, digest
from kmemexp.errors import ConfigError
from kmemexp.parts import outside
from kmemexp.planning import axes, cells, effect, globs, said, sizes
from kmemexp.planning.axes import CommandLine, Grid
from kmemexp.planning.cells import Columns
from kmemexp.planning.composing import Composer, plain, repository
from kmemexp.planning.predicates import Mask, Predicate

if TYPE_CHECKING:
    import pandas as pd

ADHOC = "adhoc"
"""Begins the name of what no sweep file describes. Folders of this name alone held all such grids once."""
OF_CELLS = (*NODES, "scenario")
"""First words of the keys that say what is simulated."""
SIMULATE = "kmemexp.lane:simulate_lanes"
"""Simulates the lanes of every real plan. Runs of several versions may work on one folder: keep the name valid."""


@dataclass
class Plan:
    """What a sweep asks for.

    `columns`, and the data frame `cells`, have a row per cell: cell_key, config (canonical JSON), axes (JSON of the
    cell's values of the axes and of what the command line has fixed), design, workload, cpus, ram_bytes, kva_bytes,
    stream_key (equal where cells are given the same streams of operations), est_ops (expected operations of one
    replica) and timed (whether it runs on the machine with a clock).
    """

    name: str
    description: str
    columns: Columns
    replicas: int
    excluded: int  # combinations that an `exclude` took out
    collapsed: int  # combinations that turned out equal to another cell
    baseline: dict[str, Any]
    metrics: list[str]
    root: str  # results folder of this sweep: an absolute path or a URI
    cluster: dict[str, Any]
    action: str
    retry_failed: bool
    max_failures: int | None
    progress: bool
    cell: str = ""  # action=explain: beginning of a cell's key
    replica: int | None = None  # action=explain
    validate: dict[str, Any] = field(default_factory=dict)  # action=validate
    export: str = "folder"  # action=export: to what
    notes: Sequence[str] = ()  # what was not taken as the sweep file says
    limits: dict[str, Any] = field(default_factory=dict)  # of a cell: seconds, memory in bytes
    simulate: str = SIMULATE  # module:function that simulates the lanes of a cell
    reps: dict[str, Any] = field(default_factory=dict)  # sweep.reps: how the numbers of replicas are chosen
    counts: dict[str, int] = field(default_factory=dict)  # replicas by cell key, where fewer than `replicas` so far
    members: Sequence[str] = ()  # each value of an axis as a JSON object of one member; (): `columns` says them
    pool: str = ""  # folder whose rows may be copied: that of all grids of no sweep file, in earlier versions
    fixed: Sequence[str] = ()  # keys that the command line fixes for every cell, and that stand among its axes
    output: str = "text"  # text | json | quiet
    tables: str = "answer"  # answer | all: what is shown of the comparison
    report: bool = False  # whether _report.html is written

    @property
    def cells(self) -> "pd.DataFrame":
        """The cells as a data frame; assign another one to change them."""
        import pandas as pd  # noqa: PLC0415 - planning and a rerun do without

        kinds = {"config": object}  # long: not copied into Arrow's memory
        return pd.DataFrame(
            {name: pd.Series(list(column), dtype=kinds.get(name)) for name, column in self.columns.items()}
        )

    @cells.setter
    def cells(self, cells: "pd.DataFrame") -> None:
        self.columns = {str(name): cells[name].tolist() for name in cells}

    @property
    def lanes(self) -> int:
        """Number of rows asked for."""
        return sum(self.count_of(key) for key in self.columns["cell_key"])

    @property
    def rows(self) -> list[tuple[str, int]]:
        """Every row asked for: (cell key, replica)."""
        return [(key, replica) for key in self.columns["cell_key"] for replica in range(self.count_of(key))]

    def count_of(self, cell_key: str) -> int:
        """Replicas asked for of a cell."""
        return self.counts.get(cell_key, self.replicas)

    @property
    def axes(self) -> dict[str, str]:
        """Axis values (JSON) of the cells in this plan, by cell key."""
        return dict(zip(self.columns["cell_key"], self.columns["axes"], strict=True))


def plan_from(
    overrides: Sequence[str], config_dir: str | None = None, *, loader: ConfigLoader | None = None
) -> list[Plan]:
    """Plan what a command line asks for: one plan per sweep named, or one without.

    `config_dir` is a further folder of configuration files. `loader` is Hydra's, where Hydra runs already. Raises
    InputError for what the user can put right.
    """
    with _without_collection(), open_loader(loader, config_dir) as found:
        composer = Composer(found)
        line = sizes.chosen(axes.read_overrides(overrides, composer.with_hydra), composer.options)
        composer.whole_machine = "machine" in line.fixed or "machine" in line.swept
        return [_plan(composer, line, sweep) for sweep in line.sweeps or [""]]


def _plan(composer: Composer, line: CommandLine, sweep: str) -> Plan:
    fixed = [*line.fixed.values(), *([sweep] if sweep else [])]
    base = composer.compose(fixed)
    effect.check_known(map(str, base), line)
    outside.discover(_folders(base))
    settings = plain(base, [str(key) for key in base if key not in (*NODES, "hydra")])
    checks.check_run(settings)
    wanted = settings["sweep"]
    line, unfit = globs.fitting(composer, line, fixed, wanted)
    table, members, (excluded, collapsed) = _cells(composer, line, fixed, base, wanted)
    present = [json.loads(a) | {"design": d} for a, d in zip(table["axes"], table["design"], strict=True)]
    baseline, note = effect.baseline(wanted["baseline"], line, present, composer.options)
    name = wanted["name"] or sweep.rpartition("=")[2].rpartition("/")[2] or _adhoc(table["axes"], line)
    reps = wanted["reps"]
    adaptive = bool(reps["target"] or reps["select"])
    return Plan(
        name=name,
        description=wanted["description"],
        columns=table,
        replicas=reps["max"],
        reps=reps if adaptive else {},
        counts=dict.fromkeys(table["cell_key"], reps["min"]) if adaptive else {},
        excluded=excluded,
        collapsed=collapsed,
        baseline=baseline,
        notes=[*unfit, *([note] if note else [])],
        fixed=said.keys(line.fixed, composer.options),
        members=members,
        pool=_root(settings["store"], ADHOC) if name.startswith(f"{ADHOC}-") else "",
        metrics=list(wanted["metrics"]),
        root=_root(settings["store"], name),
        cluster=settings["cluster"],
        action=settings["action"],
        retry_failed=settings["retry_failed"],
        max_failures=1 if settings["on_error"] == "stop" else settings["max_failures"],
        progress=settings["progress"] and settings["output"] != "quiet",
        output=settings["output"],
        tables=settings["tables"],
        report=settings["report"],
        cell=settings["cell"],
        replica=settings["replica"],
        validate=settings["validate"],
        export=settings["export"]["to"],
        limits=checks.limits(settings["limits"]),
    )


def _cells(
    composer: Composer, line: CommandLine, fixed: list[str], base: DictConfig, wanted: Mapping[str, Any]
) -> tuple[Columns, list[str], tuple[int, int]]:
    """Columns of the cells of all grids of a sweep; `Plan.members`; how many combinations were excluded, and equal."""
    asked = axes.grids(wanted)
    blocks = [axes.read_file(grid, composer.options, where) for where, grid in asked]
    every = [block for each in blocks for block in each]
    keys = [*(key for block in every for key in block), *line.swept]
    grids, tables, excluded = [], [], 0
    for (_, part), each in zip(asked, blocks, strict=True):
        when, exclude = axes.predicates(part, keys)
        effect.check_predicates([*when.values(), *exclude], every, line, composer.options)
        grid = Grid(axes.merge(each, line))
        combos = cells.Combos(composer, fixed, [key for key in grid.codes if composer.options(key)], base)
        excluded += _restrict(grid, combos, when, exclude)
        if grid.count or len(asked) == 1:
            grids.append(grid)
            tables.append(cells.table(grid, combos, said.keys(line.fixed, composer.options)))
    if not tables:
        raise ConfigError("the sweep has no cells: every combination is excluded")
    columns, equal = cells.joined([table.columns for table in tables])
    effect.check_parts(line, set().union(*(table.parts for table in tables)))
    effect.check_clock([*line.fixed, *(key for grid in grids for key in grid.codes)], columns["timed"])
    effect.check_axes(grids, [table.idle for table in tables])
    members = [member for table in tables for member in table.members]
    return columns, members, (excluded, equal + sum(table.equal for table in tables))


def _adhoc(rows: Sequence[str], line: CommandLine) -> str:
    """Name a grid of no sweep file by what it asks for: the same settings, in any order, give the same folder."""
    one = json.loads(rows[0])
    asked = {key: one.get(key, text) for key, text in line.fixed.items() if re.split("[./]", key)[0] in OF_CELLS}
    asked |= {key: sorted(map(json.dumps, values)) for key, values in line.swept.items()}
    return f"{ADHOC}-{digest(json.dumps(asked, sort_keys=True))[:8]}" if asked else ADHOC


def _folders(base: DictConfig) -> list[str]:
    """Folders of configuration files on Hydra's search path; a user's own parts lie beside them."""
    return [s["path"] for s in base.hydra.runtime.config_sources if s["schema"] == "file"]


def _restrict(grid: Grid, combos: cells.Combos, when: Mapping[str, Predicate], exclude: Sequence[Predicate]) -> int:
    """Apply `when` and `exclude`. Returns the number of combinations excluded."""
    before = grid.count
    # Those first that look at nothing else than axes which are there in every cell, and those next that need no
    # composing: combinations of groups that are excluded need not even compose.
    at_once = [p for p in exclude if set(p.keys) <= grid.codes.keys() - when.keys()]
    for predicate in at_once:
        grid.keep(~_mask(grid, combos, predicate))
    for key, predicate in when.items():
        if key in grid.codes:
            grid.limit(key, _mask(grid, combos, predicate))
    later = [p for p in exclude if p not in at_once]
    for predicate in sorted(later, key=lambda p: not set(p.keys) <= set(grid.codes)):
        grid.keep(~_mask(grid, combos, predicate))
    return before - grid.count


def _mask(grid: Grid, combos: cells.Combos, predicate: Predicate) -> Mask:
    columns = [grid.column(key, combos.elsewhere(grid)) for key in predicate.keys]
    return predicate.mask(columns, grid.count)


def _root(store: Mapping[str, Any], name: str) -> str:
    """Folder of a sweep below the store's root; paths become absolute, URIs stay, and have the options after a `?`."""
    root = store["root"]
    if "://" in root:
        folder, _, query = root.partition("?")
        given = {k: "true" if v is True else str(v) for k, v in store["options"].items() if v not in (None, False)}
        query = "&".join(filter(None, [query, urlencode(given)]))
        return f"{folder.rstrip('/')}/{name}" + (f"?{query}" if query else "")
    return str(Path(root).expanduser().absolute() / name)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Keep the cycle collector off: composing makes millions of small objects, which it would walk again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def open_loader(given: ConfigLoader | None = None, config_dir: str | None = None) -> Iterator[ConfigLoader]:
    """Hydra's loader; a Hydra that is in use elsewhere (in a notebook) is put back afterwards."""
    if given is not None:
        yield reading.keeping(given)
        return
    schema.register()
    before, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(str(files.conf_dir()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            if config_dir is not None:
                _search_also(loader, Path(config_dir).expanduser().absolute())
            yield reading.keeping(loader)
    finally:
        GlobalHydra.instance().hydra = before


def _search_also(loader: ConfigLoader, folder: Path) -> None:
    """Do what `--config-dir` does."""
    if not folder.is_dir():
        raise ConfigError(f"config_dir: there is no folder {folder}")
    path = loader.get_search_path()
    path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="main"))
    repository(loader).initialize_sources(path)
