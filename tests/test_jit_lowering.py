"""Elements of arrays and fields of States mean the same compiled as in Python, whatever their types."""

from typing import NamedTuple

import numba
import numpy as np
import pytest
from numba.core import caching, codegen, ir, types
from numba.core.lowering import Lower

from kmemexp import jit
from kmemexp.jit import lowering, packed


class Inner(NamedTuple):
    marks: np.ndarray
    flags: np.ndarray


class State(NamedTuple):
    table: np.ndarray
    small: np.ndarray
    rates: np.ndarray
    columns: np.ndarray
    inner: Inner
    size: int


@jit.kernel
def play(st, m, x, y):
    """Reads and writes in each form that kernels use: fields, nested fields, locals, arguments, tuples, constants."""
    table, marks = st.table, st.inner.marks
    at = (x, y)
    for i in range(3):
        table[i, y] += np.int64(st.small[x]) - i
        if table[at] > 5:
            marks = st.inner.marks  # a field that lives on in other blocks
            marks[i] = table[x, 2] * m[3]
        st.table[i, st.small[i]] = m[i] ^ st.inner.marks[i]
    st.small[1] = (np.int64(st.small[2]) + 301) & 3
    st.inner.flags[x] = st.rates[y] > 0.5
    if st.inner.flags[2]:
        st.rates[x] = st.rates[y] / 3 + st.size
    st.columns[x, 1] = st.columns[1, y] - len(st.small)
    every = st.columns[1]
    at = (y, x)
    return table[at] + marks[x] + every[y] + m[st.small[y]], st.rates[x]


@jit.outlined
def play_outlined(st, m, x, y):
    return play(st, m, x, y)


@jit.entry
def from_the_end(table, row, x):
    row[-1] = table[x, -2]
    table[-x, 0] = row[-1] + row[x - 3]
    return table[-1, x]


def state() -> State:
    rng = np.random.default_rng(5)
    inner = Inner(rng.integers(0, 9, 4), np.zeros(4, np.bool_))
    table, small = rng.integers(0, 20, (4, 4)), rng.integers(0, 4, 4).astype(np.uint8)
    return State(table, small, rng.random(4), np.asfortranarray(rng.integers(0, 20, (4, 4))), inner, 7)


@pytest.mark.parametrize("kernel", [play, play_outlined])
def test_a_kernel_reads_and_writes_what_python_does(kernel) -> None:
    compiled, plain = state(), state()
    m = np.arange(2, 12)
    for x, y in ((0, 1), (2, 3), (np.uint8(1), 2)):
        expected = play.py_func(plain, m, x, y)
        assert jit.entry(kernel)(compiled, m, x, y) == expected
        for ours, theirs in zip((*compiled[:4], *compiled.inner), (*plain[:4], *plain.inner), strict=True):
            assert (ours == theirs).all()


def test_an_ordinary_function_counts_from_the_end() -> None:
    table, row = np.arange(12).reshape(3, 4), np.arange(3)
    other, line = table.copy(), row.copy()
    assert from_the_end(table, row, 2) == from_the_end.py_func(other, line, 2)
    assert (table == other).all()
    assert (row == line).all()


def compiled_anew(kernel, args):
    """Compile without the cache on disk, which a run before this one may have filled."""
    kernel._cache = caching.NullCache()
    kernel.compile(args)
    return kernel.overloads[args]


def test_an_element_takes_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this is for: Numba writes eighty lines for `st.table[i, 3]`."""
    seen = []
    monkeypatch.setattr(codegen.CPUCodeLibrary, "add_ir_module", lambda library, module: seen.append(str(module)))

    @jit.kernel
    def element(st, i):
        return st.table[i, 3]

    compiled_anew(element, (packed.pack(state())._numba_type_, types.int64))
    assert len(seen) == 1
    assert seen[0].count("\n") < 40


def test_what_is_relied_on_is_there() -> None:
    for name in ("storevar", "loadvar", "delvar", "lower_expr", "lower_inst", "lower_getitem", "lower_setitem"):
        assert callable(getattr(Lower, name))
        assert name in lowering.KernelLower.__dict__
    assert ir.StaticSetItem


@jit.kernel
def with_prefetches(row, table, i):
    jit.prefetch(row, i)
    jit.prefetch(table, -1)
    jit.prefetch(table, 1 << 50)
    return row[i] + table[i, 1]


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: nothing is compiled")
def test_what_is_fetched_ahead_changes_nothing_and_may_lie_anywhere():
    row, table = np.arange(4), np.arange(8).reshape(4, 2)
    assert with_prefetches.py_func(row, table, 2) == jit.entry(with_prefetches)(row, table, 2) == 7
    alone = jit.kernel(with_prefetches.py_func)
    asked = compiled_anew(alone, (types.int64[::1], types.int64[:, ::1], types.int64)).library.get_llvm_str()
    assert asked.count("call void @llvm.prefetch") == 3
