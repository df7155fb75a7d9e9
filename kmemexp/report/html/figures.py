"""Charts of the report as SVG: courses over time, latency tails, curves over an axis, trade-offs.

Conditions are never averaged: what is drawn of one condition says which.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import altair as alt
import pandas as pd
import vl_convert

from kmemexp.metrics import INDEX, METRICS
from kmemexp.report import charts, layout
from kmemexp.report.comparison import varies
from kmemexp.report.html.svg import escaped
from kmemexp.report.labels import short
from kmemexp.report.tables import Made

LOADS = 3  # of which a condition each is drawn
DESIGNS = 6  # whose caches are drawn
CURVED = 3  # metrics of the curves
TAILS = ("alloc_main", "irq_net_done", "irq_disk_done", "alloc_device", "wait_kernel_map", "free_main")
LEVELS = {"p50_ns": 0.5, "p99_ns": 0.01, "p999_ns": 0.001}
TARGETS = (
    ("held_peak_bytes", "kernel_map_external_frag_mean_ratio"),
    ("held_peak_bytes", "irq_device_done_p99_ns"),
    ("kernel_map_external_frag_mean_ratio", "irq_device_done_p99_ns"),
)


class Figure(NamedTuple):
    """A drawing."""

    section: str
    title: str
    text: str  # what it shows, for those who do not see it
    svg: str


def draw(made: Made) -> list[Figure]:
    """Draw what the results have."""
    rows = _first_conditions(made)
    found = [*_courses(made, rows), *_tails(made, rows), *_curves(made), *_tradeoffs(made, rows), *_caches(made, rows)]
    return [
        Figure(section, title, text, as_svg(chart, f"f{number}", title, text))
        for number, (section, title, text, chart) in enumerate(found)
    ]


Drawn = tuple[str, str, str, alt.TopLevelMixin]


def as_svg(chart: alt.TopLevelMixin, prefix: str, title: str, text: str) -> str:
    """Draw a chart as SVG that may stand in a page with others: ids of its own, a name, a width that shrinks."""
    svg = str(vl_convert.vegalite_to_svg(chart.to_dict()))
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{prefix}-\1"', svg)
    svg = re.sub(r'(<g[^>]*) role="graphics-\w+"', r"\1", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escaped(f"{title}. {text}")}" ', 1)


def first_of_loads(made: Made) -> pd.DataFrame:
    """Rows of `made.frame` in the first condition of each load, with `variant` and `where`, the names of both."""
    return _first_conditions(made)


def _first_conditions(made: Made) -> pd.DataFrame:
    cells, frame = made.cells, made.frame
    rows = frame.assign(
        variant=layout.labels(frame, cells.variant, " "), where=layout.labels(frame, cells.condition, ", ")
    )
    rows = rows[(rows["status"] == "done").to_numpy()]
    load = rows["workload"].astype(str)
    firsts = rows.groupby(load, sort=False)["where"].first().head(LOADS)
    return rows[rows["where"].isin(firsts).to_numpy()]


def _courses(made: Made, rows: pd.DataFrame) -> Iterator[Drawn]:
    series = made.results.tables.read("series").to_pandas()
    series = series.merge(rows[["cell_key", "replica", "variant", "where"]], on=["cell_key", "replica"])
    if series.empty:
        return
    series["run"] = series["malloc_largest_run_bytes"] / 2**20
    series["held"] = series["held_bytes"] / 2**20
    for column, title in (("run", "largest piece malloc could get, MiB"), ("held", "held by allocators, MiB")):
        by = series.groupby(["where", "variant", "sample"], sort=False)
        table = by.agg(time_s=("time_ns", "mean"), value=(column, "mean"), low=(column, "min"), high=(column, "max"))
        table = table.reset_index().dropna(subset=["value"])
        table["time_s"] /= 1e9
        for where, part in table.groupby("where", sort=False):
            chart = charts.lines(
                part, x=charts.Axis("time_s", "simulated time, s"), y=charts.Axis("value", title), colour="variant",
                span=("low", "high"),
            )  # fmt: skip
            ends = part.groupby("variant", sort=False)["value"].last()
            text = "Mean of the replicas, band from least to most. At the end: " + _listed(ends)
            yield "courses", f"{title}: {where}", text, chart


def _tails(made: Made, rows: pd.DataFrame) -> Iterator[Drawn]:
    table = made.results.tables.read("latency").to_pandas()
    if table.empty:
        return
    table = table.merge(rows[["cell_key", "replica", "variant", "where"]], on=["cell_key", "replica"])
    names = [name for name in TAILS if name in set(table["what"])][:4]
    for where, there in table.groupby("where", sort=False):
        long = there[there["what"].isin(names)].melt(["what", "variant", "replica"], list(LEVELS), "level", "ns")
        long = long.dropna(subset=["ns"])
        if long.empty:
            continue
        long["beyond"] = long["level"].map(LEVELS)
        by = long.groupby(["what", "variant", "beyond"], sort=False)["ns"]
        part = by.agg(value="median", low="min", high="max").reset_index()
        part[["value", "low", "high"]] = part[["value", "low", "high"]].clip(lower=1) / 1e3
        chart = tail_chart(part)
        worst = part[part["beyond"] == 0.01].groupby("variant", sort=False)["value"].max()
        text = (
            f"Share of operations that take longer, both axes logarithmic; {', '.join(names)}. Largest p99: "
            + _listed(worst, " µs")
        )
        yield "latency", f"Latency: {where}", text, chart


def tail_chart(part: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw tails: latency against the share beyond it; columns what, variant, beyond, value, low, high (µs)."""
    names = list(dict.fromkeys(part["variant"]))
    base = alt.Chart(part).encode(
        x=alt.X("value:Q", title="latency, µs", scale=alt.Scale(type="log", nice=False)),
        y=alt.Y(
            "beyond:Q",
            title="share that takes longer",
            scale=alt.Scale(type="log"),
            axis=alt.Axis(values=[0.5, 0.1, 0.01, 0.001]),
        ),
        color=alt.Color(
            "variant:N", title=None, scale=charts.colours(names), legend=alt.Legend(orient="top", columns=3)
        ),
    )
    line = base.mark_line(point=True).encode(order="beyond:Q")
    reach = base.mark_rule(strokeWidth=2, opacity=0.5).encode(x="low:Q", x2="high:Q")
    both = alt.layer(reach, line).properties(width=270, height=150)
    chart = both.facet(alt.Facet("what:N", title=None), columns=2)
    finished: alt.TopLevelMixin = chart.resolve_scale(x="independent").configure(background="white")
    return finished


