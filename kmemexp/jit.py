"""Every decision about Numba: options, the disk cache and its key, and binding a driver template to a design.

Three facts of Numba's cache shape this file (numba 0.68). Its key holds the bytecode of the jitted function but
neither its callees in other files nor constants imported from there, nor flags such as NUMBA_BOUNDSCHECK: so each
cached function lives in a folder named by a digest of all sources it reaches and of the flags. Two functions with
the same code object and qualified name would load each other's machine code: so a bound driver gets a qualified
name of its own. Closures and dispatchers as arguments never hit: so neither is used.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.util
import inspect
import os
import stat
import sys
import tempfile
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering
from numba.np import arrayobj

OPTIONS = {"nogil": True, "error_model": "numpy"}
# Kernels of the simulated machine allocate nothing, so they are compiled without reference counts: with them, each
# call that is not inlined counts every array of every state up and down (4 times slower, 3 times longer to compile).
UNCOUNTED = OPTIONS | {"_nrt": False}
# What is only called from compiled code needs no wrapper for Python. Numba hands `forceinline` down from caller to
# callee unless told otherwise, so every kernel says it.
INSIDE = UNCOUNTED | {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
F = TypeVar("F", bound=Callable[..., Any])
FLAGS = ("NUMBA_BOUNDSCHECK", "NUMBA_OPT", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_DEBUGINFO")


def kernel(function: F) -> F:
    """Compile a function that other kernels call, into its caller, and that allocates nothing."""
    return _for_all_values(
        _cached(function, [function.__module__], UNCOUNTED | {"forceinline": True, "pipeline_class": _Inlining})
    )


def _for_all_values(dispatcher: F) -> F:
    """Let a kernel be compiled once for an integer argument: Numba would do so for each constant that it is given."""
    if numba.config.DISABLE_JIT:
        return dispatcher
    compiled: Any = dispatcher
    template = compiled.get_call_template

    def get_call_template(args: tuple[Any, ...], kws: Mapping[str, Any]) -> Any:
        plain = tuple(numba.types.unliteral(a) for a in args)
        return template(plain, {k: numba.types.unliteral(v) for k, v in kws.items()})

    compiled.get_call_template = get_call_template
    return dispatcher


def outlined(function: F) -> F:
    """Compile a kernel that stays a function of its own: code that seldom runs, and would bloat its callers."""
    options = UNCOUNTED | {"forceinline": False, "pipeline_class": _Outlining}
    return _for_all_values(_cached(function, [function.__module__], options))


class _OutlinedLower(Lower):
    """Lowers a function and forbids LLVM to inline it."""

    def pre_lower(self) -> None:
        super().pre_lower()
        self.function.attributes.add("noinline")


def _plain_index(context: Any, builder: Any, idxty: Any, idx: Any, _size: Any) -> Any:
    """Take an index as it is: kernels never count from the end, and asking each time costs a quarter of their speed."""
    return context.cast(builder, idx, idxty, numba.types.intp if idxty.signed else numba.types.uintp)


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
    """Numba's last pass, for kernels."""

    _name = "kmemexp_lowering"

    def run_pass(self, state: Any) -> bool:
        with _plain_indices():
            return bool(super().run_pass(state))


@register_pass(mutates_CFG=True, analysis_only=False)
class _OutlinedLowering(_Lowering):
    """The same, for kernels that stay functions of their own."""

    _name = "kmemexp_outlined_lowering"

    @property
    def lowering_class(self) -> type[_OutlinedLower]:
        return _OutlinedLower


class _Inlining(CompilerBase):
    """Numba's pipeline with a last pass of our own."""

    lowering: type[_Lowering] = _Lowering

    def define_pipelines(self) -> list[Any]:
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes = [(self.lowering if p is NativeLowering else p, text) for p, text in manager.passes]
        manager.finalize()
        return [manager]


class _Outlining(_Inlining):
    """The same, for kernels that stay functions of their own."""

    lowering = _OutlinedLowering


def entry(function: F) -> F:
    """Compile a function that Python calls, cached on disk under a digest of the sources it reaches."""
    return _cached(function, [function.__module__], OPTIONS)


def template(function: F) -> F:
    """Mark a function that calls slots, itself or through other templates: only `bind` makes it runnable."""
    function.is_template = True  # type: ignore[attr-defined]  # functions take attributes
    return function


def bind(function: F, functions: Mapping[str, Callable[..., Any]], label: str) -> F:
    """Make a driver template call `functions` by its bare names, and compile it.

    `label` names the design; equal labels with different functions would share a cache entry, so it must name every
    part. Raises TypeError where a function's parameters differ from those of the stub of the same name.
    """
    for name, part in functions.items():
        _check_signature(_stub(function, name), part, name)
    modules = [function.__module__, *(_module_of(f) for f in functions.values())]
    inlined = {name: _inlined(part) for name, part in functions.items()}
    return _cached(
        _rebind(function, inlined, label), modules, UNCOUNTED | {"forceinline": False, "pipeline_class": _Inlining}
    )


