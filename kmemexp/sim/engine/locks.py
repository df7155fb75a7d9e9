"""Locks: who holds them, who waits, what taking one costs.

A lock also closes its section: while it is held (and waited for) the holder's spl mask is raised or it is in a critical
section, whichever the lock says; a lock of kind SECTION is that and nothing more. Hand-over is direct: a release makes
the first waiter the owner. The queue is FIFO, by priority where the lock propagates priority (a turnstile does both).

SPIN      the waiter stays on its CPU (simple_lock, spin mutex)
ADAPTIVE  it spins while the owner runs on another CPU, else it sleeps (FreeBSD mutex)
SLEEP     it sleeps (lockmgr; FreeBSD sx); BSD's lockmgr had no priority inheritance
BIG       spun for, held by a CPU, recursive, dropped while the holder sleeps (FreeBSD 4 MP lock, DragonFly MP lock)
TOKEN     sleeps, and is dropped while the holder sleeps (DragonFly's serializing token, 2003)

Sources: FreeBSD 4 kern_lock.c, i386/i386/mplock.s; FreeBSD 5 kern_mutex.c; DragonFly lwkt_thread.c, lwkt_token (2003).
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.engine.contexts import (
    C_BIG_WAITERS,
    C_NUMBER,
    C_READY,
    C_TOP,
    IDLE,
    READY,
    RUNNING,
    S_AGAIN,
    S_REFUSED,
    SPINNING,
    X_AFTER,
    X_BASE,
    X_BELOW,
    X_BIG,
    X_CPU,
    X_CRIT,
    X_DEPTH,
    X_DROPPED,
    X_EXTRA,
    X_HELD,
    X_KIND,
    X_LINK,
    X_MASK,
    X_PRIO,
    X_READY,
    X_SAVED,
    X_SINCE,
    X_SPIN,
    X_STAGE,
    X_STATE,
    X_TOKEN,
    X_UNDER,
    X_WAIT,
    block,
    charge,
    log,
    queue_ready,
    reconsider,
    stop_spinning,
    wake,
)
from kmemexp.sim.engine.costs import K_CRITICAL, K_LOCK, K_MOVE_FAR, K_MOVE_NEAR, K_SOCKET_CPUS, K_SPL
from kmemexp.sim.engine.heap import NEVER, due
from kmemexp.sim.engine.machine import (
    ADAPTIVE,
    BIG,
    FAST,
    G_CLASSES,
    G_LOCK0,
    G_MODEL,
    G_NOW,
    G_ORDER,
    G_WOULD_SLEEP,
    L_CEILING,
    L_CLASS,
    L_CRIT,
    L_DEPTH,
    L_HEAD,
    L_HELD_NS,
    L_HIST,
    L_INHERIT,
    L_KIND,
    L_LAST,
    L_MASK,
    L_NEXT,
    L_OWNER,
    L_SINCE,
    L_TAIL,
    L_TAKEN,
    L_WAIT_NS,
    L_WAITED,
    LOG_BLOCK,
    LOG_GRANT,
    LOG_RELEASE,
    LOG_SELF,
    LOG_TAKE,
    LOG_WAIT,
    LOG_WOULD_SLEEP,
    MAIN,
    N_BLOCKABLE,
    N_CONTENDED,
    N_LOCKS,
    N_PANIC,
    N_PANICS,
    N_REVERSALS,
    N_SELF,
    N_WAIT_AREA,
    N_WAIT_AT,
    N_WAIT_NS,
    N_WAITING,
    N_WOULD_SLEEP,
    SECTION,
    SLEEP,
    SPL,
    TOKEN,
    W_PANIC,
)
from kmemexp.sim.engine.waitgraph import check, waits_for
from kmemexp.sim.probes import observe_ns
from kmemexp.sim.slots import P_IDLE_SLEEP, P_SELF, P_SLEEP

# Answers of `acquire`.
GRANTED = 0
WAITS = 1
REFUSED = 2  # the request would never return, or must not be made here


@kernel
def enter(m, x, mask, critical):
    """Raise the spl mask of a context, and enter a critical section."""
    if mask:
        m[x + X_SAVED + m[x + X_DEPTH]] = m[x + X_MASK]
        m[x + X_DEPTH] += 1
        m[x + X_MASK] |= mask
        m[x + X_EXTRA] += m[K_SPL]
    if critical:
        m[x + X_CRIT] += 1
        m[x + X_EXTRA] += m[K_CRITICAL]


@outlined
def exit_section(m, x, mask, critical):
    """Undo `enter`. What had to wait because of it runs now."""
    if mask:
        m[x + X_DEPTH] -= 1
        m[x + X_MASK] = m[x + X_SAVED + m[x + X_DEPTH]]
    if critical:
        m[x + X_CRIT] -= 1
    c = m[x + X_CPU]
    if (mask or critical) and m[c + C_READY] >= 0 and m[c + C_TOP] == x:
        reconsider(m, c)


@outlined
def acquire(m, x, l, stage):
    """Take lock `l` for context `x`, which its CPU runs; it goes on in `stage` once it has it."""
    m[x + X_STAGE] = stage
    enter(m, x, m[l + L_MASK], m[l + L_CRIT])
    kind = m[l + L_KIND]
    if kind == SECTION:
        return GRANTED
    owner = m[l + L_OWNER]
    c = m[x + X_CPU]
    if kind >= ADAPTIVE and kind != BIG and m[x + X_KIND] == FAST:
        m[N_BLOCKABLE] += 1
    if owner < 0 or (kind == BIG and owner == c):
        take(m, x, l)
        return GRANTED
    return _wait(m, x, l, kind, owner)


@kernel
def count_taken(m, x, l, number):
    """Charge for taking a lock, more if it was last held on another CPU."""
    last = m[l + L_LAST]
    m[x + X_EXTRA] += m[K_LOCK]
    if last >= 0 and last != number:
        m[x + X_EXTRA] += m[K_MOVE_NEAR if last // m[K_SOCKET_CPUS] == number // m[K_SOCKET_CPUS] else K_MOVE_FAR]
    m[l + L_LAST] = number
    m[N_LOCKS] += 1
    m[l + L_TAKEN] += 1


@kernel
def take(m, x, l):
    """Make `x` the owner of a lock that is free, or handed over to it."""
    c = m[x + X_CPU]
    count_taken(m, x, l, m[c + C_NUMBER])
    if m[l + L_KIND] == BIG:
        m[x + X_BIG] += 1
        m[l + L_DEPTH] += 1
        if m[l + L_OWNER] == c:
            return
        m[l + L_OWNER] = c
    else:
        _note_order(m, x, l)
        m[l + L_OWNER] = x
        m[l + L_NEXT] = m[x + X_HELD]
        m[x + X_HELD] = l
        m[x + X_PRIO] = max(m[x + X_PRIO], m[l + L_CEILING])
    m[l + L_SINCE] = m[G_NOW]
    log(m, LOG_TAKE, x, l, 0)


@outlined
def release(m, x, l):
    """Give back a lock, or leave a section. The first waiter owns it from now on."""
    kind = m[l + L_KIND]
    if kind == BIG:
        _drop_big(m, x, l, 1)
    elif kind != SECTION:
        _let_go(m, x, l)
        if m[l + L_INHERIT] or m[l + L_CEILING]:
            _own_priority(m, x)
    exit_section(m, x, m[l + L_MASK], m[l + L_CRIT])


@outlined
def _let_go(m, x, l):
    """Take a lock off the owner's list and hand it on."""
    held = m[x + X_HELD]
    if held == l:
        m[x + X_HELD] = m[l + L_NEXT]
    else:
        while m[held + L_NEXT] != l:
            held = m[held + L_NEXT]
        m[held + L_NEXT] = m[l + L_NEXT]
    m[l + L_HELD_NS] += m[G_NOW] - m[l + L_SINCE]
    m[l + L_OWNER] = -1
    log(m, LOG_RELEASE, x, l, 0)
    hand_over(m, l)


