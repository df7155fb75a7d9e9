"""What happens by the clock in a lane beside its operations: the allocators' own upkeep, and a policy's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kmemexp.boot.duties import LOOK, MOVE, SHRINK, SHRINK_NS, TICK, TRIM, Duty, duties
from kmemexp.boot.machine import Machine
from kmemexp.lane.moving import Mover
from kmemexp.lane.shrinking import Shrinkers
from kmemexp.lane.surveying import largest_run
from kmemexp.sim import slots as s
from kmemexp.sim.maps import KERNEL
from kmemexp.workload.stream import Stream


class Duties:
    """When duties are due in a stream, which has times only where no load is closed."""

    def __init__(
        self,
        machine: Machine,
        stream: Stream,
        policy: Mapping[str, Any] | None = None,
        shrinkers: Shrinkers | None = None,
    ) -> None:
        timed = stream.length > 0 and bool((stream.time_ns[1:] >= stream.time_ns[:-1]).all())
        listed = duties(machine.ticks, policy or {}, machine.looks) if timed else []
        if timed and shrinkers:
            listed.append(Duty(SHRINK, 0, SHRINK_NS))
        self._shrinkers = shrinkers
        self._due = {duty: duty.every_ns for duty in listed}
        self._floor = (policy or {}).get("floor_bytes", 0)
        self._machine, self._time = machine, stream.time_ns
        self._mover = Mover(machine, stream, policy) if policy and policy.get("moves") else None

    def next(self, end: int, until_ns: int) -> tuple[int, list[Duty]]:
        """Operations to play before the next duties, and these: none until `until_ns`."""
        time = min(self._due.values(), default=until_ns + 1)
        if time > until_ns:
            return end, []
        now = [duty for duty, due in self._due.items() if due == time]
        for duty in now:
            self._due[duty] += duty.every_ns
        return min(int(np.searchsorted(self._time, time)), end), now

    def do(self, duty: Duty, at: int = 0) -> None:
        """Carry out a duty to its end, before operation `at`."""
        if duty.what == SHRINK and self._shrinkers is not None:
            self._shrinkers.run(at)
        elif duty.what == MOVE and self._mover is not None:
            self._mover.run(at)
        elif duty.what == TICK:
            self._machine.upkeep(self._machine.world, duty.place, s.TEND_TICK)
        elif duty.what == LOOK:
            self._machine.upkeep(self._machine.world, duty.place, s.TEND_WATCH)
        elif duty.what == TRIM or largest_run(self._machine, KERNEL) < self._floor:
            reap(self._machine)

    def relieve(self, at: int) -> None:
        """Let go what can be spared, as operation `at` has found no room."""
        if self._shrinkers is not None and self._machine.shares_pages:
            self._shrinkers.run(at)
        else:
            reap(self._machine)


def reap(machine: Machine) -> None:
    """Let every allocator give back what it can spare."""
    for place in range(len(machine.ticks)):
        machine.upkeep(machine.world, place, s.TEND_REAP)
