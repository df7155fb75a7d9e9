"""SLUB: the kernel's tables of slab layouts, and each rule of its lists, nodes and sheaves, played by hand."""

import numpy as np
import pytest

from kmemexp.jit import entry
from kmemexp.sim import slots as s
from kmemexp.sim.allocators import slub
from kmemexp.sim.allocators._shared.slab_order import FULLEST, LOWEST, OWN
from kmemexp.sim.allocators.slub import layout, sheaves
from kmemexp.sim.allocators.slub import slabs as u
from kmemexp.sim.items import ACCOUNT, CTOR, HWALIGN, RCU, RECLAIM, Item, Traits
from kmemexp.sim.tables import flag, panics, regs
from kmemexp.validate.hand import Hand

KIB, MIB = 1 << 10, 1 << 20
KMALLOC = layout.KMALLOC_SIZES


def fresh(*items: Item, cpus: int = 2, kva_bytes: int = 64 * MIB, **params: int) -> slub.State:
    return slub.init(slub.Params(**params), kva_bytes=kva_bytes, cpus=cpus, map_number=3, items=items, bases=())


class Slub(Hand):
    """An allocator driven by hand; requests are kmalloc() unless they name an item."""

    def __init__(self, *items: Item, limit: int = 64 * MIB, **how: int) -> None:
        super().__init__(slub, fresh(*items, **how), limit=limit)

    def alloc(self, size: int, *, item: int = s.ITEM_MALLOC, **how: int) -> int:
        return super().alloc(size, item=item, **how)

    def many(self, count: int, size: int, **how: int) -> list[int]:
        return [self.alloc(size, **how) for _ in range(count)]

    @property
    def counts(self) -> dict[str, int]:
        return slub.census(self.state)


def cache(size: int) -> int:
    return KMALLOC.index(size)


