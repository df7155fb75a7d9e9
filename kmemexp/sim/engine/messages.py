"""Messages between CPUs: an operation goes on elsewhere, and the handler that takes it up there."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory, Registers
from kmemexp.sim.engine.contexts import FIRST
from kmemexp.sim.engine.heap import alarm, due
from kmemexp.sim.engine.interrupts import handled
from kmemexp.sim.engine.machine import E_GROW
from kmemexp.sim.engine.shootdown import serve
from kmemexp.sim.engine.tables import cpu, ctx, glob, msg, seen
from kmemexp.sim.tables import flag, regs


@kernel
def send(m: Memory, reg: Registers, x: Ctx, delay: int) -> bool:
    """Let another CPU go on with the operation of context `x`. False: there is no room for another message."""
    row = m[glob.MSG_FREE]
    if row < 0:
        m[glob.EXIT] = E_GROW
        due(m, m[x + ctx.CPU], m[glob.NOW], FIRST)
        return False
    m[glob.MSG_FREE] = m[row + msg.NEXT]
    m[seen.SENT] += 1
    i = m[x + ctx.NUMBER]
    target = reg[i, regs.TARGET]
    c = m[glob.CPU0] + target * cpu.COLUMNS
    m[row + msg.NEXT] = -1
    m[row + msg.AT] = m[glob.NOW] + delay
    m[row + msg.SERVER] = m[x + ctx.SERVER]
    m[row + msg.ITEM] = reg[i, regs.ITEM]
    m[row + msg.ADDR] = reg[i, regs.ADDR]
    m[row + msg.SIZE] = reg[i, regs.SIZE]
    m[row + msg.FLAGS] = reg[i, regs.FLAGS]
    m[row + msg.PHASE] = reg[i, regs.PHASE]
    if m[c + cpu.MSG_HEAD] < 0:
        m[c + cpu.MSG_HEAD] = row
        alarm(m, m[glob.IPI0] + target * ctx.COLUMNS, m[row + msg.AT], FIRST)
    else:
        m[m[c + cpu.MSG_TAIL] + msg.NEXT] = row
    m[c + cpu.MSG_TAIL] = row
    return True


@outlined
def next_message(m: Memory, reg: Registers, x: Ctx) -> bool:
    """Take the next message that has arrived, or end the handler."""
    c = m[x + ctx.CPU]
    if (m[c + cpu.SERVING] or m[c + cpu.SHOT]) and serve(m, x):
        return False
    row = m[c + cpu.MSG_HEAD]
    if row < 0 or m[row + msg.AT] > m[glob.NOW]:
        if row >= 0:
            alarm(m, x, m[row + msg.AT], FIRST)
        handled(m, x)
        return False
    m[c + cpu.MSG_HEAD] = m[row + msg.NEXT]
    m[x + ctx.OP] = -1
    m[x + ctx.ROW] = -1
    m[x + ctx.QUEUE] = -1
    m[x + ctx.BEGAN] = m[row + msg.AT]
    m[x + ctx.FREEING] = 1
    m[m[glob.STEPS] + m[x + ctx.NUMBER]] = 0
    m[x + ctx.SERVER] = m[row + msg.SERVER]
    i = m[x + ctx.NUMBER]
    reg[i, regs.CPU] = m[c + cpu.NUMBER]
    reg[i, regs.ITEM] = m[row + msg.ITEM]
    reg[i, regs.ADDR] = m[row + msg.ADDR]
    reg[i, regs.SIZE] = m[row + msg.SIZE]
    reg[i, regs.FLAGS] = m[row + msg.FLAGS] | flag.HARD
    reg[i, regs.PHASE] = m[row + msg.PHASE]
    reg[i, regs.PANIC] = 0
    reg[i, regs.WAKE] = 0
    reg[i, regs.LOCK] = -1
    m[row + msg.NEXT] = m[glob.MSG_FREE]
    m[glob.MSG_FREE] = row
    return True
