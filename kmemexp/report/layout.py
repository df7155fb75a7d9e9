"""A comparison laid out for reading: blocks of rows and cells as text, for the terminal and for Markdown alike."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kmemexp.report.comparison import Numbers, number_groups, varies
from kmemexp.report.shown import MARKS, Block, Cell, Row, Section

ARROWS = {"less": "↓", "more": "↑"}
BYTES = (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0))
DURATIONS = (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))
TIMES = "\N{MULTIPLICATION SIGN}"
COUNTS = (("10⁶", 1e6), ("", 1.0))
LOPSIDED = 0.1  # of an interval's width, by which its sides may differ
MANY = 1e7  # counts from here on are shown in millions


class Unit(NamedTuple):
    """What a metric is shown in."""

    name: str
    scale: float  # one of it in the metric's own unit


class Compared(NamedTuple):
    """What a comparison (of `kmemexp.compare`) says on one variant: the columns that are laid out here."""

    metric: str
    n: int
    failed: int
    mean: float
    low: float
    high: float
    diff: float
    diff_low: float
    diff_high: float
    ratio: float
    occurs: float
    occurs_low: float
    occurs_high: float
    share_diff: float
    share_low: float
    share_high: float
    test: str
    detectable: float
    verdict: str
    best: bool
    better: str  # "less", "more", ""

    @property
    def half(self) -> float:
        """Half-width of the interval of the mean."""
        return (self.high - self.low) / 2

    @property
    def change_half(self) -> float:
        """Half-width of the interval of the difference."""
        return (self.diff_high - self.diff_low) / 2

    @property
    def of_shares(self) -> bool:
        """Whether shares of replicas are compared, not means."""
        return self.test == "sign"

    def scaled(self, scale: float) -> "Compared":
        """Give the same with `scale` of the metric's unit as its unit."""
        return self._replace(
            mean=self.mean / scale, low=self.low / scale, high=self.high / scale,
            diff=self.diff / scale, diff_low=self.diff_low / scale, diff_high=self.diff_high / scale,
            detectable=self.detectable / (1.0 if self.of_shares else scale),
        )  # fmt: skip


def unit_of(metric: str, largest: float) -> Unit:
    """Choose the unit in which values up to `largest` read best."""
    if metric.endswith("_ratio"):
        return Unit("%", 0.01)
    ladder = BYTES if metric.endswith("_bytes") else DURATIONS if metric.endswith("_ns") else COUNTS
    floor = MANY if ladder is COUNTS else 0.0
    return next((Unit(name, scale) for name, scale in ladder if largest >= max(scale, floor)), Unit(*ladder[-1]))


def decimals_for(values: Iterable[float], halves: Iterable[float]) -> int:
    """Decimals that show two digits of the largest half-width, or else four of the largest value; at most 3."""
    size = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    half = max((h for h in halves if math.isfinite(h)), default=0.0)
    if half > 0:
        wanted = 1 - _exponent(half)
    elif size == 0 or all(not math.isfinite(v) or float(v).is_integer() for v in values):
        wanted = 0
    else:
        wanted = 3 - _exponent(size)
    return min(max(wanted, 0), 3, max(4 - _exponent(size), 0)) if size else min(max(wanted, 0), 3)


def number(x: float, decimals: int, sign: bool = False) -> str:
    """`x` with thousands separators; "~0" for what is not 0 and yet rounds to it."""
    text = f"{x:{'+' if sign else ''},.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        return "0" if x == 0 else "~0"
    return text


def interval(value: float, low: float, high: float, decimals: int) -> str:
    """Write how far an interval reaches: "± 1.1", or "-0.8 +2.1" where it is lopsided; empty where there is none.

    One side may have no end, such as "-0.8 +∞": few replicas give a bootstrap's interval one bound only.
    """
    down, up = value - low, high - value
    if not (math.isfinite(down) or math.isfinite(up)) or (up == 0 and down == 0):
        return ""
    if math.isfinite(up - down) and abs(up - down) <= LOPSIDED * (up + down):
        return f"± {number((up + down) / 2, decimals)}"
    below = number(-down, decimals, sign=True) if math.isfinite(down) else "-∞"
    above = number(up, decimals, sign=True) if math.isfinite(up) else "+∞"
    return f"{below} {above}"


def factor(ratio: float) -> str:
    """Ratio of means with a multiplication sign, such as 0.51; empty if there is none."""
    if not math.isfinite(ratio):
        return ""
    return f"{TIMES}{number(ratio, min(max(2 - _exponent(ratio), 0), 2 if abs(ratio) >= 0.1 else 3))}"


