"""Shrinkers: what frees the kernel's own reclaimable objects when pages run short (Linux 6.18, mm/shrinker.c).

A kind of the load that names a `shrinker` has objects that stay until their end or until that shrinker takes them; a
share of them is `pinned`, in use, and not on its list. The list has them in the order of their allocation. The arena
notes each round of reclaim with its priority; between two operations, every tenth of a second of the load or when a
request has found no page, the shrinkers are asked as often. Those called superblock take 1024 objects at a time, in
proportion from all of their kinds (super_cache_scan), all others 128. On a machine with several nodes a round is one
node's (shrink_node): a superblock frees what lies there and defers for each node by itself (SHRINKER_NUMA_AWARE in
fs/super.c), others go through all of their objects. Left out: objects that have been used again and get another round,
memory cgroups, vfs_cache_pressure other than 100; what is not in the direct map counts as the last node's.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kmemexp.boot.machine import Machine
from kmemexp.sim.tables import obj, tally
from kmemexp.workload import seeds
from kmemexp.workload.stream import OP_ALLOC, OP_FREE, Kinds, Stream

SUPERBLOCK = "superblock"
BATCH = 128  # SHRINK_BATCH
SUPERBLOCK_BATCH = 1024
SEEKS = 2  # DEFAULT_SEEKS
NEVER = np.iinfo(np.int64).max


def do_shrink_slab(freeable: int, deferred: int, priority: int, batch: int) -> tuple[list[int], int]:
    """Batches that a shrinker scans in one round, and the objects that it leaves for later."""
    delta = (freeable >> priority) * 4 // SEEKS
    total = min((deferred >> priority) + delta, 2 * freeable)
    batches = []
    while total >= batch or total >= freeable > 0:
        batches.append(min(batch, total))
        total -= batches[-1]
        if total == 0:
            break
    left = max(deferred + delta - sum(batches), 0)
    return batches, min(left, 2 * freeable)


class Listed(NamedTuple):
    """Objects of a kind that a shrinker may free, in the order of their allocation."""

    kind: int
    born: np.ndarray  # int64[n], operation that allocates
    dies: np.ndarray  # int64[n], operation that frees, or NEVER
    slot: np.ndarray  # int32[n]


class Nodes(NamedTuple):
    """NUMA nodes among which memory is shared out; by default all of it is one."""

    number: int = 1
    node_bytes: int = 0  # on each of them but the last

    def at(self, addresses: np.ndarray) -> np.ndarray:
        """Node of each address."""
        on: np.ndarray = np.minimum(addresses // self.node_bytes, self.number - 1)
        return on

    def last_cpu(self, node: int, cpus: int) -> int:
        """Last CPU of a node, where its kswapd is, of `cpus` shared out evenly."""
        return -(-(node + 1) * cpus // self.number) - 1


ONE_NODE = Nodes()


class Shrinker:
    """A shrinker of a load, with its kinds."""

    def __init__(self, name: str, lists: list[Listed], nodes: Nodes = ONE_NODE) -> None:
        self.batch = SUPERBLOCK_BATCH if name == SUPERBLOCK else BATCH
        self._nodes = nodes if name == SUPERBLOCK else ONE_NODE
        self._lists, self._deferred = lists, [0] * self._nodes.number
        self._passed = [0] * len(lists)

    def freeable(self, objects: np.ndarray, at: int, node: int = 0) -> list[np.ndarray]:
        """Of each kind the objects on its list before operation `at`, oldest first, by their places in `Listed`.

        Where the shrinker knows nodes, those that lie on `node`.
        """
        found = []
        for i, listed in enumerate(self._lists):
            low, high = self._passed[i], int(np.searchsorted(listed.born, at))
            here = (listed.dies[low:high] >= at) & (objects[listed.slot[low:high], obj.ADDR] != obj.ABSENT)
            places = low + np.flatnonzero(here)
            self._passed[i] = int(places[0]) if len(places) else high
            if self._nodes.number > 1:
                places = places[self._nodes.at(objects[listed.slot[places], obj.ADDR]) == node]
            found.append(places)
        return found

    def shrink(self, objects: np.ndarray, at: int, rounds: list[int], node: int = 0) -> list[tuple[int, np.ndarray]]:
        """Go through a node's rounds, most urgent last, `rounds` of each priority. Returns kinds and slots to free."""
        found = self.freeable(objects, at, node)
        taken, own = [0] * len(found), min(node, self._nodes.number - 1)
        for priority in range(len(rounds) - 1, -1, -1):
            for _ in range(rounds[priority]):
                left = [len(places) - n for places, n in zip(found, taken, strict=True)]
                batches, self._deferred[own] = do_shrink_slab(sum(left), self._deferred[own], priority, self.batch)
                for batch in batches:
                    left = [len(places) - n for places, n in zip(found, taken, strict=True)]
                    taken = [n + _part(batch, there, sum(left)) for n, there in zip(taken, left, strict=True)]
        return [
            (listed.kind, listed.slot[places[:n]])
            for listed, places, n in zip(self._lists, found, taken, strict=True)
            if n
        ]


