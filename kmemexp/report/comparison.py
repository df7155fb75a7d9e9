"""Paired comparison of designs against a baseline, condition by condition."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kmemexp import metrics as known
from kmemexp.errors import ConfigError
from kmemexp.metrics import Margin
from kmemexp.report import bounds, evidence, families, frames, population, small_samples, stats
from kmemexp.report.frames import axes_of
from kmemexp.report.stats import Floats
from kmemexp.store import columns

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

CONDITIONS = ("scenario", "workload", "machine", "cost", "memory", "sample", "seed")
"""First words of the axes that say what a design is tried on; every other axis is part of the design."""

LOAD = ("interrupts.rate_hz", "interrupts.sources", "interrupts/sources", "interrupts.clock_allocates", "sources")
"""Axes that belong to the load although their group is part of the design."""


SHARES = ("occurs", "occurs_low", "occurs_high", "share_diff", "share_low", "share_high")
"""Columns that only rare events have."""


class Layout(NamedTuple):
    """The cells of a table: one row of `keys` for each, and where its values lie."""

    keys: pd.DataFrame  # condition and variant columns
    condition: list[str]
    variant: list[str]
    cell: Numbers  # [rows of the table]: row of `keys`
    replica: Numbers  # [rows of the table]: column in a (cell, replica) matrix
    done: Mask  # [rows of the table]
    failed: Numbers  # [cells]: failed lanes
    fixed: Mask  # [cells]: deterministic by construction
    foresees: Mask  # [cells]: references that know the future, and no designs
    named: list[str]  # [cells]: key of the cell, "" where the table has none

    def matrix(self, values: pd.Series) -> Floats:
        """Values as [cells, replicas], NaN where a lane is missing or failed."""
        out = np.full((len(self.keys), int(self.replica.max(initial=-1)) + 1), np.nan)
        out[self.cell[self.done], self.replica[self.done]] = values.to_numpy(np.float64, na_value=np.nan)[self.done]
        return out


def compare(
    df: pd.DataFrame,
    baseline: Mapping[str, object] | str | None,
    metrics: Sequence[str] | None = None,
    by: Sequence[str] | None = None,
    ci: float = 0.95,
    interval: Literal["", "t", "bca"] = "",
    margins: Mapping[str, Margin] | None = None,
    judged: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Compare every variant with the baseline under the same conditions, replica by replica.

    A condition is a workload on a machine; a variant is a design with every other axis that belongs to it. Conditions
    are never averaged. `baseline` holds the axis values of the variant to compare with, such as
    ``{"design": "freebsd4"}`` (axes are named by their column or their key), or only the design's name; where several
    variants have them, each variant is compared with the one that equals it in all other axes. None gives means only.
    `by` names the columns that make the condition, where the rule above does not suit. `interval` is "" for what suits
    each metric (`evidence.py`), "t", or "bca" for bootstrapped `diff_low` and `diff_high` (slow; p and verdict stay the
    same). `margins` replaces those that metrics state (`kmemexp/metrics/`). `judged` names the metrics that the
    question is about, by default all that have a direction: these are one family, and the others are descriptions.

    Returns one row per condition, metric and variant, with their axis columns and:

    - `n`, `failed`: replicas; `mean`, `low`, `high`;
    - over the `pairs` of common replicas `diff`, `diff_low`, `diff_high`; `ratio`, `ratio_low`, `ratio_high` (ratio of
      means, Fieller); `pairing`, the variance saved by common random numbers (below 1 they did harm);
    - for rare events `occurs`, `occurs_low`, `occurs_high`: share of the replicas with any (Wilson), and `share_diff`,
      `share_low`, `share_high`: by how much it differs from the baseline's (Newcombe);
    - `test`, how the pairs were compared; `p`, and `p_holm` corrected for the `family`, so many comparisons;
    - `margin` up to which designs are equivalent, `detectable`: the least difference that could have been seen (of a
      sign test both are shares of replicas), `not_worse`: whether being worse by the margin is excluded;
    - `bound`: the mean that no placement could pass, where the metric has one; `room`, the share by which it lies above
      the baseline's mean; `gap_closed`, the share of this distance that the variant has covered;
    - `better` ("less", "more", ""), `verdict`, and `best` (best mean of the condition, ties all).

    The verdict is "baseline"; "equivalent" where the difference is less than the margin (two one-sided tests, Holm);
    "better" or "worse" where there is a difference (Holm); "inconclusive" where neither can be said; "" where there is
    no direction or no baseline, the metric is not judged, the room is less than 5 %, or the variant is a reference that
    knows the future: no design, never best. Raises ConfigError for what `df` does not have.

    >>> compare(load("results/fragmentation").metrics, "freebsd4", ["held_peak_bytes"])  # doctest: +SKIP
    """
    axes = axes_of(df)
    baseline = _columns_of(axes, baseline)
    if interval not in ("", "t", "bca"):
        raise ConfigError(f'interval: "", "t" or "bca", not {interval!r}')
    names = choose_metrics(df, metrics)
    choose_metrics(df, judged)
    cells = arrange(df, by, [c for c in baseline if c in df.columns])
    is_base = _find_baseline(cells.keys, baseline)
    order = _display_order(cells, is_base)
    condition = number_groups(cells.keys, cells.condition)
    base = _baseline_of(cells, condition, is_base, list(baseline))
    how = _How(condition, base, cells.fixed & cells.fixed[base], cells.foresees, ci, interval)
    compared = [_one_metric(df, cells, name, (margins or {}).get(name), how).iloc[order] for name in names]
    keys = cells.keys.assign(failed=cells.failed, cell_key=cells.named).iloc[order]
    table = pd.concat([keys.join(one) for one in compared])
    by_condition = np.argsort(np.tile(condition[order], len(names)), kind="stable")  # then metric, then variant
    table = families.judge(table.iloc[by_condition].reset_index(drop=True), judged, ci)
    return frames.said(_tidy(table, cells.condition + cells.variant, names), axes)


