"""How fast the results folder is: staging, committing, reopening, reading, compacting; and planning batches.

python benchmarks/bench_store.py [--lanes 20000] [--per-file 20] [--few]
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from kmemexp.lane.model import Lane
from kmemexp.metrics import NAMES, SERIES
from kmemexp.store.schema import SCHEMAS
from kmemexp.store.store import Store
from kmemexp.sweep import worker
from kmemexp.sweep.batches import Target, make_batches

POINTS, SNAPSHOTS, BINS = 96, 8, 256
REPLICAS = 10

RNG = np.random.default_rng(1)
METRICS = RNG.random(len(NAMES))
SAMPLES = np.cumsum(RNG.integers(0, 1 << 16, (POINTS, len(SERIES))), axis=0)
PICTURES = [(i, "kernel_map", RNG.integers(0, 256, BINS, np.uint8)) for i in range(SNAPSHOTS)]
LATENCIES = tuple((f"wait_{i}", 1000, *RNG.random(5).tolist()) for i in range(20))


def simulate(config: dict, replicas: tuple[int, ...]) -> list[Lane]:
    """Lanes of the usual size, full of noise."""
    noise = [RNG.integers(0, 1 << 10, SAMPLES.shape) for _ in replicas]
    return [Lane(r, METRICS, "", SAMPLES + n, PICTURES, LATENCIES) for r, n in zip(replicas, noise, strict=True)]


@contextmanager
def timed(what: str, count: int) -> Iterator[None]:
    started, worked = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    print(f"{what:34} {seconds:8.3f} s {cpu:8.3f} CPU-s {count / cpu:12,.0f} per CPU-s")


def measure(lanes: int, per_file: int) -> None:
    count = lanes // REPLICAS
    config = json.dumps({"seed": 0, "filler": "x" * 800})
    cells = pd.DataFrame({"cell_key": [f"{n:032x}" for n in range(count)]}).assign(
        config=config, axes="{}", design="d", workload="w", cpus=2, ram_bytes=1 << 27, kva_bytes=1 << 28,
        stream_key=[f"s{n // 3}" for n in range(count)], est_ops=5_000_000 // per_file, timed=False,
    )  # fmt: skip
    sys.modules["bench_store"] = sys.modules["__main__"]
    with timed("make batches", lanes):
        batches = list(make_batches(cells, range(REPLICAS), (), target_seconds=1.0, simulate="bench_store:simulate"))
    with tempfile.TemporaryDirectory() as folder:
        root = str(Path(folder) / "results")
        store = Store(root, write=True)
        with timed(f"stage {len(batches)} batches", len(batches)):
            results = [worker.run_batch(batch, Target(root, store.writer)) for batch in batches]
        assert not any(result.errors for result in results), results[0].errors
        with timed("commit, one manifest per batch", len(batches)):
            for result in results:
                store.commit(result.staged)
        with timed("open for reading and done()", lanes):
            assert len(Store(root).done()) == lanes
        with timed("open for writing", lanes):
            store = Store(root, write=True)
        for table in SCHEMAS:
            with timed(f"read {table}", lanes):
                store.read(table)
        with timed("pd.read_parquet", lanes):
            pd.read_parquet(root)
        with timed("compact", lanes):
            store.compact()
        for table in SCHEMAS:
            with timed(f"read {table}, compacted", lanes):
                store.read(table)
        size = sum(path.stat().st_size for path in Path(root).rglob("*.parquet"))
        print(f"{size / lanes:,.0f} bytes per lane, compacted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=20_000)
    parser.add_argument("--per-file", type=int, default=20)
    parser.add_argument("--few", action="store_true", help="the smallest size: whether it runs, not how fast")
    args = parser.parse_args()
    measure(*((100, 20) if args.few else (args.lanes, args.per_file)))


if __name__ == "__main__":
    main()
