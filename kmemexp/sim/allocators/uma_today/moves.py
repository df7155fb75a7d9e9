"""What the operations of `allocators/uma_today` have in common: locks, new slabs, buckets put away.

`phases` says what the registers hold, and which phase follows which.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Bytes, Registers
from kmemexp.sim.allocators._shared.packed_phase import field, go_to, set_field, set_phase
from kmemexp.sim.allocators._shared.uma_requests import NIL, zone_for, zone_of
from kmemexp.sim.allocators.uma_today import phases, slabs
from kmemexp.sim.allocators.uma_today.slabs import (
    bucket_count,
    bucket_entries,
    item_at,
    slab_add,
    slab_forget,
    slab_give,
    slab_take,
    stack_pop,
    stack_push,
)
from kmemexp.sim.allocators.uma_today.state import State
from kmemexp.sim.asking import ask_unmap, ask_wired, let_go
from kmemexp.sim.network import MCLBYTES, MJUM9BYTES, MJUM16BYTES, MJUMPAGESIZE, MSIZE
from kmemexp.sim.slots import (
    ATTR_CONTIG,
    ATTR_NOFREE,
    ATTR_STACK,
    DONE,
    ITEM_MBUF,
    ITEM_PACKET,
    MAP_ALLOC,
    PAGE,
    PAGE_SHIFT,
)
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

# Zones.
FIRST_BUCKET = 2
FIRST_MALLOC = 10
PACKET = 24  # secondary to MBUF, after which a reclaim comes to it
MBUF = 25
CLUSTER = 26
JUMBO_PAGE = 27
JUMBO_9 = 28
JUMBO_16 = 29
FIRST_ITEM = 30

IN_DIRECT_MAP = 3  # of CALLS
STACKS = 4

# State.ext of an mbuf, above these: the number of the cluster that it has, + 2.
MSHIFT = 8  # log2 of an mbuf's bytes
NO_PACKET = 0
BARE_PACKET = 1  # one without a cluster: it is made or taken apart

# Classes of locks.
LIST_LOCK = 1
KEG_LOCK = 2
CROSS_LOCK = 3


@kernel
def to_section(reg: Registers, i: int, phase: int) -> int:
    """Go on in the critical section."""
    return go_to(reg, i, phase, 0)


@kernel
def to_list(st: State, reg: Registers, i: int, phase: int, z: int, d: int) -> int:
    """Go on under a zone-domain lock."""
    reg[i, regs.TARGET] = st.dom[z, d, slabs.D_TAKES]
    return go_to(reg, i, phase, (LIST_LOCK << regs.LOCK_SHIFT) | (z * st.domains + d))


@kernel
def to_keg(st: State, reg: Registers, i: int, phase: int, z: int, d: int) -> int:
    """Go on under the lock of a zone's keg in a domain."""
    return go_to(reg, i, phase, (KEG_LOCK << regs.LOCK_SHIFT) | (keg_of(st, z) * st.domains + d))


@kernel
def to_cross(reg: Registers, i: int, phase: int, z: int) -> int:
    """Go on under a zone's lock for sorting."""
    return go_to(reg, i, phase, (CROSS_LOCK << regs.LOCK_SHIFT) | z)


@kernel
def then(reg: Registers, i: int, phase: int) -> None:
    """Say where to go on after a detour: a phase of the critical section, or SORT."""
    set_field(reg, i, phases.THEN_SHIFT, phase)


@kernel
def resume(st: State, reg: Registers, i: int) -> int:
    """Go on after the detour."""
    phase = field(reg, i, phases.THEN_SHIFT)
    if phase == phases.SORT:
        return to_cross(reg, i, phases.SORT, zone_at(st, item_at(st, reg[i, regs.Y], 0)))
    return to_section(reg, i, phase)


@kernel
def domain_at(st: State, addr: Address) -> int:
    """Domain of an item."""
    return wide(st.slab[addr >> PAGE_SHIFT, slabs.S_DOMAIN])


@kernel
def enter_list(st: State, reg: Registers, i: int, z: int, d: int) -> None:
    """Count the taking of a zone-domain lock, and let buckets grow if it was contended: zone_domain_lock()."""
    others = st.dom[z, d, slabs.D_TAKES] != reg[i, regs.TARGET]
    st.dom[z, d, slabs.D_TAKES] += 1
    if others and st.p.bucket_growth and st.zone[z, slabs.Z_BUCKET] < st.zone[z, slabs.Z_BUCKET_MAX]:
        st.zone[z, slabs.Z_BUCKET] += 1


