"""Slabs of DragonFly's kmalloc_obj, the lists of a type and the caches of the CPUs. See `allocators/kmalloc_obj`."""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Registers
from kmemexp.sim.allocators.kmalloc_obj.state import State
from kmemexp.sim.asking import hand_out
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

SLAB_SHIFT = 17
SLAB_SIZE = 1 << SLAB_SHIFT  # KMALLOC_SLAB_SIZE
UNIT_SHIFT = 6  # objects begin at cache lines
POLL_SLABS = 16  # empty slabs that are looked at in one go, and full ones
NIL = -1

# Columns of State.type.
SIZE = 0  # bytes of an object
COUNT = 1  # objects in a slab; 0: too large for slabs
OFFSET = 2  # where the first one lies
N_PARTIAL = 3
N_FULL = 4
N_EMPTY = 5
PARTIAL = 6  # first slabs of the type's lists
FULL = 7
EMPTY = 8
EMPTY_LAST = 9
TYPE_COLUMNS = 10

# Last dimension of State.pair.
ACTIVE = 0
ALTERNATE = 1

# Columns of State.slab.
TYPE = 0  # type + 1; 0: no slab at this address, or one that belongs to no type
NEXT = 1  # on a list
ORIGIN = 2  # CPU that laid it out
FIRST = 3  # place in the ring of the object to be taken next (aindex)
FREE = 4  # free objects (findex - aindex)
SINCE = 5  # tick at which it was put on the list of full slabs (exis)

# Columns of State.cache.
OWN = 0  # first of the free slabs (free_slabs)
RETURNED = 1  # of those given back since that list was last filled (remote_free_slabs)
FREE_COUNT = 2  # slabs on both

# State.poller.
TICKS = 0
POLLED = 1  # type to poll next
HELD = 2  # slabs that are mapped


@kernel
def ready_slab(st: State, cpu: int, z: int) -> int:
    """Find a slab with free objects: the CPU's active one, else the alternate one, which becomes active. Or NIL."""
    slab = wide(st.pair[cpu, z, ACTIVE])
    if slab == NIL or st.slab[slab, FREE] == 0:
        other = wide(st.pair[cpu, z, ALTERNATE])
        if other == NIL or st.slab[other, FREE] == 0:
            return NIL
        st.pair[cpu, z, ALTERNATE] = slab
        st.pair[cpu, z, ACTIVE] = other
        slab = other
    return slab


@kernel
def hand_out_of(st: State, reg: Registers, i: int, z: int, slab: int) -> int:
    """Hand out an object of a slab that has one."""
    return hand_out(reg, i, take(st, z, slab), st.type[z, SIZE])


@kernel
def take(st: State, z: int, slab: int) -> Address:
    """Take the object that has been free for longest, of a slab that has one."""
    at = wide(st.slab[slab, FIRST])
    addr = (slab << SLAB_SHIFT) + (wide(st.ring[slab, at]) << UNIT_SHIFT)
    at += 1
    st.slab[slab, FIRST] = 0 if at == st.type[z, COUNT] else at
    st.slab[slab, FREE] -= 1
    return addr


@kernel
def put(st: State, addr: Address) -> None:
    """Put an object at the end of its slab's ring."""
    slab = addr >> SLAB_SHIFT
    count = st.type[wide(st.slab[slab, TYPE]) - 1, COUNT]
    at = wide(st.slab[slab, FIRST]) + wide(st.slab[slab, FREE])
    if at >= count:
        at -= count
    st.ring[slab, at] = (addr & (SLAB_SIZE - 1)) >> UNIT_SHIFT
    st.slab[slab, FREE] += 1


@outlined
def lay_out(st: State, cpu: int, z: int, slab: int) -> None:
    """Make a slab of type `z`, all objects free, in ascending order."""
    count, step = st.type[z, COUNT], st.type[z, SIZE] >> UNIT_SHIFT
    unit = st.type[z, OFFSET] >> UNIT_SHIFT
    for k in range(count):
        st.ring[slab, k] = unit
        unit += step
    st.slab[slab, TYPE] = z + 1
    st.slab[slab, NEXT] = NIL
    st.slab[slab, ORIGIN] = cpu
    st.slab[slab, FIRST] = 0
    st.slab[slab, FREE] = count


@outlined
def rotate(st: State, reg: Registers, i: int, z: int) -> bool:
    """Make a partial or a full slab of the type the CPU's active one, under the type's lock. False: there is none."""
    cpu = reg[i, regs.CPU]
    if st.type[z, PARTIAL] == NIL and st.type[z, FULL] == NIL:
        reg[i, regs.WORK] = _poll_empties(st, z)
    kind, count = (PARTIAL, N_PARTIAL) if st.type[z, PARTIAL] != NIL else (FULL, N_FULL)
    slab = st.type[z, kind]
    if slab == NIL:
        return False
    st.type[z, kind] = st.slab[slab, NEXT]
    st.type[z, count] -= 1
    rotate_in(st, cpu, z, slab)
    return True


