"""The compiled-code cache: what is shared, what is not, and what an edit does."""

import inspect
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pytest
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.codegen import CodeLibrary, CPUCodeLibrary, JITCodeLibrary
from numba.core.compiler import DefaultPassBuilder
from numba.core.lowering import Lower
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import NativeLowering
from numba.np import arrayobj

from kmemexp import jit
from kmemexp.jit import disk, pipeline, refs

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
    monkeypatch.setattr(disk.tempfile, "gettempdir", lambda: str(tmp_path))
    assert disk.cache_root().parent == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert disk.cache_root() == tmp_path / "cache" / "kmemexp"


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


# Canaries: what kmemexp/jit reaches into, and what it gets by that. Where one fails, Numba has moved something.


def moved(what: str) -> str:
    return f"Numba {numba.__version__} is not as kmemexp/jit knows it: {what}"


compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: nothing is compiled")


def test_numba_still_has_what_is_replaced_in_it() -> None:
    index = getattr(arrayobj, "fix_integer_index", None)
    assert index, moved("numba.np.arrayobj.fix_integer_index is gone, which looks for negative indices")
    takes = list(inspect.signature(index).parameters)
    ours = [name.lstrip("_") for name in inspect.signature(pipeline._plain_index).parameters]
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


def test_numba_s_libraries_still_have_what_is_replaced_in_them() -> None:
    for name in (
        "finalize", "_raise_if_finalized", "_ensure_finalized", "_optimize_final_module", "_finalize_final_module",
        "_get_module_for_linking", "enable_object_caching",
    ):  # fmt: skip
        assert callable(getattr(JITCodeLibrary, name, None)), moved(f"JITCodeLibrary has no {name}")
    source = inspect.getsource(CPUCodeLibrary) + inspect.getsource(CodeLibrary)
    for name in ("_final_module", "_linking_libraries", "_shared_module", "_reload_init", "_finalized"):
        assert f"self.{name} = " in source, moved(f"a CPUCodeLibrary has no {name}")
    lowering = inspect.getsource(NativeLowering.__mro__[1].run_pass)
    for text in ("if state.library is None", "flags.no_compile", "library._reload_init"):
        assert text in lowering, moved(f"the lowering pass does not say `{text}`")
    assert FunctionCache._impl_class is CompileResultCacheImpl, moved("FunctionCache stores in another way")
    assert callable(getattr(CPUDispatcher, "add_overload", None)), moved("a dispatcher has no add_overload")


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


def calls(kernel: Callable) -> Callable:
    """A function that Python calls and that calls a kernel: code of Numba's own, none of ours."""

    def call(*args):
        return kernel(*args)

    return numba.njit(call)


@compiled
@pytest.mark.parametrize("compile_as", [jit.kernel, jit.outlined])
def test_a_kernel_takes_an_index_as_it_is(compile_as, fresh) -> None:
    behind = np.arange(5)[1:]
    assert calls(fresh(compile_as, element))(behind, -1) == 0, moved(
        "kernels count negative indices from the end again"
    )
    assert fresh(jit.entry, element)(behind, -1) == 4, moved("an entry does not count them so")


@compiled
def test_an_outlined_kernel_is_not_inlined(fresh) -> None:
    outlined, inlined = fresh(jit.outlined, successor), fresh(jit.kernel, successor)
    assert calls(outlined)(1) == calls(inlined)(1) == 2
    assert "noinline" in attributes(outlined), moved("`noinline` does not reach LLVM")
    assert "alwaysinline" in attributes(inlined), moved("`forceinline` does not reach LLVM")


def added(row, table, i):
    row[i] += table[i, 1] + len(table)
    return row[i]


@compiled
def test_kernels_pass_addresses_and_shapes_and_return_what_they_return(fresh) -> None:
    kernel = fresh(jit.outlined, added)
    row, table = np.arange(3), np.arange(8).reshape(4, 2)
    assert calls(kernel)(row, table, 2) == 2 + 5 + 4 == row[2]
    (form,) = re.findall(r"^define .*@_ZN.*added.*$", llvm(kernel), re.MULTILINE)
    result, arguments = re.match(r"define .*?(\S+) @\S+?\((.*)\) ", form).groups()
    assert result == "i64", moved("a kernel's result does not come back as its value")
    kinds = [a.split()[0] for a in re.sub(r"\([^)]*\)", "", arguments).split(", ")]
    assert kinds == ["ptr", "i64", "ptr", "i64", "i64", "i64"], moved("arrays are not passed as address and shape")


def counted(start, end, step):
    n = 0
    for _ in range(start, end, step):
        n += 1
    return n


