"""One screen: the question, the counts, what matters most, what went wrong."""

import io
import json
import re

import pytest
import report_fakes as fakes
from rich.console import Console

from kmemexp import metrics as known
from kmemexp.report import ending, labels, screen, told
from kmemexp.report.layout import TIMES


def finish(root, rows, width=80, **changes):
    fakes.write(root, rows)
    plan = fakes.plan(root, rows, **({"tables": "answer"} | changes))
    out = io.StringIO()
    ending.finish(plan, Console(file=out, width=width))
    return out.getvalue()


HELD = "held_peak_bytes"


def test_a_long_sweep_fits_one_screen_of_80_columns(tmp_path):
    metrics = fakes.metrics_table(fakes.grid(kva=tuple(range(10, 30))), replicas=6)
    shown = finish(tmp_path, metrics, description="Does it hold less?").splitlines()
    text = [line for line in shown if not line.startswith(("Full table", "Report"))]  # paths are not broken
    assert max(map(len, text)) <= 80
    assert len(shown) <= 50
    assert "Does it hold less?" in shown
    assert any(line.startswith("Loads: filetree (20 conditions), pgbench (20 conditions)") for line in shown)


def test_counts_are_those_of_the_comparison(tmp_path):
    shown = finish(tmp_path, fakes.metrics_table(fakes.grid(), noise=1e-3), metrics=[HELD, "total_frag_mean_ratio"])
    counts = re.search(r"^dragonfly_2003oct +(\d+) +(\d+) +(\d+) +(\d+)$", shown, re.MULTILINE)
    assert [int(n) for n in counts.groups()] == [8, 0, 0, 0]  # two metrics in two loads at two sizes
    assert re.search(rf"✓ held peak +-\d+\.\d+ ± \d+\.\d+ MiB +{TIMES}0\.50  4/4", shown)


def test_what_matters_is_ordered_by_margins_and_shown_with_its_interval(tmp_path):
    rows = fakes.metrics_table(
        fakes.grid(),
        held_peak_bytes=lambda a, r: 1e8 * (1 + 0.001 * r) * (1.04 if a["design"] == "dragonfly_2003oct" else 1),
        total_frag_mean_ratio=lambda a, r: (1 + 0.002 * r) * (0.2 if a["design"] == "dragonfly_2003oct" else 0.5),
    )
    shown = finish(tmp_path, rows, metrics=[HELD, "total_frag_mean_ratio"], output="text")
    part = shown.partition("What matters most")[2].partition("dragonfly_2003oct")[2]
    assert part.index("total frag mean") < part.index("held peak")  # fifty margins against four


def test_deadlocks_and_panics_are_said_by_design(tmp_path):
    metrics = fakes.metrics_table(
        fakes.grid(), panics_count=lambda axes, r: axes["design"] == "freebsd4" and r < 2, failed=((1, 3),)
    )
    shown = finish(tmp_path, metrics)
    assert "Panics: freebsd4 in 8 of 24 runs." in shown
    assert "Failed: dragonfly_2003aug25 in 1 of 24 runs." in shown
    assert "None of 72 runs: deadlocks, saturated." in shown


def test_json_says_the_same(tmp_path, capsys):
    metrics = fakes.metrics_table(fakes.grid())
    fakes.write(tmp_path, metrics)
    for _ in range(2):  # made, and then shown from what is kept
        ending.finish(fakes.plan(tmp_path, metrics, output="json", metrics=[HELD]))
        found = json.loads(capsys.readouterr().out)
        assert found["baseline"] == "freebsd4"
        assert [t["design"] for t in found["tallies"]] == ["dragonfly_2003aug25", "dragonfly_2003oct"]
        assert found["files"]["md"].endswith("tables/_comparison.md")


def test_quiet_says_nothing(tmp_path, capsys):
    metrics = fakes.metrics_table(fakes.grid())
    fakes.write(tmp_path, metrics)
    ending.finish(fakes.plan(tmp_path, metrics, output="quiet"))
    assert capsys.readouterr().out == ""


def test_the_answer_reads_back():
    effect = told.Effect(HELD, "better", "MiB", -1.0, float("nan"), 0.5, 0.5, "-1", f"{TIMES}0.50", 3, 4)
    whole = told.Answer("?", "a", 4, [HELD], {"x": 4}, [told.Tally("b", {"better": 3}, [effect])], [], [])
    back = told.from_data(json.loads(json.dumps(told.as_data(whole))))
    assert str(back) == str(whole)


def test_sparklines_span_their_scale():
    assert screen.spark([0.0, 0.5, 1.0, float("nan")], 0.0, 1.0) == "▁▅█ "
    assert screen.spark([2.0, 2.0], 2.0, 2.0) == "▁▁"


@pytest.mark.parametrize("metric", known.METRICS, ids=lambda m: m.name)
def test_labels_are_short_and_the_legend_whole(metric):
    label = labels.short(metric.name)
    assert len(label) <= 30
    assert not labels.meaning(metric.name).startswith("the same")


def test_no_two_metrics_of_one_unit_have_one_label():
    units = [(labels.short(name), name.rpartition("_")[2]) for name in known.NAMES]
    assert len(set(units)) == len(units)
