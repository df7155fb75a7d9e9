"""What readers that know nothing of kmemexp find in a results folder: every axis in every file, each row once."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sweep_fakes import make_plan

from kmemexp.report import frames, results
from kmemexp.store.layout import Layout, layout_of, read_layout
from kmemexp.store.rows import in_order
from kmemexp.store.store import Store
from kmemexp.sweep.execute import execute

TABLES = ("data", "_series", "_latency", "_snapshots", "_caches")


def run(root: Path, axes: list[dict], **given: object) -> None:
    plan = make_plan(root, [{}] * len(axes), replicas=2)
    plan.columns["axes"] = [json.dumps(one) for one in axes]
    for name, value in given.items():
        setattr(plan, name, value)
    execute(plan, progress=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run(tmp_path / "x", [{"design": "a", "machine.cpus": 1, "interrupts.rate_hz": 10 * i} for i in range(3)])
    return tmp_path / "x"


def test_every_file_has_every_axis(folder: Path) -> None:
    for table in TABLES:
        files = sorted((folder / table).glob("*.parquet"))
        assert files
        for file in files:
            assert {"cell_key", "replica", "design", "workload", "cpus", "kva_bytes", "rate_hz"} <= set(
                pq.read_schema(file).names
            )


def test_pandas_needs_no_join(folder: Path) -> None:
    plain = pd.read_parquet(folder)
    assert len(plain) == 6
    assert plain["rate_hz"].dtype == "int64"
    assert plain.groupby("rate_hz").size().to_dict() == {0: 2, 10: 2, 20: 2}
    series = pd.read_parquet(folder / "_series")
    assert set(series["rate_hz"]) == {0, 10, 20}
    assert len(series) == len(results.load(folder).series)


@pytest.mark.parametrize("known", [0, 1, 3])
def test_texts_are_held_once_and_are_those_of_each_row(folder: Path, known: int) -> None:
    """`known`: cells of which a later plan has said the axes; the others have those in their files."""
    store = Store(str(folder), write=True)
    store.remove_text("_axes.parquet")
    if known:
        store.note_axes({f"{i:032x}": json.dumps({"design": "b", "seed": i % 2}) for i in range(known)})
    plain = store.read()
    for ordered in (True, False):
        table = store.read(encoded=True, ordered=ordered)
        for name in ("cell_key", "design", "workload", "axes", "config"):
            assert pa.types.is_dictionary(table.schema.field(name).type)
            texts = [text for part in table[name].chunks[:1] for text in part.dictionary.to_pylist()]
            assert len(texts) == len(set(texts)) <= 3
        assert in_order(frames.decoded(table)).equals(plain)
    frame = results.load(folder).metrics
    assert isinstance(frame["config"].dtype, pd.CategoricalDtype)
    said = {(row.cell_key, row.replica): (row.axes, row.config) for row in frame.itertuples()}
    wanted = zip(plain["axes"].to_pylist(), plain["config"].to_pylist(), strict=True)
    assert said == dict(zip(zip(plain["cell_key"].to_pylist(), plain["replica"].to_pylist(), strict=True), wanted,
                            strict=True))  # fmt: skip


def test_duckdb_and_polars_count_each_row_once(folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(f"select rate_hz, count(*) from '{folder}/data/*.parquet' group by 1 order by 1").fetchall()
    assert found == [(0, 2), (10, 2), (20, 2)]
    polars = pytest.importorskip("polars")
    assert polars.read_parquet(folder / "data").filter(polars.col("rate_hz") > 5).height == 4


def test_fields_say_what_they_are(folder: Path) -> None:
    file = next((folder / "data").glob("*.parquet"))
    told = {field.name: field.metadata or {} for field in pq.read_schema(file)}
    assert told["held_peak_bytes"][b"unit"] == b"B"
    assert told["held_peak_bytes"][b"better"] == b"less"
    assert told["held_peak_bytes"][b"meaning"].startswith(b"memory held")
    assert told["rate_hz"][b"key"] == b"interrupts.rate_hz"
    assert told["cpus"][b"key"] == b"machine.cpus"


def test_an_axis_that_comes_later_is_in_all_files(folder: Path) -> None:
    before = len(Store(str(folder)).done())
    run(folder, [{"design": "a", "policy": f"p{i}", "machine.cpus": 1} for i in range(3)])  # the same cells
    plain = pd.read_parquet(folder)
    assert len(plain) == len(Store(str(folder)).done()) == before
    assert sorted(plain["policy"]) == ["p0", "p0", "p1", "p1", "p2", "p2"]
    run(folder, [{"design": "a", "policy": "other", "machine.cpus": 1}] * 3)  # no new axis, but other values
    assert set(pd.read_parquet(folder)["policy"]) == {"other"}
    assert set(pd.read_parquet(folder / "_series")["policy"]) == {"other"}
    assert set(results.load(folder).metrics["policy"]) == {"other"}


def test_nothing_is_written_anew_where_nothing_has_changed(folder: Path) -> None:
    axes = [{"design": "a", "machine.cpus": 1, "interrupts.rate_hz": 10 * i} for i in range(3)]
    before = sorted((folder / "data").iterdir())
    run(folder, axes)
    assert sorted((folder / "data").iterdir()) == before


def test_files_of_an_earlier_version_get_their_columns(folder: Path) -> None:
    """Manifests of earlier versions say nothing of a layout, and there is no _columns.json."""
    (folder / "_columns.json").unlink()
    for path in sorted((folder / "_manifest").iterdir()):
        if path.name.endswith(".whole.json"):
            path.unlink()
    store = Store(str(folder), write=True)
    stored = list(store._ledger.files.values())
    store._ledger.files.update({one.id: one._replace(layout="") for one in stored})
    assert store.layout() is None
    keys = {key: f'{{"design":"a","machine.cpus":{i}}}' for i, key in enumerate(stored[0].cells)}
    now = store.take_axes(keys, layout_of(keys.values()))
    store.close()
    assert set(now.kinds) == {"design", "interrupts.rate_hz", "machine.cpus"}  # those of the rows too
    assert all(one.layout == now.mark for one in store._ledger.files.values())
    assert len(pd.read_parquet(folder)) == 6


def test_kinds_of_values() -> None:
    assert layout_of(['{"a":1,"b":true,"c":"x","d":1}', '{"a":1.5,"d":null,"e":[1]}']) == Layout(
        {"a": "float", "b": "bool", "c": "text", "d": "int", "e": "text"}
    )
    joined = Layout({"a": "int", "b": "bool"}).joined(Layout({"a": "float", "b": "int"}))
    assert joined == Layout({"a": "float", "b": "text"})
    assert read_layout(joined.text) == joined
    with pytest.raises(ValueError, match="what"):
        read_layout('{"axes": {"a": "what"}}')