def _curves(made: Made) -> Iterator[Drawn]:
    """Metrics over each numeric axis, at the first value of every other axis."""
    table, condition = made.table, made.cells.condition
    table = table.assign(variant=layout.labels(table, made.cells.variant, " "))
    varying = [c for c in condition if varies(table[c].dropna())]
    axes = [c for c in varying if pd.api.types.is_numeric_dtype(table[c]) and c != "seed"]
    judged = [m for m in dict.fromkeys(table["metric"].astype(str)) if m in INDEX and METRICS[INDEX[m]].better]
    asked = [*judged[:1], *(m for m in judged[1:] if m.startswith(("held", "irq", "throughput", "total")))][:CURVED]
    for axis in axes:
        others = [c for c in varying if c not in (axis, "workload")]
        rest = table
        for other in others:
            first = rest[other].dropna().iloc[0]
            rest = rest[(rest[other].eq(first) | rest[other].isna()).to_numpy(bool)]
        if rest[axis].nunique() < 2:
            continue
        fixed = ", ".join(f"{c.rpartition('.')[2]} {layout.axis_value(c, rest[c].dropna().iloc[0])}" for c in others)
        for metric in asked:
            part = rest[(rest["metric"].astype(str) == metric).to_numpy() & rest["mean"].notna().to_numpy()]
            if part.empty:
                continue
            unit = layout.unit_of(metric, float(part["mean"].abs().max()))
            named = short(axis.rpartition(".")[2])
            bytes_axis = axis.endswith("_bytes")
            at = part[axis].astype(float) / (2**20 if bytes_axis else 1)
            mean = part["mean"]
            data = pd.DataFrame({
                "at": at, "value": mean / unit.scale, "low": part["low"].fillna(mean) / unit.scale,
                "high": part["high"].fillna(mean) / unit.scale, "variant": part["variant"].astype(str),
                "load": part["workload"].astype(str) if "workload" in part else "",
            })  # fmt: skip
            title = f"{short(metric)}{f', {unit.name}' if unit.name else ''}"
            chart = charts.lines(
                data, x=charts.Axis("at", f"{named}{', MiB' if bytes_axis else ''}", log=bool((at > 0).all())),
                y=charts.Axis("value", title), colour="variant", span=("low", "high"), facet="load", dots=True,
            )  # fmt: skip
            text = f"Mean with its 95 % interval{f'; {fixed}' if fixed else ''}."
            yield "curves", f"{title} over {named}", text, chart


