"""Linux's vmalloc space: mm/vmalloc.c of Linux 6.12.

Lowest-address first fit, lazy freeing, pools of areas by size: one tree of free ranges (`tree`), and for each of up to
128 nodes pools of areas of exactly 1 … 256 pages (`pools`). An area belongs to the node of the CPU that asked for it.
Freeing only marks it: when more than `lazy_max_pages` are marked, one TLB flush covers them all, and each goes to its
node's pool, or to the tree if it is too large. Before that, every pool has given a quarter of its areas to the tree;
pools of less than four, all (the counter wraps). A request for which the tree has no room empties all pools and marked
areas into the tree, once, and tries again. With one CPU there are no pools.

An area is followed by a guard page, which counts as allocated. Submaps (ATTR_SINGLE) have none, are taken straight
from the tree and go straight back. Each map is such a space of its own. Free memory is all that is not in use: marked
and pooled areas count, since a request that fails drains them first; for the same reason measuring sees holes as they
would be after a drain. Alignment is that of the offset. Callers free exactly what they have allocated.

struct vmap_area comes from a slab cache outside these maps: it never runs out, and its pages are taken to be those of
the most objects ever in use.

Left out: vm_map_ram and its blocks, pages and page tables, the trees of busy areas (an area is found by its address),
NO_GUARD, purge notifiers, the shrinker of pools, workers that drain beside each other (a drain is done at once, by the
free that makes it due, node after node).
"""

import itertools

import numpy as np

from kmemexp.jit import entry, kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, MapNo, Shares, Words, int64
from kmemexp.sim.arenas._shared.measuring import count_hole, paint
from kmemexp.sim.arenas.vmap import tree as t
from kmemexp.sim.arenas.vmap.pools import HEAD, LENGTH, POOL_SIZES, drain, take_pooled
from kmemexp.sim.arenas.vmap.state import Params, State, lazy_max_pages
from kmemexp.sim.checks import insist
from kmemexp.sim.map_calls import VFREE, VMALLOC
from kmemexp.sim.slots import ATTR_SINGLE, NO_SPACE, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import gauge

CALLS = (VMALLOC, VFREE)
CPU_LOCK = "spin"  # vmap_node.pool.lock and its like, of the CPU's node

LEVELS = 3  # maps lie in maps: kernel_map, kmem_map, mb_map
MAX_NODES = 128
AREA_BYTES = 72  # sizeof(struct vmap_area)


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError for impossible nodes."""
    p = _resolved(params, cpus)
    rows = LEVELS * (kva_bytes >> PAGE_SHIFT)
    st = State(
        p,
        area=demand.zeros((rows, t.AREA_COLUMNS), demand.names(rows)),
        node=demand.zeros((rows // 2 + 2 * maps + 2, t.NODE_COLUMNS)),
        maps=np.zeros((maps, t.MAP_COLUMNS), np.int64),
        pools=np.zeros((maps * p.nodes * POOL_SIZES, 3), np.int64),
        pooled=np.zeros(maps * p.nodes, np.int64),
        chains=np.zeros((p.nodes, 4), np.int64),
        supply=np.zeros(t.SUPPLY_COLUMNS, np.int64),
    )
    st.supply[t.FRESH_NODE] = 1
    add_map(st, 0, 0, kva_bytes)
    return st


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if st.maps[map_no, t.TOP]:
        raise ValueError(f"map {map_no} is in use")
    row = int(st.supply[t.NEXT_ROW])
    if row + (nbytes >> PAGE_SHIFT) > len(st.area):
        raise ValueError(f"map {map_no}: maps may lie in each other {LEVELS} deep")
    st.supply[t.NEXT_ROW] += nbytes >> PAGE_SHIFT
    st.maps[map_no, [t.BASE, t.TOP, t.ROW, t.HIGH]] = base, base + nbytes, row, base
    st.maps[map_no, [t.LAZY_LOW, t.LAZY_TOP]] = base + nbytes, base
    n = int(st.supply[t.FRESH_NODE])
    st.supply[t.FRESH_NODE] += 1
    st.node[n, [t.START, t.END, t.LARGEST]] = base, base + nbytes, nbytes
    st.maps[map_no, [t.ROOT, t.HOLES]] = n, 1
    st.area[row, [t.KIND, t.PAGES]] = t.AREA_FREE, n
    entry(count_objects)(st)


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Allocate `nbytes` of map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    return allocate(st, map_no, nbytes, max(align, 1), attr, cpu)


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Free what `map_alloc` returned, whole. Returns 0."""
    release(st, map_no, addr)
    return 0


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT]); holes are those that a drain would leave.

    gauge.ENTRY_BYTES, the slab pages of struct vmap_area, belongs to all maps together and is reported by map 0 only.
    """
    out[:] = 0
    addr, top, hole = st.maps[map_no, t.BASE], st.maps[map_no, t.TOP], 0
    while addr < top:
        nbytes = t.extent(st, map_no, addr)
        if st.area[t.row_of(st, map_no, addr), t.KIND] == t.AREA_LIVE:
            count_hole(out, hole, addr)
            hole = 0
        else:
            hole += nbytes
        addr += nbytes
    count_hole(out, hole, top)
    out[gauge.ENTRIES] = st.maps[map_no, t.AREAS] + st.maps[map_no, t.HOLES]
    out[gauge.HIGH] = st.maps[map_no, t.HIGH] - st.maps[map_no, t.BASE]
    if map_no == 0:
        each = PAGE // AREA_BYTES
        out[gauge.ENTRY_BYTES] = (st.supply[t.PEAK] + each - 1) // each * PAGE


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    bins[:] = 0.0
    base, top = st.maps[map_no, t.BASE], st.maps[map_no, t.TOP]
    addr = base
    while addr < top:
        nbytes = t.extent(st, map_no, addr)
        if st.area[t.row_of(st, map_no, addr), t.KIND] == t.AREA_LIVE:
            paint(bins, base, top, addr, addr + nbytes)
        addr += nbytes


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """No search is linear here."""
    return 0


@kernel
def map_moved(st: State, map_no: MapNo) -> int:
    """Ranges that have been taken from the tree or put into it, under free_vmap_area_lock."""
    return st.maps[map_no, t.MOVED]


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Bytes of map `map_no` that are not in use: free, lazily freed or pooled."""
    return st.maps[map_no, t.TOP] - st.maps[map_no, t.BASE] - st.maps[map_no, t.LIVE]


