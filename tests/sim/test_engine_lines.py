"""Cache lines of objects: what touching one costs, by who touched it last."""

import numpy as np
import pytest

from kmemexp.boot import layout, wiring
from kmemexp.jit import entry
from kmemexp.sim.engine.lines import LINES, fetch_line
from kmemexp.sim.engine.tables import glob

NEAR, FAR = 100, 1_000
COST = {"move_near_ns": NEAR, "move_far_ns": FAR, "socket_cpus": 2}


def machine(cpus: int = 4, **more) -> layout.Wired:
    return layout.build(wiring.Wiring(cpus=cpus, **({"cost": COST, "object_lines": True} | more)))


def touch(wired: layout.Wired, number: int, addr: int) -> int:
    (c,) = wired.place("cpus", np.array([number])).tolist()
    return int(entry(fetch_line)(wired.m, c, addr))


def test_a_line_costs_where_it_has_been_on_another_cpu_and_more_on_another_socket() -> None:
    wired = machine()
    assert [touch(wired, number, 4096) for number in (0, 0, 1, 1, 3, 2, 0)] == [0, 0, NEAR, 0, FAR, NEAR, FAR]


def test_objects_share_a_line_of_64_bytes_and_no_more() -> None:
    wired = machine()
    touch(wired, 0, 4096)
    assert touch(wired, 1, 4096 + 63) == NEAR
    assert touch(wired, 0, 4096 + 64) == 0
    assert touch(wired, 1, 8192 + 64) == 0


def test_what_the_caches_do_not_hold_any_more_costs_nothing_extra() -> None:
    wired = machine()
    touch(wired, 0, 0)
    for line in range(1, 2 * LINES):
        touch(wired, 0, 64 * line)
    assert touch(wired, 1, 0) == 0
    assert touch(wired, 1, 64 * (2 * LINES - 1)) == NEAR


@pytest.mark.parametrize("more", [{"object_lines": False}, {"cost": {}}, {"cpus": 1}])
def test_lines_are_followed_only_where_they_can_cost_anything(more) -> None:
    wired = machine(**more)
    assert wired.m[glob.LINES] == 0
    assert wired.table("lines").size == 0
