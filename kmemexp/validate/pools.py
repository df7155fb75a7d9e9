"""The engine as a loss system: pools of physical pages, maps of so many pages, reserves, finite sources, full rings.

Requests that cannot wait are lost when the pool is empty: how many, follows from Erlang, Engset and birth-death chains.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kmemexp.boot import timed, wiring
from kmemexp.lane.timed import advance
from kmemexp.planning.plan import plan_from
from kmemexp.sim.aliases import Table, Words
from kmemexp.sim.arenas import vm_map
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.tables import ctx, glob, route, word
from kmemexp.sim.maps import MAP_NAMES
from kmemexp.sim.probes import SERVER_MAP
from kmemexp.sim.slots import ATTR_WIRED, PAGE
from kmemexp.sim.tables import flag, tally
from kmemexp.validate.bench import Bench, bench
from kmemexp.workload import build, stream

BATCHES = 25
MAIN, INTERRUPT = 0, 1  # levels of requests
EXPONENTIAL = {"law": "exponential", "mean_s": 1.0}
LAWS: Mapping[str, Mapping[str, Any]] = {
    "fixed": {"law": "fixed", "seconds": 1.0},
    "exponential": EXPONENTIAL,
    "hyperexponential": {"law": "hyperexponential", "means_s": [0.5, 5.5], "weights": [0.9, 0.1]},
}


class Losses(NamedTuple):
    """What happened between two times each: asked for and refused, int64[2, intervals], by level; pages in use."""

    asked: Table
    refused: Table
    in_use: Words
    failures: int  # as the driver counts them

    def ratio(self, level: int) -> tuple[Words, Words]:
        """Share of the requests of a level that were refused, by batch, and the weights of the batches."""
        asked, refused = batches(self.asked[level]), batches(self.refused[level])
        return refused / asked, asked


def batches(values: Words) -> Words:
    """Sums of equal batches, the first of which is left out: the system begins empty."""
    sums: Words = values.reshape(BATCHES + 1, -1).sum(axis=1)[1:]
    return sums


@functools.cache
def config() -> dict[str, Any]:
    """A machine without costs and without interrupts but the stream's."""
    overrides = ["design=dragonfly_2003aug25", "cost=zero", "interrupts/sources=none", "interrupts.big_lock=false"]
    found: dict[str, Any] = json.loads(plan_from(overrides)[0].columns["config"][0])
    return found


def load(kinds: Mapping[str, Any], seconds: float, seed: int) -> stream.Load:
    """A synthetic load of these kinds at a constant level."""
    workload = {"name": "pool", "source": "synthetic", "duration_s": float(seconds), "scale": 1.0, "kinds": kinds,
                "phases": [{"name": "only", "seconds": float(seconds), "level": 1.0}]}  # fmt: skip
    return build.build(workload, cpus=config()["machine"]["cpus"], seed=seed, replicas=[0])


