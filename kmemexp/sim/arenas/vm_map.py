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
from kmemexp.sim import slots
from kmemexp.sim.arenas._shared.map_entries import (
    ATTR,
    AVAIL,
    END,
    ENTRIES,
    FIRST_FREE,
    FIXED,
    FREE,
    FREE_NODE,
    FRESH_NODE,
    HIGH,
    HINT,
    IN_USE,
    MAP_COLUMNS,
    NEXT,
    NODE_COLUMNS,
    PREV,
    RESERVE,
    START,
    WALKED,
    ZONE_FREE,
    ZONE_MAX_PAGES,
    ZONE_MIN,
    ZONE_PAGES,
    enter,
    remove,
)
from kmemexp.sim.arenas._shared.measuring import count_hole, paint
from kmemexp.sim.slots import ATTR_WIRED, NO_ENTRY, PAGE

MAX_KMAPENT = 128  # entries in the kernel image, kmapentzone
MAX_MAPENT = 256  # the same, mapentzone, from 27 Aug 2003
MAXCPU = 16  # i386, 2003: with more CPUs, the kernel image holds their standing reserves too


class Params(NamedTuple):
    """What a sweep may change; the defaults are the real constants."""

    supply: int = FIXED  # FIXED (kmapentzone) or RESERVE (DragonFly, Oct 2003)
    entry_limit: int = 0  # FIXED: entries; 0: an eighth of the KVA's pages (the RAM's share is the composer's to know)
    entry_bytes: int = 48  # sizeof(struct vm_map_entry), i386
    boot_entries: int = 0  # entries in the kernel image; 0: MAX_KMAPENT or MAX_MAPENT
    reserve_count: int = 4  # MAP_RESERVE_COUNT: taken before an operation
    reserve_slop: int = 32  # MAP_RESERVE_SLOP: kept on a CPU
    cpu_entries: int = 8  # standing reserve of each CPU


class State(NamedTuple):
    """Maps and their entries."""

    p: Params
    node: np.ndarray  # int64[nodes, NODE_COLUMNS]: the headers of the maps, then entries
    maps: np.ndarray  # int64[maps, MAP_COLUMNS]
    supply: np.ndarray  # int64[AVAIL + cpus]


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError for an impossible supply."""
    p = _resolved(params, kva_bytes, cpus)
    # Entries cannot outnumber the pages of the KVA, but for one per submap: its range in the parent. The rows are
    # zeroed (ATTR_SINGLE is 0), so the system finds memory for them only as nodes come into use.
    nodes = kva_bytes // PAGE + 2 * maps
    st = State(
        p,
        node=np.zeros((nodes, NODE_COLUMNS), np.int64),
        maps=np.zeros((maps, MAP_COLUMNS), np.int64),
        supply=np.zeros(AVAIL + cpus, np.int64),
    )
    headers = np.arange(maps)
    st.node[:maps, PREV] = st.node[:maps, NEXT] = headers
    st.maps[:, FIRST_FREE] = st.maps[:, HINT] = headers
    s = st.supply
    s[FREE_NODE], s[FRESH_NODE] = -1, maps
    s[ZONE_FREE] = p.boot_entries - _standing(p, cpus)
    s[ZONE_MIN] = PAGE // p.entry_bytes
    s[ZONE_MAX_PAGES] = -(-p.entry_limit * p.entry_bytes // PAGE)
    add_map(st, 0, 0, kva_bytes)
    return st


def add_map(st: State, m: int, base: int, nbytes: int) -> None:
    """Give map `m`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if st.maps[m, ENTRIES]:
        raise ValueError(f"map {m} is in use")
    st.node[m, START] = st.maps[m, HIGH] = base
    st.node[m, END] = base + nbytes
    st.maps[m, FREE] = nbytes


@kernel
def map_alloc(st, m, nbytes, align, attr, cpu):
    """Find and enter `nbytes` in map `m` at a multiple of `align` (bytes). Returns it, NO_SPACE or NO_ENTRY."""
    if st.p.supply != RESERVE:
        return enter(st, m, nbytes, align, attr)
    if not reserve(st, cpu):
        return NO_ENTRY
    before = st.supply[IN_USE]
    addr = enter(st, m, nbytes, align, attr)
    release(st, cpu, st.p.reserve_count - (st.supply[IN_USE] - before))
    return addr


