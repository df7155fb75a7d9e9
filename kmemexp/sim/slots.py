"""What a design provides to the drivers: the names that a driver calls, and the registers in which the two talk.

An operation in progress owns one row of `reg` (int64): the driver fills in the request, a step of the allocator
does a piece of work on the allocator's state and *answers* what comes next. A step that asks something of the
driver (a map step, a message to another CPU) keeps where it was in `regs.PHASE` and is called again with the result.
The fast path is one step; the slow path is several. On the machine with a clock each step runs under the lock, or in
the section, that it names; regs.CALL and regs.BARE say what else there is to say (docs/architecture.md).

`alloc_a`/`free_a`/`tend_a`, `alloc_b`/…, `alloc_c`/… are the steps of up to three object allocators, `map_*` those of
the arena. The functions below are stubs: `jit.bind` puts a design's own functions in their place and compares the
signatures with these.
"""

from typing import TYPE_CHECKING, Any

from kmemexp.sim.tables import flag, gauge, panics, regs

if TYPE_CHECKING:  # what a plan needs of this module comes without NumPy
    from kmemexp.sim.aliases import Address, Bytes, MapNo, Registers, Shares, Words

# regs.ITEM of what is no zone.
ITEM_MALLOC = -1
ITEM_MBUF = -2
ITEM_TYPE = -1024  # less n: a malloc of type n, 1 …, by an allocator that limits types
ITEM_PACKET = -64  # an mbuf with its cluster, in one request: m_getcl()


def item_of_set(kmalloc: int) -> int:
    """regs.ITEM of a request of one of Linux's sets of kmalloc() caches; of the usual set: ITEM_MALLOC."""
    return ITEM_MBUF - kmalloc if kmalloc else ITEM_MALLOC


# Why an allocator is asked to tend to itself (regs.SIZE).
TEND_TICK = 0  # another TICK_NS has passed
TEND_REAP = 1  # memory is short, or a map has no room: give back what can be spared
TEND_WATCH = 2  # its own thread looks whether there is something to give back (the module's `watch_ns`)


# Answers.
DONE = 0  # finished; an alloc left regs.ADDR and regs.GRANTED
FAILED = 1  # no memory; regs.PANIC may name a panic
MAP_ALLOC = 2  # allocate regs.BYTES of KVA, wired, in regs.MAP, then call again with regs.BASE
MAP_FREE = 3  # give regs.BASE, regs.BYTES back to regs.MAP, then call again
WIRE = 4  # wire regs.BYTES of physical memory at KVA that the allocator owns already, then call again with regs.BASE
AGAIN = 5  # a further step of the same operation
IPI = 6  # go on with the operation on CPU regs.TARGET
# Object regs.OBJECT has been copied from regs.ADDR to regs.BASE; called again with regs.BASE < 0 if its owner refuses.
MOVE = 7
# Sleep until somebody frees what regs.CHANNEL stands for (regs.WAKE), regs.WITHIN ns at most; go on under regs.LOCK.
# Called again with flag.NOWAIT and WAITED where the caller cannot sleep, or nobody is left who could free it.
SLEEP = 8

# Classes of request that an allocator may serve (its constant SERVES).
CLASS_MALLOC = 0  # malloc(9): any size
CLASS_ZONE = 1  # a typed zone: regs.ITEM says which
CLASS_MBUF = 2  # network buffers
SERVED = ("malloc", "zone", "mbuf")  # their names

PLACES = ("a", "b", "c")  # of a design's object allocators: it has so many at most

# Attributes of a map entry: what it may merge with.
ATTR_SINGLE = 0  # nothing (submaps, separate objects)
ATTR_WIRED = 1  # wired pages of kernel_object: merges with equal neighbours on both sides
ATTR_PAGEABLE = 2  # no object: a new one may extend its predecessor
ATTR_KMEM = 3  # the same of kmem_object, which kmem_malloc() enters until 2017: no neighbour of another object is equal
ATTR_COUNT = 4
ATTR_SORT = 3  # mask of the above
ATTR_NOFREE = 4  # a further bit: the requester will never give the memory back
# Further bits for an arena of physical pages that others use too; other arenas are not told of them.
ATTR_RECLAIM = 8  # of a cache whose objects can be reclaimed
ATTR_TRY = 16  # a first try, for which nothing is reclaimed: the requester will be content with less
ATTR_ATOMIC = 32  # the requester cannot wait
ATTR_SPREAD = 64  # any pages will do, wherever they are; log2 of the most at once stands above WHO_SHIFT
ATTR_FILE = 128  # of page cache, which is reclaimed when pages run short
# Further bits for an arena that has places of their own for them; other arenas are not told of them.
ATTR_METADATA = 1 << 20  # descriptors and magazines of the allocator itself
ATTR_OVERSIZE = 1 << 21  # a block beyond the allocator's caches
ATTR_STACK = 1 << 22  # a kernel stack, before which the arena puts a guard page
ATTR_CONTIG = 1 << 23  # physically contiguous pages
ATTR_LOW = 1 << 24  # of the lowest physical memory, for devices that reach no other (GFP_DMA)

# What `map_attr` adds above these bits for an arena that looks at who asks.
WHO_SHIFT = 8
WHO_COUNT = 4096  # requesters that it can tell apart: below ATTR_METADATA

# Results of map_alloc/map_free below zero.
NO_SPACE = -1  # no hole is large enough
NO_ENTRY = -2  # map entries are exhausted
NO_PAGES = -3  # no physical page (timed engine)
RECURSES = -5  # a map entry was needed from the very map that the operation has locked
REFUSED_LOCK = -4  # the map's lock could not be had (timed engine)


EACH_FREE = -1  # what map_flushes returns where every free flushes the TLB

