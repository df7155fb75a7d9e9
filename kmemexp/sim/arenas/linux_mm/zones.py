"""Zones of the direct map by address and node, as Linux has them on a machine with several NUMA nodes (6.12 to 6.18).

Node 0 has ZONE_DMA below 16 MiB and ZONE_DMA32 below 4 GiB; what is above that is a ZONE_NORMAL for each node. Each has
lists, per-CPU lists, a lock and watermarks of its own: its share of vm.min_free_kbytes by its pages
(__setup_per_zone_wmarks), and a reserve against requests that could do with a higher zone of the same node
(setup_per_zone_lowmem_reserve). A CPU asks its own node first, in it the highest zone first, then the other nodes by
distance, the next one by number first (find_next_best_node, build_zonelists).

Left out: that firmware, the kernel's image and struct page take pages from zones, and the hole below 4 GiB: pages are
numbered through from 0; nodes without memory or without CPUs; distances that differ (`fallback_order` knows them, no
machine here says them); ZONE_MOVABLE and ZONE_DEVICE; zone_reclaim_mode, which is 0. `st` is the State of `linux_mm`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import nodes as by_address
from kmemexp.sim.aliases import Array
from kmemexp.sim.arenas import buddy
from kmemexp.sim.arenas.buddy import index as buddy_index
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import state
from kmemexp.sim.arenas.linux_mm.state import Params, State
from kmemexp.sim.slots import PAGE_SHIFT

RATIO = {state.DMA: 256, state.DMA32: 256, state.NORMAL: 32}  # vm.lowmem_reserve_ratio
MAX_NODES = 1024  # MAX_NUMNODES
LOCAL, REMOTE = 10, 20  # LOCAL_DISTANCE, REMOTE_DISTANCE
MIB_PAGES = 256


class Zone(NamedTuple):
    """A zone: pages [first, end) of a node."""

    first: int
    end: int
    node: int
    kind: int

    @property
    def pages(self) -> int:
        """How many it has."""
        return self.end - self.first


def are_apart(p: Params) -> bool:
    """Whether the direct map is divided into zones."""
    return p.by_node == 2 or (p.by_node == 1 and p.domains > 1)


def divided(pages: int, nodes: int, dma: int, dma32: int) -> list[Zone]:
    """Zones of a machine of so many pages, by address; `dma`, `dma32`: pages at which these zones end."""
    span = by_address.span_pages(pages, nodes)
    cuts = {0, pages, *(span * n for n in range(1, nodes)), *(end for end in (dma, dma32) if 0 < end < pages)}
    found = []
    for first, end in pairwise(sorted(cuts)):
        kind = state.DMA if first < dma else state.DMA32 if first < dma32 else state.NORMAL
        found.append(Zone(first, end, min(first // span, nodes - 1), kind))
    return found


def reserves(zones: Sequence[Zone]) -> list[int]:
    """lowmem_reserve of each zone against requests that may have any."""
    return [
        sum(above.pages for above in zones if above.node == zone.node and above.kind > zone.kind) // RATIO[zone.kind]
        for zone in zones
    ]


def fallback_order(distance: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each node all nodes in the order in which its CPUs ask them; `distance` is the machine's table."""
    nodes, load, orders = range(len(distance)), [0] * len(distance), []
    for node in nodes:
        order = [node]
        while left := [n for n in nodes if n not in order]:
            near = {n: (distance[node][n] + (n < node)) * MAX_NODES + load[n] for n in left}
            best = min(left, key=near.__getitem__)
            if distance[node][best] != distance[node][order[-1]]:
                load[best] += 1
            order.append(best)
        orders.append(order)
    return orders


