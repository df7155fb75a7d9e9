"""Allocations and frees of `allocators/illumos_kmem` beyond the fast path: one function for each phase."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.allocators.illumos_kmem.calls import (
    A_BUFCTL,
    A_CPU,
    A_DEPOT,
    A_ENTER,
    A_HEADER,
    A_MAPPED,
    A_SLAB,
    BEGIN,
    D_BUFCTL,
    D_MAPPED,
    D_SLAB,
    F_CPU,
    F_DEPOT,
    F_GIVE,
    F_MAGAZINE,
    F_SLAB,
    FREED,
    HANDED_OUT,
    LARGE,
    PHASE_MASK,
    buffer,
    cache,
    call,
    finish,
    note,
    to_cache,
    to_cpu,
    to_depot,
)
from kmemexp.sim.allocators.illumos_kmem.magazines import cpu_pop, cpu_push, cpu_reload, depot_give, depot_take
from kmemexp.sim.allocators.illumos_kmem.slabs import (
    BUFCTL_CACHE,
    K_ALIGN,
    K_COLOR,
    K_CONTENTION,
    K_EMPTY,
    K_FULL,
    K_HASHED,
    K_LAST,
    K_MAGTYPE,
    K_MAXCOLOR,
    K_SLAB,
    K_TAKES,
    MAGSIZE,
    NIL,
    PLOADED,
    S_CHUNKS,
    S_HEAD,
    S_HEADER,
    S_PAGES,
    SLAB_CACHE,
    WORD_SHIFT,
    cache_of,
    free_pop,
    slab_add,
    slab_begin,
    slab_end,
    slab_enter,
    slab_forget,
    slab_give,
    slab_next,
    slab_take,
    wide,
)
from kmemexp.sim.asking import ask_wired
from kmemexp.sim.slots import (
    DONE,
    F_NOWAIT,
    FAILED,
    MAP_FREE,
    PAGE,
    PAGE_SHIFT,
    R_ADDR,
    R_BASE,
    R_BYTES,
    R_CPU,
    R_FLAGS,
    R_GRANTED,
    R_ITEM,
    R_MAP,
    R_PHASE,
    R_SIZE,
    R_WORK,
)

# When the depot counts as contended (Params.contention).
C_WAITED = 1  # somebody else took its lock between asking for it and getting it
C_OTHER_CPU = 2  # another CPU came before


@outlined
def go(st, reg, i, freeing):
    """Play one step that the fast path could not. Returns its answer."""
    phase = reg[i, R_PHASE] & PHASE_MASK
    if phase == BEGIN:
        return _begin_free(st, reg, i) if freeing else _begin_alloc(st, reg, i)
    if phase == LARGE:
        return DONE if freeing else _large(st, reg, i)
    return go_on(st, reg, i, phase)


@outlined
def go_on(st, reg, i, phase):
    """Play one step of the innermost call."""
    if phase <= A_ENTER:
        return _alloc_step(st, reg, i, phase)
    if phase <= F_SLAB:
        return _free_step(st, reg, i, phase)
    if phase == D_BUFCTL:
        return _drop_bufctls(st, reg, i)
    if phase == D_SLAB:
        return _unmap(st, reg, i, cache(reg, i), reg[i, R_GRANTED])
    return finish(st, reg, i, NIL)


@kernel
def _alloc_step(st, reg, i, phase):
    if phase == A_CPU:
        return _alloc_cpu(st, reg, i)
    if phase == A_DEPOT:
        return _alloc_depot(st, reg, i)
    if phase == A_SLAB:
        return _alloc_slab(st, reg, i)
    if phase == A_MAPPED:
        return _alloc_mapped(st, reg, i)
    if phase == A_HEADER:
        return _alloc_header(st, reg, i)
    if phase == A_BUFCTL:
        return _alloc_bufctl(st, reg, i)
    slab_enter(st, cache(reg, i), reg[i, R_GRANTED])
    return finish(st, reg, i, slab_take(st, cache(reg, i), reg[i, R_GRANTED]))


@kernel
def _free_step(st, reg, i, phase):
    if phase == F_CPU:
        return _free_cpu(st, reg, i)
    if phase == F_DEPOT:
        return _free_depot(st, reg, i)
    if phase == F_MAGAZINE:
        return _free_magazine(st, reg, i)
    if phase == F_GIVE:
        return _free_give(st, reg, i)
    page = slab_give(st, cache(reg, i), buffer(reg, i))
    return finish(st, reg, i, NIL) if page == NIL else destroy(st, reg, i, cache(reg, i), page)


@kernel
def wanted(st, reg, i):
    """Cache that a request is served from; NIL: it is oversize."""
    item, size = reg[i, R_ITEM], reg[i, R_SIZE]
    if item >= 0:
        return st.first_item + item
    if size <= PAGE:
        return wide(st.small_cache[(size + 7) >> 3])
    return wide(st.big_cache[(size + PAGE - 1) >> PAGE_SHIFT]) if size <= st.max_cached else NIL


@kernel
def _begin_alloc(st, reg, i):
    k = wanted(st, reg, i)
    if k == NIL:
        return ask_wired(reg, i, LARGE, st.map, (reg[i, R_SIZE] + PAGE - 1) & -PAGE, PAGE)
    call(reg, i, k, NIL, HANDED_OUT)
    return _alloc_missed(st, reg, i, k)


@kernel
def _large(st, reg, i):
    """Note the pages of an oversize block."""
    base, nbytes = reg[i, R_BASE], reg[i, R_BYTES]
    if base < 0:
        return FAILED
    st.slab[base >> PAGE_SHIFT, S_PAGES] = nbytes >> PAGE_SHIFT
    st.large[0] += nbytes >> PAGE_SHIFT
    reg[i, R_ADDR] = base
    reg[i, R_GRANTED] = nbytes
    return DONE


@kernel
def _begin_free(st, reg, i):
    b = reg[i, R_ADDR] >> WORD_SHIFT
    k = cache_of(st, b)
    if k == NIL:
        page = reg[i, R_ADDR] >> PAGE_SHIFT
        st.large[0] -= st.slab[page, S_PAGES]
        reg[i, R_PHASE] = LARGE
        reg[i, R_MAP] = st.map
        reg[i, R_BASE] = reg[i, R_ADDR]
        reg[i, R_BYTES] = wide(st.slab[page, S_PAGES]) << PAGE_SHIFT
        return MAP_FREE
    reg[i, R_FLAGS] |= F_NOWAIT  # of a magazine, should one be needed
    call(reg, i, k, b, FREED)
    return _free_missed(st, reg, i, k)


@kernel
def _alloc_cpu(st, reg, i):
    k = cache(reg, i)
    b = cpu_pop(st, k, reg[i, R_CPU])
    return _alloc_missed(st, reg, i, k) if b == NIL else finish(st, reg, i, b)


@kernel
def _alloc_missed(st, reg, i, k):
    """Both magazines are empty."""
    if st.cc[k, reg[i, R_CPU], MAGSIZE] == 0:
        return to_cache(reg, i, A_SLAB, k)
    reg[i, R_BASE] = st.cache[k, K_TAKES]
    return to_depot(reg, i, A_DEPOT, k)


@kernel
def _enter_depot(st, reg, i, k):
    """Count the taking of a depot's lock, and whether it was contended."""
    cpu = reg[i, R_CPU]
    if st.p.contention == C_WAITED:
        st.cache[k, K_CONTENTION] += st.cache[k, K_TAKES] != reg[i, R_BASE]
    elif st.p.contention == C_OTHER_CPU:
        st.cache[k, K_CONTENTION] += st.cache[k, K_LAST] != cpu and st.cache[k, K_LAST] != NIL
    st.cache[k, K_LAST] = cpu
    st.cache[k, K_TAKES] += 1


