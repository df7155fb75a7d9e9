"""Operations of a real kernel's caches, played on `allocators/slub` from the slabs that were there."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.boot.machine import Machine, boot
from kmemexp.errors import TraceError
from kmemexp.planning.plan import plan_from
from kmemexp.sim.allocators.slub import begin, layout
from kmemexp.sim.allocators.slub import slabs as u
from kmemexp.sim.items import Traits
from kmemexp.sim.slots import PAGE, PAGE_SHIFT
from kmemexp.sim.tables import flag, obj
from kmemexp.sim.tables.tally import FAILURES
from kmemexp.workload.lives import counting
from kmemexp.workload.lives.hindsight import Start
from kmemexp.workload.lives.reconcile import Operations
from kmemexp.workload.lives.snapshots import Cache
from kmemexp.workload.stream import OP_ALLOC, OP_FREE, ZONE, Kinds, Stream, columns

DESIGN = "linux_6_18"
ROOM = 64 << 20  # bytes beyond twice what the kernel had
MOST_CPU_BITS = 13  # of the CPUs of a kernel (CONFIG_NR_CPUS of x86-64 is 8192 at most)


class One(NamedTuple):
    """A cache: its figures, its slabs at the start, and what is done to it."""

    name: str
    cache: Cache
    start: Start
    done: Operations


class _Part(NamedTuple):
    """What is played of a cache: columns of a stream, and its slots."""

    op: np.ndarray
    slot: np.ndarray
    cpu: np.ndarray
    slots: int


def slabs_at_the_end(caches: Sequence[One], cpus: int) -> np.ndarray:
    """Play each cache, one after the other, on one machine. Returns the slabs that each has at the end (int64)."""
    parts = [_part(one) for one in caches]
    first = np.cumsum([0] + [part.slots for part in parts])
    machine = _booted(caches, cpus, int(first[-1]))
    state = machine.world.state_a
    made = state.cache[state.item_cache]
    for one, row in zip(caches, made, strict=True):
        if (row[u.K_ORDER], row[u.K_OBJECTS]) != (one.cache.order, one.cache.per_slab):
            raise TraceError(
                f"{one.name}: the kernel has {one.cache.per_slab} objects in a slab of order {one.cache.order}, SLUB "
                f"would have {row[u.K_OBJECTS]} of order {row[u.K_ORDER]} on {cpus} CPUs, and no number of CPUs gives "
                "all caches what they have: its slabs cannot be predicted"
            )
    for k, (one, base) in enumerate(zip(caches, first.tolist(), strict=False)):
        count = len(one.start.free) * one.cache.per_slab
        before = _Part(np.full(count, OP_ALLOC), np.arange(count), np.zeros(count), count)
        _play(machine, _stream(before, k, base, one, flag.NOWAIT))
        heads = base + np.arange(len(one.start.free)) * one.cache.per_slab
        pages = machine.world.objects[heads, obj.ADDR] >> PAGE_SHIFT
        free, cpu = (column.astype(np.int64) for column in (one.start.free, one.start.cpu))
        begin.arrange(state, machine.world.reg, int(state.item_cache[k]), pages, free, cpu)
    for k, (one, part, base) in enumerate(zip(caches, parts, first.tolist(), strict=False)):
        _play(machine, _stream(part, k, base, one, 0))
    found: np.ndarray = state.cache[state.item_cache, u.K_SLABS]
    return found


def _part(one: One) -> _Part:
    """Number the objects of a cache: those of its old slabs first, slab by slab, free ones first in each."""
    done, per_slab = one.done, one.cache.per_slab
    old = len(one.start.free) * per_slab
    is_old = done.op == counting.FREE_OLD
    turn = _turns(done.item[is_old])
    nth = one.start.free.astype(np.int64)[done.item[is_old]] + turn
    slot = np.empty(len(done.op), np.int64)
    slot[is_old] = np.where(nth < per_slab, done.item[is_old] * per_slab + nth, -1)
    lives, which = np.unique(done.item[~is_old], return_inverse=True)
    slot[~is_old] = old + which.reshape(-1)
    op = np.where(done.op == counting.ALLOC, OP_ALLOC, OP_FREE)
    keep = slot >= 0  # more frees than a slab had objects: of what came after them
    return _Part(op[keep], slot[keep], done.cpu[keep], old + len(lives))


def _turns(groups: np.ndarray) -> np.ndarray:
    """How many equal values stand before each."""
    order = np.argsort(groups, kind="stable")
    ranked = groups[order]
    turns = np.empty(len(groups), np.int64)
    turns[order] = np.arange(len(groups)) - np.searchsorted(ranked, ranked, side="left")
    return turns


def least_objects(caches: Sequence[Cache], cpus: int) -> int:
    """Objects that the kernel wanted in a slab (slub_min_objects), as the orders of its slabs show.

    They follow from the CPUs that were present when it started, of which a recording may show fewer (`cpus`). Returns
    0, SLUB's own rule, where `cpus` explains the orders, or no number does.
    """
    for bits in (cpus.bit_length(), *range(1, MOST_CPU_BITS + 1)):
        plans = (layout.layout(cache.size, (1 << bits) - 1) for cache in caches)
        if all((p.order, p.objects) == (c.order, c.per_slab) for p, c in zip(plans, caches, strict=True)):
            return layout.min_objects((1 << bits) - 1) if bits != cpus.bit_length() else 0
    return 0


def _booted(caches: Sequence[One], cpus: int, slots: int) -> Machine:
    """Boot a machine of that design with these caches, with room for twice what there was and more."""
    held = sum(len(one.start.free) * (PAGE << one.cache.order) for one in caches)
    most = sum(int(np.count_nonzero(one.done.op == counting.ALLOC)) * one.cache.size for one in caches)
    size = -(-(2 * held + min(most, 2 * held) + 2 * ROOM) // ROOM) * ROOM
    machine = {"machine.cpus": cpus, "machine.ram_bytes": size, "machine.kva_bytes": size + 2 * ROOM}
    machine |= {"objects.params.slub.min_objects": least_objects([one.cache for one in caches], cpus)}
    (plan,) = plan_from([f"design={DESIGN}", "workload=idle", *(f"{key}={value}" for key, value in machine.items())])
    none = np.zeros(len(caches), np.int32)
    kinds = Kinds(
        names=tuple(one.name for one in caches),
        klass=np.full(len(caches), ZONE, np.int8),
        size=np.array([one.cache.size for one in caches], np.int32),
        growth=none,
        limit=none,
        traits=tuple(Traits(stride=one.cache.size, sheaf=one.cache.sheaf) for one in caches),
    )
    return boot(json.loads(plan.columns["config"][0]), kinds, slots)


def _stream(part: _Part, kind: int, base: int, one: One, flags: int) -> Stream:
    n = len(part.op)
    return Stream(
        time_ns=np.zeros(n, np.int64),
        op=part.op.astype(np.uint8),
        kind=np.full(n, kind, np.int16),
        slot=(base + part.slot).astype(np.int32),
        size=np.where(part.op == OP_ALLOC, one.cache.size, 0).astype(np.int32),
        cpu=part.cpu.astype(np.int16),
        flags=np.full(n, flags, np.uint8),
        slots=base + part.slots,
    )


def _play(machine: Machine, stream: Stream) -> None:
    """Play a stream. Raises TraceError where the machine is too small, which should not be."""
    failed = int(machine.world.counters[FAILURES])
    if machine.replay(machine.world, *columns(stream), 0, stream.length) < stream.length or (
        machine.world.counters[FAILURES] > failed
    ):
        raise TraceError("the recording needs more memory than was set aside for its prediction")