def _columns_of(axes: Mapping[str, Any], baseline: Mapping[str, object] | str | None) -> dict[str, object]:
    """Name the axes of a baseline by their columns."""
    wanted = {"design": baseline} if isinstance(baseline, str) else dict(baseline or {})
    return {column_of(axes, name): value for name, value in wanted.items()}


def choose_metrics(df: pd.DataFrame, metrics: Sequence[str] | None) -> list[str]:
    """Return the metrics asked for, or all that the table has; ConfigError for one that it does not have."""
    present = [name for name in known.NAMES if name in df.columns]
    if not metrics and not present:
        raise ConfigError("the table has no metric columns: name them with metrics=, or give Results.metrics")
    if not metrics:
        return present
    for name in metrics:
        if name not in df.columns or not pd.api.types.is_numeric_dtype(df[name]):
            close = difflib.get_close_matches(name, present, 1)
            hint = f"did you mean {close[0]}?" if close else "have: " + ", ".join(present)
            raise ConfigError(f"unknown metric {name}: {hint}")
    return list(metrics)


def arrange(df: pd.DataFrame, by: Sequence[str] | None = None, compared: Sequence[str] = ()) -> Layout:
    """Split the axis columns into condition and variant, and number the cells.

    `compared` are axes of the baseline: they always tell variants apart. ConfigError where the axes do not
    tell two cells apart, since their replicas must not be mixed.
    """
    axes = axes_of(df)
    by = by if by is None else [column_of(axes, name) for name in by]
    for name in by or ():
        if name not in df.columns:
            raise ConfigError(f"by: no column {name}; axes here: {', '.join(axes)}")
    condition = [c for c, key in axes.items() if is_condition(key)] if by is None else list(by)
    compared = [column_of(axes, name) for name in compared]
    condition = [c for c in condition if c not in compared]
    variant = [c for c in dict.fromkeys([*axes, *compared]) if c not in condition]
    for column in columns.MACHINE:
        if column in df.columns and column not in condition + variant:
            explained = df.groupby(condition + variant, dropna=False, observed=True)[column].nunique().max() == 1
            condition += [] if explained else [column]
    keys = df[condition + variant].drop_duplicates(ignore_index=True)
    number = number_groups(df, condition + variant)
    first = np.unique(number, return_index=True)[1]
    place = np.empty(len(first), np.int64)
    place[number[np.sort(first)]] = np.arange(len(first))
    cell = place[number]
    replica = pd.factorize(df["replica"], sort=True)[0]
    done = (df["status"] == "done").to_numpy() if "status" in df.columns else np.ones(len(df), bool)
    _refuse_mixed(df, cell, replica, keys)
    still, foresees = np.zeros(len(keys), bool), np.zeros(len(keys), bool)
    if "config" in df.columns:
        one = np.unique(cell, return_index=True)[1]
        still[cell[one]] = population.fixed(df["config"].iloc[one])
        foresees[cell[one]] = population.foreseeing(df["config"].iloc[one])
    named = [""] * len(keys)
    if "cell_key" in df.columns:
        for number, key in zip(cell.tolist(), df["cell_key"].tolist(), strict=True):
            named[number] = key
    failed = np.bincount(cell[~done], minlength=len(keys))
    return Layout(keys, condition, variant, cell, replica, done, failed, still, foresees, named)