@compiled
def test_what_numba_would_raise_ends_the_process(tmp_path) -> None:
    (tmp_path / "own.py").write_text(
        "from kmemexp import jit\n\n@jit.kernel\n" + textwrap.dedent(inspect.getsource(counted))
    )
    run = "import sys, own; from kmemexp import jit; print(jit.entry(own.counted)(0, 6, int(sys.argv[1])))"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    given = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    ran = [subprocess.run([sys.executable, "-c", run, s], env=given, capture_output=True, check=False) for s in "20"]
    codes = [r.returncode for r in ran]
    assert codes == [0, -signal.SIGILL], moved("a kernel goes on after what Numba would raise")


def llvm(dispatcher) -> str:
    """LLVM's text of what was compiled."""
    return "\n".join(str(compiled.library._final_module) for compiled in dispatcher.overloads.values())


def attributes(dispatcher) -> str:
    """LLVM's attributes of a compiled function."""
    text = llvm(dispatcher)
    (group,) = re.findall(r"^define [^@]*@_ZN.*successor.* (#\d+) \{", text, re.MULTILINE)
    return re.search(rf"^attributes {group} = \{{(.*)\}}", text, re.MULTILINE)[1]


@compiled
def test_a_kernel_is_compiled_once_for_all_constants(fresh) -> None:
    inner = fresh(jit.kernel, successor)

    def outer():
        return inner(1) + inner(2)

    assert numba.njit(outer)() == 5
    assert len(inner.overloads) == 1, moved(f"a kernel is compiled for each constant: {list(inner.overloads)}")


@compiled
@pytest.mark.parametrize("compile_as", [jit.kernel, jit.outlined])
def test_a_kernel_counts_no_references_and_has_no_wrappers(compile_as, fresh) -> None:
    kernel = fresh(compile_as, element)
    calls(kernel)(np.arange(5), 1)
    assert "NRT_" not in llvm(kernel), moved("the option `_nrt` does not turn reference counting off")
    assert "cpython" not in llvm(kernel), moved("the option `no_cpython_wrapper` does not leave the wrapper out")
    assert "cfunc" not in llvm(kernel), moved("the option `no_cfunc_wrapper` does not leave the wrapper out")


@compiled
def test_an_inlined_kernel_is_no_machine_code_and_an_outlined_one_is_that_once(fresh) -> None:
    outlined, inlined = fresh(jit.outlined, successor), fresh(jit.kernel, successor)
    assert calls(outlined)(1) == calls(inlined)(1) == 2
    (body,) = inlined.overloads.values()
    assert not body.library._compiled, "machine code has been made of what is only inlined"
    (function,) = outlined.overloads.values()
    assert "define" not in str(function.library._get_module_for_linking()), "its callers compile it again"


REFUSAL = """
    import sys
    from kmemexp.jit import entry, kernel, outlined

    @{decorator}
    def successor(x):
        return x + 1

    print(entry(successor)(1))
    try:
        successor(1)
    except TypeError as error:
        print(error)
"""


@compiled
@pytest.mark.parametrize("decorator", ["kernel", "outlined"])
def test_python_cannot_call_a_kernel_but_its_twin(decorator: str, tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(textwrap.dedent(REFUSAL.format(decorator=decorator)))
    given = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-X", "faulthandler", "-c", "import toy"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "2", "toy.successor is compiled into what calls it: Python calls kmemexp.jit.entry(successor)"
    ]  # fmt: skip


CHAIN = """
    from kmemexp.jit import entry, kernel, outlined

    @kernel
    def leaf(x):
        return x + 1

    @outlined
    def middle(x):
        return leaf(x) * 2

    @kernel
    def upper(x):
        return middle(x) + leaf(x)

    @outlined
    def top(x):
        return upper(x) + middle(x)

    @entry
    def run(x):
        return top(x) + upper(x)
"""


@compiled
def test_what_calls_an_outlined_kernel_finds_it_whoever_compiled_it(tmp_path: Path) -> None:
    (tmp_path / "chain.py").write_text(textwrap.dedent(CHAIN))
    given = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "NUMBA_CACHE_DIR": str(tmp_path)}

    def play(first: str) -> str:
        program = f"import chain\n{first}\nprint(chain.run(1))"
        command = [sys.executable, "-X", "faulthandler", "-c", program]
        return subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout.strip()

    assert play("from kmemexp.jit import entry; assert entry(chain.middle)(1) == 4") == "16"
    assert play("") == "16"
    for kernel in ("middle", "top", "upper", "leaf"):
        for file in tmp_path.glob(f"*/*/chain.{kernel}-*"):
            file.unlink()
        assert play("") == "16", f"{kernel} is gone from the cache"
    for file in tmp_path.glob("*/*/chain.run-*"):
        file.unlink()
    assert play("") == "16"


