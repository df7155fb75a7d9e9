"""malloc(9) with power-of-two buckets: FreeBSD 4 `sys/kern/kern_malloc.c` (RELENG_4, June 2003).

The design is McKusick and Karels' for 4.3BSD (USENIX, San Francisco 1988). A request up to 8 KiB is rounded up to a
power of two; a bucket that is empty takes one page (the 8 KiB bucket two) from the map, cuts it up, and keeps it for
ever: pages never go back nor to another bucket, and the high-water mark is only counted. Larger requests are page
multiples straight from the map, given back when they are freed. A free finds its bucket in `kmemusage`, 4 bytes for
each page.

Left out: the limit on a malloc type (`_shared.malloc_types`) where a kind stands for many; other statistics by type;
realloc(9); and the wait for physical pages inside kmem_malloc().
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim import demand
from kmemexp.sim.aliases import Address, Bytes, Registers, Table, Words, int64
from kmemexp.sim.allocators._shared import malloc_types
from kmemexp.sim.allocators._shared.malloc_types import at_limit, gave, took, took_fast, wait
from kmemexp.sim.asking import ask_kept, ask_unmap, ask_wired, hand_out, in_kmem_object, refused
from kmemexp.sim.caches import Cache, Live, large, rows
from kmemexp.sim.items import Item
from kmemexp.sim.map_calls import KMEM_FREE, KMEM_MALLOC
from kmemexp.sim.slots import CLASS_MALLOC, CLASS_MBUF, CLASS_ZONE, DONE, PAGE, PAGE_SHIFT
from kmemexp.sim.tables import obj, panics, regs

SERVES = (CLASS_MALLOC, CLASS_ZONE, CLASS_MBUF)  # whatever has a size
LIMITS_TYPES = 1  # of malloc
LOCKS = ("splhigh",)  # splmem(), which is splhigh()
CALLS = (f"keep {KMEM_MALLOC}", f"keep {KMEM_FREE}")  # splmem() is kept through them

MINBUCKET = 4  # the smallest chunk is 16 bytes
BUCKETS = MINBUCKET + 16
MAXALLOCSAVE = 2 * PAGE  # largest request that is served from a bucket
HIGHWAT = 5  # kb_highwat in units of kb_elmpercl

# Columns of State.bucket (struct kmembuckets).
HEAD = 0  # first free chunk (kb_next), in units of 16 bytes; END: none
TAIL = 1  # last free chunk (kb_last)
FREE = 2  # chunks on the list (kb_totalfree)
TOTAL = 3  # chunks cut (kb_total); from 16 KiB on: live allocations
ELMPERCL = 4  # chunks to a page (kb_elmpercl)
COULDFREE = 5  # frees that left a whole page free above the high-water mark (kb_couldfree)
ALLOCATIONS = 6  # kb_calls
PAGES = 7  # pages held

END = -1
COUNT_BITS = 24  # an element of State.usage: bucket << COUNT_BITS | free chunks of the page, or pages of a large chunk
COUNT_MASK = (1 << COUNT_BITS) - 1

BEGIN = 0  # phases of an operation
MAPPED = 1


class Params(NamedTuple):
    """What a sweep may change."""

    malloc_types: int = 0  # types that the roles of the load's kinds name; 0: of the load
    malloc_type_bytes: int = 0  # limit of each; 0: the kernel's own
    fifo: int = 0  # 1: a freed chunk goes to the end of its list (OLD_MALLOC_MEMORY_POLICY, as 4.4BSD did)


class State(NamedTuple):
    """The allocator's memory; `pages` is kva_bytes / 4096."""

    p: Params
    map: int  # number of the map it lives in
    bucket: Table  # int64[BUCKETS, 8], columns HEAD …
    index_of: Words  # int64[513], bucket of a request up to MAXALLOCSAVE by its size in units of 16 bytes
    types: Table  # int64[types + 1, 2], malloc types and their limits
    usage: Words  # int32[pages], kmemusage
    link: Words  # int32[kva_bytes / 16], next free chunk, at the place of each free chunk


def init(
    params: Params, *, kva_bytes: int, cpus: int, map_number: int, items: Sequence[Item], bases: Sequence[int]
) -> State:
    """Empty buckets. `cpus`, `items` and `bases` are not used. Raises ValueError beyond 8 TiB of KVA."""
    demand.check_kva(kva_bytes)
    bucket = np.zeros((BUCKETS, 8), np.int64)
    bucket[:, HEAD] = bucket[:, TAIL] = END
    bucket[:, ELMPERCL] = np.maximum(PAGE >> np.arange(BUCKETS), 1)
    sixteens = np.arange((MAXALLOCSAVE >> MINBUCKET) + 1)
    index_of = MINBUCKET + np.ceil(np.log2(np.maximum(sixteens, 1))).astype(np.int64)
    usage = demand.zeros(kva_bytes >> PAGE_SHIFT, np.int32)
    chunks = kva_bytes >> MINBUCKET
    link = demand.empty(chunks, demand.names(chunks))  # a link is written before it is read
    types = malloc_types.table(params.malloc_types, params.malloc_type_bytes)
    return State(params, map_number, bucket, index_of, types, usage, link)


