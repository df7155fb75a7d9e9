import json

import pandas as pd
import pyarrow as pa
import pytest
import report_fakes as fakes

from kmemexp.errors import ConfigError
from kmemexp.metrics import SERIES
from kmemexp.report.results import Results
from kmemexp.store.schema import SCHEMAS


@pytest.fixture(scope="module")
def found():
    cells = [axes | {"machine.cpus": n} for axes in fakes.grid(kva=(192 * fakes.MIB,)) for n in (1, 4)]
    metrics = fakes.metrics_table(cells, replicas=3)
    lanes = metrics.select(["cell_key", "replica"]).to_pylist()
    series = [lane | {"sample": i} | dict.fromkeys(SERIES, 10**9 * i) for lane in lanes for i in range(3)]
    shots = [lane | {"time_ns": 5 + i, "map": "kernel_map", "occupancy": [0, 255]} for lane in lanes for i in range(2)]
    tails = [
        lane | {"what": "alloc_main", "count": 9000, "mean_ns": 50.0, "p50_ns": 40.0, "p99_ns": 200.0, "p999_ns": 900.0}
        for lane in lanes
    ]
    counted = [
        lane | {"time_ns": 5, "moment": "peak", "cache": "dentry", "pages_count": 3, "granted_bytes": 3840}
        for lane in lanes if lane["replica"] == 0
    ]  # fmt: skip
    given = {"series": series, "latency": tails, "snapshots": shots, "caches": counted}
    return Results.from_tables(metrics, **{t: pa.Table.from_pylist(r, SCHEMAS[t]) for t, r in given.items()})


MARKS = ("rule", "point", "line", "area", "rect", "text", "bar")


def marks(chart) -> set[str]:
    return {word for word in MARKS if f'"type": "{word}"' in chart.to_json()}


def test_each_chart_has_its_marks(found):
    assert {"rule", "point"} <= marks(found.plot.intervals("held_peak_bytes"))
    assert {"rule", "point"} <= marks(found.plot.differences("held_peak_bytes", "freebsd4"))
    assert {"line", "area"} <= marks(found.plot.curve("held_peak_bytes", "cpus"))
    assert {"line", "area"} <= marks(found.plot.series("held_bytes"))
    assert {"line"} <= marks(found.plot.latency("alloc_main"))
    assert {"point", "text"} <= marks(found.plot.pareto("held_peak_bytes", "map_external_frag_ratio",
                                                        where="workload == 'pgbench' and cpus == 1"))  # fmt: skip
    assert {"rect"} <= marks(found.plot.maps(where="workload == 'pgbench' and cpus == 1"))
    assert {"bar"} <= marks(found.plot.caches(where="workload == 'pgbench' and cpus == 1"))


def test_what_has_a_bound_is_drawn_with_it():
    given = {
        "map_superpages_mean_count": lambda _, replica: 6.0 + replica,
        "map_superpages_bound_mean_count": lambda _, replica: 11.0 + replica,
    }
    results = Results.from_tables(fakes.metrics_table(fakes.grid(kva=(192 * fakes.MIB,)), replicas=3, **given))
    drawn = results.plot.intervals("map_superpages_mean_count")
    assert '"type": "tick"' in drawn.to_json()
    assert set(values(drawn)["bound"]) == {12.0}
    assert '"type": "tick"' not in results.plot.intervals("held_peak_bytes").to_json()


def values(chart) -> pd.DataFrame:
    """The data that a chart draws."""
    (rows,) = json.loads(chart.to_json())["datasets"].values()
    return pd.DataFrame(rows)


def test_a_curve_draws_the_means(found):
    drawn = values(found.plot.curve("held_peak_bytes", "cpus", where="workload == 'pgbench'"))
    rows = found.metrics.query("workload == 'pgbench'")
    means = rows.groupby(["design", "cpus"], observed=True)["held_peak_bytes"].mean() / 2**20
    assert drawn.set_index(["design", "cpus"])["mean"].to_dict() == pytest.approx(means.to_dict())


def test_other_axes_are_panels_and_never_averaged(found):
    drawn = values(found.plot.curve("held_peak_bytes", "cpus"))
    assert set(drawn["panel"]) == {"filetree", "pgbench"}
    assert len(drawn) == 3 * 2 * 2
    assert set(values(found.plot.series("held_bytes"))["panel"]) == {
        f"{load}, cpus {n}" for load in ("filetree", "pgbench") for n in (1, 4)
    }
    with pytest.raises(ConfigError, match="several conditions"):
        found.plot.pareto("held_peak_bytes", "map_external_frag_ratio")
    with pytest.raises(ConfigError, match="several conditions"):
        found.plot.maps()
    with pytest.raises(ConfigError, match="several conditions"):
        found.plot.caches()


def test_mistakes_are_named(found):
    for wrong, message in (
        (lambda: found.plot.curve("held_peak_bytes", "design"), "no axis of numbers"),
        (lambda: found.plot.intervals("held_peak"), "did you mean held_peak_bytes"),
        (lambda: found.plot.series("held"), "no column held"),
        (lambda: found.plot.latency("nothing"), "there are alloc_main"),
        (lambda: found.plot.maps("no_map"), "there are maps kernel_map"),
        (lambda: found.plot.intervals("held_peak_bytes", where="cpus == 77"), "no row is left"),
    ):
        with pytest.raises(ConfigError, match=message):
            wrong()


def test_a_notebook_shows_what_is_there(found):
    html = found._repr_html_()
    assert "36 rows of 12 cells" in html
    assert "<th>cpus</th><td>2</td><td>1, 4</td>" in html
