"""Locks: who holds them, who waits, what taking one costs.

A lock also closes its section: while it is held (and waited for) the holder's spl mask is raised or it is in a critical
section, whichever the lock says; a lock of kind SECTION is that and nothing more. Hand-over is direct: a release makes
the first waiter the owner. The queue is FIFO, by priority where the lock propagates priority (a turnstile does both).

SPIN      the waiter stays on its CPU (simple_lock, spin mutex)
ADAPTIVE  it spins while the owner runs on another CPU, else it sleeps (FreeBSD mutex)
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
    IDLE,
    READY,
    RUNNING,
    SPINNING,
    block,
    charge,
    log,
    reconsider,
    stop_spinning,
    wake,
    wake_after,
)
from kmemexp.sim.engine.heap import NEVER, due
from kmemexp.sim.engine.inheritance import lend, own_priority
from kmemexp.sim.engine.sleeping import may_sleep, note_panic
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, seen, stage
from kmemexp.sim.engine.waitgraph import check, waits_for
from kmemexp.sim.probes import observe_ns
from kmemexp.sim.tables import panics

# Answers of `acquire`.
GRANTED = 0
WAITS = 1
REFUSED = 2  # the request would never return, or must not be made here


@kernel
def enter(m: Memory, x: Ctx, mask: int, critical: int) -> None:
    """Raise the spl mask of a context, and enter a critical section."""
    if mask:
        m[x + ctx.SAVED + m[x + ctx.DEPTH]] = m[x + ctx.MASK]
        m[x + ctx.DEPTH] += 1
        m[x + ctx.MASK] |= mask
        m[x + ctx.EXTRA] += m[costs.SPL]
    if critical:
        m[x + ctx.CRIT] += 1
        m[x + ctx.EXTRA] += m[costs.CRITICAL]


@outlined
def exit_section(m: Memory, x: Ctx, mask: int, critical: int) -> None:
    """Undo `enter`. What had to wait because of it runs now."""
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


@kernel
def count_taken(m: Memory, x: Ctx, l: Lock, number: int) -> None:
    """Charge for taking a lock, more if it was last held on another CPU."""
    last = m[l + lock.LAST]
    m[x + ctx.EXTRA] += m[costs.LOCK]
    if last >= 0 and last != number:
        m[x + ctx.EXTRA] += m[
            costs.MOVE_NEAR if last // m[costs.SOCKET_CPUS] == number // m[costs.SOCKET_CPUS] else costs.MOVE_FAR
        ]
    m[l + lock.LAST] = number
    m[seen.LOCKS] += 1
    m[l + lock.TAKEN] += 1


@kernel
def take(m: Memory, x: Ctx, l: Lock) -> None:
    """Make `x` the owner of a lock that is free, or handed over to it."""
    c = m[x + ctx.CPU]
    count_taken(m, x, l, m[c + cpu.NUMBER])
    if m[l + lock.KIND] == lock.BIG:
        m[x + ctx.BIG] += 1
        m[l + lock.DEPTH] += 1
        if m[l + lock.OWNER] == c:
            return
        m[l + lock.OWNER] = c
    else:
        _note_order(m, x, l)
        m[l + lock.OWNER] = x
        m[l + lock.NEXT] = m[x + ctx.HELD]
        m[x + ctx.HELD] = l
        m[x + ctx.PRIO] = max(m[x + ctx.PRIO], m[l + lock.CEILING])
    m[l + lock.SINCE] = m[glob.NOW]
    log(m, x, machine.LOG_TAKE, l, 0)


@outlined
def release(m: Memory, x: Ctx, l: Lock) -> None:
    """Give back a lock, or leave a section. The first waiter owns it from now on."""
    kind = m[l + lock.KIND]
    if kind == lock.BIG:
        _drop_big(m, x, l, 1)
    elif kind != lock.SECTION:
        _let_go(m, x, l)
        if m[l + lock.INHERIT] or m[l + lock.CEILING]:
            own_priority(m, x)
    exit_section(m, x, m[l + lock.MASK], m[l + lock.CRIT])


@outlined
def _let_go(m: Memory, x: Ctx, l: Lock) -> None:
    """Take a lock off the owner's list and hand it on."""
    held = m[x + ctx.HELD]
    if held == l:
        m[x + ctx.HELD] = m[l + lock.NEXT]
    else:
        while m[held + lock.NEXT] != l:
            held = m[held + lock.NEXT]
        m[held + lock.NEXT] = m[l + lock.NEXT]
    m[l + lock.HELD_NS] += m[glob.NOW] - m[l + lock.SINCE]
    m[l + lock.OWNER] = -1
    log(m, x, machine.LOG_RELEASE, l, 0)
    hand_over(m, l)


@outlined
def _drop_big(m: Memory, x: Ctx, l: Lock, depth: int) -> None:
    """Give back the big lock so many times, and hand it on where that was the last."""
    if unwind_big(m, x, l, depth):
        hand_over(m, l)


