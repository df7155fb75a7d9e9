"""What both of DragonFly's slab allocators do: sizes, without memory, several requests at once, orders of zones."""

import dfly_programs
import numpy as np
import pytest
from dfly_programs import KIB, MIB, ZONE, chunks

from kmemexp.sim import slots as s
from kmemexp.sim.allocators import dfly_slab, dfly_slab_2020
from kmemexp.sim.allocators._shared.slab_order import FULLEST, LOWEST, OWN
from kmemexp.sim.tables import flag, panics, regs
from kmemexp.validate.hand import Hand

BIG = 16383  # seven to a zone
BOTH = pytest.mark.parametrize("slab", [dfly_slab, dfly_slab_2020])


def hand(slab, *, limit: int = 64 * MIB, **params: int) -> Hand:
    return Hand(slab, dfly_programs.fresh(slab, **params), limit=limit)


# KiB of a zone, request, granted bytes and where they come from.
WHOLE_PAGES_FROM_THE_MAP = [
    (128, 4095, 4096, "zone"), (128, 4096, 4096, "map"), (128, 8191, 8192, "zone"), (128, 8192, 8192, "map"),
    (128, 12288, 12288, "map"), (128, 16383, 16384, "zone"), (128, 16384, 16384, "map"),
    (128, 20000, 20480, "map"), (32, 8193, 12288, "map"), (32, 8191, 8192, "zone"),
    (128, 3 * MIB + 1, 3 * MIB + 4096, "map"),
]  # fmt: skip
TWO_PAGES_FROM_ZONES = [
    (128, 4095, 4096, "zone"), (128, 4096, 4096, "zone"), (128, 8191, 8192, "zone"), (128, 8192, 8192, "zone"),
    (128, 12288, 12288, "map"), (128, 16383, 16384, "zone"), (128, 16384, 16384, "map"),
    (128, 20000, 20480, "map"), (32, 8193, 12288, "map"), (32, 8192, 8192, "map"), (32, 4096, 4096, "zone"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("slab", "zone_kib", "nbytes", "granted", "kind"),
    [(dfly_slab, *row) for row in WHOLE_PAGES_FROM_THE_MAP] + [(dfly_slab_2020, *row) for row in TWO_PAGES_FROM_ZONES],
)
def test_whole_pages_and_what_reaches_zone_limit_go_to_the_map(slab, zone_kib, nbytes, granted, kind):
    """In 2020 one and two pages use zones."""
    h = hand(slab, zone_bytes=zone_kib * KIB)
    assert h.alloc(nbytes) >= 0
    assert h.granted == granted
    assert h.map_log == [("alloc", 0, granted if kind == "map" else zone_kib * KIB)]


@BOTH
def test_map_requests_carry_map_alignment_and_attribute(slab):
    h = hand(slab)
    for nbytes, size, align in ((100, ZONE, ZONE), (5 * s.PAGE, 5 * s.PAGE, s.PAGE)):
        h.alloc(nbytes)
        r = h.reg[0]
        assert [r[regs.MAP], r[regs.BYTES], r[regs.ALIGN], r[regs.ATTR]] == [5, size, align, s.ATTR_WIRED]


@pytest.mark.parametrize(
    ("slab", "nbytes", "addr"),
    [(dfly_slab, 100, 176), (dfly_slab, 4096, 0), (dfly_slab_2020, 100, 112), (dfly_slab_2020, 12288, 0)],
)
def test_without_kva_the_kernel_panics_unless_the_caller_cannot_sleep(slab, nbytes, addr):
    h = hand(slab, limit=0)
    assert h.alloc(nbytes) == -1
    assert h.reg[0, regs.PANIC] == panics.KERNEL_MAP
    assert h.alloc(nbytes, flags=flag.NOWAIT) == -1
    assert h.reg[0, regs.PANIC] == panics.NONE
    h.limit = ZONE
    assert h.alloc(nbytes) == addr


@BOTH
def test_without_map_entries_the_kernel_panics(slab):
    h = hand(slab)
    h.reg[0, regs.SIZE] = 100
    assert slab.alloc(h.state, h.reg, 0) == s.MAP_ALLOC
    h.reg[0, regs.BASE] = s.NO_ENTRY
    assert slab.alloc(h.state, h.reg, 0) == s.FAILED
    assert h.reg[0, regs.PANIC] == panics.ENTRIES


@pytest.mark.parametrize(
    ("slab", "then"),
    [(dfly_slab, [1] * 6 + [3] * 6), (dfly_slab_2020, [3] * 6 + [1] * 6)],  # there the older of the two is at the tail
)
def test_two_operations_may_wait_for_the_map_at_once(slab, then):
    h = hand(slab)
    reg = np.zeros((2, regs.COLUMNS), np.int64)
    reg[:, regs.SIZE] = BIG
    assert [slab.alloc(h.state, reg, i) for i in (0, 1)] == [s.MAP_ALLOC] * 2
    reg[:, regs.BASE] = 3 * ZONE, ZONE
    assert [slab.alloc(h.state, reg, i) for i in (0, 1)] == [s.DONE] * 2
    assert [addr // ZONE for addr in (*reg[:, regs.ADDR].tolist(), *chunks(h, BIG, 12))] == [3, 1, *then]
    assert h.map_log == []


@pytest.mark.parametrize(
    ("slab", "order", "zones", "passed"),
    [
        (dfly_slab, OWN, [1, 1, 1, 2, 0, 0], 0),  # last in, first out
        (dfly_slab_2020, OWN, [0, 0, 2, 1, 1, 1], 0),  # first in, first out
        *[(slab, LOWEST, [0, 0, 1, 1, 1, 2], 2) for slab in (dfly_slab, dfly_slab_2020)],  # 2 and 1 pass zone 0
        # With its second free chunk zone 1 passes both others.
        *[(slab, FULLEST, [2, 0, 0, 1, 1, 1], 2) for slab in (dfly_slab, dfly_slab_2020)],
    ],
)
def test_the_order_of_a_list_decides_which_zone_is_used(slab, order, zones, passed):
    """Of the three full zones of seven chunks, zone 0 gets two free chunks, zone 2 one and zone 1 three."""
    h = hand(slab, slab_order=order)
    addrs = chunks(h, BIG, 21)
    work = 0
    for zone, chunk in ((0, 3), (0, 5), (2, 0), (1, 6), (1, 2), (1, 1)):
        h.free(addrs[7 * zone + chunk])
        work += int(h.reg[0, regs.WORK])
    assert [addr // ZONE for addr in chunks(h, BIG, 6)] == zones
    assert work == passed
