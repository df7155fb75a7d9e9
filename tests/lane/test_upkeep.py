"""Upkeep in a lane without a clock: duties come at their times among the operations, and do what they are for."""

from typing import NamedTuple

import numpy as np
from small_cell import cell

from kmemexp.boot import duties
from kmemexp.boot.machine import boot
from kmemexp.lane import upkeep
from kmemexp.sim import slots as s
from kmemexp.sim.maps import KERNEL
from kmemexp.workload import build, stream


class Clockwork(NamedTuple):
    """Just what `Duties` looks at."""

    ticks: tuple[int, ...]
    looks: tuple[int, ...] = ()


def test_upkeep_comes_at_its_times_among_the_operations_and_after_the_last_one() -> None:
    none = np.zeros(4, np.int32)
    ops = stream.Stream(np.array([5, 10, 10, 42], np.int64), *[none] * 6, slots=1)
    due_times = upkeep.Duties(Clockwork((10, 0, 20)), ops)
    told = []
    for end, until_ns in ((3, 15), (4, 45), (4, 60)):
        while True:
            stop, due = due_times.next(end, until_ns)
            places = [duty.place for duty in due]
            told.append((stop, places))
            if not places:
                break
    assert told == [(1, [0]), (3, []), (3, [0, 2]), (3, [0]), (3, [0, 2]), (4, []), (4, [0]), (4, [0, 2]), (4, [])]


def test_duties_come_by_their_own_clocks():
    none = np.zeros(2, np.int32)
    ops = stream.Stream(np.array([0, 100], np.int64), *[none] * 6, slots=1)
    policy = {"trim_s": 30e-9, "watch_s": 50e-9, "floor_bytes": 1}
    due_times, told = upkeep.Duties(Clockwork((40,)), ops, policy), []
    while due := due_times.next(2, 100)[1]:
        told.append([duty.what for duty in due])
    tick, trim, watch = [duties.TICK], [duties.TRIM], [duties.WATCH]
    assert told == [trim, tick, watch, trim, tick, trim, watch]


def test_a_closed_load_has_no_times_and_so_no_duties():
    none = np.zeros(2, np.int32)
    pauses = stream.Stream(np.array([100, 5], np.int64), *[none] * 6, slots=1)
    assert upkeep.Duties(Clockwork((40,)), pauses).next(2, 1000) == (2, [])


def test_the_largest_run_is_what_the_map_says_and_the_floor_decides_whether_to_reap() -> None:
    config = cell("unified", "buckets", "kmapentzone")
    load = build.build(config["workload"], cpus=3, seed=7, replicas=[0])
    machine = boot(config, load.kinds, load.streams[0].slots)
    asked = []
    told = machine._replace(upkeep=lambda world, place, why: asked.append((place, why)))
    room = upkeep.largest_run(machine, KERNEL)
    assert 0 < room < config["machine"]["kva_bytes"]
    for floor, times in ((room, 0), (room + 1, 1)):
        asked.clear()
        watch = upkeep.Duties(told, load.streams[0], {"watch_s": 1, "floor_bytes": floor})
        watch.do(duties.Duty(duties.WATCH, 0, 1))
        assert asked == [(place, s.TEND_REAP) for place in range(len(machine.ticks))] * times
