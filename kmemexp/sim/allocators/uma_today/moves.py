"""What the operations of `allocators/uma_today` have in common: locks, new slabs, buckets put away.

`phases` says what the registers hold, and which phase follows which.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators._shared.packed_phase import field, go_to, set_field, set_phase
from kmemexp.sim.allocators._shared.uma_requests import NIL, zone_for, zone_of
from kmemexp.sim.allocators.uma_today.phases import (
    DISPOSE,
    FLUSH,
    HEADER,
    HEADER_PAGE,
    REFILL,
    REFUSED,
    RELEASE,
    RETURN_SHIFT,
    SLAB,
    SORT,
    STACK_SHIFT,
    THEN_SHIFT,
    UNHEADER,
)
from kmemexp.sim.allocators.uma_today.slabs import (
    COUNT,
    D_TAKES,
    ENTRIES_SHIFT,
    HALF,
    S_DOMAIN,
    TOP,
    WORD_SHIFT,
    Z_BUCKET,
    Z_BUCKET_MAX,
    Z_ENTRIES,
    Z_HEADER,
    Z_MAP,
    Z_PAGES,
    Z_USED,
    bucket_count,
    bucket_entries,
    item_at,
    slab_add,
    slab_give,
    slab_take,
    stack_pop,
    stack_push,
)
from kmemexp.sim.asking import ask_wired
from kmemexp.sim.slots import DONE, LOCK_SHIFT, PAGE, PAGE_SHIFT, R_BASE, R_CPU, R_PHASE, R_TARGET, R_WORK, R_X, R_Y
from kmemexp.sim.widths import wide

# Zones.
FIRST_BUCKET = 2
FIRST_MALLOC = 10
MBUF = 24
CLUSTER = 25
FIRST_ITEM = 26

# Classes of locks.
LIST_LOCK = 1
KEG_LOCK = 2
CROSS_LOCK = 3


@kernel
def to_section(reg, i, phase):
    """Go on in the critical section."""
    return go_to(reg, i, phase, 0)


@kernel
def to_list(st, reg, i, phase, z, d):
    """Go on under a zone-domain lock."""
    reg[i, R_TARGET] = st.dom[z, d, D_TAKES]
    return go_to(reg, i, phase, (LIST_LOCK << LOCK_SHIFT) | (z * st.domains + d))


@kernel
def to_keg(st, reg, i, phase, z, d):
    """Go on under a keg-domain lock."""
    return go_to(reg, i, phase, (KEG_LOCK << LOCK_SHIFT) | (z * st.domains + d))


@kernel
def to_cross(reg, i, phase, z):
    """Go on under a zone's lock for sorting."""
    return go_to(reg, i, phase, (CROSS_LOCK << LOCK_SHIFT) | z)


@kernel
def then(reg, i, phase):
    """Say where to go on after a detour: a phase of the critical section, or SORT."""
    set_field(reg, i, THEN_SHIFT, phase)


@kernel
def resume(st, reg, i):
    """Go on after the detour."""
    phase = field(reg, i, THEN_SHIFT)
    if phase == SORT:
        return to_cross(reg, i, SORT, zone_of(st, item_at(st, reg[i, R_Y], 0)))
    return to_section(reg, i, phase)


@kernel
def domain_at(st, addr):
    """Domain of an item."""
    return wide(st.slab[addr >> PAGE_SHIFT, S_DOMAIN])


@kernel
def enter_list(st, reg, i, z, d):
    """Count the taking of a zone-domain lock, and let buckets grow if it was contended: zone_domain_lock()."""
    others = st.dom[z, d, D_TAKES] != reg[i, R_TARGET]
    st.dom[z, d, D_TAKES] += 1
    if others and st.p.bucket_growth and st.zone[z, Z_BUCKET] < st.zone[z, Z_BUCKET_MAX]:
        st.zone[z, Z_BUCKET] += 1


@kernel
def bucket_zone(st, entries):
    """Zone of the smallest buckets with so many entries."""
    k = FIRST_BUCKET
    while st.zone[k, Z_ENTRIES] < entries:
        k += 1
    return k


@kernel
def wanted(st, reg, i):
    """Zone that an allocation is served from; NIL: large malloc."""
    return zone_for(st, reg, i, MBUF, st.malloc_max)


@kernel
def own_domain(st, reg, i):
    return st.domain_of[reg[i, R_CPU]]


@outlined
def grow(st, reg, i, z, d, phase):
    """Begin to make a slab: keg_alloc_slab(). Goes on in `phase`, under the same lock."""
    set_field(reg, i, RETURN_SHIFT, phase)
    if st.zone[z, Z_HEADER] != NIL:
        return to_keg(st, reg, i, HEADER, st.zone[z, Z_HEADER], d)
    return _ask_slab(st, reg, i, SLAB, z, d)


@kernel
def _ask_slab(st, reg, i, phase, z, d):
    to_keg(st, reg, i, phase, z, d)
    return ask_wired(reg, i, reg[i, R_PHASE], st.zone[z, Z_MAP], st.zone[z, Z_PAGES] << PAGE_SHIFT, PAGE)


