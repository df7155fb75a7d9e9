"""Timed machines without an allocator, for textbook cases: a `Wiring`, run by the real engine."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kmemexp import jit
from kmemexp.boot import layout, timed, wiring
from kmemexp.lane.latency import MIDDLE, histograms
from kmemexp.parts.map_calls import PLAIN, calls_of
from kmemexp.sim import asking, replay
from kmemexp.sim import probes as a
from kmemexp.sim.aliases import Memory, Table, Words
from kmemexp.sim.allocators import absent
from kmemexp.sim.arenas import vm_map
from kmemexp.sim.engine import loop as engine
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.tables import cpu, glob, kmap, lock, route
from kmemexp.sim.tables import regs, tally


class Bench(NamedTuple):
    """A machine on which a test runs programs. All times in ns."""

    wired: layout.Wired
    world: replay.World
    stream: mc.Stream
    drive: Callable[..., int]

    @property
    def m(self) -> Memory:
        return self.wired.m

    def run(self, until: int) -> int:
        """Simulate until a time; returns E_*."""
        return self.drive(self.world, self.m, self.stream, until, 1 << 60)

    def count(self, place: int) -> int:
        """A counter or global of the machine, such as `seen.DEADLOCKS`."""
        return int(self.m[place])

    def histogram(self, name: str) -> Words:
        """int64[BUCKETS]: "irq_NAME_start", "irq_NAME_done", "wait_LOCK", … (lane.latency)."""
        return histograms(self.wired)[name]

    def mean(self, name: str) -> float:
        """Mean of a histogram from its buckets, ns: within 1.6 % (exact sums: seen.SOJOURN, seen.WAIT_NS)."""
        hist = self.histogram(name)
        return float((hist * MIDDLE).sum() / hist.sum())

    def lock(self, name: str) -> dict[str, int]:
        """Statistics of one lock: times taken, after a wait, ns waited, ns held."""
        row = self.wired.table("locks")[self.wired.names.locks.index(name)]
        names = {"taken": lock.TAKEN, "waited": lock.WAITED, "wait_ns": lock.WAIT_NS, "held_ns": lock.HELD_NS}
        return {key: int(row[column]) for key, column in names.items()}

    def cpu_time(self) -> Table:
        """Ns by CPU and activity, int64[cpus, 6]: idle, mainline, soft, thread, fast, spinning."""
        return self.wired.table("cpus")[:, cpu.TIME : cpu.TIME + cpu.TIME_COUNT]


@functools.cache
def driver() -> Callable[..., int]:
    """The engine, bound to no allocators and the vm_map arena."""
    parts = {f"{verb}_{place}": getattr(absent, verb) for place in "abc" for verb in ("alloc", "free", "tend")}
    parts |= {n: getattr(vm_map, n) for n in ("map_alloc", "map_free", "map_free_bytes", "map_walked")}
    parts |= {"map_flushes": asking.every_free_flushes, "map_moved": asking.moves_none, "map_attr": asking.sort_alone}
    return jit.bind(engine.run, parts, "absent,vm_map")


def bench(
    w: wiring.Wiring,
    *,
    kva_bytes: int = 1 << 24,
    kinds: dict[str, tuple[int, int]] | None = None,
    calls: tuple[str, ...] = (),
) -> Bench:
    """Boot a machine. `kinds`: name → (map, ATTR_*) of what programs allocate, all straight from map 0.

    Map 0 has `kva_bytes`; its lock is called "map" (add it to the wiring before, if it should be something else than a
    sleep lock). `calls`: its map calls; the locks of single CPUs that they take are called "cpu lock". A wired kind
    (slots.ATTR_WIRED) takes physical pages where the wiring limits them (w.memory).
    """
    w.lock("map", "sleep")
    w.lock("none", "none")
    number = {group.name: group.first for group in w.locks}
    kinds = kinds or {}
    rows = np.array([(a.SERVER_MAP, 0, m, attr) for m, attr in kinds.values()] or [(a.SERVER_MAP, 0, 0, 0)], np.int64)
    routes = np.zeros((a.SERVER_COUNT, route.COLUMNS), np.int64)
    routes[:, route.HOME] = number["map"]
    routes[:, route.LOCK : route.CALL] = number["none"]
    routes[:, route.UNLOCKED] = np.iinfo(np.int64).max
    routes[:, route.CALL : route.CALL + len(PLAIN)] = [w.call(text) for text in calls_of(calls)]
    maps = np.full((1, kmap.COLUMNS), number["map"])
    maps[:, kmap.CPU] = number.get("cpu lock", number["map"])
    maps[:, kmap.LAZY] = 0
    wired = layout.build(w, routes=routes, maps=maps, kinds=rows,
                         kind_number={name: k for k, name in enumerate(kinds)})  # fmt: skip
    empty = absent.init(absent.Params(), kva_bytes=4096, cpus=1, map_number=0, items=(), bases=())
    arena = vm_map.init(vm_map.Params(), kva_bytes=kva_bytes, cpus=w.cpus, maps=1)
    none = np.zeros(1, np.int64)
    contexts = wired.shape["contexts"][1]
    world = replay.World(empty, empty, empty, arena, none, none, none, none, timed.rows_of_objects(1 << 16),
                         np.zeros(tally.COLUMNS, np.int64), np.zeros((contexts, regs.COLUMNS), np.int64))  # fmt: skip
    wired.m[glob.ROW_FREE] = 0
    i32, u8 = np.zeros(0, np.int32), np.zeros(0, np.uint8)
    stream = mc.Stream(np.zeros(0, np.int64), u8, np.zeros(0, np.int16), i32, i32, u8, i32, i32, i32)
    return Bench(wired, world, stream, driver())