def zone_lists(zones: Sequence[Zone], orders: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers of the zones in the order in which each node's CPUs ask them."""
    return [
        [i for node in order for i in reversed(range(len(zones))) if zones[i].node == node]  # the highest zone first
        for order in orders
    ]


def tables(p: Params, cpus: int) -> dict[str, Array]:
    """Tables of a State whose direct map has not been added: one zone, or none that anybody asks."""
    nodes = max(p.domains, 1) if are_apart(p) else 1
    if nodes > cpus:
        raise ValueError(f"domains is {nodes}, but there are {cpus} CPUs: a node without a CPU is not modelled")
    rows = nodes + 2 if are_apart(p) else 1
    if rows > 1 and (
        1 << min(p.pageblock_order, p.max_order) > by_address.LARGEST_BLOCK or p.dma_mib % 4 or p.dma32_mib % 4
    ):
        raise ValueError("by_node: zones begin at multiples of 4 MiB, and pageblocks must not be larger")
    node_of = np.arange(cpus, dtype=np.int64) * nodes // cpus
    table = np.zeros((nodes, state.NODE_COLUMNS), np.int64)
    table[:, state.END_ZONE] = 1 if rows == 1 else 0
    table[:, state.LAST_CPU] = np.searchsorted(node_of, np.arange(nodes), side="right") - 1
    return {
        "zones": np.zeros((rows, state.ZONE_COLUMNS), np.int64),
        "nodes": table,
        "zonelist": np.full((2 * nodes, rows), 0 if rows == 1 else -1, np.int64),
        "node_of": node_of,
    }


def add(st: State, base: int, nbytes: int) -> None:
    """Divide the direct map [base, base + nbytes) into zones, and set their limits. Raises ValueError."""
    pages, first = nbytes >> PAGE_SHIFT, base >> PAGE_SHIFT
    if first % by_address.LARGEST_BLOCK:
        raise ValueError(f"by_node: the direct map begins at page {first}, which is no multiple of 4 MiB")
    nodes = len(st.nodes)
    found = divided(pages, nodes, st.p.dma_mib * MIB_PAGES, st.p.dma32_mib * MIB_PAGES)
    least = st.p.min_free_kib
    if not least and st.p.pressure:
        least = buddy_index.min_free_with_huge_pages(pages, len(found))
    least = least or buddy_index.watermarks(pages).min_free_kib
    for i, (zone, reserve) in enumerate(zip(found, reserves(found), strict=True)):
        buddy.add_map(st.buddy, i, base + (zone.first << PAGE_SHIFT), zone.pages << PAGE_SHIFT)
        cpus = int((st.node_of == zone.node).sum())
        set_marks(st, i, buddy_index.watermarks(zone.pages, least, pages), reserve, cpus)
        st.zones[i, [state.NODE, state.KIND]] = zone.node, zone.kind
    for i in range(len(found), len(st.zones)):  # there are fewer than there could be
        st.buddy.maps[i, [z.BASE, z.TOP]] = first + pages
    for n in range(nodes):
        own = [i for i, zone in enumerate(found) if zone.node == n]
        st.nodes[n, [state.FIRST_ZONE, state.END_ZONE]] = own[0], own[-1] + 1
    distance = [[LOCAL if a == b else REMOTE for b in range(nodes)] for a in range(nodes)]
    lowest = min(zone.kind for zone in found)
    for n, order in enumerate(zone_lists(found, fallback_order(distance))):
        st.zonelist[n, : len(order)] = order
        low = [i for i in order if found[i].kind == lowest or lowest != state.DMA]
        st.zonelist[nodes + n, : len(low)] = low


def set_marks(st: State, zone: int, marks: buddy_index.Watermarks, reserve: int, cpus: int) -> None:
    """Set what a zone keeps back, and the bounds of the lists of its node's CPUs."""
    st.zones[zone, [state.MIN, state.LOW, state.HIGH]] = marks.minimum, marks.low, marks.high
    st.zones[zone, state.RESERVE] = reserve
    pages = int(st.buddy.maps[zone, z.TOP] - st.buddy.maps[zone, z.BASE])
    buddy.set_limits(st.buddy, zone, marks.high + reserve, buddy_index.pcp_limits(pages, cpus, marks.low))
    st.buddy.maps[zone, z.BOOST_MAX] = buddy_index.most_boost(pages, marks.high) if st.p.pressure else 0


def buddyinfo(st: Any) -> list[tuple[int, int, list[int]]]:
    """Each zone's node and kind, and its free blocks by order: /proc/buddyinfo."""
    return [
        (int(zone[state.NODE]), int(zone[state.KIND]), buddy.free_blocks(st.buddy, i))
        for i, zone in enumerate(st.zones)
        if st.buddy.maps[i, z.TOP] > st.buddy.maps[i, z.BASE]
    ]


def by_node(st: Any) -> dict[str, list[Any]]:
    """Of each node its free blocks by order (buddyinfo), its owners' pages, and where blocks came from (numastat)."""
    info, count = buddyinfo(st), range(len(st.nodes))
    orders = range(st.buddy.p.max_order + 1)
    return {
        "free_blocks": [[sum(own[order] for node, _, own in info if node == n) for order in orders] for n in count],
        "held": st.nodes[:, state.HELD : state.HITS].tolist(),
        "hits": st.nodes[:, state.HITS].tolist(),
        "misses": st.nodes[:, state.MISSES].tolist(),
    }


def with_locks(st: Any) -> tuple[list[tuple[int, int]], list[int]]:
    """Address ranges of the zones, and the first one of each CPU's zonelist; nothing where there is one zone."""
    ends = st.buddy.maps[:, [z.BASE, z.TOP]] << PAGE_SHIFT
    ranges = [(first, end) for first, end in ends.tolist() if end > first]
    return (ranges, st.zonelist[st.node_of, 0].tolist()) if len(ranges) > 1 else ([], [])


@kernel
def total(st: State, column: int) -> int:
    """Sum of a column of the buddy allocator's maps over all zones."""
    found = 0
    for zone in range(len(st.zones)):
        found += st.buddy.maps[zone, column]
    return found


@kernel
def zone_of(st: State, page: int) -> int:
    """The zone that a page lies in."""
    zone = len(st.zones) - 1
    while page < st.buddy.maps[zone, z.BASE]:
        zone -= 1
    return zone


@kernel
def node_of_page(st: State, page: int) -> int:
    """The node that a page lies on."""
    return st.zones[zone_of(st, page), state.NODE]


@kernel
def free_on(st: State, node: int) -> int:
    """Free pages on the lists of a node's zones."""
    free = 0
    for zone in range(st.nodes[node, state.FIRST_ZONE], st.nodes[node, state.END_ZONE]):
        free += st.buddy.maps[zone, z.FREE]
    return free


@kernel
def high_on(st: State, node: int, least: int) -> int:
    """Sum of the high watermarks of a node's zones, each of them `least` at least."""
    high = 0
    for zone in range(st.nodes[node, state.FIRST_ZONE], st.nodes[node, state.END_ZONE]):
        high += max(st.zones[zone, state.HIGH], least)
    return high
