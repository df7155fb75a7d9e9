"""What an allocator or arena must provide: the names of docs/architecture.md, with the parameters of `sim/slots.py`."""

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from kmemexp.errors import ConfigError
from kmemexp.parts import lock_spec, map_calls
from kmemexp.sim import slots

INIT = {
    "allocators": ["params", "kva_bytes", "cpus", "map_number", "items", "bases"],
    "arenas": ["params", "kva_bytes", "cpus", "maps"],
}
KERNELS = {
    "allocators": {"alloc": slots.alloc_a, "free": slots.free_a},
    "arenas": {
        name: getattr(slots, name)
        for name in ("map_alloc", "map_free", "map_free_bytes", "map_walked", "map_measure", "map_paint")
    },
}
OPTIONAL = {
    "allocators": {"tend": slots.tend_a, "fast_alloc": slots.fast_alloc_a, "fast_free": slots.fast_free_a},
    "arenas": {"map_attr": slots.map_attr, "map_flushes": slots.map_flushes, "map_moved": slots.map_moved},
}
OPTIONAL_PLAIN = {"allocators": {"caches": ["st", "live"]}, "arenas": {}}
PLAIN = {"allocators": ("census",), "arenas": ("add_map", "census")}
CLASSES = (slots.CLASS_MALLOC, slots.CLASS_ZONE, slots.CLASS_MBUF)
PER = ("", "cpu", "item", "own")
LEAST_DOCSTRING = 60


def problems(module: ModuleType, room: str) -> Iterator[str]:
    """What is missing or wrong in a part of `room` ("allocators" or "arenas"); nothing for a sound one."""
    if len(module.__doc__ or "") < LEAST_DOCSTRING:
        yield "its docstring must say which real code it models, and what it leaves out"
    params = getattr(module, "Params", None)
    if not (isinstance(params, type) and issubclass(params, tuple)):
        yield "there is no Params (a NamedTuple of integers with defaults)"
    elif not all(isinstance(v, int) for v in params()):
        yield "Params: each field needs an integer as default"
    yield from _functions(module, room)
    yield from _calls(module)
    if room == "allocators":
        yield from _allocator(module)


def parameters(function: Any) -> list[str]:
    """Names of the parameters of a kernel or a plain function."""
    return list(inspect.signature(getattr(function, "py_func", function)).parameters)


def _functions(module: ModuleType, room: str) -> Iterator[str]:
    wanted = {name: parameters(stub) for name, stub in KERNELS[room].items()} | {"init": INIT[room]}
    optional = {name: parameters(stub) for name, stub in OPTIONAL[room].items()} | OPTIONAL_PLAIN[room]
    wanted |= {name: names for name, names in optional.items() if hasattr(module, name)}
    for name, names in wanted.items():
        function = getattr(module, name, None)
        if function is None:
            yield f"there is no {name}({', '.join(names)})"
        elif parameters(function) != names:
            yield f"{name} takes ({', '.join(parameters(function))}), must take ({', '.join(names)})"
    for name in PLAIN[room]:
        if not callable(getattr(module, name, None)):
            yield f"there is no function {name}"


def _calls(module: ModuleType) -> Iterator[str]:
    calls = getattr(module, "CALLS", ())
    if len(calls) > map_calls.MOST:
        yield f"CALLS: there may be {map_calls.MOST} at most"
    for text in calls:
        try:
            map_calls.rows(text)
        except ConfigError as error:
            yield f"CALLS: {error}"


def _allocator(module: ModuleType) -> Iterator[str]:
    if not set(getattr(module, "SERVES", (None,))) <= set(CLASSES):
        yield "SERVES must name what it serves: C_MALLOC, C_ZONE, C_MBUF"
    locks = getattr(module, "LOCKS", ())
    if not locks:
        yield "LOCKS must name the lock of a first step at least"
    for spec in locks:
        word, _, per = str(spec).partition("/")
        try:
            lock_spec.lock_row(word, 0)
        except ConfigError as error:
            yield f"LOCKS: {error}"
        if per not in PER:
            yield f"LOCKS: {spec!r}: after the slash comes cpu, item or own"
        if per == "own" and not hasattr(module, "lock_count"):
            yield f"LOCKS: {spec!r} needs a function lock_count(state, class)"
