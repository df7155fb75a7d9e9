"""Real kernel traces through the real driver: bytes and pages agree with figures counted by an independent program."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmemexp.boot.machine import Machine, boot
from kmemexp.config import files
from kmemexp.lane import model, replayed, simulate_lanes
from kmemexp.metrics import INDEX
from kmemexp.planning.plan import plan_from
from kmemexp.sim import sizing
from kmemexp.sim.tables import tally
from kmemexp.workload import roles
from kmemexp.workload.traces import library

TRACES = ["compile", "filetree", "pgbench"]
ROOMY = {"ram_bytes": 256 << 20, "kva_bytes": 2 << 30, "cpus": 2, "domains": 1}


def play(path: Path, allocator: str) -> tuple[model.Lane, Machine]:
    """Serve every object of a trace by one allocator in a KVA that has room for all."""
    trace = library.load(str(path))
    config = {
        "maps": {
            "layout": "unified",
            "arena": "vm_map",
            "entries": "kmapentzone",
            "image_bytes": 8 << 20,
            "submaps": sizing.SUBMAPS,
            "reserves": sizing.RESERVES,
            "reclaim": False,
            "params": {},
        },
        "objects": {"malloc": allocator, "zone": allocator, "mbuf": allocator, "kinds": {}, "params": {}},
        "machine": ROOMY,
    }
    table = yaml.safe_load((files.conf_dir() / "roles" / "bsd2003.yaml").read_text())
    machine = boot(config, roles.cast(trace.kinds, table), trace.stream.slots)
    return replayed.play(machine, trace.stream, model.Sampling(points=50, snapshots=2, bins=64), replica=0), machine


def figures(folder: Path, name: str, allocator: str) -> tuple[dict[str, float], Machine, dict[str, Any]]:
    """Metrics of a trace served by one allocator, the machine at its end, and what was counted in the trace."""
    result, machine = play(folder / f"{name}.txt.zst", allocator)
    value = dict(zip(INDEX, result.metrics.tolist(), strict=True))
    assert value["alloc_failures_count"] == 0
    return value, machine, json.loads((folder / f"{name}.expected.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACES[:2])
def test_buckets_hold_exactly_the_pages_and_bytes_that_were_counted(shared_traces: Path, name: str) -> None:
    value, machine, want = figures(shared_traces, name, "buckets")
    assert value["held_end_bytes"] == want["buckets_pages_end"] * 4096
    assert value["held_peak_bytes"] == want["buckets_pages_peak"] * 4096
    assert value["granted_total_bytes"] == want["pow2_alloc"]
    assert value["requested_total_bytes"] == want["bytes_req"]
    assert value["requested_peak_bytes"] == want["peak"]["req"]
    counters = machine.world.counters
    assert counters[tally.REQUESTED] == want["live_at_end"]["req"]
    assert counters[tally.GRANTED] == want["live_at_end"]["pow2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACES[:2])
def test_dragonfly_slab_grants_exactly_the_bytes_that_were_counted(shared_traces: Path, name: str) -> None:
    value, machine, want = figures(shared_traces, name, "dfly_slab")
    assert value["granted_total_bytes"] == want["dfly_alloc"]
    assert machine.world.counters[tally.GRANTED] == want["live_at_end"]["dfly"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACES)
def test_linux_grants_exactly_the_bytes_that_the_kernel_granted(shared_traces: Path, name: str) -> None:
    """Of all caches, and of all types of kmalloc(): the sum of bytes_alloc in the recording."""
    recording = name if name in library.names() else shared_traces / f"{name}.txt.zst"
    machine = ["machine=i386_512m", "machine.cpus=2", "sample.snapshots=1"]
    (plan,) = plan_from(
        ["design=linux_6_18", "workload=trace", f"workload.path={recording}", "workload.stream=recorded", *machine]
    )
    (lane,) = simulate_lanes(json.loads(plan.cells["config"].iloc[0]), [0])
    value = dict(zip(INDEX, lane.metrics.tolist(), strict=True))
    want = json.loads((shared_traces / f"{name}.expected.json").read_text())
    assert value["granted_total_bytes"] == want["bytes_alloc"]
    assert value["requested_total_bytes"] == want["bytes_req"]
    assert value["internal_frag_ratio"] < 0.02
