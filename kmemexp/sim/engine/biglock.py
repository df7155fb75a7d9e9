"""The big lock (Giant, the MP lock) on its short way: most operations find it free, or have it already.

It belongs to a CPU, closes no section and lends no priority, so that much of `locks` need not be asked.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.engine.contexts import C_NUMBER, X_BIG, X_CPU, X_STAGE, log
from kmemexp.sim.engine.locks import count_taken, hand_over, join_queue, spin, unwind_big, waits_or_refused
from kmemexp.sim.engine.machine import BIG, G_LOCK0, G_NOW, L_DEPTH, L_HEAD, L_OWNER, L_SINCE, LOG_TAKE


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
    """Give the big lock back where nobody waits for it. False: `pass_big` it on."""
    l = m[G_LOCK0]
    if m[l + L_HEAD] >= 0 or m[x + X_BIG] != 1:
        return False
    unwind_big(m, x, l, 1)
    return True


@outlined
def wait_for_big(m, x, stage):
    """Spin for the big lock, which another CPU has: what `acquire` comes to after `took_big`, but shorter."""
    l = m[G_LOCK0]
    m[x + X_STAGE] = stage
    join_queue(m, x, l, BIG)
    spin(m, x, l, m[l + L_OWNER])
    return waits_or_refused(m, x, l)


@outlined
def pass_big(m, x):
    """Give the big lock back where others wait for it: what `release` comes to, but shorter."""
    l = m[G_LOCK0]
    if unwind_big(m, x, l, 1):
        hand_over(m, l)
