"""TLB shootdowns: the CPU that asks waits for the answers, and each CPU that is asked loses time.

Who asks is busy for a time that grows with the CPUs asked. A CPU that takes interrupts answers at once: the time of an
interrupt and of its invalidations is cut out of what it runs. One whose interrupts are off, in a fast interrupt, in a
critical section or with interrupts off at the processor (Linux, "irqoff"; an spl level of BSD is no such), answers when
they are on again, and who asked waits for it. Who spins or waits for answers itself takes the message meanwhile, and
loses nothing; nor does a CPU that is idle.

Sources: FreeBSD 5 sys/i386/i386/mp_machdep.c (smp_tlb_shootdown: waits until all have counted themselves); DragonFly
sys/i386/i386/pmap_inval.c and lwkt_ipiq.c (lwkt_cpusync: a critical section holds messages off, who waits takes them);
Linux kernel/smp.c (smp_call_function_many_cond). What a CPU does is looked at when it is asked, not when the message
arrives. A range is one question, however long; so is a list of invalidations of DragonFly's, which pmap_remove() fills
and then flushes (pmap_inval.c 1.3, July 2004). Left out: that such a list holds the CPUs asked from its first page to
its flush, and makes of two pages or more a flush of the whole TLB; FreeBSD 4, which did not wait; CPUs that Linux
spares because they are idle.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Cpu, Ctx, Memory, Ns
from kmemexp.sim.engine import costs
from kmemexp.sim.engine.contexts import ANSWER, FIRST, IDLE, RUNNING, SPINNING, charge
from kmemexp.sim.engine.heap import NEVER, due
from kmemexp.sim.engine.interrupts import arrive
from kmemexp.sim.engine.machine import FAST
from kmemexp.sim.engine.tables import cpu, ctx, glob, seen
from kmemexp.sim.engine.waitgraph import check
from kmemexp.sim.engine.waking import wake, wake_all


@kernel
def shot_down(m: Memory, x: Ctx, flushes: int, pages: int) -> Ns:
    """Let the other CPUs flush their TLBs. Returns ns that `x` needs for it."""
    ns = (m[costs.SHOOTDOWN] + m[costs.SHOOTDOWN_PAGE] * pages) if flushes else 0
    if ns > 0:
        m[seen.SHOOTDOWNS] += 1
        _ask(m, x)
    return ns


@outlined
def _ask(m: Memory, x: Ctx) -> None:
    """Ask every other CPU."""
    own = m[x + ctx.CPU]
    loss = m[costs.INTERRUPT] + m[costs.SHOOTDOWN_ANSWER]
    m[glob.SHOTS] += 1
    m[x + ctx.SHOT] = m[glob.SHOTS]
    if m[own + cpu.SHOT]:
        m[own + cpu.SHOT] = 0
        m[x + ctx.EXTRA] += loss
        wake_all(m, own + cpu.ASKERS)
    late = 0
    for number in range(m[glob.CPUS]):
        c = m[glob.CPU0] + number * cpu.COLUMNS
        top = m[c + cpu.TOP]
        if top < 0 or c == own:
            continue
        state = m[top + ctx.STATE]
        if state == IDLE or (state == SPINNING and m[top + ctx.KIND] != FAST) or m[top + ctx.SHOT]:
            continue
        if state == RUNNING and m[top + ctx.CRIT] == 0 and m[top + ctx.KIND] != FAST:
            m[c + cpu.CUT] += loss
            m[c + cpu.STOLEN] += loss
        else:
            late += 1
            if m[c + cpu.SHOT] == 0:
                m[c + cpu.SHOT] = m[glob.SHOTS]
            handler = m[glob.IPI0] + number * ctx.COLUMNS
            if m[handler + ctx.STATE] == IDLE:
                arrive(m, handler, m[glob.NOW])
    m[x + ctx.LATE] += late  # a map step may ask twice before it waits


@kernel
def _owes(m: Memory, c: Cpu, shot: int) -> bool:
    """Whether a CPU has yet to answer a shootdown."""
    return (0 < m[c + cpu.SHOT] <= shot) or (0 < m[c + cpu.SERVING] <= shot)


@outlined
def answered(m: Memory, x: Ctx) -> bool:
    """Whether all have answered the shootdown of `x`; if not, it spins until the next one has."""
    for number in range(m[glob.CPUS] if m[x + ctx.LATE] else 0):
        c = m[glob.CPU0] + number * cpu.COLUMNS
        if _owes(m, c, m[x + ctx.SHOT]):
            own = m[x + ctx.CPU]
            charge(m, own)
            m[x + ctx.LINK] = m[c + cpu.ASKERS]
            m[c + cpu.ASKERS] = x
            m[x + ctx.WAIT] = ANSWER
            m[x + ctx.AWAITED] = c
            m[x + ctx.SINCE] = m[glob.NOW]
            m[x + ctx.SPIN] = 1
            m[x + ctx.STATE] = SPINNING
            due(m, own, NEVER, 0)
            if not check(m, x):
                return False
            m[c + cpu.ASKERS] = m[x + ctx.LINK]  # the lane goes on: as if the CPU had answered
            wake(m, x)
            break
    m[x + ctx.SHOT] = 0
    m[x + ctx.LATE] = 0
    return True


@outlined
def serve(m: Memory, x: Ctx) -> bool:
    """The handler of messages `x` answers shootdowns, for a time. False: it has done so."""
    c = m[x + ctx.CPU]
    if m[c + cpu.SERVING]:
        m[c + cpu.SERVING] = 0
        wake_all(m, c + cpu.ASKERS)
    if m[c + cpu.SHOT] == 0:
        return False
    m[c + cpu.SERVING] = m[c + cpu.SHOT]
    m[c + cpu.SHOT] = 0
    due(m, c, m[glob.NOW] + m[costs.SHOOTDOWN_ANSWER], FIRST)
    return True
