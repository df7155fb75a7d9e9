"""A worker: simulates the lanes of a batch and stages their rows. Runs in any process that the runner chooses."""

import functools
import hashlib
import importlib
import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from kmemexp.metrics import NAMES, SERIES
from kmemexp.parts import outside
from kmemexp.store import files, labels
from kmemexp.store.files import LaneFiles
from kmemexp.store.schema import DONE, FAILED, SCHEMAS
from kmemexp.sweep import verdicts
from kmemexp.sweep.batches import Batch, Cell, Target, make_batches
from kmemexp.sweep.limits import LimitError, Watch
from kmemexp.sweep.stopping import GiveUp
from kmemexp.sweep.verdicts import Verdict
from kmemexp.values import visible

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

Simulate = Callable[[dict[str, Any], Sequence[int]], Sequence[Any]]
"""From a cell's configuration, whose parts other cells share, and replicas to a lane (`lane.model.Lane`) for each."""

IDENTITY = ("cell_key", "design", "workload", "cpus", "ram_bytes", "kva_bytes", "axes", "config")


NOTHING = np.zeros(len(NAMES))
"""Stands for the metrics of a failed lane, which are null."""


class Failure(NamedTuple):
    """A lane that gave no result."""

    replica: int
    error: str


Doom = Callable[[Batch, Target, int, Verdict], None]
"""Ends the process that simulates an attempt at a batch, as a verdict says."""


class BatchResult(NamedTuple):
    """What a worker reports to the driver: the rows themselves are in the store."""

    staged: list[LaneFiles]
    errors: list[str]  # of the failed lanes


def leave_and_die(batch: Batch, target: Target, attempt: int, verdict: Verdict) -> None:
    """Leave the verdict for the driver, and end this process."""
    try:
        verdicts.leave(target, batch, attempt, verdict)
    finally:
        os._exit(1)


def run_batch(batch: Batch, target: Target, attempt: int = 0, doom: Doom = leave_and_die) -> BatchResult:
    """Simulate a batch and stage its rows at `target`; the driver's commit makes them count.

    What simulating a cell raises, be it an exit, becomes its failed rows, and the batch goes on; so does a change of
    the configuration that it was given, which other cells share. Errors of the store are raised. `doom` ends the
    process where a cell that is over a limit cannot be stopped.
    """
    simulate = find(batch.simulate)
    attempts = _Attempts(simulate, batch, target, attempt, doom)
    pieces: dict[str, Any] = {}
    configs = [cell.config.decoded(pieces) for cell in batch.cells]
    with files.explained(target.root, "read"):
        read_text = functools.partial(files.read_text, files.connect(target.root))
        for config in configs:
            outside.provide(config, read_text)
    done: list[tuple[Cell, Any]] = []
    failed: list[tuple[Cell, Failure]] = []
    with attempts.watch.running():
        found = [attempts.lanes(cell, config) for cell, config in zip(batch.cells, configs, strict=True)]
        if _changed(pieces):  # and what came after that is not its cell's: all of them again, apart
            found = [attempts.lanes(cell) for cell in batch.cells]
    for cell, lanes in zip(batch.cells, found, strict=True):
        for lane in lanes:
            (failed if isinstance(lane, Failure) else done).append((cell, lane))
    staged = []
    if done:
        staged.append(_stage(batch, target, attempt, DONE, done))
    if failed:
        staged.append(_stage(batch, target, attempt, FAILED, failed))
    return BatchResult(staged, [failure.error for _, failure in failed])


def stage_failures(batch: Batch, target: Target, error: str) -> BatchResult:
    """Stage failed rows for a batch that no worker survived."""
    failed = [(cell, Failure(replica, error)) for cell in batch.cells for replica in cell.replicas]
    return BatchResult([_stage(batch, target, 0, FAILED, failed)], [error] * batch.lanes)


