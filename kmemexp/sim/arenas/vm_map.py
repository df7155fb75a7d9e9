"""kernel_map and its submaps: FreeBSD RELENG_4 and DragonFly sys/vm/vm_map.c, August to October 2003.

Address-sorted map entries, lookup by a single hint, first fit upwards from `first_free`, alignment (25 Aug 2003),
simplification, clipping. Entries come from one of two supplies:

FIXED    kmapentzone, an interrupt zone whose KVA is set aside at boot (`sim.sizing` counts it). It takes one page at a
         time from that KVA and panics ("kernel resources exhausted", here NO_ENTRY) when all of it is in use.
RESERVE  DragonFly from 27 Aug 2003. An operation first reserves four entries on its CPU, filling the CPU's list from
         mapentzone, whose pages are wired kernel_map memory: the supply occupies the map it serves. The page for the
         zone is itself entered through the CPU's standing reserve. Above the slop, entries go back to the zone, but the
         zone never gives a page back.

ON_DEMAND  what 25 August 2003 would have come to with kmapentzone gone and reservations not yet there: an operation
         takes its entries from mapentzone while it has the map locked. When that zone must grow, it needs kernel_map,
         which is locked by the operation itself (RECURSES).

Addresses are offsets from VM_MIN_KERNEL_ADDRESS, and alignment is that of the offset. The list of entries itself, with
searching, merging and splitting, is `_shared.map_entries`.

Left out: locks and in-transition entries, protection and inheritance (all alike in kernel maps), the extra lookup after
pmap_growkernel, shortage of physical pages, entries of user maps (which share mapentzone with RESERVE), and mapentzone
for the few entries of exec_map and clean_map with FIXED. When mapentzone can no longer grow, the real zget() calls
itself until the stack ends; here the zone is used up and the operation answers NO_ENTRY.
"""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, MapNo, Registers, Shares, Table, Words
from kmemexp.sim.arenas._shared import map_entries
from kmemexp.sim.arenas._shared.map_entries import enter, remove
from kmemexp.sim.arenas._shared.measuring import count_hole, paint
from kmemexp.sim.checks import insist
from kmemexp.sim.map_calls import KMEM_ALLOC, KMEM_FREE
from kmemexp.sim.slots import ATTR_SORT, ATTR_WIRED, NO_ENTRY, PAGE
from kmemexp.sim.tables import gauge

CALLS = (KMEM_ALLOC, KMEM_FREE)  # of requests that go straight to the map; FreeBSD 5 locked kernel_object besides

MAX_KMAPENT = 128  # entries in the kernel image, kmapentzone
MAX_MAPENT = 256  # the same, mapentzone, from 27 Aug 2003
MAXCPU = 16  # i386, 2003: with more CPUs, the kernel image holds their standing reserves too


class Params(NamedTuple):
    """What a sweep may change; the defaults are the real constants."""

    supply: int = map_entries.FIXED  # FIXED (kmapentzone) or RESERVE (DragonFly, Oct 2003)
    entry_limit: int = 0  # FIXED: entries; 0: an eighth of the KVA's pages (the RAM's share is the composer's to know)
    entry_bytes: int = 48  # sizeof(struct vm_map_entry), i386
    boot_entries: int = 0  # entries in the kernel image; 0: MAX_KMAPENT or MAX_MAPENT
    reserve_count: int = 4  # MAP_RESERVE_COUNT: taken before an operation
    reserve_slop: int = 32  # MAP_RESERVE_SLOP: kept on a CPU
    cpu_entries: int = 8  # standing reserve of each CPU


