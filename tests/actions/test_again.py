"""A command with nothing left to do is answered without planning, and only as long as nothing has changed."""

import os
import shutil
from pathlib import Path

import in_process
import numpy as np
import pytest

import kmemexp.command_line
from kmemexp.actions import again
from kmemexp.lane.model import Lane
from kmemexp.metrics import NAMES, SERIES
from kmemexp.sweep import worker

WORDS = ("design=freebsd4,mail2003_bare", "workload=mine", "cluster=serial", "sweep.reps.max=2", "report=false",
         "--config-dir", "own")  # fmt: skip


def lanes(config: dict, replicas: tuple[int, ...]) -> list[Lane]:
    """Lanes that take no time."""
    values = np.arange(len(NAMES)) + float(len(config["design"]["name"]))
    return [Lane(r, values * (r + 1), "", np.ones((1, len(SERIES)), np.int64), [], ()) for r in replicas]


@pytest.fixture
def own(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configuration files and a cache of one's own, and cells that take no time."""
    worker.find.cache_clear()
    monkeypatch.setattr("kmemexp.lane.simulate_lanes", lanes)
    monkeypatch.setattr("kmemexp.lane.warm", lambda *_: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    folder = here / "own" / "workload"
    folder.mkdir(parents=True)
    conf = Path(__file__).parents[2] / "conf" / "workload"
    shutil.copy(conf / "server2003.yaml", folder / "mine.yaml")
    yield folder
    worker.find.cache_clear()
    again._started.clear()


def ran(monkeypatch: pytest.MonkeyPatch, *words: str) -> bool:
    """Whether this command would be planned and run; it is not."""
    asked = []
    with monkeypatch.context() as patched:
        patched.setattr(kmemexp.command_line, "main", lambda: asked.append(True))
        assert in_process.call(patched, *words) == 0
    return bool(asked)


def test_what_was_printed_is_printed_again_until_something_changes(
    own: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert in_process.call(monkeypatch, *WORDS) == 0
    first = capsys.readouterr().out
    assert "Against freebsd4" in first
    assert not ran(monkeypatch, *WORDS)
    assert capsys.readouterr() == (first, "")
    assert not ran(monkeypatch, *WORDS)
    for others in (WORDS[1:], (*WORDS, "seed=1"), (*WORDS, "--verbose"), WORDS[:-2]):
        assert ran(monkeypatch, *others)
    with monkeypatch.context() as patched:
        patched.setenv("HOME", str(here))
        assert ran(patched, *WORDS)
        patched.setenv("HYDRA_FULL_ERROR", "1")
        assert ran(patched, *WORDS)
    assert not ran(monkeypatch, *WORDS)

    file = own / "mine.yaml"
    before = file.stat()
    file.write_text(file.read_text().replace("0.5", "0.6", 1))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert ran(monkeypatch, *WORDS)
    assert in_process.call(monkeypatch, *WORDS) == 0  # other cells; noted anew
    assert not ran(monkeypatch, *WORDS)
    (own.parent / "design").mkdir()
    (own.parent / "design" / "new.yaml").touch()  # glob() would find it
    assert ran(monkeypatch, *WORDS)


@pytest.mark.parametrize("harm", ["flip", "lose", "stage", "note"])
def test_damage_is_found_as_without_a_note(
    own: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, harm: str
) -> None:
    assert in_process.call(monkeypatch, *WORDS) == 0
    assert not ran(monkeypatch, *WORDS)
    first = capsys.readouterr().out
    (root,) = (here / "results").iterdir()
    if harm == "flip":
        file = next((root / "data").glob("*.parquet"))
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif harm == "lose":
        next((root / "_series").glob("*.parquet")).unlink()
    elif harm == "stage":
        (root / "_staging" / "data").mkdir(parents=True, exist_ok=True)
        (root / "_staging" / "data" / "part-0-0-0-0.parquet").touch()
    else:
        (note,) = (here / "cache" / "kmemexp" / "again").iterdir()
        note.write_text(note.read_text().replace("freebsd4", "freebsd5"))
    assert ran(monkeypatch, *WORDS)
    code = in_process.call(monkeypatch, *WORDS)
    out, err = capsys.readouterr()
    if harm in ("flip", "lose"):
        assert code == 1
        assert "action=repair" in err
        assert ran(monkeypatch, *WORDS)
    else:
        assert (code, out) == (0, first[: len(out)])


@pytest.mark.parametrize(
    ("words", "noted"),
    [
        (("seed=3",), True),
        (("hydra.verbose=true",), False),
        (("seed=shuffle(1,2)",), False),
        (("sweep.reps.min=10", "sweep.reps.max=10", "+sweep.reps.target.held_peak_bytes=1%"), False),
        (("workload.path=filetree", "workload=trace"), True),
        (("workload.path=copy.parquet", "workload=trace"), False),
        (("workload=told",), False),
    ],
)
def test_nothing_is_noted_of_what_cannot_be_seen(
    own: Path, here: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], *, noted: bool
) -> None:
    traces = Path(kmemexp.command_line.__file__).parent / "data" / "traces"
    shutil.copy(traces / "filetree.parquet", here / "copy.parquet")
    if "workload=told" in words:
        text = (own / "mine.yaml").read_text()
        (own / "told.yaml").write_text(text.replace("name: server2003", "name: ${oc.env:CALLED}", 1))
        monkeypatch.setenv("CALLED", "told")
    words = (*WORDS, *words)
    assert in_process.call(monkeypatch, *words) == 0
    assert ran(monkeypatch, *words) is not noted


def test_failed_rows_are_not_noted(own: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmemexp.lane.simulate_lanes", lambda *_: 1 / 0)
    assert in_process.call(monkeypatch, *WORDS) == 2
    assert ran(monkeypatch, *WORDS)


def test_every_change_of_a_folder_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b"
    file.parent.mkdir()
    file.write_text("one")
    seen = [again._tree(tmp_path)]
    assert again._tree(tmp_path) == seen[0]

    def see() -> None:
        now = again._tree(tmp_path)
        assert now not in seen
        seen.append(now)

    before = file.stat()
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    see()
    other = tmp_path / "a" / "c"
    other.write_text("two")
    see()
    other.replace(file)
    see()
    file.rename(file.with_name("d"))
    see()
    (tmp_path / "e").symlink_to(tmp_path / "a")
    see()
    (tmp_path / "a" / "d").unlink()
    see()
    (tmp_path / "a" / "up").symlink_to(tmp_path / "a")
    with pytest.raises((ValueError, OSError)):
        again._tree(tmp_path)
