"""From a results folder to what a user sees and finds in tables/."""

import io
import re
from pathlib import Path

import pandas as pd
import pytest
import report_fakes as fakes
from rich.console import Console

from kmemexp.errors import StoreError
from kmemexp.report import ending, tables
from kmemexp.report.layout import TIMES

HELD = "held_peak_bytes"


def finish(root, rows, width=120, **changes):
    """Write the rows, draw the tables, give back what was printed."""
    fakes.write(root, rows)
    return draw(fakes.plan(root, rows, **changes), width)


def draw(plan, width=120):
    out = io.StringIO()
    ending.finish(plan, Console(file=out, width=width))
    return out.getvalue()


def written(root):
    """The comparison as read from Parquet and CSV, and the text of the Markdown."""
    base = f"{root}/tables/_comparison"
    return pd.read_parquet(f"{base}.parquet"), pd.read_csv(f"{base}.csv"), Path(f"{base}.md").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "made_up"
    metrics = fakes.metrics_table(
        fakes.grid(), failed=((1, 3), (1, 4)), panics_count=lambda axes, r: axes["design"] == "freebsd4" and r < 2
    )
    return root, finish(root, metrics)


def test_the_three_files_agree(whole):
    parquet, csv, markdown = written(whole[0])
    assert len(parquet) == len(csv) == 4 * 3 * len(tables.METRICS)
    for column in parquet.columns:
        if pd.api.types.is_float_dtype(parquet[column]):
            pd.testing.assert_series_equal(parquet[column], csv[column], check_exact=True)
        else:
            assert parquet[column].astype(str).replace("", "nan").tolist() == csv[column].astype(str).tolist()
    row = parquet[(parquet["metric"] == HELD) & (parquet["design"] == "dragonfly_2003oct")].iloc[0]
    mean, half = row["mean"] / 2**20, (row["high"] - row["low"]) / 2**21
    found = re.search(rf"\| {HELD} \| MiB ↓ \|.*\| \*\*([\d.]+) ± ([\d.]+)\*\*<br>([-\d.]+) ± [\d.]+ {TIMES}([\d.]+) ✓ \|", markdown)  # fmt: skip # noqa: E501
    assert [float(t) for t in found.groups()] == pytest.approx([mean, half, row["diff"] / 2**20, row["ratio"]], abs=0.5)


def test_the_terminal_shows_the_same_cells_as_the_markdown(whole):
    root, shown = whole
    markdown = written(root)[2]
    cells = {
        part for line in markdown.splitlines() if line.startswith("| map_") for part in re.split(r" ?\| ?|<br>", line)
    }
    for cell in filter(None, (c.strip("* ") for c in cells)):
        assert cell in shown


def test_the_terminal_output_reads_well(whole):
    shown = whole[1]
    assert max(map(len, shown.splitlines()[:-1])) <= 120
    assert "made_up: 12 cells, 72 replicas in all" in shown
    assert "freebsd4" in shown
    assert "(baseline)" in shown
    assert "kva_bytes 192 MiB" in shown
    assert shown.index("kva_bytes 192 MiB") < shown.index("kva_bytes 512 MiB") < shown.index("pgbench")
    assert "(n=4)" in shown
    assert "95% interval over the replicas (n = 4 to 6): t" in shown
    assert f"one family of {8 * len(tables.METRICS)}" in " ".join(shown.split())
    assert "Failed: 2 of 72 replicas" in shown
    assert f"2 {TIMES} ValueError: no memory [0a1b2c3d] (dragonfly_2003aug25 on filetree)" in shown
    assert 'Panic "kmem_map too small": filetree, kva_bytes 192 MiB, freebsd4: in 2 of 6 replicas' in shown
    assert "in 2/6 (10% to 70%)" in shown
    assert "RAM 128 MiB; KVA 192 MiB, 512 MiB" in shown


def test_what_is_drawn_again_is_the_same(whole):
    root, shown = whole
    plan = fakes.plan(root, fakes.metrics_table(fakes.grid()))
    assert draw(plan) == shown


def test_a_narrow_terminal_splits_the_table_and_repeats_the_baseline(tmp_path):
    shown = finish(tmp_path, fakes.metrics_table(fakes.grid(), replicas=3), width=64, metrics=[HELD])
    assert max(map(len, shown.splitlines()[:-1])) <= 64
    assert shown.count("(baseline)") == 2 * 2


def test_the_best_is_bold_and_the_verdict_has_a_colour(tmp_path):
    out = io.StringIO()
    rows = fakes.metrics_table(fakes.grid())
    fakes.write(tmp_path, rows)
    plan = fakes.plan(tmp_path, rows, metrics=[HELD])
    ending.finish(plan, Console(file=out, width=120, force_terminal=True, color_system="standard"))
    assert re.search(r"\x1b\[1m *[\d.]+ ± [\d.]+\x1b\[0m", out.getvalue())
    assert re.search(r"\x1b\[32m *-[\d.]+ ± [^\x1b]*✓\x1b\[0m", out.getvalue())