@kernel
def map_free(st, m, addr, nbytes, cpu):
    """Remove [addr, addr + nbytes) from map `m`, part of an entry or several. Returns 0 or NO_ENTRY."""
    if st.p.supply != RESERVE:
        return remove(st, m, addr, addr + nbytes)
    if not reserve(st, cpu):
        return NO_ENTRY
    before = st.supply[IN_USE]
    answer = remove(st, m, addr, addr + nbytes)
    release(st, cpu, st.p.reserve_count - (st.supply[IN_USE] - before))
    return answer


@outlined
def map_measure(st, m, out):
    """Write the state of map `m` into `out` (int64[M_COUNT]).

    M_ENTRY_BYTES, the pages of the entry zone, belongs to all maps together and is reported by map 0 only.
    """
    out[:] = 0
    base, node = st.node[m, START], m
    below = base
    while True:
        node = st.node[node, NEXT]
        hole = (st.node[m, END] if node == m else st.node[node, START]) - below
        count_hole(out, hole)
        if node == m:
            break
        below = st.node[node, END]
    out[slots.M_ENTRIES] = st.maps[m, ENTRIES]
    out[slots.M_HIGH] = st.maps[m, HIGH] - base
    out[slots.M_WALKED] = st.maps[m, WALKED]
    if m == 0:
        out[slots.M_ENTRY_BYTES] = st.supply[ZONE_PAGES] * PAGE


@outlined
def map_paint(st, m, bins):
    """Write the occupied share of each of len(bins) equal stretches of map `m` (float64, 0 … 1)."""
    bins[:] = 0.0
    base, top = st.node[m, START], st.node[m, END]
    node = st.node[m, NEXT]
    while node != m:
        paint(bins, base, top, st.node[node, START], st.node[node, END])
        node = st.node[node, NEXT]


@kernel
def map_walked(st, m):
    """Entries that searches of map `m` have passed."""
    return st.maps[m, WALKED]


@kernel
def map_free_bytes(st, m):
    """Free bytes of map `m`, without a walk."""
    return st.maps[m, FREE]


@kernel
def reserve(st, cpu):
    """vm_map_entry_reserve: False, and nothing reserved, when mapentzone is empty and cannot grow."""
    s = st.supply
    s[AVAIL + cpu] -= st.p.reserve_count
    in_hand = 0
    while s[AVAIL + cpu] < 0:
        # zget() ends with a reserve(0) of its own: its caller's item comes on top of what that one takes.
        if s[ZONE_FREE] <= s[ZONE_MIN] and grow(st, cpu):
            in_hand += 1
        elif s[ZONE_FREE] > 0:
            s[ZONE_FREE] -= 1
            s[AVAIL + cpu] += 1
        else:
            break
    s[AVAIL + cpu] += in_hand
    if s[AVAIL + cpu] >= 0:
        return True
    s[AVAIL + cpu] += st.p.reserve_count
    return False


@kernel
def release(st, cpu, count):
    """vm_map_entry_release: what is above the slop goes back to the zone."""
    s = st.supply
    s[AVAIL + cpu] += count
    excess = s[AVAIL + cpu] - st.p.reserve_slop
    if excess > 0:
        s[AVAIL + cpu] -= excess
        s[ZONE_FREE] += excess


@outlined
def grow(st, cpu):
    """Add a page to mapentzone, wired memory of kernel_map entered through the CPU's standing reserve; one item is out.

    False: kernel_map has no page.
    """
    s = st.supply
    before = s[IN_USE]
    if enter(st, 0, PAGE, 1, ATTR_WIRED) < 0:
        return False
    s[ZONE_PAGES] += 1
    s[ZONE_FREE] += PAGE // st.p.entry_bytes - 1
    s[AVAIL + cpu] -= s[IN_USE] - before
    return True


