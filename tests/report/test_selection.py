"""Selection of the best design: constants, a worked width, and the guarantee."""

import numpy as np
import pytest
import report_fakes as fakes

from kmemexp.errors import ConfigError
from kmemexp.report import selection
from kmemexp.report.results import Results


@pytest.mark.parametrize(
    ("designs", "first", "eta", "h2"),
    [(2, 10, 0.334050, 6.012905), (3, 10, 0.472944, 8.512989), (5, 20, 0.237238, 9.015056),
     (10, 10, 0.859083, 15.463502), (10, 20, 0.302934, 11.511485)],
)  # fmt: skip
def test_constants_of_kim_and_nelson(designs, first, eta, h2):
    assert selection.kn_constants(designs, first) == pytest.approx((eta, h2), abs=1e-6)


def test_ocba():
    found = selection.ocba([1, 2, 3, 5], [1, 1, 2, 3], 1000)
    assert found == pytest.approx([306.710535, 270.551986, 270.551986, 152.185492], abs=1e-6)


def test_the_best_is_kept_as_often_as_promised():
    """Five designs whose best is better by just delta, on a load that they share."""
    rng = np.random.default_rng(11)
    right = []
    for _ in range(300):
        load = rng.normal(0, 2, 400)
        x = load + np.array([[0.0], [1.0], [1.0], [1.0], [1.0]]) + rng.normal(0, 1.5, (5, 400))
        found = selection.kim_nelson(x, 1.0, 10)
        assert found.designs.sum() == 1
        right.append(found.designs[0])
    assert np.mean(right) >= 0.95


def test_too_few_replicas_drop_nothing():
    assert selection.kim_nelson(np.zeros((3, 5)), 1.0, 10).designs.all()
    assert selection.kim_nelson(np.zeros((1, 50)), 1.0, 10) == (np.array([True]), 50)


def test_selection_from_results():
    results = Results.from_tables(fakes.metrics_table(fakes.grid(workloads=("filetree",)), replicas=12))
    found, table = results.select("held_peak_bytes", 2**20), results.metrics
    best = found[found["left"]].groupby("kva_bytes")["design"].agg(list)
    assert best.tolist() == [["dragonfly_2003oct"]] * 2
    assert not found["open"].any()
    with pytest.raises(ConfigError, match="no direction"):
        selection.select(table, "operations_count", 1.0)
