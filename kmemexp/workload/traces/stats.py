"""The figures of a trace as one dictionary (`stats --json`)."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kmemexp.workload.traces import live, meta, source, tally
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.meta import Report
from kmemexp.workload.traces.reading import Progress, Reader
from kmemexp.workload.traces.tally import Tally

QUANTILES = (0.1, 0.5, 0.9, 0.99)
BY_CONTEXT = ((sc.ALLOC, "alloc"), (sc.ZERO_ALLOC, "alloc"), (sc.FREE, "free"))


def stats(path: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Count a trace, text or imported. Returns the figures; raises TraceError where it is not a trace.

    Keys as in the shared traces' *.expected.json (rules: their README); bytes, counts and microseconds, exact.
    Besides: `per_cache`, `lifetimes`, `interrupts`, `kva`, `sizes`, `pages` (events of the page allocator), `report`
    (what was read and what was damaged), and of an imported trace `inferred`: by slab cache, what was seen, imputed and
    added, and the share of live bytes that is a guess. All other figures are of what was recorded alone.
    """
    reader = Reader(path, progress)
    total = tally.nothing()
    objects, areas = live.table(tally.OBJECT_FIELDS), live.table(tally.OBJECT_FIELDS)
    for rows in reader.batches():
        objects, areas = live.with_room(objects, len(rows.op)), live.with_room(areas, len(rows.op))
        total = tally.with_caches(total, len(reader.names))
        tally.count(rows, total, objects, areas)
    inferred = meta.open_parquet(path)[1].get("inferred") if source.is_parquet(path) else None
    return {**_figures(total, reader.names, reader.report), "inferred": inferred}


def _figures(total: Tally, names: list[str], report: Report) -> dict[str, Any]:
    ops = {name: int(total.ops[i].sum()) for i, name in enumerate(sc.OPS)}
    events = {name: int(n) for name, n in zip(sc.EVENT_NAMES, total.events, strict=True) if n}
    caches = [
        _cache(name, row) for name, row in zip(names, total.caches.tolist(), strict=False) if row[tally.CACHE_ALLOCS]
    ]
    return {
        "events": sum(events.values()),
        "events_by_name": events,
        "cpus": int(total.cpus.sum()),
        "span_us": int(total.sums[tally.SUM_LAST] - total.sums[tally.SUM_FIRST]) // 1000,
        "allocs": ops["alloc"] + ops["zero_alloc"],
        "frees": ops["free"],
        "lost_frees": ops["lost_free"],
        "unmatched_frees": ops["unmatched_free"],
        "null": ops["null_free"] + ops["null_alloc"],
        "null_allocs": ops["null_alloc"],
        "zero_allocs": ops["zero_alloc"],
        "nowait": int(total.sums[tally.SUM_NOWAIT]),
        "context": _contexts(total.ops),
        "caches": sum(c["cache"] != sc.KMALLOC for c in caches),
        **{f"bytes_{m}": int(total.total[tally.MEASURES.index(m)]) for m in ("req", "alloc")},
        **{f"{m}_alloc": int(total.total[tally.MEASURES.index(m)]) for m in ("pow2", "uma", "dfly")},
        "live_at_end": _measures(total.live),
        "peak": _measures(total.peak),
        "buckets_pages_end": int(total.sums[tally.SUM_PAGES]),
        "buckets_pages_peak": int(total.sums[tally.SUM_PAGES_PEAK]),
        "internal_frag_ratio": _loss(total.total[tally.MEASURE_REQ], total.total[tally.MEASURE_ALLOC]),
        "ping_pong": int(total.sums[tally.SUM_PINGPONG]),
        **_kva(total, ops),
        "per_cache": sorted(caches, key=lambda c: -c["bytes_alloc"]),
        "sizes": {f"{1 << i}": int(n) for i, n in enumerate(total.sizes) if n},
        "lifetimes": _lifetimes(total.lifetimes),
        "interrupts": _interrupts(total),
        "pages": {"allocs": ops["page_alloc"], "frees": ops["page_free"]},
        "report": asdict(report),
    }


def _kva(total: Tally, ops: dict[str, int]) -> dict[str, dict[str, int]]:
    return {
        "vmap": {
            "allocs": ops["kva_alloc"],
            "frees": ops["kva_free"],
            "unmatched_frees": ops["kva_unmatched_free"],
            "bytes": int(total.sums[tally.SUM_KVA_BYTES]),
            "cur": int(total.sums[tally.SUM_KVA_LIVE]),
            "peak": int(total.sums[tally.SUM_KVA_PEAK]),
        },
        "kva": {
            "failed": ops["kva_failed"],
            "lost_frees": ops["kva_lost_free"],
            "mean_lifetime_ns": int(total.sums[tally.SUM_KVA_LIFETIME]) // max(ops["kva_free"], 1),
        },
    }


def _contexts(ops: np.ndarray) -> dict[str, int]:
    found: dict[str, int] = {}
    for op, what in BY_CONTEXT:
        for context, n in zip(sc.CONTEXTS, ops[op].tolist(), strict=True):
            if n:
                found[f"{what}_{context}"] = found.get(f"{what}_{context}", 0) + n
    return dict(sorted(found.items()))


def _measures(values: np.ndarray) -> dict[str, int]:
    return dict(sorted(zip(tally.MEASURES, values.tolist(), strict=True)))


def _loss(requested: int, allocated: int) -> float:
    """Return the share of allocated bytes that was not asked for."""
    return float(1 - requested / allocated) if allocated else 0.0


def _cache(name: str, row: list[int]) -> dict[str, Any]:
    figures = dict(zip(tally.CACHE_FIELDS, row, strict=True))
    lifetime = figures.pop("lifetime_ns")
    return {
        "cache": name,
        **figures,
        "frag_ratio": _loss(figures["bytes_req"], figures["bytes_alloc"]),
        "mean_lifetime_ns": lifetime // figures["frees"] if figures["frees"] else None,
    }


def _lifetimes(classes: np.ndarray) -> dict[str, Any]:
    """Return quantiles as the upper ends of their log2 classes, and the classes themselves."""
    sums = np.cumsum(classes)
    found = {}
    if sums[-1]:
        for q in QUANTILES:
            found[f"p{q * 100:g}_below_ns"] = 2 << int(np.searchsorted(sums, q * sums[-1]))
    return {**found, "classes": {f"{1 << i}": int(n) for i, n in enumerate(classes) if n}}


def _interrupts(total: Tally) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for e, event in enumerate(sc.EVENTS):
        seen = np.flatnonzero(total.vectors[e])
        found += [{"event": event.name, "vector": int(v), "count": int(total.vectors[e, v])} for v in seen]
        if n := int(total.vectors[e].sum()):
            found.append({"event": event.name, "count": n, "mean_ns": int(total.handler_ns[e]) // n})
    return found
