"""What passes and what does not: a check that could not fail would be none."""

import numpy as np
import pytest

from kmemexp.validate import rows, showing
from kmemexp.validate.rows import Wanted

EXACT, ESTIMATED, PUBLISHED = (Wanted("X", "a source", grade) for grade in "ABC")


def test_exact_numbers():
    assert EXACT.exact("n", 3, 3).passed
    assert not EXACT.exact("n", 3, 4).passed
    assert EXACT.exact("n", 3, 3.5, within=0.5).passed
    assert not EXACT.exact("n", 3, float("nan")).passed


def test_many_numbers_show_the_pair_that_is_furthest_apart():
    row = EXACT.all_equal("n", [1, 2, 3], [1, 5, 3])
    assert (row.passed, row.expected, row.measured, row.deviation) == (False, 2, 5, 3)
    assert EXACT.all_equal("n", [1, 2], [1, 2]).passed
    assert not EXACT.all_equal("n", [1, 2], [1]).passed
    assert not EXACT.all_equal("n", [], []).passed
    assert not EXACT.all_equal("n", [1, 2], [1, np.nan]).passed


@pytest.mark.parametrize("seed", range(5))
def test_an_estimate_passes_where_its_interval_holds_what_is_expected(seed):
    batches = np.random.default_rng(seed).normal(10, 0.1, 25)
    assert ESTIMATED.estimate("n", 10, batches, tolerance=0.1).passed
    assert not ESTIMATED.estimate("n", 10.3, batches, tolerance=0.1).passed
    assert ESTIMATED.estimate("n", 10.3, batches, tolerance=0.1, bias=0.05).passed


def test_an_interval_that_is_too_wide_tells_nothing_and_fails():
    row = ESTIMATED.estimate("n", 10, np.random.default_rng(1).normal(10, 5, 25), tolerance=0.1)
    assert not row.passed
    assert "half-width" in row.note


def test_shares():
    assert ESTIMATED.share("n", 0.5, 5020, 10_000, tolerance=0.05).passed
    assert not ESTIMATED.share("n", 0.5, 5300, 10_000, tolerance=0.05).passed
    assert not ESTIMATED.share("n", 0.5, 5, 10, tolerance=0.05).passed


def test_what_is_published_stands_beside_and_never_fails():
    row = PUBLISHED.beside("n", 3.0, 5.0)
    assert (row.passed, row.deviation, showing.result(row)) == (None, 2.0, "beside")
    judged = PUBLISHED.exact("n", 3, 4)
    assert showing.result(judged) == "beside"
    assert rows.failures([row, judged]) == []
    assert rows.failures([EXACT.exact("n", 3, 4)])
