"""Measures of fragmentation, as formulas of plain numbers.

Sources: Johnstone and Wilson, "The Memory Fragmentation Problem: Solved?", ISMM 1998 (four measures of a heap against
the live data in it); Linux mm/vmstat.c (fragmentation index and unusable free space index, here of holes in a map
instead of free blocks of a buddy system).
"""

from typing import NamedTuple

import numpy as np

from kmemexp.sim.slots import PAGE
from kmemexp.sim.tables import gauge

FITS = -1.0
"""The fragmentation index of a request that would succeed."""


class JohnstoneWilson(NamedTuple):
    """Heap over live data, less 1: 0 is a heap without any waste."""

    mean: float  # #1: mean over time of heap / live
    live_peak: float  # #2: when there is most live data
    heap_peak: float  # #3: when the heap is largest (the first time)
    peaks: float  # #4: largest heap / most live data


def johnstone_wilson(live: np.ndarray, heap: np.ndarray) -> JohnstoneWilson:
    """Measures #1 to #4 of two series of bytes, sampled at the same instants; NaN where there is nothing live.

    #1 is the mean of the ratios, over the samples with live data, not the ratio of the means.
    """
    live, heap = np.asarray(live, float), np.asarray(heap, float)
    some = live > 0
    if not some.any():
        return JohnstoneWilson(*[np.nan] * 4)
    fullest, largest = int(live.argmax()), int(heap.argmax())
    return JohnstoneWilson(
        float((heap[some] / live[some]).mean() - 1),
        excess(heap[fullest], live[fullest]),
        excess(heap[largest], live[largest]),
        excess(heap.max(), live.max()),
    )


def excess(heap: float, live: float) -> float:
    """Heap over live data, less 1; NaN without live data."""
    return float(heap) / float(live) - 1 if live else np.nan


def fragmentation_index(nbytes: int, free: float, holes: float, largest: float) -> float:
    """Why a request of `nbytes` fails: towards 0 for lack of memory, towards 1 for lack of a run; FITS if it does not.

    `free`, `largest`: bytes in all `holes` together and in the largest. 0 where nothing is free.
    """
    if holes == 0:
        return 0.0
    if largest >= nbytes:
        return FITS
    return 1 - (1 + free / nbytes) / holes


def fitting_bytes(nbytes: int, totals: np.ndarray) -> np.ndarray:
    """Free bytes in holes of at least `nbytes`, a power-of-two number of pages: int64[...].

    `totals`: int64[..., M_COUNT], as `map_measure` writes them.
    """
    found: np.ndarray = totals[..., gauge.HIST + _class(nbytes) : gauge.HIST + gauge.CLASSES].sum(axis=-1)
    return found


def unusable_ratio(nbytes: int, totals: np.ndarray) -> np.ndarray:
    """Share of the free bytes in holes too small for `nbytes`, a power-of-two number of pages: float64[...].

    `totals`: int64[..., M_COUNT], as `map_measure` writes them, perhaps summed over maps. 0 where nothing is free.
    """
    small = totals[..., gauge.HIST : gauge.HIST + _class(nbytes)].sum(axis=-1)
    free = totals[..., gauge.FREE]
    shares: np.ndarray = np.divide(small, free, out=np.zeros(free.shape), where=free > 0)
    return shares


def index_of(nbytes: int, totals: np.ndarray) -> float:
    """`fragmentation_index` of maps: int64[maps, M_COUNT]."""
    free, holes = totals[:, gauge.FREE].sum(), totals[:, gauge.HOLES].sum()
    return fragmentation_index(nbytes, float(free), float(holes), float(totals[:, gauge.LARGEST].max()))


def open_stretches(whole: np.ndarray, totals: np.ndarray, nbytes: int) -> np.ndarray:
    """Of `whole` free stretches of `nbytes`, those that are not needed for what is guaranteed to somebody: float64[n].

    `totals`: int64[n, maps, M_COUNT]. A guarantee may be kept in any stretch that is free and long enough for it.
    """
    promised, kept = totals[..., gauge.PROMISED].sum(axis=-1), totals[..., gauge.KEPT].sum(axis=-1)
    spare = np.where(promised > 0, np.maximum(kept - promised, 0) // nbytes, np.inf)
    left: np.ndarray = np.minimum(whole, spare)
    return left


def _class(nbytes: int) -> int:
    pages = nbytes // PAGE
    if pages < 1 or pages & (pages - 1) or pages.bit_length() > gauge.CLASSES:
        raise ValueError(f"{nbytes}: must be a power-of-two number of pages")
    return pages.bit_length() - 1
