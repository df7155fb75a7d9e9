"""illumos kmem: every table of its layout, and what magazines, depot, slabs and the consolidator do one by one."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import illumos_kmem as kmem
from kmemexp.sim.allocators.illumos_kmem import layout
from kmemexp.sim.allocators.illumos_kmem import slabs as u
from kmemexp.sim.allocators.illumos_kmem.consolidator import above_threshold, adjusted, reclaimable
from kmemexp.sim.allocators.illumos_kmem.upkeep_steps import rescaled
from kmemexp.sim.items import Item
from kmemexp.sim.tables import flag, regs
from kmemexp.validate.hand import Hand

KIB, MIB = 1 << 10, 1 << 20
MALLOC = s.ITEM_MALLOC


def fresh(*sizes: int, cpus: int = 1, kva: int = 64 * MIB, **params: int) -> Hand:
    items = [Item(size, 1, 0) for size in sizes]
    state = kmem.init(
        kmem.Params(**params), kva_bytes=kva, cpus=cpus, map_number=3, items=items, bases=[-1] * len(items)
    )
    return Hand(kmem, state, limit=kva)


def cache_number(m: Hand, size: int) -> int:
    return u.FIRST_ALLOC + layout.alloc_sizes().index(size)


def trips(m: Hand, size: int) -> int:
    """Times that the depot of a kmem_alloc() cache was locked."""
    return int(m.state.cache[cache_number(m, size), u.K_TAKES])


def depot(m: Hand, size: int) -> tuple[int, int]:
    """Full and empty magazines of a kmem_alloc() cache."""
    row = m.state.cache[cache_number(m, size)]
    return int(row[u.K_FULL + u.TOTAL]), int(row[u.K_EMPTY + u.TOTAL])


def magazine(m: Hand, size: int, cpu: int = 0) -> int:
    """Rounds of the magazines that a CPU has for a kmem_alloc() cache."""
    return int(m.state.cc[cache_number(m, size), cpu, u.MAGSIZE])


def cycle(m: Hand, size: int, n: int, cpu: int = 0) -> None:
    """Allocate `n` buffers, then free them."""
    for addr in [m.alloc(size, item=MALLOC, cpu=cpu) for _ in range(n)]:
        m.free(addr, cpu=cpu)


def maps(m: Hand, verb: str) -> list[int]:
    return [nbytes for what, _, nbytes in m.map_log if what == verb]


# Constants.

CONSTANTS = [
    (layout.KMEM_ALIGN, 8), (layout.KMEM_VOID_FRACTION, 8), (layout.KMEM_MAXBUF, 4096),
    (layout.KMEM_BIG_MAXBUF, 131072), (layout.KMEM_HASH_INITIAL, 64),
    (kmem.TICK_NS, 15 * 10**9), (kmem.Params().depot_contention, 3),
    (kmem.Params().frag_minslabs, 101), (kmem.Params().frag_numer, 1), (kmem.Params().frag_denom, 8),
    (kmem.Params().reclaim_slabs, 1), (kmem.Params().scan_range, 12), (kmem.Params().disbelief, 3),
    (layout.SLAB_BYTES, 72),
]  # fmt: skip


@pytest.mark.parametrize(("have", "want"), CONSTANTS)
def test_constants(have, want):
    assert have == want


# Size classes.

SMALL = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1152,
         1344, 1600, 2048, 2688, 4096]  # fmt: skip
BIG = [8192, 12288, 16384, 24576, 32768, 40960, 49152, 57344, 65536, 73728, 81920, 90112, 98304, 106496, 114688, 122880,
       131072]  # fmt: skip


def test_kmem_alloc_has_29_small_and_17_big_classes():
    assert layout.alloc_sizes() == (*SMALL, *BIG)
    assert (len(SMALL), len(BIG)) == (29, 17)
    assert SMALL[-6:] == [8192 // n // 64 * 64 for n in (7, 6, 5, 4, 3, 2)]


@pytest.mark.parametrize(
    ("max_cached", "largest"), [(131072, 131072), (32768, 32768), (30000, 32768), (4096, 4096), (4097, 8192)]
)
def test_the_largest_class_is_the_limit_rounded_up(max_cached, largest):
    assert layout.alloc_sizes(max_cached)[-1] == largest
    m = fresh(max_cached=max_cached, kva=4 * MIB)
    assert m.alloc(largest, item=MALLOC) >= 0
    assert m.state.large[0] == 0
    assert m.alloc(largest + 1, item=MALLOC) >= 0
    assert m.granted == largest + s.PAGE
    assert m.state.large[0] * s.PAGE == m.granted


@pytest.mark.parametrize(("below", "size"), list(pairwise([0, *SMALL, *BIG])))
def test_a_request_gets_the_smallest_class_that_fits(below, size):
    m = fresh(kva=2 * MIB)
    for nbytes in (below + 1, size):
        addr = m.alloc(nbytes, item=MALLOC)
        assert m.granted == size
        align = s.PAGE if size % 4096 == 0 else 64 if size % 64 == 0 else 8
        assert layout.alloc_align(size) == align
        assert addr % align == 0


def test_there_is_no_class_of_1024():
    m = fresh()
    for nbytes in (897, 1024, 1152):
        m.alloc(nbytes, item=MALLOC)
        assert m.granted == 1152


def test_beyond_128_kib_pages_come_from_the_map_and_go_back():
    m = fresh()
    addr = m.alloc(131073, item=MALLOC)
    assert m.granted == 135168
    m.free(addr)
    assert m.map_log == [("alloc", addr, 135168), ("free", addr, 135168)]
    assert kmem.census(m.state)["pages"] == 0


def test_mbufs_are_kmem_alloc_too():
    m = fresh()
    m.alloc(256, item=s.ITEM_MBUF)
    assert m.granted == 256
    m.alloc(5000, item=s.ITEM_MBUF)
    assert m.granted == 8192


def test_an_item_is_a_cache_of_its_own():
    m = fresh(100, 104)
    a, b = m.alloc(100, item=0), m.alloc(104, item=1)
    assert m.granted == 104
    assert a // s.PAGE != b // s.PAGE
    m.alloc(100, item=0)
    assert m.granted == 104


# Slabs.

# Class, slab, objects, hashed, maxcolor, colours, binshift, first and last magazine, waste at the tail in per cent.
SLABS = [
    (8, 4, 503, False, 0, 1, 7, 15, 143, 0), (16, 4, 251, False, 8, 2, 6, 15, 143, 0.20),
    (32, 4, 125, False, 24, 4, 5, 15, 143, 0.59), (64, 4, 62, False, 56, 1, 4, 15, 143, 1.37),
    (96, 4, 41, False, 88, 12, 3, 7, 143, 2.15), (128, 4, 31, False, 56, 1, 3, 7, 143, 1.37),
    (192, 4, 20, False, 184, 3, 2, 7, 143, 4.49), (256, 4, 15, False, 184, 3, 2, 7, 143, 4.49),
    (320, 4, 12, False, 184, 3, 1, 3, 143, 4.49), (448, 4, 8, False, 440, 7, 1, 3, 143, 10.74),
    (512, 4, 8, True, 0, 1, 1, 3, 95, 0), (640, 4, 6, True, 256, 5, 1, 3, 95, 6.25),
    (768, 4, 5, True, 256, 5, 1, 3, 95, 6.25), (896, 8, 9, True, 128, 3, 1, 3, 95, 1.56),
    (1152, 8, 7, True, 128, 3, 1, 3, 63, 1.56), (1344, 4, 3, True, 64, 2, 1, 3, 63, 1.56),
    (1600, 8, 5, True, 192, 4, 1, 3, 63, 2.34), (2048, 4, 2, True, 0, 1, 1, 3, 47, 0),
    (2688, 8, 3, True, 128, 3, 1, 3, 47, 1.56), (4096, 4, 1, True, 0, 1, 1, 1, 31, 0),
    (8192, 8, 1, True, 0, 1, 1, 1, 15, 0), (16384, 16, 1, True, 0, 1, 1, 1, 7, 0),
    (32768, 32, 1, True, 0, 1, 1, 1, 3, 0), (65536, 64, 1, True, 0, 1, 1, 1, 1, 0),
    (98304, 96, 1, True, 0, 1, 1, 1, 1, 0), (131072, 128, 1, True, 0, 1, 1, 1, 1, 0),
]  # fmt: skip


@pytest.mark.parametrize("row", SLABS)
def test_slabs_of_the_classes(row):
    size, slab_kib, objects, hashed, maxcolor, colours, binshift, first, _, waste = row
    plan = layout.cache_layout(size, layout.alloc_align(size))
    assert (plan.slab, plan.buffers(), plan.hashed) == (slab_kib * KIB, objects, hashed)
    assert (plan.maxcolor, plan.binshift) == (maxcolor, binshift)
    assert len(range(0, plan.maxcolor + 1, plan.align)) == colours
    assert layout.MAGTYPES[layout.first_magtype(plan.chunk)].rounds == first
    tail = plan.slab - plan.header - objects * plan.chunk
    assert 100 * tail / plan.slab == pytest.approx(waste, abs=0.005)


@pytest.mark.parametrize("row", SLABS)
def test_a_new_slab_holds_that_many_buffers_and_hands_out_the_highest_first(row):
    size, slab_kib, objects = row[:3]
    m = fresh(kva=2 * MIB)
    first = m.alloc(size, item=MALLOC)
    base = m.map_log[0][1]
    assert m.map_log[0] == ("alloc", base, slab_kib * KIB)
    plan = layout.cache_layout(size, layout.alloc_align(size))
    colour = (first - base) - (objects - 1) * size
    assert colour == (plan.align if plan.align <= plan.maxcolor else 0)
    assert [m.alloc(size, item=MALLOC) for _ in range(objects - 1)] == [first - size * n for n in range(1, objects)]
    slabs = maps(m, "alloc").count(slab_kib * KIB)
    m.alloc(size, item=MALLOC)
    assert maps(m, "alloc").count(slab_kib * KIB) > slabs


@pytest.mark.parametrize(
    ("size", "align", "colours"),
    [(40, 8, [8, 16, 24, 0, 8]), (192, 64, [64, 128, 0, 64]), (64, 64, [0, 0, 0]), (448, 64, [64, 128, 192, 256])],
)
def test_colours_of_successive_slabs(size, align, colours):
    plan = layout.cache_layout(size, align)
    m = fresh(kva=MIB)
    lowest = []
    for n, _ in enumerate(colours):
        addresses = [m.alloc(size, item=MALLOC) for _ in range(plan.buffers())]
        assert {addr // s.PAGE for addr in addresses} == {n}
        lowest.append(min(addresses) % s.PAGE)
    assert lowest == colours


def test_waste_of_400_byte_objects_in_a_page():
    """Ten buffers; 96 bytes are left, 9.6 for each, 2.4 per cent: the paper of 1994."""
    buffers, left = divmod(4096, 400)
    assert (buffers, left, left / buffers, left / buffers / 400) == (10, 96, 9.6, pytest.approx(0.024))


@pytest.mark.parametrize("size", [*range(512, 9000, 8), *range(9000, 200_000, 1000)])
def test_a_slab_of_n_buffers_wastes_less_than_one_nth(size):
    plan = layout.cache_layout(size)
    tail = plan.slab - plan.buffers() * plan.chunk
    assert tail * plan.buffers() <= plan.slab
    assert tail // plan.buffers() <= plan.slab // layout.KMEM_VOID_FRACTION


@pytest.mark.parametrize(("pages", "slab"), [(1, 4), (2, 8), (3, 16), (4, 16), (5, 16), (8, 32), (16, 64)])
def test_slabs_of_quantum_caches(pages, slab):
    assert layout.qcache_slab(pages * s.PAGE) == slab * s.PAGE
    assert layout.cache_layout(s.PAGE, s.PAGE, qcache_max=pages * s.PAGE).slab == slab * s.PAGE


@pytest.mark.parametrize(("pages", "objects"), list(enumerate([32, 16, 10, 8, 6, 5, 4, 4], 1)))
def test_a_quantum_cache_slab_of_32_pages_holds(pages, objects):
    assert layout.cache_layout(pages * s.PAGE, s.PAGE, qcache_max=8 * s.PAGE).buffers() == objects


# Magazines.

MAGAZINES = [(1, 8, 3200, 65536, 16), (3, 16, 256, 32768, 32), (7, 32, 64, 16384, 64), (15, 64, 0, 8192, 128),
             (31, 64, 0, 4096, 256), (47, 64, 0, 2048, 384), (63, 64, 0, 1024, 512), (95, 64, 0, 512, 768),
             (143, 64, 0, 0, 1152)]  # fmt: skip


@pytest.mark.parametrize(("row", "want"), list(enumerate(MAGAZINES)))
def test_magazine_types(row, want):
    magtype = layout.MAGTYPES[row]
    assert (*magtype, layout.magazine_bytes(magtype.rounds)) == want


def test_the_fast_path_is_one_step():
    m = fresh()
    cycle(m, 256, 1)
    addr = m.alloc(256, item=MALLOC)
    assert m.answers == [s.DONE]
    m.free(addr)
    assert m.answers == [s.DONE]


def test_what_was_freed_last_is_handed_out_first():
    m = fresh()
    a, b = (m.alloc(256, item=MALLOC) for _ in range(2))
    m.free(a)
    m.free(b)
    assert [m.alloc(256, item=MALLOC) for _ in range(2)] == [b, a]


def test_magazines_are_filled_by_frees_only():
    m = fresh()
    for _ in range(40):
        m.alloc(256, item=MALLOC)
    held = kmem.census(m.state)
    assert (held["cpu_buffers"], held["depot_buffers"], held["full_magazines"], held["empty_magazines"]) == (0, 0, 0, 0)
    assert held["own_pages"] == 0


def test_a_cpu_keeps_two_magazines_and_the_depot_the_rest():
    m = fresh(cpus=2)
    cycle(m, 256, 7 * 5)
    held = kmem.census(m.state)
    assert (held["cpu_buffers"], held["depot_buffers"]) == (14, 21)
    assert depot(m, 256) == (3, 0)
    # Another CPU gets what this one has given to the depot: the last magazine first.
    m.alloc(256, item=MALLOC, cpu=1)
    assert depot(m, 256) == (2, 0)


def test_an_alloc_gives_the_empty_previous_magazine_to_the_depot():
    m = fresh()
    cycle(m, 256, 21)
    assert depot(m, 256) == (1, 0)
    for _ in range(14):
        m.alloc(256, item=MALLOC)
    assert depot(m, 256) == (1, 0)
    m.alloc(256, item=MALLOC)
    assert depot(m, 256) == (0, 1)


def test_two_allocs_and_two_frees_at_a_boundary_never_miss():
    m = fresh()
    cycle(m, 256, 28)
    for _ in range(6):
        m.alloc(256, item=MALLOC)
    before = trips(m, 256)
    for _ in range(50):
        cycle(m, 256, 2)
    assert trips(m, 256) == before


@settings(max_examples=60)
@given(
    h.lists(h.integers(-40, 40), min_size=1, max_size=30), h.sampled_from([(24, 15), (256, 7), (2048, 3), (65536, 1)])
)
def test_at_most_one_operation_in_m_misses_whatever_the_pattern(runs, kind):
    """Once magazines for all are there, a trip to the depot is followed by M - 1 operations without one at least."""
    size, rounds = kind
    m = fresh(kva=16 * MIB)
    cycle(m, size, 40 * rounds if rounds > 1 else 60)
    before, count, live = trips(m, size), 0, []
    for run in runs:
        for _ in range(abs(run)):
            if run > 0 and len(live) < 40:
                live.append(m.alloc(size, item=MALLOC))
            elif run < 0 and live:
                m.free(live.pop(0))
            else:
                continue
            count += 1
    assert (trips(m, size) - before - 1) * rounds <= count


@pytest.mark.parametrize(("type_row", "rounds", "objects", "kib"), [(2, 7, 896, 224), (8, 143, 18304, 4576)])
def test_what_64_cpus_hold_of_256_byte_buffers(type_row, rounds, objects, kib):
    """4576 KiB are 4.47 MiB."""
    m = fresh(cpus=64)
    k = cache_number(m, 256)
    m.state.cache[k, u.K_MAGTYPE] = type_row
    m.state.cc[k, :, u.MAGSIZE] = rounds
    addresses = [m.alloc(256, item=MALLOC) for _ in range(objects)]
    for n, addr in enumerate(addresses):
        m.free(addr, cpu=n % 64)
    held = kmem.census(m.state)
    assert held["cpu_buffers"] == objects == 2 * rounds * 64
    assert held["cpu_buffers"] * 256 == kib * KIB


def test_without_magazines_everything_goes_through_the_slabs():
    m = fresh(magazines=0)
    addr = m.alloc(256, item=MALLOC)
    m.free(addr)
    assert m.map_log == [("alloc", 0, 4096), ("free", 0, 4096)]
    assert kmem.census(m.state)["pages"] == 0


# The depot.


def grow_depot(m: Hand, cpu: int = 0) -> None:
    """47 full magazines of one 64 KiB buffer each in the depot, two more on the CPU."""
    cycle(m, 65536, 49, cpu)
    assert depot(m, 65536) == (47, 0)


def test_the_working_set_of_a_list_that_wanders_from_37_to_47_is_10():
    m = fresh()
    grow_depot(m)
    m.tend(s.TEND_TICK)
    cycle(m, 65536, 12)
    assert depot(m, 65536)[0] == 47
    m.tend(s.TEND_TICK)
    row = m.state.cache[cache_number(m, 65536)]
    assert (row[u.K_FULL + u.LIMIT], row[u.K_FULL + u.MIN]) == (37, 47)
    m.tend(s.TEND_REAP)
    assert depot(m, 65536)[0] == 10
    assert maps(m, "free").count(65536) == 37


def test_nothing_is_reapable_in_the_first_interval():
    m = fresh()
    grow_depot(m)
    m.tend(s.TEND_REAP)
    m.tend(s.TEND_TICK)
    m.tend(s.TEND_REAP)
    assert depot(m, 65536)[0] == 47


def test_what_was_not_needed_for_an_interval_goes_in_a_reap_and_not_before():
    m = fresh()
    grow_depot(m)
    m.tend(s.TEND_TICK)
    m.tend(s.TEND_TICK)
    assert depot(m, 65536)[0] == 47
    m.tend(s.TEND_REAP)
    assert depot(m, 65536) == (0, 0)
    assert kmem.census(m.state)["cpu_buffers"] == 2


def test_another_reap_has_to_wait_for_a_tick():
    m = fresh()
    m.tend(s.TEND_REAP)
    grow_depot(m)
    m.state.cache[cache_number(m, 65536), [u.K_FULL + u.LIMIT, u.K_FULL + u.MIN]] = 20
    m.tend(s.TEND_REAP)
    assert depot(m, 65536)[0] == 47
    m.tend(s.TEND_TICK)
    m.state.cache[cache_number(m, 65536), [u.K_FULL + u.LIMIT, u.K_FULL + u.MIN]] = 20
    m.tend(s.TEND_REAP)
    assert depot(m, 65536)[0] == 27


def contend(m: Hand, size: int, times: int) -> None:
    """Let the depot be contended so often."""
    m.state.cache[cache_number(m, size), u.K_CONTENTION] += times


@pytest.mark.parametrize(("times", "rounds"), [(0, 7), (3, 7), (4, 15), (1000, 15)])
def test_more_than_three_contended_trips_make_magazines_grow_one_type(times, rounds):
    m = fresh(cpus=2)
    cycle(m, 256, 50)
    cycle(m, 256, 10, cpu=1)
    contend(m, 256, times)
    m.tend()
    assert {magazine(m, 256, cpu) for cpu in range(2)} == {rounds}
    held = kmem.census(m.state)
    if rounds == 7:
        assert held["cpu_buffers"] + held["depot_buffers"] > 0
    else:  # all magazines were destroyed, their buffers went to their slabs, which were empty
        assert held["cpu_buffers"] == held["depot_buffers"] == held["slabs"] == 0
        assert depot(m, 256) == (0, 0)


def test_magazines_do_not_grow_in_two_updates_running():
    m = fresh()
    sizes = []
    for _ in range(4):
        contend(m, 256, 10)
        m.tend()
        sizes.append(magazine(m, 256))
    assert sizes == [15, 15, 31, 31]


@pytest.mark.parametrize("row", SLABS)
def test_magazines_grow_as_far_as_their_table_says(row):
    size, first, last = row[0], row[7], row[8]
    m = fresh(kva=2 * MIB)
    assert magazine(m, size) == first
    seen = [first]
    for _ in range(20):
        contend(m, size, 10)
        m.tend()
        seen.append(magazine(m, size))
    assert seen == sorted(seen)
    types = [magtype.rounds for magtype in layout.MAGTYPES]
    assert sorted(set(seen)) == types[types.index(first) : types.index(last) + 1]


def test_larger_magazines_come_into_use():
    m = fresh()
    contend(m, 256, 10)
    m.tend()
    cycle(m, 256, 30)
    assert kmem.census(m.state)["cpu_buffers"] == 30


def test_a_trip_is_contended_if_somebody_takes_the_lock_between():
    m = fresh(cpus=2)
    cycle(m, 256, 7 * 6)
    for _ in range(14):
        m.alloc(256, item=MALLOC)
    k = cache_number(m, 256)
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, [regs.SIZE, regs.ITEM, regs.CPU]] = 256, MALLOC, 0
    assert kmem.alloc(m.state, reg, 0) == s.AGAIN
    assert reg[0, regs.LOCK] == (1 << regs.LOCK_SHIFT) | k
    m.alloc(256, item=MALLOC, cpu=1)
    assert kmem.alloc(m.state, reg, 0) == s.DONE
    assert m.state.cache[k, u.K_CONTENTION] == 1


def test_without_a_clock_only_the_other_cpus_trips_can_count():
    for rule, count in ((0, 0), (1, 0), (2, 5)):
        m = fresh(cpus=2, contention=rule)
        cycle(m, 65536, 20)
        for n in range(6):
            cycle(m, 65536, 3, cpu=n % 2)
        have = int(m.state.cache[cache_number(m, 65536), u.K_CONTENTION])
        assert (have >= count) if count else (have == 0)


# Partial slabs.

WEIGHTS = [(3, -3), (4, -4), (10, -4), (16, -5), (20, -5), (40, -6), (57, -7), (58, -58), (61, -61)]


@pytest.mark.parametrize(("refcnt", "weight"), WEIGHTS)
def test_weight_of_a_partial_slab_of_62(refcnt, weight):
    assert u.partial_weight(refcnt, 62, 4, 0) == weight
    assert u.partial_weight(refcnt, 62, 4, 64) == weight - 64


@pytest.mark.parametrize("row", SLABS)
def test_a_slab_never_falls_back_by_being_used(row):
    plan = layout.cache_layout(row[0], layout.alloc_align(row[0]))
    weights = [u.partial_weight(r, plan.buffers(), plan.binshift, 0) for r in range(1, plan.buffers())]
    assert weights == sorted(weights, reverse=True)


def test_the_fullest_partial_slab_is_used_first_then_the_lowest_address():
    m = fresh(magazines=0)
    slabs = [[m.alloc(256, item=MALLOC) for _ in range(15)] for _ in range(4)]
    for count, addresses in zip((13, 3, 13, 8), slabs, strict=True):
        for addr in addresses[:count]:
            m.free(addr)
    order = [m.alloc(256, item=MALLOC) // s.PAGE for _ in range(37)]
    # Binshift is 2: 12 used, then 7, then 2 and 2.
    assert order == [1] * 3 + [3] * 8 + [0] * 13 + [2] * 13


def test_in_the_middle_of_the_order_a_bin_goes_by_address():
    """Of 125 buffers 33 and 60 used are one bin: the slab at the lower address is used first though it is emptier."""
    m = fresh(magazines=0)
    slabs = [[m.alloc(32, item=MALLOC) for _ in range(125)] for _ in range(2)]
    for count, addresses in zip((125 - 33, 125 - 60), slabs, strict=True):
        for addr in addresses[:count]:
            m.free(addr)
    assert [m.alloc(32, item=MALLOC) // s.PAGE for _ in range(3)] == [0, 0, 0]


def test_in_a_slab_what_was_freed_last_comes_first():
    m = fresh(magazines=0)
    got = [m.alloc(256, item=MALLOC) for _ in range(15)]
    for n in (4, 9, 2):
        m.free(got[n])
    assert [m.alloc(256, item=MALLOC) for _ in range(3)] == [got[2], got[9], got[4]]


def test_an_empty_slab_goes_back_at_once():
    m = fresh(magazines=0)
    got = [m.alloc(256, item=MALLOC) for _ in range(31)]
    for addr in got[15:30]:
        m.free(addr)
    assert m.map_log[-1] == ("free", s.PAGE, s.PAGE)
    m.free(got[30])
    assert m.map_log[-1] == ("free", 2 * s.PAGE, s.PAGE)
    assert kmem.census(m.state)["pages"] == 1


# Memory for bookkeeping.


def test_a_hashed_slab_needs_a_header_and_bufctls_of_caches_that_hold_pages():
    m = fresh(magazines=0)
    addr = m.alloc(512, item=MALLOC)
    assert [nbytes for _, _, nbytes in m.map_log] == [4096] * 3  # the slab, one of headers, one of bufctls
    assert kmem.census(m.state)["own_pages"] == 2
    cache = m.state.cache
    assert cache[u.SLAB_CACHE, u.K_BUFTOTAL] - cache[u.SLAB_CACHE, u.K_BUFSLAB] == 1
    assert cache[u.BUFCTL_CACHE, u.K_BUFTOTAL] - cache[u.BUFCTL_CACHE, u.K_BUFSLAB] == 8
    m.free(addr)
    assert kmem.census(m.state)["pages"] == 0


def test_headers_and_bufctls_have_magazines_of_their_own():
    m = fresh()
    contend(m, 4096, 10)
    for addr in [m.alloc(4096, item=MALLOC) for _ in range(40)]:
        m.free(addr)
    m.tend()
    row = m.state.cc[[u.SLAB_CACHE, u.BUFCTL_CACHE], 0]
    assert (row[:, u.ROUNDS] > 0).all()


def test_a_magazine_is_allocated_in_a_free_which_does_not_wait_for_memory():
    m = fresh()
    addr = m.alloc(256, item=MALLOC)
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, [regs.ADDR, regs.SIZE, regs.ITEM]] = addr, 256, MALLOC
    while kmem.free(m.state, reg, 0) != s.MAP_ALLOC:
        pass
    assert reg[0, regs.FLAGS] & flag.NOWAIT
    assert reg[0, regs.MAP] == 3
    reg[0, regs.BASE] = s.NO_SPACE  # then the buffer goes to its slab, and that to the map
    answers = [kmem.free(m.state, reg, 0) for _ in range(3)]
    while answers[-1] != s.DONE:
        answers.append(kmem.free(m.state, reg, 0))
    assert s.MAP_FREE in answers
    assert kmem.census(m.state)["pages"] == 0


def test_a_slab_that_gets_no_bufctl_is_given_back():
    m = fresh(kva=8 * KIB)
    assert m.alloc(640, item=MALLOC) == -1
    assert kmem.census(m.state)["pages"] <= 1  # the header waits in a magazine of its cache, if there was room for that
    assert maps(m, "free")[0] == 4096


def test_a_request_that_the_map_refuses_fails():
    m = fresh(kva=s.PAGE)
    while m.alloc(256, item=MALLOC) >= 0:
        pass
    assert kmem.census(m.state)["slab_buffers"] == 0
    assert kmem.census(m.state)["pages"] == 1


# The hash table.


@pytest.mark.parametrize(("buffers", "size"), [(64, 64), (85, 128), (1000, 1024), (10000, 8192), (0, 64), (83, 64)])
def test_size_of_a_hash_table(buffers, size):
    assert layout.hash_size(buffers) == size


@pytest.mark.parametrize(
    ("buffers", "mask", "then"),
    [
        (126, 63, 63), (127, 63, 63), (169, 63, 63), (170, 63, 255), (400, 63, 511), (0, 63, 63),
        (510, 1023, 1023), (340, 1023, 1023), (339, 1023, 255), (100, 1023, 127), (10000, 63, 8191),
    ],
)  # fmt: skip
def test_a_hash_table_is_rescaled_when_it_is_far_too_small_or_large(buffers, mask, then):
    assert rescaled(buffers, mask) == then


@settings(max_examples=300)
@given(h.integers(0, 10**6), h.integers(6, 20))
def test_a_hash_table_gets_the_size_of_the_formula_unless_that_is_near(buffers, bits):
    mask, size = (1 << bits) - 1, layout.hash_size(buffers)
    asked = buffers > 2 * mask or (buffers < mask // 2 and mask > 64)
    near = (mask + 1) // 2 <= size <= 2 * (mask + 1)
    assert rescaled(buffers, mask) == (size - 1 if asked and not near else mask)


def test_a_cache_of_1000_buffers_gets_a_hash_table_of_1024():
    m = fresh()
    for _ in range(1000):
        m.alloc(2048, item=MALLOC)
    assert m.state.cache[cache_number(m, 2048), u.K_MASK] == 63
    m.tend()
    assert m.state.cache[cache_number(m, 2048), u.K_MASK] == 1023


# The consolidator.


@pytest.mark.parametrize(("bufslab", "fragmented"), [(125, False), (126, True), (0, False), (1000, True)])
def test_a_cache_is_fragmented_if_more_than_an_eighth_is_free(bufslab, fragmented):
    assert above_threshold(bufslab, 1000, 1, 8) == fragmented


@pytest.mark.parametrize(
    ("refcnt", "chunks", "nomove", "numer", "desperate", "worth"),
    [
        (4, 40, 0, 1, 0, True), (5, 40, 0, 1, 0, False), (5, 40, 0, 2, 0, True), (34, 40, 0, 7, 0, True),
        (35, 40, 0, 7, 0, False), (1, 2, 0, 1, 0, True), (1, 1, 0, 7, 0, False), (2, 3, 0, 1, 0, False),
        (4, 40, 1, 1, 0, False), (4, 40, 1, 1, 1, True), (39, 40, 1, 1, 1, True), (40, 40, 0, 1, 1, False),
    ],
)  # fmt: skip
def test_which_slabs_are_worth_emptying(refcnt, chunks, nomove, numer, desperate, worth):
    assert reclaimable(refcnt, chunks, nomove, numer, desperate) == worth


@pytest.mark.parametrize(
    ("numer", "found", "sought", "then"),
    [
        (3, 12, 12, 2), (1, 12, 12, 1), (3, 6, 12, 3), (3, 5, 12, 4), (7, 0, 12, 7), (3, 11, 12, 3),
        (3, -1, 12, 3), (1, -12, 12, 1),  # aborted scans: below zero is a huge number to the kernel
    ],
)  # fmt: skip
def test_the_threshold_after_12_scans(numer, found, sought, then):
    assert adjusted(numer, found, sought) == then


@pytest.mark.parametrize("movable", [0, 1, 2])
def test_which_caches_have_a_move_callback(movable):
    m = fresh(100, 4000, movable=movable)
    moves = m.state.cache[:, u.K_MOVES].tolist()
    sizes = [*layout.alloc_sizes(), 100, 4000]
    possible = [size <= 2688 for size in sizes[:-2]] + [True, layout.cache_layout(4000).slab >= 8000]
    begins = {0: len(moves), 1: u.FIRST_ALLOC + 46, 2: u.FIRST_ALLOC}[movable]
    want = [0] * u.FIRST_ALLOC + [int(p) for p in possible]
    assert moves == [w if k >= begins else 0 for k, w in enumerate(want)]


def sparse(slabs: int, left: int, **params: int) -> tuple[Hand, dict[int, int]]:
    """Slabs of 15 buffers, all but two with `left` of them; one in use of the last. No magazines. Objects by number."""
    m = fresh(256, **({"movable": 1, "magazines": 0} | params))
    addresses = {obj: m.alloc(256, item=0, obj=obj) for obj in range(15 * slabs)}
    live = {}
    for obj, addr in addresses.items():
        slab, place = divmod(obj, 15)
        keep = left if 0 < slab < slabs - 1 else 1 if slab else 9
        if place < keep:
            live[obj] = addr
        else:
            m.free(addr)
    return m, live


def test_each_update_empties_the_least_used_slab():
    m, live = sparse(102, 3)
    m.tend()
    assert m.moves == [(15 * 101, live[15 * 101], m.moves[0][2])]
    assert m.moves[0][2] // s.PAGE == 0  # into the fullest slab
    assert ("free", 101 * s.PAGE, s.PAGE) in m.map_log
    held = kmem.census(m.state)
    assert (held["moves_done"], held["moved_slabs"], held["slabs"]) == (1, 1, 101)


@pytest.mark.parametrize(("slabs", "moves"), [(100, 0), (101, 1)])
def test_caches_below_101_slabs_are_left_alone(slabs, moves):
    m, _ = sparse(slabs, 3)
    m.tend()
    assert len(m.moves) == moves


@pytest.mark.parametrize(("denom", "moves"), [(2, 1), (1, 0)])
def test_caches_that_are_not_fragmented_are_left_alone(denom, moves):
    m, _ = sparse(102, 3, frag_denom=denom)
    m.tend()
    assert len(m.moves) == moves


def test_slabs_above_the_threshold_come_in_when_12_scans_found_none():
    """3 of 15 used is above 1/8 and below 2/8. The one slab with a single object goes first."""
    m, live = sparse(103, 3)
    m.tend()
    assert len(m.moves) == 1
    for _ in range(11):
        m.tend()
    assert len(m.moves) == 1  # found 1 of 12 sought: the threshold goes up
    m.tend()
    assert len(m.moves) == 4
    assert {source // s.PAGE for _, source, _ in m.moves[1:]} == {101}
    assert all(live[obj] == source for obj, source, _ in m.moves)


def test_owners_that_refuse_thrice_make_their_slab_immovable_and_the_first_to_fill_up():
    m, live = sparse(102, 3)
    stuck = 15 * 101
    m.may_move = lambda obj: obj != stuck
    for refusals in (1, 2, 3):
        m.tend()
        held = kmem.census(m.state)
        assert (held["moves_later"], held["nomove_slabs"]) == (refusals, refusals == 3)
        assert held["slabs"] == 102
    m.tend()
    assert kmem.census(m.state)["moves_later"] == 3  # it is not asked again
    assert {m.alloc(256, item=0, obj=5000 + n) // s.PAGE for n in range(14)} == {101}
    assert m.alloc(256, item=0, obj=6000) // s.PAGE == 0
    # Full it is a slab like any other.
    m.free(live[stuck])
    assert m.state.slab[101, u.S_FLAGS] == 0


def test_a_slab_is_movable_again_once_the_object_that_refused_is_freed():
    m, live = sparse(102, 3)
    extra = [m.alloc(256, item=0, obj=9000 + n) for n in range(6)]
    assert {addr // s.PAGE for addr in extra} == {0}
    m.may_move = lambda obj: False
    for _ in range(3):
        m.tend()
    assert m.state.slab[101, u.S_FLAGS] & u.NOMOVE
    other = m.alloc(256, item=0, obj=7000)
    assert other // s.PAGE == 101
    m.free(live[15 * 101])
    assert not m.state.slab[101, u.S_FLAGS] & u.NOMOVE
    m.may_move = lambda obj: True
    m.tend()
    assert m.moves[-1][:2] == (7000, other)


def test_a_buffer_in_a_magazine_is_nobodys_and_stays():
    m = fresh(256, movable=1)
    slabs = [[m.alloc(256, item=0, obj=15 * n + k) for k in range(15)] for n in range(3)]
    for addresses in slabs:
        for addr in addresses[:5]:
            m.free(addr)
    m.state.cache[m.state.first_item, u.K_CONTENTION] += 10
    m.tend(s.TEND_TICK)  # larger magazines: what was in the old ones is in the slabs now, a third of each
    m.free(slabs[2][7])
    m.tend(s.TEND_REAP)
    held = kmem.census(m.state)
    assert (held["moves_done"], held["moves_unknown"], held["cpu_buffers"]) == (9, 1, 1)
    assert {obj for obj, _, _ in m.moves} == {30 + k for k in range(5, 15)} - {37}
    assert m.alloc(256, item=0, obj=99) == slabs[2][7]


def test_a_reap_moves_what_it_can_out_of_all_partial_slabs():
    m, live = sparse(60, 3)
    m.tend(s.TEND_REAP)
    held = kmem.census(m.state)
    assert held["moves_later"] == 0
    # 184 objects: with nothing else in the way they would fill 12 slabs and a part of one.
    assert len(live) == 58 * 3 + 9 + 1
    assert held["slabs"] == 13
    assert held["partial_slabs"] <= 1
    where = dict(live)
    for obj, source, to in m.moves:
        assert where[obj] == source
        where[obj] = to
    assert len(set(where.values())) == len(live)


def test_slabs_are_not_given_back_while_moves_are_pending():
    m, _ = sparse(60, 3)
    freed, at_call = lambda: [base for verb, base, _ in m.map_log if verb == "free" and base < 60 * s.PAGE], []
    before = len(freed())
    m.may_move = lambda obj: at_call.append(len(freed())) or True
    m.tend(s.TEND_REAP)
    assert set(at_call) == {before}
    assert len(freed()) == before + 47


def test_a_reap_does_not_mind_a_refusal_of_before():
    m, _ = sparse(102, 3, reap_wait=0)
    m.may_move = lambda obj: False
    for _ in range(3):
        m.tend()
    assert kmem.census(m.state)["nomove_slabs"] == 1
    asked = []
    m.may_move = lambda obj: asked.append(obj) or True
    m.tend(s.TEND_REAP)
    assert len(asked) > 102


def test_a_cache_whose_reapable_magazines_would_show_it_fragmented_is_reaped():
    m = fresh(256, movable=1)
    for addr in [m.alloc(256, item=0, obj=n) for n in range(15 * 101)]:
        m.free(addr)
    full = kmem.census(m.state)["depot_buffers"]
    assert full > 15 * 101 // 8
    m.tend()
    assert kmem.census(m.state)["depot_buffers"] == full  # none of it reapable yet
    m.tend()
    assert kmem.census(m.state)["depot_buffers"] == 0


def test_upkeep_that_is_asked_for_meanwhile_waits_its_turn():
    m = fresh()
    reg = np.zeros((2, regs.COLUMNS), np.int64)
    reg[0, regs.SIZE], reg[1, regs.SIZE] = s.TEND_TICK, s.TEND_TICK
    grow_depot(m)
    assert kmem.tend(m.state, reg, 0) == s.AGAIN
    assert kmem.tend(m.state, reg, 1) == s.DONE
    while kmem.tend(m.state, reg, 0) == s.AGAIN:
        pass
    assert m.state.cache[cache_number(m, 65536), u.K_FULL + u.LIMIT] == 47  # two updates have passed


@pytest.mark.parametrize(
    ("change", "text"), [({"kva": 1 << 44}, "8 TiB"), ({"max_cached": 100, "kva": MIB}, "max_cached")]
)
def test_what_cannot_be_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        fresh(**change)
