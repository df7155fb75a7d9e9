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
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, Registers, Table, Words, int64
from kmemexp.sim.asking import ask_unmap, ask_wired
from kmemexp.sim.caches import Cache, Live
from kmemexp.sim.items import Item
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, FAILED, NO_ENTRY, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import obj, panics, regs

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)  # whatever has a size
LOCKS = ("adaptive",)  # one for all; Bonwick measured all four allocators under mutexes of SunOS 5

UNIT_SHIFT = 4  # the smallest block
SMALL_REQUEST = 256  # largest of the small pools
SMALL_ORDER, LARGE_ORDER = 12, 14  # log2 of a pool
LARGE_REQUEST = 1 << LARGE_ORDER  # most that a pool can serve

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
    class_of: Words  # int8[1025], class of a request by its size in units
    klass: Table  # int64[CLASSES, COLUMNS]
    link: Table  # int32[units, 2], neighbours on its list, at the place of each free block
    mark: Words  # int8[units], there: 0 not globally free, else class + 1
    held: Words  # int64[3]
    stack: Words  # int64[64], blocks to be freed within a step


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Make empty classes. `cpus`, `items` and `bases` are not used.

    Raises ValueError beyond 8 TiB of KVA, or for a max_request that no pool can serve.
    """
    demand.check_kva(kva_bytes)
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
        link=demand.empty((units, 2), demand.names(units)),  # written before it is read
        mark=demand.zeros(units, np.int8),
        held=np.zeros(3, np.int64),
        stack=np.zeros(64, np.int64),
    )


def class_bytes(klass: int) -> int:
    """Size of the blocks of a class."""
    return 1 << (klass + UNIT_SHIFT if klass <= SMALL_TOP else klass)


@kernel
def _order(klass: int) -> int:
    """Return the log2 of the bytes of a class's blocks."""
    return klass + UNIT_SHIFT if klass <= SMALL_TOP else klass


