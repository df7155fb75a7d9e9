"""Linux's two kinds of kernel memory: the direct map of all pages is a buddy, all other maps are vmalloc space.

Map `DIRECT`, once it has been added, is a zone of `sim.arenas.buddy`, on a machine with several NUMA nodes several
of them by address and node (`zones`); the others are those of `sim.arenas.vmap`.
The direct map and all submaps are carved out of map 0 at boot (ATTR_SINGLE), without guard pages.

Where the load has user memory and page cache (`pressure`), these are in the same zones (`spreading`, `owners`),
requests go by watermarks (`gate`), page cache and, with swap, user memory are reclaimed (`reclaim`, `writeback`) and
pages are moved (`compact`). Else the zones are the kernel's alone, and give their last page.

Left out: what all of these leave out; zones by address on a machine of one node, unless `by_node` asks for them; with a
clock, that a CPU has a lock for its lists of each zone (it has one for all) and that a request may take the locks of
several zones (it takes that of the zone where its block is; where there is none, or several, of its CPU's first zone);
pages of vmalloc areas, which are not taken out of the direct map.
"""

from typing import Any

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import asking, demand, nodes
from kmemexp.sim.aliases import Address, Bytes, MapNo, Registers, Shares, Words
from kmemexp.sim.arenas import buddy, vmap
from kmemexp.sim.arenas.buddy import index as buddy_index
from kmemexp.sim.arenas.buddy import zone as z
from kmemexp.sim.arenas.linux_mm import contents, gate, owners, state, zones
from kmemexp.sim.arenas.linux_mm.spreading import spread
from kmemexp.sim.arenas.linux_mm.state import ANY_ZONE, Params, State
from kmemexp.sim.arenas.linux_mm.zones import zone_of
from kmemexp.sim.maps import DIRECT
from kmemexp.sim.slots import (
    ATTR_ATOMIC,
    ATTR_FILE,
    ATTR_LOW,
    ATTR_PAGEABLE,
    ATTR_RECLAIM,
    ATTR_SORT,
    ATTR_SPREAD,
    ATTR_TRY,
    NO_SPACE,
    PAGE_SHIFT,
    WHO_COUNT,
    WHO_SHIFT,
)
from kmemexp.sim.tables import flag, gauge, regs

CALLS = vmap.CALLS
CPU_LOCK = buddy.CPU_LOCK
SHARES_PAGES = True  # with user memory and page cache, if the load has any

KEPT = ATTR_RECLAIM | ATTR_TRY | ATTR_LOW | ATTR_SPREAD | ATTR_FILE | (WHO_COUNT - 1) << WHO_SHIFT


def init(params: Params, *, kva_bytes: int, cpus: int, maps: int) -> State:
    """Map 0 = [0, kva_bytes), the others empty until `add_map`. Raises ValueError as the two do."""
    fields = params._asdict()
    if params.pressure and params.plain:
        raise ValueError("plain = 1: a textbook buddy has no lists that reclaim could go by")
    areas = vmap.init(vmap.Params(**_of(vmap.Params._fields, fields)), kva_bytes=kva_bytes, cpus=cpus, maps=maps)
    tables = zones.tables(params, cpus)
    pages = buddy.empty(
        buddy.Params(**_of(buddy.Params._fields, fields)),
        kva_bytes=kva_bytes,
        cpus=cpus,
        maps=len(tables["zones"]),
        spare_lists=state.LISTS_BY_AGE * len(tables["nodes"]),
    )
    rows = len(pages.tag) if params.pressure else 1
    return State(
        params,
        areas,
        pages,
        owner=demand.zeros(rows, "int32"),
        mate=demand.zeros((rows, 2), "int32"),
        owners=demand.zeros((rows, state.OWNER_COLUMNS)),
        meters=np.zeros(state.METERS, np.int64),
        **tables,
    )


def add_map(st: State, map_no: int, base: int, nbytes: int) -> None:
    """Give map `map_no`, still empty, the range [base, base + nbytes), which its parent must have allocated."""
    if map_no != DIRECT:
        vmap.add_map(st.vmap, map_no, base, nbytes)
        return
    if zones.are_apart(st.p):
        zones.add(st, base, nbytes)
        return
    if not st.p.pressure:
        buddy.add_map(st.buddy, ANY_ZONE, base, nbytes)
        return
    pages = nbytes >> PAGE_SHIFT
    least = st.p.min_free_kib or buddy_index.min_free_with_huge_pages(pages, st.p.zones)
    buddy.add_map(st.buddy, ANY_ZONE, base, nbytes)
    zones.set_marks(st, ANY_ZONE, buddy_index.watermarks(pages, least), 0, st.buddy.p.cpus)


