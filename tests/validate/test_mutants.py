"""Mutants: the list is up to date with the sources, and one that a check sees is caught in a copy of the package."""

from collections import Counter

import pytest

from kmemexp.errors import ConfigError
from kmemexp.validate import mutants, suite


def test_every_mutant_is_an_edit_of_what_stands_there_now():
    found = mutants.mutants()
    assert len(found) >= 40
    assert max(Counter(m.name for m in found).values()) == 1
    assert {name for m in found for name in m.checks} <= suite.checks().keys()


def test_they_are_spread_over_the_package():
    rooms = {
        m.file.partition("/")[0] if not m.file.startswith("sim/") else m.file.split("/")[1] for m in mutants.mutants()
    }
    assert {"engine", "allocators", "arenas", "workload", "store", "report"} <= rooms


def test_a_mutant_whose_text_is_gone_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "report").mkdir()
    for one in mutants.mutants():
        path = tmp_path / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("nothing of the kind")
    monkeypatch.setattr(mutants, "PACKAGE", tmp_path)
    with pytest.raises(ConfigError, match="0 times"):
        mutants.mutants()


def test_a_row_that_passes_no_more_or_is_not_there_catches_a_mutant():
    (one, *_) = mutants.mutants()
    one = one._replace(checks=("A",))
    sound = {("A1", "x", True, "A"), ("A1", "y", True, "A"), ("B", "z", True, "B")}
    assert mutants._fate(one, sound, [["A1", "x", True, "A"], ["A1", "y", True, "A"]]).caught == ()
    assert mutants._fate(one, sound, [["A1", "x", False, "A"], ["A1", "y", True, "A"]]).caught == ("A1: x",)
    assert mutants._fate(one, sound, []).checks == ("A", "A")


def test_a_mutant_of_the_statistics_is_caught():
    (wilson,) = (m for m in mutants.mutants() if m.name == "wilson-too-wide")
    (fate,) = mutants.run([wilson], 0, 1)
    assert fate.checks == ("S1",)
    assert "Wilson" in fate.caught[0]