@outlined
def _drop_big(m, x, l, depth):
    """Give back the big lock so many times, and hand it on where that was the last."""
    if unwind_big(m, x, l, depth):
        hand_over(m, l)


@kernel
def unwind_big(m, x, l, depth):
    """Give back the big lock so many times. True: its CPU has it no more."""
    m[x + X_BIG] -= depth
    m[l + L_DEPTH] -= depth
    if m[l + L_DEPTH] != 0:
        return False
    m[l + L_HELD_NS] += m[G_NOW] - m[l + L_SINCE]
    m[l + L_OWNER] = -1
    log(m, LOG_RELEASE, x, l, 0)
    return True


@outlined
def hand_over(m, l):
    """Make the first waiter the owner. The big lock goes to a CPU: all who wait for it there have it now."""
    w = m[l + L_HEAD]
    if w < 0:
        return
    _give(m, l, -1, w)
    if m[l + L_KIND] == BIG and m[m[w + X_CPU] + C_BIG_WAITERS] > 0:
        before, other = -1, m[l + L_HEAD]
        while other >= 0:
            after = m[other + X_LINK]
            if m[other + X_CPU] == m[w + X_CPU]:
                _give(m, l, before, other)
            else:
                before = other
            other = after
    c = m[w + X_CPU]
    top = m[c + C_TOP]
    if m[w + X_STATE] == READY and top >= 0 and m[top + X_STATE] == SPINNING:
        # An owner that cannot run because of one who spins for its lock.
        wanted = m[top + X_WAIT]
        if check(m, top):
            m[top + X_AFTER] = m[top + X_STAGE]
            m[top + X_STAGE] = S_REFUSED
            forget_wait(m, top, wanted)


