"""Type stability (claim C8): what still refers to a kernel object when it is freed, and what protects the reader.

A *reader* (conf/stability/readers/) takes references to the live objects of a kind, `rate_hz` of them in a second of an
object's life, and reads through each once, an exponential time of mean `hold_s` later, without holding the object. So
the references that outlive an object of lifetime L are Poisson with mean rate · hold · (1 - exp(-L / hold)); each of
them is read an exponential time of mean hold after the free. Only these are drawn one by one. Those after the end of
the stream are not counted.

A protection changes the stream, or which allocator serves the kind:

- zone, percpu: the kind's memory never becomes anything else (allocators zalloc, percpu_freelist);
- grace: a free waits for the end of a grace period, the second multiple of `grace_s` after it at the latest, so that
  every reader that does not sleep is done by then; one that sleeps is not waited for;
- refcount: a free waits until its last reader is done.

`oversample` draws that many sets of references, of which one is the kernel's own and decides how long frees wait; the
others only look. It narrows the intervals of ratios and does not move them. `hold_ratio` multiplies every `hold_s`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kmemexp.errors import ConfigError
from kmemexp.values import at_least, close, one_of
from kmemexp.workload import seeds
from kmemexp.workload.stream import (
    CLASS_NAMES,
    KERNEL_CLASSES,
    MALLOC,
    OP_ALLOC,
    OP_FREE,
    OP_READ,
    OP_WATCH,
    READ_CHECKS,
    READ_LAST,
    ZONE,
    Kinds,
    Load,
    Stream,
    Watched,
    stream_of,
)

PROTECTIONS = ("none", "zone", "percpu", "grace", "refcount")
ROUTES = {"zone": "zalloc", "percpu": "percpu_freelist"}
PLACES = 3  # object allocators of a design
READER = ("name", "rate_hz", "hold_s", "sleeps", "checks")
NS = 1e9


class Objects(NamedTuple):
    """Objects of one kind in a stream, in the order of their allocation: n of them."""

    alloc: np.ndarray  # int64[n], row of the stream
    free: np.ndarray  # int64[n], or -1: never freed
    born_ns: np.ndarray  # int64[n]
    gone_ns: np.ndarray  # int64[n]: freed, or the end of the stream


class References(NamedTuple):
    """References that outlive their objects."""

    owner: np.ndarray  # int64[r], index into Objects
    read_ns: np.ndarray  # int64[r]
    sleeps: np.ndarray  # bool[r]
    checks: np.ndarray  # bool[r]
    own: np.ndarray  # bool[r]: of the kernel's own set
    ended: int  # further references, which do not


# The configuration.


def node(stability: Mapping[str, Any]) -> dict[str, Any]:
    """Check the node and return it in normal form: without what does not matter. Raises ConfigError."""
    stability = {"protection": "none", "grace_s": 0.02, **stability}  # what the normal form leaves out
    one_of("stability.protection", stability["protection"], PROTECTIONS)
    kind = stability["kind"]
    if not kind:
        return {"kind": ""}
    readers = stability["readers"].get(kind)
    if not readers:
        known = [name for name, of_kind in stability["readers"].items() if of_kind]
        raise ConfigError(
            f"stability.kind={kind}: stability.readers says nothing of it{close(kind, known)}; "
            f"there are {', '.join(known) or 'none'}"
        )
    for i, reader in enumerate(readers):
        _check_reader(f"stability.readers.{kind}[{i}]", reader)
    for key in ("grace_s", "hold_ratio"):
        if not 0 < stability[key] < 1e6:
            raise ConfigError(f"stability.{key}={stability[key]}: must be above 0 and below 1e6")
    form = {key: stability[key] for key in ("kind", "protection", "hold_ratio")}
    form["oversample"] = at_least("stability.oversample", stability["oversample"], 1)
    if stability["protection"] == "grace":
        form["grace_s"] = stability["grace_s"]
    return form | {"readers": {kind: [{key: reader[key] for key in READER} for reader in readers]}}


def _check_reader(where: str, reader: Any) -> None:
    if not isinstance(reader, Mapping) or set(reader) != set(READER):
        raise ConfigError(f"{where}: must have {', '.join(READER)}")
    for key, low in (("rate_hz", 0.0), ("hold_s", 0.0)):
        value = reader[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < 1e9:
            raise ConfigError(f"{where}.{key}={value}: must be a number from {low:g} to 1e9")
    for key in ("sleeps", "checks"):
        if not isinstance(reader[key], bool):
            raise ConfigError(f"{where}.{key}={reader[key]}: must be true or false")


def check_cell(stability: Mapping[str, Any], objects: Mapping[str, Any], workload: Mapping[str, Any]) -> None:
    """Check what can be said before a cell runs: the kind is there, and can be served as asked. Raises ConfigError."""
    kind = stability["kind"]
    if not kind:
        return
    if "pause_ns" in workload:
        raise ConfigError(f"stability.kind={kind}: {workload['name']} is a closed load, without lifetimes")
    _route(stability, objects)
    if "kinds" in workload:
        known = workload["kinds"]
        if pages := [name for name, row in known.items() if row["class"] not in KERNEL_CLASSES]:
            raise ConfigError(
                f"stability.kind={kind}: what freed memory becomes is not followed into user memory, but "
                f"{workload['name']} has {pages[0]}"
            )
        if kind not in known:
            raise ConfigError(_no_kind(kind, workload["name"], tuple(known)))
        if stability["protection"] in ROUTES:
            _check_class(stability, known[kind]["class"], known[kind]["size"]["law"] == "fixed")


def routed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the protected kind of a cell the allocator that its protection means. Raises ConfigError."""
    stability = config.get("stability", {"kind": ""})
    if not stability["kind"] or stability["protection"] not in ROUTES:
        return config
    return {**config, "objects": {**config["objects"], "kinds": _route(stability, config["objects"])}}


