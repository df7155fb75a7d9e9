"""Linux on a machine whose memory is full: what the pages are, who gives way, and that nothing depends on how."""

import json

import numpy as np
import pytest

from kmemexp.lane import simulate_lanes
from kmemexp.metrics import INDEX, MOBILITIES
from kmemexp.planning.plan import plan_from

RAM = 256 << 20
SMALL = [
    "design=linux_6_18", "machine=amd64_4g", f"machine.ram_bytes={RAM}", "workload=server_today", "workload.scale=0.1",
    "workload.kinds.file_data.growth=1", "workload.kinds.name.start=200000", "machine.min_free_bytes=1MiB",
    "sample.points=4", "sample.snapshots=1",
    "workload.phases=[{name: up, seconds: 20, level: 1}, {name: find, seconds: 10, level: 1, groups: {names: 20}}]",
]  # fmt: skip


def lanes(*overrides: str, replicas: tuple[int, ...] = (0,)) -> list[dict[str, float]]:
    (plan,) = plan_from([*SMALL, *overrides])
    found = simulate_lanes(json.loads(plan.cells["config"].iloc[0]), replicas)
    return [{name: lane.metrics[i] for name, i in INDEX.items()} for lane in found]


def test_a_full_memory_is_shared_reclaimed_and_spoiled():
    (first, other), (again,) = lanes(replicas=(0, 1)), lanes()
    assert np.array_equal(list(first.values()), list(again.values()), equal_nan=True)
    assert first["page_cache_bytes"] != other["page_cache_bytes"]
    for value in (first, other):
        free = sum(value[f"free_{kind}_order{o}_count"] * 4096 * 2**o for kind in MOBILITIES for o in range(11))
        owners = ("user_memory_bytes", "page_cache_bytes", "kernel_pages_bytes", "held_end_bytes")
        on_cpus = RAM - free - sum(value[owner] for owner in owners)
        assert 0 <= on_cpus < RAM // 8  # pages on the CPUs' lists: pcp->high is an eighth at most
        assert value["user_memory_bytes"] > 0.3 * RAM
        assert value["block_claims_count"] + value["block_steals_count"] > 0
        assert value["reclaimed_by_kswapd_count"] > 0
        assert value["shrunk_objects_count"] > 0
        assert 0 < value["pageblocks_stuck_count"] < RAM >> 21
        assert sum(value[f"pageblocks_{kind}_count"] for kind in (*MOBILITIES, "highatomic")) == RAM >> 21


def test_two_nodes_share_it_and_only_one_has_low_zones():
    (two,) = lanes("machine.domains=2", "+maps.params.linux_mm.dma32_mib=64")
    (one,) = lanes("machine.domains=2", "+maps.params.linux_mm.by_node=0")
    assert np.isnan(one["numa_hits_count"])
    assert 0 < two["numa_misses_count"] < two["numa_hits_count"]
    for name in ("user_memory", "page_cache", "kernel_pages"):
        parts = [two[f"node{n}_{name}_bytes"] for n in range(2)]
        assert sum(parts) == two[f"{name}_bytes"]
        assert min(parts) > 0
    for order in range(11):
        whole = sum(two[f"free_{kind}_order{order}_count"] for kind in MOBILITIES)
        assert sum(two[f"node{n}_free_order{order}_count"] for n in range(2)) == whole
    assert two["user_memory_bytes"] == one["user_memory_bytes"]
    (given,) = lanes("+maps.params.linux_mm.domains=2", "+maps.params.linux_mm.dma32_mib=64")
    assert given["shrunk_objects_count"] > 0
    assert given["numa_misses_count"] > 0


@pytest.mark.slow
def test_more_that_is_kept_free_means_fewer_pageblocks_spoiled():
    (little,), (much,) = lanes(), lanes("machine.min_free_bytes=12MiB")
    assert much["block_steals_count"] <= little["block_steals_count"]
    assert much["pageblocks_mixed_count"] <= little["pageblocks_mixed_count"]
    assert much["reclaim_stalls_count"] <= little["reclaim_stalls_count"]
