"""The cell's identity: the same key for the same configuration, for as long as results are to be found by it."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_cell import CELL

from kmemexp.config import cell

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def shuffled(value):
    if isinstance(value, dict):
        return {k: shuffled(value[k]) for k in reversed(value)}
    return [shuffled(v) for v in value] if isinstance(value, list) else value


def test_key_is_what_results_on_disk_are_found_by():
    """Golden: a change of this value makes every stored result unreachable."""
    assert cell.key_of(cell.canonical(CELL), "0123456789abcdef") == "42f96da23d1e0acab5067d936b0cf552"


def test_canonical_form():
    assert cell.canonical({"b": 1.0, "a": [True, None, 2.5, "é"]}) == '{"a":[true,null,2.5,"\\u00e9"],"b":1}'


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_key_does_not_depend_on_the_order_of_keys(tree):
    assert cell.cell_key(shuffled(tree)) == cell.cell_key(tree)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_canonical_form_is_json_of_the_same_value(tree):
    text = cell.canonical(tree)
    assert json.loads(text) == tree
    assert cell.canonical(json.loads(text)) == text
    assert cell.key_of(text, "") == cell.cell_key(tree)


@pytest.mark.parametrize("path", [("seed",), ("machine", "cpus"), ("sample", "bins"), ("workload", "copies")])
def test_key_depends_on_every_value(path):
    changed = json.loads(json.dumps(CELL))
    place = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] += 1
    assert cell.cell_key(changed) != cell.cell_key(CELL)


def test_key_depends_on_the_model_version(monkeypatch):
    before = cell.cell_key(CELL)
    monkeypatch.setattr(cell, "MODEL_VERSION", cell.MODEL_VERSION + 1)
    assert cell.cell_key(CELL) != before


def test_no_value_that_json_cannot_hold():
    with pytest.raises(ValueError, match="JSON"):
        cell.canonical({"a": float("nan")})


def test_cell_imports_nothing_heavy():
    code = "import sys, kmemexp.config.cell; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"hydra", "omegaconf", "numpy", "pandas", "numba", "ray", "rich"} & set(found)
