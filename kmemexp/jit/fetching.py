"""`prefetch`: tell the processor which part of an array will soon be wanted.

It changes no value. A place that is not in the array is harmless: nothing is read there.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

from kmemexp.jit.lowering import DATA, SHAPE

KIND = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t] + [ir.IntType(32)] * 3)
FOR = tuple(ir.Constant(ir.IntType(32), n) for n in (0, 3, 1))
"""Arguments of llvm.prefetch: to be read, into all caches, as data."""


def prefetch(array: Any, at: int) -> None:
    """Fetch the line of element `at` into the caches, or where row `at` of a table begins, in compiled code."""


@infer_global(prefetch)
class _Kind(AbstractTemplate):
    """Type of `prefetch(array, at)`."""

    def generic(self, args: tuple[types.Type, ...], _kws: Any) -> Any:
        return signature(types.none, args[0], types.intp)


@lower_builtin(prefetch, types.Array, types.Integer)
def _fetch(context: Any, builder: Any, _signature: Any, args: tuple[Any, ...]) -> Any:
    array, at = args
    shape = builder.extract_value(array, SHAPE)
    for axis in range(1, shape.type.count):
        at = builder.mul(at, builder.extract_value(shape, axis))
    place = builder.bitcast(builder.gep(builder.extract_value(array, DATA), [at]), cgutils.voidptr_t)
    builder.call(builder.module.declare_intrinsic("llvm.prefetch", (cgutils.voidptr_t,), KIND), [place, *FOR])
    return context.get_dummy_value()
