"""Rows of the table: what was expected, what was measured, how far apart the two may be, and whether they are.

Grades: A, exact; B, a closed form against an estimate, judged by the estimate's interval; C, published directions and
sizes whose setup is partly known; D, plausible. A and B decide; C and D stand beside and never fail. Grade I is a model
written apart (SimPy): it decides too.

An estimate passes when what is expected lies within its interval, and the interval is no wider than the tolerance: a
check that could not tell is none. Intervals are so wide that of all rows of a table of sound code about one in a
thousand tables has one that fails by chance (Bonferroni, Student's t over batch means).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

GRADES = ("A", "B", "I", "C", "D")
DECIDES = ("A", "B", "I")
LEFT_OUT = "left out"
CHANCE = 1e-3  # that a table of sound code fails
ESTIMATES = 400  # judged in one table, at most
ERROR = CHANCE / ESTIMATES


class Row(NamedTuple):
    """One line of the table."""

    check: str  # F1, Q5, …
    what: str  # with the parameters that were drawn
    source: str
    expected: float
    measured: float
    tolerance: float  # |measured - expected| may be so much; NaN: nothing is judged
    grade: str
    passed: bool | None  # None: stands beside, is not judged
    note: str = ""

    @property
    def deviation(self) -> float:
        """Measured less expected."""
        return self.measured - self.expected


class Judging:
    """How strictly this process judges. `lenient`: an interval may be as wide as it comes (mutants)."""

    lenient = False


judging = Judging()


class Wanted(NamedTuple):
    """What all rows of a check have in common."""

    check: str
    source: str
    grade: str

    def exact(self, what: str, expected: Any, measured: Any, *, within: float = 0.0) -> Row:
        """Judge numbers that must be equal, or differ by rounding at most."""
        a, b = float(expected), float(measured)
        good = abs(a - b) <= within or (math.isnan(a) and math.isnan(b))
        return Row(self.check, what, self.source, a, b, within, self.grade, good)

    def all_equal(self, what: str, expected: ArrayLike, measured: ArrayLike, *, within: float = 0.0) -> Row:
        """Judge many numbers at once; the row shows the pair that is furthest apart."""
        a, b = np.ravel(np.asarray(expected, float)), np.ravel(np.asarray(measured, float))
        if len(a) != len(b) or not len(a):
            note = f"{len(a)} numbers expected, {len(b)} measured"
            return Row(self.check, what, self.source, float(len(a)), float(len(b)), 0.0, self.grade, False, note)
        gap = np.abs(a - b)
        worst = int(np.argmax(np.where(np.isnan(gap), np.inf, gap)))
        return self.exact(what, a[worst], b[worst], within=within)._replace(note=f"{len(a)} numbers")

    def holds(self, what: str, good: bool, note: str = "") -> Row:
        """Judge a statement that is true or not."""
        return Row(self.check, what, self.source, 1.0, float(good), 0.0, self.grade, bool(good), note)

    def at_most(self, what: str, bound: float, measured: float, *, within: float = 0.0) -> Row:
        """Judge a bound."""
        good = measured <= bound + within
        return Row(self.check, what, self.source, float(bound), float(measured), within, self.grade, good, "bound")

    def estimate(
        self, what: str, expected: float, batches: ArrayLike, *, tolerance: float, weights: ArrayLike | None = None,
        bias: float = 0.0,
    ) -> Row:  # fmt: skip
        """Judge the (weighted) mean of independent batches, by its interval.

        `tolerance`: how wide half of the interval may be, as a share of what is expected. `bias`: what the measurement
        itself may be off, as a share (buckets of a histogram).
        """
        values = np.asarray(batches, float)
        weight = np.ones(len(values)) if weights is None else np.asarray(weights, float)
        mean = float(np.average(values, weights=weight))
        n = len(values)
        error = math.sqrt(float(np.sum((weight * (values - mean)) ** 2)) / (1 - 1 / n)) / float(weight.sum())
        half = float(stats.t.isf(ERROR / 2, n - 1)) * error
        return self._judged(what, expected, mean, half, tolerance * abs(expected), bias * abs(expected))

    def agree(self, what: str, theirs: ArrayLike, ours: ArrayLike, *, tolerance: float, bias: float = 0.0) -> Row:
        """Judge the means of two independent runs, each in batches, by the interval of their difference (Welch)."""
        a, b = np.asarray(theirs, float), np.asarray(ours, float)
        parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
        freedom = min(len(a), len(b)) - 1
        half = float(stats.t.isf(ERROR / 2, freedom)) * math.sqrt(sum(parts))
        mean = float(a.mean())
        return self._judged(what, mean, float(b.mean()), half, tolerance * abs(mean), bias * abs(mean))

    def share(self, what: str, expected: float, hits: int, n: int, *, tolerance: float) -> Row:
        """Judge a share of independent trials. `tolerance` is absolute."""
        half = float(stats.norm.isf(ERROR / 2)) * math.sqrt(expected * (1 - expected) / n)
        return self._judged(what, expected, hits / n, half, tolerance, 0.0)

    def beside(self, what: str, published: float, measured: float, note: str = "") -> Row:
        """Show a published figure beside ours; judges nothing."""
        return Row(self.check, what, self.source, float(published), float(measured), math.nan, self.grade, None, note)

    def left_out(self, what: str, why: str) -> Row:
        """Say that something could not be checked here."""
        return Row(self.check, what, self.source, math.nan, math.nan, math.nan, self.grade, None, f"{LEFT_OUT}: {why}")

    def _judged(self, what: str, expected: float, mean: float, half: float, limit: float, bias: float) -> Row:
        wide = half > limit and not judging.lenient
        good = abs(mean - expected) <= half + bias and not wide
        note = f"half-width {half:.3g} is more than {limit:.3g}" if wide else ""
        return Row(self.check, what, self.source, float(expected), mean, half + bias, self.grade, good, note)


def in_batches(values: ArrayLike, batches: int = 25) -> np.ndarray[tuple[int], np.dtype[Any]]:
    """Means of equal batches of a series; what does not fill a batch is left out at its beginning."""
    series = np.asarray(values, float)
    size = len(series) // batches
    means: np.ndarray[tuple[int], np.dtype[Any]] = series[len(series) - size * batches :].reshape(batches, size).mean(1)
    return means


def failures(rows: Sequence[Row]) -> list[Row]:
    """Rows that were judged and do not pass."""
    return [row for row in rows if row.passed is False and row.grade in DECIDES]
