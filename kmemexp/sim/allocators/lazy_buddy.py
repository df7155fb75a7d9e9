"""A lazy buddy system: the kernel memory allocator of System V Release 4 (AT&T, 1989), after Lee and Barkley.

T. P. Lee and R. E. Barkley, "A watermark-based lazy buddy system for kernel memory allocation", USENIX Summer 1989, and
"A lazy buddy system bounded by two coalescing delays", SOSP 1989. A request is rounded up to a power of two. Its class
hands out a free block, one that is only *locally* free before one that is *globally* free; else a block of the next
class is split, where the same rules hold, and the upper half becomes locally free. Only buddies that are both globally
free are merged. How far merging is put off is ruled by the slack D = A - L of each class, allocated (or split) blocks
less locally free ones:

    alloc   a locally free block: D + 2   a globally free one: D + 1   by a split: D stays
    free    D >= 2 (lazy): locally free, D - 2
            D = 1 (reclaiming): globally free, merged if its buddy is; D = 0
            D = 0 (accelerated): the same, and one locally free block becomes globally free as well; D stays 0

What was merged is freed in its class by the same rules, so that without live blocks all is merged again.

Small requests (up to 256 bytes) and large ones (from 512) have pools of their own; beyond `max_request` pages come from
the map: Sun's System Administration Guide on `sar -k`, written for this allocator: 4 KiB; SCO's kmeminfo says 16 KiB.
ASSUMPTIONS: a pool is 4 KiB for small and 16 KiB for large requests (the largest request of each, by either text); the
smallest block is 16 bytes; the locally free block that is reclaimed is the one freed last; a pool that is merged whole
goes back to the map at once, beyond `keep_pools` of its sort: no text says how many the kernel keeps.

Left out: bitmaps and pool headers, which lie apart; kmem_fast_alloc(); bufcall().
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel, outlined
from kmemexp.sim.asking import ask_unmap, ask_wired
from kmemexp.sim.items import Item
from kmemexp.sim.slots import (
    C_MALLOC,
    C_MBUF,
    C_ZONE,
    DONE,
    FAILED,
    NO_ENTRY,
    P_ENTRIES,
    PAGE,
    PAGE_SHIFT,
    R_ADDR,
    R_BASE,
    R_BYTES,
    R_GRANTED,
    R_PANIC,
    R_PHASE,
    R_SIZE,
    R_WORK,
)

SERVES = (C_MALLOC, C_ZONE, C_MBUF)  # whatever has a size
LOCKS = ("adaptive",)  # one for all; Bonwick measured all four allocators under mutexes of SunOS 5
KEEPS = False

UNIT_SHIFT = 4  # the smallest block
SMALL_REQUEST = 256  # largest of the small pools
SMALL_ORDER, LARGE_ORDER = 12, 14  # log2 of a pool
LARGE_REQUEST = 1 << LARGE_ORDER  # most that a pool can serve
MAX_KVA = 1 << 35  # blocks are named by 31 bits

# Classes 0 … 8 are blocks of 2**4 … 2**12 bytes in small pools, 9 … 14 those of 2**9 … 2**14 in large ones. The last of
# each is a whole pool.
SMALL_TOP = SMALL_ORDER - UNIT_SHIFT
LARGE_TOP = LARGE_ORDER
FIRST_LARGE = SMALL_TOP + 1
CLASSES = LARGE_TOP + 1

# Columns of State.klass.
LOCAL = 0  # first locally free block, in units of 16 bytes; NONE: none
GLOBAL = 1  # first globally free block
SLACK = 2
LOCALS = 3  # blocks on either list
GLOBALS = 4
COLUMNS = 5

NONE = -1
SMALL_POOLS, LARGE_POOLS, LARGE_PAGES = range(3)  # State.held
NEXT, PREV = range(2)  # columns of State.link
PUT_OFF = 1  # entry of State.stack: class << 40 | unit << 1 | whether the rules of the slack are to be asked

BEGIN = 0  # phases
MAPPED = 1
GIVEN = 2
DIRECT = 3


class Params(NamedTuple):
    """What a sweep may change."""

    max_request: int = 4096  # largest request from a pool: 4096 or up to 16384
    keep_pools: int = 0  # pools of each sort that stay although nothing in them is in use


class State(NamedTuple):
    """Pools and their free blocks; a unit is 16 bytes."""

    p: Params
    map: int
    class_of: np.ndarray  # int8[1025], class of a request by its size in units
    klass: np.ndarray  # int64[CLASSES, COLUMNS]
    link: np.ndarray  # int32[units, 2], neighbours on its list, at the place of each free block
    mark: np.ndarray  # int8[units], there: 0 not globally free, else class + 1
    held: np.ndarray  # int64[3]
    stack: np.ndarray  # int64[64], blocks to be freed within a step


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Make empty classes. `cpus`, `items` and `bases` are not used.

    Raises ValueError beyond 32 GiB of KVA, or for a max_request that no pool can serve.
    """
    if kva_bytes > MAX_KVA:
        raise ValueError(f"kva_bytes = {kva_bytes}: blocks are named by 31 bits in units of 16 bytes (32 GiB)")
    if not SMALL_REQUEST <= params.max_request <= LARGE_REQUEST:
        raise ValueError(f"max_request is {params.max_request}: must be {SMALL_REQUEST} to {LARGE_REQUEST}")
    klass = np.zeros((CLASSES, COLUMNS), np.int64)
    klass[:, [LOCAL, GLOBAL]] = NONE
    sizes = np.maximum(np.arange((LARGE_REQUEST >> UNIT_SHIFT) + 1), 1) << UNIT_SHIFT
    orders = np.ceil(np.log2(sizes)).astype(np.int8)
    units = -(-kva_bytes >> UNIT_SHIFT)
    return State(
        p=params,
        map=map_number,
        class_of=np.where(sizes <= SMALL_REQUEST, orders - UNIT_SHIFT, orders).astype(np.int8),
        klass=klass,
        link=np.empty((units, 2), np.int32),  # written before it is read
        mark=np.zeros(units, np.int8),
        held=np.zeros(3, np.int64),
        stack=np.zeros(64, np.int64),
    )


