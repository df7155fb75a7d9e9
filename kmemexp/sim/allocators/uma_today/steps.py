"""Allocations of `allocators/uma_today` beyond the fast path: one function for each phase.

The registers are described in `phases`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators._shared.oversize import enter_large
from kmemexp.sim.allocators._shared.packed_phase import PHASE_MASK
from kmemexp.sim.allocators._shared.uma_requests import NIL, add_cluster, note_next, open_chain
from kmemexp.sim.allocators.uma_today.frees import begin_free, free_step
from kmemexp.sim.allocators.uma_today.moves import (
    CLUSTER,
    bucket_zone,
    empty_bucket,
    enter_list,
    grow,
    grow_further,
    own_domain,
    put_away,
    refill,
    then,
    to_flush,
    to_keg,
    to_list,
    to_refill,
    to_section,
    wanted,
)
from kmemexp.sim.allocators.uma_today.phases import (
    BEGIN,
    DISPOSE,
    FETCH,
    FLUSH,
    FREE_PIECES,
    GIVING_UP,
    HEADER,
    HEADER_PAGE,
    IMPORT,
    LARGE,
    LOAD,
    MISS,
    ONE,
    PIECES,
    PUT_BACK,
    REFILL,
    REFUSED,
    RELEASE,
    SINGLE,
    SLAB,
    TAKE,
    UNHEADER,
)
from kmemexp.sim.allocators.uma_today.slabs import (
    ALLOC,
    D_COUNT,
    D_IMAX,
    S_COUNT,
    Z_BUCKET,
    Z_MAX,
    Z_SIZE,
    Z_USED,
    bucket_add,
    bucket_count,
    bucket_entries,
    cache_load,
    cache_pop,
    cache_unload,
    list_fetch,
    list_put,
    new_bucket,
    slab_take,
    stack_pop,
    stack_push,
)
from kmemexp.sim.asking import ask_wired, hand_out
from kmemexp.sim.sizing import MCLBYTES
from kmemexp.sim.slots import (
    DONE,
    FAILED,
    ITEM_MALLOC,
    PAGE,
    R_BASE,
    R_CPU,
    R_GRANTED,
    R_ITEM,
    R_PHASE,
    R_SIZE,
    R_WORK,
    R_X,
    R_Y,
)
from kmemexp.sim.widths import wide


@outlined
def go(st, reg, i, freeing):
    """Play one step that the fast path could not. Returns its answer."""
    phase = reg[i, R_PHASE] & PHASE_MASK
    if phase == SLAB or phase == UNHEADER or phase == HEADER or phase == HEADER_PAGE:
        answer = grow_further(st, reg, i, phase)
        phase = reg[i, R_PHASE] & PHASE_MASK
        if answer != DONE:
            return answer
    if phase >= RELEASE and phase <= FLUSH:
        return put_away(st, reg, i, phase)
    if phase == REFILL:
        return refill(st, reg, i)
    if phase == LARGE:
        return DONE if freeing else enter_large(st, reg, i, S_COUNT)
    if phase == BEGIN:
        reg[i, R_X] = NIL
        return begin_free(st, reg, i) if freeing else _begin_alloc(st, reg, i)
    if phase >= FREE_PIECES:
        return free_step(st, reg, i, phase)
    return _alloc_step(st, reg, i, phase)


@kernel
def _alloc_step(st, reg, i, phase):
    if phase == PIECES:
        return _pieces(st, reg, i)
    if phase == MISS:
        return _miss(st, reg, i)
    if phase == FETCH:
        return _fetch(st, reg, i)
    if phase == TAKE:
        return _take(st, reg, i)
    if phase == IMPORT:
        return _import(st, reg, i)
    if phase == SINGLE:
        return _single(st, reg, i)
    if phase == ONE:
        return _one(st, reg, i)
    if phase == LOAD:
        return _load(st, reg, i)
    return _put_back(st, reg, i)


@kernel
def _begin_alloc(st, reg, i):
    reg[i, R_GRANTED] = 0
    if wanted(st, reg, i) == NIL:
        return ask_wired(reg, i, LARGE, st.map, (reg[i, R_SIZE] + PAGE - 1) & -PAGE, PAGE)
    return _pieces(st, reg, i)


@outlined
def _pieces(st, reg, i):
    """Pop as many items as the request needs; on a miss put the empty alloc bucket on the stack: cache_alloc()."""
    z, cpu = wanted(st, reg, i), reg[i, R_CPU]
    addr = cache_pop(st, z, cpu)
    while addr != NIL:
        if _got(st, reg, i, z, addr):
            return DONE
        addr = cache_pop(st, z, cpu)
    b = cache_unload(st, z, cpu, ALLOC)
    if b != NIL:
        k = bucket_zone(st, bucket_entries(st, b))
        if stack_push(st, k, cpu, b):
            then(reg, i, MISS)
            return to_flush(st, reg, i, k)
    return _miss(st, reg, i)


@kernel
def _got(st, reg, i, z, addr):
    """Hand an item out, or add it to the chain. True: that was all."""
    if z == CLUSTER and reg[i, R_SIZE] > MCLBYTES:
        return add_cluster(st, reg, i, addr)
    hand_out(reg, i, addr, st.zone[z, Z_SIZE])
    return True


@kernel
def _miss(st, reg, i):
    """Look for a full bucket. The kernel, too, looks at the count without the lock."""
    z, d = wanted(st, reg, i), own_domain(st, reg, i)
    if st.dom[z, d, D_COUNT] > 0:
        return to_list(st, reg, i, FETCH, z, d)
    return _take(st, reg, i)


@kernel
def _fetch(st, reg, i):
    z, d = wanted(st, reg, i), own_domain(st, reg, i)
    enter_list(st, reg, i, z, d)
    b = list_fetch(st, z, d, False)
    reg[i, R_Y] = b
    return to_section(reg, i, LOAD if b != NIL else TAKE)


@outlined
def _take(st, reg, i):
    """Take an empty bucket to fill, up to the zone's limit: zone_alloc_bucket(). Word b of it: how many items."""
    z, d, cpu = wanted(st, reg, i), own_domain(st, reg, i), reg[i, R_CPU]
    entries = st.zone[z, Z_BUCKET]
    n = entries
    if st.zone[z, Z_MAX] > 0:
        n = min(n, st.zone[z, Z_MAX] - st.zone[z, Z_USED])
    if n > 0:
        k = bucket_zone(st, entries)
        b = stack_pop(st, k, cpu)
        if b == NIL and reg[i, R_X] != REFUSED:
            return to_refill(st, reg, i, k, d, TAKE)
        reg[i, R_X] = NIL
        if b != NIL:
            st.zone[z, Z_USED] += n
            st.word[b] = n
            new_bucket(st, z, k, b)
            reg[i, R_Y] = b
            return to_keg(st, reg, i, IMPORT, z, d)
    return _one(st, reg, i)


