"""The engine as a queue, a lock and a scheduler: Q1 to Q6, and the books that every run must balance (Q11)."""

from collections.abc import Iterator
from itertools import accumulate

import numpy as np

from kmemexp.lane.latency import LOWER, UPPER, quantile
from kmemexp.sim.aliases import Table
from kmemexp.sim.engine import machine as mc
from kmemexp.sim.engine.tables import cpu, glob, seen
from kmemexp.validate import machines
from kmemexp.validate import periodic as tasks
from kmemexp.validate.bench import Bench
from kmemexp.validate.check import Check
from kmemexp.validate.machines import HOLD, MEAN, SERVICE, UNIT
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting

BOOKS = Wanted("Q11", "Little 1961; conservation", "A")
LAWS = {("fixed", 0): 0.0, ("erlang", 4): 0.25, ("exponential", 0): 1.0, ("hyperexponential", 4): 4.0}
"""Laws of service, and their squared coefficient of variation."""


def _books(machine: Bench, what: str) -> Row:
    found = machines.books(machine)
    return BOOKS.all_equal(f"{what}: books of interrupts, waits and CPU time", [b.one for b in found],
                           [b.other for b in found])  # fmt: skip


def single_server(s: Setting) -> Iterator[Row]:
    """Q1: the mean wait of one handler (Pollaczek-Khinchine), and the law of the sojourn in M/M/1."""
    of = Wanted("Q1", "Pollaczek-Khinchine", "B")
    for (law, shape), c2 in LAWS.items():
        rho = s.uniform(0.3, 0.75)
        machine = machines.served(law, shape, rho, seed=s.seed())
        until = round(s.long(0.8e6, 4e6) * (1 + c2) * SERVICE / rho)
        counted = machines.in_batches(machine, until, (seen.SOJOURN, seen.DONE))
        sojourn, weights = counted.ratio(0, 1)
        expected = 1 + rho * (1 + c2) / (2 * (1 - rho))
        yield of.estimate(f"{law} service, load {rho:g}: sojourn in services", expected, sojourn / SERVICE,
                          weights=weights, tolerance=0.1)  # fmt: skip
        times = machine.cpu_time()[0]
        share = times[cpu.TIME_THREAD] / times.sum()
        yield of.exact(f"{law} service, load {rho:g}: CPU busy", rho, share, within=0.02 * (1 + c2))
        yield _books(machine, f"one handler, {law} service")
        if law == "exponential":
            hist = machine.histogram("irq_irq_done")
            for q in (0.5, 0.9):
                want = -np.log(1 - q) / (1 - rho)
                got = quantile(hist, q, 1) / SERVICE
                yield of.exact(f"M/M/1, load {rho:g}: {q:g} quantile of the sojourn, in services", want, got,
                               within=want * (2 / 64 + 0.04))  # fmt: skip


def _draw_loads(s: Setting) -> machines.Loads:
    shares = s.rng.dirichlet([2.0, 2.0, 2.0]) * s.uniform(0.5, 0.75)
    return [(float(share / mean), mean) for share, mean in zip(shares, (s.uniform(0.1, 0.3), s.uniform(0.2, 0.5),
                                                                        s.uniform(0.4, 0.8)), strict=True)]  # fmt: skip


