"""What the operations of `allocators/uma` have in common: locks, new slabs, UMA's own zones.

`phases` says what the registers hold, and which phase follows which.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators._shared.packed_phase import field, go_to, set_field
from kmemexp.sim.allocators._shared.uma_requests import NIL, zone_for, zone_of
from kmemexp.sim.allocators.uma.layout import BUCKET_STEP, UMA_02, UMA_03
from kmemexp.sim.allocators.uma.phases import (
    BACK_SHIFT,
    FILL,
    FOR_SHIFT,
    FREE_BUCKET,
    FREE_ITEM,
    INTERNAL,
    INTERNAL_PAGE,
    LARGE,
    OWN_SHIFT,
    REFUSED,
    SINGLE,
    SLAB,
)
from kmemexp.sim.allocators.uma.slabs import (
    B_COUNT,
    B_ENTRIES,
    B_NEXT,
    FIRST_BUCKET,
    FIRST_ITEM,
    MBUF,
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
)
from kmemexp.sim.asking import ask_kept, ask_wired
from kmemexp.sim.slots import (
    F_NOWAIT,
    FAILED,
    LOCK_SHIFT,
    NO_ENTRY,
    NO_SPACE,
    P_ENTRIES,
    P_KMEM_MAP,
    PAGE,
    PAGE_SHIFT,
    R_BASE,
    R_FLAGS,
    R_LOCKED,
    R_MAP,
    R_PANIC,
    R_PHASE,
    R_SIZE,
    R_X,
    R_Y,
)

KERNEL_MAP = 0
ZONE_LOCK = 1  # class of the zones' locks


@kernel
def to_cpu(reg, i, phase):
    """Go on under the CPU's lock, that of a first step."""
    reg[i, R_PHASE] &= ~REFUSED
    return go_to(reg, i, phase, -1)


@kernel
def to_zone(reg, i, phase, z):
    """Go on under a zone's lock."""
    return go_to(reg, i, phase, (ZONE_LOCK << LOCK_SHIFT) | z)


@kernel
def wanted(st, reg, i):
    """Zone that an allocation is served from; NIL: large malloc."""
    return zone_for(st, reg, i, MBUF, PAGE)


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
    set_field(reg, i, BACK_SHIFT, back)
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
    set_field(reg, i, FOR_SHIFT, purpose)
    set_field(reg, i, OWN_SHIFT, own)
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
    set_field(reg, i, BACK_SHIFT, back)
    reg[i, R_PHASE] &= ~REFUSED
    return to_zone(reg, i, FREE_BUCKET, zone_of(st, reg[i, R_X] << st.shift))


@kernel
def bucket_put_back(st, reg, i):
    slab_give(st, reg, i, reg[i, R_X] << st.shift)
    reg[i, R_X] = NIL
