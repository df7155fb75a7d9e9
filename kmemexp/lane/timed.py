"""Run a lane on the machine with a clock, from sample to sample, until its stream is done or it deadlocks."""

from collections.abc import Mapping
from typing import Any

from kmemexp.boot.duties import STEPS
from kmemexp.boot.machine import Machine
from kmemexp.boot.timed import Timed, boot, enlarge
from kmemexp.jit import entry
from kmemexp.lane import latency, memory, runaway, witness
from kmemexp.lane.model import Lane, metrics_row
from kmemexp.lane.remapping import Remapper
from kmemexp.lane.replica import Replica
from kmemexp.lane.sampling import sampled
from kmemexp.lane.surveying import largest_run
from kmemexp.lane.unfinished import open_at_end
from kmemexp.metrics import PANICS
from kmemexp.sim.engine.machine import E_CHUNK, E_DEADLOCK, E_DONE, E_DRY, E_GROW, E_TIME
from kmemexp.sim.engine.tables import glob, seen
from kmemexp.sim.engine.watchdog import watch
from kmemexp.sim.maps import KERNEL
from kmemexp.sim.tables import tally
from kmemexp.workload import phases
from kmemexp.workload.stream import Stream

CHUNK = 100_000  # events between two returns to Python
OVERTIME = 4  # a lane ends after so many times its stream's length, even if operations are left
SLACK_NS = 1_000_000_000  # and this much
ENDED = (E_DEADLOCK, E_DONE, E_DRY)


def run(replica: Replica) -> Lane:
    """Boot a machine with a clock and play a replica's whole stream on it. Raises ConfigError."""
    config, stream = replica.config, replica.stream
    t = booted(replica)
    mover = Remapper(t, config["policy"]) if config["policy"].get("moves") else None

    def advance(_: Machine, time_ns: int, last: bool) -> Machine:
        nonlocal t
        if t.wired.m[glob.EXIT] not in ENDED:
            until_ns = limit_ns(config, stream) if last else time_ns
            t = _moved(t, mover, config["policy"], until_ns) if mover else _watched(t, config["policy"], until_ns)
        return t.base._replace(world=t.world)

    samples = sampled(t.base, span_ns(config, stream), replica.sampling, advance, replica.number)
    values = memory.metrics(samples) | latency.metrics(t)
    rows, deadlock = latency.latency_rows(t.wired, open_at_end(t)), witness.summary(t.wired)
    seen = samples.series, samples.snapshots
    return Lane(replica.number, metrics_row(values), panic(t), *seen, rows, deadlock, samples.caches)


def booted(replica: Replica, *, log_rows: int = 0) -> Timed:
    """Boot the machine of a replica; its log keeps the last `log_rows` events. Raises ConfigError."""
    t = boot(
        replica.config, replica.kinds, replica.stream, replica.number, handlers=replica.handlers, log_rows=log_rows
    )
    runaway.limit_steps(t.world.counters, replica.config)
    return t


def run_out(t: Timed, replica: Replica) -> Timed:
    """Simulate a replica to its end, without looking at it on the way."""
    return advance(t, limit_ns(replica.config, replica.stream))


def advance(t: Timed, until_ns: int) -> Timed:
    """Simulate until a time, a deadlock or the end of the stream, making room where there is none.

    Raises RunawayError where an allocator does not come to the end of an operation.
    """
    while True:
        code = t.run(t.world, t.wired.m, t.stream, until_ns, CHUNK)
        if code == E_GROW:
            t = enlarge(t)
        elif code == E_TIME:
            entry(watch)(t.wired.m)  # nothing may happen any more where CPUs only spin
            return t
        elif code != E_CHUNK:
            runaway.check_steps(t.world.counters, t.stream)
            return t


def _watched(t: Timed, policy: Mapping[str, Any], until_ns: int) -> Timed:
    """Simulate until a time, and at each multiple of the policy's `watch_s` look whether kernel_map has a long run."""
    if every := round(policy.get("watch_s", 0) * 1e9):
        for time_ns in range((int(t.wired.m[glob.NOW]) // every + 1) * every, until_ns + 1, every):
            t = advance(t, time_ns)
            if t.wired.m[glob.EXIT] in ENDED:
                return t
            t.wired.m[glob.SHORT] = largest_run(t.base._replace(world=t.world), KERNEL) < policy["floor_bytes"]
    return advance(t, until_ns)


def _moved(t: Timed, mover: Remapper, policy: Mapping[str, Any], until_ns: int) -> Timed:
    """Simulate until a time, and see to the moves of ranges STEPS times in each period of the policy's."""
    every = round(policy["move_s"] * 1e9) // STEPS
    for time_ns in range((int(t.wired.m[glob.NOW]) // every + 1) * every, until_ns + 1, every):
        t = advance(t, time_ns)
        if t.wired.m[glob.EXIT] in ENDED:
            return t
        mover.look(t)
    return advance(t, until_ns)


def panic(t: Timed) -> str:
    """What the historic kernel would have printed first, or ""."""
    return PANICS[t.world.counters[tally.PANIC] or t.wired.m[seen.PANIC]]


def span_ns(config: Mapping[str, Any], stream: Stream) -> int:
    """Length of a stream, ns."""
    if "pause_ns" in config["workload"]:
        return closed_span_ns(stream, config["machine"]["cpus"])
    last = int(stream.time_ns[-1]) if stream.length else 0
    if config["workload"]["source"] == "synthetic":
        return max(last, round(phases.length_s(config["workload"]) * 1e9))
    return last


def limit_ns(config: Mapping[str, Any], stream: Stream) -> int:
    """Time at which a lane ends even if operations are left."""
    span = span_ns(config, stream)
    return OVERTIME * span + SLACK_NS if stream.length else span


def closed_span_ns(stream: Stream, cpus: int) -> int:
    """Length of a closed load if no operation took any time: of the CPU that pauses most."""
    return int(max(stream.time_ns[stream.cpu == c].sum() for c in range(cpus)))
