import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import report_fakes as fakes
from small_plan import small_plan

from kmemexp.actions import live
from kmemexp.errors import ConfigError, StoreError
from kmemexp.metrics import NAMES
from kmemexp.report import closing, comparison, ending, frames, results
from kmemexp.store.columns import Axes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "made_up"
    fakes.write(root, fakes.metrics_table(fakes.grid(), failed=((1, 3),)))
    return root


def test_one_row_per_cell_and_replica(folder):
    frame = results.load(folder).metrics
    assert len(frame) == 12 * 6
    assert not frame.duplicated(["cell_key", "replica"]).any()
    assert set(NAMES) <= set(frame.columns)
    assert frame["kva_bytes"].dtype == "int64"
    assert isinstance(frame["design"].dtype, pd.CategoricalDtype)
    assert isinstance(frame["workload"].dtype, pd.CategoricalDtype)
    assert not [name for name in frame.columns if not name.isidentifier()]
    assert (frame[list(NAMES)].isna().all(axis=1) == (frame["status"] == "failed")).all()


def test_pandas_reads_the_folder_as_it_stands(folder):
    plain = pd.read_parquet(folder)
    ours = results.load(folder).metrics
    assert len(plain) == len(ours)
    assert plain["held_peak_bytes"].sum() == ours["held_peak_bytes"].sum()


def test_only_the_metrics_that_are_asked_for_are_read(folder):
    names = ["held_peak_bytes", "internal_frag_ratio"]
    whole, few = results.load(folder), results.load(folder, metrics=names)
    out = {"axes", "config", *NAMES}.difference(names)
    left = [name for name in whole.metrics.columns if name not in out]
    pd.testing.assert_frame_equal(few.metrics, whole.metrics[left])
    pd.testing.assert_frame_equal(few.summary(), whole.summary(metrics=sorted(names, key=NAMES.index)))
    pd.testing.assert_frame_equal(few.failures, whole.failures.drop(columns=["axes", "config"]))
    pd.testing.assert_frame_equal(few.series, whole.series)
    with pytest.raises(ConfigError, match="unknown metric held_peak_byte: did you mean held_peak_bytes"):
        results.load(folder, metrics=["held_peak_byte"])


