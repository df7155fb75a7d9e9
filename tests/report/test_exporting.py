import sqlite3

import pandas as pd
import pytest
import report_fakes as fakes

from kmemexp.report import exporting, results


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "made_up"
    fakes.write(root, fakes.metrics_table(fakes.grid(), failed=((1, 3),)))
    return results.load(root)


def test_csv_has_the_metrics_with_all_axes(found, tmp_path):
    exporting.write(found, tmp_path / "x.csv", "csv")
    read = pd.read_csv(tmp_path / "x.csv")
    assert len(read) == len(found.metrics)
    assert read["kva_bytes"].tolist() == found.metrics["kva_bytes"].tolist()
    assert read["held_peak_bytes"].sum() == found.metrics["held_peak_bytes"].sum()


def test_sqlite_has_all_tables_and_says_what_columns_mean(found, tmp_path):
    for _ in range(2):  # a file that stands there is replaced
        exporting.write(found, tmp_path / "x.sqlite", "sqlite")
    base = sqlite3.connect(tmp_path / "x.sqlite")
    assert base.execute("select count(*), count(distinct kva_bytes) from series").fetchone() == (3 * 71, 2)
    assert base.execute("select distinct design from metrics where status = 'failed'").fetchall() == [
        ("dragonfly_2003aug25",)
    ]
    assert base.execute("select occupancy from snapshots limit 1").fetchone() == (b"\x00\xff",)
    told = base.execute(
        "select unit, key from columns where \"table\" = 'series' and \"column\" = 'kva_bytes'"
    ).fetchone()
    assert told == ("B", "machine.kva_bytes")
    base.close()


def test_duckdb_has_the_same(found, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    exporting.write(found, tmp_path / "x.duckdb", "duckdb")
    base = duckdb.connect(str(tmp_path / "x.duckdb"))
    assert base.execute("select count(*) from metrics").fetchone() == (72,)
    assert (
        base.execute("select meaning from columns where \"column\" = 'held_peak_bytes'")
        .fetchone()[0]
        .startswith("memory")
    )
    base.close()
