"""Who owns a lock: taking it, handing it on, giving it back before a sleep.

Hand-over is direct: a release makes the first waiter the owner, at once. A lock that is barged for is free after a
release unless somebody spins for it: the first who sleeps for it is woken to try, and who comes before that has run has
it. So do the mutexes of FreeBSD and of illumos; lockmgr wakes all who sleep, and all but one of them sleep again. A
strict hand-over to a sleeper keeps the lock for the time of its switch, and makes convoys.

Sources: FreeBSD 4 kern_lock.c (wakeup(), not wakeup_one()); FreeBSD 5 kern_mutex.c, subr_turnstile.c; illumos
mutex.c (mutex_vector_exit).
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Lock, Memory
from kmemexp.sim.engine import costs, machine
from kmemexp.sim.engine.contexts import BLOCKED, IDLE, SPINNING, reconsider
from kmemexp.sim.engine.inheritance import own_priority
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.queues import count_waiters, unqueue
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, seen, stage
from kmemexp.sim.engine.waking import make_ready, stop_spinning, wake_after
from kmemexp.sim.probes import observe_ns


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
        if m[x + ctx.HELD] >= 0:
            _note_order(m, x, l)
        m[l + lock.OWNER] = x
        m[l + lock.NEXT] = m[x + ctx.HELD]
        m[x + ctx.HELD] = l
        m[x + ctx.PRIO] = max(m[x + ctx.PRIO], m[l + lock.CEILING])
        if m[l + lock.INHERIT] and m[l + lock.HEAD] >= 0:
            m[x + ctx.PRIO] = max(m[x + ctx.PRIO], m[m[l + lock.HEAD] + ctx.PRIO])
    m[l + lock.SINCE] = m[glob.NOW]
    log(m, x, machine.LOG_TAKE, l, 0)


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


@outlined
def grant(m: Memory, l: Lock, before: int, waiter: Ctx) -> None:
    """Count the end of a wait, and make the waiter the owner."""
    unqueue(m, l, before, waiter)
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


@kernel
def _give(m: Memory, l: Lock, before: int, waiter: Ctx) -> None:
    """Take waiter `waiter`, which comes after `before` (-1: the first), out of the queue and make it the owner."""
    grant(m, l, before, waiter)
    if m[waiter + ctx.STATE] == SPINNING:
        stop_spinning(m, waiter)
        if m[l + lock.KIND] == lock.BIG and m[glob.BIG_WAIT]:
            c = m[waiter + ctx.CPU]
            m[waiter + ctx.EXTRA] += m[costs.PREEMPT]
            if m[c + cpu.READY] >= 0:
                reconsider(m, c)  # an interrupt thread that wanted it too
    else:
        wake_after(m, waiter, m[costs.PREEMPT if m[l + lock.KIND] == lock.BIG else costs.SWITCH])


@outlined
def hand_over(m: Memory, l: Lock) -> None:
    """Make the first waiter the owner. The big lock goes to a CPU: all who stand on it there have it now."""
    waiter = m[l + lock.HEAD]
    if waiter < 0:
        return
    if m[l + lock.BARGE]:
        _set_free(m, l)
        return
    _give(m, l, -1, waiter)
    if m[l + lock.KIND] == lock.BIG and m[m[waiter + ctx.CPU] + cpu.BIG_WAITERS] > 0:
        before, other = -1, m[l + lock.HEAD]
        while other >= 0:
            after = m[other + ctx.LINK]
            if m[other + ctx.CPU] == m[waiter + ctx.CPU] and (m[other + ctx.SPIN] or not m[glob.BIG_WAIT]):
                _give(m, l, before, other)
            else:
                before = other
            other = after


@outlined
def _set_free(m: Memory, l: Lock) -> None:
    """Give a lock to the first who spins for it; where none does, wake the first who sleeps, or all, to try for it."""
    before, sleeper = -1, -1
    all_woken = m[l + lock.BARGE] == lock.WAKES_ALL
    waiter = m[l + lock.HEAD]
    while waiter >= 0:
        state = m[waiter + ctx.STATE]
        if state == SPINNING:
            _give(m, l, before, waiter)
            return
        if sleeper == -1:
            if state == BLOCKED:
                sleeper = waiter
            elif not m[waiter + ctx.SPIN]:
                sleeper = -2  # it has been woken before, and has not got as far as to try
        before, waiter = waiter, m[waiter + ctx.LINK]
    waiter = m[l + lock.HEAD] if all_woken else sleeper
    while waiter >= 0:
        if m[waiter + ctx.STATE] == BLOCKED:
            m[waiter + ctx.STAGE] |= stage.RETRY
            make_ready(m, waiter, m[costs.SWITCH])
        waiter = m[waiter + ctx.LINK] if all_woken else -1


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
def drop_big(m: Memory, x: Ctx, l: Lock, depth: int) -> None:
    """Give back the big lock so many times, and hand it on where that was the last."""
    if unwind_big(m, x, l, depth):
        hand_over(m, l)


@outlined
def let_go(m: Memory, x: Ctx, l: Lock) -> None:
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
    if m[l + lock.HEAD] >= 0:
        hand_over(m, l)


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
        drop_big(m, x, m[glob.LOCK0], big + below)
    if token >= 0:
        let_go(m, x, token)


@outlined
def _big_below(m: Memory, x: Ctx) -> int:
    """Depth of the big lock that the stack has on which a handler runs: where it sleeps, the whole process does."""
    depth = 0
    under = m[x + ctx.UNDER] if m[glob.MODEL] == machine.SPL and m[x + ctx.KIND] != machine.MAIN else -1
    while under >= 0 and m[under + ctx.STATE] != IDLE:
        depth += m[under + ctx.BIG]
        under = m[under + ctx.UNDER] if m[under + ctx.KIND] != machine.MAIN else -1
    return depth