# fmt: off
SIZES = [  # request, bytes that kmalloc() hands out
    (1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (32, 32), (33, 64), (64, 64), (65, 96), (96, 96), (97, 128),
    (128, 128), (129, 192), (192, 192), (193, 256), (256, 256), (257, 512), (512, 512), (513, 1024), (1024, 1024),
    (1025, 2048), (2048, 2048), (2049, 4096), (4096, 4096), (4097, 8192), (8192, 8192),
    (8193, 16 * KIB), (16 * KIB, 16 * KIB), (16 * KIB + 1, 32 * KIB), (MIB, MIB), (4 * MIB, 4 * MIB),
]
ORDERS = [  # size, then (order, objects, tail waste %, slabs of a CPU's list) with 2, 8, 64 and 256 CPUs
    (8, (0, 512, 0, 1), (0, 512, 0, 1), (0, 512, 0, 1), (0, 512, 0, 1)),
    (16, (0, 256, 0, 1), (0, 256, 0, 1), (0, 256, 0, 1), (0, 256, 0, 1)),
    (32, (0, 128, 0, 2), (0, 128, 0, 2), (0, 128, 0, 2), (0, 128, 0, 2)),
    (64, (0, 64, 0, 4), (0, 64, 0, 4), (0, 64, 0, 4), (0, 64, 0, 4)),
    (96, (0, 42, 1.56, 6), (0, 42, 1.56, 6), (0, 42, 1.56, 6), (0, 42, 1.56, 6)),
    (128, (0, 32, 0, 8), (0, 32, 0, 8), (0, 32, 0, 8), (1, 64, 0, 4)),
    (192, (0, 21, 1.56, 12), (0, 21, 1.56, 12), (1, 42, 1.56, 6), (1, 42, 1.56, 6)),
    (256, (0, 16, 0, 7), (1, 32, 0, 4), (1, 32, 0, 4), (2, 64, 0, 2)),
    (512, (1, 16, 0, 7), (2, 32, 0, 4), (2, 32, 0, 4), (3, 64, 0, 2)),
    (1024, (2, 16, 0, 3), (3, 32, 0, 2), (3, 32, 0, 2), (3, 32, 0, 2)),
    (2048, (3, 16, 0, 3), (3, 16, 0, 3), (3, 16, 0, 3), (3, 16, 0, 3)),
    (4096, (3, 8, 0, 2), (3, 8, 0, 2), (3, 8, 0, 2), (3, 8, 0, 2)),
    (8192, (3, 4, 0, 3), (3, 4, 0, 3), (3, 4, 0, 3), (3, 4, 0, 3)),
    (232, (0, 17, 3.71, 15), (1, 35, 0.88, 7), (1, 35, 0.88, 7), (2, 70, 0.88, 4)),
    (600, (1, 13, 4.79, 8), (2, 27, 1.12, 4), (3, 54, 1.12, 2), (3, 54, 1.12, 2)),
    (680, (1, 12, 0.39, 9), (2, 24, 0.39, 5), (3, 48, 0.39, 3), (3, 48, 0.39, 3)),
    (704, (2, 23, 1.17, 5), (2, 23, 1.17, 5), (3, 46, 1.17, 3), (3, 46, 1.17, 3)),
    (1176, (3, 27, 3.10, 2), (3, 27, 3.10, 2), (3, 27, 3.10, 2), (3, 27, 3.10, 2)),
    (4160, (3, 7, 11.13, 2), (3, 7, 11.13, 2), (3, 7, 11.13, 2), (3, 7, 11.13, 2)),
]
MIN_OBJECTS = [(1, 8), (2, 12), (4, 16), (8, 20), (16, 24), (32, 28), (64, 32), (128, 36), (256, 40)]
TAKEN = [(1, 2), (2, 3), (4, 4), (6, 5), (7, 5), (8, 6), (12, 8)]  # slabs of a CPU's list, taken from a node's
SHEAVES = [  # size, objects in a sheaf, its bytes
    (8, 60, 512), (64, 60, 512), (255, 60, 512), (256, 28, 256), (1023, 28, 256), (1024, 12, 128), (4095, 12, 128),
    (4096, 4, 64), (8192, 4, 64),
]
# fmt: on


@pytest.mark.parametrize(("request_bytes", "granted"), SIZES)
def test_kmalloc_grants_a_size_class_or_a_block_of_pages(request_bytes, granted):
    m = Slub()
    assert layout.kmalloc_size(request_bytes) == granted
    addr = m.alloc(request_bytes)
    assert m.granted == granted
    assert addr % min(granted & -granted, s.PAGE << layout.MAX_PAGE_ORDER) == 0
    if granted > 8192:
        assert m.map_log == [("alloc", addr, granted)]
        m.free(addr)
        assert m.map_log[1:] == [("free", addr, granted)]
        assert m.counts["pages"] == 0


def test_a_block_beyond_8_kib_is_aligned_to_its_size():
    m = Slub()
    m.alloc(1)
    assert m.alloc(8193) == 16 * KIB
    assert m.alloc(100 * KIB) == 128 * KIB


def test_kmalloc_of_more_than_4_mib_fails_without_asking():
    m = Slub()
    assert m.alloc(4 * MIB + 1) == -1
    assert m.map_log == []


def test_kmalloc_of_nothing_returns_a_pointer_that_may_be_freed():
    m = Slub()
    addr = m.alloc(0)
    assert (addr, m.granted) == (slub.ZERO_SIZE_PTR, 0)
    m.free(addr)
    assert m.map_log == []


def test_mbufs_are_kmalloc_too():
    m = Slub()
    assert m.alloc(256, item=s.ITEM_MBUF) + 256 == m.alloc(256)
    m.alloc(2049, item=s.ITEM_MBUF)
    assert m.granted == 4096


@pytest.mark.parametrize(("cpus", "column"), [(2, 1), (8, 2), (64, 3), (256, 4)])
@pytest.mark.parametrize("row", ORDERS, ids=lambda row: row[0])
def test_slab_orders_are_the_kernels(row, cpus, column):
    size, (order, objects, waste, cpu_slabs) = row[0], row[column]
    plan = layout.layout(size, cpus)
    assert plan[:3] == (size, order, objects)
    assert plan.cpu_slabs == layout.cpu_partial_slabs(size, objects) == cpu_slabs
    nbytes = s.PAGE << order
    assert round(100 * (nbytes - objects * size) / nbytes, 2) == waste
    assert plan.min_order == layout.get_order(size)


@pytest.mark.parametrize(("cpus", "column"), [(2, 1), (8, 2), (64, 3), (256, 4)])
@pytest.mark.parametrize("row", ORDERS, ids=lambda row: row[0])
def test_a_slab_has_that_order_and_so_many_objects(row, cpus, column):
    size, (order, objects, _, _) = row[0], row[column]
    m = Slub(Item(size, 1, 0), cpus=cpus)
    got = m.many(objects, size, item=0)
    assert got == [k * size for k in range(objects)]
    assert m.map_log == [("alloc", 0, s.PAGE << order)]
    m.alloc(size, item=0)
    assert m.map_log[1:] == [("alloc", s.PAGE << order, s.PAGE << order)]


def test_an_order_is_rejected_if_more_than_a_sixteenth_is_left():
    assert 16384 % 1176 == 1096 > 16384 // 16
    assert 32768 % 4160 > 32768 // 16
    assert layout.calculate_order(1176, 2) == layout.calculate_order(4160, 2) == 3


@pytest.mark.parametrize(("cpus", "objects"), MIN_OBJECTS)
def test_more_cpus_want_more_objects_in_a_slab(cpus, objects):
    assert layout.min_objects(cpus) == objects


def test_the_least_number_of_objects_is_a_parameter():
    assert layout.calculate_order(256, 2, least=64) == 2
    assert Slub(min_objects=64).state.cache[cache(256), u.K_ORDER] == 2
    assert Slub(max_order=0).state.cache[cache(512), u.K_ORDER] == 0


def test_objects_too_large_for_order_3_get_the_smallest_block():
    assert layout.layout(51488, 2)[:3] == (51488, 4, 1)
    assert layout.calculate_order(4 * MIB, 2) == 10
    with pytest.raises(ValueError, match="4 MiB"):
        fresh(Item(4 * MIB + 1, 1, 0))


def test_nodes_keep_five_slabs_and_six_of_large_objects():
    assert [layout.min_partial(size) for size in KMALLOC] == [5] * 11 + [6, 6]
    assert layout.min_partial(4 * MIB) == 10


@pytest.mark.parametrize(("cpu_slabs", "taken"), TAKEN)
def test_so_many_slabs_are_taken_from_a_node_at_once(cpu_slabs, taken):
    assert layout.taken_from_node(cpu_slabs) == taken
    size, cpus = next((row[0], cpus) for row in ORDERS for cpus, at in ((2, row[1]), (8, row[2])) if at[3] == cpu_slabs)
    m = Slub(Item(size, 1, 0), cpus=cpus + 1 if cpus == 2 else cpus)
    k = len(KMALLOC)
    objects = int(m.state.cache[k, u.K_OBJECTS])
    assert m.state.cache[k, u.K_CPU_SLABS] == cpu_slabs
    slabs = 4 * (cpu_slabs + 3)
    got = m.many(slabs * objects, size, item=0)
    for addr in got[::objects][:-1]:  # not of the current slab
        m.free(addr, cpu=1)
    before = m.counts["node_partial_slabs"]
    assert before > taken
    pages = m.counts["pages"]
    m.alloc(size, item=0, cpu=2)
    assert m.counts["node_partial_slabs"] == before - taken
    assert m.counts["pages"] == pages


@pytest.mark.parametrize(("size", "objects", "nbytes"), SHEAVES)
def test_a_sheaf_fills_a_kmalloc_bucket(size, objects, nbytes):
    assert layout.sheaf_capacity(size) == objects
    assert layout.sheaf_bytes(objects) == nbytes == layout.kmalloc_size(nbytes)


def test_a_request_makes_sheaves_larger_never_smaller():
    assert layout.sheaf_capacity(256, 10) == 28
    assert layout.sheaf_capacity(256, 29) == 60
    assert layout.sheaf_capacity(4096, 32) == 60


def test_an_idle_cache_of_256_bytes_may_hold_two_and_a_half_mib_on_64_cpus():
    m = Slub(cpus=64)
    for cpu in range(64):
        got = m.many(5 * 32, 256, cpu=cpu)  # five slabs: four are full, one is current
        for addr in got:
            m.free(addr, cpu=cpu)
    assert m.counts["pages"] * s.PAGE == 2.5 * MIB == (1 + 4) * 8 * KIB * 64
    assert (m.counts["current_slabs"], m.counts["cpu_partial_slabs"]) == (64, 256)


def test_zones_have_caches_of_their_own_in_units_of_8_bytes():
    m = Slub(Item(20, 1, 0), Item(1, 1, 0))
    assert [m.alloc(20, item=0) for _ in range(3)] == [0, 24, 48]
    assert m.granted == 24
    assert [m.alloc(1, item=1) for _ in range(2)] == [4096, 4104]
    assert m.granted == 8
    assert m.alloc(24) == 8192


def test_what_was_freed_last_is_used_first():
    m = Slub()
    got = m.many(5, 1000)
    for k in (1, 3, 0):
        m.free(got[k])
    assert m.many(4, 1000) == [got[0], got[3], got[1], got[4] + 1024]


def test_the_fast_path_is_one_step_without_a_lock():
    m = Slub()
    addr = m.many(2, 100)[1]
    assert (m.answers, m.reg[0, regs.BARE]) == ([s.DONE], 1)  # a cmpxchg: interrupts stay on
    m.free(addr)
    assert (m.answers, m.reg[0, regs.BARE]) == ([s.DONE], 1)
    m.many(40, 100)
    assert m.alloc(4096) >= 0  # a new slab
    assert (m.reg[0, regs.BARE], slub.LOCKS[0]) == (0, "irqoff")


def test_objects_freed_by_others_into_a_current_slab_wait_there_and_are_taken_at_once():
    m = Slub()
    got = m.many(8, 4096)  # all of its objects: the slab is still current
    m.free(got[2], cpu=1)
    m.free(got[5], cpu=1)
    assert m.answers == [s.DONE]
    assert (m.counts["cpu_partial_slabs"], m.counts["node_partial_slabs"], m.counts["free_objects"]) == (0, 0, 2)
    assert m.alloc(4096) == got[5]
    m.free(got[7], cpu=1)
    assert m.alloc(4096) == got[2]
    assert m.alloc(4096) == got[7]
    assert len(m.map_log) == 1


def test_a_slab_that_was_full_goes_to_the_cpu_that_frees():
    m = Slub()
    got = m.many(9, 4096)
    m.free(got[3], cpu=1)
    assert m.counts["cpu_partial_slabs"] == 1
    m.free(got[4], cpu=0)  # a second object: the slab stays where it is
    assert m.counts["cpu_partial_slabs"] == 1
    assert m.many(2, 4096, cpu=1) == [got[4], got[3]]
    assert m.counts["current_slabs"] == 2


def test_a_full_cpu_list_moves_to_the_node_as_a_whole_but_for_empty_slabs_beyond_its_least():
    m = Slub(min_partial=1)
    got = m.many(7 * 8, 4096)  # seven slabs of eight objects; a CPU's list takes two
    slabs = [got[k : k + 8] for k in range(0, 56, 8)]
    for slab in slabs[:2]:
        m.free(slab[0], cpu=1)
    assert (m.counts["cpu_partial_slabs"], m.counts["node_partial_slabs"]) == (2, 0)
    for addr in slabs[0][1:]:
        m.free(addr, cpu=1)
    m.free(slabs[2][0], cpu=1)  # slab 1 comes first and is kept, slab 0 is empty and one too many
    assert m.answers == [s.AGAIN, s.MAP_FREE, s.DONE]
    assert m.map_log[-1] == ("free", slabs[0][0], 32 * KIB)
    assert (m.counts["cpu_partial_slabs"], m.counts["node_partial_slabs"]) == (1, 1)


def test_lists_move_under_the_list_lock_of_their_cache_and_node():
    m = Slub(domains=2)
    got = m.many(4 * 8, 4096, cpu=1)
    for addr in got[:17:8]:
        m.free(addr, cpu=1)
    assert m.reg[0, regs.LOCK] == 1 << regs.LOCK_SHIFT | cache(4096) * 2 + 1
    assert slub.lock_count(m.state, 1) == slub.lock_count(m.state, 2) == 2 * len(KMALLOC)


def slabs_on_node(m: Slub, count: int) -> list[list[int]]:
    """Make `count` slabs of 4096-byte objects with two free ones each on the node's list. Returns the live objects."""
    got = m.many((count + 4) * 8, 4096)
    slabs = [got[k : k + 8] for k in range(0, 8 * count + 24, 8)]
    for slab in slabs:
        m.free(slab[0], cpu=1)
        m.free(slab[1], cpu=1)
    listed = m.counts["node_partial_slabs"]
    assert listed >= count
    return [slab[2:] for slab in slabs[:listed]]


def test_an_empty_slab_on_a_node_list_goes_back_unless_the_list_is_short():
    m = Slub(kva_bytes=64 * MIB)
    slabs = slabs_on_node(m, 8)
    freed = []
    for slab in slabs:
        before, log = m.counts["node_partial_slabs"], len(m.map_log)
        for addr in slab:
            m.free(addr, cpu=1)
        freed.append(len(m.map_log) - log)
        assert m.counts["node_partial_slabs"] == before - freed[-1]
        assert freed[-1] == (before >= 6)
    assert m.answers == [s.AGAIN, s.DONE]
    assert sum(freed) == len(slabs) - 5


def test_without_cpu_lists_slabs_go_to_the_node_at_once_and_one_is_taken():
    m = Slub(cpu_partial=0)
    got = m.many(4 * 8, 4096)
    for addr in got[:17:8]:
        m.free(addr, cpu=1)
    assert m.counts["node_partial_slabs"] == 3
    assert m.alloc(4096, cpu=1) == got[0]
    assert m.counts["node_partial_slabs"] == 2


def test_without_a_block_of_the_preferred_order_a_slab_is_as_small_as_may_be():
    m = Slub(limit=3 * s.PAGE)
    got = m.many(24, 512)
    assert got == [k * 512 for k in range(24)]
    assert [size for _, _, size in m.map_log] == [8192, 4096]
    assert m.counts["fallbacks"] == 1
    assert m.alloc(512) == -1
    assert m.reg[0, regs.PANIC] == panics.NONE
    m.free(got[20])
    assert m.alloc(512) == got[20]


def test_pages_are_asked_of_the_map_wired_and_aligned():
    state, reg = fresh(), np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, [regs.SIZE, regs.ITEM]] = 4096, s.ITEM_MALLOC
    assert slub.alloc(state, reg, 0) == s.MAP_ALLOC
    first_try = s.ATTR_WIRED | s.ATTR_TRY
    assert reg[0, [regs.MAP, regs.BYTES, regs.ALIGN, regs.ATTR]].tolist() == [3, 32 * KIB, 32 * KIB, first_try]
    reg[0, regs.BASE] = s.NO_SPACE
    assert slub.alloc(state, reg, 0) == s.MAP_ALLOC
    assert reg[0, [regs.BYTES, regs.ATTR]].tolist() == [4 * KIB, s.ATTR_WIRED]  # the least that holds an object


