"""Waiting for an object: contexts that sleep until somebody frees one, at a limit that may not be passed.

So do objcache_get(), m_clalloc_wait() and UMA's zones (the answer SLEEP). A sleeper stands in the list from the step on
that has sent it there, under that step's lock, so that no free comes between: one that is freed before it sleeps lets
it go on at once. Sleepers are woken first come, first served. A context that must not sleep, and one that would sleep
for ever since nobody is left who could free anything, is told so (flag.NOWAIT), and fails.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory, Registers, Words
from kmemexp.sim.engine import programs
from kmemexp.sim.engine.contexts import OBJECT, OBJECT_FOR, block
from kmemexp.sim.engine.heap import NEVER, alarm
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.machine import FAST, LOG_OBJECT, WOULD_PANIC
from kmemexp.sim.engine.ownership import drop
from kmemexp.sim.engine.sleeping import may_sleep
from kmemexp.sim.engine.tables import ctx, glob, src, stage
from kmemexp.sim.engine.waitgraph import idle_for_ever
from kmemexp.sim.engine.waking import wake
from kmemexp.sim.tables import flag, regs, tally

SERVER_SHIFT = 40
NONE = -1


@outlined
def enlist(m: Memory, reg: Registers, x: Ctx) -> None:
    """Put `x` behind all who wait for an object."""
    m[x + ctx.CHANNEL] = (m[x + ctx.SERVER] << SERVER_SHIFT) | reg[m[x + ctx.NUMBER], regs.CHANNEL]
    m[x + ctx.BEHIND] = NONE
    last = m[glob.WAITERS]
    if last < 0:
        m[glob.WAITERS] = x
        return
    while m[last + ctx.BEHIND] >= 0:
        last = m[last + ctx.BEHIND]
    m[last + ctx.BEHIND] = x


@outlined
def strike_off(m: Memory, x: Ctx) -> None:
    """Take `x` out of the list."""
    at = m[glob.WAITERS]
    if at == x:
        m[glob.WAITERS] = m[x + ctx.BEHIND]
    else:
        while m[at + ctx.BEHIND] != x:
            at = m[at + ctx.BEHIND]
        m[at + ctx.BEHIND] = m[x + ctx.BEHIND]
    m[x + ctx.CHANNEL] = NONE


@outlined
def rouse_sleepers(m: Memory, reg: Registers, x: Ctx) -> None:
    """Let those go on whom the operation of `x` has freed something for."""
    i = m[x + ctx.NUMBER]
    channel = (m[x + ctx.SERVER] << SERVER_SHIFT) | (reg[i, regs.WAKE] - 1)
    most, c = reg[i, regs.WAKES], m[x + ctx.CPU]
    at = m[glob.WAITERS]
    while at >= 0:
        after = m[at + ctx.BEHIND]
        if m[at + ctx.CHANNEL] == channel and (most != regs.WAKE_OWN or m[at + ctx.CPU] == c):
            _call(m, at)
            most -= most > 0
            if most == 0 and reg[i, regs.WAKES] > 0:
                return
        at = after


@kernel
def _call(m: Memory, x: Ctx) -> None:
    """Take `x` out of the list, and wake it if it sleeps already."""
    strike_off(m, x)
    wait = m[x + ctx.WAIT]
    if wait == OBJECT_FOR:
        alarm(m, x, NEVER, x)
    if wait == OBJECT or wait == OBJECT_FOR:
        wake(m, x)


@outlined
def asleep(m: Memory, counters: Words, reg: Registers, x: Ctx) -> bool:
    """Let `x` sleep, unless it need not or must not. False: it has left its CPU."""
    m[x + ctx.STAGE] = stage.LOCK
    if m[x + ctx.CHANNEL] < 0:
        return True
    i = m[x + ctx.NUMBER]
    within = reg[i, regs.WITHIN]
    counters[tally.WAITS] += 1
    # The timer of what has arrivals of its own is set to the next one.
    refused = within > 0 and m[x + ctx.PROG] >= 0 and m[m[x + ctx.SOURCE] + src.LAW] != programs.NONE
    if not may_sleep(m, x):
        refused = refused or m[glob.WOULD_SLEEP] == WOULD_PANIC or m[x + ctx.KIND] == FAST
    if refused:
        strike_off(m, x)
        reg[i, regs.FLAGS] |= flag.NOWAIT | flag.WAITED
        return True
    m[x + ctx.WAIT] = OBJECT_FOR if within else OBJECT
    m[x + ctx.SINCE] = m[glob.NOW]
    log(m, x, LOG_OBJECT, reg[i, regs.CHANNEL], within)
    if within:
        alarm(m, x, m[glob.NOW] + within, x)
    drop(m, x)
    block(m, x)
    if not within and idle_for_ever(m):
        strike_off(m, x)
        reg[i, regs.FLAGS] |= flag.NOWAIT | flag.WAITED
        wake(m, x)
    return False
