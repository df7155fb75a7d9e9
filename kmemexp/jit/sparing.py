"""What Numba does over and over while it compiles, done once or not at all: a quarter of compile time.

What is compiled stays the same. Timers and listeners of Numba's compile events hear nothing of what is inside. Made for
Numba 0.68; `tests/test_jit_resolving.py` says what is relied on.
"""

import contextlib
import gc
import importlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import BuiltinFunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from numba.core import (
    analysis,
    base,
    caching,
    codegen,
    errors,
    event,
    ir,
    lowering,
    postproc,
    transforms,
    typeinfer,
    types,
    typing,
)
from numba.core.typing import typeof

from kmemexp.jit import resolving

NOTHING, VARIABLE, STATEMENT, ROW, TABLE = range(5)
_kinds: dict[type, int] = {}
"""What an attribute of a statement is, by its type."""


def _kind_of(of: type) -> int:
    kinds = (ir.Var, VARIABLE), (ir.Inst, STATEMENT), ((list, tuple), ROW), (dict, TABLE)
    found = next((kind for bases, kind in kinds if issubclass(of, bases)), NOTHING)
    _kinds[of] = found
    return found


def _variables(values: Iterable[Any], found: list[Any]) -> list[Any]:
    """Add all variables in these attributes to a list, in Numba's order."""
    for value in values:
        of = type(value)
        kind = _kinds[of] if of in _kinds else _kind_of(of)
        if kind == NOTHING:
            continue
        if kind == VARIABLE:
            found.append(value)
        elif kind == STATEMENT:
            found.extend(value.list_vars())
        else:
            _variables(value.values() if kind == TABLE else value, found)
    return found


def _of_statement(statement: Any) -> list[Any]:
    """`Stmt.list_vars`, without asking for the type of each attribute each time."""
    return _variables(statement.__dict__.values(), [])


def _of_expression(expression: Any) -> list[Any]:
    """`Expr.list_vars`, likewise."""
    return _variables(expression._kws.values(), [])


def _uses_and_definitions(blocks: Any) -> Any:
    """`analysis.compute_use_defs`, which looks at an assignment's right side once."""
    uses: dict[Any, set[str]] = {}
    definitions: dict[Any, set[str]] = {}
    for offset, block in blocks.items():
        used = uses[offset] = set()
        defined = definitions[offset] = set()
        for statement in block.body:
            if type(statement) in analysis.ir_extension_usedefs:
                analysis.ir_extension_usedefs[type(statement)](statement, used, defined)
                continue
            if isinstance(statement, ir.Assign):
                names = {v.name for v in _variables((statement.value,), [])}
                if statement.target.name not in names:
                    defined.add(statement.target.name)
            else:
                names = {v.name for v in statement.list_vars()}
            used |= names - defined
    return analysis._use_defs_result(usemap=uses, defmap=definitions)


def _start(kind: str, data: Any = None) -> None:
    """`event.start_event` that nobody hears."""


def _end(kind: str, data: Any = None, exc_details: Any = None) -> None:
    """`event.end_event`, likewise."""


def _timer(kind: str, callback: Any) -> contextlib.AbstractContextManager[None]:
    """`event.install_timer` that measures nothing."""
    return contextlib.nullcontext()


