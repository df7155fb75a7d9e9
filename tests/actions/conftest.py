"""An empty folder, and runs that are made up: shared by the tests of the command line and of its actions."""

from pathlib import Path

import pytest

from kmemexp.sweep import execute
from kmemexp.sweep.execute import Outcome


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(here, monkeypatch) -> list:
    """Plans that were run, in place of running them; set `runs.outcome` for another ending."""

    class Runs(list):
        outcome = Outcome(1, 0, 0, False, 0.1, "")
        reported: tuple = ()

    seen = Runs()

    def fake(plan, *, progress=None, elsewhere=(), only=None):
        seen.append(plan)
        return seen.outcome

    def finish(plan, *, anew=False, witnesses=None):
        seen.reported = (*seen.reported, plan.name)

    monkeypatch.setattr(execute, "execute", fake)
    monkeypatch.setattr("kmemexp.report.ending.finish", finish)
    return seen
