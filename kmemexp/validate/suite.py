"""All checks by name, and running one of them."""

import functools
import importlib
import time
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from kmemexp.validate.check import Check
from kmemexp.validate.rows import Row, judging
from kmemexp.validate.setting import setting

FILES = (
    "placement", "sizes", "examples", "caches", "queues", "pools", "deadlocks", "statistics", "programs", "records",
    "apart", "published", "reported", "kernel",
)  # fmt: skip
"""Files of kmemexp/validate/checks/, in the order of the table."""


class Done(NamedTuple):
    """What became of a check."""

    name: str
    rows: list[Row]
    seconds: float


@functools.cache
def checks() -> dict[str, Check]:
    """All checks by name, in the order of the table."""
    found: dict[str, Check] = {}
    for file in FILES:
        for check in importlib.import_module(f"kmemexp.validate.checks.{file}").CHECKS:
            if check.name in found:
                raise ValueError(f"two checks are called {check.name}")
            found[check.name] = check
    return found


def run_one(name: str, seed: int, level: str = "quick", record: bool = False) -> Done:
    """Run one check. What it raises is a row that fails, with the traceback's last line."""
    started = time.perf_counter()
    rows: list[Row] = []
    judging.lenient = level == "brief"
    try:
        rows.extend(checks()[name].run(setting(name, seed, level=level, record=record)))  # those before an error stay
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        note = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        rows.append(Row(name, "the check ended with an error", "", 0.0, 1.0, 0.0, "A", False, note))
    if not rows:
        rows.append(Row(name, "the check has no rows", "", 1.0, 0.0, 0.0, "A", False))
    return Done(name, rows, time.perf_counter() - started)


def ordered(names: Sequence[str]) -> list[str]:
    """Names so that those that take long begin first."""
    return sorted(names, key=lambda name: -checks()[name].seconds)
