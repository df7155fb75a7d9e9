"""Batches: lanes that one worker simulates in one go, grouped so that a generated stream serves all its designs."""

import hashlib
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from kmemexp.planning.texts import Pieces, Texts
from kmemexp.store.layout import Layout
from kmemexp.sweep.limits import Limits

if TYPE_CHECKING:  # workers read batches without pandas
    import pandas as pd

TARGET_SECONDS = 2.0  # work in a batch
RATE_OPS = 2e7  # operations that a core simulates per second, with building streams and writing, roughly
TIMED = 6  # how much longer an operation takes on the machine with a clock
LEAST_SECONDS = 0.1  # below this, sending and storing a batch costs more than simulating it
STRETCH = 2.5  # a stream's lanes stay together up to so many times the target
BATCHES_PER_CPU = 4


class Cell(NamedTuple):
    """One cell, with those of its replicas that belong to a batch."""

    cell_key: str
    config: Pieces  # canonical JSON
    axes: str  # JSON
    design: str
    workload: str
    cpus: int
    ram_bytes: int
    kva_bytes: int
    est_ops: int  # operations of one replica
    timed: bool  # whether it runs on the machine with a clock
    replicas: tuple[int, ...]

    @property
    def work(self) -> int:
        """Work of one replica."""
        return work(self.est_ops, timed=self.timed)


class Batch(NamedTuple):
    """What a worker is told: pickled, some 300 bytes a cell, and once each what its configurations are made of."""

    id: str
    cells: tuple[Cell, ...]
    simulate: str  # module:function that simulates the lanes of a cell

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return sum([len(cell.replicas) for cell in self.cells])

    @property
    def est_ops(self) -> int:
        """Estimated operations of all lanes."""
        return sum([cell.est_ops * len(cell.replicas) for cell in self.cells])


class Target(NamedTuple):
    """Where a worker stages rows, in whose name, and what a cell may take."""

    root: str  # results folder
    writer: str = ""
    limits: Limits = Limits()
    layout: Layout = Layout()  # columns that its files have of their cells


Cells = Union["pd.DataFrame", Mapping[str, Sequence[Any]]]
Lane = tuple[Cell, int]  # a cell and one of its replicas


def work(operations: int, *, timed: bool) -> int:
    """Work of so many operations with or without a clock, in operations without a clock."""
    return operations * (TIMED if timed else 1)


def make_batches(
    cells: "Cells", replicas: Sequence[int], done: Container[tuple[str, int]], *, simulate: str, **given: Any
) -> Iterator[Batch]:
    """Make batches of all lanes that are not in `done`, as `batched` does."""
    return batched(cells, missing(_column(cells, "cell_key"), replicas, done), simulate=simulate, **given)


def missing(keys: Sequence[str], replicas: Sequence[int], done: Container[tuple[str, int]]) -> list[tuple[int, ...]]:
    """Replicas of each cell that are not in `done`; most cells share one tuple."""
    every, known = tuple(replicas), dict[tuple[int, ...], tuple[int, ...]]()
    found = (tuple([r for r in every if (key, r) not in done]) for key in keys)
    return [known.setdefault(left, left) for left in found]


