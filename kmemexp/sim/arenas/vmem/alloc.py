"""FreeBSD's vmem_xalloc, vmem_xfree, imports, tags and quantum caches; `st` is the State of `arenas.vmem`."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Bytes, MapNo
from kmemexp.sim.arenas._shared import segments as g
from kmemexp.sim.arenas._shared.powers import log2, lowest_bit, round_up
from kmemexp.sim.arenas.vmem.state import BEST_FIT, FIRST_FIT, NEXT_FIT, State
from kmemexp.sim.slots import ATTR_SINGLE, ATTR_WIRED, NO_SPACE, PAGE, PAGE_SHIFT

EXACT_LISTS = 32  # VMEM_OPTVALUE: lists of one size each
BT_MAXALLOC = 4  # tags in hand before an allocation
BT_MAXFREE = 32  # tags in hand after a free

# What NOTE says of a range in use.
ATTRIBUTE = 3  # ATTR_*
UNCACHED = 4  # from xalloc: its free passes the quantum cache by
IMPORT = 16  # in kernel_map: the arena of map 0 has it; in that: the arena of a domain has it
BESIDE = 32  # in kernel_map, beside the arena
DOMAIN_SHIFT = 6  # above: 1 + domain whose arena it lies in

SUPERPAGE = 2 << 20  # what domains import is aligned to, whatever the quantum
SEVERAL = 128  # superpages in the quantum of a machine of several domains

# Columns of State.arena.
QCACHE = g.OWN  # bytes of the largest cached size
CACHED_BYTES = g.OWN + 1

# State.supply: the tag zone.
ZONE_FREE = g.SUPPLY  # tags
ZONE_PAGES = g.SUPPLY + 1
PER_PAGE = g.SUPPLY + 2  # tags of a page
RESERVE = g.SUPPLY + 3  # tags for those who bring new pages
NO_TAGS = g.SUPPLY + 4  # requests that got none
IMPORTS = g.SUPPLY + 5
IMPORTED = g.SUPPLY + 6  # bytes
LIMIT = g.SUPPLY + 7  # LIMIT + k: ranges of k + 1 pages in a CPU's quantum cache
SUPPLY = LIMIT - g.SUPPLY


@kernel
def kernel_map(st: State) -> int:
    """Number of the arena that stands for kernel_map itself."""
    return len(st.arena) - 1


@kernel
def size_list(pages: int) -> int:
    """Free list of segments of that many pages (SIZE2ORDER)."""
    return pages - 1 if pages <= EXACT_LISTS else log2(pages) + 26


@kernel
def give(st: State, a: int, row: int) -> None:
    """Put a segment on its free list."""
    g.push(st, a, row, size_list(g.size(st, row) >> PAGE_SHIFT))


@outlined
def clip(st: State, a: int, row: int, addr: Address, nbytes: Bytes, note: int) -> int:
    """vmem_clip(): take [addr, addr + nbytes) out of a free segment. `row` becomes what lies above, if there is any."""
    g.pull(st, a, row)
    start, stop = st.seg[row, g.START], addr + nbytes
    if start < addr:
        low = g.insert(st, a, st.seg[row, g.PREV], g.FREE, start, addr)
        st.seg[row, g.START] = addr
        give(st, a, low)
    if stop < st.seg[row, g.END]:
        busy = g.insert(st, a, st.seg[row, g.PREV], g.BUSY, addr, stop)
        st.seg[row, g.START] = stop
        give(st, a, row)
    else:
        busy = row
    g.occupy(st, a, busy, note)
    return busy


@outlined
def xalloc(st: State, map_no: MapNo, nbytes: Bytes, align: int, note: int, drains: int) -> int:
    """vmem_xalloc(). `drains`: it may empty the quantum caches. Returns the address or NO_SPACE."""
    if st.arena[map_no, g.HAND] < BT_MAXALLOC and not fill(st, map_no):
        st.supply[NO_TAGS] += 1
        return NO_SPACE
    return place(st, map_no, nbytes, align, st.p.strategy, note, drains)


@outlined
def place(st: State, map_no: MapNo, nbytes: Bytes, align: int, strategy: int, note: int, drains: int) -> int:
    """The same with four tags in hand."""
    if strategy == NEXT_FIT:
        return next_fit(st, map_no, nbytes, align, note, drains)
    row = search(st, map_no, nbytes, align, strategy)
    while row == 0:
        if strategy == BEST_FIT and not fetch(st, map_no, nbytes, align, drains):
            return NO_SPACE
        strategy = BEST_FIT
        row = search(st, map_no, nbytes, align, strategy)
    addr = g.fit(st, row, nbytes, align)
    clip(st, map_no, row, addr, nbytes, note)
    return addr


@kernel
def search(st: State, map_no: MapNo, nbytes: Bytes, align: int, strategy: int) -> int:
    """First free segment that a request fits in, in the order of the free lists, or 0."""
    pages = nbytes >> PAGE_SHIFT
    k = size_list(pages)
    # FIRST_FIT begins where any segment is large enough.
    if strategy == FIRST_FIT and pages > EXACT_LISTS and pages & (pages - 1):
        k += 1
    found, passed = 0, 0
    bits = st.arena[map_no, g.BITS] >> k << k
    while bits and not found:
        row = st.lists[map_no, lowest_bit(bits)]
        while row:
            if g.fit(st, row, nbytes, align) >= 0:
                found = row
                break
            passed += 1
            if strategy == FIRST_FIT:
                break
            row = st.seg[row, g.MORE]
        bits &= bits - 1
    st.arena[map_no, g.WALKED] += passed
    return found


@outlined
def next_fit(st: State, map_no: MapNo, nbytes: Bytes, align: int, note: int, drains: int) -> int:
    """vmem_xalloc_nextfit(): round the segments from the cursor on, which then stands behind what was taken."""
    rotor = map_no + len(st.arena)
    while True:
        row = g.fits_after_rotor(st, map_no, nbytes, align)
        addr = -1
        if row != rotor:
            addr = g.fit(st, row, nbytes, align)
            clip(st, map_no, row, addr, nbytes, note)
        below = join_around(st, map_no, rotor)
        if addr < 0 and below:
            row = below
            addr = g.fit(st, row, nbytes, align)
            if addr >= 0:
                clip(st, map_no, row, addr, nbytes, note)
        if addr >= 0:
            move_cursor(st, map_no, rotor, row, addr + nbytes)
            return addr
        if not fetch(st, map_no, nbytes, align, drains):
            return NO_SPACE


@kernel
def join_around(st: State, map_no: MapNo, rotor: int) -> int:
    """Merge the free segments that only the cursor keeps apart. Returns the one that is left, or 0.

    It stays on the free list of its former size, as in the kernel.
    """
    below, above = st.seg[rotor, g.PREV], st.seg[rotor, g.NEXT]
    if st.seg[below, g.KIND] != g.FREE or st.seg[above, g.KIND] != g.FREE:
        return 0
    if st.seg[below, g.END] != st.seg[above, g.START]:
        return 0
    g.pull(st, map_no, above)
    st.seg[below, g.END] = st.seg[above, g.END]
    st.arena[map_no, g.FREE_BYTES] += g.size(st, above)
    g.remove(st, map_no, above)
    return below


@kernel
def move_cursor(st: State, map_no: MapNo, rotor: int, row: int, stop: int) -> None:
    """Put the cursor before the first tag from `row` on that does not begin below `stop`, or at the beginning."""
    g.unlink(st, rotor)
    while row != map_no and st.seg[row, g.START] < stop:
        row = st.seg[row, g.NEXT]
    g.link(st, map_no if row == map_no else st.seg[row, g.PREV], rotor)


@outlined
def xfree(st: State, map_no: MapNo, row: int) -> None:
    """vmem_xfree() of a range in use."""
    give(st, map_no, g.merge(st, map_no, row))
    trim_tags(st, map_no)


@kernel
def trim_tags(st: State, map_no: MapNo) -> None:
    """bt_freetrim(): what an arena has in hand beyond BT_MAXFREE goes to the zone."""
    spare = st.arena[map_no, g.HAND] - BT_MAXFREE
    if spare > 0:
        st.arena[map_no, g.HAND] -= spare
        st.supply[ZONE_FREE] += spare


@kernel
def fetch(st: State, map_no: MapNo, nbytes: Bytes, align: int, drains: int) -> int:
    """vmem_try_fetch(): bring more into the arena. False: nothing came."""
    if map_no == 0 and st.p.import_bytes and bring(st, nbytes, align):
        return True
    return drains and st.arena[map_no, QCACHE] > 0 and drain(st, map_no)


@outlined
def bring(st: State, nbytes: Bytes, align: int) -> bool:
    """vmem_import() from kernel_map into the arena of map 0. False: kernel_map has no room."""
    if align != PAGE:
        nbytes += 2 * align
    nbytes = round_up(nbytes, st.p.import_bytes)
    row = claim(st, nbytes, min(st.p.import_bytes, SUPERPAGE) if st.p.levels == 2 else st.p.import_bytes, IMPORT)
    if row == 0:
        return False
    addr = st.seg[row, g.START]
    st.table[(addr >> PAGE_SHIFT) + st.arena[0, g.SHIFT]] = 0  # this page of the table is the arena's
    below = st.seg[row, g.PREV]
    if st.seg[below, g.KIND] == g.BUSY and st.seg[below, g.NOTE] == IMPORT:
        st.seg[below, g.END] = st.seg[row, g.END]
        g.remove(st, kernel_map(st), row)
    st.supply[IMPORTS] += 1
    st.supply[IMPORTED] += nbytes
    add_span(st, 0, addr, nbytes)
    return True


@kernel
def in_domain(st: State, row: int) -> int:
    """Arena that a range in use of map 0 lies in."""
    d = st.seg[row, g.NOTE] >> DOMAIN_SHIFT
    return st.maps + d - 1 if d > 0 and st.seg[row, g.NOTE] & BESIDE == 0 else 0


@outlined
def domain_alloc(st: State, d: int, nbytes: Bytes, align: int, attr: int) -> int:
    """kmem_malloc()'s vmem_alloc() from the arena of a domain. Returns the address or NO_SPACE."""
    a = st.maps + d
    if st.arena[a, g.HAND] < BT_MAXALLOC and not fill(st, a):
        st.supply[NO_TAGS] += 1
        return NO_SPACE
    row = search(st, a, nbytes, align, FIRST_FIT if st.p.strategy == FIRST_FIT else BEST_FIT)
    if row == 0 and st.p.strategy == FIRST_FIT:
        row = search(st, a, nbytes, align, BEST_FIT)
    if row == 0:
        if not import_domain(st, a, nbytes, align):
            return NO_SPACE
        row = search(st, a, nbytes, align, BEST_FIT)
    addr = g.fit(st, row, nbytes, align)
    clip(st, a, row, addr, nbytes, attr | ((d + 1) << DOMAIN_SHIFT))
    return addr


