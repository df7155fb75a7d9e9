"""Damage to a results folder: each kind is found, named, and mended by simulating just these rows again."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from sweep_fakes import make_plan

from kmemexp.errors import StoreError
from kmemexp.store import checking, tidy, writers
from kmemexp.store.files import DamageError
from kmemexp.store.schema import SCHEMAS
from kmemexp.store.store import Store
from kmemexp.sweep import worker
from kmemexp.sweep.batches import Target, make_batches
from kmemexp.sweep.execute import execute

FOLDERS = ("data", "_series", "_latency", "_snapshots", "_caches")


def tables(root: Path) -> dict:
    return {table: Store(str(root)).read(table) for table in SCHEMAS}


def same(one: dict, two: dict) -> bool:
    return all(one[table].equals(two[table]) for table in SCHEMAS)


def plan_for(root: Path):
    return make_plan(root, [{}] * 8, replicas=3, cluster={"runner": "serial", "batch_s": 0.3})


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A folder with several files and manifests, and its tables."""
    root = tmp_path_factory.mktemp("sound") / "r"
    execute(plan_for(root), progress=False)
    assert len(list((root / "data").iterdir())) > 2
    return root, tables(root)


@pytest.fixture
def root(sound: tuple[Path, dict], tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound[0], tmp_path / "r"))


def mended(root: Path, expected: dict) -> checking.Repaired:
    """Find the damage in every way there is, repair it, and compare with what was there before."""
    _, found = checking.examine(str(root))
    assert found
    repaired = checking.repair(str(root))
    plan = plan_for(root)
    rows = {(key, r) for key, replicas in repaired.rows.items() for r in replicas}
    outcome = execute(plan, progress=False, only=None if repaired.manifests else rows)
    if not repaired.manifests:
        assert outcome.done == len(rows)
    assert same(tables(root), expected)
    assert checking.examine(str(root))[1] == []
    return repaired


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_flipped_bit_is_found_wherever_it_is(root: Path, sound: tuple[Path, dict], folder: str) -> None:
    rng = random.Random(folder)
    path = rng.choice(sorted((root / folder).iterdir()))
    whole = path.read_bytes()
    table = {"data": "metrics"}.get(folder, folder[1:])
    for _ in range(10):
        path.write_bytes(whole)
        flip(path, rng.randrange(8 * len(whole)))
        with pytest.raises(DamageError, match=rf"{path.name} is damaged: its bytes are not.*action=repair"):
            Store(str(root)).read(table)
    assert len(mended(root, sound[1]).damages) == 1


def test_a_flipped_bit_in_a_manifest_is_found(root: Path, sound: tuple[Path, dict]) -> None:
    rng = random.Random(1)
    path = rng.choice(sorted((root / "_manifest").glob("????????.json")))
    whole = path.read_bytes()
    for _ in range(30):
        path.write_bytes(whole)
        flip(path, rng.randrange(8 * len(whole)))
        with pytest.raises(StoreError, match=rf"{path.name} is damaged|later version"):
            Store(str(root)).read()
    path.write_bytes(whole)
    flip(path, 8 * whole.index(b'"cells"') + 1)
    mended(root, sound[1])


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_truncated_and_a_deleted_file_are_found(root: Path, sound: tuple[Path, dict], folder: str) -> None:
    first, second, *_ = sorted((root / folder).iterdir())
    first.write_bytes(first.read_bytes()[:-7])
    second.unlink()
    with pytest.raises(DamageError, match=rf"{second.name} is gone"):
        Store(str(root), write=True)
    assert {d.path for d in mended(root, sound[1]).damages} == {f"{folder}/{first.name}", f"{folder}/{second.name}"}
    assert (root / "_quarantine" / folder / first.name).exists()


def test_swapped_files_are_found(root: Path, sound: tuple[Path, dict]) -> None:
    """Each is a sound file of the folder, in the place of another one."""
    first, second, *_ = sorted((root / "data").iterdir())
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    with pytest.raises(DamageError, match="is damaged"):
        Store(str(root)).read()
    assert len(mended(root, sound[1]).damages) == 2