def _route(stability: Mapping[str, Any], objects: Mapping[str, Any]) -> dict[str, str]:
    kinds = dict(objects["kinds"])
    if name := ROUTES.get(stability["protection"]):
        kinds[stability["kind"]] = name
    used = sorted({objects["malloc"], objects["zone"], objects["mbuf"], *kinds.values()})
    if len(used) > PLACES:
        raise ConfigError(
            f"stability.protection={stability['protection']}: needs {name} beside the design's allocators; "
            f"{', '.join(used)} are more than {PLACES}"
        )
    return kinds


def _no_kind(kind: str, workload: str, known: Sequence[str]) -> str:
    return f"stability.kind={kind}: {workload} has no such kind{close(kind, known)}; it has {', '.join(known)}"


def _check_class(stability: Mapping[str, Any], klass: str, one_size: bool) -> None:
    if klass == "zone" or (klass == "malloc" and one_size):
        return
    why = "comes in many sizes" if klass == "malloc" else f"is of class {klass}"
    raise ConfigError(
        f"stability.protection={stability['protection']}: {stability['kind']} {why}; "
        "only a zone's items, or what malloc serves in one size, can be kept type-stable so"
    )


# The stream.


def protect(load: Load, config: Mapping[str, Any], replicas: Sequence[int], *, reads: bool) -> Load:
    """Apply a cell's protection to a load, and put in what its readers do after the free, if `reads`.

    Streams stay in the order of time. References, and when they are read, depend on the seed, the replica and the
    objects' lifetimes, not on the protection. Raises ConfigError.
    """
    stability = config.get("stability", {"kind": ""})
    kind = stability["kind"]
    if not kind:
        return load
    if kind not in load.kinds.names:
        raise ConfigError(_no_kind(kind, config["workload"]["name"], load.kinds.names))
    k = load.kinds.names.index(kind)
    kinds = load.kinds
    if stability["protection"] in ROUTES:
        kinds = _as_zone(stability, kinds, k, load.streams)
    made = [
        _protected(stream, k, stability, seeds.generator(config["seed"], seeds.REFERENCES, replica), reads)
        for stream, replica in zip(load.streams, replicas, strict=True)
    ]
    streams, watched = zip(*made, strict=True) if made else ((), ())
    return load._replace(kinds=kinds, streams=streams, watched=watched if reads else ())


