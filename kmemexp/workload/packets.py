"""Packets: kinds whose objects are an mbuf with its cluster, asked for in one request, as m_getcl() does.

A load says so of a kind (`packet: true`). Where the allocator has something for both together (FreeBSD's Packet zone,
an objcache of DragonFly) the request stays one. Elsewhere it is two, one right after the other: an mbuf (MGETHDR()) and
a cluster (MCLGET()), each freed when the packet is. A packet whose mbuf is had and whose cluster is not keeps the mbuf,
and counts as one failed allocation.
"""

from collections.abc import Callable

import numpy as np

from kmemexp.sim import items
from kmemexp.sim.network import MCLBYTES, MSIZE
from kmemexp.sim.ops import FREE
from kmemexp.workload.stream import Kinds, Load, Stream, stream_of


def are_packets(kinds: Kinds) -> np.ndarray:
    """Which kinds are packets: bool[k]."""
    flags = [kinds.traits_of(k).flags for k in range(len(kinds.names))]
    return np.array([bool(flag & items.PACKET) for flag in flags], bool)


def served(load: Load, joins: Callable[[str], bool], *, closed: bool) -> Load:
    """Make two requests of each packet of a kind that its allocator does not `join`; `closed`: times are pauses."""
    kinds, second = split(load.kinds, joins)
    if kinds is load.kinds:
        return load
    return load._replace(kinds=kinds, streams=tuple(_split(stream, second, closed) for stream in load.streams))


def split(kinds: Kinds, joins: Callable[[str], bool]) -> tuple[Kinds, np.ndarray]:
    """Divide kinds of packets: a kind becomes its mbufs, and a new one at the end its clusters, `name`_cluster.

    Returns also the number of the second kind by kind, int64[k]; -1: it is not divided.
    """
    apart = [k for k in np.flatnonzero(are_packets(kinds)).tolist() if not joins(kinds.names[k])]
    second = np.full(len(kinds.names), -1, np.int64)
    if not apart:
        return kinds, second
    second[apart] = len(kinds.names) + np.arange(len(apart))
    traits = [kinds.traits_of(k) for k in range(len(kinds.names))]
    traits = [t._replace(flags=t.flags & ~items.PACKET) if k in apart else t for k, t in enumerate(traits)]
    size = kinds.size.copy()
    size[apart] = MSIZE
    clusters = np.full(len(apart), MCLBYTES, size.dtype)
    divided = kinds._replace(
        names=(*kinds.names, *(f"{kinds.names[k]}_cluster" for k in apart)),
        klass=np.append(kinds.klass, kinds.klass[apart]),
        size=np.append(size, clusters),
        growth=np.append(kinds.growth, kinds.growth[apart]),
        limit=np.append(kinds.limit, kinds.limit[apart]),
        traits=(*traits, *(traits[k] for k in apart)),
    )
    return divided, second


def _split(stream: Stream, second: np.ndarray, closed: bool) -> Stream:
    """Put an operation on a cluster behind each on a packet's mbuf. The cluster's slot is the packet's, further up."""
    apart = second[stream.kind] >= 0
    times = 1 + apart
    behind = np.zeros(int(times.sum()), bool)
    behind[np.cumsum(times)[apart] - 1] = True
    columns = {name: np.repeat(getattr(stream, name), times) for name in Stream._fields[:-1]}
    allocates = columns["op"] != FREE
    first = np.repeat(apart, times) & ~behind
    columns["size"][first & allocates] = MSIZE
    columns["size"][behind & allocates] = MCLBYTES
    columns["kind"][behind] = second[columns["kind"][behind]]
    columns["slot"][behind] += stream.slots
    if closed:
        columns["time_ns"][behind] = 0
    return stream_of(columns.values(), 2 * stream.slots)
