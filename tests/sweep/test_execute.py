"""Running a plan in this process: what is simulated, what is kept, how it stops and goes on."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sweep_fakes import make_cells, make_plan

from kmemexp.errors import ConfigError, InputError
from kmemexp.report import results
from kmemexp.store import writers
from kmemexp.store.schema import DONE, FAILED, SCHEMAS
from kmemexp.store.store import Store
from kmemexp.sweep import execute as execute_module
from kmemexp.sweep import runners
from kmemexp.sweep.execute import Outcome, execute
from kmemexp.sweep.runners import Finished
from kmemexp.sweep.runners.serial import Runner as SerialRunner
from kmemexp.sweep.worker import simulate_plan

TESTS = Path(__file__).parents[1]


def tables(root: Path) -> dict:
    return {table: Store(str(root)).read(table) for table in SCHEMAS}


def same(one: dict, two: dict) -> bool:
    return all(one[table].equals(two[table]) for table in SCHEMAS)


def counts(outcome: Outcome) -> tuple[int, int, int, bool]:
    return outcome.done, outcome.failed, outcome.skipped, outcome.interrupted


@pytest.fixture
def whole(tmp_path: Path) -> dict:
    """Tables of the plan of eight cells and three replicas, run at one go."""
    execute(make_plan(tmp_path / "whole", [{}] * 8, replicas=3), progress=False)
    return tables(tmp_path / "whole")


def test_a_plan_is_run_once(tmp_path: Path, whole: dict) -> None:
    plan = make_plan(tmp_path / "r", [{}] * 8, replicas=3)
    first = execute(plan, progress=False)
    assert counts(first) == (24, 0, 0, False)
    assert first.root == str(tmp_path / "r")
    assert len(pd.read_parquet(first.root)) == 24
    assert same(tables(tmp_path / "r"), whole)
    manifests = list((tmp_path / "r" / "_manifest").iterdir())
    assert counts(execute(plan, progress=False)) == (0, 0, 24, False)
    assert list((tmp_path / "r" / "_manifest").iterdir()) == manifests


def test_what_another_sweep_has_is_copied_with_the_axes_of_this_one(tmp_path: Path, whole: dict) -> None:
    execute(make_plan(tmp_path / "one", [{}] * 5, replicas=3), progress=False)
    plan = make_plan(tmp_path / "two", [{}] * 8, replicas=3)
    plan.columns["axes"] = [json.dumps({"n": i}) for i in range(8)]
    outcome = execute(plan, progress=False, elsewhere=[str(tmp_path / "one")])
    assert counts(outcome) == (9, 0, 15, False)
    got = tables(tmp_path / "two")
    assert [json.loads(axes)["n"] for axes in got["metrics"]["axes"].to_pylist()] == [i // 3 for i in range(24)]
    assert got["series"].equals(whole["series"])
    assert got["snapshots"].equals(whole["snapshots"])
    assert got["metrics"].drop(["axes"]).equals(whole["metrics"].drop(["axes"]))
    assert len(pd.read_parquet(tmp_path / "two")) == 24
    assert counts(execute(plan, progress=False, elsewhere=[str(tmp_path / "one")])) == (0, 0, 24, False)


def test_a_plan_with_nothing_to_do_starts_no_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path, [{}])
    execute(plan, progress=False)
    monkeypatch.setattr(execute_module, "make_runner", lambda *_: pytest.fail("a runner was made"))
    assert counts(execute(plan, progress=False)) == (0, 0, 2, False)


def test_a_larger_plan_adds_to_the_folder(tmp_path: Path, whole: dict) -> None:
    execute(make_plan(tmp_path / "r", [{}] * 5, replicas=2), progress=False)
    grown = execute(make_plan(tmp_path / "r", [{}] * 8, replicas=3), progress=False)
    assert counts(grown) == (14, 0, 10, False)
    assert same(tables(tmp_path / "r"), whole)
    smaller = execute(make_plan(tmp_path / "r", [{}] * 1, replicas=1), progress=False)
    assert counts(smaller) == (0, 0, 1, False)
    assert len(pd.read_parquet(tmp_path / "r")) == 24


@pytest.mark.parametrize("seconds", [0.001, 0.6, 100.0])
def test_rows_do_not_depend_on_the_size_of_batches(
    tmp_path: Path, whole: dict, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute_module.batches, "LEAST_SECONDS", 0.0)
    cluster = {"runner": "serial", "batch_s": seconds}
    execute(make_plan(tmp_path / "r", [{}] * 8, replicas=3, cluster=cluster), progress=False)
    assert same(tables(tmp_path / "r"), whole)


def test_rows_of_an_earlier_plan_have_the_axes_of_the_one_that_uses_them(tmp_path: Path) -> None:
    execute(make_plan(tmp_path, [{}] * 2), progress=False)
    plan = make_plan(tmp_path, [{}] * 4)
    plan.columns["axes"] = [json.dumps({"place": i}) for i in range(4)]
    execute(plan, progress=False)
    assert results.load(tmp_path).metrics["place"].tolist() == [0, 0, 2, 2, 1, 1, 3, 3]  # by workload and design
    Store(str(tmp_path), write=True).compact()
    execute(make_plan(tmp_path, [{}] * 1), progress=False)
    metrics = results.load(tmp_path).metrics.sort_values("cell_key")
    assert metrics["place"].isna().tolist() == [True] * 2 + [False] * 6
    (tmp_path / "_axes.parquet").write_text("x")
    with pytest.raises(InputError, match=r"_axes.parquet is damaged"):
        results.load(tmp_path).metrics.empty  # noqa: B018


def test_a_run_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "BEAT_SECONDS", 0.0)
    said = []

    class Asking(SerialRunner):
        def poll(self, timeout: float) -> list[Finished]:
            said.append(Store(str(tmp_path)).drivers() if (tmp_path / "data").exists() else {})
            return super().poll(timeout)

    monkeypatch.setattr(execute_module, "make_runner", Asking)
    cluster = {"runner": "serial", "batch_s": 0.3}
    execute(make_plan(tmp_path, [{}] * 8, replicas=3, cluster=cluster), progress=False)
    ((who, state),) = said[-1].items()
    assert str(os.getpid()) in who
    assert state["rows"] == 24
    assert 0 < state["done"] < 24
    assert state["running"] == 24 - state["done"]
    assert state["left"] > 0
    assert Store(str(tmp_path)).drivers() == {}


def test_a_failed_replica_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, [{}, {"fail": [1]}, {}], replicas=3)
    assert counts(execute(plan, progress=False)) == (8, 1, 0, False)
    df = pd.read_parquet(tmp_path)
    (row,) = df[df.status == FAILED].to_dict("records")
    assert (int(row["cell_key"], 16), row["replica"], row["seed"]) == (1, 1, 7)
    assert re.fullmatch(r"ValueError: cell 1 cannot do replica 1 \[[0-9a-f]{8}\]", row["error"])
    assert pd.isna(row["map_free_bytes"])
    assert df[df.status == DONE].error.isna().all()
    assert counts(execute(plan, progress=False)) == (0, 1, 8, False)


def test_a_replica_that_changes_what_it_is_given_fails_and_the_others_are_as_without_it(tmp_path: Path) -> None:
    """Replicas of a cell share its configuration, cells of a batch what their configurations have in common."""
    plan = make_plan(tmp_path / "r", [{}, {"meddle": [0, 2]}, {}], replicas=4)
    assert counts(execute(plan, progress=False)) == (10, 2, 0, False)
    failed = Store(str(tmp_path / "r")).read().to_pandas().query("status == @FAILED")
    assert [(int(key, 16), r) for key, r in zip(failed.cell_key, failed.replica, strict=True)] == [(1, 0), (1, 2)]
    for error in failed.error:
        assert error.startswith("RuntimeError: it has changed the configuration that it was given, in {")
    execute(make_plan(tmp_path / "whole", [{}] * 3, replicas=4), progress=False)
    whole, found = (Store(str(tmp_path / name)).read("series").to_pandas() for name in ("whole", "r"))
    gone = (whole.cell_key == failed.cell_key.iloc[0]) & whole.replica.isin([0, 2])
    assert found.equals(whole[~gone].reset_index(drop=True))


def test_failed_rows_are_retried_when_asked(tmp_path: Path) -> None:
    flag = tmp_path / "now"
    configs = [{}] * 2 + [{"fail_until": str(flag)}] * 2
    plan = make_plan(tmp_path / "r", configs, retry_failed=True)
    assert counts(execute(plan, progress=False)) == (4, 4, 0, False)
    assert counts(execute(plan, progress=False)) == (0, 4, 4, False)
    flag.touch()
    assert counts(execute(plan, progress=False)) == (4, 0, 4, False)
    df = pd.read_parquet(tmp_path / "r")
    assert len(df) == 8
    assert set(df.status) == {DONE}


def test_too_many_failures_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plan = make_plan(tmp_path, [{"fail": [0]}] * 9, replicas=1, max_failures=2, cluster={"batch_s": 0.001})
    plan.cluster["runner"] = "serial"
    outcome = execute(plan, progress=False)
    assert 2 <= outcome.failed < 9
    assert not outcome.interrupted
    assert "max_failures=2" in capsys.readouterr().err


def test_every_design_is_compiled_once_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    plan = make_plan(tmp_path / "r", [{"warmed": str(log)}] * 6)
    execute(plan, progress=False)
    assert log.read_text() == "2\n2\n"  # two designs, in one call
    execute(plan, progress=False)
    assert log.read_text() == "2\n2\n"


def test_a_design_that_is_refused_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this design cannot be"):
        execute(make_plan(tmp_path, [{"refuse": True}]), progress=False)


def test_an_unknown_runner_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.runner=slurm: there are ray, serial"):
        execute(make_plan(tmp_path, [{}], cluster={"runner": "slurm"}), progress=False)


class CrashingRunner(SerialRunner):
    """Workers die on every batch that holds cell 3, replica 1; and once, at first, for no reason."""

    def __init__(self, cluster, root) -> None:
        super().__init__(cluster, root)
        self.crashed = 0

    def poll(self, timeout: float) -> list[Finished]:
        batch, _ = self._waiting[0]
        poisoned = any(int(cell.cell_key, 16) == 3 and 1 in cell.replicas for cell in batch.cells)
        if poisoned or not self.crashed:
            self.crashed += 1
            self._waiting.pop(0)
            return [Finished(batch, None, "WorkerCrashedError: the worker died")]
        return super().poll(timeout)


def test_the_lane_that_kills_workers_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(execute_module, "make_runner", CrashingRunner)
    outcome = execute(make_plan(tmp_path, [{}] * 8, replicas=3))
    told = capsys.readouterr().err
    assert told.count("a worker died (WorkerCrashedError); what it had in work is simulated again\n") == 1
    assert counts(outcome) == (23, 1, 0, False)
    df = pd.read_parquet(tmp_path)
    (row,) = df[df.status == FAILED].to_dict("records")
    assert (int(row["cell_key"], 16), row["replica"]) == (3, 1)
    assert row["error"] == "WorkerCrashedError: the worker died"


def test_one_crash_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict) -> None:
    class Once(CrashingRunner):
        def poll(self, timeout: float) -> list[Finished]:
            return super().poll(timeout) if not self.crashed else SerialRunner.poll(self, timeout)

    monkeypatch.setattr(execute_module, "make_runner", Once)
    assert counts(execute(make_plan(tmp_path / "r", [{}] * 8, replicas=3), progress=False)) == (24, 0, 0, False)
    assert same(tables(tmp_path / "r"), whole)


def test_an_error_of_the_store_ends_the_run_and_closes_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    class Full(SerialRunner):
        def poll(self, timeout: float) -> list[Finished]:
            raise OSError("No space left on device")

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(execute_module, "make_runner", Full)
    with pytest.raises(OSError, match="No space"):
        execute(make_plan(tmp_path, [{}]), progress=False)
    assert closed == [True]


def test_provenance_is_kept_for_each_run(tmp_path: Path) -> None:
    execute(make_plan(tmp_path, [{}]), progress=False)
    execute(make_plan(tmp_path, [{}, {"fail": [0]}]), progress=False)
    first, second = json.loads((tmp_path / "_run.json").read_text())["runs"]
    assert first["sweep"] == "made_up"
    assert first["outcome"] == second["outcome"] == "complete"
    assert (second["rows"], second["failed"]) == (2, 1)
    assert first["id"] != second["id"]
    assert first["plan"] != second["plan"]
    assert {"numpy", "numba", "pyarrow"} <= set(first["versions"])
    assert first["started"] <= first["ended"]
    runs = {json.loads(path.read_text())["run"] for path in (tmp_path / "_manifest").iterdir()}
    assert runs == {first["id"], second["id"]}


def test_lines_show_progress_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    execute(make_plan(tmp_path, [{}, {"fail": [0]}]))
    shown = capsys.readouterr().err
    assert "compiling 2 designs" in shown
    assert "failed: ValueError: cell 1 cannot do replica 0" in shown
    assert "4/4 rows, 1 failed" in shown


def test_only_what_is_not_compiled_yet_is_said_to_be_compiled(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    execute(make_plan(tmp_path / "some", [{"compiled": 1}, {}]))
    assert "compiling 1 of 2 designs" in capsys.readouterr().err
    execute(make_plan(tmp_path / "none", [{"compiled": 1}, {"compiled": 1}]))
    assert "compiling" not in capsys.readouterr().err


def test_runners_have_the_methods_of_the_protocol() -> None:
    wanted = {name for name in vars(runners.Runner) if not name.startswith("_")}
    assert wanted <= set(dir(SerialRunner))


def test_a_plan_can_be_simulated_without_a_folder(tmp_path: Path, whole: dict) -> None:
    plan = make_plan(tmp_path / "never", [{}] * 8, replicas=3)
    order = [("cell_key", "ascending"), ("replica", "ascending")]
    for table, found in simulate_plan([plan]).items():
        assert found.sort_by(order).equals(whole[table])
    assert not (tmp_path / "never").exists()
    with pytest.raises(ValueError, match="cannot do replica 0"):
        simulate_plan([make_plan(tmp_path, [{"fail": [0]}])])


# Stopping: in a process of its own, in which lanes send signals to it.

SCRIPT = """
import json, resource, signal, sys
from sweep_fakes import make_plan
from kmemexp.sweep.execute import execute
given = json.loads(sys.argv[1])
if "largest" in given:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (given["largest"], resource.RLIM_INFINITY))
plan = make_plan(given["root"], given["configs"], replicas=3, cluster=given["cluster"], limits=given.get("limits", {}))
print(json.dumps(execute(plan)))
"""


def run(root: Path, configs: list[dict], batch_s: float = 0.6) -> subprocess.CompletedProcess:
    return run_given({"configs": configs, "root": str(root), "cluster": {"runner": "serial", "batch_s": batch_s}})


def run_given(given: dict) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(given)],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def trouble(*numbers: int) -> list[dict]:
    return [{}] * 4 + [{"signals": [1], "numbers": list(numbers)}] + [{}] * 3


def as_if_nothing_had_been(root: Path) -> dict:
    """Tables of the resumed run with the configuration of the cell that made trouble put back."""
    found = tables(root)
    df = found["metrics"].to_pandas()
    clean = make_cells([{}] * 8).set_index("cell_key").config
    df["config"] = df.cell_key.map(clean)
    schema = SCHEMAS["metrics"]
    return found | {"metrics": type(found["metrics"]).from_pandas(df, schema, preserve_index=False).cast(schema)}


def test_ctrl_c_finishes_what_is_in_work_and_says_how_to_go_on(tmp_path: Path, whole: dict) -> None:
    first = run(tmp_path / "r", trouble(signal.SIGINT))
    assert first.returncode == 0, first.stderr
    done, failed, skipped, interrupted, *_ = json.loads(first.stdout)
    assert (failed, skipped, interrupted) == (0, 0, True)
    assert 12 < done < 24
    assert (4, 1) in {(int(k, 16), r) for k, r in Store(str(tmp_path / "r")).done()}  # the lane that was in work
    assert f"interrupted: {done} of 24 rows are in" in first.stderr
    assert "To go on from there:" in first.stderr
    assert json.loads((tmp_path / "r" / "_run.json").read_text())["runs"][-1]["outcome"] == "interrupted"
    again = run(tmp_path / "r", trouble())
    assert json.loads(again.stdout)[:4] == [24 - done, 0, done, False]
    assert same(as_if_nothing_had_been(tmp_path / "r"), whole)


def test_a_second_ctrl_c_gives_up_what_is_in_work(tmp_path: Path) -> None:
    first = run(tmp_path / "r", trouble(signal.SIGINT, signal.SIGINT))
    assert first.returncode == 0, first.stderr
    done, *_, interrupted = json.loads(first.stdout)[:4]
    assert interrupted
    assert (4, 1) not in {(int(k, 16), r) for k, r in Store(str(tmp_path / "r")).done()}
    assert json.loads(run(tmp_path / "r", trouble()).stdout)[:4] == [24 - done, 0, done, False]
    assert len(pd.read_parquet(tmp_path / "r")) == 24


def test_the_grace_period_ends_what_is_in_work(tmp_path: Path) -> None:
    configs = [{}] * 4 + [{"signals": [1], "numbers": [signal.SIGTERM], "stay": [1]}] + [{}] * 3
    given = {"configs": configs, "root": str(tmp_path), "cluster": {"runner": "serial", "batch_s": 0.6, "grace_s": 0.3}}
    ended = run_given(given)
    done, failed, *_, interrupted, _, _, by = json.loads(ended.stdout)
    assert (failed, interrupted, by) == (0, True, signal.SIGTERM), ended.stderr
    assert 0 < done < 24
    assert len(pd.read_parquet(tmp_path)) == done


def test_a_loop_in_a_kernel_of_this_process_is_a_failed_row_of_the_next_run(tmp_path: Path) -> None:
    configs = [{}] * 2 + [{"poison": [1], "how": "loop in a kernel"}] + [{}]
    given = {"configs": configs, "root": str(tmp_path), "cluster": {"runner": "serial"}, "limits": {"seconds": 1.5}}
    ended = run_given(given)
    assert ended.returncode == 2, ended.stderr
    assert "cannot be stopped within this process" in ended.stderr
    again = run_given(given)
    done, failed, skipped, *_ = json.loads(again.stdout)
    assert (done + skipped, failed) == (11, 1)


def test_a_full_disk_ends_a_run_with_a_message_and_it_goes_on_later(tmp_path: Path, whole: dict) -> None:
    """The limit on the size of files stands in for a disk: some files do not fit."""
    root = tmp_path / "r"
    given = {"configs": [{}] * 8, "root": str(root), "cluster": {"runner": "serial", "batch_s": 0.6}}
    most = max(path.stat().st_size for path in (tmp_path / "whole" / "data").iterdir())
    ended = run_given(given | {"largest": most // 2})
    assert ended.returncode == 1
    assert "cannot write to the results folder" in ended.stderr
    done = len(Store(str(root)).done()) if list(root.glob("_manifest/*")) else 0
    assert json.loads(run_given(given).stdout)[:3] == [24 - done, 0, done]
    assert same(tables(root), whole)


def test_a_killed_run_resumes(tmp_path: Path, whole: dict) -> None:
    first = run(tmp_path / "r", trouble(signal.SIGKILL))
    assert first.returncode == -signal.SIGKILL
    done = len(Store(str(tmp_path / "r")).done())
    assert 0 < done < 24
    assert len(pd.read_parquet(tmp_path / "r")) == done
    again = run(tmp_path / "r", trouble())
    assert json.loads(again.stdout)[:4] == [24 - done, 0, done, False]
    assert same(as_if_nothing_had_been(tmp_path / "r"), whole)
