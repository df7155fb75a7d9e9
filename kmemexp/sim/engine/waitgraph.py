"""The wait-for graph: who waits for whom, and whether that closes a circle.

Every context waits for one thing at a time, so from each context one edge leads on:

- it waits for a lock: to the owner (the big lock: to what the owning CPU runs);
- another context runs, or waits, on top of it: to that one;
- it is ready on a CPU: to the context that keeps the CPU by spinning;
- it waits for memory: to the page daemon, if that is at work;
- it waits for an interrupt: to the handler, if that has begun;
- it waits for a CPU's answer to a TLB shootdown: to what that CPU runs.

What runs, or will be called by an event to come, ends the chain. Following it from each context that begins to wait
finds every circle at the moment when it closes. A circle is a deadlock; its members are written down as the witness.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory
from kmemexp.sim.engine import contexts
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.machine import CONTINUE, E_DEADLOCK, LOG_DEADLOCK, MAIN
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, seen, witness

WITNESSES = 64  # rows that are kept
STALL = -1  # number of a "deadlock" that is none: a CPU that makes no progress


@kernel
def waits_for(m: Memory, x: Ctx) -> int:
    """The context for which `x` waits; -1: for nothing that could be part of a circle."""
    state = m[x + ctx.STATE]
    if state == contexts.PREEMPTED and m[x + ctx.ABOVE] >= 0:
        return m[x + ctx.ABOVE]
    if state == contexts.READY:
        top = m[m[x + ctx.CPU] + cpu.TOP]
        return top if top >= 0 and m[top + ctx.STATE] == contexts.SPINNING else -1
    if state != contexts.BLOCKED and state != contexts.SPINNING:
        return -1
    wait = m[x + ctx.WAIT]
    if wait >= 0:
        owner = m[wait + lock.OWNER]
        if m[wait + lock.KIND] == lock.BIG and owner >= 0:
            return m[owner + cpu.TOP]
        return owner
    if wait == contexts.MEMORY:
        return m[glob.DAEMON]
    if wait == contexts.HANDLER:
        handler = m[x + ctx.AWAITED]
        return handler if m[handler + ctx.STATE] != contexts.IDLE else -1
    if wait == contexts.ANSWER:
        return m[m[x + ctx.AWAITED] + cpu.TOP]
    return -1


@outlined
def check(m: Memory, x: Ctx) -> bool:
    """Follow the chain from `x`. Where it comes back, write the witness; True if the circle is to be broken here."""
    at = waits_for(m, x)
    steps = m[glob.CONTEXTS]
    while at >= 0 and at != x and steps > 0:
        at = waits_for(m, at)
        steps -= 1
    if at != x:
        return False
    if m[x + ctx.STATE] == contexts.PREEMPTED and m[x + ctx.WAIT] < 0:
        return False
    _write(m, x, True)
    return found(m, x)


@outlined
def found(m: Memory, x: Ctx) -> bool:
    """Count a deadlock; True if the lane goes on and the request of `x` must be refused."""
    if m[seen.DEADLOCKS] == 0:
        m[seen.DEADLOCK_AT] = m[glob.NOW]
    m[seen.DEADLOCKS] += 1
    log(m, x, LOG_DEADLOCK, 0, 0)
    if m[glob.ON_DEADLOCK] == CONTINUE:
        return True
    m[glob.EXIT] = E_DEADLOCK
    return False


@outlined
def _write(m: Memory, x: Ctx, circle: int) -> None:
    """Write a row for each member of the circle through `x`; or, if there is none, for each context that waits."""
    if circle:
        at = x
        while True:
            note(m, at, m[seen.DEADLOCKS])
            at = waits_for(m, at)
            if at == x:
                return
    for number in range(m[glob.CONTEXTS]):
        at = m[glob.CTX0] + number * ctx.COLUMNS
        if m[at + ctx.STATE] == contexts.BLOCKED or m[at + ctx.STATE] == contexts.SPINNING:
            note(m, at, m[seen.DEADLOCKS])


@outlined
def note(m: Memory, x: Ctx, number: int) -> None:
    """Write the row of a context in the witness of deadlock `number`."""
    row = m[seen.WITNESS]
    if row >= WITNESSES:
        return
    m[seen.WITNESS] += 1
    member = m[glob.WITNESS0] + row * witness.COLUMNS
    m[member + witness.DEADLOCK] = number
    m[member + witness.CONTEXT] = x
    m[member + witness.CPU] = m[x + ctx.CPU]
    m[member + witness.STATE] = m[x + ctx.STATE]
    m[member + witness.WAIT] = m[x + ctx.WAIT]
    m[member + witness.SINCE] = m[x + ctx.SINCE]
    held = m[x + ctx.HELD]
    m[member + witness.HELD] = held
    m[member + witness.TAKEN] = m[held + lock.SINCE] if held >= 0 else -1
    m[member + witness.OP] = m[x + ctx.OP]
    m[member + witness.STAGE] = m[x + ctx.STAGE]
    m[member + witness.AT] = m[glob.NOW]
    m[member + witness.FOR] = waits_for(m, x)


@outlined
def stalled(m: Memory) -> bool:
    """Whether those who wait for memory wait for ever (`idle_for_ever`). If so, who waits is written down."""
    if not idle_for_ever(m):
        return False
    _write(m, 0, False)
    return True


@outlined
def idle_for_ever(m: Memory) -> bool:
    """Whether nobody who could free memory can run.

    Contexts of the mainline free, those that sleep for a time or an interrupt too, once they wake; so does the page
    daemon as long as it has pages to reclaim, and so do handlers of interrupts to come, what is queued.
    """
    if m[glob.FREERS]:
        for number in range(m[glob.QUEUES]):
            if m[m[glob.QUEUE0] + number * (2 + m[glob.QUEUE]) + 1] > 0:
                return False
    daemon = m[glob.DAEMON]
    if (
        daemon >= 0
        and m[glob.USER] > 0
        and (m[daemon + ctx.STATE] != contexts.BLOCKED or m[daemon + ctx.WAIT] != contexts.MEMORY)
    ):
        return False
    for number in range(m[glob.CONTEXTS]):
        x = m[glob.CTX0] + number * ctx.COLUMNS
        if m[x + ctx.PROG] == contexts.RECORDED and m[x + ctx.PC] < m[x + ctx.BURST]:
            return False
        if m[x + ctx.KIND] != MAIN or x == daemon:
            continue
        state, wait = m[x + ctx.STATE], m[x + ctx.WAIT]
        if state == contexts.IDLE:
            if m[x + ctx.PROG] == contexts.STREAM and m[m[x + ctx.CPU] + cpu.OP] < m[m[x + ctx.CPU] + cpu.END]:
                return False
        elif (
            (state != contexts.BLOCKED and state != contexts.SPINNING)
            or wait == contexts.TIMER
            or wait == contexts.HANDLER
            or wait == contexts.OBJECT_FOR
        ):
            return False
    return True
