"""Mbufs of 256 bytes and clusters of 2 KiB, as allocators before mbuma keep them, and chains of them.

A request of up to 256 bytes is an mbuf, up to 2 KiB a cluster; a longer one is a chain of clusters. Buffers are named
by their address in units of 256 bytes, and linked in a table with a word for each unit.
"""

from kmemexp.jit import kernel
from kmemexp.sim.sizing import MSIZE
from kmemexp.sim.slots import R_ADDR, R_GRANTED, R_SIZE, R_X

MSHIFT = 8
NIL = -1  # end of a list or chain

MBUF = 0  # the sorts
CLUSTER = 1


@kernel
def sort_of(reg, i):
    """Sort that a request asks for."""
    return MBUF if reg[i, R_SIZE] <= MSIZE else CLUSTER


@kernel
def add_piece(link, reg, i, piece, size):
    """Put a buffer at the end of the chain, after R_X. True: it is long enough. R_GRANTED: what it holds so far."""
    link[piece] = NIL
    if reg[i, R_GRANTED] == 0:
        reg[i, R_ADDR] = piece << MSHIFT
    else:
        link[reg[i, R_X]] = piece
    reg[i, R_X] = piece
    reg[i, R_GRANTED] += size
    return reg[i, R_GRANTED] >= reg[i, R_SIZE]
