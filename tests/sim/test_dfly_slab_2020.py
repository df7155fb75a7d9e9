"""DragonFly slab of 2020: the vectors of the reference, each rule by itself, random programs against the naive one.

What it has in common with the one of 2003 is in test_dfly_slabs.
"""

import dfly_programs
import pytest
from dfly_programs import KIB, MIB, ZONE, chunks, frees_some_of_forty, fresh, unmaps_at_once
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_dfly_2020 import STEPS, NaiveDfly2020, step_of
from naive_space import UpwardMap
from twins import refuses

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import dfly_slab_2020 as slab
from kmemexp.sim.allocators._shared import dfly_slab_layout
from kmemexp.sim.allocators._shared.dfly_zones import FREE_ZONES_COUNT
from kmemexp.sim.allocators._shared.slab_order import FULLEST, LOWEST, OWN
from kmemexp.sim.tables import flag, regs
from kmemexp.validate.hand import Hand

GIB = 1 << 30
BIG = 16383  # seven to a zone
INTERRUPT = flag.SOFT


class Station(Hand):
    """A hand that can hold messages between CPUs back."""

    def __init__(self, state, **how) -> None:
        super().__init__(slab, state, **how)
        self.holds, self.held = False, []

    def free(self, addr: int, **how) -> None:
        """Free a chunk; an IPI that is held back is kept in `held`."""
        if not self.holds:
            super().free(addr, **how)
            return
        r = self._begin(how.get("cpu", 0), how.get("flags", 0), 0)
        r[regs.ADDR] = addr
        answer = slab.free(self.state, self.reg, 0)
        if answer == s.IPI:
            self.held.append(r.copy())
        elif answer == s.MAP_FREE:
            self.map_log.append(("free", int(r[regs.BASE]), int(r[regs.BYTES])))

    def deliver(self, which: int = 0) -> None:
        """Let a message that was held back arrive."""
        r = self.held.pop(which)
        r[regs.CPU] = r[regs.TARGET]
        self.reg[0] = r
        assert slab.free(self.state, self.reg, 0) == s.DONE


def hand(zone_bytes: int = ZONE, *, cpus: int = 1, limit: int = 64 * MIB, **params: int) -> Station:
    return Station(fresh(slab, zone_bytes, cpus=cpus, **params), limit=limit)


