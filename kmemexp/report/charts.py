"""Charts of experiments, with Altair: an interval per design, lines over simulated time, trade-offs, maps over time.

All take a table in long form and the names of its columns. A design has the same colour in every chart; where charts
cannot rely on colour (more than eight designs), the labels and shapes tell them apart.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple, cast

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

WIDTH, HEIGHT = 620, 240
MOST_POINTS = 20000  # of a heatmap: an SVG of more is slow to show

COLOURS = {
    "freebsd4": "#0072B2",
    "freebsd4_unified": "#D55E00",
    "dragonfly_2003aug25": "#E69F00",
    "dragonfly_2003aug27": "#999933",
    "dragonfly_2003oct": "#009E73",
    "mail2003": "#117733",
    "mail2003_bare": "#DDCC77",
    "dragonfly_2005": "#44AA99",
    "dragonfly_2010": "#CC6677",
    "dragonfly_2020": "#88CCEE",
    "dragonfly_2021": "#661100",
    "freebsd5_uma": "#56B4E9",
    "freebsd5_uma_unified": "#CC79A7",
    "freebsd_mbuma": "#AA4499",
    "freebsd15": "#882255",
    "illumos": "#6F6F00",
    "illumos_amd64": "#B3A125",
    "linux_slub": "#000000",
    "linux_6_12": "#4D4D4D",
    "linux_6_18": "#8C8C8C",
    "linux_7_1": "#BBBBBB",
    "proactive": "#332288",
}
"""Colours that are told apart with a colour vision deficiency too: those of Okabe and Ito (2008), then Tol's."""

OTHERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#000000")
"""For what is not a design, in order."""


class Axis(NamedTuple):
    """A column of numbers, and how it is shown."""

    column: str
    title: str  # what is shown, with its unit
    log: bool = False


def colours(names: Sequence[str]) -> alt.Scale:
    """Scale that gives each name its colour: a design its own, other names the next that is left."""
    names = list(dict.fromkeys(map(str, names)))
    left = [c for c in OTHERS if c not in {COLOURS.get(name) for name in names}] or list(OTHERS)
    others = [name for name in names if name not in COLOURS]
    chosen = COLOURS | {name: left[i % len(left)] for i, name in enumerate(others)}
    return alt.Scale(domain=names, range=[chosen[name] for name in names])


BOUND = "bound"
"""Column of a table: the mean of what no placement could pass."""


def intervals(
    table: pd.DataFrame, *, y: str, x: Axis, colour: str, span: tuple[str, str] = ("low", "high"),
    facet: str | None = None, title: str = "", zero: bool = False,
) -> alt.TopLevelMixin:  # fmt: skip
    """Draw a dot with its interval for each row: conditions `y` one below the other, one colour per design.

    `span` names the columns of the interval's bounds. `zero` draws a line at 0, for differences. `facet` makes a panel
    for each of its values. Where the table has a column BOUND, a tick stands at what no design could pass.
    """
    low, high = span
    bound = [BOUND] if BOUND in table.columns else []
    frame = _plain(table, [y, x.column, low, high, colour, *bound, *([facet] if facet else [])])
    rows, names = _order(frame[y]), _order(frame[colour])
    place = alt.Y(y, type="nominal", sort=rows, title=None, axis=alt.Axis(labelLimit=260))
    apart = alt.YOffset(colour, type="nominal", sort=names, scale=alt.Scale(paddingOuter=0.3))
    scale = alt.Scale(type="log") if x.log else alt.Scale(zero=zero)
    tint = alt.Color(colour, type="nominal", scale=colours(names), title=None, legend=_legend(names))
    base = alt.Chart(_inline(frame)).encode(y=place, yOffset=apart, color=tint)
    rules = base.mark_rule(strokeWidth=2).encode(
        x=alt.X(low, type="quantitative", title=x.title, scale=scale), x2=alt.X2(high)
    )
    dots = base.mark_point(filled=True, size=55, opacity=1).encode(
        x=alt.X(x.column, type="quantitative", title=x.title, scale=scale)
    )
    layers = [rules, dots]
    if bound:
        layers.append(
            base.mark_tick(thickness=2).encode(x=alt.X(BOUND, type="quantitative", title=x.title, scale=scale))
        )
    if zero:
        layers.insert(0, alt.Chart(_inline(frame)).mark_rule(color="#888", strokeDash=[3, 3]).encode(x=alt.datum(0)))
    height = max(len(rows) * max(16 * len(names), 22), 60)
    chart = _layered(layers, WIDTH if facet is None else _panel(frame[facet]), height)
    return _finished(chart, title, frame, facet)


