"""Shrinkers: how much they scan, whom they free, and what is there before the load begins."""

import numpy as np
import pytest
from small_cell import cell

from kmemexp.boot.machine import boot
from kmemexp.lane import filling, shrinking
from kmemexp.sim.tables import obj, tally
from kmemexp.workload import build, pages
from kmemexp.workload.stream import ANON, FILE, OP_ALLOC, OP_FREE, Kinds, Load, Stream

MIB = 1 << 20


def rounds(freeable, priorities, batch=1024):
    """Objects scanned and deferred in each round, nothing of what is scanned being freed (as in T13)."""
    scanned, deferred, left = [], [], 0
    for priority in priorities:
        batches, left = shrinking.do_shrink_slab(freeable, left, priority, batch)
        scanned.append(sum(batches))
        deferred.append(left)
    return scanned, deferred


def test_a_superblock_scans_in_batches_and_defers_the_rest():
    """T13 of linux_today.md."""
    assert rounds(24_000, (12, 12, 10, 8, 6, 4, 2)) == (
        [0, 0, 0, 0, 0, 2048, 12288],
        [10, 20, 66, 252, 1002, 1954, 1666],
    )
    assert [rounds(200_000, (p,))[0] for p in (8, 6, 4)] == [[1024], [6144], [24576]]
    assert rounds(500, (0,))[0] == [1000]
    assert rounds(0, (0,)) == ([0], [0])


def ops(*rows):
    """A stream of (operation, kind, slot)."""
    op, kind, slot = (np.array(column) for column in zip(*rows, strict=True))
    n = len(rows)
    zeros = np.zeros(n, np.int32)
    return Stream(
        np.arange(n), op.astype(np.uint8), kind.astype(np.int16), slot.astype(np.int32), zeros,
        zeros.astype(np.int16), zeros.astype(np.uint8), int(slot.max()) + 1,
    )  # fmt: skip


A, F = OP_ALLOC, OP_FREE
PROGRAM = ((A, 0, 0), (A, 1, 1), (A, 0, 2), (F, 0, 0), (A, 0, 0), (A, 1, 3), (F, 0, 2), (F, 0, 0))


def test_objects_are_listed_by_age_with_their_ends():
    listed = shrinking.listed_objects(ops(*PROGRAM), 0, np.random.default_rng(0), 0.0)
    assert listed.born.tolist() == [0, 2, 4]
    assert listed.dies.tolist() == [3, 6, 7]
    assert listed.slot.tolist() == [0, 2, 0]
    ever = shrinking.listed_objects(ops(*PROGRAM), 1, np.random.default_rng(0), 0.0)
    assert ever.dies.tolist() == [shrinking.NEVER] * 2
    assert not len(shrinking.listed_objects(ops(*PROGRAM), 1, np.random.default_rng(0), 1.0).born)


def test_the_oldest_go_first_and_all_kinds_in_proportion():
    many = [(A, 0, i) for i in range(3000)] + [(A, 1, 3000 + i) for i in range(1000)]
    stream = ops(*many)
    rng = np.random.default_rng(0)
    lists = [shrinking.listed_objects(stream, k, rng, 0.0) for k in (0, 1)]
    shrinker = shrinking.Shrinker("superblock", lists)
    objects = np.zeros((4000, obj.COLUMNS), np.int64)
    objects[5, obj.ADDR] = obj.ABSENT  # its allocation failed
    due = [0] * 13
    due[1] = 1
    (first, old), (second, young) = shrinker.shrink(objects, 4000, due)
    # delta = 3999 >> 1 times 2 = 3998: three batches of 1024, each by shares and one more of each kind.
    assert (first, second) == (0, 1)
    assert old.tolist() == [i for i in range(len(old) + 1) if i != 5]
    assert young.tolist() == [3000 + i for i in range(len(young))]
    assert 3 * 1024 <= len(old) + len(young) <= 3 * 1026
    assert len(old) / len(young) == pytest.approx(3, rel=0.02)
    objects[old, obj.ADDR] = objects[young, obj.ADDR] = obj.ABSENT
    assert shrinker.freeable(objects, 4000)[0].tolist() == list(range(old[-1] + 1, 3000))


