"""Front door of the workload: what the rest of the program calls. Cheap to import: no compiled code, no trace."""

from collections.abc import Mapping, Sequence
from typing import Any

from kmemexp.workload import phases
from kmemexp.workload.stream import Load


def build(workload: Mapping[str, Any], *, cpus: int, seed: int, replicas: Sequence[int]) -> Load:
    """Build the kinds and one stream per replica of a workload that has passed `check`.

    A replica's stream depends on the workload, the seed, the replica and the number of CPUs, and on nothing else; of
    its columns only `cpu` depends on the number of CPUs.
    """
    if workload["source"] == "trace":
        from kmemexp.workload import overlay  # noqa: PLC0415

        return overlay.build(workload, cpus=cpus, seed=seed, replicas=replicas)
    from kmemexp.workload import synthetic  # noqa: PLC0415

    return synthetic.build(workload, cpus=cpus, seed=seed, replicas=replicas)


def estimate(workload: Mapping[str, Any]) -> int:
    """Compute the expected number of operations of one lane, without building it.

    A trace's operations count as spread evenly over it, and its copies as shifted by half of `shift_s`; deaths that are
    only likely count whole, and a lost free that one replaces too.
    """
    if workload["source"] == "synthetic":
        return phases.expected_operations(workload)
    from kmemexp.workload.traces import library  # noqa: PLC0415

    trace = library.describe(workload["trace"])
    added = trace.get("added", {})
    ops = trace["ops"]
    if workload.get("stream", "recorded") != "recorded":
        ops += sum(added.get(op, 0) for op in ("imputed_free", "added_alloc", "added_free"))
    if workload.get("start", "empty") != "empty":
        ops += sum(added.get(op, 0) for op in ("old_alloc", "old_free"))
    total = 0.0
    for copy in range(workload["copies"]):
        shift_s = workload["shift_s"] / 2 if copy > 0 else 0.0
        total += ops * _share(workload["window_s"], shift_s, trace["seconds"])
    return round(total)


def _share(window_s: float, shift_s: float, seconds: float) -> float:
    """Share of a copy that lies inside the window (0: no window)."""
    if window_s <= 0 or seconds <= 0:
        return 1.0
    return min(1.0, max(0.0, (window_s - shift_s) / seconds))
