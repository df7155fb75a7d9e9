"""With a clock ranges move too: a daemon takes new places and gives the old ones back, and nothing is lost."""

import json

import numpy as np
import pytest

from kmemexp import api
from kmemexp.lane import surveying
from kmemexp.lane.remapping import Remapper
from kmemexp.lane.replica import prepare
from kmemexp.lane.timed import _moved, booted
from kmemexp.sim.engine.tables import glob
from kmemexp.sim.tables import obj, tally
from kmemexp.workload.stream import OP_ALLOC, OP_FREE, Stream

SUPERPAGE = 4 << 20
PIPES = 900  # of 16 KiB, 256 to a superpage
PIPE = 16384
EARLY, LATE = 1_000_000_000, 6_000_000_000  # ns: when most pipes go, and when the others do
POLICY = ("policy.movable=[pipe_buffer]", "policy.move_s=1", "policy.moves=64")


def prepared():
    (plan,) = api.plan(["design=mail2003_bare", "cost=opteron2003", "workload=server2003", "machine.cpus=2", *POLICY])
    (replica,) = prepare(json.loads(plan.cells["config"].iloc[0]), [0])
    return replica


def piped(replica, early):
    """The replica with another load: pipe buffers, of which `early` go after a second, and the others later."""
    late = np.setdiff1d(np.arange(PIPES), early)
    slots = np.concatenate([np.arange(PIPES), early, late])
    time = np.concatenate([np.arange(PIPES) * 100_000, EARLY + np.arange(len(early)) * 100_000,
                           LATE + np.arange(len(late)) * 100_000])  # fmt: skip
    n = len(slots)
    stream = Stream(
        time.astype(np.int64),
        np.repeat(np.array([OP_ALLOC, OP_FREE], np.uint8), PIPES),
        np.full(n, replica.kinds.names.index("pipe_buffer"), np.int16),
        slots.astype(np.int32),
        np.repeat(np.array([PIPE, 0], np.int32), PIPES),
        np.zeros(n, np.int16),
        np.zeros(n, np.uint8),
        slots=PIPES,
    )
    return replica._replace(stream=stream)


class Lane:
    """A lane on which it is seen to the moves of ranges."""

    def __init__(self, replica):
        self.t, self.policy = booted(replica), replica.config["policy"]
        self.mover = Remapper(self.t, self.policy)

    def until(self, ns):
        self.t = _moved(self.t, self.mover, self.policy, ns)

    def where(self):
        """Superpage of each pipe, by slot; -1 where there is none."""
        objects, kind = self.t.world.objects, self.t.base.kinds.index("pipe_buffer")
        rows = np.flatnonzero((objects[:, obj.KIND] == kind) & (objects[:, obj.ADDR] >= 0))
        return np.sort(objects[rows, obj.ADDR])

    def superpages(self):
        machine = self.t.base._replace(world=self.t.world)
        return surveying.free_superpages(machine)


@pytest.fixture(scope="module")
def sparse():
    """A lane whose last full superpage keeps ten pipes, with room for them below; and which superpage that is."""
    replica = prepared()
    trial = Lane(piped(replica, np.arange(0)))
    trial.until(EARLY // 2)
    where = trial.where() // SUPERPAGE  # first fit: by address is by slot
    last, before = (int(n) for n in np.unique(where)[[-2, -3]])
    gone = np.flatnonzero((where == last) | (where > last))[10:]
    early = np.unique(np.concatenate([gone, np.flatnonzero(where == before)[::2]]))
    lane = Lane(piped(replica, early))
    lane.until(EARLY // 2)
    return lane, last, PIPES - len(early)


def test_ranges_leave_a_nearly_empty_superpage_and_nothing_is_lost(sparse):
    lane, last, left = sparse
    counters = lane.t.world.counters
    assert counters[tally.MOVES] == 0
    lane.until(5_000_000_000)
    at = lane.where()
    assert (counters[tally.MOVES], counters[tally.MOVED]) == (10, 10 * PIPE)
    assert not (at // SUPERPAGE == last).any()
    assert len(at) == left
    assert (np.diff(at) >= PIPE).all(), "two ranges at the same place"
    assert lane.t.wired.m[glob.SHORT] == 0
    free = lane.superpages()
    lane.until(LATE + EARLY)
    assert len(lane.where()) == 0
    assert counters[tally.DIRECT] == 0
    assert lane.superpages() > free