def simulate_plan(plans: "Sequence[Plan]") -> dict[str, pa.Table]:
    """Simulate every lane of these plans in this process: each table (`store.schema`), with nothing stored.

    Raises what a cell raises.
    """
    lanes = []
    for plan in plans:
        simulate = find(plan.simulate)
        for batch in make_batches(plan.columns, range(plan.replicas), (), simulate=plan.simulate):
            for cell in batch.cells:
                lanes += [(cell, lane) for lane in simulate(cell.config.decoded({}), cell.replicas)]
    return {name: build(lanes) for name, build in _builders().items()}


@functools.cache
def find(name: str) -> Simulate:
    """Import the function that "module:function" names."""
    module, _, function = name.partition(":")
    return cast(Simulate, getattr(importlib.import_module(module), function))


class _Attempts:
    """Simulates the cells of a batch, under its limits."""

    def __init__(self, simulate: Simulate, batch: Batch, target: Target, attempt: int, doom: Doom) -> None:
        self._simulate, self._now = simulate, Verdict({}, "")
        steps = target.limits.steps
        self._steps = {"limits": {"steps_per_operation": steps}} if steps else {}
        self.watch = Watch(target.limits, lambda error: doom(batch, target, attempt, self._now._replace(error=error)))

    def lanes(self, cell: Cell, config: dict[str, Any] | None = None) -> list[Any]:
        """Lanes and failures of a cell. A replica's outcome does not depend on which others are in the batch.

        Without a `config`, each attempt has one of its own, and fails where that has been changed.
        """
        outcome = self._attempt(cell, cell.replicas, config)
        if len(cell.replicas) > 1 and isinstance(outcome[0], Failure):
            outcome = [lane for replica in cell.replicas for lane in self._attempt(cell, [replica], config)]
        return outcome

    def _attempt(self, cell: Cell, replicas: Sequence[int], config: dict[str, Any] | None) -> list[Any]:
        self._now = Verdict({cell.cell_key: list(replicas)}, "")
        own: dict[str, Any] = {}
        given = cell.config.decoded(own) if config is None else config
        try:
            with self.watch.over(len(replicas)):
                lanes = list(self._simulate(given | self._steps, tuple(replicas)))
                _check(lanes, replicas)
            if text := _changed(own):
                raise RuntimeError(f"it has changed the configuration that it was given, in {text[:60]}")
        except GiveUp:
            raise
        except LimitError:
            return [Failure(replica, self.watch.error) for replica in replicas]
        except BaseException as error:  # a cell that exits, or interrupts, fails like any other
            return [Failure(replica, _describe(error)) for replica in replicas]
        return lanes


def _changed(pieces: Mapping[str, Any]) -> str:
    """Text of a piece that is not any more what it was when it was decoded; "" for none."""
    changed = (text for text, value in pieces.items() if isinstance(value, dict | list) and json.loads(text) != value)
    return next(changed, "")


def _check(lanes: list[Any], replicas: Sequence[int]) -> None:
    if [lane.replica for lane in lanes] != list(replicas):
        raise ValueError(f"asked for replicas {list(replicas)}, got {[lane.replica for lane in lanes]}")
    for lane in lanes:
        if lane.metrics.shape != (len(NAMES),) or lane.series.shape[1:] != (len(SERIES),):
            raise ValueError(f"lane has {lane.metrics.shape} metrics and {lane.series.shape} series")


def _describe(error: BaseException) -> str:
    """Type, message and a digest of the traceback, the same wherever the package is installed."""
    frames = traceback.extract_tb(error.__traceback__)
    trail = "".join(f"{Path(frame.filename).name}:{frame.name}:{frame.lineno};" for frame in frames)
    return f"{type(error).__name__}: {visible(str(error))} [{hashlib.sha256(trail.encode()).hexdigest()[:8]}]"


def _stage(batch: Batch, target: Target, attempt: int, status: str, lanes: list[tuple[Cell, Any]]) -> LaneFiles:
    cells: dict[str, list[int]] = {}
    for cell, lane in lanes:
        cells.setdefault(cell.cell_key, []).append(lane.replica)
    new = LaneFiles(files.new_id(batch.id, attempt, target.writer), status, cells)
    build = _builders()
    with files.explained(target.root):
        objects = files.connect(target.root)
        tables = {name: build[name](lanes) for name in files.tables_of(status)}
        of_cells = labels.cells_of(tables["metrics"], target.layout)
        sums = {
            name: files.stage(objects, new.id, name, labels.labelled(rows, of_cells, name, target.layout))
            for name, rows in tables.items()
        }
        return new._replace(sums=sums, layout=target.layout.mark)


