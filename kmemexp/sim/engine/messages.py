"""Messages between CPUs: an operation goes on elsewhere, and the handler that takes it up there.

A message interrupts the CPU that it goes to, or is *passive* (DragonFly from 2005 to 2010, sys/kern/lwkt_ipiq.c,
lwkt_send_ipiq3_passive()): it lies in the ring from its sender until that CPU looks, at its next tick or when another
message interrupts it; where more than half of the ring's 16 places are taken, it is interrupted. Ticks are those of
hz=100, at the same instants on all CPUs, whatever interrupts the configuration has. Where a message takes no time
(cost=zero) none waits. Left out: the sender's wait until a quarter is left, in which it takes messages itself; looking
costs an interrupt of its own.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Cpu, Ctx, Memory, Ns, Registers
from kmemexp.sim.engine.contexts import FIRST
from kmemexp.sim.engine.heap import KEY, alarm, due
from kmemexp.sim.engine.interrupts import handled
from kmemexp.sim.engine.machine import E_GROW
from kmemexp.sim.engine.shootdown import serve
from kmemexp.sim.engine.tables import cpu, ctx, glob, msg, seen
from kmemexp.sim.tables import flag, regs

TICK = 10_000_000  # ns: hz is 100
HALF = 8  # of a ring, MAXCPUFIFO / 2
NO_ROOM, STORED, SIGNALLED = range(3)
"""What became of a message: rows are used up; it lies in a ring; the other CPU is interrupted."""


@kernel
def send(m: Memory, reg: Registers, x: Ctx, delay: int) -> int:
    """Let another CPU go on with the operation of context `x`. Returns what became of the message."""
    row = m[glob.MSG_FREE]
    if row < 0:
        m[glob.EXIT] = E_GROW
        due(m, m[x + ctx.CPU], m[glob.NOW], FIRST)
        return NO_ROOM
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
    m[row + msg.SENDER] = m[x + ctx.CPU]
    waits = m[glob.PASSIVE] == 1 and _in_ring(m, c, m[x + ctx.CPU]) <= HALF
    heard, handler = _heard(m, m[row + msg.AT], waits), m[glob.IPI0] + target * ctx.COLUMNS
    if m[c + cpu.MSG_HEAD] < 0:
        m[c + cpu.MSG_HEAD] = row
        alarm(m, handler, heard, FIRST)
    else:
        m[m[c + cpu.MSG_TAIL] + msg.NEXT] = row
        if not waits and heard < m[handler + KEY] and m[glob.PASSIVE] == 1:
            alarm(m, handler, heard, FIRST)
    m[c + cpu.MSG_TAIL] = row
    return STORED if waits else SIGNALLED


@kernel
def _in_ring(m: Memory, c: Cpu, sender: Cpu) -> int:
    """Messages from one CPU that another one has not taken up yet."""
    n, row = 0, m[c + cpu.MSG_HEAD]
    while row >= 0:
        n += m[row + msg.SENDER] == sender
        row = m[row + msg.NEXT]
    return n


@kernel
def _heard(m: Memory, at: Ns, waits: bool) -> int:
    """When a CPU looks at a message that arrives at `at`: at once, or at its next tick."""
    return max((m[glob.NOW] // TICK + 1) * TICK, at) if waits else at


@outlined
def next_message(m: Memory, reg: Registers, x: Ctx) -> bool:
    """Take the next message that has arrived, or end the handler."""
    c = m[x + ctx.CPU]
    if (m[c + cpu.SERVING] or m[c + cpu.SHOT]) and serve(m, x):
        return False
    row = m[c + cpu.MSG_HEAD]
    if row < 0 or m[row + msg.AT] > m[glob.NOW]:
        if row >= 0:
            alarm(m, x, _heard(m, m[row + msg.AT], m[glob.PASSIVE] == 1), FIRST)
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
