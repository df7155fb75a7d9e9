"""The commit protocol: what counts, what a reader sees, and what a crash at any point leaves."""

import itertools
import json
import shutil
import threading
import uuid
from pathlib import Path

import obstore
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_fakes import SIMULATE, make_cells

from kmemexp.errors import StoreError
from kmemexp.store import files, manifest, writers
from kmemexp.store import rows as in_table
from kmemexp.store.files import LaneFiles
from kmemexp.store.manifest import Change
from kmemexp.store.schema import DONE, FAILED, SCHEMAS
from kmemexp.store.store import Store
from kmemexp.sweep import batches, worker

MUTATORS = ("put", "rename", "delete")
ROW = ["cell_key", "replica", "status"]


class Crash(BaseException):
    """The process died here."""


def stage(root: str, numbers: list[int], replicas: list[int], writer: str = "", **config) -> list[LaneFiles]:
    """Simulate and stage these cells in one batch, in the name of `writer`."""
    cells = make_cells([config] * (max(numbers) + 1)).iloc[numbers]
    (batch,) = batches.make_batches(cells, replicas, (), simulate=SIMULATE, rate_ops=1e12)
    return worker.run_batch(batch, batches.Target(root, writer)).staged


def rows(table: pa.Table | pd.DataFrame) -> list[tuple[int, int, str]]:
    """(cell number, replica, status), sorted."""
    df = table.select(ROW).to_pandas() if isinstance(table, pa.Table) else table
    return sorted((int(k, 16), r, s) for k, r, s in zip(df.cell_key, df.replica, df.status, strict=True))


def listed(root: str) -> list[tuple[int, int, str]]:
    """What somebody sees who knows nothing of manifests."""
    return rows(pd.read_parquet(root, columns=ROW)) if any(Path(root).glob("data/*")) else []


def on_disk(root: str) -> set[str]:
    return {str(p.relative_to(root)) for p in Path(root).rglob("*") if p.is_file() and p.parent.name != "_manifest"}


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "results" / "fake")


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[int]:
    """Make the step-th change of the store, and all that follow, fail. Returns a list with the number of changes."""
    count = [0]
    for name in MUTATORS:
        real = getattr(obstore, name)

        def change(*args, real=real, **kwargs):
            count[0] += 1
            if count[0] > step:
                raise Crash
            return real(*args, **kwargs)

        monkeypatch.setattr(obstore, name, change)
    return count


def test_committed_rows_are_what_pandas_reads(root: str) -> None:
    s = Store(root, write=True)
    staged = stage(root, [0, 1, 2], [0, 1])
    assert listed(root) == []
    s.commit(staged)
    assert listed(root) == rows(s.read()) == [(n, r, DONE) for n in range(3) for r in range(2)]
    assert pd.read_parquet(root).shape == (6, len(SCHEMAS["metrics"]))
    assert s.read("series").num_rows == 6 * 5
    assert s.read("snapshots").num_rows == 6 * 4
    for table, schema in SCHEMAS.items():
        assert s.read(table).schema.equals(schema)


def test_an_empty_store_reads_as_empty_tables(root: str) -> None:
    s = Store(root, write=True)
    assert s.done() == {}
    assert s.commit([]) == ([], [])
    assert s.read("series").schema.equals(SCHEMAS["series"])
    assert s.read().num_rows == 0


def test_reading_needs_results(root: str) -> None:
    with pytest.raises(StoreError, match="run the sweep first"):
        Store(root)
    assert not Path(root).exists()


def commit_over_failures(root: str) -> tuple[Store, list[LaneFiles], list, list]:
    """A store in which a commit has everything to do: add, replace failed rows, keep others, drop rows done already."""
    s = Store(root, write=True)
    s.commit(stage(root, [0], [0, 1]) + stage(root, [1, 2], [0, 1], fail=[0, 1]))
    before = rows(s.read())
    new = stage(root, [0, 1], [1, 2], s.writer)  # cell 0 replica 1 is done, cell 1 replica 1 has failed
    after = [(0, 0, DONE), (0, 1, DONE), (0, 2, DONE), (1, 0, FAILED), (1, 1, DONE), (1, 2, DONE)]
    return s, new, before, sorted([*after, (2, 0, FAILED), (2, 1, FAILED)])


