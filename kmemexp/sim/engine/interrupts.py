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
from kmemexp.sim.engine.contexts import (
    C_NUMBER,
    FIRST,
    HANDLER,
    IDLE,
    S_START,
    TIMER,
    X_ARRIVED,
    X_AWAITED,
    X_BURST,
    X_COUNT,
    X_CPU,
    X_LEFT,
    X_LINK,
    X_PROG,
    X_QHEAD,
    X_QLEN,
    X_RAISED,
    X_RING,
    X_SERIAL,
    X_SINCE,
    X_SOURCE,
    X_STAGE,
    X_STATE,
    X_WAIT,
    block,
    finish,
    log,
    queue_ready,
    reconsider,
    wake,
)
from kmemexp.sim.engine.heap import NEVER, TIE, alarm, due
from kmemexp.sim.engine.locks import L_OWNER, drop
from kmemexp.sim.engine.machine import (
    G_BIG_LOCK,
    G_DEPTH,
    G_LOCK0,
    G_MODEL,
    G_NOW,
    G_SEED,
    LOG_RAISE,
    N_AREA,
    N_AREA_AT,
    N_DONE,
    N_FORWARDED,
    N_INSIDE,
    N_INTERRUPTS,
    N_LOST,
    N_SOJOURN,
    SPL,
)
from kmemexp.sim.engine.programs import (
    EXPONENTIAL,
    FIXED,
    HYPEREXPONENTIAL,
    NONE,
    PERIODIC,
    POISSON,
    TWO_POINT,
    UNIFORM,
)
from kmemexp.sim.engine.waitgraph import check
from kmemexp.sim.probes import BUCKETS, observe_ns

# Columns of a source.
S_LAW = 0  # of its arrivals
S_MEAN = 1  # ns between them
S_BURST = 2  # BURSTY: mean length of a burst
S_GAP = 3  # BURSTY: ns between the arrivals of a burst
S_PHASE = 4  # PERIODIC: ns before the first arrival; -1: drawn
S_FIRST = 5  # first of its contexts
S_CONTEXTS = 6
S_SPREAD = 7  # 1: one train of arrivals, dealt out to the contexts in turn
S_WAITERS = 8  # first of the contexts that wait for its next completion
S_HIST = 9  # histogram of raise → start; the next row is raise → done
S_DEVICE = 10  # 1: delivered on the CPU that has the big lock (FreeBSD 4 with several CPUs)
S_NUMBER = 11
S_DEALT = 12  # arrivals dealt out
S_COUNT = 13

INTERVAL, BURST, FIRST_PHASE, DRAW = 0, 1, 2, 3  # what a number is drawn for


@kernel
def uniform(seed, source, cpu, serial, what):
    """A number in (0, 1] that depends on nothing but the arguments (SplitMix64; Steele et al. 2014)."""
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(serial)
    for part in (source, cpu, what):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(part + 1)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (np.float64(z >> np.uint64(11)) + 1.0) * (1.0 / 9007199254740992.0)


@outlined
def draw(law, mean, shape, seed, source, cpu, serial, what):
    """A duration in ns. Shape: of ERLANG the stages, of HYPEREXPONENTIAL 1000 c2 (balanced means, c2 > 1).

    TWO_POINT is 0.1 m nine times out of ten and 9.1 m otherwise.
    """
    if law == FIXED:
        return mean
    u = uniform(seed, source, cpu, serial, what)
    if law == EXPONENTIAL:
        return int(-math.log(u) * mean + 0.5)
    if law == UNIFORM:
        return int(2.0 * mean * u + 0.5)
    if law == TWO_POINT:
        return int((0.1 if u <= 0.9 else 9.1) * mean + 0.5)
    if law == HYPEREXPONENTIAL:
        c2 = shape / 1000.0
        p = 0.5 * (1.0 + math.sqrt((c2 - 1.0) / (c2 + 1.0)))
        v = uniform(seed, source, cpu, serial, what + 64)
        return int(-math.log(v) * mean / (2.0 * p if u <= p else 2.0 * (1.0 - p)) + 0.5)
    total = -math.log(u)
    for stage in range(1, shape):
        total -= math.log(uniform(seed, source, cpu, serial, what + 64 * stage))
    return int(total * mean / shape + 0.5)


@outlined
def schedule(m, x, after):
    """Set the timer of a source's context to its next arrival after time `after`."""
    seed = m[G_SEED]
    s = m[x + X_SOURCE]
    law, mean = m[s + S_LAW], m[s + S_MEAN]
    number, cpu = m[s + S_NUMBER], m[m[x + X_CPU] + C_NUMBER]
    serial = m[x + X_BURST]  # arrivals scheduled so far
    m[x + X_BURST] += 1
    if law == PERIODIC:
        if serial > 0:
            at = after + mean
        elif m[s + S_PHASE] >= 0:
            at = after + m[s + S_PHASE]
        else:
            at = after + int(uniform(seed, number, cpu, 0, FIRST_PHASE) * mean)
    elif law == POISSON:
        at = after + draw(EXPONENTIAL, mean, 0, seed, number, cpu, serial, INTERVAL)
    else:
        # Each arrival ends its burst with chance 1 / mean length, so that lengths are geometric.
        gap, length = m[s + S_GAP], max(m[s + S_BURST], 1)
        if serial > 0 and uniform(seed, number, cpu, serial, BURST) * length > 1.0:
            at = after + gap
        else:
            pause = max(mean * length - gap * (length - 1), 1)
            at = after + draw(EXPONENTIAL, pause, 0, seed, number, cpu, serial, INTERVAL)
    alarm(m, x, at, x)


