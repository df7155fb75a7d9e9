"""The compiled-code cache: what is shared, what is not, and what an edit does."""

import inspect
import os
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.compiler import DefaultPassBuilder
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering
from numba.np import arrayobj

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

    def map_free(st, map_no, addr):
        return 0

    with pytest.raises(
        TypeError, match=r"map_free takes \(st, map_no, addr\), must take \(st, map_no, addr, nbytes, cpu\)"
    ):
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


# Canaries: what kmemexp/jit.py reaches into, and what it gets by that. Where one fails, Numba has moved something.


def moved(what: str) -> str:
    return f"Numba {numba.__version__} is not as kmemexp/jit.py knows it: {what}"


compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: nothing is compiled")


def test_numba_still_has_what_is_replaced_in_it() -> None:
    index = getattr(arrayobj, "fix_integer_index", None)
    assert index, moved("numba.np.arrayobj.fix_integer_index is gone, which looks for negative indices")
    takes = list(inspect.signature(index).parameters)
    ours = [name.lstrip("_") for name in inspect.signature(jit._plain_index).parameters]
    assert takes == ours, moved(f"fix_integer_index takes {takes}, `_plain_index` takes {ours}")
    assert "fix_integer_index" in arrayobj.basic_indexing.__code__.co_names, moved(
        "basic_indexing does not call fix_integer_index by that name, so that replacing it changes nothing"
    )
    assert callable(getattr(Lower, "pre_lower", None)), moved("Lower.pre_lower is gone, where `noinline` is set")
    assert isinstance(getattr(NativeLowering, "lowering_class", None), property), moved(
        "NativeLowering has no property `lowering_class`, by which the lowering of outlined kernels is chosen"
    )
    source = inspect.getsource(DefaultPassBuilder.define_nopython_pipeline)
    source += inspect.getsource(DefaultPassBuilder.define_nopython_lowering_pipeline)
    assert "NativeLowering" in source, moved("the pipeline has no NativeLowering that could be replaced")


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Decorate a function with nothing in the cache: one function compiled in two ways would load itself."""

    def decorate(decorator: Callable, function: Callable) -> Callable:
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / decorator.__name__))
        return decorator(function)

    return decorate


@compiled
def test_a_dispatcher_still_has_what_is_replaced_in_it(fresh, tmp_path) -> None:
    dispatcher = fresh(jit.entry, successor)
    template = getattr(dispatcher, "get_call_template", None)
    assert template, moved("a dispatcher has no get_call_template, where literal types are dropped")
    takes = list(inspect.signature(template).parameters)
    assert takes == ["args", "kws"], moved(f"get_call_template takes {takes}")
    index = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    assert index, moved("a cached dispatcher has no _cache._cache_file")
    for name in ("_index_path", "_load_index", "_save_index"):
        assert hasattr(index, name), moved(f"the cache's index has no {name}")
    assert str(tmp_path) in index._index_path, moved("CACHE_DIR is not read when a function is decorated")


def element(a, i):
    return a[i]


@compiled
@pytest.mark.parametrize("compile_as", [jit.kernel, jit.outlined])
def test_a_kernel_takes_an_index_as_it_is(compile_as, fresh) -> None:
    behind = np.arange(5)[1:]
    assert fresh(compile_as, element)(behind, -1) == 0, moved("kernels count negative indices from the end again")
    assert fresh(jit.entry, element)(behind, -1) == 4, moved("an entry does not count them so")


@compiled
def test_an_outlined_kernel_is_not_inlined(fresh) -> None:
    outlined, inlined = fresh(jit.outlined, successor), fresh(jit.kernel, successor)
    assert outlined(1) == inlined(1) == 2
    assert "noinline" in attributes(outlined), moved("`noinline` does not reach LLVM")
    assert "alwaysinline" in attributes(inlined), moved("`forceinline` does not reach LLVM")


def llvm(dispatcher) -> str:
    """LLVM's text of what was compiled."""
    return "\n".join(dispatcher.inspect_llvm().values())


def attributes(dispatcher) -> str:
    """LLVM's attributes of a compiled function, without those of its wrappers for Python and C."""
    text = llvm(dispatcher)
    (group,) = re.findall(r"^define [^@]*@_ZN(?!7cpython).*successor.* (#\d+) \{", text, re.MULTILINE)
    return re.search(rf"^attributes {group} = \{{(.*)\}}", text, re.MULTILINE)[1]


@compiled
def test_a_kernel_is_compiled_once_for_all_constants(fresh) -> None:
    inner = fresh(jit.kernel, successor)

    def outer():
        return inner(1) + inner(2)

    assert numba.njit(outer)() == 5
    assert len(inner.signatures) == 1, moved(f"a kernel is compiled for each constant: {inner.signatures}")


@compiled
def test_a_kernel_counts_no_references(fresh) -> None:
    kernel = fresh(jit.kernel, element)
    kernel(np.arange(5), 1)
    assert "NRT_" not in llvm(kernel), moved("the option `_nrt` does not turn reference counting off")