def zones(addrs: list[int]) -> list[int]:
    return [a // ZONE for a in addrs]


def held(h: Hand, *names: str) -> list[int]:
    counts = slab.census(h.state)
    return [counts[name] for name in names]


# Tables.


@pytest.mark.parametrize(
    ("gib", "cpus", "zones"), [(4, 8, 32), (8, 8, 64), (64, 16, 512), (256, 32, 1024), (256, 128, 256)]
)
def test_the_release_threshold_grows_with_memory_and_shrinks_with_cpus(gib, cpus, zones):
    assert slab.release_threshold(gib * GIB, cpus) == zones


@pytest.mark.parametrize(("gib", "zones"), [(7, 64), (15, 128), (31, 256), (63, 512), (127, 1024)])
def test_the_release_threshold_doubles_at_each_limit(gib, zones):
    assert slab.release_threshold(gib * GIB, 32) == zones
    assert slab.release_threshold(gib * GIB - 1, 32) == zones // 2
    assert slab.release_threshold(gib * GIB, 33) == zones * 32 // 33


@pytest.mark.parametrize(("ram", "kva"), [(8 * GIB, GIB), (GIB, 8 * GIB), (0, GIB)])
def test_the_rules_go_by_the_smaller_of_ram_and_kva(ram, kva):
    state = slab.init(slab.Params(ram_bytes=ram), kva_bytes=kva, cpus=8, map_number=0, items=(), bases=())
    assert (state.p.release_threshold, state.p.zone_bytes, state.zone_limit) == (32, ZONE, 16384)


PER_ZONE = {8: 16370, 16: 8185, 24: 5456, 32: 4092, 64: 2046, 96: 1364, 128: 1023, 256: 511, 512: 255, 1024: 127,
            2048: 63, 4096: 31, 8192: 15, 16384: 7}  # fmt: skip


@pytest.mark.parametrize(("chunk", "count"), PER_ZONE.items())
def test_chunks_in_a_zone_behind_a_header_of_112_bytes(chunk, count):
    rows = slab.layout(ZONE)
    assert rows[rows[:, dfly_slab_layout.CHUNK] == chunk, dfly_slab_layout.N_MAX].tolist() == [count]


@pytest.mark.parametrize(("below", "step"), STEPS)
def test_a_class_rounds_up_to_its_step_and_is_aligned_to_it(below, step):
    rows = slab.layout(ZONE)
    low = 1 if below == 128 else below // 2
    for nbytes in range(low, below):
        klass, chunk = dfly_slab_layout.zone_index(nbytes)
        assert chunk == -(-nbytes // step) * step
        align = chunk if chunk & (chunk - 1) == 0 else step
        offset = -(-112 // align) * align
        assert rows[klass].tolist() == [chunk, offset, (ZONE - offset) // chunk]


def test_impossible_zone_sizes_are_refused():
    refuses(hand, "zone_bytes", (16 * KIB, 48 * KIB, 256 * KIB))


def test_size_zero_is_a_pointer_of_its_own():
    h = hand()
    assert (h.alloc(0), h.granted) == (-8, 0)
    h.free(-8)
    assert h.map_log == []


# Within a zone.


def test_freed_chunks_come_back_last_in_first_out_whatever_their_page_then_unused_memory():
    h = hand()
    frees_some_of_forty(h)
    assert [(a - 256) // 256 for a in chunks(h, 256, 6)] == [20, 10, 3, 33, 40, 41]


def test_the_first_index_slides_by_20_with_each_zone():
    h = hand()
    got = [(a // ZONE, (a % ZONE - 16384) // 16384) for a in chunks(h, BIG, 21)]
    starts = ((0, 1, 2, 3, 4, 5, 6), (6, 0, 1, 2, 3, 4, 5), (5, 6, 0, 1, 2, 3, 4))
    assert got == [(zone, index) for zone, order in enumerate(starts) for index in order]


def test_malloc_of_129_bytes_wastes_a_tenth():
    h = hand()
    addrs = chunks(h, 129, 910)
    assert h.granted == 144
    assert zones(addrs) == [0] * 909 + [1]
    assert round(15 / 144 * 100, 1) == 10.4


# Lists of zones.


def test_chunks_come_from_the_tail_zone_and_a_full_zone_comes_back_at_the_head():
    h = hand()
    addrs = chunks(h, BIG, 10)  # zone 0 is full, zone 1 has four left
    h.free(addrs[2])
    assert chunks(h, BIG, 5)[-1] == addrs[2]  # first zone 1 is used up
    h.free(addrs[0])
    h.free(addrs[8])
    assert chunks(h, BIG, 2) == [addrs[0], addrs[8]]


def test_idle_zones_beyond_the_threshold_leave_with_the_next_malloc_that_may_sleep_the_oldest_first():
    h = hand(release_threshold=2)
    for addr in chunks(h, BIG, 28):
        h.free(addr)
    assert held(h, "idle_zones") == [3]
    h.alloc(BIG, flags=flag.NOWAIT)
    assert h.answers == [s.DONE]
    assert h.alloc(BIG) < ZONE  # the first zone stayed on its list
    assert h.answers == [s.MAP_FREE, s.DONE]
    assert h.map_log[4:] == [("free", ZONE, ZONE)]
    assert held(h, "idle_zones") == [2]


def test_without_a_parameter_32_idle_zones_stay():
    h = hand()
    for addr in chunks(h, BIG, 7 * 35):
        h.free(addr)
    assert held(h, "idle_zones") == [34]
    h.alloc(BIG)
    assert held(h, "idle_zones") == [32]


def test_idle_zones_serve_any_class_the_newest_first_without_the_map():
    h = hand()
    for addr in chunks(h, BIG, 28):
        h.free(addr)
    assert zones([h.alloc(n) for n in (100, 1000, 15000, 15000)]) == [3, 2, 1, 1]
    assert len(h.map_log) == 4


def test_a_reused_zone_forgets_its_former_life():
    h = hand(cpus=2)
    addrs = chunks(h, BIG, 14)
    for addr in addrs:
        h.free(addr)
    first, second = chunks(h, 15000, 2)  # in what was zone 1, which was full
    assert zones([first, second]) == [1, 1]
    h.free(first, cpu=1)
    assert h.answers == [s.DONE]  # it has free chunks
    got = chunks(h, 15000, 7)
    assert len({second, *got}) == 8
    assert zones(got) == [1] * 7


def test_the_last_zone_of_a_class_stays_though_it_is_wholly_free():
    h = hand()
    h.free(h.alloc(BIG))
    assert held(h, "zones", "idle_zones", "free_chunks") == [1, 0, 7]


# Frees on other CPUs.


def test_a_chunk_freed_elsewhere_waits_without_a_message_until_the_owner_has_no_other():
    h = hand(cpus=2)
    addrs = chunks(h, BIG, 3)
    for addr in addrs[:2]:
        h.free(addr, cpu=1)
        assert h.answers == [s.DONE]
    assert held(h, "free_chunks", "remote_chunks") == [4, 2]
    before = set(addrs)
    assert not before & set(chunks(h, BIG, 3))
    assert h.alloc(BIG) == addrs[1]  # behind that there is one that was never used
    assert h.reg[0, regs.WORK] == 2
    assert h.alloc(BIG) == addrs[0]
    assert h.alloc(BIG) not in before
    assert len(h.map_log) == 1


def test_chunks_freed_elsewhere_go_behind_the_owners_own():
    h = hand(cpus=2)
    addrs = chunks(h, BIG, 6)
    h.free(addrs[2], cpu=1)
    h.free(addrs[3], cpu=1)
    h.free(addrs[0])
    h.free(addrs[1])
    h.tend()
    assert chunks(h, BIG, 4) == [addrs[1], addrs[0], addrs[3], addrs[2]]


@pytest.mark.parametrize("flags", [0, flag.SOFT])
def test_only_the_first_chunk_freed_into_a_full_zone_sends_a_message(flags):
    h = hand(cpus=3)
    addrs = chunks(h, BIG, 7, cpu=2)
    h.free(addrs[0], cpu=1, flags=flags)
    assert h.answers == [s.IPI, s.DONE]
    assert (h.reg[0, regs.TARGET], h.reg[0, regs.CPU]) == (2, 2)
    assert h.reg[0, regs.FLAGS] == flags | flag.HARD
    h.free(addrs[1], cpu=1)
    assert h.answers == [s.DONE]
    assert chunks(h, BIG, 2, cpu=2) == [addrs[0], addrs[1]]


def test_chunks_freed_while_the_message_is_under_way_go_with_it():
    h = hand(cpus=2)
    addrs = chunks(h, BIG, 7)
    h.holds = True
    for addr in addrs[:3]:
        h.free(addr, cpu=1)
    assert len(h.held) == 1
    assert held(h, "free_chunks", "remote_chunks") == [0, 3]
    h.deliver()
    assert held(h, "free_chunks", "remote_chunks") == [3, 0]
    assert chunks(h, BIG, 3) == addrs[2::-1]


def test_a_free_by_the_owner_does_not_withdraw_the_wish_for_a_message():
    h = hand(cpus=2)
    addrs = chunks(h, BIG, 7)
    h.free(addrs[0])
    h.free(addrs[1], cpu=1)
    assert h.answers == [s.IPI, s.DONE]
    h.free(addrs[2], cpu=1)
    assert h.answers == [s.DONE]


def test_a_zone_to_which_a_message_is_under_way_stays_on_its_list():
    h = hand(cpus=2)
    addrs = chunks(h, BIG, 14)
    h.free(addrs[7])  # zone 1 is on the list, so that zone 0 is not the only one
    h.holds = True
    h.free(addrs[0], cpu=1)
    h.holds = False
    for addr in addrs[1:7]:
        h.free(addr)
    h.tend()
    assert held(h, "idle_zones") == [0]
    h.deliver()
    assert held(h, "idle_zones") == [1]


def test_a_message_that_comes_after_its_chunk_was_taken_over_changes_nothing():
    h = hand(cpus=2)
    addrs = chunks(h, BIG, 7)
    h.holds = True
    h.free(addrs[0], cpu=1)
    h.free(addrs[1])
    assert chunks(h, BIG, 2) == [addrs[1], addrs[0]]
    h.deliver()
    assert held(h, "free_chunks", "remote_chunks", "idle_zones") == [0, 0, 0]
    assert h.alloc(BIG) // ZONE == 1


def test_a_zone_emptied_by_others_is_idle_after_the_cleanup_at_each_cpu():
    h = hand(cpus=2)
    for cpu in (0, 1):
        addrs = chunks(h, BIG, 15, cpu=cpu)
        for addr in addrs:
            h.free(addr, cpu=1 - cpu)
    h.tend(s.TEND_REAP)
    assert h.answers == [s.DONE]
    before = held(h, "idle_zones")
    h.tend()
    assert h.answers == [s.AGAIN, s.AGAIN, s.DONE]
    assert before == [0]
    assert held(h, "idle_zones", "remote_chunks") == [4, 0]
    assert h.state.cpu[:, FREE_ZONES_COUNT].tolist() == [2, 2]


# Oversize blocks.


def test_an_oversize_block_freed_by_the_mainline_is_unmapped_at_once():
    h = hand()
    unmaps_at_once(h)
    assert held(h, "pages") == [0]


@pytest.mark.parametrize("flags", [flag.SOFT, flag.HARD, flag.HARD | flag.NOWAIT])
def test_blocks_freed_by_an_interrupt_wait_for_a_malloc_that_may_sleep_which_unmaps_the_oldest_first(flags):
    h = hand(cpus=2)
    blocks = [h.alloc(n * s.PAGE) for n in (3, 4, 5)]
    for block in blocks:
        h.free(block, cpu=1, flags=flags)
        assert h.answers == [s.DONE]
    h.alloc(100, cpu=0)  # the other CPU
    h.alloc(100, cpu=1, flags=flag.NOWAIT)
    assert held(h, "queued_pages") == [12]
    h.alloc(100, cpu=1)
    assert [step for step in h.map_log if step[0] == "free"] == [
        ("free", block, n * s.PAGE) for block, n in zip(blocks, (3, 4, 5), strict=True)
    ]
    assert held(h, "queued_pages") == [0]


def test_idle_zones_leave_before_oversize_blocks():
    h = hand(release_threshold=2)
    block = h.alloc(12288)
    for addr in chunks(h, BIG, 28):
        h.free(addr)
    h.free(block, flags=INTERRUPT)
    h.alloc(100)
    assert [step[2] for step in h.map_log if step[0] == "free"] == [ZONE, 12288]


def test_short_memory_changes_nothing_unless_zones_are_to_be_reaped():
    for reap, steps in ((0, [s.DONE]), (1, [s.AGAIN, s.AGAIN, s.MAP_FREE, s.MAP_FREE, s.DONE])):
        h = hand(cpus=2, reap=reap)
        for addr in [h.alloc(BIG, cpu=1) for _ in range(21)]:
            h.free(addr, cpu=1)
        h.tend(s.TEND_REAP)
        assert h.answers == steps
        assert held(h, "idle_zones") == [0 if reap else 2]


# Random programs.

CPUS = 4
few_to_a_zone = st.sampled_from([8191, 8191, BIG, BIG, 12000])  # zones fill up and empty often
sizes = st.one_of(
    few_to_a_zone,
    few_to_a_zone,
    few_to_a_zone,
    st.sampled_from([0, 1, 8, 129, 4095, 4096, 8191, 8192, 8193, 12288, 16383, 16384, 50000]),
    st.integers(0, 17000),
)
steps = st.tuples(
    st.sampled_from(["alloc", "alloc", "alloc", "free", "free", "free", "free_run", "cleanup", "deliver", "reap"]),
    sizes,
    st.integers(1, 60),  # how many
    st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
    st.sampled_from([0, 0, flag.NOWAIT, flag.SOFT, flag.HARD | flag.NOWAIT]),
    st.integers(0, 10**6),  # which object
)


class Pair(dfly_programs.Pair):
    """The allocator and the naive one."""

    def __init__(self, zone_bytes: int, cpus: int, threshold: int, limit: int, *, holds: bool, order: int) -> None:
        given = {"release_threshold": threshold, "slab_order": order, "reap": 1}
        space = UpwardMap(limit)
        super().__init__(
            hand(zone_bytes, cpus=cpus, limit=limit, **given),
            NaiveDfly2020(zone_bytes, cpus, threshold=threshold, space=space, order=order),
        )
        self.hand.holds = holds

    def free(self, which: int, cpu: int, flags: int) -> None:
        addr, _ = self.live.pop(which % len(self.live))
        before = len(self.naive.messages)
        self.naive.free(addr, cpu, interrupt=bool(flags & (flag.SOFT | flag.HARD)))
        self.hand.free(addr, cpu=cpu, flags=flags)
        if self.hand.holds:
            assert len(self.hand.held) == len(self.naive.messages)
        else:
            assert self.hand.answers.count(s.IPI) == len(self.naive.messages) - before
            self.deliver(0)

    def deliver(self, which: int) -> None:
        if self.naive.messages:
            which %= len(self.naive.messages)
            self.naive.deliver(which)
            if self.hand.holds:
                self.hand.deliver(which)

    def check(self) -> None:
        counts = slab.census(self.hand.state)
        assert counts == self.naive.counts()
        self.check_memory(counts)
        for addr, granted in self.placed():
            power = granted & (granted - 1) == 0
            align = s.PAGE if addr in self.naive.oversize else granted if power else step_of(granted - 1)
            assert addr % align == 0

    def play(self, program: list, cpus: int) -> None:
        for verb, nbytes, count, cpu, flags, which in program:
            if verb == "cleanup":
                self.naive.cleanup()
                self.hand.tend()
            elif verb == "reap":
                self.naive.reap()
                self.hand.tend(s.TEND_REAP)
            elif verb == "deliver":
                self.deliver(which)
            elif verb == "alloc":
                for _ in range(count):
                    self.alloc(nbytes, cpu % cpus, flags)
            else:
                for k in range(min(count, len(self.live))):
                    self.free(which if verb == "free_run" else which * (k + 1), (cpu + k % 2) % cpus, flags)
            self.check()

    def drain(self, cpus: int) -> None:
        while self.live:
            self.free(len(self.live) // 2, len(self.live) % cpus, 0)
        while self.naive.messages:
            self.deliver(0)
        self.naive.cleanup()
        self.hand.tend()
        self.check()


@pytest.mark.parametrize("order", [OWN, LOWEST, FULLEST])
@settings(max_examples=100)
@given(
    st.lists(steps, min_size=15, max_size=60),
    st.sampled_from([32 * KIB, 64 * KIB, 128 * KIB]),
    st.integers(1, CPUS),
    st.sampled_from([0, 2, 32]),
    st.sampled_from([2, 60]),
    st.booleans(),
)
def test_random_programs_go_as_in_the_naive_allocator(order, program, zone_bytes, cpus, threshold, limit_mib, holds):
    pair = Pair(zone_bytes, cpus, threshold, limit_mib * MIB, holds=holds, order=order)
    pair.play(program, cpus)
    pair.drain(cpus)
    assert held(pair.hand, "live_bytes", "remote_chunks") == [0, 0]
    for cpu in range(cpus):
        pair.hand.alloc(0, cpu=cpu)
        pair.hand.alloc(1, cpu=cpu)
    assert held(pair.hand, "queued_pages") == [0]
    assert (pair.hand.state.cpu[:, FREE_ZONES_COUNT] <= threshold).all()
