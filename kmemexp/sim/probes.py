"""What drivers keep: counters (int64[tally.COLUMNS]), the table of live objects, histograms of latencies.

A histogram has 32 buckets for each doubling, so that a bucket is at most 1/32 of its values wide: the middle of a
bucket is within 1.6 % of everything in it. The bucket is read off the number's floating-point form, exponent and five
bits.
"""

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Address, Array, Memory, Ns, int64

# Who serves a kind.
SERVER_COUNT = 4  # three object allocators and the maps themselves
SERVER_A, SERVER_B, SERVER_C, SERVER_MAP = range(SERVER_COUNT)

# Histograms.
FINEST = 5  # bits
BUCKETS = (48 << FINEST) + 1  # to 2**48 ns, over three days; bucket 0 is for 0 ns
SHIFT = 52 - FINEST
BIAS = (1023 << FINEST) - 1

# Rows: latencies of operations by kind of context, then waits by class of lock, then a pair for each source.
HIST_ALLOC = 0  # HIST_ALLOC + kind of context (main, soft, thread, fast)
HIST_FREE = 4
HIST_WAIT = 8


@kernel
def bucket_of(ns: Ns) -> int:
    """Bucket of a duration, ns >= 0."""
    if ns <= 0:
        return 0
    return min(int64(np.float64(ns).view(np.int64) >> SHIFT) - BIAS, BUCKETS - 1)


@kernel
def observe_ns(m: Memory, base: Address, ns: Ns) -> None:
    """Count a duration in the histogram at place `base` of the machine's memory."""
    m[base + bucket_of(ns)] += 1


def bucket_bounds() -> tuple[Array, Array]:
    """Lower and upper bounds of the buckets in ns, float64[BUCKETS]: bucket b holds lower <= ns < upper."""
    edges = ((np.arange(BUCKETS, dtype=np.int64) + BIAS) << SHIFT).view(np.float64)
    edges[0] = 0.0
    upper = np.append(edges[1:], np.inf)
    upper[0] = 1.0
    return edges, upper
