"""One digest for each table of each cell: a change that should not change any result shows that it does not.

    python benchmarks/digest.py > before.txt     # then change the code
    python benchmarks/digest.py --against before.txt

Every built-in design on three loads, without and with a clock; policies and protections on a few of them; a scenario.
A line is the cell's key, the digests of its metrics, series, latency and snapshots, and what it was. NumPy may sum in
another order on another machine, so compare digests of one machine only. `--few` takes the first cells of each group.
"""

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import kmemexp

SMALL = ["sample.points=24", "sample.snapshots=2", "sample.bins=64", "cluster=serial"]
LOADS = (
    ["workload=filetree"],
    ["workload=server2003", "workload.scale=0.2"],
    ["workload=server_peak", "workload.scale=0.05"],
)
COSTS = ("none", "opteron2003")
DEVICES = ["interrupts/sources=stress", "interrupts.rate_hz=1000"]
POLICIES = ("two_ended", "fullest_slab", "nofree_region", "run_floor", "vmem_first_fit", "trim")
PROTECTIONS = ("zone", "percpu", "grace", "refcount")
OWN = ("cell_key", "replica", "axes", "design", "workload")
"""Columns that are no result."""


def cells(few: bool) -> Iterator[list[str]]:
    """Overrides of every cell."""
    designs = list(kmemexp.designs()["design"])[: 2 if few else None]
    loads = LOADS[1:2] if few else LOADS
    for design, load, cost in itertools.product(designs, loads, COSTS):
        timed = ["machine.cpus=4", *DEVICES] if cost != "none" else ["machine.cpus=2"]
        yield [f"design={design}", *load, f"cost={cost}", *timed]
    for policy, cost in itertools.product(POLICIES[: 1 if few else None], COSTS):
        yield ["design=mail2003_bare", f"policy={policy}", *LOADS[1], f"cost={cost}", "machine.cpus=4"]
    if few:
        return
    for cost in COSTS:
        yield ["design=illumos", "policy=consolidator", *LOADS[1], f"cost={cost}", "machine.cpus=4"]
    for protection, cost in itertools.product(PROTECTIONS, COSTS):
        yield ["design=mail2003_bare", f"stability={protection}", "stability.kind=tcpcb", *LOADS[2], f"cost={cost}"]
    yield ["design=freebsd4_unified", "scenario=interrupted_holder"]
    yield ["design=mail2003_bare", "workload=kernel_loop", "cost=bigxeon2018", "machine.cpus=8"]
    yield ["design=freebsd5_uma", "workload=pgbench", "workload.interrupts=true", "cost=opteron2003", "machine.cpus=4"]


def digest(table: pd.DataFrame) -> str:
    """First digits of the SHA-256 of a table's values, bit for bit, with the names of its columns."""
    total = hashlib.sha256()
    for name, column in table.items():
        total.update(str(name).encode())
        if column.dtype.kind in "fiub":
            total.update(column.to_numpy().tobytes())
        else:
            total.update(json.dumps([v.tolist() if hasattr(v, "tolist") else v for v in column], default=str).encode())
    return total.hexdigest()[:12]


def line(overrides: list[str]) -> str:
    """Simulate a cell and sum it up."""
    found = kmemexp.simulate([*overrides, *SMALL])
    metrics = found.metrics
    tables = (metrics.select_dtypes("number"), found.series, found.latency, found.snapshots)
    kept = [table.drop(columns=[c for c in OWN if c in table]) for table in tables]
    return " ".join([metrics["cell_key"].iloc[0][:12], *map(digest, kept), *overrides])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="lines to compare with; exit code 2 where one differs")
    parser.add_argument("--few", action="store_true")
    args = parser.parse_args()
    # Not by its key: an edit changes that, unless it is known to change nothing (same_model.py).
    known = {text.partition(" ")[2] for text in args.against.read_text().splitlines()} if args.against else set()
    changed = 0
    for overrides in cells(args.few):
        said = line(overrides)
        new = bool(known) and said.partition(" ")[2] not in known
        changed += new
        print(f"{'CHANGED ' if new else ''}{said}", flush=True)
    if known:
        print(f"{changed} cells changed" if changed else "all equal", file=sys.stderr)
    sys.exit(2 if changed else 0)


if __name__ == "__main__":
    main()
