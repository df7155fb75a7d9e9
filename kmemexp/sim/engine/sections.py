"""Sections of steps, and time that a context uses.

A step's lock may be a section alone: an spl level, a critical section, nothing at all. Such a one never waits, so the
step may work first and be put into its section then: it says whether it was in one (regs.BARE).
"""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Ctx, Memory, Ns
from kmemexp.sim.engine.contexts import FIRST, reconsider
from kmemexp.sim.engine.heap import due, passed
from kmemexp.sim.engine.locks import enter, note_section
from kmemexp.sim.engine.machine import LOG_LEAVE
from kmemexp.sim.engine.tables import cpu, ctx, glob, lock, word


@kernel
def burst(m: Memory, x: Ctx, ns: Ns, then: int) -> bool:
    """Let `x` use the CPU for `ns`, then go on in `stage`. False: it goes on at once, nothing happens meanwhile."""
    m[x + ctx.STAGE] = then
    ns += m[x + ctx.EXTRA]
    m[x + ctx.EXTRA] = 0
    if ns <= 0:
        return False
    c = m[x + ctx.CPU]
    if m[c + cpu.SLICE]:
        due(m, c, m[glob.NOW] + ns, FIRST)
        return True
    return not passed(m, c, m[glob.NOW] + ns, FIRST)


@kernel
def entered(m: Memory, x: Ctx) -> None:
    """Enter the section of the step's lock."""
    l = m[x + ctx.LOCK]
    m[x + ctx.HOLDS] |= word.HOLDS_SECTION
    enter(m, x, m[l + lock.MASK], m[l + lock.CRIT])


@kernel
def left(m: Memory, x: Ctx) -> bool:
    """Leave it, if `x` is in it. False: what had waited for that has preempted `x`."""
    if m[x + ctx.HOLDS] & word.HOLDS_SECTION == 0:
        return True
    m[x + ctx.HOLDS] &= ~word.HOLDS_SECTION
    l = m[x + ctx.LOCK]
    mask, critical = m[l + lock.MASK], m[l + lock.CRIT]
    note_section(m, x, LOG_LEAVE, mask, critical)
    if mask:
        m[x + ctx.DEPTH] -= 1
        m[x + ctx.MASK] = m[x + ctx.SAVED + m[x + ctx.DEPTH]]
    m[x + ctx.CRIT] -= critical
    c = m[x + ctx.CPU]
    if m[c + cpu.READY] >= 0 and (mask or critical):
        reconsider(m, c)
        return m[c + cpu.TOP] == x
    return True
