"""What a design provides to the drivers: the names that a driver calls, and the registers in which the two talk.

An operation in progress owns one row of `reg` (int64): the driver fills in the request, a step of the allocator
does a piece of work on the allocator's state and *answers* what comes next. A step that asks something of the
driver (a map step, a message to another CPU) keeps where it was in `R_PHASE` and is called again with the result.
The fast path is one step; the slow path is several.

`alloc_a`/`free_a`/`tend_a`, `alloc_b`/…, `alloc_c`/… are the steps of up to three object allocators, `map_*` those of
the arena. The functions below are stubs: `jit.bind` puts a design's own functions in their place and compares the
signatures with these.
"""

# Registers.
R_CPU = 0  # CPU that the step runs on
R_ITEM = 1  # what is asked for: number of the zone in the allocator's own list, or ITEM_*
R_SIZE = 2  # bytes requested
R_ADDR = 3  # address of the chunk: result of an alloc, argument of a free
R_FLAGS = 4  # F_* bits
R_PHASE = 5  # where the allocator's state machine stands; 0 when the operation begins
R_GRANTED = 6  # bytes of the chunk handed out (set by the step that answers DONE to an alloc)
R_MAP = 7  # map step: which map
R_BASE = 8  # map step: address (result of MAP_ALLOC, argument of MAP_FREE); negative: refused
R_BYTES = 9  # map step: bytes, a page multiple
R_ALIGN = 10  # map step: alignment in bytes
R_ATTR = 11  # map step: ATTR_* of the entry
R_TARGET = 12  # IPI: the CPU that goes on with the operation
R_PANIC = 13  # P_*: how the historic kernel would have died of this failure
R_X = 14  # the allocator's own scratch registers
R_Y = 15
R_WORK = 16  # items that the step put on lists, beyond the one it hands out; the driver sets it to 0 before each step
R_LOCK = 17  # AGAIN: lock of the next step, class << LOCK_SHIFT | which of its class
R_LOCKED = 18  # 1: the map that the allocator grows in is locked by somebody (timed engine)
R_OBJECT = 19  # number of the object in the driver's table, for an allocator that moves objects
R_COUNT = 20
LOCK_SHIFT = 20

# R_ITEM of what is no zone.
ITEM_MALLOC = -1
ITEM_MBUF = -2

# Why an allocator is asked to tend to itself (R_SIZE).
T_TICK = 0  # another TICK_NS has passed
T_REAP = 1  # memory is short, or a map has no room: give back what can be spared

# Request flags.
F_NOWAIT = 1  # the caller cannot sleep (M_NOWAIT, GFP_ATOMIC)
F_SOFT = 2  # in a soft interrupt or an interrupt thread
F_HARD = 4  # in a fast interrupt or an IPI handler
F_RESERVE = 8  # may use the system's page reserve (M_USE_RESERVE)
F_INTERRUPT = 16  # may use the interrupts' page reserve (M_INTWAIT, M_USE_INTERRUPT_RESERVE)

# Answers.
DONE = 0  # finished; an alloc left R_ADDR and R_GRANTED
FAILED = 1  # no memory; R_PANIC may name a panic
MAP_ALLOC = 2  # allocate R_BYTES of KVA, wired, in R_MAP, then call again with R_BASE
MAP_FREE = 3  # give R_BASE, R_BYTES back to R_MAP, then call again
WIRE = 4  # wire R_BYTES of physical memory at KVA that the allocator owns already, then call again with R_BASE
AGAIN = 5  # a further step of the same operation
IPI = 6  # go on with the operation on CPU R_TARGET
MOVE = 7  # object R_OBJECT has been copied from R_ADDR to R_BASE; called again with R_BASE < 0 if its owner refuses

# Classes of request that an allocator may serve (its constant SERVES).
C_MALLOC = 0  # malloc(9): any size
C_ZONE = 1  # a typed zone: R_ITEM says which
C_MBUF = 2  # network buffers
SERVED = ("malloc", "zone", "mbuf")  # their names

PLACES = ("a", "b", "c")  # of a design's object allocators: it has so many at most

# Attributes of a map entry: what it may merge with.
ATTR_SINGLE = 0  # nothing (submaps, separate objects)
ATTR_WIRED = 1  # wired pages of the kernel object: merges with equal neighbours on both sides
ATTR_PAGEABLE = 2  # no object: a new one may extend its predecessor
ATTR_COUNT = 3
ATTR_SORT = 3  # mask of the above
ATTR_NOFREE = 4  # a further bit: whoever asks will never give the memory back