@kernel
def map_attr(reg: Registers, i: int, attr: int, server: int) -> int:
    """The attribute, whether the pages are reclaimable, how much a request is worth, and in what pieces it may come."""
    waits = 0 if reg[i, regs.FLAGS] & flag.NOWAIT == 0 else ATTR_ATOMIC
    return asking.sort_alone(reg, i, attr, server) | waits | attr & KEPT


@kernel
def map_alloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, attr: int, cpu: int) -> int:
    """Allocate `nbytes` of map `map_no` at a multiple of `align` (bytes). Returns the address or NO_SPACE."""
    if map_no != DIRECT:
        return vmap.map_alloc(st.vmap, map_no, nbytes, align, attr & ATTR_SORT, cpu)
    if st.p.pressure == 0 and len(st.zones) == 1:
        return buddy.map_alloc(st.buddy, ANY_ZONE, nbytes, align, attr & ATTR_SORT, cpu)
    return watched_alloc(st, nbytes >> PAGE_SHIFT, max(align, 1) >> PAGE_SHIFT, attr, cpu)


@outlined
def watched_alloc(st: State, pages: int, align: int, attr: int, cpu: int) -> int:
    """Allocate pages of a direct map that is shared, or has zones. Returns the address, a handle, or NO_SPACE."""
    if attr & ATTR_SPREAD:
        return spread(st, pages, attr, cpu)
    order = buddy.order_for(max(pages, align))
    sort = attr & ATTR_SORT
    if order > st.buddy.p.max_order or align & (align - 1):
        return contiguous(st, pages, align, sort, cpu)
    kind = z.UNMOVABLE
    if st.buddy.p.migrate:
        kind = z.MOVABLE if sort == ATTR_PAGEABLE else z.RECLAIMABLE if attr & ATTR_RECLAIM else z.UNMOVABLE
    if st.p.pressure:
        page = gate.get(st, order, kind, gate.class_of(attr), cpu)
    else:
        page = gate.alone(st, order, kind, gate.class_of(attr), cpu)
    return NO_SPACE if page < 0 else buddy.enter(st.buddy, zone_of(st, page), page, pages, 1 << order, sort)


@outlined
def contiguous(st: State, pages: int, align: int, sort: int, cpu: int) -> int:
    """Allocate more than the largest block, in the first zone that has so much. Returns the address or NO_SPACE."""
    for i in range(len(st.zones)):
        zone = st.zonelist[st.node_of[cpu], i]
        if zone < 0:
            break
        addr = buddy.allocate(st.buddy, zone, pages, align, sort, cpu)
        if addr != NO_SPACE:
            return addr
    return NO_SPACE


@kernel
def map_free(st: State, map_no: MapNo, addr: Address, nbytes: Bytes, cpu: int) -> int:
    """Free what `map_alloc` returned, whole, or what is left of it. Returns 0."""
    if map_no == DIRECT and addr >= owners.HANDLE:
        who = owners.owner_of(st, addr)
        if who >= 0:
            owners.end(st, who, cpu)
        return 0
    if map_no == DIRECT:
        return buddy.map_free(st.buddy, zone_of(st, addr >> PAGE_SHIFT), addr, nbytes, cpu)
    return vmap.map_free(st.vmap, map_no, addr, nbytes, cpu)


