"""The figures of a trace as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from kmemexp.workload.traces import warnings

Figures = Mapping[str, Any]
"""Figures of a trace, or one table of them, as `stats.stats` gives them."""

LARGEST_CACHES = 25


def show(figures: Figures, console: Console) -> None:
    """Print what `stats.stats` gave: what `perf kmem stat` shows, and more."""
    console.print(_summary(figures))
    console.print(_rounding(figures))
    console.print(_caches(figures["per_cache"]))
    console.print(_lifetimes(figures["lifetimes"]))
    if figures["interrupts"]:
        console.print(_interrupts(figures["interrupts"]))
    if figures["inferred"]:
        console.print(_inferred(figures["inferred"]))
    for line in warnings.damage(figures["report"]):
        console.print(line, style="yellow")


def _table(title: str, *columns: str, left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right")
    return table


def _summary(figures: Figures) -> Table:
    report = figures["report"]
    seconds = figures["span_us"] / 1e6
    table = _table(f"{report['source']} ({report['format']})", "figure", "value")
    rate = f"{figures['allocs'] / seconds:,.0f} per second" if seconds else ""
    rows = [
        ("events", f"{figures['events']:,} in {seconds:,.3f} s on {figures['cpus']} CPUs"),
        ("allocations", f"{figures['allocs']:,}  {rate}"),
        ("bytes requested", f"{figures['bytes_req']:,}"),
        ("bytes allocated", f"{figures['bytes_alloc']:,}"),
        ("internal fragmentation", f"{figures['internal_frag_ratio']:.3%}"),
        ("frees", f"{figures['frees']:,}"),
        ("frees that were not traced", f"{figures['lost_frees']:,}"),
        ("frees of older objects", f"{figures['unmatched_frees']:,}"),
        ("null pointers freed", f"{figures['null'] - figures['null_allocs']:,}"),
        ("allocations that failed", f"{figures['null_allocs']:,}"),
        ("allocations that may not sleep", f"{figures['nowait']:,}"),
        ("freed on another CPU (ping-pong)", f"{figures['ping_pong']:,}"),
        *((key.replace("_", " in "), f"{n:,}") for key, n in figures["context"].items()),
        ("KVA allocations / frees", f"{figures['vmap']['allocs']:,} / {figures['vmap']['frees']:,}"),
        ("KVA bytes / peak", f"{figures['vmap']['bytes']:,} / {figures['vmap']['peak']:,}"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _rounding(figures: Figures) -> Table:
    table = _table("What the requests cost in size classes (bytes)", "", "all allocations", "peak live", "live at end")
    names = {
        "req": "requested", "alloc": "Linux slab", "pow2": "4.4BSD buckets", "uma": "UMA malloc zones",
        "dfly": "DragonFly slab 2003",
    }  # fmt: skip
    totals = {
        "req": figures["bytes_req"],
        "alloc": figures["bytes_alloc"],
        **{m: figures[f"{m}_alloc"] for m in ("pow2", "uma", "dfly")},
    }
    for measure, name in names.items():
        table.add_row(
            name, *(f"{n:,}" for n in (totals[measure], figures["peak"][measure], figures["live_at_end"][measure]))
        )
    table.add_row("objects", f"{figures['allocs']:,}", f"{figures['peak']['n']:,}", f"{figures['live_at_end']['n']:,}")
    pages = (figures["buckets_pages_peak"], figures["buckets_pages_end"])
    table.add_row("pages held by buckets that never shrink", "", *(f"{n:,}" for n in pages))
    return table


def _caches(caches: Sequence[Figures]) -> Table:
    table = _table(
        "Caches by bytes allocated", "cache", "hits", "bytes req", "bytes alloc", "frag", "frees", "lost", "ping-pong",
        "no-wait", "peak live", "mean life",
    )  # fmt: skip
    for c in caches[:LARGEST_CACHES]:
        table.add_row(
            c["cache"],
            *(f"{c[k]:,}" for k in ("allocs", "bytes_req", "bytes_alloc")),
            f"{c['frag_ratio']:.1%}",
            *(f"{c[k]:,}" for k in ("frees", "lost_frees", "ping_pong", "nowait", "peak_live")),
            _time(c["mean_lifetime_ns"]),
        )
    if len(caches) > LARGEST_CACHES:
        table.caption = f"and {len(caches) - LARGEST_CACHES} smaller ones (all: --json)"
    return table


INFERRED = (
    "births", "deaths_seen", "deaths_proven", "deaths_by_law", "unmatched_frees", "births_added", "live_at_end",
)  # fmt: skip


def _inferred(inferred: Figures) -> Table:
    """What of each cache was seen and what the import inferred; those that left nothing to infer are left out."""
    table = _table(
        "Deaths and births that left no event, by slab cache",
        "cache",
        *(c.replace("_", " ") for c in INFERRED),
        "guessed",
    )
    unsure = [c for c in inferred["caches"] if c["deaths_proven"] + c["deaths_by_law"] + c["births_added"]]
    for c in unsure[:LARGEST_CACHES]:
        table.add_row(c["cache"], *(f"{c[k]:,}" for k in INFERRED), f"{c['guessed_share']:.1%}")
    table.add_row("all caches", *(f"{inferred[k]:,}" for k in INFERRED), f"{inferred['guessed_share']:.1%}")
    table.caption = "guessed: share of the bytes live at the end; streams: recorded, " + ", ".join(inferred["streams"])
    return table


def _lifetimes(lifetimes: Figures) -> Table:
    table = _table("Lifetimes of objects that were freed", "share of objects", "live less than")
    for key, value in lifetimes.items():
        if key != "classes":
            table.add_row(f"{key[1:].partition('_')[0]} %", _time(value))
    return table


def _interrupts(interrupts: Sequence[Figures]) -> Table:
    table = _table("Interrupts", "event", "number", "count", "mean time")
    for i in interrupts:
        number = str(i.get("vector", "all"))
        table.add_row(i["event"], number, f"{i['count']:,}", _time(i["mean_ns"]) if "mean_ns" in i else "")
    return table


def _time(ns: int | None) -> str:
    """Return a duration in a unit that suits it."""
    if ns is None:
        return "-"
    for unit, length in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if ns >= length:
            return f"{ns / length:.3g} {unit}"
    return f"{ns} ns"
