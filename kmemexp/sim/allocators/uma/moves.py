"""What the operations of `allocators/uma` have in common: locks, new slabs, UMA's own zones.

`phases` says what the registers hold, and which phase follows which.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Bytes, Registers
from kmemexp.sim.allocators._shared.packed_phase import field, go_to, set_field
from kmemexp.sim.allocators._shared.uma_requests import NIL, zone_for, zone_of
from kmemexp.sim.allocators.uma import phases, slabs
from kmemexp.sim.allocators.uma.layout import BUCKET_STEP, UMA_02, UMA_03
from kmemexp.sim.allocators.uma.slabs import bucket_count, keg_of, slab_add, slab_give, slab_take
from kmemexp.sim.allocators.uma.state import State
from kmemexp.sim.asking import ask_kept, ask_wired, in_kmem_object, sleep_on
from kmemexp.sim.slots import FAILED, ITEM_PACKET, NO_ENTRY, NO_SPACE, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import flag, panics, regs

KERNEL_MAP = 0
ZONE_LOCK = 1  # class of the zones' locks


@kernel
def to_cpu(reg: Registers, i: int, phase: int) -> int:
    """Go on under the CPU's lock, that of a first step."""
    reg[i, regs.PHASE] &= ~phases.REFUSED
    return go_to(reg, i, phase, -1)


@kernel
def to_zone(reg: Registers, i: int, phase: int, z: int) -> int:
    """Go on under a zone's lock, that of its keg."""
    return go_to(reg, i, phase, (ZONE_LOCK << regs.LOCK_SHIFT) | keg_of(z))


@kernel
def wanted(st: State, reg: Registers, i: int) -> int:
    """Zone that an allocation is served from; NIL: large malloc."""
    if reg[i, regs.PHASE] & phases.NESTED:
        return slabs.CLUSTER
    return zone_wanted(st, reg[i, regs.ITEM], reg[i, regs.SIZE])


@kernel
def zone_wanted(st: State, item: int, size: Bytes) -> int:
    """Zone that a request is served from; NIL: large malloc."""
    if item == ITEM_PACKET:
        return slabs.PACKET
    return zone_for(st, item, size, slabs.MBUF, PAGE)


@kernel
def bucket_zone(st: State, entries: int) -> int:
    """Zone of the buckets that are taken for so many items: bucket_alloc()."""
    k = slabs.FIRST_BUCKET
    if st.p.generation >= UMA_03:
        while st.zone[k, slabs.Z_COUNT] < (entries + BUCKET_STEP - 1) // BUCKET_STEP * BUCKET_STEP:
            k += 1
    return k


@kernel
def map_of(st: State, reg: Registers, i: int) -> int:
    """Map that pages come from: page_alloc(). Early on kernel_map, unless it is locked, then kmem_map."""
    if st.p.generation == UMA_02 and st.p.kmem_map:
        return st.p.kmem_map if reg[i, regs.LOCKED] else KERNEL_MAP
    return st.map


@kernel
def entered(st: State, reg: Registers, i: int, answer: int) -> int:
    """Enter what has been asked for in kmem_object, but for what UMA of 2002 takes from kernel_map by kmem_alloc()."""
    early = st.p.generation == UMA_02 and reg[i, regs.MAP] == KERNEL_MAP
    return answer if early else in_kmem_object(reg, i, answer)


@kernel
def to_single(reg: Registers, i: int, z: int) -> int:
    reg[i, regs.PHASE] &= ~phases.REFUSED
    return to_zone(reg, i, phases.SINGLE, z)


@kernel
def may_grow(st: State, reg: Registers, i: int, z: int) -> bool:
    """Whether a slab may be asked for. At its limit a zone is full until pages go back."""
    if reg[i, regs.PHASE] & phases.REFUSED:
        return False
    if st.zone[z, slabs.Z_MAX] and st.zone[z, slabs.Z_HELD] >= st.zone[z, slabs.Z_MAX]:
        st.zone[z, slabs.Z_FULL] = 1
        return False
    return True


@kernel
def may_sleep(st: State, reg: Registers, i: int, z: int) -> bool:
    """Whether a request that got no slab is to sleep until an item comes back, as its zone is at its limit."""
    if reg[i, regs.PHASE] & phases.REFUSED or reg[i, regs.FLAGS] & flag.NOWAIT:
        return False
    return st.zone[z, slabs.Z_FULL] != 0


@kernel
def to_sleep(reg: Registers, i: int, phase: int, z: int) -> int:
    """Sleep at the limit of a zone, then go on under its lock."""
    to_zone(reg, i, phase, z)
    return sleep_on(reg, i, reg[i, regs.PHASE], reg[i, regs.LOCK], z, 0)


@outlined
def grow(st: State, reg: Registers, i: int, z: int, back: int) -> int:
    """Begin to make a slab, its off-page header first: slab_zalloc(). Goes on in `back`, under the zone's lock."""
    set_field(reg, i, phases.BACK_SHIFT, back)
    if st.zone[z, slabs.Z_HEADER] != NIL:
        return to_internal(reg, i, st.zone[z, slabs.Z_HEADER], phases.SLAB)
    return _ask_slab(st, reg, i, z)


@kernel
def _ask_slab(st: State, reg: Registers, i: int, z: int) -> int:
    to_zone(reg, i, phases.SLAB, z)
    m, nbytes = map_of(st, reg, i), st.zone[z, slabs.Z_PAGES] << PAGE_SHIFT
    if st.p.nofree and z >= slabs.FIRST_ITEM:
        return entered(st, reg, i, ask_kept(reg, i, reg[i, regs.PHASE], m, nbytes, PAGE))
    return entered(st, reg, i, ask_wired(reg, i, reg[i, regs.PHASE], m, nbytes, PAGE))