@outlined
def allocate(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """alloc_vmap_area: from the pool of the CPU's node, else from the tree, else drain and try the tree again."""
    owner = 0
    addr = -1
    if attr != ATTR_SINGLE:
        nbytes += st.p.guard * PAGE
        if st.p.nodes > 1:
            owner = cpu % st.p.nodes + 1
            addr = take_pooled(st, map_no, owner - 1, nbytes >> PAGE_SHIFT, align)
    if addr < 0:
        addr = t.carve(st, map_no, nbytes, align)
        if addr < 0:
            st.maps[map_no, t.OVERFLOWS] += 1
            drain(st, map_no, 1)
            addr = t.carve(st, map_no, nbytes, align)
        if addr < 0:
            return NO_SPACE
        st.maps[map_no, t.AREAS] += 1
        count_objects(st)
    row = t.row_of(st, map_no, addr)
    st.area[row, t.KIND], st.area[row, t.PAGES] = t.AREA_LIVE, nbytes >> PAGE_SHIFT
    st.area[row, t.OWNER], st.area[row, t.ATTR] = owner, attr
    st.maps[map_no, t.LIVE] += nbytes
    st.maps[map_no, t.HIGH] = max(st.maps[map_no, t.HIGH], addr + nbytes)
    return addr


@kernel
def count_objects(st: State) -> None:
    """Keep the greatest number of struct vmap_area in use."""
    total = 0
    for map_no in range(len(st.maps)):
        total += st.maps[map_no, t.AREAS] + st.maps[map_no, t.HOLES]
    st.supply[t.PEAK] = max(st.supply[t.PEAK], total)


@outlined
def release(st: State, map_no: MapNo, addr: Address) -> None:
    """free_vmap_area_noflush: mark an area as free; too many of them are drained."""
    row = t.row_of(st, map_no, addr)
    if st.area[row, t.KIND] != t.AREA_LIVE:
        return
    pages = int64(st.area[row, t.PAGES])
    end = addr + (pages << PAGE_SHIFT)
    st.maps[map_no, t.LIVE] -= end - addr
    if st.area[row, t.ATTR] == ATTR_SINGLE:
        st.maps[map_no, t.AREAS] -= 1
        t.merge_or_add(st, map_no, addr, end)
        return
    st.area[row, t.KIND] = t.AREA_LAZY
    st.maps[map_no, t.LAZY] += pages
    st.maps[map_no, t.LAZY_LOW] = min(st.maps[map_no, t.LAZY_LOW], addr)
    st.maps[map_no, t.LAZY_TOP] = max(st.maps[map_no, t.LAZY_TOP], end)
    if st.maps[map_no, t.LAZY] > st.p.lazy_max_pages:
        drain(st, map_no, 0)


def nodes_for(cpus: int) -> int:
    """Number of vmap nodes."""
    return min(max(cpus, 1), MAX_NODES)


@kernel
def map_flushes(st: State, map_no: MapNo) -> int:
    """TLB flushes so far: one per drain."""
    return st.maps[map_no, t.FLUSHES]


def census(st: State) -> dict[str, int]:
    """Totals over all maps."""
    sums = st.maps.sum(axis=0).tolist()
    return {
        "entries": sums[t.AREAS] + sums[t.HOLES],
        "used_bytes": sums[t.LIVE],
        "lazy_pages": sums[t.LAZY],
        "pooled_pages": sums[t.POOLED],
        "pool_hits": sums[t.POOL_HITS],
        "tlb_flushes": sums[t.FLUSHES],
        "tlb_full_flushes": sums[t.FULL_FLUSHES],
        "overflows": sums[t.OVERFLOWS],
    }


def used(st: State, map_no: int) -> int:
    """Bytes of map `map_no` that are in use (by a submap, perhaps), with guard pages."""
    return int(st.maps[map_no, t.LIVE])


def ranges(st: State, map_no: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of the areas of map `map_no` in use, with their guard pages, in address order."""
    return [(addr, end, attr) for kind, addr, end, _, attr in _walk(st, map_no) if kind == t.AREA_LIVE]


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no` (slow, for tests)."""
    found, zone = _walk(st, map_no), st.maps[map_no]
    tree = _in_order(st, map_no)
    insist([(a, e) for kind, a, e, _, _ in found if kind == t.AREA_FREE] == tree, "tree and areas differ")
    insist(all(end < start for (_, end), (start, _) in itertools.pairwise(tree)), "free ranges not merged")
    areas = [f for f in found if f[0] != t.AREA_FREE]
    insist((len(areas), len(tree)) == (zone[t.AREAS], zone[t.HOLES]), "areas miscounted")
    sizes = {
        k: sum(e - a for kind, a, e, _, _ in areas if kind == k) for k in (t.AREA_LIVE, t.AREA_LAZY, t.AREA_POOLED)
    }
    insist(sizes[t.AREA_LIVE] == zone[t.LIVE], "bytes in use miscounted")
    insist(
        (sizes[t.AREA_LAZY], sizes[t.AREA_POOLED]) == (zone[t.LAZY] * PAGE, zone[t.POOLED] * PAGE), "pages miscounted"
    )
    insist(sum(sizes.values()) + sum(e - a for a, e in tree) == zone[t.TOP] - zone[t.BASE], "bytes lost")
    insist(zone[t.LAZY] <= max(st.p.lazy_max_pages, 0), "not drained")
    pooled = {a: (e - a) // PAGE for kind, a, e, _, _ in areas if kind == t.AREA_POOLED}
    owners = {a: owner for kind, a, _, owner, _ in areas if kind == t.AREA_POOLED}
    for node in range(st.p.nodes):
        total = 0
        for pages in range(1, POOL_SIZES + 1):
            listed = pool(st, map_no, node, pages)
            insist(all(pooled.pop(a) == pages and owners[a] == node + 1 for a in listed), "area in a wrong pool")
            insist(
                len(listed) == st.pools[(map_no * st.p.nodes + node) * POOL_SIZES + pages - 1, LENGTH],
                "pool miscounted",
            )
            total += len(listed)
        insist(total == st.pooled[map_no * st.p.nodes + node], "node's areas miscounted")
    insist(not pooled, "areas in no pool")


def pool(st: State, map_no: int, node: int, pages: int) -> list[int]:
    """Addresses of the areas in a node's pool for that many pages, in the order in which they will be used."""
    base, first = st.maps[map_no, [t.BASE, t.ROW]].tolist()
    addresses, link = [], int(st.pools[(map_no * st.p.nodes + node) * POOL_SIZES + pages - 1, HEAD])
    while link:
        addresses.append(base + (link - 1 - first << PAGE_SHIFT))
        link = int(st.area[link - 1, t.LINK])
    return addresses


def _walk(st: State, map_no: int) -> list[tuple[int, int, int, int, int]]:
    """(kind, start, end, owner, attribute) of all areas and free ranges in address order."""
    found = []
    addr, top, row = st.maps[map_no, [t.BASE, t.TOP, t.ROW]].tolist()
    while addr < top:
        kind, value, owner, attr, _ = st.area[row].tolist()
        end = int(st.node[value, t.END]) if kind == t.AREA_FREE else addr + (value << PAGE_SHIFT)
        found.append((kind, addr, end, owner, attr))
        addr, row = end, row + (end - addr >> PAGE_SHIFT)
    return found


def _in_order(st: State, map_no: int) -> list[tuple[int, int]]:
    """(start, end) of the tree's nodes in order; asserts that it is balanced and its sizes are right."""
    found = []

    def visit(n: int, parent: int) -> int:
        if n == 0:
            return 1
        start, end, up, left, right, largest, red = st.node[n].tolist()
        insist(up == parent, "broken link")
        insist(not (red and st.node[parent, t.RED]), "two red nodes in a row")
        black = visit(left, n)
        found.append((start, end))
        insist(visit(right, n) == black, "unequal number of black nodes")
        insist(largest == max(end - start, st.node[left, t.LARGEST], st.node[right, t.LARGEST]), "wrong largest size")
        return black + (not red)

    visit(int(st.maps[map_no, t.ROOT]), 0)
    insist(st.node[0].tolist() == [0] * t.NODE_COLUMNS, "something was written to no node")
    return found


def _resolved(p: Params, cpus: int) -> Params:
    """Fill in what is 0, by the rule of the real kernel."""
    if not 0 <= p.nodes <= MAX_NODES:
        raise ValueError(f"nodes = {p.nodes}: must lie in 0 … {MAX_NODES}")
    lazy = p.lazy_max_pages or lazy_max_pages(cpus)
    return p._replace(guard=int(p.guard != 0), nodes=p.nodes or nodes_for(cpus), lazy_max_pages=max(lazy, 0))
