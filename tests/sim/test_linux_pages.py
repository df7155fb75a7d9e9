"""Linux's direct map with everyone in it: watermarks, reclaim, readahead, stealing, compaction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from kmemexp.jit import entry
from kmemexp.sim.arenas import linux_mm
from kmemexp.sim.arenas.buddy import index
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import contents, highatomic, owners, state
from kmemexp.sim.maps import DIRECT, MAP_NAMES
from kmemexp.sim.slots import (
    ATTR_ATOMIC,
    ATTR_FILE,
    ATTR_PAGEABLE,
    ATTR_RECLAIM,
    ATTR_SINGLE,
    ATTR_SPREAD,
    ATTR_TRY,
    ATTR_WIRED,
    NO_SPACE,
    PAGE,
    WHO_SHIFT,
)
from kmemexp.sim.tables import gauge
from tests.sim.naive_shared import ANON, ATOMIC, FILE, KERNEL, NORMAL, NaiveShared

RAM = 4096
SORTS = {
    ANON: ATTR_PAGEABLE | ATTR_SPREAD,
    FILE: ATTR_PAGEABLE | ATTR_SPREAD | ATTR_FILE,
    KERNEL: ATTR_WIRED | ATTR_SPREAD,
}


def booted(ram=RAM, cpus=2, **params):
    params = {"pressure": 1, "compaction": 0, **params}
    st = linux_mm.init(linux_mm.Params(**params), kva_bytes=2 * ram * PAGE, cpus=cpus, maps=len(MAP_NAMES))
    base = linux_mm.map_alloc(st, 0, ram * PAGE, PAGE, ATTR_SINGLE, 0)
    linux_mm.add_map(st, DIRECT, base, ram * PAGE)
    return st


def kernel(st, pages=1, cpu=0, extra=0):
    addr = linux_mm.map_alloc(st, DIRECT, pages * PAGE, PAGE, ATTR_WIRED | extra, cpu)
    return addr // PAGE if addr >= 0 else addr


def owner(st, pages, sort, largest=0, cpu=0):
    return linux_mm.map_alloc(st, DIRECT, pages * PAGE, PAGE, SORTS[sort] | largest << WHO_SHIFT, cpu)


def free(st, addr, cpu=0):
    assert linux_mm.map_free(st, DIRECT, addr, PAGE, cpu) == 0


def measure(st):
    out = np.zeros(gauge.COLUMNS, np.int64)
    linux_mm.map_measure(st, DIRECT, out)
    return out


def test_watermarks_are_those_of_a_kernel_with_huge_pages():
    """T9 and T10 of linux_today.md: what is low memory there is one zone here."""
    for pages, kib in ((3840 + 772915 + 262144, 67584), (3840 + 772915 + 15_700_000, 67584)):
        assert index.min_free_with_huge_pages(pages, 3) == kib
    assert index.min_free_with_huge_pages(64_000_000, 4) == 90112
    assert index.min_free_with_huge_pages(3840 + 772915 + 131_000_000 + 131_700_000, 4) == 129855
    st = booted()
    assert st.zones[0, [state.MIN, state.LOW, state.HIGH]].tolist() == [
        204,
        255,
        306,
    ]  # a twentieth of 4096 pages; 816 KiB


def test_a_file_is_read_in_windows_that_double_and_folios_that_grow_by_two_orders():
    st = booted()
    for pages, largest, want in (
        (100, 9, [1] * 4 + [4] * 3 + [8, 8, 16, 16, 32, 4]),
        (100, 3, [1] * 4 + [4] * 3 + [8] * 10 + [4]),
        (40, 0, [1] * 40),
    ):
        handle = owner(st, pages, FILE, largest)
        (blocks,) = contents.owned(st).values()
        assert list(blocks.values())[::-1] == want
        free(st, handle)


@pytest.mark.parametrize(
    ("extra", "least"), [(0, 204), (ATTR_ATOMIC, 77), (ATTR_TRY, 204), (ATTR_TRY | ATTR_ATOMIC, 77)]
)
def test_each_class_goes_down_to_its_own_mark(extra, least):
    """T11's ratios: m, and 3/8 m for GFP_ATOMIC; nothing can be reclaimed, so nothing else helps."""
    st = booted(pcp=0)
    while kernel(st, extra=extra) >= 0:
        pass
    assert st.buddy.maps[0, z.FREE] == least
    linux_mm.check(st, DIRECT)