def _part(batch: int, own: int, all_kinds: int) -> int:
    """Objects of one kind in a batch: in proportion, and one more."""
    return min(batch * own // all_kinds + 1, own) if own else 0


class Shrinkers:
    """All shrinkers of a lane."""

    def __init__(self, machine: Machine, stream: Stream, kinds: Kinds, config: Mapping[str, Any], replica: int) -> None:
        self._machine = machine
        apart = machine.by_node(machine.world.arena) if machine.by_node else {}
        self._nodes = Nodes(len(apart["hits"]), machine.node_bytes) if apart else ONE_NODE
        by_name: dict[str, list[Listed]] = {}
        rng = seeds.generator(config["seed"], seeds.PINNED, replica)
        rows = config["workload"].get("kinds", {}) if machine.rounds else {}
        for name in sorted(rows):
            if shrinker := rows[name].get("shrinker"):
                listed = listed_objects(stream, kinds.names.index(name), rng, rows[name].get("pinned", 0))
                by_name.setdefault(shrinker, []).append(listed)
        self._shrinkers = [Shrinker(name, lists, self._nodes) for name, lists in sorted(by_name.items())]

    def __bool__(self) -> bool:
        return bool(self._shrinkers)

    def run(self, at: int) -> int:
        """Do before operation `at` what reclaim has asked for since the last time. Returns the objects freed."""
        machine, freed = self._machine, 0
        if machine.rounds is None:
            return 0
        for node, rounds in enumerate(machine.rounds(machine.world.arena)):
            for shrinker in self._shrinkers if any(rounds) else ():
                for kind, slots in shrinker.shrink(machine.world.objects, at, rounds, node):
                    _free(machine, kind, slots, self._nodes.last_cpu(node, machine.cpus))
                    freed += len(slots)
        machine.world.counters[tally.SHRUNK] += freed
        return freed


def listed_objects(stream: Stream, kind: int, rng: np.random.Generator, pinned: float) -> Listed:
    """List the objects of a kind of a stream that are not pinned."""
    rows = np.flatnonzero((stream.kind == kind) & ((stream.op == OP_ALLOC) | (stream.op == OP_FREE)))
    by_slot = rows[np.argsort(stream.slot[rows], kind="stable")]
    begins = stream.op[by_slot] == OP_ALLOC
    ends = np.append(by_slot[1:], NEVER)
    last = np.append(begins[1:], True)  # the next row is another object's
    born, dies = by_slot[begins], np.where(last, NEVER, ends)[begins]
    order = np.argsort(born)
    order = order[rng.random(len(order)) >= pinned]
    return Listed(kind, born[order], dies[order], stream.slot[born[order]])


def _free(machine: Machine, kind: int, slots: np.ndarray, cpu: int) -> None:
    """Free objects on a CPU."""
    n = len(slots)
    machine.replay(
        machine.world,
        np.full(n, OP_FREE, np.uint8),
        np.full(n, kind, np.int16),
        slots,
        np.zeros(n, np.int32),
        np.full(n, cpu, np.int16),
        np.zeros(n, np.uint8),
        0,
        n,
    )