@kernel
def alloc(st: State, reg: Registers, i: int) -> int:
    """Pop the head of the bucket's list, after a page or two from the map when it is empty: malloc()."""
    if reg[i, regs.PHASE] == BEGIN and at_limit(st, reg[i, regs.ITEM]):
        return wait(reg, i, BEGIN)
    return took(st, reg, i, _alloc(st, reg, i))


@kernel
def _alloc(st: State, reg: Registers, i: int) -> int:
    size = reg[i, regs.SIZE]
    if size > MAXALLOCSAVE:
        return _alloc_large(st, reg, i)
    b = st.index_of[(size + 15) >> MINBUCKET]
    if reg[i, regs.PHASE] == MAPPED:
        if reg[i, regs.BASE] < 0:
            return refused(reg, i, panics.KMEM_MAP)
        _carve(st, b, reg[i, regs.BASE])
        reg[i, regs.WORK] = st.bucket[b, ELMPERCL] - 1
    elif st.bucket[b, HEAD] == END:
        return in_kmem_object(reg, i, ask_kept(reg, i, MAPPED, st.map, max(1 << b, PAGE), PAGE))
    return hand_out(reg, i, _pop(st, b), 1 << b)


@kernel
def free(st: State, reg: Registers, i: int) -> int:
    """Push the chunk on its bucket's list, or give a large one back to the map."""
    return gave(st, reg, i, _free(st, reg, i), _rounded(st, reg[i, regs.SIZE]))


@kernel
def _rounded(st: State, size: Bytes) -> Bytes:
    """Bytes granted for a request."""
    if size > MAXALLOCSAVE:
        return (size + PAGE - 1) & -PAGE
    return 1 << int64(st.index_of[(size + 15) >> MINBUCKET])


@kernel
def _free(st: State, reg: Registers, i: int) -> int:
    if reg[i, regs.PHASE] == MAPPED:
        return DONE
    addr = reg[i, regs.ADDR]
    use = int(st.usage[addr >> PAGE_SHIFT])
    b = use >> COUNT_BITS
    if 1 << b > MAXALLOCSAVE:
        return _free_large(st, reg, i, b, use & COUNT_MASK)
    if st.p.fifo and st.bucket[b, HEAD] != END:
        _append(st, b, addr)
    else:
        _push(st, b, addr)
    return DONE


@kernel
def fast_alloc(st: State, item: int, size: Bytes, cpu: int, flags: int) -> tuple[Address, Bytes]:
    """Pop the head of the bucket's list."""
    if size > MAXALLOCSAVE or at_limit(st, item):
        return obj.ABSENT, 0
    b = int64(st.index_of[(size + 15) >> MINBUCKET])
    if st.bucket[b, HEAD] == END:
        return obj.ABSENT, 0
    took_fast(st, item, 1 << b)
    return _pop(st, b), 1 << b


@kernel
def fast_free(st: State, item: int, addr: Address, size: Bytes, cpu: int, flags: int) -> bool:
    """Push a small chunk on its bucket's list."""
    b = st.usage[addr >> PAGE_SHIFT] >> COUNT_BITS
    if 1 << b > MAXALLOCSAVE or st.p.fifo or at_limit(st, item):
        return False
    took_fast(st, item, -(1 << b))
    _push(st, b, addr)
    return True


@kernel
def _pop(st: State, b: int) -> Address:
    """Take the first chunk of a bucket's list, which is not empty."""
    chunk = st.bucket[b, HEAD]
    st.bucket[b, HEAD] = st.link[chunk]
    st.bucket[b, FREE] -= 1
    st.bucket[b, ALLOCATIONS] += 1
    addr = chunk << MINBUCKET
    st.usage[addr >> PAGE_SHIFT] -= 1
    return addr


@kernel
def _push(st: State, b: int, addr: Address) -> None:
    """Put a chunk in front of its bucket's list."""
    _count_free(st, b, addr)
    chunk = addr >> MINBUCKET
    head = st.bucket[b, HEAD]
    if head == END:
        st.bucket[b, TAIL] = chunk
    st.link[chunk] = head
    st.bucket[b, HEAD] = chunk


