"""SLUB's counts: how many slabs a cache has, and how many objects it says are active.

Linux 6.18, mm/slub.c. Only which slab an object is in matters here, not where in it. This reads a snapshot's `active`,
in which free slots of CPU slabs, of CPU partial lists and all objects in sheaves count as active; it allocates for
nobody. One node; sheaves are one stack of two capacities for each CPU and a barn of ten full ones; no races.
"""

from typing import NamedTuple

import numpy as np

from kmemexp.jit import entry, kernel, ref

BARN = 10  # full sheaves

# Where a slab is.
FULL, LIST, CPU, STACK, GONE = range(5)

# Operations.
ALLOC, FREE, FREE_OLD = range(3)

# Counts.
SLABS, HEAD, TAIL, ON_LIST, LIST_FREE, NEW, PEAK, BARN_USED = range(8)
COUNTS = 8


class Slubs(NamedTuple):
    """A cache's slabs; -1: none."""

    free: np.ndarray  # int32[slabs], slots on the slab's own list
    place: np.ndarray  # int8[slabs], FULL …
    next: np.ndarray  # int32[slabs], on the node list or on a CPU's stack
    previous: np.ndarray  # int32[slabs], on the node list
    cpu_slab: np.ndarray  # int32[cpus]
    private: np.ndarray  # int32[cpus], slots of the CPU's slab that are its own
    stack: np.ndarray  # int32[cpus], top of the partial slabs
    stacked: np.ndarray  # int32[cpus], how many there are
    sheaf: np.ndarray  # int32[cpus, 2 * capacity], slabs of the objects in it
    in_sheaf: np.ndarray  # int32[cpus]
    barn: np.ndarray  # int32[BARN * capacity]
    counts: np.ndarray  # int64[COUNTS]
    rules: np.ndarray  # int64[4]: objects per slab, cpu_partial_slabs, min_partial, capacity of a sheaf


class Old(NamedTuple):
    """Slabs at the start, one row each; those on the node list in its order."""

    free: np.ndarray  # int32, free slots
    cpu: np.ndarray  # int16, CPU whose slab it is; -1: on the node list if it has free slots, else on none


def slubs(old: Old, room: int, cpus: int, rules: tuple[int, int, int, int]) -> Slubs:
    """Lay out a cache with these slabs at the start and room for `room` more. `rules` as in Slubs."""
    n = len(old.free)
    capacity = max(rules[3], 1)
    st = Slubs(
        np.zeros(n + room, np.int32), np.full(n + room, GONE, np.int8), np.full(n + room, -1, np.int32),
        np.full(n + room, -1, np.int32), np.full(cpus, -1, np.int32), np.zeros(cpus, np.int32),
        np.full(cpus, -1, np.int32), np.zeros(cpus, np.int32), np.zeros((cpus, 2 * capacity), np.int32),
        np.zeros(cpus, np.int32), np.zeros(BARN * capacity, np.int32), np.zeros(COUNTS, np.int64),
        np.array(rules, np.int64),
    )  # fmt: skip
    st.free[:n] = old.free
    st.counts[[SLABS, PEAK, NEW]] = n
    st.counts[HEAD] = st.counts[TAIL] = -1
    st.place[:n] = FULL
    own = np.flatnonzero(old.cpu >= 0)
    st.cpu_slab[old.cpu[own]] = own
    st.private[old.cpu[own]] = old.free[own]
    st.place[own] = CPU
    st.free[own] = 0
    listed = np.flatnonzero((old.cpu < 0) & (old.free > 0))
    st.place[listed] = LIST
    if len(listed):
        st.next[listed[:-1]], st.previous[listed[1:]] = listed[1:], listed[:-1]
        st.counts[HEAD], st.counts[TAIL] = listed[0], listed[-1]
    st.counts[ON_LIST], st.counts[LIST_FREE] = len(listed), int(old.free[listed].sum())
    return st


def active(st: Slubs) -> int:
    """Objects as slabinfo counts them: all slots but the free ones on the node list."""
    return int(st.counts[SLABS] * st.rules[0] - st.counts[LIST_FREE])


@entry
def replay(st: Slubs, op: np.ndarray, item: np.ndarray, cpu: np.ndarray, slab_of: np.ndarray) -> None:
    """Carry operations out. `item`: object of ALLOC and FREE, slab of FREE_OLD; `slab_of` is filled in by object."""
    st = ref(st)
    for i in range(len(op)):
        p = cpu[i]
        if op[i] == ALLOC:
            slab_of[item[i]] = _alloc_sheaf(st, p) if st.rules[3] > 0 else _alloc(st, p)
        else:
            s = item[i] if op[i] == FREE_OLD else slab_of[item[i]]
            if st.rules[3] > 0:
                _free_sheaf(st, s, p)
            else:
                _free(st, s, p)