@outlined
def import_domain(st: State, a: int, nbytes: Bytes, align: int) -> bool:
    """kva_import_domain(): the arena of map 0 gives superpages, for ever. False: it has none, and finds none."""
    if align != PAGE:
        nbytes += 2 * align
    nbytes = round_up(nbytes, st.p.import_bytes)
    addr = xalloc(st, 0, nbytes, min(st.p.import_bytes, SUPERPAGE), IMPORT, False)
    if addr < 0:
        return False
    st.table[(addr >> PAGE_SHIFT) + st.arena[0, g.SHIFT]] = 0  # this page of the table is the domain's
    add_span(st, a, addr, nbytes)
    return True


@kernel
def add_span(st: State, a: int, addr: Address, nbytes: Bytes) -> None:
    """vmem_add1(): what continues the last segment needs no span tag, as nothing is ever given back."""
    last = st.seg[a, g.PREV]
    kind = st.seg[last, g.KIND]
    joins = st.p.join_spans and (kind == g.BUSY or kind == g.FREE) and st.seg[last, g.END] == addr
    if joins and kind == g.FREE:
        g.pull(st, a, last)
        st.seg[last, g.END] += nbytes
    else:
        if not joins:
            last = g.insert(st, a, last, g.SPAN, addr, addr + nbytes)
        last = g.insert(st, a, last, g.FREE, addr, addr + nbytes)
    give(st, a, last)


