"""Measuring maps: what is free in them, how many superpages, pictures."""

import math

import numpy as np
from numpy.typing import NDArray

from kmemexp.boot.machine import Machine
from kmemexp.sim import slots as s
from kmemexp.sim.replay import ASKED, ASKED_BINS, ASKED_MAP
from kmemexp.sim.tables import gauge

PICTURED = 4 << 30  # bytes of the largest map of which a picture shows every page
NO_SHARES = np.zeros(0)


class Survey:
    """What is measured of a machine at each sample: every map that serves requests, and free superpages.

    Superpages are aligned to each map's start, in the maps that serve any purpose. They are counted in a picture of the
    largest stretches that both the map and a superpage are whole numbers of; in maps too large for a picture of every
    page, those that lie in one hole.
    """

    def __init__(self, machine: Machine) -> None:
        self._asked = np.zeros((len(machine.maps), ASKED), np.int64)
        for row, m, nbytes, shared in zip(self._asked, machine.maps, machine.map_bytes, machine.shared, strict=True):
            stretch = max(math.gcd(nbytes, machine.superpage_bytes), s.PAGE)
            bins = nbytes // stretch if shared and nbytes <= PICTURED else 0
            row[:] = m, bins, machine.superpage_bytes // stretch if shared else 0
        self._shares = np.zeros(self._asked[:, ASKED_BINS].max(initial=0))

    def take(self, machine: Machine, totals: NDArray[np.int64]) -> int:
        """Write the totals of each map, int64[maps, gauge.COLUMNS] of zeros; return the number of free superpages."""
        return int(machine.observe(machine.world.arena, self._asked, totals, self._shares))


def free_superpages(machine: Machine) -> int:
    """Superpages that are wholly free in the maps that serve any purpose."""
    return Survey(machine).take(machine, np.zeros((len(machine.maps), gauge.COLUMNS), np.int64))


def measured(machine: Machine) -> NDArray[np.int64]:
    """Totals of every map that serves requests, int64[maps, gauge.COLUMNS]."""
    totals = np.zeros((len(machine.maps), gauge.COLUMNS), np.int64)
    asked = np.zeros((len(machine.maps), ASKED), np.int64)
    asked[:, ASKED_MAP] = machine.maps
    machine.observe(machine.world.arena, asked, totals, NO_SHARES)
    return totals


def picture(machine: Machine, m: int, bins: int) -> NDArray[np.float64]:
    """Occupied share of each of `bins` equal stretches of map `m`."""
    shares = np.zeros(bins)
    totals = np.zeros((1, gauge.COLUMNS), np.int64)
    machine.observe(machine.world.arena, np.array([[m, bins, 0]]), totals, shares)
    return shares


def largest_run(machine: Machine, m: int) -> int:
    """Bytes of a map's largest hole."""
    totals = np.zeros((1, gauge.COLUMNS), np.int64)
    machine.observe(machine.world.arena, np.array([[m, 0, 0]]), totals, NO_SHARES)
    return int(totals[0, gauge.LARGEST])
