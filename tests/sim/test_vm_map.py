"""kernel_map of 2003: the reference's worked examples, and random programs against a naive twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from kmemexp.sim.arenas import vm_map
from kmemexp.sim.arenas._shared import map_entries as me
from kmemexp.sim.slots import ATTR_KMEM, ATTR_PAGEABLE, ATTR_SINGLE, ATTR_WIRED, NO_ENTRY, NO_SPACE, PAGE
from kmemexp.sim.tables import gauge
from tests.sim.naive_map import FixedSupply, NaiveSystem, ReserveSupply

FIXED = vm_map.Params()
RESERVE = vm_map.Params(supply=me.RESERVE)
MIB = 1 << 20


def kernel_map(pages, params=FIXED, cpus=1, maps=1):
    return vm_map.init(params, kva_bytes=pages * PAGE, cpus=cpus, maps=maps)


def alloc(st, nbytes, align=1, attr=ATTR_SINGLE, m=0, cpu=0):
    return vm_map.map_alloc(st, m, nbytes, align, attr, cpu)


def free(st, addr, nbytes, m=0, cpu=0):
    return vm_map.map_free(st, m, addr, nbytes, cpu)


def first_free(st, m=0):
    """Start of the entry that first_free names, or None for the header."""
    node = st.maps[m, me.FIRST_FREE]
    return None if node == m else int(st.node[node, me.START])


def hint(st, m=0):
    node = st.maps[m, me.HINT]
    return None if node == m else int(st.node[node, me.START])


def measure(st, m=0):
    out = np.zeros(gauge.COLUMNS, np.int64)
    vm_map.map_measure(st, m, out)
    return out


# The worked examples.


@pytest.fixture
def submap():
    """The map [0x1000, 0x100000) of the examples, as map 1."""
    st = kernel_map(256, maps=2)
    assert alloc(st, 0x1000) == 0
    assert alloc(st, 0xFF000) == 0x1000
    vm_map.add_map(st, 1, 0x1000, 0xFF000)
    return st


def test_first_fit_trace(submap):
    st = submap
    assert alloc(st, 0x2000, m=1) == 0x1000
    assert alloc(st, 0x1000, m=1) == 0x3000
    assert alloc(st, 0x2000, m=1) == 0x4000
    assert free(st, 0x3000, 0x1000, m=1) == 0
    assert first_free(st, 1) == 0x1000
    assert alloc(st, 0x2000, m=1) == 0x6000
    assert alloc(st, 0x1000, m=1) == 0x3000
    assert alloc(st, 0x1000, m=1) == 0x8000
    vm_map.check(st, 1)


def test_aligned_allocation_leaves_a_hole(submap):
    assert alloc(submap, 0x2000, m=1) == 0x1000
    assert alloc(submap, 0x2000, align=0x4000, m=1) == 0x4000
    assert alloc(submap, 0x2000, align=0x4000, m=1) == 0x8000
    assert [(a, b) for a, b, _ in vm_map.ranges(submap, 1)] == [
        (0x1000, 0x3000),
        (0x4000, 0x6000),
        (0x8000, 0xA000),
    ]


@pytest.mark.parametrize(("align", "addr"), [(0, 0x1000), (1, 0x1000), (0x2000, 0x2000), (0x3000, 0x3000)])
def test_alignment_by_mask_or_division(align, addr):
    st = kernel_map(64)
    alloc(st, 0x1000)
    assert alloc(st, 0x1000, align=align) == addr


def test_three_wired_pages_are_one_entry_and_the_middle_splits_it():
    st = kernel_map(64)
    for page in range(3):
        assert alloc(st, PAGE, attr=ATTR_WIRED) == page * PAGE
    assert vm_map.ranges(st, 0) == [(0, 3 * PAGE, ATTR_WIRED)]
    free(st, PAGE, PAGE)
    assert vm_map.ranges(st, 0) == [(0, PAGE, ATTR_WIRED), (2 * PAGE, 3 * PAGE, ATTR_WIRED)]
    assert alloc(st, PAGE, attr=ATTR_WIRED) == PAGE
    assert vm_map.ranges(st, 0) == [(0, 3 * PAGE, ATTR_WIRED)]


def test_pages_of_kmem_object_do_not_merge_with_those_of_kernel_object():
    st = kernel_map(64)
    for attr in (ATTR_WIRED, ATTR_KMEM, ATTR_KMEM, ATTR_WIRED):
        alloc(st, PAGE, attr=attr)
    wired = [(0, PAGE, ATTR_WIRED), (3 * PAGE, 4 * PAGE, ATTR_WIRED)]
    assert vm_map.ranges(st, 0) == [wired[0], (PAGE, 3 * PAGE, ATTR_KMEM), wired[1]]


def test_first_entry_becomes_first_free_even_above_a_hole():
    st = kernel_map(64)
    assert alloc(st, PAGE, align=4 * PAGE) == 0
    free(st, 0, PAGE)
    assert first_free(st) is None
    vm_map.add_map(st, 0, PAGE, 63 * PAGE)
    assert alloc(st, PAGE, align=4 * PAGE) == 4 * PAGE
    assert first_free(st) == 4 * PAGE
    # The hole below is out of sight …
    assert alloc(st, PAGE) == 5 * PAGE
    # … until something at first_free or below goes.
    free(st, 4 * PAGE, PAGE)
    assert first_free(st) is None
    assert alloc(st, PAGE) == PAGE


def test_freeing_where_nothing_is_forgets_first_free():
    st = kernel_map(64)
    alloc(st, PAGE)
    assert free(st, 8 * PAGE, PAGE) == 0
    assert first_free(st) is None
    assert alloc(st, PAGE) == PAGE


def test_pageable_extends_its_predecessor_and_never_a_wired_or_single_one():
    st = kernel_map(64)
    alloc(st, PAGE)
    alloc(st, PAGE, attr=ATTR_WIRED)
    alloc(st, PAGE, attr=ATTR_PAGEABLE)
    alloc(st, 2 * PAGE, attr=ATTR_PAGEABLE)
    alloc(st, PAGE)
    alloc(st, PAGE)
    assert vm_map.ranges(st, 0) == [
        (0, PAGE, ATTR_SINGLE),
        (PAGE, 2 * PAGE, ATTR_WIRED),
        (2 * PAGE, 5 * PAGE, ATTR_PAGEABLE),
        (5 * PAGE, 6 * PAGE, ATTR_SINGLE),
        (6 * PAGE, 7 * PAGE, ATTR_SINGLE),
    ]


def test_an_extension_takes_in_what_it_reaches():
    st = kernel_map(64)
    alloc(st, 3 * PAGE, attr=ATTR_PAGEABLE)
    free(st, PAGE, PAGE)
    assert alloc(st, PAGE, attr=ATTR_PAGEABLE) == PAGE
    assert vm_map.ranges(st, 0) == [(0, 3 * PAGE, ATTR_PAGEABLE)]


def test_free_over_several_entries_and_holes():
    st = kernel_map(64)
    for _ in range(6):
        alloc(st, 2 * PAGE)
    free(st, 4 * PAGE, 2 * PAGE)
    assert free(st, PAGE, 8 * PAGE) == 0
    assert [(a // PAGE, b // PAGE) for a, b, _ in vm_map.ranges(st, 0)] == [(0, 1), (9, 10), (10, 12)]
    assert vm_map.used(st, 0) == 4 * PAGE
    vm_map.check(st, 0)


# Running out.


def test_no_space_and_fragmentation_are_told_apart():
    st = kernel_map(8)
    for _ in range(8):
        alloc(st, PAGE)
    assert alloc(st, PAGE) == NO_SPACE
    assert vm_map.map_free_bytes(st, 0) == 0
    free(st, 0, PAGE)
    free(st, 4 * PAGE, PAGE)
    assert alloc(st, 2 * PAGE) == NO_SPACE
    assert vm_map.map_free_bytes(st, 0) == 2 * PAGE
    assert alloc(st, 9 * PAGE) == NO_SPACE
    vm_map.check(st, 0)


def test_a_map_that_was_not_added_has_no_space():
    st = kernel_map(8, maps=3)
    assert alloc(st, PAGE, m=2) == NO_SPACE
    assert measure(st, 2)[gauge.FREE] == 0


def test_kmapentzone_runs_out():
    st = kernel_map(1024, vm_map.Params(entry_limit=1, boot_entries=2))
    capacity = 2 + PAGE // 48  # the limit is rounded up to a page
    for page in range(capacity):
        assert alloc(st, PAGE) == page * PAGE
    assert alloc(st, PAGE) == NO_ENTRY
    assert vm_map.map_free_bytes(st, 0) == (1024 - capacity) * PAGE
    assert measure(st)[gauge.ENTRY_BYTES] == PAGE
    free(st, 0, PAGE)
    assert alloc(st, PAGE) == 0
    vm_map.check(st, 0)


def test_kmapentzone_runs_out_on_the_free_path():
    st = kernel_map(1024, vm_map.Params(entry_limit=1, boot_entries=2))
    alloc(st, 4 * PAGE)
    for _ in range(PAGE // 48):
        alloc(st, PAGE)
    # One entry is left: the middle of a range needs two, its end needs one.
    assert free(st, PAGE, PAGE) == NO_ENTRY
    assert vm_map.used(st, 0) == (4 + PAGE // 48) * PAGE
    vm_map.check(st, 0)
    free(st, 10 * PAGE, PAGE)
    assert free(st, PAGE, PAGE) == 0
    vm_map.check(st, 0)


def test_items_of_kmapentzone_straddle_its_pages():
    st = kernel_map(2048, vm_map.Params(entry_limit=1024))
    for _ in range(1000):
        assert alloc(st, PAGE) >= 0
    pages = vm_map.census(st)["zone_pages"]
    assert vm_map.census(st)["zone_free"] == 128 + pages * PAGE // 48 - 1000
    vm_map.check(st, 0)


def test_the_default_limit_of_entries_is_an_eighth_of_the_pages():
    assert kernel_map(8000).p.entry_limit == 1000


# Reservations.


def test_reservation_fills_the_cpu_and_gives_back_above_the_slop():
    st = kernel_map(256, RESERVE, cpus=2)
    assert vm_map.census(st)["zone_free"] == 256 - 16
    alloc(st, PAGE, cpu=1)
    assert st.supply[me.AVAIL :].tolist() == [0, 3]
    assert vm_map.census(st)["zone_free"] == 256 - 16 - 4
    for _ in range(60):
        alloc(st, PAGE)
    for page in range(60):
        free(st, page * PAGE, PAGE, cpu=1)
    assert st.supply[me.AVAIL + 1] == 32
    vm_map.check(st, 0)


def test_the_entry_zone_grows_out_of_kernel_map_at_its_place():
    st = kernel_map(1024, RESERVE)
    addresses = []
    while vm_map.census(st)["zone_pages"] == 0:
        addresses.append(alloc(st, PAGE))
    # Just before the allocation that ran into zfreemin, the zone took the next page for itself.
    assert addresses[-1] == addresses[-2] + 2 * PAGE
    zone_page = addresses[-2] + PAGE
    assert (zone_page, zone_page + PAGE, ATTR_WIRED) in vm_map.ranges(st, 0)
    assert measure(st)[gauge.ENTRY_BYTES] == PAGE
    for addr in addresses:
        free(st, addr, PAGE)
    assert vm_map.ranges(st, 0) == [(zone_page, zone_page + PAGE, ATTR_WIRED)]
    vm_map.check(st, 0)


def test_zone_that_cannot_grow_is_used_up():
    st = kernel_map(200, RESERVE._replace(boot_entries=100))
    held = []
    while (addr := alloc(st, PAGE)) >= 0:
        held.append(addr)
    assert addr in (NO_SPACE, NO_ENTRY)
    vm_map.check(st, 0)
    assert len(held) + vm_map.census(st)["zone_pages"] == 200


def test_no_entry_when_kernel_map_has_no_page_for_the_zone():
    st = kernel_map(512, RESERVE._replace(boot_entries=60), maps=2)
    # The zone takes a page for the first reservation; what is left of kernel_map becomes a submap.
    assert alloc(st, 511 * PAGE) == PAGE
    vm_map.add_map(st, 1, PAGE, 511 * PAGE)
    taken = 0
    while (addr := alloc(st, PAGE, m=1)) >= 0:
        taken += 1
    assert addr == NO_ENTRY
    counts = vm_map.census(st)
    assert (counts["zone_pages"], counts["zone_free"]) == (1, 0)
    assert taken == 60 + 85 - 2 - counts["cpu_entries"]
    assert 8 <= counts["cpu_entries"] < 8 + 4
    # Even to free an entry takes a reservation.
    assert free(st, PAGE, PAGE, m=1) == NO_ENTRY
    vm_map.check(st, 0)
    vm_map.check(st, 1)


def test_many_cpus_have_their_standing_reserves_in_the_image():
    st = kernel_map(64, RESERVE, cpus=64)
    assert vm_map.census(st)["zone_free"] == 256 - 16 * 8
    vm_map.check(st, 0)


@pytest.mark.parametrize(
    "params",
    [
        vm_map.Params(entry_bytes=0),
        vm_map.Params(entry_bytes=5000),
        RESERVE._replace(boot_entries=7),
        RESERVE._replace(reserve_count=1),
    ],
)
def test_impossible_supplies_are_refused(params):
    with pytest.raises(ValueError, match=r"entry_bytes|boot_entries|reserve_count"):
        kernel_map(64, params)


def test_a_map_in_use_is_not_redefined():
    st = kernel_map(64)
    alloc(st, PAGE)
    with pytest.raises(ValueError, match="in use"):
        vm_map.add_map(st, 0, 0, PAGE)


# Against the naive twin.

PAGES = 160
SUBMAPS = ((20, 60), (60, 75))  # pages of kernel_map that maps 1 and 2 manage

sizes = hs.integers(1, 8)
aligns = hs.sampled_from((1, 1, 1, 2, 4, 8, 3, 5))
attrs = hs.sampled_from((ATTR_SINGLE, ATTR_WIRED, ATTR_WIRED, ATTR_KMEM, ATTR_PAGEABLE))
where = hs.integers(0, 2)
cpu = hs.integers(0, 1)
allocs = hs.tuples(hs.just("alloc"), where, sizes, aligns, attrs, cpu)
frees = hs.tuples(hs.just("free"), where, hs.integers(0, 99), hs.integers(0, 7), hs.integers(0, 12), cpu)
programs = hs.lists(allocs | allocs | frees, max_size=70)
supplies = hs.one_of(
    hs.tuples(hs.just(me.FIXED), hs.sampled_from((4, 12, 128)), hs.sampled_from((1, 90))),
    hs.tuples(hs.just(me.RESERVE), hs.sampled_from((16, 20, 60, 110, 256)), hs.just(0)),
)


def twins(supply, boot, limit):
    """The same three maps, compiled and naive; kernel_map begins with 20 free pages below the submaps."""
    # The fixed supply has a page's worth of entries beyond `boot`, unless they are larger than a page can hold.
    size = 1024 if supply == me.FIXED else 48
    params = vm_map.Params(supply=supply, boot_entries=boot, entry_limit=limit, entry_bytes=size)
    st = kernel_map(PAGES, params, cpus=2, maps=3)
    naive_supply = FixedSupply(boot, limit, size) if supply == me.FIXED else ReserveSupply(boot, 2)
    naive = NaiveSystem([(0, PAGES), *SUBMAPS], naive_supply)
    for m in naive.maps:
        m.base, m.top, m.high = m.base * PAGE, m.top * PAGE, m.high * PAGE
    for m, (low, high) in enumerate(SUBMAPS, 1):
        vm_map.add_map(st, m, low * PAGE, (high - low) * PAGE)
    play(st, naive, ("alloc", 0, 20, 1, ATTR_SINGLE, 0))
    for low, high in SUBMAPS:
        play(st, naive, ("alloc", 0, high - low, 1, ATTR_SINGLE, 0))
    return st, naive


def play(st, naive, step):
    """One operation on both; a free picks part of the live memory, sometimes across entries and holes."""
    verb, m, *args, cpu = step
    if verb == "alloc":
        pages, align, attr = args
        align = align * PAGE if align > 1 else 1
        got = vm_map.map_alloc(st, m, pages * PAGE, align, attr, cpu)
        assert got == naive.alloc(m, pages * PAGE, align, attr, cpu)
        if got >= 0:
            assert got % align == 0
        return
    entries = [e for e in naive.maps[m].entries if not is_submap(m, e)]
    if entries:
        pick, skip, pages = args
        e = entries[pick % len(entries)]
        addr = e.start + skip % ((e.end - e.start) // PAGE) * PAGE
        stop = min(addr + (pages or 1) * PAGE, naive.maps[m].top)
        if m == 0 and any(addr < high * PAGE and stop > low * PAGE for low, high in SUBMAPS):
            stop = e.end
        assert vm_map.map_free(st, m, addr, stop - addr, cpu) == naive.free(m, addr, stop - addr, cpu)


def is_submap(m, e):
    return m == 0 and any(low * PAGE <= e.start < high * PAGE for low, high in SUBMAPS)


def assert_equal(st, naive):
    counts = vm_map.census(st)
    assert counts["zone_free"] == naive.supply.free
    assert counts["zone_pages"] == naive.supply.pages
    if isinstance(naive.supply, ReserveSupply):
        assert st.supply[me.AVAIL :].tolist() == naive.supply.avail
    for m, twin in enumerate(naive.maps):
        assert vm_map.ranges(st, m) == [(e.start, e.end, e.attr) for e in twin.entries]
        assert first_free(st, m) == (twin.first_free.start if twin.first_free else None)
        assert hint(st, m) == (twin.hint.start if twin.hint else None)
        assert st.maps[m, me.WALKED] == twin.walked
        assert st.maps[m, me.HIGH] == twin.high
        assert vm_map.map_free_bytes(st, m) == twin.top - twin.base - sum(e.end - e.start for e in twin.entries)
        vm_map.check(st, m)


quick = settings(max_examples=150)


@quick
@given(supply=supplies, program=programs)
def test_same_as_the_naive_map_step_by_step(supply, program):
    st, naive = twins(*supply)
    assert_equal(st, naive)
    for step in program:
        play(st, naive, step)
        assert_equal(st, naive)


@pytest.mark.parametrize("supply", [(me.FIXED, 128, 90), (me.RESERVE, 60, 0)])
def test_same_as_the_naive_map_over_a_long_run(supply):
    rng = np.random.default_rng(1)
    st, naive = twins(*supply)
    for _ in range(3000):
        m, cpu, pick = (int(x) for x in rng.integers((3, 2, 100)))
        if rng.random() < 0.5:
            align = int(rng.choice((1, 1, 1, 4, 3)))
            play(st, naive, ("alloc", m, 1 + pick % 4, align, int(rng.integers(3)), cpu))
        else:
            play(st, naive, ("free", m, pick, int(rng.integers(4)), int(rng.integers(4)), cpu))
    assert_equal(st, naive)


@quick
@given(program=programs)
def test_live_ranges_never_overlap(program):
    st = kernel_map(100)
    live, total = {}, 0
    for step in program:
        if step[0] == "alloc":
            _, _, pages, align, attr, _ = step
            addr = alloc(st, pages * PAGE, align * PAGE, attr)
            if addr >= 0:
                assert all(addr + pages * PAGE <= a or a + n <= addr for a, n in live.items())
                live[addr] = pages * PAGE
        elif live:
            addr = sorted(live)[step[2] % len(live)]
            assert free(st, addr, live.pop(addr)) == 0
        total = sum(live.values())
        assert vm_map.used(st, 0) == total
        assert vm_map.map_free_bytes(st, 0) == 100 * PAGE - total


# Measuring.


def bitmap(st, m):
    base, top = (int(x) // PAGE for x in st.node[m, [me.START, me.END]])
    pages = np.zeros(top - base, bool)
    for start, end, _ in vm_map.ranges(st, m):
        pages[start // PAGE - base : end // PAGE - base] = True
    return pages


@quick
@given(program=programs, bins=hs.integers(1, 200))
def test_measure_and_paint_agree_with_a_bitmap(program, bins):
    st, naive = twins(me.FIXED, 128, 90)
    for step in program:
        play(st, naive, step)
    for m in range(3):
        pages, out = bitmap(st, m), measure(st, m)
        runs = [len(r) for r in "".join(" #"[int(p)] for p in pages).split("#") if r]
        assert out[gauge.FREE] == (~pages).sum() * PAGE
        assert out[gauge.LARGEST] == max(runs, default=0) * PAGE
        assert out[gauge.HOLES] == len(runs)
        assert out[gauge.ENTRIES] == len(vm_map.ranges(st, m))
        assert out[gauge.HIGH] == st.maps[m, me.HIGH] - st.node[m, me.START]
        assert out[gauge.ENTRY_BYTES] == (vm_map.census(st)["zone_pages"] * PAGE if m == 0 else 0)
        classes = np.zeros(gauge.CLASSES, np.int64)
        for run in runs:
            classes[run.bit_length() - 1] += run * PAGE
        assert out[gauge.HIST : gauge.CLAIMS].tolist() == classes.tolist()
        painted = np.full(bins, 7.0)
        vm_map.map_paint(st, m, painted)
        exact = np.repeat(pages, bins).reshape(bins, len(pages)).mean(axis=1)
        np.testing.assert_allclose(painted, exact, atol=1e-9)
        assert painted.max() <= 1


def test_high_water_stays_when_memory_goes():
    st = kernel_map(64, maps=2)
    alloc(st, 8 * PAGE)
    vm_map.add_map(st, 1, 0, 8 * PAGE)
    alloc(st, 3 * PAGE, m=1)
    free(st, 0, 3 * PAGE, m=1)
    assert measure(st, 1)[gauge.HIGH] == 3 * PAGE
    assert measure(st, 0)[gauge.HIGH] == 8 * PAGE


def test_searches_are_counted():
    st = kernel_map(64)
    for _ in range(5):
        alloc(st, PAGE)
    free(st, 0, PAGE)  # first_free := header
    before = measure(st)[gauge.WALKED]
    assert alloc(st, 2 * PAGE) == 5 * PAGE
    # Four entries to the end of the list, and one when the insertion looks the place up.
    assert measure(st)[gauge.WALKED] - before == 4 + 1


def test_painting_an_empty_map_of_no_size():
    st = kernel_map(4, maps=2)
    bins = np.ones(3)
    vm_map.map_paint(st, 1, bins)
    assert bins.tolist() == [0, 0, 0]