def lines(
    table: pd.DataFrame, *, x: Axis, y: Axis, colour: str, span: tuple[str, str] | None = None,
    facet: str | None = None, title: str = "", dots: bool = False,
) -> alt.TopLevelMixin:  # fmt: skip
    """Draw a line per design over `x` (simulated time, CPUs, …), with a band between the columns `span` if given."""
    frame = _plain(table, [c for c in (x.column, y.column, colour, *(span or ()), facet) if c])
    names = _order(frame[colour])
    frame = frame.sort_values(colour, key=lambda c: c.map(names.index), kind="stable")  # the first one lies lowest
    tint = alt.Color(colour, type="nominal", scale=colours(names), title=None, legend=_legend(names))
    dash = alt.StrokeDash(colour, type="nominal", scale=_dashes(names), title=None, legend=_legend(names))
    across = alt.X(x.column, type="quantitative", title=x.title, scale=_scale(x.log, frame[x.column]))
    if x.log:
        across = across.axis(values=sorted({float(v) for v in frame[x.column]}))
    up = alt.Scale(type="log") if y.log else alt.Undefined
    base = alt.Chart(_inline(frame)).encode(x=across, color=tint)
    layers = []
    if span:
        band = {"y": alt.Y(span[0], type="quantitative", title=y.title, scale=up), "y2": alt.Y2(span[1])}
        layers.append(base.mark_area(opacity=0.2, line=False).encode(**band))
    up_to = alt.Y(y.column, type="quantitative", title=y.title, scale=up)
    layers.append(base.mark_line(point=dots, strokeWidth=2).encode(y=up_to, strokeDash=dash))
    width = WIDTH if facet is None else _panel(frame[facet])
    return _finished(_layered(layers, width, HEIGHT), title, frame, facet)


def tradeoff(
    table: pd.DataFrame, *, x: Axis, y: Axis, label: str, title: str = "", less_x: bool = True, less_y: bool = True
) -> alt.TopLevelMixin:  # fmt: skip
    """Draw one labelled dot per row, and a line through those that no other row beats in both (the Pareto front).

    Where the table has a column BOUND, a tick stands where `y` could be at best.
    """
    best = front(table[x.column], table[y.column], less_x=less_x, less_y=less_y)
    bound = [BOUND] if BOUND in table.columns else []
    frame = _plain(table, [x.column, y.column, label, *bound]).assign(front=best)
    names = _order(frame[label])
    across = alt.X(x.column, type="quantitative", title=x.title, scale=alt.Scale(zero=False, padding=70))
    up = alt.Y(y.column, type="quantitative", title=y.title, scale=alt.Scale(zero=False, padding=20))
    tint = alt.Color(label, type="nominal", scale=colours(names), legend=None)
    base = alt.Chart(_inline(frame)).encode(x=across, y=up)
    step = base.transform_filter("datum.front").mark_line(color="#999", strokeDash=[4, 3]).encode(order=f"{x.column}:Q")
    points = base.mark_point(filled=True, size=80, opacity=1).encode(color=tint)
    words = base.mark_text(align="left", dx=8, fontSize=11).encode(text=f"{label}:N")
    layers = [step, points, words]
    if bound:
        most = alt.Y(BOUND, type="quantitative", title=y.title, scale=alt.Scale(zero=False, padding=20))
        layers.append(base.mark_tick(thickness=2, orient="horizontal").encode(color=tint, y=most))
    return _finished(_layered(layers, WIDTH, 1.5 * HEIGHT), title, frame, None)