@kernel
def _alloc_depot(st, reg, i):
    """Take a full magazine for the previous one, which is empty."""
    k, cpu = cache(reg, i), reg[i, R_CPU]
    _enter_depot(st, reg, i, k)
    b = cpu_pop(st, k, cpu)
    if b == NIL and st.cc[k, cpu, MAGSIZE] > 0:
        mag = depot_take(st, k, K_FULL)
        if mag != NIL:
            if st.cc[k, cpu, PLOADED] != NIL:
                depot_give(st, k, K_EMPTY, st.cc[k, cpu, PLOADED])
            cpu_reload(st, k, cpu, mag, st.cc[k, cpu, MAGSIZE])
            b = cpu_pop(st, k, cpu)
    return to_cache(reg, i, A_SLAB, k) if b == NIL else finish(st, reg, i, b)


@kernel
def _alloc_slab(st, reg, i):
    """Take a buffer of the first partial slab, or ask for a new slab: kmem_slab_alloc()."""
    k = cache(reg, i)
    page = slab_end(st, k, 0)
    if page != NIL:
        return finish(st, reg, i, slab_take(st, k, page))
    colour = st.cache[k, K_COLOR] + st.cache[k, K_ALIGN]
    if colour > st.cache[k, K_MAXCOLOR]:
        colour = 0
    st.cache[k, K_COLOR] = colour
    note(reg, i, colour)
    if st.cache[k, K_HASHED]:
        to_cpu(reg, i, A_MAPPED)
    else:
        to_cache(reg, i, A_MAPPED, k)
    return ask_wired(reg, i, reg[i, R_PHASE], st.map, st.cache[k, K_SLAB], PAGE)


