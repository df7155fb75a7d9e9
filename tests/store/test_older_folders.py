"""Folders that earlier versions have written: what they name stays valid, so that they load and a sweep goes on."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sweep_fakes import make_cells, make_plan

from kmemexp.metrics import NAMES
from kmemexp.planning.plan import plan_from
from kmemexp.report import results
from kmemexp.store.schema import DONE, FAILED, SCHEMAS, STAMP
from kmemexp.store.store import Store
from kmemexp.sweep import worker
from kmemexp.sweep.batches import Target
from kmemexp.sweep.execute import execute

OLD_ID, LOST_ID = "81fb287741d91e8051a8-0-0b441ff6d7c5", "0f1c287741d91e8051a8-1-aa441ff6d7c5"
OLD_STAMP, NEW = "1-6b6b80e0", NAMES[-1]  # of version 0.1.0, which had fewer metrics
KEYS = [f"{n:032x}" for n in range(4)]


def manifest(file_id: str, status: str, cells: str, lanes: int) -> str:
    """Text of a manifest of layout 1."""
    return (
        f'{{"schema":"{OLD_STAMP}","run":"e7f69dd25cb647bd868c1f29b7c57c06","remove":[],"add":[{{"id":"{file_id}",'
        f'"status":"{status}","rows":{lanes},"cells":{{{cells}}}}}]}}'
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two lanes that are done, and a failed one whose committer was killed before it moved the file."""
    execute(make_plan(tmp_path / "source", [{}], replicas=2), progress=False)
    found = {table: Store(str(tmp_path / "source")).read(table) for table in SCHEMAS}
    root = tmp_path / "old"
    for table, place in (("metrics", "data"), ("series", "_series"), ("latency", "_latency"),
                         ("snapshots", "_snapshots")):  # fmt: skip
        (root / place).mkdir(parents=True)
        pq.write_table(
            found[table].drop([NEW]) if table == "metrics" else found[table], root / place / f"part-{OLD_ID}.parquet"
        )
    (root / "_staging" / "data").mkdir(parents=True)
    row = found["metrics"].slice(0, 1).to_pylist()[0] | {"cell_key": KEYS[1], "status": FAILED, "error": "E: x [0]"}
    failed = pa.Table.from_pylist([row], SCHEMAS["metrics"])
    pq.write_table(failed.drop([NEW]), root / "_staging" / "data" / f"part-{LOST_ID}.parquet")
    (root / "_manifest").mkdir()
    (root / "_manifest" / "00000000.json").write_text(manifest(OLD_ID, "done", f'"{KEYS[0]}":[0,1]', 2))
    (root / "_manifest" / "00000001.json").write_text(manifest(LOST_ID, "failed", f'"{KEYS[1]}":[0]', 1))
    (root / "_run.json").write_text(json.dumps({"runs": [{"id": "e7f69dd25cb647bd868c1f29b7c57c06"}]}))
    return root


def test_an_older_folder_loads(folder: Path) -> None:
    assert Store(str(folder)).done() == {(KEYS[0], 0): DONE, (KEYS[0], 1): DONE, (KEYS[1], 0): FAILED}
    found = results.load(folder)
    assert found.metrics["status"].tolist() == [DONE, DONE, FAILED]
    assert len(found.series) == 2 * 5
    assert found.run["runs"][0]["id"] == "e7f69dd25cb647bd868c1f29b7c57c06"
    assert found.caches.empty
    assert "sample.snapshots" in found.caches.attrs["note"]


def test_a_sweep_goes_on_in_an_older_folder(folder: Path) -> None:
    plan = make_plan(folder, [{}] * 4, replicas=2)
    outcome = execute(plan, progress=False)
    assert outcome[:3] == (5, 1, 2)  # the failed row stands, unless it is to be tried again
    assert not (folder / "data" / f"part-{LOST_ID}.parquet").exists()  # written anew, with a column for each axis
    assert len(pd.read_parquet(folder)) == 8
    assert len(json.loads((folder / "_run.json").read_text())["runs"]) == 2
    plan.retry_failed = True
    assert execute(plan, progress=False)[:3] == (1, 0, 7)
    assert not (folder / "data" / f"part-{LOST_ID}.parquet").exists()


def test_what_a_manifest_says_is_where_it_has_always_been(folder: Path) -> None:
    store = Store(str(folder), write=True)
    (staged,) = worker.run_batch(_batch(), Target(str(folder))).staged
    store.commit([staged], "e7f69dd25cb647bd868c1f29b7c57c06")
    written = json.loads((folder / "_manifest" / "00000002.json").read_text())
    (added,) = written["add"]
    assert set(added.pop("files")) == set(SCHEMAS)
    assert added.pop("layout")
    assert written["schema"] == STAMP
    assert added.pop("cells") == [[[0], KEYS[2]]]
    (before,) = json.loads(manifest(staged.id, "done", "", 1))["add"]
    assert added == {name: before[name] for name in ("id", "status", "rows")}
    assert (written["run"], written["remove"]) == ("e7f69dd25cb647bd868c1f29b7c57c06", [])
    for place in ("data", "_series", "_latency", "_snapshots", "_caches"):
        assert (folder / place / f"part-{staged.id}.parquet").is_file()


def _batch() -> worker.Batch:
    cells = make_cells([{}] * 3).iloc[[2]]
    (batch,) = worker.make_batches(cells, [0], (), simulate="sweep_fakes:simulate")
    return batch


def test_columns_that_an_older_folder_does_not_have_are_empty(folder: Path) -> None:
    metrics = results.load(folder).metrics
    assert metrics[NEW].isna().all()
    assert metrics[NAMES[0]].notna().all()
    Store(str(folder), write=True).compact()
    assert results.load(folder).metrics.equals(metrics)
    assert Store(str(folder)).read().schema.equals(SCHEMAS["metrics"])


def test_the_simulator_keeps_its_name() -> None:
    """Drivers and workers of one sweep may be of different versions, and name it to each other."""
    (plan,) = plan_from([])
    assert plan.simulate == "kmemexp.lane:simulate_lanes"
    assert worker.find(plan.simulate).__name__ == "simulate_lanes"


def test_rows_of_an_earlier_model_stay_and_are_left_out_once_they_are_simulated_again(folder: Path) -> None:
    before = len(Store(str(folder)).done())
    plan = make_plan(folder, [{}] * 4, replicas=2)
    plan.columns["cell_key"] = [f"{n + 100:032x}" for n in range(4)]  # the same configurations under other keys
    assert execute(plan, progress=False)[:3] == (8, 0, 0)
    assert len(Store(str(folder)).done()) == 8 + before
    loaded = results.load(folder)
    assert set(loaded.metrics["cell_key"]) == set(plan.columns["cell_key"])
    assert set(loaded.series["cell_key"]) == set(plan.columns["cell_key"])
