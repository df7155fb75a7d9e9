"""Slabs and their lists in `allocators/slub`: what a step does to a CPU's slab, a node's list, new pages.

Places in a slab are in units of 8 bytes: `word` = address / 8, and of a free object, its offset from the slab's start.
`slab` is the number of a slab's first page.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Registers, Table
from kmemexp.sim.allocators._shared.slab_order import FULLEST, insert
from kmemexp.sim.allocators.slub.state import State
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

NIL = -1
WORD_SHIFT = 3
PAGE_WORD_SHIFT = PAGE_SHIFT - WORD_SHIFT

# Columns of State.cache.
K_SIZE = 0
K_ORDER = 1
K_OBJECTS = 2  # in a slab of that order
K_MIN_ORDER = 3
K_CPU_SLABS = 4  # cpu_partial_slabs; 0: CPUs have no partial lists
K_MIN_PARTIAL = 5
K_PAGES = 6  # pages held
K_SLABS = 7  # slabs held
K_MADE = 8  # slabs ever made
K_FALLBACKS = 9  # of these, of the minimum order instead (ORDER_FALLBACK)
K_SHEAF = 10  # objects in a sheaf
K_SHEAF_CACHE = 11  # cache that sheaves come from
K_ASKS = 12  # what it asks of its pages: ATTR_RECLAIM, ATTR_LOW
K_PLANE = 13  # where in `link` its objects are, and log2 of the words of each (_shared/planes.py)
K_SHIFT = 14
K_CHARGED = 15  # Params.memcg where its slabs have vectors, else 0
K_COLUMNS = 16

# Columns of State.cpu (struct kmem_cache_cpu, struct slub_percpu_sheaves).
C_SLAB = 0  # the current slab, frozen
C_FREE = 1  # first object of the CPU's own freelist in it
C_PARTIAL = 2  # first slab of the CPU's partial list
C_MAIN = 3  # word of the main sheaf
C_SPARE = 4
C_COLUMNS = 5

# Columns of State.node (struct kmem_cache_node, struct node_barn).
NODE_HEAD = 0  # partial list
NODE_TAIL = 1
NODE_PARTIAL = 2  # slabs on it
NODE_FULL = 3  # first full sheaf
NODE_FULLS = 4
NODE_EMPTY = 5  # first empty sheaf
NODE_EMPTIES = 6
NODE_COLUMNS = 7

# Columns of State.slab (struct slab), in the row of the first page, but for the first two: in those of all pages.
S_CACHE = 0  # cache + 1; LARGE: pages of a large kmalloc(); 0: none of ours
S_FIRST = 1
S_FREE = 2  # first object of the slab's freelist; of a frozen one, of what other CPUs have freed
S_INUSE = 3  # objects that are not on it
S_OBJECTS = 4
S_ORDER = 5
S_NODE = 6
S_FROZEN = 7  # 1: a CPU's current slab
S_LISTED = 8  # 1: on a node's partial list
S_NEXT = 9
S_PREV = 10
S_SLABS = 11  # slabs on a CPU's partial list from this one on
S_ROOM = 11  # instead, on a sorted node list: free objects
S_COLUMNS = 12
LISTED = (S_NEXT, S_PREV, S_ROOM)  # what a sorted list goes by
LARGE = -1

START_STEP = 7919  # a prime: how far in its permutation a cache goes on with each slab

LIST_LOCK = 1  # places in LOCKS
BARN_LOCK = 2


@kernel
def lock(st: State, reg: Registers, i: int, klass: int, k: int, n: int) -> None:
    """Name the lock of the next step: that of cache `k` and node `n`, or none (class 0)."""
    reg[i, regs.LOCK] = klass << regs.LOCK_SHIFT | (k * st.nodes + n if klass else 0)


@kernel
def linked(st: State, k: int, word: int) -> int:
    """Place in `link` of an object of cache `k`."""
    return st.cache[k, K_PLANE] + (word >> st.cache[k, K_SHIFT])


@kernel
def cpu_pop(st: State, k: int, cpu: int) -> int:
    """Take the first object of a CPU's own freelist; NIL without one."""
    at = st.cpu[k, cpu, C_FREE]
    if at == NIL:
        return NIL
    word = (st.cpu[k, cpu, C_SLAB] << PAGE_WORD_SHIFT) + at
    st.cpu[k, cpu, C_FREE] = st.link[linked(st, k, word)]
    return word


