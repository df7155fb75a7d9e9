"""Numba finds the same signatures and flags with our shortcuts as without."""

import contextlib
import gc
import math
import operator
import os
import re
import subprocess
import sys

import numba
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba.core import analysis, base, errors, event, ir, typeinfer, types
from numba.core.compiler import Flags, run_frontend
from numba.core.registry import cpu_target

from kmemexp.jit import sparing

SCALARS = (types.int64, types.uint8, types.int32, types.boolean, types.float64, types.IntegerLiteral(3))
BINARY = (operator.add, operator.lt, operator.floordiv, operator.lshift, operator.and_, operator.eq)


@given(st.sampled_from(BINARY), st.sampled_from(SCALARS), st.sampled_from(SCALARS))
def test_an_operator_has_the_signature_that_numba_finds(function, left, right) -> None:
    typing = cpu_target.typing_context
    typing.refresh()

    def found() -> str:
        try:
            return str(typing.resolve_function_type(function, (left, right), {}))
        except numba.TypingError:
            return "none"

    plain = found()
    with sparing.sparing():
        assert [found(), found()] == [plain, plain]
    assert found() == plain


def test_an_array_is_read_and_written_with_the_signatures_that_numba_finds() -> None:
    typing = cpu_target.typing_context
    typing.refresh()
    for table in (types.int64[::1], types.uint8[:, ::1], types.float64[:]):
        index = types.int64 if table.ndim == 1 else types.UniTuple(types.int64, 2)
        for function, args in ((operator.getitem, (table, index)), (operator.setitem, (table, index, types.int64))):
            plain = str(typing.resolve_function_type(function, args, {}))
            with sparing.sparing():
                assert {str(typing.resolve_function_type(function, args, {})) for _ in range(2)} == {plain}


def test_flags_are_equal_by_what_they_mean_and_hash_as_they_did() -> None:
    flags, same, other = Flags(), Flags(), Flags()
    same.forceinline = Flags.forceinline.fget(flags)  # set, to what it is anyway
    other.nrt = not flags.nrt
    plain = hash(flags), hash(other)
    with sparing.sparing():
        assert (hash(flags), hash(other)) == plain
        assert flags == same
        assert flags != other
        assert flags == flags.copy()


def test_what_numba_had_is_there_again_afterwards() -> None:
    before = types.BaseFunction.get_call_type, Flags.__eq__, Flags.__hash__
    with sparing.sparing():
        assert types.BaseFunction.get_call_type is not before[0]
    assert (types.BaseFunction.get_call_type, Flags.__eq__, Flags.__hash__) == before


def _written(table, x, *, n=3):
    out = [0] * n
    for i in range(n):
        if table[i, x] > 2 and i != x:
            out[i] = {"a": i}["a"] + max(table[i, 0], -x)
        table[x, i] = out[i]
    return out, table[0:n]


def test_variables_of_statements_are_those_that_numba_finds() -> None:
    found = run_frontend(_written).blocks
    statements = [s for block in found.values() for s in block.body]
    values = [s.value for s in statements if isinstance(s, ir.Assign) and isinstance(s.value, ir.Expr)]
    plain = [s.list_vars() for s in (*statements, *values)], analysis.compute_use_defs(found)
    assert len(values) > 20
    with sparing.sparing():
        assert plain == ([s.list_vars() for s in (*statements, *values)], analysis.compute_use_defs(found))


@pytest.mark.parametrize(
    "value", [len, operator, math, math.sqrt, int, 3, True, None, "text", 2.5, (1, 2), {}, object()]
)
def test_a_value_has_the_type_that_numba_finds(value) -> None:
    typing = cpu_target.typing_context
    typing.refresh()

    def found() -> tuple[str, str]:
        try:
            return str(typing.resolve_value_type(value)), str(types.maybe_literal(value))
        except ValueError as error:
            return "none", str(type(error))

    plain = found()
    with sparing.sparing():
        assert found() == plain


