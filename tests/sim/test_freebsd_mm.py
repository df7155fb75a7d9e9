"""FreeBSD 15's levels of arenas, free pages and reservations: the reference's examples, and a naive twin of pages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as h

from kmemexp.sim.arenas import freebsd_mm as mm
from kmemexp.sim.arenas.freebsd_mm import phys
from kmemexp.sim.arenas.freebsd_mm import state as s
from kmemexp.sim.maps import DIRECT, KERNEL
from kmemexp.sim.slots import (
    ATTR_CONTIG,
    ATTR_NOFREE,
    ATTR_PAGEABLE,
    ATTR_SINGLE,
    ATTR_STACK,
    ATTR_WIRED,
    NO_SPACE,
    PAGE,
)
from kmemexp.sim.tables import gauge, regs

KIB, MIB = 1 << 10, 1 << 20
SUPERPAGE = 2 * MIB


def machine(ram: int = 64 * MIB, cpus: int = 1, domains: int = 1, **params: int) -> mm.State:
    """A machine whose direct map lies at the end of its KVA, so that kernel_map begins at 0."""
    kva = 4096 * MIB
    st = mm.init(mm.Params(ram_bytes=ram, domains=domains, **params), kva_bytes=kva, cpus=cpus, maps=9)
    mm.add_map(st, DIRECT, kva - ram, ram)
    return st


def malloc(st: mm.State, nbytes: int, cpu: int = 0) -> int:
    return int(mm.map_alloc(st, KERNEL, nbytes, PAGE, ATTR_WIRED, cpu))


def kva(st: mm.State, nbytes: int) -> int:
    return int(mm.map_alloc(st, KERNEL, nbytes, PAGE, ATTR_PAGEABLE, 0))


def page(st: mm.State, cpu: int = 0, n: int = 1, attr: int = ATTR_WIRED) -> int:
    """First page of what the direct map gives, from its beginning."""
    addr = int(mm.map_alloc(st, DIRECT, n * PAGE, PAGE, attr, cpu))
    return addr // PAGE - int(st.phys.base[0]) if addr >= 0 else addr


def give(st: mm.State, first: int, cpu: int = 0, n: int = 1) -> None:
    mm.map_free(st, DIRECT, (first + int(st.phys.base[0])) * PAGE, n * PAGE, cpu)


def free_of(st: mm.State, a: int) -> list[tuple[int, int]]:
    """Free segments of an arena, in KiB."""
    g = mm.vmem.g
    return [(x // KIB, y // KIB) for x, y, kind, _ in g.segments(st.kva, a) if kind == g.FREE]


def test_wired_and_other_memory_are_placed_in_superpages_of_their_own():
    st = machine()
    for ask, nbytes, at in [
        (malloc, 8 * KIB, 0), (kva, 16 * KIB, 2 * MIB), (malloc, 8 * KIB, 8 * KIB), (kva, 64 * KIB, 2064 * KIB),
        (malloc, 2 * MIB, 4 * MIB), (malloc, 512 * KIB, 16 * KIB), (malloc, MIB, 528 * KIB),
        (malloc, 600 * KIB, 6 * MIB), (kva, 2 * MIB, 8 * MIB), (malloc, 2 * MIB, 10 * MIB),
    ]:  # fmt: skip
        assert ask(st, nbytes) == at
    assert free_of(st, 0) == [(2128, 4096)]
    assert free_of(st, 9) == [(1552, 2048), (6744, 8192)]
    mm.check(st, KERNEL)
    mm.check(st, DIRECT)


@pytest.mark.parametrize(("join", "at"), [(0, 512 * MIB), (1, 258 * MIB)])
def test_several_domains_import_256_mib_each(join, at):
    """Since arenas that give nothing back join their spans, the second import begins in what was left of the first."""
    st = machine(ram=2048 * MIB, cpus=2, domains=2, join_spans=join)
    assert malloc(st, 8 * KIB) == 0
    assert kva(st, 16 * KIB) == 256 * MIB
    assert malloc(st, 300 * MIB) == at
    mm.check(st, KERNEL)
    mm.check(st, DIRECT)


@pytest.mark.parametrize(("join", "calls"), [(0, 60), (1, 61)])
def test_imports_of_six_mib_serve_so_many_requests_of_100_kib(join, calls):
    """Twenty to a superpage, of which kernel_arena brings three; where spans are joined, what is left serves too."""
    st = machine(ram=64 * MIB, join_spans=join)
    before = mm.census(st)["imports"]
    for _ in range(calls):
        malloc(st, 100 * KIB)
    assert mm.census(st)["imports"] == before + 1
    malloc(st, 100 * KIB)
    assert mm.census(st)["imports"] == before + 2


@settings(max_examples=30)
@given(h.lists(h.tuples(h.booleans(), h.integers(1, 900), h.integers(0, 3)), min_size=1, max_size=40))
def test_wired_memory_shares_no_superpage_with_other_memory(program):
    st = machine(ram=512 * MIB, cpus=4, domains=2)
    held = {True: set(), False: set()}
    for wired, pages, cpu in program:
        addr = malloc(st, pages * PAGE, cpu) if wired else kva(st, pages * PAGE)
        assert addr >= 0
        held[wired] |= set(range(addr // SUPERPAGE, (addr + pages * PAGE - 1) // SUPERPAGE + 1))
    assert not held[True] & held[False]


def test_what_is_freed_comes_back_to_its_own_arena():
    st = machine()
    a, b = malloc(st, 64 * KIB), kva(st, 64 * KIB)
    assert mm.map_free(st, KERNEL, a, 64 * KIB, 0) == mm.map_free(st, KERNEL, b, 64 * KIB, 0) == 0
    assert (malloc(st, 64 * KIB), kva(st, 64 * KIB)) == (a, b)
    single = int(mm.map_alloc(st, KERNEL, 3 * MIB, PAGE, ATTR_SINGLE, 0))
    assert single == 6 * MIB  # a submap lies in kernel_map itself
    mm.check(st, KERNEL)


# Kernel stacks.


def stack(st: mm.State, cpu: int = 0) -> int:
    """Address of a stack's guard page."""
    return int(mm.map_alloc(st, KERNEL, 4 * PAGE, PAGE, ATTR_WIRED | ATTR_STACK, cpu)) - PAGE


