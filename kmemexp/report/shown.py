"""A comparison as it is shown, in text: what is left when it has been laid out."""

from collections.abc import Mapping
from typing import Any, NamedTuple

MARKS = {"better": "✓", "worse": "✗", "equivalent": "=", "inconclusive": "?"}

MOST_CELLS = 150_000
"""Cells of a plan that are compared and shown, and whose configurations, some 11 KiB each, are read for that."""


class Cell(NamedTuple):
    """One design's value of one metric."""

    value: str  # mean and half-width
    change: str  # against the baseline; empty for the baseline itself
    verdict: str
    best: bool


class Row(NamedTuple):
    """One metric under one condition."""

    metric: str
    unit: str
    cells: list[Cell | None]


class Section(NamedTuple):
    """One condition of a workload."""

    title: str
    rows: list[Row]


class Block(NamedTuple):
    """A table: a workload, its designs as columns, its other conditions as sections."""

    title: str
    variants: list[str]
    sections: list[Section]


class Shown(NamedTuple):
    """What is shown of a comparison."""

    title: str
    blocks: list[Block]
    remarks: list[str]
    answer: dict[str, Any] = {}  # noqa: RUF012 - report.told.as_data; never written to
    look: str = ""  # width and colours of the console that it was printed on last, and what was printed there
    text: str = ""


def from_data(record: Mapping[str, Any]) -> Shown:
    """Make of `Shown._asdict()` what it was, JSON in between. Raises KeyError, TypeError or ValueError."""
    blocks = [_block(*block) for block in record["blocks"]]
    given = (record[name] for name in ("answer", "look", "text"))
    return Shown(record["title"], blocks, list(record["remarks"]), *given)


def _block(title: str, variants: list[str], sections: list[Any]) -> Block:
    return Block(title, variants, [Section(name, [_row(*row) for row in rows]) for name, rows in sections])


def _row(metric: str, unit: str, cells: list[Any]) -> Row:
    return Row(metric, unit, [None if cell is None else Cell(*cell) for cell in cells])