@kernel
def bucket_zone(st: State, entries: int) -> int:
    """Zone of the smallest buckets with so many entries."""
    k = FIRST_BUCKET
    while st.zone[k, slabs.Z_ENTRIES] < entries:
        k += 1
    return k


@kernel
def wanted(st: State, reg: Registers, i: int) -> int:
    """Zone that an allocation, or the next piece of a chain, is served from; NIL: large malloc."""
    item, size = reg[i, regs.ITEM], reg[i, regs.SIZE]
    if reg[i, regs.PHASE] & phases.NESTED:
        return CLUSTER
    if not is_chain(item, size):
        return zone_wanted(st, item, size)
    small = size - reg[i, regs.GRANTED] <= MCLBYTES or reg[i, regs.PHASE] & phases.SMALL
    return CLUSTER if small else JUMBO_PAGE


@kernel
def is_chain(item: int, size: Bytes) -> bool:
    """Whether a request is one for a chain: m_getm2(). One for just a jumbo cluster is m_getjcl()."""
    if item != ITEM_MBUF or size <= MCLBYTES:
        return False
    return size != MJUMPAGESIZE and size != MJUM9BYTES and size != MJUM16BYTES


@kernel
def zone_wanted(st: State, item: int, size: Bytes) -> int:
    """Zone that a request is served from; NIL: large malloc."""
    if item == ITEM_PACKET:
        return PACKET
    if item != ITEM_MBUF:
        return zone_for(st, item, size, FIRST_ITEM - 2, st.malloc_max)
    if size <= MCLBYTES:
        return MBUF if size <= MSIZE else CLUSTER
    if size == MJUM16BYTES:
        return JUMBO_16
    return JUMBO_9 if size == MJUM9BYTES else JUMBO_PAGE


@kernel
def keg_of(st: State, z: int) -> int:
    """Zone whose slabs a zone's items come from."""
    return st.zone[z, slabs.Z_KEG]


@kernel
def zone_at(st: State, addr: Address) -> int:
    """Zone of the item at an address, which of an mbuf may be that of packets; NIL: a large malloc."""
    z = zone_of(st, addr)
    return PACKET if z == MBUF and st.ext[addr >> MSHIFT] != NO_PACKET else z


@kernel
def own_domain(st: State, reg: Registers, i: int) -> int:
    return st.domain_of[reg[i, regs.CPU]]


@outlined
def grow(st: State, reg: Registers, i: int, z: int, d: int, phase: int) -> int:
    """Begin to make a slab: keg_alloc_slab(). Goes on in `phase`, under the same lock."""
    set_field(reg, i, phases.RETURN_SHIFT, phase)
    if st.zone[z, slabs.Z_HEADER] != NIL:
        return to_keg(st, reg, i, phases.HEADER, st.zone[z, slabs.Z_HEADER], d)
    return _ask_slab(st, reg, i, phases.SLAB, z, d)


@kernel
def in_direct_map(st: State, reg: Registers, i: int, z: int) -> None:
    """Name the map call for slabs of a page in the direct map: uma_small_alloc(), uma_small_free()."""
    if st.p.small_alloc and st.p.direct_map and st.zone[z, slabs.Z_MAP] == st.p.direct_map:
        reg[i, regs.CALL] = IN_DIRECT_MAP


@kernel
def _ask_slab(st: State, reg: Registers, i: int, phase: int, z: int, d: int) -> int:
    to_keg(st, reg, i, phase, z, d)
    ask_wired(reg, i, reg[i, regs.PHASE], st.zone[z, slabs.Z_MAP], st.zone[z, slabs.Z_PAGES] << PAGE_SHIFT, PAGE)
    reg[i, regs.ATTR] |= ATTR_NOFREE * st.zone[z, slabs.Z_NOFREE]
    if z == JUMBO_9 or z == JUMBO_16:
        reg[i, regs.ATTR] |= ATTR_CONTIG
    if st.zone[z, slabs.Z_STACK]:
        reg[i, regs.ATTR] |= ATTR_STACK
        reg[i, regs.CALL] = STACKS
    in_direct_map(st, reg, i, z)
    return MAP_ALLOC


