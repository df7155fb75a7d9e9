"""Sequential fit by a Cartesian tree: kmem_alloc() of SunOS 4.1.3 (Sun, 1992), after Stephenson, "Fast Fits" (1983).

Bonwick (1994, section 5) calls it the sequential-fit allocator. All free blocks, of whatever length, stand in one
binary tree, from left to right by address, and nowhere is a block longer than the one above it. An allocation goes down
from the root, each time to the child that fits better (the shorter one if it is long enough, else the longer; of two
equal ones the left), and takes the low end of the block where neither child is long enough. What is left of it sinks to
its new place. A free merges with both neighbours at once. Without a block that is long enough the request's bytes,
rounded up to pages, come from the map and are freed into the tree. Pages stay, unless `release` is set: then the whole
pages of a free block go back to the map as soon as there are any.

The tree's headers lie apart from the blocks, 16 bytes for each free block, in pages of their own.

Rules: Stephenson (SOSP 1983), as in its descendant in illumos, usr/src/psm/stand/boot/common/heap_kmem.c (b531f6d1):
search, ties, growth by the request's pages, headers. ASSUMPTIONS: sizes are rounded up to 8 bytes, the alignment that a
SPARC's doublewords need; the kernel's copy grows as the boot loader's does. Whether it too keeps pages no text says.

Left out: the list of blocks that interrupts have freed; sleeping for memory. A page of headers is asked for when none
is spare, also where a merge would spare one. A block for which there is no header even so is lost (the kernel waits).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim import demand
from kmemexp.sim.aliases import Registers, Words, int64
from kmemexp.sim.asking import ask_unmap, ask_wired
from kmemexp.sim.caches import Cache, Live
from kmemexp.sim.items import Item
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, FAILED, NO_ENTRY, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import panics, regs

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)  # whatever has a size
LOCKS = ("adaptive",)  # one for the tree; Bonwick measured all four allocators under mutexes of SunOS 5

UNIT_SHIFT = 3
PAGE_UNITS = PAGE >> UNIT_SHIFT
HEADER_BYTES = 16  # two links, address and size of 4 bytes each
HEADERS_PER_PAGE = PAGE // HEADER_BYTES

# A row of State.node describes a free block; row 0 is none, and its LEFT is the root. Links are rows; a *hook* is the
# place of a link.
LEFT = 0  # chains spare rows too
RIGHT = 1
START = 2  # units
SIZE = 3  # units
NODE_SHIFT = 2

# State.totals.
SPARE = 0  # headers without a block
RECYCLED = 1  # first row that was used before; 0: none
FRESH = 2  # first row never used
FREE = 3  # free units
BLOCKS = 4  # free blocks
PAGES = 5  # pages of blocks
HEADER_PAGES = 6
LOST = 7  # units for which there was no header
COUNTS = 8

BEGIN = 0  # phases
HEADERS = 1
CORE = 2
GIVEN = 3


class Params(NamedTuple):
    """What a sweep may change."""

    release: int = 0  # 1: whole free pages go back


class State(NamedTuple):
    """The tree."""

    p: Params
    map: int
    node: Words  # int32[rows * 4]
    totals: Words  # int64[COUNTS]


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Make an empty tree. `cpus`, `items` and `bases` are not used. Raises ValueError beyond 8 TiB of KVA."""
    demand.check_kva(kva_bytes)
    rows = 1 + (kva_bytes >> UNIT_SHIFT + 1) + HEADERS_PER_PAGE  # two free blocks never touch
    node = demand.zeros(rows << NODE_SHIFT, demand.names(kva_bytes >> UNIT_SHIFT))
    count = np.zeros(COUNTS, np.int64)
    count[FRESH] = 1
    return State(params, map_number, node, count)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Take the low end of the block that the descent finds, after more pages if the longest one is too short."""
    units = (max(reg[i, regs.SIZE], 1) + (1 << UNIT_SHIFT) - 1) >> UNIT_SHIFT
    phase = reg[i, regs.PHASE]
    if phase == CORE:
        st.totals[SPARE] += 1
    if phase != BEGIN and reg[i, regs.BASE] < 0:
        if reg[i, regs.BASE] == NO_ENTRY:
            reg[i, regs.PANIC] = panics.ENTRIES
        return FAILED
    if phase == HEADERS:
        _more_headers(st, reg, i)
    elif phase == CORE:
        st.totals[PAGES] += reg[i, regs.BYTES] >> PAGE_SHIFT
        start, size = absorb(st, reg[i, regs.BASE] >> UNIT_SHIFT, reg[i, regs.BYTES] >> UNIT_SHIFT)
        _insert(st, start, size)
    if _weight(st, st.node[LEFT]) < units:
        return _more(st, reg, i, units)
    reg[i, regs.ADDR] = take(st, units) << UNIT_SHIFT
    reg[i, regs.GRANTED] = units << UNIT_SHIFT
    return DONE


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Merge the block with its free neighbours and enter it; kmem_free() is told the size."""
    if reg[i, regs.PHASE] == GIVEN:
        return DONE
    if reg[i, regs.PHASE] == HEADERS:
        if reg[i, regs.BASE] >= 0:
            _more_headers(st, reg, i)
    elif st.totals[SPARE] == 0:
        return ask_wired(reg, i, HEADERS, st.map, PAGE, PAGE)
    units = (max(reg[i, regs.SIZE], 1) + (1 << UNIT_SHIFT) - 1) >> UNIT_SHIFT
    start, size = absorb(st, reg[i, regs.ADDR] >> UNIT_SHIFT, units)
    low = (start + PAGE_UNITS - 1) & -PAGE_UNITS
    high = (start + size) & -PAGE_UNITS
    if not st.p.release or high <= low or st.totals[SPARE] < 2:
        _insert(st, start, size)
        return DONE
    if start < low:
        _insert(st, start, low - start)
    if high < start + size:
        _insert(st, high, start + size - high)
    st.totals[FREE] -= high - low
    st.totals[PAGES] -= (high - low) >> (PAGE_SHIFT - UNIT_SHIFT)
    return ask_unmap(reg, i, GIVEN, st.map, low << UNIT_SHIFT, (high - low) << UNIT_SHIFT)