def class_bytes(c: int) -> int:
    """Size of the blocks of a class."""
    return 1 << (c + UNIT_SHIFT if c <= SMALL_TOP else c)


@kernel
def _order(c):
    """Return the log2 of the bytes of a class's blocks."""
    return c + UNIT_SHIFT if c <= SMALL_TOP else c


@kernel
def _top(c):
    """Return the class of the whole pools that a class lies in."""
    return SMALL_TOP if c <= SMALL_TOP else LARGE_TOP


@kernel
def alloc(st, reg, i):
    """Take a free block of the request's class, or split a larger one, or a new pool."""
    size = reg[i, R_SIZE]
    if reg[i, R_PHASE] == MAPPED and reg[i, R_BASE] < 0:
        if reg[i, R_BASE] == NO_ENTRY:
            reg[i, R_PANIC] = P_ENTRIES
        return FAILED
    if size > st.p.max_request:
        return _alloc_pages(st, reg, i)
    c = np.int64(st.class_of[(size + (1 << UNIT_SHIFT) - 1) >> UNIT_SHIFT])
    if reg[i, R_PHASE] == MAPPED:
        _push(st, _top(c), GLOBAL, reg[i, R_BASE] >> UNIT_SHIFT)
        st.held[LARGE_POOLS if c > SMALL_TOP else SMALL_POOLS] += 1
    k = c
    while st.klass[k, LOCAL] == NONE and st.klass[k, GLOBAL] == NONE:
        if k == _top(c):
            nbytes = 1 << _order(k)
            return ask_wired(reg, i, MAPPED, st.map, nbytes, nbytes)
        k += 1
    reg[i, R_WORK] = k - c
    unit = _pop(st, k)
    while k > c:
        k -= 1
        _push(st, k, LOCAL, unit + (1 << (_order(k) - UNIT_SHIFT)))
    reg[i, R_ADDR] = unit << UNIT_SHIFT
    reg[i, R_GRANTED] = 1 << _order(c)
    return DONE


@kernel
def free(st, reg, i):
    """Free the block by the rules of its class's slack; kmem_free() is told the size. Give whole pools back."""
    if reg[i, R_PHASE] == DIRECT:
        return DONE
    size = reg[i, R_SIZE]
    if size > st.p.max_request:
        st.held[LARGE_PAGES] -= (size + PAGE - 1) >> PAGE_SHIFT
        return ask_unmap(reg, i, DIRECT, st.map, reg[i, R_ADDR], (size + PAGE - 1) & -PAGE)
    c = np.int64(st.class_of[(size + (1 << UNIT_SHIFT) - 1) >> UNIT_SHIFT])
    if reg[i, R_PHASE] == BEGIN:
        _release(st, reg, i, c, reg[i, R_ADDR] >> UNIT_SHIFT)
    top = _top(c)
    if st.klass[top, GLOBALS] > st.p.keep_pools:
        st.held[LARGE_POOLS if c > SMALL_TOP else SMALL_POOLS] -= 1
        return ask_unmap(reg, i, GIVEN, st.map, _pop(st, top) << UNIT_SHIFT, 1 << _order(top))
    return DONE


