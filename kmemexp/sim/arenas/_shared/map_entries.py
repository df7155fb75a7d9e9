"""The sorted entry list of a vm_map: search, insertion, merging, splitting (FreeBSD 4 and DragonFly vm_map.c, 2003).

Row `m` of the nodes is the header of map `m`: it closes the circular list, its start and end are the map's bounds, and
it is ATTR_SINGLE, so that it merges with nothing; the other rows are entries. Rows rather than an array per field: a
node lies in one or two cache lines, and kernels pass few arrays on. `st` is the State of `sim.arenas.vm_map`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.slots import ATTR_PAGEABLE, ATTR_SINGLE, ATTR_WIRED, NO_ENTRY, NO_SPACE, PAGE, RECURSES

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
def enter(st, m, nbytes, align, attr):
    """vm_map_findspace, vm_map_insert and, for wired memory, vm_map_wire. Returns the address, NO_SPACE or NO_ENTRY."""
    addr = find_space(st, m, nbytes, align)
    if addr < 0:
        return NO_SPACE
    prev, _ = lookup(st, m, addr)
    if attr == ATTR_PAGEABLE and st.node[prev, ATTR] == ATTR_PAGEABLE and st.node[prev, END] == addr:
        st.node[prev, END] = addr + nbytes
        simplify(st, m, prev)
    else:
        node = create(st)
        if node < 0:
            return none_left(st)
        st.node[node, START], st.node[node, END], st.node[node, ATTR] = addr, addr + nbytes, attr
        link(st, m, prev, node)
        # The end of a header is the map's upper bound: the first entry always becomes first_free.
        if st.maps[m, FIRST_FREE] == prev and st.node[prev, END] >= addr:
            st.maps[m, FIRST_FREE] = node
        if attr == ATTR_WIRED:
            lookup(st, m, addr)
            simplify(st, m, node)
    st.maps[m, FREE] -= nbytes
    st.maps[m, HIGH] = max(st.maps[m, HIGH], addr + nbytes)
    return addr


@kernel
def find_space(st, m, nbytes, align):
    """First fit above first_free; the hint becomes the entry below the space. Returns the address or NO_SPACE."""
    align = max(align, 1)
    power_of_two = align & (align - 1) == 0
    entry = st.maps[m, FIRST_FREE]
    addr = st.node[m, START] if entry == m else st.node[entry, END]
    limit = st.node[m, END]
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
        if above == m or st.node[above, START] >= addr + nbytes:
            st.maps[m, HINT] = entry
            break
        entry = above
        addr = st.node[entry, END]
        passed += 1
    st.maps[m, WALKED] += passed
    return addr


@kernel
def lookup(st, m, addr):
    """vm_map_lookup_entry: (node that holds `addr`, True), or (the node before it, False); sets the hint."""
    node = st.maps[m, HINT]
    if node == m:
        node = st.node[m, NEXT]
    if addr >= st.node[node, START]:
        if node != m and st.node[node, END] > addr:
            return node, True  # the hint stays, even where it was the header
        last = m
    else:
        last = st.node[node, NEXT]
        node = st.node[m, NEXT]
    passed = 0
    while node != last and st.node[node, END] <= addr:
        node = st.node[node, NEXT]
        passed += 1
    st.maps[m, WALKED] += passed
    found = node != last and addr >= st.node[node, START]
    if not found:
        node = st.node[node, PREV]
    st.maps[m, HINT] = node
    return node, found


@outlined
def remove(st, m, addr, stop):
    """vm_map_delete. Returns 0, or NO_ENTRY where the first entry could not be split: then nothing is removed."""
    node, found = lookup(st, m, addr)
    if found:
        if addr > st.node[node, START] and not clip_start(st, m, node, addr):
            return none_left(st)
        st.maps[m, HINT] = st.node[node, PREV]
    else:
        node = st.node[node, NEXT]
    if node == m:
        st.maps[m, FIRST_FREE] = m
    elif st.node[st.maps[m, FIRST_FREE], START] >= addr:
        st.maps[m, FIRST_FREE] = st.node[node, PREV]
    while node != m and st.node[node, START] < stop:
        if st.node[node, END] > stop and not clip_end(st, m, node, stop):
            return none_left(st)
        above = st.node[node, NEXT]
        st.maps[m, FREE] += st.node[node, END] - st.node[node, START]
        unlink(st, m, node)
        node = above
    return 0


@kernel
def none_left(st):
    """What an operation answers that found no map entry."""
    return RECURSES if st.p.supply == ON_DEMAND else NO_ENTRY


@kernel
def clip_start(st, m, node, addr):
    """Split an entry at `addr`; `node` keeps the upper part. False: no entry to be had."""
    simplify(st, m, node)
    lower = create(st)
    if lower < 0:
        return False
    st.node[lower, START], st.node[lower, END], st.node[lower, ATTR] = st.node[node, START], addr, st.node[node, ATTR]
    st.node[node, START] = addr
    link(st, m, st.node[node, PREV], lower)
    return True


@kernel
def clip_end(st, m, node, addr):
    """Split an entry at `addr`; `node` keeps the lower part. False: no entry to be had."""
    upper = create(st)
    if upper < 0:
        return False
    st.node[upper, START], st.node[upper, END], st.node[upper, ATTR] = addr, st.node[node, END], st.node[node, ATTR]
    st.node[node, END] = addr
    link(st, m, node, upper)
    return True


@kernel
def simplify(st, m, node):
    """vm_map_simplify_entry: take in both neighbours where they abut and are alike. `node` survives."""
    attr = st.node[node, ATTR]
    if attr == ATTR_SINGLE:
        return
    below, above = st.node[node, PREV], st.node[node, NEXT]
    # A header is ATTR_SINGLE.
    if st.node[below, ATTR] == attr and st.node[below, END] == st.node[node, START]:
        st.node[node, START] = st.node[below, START]
        merge(st, m, below, node)
    if st.node[above, ATTR] == attr and st.node[above, START] == st.node[node, END]:
        st.node[node, END] = st.node[above, END]
        merge(st, m, above, node)


@kernel
def merge(st, m, gone, node):
    """Drop `gone`, which `node` has taken in."""
    if st.maps[m, FIRST_FREE] == gone:
        st.maps[m, FIRST_FREE] = node
    if st.maps[m, HINT] == gone:
        st.maps[m, HINT] = node
    unlink(st, m, gone)


@kernel
def link(st, m, prev, node):
    """Put an entry behind `prev`."""
    above = st.node[prev, NEXT]
    st.node[node, PREV], st.node[node, NEXT] = prev, above
    st.node[prev, NEXT] = st.node[above, PREV] = node
    st.maps[m, ENTRIES] += 1


@kernel
def unlink(st, m, node):
    """Take an entry out of the list and give it back to the supply."""
    below, above = st.node[node, PREV], st.node[node, NEXT]
    st.node[below, NEXT], st.node[above, PREV] = above, below
    st.maps[m, ENTRIES] -= 1
    s = st.supply
    st.node[node, NEXT], s[FREE_NODE] = s[FREE_NODE], node
    s[IN_USE] -= 1
    if st.p.supply != RESERVE:
        s[ZONE_FREE] += 1


@kernel
def create(st):
    """vm_map_entry_create: a node, or -1 when kmapentzone is used up (RESERVE took its entry beforehand)."""
    s = st.supply
    if st.p.supply != RESERVE:
        if st.p.supply == ON_DEMAND and s[ZONE_FREE] <= s[ZONE_MIN]:
            return -1  # zget() wants kernel_map, which this very operation has locked
        if s[ZONE_FREE] <= s[ZONE_MIN] and s[ZONE_PAGES] < s[ZONE_MAX_PAGES]:
            # An item may straddle the pages of an interrupt zone.
            held = s[ZONE_PAGES] * PAGE
            s[ZONE_FREE] += (held + PAGE) // st.p.entry_bytes - held // st.p.entry_bytes
            s[ZONE_PAGES] += 1
        if s[ZONE_FREE] == 0:
            return -1
        s[ZONE_FREE] -= 1
    s[IN_USE] += 1
    node = s[FREE_NODE]
    if node >= 0:
        s[FREE_NODE] = st.node[node, NEXT]
    else:
        node = s[FRESH_NODE]
        s[FRESH_NODE] += 1
    return node
