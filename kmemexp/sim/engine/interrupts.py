"""Interrupts: when they arrive, to which context, and what their handlers do (programs).

A source has a context on each CPU that it is routed to. Its arrivals, and all that its handlers draw, come from a
counter- based generator: the n-th arrival of a source on a CPU is the same for every design, whatever happened in
between.

A program is a list of items. A handler runs its program once for every interrupt; a mainline task whose source has no
arrivals runs it again and again. Interrupts that arrive while their handler is at work wait in a ring, those that find
it full are lost (hardware latches one or a few).
"""

import math

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory, Ns
from kmemexp.sim.engine import programs
from kmemexp.sim.engine.contexts import FIRST, HANDLER, IDLE, OBJECT_FOR, TIMER, block, finish, queue_ready, reconsider
from kmemexp.sim.engine.heap import NEVER, TIE, alarm, due
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.machine import LOG_RAISE, SPL
from kmemexp.sim.engine.ownership import drop
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, seen, src, stage
from kmemexp.sim.engine.waitgraph import check
from kmemexp.sim.engine.waiting import strike_off
from kmemexp.sim.engine.waking import wake, wake_all
from kmemexp.sim.probes import BUCKETS, observe_ns

INTERVAL, BURST, FIRST_PHASE, DRAW = 0, 1, 2, 3  # what a number is drawn for


@kernel
def uniform(seed: int, source: int, number: int, serial: int, what: int) -> float:
    """A number in (0, 1] that depends on nothing but the arguments (SplitMix64; Steele et al. 2014)."""
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(serial)
    for part in (source, number, what):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(part + 1)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    share: float = (np.float64(z >> np.uint64(11)) + 1.0) * (1.0 / 9007199254740992.0)
    return share


@outlined
def draw(law: int, mean: int, shape: int, seed: int, source: int, number: int, serial: int, what: int) -> int:
    """A duration in ns. Shape: of ERLANG the stages, of HYPEREXPONENTIAL 1000 c2 (balanced means, c2 > 1).

    TWO_POINT is 0.1 m nine times out of ten and 9.1 m otherwise.
    """
    if law == programs.FIXED:
        return mean
    u = uniform(seed, source, number, serial, what)
    if law == programs.EXPONENTIAL:
        return int(-math.log(u) * mean + 0.5)
    if law == programs.UNIFORM:
        return int(2.0 * mean * u + 0.5)
    if law == programs.TWO_POINT:
        return int((0.1 if u <= 0.9 else 9.1) * mean + 0.5)
    if law == programs.HYPEREXPONENTIAL:
        c2 = shape / 1000.0
        p = 0.5 * (1.0 + math.sqrt((c2 - 1.0) / (c2 + 1.0)))
        v = uniform(seed, source, number, serial, what + 64)
        return int(-math.log(v) * mean / (2.0 * p if u <= p else 2.0 * (1.0 - p)) + 0.5)
    total = -math.log(u)
    for then in range(1, shape):
        total -= math.log(uniform(seed, source, number, serial, what + 64 * then))
    return int(total * mean / shape + 0.5)


@outlined
def schedule(m: Memory, x: Ctx, after: int) -> None:
    """Set the timer of a source's context to its next arrival after time `after`."""
    seed = m[glob.SEED]
    source = m[x + ctx.SOURCE]
    law, mean = m[source + src.LAW], m[source + src.MEAN]
    number, cpu_no = m[source + src.NUMBER], m[m[x + ctx.CPU] + cpu.NUMBER]
    serial = m[x + ctx.BURST]  # arrivals scheduled so far
    m[x + ctx.BURST] += 1
    if law == programs.PERIODIC:
        if serial > 0:
            at = after + mean
        elif m[source + src.PHASE] >= 0:
            at = after + m[source + src.PHASE]
        else:
            at = after + int(uniform(seed, number, cpu_no, 0, FIRST_PHASE) * mean)
    elif law == programs.POISSON:
        at = after + draw(programs.EXPONENTIAL, mean, 0, seed, number, cpu_no, serial, INTERVAL)
    else:
        # Each arrival ends its burst with chance 1 / mean length, so that lengths are geometric.
        gap, length = m[source + src.GAP], max(m[source + src.BURST], 1)
        if serial > 0 and uniform(seed, number, cpu_no, serial, BURST) * length > 1.0:
            at = after + gap
        else:
            pause = max(mean * length - gap * (length - 1), 1)
            at = after + draw(programs.EXPONENTIAL, pause, 0, seed, number, cpu_no, serial, INTERVAL)
    alarm(m, x, at, x)


