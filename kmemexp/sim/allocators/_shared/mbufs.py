"""Mbufs of 256 bytes and clusters of 2 KiB, as allocators before mbuma keep them, and chains of them.

A request of up to 256 bytes is an mbuf, up to 2 KiB a cluster; a longer one is a chain of clusters. Buffers are named
by their address in units of 256 bytes, and linked in a table with a word for each unit.
"""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Bytes, Registers, Words
from kmemexp.sim.network import MSIZE
from kmemexp.sim.tables import regs

MSHIFT = 8
NIL = -1  # end of a list or chain

MBUF = 0  # the sorts
CLUSTER = 1


@kernel
def sort_of(size: Bytes) -> int:
    """Sort that a request asks for."""
    return MBUF if size <= MSIZE else CLUSTER


@kernel
def add_piece(reg: Registers, i: int, link: Words, piece: int, size: int) -> bool:
    """Put a buffer at the end of the chain, after regs.X. True: it is long enough. regs.GRANTED: bytes so far."""
    link[piece] = NIL
    if reg[i, regs.GRANTED] == 0:
        reg[i, regs.ADDR] = piece << MSHIFT
    else:
        link[reg[i, regs.X]] = piece
    reg[i, regs.X] = piece
    reg[i, regs.GRANTED] += size
    return reg[i, regs.GRANTED] >= reg[i, regs.SIZE]
