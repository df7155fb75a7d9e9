"""Places of the counters that a driver keeps (int64[A_COUNT]) and columns of its table of live objects."""

# Counters.
A_OPS = 0  # operations played
A_ALLOCS = 1  # allocations that succeeded
A_FREES = 2
A_REQUESTED = 3  # requested bytes of live objects (of the object allocators: what a map serves itself counts below)
A_GRANTED = 4  # granted bytes of live objects
A_REQUESTED_PEAK = 5
A_HELD = 6  # bytes that the object allocators hold (pages wired for them)
A_HELD_PEAK = 7
A_REQUESTED_TOTAL = 8
A_GRANTED_TOTAL = 9
A_STEPS = 10
A_MAP_OPS = 11
A_IPIS = 12
A_FRAGMENTED = 13  # map requests refused although enough was free in total
A_EXHAUSTED = 14  # map requests refused for want of free KVA
A_FAILURES = 15  # operations that got nothing
A_NOWAIT_FAILURES = 16
A_PANICS = 17
A_PANIC = 18  # P_* of the first panic
A_PANIC_OP = 19  # operation at which it happened
A_DIRECT = 20  # bytes mapped straight from a map (pipe KVA, u-areas, …)
A_COUNT = 24

# Live objects, one row per slot.
O_ADDR = 0  # address, or ABSENT
O_SIZE = 1  # bytes requested
O_GRANTED = 2  # bytes granted
O_COUNT = 4  # a row is half a cache line
ABSENT = -1

# Who serves a kind.
SERVER_A, SERVER_B, SERVER_C, SERVER_MAP = 0, 1, 2, 3
