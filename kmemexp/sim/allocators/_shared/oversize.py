"""Blocks beyond an allocator's caches, which are pages straight from the map.

A State has `map`, `slab` with a row for each page, of which `column` of a block's first page says how many pages it is,
and `large`, the pages of all such blocks.
"""

from typing import Any

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Registers
from kmemexp.sim.asking import ask_unmap
from kmemexp.sim.slots import DONE, FAILED, PAGE_SHIFT
from kmemexp.sim.tables import regs
from kmemexp.sim.widths import wide


@kernel
def enter_large(st: Any, reg: Registers, i: int, column: int) -> int:
    """Hand out what the map has given, if it has. Returns the answer to give."""
    base, nbytes = reg[i, regs.BASE], reg[i, regs.BYTES]
    if base < 0:
        return FAILED
    st.slab[base >> PAGE_SHIFT, column] = nbytes >> PAGE_SHIFT
    st.large[0] += nbytes >> PAGE_SHIFT
    reg[i, regs.ADDR] = base
    reg[i, regs.GRANTED] = nbytes
    return DONE


@kernel
def give_large(st: Any, reg: Registers, i: int, phase: int, column: int) -> int:
    """Give the block at regs.ADDR back to the map; the free goes on in `phase`. Returns the answer to give."""
    pages = wide(st.slab[reg[i, regs.ADDR] >> PAGE_SHIFT, column])
    st.large[0] -= pages
    return ask_unmap(reg, i, phase, st.map, reg[i, regs.ADDR], pages << PAGE_SHIFT)
