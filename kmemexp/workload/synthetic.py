"""Synthetic load: Poisson arrivals of kernel objects with the sizes, lifetimes and contexts that the config gives.

Objects arrive alone (`kinds`) or together with those that share their fate (`bundles`): a process, a connection.
Everything is drawn for all objects of a replica at once; replicas are then put in time order together.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kmemexp.sim import items
from kmemexp.sim.items import PLAIN, Traits
from kmemexp.sim.tables import flag
from kmemexp.workload import laws, merge, phases, seeds
from kmemexp.workload.stream import CLASS_NAMES, Kinds, Load, Stream

# Operations that are made in one go: enough for NumPy to be fast, few enough for the scratch arrays to stay small.
GROUP = 1_000_000


class Member(NamedTuple):
    """Objects of one kind that a bundle has."""

    bundle: int
    kind: int
    row: Mapping[str, Any]  # the kind's config
    number: int  # in each bundle
    born: Sequence[float]  # when they are allocated, from … to as shares of the bundle's life
    waits_s: Sequence[float]  # and how much later, from … to
    dies: Sequence[float]  # when they are freed, likewise
    lingers_s: Sequence[float]


class Plan(NamedTuple):
    """A workload made ready for drawing: k kinds, or bundles, and p pieces of constant rates."""

    rows: Sequence[Mapping[str, Any]]  # the kinds' config
    start: np.ndarray  # int64[k], objects that the first piece makes besides those that arrive
    mean: np.ndarray  # float64[k, p], expected arrivals
    begin_s: np.ndarray  # float64[1 + p]: of the first piece, then of each
    seconds: np.ndarray  # float64[1 + p], likewise
    horizon_ns: int  # end of the run
    bundles: Any = None  # Plan of the bundles, if there are any
    members: Sequence[Member] = ()  # of all bundles


def build(workload: Mapping[str, Any], *, cpus: int, seed: int, replicas: Sequence[int]) -> Load:
    """Streams of a checked synthetic workload, one per replica.

    Kinds are numbered in alphabetical order, so that a workload means the same however its config was written. With
    `pause_ns` the load is closed: rates count for each CPU, and `time_ns` holds the pause before each operation.
    """
    if closed := "pause_ns" in workload:
        workload = {**workload, "scale": workload["scale"] * cpus}
    names = tuple(sorted(workload["kinds"]))
    rows = [workload["kinds"][name] for name in names]
    at_once = max(1, GROUP // max(1, phases.expected_operations(workload)))
    plan = _plan(workload, rows)
    if bundles := workload.get("bundles"):
        each = [bundles[name] for name in sorted(bundles)]
        plan = plan._replace(bundles=_plan(workload, each), members=_members(each, names, rows))
    groups = (replicas[i : i + at_once] for i in range(0, len(replicas), at_once))
    streams = tuple(s for group in groups for s in _streams(plan, cpus, seed, group))
    if closed:
        streams = tuple(_paused(s, workload["pause_ns"], seed, r) for s, r in zip(streams, replicas, strict=True))
    return Load(kinds_table(names, rows), streams)


def _paused(stream: Stream, mean_ns: float, seed: int, replica: int) -> Stream:
    """Turn times into pauses: each operation begins so long after the last one of its CPU has ended."""
    pauses = seeds.generator(seed, seeds.PAUSES, replica).exponential(mean_ns, stream.length)
    return stream._replace(time_ns=pauses.round().astype(np.int64))


def kinds_table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Kinds:
    """Put the kinds of a workload into arrays."""
    return Kinds(
        names=tuple(names),
        klass=np.array([CLASS_NAMES.index(row["class"]) for row in rows], np.int8),
        size=np.array([laws.usual_size(row["size"]) for row in rows], np.int32),
        growth=np.array([row.get("growth", 0) for row in rows], np.int32),
        limit=np.array([row.get("limit", 0) for row in rows], np.int32),
        traits=_traits(rows),
    )


def _traits(rows: Sequence[Mapping[str, Any]]) -> tuple[Traits, ...]:
    """Traits of kinds, if any has some."""
    if not any(row.get("packet") for row in rows):
        return ()
    return tuple(Traits(flags=items.PACKET) if row.get("packet") else PLAIN for row in rows)


def _plan(workload: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Plan:
    parts = phases.pieces(workload)
    return Plan(
        rows=rows,
        start=np.array([phases.start_count(workload, row) for row in rows]),
        mean=np.array([[phases.rate_hz(workload, row, p) * p.seconds for p in parts] for row in rows]),
        begin_s=np.array([0.0] + [p.start_s for p in parts]),
        seconds=np.array([parts[0].seconds] + [p.seconds for p in parts]),
        horizon_ns=math.ceil(phases.length_s(workload) * 1e9),
    )


def _members(
    bundles: Sequence[Mapping[str, Any]], names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> list[Member]:
    """List what the bundles are made of, in the order of the config."""
    found = []
    for bundle, config in enumerate(bundles):
        for member in config["members"]:
            kind = names.index(member["kind"])
            shares = (member.get(key, usual) for key, usual in phases.MEMBER.items())
            found.append(Member(bundle, kind, rows[kind], *shares))
    return found


def _streams(plan: Plan, cpus: int, seed: int, replicas: Sequence[int]) -> tuple[Stream, ...]:
    lanes = [_objects(plan, cpus, seed, replica) for replica in replicas]
    if plan.bundles:
        lanes = [_with(lane, _bundled(plan, cpus, seed, r)) for lane, r in zip(lanes, replicas, strict=True)]
    first = np.cumsum([0] + [len(lane.kind) for lane in lanes])
    together = merge.Objects(*(np.concatenate(columns) for columns in zip(*lanes, strict=True)))
    return merge.operations(together, first, plan.horizon_ns)


def _objects(plan: Plan, cpus: int, seed: int, replica: int) -> merge.Objects:
    """Draw the objects of one replica, kind after kind."""
    counts, start_ns = _arrivals(plan, seeds.generator(seed, seeds.ARRIVALS, replica))
    sizes = seeds.generator(seed, seeds.SIZES, replica)
    lifetimes = seeds.generator(seed, seeds.LIFETIMES, replica)
    drawn = np.concatenate([laws.draw_sizes(sizes, r["size"], n) for r, n in zip(plan.rows, counts, strict=True)])
    end_ns = start_ns + np.concatenate(list(_lifetimes_ns(plan, lifetimes, counts)))
    _evict(plan, counts, start_ns, drawn, end_ns)
    cpu, free_cpu = _cpus(plan, seeds.generator(seed, seeds.CPUS, replica), counts, cpus)
    flags, free_flags = _flags(plan, seeds.generator(seed, seeds.CONTEXTS, replica), counts)
    return merge.Objects(
        start_ns=start_ns,
        end_ns=end_ns,
        kind=np.repeat(np.arange(len(counts), dtype=np.int16), counts),
        size=drawn,
        cpu=cpu,
        free_cpu=free_cpu,
        flags=flags,
        free_flags=free_flags,
    )


def _with(first: merge.Objects, second: merge.Objects) -> merge.Objects:
    """Put the objects of a replica together."""
    return merge.Objects(*(np.concatenate(columns) for columns in zip(first, second, strict=True)))


def _bundled(plan: Plan, cpus: int, seed: int, replica: int) -> merge.Objects:
    """Draw the objects of one replica that come in bundles, one kind of member after the other.

    All of a bundle are allocated on one CPU and freed on one. What is born at the same time is so in the order of the
    config.
    """
    rng = seeds.generator(seed, seeds.BUNDLES, replica)
    counts, begin_ns = _arrivals(plan.bundles, rng)
    life_ns = np.concatenate(list(_lifetimes_ns(plan.bundles, rng, counts)))
    cpu, free_cpu = _cpus(plan.bundles, rng, counts, cpus)
    first = np.concatenate([[0], np.cumsum(counts)])
    of = [np.tile(np.arange(*first[m.bundle : m.bundle + 2]), m.number) for m in plan.members]
    drawn = [_spans(rng, m, begin_ns[mine], life_ns[mine]) for m, mine in zip(plan.members, of, strict=True)]
    number = np.array([len(mine) for mine in of])
    sizes = [laws.draw_sizes(rng, m.row["size"], n) for m, n in zip(plan.members, number, strict=True)]
    flags, free_flags = _flags(plan._replace(rows=[m.row for m in plan.members]), rng, number)
    whose = np.concatenate(of)
    return merge.Objects(
        start_ns=np.concatenate([start for start, _ in drawn]),
        end_ns=np.concatenate([end for _, end in drawn]),
        kind=np.repeat(np.array([m.kind for m in plan.members], np.int16), number),
        size=np.concatenate(sizes),
        cpu=cpu[whose],
        free_cpu=free_cpu[whose],
        flags=flags,
        free_flags=free_flags,
    )


def _spans(
    rng: np.random.Generator, member: Member, begin_ns: np.ndarray, life_ns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw when objects are allocated and freed, int64[n] each; their bundles begin and live as told, int64[n] each."""
    n = len(begin_ns)
    born, waits, dies, lingers = (
        rng.uniform(pair[0], pair[1], n) for pair in (member.born, member.waits_s, member.dies, member.lingers_s)
    )
    start = begin_ns + (life_ns * born + waits * 1e9).astype(np.int64)
    end = begin_ns + (life_ns * dies + lingers * 1e9).astype(np.int64)
    return start, np.maximum(end, start + 1)


