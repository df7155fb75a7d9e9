"""Stale references: what lies at the place of a freed object when somebody still reads there.

A *watch* begins just before an object is freed that somebody still refers to, and ends with the last read. Meanwhile
whatever takes the first byte of the object is noted: an object (of the same kind, beginning at the same address, or
another one), a map that takes the page back, or gives it out again. A read then finds one of five things:

- the object itself: nobody has used its memory since;
- another object of the same kind, and the reader finds that out from a generation count;
- the same, and it does not: it takes the wrong object for its own;
- something else: an object of another kind, a part of one, or a page that a map has handed out again;
- no page: it faults.

What an allocator writes into free memory of its own (links, headers) is not noted, and a reference to an object that an
allocator moves is not followed. All is in one array `w` (empty: nobody watches): counts first, then for each page of
the KVA the first watch on it, then the watches. A watch is named by the place where it begins, 0 is none.
"""

import numpy as np

from kmemexp.jit import kernel
from kmemexp.sim.ops import CHECKS, LAST
from kmemexp.sim.slots import MAP_ALLOC, MAP_FREE, PAGE_SHIFT, R_BASE, R_BYTES, R_MAP

# Counts, and what is told when the table is made.
REFERENCES = 0  # references that did not outlive their object
SAME_OBJECT = 1  # reads after the free, by what they found
SAME_TYPE = 2
WRONG_OBJECT = 3
OTHER_TYPE = 4
UNMAPPED = 5
KIND = 6  # the kind that is watched
PAGES = 7  # pages of the KVA
DIRECT = 8  # map whose pages stay mapped when they are free; -1: none
HEADER = 9

# A watch.
ADDR = 0  # of the object; GONE: there was none
HOLDS = 1  # what is there now
NEXT = 2  # next watch on the same page
BACK = 3  # place of the number that leads to this one
COLUMNS = 4
GONE = -1

# What is there: nothing new, an object of the kind, something else, no page.
INTACT, SAME, OTHER, NOTHING = range(4)


NONE = np.zeros(0, np.int64)


def table(*, kind: int, watches: int, references: int, kva_bytes: int, direct_map: int) -> np.ndarray:
    """Make the table for so many watches of one kind's objects; `references`: those that need none."""
    pages = kva_bytes >> PAGE_SHIFT
    w = np.zeros(HEADER + pages + watches * COLUMNS, np.int64)
    w[REFERENCES], w[KIND], w[PAGES], w[DIRECT] = references, kind, pages, direct_map
    return w


def census(w: np.ndarray) -> dict[str, float]:
    """Count references and stale reads, under the names of the metrics."""
    same, benign, wrong, other, unmapped = (int(n) for n in w[SAME_OBJECT : UNMAPPED + 1])
    stale = same + benign + wrong + other + unmapped
    total = int(w[REFERENCES]) + stale
    return {
        "references_count": total,
        "stale_reads_count": stale,
        "stale_same_object_count": same,
        "stale_same_type_count": benign + wrong,
        "stale_wrong_object_count": wrong,
        "stale_other_type_count": other,
        "stale_unmapped_count": unmapped,
        "violations_per_million": (wrong + other + unmapped) / total * 1e6 if total else 0.0,
    }


@kernel
def begin_watch(w, number, addr):
    """Begin watch `number` on the object at an address; below 0: its allocation had failed."""
    x = HEADER + w[PAGES] + number * COLUMNS
    if addr < 0:
        w[x + ADDR] = GONE
        return
    place = HEADER + (addr >> PAGE_SHIFT)
    following = w[place]
    w[x + ADDR] = addr
    w[x + HOLDS] = INTACT
    w[x + NEXT] = following
    w[x + BACK] = place
    if following:
        w[following + BACK] = x + NEXT
    w[place] = x


@kernel
def read_freed(w, number, how):
    """Read through a reference to the object of a watch; `how`: CHECKS, LAST."""
    x = HEADER + w[PAGES] + number * COLUMNS
    if w[x + ADDR] == GONE:
        return
    holds = w[x + HOLDS]
    if holds == INTACT:
        w[SAME_OBJECT] += 1
    elif holds == OTHER:
        w[OTHER_TYPE] += 1
    elif holds == NOTHING:
        w[UNMAPPED] += 1
    elif how & CHECKS:
        w[SAME_TYPE] += 1
    else:
        w[WRONG_OBJECT] += 1
    if how & LAST:
        following = w[x + NEXT]
        w[w[x + BACK]] = following
        if following:
            w[following + BACK] = w[x + BACK]
        w[x + ADDR] = GONE


@kernel
def note_object(w, addr, nbytes, kind):
    """Note that an object of `kind` is in [addr, addr + nbytes) now."""
    for page in range(addr >> PAGE_SHIFT, ((addr + nbytes - 1) >> PAGE_SHIFT) + 1):
        x = w[HEADER + page]
        while x:
            at = w[x + ADDR]
            if addr <= at < addr + nbytes:
                w[x + HOLDS] = SAME if at == addr and kind == w[KIND] else OTHER
            x = w[x + NEXT]


@kernel
def note_map_step(w, answer, reg, i):
    """Note a map step that has been carried out: a map took pages back, or gave them out."""
    if answer == MAP_FREE:
        if reg[i, R_MAP] == w[DIRECT]:
            return
        holds = NOTHING
    elif answer == MAP_ALLOC:
        holds = OTHER
    else:
        return
    first = reg[i, R_BASE] >> PAGE_SHIFT
    for page in range(first, first + (reg[i, R_BYTES] >> PAGE_SHIFT)):
        x = w[HEADER + page]
        while x:
            w[x + HOLDS] = holds
            x = w[x + NEXT]
