"""What the replicas of two designs say on one metric: intervals, and p values before any correction.

Null hypothesis of `p`: the two designs do not differ, so that either of a pair may be the larger one. Their difference
then scatters alike to both sides, whatever law the metric has. By the metric's law:

- plain: Student's t on the paired differences;
- skewed: t whose quantile is that of a studentised bootstrap, never less than Student's;
- rare: the exact sign test on replicas (of events that happen or not: McNemar's), and shares of replicas in place of
  means. Where the event happened in every replica of both designs it is a count like others, and taken as skewed;
- replicas that all differ by the same: the sign test, since a sample without scatter does not tell its law. Fewer than
  six never tell anything. What is deterministic by construction (`population.py`) is a fact, without p values.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kmemexp.metrics import PER_CENT, PLAIN, RARE, SKEWED_LAW, Margin
from kmemexp.report import small_samples, stats
from kmemexp.report.stats import Floats

Mask = NDArray[np.bool_]
ALIKE = 6
"""Replicas that must agree before agreement says anything: the sign test needs six for one chance in twenty."""

FACT, SIGN, ALIKE_TEST, T, BOOTSTRAP, NONE = "fact", "sign", "alike", "t", "bootstrap-t", "none"


class Evidence(NamedTuple):
    """One element for each comparison."""

    test: NDArray[np.object_]  # FACT, SIGN, ALIKE_TEST, T, BOOTSTRAP; NONE where nothing can be said
    pairs: NDArray[np.int64]
    diff: Floats
    low: Floats
    high: Floats
    error: Floats  # standard error of `diff`, widened as the bootstrap says
    margin: Floats  # in the metric's unit; of SIGN a share of the replicas
    p: Floats  # of no difference
    p_equal: Floats  # of a difference of `margin` at least
    p_not_more: Floats  # that the true difference is `margin` at least
    p_not_less: Floats  # that it is minus `margin` at most


def weigh(a: Floats, b: Floats, law: str, margin: Margin, fixed: Mask, ci: float) -> Evidence:
    """Compare `a` with the baseline `b` (both [comparisons, replicas]); `fixed`: both sides are deterministic."""
    pair = stats.paired_difference(a, b, ci)
    often = _always(a, b) if law == RARE else np.full(len(a), True)
    own = PER_CENT if margin.kind == "share" else margin
    size = own.size * (np.abs(stats.mean_interval(b).mean) if own.kind == "relative" else np.ones(len(a)))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = pair.sd / np.sqrt(pair.n)
    differ = np.where(often[:, None], a - b, np.nan)
    low, high, up, down = _bounds(differ, pair, PLAIN if law == PLAIN else SKEWED_LAW, ci)
    found = Evidence(
        np.where(pair.n >= 2, T if law == PLAIN else BOOTSTRAP, NONE).astype(object), pair.n, pair.diff, low, high,
        error * np.fmax(up, down), size, *_p_values(pair, error, size, up, down),
    )  # fmt: skip
    found = _alike(found, (pair.n >= 2) & (pair.sd == 0) & often)
    if not often.all():
        found = _chosen(~often & (pair.n >= 1), _rare(a, b, pair, margin), found)
    return _chosen(fixed & (pair.n >= 1), _facts(found), found)


def _always(a: Floats, b: Floats) -> Mask:
    """Where a rare event happened in every replica of both."""
    return np.asarray(((a > 0) & (b > 0) | np.isnan(a) | np.isnan(b)).all(axis=1), np.bool_)


def _bounds(d: Floats, pair: stats.Paired, law: str, ci: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Interval of each mean difference, and how much wider than Student's it is, upwards and downwards."""
    one = np.ones(len(d))
    if law == PLAIN:
        return pair.low, pair.high, one, one
    below, above = small_samples.bootstrap_t(d, 1 - ci)
    with np.errstate(invalid="ignore", divide="ignore"):
        error, t = pair.sd / np.sqrt(pair.n), stats.t_quantile(pair.n, ci)
        low, high = pair.diff - above * error, pair.diff + below * error
    return low, high, np.maximum(below / t, 1.0), np.maximum(above / t, 1.0)