@kernel
def cpu_push(st: State, k: int, cpu: int, slab: int, word: int) -> None:
    """Free an object of a CPU's current slab on that CPU."""
    st.link[linked(st, k, word)] = st.cpu[k, cpu, C_FREE]
    st.cpu[k, cpu, C_FREE] = word - (slab << PAGE_WORD_SHIFT)


@kernel
def slab_push(st: State, slab: int, word: int) -> bool:
    """Free an object of a slab that stays where it is: of a CPU's current one, or one that was and will be partial.

    False: the slab was full, or will be empty, or its list is sorted by that, so that lists are concerned; nothing has
    been done.
    """
    prior = st.slab[slab, S_FREE]
    if not st.slab[slab, S_FROZEN] and (prior == NIL or st.slab[slab, S_INUSE] == 1 or may_move(st, slab)):
        return False
    link_in(st, slab, word)
    return True


@kernel
def link_in(st: State, slab: int, word: int) -> None:
    """Put an object on its slab's freelist."""
    st.link[linked(st, wide(st.slab[slab, S_CACHE]) - 1, word)] = st.slab[slab, S_FREE]
    st.slab[slab, S_FREE] = word - (slab << PAGE_WORD_SHIFT)
    st.slab[slab, S_INUSE] -= 1


@outlined
def push_full(st: State, k: int, cpu: int, slab: int, word: int) -> bool:
    """Free an object of a slab that was full, and is to be on the CPU's partial list.

    False: it is another slab, or there is no such list, or that has enough; nothing has been done.
    """
    if st.slab[slab, S_FROZEN] or st.slab[slab, S_FREE] != NIL or cpu_has_enough(st, k, cpu):
        return False
    link_in(st, slab, word)
    push_cpu_partial(st, k, cpu, slab)
    return True


@kernel
def cpu_has_enough(st: State, k: int, cpu: int) -> bool:
    """Whether a CPU's partial list takes no further slab, or there is none."""
    listed = st.cpu[k, cpu, C_PARTIAL]
    return (0 if listed == NIL else st.slab[listed, S_SLABS]) >= st.cache[k, K_CPU_SLABS]


@kernel
def may_move(st: State, slab: int) -> bool:
    """Whether a slab is on a list that is sorted by free objects, in which each free may move it."""
    return st.p.slab_order == FULLEST and st.slab[slab, S_LISTED] != 0


@kernel
def make_current(st: State, k: int, cpu: int, slab: int) -> None:
    """Freeze a slab with free objects as a CPU's current one; its freelist becomes the CPU's."""
    st.cpu[k, cpu, C_SLAB] = slab
    st.cpu[k, cpu, C_FREE] = st.slab[slab, S_FREE]
    st.slab[slab, S_FREE] = NIL
    st.slab[slab, S_INUSE] = st.slab[slab, S_OBJECTS]
    st.slab[slab, S_FROZEN] = 1


@outlined
def pop_refilled(st: State, k: int, cpu: int) -> int:
    """Do what `refill_cpu` does, if that gives an object. NIL: it does not, and nothing has been done."""
    slab = st.cpu[k, cpu, C_SLAB]
    if st.cpu[k, cpu, C_PARTIAL] == NIL and (slab == NIL or st.slab[slab, S_FREE] == NIL):
        return NIL
    return refill_cpu(st, k, cpu)


@kernel
def refill_cpu(st: State, k: int, cpu: int) -> int:
    """Take what others have freed into the current slab, else the CPU's next partial slab. Returns a word or NIL."""
    slab = st.cpu[k, cpu, C_SLAB]
    if slab != NIL:
        if st.slab[slab, S_FREE] != NIL:
            make_current(st, k, cpu, slab)
            return cpu_pop(st, k, cpu)
        st.slab[slab, S_FROZEN] = 0  # full now, and on no list
        st.cpu[k, cpu, C_SLAB] = NIL
    slab = st.cpu[k, cpu, C_PARTIAL]
    if slab == NIL:
        return NIL
    st.cpu[k, cpu, C_PARTIAL] = st.slab[slab, S_NEXT]
    make_current(st, k, cpu, slab)
    return cpu_pop(st, k, cpu)


