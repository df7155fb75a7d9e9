"""Priority inheritance and ceilings: what a context's priority is while it holds locks that others want."""

from kmemexp.jit import outlined
from kmemexp.sim.aliases import Ctx, Memory
from kmemexp.sim.engine.contexts import READY, queue_ready, reconsider
from kmemexp.sim.engine.queues import enqueue, remove
from kmemexp.sim.engine.tables import cpu, ctx, lock


@outlined
def lend(m: Memory, owner: Ctx, prio: int) -> None:
    """Raise the priority of an owner, and of the owner that it waits for in turn, in whose queue it moves forward."""
    while owner >= 0 and m[owner + ctx.PRIO] < prio:
        m[owner + ctx.PRIO] = prio
        if m[owner + ctx.STATE] == READY:
            _requeue(m, owner)
        wanted = m[owner + ctx.WAIT]
        if wanted < 0 or not m[wanted + lock.INHERIT]:
            return
        remove(m, owner, wanted)
        enqueue(m, owner, wanted)
        owner = m[wanted + lock.OWNER]


@outlined
def _requeue(m: Memory, x: Ctx) -> None:
    """Put a ready context where its new priority belongs."""
    c = m[x + ctx.CPU]
    before = -1
    r = m[c + cpu.READY]
    while r != x:
        before = r
        r = m[r + ctx.READY]
    if before < 0:
        m[c + cpu.READY] = m[x + ctx.READY]
    else:
        m[before + ctx.READY] = m[x + ctx.READY]
    queue_ready(m, x)
    reconsider(m, c)


@outlined
def own_priority(m: Memory, x: Ctx) -> None:
    """Priority of a context from its own, the ceilings of its locks and those who wait for them."""
    prio = m[x + ctx.BASE]
    l = m[x + ctx.HELD]
    while l >= 0:
        prio = max(prio, m[l + lock.CEILING])
        if m[l + lock.INHERIT] and m[l + lock.HEAD] >= 0:
            prio = max(prio, m[m[l + lock.HEAD] + ctx.PRIO])
        l = m[l + lock.NEXT]
    lowered = prio < m[x + ctx.PRIO]
    m[x + ctx.PRIO] = prio
    c = m[x + ctx.CPU]
    if lowered and m[c + cpu.TOP] == x and m[c + cpu.READY] >= 0:
        reconsider(m, c)
