"""A comparison as it is shown, in text: what is left when it has been laid out."""

from typing import Any, NamedTuple

MARKS = {"better": "✓", "worse": "✗", "equivalent": "=", "inconclusive": "?"}


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
