"""Results as one file that other programs open: CSV, SQLite or DuckDB, with a column for each axis in every table."""

import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd

from kmemexp.errors import InputError
from kmemexp.report.frames import axes_of
from kmemexp.report.results import Results

TABLES = ("metrics", "series", "latency", "snapshots", "caches")
ENDINGS = {"csv": ".csv", "sqlite": ".sqlite", "duckdb": ".duckdb"}


def write(results: Results, path: Path, to: str) -> None:
    """Write results to a new file; `to` is one of ENDINGS.

    CSV holds the metrics. A database holds all tables and `columns`: of each column its table, unit, meaning and
    configuration key. Raises InputError where DuckDB is not installed.
    """
    path.unlink(missing_ok=True)
    if to == "csv":
        results.metrics.to_csv(path, index=False)
        return
    tables = {name: _plain(getattr(results, name)) for name in TABLES}
    tables["columns"] = pd.concat([_told(name, getattr(results, name)) for name in TABLES], ignore_index=True)
    if to == "sqlite":
        with sqlite3.connect(path) as base:
            for name, frame in tables.items():
                frame.to_sql(name, base, index=False, chunksize=10_000)
        base.close()
        return
    duckdb = _duckdb()
    base = duckdb.connect(str(path))
    try:
        for name, frame in tables.items():
            base.register("given", frame)
            base.execute(f"create table {name} as select * from given")  # noqa: S608 - a name from TABLES
            base.unregister("given")
    finally:
        base.close()


def _duckdb() -> Any:
    try:
        import duckdb  # noqa: PLC0415 - few need it
    except ImportError as error:
        raise InputError("export.to=duckdb: DuckDB is not installed: pip install 'kmemexp[export]'") from error
    return duckdb


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns that a database holds: categories as text, arrays as bytes."""
    plain = frame.copy()
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            plain[name] = frame[name].astype(object)
        elif name == "occupancy":
            plain[name] = [bytes(bins) for bins in frame[name]]
    plain.attrs = {}
    return plain


def _told(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    axes, columns = axes_of(frame), [str(name) for name in frame.columns]
    units, meanings = (frame.attrs.get(key, {}) for key in ("units", "meanings"))
    return pd.DataFrame({
        "table": table, "column": columns, "unit": [units.get(name, "") for name in columns],
        "meaning": [meanings.get(name, "") for name in columns], "key": [axes.get(name, "") for name in columns],
    })  # fmt: skip
