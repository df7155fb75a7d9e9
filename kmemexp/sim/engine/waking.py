"""Waking: what contexts waited for has come, and they go on where they spin, or when their turn on the CPU comes."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory, Ns
from kmemexp.sim.engine import costs
from kmemexp.sim.engine.contexts import (
    FIRST,
    NOTHING,
    READY,
    RUNNING,
    SPINNING,
    charge,
    look_again,
    queue_ready,
    reconsider,
)
from kmemexp.sim.engine.heap import due
from kmemexp.sim.engine.tables import cpu, ctx, glob, stage


@kernel
def stop_spinning(m: Memory, x: Ctx) -> None:
    """What `x` spun for has come."""
    c = m[x + ctx.CPU]
    charge(m, c)
    m[x + ctx.WAIT] = NOTHING
    m[x + ctx.STAGE] &= stage.RETRY - 1
    m[x + ctx.SPIN] = 0
    m[x + ctx.STATE] = RUNNING
    due(m, c, m[glob.NOW], FIRST)


@kernel
def wake(m: Memory, x: Ctx) -> None:
    """What `x` waited for has come: it goes on where it spins, or becomes ready and needs a full switch."""
    wake_after(m, x, m[costs.SWITCH])


@outlined
def wake_after(m: Memory, x: Ctx, switch: Ns) -> None:
    """`wake`, where switching to `x` takes so long."""
    if m[x + ctx.STATE] == SPINNING:
        stop_spinning(m, x)
        return
    m[x + ctx.WAIT] = NOTHING
    m[x + ctx.STAGE] &= stage.RETRY - 1
    if m[x + ctx.SPIN]:
        m[x + ctx.SPIN] = 0  # preempted: it goes on when its CPU comes back to it
        return
    make_ready(m, x, switch)


@outlined
def make_ready(m: Memory, x: Ctx, switch: Ns) -> None:
    """Let `x`, which had left its CPU, run when its turn comes; switching to it takes so long."""
    c = m[x + ctx.CPU]
    m[x + ctx.EXTRA] += switch
    queue_ready(m, x)
    reconsider(m, c)
    top = m[c + cpu.TOP]
    if m[x + ctx.STATE] == READY and top >= 0 and m[top + ctx.STATE] == SPINNING:
        look_again(m, top)  # perhaps it spins for what `x` has, and keeps it from its CPU


@outlined
def wake_all(m: Memory, head: int) -> None:
    """Wake all of the list of contexts that begins at `head`, which is empty then."""
    x = m[head]
    m[head] = -1
    while x >= 0:
        after = m[x + ctx.LINK]
        wake(m, x)
        x = after