@kernel
def _more(st: State, reg: Registers, i: int, units: int) -> int:
    """Ask for the request's pages, and before that for headers; the one that they will need is set aside."""
    if st.totals[SPARE] == 0:
        return ask_wired(reg, i, HEADERS, st.map, PAGE, PAGE)
    st.totals[SPARE] -= 1
    return ask_wired(reg, i, CORE, st.map, ((units << UNIT_SHIFT) + PAGE - 1) & -PAGE, PAGE)


@kernel
def _more_headers(st: State, reg: Registers, i: int) -> None:
    st.totals[SPARE] += HEADERS_PER_PAGE
    st.totals[HEADER_PAGES] += 1
    reg[i, regs.WORK] += HEADERS_PER_PAGE - 1


@kernel
def _weight(st: State, x: int) -> int:
    """Units of a row's block; row 0 has none."""
    return int64(st.node[(int64(x) << NODE_SHIFT) + SIZE])


@outlined
def take(st: State, units: int) -> int:
    """Take `units` from the tree, whose root is long enough. Returns the address in units."""
    node = st.node
    hook = int64(LEFT)
    x = int64(node[hook])
    while True:
        left, right = x << NODE_SHIFT, (x << NODE_SHIFT) + RIGHT
        a, b = _weight(st, node[left]), _weight(st, node[right])
        if a < units and b < units:
            break
        hook = left if (a >= units and (a <= b or b < units)) else right
        x = int64(node[hook])
    row = x << NODE_SHIFT
    addr = int64(node[row + START])
    st.totals[FREE] -= units
    if int64(node[row + SIZE]) == units:
        _delete(st, hook)
    else:
        node[row + START] = addr + units
        node[row + SIZE] -= units
        _demote(st, hook)
    return addr