@kernel
def push_cpu_partial(st: State, k: int, cpu: int, slab: int) -> None:
    """Put a slab at the head of a CPU's partial list."""
    before = st.cpu[k, cpu, C_PARTIAL]
    st.slab[slab, S_SLABS] = 1 + (st.slab[before, S_SLABS] if before != NIL else 0)
    st.slab[slab, S_NEXT] = before
    st.cpu[k, cpu, C_PARTIAL] = slab


@kernel
def add_partial(st: State, reg: Registers, i: int, k: int, slab: int, tail: int) -> None:
    """Put a slab on its node's list, at the head or the tail, or where a sorted one wants it."""
    n = wide(st.slab[slab, S_NODE])
    first, last = st.node[k, n, NODE_HEAD], st.node[k, n, NODE_TAIL]
    st.slab[slab, S_LISTED] = 1
    st.node[k, n, NODE_PARTIAL] += 1
    if st.p.slab_order:
        sort_in(st, reg, i, k, slab, NIL, first)
    elif tail:
        st.slab[slab, S_NEXT] = NIL
        st.slab[slab, S_PREV] = last
        st.node[k, n, NODE_TAIL] = slab
        if last == NIL:
            st.node[k, n, NODE_HEAD] = slab
        else:
            st.slab[last, S_NEXT] = slab
    else:
        st.slab[slab, S_NEXT] = first
        st.slab[slab, S_PREV] = NIL
        st.node[k, n, NODE_HEAD] = slab
        if first == NIL:
            st.node[k, n, NODE_TAIL] = slab
        else:
            st.slab[first, S_PREV] = slab


@outlined
def sort_in(st: State, reg: Registers, i: int, k: int, slab: int, before: int, after: int) -> None:
    """Link a slab into its node's sorted list, from between two neighbours on."""
    n = wide(st.slab[slab, S_NODE])
    st.slab[slab, S_ROOM] = st.slab[slab, S_OBJECTS] - st.slab[slab, S_INUSE]
    if insert(reg, i, st.slab, LISTED, st.p.slab_order, slab, before, after) == NIL:
        st.node[k, n, NODE_HEAD] = slab
    if st.slab[slab, S_NEXT] == NIL:
        st.node[k, n, NODE_TAIL] = slab


@outlined
def move_on(st: State, reg: Registers, i: int, k: int, slab: int) -> None:
    """Move a slab with one more free object in its node's sorted list."""
    before, after = wide(st.slab[slab, S_PREV]), wide(st.slab[slab, S_NEXT])
    remove_partial(st, k, slab)
    st.slab[slab, S_LISTED] = 1
    st.node[k, wide(st.slab[slab, S_NODE]), NODE_PARTIAL] += 1
    sort_in(st, reg, i, k, slab, before, after)


@kernel
def remove_partial(st: State, k: int, slab: int) -> None:
    """Take a slab off its node's list."""
    n = wide(st.slab[slab, S_NODE])
    after, before = wide(st.slab[slab, S_NEXT]), wide(st.slab[slab, S_PREV])
    st.slab[slab, S_LISTED] = 0
    st.node[k, n, NODE_PARTIAL] -= 1
    if before == NIL:
        st.node[k, n, NODE_HEAD] = after
    else:
        st.slab[before, S_NEXT] = after
    if after == NIL:
        st.node[k, n, NODE_TAIL] = before
    else:
        st.slab[after, S_PREV] = before


@kernel
def take_partial(st: State, k: int, cpu: int, n: int) -> int:
    """Take the first slab of node `n`, and move more to the partial list of `cpu`: get_partial_node(). NIL: none."""
    found = st.node[k, n, NODE_HEAD]
    if found == NIL:
        return NIL
    remove_partial(st, k, found)
    most = st.cache[k, K_CPU_SLABS]
    moved = 0 if most else NIL
    while 0 <= moved <= most // 2:
        slab = st.node[k, n, NODE_HEAD]
        if slab == NIL:
            break
        remove_partial(st, k, slab)
        push_cpu_partial(st, k, cpu, slab)
        moved += 1
    return found


