"""Lists of commands from the field and what must come out of each: a plan, or one message, exit 1, nothing written."""

import re
import shutil
from pathlib import Path

import pytest
from in_process import call

CASES = Path(__file__).parents[3] / "shared" / "cases"
TRACES = CASES.parent / "traces"
NOT_PLANNED = ("s3://", "cluster.address", "foreign", "rootfile", "/proc/", "+experiment", "foo://", "--info")
"""What only a run finds out, or needs a process of its own; other tests have it."""
LATER = ("machine.kva_bytes=1TiB",)
"""What no machine knows yet: how many bits its kernel has."""

SWEEPS = {
    "b_unknownkey": "axis: {seed: [1, 2]}\n",
    "b_nopackage": "# @package _global_\naxes: {seed: [1, 2]}\n",
    "b_dupaxis": "axes:\n  seed: [1, 2]\n  seed: [3]\n",
    "b_emptyaxis": "axes: {seed: []}\n",
    "b_ziplen": "zip: [{seed: [1, 2], machine.cpus: [1]}]\n",
    "b_predname": "axes: {seed: [1, 2]}\nexclude: ['machine.cpu == 1']\n",
    "b_predvalue": "axes: {design: [freebsd4, dragonfly_2003oct]}\nexclude: [\"design == 'freebsd9'\"]\n",
    "b_whennoaxis": "axes: {seed: [1, 2]}\nwhen: {machine.cpus: 'seed == 1'}\n",
    "b_metric": "axes: {seed: [1, 2]}\nmetrics: [nope]\n",
    "b_baseline2": "axes: {design: [freebsd4, dragonfly_2003oct]}\nbaseline: {design: linux_slub}\n",
    "b_syntax": "axes: {seed: [1, 2\n",
    "b_scalaraxis": "axes: {seed: 3}\n",
}
DESIGN = "# @package _global_\ndefaults: [override /objects: synt, _self_]\ndesign: {name: broken, title: Broken}\n"
OBJECTS = {
    "synt": ("malloc: synt\nzone: zalloc\nmbuf: mbuf\n", "def alloc(:\n"),
    "empt": ("malloc: empt\nzone: zalloc\nmbuf: mbuf\n", ""),
}


def commands(name: str) -> list:
    """Rows of a list: (words, what must come out)."""
    if not (CASES / name).is_file():
        return [pytest.param([], "", marks=pytest.mark.skip(f"the lists of cases are not here ({CASES})"))]
    rows = re.findall(r"^\| (\d+) \| `([^`]+)`[^|]* \|.*\| ([^|]+) \|$", (CASES / name).read_text(), re.MULTILINE)
    kept = [row for row in rows if not any(sign in row[1] for sign in (*NOT_PLANNED, *LATER))]
    return [pytest.param(text.split(), right, id=f"{number} {text}") for number, text, right in kept]


@pytest.fixture
def given(tmp_path, monkeypatch) -> Path:
    """The folder that the commands call DIR."""
    folder = tmp_path / "dir"
    for name, text in SWEEPS.items():
        _write(folder / "conf_bad" / "sweep" / f"{name}.yaml", text)
    for name, (yaml, source) in OBJECTS.items():
        _write(folder / "conf_bad" / "objects" / f"{name}.yaml", yaml)
        _write(folder / "conf_bad" / "allocators" / f"{name}.py", source)
    _write(folder / "conf_bad" / "design" / "broken.yaml", DESIGN)
    _write(folder / "my" / "objects" / "page_each.yaml", "malloc: buckets\nzone: zalloc\nmbuf: mbuf\n")
    (folder / "files" / "dir.parquet").mkdir(parents=True)
    (folder / "files" / "rand.parquet").write_bytes(bytes(range(256)) * 9)
    _write(folder / "files" / "wrong.parquet", "not parquet\n")
    if (TRACES / "filetree.txt.zst").is_file():
        shutil.copy(TRACES / "filetree.txt.zst", folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setenv("NCPU", "2")
    monkeypatch.setenv("HOME", str(tmp_path))  # --shell-completion install writes there
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def play(monkeypatch, given, words) -> int:
    words = [word.replace("DIR", str(given)) for word in words]
    # Each sweep is planned by itself elsewhere (tests/planning/test_plan.py): some of them at once are enough.
    words = [word.replace("+sweep=glob(*)", "+sweep=glob(type*)") for word in words]
    # When the lists were written, action=validate did no more than action=plan does now.
    words = ["action=plan" if word == "action=validate" else word for word in words]
    flags = ("--version", "--cfg", "--hydra-help", "--shell-completion")
    if not any(word.startswith(("action=", *flags)) for word in words):
        words.append("action=plan")
    return call(monkeypatch, *words)


@pytest.mark.parametrize(("words", "right"), commands("bad_inputs.md"))
def test_bad_input(words, right, given, monkeypatch, capsys):
    code = play(monkeypatch, given, words)
    out, err = capsys.readouterr()
    if right.startswith("accepted"):
        assert code == 0 or "no results" in err
        return
    if "or" in right.split() and code == 0:
        return
    assert code == 1
    assert (out, err.count("error: ")) == ("", 1)
    assert "Traceback" not in err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(("words", "right"), commands("hydra_commands.md"))
def test_hydra_command(words, right, given, monkeypatch, capfd):
    code = play(monkeypatch, given, words)
    out, err = capfd.readouterr()
    refused = right.startswith(("refused", "one line")) or right == "no effect on results; said or refused"
    assert code == (1 if refused else 0), err
    assert "Traceback" not in err
    if refused:
        assert err.strip()
    else:
        assert (out + err).strip()