def test_a_commit_replaces_failed_rows_and_leaves_done_ones(root: str) -> None:
    s, new, _, after = commit_over_failures(root)
    s.commit(new)
    assert rows(s.read()) == listed(root) == after
    assert rows(Store(root).read()) == after
    assert s.done() == {(f"{n:032x}", r): status for n, r, status in after}
    assert s.counts() == {DONE: 5, FAILED: 3}
    assert not any(name.startswith("_staging") for name in on_disk(root))


def test_a_crash_between_two_steps_of_a_commit_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, new, before, after = commit_over_failures(str(tmp_path / "first"))
    other = Store(str(tmp_path / "rerun"), write=True)
    again = stage(other.root, [0, 1], [1, 2], other.writer)
    for step in itertools.count():
        root = str(shutil.copytree(tmp_path / "first", tmp_path / str(step)))
        s = Store(root, write=True)
        crashed = survives_crash(root, step, lambda s=s: s.commit(new), before, after, monkeypatch)
        shutil.copytree(tmp_path / "rerun", root, dirs_exist_ok=True)
        Store(root, write=True).commit(again)
        assert listed(root) == after
        if not crashed:
            break
    assert step > 20


def test_a_crash_between_two_steps_of_a_compaction_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Store(str(tmp_path / "first"), write=True)
    for n in range(2):
        first.commit(stage(first.root, [n], [0, 1], fail=[1]))
    before = rows(first.read())
    for step in itertools.count(step=2):  # puts its manifest and moves its files as a commit does, see above
        root = str(shutil.copytree(first.root, tmp_path / str(step)))
        s = Store(root, write=True)
        crashed = survives_crash(root, step, s.compact, before, before, monkeypatch)
        Store(root, write=True).compact()
        assert listed(root) == before
        assert len(list(Path(root, "data").iterdir())) == 2  # done and failed
        if not crashed:
            break
    assert step > 20


