"""A sweep's report as one self-contained HTML file: no network, light and dark, readable without JavaScript."""

import json
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2

import kmemexp
from kmemexp.report import labels, layout
from kmemexp.report.html import figures, strips, witness
from kmemexp.report.html.figures import Figure
from kmemexp.report.screen import many
from kmemexp.report.shown import MARKS
from kmemexp.report.tables import Made
from kmemexp.report.told import WORDS
from kmemexp.values import visible

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

MOST_ROWS = 4000  # of the table of all comparisons
MOST_BYTES = 3_000_000
TEMPLATES = "templates"


class Row(NamedTuple):
    """A row of the table of all comparisons, as text, and the numbers that it is sorted by."""

    where: str
    metric: str
    label: str
    design: str
    mean: str
    diff: str
    ratio: str
    verdict: str
    keys: tuple[float, float, float]  # mean, diff, ratio


def render(plan: "Plan", made: Made, deadlocks: Sequence[witness.Witness] = ()) -> str:
    """Write the report of a plan's results. `deadlocks`: lanes that were simulated again with a log."""
    shown = figures.draw(made)
    pictures = strips.draw(made)
    rows = _rows(made)
    context = {
        "title": made.title,
        "name": plan.name,
        "answer": made.answer,
        "words": WORDS,
        "marks": MARKS,
        "heat": _heat(made),
        "rows": rows,
        "left_out": len(made.table) - len(rows),
        "figures": shown,
        "strips": pictures,
        "lanes": [witness.draw(one) for one in deadlocks],
        "remarks": made.remarks,
        "legend": labels.legend(made.table["metric"].astype(str)),
        "provenance": _provenance(plan, made),
        "version": kmemexp.__version__,
        "style": _text("style.css"),
        "script": _text("script.js"),
    }
    html = _environment().get_template("report.html.j2").render(context)
    if len(html.encode()) > MOST_BYTES:  # the tables stand beside it as well
        few = rows[: MOST_ROWS // 10]
        context |= {"rows": few, "left_out": len(made.table) - len(few), "strips": pictures[:2]}
        html = _environment().get_template("report.html.j2").render(context)
    return html


def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("kmemexp.report.html", TEMPLATES), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    found.filters["short"] = labels.short
    found.filters["slug"] = lambda text: re.sub(r"\W+", "-", text.lower()).strip("-")
    found.filters["visible"] = visible
    found.filters["conditions"] = many
    return found


def _text(name: str) -> str:
    return resources.files("kmemexp.report.html").joinpath(TEMPLATES, name).read_text("utf-8")


def _rows(made: Made) -> list[Row]:
    """Comparisons as text, as many as a report shows."""
    cells = made.cells
    where = layout.labels(made.table, cells.condition, ", ", MOST_ROWS)
    design = layout.labels(made.table, cells.variant, " ", MOST_ROWS)
    rows = []
    for place, name, row in zip(where, design, layout.compared(made.table.head(MOST_ROWS)), strict=True):
        unit = layout.unit_of(row.metric, max(abs(row.mean), 1e-300))
        scaled = row.scaled(unit.scale)
        value = layout.value(scaled, layout.decimals_for([scaled.mean], [scaled.half]), row.n)
        change = "" if row.verdict == "baseline" or row.diff != row.diff else layout.difference(scaled)
        keys = (row.mean, row.diff, row.ratio)
        text = f"{value} {unit.name}".strip()
        rows.append(
            Row(
                place,
                row.metric,
                labels.short(row.metric),
                name,
                text,
                change,
                layout.factor(row.ratio),
                row.verdict,
                keys,
            )
        )
    return rows


def _heat(made: Made) -> list[dict[str, Any]]:
    """Verdicts of each metric and design: how many of its conditions are better, worse, the same or open."""
    design = layout.labels(made.table, made.cells.variant, " ")
    table = made.table.assign(_design=design, _verdict=made.table["verdict"].astype(str))
    told = table[table["_verdict"].isin(WORDS)]
    names = [t.design for t in made.answer.tallies]
    rows = []
    for metric, those in told.groupby(told["metric"].astype(str), sort=False):
        counts = those.groupby(["_design", "_verdict"]).size().to_dict()
        cells = [{word: int(counts.get((name, word), 0)) for word in WORDS} for name in names]
        rows.append({"metric": str(metric), "cells": cells})
    return rows


def _provenance(plan: "Plan", made: Made) -> dict[str, Any]:
    """What the results come from, and the command that makes them again."""
    runs = made.results.run.get("runs", [])
    last = runs[-1] if runs else {}
    config = json.loads(made.frame["config"].iloc[0]) if len(made.frame) else {}
    return {
        "command": last.get("command", f"python -m kmemexp +sweep={plan.name}"),
        "facts": dict(_facts(last)),
        "runs": len(runs),
        "config": json.dumps(config, indent=1, sort_keys=True),
        "root": plan.root,
    }


def _facts(run: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for key in ("started", "ended", "outcome", "python"):
        if key in run:
            yield key, str(run[key])
    git = run.get("git") or {}
    if git:
        yield "source", f"{git.get('commit', '?')}{' with changes' if git.get('changed') else ''}"
    for key in ("host", "versions"):
        if found := run.get(key):
            yield key, ", ".join(f"{k} {v}" for k, v in found.items())


__all__ = ["MOST_BYTES", "Figure", "render"]
