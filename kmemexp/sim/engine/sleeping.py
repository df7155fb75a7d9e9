"""Whether a context may sleep where it stands, and the panic of one that may not."""

from kmemexp.jit import outlined
from kmemexp.sim.aliases import Ctx, Memory
from kmemexp.sim.engine.contexts import IDLE
from kmemexp.sim.engine.log import log
from kmemexp.sim.engine.machine import FAST, LOG_WOULD_SLEEP, MAIN, SPL
from kmemexp.sim.engine.tables import ctx, glob, seen
from kmemexp.sim.tables import panics


@outlined
def may_sleep(m: Memory, x: Ctx) -> bool:
    """Whether `x` may sleep where it stands; where it may not, the attempt is counted and the panic noted."""
    if m[x + ctx.KIND] == MAIN or (m[x + ctx.KIND] != FAST and m[glob.MODEL] != SPL):
        return True
    m[seen.WOULD_SLEEP] += 1
    under = m[x + ctx.UNDER]
    idle = m[x + ctx.KIND] != FAST and (under < 0 or m[under + ctx.STATE] == IDLE)
    note_panic(m, panics.IDLE_SLEEP if idle else panics.SLEEP)
    log(m, x, LOG_WOULD_SLEEP, 0, 0)
    return False


@outlined
def note_panic(m: Memory, panic: int) -> None:
    """Remember the first panic that the engine sees."""
    if m[seen.PANICS] == 0:
        m[seen.PANIC] = panic
    m[seen.PANICS] += 1
