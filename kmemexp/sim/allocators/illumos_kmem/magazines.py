"""Magazines of `allocators/illumos_kmem`: those of the CPUs, and the lists of full and empty ones in the depot."""

from kmemexp.jit import kernel
from kmemexp.sim.allocators.illumos_kmem import slabs
from kmemexp.sim.allocators.illumos_kmem.state import State
from kmemexp.sim.widths import wide


@kernel
def cpu_pop(st: State, k: int, cpu: int) -> int:
    """Take the last round of the CPU's loaded magazine, else of the previous one. Returns it or NIL."""
    n = st.cc[k, cpu, slabs.ROUNDS]
    if n <= 0:
        n = st.cc[k, cpu, slabs.PROUNDS]
        if n <= 0:
            return slabs.NIL
        cpu_reload(st, k, cpu, st.cc[k, cpu, slabs.PLOADED], n)
    st.cc[k, cpu, slabs.ROUNDS] = n - 1
    return wide(st.word[st.cc[k, cpu, slabs.LOADED] + n])


@kernel
def cpu_push(st: State, k: int, cpu: int, b: int) -> bool:
    """Put a round into the CPU's loaded magazine, else into the previous one, if that is empty. False: no room."""
    n = st.cc[k, cpu, slabs.ROUNDS]
    if n < 0 or n >= st.cc[k, cpu, slabs.MAGSIZE]:
        if st.cc[k, cpu, slabs.PROUNDS] != 0 or st.cc[k, cpu, slabs.MAGSIZE] == 0:
            return False
        n = 0
        cpu_reload(st, k, cpu, st.cc[k, cpu, slabs.PLOADED], n)
    st.word[st.cc[k, cpu, slabs.LOADED] + 1 + n] = b
    st.cc[k, cpu, slabs.ROUNDS] = n + 1
    return True


@kernel
def cpu_reload(st: State, k: int, cpu: int, mag: int, rounds: int) -> None:
    """Load a magazine; the loaded one becomes the previous one: kmem_cpu_reload()."""
    st.cc[k, cpu, slabs.PLOADED] = st.cc[k, cpu, slabs.LOADED]
    st.cc[k, cpu, slabs.PROUNDS] = st.cc[k, cpu, slabs.ROUNDS]
    st.cc[k, cpu, slabs.LOADED] = mag
    st.cc[k, cpu, slabs.ROUNDS] = rounds


@kernel
def depot_take(st: State, k: int, which: int) -> int:
    """Take a magazine from a list of the depot, K_FULL or K_EMPTY. Returns it or NIL."""
    mag = st.cache[k, which]
    if mag != slabs.NIL:
        st.cache[k, which] = wide(st.word[mag])
        st.cache[k, which + slabs.TOTAL] -= 1
        st.cache[k, which + slabs.MIN] = min(st.cache[k, which + slabs.MIN], st.cache[k, which + slabs.TOTAL])
    return mag


@kernel
def depot_give(st: State, k: int, which: int, mag: int) -> None:
    """Put a magazine on a list of the depot."""
    st.word[mag] = st.cache[k, which]
    st.cache[k, which] = mag
    st.cache[k, which + slabs.TOTAL] += 1


@kernel
def depot_reapable(st: State, k: int, which: int) -> int:
    """Magazines of a list that have fallen out of the working set."""
    return min(st.cache[k, which + slabs.LIMIT], st.cache[k, which + slabs.MIN])


@kernel
def depot_update(st: State, k: int) -> None:
    """End an interval: kmem_depot_ws_update()."""
    for which in (slabs.K_FULL, slabs.K_EMPTY):
        st.cache[k, which + slabs.LIMIT] = st.cache[k, which + slabs.MIN]
        st.cache[k, which + slabs.MIN] = st.cache[k, which + slabs.TOTAL]


@kernel
def depot_zero(st: State, k: int) -> None:
    """Let everything be reapable: kmem_depot_ws_zero()."""
    for which in (slabs.K_FULL, slabs.K_EMPTY):
        st.cache[k, which + slabs.LIMIT] = st.cache[k, which + slabs.MIN] = st.cache[k, which + slabs.TOTAL]
