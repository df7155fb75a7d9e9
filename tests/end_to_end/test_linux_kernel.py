"""Figures of a running Linux kernel: slab layouts, and the size classes of all its kmalloc() calls."""

from pathlib import Path

import numpy as np
import pytest

from kmemexp.sim.allocators import slub
from kmemexp.sim.allocators.slub import layout
from kmemexp.sim.allocators.slub import slabs as u
from kmemexp.sim.items import Item
from kmemexp.sim.slots import PAGE
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces.reading import Reader

TRACES = ["compile", "filetree", "pgbench"]
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