def _as_zone(stability: Mapping[str, Any], kinds: Kinds, k: int, streams: Sequence[Stream]) -> Kinds:
    """Make a zone of a kind that malloc serves in one size."""
    if kinds.klass[k] == ZONE:
        return kinds
    sizes = np.concatenate([s.size[(s.kind == k) & (s.op == OP_ALLOC)] for s in streams])
    size = int(sizes[0]) if len(sizes) else int(kinds.size[k])
    klass = CLASS_NAMES[kinds.klass[k]]
    _check_class(stability, klass, klass == CLASS_NAMES[MALLOC] and bool((sizes == size).all()))
    return kinds._replace(
        klass=_with(kinds.klass, k, ZONE),
        size=_with(kinds.size, k, size),
        growth=_with(kinds.growth, k, 1),
        limit=_with(kinds.limit, k, 0),
    )


def _with(column: np.ndarray, k: int, value: int) -> np.ndarray:
    column = column.copy()
    column[k] = value
    return column


def objects_of(stream: Stream, k: int) -> Objects:
    """Find the objects of kind `k`: each allocation with the free that ends it."""
    rows = np.flatnonzero((stream.kind == k) & (stream.op <= OP_FREE))
    order = rows[np.argsort(stream.slot[rows], kind="stable")]
    after = np.append(order[1:], -1)
    ends = (after >= 0) & (stream.op[after] == OP_FREE) & (stream.slot[after] == stream.slot[order])
    is_alloc = stream.op[order] == OP_ALLOC
    alloc, free = order[is_alloc], np.where(ends, after, -1)[is_alloc]
    by_time = np.argsort(alloc)
    alloc, free = alloc[by_time], free[by_time]
    gone_ns = np.where(free >= 0, stream.time_ns[free], stream.time_ns[-1]) if len(alloc) else np.zeros(0, np.int64)
    return Objects(alloc, free, stream.time_ns[alloc], gone_ns)


def references(objects: Objects, stability: Mapping[str, Any], rng: np.random.Generator) -> References:
    """Draw the references that outlive their objects, and count the others."""
    life_s = (objects.gone_ns - objects.born_ns) / NS
    times = stability["oversample"]
    columns: list[tuple[np.ndarray, ...]] = []
    ended = 0
    for reader in stability["readers"][stability["kind"]]:
        rate, hold = reader["rate_hz"] * times, reader["hold_s"] * stability["hold_ratio"]
        outliving = np.zeros(len(life_s))
        if hold > 0:
            outliving = np.where(objects.free >= 0, -rate * hold * np.expm1(-life_s / hold), 0.0)
        owner = np.repeat(np.arange(len(life_s)), rng.poisson(outliving))
        read_ns = objects.gone_ns[owner] + np.maximum(rng.exponential(hold, len(owner)) * NS, 1).astype(np.int64)
        n = len(owner)
        columns.append(
            (owner, read_ns, np.full(n, reader["sleeps"]), np.full(n, reader["checks"]), rng.random(n) * times < 1)
        )
        ended += int(rng.poisson((rate * life_s - outliving).clip(0).sum()))
    return References._make((*map(np.concatenate, zip(*columns, strict=True)), ended))