@kernel
def _alloc_sheaf(st: Slubs, p: int) -> int:
    """Take an object from the CPU's sheaves, filled from the barn or from slabs when they are empty."""
    capacity = st.rules[3]
    if st.in_sheaf[p] == 0:
        from_barn = st.counts[BARN_USED] >= capacity
        for k in range(capacity):
            if from_barn:
                st.counts[BARN_USED] -= 1
                st.sheaf[p, k] = st.barn[st.counts[BARN_USED]]
            else:
                st.sheaf[p, k] = _alloc(st, p)
        st.in_sheaf[p] = capacity
    st.in_sheaf[p] -= 1
    return int(st.sheaf[p, st.in_sheaf[p]])


@kernel
def _free_sheaf(st: Slubs, s: int, p: int) -> None:
    """Put an object into the CPU's sheaves; a full one goes to the barn, or back to its slabs."""
    capacity = st.rules[3]
    if st.in_sheaf[p] == 2 * capacity:
        to_barn = st.counts[BARN_USED] + capacity <= len(st.barn)
        for _ in range(capacity):
            st.in_sheaf[p] -= 1
            if to_barn:
                st.barn[st.counts[BARN_USED]] = st.sheaf[p, st.in_sheaf[p]]
                st.counts[BARN_USED] += 1
            else:
                _free(st, st.sheaf[p, st.in_sheaf[p]], p)
    st.sheaf[p, st.in_sheaf[p]] = s
    st.in_sheaf[p] += 1


@kernel
def _alloc(st: Slubs, p: int) -> int:
    """Take a slot. Returns its slab."""
    s = st.cpu_slab[p]
    if s >= 0 and st.private[p] == 0:
        if st.free[s] > 0:
            st.private[p] = st.free[s]
            st.free[s] = 0
        else:
            st.place[s] = FULL
            s = -1
    if s < 0:
        s = _next_slab(st, p)
        st.cpu_slab[p] = s
        st.place[s] = CPU
        st.private[p] = st.free[s]
        st.free[s] = 0
    st.private[p] -= 1
    return int(s)


@kernel
def _next_slab(st: Slubs, p: int) -> int:
    """Find a slab: from the CPU's stack, from the node list with some more for the stack, or a new one."""
    if st.stacked[p] > 0:
        top: int = st.stack[p]
        st.stack[p] = st.next[top]
        st.stacked[p] -= 1
        return top
    if st.counts[HEAD] >= 0:
        first: int = st.counts[HEAD]
        _unlink(st, first)
        for _ in range(st.rules[1] // 2 + 1):
            if st.counts[HEAD] < 0:
                break
            more = st.counts[HEAD]
            _unlink(st, more)
            _push(st, more, p)
        return first
    new: int = st.counts[NEW]
    st.counts[NEW] += 1
    st.counts[SLABS] += 1
    st.counts[PEAK] = max(st.counts[PEAK], st.counts[SLABS])
    st.free[new] = st.rules[0]
    return new


@kernel
def _free(st: Slubs, s: int, p: int) -> None:
    """Give a slot back to its slab."""
    if s == st.cpu_slab[p]:
        st.private[p] += 1
        return
    st.free[s] += 1
    if st.place[s] == FULL:
        if st.stacked[p] >= st.rules[1]:
            _flush(st, p)
        _push(st, s, p)
    elif st.place[s] == LIST:
        st.counts[LIST_FREE] += 1
        if st.free[s] == st.rules[0] and st.counts[ON_LIST] >= st.rules[2]:
            _unlink(st, s)
            _discard(st, s)


@kernel
def _flush(st: Slubs, p: int) -> None:
    """Move all slabs of a CPU's stack to the node list's tail; empty ones go if the list has enough."""
    s = st.stack[p]
    while s >= 0:
        after = st.next[s]
        if st.free[s] == st.rules[0] and st.counts[ON_LIST] >= st.rules[2]:
            _discard(st, s)
        else:
            _append(st, s)
        s = after
    st.stack[p] = -1
    st.stacked[p] = 0


@kernel
def _push(st: Slubs, s: int, p: int) -> None:
    """Put a slab on a CPU's stack."""
    st.next[s] = st.stack[p]
    st.stack[p] = s
    st.stacked[p] += 1
    st.place[s] = STACK


@kernel
def _discard(st: Slubs, s: int) -> None:
    """Give a slab's pages back."""
    st.place[s] = GONE
    st.counts[SLABS] -= 1


@kernel
def _append(st: Slubs, s: int) -> None:
    """Put a slab at the node list's tail."""
    tail = st.counts[TAIL]
    st.next[s] = -1
    st.previous[s] = tail
    if tail >= 0:
        st.next[tail] = s
    else:
        st.counts[HEAD] = s
    st.counts[TAIL] = s
    st.place[s] = LIST
    st.counts[ON_LIST] += 1
    st.counts[LIST_FREE] += st.free[s]


@kernel
def _unlink(st: Slubs, s: int) -> None:
    """Take a slab from the node list."""
    before, after = st.previous[s], st.next[s]
    if before >= 0:
        st.next[before] = after
    else:
        st.counts[HEAD] = after
    if after >= 0:
        st.previous[after] = before
    else:
        st.counts[TAIL] = before
    st.counts[ON_LIST] -= 1
    st.counts[LIST_FREE] -= st.free[s]