def test_page_cache_fills_what_is_free_and_kswapd_keeps_the_marks():
    st = booted()
    for _ in range(200):
        assert owner(st, 64, FILE) > 0
    assert st.zones[0, state.LOW] - 32 <= st.buddy.maps[0, z.FREE] <= st.zones[0, state.HIGH] + 64
    assert st.meters[state.BY_KSWAPD] > 0
    assert st.meters[state.STALLS] == 0
    seen = measure(st)
    assert seen[gauge.FILE_PAGES] == st.meters[state.PAGES_OF + FILE] > RAM * 0.8
    linux_mm.check(st, DIRECT)


def test_without_kswapd_requests_reclaim_by_themselves():
    st = booted(kswapd_batch=0)
    for _ in range(200):
        assert owner(st, 64, FILE) > 0
    assert st.meters[state.BY_KSWAPD] == 0
    assert st.meters[state.STALLS] > 0
    assert st.meters[state.BY_REQUEST] > 0
    assert np.sum(linux_mm.take_rounds(st)) >= st.meters[state.STALLS]
    assert not np.any(linux_mm.take_rounds(st))
    linux_mm.check(st, DIRECT)


def test_user_memory_that_does_not_fit_is_refused_whole():
    st = booted()
    before = measure(st)[gauge.FREE]
    assert owner(st, RAM, ANON) == NO_SPACE
    assert measure(st)[gauge.FREE] == before
    assert not contents.owned(st)
    linux_mm.check(st, DIRECT)


def test_a_file_that_is_gone_may_be_freed():
    st = booted()
    first = owner(st, 64, FILE)
    for _ in range(200):
        owner(st, 64, FILE)
    assert all(len(blocks) <= 64 for blocks in contents.owned(st).values())
    free(st, first)
    linux_mm.check(st, DIRECT)


def test_slabs_steal_from_movable_pageblocks_when_memory_is_full():
    """With page cache and user memory everywhere the kernel's pages end up in their pageblocks."""
    st = booted()
    for i in range(300):
        owner(st, 16, ANON if i % 2 and i < 150 else FILE)
    for _ in range(600):
        assert kernel(st) >= 0
    seen = measure(st)
    assert seen[gauge.CLAIMS] + seen[gauge.STEALS] > 0
    assert seen[gauge.PAGEBLOCKS : gauge.PAGEBLOCKS + 3].sum() == RAM // 512
    assert seen[gauge.STUCK] > 0
    orders = 2 ** np.arange(gauge.ORDERS)
    listed = seen[gauge.FREE_BLOCKS : gauge.PAGEBLOCKS].reshape(3, -1) @ orders
    assert listed.sum() == st.buddy.maps[0, z.FREE]
    linux_mm.check(st, DIRECT)


def test_compaction_makes_a_block_where_only_single_pages_are_free():
    st = booted(compaction=1)
    pages = [owner(st, 1, ANON) for _ in range(3600)]
    for handle in pages[1::2]:
        free(st, handle)
    linux_mm.check(st, DIRECT)
    counts = [len(own) for own in contents.owned(st).values()]
    assert kernel(st, 512) >= 0
    assert st.meters[state.MIGRATED] > 0
    assert st.meters[state.GOT_BLOCK] > 0
    assert [len(own) for own in contents.owned(st).values()] == counts
    linux_mm.check(st, DIRECT)


spread = hs.tuples(
    hs.just("spread"), hs.sampled_from((ANON, FILE, FILE, KERNEL)), hs.sampled_from((1, 5, 40, 300)),
    hs.sampled_from((0, 0, 3, 9)), hs.integers(0, 1), hs.integers(1, 6),
)  # fmt: skip
kernels = hs.tuples(
    hs.just("kernel"), hs.sampled_from((1, 1, 2, 3, 8, 64)),
    hs.sampled_from((0, 0, ATTR_ATOMIC, ATTR_RECLAIM, ATTR_TRY)), hs.integers(0, 1), hs.integers(1, 90),
)  # fmt: skip
ends = hs.tuples(hs.sampled_from(("end", "free")), hs.integers(0, 99), hs.integers(0, 1), hs.integers(1, 40))
programs = hs.lists(spread | spread | kernels | ends, max_size=40)


