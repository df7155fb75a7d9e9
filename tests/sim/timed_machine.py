"""Timed machines without an allocator, for textbook cases: a `Wiring`, run by the real engine."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kmemexp import jit
from kmemexp.boot import layout, timed, wiring
from kmemexp.lane.latency import MIDDLE, histograms
from kmemexp.sim import asking, replay, slots
from kmemexp.sim import probes as a
from kmemexp.sim.allocators import absent
from kmemexp.sim.arenas import vm_map
from kmemexp.sim.engine import contexts as cx
from kmemexp.sim.engine import loop as engine
from kmemexp.sim.engine import machine as mc


class Bench(NamedTuple):
    """A machine on which a test runs programs. All times in ns."""

    wired: layout.Wired
    world: replay.World
    stream: mc.Stream
    drive: Callable

    @property
    def m(self) -> np.ndarray:
        return self.wired.m

    def run(self, until: int) -> int:
        """Simulate until a time; returns E_*."""
        return self.drive(self.world, self.m, self.stream, until, 1 << 60)

    def count(self, name: str) -> int:
        """A counter or global of the machine by name, such as "N_DEADLOCKS"."""
        return int(self.m[getattr(mc, name)])

    def histogram(self, name: str) -> np.ndarray:
        """int64[BUCKETS]: "irq_NAME_start", "irq_NAME_done", "wait_LOCK", … (lane.latency)."""
        return histograms(self.wired)[name]

    def mean(self, name: str) -> float:
        """Mean of a histogram from its buckets, ns: within 1.6 % (exact sums: N_SOJOURN, N_WAIT_NS)."""
        hist = self.histogram(name)
        return float((hist * MIDDLE).sum() / hist.sum())

    def lock(self, name: str) -> dict[str, int]:
        """Statistics of one lock: times taken, after a wait, ns waited, ns held."""
        row = self.wired.table("locks")[self.wired.names.locks.index(name)]
        names = {"taken": mc.L_TAKEN, "waited": mc.L_WAITED, "wait_ns": mc.L_WAIT_NS, "held_ns": mc.L_HELD_NS}
        return {key: int(row[column]) for key, column in names.items()}

    def cpu_time(self) -> np.ndarray:
        """ns by CPU and activity, int64[cpus, 6]: idle, mainline, soft, thread, fast, spinning."""
        return self.wired.table("cpus")[:, cx.C_TIME : cx.C_TIME + cx.T_COUNT]


@functools.cache
def driver() -> Callable:
    """The engine, bound to no allocators and the vm_map arena."""
    parts = {f"{verb}_{place}": getattr(absent, verb) for place in "abc" for verb in ("alloc", "free", "tend")}
    parts |= {n: getattr(vm_map, n) for n in ("map_alloc", "map_free", "map_free_bytes", "map_walked")}
    parts |= {"map_flushes": asking.every_free_flushes, "map_attr": asking.sort_alone}
    return jit.bind(engine.run, parts, "absent,vm_map")


def bench(w: wiring.Wiring, *, kva_bytes: int = 1 << 24, kinds: dict[str, tuple[int, int]] | None = None) -> Bench:
    """Boot a machine. `kinds`: name → (map, ATTR_*) of what programs allocate, all straight from map 0.

    Map 0 has `kva_bytes`; its lock is called "map" (add it to the wiring before, if it should be something else than a
    sleep lock). A wired kind (slots.ATTR_WIRED) takes physical pages where the wiring limits them (w.memory).
    """
    w.lock("map", "sleep")
    w.lock("none", "none")
    number = {lock.name: lock.first for lock in w.locks}
    kinds = kinds or {}
    rows = np.array([(a.SERVER_MAP, 0, m, attr) for m, attr in kinds.values()] or [(a.SERVER_MAP, 0, 0, 0)], np.int64)
    routes = np.zeros((a.SERVER_COUNT, mc.RT_COUNT), np.int64)
    routes[:, mc.RT_HOME] = number["map"]
    routes[:, mc.RT_LOCK :] = number["none"]
    wired = layout.build(w, routes=routes, maps=[number["map"]], kinds=rows,
                         kind_number={name: k for k, name in enumerate(kinds)})  # fmt: skip
    empty = absent.init(absent.Params(), kva_bytes=4096, cpus=1, map_number=0, items=(), bases=())
    arena = vm_map.init(vm_map.Params(), kva_bytes=kva_bytes, cpus=w.cpus, maps=1)
    none = np.zeros(1, np.int64)
    contexts = wired.shape["contexts"][1]
    world = replay.World(empty, empty, empty, arena, none, none, none, none, timed.rows_of_objects(1 << 16),
                         np.zeros(a.A_COUNT, np.int64), np.zeros((contexts, slots.R_COUNT), np.int64))  # fmt: skip
    wired.m[mc.G_ROW_FREE] = 0
    i32, u8 = np.zeros(0, np.int32), np.zeros(0, np.uint8)
    stream = mc.Stream(np.zeros(0, np.int64), u8, np.zeros(0, np.int16), i32, i32, u8, i32, i32, i32)
    return Bench(wired, world, stream, driver())
