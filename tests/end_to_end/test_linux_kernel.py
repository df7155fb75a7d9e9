"""Figures of a running Linux kernel: slab layouts, and the size classes of all its kmalloc() calls."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmemexp.boot.machine import boot
from kmemexp.lane import simulate_lanes
from kmemexp.metrics import INDEX
from kmemexp.planning.plan import plan_from
from kmemexp.sim.allocators import slub
from kmemexp.sim.allocators.slub import layout
from kmemexp.sim.allocators.slub import slabs as u
from kmemexp.sim.items import Item
from kmemexp.sim.slots import PAGE
from kmemexp.workload import roles
from kmemexp.workload.traces import library
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.reading import Reader

TRACES = ["compile", "filetree", "pgbench"]
MORE = ["r_cc2", "r_fork", "r_frag", "r_tree2"]
CPUS = 2
HEADER_LINES = 2


def slabinfo(path: Path) -> list[tuple[str, int, int, int]]:
    """Name, bytes of an object, objects per slab and pages per slab of each cache in a copy of /proc/slabinfo."""
    lines = [line.split() for line in path.read_text().splitlines()[HEADER_LINES:]]
    return [(words[0], int(words[3]), int(words[4]), int(words[5])) for words in lines]


@pytest.mark.parametrize("name", TRACES)
def test_all_caches_have_the_slabs_that_the_kernel_gave_them(shared_traces: Path, name: str) -> None:
    caches = slabinfo(shared_traces / f"{name}.after.slabinfo")
    assert len(caches) > 200
    found = []
    for cache, size, _, _ in caches:
        plan = layout.layout(layout.cache_size(size), CPUS)
        found.append((cache, plan.size, plan.objects, 1 << plan.order))
    assert found == caches


@pytest.mark.parametrize("name", TRACES)
def test_kmalloc_has_the_caches_that_the_kernel_has(shared_traces: Path, name: str) -> None:
    caches = slabinfo(shared_traces / f"{name}.after.slabinfo")
    sizes = {size for cache, size, _, _ in caches if cache.startswith("kmalloc-")}
    assert tuple(sorted(sizes)) == layout.KMALLOC_SIZES


def grants(st: slub.State, requested: np.ndarray) -> np.ndarray:
    """Bytes that the allocator grants, by its own table; beyond it, the smallest block of pages."""
    units = np.minimum((requested + 7) // 8, len(st.cache_of) - 1)
    orders = np.ceil(np.log2(np.maximum(requested, 1) / PAGE)).astype(np.int64)
    small = st.cache[st.cache_of[units], u.K_SIZE]
    return np.where(requested > layout.KMALLOC_SIZES[-1], PAGE << np.maximum(orders, 0), small)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACES)
def test_every_kmalloc_of_a_trace_was_granted_what_the_model_grants(shared_traces: Path, name: str) -> None:
    st = slub.init(slub.Params(), kva_bytes=1 << 20, cpus=CPUS, map_number=0, items=[Item(64, 1, 0)], bases=[-1])
    reader = Reader(shared_traces / f"{name}.txt.zst")
    calls = 0
    for rows in reader.batches():
        kmalloc = (rows.op == sc.ALLOC) & (rows.cache == reader.names.index(sc.KMALLOC))
        requested, granted = rows.requested[kmalloc], rows.allocated[kmalloc]
        assert np.array_equal(grants(st, requested), granted)
        calls += len(requested)
    assert calls > 10_000


def configuration(path: Path) -> dict[str, Any]:
    given = ["design=linux_6_18", "workload=trace", f"workload.path={path}", "workload.stream=recorded"]
    (plan,) = plan_from([*given, "machine=i386_512m", "machine.cpus=2", "sample.snapshots=1"])
    found: dict[str, Any] = json.loads(plan.cells["config"].iloc[0])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_what_is_granted_is_the_sum_of_bytes_alloc_of_all_caches(shared_traces: Path, name: str) -> None:
    """Of the other recordings `test_real_traces.py` says it, against a sum that another program has made."""
    path = shared_traces / f"{name}.txt.zst"
    granted = requested = 0
    for rows in Reader(path).batches():
        born = rows.op == sc.ALLOC
        granted += int(rows.allocated[born].sum())
        requested += int(rows.requested[born].sum())
    (lane,) = simulate_lanes(configuration(path), [0])
    assert lane.metrics[INDEX["alloc_failures_count"]] == 0
    assert lane.metrics[INDEX["granted_total_bytes"]] == granted > requested
    assert lane.metrics[INDEX["requested_total_bytes"]] == requested


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TRACES, *MORE])
def test_the_sizes_of_a_load_give_the_slabs_of_the_kernel(shared_traces: Path, name: str) -> None:
    """Bytes, objects and pages of a slab of each cache that a recording names are what slabinfo says of it."""
    path = shared_traces / f"{name}.txt.zst"
    config, trace = configuration(path), library.load(str(path))
    kinds = roles.cast(trace.kinds, config["roles"])
    world = boot(config, kinds, 1).world
    known = {cache: tuple(rest) for cache, *rest in slabinfo(shared_traces / f"{name}.after.slabinfo")}
    found = {}
    for kind, cache in enumerate(kinds.names):
        if cache in known:
            row = world.state_a.cache[world.state_a.item_cache[world.item[kind]]]
            found[cache] = (int(row[u.K_SIZE]), int(row[u.K_OBJECTS]), 1 << int(row[u.K_ORDER]))
    assert len(found) > 20
    assert found == {cache: known[cache] for cache in found}
