"""Segments, tags and imports of illumos' vmem; `st` is the State of `arenas.vmem_illumos`."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Bytes
from kmemexp.sim.arenas._shared import segments as g
from kmemexp.sim.arenas._shared.powers import log2, lowest_bit, round_up
from kmemexp.sim.arenas.vmem_illumos.layout import MINFREE, POPULATE_RESERVE
from kmemexp.sim.arenas.vmem_illumos.state import BEST_FIT, FIRST_FIT, INSTANT_FIT, NEXT_FIT, State
from kmemexp.sim.slots import NO_SPACE, PAGE

METADATA_IMPORT = 32  # pages that vmem_metadata and kmem_metadata take of the heap at once, having no quantum caches

# What NOTE says of a range in use, beside ATTR_*.
IMPORT = 16  # in the heap: kmem_va has it, or kmem_metadata
METADATA = 32  # in the heap: vmem_metadata has it
SLAB = 64  # in kmem_va: of a quantum cache
OVERSIZE = 128  # in the heap: an oversize block and the page behind it

# Arenas behind those of the maps; but for kmem_va and kmem_metadata there are only tags of them.
KMEM_VA, KMEM_DEFAULT, VMEM_METADATA, VMEM_SEG, KMEM_METADATA, KMEM_MSB, KMEM_OVERSIZE, KMEM_FIREWALL_VA = range(8)
EXTRA_ARENAS = 8

# Column of State.arena, of kmem_va.
SLAB_FREE = g.OWN  # bytes free in slabs

# State.supply: tags.
GLOBAL = g.SUPPLY  # on the global list
MADE = g.SUPPLY + 1  # in all
TAG_PAGES = g.SUPPLY + 2
BATCH = g.SUPPLY + 3  # of a populate
BATCH_PAGES = g.SUPPLY + 4
METADATA_LEFT = g.SUPPLY + 5  # pages free in vmem_metadata
POPULATES = g.SUPPLY + 6
POPULATE_FAILS = g.SUPPLY + 7
OTHERS = g.SUPPLY + 8  # in hand of populators that are not modelled
SUPPLY = 9


@kernel
def arena(st: State, which: int) -> int:
    """Number of one of the arenas behind those of the maps."""
    return len(st.arena) - EXTRA_ARENAS + which


@kernel
def give(st: State, a: int, row: int) -> None:
    """vmem_freelist_insert()."""
    g.push(st, a, row, log2(g.size(st, row)))


@outlined
def place(st: State, a: int, nbytes: Bytes, align: int, strategy: int, note: int) -> int:
    """Allocate with tags in hand from what is in the arena. Returns the address or NO_SPACE."""
    if strategy == NEXT_FIT and align == PAGE:
        addr = next_fit(st, a, nbytes, note)
        if addr >= 0:
            return addr
    row = scan(st, a, nbytes, align, strategy)
    if row == 0:
        return NO_SPACE
    addr = g.fit(st, row, nbytes, align)
    seg_alloc(st, a, row, addr, nbytes, note)
    return addr


@kernel
def scan(st: State, a: int, nbytes: Bytes, align: int, strategy: int) -> int:
    """The free lists' part of vmem_xalloc(), and vmem_alloc()'s too: where it finds one, it is the same. 0: none."""
    bits = st.arena[a, g.BITS]
    k = log2(nbytes)
    # The list of its own size may hold one large enough; it is looked at when all others are empty, or to fit best.
    if nbytes & (nbytes - 1) and bits >> (k + 1) and strategy != BEST_FIT and strategy != FIRST_FIT:
        k += 1
    bits = bits >> k << k
    best, passed = 0, 0
    while bits and best == 0:
        row = st.lists[a, lowest_bit(bits)]
        while row:
            if (best == 0 or g.size(st, row) < g.size(st, best)) and g.fit(st, row, nbytes, align) >= 0:
                best = row
                if strategy != BEST_FIT or g.size(st, row) == nbytes:
                    break
            passed += 1
            row = st.seg[row, g.MORE]
        bits &= bits - 1
    st.arena[a, g.WALKED] += passed
    return best


@outlined
def seg_alloc(st: State, a: int, row: int, addr: Address, nbytes: Bytes, note: int) -> None:
    """vmem_seg_alloc(): take [addr, addr + nbytes) out of a free segment."""
    start, end = st.seg[row, g.START], st.seg[row, g.END]
    stop = addr + nbytes
    if addr == start and stays(st, row, nbytes):
        bump(st, a, row, st.seg[row, g.PREV], nbytes, note)
        return
    g.pull(st, a, row)
    if stop < end:
        give(st, a, g.insert(st, a, row, g.FREE, stop, end))
    if start < addr:
        give(st, a, g.insert(st, a, st.seg[row, g.PREV], g.FREE, start, addr))
    st.seg[row, g.START], st.seg[row, g.END] = addr, stop
    g.occupy(st, a, row, note)


@kernel
def stays(st: State, row: int, nbytes: Bytes) -> bool:
    """Whether what a request leaves of a free segment belongs on the same free list."""
    rest = g.size(st, row) - nbytes
    return rest > 0 and log2(rest) == st.seg[row, g.NOTE]


@kernel
def bump(st: State, a: int, row: int, below: int, nbytes: Bytes, note: int) -> None:
    """Take the low end of a free segment, which stays where it is on its list. The new tag stands behind `below`."""
    start = st.seg[row, g.START]
    st.seg[row, g.START] += nbytes
    st.arena[a, g.FREE_BYTES] -= nbytes
    g.occupy(st, a, g.insert(st, a, below, g.BUSY, start, start + nbytes), note)


@outlined
def next_fit(st: State, a: int, nbytes: Bytes, note: int) -> int:
    """vmem_nextfit_alloc(): round the segments from the rotor on. Returns the address or NO_SPACE."""
    rotor = a + len(st.arena)
    row = st.seg[rotor, g.NEXT]
    if st.seg[row, g.KIND] == g.FREE and stays(st, row, nbytes):
        addr = st.seg[row, g.START]
        bump(st, a, row, st.seg[rotor, g.PREV], nbytes, note)  # behind the rotor, which need not move
        return addr
    row = g.fits_after_rotor(st, a, nbytes, PAGE)
    if row == rotor:
        # Perhaps only the rotor keeps two segments apart that would do together.
        advance(st, a, rotor, st.seg[rotor, g.NEXT])
        row = st.seg[rotor, g.PREV]
        if not g.has_room(st, row, nbytes, PAGE):
            return NO_SPACE
    addr = st.seg[row, g.START]
    seg_alloc(st, a, row, addr, nbytes, note)
    advance(st, a, rotor, g.in_use(st, a, addr))
    return addr


@outlined
def advance(st: State, a: int, rotor: int, below: int) -> None:
    """vmem_advance(): move the rotor behind `below`, and merge what it kept apart."""
    under, above = st.seg[rotor, g.PREV], st.seg[rotor, g.NEXT]
    g.unlink(st, rotor)
    g.link(st, below, rotor)
    row = 0
    if st.seg[under, g.KIND] == g.FREE:
        row = under
        if st.seg[above, g.KIND] == g.FREE:
            g.pull(st, a, above)
            g.pull(st, a, under)
            st.seg[under, g.END] = st.seg[above, g.END]
            give(st, a, under)
            g.remove(st, a, above)
    elif st.seg[above, g.KIND] == g.FREE:
        row = above
    if row and is_import(st, row):
        g.pull(st, a, row)
        give_back(st, a, row)


@kernel
def is_import(st: State, row: int) -> bool:
    """Whether a free segment is all of an imported span."""
    span, above = st.seg[row, g.PREV], st.seg[row, g.NEXT]
    return st.seg[span, g.KIND] == g.SPAN and st.seg[span, g.NOTE] == IMPORT and st.seg[above, g.KIND] <= g.SPAN


@outlined
def give_back(st: State, a: int, row: int) -> None:
    """Give a span, of which `row` is the only segment and on no free list, back to the heap."""
    heap_row = g.in_use(st, 0, st.seg[row, g.START])
    span = st.seg[row, g.PREV]
    g.remove(st, a, row)
    g.remove(st, a, span)
    give(st, 0, g.merge(st, 0, heap_row))


@outlined
def xfree(st: State, a: int, row: int) -> None:
    """vmem_xfree() of a range in use."""
    row = g.merge(st, a, row)
    if is_import(st, row):
        give_back(st, a, row)
    else:
        give(st, a, row)


@outlined
def take_kmem_va(st: State, nbytes: Bytes, align: int, strategy: int, note: int) -> int:
    """Allocate from kmem_va. Returns the address or NO_SPACE."""
    return take_import(st, arena(st, KMEM_VA), nbytes, align, strategy, note)


@outlined
def take_import(st: State, a: int, nbytes: Bytes, align: int, strategy: int, note: int) -> int:
    """Allocate from kmem_va or kmem_metadata, with an import from the heap where it must be: address or NO_SPACE."""
    if not restocked(st, a):
        return NO_SPACE
    addr = place(st, a, nbytes, align, strategy, note)
    if addr >= 0 or not restocked(st, 0):
        return addr
    want = nbytes + align - PAGE
    if a == arena(st, KMEM_METADATA):
        want = max(want, METADATA_IMPORT * PAGE)
    base = place(st, 0, want, PAGE, INSTANT_FIT, IMPORT)
    if base < 0:
        return NO_SPACE
    span = g.insert(st, a, st.seg[a, g.PREV], g.SPAN, base, base + want)
    st.seg[span, g.NOTE] = IMPORT
    row = g.insert(st, a, span, g.FREE, base, base + want)
    give(st, a, row)
    addr = round_up(base, align)
    seg_alloc(st, a, row, addr, nbytes, note)
    return addr


@kernel
def restocked(st: State, a: int) -> bool:
    """See to it that 16 tags are in hand. False: there are none to be had."""
    return st.arena[a, g.HAND] >= MINFREE or populate(st, a)


@outlined
def populate(st: State, a: int) -> bool:
    """vmem_populate(): tags from the global list, else from new pages; the arenas that brought these come first."""
    supply = st.supply
    hand_out(st, a, MINFREE, GLOBAL)
    if st.arena[a, g.HAND] >= MINFREE:
        return True
    if not bring_pages(st):
        supply[POPULATE_FAILS] += 1
        return False
    supply[POPULATES] += 1
    supply[TAG_PAGES] += supply[BATCH_PAGES]
    supply[MADE] += supply[BATCH]
    supply[GLOBAL] += supply[BATCH]
    hand_out(st, 0, POPULATE_RESERVE, GLOBAL)
    hand_out(st, arena(st, VMEM_METADATA), POPULATE_RESERVE, GLOBAL)
    hand_out(st, arena(st, VMEM_SEG), POPULATE_RESERVE, GLOBAL)
    hand_out(st, a, MINFREE, GLOBAL)
    return True


@kernel
def hand_out(st: State, a: int, least: int, source: int) -> None:
    """Raise the tags in hand of an arena to `least`, as far as the global list goes."""
    n = max(0, min(least - st.arena[a, g.HAND], st.supply[source]))
    st.arena[a, g.HAND] += n
    st.supply[source] -= n


@kernel
def bring_pages(st: State) -> bool:
    """Pages for tags: vmem_seg has them of vmem_metadata, that of the heap, all with tags of their reserves."""
    supply = st.supply
    metadata = arena(st, VMEM_METADATA)
    if supply[METADATA_LEFT] < supply[BATCH_PAGES]:
        if place(st, 0, METADATA_IMPORT * PAGE, PAGE, INSTANT_FIT, METADATA) < 0:
            return False
        use_tags(st, metadata, 2)
        supply[METADATA_LEFT] += METADATA_IMPORT
    supply[METADATA_LEFT] -= supply[BATCH_PAGES]
    if supply[METADATA_LEFT]:
        use_tags(st, metadata, 1)
    use_tags(st, arena(st, VMEM_SEG), 2)
    return True


@kernel
def use_tags(st: State, a: int, n: int) -> None:
    """An arena of which there are only tags takes some into its list, or out of it (n < 0)."""
    st.arena[a, g.HAND] -= n
    st.arena[a, g.TAGS] += n