def _metrics(lanes: list[tuple[Cell, Any]]) -> pa.Table:
    places, cells = _numbered([cell for cell, _ in lanes])
    told: dict[str, Sequence[Any]] = dict(zip(Cell._fields, zip(*cells, strict=True), strict=True))
    told["config"] = [cell.config.text for cell in cells]
    told["seed"] = [cell.config.value("seed") for cell in cells]
    schema = SCHEMAS["metrics"]
    columns: dict[str, Any] = {name: pa.array(told[name], schema.field(name).type) for name in (*IDENTITY, "seed")}
    if len(cells) < len(lanes):
        columns = {name: column.take(places) for name, column in columns.items()}
    lane_of = [lane for _, lane in lanes]
    columns["replica"] = [lane.replica for lane in lane_of]
    failed = np.array([isinstance(lane, Failure) for lane in lane_of])
    columns["status"] = [FAILED if one else DONE for one in failed.tolist()]
    for name in ("error", "panic", "deadlock"):
        columns[name] = [getattr(lane, name, None) for lane in lane_of]
    values = np.array([NOTHING if isinstance(lane, Failure) else lane.metrics for lane in lane_of], np.float64)
    columns |= {name: pa.array(column, mask=failed) for name, column in zip(NAMES, values.T.copy(), strict=True)}
    return pa.Table.from_pydict(columns, schema)


def _series(lanes: list[tuple[Cell, Any]]) -> pa.Table:
    points = [len(lane.series) for _, lane in lanes]
    values = np.concatenate([lane.series for _, lane in lanes])
    columns = _identity(lanes, points)
    columns["sample"] = np.concatenate([np.arange(n) for n in points])
    columns |= {name: values[:, i] for i, name in enumerate(SERIES)}
    return pa.Table.from_pydict(columns, SCHEMAS["series"])


def _listed(table: str, lanes: list[tuple[Cell, Any]]) -> pa.Table:
    """Make a table of what lanes list under its name, each row in the order of the columns."""
    rows = [row for _, lane in lanes for row in getattr(lane, table)]
    columns = _identity(lanes, [len(getattr(lane, table)) for _, lane in lanes])
    names = [name for name in SCHEMAS[table].names if name not in columns]
    columns |= {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return pa.Table.from_pydict(columns, SCHEMAS[table])


def _snapshots(lanes: list[tuple[Cell, Any]]) -> pa.Table:
    shots = [shot for _, lane in lanes for shot in lane.snapshots]
    columns = _identity(lanes, [len(lane.snapshots) for _, lane in lanes])
    columns["time_ns"] = [time_ns for time_ns, _, _ in shots]
    columns["map"] = [name for _, name, _ in shots]
    columns["occupancy"] = [bins for _, _, bins in shots]
    return pa.Table.from_pydict(columns, SCHEMAS["snapshots"])


def _numbered(cells: Sequence[Cell]) -> "tuple[pa.Array[Any], list[Cell]]":
    """Distinct cells, and which of them each one is."""
    places: dict[str, int] = {}
    numbers = [places.setdefault(cell.cell_key, len(places)) for cell in cells]
    return pa.array(numbers, pa.int32()), list({cell.cell_key: cell for cell in cells}.values())


def _builders() -> dict[str, Callable[[list[tuple[Cell, Any]]], pa.Table]]:
    latency, caches = (functools.partial(_listed, table) for table in ("latency", "caches"))
    return dict(zip(SCHEMAS, (_metrics, _series, latency, _snapshots, caches), strict=True))


def _identity(lanes: list[tuple[Cell, Any]], counts: list[int]) -> dict[str, Any]:
    keys = np.array([cell.cell_key for cell, _ in lanes], dtype=object)
    return {
        "cell_key": np.repeat(keys, counts),
        "replica": np.repeat(np.array([lane.replica for _, lane in lanes], np.int32), counts),
    }
