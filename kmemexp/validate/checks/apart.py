"""The lock, the interrupt and the deadlock once more, in SimPy: a simulator written apart must agree (I1 to I3).

SimPy is an extra: pip install 'kmemexp[validate]'. Where theory has no closed form, as for locks that are not held for
exponential times, this is what there is to compare with.
"""

import importlib.util
import random
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np

from kmemexp.boot import wiring
from kmemexp.sim.aliases import Shares
from kmemexp.sim.engine.machine import E_DEADLOCK
from kmemexp.validate import machines
from kmemexp.validate.bench import Bench, bench
from kmemexp.validate.check import Check
from kmemexp.validate.machines import HOLD
from kmemexp.validate.rows import Row, Wanted
from kmemexp.validate.setting import Setting

BATCHES = 25
Process = Generator[Any, Any, None]
MISSING = "SimPy is not installed (pip install 'kmemexp[validate]')"


def _there() -> bool:
    return importlib.util.find_spec("simpy") is not None


def _drawn(law: str, mean: float, rng: random.Random) -> float:
    if law == "fixed":
        return mean
    return rng.expovariate(1 / mean) if law == "exponential" else rng.uniform(0, 2 * mean)


def lock(s: Setting) -> Iterator[Row]:
    """I1: CPUs that want one FIFO lock, which is held for times of any law."""
    of = Wanted("I1", "SimPy, the same model", "I")
    if not _there():
        yield of.left_out("one FIFO lock", MISSING)
        return
    for law in ("fixed", s.one(("exponential", "uniform"))):
        cpus, think, cycles = s.whole(3, 8), s.uniform(3, 10), round(s.long(30_000, 150_000))
        theirs = _simpy_lock(cpus, think, law, cycles, random.Random(s.seed()))
        machine = machines.repairman(cpus, think, "sleep+fifo", seed=s.seed(), hold={"law": law})
        until = round(cycles * max((1 + think) / cpus, 1) * HOLD)
        rows = []
        for end in np.linspace(0, until, BATCHES + 2)[1:].astype(np.int64).tolist():
            machine.run(end)
            found = machine.lock("shared")
            rows.append([found["taken"], found["wait_ns"]])
        taken, waited = machines.differences(rows).T
        what = f"{cpus} CPUs, think {think:g}, {law} holding"
        yield of.agree(f"{what}: throughput", theirs[:, 0], taken / (until / (BATCHES + 1)) * HOLD, tolerance=0.1)
        yield of.agree(f"{what}: wait, in holdings", theirs[:, 1], waited / taken / HOLD, tolerance=0.2)


def _simpy_lock(cpus: int, think: float, law: str, cycles: int, rng: random.Random) -> Shares:
    """Throughput and mean wait of each batch, in units of the mean holding time."""
    import simpy  # noqa: PLC0415 - an extra

    env = simpy.Environment()
    shared = simpy.Resource(env, 1)
    count, waits = [0], [0.0]

    def cpu() -> Process:
        while True:
            yield env.timeout(rng.expovariate(1 / think))
            asked = env.now
            with shared.request() as turn:
                yield turn
                waits[0] += env.now - asked
                count[0] += 1
                yield env.timeout(_drawn(law, 1.0, rng))

    for _ in range(cpus):
        env.process(cpu())
    span = cycles * max((1 + think) / cpus, 1) / (BATCHES + 1)
    return _batches(env, span, lambda: (count[0], waits[0]), lambda n, waited: (n / span, waited / n))


def _batches(env: Any, span: float, look: Callable[[], Any], sums: Callable[[Any, Any], Any]) -> Shares:
    """Run a model in batches and one before them, which is left out."""
    rows, before = [], (0, 0.0)
    for batch in range(BATCHES + 1):
        env.run((batch + 1) * span)
        now = look()
        rows.append(sums(now[0] - before[0], now[1] - before[1]))
        before = now
    return np.array(rows[1:])


def interrupts(s: Setting) -> Iterator[Row]:
    """I2: a short interrupt that preempts a thread's work, both at Poisson times."""
    of = Wanted("I2", "SimPy, the same model", "I")
    if not _there():
        yield of.left_out("an interrupt over a thread", MISSING)
        return
    short, long_, law = s.uniform(1_000, 4_000), s.uniform(10_000, 30_000), s.one(("fixed", "uniform"))
    each, rarely = s.uniform(8_000, 16_000), s.uniform(50_000, 90_000)
    count = round(s.long(30_000, 150_000))
    theirs = _simpy_interrupts((short, each), (long_, rarely), law, count, random.Random(s.seed()))
    machine = _over_a_thread((short, each), (long_, rarely), law, s.seed())
    found = machines.means(machine, round(count * rarely), ["irq_irq_done", "irq_work_done"])
    what = f"{law} {short:g} ns every {each:g} over work of {long_:g} every {rarely:g}"
    for k, name in enumerate(("irq", "work")):
        yield of.agree(f"{what}: sojourn of {name}", theirs[:, k], found[f"irq_{name}_done"][0], tolerance=0.2,
                       bias=0.016)  # fmt: skip


