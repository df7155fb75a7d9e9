"""The compiled-code cache: what is shared, what is not, and what an edit does."""

import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from kmemexp import jit

ROOT = Path(__file__).resolve().parents[1]

DRIVER = """
    from kmemexp.jit import template

    def work(x):
        raise NotImplementedError

    @template
    def twice(x):
        return work(work(x))

    @template
    def run(x, n):
        for _ in range(n):
            x = twice(x)
        return x
"""
FACTS = "STEP = 1\n"
PART_ADD = """
    from kmemexp.jit import kernel
    from toy.facts import STEP

    @kernel
    def work(x):
        return x + STEP
"""
PART_DOUBLE = """
    from kmemexp.jit import kernel

    @kernel
    def work(x):
        return x * 2
"""
MAIN = """
    import sys
    from kmemexp import jit
    from toy import add, double, driver
    out = []
    for name, part in (("add", add), ("double", double)):
        run = jit.bind(driver.run, {"work": part.work}, name)
        out.append(f"{run(3, 2)}")
        hits = sum(run.stats.cache_hits.values()) if hasattr(run, "stats") else 0
        out.append(f"{hits}")
    print(" ".join(out))
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A package of two tiny parts and a driver, with a cache of its own."""
    folder = tmp_path / "toy"
    folder.mkdir()
    files = {"driver": DRIVER, "facts": FACTS, "add": PART_ADD, "double": PART_DOUBLE, "__init__": "", "main": MAIN}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return tmp_path


def play(folder: Path, **env: str) -> list[str]:
    path = os.pathsep.join([str(folder), str(ROOT)])
    given = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(folder / "cache"), **env}
    command = [sys.executable, "-m", "toy.main"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.split()


def test_two_designs_on_one_template_do_not_share_code_and_a_second_process_compiles_nothing(toy: Path) -> None:
    assert play(toy) == ["7", "0", "48", "0"]
    assert play(toy) == ["7", "1", "48", "1"]


def test_editing_a_constant_in_another_file_recompiles_only_the_design_that_reaches_it(toy: Path) -> None:
    play(toy)
    (toy / "toy" / "facts.py").write_text("STEP = 10\n")
    assert play(toy) == ["43", "0", "48", "1"]
    (toy / "toy" / "facts.py").write_text("STEP = 1\n")
    assert play(toy) == ["7", "1", "48", "1"]


def test_flags_that_change_the_code_have_caches_of_their_own(toy: Path) -> None:
    play(toy)
    assert play(toy, NUMBA_BOUNDSCHECK="1")[1] == "0"
    assert play(toy)[1] == "1"


def test_without_compilation_the_same_functions_run_as_plain_python(toy: Path) -> None:
    assert play(toy, NUMBA_DISABLE_JIT="1") == ["7", "0", "48", "0"]


def test_a_cache_folder_that_cannot_be_made_is_replaced_by_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(jit.tempfile, "gettempdir", lambda: str(tmp_path))
    assert jit.cache_root().parent == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert jit.cache_root() == tmp_path / "cache" / "kmemexp"


def test_a_part_with_other_parameters_is_refused_by_name() -> None:
    from kmemexp.sim import replay

    def map_free(st, m, addr):
        return 0

    with pytest.raises(TypeError, match=r"map_free takes \(st, m, addr\), must take \(st, m, addr, nbytes, cpu\)"):
        jit.bind(replay.replay, {"map_free": map_free}, "wrong")


def test_an_index_that_names_types_which_are_not_here_is_empty_until_it_is_written_anew(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    index = jit.entry(successor)._cache._cache_file
    index._save_index({gone_module().Part: "file.nbc"})
    assert list(index._load_index().values()) == ["file.nbc"]
    monkeypatch.delitem(sys.modules, "a_part_of_somebody_s")
    assert index._load_index() == {}
    index._save_index({"signature": "other.nbc"})
    assert index._load_index() == {"signature": "other.nbc"}


def successor(x):
    return x + 1


def gone_module() -> types.ModuleType:
    """A module that is there only while something is pickled."""
    module = types.ModuleType("a_part_of_somebody_s")
    module.Part = type("Part", (), {"__module__": module.__name__})
    sys.modules[module.__name__] = module
    return module
