"""Laws of slabs and magazines, fragmentation indices, and measures of a heap: F13, F14, F16, F17."""

import importlib
from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

import numpy as np

from kmemexp.lane import fragmentation
from kmemexp.sim import slots as s
from kmemexp.sim.aliases import Table
from kmemexp.sim.items import Item
from kmemexp.sim.tables import gauge
from kmemexp.validate.check import Check
from kmemexp.validate.hand import Hand
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting
from kmemexp.validate.walk import trips_of_a_walk

SIZES = {4: 8192, 8: 4096, 16: 256, 32: 128, 64: 64, 512: 8}  # of SLUB's objects by their number in a slab, 2 CPUs


def _hand(name: str, items: tuple[Item, ...] = (), **params: int) -> Hand:
    module = importlib.import_module(f"kmemexp.sim.allocators.{name}")
    bases = [-1] * len(items)
    state = module.init(module.Params(**params), kva_bytes=1 << 28, cpus=2, map_number=0, items=items, bases=bases)
    return Hand(module, state)


def survivors(st: Setting) -> Iterator[Row]:
    """F13: full slabs of k objects of which each survives with probability q: 1 - (1 - q)^k of the slabs stay."""
    of = Wanted("F13", "1 - (1 - q)^k", "B")
    for k in st.some([k for k in SIZES if k < 512], 2):
        q = st.uniform(0.01, 0.15)
        slabs = round(st.long(6000, 12000)) // k + 400
        m = _hand("slub", cpu_partial=0)
        addrs = [m.alloc(SIZES[k], item=s.ITEM_MALLOC) for _ in range(slabs * k)]
        pages = m.module.census(m.state)["pages"]
        lives = st.rng.random(len(addrs)) < q
        for addr, alive in zip(addrs, lives.tolist(), strict=True):
            if not alive:
                m.free(addr, item=s.ITEM_MALLOC, size=SIZES[k])
        left = m.module.census(m.state)["pages"] / pages
        exactly = lives.reshape(slabs, k).any(axis=1).mean()
        # A CPU's own slab stays, and those that a node keeps (min_partial).
        yield of._replace(grade="A").exact(f"slub: {slabs} slabs of {k}, each lives with {q:g}: those with a survivor",
                                           exactly, left, within=12 / slabs)  # fmt: skip
        share = 1 - (1 - q) ** k
        yield of.exact("slub: the same: share of pages that stay", share, left,
                       within=5 * sqrt(share * (1 - share) / slabs) + 12 / slabs)  # fmt: skip
    m = _hand("zalloc", (Item(256, 1, 0),))
    addrs = [m.alloc(256, item=0) for _ in range(st.whole(500, 3000))]
    pages = m.module.census(m.state)["pages"]
    for addr in addrs:
        m.free(addr, item=0)
    kept = m.module.census(m.state)["pages"]
    yield of._replace(grade="A").exact("zalloc: a type-stable zone keeps all pages", pages, kept)


def magazines(st: Setting) -> Iterator[Row]:
    """F14: a pair of magazines of M rounds goes to the depot once in M (M + 2) random operations."""
    of = Wanted("F14", "random walk; Bonwick and Adams 2001, 3", "B")
    for size, rounds in st.some(((256, 7), (512, 3), (48, 15)), 1):
        length = round(st.long(0.7e6, 4e6) * max(1.0, rounds / 7) ** 2)  # it takes M squared steps to cross a magazine
        trips = trips_of_a_walk(size, length, st.rng)
        yield of.estimate(f"illumos_kmem, magazines of {rounds}: trips to the depot by operation",
                          1 / (rounds * (rounds + 2)), trips, tolerance=0.25)  # fmt: skip


def _free_blocks(counts: Mapping[int, int]) -> Table:
    """Totals of a map whose holes are blocks of 2**order pages: {order: count}."""
    totals = np.zeros((1, gauge.COLUMNS), np.int64)
    for order, count in counts.items():
        totals[0, gauge.HIST + order] = count * s.PAGE << order
        totals[0, gauge.LARGEST] = max(totals[0, gauge.LARGEST], s.PAGE << order) if count else totals[0, gauge.LARGEST]
    totals[0, gauge.FREE] = totals[0, gauge.HIST : gauge.CLAIMS].sum()
    totals[0, gauge.HOLES] = sum(counts.values())
    return totals


def _linux(counts: Mapping[int, int], order: int) -> tuple[float, float]:
    """fragmentation_index and unusable index in thousandths, without the kernel's integer divisions (mm/vmstat.c)."""
    pages = sum(count << o for o, count in counts.items())
    suitable = sum(count << (o - order) for o, count in counts.items() if o >= order)
    blocks = sum(counts.values())
    index = -1000.0 if suitable else 1000 - (1000 + pages * 1000 / 2**order) / blocks
    return index, (pages - (suitable << order)) * 1000 / pages


VMSTAT = (({0: 100}, 2, 740, 1000), ({0: 4, 1: 2, 3: 1}, 4, 715, 1000), ({0: 1000, 1: 500, 2: 250}, 9, 997, 1000),
          ({3: 64}, 4, 485, 1000), ({0: 10, 9: 2}, 9, -1000, 9))  # fmt: skip


def indices(st: Setting) -> Iterator[Row]:
    """F16: Linux's indices of free blocks."""
    of = Wanted("F16", "mm/vmstat.c, Linux", "A")
    cases: list[tuple[str, Mapping[int, int], int, float, float, float]] = []
    cases += [("tabulated ", counts, order, index, unusable, 2) for counts, order, index, unusable in VMSTAT]
    for _ in range(round(st.long(6, 30))):
        drawn = {o: st.whole(0, 300 >> o) for o in range(8)} | {0: st.whole(1, 300)}
        asked = st.whole(1, 10)
        cases.append(("", drawn, asked, *_linux(drawn, asked), 1e-6))
    for what, blocks, order, index, unusable, within in cases:
        totals, nbytes = _free_blocks(blocks), s.PAGE << order
        got = [float(fragmentation.index_of(nbytes, totals)), float(fragmentation.unusable_ratio(nbytes, totals[0]))]
        free = " ".join(f"{o}:{n}" for o, n in blocks.items())
        yield of.all_equal(f"{what}free blocks {free}, order {order}: index, unusable", (index, unusable),
                           1000 * np.array(got), within=within)  # fmt: skip


def heaps(st: Setting) -> Iterator[Row]:
    """F17: Johnstone and Wilson's four measures."""
    of = Wanted("F17", "Johnstone and Wilson 1998, 4", "A")
    live, heap = np.array([10, 20, 30, 20, 10]), np.array([12, 24, 33, 40, 40])
    got: Any = fragmentation.johnstone_wilson(live, heap)
    yield of.all_equal("worked example", (0.9, 0.1, 1.0, 1 / 3), got, within=1e-12)
    live = st.rng.integers(10, 1000, 50)
    heap = live + st.rng.integers(0, 500, 50)
    peak, top = int(np.argmax(live)), int(np.argmax(heap))
    wanted = (np.mean(heap / live), heap[peak] / live[peak], heap[top] / live[top], heap.max() / live.max())
    got = fragmentation.johnstone_wilson(live, heap)
    yield of.all_equal("50 drawn points", np.array(wanted) - 1, got, within=1e-12)


CHECKS = (
    Check("F13", survivors, 4),
    Check("F14", magazines, 4),
    Check("F16", indices),
    Check("F17", heaps),
)
