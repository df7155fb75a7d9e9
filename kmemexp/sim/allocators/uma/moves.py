"""What the operations of `allocators/uma` have in common: phases and locks, new slabs, UMA's own zones.

R_PHASE holds the phase and, above it, which of UMA's own zones an item is wanted of (OWN) and in which phase (FOR),
where to go on when a slab has been made or a bucket given back (BACK), and flags. R_X: the bucket in hand, R_Y: the
off-page header in hand; NIL: none. While a chain of clusters grows, R_ADDR is its last one; R_GRANTED of a free: the
next cluster of the chain + 1.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators.uma.layout import BUCKET_STEP, UMA_02, UMA_03
from kmemexp.sim.allocators.uma.slabs import (
    B_COUNT,
    B_ENTRIES,
    B_NEXT,
    CLUSTER,
    FIRST_BUCKET,
    FIRST_ITEM,
    MBUF,
    NIL,
    Z_ALLOCS,
    Z_COUNT,
    Z_FULL,
    Z_GROWING,
    Z_HEADER,
    Z_HELD,
    Z_MAX,
    Z_PAGES,
    bucket_count,
    slab_add,
    slab_give,
    slab_take,
    wide,
    zone_of,
)
from kmemexp.sim.asking import ask_kept, ask_wired
from kmemexp.sim.slots import (
    AGAIN,
    F_NOWAIT,
    FAILED,
    ITEM_MALLOC,
    LOCK_SHIFT,
    NO_ENTRY,
    NO_SPACE,
    P_ENTRIES,
    P_KMEM_MAP,
    PAGE,
    PAGE_SHIFT,
    R_BASE,
    R_FLAGS,
    R_ITEM,
    R_LOCK,
    R_LOCKED,
    R_MAP,
    R_PANIC,
    R_PHASE,
    R_SIZE,
    R_X,
    R_Y,
)

MSIZE = 256
MCLBYTES = 2048
CLUSTER_SHIFT = 11
KERNEL_MAP = 0
MALLOC_UNIT = 16
ZONE_LOCK = 1  # class of the zones' locks

# Phases, with the lock that each runs under: c the CPU's, z the zone's, o that of UMA's own zone.
BEGIN = 0  # c
RETRY = 1  # c: take what is asked for from the CPU's buckets
MISS = 2  # z: these are empty
FILL = 3  # z: fill a bucket
SINGLE = 4  # z: no bucket is to be had: one item from a slab
INTERNAL = 5  # o: take a bucket or a header
INTERNAL_PAGE = 6  # o: the map has answered for a page of them
SLAB = 7  # z: the map has answered for a slab
UNHEADER = 8  # o: it has refused: give the header back
FREE_BUCKET = 9  # o: give a bucket back
FREE_RETRY = 10  # c: put what is freed into the CPU's buckets
FREE_MISS = 11  # z: they are full
ADD_BUCKET = 12  # z: put a new bucket on the zone's list
FREE_ITEM = 13  # z: no bucket is to be had: give the item to its slab
DROP_HEADER = 14  # o: eager release: give the header of the slab that has become free back
DROPPED = 15  # c: its pages are gone
LARGE = 16  # c: the map has answered for a large malloc
LARGE_UNHEADER = 17  # o: give its header back
PHASE_MASK = 63
FOR_SHIFT = 6
BACK_SHIFT = 12
OWN_SHIFT = 18
REFUSED = 1 << 24  # no new slab is asked for (M_NOVM)
FILLING = 1 << 25  # counted in Z_FILLS
GIVING_UP = 1 << 26  # an incomplete chain is freed


@kernel
def to_cpu(reg, i, phase):
    """Go on under the CPU's lock, that of a first step."""
    reg[i, R_PHASE] = (reg[i, R_PHASE] & ~(PHASE_MASK | REFUSED)) | phase
    reg[i, R_LOCK] = -1
    return AGAIN