def play(st, twin, program):
    """Play a program on an arena and on its twin, if there is one; every answer must be the same."""
    handles, pages = {}, []
    for verb, *args in program:
        for _ in range(args.pop()):
            if verb == "spread":
                sort, n, largest, cpu = args
                handle = owner(st, n, sort, largest, cpu)
                name = twin.spread(n, sort, largest, cpu) if twin else handle
                assert (handle == NO_SPACE) == (name is None or name == NO_SPACE)
                if handle >= 0:
                    handles[handle] = name
            elif verb == "kernel":
                n, extra, cpu = args
                page = kernel(st, n, cpu, extra)
                if twin:
                    klass = ATOMIC if extra == ATTR_ATOMIC else 2 if extra == ATTR_TRY else NORMAL
                    assert page == twin.kernel(n, cpu, klass, extra == ATTR_RECLAIM)
                if page >= 0:
                    pages.append(page)
            elif verb == "end" and handles:
                handle = sorted(handles)[args[0] % len(handles)]
                free(st, handle, args[1])
                name = handles.pop(handle)
                if twin:
                    twin.end(name, args[1])
            elif verb == "free" and pages:
                page = pages.pop(args[0] % len(pages))
                free(st, page * PAGE, args[1])
                if twin:
                    twin.release(page, args[1])


@settings(max_examples=25)
@given(program=programs, batch=hs.sampled_from((0, 32)))
def test_same_as_the_naive_twin(program, batch):
    st = booted(kswapd_batch=batch)
    twin = NaiveShared(RAM, 2, batch)
    play(st, twin, program)
    assert linux_mm.census(st)["claims"] == twin.claims
    assert linux_mm.census(st)["steals"] == twin.steals
    assert st.meters[state.STALLS] == twin.stalls
    assert st.meters[state.BY_KSWAPD] == twin.by_kswapd
    assert st.meters[state.BY_REQUEST] == twin.by_request
    assert linux_mm.take_rounds(st) == [twin.rounds]
    linux_mm.check(st, DIRECT)


@settings(max_examples=15)
@given(program=programs)
def test_no_page_is_lost_whoever_moves_it(program):
    st = booted(compaction=1)
    play(st, None, program)
    linux_mm.check(st, DIRECT)
    seen = measure(st)
    shared = seen[gauge.ANON_PAGES : gauge.KERNEL_PAGES + 1].sum()
    assert seen[gauge.FREE] // PAGE + linux_mm.used(st, DIRECT) // PAGE == RAM
    assert shared <= linux_mm.used(st, DIRECT) // PAGE


BLOCK = 16  # pages of a pageblock, so that a hundredth of 4096 pages is 48: three of them


def reserving(**params):
    """A zone that has gone down to its min watermark, whose free pages are in blocks of 16 and more."""
    st = booted(**{"pcp": 0, "kswapd_batch": 0, "pageblock_order": 4, **params})
    while kernel(st) >= 0:
        pass
    return st


def test_pages_that_could_not_wait_have_their_pageblock_kept_for_others_like_them():
    st = reserving()
    page = kernel(st, 4, extra=ATTR_ATOMIC)
    assert page >= 0
    assert entry_type(st, page) == z.HIGHATOMIC
    assert st.buddy.maps[0, z.RESERVED] == BLOCK
    assert 4 <= st.buddy.maps[0, z.RESERVED_FREE] <= BLOCK - 4
    assert kernel(st, 4, extra=ATTR_ATOMIC) & -BLOCK == page & -BLOCK
    linux_mm.check(st, DIRECT)
    assert measure(st)[gauge.RESERVED_BLOCKS] == 1
    assert measure(st)[gauge.PAGEBLOCKS : gauge.STUCK].sum() == RAM // BLOCK - 1


