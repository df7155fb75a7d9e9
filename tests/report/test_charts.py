"""Charts: what they encode, and that they can be drawn."""

import io
import re

import numpy as np
import pandas as pd
import pytest

from kmemexp.report import charts
from kmemexp.report.charts import Axis

TABLE = pd.DataFrame(
    {
        "condition": ["152 MiB", "152 MiB", "192 MiB", "192 MiB"],
        "design": pd.Categorical(["dragonfly_2003oct", "freebsd4"] * 2),
        "load": ["filetree", "filetree", "pgbench", "pgbench"],
        "cpus": [1, 1, 4, 4],
        "mean": [1.0, 2.0, 3.0, 4.0],
        "low": [0.5, 1.5, 2.5, 3.5],
        "high": [1.5, 2.5, 3.5, 4.5],
    }
)
MEAN = Axis("mean", "MiB")


def drawn(chart) -> str:
    out = io.StringIO()
    chart.save(out, format="svg")
    return out.getvalue()


def fields(spec) -> set[str]:
    """Names of all fields that a specification encodes."""
    return set(re.findall(r"'field': '(\w+)'", str(spec)))


@pytest.mark.parametrize("facet", [None, "load"])
def test_intervals(facet):
    chart = charts.intervals(
        TABLE, y="condition", x=Axis("mean", "headroom, MiB"), colour="design", facet=facet, title="Room"
    )
    assert fields(chart.to_dict()) == {"condition", "mean", "low", "high", "design"} | ({facet} if facet else set())
    svg = drawn(chart)
    assert re.search(r"<text[^>]*>headroom, MiB</text>", svg)
    for text in ("Room", "192 MiB", "dragonfly_2003oct", charts.COLOURS["freebsd4"].lower()):
        assert text in svg.lower() or text in svg


def test_differences_have_a_line_at_zero():
    spec = charts.intervals(TABLE, y="condition", x=MEAN, colour="design", zero=True).to_dict()
    assert {"datum": 0} in [layer["encoding"].get("x") for layer in spec["layer"]]


def test_lines_with_a_band():
    chart = charts.lines(
        TABLE, x=Axis("cpus", "CPUs", log=True), y=Axis("mean", "operations/s"), colour="design", span=("low", "high"),
        dots=True, facet="load",
    )  # fmt: skip
    spec = chart.to_dict()
    assert fields(spec) == {"cpus", "mean", "low", "high", "design", "load"}
    assert [layer["mark"]["type"] for layer in spec["spec"]["layer"]] == ["area", "line"]
    assert "operations/s" in drawn(chart)


def test_the_front_is_what_nothing_beats():
    x, y = pd.Series([1, 2, 2, 3, np.nan]), pd.Series([3, 1, 2, 3, 0.0])
    assert charts.front(x, y).tolist() == [True, True, False, False, False]
    assert charts.front(x, y, less_y=False).tolist() == [True, False, False, False, False]
    assert charts.front(pd.Series([1, 1]), pd.Series([2, 2])).all()


def test_tradeoff_labels_every_point():
    table = TABLE.head(2)
    chart = charts.tradeoff(table, x=Axis("mean", "held, MiB"), y=Axis("low", "steps"), label="design")
    svg = drawn(chart)
    assert fields(chart.to_dict()) == {"mean", "low", "design"}
    assert re.search(r"<text[^>]*>freebsd4</text>", svg)


SHOTS = pd.DataFrame(
    {
        "design": ["freebsd4"] * 2 + ["dragonfly_2003oct"],
        "map": "kernel_map",
        "time_ns": [0, 10**9, 0],
        "occupancy": [np.array([255, 0], np.uint8), np.array([255, 128], np.uint8), np.array([0, 0], np.uint8)],
    }
)


def test_occupancy_of_a_map_over_time():
    chart = charts.occupancy(SHOTS, span_bytes=8 << 20)
    cells = next(iter(chart.to_dict()["datasets"].values()))
    first = [(c["begin"], c["end"], c["low"], c["high"], c["filled"]) for c in cells if "freebsd4" in c["panel"]]
    assert first == [(0, 1, 0, 4, 1), (0, 1, 4, 8, 0), (1, 2, 0, 4, 1), (1, 2, 4, 8, pytest.approx(128 / 255))]
    assert "address in the map, MiB" in drawn(chart)


def test_too_many_cells_of_a_map_are_refused(monkeypatch):
    monkeypatch.setattr(charts, "MOST_POINTS", 3)
    with pytest.raises(ValueError, match="6 cells"):
        charts.occupancy(SHOTS)


def test_a_design_has_one_colour_whatever_stands_beside_it():
    for others in (["freebsd4"], ["linux_slub", "something"]):
        scale = charts.colours(["illumos", *others]).to_dict()
        assert scale["range"][scale["domain"].index("illumos")] == charts.COLOURS["illumos"]
        assert len(set(scale["range"])) == len(scale["range"])


def test_every_design_has_a_colour_of_its_own():
    from kmemexp.planning.plan import open_loader

    with open_loader() as loader:
        names = set(loader.get_group_options("design"))
    assert names <= set(charts.COLOURS)
    assert len(set(charts.COLOURS.values())) == len(charts.COLOURS)


def test_a_column_that_vega_would_take_for_a_path_is_refused():
    table = TABLE.rename(columns={"mean": "machine.cpus"})
    with pytest.raises(ValueError, match=r"machine\.cpus"):
        charts.intervals(table, y="condition", x=Axis("machine.cpus", ""), colour="design")


def test_a_chart_of_many_rows_can_be_shown() -> None:
    """Altair by itself refuses a frame of more than 5 000 rows."""
    shots = pd.DataFrame({
        "design": "freebsd4", "map": "kernel_map", "time_ns": np.arange(24) * 10**7,
        "occupancy": [np.zeros(256, np.uint8)] * 24,
    })  # fmt: skip
    (rows,) = charts.occupancy(shots).to_dict(validate=False)["datasets"].values()
    assert len(rows) == 24 * 256
