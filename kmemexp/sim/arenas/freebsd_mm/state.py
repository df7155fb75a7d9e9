"""What a sweep may change of `freebsd_mm`, and the arrays that it works on."""

from typing import NamedTuple

from kmemexp.sim.aliases import Array, Cube, Table, Words
from kmemexp.sim.arenas import vmem

POOLS = 2
POOL_DEFAULT, POOL_DIRECT = range(POOLS)  # VM_FREEPOOL_*
ORDERS = 13  # VM_NFREEORDER: blocks of up to 16 MiB
LEVEL_0 = 9  # VM_LEVEL_0_ORDER: pages of a reservation, and of what NOFREE pages are cut from, as a power of two
UNIT = 1 << LEVEL_0
HEAD, TAIL, COUNT = range(3)  # columns of a list

# Columns of Phys.domain.
FIRST = 0  # first page
END = 1  # page after the last
FREE = 2  # pages on the free lists
CACHED = 3  # pages in CPUs' caches and in full buckets
NOFREE_AT = 4  # next of the pages that are cut for NOFREE slabs
NOFREE_LEFT = 5
NOFREE_BACK = 6  # first of those that came back; 0: none, else page + 1
PART = 7  # first of the partly filled reservations, the one that was touched least recently; superpage + 1
LAST = 8  # the last of them
ENTRIES = 9  # pages of a bucket of the page cache
BUCKETS = 10  # full buckets that it may have
BROKEN = 11  # reservations broken
IDLE = 12  # pages of reservations that nobody uses, and of NOFREE slabs to come
DOMAIN_COLUMNS = 13


class Params(NamedTuple):
    """What a sweep may change: of `vmem`, then of physical memory."""

    strategy: int = vmem.BEST_FIT
    import_bytes: int = 2 << 20
    submap_qcache_max: int = 0
    tag_bytes: int = 56
    join_spans: int = 1
    cpus: int = 0
    domains: int = 0
    ram_bytes: int = 0
    page_cache: int = 1  # 0: no caches of free pages by CPU
    reservations: int = 1  # 0: pages of kernel memory one by one (vm.reserv.enabled is a constant; VM_NRESERVLEVEL 0)


class Phys(NamedTuple):
    """Physical memory. Pages are counted from the beginning of the direct map, superpages from that of the KVA."""

    p: Params
    # Of the two tables by `phys.place` the first rows are those of the largest blocks: a memory that nobody has touched
    # is all such blocks, and takes a few pages of the host.
    order: Array  # int8[blocks + pages], of the page that begins a free block: its order + 1; else 0
    pool: Array  # int8[pages], of such a page and of one in use: the pool that it is of
    link: (
        Table  # int32[blocks + pages, 2], next and previous block of the list + 1; of a NOFREE page back here: the next
    )
    lists: Array  # int64[domains, POOLS, ORDERS, 3]
    domain: Table  # int64[domains, DOMAIN_COLUMNS]
    held: Words  # int32[pages], of the first page of a range in use in the direct map: pages << 3 | attribute
    stack: Array  # int32[cpus, POOLS, 2, entries], buckets of the CPUs' page caches
    filled: Cube  # int64[cpus, POOLS, 2], pages in them
    full: Array  # int32[domains, POOLS, buckets, entries], full buckets
    fulls: Table  # int64[domains, POOLS], how many there are
    # Reservations and frames: of kernel_object by KVA, in the second half of each table those of kstack_object.
    block: Words  # int32[superpages], page that a reservation begins with + 1; 0: there is none
    filling: Words  # int16[superpages], pages of it that are in use
    queue: Table  # int32[superpages, 2], next and previous partly filled reservation + 1
    frame: Words  # int32[pages of the object], page that is there + 1; 0: none
    base: Words  # int64[4]: first page of the direct map in the KVA, ranges in use in it, the highest, blocks moved


class State(NamedTuple):
    """Address space, and what is behind it."""

    p: Params
    kva: vmem.State
    phys: Phys
