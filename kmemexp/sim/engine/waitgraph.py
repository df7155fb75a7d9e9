"""The wait-for graph: who waits for whom, and whether that closes a circle.

Every context waits for one thing at a time, so from each context one edge leads on:

- it waits for a lock: to the owner (the big lock: to what the owning CPU runs);
- another context runs, or waits, on top of it: to that one;
- it is ready on a CPU: to the context that keeps the CPU by spinning;
- it waits for memory: to the page daemon, if that is at work;
- it waits for an interrupt: to the handler, if that has begun.

What runs, or will be called by an event to come, ends the chain. Following it from whoever begins to wait finds every
circle at the moment when it closes. A circle is a deadlock; its members are written down as the witness.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.engine.contexts import (
    BLOCKED,
    C_END,
    C_OP,
    C_TOP,
    HANDLER,
    IDLE,
    MEMORY,
    PREEMPTED,
    READY,
    RECORDED,
    SPINNING,
    STREAM,
    TIMER,
    X_ABOVE,
    X_AWAITED,
    X_BURST,
    X_COUNT,
    X_CPU,
    X_HELD,
    X_KIND,
    X_OP,
    X_PC,
    X_PROG,
    X_SINCE,
    X_STAGE,
    X_STATE,
    X_WAIT,
    log,
)
from kmemexp.sim.engine.machine import (
    BIG,
    CONTINUE,
    E_DEADLOCK,
    G_CONTEXTS,
    G_CTX0,
    G_DAEMON,
    G_EXIT,
    G_FREERS,
    G_NOW,
    G_ON_DEADLOCK,
    G_QUEUE,
    G_QUEUE0,
    G_QUEUES,
    G_USER,
    G_WITNESS0,
    L_KIND,
    L_OWNER,
    L_SINCE,
    LOG_DEADLOCK,
    MAIN,
    N_DEADLOCK_AT,
    N_DEADLOCKS,
    N_WITNESS,
)

# Columns of the witness: one row per member of a circle.
W_DEADLOCK = 0  # number of the deadlock
W_CONTEXT = 1
W_CPU = 2
W_STATE = 3
W_WAIT = 4  # lock, or what else it waits for (contexts)
W_SINCE = 5  # since when
W_HELD = 6  # first of the locks that it holds; -1: none
W_TAKEN = 7  # when that was taken
W_OP = 8  # operation of the stream; -1: none
W_STAGE = 9
W_AT = 10  # time of the deadlock
W_FOR = 11  # context that it waits for
W_COUNT = 12
WITNESSES = 64  # rows that are kept


@kernel
def waits_for(m, x):
    """The context for which `x` waits; -1: for nothing that could be part of a circle."""
    state = m[x + X_STATE]
    if state == PREEMPTED and m[x + X_ABOVE] >= 0:
        return m[x + X_ABOVE]
    if state == READY:
        top = m[m[x + X_CPU] + C_TOP]
        return top if top >= 0 and m[top + X_STATE] == SPINNING else -1
    if state != BLOCKED and state != SPINNING:
        return -1
    wait = m[x + X_WAIT]
    if wait >= 0:
        owner = m[wait + L_OWNER]
        if m[wait + L_KIND] == BIG and owner >= 0:
            return m[owner + C_TOP]
        return owner
    if wait == MEMORY:
        return m[G_DAEMON]
    if wait == HANDLER:
        handler = m[x + X_AWAITED]
        return handler if m[handler + X_STATE] != IDLE else -1
    return -1


@outlined
def check(m, x):
    """Follow the chain from `x`. Where it comes back, write the witness; True if the circle is to be broken here."""
    at = waits_for(m, x)
    steps = m[G_CONTEXTS]
    while at >= 0 and at != x and steps > 0:
        at = waits_for(m, at)
        steps -= 1
    if at != x:
        return False
    if m[x + X_STATE] == PREEMPTED and m[x + X_WAIT] < 0:
        return False
    _write(m, x, True)
    return found(m, x)


@outlined
def found(m, x):
    """Count a deadlock; True if the lane goes on and the request of `x` must be refused."""
    if m[N_DEADLOCKS] == 0:
        m[N_DEADLOCK_AT] = m[G_NOW]
    m[N_DEADLOCKS] += 1
    log(m, LOG_DEADLOCK, x, 0, 0)
    if m[G_ON_DEADLOCK] == CONTINUE:
        return True
    m[G_EXIT] = E_DEADLOCK
    return False


@outlined
def _write(m, x, circle):
    """Write a row for each member of the circle through `x`; or, if there is none, for each context that waits."""
    if circle:
        at = x
        while True:
            _row(m, at)
            at = waits_for(m, at)
            if at == x:
                return
    for number in range(m[G_CONTEXTS]):
        at = m[G_CTX0] + number * X_COUNT
        if m[at + X_STATE] == BLOCKED or m[at + X_STATE] == SPINNING:
            _row(m, at)


@outlined
def _row(m, x):
    row = m[N_WITNESS]
    if row >= WITNESSES:
        return
    m[N_WITNESS] += 1
    w = m[G_WITNESS0] + row * W_COUNT
    m[w + W_DEADLOCK] = m[N_DEADLOCKS]
    m[w + W_CONTEXT] = x
    m[w + W_CPU] = m[x + X_CPU]
    m[w + W_STATE] = m[x + X_STATE]
    m[w + W_WAIT] = m[x + X_WAIT]
    m[w + W_SINCE] = m[x + X_SINCE]
    held = m[x + X_HELD]
    m[w + W_HELD] = held
    m[w + W_TAKEN] = m[held + L_SINCE] if held >= 0 else -1
    m[w + W_OP] = m[x + X_OP]
    m[w + W_STAGE] = m[x + X_STAGE]
    m[w + W_AT] = m[G_NOW]
    m[w + W_FOR] = waits_for(m, x)


@outlined
def stalled(m):
    """Whether nobody who could free memory can run: then those who wait for memory wait for ever.

    Contexts of the mainline free, those that sleep for a time or an interrupt too, once they wake; so does the page
    daemon as long as it has pages to reclaim, and so do handlers of interrupts to come, what is queued.
    """
    if m[G_FREERS]:
        for number in range(m[G_QUEUES]):
            if m[m[G_QUEUE0] + number * (2 + m[G_QUEUE]) + 1] > 0:
                return False
    daemon = m[G_DAEMON]
    if daemon >= 0 and m[G_USER] > 0 and (m[daemon + X_STATE] != BLOCKED or m[daemon + X_WAIT] != MEMORY):
        return False
    for number in range(m[G_CONTEXTS]):
        x = m[G_CTX0] + number * X_COUNT
        if m[x + X_PROG] == RECORDED and m[x + X_PC] < m[x + X_BURST]:
            return False
        if m[x + X_KIND] != MAIN or x == daemon:
            continue
        state, wait = m[x + X_STATE], m[x + X_WAIT]
        if state == IDLE:
            if m[x + X_PROG] == STREAM and m[m[x + X_CPU] + C_OP] < m[m[x + X_CPU] + C_END]:
                return False
        elif (state != BLOCKED and state != SPINNING) or wait == TIMER or wait == HANDLER:
            return False
    _write(m, 0, False)
    return True
