"""The Packet zone of `allocators/uma_today`: mbufs that keep their clusters (kern/kern_mbuf.c of FreeBSD 14/15).

A zone secondary to that of mbufs: it has caches of its own, but takes its items from the mbufs' keg. As an item comes
from the keg it gets a cluster (mb_zinit_pack()), for which the operation allocates one like anybody else: regs.PHASE
has NESTED meanwhile, and regs.GRANTED what is waiting, a bucket + 1, or, below zero, a single mbuf's unit of 8 bytes
+ 1. Where clusters run out, what has none goes back. As an item goes back to the keg its cluster is freed
(mb_zfini_pack()). While somebody sleeps for a cluster, who frees a packet first drains the zone's lists
(mb_dtor_pack()).
"""

from kmemexp.jit import kernel, outlined
from kmemexp.sim.aliases import Address, Registers
from kmemexp.sim.allocators._shared.uma_requests import CLUSTER_SHIFT, NIL
from kmemexp.sim.allocators.uma_today import phases, slabs
from kmemexp.sim.allocators.uma_today.moves import (
    BARE_PACKET,
    CLUSTER,
    MBUF,
    MSHIFT,
    NO_PACKET,
    PACKET,
    domain_at,
    empty_bucket,
    then,
    to_keg,
    to_list,
    to_section,
    zone_at,
)
from kmemexp.sim.allocators.uma_today.slabs import (
    bucket_count,
    bucket_entries,
    cache_push,
    item_at,
    list_fetch,
    slab_give,
)
from kmemexp.sim.allocators.uma_today.state import State
from kmemexp.sim.asking import hand_out, let_go
from kmemexp.sim.network import PACKET as PACKET_BYTES
from kmemexp.sim.slots import FAILED
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

FIRST_CLUSTER = 2  # number of cluster 0 in State.ext


@kernel
def mark(st: State, z: int, addr: Address) -> None:
    """Note that an item has left the keg for a zone."""
    if z == PACKET:
        st.ext[addr >> MSHIFT] = BARE_PACKET


@kernel
def init_bucket(st: State, reg: Registers, i: int, b: int) -> int:
    """Begin to get clusters for the packets of a bucket. Word b: how many have one."""
    st.word[b] = 0
    reg[i, regs.GRANTED] = b + 1
    return _nest(reg, i)


@kernel
def init_one(reg: Registers, i: int, addr: Address) -> int:
    """Begin to get a cluster for a single packet."""
    reg[i, regs.GRANTED] = -(addr >> slabs.WORD_SHIFT) - 1
    return _nest(reg, i)


@kernel
def _nest(reg: Registers, i: int) -> int:
    reg[i, regs.PHASE] |= phases.NESTED
    reg[i, regs.Y] = NIL
    return to_section(reg, i, phases.PIECES)


@kernel
def attach(st: State, reg: Registers, i: int, cluster: Address) -> bool:
    """Give a cluster to the packet that waits for it. True: it is handed out. The last of a bucket ends NESTED."""
    waiting = reg[i, regs.GRANTED]
    number = (cluster >> CLUSTER_SHIFT) + FIRST_CLUSTER
    if waiting < 0:
        addr = (-waiting - 1) << slabs.WORD_SHIFT
        st.ext[addr >> MSHIFT] = number
        reg[i, regs.PHASE] &= ~phases.NESTED
        hand_out(reg, i, addr, PACKET_BYTES)
        return True
    b = waiting - 1
    n = wide(st.word[b])
    st.ext[item_at(st, b, n) >> MSHIFT] = number
    st.word[b] = n + 1
    reg[i, regs.WORK] += 1
    if n + 1 == bucket_count(st, b):
        _end(st, reg, i, b)
    return False


@kernel
def _end(st: State, reg: Registers, i: int, b: int) -> None:
    """Go on with a new bucket of packets."""
    reg[i, regs.PHASE] &= ~phases.NESTED
    reg[i, regs.Y] = b
    st.word[b] = 1


@outlined
def uninit(st: State, reg: Registers, i: int) -> int:
    """Give the mbufs back for which there is no cluster; a bucket goes on with those that have one."""
    waiting = reg[i, regs.GRANTED]
    if waiting < 0:
        addr = (-waiting - 1) << slabs.WORD_SHIFT
        st.ext[addr >> MSHIFT] = NO_PACKET
        slab_give(st, reg, i, addr)
        st.zone[PACKET, slabs.Z_USED] -= 1
        return FAILED
    b = waiting - 1
    n, count = wide(st.word[b]), bucket_count(st, b)
    for k in range(n, count):
        addr = item_at(st, b, k)
        st.ext[addr >> MSHIFT] = NO_PACKET
        slab_give(st, reg, i, addr)
    reg[i, regs.WORK] += count - n
    st.zone[PACKET, slabs.Z_USED] -= count - n
    st.word[b + 1] = bucket_entries(st, b) << slabs.ENTRIES_SHIFT | n
    _end(st, reg, i, b)
    if n > 0:
        return to_section(reg, i, phases.LOAD)
    then(reg, i, phases.ONE)
    reg[i, regs.BASE] = b
    return to_section(reg, i, phases.DISPOSE)


