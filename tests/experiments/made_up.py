"""Results of sweeps with made-up numbers: 0 for every metric unless the test says otherwise."""

import json
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pyarrow as pa

from kmemexp.metrics import NAMES
from kmemexp.report.results import Results
from kmemexp.store.schema import SCHEMAS

MIB = 1 << 20


def results(cells: Iterable[Mapping], replicas: int, values: Callable[[Mapping, int], Mapping]) -> Results:
    """Results with a row per cell and replica; `values(axes, replica)` gives the metrics that are not 0."""
    rows = []
    for number, axes in enumerate(cells):
        for replica in range(replicas):
            row = {
                "cell_key": f"{number:032x}", "replica": replica, "seed": 0, "status": "done", "error": None,
                "design": axes.get("design", "freebsd4"), "workload": axes.get("workload", "filetree"),
                "cpus": axes.get("machine.cpus", 2), "ram_bytes": 128 * MIB,
                "kva_bytes": axes.get("machine.kva_bytes", 256 * MIB), "axes": json.dumps(axes), "config": "{}",
                "panic": "", "deadlock": "",
            }  # fmt: skip
            rows.append(row | dict.fromkeys(NAMES, 0.0) | dict(values(axes, replica)))
    return Results.from_tables(pa.Table.from_pylist(rows, SCHEMAS["metrics"]))


def noise(axes: Mapping, replica: int) -> float:
    """A little noise of its own for each cell and replica."""
    seed = [replica, *json.dumps(axes, sort_keys=True).encode()]
    return float(np.random.default_rng(seed).normal())


def scenarios(**metrics: Mapping[str, float]) -> Results:
    """Results of the sweep history: nothing happens unless `metrics` says so, by scenario."""
    names = (
        "entry_recursion", "free_unmaps", "free_unmaps_fixed", "interrupted_holder", "interrupted_holder_fixed",
        "interrupted_holder_kmem_map", "oversize_fast", "oversize_fast_fixed", "pageout_circle", "sleeping_holder",
        "sleeping_holder_fixed",
    )  # fmt: skip
    return results([{"scenario": name} for name in names], 1, lambda axes, _: metrics.get(axes["scenario"], {}))


def words(report, start: str = "") -> list[str]:
    """Verdicts of a report whose conditions begin with a text."""
    return [v.verdict for v in report.verdicts if v.where.startswith(start)]