@kernel
def superfluous(st: State, k: int, slab: int) -> bool:
    """Whether a slab is empty, and its node has enough partial ones."""
    n = wide(st.slab[slab, S_NODE])
    return st.slab[slab, S_INUSE] == 0 and st.node[k, n, NODE_PARTIAL] >= st.cache[k, K_MIN_PARTIAL]


@kernel
def unfreeze(st: State, k: int, cpu: int) -> int:
    """Take a CPU's current slab away from it; the CPU's freelist comes before what others freed: deactivate_slab()."""
    slab, first = st.cpu[k, cpu, C_SLAB], st.cpu[k, cpu, C_FREE]
    st.cpu[k, cpu, C_SLAB] = st.cpu[k, cpu, C_FREE] = NIL
    st.slab[slab, S_FROZEN] = 0
    if first == NIL:
        return slab
    base = slab << PAGE_WORD_SHIFT
    last = first
    st.slab[slab, S_INUSE] -= 1
    while st.link[linked(st, k, base + last)] != NIL:
        last = wide(st.link[linked(st, k, base + last)])
        st.slab[slab, S_INUSE] -= 1
    st.link[linked(st, k, base + last)] = st.slab[slab, S_FREE]
    st.slab[slab, S_FREE] = first
    return slab


@kernel
def node_for(st: State, page: int, cpu: int) -> int:
    """Node that a new slab belongs to (page_to_nid)."""
    if st.p.node_bytes == 0:
        return st.node_of[cpu]
    return min((page << PAGE_SHIFT) // st.p.node_bytes, st.nodes - 1)


@kernel
def new_slab(st: State, reg: Registers, i: int, k: int, slab: int, order: int, n: int) -> None:
    """Make a slab of pages; its objects are threaded in order of address, or as the cache's permutation says."""
    size = st.cache[k, K_SIZE]
    objects = (1 << (order + PAGE_SHIFT)) // size
    for page in range(slab, slab + (1 << order)):
        st.slab[page, S_CACHE] = k + 1
        st.slab[page, S_FIRST] = slab
    if st.p.freelist_random and objects > 1:
        first = _thread_shuffled(st, k, slab, objects)
    else:
        first = _thread(st, k, slab << PAGE_WORD_SHIFT, objects)
    st.slab[slab, S_FREE] = first
    st.slab[slab, S_INUSE] = 0
    st.slab[slab, S_OBJECTS] = objects
    st.slab[slab, S_ORDER] = order
    st.slab[slab, S_NODE] = n
    st.slab[slab, S_FROZEN] = 0
    st.slab[slab, S_LISTED] = 0
    st.cache[k, K_PAGES] += 1 << order
    st.cache[k, K_SLABS] += 1
    st.cache[k, K_MADE] += 1
    reg[i, regs.WORK] += objects - 1


@kernel
def _thread(st: State, k: int, base: Address, objects: Table) -> int:
    """Link all objects, ascending. Returns the first."""
    step = st.cache[k, K_SIZE] >> WORD_SHIFT
    last = (objects - 1) * step
    for at in range(0, last, step):
        st.link[linked(st, k, base + at)] = at + step
    st.link[linked(st, k, base + last)] = NIL
    return 0


@kernel
def _thread_shuffled(st: State, k: int, slab: int, objects: Table) -> int:
    """Link all objects in the order of the cache's permutation, from another place in it each time."""
    base, step = slab << PAGE_WORD_SHIFT, st.cache[k, K_SIZE] >> WORD_SHIFT
    count = st.cache[k, K_OBJECTS]
    start = st.cache[k, K_MADE] * START_STEP % count
    first = last = NIL
    for j in range(count):
        at = wide(st.order[k, (start + j) % count]) * step
        if at >= objects * step:  # a slab of the minimum order holds fewer
            continue
        if first == NIL:
            first = at
        else:
            st.link[linked(st, k, base + last)] = at
        last = at
    st.link[linked(st, k, base + last)] = NIL
    return first


@kernel
def forget_slab(st: State, k: int, slab: int) -> int:
    """A slab's pages are no longer ours. Returns its order."""
    order = wide(st.slab[slab, S_ORDER])
    for page in range(slab, slab + (1 << order)):
        st.slab[page, S_CACHE] = 0
    st.cache[k, K_PAGES] -= 1 << order
    st.cache[k, K_SLABS] -= 1
    return order
