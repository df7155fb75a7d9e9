"""Every decision about Numba: options, the disk cache and its key, states by pointer, binding a driver to a design.

May import nothing of kmemexp but `reach`: every room may import it.

Three facts of Numba's cache shape this room (numba 0.68). Its key holds the bytecode of the jitted function but
neither its callees in other files nor constants imported from there, nor flags such as NUMBA_BOUNDSCHECK: so each
cached function lives in a folder named by a digest of all sources it reaches and of the flags (`disk`). Two functions
with the same code object and qualified name would load each other's machine code: so a bound driver and a twin get
qualified names of their own. Closures and dispatchers as arguments never hit: so neither is used.
"""

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache

from kmemexp.jit import disk, packed, pipeline, twins
from kmemexp.jit.fetching import prefetch
from kmemexp.jit.refs import by_pointer, ref

__all__ = ["bind", "entry", "is_cached", "kernel", "outlined", "outlined_template", "prefetch", "ref", "template"]

# Nothing takes the address of compiled code as a C function.
OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
# Kernels of the simulated machine allocate nothing, so they are compiled without reference counts: with them, each
# call that is not inlined counts every array of every state up and down (4 times slower, 3 times longer to compile).
UNCOUNTED = OPTIONS | {"_nrt": False}
# What is only called from compiled code needs no wrapper for Python, which would unbox whole states.
UNWRAPPED = UNCOUNTED | {"no_cpython_wrapper": True}
# Numba hands `forceinline` down from caller to callee unless told otherwise, so every kernel says it.
INLINED = UNWRAPPED | {"forceinline": True, "pipeline_class": pipeline.Inlining}
STAYING = UNWRAPPED | {"forceinline": False, "pipeline_class": pipeline.Staying}
OUTLINED = UNWRAPPED | {"forceinline": False, "pipeline_class": pipeline.Outlining}
DRIVER = UNCOUNTED | {"forceinline": False, "pipeline_class": pipeline.Driving}
ENTRY = OPTIONS | {"pipeline_class": pipeline.Entering}
F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a function that other kernels call, into its caller, and that allocates nothing.

    It has no closures, comprehensions, `with` or `raise`: Numba's passes for them are left out.
    Python cannot call it (TypeError): `entry(function)` is what Python calls.
    """
    return _inside(_cached(function, [function.__module__], INLINED, pipeline.InlinedCache))


def outlined(function: F) -> F:
    """Compile a kernel that stays a function of its own: code that seldom runs, and would bloat its callers."""
    return _inside(_cached(function, [function.__module__], OUTLINED, pipeline.OutlinedCache))


def _inside(dispatcher: F) -> F:
    """Make of a dispatcher one that only compiled code calls.

    It is compiled once for an integer argument, where Numba would do so for each constant that it is given, and takes
    tuples by pointer.
    """
    if numba.config.DISABLE_JIT:
        return dispatcher
    compiled: Any = dispatcher
    compiled.__class__ = pipeline.Inside
    template = compiled.get_call_template

    def get_call_template(args: tuple[Any, ...], kws: Mapping[str, Any]) -> Any:
        return template(tuple(map(by_pointer, args)), {k: by_pointer(v) for k, v in kws.items()})

    compiled.get_call_template = get_call_template
    return dispatcher


def entry(function: F) -> F:
    """Compile a function that Python calls, cached on disk under a digest of the sources it reaches.

    Of a kernel it makes a twin that takes what Python has. A function that calls kernels in a loop takes `ref`s of its
    tuples first, or each call would.
    """
    if numba.config.DISABLE_JIT:
        return function
    if isinstance(function, pipeline.Inside):
        twin: F = _twin(function)
        return twin
    return _cached(function, [function.__module__], ENTRY)


@functools.cache
def _twin(kernel: Any) -> Any:
    function = kernel.py_func
    call = twins.call(len(inspect.signature(function).parameters))
    name = f"{function.__module__}.{function.__qualname__}[entry]"
    return packed.Packing(_cached(_copy(call, name, {"kernel": kernel}), [function.__module__], DRIVER))


def template(function: F) -> F:
    """Mark a function that calls slots, itself or through other templates: only `bind` makes it runnable."""
    function.is_template = True  # type: ignore[attr-defined]  # functions take attributes
    return function


def outlined_template(function: F) -> F:
    """Mark a template that stays a function of its own: what seldom runs, and would bloat its callers."""
    function.is_outlined = True  # type: ignore[attr-defined]  # functions take attributes
    return template(function)


def bind(function: F, functions: Mapping[str, Callable[..., Any]], label: str) -> F:
    """Make a driver template call `functions` by its bare names, and compile it.

    `label` names the design; equal labels with different functions would share a cache entry, so it must name every
    part. Raises TypeError where a function's parameters differ from those of the stub of the same name.
    """
    for name, part in functions.items():
        _check_signature(_stub(function, name), part, name)
    modules = [function.__module__, *(_module_of(f) for f in functions.values())]
    inlined = {name: _inlined(part) for name, part in functions.items()}
    driver: Any = _cached(_rebind(function, inlined, label, modules), modules, DRIVER)
    return driver if numba.config.DISABLE_JIT else packed.Packing(driver)  # type: ignore[return-value]  # called alike


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


def _inlined(function: F, options: Mapping[str, object] = INLINED) -> F:
    """Compile a part into its driver, where it is not a kernel anyway."""
    if numba.config.DISABLE_JIT or getattr(function, "targetoptions", {}).get("forceinline"):
        return function
    compiled: F = numba.njit(**options)(getattr(function, "py_func", function))
    return _inside(compiled)


def _rebind(
    function: F,
    slots: Mapping[str, Callable[..., Any]],
    label: str,
    modules: list[str],
    done: dict[Any, Callable[..., Any]] | None = None,
) -> F:
    """Copy a template with other globals: `slots`, and copies of the templates that it calls, as kernels.

    `modules`: those of the driver and of its parts, by which a copy's symbol is told from that of an edited part's.
    `done`: templates that have been copied. Two of one name in two modules are two.
    """
    done = {} if done is None else done
    used: dict[str, Callable[..., Any]] = {}
    for name in function.__code__.co_names:
        called: Any = function.__globals__.get(name)
        if name in slots:
            used[name] = slots[name]
        elif _is_template(called):
            if called not in done:
                options = STAYING if getattr(called, "is_outlined", False) else INLINED
                done[called] = _inlined(_rebind(called, slots, label, modules, done), options)
            used[name] = done[called]
    copy = _copy(function, f"{function.__name__}[{label}]", used)
    copy.sources = modules  # type: ignore[attr-defined]  # functions take attributes
    return copy


def _copy(function: F, name: str, functions: Mapping[str, Callable[..., Any]]) -> F:
    """Copy a function under another name and with other globals: both are part of what Numba's cache goes by."""
    copy: Any = types.FunctionType(
        function.__code__, {**function.__globals__, **functions}, name, function.__defaults__, function.__closure__
    )
    copy.__qualname__ = copy.__name__
    copy.__module__ = function.__module__
    copied: F = copy
    return copied


