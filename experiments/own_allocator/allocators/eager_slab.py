"""A slab allocator that keeps nothing back: an example of an allocator of one's own, which no kernel has.

A slab is a page of chunks of one size. Sizes go up by quarters of a power of two from 64 bytes on. The slab used last
is used first; inside it, the chunk freed last. A page whose last chunk is freed goes back to the map at once, so the
question that it answers is what the hysteresis of real slab allocators buys. Requests above half a page go to the map.

Left out: caches per CPU, colouring, constructors.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim.asking import ask_unmap, ask_wired
from kmemexp.sim.items import Item
from kmemexp.sim.slots import CLASS_MALLOC, DONE, FAILED, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import regs

SERVES = (CLASS_MALLOC,)
LOCKS = ("adaptive",)  # one mutex for everything

UNIT = 16
UNIT_SHIFT = 4
LARGEST = PAGE // 2  # bytes of the largest class
NIL = -1

# Columns of State.slab, one row per page of the map.
KLASS = 0  # NIL: no slab
LIVE = 1  # chunks handed out
HEAD = 2  # first free chunk
NEXT = 3  # on the list of its class, which full slabs leave
PREV = 4

# regs.PHASE.
NEW_SLAB = 1
LARGE = 2
GIVEN_BACK = 3


class Params(NamedTuple):
    """What a sweep may change."""

    steps: int = 4  # classes per doubling, a power of two


class State(NamedTuple):
    """Slabs are numbered by page, chunks within their slab."""

    map: int
    size: np.ndarray  # int64[classes], bytes of a chunk
    class_of: np.ndarray  # int64[LARGEST / 16 + 1], by request in units of 16 bytes
    first: np.ndarray  # int64[classes], first slab with a free chunk
    slab: np.ndarray  # int32[pages, 5]
    link: np.ndarray  # int16[pages, 256], the free chunk after a free chunk
    large: np.ndarray  # int64[1], pages of large chunks


def sizes(steps: int) -> list[int]:
    """Classes up to half a page: multiples of 16 bytes, `steps` per doubling as soon as that is possible."""
    found, size = [], UNIT
    while size <= LARGEST:
        found.append(size)
        size += max(UNIT, (1 << (size.bit_length() - 1)) // steps)
    return found


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Return an allocator without slabs. ValueError: `steps` is no power of two."""
    if params.steps < 1 or params.steps & (params.steps - 1):
        raise ValueError(f"steps is {params.steps}; it must be a power of two")
    size = np.array(sizes(params.steps), np.int64)
    pages = kva_bytes // PAGE
    slab = np.zeros((pages, 5), np.int32)
    slab[:, KLASS] = NIL
    return State(
        map_number,
        size=size,
        class_of=np.searchsorted(size, np.arange(LARGEST // UNIT + 1) * UNIT),
        first=np.full(len(size), NIL, np.int64),
        slab=slab,
        link=np.zeros((pages, PAGE // UNIT), np.int16),
        large=np.zeros(1, np.int64),
    )


@kernel
def alloc(st, reg, i):
    """Take a chunk of the first slab of the class, or make a slab."""
    size = reg[i, regs.SIZE]
    if size > LARGEST:
        return _large(st, reg, i, size)
    klass = st.class_of[(size + UNIT - 1) >> UNIT_SHIFT]
    if reg[i, regs.PHASE] == NEW_SLAB:
        if reg[i, regs.BASE] < 0:
            return FAILED
        _make(st, reg, i, klass)
    page = st.first[klass]
    if page == NIL:
        return ask_wired(reg, i, NEW_SLAB, st.map, PAGE, PAGE)
    reg[i, regs.ADDR] = _take(st, klass, page)
    reg[i, regs.GRANTED] = st.size[klass]
    return DONE


@kernel
def free(st, reg, i):
    """Put a chunk back; an empty slab goes back to the map."""
    if reg[i, regs.PHASE] == GIVEN_BACK:
        return DONE
    addr = reg[i, regs.ADDR]
    page = addr >> PAGE_SHIFT
    if st.slab[page, KLASS] == NIL:
        nbytes = (reg[i, regs.SIZE] + PAGE - 1) & -PAGE
        st.large[0] -= nbytes >> PAGE_SHIFT
        return ask_unmap(reg, i, GIVEN_BACK, st.map, addr, nbytes)
    klass = _put(st, page, addr)
    if st.slab[page, LIVE] > 0:
        return DONE
    _unlink(st, klass, page)
    st.slab[page, KLASS] = NIL
    return ask_unmap(reg, i, GIVEN_BACK, st.map, page << PAGE_SHIFT, PAGE)


# The two kernels below may be left out. The driver without a clock asks them first, and it is faster where they serve
# most operations: what `alloc` and `free` would do in one step. What they refuse they must leave as it was.


@kernel
def fast_alloc(st, item, size, cpu, flags):
    """Take a chunk of the first slab of the class: (address, bytes). (-1, 0): there is none."""
    if size > LARGEST:
        return -1, 0
    klass = st.class_of[(size + UNIT - 1) >> UNIT_SHIFT]
    page = st.first[klass]
    return (-1, 0) if page == NIL else (_take(st, klass, page), st.size[klass])


@kernel
def fast_free(st, item, addr, size, cpu, flags):
    """Put a chunk back into a slab that is not empty then. False: it is, or there is no slab."""
    page = addr >> PAGE_SHIFT
    if st.slab[page, KLASS] == NIL or st.slab[page, LIVE] == 1:
        return False
    _put(st, page, addr)
    return True


@kernel
def _take(st, klass, page):
    """Address of the first free chunk of a slab, which leaves its list when it is full."""
    chunk = np.int64(st.slab[page, HEAD])
    st.slab[page, HEAD] = st.link[page, chunk]
    st.slab[page, LIVE] += 1
    if st.slab[page, HEAD] == NIL:
        _unlink(st, klass, page)
    return (page << PAGE_SHIFT) + chunk * st.size[klass]


@kernel
def _put(st, page, addr):
    """Put a chunk back into its slab. Returns the slab's class."""
    klass = np.int64(st.slab[page, KLASS])
    chunk = (addr & (PAGE - 1)) // st.size[klass]
    if st.slab[page, HEAD] == NIL:
        _push(st, klass, page)
    st.link[page, chunk] = st.slab[page, HEAD]
    st.slab[page, HEAD] = chunk
    st.slab[page, LIVE] -= 1
    return klass


@kernel
def _large(st, reg, i, size):
    nbytes = (size + PAGE - 1) & -PAGE
    if reg[i, regs.PHASE] != LARGE:
        return ask_wired(reg, i, LARGE, st.map, nbytes, PAGE)
    if reg[i, regs.BASE] < 0:
        return FAILED
    st.large[0] += nbytes >> PAGE_SHIFT
    reg[i, regs.ADDR] = reg[i, regs.BASE]
    reg[i, regs.GRANTED] = nbytes
    return DONE


@kernel
def _make(st, reg, i, klass):
    """Cut a new page up; its chunks will be handed out in the order of their addresses."""
    page = reg[i, regs.BASE] >> PAGE_SHIFT
    chunks = PAGE // st.size[klass]
    for chunk in range(chunks):
        st.link[page, chunk] = chunk + 1
    st.link[page, chunks - 1] = NIL
    st.slab[page, KLASS] = klass
    st.slab[page, LIVE] = 0
    st.slab[page, HEAD] = 0
    reg[i, regs.WORK] = chunks - 1
    _push(st, klass, page)


@kernel
def _push(st, klass, page):
    after = st.first[klass]
    st.slab[page, NEXT] = after
    st.slab[page, PREV] = NIL
    if after != NIL:
        st.slab[after, PREV] = page
    st.first[klass] = page


@kernel
def _unlink(st, klass, page):
    before, after = np.int64(st.slab[page, PREV]), np.int64(st.slab[page, NEXT])
    if before == NIL:
        st.first[klass] = after
    else:
        st.slab[before, NEXT] = after
    if after != NIL:
        st.slab[after, PREV] = before


def census(st: State) -> dict[str, int]:
    """Pages held, slabs, chunks handed out."""
    slabs = st.slab[st.slab[:, KLASS] != NIL]
    return {
        "pages": int(len(slabs) + st.large[0]),
        "slabs": len(slabs),
        "live_chunks": int(slabs[:, LIVE].sum()),
    }
