"""DragonFly slab: the tables and worked examples of the reference, and each rule by itself.

What it has in common with the one of 2020 is in test_dfly_slabs.
"""

from typing import NamedTuple

import numpy as np
import pytest
from dfly_programs import KIB, MIB, ZONE, chunks, frees_some_of_forty, fresh, unmaps_at_once
from twins import refuses

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import dfly_slab as slab
from kmemexp.sim.allocators._shared import dfly_zones
from kmemexp.sim.allocators._shared.dfly_slab_layout import zone_index
from kmemexp.sim.allocators._shared.slab_order import FULLEST, LOWEST, OWN
from kmemexp.sim.tables import flag, regs
from kmemexp.validate.hand import Hand

# Class, request from … to, chunk, offset of the first chunk, chunks in a 128K zone and bytes left over, chunks in a
# 64K and in a 32K zone (-: larger than ZoneLimit).
CLASSES = """
0 1 8 8 176 16362 0 8170 4074
1 9 16 16 176 8181 0 4085 2037
2 17 24 24 176 5454 0 2723 1358
3 25 32 32 192 4090 0 2042 1018
4 33 40 40 176 3272 16 1634 814
5 41 48 48 176 2727 0 1361 679
6 49 56 56 176 2337 24 1167 582
7 57 64 64 192 2045 0 1021 509
8 65 72 72 176 1818 0 907 452
9 73 80 80 176 1636 16 817 407
10 81 88 88 176 1487 40 742 370
11 89 96 96 176 1363 48 680 339
12 97 104 104 176 1258 64 628 313
13 105 112 112 176 1168 80 583 291
14 113 120 120 176 1090 96 544 271
15 121 128 128 256 1022 0 510 254
16 129 144 144 176 909 0 453 226
17 145 160 160 176 818 16 408 203
18 161 176 176 176 743 128 371 185
19 177 192 192 176 681 144 340 169
20 193 208 208 176 629 64 314 156
21 209 224 224 176 584 80 291 145
22 225 240 240 176 545 96 272 135
23 241 256 256 256 511 0 255 127
24 257 288 288 176 454 144 226 113
25 289 320 320 176 409 16 204 101
26 321 352 352 176 371 304 185 92
27 353 384 384 176 340 336 170 84
28 385 416 416 176 314 272 157 78
29 417 448 448 176 292 80 145 72
30 449 480 480 176 272 336 136 67
31 481 512 512 512 255 0 127 63
32 513 576 576 176 227 144 113 56
33 577 640 640 176 204 336 102 50
34 641 704 704 176 185 656 92 46
35 705 768 768 176 170 336 85 42
36 769 832 832 176 157 272 78 39
37 833 896 896 176 146 80 72 36
38 897 960 960 176 136 336 68 33
39 961 1024 1024 1024 127 0 63 31
40 1025 1152 1152 176 113 720 56 28
41 1153 1280 1280 176 102 336 51 25
42 1281 1408 1408 176 92 1360 46 23
43 1409 1536 1536 176 85 336 42 21
44 1537 1664 1664 176 78 1104 39 19
45 1665 1792 1792 176 73 80 36 18
46 1793 1920 1920 176 68 336 34 16
47 1921 2048 2048 2048 63 0 31 15
48 2049 2304 2304 176 56 1872 28 14
49 2305 2560 2560 176 51 336 25 12
50 2561 2816 2816 176 46 1360 23 11
51 2817 3072 3072 176 42 1872 21 10
52 3073 3328 3328 176 39 1104 19 9
53 3329 3584 3584 176 36 1872 18 9
54 3585 3840 3840 176 34 336 17 8
55 3841 4095 4096 4096 31 0 15 7
56 4097 4608 4608 176 28 1872 14 7
57 4609 5120 5120 176 25 2896 12 6
58 5121 5632 5632 176 23 1360 11 5
59 5633 6144 6144 176 21 1872 10 5
60 6145 6656 6656 176 19 4432 9 4
61 6657 7168 7168 176 18 1872 9 4
62 7169 7680 7680 176 17 336 8 4
63 7681 8191 8192 8192 15 0 7 3
64 8193 9216 9216 176 14 1872 7 -
65 9217 10240 10240 176 12 8016 6 -
66 10241 11264 11264 176 11 6992 5 -
67 11265 12287 12288 176 10 8016 5 -
68 12289 13312 13312 176 9 11088 4 -
69 13313 14336 14336 176 9 1872 4 -
70 14337 15360 15360 176 8 8016 4 -
71 15361 16383 16384 16384 7 0 3 -
"""


