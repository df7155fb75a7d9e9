"""Tables that stand in the folder are shown again, unless anything that they are made of has changed."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import report_fakes as fakes
from rich.console import Console

from kmemexp.report import ending, kept, tables
from kmemexp.store.store import Store

ROWS = fakes.metrics_table(fakes.grid(), replicas=3)


def draw(plan, width=120, **how):
    out = io.StringIO()
    ending.finish(plan, Console(file=out, width=width), **how)
    return out.getvalue()


@pytest.fixture
def made(monkeypatch):
    """One entry each time that tables are made."""
    seen = []
    make = tables.make

    def counted(plan, there):
        seen.append(plan.name)
        return make(plan, there)

    monkeypatch.setattr(tables, "make", counted)
    return seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder whose tables have been made: that takes half a second, and most tests begin there."""
    folder = tmp_path_factory.mktemp("whole")
    fakes.write(folder, ROWS)
    draw(fakes.plan(folder, ROWS))
    return folder


@pytest.fixture
def plan(tmp_path, whole, made):
    """A plan whose tables are there. The files are links: marks are of inodes. No test may write into one."""
    shutil.copytree(whole, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    plan = fakes.plan(tmp_path, ROWS)
    plan.shown = draw(plan)
    assert not made
    return plan


def put(path, text):
    """Write another file in the place of one."""
    path.unlink()
    path.write_text(text)


def contents(plan):
    return {path.name: path.read_bytes() for path in Path(plan.root, "tables").iterdir()}


def test_what_has_not_changed_is_shown_and_not_written(plan, made):
    before = {path: path.stat() for path in Path(plan.root).rglob("*") if path.is_file()}
    assert draw(plan) == plan.shown
    assert not made
    assert before == {path: path.stat() for path in Path(plan.root).rglob("*") if path.is_file()}


def test_another_console_shows_the_same_in_its_own_width(plan, made):
    narrow = draw(plan, width=64)
    assert not made
    assert narrow == draw(plan, width=64, anew=True)
    assert narrow != plan.shown


def test_colours_are_kept_apart_from_none(plan, made):
    out = io.StringIO()
    ending.finish(plan, Console(file=out, width=120, force_terminal=True, color_system="standard"))
    assert not made
    assert "\x1b[" in out.getvalue()
    assert draw(plan) == plan.shown


def test_a_quiet_console_prints_nothing(plan):
    out = io.StringIO()
    ending.finish(plan, Console(file=out, quiet=True))
    assert out.getvalue() == ""


def test_asked_for_anew_they_are_made(plan, made):
    assert draw(plan, anew=True) == plan.shown
    assert made


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"baseline": {"design": "dragonfly_2003oct"}},
        {"baseline": {}},
        {"metrics": ["held_peak_bytes"]},
        {"replicas": 2},
        {"replicas": 4},
    ],
    ids=str,
)
def test_another_plan_has_other_tables(plan, made, change):
    for name, value in change.items():
        setattr(plan, name, value)
    assert draw(plan) == draw(plan, anew=True) != plan.shown
    assert len(made) == 2
    assert draw(plan) == draw(plan, width=120)  # of this one they are kept now
    assert len(made) == 2


def drop_a_cell(columns):
    return {name: column[1:] for name, column in columns.items()}


def other_order(columns):
    return {name: column[::-1] for name, column in columns.items()}


def other_axes(columns):
    axes = [json.dumps(json.loads(text) | {"machine.cpus": i}) for i, text in enumerate(columns["axes"])]
    return columns | {"axes": axes}


def other_keys(columns):
    return columns | {"cell_key": [f"{int(key, 16) + 1:032x}" for key in columns["cell_key"]]}


@pytest.mark.parametrize("change", [drop_a_cell, other_order, other_axes, other_keys])
def test_other_cells_have_other_tables(plan, made, change):
    plan.columns = change(plan.columns)
    assert draw(plan) != plan.shown
    assert made


def test_new_rows_make_new_tables(tmp_path, made):
    fakes.write(tmp_path, fakes.metrics_table(fakes.grid(), replicas=2))
    plan = fakes.plan(tmp_path, ROWS)
    assert "Not simulated yet" in draw(plan)
    fakes.write(tmp_path, ROWS)
    assert "Not simulated yet" not in draw(plan)
    assert len(made) == 2