def census(st: State) -> dict[str, int]:
    """Totals over all maps and the state of the entry supply."""
    s = st.supply
    return {
        "entries": int(s[IN_USE]),
        "free_bytes": int(st.maps[:, FREE].sum()),
        "walked": int(st.maps[:, WALKED].sum()),
        "zone_pages": int(s[ZONE_PAGES]),
        "zone_free": int(s[ZONE_FREE]),
        "cpu_entries": int(s[AVAIL:].sum()) + _standing(st.p, len(s) - AVAIL),
    }


def used(st: State, m: int) -> int:
    """Bytes of map `m` that are allocated (to a submap, perhaps)."""
    return int(st.node[m, END] - st.node[m, START] - st.maps[m, FREE])


def ranges(st: State, m: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of the entries of map `m` in address order."""
    return [tuple(st.node[n, [START, END, ATTR]].tolist()) for n in _nodes(st, m)]


def check(st: State, m: int) -> None:
    """Assert what must hold of map `m` and of the entry supply (slow, for tests)."""
    nodes, entries = _nodes(st, m), ranges(st, m)
    base, top = st.node[m, [START, END]].tolist()
    edges = [base, *(x for start, end, _ in entries for x in (start, end)), top]
    assert edges == sorted(edges), "entries out of order, overlapping or out of bounds"
    assert all(start < end for start, end, _ in entries), "empty entry"
    assert sum(end - start for start, end, _ in entries) == used(st, m), "free bytes miscounted"
    assert len(entries) == st.maps[m, ENTRIES], "entries miscounted"
    assert all(st.node[st.node[n, PREV], NEXT] == n for n in [m, *nodes]), "broken link"
    assert {int(st.maps[m, FIRST_FREE]), int(st.maps[m, HINT])} <= {m, *nodes}, "first_free or hint of a dead entry"
    assert st.maps[m, HIGH] >= edges[-2]
    _check_supply(st)


def _check_supply(st: State) -> None:
    s, p, counts = st.supply, st.p, census(st)
    spare, node = 0, s[FREE_NODE]
    while node >= 0:
        spare, node = spare + 1, st.node[node, NEXT]
    assert s[FRESH_NODE] - len(st.maps) == s[IN_USE] + spare, "nodes lost"
    assert st.maps[:, ENTRIES].sum() == s[IN_USE], "entries miscounted"
    items = s[ZONE_PAGES] * PAGE // p.entry_bytes if p.supply == FIXED else s[ZONE_PAGES] * (PAGE // p.entry_bytes)
    assert counts["entries"] + counts["zone_free"] + counts["cpu_entries"] == p.boot_entries + items, "items lost"
    assert all(0 <= n <= p.reserve_slop for n in s[AVAIL:]), "reserve out of bounds"


def _nodes(st: State, m: int) -> list[int]:
    """Nodes of the entries of map `m` in address order."""
    nodes, node = [], int(st.node[m, NEXT])
    while node != m:
        nodes.append(node)
        node = int(st.node[node, NEXT])
    return nodes


def _standing(p: Params, cpus: int) -> int:
    """Entries in the standing reserves of all CPUs."""
    return p.cpu_entries * cpus if p.supply == RESERVE else 0


def _resolved(p: Params, kva_bytes: int, cpus: int) -> Params:
    """Fill in what is 0, by the rule of the real kernel."""
    boot = MAX_KMAPENT if p.supply == FIXED else MAX_MAPENT + p.cpu_entries * max(0, cpus - MAXCPU)
    p = p._replace(entry_limit=p.entry_limit or kva_bytes // PAGE // 8, boot_entries=p.boot_entries or boot)
    if not 0 < p.entry_bytes <= PAGE:
        raise ValueError(f"entry_bytes = {p.entry_bytes}: must lie in 1 … {PAGE}")
    if p.boot_entries < _standing(p, cpus):
        raise ValueError(f"boot_entries = {p.boot_entries}: less than the standing reserves, {_standing(p, cpus)}")
    # An operation takes two entries at most (a free in the middle of one), the zone's growth one.
    if p.supply == RESERVE and (p.reserve_count < 2 or p.cpu_entries < 1 or p.reserve_slop < 0):
        raise ValueError("reservation: needs reserve_count >= 2, cpu_entries >= 1 and reserve_slop >= 0")
    return p
