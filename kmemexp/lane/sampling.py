"""Looking at a lane at each of its samples: the maps, a row of the series, snapshots."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kmemexp.boot.machine import Machine
from kmemexp.lane import caches, users
from kmemexp.lane.model import Sampling
from kmemexp.lane.surveying import Survey, picture
from kmemexp.sim.maps import MAP_NAMES
from kmemexp.sim.tables import gauge, tally


class Samples(NamedTuple):
    """What was seen of a lane at its samples, and the machine as it was at the last one."""

    machine: Machine
    series: np.ndarray  # int64[points, len(SERIES)]
    measured: np.ndarray  # int64[points, maps, M_COUNT]
    snapshots: list[tuple[int, str, np.ndarray]]  # simulated ns, map or map:user, uint8[bins] occupied share
    caches: tuple[tuple[Any, ...], ...]  # rows of `lane.caches`


def sampled(
    machine: Machine, span_ns: int, sampling: Sampling, advance: Callable[[Machine, int, bool], Machine], replica: int
) -> Samples:
    """Look at a lane of `span_ns` at each of its samples; `advance(machine, time_ns, last)` brings it there.

    Of the first replica snapshots also say who uses the maps, and what each cache holds.
    """
    times, painted = sample_times(span_ns, sampling)
    counted = np.zeros((sampling.points, tally.COLUMNS), np.int64)
    measured = np.zeros((sampling.points, len(machine.maps), gauge.COLUMNS), np.int64)
    superpages = np.zeros(sampling.points, np.int64)
    snapshots: list[tuple[int, str, np.ndarray]] = []
    census = caches.Census() if replica == 0 and painted else None
    survey = Survey(machine)
    for point, time_ns in enumerate(times):
        machine = advance(machine, time_ns, point == sampling.points - 1)
        superpages[point] = survey.take(machine, measured[point])
        counted[point] = machine.world.counters
        if point in painted:
            snapshots += [(time_ns, name, shares) for name, shares in pictures(machine, sampling.bins).items()]
            if replica == 0:
                snapshots += [(time_ns, name, shares) for name, shares in users.pictures(machine, sampling.bins)]
        if census:
            census.take(machine, time_ns, snapshot=point in painted)
    columns = series(machine, np.array(times, np.int64), counted, measured, superpages)
    return Samples(machine, columns, measured, snapshots, census.rows() if census else ())


def sample_times(span_ns: int, sampling: Sampling) -> tuple[list[int], set[int]]:
    """Times of the samples, and which of them are painted."""
    times = np.linspace(0, span_ns, sampling.points + 1)[1:].astype(np.int64).tolist()
    return times, set(np.linspace(0, sampling.points - 1, sampling.snapshots).round().astype(int).tolist())


def pictures(machine: Machine, bins: int) -> dict[str, np.ndarray]:
    """Pictures of every map that serves requests, by name, uint8[bins]: occupied share of each stretch, of 255."""
    return {MAP_NAMES[m]: np.round(picture(machine, m, bins) * 255).astype(np.uint8) for m in machine.maps if bins}


def series(
    machine: Machine, times: np.ndarray, counted: np.ndarray, measured: np.ndarray, superpages: np.ndarray
) -> np.ndarray:
    """Series of a lane, int64[points, len(SERIES)], from what was seen at each sample.

    `counted`: int64[points, tally.COLUMNS]; `measured`: int64[points, maps, gauge.COLUMNS].
    """
    malloc = measured[:, machine.maps.index(machine.malloc_map)]
    shared = measured[:, machine.shared]
    return np.column_stack([
        times,
        *counted[:, [tally.OPS, tally.REQUESTED, tally.GRANTED, tally.HELD]].T,
        shared[:, :, gauge.FREE].sum(axis=1),
        shared[:, :, gauge.LARGEST].max(axis=1),
        shared[:, :, gauge.HOLES].sum(axis=1),
        measured[:, :, gauge.ENTRIES].sum(axis=1),
        malloc[:, gauge.FREE],
        malloc[:, gauge.LARGEST],
        counted[:, tally.FAILURES],
        superpages,
        counted[:, tally.MOVES],
    ])  # fmt: skip
