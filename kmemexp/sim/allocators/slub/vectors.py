"""Vectors of memory cgroups in `allocators/slub`: a word for each object of a slab whose objects are charged.

alloc_slab_obj_exts(), account_slab(), free_slab_obj_exts() of Linux 6.18 (mm/slub.c). A cache with SLAB_ACCOUNT gets
the vector with each new slab, from a normal kmalloc() cache, and gives it back before the slab's pages. In 7.1 none is
allocated where it fits behind the last object, or into the padding of each object of a cache that cannot be merged
(alloc_slab_obj_exts_early()). What there is no memory for stays away; the kernel tries again at the next charge.

Like sheaves' own memory, vectors pass by the sheaves of their kmalloc() cache. The lists of that cache change within
the step that makes or destroys the slab: its list lock is not waited for.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Registers
from kmemexp.sim.allocators.slub import slabs
from kmemexp.sim.allocators.slub.slabs import (
    add_partial,
    cpu_has_enough,
    cpu_pop,
    cpu_push,
    link_in,
    make_current,
    may_move,
    move_on,
    push_cpu_partial,
    refill_cpu,
    remove_partial,
    slab_push,
    superfluous,
    take_partial,
)
from kmemexp.sim.allocators.slub.state import State
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.sim.widths import wide

FROM_KMALLOC, FROM_SPARE_ROOM = 1, 2  # Params.memcg


@kernel
def vector_cache(st: State, slab: int) -> int:
    """The kmalloc() cache of a slab's vector; a word for each object, and sizes are in words too."""
    return wide(st.cache_of[st.slab[slab, slabs.S_OBJECTS]])


@kernel
def wants_vector(st: State, k: int, slab: int) -> bool:
    """Whether a new slab needs memory for a vector."""
    charged = st.cache[k, slabs.K_CHARGED]
    if charged != FROM_SPARE_ROOM:
        return charged != 0
    words = (1 << (wide(st.slab[slab, slabs.S_ORDER]) + PAGE_SHIFT)) >> slabs.WORD_SHIFT
    objects = wide(st.slab[slab, slabs.S_OBJECTS])
    return words - objects * (st.cache[k, slabs.K_SIZE] >> slabs.WORD_SHIFT) < objects


@outlined
def get_vector(st: State, slab: int, cpu: int) -> bool:
    """Give a slab its vector from what this CPU or its node has. False: that needs pages."""
    kv = vector_cache(st, slab)
    word = cpu_pop(st, kv, cpu)
    if word == slabs.NIL:
        word = refill_cpu(st, kv, cpu)
    if word == slabs.NIL:
        found = take_partial(st, kv, cpu, st.node_of[cpu])
        if found == slabs.NIL:
            return False
        make_current(st, kv, cpu, found)
        word = cpu_pop(st, kv, cpu)
    st.vector[slab] = word + 1
    return True


@outlined
def free_vector(st: State, reg: Registers, i: int, slab: int, cpu: int) -> int:
    """Free the vector of a slab that is to go. Returns slabs that are to go for that as well, linked, or NIL."""
    word = st.vector[slab] - 1
    st.vector[slab] = 0
    home = wide(st.slab[word >> slabs.PAGE_WORD_SHIFT, slabs.S_FIRST])
    kv = wide(st.slab[home, slabs.S_CACHE]) - 1
    if st.cpu[kv, cpu, slabs.C_SLAB] == home:
        cpu_push(st, kv, cpu, home, word)
        return slabs.NIL
    if slab_push(st, home, word):
        return slabs.NIL
    was_full = st.slab[home, slabs.S_FREE] == slabs.NIL
    link_in(st, home, word)
    if was_full:
        return _keep(st, reg, i, kv, home, cpu)
    if not st.slab[home, slabs.S_LISTED]:
        return slabs.NIL
    if superfluous(st, kv, home):
        remove_partial(st, kv, home)
        st.slab[home, slabs.S_NEXT] = slabs.NIL
        return home
    if may_move(st, home):
        move_on(st, reg, i, kv, home)
    return slabs.NIL


@kernel
def _keep(st: State, reg: Registers, i: int, kv: int, home: int, cpu: int) -> int:
    """List a slab that was full. Returns the empty ones that are too many, linked, or NIL."""
    if st.cache[kv, slabs.K_CPU_SLABS] == 0:
        if superfluous(st, kv, home):
            st.slab[home, slabs.S_NEXT] = slabs.NIL
            return home
        add_partial(st, reg, i, kv, home, 1)
        return slabs.NIL
    slab, gone = slabs.NIL, slabs.NIL
    if cpu_has_enough(st, kv, cpu):
        slab = st.cpu[kv, cpu, slabs.C_PARTIAL]
        st.cpu[kv, cpu, slabs.C_PARTIAL] = slabs.NIL
    push_cpu_partial(st, kv, cpu, home)
    while slab != slabs.NIL:
        after = wide(st.slab[slab, slabs.S_NEXT])
        if superfluous(st, kv, slab):
            st.slab[slab, slabs.S_NEXT] = gone
            gone = slab
        else:
            add_partial(st, reg, i, kv, slab, 1)
        slab = after
    return gone