def test_of_two_operations_that_get_a_slab_for_one_cpu_the_later_one_sends_the_other_slab_to_the_node():
    state, reg = fresh(), np.zeros((2, regs.COLUMNS), np.int64)
    reg[:, [regs.SIZE]], reg[:, [regs.ITEM]] = 8192, s.ITEM_MALLOC
    assert [slub.alloc(state, reg, i) for i in (0, 1)] == [s.MAP_ALLOC, s.MAP_ALLOC]
    reg[:, regs.BASE] = 0, 32 * KIB
    assert [slub.alloc(state, reg, i) for i in (0, 1)] == [s.DONE, s.AGAIN]
    assert reg[1, regs.LOCK] == 1 << regs.LOCK_SHIFT | cache(8192)
    assert slub.alloc(state, reg, 1) == s.DONE
    assert reg[:, regs.ADDR].tolist() == [0, 32 * KIB]
    held = slub.census(state)
    assert (held["current_slabs"], held["node_partial_slabs"], held["free_objects"]) == (1, 1, 6)


def two_nodes(listed: int, **params: int) -> Slub:
    """CPU 1 is on node 1, which has `listed` slabs of 4096-byte objects on its list."""
    m = Slub(domains=2, cpus=2, **params)
    got = m.many((listed + 3) * 8, 4096, cpu=1)
    for addr in got[::8][: listed + 2]:
        m.free(addr, cpu=1)
        if m.counts["node_partial_slabs"] == listed:
            break
    assert m.counts["node_partial_slabs"] == listed
    return m