def test_errors_say_what_they_say() -> None:
    plain = errors.ConstantInferenceError("not constant", loc=None), errors.TypingError("wrong")
    with sparing.sparing():
        ours = errors.ConstantInferenceError("not constant", loc=None), errors.TypingError("wrong")
    assert [error.msg for error in ours] == [error.msg for error in plain] == ["not constant", "wrong"]
    assert [str(error) for error in ours] == ["not constant", "wrong"]


def test_a_context_is_refreshed_once_something_was_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    context = cpu_target.typing_context
    calls = []
    monkeypatch.setattr(sparing, "_refresh_types", calls.append)
    monkeypatch.setattr(sparing, "_seen", {})
    with sparing.sparing():
        context.refresh()
        context.refresh()
        assert len(calls) == 1
        monkeypatch.setattr(next(iter(context._registries)), "globals", [None] * 9999)
        monkeypatch.setitem(sys.modules, "registers_something", types)
        context.refresh()
        assert len(calls) == 2
    monkeypatch.setattr(next(iter(context._registries)), "globals", [None] * 8888)
    with sparing.sparing():
        context.refresh()
    assert len(calls) == 3


def test_code_is_processed_into_the_blocks_that_numba_makes() -> None:
    def blocks() -> list[str]:
        return [str(block) for block in run_frontend(_written).blocks.values()]

    plain = [text.partition(" object at")[0] for text in blocks()]
    with sparing.sparing():
        assert [text.partition(" object at")[0] for text in blocks()] == plain
        code = run_frontend(_written)
        lives = {label: sorted(alive) for label, alive in code.variable_lifetime.livemap.items()}
    assert lives == {k: sorted(v) for k, v in run_frontend(_written).variable_lifetime.livemap.items()}
    assert sum(map(len, lives.values())) > 5


def test_an_error_says_where_it_was_as_it_does() -> None:
    def said() -> str:
        with pytest.raises(errors.TypingError) as error, typeinfer.new_error_context("in {place}", place="a kernel"):
            raise errors.TypingError("wrong")
        return re.sub(r"\x1b\[\d*m", "", str(error.value))

    plain = said()
    assert "in a kernel" in plain
    with sparing.sparing():
        assert typeinfer.new_error_context is sparing._Context
        assert said() == plain


def test_what_a_code_generator_says_of_itself_is_asked_once() -> None:
    generator = cpu_target.target_context.codegen()
    plain = generator.magic_tuple()
    with sparing.sparing():
        assert generator.magic_tuple() == plain
        assert generator.magic_tuple() is generator.magic_tuple()


def test_numba_is_as_it_was_after_compiling_and_garbage_is_looked_for_again() -> None:
    places = [(holder, name) for holder, name, _ in sparing.PATCHES]
    before = [getattr(*place) for place in places]
    with contextlib.suppress(ZeroDivisionError), sparing.sparing(), sparing.sparing():
        assert not gc.isenabled()
        assert all(getattr(*place) is not old for place, old in zip(places, before, strict=True))
        event.start_event("numba:compile")
        raise ZeroDivisionError
    assert gc.isenabled()
    assert [getattr(*place) for place in places] == before
    assert base.BaseContext.refresh is before[places.index((base.BaseContext, "refresh"))]


NO_SCIPY = """
import sys
import numba
import numpy as np
from kmemexp import jit

def twice(x):
    return 2 * x

assert jit.entry(twice)(21) == 42
assert "scipy.linalg" not in sys.modules
assert numba.njit(lambda a: np.dot(a, a))(np.ones(5)) == 5
assert "scipy.linalg.cython_blas" in sys.modules
"""


def test_scipy_is_loaded_where_matrices_are_multiplied_and_nowhere_else(tmp_path) -> None:
    pytest.importorskip("scipy")
    (tmp_path / "no_scipy.py").write_text(NO_SCIPY)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", "import no_scipy"], env=env, check=True)
