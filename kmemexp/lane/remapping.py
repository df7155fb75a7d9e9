"""Moving ranges with a clock: what `lane/moving.py` does between two operations, done by a daemon, at its price.

Each `move_s` / STEPS seconds the lane stops and this looks where the daemon stands. It chooses ranges to move and
writes an allocation for each into the daemon's program; when the daemon has done them, each range and its new place
change addresses, and the program becomes frees of the old places. So a move takes the map's lock twice, a search, the
entering of its pages, their removal, and a shootdown, like any other allocation and free, and others wait for it. A
range that has gone meanwhile, or is just being freed, or whose new place is no better, keeps its address: then the new
place goes.

Left out: that a remap keeps its physical pages (here new ones are taken, before the old ones go back); copying, for
nothing is copied.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kmemexp.boot.tasks import MOVER
from kmemexp.boot.timed import Timed
from kmemexp.jit import entry
from kmemexp.lane.moving import is_better, lie_in, look
from kmemexp.sim.engine import programs as pg
from kmemexp.sim.engine.interpreter import being_freed
from kmemexp.sim.engine.tables import ctx, glob, prog, src
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.sim.tables import flag, obj, tally

CHOOSING, TAKING, GIVING = range(3)
ALIKE = [obj.KIND, obj.SIZE]


class Remapper:
    """Moves ranges of a lane with a clock, a batch at a time."""

    def __init__(self, t: Timed, policy: Mapping[str, Any]) -> None:
        source = t.wired.table("sources")[t.wired.names.sources.index(MOVER)]
        self._daemon = int(source[src.FIRST])
        at, _, columns = t.wired.shape["programs"]
        self._first = (int(t.wired.m[self._daemon + ctx.PROG]) - at) // columns + 2  # behind "sleep" and "watch"
        self._awaits = int(t.wired.m[self._daemon + ctx.PROG]) + columns  # where the daemon stands while it sleeps
        self._queue = int(t.wired.table("programs")[self._first, pg.PC_1])  # a "free" stands there at first
        self._budget = int(policy["moves"])
        self._kinds = np.flatnonzero([name in policy["movable"] for name in t.base.kinds])
        self._pages = t.base.superpage_bytes >> PAGE_SHIFT
        self._used = np.zeros(0, np.int64)  # pages in use of each superpage, when this batch was chosen
        self._chosen: list[tuple[int, int, int]] = []  # row, address and superpage of what is to be moved
        self._doing = CHOOSING
        self._write(t, [])

    def look(self, t: Timed) -> None:
        """Go on with the batch, if the daemon has done what it was told. `t` has stopped between two events."""
        if t.wired.m[glob.SHORT] or t.wired.m[self._daemon + ctx.PC] != self._awaits:
            return
        if self._doing == TAKING:
            self._exchange(t)
        elif self._doing == GIVING:
            self._doing = CHOOSING
        if self._doing == CHOOSING:
            self._choose(t)

    def _choose(self, t: Timed) -> None:
        """Let the daemon take a new place for each range of the emptiest superpages, as far as the budget goes."""
        machine = t.base._replace(world=t.world)
        objects = t.world.objects
        rows, self._used, sparse = look(machine, self._kinds)
        self._chosen = []
        for superpage in sparse:
            mine = rows[lie_in(objects, rows, superpage, self._pages)].tolist()
            if len(self._chosen) + len(mine) <= self._budget:
                self._chosen += [(row, int(objects[row, obj.ADDR]), superpage) for row in mine]
        if self._chosen:
            asked = objects[[row for row, _, _ in self._chosen]][:, ALIKE].tolist()
            self._write(t, [[prog.ALLOC, kind, size, flag.NOWAIT, self._queue] for kind, size in asked])
            self._doing = TAKING

    def _exchange(self, t: Timed) -> None:
        """Give ranges their new places, and let the daemon free what is left over: the old places, as a rule."""
        objects = t.world.objects
        queue = t.wired.m[self._queue : self._queue + pg.Q_ROWS + t.wired.m[glob.QUEUE]]
        n = int(queue[pg.Q_LENGTH])
        places = np.roll(queue[pg.Q_ROWS :], -int(queue[pg.Q_FIRST]))[:n].tolist()
        for row, addr, superpage in self._chosen:
            alike = [s for s in places if (objects[s, ALIKE] == objects[row, ALIKE]).all()]
            gone = objects[row, obj.ADDR] != addr or entry(being_freed)(t.wired.m, row)
            if not alike or gone or not is_better(objects, alike[0], superpage, self._used, self._pages):
                continue
            places.remove(alike[0])
            objects[[row, alike[0]], obj.ADDR] = objects[[alike[0], row], obj.ADDR]
            t.world.counters[tally.MOVES] += 1
            t.world.counters[tally.MOVED] += objects[row, obj.SIZE]
        self._write(t, [[prog.FREE, self._queue, 0, 0, 0]] * n)
        self._doing = GIVING

    def _write(self, t: Timed, items: list[list[int]]) -> None:
        """Put items into the daemon's program, behind them others that take no time, and let it go on."""
        program = t.wired.table("programs")[self._first : self._first + self._budget]
        program[:, : pg.PC_END] = [prog.WORK, pg.FIXED, 0, 0, 0]
        if items:
            program[: len(items), : pg.PC_END] = items
        t.wired.m[glob.SHORT] = bool(items)