@kernel
def claim(st: State, nbytes: Bytes, align: int, note: int) -> int:
    """vm_map_find() in kernel_map: first fit by address. Returns the row of the range, or 0."""
    a = kernel_map(st)
    row = st.seg[a, g.NEXT]
    while row != a:
        if g.has_room(st, row, nbytes, align):
            return clip(st, a, row, g.fit(st, row, nbytes, align), nbytes, note)
        row = st.seg[row, g.NEXT]
    return 0


@outlined
def take_beside(st: State, nbytes: Bytes, align: int) -> int:
    """Allocate from kernel_map beside the arena. Returns the address or NO_SPACE."""
    row = claim(st, nbytes, max(align, PAGE), ATTR_SINGLE | BESIDE)
    if row == 0:
        return NO_SPACE
    st.arena[0, g.HIGH] = max(st.arena[0, g.HIGH], st.seg[row, g.END])
    return st.seg[row, g.START]


@outlined
def give_beside(st: State, row: int) -> None:
    """Give such a range back."""
    give(st, kernel_map(st), g.merge(st, kernel_map(st), row))


@outlined
def fill(st: State, map_no: MapNo) -> bool:
    """bt_fill(): False where the zone has no tags and no page for more."""
    while st.arena[map_no, g.HAND] < BT_MAXALLOC:
        # The slab that a new page makes is the caller's before it counts against the reserve.
        if st.supply[ZONE_FREE] <= st.supply[RESERVE] and not grow(st):
            return False
        take_tag(st, map_no)
    return True


