"""Where theory says that there can be no deadlock, that there must be one, and how often: D1, D2."""

from collections.abc import Iterator

import numpy as np

from kmemexp.boot import wiring
from kmemexp.lane import witness
from kmemexp.sim.engine.machine import E_DEADLOCK, E_TIME
from kmemexp.sim.engine.tables import glob, seen
from kmemexp.sim.tables import tally
from kmemexp.validate import machines
from kmemexp.validate.bench import bench
from kmemexp.validate.check import Check
from kmemexp.validate.machines import MEAN
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting


def pools(s: Setting) -> Iterator[Row]:
    """D1: m tasks that take k units one by one never deadlock with m (k - 1) + 1 units, and do with one less."""
    of = Wanted("D1", "m (k - 1) + 1 units", "A")
    turns = round(s.long(400, 400))
    for case in range(round(s.long(4, 12))):
        tasks, units, verb = s.whole(2, 5), s.whole(2, 4), ("work", "sleep")[case % 2]
        what = f"{tasks} tasks of {units} units each, {verb} between"
        enough = tasks * (units - 1) + 1
        ends, freed = [], []
        for _ in range(round(s.long(8, 25))):
            machine = machines.takers(tasks, units, enough, verb, seed=s.seed())
            ends.append(machine.run(turns * MEAN * (units + 1)))
            freed.append(int(machine.world.counters[tally.FREES]))
        yield of.exact(f"{what}, {enough} units: runs without a deadlock", len(ends), ends.count(E_TIME))
        yield of.holds(f"{what}, {enough} units: all go on", min(freed) > turns // 4 * units)
        ends, told = [], []
        for _ in range(round(s.long(8, 25))):
            machine = machines.takers(tasks, units, enough - 1, verb, seed=s.seed())
            ends.append(machine.run(10**9))
            told.append({(str(row["context"]), str(row["waits_for"])) for row in witness.members(machine.wired)})
        yield of.exact(f"{what}, {enough - 1} units: runs with a deadlock", len(ends), ends.count(E_DEADLOCK))
        everybody = {(f"task {i}", "memory") for i in range(tasks)}
        yield of.exact(f"{what}: the witness names all tasks, which wait for memory", len(told), told.count(everybody))


KINDS = (("sleep", 2, "sleep"), ("sleep", 1, "sleep"), ("spin", 2, "work"), ("adaptive", 2, "work"),
         ("sleep+inherit", 2, "work"))  # fmt: skip


CIRCLE = {"T1": ("A", "B (T2)"), "T2": ("B", "A (T1)")}


def opposite_orders(s: Setting) -> Iterator[Row]:
    """D2: two locks in opposite order deadlock as often as the race between two clocks is lost."""
    of = Wanted("D2", "beta / (alpha + beta)", "B")
    for spec, cpus, verb in s.some(KINDS, 3):
        alpha, beta = s.uniform(1, 9), s.uniform(1, 9)
        machine, many = machines.opposite(spec, alpha, beta, cpus=cpus, verb=verb), round(s.long(3000, 10_000))
        ends = machines.rounds(machine, many, s.seed())
        chance = beta / (alpha + beta)
        what = f"{spec}, {cpus} CPUs, alpha {alpha:g}, beta {beta:g}"
        yield of.share(f"{what}: share of deadlocks", chance, int((ends == E_DEADLOCK).sum()), many, tolerance=0.06)
        yield of.exact(f"{what}: the other runs go on", many, int(np.isin(ends, (E_DEADLOCK, E_TIME)).sum()))
    for _ in range(100):  # each ends in a deadlock 9 times in 10
        machine = machines.opposite("sleep", 1, 9)
        machine.m[glob.SEED] = s.seed()
        if machine.run(10**12) == E_DEADLOCK:
            break
    members = {row["context"]: (row["holds"], row["waits_for"]) for row in witness.members(machine.wired)}
    yield Wanted("D2", "wait-for graph", "A").holds(
        "the witness names both tasks and locks", members == CIRCLE, str(members)
    )


def same_cpu(s: Setting) -> Iterator[Row]:
    """D2: an interrupt deadlocks as often as it finds the spin lock of the thread below it held (PASTA)."""
    of = Wanted("D2", "arrivals see time averages", "B")
    for mode, model in s.some((("fast", "ithread"), ("device", "ithread"), ("device", "spl")), 2):
        inside, outside = s.uniform(5_000, 20_000), s.uniform(15_000, 40_000)
        machine = machines.interrupted("spin", mode, model=model, seed=s.seed(), inside=inside, outside=outside)
        machine.run(round(s.long(15e9, 60e9)))
        n = machine.count(seen.DONE)
        chance = (1 / outside) / (1 / outside + 1 / inside + 1 / 1e6)  # of a hit at the end of Exp(1 ms) from "free" on
        what = f"{mode}, {model}: lock held {inside / (inside + outside):.3g} of the time"
        yield of.share(f"{what}: share of deadlocks", chance, machine.count(seen.DEADLOCKS), n, tolerance=0.03)
    for spec, mode, model in (("critical+spin", "fast", "ithread"), ("splhigh+spin", "device", "spl")):
        machine = machines.interrupted(spec, mode, model=model, on_deadlock="stop", seed=s.seed())
        end = machine.run(round(s.long(2e9, 20e9)))
        yield Wanted("D2", "masked while held", "A").exact(f"{spec}, {mode}: never", E_TIME, end)
    yield from _wakes_below(s)


def _wakes_below(s: Setting) -> Iterator[Row]:
    """A holder that sleeps wakes below who spins for its lock: the circle closes when it wakes, not before."""
    of, asks, sleeps = Wanted("D2", "wait-for graph", "A"), s.whole(1_000, 50_000), s.whole(60_000, 200_000)
    w = wiring.Wiring()
    w.lock("L", "spin")
    w.source("holder", "task", [{"lock": "L"}, {"sleep": sleeps}, {"unlock": "L"}, machines.FOREVER])
    w.source("irq", "device", [{"lock": "L"}, {"unlock": "L"}], law="periodic", period_ns=10**12, phase_ns=asks)
    machine = bench(w)
    end = machine.run(10**9)
    what = f"spun for from {asks} ns on, its holder sleeps to {sleeps} ns on the same CPU"
    yield of.all_equal(f"{what}: ends in a deadlock, at", (E_DEADLOCK, sleeps), (end, machine.count(seen.DEADLOCK_AT)))
    members = {row["context"]: row["waits_for"] for row in witness.members(machine.wired)}
    yield of.holds(f"{what}: the witness", members == {"irq": "L (holder)", "holder": "its CPU (irq)"}, str(members))


CHECKS = (
    Check("D1", pools, 3),
    Check("D2", opposite_orders, 4),
    Check("D2b", same_cpu, 3),
)