@pytest.mark.parametrize(("listed", "ratio", "takes"), [(8, 1000, True), (6, 1000, False), (8, 0, False)])
def test_another_node_is_asked_if_it_has_more_slabs_than_its_least(listed, ratio, takes):
    m = two_nodes(listed, defrag_ratio=ratio)
    asked = len(m.map_log)
    m.alloc(4096, cpu=0)
    assert (len(m.map_log) == asked) == takes


def test_other_nodes_are_asked_1001_times_of_1024():
    m = two_nodes(12)
    m.state.node[:, 1, u.NODE_PARTIAL] = 1000  # seemingly
    head = m.state.node[cache(4096), 1, u.NODE_HEAD]
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    answers = []
    for _ in range(1024):
        reg[:] = 0
        reg[0, [regs.SIZE, regs.ITEM]] = 4096, s.ITEM_MALLOC
        answers.append(int(slub.alloc(m.state, reg, 0)))
    assert (answers.count(s.AGAIN), answers.count(s.MAP_ALLOC)) == (1001, 23)
    assert m.state.node[cache(4096), 1, u.NODE_HEAD] == head


def test_cpus_are_spread_over_nodes_in_blocks():
    assert fresh(cpus=6, domains=3).node_of.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="node without a CPU"):
        fresh(cpus=2, domains=3)


