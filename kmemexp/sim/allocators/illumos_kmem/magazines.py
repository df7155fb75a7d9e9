"""Magazines of `allocators/illumos_kmem`: those of the CPUs, and the lists of full and empty ones in the depot."""

from kmemexp.jit import kernel
from kmemexp.sim.allocators.illumos_kmem.slabs import (
    K_EMPTY,
    K_FULL,
    LIMIT,
    LOADED,
    MAGSIZE,
    MIN,
    NIL,
    PLOADED,
    PROUNDS,
    ROUNDS,
    TOTAL,
)
from kmemexp.sim.widths import wide


@kernel
def cpu_pop(st, k, cpu):
    """Take the last round of the CPU's loaded magazine, else of the previous one. Returns it or NIL."""
    n = st.cc[k, cpu, ROUNDS]
    if n <= 0:
        n = st.cc[k, cpu, PROUNDS]
        if n <= 0:
            return NIL
        cpu_reload(st, k, cpu, st.cc[k, cpu, PLOADED], n)
    st.cc[k, cpu, ROUNDS] = n - 1
    return wide(st.word[st.cc[k, cpu, LOADED] + n])


@kernel
def cpu_push(st, k, cpu, b):
    """Put a round into the CPU's loaded magazine, else into the previous one, if that is empty. False: no room."""
    n = st.cc[k, cpu, ROUNDS]
    if n < 0 or n >= st.cc[k, cpu, MAGSIZE]:
        if st.cc[k, cpu, PROUNDS] != 0 or st.cc[k, cpu, MAGSIZE] == 0:
            return False
        n = 0
        cpu_reload(st, k, cpu, st.cc[k, cpu, PLOADED], n)
    st.word[st.cc[k, cpu, LOADED] + 1 + n] = b
    st.cc[k, cpu, ROUNDS] = n + 1
    return True


@kernel
def cpu_reload(st, k, cpu, mag, rounds):
    """Load a magazine; the loaded one becomes the previous one: kmem_cpu_reload()."""
    st.cc[k, cpu, PLOADED] = st.cc[k, cpu, LOADED]
    st.cc[k, cpu, PROUNDS] = st.cc[k, cpu, ROUNDS]
    st.cc[k, cpu, LOADED] = mag
    st.cc[k, cpu, ROUNDS] = rounds


@kernel
def depot_take(st, k, which):
    """Take a magazine from a list of the depot, K_FULL or K_EMPTY. Returns it or NIL."""
    mag = st.cache[k, which]
    if mag != NIL:
        st.cache[k, which] = wide(st.word[mag])
        st.cache[k, which + TOTAL] -= 1
        st.cache[k, which + MIN] = min(st.cache[k, which + MIN], st.cache[k, which + TOTAL])
    return mag


@kernel
def depot_give(st, k, which, mag):
    """Put a magazine on a list of the depot."""
    st.word[mag] = st.cache[k, which]
    st.cache[k, which] = mag
    st.cache[k, which + TOTAL] += 1


@kernel
def depot_reapable(st, k, which):
    """Magazines of a list that have fallen out of the working set."""
    return min(st.cache[k, which + LIMIT], st.cache[k, which + MIN])


@kernel
def depot_update(st, k):
    """End an interval: kmem_depot_ws_update()."""
    for which in (K_FULL, K_EMPTY):
        st.cache[k, which + LIMIT] = st.cache[k, which + MIN]
        st.cache[k, which + MIN] = st.cache[k, which + TOTAL]


@kernel
def depot_zero(st, k):
    """Let everything be reapable: kmem_depot_ws_zero()."""
    for which in (K_FULL, K_EMPTY):
        st.cache[k, which + LIMIT] = st.cache[k, which + MIN] = st.cache[k, which + TOTAL]