def unstack(st: mm.State, guard: int, cpu: int = 0) -> None:
    assert mm.map_free(st, KERNEL, guard + PAGE, 4 * PAGE, cpu) == 0


def test_stacks_have_an_arena_that_imports_ten_mib_and_loses_a_stack_to_alignment():
    """The domain's arena brings 10 MiB and twice the alignment, 14 MiB; 511 stacks fit into what is used of 10."""
    st = machine()
    assert [stack(st) for _ in range(511)] == [k * 5 * PAGE for k in range(511)]
    assert free_of(st, 9) == [(10240, 14336)]
    assert stack(st) == 10 * MIB
    mm.check(st, KERNEL)
    mm.check(st, DIRECT)


def test_a_span_of_stacks_begins_at_a_multiple_of_a_stack_and_goes_back_when_all_are_free():
    st = machine()
    assert malloc(st, PAGE) == 0
    first = stack(st)
    assert first % (5 * PAGE) == 0
    assert first >= 2 * MIB
    assert free_of(st, 10) == [((first + 5 * PAGE) // KIB, (first + 2555 * PAGE) // KIB)]
    mm.check(st, KERNEL)
    before = sum(b - a for a, b in free_of(st, 9))
    unstack(st, first)
    assert sum(b - a for a, b in free_of(st, 9)) == before + 10240
    assert free_of(st, 10) == []
    mm.check(st, KERNEL)


def test_pages_of_stacks_follow_each_other_without_their_guard_pages():
    st = machine()
    held = [stack(st) for _ in range(128)]
    ph = st.phys
    frames = sorted(int(page) - 1 for page in ph.frame[np.flatnonzero(ph.frame)])
    assert frames == list(range(frames[0], frames[0] + 512))  # a superpage of 128 stacks
    assert frames[0] % 512 == 0
    assert int(ph.domain[0, s.IDLE]) == 0
    for addr in held:
        unstack(st, addr)
    assert not ph.frame.any()
    mm.check(st, DIRECT)


@settings(max_examples=20)
@given(h.lists(h.tuples(h.sampled_from("mmsf"), h.integers(1, 700), h.integers(0, 3)), min_size=1, max_size=60))
def test_stacks_share_no_superpage_with_other_memory(program):
    st = machine(ram=512 * MIB, cpus=4, domains=2)
    live: list[tuple[bool, int, int, int]] = []
    for verb, n, cpu in program:
        if verb == "f" and live:
            is_stack, addr, nbytes, of = live.pop(n % len(live))
            if is_stack:
                unstack(st, addr, of)
            else:
                assert mm.map_free(st, KERNEL, addr, nbytes, of) == 0
        else:
            nbytes = n * PAGE
            addr = stack(st, cpu) if verb == "s" else malloc(st, nbytes, cpu)
            assert addr >= 0
            live.append((verb == "s", addr, nbytes, cpu))
    begun = {kind: {addr // SUPERPAGE for is_stack, addr, *_ in live if is_stack is kind} for kind in (True, False)}
    assert not begun[True] & begun[False]
    mm.check(st, KERNEL)
    mm.check(st, DIRECT)


# Physical pages.


def in_row(st: mm.State, nbytes: int) -> int:
    return int(mm.map_alloc(st, KERNEL, nbytes, PAGE, ATTR_WIRED | ATTR_CONTIG, 0))


def test_contiguous_pages_are_of_a_reservation():
    st = machine(ram=4 * MIB, page_cache=0)
    a, b = in_row(st, 3 * PAGE), in_row(st, 4 * PAGE)
    for addr, n in ((a, 3), (b, 4)):
        frames = [int(st.phys.frame[addr // PAGE + k]) for k in range(n)]
        assert frames == list(range(frames[0], frames[0] + n))
    mm.check(st, DIRECT)
    mm.map_free(st, KERNEL, a, 3 * PAGE, 0)
    assert int(st.phys.domain[0, s.IDLE]) == 508
    mm.check(st, DIRECT)


def test_contiguous_pages_are_refused_long_before_memory_is_out():
    st = machine(ram=4 * MIB, page_cache=0, reservations=0)
    block = in_row(st, 3 * PAGE)
    mm.check(st, DIRECT)
    mm.map_free(st, KERNEL, block, 3 * PAGE, 0)
    pages = [page(st) for _ in range(1024)]
    for first in pages[::2]:  # every other page
        give(st, first)
    assert mm.free_pages_count(st) == 512
    assert in_row(st, 3 * PAGE) == NO_SPACE
    assert malloc(st, 3 * PAGE) >= 0
    mm.check(st, DIRECT)


def test_what_an_allocator_says_of_a_request_arrives():
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    for told in (ATTR_WIRED | ATTR_NOFREE, ATTR_WIRED | ATTR_STACK, ATTR_WIRED | ATTR_CONTIG, ATTR_PAGEABLE):
        assert mm.map_attr(reg, 0, told, 0) == told


def test_nofree_pages_are_cut_from_superpages_one_after_the_other():
    st = machine()
    before = int(st.phys.domain[0, s.FREE])
    first = page(st, attr=ATTR_WIRED | ATTR_NOFREE)
    assert int(st.phys.domain[0, s.FREE]) == before - 512
    assert int(st.phys.domain[0, s.NOFREE_LEFT]) == 511
    assert [page(st, attr=ATTR_WIRED | ATTR_NOFREE) for _ in range(511)] == list(range(first + 1, first + 512))
    second = page(st, attr=ATTR_WIRED | ATTR_NOFREE)
    assert second % 512 == 0
    assert second != first
    give(st, first + 7)
    assert page(st, attr=ATTR_WIRED | ATTR_NOFREE) == first + 7
    mm.check(st, DIRECT)


def test_a_superpage_of_kernel_memory_is_one_block():
    st = machine()
    addr = malloc(st, 3 * PAGE)
    frames = [int(st.phys.frame[addr // PAGE + k]) - 1 for k in range(3)]
    assert frames == [frames[0], frames[0] + 1, frames[0] + 2]
    assert frames[0] % 512 == 0
    other = malloc(st, PAGE)
    assert int(st.phys.frame[other // PAGE]) - 1 == frames[0] + 3
    idle = int(st.phys.domain[0, s.IDLE])
    assert idle == 508
    for a, n in ((addr, 3), (other, 1)):
        mm.map_free(st, KERNEL, a, n * PAGE, 0)
    assert int(st.phys.domain[0, s.IDLE]) == 0
    mm.check(st, DIRECT)


def test_a_reservation_is_broken_when_no_page_is_left():
    st = machine(ram=4 * MIB, page_cache=0)  # two superpages
    addr = malloc(st, PAGE)
    pages = [page(st) for _ in range(512)]
    assert int(st.phys.domain[0, s.BROKEN]) == 0
    more = page(st)  # of what the reservation has not used
    assert more >= 0
    assert int(st.phys.domain[0, s.BROKEN]) == 1
    mm.check(st, DIRECT)
    mm.map_free(st, KERNEL, addr, PAGE, 0)
    for one in [*pages, more]:
        give(st, one)
    assert int(st.phys.domain[0, s.FREE]) == 1024
    mm.check(st, DIRECT)
    assert page(st, n=1024) >= 0
    assert page(st) == NO_SPACE


def test_a_page_of_a_cpu_s_cache_comes_back_first():
    st = machine(ram=128 * MIB, cpus=2)
    assert st.phys.domain[0, [s.ENTRIES, s.BUCKETS]].tolist() == [4, 4]  # 32 pages: two buckets of 4 for each CPU
    one = page(st)
    assert int(st.phys.domain[0, s.CACHED]) == 3
    give(st, one)
    assert page(st) == one
    assert page(st, cpu=1) not in range(one & ~3, (one & ~3) + 4)
    mm.check(st, DIRECT)


def test_a_large_memory_that_nobody_has_touched_takes_a_row_for_each_of_its_largest_blocks():
    st = mm.init(s.Params(ram_bytes=64 << 30), kva_bytes=1 << 40, cpus=1, maps=2)
    rows = np.flatnonzero(st.phys.order)
    assert (len(rows), rows[-1]) == (4096, 4095)  # of 64 GiB in blocks of 16 MiB


def test_a_pool_without_pages_takes_the_largest_block_of_the_other():
    st = machine(page_cache=0)
    assert page(st) == 0
    orders = st.phys.lists[0, :, :, s.COUNT]
    assert orders[s.POOL_DIRECT].tolist() == [1] * 12 + [0]
    assert orders[s.POOL_DEFAULT].tolist() == [0] * 12 + [3]
    out = np.zeros(gauge.COLUMNS, np.int64)
    mm.map_measure(st, DIRECT, out)
    assert out[gauge.FREE] == 64 * MIB - PAGE
    assert out[gauge.LARGEST] == 48 * MIB


class Pages:
    """vm_phys once more: lists of blocks in Python."""

    def __init__(self, pages: int) -> None:
        self.top, self.pages = s.ORDERS - 1, pages
        self.lists = [[[] for _ in range(s.ORDERS)] for _ in range(s.POOLS)]
        self.lists[s.POOL_DEFAULT][self.top] = list(range(0, pages, 1 << self.top))

    def alloc(self, pool: int, order: int) -> int:
        for k in range(order, s.ORDERS):
            if self.lists[pool][k]:
                return self._split(self.lists[pool][k].pop(0), k, pool, order)
        for k in range(self.top, order - 1, -1):
            for other in self.lists:
                if other[k]:
                    return self._split(other[k].pop(0), k, pool, order)
        return -1

    def _split(self, at: int, k: int, pool: int, order: int) -> int:
        for half in range(k - 1, order - 1, -1):
            self.lists[pool][half].append(at + (1 << half))
        return at

    def free(self, pool: int, at: int, order: int) -> None:
        while order < self.top:
            home = [blocks for of in self.lists for blocks in [of[order]] if at ^ (1 << order) in blocks]
            if not home:
                break
            home[0].remove(at ^ (1 << order))
            at, order = at & ~(1 << order), order + 1
        self.lists[pool][order].append(at)


@settings(max_examples=60)
@given(h.lists(h.tuples(h.booleans(), h.integers(0, 1), h.integers(0, 11), h.integers(0, 99)), min_size=5, max_size=80))
def test_free_pages_go_as_in_the_twin(program):
    st, twin = machine(page_cache=0).phys, Pages(64 * MIB // PAGE)
    live: list[tuple[int, int, int]] = []
    for frees, pool, order, which in program:
        if frees and live:
            of, at, k = live.pop(which % len(live))
            phys.free_pages(st, of, at, k)
            twin.free(of, at, k)
        else:
            at = int(phys.alloc_pages(st, 0, pool, order))
            assert at == twin.alloc(pool, order)
            if at >= 0:
                live.append((pool, at, order))
    for pool, order in np.ndindex(s.POOLS, s.ORDERS):
        found, at = [], int(st.lists[0, pool, order, s.HEAD])
        while at >= 0:
            found.append(at)
            at = int(st.link[phys.place(st, at, order), phys.NEXT]) - 1
        assert found == twin.lists[pool][order]


@settings(max_examples=40)
@given(h.lists(h.tuples(h.integers(0, 3), h.integers(1, 40), h.integers(0, 3), h.integers(0, 99)), max_size=80))
def test_no_page_is_lost(program):
    st = machine(ram=32 * MIB, cpus=4, domains=2)
    live: list[tuple[int, int, int]] = []
    for verb, pages, cpu, which in program:
        if verb == 0 and live:
            map_no, addr, nbytes = live.pop(which % len(live))
            assert mm.map_free(st, map_no, addr, nbytes, cpu) == 0
            continue
        map_no, n = (KERNEL, pages * 7) if verb == 1 else (DIRECT, 1 if which & 1 else pages)
        attr = ATTR_WIRED | (ATTR_NOFREE if verb == 3 else 0)
        addr = int(mm.map_alloc(st, map_no, n * PAGE, PAGE, attr, cpu))
        if addr >= 0:
            live.append((map_no, addr, n * PAGE))
    mm.check(st, DIRECT)
    mm.check(st, KERNEL)
    for map_no, addr, nbytes in live:
        mm.map_free(st, map_no, addr, nbytes, 0)
    mm.check(st, DIRECT)
    assert mm.map_free_bytes(st, DIRECT) == 32 * MIB
