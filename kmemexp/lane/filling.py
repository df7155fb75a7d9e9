"""What physical pages hold when a load begins: user memory and page cache, in the order in which a day left them.

A kind of physical pages with `fill` has that share of the machine's memory at the start. Its objects are made in a
random order among those of the other such kinds, user memory in pieces of what a CPU takes from the zone at once, since
processes grow side by side; half as much user memory again is made and freed on the way. How a machine that has run for
days really looks is not published: that they are mixed at random is an assumption. They outlive the load; page cache
among them is the first to be reclaimed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kmemexp.boot.machine import Machine
from kmemexp.sim.slots import PAGE
from kmemexp.sim.stale import NONE
from kmemexp.sim.tables import obj, regs, tally
from kmemexp.workload import laws, seeds
from kmemexp.workload.stream import ANON, CLASS_NAMES, OP_ALLOC, OP_FREE, Kinds, Stream, columns

GONE = 1 / 3  # of the user memory that is made
PIECE = 64 * PAGE  # bytes of user memory: a CPU's batch and one


def fill(machine: Machine, config: Mapping[str, Any], kinds: Kinds, replica: int) -> None:
    """Take the physical pages that a load's kinds have at the start, on a machine that has just booted."""
    rng = seeds.generator(config["seed"], seeds.OLD_PAGES, replica)
    stream = old_pages(config["workload"].get("kinds", {}), kinds, config["machine"], rng)
    world = machine.world._replace(
        objects=np.full((max(stream.slots, 1), obj.COLUMNS), obj.ABSENT, np.int64),
        counters=np.zeros(tally.COLUMNS, np.int64),
        reg=np.zeros((1, regs.COLUMNS), np.int64),
        reclaims=0,
        watch=NONE,
    )
    machine.replay(world, *columns(stream), 0, stream.length)


def old_pages(rows: Mapping[str, Any], kinds: Kinds, machine: Mapping[str, Any], rng: np.random.Generator) -> Stream:
    """Draw the operations that fill a machine's memory; `rows`: the kinds' configuration."""
    made = [_objects(rng, rows[name], machine["ram_bytes"]) for name in sorted(rows) if rows[name].get("fill")]
    number = [kinds.names.index(name) for name in sorted(rows) if rows[name].get("fill")]
    size = np.concatenate([np.zeros(0, np.int32), *(sizes for sizes, _ in made)])
    dies = np.concatenate([np.zeros(0, bool), *(ends for _, ends in made)])
    kind = np.repeat(np.array(number, np.int16), [len(sizes) for sizes, _ in made])
    born = rng.random(len(size))
    end = born[dies] + rng.random(int(dies.sum())) * (1 - born[dies])
    order = np.argsort(np.concatenate([born, end]), kind="stable")
    slot = np.concatenate([np.arange(len(size)), np.flatnonzero(dies)])[order].astype(np.int32)
    freed = order >= len(size)
    return Stream(
        time_ns=np.zeros(len(order), np.int64),
        op=np.where(freed, OP_FREE, OP_ALLOC).astype(np.uint8),
        kind=kind[slot],
        slot=slot,
        size=np.where(freed, 0, size[slot]).astype(np.int32),
        cpu=rng.integers(0, machine["cpus"], len(order)).astype(np.int16),
        flags=np.zeros(len(order), np.uint8),
        slots=len(size),
    )


def _objects(rng: np.random.Generator, row: Mapping[str, Any], ram_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the objects of a kind, and which of them are freed again."""
    user = row["class"] == CLASS_NAMES[ANON]
    want = row["fill"] * ram_bytes / (1 - GONE if user else 1)
    drawn, total = [np.zeros(0, np.int32)], 0
    while total < want:
        sizes = laws.draw_sizes(rng, row["size"], 1024)
        enough = int(np.searchsorted(total + sizes.cumsum(dtype=np.int64), want)) + 1
        drawn.append(sizes[:enough])
        total += int(drawn[-1].sum(dtype=np.int64))
    sizes = np.concatenate(drawn)
    freed = (rng.random(len(sizes)) < GONE) & user
    if user:
        pieces = -(-sizes // PIECE)
        freed = np.repeat(freed, pieces)
        last = pieces.cumsum() - 1
        rest = sizes - (pieces - 1) * PIECE
        sizes = np.full(len(freed), PIECE, np.int32)
        sizes[last] = rest
    return sizes, freed
