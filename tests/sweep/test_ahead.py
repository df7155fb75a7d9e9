"""Simulating what is compiled while the rest compiles."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from sweep_fakes import make_plan

from kmemexp.errors import InputError
from kmemexp.planning.texts import Pieces
from kmemexp.store.store import Store
from kmemexp.sweep import batches
from kmemexp.sweep.batches import Batch, Cell
from kmemexp.sweep.execute import execute


def test_rows_of_a_compiled_design_come_before_the_others_are_compiled(tmp_path: Path) -> None:
    """The second design waits for a file that a row of the first one writes, in one and the same batch."""
    flag = tmp_path / "flag"
    cells = [{"touch": str(flag)}, {"warm_after": str(flag)}] * 4
    outcome = execute(make_plan(tmp_path / "r", cells, replicas=3), progress=False)
    assert (outcome.done, outcome.failed) == (24, 0)


def test_what_was_done_before_a_design_was_refused_is_kept(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    cells = [{"touch": str(flag)}, {"warm_after": str(flag), "refuse_at_last": True}]
    with pytest.raises(InputError, match="as it turns out"):
        execute(make_plan(tmp_path / "r", cells, replicas=1), progress=False)
    assert len(Store(str(tmp_path / "r")).done()) == 1


def test_a_ctrl_c_while_nothing_is_compiled_yet_ends_at_once(tmp_path: Path) -> None:
    def interrupt() -> None:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    outcome = execute(make_plan(tmp_path / "r", [{"warm_after": str(tmp_path / "never")}] * 2), progress=False)
    assert (outcome.done, outcome.interrupted) == (0, True)


def batch_of(*designs: str) -> Batch:
    cells = tuple(
        Cell(f"{i:032x}", Pieces((), ("{}",)), "{}", design, "load", 1, 1, 1, 100, False, (0, 1))
        for i, design in enumerate(designs)
    )
    return Batch("id", cells, "fakes:simulate")


def test_a_batch_is_divided_by_cells() -> None:
    batch = batch_of("a", "b", "a")
    now, later = batches.divided(batch, lambda cell: cell.design == "a")
    assert [[c.design for c in part.cells] for part in (now, later)] == [["a", "a"], ["b"]]
    assert now.lanes + later.lanes == batch.lanes
    assert {c.replicas for part in (now, later) for c in part.cells} == {(0, 1)}
    assert batches.divided(batch, lambda cell: True) == (batch, None)
    assert batches.divided(batch, lambda cell: False) == (None, batch)
