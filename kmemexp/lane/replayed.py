"""Run a lane without a clock: play its stream in chunks between samples, with the duties that fall among them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kmemexp.boot.machine import Machine, boot
from kmemexp.errors import ConfigError
from kmemexp.lane import memory, runaway, users
from kmemexp.lane.filling import fill
from kmemexp.lane.model import Lane, Sampling, metrics_row
from kmemexp.lane.replica import Replica
from kmemexp.lane.sampling import sample_times, sampled
from kmemexp.lane.shrinking import Shrinkers
from kmemexp.lane.upkeep import Duties
from kmemexp.metrics import PANICS
from kmemexp.parts.finding import foresees, part
from kmemexp.parts.spaces import kva_bytes
from kmemexp.sim import arenas, stale
from kmemexp.sim.maps import DIRECT
from kmemexp.sim.tables import tally
from kmemexp.workload.stream import Stream, Watched, columns

CHUNK = 100_000  # operations between two returns to Python
REHEARSAL = {"points": 1, "snapshots": 0, "bins": 1}  # what is recorded of it: nothing


class _Played(NamedTuple):
    """A lane, and the machine as it was left."""

    lane: Lane
    machine: Machine


def run(replica: Replica) -> Lane:
    """Boot a machine without a clock and play a replica's whole stream on it. Raises ConfigError.

    Twice, if its arena places by what is to come: the first time is the rehearsal.
    """
    name = replica.config["maps"]["arena"]
    if not foresees(name):
        return _played(replica).lane
    rehearsed = _played(replica._replace(config={**replica.config, "sample": REHEARSAL})).machine
    again = _played(replica, rehearsed.world.arena)
    if why := part(arenas, name).differs(again.machine.world.arena):
        raise ConfigError(f"policy={replica.config['policy']['name']}: {why}")
    return again.lane


def _played(replica: Replica, rehearsed: Any = None) -> _Played:
    """Run a replica once; `rehearsed`: its arena at the end of a first time."""
    config, stream = replica.config, replica.stream
    spare = int(bool(config["policy"].get("moves")))  # a row for what has just been moved
    machine = boot(config, replica.kinds, stream.slots + spare, rehearsed)
    machine = watching(machine, replica.watched, kva_bytes(config["maps"], config["machine"]))
    runaway.limit_steps(machine.world.counters, config)
    shrinkers = None
    if machine.shares_pages:
        fill(machine, config, replica.kinds, replica.number)
        shrinkers = Shrinkers(machine, stream, replica.kinds, config, replica.number)
    lane = play(machine, stream, replica.sampling, replica.number, config["policy"], shrinkers)
    return _Played(lane, machine)


def play(
    machine: Machine,
    stream: Stream,
    sampling: Sampling,
    replica: int,
    policy: Mapping[str, Any] | None = None,
    shrinkers: Shrinkers | None = None,
) -> Lane:
    """Play a whole stream on a machine that has just booted. `policy`: that node of the configuration."""
    at, upkeep = 0, Duties(machine, stream, policy, shrinkers)
    span_ns = int(stream.time_ns[-1]) if stream.length else 0
    times, _ = sample_times(span_ns, sampling)
    ends = iter([*np.searchsorted(stream.time_ns, times[:-1], side="right").tolist(), stream.length])

    def advance(machine: Machine, time_ns: int, last: bool) -> Machine:
        nonlocal at
        begin = at
        at = _play_until(machine, stream, at, next(ends), time_ns, upkeep)
        if replica == 0:
            users.enter_kinds(machine, stream, begin, at)
        return machine

    seen = sampled(machine, span_ns, sampling, advance, replica)
    panic = PANICS[machine.world.counters[tally.PANIC]]
    row = metrics_row(memory.metrics(seen))
    return Lane(replica, row, panic, seen.series, seen.snapshots, caches=seen.caches)


def _play_until(machine: Machine, stream: Stream, at: int, end: int, until_ns: int, upkeep: Duties) -> int:
    """Play operations `at` … end-1, which end by `until_ns`, with the duties that fall among them. Returns `end`."""
    operations = columns(stream)
    while True:
        stop, due = upkeep.next(end, until_ns)
        while at < stop:
            goal = min(stop, at + CHUNK)
            at += machine.replay(machine.world, *operations, at, goal)
            if at < goal:  # a map had no room
                runaway.check_steps(machine.world.counters, stream)
                upkeep.relieve(at)
        for duty in due:
            upkeep.do(duty, at)
        runaway.check_steps(machine.world.counters, stream)
        if not due:
            return at


def watching(machine: Machine, references: Watched | None, space_bytes: int) -> Machine:
    """Give a machine that has just booted the table of what is watched in its stream, if anything is."""
    if references is None:
        return machine
    watch = stale.table(**references._asdict(), kva_bytes=space_bytes, direct_map=DIRECT)
    return machine._replace(world=machine.world._replace(watch=watch))