def freed_ns(objects: Objects, found: References, stability: Mapping[str, Any]) -> np.ndarray:
    """Time of each object's free under the protection, int64[n]; what is never freed has the end of the stream."""
    protection, at = stability["protection"], objects.gone_ns.copy()
    if protection not in ("grace", "refcount"):
        return at
    waits = found.own & _covered(found, protection)
    if protection == "grace":
        every = round(stability["grace_s"] * NS)
        at = np.where(objects.free >= 0, (at // every + 2) * every, at)
    np.maximum.at(at, found.owner[waits], found.read_ns[waits])
    return at


def _covered(found: References, protection: str) -> np.ndarray:
    """Which references the protection waits for, bool[r]."""
    if protection == "refcount":
        return np.ones(len(found.owner), bool)
    return ~found.sleeps if protection == "grace" else np.zeros(len(found.owner), bool)


def _protected(
    stream: Stream, k: int, stability: Mapping[str, Any], rng: np.random.Generator, reads: bool
) -> tuple[Stream, Watched]:
    objects = objects_of(stream, k)
    found = references(objects, stability, rng)
    at = freed_ns(objects, found, stability)
    end = int(stream.time_ns[-1]) if stream.length else 0
    in_time = found.read_ns <= end
    stale = in_time & (found.read_ns > at[found.owner]) & ~_covered(found, stability["protection"])
    ended = found.ended + int((in_time & ~stale).sum())
    chosen = np.flatnonzero(stale) if reads else np.zeros(0, np.int64)
    chosen = chosen[np.lexsort((found.owner[chosen], found.read_ns[chosen]))]
    owners, watch = np.unique(found.owner[chosen], return_inverse=True)
    last = np.zeros(len(owners), np.int64)
    np.maximum.at(last, watch, np.arange(len(watch)))
    how = found.checks[chosen] * READ_CHECKS
    how[last] |= READ_LAST
    lookers = _rows(found.read_ns[chosen], OP_READ, k, watch, how)
    return _woven(stream, objects, at, owners, lookers), Watched(k, len(owners), ended)


def _rows(time_ns: np.ndarray, op: int, kind: int, slot: np.ndarray, size: np.ndarray) -> Stream:
    """Rows of a stream that are no operations."""
    n = len(time_ns)
    return Stream(
        time_ns, np.full(n, op, np.uint8), np.full(n, kind, np.int16), slot.astype(np.int32), size.astype(np.int32),
        np.zeros(n, np.int16), np.zeros(n, np.uint8), 0,
    )  # fmt: skip


def _woven(stream: Stream, objects: Objects, at: np.ndarray, owners: np.ndarray, lookers: Stream) -> Stream:
    """Put a stream together from its own rows, the frees at other times, and what begins watches and reads.

    Frees after the end of the stream are left out. An object that is freed later than before has a slot of its own.
    """
    late = np.flatnonzero((objects.free >= 0) & (at > objects.gone_ns))
    if not len(late) and not len(owners):
        return stream
    slot = stream.slot.copy()
    slot[objects.alloc[late]] = slot[objects.free[late]] = stream.slots + np.arange(len(late))
    time_ns = stream.time_ns.copy()
    time_ns[objects.free[late]] = at[late]
    own = stream._replace(time_ns=time_ns, slot=slot)
    # Place among rows of the same time: as before, then late frees, then reads; a watch just before its free.
    place = 2 * np.arange(stream.length) + 1
    place[objects.free[late]] += 2 * stream.length
    freeing = objects.free[owners]
    k = int(stream.kind[objects.alloc[0]])
    beginners = _rows(at[owners], OP_WATCH, k, slot[freeing], np.arange(len(owners)))
    places = (place, place[freeing] - 1, 4 * stream.length + np.arange(lookers.length))
    woven = zip(stream.arrays, own.arrays, beginners.arrays, lookers.arrays, strict=True)
    columns = [np.concatenate(sources).astype(column.dtype, copy=False) for column, *sources in woven]
    order = np.lexsort((np.concatenate(places), columns[0]))
    order = order[: np.searchsorted(columns[0][order], stream.time_ns[-1], side="right")]
    return stream_of((column[order] for column in columns), stream.slots + len(late))
