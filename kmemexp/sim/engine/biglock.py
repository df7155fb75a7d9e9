"""The big lock (Giant, the MP lock) on its short way: most operations find it free, or have it already."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.engine.contexts import (
    C_BIG_WAITERS,
    C_NUMBER,
    RUNNING,
    SPINNING,
    X_BIG,
    X_CPU,
    X_LINK,
    X_SINCE,
    X_SPIN,
    X_STAGE,
    X_STATE,
    X_WAIT,
    charge,
    log,
)
from kmemexp.sim.engine.heap import NEVER, due
from kmemexp.sim.engine.locks import REFUSED, WAITS, count_taken, count_waiters, forget_wait, hand_over, release
from kmemexp.sim.engine.machine import (
    G_LOCK0,
    G_NOW,
    L_DEPTH,
    L_HEAD,
    L_HELD_NS,
    L_OWNER,
    L_SINCE,
    L_TAIL,
    LOG_RELEASE,
    LOG_TAKE,
    LOG_WAIT,
)
from kmemexp.sim.engine.waitgraph import check, waits_for


@kernel
def took_big(m, x):
    """Take the big lock where nobody else has it, or go on with it where `x` has it. False: `acquire` it."""
    if m[x + X_BIG] > 0:
        return True
    l, c = m[G_LOCK0], m[x + X_CPU]
    if m[l + L_OWNER] >= 0 and m[l + L_OWNER] != c:
        return False
    if m[l + L_OWNER] < 0:
        m[l + L_SINCE] = m[G_NOW]
        m[l + L_OWNER] = c
        log(m, LOG_TAKE, x, l, 0)
    m[l + L_DEPTH] += 1
    m[x + X_BIG] = 1
    count_taken(m, x, l, m[c + C_NUMBER])
    return True


@kernel
def gave_big(m, x):
    """Give the big lock back where nobody waits for it. False: `release` it."""
    l = m[G_LOCK0]
    if m[l + L_HEAD] >= 0 or m[x + X_BIG] != 1:
        return False
    m[x + X_BIG] = 0
    m[l + L_DEPTH] -= 1
    if m[l + L_DEPTH] == 0:
        m[l + L_HELD_NS] += m[G_NOW] - m[l + L_SINCE]
        m[l + L_OWNER] = -1
        log(m, LOG_RELEASE, x, l, 0)
    return True


@outlined
def wait_for_big(m, x, stage):
    """Spin for the big lock, which another CPU has: what `acquire` comes to after `took_big`, but shorter."""
    l, c = m[G_LOCK0], m[x + X_CPU]
    m[x + X_STAGE] = stage
    m[x + X_LINK] = -1
    tail = m[l + L_TAIL]
    if tail < 0:
        m[l + L_HEAD] = x
    else:
        m[tail + X_LINK] = x
    m[l + L_TAIL] = x
    m[c + C_BIG_WAITERS] += 1
    m[x + X_WAIT] = l
    m[x + X_SINCE] = m[G_NOW]
    count_waiters(m, 1)
    log(m, LOG_WAIT, x, l, m[l + L_OWNER])
    charge(m, c)
    m[x + X_SPIN] = 1
    m[x + X_STATE] = SPINNING
    due(m, c, NEVER, 0)
    holder = waits_for(m, x)
    if holder >= 0 and m[holder + X_STATE] != RUNNING and check(m, x):
        forget_wait(m, x, l)
        return REFUSED
    return WAITS


@outlined
def pass_big(m, x):
    """Give the big lock back where others wait for it."""
    l = m[G_LOCK0]
    if m[x + X_BIG] != 1:
        release(m, x, l)
        return
    m[x + X_BIG] = 0
    m[l + L_DEPTH] -= 1
    if m[l + L_DEPTH] == 0:
        m[l + L_HELD_NS] += m[G_NOW] - m[l + L_SINCE]
        m[l + L_OWNER] = -1
        log(m, LOG_RELEASE, x, l, 0)
        hand_over(m, l)
