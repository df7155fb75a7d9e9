"""The figures of a trace as one dictionary (`stats --json`)."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from kmemexp.workload.traces import live, tally
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.meta import Report
from kmemexp.workload.traces.reading import Progress, Reader
from kmemexp.workload.traces.tally import Tally

QUANTILES = (0.1, 0.5, 0.9, 0.99)
BY_CONTEXT = ((sc.ALLOC, "alloc"), (sc.ZERO_ALLOC, "alloc"), (sc.FREE, "free"))


def stats(path: Path, progress: Progress | None = None) -> dict:
    """Count a trace, text or imported. Returns the figures; raises TraceError where it is not a trace.

    Keys as in the shared traces' *.expected.json (rules: their README); bytes, counts and microseconds, exact.
    Besides: `per_cache`, `lifetimes`, `interrupts`, `kva`, `sizes`, `report` (what was read and what was damaged).
    """
    reader = Reader(path, progress)
    total = tally.tally()
    objects, areas = live.table(tally.O_FIELDS), live.table(tally.O_FIELDS)
    for rows in reader.batches():
        objects, areas = live.with_room(objects, len(rows.op)), live.with_room(areas, len(rows.op))
        total = tally.with_caches(total, len(reader.names))
        tally.count(rows, total, objects, areas)
    return _figures(total, reader.names, reader.report)


def _figures(t: Tally, names: list[str], report: Report) -> dict:
    ops = {name: int(t.ops[i].sum()) for i, name in enumerate(sc.OPS)}
    events = {name: int(n) for name, n in zip(sc.EVENT_NAMES, t.events, strict=True) if n}
    caches = [_cache(name, row) for name, row in zip(names, t.caches.tolist(), strict=False) if row[tally.K_ALLOCS]]
    return {
        "events": sum(events.values()),
        "events_by_name": events,
        "cpus": int(t.cpus.sum()),
        "span_us": int(t.sums[tally.S_LAST] - t.sums[tally.S_FIRST]) // 1000,
        "allocs": ops["alloc"] + ops["zero_alloc"],
        "frees": ops["free"],
        "lost_frees": ops["lost_free"],
        "unmatched_frees": ops["unmatched_free"],
        "null": ops["null_free"] + ops["null_alloc"],
        "null_allocs": ops["null_alloc"],
        "zero_allocs": ops["zero_alloc"],
        "nowait": int(t.sums[tally.S_NOWAIT]),
        "context": _contexts(t.ops),
        "caches": sum(c["cache"] != sc.KMALLOC for c in caches),
        **{f"bytes_{m}": int(t.total[tally.MEASURES.index(m)]) for m in ("req", "alloc")},
        **{f"{m}_alloc": int(t.total[tally.MEASURES.index(m)]) for m in ("pow2", "uma", "dfly")},
        "live_at_end": _measures(t.live),
        "peak": _measures(t.peak),
        "buckets_pages_end": int(t.sums[tally.S_PAGES]),
        "buckets_pages_peak": int(t.sums[tally.S_PAGES_PEAK]),
        "internal_frag_ratio": _loss(t.total[tally.M_REQ], t.total[tally.M_ALLOC]),
        "ping_pong": int(t.sums[tally.S_PINGPONG]),
        "vmap": {
            "allocs": ops["kva_alloc"],
            "frees": ops["kva_free"],
            "unmatched_frees": ops["kva_unmatched_free"],
            "bytes": int(t.sums[tally.S_KVA_BYTES]),
            "cur": int(t.sums[tally.S_KVA_LIVE]),
            "peak": int(t.sums[tally.S_KVA_PEAK]),
        },
        "kva": {
            "failed": ops["kva_failed"],
            "lost_frees": ops["kva_lost_free"],
            "mean_lifetime_ns": int(t.sums[tally.S_KVA_LIFETIME]) // max(ops["kva_free"], 1),
        },
        "per_cache": sorted(caches, key=lambda c: -c["bytes_alloc"]),
        "sizes": {f"{1 << i}": int(n) for i, n in enumerate(t.sizes) if n},
        "lifetimes": _lifetimes(t.lifetimes),
        "interrupts": _interrupts(t),
        "report": asdict(report),
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
    """Return the share of allocated bytes that nobody asked for."""
    return float(1 - requested / allocated) if allocated else 0.0


def _cache(name: str, row: list[int]) -> dict:
    figures = dict(zip(tally.CACHE_FIELDS, row, strict=True))
    lifetime = figures.pop("lifetime_ns")
    return {
        "cache": name,
        **figures,
        "frag_ratio": _loss(figures["bytes_req"], figures["bytes_alloc"]),
        "mean_lifetime_ns": lifetime // figures["frees"] if figures["frees"] else None,
    }


def _lifetimes(classes: np.ndarray) -> dict:
    """Return quantiles as the upper ends of their log2 classes, and the classes themselves."""
    sums = np.cumsum(classes)
    found = {}
    if sums[-1]:
        for q in QUANTILES:
            found[f"p{q * 100:g}_below_ns"] = 2 << int(np.searchsorted(sums, q * sums[-1]))
    return {**found, "classes": {f"{1 << i}": int(n) for i, n in enumerate(classes) if n}}


def _interrupts(t: Tally) -> list[dict]:
    found: list[dict] = []
    for e, event in enumerate(sc.EVENTS):
        seen = np.flatnonzero(t.vectors[e])
        found += [{"event": event.name, "vector": int(v), "count": int(t.vectors[e, v])} for v in seen]
        if n := int(t.vectors[e].sum()):
            found.append({"event": event.name, "count": n, "mean_ns": int(t.handler_ns[e]) // n})
    return found
