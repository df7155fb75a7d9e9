"""DragonFly's objcache of mbufs with their clusters (kern/uipc_mbuf.c, June 2005 and later): m_getcl().

An object is an mbuf to which its constructor has linked a cluster, got from the cache of clusters; the destructor puts
that back there. So one that lies in a magazine keeps its cluster, and the slab allocator and the clusters' cache are
asked only where the magazines are empty or full: regs.X says how far that is, regs.Y the mbuf. Who sleeps for such an
object does so on the channel of clusters, since the limits are equal.

What is here is for `objcache` and `objcache_2020`, whose slab allocators differ: BACK_END asks for a step of it. A
State has besides `mate`, by 256 bytes of KVA the cluster of an mbuf, in units of 256 bytes.
"""

from typing import Any

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Address, Registers
from kmemexp.sim.allocators._shared import objcaches
from kmemexp.sim.allocators._shared.objcaches import (
    BACK_END,
    BEGIN_SLAB,
    CHUNK,
    DEPOT_LOCK,
    RESTORE,
    alloc_step,
    allocated,
    filled,
    free_step,
    get,
    has_room,
    put_back,
)
from kmemexp.sim.asking import go_on, hand_out
from kmemexp.sim.network import MCLBYTES, MSIZE
from kmemexp.sim.slots import DONE, FAILED, SLEEP
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

MSHIFT = 8  # log2 of an mbuf's bytes
CLUSTERS = 1  # cache, counted from that of mbufs
PACKETS = 2

# regs.X.
OBJECT = 0  # in the cache itself
CLUSTER = 1  # in the cache of clusters
MBUF = 2  # the mbuf goes back to the slab allocator

BEGIN = 19  # regs.PHASE: begin in the cache of clusters, or with the mbuf


@kernel
def back_end_size(reg: Registers, i: int) -> int:
    """Bytes that the slab allocator is asked for."""
    return MCLBYTES if reg[i, regs.X] == CLUSTER else MSIZE


@kernel
def _same_channel(st: Any, reg: Registers, i: int) -> None:
    """Let who waits for a packet wait for a cluster."""
    if reg[i, regs.WAKE] == st.mbufs + PACKETS + 1:
        reg[i, regs.WAKE] = st.mbufs + CLUSTERS + 1


@kernel
def begin(reg: Registers, i: int) -> None:
    """Begin an operation that the CPU's magazines cannot serve."""
    if reg[i, regs.PHASE] == 0:
        reg[i, regs.X] = OBJECT


@kernel
def to_mbuf(reg: Registers, i: int) -> int:
    """Go on with the mbuf, which has no cluster: there is none, or it has gone back."""
    reg[i, regs.X] = MBUF
    reg[i, regs.ADDR] = reg[i, regs.Y]
    return go_on(reg, i, BEGIN, 0)


@kernel
def alloc_next(st: Any, reg: Registers, i: int) -> int:
    """Go on with an allocation. Returns an answer, or BACK_END: a step of the slab's, a free if regs.X is MBUF."""
    if reg[i, regs.PHASE] == BEGIN:
        reg[i, regs.PHASE] = 0
    if reg[i, regs.X] == OBJECT or (reg[i, regs.PHASE] == RESTORE and reg[i, regs.X] == MBUF):
        answer = alloc_step(st, reg, i, st.mbufs + PACKETS)
        _same_channel(st, reg, i)
        if answer == SLEEP:
            reg[i, regs.CHANNEL] = st.mbufs + CLUSTERS
        return answer
    if reg[i, regs.X] == MBUF:
        return BACK_END
    z, cpu = st.mbufs + CLUSTERS, reg[i, regs.CPU]
    if reg[i, regs.PHASE] == 0 and filled(st, z, cpu):
        return _linked(st, reg, i, get(st, z, cpu))
    answer = alloc_step(st, reg, i, z)
    if answer == DONE:
        return _linked(st, reg, i, reg[i, regs.ADDR])
    return to_mbuf(reg, i) if answer == FAILED else answer


@kernel
def alloc_answered(st: Any, reg: Registers, i: int, answer: int) -> int:
    """What an answer of the slab allocator comes to."""
    if reg[i, regs.X] == MBUF:
        return go_on(reg, i, RESTORE, DEPOT_LOCK | (st.mbufs + PACKETS)) if answer == DONE else answer
    if reg[i, regs.X] == CLUSTER:
        if answer == DONE:
            return _linked(st, reg, i, reg[i, regs.ADDR])
        return allocated(reg, i, st.mbufs + CLUSTERS, answer)
    if answer == DONE:
        reg[i, regs.Y] = reg[i, regs.ADDR]
        reg[i, regs.X] = CLUSTER
        return go_on(reg, i, BEGIN, 0)
    return allocated(reg, i, st.mbufs + PACKETS, answer)


@kernel
def _linked(st: Any, reg: Registers, i: int, cluster: Address) -> int:
    """Hand out the mbuf with its cluster: linkcluster()."""
    st.mate[reg[i, regs.Y] >> MSHIFT] = cluster >> MSHIFT
    return hand_out(reg, i, reg[i, regs.Y], st.depot[st.mbufs + PACKETS, CHUNK])


@kernel
def free_next(st: Any, reg: Registers, i: int) -> int:
    """Go on with a free. Returns an answer, or BACK_END."""
    z = st.mbufs + CLUSTERS
    if reg[i, regs.X] == OBJECT:
        answer = free_step(st, reg, i, st.mbufs + PACKETS)
        _same_channel(st, reg, i)
        if answer != BACK_END:
            return answer
        reg[i, regs.Y] = reg[i, regs.ADDR]
        reg[i, regs.ADDR] = wide(st.mate[reg[i, regs.Y] >> MSHIFT]) << MSHIFT
        reg[i, regs.X] = CLUSTER
        if has_room(st, z, reg[i, regs.CPU]):
            put_back(st, reg, i, z)
            return to_mbuf(reg, i)
    if reg[i, regs.X] == CLUSTER:
        answer = free_step(st, reg, i, z)
        return to_mbuf(reg, i) if answer == DONE else answer
    if reg[i, regs.PHASE] == BEGIN or reg[i, regs.PHASE] == BEGIN_SLAB:
        reg[i, regs.PHASE] = 0
    return BACK_END


@kernel
def free_answered(reg: Registers, i: int, answer: int) -> int:
    """What an answer of the slab allocator comes to."""
    return to_mbuf(reg, i) if answer == DONE and reg[i, regs.X] == CLUSTER else answer


def rounds(generation: int) -> int:
    """Rounds of a magazine of the cache, where it asks for them: those with packet headers have 64 in 2005."""
    return objcaches.INITIAL_MAG_CAPACITY if generation == 1 else 0