@pytest.mark.parametrize("which", ["first", "middle", "last"])
@pytest.mark.parametrize("how", ["lost", "garbled", "empty", "of another folder"])
def test_a_lost_or_garbled_manifest_deletes_nothing(
    root: Path, sound: tuple[Path, dict], which: str, how: str, tmp_path: Path
) -> None:
    paths = sorted((root / "_manifest").glob("????????.json"))
    path = {"first": paths[0], "middle": paths[len(paths) // 2], "last": paths[-1]}[which]
    if how == "lost":
        path.unlink()
    elif how == "of another folder":
        execute(plan_for(tmp_path / "other"), progress=False)
        path.write_bytes((tmp_path / "other" / "_manifest" / path.name).read_bytes())
    else:
        path.write_text("{" if how == "garbled" else "")
    files = {p for folder in FOLDERS for p in (root / folder).iterdir()}
    bare = (which, how) in {("last", "lost"), ("first", "of another folder"), ("last", "of another folder")}
    if not bare:
        with pytest.raises(DamageError, match=r"_manifest/\d{8}.json is .*action=repair"):
            Store(str(root), write=True)
        assert {p for folder in FOLDERS for p in (root / folder).iterdir()} == files
    if how == "lost" and which == "last":  # nobody can know that there was one: its files name no owner
        opened = Store(str(root), write=True)
        assert len(opened.strays) == len(SCHEMAS)
        execute(plan_for(root), progress=False)
        assert same(tables(root), sound[1])
    else:
        mended(root, sound[1])
    kept = {p.name.partition(".parquet")[0] for p in (root / "_quarantine").rglob("part-*")}
    there = {p.name.partition(".parquet")[0] for folder in FOLDERS for p in (root / folder).iterdir()}
    assert {p.name.partition(".parquet")[0] for p in files} <= kept | there


def test_what_counts_is_read_from_the_last_sound_summary(root: Path, sound: tuple[Path, dict]) -> None:
    Store(str(root), write=True)._history.write_whole(now=True)
    (summary,) = (root / "_manifest").glob("*.whole.json")
    for path in (root / "_manifest").glob("????????.json"):
        path.unlink()
    assert same(tables(root), sound[1])
    summary.write_text("{")
    with pytest.raises(StoreError):
        Store(str(root))


def test_a_damaged_summary_costs_nothing(root: Path, sound: tuple[Path, dict]) -> None:
    Store(str(root), write=True)._history.write_whole(now=True)
    (summary,) = (root / "_manifest").glob("*.whole.json")
    flip(summary, 777)
    assert same(tables(root), sound[1])
    assert [d.path for d in mended(root, sound[1]).damages] == [f"_manifest/{summary.name}"]


def test_rows_of_other_lanes_in_an_undigested_file_are_found(root: Path, sound: tuple[Path, dict]) -> None:
    """Folders of earlier versions have no digests, and no caches."""
    path = root / "_manifest" / "00000000.json"
    record = json.loads(path.read_text())
    del record["digest"], record["previous"]
    for added in record["add"]:
        del added["files"]
    path.write_text(json.dumps(record | {"schema": "1-604dcf49"}))
    later = sorted((root / "_manifest").glob("????????.json"))[1:]
    for each in later:
        each.write_text(json.dumps({k: v for k, v in json.loads(each.read_text()).items() if k != "digest"}))
    record_of = [json.loads(p.read_text()) for p in later]
    for each, text in zip(later, record_of, strict=True):
        each.write_text(json.dumps(text | {"previous": "", "schema": "1-604dcf49"}))
    whole = sound[1] | {"caches": tables(root)["caches"]}
    assert same(tables(root), whole)
    first = root / "data" / f"part-{record['add'][0]['id']}.parquet"
    other = next(p for p in (root / "data").iterdir() if p != first)
    first.write_bytes(other.read_bytes())
    with pytest.raises(DamageError, match="its rows are not those that the manifest names"):
        Store(str(root)).read()
    mended(root, sound[1])


def test_a_folder_may_be_copied_and_moved(root: Path, sound: tuple[Path, dict], tmp_path: Path) -> None:
    moved = root.rename(tmp_path / "elsewhere")
    assert same(tables(moved), sound[1])
    assert execute(plan_for(moved), progress=False)[:3] == (0, 0, 24)


# Staged files, and whose they are.


def staged_by(store: Store, number: int) -> list:
    plan = make_plan(store.root, [{}] * 9, replicas=1)
    (batch,) = make_batches(plan.cells.iloc[[number]], [0], (), simulate=plan.simulate)
    return worker.run_batch(batch, Target(store.root, store.writer)).staged


def in_staging(root: Path) -> int:
    return sum(1 for p in (root / "_staging").rglob("*") if p.is_file())


def test_staged_files_of_a_living_writer_stay_whatever_the_clock_says(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Store(str(root), write=True)
    staged = staged_by(first, 8)
    for path in (root / "_staging").rglob("*"):
        if path.is_file():
            os.utime(path, (0, 0))  # written, as it seems, in 1970
    Store(str(root), write=True)
    assert in_staging(root) == len(SCHEMAS)
    assert first.commit(staged).added == staged
    first.close()
    assert len(Store(str(root)).done()) == 25


def test_staged_files_of_a_dead_writer_are_cleared(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged_by(Store(str(root), write=True), 8)
    monkeypatch.setattr(writers, "is_running", lambda record: False)
    Store(str(root), write=True)
    assert in_staging(root) == 0
    assert list((root / "_writers").iterdir()) == []


def test_a_writer_elsewhere_is_dead_when_it_has_been_silent_for_long(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Store(str(root), write=True)
    staged_by(there, 8)
    monkeypatch.setattr(writers, "is_here", lambda record: False)
    here = Store(str(root), write=True)
    here.clear()
    assert in_staging(root) == len(SCHEMAS)
    monkeypatch.setattr(writers, "LEASE_SECONDS", 0.0)
    there._writer._last = -1e9
    there.beat()
    here.clear()  # it has changed its record meanwhile
    assert in_staging(root) == len(SCHEMAS)
    here.clear()
    assert in_staging(root) == 0


def test_a_repair_waits_for_who_may_be_writing(root: Path) -> None:
    other = Store(str(root), write=True)
    other.beat()
    next((root / "data").iterdir()).unlink()
    with pytest.raises(StoreError, match=r"process \d+ on .* may be writing"):
        checking.repair(str(root))
    other.close()
    assert len(checking.repair(str(root)).damages) == 1


def test_a_process_of_the_same_number_is_another_one() -> None:
    assert writers.is_here(writers.me())
    assert writers.is_running(writers.me())
    assert not writers.is_running(writers.me() | {"born": "1"})
    assert not writers.is_here(writers.me() | {"boot": "another"})
    assert not writers.is_here(writers.me() | {"pids": "pid:[1]"})  # of a container


def test_a_staged_file_that_is_gone_is_not_named(root: Path) -> None:
    store = Store(str(root), write=True)
    one, two = staged_by(store, 8), staged_by(store, 7)
    (root / "_staging" / "_series" / f"part-{one[0].id}.parquet").unlink()
    assert store.commit(one + two) == ([], one)  # the rows of the other are there already
    assert checking.examine(str(root))[1] == []


def test_what_no_manifest_names_is_moved_and_not_deleted(root: Path) -> None:
    stray = root / "data" / "part-00aa-0-bb.parquet"
    stray.write_text("precious")
    store = Store(str(root), write=True)
    assert store.strays == ["data/part-00aa-0-bb.parquet"]
    assert (root / "_quarantine" / "data" / "part-00aa-0-bb.parquet").read_text() == "precious"
    stray.write_text("precious too")
    Store(str(root), write=True)
    assert len(list((root / "_quarantine" / "data").iterdir())) == 2
    tidy.quarantine(store._objects, ["data/part-not-there.parquet"])