@kernel
def _append(st: State, b: int, addr: Address) -> None:
    """Put a chunk at the end of its bucket's list, which is not empty."""
    _count_free(st, b, addr)
    chunk = addr >> MINBUCKET
    st.link[st.bucket[b, TAIL]] = chunk
    st.link[chunk] = END
    st.bucket[b, TAIL] = chunk


@kernel
def _count_free(st: State, b: int, addr: Address) -> None:
    use = int64(st.usage[addr >> PAGE_SHIFT]) + 1
    st.usage[addr >> PAGE_SHIFT] = use
    if use & COUNT_MASK >= st.bucket[b, ELMPERCL] and st.bucket[b, FREE] > HIGHWAT * st.bucket[b, ELMPERCL]:
        st.bucket[b, COULDFREE] += 1
    st.bucket[b, FREE] += 1


@kernel
def _alloc_large(st: State, reg: Registers, i: int) -> int:
    if reg[i, regs.PHASE] == BEGIN:
        return in_kmem_object(reg, i, ask_wired(reg, i, MAPPED, st.map, (reg[i, regs.SIZE] + PAGE - 1) & -PAGE, PAGE))
    if reg[i, regs.BASE] < 0:
        return refused(reg, i, panics.KMEM_MAP)
    b = MINBUCKET
    while b < BUCKETS - 1 and reg[i, regs.SIZE] > 1 << b:
        b += 1
    pages = reg[i, regs.BYTES] >> PAGE_SHIFT
    st.usage[reg[i, regs.BASE] >> PAGE_SHIFT] = b << COUNT_BITS | pages
    st.bucket[b, TOTAL] += 1
    st.bucket[b, ALLOCATIONS] += 1
    st.bucket[b, PAGES] += pages
    return hand_out(reg, i, reg[i, regs.BASE], reg[i, regs.BYTES])


@kernel
def _free_large(st: State, reg: Registers, i: int, b: int, pages: int) -> int:
    st.usage[reg[i, regs.ADDR] >> PAGE_SHIFT] = 0
    st.bucket[b, TOTAL] -= 1
    st.bucket[b, PAGES] -= pages
    return ask_unmap(reg, i, MAPPED, st.map, reg[i, regs.ADDR], pages << PAGE_SHIFT)


@kernel
def _carve(st: State, b: int, base: Address) -> None:
    """Cut up new pages; the highest piece comes first, what others freed meanwhile comes after the lowest."""
    pieces = st.bucket[b, ELMPERCL]
    piece = base >> MINBUCKET
    if st.bucket[b, HEAD] == END:
        st.bucket[b, TAIL] = piece
    for _ in range(pieces):
        st.link[piece] = st.bucket[b, HEAD]
        st.bucket[b, HEAD] = piece
        piece += 1 << (b - MINBUCKET)
    st.bucket[b, FREE] += pieces
    st.bucket[b, TOTAL] += pieces
    st.bucket[b, PAGES] += max(1 << b, PAGE) >> PAGE_SHIFT
    st.usage[base >> PAGE_SHIFT] = b << COUNT_BITS | pieces


def caches(st: State, live: Live) -> list[Cache]:
    """What each bucket holds; a slab is what it asks of the map at once."""
    small = st.bucket[MINBUCKET : MAXALLOCSAVE.bit_length(), PAGES]
    sizes = [1 << b for b in range(MINBUCKET, MAXALLOCSAVE.bit_length())]
    slabs = [pages * PAGE // max(size, PAGE) for pages, size in zip(small.tolist(), sizes, strict=True)]
    found = rows([f"bucket-{size}" for size in sizes], [()] * len(sizes), sizes, slabs, small)
    return [*found, large(st.bucket[MAXALLOCSAVE.bit_length() :, PAGES].sum())]


def census(st: State) -> dict[str, int]:
    """Pages held, in buckets and as large chunks, chunks cut and free by size, free bytes, calls, `couldfree`."""
    small = st.bucket[: MAXALLOCSAVE.bit_length()]
    sizes = 1 << np.arange(len(small))
    large = st.bucket[len(small) :]
    counts = {
        "pages": st.bucket[:, PAGES].sum(),
        "bucket_pages": small[:, PAGES].sum(),
        "large_pages": large[:, PAGES].sum(),
        "large_chunks": large[:, TOTAL].sum(),
        "free_bytes": (small[:, FREE] * sizes).sum(),
        "couldfree": st.bucket[:, COULDFREE].sum(),
        "calls": st.bucket[:, ALLOCATIONS].sum(),
    }
    for b in range(MINBUCKET, len(small)):
        counts[f"total_{1 << b}"] = small[b, TOTAL]
        counts[f"free_{1 << b}"] = small[b, FREE]
    return {name: int(count) for name, count in counts.items()}
