"""Registers: columns of `reg` (int64[rows, COLUMNS]), in which driver and allocator talk. A row is an operation."""

CPU = 0  # CPU that the step runs on
ITEM = 1  # what is asked for: number of the zone in the allocator's own list, or ITEM_*
SIZE = 2  # bytes requested
ADDR = 3  # address of the chunk: result of an alloc, argument of a free
FLAGS = 4  # flag.* bits
PHASE = 5  # where the allocator's state machine stands; 0 when the operation begins
GRANTED = 6  # bytes of the chunk handed out (set by the step that answers DONE to an alloc)
MAP = 7  # map step: which map
BASE = 8  # map step: address (result of MAP_ALLOC, argument of MAP_FREE); negative: refused
BYTES = 9  # map step: bytes, a page multiple
ALIGN = 10  # map step: alignment in bytes
ATTR = 11  # map step: ATTR_* of the entry
TARGET = 12  # IPI: the CPU that goes on with the operation
PANIC = 13  # panics.*: how the historic kernel would have died of this failure
X = 14  # the allocator's own scratch registers
Y = 15
WORK = 16  # items that the step put on lists, beyond the one it hands out; the driver sets it to 0 before each step
LOCK = 17  # AGAIN: lock of the next step, class << LOCK_SHIFT | which of its class
LOCKED = 18  # 1: the map that the allocator grows in is locked by somebody (timed engine)
OBJECT = 19  # number of the object in the driver's table, for an allocator that moves objects
CALL = 20  # map step: which of the allocator's CALLS; the driver sets it to -1, the usual one, before each step
BARE = 21  # 1: the step has worked outside its section; the driver sets it to 0 before each step
COLUMNS = 22
LOCK_SHIFT = 20