def front(x: pd.Series, y: pd.Series, *, less_x: bool = True, less_y: bool = True) -> NDArray[np.bool_]:
    """Which points no other point equals or beats in both values and beats in one; a missing value is never one."""
    a, b = (np.asarray(v, np.float64) * (1 if less else -1) for v, less in ((x, less_x), (y, less_y)))
    beaten = (a[None] <= a[:, None]) & (b[None] <= b[:, None]) & ((a[None] < a[:, None]) | (b[None] < b[:, None]))
    unbeaten: NDArray[np.bool_] = ~beaten.any(axis=1) & np.isfinite(a) & np.isfinite(b)
    return unbeaten


def occupancy(snapshots: pd.DataFrame, *, span_bytes: int | None = None, title: str = "") -> alt.TopLevelMixin:
    """Draw a map over time: a column per snapshot, a dark cell where the map is full, a panel per design.

    `snapshots` holds rows of `Results.snapshots` of one map (or of maps that are called differently by design) and one
    replica. `span_bytes`: size of the map; without it the axis is a share of it. Raises ValueError for too many cells.
    """
    columns = []
    for (design, name), rows in snapshots.groupby(["design", "map"], observed=True, sort=False):
        times = rows.sort_values("time_ns")
        begins: list[int] = times["time_ns"].tolist()
        step = float(times["time_ns"].diff().median()) if len(times) > 1 else 1e9
        ends = [*begins[1:], begins[-1] + step]
        for shot, begin, end in zip(times["occupancy"], begins, ends, strict=True):
            filled = np.asarray(shot, np.float64) / 255
            edge = np.arange(len(filled) + 1) / len(filled) * (span_bytes / 2**20 if span_bytes else 1.0)
            columns.append(pd.DataFrame({
                "panel": f"{design}: {name}", "begin": begin / 1e9, "end": end / 1e9,
                "low": edge[:-1], "high": edge[1:], "filled": filled,
            }))  # fmt: skip
    frame = pd.concat(columns, ignore_index=True)
    if len(frame) > MOST_POINTS:
        raise ValueError(f"{len(frame)} cells of a map are too many to draw; choose one replica or fewer instants")
    unit = "address in the map, MiB" if span_bytes else "address in the map, share"
    shade = alt.Scale(scheme="blues", domain=[0, 1])
    chart = alt.Chart(_inline(frame)).mark_rect(strokeWidth=0.5).encode(
        x=alt.X("begin:Q", title="simulated time, s", scale=alt.Scale(zero=False, nice=False)),
        x2="end:Q",
        y=alt.Y("low:Q", title=unit, scale=alt.Scale(nice=False)),
        y2="high:Q",
        color=alt.Color("filled:Q", title="occupied", scale=shade),
        stroke=alt.Stroke("filled:Q", scale=shade, legend=None),  # or seams show where cells meet
    )  # fmt: skip
    return _finished(chart.properties(width=_panel(frame["panel"]), height=HEIGHT), title, frame, "panel")


MOST_CACHES = 14  # bars of a panel
SMALLER = "other caches"
LIVE, FREE = "in live objects", "free in its slabs"
PAGE_MIB = 4096 / 2**20


def largest_caches(table: pd.DataFrame, panel: str, shown: int = MOST_CACHES) -> pd.DataFrame:
    """Columns `panel`, cache, live, free (MiB) of rows of `Results.caches`: the largest of each panel, the rest summed.

    `live`: what is granted to live objects; `free`: the other bytes of the cache's pages. A cache of an allocator that
    does not say which pages are its, has its live objects' bytes only.
    """
    held = table["pages_count"].fillna(0) * PAGE_MIB
    live = table["granted_bytes"] / 2**20
    rows = pd.DataFrame({panel: table[panel].astype(str), "cache": table["cache"].astype(str), "live": live,
                         "free": (held - live).clip(lower=0), "held": held.where(held > 0, live)})  # fmt: skip
    rows = rows.sort_values([panel, "held"], ascending=[True, False], kind="stable")
    small = rows.groupby(panel, sort=False).cumcount() >= shown
    rows["cache"] = rows["cache"].mask(small, SMALLER)
    return rows.groupby([panel, "cache"], sort=False)[["live", "free", "held"]].sum().reset_index()