@kernel
def _alloc_mapped(st, reg, i):
    """Lay the new slab out: kmem_slab_create()."""
    if reg[i, R_BASE] < 0:
        return finish(st, reg, i, NIL)
    k, page = cache(reg, i), reg[i, R_BASE] >> PAGE_SHIFT
    slab_begin(st, k, page, buffer(reg, i))
    if st.cache[k, K_HASHED]:
        reg[i, R_GRANTED] = page
        call(reg, i, SLAB_CACHE, NIL, A_HEADER)
        return _alloc_cpu(st, reg, i)
    b = slab_next(st, k, page)
    while b != NIL:
        slab_add(st, page, b)
        b = slab_next(st, k, page)
    reg[i, R_WORK] += wide(st.slab[page, S_CHUNKS]) - 1
    slab_enter(st, k, page)
    return finish(st, reg, i, slab_take(st, k, page))


@kernel
def _alloc_header(st, reg, i):
    page = reg[i, R_GRANTED]
    if reg[i, R_BASE] == NIL:
        return _unmap(st, reg, i, cache(reg, i), page)
    st.slab[page, S_HEADER] = reg[i, R_BASE]
    return _add_bufctls(st, reg, i, page)


@kernel
def _alloc_bufctl(st, reg, i):
    page = reg[i, R_GRANTED]
    if reg[i, R_BASE] == NIL:
        return _drop_bufctls(st, reg, i)
    _add_bufctl(st, cache(reg, i), page, reg[i, R_BASE])
    return _add_bufctls(st, reg, i, page)


@kernel
def _add_bufctl(st, k, page, bufctl):
    b = slab_next(st, k, page)
    slab_add(st, page, b)
    st.word[b + 1] = bufctl


@kernel
def _add_bufctls(st, reg, i, page):
    """Give the buffers of a hashed slab their bufctls, as far as the CPU's magazines last."""
    k, cpu = cache(reg, i), reg[i, R_CPU]
    while slab_next(st, k, page) != NIL:
        bufctl = cpu_pop(st, BUFCTL_CACHE, cpu)
        if bufctl == NIL:
            call(reg, i, BUFCTL_CACHE, NIL, A_BUFCTL)
            return _alloc_missed(st, reg, i, BUFCTL_CACHE)
        _add_bufctl(st, k, page, bufctl)
        reg[i, R_WORK] += 1
    return to_cache(reg, i, A_ENTER, k)


@kernel
def _free_cpu(st, reg, i):
    k = cache(reg, i)
    if cpu_push(st, k, reg[i, R_CPU], buffer(reg, i)):
        return finish(st, reg, i, NIL)
    return _free_missed(st, reg, i, k)