@outlined
def grow_further(st: State, reg: Registers, i: int, phase: int) -> int:
    """Go on making a slab. DONE: it is made, or nothing of it is left; regs.PHASE says where to go on."""
    d = own_domain(st, reg, i)
    back = field(reg, i, phases.RETURN_SHIFT)
    z = field(reg, i, phases.STACK_SHIFT) if back == phases.REFILL else keg_of(st, wanted(st, reg, i))
    if phase == phases.SLAB:
        return _new_slab(st, reg, i, z, d, back)
    h = st.zone[z, slabs.Z_HEADER]
    if phase == phases.UNHEADER:
        slab_give(st, reg, i, reg[i, regs.X])
        reg[i, regs.X] = phases.REFUSED
        return to_keg(st, reg, i, back, z, d)
    if phase == phases.HEADER_PAGE:
        if reg[i, regs.BASE] < 0:
            reg[i, regs.X] = phases.REFUSED
            return to_keg(st, reg, i, back, z, d)
        slab_add(st, reg, i, h, d, reg[i, regs.BASE], 0)
    reg[i, regs.X] = slab_take(st, h, d)
    if reg[i, regs.X] == NIL:
        return _ask_slab(st, reg, i, phases.HEADER_PAGE, h, d)
    return _ask_slab(st, reg, i, phases.SLAB, z, d)


@kernel
def _new_slab(st: State, reg: Registers, i: int, z: int, d: int, back: int) -> int:
    if reg[i, regs.BASE] < 0:
        if reg[i, regs.X] >= 0:
            return to_keg(st, reg, i, phases.UNHEADER, st.zone[z, slabs.Z_HEADER], d)
        reg[i, regs.X] = phases.REFUSED
    else:
        slab_add(st, reg, i, z, d, reg[i, regs.BASE], max(reg[i, regs.X], 0))
        reg[i, regs.X] = NIL
    set_phase(reg, i, back)
    return DONE


@kernel
def to_refill(st: State, reg: Registers, i: int, k: int, d: int, phase: int) -> int:
    set_field(reg, i, phases.STACK_SHIFT, k)
    then(reg, i, phase)
    return to_keg(st, reg, i, phases.REFILL, k, d)


@kernel
def refill(st: State, reg: Registers, i: int) -> int:
    """Fill the CPU's stack of a bucket zone. regs.X stays REFUSED where nothing could be got."""
    k, cpu, d = field(reg, i, phases.STACK_SHIFT), reg[i, regs.CPU], own_domain(st, reg, i)
    while st.cache[k, cpu, slabs.COUNT] < st.cache[k, cpu, slabs.HALF]:
        addr = slab_take(st, k, d)
        if addr == NIL:
            if reg[i, regs.X] != phases.REFUSED:
                return grow(st, reg, i, k, d, phases.REFILL)
            break
        stack_push(st, k, cpu, addr >> slabs.WORD_SHIFT)
        reg[i, regs.WORK] += 1
    if st.cache[k, cpu, slabs.COUNT] > 0:
        reg[i, regs.X] = NIL
    return resume(st, reg, i)


@kernel
def empty_bucket(st: State, reg: Registers, i: int, b: int, phase: int) -> int:
    """Give a bucket's items to their slabs and put it away, then go on in `phase`: bucket_free()."""
    then(reg, i, phase)
    reg[i, regs.BASE] = b
    st.word[b] = 0  # items that have been given back
    if bucket_count(st, b) == 0:
        return to_section(reg, i, phases.DISPOSE)
    addr = item_at(st, b, 0)
    if zone_at(st, addr) == PACKET:
        return to_section(reg, i, phases.FINI)
    return to_keg(st, reg, i, phases.RELEASE, zone_of(st, addr), domain_at(st, addr))


@outlined
def put_away(st: State, reg: Registers, i: int, phase: int) -> int:
    """RELEASE, DISPOSE, FLUSH and UNSTACK."""
    if phase == phases.RELEASE:
        return _release(st, reg, i)
    if phase == phases.UNSTACK:
        return unstack(st, reg, i)
    if phase == phases.FLUSH:
        return _flush(st, reg, i)
    b, cpu = reg[i, regs.BASE], reg[i, regs.CPU]
    k = bucket_zone(st, bucket_entries(st, b))
    return to_flush(st, reg, i, k) if stack_push(st, k, cpu, b) else resume(st, reg, i)


