"""Queues of locks: FIFO, or by priority where the lock propagates it."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Lock, Memory
from kmemexp.sim.engine.contexts import NOTHING
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, seen


@kernel
def join_queue(m: Memory, x: Ctx, l: Lock, kind: int) -> None:
    """Begin to wait for a lock: last in its queue, or by priority where the lock propagates it."""
    enqueue(m, x, l)
    m[m[x + ctx.CPU] + cpu.BIG_WAITERS] += kind == lock.BIG
    m[x + ctx.WAIT] = l
    m[x + ctx.SINCE] = m[glob.NOW]
    count_waiters(m, 1)


@outlined
def leave_queue(m: Memory, x: Ctx, l: Lock) -> None:
    """Wait for a lock no more."""
    remove(m, x, l)
    m[m[x + ctx.CPU] + cpu.BIG_WAITERS] -= m[l + lock.KIND] == lock.BIG
    m[x + ctx.WAIT] = NOTHING
    count_waiters(m, -1)


@kernel
def enqueue(m: Memory, x: Ctx, l: Lock) -> None:
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


@kernel
def unqueue(m: Memory, l: Lock, before: int, waiter: Ctx) -> None:
    """Take a waiter, which comes after `before` (-1: the first), out of a lock's queue."""
    if before < 0:
        m[l + lock.HEAD] = m[waiter + ctx.LINK]
    else:
        m[before + ctx.LINK] = m[waiter + ctx.LINK]
    if m[l + lock.TAIL] == waiter:
        m[l + lock.TAIL] = before


@outlined
def remove(m: Memory, x: Ctx, l: Lock) -> None:
    """Take a waiter out of a lock's queue, wherever it stands."""
    before, waiter = -1, m[l + lock.HEAD]
    while waiter != x:
        before, waiter = waiter, m[waiter + ctx.LINK]
    unqueue(m, l, before, x)


@kernel
def count_waiters(m: Memory, change: int) -> None:
    """Keep the integral of the number of waiting contexts (for Little's law)."""
    m[seen.WAIT_AREA] += m[seen.WAITING] * (m[glob.NOW] - m[seen.WAIT_AT])
    m[seen.WAIT_AT] = m[glob.NOW]
    m[seen.WAITING] += change
