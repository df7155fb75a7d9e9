"""The big lock (Giant, the MP lock) on its short way: most operations find it free, or have it already.

It belongs to a CPU, closes no section and lends no priority, so that much of `locks` need not be asked.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory
from kmemexp.sim.engine.locks import wait_big, waits_or_refused
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.machine import LOG_TAKE
from kmemexp.sim.engine.ownership import count_taken, hand_over, unwind_big
from kmemexp.sim.engine.queues import join_queue
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock


@kernel
def took_big(m: Memory, x: Ctx) -> bool:
    """Take the big lock where nobody else has it, or go on with it where `x` has it. False: `acquire` it."""
    if m[x + ctx.BIG] > 0:
        return True
    l, c = m[glob.LOCK0], m[x + ctx.CPU]
    if m[l + lock.OWNER] >= 0 and m[l + lock.OWNER] != c:
        return False
    if m[l + lock.OWNER] < 0:
        m[l + lock.SINCE] = m[glob.NOW]
        m[l + lock.OWNER] = c
        log(m, x, LOG_TAKE, l, 0)
    m[l + lock.DEPTH] += 1
    m[x + ctx.BIG] = 1
    count_taken(m, x, l, m[c + cpu.NUMBER])
    return True


@kernel
def gave_big(m: Memory, x: Ctx) -> bool:
    """Give the big lock back where nobody waits for it. False: `pass_big` it on."""
    l = m[glob.LOCK0]
    if m[l + lock.HEAD] >= 0 or m[x + ctx.BIG] != 1:
        return False
    unwind_big(m, x, l, 1)
    return True


@outlined
def wait_for_big(m: Memory, x: Ctx, stage: int) -> int:
    """Wait for the big lock, which another CPU has: what `acquire` comes to after `took_big`, but shorter."""
    l = m[glob.LOCK0]
    m[x + ctx.STAGE] = stage
    join_queue(m, x, l, lock.BIG)
    wait_big(m, x, l)
    return waits_or_refused(m, x, l)


@outlined
def pass_big(m: Memory, x: Ctx) -> None:
    """Give the big lock back where others wait for it: what `release` comes to, but shorter."""
    l = m[glob.LOCK0]
    if unwind_big(m, x, l, 1):
        hand_over(m, l)
