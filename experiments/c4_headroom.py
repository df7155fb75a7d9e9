"""C4: without kmem_map the whole kernel_map is there for malloc, zalloc and slab: fewer failures.

`dragonfly_nokmem` is `freebsd4` with kmem_map removed, so their difference at the same total KVA is the claim itself.

    python -m kmemexp +sweep=fragmentation
    python experiments/c4_headroom.py [results/fragmentation]
"""

import sys

import pandas as pd

import kmemexp

MIB = 1 << 20
METRICS = ("alloc_failures_count", "malloc_headroom_min_bytes")


def verdicts(root: str) -> pd.DataFrame:
    """One row per load and KVA size: paired differences, unified less split, and what they say of the claim."""
    table = kmemexp.load(root).compare(baseline={"design": "freebsd4"}, metrics=list(METRICS))
    rows = []
    unified = table[table["design"] == "dragonfly_nokmem"]
    for (workload, kva_bytes), group in unified.groupby(["workload", "machine.kva_bytes"], observed=True):
        by_metric = group.set_index("metric")
        headroom = by_metric.loc["malloc_headroom_min_bytes"]
        rows.append(
            {
                "workload": workload,
                "kva_mib": kva_bytes / MIB,
                "failures": by_metric.loc["alloc_failures_count", "diff"],
                "headroom_mib": headroom["diff"] / MIB,
                "half_width_mib": (headroom["diff_high"] - headroom["diff"]) / MIB,
                "verdict": _verdict(by_metric["verdict"]),
            }
        )
    return pd.DataFrame(rows)


def _verdict(by_metric: pd.Series) -> str:
    """More room is the claim's ground and fewer failures its consequence: the claim needs neither worse, one better."""
    failures, room = (by_metric[name] for name in METRICS)
    if "worse" in (failures, room):
        return "fails" if "better" not in (failures, room) else "holds in part"
    if failures == "better":
        return "holds"
    return "more room, no fewer failures" if room == "better" else "no difference shown"


def main() -> None:
    """Print the verdicts with their conditions."""
    root = sys.argv[1] if len(sys.argv) > 1 else "results/fragmentation"
    print(__doc__.splitlines()[0])
    for row in verdicts(root).itertuples():
        print(
            f"  {row.verdict:28} {row.workload}, KVA {row.kva_mib:.0f} MiB: failures {row.failures:+,.0f}, "
            f"least headroom of malloc {row.headroom_mib:+.1f} MiB ± {row.half_width_mib:.1f}"
        )


if __name__ == "__main__":
    main()
