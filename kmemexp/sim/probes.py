"""What drivers keep: counters (int64[A_COUNT]), the table of live objects, histograms of latencies.

A histogram has 32 buckets for each doubling, so that a bucket is at most 1/32 of its values wide: the middle of a
bucket is within 1.6 % of everything in it. The bucket is read off the number's floating-point form, exponent and five
bits.
"""

import numpy as np

from kmemexp.jit import kernel

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
A_RETRIED = 21  # 1 + operation that is tried again after a reclaim
A_MOVES = 22  # objects moved
A_MOVED = 23  # bytes moved
A_HELD_AT_PEAK = 24  # bytes held when the most were requested
A_REQUESTED_AT_PEAK = 25  # requested bytes when the most were held, the first time
A_COUNT = 26

# Live objects, one row per slot.
O_ADDR = 0  # address, or ABSENT
O_SIZE = 1  # bytes requested
O_GRANTED = 2  # bytes granted
O_KIND = 3
O_COUNT = 4  # a row is half a cache line
ABSENT = -1
PENDING = -2  # timed engine: its allocation has not ended
WANTED = -3  # the same, and a free of it waits

# Who serves a kind.
SERVER_COUNT = 4  # three object allocators and the maps themselves
SERVER_A, SERVER_B, SERVER_C, SERVER_MAP = range(SERVER_COUNT)

# Histograms.
FINEST = 5  # bits
BUCKETS = (48 << FINEST) + 1  # to 2**48 ns, over three days; bucket 0 is for 0 ns
SHIFT = 52 - FINEST
BIAS = (1023 << FINEST) - 1

# Rows: latencies of operations by kind of context, then waits by class of lock, then a pair for each source.
H_ALLOC = 0  # H_ALLOC + kind of context (main, soft, thread, fast)
H_FREE = 4
H_WAIT = 8


@kernel
def bucket_of(ns):
    """Bucket of a duration, ns >= 0."""
    if ns <= 0:
        return 0
    return min((np.float64(ns).view(np.int64) >> SHIFT) - BIAS, BUCKETS - 1)


@kernel
def observe_ns(m, base, ns):
    """Count a duration in the histogram at place `base` of the machine's memory."""
    m[base + bucket_of(ns)] += 1


def bucket_bounds() -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the buckets in ns, float64[BUCKETS]: bucket b holds lower <= ns < upper."""
    edges = ((np.arange(BUCKETS, dtype=np.int64) + BIAS) << SHIFT).view(np.float64)
    edges[0] = 0.0
    upper = np.append(edges[1:], np.inf)
    upper[0] = 1.0
    return edges, upper