def rewritten(path):
    """The same file, written again."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))


def test_a_changed_file_of_rows_makes_new_tables(plan, made):
    rewritten(next(Path(plan.root, "data").glob("*.parquet")))
    draw(plan)
    assert made


def test_merged_files_make_new_tables_that_say_the_same(tmp_path, made):
    for replicas in (2, 3):
        fakes.write(tmp_path, fakes.metrics_table(fakes.grid(), replicas=replicas))
    plan = fakes.plan(tmp_path, ROWS)
    shown = draw(plan)
    assert Store(plan.root, write=True).compact()
    assert draw(plan) == shown
    assert len(made) == 2


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        *((Path(path).name, Path.unlink) for path in kept.TABLES),
        ("_comparison.csv", rewritten),
        ("_comparison.csv", lambda path: put(path, "mine")),
    ],
)
def test_a_table_that_is_gone_or_changed_is_made_again(plan, made, name, harm):
    before = contents(plan)
    harm(Path(plan.root, "tables", name))
    assert draw(plan) == plan.shown
    assert made
    after = contents(plan)
    assert {path: after[path] for path in after if path != "_shown.json"} == {
        path: before[path] for path in before if path != "_shown.json"
    }


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"made_of": 1}', '{"made_of": "%s"}', '{"made_of": "%s", "tables": {}}']
)
def test_a_damaged_record_is_no_record(plan, made, text):
    record = Path(plan.root, kept.NAME)
    found = json.loads(record.read_text())["made_of"]
    put(record, text.replace("%s", found))
    assert draw(plan) == plan.shown
    assert made


@pytest.mark.parametrize("step", ["write_table", "write_text"])
def test_tables_whose_writing_was_interrupted_are_made_again(plan, made, monkeypatch, step):
    whole = contents(plan)
    plan.baseline = {"design": "dragonfly_2003oct"}

    def stopped(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Store, step, stopped)
        with pytest.raises(KeyboardInterrupt):
            draw(plan)
    made.clear()
    plan.baseline = {"design": "freebsd4"}
    assert draw(plan) == plan.shown
    assert made
    assert {n: t for n, t in contents(plan).items() if n != "_shown.json"} == {
        n: t for n, t in whole.items() if n != "_shown.json"
    }


def test_tables_of_another_run_at_the_same_time_are_not_taken_for_ones_own(plan, made):
    record = Path(plan.root, kept.NAME).read_text()
    other = fakes.plan(Path(plan.root), ROWS, metrics=["held_peak_bytes"])
    draw(other)
    put(Path(plan.root, kept.NAME), record)  # it wrote its record after the other one's tables
    made.clear()
    assert draw(plan) == plan.shown
    assert made


def test_rows_that_come_while_tables_are_made_leave_no_record(plan, made, monkeypatch):
    make = tables.make

    def meanwhile(plan, there):
        found = make(plan, there)
        rewritten(next(Path(plan.root, "data").glob("*.parquet")))
        return found

    monkeypatch.setattr(tables, "make", meanwhile)
    draw(plan, anew=True)
    assert not Path(plan.root, kept.NAME).exists()


def test_a_store_without_marks_makes_them_each_time(plan, made, monkeypatch):
    monkeypatch.setattr(Store, "marks", lambda self, folder: {})
    assert draw(plan) == draw(plan) == plan.shown
    assert len(made) == 2
    assert not Path(plan.root, kept.NAME).exists()


@pytest.mark.parametrize("name", ["__init__.py", "metrics/lanes.py", "report/notes.py", "store/rows.py"])
def test_another_version_of_the_program_makes_new_tables(plan, made, monkeypatch, tmp_path, name):
    copy = tmp_path / "package"
    shutil.copytree(kept.PACKAGE, copy, ignore=shutil.ignore_patterns("data", "sim", "__pycache__"))
    assert kept.program(copy) == kept.program()
    changed = tmp_path / "changed"
    shutil.copytree(copy, changed)
    (changed / name).write_text((changed / name).read_text().replace('"', "'", 1) + "\n")
    assert kept.program(changed) != kept.program()
    found = kept.program(changed)
    monkeypatch.setattr(kept, "program", lambda: found)
    draw(plan)
    assert made


def test_a_program_without_sources_makes_them_each_time(plan, made, monkeypatch, tmp_path):
    assert kept.program(tmp_path) == ""
    monkeypatch.setattr(kept, "program", lambda: "")
    assert draw(plan) == draw(plan) == plan.shown
    assert len(made) == 2


def test_showing_them_again_imports_nothing_that_takes_long(plan, tmp_path):
    del plan.shown
    (tmp_path / "plan").write_bytes(pickle.dumps(plan))
    code = (
        "import pickle, sys; from pathlib import Path; from kmemexp.report import ending;"
        f"ending.finish(pickle.loads(Path({str(tmp_path / 'plan')!r}).read_bytes()));"
        "found = {'ray', 'numba', 'scipy', 'pandas'} & set(sys.modules); assert not found, found"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "12 cells, 36 replicas" in run.stdout
