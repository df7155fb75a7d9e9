"""Locks of maps: a map that is only a guarantee on kernel_map has no lock of its own."""

import pytest

from kmemexp.boot.routes import _maps
from kmemexp.boot.wiring import Wiring
from kmemexp.sim.arenas import soft_submaps, vm_map
from kmemexp.sim.engine.tables import kmap
from kmemexp.sim.maps import BUFFER, CLEAN, EXEC, KERNEL, KMEM, MB, PAGER, PIPE


@pytest.mark.parametrize(
    ("arena", "layout", "sharing"),
    [
        (vm_map, "unified", {KERNEL}),
        (soft_submaps, "unified", {KERNEL, CLEAN, BUFFER, PAGER, EXEC, PIPE, MB}),
        (soft_submaps, "split", {KERNEL, CLEAN, BUFFER, PAGER, EXEC, PIPE}),
    ],
)
def test_soft_submaps_share_the_lock_of_kernel_map(arena, layout, sharing):
    rows = _maps({"layout": layout, "lock": "sleep"}, Wiring(), arena)
    locks = rows[:, kmap.LOCK].tolist()
    assert {m for m, lock in enumerate(locks) if lock == locks[KERNEL]} == sharing
    assert locks[KMEM] != locks[KERNEL]
