"""`Results.plot`: charts of results, each from one call. All return an Altair chart, which a notebook shows.

    results.plot.series("held_bytes", where="cpus == 2")
    results.plot.curve("throughput_hz", x="cpus").save("scaling.svg")

`where` selects rows, as `DataFrame.query` does. What differs besides the axes that a chart draws is told apart by
panels; different cells are never averaged.
"""

from typing import Protocol

import altair as alt
import numpy as np
import pandas as pd

from kmemexp.errors import ConfigError
from kmemexp.metrics import QUANTILES, unit
from kmemexp.report import bounds, charts, comparison, frames, stats
from kmemexp.report.layout import labels, unit_of
from kmemexp.store.schema import DONE

PANEL = "panel"
PANELS = 12  # more can not be read
TAILS = {f"{name}_ns": share for name, share in QUANTILES.items() if share < 1}


class Tables(Protocol):
    """What is drawn: `Results`."""

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per cell and replica."""

    @property
    def series(self) -> pd.DataFrame:
        """One row per sample."""

    @property
    def latency(self) -> pd.DataFrame:
        """One row per distribution."""

    @property
    def snapshots(self) -> pd.DataFrame:
        """One row per map and instant."""

    @property
    def caches(self) -> pd.DataFrame:
        """One row per cache and instant."""


class Plots:
    """Charts of some results."""

    def __init__(self, results: Tables) -> None:
        self._results = results

    def intervals(self, metric: str, *, colour: str = "design", where: str = "") -> alt.TopLevelMixin:
        """Mean of a metric with its 95 % interval: conditions one below the other, a dot for each design."""
        rows = self._done(where)
        table = self._over(rows, metric, [colour])
        shown = ["mean", "low", "high", *table.columns.intersection([charts.BOUND])]
        table, title = _scaled(table, metric, shown)
        return charts.intervals(table, y=PANEL, x=charts.Axis("mean", title), colour=colour)

    def differences(self, metric: str, baseline: str, *, where: str = "") -> alt.TopLevelMixin:
        """Paired difference of each design from the design `baseline`, with its 95 % interval."""
        rows = self._done(where)
        table = comparison.compare(rows, baseline, [metric])
        table = table[table["diff"].notna()]
        table = _with_panels(table, table, ["design"])
        table, title = _scaled(table, metric, ["diff", "diff_low", "diff_high"])
        span = ("diff_low", "diff_high")
        x = charts.Axis("diff", f"{title}, more than {baseline}")
        return charts.intervals(table, y=PANEL, x=x, colour="design", span=span, zero=True)

    def curve(self, metric: str, x: str = "cpus", *, colour: str = "design", where: str = "") -> alt.TopLevelMixin:
        """Mean of a metric over an axis of numbers, such as `cpus` or `rate_hz`, with a band of 95 %."""
        rows = self._done(where)
        if x not in rows.columns or not pd.api.types.is_numeric_dtype(rows[x]):
            raise ConfigError(f"curve: {x} is no axis of numbers; axes are {', '.join(frames.axes_of(rows))}")
        table = self._over(rows, metric, [colour, x])
        table, title = _scaled(table, metric, ["mean", "low", "high"])
        across = charts.Axis(x, f"{x}, {of}" if (of := unit(x)) else x, log=bool((table[x] > 0).all()))
        return charts.lines(table, x=across, y=charts.Axis("mean", title), colour=colour, span=("low", "high"),
                            facet=_facet(table), dots=True)  # fmt: skip

    def series(self, column: str, *, colour: str = "design", where: str = "") -> alt.TopLevelMixin:
        """Draw a column of the series over simulated time: the mean of the replicas, and a band of 95 %."""
        rows = _query(self._results.series, where)
        if column not in rows.columns:
            raise ConfigError(f"series: no column {column}; there are {', '.join(rows.columns[-14:])}")
        rows = _with_panels(rows, rows, [colour])
        groups = rows.groupby([colour, PANEL, "sample"], observed=True, sort=False)
        table = groups[column].agg(["mean", "std", "count"]).join(groups["time_ns"].mean() / 1e9).reset_index()
        half = stats.half_width(table["std"].to_numpy(), table["count"].to_numpy(), 0.95)
        half = np.where(np.isfinite(half), half, 0.0)  # a single replica has no band
        table = table.assign(low=table["mean"] - half, high=table["mean"] + half)
        table, title = _scaled(table.rename(columns={"time_ns": "time_s"}), column, ["mean", "low", "high"])
        shown = charts.Axis("mean", title)
        return charts.lines(table, x=charts.Axis("time_s", "simulated time, s"), y=shown, colour=colour,
                            span=("low", "high"), facet=_facet(table))  # fmt: skip

    def latency(self, what: str = "alloc_main", *, colour: str = "design", where: str = "") -> alt.TopLevelMixin:
        """Tails of a distribution of latencies: quantiles (mean of the replicas) on a logarithmic axis."""
        rows = _query(self._results.latency, where)
        if rows.empty or not (rows["what"] == what).any():
            raise ConfigError(f"latency: no {what}; there are {', '.join(sorted(rows['what'].unique())) or 'none'}")
        rows = rows[rows["what"] == what]
        rows = _with_panels(rows, rows, [colour])
        long = rows.melt([colour, PANEL], list(TAILS), "quantile", "ns").dropna(subset="ns")
        table = long.groupby([colour, PANEL, "quantile"], observed=True, sort=False)["ns"].mean().reset_index()
        table = table.assign(beyond=1 - table["quantile"].map(TAILS).astype(float), us=table["ns"] / 1e3)
        across = charts.Axis("beyond", f"share of {what} that takes longer", log=True)
        return charts.lines(table, x=across, y=charts.Axis("us", "latency, µs", log=True), colour=colour,
                            facet=_facet(table), dots=True)  # fmt: skip

    def pareto(self, x: str, y: str, *, label: str = "design", where: str = "") -> alt.TopLevelMixin:
        """Two metrics against each other, a dot for each design, and a line through those that none beats in both."""
        rows = self._done(where)
        tables = [self._over(rows, metric, [label]) for metric in (x, y)]
        if _facet(tables[0]):
            shown = ", ".join(map(str, tables[0][PANEL].unique()[:4]))
            raise ConfigError(f"pareto: the results have several conditions ({shown} …); choose one by where=")
        titles, columns = [], {label: tables[0][label]}
        for name, metric, table in zip("xy", (x, y), tables, strict=True):
            scaled, title = _scaled(table, metric, ["mean"])
            columns[name] = scaled["mean"]
            titles.append(title)
        less = [comparison.metric_of(metric).better != "more" for metric in (x, y)]
        return charts.tradeoff(pd.DataFrame(columns), x=charts.Axis("x", titles[0]), y=charts.Axis("y", titles[1]),
                               label=label, less_x=less[0], less_y=less[1])  # fmt: skip

    def maps(self, name: str = "kernel_map", *, replica: int = 0, where: str = "") -> alt.TopLevelMixin:
        """Occupancy of a map over time, a panel per design; one condition, one replica."""
        rows = _query(self._results.snapshots, where)
        there = sorted(rows["map"].unique())
        rows = rows[(rows["map"] == name) & (rows["replica"] == replica)]
        if rows.empty:
            raise ConfigError(f"maps: no snapshots of {name}; there are maps {', '.join(there) or 'none'}")
        told = _with_panels(rows, rows, ["design"])[PANEL].unique()
        if len(told) > 1:
            raise ConfigError(f"maps: the results have several conditions ({', '.join(told[:4])} …); choose by where=")
        sizes = rows["kva_bytes"].unique()
        return charts.occupancy(rows, span_bytes=int(sizes[0]) if name == "kernel_map" and len(sizes) == 1 else None)

    def caches(self, *, shown: int = charts.MOST_CACHES, where: str = "") -> alt.TopLevelMixin:
        """What the largest caches of each design held at the peak, and how much of it was in live objects."""
        rows = _query(self._results.caches, where)
        rows = rows[rows["moment"] == "peak"]
        told = _with_panels(rows, rows, ["design"])[PANEL].unique()
        if len(told) > 1:
            raise ConfigError(
                f"caches: the results have several conditions ({', '.join(told[:4])} …); choose by where="
            )
        return charts.cache_bars(charts.largest_caches(rows, "design", shown), panel="design")

    def _done(self, where: str) -> pd.DataFrame:
        rows = _query(self._results.metrics, where)
        return rows[rows["status"] == DONE]

    def _over(self, rows: pd.DataFrame, metric: str, shown: list[str]) -> pd.DataFrame:
        """Mean and interval of a metric for each cell, with the columns `shown` and the panel it belongs to."""
        comparison.choose_metrics(rows, [metric])
        cells = comparison.arrange(rows)
        _, mean, low, high = comparison.mean_bounds(cells.matrix(rows[metric]), comparison.metric_of(metric).law, 0.95)
        table = cells.keys.assign(mean=mean, low=low, high=high)
        if (limit := bounds.bound_of(metric, rows)) is not None:
            table[charts.BOUND] = stats.mean_interval(cells.matrix(limit), 0.95).mean
        missing = [name for name in shown if name not in table.columns]
        first = rows.drop_duplicates("cell_key").set_index("cell_key")
        for name in missing:
            if name not in rows.columns:
                raise ConfigError(f"{name}: no such column; axes are {', '.join(cells.keys.columns)}")
            table[name] = first[name].reindex(cells.named).to_numpy()
        return _with_panels(table, cells.keys, shown)


def _query(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    found = frame.query(where) if where else frame
    if found.empty:
        raise ConfigError(f"where={where!r}: no row is left" if where else "the results have no such rows")
    return found


def _with_panels(table: pd.DataFrame, keys: pd.DataFrame, shown: list[str]) -> pd.DataFrame:
    """Add the panel that each row belongs to: its values of the varying axes that are not `shown`."""
    others = [name for name in frames.axes_of(keys) if name not in shown and name in keys.columns]
    varying = [name for name in others if comparison.varies(keys[name])]
    named = keys[varying].astype(object) if varying else keys[[]]
    distinct = named.drop_duplicates()
    names = labels(distinct, varying, ", ") if varying else [""]
    if len(names) > PANELS:
        raise ConfigError(f"{len(names)} conditions are too many for one chart ({', '.join(varying)}): give where=")
    number = comparison.number_groups(named, varying)
    first = comparison.number_groups(distinct, varying)
    by_number = dict(zip(first.tolist(), names, strict=True)) if varying else {0: ""}
    return table.assign(**{PANEL: [by_number[n] for n in number.tolist()]})


def _facet(table: pd.DataFrame) -> str | None:
    return PANEL if len(set(table[PANEL])) > 1 else None


def _scaled(table: pd.DataFrame, column: str, shown: list[str]) -> tuple[pd.DataFrame, str]:
    """Write figures in the unit that reads best; returns also the title of their axis."""
    of = unit_of(column, float(table[shown].abs().max().max()))
    return table.assign(
        **{name: table[name] / of.scale for name in shown}
    ), f"{column}{', ' if of.name else ''}{of.name}"
