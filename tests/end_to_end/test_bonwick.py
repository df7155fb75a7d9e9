"""Bonwick's four allocators on a small load through his four steps: whole, and nothing gets lost."""

import functools

import pytest

import kmemexp
from kmemexp.claims import finding

STEPS, POINTS = 4, 96
ALLOCATORS = ("slab1994", "fast_fits", "fast_fits_release", "buckets", "lazy_buddy")


@functools.cache
def results():
    return kmemexp.simulate(["+sweep=bonwick1994", "workload=bonwick1994", "workload.scale=0.1", "sweep.reps.max=2"])


def series():
    return results().series.astype({"objects": str})


def test_every_allocator_serves_every_request():
    metrics = results().metrics
    assert set(metrics["objects"].astype(str)) == set(ALLOCATORS)
    assert (metrics["status"] == "done").all()
    assert (metrics[["alloc_failures_count", "panics_count"]] == 0).all(axis=None)


def test_all_see_the_same_load_and_hold_what_they_hand_out():
    rows = series()
    assert (rows.groupby(["replica", "sample"])["requested_bytes"].nunique() == 1).all()
    assert (rows["requested_bytes"] <= rows["granted_bytes"]).all()
    assert (rows["granted_bytes"] <= rows["held_bytes"]).all()
    assert (rows["held_bytes"] % 4096 == 0).all()
    assert (rows["operations_count"] > 0).all()


@pytest.mark.parametrize("name", ["fast_fits", "buckets"])
def test_these_hold_what_they_once_took(name):
    """All but requests beyond the buckets, which go back: buckets may hold less than at its peak, but no page."""
    rows = series()
    held = rows[rows["objects"] == name].sort_values("sample").groupby("replica")["held_bytes"]
    assert (held.diff().dropna() >= (0 if name == "fast_fits" else -8 * 4096)).all()


def test_the_samples_fall_on_the_ends_of_the_steps():
    rows = series()
    ends = rows[rows["sample"].isin([31, 47, 63, POINTS - 1])].groupby("sample")["time_ns"]
    for seconds, times in zip((240, 360, 480, 720), (t for _, t in ends), strict=True):
        assert ((times <= seconds * 1e9) & (times > (seconds - 1.5) * 1e9)).all()


def test_the_analysis_has_a_figure_for_every_allocator_and_step():
    report = finding.load("bonwick1994").analyse({"bonwick1994": results()})
    table = report.tables["fragmentation"]
    assert len(table) == len(ALLOCATORS) * STEPS
    assert table["mean"].between(0, 100, inclusive="neither").all()
    assert table.loc[table["allocator"] == "fast_fits_release", "published"].isna().all()
    assert len(report.verdicts) == 6
