"""Frees of `allocators/uma_today` beyond the fast path: one function for each phase.

The registers are described in `moves`.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators.uma_today.moves import (
    CLUSTER,
    CLUSTER_SHIFT,
    FREE_ITEM,
    FREE_PIECES,
    GIVING_UP,
    LARGE,
    PUT,
    PUT_SORTED,
    REFUSED,
    RELOAD,
    SORT,
    SORTED,
    bucket_zone,
    domain_at,
    empty_bucket,
    enter_list,
    to_cross,
    to_keg,
    to_list,
    to_refill,
    to_section,
    zone_of,
)
from kmemexp.sim.allocators.uma_today.slabs import (
    CROSS,
    D_CROSS,
    ENTRIES_SHIFT,
    FREE,
    NIL,
    S_COUNT,
    Z_BUCKET,
    Z_BUCKET_MAX,
    Z_ENTRIES,
    Z_USED,
    bucket_add,
    bucket_count,
    bucket_entries,
    cache_load,
    cache_push,
    cache_unload,
    item_at,
    list_put,
    slab_give,
    stack_pop,
    wide,
)
from kmemexp.sim.slots import (
    DONE,
    FAILED,
    MAP_FREE,
    PAGE_SHIFT,
    R_ADDR,
    R_BASE,
    R_BYTES,
    R_CPU,
    R_GRANTED,
    R_MAP,
    R_PHASE,
    R_WORK,
    R_X,
    R_Y,
)


@kernel
def free_step(st, reg, i, phase):
    if phase == FREE_PIECES:
        return _free_pieces(st, reg, i, False)
    if phase == PUT:
        return _put(st, reg, i)
    if phase == RELOAD:
        return _free_pieces(st, reg, i, True)
    if phase == FREE_ITEM:
        return _free_item(st, reg, i)
    if phase == SORT:
        return _sort(st, reg, i)
    if phase == SORTED:
        return _sorted(st, reg, i)
    return _put_sorted(st, reg, i)


@kernel
def begin_free(st, reg, i):
    if zone_of(st, reg[i, R_ADDR]) == NIL:
        page = reg[i, R_ADDR] >> PAGE_SHIFT
        st.large[0] -= st.slab[page, S_COUNT]
        reg[i, R_PHASE] = LARGE
        reg[i, R_MAP] = st.map
        reg[i, R_BASE] = reg[i, R_ADDR]
        reg[i, R_BYTES] = wide(st.slab[page, S_COUNT]) << PAGE_SHIFT
        return MAP_FREE
    note_next(st, reg, i)
    return _free_pieces(st, reg, i, False)


@kernel
def note_next(st, reg, i):
    """Remember the cluster after the one at R_ADDR, which leaves its chain."""
    reg[i, R_GRANTED] = 0
    if zone_of(st, reg[i, R_ADDR]) == CLUSTER:
        piece = reg[i, R_ADDR] >> CLUSTER_SHIFT
        reg[i, R_GRANTED] = st.chain[piece]
        st.chain[piece] = 0


@kernel
def _next_piece(st, reg, i):
    """Go on to the next cluster of the chain. False: there is none."""
    if reg[i, R_GRANTED] == 0:
        return False
    reg[i, R_ADDR] = (reg[i, R_GRANTED] - 1) << CLUSTER_SHIFT
    note_next(st, reg, i)
    return True


@kernel
def _freed(reg, i):
    return FAILED if reg[i, R_PHASE] & GIVING_UP else DONE


@outlined
def _free_pieces(st, reg, i, reload):
    """Put items into the CPU's buckets; where these are full, put the full one away: cache_free()."""
    cpu = reg[i, R_CPU]
    while True:
        addr = reg[i, R_ADDR]
        z, d = zone_of(st, addr), domain_at(st, addr)
        cross = d != st.domain_of[cpu]
        if reload and not _reload(st, reg, i, z, cross):
            if reg[i, R_X] != REFUSED:
                k = bucket_zone(st, st.zone[z, Z_BUCKET])
                return to_refill(st, reg, i, k, st.domain_of[cpu], RELOAD)
            reg[i, R_X] = NIL
            return to_keg(st, reg, i, FREE_ITEM, z, d)
        reload = False
        if cache_push(st, z, cpu, addr, cross):
            if not _next_piece(st, reg, i):
                return _freed(reg, i)
            continue
        if st.zone[z, Z_BUCKET] == 0:
            return to_keg(st, reg, i, FREE_ITEM, z, d)
        b = cache_unload(st, z, cpu, CROSS if cross else FREE)
        reg[i, R_Y] = b
        if b == NIL:
            reload = True
        elif cross and st.domains > 2:
            return to_cross(reg, i, SORT, z)
        else:
            return to_list(st, reg, i, PUT, z, d)