def _stub(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Find the stub of a slot in a template or in the templates that it calls. Raises KeyError where none uses it."""
    if name in function.__code__.co_names:
        stub: Callable[..., Any] = function.__globals__[name]
        return stub
    for called in _templates(function):
        with contextlib.suppress(KeyError):
            return _stub(called, name)
    raise KeyError(name)


def _templates(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Templates that a template calls."""
    called: Iterable[Any] = (function.__globals__.get(name) for name in function.__code__.co_names)
    return [f for f in called if _is_template(f)]


def _is_template(function: Any) -> bool:
    return bool(getattr(function, "is_template", False))


def _inlined(function: F) -> F:
    """Compile a part into its driver: a call would copy the descriptors of all arrays of a state."""
    if numba.config.DISABLE_JIT:
        return function
    compiled: F = numba.njit(pipeline_class=_Inlining, **INSIDE)(getattr(function, "py_func", function))
    return _for_all_values(compiled)


def _rebind(function: F, functions: dict[str, Callable[..., Any]], label: str) -> F:
    """Copy a template with other globals; the templates that it calls are copied likewise, as kernels."""
    for name in function.__code__.co_names:
        called: Any = function.__globals__.get(name)
        if name not in functions and _is_template(called):
            functions[name] = _inlined(_rebind(called, functions, label))
    copy: Any = types.FunctionType(
        function.__code__, function.__globals__ | functions, f"{function.__name__}[{label}]", function.__defaults__
    )
    copy.__qualname__ = copy.__name__
    copy.__module__ = function.__module__
    rebound: F = copy
    return rebound


def cache_root() -> Path:
    """Folder of the compiled code: NUMBA_CACHE_DIR, else kmemexp's folder in the user's cache, else a temporary one."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kmemexp"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written, as in some containers
        return _temporary_root()
    return folder if os.access(folder, os.W_OK) else _temporary_root()


@functools.cache
def _temporary_root() -> Path:
    """Folder in the system's temporary one that nobody else can write: what it holds is executed."""
    folder = Path(tempfile.gettempdir()) / f"kmemexp-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="kmemexp-"))


def digest(modules: Iterable[str]) -> str:
    """Return the digest of the sources of these modules and of all that they import, with the flags.

    What they import from other packages than their own and kmemexp counts by Numba's and Python's versions only.
    """
    return _digest(tuple(sorted(set(modules))))


@functools.cache
def _digest(modules: tuple[str, ...]) -> str:
    total = hashlib.sha256()
    total.update(numba.__version__.encode() + sys.version.encode())
    total.update("".join(f"{f}={os.environ.get(f)};" for f in FLAGS).encode())
    for name in sorted(_closure(modules)):
        total.update(name.encode() + _source(name))
    return total.hexdigest()[:16]


def is_cached(bound: Callable[..., Any]) -> bool:
    """Whether a bound driver has been compiled before: its index is in the disk cache."""
    cache = getattr(bound, "_cache", None)
    return cache is None or Path(cache._cache_file._index_path).exists()


def _cached(function: F, modules: Iterable[str], options: Mapping[str, object]) -> F:
    if numba.config.DISABLE_JIT:
        return function
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_root() / digest(modules))
    try:
        dispatcher: Any = numba.njit(cache=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = before
    _forgive(dispatcher._cache._cache_file)
    compiled: F = dispatcher
    return compiled


def _forgive(index: Any) -> None:
    """Let an index of compiled code be read as empty where it names types that are not here.

    A kernel that a user's part has used is cached with that part's State among its types, and then cannot be looked up
    where the part is not loaded. Whoever compiles it next writes the index anew.
    """
    load = index._load_index

    def load_index() -> dict[Any, Any]:
        try:
            found: dict[Any, Any] = load()
        except (ImportError, AttributeError):
            return {}
        return found

    index._load_index = load_index


def _module_of(function: Callable[..., Any]) -> str:
    return getattr(function, "py_func", function).__module__


def _check_signature(stub: Callable[..., Any], function: Callable[..., Any], name: str) -> None:
    want = list(inspect.signature(stub).parameters)
    have = list(inspect.signature(getattr(function, "py_func", function)).parameters)
    if want != have:
        raise TypeError(f"{_module_of(function)}: {name} takes ({', '.join(have)}), must take ({', '.join(want)})")


def _closure(modules: Iterable[str]) -> set[str]:
    found: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(_imports(name))
    return found


@functools.cache
def _source(module: str) -> bytes:
    spec = _find(module)
    return Path(spec.origin).read_bytes() if spec and spec.origin and spec.origin.endswith(".py") else b""


@functools.cache
def _imports(module: str) -> tuple[str, ...]:
    """Modules of the same top-level package, or of kmemexp, that a module imports."""
    tops = {_top(module), "kmemexp"} - {"numba", "numpy"}
    names: set[str] = set()
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level and _top(node.module) in tops:
            names.update(_from(node.module, [alias.name for alias in node.names]))
    return tuple(n for n in sorted(names) if _top(n) in tops and n != module and _find(n))


def _top(module: str) -> str:
    return module.partition(".")[0]


def _from(module: str, names: Iterable[str]) -> Iterator[str]:
    """Modules that `from module import names` brings: of a package only those of its modules that are named."""
    for name in names:
        inner = f"{module}.{name}"
        yield inner if _find(inner) else module


def _find(module: str) -> ModuleSpec | None:
    """Find a module without importing the packages around it, which may be in the midst of being imported."""
    name, *leaves = module.split(".")
    spec = importlib.util.find_spec(name)
    for leaf in leaves:
        loaded = sys.modules.get(name)  # its path may have grown: parts from outside
        places = getattr(loaded, "__path__", None) or (spec.submodule_search_locations if spec else None)
        if not places:
            return None
        name = f"{name}.{leaf}"
        spec = PathFinder.find_spec(name, places)
    return spec