def is_cached(bound: Callable[..., Any]) -> bool:
    """Whether a bound driver has been compiled before: its index is in the disk cache."""
    cache = getattr(bound, "_cache", None)
    return cache is None or Path(cache._cache_file._index_path).exists()


def _cached(
    function: F, modules: Iterable[str], options: Mapping[str, object], cache: type[FunctionCache] = FunctionCache
) -> F:
    if numba.config.DISABLE_JIT:
        return function
    dispatcher: Any = numba.njit(**options)(function)
    dispatcher.__class__ = pipeline.Once
    with _folder(*modules):
        dispatcher._cache = cache(function)
    disk.forgive(dispatcher._cache._cache_file)
    compiled: F = dispatcher
    return compiled


@contextlib.contextmanager
def _folder(*modules: str) -> Iterator[None]:
    """Inside, Numba keeps what it compiles in the folder of these modules."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(disk.cache_root() / disk.digest(modules))
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


def _module_of(function: Callable[..., Any]) -> str:
    return getattr(function, "py_func", function).__module__


def _check_signature(stub: Callable[..., Any], function: Callable[..., Any], name: str) -> None:
    want = list(inspect.signature(stub).parameters)
    have = list(inspect.signature(getattr(function, "py_func", function)).parameters)
    if want != have:
        raise TypeError(f"{_module_of(function)}: {name} takes ({', '.join(have)}), must take ({', '.join(want)})")