# What `map_attr` adds above these bits for an arena that looks at who asks.
WHO_SHIFT = 8
WHO_COUNT = 4096  # requesters that it can tell apart

# Results of map_alloc/map_free below zero.
NO_SPACE = -1  # no hole is large enough
NO_ENTRY = -2  # map entries are exhausted
NO_PAGES = -3  # no physical page (timed engine)
RECURSES = -5  # a map entry was needed from the very map that the operation has locked
REFUSED_LOCK = -4  # the map's lock could not be had (timed engine)

# Panics, by what the historic kernel printed (names in kmemexp/metrics.py).
P_NONE = 0
P_KMEM_MAP = 1
P_KERNEL_MAP = 2
P_ENTRIES = 3
P_SELF = 4  # a lock requested by its own holder
P_SLEEP = 5  # sleep in an interrupt
P_IDLE_SLEEP = 6  # sleep in an interrupt that came while the CPU was idle
P_RECURSION = 7  # map entries run out while the map that would give more is locked

# What map_measure writes: totals, then free bytes by size class of the hole they lie in.
M_FREE = 0  # free bytes
M_LARGEST = 1  # bytes of the largest hole
M_HOLES = 2  # number of holes
M_ENTRIES = 3  # number of map entries in use
M_HIGH = 4  # highest address ever allocated, relative to the map's start
M_WALKED = 5  # entries that the policy's linear searches passed, since the beginning
M_ENTRY_BYTES = 6  # memory that the entries' own supply holds
M_HIST = 8  # M_HIST + k: free bytes in holes of 2**k … 2**(k+1)-1 pages
M_CLASSES = 32
M_COUNT = M_HIST + M_CLASSES

EACH_FREE = -1  # what map_flushes returns where every free flushes the TLB

PAGE = 4096
PAGE_SHIFT = 12


def alloc_a(st, reg, i):
    """One step of an allocation by the first object allocator: `reg[i]` holds the operation. Returns an answer."""
    raise NotImplementedError


def free_a(st, reg, i):
    """One step of a free by the first object allocator. Returns an answer."""
    raise NotImplementedError


def alloc_b(st, reg, i):
    """One step of an allocation by the second object allocator."""
    raise NotImplementedError


def free_b(st, reg, i):
    """One step of a free by the second object allocator."""
    raise NotImplementedError


def alloc_c(st, reg, i):
    """One step of an allocation by the third object allocator."""
    raise NotImplementedError


def free_c(st, reg, i):
    """One step of a free by the third object allocator."""
    raise NotImplementedError


def tend_a(st, reg, i):
    """One step of the first object allocator's upkeep; R_SIZE says why (T_*). Answers like a free."""
    raise NotImplementedError


def tend_b(st, reg, i):
    """One step of the second object allocator's upkeep."""
    raise NotImplementedError


def tend_c(st, reg, i):
    """One step of the third object allocator's upkeep."""
    raise NotImplementedError


def map_alloc(st, m, nbytes, align, attr, cpu):
    """Enter `nbytes` in map `m` at a multiple of `align` (bytes). Returns the address, NO_SPACE or NO_ENTRY."""
    raise NotImplementedError


def map_free(st, m, addr, nbytes, cpu):
    """Remove [addr, addr + nbytes) from map `m`, part of an entry or several. Returns 0 or NO_ENTRY."""
    raise NotImplementedError


def map_attr(attr, server, reg, i):
    """What an arena is told of a request: ATTR_* and, if it wants to know, who asks (WHO_SHIFT). Returns the `attr`."""
    raise NotImplementedError


def map_walked(st, m):
    """Entries that the linear searches of map `m` have passed since the beginning."""
    raise NotImplementedError


def map_free_bytes(st, m):
    """Free bytes of map `m` in all."""
    raise NotImplementedError


def map_flushes(st, m):
    """TLB flushes for map `m` since the beginning, where a free does not cost one each; else EACH_FREE."""
    raise NotImplementedError


def map_measure(st, m, out):
    """Write the state of map `m` into `out` (int64[M_COUNT])."""
    raise NotImplementedError


def map_paint(st, m, bins):
    """Write the occupied share of each of len(bins) equal stretches of map `m` (float64, 0 … 1)."""
    raise NotImplementedError