def _arrivals(plan: Plan, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the number of objects of each kind (int64[k]) and their times of allocation (int64[n], not sorted)."""
    counts = np.column_stack([plan.start, rng.poisson(plan.mean)])
    # Given their number, the arrivals of a Poisson process in a piece are independent and uniform.
    time_s = rng.random(int(counts.sum()))
    time_s *= np.repeat(np.tile(plan.seconds, len(counts)), counts.ravel())
    time_s += np.repeat(np.tile(plan.begin_s, len(counts)), counts.ravel())
    return counts.sum(axis=1), (time_s * 1e9).astype(np.int64)


def _lifetimes_ns(plan: Plan, rng: np.random.Generator, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Draw the lifetimes of each kind's objects; the first ones, those of the start-up, outlive the run."""
    for row, start, count in zip(plan.rows, plan.start, counts, strict=True):
        yield np.full(start, plan.horizon_ns)
        drawn_s = laws.draw_lifetimes(rng, row["lifetime"], count - start)
        # At least one nanosecond, so that a free never comes before its own allocation.
        yield np.clip(drawn_s * 1e9, 1, plan.horizon_ns).astype(np.int64)


def _evict(plan: Plan, counts: np.ndarray, start_ns: np.ndarray, size: np.ndarray, end_ns: np.ndarray) -> None:
    """Write the ends of objects of kinds that fill to a target."""
    first = 0
    for row, count in zip(plan.rows, counts.tolist(), strict=True):
        if row["lifetime"]["law"] == "fill_to":
            mine = slice(first, first + count)
            ends = laws.evicted(start_ns[mine], size[mine], row["lifetime"]["bytes"])
            end_ns[mine] = np.maximum(np.minimum(ends, plan.horizon_ns), start_ns[mine] + 1)
        first += count


def _cpus(plan: Plan, rng: np.random.Generator, counts: np.ndarray, cpus: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the CPUs of the allocations and of the frees. The draws are the same whatever the number of CPUs."""
    n = int(counts.sum())
    cpu = (rng.random(n) * cpus).astype(np.int16)
    further = (rng.random(n) * (cpus - 1)).astype(np.int16)
    elsewhere = rng.random(n, np.float32) < _shares(plan, "remote", counts)
    return cpu, np.where(elsewhere, (cpu + 1 + further) % np.int16(cpus), cpu)


def _flags(plan: Plan, rng: np.random.Generator, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw the flags of the allocations and of the frees."""
    n = int(counts.sum())
    soft = _shares(plan, "soft", counts)
    # The smaller of the two shares lies inside the larger: what runs in a soft interrupt is what cannot sleep.
    drawn = rng.random(n, np.float32)
    flags = (drawn < _shares(plan, "nowait", counts)) * np.uint8(flag.NOWAIT) | (drawn < soft) * np.uint8(flag.SOFT)
    return flags, (rng.random(n, np.float32) < soft) * np.uint8(flag.SOFT)


def _shares(plan: Plan, key: str, counts: np.ndarray) -> np.ndarray:
    """One of the kinds' shares, for every object: float32[n]."""
    return np.repeat(np.array([row.get(key, 0.0) for row in plan.rows], np.float32), counts)