@outlined
def grow_further(st, reg, i, phase):
    """Go on making a slab. DONE: it is made, or nothing of it is left; R_PHASE says where to go on."""
    d = own_domain(st, reg, i)
    back = field(reg, i, RETURN_SHIFT)
    z = field(reg, i, STACK_SHIFT) if back == REFILL else wanted(st, reg, i)
    if phase == SLAB:
        return _new_slab(st, reg, i, z, d, back)
    h = st.zone[z, Z_HEADER]
    if phase == UNHEADER:
        slab_give(st, reg, i, reg[i, R_X])
        reg[i, R_X] = REFUSED
        return to_keg(st, reg, i, back, z, d)
    if phase == HEADER_PAGE:
        if reg[i, R_BASE] < 0:
            reg[i, R_X] = REFUSED
            return to_keg(st, reg, i, back, z, d)
        slab_add(st, reg, i, h, d, reg[i, R_BASE], 0)
    reg[i, R_X] = slab_take(st, h, d)
    if reg[i, R_X] == NIL:
        return _ask_slab(st, reg, i, HEADER_PAGE, h, d)
    return _ask_slab(st, reg, i, SLAB, z, d)


@kernel
def _new_slab(st, reg, i, z, d, back):
    if reg[i, R_BASE] < 0:
        if reg[i, R_X] >= 0:
            return to_keg(st, reg, i, UNHEADER, st.zone[z, Z_HEADER], d)
        reg[i, R_X] = REFUSED
    else:
        slab_add(st, reg, i, z, d, reg[i, R_BASE], max(reg[i, R_X], 0))
        reg[i, R_X] = NIL
    set_phase(reg, i, back)
    return DONE


@kernel
def to_refill(st, reg, i, k, d, phase):
    set_field(reg, i, STACK_SHIFT, k)
    then(reg, i, phase)
    return to_keg(st, reg, i, REFILL, k, d)


@kernel
def refill(st, reg, i):
    """Fill the CPU's stack of a bucket zone. R_X stays REFUSED where nothing could be got."""
    k, cpu, d = field(reg, i, STACK_SHIFT), reg[i, R_CPU], own_domain(st, reg, i)
    while st.cache[k, cpu, COUNT] < st.cache[k, cpu, HALF]:
        addr = slab_take(st, k, d)
        if addr == NIL:
            if reg[i, R_X] != REFUSED:
                return grow(st, reg, i, k, d, REFILL)
            break
        stack_push(st, k, cpu, addr >> WORD_SHIFT)
        reg[i, R_WORK] += 1
    if st.cache[k, cpu, COUNT] > 0:
        reg[i, R_X] = NIL
    return resume(st, reg, i)


@kernel
def empty_bucket(st, reg, i, b, phase):
    """Give a bucket's items to their slabs and put it away, then go on in `phase`: bucket_free()."""
    then(reg, i, phase)
    reg[i, R_BASE] = b
    st.word[b] = 0  # items that have been given back
    if bucket_count(st, b) == 0:
        return to_section(reg, i, DISPOSE)
    addr = item_at(st, b, 0)
    return to_keg(st, reg, i, RELEASE, zone_of(st, addr), domain_at(st, addr))


@outlined
def put_away(st, reg, i, phase):
    """RELEASE, DISPOSE and FLUSH."""
    if phase == RELEASE:
        return _release(st, reg, i)
    if phase == FLUSH:
        return _flush(st, reg, i)
    b, cpu = reg[i, R_BASE], reg[i, R_CPU]
    k = bucket_zone(st, bucket_entries(st, b))
    return to_flush(st, reg, i, k) if stack_push(st, k, cpu, b) else resume(st, reg, i)


@kernel
def _release(st, reg, i):
    """Give items back, the first one first, as long as they belong to the domain whose lock we have: zone_release()."""
    b = reg[i, R_BASE]
    n, count = wide(st.word[b]), bucket_count(st, b)
    z, d = zone_of(st, item_at(st, b, n)), domain_at(st, item_at(st, b, n))
    while n < count:
        addr = item_at(st, b, n)
        if domain_at(st, addr) != d:
            st.word[b] = n
            return to_keg(st, reg, i, RELEASE, z, domain_at(st, addr))
        slab_give(st, reg, i, addr)
        n += 1
        reg[i, R_WORK] += 1
    st.zone[z, Z_USED] -= count
    st.word[b + 1] = bucket_entries(st, b) << ENTRIES_SHIFT
    return to_section(reg, i, DISPOSE)


@kernel
def to_flush(st, reg, i, k):
    set_field(reg, i, STACK_SHIFT, k)
    addr = st.cache[k, reg[i, R_CPU], TOP] << WORD_SHIFT
    return to_keg(st, reg, i, FLUSH, k, domain_at(st, addr))


@kernel
def _flush(st, reg, i):
    """Give buckets of the CPU's stack to their slabs, down to what a refill would get."""
    k, cpu = field(reg, i, STACK_SHIFT), reg[i, R_CPU]
    if flush_stack(st, reg, i, k, cpu, st.cache[k, cpu, HALF]):
        return resume(st, reg, i)
    return to_flush(st, reg, i, k)


@kernel
def flush_stack(st, reg, i, k, cpu, keep):
    """Give buckets of the topmost one's domain back until `keep` are left. False: there are others."""
    d = NIL
    while st.cache[k, cpu, COUNT] > keep:
        addr = st.cache[k, cpu, TOP] << WORD_SHIFT
        if d == NIL:
            d = domain_at(st, addr)
        if d != domain_at(st, addr):
            return False
        slab_give(st, reg, i, stack_pop(st, k, cpu) << WORD_SHIFT)
        reg[i, R_WORK] += 1
    return True
