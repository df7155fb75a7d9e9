"""Every file in benchmarks/ runs, at its smallest size, and says something sane. How fast things are is not tested."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numba
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
RATE = r"[1-9][\d.]*|0\.\d*[1-9]\d*"
SAYS = {
    "bench_c": rf"buckets filetree: C ({RATE}) M operations/s; kmemexp ({RATE}) M .* ratio ({RATE})|no C compiler",
    "bench_compile": rf"1\. \w+ +({RATE}) s CPU to compile or load, ({RATE}) s from start to the first operation",
    "bench_engine": rf"mail2003_bare +1 CPUs +({RATE}) M operations/s .* [\d,]+ operations, ({RATE}) events each",
    "bench_memory": rf"linux_6_18 +process +({RATE}) MiB: modules +({RATE}) MiB, .*lane +({RATE}) MiB; touched +[1-9]",
    "bench_plan": rf"plan of 400 cells: ({RATE}) s wall, ({RATE}) s CPU",
    "bench_replay": rf"mail2003_bare +({RATE}) M operations/s .* after ({RATE}) s",
    "bench_series": rf"mail2003_bare +operations +({RATE}) ms, series [+-][\d.]+%, and snapshots [+-][\d.]+%",
    "bench_simpy": rf"SimPy 4\.\S+: ({RATE}) M operations/s; kmemexp: ({RATE}) M, .* ratio [1-9]",
    "bench_size": rf"mail2003_bare, map entries +100: ({RATE}) M/s x1\.0, 1,000: ({RATE}) M/s",
    "bench_store": r"[1-9][\d,]* bytes per lane, compacted",
    "bench_sweep": r"empty cells, ray, beyond the start: [\d,]+ cells/s",
    "bench_traces": rf"stats of few\.txt\.zst: ({RATE}) s, ({RATE}) GiB",
    "bench_workload": rf"overlay of two copies +[1-9][\d,]* operations .* ({RATE}) M/s",
}
NEEDS = {"bench_simpy": "simpy"}
ONE_CELL = """
import sys
sys.path.insert(0, "benchmarks")
import digest
digest.cells = lambda few: iter([["design=mail2003_bare", "workload=server2003", "workload.scale=0.01"]])
for before in sys.argv[1:] or [""]:
    sys.argv[1:] = ["--against", before] if before else []
    try:
        digest.main()
    except SystemExit as end:
        print(end.code)
"""


def runner() -> ModuleType:
    """`benchmarks/run.py` as a module."""
    spec = importlib.util.spec_from_file_location("benchmarks_run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*words: str, code: int = 0) -> str:
    """Output of a Python process in the checkout."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


def test_every_benchmark_is_known() -> None:
    assert {path.stem for path in FOLDER.glob("bench_*.py")} == SAYS.keys()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SAYS)
def test_a_benchmark_runs(name: str) -> None:
    if (needed := NEEDS.get(name)) and not importlib.util.find_spec(needed):
        pytest.skip(f"{name} compares with {needed}, which is not installed: pip install -e '.[test]'")
    said = run(f"benchmarks/{name}.py", "--few")
    assert re.search(SAYS[name], said), said


@pytest.mark.slow
def test_disturbed_sweeps_end_like_undisturbed_ones() -> None:
    said = run("benchmarks/reliability.py", "--few")
    assert said.count("1 trials, all the same in the end") == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_are_run_by_one_that_writes_what_they_say(tmp_path: Path) -> None:
    said = run("benchmarks/run.py", "--few", "--only", "store,workload", "--json", str(tmp_path / "told.json"))
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["machine"]["cpus"] == os.cpu_count()
    assert told["machine"]["numba"] == numba.__version__
    assert {name.partition(" / ")[0].split()[0] for name in told["figures"]} == {"store", "workload"}
    assert all(value >= 0 for value in told["figures"].values())
    assert len(said.splitlines()) == len(told["figures"])


def test_figures_are_read_with_what_they_are_of() -> None:
    text = "slab  4 CPUs  5.90 M operations/s (best 6.09), 2.37 events each, machine 4.5 MiB\n1,234 bytes per lane\n"
    assert runner().figures("engine", text) == {
        "engine / slab 4 CPUs [M operations/s]": 5.9,
        "engine / slab 4 CPUs / best 6.09), 2.37 events each, machine [MiB]": 4.5,
        "engine [bytes per lane]": 1234.0,
    }


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout: there are no revisions to compare")
def test_a_revision_that_was_faster_is_named(monkeypatch, tmp_path: Path) -> None:
    module = runner()
    slow, fast = "engine / slab [M operations/s]", "compile / slab [s CPU]"

    def measure(tree: Path, benchmark: str, few: bool) -> dict[str, float]:
        here = tree == ROOT
        return {slow: 9.0 if here else 10.0, fast: 20.0 if here else 30.0}

    monkeypatch.setattr(module, "run", measure)
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "engine", "--against", "HEAD", "--json", str(tmp_path / "j")])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == f"worse than before by more than 5 %:\n  {slow}"
    assert json.loads((tmp_path / "j").read_text())["ratios"] == {slow: [0.9] * 3, fast: [1.5] * 3}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_digest_of_a_cell_is_the_same_twice_and_says_where_it_is_not(tmp_path: Path) -> None:
    first, code = run("-c", ONE_CELL).splitlines()
    assert re.fullmatch(r"([0-9a-f]{12} ){5}design=\S+ .*", first)
    assert code == "0"
    before = tmp_path / "before.txt"
    before.write_text(f"{first}\n")
    other = tmp_path / "other.txt"
    other.write_text(before.read_text().replace("design=", "0"))
    same, fine, changed, bad = run("-c", ONE_CELL, str(before), str(other)).splitlines()
    assert (same, fine, bad) == (first, "0", "2")
    assert changed.startswith("CHANGED ")