@outlined
def new_slab(st: State, reg: Registers, i: int, z: int) -> bool:
    """Enter the slab that the map has given. False: a header must go back first."""
    if reg[i, regs.BASE] >= 0:
        slab_add(st, reg, i, z, reg[i, regs.BASE], reg[i, regs.Y], reg[i, regs.MAP])
        reg[i, regs.Y] = NIL
        return True
    note_refusal(st, reg, i, False)
    reg[i, regs.PHASE] |= phases.REFUSED
    return reg[i, regs.Y] == NIL


@kernel
def note_refusal(st: State, reg: Registers, i: int, freeing: int) -> None:
    """Say how the kernel dies of a refusal: kmem_malloc() of one that may wait. After the first slab none may."""
    if freeing:
        return
    holding = reg[i, regs.X] != NIL and bucket_count(st, reg[i, regs.X]) > 0
    in_kmem_map = st.p.generation != UMA_02 or not st.p.kmem_map or reg[i, regs.MAP] == st.p.kmem_map
    if reg[i, regs.BASE] == NO_ENTRY:
        reg[i, regs.PANIC] = panics.ENTRIES
    elif reg[i, regs.BASE] == NO_SPACE and not reg[i, regs.FLAGS] & flag.NOWAIT and not holding and in_kmem_map:
        reg[i, regs.PANIC] = panics.KMEM_MAP


@kernel
def to_internal(reg: Registers, i: int, own: int, purpose: int) -> int:
    """Take an item of one of UMA's own zones, for the phase `purpose`."""
    set_field(reg, i, phases.FOR_SHIFT, purpose)
    set_field(reg, i, phases.OWN_SHIFT, own)
    return to_zone(reg, i, phases.INTERNAL, own)


@outlined
def internal(st: State, reg: Registers, i: int, z: int, freeing: int, phase: int) -> int:
    """Take an item of one of UMA's own zones, for zone `z`, from its slabs: uma_zalloc_internal().

    While a bucket zone grows, nobody else makes it grow; from late 2003 on the other gets no bucket at all.
    """
    own = field(reg, i, phases.OWN_SHIFT)
    is_bucket = own >= slabs.FIRST_BUCKET
    if phase == phases.INTERNAL_PAGE:
        st.zone[own, slabs.Z_GROWING] -= is_bucket
        if reg[i, regs.BASE] >= 0:
            slab_add(st, reg, i, own, reg[i, regs.BASE], NIL, reg[i, regs.MAP])
        else:
            note_refusal(st, reg, i, freeing)
    grows = is_bucket and st.zone[own, slabs.Z_GROWING] > 0
    addr = NIL if grows and st.p.generation >= UMA_03 else slab_take(st, own)
    if addr == NIL and phase == phases.INTERNAL and not grows:
        st.zone[own, slabs.Z_GROWING] += is_bucket
        to_zone(reg, i, phases.INTERNAL_PAGE, own)
        return entered(st, reg, i, ask_wired(reg, i, reg[i, regs.PHASE], map_of(st, reg, i), PAGE, PAGE))
    if addr != NIL:
        st.zone[own, slabs.Z_ALLOCS] += 1
    purpose = field(reg, i, phases.FOR_SHIFT)
    if is_bucket:
        return _have_bucket(st, reg, i, z, own, addr, purpose)
    return _have_header(st, reg, i, z, addr, purpose)


@kernel
def _have_bucket(st: State, reg: Registers, i: int, z: int, own: int, addr: Address, purpose: int) -> int:
    """Go on with a new bucket, or without."""
    if addr == NIL:
        return to_single(reg, i, z) if purpose == phases.FILL else to_zone(reg, i, phases.FREE_ITEM, z)
    b = addr >> st.shift
    st.word[b + slabs.B_NEXT] = 0
    st.word[b + slabs.B_COUNT] = 0
    st.word[b + slabs.B_ENTRIES] = st.zone[own, slabs.Z_COUNT]
    reg[i, regs.X] = b
    return to_zone(reg, i, purpose, z)


@kernel
def _have_header(st: State, reg: Registers, i: int, z: int, addr: Address, purpose: int) -> int:
    """Ask for the pages that the header is for; without one, do as if they were refused."""
    reg[i, regs.Y] = addr
    if purpose == phases.LARGE:
        if addr == NIL:
            return FAILED
        nbytes = (reg[i, regs.SIZE] + PAGE - 1) & -PAGE
        to_cpu(reg, i, phases.LARGE)
        return entered(st, reg, i, ask_wired(reg, i, reg[i, regs.PHASE], map_of(st, reg, i), nbytes, PAGE))
    if addr != NIL:
        return _ask_slab(st, reg, i, z)
    reg[i, regs.PHASE] |= phases.REFUSED
    return to_zone(reg, i, field(reg, i, phases.BACK_SHIFT), z)


@kernel
def to_free_bucket(st: State, reg: Registers, i: int, back: int) -> int:
    """Give the bucket in hand back, then go on in `back` under the zone's lock: bucket_free()."""
    set_field(reg, i, phases.BACK_SHIFT, back)
    reg[i, regs.PHASE] &= ~phases.REFUSED
    return to_zone(reg, i, phases.FREE_BUCKET, zone_of(st, reg[i, regs.X] << st.shift))


@kernel
def bucket_put_back(st: State, reg: Registers, i: int) -> None:
    slab_give(st, reg, i, reg[i, regs.X] << st.shift)
    reg[i, regs.X] = NIL