@kernel
def _free_missed(st, reg, i, k):
    """Both magazines are full."""
    if st.cc[k, reg[i, R_CPU], MAGSIZE] == 0:
        return to_cache(reg, i, F_SLAB, k)
    reg[i, R_BASE] = st.cache[k, K_TAKES]
    return to_depot(reg, i, F_DEPOT, k)


@kernel
def _free_depot(st, reg, i):
    _enter_depot(st, reg, i, cache(reg, i))
    return _exchange(st, reg, i)


@kernel
def _exchange(st, reg, i):
    """Take an empty magazine for the previous one, which is full, or allocate one: kmem_cpucache_magazine_alloc()."""
    k, cpu, b = cache(reg, i), reg[i, R_CPU], buffer(reg, i)
    if cpu_push(st, k, cpu, b):
        return finish(st, reg, i, NIL)
    if st.cc[k, cpu, MAGSIZE] == 0:
        return to_cache(reg, i, F_SLAB, k)
    mag = depot_take(st, k, K_EMPTY)
    if mag == NIL:
        call(reg, i, st.cache[k, K_MAGTYPE], NIL, F_MAGAZINE)
        return to_cpu(reg, i, A_CPU)
    if st.cc[k, cpu, PLOADED] != NIL:
        depot_give(st, k, K_FULL, st.cc[k, cpu, PLOADED])
    cpu_reload(st, k, cpu, mag, 0)
    cpu_push(st, k, cpu, b)
    return finish(st, reg, i, NIL)


@kernel
def _free_magazine(st, reg, i):
    k = cache(reg, i)
    return to_cache(reg, i, F_SLAB, k) if reg[i, R_BASE] == NIL else to_depot(reg, i, F_GIVE, k)


@kernel
def _free_give(st, reg, i):
    """Put the new magazine into the depot and try again, unless the cache has larger ones meanwhile, or none."""
    k, mag = cache(reg, i), reg[i, R_BASE]
    if st.cc[k, reg[i, R_CPU], MAGSIZE] != st.rounds[cache_of(st, mag)]:
        call(reg, i, cache_of(st, mag), mag, F_CPU)
        return to_cache(reg, i, F_SLAB, cache_of(st, mag))
    st.cache[k, K_TAKES] += 1
    depot_give(st, k, K_EMPTY, mag)
    return _exchange(st, reg, i)


@kernel
def destroy(st, reg, i, k, page):
    """Begin to give back what a slab is made of; ends the innermost call."""
    if not st.cache[k, K_HASHED]:
        return _unmap(st, reg, i, k, page)
    reg[i, R_GRANTED] = page
    return to_cpu(reg, i, D_BUFCTL)


@kernel
def _drop_bufctls(st, reg, i):
    """Free a slab's bufctls, then its kmem_slab_t, as far as the CPU's magazines have room."""
    page, cpu = reg[i, R_GRANTED], reg[i, R_CPU]
    while st.slab[page, S_HEAD] != NIL:
        bufctl = wide(st.word[free_pop(st, page) + 1])
        if not cpu_push(st, BUFCTL_CACHE, cpu, bufctl):
            call(reg, i, BUFCTL_CACHE, bufctl, D_BUFCTL)
            return _free_missed(st, reg, i, BUFCTL_CACHE)
        reg[i, R_WORK] += 1
    header = wide(st.slab[page, S_HEADER])
    if not cpu_push(st, SLAB_CACHE, cpu, header):
        call(reg, i, SLAB_CACHE, header, D_SLAB)
        return _free_missed(st, reg, i, SLAB_CACHE)
    return _unmap(st, reg, i, cache(reg, i), page)


@kernel
def _unmap(st, reg, i, k, page):
    slab_forget(st, k, page)
    reg[i, R_PHASE] = (reg[i, R_PHASE] & ~PHASE_MASK) | D_MAPPED
    reg[i, R_MAP] = st.map
    reg[i, R_BASE] = page << PAGE_SHIFT
    reg[i, R_BYTES] = st.cache[k, K_SLAB]
    return MAP_FREE
