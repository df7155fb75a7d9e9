"""What a lane is simulated from: the cell's configuration, its kinds of objects, and the replica's own stream."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kmemexp.boot.clock import is_timed
from kmemexp.lane.model import Sampling
from kmemexp.parts.finding import joins_packets, shares_pages
from kmemexp.sim import demand
from kmemexp.workload import packets, pages, rcu, roles, stability
from kmemexp.workload.build import build
from kmemexp.workload.stream import Handlers, Kinds, Load, Stream, Watched

LARGE = 200_000  # operations of a load whose drawing takes much memory, several times what comes out


class Replica(NamedTuple):
    """One replica of a cell, ready to be simulated."""

    number: int
    config: Mapping[str, Any]  # the cell's, with the allocator that protects the watched kind
    kinds: Kinds
    stream: Stream
    handlers: Handlers | None  # with a clock: interrupts of a recording, if the workload asks for them
    watched: Watched | None  # without a clock: references that outlive their objects, if a kind is watched

    @property
    def sampling(self) -> Sampling:
        """How often it is looked at."""
        return Sampling(**self.config["sample"])


def prepare(config: Mapping[str, Any], numbers: Sequence[int]) -> list[Replica]:
    """Build the streams of a cell's replicas, with what its protection makes of them. Raises ConfigError."""
    config = stability.routed(config)
    workload = json.dumps(config["workload"], sort_keys=True)
    load = _load(workload, config["machine"]["cpus"], config["seed"], tuple(numbers))
    load = load._replace(kinds=roles.cast(load.kinds, config.get("roles")))
    if "pause_ns" not in config["workload"]:  # a closed load has pauses, not times
        load = rcu.delayed(load)
    together = functools.partial(joins, config["objects"])
    load = packets.served(load, together, closed="pause_ns" in config["workload"])
    if is_timed(config) or not shares_pages(config["maps"]["arena"]):
        load = pages.without(load)
    load = stability.protect(load, config, numbers, reads=not is_timed(config))
    none = (None,) * len(numbers)
    own = zip(numbers, load.streams, load.handlers or none, load.watched or none, strict=True)
    return [Replica(number, config, load.kinds, stream, handlers, watched) for number, stream, handlers, watched in own]


def joins(objects: Mapping[str, Any], kind: str) -> bool:
    """Whether the allocator of a kind of packets serves an mbuf and its cluster in one request."""
    return joins_packets(objects["kinds"].get(kind, objects["mbuf"]))


@functools.lru_cache(maxsize=2)
def _load(workload: str, cpus: int, seed: int, replicas: tuple[int, ...]) -> Load:
    """Streams of the cells last simulated: the designs of a group of cells see the same ones."""
    load = build(json.loads(workload), cpus=cpus, seed=seed, replicas=replicas)
    if sum(stream.length for stream in load.streams) > LARGE:
        demand.give_back()
    return load