def unit(
    rate_hz: float, lifetime: Mapping[str, Any] = EXPONENTIAL, *, level: int = MAIN, klass: str = "kva_wired",
    pages: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """A kind of one page, or so many, requested without waiting."""
    size = {"law": "fixed", "bytes": pages * PAGE}
    return {"class": klass, "size": size, "rate_hz": float(rate_hz), "lifetime": lifetime, "nowait": 1.0,
            "soft": float(level)}  # fmt: skip


def play(
    kinds: Mapping[str, Mapping[str, Any]], arrivals: float, *, pages: int = 0, reserve: int = 0,
    maps: Mapping[int, int] | None = None, per_batch: int = 1, seed: int = 1,
) -> Losses:  # fmt: skip
    """Play Poisson arrivals of these kinds against a pool of physical pages, or maps of so many pages each.

    Of the pages, `reserve` are for interrupts alone: requests of the mainline are made with M_USE_RESERVE.
    """
    seconds = arrivals / sum(kind["rate_hz"] for kind in kinds.values())
    made = load(kinds, seconds, seed)
    ops = made.streams[0]
    allocs = ops.op == stream.OP_ALLOC
    level = (ops.flags[allocs] != flag.NOWAIT).astype(int)
    ops.flags[ops.flags == flag.NOWAIT] |= flag.RESERVE
    t = timed.boot(config(), made.kinds, ops, 0)
    _refuse_at_once(t.wired.m)
    if pages:
        thresholds = {glob.LIMITED: 1, glob.FREE: pages, glob.INTERRUPT_MIN: reserve, glob.RESERVED: reserve}
        t.wired.m[list(thresholds)] = list(thresholds.values())
    if maps:
        arena = vm_map.init(vm_map.Params(entry_limit=1 << 12), kva_bytes=1 << 30, cpus=2, maps=len(MAP_NAMES))
        for i, (number, count) in enumerate(maps.items()):
            vm_map.add_map(arena, number, (1 + i) << 28, count * PAGE)
        t = t._replace(world=t.world._replace(arena=arena))
    intervals = (BATCHES + 1) * per_batch
    times = np.linspace(0, seconds * 1e9, intervals + 1).astype(np.int64)
    refused, in_use = np.zeros((2, intervals), np.int64), np.zeros(intervals, np.int64)
    for i, until in enumerate(times[1:].tolist()):
        t = advance(t, until)
        refused[:, i] = refusals(t)
        in_use[i] = pages - t.wired.m[glob.FREE]
    edges = np.searchsorted(times[1:], ops.time_ns[allocs])
    asked = np.stack([np.bincount(edges[level == n], minlength=intervals) for n in (MAIN, INTERRUPT)])
    return Losses(asked, np.diff(refused, prepend=0), in_use, int(t.world.counters[tally.FAILURES]))


def _refuse_at_once(m: Words) -> None:
    """Let what goes straight to the map be refused where there is no page: kmem_alloc() waits, whatever it is told."""
    row = m[glob.ROUTE] + SERVER_MAP * route.COLUMNS
    for call in m[row + route.CALL : row + route.UNLOCKED]:
        at = call + word.FIRST
        while call > 0 and m[at] != word.END:
            if m[at] == word.GRAB:
                m[at] = word.PAGES
            at += 1


def refusals(t: timed.Timed) -> list[int]:
    """Requests refused so far, by level."""
    contexts = t.wired.table("contexts")
    soft = contexts[:, ctx.KIND] == mc.SOFT
    return [int(contexts[~soft, ctx.FAILED].sum()), int(contexts[soft, ctx.FAILED].sum())]


SCALE = 1e6  # Hz: a unit of finite sources is held for a microsecond


def finite_sources(sources: int, units: int, rate: float, *, seed: int) -> Bench:
    """Engset, made of memoryless events that find nothing to do where the source is in the other state.

    A source that holds a unit and is told to ask for one frees it first, so that there is one to have in its place.
    """
    memory = {"free": units, "reserved": 0, "interrupt_min": 0, "cache": 0, "user": 0, "minimum": 0, "target": 0}
    w = wiring.Wiring(memory=memory | {"cluster": 1}, queue=1, seed=seed)
    for i in range(sources):
        ask = {"alloc": {"kind": "unit", "bytes": PAGE, "flags": "nowait", "queue": f"of {i}"}}
        w.source(f"ask {i}", "device", [{"free": f"of {i}"}, ask], law="poisson", rate_hz=rate * SCALE)
        w.source(f"rest {i}", "soft", [{"free": f"of {i}"}], law="poisson", rate_hz=SCALE)
    look = {"alloc": {"kind": "unit", "bytes": PAGE, "flags": "nowait", "queue": "seen"}}
    w.source("observer", "fast", [look, {"free": "seen"}], law="poisson", rate_hz=5 * SCALE)
    return bench(w, kinds={"unit": (0, ATTR_WIRED)})


def congestion(machine: Bench, span: int) -> tuple[Words, Words, Words, Words]:
    """Requests of finite sources, those refused, looks of an observer, those that found nothing; by batch of `span`."""
    rows = []
    for batch in range(BATCHES + 1):
        machine.run((batch + 1) * span)
        contexts = machine.wired.table("contexts")
        failed = [contexts[contexts[:, ctx.KIND] == kind, ctx.FAILED].sum() for kind in (mc.THREAD, mc.FAST)]
        counts = [machine.histogram(name).sum() for name in ("alloc_device", "free_device", "alloc_fast")]
        rows.append([counts[0] - counts[1], failed[0], counts[2], failed[1]])
    asked, refused, looks, empty = np.diff(rows, axis=0).T
    return asked, refused, looks, empty


def engset(sources: int, units: int, rate: float) -> tuple[float, float]:
    """Share of the time that all units are taken, and share of the requests that find it so."""

    def full(n: int) -> float:
        weights = [1.0]
        for k in range(units):
            weights.append(weights[-1] * (n - k) * rate / (k + 1))
        return weights[-1] / sum(weights)

    return full(sources), full(sources - 1)


def reserved(units: int, main: float, interrupt: float, reserve: int) -> tuple[float, float]:
    """Losses of two kinds where the first is refused when no more than `reserve` units are free (birth and death)."""
    weights = [1.0]
    for n in range(units):
        weights.append(weights[-1] * (main + interrupt if n < units - reserve else interrupt) / (n + 1))
    total = sum(weights)
    return sum(weights[units - reserve :]) / total, weights[-1] / total


def full_ring(rho: float, room: int) -> float:
    """Share of the arrivals that an M/M/1 system with so much room loses."""
    weights: Sequence[float] = [rho**n for n in range(room + 1)]
    return weights[-1] / sum(weights)
