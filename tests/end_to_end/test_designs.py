"""Every design on a small load: whole, with and without a clock, the same memory on both."""

import json

import numpy as np
import pytest

from kmemexp.boot import design as boot_design
from kmemexp.boot import timed
from kmemexp.config import files
from kmemexp.lane import latency, simulate_lanes
from kmemexp.lane.timed import advance, limit_ns
from kmemexp.metrics import INDEX
from kmemexp.planning.plan import plan_from
from kmemexp.sim.tables import obj, tally
from kmemexp.workload import build

DESIGNS = sorted(path.stem for path in (files.conf_dir() / "design").glob("*.yaml"))
SMALL = [
    "workload=server2003", "workload.scale=0.3", "machine=i386_512m", "machine.cpus=4", "sample.points=4",
    "sample.snapshots=1", "workload.phases=[{name: up, seconds: 40, level: 1}, {name: down, seconds: 20, level: 0.1}]",
]  # fmt: skip
CLOCKED_DESIGNS = [  # one for each allocator and arena that the engine's own tests do not have
    "dragonfly_2021", "dragonfly_2005", "dragonfly_2020", "mail2003",
    "freebsd5_uma", "freebsd15", "illumos", "linux_slub",
]  # fmt: skip
SAME = (
    "steps_count", "held_peak_bytes", "held_end_bytes", "granted_total_bytes", "map_operations_count",
    "map_external_frag_ratio", "map_holes_count", "map_high_water_bytes", "alloc_failures_count", "ipis_count",
)  # fmt: skip
CLOCKED = ["cost=haswell2015", "interrupts/sources=none", "interrupts=ithread_mp", "maps.lock=adaptive"]


def cell(*overrides: str) -> dict:
    today = {"design=freebsd15", "design=illumos_amd64"} & {*overrides}
    small = [word.replace("i386_512m", "amd64_4g") for word in SMALL] if today else SMALL
    (plan,) = plan_from([*small, *overrides])
    return json.loads(plan.cells["config"].iloc[0])


@pytest.mark.parametrize("design", DESIGNS)
def test_a_design_serves_a_small_server_without_a_clock(design):
    first, second = (simulate_lanes(cell(f"design={design}"), [0])[0] for _ in range(2))
    value = {name: first.metrics[i] for name, i in INDEX.items()}
    assert np.array_equal(first.metrics, second.metrics, equal_nan=True)
    assert (value["alloc_failures_count"], value["panics_count"]) == (0, 0)
    assert value["operations_count"] > 10_000
    assert 0 < value["requested_peak_bytes"] < value["held_peak_bytes"]
    assert 0 < value["total_frag_mean_ratio"] < 1
    assert 0 <= value["internal_frag_ratio"] < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("design", CLOCKED_DESIGNS)
def test_where_nothing_costs_anything_the_clock_changes_nothing(design):
    """Steps, addresses' high water, memory and map are those of the driver without a clock."""
    overrides = [f"design={design}", "machine.threads=1", "interrupts/sources=none"]
    plain, clocked = (simulate_lanes(cell(*overrides, f"cost={c}"), [0])[0].metrics for c in ("none", "zero"))
    for name in SAME:
        assert plain[INDEX[name]] == clocked[INDEX[name]], name


@pytest.mark.slow
@pytest.mark.parametrize("design", CLOCKED_DESIGNS)
def test_with_a_clock_no_object_overlaps_another_and_all_are_served(design):
    c = cell(f"design={design}", *CLOCKED)
    load = build.build(c["workload"], cpus=4, seed=c["seed"], replicas=[0])
    t = timed.boot(c, load.kinds, load.streams[0], 0)
    t = advance(t, limit_ns(c, load.streams[0]))
    counters, objects = t.world.counters, t.world.objects
    live = objects[objects[:, obj.ADDR] >= 0]
    live = live[np.argsort(live[:, obj.ADDR])]
    assert (live[:-1, obj.ADDR] + live[:-1, obj.SIZE] <= live[1:, obj.ADDR]).all()
    assert counters[tally.FAILURES] == counters[tally.PANICS] == 0
    assert len(live) == counters[tally.ALLOCS] - counters[tally.FREES]
    code = boot_design.design(boot_design.allocator_names(c["objects"]), c["maps"]["arena"])
    pages = sum(m.census(t.world[k])["pages"] for k, m in enumerate(code.servers[: len(code.names)]))
    assert pages * 4096 == counters[tally.HELD]
    assert latency.metrics(t)["deadlocks_count"] == 0
