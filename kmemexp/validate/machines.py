"""Textbook machines for the engine: queues, priorities, a contended lock, sections, deadlocks.

Each function wires one and returns it before it has run. Times are in ns.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kmemexp.boot import wiring
from kmemexp.lane.latency import MIDDLE
from kmemexp.sim.aliases import Shares, Table, Words
from kmemexp.sim.engine import contexts as cx
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine import programs
from kmemexp.sim.engine.tables import cpu, ctx, glob, seen, src
from kmemexp.sim.slots import ATTR_WIRED, PAGE
from kmemexp.validate.bench import Bench, bench

SERVICE = 8_192  # multiples of it by 1, 2, 3, 5, 8 are bounds of buckets
UNIT = 100_000
HOLD = 1_000
MEAN = 10_000
FOREVER = {"sleep": 10**15}
NOTHING = {"free": 0, "reserved": 0, "interrupt_min": 0, "cache": 0, "user": 0, "minimum": 0, "target": 0, "cluster": 1}


class Balance(NamedTuple):
    """Two sides of one of the books of a run."""

    what: str
    one: int
    other: int


def books(machine: Bench) -> list[Balance]:
    """Little's law for interrupts and for waits, and where each CPU's time went: exact, at any instant."""
    m, now = machine.m, machine.count(glob.NOW)
    contexts, sources = machine.wired.table("contexts"), machine.wired.table("sources")
    raised: list[int] = []
    for row in contexts[contexts[:, ctx.SOURCE] >= 0]:
        law = sources[(row[ctx.SOURCE] - machine.wired.shape["sources"][0]) // src.COLUMNS, src.LAW]
        if row[ctx.STATE] != cx.IDLE and (row[ctx.KIND] != mc.MAIN or law != programs.NONE):
            ring = (row[ctx.QHEAD] + np.arange(row[ctx.QLEN])) % machine.count(glob.DEPTH)
            raised += [row[ctx.RAISED], *m[row[ctx.RING] + ring]]
    area = machine.count(seen.AREA) + machine.count(seen.INSIDE) * (now - machine.count(seen.AREA_AT))
    since = contexts[contexts[:, ctx.WAIT] >= 0, ctx.SINCE]
    waits = machine.count(seen.WAIT_AREA) + machine.count(seen.WAITING) * (now - machine.count(seen.WAIT_AT))
    marks = machine.wired.table("cpus")[:, cpu.MARK]
    return [
        Balance("interrupts inside", machine.count(seen.INSIDE), len(raised)),
        Balance("area of interrupts", machine.count(seen.SOJOURN) + sum(now - int(at) for at in raised), area),
        Balance("who waits", machine.count(seen.WAITING), len(since)),
        Balance("area of waits", machine.count(seen.WAIT_NS) + int((now - since).sum()), waits),
        Balance("time of CPUs", int(marks.sum()), int(machine.cpu_time().sum())),
        Balance("negative times", 0, int((machine.cpu_time() < 0).sum() + (marks > now).sum())),
    ]


def served(law: str, shape: int, rho: float, *, seed: int) -> Bench:
    """One handler that is called at Poisson times and keeps its CPU busy for `rho` of the time."""
    w = wiring.Wiring(depth=1 << 14, seed=seed)
    work = {"work": {"law": law, "ns": SERVICE, "shape": shape}}
    w.source("irq", "device", [work], law="poisson", rate_hz=rho * 1e9 / SERVICE)
    return bench(w)


Loads = Sequence[tuple[float, float]]
"""Classes of interrupts: arrivals per unit, mean service in units."""


def classes(
    loads: Loads, law: str, preemptive: bool, *, seed: int, order: Sequence[int] = (), many: int | None = None
) -> Bench:
    """Classes of interrupts, the first `many` of them; `order`: from the one of highest priority to the lowest."""
    order = order or range(len(loads))
    w = wiring.Wiring(depth=1 << 14, seed=seed, nested=True)
    w.lock("section", "critical")
    for k, (rate, mean) in enumerate(loads[:many]):
        work: list[Mapping[str, Any]] = [{"work": {"law": law, "ns": round(mean * UNIT)}}]
        if not preemptive:
            work = [{"lock": "section"}, *work, {"unlock": "section"}]
        w.source(f"c{k}", "device", work, law="poisson", rate_hz=rate * 1e9 / UNIT, priority=28 - order.index(k))
    return bench(w)


def residual(loads: Loads, law: str, many: int | None = None) -> float:
    """Sum of arrival rate x E[S^2] / 2 over the first classes, in units."""
    return sum(rate * mean**2 * (2 if law == "exponential" else 1) / 2 for rate, mean in loads[:many])


def section(law: str, spec: str, pause: int, *, seed: int) -> Bench:
    """A section of mean 10 us that interrupts are kept out of, over and over, and short interrupts at Poisson times."""
    w = wiring.Wiring(depth=1024, seed=seed, model="spl" if spec.startswith("spl") else "ithread")
    w.lock("section", spec)
    inside: list[Mapping[str, Any]] = [{"lock": "section"}, {"work": {"law": law, "ns": MEAN}}, {"unlock": "section"}]
    w.source("background", "task", inside + [{"work": pause}] * (pause > 0))
    w.source("irq", "device", law="poisson", rate_hz=1e5, klass="net")
    return bench(w)


def repairman(cpus: int, think: float, lock: str, *, seed: int, hold: Mapping[str, Any] | None = None) -> Bench:
    """CPUs think for `think` times HOLD, on average, and then need a lock for HOLD."""
    w = wiring.Wiring(cpus=cpus, seed=seed)
    w.lock("shared", lock)
    holding = {"law": "exponential", "ns": HOLD, **(hold or {})}
    sleep = {"sleep": {"law": "exponential", "ns": round(think * HOLD)}}
    w.source("cpu", "task", [sleep, {"lock": "shared"}, {"work": holding}, {"unlock": "shared"}], route="each")
    return bench(w)


def exponential(verb: str, mean: float) -> dict[str, Any]:
    """An item of a program that takes Exp(mean)."""
    return {verb: {"law": "exponential", "ns": round(mean)}}


def get(flags: str = "wait") -> dict[str, Any]:
    """An item of a program that asks for a page of the pool."""
    return {"alloc": {"kind": "unit", "bytes": PAGE, "flags": flags, "queue": "mine"}}


def takers(tasks: int, units: int, pool: int, verb: str, *, seed: int, on_deadlock: str = "stop") -> Bench:
    """Tasks on CPUs of their own that take pages one by one, with pauses, and then give all back, again and again."""
    w = wiring.Wiring(cpus=tasks, memory=NOTHING | {"free": pool}, seed=seed, on_deadlock=on_deadlock)
    program = [exponential(verb, MEAN), get()] * units + [exponential(verb, MEAN)] + [{"free": "mine"}] * units
    for i in range(tasks):
        w.source(f"task {i}", "task", program, route=i)
    return bench(w, kinds={"unit": (0, ATTR_WIRED)})


def opposite(
    spec: str, alpha: float, beta: float, *, cpus: int = 2, verb: str = "sleep", on_deadlock: str = "stop"
) -> Bench:
    """Two tasks that each take two locks once, in opposite order: one after Exp(beta), the other Exp(alpha) later."""
    w = wiring.Wiring(cpus=cpus, on_deadlock=on_deadlock)
    w.lock("A", spec)
    w.lock("B", spec)
    for name, one, other, number in (("T1", "A", "B", 0), ("T2", "B", "A", cpus - 1)):
        program = [exponential(verb, 1e6 / beta), {"lock": one}, exponential(verb, 1e6 / alpha), {"lock": other},
                   {"unlock": other}, {"unlock": one}, FOREVER]  # fmt: skip
        w.source(name, "task", program, route=number)
    return bench(w)


def rounds(machine: Bench, many: int, first: int = 0) -> Words:
    """Run a machine from its beginning so often, with other random numbers each time. Returns how each run ended."""
    fresh = machine.m.copy()
    ends = np.zeros(many, np.int64)
    for number in range(many):
        machine.m[:] = fresh
        machine.m[glob.SEED] = first + number
        ends[number] = machine.run(10**12)
    return ends


def interrupted(
    spec: str, mode: str, *, model: str = "ithread", on_deadlock: str = "continue", seed: int = 1,
    outside: float = 30_000, inside: float = 10_000,
) -> Bench:  # fmt: skip
    """A thread that takes a lock again and again, and a rare interrupt on the same CPU that wants it."""
    w = wiring.Wiring(model=model, on_deadlock=on_deadlock, seed=seed)
    w.lock("L", spec)
    hold = [exponential("work", outside), {"lock": "L"}, exponential("work", inside), {"unlock": "L"}]
    w.source("thread", "task", hold)
    w.source("irq", mode, [{"lock": "L"}, {"unlock": "L"}], law="poisson", rate_hz=1000, klass="net")
    return bench(w)


class Counted(NamedTuple):
    """Differences of counters between the batches of a run, int64[batches, counters]."""

    rows: Table

    def ratio(self, above: int, below: int) -> tuple[Words, Words]:
        """Ratios of two counters by batch, and their weights."""
        return self.rows[:, above] / np.maximum(self.rows[:, below], 1), self.rows[:, below]


def means(machine: Bench, until: int, names: Sequence[str], batches: int = 25) -> dict[str, tuple[Shares, Words]]:
    """Run a machine to a time in batches: means of histograms in each, ns (within 1.6 %), with their weights."""
    before = {name: np.zeros(len(MIDDLE), np.int64) for name in names}
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in names}
    for end in np.linspace(0, until, batches + 2)[1:].astype(np.int64).tolist():
        machine.run(end)
        for name in names:
            hist = machine.histogram(name) - before[name]
            before[name] = before[name] + hist
            found[name].append((float((hist * MIDDLE).sum() / max(hist.sum(), 1)), int(hist.sum())))
    return {name: (np.array([mean for mean, _ in rows[1:]]), np.array([n for _, n in rows[1:]]))
            for name, rows in found.items()}  # fmt: skip


def in_batches(machine: Bench, until: int, counters: Sequence[int], batches: int = 25) -> Counted:
    """Run a machine to a time in batches and one before them, which is left out, and take counters between them."""
    rows = []
    for end in np.linspace(0, until, batches + 2)[1:].astype(np.int64).tolist():
        machine.run(end)
        rows.append([machine.count(place) for place in counters])
    return Counted(differences(rows))


def differences(rows: Sequence[Sequence[int]]) -> Table:
    """Differences between the rows of counters that only grow."""
    table = np.array(rows, np.int64)
    found: Table = table[1:] - table[:-1]
    return found
