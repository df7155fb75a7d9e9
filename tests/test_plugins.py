"""Parts from outside the package: found beside a user's yaml, known by their text, the same in every process."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from kmemexp.errors import ConfigError
from kmemexp.parts import outside

EXAMPLE = Path(__file__).parents[1] / "experiments" / "own_allocator"
SMALL = ["workload=server2003", "workload.scale=0.02", "sample.points=3", "progress=false"]


def python(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)


def kmemexp(folder: Path, root: Path, *args: str) -> subprocess.CompletedProcess:
    """A run in a process of its own: parts stay for as long as a process lives."""
    return python("-m", "kmemexp", "--config-dir", str(folder), f"store.root={root}", *SMALL, *args)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A copy of the example to change."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "mine"))


@pytest.mark.parametrize("more", [[], ["cost=haswell2015", "interrupts/sources=none"]], ids=["replay", "clock"])
def test_an_allocator_of_a_users_own_runs_in_a_sweep(tmp_path: Path, more: list[str]) -> None:
    ran = kmemexp(EXAMPLE, tmp_path, "design=freebsd4,eager_slab", "cluster=serial", *more)
    assert ran.returncode == 0, ran.stderr
    assert "eager_slab" in ran.stdout
    (folder,) = tmp_path.glob("adhoc-*")
    kept = list((folder / "_plugins" / "allocators").iterdir())
    assert [path.read_text() for path in kept] == [(EXAMPLE / "allocators" / "eager_slab.py").read_text()]


def test_another_text_is_another_cell(tmp_path: Path, mine: Path) -> None:
    assert kmemexp(mine, tmp_path, "design=eager_slab", "cluster=serial").returncode == 0
    source = mine / "allocators" / "eager_slab.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert kmemexp(mine, tmp_path, "design=eager_slab", "cluster=serial").returncode == 0
    (folder,) = tmp_path.glob("adhoc-*")  # the same settings
    rows = pd.read_parquet(folder, columns=["held_peak_bytes", "config"])
    one, two = rows["held_peak_bytes"]
    assert one == two
    assert len(json.loads(rows["config"][0])["objects"]["code"]["eager_slab"]) == outside.DIGITS


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("eager_slab", "import nowhere_at_all", "eager_slab.py: ModuleNotFoundError"),
        ("eager_slab", '"""Short."""', "there is no alloc(st, reg, i)"),
        ("buckets", '"""A name that is in use."""', "there is a built-in allocator called buckets"),
    ],
)
def test_what_is_wrong_with_a_users_file_is_said_in_one_line(
    tmp_path: Path, mine: Path, name: str, text: str, said: str
) -> None:
    (mine / "allocators" / f"{name}.py").write_text(text)
    ran = kmemexp(mine, tmp_path, "design=eager_slab", "action=plan")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_worker_elsewhere_takes_the_text_from_the_results_folder(tmp_path: Path) -> None:
    """A process whose cache is empty, as on another machine, gets the part through `read` alone."""
    text = (EXAMPLE / "allocators" / "eager_slab.py").read_text()
    config = {"objects": {"code": {"eager_slab": outside.digest_of(text)}}}
    (tmp_path / "part.py").write_text(text)
    script = f"""
import json, pathlib, importlib
from kmemexp.parts import outside
config = json.loads({json.dumps(json.dumps(config))})
asked = []
def read(path):
    asked.append(path)
    return pathlib.Path({str(tmp_path / "part.py")!r}).read_text()
outside.provide(config, read)
outside.provide(config, read)
print(asked, importlib.import_module("kmemexp.sim.allocators.eager_slab").LOCKS)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PATH": "", "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    stored = outside.stored("allocators", "eager_slab", outside.digest_of(text))
    assert ran.stdout == f"['{stored}'] ('adaptive',)\n"


def test_a_text_that_is_nowhere_is_an_error() -> None:
    config = {"maps": {"code": {"lost": "0" * outside.DIGITS}}}
    with pytest.raises(ConfigError, match="arena lost: its text is not in the results folder"):
        outside.provide(config)
