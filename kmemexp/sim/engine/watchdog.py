"""The watchdog: CPUs that are busy and get nowhere.

It looks at all CPUs at the first event after each interval, and where a sample is taken. A CPU that was never idle
since it last looked, on which no mainline thread ran, and which spun all the time or keeps a mainline thread from
running, makes no progress: it spins for what never comes, or interrupts take all of its time (receive livelock; Mogul
and Ramakrishnan 1997). Circles are found elsewhere, when they close (`waitgraph`).
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Cpu, Memory
from kmemexp.sim.engine.contexts import BLOCKED, IDLE, charge
from kmemexp.sim.engine.machine import MAIN
from kmemexp.sim.engine.tables import cpu, ctx, glob
from kmemexp.sim.engine.waitgraph import STALL, note

INTERVAL_NS = 100_000_000


@kernel
def horizon(m: Memory, until: int) -> int:
    """Time up to which neither the watchdog looks nor the engine returns."""
    return min(until, m[glob.WATCHED] + INTERVAL_NS - 1)


@outlined
def watch(m: Memory) -> None:
    """Look at all CPUs; count those that have made no progress since the last time, each once, with a witness."""
    since = m[glob.NOW] - m[glob.WATCHED]
    if since < INTERVAL_NS:
        return
    m[glob.WATCHED] = m[glob.NOW]
    for number in range(m[glob.CPUS]):
        c = m[glob.CPU0] + number * cpu.COLUMNS
        charge(m, c)
        idle, ran, spun = (
            m[c + cpu.TIME + cpu.TIME_IDLE],
            m[c + cpu.TIME + cpu.TIME_MAIN],
            m[c + cpu.TIME + cpu.TIME_SPIN],
        )
        stands = idle == m[c + cpu.WAS] and ran == m[c + cpu.WAS + 1]
        if stands and not m[c + cpu.STALLED] and (spun - m[c + cpu.WAS + 2] == since or _mainline_waits(m, c)):
            m[c + cpu.STALLED] = 1
            m[glob.STALLS] += 1
            if m[glob.STALLS] == 1:
                _witness(m, c)
        m[c + cpu.WAS] = idle
        m[c + cpu.WAS + 1] = ran
        m[c + cpu.WAS + 2] = spun


@outlined
def _mainline_waits(m: Memory, c: Cpu) -> bool:
    """Whether a mainline thread of a CPU could run, if it had the CPU."""
    for number in range(m[glob.CONTEXTS]):
        x = m[glob.CTX0] + number * ctx.COLUMNS
        mine = m[x + ctx.CPU] == c and m[x + ctx.KIND] == MAIN
        if mine and m[x + ctx.STATE] != IDLE and m[x + ctx.STATE] != BLOCKED:
            return True
    return False


@outlined
def _witness(m: Memory, c: Cpu) -> None:
    """Write down what the contexts of a CPU do that are not idle."""
    for number in range(m[glob.CONTEXTS]):
        x = m[glob.CTX0] + number * ctx.COLUMNS
        if m[x + ctx.CPU] == c and m[x + ctx.STATE] != IDLE:
            note(m, x, STALL)