def test_one_replica(tmp_path):
    shown = finish(tmp_path, fakes.metrics_table(fakes.grid(), replicas=1), metrics=[HELD])
    assert "(n=1)" in shown
    assert "a single replica has no interval" in shown
    assert "✓" not in shown.partition("Mean and 95%")[0]


def test_replicas_that_agree(tmp_path):
    metrics = fakes.metrics_table(
        fakes.grid(), held_peak_bytes=lambda a, r: 2**20 * (1 if a["design"] == "freebsd4" else 3)
    )
    shown = finish(tmp_path, metrics, metrics=[HELD])
    assert "±" not in shown.partition("Mean and 95%")[0]
    assert f"+2 {TIMES}3.00 ?" in shown  # six that agree are too few for a family of eight


def test_the_baseline_may_be_missing(tmp_path):
    metrics = fakes.metrics_table(fakes.grid(designs=("dragonfly_2003aug25", "dragonfly_2003oct")))
    shown = finish(tmp_path, metrics, metrics=[HELD])
    assert "The baseline (design=freebsd4) is not among these cells: means only." in shown
    assert "Second line" not in shown
    assert "There is no baseline: means only." in draw(fakes.plan(tmp_path, metrics, metrics=[HELD], baseline={}))


def test_a_single_cell_without_axes(tmp_path):
    shown = finish(tmp_path, fakes.metrics_table([{}], replicas=2), baseline={})
    assert "made_up: 1 cell, 2 replicas in all" in shown


def test_other_cells_of_the_folder_are_left_out(tmp_path):
    metrics = fakes.metrics_table(fakes.grid())
    fakes.write(tmp_path, metrics)
    plan = fakes.plan(tmp_path, metrics, metrics=[HELD], replicas=4)
    plan.cells = plan.cells[plan.cells["workload"] == "pgbench"]
    shown = draw(plan)
    assert "filetree" not in shown
    assert "6 cells, 24 replicas" in shown
    assert written(tmp_path)[0]["n"].eq(4).all()


def test_what_is_missing_is_said(tmp_path):
    metrics = fakes.metrics_table(fakes.grid(), replicas=2)
    fakes.write(tmp_path, metrics)
    plan = fakes.plan(tmp_path, metrics, replicas=3)
    assert "Not simulated yet: 12 replicas" in draw(plan)
    plan.cells = plan.cells.assign(cell_key="f" * 32)
    assert "none of its 12 cells" in draw(plan)
    plan.root = str(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="run the sweep first"):
        draw(plan)


def test_a_long_sweep_shows_the_first_conditions(tmp_path):
    metrics = fakes.metrics_table(fakes.grid(kva=tuple(range(10, 30))), replicas=2)
    shown = finish(tmp_path, metrics, metrics=[HELD])
    assert len(re.findall(r"^ *held peak  ", shown, re.MULTILINE)) == tables.SHOWN
    assert "Shown: 12 of 40 conditions" in shown
    assert f"Full table: {tmp_path}/tables/_comparison.parquet" in shown
    parquet, _, markdown = written(tmp_path)
    assert len(parquet) == 40 * 3
    assert markdown.count(HELD) == 40


def test_many_settings_of_a_design(tmp_path):
    cells = [{"design": "freebsd4"}, *({"design": "dragonfly_2003oct", "objects.params.slab.zone_bytes": 4096 * i} for i in range(1, 20))]  # fmt: skip # noqa: E501
    shown = finish(tmp_path, fakes.metrics_table(cells, replicas=2), metrics=[HELD])
    assert "12 of 20 designs" in shown
    assert "zone_bytes 8 KiB" in shown
    assert "zone_bytes 64 KiB" not in shown


def test_all_replicas_of_a_design_failed(tmp_path):
    failed = tuple((1, r) for r in range(3))
    metrics = fakes.metrics_table(fakes.grid(workloads=("pgbench",), kva=(fakes.MIB,)), replicas=3, failed=failed)
    assert " failed " in finish(tmp_path, metrics, metrics=[HELD])


def test_every_replica_failed(tmp_path):
    cells = fakes.grid(workloads=("pgbench",), kva=(fakes.MIB,))
    metrics = fakes.metrics_table(cells, replicas=1, failed=tuple((c, 0) for c in range(3)))
    assert "Failed: 3 of 3 replicas" in finish(tmp_path, metrics)


def test_text_with_brackets_is_printed_as_it_is(tmp_path):
    metrics = fakes.metrics_table(fakes.grid(workloads=("[bold]x|y",)), replicas=2)
    assert "[bold]x|y" in finish(tmp_path, metrics, metrics=[HELD])