def _over_a_thread(interrupt: tuple[float, float], work: tuple[float, float], law: str, seed: int) -> Bench:
    w = wiring.Wiring(depth=1 << 14, seed=seed)
    for name, mode, kind, (ns, each) in (("irq", "fast", law, interrupt), ("work", "task", "exponential", work)):
        program = [{"work": {"law": kind, "ns": round(ns)}}]
        w.source(name, mode, program, law="poisson", rate_hz=1e9 / each)
    return bench(w)


def _simpy_interrupts(
    interrupt: tuple[float, float], work: tuple[float, float], law: str, count: int, rng: random.Random
) -> Shares:
    """Mean sojourn of interrupts and of work in each batch, ns."""
    import simpy  # noqa: PLC0415 - an extra

    env = simpy.Environment()
    cpu = simpy.PreemptiveResource(env, 1)
    done, total = [0, 0], [0.0, 0.0]

    def job(which: int, left: float) -> Process:
        came = env.now
        while left > 0:
            with cpu.request(priority=round(which * 10**15 + came)) as turn:  # who was preempted is first again
                yield turn
                began = env.now
                try:
                    yield env.timeout(left)
                    left = 0
                except simpy.Interrupt:
                    left -= env.now - began
        done[which] += 1
        total[which] += env.now - came

    def source(which: int, kind: str, ns: float, each: float) -> Process:
        while True:
            yield env.timeout(rng.expovariate(1 / each))
            env.process(job(which, _drawn(kind, ns, rng)))

    env.process(source(0, law, *interrupt))
    env.process(source(1, "exponential", *work))
    span = count * work[1] / (BATCHES + 1)
    return _batches(env, span, lambda: (np.array(done), np.array(total)), lambda n, t: t / n)


def deadlock(s: Setting) -> Iterator[Row]:
    """I3: two tasks that take two locks in opposite order, after times of any law: how often neither goes on."""
    of = Wanted("I3", "SimPy, the same model", "I")
    if not _there():
        yield of.left_out("two locks in opposite order", MISSING)
        return
    for law in ("uniform", "exponential"):
        before, between, many = s.uniform(2_000, 20_000), s.uniform(2_000, 20_000), round(s.long(3000, 12_000))
        w = wiring.Wiring(cpus=2)
        w.lock("A", "sleep")
        w.lock("B", "sleep")
        for number, (one, other) in enumerate((("A", "B"), ("B", "A"))):
            program: list[Mapping[str, Any]] = [{"sleep": {"law": law, "ns": round(before)}}, {"lock": one},
                       {"sleep": {"law": law, "ns": round(between)}}, {"lock": other}, {"unlock": other},
                       {"unlock": one}, machines.FOREVER]  # fmt: skip
            w.source(f"T{number}", "task", program, route=number)
        ours = machines.rounds(bench(w), many, s.seed()) == E_DEADLOCK
        theirs = _simpy_deadlocks(law, before, between, many, random.Random(s.seed()))
        size = many // BATCHES
        shares = ours[: size * BATCHES].reshape(BATCHES, size).mean(axis=1)
        yield of.agree(f"{law} times, {before:g} before and {between:g} between: share of deadlocks", theirs, shares,
                       tolerance=0.3)  # fmt: skip


def _simpy_deadlocks(law: str, before: float, between: float, many: int, rng: random.Random) -> Shares:
    """Share of the runs that end with a task that waits, in each batch."""
    import simpy  # noqa: PLC0415 - an extra

    def task(env: Any, one: Any, other: Any, over: list[int]) -> Process:
        yield env.timeout(_drawn(law, before, rng))
        with one.request() as first:
            yield first
            yield env.timeout(_drawn(law, between, rng))
            with other.request() as second:
                yield second
        over[0] += 1

    shares = []
    for _ in range(BATCHES):
        stuck = 0
        for _ in range(many // BATCHES):
            env, over = simpy.Environment(), [0]
            a, b = simpy.Resource(env, 1), simpy.Resource(env, 1)
            env.process(task(env, a, b, over))
            env.process(task(env, b, a, over))
            env.run()
            stuck += over[0] < 2
        shares.append(stuck / (many // BATCHES))
    return np.array(shares)


CHECKS = (Check("I1", lock, 4), Check("I2", interrupts, 5), Check("I3", deadlock, 3))
