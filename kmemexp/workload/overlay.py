"""Load from a recorded trace: copies of it laid over one another, each on CPUs of its own and at a time of its own."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmemexp.errors import TraceError
from kmemexp.workload import merge, seeds
from kmemexp.workload.stream import Handlers, Load, Stream, stream_of
from kmemexp.workload.traces import library
from kmemexp.workload.traces.choosing import AS_RECORDED, Choice

if TYPE_CHECKING:
    from kmemexp.workload.traces.playing import Recording


def build(workload: Mapping[str, Any], *, cpus: int, seed: int, replicas: Sequence[int]) -> Load:
    """Streams of a checked trace workload, one per replica.

    Copy 0 begins at 0, the others at times that the replica draws uniformly from 0 to `shift_s`. Where the stream has
    deaths that are only likely, the replica draws them too, the same for every copy. A replica that has nothing to draw
    shares one stream with the others. Raises TraceError, also where the file is not the one that the sweep was planned
    with.
    """
    planned = workload.get("digest")
    if planned and library.digest(workload["trace"]) != planned:
        raise TraceError(f"{workload['trace']}: has changed since the sweep was planned, or differs on this node")
    window_s = workload["window_s"]
    recordings = _recordings(workload, seed, replicas)
    first = recordings[0]
    shifts = [_shifts(workload, seed, replica) for replica in replicas]
    if workload["copies"] == 1 and all(recording is first for recording in recordings):
        lanes = (_overlay(first.stream, np.zeros(1, np.int64), window_s, cpus),) * len(replicas)
    else:
        pairs = zip(recordings, shifts, strict=True)
        lanes = tuple(_overlay(recording.stream, shift_ns, window_s, cpus) for recording, shift_ns in pairs)
    if not workload.get("interrupts"):
        return Load(first.kinds, lanes)
    trace_cpus = _cpus_of(first.stream)
    handlers = (_overlay_handlers(first.handlers, shift_ns, window_s, trace_cpus, cpus) for shift_ns in shifts)
    return Load(first.kinds, lanes, tuple(handlers))


def _recordings(workload: Mapping[str, Any], seed: int, replicas: Sequence[int]) -> list["Recording"]:
    """Make the recording that each replica plays: one and the same, or one of many that are as likely."""
    name = workload["trace"]
    if not any(key in workload for key in ("stream", "start")):
        return [library.load(name)] * len(replicas)
    choice = Choice(workload.get("stream", AS_RECORDED.stream), workload.get("start", AS_RECORDED.start))
    if not choice.bit or not library.material(name).guessed:
        return [library.load(name, choice)] * len(replicas)
    draws = (seeds.generator(seed, seeds.GUESSES, replica) for replica in replicas)
    return [library.material(name).play(choice, draw) for draw in draws]


def _overlay_handlers(
    recorded: Handlers, shift_ns: np.ndarray, window_s: float, trace_cpus: int, cpus: int
) -> Handlers:
    """Lay the interrupts of all copies over one another, each on the CPUs of its copy."""
    copies = len(shift_ns)
    time = np.concatenate([recorded.time_ns + shift for shift in shift_ns])
    cpu = np.concatenate([(recorded.cpu + copy * trace_cpus) % cpus for copy in range(copies)])
    order = np.argsort(time, kind="stable")
    if window_s > 0:
        order = order[time[order] < round(window_s * 1e9)]
    flags, ns = np.tile(recorded.flags, copies)[order], np.tile(recorded.ns, copies)[order]
    return Handlers(time[order], cpu[order].astype(np.int16), flags, ns)


def _shifts(workload: Mapping[str, Any], seed: int, replica: int) -> np.ndarray:
    """Draw the starting times of the copies: int64[copies], nanoseconds."""
    drawn = seeds.generator(seed, seeds.SHIFTS, replica).uniform(0.0, workload["shift_s"], workload["copies"] - 1)
    return np.concatenate([[0], (drawn * 1e9).astype(np.int64)])


def _overlay(trace: Stream, shift_ns: np.ndarray, window_s: float, cpus: int) -> Stream:
    """One lane: what the copies do before `window_s` (0: to their ends)."""
    counts = np.full(len(shift_ns), trace.length)
    if window_s > 0:
        counts = np.searchsorted(trace.time_ns, round(window_s * 1e9) - shift_ns)
    n = int(counts.sum())
    out = stream_of((np.empty(n, column.dtype) for column in trace.arrays), trace.slots * len(shift_ns))
    head, due = np.empty((2, len(shift_ns)), np.int64)
    merge.overlay(trace, shift_ns, counts, _cpus_of(trace), cpus, trace.slots, out, head, due)
    return out


def _cpus_of(trace: Stream) -> int:
    """CPUs that a copy takes."""
    return int(trace.cpu.max(initial=0)) + 1