@pytest.mark.parametrize(("node_bytes", "node"), [(0, 1), (1 << 40, 0)])
def test_a_slab_belongs_to_the_node_that_its_pages_lie_on(node_bytes, node):
    """After a request that went to another node; where pages know no nodes, to that of the CPU."""
    m = Slub(domains=2, node_bytes=node_bytes)
    got = m.many(17, 4096, cpu=1)
    first = m.state.slab[got[0] // s.PAGE]
    assert first[u.S_NODE] == node
    for addr in got:
        m.free(addr, cpu=1)
    listed = m.state.node[cache(4096), :, u.NODE_PARTIAL] > 0
    assert listed.tolist() == [node == 0, node == 1] or m.counts["node_partial_slabs"] == 0


def test_random_freelists_are_permutations_that_depend_on_the_seed_alone():
    def first_slabs(seed: int) -> list[list[int]]:
        m = Slub(freelist_random=seed)
        return [[addr % s.PAGE for addr in m.many(32, 128)] for _ in range(2)] + [m.many(64, 64)]

    first, second, other = first_slabs(1)
    assert sorted(first) == sorted(second) == [k * 128 for k in range(32)]
    assert len({tuple(first), tuple(second), tuple(sorted(first))}) == 3
    assert [addr * 2 - other[0] for addr in other[:32]] != first
    assert first_slabs(1) == [first, second, other]
    assert first_slabs(2) != [first, second, other]


def test_random_freelists_fit_slabs_of_the_least_order():
    m = Slub(freelist_random=1, limit=3 * s.PAGE)
    assert sorted(m.many(24, 512)) == [k * 512 for k in range(24)]


def test_shrinking_gives_empty_slabs_back_and_puts_the_fullest_first():
    m = Slub(shrink=1, cpu_partial=0, min_partial=10)
    got = m.many(8 * 8, 4096)
    slabs = [got[k : k + 8] for k in range(0, 64, 8)]
    for slab, count in zip(slabs, (3, 8, 1, 8, 5, 3, 8), strict=False):
        for addr in slab[:count]:
            m.free(addr, cpu=1)
    held = m.counts["pages"]
    m.tend(s.TEND_REAP)
    assert m.counts["pages"] == held - 3 * 8
    m.tend(s.TEND_TICK)  # nothing
    assert m.counts["node_partial_slabs"] == 4
    assert [m.many(n, 4096, cpu=1)[0] // (32 * KIB) for n in (1, 3, 3, 5)] == [2, 5, 0, 4]


def test_nothing_is_shrunk_unless_that_is_wanted():
    m = Slub()
    for addr in m.many(100, 4096):
        m.free(addr)
    held = m.counts
    m.tend(s.TEND_REAP)
    assert m.counts == held
    assert held["pages"] > 0


# Sheaves.


def test_the_first_allocation_fills_a_sheaf_and_takes_its_last_object():
    m = Slub(sheaves=1)
    first = m.alloc(64)
    assert m.map_log == [("alloc", 0, 8 * KIB), ("alloc", 8 * KIB, 4 * KIB)]  # two sheaves of 512 bytes, 64 objects
    assert first == 8 * KIB + 59 * 64
    assert m.reg[0, regs.WORK] == 60 + 63 + 15
    assert m.counts["sheaves"] == 2
    assert m.counts["sheaf_objects"] == 59
    assert m.many(59, 64) == [8 * KIB + k * 64 for k in range(58, -1, -1)]
    assert m.answers == [s.DONE]
    m.alloc(64)
    assert len(m.map_log) == 3
    assert m.counts["sheaves"] == 2  # the spare one, which was the first main one, has been filled


def test_an_allocation_that_cannot_wait_takes_one_object_from_a_slab():
    m = Slub(sheaves=1)
    assert [m.alloc(64, flags=flag.NOWAIT) % s.PAGE for _ in range(3)] == [0, 64, 128]
    assert m.counts["sheaf_objects"] == 0


def test_a_freed_object_is_taken_next():
    m = Slub(sheaves=1)
    got = m.many(5, 1000)
    m.free(got[1])
    m.free(got[3])
    assert m.answers == [s.DONE]
    assert m.many(2, 1000) == [got[3], got[1]]


def test_a_barn_holds_ten_full_sheaves_then_the_spare_one_is_flushed():
    m = Slub(sheaves=1)
    k = cache(4096)
    got = m.many(400, 4096)
    for addr in got:
        m.free(addr)
    assert m.state.node[k, 0, u.NODE_FULLS] == 10
    assert 10 * 4 + 4 < m.counts["sheaf_objects"] - sheaf_objects_of_others(m, k) <= 10 * 4 + 8
    pages = m.counts["pages"]
    again = m.many(48, 4096)
    assert m.counts["pages"] == pages
    assert set(again) <= set(got)


def sheaf_objects_of_others(m: Slub, k: int) -> int:
    """Objects in sheaves of other caches than `k`: there are none, sheaves are not taken from sheaves."""
    assert (np.delete(m.state.cpu, k, axis=0)[:, :, [u.C_MAIN, u.C_SPARE]] == u.NIL).all()
    return 0


def test_full_sheaves_go_from_cpu_to_cpu_through_the_barn():
    m = Slub(sheaves=1)
    got = m.many(40, 4096, cpu=0)
    for addr in got:
        m.free(addr, cpu=0)
    asked = len(m.map_log)
    assert set(m.many(4, 4096, cpu=1)) <= set(got)
    assert [size for _, _, size in m.map_log[asked:]] == [s.PAGE]  # for the first main sheaf, which goes to the barn


def test_barns_are_used_under_their_own_lock():
    m = Slub(sheaves=1, domains=2)
    got = m.many(40, 4096, cpu=1)
    locks = set()
    for addr in got:
        m.reg[0, regs.LOCK] = -1
        m.free(addr, cpu=1)
        locks.add(int(m.reg[0, regs.LOCK]))
    assert 2 << regs.LOCK_SHIFT | cache(4096) * 2 + 1 in locks


def test_objects_of_other_nodes_pass_by_the_sheaves():
    m = Slub(sheaves=1, domains=2)
    addr = m.alloc(4096, cpu=0)
    before = m.counts
    m.free(addr, cpu=1)
    assert m.counts["sheaf_objects"] == before["sheaf_objects"]
    assert m.counts["free_objects"] == before["free_objects"] + 1


def test_a_sheaf_that_cannot_be_filled_goes_back_and_single_objects_are_handed_out():
    m = Slub(sheaves=1, limit=3 * s.PAGE)  # a slab for sheaves, and one of 32 objects of 128 bytes: too few for a sheaf
    got = m.many(32, 128)
    assert len(set(got)) == 32
    assert -1 not in got
    assert (m.counts["sheaf_objects"], m.counts["sheaves"]) == (0, 1)
    assert m.alloc(128) == -1


def test_shrinking_empties_sheaves_and_barns():
    m = Slub(sheaves=1, shrink=1)
    for addr in m.many(400, 4096, cpu=0) + m.many(400, 4096, cpu=1):
        m.free(addr, cpu=1)
    m.tend(s.TEND_REAP)
    m.tend(s.TEND_REAP)
    assert m.counts["sheaf_objects"] == 0
    assert m.counts["sheaves"] == 2  # each CPU keeps its main one
    assert m.counts["pages"] == m.counts["node_partial_slabs"] == 2


@pytest.mark.parametrize(
    ("params", "kva_bytes", "text"),
    [
        ({"max_order": 7}, MIB, "max_order"),
        ({"sheaves": 1}, 1 << 44, "8 TiB"),
        ({"sheaves": 1, "sheaf_capacity": 1021}, MIB, "1020 objects"),
        ({"sheaves": 3}, MIB, "sheaves is 3"),
        ({"cpu_slabs": 0}, MIB, "needs sheaves for all"),
    ],
)
def test_parameters_out_of_range_are_refused(params, kva_bytes, text):
    with pytest.raises(ValueError, match=text):
        fresh(kva_bytes=kva_bytes, **params)


@pytest.mark.parametrize(
    ("order", "slabs", "passed", "steps"),
    [
        (OWN, [0, 0, 2, 1, 1, 1], 0, 1),  # the slab that was listed first
        (LOWEST, [0, 0, 1, 1, 1, 2], 2, 1),  # slabs 2 and 1 pass slab 0
        (FULLEST, [2, 0, 0, 1, 1, 1], 2, 2),  # with its second free object slab 1 passes both others
    ],
)
def test_the_order_of_a_nodes_list(order, slabs, passed, steps):
    """Of three full slabs of four objects, slab 0 gets two free ones, slab 2 one, slab 1 three. Slab 3 is current.

    A free into a listed slab is one step unless it may move the slab: then it takes the list lock.
    """
    m = Slub(cpus=1, cpu_partial=0, slab_order=order)
    addrs = m.many(16, 8192)
    work = 0
    for slab, obj in ((0, 1), (0, 2), (2, 0), (1, 3), (1, 1), (1, 0)):
        m.free(addrs[4 * slab + obj])
        work += int(m.reg[0, regs.WORK])
    assert work == passed
    assert m.answers == [s.AGAIN] * (steps - 1) + [s.DONE]
    assert [addr // (32 * KIB) for addr in m.many(6, 8192)] == slabs


def test_shrinking_leaves_a_sorted_list_in_its_order():
    m = Slub(cpus=1, cpu_partial=0, min_partial=9, slab_order=LOWEST, shrink=1)
    addrs = m.many(20, 8192)
    for addr in (*addrs[8:12], addrs[12], addrs[0], *addrs[4:7]):
        m.free(addr)
    assert m.counts["node_partial_slabs"] == 4
    m.tend(s.TEND_REAP)
    assert [step for step in m.map_log if step[0] == "free"] == [("free", addrs[8], 32 * KIB)]
    assert [addr // (32 * KIB) for addr in m.many(5, 8192)] == [0, 1, 1, 1, 3]


def test_there_are_three_orders():
    with pytest.raises(ValueError, match="slab_order is 3"):
        fresh(slab_order=3)


# Caches as Linux 6.12 to 7.1 make them.

STRIDES = [  # cache, object, flags, alignment, stride; on two CPUs order and objects of a slab
    ("anon_vma", 96, RCU | CTOR, 0, 104, 0, 39), ("TCP", 2304, RCU | HWALIGN, 0, 2368, 3, 13),
    ("sighand_cache", 2080, RCU | CTOR | HWALIGN, 0, 2112, 3, 15),
    ("sock_inode_cache", 768, CTOR | HWALIGN, 0, 832, 2, 19),
    ("ext4_inode_cache", 1120, CTOR, 0, 1128, 2, 14), ("radix_tree_node", 576, CTOR, 0, 584, 1, 14),
    ("mm_struct", 1568, HWALIGN, 0, 1600, 3, 20), ("request_sock_TCP", 312, RCU, 0, 320, 0, 12),
    ("tw_sock_TCP", 248, RCU, 0, 256, 0, 16), ("bio-184", 184, RCU | HWALIGN, 0, 192, 0, 21),
    ("bio-264", 264, RCU | HWALIGN, 0, 320, 0, 12), ("kmem_cache_node", 72, HWALIGN, 0, 128, 0, 32),
    ("16", 16, HWALIGN, 0, 16, 0, 256), ("24", 24, HWALIGN, 0, 32, 0, 128), ("32", 32, HWALIGN, 0, 32, 0, 128),
    ("40", 40, HWALIGN, 0, 64, 0, 64), ("maple_node", 256, 0, 256, 256, 0, 16),
    ("task_struct", 5840, 0, 64, 5888, 3, 5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "flags", "align", "stride", "order", "objects"), STRIDES)
def test_strides_are_the_kernels(name, size, flags, align, stride, order, objects):
    item = Item(size, 1, 0, Traits(flags=flags, align=align))
    row = fresh(item).cache[len(KMALLOC)]
    assert row[[u.K_SIZE, u.K_ORDER, u.K_OBJECTS]].tolist() == [stride, order, objects]


def test_slabs_of_a_real_kernels_caches_are_as_it_says(shared_traces):
    """All caches of a machine of two CPUs, from the strides that its events give."""
    rows = [line.split() for line in (shared_traces / "r_tree2.const").read_text().splitlines()]
    assert len(rows) == 235
    items = [Item(int(row[1]), 0, 0, Traits(stride=int(row[2]))) for row in rows]
    made = fresh(*items).cache[len(KMALLOC) :]
    assert made[:, u.K_SIZE].tolist() == [int(row[2]) for row in rows]
    assert made[:, u.K_OBJECTS].tolist() == [int(row[3]) for row in rows]
    assert made[:, u.K_ORDER].tolist() == [int(row[4]) for row in rows]
    assert made[:, u.K_MIN_PARTIAL].tolist() == [int(row[5]) for row in rows]


def test_caches_alike_are_merged_into_the_oldest():
    sizes = [(100, 0), (104, 0), (97, 0), (96, 0), (104, HWALIGN), (128, 0), (121, HWALIGN)]
    items = [Item(size, 1, 0, Traits(flags=flags)) for size, flags in sizes]
    assert layout.merged(items) == [0, 0, 0, 3, 4, 4, 4]
    items[1] = items[1]._replace(traits=Traits(flags=ACCOUNT))
    assert layout.merged(items)[1] == 1
    state = fresh(*items, merge=1)
    assert (state.item_cache - len(KMALLOC)).tolist() == [0, 1, 0, 2, 3, 3, 3]
    assert state.cache[state.item_cache, u.K_SIZE].tolist() == [104, 104, 104, 96, 128, 128, 128]


def test_what_is_merged_with_pid_and_what_is_not():
    pid = Item(176, 1, 0, Traits(flags=HWALIGN | ACCOUNT))
    cred = Item(184, 1, 0, Traits(flags=HWALIGN | ACCOUNT))
    plain = Item(192, 1, 0, Traits(flags=ACCOUNT))
    assert layout.merged([pid, cred, plain]) == [0, 0, 0]
    for flags in (RECLAIM | ACCOUNT, 0, ACCOUNT | CTOR, ACCOUNT | RCU):
        assert layout.merged([pid, plain._replace(traits=Traits(flags=flags))]) == [0, 1]
    assert layout.merged([pid, plain._replace(traits=Traits(flags=ACCOUNT, sheaf=32))]) == [0, 1]


def test_sets_of_kmalloc_caches_have_slabs_of_their_own():
    m = Slub(Item(64, 1, 0), kmalloc_sets=3)
    got = [m.alloc(64, item=s.item_of_set(k)) for k in (0, 1, 2, 0, 1)]
    assert [addr // s.PAGE for addr in got] == [0, 1, 2, 0, 1]
    assert m.alloc(64, item=0) == 3 * s.PAGE
    assert m.alloc(8193, item=s.item_of_set(2)) % (16 * KIB) == 0
    assert m.alloc(0, item=s.item_of_set(1)) == -16


def test_pages_of_sets_are_asked_for_as_their_flags_say():
    state, reg = fresh(kmalloc_sets=4), np.zeros((1, regs.COLUMNS), np.int64)
    for k, extra in enumerate((0, 0, s.ATTR_RECLAIM, s.ATTR_LOW)):
        reg[:] = 0
        reg[0, [regs.SIZE, regs.ITEM]] = 64, s.item_of_set(k)
        assert slub.alloc(state, reg, 0) == s.MAP_ALLOC
        assert reg[0, regs.ATTR] == s.ATTR_WIRED | extra


VMA = Item(192, 1, 0, Traits(sheaf=32))


def objects_out(m: Slub) -> int:
    """Objects of the item's cache that its slabs count as in use."""
    made = m.state.slab[m.state.slab[:, u.S_CACHE] == len(KMALLOC) + 1]
    made = made[made[:, u.S_OBJECTS] > 0]
    free = sum(len_of_freelist(m) if frozen else 0 for frozen in made[:, u.S_FROZEN].tolist())
    return int(made[:, u.S_INUSE].sum()) - free


def len_of_freelist(m: Slub) -> int:
    base, at, count = (
        m.state.cpu[len(KMALLOC), 0, u.C_SLAB] << u.PAGE_WORD_SHIFT,
        m.state.cpu[len(KMALLOC), 0, u.C_FREE],
        0,
    )
    while at != u.NIL:
        at, count = int(m.state.link[entry(u.linked)(m.state, len(KMALLOC), base + at)]), count + 1
    return count


def test_sheaves_of_6_18_are_for_caches_that_ask_and_the_empty_main_one_goes_to_the_barn():
    m = Slub(VMA, cpus=1, sheaves=2)
    k = len(KMALLOC)
    m.alloc(64)
    assert m.counts["sheaves"] == 0
    got = [m.alloc(192, item=0)]
    assert (objects_out(m), m.counts["sheaf_objects"], m.state.node[k, 0, u.NODE_EMPTIES], m.counts["sheaves"]) == (
        32,
        31,
        1,
        2,
    )
    got += m.many(32, 192, item=0)
    assert objects_out(m) == 64
    got += m.many(67, 192, item=0)
    assert (objects_out(m), m.counts["sheaf_objects"]) == (128, 28)
    for addr in got:
        m.free(addr)
    assert (m.counts["sheaf_objects"], m.state.node[k, 0, u.NODE_FULLS], m.counts["sheaves"]) == (128, 2, 4)
    assert objects_out(m) == 128
    for _ in range(10):
        for addr in m.many(100, 192, item=0):
            m.free(addr)
    assert objects_out(m) == 128


def test_a_barn_of_6_18_is_flushed_at_the_385th_free():
    m = Slub(VMA, cpus=2, sheaves=2)
    got = m.many(500, 192, item=0)
    before = objects_out(m)
    flushed = []
    for j, addr in enumerate(got, 1):
        m.free(addr, cpu=1)
        if objects_out(m) < before:
            before = objects_out(m)
            flushed.append(j)
    assert flushed[0] == 385  # two sheaves of its own and ten in the barn are full
    assert np.diff(flushed).tolist() == [32] * (len(flushed) - 1)


def test_a_barn_of_7_1_is_flushed_at_the_721st_free_of_small_objects():
    m = Slub(sheaves=1, cpu_slabs=0)

    def out() -> int:
        return int(m.state.slab[m.state.slab[:, u.S_CACHE] == cache(64) + 1, u.S_INUSE].sum())

    got = m.many(900, 64)
    before, flushed = out(), []
    for j, addr in enumerate(got, 1):
        m.free(addr, cpu=1)
        if out() < before:
            before = out()
            flushed.append(j)
    assert flushed == [721, 781, 841]  # twelve sheaves of 60


def test_in_7_1_no_cpu_has_a_slab_and_what_is_left_heads_the_nodes_list():
    m = Slub(Item(1000, 1, 0), sheaves=1, cpu_slabs=0)
    k = len(KMALLOC)
    m.alloc(1000, item=0)  # a sheaf of 28 from slabs of 16 objects
    assert m.state.cpu[k, 0, u.C_SLAB] == u.NIL
    assert m.state.node[k, 0, u.NODE_PARTIAL] == 1
    assert m.counts["node_partial_slabs"] == 1
    m.alloc(1000, item=0, cpu=1, flags=flag.NOWAIT)  # who may not wait fills one too
    assert m.counts["sheaf_objects"] == 27 + 27
    assert m.state.cache[k, u.K_SLABS] == 4


def test_a_cache_of_7_1_that_asks_for_sheaves_gets_at_least_these():
    state = fresh(Item(256, 1, 0, Traits(sheaf=32)), VMA, sheaves=1, cpu_slabs=0)
    assert state.cache[len(KMALLOC) :, u.K_SHEAF].tolist() == [32, 60]


def test_what_an_operation_holds_may_lie_anywhere_in_eight_tebibytes():
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    assert (sheaves.taken_sheaf(reg, 0), sheaves.taken_chain(reg, 0)) == (u.NIL, u.NIL)
    for words in (((1 << 40) - 8, 1 << 39), (u.NIL, (1 << 40) - 1), (1 << 33, u.NIL)):
        sheaves.take(reg, 0, *words)
        assert (sheaves.taken_sheaf(reg, 0), sheaves.taken_chain(reg, 0)) == words


T4 = [  # cache, bytes, flags, objects in a slab, the vector's kmalloc() cache: mm/slub.c of 6.18 on 2 CPUs
    ("dentry", 192, RECLAIM, 21, 192),
    ("filp", 184, HWALIGN, 21, 192),
    ("anon_vma_chain", 64, 0, 64, 512),
    ("anon_vma", 96, RCU | CTOR, 39, 512),
    ("inode_cache", 616, CTOR, 13, 128),
    ("ext4_inode_cache", 1120, CTOR, 14, 128),
    ("proc_inode_cache", 688, CTOR, 23, 192),
]


@pytest.mark.parametrize(("name", "size", "flags", "objects", "bucket"), T4, ids=[row[0] for row in T4])
def test_a_slab_of_an_accounted_cache_has_a_vector_of_a_word_for_each_object(name, size, flags, objects, bucket):
    h = Slub(Item(size, 0, 0, Traits(flags=flags | ACCOUNT)), memcg=1)
    first, *rest = h.many(objects + 1, 0, item=0)
    slab = first >> s.PAGE_SHIFT
    assert h.state.slab[slab, u.S_OBJECTS] == objects
    home = int(h.state.vector[slab] - 1) >> u.PAGE_WORD_SHIFT
    assert h.state.slab[home, u.S_CACHE] - 1 == cache(bucket)
    assert h.counts["vectors"] == 2
    assert h.state.cache[cache(bucket), u.K_SLABS] == 1
    for addr in (first, *rest):
        h.free(addr)
    assert h.counts["vectors"] == h.state.cache[-1, u.K_SLABS]  # empty slabs that lists keep have theirs


def test_kmalloc_of_accounted_requests_has_vectors_of_normal_kmalloc_and_normal_kmalloc_none():
    h = Slub(memcg=1, kmalloc_sets=2)
    accounted = h.alloc(8, item=s.item_of_set(1))
    home = int(h.state.vector[accounted >> s.PAGE_SHIFT] - 1) >> u.PAGE_WORD_SHIFT
    assert h.state.slab[home, u.S_CACHE] - 1 == cache(4096)  # 512 objects in a slab of kmalloc-cg-8
    h.alloc(8)
    assert h.counts["vectors"] == 1


def test_a_vector_that_there_is_no_memory_for_stays_away():
    h = Slub(Item(4096, 0, 0, Traits(flags=ACCOUNT)), memcg=1, limit=32 * KIB)  # one slab of eight
    assert h.alloc(0, item=0) >= 0
    assert h.counts["vectors"] == 0


@pytest.mark.parametrize(
    ("size", "flags", "kmalloc_slabs"),
    [(4000, 0, 0), (64, 0, 1), (208, HWALIGN | RCU, 0), (208, HWALIGN, 1)],  # tails: 768 bytes, 0; padding: 40, 48
)
def test_in_7_1_a_vector_lies_in_spare_room_if_it_fits(size, flags, kmalloc_slabs):
    h = Slub(Item(size, 0, 0, Traits(flags=flags | ACCOUNT)), memcg=2)
    h.alloc(0, item=0)
    assert h.state.cache[: len(KMALLOC), u.K_SLABS].sum() == kmalloc_slabs
