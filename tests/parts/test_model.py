"""A cell's key covers the sources that simulate it, these and no others, and what they say, not how it is laid out."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kmemexp
from kmemexp import reach
from kmemexp.parts import model

ROOT = Path(kmemexp.__file__).parents[1]
ASK = """
import json, sys
from kmemexp.parts.model import version
cells = {"buckets": ("buckets", "mbuf", "zalloc"), "slab": ("dfly_slab", "mbuf")}
print(json.dumps({f"{n}{t:d}": version(c, "vm_map", t) for n, c in cells.items() for t in (False, True)}))
assert "numba" not in sys.modules
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package."""
    shutil.copytree(ROOT / "kmemexp", tmp_path / "kmemexp", ignore=shutil.ignore_patterns("__pycache__", "data"))
    return tmp_path


def versions(copy: Path) -> dict[str, str]:
    environ = os.environ | {
        "PYTHONPATH": str(copy),
        "XDG_CACHE_HOME": str(copy / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    shown = subprocess.run(
        [sys.executable, "-c", ASK], env=environ, cwd=copy, capture_output=True, text=True, check=True
    )
    return json.loads(shown.stdout)


def edited(copy: Path, path: str, old: str = "", new: str = "X_ = 1\n") -> set[str]:
    """Cells whose version changes with an edit; without `old` it is put at the end."""
    before, file = versions(copy), copy / "kmemexp" / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1) if old else text + new)
    after = versions(copy)
    return {name for name in before if before[name] != after[name]}


def test_an_edit_changes_the_cells_that_reach_it_and_no_others(copy: Path) -> None:
    slab = "sim/allocators/dfly_slab.py" if (copy / "kmemexp/sim/allocators/dfly_slab.py").exists() else None
    slab = slab or "sim/allocators/dfly_slab/__init__.py"
    assert edited(copy, slab) == {"slab0", "slab1"}
    assert edited(copy, "sim/engine/loop.py") == {"buckets1", "slab1"}
    assert edited(copy, "lane/surveying.py", "PICTURED = 4 << 30", "PICTURED = 8 << 30") == {
        "buckets0", "buckets1", "slab0", "slab1",
    }  # fmt: skip
    assert edited(copy, "sweep/execute.py") == set()


def test_comments_and_docstrings_change_nothing(copy: Path) -> None:
    comment = "# bytes\n\n\n"
    text = "PICTURED = 4 << 30  # bytes of the largest map of which a picture shows every page\n"
    assert edited(copy, "lane/surveying.py", text, f"PICTURED = 4 << 30  {comment}") == set()
    assert edited(copy, "lane/surveying.py", '"""Measuring maps', '"""Having measured maps\n\n') == set()


def test_edits_that_are_known_to_change_no_result_change_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy / "kmemexp" / "lane" / "surveying.py"

    def digest() -> str:
        text = path.read_text()
        return hashlib.sha256(reach.stripped(text, ast.parse(text))).hexdigest()[:32]

    old, before = digest(), versions(copy)
    path.write_text(path.read_text().replace("PICTURED = 4 << 30", "PICTURED = 1 << 32"))
    assert versions(copy) != before
    entry = {"kmemexp.lane.surveying": {digest(): old}}
    (copy / "kmemexp" / "parts" / "compat.json").write_text(json.dumps(entry))
    assert versions(copy) == before


def test_what_stands_for_itself_is_refused() -> None:
    assert model.origin("c", {"c": "b", "b": "a"}) == "a"
    with pytest.raises(ValueError, match="stands for itself"):
        model.origin("b", {"b": "a", "a": "b"})


def test_every_entry_is_of_a_source_that_simulates() -> None:
    for name, same in model.compat().items():
        assert reach.find(name), name
        for digest in same:
            model.origin(digest, same)