def test_an_axis_that_some_cells_do_not_name_is_found_without_their_configurations_at_hand(tmp_path):
    rows = fakes.metrics_table(fakes.grid(), replicas=2)
    place = rows.column_names.index("axes")
    texts = [json.loads(text) for text in rows["axes"].to_pylist()]
    told = [json.dumps(axes | ({"number": i // 2} if i > 3 else {})) for i, axes in enumerate(texts)]
    fakes.write(tmp_path, rows.set_column(place, rows.schema.field("axes"), pa.array(told)))
    whole, few = results.load(tmp_path), results.load(tmp_path, metrics=["held_peak_bytes"])
    assert few.metrics.sort_values(["cell_key", "replica"])["number"].tolist() == [i // 2 for i in range(24)]
    pd.testing.assert_series_equal(few.metrics["number"], whole.metrics["number"])


def test_a_uri_works_like_a_path(folder):
    pd.testing.assert_frame_equal(results.load(folder.as_uri()).metrics, results.load(str(folder)).metrics)


def test_series_snapshots_failures_and_run(folder):
    found = results.load(folder)
    assert len(found.series) == 3 * 71
    assert {"design", "workload", "sample", "held_bytes"} <= set(found.series.columns)
    assert found.snapshots["occupancy"].iloc[0].tolist() == [0, 255]
    assert found.run["runs"][-1]["sweep"] == "made_up"
    (failure,) = found.failures.itertuples()
    assert (failure.design, failure.workload, failure.replica) == ("dragonfly_2003aug25", "filetree", 3)
    assert failure.error.startswith("ValueError: no memory")


def test_a_missing_or_empty_folder_says_what_to_run(tmp_path):
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(StoreError, match="run the sweep first"):
            results.load(place)
    results.Store(str(tmp_path / "fresh"), write=True).commit([])
    with pytest.raises(StoreError, match="run the sweep first"):
        results.load(tmp_path / "fresh")


def test_tables_in_memory():
    found = results.Results.from_tables(fakes.metrics_table(fakes.grid(), replicas=2))
    assert len(found.metrics) == 24
    assert len(found.series) == len(found.snapshots) == 0
    assert found.run == {}


def test_summary_has_a_row_for_each_cell_and_metric(folder):
    table = results.load(folder).summary(metrics=["held_peak_bytes", "internal_frag_ratio"])
    assert len(table) == 12 * 2
    lost = table[table["failed"] == 1]
    assert lost["n"].tolist() == [5, 5]
    frame = results.load(folder).metrics
    one = frame.query("design == 'freebsd4' and workload == 'pgbench' and kva_bytes < 2**28")
    row = table.query("design == 'freebsd4' and workload == 'pgbench' and kva_bytes < 2**28")
    assert row["mean"].iloc[0] == pytest.approx(one["held_peak_bytes"].mean())
    assert row["sd"].iloc[0] == pytest.approx(one["held_peak_bytes"].std())


def test_summary_never_averages_over_cells(folder):
    with pytest.raises(ConfigError, match=r"average different cells.*workload"):
        results.load(folder).summary(by=["design", "machine.kva_bytes"])
    with pytest.raises(ConfigError, match=r"no axis machine\.cups"):
        results.load(folder).summary(by=["machine.cups"])
    small = results.Results.from_tables(fakes.metrics_table(fakes.grid(workloads=("pgbench",), kva=(fakes.MIB,))))
    assert small.summary(by=["design"], metrics=["held_peak_bytes"]).columns[0] == "design"


def test_compare_is_the_function_of_the_same_name(folder):
    table = results.load(folder).compare("freebsd4", metrics=["held_peak_bytes"])
    assert len(table) == 12


def test_planned_takes_the_axes_of_the_plan(folder):
    found = results.load(folder)
    cells = found.metrics.drop_duplicates("cell_key")[["cell_key", "design", "workload"]].iloc[[5, 2]]
    cells = cells.assign(axes=['{"objects.malloc":"buckets"}', '{"objects.malloc":"dfly_slab"}'])
    planned = results.planned(small_plan(cells, folder, replicas=2))
    frame = planned.metrics
    assert len(frame) == 4
    assert frame.columns[3] == "malloc"
    assert set(frame["malloc"]) == {"buckets", "dfly_slab"}
    assert planned.series.groupby("malloc", observed=True).size().to_dict() == {"buckets": 6, "dfly_slab": 6}
    assert frame["replica"].tolist() == [0, 1] * 2
    ordered = planned.ordered(cells)
    assert list(ordered["design"].cat.categories) == list(dict.fromkeys(cells["design"]))
    assert results.planned(small_plan(cells.assign(cell_key="f" * 32), folder)).metrics.empty


def test_a_plan_of_very_many_cells_is_read_without_configurations_and_not_compared(folder, monkeypatch, capsys):
    found = results.load(folder)
    cells = found.metrics.drop_duplicates("cell_key")[["cell_key", "design", "workload", "axes"]]
    plan = small_plan(cells, folder, replicas=2)
    whole = results.planned(plan).metrics
    monkeypatch.setattr(results, "MOST_CELLS", 11)
    pd.testing.assert_frame_equal(results.planned(plan).metrics, whole.drop(columns=["axes", "config"]))
    monkeypatch.setattr(closing, "MOST_CELLS", 11)
    for show in (ending.finish, lambda plan: live.act([plan])):
        show(plan)
        assert (
            f"{plan.name}: a plan of 12 cells. Tables and a report are made of at most 11;" in capsys.readouterr().out
        )


def expanded(*axes: str) -> pd.DataFrame:
    keys = {name: name for name in "abcdefgh"}
    told = Axes(pa.array(axes))
    return frames.expand(told, len(axes), lambda: ["{}"] * len(axes), keys).dropna(axis=1, how="all")


def test_exotic_axes_get_fitting_types():
    axes = ['{"a":1,"b":true,"c":1.5,"d":"x","e":[1,2],"f":1,"g":true}',
            '{"a":2,"b":false,"c":2,"d":"y","e":{"k":1},"h":null}']  # fmt: skip
    found = expanded(*axes)
    assert " ".join(map(str, found.dtypes)) == "int64 bool float64 category category Int64 boolean"
    assert found["e"].tolist() == ["[1,2]", '{"k":1}']
    assert str(expanded(*axes, "{}")["a"].dtype) == "Int64"
    assert expanded(*axes, "{}")["a"].isna().tolist() == [False, False, True]
    assert expanded("{}").shape == (1, 0)
    assert expanded(f'{{"a":{2**70}}}')["a"].tolist() == [2.0**70]


def test_every_table_carries_the_axes(folder):
    found = results.load(folder)
    for frame in (found.metrics, found.series, found.snapshots, found.latency):
        assert {"design", "workload", "cpus", "kva_bytes", "ram_bytes"} <= set(frame.columns)
        assert frame.attrs["axes"] == {"design": "design", "workload": "workload", "kva_bytes": "machine.kva_bytes"}
        assert frame["kva_bytes"].dtype == "int64"
        assert isinstance(frame["design"].dtype, pd.CategoricalDtype)
    assert len(found.series.query("kva_bytes > 2**28 and design == 'freebsd4'")) == 2 * 6 * 3


def test_frames_say_what_their_columns_are(folder):
    frame = results.load(folder).metrics
    assert frame.attrs["units"]["held_peak_bytes"] == "B"
    assert frame.attrs["meanings"]["held_peak_bytes"].startswith("memory held")
    few = frame[frame["replica"] < 2].copy()
    assert few.attrs["units"] is frame.attrs["units"]  # nothing is copied
    assert set(frame.attrs["meanings"]) == set(frame.columns)


def test_a_cell_without_an_axis_has_what_its_configuration_says():
    table = fakes.metrics_table(
        [{"design": "freebsd4"}, {"design": "dragonfly_2003oct", "workload.scale": 2}], replicas=1
    )
    config = json.dumps({"workload": {"name": "x", "scale": 1.5}, "cost": {"name": "none"}})
    table = table.set_column(table.column_names.index("config"), "config", pa.array([config] * 2))
    assert sorted(results.Results.from_tables(table).metrics["scale"]) == [1.5, 2.0]


def test_the_axes_are_found_where_attrs_are_lost(folder):
    frame = results.load(folder).metrics
    wanted = results.load(folder).compare("freebsd4", metrics=["held_peak_bytes"])
    plain = pd.DataFrame({name: frame[name] for name in frame})
    assert plain.attrs == {}
    pd.testing.assert_frame_equal(comparison.compare(plain, "freebsd4", ["held_peak_bytes"]), wanted)
    by_key = comparison.compare(
        frame, {"design": "freebsd4", "machine.kva_bytes": 192 * fakes.MIB}, ["held_peak_bytes"]
    )
    by_name = comparison.compare(frame, {"design": "freebsd4", "kva_bytes": 192 * fakes.MIB}, ["held_peak_bytes"])
    pd.testing.assert_frame_equal(by_key, by_name)


def test_occupancy_is_an_array_of_bytes(folder):
    assert results.load(folder).snapshots["occupancy"].iloc[0].dtype == np.uint8


def test_loading_imports_nothing_heavy():
    code = "import sys, kmemexp.report.results; print({'scipy', 'hydra', 'ray', 'rich'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
