"""How kernels pass through Numba: what is inlined, what stays a function, what is made machine code, what is stored.

A kernel that is only ever inlined is typed and lowered, and kept as the bitcode of its own body: it is optimised, and
made machine code, in the function that it ends up in. An outlined kernel is machine code of its own, once: whoever
calls it is linked to it by name, and loads it before its own code is loaded. Neither can be called from Python.

Made for Numba 0.68; `tests/test_jit.py` says what of Numba's inside is relied on.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from llvmlite import binding
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import register_pass
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature
from numba.core.typed_passes import NativeLowering
from numba.np import arrayobj

from kmemexp.jit import calling, disk, passes, sparing
from kmemexp.jit.lowering import DirectLower, EntryLower, KernelLower


class BoundLibrary(JITCodeLibrary):
    """Machine code with all kernels in it that it calls, directly or through others."""

    def _optimize_functions(self, ll_module: Any) -> None:
        """Leave that to when the kernels are there."""
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        """Optimise once: Numba does so twice, to find pairs of reference counts in between."""
        manager, builder = self._codegen._module_pass_manager()
        manager.run(self._final_module, builder)

    def finalize(self) -> None:
        """Link each kernel once, then optimise."""
        self._raise_if_finalized()
        _link(self._final_module, self)
        self._optimize_final_module()
        self._final_module.verify()
        self._finalize_final_module()


class OutlinedLibrary(BoundLibrary):
    """Machine code of a kernel that stays a function: its callers find it by its symbol."""

    def _get_module_for_linking(self) -> Any:
        self._ensure_finalized()
        return binding.parse_assembly("")


class InlinedLibrary(JITCodeLibrary):
    """Code of a kernel that is compiled into its callers: as it was lowered, never machine code by itself."""

    def _optimize_functions(self, ll_module: Any) -> None:
        """Leave that to the functions that it ends up in."""
        ll_module.data_layout = self._codegen._data_layout

    def finalize(self) -> None:
        """Let nothing be added. Its function is one that several modules may hold alike."""
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == binding.Linkage.external:
                function.linkage = "linkonce_odr"
        for called in self._linking_libraries:
            self._reload_init.update(called._reload_init)
        self._finalized = True

    def body(self) -> Any:
        """Module of its own body, or of all it was loaded with."""
        self._ensure_finalized()
        return self._final_module

    def with_all(self) -> Any:
        """Module of its own body and of all kernels that it calls."""
        everything = self.body().clone()
        _link(everything, self)
        return everything

    def _get_module_for_linking(self) -> Any:
        """What a caller links that is none of ours."""
        return self.with_all()

    @classmethod
    def loaded(cls, codegen: Any, name: str, bitcode: bytes) -> "InlinedLibrary":
        """Take up what `with_all` gave."""
        library = cls(codegen, name)
        library._final_module = binding.parse_bitcode(bitcode)
        library._finalized = True
        return library


def _link(module: Any, library: Any) -> None:
    """Link to a module all that its library calls, each once, and note what must be loaded before it.

    Callers come before what they call: LLVM links a function that several modules may hold only if it is called yet.
    """
    for called in reversed(list(_called(library, set()))):
        library._reload_init.update(called._reload_init)
        code = called.body() if isinstance(called, InlinedLibrary) else called._get_module_for_linking()
        module.link_in(code, preserve=True)


def _called(library: Any, seen: set[Any]) -> Iterator[Any]:
    """Libraries that a library calls, and those that inlined ones among them call; what is called comes first."""
    for called in library._linking_libraries:
        if called not in seen:
            seen.add(called)
            if isinstance(called, InlinedLibrary):
                yield from _called(called, seen)
            yield called


class Load(NamedTuple):
    """Loads an outlined kernel, or compiles it: before machine code is loaded that calls it."""

    module: str
    name: str
    types: tuple[Any, ...]

    def __call__(self) -> None:
        """Do it."""
        getattr(importlib.import_module(self.module), self.name).compile(self.types)


class _Nowhere:
    """Stands for the address of a kernel that has none."""


class Once(CPUDispatcher):
    """A dispatcher whose function one process compiles, while others that want it wait and then load it."""

    def compile(self, sig: Any) -> Any:
        """Compile for a signature, or load."""
        if type(sig) is tuple and sig in self.overloads:
            return self.overloads[sig].entry_point
        args, _ = normalize_signature(sig)
        if args in self.overloads or not hasattr(self._cache, "_cache_file"):
            return super().compile(sig)
        key = self._cache._index_key(args, self.targetctx.codegen())
        with global_compiler_lock, sparing.sparing(), disk.turn(self._cache._cache_file, key):
            return super().compile(sig)


class Inside(Once):
    """What a kernel's name stands for: it says no to Python, for there is no machine code that Python could call."""

    def __call__(self, *_args: Any, **_kws: Any) -> None:
        """Raise TypeError."""
        function = self.py_func
        where = f"{function.__module__}.{function.__qualname__}"
        raise TypeError(f"{where} is compiled into what calls it: Python calls kmemexp.jit.entry({function.__name__})")

    def add_overload(self, compiled: Any) -> None:
        """Keep what has been compiled for other kernels, not for Python."""
        self.overloads[tuple(compiled.signature.args)] = compiled
        calling.insert(self.targetctx, compiled)