@kernel
def rotate_in(st: State, cpu: int, z: int, slab: int) -> None:
    """Make a slab the active one; the active one becomes the alternate one, and that goes to the empty ones."""
    out = wide(st.pair[cpu, z, ALTERNATE])
    st.pair[cpu, z, ALTERNATE] = st.pair[cpu, z, ACTIVE]
    st.pair[cpu, z, ACTIVE] = slab
    st.slab[slab, NEXT] = NIL
    if out != NIL:
        _append_empty(st, z, out)


@kernel
def _append_empty(st: State, z: int, slab: int) -> None:
    """Put a slab at the end of the list of empty ones."""
    st.slab[slab, NEXT] = NIL
    if st.type[z, EMPTY] == NIL:
        st.type[z, EMPTY] = slab
    else:
        st.slab[st.type[z, EMPTY_LAST], NEXT] = slab
    st.type[z, EMPTY_LAST] = slab
    st.type[z, N_EMPTY] += 1


@outlined
def _poll_empties(st: State, z: int) -> int:
    """Look at empty slabs, move those that have got objects back, put the others at the end. Returns how many.

    It ends where the slab that was the first comes first again; if that one has moved, slabs may be looked at twice.
    """
    marker = st.type[z, EMPTY]
    looked = 0
    while looked < POLL_SLABS and st.type[z, EMPTY] != NIL:
        looked += 1
        slab = st.type[z, EMPTY]
        st.type[z, EMPTY] = st.slab[slab, NEXT]
        st.type[z, N_EMPTY] -= 1
        if st.slab[slab, FREE] == st.type[z, COUNT]:
            st.slab[slab, SINCE] = st.poller[TICKS]
            st.slab[slab, NEXT] = st.type[z, FULL]
            st.type[z, FULL] = slab
            st.type[z, N_FULL] += 1
        elif st.slab[slab, FREE] > 0:
            st.slab[slab, NEXT] = st.type[z, PARTIAL]
            st.type[z, PARTIAL] = slab
            st.type[z, N_PARTIAL] += 1
        else:
            _append_empty(st, z, slab)
            if st.type[z, EMPTY] == marker:
                break
    return looked


@outlined
def poll(st: State, reg: Registers, i: int, z: int) -> int:
    """See to a type: malloc_mgt_poll(). Returns the first of the retired slabs that must be unmapped."""
    reg[i, regs.WORK] = _poll_empties(st, z)
    looks = min(st.type[z, N_FULL] - st.p.full_slabs, POLL_SLABS)
    before, first, last, retired = NIL, NIL, NIL, 0
    slab = st.type[z, FULL]
    goes_on = looks <= 0
    while looks > 0 and slab != NIL and retired < st.p.retired_slabs:
        after = wide(st.slab[slab, NEXT])
        if st.slab[slab, SINCE] == st.poller[TICKS]:
            before = slab
        else:
            if before == NIL:
                st.type[z, FULL] = after
            else:
                st.slab[before, NEXT] = after
            st.type[z, N_FULL] -= 1
            first, last = _chained(st, first, last, slab)
            retired += 1
        slab = after
        looks -= 1
    if goes_on or slab == NIL:
        st.poller[POLLED] = z + 1 if z + 1 < st.type.shape[0] else 0
    return _into_caches(st, first)


@kernel
def _chained(st: State, first: int, last: int, slab: int) -> tuple[int, int]:
    """Append a slab to a chain. Returns the chain's ends."""
    st.slab[slab, NEXT] = NIL
    if last == NIL:
        return slab, slab
    st.slab[last, NEXT] = slab
    return first, slab


@kernel
def _into_caches(st: State, slab: int) -> int:
    """Put a chain of slabs into the caches of their CPUs: gslab_cache(). Returns the first that found no room.

    Neighbours of one CPU are put before what the cache has got back as they are.
    """
    rest, rest_last = NIL, NIL
    while slab != NIL:
        cpu = wide(st.slab[slab, ORIGIN])
        last = slab
        after = wide(st.slab[slab, NEXT])
        st.slab[slab, TYPE] = 0
        if st.cache[cpu, FREE_COUNT] >= st.p.cached_slabs:
            rest, rest_last = _chained(st, rest, rest_last, slab)
        else:
            st.cache[cpu, FREE_COUNT] += 1
            while after != NIL and st.slab[after, ORIGIN] == cpu and st.cache[cpu, FREE_COUNT] < st.p.cached_slabs:
                st.cache[cpu, FREE_COUNT] += 1
                st.slab[after, TYPE] = 0
                last = after
                after = wide(st.slab[last, NEXT])
            st.slab[last, NEXT] = st.cache[cpu, RETURNED]
            st.cache[cpu, RETURNED] = slab
        slab = after
    return rest


@kernel
def cached_slab(st: State, cpu: int) -> int:
    """Take a slab of a CPU's cache: gslab_alloc(). NIL: it is empty."""
    slab = st.cache[cpu, OWN]
    if slab == NIL:
        slab = st.cache[cpu, RETURNED]
        st.cache[cpu, RETURNED] = NIL
        if slab == NIL:
            return NIL
    st.cache[cpu, OWN] = st.slab[slab, NEXT]
    st.cache[cpu, FREE_COUNT] -= 1
    return slab
