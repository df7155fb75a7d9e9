"""The Packet zone of `allocators/uma`: mbufs that keep their clusters (kern/kern_mbuf.c, 31 May 2004 to 2006).

A zone secondary to that of mbufs: caches and lists of its own, slabs and lock of the mbufs' keg. As an item comes from
the keg it gets a cluster (mb_init_pack()), for which the operation allocates one like anybody else, without the keg's
lock: regs.PHASE has NESTED meanwhile, and regs.GRANTED what is waiting, a bucket + 1, or, below zero, a single mbuf's
unit of 256 bytes + 1. Where clusters run out, what has none goes back (an init that may fail: since August 2004). As an
item goes back to the keg its cluster is freed (mb_fini_pack()): into the CPU's buckets or, where these have no room,
to its slab.
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Registers
from kmemexp.sim.allocators._shared.uma_requests import CLUSTER_SHIFT, NIL
from kmemexp.sim.allocators.uma import phases, slabs
from kmemexp.sim.allocators.uma.layout import BUCKET_WORDS
from kmemexp.sim.allocators.uma.moves import to_cpu, to_free_bucket
from kmemexp.sim.allocators.uma.slabs import (
    BARE_PACKET,
    MSHIFT,
    NO_PACKET,
    bucket_count,
    bucket_take,
    cache_push,
    list_push,
    slab_give,
    zone_at,
)
from kmemexp.sim.allocators.uma.state import State
from kmemexp.sim.asking import hand_out
from kmemexp.sim.network import PACKET as PACKET_BYTES
from kmemexp.sim.slots import FAILED
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

FIRST_CLUSTER = 2  # number of cluster 0 in State.ext


@kernel
def mark(st: State, z: int, addr: Address) -> None:
    """Note that an item has left the keg for a zone."""
    if z == slabs.PACKET:
        st.ext[addr >> MSHIFT] = BARE_PACKET


@kernel
def init_bucket(st: State, reg: Registers, i: int, b: int) -> int:
    """Begin to get clusters for the packets of a bucket, which stays counted in Z_FILLS. B_NEXT: how many have one."""
    st.word[b + slabs.B_NEXT] = 0
    reg[i, regs.GRANTED] = b + 1
    reg[i, regs.PHASE] &= ~phases.FILLING
    return _nest(reg, i)


@kernel
def init_one(reg: Registers, i: int, addr: Address) -> int:
    """Begin to get a cluster for a single packet."""
    reg[i, regs.GRANTED] = -(addr >> MSHIFT) - 1
    return _nest(reg, i)


@kernel
def _nest(reg: Registers, i: int) -> int:
    reg[i, regs.PHASE] |= phases.NESTED
    reg[i, regs.X] = NIL
    return to_cpu(reg, i, phases.RETRY)


@kernel
def attach(st: State, reg: Registers, i: int, cluster: Address) -> bool:
    """Give a cluster to the packet that waits for it. True: it is handed out. The last of a bucket ends NESTED."""
    waiting = reg[i, regs.GRANTED]
    number = (cluster >> CLUSTER_SHIFT) + FIRST_CLUSTER
    if waiting < 0:
        st.ext[-waiting - 1] = number
        reg[i, regs.PHASE] &= ~phases.NESTED
        hand_out(reg, i, (-waiting - 1) << MSHIFT, PACKET_BYTES)
        return True
    b = waiting - 1
    n = wide(st.word[b + slabs.B_NEXT])
    st.ext[_item(st, b, n) >> MSHIFT] = number
    st.word[b + slabs.B_NEXT] = n + 1
    reg[i, regs.WORK] += 1
    if n + 1 == bucket_count(st, b):
        reg[i, regs.PHASE] &= ~phases.NESTED
    return False


@kernel
def _item(st: State, b: int, n: int) -> Address:
    return wide(st.word[b + BUCKET_WORDS + n]) << st.shift


@outlined
def inited(st: State, reg: Registers, i: int) -> int:
    """Put the bucket of packets on the zone's list, those that have a cluster; the rest goes back to the keg."""
    waiting = reg[i, regs.GRANTED]
    reg[i, regs.GRANTED] = 0
    if waiting < 0:
        st.ext[-waiting - 1] = NO_PACKET
        slab_give(st, reg, i, (-waiting - 1) << MSHIFT)
        return FAILED
    b = waiting - 1
    n, count = wide(st.word[b + slabs.B_NEXT]), bucket_count(st, b)
    for k in range(n, count):
        st.ext[_item(st, b, k) >> MSHIFT] = NO_PACKET
        slab_give(st, reg, i, _item(st, b, k))
    st.word[b + slabs.B_COUNT] = n
    reg[i, regs.WORK] += count - n
    st.zone[slabs.PACKET, slabs.Z_FILLS] -= 1
    if n == 0:
        reg[i, regs.X] = b
        return to_free_bucket(st, reg, i, phases.SINGLE)
    list_push(st, slabs.PACKET, slabs.Z_READY, b)
    reg[i, regs.X] = NIL
    return to_cpu(reg, i, phases.RETRY)


@kernel
def _cluster_of(st: State, addr: Address) -> Address:
    return (wide(st.ext[addr >> MSHIFT]) - FIRST_CLUSTER) << CLUSTER_SHIFT


@kernel
def _cached(st: State, cpu: int, addr: Address) -> bool:
    """Put a packet's cluster into the CPU's buckets. False: they have no room, or the zone is full."""
    if st.zone[slabs.CLUSTER, slabs.Z_FULL] or not cache_push(st, slabs.CLUSTER, cpu, _cluster_of(st, addr)):
        return False
    st.ext[addr >> MSHIFT] = BARE_PACKET
    return True


@kernel
def strip(st: State, reg: Registers, i: int, addr: Address) -> None:
    """Give a packet's cluster to its slab."""
    slab_give(st, reg, i, _cluster_of(st, addr))
    st.ext[addr >> MSHIFT] = BARE_PACKET


@kernel
def bare(st: State, cpu: int, addr: Address) -> bool:
    """Whether a packet has no cluster, now or once that has gone into the CPU's buckets."""
    return st.ext[addr >> MSHIFT] == BARE_PACKET or _cached(st, cpu, addr)


@kernel
def bucket_drain(st: State, reg: Registers, i: int, b: int) -> None:
    """Give all items of a bucket back to their slabs, the last one first; packets lose their clusters."""
    reg[i, regs.WORK] += bucket_count(st, b)
    while bucket_count(st, b) > 0:
        addr = bucket_take(st, b)
        if zone_at(st, addr) == slabs.PACKET:
            if not _cached(st, reg[i, regs.CPU], addr):
                strip(st, reg, i, addr)
            st.ext[addr >> MSHIFT] = NO_PACKET
        slab_give(st, reg, i, addr)