FORMERLY = {"R": regs, "F": flag, "P": panics, "M": gauge}
"""Prefixes of version 0.1, and the tables that have their names now."""

PAGE = 4096
PAGE_SHIFT = 12


if not TYPE_CHECKING:

    def __getattr__(name: str) -> int:
        """Find a name of version 0.1 for parts from outside, which results folders keep: R_SIZE is regs.SIZE now."""
        prefix, _, rest = name.partition("_")
        if prefix in FORMERLY:
            return getattr(FORMERLY[prefix], "COLUMNS" if rest == "COUNT" else rest)
        renamed = {"C": f"CLASS_{rest}", "T": f"TEND_{rest}"}.get(prefix)
        if renamed in globals():
            return globals()[renamed]
        if name == "LOCK_SHIFT":
            return regs.LOCK_SHIFT
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def alloc_a(st: Any, reg: "Registers", i: int) -> int:
    """One step of an allocation by the first object allocator: `reg[i]` holds the operation. Returns an answer."""
    raise NotImplementedError


def free_a(st: Any, reg: "Registers", i: int) -> int:
    """One step of a free by the first object allocator. Returns an answer."""
    raise NotImplementedError


def alloc_b(st: Any, reg: "Registers", i: int) -> int:
    """One step of an allocation by the second object allocator."""
    raise NotImplementedError


def free_b(st: Any, reg: "Registers", i: int) -> int:
    """One step of a free by the second object allocator."""
    raise NotImplementedError


def alloc_c(st: Any, reg: "Registers", i: int) -> int:
    """One step of an allocation by the third object allocator."""
    raise NotImplementedError


def free_c(st: Any, reg: "Registers", i: int) -> int:
    """One step of a free by the third object allocator."""
    raise NotImplementedError


def tend_a(st: Any, reg: "Registers", i: int) -> int:
    """One step of the first object allocator's upkeep; regs.SIZE says why (TEND_*). Answers like a free."""
    raise NotImplementedError


def tend_b(st: Any, reg: "Registers", i: int) -> int:
    """One step of the second object allocator's upkeep."""
    raise NotImplementedError


def tend_c(st: Any, reg: "Registers", i: int) -> int:
    """One step of the third object allocator's upkeep."""
    raise NotImplementedError


def fast_alloc_a(st: Any, item: int, size: "Bytes", cpu: int, flags: int) -> "tuple[Address, Bytes]":
    """Allocate by the first object allocator, if that is its commonest case; else (ABSENT, 0), and nothing has changed.

    Optional: the driver without a clock asks before it asks `alloc`, without the registers. Where this serves a
    request, `alloc` must do the same in one step: the address, what is granted, the state afterwards.
    """
    raise NotImplementedError


def fast_free_a(st: Any, item: int, addr: "Address", size: "Bytes", cpu: int, flags: int) -> bool:
    """Free by the first object allocator, if that is its commonest case; else False, and nothing has changed."""
    raise NotImplementedError


def fast_alloc_b(st: Any, item: int, size: "Bytes", cpu: int, flags: int) -> "tuple[Address, Bytes]":
    """Allocate by the second object allocator, if that is its commonest case."""
    raise NotImplementedError


def fast_free_b(st: Any, item: int, addr: "Address", size: "Bytes", cpu: int, flags: int) -> bool:
    """Free by the second object allocator, if that is its commonest case."""
    raise NotImplementedError


def fast_alloc_c(st: Any, item: int, size: "Bytes", cpu: int, flags: int) -> "tuple[Address, Bytes]":
    """Allocate by the third object allocator, if that is its commonest case."""
    raise NotImplementedError


def fast_free_c(st: Any, item: int, addr: "Address", size: "Bytes", cpu: int, flags: int) -> bool:
    """Free by the third object allocator, if that is its commonest case."""
    raise NotImplementedError


def map_alloc(st: Any, map_no: "MapNo", nbytes: "Bytes", align: int, attr: int, cpu: int) -> int:
    """Enter `nbytes` in map `map_no` at a multiple of `align` (bytes). Returns the address, NO_SPACE or NO_ENTRY."""
    raise NotImplementedError


def map_free(st: Any, map_no: "MapNo", addr: "Address", nbytes: "Bytes", cpu: int) -> int:
    """Remove [addr, addr + nbytes) from map `map_no`, part of an entry or several. Returns 0 or NO_ENTRY."""
    raise NotImplementedError


def map_attr(reg: "Registers", i: int, attr: int, server: int) -> int:
    """What an arena is told of a request: ATTR_* and, if it wants to know, who asks (WHO_SHIFT). Returns the `attr`."""
    raise NotImplementedError


def map_walked(st: Any, map_no: "MapNo") -> int:
    """Entries that the linear searches of map `map_no` have passed since the beginning."""
    raise NotImplementedError


def map_free_bytes(st: Any, map_no: "MapNo") -> int:
    """Free bytes of map `map_no` in all."""
    raise NotImplementedError


def map_flushes(st: Any, map_no: "MapNo") -> int:
    """TLB flushes for map `map_no` since the beginning, where a free does not cost one each; else EACH_FREE."""
    raise NotImplementedError


def map_moved(st: Any, map_no: "MapNo") -> int:
    """Items that work under the lock of map `map_no` has moved since the beginning; constant where it always is."""
    raise NotImplementedError


def map_measure(st: Any, map_no: "MapNo", out: "Words") -> None:
    """Write the state of map `map_no` into `out` (int64[M_COUNT])."""
    raise NotImplementedError


def map_paint(st: Any, map_no: "MapNo", bins: "Shares") -> None:
    """Write the occupied share of each of len(bins) equal stretches of map `map_no` (float64, 0 … 1)."""
    raise NotImplementedError