@kernel
def _release(st: State, reg: Registers, i: int) -> int:
    """Give items back, the first one first, as long as they belong to the domain whose lock we have: zone_release()."""
    b = reg[i, regs.BASE]
    n, count = wide(st.word[b]), bucket_count(st, b)
    z, d = zone_at(st, item_at(st, b, n)), domain_at(st, item_at(st, b, n))
    while n < count:
        addr = item_at(st, b, n)
        if domain_at(st, addr) != d:
            st.word[b] = n
            return to_keg(st, reg, i, phases.RELEASE, z, domain_at(st, addr))
        if z == PACKET:
            st.ext[addr >> MSHIFT] = NO_PACKET
        slab_give(st, reg, i, addr)
        n += 1
        reg[i, regs.WORK] += 1
    st.zone[z, slabs.Z_USED] -= count
    if z != PACKET:
        let_go(reg, i, z, count)
    st.word[b + 1] = bucket_entries(st, b) << slabs.ENTRIES_SHIFT
    if st.zone[z, slabs.Z_STACK]:
        reg[i, regs.TARGET] = b
        return unstack(st, reg, i)
    return to_section(reg, i, phases.DISPOSE)


@outlined
def unstack(st: State, reg: Registers, i: int) -> int:
    """Unmap the next kernel stack that has come back, for their zone keeps no slabs: kstack_release()."""
    for z in range(FIRST_ITEM, len(st.zone)):
        for d in range(st.domains if st.zone[z, slabs.Z_STACK] else 0):
            page = st.dom[z, d, slabs.D_FREE]
            if page == NIL:
                continue
            st.dom[z, d, slabs.D_FREE] = wide(st.slab[page, slabs.S_NEXT])
            st.dom[z, d, slabs.D_FREE_SLABS] -= 1
            st.dom[z, d, slabs.D_PAGES] -= st.zone[z, slabs.Z_PAGES]
            set_phase(reg, i, phases.UNSTACK)
            return unmap_slab(st, reg, i, reg[i, regs.PHASE], z, page)
    if reg[i, regs.TARGET] == NIL:
        return DONE
    reg[i, regs.BASE] = reg[i, regs.TARGET]
    return to_section(reg, i, phases.DISPOSE)


@kernel
def unmap_slab(st: State, reg: Registers, i: int, phase: int, z: int, page: int) -> int:
    """Give the pages of a slab back to its map, from the critical section; goes on in `phase`."""
    slab_forget(st, z, page)
    reg[i, regs.LOCK] = 0
    in_direct_map(st, reg, i, z)
    nbytes = st.zone[z, slabs.Z_PAGES] << PAGE_SHIFT
    return ask_unmap(reg, i, phase, st.zone[z, slabs.Z_MAP], page << PAGE_SHIFT, nbytes)


@kernel
def to_flush(st: State, reg: Registers, i: int, k: int) -> int:
    set_field(reg, i, phases.STACK_SHIFT, k)
    addr = st.cache[k, reg[i, regs.CPU], slabs.TOP] << slabs.WORD_SHIFT
    return to_keg(st, reg, i, phases.FLUSH, k, domain_at(st, addr))


@kernel
def _flush(st: State, reg: Registers, i: int) -> int:
    """Give buckets of the CPU's stack to their slabs, down to what a refill would get."""
    k, cpu = field(reg, i, phases.STACK_SHIFT), reg[i, regs.CPU]
    if flush_stack(st, reg, i, k, cpu, st.cache[k, cpu, slabs.HALF]):
        return resume(st, reg, i)
    return to_flush(st, reg, i, k)


@kernel
def flush_stack(st: State, reg: Registers, i: int, k: int, cpu: int, keep: int) -> bool:
    """Give buckets of the topmost one's domain back until `keep` are left. False: there are others."""
    d = NIL
    while st.cache[k, cpu, slabs.COUNT] > keep:
        addr = st.cache[k, cpu, slabs.TOP] << slabs.WORD_SHIFT
        if d == NIL:
            d = domain_at(st, addr)
        if d != domain_at(st, addr):
            return False
        slab_give(st, reg, i, stack_pop(st, k, cpu) << slabs.WORD_SHIFT)
        reg[i, regs.WORK] += 1
    return True
