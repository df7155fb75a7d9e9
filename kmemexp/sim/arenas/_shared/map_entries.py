"""The sorted entry list of a vm_map: search, insertion, merging, splitting (FreeBSD 4 and DragonFly vm_map.c, 2003).

Row `m` of the nodes is the header of map `m`: it closes the circular list, its start and end are the map's bounds, and
it is ATTR_SINGLE, so that it merges with nothing; the other rows are entries. Rows rather than an array per field: a
node lies in one or two cache lines, and kernels pass few arrays on. `st` is the State of `sim.arenas.vm_map`.
"""

from typing import Any

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Bytes, MapNo
from kmemexp.sim.slots import ATTR_KMEM, ATTR_PAGEABLE, ATTR_SINGLE, ATTR_WIRED, NO_ENTRY, NO_SPACE, PAGE, RECURSES

# Where entries come from.
FIXED = 0  # kmapentzone
RESERVE = 1  # mapentzone, through per-CPU reservations
ON_DEMAND = 2  # mapentzone, asked by the operation itself, which has its map locked

# Columns of a node.
START = 0  # bytes
END = 1
PREV = 2  # node
NEXT = 3  # node; links the free nodes too
ATTR = 4  # ATTR_*
NODE_COLUMNS = 5

# Columns of a map.
FIRST_FREE = 0  # node below which no search looks
HINT = 1  # node of the last lookup
FREE = 2  # free bytes
HIGH = 3  # highest end ever entered
WALKED = 4  # entries passed by searches
ENTRIES = 5  # entries in the map
MAP_COLUMNS = 6

# The entry supply.
FREE_NODE = 0  # head of the list of nodes given back; -1: empty
FRESH_NODE = 1  # first node never used
IN_USE = 2  # entries in maps
ZONE_FREE = 3  # items free in the entry zone
ZONE_MIN = 4  # zfreemin: the zone grows when it has no more than this
ZONE_PAGES = 5  # pages the zone has taken
ZONE_MAX_PAGES = 6  # FIXED: pages of KVA set aside for it
AVAIL = 7  # AVAIL + c, RESERVE: entries of CPU c beyond its standing reserve


@outlined
def enter(st: Any, map_no: MapNo, nbytes: Bytes, align: int, attr: int) -> int:
    """vm_map_findspace, vm_map_insert and, for wired memory, vm_map_wire. Returns the address, NO_SPACE or NO_ENTRY."""
    addr = find_space(st, map_no, nbytes, align)
    if addr < 0:
        return NO_SPACE
    prev, _ = lookup(st, map_no, addr)
    if attr == ATTR_PAGEABLE and st.node[prev, ATTR] == ATTR_PAGEABLE and st.node[prev, END] == addr:
        st.node[prev, END] = addr + nbytes
        simplify(st, map_no, prev)
    else:
        node = create(st)
        if node < 0:
            return none_left(st)
        st.node[node, START], st.node[node, END], st.node[node, ATTR] = addr, addr + nbytes, attr
        link(st, map_no, prev, node)
        # The end of a header is the map's upper bound: the first entry always becomes first_free.
        if st.maps[map_no, FIRST_FREE] == prev and st.node[prev, END] >= addr:
            st.maps[map_no, FIRST_FREE] = node
        if attr == ATTR_WIRED or attr == ATTR_KMEM:
            lookup(st, map_no, addr)
            simplify(st, map_no, node)
    st.maps[map_no, FREE] -= nbytes
    st.maps[map_no, HIGH] = max(st.maps[map_no, HIGH], addr + nbytes)
    return addr


@kernel
def find_space(st: Any, map_no: MapNo, nbytes: Bytes, align: int) -> int:
    """First fit above first_free; the hint becomes the entry below the space. Returns the address or NO_SPACE."""
    align = max(align, 1)
    power_of_two = align & (align - 1) == 0
    entry = st.maps[map_no, FIRST_FREE]
    addr = st.node[map_no, START] if entry == map_no else st.node[entry, END]
    limit = st.node[map_no, END]
    passed = 0
    while True:
        if power_of_two:
            addr = (addr + align - 1) & -align
        else:
            addr = (addr + align - 1) // align * align
        if addr + nbytes > limit:
            addr = NO_SPACE
            break
        above = st.node[entry, NEXT]
        if above == map_no or st.node[above, START] >= addr + nbytes:
            st.maps[map_no, HINT] = entry
            break
        entry = above
        addr = st.node[entry, END]
        passed += 1
    st.maps[map_no, WALKED] += passed
    return addr


@kernel
def lookup(st: Any, map_no: MapNo, addr: Address) -> tuple[int, bool]:
    """vm_map_lookup_entry: (node that holds `addr`, True), or (the node before it, False); sets the hint."""
    node = st.maps[map_no, HINT]
    if node == map_no:
        node = st.node[map_no, NEXT]
    if addr >= st.node[node, START]:
        if node != map_no and st.node[node, END] > addr:
            return node, True  # the hint stays, even where it was the header
        last = map_no
    else:
        last = st.node[node, NEXT]
        node = st.node[map_no, NEXT]
    passed = 0
    while node != last and st.node[node, END] <= addr:
        node = st.node[node, NEXT]
        passed += 1
    st.maps[map_no, WALKED] += passed
    found = node != last and addr >= st.node[node, START]
    if not found:
        node = st.node[node, PREV]
    st.maps[map_no, HINT] = node
    return node, found


