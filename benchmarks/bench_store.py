"""How fast the results folder is: staging, committing, reopening, reading, compacting; and planning batches.

python benchmarks/bench_store.py [lanes] [lanes per part]
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kmemexp.metrics import NAMES, SERIES
from kmemexp.store.store import Store
from kmemexp.sweep import worker
from kmemexp.sweep.batches import make_batches

POINTS, SNAPSHOTS, BINS = 96, 8, 256
REPLICAS = 10


RNG = np.random.default_rng(1)
METRICS = RNG.random(len(NAMES))
SAMPLES = np.cumsum(RNG.integers(0, 1 << 16, (POINTS, len(SERIES))), axis=0)
PICTURES = [(i, "kernel_map", RNG.integers(0, 256, BINS, np.uint8)) for i in range(SNAPSHOTS)]


class Lane(NamedTuple):
    """A lane of the usual size, full of noise."""

    replica: int
    metrics: np.ndarray = METRICS
    panic: str = ""
    series: np.ndarray = SAMPLES
    snapshots: list = PICTURES


def simulate(config: dict, replicas: tuple[int, ...]) -> list[Lane]:
    return [Lane(replica, series=SAMPLES + RNG.integers(0, 1 << 10, SAMPLES.shape)) for replica in replicas]


@contextmanager
def timed(what: str, count: int) -> Iterator[None]:
    started, worked = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    print(f"{what:34} {seconds:8.3f} s {cpu:8.3f} CPU-s {count / cpu:12,.0f} per CPU-s")


def main(lanes: int, per_part: int) -> None:
    count = lanes // REPLICAS
    config = json.dumps({"seed": 0, "filler": "x" * 800})
    cells = pd.DataFrame({"cell_key": [f"{n:032x}" for n in range(count)]}).assign(
        config=config, axes="{}", design="d", workload="w", cpus=2, ram_bytes=1 << 27, kva_bytes=1 << 28,
        stream_key=[f"s{n // 3}" for n in range(count)], est_ops=5_000_000 // per_part,
    )  # fmt: skip
    sys.modules["bench_store"] = sys.modules["__main__"]
    with timed("make batches", lanes):
        batches = make_batches(cells, range(REPLICAS), (), target_seconds=1.0, simulate="bench_store:simulate")
    with tempfile.TemporaryDirectory() as folder:
        root = str(Path(folder) / "results")
        store = Store(root, write=True)
        with timed(f"stage {len(batches)} batches", len(batches)):
            results = [worker.run_batch(batch, root) for batch in batches]
        with timed("commit, one manifest per batch", len(batches)):
            for result in results:
                store.commit(result.parts)
        with timed("open for reading and done()", lanes):
            assert len(Store(root).done()) == lanes
        with timed("open for writing", lanes):
            store = Store(root, write=True)
        for table in ("metrics", "series", "snapshots"):
            with timed(f"read {table}", lanes):
                store.read(table)
        with timed("pd.read_parquet", lanes):
            pd.read_parquet(root)
        with timed("compact", lanes):
            store.compact()
        for table in ("metrics", "series", "snapshots"):
            with timed(f"read {table}, compacted", lanes):
                store.read(table)
        size = sum(path.stat().st_size for path in Path(root).rglob("*.parquet"))
        print(f"{size / lanes:,.0f} bytes per lane, compacted")


if __name__ == "__main__":
    main(*(int(text) for text in [*sys.argv[1:], "20000", "20"][:2]))
