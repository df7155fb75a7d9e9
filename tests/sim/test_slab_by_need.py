"""Slabs by need: how large zones are, which are used and given back first, what moves, and that nothing is lost."""

from collections import Counter

import numpy as np
import pytest
from dfly_programs import KIB, MIB, chunks
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from twins import apart

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import slab_by_need as slab
from kmemexp.sim.allocators._shared import dfly_zones
from kmemexp.sim.allocators.slab_by_need import state as u
from kmemexp.sim.tables import flag
from kmemexp.validate.hand import Hand

CPUS = 3
KVA = 16 * MIB
SMALL = {"least_bytes": 32 * KIB, "most_bytes": 32 * KIB, "superpage_bytes": 128 * KIB}  # four zones to a superpage
SEVEN = 4095  # bytes; seven chunks to a zone of 32 KiB


def hand(cpus: int = 1, **params: int) -> Hand:
    state = slab.init(slab.Params(**params), kva_bytes=KVA, cpus=cpus, map_number=5, items=(), bases=())
    return Hand(slab, state, limit=KVA)


def mapped(h: Hand) -> list[int]:
    """KiB of what has been asked of the map."""
    return [nbytes // KIB for verb, _, nbytes in h.map_log if verb == "alloc"]


def zones(h: Hand, addrs: list[int]) -> list[int]:
    """Zones of 32 KiB in which chunks lie."""
    return [addr // (32 * KIB) for addr in addrs]


# Sizes of zones.


@pytest.mark.parametrize(
    ("nbytes", "kib"),
    [
        (8, 4),  # 490 chunks and a header of 176 bytes
        (256, 4),  # 15 chunks, 256 of 4096 bytes unused
        (400, 4),  # 9 chunks of 416, 352 unused
        (500, 8),  # of 4096 bytes with chunks of 512, 512 unused: an eighth; so 4 KiB do
        (1000, 8),  # 7 chunks of 1024: an eighth unused
        (2000, 16),  # of 8 KiB a fourth would be unused
        (4095, 32),  # 7 chunks of a page
        (8000, 64),  # 7 chunks of 8 KiB
    ],
)
def test_a_class_begins_with_the_smallest_zone_of_which_an_eighth_is_unused_at_most(nbytes, kib):
    h = hand()
    h.alloc(nbytes)
    assert mapped(h) == [4 if nbytes == 500 else kib]


def test_zones_grow_with_what_is_live_and_shrink_only_well_below():
    h = hand(release_threshold=0)
    addrs = chunks(h, 256, 18 * 15)  # of 4 KiB; at 17 zones 255 chunks are live, less than 8 * 8 KiB
    assert mapped(h) == [4] * 18
    addrs += chunks(h, 256, 1)
    assert mapped(h)[18:] == [8]
    for addr in addrs[100:]:
        h.free(addr)  # 25 KiB stay, more than 3 * 8 KiB
    addrs = addrs[:100] + chunks(h, 256, 40)
    assert set(mapped(h)[19:]) == {8}
    for addr in addrs[90:]:
        h.free(addr)
    steps = len(mapped(h))
    chunks(h, 256, 40)
    assert set(mapped(h)[steps:]) == {4}, "22.5 KiB are less"


def test_each_cpu_chooses_for_itself():
    h = hand(cpus=2)
    chunks(h, 256, 18 * 15 + 1, cpu=0)
    h.alloc(256, cpu=1)
    assert mapped(h)[-2:] == [8, 4]


def test_a_cpus_wholly_free_zones_serve_classes_that_want_that_size():
    h = hand()
    addr = h.alloc(8)
    h.free(addr)
    assert slab.census(h.state)["idle_zones"] == 1, "a class's only zone goes too"
    assert zones(h, [h.alloc(256)]) == zones(h, [addr])
    assert mapped(h) == [4]
    h.free(h.alloc(1000))
    assert mapped(h) == [4, 8]


@pytest.mark.parametrize(("keep_last", "idle"), [(0, 1), (1, 0)])
def test_a_class_may_keep_its_only_zone(keep_last, idle):
    h = hand(keep_last=keep_last)
    h.free(h.alloc(8))
    assert slab.census(h.state)["idle_zones"] == idle


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"least_bytes": 5000}, "least_bytes is 5000; it must be a power of two from 4096 to 131072"),
        ({"most_bytes": 1 << 18}, "most_bytes is 262144"),
        ({"least_bytes": 65536, "most_bytes": 32768}, "more than most_bytes, 32768"),
        ({"shrink": 8}, "less than grow"),
        ({"limit_bytes": 8192, "most_bytes": 16384}, "limit_bytes is 8192; it must be a multiple of 8 up to 4096"),
        ({"drain": 2}, "drain is 2"),
        ({"superpage_bytes": 65536}, "superpage_bytes is 65536"),
        ({"trim_percent": 101}, "trim_percent is 101"),
        ({"trim_ticks": 0}, "trim_ticks is 0"),
        ({"moves": 5}, "nobody's chunks may move"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        hand(**wrong)


# Superpages.


@pytest.mark.parametrize(("drain", "want"), [(0, [5, 5, 0]), (1, [0, 5, 5])])
def test_zones_of_fuller_superpages_are_used_first(drain, want):
    h = hand(**SMALL, drain=drain)
    addrs = chunks(h, SEVEN, 6 * 7)  # zones 0 to 3, 4 and 5: the second superpage holds half
    h.free(addrs[0])
    h.free(addrs[5 * 7])
    h.free(addrs[5 * 7 + 1])
    assert zones(h, chunks(h, SEVEN, 3)) == want


@pytest.mark.parametrize(("drain", "gone"), [(0, [0, 5, 4]), (1, [4, 5, 0])])
def test_wholly_free_zones_of_emptier_superpages_go_back_first(drain, gone):
    h = hand(**SMALL, drain=drain, release_threshold=0)
    addrs = chunks(h, SEVEN, 6 * 7)
    for zone in (4, 5, 0):
        for addr in addrs[zone * 7 : zone * 7 + 7]:
            h.free(addr)
    h.tend(s.TEND_REAP)
    freed = [base // (32 * KIB) for verb, base, _ in h.map_log if verb == "free"]
    assert sorted(freed) == sorted(gone)
    assert freed[-1] == gone[-1]


@pytest.mark.parametrize(("percent", "idle"), [(0, 1), (10, 0)])
def test_a_superpage_that_is_opened_makes_idle_zones_go_back_at_a_tick(percent, idle):
    h = hand(**SMALL, trim_percent=percent, trim_ticks=1)
    addrs = chunks(h, SEVEN, 5 * 7)  # the fifth zone opens the second superpage
    for addr in addrs[:7]:
        h.free(addr)
    assert slab.census(h.state)["idle_zones"] == 1
    h.tend()
    assert slab.census(h.state)["idle_zones"] == idle


def test_idle_zones_go_back_once_in_so_many_ticks_and_where_the_allocator_holds_little():
    h = hand(**SMALL, trim_percent=10, trim_ticks=3)
    left = []
    for _ in range(7):
        h.free(h.alloc(SEVEN))  # nothing else is held: each zone that is mapped opens the superpage
        h.tend()
        left.append(slab.census(h.state)["idle_zones"])
    assert left == [1, 1, 0, 1, 1, 0, 1]
    h = hand(**SMALL, trim_percent=10, trim_ticks=1)
    chunks(h, SEVEN, 7)
    h.tend()
    h.free(h.alloc(SEVEN))  # a fourth of the superpage is held already
    h.tend()
    assert slab.census(h.state)["idle_zones"] == 1


# Evacuation.


def spread(h: Hand) -> dict[int, int]:
    """Two full zones and two with an object each that may move: object -> address."""
    at = {n: h.alloc(SEVEN, item=1, obj=n) for n in range(4 * 7)}
    for n in [*range(7, 13), *range(15, 21), 25]:
        h.free(at.pop(n))
    return at


def test_objects_leave_nearly_empty_zones_which_then_go_back():
    h = hand(**SMALL, movable=1, moves=10, release_threshold=0)
    at = spread(h)
    h.tend()
    assert [(n, source) for n, source, _ in h.moves] == [(13, at[13])] or [n for n, _, _ in h.moves] == [14]
    census = slab.census(h.state)
    assert (census["moved"], census["refused"], census["emptied"]) == (1, 0, 1)
    assert [step for step in h.map_log if step[0] == "free"] == [
        ("free", h.moves[0][1] // (32 * KIB) * 32 * KIB, 32 * KIB)
    ]
    at[h.moves[0][0]] = h.moves[0][2]
    assert apart((addr, addr + 4096) for addr in at.values())


def test_what_may_not_move_and_who_refuses_stays():
    for how, item in (({"movable": 1}, -1), ({"movable": 1}, 1)):
        h = hand(**SMALL, **how, moves=10)
        h.may_move = lambda obj: False
        at = [h.alloc(SEVEN, item=item, obj=n) for n in range(14)]
        for n in range(1, 8):
            h.free(at[n])
        before = slab.census(h.state)
        h.tend()
        after = slab.census(h.state)
        assert h.moves == []
        assert after["refused"] == (item == 1)
        assert after["live_bytes"] == before["live_bytes"]


@pytest.mark.parametrize("budget", [1, 3])
def test_a_tick_moves_no_more_than_its_budget(budget):
    h = hand(**SMALL, movable=2, moves=budget, sparse_percent=60)
    at = chunks(h, SEVEN, 28, obj=3)
    for n in (0, 1, 2, 7, 8, 9, 14, 15, 16):
        h.free(at[n])
    h.tend()
    assert 0 < len(h.moves) <= budget


def test_objects_that_may_move_have_zones_of_their_own():
    h = hand(**SMALL, movable=1, moves=1)
    assert zones(h, [h.alloc(SEVEN, item=0), h.alloc(SEVEN, item=-1), h.alloc(SEVEN, item=0)]) == [0, 1, 0]


# Whatever happens.

steps = st.tuples(
    st.sampled_from(["alloc", "alloc", "free", "free", "tick", "reap"]),
    st.one_of(st.sampled_from([0, 8, 100, 256, 1000, 4000, 4095, 4096, 8191, 20000]), st.integers(0, 9000)),
    st.integers(1, 30),
    st.integers(0, CPUS - 1),
    st.sampled_from([0, 0, flag.NOWAIT, flag.SOFT]),
    st.integers(0, 10**6),
)
options = st.fixed_dictionaries(
    {
        "least_bytes": st.sampled_from([4096, 32768]),
        "grow": st.sampled_from([2, 8]),
        "shrink": st.just(1),
        "keep_last": st.integers(0, 1),
        "drain": st.integers(0, 1),
        "movable": st.integers(1, 2),
        "moves": st.sampled_from([1, 50]),
        "sparse_percent": st.sampled_from([25, 80]),
        "superpage_bytes": st.just(128 * KIB),
        "trim_percent": st.sampled_from([0, 30]),
        "trim_ticks": st.just(2),
    }
)


def check(h: Hand, live: dict[int, tuple[int, int]]) -> None:
    """Hold the allocator's counts against the live objects (object -> address, granted) and the map."""
    state, census = h.state, slab.census(h.state)
    held: Counter[int] = Counter()
    for verb, base, nbytes in h.map_log:
        for place in range(base, base + nbytes, s.PAGE):
            held[place] += 1 if verb == "alloc" else -1
    pages = [place for place, count in held.items() if count]
    assert census["pages"] == len(pages)
    around = np.bincount(np.array(pages, int) // (128 * KIB), minlength=len(state.held)) * s.PAGE
    assert (state.held == around).all()
    assert census["live_bytes"] == sum(granted for _, granted in live.values())
    assert apart((addr, addr + granted) for addr, granted in live.values() if granted)
    assert all(held[addr & -s.PAGE] == 1 for addr, granted in live.values() if granted)
    assert (
        state.dense[:, :, u.LIVE].sum() + census["oversize_pages"] * s.PAGE - census["queued_pages"] * s.PAGE
        == (census["live_bytes"])
    )


@settings(max_examples=60, phases=[Phase.generate])
@given(st.lists(steps, min_size=5, max_size=40), options)
def test_nothing_is_lost_and_nothing_overlaps_whatever_moves(program, how):
    h = hand(cpus=CPUS, **how)
    live: dict[int, tuple[int, int]] = {}
    for verb, nbytes, count, cpu, flags, which in program:
        for k in range(count if verb in ("alloc", "free") else 1):
            if verb == "alloc":
                number = max(live, default=0) + 1
                addr = h.alloc(nbytes, item=which % 3 - 1, cpu=cpu, flags=flags, obj=number)
                if addr != -1:
                    live[number] = (addr, h.granted)
            elif verb == "free" and live:
                addr, _ = live.pop(sorted(live)[which * (k + 1) % len(live)])
                h.free(addr, cpu=cpu, flags=flags & ~flag.NOWAIT)
            elif verb in ("tick", "reap"):
                h.moves.clear()
                h.tend(s.TEND_TICK if verb == "tick" else s.TEND_REAP)
                for number, source, target in h.moves:
                    assert live[number][0] == source
                    live[number] = (target, live[number][1])
        check(h, live)
    for addr, _ in live.values():
        h.free(addr)
    for cpu in range(CPUS):
        h.free(h.alloc(8, cpu=cpu), cpu=cpu)  # may sleep: gives back what interrupts have queued
    h.tend(s.TEND_REAP)
    census = slab.census(h.state)
    assert (census["live_bytes"], census["oversize_pages"], census["idle_zones"]) == (0, 0, 0)
    assert how["keep_last"] or census["pages"] == 0
    assert (h.state.cpu[:, dfly_zones.FREE_ZONES_COUNT] == 0).all()