@pytest.mark.parametrize(("name", "theirs"), [("superblock", {1}), ("arc", {0, 1})])
def test_a_superblock_frees_what_lies_on_the_node_that_is_short_and_defers_for_each(name, theirs):
    """Even slots are on node 0, odd ones on node 1; other shrinkers are asked for all of their objects."""
    stream = ops(*((A, 0, i) for i in range(8000)))
    lists = [shrinking.listed_objects(stream, 0, np.random.default_rng(0), 0.0)]
    shrinker = shrinking.Shrinker(name, lists, shrinking.Nodes(2, 1 << 30))
    objects = np.zeros((8000, obj.COLUMNS), np.int64)
    objects[1::2, obj.ADDR] = 3 << 30  # beyond the direct map
    due = [0] * 13
    due[12] = 1
    assert shrinker.shrink(objects, 8000, due, 0) == []  # deferred: twice 4000 or 8000 >> 12
    due[12], due[2] = 0, 1
    ((kind, slots),) = shrinker.shrink(objects, 8000, due, 1)
    assert (kind, set(slots % 2)) == (0, theirs)
    freeable = 4000 if theirs == {1} else 8000
    deferred = 0 if theirs == {1} else 2 * (8000 >> 12)  # node 0's are not node 1's
    batches, _ = shrinking.do_shrink_slab(freeable, deferred, 2, shrinker.batch)
    assert len(slots) == sum(batch + 1 for batch in batches)  # super_cache_scan: one more of the kind
    assert [shrinking.Nodes(3).last_cpu(node, 8) for node in range(3)] == [2, 5, 7]


def test_what_is_asked_for_is_freed_by_the_allocator_and_counted():
    """On a machine of 2003, whose allocators know nothing of it: a shrinker is an owner that frees."""
    config = cell("unified", "buckets", "kmapentzone")
    load = build.build(config["workload"], cpus=3, seed=7, replicas=[0])
    stream = load.streams[0]
    machine = boot(config, load.kinds, stream.slots)
    due = [[[0] * 12 + [1]], [[4] * 13]]
    machine = machine._replace(rounds=lambda arena: due.pop())
    kinds = dict(config["workload"]["kinds"])
    kinds["small"] = kinds["small"] | {"shrinker": "names"}
    shrinkers = shrinking.Shrinkers(machine, stream, load.kinds, config | {"workload": {"kinds": kinds}}, 0)
    assert shrinkers
    at = stream.length // 2
    machine.replay(
        machine.world, *(c for c in (stream.op, stream.kind, stream.slot, stream.size, stream.cpu, stream.flags)), 0, at
    )
    counters = machine.world.counters
    frees, requested = counters[tally.FREES], counters[tally.REQUESTED]
    freed = shrinkers.run(at)
    assert freed == counters[tally.SHRUNK] == counters[tally.FREES] - frees > 0
    assert counters[tally.REQUESTED] < requested
    machine.replay(
        machine.world,
        *(c for c in (stream.op, stream.kind, stream.slot, stream.size, stream.cpu, stream.flags)),
        at,
        stream.length,
    )
    assert counters[tally.ALLOCS] - counters[tally.FREES] == (machine.world.objects[:, obj.ADDR] != obj.ABSENT).sum()


def test_old_pages_have_their_shares_and_lie_mixed():
    rows = {
        "heap": {"class": "anon", "fill": 0.5, "size": {"law": "fixed", "bytes": 4 * MIB}},
        "file": {"class": "file", "fill": 0.25, "size": {"law": "fixed", "bytes": MIB}},
        "new": {"class": "file", "size": {"law": "fixed", "bytes": MIB}},
    }
    kinds = Kinds(tuple(sorted(rows)), np.array([FILE, ANON, FILE], np.int8), *np.zeros((3, 3), np.int32))
    machine = {"ram_bytes": 1024 * MIB, "cpus": 4}
    stream = filling.old_pages(rows, kinds, machine, np.random.default_rng(1))
    live = dict.fromkeys(range(3), 0)
    sizes = {}
    for op, kind, slot, size in zip(stream.op, stream.kind, stream.slot, stream.size, strict=True):
        if op == OP_ALLOC:
            sizes[slot] = size
        live[int(kind)] += int(sizes[slot]) * (1 if op == OP_ALLOC else -1)
    assert live[0] == 256 * MIB
    assert live[1] == pytest.approx(512 * MIB, rel=0.1)
    assert live[2] == 0
    assert set(np.unique(stream.cpu)) == {0, 1, 2, 3}
    switches = (np.diff(stream.kind) != 0).mean()
    assert switches > 0.05  # a file of 1 MiB to some twenty pieces of 256 KiB


def test_a_machine_that_names_no_pages_is_not_asked_for_them():
    kinds = Kinds(("a", "b"), np.array([0, FILE], np.int8), *np.zeros((3, 2), np.int32))
    load = pages.without(Load(kinds, (ops(*PROGRAM),)))
    assert set(load.streams[0].kind) == {0}
    assert load.streams[0].slots == 4