@kernel
def _give(m, l, before, w):
    """Take waiter `w`, which comes after `before` (-1: the first), out of the queue and make it the owner."""
    _unqueue(m, l, before, w)
    m[m[w + X_CPU] + C_BIG_WAITERS] -= m[l + L_KIND] == BIG
    waited = m[G_NOW] - m[w + X_SINCE]
    m[l + L_WAITED] += 1
    m[l + L_WAIT_NS] += waited
    m[N_CONTENDED] += 1
    m[N_WAIT_NS] += waited
    count_waiters(m, -1)
    observe_ns(m, m[l + L_HIST], waited)
    log(m, LOG_GRANT, w, l, waited)
    take(m, w, l)
    if m[l + L_INHERIT]:
        _own_priority(m, w)
    if m[w + X_STATE] == SPINNING:
        stop_spinning(m, w)
    else:
        wake(m, w)


@kernel
def _unqueue(m, l, before, w):
    """Take a waiter out of a lock's queue."""
    if before < 0:
        m[l + L_HEAD] = m[w + X_LINK]
    else:
        m[before + X_LINK] = m[w + X_LINK]
    if m[l + L_TAIL] == w:
        m[l + L_TAIL] = before


@outlined
def _wait(m, x, l, kind, owner):
    """Queue for a lock that another context, or CPU, holds."""
    sleeps = kind >= SLEEP and kind != BIG
    if kind == ADAPTIVE:
        sleeps = m[owner + X_STATE] != RUNNING
    if kind != BIG and _is_same_process(m, x, owner):
        m[N_SELF] += 1
        note_panic(m, P_SELF)
        log(m, LOG_SELF, x, l, 0)
    if sleeps and not may_sleep(m, x):
        if m[G_WOULD_SLEEP] == W_PANIC:
            exit_section(m, x, m[l + L_MASK], m[l + L_CRIT])
            return REFUSED
        sleeps = m[x + X_KIND] != FAST
    join_queue(m, x, l, kind)
    if m[l + L_INHERIT]:
        _lend(m, owner, m[x + X_PRIO])
    if sleeps:
        log(m, LOG_BLOCK, x, l, owner)
        drop(m, x)
        block(m, x)
    else:
        spin(m, x, l, owner)
    return waits_or_refused(m, x, l)


@kernel
def join_queue(m, x, l, kind):
    """Begin to wait for a lock: last in its queue, or by priority where the lock propagates it."""
    _enqueue(m, x, l)
    m[m[x + X_CPU] + C_BIG_WAITERS] += kind == BIG
    m[x + X_WAIT] = l
    m[x + X_SINCE] = m[G_NOW]
    count_waiters(m, 1)


@kernel
def spin(m, x, l, owner):
    """Wait for a lock on the CPU."""
    log(m, LOG_WAIT, x, l, owner)
    c = m[x + X_CPU]
    charge(m, c)
    m[x + X_SPIN] = 1
    m[x + X_STATE] = SPINNING
    due(m, c, NEVER, 0)


@kernel
def waits_or_refused(m, x, l):
    """Answer to a request that waits now: WAITS, or REFUSED where it closes a circle that is to be broken."""
    holder = waits_for(m, x)
    if holder >= 0 and m[holder + X_STATE] != RUNNING and check(m, x):
        forget_wait(m, x, l)
        return REFUSED
    return WAITS


@outlined
def may_sleep(m, x):
    """Whether `x` may sleep where it stands; where it may not, the attempt is counted and the panic noted."""
    if m[x + X_KIND] == MAIN or (m[x + X_KIND] != FAST and m[G_MODEL] != SPL):
        return True
    m[N_WOULD_SLEEP] += 1
    under = m[x + X_UNDER]
    idle = m[x + X_KIND] != FAST and (under < 0 or m[under + X_STATE] == IDLE)
    note_panic(m, P_IDLE_SLEEP if idle else P_SLEEP)
    log(m, LOG_WOULD_SLEEP, x, 0, 0)
    return False


@outlined
def note_panic(m, panic):
    """Remember the first panic that the engine sees."""
    if m[N_PANICS] == 0:
        m[N_PANIC] = panic
    m[N_PANICS] += 1


@outlined
def drop(m, x):
    """Before `x` sleeps: give back the big lock and its tokens; it takes them again before it goes on."""
    token = m[x + X_HELD]
    while token >= 0 and m[token + L_KIND] != TOKEN:
        token = m[token + L_NEXT]
    big, below = m[x + X_BIG], _big_below(m, x)
    if big + below == 0 and token < 0:
        return
    m[x + X_AFTER] = m[x + X_STAGE]
    m[x + X_STAGE] = S_AGAIN
    m[x + X_TOKEN] = token
    m[x + X_DROPPED] = big + below
    m[x + X_BELOW] = below
    if big + below:
        m[x + X_BIG] += below
        _drop_big(m, x, m[G_LOCK0], big + below)
    if token >= 0:
        _let_go(m, x, token)


