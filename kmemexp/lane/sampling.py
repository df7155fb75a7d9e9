"""Looking at a lane at each of its samples: the maps, a row of the series, snapshots."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kmemexp.boot.machine import Machine
from kmemexp.lane import caches, users
from kmemexp.lane import fragmentation as frag
from kmemexp.lane.model import Sampling
from kmemexp.metrics import SERIES
from kmemexp.sim import slots as s
from kmemexp.sim.maps import MAP_NAMES
from kmemexp.sim.tables import gauge, tally

PICTURED = 4 << 30  # bytes of the largest map of which a picture shows every page


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
    series = np.zeros((sampling.points, len(SERIES)), np.int64)
    measured = np.zeros((sampling.points, len(machine.maps), gauge.COLUMNS), np.int64)
    snapshots: list[tuple[int, str, np.ndarray]] = []
    census = caches.Census() if replica == 0 and painted else None
    for point, time_ns in enumerate(times):
        machine = advance(machine, time_ns, point == sampling.points - 1)
        measured[point], pictures = look(machine, sampling.bins if point in painted else 0)
        snapshots += [(time_ns, name, shares) for name, shares in pictures.items()]
        if pictures and replica == 0:
            snapshots += [(time_ns, name, shares) for name, shares in users.pictures(machine, sampling.bins)]
        if census:
            census.take(machine, time_ns, snapshot=bool(pictures))
        series[point] = sample(machine, measured[point], time_ns)
    return Samples(machine, series, measured, snapshots, census.rows() if census else ())


def sample_times(span_ns: int, sampling: Sampling) -> tuple[list[int], set[int]]:
    """Times of the samples, and which of them are painted."""
    times = np.linspace(0, span_ns, sampling.points + 1)[1:].astype(np.int64).tolist()
    return times, set(np.linspace(0, sampling.points - 1, sampling.snapshots).round().astype(int).tolist())


def look(machine: Machine, bins: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Totals of every map that serves requests, int64[maps, M_COUNT]; with `bins`, pictures of them by name.

    A picture is uint8[bins]: the occupied share of each stretch of the map, of 255.
    """
    totals = np.zeros((len(machine.maps), gauge.COLUMNS), np.int64)
    pictures = {}
    for row, m in zip(totals, machine.maps, strict=True):
        shares = np.zeros(bins)
        machine.observe(machine.world.arena, m, row, shares)
        if bins:
            pictures[MAP_NAMES[m]] = np.round(shares * 255).astype(np.uint8)
    return totals, pictures


def sample(machine: Machine, totals: np.ndarray, time_ns: int) -> list[int]:
    """Row of the series: the counters, and what `look` measured of the maps."""
    c = machine.world.counters
    malloc = totals[machine.maps.index(machine.malloc_map)]
    shared = totals[machine.shared]
    return [
        time_ns,
        c[tally.OPS],
        c[tally.REQUESTED],
        c[tally.GRANTED],
        c[tally.HELD],
        shared[:, gauge.FREE].sum(),
        shared[:, gauge.LARGEST].max(),
        shared[:, gauge.HOLES].sum(),
        totals[:, gauge.ENTRIES].sum(),
        malloc[gauge.FREE],
        malloc[gauge.LARGEST],
        c[tally.FAILURES],
        superpages(machine, totals),
        c[tally.MOVES],
    ]


def superpages(machine: Machine, totals: np.ndarray) -> int:
    """Wholly free superpages in the maps that serve any purpose, aligned to each map's start.

    They are counted in a picture of the largest stretches that both the map and a superpage are whole numbers of. In
    maps too large for a picture of every page: those that lie in one hole.
    """
    found, again = 0, np.zeros(gauge.COLUMNS, np.int64)
    for i in np.flatnonzero(machine.shared).tolist():
        nbytes = machine.map_bytes[i]
        if nbytes > PICTURED:
            found += int(totals[i, gauge.WHOLE])
            continue
        stretch = max(math.gcd(nbytes, machine.superpage_bytes), s.PAGE)
        shares = np.zeros(nbytes // stretch)
        machine.observe(machine.world.arena, machine.maps[i], again, shares)
        found += frag.whole_stretches(shares, machine.superpage_bytes // stretch)
    return found
