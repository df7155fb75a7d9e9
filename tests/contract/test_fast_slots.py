"""An allocator's fast slots do what its steps do, to the last bit, and what they refuse they have not touched."""

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import fast_slots
import pytest

from kmemexp.parts import finding
from kmemexp.sim import allocators

TESTS = Path(__file__).resolve().parents[1]
MODULES = {name: importlib.import_module(f"{allocators.__name__}.{name}") for name in finding.parts("allocators")}
ALLOCATORS = [name for name, module in MODULES.items() if hasattr(module, "fast_alloc")]


COMPILED = ("buckets", "dfly_slab", "slub")
OTHERS = [name for name in ALLOCATORS if name not in COMPILED]
BATCHES = [COMPILED, *(tuple(OTHERS[k::3]) for k in range(3))]
"""Played by a process each, which takes a second to start; several, so that workers share them."""


@functools.cache
def in_plain_python(names: tuple[str, ...]) -> dict[str, tuple[float, str]]:
    """Compare as plain Python, in a process of its own: compiling three drivers for each would take far longer."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, fast_slots.__file__, *names]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    lines = zip(names, run.stdout.splitlines(), strict=True)
    return {name: (float(line.split()[0]), line.split()[1]) for name, line in lines}


@pytest.mark.parametrize("names", BATCHES, ids="-".join)
def test_fast_slots_leave_what_the_steps_leave_and_serve_nearly_half(names: tuple[str, ...]) -> None:
    assert {name: share for name, (share, _) in in_plain_python(names).items() if share <= 0.45} == {}


@pytest.mark.parametrize("name", COMPILED)
def test_the_compiled_driver_leaves_what_the_steps_leave(name: str) -> None:
    assert fast_slots.played(name) == in_plain_python(COMPILED)[name][1]