class Class(NamedTuple):
    index: int
    low: int
    high: int
    chunk: int
    offset: int
    n_128k: int
    tail: int
    n_64k: int
    n_32k: int | None


def rows() -> list[Class]:
    return [Class(*(None if n == "-" else int(n) for n in row.split())) for row in CLASSES.split("\n")[1:-1]]


TABLE = rows()


def hand(zone_bytes: int = ZONE, *, cpus: int = 1, limit: int = 64 * MIB, **params: int) -> Hand:
    return Hand(slab, fresh(slab, zone_bytes, cpus=cpus, **params), limit=limit)


def indices(h: Hand, addrs: list[int], nbytes: int) -> list[tuple[int, int]]:
    """Zone and chunk index of each address, with zones numbered in the order of their appearance."""
    row = next(row for row in TABLE if row.low <= nbytes <= row.high)
    size = h.state.p.zone_bytes
    zones = list(dict.fromkeys(a // size for a in addrs))
    return [(zones.index(a // size), (a % size - row.offset) // row.chunk) for a in addrs]


# The tables.


def test_the_table_has_every_class():
    assert [row.index for row in TABLE] == list(range(72))
    assert [row.n_32k is None for row in TABLE] == [row.low > 8192 for row in TABLE]


@pytest.mark.parametrize("zone_bytes", [32 * KIB, 64 * KIB, 128 * KIB])
def test_classes_and_layout_are_those_of_the_table(zone_bytes):
    state = hand(zone_bytes).state
    for row in TABLE:
        requests = np.arange(row.low, row.high + 1)
        assert set(state.class_of[(requests + 7) // 8].tolist()) == {row.index}
        chunk, offset, n_max = state.klass[row.index, :3].tolist()
        assert (chunk, offset) == (row.chunk, row.offset)
        want = {32 * KIB: row.n_32k, 64 * KIB: row.n_64k, 128 * KIB: row.n_128k}[zone_bytes]
        assert want in (None, n_max)
        if zone_bytes == 128 * KIB:
            assert zone_bytes - offset - n_max * chunk == row.tail


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"class{row.index}")
def test_both_ends_of_a_class_get_its_chunk_aligned(row):
    h = hand()
    assert (zone_index(row.low), zone_index(row.high)) == ((row.index, row.chunk),) * 2
    align = row.chunk if row.chunk & (row.chunk - 1) == 0 else 8
    for nbytes in (row.low, row.high) * 4:
        assert h.alloc(nbytes) % align == 0
        assert h.granted == row.chunk
    assert h.map_log[0] == ("alloc", 0, ZONE)


@pytest.mark.parametrize(
    ("ram_mib", "zone_kib", "limit"),
    [(32, 32, 8192), (64, 32, 8192), (65, 64, 16384), (128, 64, 16384), (129, 128, 16384), (256, 128, 16384),
     (1024, 128, 16384), (4096, 128, 16384)],
)  # fmt: skip
def test_zone_size_and_zone_limit_follow_the_smaller_of_ram_and_kva(ram_mib, zone_kib, limit):
    big, small = max(ram_mib, 256) * MIB, ram_mib * MIB
    for ram_bytes, kva_bytes in ((small, big), (big, small), (0, small)):
        state = slab.init(
            slab.Params(ram_bytes=ram_bytes), kva_bytes=kva_bytes, cpus=1, map_number=0, items=(), bases=()
        )
        assert (state.p.zone_bytes, state.zone_limit) == (zone_kib * KIB, limit)


def test_impossible_zone_sizes_are_refused():
    refuses(hand, "zone_bytes", (16 * KIB, 48 * KIB, 256 * KIB))


# Oversize requests.


def test_an_oversize_block_freed_by_the_mainline_is_unmapped_at_once():
    h = hand()
    unmaps_at_once(h)
    assert slab.census(h.state)["pages"] == 0


@pytest.mark.parametrize("flags", [flag.SOFT, flag.HARD, flag.HARD | flag.NOWAIT])
def test_an_oversize_block_freed_by_an_interrupt_waits_for_a_malloc_that_may_sleep(flags):
    h = hand(cpus=2)
    first, second = h.alloc(8192), h.alloc(4096)
    h.free(first, cpu=1, flags=flags)
    h.free(second, cpu=1, flags=flags)
    assert h.answers == [s.DONE]
    steps = len(h.map_log)
    h.alloc(100, cpu=0)  # the other CPU
    h.alloc(0, cpu=1)
    h.alloc(8192, cpu=1, flags=flag.NOWAIT)
    assert [step for step in h.map_log[steps:] if step[0] == "free"] == []
    assert slab.census(h.state)["queued_pages"] == 3
    h.alloc(8192, cpu=1, flags=flags & ~flag.NOWAIT)
    assert h.answers == [s.MAP_FREE, s.MAP_FREE, s.MAP_ALLOC, s.DONE]
    assert h.map_log[-3:-1] == [("free", second, 4096), ("free", first, 8192)]
    assert slab.census(h.state)["queued_pages"] == 0


# Zones: worked examples and rules.


def test_freed_chunks_come_back_by_page_lowest_first_and_then_unused_memory():
    h = hand()
    frees_some_of_forty(h)
    again = chunks(h, 256, 6)
    assert [(a - 256) // 256 for a in again] == [10, 3, 20, 33, 40, 41]


def test_the_first_index_slides_by_20_with_each_zone():
    h = hand()
    got = indices(h, chunks(h, 16383, 21), 16383)
    starts = ((0, 1, 2, 3, 4, 5, 6), (6, 0, 1, 2, 3, 4, 5), (5, 6, 0, 1, 2, 3, 4))
    assert got == [(zone, index) for zone, order in enumerate(starts) for index in order]


def test_the_first_index_slides_for_each_cpu_by_itself_and_wraps_at_128k():
    h = hand(cpus=2)
    h.state.cpu[0, dfly_zones.JUNK_INDEX] = 131060
    h.alloc(16383, cpu=0)
    assert h.state.cpu[:, dfly_zones.JUNK_INDEX].tolist() == [8, 0]


def test_idle_zones_beyond_two_leave_with_the_next_malloc_that_may_sleep():
    h = hand()
    for addr in chunks(h, 16383, 28):
        h.free(addr)
    assert slab.census(h.state)["idle_zones"] == 3
    h.alloc(16383, flags=flag.NOWAIT)
    assert h.answers == [s.DONE]
    assert h.alloc(16383) < ZONE  # the first zone stayed on its list
    assert h.answers == [s.MAP_FREE, s.DONE]
    assert h.map_log[4:] == [("free", 3 * ZONE, ZONE)]
    assert slab.census(h.state)["idle_zones"] == 2


def test_malloc_of_129_bytes_wastes_a_tenth():
    h = hand()
    addrs = chunks(h, 129, 910)
    assert h.granted == 144
    assert [a // ZONE for a in addrs] == [0] * 909 + [1]
    assert round(15 / 144 * 100, 1) == 10.4


def test_idle_zones_serve_any_class_last_in_first_out_without_the_map():
    h = hand()
    for addr in chunks(h, 16383, 28):
        h.free(addr)
    assert [h.alloc(n, flags=flag.NOWAIT) // ZONE for n in (100, 1000, 15000, 15000)] == [3, 2, 1, 1]
    assert len(h.map_log) == 4


def test_a_reused_zone_forgets_the_chunks_freed_in_its_former_life():
    h = hand()
    for addr in chunks(h, 16383, 28):
        h.free(addr)
    first, second = chunks(h, 15000, 2, flags=flag.NOWAIT)
    h.free(first)
    assert indices(h, [first, second, *chunks(h, 15000, 3)], 15000) == [(0, i) for i in (0, 1, 0, 2, 3)]


@pytest.mark.parametrize("threshold", [0, 1, 3, 8])
def test_the_release_threshold_is_a_parameter(threshold):
    h = hand(release_threshold=threshold)
    for addr in chunks(h, 16383, 7 * 8):
        h.free(addr)
    h.alloc(16383)
    assert slab.census(h.state)["idle_zones"] == min(threshold, 7)


def test_idle_zones_leave_before_oversize_blocks():
    h = hand()
    block = h.alloc(4096)
    for addr in chunks(h, 16383, 28):
        h.free(addr)
    h.free(block, flags=flag.SOFT)
    h.alloc(100)
    assert [step[2] for step in h.map_log if step[0] == "free"] == [ZONE, 4096]


def test_a_full_zone_returns_to_the_head_of_its_list():
    h = hand()
    addrs = chunks(h, 16383, 14)
    h.free(addrs[3])
    h.free(addrs[9])
    assert chunks(h, 16383, 2) == [addrs[9], addrs[3]]


def test_the_last_zone_of_a_class_stays_though_it_is_wholly_free():
    h = hand()
    h.free(h.alloc(16383))
    assert slab.census(h.state) | {"zones": 1, "idle_zones": 0, "free_chunks": 7} == slab.census(h.state)


def test_memory_kept_idle_is_one_zone_per_class_and_two_more():
    h = hand()
    addrs = [h.alloc(row.high) for row in TABLE]
    for row in TABLE[56:]:
        addrs += chunks(h, row.high, 2 * row.n_128k)
    for addr in addrs:
        h.free(addr)
    assert slab.census(h.state)["zones"] > 74
    h.free(h.alloc(8))
    assert slab.census(h.state)["pages"] * s.PAGE == 9.25 * MIB
    assert slab.census(h.state)["live_bytes"] == 0


def test_size_zero_is_a_pointer_of_its_own_and_counts_nothing():
    h = hand()
    assert h.alloc(0) == -8
    assert h.granted == 0
    h.free(-8)
    assert h.map_log == []
    assert slab.census(h.state)["zones"] == 0


# What the kernel of 2003 did not have.


def test_of_equally_full_zones_the_lowest_is_used():
    h = hand(slab_order=FULLEST)
    addrs = chunks(h, 16383, 21)
    for zone in (1, 2, 0):
        h.free(addrs[7 * zone])
    assert [addr // ZONE for addr in chunks(h, 16383, 3)] == [0, 1, 2]


@pytest.mark.parametrize(("order", "idle"), [(OWN, 0), (LOWEST, 1), (FULLEST, 1)])
def test_a_sorted_list_lets_the_zone_with_the_last_few_chunks_become_idle(order, idle):
    """Zones 0 and 1 lack one chunk each, zone 2 holds one alone, and was last to get a free chunk."""
    h = hand(slab_order=order)
    addrs = chunks(h, 16383, 21)
    for addr in (addrs[0], addrs[7], *addrs[15:]):
        h.free(addr)
    h.alloc(16383)
    h.free(addrs[14])
    assert slab.census(h.state)["idle_zones"] == idle


def test_there_are_three_orders():
    with pytest.raises(ValueError, match="slab_order is 3"):
        hand(slab_order=3)


def test_a_threshold_of_zero_keeps_no_idle_zone():
    """A free() that unmaps does so at once; else the CPU's next malloc() that may sleep does."""
    h = hand(release_threshold=0, free_unmaps=1)
    addrs = chunks(h, 16383, 28)
    for addr in addrs[7:]:
        h.free(addr)
    assert h.map_log[4:] == [("free", 2 * ZONE, ZONE), ("free", 3 * ZONE, ZONE)]
    assert slab.census(h.state)["idle_zones"] == 0
    h = hand(release_threshold=0)
    for addr in chunks(h, 16383, 28)[7:]:
        h.free(addr)
    assert slab.census(h.state)["idle_zones"] == 2
    h.alloc(8)
    assert slab.census(h.state)["idle_zones"] == 0
    assert h.map_log[4:6] == [("free", 3 * ZONE, ZONE), ("free", 2 * ZONE, ZONE)]


def test_in_august_2003_zones_freed_while_the_map_is_locked_stay_for_good():
    """The first slab asks whether there are just two idle zones: once there are more, none is unmapped any more."""
    h = hand(free_unmaps=1, header_bytes=164, slide=0, queue_oversize=0)
    locked, begin = [0], h._begin

    def begin_locked(*given):
        row = begin(*given)
        row[regs.LOCKED] = locked[0]
        return row

    h._begin = begin_locked
    addrs = chunks(h, 16383, 63)
    zones = [addrs[7 * n : 7 * n + 7] for n in range(9)]
    counts = []
    for n, zone in enumerate(zones[1:]):
        locked[0] = 4 <= n < 7
        for addr in zone:
            h.free(addr)
        counts.append(slab.census(h.state)["idle_zones"])
    assert counts == [0, 1, 2, 2, 3, 4, 5, 6]
    assert len([step for step in h.map_log if step[0] == "free"]) == 1
    chunks(h, 16383, 1)
    assert slab.census(h.state)["idle_zones"] == 6  # nor does malloc() give any back


def test_the_only_zone_of_a_list_is_not_idle_and_stays_when_another_joins_it():
    h = hand(release_threshold=0, free_unmaps=1)
    addrs = chunks(h, 16383, 14)
    for addr in (*addrs[7:], addrs[0]):
        h.free(addr)
    assert slab.census(h.state) | {"zones": 2, "idle_zones": 0} == slab.census(h.state)


def test_short_memory_makes_every_cpu_give_its_idle_zones_back():
    h = hand(cpus=3, reap=1)
    for cpu in (0, 2):
        for addr in chunks(h, 16383, 21, cpu=cpu):
            h.free(addr, cpu=cpu)
    h.tend(s.TEND_TICK)
    assert h.answers == [s.DONE]
    h.tend(s.TEND_REAP, cpu=1)
    assert h.answers == [s.AGAIN, s.MAP_FREE, s.MAP_FREE, s.AGAIN, s.AGAIN, s.MAP_FREE, s.MAP_FREE, s.DONE]
    assert [step[1] // ZONE for step in h.map_log[6:]] == [2, 1, 5, 4]
    assert slab.census(h.state) | {"zones": 2, "idle_zones": 0} == slab.census(h.state)


def test_the_kernel_of_2003_does_not_reap():
    h = hand()
    for addr in chunks(h, 16383, 21):
        h.free(addr)
    h.tend(s.TEND_REAP)
    assert (h.answers, slab.census(h.state)["idle_zones"]) == ([s.DONE], 2)


# Other CPUs.


@pytest.mark.parametrize("flags", [0, flag.SOFT])
def test_a_chunk_freed_elsewhere_travels_to_its_owner(flags):
    h = hand(cpus=3)
    addr, _ = chunks(h, 1000, 2, cpu=2)
    h.free(addr, cpu=1, flags=flags)
    assert h.answers == [s.IPI, s.DONE]
    assert (h.reg[0, regs.TARGET], h.reg[0, regs.CPU]) == (2, 2)
    assert h.reg[0, regs.FLAGS] == flags | flag.HARD
    assert h.alloc(1000, cpu=2) == addr
    assert h.alloc(1000, cpu=1) // ZONE == 1


def test_a_zone_emptied_by_others_is_idle_at_its_owner():
    h = hand(cpus=2)
    for addr in chunks(h, 16383, 28, cpu=0):
        h.free(addr, cpu=1)
    assert h.state.cpu[:, dfly_zones.FREE_ZONES_COUNT].tolist() == [3, 0]
    h.alloc(100, cpu=1)
    assert slab.census(h.state)["idle_zones"] == 3


def test_zones_that_become_idle_while_oversize_blocks_are_unmapped_wait_for_the_next_malloc():
    h = hand()
    addrs, block = chunks(h, 16383, 28), h.alloc(4096)
    h.free(block, flags=flag.HARD)
    reg = np.zeros((1, regs.COLUMNS), np.int64)
    reg[0, regs.SIZE] = 100
    assert slab.alloc(h.state, reg, 0) == s.MAP_FREE
    for addr in addrs:
        h.free(addr)
    assert slab.alloc(h.state, reg, 0) == s.DONE
    assert slab.census(h.state)["idle_zones"] == 2  # of three, one now serves 100 bytes