@kernel
def take_tag(st: State, map_no: MapNo) -> None:
    """A tag of the zone goes to an arena."""
    st.supply[ZONE_FREE] -= 1
    st.arena[map_no, g.HAND] += 1


@kernel
def grow(st: State) -> bool:
    """vmem_bt_alloc(): a page for the tag zone, from the arena of map 0, with tags of the reserve."""
    supply = st.supply
    if not st.p.direct:
        while st.arena[0, g.HAND] < BT_MAXALLOC:
            if supply[ZONE_FREE] == 0:
                return False
            take_tag(st, 0)
        if place(st, 0, PAGE, PAGE, BEST_FIT, ATTR_WIRED | UNCACHED, True) < 0:
            return False
    supply[ZONE_PAGES] += 1
    supply[ZONE_FREE] += supply[PER_PAGE]
    return True


@kernel
def cached_alloc(st: State, map_no: MapNo, nbytes: Bytes, attr: int, cpu: int) -> int:
    """vmem_alloc() of a size that is cached."""
    k = (nbytes >> PAGE_SHIFT) - 1
    if st.filled[map_no, cpu, k] == 0 and not fill_bucket(st, map_no, nbytes, cpu):
        return xalloc(st, map_no, nbytes, PAGE, attr, True)
    st.filled[map_no, cpu, k] -= 1
    st.arena[map_no, CACHED_BYTES] -= nbytes
    addr = st.bucket[map_no, cpu, k, st.filled[map_no, cpu, k]]
    st.seg[g.in_use(st, map_no, addr), g.NOTE] = attr
    return addr


@outlined
def fill_bucket(st: State, map_no: MapNo, nbytes: Bytes, cpu: int) -> bool:
    """qc_import(): as many ranges as a bucket holds, or as there are. False: none."""
    k = (nbytes >> PAGE_SHIFT) - 1
    while st.filled[map_no, cpu, k] < st.supply[LIMIT + k]:
        addr = xalloc(st, map_no, nbytes, PAGE, g.CACHED, False)
        if addr < 0:
            break
        st.bucket[map_no, cpu, k, st.filled[map_no, cpu, k]] = addr
        st.filled[map_no, cpu, k] += 1
        st.arena[map_no, CACHED_BYTES] += nbytes
    return st.filled[map_no, cpu, k] > 0


@kernel
def cached_free(st: State, map_no: MapNo, row: int, cpu: int) -> None:
    """vmem_free() of a size that is cached."""
    nbytes = g.size(st, row)
    k = (nbytes >> PAGE_SHIFT) - 1
    n = st.filled[map_no, cpu, k]
    if n == st.supply[LIMIT + k]:
        xfree(st, map_no, row)
        return
    st.bucket[map_no, cpu, k, n] = st.seg[row, g.START]
    st.filled[map_no, cpu, k] += 1
    st.seg[row, g.NOTE] = g.CACHED
    st.arena[map_no, CACHED_BYTES] += nbytes


@outlined
def drain(st: State, map_no: MapNo) -> int:
    """qc_drain(): all quantum caches of a map go back to the arena. False: they were empty."""
    drained = st.arena[map_no, CACHED_BYTES] > 0
    for k in range(st.arena[map_no, QCACHE] >> PAGE_SHIFT):
        for cpu in range(st.filled.shape[1]):
            for n in range(st.filled[map_no, cpu, k]):
                xfree(st, map_no, g.in_use(st, map_no, st.bucket[map_no, cpu, k, n]))
            st.filled[map_no, cpu, k] = 0
    st.arena[map_no, CACHED_BYTES] = 0
    return drained