@outlined
def _one(st, reg, i):
    """Ask for a single item: zone_alloc_item()."""
    z, d = wanted(st, reg, i), own_domain(st, reg, i)
    if st.zone[z, Z_MAX] > 0 and st.zone[z, Z_USED] >= st.zone[z, Z_MAX]:
        return _give_up(st, reg, i)
    st.zone[z, Z_USED] += 1
    return to_keg(st, reg, i, SINGLE, z, d)


@kernel
def _import(st, reg, i):
    """Fill the bucket from slabs: zone_import()."""
    z, d, b = wanted(st, reg, i), own_domain(st, reg, i), reg[i, R_Y]
    n = wide(st.word[b])
    have = bucket_count(st, b)
    while have < n:
        addr = slab_take(st, z, d)
        if addr == NIL:
            if reg[i, R_X] != REFUSED:
                return grow(st, reg, i, z, d, IMPORT)
            break
        have = bucket_add(st, b, addr)
        reg[i, R_WORK] += 1
    reg[i, R_X] = NIL
    st.zone[z, Z_USED] -= n - have
    if have == 0:
        then(reg, i, ONE)
        reg[i, R_BASE] = b
        return to_section(reg, i, DISPOSE)
    st.word[b] = 1  # new, for LOAD
    return to_section(reg, i, LOAD)


@kernel
def _single(st, reg, i):
    z, d = wanted(st, reg, i), own_domain(st, reg, i)
    addr = slab_take(st, z, d)
    if addr == NIL:
        if reg[i, R_X] != REFUSED:
            return grow(st, reg, i, z, d, SINGLE)
        reg[i, R_X] = NIL
        st.zone[z, Z_USED] -= 1
        return _give_up(st, reg, i)
    reg[i, R_X] = NIL
    return DONE if _got(st, reg, i, z, addr) else to_section(reg, i, PIECES)


@kernel
def _load(st, reg, i):
    """Give the CPU the bucket, unless it has got one meanwhile."""
    z, d, b, cpu = wanted(st, reg, i), own_domain(st, reg, i), reg[i, R_Y], reg[i, R_CPU]
    if st.cache[z, cpu, ALLOC] != NIL:
        return to_list(st, reg, i, PUT_BACK, z, d)
    if st.word[b] != 0:
        st.dom[z, d, D_IMAX] += bucket_count(st, b)
    cache_load(st, z, cpu, ALLOC, b)
    return _pieces(st, reg, i)


@kernel
def _put_back(st, reg, i):
    """Put the bucket on the list and begin again; what was new does not count for the working set."""
    z, d, b = wanted(st, reg, i), own_domain(st, reg, i), reg[i, R_Y]
    enter_list(st, reg, i, z, d)
    if list_put(st, z, d, b, st.word[b] == 0):
        return to_section(reg, i, PIECES)
    return empty_bucket(st, reg, i, b, PIECES)


@kernel
def _give_up(st, reg, i):
    """Fail, and free what a chain has got already."""
    if reg[i, R_ITEM] >= 0 or reg[i, R_ITEM] == ITEM_MALLOC or reg[i, R_GRANTED] == 0:
        return FAILED
    open_chain(st, reg, i)
    reg[i, R_PHASE] = GIVING_UP
    note_next(st, reg, i, CLUSTER)
    return to_section(reg, i, FREE_PIECES)
