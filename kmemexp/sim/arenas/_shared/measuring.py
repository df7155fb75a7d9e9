"""How an arena describes itself: holes for `map_measure`, occupied shares for `map_paint`."""

from kmemexp.jit import kernel
from kmemexp.sim import slots
from kmemexp.sim.arenas._shared.powers import log2
from kmemexp.sim.slots import PAGE_SHIFT


@kernel
def size_class(nbytes):
    """Class k holds 2**k … 2**(k+1)-1 pages; the last class all above."""
    return min(log2(nbytes >> PAGE_SHIFT), slots.M_CLASSES - 1)


@kernel
def count_hole(out, nbytes):
    """Enter a hole, if there is one, in what `map_measure` writes."""
    if nbytes > 0:
        out[slots.M_FREE] += nbytes
        out[slots.M_LARGEST] = max(out[slots.M_LARGEST], nbytes)
        out[slots.M_HOLES] += 1
        out[slots.M_HIST + size_class(nbytes)] += nbytes


@kernel
def paint(bins, base, top, start, end):
    """Raise the occupied share of the stretches of [base, top) that [start, end), which is in use, lies in."""
    scale = len(bins) / (top - base)
    low, high = (start - base) * scale, (end - base) * scale
    for b in range(int(low), min(int(high), len(bins) - 1) + 1):
        bins[b] = min(1.0, bins[b] + min(high, b + 1.0) - max(low, float(b)))


@kernel
def erase(bins, base, top, start, end):
    """Lower the occupied share of the stretches of [base, top) that [start, end), which is free, lies in."""
    scale = len(bins) / (top - base)
    low, high = (start - base) * scale, (end - base) * scale
    for b in range(int(low), min(int(high), len(bins) - 1) + 1):
        bins[b] = max(0.0, bins[b] - (min(high, b + 1.0) - max(low, float(b))))
