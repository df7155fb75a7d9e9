"""The fields of an event: `key=value`, in any order, of which those are read that an event needs."""

import numpy as np

from kmemexp.jit import kernel
from kmemexp.workload.traces import gfp, words
from kmemexp.workload.traces import lines as ln
from kmemexp.workload.traces import schema as sc
from kmemexp.workload.traces import tokens as tk
from kmemexp.workload.traces.lines import Lines, Scan
from kmemexp.workload.traces.tokens import Text

# Keys of the fields that are read, by number; `va_start:` is how alloc_vmap_area prints it.
KEYS = (
    "ptr", "name", "bytes_req", "bytes_alloc", "gfp_flags", "va_start", "size", "failed", "irq", "vec", "vector",
    "call_site", "accounted", "pfn", "order",
)  # fmt: skip
PTR, NAME, REQ, ALLOC, GFP, VA_START, SIZE, FAILED, IRQ, VEC, VECTOR, SITE, ACCOUNTED, PFN, ORDER = range(len(KEYS))
KEY_TEXT, KEY_LENGTH = tk.words(KEYS)
# Keys that a line must have, as bits, by schema.DO_*.
_NEEDS = (
    (PTR, REQ, ALLOC, GFP), (PTR,), (VA_START, SIZE, FAILED), (VA_START,), (VECTOR,), (VECTOR,), (PFN, ORDER),
    (PFN, ORDER), (),
)  # fmt: skip
NEEDS = np.array([sum(1 << key for key in keys) for keys in _NEEDS])
DOES = np.array([e.does for e in sc.EVENTS])
HIDDEN_TEXT, HIDDEN_LENGTH = tk.words(("(____ptrval____)", "(ptrval)", "(efault)", "(einval)"))
_DECIMAL_WIDTH = 17  # hex pointers have 16 digits at most

# Cache of an event that names none: kmalloc's, an unnamed one, or (frees) not known.
DEFAULT_CACHE = np.array([-1 if e.does != sc.DO_ALLOC else int(e.name[:7] != sc.KMALLOC) for e in sc.EVENTS])


@kernel
def read(text: Text, at: int, end: int, event: int, lines: Lines, row: int, st: Scan) -> bool:
    """Read the fields of one of our events. Returns False if one is missing or cut off."""
    does = DOES[event]
    has = 0
    lines.address[row] = lines.requested[row] = lines.allocated[row] = lines.vector[row] = 0
    lines.gfp[row] = 0
    lines.site[row] = -1
    lines.cache[row] = DEFAULT_CACHE[event]
    while True:
        at = tk.skip(text, at, end)
        if at >= end:
            break
        stop = tk.token(text, at, end)
        value = tk.key_end(text, at, stop)  # where the value begins
        key = tk.which(text, at, value - 1, KEY_TEXT, KEY_LENGTH) if value > at else -1
        at = stop
        if key < 0 or (value >= stop and key not in (PTR, VA_START)):
            continue
        ok = True
        if key == PTR:
            lines.address[row], at = _pointer(text, value, end, st)
            ok = at >= 0
        elif key == VA_START:
            value = tk.skip(text, value, end)
            at = tk.token(text, value, end)
            lines.address[row], ok = tk.address(text, value, at, does == sc.DO_KVA_FREE)
        elif key in (GFP, NAME, SITE, ACCOUNTED):
            _said(text, value, stop, key, does, lines, row, st)
        else:
            figure, ok = tk.number(text, value, stop)
            key = _figure(key, figure, lines, row)
        if not ok:
            return False
        has |= 1 << key
    if has & NEEDS[does] != NEEDS[does]:
        return False
    _note_names(does, lines, row, st)
    return True


@kernel
def _figure(key: int, figure: int, lines: Lines, row: int) -> int:
    """Keep a number where it belongs. Returns its key, one for all kinds of interrupt."""
    if key in (REQ, SIZE):
        lines.requested[row] = figure
    elif key in (ALLOC, FAILED, ORDER):
        lines.allocated[row] = figure
    elif key == PFN:
        lines.address[row] = figure
    else:
        lines.vector[row] = figure
        return VECTOR
    return key


@kernel
def _said(text: Text, at: int, end: int, key: int, does: int, lines: Lines, row: int, st: Scan) -> None:
    """Read a field that is a word."""
    if key == NAME:
        if does <= sc.DO_FREE:
            number = words.number(st.names, text, at, end)
            if number < 0:
                st.counts[ln.SEEN_FULL] = 1
            else:
                lines.cache[row] = number
    elif does != sc.DO_ALLOC:
        return
    elif key == SITE:
        lines.site[row] = words.number(st.sites, text, at, end)
    elif key == ACCOUNTED:
        lines.gfp[row] |= gfp.ACCOUNTED if text[at] in (tk.T, tk.ONE) else 0
    elif tk.is_digit(text[at]):
        value, _ = tk.number(text, at, end)
        st.counts[ln.SEEN_NUMERIC] += 1
        st.counts[ln.SEEN_GFP] = gfp.layout(value, st.counts[ln.SEEN_GFP])
        lines.gfp[row] |= gfp.numeric(value, st.counts[ln.SEEN_GFP])
    else:
        lines.gfp[row] |= gfp.named(text, at, end)


@kernel
def _note_names(does: int, lines: Lines, row: int, st: Scan) -> None:
    """Count which events of caches name them."""
    if does == sc.DO_ALLOC and lines.cache[row] != 0:
        st.counts[ln.SEEN_UNNAMED if lines.cache[row] == 1 else ln.SEEN_NAMED] += 1
    elif does == sc.DO_FREE and lines.cache[row] > 1:
        st.counts[ln.SEEN_NAMED_FREES] += 1


@kernel
def _pointer(text: Text, at: int, end: int, st: Scan) -> tuple[int, int]:
    """Read a pointer: hex with or without 0x, (nil) or (null), or decimal. Returns (address, end or -1)."""
    at = tk.skip(text, at, end)
    stop = tk.token(text, at, end)
    if stop > at and text[at] == tk.PAREN:
        if tk.which(text, at, stop, HIDDEN_TEXT, HIDDEN_LENGTH) >= 0:
            st.counts[ln.SEEN_HIDDEN] += 1
            return 0, -1
        return 0, stop if text[stop - 1] == tk.CLOSE_PAREN else -1
    prefixed = stop - at >= 2 and text[at + 1] == tk.X
    width = st.counts[ln.SEEN_WIDTH]
    if not prefixed and width == 0 and stop - at >= 8:
        width = st.counts[ln.SEEN_WIDTH] = stop - at
    value, ok = tk.address(text, at, stop, width < _DECIMAL_WIDTH)
    if not ok:
        return 0, -1
    # The kernel prints unprefixed pointers in their full width: a shorter one at the end of a line was cut off.
    if not prefixed and stop - at < width and width in (8, 16):
        return 0, -1
    return value, stop
