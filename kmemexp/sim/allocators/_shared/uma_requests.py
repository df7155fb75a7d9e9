"""Requests to UMA, that of 2003 and that of today: which zone serves one, and chains of clusters.

Zones are numbered in this order: UMA's own, those of malloc(9), that of mbufs, that of clusters, those of the items.
mbufs: up to 256 bytes an mbuf, up to 2 KiB a cluster, more a chain of clusters. State.chain has a word for each 2 KiB
of KVA: of a cluster in a chain the number of the next one + 1. While a chain grows, regs.ADDR is its last cluster, and
the chain a ring, so that this one leads to the first. regs.GRANTED of a free is the next cluster of the chain + 1.
"""

from collections.abc import Sequence
from typing import Any

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Address, Bytes, Registers
from kmemexp.sim.network import MSIZE
from kmemexp.sim.slots import ITEM_MALLOC, ITEM_MBUF, PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide

NIL = -1

CLUSTER_SHIFT = 11
MALLOC_UNIT_SHIFT = 4
MALLOC_UNIT = 1 << MALLOC_UNIT_SHIFT  # of State.size_zone

S_ZONE = 0  # column of State.slab, in the row of a slab's page: zone + 1; 0: no slab


def zone_names(
    sizes: Sequence[int], zones: int, mbufs: Sequence[str] = ("mbuf", "mbuf_cluster")
) -> tuple[list[str], Sequence[tuple[int, ...]]]:
    """Names of the `zones` that are not UMA's own, and what each serves, as in `sim.caches`; `sizes`: of malloc(9)."""
    items = zones - len(sizes) - len(mbufs)
    names = [f"malloc-{size}" for size in sizes] + [*mbufs] + [""] * items
    served = [(ITEM_MALLOC,)] * len(sizes) + [(ITEM_MBUF,)] * len(mbufs) + [(z,) for z in range(items)]
    return names, served


@kernel
def zone_of(st: Any, addr: Address) -> int:
    """Zone of the item at an address; NIL: a large malloc."""
    return wide(st.slab[addr >> PAGE_SHIFT, S_ZONE]) - 1


@kernel
def zone_for(st: Any, item: int, size: Bytes, mbuf: int, largest: int) -> int:
    """Zone that a request is served from; NIL: a malloc larger than `largest`. `mbuf`: the zone of mbufs."""
    if item >= 0:
        return mbuf + 2 + item
    if item == ITEM_MALLOC:
        return wide(st.size_zone[(size + MALLOC_UNIT - 1) >> MALLOC_UNIT_SHIFT]) if size <= largest else NIL
    return mbuf if size <= MSIZE else mbuf + 1


@kernel
def zone_of_one(st: Any, addr: Address, cluster: int) -> int:
    """Zone of what is freed at an address, if that is a single item; NIL: a large malloc, or a chain of clusters."""
    z = zone_of(st, addr)
    return NIL if z == cluster and st.chain[addr >> CLUSTER_SHIFT] != 0 else z


@kernel
def add_cluster(st: Any, reg: Registers, i: int, addr: Address, nbytes: int) -> bool:
    """Add a cluster of `nbytes` to the chain that a request of more than one asks for. True: it is long enough."""
    piece = addr >> CLUSTER_SHIFT
    if reg[i, regs.GRANTED] == 0:
        st.chain[piece] = piece + 1
    else:
        last = reg[i, regs.ADDR] >> CLUSTER_SHIFT
        st.chain[piece] = st.chain[last]
        st.chain[last] = piece + 1
    reg[i, regs.ADDR] = addr
    reg[i, regs.GRANTED] += nbytes
    if reg[i, regs.GRANTED] < reg[i, regs.SIZE]:
        return False
    open_chain(st, reg, i)
    return True


@kernel
def open_chain(st: Any, reg: Registers, i: int) -> None:
    """Make the ring a chain: regs.ADDR becomes its first cluster."""
    last = reg[i, regs.ADDR] >> CLUSTER_SHIFT
    reg[i, regs.ADDR] = (wide(st.chain[last]) - 1) << CLUSTER_SHIFT
    st.chain[last] = 0


@kernel
def note_next(st: Any, reg: Registers, i: int, cluster: int) -> None:
    """Remember the cluster after the item at regs.ADDR, if that is one: it leaves its chain. `cluster`: their zone."""
    reg[i, regs.GRANTED] = 0
    if zone_of(st, reg[i, regs.ADDR]) == cluster:
        piece = reg[i, regs.ADDR] >> CLUSTER_SHIFT
        reg[i, regs.GRANTED] = st.chain[piece]
        st.chain[piece] = 0


@kernel
def next_piece(st: Any, reg: Registers, i: int, cluster: int) -> bool:
    """Go on to the next cluster of the chain. False: there is none."""
    if reg[i, regs.GRANTED] == 0:
        return False
    reg[i, regs.ADDR] = (reg[i, regs.GRANTED] - 1) << CLUSTER_SHIFT
    note_next(st, reg, i, cluster)
    return True
