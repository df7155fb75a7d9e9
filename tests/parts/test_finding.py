"""What a plan reads of a part, without importing it, is what the imported part has."""

import importlib
import subprocess
import sys

import pytest

from kmemexp.errors import ConfigError
from kmemexp.parts import finding
from kmemexp.sim import allocators
from kmemexp.sim.slots import SERVED

NAMES = finding.parts("allocators")


@pytest.mark.parametrize("name", NAMES)
def test_what_an_allocator_serves_and_sets_aside(name: str) -> None:
    module = importlib.import_module(f"kmemexp.sim.allocators.{name}")
    assert finding.serves(name) == [word for number, word in enumerate(SERVED) if number in module.SERVES]
    assert finding.sets_aside(name) == hasattr(module, "kva_reserved")


@pytest.mark.parametrize(("room", "name"), [(r, n) for r in ("allocators", "arenas") for n in finding.parts(r)])
def test_parameters_of_a_part(room: str, name: str) -> None:
    module = importlib.import_module(f"kmemexp.sim.{room}.{name}")
    assert finding.parameters(room, name) == module.Params._fields


def test_parameters_are_read_without_numba() -> None:
    code = (
        "import sys; from kmemexp.parts.finding import parameters, parts, serves, sets_aside\n"
        "for room in ('allocators', 'arenas'):\n    [parameters(room, name) for name in parts(room)]\n"
        "[(serves(name), sets_aside(name)) for name in parts('allocators')]\nassert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_part_imports_by_name_counts_as_its_own(tmp_path, monkeypatch) -> None:
    (tmp_path / "derived.py").write_text(
        "from kmemexp.sim.allocators.zalloc import SERVES, Params, kva_reserved as kva_reserved\n"
    )
    (tmp_path / "empty.py").write_text("")
    monkeypatch.setattr(allocators, "__path__", [*allocators.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    assert finding.serves("derived") == finding.serves("zalloc")
    assert finding.sets_aside("derived")
    assert finding.parameters("allocators", "derived") == finding.parameters("allocators", "zalloc")
    with pytest.raises(ConfigError, match="allocator empty: its module has no constant SERVES"):
        finding.serves("empty")
    with pytest.raises(ConfigError, match="allocator empty: its module has no class Params"):
        finding.parameters("allocators", "empty")


def test_a_part_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no part is called 'bucket'; there are .*buckets, "):
        finding.part(allocators, "bucket")