def entry_type(st, page):
    return int(st.buddy.blocks[st.buddy.maps[0, z.BLOCKS] + page // BLOCK])


def test_single_pages_and_whoever_may_wait_reserve_nothing_and_do_not_count_what_is():
    st = booted(pcp=0, kswapd_batch=0, pageblock_order=4)
    assert kernel(st, 4, extra=ATTR_ATOMIC) >= 0  # above the low watermark
    st = reserving()
    assert kernel(st, 1, extra=ATTR_ATOMIC) >= 0
    assert kernel(st, 4, extra=ATTR_TRY) == NO_SPACE
    assert st.buddy.maps[0, z.RESERVED] == 0
    kept = kernel(st, 4, extra=ATTR_ATOMIC)
    free(st, kept * PAGE)
    assert st.buddy.maps[0, z.RESERVED_FREE] >= 4
    for page in range(int(st.buddy.maps[0, z.BASE]), int(st.buddy.maps[0, z.BASE]) + 3):
        free(st, page * PAGE)  # fewer than are kept
    assert kernel(st, extra=ATTR_TRY) == NO_SPACE
    assert kernel(st, extra=ATTR_ATOMIC) >= 0


def test_a_hundredth_of_the_zone_is_kept_and_nothing_of_one_in_which_that_is_no_pageblock():
    st = reserving()
    while kernel(st, 8, extra=ATTR_ATOMIC) >= 0:
        pass
    assert st.buddy.maps[0, z.RESERVED] == 3 * BLOCK
    linux_mm.check(st, DIRECT)
    for params in ({"pageblock_order": 6}, {"highatomic": 0}):  # 64 pages: a hundredth is 40
        st = reserving(**params)
        assert kernel(st, 4, extra=ATTR_ATOMIC) >= 0
        assert st.buddy.maps[0, z.RESERVED] == 0


def test_what_is_kept_is_given_back_but_for_the_last_and_all_before_a_request_fails():
    st = reserving()
    pages = [kernel(st, 8, extra=ATTR_ATOMIC) for _ in range(3)]
    assert st.buddy.maps[0, z.RESERVED] == 2 * BLOCK
    for page in pages:
        free(st, page * PAGE)
    assert 8 <= highatomic.unreserve(st, 0, z.UNMOVABLE, 0) <= BLOCK
    assert highatomic.unreserve(st, 0, z.UNMOVABLE, 0) == 0
    assert st.buddy.maps[0, z.RESERVED] == BLOCK
    for page in range(int(st.buddy.maps[0, z.BASE]), int(st.buddy.maps[0, z.BASE]) + 10):
        free(st, page * PAGE)
    assert kernel(st) >= 0  # there is nothing to reclaim
    assert st.buddy.maps[0, z.RESERVED] == 0
    linux_mm.check(st, DIRECT)


def burst(st, live, many, pages, extra, sort):
    """Ask so often for pages: of an owner of a sort where `extra` is FILE, else of the kernel."""
    for _ in range(many):
        page = kernel(st, pages, extra=extra) * PAGE if extra != FILE else owner(st, pages, sort)
        if page >= 0:
            live.append(page)


def ebb(st, live, percent):
    """Free that part of what lives."""
    for _ in range(percent * len(live) // 100):
        free(st, live.pop(percent % len(live)))


requests = hs.tuples(hs.integers(1, 12), hs.sampled_from([0, ATTR_ATOMIC, ATTR_ATOMIC, FILE]), hs.integers(1, 40))


@settings(max_examples=40)
@given(hs.lists(hs.tuples(requests, hs.integers(0, 99)), min_size=3, max_size=30))
def test_no_page_is_lost_where_pageblocks_are_kept(program):
    st = booted(ram=2048, pageblock_order=4, compaction=1, kswapd_batch=4)
    live = []
    for (pages, extra, many), which in program:
        burst(st, live, many, pages, extra, FILE)
        ebb(st, live, which)
        assert 0 <= st.buddy.maps[0, z.RESERVED_FREE] <= st.buddy.maps[0, z.RESERVED] <= 2 * BLOCK
        linux_mm.check(st, DIRECT)


def test_dirty_pages_are_passed_by_until_they_are_written_and_clean_ones_go_first():
    st = booted(dirty_percent=50, dirty_background_percent=100, dirty_limit_percent=100, flush_batch=0)
    handles = [owner(st, 100, FILE) for _ in range(30)]
    assert st.meters[state.DIRTY] == 1500  # every second file
    while st.meters[state.BY_KSWAPD] < 500:
        kernel(st)
    assert st.meters[state.DIRTY] == 1500
    alive = [h for h in handles if entry(owners.owner_of)(st, h) >= 0]
    assert len(alive) < 30
    assert all(h in alive for h in handles[1::2])
    linux_mm.check(st, DIRECT)


def test_a_request_that_finds_only_dirty_pages_waits_until_some_are_written():
    st = booted(dirty_percent=100, dirty_background_percent=100, dirty_limit_percent=100, kswapd_batch=0)
    while st.meters[state.WRITE_WAITS] == 0:
        assert owner(st, 64, FILE) > 0
    assert st.meters[state.WRITTEN] >= 1024
    assert st.meters[state.BY_REQUEST] >= 32
    linux_mm.check(st, DIRECT)


def test_the_flusher_keeps_to_its_share_and_writers_wait_beyond_theirs():
    st = booted(dirty_percent=100)  # 10 and 20 % of what could be dirty, about 3 900 pages
    for _ in range(8):
        owner(st, 64, FILE)
    assert st.meters[state.DIRTY] > 400
    assert st.meters[state.FLUSHING] == 1
    while st.meters[state.FLUSHING]:
        kernel(st)
    assert st.meters[state.DIRTY] < 400
    assert st.meters[state.WRITE_WAITS] == 0
    st = booted(dirty_percent=100, flush_batch=0)
    for _ in range(20):
        owner(st, 64, FILE)
        assert st.meters[state.DIRTY] <= 4096 // 5 + 64
    assert st.meters[state.WRITE_WAITS] > 0
    linux_mm.check(st, DIRECT)


def test_without_swap_anonymous_pages_stay_and_with_it_they_make_room_until_it_is_full():
    st = booted()
    assert owner(st, 3000, ANON) > 0
    assert owner(st, 1000, ANON) == NO_SPACE
    st = booted(swap_mib=4)
    handles = [owner(st, 1000, ANON) for _ in range(4)]
    assert min(handles) > 0
    used = int(st.meters[state.SWAP_USED])
    assert 200 < used <= 1024
    assert measure(st)[gauge.SWAPPED] == used
    linux_mm.check(st, DIRECT)
    assert owner(st, 1000, ANON) == NO_SPACE
    for handle in handles:
        free(st, handle)
    assert st.meters[state.SWAP_USED] == st.meters[state.PAGES_OF + ANON] == 0
    linux_mm.check(st, DIRECT)


def test_files_and_anonymous_pages_go_by_swappiness():
    taken = {}
    for swappiness in (0, 60, 100):
        st = booted(swap_mib=16, swappiness=swappiness)
        for _ in range(10):
            owner(st, 150, ANON)
            owner(st, 150, FILE)
        for _ in range(1400):
            kernel(st)
        every = st.meters[state.BY_KSWAPD] + st.meters[state.BY_REQUEST]
        taken[swappiness] = int(st.meters[state.SWAPPED_OUT]), int(every)
    assert taken[0][0] == 0 < taken[0][1]
    assert taken[60][0] / taken[60][1] == pytest.approx(0.3, abs=0.1)
    assert taken[100][0] / taken[100][1] == pytest.approx(0.5, abs=0.1)


@settings(max_examples=40)
@given(hs.lists(hs.tuples(requests, hs.booleans(), hs.integers(0, 99)), min_size=3, max_size=30))
def test_no_page_is_lost_where_files_are_dirty_and_there_is_swap(program):
    st = booted(ram=1024, dirty_percent=60, swap_mib=1, compaction=1, kswapd_batch=4)
    live = []
    for (pages, extra, many), anonymous, which in program:
        if anonymous:
            burst(st, live, many, 3 * pages, FILE, ANON)
        else:
            burst(st, live, many, pages * (3 if extra == FILE else 1), extra, FILE)
        ebb(st, live, which)
        assert st.meters[state.SWAP_USED] <= 256
        linux_mm.check(st, DIRECT)