@kernel
def _top(klass: int) -> int:
    """Return the class of the whole pools that a class lies in."""
    return SMALL_TOP if klass <= SMALL_TOP else LARGE_TOP


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Take a free block of the request's class, or split a larger one, or a new pool."""
    size = reg[i, regs.SIZE]
    if reg[i, regs.PHASE] == MAPPED and reg[i, regs.BASE] < 0:
        if reg[i, regs.BASE] == NO_ENTRY:
            reg[i, regs.PANIC] = panics.ENTRIES
        return FAILED
    if size > st.p.max_request:
        return _alloc_pages(st, reg, i)
    klass = _class_for(st, size)
    if reg[i, regs.PHASE] == MAPPED:
        _push(st, _top(klass), GLOBAL, reg[i, regs.BASE] >> UNIT_SHIFT)
        st.held[LARGE_POOLS if klass > SMALL_TOP else SMALL_POOLS] += 1
    k = klass
    while st.klass[k, LOCAL] == NONE and st.klass[k, GLOBAL] == NONE:
        if k == _top(klass):
            nbytes = 1 << _order(k)
            return ask_wired(reg, i, MAPPED, st.map, nbytes, nbytes)
        k += 1
    reg[i, regs.WORK] = k - klass
    unit = _pop(st, k)
    while k > klass:
        k -= 1
        _push(st, k, LOCAL, unit + (1 << (_order(k) - UNIT_SHIFT)))
    reg[i, regs.ADDR] = unit << UNIT_SHIFT
    reg[i, regs.GRANTED] = 1 << _order(klass)
    return DONE


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Free the block by the rules of its class's slack; kmem_free() is told the size. Give whole pools back."""
    if reg[i, regs.PHASE] == DIRECT:
        return DONE
    size = reg[i, regs.SIZE]
    if size > st.p.max_request:
        st.held[LARGE_PAGES] -= (size + PAGE - 1) >> PAGE_SHIFT
        return ask_unmap(reg, i, DIRECT, st.map, reg[i, regs.ADDR], (size + PAGE - 1) & -PAGE)
    klass = _class_for(st, size)
    if reg[i, regs.PHASE] == BEGIN:
        unit = reg[i, regs.ADDR] >> UNIT_SHIFT
        if _is_lazy(st, klass):
            _put_off(st, klass, unit)
        else:
            _release(st, reg, i, klass, unit)
    top = _top(klass)
    if st.klass[top, GLOBALS] > st.p.keep_pools:
        st.held[LARGE_POOLS if klass > SMALL_TOP else SMALL_POOLS] -= 1
        return ask_unmap(reg, i, GIVEN, st.map, _pop(st, top) << UNIT_SHIFT, 1 << _order(top))
    return DONE


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Take a free block of the request's class."""
    if size > st.p.max_request:
        return obj.ABSENT, 0
    klass = _class_for(st, size)
    if st.klass[klass, LOCAL] == NONE and st.klass[klass, GLOBAL] == NONE:
        return obj.ABSENT, 0
    return _pop(st, klass) << UNIT_SHIFT, 1 << _order(klass)


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Make a block locally free, where the slack allows that, and no pool waits to go back."""
    if size > st.p.max_request:
        return False
    klass = _class_for(st, size)
    if not _is_lazy(st, klass) or st.klass[_top(klass), GLOBALS] > st.p.keep_pools:
        return False
    _put_off(st, klass, addr >> UNIT_SHIFT)
    return True


@kernel
def _class_for(st: State, size: Bytes) -> int:
    """Class of the blocks for a request, max_request at most."""
    return int64(st.class_of[(size + (1 << UNIT_SHIFT) - 1) >> UNIT_SHIFT])


@kernel
def _is_lazy(st: State, klass: int) -> bool:
    """Whether the slack of a class puts merging off; whole pools are not kept for it."""
    return klass != _top(klass) and st.klass[klass, SLACK] >= 2


@kernel
def _put_off(st: State, klass: int, unit: int) -> None:
    """Make a block locally free."""
    _push(st, klass, LOCAL, unit)
    st.klass[klass, SLACK] -= 2


@kernel
def _alloc_pages(st: State, reg: Registers, i: int) -> int:
    """Serve a request beyond the pools by pages of its own."""
    if reg[i, regs.PHASE] == BEGIN:
        return ask_wired(reg, i, MAPPED, st.map, (reg[i, regs.SIZE] + PAGE - 1) & -PAGE, PAGE)
    st.held[LARGE_PAGES] += reg[i, regs.BYTES] >> PAGE_SHIFT
    reg[i, regs.ADDR] = reg[i, regs.BASE]
    reg[i, regs.GRANTED] = reg[i, regs.BYTES]
    return DONE


@outlined
def _release(st: State, reg: Registers, i: int, klass: int, unit: int) -> None:
    """Free a block of class `klass`, then what merges with it, class by class."""
    stack = st.stack
    stack[0] = klass << 40 | unit << 1 | PUT_OFF
    left = 1
    while left > 0:
        left -= 1
        klass, unit, rules = stack[left] >> 40, (stack[left] >> 1) & ((1 << 39) - 1), stack[left] & PUT_OFF
        slack = st.klass[klass, SLACK]
        whole = klass == _top(klass)
        if rules and not whole:
            if slack >= 2:
                _put_off(st, klass, unit)
                continue
            st.klass[klass, SLACK] = 0
            if slack == 0:  # L = A, which counts the block itself: there is a locally free one
                stack[left] = klass << 40 | _unlink(st, klass, LOCAL, st.klass[klass, LOCAL]) << 1
                left += 1
        buddy = unit ^ (1 << (_order(klass) - UNIT_SHIFT))
        if not whole and st.mark[buddy] == klass + 1:
            _unlink(st, klass, GLOBAL, buddy)
            stack[left] = (klass + 1) << 40 | min(unit, buddy) << 1 | PUT_OFF
            left += 1
            reg[i, regs.WORK] += 1
        else:
            _push(st, klass, GLOBAL, unit)


@kernel
def _pop(st: State, klass: int) -> int:
    """Take a free block of a class that has one: locally free ones go first."""
    sort = LOCAL if st.klass[klass, LOCAL] != NONE else GLOBAL
    if klass != _top(klass):
        st.klass[klass, SLACK] += 2 if sort == LOCAL else 1
    return _unlink(st, klass, sort, st.klass[klass, sort])


@kernel
def _push(st: State, klass: int, sort: int, unit: int) -> None:
    """Put a block at the head of a list."""
    old = st.klass[klass, sort]
    st.link[unit, NEXT], st.link[unit, PREV] = old, NONE
    if old != NONE:
        st.link[old, PREV] = unit
    st.klass[klass, sort] = unit
    if sort == GLOBAL:
        st.mark[unit] = klass + 1
    st.klass[klass, LOCALS + sort] += 1


@kernel
def _unlink(st: State, klass: int, sort: int, unit: int) -> int:
    """Take a block off a list; returns it."""
    after, before = int64(st.link[unit, NEXT]), int64(st.link[unit, PREV])
    if before == NONE:
        st.klass[klass, sort] = after
    else:
        st.link[before, NEXT] = after
    if after != NONE:
        st.link[after, PREV] = before
    st.mark[unit] = 0
    st.klass[klass, LOCALS + sort] -= 1
    return unit


def caches(st: State, live: Live) -> list[Cache]:
    """All blocks are one row, since buddies are of any size: a slab is a pool, and what is beyond pools counts too."""
    small, large, pages = st.held.tolist()
    pools = ((small << SMALL_ORDER) + (large << LARGE_ORDER)) // PAGE
    return [Cache("blocks", slabs=small + large, pages=pools + pages)]


def census(st: State) -> dict[str, int]:
    """Pages held, pools of each sort, pages beyond them; bytes locally and globally free, blocks of each by size."""
    small, large, pages = (int(n) for n in st.held)
    sizes = np.array([class_bytes(klass) for klass in range(CLASSES)])
    counts = {
        "pages": ((small << SMALL_ORDER) + (large << LARGE_ORDER)) // PAGE + pages,
        "small_pools": small,
        "large_pools": large,
        "large_pages": pages,
        "local_bytes": (st.klass[:, LOCALS] * sizes).sum(),
        "global_bytes": (st.klass[:, GLOBALS] * sizes).sum(),
    }
    for klass, row in enumerate(st.klass):
        sort = "small" if klass <= SMALL_TOP else "large"
        counts[f"{sort}_local_{class_bytes(klass)}"], counts[f"{sort}_global_{class_bytes(klass)}"] = row[
            [LOCALS, GLOBALS]
        ]
    return {name: int(count) for name, count in counts.items()}
