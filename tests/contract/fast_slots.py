"""Plays random streams on the driver without a clock: with an allocator's fast slots, without, and with refusals.

Run as a program, with NUMBA_DISABLE_JIT=1, it compares the three bit by bit; so nothing is compiled for it.
"""

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
from small_cell import cell

from kmemexp import jit
from kmemexp.boot import design
from kmemexp.boot.machine import Machine, boot
from kmemexp.parts import finding
from kmemexp.sim import allocators, replay, slots
from kmemexp.sim.tables import flag, obj, tally
from kmemexp.workload import stream
from kmemexp.workload.stream import Kinds

CPUS = 3
SLOTS = 300
SIZES = (0, 8, 24, 60, 100, 192, 500, 800, 1500, 3000, 3000, 6000, 6000, 7000, 7000, 4096, 8192, 12288, 40000)
OPTIONS: dict[str, list[dict[str, int]]] = {
    "buckets": [{"fifo": 1}],
    "dfly_slab": [
        {"zone_bytes": 32768, "slab_order": 1},
        {"zone_bytes": 32768, "slab_order": 2},
        {"zone_bytes": 32768, "free_unmaps": 1, "release_threshold": 0},
    ],
    "dfly_slab_2020": [{"zone_bytes": 32768, "slab_order": 1}, {"zone_bytes": 32768, "slab_order": 2}],
    "illumos_kmem": [{"movable": 2, "frag_minslabs": 2}, {"magazines": 0}],
    "mb_alloc": [{"mbuf_hiwm": 8, "clust_hiwm": 4}],
    "objcache": [{"generation": 0, "cluster_limit": 40}, {"generation": 1}],
    "percpu_freelist": [{"limit": 8}],
    "slab_by_need": [{"drain": 1}, {"movable": 1, "moves": 20, "release_threshold": 0}],
    "slub": [{"sheaves": 1, "domains": 2}, {"slab_order": 2, "cpu_partial": 0}, {"domains": 2}],
    "uma": [{"generation": 0}, {"generation": 3, "slab_order": 1}, {"nmbclusters": 20}],
    "uma_today": [{"domains": 2}, {"domains": 3, "nmbclusters": 20}],
}
"""Parameters beside the defaults under which an allocator's fast slots may have to refuse."""
STREAMS = ((1, 256), (2, 9))
"""Seeds, and MiB of KVA: the last is hardly enough."""
SET_ASIDE = 6
"""MiB that boot sets aside for zones in the KVA of an allocator that wants that."""
KINDS = Kinds(
    ("malloc", "socket", "vnode", "inode", "mbuf"),
    np.array([stream.MALLOC, stream.ZONE, stream.ZONE, stream.ZONE, stream.MBUF], np.int8),
    np.array([0, 180, 168, 3500, 0], np.int32),
    np.array([0, 1, 5, 1, 0], np.int32),
    np.array([0, 60, 0, 0, 0], np.int32),
)


