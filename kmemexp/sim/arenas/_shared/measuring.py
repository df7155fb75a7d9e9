"""How an arena describes itself: holes for `map_measure`, occupied shares for `map_paint`."""

from kmemexp.jit import kernel
from kmemexp.sim.aliases import Address, Bytes, Shares, Words
from kmemexp.sim.arenas._shared.powers import log2
from kmemexp.sim.slots import PAGE_SHIFT
from kmemexp.sim.tables import gauge


@kernel
def size_class(nbytes: Bytes) -> int:
    """Class k holds 2**k … 2**(k+1)-1 pages; the last class all above."""
    return min(log2(nbytes >> PAGE_SHIFT), gauge.CLASSES - 1)


@kernel
def count_hole(out: Words, nbytes: Bytes, end: Address) -> None:
    """Enter a hole of `nbytes` before `end`, if there is one, in what `map_measure` writes."""
    if nbytes > 0:
        out[gauge.FREE] += nbytes
        out[gauge.LARGEST] = max(out[gauge.LARGEST], nbytes)
        out[gauge.HOLES] += 1
        out[gauge.HIST + size_class(nbytes)] += nbytes
        out[gauge.WHOLE] += whole(nbytes, end)


@kernel
def whole(nbytes: Bytes, end: Address) -> int:
    """Aligned stretches of gauge.STRETCH bytes that lie in the `nbytes` before `end`."""
    return max(end // gauge.STRETCH - (end - nbytes + gauge.STRETCH - 1) // gauge.STRETCH, 0)


@kernel
def paint(bins: Shares, base: Address, top: int, start: int, end: int) -> None:
    """Raise the occupied share of the stretches of [base, top) that [start, end), which is in use, lies in."""
    scale = len(bins) / (top - base)
    low, high = (start - base) * scale, (end - base) * scale
    for b in range(int(low), min(int(high), len(bins) - 1) + 1):
        bins[b] = min(1.0, bins[b] + min(high, b + 1.0) - max(low, float(b)))


@kernel
def erase(bins: Shares, base: Address, top: int, start: int, end: int) -> None:
    """Lower the occupied share of the stretches of [base, top) that [start, end), which is free, lies in."""
    scale = len(bins) / (top - base)
    low, high = (start - base) * scale, (end - base) * scale
    for b in range(int(low), min(int(high), len(bins) - 1) + 1):
        bins[b] = max(0.0, bins[b] - (min(high, b + 1.0) - max(low, float(b))))