def has(df: pd.DataFrame, baseline: Mapping[str, object]) -> bool:
    """Whether some row has the baseline's values."""
    found = np.full(len(df), bool(baseline))
    axes = axes_of(df)
    for name, value in baseline.items():
        column = column_of(axes, name)
        found &= matches(df[column], value) if column in df.columns else False
    return bool(found.any())


def is_condition(key: str) -> bool:
    """Whether an axis (by its configuration key) says what a design is tried on; else it is part of the design."""
    return key.replace("/", ".").split(".")[0] in CONDITIONS or key.startswith(LOAD)


def column_of(axes: Mapping[str, str], name: str) -> str:
    """Find the column of an axis, which may be named by its configuration key too."""
    return name if name in axes else next((column for column, key in axes.items() if key == name), name)


def matches(column: pd.Series, value: object) -> Mask:
    """Where a column holds a value, also when one of them is text and the other a number."""
    return ((column == value).fillna(False) | (column.astype(str) == str(value))).to_numpy(bool)


def varies(column: pd.Series) -> bool:
    """Whether a column has more than one value; a missing value is one too."""
    return len(column.drop_duplicates()) > 1


def number_groups(df: pd.DataFrame, columns: list[str]) -> Numbers:
    """Give each row the number of its group, in sorted order; missing values are values too."""
    if not columns:
        return np.zeros(len(df), np.int64)
    return np.asarray(df.groupby(columns, dropna=False, observed=True, sort=True).ngroup(), np.int64)


def _refuse_mixed(df: pd.DataFrame, cell: Numbers, replica: Numbers, keys: pd.DataFrame) -> None:
    twice = pd.MultiIndex.from_arrays([cell, replica]).duplicated()
    if twice.any():
        number = cell[np.argmax(twice)]
        where = ", ".join(f"{name}={value}" for name, value in keys.iloc[number].items())
        count = df["cell_key"][cell == number].nunique() if "cell_key" in df.columns else 2
        raise ConfigError(
            f"{count} different cells have the same axis values ({where}), so their replicas cannot be told apart: "
            "select one run's rows by cell_key (the column config shows how the cells differ), or give every cell its "
            "own value in an axis column"
        )


def _find_baseline(keys: pd.DataFrame, baseline: Mapping[str, object]) -> Mask:
    """Rows of `keys` that have the baseline's values."""
    found = np.full(len(keys), bool(baseline))
    for name, value in baseline.items():
        if name not in keys.columns:
            raise ConfigError(f"baseline: {name} is not an axis here; axes: {', '.join(keys.columns)}")
        found &= matches(keys[name], value)
    if baseline and not found.any():
        have = "; ".join(f"{name}: {', '.join(map(str, keys[name].drop_duplicates()))}" for name in baseline)
        raise ConfigError(f"baseline {dict(baseline)} is not among the cells; there are {have}")
    return found


def _display_order(cells: Layout, is_base: Mask) -> Numbers:
    """Conditions in their order, in each the baseline first."""
    marked = cells.keys.assign(_other=~is_base)
    return marked.sort_values([*cells.condition, "_other", *cells.variant], kind="stable").index.to_numpy()


def _baseline_of(cells: Layout, condition: Numbers, is_base: Mask, named: list[str]) -> Numbers:
    """Row of the baseline for each row of `keys`, -1 for none."""
    twin = number_groups(cells.keys, [c for c in cells.condition + cells.variant if c not in named])
    rows = np.flatnonzero(is_base)
    by_twin = np.full(int(twin.max(initial=-1)) + 1, -1)
    by_twin[twin[rows]] = rows
    count = np.bincount(condition[rows], minlength=int(condition.max(initial=-1)) + 1)
    only = np.full(len(count), -1)
    only[condition[rows]] = rows
    only[count != 1] = -1
    found: Numbers = np.where(by_twin[twin] >= 0, by_twin[twin], only[condition])
    return found


class _How(NamedTuple):
    """How the cells of a table are compared."""

    condition: Numbers  # [cells]
    base: Numbers  # [cells]: row of the baseline, or -1
    fixed: Mask  # [cells]: it and its baseline are deterministic
    foresees: Mask  # [cells]: it is a reference
    ci: float
    interval: str


def metric_of(name: str) -> known.Metric:
    """Return what a metric states; a column of the user's own has no direction and a margin of one per cent."""
    known_one = name in known.INDEX
    return known.METRICS[known.INDEX[name]] if known_one else known.Metric(name, "", "", "", known.PER_CENT)