@kernel
def _alloc_pages(st, reg, i):
    """Serve a request beyond the pools by pages of its own."""
    if reg[i, R_PHASE] == BEGIN:
        return ask_wired(reg, i, MAPPED, st.map, (reg[i, R_SIZE] + PAGE - 1) & -PAGE, PAGE)
    st.held[LARGE_PAGES] += reg[i, R_BYTES] >> PAGE_SHIFT
    reg[i, R_ADDR] = reg[i, R_BASE]
    reg[i, R_GRANTED] = reg[i, R_BYTES]
    return DONE


@outlined
def _release(st, reg, i, c, unit):
    """Free a block of class `c`, then what merges with it, class by class."""
    stack = st.stack
    stack[0] = c << 40 | unit << 1 | PUT_OFF
    left = 1
    while left > 0:
        left -= 1
        c, unit, rules = stack[left] >> 40, (stack[left] >> 1) & ((1 << 39) - 1), stack[left] & PUT_OFF
        slack = st.klass[c, SLACK]
        whole = c == _top(c)
        if rules and not whole:
            if slack >= 2:
                _push(st, c, LOCAL, unit)
                st.klass[c, SLACK] -= 2
                continue
            st.klass[c, SLACK] = 0
            if slack == 0:  # L = A, which counts the block itself: there is a locally free one
                stack[left] = c << 40 | _unlink(st, c, LOCAL, st.klass[c, LOCAL]) << 1
                left += 1
        buddy = unit ^ (1 << (_order(c) - UNIT_SHIFT))
        if not whole and st.mark[buddy] == c + 1:
            _unlink(st, c, GLOBAL, buddy)
            stack[left] = (c + 1) << 40 | min(unit, buddy) << 1 | PUT_OFF
            left += 1
            reg[i, R_WORK] += 1
        else:
            _push(st, c, GLOBAL, unit)


@kernel
def _pop(st, c):
    """Take a free block of a class that has one: locally free ones go first."""
    sort = LOCAL if st.klass[c, LOCAL] != NONE else GLOBAL
    if c != _top(c):
        st.klass[c, SLACK] += 2 if sort == LOCAL else 1
    return _unlink(st, c, sort, st.klass[c, sort])


@kernel
def _push(st, c, sort, unit):
    """Put a block at the head of a list."""
    old = st.klass[c, sort]
    st.link[unit, NEXT], st.link[unit, PREV] = old, NONE
    if old != NONE:
        st.link[old, PREV] = unit
    st.klass[c, sort] = unit
    if sort == GLOBAL:
        st.mark[unit] = c + 1
    st.klass[c, LOCALS + sort] += 1


@kernel
def _unlink(st, c, sort, unit):
    """Take a block off a list; returns it."""
    after, before = np.int64(st.link[unit, NEXT]), np.int64(st.link[unit, PREV])
    if before == NONE:
        st.klass[c, sort] = after
    else:
        st.link[before, NEXT] = after
    if after != NONE:
        st.link[after, PREV] = before
    st.mark[unit] = 0
    st.klass[c, LOCALS + sort] -= 1
    return unit


def census(st: State) -> dict[str, int]:
    """Pages held, pools of each sort, pages beyond them; bytes locally and globally free, blocks of each by size."""
    small, large, pages = (int(n) for n in st.held)
    sizes = np.array([class_bytes(c) for c in range(CLASSES)])
    counts = {
        "pages": ((small << SMALL_ORDER) + (large << LARGE_ORDER)) // PAGE + pages,
        "small_pools": small,
        "large_pools": large,
        "large_pages": pages,
        "local_bytes": (st.klass[:, LOCALS] * sizes).sum(),
        "global_bytes": (st.klass[:, GLOBALS] * sizes).sum(),
    }
    for c, row in enumerate(st.klass):
        sort = "small" if c <= SMALL_TOP else "large"
        counts[f"{sort}_local_{class_bytes(c)}"], counts[f"{sort}_global_{class_bytes(c)}"] = row[[LOCALS, GLOBALS]]
    return {name: int(count) for name, count in counts.items()}