class _InlinedForm(CompileResultCacheImpl):
    """How an inlined kernel is stored."""

    def reduce(self, compiled: Any) -> Any:
        library, described = compiled.library, compiled.fndesc
        described.typemap = described.calltypes = None
        reload = tuple(library._reload_init)
        return library.name, library.with_all().as_bitcode(), described, compiled.signature, reload

    def rebuild(self, context: Any, stored: Any) -> Any:
        name, bitcode, described, signature, reload = stored
        for load in reload:
            load()
        library = InlinedLibrary.loaded(context.codegen(), name, bitcode)
        library._reload_init.update(reload)
        nothing = dict.fromkeys(CompileResult._fields)
        return CompileResult(**nothing | {
            "target_context": context, "typing_context": context.typing_context, "library": library,
            "entry_point": _Nowhere(), "fndesc": described, "signature": signature, "objectmode": False, "lifted": (),
            "reload_init": reload, "referenced_envs": (),
        })  # fmt: skip


class _OutlinedForm(CompileResultCacheImpl):
    """How an outlined kernel is stored: as Numba does, and with what its callers must load."""

    def reduce(self, compiled: Any) -> Any:
        return tuple(compiled.library._reload_init), super().reduce(compiled)

    def rebuild(self, context: Any, stored: Any) -> Any:
        reload, stored = stored
        compiled = super().rebuild(context, stored)
        compiled.library._reload_init.update(reload)
        return compiled


class InlinedCache(FunctionCache):
    """Numba's cache on disk, for inlined kernels."""

    _impl_class = _InlinedForm


class OutlinedCache(FunctionCache):
    """The same, for outlined ones."""

    _impl_class = _OutlinedForm


class _OutlinedLower(DirectLower):
    """Lowers a function and forbids LLVM to inline it."""

    def pre_lower(self) -> None:
        super().pre_lower()
        self.function.attributes.add("noinline")


def _plain_index(context: Any, builder: Any, idxty: Any, idx: Any, _size: Any) -> Any:
    """Take an index as it is: kernels never count from the end, and asking each time costs a quarter of their speed."""
    return context.cast(builder, idx, idxty, arrayobj.types.intp if idxty.signed else arrayobj.types.uintp)


@contextlib.contextmanager
def _plain_indices() -> Iterator[None]:
    """Inside, compiled code does not look for negative indices. Numba's compiler lock is held."""
    before = arrayobj.fix_integer_index
    arrayobj.fix_integer_index = _plain_index
    try:
        yield
    finally:
        arrayobj.fix_integer_index = before


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    """Numba's last pass, for functions that kernels are compiled into."""

    _name = "kmemexp_lowering"
    library: type[JITCodeLibrary] = BoundLibrary
    indices: Callable[[], contextlib.AbstractContextManager[None]] = staticmethod(_plain_indices)
    lowering_class: type[KernelLower] = KernelLower

    def run_pass(self, state: Any) -> bool:
        state.library = self.library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        with self.indices():
            return bool(super().run_pass(state))


@register_pass(mutates_CFG=True, analysis_only=False)
class _EntryLowering(_Lowering):
    """The same, for what is ordinary code besides."""

    _name = "kmemexp_entry_lowering"
    indices = staticmethod(contextlib.nullcontext)
    lowering_class = EntryLower


@register_pass(mutates_CFG=True, analysis_only=False)
class _OutlinedLowering(_Lowering):
    """The same, for kernels that stay functions of their own."""

    _name = "kmemexp_outlined_lowering"
    library = OutlinedLibrary
    lowering_class = _OutlinedLower

    def run_pass(self, state: Any) -> bool:
        function = _name_by_sources(state)
        done = super().run_pass(state)
        state.library._reload_init.add(Load(function.__module__, function.__name__, tuple(state.args)))
        return done


@register_pass(mutates_CFG=True, analysis_only=False)
class _InlinedLowering(_Lowering):
    """The same, for kernels that are compiled into their callers."""

    _name = "kmemexp_inlined_lowering"
    library = InlinedLibrary
    lowering_class = DirectLower

    def run_pass(self, state: Any) -> bool:
        _name_by_sources(state)
        state.flags.no_compile = True
        done = super().run_pass(state)
        state.library.finalize()
        state["cr"] = state["cr"]._replace(cfunc=_Nowhere())
        return done


@register_pass(mutates_CFG=True, analysis_only=False)
class _StayingLowering(_InlinedLowering):
    """The same, for what is compiled with its callers and stays a function in them."""

    _name = "kmemexp_staying_lowering"
    lowering_class = _OutlinedLower


def _name_by_sources(state: Any) -> Any:
    """Let a kernel's symbol follow from its name and its sources: another process may have compiled its callers."""
    function = state.func_id.func
    state.func_id.unique_id = disk.digest(getattr(function, "sources", [function.__module__]))
    return function


class _Pipeline(CompilerBase):
    """Numba's pipeline with a last pass of our own."""

    lowering: type[_Lowering] = _Lowering
    without: tuple[type, ...] = passes.FOREIGN

    def define_pipelines(self) -> list[Any]:
        return [passes.chosen(self.state, self.lowering, self.without)]


class Driving(_Pipeline):
    """For drivers."""


class Entering(_Pipeline):
    """For functions that Python calls."""

    lowering = _EntryLowering
    without = ()


class Inlining(_Pipeline):
    """For kernels that are compiled into their callers."""

    lowering = _InlinedLowering


class Staying(_Pipeline):
    """For outlined templates: functions of their own within a driver."""

    lowering = _StayingLowering


class Outlining(_Pipeline):
    """For kernels that stay functions of their own."""

    lowering = _OutlinedLowering