def _one_metric(df: pd.DataFrame, cells: Layout, name: str, margin: Margin | None, how: _How) -> pd.DataFrame:
    """Statistics of one metric for every cell."""
    x, limit = cells.matrix(df[name]), bounds.bound_of(name, df)
    bound = None if limit is None else cells.matrix(limit)
    metric, ci = metric_of(name), how.ci
    n, mean, low, high = mean_bounds(x, metric.law, ci)
    itself = how.base == np.arange(len(x))
    role = families.roles(itself, how.base)
    reference = np.where((role == families.COMPARED)[:, None], x[how.base], np.nan)
    pair = stats.paired_difference(x, reference, ci)
    law = known.PLAIN if how.interval == "t" else metric.law
    found = evidence.weigh(x, reference, law, margin or metric.margin, how.fixed, ci)
    if how.interval == "bca":
        ends = np.array([stats.bootstrap_interval(a, b, ci=ci) for a, b in zip(x, reference, strict=True)])
        found = found._replace(low=ends[:, 0], high=ends[:, 1])
    shares: dict[str, Any] = dict.fromkeys(SHARES, np.nan)
    if metric.law == known.RARE:
        shares |= dict(zip(("occurs", "occurs_low", "occurs_high"), _occurrence(x, n, ci), strict=True))
        differ = evidence.share_difference(x, reference, ci)
        shares |= dict(zip(("share_diff", "share_low", "share_high"), differ, strict=True))
    return pd.DataFrame({
        "metric": name, "n": n, "mean": mean, "low": low, "high": high,
        "pairs": found.pairs, "diff": found.diff, "diff_low": found.low, "diff_high": found.high,
        "ratio": pair.ratio, "ratio_low": pair.ratio_low, "ratio_high": pair.ratio_high,
        "test": found.test, "p": found.p, "pairing": stats.variance_ratio(x, reference),
        **shares,
        **bounds.weigh(x, reference, np.full(x.shape, np.nan) if bound is None else bound)._asdict(),
        "margin": found.margin, "error": found.error, "p_equal": found.p_equal, "p_not_more": found.p_not_more,
        "p_not_less": found.p_not_less,
        "role": np.where((role == families.COMPARED) & how.foresees, families.REFERENCE, role),
        "better": metric.better, "best": _best(np.where(how.foresees, np.nan, mean), how.condition, metric.better),
    })  # fmt: skip


def mean_bounds(x: Floats, law: str, ci: float) -> tuple[Numbers, Floats, Floats, Floats]:
    """Count, mean, and its interval over replicas ([cells, replicas]) by the law of the metric."""
    found = stats.mean_interval(x, ci)
    if law == known.PLAIN:
        return found.n, found.mean, found.low, found.high
    below, above = small_samples.bootstrap_t(x, 1 - ci, mean=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = found.sd / np.sqrt(found.n)
        low = np.where(found.sd == 0, found.mean, found.mean - above * error)
        high = np.where(found.sd == 0, found.mean, found.mean + below * error)
    return found.n, found.mean, low, high


def _occurrence(x: Floats, n: Numbers, ci: float) -> tuple[Floats, Floats, Floats]:
    """Share of the replicas in which a rare event happened at all, with Wilson's interval."""
    hits = (x > 0).sum(axis=1)
    return np.where(n > 0, hits / np.maximum(n, 1), np.nan), *stats.wilson(hits, n, ci)


def _best(mean: Floats, condition: Numbers, better: str) -> Mask:
    """Cells with the best mean of their condition, where there is a choice."""
    if not better or not len(mean):
        return np.zeros(len(mean), bool)
    score = np.where(np.isnan(mean), np.inf, mean if better == "less" else -mean)
    top = np.full(condition.max() + 1, np.inf)
    np.minimum.at(top, condition, score)
    choice = np.bincount(condition, weights=~np.isnan(mean)) >= 2
    best: Mask = (score == top[condition]) & choice[condition] & ~np.isnan(mean)
    return best


def _tidy(table: pd.DataFrame, axes: list[str], names: list[str]) -> pd.DataFrame:
    """Columns in reading order, texts as categories."""
    table["metric"] = pd.Categorical(table["metric"], categories=names)
    for column in ("better", "verdict", "test", "role"):
        table[column] = table[column].astype("category")
    front = [*axes, "metric", "n", "failed"]
    last = [c for c in ("cell_key",) if c in table.columns]
    return table[front + [c for c in table.columns if c not in front + last] + last]