def axis_value(name: str, value: Any) -> str:
    """Value of an axis as a user would write it, sizes with their unit."""
    if pd.isna(value):
        return "-"
    if name.endswith("_bytes") and isinstance(value, (int, float, np.integer, np.floating)):
        size = float(value)
        unit = next((Unit(*u) for u in BYTES if size and size % u[1] == 0), Unit("B", 1.0))
        return f"{size / unit.scale:,.0f} {unit.name}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def labels(keys: pd.DataFrame, columns: list[str], separator: str, first: int | None = None) -> list[str]:
    """Name each row of `keys`, or the `first` ones, by those columns that vary; the design without its axis name."""
    varying = [c for c in columns if c == "design" or varies(keys[c])]
    last = [c.rpartition(".")[2] for c in varying]
    short = [word if last.count(word) == 1 else name for name, word in zip(varying, last, strict=True)]
    heads = ["" if name in ("design", "workload") else f"{label} " for name, label in zip(varying, short, strict=True)]
    columns_of = [keys[name].head(len(keys) if first is None else first) for name in varying]
    told = [_told(column, name, head) for column, name, head in zip(columns_of, varying, heads, strict=True)]
    if not told:
        return [""] * (len(keys) if first is None else min(first, len(keys)))
    return [separator.join(filter(None, row)) for row in zip(*told, strict=True)]


def _told(column: pd.Series, name: str, head: str) -> list[str]:
    """Texts of an axis, each value's made once; "" where it has none."""
    codes, distinct = pd.factorize(column)
    texts = [f"{head}{axis_value(name, one)}" for one in distinct]
    return ["" if code < 0 else texts[code] for code in codes.tolist()]


def lay_out(table: pd.DataFrame, condition: list[str], variant: list[str]) -> list[Block]:
    """Lay out a comparison (of `kmemexp.compare`), whose axis columns are `condition` and `variant`."""
    other = [c for c in condition if c != "workload"]
    blocks = []
    for workload, rows in _groups(table, [c for c in condition if c == "workload"]):
        numbered = rows.assign(column_number=_baseline_first(rows, variant))
        names = numbered.drop_duplicates("column_number").sort_values("column_number")
        title = str(workload[0]) if workload else ""
        titles = labels(numbered.drop_duplicates(other) if other else numbered.head(1), other, ", ")
        units = _units(numbered)
        sections = [Section(name, []) for name in titles]
        for (place, metric), found in _by_metric(numbered, other).items():
            sections[place].rows.append(_row(metric, found, units[metric], len(names)))
        blocks.append(Block(title, _headings(names, variant), sections))
    return blocks


def across(table: pd.DataFrame, condition: list[str]) -> list[Block]:
    """Lay out a table in which each condition has one variant: a row per condition, a column per metric."""
    metrics = list(dict.fromkeys(table["metric"].astype(str)))
    units = _units(table)
    keys = table.drop_duplicates(condition)
    rows = []
    for title, (_, those) in zip(labels(keys, condition, ", "), _groups(table, condition), strict=True):
        found = {row.metric: row for row in compared(those)}
        cells: list[Cell | None] = []
        for name in metrics:
            row, scale = found[name], units[name].scale
            scaled = row.scaled(scale)
            text = value(scaled, decimals_for([scaled.mean], [scaled.half]), row.n)
            cells.append(Cell(text.removesuffix(" (n=1)"), "", "", False))
        rows.append(Row(title.removeprefix("scenario "), "", cells))
    heads = [f"{m.removesuffix('_count').removesuffix('_ns')}\n{units[m].name}".strip() for m in metrics]
    return [Block("", heads, [Section("", rows)])]


def one_variant_each(table: pd.DataFrame, condition: list[str], variant: list[str]) -> bool:
    """Whether every condition was tried with one variant only, and there are several of both."""
    keys = table.drop_duplicates([*condition, *variant])
    return (
        len(keys) > 1
        and bool(condition)
        and not keys.duplicated(condition).any()
        and len(keys[variant].drop_duplicates()) > 1
    )


def _units(table: pd.DataFrame) -> dict[str, Unit]:
    """Choose the unit of each metric in the table."""
    by_metric = table.groupby("metric", observed=True, sort=False)
    return {str(name): unit_of(str(name), _typical(str(name), rows["mean"])) for name, rows in by_metric}


def compared(table: pd.DataFrame) -> list[Compared]:
    """Rows of a comparison."""
    return [Compared._make(row) for row in zip(*(table[name].tolist() for name in Compared._fields), strict=True)]


def _typical(metric: str, means: pd.Series) -> float:
    """The size of value that a metric's unit should suit: the largest; of durations, which span decades, the median."""
    sizes = means.abs()
    return sizes[sizes > 0].median() if metric.endswith("_ns") and (sizes > 0).any() else sizes.max()


