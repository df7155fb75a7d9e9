"""A random walk of allocations and frees through a pair of magazines, by the driver without a clock."""

import json
from itertools import pairwise

import numpy as np

from kmemexp.boot.machine import boot
from kmemexp.planning.plan import plan_from
from kmemexp.sim.aliases import Shares, Words
from kmemexp.sim.tables import tally
from kmemexp.workload import stream as w

SPARE = 20_000  # objects that the walk begins with, and as many that fill magazines for the depot
BATCHES = 25


def trips_of_a_walk(size: int, length: int, rng: np.random.Generator) -> Shares:
    """Operations by trip to the depot, by batch; each operation is an allocation or a free by the toss of a coin."""
    ops = rng.integers(0, 2, length).astype(np.uint8)
    slot = _last_in_first_out(ops)
    overrides = ["design=illumos", "cost=none", "machine.kva_bytes=2GiB", "machine.ram_bytes=1GiB"]
    config = json.loads(plan_from(overrides)[0].columns["config"][0])
    zero = np.zeros(1, np.int32)
    kinds = w.Kinds(("it",), np.array([w.MALLOC], np.int8), zero + size, zero, zero)
    machine = boot(config, kinds, 3 * SPARE + length)

    def play(op: Words, slot: Words) -> Words:
        n = len(op)
        before = machine.world.counters[[tally.OPS, tally.STEPS]].copy()
        machine.replay(machine.world, op, np.zeros(n, np.int16), slot.astype(np.int32), np.full(n, size, np.int32),
                       np.zeros(n, np.int16), np.zeros(n, np.uint8), 0, n)  # fmt: skip
        counted: Words = machine.world.counters[[tally.OPS, tally.STEPS]] - before
        return counted

    play(np.zeros(3 * SPARE, np.uint8), np.arange(3 * SPARE))
    play(np.ones(SPARE, np.uint8), np.arange(2 * SPARE, 3 * SPARE))
    edges = np.linspace(0, length, BATCHES + 1).astype(int)
    found = []
    for start, end in pairwise(edges.tolist()):
        played, steps = play(ops[start:end], slot[start:end])
        found.append((steps - played) / played)
    return np.array(found)


def _last_in_first_out(ops: Words) -> Words:
    """Slots of the operations: which object goes does not matter."""
    slot = np.empty(len(ops), np.int64)
    live, fresh = list(range(2 * SPARE)), 3 * SPARE
    for i, op in enumerate(ops.tolist()):
        if op == w.OP_ALLOC:
            slot[i] = fresh
            live.append(fresh)
            fresh += 1
        else:
            slot[i] = live.pop()
    return slot
