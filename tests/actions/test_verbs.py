"""Actions: each is a file that says what it does, reads what stands, and writes only what it is for."""

import inspect
import json
import pkgutil

import pytest
from in_process import call

from kmemexp import actions
from kmemexp.actions import finding
from kmemexp.config.checks import ACTIONS
from kmemexp.errors import ConfigError, StoreError
from kmemexp.planning.plan import plan_from

SHARED = {"again", "exit_codes", "finding", "standing", "witnesses"}


def test_every_action_is_a_file_and_every_file_an_action():
    assert {m.name for m in pkgutil.iter_modules(actions.__path__)} - SHARED == set(ACTIONS)
    for name in ACTIONS:
        act = finding.find(name)
        assert inspect.getdoc(act)
        assert list(inspect.signature(act).parameters) == ["plans", "loader"]


def test_an_unknown_action_lists_what_there_is():
    with pytest.raises(ConfigError, match=r"action=runn: unknown .did you mean run.*validate"):
        plan_from(["action=runn"])


SMALL = ["design=freebsd4,dragonfly_2003oct", "sweep.name=small", "sweep.reps.max=2"]


class FakeStore:
    """Results of a plan of which two rows are done and one failed, with one row of another plan."""

    rows: tuple = ()

    def __init__(self, root, *, write=False):
        if not self.rows:
            raise StoreError(f"no results in {root}")

    def status(self, key, replica):
        return dict(self.rows).get((key, replica))

    def counts(self):
        statuses = [status for _, status in self.rows] + ["done"]
        return {status: statuses.count(status) for status in ("done", "failed")}

    def drivers(self):
        return {}

    def compact(self):
        return 7

    def close(self):
        pass

    def export(self, folder):
        return ["metrics.csv"]


@pytest.fixture
def store(runs, here, monkeypatch):
    (plan,) = plan_from(SMALL)
    keys = plan.cells["cell_key"].tolist()
    FakeStore.rows = (((keys[0], 0), "done"), ((keys[0], 1), "done"), ((keys[1], 0), "failed"), ((keys[1], 99), "done"))
    monkeypatch.setattr("kmemexp.store.store.Store", FakeStore)
    (here / "results" / "small").mkdir(parents=True)
    yield
    FakeStore.rows = ()


def test_plan_says_what_stands(store, runs, monkeypatch, capsys):
    assert call(monkeypatch, *SMALL, "action=plan") == 0
    out = capsys.readouterr().out
    assert "2 done, 1 failed, 1 missing" in out
    assert "baseline" in out
    assert runs == []


def test_plan_cuts_nothing_at_80_columns(store, runs, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    axes = ("machine.cpus=1,2", "machine.kva_bytes=192MiB,256MiB", "objects.params.dfly_slab.release_threshold=2,32")
    assert call(monkeypatch, "design=dragonfly_2003oct", "sweep.name=small", *axes, "action=plan") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80, out
    assert "…" not in out
    assert "release_threshold 32" in out


def test_plan_and_status_as_json(store, runs, monkeypatch, capsys):
    assert call(monkeypatch, *SMALL, "action=plan", "output=json") == 0
    assert json.loads(capsys.readouterr().out)["facts"]["axis design"] == "freebsd4, dragonfly_2003oct"
    assert call(monkeypatch, *SMALL, "action=status", "output=json") == 2
    assert json.loads(capsys.readouterr().out)["facts"]["failed"] == "1"


def test_plan_of_a_folder_that_cannot_be_read(runs, here, monkeypatch, capsys):
    (here / "results" / "small").mkdir(parents=True)
    monkeypatch.setattr("kmemexp.store.store.Store", FakeStore)
    assert call(monkeypatch, *SMALL, "action=plan") == 0
    out = capsys.readouterr().out
    assert "0 done, 0 failed, 4 missing" in out
    assert "no results in" in out


def test_status(store, monkeypatch, capsys):
    assert call(monkeypatch, *SMALL, "action=status") == 2
    assert "missing" in capsys.readouterr().out


def test_report_compact_export(store, runs, monkeypatch, capsys):
    assert [call(monkeypatch, *SMALL, f"action={name}") for name in ("report", "compact", "export")] == [0] * 3
    assert runs.reported == ("small",)
    assert "7 files" in capsys.readouterr().out
