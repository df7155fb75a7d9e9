"""C4: without kmem_map the whole kernel_map is there for malloc, zalloc and slab: fewer failures.

`dragonfly_nokmem` is `freebsd4` with kmem_map removed, so their difference at the same total KVA is the claim itself.

    python -m kmemexp +sweep=fragmentation
    python experiments/c4_headroom.py [results/fragmentation]
"""

import sys

import pandas as pd

import kmemexp

MIB = 1 << 20
METRICS = ["alloc_failures_count", "malloc_headroom_min_bytes", "malloc_largest_run_min_bytes"]


def verdicts(root: str) -> pd.DataFrame:
    """One row per load and KVA size: paired differences, split to unified, and what they say of the claim."""
    table = kmemexp.load(root).compare(baseline={"design": "freebsd4"}, metrics=METRICS)
    unified = table[table["design"] == "dragonfly_nokmem"]
    by = ["workload", "machine.kva_bytes"]
    wide = unified.pivot_table(index=by, columns="metric", values=["diff", "diff_low", "diff_high"], observed=True)
    wide["verdict"] = unified.groupby(by, observed=True)["verdict"].agg(_verdict)
    return wide


def _verdict(by_metric: pd.Series) -> str:
    if (by_metric == "worse").any():
        return "fails" if (by_metric != "better").all() else "mixed"
    return "holds" if (by_metric == "better").any() else "no difference shown"


def main() -> None:
    """Print the verdicts with their conditions."""
    root = sys.argv[1] if len(sys.argv) > 1 else "results/fragmentation"
    print(__doc__.splitlines()[0])
    for (workload, kva), row in verdicts(root).iterrows():
        headroom, half = (row["diff", METRICS[1]], row["diff_high", METRICS[1]] - row["diff", METRICS[1]])
        failures = row["diff", METRICS[0]]
        print(
            f"  {row['verdict', ''] or '?':20} {workload}, KVA {kva / MIB:.0f} MiB: failures {failures:+,.0f}, "
            f"least headroom of malloc {headroom / MIB:+.1f} MiB ± {half / MIB:.1f}"
        )


if __name__ == "__main__":
    main()
