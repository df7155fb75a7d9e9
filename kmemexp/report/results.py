"""A results folder as pandas tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from kmemexp.errors import ConfigError
from kmemexp.metrics import NAMES, Margin
from kmemexp.report import comparison, frames, selection, stats
from kmemexp.report.shown import MOST_CELLS
from kmemexp.store.files import DamageError
from kmemexp.store.remote import with_options
from kmemexp.store.rows import of_cells, places, with_axes, with_known_axes
from kmemexp.store.schema import DONE, SCHEMAS
from kmemexp.store.store import Store, with_results

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan
    from kmemexp.report.plots import Plots


class Tables(Protocol):
    """Where results are read from: a `Store`, or tables in memory."""

    def read(self, table: str = "metrics") -> pa.Table:
        """All rows of "metrics", "series", "latency", "snapshots" or "caches"."""

    def read_text(self, name: str) -> str | None:
        """Read a text file beside the tables; None if there is none."""


Encoded: TypeAlias = "pa.DictionaryArray[Any, Any]"
CONFIGS = ("cell_key", "replica", "config")
NO_CACHES = (
    "no cache was counted: sample.snapshots is 0, or the folder was written by a version that did not count them "
    "(the same command into another store.root simulates it again)"
)


@dataclass(frozen=True)
class Results:
    """What a sweep found. The tables are read when they are first used.

    >>> r = load("results/fragmentation")  # doctest: +SKIP
    >>> r.metrics.groupby(["design", "workload"])["held_peak_bytes"].mean()  # doctest: +SKIP
    >>> r.compare(baseline="freebsd4").query("verdict == 'better'")  # doctest: +SKIP
    """

    root: str
    tables: Tables

    @classmethod
    def from_tables(
        cls,
        metrics: pa.Table,
        series: pa.Table | None = None,
        latency: pa.Table | None = None,
        snapshots: pa.Table | None = None,
        caches: pa.Table | None = None,
    ) -> "Results":
        """Wrap result tables (`store.schema`) that are in memory."""
        held = {"metrics": metrics, "series": series, "snapshots": snapshots, "latency": latency, "caches": caches}
        return cls("", _InMemory(held))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per cell and replica, failed ones too (`status`), with one typed column per axis of the sweep."""
        return frames.metrics_frame(self._rows, None, self._configs)

    @cached_property
    def series(self) -> pd.DataFrame:
        """One row per cell, replica and sample: the state of memory over the run."""
        return self._cells.beside(self.tables.read("series"))

    @cached_property
    def latency(self) -> pd.DataFrame:
        """One row per cell, replica and distribution (with a clock): operations, sources of interrupts, locks."""
        return self._cells.beside(self.tables.read("latency"))

    @cached_property
    def snapshots(self) -> pd.DataFrame:
        """One row per cell, replica, instant and map; `occupancy` is a uint8 array, 0 free to 255 occupied.

        Of replica 0 there are rows `kernel_map:malloc` … too (zone, mbuf, mapped, wired): what live objects take.
        """
        return self._cells.beside(self.tables.read("snapshots"))

    @cached_property
    def caches(self) -> pd.DataFrame:
        """Census of replica 0, as slabtop(1) has it: one row per cell, instant and cache, and one for what is in none.

        `moment` is "snapshot", or "peak": the sample with the most memory held, or one within 5 % of that. Where
        there are no rows, `attrs["note"]` says why.
        """
        found = self._cells.beside(self.tables.read("caches"))
        if found.empty:
            found.attrs["note"] = NO_CACHES
        return found

    @cached_property
    def run(self) -> dict[str, Any]:
        """Where the results come from (`_run.json`): ``run["runs"]`` lists the runs, the last one last."""
        text = self.tables.read_text("_run.json")
        try:
            return dict(json.loads(text)) if text else {}
        except (ValueError, TypeError) as error:
            raise DamageError(f"{self.root}/_run.json is damaged: {error}. The next run begins a new one.") from error

    @property
    def failures(self) -> pd.DataFrame:
        """The failed rows of `metrics`: which lane, and the error."""
        failed = self.metrics[self.metrics["status"] != DONE]
        numbers = [name for name in NAMES if name in failed.columns]
        return failed.drop(columns=[*numbers, "status", "panic", "deadlock"]).reset_index(drop=True)

    def summary(
        self, by: Sequence[str] | None = None, metrics: Sequence[str] | None = None, ci: float = 0.95
    ) -> pd.DataFrame:
        """Mean with t interval over the replicas: one row per cell and metric.

        `by` names the columns to tell cells apart with, by default every axis. Different cells are never averaged:
        ConfigError where `by` would do that.
        """
        names = comparison.choose_metrics(self.metrics, metrics)
        layout = comparison.arrange(self.metrics)
        keys = layout.keys if by is None else _only_columns(layout.keys, frames.axes_of(self.metrics), by)
        tables = []
        for name in names:
            x = layout.matrix(self.metrics[name])
            found = stats.mean_interval(x, ci)
            tables.append(keys.assign(metric=name, n=found.n, failed=layout.failed, mean=found.mean, sd=found.sd,
                                      low=found.low, high=found.high))  # fmt: skip
        table = pd.concat(tables).sort_index(kind="stable").reset_index(drop=True)
        return table.assign(metric=pd.Categorical(table["metric"], categories=names))

    def compare(
        self,
        baseline: Mapping[str, object] | str | None,
        metrics: Sequence[str] | None = None,
        by: Sequence[str] | None = None,
        ci: float = 0.95,
        interval: Literal["", "t", "bca"] = "",
        margins: Mapping[str, Margin] | None = None,
        judged: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Paired comparison with a baseline, see `kmemexp.compare`."""
        return comparison.compare(self.metrics, baseline, metrics, by, ci, interval, margins, judged)

    @property
    def plot(self) -> "Plots":
        """Charts of these results: `results.plot.series("held_bytes")`, see `report.plots.Plots`."""
        from kmemexp.report.plots import Plots  # noqa: PLC0415 - brings Altair

        return Plots(self)

    def _repr_html_(self) -> str:
        """Show in a notebook what is here: rows, axes, failures, and the first rows."""
        frame = self.metrics
        axes = frames.axes_of(frame)
        done, cells = int((frame["status"] == DONE).sum()), frame["cell_key"].nunique()
        values = {name: frame[name].drop_duplicates() for name in axes}
        rows = [(name, len(found), ", ".join(map(str, found.head(8)))) for name, found in values.items()]
        items = "".join(
            f"<tr><th>{escape(name)}</th><td>{count}</td><td>{escape(text)}{' …' if count > 8 else ''}</td></tr>"
            for name, count, text in rows
        )
        head = f"{len(frame):,} rows of {cells:,} cells, {done:,} done, {len(frame) - done:,} failed"
        return (
            f"<p><b>{escape(self.root or 'results in memory')}</b>: {head}</p>"
            f"<table><tr><th>axis</th><th>values</th><th></th></tr>{items}</table>"
        )

    def select(self, metric: str, delta: float, first: int = 10, ci: float = 0.95) -> pd.DataFrame:
        """Choose the best variant under each condition, or one within `delta` of it, see `report.selection.select`."""
        return selection.select(self.metrics, metric, delta, first, ci)

    def ordered(self, cells: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
        """`metrics`, but designs and workloads in the order of a plan's `cells` instead of the alphabet's."""
        order = {name: list(dict.fromkeys(cells[name])) for name in ("design", "workload")}
        return frames.metrics_frame(self._rows, order, self._configs)

    @cached_property
    def _rows(self) -> pa.Table:
        return self.tables.read("metrics")

    @cached_property
    def _cells(self) -> frames.Cells:
        return frames.Cells(self._rows, None, self._configs)

    @property
    def _configs(self) -> frames.Configs | None:
        return self.tables.configs if isinstance(self.tables, _Latest | _Planned) and self.tables.columns else None


def load(
    root: str | PathLike[str], options: Mapping[str, Any] | None = None, *, metrics: Sequence[str] | None = None
) -> Results:
    """Open a results folder, given as a path or a URI; `options`: those of `store.options`.

    `metrics`: only these are read, and no texts of axes and configurations, which is quicker where there are very many
    rows. Raises StoreError if there are no results in it, ConfigError for a metric that is none.

    >>> load("results/fragmentation").summary(metrics=["held_peak_bytes"])  # doctest: +SKIP
    >>> load("s3://bucket/fragmentation").failures  # doctest: +SKIP
    """
    chosen = None if metrics is None else comparison.choose_metrics(pd.DataFrame(columns=NAMES, dtype=float), metrics)
    store = with_results(with_options(fspath(root), options or {}))
    return Results(store.root, _Latest(store, () if chosen is None else tuple(_without_configs(chosen))))


def _without_configs(metrics: Sequence[str]) -> list[str]:
    """Columns of the table of metrics: these, and all that are none but the configurations."""
    return [name for name in SCHEMAS["metrics"].names if name in metrics or (name not in NAMES and name != "config")]


class _Latest(NamedTuple):
    """Tables of a folder without rows of an earlier model whose configuration has been simulated again since."""

    tables: Store
    columns: tuple[str, ...] = ()  # of "metrics", the only ones that are read

    def read(self, table: str = "metrics") -> pa.Table:
        """Read the rows of one table; of "metrics" texts are encoded, and the order is that of the files."""
        known = self.tables.known_axes()
        if table != "metrics":
            rows = self.tables.read(table)
        else:
            rows = self.tables.read(table, self.columns or None, ordered=False, encoded=True, latest_axes=False)
        if known is None:
            return rows
        place = places(rows["cell_key"], known["cell_key"].combine_chunks())
        if table == "metrics":
            rows = with_known_axes(rows, known, place)
        if not place.null_count and pc.all(known["latest"]).as_py():
            return rows
        latest = known.filter(known["latest"])["cell_key"].combine_chunks()
        if not places(rows["cell_key"], latest).null_count:
            return rows
        cells = _distinct(rows if "config" in rows.column_names else self.configs())
        is_latest = pc.is_in(cells["cell_key"], latest)
        again = pc.is_in(cells["config"], cells.filter(is_latest)["config"].combine_chunks())
        old = cells.filter(pc.and_not(again, is_latest))["cell_key"].combine_chunks()
        return rows.filter(places(rows["cell_key"], old).is_null()) if len(old) else rows

    def configs(self) -> pa.Table:
        """Read the configuration of each row, with its cell key."""
        return self.tables.read("metrics", CONFIGS, ordered=False, encoded=True)

    def read_text(self, name: str) -> str | None:
        """Read a text file beside the tables."""
        return self.tables.read_text(name)


def _distinct(rows: pa.Table) -> pa.Table:
    """Distinct pairs of "cell_key" and "config" of a table that is encoded."""
    keys, configs = (cast(Encoded, rows[name].combine_chunks()) for name in ("cell_key", "config"))
    codes = [np.asarray(column.indices.fill_null(-1)).astype(np.int64) for column in (keys, configs)]
    first = np.unique((codes[0] + 1) << 32 | (codes[1] + 1), return_index=True)[1]
    return pa.table({n: c.take(first).cast(pa.string()) for n, c in (("cell_key", keys), ("config", configs))})


@dataclass(frozen=True)
class _InMemory:
    held: dict[str, pa.Table | None]

    def read(self, table: str = "metrics") -> pa.Table:
        found = self.held[table]
        return SCHEMAS[table].empty_table() if found is None else found

    def read_text(self, name: str) -> str | None:
        return None


def _only_columns(keys: pd.DataFrame, axes: Mapping[str, str], by: Sequence[str]) -> pd.DataFrame:
    by = [comparison.column_of(axes, name) for name in by]
    if unknown := [name for name in by if name not in keys.columns]:
        raise ConfigError(f"by: no axis {unknown[0]}; axes here: {', '.join(keys.columns)}")
    chosen = keys[list(by)]
    if chosen.duplicated().any():
        lost = [name for name in keys.columns if name not in by and comparison.varies(keys[name])]
        raise ConfigError(
            f"by={list(by)} would average different cells into one number, which means nothing across workloads or "
            f"machines: add {' or '.join(lost)}, or select rows of .metrics first"
        )
    return chosen


def planned(plan: "Plan", there: Store | None = None) -> Results:
    """Results of a plan's own cells and replicas: its folder may hold others. StoreError where there are none.

    `there`: the folder, where it is open already.
    """
    there = there or with_results(plan.root)
    return Results(there.root, _Planned(there, plan.axes, plan.replicas))


class _Planned(NamedTuple):
    """Tables of results, limited to a plan and with its axes."""

    tables: Store
    axes: Mapping[str, str]  # by cell key
    replicas: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of "metrics" that are read; () for all: configurations of very many cells fit into none."""
        return () if len(self.axes) <= MOST_CELLS else tuple(_without_configs(NAMES))

    def read(self, table: str = "metrics") -> pa.Table:
        """Read the plan's rows."""
        found = self.tables.read(table, (self.columns or None) if table == "metrics" else None)
        rows = of_cells(found, list(self.axes), self.replicas)
        return with_axes(rows, self.axes) if table == "metrics" else rows

    def configs(self) -> pa.Table:
        """Read the configuration of each row, with its cell key."""
        return self.tables.read("metrics", CONFIGS, ordered=False, encoded=True)

    def read_text(self, name: str) -> str | None:
        """Read a text file beside the tables."""
        return self.tables.read_text(name)
