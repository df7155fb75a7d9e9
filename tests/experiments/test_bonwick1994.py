"""Bonwick's table: what the analysis says of results that are made up."""

import json

import made_up
import pandas as pd
import pyarrow as pa
import pytest

from kmemexp.claims import finding
from kmemexp.metrics import NAMES, SERIES
from kmemexp.report.results import Results
from kmemexp.store.schema import SCHEMAS

B94 = finding.load("bonwick1994")
PHASES = [("boot", 20), ("spike", 5), ("calm", 5), ("find", 10), ("kenbus", 20)]
SECONDS = [20, 30, 40, 60]  # when the steps are looked at
HELD = 1_000_000


def results(percent, phases=PHASES):
    """`percent(allocator, step, replica)`: total fragmentation at the end of a step; 99 % between the steps."""
    config = json.dumps({"workload": {"name": "b", "phases": [{"name": n, "seconds": s} for n, s in phases]}})
    rows, series = [], []
    for number, name in enumerate(B94.TITLES):
        for replica in range(6):
            key = f"{number:032x}"
            rows.append({
                "cell_key": key, "replica": replica, "seed": 0, "status": "done", "error": None, "design": "one_map",
                "workload": "b", "cpus": 1, "ram_bytes": 1 << 24, "kva_bytes": 1 << 26, "config": config,
                "axes": json.dumps({"objects": name}), "panic": "", "deadlock": "", **dict.fromkeys(NAMES, 0.0),
            })  # fmt: skip
            for sample in range(1, 13):
                at = 5 * sample
                share = percent(name, B94.STEPS[SECONDS.index(at)], replica) if at in SECONDS else 99.0
                row = dict.fromkeys(SERIES, 0) | {"cell_key": key, "replica": replica, "sample": sample - 1}
                row |= {"time_ns": at * 1_000_000_000 - 1000, "held_bytes": HELD}
                series.append(row | {"requested_bytes": round(HELD * (1 - share / 100))})
    return Results.from_tables(*(
        pa.Table.from_pylist(table, SCHEMAS[name]) for name, table in (("metrics", rows), ("series", series))
    ))  # fmt: skip


def report(percent, **kwargs):
    return B94.analyse({"bonwick1994": results(percent, **kwargs)})


def published(name, step, replica):
    value = B94.PUBLISHED.get(name, B94.PUBLISHED[B94.SEQUENTIAL])[B94.STEPS.index(step)]
    return value + 0.1 * made_up.noise({"name": name, "step": step}, replica)


def test_the_published_figures_are_those_of_the_paper():
    assert B94.PUBLISHED == {
        "slab1994": (11, 13, 14, 14),
        "fast_fits": (7, 19, 19, 27),
        "buckets": (20, 43, 43, 45),
        "lazy_buddy": (23, 45, 45, 46),
    }


def test_the_published_figures_themselves_pass_every_judgement():
    found = report(published)
    assert [v.verdict for v in found.verdicts] == ["holds"] * 4 + ["observed"] * 2
    assert found.verdicts[0].low < 30 < found.verdicts[0].high
    assert found.verdicts[-1].effect == pytest.approx(0, abs=0.2)


def test_a_step_is_the_last_sample_before_its_phase_ends():
    table = report(published).tables["fragmentation"]
    assert len(table) == 20
    assert list(table.columns[:3]) == ["workload", "allocator", "step"]
    rows = table[table["published"].notna()]
    assert len(rows) == 16
    assert (rows["deviation"].abs() < 0.3).all()
    assert (rows["low"] <= rows["mean"]).all()
    assert (rows["mean"] <= rows["high"]).all()


def test_nothing_holds_where_all_are_alike():
    words = [v.verdict for v in report(lambda name, step, replica: 20 + 0.1 * replica).verdicts]
    assert words == ["fails"] * 4 + ["observed"] * 2


def test_the_order_holds_in_part_where_sequential_fit_is_out_of_place():
    def percent(name, step, replica):
        return 60.0 + 0.1 * replica if name == B94.SEQUENTIAL else published(name, step, replica)

    words = [v.verdict for v in report(percent).verdicts]
    assert words == ["holds in part", "holds", "holds", "holds in part", "observed", "observed"]


def test_a_ratio_far_from_three_holds_in_part():
    def percent(name, step, replica):
        return published(name, step, replica) + (15 if name == B94.SLAB else 0)

    words = [v.verdict for v in report(percent).verdicts]
    assert words[1:3] == ["holds in part"] * 2


def test_a_load_without_the_paper_s_steps_is_refused():
    with pytest.raises(LookupError, match="no phase calm"):
        report(published, phases=[p for p in PHASES if p[0] != "calm"])


def test_the_chart_has_the_published_figures_beside_the_simulated():
    chart = report(published).charts["fragmentation"].to_dict()
    rows = pd.concat(pd.DataFrame(d) for d in chart["datasets"].values())
    assert {"published", "b"} <= set(rows["workload"])