@kernel
def _cluster_of(st: State, addr: Address) -> int:
    return (wide(st.ext[addr >> MSHIFT]) - FIRST_CLUSTER) << CLUSTER_SHIFT


@kernel
def _strip(st: State, reg: Registers, i: int, addr: Address) -> bool:
    """Put a packet's cluster into the CPU's buckets. False: it must go to its slab."""
    cluster, cpu = _cluster_of(st, addr), reg[i, regs.CPU]
    if st.zone[CLUSTER, slabs.Z_SLEEPERS]:
        return False
    if not cache_push(st, CLUSTER, cpu, cluster, domain_at(st, cluster) != st.domain_of[cpu]):
        return False
    st.ext[addr >> MSHIFT] = BARE_PACKET
    return True


@kernel
def _strip_hard(st: State, reg: Registers, i: int, addr: Address) -> None:
    """Give a packet's cluster to its slab."""
    slab_give(st, reg, i, _cluster_of(st, addr))
    st.ext[addr >> MSHIFT] = BARE_PACKET
    st.zone[CLUSTER, slabs.Z_USED] -= 1
    let_go(reg, i, CLUSTER, 1)


@kernel
def fini_step(st: State, reg: Registers, i: int, phase: int) -> int:
    """Free the clusters of a bucket of packets, then give the mbufs back: bucket_drain(). Word b: how many are bare."""
    b = reg[i, regs.BASE]
    n, count = wide(st.word[b]), bucket_count(st, b)
    if phase == phases.FINI_ITEM:
        d = domain_at(st, _cluster_of(st, item_at(st, b, n)))
        while n < count and domain_at(st, _cluster_of(st, item_at(st, b, n))) == d:
            _strip_hard(st, reg, i, item_at(st, b, n))
            n += 1
            reg[i, regs.WORK] += 1
        st.word[b] = n
        return to_section(reg, i, phases.FINI)
    while n < count and _strip(st, reg, i, item_at(st, b, n)):
        n += 1
        reg[i, regs.WORK] += 1
    st.word[b] = n if n < count else 0
    if n < count:
        return to_keg(st, reg, i, phases.FINI_ITEM, CLUSTER, domain_at(st, _cluster_of(st, item_at(st, b, n))))
    return to_keg(st, reg, i, phases.RELEASE, MBUF, domain_at(st, item_at(st, b, 0)))


@kernel
def to_slab(st: State, reg: Registers, i: int, z: int, d: int) -> int:
    """Go where the item that is freed is given to its slab; a packet loses its cluster first."""
    addr = reg[i, regs.ADDR]
    if z == PACKET and not _strip(st, reg, i, addr):
        return to_keg(st, reg, i, phases.FINI_ONE, CLUSTER, domain_at(st, _cluster_of(st, addr)))
    return to_keg(st, reg, i, phases.FREE_ITEM, z, d)


@kernel
def fini_one(st: State, reg: Registers, i: int) -> int:
    """Give the cluster of the packet that is freed to its slab."""
    _strip_hard(st, reg, i, reg[i, regs.ADDR])
    return to_keg(st, reg, i, phases.FREE_ITEM, PACKET, domain_at(st, reg[i, regs.ADDR]))


@kernel
def drains(st: State, addr: Address) -> bool:
    """Whether freeing an item drains the lists of packets: somebody sleeps for a cluster."""
    return st.zone[CLUSTER, slabs.Z_SLEEPERS] > 0 and zone_at(st, addr) == PACKET


@outlined
def drain(st: State, reg: Registers, i: int, phase: int) -> int:
    """Empty the next bucket on a list of packets; answers NIL after the last one."""
    for d in range(st.domains):
        if st.dom[PACKET, d, slabs.D_LIST] == NIL:
            continue
        if phase == phases.DRAIN:
            return to_list(st, reg, i, phases.DRAIN_LIST, PACKET, d)
        st.dom[PACKET, d, slabs.D_TAKES] += 1
        return empty_bucket(st, reg, i, list_fetch(st, PACKET, d, True), phases.DRAIN)
    return NIL if phase == phases.DRAIN else to_section(reg, i, phases.DRAIN)