@kernel
def to_zone(reg, i, phase, z):
    """Go on under a zone's lock."""
    reg[i, R_PHASE] = (reg[i, R_PHASE] & ~PHASE_MASK) | phase
    reg[i, R_LOCK] = (ZONE_LOCK << LOCK_SHIFT) | z
    return AGAIN


@kernel
def field(reg, i, shift):
    return (reg[i, R_PHASE] >> shift) & PHASE_MASK


@kernel
def _set_field(reg, i, shift, n):
    reg[i, R_PHASE] = (reg[i, R_PHASE] & ~(PHASE_MASK << shift)) | (n << shift)


@kernel
def wanted(st, reg, i):
    """Zone that an allocation is served from; NIL: large malloc."""
    item, size = reg[i, R_ITEM], reg[i, R_SIZE]
    if item >= 0:
        return FIRST_ITEM + item
    if item == ITEM_MALLOC:
        return wide(st.size_zone[(size + MALLOC_UNIT - 1) // MALLOC_UNIT]) if size <= PAGE else NIL
    return MBUF if size <= MSIZE else CLUSTER


@kernel
def bucket_zone(st, entries):
    """Zone of the buckets that are taken for so many items: bucket_alloc()."""
    k = FIRST_BUCKET
    if st.p.generation >= UMA_03:
        while st.zone[k, Z_COUNT] < (entries + BUCKET_STEP - 1) // BUCKET_STEP * BUCKET_STEP:
            k += 1
    return k


@kernel
def map_of(st, reg, i):
    """Map that pages come from: page_alloc(). Early on kernel_map, unless it is locked, then kmem_map."""
    if st.p.generation == UMA_02 and st.p.kmem_map:
        return st.p.kmem_map if reg[i, R_LOCKED] else KERNEL_MAP
    return st.map


@kernel
def to_single(reg, i, z):
    reg[i, R_PHASE] &= ~REFUSED
    return to_zone(reg, i, SINGLE, z)


@kernel
def may_grow(st, reg, i, z):
    """Whether a slab may be asked for. At its limit a zone is full until pages go back."""
    if reg[i, R_PHASE] & REFUSED:
        return False
    if st.zone[z, Z_MAX] and st.zone[z, Z_HELD] >= st.zone[z, Z_MAX]:
        st.zone[z, Z_FULL] = 1
        return False
    return True


@outlined
def grow(st, reg, i, z, back):
    """Begin to make a slab, its off-page header first: slab_zalloc(). Goes on in `back`, under the zone's lock."""
    _set_field(reg, i, BACK_SHIFT, back)
    if st.zone[z, Z_HEADER] != NIL:
        return to_internal(reg, i, st.zone[z, Z_HEADER], SLAB)
    return _ask_slab(st, reg, i, z)


@kernel
def _ask_slab(st, reg, i, z):
    to_zone(reg, i, SLAB, z)
    m, nbytes = map_of(st, reg, i), st.zone[z, Z_PAGES] << PAGE_SHIFT
    if st.p.nofree and z >= FIRST_ITEM:
        return ask_kept(reg, i, reg[i, R_PHASE], m, nbytes, PAGE)
    return ask_wired(reg, i, reg[i, R_PHASE], m, nbytes, PAGE)


@outlined
def new_slab(st, reg, i, z):
    """Enter the slab that the map has given. False: a header must go back first."""
    if reg[i, R_BASE] >= 0:
        slab_add(st, reg, i, z, reg[i, R_BASE], reg[i, R_Y], reg[i, R_MAP])
        reg[i, R_Y] = NIL
        return True
    note_refusal(st, reg, i, False)
    reg[i, R_PHASE] |= REFUSED
    return reg[i, R_Y] == NIL


@kernel
def note_refusal(st, reg, i, freeing):
    """Say how the kernel dies of a refusal: kmem_malloc() of one that may wait. After the first slab none may."""
    if freeing:
        return
    holding = reg[i, R_X] != NIL and bucket_count(st, reg[i, R_X]) > 0
    in_kmem_map = st.p.generation != UMA_02 or not st.p.kmem_map or reg[i, R_MAP] == st.p.kmem_map
    if reg[i, R_BASE] == NO_ENTRY:
        reg[i, R_PANIC] = P_ENTRIES
    elif reg[i, R_BASE] == NO_SPACE and not reg[i, R_FLAGS] & F_NOWAIT and not holding and in_kmem_map:
        reg[i, R_PANIC] = P_KMEM_MAP


@kernel
def to_internal(reg, i, own, purpose):
    """Take an item of one of UMA's own zones, for the phase `purpose`."""
    _set_field(reg, i, FOR_SHIFT, purpose)
    _set_field(reg, i, OWN_SHIFT, own)
    return to_zone(reg, i, INTERNAL, own)


@outlined
def internal(st, reg, i, z, freeing, phase):
    """Take an item of one of UMA's own zones, for zone `z`, from its slabs: uma_zalloc_internal().

    While a bucket zone grows, nobody else makes it grow; from late 2003 on he gets no bucket at all.
    """
    own = field(reg, i, OWN_SHIFT)
    is_bucket = own >= FIRST_BUCKET
    if phase == INTERNAL_PAGE:
        st.zone[own, Z_GROWING] -= is_bucket
        if reg[i, R_BASE] >= 0:
            slab_add(st, reg, i, own, reg[i, R_BASE], NIL, reg[i, R_MAP])
        else:
            note_refusal(st, reg, i, freeing)
    grows = is_bucket and st.zone[own, Z_GROWING] > 0
    addr = NIL if grows and st.p.generation >= UMA_03 else slab_take(st, own)
    if addr == NIL and phase == INTERNAL and not grows:
        st.zone[own, Z_GROWING] += is_bucket
        to_zone(reg, i, INTERNAL_PAGE, own)
        return ask_wired(reg, i, reg[i, R_PHASE], map_of(st, reg, i), PAGE, PAGE)
    if addr != NIL:
        st.zone[own, Z_ALLOCS] += 1
    purpose = field(reg, i, FOR_SHIFT)
    if is_bucket:
        return _have_bucket(st, reg, i, z, own, addr, purpose)
    return _have_header(st, reg, i, z, addr, purpose)


@kernel
def _have_bucket(st, reg, i, z, own, addr, purpose):
    """Go on with a new bucket, or without."""
    if addr == NIL:
        return to_single(reg, i, z) if purpose == FILL else to_zone(reg, i, FREE_ITEM, z)
    b = addr >> st.shift
    st.word[b + B_NEXT] = 0
    st.word[b + B_COUNT] = 0
    st.word[b + B_ENTRIES] = st.zone[own, Z_COUNT]
    reg[i, R_X] = b
    return to_zone(reg, i, purpose, z)


@kernel
def _have_header(st, reg, i, z, addr, purpose):
    """Ask for the pages that the header is for; without one, do as if they were refused."""
    reg[i, R_Y] = addr
    if purpose == LARGE:
        if addr == NIL:
            return FAILED
        nbytes = (reg[i, R_SIZE] + PAGE - 1) & -PAGE
        to_cpu(reg, i, LARGE)
        return ask_wired(reg, i, reg[i, R_PHASE], map_of(st, reg, i), nbytes, PAGE)
    if addr != NIL:
        return _ask_slab(st, reg, i, z)
    reg[i, R_PHASE] |= REFUSED
    return to_zone(reg, i, field(reg, i, BACK_SHIFT), z)


@kernel
def to_free_bucket(st, reg, i, back):
    """Give the bucket in hand back, then go on in `back` under the zone's lock: bucket_free()."""
    _set_field(reg, i, BACK_SHIFT, back)
    reg[i, R_PHASE] &= ~REFUSED
    return to_zone(reg, i, FREE_BUCKET, zone_of(st, reg[i, R_X] << st.shift))


@kernel
def bucket_put_back(st, reg, i):
    slab_give(st, reg, i, reg[i, R_X] << st.shift)
    reg[i, R_X] = NIL
