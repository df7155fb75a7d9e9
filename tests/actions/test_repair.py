"""`action=check` and `action=repair` as a user types them, on a small real sweep."""

from pathlib import Path

import pytest
from in_process import call

from kmemexp.store.store import Store

WORDS = (
    "design=freebsd4",
    "workload=idle",
    "sweep.reps.max=3",
    "cluster=serial",
    "progress=false",
    "cluster.batch_s=0.001",
    "sweep.name=mine",
)
FOLDER = "results/mine"


def test_check_and_repair(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert call(monkeypatch, *WORDS, "action=check") == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert call(monkeypatch, *WORDS) == 0
    before = Store(FOLDER).read().to_pandas()
    assert call(monkeypatch, *WORDS, "action=check") == 0
    assert "nothing wrong" in capsys.readouterr().out
    assert call(monkeypatch, *WORDS, "action=live") == 0
    assert "done" in capsys.readouterr().out
    path = next(Path(FOLDER, "_series").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    assert call(monkeypatch, *WORDS, "action=check") == 2
    shown = capsys.readouterr().out
    assert "1 damaged" in shown
    assert "action=repair" in shown
    assert call(monkeypatch, *WORDS, "action=repair") == 0
    assert "rows simulated again" in capsys.readouterr().out
    assert call(monkeypatch, *WORDS, "action=check") == 0
    assert call(monkeypatch, *WORDS, "action=repair") == 0
    assert Store(FOLDER).read().to_pandas().equals(before)
    Path(FOLDER, "_manifest/00000000.json").write_text("{")
    assert call(monkeypatch, *WORDS) == 1
    assert "action=repair" in capsys.readouterr().err
    assert call(monkeypatch, *WORDS, "action=repair") == 0
    assert Store(FOLDER).read().to_pandas().equals(before)
