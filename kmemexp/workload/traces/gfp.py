"""What the GFP flags of an allocation say, by name or as the number that some kernels and programs print.

Bits: include/linux/gfp.h, include/linux/gfp_types.h. Three layouts can be told apart by how GFP_KERNEL looks in them:
0xd0 (before Linux 4.4, where `__GFP_WAIT` is 0x10), 0x24000c0 or 0x14000c0 (4.4 to 4.20, `__GFP_DIRECT_RECLAIM`
0x400000), and 0xcc0 (since then, 0x400).
"""

from kmemexp.jit import kernel
from kmemexp.workload.traces import tokens as tk
from kmemexp.workload.traces.tokens import Text

# What is told of an allocation, as bits.
NOWAIT = 1
RECLAIMABLE = 2
DMA = 4
ACCOUNTED = 8

# Layout of a number.
UNKNOWN, OLD, MIDDLE, NEW = range(4)
_IO_FS, _NEW_RECLAIM, _NEW_DIRECT, _MIDDLE_DIRECT, _MIDDLE_KSWAPD, _OLD_WAIT = (
    0xC0, 0xC00, 0x400, 0x400000, 0x3000000, 0x10,
)  # fmt: skip
_NEW_RECLAIMABLE, _DMA = 0x10, 0x1

NAMES = (
    "GFP_ATOMIC", "GFP_NOWAIT", "__GFP_RECLAIMABLE", "GFP_DMA", "__GFP_DMA", "__GFP_ACCOUNT", "GFP_KERNEL_ACCOUNT",
)  # fmt: skip
MEANS = (NOWAIT, NOWAIT, RECLAIMABLE, DMA, DMA, ACCOUNTED, ACCOUNTED)
NAME_TEXT, NAME_LENGTH = tk.words(NAMES)


@kernel
def named(text: Text, at: int, end: int) -> int:
    """Read flags by name, such as GFP_ATOMIC|__GFP_ZERO. Returns bits."""
    found = 0
    while at < end:
        stop = at
        while stop < end and text[stop] != tk.BAR:
            stop += 1
        which = tk.which(text, at, stop, NAME_TEXT, NAME_LENGTH)
        if which >= 0:
            found |= MEANS[which]
        at = stop + 1
    return found


@kernel
def layout(value: int, known: int) -> int:
    """Tell the layout of the numbers of a trace from one of them, if it shows; else what is known already."""
    if known != UNKNOWN or value & _IO_FS != _IO_FS:
        return known
    if value & _NEW_RECLAIM == _NEW_RECLAIM:
        return NEW
    if value & _MIDDLE_DIRECT and value & _MIDDLE_KSWAPD:
        return MIDDLE
    return OLD if value & _OLD_WAIT else UNKNOWN


@kernel
def numeric(value: int, known: int) -> int:
    """Read flags from their number, in a layout (unknown: that of today's kernels). Returns bits."""
    found = DMA if value & _DMA else 0
    if known == OLD:
        sleeps = value & _OLD_WAIT
    elif known == MIDDLE:
        sleeps = value & _MIDDLE_DIRECT
    else:
        sleeps = value & _NEW_DIRECT
        found |= RECLAIMABLE if value & _NEW_RECLAIMABLE else 0
    return found if sleeps else found | NOWAIT