def survives_crash(root: str, step: int, change, before: list, after: list, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Check the folder after a crash at this step. False if the change has fewer steps."""
    with monkeypatch.context() as patch:
        crash_at(patch, step)
        try:
            change()
            crashed = False
        except Crash:
            crashed = True
    by_manifest = rows(Store(root).read())
    assert by_manifest in (before, after)
    identities = [(n, r) for n, r, _ in listed(root)]
    assert len(set(identities)) == len(identities)
    assert set(listed(root)) <= set(before) | set(by_manifest)
    with monkeypatch.context() as patch:
        patch.setattr(writers, "is_running", lambda record: False)
        reopened = Store(root, write=True)
    assert listed(root) == rows(reopened.read()) == by_manifest
    assert not any(name.startswith("_staging") for name in on_disk(root))
    for table, folder in files.FOLDERS.items():
        assert {f for f in on_disk(root) if f.startswith(folder)} == set(reopened.counting(table))
    return crashed


def test_opening_keeps_what_another_committer_has_staged_lately(root: str) -> None:
    first = Store(root, write=True)
    staged = stage(root, [0], [0], first.writer)
    second = Store(root, write=True)
    first.commit(staged)
    second.refresh()
    assert rows(second.read()) == listed(root) == [(0, 0, DONE)]


def test_of_two_committers_with_the_same_rows_one_wins(root: str) -> None:
    first, second = Store(root, write=True), Store(root, write=True)
    mine, theirs = (stage(root, [0, 1], [0, 1], s.writer) for s in (first, second))
    assert first.commit(mine) == (mine, [])
    assert second.commit(theirs) == ([], [])
    assert rows(second.read()) == rows(first.read()) == listed(root)
    first.close()
    second.close()
    assert len(on_disk(root)) == len(SCHEMAS)


def test_many_committers_at_once_leave_each_row_once(root: str) -> None:
    stores = [Store(root, write=True) for _ in range(4)]
    staged = [stage(root, [n, n + 1], [0, r], stores[n].writer) for r in (1, 2) for n in range(4)]
    gate = threading.Barrier(4)
    errors = []

    def commit(mine: Store, todo: list) -> None:
        try:
            gate.wait()
            for new in todo:
                mine.commit(new)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=commit, args=(s, staged[i::4])) for i, s in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    reopened = Store(root, write=True)
    assert listed(root) == rows(reopened.read()) == [(n, r, DONE) for n in range(5) for r in range(3)]


def test_a_reader_follows_a_compaction_it_has_not_heard_of(root: str) -> None:
    s = Store(root, write=True)
    for n in range(3):
        s.commit(stage(root, [n], [0]))
    reader = Store(root)
    assert s.compact() == 3
    assert rows(reader.read()) == [(n, 0, DONE) for n in range(3)]


def test_compaction_sorts_and_changes_no_value(root: str) -> None:
    s = Store(root, write=True)
    for n in (2, 0, 1):
        s.commit(stage(root, [n], [1, 0], fail=[1] if n == 1 else []))
    before = {table: s.read(table) for table in SCHEMAS}
    assert s.compact() == 3  # of the four files of a table one holds failed rows
    df = pd.read_parquet(root)
    assert df[df.status == DONE].cell_key.is_monotonic_increasing
    for table, rows_before in before.items():
        assert s.read(table).equals(rows_before)
        assert Store(root).read(table).equals(rows_before)
    assert s.compact() == 0


def test_many_files_and_their_compaction(root: str) -> None:
    count = 5 * files.THREADS
    s = Store(root, write=True)
    lane = stage(root, [0], [0], fail=[0])[0]
    row = files.load(s._objects, lane, "metrics")
    new = [LaneFiles(f"{n:x}", FAILED, {f"{n:032x}": [0]}) for n in range(count)]
    for each in new:
        key = pa.array(list(each.cells))
        files.stage(s._objects, each.id, "metrics", row.set_column(0, row.schema.field(0), key))
    for i in range(0, count, 20):
        s.commit(new[i : i + 20])
    opened = Store(root)
    expected = [(n, 0, FAILED) for n in range(count)]
    assert len(opened.done()) == count
    assert rows(opened.read()) == expected
    assert s.compact() == count
    assert listed(root) == rows(opened.read()) == expected


@settings(max_examples=25)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sets(st.integers(0, 3), min_size=1), st.sets(st.integers(0, 2), min_size=1), st.booleans()),
            st.sampled_from(["compact", "reopen"]),
        ),
        max_size=6,
    )
)
def test_any_history_gives_what_a_dictionary_would(history: list) -> None:
    root = f"memory:///{uuid.uuid4().hex}"
    s = Store(root, write=True)
    model: dict[tuple[int, int], str] = {}
    for event in history:
        if event == "compact":
            s.compact()
        elif event == "reopen":
            s = Store(root, write=True)
        else:
            cells, replicas, fail = event
            s.commit(stage(root, sorted(cells), sorted(replicas), fail=sorted(replicas) if fail else []))
            for row in ((n, r) for n in cells for r in replicas):
                model[row] = DONE if DONE in (model.get(row), FAILED if fail else DONE) else FAILED
    assert rows(s.read()) == sorted((n, r, status) for (n, r), status in model.items())
    assert s.read("series").num_rows == 5 * list(model.values()).count(DONE)


def test_results_of_a_later_layout_are_refused(root: str) -> None:
    Store(root, write=True).commit(stage(root, [0], [0]))
    path = Path(root, "_manifest", "00000000.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": "9-abcdef01"}))
    for write in (False, True):
        with pytest.raises(StoreError, match=r"later version of kmemexp.*9-abcdef01.*give another store.root"):
            Store(root, write=write)


def test_a_manifest_that_counts_a_row_twice_is_named(root: str) -> None:
    store = Store(root, write=True)
    store.commit(stage(root, [0, 1], [0]))
    (again,) = stage(root, [1], [0])
    text = manifest.encode(Change([again], []), "run", store._history._last)
    Path(root, manifest.path_of(1)).write_bytes(text)
    with pytest.raises(StoreError, match=r"00000001.json is damaged: it adds rows of cell 00000000 that"):
        Store(root, write=True)
    for read in (lambda: Store(root).read(encoded=True, ordered=False), lambda: Store(root).read("series"),
                 lambda: Store(root).status(f"{1:032x}", 0)):  # fmt: skip
        with pytest.raises(StoreError, match=r"part-.*cannot count: it adds rows of cell 00000000 that"):
            read()


@pytest.mark.parametrize("encoded", [False, True])
def test_texts_that_no_column_holds_are_no_traceback(root: str, monkeypatch: pytest.MonkeyPatch, encoded: bool) -> None:
    Store(root, write=True).commit(stage(root, [0], [0]))

    def full(*_: object) -> None:
        raise pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes")

    monkeypatch.setattr(in_table, "encoded" if encoded else "in_order", full)
    with pytest.raises(StoreError, match=r"fake have more text than fits.*kmemexp.load\(folder, metrics="):
        Store(root).read(encoded=encoded)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', "null"])
def test_a_damaged_manifest_is_named(root: str, text: str) -> None:
    Store(root, write=True).commit(stage(root, [0], [0]))
    Path(root, "_manifest", "00000001.json").write_text(text)
    with pytest.raises(StoreError, match=r"00000001.json is damaged"):
        Store(root, write=True)


def test_a_lost_or_damaged_file_is_named(root: str) -> None:
    s = Store(root, write=True)
    s.commit(stage(root, [0], [0]))
    (file,) = Path(root, "_series").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StoreError, match=rf"{file.name} is damaged"):
        s.read("series")
    file.unlink()
    with pytest.raises(StoreError, match=rf"{file.name} is gone"):
        s.read("series")
    with pytest.raises(StoreError, match=rf"{file.name} is gone"):
        Store(root, write=True)


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part-0.parquet").write_text("precious")
    with pytest.raises(StoreError, match="no results folder"):
        Store(str(tmp_path), write=True)
    assert (tmp_path / "data" / "part-0.parquet").read_text() == "precious"


def test_unusable_roots_are_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write to the results folder"):
        Store(str(tmp_path / "file" / "x"), write=True)
    with pytest.raises(StoreError, match=r"store.root=ftp://x"):
        Store("ftp://x", write=True)


def test_file_uris_and_relative_paths_are_the_same_folder(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(root, write=True).commit(stage(root, [0], [0]))
    monkeypatch.chdir(Path(root).parent)
    assert rows(Store(f"file://{root}").read()) == rows(Store("fake").read()) == [(0, 0, DONE)]
    assert Store("fake").uri == Store(f"file://{root}").uri == root


def test_export_and_tables_do_not_disturb_readers(root: str, tmp_path: Path) -> None:
    s = Store(root, write=True)
    s.commit(stage(root, [0, 1], [0]))
    names = s.export(str(tmp_path / "out"))
    assert sorted(names) == sorted(p.name for p in (tmp_path / "out").iterdir())
    assert pd.read_parquet(tmp_path / "out" / "metrics.parquet").equals(s.read().to_pandas())
    assert len(pd.read_csv(tmp_path / "out" / "series.csv")) == 10
    table = pd.DataFrame({"design": ["a"], "mean": [1.5]})
    s.write_table("tables/_comparison", table)
    s.write_text("tables/_comparison.md", "| a |\n")
    assert pd.read_parquet(Path(root, "tables", "_comparison.parquet")).equals(table)
    assert s.read_text("tables/_comparison.md") == "| a |\n"
    assert s.read_text("_run.json") is None
    assert len(listed(root)) == 2
    with pytest.raises(ValueError, match="underscore"):
        s.write_text("tables/comparison.md", "")