def _tradeoffs(made: Made, rows: pd.DataFrame) -> Iterator[Drawn]:
    for x, y in TARGETS:
        if x not in rows or y not in rows:
            continue
        for where, part in rows.groupby("where", sort=False):
            means = part.groupby("variant", sort=False)[[x, y]].mean().dropna()
            if len(means) < 2:
                continue
            units = {name: layout.unit_of(name, float(means[name].abs().max())) for name in (x, y)}
            data = pd.DataFrame({"a": means[x] / units[x].scale, "b": means[y] / units[y].scale}).reset_index()
            named = {name: f"{short(name)}, {units[name].name}" for name in (x, y)}
            chart = charts.tradeoff(data, x=charts.Axis("a", named[x]), y=charts.Axis("b", named[y]), label="variant")
            best = charts.front(data["a"], data["b"])
            text = "Less of both is better. Not beaten in both: " + ", ".join(data.loc[best, "variant"]) + "."
            yield "tradeoffs", f"{short(x)} against {short(y)}: {where}", text, chart


def _caches(made: Made, rows: pd.DataFrame) -> Iterator[Drawn]:
    """What each cache of replica 0 held at the peak, designs side by side."""
    table = made.results.tables.read("caches").to_pandas()
    table = table[table["moment"] == "peak"]
    table = table.merge(rows[["cell_key", "replica", "variant", "where"]], on=["cell_key", "replica"])
    for where, there in table.groupby("where", sort=False):
        part = there[there["variant"].isin(list(dict.fromkeys(there["variant"]))[:DESIGNS])]
        largest = charts.largest_caches(part, "variant")
        of_all = largest.groupby("variant", sort=False)[["live", "free", "held"]].sum()
        first = largest.sort_values("held", ascending=False).groupby("variant", sort=False).first()
        told = "; ".join(
            f"{row['variant']} {row['held']:.3g} MiB, {row['live'] / max(row['live'] + row['free'], 1e-9):.0%} in live "
            f"objects, most in {first['cache'][row['variant']]} ({first['held'][row['variant']]:.3g} MiB)"
            for row in of_all.reset_index().to_dict("records")
        )
        chart = charts.cache_bars(largest, panel="variant")
        yield "caches", f"Slab occupancy by cache, at the peak: {where}", f"Replica 0. {told}.", chart


def _listed(values: "pd.Series[Any]", unit: str = "") -> str:
    return ", ".join(f"{name} {value:.3g}{unit}" for name, value in values.items()) + "."


def sections(found: Sequence[Figure]) -> list[str]:
    """Sections that have figures."""
    return list(dict.fromkeys(figure.section for figure in found))
