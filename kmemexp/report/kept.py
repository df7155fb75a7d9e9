"""Tables that need not be made again: what a sweep's tables were made of, and what was shown of them.

`tables/_shown.json` lies beside the tables. What it holds is shown again only where all of this is as it was:

- the plan, as far as its tables tell: its name, baseline, metrics, number of replicas, and its cells in their order,
  with their axes, designs and workloads. Another configuration, or another version of the model, has other cells;
- the files of rows that the manifest counts: their paths and marks (`Store.marks`);
- the program: the text of every module that a table goes through, and the versions of Python and of the libraries;
- the tables: each is there and has the mark that it was given when it was written.

What cannot be told (a store without marks, a program without sources) counts as changed. The file is removed before
the first table is written, and written after the last one: a run that was stopped in between leaves none. Where two
runs write at the same time, its marks are not those of the other one's tables.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmemexp.report.shown import Shown, from_data
from kmemexp.store.store import Store

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

NAME = "tables/_shown.json"
TABLES = tuple(f"tables/_comparison.{kind}" for kind in ("parquet", "csv", "md"))
PACKAGE = Path(__file__).resolve().parents[1]
SOURCES = ("__init__.py", "errors.py", "metrics/*.py", "values.py", "planning/nodes.py", "report/**/*.*", "store/*.py")
"""Modules of the package that a table goes through, from its rows to its text."""
TEXTS = (".py", ".j2", ".css", ".js")
LIBRARIES = ("altair", "jinja2", "numpy", "pandas", "pyarrow", "rich", "scipy", "vl-convert-python")


def made_of(plan: "Plan", store: Store) -> str:
    """Digest of all that the tables of a plan depend on; "" where that cannot be told."""
    marks, paths, by = store.marks("data"), store.counting("metrics"), program()
    if not by or not marks.keys() >= set(paths):
        return ""
    facts = {
        "program": by,
        "plan": [plan.name, plan.replicas, plan.baseline, plan.metrics, plan.reps],
        "cells": [plan.columns[name] for name in ("cell_key", "axes", "design", "workload")],
        "rows": [[path, marks[path]] for path in paths],
    }
    return _digest(json.dumps(facts, sort_keys=True))


def stored(store: Store, wanted: str, report: str = "") -> Shown | None:
    """Return what was shown of the tables that stand in the folder; None if they are not made of what is `wanted`.

    `report`: a file that must stand beside them as it was written.
    """
    if not wanted or not (text := store.read_text(NAME)):
        return None
    try:
        record = json.loads(text)
        if record["made_of"] != wanted:
            return None
        marks = store.marks("tables")
        if any(record["tables"][path] != marks[path] for path in TABLES):
            return None
        if report and record["tables"][report] != store.mark(report):
            return None
        return from_data(record)
    except (ValueError, KeyError, TypeError, AttributeError):  # damaged, or of another version
        return None


def forget(store: Store) -> None:
    """Let the next run make the tables again: before they are written."""
    store.remove_text(NAME)


def keep(store: Store, shown: Shown, made: str, tables: Mapping[str, str]) -> None:
    """Record what was shown of tables that are written; `made`: `made_of`, `tables`: their marks."""
    record: dict[str, Any] = {"made_of": made, "tables": dict(tables), **shown._asdict()}
    store.write_text(NAME, json.dumps(record, ensure_ascii=False) + "\n")


@cache
def program(package: Path = PACKAGE) -> str:
    """Digest of what makes the tables: the sources in the package's folder, and libraries; "" without sources."""
    texts = {
        p.relative_to(package).as_posix(): p.read_text("utf-8")
        for s in SOURCES
        for p in package.glob(s)
        if p.suffix in TEXTS
    }
    versions = [platform.python_version(), *map(metadata.version, LIBRARIES)]
    return _digest(json.dumps([texts, versions], sort_keys=True)) if "report/tables.py" in texts else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