@outlined
def remove(st: Any, map_no: MapNo, addr: Address, stop: int) -> int:
    """vm_map_delete. Returns 0, or NO_ENTRY where the first entry could not be split: then nothing is removed."""
    node, found = lookup(st, map_no, addr)
    if found:
        if addr > st.node[node, START] and not clip_start(st, map_no, node, addr):
            return none_left(st)
        st.maps[map_no, HINT] = st.node[node, PREV]
    else:
        node = st.node[node, NEXT]
    if node == map_no:
        st.maps[map_no, FIRST_FREE] = map_no
    elif st.node[st.maps[map_no, FIRST_FREE], START] >= addr:
        st.maps[map_no, FIRST_FREE] = st.node[node, PREV]
    while node != map_no and st.node[node, START] < stop:
        if st.node[node, END] > stop and not clip_end(st, map_no, node, stop):
            return none_left(st)
        above = st.node[node, NEXT]
        st.maps[map_no, FREE] += st.node[node, END] - st.node[node, START]
        unlink(st, map_no, node)
        node = above
    return 0


@kernel
def none_left(st: Any) -> int:
    """What an operation answers that found no map entry."""
    return RECURSES if st.p.supply == ON_DEMAND else NO_ENTRY


@kernel
def clip_start(st: Any, map_no: MapNo, node: int, addr: Address) -> bool:
    """Split an entry at `addr`; `node` keeps the upper part. False: no entry to be had."""
    simplify(st, map_no, node)
    lower = create(st)
    if lower < 0:
        return False
    st.node[lower, START], st.node[lower, END], st.node[lower, ATTR] = st.node[node, START], addr, st.node[node, ATTR]
    st.node[node, START] = addr
    link(st, map_no, st.node[node, PREV], lower)
    return True


@kernel
def clip_end(st: Any, map_no: MapNo, node: int, addr: Address) -> bool:
    """Split an entry at `addr`; `node` keeps the lower part. False: no entry to be had."""
    upper = create(st)
    if upper < 0:
        return False
    st.node[upper, START], st.node[upper, END], st.node[upper, ATTR] = addr, st.node[node, END], st.node[node, ATTR]
    st.node[node, END] = addr
    link(st, map_no, node, upper)
    return True


@kernel
def simplify(st: Any, map_no: MapNo, node: int) -> None:
    """vm_map_simplify_entry: take in both neighbours where they abut and are alike. `node` survives."""
    attr = st.node[node, ATTR]
    if attr == ATTR_SINGLE:
        return
    below, above = st.node[node, PREV], st.node[node, NEXT]
    # A header is ATTR_SINGLE.
    if st.node[below, ATTR] == attr and st.node[below, END] == st.node[node, START]:
        st.node[node, START] = st.node[below, START]
        merge(st, map_no, below, node)
    if st.node[above, ATTR] == attr and st.node[above, START] == st.node[node, END]:
        st.node[node, END] = st.node[above, END]
        merge(st, map_no, above, node)


@kernel
def merge(st: Any, map_no: MapNo, gone: int, node: int) -> None:
    """Drop `gone`, which `node` has taken in."""
    if st.maps[map_no, FIRST_FREE] == gone:
        st.maps[map_no, FIRST_FREE] = node
    if st.maps[map_no, HINT] == gone:
        st.maps[map_no, HINT] = node
    unlink(st, map_no, gone)


@kernel
def link(st: Any, map_no: MapNo, prev: int, node: int) -> None:
    """Put an entry behind `prev`."""
    above = st.node[prev, NEXT]
    st.node[node, PREV], st.node[node, NEXT] = prev, above
    st.node[prev, NEXT] = st.node[above, PREV] = node
    st.maps[map_no, ENTRIES] += 1


@kernel
def unlink(st: Any, map_no: MapNo, node: int) -> None:
    """Take an entry out of the list and give it back to the supply."""
    below, above = st.node[node, PREV], st.node[node, NEXT]
    st.node[below, NEXT], st.node[above, PREV] = above, below
    st.maps[map_no, ENTRIES] -= 1
    supply = st.supply
    st.node[node, NEXT], supply[FREE_NODE] = supply[FREE_NODE], node
    supply[IN_USE] -= 1
    if st.p.supply != RESERVE:
        supply[ZONE_FREE] += 1


@kernel
def create(st: Any) -> int:
    """vm_map_entry_create: a node, or -1 when kmapentzone is used up (RESERVE took its entry beforehand)."""
    supply = st.supply
    if st.p.supply != RESERVE:
        if st.p.supply == ON_DEMAND and supply[ZONE_FREE] <= supply[ZONE_MIN]:
            return -1  # zget() wants kernel_map, which this very operation has locked
        if supply[ZONE_FREE] <= supply[ZONE_MIN] and supply[ZONE_PAGES] < supply[ZONE_MAX_PAGES]:
            # An item may straddle the pages of an interrupt zone.
            held = supply[ZONE_PAGES] * PAGE
            supply[ZONE_FREE] += (held + PAGE) // st.p.entry_bytes - held // st.p.entry_bytes
            supply[ZONE_PAGES] += 1
        if supply[ZONE_FREE] == 0:
            return -1
        supply[ZONE_FREE] -= 1
    supply[IN_USE] += 1
    node = supply[FREE_NODE]
    if node >= 0:
        supply[FREE_NODE] = st.node[node, NEXT]
    else:
        node = supply[FRESH_NODE]
        supply[FRESH_NODE] += 1
    return node
