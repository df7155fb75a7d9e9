"""Kernels that were recorded: rows stand beside, and what cannot be predicted says why."""

import numpy as np
import pytest

from kmemexp import trace
from kmemexp.errors import TraceError
from kmemexp.predict import methods
from kmemexp.validate import showing
from kmemexp.validate.checks import kernel
from kmemexp.validate.setting import setting
from kmemexp.workload.traces import library


@pytest.fixture
def predicted(monkeypatch):
    """One recording has counts of before and after, the others have none."""

    def predict(path, *more):
        if path.stem != "removal":
            raise TraceError(f"{path}: there are no counts")
        one = np.array([1])
        return methods.Predicted(
            ["dentry"],
            one,
            10 * one,
            30 * one,
            {methods.LAW: 28 * one, methods.PLAIN: 30 * one},
            {},
            one,
            one,
            (1, 0, 0),
            0.0,
        )

    monkeypatch.setattr(methods, "predict", predict)


def test_each_shipped_recording_has_rows_or_a_reason(predicted):
    rows = list(kernel.kernel(setting("K1", 0)))
    assert [(showing.result(row), row.note.removeprefix("left out: ")) for row in rows] == [
        ("left out", "there are no counts"),
        ("left out", "there are no counts"),
        ("beside", "caches are off by 4 pages in all, of 40 that came or went"),
        ("beside", "caches are off by 0 pages in all, of 40 that came or went"),
        ("left out", "there are no counts"),
        ("left out", kernel.ASK),
    ]
    assert (rows[2].expected, rows[2].measured) == (60, 56)


def test_the_shipped_one_has_addresses_and_counts():
    from kmemexp.workload.lives import snapshots

    path = library.path_of("removal")
    methods._check_addresses(path)
    taken = snapshots.find(path)
    assert taken.after.counts["dentry"].slabs > taken.before.counts["dentry"].slabs
    with pytest.raises(TraceError, match="compact form"):
        methods._check_addresses(library.path_of("filetree"))


def test_predict_takes_a_shipped_recording_by_name(predicted, capsys):
    assert trace.main(["predict", "removal", "--by", "law"]) == 0
    assert "dentry" in capsys.readouterr().out
