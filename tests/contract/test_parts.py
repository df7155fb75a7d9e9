"""Every allocator and arena found by name keeps the promises of `sim/slots.py` on the real driver."""

import importlib
import inspect
import pkgutil

import pytest

from kmemexp.sim import allocators, arenas, slots

ALLOCATORS = sorted(m.name for m in pkgutil.iter_modules(allocators.__path__))
ARENAS = sorted(m.name for m in pkgutil.iter_modules(arenas.__path__))


def parameters(function: object) -> list[str]:
    return list(inspect.signature(getattr(function, "py_func", function)).parameters)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_an_allocator_has_every_name_that_a_design_needs(name: str) -> None:
    module = importlib.import_module(f"{allocators.__name__}.{name}")
    assert len(module.__doc__) > 60
    assert issubclass(module.Params, tuple)
    assert all(isinstance(v, int) for v in module.Params())
    assert parameters(module.alloc) == parameters(slots.alloc_a)
    assert parameters(module.free) == parameters(slots.free_a)
    wanted = ["params", "kva_bytes", "cpus", "map_number", "items", "bases"]
    assert parameters(module.init) == wanted
    assert callable(module.census)


@pytest.mark.parametrize("name", ARENAS)
def test_an_arena_has_every_name_that_a_design_needs(name: str) -> None:
    module = importlib.import_module(f"{arenas.__name__}.{name}")
    for verb in ("map_alloc", "map_free", "map_free_bytes", "map_measure", "map_paint"):
        assert parameters(getattr(module, verb)) == parameters(getattr(slots, verb))
    assert callable(module.init)
    assert callable(module.add_map)
    assert callable(module.census)