@kernel
def _reload(st, reg, i, z, cross):
    """Give the CPU an empty bucket for what it frees. False: its stack has none."""
    cpu = reg[i, R_CPU]
    k = bucket_zone(st, st.zone[z, Z_BUCKET])
    at = CROSS if cross and st.cache[z, cpu, CROSS] == NIL else FREE
    if st.cache[z, cpu, at] != NIL:  # somebody else was faster
        return True
    b = stack_pop(st, k, cpu)
    if b == NIL:
        return False
    reg[i, R_X] = NIL
    st.word[b + 1] = min(st.zone[k, Z_ENTRIES], st.zone[z, Z_BUCKET_MAX]) << ENTRIES_SHIFT
    cache_load(st, z, cpu, at, b)
    return True


@kernel
def _put(st, reg, i):
    """Put a full bucket on the list of its items' domain: zone_free_bucket()."""
    z, d, b = zone_of(st, reg[i, R_ADDR]), domain_at(st, reg[i, R_ADDR]), reg[i, R_Y]
    enter_list(st, reg, i, z, d)
    if list_put(st, z, d, b, True):
        return to_section(reg, i, RELOAD)
    return empty_bucket(st, reg, i, b, RELOAD)


@kernel
def _free_item(st, reg, i):
    """Give a single item back to its slab: zone_free_item()."""
    st.zone[zone_of(st, reg[i, R_ADDR]), Z_USED] -= 1
    slab_give(st, reg, i, reg[i, R_ADDR])
    return to_section(reg, i, FREE_PIECES) if _next_piece(st, reg, i) else _freed(reg, i)


@kernel
def _sort(st, reg, i):
    """Sort a cross bucket into those of its items' domains: zone_free_cross(). Full ones hang on word b."""
    b, cpu = reg[i, R_Y], reg[i, R_CPU]
    count = bucket_count(st, b)
    while count > 0:
        addr = item_at(st, b, count - 1)
        z, d = zone_of(st, addr), domain_at(st, addr)
        to = st.dom[z, d, D_CROSS]
        if to == NIL:
            k = bucket_zone(st, st.zone[z, Z_BUCKET])
            to = stack_pop(st, k, cpu)
            if to == NIL:
                if reg[i, R_X] != REFUSED:
                    return to_refill(st, reg, i, k, st.domain_of[cpu], SORT)
                break
            st.word[to + 1] = min(st.zone[k, Z_ENTRIES], st.zone[z, Z_BUCKET_MAX]) << ENTRIES_SHIFT
            st.dom[z, d, D_CROSS] = to
        count -= 1
        st.word[b + 1] = wide(st.word[b + 1]) - 1
        reg[i, R_WORK] += 1
        if bucket_add(st, to, addr) == bucket_entries(st, to):
            st.dom[z, d, D_CROSS] = NIL
            st.word[to] = st.word[b]
            st.word[b] = to + 1
    reg[i, R_X] = NIL
    return to_section(reg, i, SORTED)


@kernel
def _sorted(st, reg, i):
    """Put what has become full on the lists, then put the sorted bucket away."""
    b = reg[i, R_Y]
    full = wide(st.word[b]) - 1
    if full == NIL:
        return empty_bucket(st, reg, i, b, RELOAD)
    addr = item_at(st, full, 0)
    return to_list(st, reg, i, PUT_SORTED, zone_of(st, addr), domain_at(st, addr))


@kernel
def _put_sorted(st, reg, i):
    b = reg[i, R_Y]
    full = wide(st.word[b]) - 1
    z, d = zone_of(st, item_at(st, full, 0)), domain_at(st, item_at(st, full, 0))
    enter_list(st, reg, i, z, d)
    st.word[b] = st.word[full]
    if list_put(st, z, d, full, True):
        return to_section(reg, i, SORTED)
    return empty_bucket(st, reg, i, full, SORTED)