_refresh, _refresh_types = base.BaseContext.refresh, typing.BaseContext.refresh
_seen: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""How much was registered when a context was refreshed."""


def _registered(context: Any) -> int:
    lists = (kept for registry in context._registries for kept in vars(registry).values() if type(kept) is list)
    return sum(map(len, lists))


_asked: WeakKeyDictionary[Any, tuple[int, int]] = WeakKeyDictionary()
"""In which use of `sparing`, and beside how many modules, a context was last looked at."""
_uses = itertools.count()
_use = 0


def _is_fresh(context: Any) -> bool:
    """Whether a context knows all that is registered. What is registered while code is compiled comes with a module."""
    now = _use, len(sys.modules)
    if _asked.get(context) == now:
        return True
    _asked[context] = now
    return _seen.get(context) == _registered(context)


def _refresh_context(context: Any) -> None:
    """`BaseContext.refresh` of code generation, where something has been registered since."""
    if _is_fresh(context):
        _refresh_typing(context.typing_context)
        return
    _refresh(context)
    _seen[context] = _registered(context)


def _refresh_typing(context: Any) -> None:
    """`BaseContext.refresh` of typing, likewise."""
    if not _is_fresh(context):
        _refresh_types(context)
        _seen[context] = _registered(context)


class _Plain(errors._DummyColorScheme):
    """Words of errors as they are: most errors are asked for, and dropped, and each would be painted."""

    def _as_it_is(self, msg: str) -> str:
        return msg

    code = errmsg = filename = indicate = highlight = reset = _as_it_is


_PLAIN = _Plain()


def _plain() -> _Plain:
    """`errors.termcolor`."""
    return _PLAIN


def _no_constant(error: Any, value: str, loc: Any = None) -> None:
    """`ConstantInferenceError.__init__` that quotes no source: only Numba asks whether something is a constant."""
    Exception.__init__(error, value)
    error.msg, error.loc = value, loc


_resolve_value_type = typing.BaseContext.resolve_value_type


def _value_type(context: Any, value: Any) -> Any:
    """`BaseContext.resolve_value_type`, which has to fail first for what is registered by name."""
    if type(value) in (BuiltinFunctionType, ModuleType):
        found = context._get_global_type(value)
        if found is not None:
            return found
    return _resolve_value_type(context, value)


def _maybe_literal(value: Any) -> Any:
    """`types.maybe_literal`, without an error to catch."""
    made = types.Literal.ctor_map.get(type(value))
    return made(value) if made else None


_post_process = postproc.PostProcessor.run


def _post_processed(post: Any, emit_dels: bool = False, extend_lifetimes: bool = False) -> None:
    """`PostProcessor.run`, which looks at what is alive where somebody asks: only generators do."""
    code = post.func_ir
    if emit_dels or code.is_generator:
        _post_process(post, emit_dels, extend_lifetimes)
        return
    code.blocks = transforms.canonicalize_cfg(code.blocks)
    code.variable_lifetime = postproc.VariableLifetime(code.blocks)
    code.generator_info = None


class _Context:
    """`errors.new_error_context`, in a quarter of the time where there is no error."""

    __slots__ = ("said",)

    def __init__(self, *args: Any, **kws: Any) -> None:
        self.said = args, kws

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, errors.NumbaError):
            args, kws = self.said
            with _error_context(*args, **kws):
                raise error


_error_context = errors.new_error_context
_magic_tuple = codegen.CPUCodegen.magic_tuple
_magic: dict[int, tuple[Any, Any]] = {}
"""By the identity of a code generator: what `magic_tuple` says, and the generator, kept alive."""


def _magic_known(generator: Any) -> Any:
    """`CPUCodegen.magic_tuple`, which asks the processor for its name each time."""
    if id(generator) not in _magic:
        _magic[id(generator)] = _magic_tuple(generator), generator
    return _magic[id(generator)][0]


def _ensure_path(locator: Any) -> None:
    """`_CacheLocator.ensure_cache_path`, without a file that is written to see whether files can be."""
    Path(locator.get_cache_path()).mkdir(parents=True, exist_ok=True)


def _no_blas() -> None:
    """`linalg.ensure_blas` of a machine without one."""
    raise ImportError


def _load_array_functions() -> None:
    """Load Numba's functions of arrays, which otherwise load a third of SciPy to see whether it has a BLAS."""
    if "numba.np.arraymath" in sys.modules:
        return
    linalg: Any = importlib.import_module("numba.np.linalg")
    ensure, linalg.ensure_blas = linalg.ensure_blas, _no_blas
    try:
        functions: Any = importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = ensure
    # Whether SciPy is there, Numba's own import has found out; who multiplies matrices loads the rest.
    functions.ensure_blas, functions._HAVE_BLAS = ensure, "scipy" in sys.modules


PATCHES: tuple[tuple[Any, str, Any], ...] = (
    *resolving.PATCHES,
    (ir.Stmt, "list_vars", _of_statement),
    (ir.Expr, "list_vars", _of_expression),
    (analysis, "compute_use_defs", _uses_and_definitions),
    (event, "start_event", _start),
    (event, "end_event", _end),
    (event, "install_timer", _timer),
    (base.BaseContext, "refresh", _refresh_context),
    (typing.BaseContext, "refresh", _refresh_typing),
    (typing.BaseContext, "resolve_value_type", _value_type),
    (types, "maybe_literal", _maybe_literal),
    (typeof, "_termcolor", _PLAIN),
    (errors, "termcolor", _plain),
    (errors.ConstantInferenceError, "__init__", _no_constant),
    (postproc.PostProcessor, "run", _post_processed),
    (typeinfer, "new_error_context", _Context),
    (lowering, "new_error_context", _Context),
    (codegen.CPUCodegen, "magic_tuple", _magic_known),
    (caching._CacheLocator, "ensure_cache_path", _ensure_path),
)


@contextlib.contextmanager
def sparing() -> Iterator[None]:
    """Inside, Numba compiles with these shortcuts, and no garbage is looked for. Numba's compiler lock is held."""
    if ir.Stmt.list_vars is _of_statement:
        yield
        return
    _load_array_functions()
    global _use  # noqa: PLW0603 - of the process, as what it counts for
    _use = next(_uses)
    before = [getattr(holder, name) for holder, name, _ in PATCHES]
    collects = gc.isenabled()
    gc.disable()
    for holder, name, ours in PATCHES:
        setattr(holder, name, ours)
    try:
        yield
    finally:
        for (holder, name, _), theirs in zip(PATCHES, before, strict=True):
            setattr(holder, name, theirs)
        if collects:
            gc.enable()