@outlined
def map_measure(st: State, map_no: MapNo, out: Words) -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT])."""
    if map_no == DIRECT:
        out[:] = 0
        for zone in range(len(st.zones)):
            buddy.add_measure(st.buddy, zone, st.buddy.maps[ANY_ZONE, z.BASE], out)
        for sort in range(3):
            out[gauge.ANON_PAGES + sort] = st.meters[state.PAGES_OF + sort]
        out[gauge.BY_KSWAPD], out[gauge.BY_REQUEST] = st.meters[state.BY_KSWAPD], st.meters[state.BY_REQUEST]
        out[gauge.STALLS], out[gauge.COMPACTIONS] = st.meters[state.STALLS], st.meters[state.COMPACTIONS]
        out[gauge.DIRTY], out[gauge.SWAPPED] = st.meters[state.DIRTY], st.meters[state.SWAP_USED]
        out[gauge.WRITTEN], out[gauge.WRITE_WAITS] = st.meters[state.WRITTEN], st.meters[state.WRITE_WAITS]
        out[gauge.GOT_BLOCK], out[gauge.MIGRATED] = st.meters[state.GOT_BLOCK], st.meters[state.MIGRATED]
    else:
        vmap.map_measure(st.vmap, map_no, out)


@outlined
def map_paint(st: State, map_no: MapNo, bins: Shares) -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    if map_no == DIRECT:
        bins[:] = 0.0
        base, top = st.buddy.maps[ANY_ZONE, z.BASE], st.buddy.maps[len(st.zones) - 1, z.TOP]
        for zone in range(len(st.zones)):
            buddy.add_paint(st.buddy, zone, bins, base, top)
    else:
        vmap.map_paint(st.vmap, map_no, bins)


@kernel
def map_walked(st: State, map_no: MapNo) -> int:
    """What searches of map `map_no` have passed one by one."""
    if map_no != DIRECT:
        return vmap.map_walked(st.vmap, map_no)
    return zones.total(st, z.WALKED)


@kernel
def map_moved(st: State, map_no: MapNo) -> int:
    """What has been moved under zone->lock, or under free_vmap_area_lock."""
    if map_no != DIRECT:
        return vmap.map_moved(st.vmap, map_no)
    return zones.total(st, z.MOVED)


@kernel
def map_free_bytes(st: State, map_no: MapNo) -> int:
    """Bytes of map `map_no` that are not in use."""
    if map_no != DIRECT:
        return vmap.map_free_bytes(st.vmap, map_no)
    return (zones.total(st, z.TOP) - zones.total(st, z.BASE) - zones.total(st, z.USED)) << PAGE_SHIFT


@kernel
def map_flushes(st: State, map_no: MapNo) -> int:
    """TLB flushes so far: none in the direct map, which stays mapped."""
    return 0 if map_no == DIRECT else vmap.map_flushes(st.vmap, map_no)


def census(st: State) -> dict[str, int]:
    """The counts of both, and the entries of both together."""
    pages, areas = buddy.census(st.buddy), vmap.census(st.vmap)
    return pages | areas | {"entries": pages["entries"] + areas["entries"]}


def used(st: State, map_no: int) -> int:
    """Bytes of map `map_no` that are in use (by a submap, perhaps)."""
    if map_no != DIRECT:
        return vmap.used(st.vmap, map_no)
    return sum(buddy.used(st.buddy, zone) for zone in range(len(st.zones)))


def ranges(st: State, map_no: int) -> list[tuple[int, int, int]]:
    """(start, end, attribute) of what is in use in map `map_no`, in address order."""
    if map_no != DIRECT:
        return vmap.ranges(st.vmap, map_no)
    return [found for zone in range(len(st.zones)) for found in buddy.ranges(st.buddy, zone)]


def check(st: State, map_no: int) -> None:
    """Assert what must hold of map `map_no` (slow, for tests)."""
    if map_no == DIRECT:
        for zone in range(len(st.zones)):
            buddy.check(st.buddy, zone)
        if st.p.pressure:
            contents.check(st)
    else:
        vmap.check(st.vmap, map_no)


def take_rounds(st: State) -> list[list[int]]:
    """Of each node its rounds of reclaim by priority (0 … 12) since this was last asked: so often ask shrinkers."""
    noted = st.nodes[:, state.ROUNDS :]
    rounds: list[list[int]] = noted.tolist()
    noted[:] = 0
    return rounds


def by_node(st: State) -> dict[str, list[Any]]:
    """What lies on each NUMA node; nothing where nodes are not told apart."""
    return zones.by_node(st) if len(st.nodes) > 1 else {}


def lock_zones(st: State) -> tuple[list[tuple[int, int]], list[int]]:
    """Zones of the direct map that have a lock each, [first address, end), and which of them each CPU asks first."""
    return zones.with_locks(st)


def node_bytes(params: Params, ram_bytes: int) -> int:
    """Bytes of the direct map that lie on each NUMA node but the last; 0: it is not divided by nodes."""
    if not zones.are_apart(params):
        return 0
    return nodes.span_pages(ram_bytes >> PAGE_SHIFT, max(params.domains, 1)) << PAGE_SHIFT


def _of(names: tuple[str, ...], fields: dict[str, int]) -> dict[str, int]:
    """Those of the fields that one of the two has."""
    return {name: fields[name] for name in names if name in fields}
