"""Worked examples of linux_today.md that are about caches and their counts: T1, T11, T17 to T20."""

import numpy as np
import pytest

from kmemexp.jit import entry
from kmemexp.sim.allocators.slub import layout
from kmemexp.sim.arenas import linux_mm
from kmemexp.sim.arenas.linux_mm import gate, state
from kmemexp.sim.items import ACCOUNT, HWALIGN, RECLAIM, Item, Traits
from kmemexp.sim.slots import PAGE
from kmemexp.workload.lives import counting

T1 = [  # caches that are one, in the order of their making: name, bytes, flags, alignment
    (("pid", 176, HWALIGN | ACCOUNT, 0), ("cred", 184, HWALIGN | ACCOUNT, 0)),
    (("anon_vma_chain", 64, ACCOUNT, 0), ("eventpoll_pwq", 64, ACCOUNT, 0), ("fs_cache", 64, HWALIGN | ACCOUNT, 0)),
    (("pool_workqueue", 512, 0, 256), ("mem_cgroup_per_node", 512, HWALIGN, 0), ("sgpool-16", 512, HWALIGN, 0),
     ("skbuff_fclone_cache", 512, HWALIGN, 0)),
    (("key_jar", 256, HWALIGN, 0), ("biovec-16", 256, HWALIGN, 0), ("sgpool-8", 256, HWALIGN, 0)),
    (("iommu_iova_magazine", 1024, 0, 0), ("biovec-64", 1024, HWALIGN, 0), ("sgpool-32", 1024, HWALIGN, 0)),
    (("biovec-max", 4096, HWALIGN, 0), ("sgpool-128", 4096, HWALIGN, 0)),
    (("buffer_head", 104, RECLAIM | ACCOUNT, 0), ("ext4_fc_dentry_update", 104, RECLAIM | ACCOUNT, 0)),
    (("signal_cache", 1152, HWALIGN | ACCOUNT, 0), ("UNIX", 1152, HWALIGN | ACCOUNT, 0)),
]  # fmt: skip


def test_caches_that_a_kernel_has_merged_are_merged_and_the_groups_stay_apart():
    """T1: each group is one cache, that of its first."""
    made = [(group, row) for group, rows in enumerate(T1) for row in rows]
    items = [Item(size, 1, 0, Traits(flags=flags, align=align)) for _, (_, size, flags, align) in made]
    first = {}
    for place, (group, _) in enumerate(made):
        first.setdefault(group, place)
    assert layout.merged(items) == [first[group] for group, _ in made]


def test_marks_of_each_class_of_requests():
    """T11: a zone whose marks are 14255 and 18449 pages."""
    st = linux_mm.init(linux_mm.Params(pressure=1), kva_bytes=(1 << 16) * PAGE, cpus=1, maps=2)
    st.zones[0, [state.MIN, state.LOW, state.RESERVE]] = 14255, 18449, 0
    marks = {klass: entry(gate.mark_of)(st, 0, klass) for klass in (gate.FAST, gate.NORMAL, gate.TRY, gate.ATOMIC)}
    assert marks == {gate.FAST: 18449, gate.NORMAL: 14255, gate.TRY: 14255, gate.ATOMIC: 5346}


def of_node(slabs: int, objects: int, partial: int, free: int, cpu_slabs: int = 0) -> counting.Slubs:
    """A cache as sysfs shows it: `partial` slabs on the node's list with `free` objects, `cpu_slabs` current ones."""
    each = np.zeros(slabs, np.int32)
    each[:partial] = free // partial if partial else 0
    each[: free - int(each.sum())] += 1
    cpu = np.full(slabs, -1, np.int16)
    cpu[slabs - cpu_slabs :] = np.arange(cpu_slabs)
    each[slabs - cpu_slabs :] = objects // 2  # free in a current slab, and counted as in use
    return counting.slubs(counting.Old(each, cpu), 0, max(cpu_slabs, 1), (objects, 4, 5, 0))


@pytest.mark.parametrize(
    ("slabs", "objects", "partial", "in_partial", "cpu_slabs", "active"),
    [(65, 64, 44, 1081, 2, 2425), (12021, 14, 8524, 76128, 2, 125086), (9747, 21, 0, 0, 2, 204687)],
    ids=["T17 kmalloc-64", "T18 ext4_inode_cache", "T19 dentry"],
)
def test_what_is_free_in_a_cpus_slab_counts_as_in_use(slabs, objects, partial, in_partial, cpu_slabs, active):
    """T17 to T19: the kernel sees no free object but those of slabs on a node's list."""
    st = of_node(slabs, objects, partial, partial * objects - in_partial, cpu_slabs)
    assert (st.counts[counting.ON_LIST], st.counts[counting.SLABS]) == (partial, slabs)
    assert counting.active(st) == active == in_partial + (slabs - partial) * objects


def test_what_two_cpus_may_hide_of_a_cache():
    """T20: a current slab and twelve more of each CPU, all of whose objects are free."""
    filp = layout.layout(192, 2)
    assert (filp.cpu_slabs, filp.objects) == (12, 21)
    assert 2 * (1 + filp.cpu_slabs) * filp.objects == 546
