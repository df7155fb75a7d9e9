"""Ranges move out of nearly empty superpages, within their budget, and nothing else changes."""

import numpy as np
import pytest
from small_cell import cell

from kmemexp import api
from kmemexp.boot.machine import boot
from kmemexp.errors import ConfigError
from kmemexp.lane import surveying
from kmemexp.lane.moving import Mover
from kmemexp.sim.tables import obj, tally
from kmemexp.workload import build
from kmemexp.workload.stream import OP_ALLOC, OP_FREE, Stream, columns

PIPES = 900  # of 16 KiB, 256 to a superpage
PIPE = 16384
SUPERPAGE = 4 << 20


def pipes(kinds):
    """A stream that allocates pipe buffers, one after the other, and frees each again, the last ones first."""
    n = PIPES
    return Stream(
        np.arange(2 * n, dtype=np.int64),
        np.repeat(np.array([OP_ALLOC, OP_FREE], np.uint8), n),
        np.full(2 * n, kinds.names.index("pipe"), np.int16),
        np.concatenate([np.arange(n), np.arange(n)[::-1]]).astype(np.int32),
        np.repeat(np.array([PIPE, 0], np.int32), n),
        np.zeros(2 * n, np.int16),
        np.zeros(2 * n, np.uint8),
        slots=n,
    )


class Piped:
    """A machine whose last superpages hold nothing but pipe buffers, all of them or some."""

    def __init__(self, moves=64, keep=10, movable=("pipe",)):
        config = cell("unified", "buckets", "kmapentzone")
        kinds = build.build(config["workload"], cpus=3, seed=7, replicas=[0]).kinds
        self.stream = pipes(kinds)
        self.machine = boot(config, kinds, self.stream.slots + 1)
        self.objects = self.machine.world.objects
        self.play(self.stream, 0, PIPES)
        self.mover = Mover(self.machine, self.stream, {"moves": moves, "movable": movable})
        where = self.where()
        self.last, self.before = (int(n) for n in np.unique(where)[[-2, -3]])  # both are full
        gone = np.flatnonzero((where == self.last) | (where > self.last))[keep:]
        half = np.flatnonzero(where == self.before)[::2]
        between = np.flatnonzero((self.objects[:PIPES, obj.ADDR] + PIPE - 1) // SUPERPAGE != where)
        self.free(np.unique(np.concatenate([gone, half, between])))

    def where(self):
        return self.objects[:PIPES, obj.ADDR] // SUPERPAGE

    def free(self, rows):
        n = len(rows)
        kind = np.full(n, self.stream.kind[0], np.int16)
        one = Stream(*(np.zeros(n, np.int64), np.full(n, OP_FREE, np.uint8), kind, rows.astype(np.int32)),
                     *(np.zeros(n, np.int32), np.zeros(n, np.int16), np.zeros(n, np.uint8)), slots=PIPES)  # fmt: skip
        self.play(one, 0, n)

    def play(self, ops, begin, end):
        assert self.machine.replay(self.machine.world, *columns(ops), begin, end) == end - begin

    def superpages(self):
        return surveying.free_superpages(self.machine)


def test_a_nearly_empty_superpage_is_cleared_and_nothing_is_lost():
    piped = Piped()
    counters, free = piped.machine.world.counters, piped.superpages()
    assert (piped.where() == piped.last).sum() == 10
    was, live = counters.copy(), (piped.where() >= 0).sum()
    assert piped.mover.run(PIPES) == 10
    assert piped.superpages() == free + 1
    assert (piped.where() == piped.last).sum() == 0
    assert (counters[tally.MOVES], counters[tally.MOVED]) == (10, 10 * PIPE)
    assert counters[tally.MAP_OPS] == was[tally.MAP_OPS] + 20
    same = [tally.OPS, tally.ALLOCS, tally.FREES, tally.FAILURES, tally.DIRECT, tally.HELD]
    assert counters[same].tolist() == was[same].tolist()
    addresses = piped.objects[:PIPES, obj.ADDR]
    assert len(set(addresses[addresses >= 0].tolist())) == live
    piped.play(piped.stream, PIPES, 2 * PIPES)  # all that is left goes back, the moved ones too
    assert counters[tally.DIRECT] == 0


@pytest.mark.parametrize(
    "given",
    [
        {"moves": 9},  # ten would have to move
        {"keep": 65},  # more than a quarter of it is in use
        {"movable": ("uarea",)},
    ],
)
def test_a_superpage_stays_that_cannot_be_cleared(given):
    piped = Piped(**given)
    at = piped.where().tolist()
    assert piped.mover.run(PIPES) == 0
    assert piped.where().tolist() == at


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["workload=filetree"], "nothing in workload=filetree can be moved; policy.movable is pipe_buffer, uarea"),
        (["policy.moves=0"], "set all"),
    ],
)
def test_what_would_move_nothing_is_refused(words, says):
    with pytest.raises(ConfigError, match=says):
        api.plan(["design=mail2003_bare", "policy=compact_ranges", *words])