@outlined
def deliver(m: Memory, x: Ctx, raised: int) -> None:
    """One interrupt for context `x` of a source, raised at `raised`."""
    source = m[x + ctx.SOURCE]
    if m[source + src.SPREAD]:
        x = m[source + src.FIRST] + m[source + src.DEALT] % m[source + src.CONTEXTS] * ctx.COLUMNS
        m[source + src.DEALT] += 1
    if m[glob.BIG_LOCK] and m[glob.MODEL] == SPL and m[source + src.DEVICE]:
        holder = m[m[glob.LOCK0] + lock.OWNER]
        if holder >= 0 and holder != m[x + ctx.CPU]:
            x = m[source + src.FIRST] + m[holder + cpu.NUMBER] * ctx.COLUMNS
            m[seen.FORWARDED] += 1
    arrive(m, x, raised)


@outlined
def arrive(m: Memory, x: Ctx, raised: int) -> None:
    """Start the handler `x`, or let the interrupt wait for it."""
    m[x + ctx.ARRIVED] += 1
    m[seen.INTERRUPTS] += 1
    log(m, x, LOG_RAISE, raised, 0)
    if m[x + ctx.STATE] != IDLE:
        depth = m[glob.DEPTH]
        if m[x + ctx.QLEN] == depth:
            m[seen.LOST] += 1
            return
        m[m[x + ctx.RING] + (m[x + ctx.QHEAD] + m[x + ctx.QLEN]) % depth] = raised
        m[x + ctx.QLEN] += 1
        _inside(m, 1)
        return
    _inside(m, 1)
    m[x + ctx.RAISED] = raised
    m[x + ctx.SERIAL] = m[x + ctx.ARRIVED]
    m[x + ctx.STAGE] = stage.START
    m[x + ctx.LEFT] = 0
    queue_ready(m, x)
    reconsider(m, m[x + ctx.CPU])


@kernel
def _inside(m: Memory, change: int) -> None:
    """Keep the integral of the number of interrupts in the system (for Little's law)."""
    m[seen.AREA] += m[seen.INSIDE] * (m[glob.NOW] - m[seen.AREA_AT])
    m[seen.AREA_AT] = m[glob.NOW]
    m[seen.INSIDE] += change


@outlined
def handled(m: Memory, x: Ctx) -> None:
    """The handler has done an interrupt: wake who waits for it; begin with the next one, or leave the CPU."""
    source = m[x + ctx.SOURCE]
    sojourn = m[glob.NOW] - m[x + ctx.RAISED]
    observe_ns(m, m[source + src.HIST] + BUCKETS, sojourn)
    m[seen.SOJOURN] += sojourn
    m[seen.DONE] += 1
    _inside(m, -1)
    wake_all(m, source + src.WAITERS)
    if m[x + ctx.QLEN] == 0:
        finish(m, x)
        return
    m[x + ctx.RAISED] = m[m[x + ctx.RING] + m[x + ctx.QHEAD]]
    m[x + ctx.QHEAD] = (m[x + ctx.QHEAD] + 1) % m[glob.DEPTH]
    m[x + ctx.QLEN] -= 1
    m[x + ctx.SERIAL] += 1
    m[x + ctx.STAGE] = stage.START
    due(m, m[x + ctx.CPU], m[glob.NOW], FIRST)
    reconsider(m, m[x + ctx.CPU])


@outlined
def await_handler(m: Memory, x: Ctx, source: int) -> None:
    """Let `x` sleep until the next completion of source `source`."""
    m[x + ctx.WAIT] = HANDLER
    m[x + ctx.AWAITED] = m[source + src.FIRST]
    m[x + ctx.SINCE] = m[glob.NOW]
    m[x + ctx.LINK] = m[source + src.WAITERS]
    m[source + src.WAITERS] = x
    drop(m, x)
    block(m, x)
    if check(m, x):  # the lane goes on: as if the interrupt had come
        m[source + src.WAITERS] = m[x + ctx.LINK]
        wake(m, x)


@outlined
def nap(m: Memory, x: Ctx, ns: Ns) -> None:
    """Let `x` sleep for a time."""
    m[x + ctx.WAIT] = TIMER
    m[x + ctx.SINCE] = m[glob.NOW]
    alarm(m, x, m[glob.NOW] + ns, x)
    drop(m, x)
    block(m, x)


@outlined
def fire(m: Memory, x: Ctx) -> None:
    """The timer of context `x` is due."""
    prog = m[x + ctx.PROG]
    if m[x + ctx.WAIT] == OBJECT_FOR:
        alarm(m, x, NEVER, x)
        strike_off(m, x)
        wake(m, x)
    elif prog < 0:
        alarm(m, x, NEVER, m[x + TIE])
        arrive(m, x, m[glob.NOW])
    elif m[x + ctx.WAIT] == TIMER:
        alarm(m, x, NEVER, x)
        wake(m, x)
    else:
        if m[m[x + ctx.SOURCE] + src.LAW] == programs.NONE:
            alarm(m, x, NEVER, x)
        else:
            schedule(m, x, m[glob.NOW])
        deliver(m, x, m[glob.NOW])
