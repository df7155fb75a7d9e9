"""The engine's log: the last events of a run, for those who ask how something came about."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Ctx, Memory
from kmemexp.sim.engine.machine import LOG_COUNT
from kmemexp.sim.engine.tables import glob


@kernel
def log(m: Memory, x: Ctx, event: int, a: int, b: int) -> None:
    """Write an event to the log, where there is one."""
    if m[glob.LOG_ROWS] > 0:
        _write(m, x, event, a, b)


@outlined
def _write(m: Memory, x: Ctx, event: int, a: int, b: int) -> None:
    row = m[glob.LOG0] + m[glob.LOG] % m[glob.LOG_ROWS] * LOG_COUNT
    m[row] = m[glob.NOW]
    m[row + 1] = event
    m[row + 2] = x
    m[row + 3] = a
    m[row + 4] = b
    m[glob.LOG] += 1