@kernel
def unwind_big(m: Memory, x: Ctx, l: Lock, depth: int) -> bool:
    """Give back the big lock so many times. True: its CPU has it no more."""
    m[x + ctx.BIG] -= depth
    m[l + lock.DEPTH] -= depth
    if m[l + lock.DEPTH] != 0:
        return False
    m[l + lock.HELD_NS] += m[glob.NOW] - m[l + lock.SINCE]
    m[l + lock.OWNER] = -1
    log(m, x, machine.LOG_RELEASE, l, 0)
    return True


@outlined
def hand_over(m: Memory, l: Lock) -> None:
    """Make the first waiter the owner. The big lock goes to a CPU: all who spin for it there have it now."""
    waiter = m[l + lock.HEAD]
    if waiter < 0:
        return
    _give(m, l, -1, waiter)
    if m[l + lock.KIND] == lock.BIG and not m[glob.BIG_WAIT] and m[m[waiter + ctx.CPU] + cpu.BIG_WAITERS] > 0:
        before, other = -1, m[l + lock.HEAD]
        while other >= 0:
            after = m[other + ctx.LINK]
            if m[other + ctx.CPU] == m[waiter + ctx.CPU]:
                _give(m, l, before, other)
            else:
                before = other
            other = after
    c = m[waiter + ctx.CPU]
    top = m[c + cpu.TOP]
    if m[waiter + ctx.STATE] == READY and top >= 0 and m[top + ctx.STATE] == SPINNING:
        # An owner that cannot run because of one who spins for its lock.
        wanted = m[top + ctx.WAIT]
        if check(m, top):
            m[top + ctx.AFTER] = m[top + ctx.STAGE]
            m[top + ctx.STAGE] = stage.REFUSED
            forget_wait(m, top, wanted)


@kernel
def _give(m: Memory, l: Lock, before: int, waiter: Ctx) -> None:
    """Take waiter `waiter`, which comes after `before` (-1: the first), out of the queue and make it the owner."""
    _unqueue(m, l, before, waiter)
    m[m[waiter + ctx.CPU] + cpu.BIG_WAITERS] -= m[l + lock.KIND] == lock.BIG
    waited = m[glob.NOW] - m[waiter + ctx.SINCE]
    m[l + lock.WAITED] += 1
    m[l + lock.WAIT_NS] += waited
    m[seen.CONTENDED] += 1
    m[seen.WAIT_NS] += waited
    count_waiters(m, -1)
    observe_ns(m, m[l + lock.HIST], waited)
    log(m, waiter, machine.LOG_GRANT, l, waited)
    take(m, waiter, l)
    if m[l + lock.INHERIT]:
        own_priority(m, waiter)
    if m[waiter + ctx.STATE] == SPINNING:
        stop_spinning(m, waiter)
    else:
        wake_after(m, waiter, m[costs.PREEMPT if m[l + lock.KIND] == lock.BIG else costs.SWITCH])


@kernel
def _unqueue(m: Memory, l: Lock, before: int, waiter: Ctx) -> None:
    """Take a waiter out of a lock's queue."""
    if before < 0:
        m[l + lock.HEAD] = m[waiter + ctx.LINK]
    else:
        m[before + ctx.LINK] = m[waiter + ctx.LINK]
    if m[l + lock.TAIL] == waiter:
        m[l + lock.TAIL] = before


@outlined
def _wait(m: Memory, x: Ctx, l: Lock, kind: int, owner: Ctx) -> int:
    """Queue for a lock that another context, or CPU, holds."""
    sleeps = kind >= lock.SLEEP and kind != lock.BIG
    if kind == lock.ADAPTIVE:
        sleeps = m[owner + ctx.STATE] != RUNNING
    if kind != lock.BIG and _is_same_process(m, x, owner):
        m[seen.SELF] += 1
        note_panic(m, panics.SELF)
        log(m, x, machine.LOG_SELF, l, 0)
    if sleeps and not may_sleep(m, x):
        if m[glob.WOULD_SLEEP] == machine.WOULD_PANIC:
            exit_section(m, x, m[l + lock.MASK], m[l + lock.CRIT])
            return REFUSED
        sleeps = m[x + ctx.KIND] != machine.FAST
    join_queue(m, x, l, kind)
    if m[l + lock.INHERIT]:
        lend(m, owner, m[x + ctx.PRIO])
    if sleeps:
        log(m, x, machine.LOG_BLOCK, l, owner)
        drop(m, x)
        block(m, x)
    elif kind == lock.BIG:
        wait_big(m, x, l)
    else:
        spin(m, x, l, owner)
    return waits_or_refused(m, x, l)


@kernel
def wait_big(m: Memory, x: Ctx, l: Lock) -> None:
    """Wait for the big lock: on the CPU, or off it."""
    if m[glob.BIG_WAIT] and m[x + ctx.KIND] != machine.FAST:
        log(m, x, machine.LOG_BLOCK, l, m[l + lock.OWNER])
        block(m, x)
    else:
        spin(m, x, l, m[l + lock.OWNER])