def priorities(s: Setting) -> Iterator[Row]:
    """Q2: Cobham's waits without preemption, the conservation law, and preemptive classes that see none below."""
    of, law = Wanted("Q2", "Cobham 1954", "B"), s.one(("exponential", "fixed"))
    loads = _draw_loads(s)
    sigma = [0.0, *accumulate(rate * mean for rate, mean in loads)]
    total = machines.residual(loads, law)
    machine = machines.classes(loads, law, False, seed=s.seed())
    until = round(s.long(1.2e6, 6e6) / sum(rate for rate, _ in loads) * UNIT)
    found = machines.means(machine, until, [f"irq_c{k}_start" for k in range(len(loads))])
    weighted, names = np.zeros(25), ", ".join(f"{rate:.3g}/{mean:g}" for rate, mean in loads)
    for k, (rate, mean) in enumerate(loads):
        expected = total / ((1 - sigma[k]) * (1 - sigma[k + 1]))
        waits, weights = found[f"irq_c{k}_start"]
        weighted += rate * mean * waits / UNIT
        yield of.estimate(f"{law}, classes {names}: wait of class {k}, not preemptive", expected, waits / UNIT,
                          weights=weights, tolerance=0.12, bias=0.016)  # fmt: skip
    law_ = Wanted("Q2", "Kleinrock's conservation law", "B")
    yield law_.estimate("the same: waits weighted by load", sigma[-1] * total / (1 - sigma[-1]), weighted,
                        tolerance=0.12, bias=0.016)  # fmt: skip
    yield _books(machine, "three classes")
    runs = [machines.classes(loads, law, True, seed=5, many=many) for many in (1, 2, 3)]
    for run in runs[:2]:
        run.run(until // 2)
    found = machines.means(runs[2], until // 2, [f"irq_c{k}_done" for k in range(len(loads))])
    for k in range(2):
        same = [run.histogram(f"irq_c{k}_done") for run in runs[k:]]
        yield Wanted("Q2", "preemptive resume", "A").all_equal(
            f"{law}: class {k} does not notice those below, preemptive",
            np.tile(same[0], len(same) - 1), np.hstack(same[1:]))  # fmt: skip
    for k, (_, mean) in enumerate(loads):
        above, with_own = 1 - sigma[k], 1 - sigma[k + 1]
        expected = mean / above + machines.residual(loads, law, k + 1) / (above * with_own)
        sojourns, weights = found[f"irq_c{k}_done"]
        yield of.estimate(f"{law}, classes {names}: sojourn of class {k}, preemptive", expected, sojourns / UNIT,
                          weights=weights, tolerance=0.15, bias=0.016)  # fmt: skip


def response_times(s: Setting) -> Iterator[Row]:
    """Q3: the response at the critical instant is that of the analysis, and no phases make it longer."""
    of = Wanted("Q3", "Joseph and Pandya 1986", "A")
    tried = 0
    while tried < s.long(4, 25):
        many = s.whole(3, 5)
        periods = np.sort(s.rng.integers(10, 120, many)).tolist()
        drawn = [(s.whole(1, 9), int(t)) for t in periods]
        blocked = s.whole(0, 6)
        jitter = [s.whole(0, 4) if i else 0 for i in range(many)]
        lasts = [blocked] * (many - 1) + [0]
        if sum(c / t for c, t in drawn) > 0.85:
            continue
        want = [tasks.analysis(drawn, lasts, jitter, i) for i in range(many)]
        if any(r > t for r, (_, t) in zip(want, drawn, strict=True)):
            continue
        tried += 1
        what = " ".join(f"({c}, {t})" for c, t in drawn)
        i = s.whole(0, many - 1) if tried % 2 else many - 1  # the last one is preempted most
        machine = tasks.periodic(drawn, lasts[i], jitter=jitter)
        found = tasks.responses(machine)[f"T{i}"]
        yield of.all_equal(f"tasks {what}, blocked for {lasts[i]}, jitter {jitter}: response of task {i}",
                           [want[i], want[i]], [found[0] + jitter[i], found.max() + jitter[i]])  # fmt: skip
        # T0 is raised at the critical instant and then once a period.
        jobs = len(tasks.logged(machine, mc.LOG_RAISE)["T0"])
        yield of.exact(f"tasks {what}: jobs of task 0", 1 + 20 * drawn[-1][1] // drawn[0][1], jobs, within=1)
        top = machine.histogram(f"irq_T{i}_done").nonzero()[0][-1]
        ns = round(found.max() * tasks.UNIT)
        yield of.holds(
            f"tasks {what}: the longest response is in its bucket", LOWER[top] <= ns < UPPER[top], f"{ns} ns"
        )
        machine = tasks.periodic(drawn, lasts[i], jitter=jitter, seed=s.seed())
        most = tasks.responses(machine)[f"T{i}"].max()
        yield of.at_most(f"tasks {what}: response of task {i}, random phases", want[i] - jitter[i], most)
        yield _books(machine, f"{many} periodic tasks")


SECTIONS: tasks.Sections = {
    "T1": (("zone", 2), ("mbuf", 1)),
    "T2": (("mbuf", 2), ("kmap", 3)),
    "T3": (("zone", 9), ("mbuf", 6)),
    "T4": (("kmap", 15), ("zone", 4)),
}
PERIODS = {"T1": 97, "T2": 131, "T3": 211, "T4": 307}
REACHED = (  # all arrive at once, each when the one before has just taken its first lock
    ("ceiling", ("T4", "T3", "T2", "T1"), {"T2": 15, "T3": 15}),
    ("ceiling", ("T3", "T2", "T1"), {"T1": 9, "T2": 9}),
    ("critical", ("T4", "T3", "T2", "T1"), {"T1": 15, "T2": 15, "T3": 15}),
    ("inheritance", ("T4", "T3", "T2", "T1"), {"T1": 11, "T2": 24, "T3": 15}),
)


def protocols(s: Setting) -> Iterator[Row]:
    """Q4: blocking under inheritance, ceiling and sections stays below its bound, and reaches it."""
    of = Wanted("Q4", "Sha, Rajkumar and Lehoczky 1990", "A")
    lengths = {name: tuple((group, s.whole(1, 15)) for group, _ in used) for name, used in SECTIONS.items()}
    for protocol in tasks.PROTOCOLS:
        want = tasks.bounds(lengths, protocol)
        worst = np.zeros(len(lengths), int)
        units = max(round(s.long(15_000, 30_000)), 3000)
        for _ in range(round(s.long(3, 12))):
            phases = {name: s.whole(0, PERIODS[name] - 1) for name in lengths}
            machine = tasks.with_locks(lengths, PERIODS, protocol, phases, gap=1, units=units)
            worst = np.maximum(worst, tasks.blocking(machine, lengths, gap=1))
            yield _books(machine, f"tasks with locks, {protocol}")
        for name, bound, got in zip(lengths, want, worst.tolist(), strict=True):
            yield of.at_most(f"{protocol}, sections drawn: {name} blocked", bound, got)
        yield of.holds(f"{protocol}: the others are blocked at times", bool((worst[:3] > 0).all()))
    for protocol, order, expected in REACHED:
        machine = tasks.with_locks(SECTIONS, PERIODS, protocol, dict.fromkeys(order, 0))
        got = dict(zip(SECTIONS, tasks.blocking(machine, SECTIONS), strict=True))
        yield of.all_equal(f"{protocol}: worst case of {', '.join(expected)} is reached", list(expected.values()),
                           [got[name] for name in expected])  # fmt: skip
    for spec, order in (("sleep", ("low", "high", "hog")), ("sleep", ("low", "hog", "high")),
                        ("sleep+inherit", ("low", "hog", "high")), ("sleep+ceiling=29", ("low", "hog", "high")),
                        ("critical", ("low", "hog", "high"))):  # fmt: skip
        hog = s.whole(10, 1000)
        got = tasks.responses(tasks.inversion(spec, order, hog))["high"][0]
        yield of.exact(f"{spec}, arrivals {'-'.join(order)}: response of high beside a hog of {hog}",
                       2 + 9 + hog * (spec == "sleep"), got)  # fmt: skip


def contended_lock(s: Setting) -> Iterator[Row]:
    """Q5: a contended lock is a machine repairman (mean value analysis), whoever waits in which way."""
    of = Wanted("Q5", "machine repairman (MVA)", "B")
    for spec in ("sleep+fifo", "spin", *s.some(("adaptive+fifo", "sleep+inherit+fifo"), 1)):
        think, cpus = s.uniform(3, 20), s.whole(2, 16)
        queue, residence, throughput = 0.0, 1.0, 0.0
        for n in range(1, cpus + 1):
            residence = 1 + queue
            throughput = n / (residence + think)
            queue = throughput * residence
        machine = machines.repairman(cpus, think, spec, seed=s.seed())
        until = round(s.long(3e5, 1.5e6) * max((1 + think) / cpus, 1) * HOLD)
        counters = _lock_counters(machine, until)
        taken, span = counters[:, 0], counters[:, 2]
        what = f"{spec}, {cpus} CPUs, think {think:g}"
        yield of.estimate(f"{what}: throughput", throughput, taken / span * HOLD, tolerance=0.05)
        yield of.estimate(f"{what}: residence", residence, counters[:, 1] / taken / HOLD + 1, weights=taken,
                          tolerance=0.08)  # fmt: skip
        used = machine.cpu_time()[:, cpu.TIME_MAIN].sum()
        yield BOOKS.exact(f"{what}: CPU time is time that the lock is held", machine.lock("shared")["held_ns"], used)
        yield _books(machine, what)


def _lock_counters(machine: Bench, until: int) -> Table:
    """Times taken, ns waited and ns gone by, of each of 25 batches after the first."""
    rows = []
    for end in np.linspace(0, until, 27)[1:].astype(np.int64).tolist():
        machine.run(end)
        lock = machine.lock("shared")
        rows.append([lock["taken"], lock["wait_ns"], machine.count(glob.NOW)])
    return machines.differences(rows)


MASKED = {"fixed": 1 / 2, "exponential": 1.0, "uniform": 2 / 3, "two_point": 4.145}  # E[V^2] / 2 E[V]^2


def masked_sections(s: Setting) -> Iterator[Row]:
    """Q6: an interrupt waits for the rest of the section that it finds."""
    of = Wanted("Q6", "residual life, E[V²] / 2 E[V]", "B")
    for spec in ("critical", "splhigh"):
        for law in s.some(list(MASKED), len(MASKED) if s.level == "brief" else 2):
            pause = s.one((0, s.whole(5_000, 40_000)))
            machine = machines.section(law, spec, pause, seed=s.seed())
            counted = machines.in_batches(machine, round(s.long(2e9, 8e9)), (seen.SOJOURN, seen.DONE))
            sojourn, weights = counted.ratio(0, 1)
            expected = MEAN / (MEAN + pause) * MASKED[law] * MEAN
            yield of.estimate(f"{spec}, {law} sections of 10 us, {pause / 1000:g} us between: wait, ns", expected,
                              sojourn, weights=weights, tolerance=0.1)  # fmt: skip
            yield _books(machine, f"{spec} sections")
    for spec in ("none", "splbio"):
        machine = machines.section("fixed", spec, 0, seed=s.seed())
        machine.run(10**8)
        yield Wanted("Q6", "spl(9)", "A").exact(f"{spec}: a section that does not mask: wait", 0,
                                               machine.count(seen.SOJOURN))  # fmt: skip


CHECKS = (
    Check("Q1", single_server, 6),
    Check("Q2", priorities, 5),
    Check("Q3", response_times, 2),
    Check("Q4", protocols, 3),
    Check("Q5", contended_lock, 5),
    Check("Q6", masked_sections, 5),
)
