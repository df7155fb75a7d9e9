"""Run one lane on the machine with a clock, sample it, and sum up what only a clock can tell."""

from collections.abc import Mapping

import numpy as np

from kmemexp.boot import timed
from kmemexp.boot.machine import Machine
from kmemexp.lane import witness
from kmemexp.lane.latency import latency_rows, metrics
from kmemexp.lane.model import Lane, Sampling
from kmemexp.lane.sampling import memory_metrics, metrics_row, sampled
from kmemexp.lane.upkeep import largest_run
from kmemexp.metrics import PANICS
from kmemexp.sim import probes as a
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.machine import E_CHUNK, E_DEADLOCK, E_DONE, E_DRY, E_GROW
from kmemexp.sim.maps import KERNEL
from kmemexp.sim.slots import M_COUNT
from kmemexp.workload import phases
from kmemexp.workload.stream import Handlers, Kinds, Stream

CHUNK = 100_000  # events between two returns to Python
OVERTIME = 4  # a lane ends after so many times its stream's length, even if operations are left
SLACK_NS = 1_000_000_000  # and this much
ENDED = (E_DEADLOCK, E_DONE, E_DRY)


def run(
    config: Mapping, kinds: Kinds, stream: Stream, sampling: Sampling, replica: int, handlers: Handlers | None = None
) -> Lane:
    """Play a whole stream on a timed machine that has just booted. Raises ConfigError."""
    t = timed.boot(config, kinds, stream, replica, handlers=handlers)

    def advance(_: Machine, time_ns: int, last: bool) -> Machine:
        nonlocal t
        if t.wired.m[mc.G_EXIT] not in ENDED:
            t = _watched(t, config["policy"], limit_ns(config, stream) if last else time_ns)
        return t.base._replace(world=t.world)

    seen = sampled(t.base, span_ns(config, stream), sampling, advance)
    values = memory_metrics(seen.machine, seen.series, seen.measured) | metrics(t)
    panic = t.world.counters[a.A_PANIC] or t.wired.m[mc.N_PANIC]
    return Lane(replica, metrics_row(values), PANICS[panic], seen.series, seen.snapshots, latency_rows(t.wired),
                witness.summary(t.wired))  # fmt: skip


def _watched(t: timed.Timed, policy: Mapping, until: int) -> timed.Timed:
    """Simulate until a time, and at each multiple of the policy's `watch_s` look whether kernel_map has a long run."""
    if every := round(policy.get("watch_s", 0) * 1e9):
        for time_ns in range((int(t.wired.m[mc.G_NOW]) // every + 1) * every, until + 1, every):
            t = advance(t, time_ns)
            if t.wired.m[mc.G_EXIT] in ENDED:
                return t
            t.wired.m[mc.G_SHORT] = largest_run(t.base._replace(world=t.world)) < policy["floor_bytes"]
    return advance(t, until)


def span_ns(config: Mapping, stream: Stream) -> int:
    """Length of a stream, ns."""
    if "pause_ns" in config["workload"]:
        return closed_span(stream, config["machine"]["cpus"])
    last = int(stream.time_ns[-1]) if stream.length else 0
    if config["workload"]["source"] == "synthetic":
        return max(last, round(phases.length_s(config["workload"]) * 1e9))
    return last


def limit_ns(config: Mapping, stream: Stream) -> int:
    """Time at which a lane ends even if operations are left."""
    span = span_ns(config, stream)
    return OVERTIME * span + SLACK_NS if stream.length else span


def closed_span(stream: Stream, cpus: int) -> int:
    """Length of a closed load if no operation took any time: of the CPU that pauses most."""
    return int(max(stream.time_ns[stream.cpu == c].sum() for c in range(cpus)))


def advance(t: timed.Timed, until: int) -> timed.Timed:
    """Simulate until a time (ns), a deadlock or the end of the stream, making room where there is none."""
    while True:
        code = t.run(t.world, t.wired.m, t.stream, until, CHUNK)
        if code == E_GROW:
            t = timed.enlarge(t)
        elif code != E_CHUNK:
            return t


def warm(config: Mapping, kinds: Kinds) -> None:
    """Compile the engine for a cell's design, or load it."""
    none = np.zeros(0, np.int32)
    empty = Stream(none.astype(np.int64), none.astype(np.uint8), none.astype(np.int16), none, none,
                   none.astype(np.int16), none.astype(np.uint8), 0)  # fmt: skip
    t = timed.boot(config, kinds, empty, 0)
    t.run(t.world, t.wired.m, t.stream, 0, 1)
    t.base.observe(t.world.arena, KERNEL, np.zeros(M_COUNT, np.int64), np.zeros(0))