def _groups(table: pd.DataFrame, columns: list[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Yield the groups in the order of their first rows; one with the key () if there are no columns."""
    if not columns:
        return iter([((), table)])
    return iter(table.groupby(columns, observed=True, dropna=False, sort=False))


def _baseline_first(rows: pd.DataFrame, variant: list[str]) -> Numbers:
    """Give the number of each row's variant: the baseline's is 0, the others follow in sorted order."""
    number_of = rows.groupby(variant, observed=True, dropna=False, sort=True).ngroup().to_numpy()
    is_base = (rows["verdict"] == "baseline").to_numpy()
    order = sorted(set(number_of.tolist()), key=lambda n: (not is_base[number_of == n].any(), n))
    place = np.argsort(np.array(order))
    return place[number_of]


def _headings(names: pd.DataFrame, variant: list[str]) -> list[str]:
    base = (names["verdict"] == "baseline").to_numpy()
    texts = labels(names, variant, "\n")
    return [f"{text}\n(baseline)" if is_base else text for text, is_base in zip(texts, base, strict=True)]


def _by_metric(table: pd.DataFrame, columns: list[str]) -> dict[tuple[int, str], list[tuple[int, Compared]]]:
    """Rows by section and metric, in the order of their first rows, each with its `column_number`.

    Sections are told apart by `columns`, and numbered in the order of their first rows.
    """
    sections = pd.factorize(number_groups(table, columns))[0].tolist()
    found: dict[tuple[int, str], list[tuple[int, Compared]]] = {}
    for section, column, row in zip(sections, table["column_number"].tolist(), compared(table), strict=True):
        found.setdefault((section, row.metric), []).append((column, row))
    return found


def _row(metric: str, found: list[tuple[int, Compared]], unit: Unit, count: int) -> Row:
    """One metric under one condition, from its variants with their columns; there are `count` columns."""
    scaled = [row.scaled(unit.scale) for _, row in found]
    places = decimals_for([row.mean for row in scaled], [row.half for row in scaled])
    change_places = decimals_for([row.diff for row in scaled], [row.change_half for row in scaled])
    replicas = max(row.n for row in scaled)
    boring = all(row.best for row in scaled) or not replicas
    nothing = all(row.mean == 0 for row in scaled)
    cells: list[Cell | None] = [None] * count
    for (column, _), row in zip(found, scaled, strict=True):
        text = value(row, places, replicas)
        change = "" if nothing and row.verdict != "inconclusive" else _change(row, change_places)
        cells[column] = Cell(text, change, row.verdict, row.best and not boring)
    return Row(metric, f"{unit.name} {ARROWS.get(found[0][1].better, '')}".strip(), cells)


def value(row: Compared, places: int, replicas: int) -> str:
    """Write a mean with its interval, and with how often a rare event occurred; `replicas`: what is usual here."""
    if row.n == 0:
        return "failed" if row.failed else "-"
    text = number(row.mean, places)
    if row.n == 1:
        return text if row.test == "fact" else f"{text} (n=1)"
    if not 0 <= row.occurs < 1:  # of a rare event the share says how sure it is
        text = f"{text} {interval(row.mean, row.low, row.high, places)}".strip()
    if 0 < row.occurs < 1:
        text += f" in {round(row.occurs * row.n)}/{row.n} ({row.occurs_low:.0%} to {row.occurs_high:.0%})"
    return text if row.n == replicas else f"{text} (n={row.n})"


def _change(row: Compared, places: int) -> str:
    if math.isnan(row.diff):
        return ""
    mark = MARKS.get(row.verdict, "")
    if row.verdict == "inconclusive" and math.isfinite(row.detectable):
        least = f"{row.detectable:.0%}" if row.of_shares else number(row.detectable, places)
        mark += f" ≥{least}"
    if row.of_shares and math.isfinite(row.share_diff):
        return f"{difference(row, places) if row.share_diff else ''} {mark}".strip()
    if row.diff == 0 and not row.change_half > 0:
        return mark
    return " ".join(word for word in (difference(row, places), factor(row.ratio), mark) if word)


def difference(row: Compared, places: int | None = None) -> str:
    """Write the difference from the baseline with its interval, of a rare event that of the shares of replicas."""
    if row.of_shares and math.isfinite(row.share_diff):
        return f"{row.share_diff:+.0%} ({row.share_low:+.0%} to {row.share_high:+.0%}) of replicas"
    decimals = decimals_for([row.diff], [row.change_half]) if places is None else places
    reach = interval(row.diff, row.diff_low, row.diff_high, decimals)
    return f"{number(row.diff, decimals, sign=True)} {reach}".strip()


def _exponent(x: float) -> int:
    return math.floor(math.log10(abs(x))) if x else 0