@outlined
def absorb(st: State, start: int, size: int) -> tuple[int, int]:
    """Take a block's free neighbours, met on the way down to its place, out of the tree. Returns what they make."""
    node = st.node
    st.totals[FREE] += size
    hook = int64(LEFT)
    x = int64(node[hook])
    while x != 0:
        row = x << NODE_SHIFT
        at, length = int64(node[row + START]), int64(node[row + SIZE])
        if start + size == at:
            size += length
            _delete(st, hook)
        elif at + length == start:
            start = at
            size += length
            _delete(st, hook)
        else:
            hook = row + LEFT if start < at else row + RIGHT
        x = int64(node[hook])
    return start, size


@outlined
def _insert(st: State, start: int, size: int) -> None:
    """Put a block above the first shorter one on its way, whose subtree is parted at its address."""
    node, count = st.node, st.totals
    if count[SPARE] == 0:
        count[FREE] -= size
        count[LOST] += size
        return
    x = count[RECYCLED]
    if x != 0:
        count[RECYCLED] = node[x << NODE_SHIFT]
    else:
        x = count[FRESH]
        count[FRESH] += 1
    count[SPARE] -= 1
    count[BLOCKS] += 1
    row = x << NODE_SHIFT
    node[row + START], node[row + SIZE] = start, size
    hook = int64(LEFT)
    below = int64(node[hook])
    while _weight(st, below) >= size:
        there = below << NODE_SHIFT
        hook = there + LEFT if start < int64(node[there + START]) else there + RIGHT
        below = int64(node[hook])
    node[hook] = x
    lower, higher = row + LEFT, row + RIGHT
    while below != 0:
        there = below << NODE_SHIFT
        if int64(node[there + START]) < start:
            node[lower] = below
            lower = there + RIGHT
            below = int64(node[lower])
        else:
            node[higher] = below
            higher = there + LEFT
            below = int64(node[higher])
    node[lower] = node[higher] = 0


@kernel
def _delete(st: State, hook: int) -> None:
    """Take out the block at a hook; its two subtrees become one, the longer on top, of equal ones the left."""
    node, count = st.node, st.totals
    x = int64(node[hook])
    _join(st, hook, 0)
    node[x << NODE_SHIFT] = count[RECYCLED]
    count[RECYCLED] = x
    count[SPARE] += 1
    count[BLOCKS] -= 1


@kernel
def _demote(st: State, hook: int) -> None:
    """Let the block at a hook, which has become shorter, sink below all that are longer."""
    x = int64(st.node[hook])
    _join(st, hook, x)


@outlined
def _join(st: State, hook: int, x: int) -> None:
    """Join the subtrees of the block at `hook` down to what is no longer than block `x` (0: none), which goes there."""
    node = st.node
    row = int64(node[hook]) << NODE_SHIFT
    left, right = int64(node[row + LEFT]), int64(node[row + RIGHT])
    least = _weight(st, x)
    while _weight(st, left) > least or _weight(st, right) > least:
        if _weight(st, left) >= _weight(st, right):
            node[hook] = left
            hook = (left << NODE_SHIFT) + RIGHT
            left = int64(node[hook])
        else:
            node[hook] = right
            hook = (right << NODE_SHIFT) + LEFT
            right = int64(node[hook])
    node[hook] = x
    if x != 0:
        node[row + LEFT], node[row + RIGHT] = left, right


def caches(st: State, live: Live) -> list[Cache]:
    """All blocks are of one tree: there are no caches."""
    return [Cache("blocks", pages=int(st.totals[PAGES]))]


def census(st: State) -> dict[str, int]:
    """Pages held, of blocks and of headers; free blocks and bytes, longest free block, bytes lost."""
    count = st.totals
    counts = {
        "pages": count[PAGES] + count[HEADER_PAGES],
        "header_pages": count[HEADER_PAGES],
        "free_blocks": count[BLOCKS],
        "free_bytes": count[FREE] << UNIT_SHIFT,
        "longest_bytes": int(st.node[(int(st.node[LEFT]) << NODE_SHIFT) + SIZE]) << UNIT_SHIFT,
        "lost_bytes": count[LOST] << UNIT_SHIFT,
    }
    return {name: int(n) for name, n in counts.items()}
