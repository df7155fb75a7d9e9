"""Locks: who holds them, who waits, what taking one costs.

A lock also closes its section: while it is held (and waited for) the holder's spl mask is raised or it is in a critical
section, whichever the lock says; a lock of kind SECTION is that and nothing more. The queue is FIFO, by priority where
the lock propagates priority (a turnstile does both); to whom a lock goes is in `ownership`.

SPIN      the waiter stays on its CPU (simple_lock, spin mutex; who spins gets it in order, as in Linux)
ADAPTIVE  it spins while the owner is on another CPU, else it sleeps, with a turnstile (mutexes of FreeBSD and illumos)
SLEEP     it sleeps (lockmgr; FreeBSD sx); BSD's lockmgr had no priority inheritance
BIG       spun for, held by a CPU, recursive, dropped while the holder sleeps (FreeBSD 4 MP lock); in DragonFly a thread
          that cannot get it stays in the queue, and its CPU runs what does not need it
TOKEN     sleeps, and is dropped while the holder sleeps (DragonFly's serializing token, 2003)

Sources: FreeBSD 4 kern_lock.c, i386/i386/mplock.s; FreeBSD 5 kern_mutex.c; DragonFly lwkt_thread.c, lwkt_token (2003).
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Lock, Memory
from kmemexp.sim.engine import costs, machine
from kmemexp.sim.engine.contexts import (
    BLOCKED,
    NOTHING,
    PREEMPTED,
    RUNNING,
    SPINNING,
    STREAM,
    block,
    charge,
    reconsider,
)
from kmemexp.sim.engine.heap import NEVER, due
from kmemexp.sim.engine.inheritance import lend, own_priority
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.ownership import drop, drop_big, grant, let_go, take
from kmemexp.sim.engine.queues import join_queue, leave_queue
from kmemexp.sim.engine.sleeping import may_sleep, note_panic
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, seen, stage
from kmemexp.sim.engine.waitgraph import check, waits_for
from kmemexp.sim.engine.waking import stop_spinning, wake, wake_all
from kmemexp.sim.tables import panics

# Answers of `acquire`.
GRANTED = 0
WAITS = 1
REFUSED = 2  # the request would never return, or must not be made here

# How a lock is waited for.
ON_CPU, ASLEEP, FORBIDDEN = range(3)


@kernel
def note_section(m: Memory, x: Ctx, event: int, mask: int, critical: int) -> None:
    """Log that a section begins or ends, where there is a log."""
    if m[glob.LOG_ROWS] > 0 and (mask or critical):
        log(m, x, event, mask, critical)


@kernel
def enter(m: Memory, x: Ctx, mask: int, critical: int) -> None:
    """Raise the spl mask of a context, and enter a critical section."""
    note_section(m, x, machine.LOG_ENTER, mask, critical)
    if mask:
        m[x + ctx.SAVED + m[x + ctx.DEPTH]] = m[x + ctx.MASK]
        m[x + ctx.DEPTH] += 1
        m[x + ctx.MASK] |= mask
        m[x + ctx.EXTRA] += m[costs.SPL]
    if critical:
        m[x + ctx.CRIT] += 1
        if mask == 0:  # with a mask interrupts are off at the processor, by one instruction
            m[x + ctx.EXTRA] += m[costs.CRITICAL]


@outlined
def exit_section(m: Memory, x: Ctx, mask: int, critical: int) -> None:
    """Undo `enter`. What had to wait because of it runs now."""
    note_section(m, x, machine.LOG_LEAVE, mask, critical)
    if mask:
        m[x + ctx.DEPTH] -= 1
        m[x + ctx.MASK] = m[x + ctx.SAVED + m[x + ctx.DEPTH]]
    if critical:
        m[x + ctx.CRIT] -= 1
    c = m[x + ctx.CPU]
    if (mask or critical) and m[c + cpu.READY] >= 0 and m[c + cpu.TOP] == x:
        reconsider(m, c)


@outlined
def acquire(m: Memory, x: Ctx, l: Lock, then: int) -> int:
    """Take lock `l` for context `x`, which its CPU runs; it goes on in `stage` once it has it."""
    m[x + ctx.STAGE] = then
    enter(m, x, m[l + lock.MASK], m[l + lock.CRIT])
    kind = m[l + lock.KIND]
    if kind == lock.SECTION:
        return GRANTED
    owner = m[l + lock.OWNER]
    c = m[x + ctx.CPU]
    if kind >= lock.ADAPTIVE and kind != lock.BIG and m[x + ctx.KIND] == machine.FAST:
        m[seen.BLOCKABLE] += 1
    if owner < 0 or (kind == lock.BIG and owner == c):
        take(m, x, l)
        return GRANTED
    return _wait(m, x, l, kind, owner)


@outlined
def release(m: Memory, x: Ctx, l: Lock) -> None:
    """Give back a lock, or leave a section. The first waiter owns it from now on."""
    kind = m[l + lock.KIND]
    if kind == lock.BIG:
        drop_big(m, x, l, 1)
    elif kind != lock.SECTION:
        let_go(m, x, l)
        if m[l + lock.INHERIT] or m[l + lock.CEILING]:
            own_priority(m, x)
    if m[l + lock.MASK] or m[l + lock.CRIT]:
        exit_section(m, x, m[l + lock.MASK], m[l + lock.CRIT])


@outlined
def _wait(m: Memory, x: Ctx, l: Lock, kind: int, owner: Ctx) -> int:
    """Queue for a lock that another context, or CPU, holds."""
    if kind != lock.BIG and _is_same_process(m, x, owner):
        m[seen.SELF] += 1
        note_panic(m, panics.SELF)
        log(m, x, machine.LOG_SELF, l, 0)
    how = _how(m, x, kind, owner)
    if how == FORBIDDEN:
        exit_section(m, x, m[l + lock.MASK], m[l + lock.CRIT])
        return REFUSED
    join_queue(m, x, l, kind)
    if m[l + lock.INHERIT]:
        lend(m, owner, m[x + ctx.PRIO])
    if how == ASLEEP:
        log(m, x, machine.LOG_BLOCK, l, owner)
        drop(m, x)
        block(m, x)
    elif kind == lock.BIG:
        wait_big(m, x, l)
    else:
        spin(m, x, l, owner)
    return waits_or_refused(m, x, l)


@outlined
def _how(m: Memory, x: Ctx, kind: int, owner: Ctx) -> int:
    """How `x` waits for a lock: on its CPU, asleep, or not at all, since it must not sleep."""
    sleeps = kind >= lock.SLEEP and kind != lock.BIG
    if kind == lock.ADAPTIVE:
        sleeps = not _runs(m, owner)
    if sleeps and not may_sleep(m, x):
        if m[glob.WOULD_SLEEP] == machine.WOULD_PANIC:
            return FORBIDDEN
        sleeps = m[x + ctx.KIND] != machine.FAST
    return ASLEEP if sleeps else ON_CPU


@kernel
def _runs(m: Memory, owner: Ctx) -> bool:
    """Whether an owner is on its CPU, at work or spinning; what borrows its stack does not count."""
    state = m[owner + ctx.STATE]
    if state == PREEMPTED:
        above = m[owner + ctx.ABOVE]
        return m[glob.MODEL] == machine.SPL or (above >= 0 and m[above + ctx.KIND] == machine.FAST)
    return state == RUNNING or state == SPINNING


@outlined
def retry(m: Memory, x: Ctx) -> int:
    """Let `x` look again at the lock that it waits for: it spins or sleeps on, or takes what is free."""
    c, l = m[x + ctx.CPU], m[x + ctx.WAIT]
    if l < 0:  # it spins for the answer of a CPU
        due(m, c, NEVER, 0)
        return WAITS
    owner, kind = m[l + lock.OWNER], m[l + lock.KIND]
    if owner < 0:
        before, waiter = -1, m[l + lock.HEAD]
        while waiter != x:
            before, waiter = waiter, m[waiter + ctx.LINK]
        grant(m, l, before, x)
        if m[x + ctx.SPIN]:
            stop_spinning(m, x)
        m[x + ctx.WAIT] = NOTHING
        m[x + ctx.STAGE] &= stage.RETRY - 1
        return GRANTED
    how = ASLEEP  # as before
    if m[x + ctx.SPIN] or (kind == lock.ADAPTIVE and _runs(m, owner)):
        how = _how(m, x, kind, owner)
    if how == FORBIDDEN:
        _stop_waiting(m, x, l)
        return REFUSED
    if m[l + lock.INHERIT]:
        lend(m, owner, m[x + ctx.PRIO])
    if how == ASLEEP:
        charge(m, c)
        m[x + ctx.SPIN] = 0
        m[x + ctx.STAGE] &= stage.RETRY - 1
        drop(m, x)
        block(m, x)
    elif m[x + ctx.SPIN]:
        due(m, c, NEVER, 0)
    else:
        spin(m, x, l, owner)
    return waits_or_refused(m, x, l)


@kernel
def wait_big(m: Memory, x: Ctx, l: Lock) -> None:
    """Wait for the big lock: on the CPU, or off it."""
    if m[glob.BIG_WAIT] and m[x + ctx.KIND] != machine.FAST and m[x + ctx.PROG] != STREAM:
        log(m, x, machine.LOG_BLOCK, l, m[l + lock.OWNER])
        block(m, x)
    else:
        c = m[x + ctx.CPU]
        spin(m, x, l, m[l + lock.OWNER])
        if m[glob.BIG_WAIT] and m[c + cpu.READY] >= 0:
            reconsider(m, c)


@kernel
def spin(m: Memory, x: Ctx, l: Lock, owner: Ctx) -> None:
    """Wait for a lock on the CPU."""
    log(m, x, machine.LOG_WAIT, l, owner)
    c = m[x + ctx.CPU]
    charge(m, c)
    m[x + ctx.SPIN] = 1
    m[x + ctx.STATE] = SPINNING
    due(m, c, NEVER, 0)
    if m[c + cpu.SHOT] and m[x + ctx.KIND] != machine.FAST:
        m[c + cpu.SHOT] = 0  # who spins takes messages, even in a critical section
        wake_all(m, c + cpu.ASKERS)


@kernel
def waits_or_refused(m: Memory, x: Ctx, l: Lock) -> int:
    """Answer to a request that waits now: WAITS, or REFUSED where it closes a circle that is to be broken."""
    holder = waits_for(m, x)
    if holder >= 0 and m[holder + ctx.STATE] != RUNNING and check(m, x):
        _stop_waiting(m, x, l)
        return REFUSED
    return WAITS


@outlined
def _stop_waiting(m: Memory, x: Ctx, l: Lock) -> None:
    """Take `x` out of a lock's queue and of its section: its request is refused."""
    leave_queue(m, x, l)
    if m[x + ctx.STATE] == BLOCKED or m[x + ctx.SPIN]:
        wake(m, x)
    m[x + ctx.STAGE] &= stage.RETRY - 1
    exit_section(m, x, m[l + lock.MASK], m[l + lock.CRIT])


@outlined
def _is_same_process(m: Memory, x: Ctx, owner: Ctx) -> bool:
    """Whether lockmgr takes the two for one: the owner itself, or a handler on the owner's stack (it compares pids)."""
    if x == owner:
        return True
    if m[glob.MODEL] != machine.SPL or m[x + ctx.KIND] == machine.FAST:
        return False
    under = x
    while under >= 0 and m[under + ctx.KIND] != machine.MAIN:
        under = m[under + ctx.UNDER]
        if under == owner:
            return True
    return False