class State(NamedTuple):
    """Maps and their entries."""

    p: Params
    node: Table  # int64[nodes, NODE_COLUMNS]: the headers of the maps, then entries
    maps: Table  # int64[maps, MAP_COLUMNS]
    supply: Words  # int64[AVAIL + cpus]


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError for an impossible supply."""
    p = _resolved(params, kva_bytes, cpus)
    # Entries cannot outnumber the pages of the KVA, but for one per submap: its range in the parent. The rows are
    # zeroed (ATTR_SINGLE is 0), so the system finds memory for them only as nodes come into use.
    nodes = kva_bytes // PAGE + 2 * maps
    st = State(
        p,
        node=demand.zeros((nodes, map_entries.NODE_COLUMNS)),
        maps=np.zeros((maps, map_entries.MAP_COLUMNS), np.int64),
        supply=np.zeros(map_entries.AVAIL + cpus, np.int64),
    )
    headers = np.arange(maps)
    st.node[:maps, map_entries.PREV] = st.node[:maps, map_entries.NEXT] = headers
    st.maps[:, map_entries.FIRST_FREE] = st.maps[:, map_entries.HINT] = headers
    supply = st.supply
    supply[map_entries.FREE_NODE], supply[map_entries.FRESH_NODE] = -1, maps
    supply[map_entries.ZONE_FREE] = p.boot_entries - _standing(p, cpus)
    supply[map_entries.ZONE_MIN] = PAGE // p.entry_bytes
    supply[map_entries.ZONE_MAX_PAGES] = -(-p.entry_limit * p.entry_bytes // PAGE)
    add_map(st, 0, 0, kva_bytes)
    return st


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if st.maps[map_no, map_entries.ENTRIES]:
        raise ValueError(f"map {map_no} is in use")
    st.node[map_no, map_entries.START] = st.maps[map_no, map_entries.HIGH] = base
    st.node[map_no, map_entries.END] = base + nbytes
    st.maps[map_no, map_entries.FREE] = nbytes


@kernel
def map_attr(reg: Registers, i: int, attr: int, server: int) -> int:
    """What an entry may merge with, its object among it."""
    return attr & ATTR_SORT


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Find and enter `nbytes` in map `map_no` at a multiple of `align` (bytes). Returns it, NO_SPACE or NO_ENTRY."""
    if st.p.supply != map_entries.RESERVE:
        return enter(st, map_no, nbytes, align, attr)
    if not reserve(st, cpu):
        return NO_ENTRY
    before = st.supply[map_entries.IN_USE]
    addr = enter(st, map_no, nbytes, align, attr)
    release(st, cpu, st.p.reserve_count - (st.supply[map_entries.IN_USE] - before))
    return addr


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Remove [addr, addr + nbytes) from map `map_no`, part of an entry or several. Returns 0 or NO_ENTRY."""
    if st.p.supply != map_entries.RESERVE:
        return remove(st, map_no, addr, addr + nbytes)
    if not reserve(st, cpu):
        return NO_ENTRY
    before = st.supply[map_entries.IN_USE]
    answer = remove(st, map_no, addr, addr + nbytes)
    release(st, cpu, st.p.reserve_count - (st.supply[map_entries.IN_USE] - before))
    return answer


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]).

    gauge.ENTRY_BYTES, the pages of the entry zone, belongs to all maps together and is reported by map 0 only.
    """
    out[:] = 0
    base, node = st.node[map_no, map_entries.START], map_no
    below = base
    while True:
        node = st.node[node, map_entries.NEXT]
        end = st.node[map_no, map_entries.END] if node == map_no else st.node[node, map_entries.START]
        count_hole(out, end - below, end)
        if node == map_no:
            break
        below = st.node[node, map_entries.END]
    out[gauge.ENTRIES] = st.maps[map_no, map_entries.ENTRIES]
    out[gauge.HIGH] = st.maps[map_no, map_entries.HIGH] - base
    out[gauge.WALKED] = st.maps[map_no, map_entries.WALKED]
    if map_no == 0:
        out[gauge.ENTRY_BYTES] = st.supply[map_entries.ZONE_PAGES] * PAGE


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    bins[:] = 0.0
    base, top = st.node[map_no, map_entries.START], st.node[map_no, map_entries.END]
    node = st.node[map_no, map_entries.NEXT]
    while node != map_no:
        paint(bins, base, top, st.node[node, map_entries.START], st.node[node, map_entries.END])
        node = st.node[node, map_entries.NEXT]


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """Entries that searches of map `map_no` have passed."""
    return st.maps[map_no, map_entries.WALKED]


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Free bytes of map `map_no`, without a walk."""
    return st.maps[map_no, map_entries.FREE]


@kernel
def reserve(st: State, cpu: int) -> bool:
    """vm_map_entry_reserve: False, and nothing reserved, when mapentzone is empty and cannot grow."""
    supply = st.supply
    supply[map_entries.AVAIL + cpu] -= st.p.reserve_count
    in_hand = 0
    while supply[map_entries.AVAIL + cpu] < 0:
        # zget() ends with a reserve(0) of its own: its caller's item comes on top of what that one takes.
        if supply[map_entries.ZONE_FREE] <= supply[map_entries.ZONE_MIN] and grow(st, cpu):
            in_hand += 1
        elif supply[map_entries.ZONE_FREE] > 0:
            supply[map_entries.ZONE_FREE] -= 1
            supply[map_entries.AVAIL + cpu] += 1
        else:
            break
    supply[map_entries.AVAIL + cpu] += in_hand
    if supply[map_entries.AVAIL + cpu] >= 0:
        return True
    supply[map_entries.AVAIL + cpu] += st.p.reserve_count
    return False


@kernel
def release(st: State, cpu: int, count: int) -> None:
    """vm_map_entry_release: what is above the slop goes back to the zone."""
    supply = st.supply
    supply[map_entries.AVAIL + cpu] += count
    excess = supply[map_entries.AVAIL + cpu] - st.p.reserve_slop
    if excess > 0:
        supply[map_entries.AVAIL + cpu] -= excess
        supply[map_entries.ZONE_FREE] += excess


@outlined
def grow(st: State, cpu: int) -> bool:
    """Add a page to mapentzone, wired memory of kernel_map entered through the CPU's standing reserve; one item is out.

    False: kernel_map has no page.
    """
    supply = st.supply
    before = supply[map_entries.IN_USE]
    if enter(st, 0, PAGE, 1, ATTR_WIRED) < 0:
        return False
    supply[map_entries.ZONE_PAGES] += 1
    supply[map_entries.ZONE_FREE] += PAGE // st.p.entry_bytes - 1
    supply[map_entries.AVAIL + cpu] -= supply[map_entries.IN_USE] - before
    return True


def census(st: State) -> dict[str, int]:
    """Totals over all maps and the state of the entry supply."""
    supply = st.supply
    return {
        "entries": int(supply[map_entries.IN_USE]),
        "free_bytes": int(st.maps[:, map_entries.FREE].sum()),
        "walked": int(st.maps[:, map_entries.WALKED].sum()),
        "zone_pages": int(supply[map_entries.ZONE_PAGES]),
        "zone_free": int(supply[map_entries.ZONE_FREE]),
        "cpu_entries": int(supply[map_entries.AVAIL :].sum()) + _standing(st.p, len(supply) - map_entries.AVAIL),
    }


def used(st: State, map_no: int) -> int:
    """Bytes of map `map_no` that are allocated (to a submap, perhaps)."""
    return int(
        st.node[map_no, map_entries.END] - st.node[map_no, map_entries.START] - st.maps[map_no, map_entries.FREE]
    )


def ranges(st: State, map_no: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of the entries of map `map_no` in address order."""
    return [
        tuple(st.node[n, [map_entries.START, map_entries.END, map_entries.ATTR]].tolist()) for n in _nodes(st, map_no)
    ]


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no` and of the entry supply (slow, for tests)."""
    nodes, entries = _nodes(st, map_no), ranges(st, map_no)
    base, top = st.node[map_no, [map_entries.START, map_entries.END]].tolist()
    edges = [base, *(x for start, end, _ in entries for x in (start, end)), top]
    insist(edges == sorted(edges), "entries out of order, overlapping or out of bounds")
    insist(all(start < end for start, end, _ in entries), "empty entry")
    insist(sum(end - start for start, end, _ in entries) == used(st, map_no), "free bytes miscounted")
    insist(len(entries) == st.maps[map_no, map_entries.ENTRIES], "entries miscounted")
    insist(all(st.node[st.node[n, map_entries.PREV], map_entries.NEXT] == n for n in [map_no, *nodes]), "broken link")
    insist(
        {int(st.maps[map_no, map_entries.FIRST_FREE]), int(st.maps[map_no, map_entries.HINT])} <= {map_no, *nodes},
        "first_free or hint of a dead entry",
    )
    insist(st.maps[map_no, map_entries.HIGH] >= edges[-2], "high water below an entry")
    _check_supply(st)


def _check_supply(st: State) -> None:
    supply, p, counts = st.supply, st.p, census(st)
    spare, node = 0, supply[map_entries.FREE_NODE]
    while node >= 0:
        spare, node = spare + 1, st.node[node, map_entries.NEXT]
    insist(supply[map_entries.FRESH_NODE] - len(st.maps) == supply[map_entries.IN_USE] + spare, "nodes lost")
    insist(st.maps[:, map_entries.ENTRIES].sum() == supply[map_entries.IN_USE], "entries miscounted")
    items = (
        supply[map_entries.ZONE_PAGES] * PAGE // p.entry_bytes
        if p.supply == map_entries.FIXED
        else supply[map_entries.ZONE_PAGES] * (PAGE // p.entry_bytes)
    )
    insist(counts["entries"] + counts["zone_free"] + counts["cpu_entries"] == p.boot_entries + items, "items lost")
    insist(all(0 <= n <= p.reserve_slop for n in supply[map_entries.AVAIL :]), "reserve out of bounds")


def _nodes(st: State, map_no: int) -> list[int]:
    """Nodes of the entries of map `map_no` in address order."""
    nodes, node = [], int(st.node[map_no, map_entries.NEXT])
    while node != map_no:
        nodes.append(node)
        node = int(st.node[node, map_entries.NEXT])
    return nodes


def _standing(p: Params, cpus: int) -> int:
    """Entries in the standing reserves of all CPUs."""
    return p.cpu_entries * cpus if p.supply == map_entries.RESERVE else 0


def _resolved(p: Params, kva_bytes: int, cpus: int) -> Params:
    """Fill in what is 0, by the rule of the real kernel."""
    boot = MAX_KMAPENT if p.supply == map_entries.FIXED else MAX_MAPENT + p.cpu_entries * max(0, cpus - MAXCPU)
    p = p._replace(entry_limit=p.entry_limit or kva_bytes // PAGE // 8, boot_entries=p.boot_entries or boot)
    if not 0 < p.entry_bytes <= PAGE:
        raise ValueError(f"entry_bytes = {p.entry_bytes}: must lie in 1 … {PAGE}")
    if p.boot_entries < _standing(p, cpus):
        raise ValueError(f"boot_entries = {p.boot_entries}: less than the standing reserves, {_standing(p, cpus)}")
    # An operation takes two entries at most (a free in the middle of one), the zone's growth one.
    if p.supply == map_entries.RESERVE and (p.reserve_count < 2 or p.cpu_entries < 1 or p.reserve_slop < 0):
        raise ValueError("reservation: needs reserve_count >= 2, cpu_entries >= 1 and reserve_slop >= 0")
    return p