@outlined
def deliver(m, x, raised):
    """One interrupt for context `x` of a source, raised at `raised`."""
    s = m[x + X_SOURCE]
    if m[s + S_SPREAD]:
        x = m[s + S_FIRST] + m[s + S_DEALT] % m[s + S_CONTEXTS] * X_COUNT
        m[s + S_DEALT] += 1
    if m[G_BIG_LOCK] and m[G_MODEL] == SPL and m[s + S_DEVICE]:
        holder = m[m[G_LOCK0] + L_OWNER]
        if holder >= 0 and holder != m[x + X_CPU]:
            x = m[s + S_FIRST] + m[holder + C_NUMBER] * X_COUNT
            m[N_FORWARDED] += 1
    arrive(m, x, raised)


@outlined
def arrive(m, x, raised):
    """Start the handler `x`, or let the interrupt wait for it."""
    m[x + X_ARRIVED] += 1
    m[N_INTERRUPTS] += 1
    log(m, LOG_RAISE, x, raised, 0)
    if m[x + X_STATE] != IDLE:
        depth = m[G_DEPTH]
        if m[x + X_QLEN] == depth:
            m[N_LOST] += 1
            return
        m[m[x + X_RING] + (m[x + X_QHEAD] + m[x + X_QLEN]) % depth] = raised
        m[x + X_QLEN] += 1
        _inside(m, 1)
        return
    _inside(m, 1)
    m[x + X_RAISED] = raised
    m[x + X_SERIAL] = m[x + X_ARRIVED]
    m[x + X_STAGE] = S_START
    m[x + X_LEFT] = 0
    queue_ready(m, x)
    reconsider(m, m[x + X_CPU])


@kernel
def _inside(m, change):
    """Keep the integral of the number of interrupts in the system (for Little's law)."""
    m[N_AREA] += m[N_INSIDE] * (m[G_NOW] - m[N_AREA_AT])
    m[N_AREA_AT] = m[G_NOW]
    m[N_INSIDE] += change


@outlined
def handled(m, x):
    """The handler has done an interrupt: wake who waits for it; begin with the next one, or leave the CPU."""
    s = m[x + X_SOURCE]
    sojourn = m[G_NOW] - m[x + X_RAISED]
    observe_ns(m, m[s + S_HIST] + BUCKETS, sojourn)
    m[N_SOJOURN] += sojourn
    m[N_DONE] += 1
    _inside(m, -1)
    w = m[s + S_WAITERS]
    m[s + S_WAITERS] = -1
    while w >= 0:
        after = m[w + X_LINK]
        wake(m, w)
        w = after
    if m[x + X_QLEN] == 0:
        finish(m, x)
        return
    m[x + X_RAISED] = m[m[x + X_RING] + m[x + X_QHEAD]]
    m[x + X_QHEAD] = (m[x + X_QHEAD] + 1) % m[G_DEPTH]
    m[x + X_QLEN] -= 1
    m[x + X_SERIAL] += 1
    m[x + X_STAGE] = S_START
    due(m, m[x + X_CPU], m[G_NOW], FIRST)
    reconsider(m, m[x + X_CPU])


@outlined
def await_handler(m, x, s):
    """Let `x` sleep until the next completion of source `s`."""
    m[x + X_WAIT] = HANDLER
    m[x + X_AWAITED] = m[s + S_FIRST]
    m[x + X_SINCE] = m[G_NOW]
    m[x + X_LINK] = m[s + S_WAITERS]
    m[s + S_WAITERS] = x
    drop(m, x)
    block(m, x)
    if check(m, x):  # the lane goes on: as if the interrupt had come
        m[s + S_WAITERS] = m[x + X_LINK]
        wake(m, x)


@outlined
def nap(m, x, ns):
    """Let `x` sleep for a time."""
    m[x + X_WAIT] = TIMER
    m[x + X_SINCE] = m[G_NOW]
    alarm(m, x, m[G_NOW] + ns, x)
    drop(m, x)
    block(m, x)


@outlined
def fire(m, x):
    """The timer of context `x` is due."""
    prog = m[x + X_PROG]
    if prog < 0:
        alarm(m, x, NEVER, m[x + TIE])
        arrive(m, x, m[G_NOW])
    elif m[x + X_WAIT] == TIMER:
        alarm(m, x, NEVER, x)
        wake(m, x)
    else:
        if m[m[x + X_SOURCE] + S_LAW] == NONE:
            alarm(m, x, NEVER, x)
        else:
            schedule(m, x, m[G_NOW])
        deliver(m, x, m[G_NOW])
