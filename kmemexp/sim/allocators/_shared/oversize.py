"""Blocks beyond an allocator's caches, which are pages straight from the map.

A State has `map`, `slab` with a row for each page, of which `column` of a block's first page says how many pages it is,
and `large`, the pages of all such blocks.
"""

from kmemexp.jit import kernel
from kmemexp.sim.asking import ask_unmap
from kmemexp.sim.slots import DONE, FAILED, PAGE_SHIFT, R_ADDR, R_BASE, R_BYTES, R_GRANTED
from kmemexp.sim.widths import wide


@kernel
def enter_large(st, reg, i, column):
    """Hand out what the map has given, if it has. Returns the answer to give."""
    base, nbytes = reg[i, R_BASE], reg[i, R_BYTES]
    if base < 0:
        return FAILED
    st.slab[base >> PAGE_SHIFT, column] = nbytes >> PAGE_SHIFT
    st.large[0] += nbytes >> PAGE_SHIFT
    reg[i, R_ADDR] = base
    reg[i, R_GRANTED] = nbytes
    return DONE


@kernel
def give_large(st, reg, i, phase, column):
    """Give the block at R_ADDR back to the map; the free goes on in `phase`. Returns the answer to give."""
    pages = wide(st.slab[reg[i, R_ADDR] >> PAGE_SHIFT, column])
    st.large[0] -= pages
    return ask_unmap(reg, i, phase, st.map, reg[i, R_ADDR], pages << PAGE_SHIFT)
