"""Verdicts: the p values of one question corrected together, and each comparison put into one of four words.

A *family* is all that a question rests on: every metric judged, under every condition, for every design compared.
Holm's method holds the chance that anything at all in it is called different although it is not at 5 %; the same holds,
apart, for what is called equivalent. Descriptions (metrics that are shown and not judged) do not belong to it.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from kmemexp.report import bounds, small_samples, stats
from kmemexp.report.evidence import FACT, SIGN
from kmemexp.report.stats import Floats

BETTER, WORSE, EQUIVALENT, INCONCLUSIVE, BASELINE = "better", "worse", "equivalent", "inconclusive", "baseline"
COMPARED, ALONE, REFERENCE = "compared", "alone", "reference"
COLUMNS = ("family", "p_holm", "detectable", "not_worse", "verdict")
"""What judging adds to a comparison."""


def judge(table: pd.DataFrame, judged: Collection[str] | None = None, ci: float = 0.95) -> pd.DataFrame:
    """Give the table with the columns COLUMNS, all its rows taken as one family.

    `judged` are the metrics that belong to it, by default all with a direction; the other rows have the verdict "",
    and so have those that a bound leaves no room to differ, and references that know the future.
    """
    names = table["metric"].astype(str)
    counts = (table["better"].astype(str) != "") & (table["role"] == COMPARED)
    counts &= names.isin(judged) if judged is not None else True
    inside = counts.to_numpy(bool) & ~bounds.no_room(table)
    level = 1 - ci
    p, equal, not_more, not_less = (
        np.where(inside, table[name].to_numpy(np.float64), np.nan)
        for name in ("p", "p_equal", "p_not_more", "p_not_less")
    )
    less = (table["better"].astype(str) == "less").to_numpy()
    p_holm = stats.holm(p)
    fact = inside & (table["test"] == FACT).to_numpy()
    size = int((inside & ~fact & table["pairs"].ge(1).to_numpy()).sum())
    diff, margin = (table[name].to_numpy(np.float64) for name in ("diff", "margin"))
    with np.errstate(invalid="ignore"):
        harm = np.where(less, diff, -diff)
        equivalent = (stats.holm(equal) < level) | (fact & (np.abs(diff) <= margin))
        not_worse = (stats.holm(np.where(less, not_more, not_less)) < level) | (fact & (harm <= margin))
        differs = (p_holm < level) | (fact & (np.abs(diff) > margin))
    words = np.select([equivalent, differs & (harm < 0), differs], [EQUIVALENT, BETTER, WORSE], INCONCLUSIVE)
    verdict = np.where(inside, words, "")
    verdict[(table["role"] == BASELINE).to_numpy()] = BASELINE
    return table.assign(
        family=size, p_holm=p_holm, detectable=np.where(inside, _detectable(table, level / max(size, 1)), np.nan),
        not_worse=inside & (not_worse | (verdict == BETTER) | (verdict == EQUIVALENT)), verdict=verdict,
    )  # fmt: skip


def _detectable(table: pd.DataFrame, level: float) -> Floats:
    """Least true difference that so many replicas of this scatter show with a chance of 80 % at this level.

    In the metric's unit; of rare events a share of the replicas. NaN where no difference could have been seen.
    """
    n = table["pairs"].to_numpy()
    sized = least(n, table["error"].to_numpy(np.float64), level)
    seen = np.where((table["test"] == SIGN).to_numpy(), small_samples.least_share(n, level), sized)
    return np.where(np.isfinite(seen), seen, np.nan)


def least(pairs: ArrayLike, error: ArrayLike, level: float) -> Floats:
    """Least difference that pairs with this standard error show with a chance of 80 % at a two-sided level."""
    n = np.asarray(pairs)
    sums = stats.t_quantile(n, 1 - level) + stats.t_quantile(n, 2 * small_samples.POWER - 1)
    with np.errstate(invalid="ignore"):
        found: Floats = sums * np.asarray(error, dtype=np.float64)
    return found


def one_family(
    tables: Sequence[pd.DataFrame], judged: Collection[str] | None = None, ci: float = 0.95
) -> list[pd.DataFrame]:
    """Judge several comparisons again, as the answer to one question."""
    needed = ["metric", "better", "role", "test", "pairs", "diff", "margin", "error", "p", "p_equal", "p_not_more",
              "p_not_less"]  # fmt: skip
    plain = [
        table[[*needed, *table.columns.intersection(["room"])]].astype({"metric": str, "better": str})
        for table in tables
    ]
    whole = judge(pd.concat(plain, ignore_index=True), judged, ci)
    ends = np.cumsum([len(table) for table in tables])
    parts = np.split(np.arange(len(whole)), ends[:-1]) if len(tables) else []
    return [
        table.assign(**{name: whole[name].to_numpy()[part] for name in COLUMNS})
        for table, part in zip(tables, parts, strict=True)
    ]


def combined(rows: Sequence[pd.Series]) -> str:
    """Word on several measures of one thing, of which all must be right: better in one, and worse in none.

    "better" where one is better and no other is worse by its margin, which must be shown of each; "worse" where one is
    worse and none better; "mixed" where there are both, or one is better and another one may be worse; "equivalent"
    where all are; else "inconclusive".
    """
    words = [str(row["verdict"]) for row in rows]
    if WORSE in words:
        return "mixed" if BETTER in words else WORSE
    if BETTER in words:
        return BETTER if all(bool(row["not_worse"]) for row in rows) else "mixed"
    return EQUIVALENT if words and set(words) == {EQUIVALENT} else INCONCLUSIVE


def roles(itself: NDArray[np.bool_], base: NDArray[np.int64]) -> NDArray[np.str_]:
    """Tell what each row of a comparison is: the baseline itself, compared with one, or alone."""
    return np.select([itself, base < 0], [BASELINE, ALONE], COMPARED)
