"""A results folder with made-up numbers, written as a sweep would write it."""

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from small_plan import small_plan

from kmemexp.metrics import METRICS, NAMES, SERIES
from kmemexp.store import files
from kmemexp.store.schema import SCHEMAS
from kmemexp.store.store import Store

if TYPE_CHECKING:
    from kmemexp.planning.plan import Plan

MIB = 1 << 20
ADVANTAGE = {"freebsd4": 1.0, "dragonfly_2003aug25": 0.8, "dragonfly_2003oct": 0.5}

MAPS = {"layout": "split", "entries": "kmapentzone", "image_bytes": 8 * MIB, "submaps": [], "reserves": []}
CONFIG = {"machine": {"ram_bytes": 128 * MIB, "kva_bytes": 192 * MIB}, "maps": MAPS}
"""What pictures of maps need of a cell's configuration."""


def grid(designs=tuple(ADVANTAGE), workloads=("filetree", "pgbench"), kva=(192 * MIB, 512 * MIB)) -> list[dict]:
    """Axis values of each cell."""
    return [{"design": d, "workload": w, "machine.kva_bytes": k} for w in workloads for k in kva for d in designs]


def metrics_table(cells: list[dict], replicas: int = 6, failed: tuple = (), noise: float = 0.02, **values) -> pa.Table:
    """Metrics of each cell's replicas: a load that all designs of a replica share, times the design's factor and noise.

    `failed` holds (cell number, replica) pairs. `values` gives metrics outright: a function of (axes, replica).
    """
    rows = []
    for number, axes in enumerate(cells):
        for replica in range(replicas):
            lost = (number, replica) in failed
            row = {
                "cell_key": f"{number:032x}",
                "replica": replica,
                "seed": axes.get("seed", 0),
                "status": "failed" if lost else "done",
                "error": "ValueError: no memory [0a1b2c3d]" if lost else None,
                "design": axes.get("design", "freebsd4"),
                "workload": axes.get("workload", "filetree"),
                "cpus": axes.get("machine.cpus", 2),
                "ram_bytes": 128 * MIB,
                "kva_bytes": axes.get("machine.kva_bytes", 256 * MIB),
                "axes": json.dumps(axes),
                "config": json.dumps({"number": number} | CONFIG),
                "panic": None if lost else "",
                "deadlock": None if lost else "",
            }
            row |= dict.fromkeys(NAMES) if lost else _numbers(axes, replica, noise)
            row |= {} if lost else {name: float(value(axes, replica)) for name, value in values.items()}
            if row["panics_count"]:
                row["panic"] = "kmem_map too small"
            rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMAS["metrics"])


def _numbers(axes: dict, replica: int, noise: float) -> dict[str, float]:
    load = np.random.default_rng([replica, zlib.crc32(axes.get("workload", "").encode())])
    own = np.random.default_rng([replica, zlib.crc32(json.dumps(axes).encode())])
    found = {}
    for metric in METRICS:
        value = load.gamma(20, 1 / 20) * ADVANTAGE.get(axes.get("design"), 1.0) * own.normal(1, noise)
        if metric.group == "safety" or metric.name.startswith("failed_"):
            found[metric.name] = 0.0
        elif metric.name.endswith("_ratio"):
            found[metric.name] = min(0.3 * value, 0.99)
        else:
            found[metric.name] = float(round(4e7 * value))
    return found


def write(root: Path, metrics: pa.Table) -> None:
    """Commit these rows, with three samples of series, one snapshot and two caches for each lane that is done."""
    store = Store(str(root), write=True)
    staged = []
    for number, status in enumerate(("done", "failed")):
        rows = metrics.filter(pc.equal(metrics["status"], status))
        keys, replicas = rows["cell_key"].to_pylist(), rows["replica"].to_pylist()
        if not keys:
            continue
        cells: dict[str, list[int]] = {}
        for key, replica in zip(keys, replicas, strict=True):
            cells.setdefault(key, []).append(replica)
        new = files.LaneFiles(files.new_id("0123456789abcdef012" + str(number), 0, store.writer), status, cells)
        lanes = [{"cell_key": key, "replica": replica} for key, replica in zip(keys, replicas, strict=True)]
        series = [lane | {"sample": i} | dict.fromkeys(SERIES, 10 * i) for lane in lanes for i in range(3)]
        shots = [lane | {"time_ns": 5, "map": "kernel_map", "occupancy": [0, 255]} for lane in lanes]
        caches = [
            lane | {"time_ns": 5, "moment": moment, "allocator": "slub", "object_bytes": 192, "objects_count": 20,
                    "slabs_count": pages, "pages_count": pages, "requested_bytes": 3000, "granted_bytes": 3840,
                    "cache": cache}
            for lane in lanes if lane["replica"] == 0
            for moment in ("snapshot", "peak") for cache, pages in (("dentry", 3), ("kmalloc-64", 2))
        ]  # fmt: skip
        tables = {
            "metrics": rows,
            "series": pa.Table.from_pylist(series, SCHEMAS["series"]),
            "latency": SCHEMAS["latency"].empty_table(),
            "snapshots": pa.Table.from_pylist(shots, SCHEMAS["snapshots"]),
            "caches": pa.Table.from_pylist(caches, SCHEMAS["caches"]),
        }
        objects = files.connect(str(root))
        sums = {name: files.stage(objects, new.id, name, tables[name]) for name in files.tables_of(status)}
        staged.append(new._replace(sums=sums))
    store.commit(staged)
    store.close()
    store.write_text("_run.json", '{"runs": [{"sweep": "made_up"}]}\n')


def plan(root: Path, rows: pa.Table, **changes: Any) -> "Plan":
    """What a sweep that has these rows had planned."""
    cells = rows.to_pandas().drop_duplicates("cell_key")[["cell_key", "axes", "design", "workload"]]
    fields = {
        "tables": "all",
        "baseline": {"design": "freebsd4"},
        "replicas": int(rows["replica"].to_pandas().max()) + 1,
    }
    return small_plan(cells, root, **(fields | changes))