def batched(
    cells: "Cells",
    wanted: Sequence[Sequence[int]],
    *,
    simulate: str,
    cpus: int = 1,
    target_seconds: float = TARGET_SECONDS,
    rate_ops: float = RATE_OPS,
) -> Iterator[Batch]:
    """Make batches of the replicas that are `wanted` of each cell, in the order of the plan, each when it is asked for.

    `cells` has for each cell the fields of `Cell` and `stream_key`, by column; lanes of equal stream key and replica
    replay the same stream. A batch holds about `target_seconds` of work, less where that would give a CPU fewer than
    four.
    """
    columns = {name: _column(cells, name) for name in (*Cell._fields[:-1], "stream_key")}
    each = zip(columns["est_ops"], columns["timed"], wanted, strict=True)
    total = sum(work(ops, timed=timed) * len(left) for ops, timed, left in each if left)
    target = min(target_seconds * rate_ops, max(total / (BATCHES_PER_CPU * cpus), LEAST_SECONDS * rate_ops))
    now: list[Lane] = []
    so_far = 0
    for lanes in _streams(columns, wanted):
        for ops, piece in _pieces(lanes, target):
            if now and so_far + ops > 1.25 * target:
                yield _batch(now, simulate)
                now, so_far = [], 0
            now += piece
            so_far += ops
    if now:
        yield _batch(now, simulate)


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Cut a batch in two, to find the lane that kills its worker. It must have two lanes at least."""
    lanes = [(cell, replica) for cell in batch.cells for replica in cell.replicas]
    middle = len(lanes) // 2
    return _batch(lanes[:middle], batch.simulate), _batch(lanes[middle:], batch.simulate)


def single(batch: Batch) -> list[Batch]:
    """Make a batch of each lane."""
    return [_batch([(cell, replica)], batch.simulate) for cell in batch.cells for replica in cell.replicas]


def divided_by(batch: Batch, lanes: Mapping[str, Sequence[int]]) -> tuple[Batch, Batch | None]:
    """Cut a batch into these lanes (replicas by cell key), of which it has one at least, and the others."""
    every = [(cell, replica) for cell in batch.cells for replica in cell.replicas]
    chosen = [(cell, r) for cell, r in every if r in lanes.get(cell.cell_key, ())]
    others = [(cell, r) for cell, r in every if r not in lanes.get(cell.cell_key, ())]
    return _batch(chosen, batch.simulate), _batch(others, batch.simulate) if others else None


def divided(batch: Batch, chosen: Callable[[Cell], bool]) -> tuple[Batch | None, Batch | None]:
    """Cut a batch into the cells that are chosen and the others; None for none of them."""
    which = [chosen(cell) for cell in batch.cells]
    if all(which):
        return batch, None
    if not any(which):
        return None, batch
    parts = ([c for c, one in zip(batch.cells, which, strict=True) if one == side] for side in (True, False))
    now, later = (_batch([(cell, r) for cell in cells for r in cell.replicas], batch.simulate) for cells in parts)
    return now, later


def _column(cells: "Cells", name: str) -> Sequence[Any]:
    column: Any = cells[name]
    values: Sequence[Any] = column.tolist() if hasattr(column, "tolist") else column
    return values


def _streams(columns: Mapping[str, Sequence[Any]], wanted: Sequence[Sequence[int]]) -> Iterator[list[Lane]]:
    """Wanted lanes of each stream: by stream key in the order of the plan, then by replica."""
    groups: dict[str, list[int]] = {}
    for place, (stream_key, left) in enumerate(zip(columns["stream_key"], wanted, strict=True)):
        if left:
            groups.setdefault(stream_key, []).append(place)
    texts = columns["config"]
    pieces = texts.pieces if isinstance(texts, Texts) else lambda place: Pieces((), (texts[place],))
    plain = [columns[name] for name in Cell._fields[2:-1]]
    for places in groups.values():
        lanes: dict[int, list[Lane]] = {}
        for place in places:
            cell = Cell._make((columns["cell_key"][place], pieces(place), *[column[place] for column in plain], ()))
            for replica in wanted[place]:
                lanes.setdefault(replica, []).append((cell, replica))
        for replica in sorted(lanes):
            yield lanes[replica]


def _pieces(lanes: list[Lane], target: float) -> Iterator[tuple[int, list[Lane]]]:
    """Keep a stream's lanes together, or cut where they are much more than a batch should hold. Gives work, lanes."""
    each = [work(cell.est_ops, timed=cell.timed) for cell, _ in lanes]
    total = sum(each)
    if total <= STRETCH * target:
        yield total, lanes
        return
    count = round(total / target)
    first = inside = 0
    ahead = 0.0
    for place, ops in enumerate(each):
        if place > first and ahead + ops / 2 > total / count:
            yield inside, lanes[first:place]
            first, inside, ahead = place, 0, ahead - total / count
        inside += ops
        ahead += ops
    yield inside, lanes[first:]


def _batch(lanes: list[Lane], simulate: str) -> Batch:
    replicas: dict[str, list[int]] = {}
    cells: dict[str, Cell] = {}
    for cell, replica in lanes:
        key = cell.cell_key
        if key in cells:
            replicas[key].append(int(replica))
        else:
            cells[key], replicas[key] = cell, [int(replica)]
    content = json.dumps(list(replicas.items()), separators=(",", ":"))
    merged = tuple([Cell(*cell[:-1], tuple(replicas[key])) for key, cell in cells.items()])
    return Batch(hashlib.sha256(content.encode()).hexdigest()[:20], merged, simulate)
