"""How kernels call each other: a result comes back as what it is, in a register where it fits.

Numba's functions return whether they raised, store their result where the caller says, and have a place for the
exception; every call looks whether there was one. A kernel raises nothing, so its calls need none of that: each is four
instructions less, and some twenty lines of LLVM less to print, parse and optimise away.

Made for Numba 0.68; `tests/test_jit.py` says what is relied on.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.base import OverloadSelector
from numba.core.callconv import CPUCallConv
from numba.core.cpu import CPUContext
from numba.core.imputils import impl_ret_new_ref

TRAP = ir.FunctionType(ir.VoidType(), [])


class Direct(CPUCallConv):
    """The calling convention of kernels: their arguments, and their result."""

    def get_function_type(self, restype: Any, argtypes: Sequence[Any]) -> Any:
        """Type of a kernel's function."""
        packer = self._get_arg_packer(argtypes)
        return ir.FunctionType(self.get_return_type(restype).pointee, list(packer.argument_types))

    def decorate_function(
        self, fn: Any, args: Sequence[str], fe_argtypes: Sequence[Any], noalias: bool = False
    ) -> None:
        """Name the arguments."""
        _ = noalias
        self._get_arg_packer(fe_argtypes).assign_names(self.get_arguments(fn), [f"arg.{a}" for a in args])

    def get_arguments(self, func: Any) -> Any:
        """All arguments are the kernel's own."""
        return func.args

    def return_value(self, builder: Any, retval: Any) -> None:
        """Return from a kernel."""
        builder.ret(retval)

    def call(self, builder: Any, callee: Any, described: Any, args: Sequence[Any]) -> Any:
        """Call a kernel; its result as a value."""
        given = self._get_arg_packer(described.argtypes).as_arguments(builder, args)
        return self.context.get_returned_value(builder, described.restype, builder.call(callee, list(given)))


class _Within(CPUCallConv):
    """The convention that code within a kernel goes by when it calls functions of Numba's own."""

    def return_status_propagate(self, builder: Any, status: Any) -> None:
        """Such functions raise nothing where a kernel calls them."""
        if not _is_kernel(builder):
            super().return_status_propagate(builder, status)

    def return_user_exc(self, builder: Any, exc: Any, *args: Any, **kws: Any) -> None:
        """Where Numba would raise, as in `range(a, b, 0)`, end the process: a kernel has nobody to tell."""
        if _is_kernel(builder):
            builder.call(builder.module.declare_intrinsic("llvm.trap", (), TRAP), [])
            builder.unreachable()
        else:
            super().return_user_exc(builder, exc, *args, **kws)


class KernelContext(CPUContext):
    """What a kernel is lowered in."""

    @property
    def call_conv(self) -> _Within:
        """Convention of calls from within a kernel."""
        return _Within(self)


def _is_kernel(builder: Any) -> bool:
    return getattr(builder.function, "is_kernel", False)


def declare(context: Any, module: Any, described: Any) -> Any:
    """Declare a kernel in a module, as Numba's contexts do for functions of their own convention."""
    convention = Direct(context)
    kind = convention.get_function_type(described.restype, described.argtypes)
    function = cgutils.get_or_insert_function(module, kind, described.mangled_name)
    convention.decorate_function(function, described.args, described.argtypes)
    function.is_kernel = True
    function.attributes.add("nounwind")
    if described.inline:
        function.attributes.add("alwaysinline")
    return function


def insert(context: Any, compiled: Any) -> None:
    """Let compiled code call a kernel by its convention, and no more by Numba's."""
    described = compiled.fndesc

    def call(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
        function = declare(context, builder.module, described)
        result = Direct(context).call(builder, function, described, args)
        return impl_ret_new_ref(context, builder, signature.return_type, result)

    call.signature = described.argtypes  # type: ignore[attr-defined]  # Numba reads both from a function
    call.libs = (compiled.library,)  # type: ignore[attr-defined]
    context._defns[compiled.entry_point] = selector = OverloadSelector()
    selector.append(call, call.signature)  # type: ignore[attr-defined]