def _p_values(
    pair: stats.Paired, error: Floats, margin: Floats, up: Floats, down: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """P values of no difference, of one beyond the margin, above it, below it. `up`, `down`: as of `_bounds`."""
    with np.errstate(invalid="ignore", divide="ignore"):
        t = pair.diff / error / np.where(pair.diff > 0, down, up)
        two_sided = np.where(pair.sd > 0, stats.t_p_value(t, pair.n), np.nan)
        not_more = np.where(pair.sd > 0, stats.t_tail((margin - pair.diff) / error / up, pair.n), np.nan)
        not_less = np.where(pair.sd > 0, stats.t_tail((margin + pair.diff) / error / down, pair.n), np.nan)
    return two_sided, np.maximum(not_more, not_less), not_more, not_less


def _alike(found: Evidence, where: Mask) -> Evidence:
    """Replace what replicas without scatter say."""
    enough = found.pairs >= ALIKE
    differ = np.abs(found.diff) > 0
    within = np.where(enough, np.where(np.abs(found.diff) <= found.margin, 0.0, 1.0), np.nan)
    p = np.where(enough, np.where(differ, 2.0 ** (1 - found.pairs.astype(float)), 1.0), np.nan)
    no_bound = np.full(len(p), np.nan)
    test = np.where(enough, ALIKE_TEST, NONE).astype(object)
    changed = found._replace(
        test=test, low=no_bound, high=no_bound, error=no_bound, p=p, p_equal=within,
        p_not_more=np.where(enough, np.where(found.diff <= found.margin, 0.0, 1.0), np.nan),
        p_not_less=np.where(enough, np.where(-found.diff <= found.margin, 0.0, 1.0), np.nan),
    )  # fmt: skip
    return _chosen(where, changed, found)


def _rare(a: Floats, b: Floats, pair: stats.Paired, margin: Margin) -> Evidence:
    """Compare the shares of replicas in which an event happened; `diff` stays that of the counts."""
    d = a - b
    up, down = (np.nansum(part, axis=1) for part in (d > 0, d < 0))
    more, less = ((a > 0) & (b == 0)).sum(axis=1), ((a == 0) & (b > 0)).sum(axis=1)
    none = np.full(len(a), np.nan)
    share = margin.size if margin.kind == "share" else 0.0
    return Evidence(
        np.full(len(a), SIGN, object), pair.n, pair.diff, none, none, none, np.full(len(a), share),
        small_samples.sign_p(up, down), *(small_samples.at_most_p(n, pair.n, share) for n in (more + less, more, less)),
    )  # fmt: skip


def _facts(found: Evidence) -> Evidence:
    none = np.full(len(found.diff), np.nan)
    return Evidence(
        np.full(len(found.diff), FACT, object), found.pairs, found.diff, found.diff, found.diff, none, found.margin,
        none, none, none, none,
    )  # fmt: skip


def _chosen(where: Mask, these: Evidence, others: Evidence) -> Evidence:
    return Evidence(*(np.where(where, a, b) for a, b in zip(these, others, strict=True)))


def share_difference(a: Floats, b: Floats, ci: float) -> tuple[Floats, Floats, Floats]:
    """Difference of the shares of replicas with an event, paired, with Newcombe's interval (1998, method 10)."""
    both = ~(np.isnan(a) | np.isnan(b))
    n = both.sum(axis=1)
    x, y = (a > 0) & both, (b > 0) & both
    counts = [(x & y).sum(1), (x & ~y).sum(1), (~x & y & both).sum(1), (~x & ~y & both).sum(1)]
    n11, n10, n01, n00 = (c.astype(np.float64) for c in counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        p, q = (n11 + n10) / n, (n11 + n01) / n
        under = np.sqrt((n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00))
        phi = np.where(under > 0, (n11 * n00 - n10 * n01) / np.where(under > 0, under, 1), 0.0)
        p_low, p_high = stats.wilson(n11 + n10, n, ci)
        q_low, q_high = stats.wilson(n11 + n01, n, ci)
        down, up = (
            np.sqrt(np.maximum(u**2 - 2 * phi * u * v + v**2, 0.0))
            for u, v in ((p - p_low, q_high - q), (p_high - p, q - q_low))
        )
        share = np.where(n > 0, p - q, np.nan)
    return share, share - down, share + up