def cache_bars(table: pd.DataFrame, *, panel: str, title: str = "") -> alt.TopLevelMixin:
    """Draw what caches hold, a panel each, all at one scale: of each bar the dark part is live objects'.

    `table` is that of `largest_caches`.
    """
    long = table.melt([panel, "cache", "held"], ["live", "free"], "part", "mib")
    long["part"] = long["part"].map({"live": LIVE, "free": FREE})
    frame = _plain(long, [panel, "cache", "part", "mib", "held"])
    panels = _order(frame[panel])
    x = alt.X("mib:Q", title="held, MiB", scale=alt.Scale(domain=[0, float(table["held"].max() * 1.02)], nice=False))
    y = alt.Y("cache:N", title=None, sort=alt.EncodingSortField("held", op="max", order="descending"))
    shades = alt.Scale(domain=[LIVE, FREE], range=["#08519c", "#bdd7e7"])
    tint = alt.Color("part:N", title=None, scale=shades, legend=alt.Legend(orient="top"))
    bars = alt.Chart(_inline(frame)).mark_bar(stroke="#555", strokeWidth=0.4).encode(
        x=x, y=y, color=tint, order=alt.Order("part:N", sort="descending")
    )  # fmt: skip
    drawn = bars.properties(width=WIDTH // 2 - 60, height=alt.Step(13))
    whole = drawn.facet(alt.Facet(f"{panel}:N", title=None, sort=panels), columns=2).resolve_scale(y="independent")
    if title:
        whole = whole.properties(title=alt.TitleParams(title, anchor="start", fontSize=13))
    finished: alt.TopLevelMixin = whole.configure(background="white").configure_view(stroke="#ddd")
    return finished


def _plain(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Columns that a chart needs, under names that Vega does not take for paths, categories as text."""
    frame = table[list(dict.fromkeys(columns))].copy()
    if odd := [c for c in frame.columns if not str(c).isidentifier()]:
        raise ValueError(f"a chart's column must be a plain name, not {odd[0]}")
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            frame[name] = frame[name].astype(str)
    return frame


def _inline(frame: pd.DataFrame) -> alt.InlineData:
    """Rows as the chart itself holds them: of a frame Altair takes no more than 5 000."""
    return alt.InlineData(values=json.loads(frame.to_json(orient="records", double_precision=15)))


def _order(column: pd.Series) -> list[str]:
    """Names in the order in which the designs stand in COLOURS, then in that of the table."""
    names = [str(name) for name in dict.fromkeys(column)]
    known = [name for name in COLOURS if name in names]
    return known + [name for name in names if name not in known]


def _dashes(names: Sequence[str]) -> alt.Scale:
    """Scale of line styles, so that one line does not hide another that is equal to it."""
    styles = ([1, 0], [6, 4], [2, 3], [9, 3, 2, 3])
    return alt.Scale(domain=list(names), range=[styles[i % len(styles)] for i in range(len(names))])


def _scale(log: bool, values: pd.Series) -> alt.Scale:
    return alt.Scale(type="log", base=2) if log and (values > 0).all() else alt.Scale(nice=False)


def _legend(names: Sequence[str]) -> alt.Legend | None:
    """Legend above the chart; none for a single name."""
    return (
        alt.Legend(orient="top", columns=4, symbolType="circle", symbolOpacity=1, labelLimit=200)
        if len(names) > 1
        else None
    )


def _panel(column: pd.Series) -> int:
    """Width of a panel: two in a row."""
    return WIDTH if len(set(column)) == 1 else WIDTH // 2 - 20


def _layered(layers: Sequence[alt.Chart], width: float, height: float) -> alt.LayerChart:
    chart = cast(alt.LayerChart, alt.layer(*layers))  # Altair's annotation allows for charts with facets, too
    return chart.properties(width=width, height=height)


def _finished(
    chart: alt.Chart | alt.LayerChart, title: str, frame: pd.DataFrame, facet: str | None
) -> alt.TopLevelMixin:
    whole: alt.TopLevelMixin = chart
    if facet:
        order = _order(frame[facet])
        whole = chart.facet(alt.Facet(facet, type="nominal", title=None, sort=order), columns=2)
    if title:
        whole = whole.properties(title=alt.TitleParams(title, anchor="start", fontSize=13))
    finished: alt.TopLevelMixin = whole.configure(background="white").configure_view(stroke="#ddd")
    return finished