@kernel
def join_queue(m: Memory, x: Ctx, l: Lock, kind: int) -> None:
    """Begin to wait for a lock: last in its queue, or by priority where the lock propagates it."""
    _enqueue(m, x, l)
    m[m[x + ctx.CPU] + cpu.BIG_WAITERS] += kind == lock.BIG
    m[x + ctx.WAIT] = l
    m[x + ctx.SINCE] = m[glob.NOW]
    count_waiters(m, 1)


@kernel
def spin(m: Memory, x: Ctx, l: Lock, owner: Ctx) -> None:
    """Wait for a lock on the CPU."""
    log(m, x, machine.LOG_WAIT, l, owner)
    c = m[x + ctx.CPU]
    charge(m, c)
    m[x + ctx.SPIN] = 1
    m[x + ctx.STATE] = SPINNING
    due(m, c, NEVER, 0)


@kernel
def waits_or_refused(m: Memory, x: Ctx, l: Lock) -> int:
    """Answer to a request that waits now: WAITS, or REFUSED where it closes a circle that is to be broken."""
    holder = waits_for(m, x)
    if holder >= 0 and m[holder + ctx.STATE] != RUNNING and check(m, x):
        forget_wait(m, x, l)
        return REFUSED
    return WAITS


@outlined
def drop(m: Memory, x: Ctx) -> None:
    """Before `x` sleeps: give back the big lock and its tokens; it takes them again before it goes on."""
    token = m[x + ctx.HELD]
    while token >= 0 and m[token + lock.KIND] != lock.TOKEN:
        token = m[token + lock.NEXT]
    big, below = m[x + ctx.BIG], _big_below(m, x)
    if big + below == 0 and token < 0:
        return
    m[x + ctx.AFTER] = m[x + ctx.STAGE]
    m[x + ctx.STAGE] = stage.AGAIN
    m[x + ctx.TOKEN] = token
    m[x + ctx.DROPPED] = big + below
    m[x + ctx.BELOW] = below
    if big + below:
        m[x + ctx.BIG] += below
        _drop_big(m, x, m[glob.LOCK0], big + below)
    if token >= 0:
        _let_go(m, x, token)


@outlined
def _big_below(m: Memory, x: Ctx) -> int:
    """Depth of the big lock that the stack has on which a handler runs: where it sleeps, the whole process does."""
    depth = 0
    under = m[x + ctx.UNDER] if m[glob.MODEL] == machine.SPL and m[x + ctx.KIND] != machine.MAIN else -1
    while under >= 0 and m[under + ctx.STATE] != IDLE:
        depth += m[under + ctx.BIG]
        under = m[under + ctx.UNDER] if m[under + ctx.KIND] != machine.MAIN else -1
    return depth


@outlined
def forget_wait(m: Memory, x: Ctx, l: Lock) -> None:
    """Take `x` out of a lock's queue: its request is refused to break a deadlock."""
    before = -1
    waiter = m[l + lock.HEAD]
    while waiter != x:
        before = waiter
        waiter = m[waiter + ctx.LINK]
    _unqueue(m, l, before, x)
    m[m[x + ctx.CPU] + cpu.BIG_WAITERS] -= m[l + lock.KIND] == lock.BIG
    count_waiters(m, -1)
    exit_section(m, x, m[l + lock.MASK], m[l + lock.CRIT])
    wake(m, x)


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


@kernel
def _enqueue(m: Memory, x: Ctx, l: Lock) -> None:
    """Last in the queue; by priority where the lock propagates it."""
    before = m[l + lock.TAIL]
    if m[l + lock.INHERIT]:
        before = -1
        waiter = m[l + lock.HEAD]
        while waiter >= 0 and m[waiter + ctx.PRIO] >= m[x + ctx.PRIO]:
            before = waiter
            waiter = m[waiter + ctx.LINK]
    if before < 0:
        m[x + ctx.LINK] = m[l + lock.HEAD]
        m[l + lock.HEAD] = x
    else:
        m[x + ctx.LINK] = m[before + ctx.LINK]
        m[before + ctx.LINK] = x
    if m[x + ctx.LINK] < 0:
        m[l + lock.TAIL] = x


@outlined
def _note_order(m: Memory, x: Ctx, l: Lock) -> None:
    """Count a pair of lock classes that is now taken in the other order for the first time (FreeBSD's witness)."""
    b = m[l + lock.CLASS]
    held = m[x + ctx.HELD]
    while held >= 0:
        a = m[held + lock.CLASS]
        ab = m[glob.ORDER] + a * m[glob.CLASSES] + b
        if a != b and not m[ab]:
            m[ab] = 1
            m[seen.REVERSALS] += m[m[glob.ORDER] + b * m[glob.CLASSES] + a]
        held = m[held + lock.NEXT]


@kernel
def count_waiters(m: Memory, change: int) -> None:
    """Keep the integral of the number of waiting contexts (for Little's law)."""
    m[seen.WAIT_AREA] += m[seen.WAITING] * (m[glob.NOW] - m[seen.WAIT_AT])
    m[seen.WAIT_AT] = m[glob.NOW]
    m[seen.WAITING] += change
