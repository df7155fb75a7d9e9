"""Small workloads, and plain-NumPy looks at a stream."""

import numpy as np

from kmemexp.workload.stream import OP_ALLOC, OP_FREE, Stream


def kind(**changes):
    """A kind with every law as simple as can be."""
    plain = {
        "class": "malloc",
        "size": {"law": "fixed", "bytes": 64},
        "rate_hz": 100.0,
        "lifetime": {"law": "exponential", "mean_s": 0.2},
    }
    return plain | changes


def load(kinds=None, **changes):
    """A synthetic workload of two seconds."""
    plain = {
        "name": "test",
        "source": "synthetic",
        "duration_s": 2.0,
        "scale": 1.0,
        "phases": [{"name": "only", "seconds": 2.0, "level": 1.0}],
        "kinds": kinds or {"object": kind()},
    }
    return plain | changes


def allocs(stream):
    """Mask of the allocations."""
    return stream.op == OP_ALLOC


def pairs(stream):
    """Row of each free and of the allocation before it on the same slot."""
    order = np.lexsort((np.arange(stream.length), stream.slot))
    at = np.flatnonzero(stream.op[order] == OP_FREE)
    return order[at], order[at - 1]


def lifetimes_ns(stream):
    """Lifetimes of the objects that are freed."""
    free, alloc = pairs(stream)
    return stream.time_ns[free] - stream.time_ns[alloc]


def live_at(stream, time_ns):
    """Number of live objects just after each of these times."""
    live = np.concatenate([[0], np.cumsum(np.where(stream.op == OP_ALLOC, 1, -1))])
    return live[np.searchsorted(stream.time_ns, time_ns, side="right")]


def same(a, b, *, but=()):
    """Whether two streams agree in every column except those in `but`."""
    columns = [c for c in Stream._fields if c not in but]
    return all(np.array_equal(getattr(a, c), getattr(b, c)) for c in columns)


def check_conservation(stream):
    """Every free has its allocation, no slot is used twice at once, times and columns are in order."""
    assert np.all(np.diff(stream.time_ns) >= 0)
    owner = {}
    for op, slot, kind_number, size in zip(stream.op, stream.slot, stream.kind, stream.size, strict=True):
        assert 0 <= slot < stream.slots
        if op == OP_ALLOC:
            assert slot not in owner
            assert size > 0
            owner[slot] = kind_number
        else:
            assert owner.pop(slot) == kind_number
            assert size == 0