class Asked:
    """Fast slots that count what they are asked, and refuse a share of it."""

    def __init__(self, refusals: float) -> None:
        self.refusals, self.rng, self.asked, self.served = refusals, np.random.default_rng(5), 0, 0

    def fast_alloc(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def fast_alloc(st: Any, item: int, size: int, cpu: int, flags: int) -> tuple[int, int]:
            self.asked += 1
            if self.rng.random() < self.refusals:
                return obj.ABSENT, 0
            addr, granted = function(st, item, size, cpu, flags)
            self.served += addr != obj.ABSENT
            return addr, granted

        return fast_alloc

    def fast_free(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def fast_free(st: Any, item: int, addr: int, size: int, cpu: int, flags: int) -> bool:
            self.asked += 1
            done = self.rng.random() >= self.refusals and bool(function(st, item, addr, size, cpu, flags))
            self.served += done
            return done

        return fast_free


def config(name: str, kva_mib: int, options: dict[str, int]) -> dict[str, Any]:
    """Cell in which an allocator serves all that it can."""
    serves = importlib.import_module(f"{allocators.__name__}.{name}").SERVES
    others = {slots.CLASS_MALLOC: "buckets", slots.CLASS_ZONE: "percpu_freelist", slots.CLASS_MBUF: "mbuf"}
    malloc, zone, mbuf = (name if c in serves else other for c, other in others.items())
    kva_mib += SET_ASIDE * finding.sets_aside(name)
    found = cell("unified", "buckets", "kmapentzone", kva_mib=kva_mib)
    found["maps"] |= {"submaps": [], "reserves": []}
    found["objects"] = {"malloc": malloc, "zone": zone, "mbuf": mbuf, "kinds": {}, "params": {name: options}}
    return found


def operations(seed: int, length: int = 1600) -> tuple[np.ndarray, ...]:
    """Columns of a random stream that grows, shrinks and grows again."""
    rng = np.random.default_rng(seed)
    live: list[tuple[int, int]] = []  # kind and slot
    free = list(range(SLOTS))
    rows = []
    for n in range(length):
        grows = 0.75 if (4 * n // length) % 2 == 0 else 0.2
        cpu, flags = int(rng.integers(CPUS)), int(rng.choice([0, 0, flag.NOWAIT, flag.SOFT | flag.NOWAIT]))
        if free and (not live or rng.random() < grows):
            kind, slot = int(rng.integers(len(KINDS.names))), free.pop()
            sizes = {0: SIZES, 4: (100, 256, 1000, 2048, 5000)}.get(kind, (int(KINDS.size[kind]),))
            rows.append((stream.OP_ALLOC, kind, slot, int(rng.choice(sizes)), cpu, flags))
            live.append((kind, slot))
        else:
            kind, slot = live.pop(int(rng.integers(len(live))))
            rows.append((stream.OP_FREE, kind, slot, 0, cpu, flags & ~flag.NOWAIT))
            free.append(slot)
    types = (np.uint8, np.int16, np.int32, np.int32, np.int16, np.uint8)  # of a stream's columns
    return tuple(np.array(column, to) for column, to in zip(zip(*rows, strict=True), types, strict=True))


def arrays(prefix: str, state: Any) -> Iterator[tuple[str, np.ndarray]]:
    """All arrays of a state, with those of the states in it."""
    for name, value in zip(state._fields, state, strict=True):
        if isinstance(value, np.ndarray):
            yield f"{prefix}.{name}", value
        elif hasattr(value, "_fields"):
            yield from arrays(f"{prefix}.{name}", value)


def booted(name: str, kva_mib: int, options: dict[str, int]) -> Machine:
    """Boot with all arrays filled: what is written before it is read is not made otherwise."""
    with mock.patch.object(np, "empty", np.zeros):
        return boot(config(name, kva_mib, options), KINDS, SLOTS)


def play(
    machine: Machine, driver: Callable[..., Any], columns: tuple[np.ndarray, ...], tending: bool = True
) -> dict[str, np.ndarray]:
    """Play a stream, `tending`: with upkeep now and then. Returns the arrays that it leaves, but for the registers."""
    world, length = machine.world, len(columns[0])
    for k, end in enumerate(np.linspace(0, length, 6).astype(int).tolist()[1:]):
        driver(world, *columns, int(world.counters[tally.OPS]), end)
        for place in range(len(machine.homes) * tending):
            machine.upkeep(world, place, slots.TEND_REAP if k == 2 else slots.TEND_TICK)
    found = dict(arrays("", world))
    return {key: value for key, value in found.items() if key != ".reg"}


def bound(name: str, fast: Callable[[str, Callable[..., Any]], Callable[..., Any]], label: str) -> Callable[..., Any]:
    """Bind the driver to an allocator with other fast slots: `fast` of a verb and what is there."""
    code = design.design(design.allocator_names(config(name, 0, {})["objects"]), "vm_map")
    parts = design.slots_of(code.servers, ("alloc", "free", *design.FAST)) | design.map_slots(code.arena)
    place = slots.PLACES[code.names.index(name)]
    parts |= {f"{verb}_{place}": fast(verb, parts[f"{verb}_{place}"]) for verb in design.FAST}
    return jit.bind(replay.replay, parts, f"{label}:{name}")


def without(verb: str, part: Callable[..., Any]) -> Callable[..., Any]:
    """No fast slot."""
    return design.FAST[verb]


def asked(name: str, refusals: float) -> tuple[Asked, Callable[..., Any]]:
    """Bind the driver to slots that count, and refuse this share of what they are asked."""
    count = Asked(refusals)
    return count, bound(name, lambda verb, part: getattr(count, verb)(part), f"refuses {refusals}")


def check(name: str) -> float:
    """Compare an allocator's fast slots with its steps. Returns the share of operations that they serve.

    AssertionError names the first array that differs.
    """
    shares = []
    for options in [{}, *OPTIONS.get(name, [])]:
        for seed, kva_mib in STREAMS:
            columns = operations(seed)
            steps = play(booted(name, kva_mib, options), bound(name, without, "steps"), columns)
            for refusals in (0.0, 0.5):
                count, driver = asked(name, refusals)
                found = play(booted(name, kva_mib, options), driver, columns)
                different = [key for key, want in steps.items() if not np.array_equal(found[key], want)]
                assert not different, f"{name} {options}, seed {seed}, refusals {refusals}: {different} differ"
                shares.append(count.served / count.asked)
    return max(shares)


def digest(found: dict[str, np.ndarray]) -> str:
    """Sum up arrays."""
    total = hashlib.sha256()
    for value in found.values():
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def played(name: str, driver: Callable[..., Any] | None = None) -> str:
    """Play the first stream without upkeep, by the design's own driver or another. Returns the digest of the arrays."""
    seed, kva_mib = STREAMS[0]
    machine = booted(name, kva_mib, {})
    return digest(play(machine, driver or machine.replay, operations(seed), tending=False))


def main(*names: str) -> None:
    """Print the share of operations that an allocator's fast slots serve, and what the first stream leaves."""
    for name in names:
        print(check(name), played(name, bound(name, without, "steps")))  # noqa: T201 - to the process that asked


if __name__ == "__main__":
    main(*sys.argv[1:])
