"""The generated reference: it says of everything what it is, and the pages are those of the code."""

import importlib.util
from pathlib import Path

import pytest

from kmemexp.metrics import NAMES
from kmemexp.planning.plan import open_loader
from kmemexp.report import reference

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


@pytest.mark.parametrize("name", ["designs.md", "knobs.md", "metrics.md", "workloads.md"])
def test_the_pages_are_those_of_the_code(pages: dict[str, str], name: str) -> None:
    kept = (ROOT / "docs" / "reference" / name).read_text("utf-8")
    assert kept == pages[name], "python docs/make_reference.py writes it anew"


def test_every_metric_says_what_it_is_without_another_one() -> None:
    entries = reference.metrics()
    assert [entry.name for entry in entries] == list(NAMES)
    for entry in entries:
        assert entry.text
        assert not entry.text.startswith(("the same", "those", "that "))
        assert {"unit", "better", "margin", "law"} <= entry.facts.keys()


def test_keys_have_defaults_and_meanings() -> None:
    with open_loader() as loader:
        found = {entry.name: entry for entry in reference.knobs(loader)}
    assert found["sweep.reps.budget.replicas"].text == "of all cells together"
    assert found["objects.params.dfly_slab.release_threshold"].facts["default"].isdecimal()
    assert found["cost.alloc_ns"].text  # from the files of its group
    assert found["sample.points"].text.startswith("rows of the time series")
    assert found["machine.cpus"].text
    bare = [name for name, entry in found.items() if not entry.text]
    assert len(bare) <= len(found) / 5, bare


def test_loads_say_what_they_are() -> None:
    with open_loader() as loader:
        found = {entry.name: entry for entry in reference.workloads(loader)}
    assert found["server2003"].text.startswith("A small two-way web and shell server of 2003")
    assert found["filetree"].facts["source"] == "trace"
    assert all(entry.text for entry in found.values())