@outlined
def _big_below(m, x):
    """Depth of the big lock that the stack has on which a handler runs: where it sleeps, the whole process does."""
    depth = 0
    under = m[x + X_UNDER] if m[G_MODEL] == SPL and m[x + X_KIND] != MAIN else -1
    while under >= 0 and m[under + X_STATE] != IDLE:
        depth += m[under + X_BIG]
        under = m[under + X_UNDER] if m[under + X_KIND] != MAIN else -1
    return depth


@outlined
def forget_wait(m, x, l):
    """Take `x` out of a lock's queue: its request is refused to break a deadlock."""
    before = -1
    w = m[l + L_HEAD]
    while w != x:
        before = w
        w = m[w + X_LINK]
    _unqueue(m, l, before, x)
    m[m[x + X_CPU] + C_BIG_WAITERS] -= m[l + L_KIND] == BIG
    count_waiters(m, -1)
    exit_section(m, x, m[l + L_MASK], m[l + L_CRIT])
    wake(m, x)


@outlined
def _is_same_process(m, x, owner):
    """Whether lockmgr takes the two for one: the owner itself, or a handler on the owner's stack (it compares pids)."""
    if x == owner:
        return True
    if m[G_MODEL] != SPL or m[x + X_KIND] == FAST:
        return False
    under = x
    while under >= 0 and m[under + X_KIND] != MAIN:
        under = m[under + X_UNDER]
        if under == owner:
            return True
    return False


@kernel
def _enqueue(m, x, l):
    """Last in the queue; by priority where the lock propagates it."""
    before = m[l + L_TAIL]
    if m[l + L_INHERIT]:
        before = -1
        w = m[l + L_HEAD]
        while w >= 0 and m[w + X_PRIO] >= m[x + X_PRIO]:
            before = w
            w = m[w + X_LINK]
    if before < 0:
        m[x + X_LINK] = m[l + L_HEAD]
        m[l + L_HEAD] = x
    else:
        m[x + X_LINK] = m[before + X_LINK]
        m[before + X_LINK] = x
    if m[x + X_LINK] < 0:
        m[l + L_TAIL] = x


@outlined
def _lend(m, owner, prio):
    """Raise the priority of an owner, and of whoever it waits for in turn."""
    while owner >= 0 and m[owner + X_PRIO] < prio:
        m[owner + X_PRIO] = prio
        if m[owner + X_STATE] == READY:
            _requeue(m, owner)
        wanted = m[owner + X_WAIT]
        if wanted < 0 or not m[wanted + L_INHERIT]:
            return
        owner = m[wanted + L_OWNER]


@outlined
def _requeue(m, x):
    """Put a ready context where its new priority belongs."""
    c = m[x + X_CPU]
    before = -1
    r = m[c + C_READY]
    while r != x:
        before = r
        r = m[r + X_READY]
    if before < 0:
        m[c + C_READY] = m[x + X_READY]
    else:
        m[before + X_READY] = m[x + X_READY]
    queue_ready(m, x)
    reconsider(m, c)


@outlined
def _own_priority(m, x):
    """Priority of a context from its own, the ceilings of its locks and those who wait for them."""
    prio = m[x + X_BASE]
    l = m[x + X_HELD]
    while l >= 0:
        prio = max(prio, m[l + L_CEILING])
        if m[l + L_INHERIT] and m[l + L_HEAD] >= 0:
            prio = max(prio, m[m[l + L_HEAD] + X_PRIO])
        l = m[l + L_NEXT]
    lowered = prio < m[x + X_PRIO]
    m[x + X_PRIO] = prio
    c = m[x + X_CPU]
    if lowered and m[c + C_TOP] == x and m[c + C_READY] >= 0:
        reconsider(m, c)


@outlined
def _note_order(m, x, l):
    """Count a pair of lock classes that is now taken in the other order for the first time (FreeBSD's witness)."""
    b = m[l + L_CLASS]
    held = m[x + X_HELD]
    while held >= 0:
        a = m[held + L_CLASS]
        ab = m[G_ORDER] + a * m[G_CLASSES] + b
        if a != b and not m[ab]:
            m[ab] = 1
            m[N_REVERSALS] += m[m[G_ORDER] + b * m[G_CLASSES] + a]
        held = m[held + L_NEXT]


@kernel
def count_waiters(m, change):
    """Keep the integral of the number of waiting contexts (for Little's law)."""
    m[N_WAIT_AREA] += m[N_WAITING] * (m[G_NOW] - m[N_WAIT_AT])
    m[N_WAIT_AT] = m[G_NOW]
    m[N_WAITING] += change