@compiled
def test_of_several_processes_one_compiles_and_the_others_load(tmp_path: Path) -> None:
    (tmp_path / "chain.py").write_text(textwrap.dedent(CHAIN))
    given = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "NUMBA_CACHE_DIR": str(tmp_path)}
    program = "from chain import run; run(1); print(sum(run.stats.cache_misses.values()))"
    command = [sys.executable, "-c", program]
    playing = [subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(int(process.communicate()[0]) for process in playing) == [0, 0, 1]


class Inner(NamedTuple):
    words: np.ndarray
    factor: int


class Outer(NamedTuple):
    inner: Inner
    table: np.ndarray
    offset: int


def weigh(st, i):
    st.table[i, 0] += 1
    return st.inner.words[i] * st.inner.factor + st.offset


@compiled
@pytest.mark.parametrize("compile_as", [jit.kernel, jit.outlined])
def test_a_state_goes_by_pointer_and_reads_as_by_value(compile_as, fresh) -> None:
    kernel = fresh(compile_as, weigh)

    @numba.njit
    def by_value(st, i):
        return kernel(st, i)

    @numba.njit
    def by_reference(st, i):
        return kernel(jit.ref(st), i)

    outer = Outer(Inner(np.arange(4) + 1, 10), np.zeros((4, 2), np.int64), 3)
    assert [by_value(outer, i) for i in range(4)] == [by_reference(outer, i) for i in range(4)] == [13, 23, 33, 43]
    assert outer.table[:, 0].tolist() == [2, 2, 2, 2]
    ((state, _),) = kernel.overloads
    assert isinstance(state, refs.Ref), "a kernel has been compiled for a state by value"
    assert jit.ref(outer) is outer


@compiled
def test_a_driver_reads_what_python_has_written(fresh) -> None:
    outer = Outer(Inner(np.arange(4) + 1, 10), np.zeros((4, 2), np.int64)[:, ::-1], 3)
    twin = fresh(jit.entry, fresh(jit.kernel, weigh))
    assert [twin(outer, i) for i in range(4)] == [13, 23, 33, 43]
    assert outer.table[:, 0].tolist() == [1, 1, 1, 1]
    for offset in range(5):  # more tuples than are kept
        assert twin(outer._replace(offset=offset), 0) == 10 + offset
    outer.inner.words[:] = 7
    assert twin(outer, 0) == 73
    with pytest.raises(TypeError, match="a state holds arrays, integers and states, not float"):
        twin(outer._replace(offset=0.5), 0)


@compiled
def test_a_dispatcher_knows_the_type_of_a_state_without_asking_python(fresh, monkeypatch) -> None:
    outer = Outer(Inner(np.arange(4) + 1, 10), np.zeros((4, 2), np.int64), 3)
    twin = fresh(jit.entry, fresh(jit.kernel, weigh))
    assert twin(outer, 0) == 13

    def asked(dispatcher, value):
        raise AssertionError(moved(f"a dispatcher asks for the type of a {type(value).__name__} at each call"))

    monkeypatch.setattr(type(twin.compiled), "typeof_pyval", asked, raising=False)
    assert twin(outer, 1) == 23


def test_the_hash_of_a_reference_is_not_stored() -> None:
    """It is made of addresses: in another process the reference would not be found by it."""
    one = refs.Ref(numba.typeof(Inner(np.arange(2), 1)))
    assert hash(one) == hash(one.target)
    assert "_hash" not in one.__getstate__()
    assert pickle.loads(pickle.dumps(one)) is one


def tripled(st, n):
    st = jit.ref(st)
    total = np.zeros(len(st.table), np.int64)
    for _ in range(n):
        words = st.inner.words
        total[: len(words)] += words
    return total


@compiled
def test_a_function_that_counts_references_reads_a_state_by_pointer(fresh) -> None:
    outer = Outer(Inner(np.arange(4), 10), np.zeros((4, 2), np.int64), 3)
    before = sys.getrefcount(outer.inner.words)
    given = fresh(jit.entry, tripled)(outer, 3)
    after = sys.getrefcount(outer.inner.words)
    assert given.tolist() == [0, 3, 6, 9]
    assert before == after
    assert outer.inner.words.tolist() == [0, 1, 2, 3]


def test_states_of_one_name_and_shape_in_two_modules_are_two_types() -> None:
    one, other = (type("State", (Inner,), {"__module__": module}) for module in ("here", "there"))
    names = {refs.Ref(numba.typeof(state(np.arange(2), 1))).mangling_args for state in (one, other)}
    assert len(names) == 2
